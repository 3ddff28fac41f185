//! TOML text as a document.
//!
//! In: the text of a file. Out: its document, or what is no TOML. Invariant: one mistake is one problem, also a section
//! that is written twice with all its keys. Not here: which sections and keys there are (`section`).

use toml::Spanned;
use toml::de::{DeTable, Error};

use super::{Problems, may_be_secret};
use crate::diagnostic::{Diagnostic, Span};

/// As the `toml` crate says it; its errors have no kind that could be asked for.
const DUPLICATE: &str = "duplicate key";

/// The document; `None` with its syntax errors told.
pub fn document<'i>(text: &'i str, problems: &Problems) -> Option<Spanned<DeTable<'i>>> {
    let (document, mut errors) = DeTable::parse_recoverable(text);
    errors.sort_by_key(|error| error.span().map(|span| span.start));
    if !errors.is_empty() {
        // which value a secret is cannot be told of text that is no TOML
        lines_with_secrets(text).into_iter().for_each(|span| problems.mask_all(span));
    }
    let mut repeated: Option<&str> = None;
    for error in &errors {
        match error.span().filter(|_| error.message() == DUPLICATE).map(Span::from) {
            None => problems.push(invalid(error)),
            Some(span) => {
                let section = section_at(text, span.start);
                // what follows from a section that stands twice: its keys, and the sections below it
                if repeated.zip(section).is_some_and(|(outer, inner)| is_within(inner.name, outer)) {
                    continue;
                }
                let header = section.filter(|section| section.line == line_of(text, span.start));
                repeated = header.map(|section| section.name);
                problems.push(match header {
                    Some(section) => section_twice(text, section, span),
                    None => key_twice(text, span),
                });
            }
        }
    }
    errors.is_empty().then_some(document)
}

fn invalid(error: &Error) -> Diagnostic {
    Diagnostic::error(error.message(), error.span().map(Span::from))
        .help("the job file is TOML: `key = \"text\"` under `[section]`")
}

fn key_twice(text: &str, span: Span) -> Diagnostic {
    let key = text.get(span.start..span.end).unwrap_or_default();
    Diagnostic::error(format!("`{key}` is set twice"), span).label("the second one").help("keep one of the two lines")
}

fn section_twice(text: &str, section: Header<'_>, span: Span) -> Diagnostic {
    let first = headers(text).find(|header| header.name == section.name).filter(|first| first.line < section.line);
    let label = first.map_or("the second one".to_owned(), |first| format!("it begins in line {} already", first.line));
    Diagnostic::error(format!("the section `[{}]` is written twice", section.name), span)
        .label(label)
        .help("give one of the two another name, or move its keys into the other")
}

/// What stands behind the first `=` of each line that has the name of a secret, and the lines of a text that begins
/// there and goes on.
fn lines_with_secrets(text: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut open: Option<&str> = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let has_secret = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').any(may_be_secret);
        let value = line.find('=').filter(|_| has_secret).map(|at| at + 1);
        if let Some(from) = if open.is_some() { Some(0) } else { value } {
            spans.push(Span { start: start + from, end: start + line.trim_end_matches('\n').len() });
            open = match open {
                Some(quotes) => Some(quotes).filter(|quotes| !line.contains(*quotes)),
                None => ["\"\"\"", "'''"].into_iter().find(|quotes| line.matches(*quotes).count() == 1),
            };
        }
        start += line.len();
    }
    spans
}

/// The line of a section: `[outputs.scored]`.
#[derive(Clone, Copy)]
struct Header<'a> {
    /// What stands between the brackets.
    name: &'a str,
    /// From 1.
    line: usize,
}

fn headers(text: &str) -> impl Iterator<Item = Header<'_>> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let (name, rest) = line.trim_start().strip_prefix('[')?.split_once(']')?;
        let rest = rest.trim_start_matches(']').trim_start();
        let name = name.trim_start_matches('[').trim();
        (rest.is_empty() || rest.starts_with('#')).then_some(Header { name, line: index + 1 })
    })
}

/// The section in which the byte `at` stands; its own line belongs to it.
fn section_at(text: &str, at: usize) -> Option<Header<'_>> {
    let line = line_of(text, at);
    headers(text).take_while(|header| header.line <= line).last()
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Whether a section is `outer` or below it.
fn is_within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|below| below.is_empty() || below.trim_start().starts_with('.'))
}
