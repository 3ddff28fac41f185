//! Payloads as an input's section describes them.
//!
//! In: `format`, `compression`, `empty` of a section, then payloads. Out: events and bad parts. Invariant: what a
//! payload unpacks to is bounded; an empty payload is counted or set aside, never lost in silence. Not here: the
//! formats.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};

use super::format::{Format, format};
use super::{BadPayload, Split};
use crate::settings::Section;
use crate::settings::units::show_size;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The largest event that the journal takes.
const UNPACKED_MAX: u64 = 256 * MIB - 1;

/// RFC 1952: how each gzip member begins.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

/// How payloads are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    Gzip,
    /// Raw, as Stream Analytics has it, or in zlib's frame.
    Deflate,
}

/// What becomes of a message without content, or without an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnEmpty {
    Skip,
    DeadLetter,
}

/// How an input's payloads become events.
#[derive(Clone, Debug)]
pub struct Payloads {
    format: Arc<dyn Format>,
    compression: Option<Compression>,
    /// Of one payload.
    unpacked_bytes_max: usize,
    empty: OnEmpty,
}

impl Payloads {
    const UNPACKED_BYTES_MAX: u64 = 16 * MIB;

    /// Reads and checks the keys.
    pub fn read(section: &mut Section) -> Option<Payloads> {
        let format = format(section);
        let words = [("none", None), ("gzip", Some(Compression::Gzip)), ("deflate", Some(Compression::Deflate))];
        let compression = section.choice("compression", &words, None);
        let unpacked_bytes_max = section.size("unpacked_bytes_max", KIB, UNPACKED_MAX, Self::UNPACKED_BYTES_MAX);
        if compression.is_none() && section.has("unpacked_bytes_max") && !section.is_wrong("compression") {
            section.wrong(
                "unpacked_bytes_max",
                "`unpacked_bytes_max` without `compression`",
                "nothing is unpacked",
                "write `compression = \"gzip\"`, or leave this out",
            );
        }
        let empty =
            section.choice("empty", &[("skip", OnEmpty::Skip), ("dead-letter", OnEmpty::DeadLetter)], OnEmpty::Skip);
        let unpacked_bytes_max = usize::try_from(unpacked_bytes_max).unwrap_or(usize::MAX);
        Some(Payloads { format: format?, compression, unpacked_bytes_max, empty })
    }

    /// Whether each event is a piece of the payload as it came.
    pub fn keeps_bytes(&self) -> bool {
        self.compression.is_none() && self.format.keeps_bytes()
    }

    /// How many bytes are looked at, at most, to split a payload of `bytes`.
    pub fn work(&self, bytes: usize) -> usize {
        /// What deflate makes of a byte at most.
        const UNPACKED: usize = 1032;
        match self.compression {
            Some(_) => bytes.saturating_mul(UNPACKED).min(self.unpacked_bytes_max),
            None => bytes,
        }
    }

    /// Splits a payload into events; `name` is that of its message.
    pub fn split(&self, payload: &Bytes, name: &str) -> Split {
        let unpacked = match self.unpacked(payload) {
            Ok(unpacked) => unpacked,
            Err(error) => return Split::bad(BadPayload { payload: payload.clone(), error, position: 0 }),
        };
        let content = if self.format.is_text() { without_zeros(&unpacked) } else { unpacked };
        let why = if self.format.is_empty(&content) {
            "the payload is empty"
        } else {
            let split = self.format.split(&content, name);
            if !split.events.is_empty() || !split.bad.is_empty() {
                return split;
            }
            // `[]`, a line of names
            "the payload holds no event"
        };
        match self.empty {
            OnEmpty::Skip => Split { empty: 1, ..Split::default() },
            OnEmpty::DeadLetter => Split::bad(BadPayload { payload: content, error: why.to_owned(), position: 0 }),
        }
    }

    /// As [`Payloads::split`], of a payload that may be a part of one that was unpacked.
    pub fn split_again(&self, payload: &Bytes, name: &str) -> Split {
        let whole = self.split(payload, name);
        if self.compression.is_none() || !whole.events.is_empty() {
            return whole;
        }
        let part = Payloads { compression: None, ..self.clone() }.split(payload, name);
        if part.events.is_empty() { whole } else { part }
    }

    fn unpacked(&self, payload: &Bytes) -> Result<Bytes, String> {
        let Some(compression) = self.compression.filter(|_| !payload.is_empty()) else { return Ok(payload.clone()) };
        match compression {
            Compression::Gzip => self.read_all(payload, "gzip", |rest| Box::new(GzDecoder::new(rest))),
            Compression::Deflate if is_zlib(payload) => {
                match self.read_all(payload, "deflate", |rest| Box::new(ZlibDecoder::new(rest))) {
                    // two bytes of raw data may look like a frame
                    Err(framed) => self
                        .read_all(payload, "deflate", |rest| Box::new(DeflateDecoder::new(rest)))
                        .map_err(|_| framed),
                    unpacked => unpacked,
                }
            }
            Compression::Deflate => self.read_all(payload, "deflate", |rest| Box::new(DeflateDecoder::new(rest))),
        }
    }

    /// Unpacks streams that follow one another; zero bytes behind them were left over in somebody's buffer.
    fn read_all(
        &self,
        payload: &[u8],
        what: &str,
        decoder: for<'a> fn(&'a mut &[u8]) -> Box<dyn Read + 'a>,
    ) -> Result<Bytes, String> {
        let (mut bytes, mut rest) = (Vec::new(), payload);
        while bytes.is_empty() || rest.iter().any(|byte| *byte != 0) {
            let (before, room) = (rest.len(), (self.unpacked_bytes_max + 1).saturating_sub(bytes.len()));
            let unpacked = decoder(&mut rest).take(room as u64).read_to_end(&mut bytes);
            unpacked.map_err(|e| match before == payload.len() {
                true if payload.starts_with(GZIP_MAGIC) && what == "gzip" => format!("its gzip is cut or broken: {e}"),
                true => format!("it is no {what}: {e}"),
                false => format!("something that is no {what} follows its end: {e}"),
            })?;
            if bytes.len() > self.unpacked_bytes_max {
                let max = show_size(self.unpacked_bytes_max as u64);
                return Err(format!("it unpacks to more than unpacked_bytes_max = \"{max}\""));
            }
            if rest.len() == before || rest.is_empty() {
                break;
            }
        }
        Ok(Bytes::from(bytes))
    }
}

/// RFC 1950: the method is 8, and the first two bytes are a multiple of 31.
fn is_zlib(payload: &[u8]) -> bool {
    matches!(payload, [cmf, flg, ..] if cmf & 15 == 8 && (u32::from(*cmf) << 8 | u32::from(*flg)).is_multiple_of(31))
}

fn without_zeros(payload: &Bytes) -> Bytes {
    let end = payload.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    payload.slice(..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Problems, document};
    use flate2::Compression as Level;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use std::io::Write;
    use std::path::Path;

    fn payloads(keys: &str) -> Payloads {
        let problems = Problems::new("job.toml", keys, Path::new(""), false);
        let document = document(keys, &[], &problems).unwrap();
        let mut section = Section::root(document.get_ref(), &problems);
        let payloads = Payloads::read(&mut section);
        section.finish();
        let found = problems.into_inner();
        payloads.filter(|_| found.is_empty()).unwrap_or_else(|| panic!("{found}"))
    }

    /// Events, errors, and how many were empty.
    fn split(keys: &str, payload: &[u8]) -> (Vec<String>, Vec<String>, u64) {
        let split = payloads(keys).split(&Bytes::copy_from_slice(payload), "plant/7");
        let events = split.events.iter().map(|e| String::from_utf8(e.to_vec()).unwrap()).collect();
        (events, split.bad.into_iter().map(|b| b.error).collect(), split.empty)
    }

    fn one(event: &str) -> (Vec<String>, Vec<String>, u64) {
        (vec![event.to_owned()], vec![], 0)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Level::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_format_gives_objects() {
        assert_eq!(split("", b"{\"a\":1}"), one("{\"a\":1}"));
        assert_eq!(split("format = \"csv\"", b"a;b\n1;2"), one("{\"a;b\":\"1;2\"}"));
        assert_eq!(
            split("format = \"csv\"\ndelimiter = \";\"\ncolumns = [\"a\", \"b\"]", b"1;2"),
            one("{\"a\":\"1\",\"b\":\"2\"}")
        );
        assert_eq!(
            split("format = \"text\"", b"21.5 \"C\""),
            one("{\"payload\":\"21.5 \\\"C\\\"\",\"topic\":\"plant/7\"}")
        );
        assert_eq!(split("format = \"bytes\"", b"\xff\0"), one("{\"payload\":\"/wA=\",\"topic\":\"plant/7\"}"));
        let (events, bad, _) = split("format = \"text\"", b"ab\xff");
        assert_eq!(
            (events.len(), bad),
            (0, vec!["not UTF-8 text from byte 2 on; `format = \"bytes\"` takes anything".to_owned()])
        );
    }

    #[test]
    fn zero_bytes_at_the_end_of_text_are_dropped() {
        assert_eq!(split("", b"{\"a\":1}\0"), one("{\"a\":1}"));
        assert_eq!(split("format = \"text\"", b"on\0\0"), one("{\"payload\":\"on\",\"topic\":\"plant/7\"}"));
        assert_eq!(split("", b"{\"a\":1}\0{}").1.len(), 1, "not in the middle");
    }

    #[test]
    fn an_empty_payload_is_counted_or_set_aside() {
        for format in ["json", "csv", "text", "bytes"] {
            let keys = format!("format = \"{format}\"\n");
            assert_eq!(split(&keys, b""), (vec![], vec![], 1), "{format}");
            let (events, bad, empty) = split(&format!("{keys}empty = \"dead-letter\""), b"");
            assert_eq!((events.len(), bad, empty), (0, vec!["the payload is empty".to_owned()], 0), "{format}");
        }
        for payload in [&b" \n\0"[..], b"\xef\xbb\xbf", b"\xef\xbb\xbf \n\0"] {
            for keys in ["", "format = \"csv\"", "format = \"csv\"\ncolumns = [\"a\"]"] {
                assert_eq!(split(keys, payload), (vec![], vec![], 1), "{keys} {payload:?}");
            }
        }
        for (keys, payload) in
            [("", &b" [ ] "[..]), ("format = \"csv\"", b"a,b\n"), ("compression = \"gzip\"", &gzip(b"[]"))]
        {
            assert_eq!(split(keys, payload), (vec![], vec![], 1), "no event is counted as well");
            let (_, bad, _) = split(&format!("{keys}\nempty = \"dead-letter\""), payload);
            assert_eq!(bad, ["the payload holds no event"]);
        }
        assert_eq!(split("format = \"text\"", b" ").2, 0, "a blank is text");
        assert_eq!(split("compression = \"gzip\"", &gzip(b"")), (vec![], vec![], 1));
    }

    #[test]
    fn packed_payloads_are_unpacked_up_to_the_bound() {
        let text = b"{\"a\":1}";
        let mut zlib = ZlibEncoder::new(Vec::new(), Level::default());
        zlib.write_all(text).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Level::default());
        raw.write_all(text).unwrap();
        assert_eq!(split("compression = \"gzip\"", &gzip(text)), one("{\"a\":1}"));
        assert_eq!(split("compression = \"deflate\"", &zlib.finish().unwrap()), one("{\"a\":1}"));
        assert_eq!(split("compression = \"deflate\"", &raw.finish().unwrap()), one("{\"a\":1}"));
        let zlib = |bytes: &[u8]| {
            let mut encoder = ZlibEncoder::new(Vec::new(), Level::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let two = [zlib(b"{\"a\":1}\n"), zlib(b"{\"a\":2}")].concat();
        assert_eq!(split("compression = \"deflate\"", &two).0.len(), 2, "streams follow one another");
        for (keys, packed) in [("gzip", gzip(b"{\"a\":1}")), ("deflate", zlib(b"{\"a\":1}"))] {
            let keys = format!("compression = \"{keys}\"");
            assert_eq!(split(&keys, &[packed.as_slice(), b"\0\0\0"].concat()), one("{\"a\":1}"), "{keys}");
            let (events, bad, _) = split(&keys, &[packed.as_slice(), b"junk"].concat());
            assert_eq!((events.len(), bad.len()), (0, 1), "{keys}: nothing is dropped in silence");
        }
        let two = [gzip(b"{\"a\":1}\n"), gzip(b"{\"a\":2}")].concat();
        assert_eq!(split("compression = \"gzip\"", &two).0.len(), 2, "members follow one another");

        let bomb = gzip(&vec![b' '; 50 << 20]);
        assert!(bomb.len() < 64 << 10);
        assert_eq!(
            split("compression = \"gzip\"", &bomb).1,
            ["it unpacks to more than unpacked_bytes_max = \"16MiB\""]
        );
        let exact = gzip(&[b"\"".as_slice(), &vec![b'x'; 1022], b"\""].concat());
        let bound = "format = \"text\"\ncompression = \"gzip\"\nunpacked_bytes_max = \"1KiB\"";
        assert_eq!(split(bound, &exact).0.len(), 1);
        assert_eq!(split(bound, &gzip(&vec![b'x'; 1025])).1.len(), 1);
        for keys in ["compression = \"gzip\"", "compression = \"deflate\""] {
            let (events, bad, _) = split(keys, b"{\"a\":1}");
            assert!(events.is_empty() && bad.len() == 1 && bad[0].starts_with("it is no "), "{bad:?}");
        }
        let cut = gzip(text);
        assert_eq!(split("compression = \"gzip\"", &cut[..cut.len() - 4]).1.len(), 1, "a cut one is no whole one");
    }

    #[test]
    fn only_untouched_payloads_keep_their_bytes() {
        assert!(payloads("").keeps_bytes());
        for keys in ["compression = \"gzip\"", "format = \"csv\"", "format = \"text\"", "format = \"bytes\""] {
            assert!(!payloads(keys).keeps_bytes(), "{keys}");
        }
    }
}
