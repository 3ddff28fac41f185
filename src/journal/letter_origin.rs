//! What it takes to do again what a dead letter was made of.
//!
//! In: the message that an event came in, or a row as a stage was given it. Out: bytes beside the letter, and the way
//! back. Invariant: values, times and ids come back as they were. Not here: what is done with it (the pipeline).

use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;

use super::segment::{EventBuilder, EventSegment, encode_rows, rows_from_raw};
use crate::batch::{MessageMeta, RawEvent, Rows};
use crate::time::Timestamp;
use crate::value::codec::{ByteReader, Damaged, put_bytes};

const MESSAGE: u8 = 1;
const ROW: u8 = 2;
const FINISHED: u8 = 3;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub enum LetterOrigin {
    /// An event, or a payload that became none; the payload itself is the letter's.
    Message { arrival: Timestamp, message: Arc<MessageMeta>, mark: u64 },
    /// One row on its way to an endpoint, with the names of its columns.
    Row {
        /// Digest of the text of the statement that it was made for.
        text: SmolStr,
        rows: Rows,
    },
    /// One row on its way to an output.
    Finished {
        /// The statement that made it: part of the row's id.
        statement: SmolStr,
        rows: Rows,
    },
}

impl LetterOrigin {
    /// That of an event.
    pub fn of_event(event: &RawEvent) -> LetterOrigin {
        LetterOrigin::Message { arrival: event.arrival, message: event.message.clone(), mark: event.mark }
    }

    /// As it is stored; `None` for a row that could not be read back, being nested too deep.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        match self {
            LetterOrigin::Message { arrival, message, mark } => {
                let mut builder = EventBuilder::default();
                let (arrival, message, mark) = (*arrival, message.clone(), *mark);
                builder.push(&RawEvent { arrival, payload: Bytes::new(), message, mark }, arrival);
                Some([vec![MESSAGE], builder.finish()].concat())
            }
            LetterOrigin::Row { text: of, rows } | LetterOrigin::Finished { statement: of, rows } => {
                let is_finished = matches!(self, LetterOrigin::Finished { .. });
                let mut bytes = vec![if is_finished { FINISHED } else { ROW }];
                put_bytes(&mut bytes, of.as_bytes());
                bytes.extend(encode_rows(rows, 0..rows.batch.len()).ok()?);
                Some(bytes)
            }
        }
    }

    /// Reads what was stored.
    ///
    /// # Errors
    /// Where the bytes are damaged, or those of a newer program.
    pub fn from_bytes(bytes: &[u8]) -> Result<LetterOrigin, Damaged> {
        let mut reader = ByteReader::new(bytes);
        let damaged = Damaged { at: 0 };
        match reader.byte()? {
            MESSAGE => {
                let rest = bytes.get(reader.position()..).unwrap_or_default();
                let segment = EventSegment::from_raw(0, 0, rest.to_vec())?;
                let event = segment.get(0).ok_or(damaged)?;
                let (arrival, message, mark) = (event.arrival, event.message.clone(), event.mark);
                Ok(LetterOrigin::Message { arrival, message, mark })
            }
            form @ (ROW | FINISHED) => {
                let of = SmolStr::new(reader.str()?);
                let rows = rows_from_raw(bytes.get(reader.position()..).unwrap_or_default())?;
                if rows.batch.len() != 1 {
                    return Err(damaged);
                }
                Ok(match form {
                    ROW => LetterOrigin::Row { text: of, rows },
                    _ => LetterOrigin::Finished { statement: of, rows },
                })
            }
            _ => Err(damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Column, Provenance, RowMeta, ScoredBy};
    use crate::value::Value;

    #[test]
    fn an_origin_is_read_back_as_it_was() {
        let at = Timestamp::parse("2026-11-28T08:00:00.1234567Z").unwrap();
        let pair = |a: &str, b: &str| vec![(SmolStr::new(a), SmolStr::new(b))];
        let meta = MessageMeta { name: "a/b".into(), properties: pair("p", "1"), facts: pair("qos", "1") };
        let message = LetterOrigin::Message { arrival: at, message: Arc::new(meta), mark: u64::MAX };
        let mut batch = Batch::new(3);
        let provenance = Provenance { scored_by: ScoredBy::Endpoint, is_correction: true };
        let row = RowMeta { provenance, ..RowMeta::new(at, Timestamp::MIN, 7, 3) };
        batch.push(row, [Value::DateTime(at), Value::Float(1.0), Value::array(vec![Value::Null])]);
        let columns = ["a", "b", "argument"].map(|name| Column { name: name.into(), spread: name == "b" }).into();
        let rows = Rows { columns, batch };
        let finished = LetterOrigin::Finished { statement: "alerts~2".into(), rows: rows.clone() };
        let row = LetterOrigin::Row { text: "0123".into(), rows };
        for origin in [message, row, finished] {
            let bytes = origin.to_bytes().unwrap();
            assert_eq!(LetterOrigin::from_bytes(&bytes), Ok(origin));
            for cut in 0..bytes.len() {
                assert!(LetterOrigin::from_bytes(&bytes[..cut]).is_err(), "{cut} bytes");
            }
        }
    }
}
