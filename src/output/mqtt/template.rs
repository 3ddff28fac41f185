//! The topic of a row, made from its columns.
//!
//! In: `plant/{deviceId}/alarm` as the job file has it, then rows. Out: a [`TopicTemplate`], then the topic of each
//! row, or why it has none. Invariant: a value is always one whole level or a part of one, and different values give
//! different topics. Not here: publishing.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::ops::Range;

use smol_str::SmolStr;

use crate::batch::{Rows, shown};
use crate::diagnostic::Span;
use crate::mqtt::topic::{TOPIC_BYTES_MAX, topic_problem};
use crate::query::builtins::cast;
use crate::settings::Text;
use crate::value::{Type, Value, same_ignoring_case};

const HELP: &str = "write `plant/{deviceId}/alarm`; a brace itself is `{{` or `}}`";

/// A topic with places for columns.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicTemplate {
    pieces: Vec<Piece>,
    /// Its place in the job file.
    span: Span,
}

/// What is wrong with a template, and where in the job file.
#[derive(Debug)]
pub struct TemplateProblem {
    pub span: Span,
    pub label: &'static str,
    pub help: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Literal(String),
    Column {
        name: SmolStr,
        /// Its place in the job file.
        span: Span,
    },
}

impl TopicTemplate {
    /// One topic for all rows, as it is.
    pub fn fixed(topic: impl Into<String>) -> TopicTemplate {
        TopicTemplate { pieces: vec![Piece::Literal(topic.into())], span: Span::default() }
    }

    /// Reads a template.
    ///
    /// # Errors
    /// Braces do not match, a name is missing, or what is around the columns makes no topic.
    pub fn parse(text: &Text) -> Result<TopicTemplate, TemplateProblem> {
        let wrong = |(at, label)| TemplateProblem { span: within(text, at), label, help: Some(HELP) };
        let template = TopicTemplate { pieces: pieces(text).map_err(wrong)?, span: text.span };
        let sample: String =
            template.pieces.iter().map(|piece| if let Piece::Literal(text) = piece { text } else { "x" }).collect();
        match topic_problem(&sample) {
            Some(label) => Err(TemplateProblem { span: text.span, label, help: None }),
            None => Ok(template),
        }
    }

    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// The filter that matches its topics, and others like them: a value is within one level.
    pub(super) fn filter(&self) -> String {
        const COLUMN: char = '\0';
        let text = |piece: &Piece| match piece {
            Piece::Literal(text) => text.clone(),
            Piece::Column { .. } => COLUMN.to_string(),
        };
        let topic: String = self.pieces.iter().map(text).collect();
        let levels = topic.split('/').map(|level| if level.contains(COLUMN) { "+" } else { level });
        levels.collect::<Vec<_>>().join("/")
    }

    /// The columns that it names, each with its place in the job file.
    pub fn columns(&self) -> impl Iterator<Item = (&SmolStr, Span)> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Column { name, span } => Some((name, *span)),
            Piece::Literal(_) => None,
        })
    }

    /// The topic of a row; an error says why it has none.
    pub fn fill(&self, rows: &Rows, row: usize) -> Result<Cow<'_, str>, String> {
        if let [Piece::Literal(topic)] = self.pieces.as_slice() {
            return Ok(Cow::Borrowed(topic));
        }
        let columns = shown(&rows.columns, rows.batch.row(row));
        let mut topic = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => topic.push_str(text),
                Piece::Column { name, .. } => escape(&written(name, &columns)?, &mut topic),
            }
        }
        if topic.len() > TOPIC_BYTES_MAX {
            return Err(format!("the topic takes {} bytes, over the {TOPIC_BYTES_MAX} that MQTT allows", topic.len()));
        }
        Ok(Cow::Owned(topic))
    }
}

impl fmt::Display for TopicTemplate {
    /// As the job file writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_template = self.columns().next().is_some();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) if is_template => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Piece::Literal(text) => f.write_str(text)?,
                Piece::Column { name, .. } => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

/// Cuts a text into what stands there and the columns; an error is a place and what was expected.
fn pieces(text: &Text) -> Result<Vec<Piece>, (Range<usize>, &'static str)> {
    let value = text.value.as_str();
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(rest) = value.get(at..).filter(|rest| !rest.is_empty()) {
        let plain = rest.find(['{', '}']).unwrap_or(rest.len());
        literal.push_str(rest.get(..plain).unwrap_or_default());
        at += plain;
        let rest = rest.get(plain..).unwrap_or_default();
        if rest.starts_with("{{") || rest.starts_with("}}") {
            literal.extend(rest.chars().next());
            at += 2;
        } else if rest.starts_with('}') {
            return Err((at..at + 1, "no `{` before it"));
        } else if let Some(inner) = rest.strip_prefix('{') {
            let name = match inner.find(['{', '}']) {
                Some(end) if inner.get(end..).is_some_and(|tail| tail.starts_with('}')) => {
                    inner.get(..end).unwrap_or_default()
                }
                _ => return Err((at..at + 1, "no `}` behind it")),
            };
            let whole = at..at + name.len() + 2;
            if name.is_empty() {
                return Err((whole, "expected the name of a column"));
            }
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            at = whole.end;
            pieces.push(Piece::Column { name: name.into(), span: within(text, whole) });
        }
    }
    if !literal.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// A part of a text, by its place in the file; the whole text when escapes make places differ.
fn within(text: &Text, part: Range<usize>) -> Span {
    let Span { start, end } = text.span;
    let has_plain_quotes = end.saturating_sub(start) == text.value.len() + 2;
    if has_plain_quotes {
        return Span::new(start + 1 + part.start, start + 1 + part.end);
    }
    text.span
}

/// The text of a column: the one of exactly this name, else the only one that differs in letter case.
fn written(name: &str, columns: &[(&SmolStr, &Value)]) -> Result<String, String> {
    let refused = |why: &str| Err(format!("the topic needs the column `{name}`, {why}"));
    let exact = columns.iter().find(|(column, _)| *column == name);
    let mut alike = columns.iter().filter(|(column, _)| same_ignoring_case(column, name));
    let value = match (exact, alike.next(), alike.next()) {
        (Some((_, value)), ..) | (None, Some((_, value)), None) => *value,
        (None, None, _) => return refused("which the row does not have"),
        (None, Some(_), Some(_)) => return refused("and several differ from that only in letter case"),
    };
    match value {
        Value::Null => refused("which is NULL"),
        Value::Record(_) => refused("which is a record"),
        Value::Array(_) => refused("which is an array"),
        value => match cast(value, Type::Text) {
            Ok(Value::Text(text)) if text.is_empty() => refused("which is empty"),
            Ok(Value::Text(text)) => Ok(text.to_string()),
            Ok(_) => refused("which has no text"),
            Err(error) => refused(&format!("which has no text: {}", error.message)),
        },
    }
}

/// Appends a value so that it stays inside its level and is told from every other value.
fn escape(value: &str, topic: &mut String) {
    for c in value.chars() {
        // a `$` at the start of a topic belongs to the broker; brokers drop a client that sends what is no character
        let is_special = matches!(c, '/' | '+' | '#' | '%')
            || c.is_control()
            || (c == '$' && topic.is_empty())
            || is_noncharacter(c);
        if !is_special {
            topic.push(c);
            continue;
        }
        let mut bytes = [0; 4];
        for byte in c.encode_utf8(&mut bytes).bytes() {
            // writing to a text always works
            let _ = write!(topic, "%{byte:02X}");
        }
    }
}

fn is_noncharacter(c: char) -> bool {
    let code = u32::from(c);
    code & 0xFFFE == 0xFFFE || (0xFDD0..=0xFDEF).contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Column, RowMeta};
    use crate::time::Timestamp;
    use crate::value::Record;

    /// As if the text stood alone in a file, in quotes.
    fn text(value: &str) -> Text {
        Text { value: value.to_owned(), span: Span::new(0, value.len() + 2) }
    }

    fn parse(value: &str) -> TopicTemplate {
        TopicTemplate::parse(&text(value)).unwrap_or_else(|problem| panic!("{value}: {problem:?}"))
    }

    fn row(columns: &[(&str, Value)]) -> Rows {
        let meta = RowMeta::new(Timestamp::MIN, Timestamp::MIN, 0, 0);
        let mut batch = Batch::new(columns.len());
        batch.push(meta, columns.iter().map(|(_, value)| value.clone()));
        Rows {
            columns: columns.iter().map(|(name, _)| Column { name: (*name).into(), spread: name.is_empty() }).collect(),
            batch,
        }
    }

    fn filled(template: &str, columns: &[(&str, Value)]) -> Result<String, String> {
        parse(template).fill(&row(columns), 0).map(Cow::into_owned)
    }

    #[test]
    fn values_are_written_as_cast_writes_them() {
        for (value, topic) in [
            (Value::text("d1"), "p/d1/a"),
            (Value::text("ü 1"), "p/ü 1/a"),
            (Value::BigInt(-7), "p/-7/a"),
            (Value::Float(0.5), "p/0.5/a"),
            (Value::Float(1e300), "p/1E%2B300/a"),
            (Value::Bit(true), "p/1/a"),
            (Value::DateTime(Timestamp::from_unix_millis(0)), "p/1970-01-01T00:00:00.0000000Z/a"),
        ] {
            assert_eq!(filled("p/{d}/a", &[("d", value)]).as_deref(), Ok(topic));
        }
    }

    #[test]
    fn a_value_stays_inside_its_level() {
        for (value, topic) in [
            ("a/b", "a%2Fb"),
            ("+", "%2B"),
            ("#", "%23"),
            ("a%2Fb", "a%252Fb"),
            ("\0", "%00"),
            ("\n\u{85}", "%0A%C2%85"),
            ("\u{ffff}", "%EF%BF%BF"),
            ("$SYS", "%24SYS"),
            ("{x}", "{x}"),
        ] {
            assert_eq!(filled("{d}", &[("d", Value::text(value))]).as_deref(), Ok(topic));
        }
        assert_eq!(filled("p/{d}", &[("d", Value::text("$1"))]).as_deref(), Ok("p/$1"));
    }

    #[test]
    fn columns_are_found_as_a_query_finds_them() {
        let one = |n| Value::BigInt(n);
        assert_eq!(filled("{a}", &[("A", one(1)), ("a", one(2))]).as_deref(), Ok("2"));
        assert_eq!(filled("{DeviceId}/{deviceid}", &[("deviceID", one(1))]).as_deref(), Ok("1/1"));
        let record = Value::record(Record::from_unique(vec![("d".into(), one(3))]));
        assert_eq!(filled("{d}", &[("", record)]).as_deref(), Ok("3"));
    }

    #[test]
    fn a_row_without_a_topic_says_why() {
        for (columns, why) in [
            (vec![("d", Value::Null)], "which is NULL"),
            (vec![("e", Value::BigInt(1))], "which the row does not have"),
            (vec![("d", Value::text(""))], "which is empty"),
            (vec![("d", Value::record(Record::default()))], "which is a record"),
            (vec![("d", Value::array(vec![]))], "which is an array"),
        ] {
            assert_eq!(filled("{d}", &columns), Err(format!("the topic needs the column `d`, {why}")));
        }
        let twice = filled("{ab}", &[("AB", Value::BigInt(1)), ("Ab", Value::BigInt(2))]).unwrap_err();
        assert_eq!(twice, "the topic needs the column `ab`, and several differ from that only in letter case");
        let error = filled("{d}", &[("d", Value::Float(f64::NAN))]).unwrap_err();
        assert!(error.starts_with("the topic needs the column `d`, which has no text: "), "{error}");
        let error = filled("{d}", &[("d", Value::text("x".repeat(65_536)))]).unwrap_err();
        assert_eq!(error, "the topic takes 65536 bytes, over the 65535 that MQTT allows");
    }

    #[test]
    fn braces_are_read_and_shown() {
        assert_eq!(filled("{{{d}}}/}}", &[("d", Value::BigInt(1))]).as_deref(), Ok("{1}/}"));
        assert_eq!(filled("a{{b}}", &[]).as_deref(), Ok("a{b}"));
        assert_eq!(filled("a", &[]).as_deref(), Ok("a"));
        assert_eq!(parse("{{{d}}}/x").to_string(), "{{{d}}}/x");
        assert_eq!(TopicTemplate::fixed("a{b").to_string(), "a{b");
        assert_eq!(TopicTemplate::fixed("a{b").fill(&row(&[]), 0).as_deref(), Ok("a{b"));
    }

    #[test]
    fn what_is_no_template_is_told_at_its_place() {
        for (value, at, label) in [
            ("a/{d", (3, 4), "no `}` behind it"),
            ("a/d}", (4, 5), "no `{` before it"),
            ("a/{}", (3, 5), "expected the name of a column"),
            ("a/{b{c}}", (3, 4), "no `}` behind it"),
            ("a/{d}/+", (0, 9), "rows go to one topic, without `+` and `#`"),
            ("#/{d}", (0, 7), "rows go to one topic, without `+` and `#`"),
            ("$SYS/{d}", (0, 10), "topics that start with `$` belong to the broker"),
            ("{d}/\u{1}", (0, 7), "control characters are not allowed"),
        ] {
            let problem = TopicTemplate::parse(&text(value)).unwrap_err();
            assert_eq!((problem.span, problem.label), (Span::new(at.0, at.1), label), "{value}");
        }
        // with escapes in the file, places inside the text are not known
        let escaped = Text { value: "a/{d".to_owned(), span: Span::new(10, 30) };
        assert_eq!(TopicTemplate::parse(&escaped).unwrap_err().span, Span::new(10, 30));
    }
}
