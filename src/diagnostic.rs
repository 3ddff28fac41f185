//! Errors of what a person typed, drawn with file, line and caret.
//!
//! In: a text, and what is wrong where. Out: the lines a terminal shows, without colour. Invariant: every span draws,
//! also one at the end of the text, inside a character or out of range. Not here: what is wrong (the parser, `resolve`,
//! `job`).

mod draw;
mod numbers;
mod suggest;

pub use numbers::{Seconds, Thousands};
pub use suggest::suggest;

/// `1 row`, `2 rows`.
pub fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// A range of bytes of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Span {
        Span { start, end }
    }

    /// From the start of this span to the end of the other.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The empty span behind this one.
    pub fn after(self) -> Span {
        Span { start: self.end, end: self.end }
    }
}

impl From<std::ops::Range<usize>> for Span {
    fn from(range: std::ops::Range<usize>) -> Span {
        Span { start: range.start, end: range.end }
    }
}

/// One error (or warning) in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// what is wrong, lower case
    pub title: String,
    /// where; `None` for a problem of the whole file
    pub span: Option<Span>,
    /// what was expected at the caret
    pub label: String,
    /// what to do about it
    pub help: Option<String>,
    /// more lines of explanation (both signatures of a function, …)
    pub notes: Vec<String>,
    pub is_warning: bool,
}

impl Diagnostic {
    /// An error at `span`; `None` for one of the whole file.
    pub fn error(title: impl Into<String>, span: impl Into<Option<Span>>) -> Diagnostic {
        Diagnostic {
            title: title.into(),
            span: span.into(),
            label: String::new(),
            help: None,
            notes: Vec::new(),
            is_warning: false,
        }
    }

    /// Something that is shown and does not stop anything.
    pub fn warning(title: impl Into<String>, span: impl Into<Option<Span>>) -> Diagnostic {
        Diagnostic { is_warning: true, ..Diagnostic::error(title, span) }
    }

    /// What was expected at the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = label.into();
        self
    }

    /// What to do about it. A second help replaces the first.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// One more line of explanation.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Diagnostic {
        self.notes.push(note.into());
        self
    }
}

/// All problems of one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostics {
    pub file: String,
    pub text: String,
    pub items: Vec<Diagnostic>,
}

impl Diagnostics {
    /// `file` is the name shown.
    pub fn new(file: impl Into<String>, text: impl Into<String>) -> Diagnostics {
        Diagnostics { file: file.into(), text: text.into(), items: Vec::new() }
    }

    pub fn push(&mut self, item: Diagnostic) {
        self.items.push(item);
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Errors among the items; the rest are warnings.
    pub fn error_count(&self) -> usize {
        self.items.iter().filter(|item| !item.is_warning).count()
    }

    pub fn has_errors(&self) -> bool {
        self.items.iter().any(|item| !item.is_warning)
    }

    /// Each problem as it is drawn, without the word in front of its title: for a log, whose lines have a level.
    pub fn log_lines(&self) -> Vec<String> {
        self.items.iter().map(|item| draw::without_level(self, item)).collect()
    }

    /// In the order of the text; problems of the whole file come first.
    pub fn sort(&mut self) {
        self.items.sort_by_key(|item| item.span.map(|span| (span.start, span.end)));
    }

    /// `value` when nothing is an error (warnings are dropped), else the sorted problems.
    ///
    /// # Errors
    /// Itself, when it holds an error.
    pub fn into_result<T>(mut self, value: T) -> Result<T, Diagnostics> {
        if !self.has_errors() {
            return Ok(value);
        }
        self.sort();
        Err(self)
    }
}

impl std::error::Error for Diagnostics {}
