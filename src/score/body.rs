//! Rows to request bodies.
//!
//! In: the argument of a row and the endpoint's [`InputForm`]. Out: the row's JSON, converted to the signature, or why
//! it cannot be sent; and the body of a request for some rows. Invariant: what [`Form::encode`] accepts has the exact
//! shape and types of the signature and holds no NaN, so nothing is left for the server to convert silently. Not here:
//! how many rows make a request (`desk`), the length of a queue.

use crate::batch::Reason;
use crate::diagnostic::counted;
use crate::time::Timestamp;
use crate::value::{Record, Type, Value, number_of, same_ignoring_case, write_json_text};

use super::signature::{Cell, Cells, InputForm, Layout, SignatureColumn};

/// Past this a float no longer holds every whole number, so it is not taken for one.
const WHOLE_FLOAT_MAX: f64 = 9_007_199_254_740_992.0;

/// Why a row cannot be sent.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct BadRow {
    pub reason: Reason,
    pub message: String,
    /// Where the form does not fit rather than one value; rows with equal ones fail for the same reason.
    pub misfit: Option<FormMisfit>,
}

/// What of a row's form does not fit the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormMisfit {
    pub what: String,
    /// Whatever the values are, no row of this form fits.
    pub is_certain: bool,
}

impl BadRow {
    fn new(reason: Reason, message: impl Into<String>) -> BadRow {
        BadRow { reason, message: message.into(), misfit: None }
    }

    /// No row of this form can be sent: the message is the same for all of them.
    fn of_form(reason: Reason, message: impl Into<String>) -> BadRow {
        let message = message.into();
        BadRow { reason, misfit: Some(FormMisfit { what: message.clone(), is_certain: true }), message }
    }

    /// The same of a part of the row.
    fn within(self, part: &str) -> BadRow {
        BadRow {
            reason: self.reason,
            message: format!("{part}: {}", self.message),
            misfit: self.misfit.map(|misfit| FormMisfit { what: format!("{part}: {}", misfit.what), ..misfit }),
        }
    }
}

/// The JSON of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct RowText {
    text: String,
    /// Ends of the cells in `text`, only where a body puts them apart.
    ends: Vec<u32>,
}

impl RowText {
    /// Bytes it adds to a body, about.
    pub fn bytes(&self) -> usize {
        self.text.len() + 1 + 8 * self.ends.len()
    }
}

/// A request body but for its rows.
#[derive(Clone, Debug)]
pub struct Form {
    input: InputForm,
    head: String,
    tail: String,
    /// Longest text in characters for a text cell, where the user gave one.
    text_max: Option<usize>,
}

impl Form {
    pub fn new(input: &InputForm, text_max: Option<usize>) -> Form {
        let mut head = String::from("{");
        let mut tail = String::new();
        for (i, key) in input.path.iter().enumerate() {
            if i > 0 {
                head.push('{');
                tail.push('}');
            }
            write_json_text(key, &mut head);
            head.push(':');
        }
        // without a value there is only the default of the script, which an absent property leaves in force
        for (name, value) in input.constants.iter().filter(|(_, value)| !value.is_null()) {
            tail.push(',');
            write_json_text(name, &mut tail);
            tail.push(':');
            tail.push_str(&value.to_string());
        }
        tail.push('}');
        Form { input: input.clone(), head, tail, text_max }
    }

    /// How rows stand in a body.
    pub fn layout(&self) -> &Layout {
        &self.input.layout
    }

    /// Bytes of a body without rows.
    pub fn frame_bytes(&self) -> usize {
        self.head.len() + self.tail.len() + 2
    }

    /// The row's JSON, or why it does not fit the signature.
    pub fn encode(&self, row: &Value) -> Result<RowText, BadRow> {
        if row.is_null() {
            return Err(BadRow::new("null_argument", "the argument is NULL"));
        }
        let mut text = String::new();
        let mut ends = Vec::new();
        match &self.input.layout {
            Layout::Untyped => self.cell(Cell::Any, row, true, &mut text)?,
            Layout::Vector { cell } => self.cell(*cell, row, false, &mut text)?,
            Layout::Array { dims, width, cells } => self.list(row, dims.saturating_sub(1), *width, cells, &mut text)?,
            Layout::Records { columns, required } => self.object(row, columns, required, &mut text)?,
            Layout::Index { columns } | Layout::Table { columns, .. } => self.object(row, columns, &[], &mut text)?,
            Layout::Split { columns } => {
                text.push('[');
                self.in_order(row, columns, |_, text| text.push(','), &mut text)?;
                text.push(']');
            }
            Layout::Columns { columns } => {
                self.in_order(row, columns, |end, _| ends.push(end), &mut text)?;
                ends.push(end_of(&text));
            }
        }
        Ok(RowText { text, ends })
    }

    /// The body of a request for these rows, in their order.
    pub fn body<'a>(&self, rows: impl Iterator<Item = &'a RowText> + Clone) -> String {
        let bytes: usize = rows.clone().map(RowText::bytes).sum();
        let mut out = String::with_capacity(self.frame_bytes() + bytes);
        out.push_str(&self.head);
        match &self.input.layout {
            Layout::Split { columns } => {
                out.push_str("{\"columns\":[");
                joined(&mut out, columns.iter(), |out, _, c| write_json_text(&c.name, out));
                out.push_str("],\"index\":[");
                joined(&mut out, rows.clone(), |out, i, _| push_number(out, i));
                out.push_str("],\"data\":[");
                joined(&mut out, rows, |out, _, row| out.push_str(&row.text));
                out.push_str("]}");
            }
            Layout::Columns { columns } => {
                out.push('{');
                joined(&mut out, columns.iter().enumerate(), |out, _, (c, column)| {
                    write_json_text(&column.name, out);
                    out.push_str(":{");
                    joined(out, rows.clone(), |out, i, row| keyed(out, i, row.cell(c)));
                    out.push('}');
                });
                out.push('}');
            }
            Layout::Index { .. } => {
                out.push('{');
                joined(&mut out, rows, |out, i, row| keyed(out, i, &row.text));
                out.push('}');
            }
            Layout::Table { schema, .. } => {
                out.push_str("{\"schema\":");
                out.push_str(&schema.to_string());
                out.push_str(",\"data\":[");
                joined(&mut out, rows, |out, i, row| {
                    out.push_str("{\"index\":");
                    push_number(out, i);
                    out.push_str(if row.text.len() > 2 { "," } else { "" });
                    out.push_str(row.text.get(1..).unwrap_or("}"));
                });
                out.push_str("]}");
            }
            Layout::Array { .. } | Layout::Records { .. } | Layout::Vector { .. } | Layout::Untyped => {
                out.push('[');
                joined(&mut out, rows, |out, _, row| out.push_str(&row.text));
                out.push(']');
            }
        }
        out.push_str(&self.tail);
        out
    }

    fn list(
        &self,
        row: &Value,
        depth: usize,
        width: Option<usize>,
        cells: &Cells,
        out: &mut String,
    ) -> Result<(), BadRow> {
        let Value::Array(items) = row else {
            return Err(BadRow::of_form("wrong_shape", format!("the endpoint takes an array, not a {}", kind(row))));
        };
        if width.is_some_and(|width| width != items.len()) {
            let width = width.unwrap_or_default();
            return Err(BadRow::of_form(
                "wrong_width",
                format!("the endpoint takes {}, the array has {}", counted(width, "column"), items.len()),
            ));
        }
        out.push('[');
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            if depth > 1 {
                self.list(item, depth - 1, None, cells, out)?;
                continue;
            }
            let cell = match cells {
                Cells::All(cell) => *cell,
                Cells::Each(cells) => cells.get(i).copied().unwrap_or(Cell::Any),
            };
            self.cell(cell, item, false, out).map_err(|bad| bad.within(&format!("column {}", i + 1)))?;
        }
        out.push(']');
        Ok(())
    }

    /// A row as an object: exactly the columns of the signature, in its order.
    fn object(
        &self,
        row: &Value,
        columns: &[SignatureColumn],
        required: &[String],
        out: &mut String,
    ) -> Result<(), BadRow> {
        let Value::Record(record) = row else {
            return Err(BadRow::of_form("wrong_shape", format!("the endpoint takes a record, not a {}", kind(row))));
        };
        let mut found = 0;
        out.push('{');
        for column in columns {
            let Some(value) = record.find(&column.name) else {
                if required.is_empty() || required.contains(&column.name) {
                    return Err(BadRow::of_form("missing_column", format!("column `{}` is missing", column.name)));
                }
                continue;
            };
            if found > 0 {
                out.push(',');
            }
            found += 1;
            write_json_text(&column.name, out);
            out.push(':');
            self.named_cell(column, value, out)?;
        }
        out.push('}');
        refuse_extra(record, found, columns)
    }

    /// A row's cells in the signature's order, from a record by name or from an array of the same width.
    fn in_order(
        &self,
        row: &Value,
        columns: &[SignatureColumn],
        mut between: impl FnMut(u32, &mut String),
        out: &mut String,
    ) -> Result<(), BadRow> {
        let missing = |column: &SignatureColumn| {
            BadRow::of_form("missing_column", format!("column `{}` is missing", column.name))
        };
        match row {
            Value::Record(record) => {
                refuse_extra(record, columns.len(), columns)?;
            }
            Value::Array(items) if items.len() != columns.len() => {
                let message =
                    format!("the endpoint takes {}, the array has {}", counted(columns.len(), "column"), items.len());
                return Err(BadRow::of_form("wrong_width", message));
            }
            Value::Array(_) => {}
            other => {
                return Err(BadRow::of_form(
                    "wrong_shape",
                    format!("the endpoint takes a record, not a {}", kind(other)),
                ));
            }
        }
        for (i, column) in columns.iter().enumerate() {
            if i > 0 {
                between(end_of(out), out);
            }
            let value = match row {
                Value::Record(record) => record.find(&column.name),
                Value::Array(items) => items.get(i),
                _ => None,
            };
            self.named_cell(column, value.ok_or_else(|| missing(column))?, out)?;
        }
        Ok(())
    }

    fn named_cell(&self, column: &SignatureColumn, value: &Value, out: &mut String) -> Result<(), BadRow> {
        self.cell(column.cell, value, true, out).map_err(|bad| bad.within(&format!("column `{}`", column.name)))
    }

    /// Writes a value as a cell of this type. `frame`: the row becomes one of a data frame, where text may be missing;
    /// a text array would hold the word "None" instead.
    fn cell(&self, cell: Cell, value: &Value, frame: bool, out: &mut String) -> Result<(), BadRow> {
        if value.is_null() {
            if cell == Cell::Any || (frame && matches!(cell, Cell::Text | Cell::DateTime { .. } | Cell::Array)) {
                out.push_str("null");
                return Ok(());
            }
            return Err(BadRow::new("null", format!("NULL where the endpoint takes {cell}")));
        }
        if !is_finite(value) {
            return Err(BadRow::new("not_finite", "NaN or an infinity"));
        }
        let converted = convert(cell, value).ok_or_else(|| misfit(cell, value))?;
        if let (Cell::Text, Some(max), Value::Text(text)) = (cell, self.text_max, &converted)
            && text.chars().nth(max).is_some()
        {
            let message = format!("text longer than the {max} characters the endpoint keeps");
            return Err(BadRow::new("text_length", message));
        }
        match (cell, converted) {
            (Cell::DateTime { zoned: false }, Value::DateTime(t)) => {
                let text = t.to_string();
                write_json_text(text.trim_end_matches('Z'), out);
            }
            (_, converted) => converted.write_json(out),
        }
        Ok(())
    }
}

impl RowText {
    fn cell(&self, i: usize) -> &str {
        let end = |i: usize| self.ends.get(i).map_or(0, |e| *e as usize);
        let start = if i == 0 { 0 } else { end(i - 1) };
        self.text.get(start..end(i)).unwrap_or("null")
    }
}

/// The value as the cell's type; `None` when it does not convert without loss. Finite, not NULL.
fn convert(cell: Cell, value: &Value) -> Option<Value> {
    match (cell, value) {
        (Cell::Any, v) => Some(v.clone()),
        (Cell::Text, Value::Text(_)) => Some(value.clone()),
        (Cell::Text, Value::BigInt(n)) => Some(Value::text(n.to_string())),
        (Cell::Text, Value::Float(f)) => Some(Value::text(float_text(*f))),
        (Cell::Text, Value::Bit(b)) => Some(Value::text(if *b { "1" } else { "0" })),
        (Cell::Text, Value::DateTime(t)) => Some(Value::text(t.to_string())),
        (Cell::Float, Value::Float(_) | Value::BigInt(_)) => Some(value.clone()),
        (Cell::Float | Cell::BigInt, Value::Bit(b)) => Some(Value::BigInt(i64::from(*b))),
        (Cell::Float, Value::Text(t)) => number_of(t),
        (Cell::BigInt, Value::BigInt(_)) => Some(value.clone()),
        (Cell::BigInt, Value::Float(f)) => {
            (f.fract() == 0.0 && f.abs() <= WHOLE_FLOAT_MAX).then_some(Value::BigInt(*f as i64))
        }
        (Cell::BigInt, Value::Text(t)) => t.trim().parse().ok().map(Value::BigInt),
        (Cell::Bit, Value::Bit(_)) => Some(value.clone()),
        (Cell::Bit, Value::BigInt(n @ (0 | 1))) => Some(Value::Bit(*n == 1)),
        (Cell::Bit, Value::Text(t)) if t.eq_ignore_ascii_case("true") => Some(Value::Bit(true)),
        (Cell::Bit, Value::Text(t)) if t.eq_ignore_ascii_case("false") => Some(Value::Bit(false)),
        (Cell::DateTime { .. }, Value::DateTime(_)) => Some(value.clone()),
        (Cell::DateTime { .. }, Value::Text(t)) => Timestamp::parse(t).map(Value::DateTime),
        (Cell::Array, Value::Array(_)) => Some(value.clone()),
        _ => None,
    }
}

/// What becomes of a column of this type, for `check`. `Err`: no value of the type can be sent.
pub(super) fn conversion(from: Type, to: Cell) -> Result<&'static str, &'static str> {
    match (from, to) {
        (Type::Text, Cell::Text)
        | (Type::BigInt, Cell::BigInt)
        | (Type::Float, Cell::Float)
        | (Type::Bit, Cell::Bit) => Ok("as is"),
        (Type::Array, Cell::Array) | (Type::DateTime, Cell::DateTime { .. }) | (_, Cell::Any) => Ok("as is"),
        (Type::BigInt | Type::Float, Cell::Text) => Ok("number to text"),
        (Type::Bit, Cell::Text | Cell::BigInt | Cell::Float) => Ok("bit to 0 or 1"),
        (Type::DateTime, Cell::Text) => Ok("ISO 8601 text"),
        (Type::BigInt, Cell::Float) => Ok("whole number to float"),
        (Type::Text, Cell::Float) => Ok("number text to float; other text is a bad row"),
        (Type::Text, Cell::BigInt) => Ok("whole-number text to bigint; other text is a bad row"),
        (Type::Float, Cell::BigInt) => Ok("whole value to bigint; a fraction is a bad row"),
        (Type::BigInt, Cell::Bit) => Ok("0 or 1 to bit; other numbers are bad rows"),
        (Type::Text, Cell::Bit) => Ok("\"true\" or \"false\" to bit; other text is a bad row"),
        (Type::Text, Cell::DateTime { .. }) => Ok("ISO 8601 text to datetime; other text is a bad row"),
        _ => Err("does not convert: every row would be a bad row"),
    }
}

fn misfit(cell: Cell, value: &Value) -> BadRow {
    let mut shown = value.to_json();
    if let Some((end, _)) = shown.char_indices().nth(60) {
        shown.truncate(end);
        shown.push('…');
    }
    let is_certain = value.kind().is_some_and(|kind| conversion(kind, cell).is_err());
    BadRow {
        reason: "conversion",
        message: format!("{} {shown} where the endpoint takes {cell}", kind(value)),
        misfit: Some(FormMisfit { what: format!("{} where the endpoint takes {cell}", kind(value)), is_certain }),
    }
}

fn kind(value: &Value) -> String {
    value.kind().map_or("NULL".into(), |k| k.to_string())
}

fn is_finite(value: &Value) -> bool {
    match value {
        Value::Float(f) => f.is_finite(),
        Value::Record(record) => record.iter().all(|(_, v)| is_finite(v)),
        Value::Array(items) => items.iter().all(is_finite),
        _ => true,
    }
}

/// The shortest text that reads back as the same float; a whole one without a fraction, as a query writes it.
fn float_text(f: f64) -> String {
    let text = format!("{f:?}");
    text.strip_suffix(".0").map(String::from).unwrap_or(text)
}

fn refuse_extra(record: &Record, found: usize, columns: &[SignatureColumn]) -> Result<(), BadRow> {
    if record.len() <= found {
        return Ok(());
    }
    let known = |name: &str| columns.iter().any(|c| same_ignoring_case(&c.name, name));
    let extra = record.iter().map(|(name, _)| name.as_str()).find(|name| !known(name)).unwrap_or_default();
    Err(BadRow::of_form("extra_column", format!("the endpoint has no column `{extra}`")))
}

fn end_of(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

fn push_number(out: &mut String, n: usize) {
    use std::fmt::Write;
    let _ = write!(out, "{n}");
}

fn keyed(out: &mut String, i: usize, text: &str) {
    out.push('"');
    push_number(out, i);
    out.push_str("\":");
    out.push_str(text);
}

fn joined<T>(out: &mut String, items: impl Iterator<Item = T>, mut write: impl FnMut(&mut String, usize, T)) {
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(',');
        }
        write(out, i, item);
    }
}

#[cfg(test)]
mod tests {
    use super::super::signature::EndpointSignature;
    use super::*;

    fn encoded(cell: Cell, frame: bool, value: Value) -> Result<String, &'static str> {
        let layout = match frame {
            true => Layout::Split { columns: vec![SignatureColumn { name: "c".into(), cell }] },
            false => Layout::Array { dims: 2, width: Some(1), cells: Cells::All(cell) },
        };
        let input = InputForm { layout, ..EndpointSignature::untyped().input };
        Form::new(&input, Some(5)).encode(&Value::array(vec![value])).map(|row| row.text).map_err(|bad| bad.reason)
    }

    #[test]
    fn every_conversion() {
        let text = Value::text;
        let date = Value::DateTime(Timestamp::from_unix_millis(0));
        for (cell, value, expected) in [
            (Cell::Text, text("a\"b"), Ok("[\"a\\\"b\"]")),
            (Cell::Text, Value::BigInt(-5), Ok("[\"-5\"]")),
            (Cell::Text, Value::Float(5.8), Ok("[\"5.8\"]")),
            (Cell::Text, Value::Float(10.0), Ok("[\"10\"]")),
            (Cell::Text, Value::Bit(true), Ok("[\"1\"]")),
            (Cell::Text, text("Wednesday"), Err("text_length")),
            (Cell::Text, Value::array(vec![]), Err("conversion")),
            (Cell::Text, Value::Null, Err("null")),
            (Cell::Float, text(" 2.50 "), Ok("[2.5]")),
            (Cell::Float, text("x"), Err("conversion")),
            (Cell::Float, text("NaN"), Err("conversion")),
            (Cell::Float, Value::Float(f64::INFINITY), Err("not_finite")),
            (Cell::Float, Value::BigInt(3), Ok("[3]")),
            (Cell::Float, Value::Null, Err("null")),
            (Cell::BigInt, Value::Float(2.0), Ok("[2]")),
            (Cell::BigInt, Value::Float(1.7), Err("conversion")),
            (Cell::BigInt, Value::Float(1e300), Err("conversion")),
            (Cell::BigInt, text("12"), Ok("[12]")),
            (Cell::BigInt, text("12.5"), Err("conversion")),
            (Cell::Bit, text("False"), Ok("[false]")),
            (Cell::Bit, text("no"), Err("conversion")),
            (Cell::Bit, Value::BigInt(1), Ok("[true]")),
            (Cell::Bit, Value::BigInt(2), Err("conversion")),
            (Cell::DateTime { zoned: true }, date.clone(), Ok("[\"1970-01-01T00:00:00.0000000Z\"]")),
            (Cell::DateTime { zoned: false }, text("1970-01-01"), Ok("[\"1970-01-01T00:00:00.0000000\"]")),
            (Cell::DateTime { zoned: true }, Value::BigInt(0), Err("conversion")),
            (Cell::Array, Value::array(vec![Value::BigInt(1)]), Ok("[[1]]")),
            (Cell::Any, Value::Null, Ok("[null]")),
            (Cell::Any, Value::array(vec![Value::Float(f64::NAN)]), Err("not_finite")),
        ] {
            assert_eq!(encoded(cell, false, value.clone()), expected.map(String::from), "{value:?} as {cell}");
        }
        // a data frame knows missing text, but no missing number
        assert_eq!(encoded(Cell::Text, true, Value::Null), Ok("[null]".into()));
        assert_eq!(encoded(Cell::BigInt, true, Value::Null), Err("null"));
    }
}
