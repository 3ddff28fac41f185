//! Rows as the bodies of requests.
//!
//! In: pieces of rows. Out: the body of each, and a key of its own. Invariant: the same rows give the same key and the
//! same body. Not here: sending, what an answer means.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::HttpOutputConfig;
use crate::output::body::{Body, Encoded};

/// The body of a piece, packed when that is asked for.
///
/// # Errors
/// It does not pack.
pub fn body(config: &HttpOutputConfig, piece: &[Encoded]) -> io::Result<Vec<u8>> {
    let text = config.body.write(piece);
    if !config.gzip {
        return Ok(text.into_bytes());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}

/// A key by which a receiver knows a repeated request: the row's id and revision, or a digest of those of
/// several.
pub fn idempotency_key(piece: &[Encoded]) -> String {
    if let [row] = piece {
        return row.key().into_owned();
    }
    let digest = piece
        .iter()
        .fold(Sha256::new(), |digest, row| digest.chain_update(row.key().as_bytes()).chain_update([0]))
        .finalize();
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
    use super::*;
    use crate::output::body::tests::encoded;
    use reqwest::Url;

    #[test]
    fn a_body_is_packed_when_that_is_asked_for() {
        let config = HttpOutputConfig::new(Url::parse("http://h/").unwrap());
        assert_eq!(body(&config, &encoded(1)).unwrap(), b"[{\"n\":0}]");
        let packed = body(&HttpOutputConfig { gzip: true, ..config }, &encoded(1)).unwrap();
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
}
