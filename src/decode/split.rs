//! One payload to its events.
//!
//! In: a payload, which is a JSON object, an array of objects, or objects one after another, on a line each or not.
//! Out: events as slices of the payload, and the parts that are no events, each with the reason. Invariant: every byte
//! of a payload that is not blank or punctuation between events lies in exactly one event or one bad part; nothing
//! inside a broken value is an event. Not here: fields (`Decoder`), metadata.

mod broken;
mod place;

use bytes::Bytes;
use jiter::{Jiter, JiterError, Peek};

use super::json::check;
use place::Places;

/// What a payload holds.
#[derive(Debug, Default)]
pub struct Split {
    /// Exactly one JSON object each, without blanks around it.
    pub events: Vec<Bytes>,
    pub bad: Vec<BadPayload>,
    /// Payloads with nothing in them, or no event.
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

/// Bad parts of one payload that are told apart; the last of them goes to the end of the payload. A part of one byte
/// costs some hundred bytes as a dead letter.
pub const BAD_PARTS_MAX: usize = 1_000;

/// How text of some programs begins, in UTF-8; it is no part of what it says.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Splits a payload into events. A bad element, line or value is bad alone; behind one whose end cannot be told the
/// rest is one bad part with it.
pub fn split(payload: &Bytes) -> Split {
    split_up_to(payload, usize::MAX)
}

/// As [`split()`], but ends once there are more than `most` events and bad parts: what is far too long costs no more
/// memory than that.
pub fn split_up_to(payload: &Bytes, most: usize) -> Split {
    let mut out = Splitter { payload, split: Split::default(), most, is_given_up: false };
    let start = if payload.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    out.whole(start);
    out.split
}

struct Splitter<'a> {
    payload: &'a Bytes,
    split: Split,
    most: usize,
    /// Too much was bad: the last bad part has all that follows.
    is_given_up: bool,
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
        self.values(from, to);
    }

    /// What begins with a value that is no array of events.
    fn values(&mut self, from: usize, to: usize) {
        match self.object(from, to) {
            Ok(()) => {}
            Err(_) if self.sequence(from, to) => {}
            Err(_) if self.looks_like_lines(from, to) => self.lines(from, to),
            Err(_) if self.salvage(from, to) => {}
            Err(error) => self.bad(from, to, error),
        }
    }

    /// One object that fills `from..to`.
    fn object(&mut self, from: usize, to: usize) -> Result<(), String> {
        let text = self.payload.get(from..to).unwrap_or_default();
        let mut jiter = Jiter::new(text);
        let wrong = |e: JiterError| Places::new(text).tell(0, &e);
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
        let (mut jiter, mut places) = (Jiter::new(text), Places::new(text));
        // where the text of `jiter` begins, which is another one behind a broken element
        let mut base = 0;
        // the end of what was told as bad
        let mut told = from;
        let mut next = match jiter.next_array() {
            Ok(next) => next,
            Err(error) => return self.bad(from, to, places.tell(base, &error)),
        };
        while let Some(peek) = next {
            if self.is_over() {
                return;
            }
            let start = from + base + jiter.current_index();
            match check(&mut jiter, peek, 1) {
                Ok(fault) => {
                    let end = from + base + jiter.current_index();
                    match (peek, fault) {
                        (Peek::Object, None) => self.split.events.push(self.payload.slice(start..end)),
                        (Peek::Object, Some(fault)) => self.bad(start, end, fault.to_string()),
                        _ => self.bad(start, end, "an element of the array is not a JSON object".to_owned()),
                    }
                }
                Err(error) => {
                    let why = places.tell(base, &error);
                    let Some(len) = broken::element(self.payload.get(start..to).unwrap_or_default()) else {
                        return self.bad(start, to, why);
                    };
                    // where nothing stands between two commas, the second is what is bad
                    let part = self.payload.get(start..start + len.max(1)).unwrap_or_default();
                    self.bad(start, trimmed(part, start).1, why);
                    told = start + len.max(1);
                    base = start + len - from;
                    jiter = Jiter::new(text.get(base..).unwrap_or_default());
                }
            }
            let end = from + base + jiter.current_index();
            match jiter.array_step() {
                Ok(step) => next = step,
                Err(_) if told == to => return,
                Err(error) => return self.bad(end.max(told), to, places.tell(base, &error)),
            }
        }
        let end = from + base + jiter.current_index();
        if end < to {
            let (rest, to) = trimmed(self.payload.get(end..to).unwrap_or_default(), end);
            if matches!(self.payload.get(rest), Some(b'{' | b'[')) {
                return self.values(rest, to);
            }
            // a bracket that closes nothing costs itself
            let behind = rest + broken::closing(self.payload.get(rest..to).unwrap_or_default());
            let why = "something follows the end of the array".to_owned();
            if behind == rest || broken::goes_on(self.payload.get(behind..to).unwrap_or_default()) {
                return self.bad(rest, to, why);
            }
            self.bad(rest, behind, why);
            let (rest, to) = trimmed(self.payload.get(behind..to).unwrap_or_default(), behind);
            if rest < to {
                self.values(rest, to);
            }
        }
    }

    /// Values one after another with nothing but blanks between them, the first an object; `false`, and nothing taken,
    /// when the text is not that to its end.
    fn sequence(&mut self, from: usize, to: usize) -> bool {
        let text = self.payload.get(from..to).unwrap_or_default();
        let mut jiter = Jiter::new(text);
        let mut found = Vec::new();
        let mut wrongs = 0;
        let mut at = from;
        while at < to && wrongs < BAD_PARTS_MAX {
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
            wrongs += usize::from(wrong.is_some());
            found.push((start, end, wrong));
            at = trimmed(self.payload.get(end..to).unwrap_or_default(), end).0;
        }
        if found.len() < 2 {
            return false;
        }
        self.take(found);
        true
    }

    /// The same where some of the values are broken; `false`, and nothing taken, when there is no good one.
    fn salvage(&mut self, from: usize, to: usize) -> bool {
        let mut places = Places::new(self.payload.get(from..to).unwrap_or_default());
        let mut found = Vec::new();
        let mut start = from;
        let mut wrongs = 0;
        while start < to && found.len() <= self.most && wrongs < BAD_PARTS_MAX {
            let (end, wrong) = self.value(start, to, |error| places.tell(start - from, error));
            wrongs += usize::from(wrong.is_some());
            found.push((start, end, wrong));
            start = trimmed(self.payload.get(end..to).unwrap_or_default(), end).0;
        }
        let has_good = found.iter().any(|(_, _, wrong)| wrong.is_none());
        if has_good {
            self.take(found);
        }
        has_good
    }

    /// The value that begins at `start`: its end, and why it is no event. It goes to the end of the text where nothing
    /// tells where it ends.
    fn value(&self, start: usize, to: usize, tell: impl FnOnce(&JiterError) -> String) -> (usize, Option<String>) {
        let text = self.payload.get(start..to).unwrap_or_default();
        let mut jiter = Jiter::new(text);
        let checked = jiter.peek().and_then(|peek| Ok((peek, check(&mut jiter, peek, 0)?)));
        let (len, wrong) = match checked {
            Ok((Peek::Object, fault)) => (Some(jiter.current_index()), fault.map(|fault| fault.to_string())),
            Ok(_) => (Some(jiter.current_index()), Some("an event must be a JSON object".to_owned())),
            Err(error) => (broken::value(text), Some(tell(&error))),
        };
        let rest = |len: usize| text.get(len..).unwrap_or_default();
        // brackets that close nothing belong to the value before them
        let stray = len.map_or(0, |len| broken::closing(rest(len)));
        match len.map(|len| len + stray).filter(|len| !broken::goes_on(rest(*len))) {
            Some(len) if stray > 0 => {
                (start + len, Some(wrong.unwrap_or_else(|| "a bracket behind the object closes nothing".to_owned())))
            }
            Some(len) => (start + len, wrong),
            None => (to, Some(wrong.unwrap_or_else(|| "something follows the end of the object".to_owned()))),
        }
    }

    /// Takes parts, each with the reason why it is no event.
    fn take(&mut self, found: Vec<(usize, usize, Option<String>)>) {
        for (start, end, wrong) in found {
            if self.is_over() {
                break;
            }
            match wrong {
                None => self.split.events.push(self.payload.slice(start..end)),
                Some(error) => self.bad(start, end, error),
            }
        }
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
                Err(error) if !self.sequence(start, end) && !self.salvage(start, end) => self.bad(start, end, error),
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
        self.is_given_up || self.split.events.len() + self.split.bad.len() > self.most
    }

    fn bad(&mut self, from: usize, to: usize, error: String) {
        if self.is_given_up {
            return;
        }
        self.is_given_up = self.split.bad.len() + 1 == BAD_PARTS_MAX;
        let rest = match self.is_given_up {
            true => trimmed(self.payload.get(from..).unwrap_or_default(), from).1,
            false => to,
        };
        let (to, error) = match to < rest {
            true => (
                rest,
                format!(
                    "{error}; this is bad part {BAD_PARTS_MAX} of the payload, and all that follows is set aside with it"
                ),
            ),
            false => (to, error),
        };
        self.split.bad.push(BadPayload { payload: self.payload.slice(from..to), error, position: from });
    }
}

/// The bounds of `text` without JSON blanks around it, given where it starts.
fn trimmed(text: &[u8], start: usize) -> (usize, usize) {
    let left = text.iter().take_while(|b| broken::is_blank(**b)).count();
    let right = text.iter().rev().take_while(|b| broken::is_blank(**b)).count();
    if left == text.len() { (start + left, start + left) } else { (start + left, start + text.len() - right) }
}

#[cfg(test)]
mod tests;
