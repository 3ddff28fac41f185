//! Rows put together: how many, and how they are written.
//!
//! In: the keys `body` and `batch` of a section, then rows that are open. Out: [`Piece`]s within the limits, and the
//! text of each. Invariant: the same rows give the same text; a piece keeps the order of its rows. Not here: sending.

use std::borrow::Cow;
use std::time::Duration;

use toml::de::DeValue;

use super::{Fill, RowIds, ToldColumns, write_row};
use crate::batch::Rows;
use crate::diagnostic::Diagnostic;
use crate::settings::Section;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// What a delivery holds at most: larger batches would never come about.
const ROWS_MAX: u64 = 1_000;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// One row as a JSON object.
    Row,
    /// A JSON array of rows.
    Array,
    /// One row a line.
    Lines,
}

/// How rows are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Rows of a body.
    pub rows: usize,
    /// Bytes of a body, before compression.
    pub bytes: usize,
    /// How long rows wait for others.
    pub time: Duration,
}

impl Body {
    /// Reads `body`.
    pub fn read(section: &mut Section, default: Body) -> Body {
        section.choice("body", &[("array", Body::Array), ("lines", Body::Lines), ("row", Body::Row)], default)
    }

    /// The text of rows.
    pub fn write(self, piece: &[Encoded]) -> String {
        let mut text = String::with_capacity(piece.iter().map(Encoded::bytes).sum());
        for (i, row) in piece.iter().enumerate() {
            match self {
                Body::Array => text.push(if i == 0 { '[' } else { ',' }),
                Body::Row | Body::Lines => {}
            }
            text.push_str(&row.json);
            if self == Body::Lines {
                text.push('\n');
            }
        }
        if self == Body::Array {
            text.push(']');
        }
        text
    }
}

impl BatchPolicy {
    /// Reads `batch = { rows, bytes, time }`. `what` has a body: a request, a message.
    pub fn read(section: &mut Section, body: Body, base: BatchPolicy, what: &str) -> BatchPolicy {
        let one = |batch: BatchPolicy| {
            if body == Body::Row { BatchPolicy { rows: 1, time: Duration::ZERO, ..batch } } else { batch }
        };
        let Some((value, span)) = section.get("batch") else { return one(base) };
        let DeValue::Table(table) = value else {
            let error = Diagnostic::error("`batch` has the wrong form", span).label("expected a table");
            section.problems().push(error.help("write `batch = { rows = 100, bytes = \"256KiB\", time = \"1s\" }`"));
            return base;
        };
        let mut inner = section.inner("batch", table);
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let batch = BatchPolicy {
            rows: size(inner.count("rows", 1, ROWS_MAX, base.rows as u64)),
            bytes: size(inner.size("bytes", KIB, 64 * MIB, base.bytes as u64)),
            time: inner.duration("time", Duration::ZERO, Duration::from_secs(60), base.time),
        };
        if body == Body::Row && (inner.has("rows") || inner.has("time")) {
            let key = if inner.has("rows") { "rows" } else { "time" };
            let help = "write `body = \"array\"` or `body = \"lines\"`";
            inner.wrong(key, format!("`{key}` has no use here"), format!("one row a {what}"), help);
        }
        inner.finish();
        one(batch)
    }

    pub fn fill(&self) -> Fill {
        Fill { rows: self.rows, time: self.time }
    }
}

/// A row, encoded.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Its place among the rows of the delivery.
    pub row: usize,
    json: String,
    pub id: String,
    /// The function that scored it, where that is told.
    pub scored_by: Option<String>,
    /// 1 where another answer to it was given out before, else 0.
    pub revision: u8,
}

/// Rows of one body, in order; at least one. All were scored by the same function, and have the same revision.
pub type Piece = Vec<Encoded>;

impl Encoded {
    /// Encodes a row; an error says why the receiver will never take it.
    pub fn new(
        rows: &Rows,
        row: usize,
        told: &ToldColumns,
        ids: RowIds<'_>,
        bytes_max: usize,
    ) -> Result<Encoded, String> {
        let mut json = String::new();
        write_row(rows, row, told, ids, &mut json);
        let meta = rows.batch.meta().get(row);
        let encoded = Encoded {
            row,
            json,
            id: meta.map(|meta| ids.id(meta)).unwrap_or_default(),
            scored_by: meta.and_then(|meta| ids.scored_by(meta)).map(str::to_owned),
            revision: meta.map_or(0, |meta| meta.provenance.revision()),
        };
        if encoded.bytes() > bytes_max {
            return Err(format!("the row takes {} bytes, over the {bytes_max} of `batch.bytes`", encoded.bytes()));
        }
        Ok(encoded)
    }

    /// The same for each repetition of the row, and for nothing else: a correction has the id of what it corrects.
    pub fn key(&self) -> Cow<'_, str> {
        match self.revision {
            0 => Cow::Borrowed(&self.id),
            revision => Cow::Owned(format!("{}-r{revision}", self.id)),
        }
    }

    fn is_like(&self, other: &Encoded) -> bool {
        (&self.scored_by, self.revision) == (&other.scored_by, other.revision)
    }

    /// What it takes in a body: itself, and what separates it from the next.
    pub fn bytes(&self) -> usize {
        self.json.len() + 2
    }
}

/// Cuts encoded rows into pieces of at most `rows_max` rows and `bytes_max` bytes; a row that is larger stands alone.
pub fn pieces(encoded: Vec<Encoded>, rows_max: usize, bytes_max: usize) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut size = 0;
    for row in encoded {
        let more = row.bytes();
        match pieces.last_mut() {
            Some(piece)
                if piece.len() < rows_max.max(1)
                    && size + more <= bytes_max
                    && piece.last().is_none_or(|last| last.is_like(&row)) =>
            {
                size += more;
                piece.push(row);
            }
            _ => {
                size = more;
                pieces.push(vec![row]);
            }
        }
    }
    pieces
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::{IDS, rows};
    use super::*;

    pub fn encoded(n: i64) -> Vec<Encoded> {
        let rows = rows(0..n);
        (0..n as usize).map(|row| Encoded::new(&rows, row, &ToldColumns::default(), IDS, 1_000).unwrap()).collect()
    }

    #[test]
    fn pieces_keep_to_both_limits_and_to_the_order() {
        let sizes = |rows, bytes| pieces(encoded(10), rows, bytes).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(4, 1_000), [4, 4, 2]);
        // `{"n":0}` and what separates it: nine bytes
        assert_eq!(sizes(100, 27), [3, 3, 3, 1]);
        assert_eq!(sizes(100, 26), [2, 2, 2, 2, 2]);
        assert_eq!(sizes(100, 1), [1; 10]);
        let order: Vec<usize> = pieces(encoded(10), 3, 1_000).into_iter().flatten().map(|row| row.row).collect();
        assert_eq!(order, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn bodies_are_what_is_asked_for() {
        assert_eq!(Body::Array.write(&encoded(2)), "[{\"n\":0},{\"n\":1}]");
        assert_eq!(Body::Lines.write(&encoded(2)), "{\"n\":0}\n{\"n\":1}\n");
        assert_eq!(Body::Row.write(&encoded(1)), "{\"n\":0}");
    }

    #[test]
    fn a_row_over_the_limit_is_never_sent() {
        let refused = Encoded::new(&rows(0..1), 0, &ToldColumns::default(), IDS, 8).unwrap_err();
        assert_eq!(refused, "the row takes 9 bytes, over the 8 of `batch.bytes`");
    }
}
