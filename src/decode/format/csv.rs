//! CSV: a line of names and then rows, or rows of columns that the job file names. Fields are quoted as RFC 4180 says
//! and are text; an empty field is the empty text.

use std::sync::Arc;

use bytes::Bytes;
use csv::{ByteRecord, ReaderBuilder};

use super::{Format, is_blank};
use crate::decode::{BadPayload, Split};
use crate::diagnostic::{Diagnostic, counted};
use crate::settings::Section;
use crate::value::write_json_text;

/// Each row repeats the names of its columns: the rows of a payload may take this many times its bytes, …
const GROWTH_MAX: usize = 64;
/// … and a small payload this many bytes.
const ROWS_BYTES_FREE: usize = 1 << 20;
/// Lines of a payload with a stray quote that are set aside alone; behind more of them the rest is bad.
const STRAY_QUOTES_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
struct CsvFormat {
    delimiter: u8,
    /// Empty: the first line of each payload names them.
    columns: Vec<String>,
}

/// Reads the section for the table of formats.
pub(super) fn read(section: &mut Section) -> Option<Arc<dyn Format>> {
    let delimiter = delimiter(section);
    let columns = columns(section);
    Some(Arc::new(CsvFormat { delimiter: delimiter?, columns: columns? }))
}

/// Reads `delimiter`, which is a comma by default.
pub fn delimiter(section: &mut Section) -> Option<u8> {
    let is_given = section.has("delimiter");
    let Some(text) = section.text("delimiter") else { return (!is_given).then_some(b',') };
    match text.value.as_bytes() {
        [byte]
            if (byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t'))
                && !byte.is_ascii_alphanumeric()
                && *byte != b'"' =>
        {
            Some(*byte)
        }
        _ => {
            let error = Diagnostic::error("this does not delimit fields", text.span)
                .label("expected one sign of ASCII, no quote");
            section
                .problems()
                .push(error.help("write `delimiter = \";\"`, or `\"\\t\"` for a tab; the default is \",\""));
            None
        }
    }
}

fn columns(section: &mut Section) -> Option<Vec<String>> {
    const FORM: &str =
        "write `columns = [\"time\", \"value\"]`, or leave it out where the first line names the columns";
    if !section.has("columns") {
        // asked for, so that it is listed among the known keys
        section.texts("columns");
        return Some(Vec::new());
    }
    let names = section.required_texts("columns", FORM);
    let mut columns: Vec<String> = Vec::new();
    for name in names {
        let (title, label) = match name.value.as_str() {
            "" => ("a column has no name", "expected a name"),
            value if columns.iter().any(|known| known == value) => {
                ("two columns of the same name", "a row has it twice")
            }
            _ => {
                columns.push(name.value);
                continue;
            }
        };
        section.problems().push(Diagnostic::error(title, name.span).label(label).help(FORM));
    }
    Some(columns)
}

impl Format for CsvFormat {
    fn split(&self, payload: &Bytes, _: &str) -> Split {
        let mut rows = CsvRows { payload, split: Split::default(), bytes: 0, names: self.columns.clone(), stray: 0 };
        let mut from = 0;
        while let Some(next) = rows.read(from, self.delimiter) {
            from = next;
        }
        rows.split
    }

    fn is_empty(&self, payload: &[u8]) -> bool {
        is_blank(payload)
    }
}

/// The rows of one payload.
struct CsvRows<'a> {
    payload: &'a Bytes,
    split: Split,
    /// Of the events so far.
    bytes: usize,
    /// Empty until the first line was read, when that names the columns.
    names: Vec<String>,
    /// Lines with a stray quote so far.
    stray: usize,
}

impl CsvRows<'_> {
    /// Reads the lines from `from` on; gives where to go on behind one that cannot be read.
    fn read(&mut self, from: usize, delimiter: u8) -> Option<usize> {
        let text = self.payload.clone().split_off(from.min(self.payload.len()));
        let stray = stray_quote(&text, delimiter);
        let mut reader = reader(&text, delimiter);
        let mut record = ByteRecord::new();
        loop {
            match reader.read_byte_record(&mut record) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return self.rest_is_bad(from, error.to_string()),
            }
            let position =
                |position: Option<&csv::Position>| position.and_then(|p| usize::try_from(p.byte()).ok()).unwrap_or(0);
            let (start, end) = (position(record.position()), position(Some(reader.position())));
            if let Some((at, why)) = stray.filter(|(at, _)| *at < end) {
                let why = why.to_owned();
                let Some(next) = self.line_behind(&text, at, delimiter) else {
                    return self.rest_is_bad(from + start, why);
                };
                self.stray += 1;
                self.bad(from + start, from + next, why);
                return Some(from + next);
            }
            if self.names.is_empty() {
                match header(&record) {
                    Ok(found) => self.names = found,
                    Err(why) => return self.rest_is_bad(from, why),
                }
                continue;
            }
            match event(&self.names, &record) {
                Ok(event) => {
                    self.bytes += event.len();
                    if self.bytes > ROWS_BYTES_FREE.max(self.payload.len().saturating_mul(GROWTH_MAX)) {
                        let why =
                            format!("with their names the rows take more than {GROWTH_MAX} times the payload's bytes");
                        return self.rest_is_bad(from + start, why);
                    }
                    self.split.events.push(event);
                }
                Err(why) => self.bad(from + start, from + end, why),
            }
        }
    }

    /// The line behind the one with a stray quote, when what follows are rows and no text of the field: each has a
    /// field a column, of which there are several.
    fn line_behind(&self, text: &[u8], quote: usize, delimiter: u8) -> Option<usize> {
        let next = quote + text.get(quote..)?.iter().position(|byte| *byte == b'\n')? + 1;
        let mut rows = reader(text.get(next..)?, delimiter).into_byte_records().peekable();
        let is_row = |row: csv::Result<ByteRecord>| row.is_ok_and(|row| row.len() == self.names.len());
        let may_go_on = self.names.len() > 1 && self.stray < STRAY_QUOTES_MAX;
        let are_rows = may_go_on && rows.peek().is_some() && rows.all(is_row);
        are_rows.then_some(next)
    }

    fn rest_is_bad(&mut self, from: usize, why: String) -> Option<usize> {
        self.bad(from, self.payload.len(), why);
        None
    }

    fn bad(&mut self, from: usize, to: usize, error: String) {
        let part = self.payload.get(from..to).unwrap_or_default();
        let end = from + part.trim_ascii_end().len();
        self.split.bad.push(BadPayload { payload: self.payload.slice(from..end), error, position: from });
    }
}

fn reader(text: &[u8], delimiter: u8) -> csv::Reader<&[u8]> {
    ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(text)
}

fn header(record: &ByteRecord) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::with_capacity(record.len());
    let mut seen = rustc_hash::FxHashSet::default();
    for (i, name) in record.iter().enumerate() {
        let name = std::str::from_utf8(name).map_err(|_| format!("the name of column {} is not UTF-8", i + 1))?.trim();
        let name = if i == 0 { name.trim_start_matches('\u{feff}') } else { name };
        if name.is_empty() {
            return Err(format!(
                "column {} has no name; the first line names the columns, unless `columns` does",
                i + 1
            ));
        }
        if !seen.insert(name.to_owned()) {
            return Err(format!("two columns are called `{name}`"));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn event(names: &[String], record: &ByteRecord) -> Result<Bytes, String> {
    if record.len() != names.len() {
        let are = if names.len() == 1 { "is" } else { "are" };
        let (fields, columns) = (counted(record.len(), "field"), counted(names.len(), "column"));
        return Err(format!("the row has {fields}, and there {are} {columns}"));
    }
    let mut json = String::from("{");
    for (i, (name, field)) in names.iter().zip(record).enumerate() {
        let field = std::str::from_utf8(field).map_err(|_| format!("`{name}` is not UTF-8"))?;
        if i > 0 {
            json.push(',');
        }
        write_json_text(name, &mut json);
        json.push(':');
        write_json_text(field, &mut json);
    }
    json.push('}');
    Ok(Bytes::from(json))
}

const NEVER_CLOSED: &str = "a quoted field is never closed";
const ENDS_AMID: &str = "a quoted field goes over lines and ends amid another field";

/// Where a quoted field begins that the end of the text cuts off; a reader of CSV takes the rest for its content.
pub fn open_quote(text: &[u8], delimiter: u8) -> Option<usize> {
    find_quote(text, delimiter, false).map(|(at, _)| at)
}

/// The same, or where a field goes over several lines to a quote that stands amid another field; and what is wrong.
fn stray_quote(text: &[u8], delimiter: u8) -> Option<(usize, &'static str)> {
    find_quote(text, delimiter, true)
}

/// `amid`: a field over lines has to end where a field can.
fn find_quote(text: &[u8], delimiter: u8, amid: bool) -> Option<(usize, &'static str)> {
    let (mut opened, mut is_start, mut has_lines) = (None, true, false);
    let ends_field = |byte: u8| byte == delimiter || matches!(byte, b'\n' | b'\r');
    let mut bytes = text.iter().copied().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        match opened {
            Some(start) if byte == b'"' => {
                // two of them stand for one
                if bytes.next_if(|(_, next)| *next == b'"').is_some() {
                    continue;
                }
                if amid && has_lines && bytes.peek().is_some_and(|(_, next)| !ends_field(*next)) {
                    return Some((start, ENDS_AMID));
                }
                opened = None;
            }
            Some(_) => has_lines |= byte == b'\n',
            None if is_start && byte == b'"' => (opened, is_start, has_lines) = (Some(at), false, false),
            None => is_start = ends_field(byte),
        }
    }
    Some((opened?, NEVER_CLOSED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(payload: &[u8], columns: &[&str]) -> (Vec<String>, Vec<(usize, String)>) {
        let format = CsvFormat { delimiter: b',', columns: columns.iter().map(|c| (*c).to_owned()).collect() };
        let split = format.split(&Bytes::copy_from_slice(payload), "t");
        let events = split.events.iter().map(|e| String::from_utf8(e.to_vec()).unwrap()).collect();
        (events, split.bad.into_iter().map(|b| (b.position, b.error)).collect())
    }

    #[test]
    fn the_first_line_or_the_job_file_names_the_columns() {
        let want = vec![r#"{"k":"1","v":"x, \"y\""}"#.to_owned(), r#"{"k":"","v":"2"}"#.to_owned()];
        assert_eq!(rows("\u{feff}k, v\r\n1,\"x, \"\"y\"\"\"\r\n\n,2".as_bytes(), &[]), (want.clone(), vec![]));
        assert_eq!(rows(b"1,\"x, \"\"y\"\"\"\n,2\n", &["k", "v"]), (want, vec![]));
        assert_eq!(rows(b"k,v\n", &[]), (vec![], vec![]));
    }

    #[test]
    fn a_bad_row_is_bad_alone() {
        let (events, bad) = rows(b"k,v\n1,2\n3\n\xff,4\n5,6\n", &[]);
        assert_eq!(events, [r#"{"k":"1","v":"2"}"#, r#"{"k":"5","v":"6"}"#]);
        assert_eq!(bad, [(8, "the row has 1 field, and there are 2 columns".into()), (10, "`k` is not UTF-8".into())]);
        let (events, bad) = rows(b"k\n1\n\"2\n3\n", &[]);
        assert_eq!((events.len(), bad), (1, vec![(4, "a quoted field is never closed".into())]));
        let never = |at| (at, "a quoted field is never closed".to_owned());
        let (events, bad) = rows(b"k,v\n1,\"2\n3,4\n5,6\n", &[]);
        assert_eq!(events, [r#"{"k":"3","v":"4"}"#, r#"{"k":"5","v":"6"}"#], "rows behind the line are read");
        assert_eq!(bad, [never(4)]);
        let (events, bad) = rows(b"k,v\n1,\"2\n3,4\n5,\"6\n7,8\n", &[]);
        assert_eq!(
            events,
            [r#"{"k":"3","v":"4"}"#, r#"{"k":"7","v":"8"}"#],
            "two stray quotes are no text between them"
        );
        assert_eq!(bad, [(4, "a quoted field goes over lines and ends amid another field".to_owned()), never(13)]);
        assert_eq!(rows(b"k,v\n1,\"a\nb\"\n2,\"x\"y\n", &[]).0.len(), 2, "text over lines, and a quote amid a field");
        let many = format!("k,v\n{}", "1,\"2\n".repeat(1_000));
        let (events, bad) = rows(many.as_bytes(), &[]);
        assert!(events.len() + bad.len() <= 2 * STRAY_QUOTES_MAX, "{} {}", events.len(), bad.len());
        for text in [&b"k,v\n1,\"2\n3,4\nfive\n"[..], b"k,v\n1,\"2\n", b"k,v\n1,\"2"] {
            let (events, bad) = rows(text, &[]);
            assert_eq!((events.len(), bad), (0, vec![never(4)]), "what follows may be text of the field");
        }
        assert_eq!(rows(b"k,k\n1,2\n", &[]).1, [(0, "two columns are called `k`".into())]);
        let why = "column 2 has no name; the first line names the columns, unless `columns` does";
        assert_eq!(rows(b"k,\n1,2\n", &[]).1, [(0, why.into())]);
    }

    #[test]
    fn a_long_name_does_not_make_much_of_little() {
        let payload = format!("{}\n{}", "n".repeat(100_000), "1\n".repeat(100_000));
        let (events, bad) = rows(payload.as_bytes(), &[]);
        assert!(events.iter().map(String::len).sum::<usize>() <= payload.len() * GROWTH_MAX);
        assert_eq!(bad.len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_written_as_csv_is_read(fields in prop::collection::vec(("[^\u{0}]{0,6}", ".{0,6}"), 1..6)) {
            let mut writer = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Always).from_writer(Vec::new());
            for (a, b) in &fields {
                writer.write_record([a, b]).unwrap();
            }
            let (events, bad) = rows(&writer.into_inner().unwrap(), &["a", "b"]);
            prop_assert!(bad.is_empty(), "{bad:?}");
            let want: Vec<String> = fields
                .iter()
                .map(|(a, b)| {
                    let mut json = String::from("{\"a\":");
                    write_json_text(a, &mut json);
                    json.push_str(",\"b\":");
                    write_json_text(b, &mut json);
                    json + "}"
                })
                .collect();
            prop_assert_eq!(events, want);
        }

        #[test]
        fn no_payload_makes_it_panic(
            payload in prop::collection::vec(prop::sample::select(&b"a,\"\n\r \xff"[..]), 0..60),
        ) {
            let _ = rows(&payload, &["a", "b"]);
            let _ = rows(&payload, &[]);
        }
    }
}
