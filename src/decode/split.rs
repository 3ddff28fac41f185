//! One payload to its events.
//!
//! In: a payload, which is a JSON object, an array of objects, or objects one after another, on a line each or not.
//! Out: events as slices of the payload, and the parts that are no events, each with the reason. Invariant: every byte
//! of a payload that is not blank or punctuation between events lies in exactly one event or one bad part. Not here:
//! fields (`Decoder`), metadata.

use bytes::Bytes;
use jiter::{Jiter, JiterError, Peek};

use super::json::check;

/// What a payload holds.
#[derive(Debug, Default)]
pub struct Split {
    /// Exactly one JSON object each, without blanks around it.
    pub events: Vec<Bytes>,
    pub bad: Vec<BadPayload>,
    /// Payloads with nothing in them.
    pub empty: u64,
}

impl Split {
    /// A payload that is bad as a whole.
    pub(super) fn bad(bad: BadPayload) -> Split {
        Split { bad: vec![bad], ..Split::default() }
    }
}

/// A part of a payload (or all of it) that is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPayload {
    pub payload: Bytes,
    /// what is wrong with it, for the dead letter
    pub error: String,
    /// where the part starts, in bytes of the payload
    pub position: usize,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Splits a payload into events. A bad element or line is bad alone; behind a syntax error inside an array nothing can
/// be told apart, so the rest of that array is one bad part.
pub fn split(payload: &Bytes) -> Split {
    split_up_to(payload, usize::MAX)
}

/// As [`split()`], but ends once there are more than `most` events and bad parts: what is far too long costs no more
/// memory than that.
pub fn split_up_to(payload: &Bytes, most: usize) -> Split {
    let mut out = Splitter { payload, split: Split::default(), most };
    let start = if payload.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    out.whole(start);
    out.split
}

struct Splitter<'a> {
    payload: &'a Bytes,
    split: Split,
    most: usize,
}

impl<'a> Splitter<'a> {
    fn whole(&mut self, start: usize) {
        let text = self.payload.get(start..).unwrap_or_default();
        let (from, to) = trimmed(text, start);
        let Some(first) = self.payload.get(from) else {
            return self.bad(0, self.payload.len(), "the payload is empty".to_owned());
        };
        if from == to {
            return self.bad(0, self.payload.len(), "the payload is empty".to_owned());
        }
        if *first == b'[' {
            return self.array(from, to);
        }
        match self.object(from, to) {
            Ok(()) => {}
            Err(_) if self.sequence(from, to) => {}
            Err(_) if self.looks_like_lines(from, to) => self.lines(from, to),
            Err(error) => self.bad(from, to, error),
        }
    }

    /// One object that fills `from..to`.
    fn object(&mut self, from: usize, to: usize) -> Result<(), String> {
        let text = self.payload.get(from..to).unwrap_or_default();
        let mut jiter = Jiter::new(text);
        let wrong = |e: JiterError| at(text, &e);
        let peek = jiter.peek().map_err(wrong)?;
        let fault = check(&mut jiter, peek, 0).map_err(wrong)?;
        jiter.finish().map_err(wrong)?;
        match (peek, fault) {
            (Peek::Object, None) => {
                self.split.events.push(self.payload.slice(from..to));
                Ok(())
            }
            (Peek::Object, Some(fault)) => Err(fault.to_string()),
            _ => Err("an event must be a JSON object".to_owned()),
        }
    }

    fn array(&mut self, from: usize, to: usize) {
        let text = self.payload.get(from..to).unwrap_or_default();
        let mut jiter = Jiter::new(text);
        let mut next = match jiter.next_array() {
            Ok(next) => next,
            Err(error) => return self.bad(from, to, at(text, &error)),
        };
        while let Some(peek) = next {
            if self.is_over() {
                return;
            }
            let start = from + jiter.current_index();
            match check(&mut jiter, peek, 1) {
                Ok(fault) => {
                    let end = from + jiter.current_index();
                    match (peek, fault) {
                        (Peek::Object, None) => self.split.events.push(self.payload.slice(start..end)),
                        (Peek::Object, Some(fault)) => self.bad(start, end, fault.to_string()),
                        _ => self.bad(start, end, "an element of the array is not a JSON object".to_owned()),
                    }
                }
                Err(error) => return self.bad(start, to, at(text, &error)),
            }
            let end = from + jiter.current_index();
            match jiter.array_step() {
                Ok(step) => next = step,
                Err(error) => return self.bad(end, to, at(text, &error)),
            }
        }
        let end = from + jiter.current_index();
        if end < to {
            let (rest, to) = trimmed(self.payload.get(end..to).unwrap_or_default(), end);
            self.bad(rest, to, "something follows the end of the array".to_owned());
        }
    }

    /// Values one after another with nothing but blanks between them, the first an object; `false`, and nothing taken,
    /// when the text is not that to its end.
    fn sequence(&mut self, from: usize, to: usize) -> bool {
        let text = self.payload.get(from..to).unwrap_or_default();
        let mut jiter = Jiter::new(text);
        let mut found = Vec::new();
        let mut at = from;
        while at < to {
            let Ok(peek) = jiter.peek() else { return false };
            if found.is_empty() && !matches!(peek, Peek::Object) {
                return false;
            }
            let start = from + jiter.current_index();
            let Ok(fault) = check(&mut jiter, peek, 0) else { return false };
            let end = from + jiter.current_index();
            let wrong = match (peek, fault) {
                (Peek::Object, fault) => fault.map(|fault| fault.to_string()),
                _ => Some("an event must be a JSON object".to_owned()),
            };
            found.push((start, end, wrong));
            at = trimmed(self.payload.get(end..to).unwrap_or_default(), end).0;
        }
        if found.len() < 2 {
            return false;
        }
        for (start, end, wrong) in found {
            if self.is_over() {
                break;
            }
            match wrong {
                None => self.split.events.push(self.payload.slice(start..end)),
                Some(error) => self.bad(start, end, error),
            }
        }
        true
    }

    /// Whether a text that is no single object is meant as one object per line: its first or its last line is an object
    /// by itself. (Inner lines alone do not tell: an indented object may hold such lines.)
    fn looks_like_lines(&self, from: usize, to: usize) -> bool {
        let mut lines = self.line_bounds(from, to);
        let complete = |bounds: (usize, usize)| {
            let text = self.payload.get(bounds.0..bounds.1).unwrap_or_default();
            let mut jiter = Jiter::new(text);
            matches!(jiter.peek(), Ok(Peek::Object))
                && check(&mut jiter, Peek::Object, 0).is_ok()
                && jiter.finish().is_ok()
        };
        let (first, last) = (lines.next(), lines.last());
        first.zip(last).is_some_and(|(first, last)| complete(first) || complete(last))
    }

    fn lines(&mut self, from: usize, to: usize) {
        for (start, end) in self.line_bounds(from, to) {
            if self.is_over() {
                return;
            }
            match self.object(start, end) {
                Err(error) if !self.sequence(start, end) => self.bad(start, end, error),
                _ => {}
            }
        }
    }

    /// The lines that are not blank, without blanks around them.
    fn line_bounds(&self, from: usize, to: usize) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let text = self.payload.get(from..to).unwrap_or_default();
        let mut start = from;
        let bounds = text.split(|b| *b == b'\n').map(move |line| {
            let bounds = trimmed(line, start);
            start += line.len() + 1;
            bounds
        });
        bounds.filter(|(a, b)| a < b)
    }

    fn is_over(&self) -> bool {
        self.split.events.len() + self.split.bad.len() > self.most
    }

    fn bad(&mut self, from: usize, to: usize, error: String) {
        self.split.bad.push(BadPayload { payload: self.payload.slice(from..to), error, position: from });
    }
}

/// The bounds of `text` without JSON blanks around it, given where it starts.
fn trimmed(text: &[u8], start: usize) -> (usize, usize) {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    let left = text.iter().take_while(|b| blank(b)).count();
    let right = text.iter().rev().take_while(|b| blank(b)).count();
    if left == text.len() { (start + left, start + left) } else { (start + left, start + text.len() - right) }
}

fn at(text: &[u8], error: &JiterError) -> String {
    let position = jiter::LinePosition::find(text, error.index);
    format!("not valid JSON: {} at line {} column {}", error.error_type, position.line, position.column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(payload: &str) -> (Vec<String>, Vec<(usize, String)>) {
        let split = split(&Bytes::copy_from_slice(payload.as_bytes()));
        let events = split.events.iter().map(|e| String::from_utf8(e.to_vec()).unwrap()).collect();
        (events, split.bad.into_iter().map(|b| (b.position, b.error)).collect())
    }

    #[test]
    fn objects_arrays_and_lines_are_told_apart() {
        assert_eq!(parts(" {\"a\" : 1}\n").0, ["{\"a\" : 1}"]);
        assert_eq!(parts("\u{feff}{}").0, ["{}"]);
        assert_eq!(parts("[{\"a\":1} , {\"b\":[1,{}]}]").0, ["{\"a\":1}", "{\"b\":[1,{}]}"]);
        assert_eq!(parts("{\"a\":1}\r\n\n{\"a\":2}\n").0, ["{\"a\":1}", "{\"a\":2}"]);
        assert_eq!(parts("{\n \"a\":\n 1\n}").0.len(), 1, "an indented object is one event");
        assert_eq!(parts("[]"), (vec![], vec![]));
    }

    #[test]
    fn a_bad_element_or_line_is_bad_alone() {
        let (events, bad) = parts("[{\"a\":1},7,{\"a\":99999999999999999999},{\"a\":2}]");
        assert_eq!(events, ["{\"a\":1}", "{\"a\":2}"]);
        assert_eq!(bad[0], (9, "an element of the array is not a JSON object".to_owned()));
        assert_eq!(bad[1], (11, "a whole number does not fit 64 bits".to_owned()));
        let (events, bad) = parts("{\"a\":1}\nnoise\n{\"a\":2}");
        assert_eq!(events.len(), 2);
        assert_eq!(bad[0].0, 8);
    }

    #[test]
    fn several_objects_may_follow_one_another() {
        assert_eq!(parts("{\"a\":1}{\"a\":2} {\"a\":3}").0, ["{\"a\":1}", "{\"a\":2}", "{\"a\":3}"]);
        assert_eq!(parts("{\n\"a\":1\n}\n{\n\"a\":2\n}\n").0.len(), 2, "also indented ones");
        assert_eq!(parts("{\"a\":1}{\"a\":2}\nnoise\n{\"a\":3}").0.len(), 3, "also on one of several lines");
        let (events, bad) = parts("{\"a\":1} 7 {\"a\":99999999999999999999}");
        assert_eq!(events.len(), 1);
        assert_eq!(
            bad,
            [(8, "an event must be a JSON object".to_owned()), (10, "a whole number does not fit 64 bits".to_owned())]
        );
        for payload in ["{\"a\":1}{\"a\":", "7 {\"a\":1}", "{\"a\":1},{\"a\":2}"] {
            let (events, bad) = parts(payload);
            assert_eq!((events.len(), bad.len()), (0, 1), "{payload}");
        }
    }

    #[test]
    fn behind_a_syntax_error_the_rest_of_an_array_is_bad() {
        let (events, bad) = parts("[{\"a\":1},{\"a\":,{\"a\":2}]");
        assert_eq!(events.len(), 1);
        assert_eq!(bad.len(), 1);
        assert_eq!(bad[0].0, 9);
    }

    #[test]
    fn what_values_cannot_hold_is_refused() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(70), "]".repeat(70));
        let digits = format!("{{\"a\":{}}}", "9".repeat(6000));
        for payload in [
            "",
            " \n",
            "7",
            "null",
            "{\"a\":1e999}",
            "{\"a\":\"\\ud800\"}",
            "{} x",
            "{\"a\":01}",
            "{\"a\":NaN}",
            &deep,
            &digits,
        ] {
            let (events, bad) = parts(payload);
            assert_eq!((events.len(), bad.len()), (0, 1), "{payload:.40}");
        }
        let broken = split(&Bytes::from_static(b"{\"a\":\"\xff\"}"));
        assert_eq!((broken.events.len(), broken.bad.len()), (0, 1), "text must be UTF-8");
    }

    #[test]
    fn the_deepest_allowed_nesting_passes() {
        let payload = format!("{{\"a\":{}1{}}}", "[".repeat(63), "]".repeat(63));
        assert_eq!(parts(&payload).0.len(), 1);
    }

    proptest! {
        #[test]
        fn every_byte_lies_in_one_event_or_one_bad_part(bytes in prop::collection::vec(prop::sample::select(&b"{}[],:\"\n 1\xffa"[..]), 0..60)) {
            let payload = Bytes::from(bytes);
            let split = split(&payload);
            let mut covered = vec![0; payload.len()];
            let events = split.events.iter().map(|e| (e.as_ptr() as usize - payload.as_ptr() as usize, e.len()));
            for (at, len) in events.chain(split.bad.iter().map(|b| (b.position, b.payload.len()))) {
                covered[at..at + len].iter_mut().for_each(|n| *n += 1);
            }
            for (byte, times) in payload.iter().zip(covered) {
                prop_assert!(times == 1 || (times == 0 && b" \n[],".contains(byte)), "{byte} {times}");
            }
            prop_assert!(!payload.is_empty() || split.bad.len() == 1);
        }

        #[test]
        fn every_element_of_an_array_is_counted(good in prop::collection::vec(any::<bool>(), 1..20)) {
            let items: Vec<String> = good.iter().enumerate().map(|(i, g)| if *g { format!("{{\"i\":{i}}}") } else { format!("{i}") }).collect();
            let (events, bad) = parts(&format!("[{}]", items.join(", ")));
            prop_assert_eq!(events.len(), good.iter().filter(|g| **g).count());
            prop_assert_eq!(bad.len(), good.iter().filter(|g| !**g).count());
        }
    }
}
