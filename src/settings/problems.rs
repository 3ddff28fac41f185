//! What is wrong with a file, collected.
//!
//! In: problems, in any order. Out: all of them. Invariant: a text that was masked is in no message. Not here: the
//! wording of any problem but that of a secret in the file.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Diagnostics, Span};

/// What is wrong, collected.
pub struct Problems {
    found: RefCell<Diagnostics>,
    folder: PathBuf,
    look_at_files: bool,
}

impl std::fmt::Debug for Problems {
    /// Without the text, of which not everything may be masked yet.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Problems").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Problems {
    pub fn new(file: &str, text: &str, folder: &Path, look_at_files: bool) -> Problems {
        Problems { found: RefCell::new(Diagnostics::new(file, text)), folder: folder.to_path_buf(), look_at_files }
    }

    /// The folder of the file: its paths are relative to it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether files that it names have to exist.
    pub fn looks_at_files(&self) -> bool {
        self.look_at_files
    }

    pub fn push(&self, problem: Diagnostic) {
        self.found.borrow_mut().push(problem);
    }

    pub fn extend(&self, problems: impl IntoIterator<Item = Diagnostic>) {
        problems.into_iter().for_each(|problem| self.push(problem));
    }

    /// Whether an error was told somewhere inside of `place`.
    pub(super) fn has_error_in(&self, place: Span) -> bool {
        let inside = |span: Span| place.start <= span.start && span.end <= place.end;
        self.found.borrow().items.iter().any(|item| !item.is_warning && item.span.is_some_and(inside))
    }

    /// Hides what a value says, so that no message shows a password. `span` includes its quotes.
    pub fn mask(&self, span: Span) {
        self.mask_all(Span { start: span.start + 1, end: span.end.saturating_sub(1) });
    }

    /// Hides all of a span. Each byte is a star and line breaks stay, for the places of other problems.
    pub(super) fn mask_all(&self, span: Span) {
        let mut found = self.found.borrow_mut();
        let stars =
            |secret: &str| secret.bytes().map(|byte| if byte == b'\n' { '\n' } else { '*' }).collect::<String>();
        if let Some(hidden) = found.text.get(span.start..span.end).map(stars) {
            found.text.replace_range(span.start..span.end, &hidden);
        }
    }

    /// Says that a secret is written into the file, and hides it. `span` includes its quotes.
    pub fn refuse_secret(&self, key: &str, span: Span) {
        self.mask(span);
        let error = Diagnostic::error(format!("`{key}` is written into the job file"), span)
            .label("expected `env:NAME`, `file:PATH` or `credential:NAME`")
            .help(format!("put the secret into an environment variable and write `{key} = \"env:NAME\"`"));
        self.push(error.note("job files are copied and logged; secrets are only referred to"));
    }

    pub fn into_inner(self) -> Diagnostics {
        self.found.into_inner()
    }
}
