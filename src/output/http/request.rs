//! Rows as the bodies of requests.
//!
//! In: rows that are open. Out: [`Piece`]s within the limits, each with its body and a key of its own. Invariant: the same
//! rows give the same key and the same body. Not here: sending, what an answer means.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::HttpOutputConfig;
use super::settings::Body;
use crate::batch::Rows;
use crate::output::{RowIds, write_row};

/// A row, encoded.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Its place among the rows of the delivery.
    pub row: usize,
    json: String,
    id: String,
}

/// Rows of one request, in order; at least one.
pub type Piece = Vec<Encoded>;

/// Encodes a row; an error says why the receiver will never take it.
pub fn encode(config: &HttpOutputConfig, rows: &Rows, row: usize, ids: RowIds<'_>) -> Result<Encoded, String> {
    let mut json = String::new();
    write_row(rows, row, config.row_id.as_ref(), ids, &mut json);
    if bytes(json.len()) > config.batch.bytes {
        return Err(format!("the row takes {} bytes, over the {} of `batch.bytes`", bytes(json.len()), config.batch.bytes));
    }
    let id = rows.batch.meta().get(row).map(|meta| ids.id(meta)).unwrap_or_default();
    Ok(Encoded { row, json, id })
}

/// What a row takes in a body: itself, and what separates it from the next.
const fn bytes(json: usize) -> usize {
    json + 2
}

/// Cuts encoded rows into pieces of at most `rows_max` rows and `bytes_max` bytes.
pub fn pieces(encoded: Vec<Encoded>, rows_max: usize, bytes_max: usize) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut size = 0;
    for row in encoded {
        let more = bytes(row.json.len());
        match pieces.last_mut() {
            Some(piece) if piece.len() < rows_max.max(1) && size + more <= bytes_max => {
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

/// The body of a piece, packed when that is asked for.
///
/// # Errors
/// It does not pack.
pub fn body(config: &HttpOutputConfig, piece: &[Encoded]) -> io::Result<Vec<u8>> {
    let mut text = String::with_capacity(piece.iter().map(|row| bytes(row.json.len())).sum());
    for (i, row) in piece.iter().enumerate() {
        match config.body {
            Body::Array => text.push(if i == 0 { '[' } else { ',' }),
            Body::Row | Body::Lines => {}
        }
        text.push_str(&row.json);
        if config.body == Body::Lines {
            text.push('\n');
        }
    }
    if config.body == Body::Array {
        text.push(']');
    }
    if !config.gzip {
        return Ok(text.into_bytes());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}

/// A key by which a receiver knows a repeated request: the row's id, or a digest of the ids of several.
pub fn idempotency_key(piece: &[Encoded]) -> String {
    if let [row] = piece {
        return row.id.clone();
    }
    let digest = piece.iter().fold(Sha256::new(), |digest, row| digest.chain_update(&row.id).chain_update([0])).finalize();
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The content type of bodies.
pub fn content_type(body: Body) -> &'static str {
    match body {
        Body::Row | Body::Array => "application/json",
        Body::Lines => "application/x-ndjson",
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{IDS, rows};
    use super::*;
    use reqwest::Url;

    fn config(body: Body) -> HttpOutputConfig {
        HttpOutputConfig { body, ..HttpOutputConfig::new(Url::parse("http://h/").unwrap()) }
    }

    fn encoded(n: i64) -> Vec<Encoded> {
        let rows = rows(0..n);
        (0..n as usize).map(|row| encode(&config(Body::Array), &rows, row, IDS).unwrap()).collect()
    }

    #[test]
    fn pieces_keep_to_both_limits_and_to_the_order() {
        let sizes = |rows, bytes| pieces(encoded(10), rows, bytes).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(4, 1_000), [4, 4, 2]);
        // `{"n":0}` and what separates it: nine bytes
        assert_eq!(sizes(100, 27), [3, 3, 3, 1]);
        assert_eq!(sizes(100, 26), [2, 2, 2, 2, 2]);
        let order: Vec<usize> = pieces(encoded(10), 3, 1_000).into_iter().flatten().map(|row| row.row).collect();
        assert_eq!(order, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn bodies_are_what_is_asked_for() {
        let text = |kind, n| String::from_utf8(body(&config(kind), &encoded(n)).unwrap()).unwrap();
        assert_eq!(text(Body::Array, 2), "[{\"n\":0},{\"n\":1}]");
        assert_eq!(text(Body::Lines, 2), "{\"n\":0}\n{\"n\":1}\n");
        assert_eq!(text(Body::Row, 1), "{\"n\":0}");
        let packed = body(&HttpOutputConfig { gzip: true, ..config(Body::Array) }, &encoded(1)).unwrap();
        let mut unpacked = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
        assert_eq!(unpacked, "[{\"n\":0}]");
    }

    #[test]
    fn a_key_tells_requests_apart_and_repeats_with_them() {
        assert_eq!(idempotency_key(&encoded(1)), "inc-s-0-0");
        assert_eq!(idempotency_key(&encoded(3)), idempotency_key(&encoded(3)));
        assert_ne!(idempotency_key(&encoded(3)), idempotency_key(&encoded(2)));
        assert_ne!(idempotency_key(&encoded(3)[1..]), idempotency_key(&encoded(2)));
    }

    #[test]
    fn a_row_over_the_limit_is_never_sent() {
        let mut small = config(Body::Array);
        small.batch.bytes = 8;
        let refused = encode(&small, &rows(0..1), 0, IDS).unwrap_err();
        assert_eq!(refused, "the row takes 9 bytes, over the 8 of `batch.bytes`");
    }
}
