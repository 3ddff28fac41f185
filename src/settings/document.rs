//! TOML text as a document.
//!
//! In: the text of a file. Out: its document, or what is no TOML. Invariant: one mistake is one problem; a section that
//! is written twice, with all its keys, is one too. Not here: which sections and keys there are (`section`).

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::Problems;
use super::secret::is_secretive;
use crate::diagnostic::{Diagnostic, Span};

/// As the `toml` crate says it; its errors have no kind that could be asked for.
const DUPLICATE: &str = "duplicate key";

/// What the same crate says of inline tables and arrays. One that is open takes all that follows for its own.
const OPEN: [&str; 3] = ["inline table", "array", "missing comma"];

/// The document; `None` with its syntax errors told. The values of `harmless` names are no secrets, also in text that
/// is no TOML.
pub fn document<'i>(text: &'i str, harmless: &[&str], problems: &Problems) -> Option<Spanned<DeTable<'i>>> {
    let (document, mut errors) = DeTable::parse_recoverable(text);
    errors.sort_by_key(|error| error.span().map(|span| span.start));
    // no message may show a secret, whatever is wrong with it or beside it
    let secrets = match errors.is_empty() {
        true => secrets_of(text, document.get_ref(), false),
        // which value a secret is cannot be told of text that is no TOML
        false => values_by_line(text, harmless),
    };
    for span in secrets {
        let is_quoted = text.get(span.start..span.end).is_some_and(|text| text.starts_with(['"', '\'']));
        let quote = usize::from(is_quoted && errors.is_empty());
        problems.mask_all(Span { start: span.start + quote, end: span.end - quote });
    }
    let mut repeated: Option<&str> = None;
    let mut broken: Option<usize> = None;
    let open = errors.iter().position(|error| OPEN.iter().any(|what| error.message().contains(what)));
    for error in errors.iter().take(open.map_or(usize::MAX, |open| open + 1)) {
        if error.message() != DUPLICATE {
            let line = error.span().map(|span| line_of(text, span.start));
            // what stands behind a mistake makes no sense either, nor does a value in the line below its name
            let has_value_below =
                |line: usize| text.lines().nth(line - 1).is_some_and(|line| line.trim_end().ends_with('='));
            let follows = broken
                .zip(line)
                .is_some_and(|(broken, line)| line == broken || (line == broken + 1 && has_value_below(broken)));
            broken = line.or(broken);
            if follows {
                continue;
            }
        }
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

/// What may be a secret in a line of text that is no TOML: all but the name, where that is no harmless one.
fn values_by_line(text: &str, harmless: &[&str]) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        let name = content.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').next();
        let name_end = content.len() - content.trim_start().len() + name.map_or(0, str::len);
        let is_open = content.trim_start().starts_with(['[', '#'])
            || name.is_some_and(|name| harmless.contains(&name)) && !content.contains("://");
        if !is_open {
            let value =
                content.get(name_end..).and_then(|rest| rest.find('=')).map_or(name_end, |at| name_end + at + 1);
            spans.push(Span { start: start + value, end: start + content.len() });
        }
        start += line.len();
    }
    spans
}

/// The values of a table that may be secrets. `inside`: of one under the name of a secret.
fn secrets_of(text: &str, table: &DeTable<'_>, inside: bool) -> Vec<Span> {
    table.iter().flat_map(|(name, value)| secrets_in(text, value, inside || is_secretive(name.get_ref()))).collect()
}

fn secrets_in(text: &str, value: &Spanned<DeValue<'_>>, is_secret: bool) -> Vec<Span> {
    let span = Span::from(value.span());
    match value.get_ref() {
        // where it is found, and not what it is
        DeValue::String(found) if ["env:", "file:", "credential:"].iter().any(|kind| found.starts_with(kind)) => {
            Vec::new()
        }
        DeValue::Table(table) => secrets_of(text, table, is_secret),
        DeValue::Array(items) => items.iter().flat_map(|item| secrets_in(text, item, is_secret)).collect(),
        DeValue::Boolean(_) | DeValue::Datetime(_) => Vec::new(),
        _ if is_secret => vec![span],
        _ => secrets_of_address(text.get(span.start..span.end).unwrap_or_default(), span.start),
    }
}

/// User and password of an address, and its query, which holds the key of some services.
fn secrets_of_address(quoted: &str, start: usize) -> Vec<Span> {
    let Some(scheme) = quoted.find("://") else { return Vec::new() };
    let host = scheme + 3;
    let path = quoted.get(host..).and_then(|rest| rest.find(['/', '?', '#'])).map_or(quoted.len(), |at| host + at);
    let login = quoted.get(host..path).and_then(|rest| rest.rfind('@')).map(|at| (host, host + at));
    let query = quoted.find('?').map(|at| {
        let rest = quoted.get(at + 1..).unwrap_or_default();
        (at + 1, at + 1 + rest.find(['#', '"', '\'']).unwrap_or(rest.len()))
    });
    login.into_iter().chain(query).map(|(from, to)| Span { start: start + from, end: start + to }).collect()
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
