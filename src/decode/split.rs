//! One payload to its events.
//!
//! In: a payload: objects and arrays of objects one after another, on a line each or not, most often a single one.
//! Commas between them are let pass. Out: events as slices of the payload, and the parts that are no events, each with
//! the reason. Invariant: every byte of a payload that is not blank or punctuation between events lies in exactly one
//! event or one bad part; nothing inside of a broken value is an event. Not here: fields (`Decoder`), metadata.

mod broken;
mod place;

use bytes::Bytes;
use jiter::{Jiter, JiterError, Peek};

use super::json::{NotAnEvent, check};
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

/// What a part of a payload is.
enum PartKind {
    Event,
    /// Its elements are looked at one by one.
    Array,
    /// No event: why.
    Bad(String),
}

impl PartKind {
    /// A value that is valid JSON.
    fn of(peek: Peek, fault: Option<NotAnEvent>) -> PartKind {
        match (peek, fault) {
            (Peek::Array, _) => PartKind::Array,
            (Peek::Object, None) => PartKind::Event,
            (Peek::Object, Some(fault)) => PartKind::Bad(fault.to_string()),
            _ => PartKind::Bad("an event must be a JSON object".to_owned()),
        }
    }
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
        let (from, to) = trimmed(self.payload.get(start..).unwrap_or_default(), start);
        if from == to {
            return self.bad(0, self.payload.len(), "the payload is empty".to_owned());
        }
        self.arrays_and_values(from, to);
    }

    fn arrays_and_values(&mut self, mut from: usize, to: usize) {
        while from < to && !self.is_over() {
            if self.payload.get(from) != Some(&b'[') {
                return self.values(from, to);
            }
            let end = self.array(from, to);
            from = self.behind_array(end, to);
        }
    }

    /// What begins with a value that is no array.
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

    /// An array that begins at `from`: where it ends. That is `to` where nothing tells.
    fn array(&mut self, from: usize, to: usize) -> usize {
        let text = self.payload.get(from..to).unwrap_or_default();
        let (mut jiter, mut places) = (Jiter::new(text), Places::new(text));
        // where the text of `jiter` begins, which is another one behind a broken element
        let mut base = 0;
        // the end of what was told as bad
        let mut told = from;
        let mut next = match jiter.next_array() {
            Ok(next) => next,
            Err(error) => return self.bad_to_end(from, to, places.tell(base, &error)),
        };
        while let Some(peek) = next {
            if self.is_over() {
                return to;
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
                        return self.bad_line(from, start, to, why);
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
            next = match jiter.array_step() {
                Ok(step) => step,
                Err(_) if told == to => return to,
                Err(error) => {
                    let why = places.tell(base, &error);
                    let strays = broken::closing_inside(self.payload.get(end..to).unwrap_or_default());
                    if strays == 0 {
                        return self.bad_line(from, end.max(told), to, why);
                    }
                    // brackets that close nothing cost themselves
                    told = end + strays;
                    self.bad(trimmed(self.payload.get(end..told).unwrap_or_default(), end).0, told, why);
                    base = told - from;
                    jiter = Jiter::new(text.get(base..).unwrap_or_default());
                    match jiter.array_step() {
                        Ok(step) => step,
                        Err(error) => return self.bad_to_end(told, to, places.tell(base, &error)),
                    }
                }
            };
        }
        from + base + jiter.current_index()
    }

    /// Where the next value begins behind an array that ended at `end`; `to` where there is none.
    fn behind_array(&mut self, end: usize, to: usize) -> usize {
        let rest = trimmed(self.payload.get(end..to).unwrap_or_default(), end).0;
        let text = |at: usize| self.payload.get(at..to).unwrap_or_default();
        // a bracket that closes nothing costs itself
        let behind = rest + broken::closing(text(rest));
        let next = behind + broken::comma(text(behind));
        let why = "something follows the end of the array".to_owned();
        if broken::goes_on(text(next)) {
            return self.bad_to_end(rest, to, why);
        }
        if behind > rest {
            self.bad(rest, behind, why);
        }
        trimmed(self.payload.get(next..to).unwrap_or_default(), next).0
    }

    fn bad_to_end(&mut self, from: usize, to: usize, why: String) -> usize {
        self.bad(from, to, why);
        to
    }

    /// What is bad from `start` on, in an array that begins at `from`: to the end of its line, where the payload has a
    /// value a line, else to the end.
    fn bad_line(&mut self, from: usize, start: usize, to: usize, why: String) -> usize {
        let text = |from: usize, to: usize| self.payload.get(from..to).unwrap_or_default();
        let is_one_line = !text(from, start).contains(&b'\n');
        let line = text(start, to).iter().position(|byte| *byte == b'\n').map(|at| start + at);
        match line.filter(|line| is_one_line && self.looks_like_lines(line + 1, to)) {
            Some(line) => {
                match trimmed(text(start, line), start) {
                    // nothing is wrong but the bracket that is never closed
                    (first, end) if first == end => self.bad(from, from + 1, why),
                    (_, end) => self.bad(start, end, why),
                }
                line
            }
            None => self.bad_to_end(start, to, why),
        }
    }

    /// Values one after another with nothing but blanks between them, the first an object; `false`, and nothing taken,
    /// where the text is not that to its end.
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
            let kind = PartKind::of(peek, fault);
            wrongs += usize::from(matches!(kind, PartKind::Bad(_)));
            found.push((start, end, kind));
            at = trimmed(self.payload.get(end..to).unwrap_or_default(), end).0;
        }
        if found.len() < 2 {
            return false;
        }
        self.take(found);
        true
    }

    /// The same where some of the values are broken or commas stand between them; `false`, and nothing taken, where
    /// there is no good one.
    fn salvage(&mut self, from: usize, to: usize) -> bool {
        let mut places = Places::new(self.payload.get(from..to).unwrap_or_default());
        let mut found = Vec::new();
        let mut start = from;
        let mut wrongs = 0;
        while start < to && found.len() <= self.most && wrongs < BAD_PARTS_MAX {
            let (end, kind) = self.value(start, to, |error| places.tell(start - from, error));
            wrongs += usize::from(matches!(kind, PartKind::Bad(_)));
            found.push((start, end, kind));
            let next = end + broken::comma(self.payload.get(end..to).unwrap_or_default());
            start = trimmed(self.payload.get(next..to).unwrap_or_default(), next).0;
        }
        let has_good = found.iter().any(|(_, _, kind)| !matches!(kind, PartKind::Bad(_)));
        if has_good {
            self.take(found);
        }
        has_good
    }

    /// The value that begins at `start`: its end, and what it is. It goes to the end of the text where nothing tells
    /// where it ends.
    fn value(&self, start: usize, to: usize, tell: impl FnOnce(&JiterError) -> String) -> (usize, PartKind) {
        let text = self.payload.get(start..to).unwrap_or_default();
        let mut jiter = Jiter::new(text);
        let checked = jiter.peek().and_then(|peek| Ok((peek, check(&mut jiter, peek, 0)?)));
        let (len, kind) = match checked {
            Ok((peek, fault)) => (Some(jiter.current_index()), PartKind::of(peek, fault)),
            Err(error) => match broken::value(text) {
                // its good elements are events
                Some(len) if text.starts_with(b"[") => (Some(len), PartKind::Array),
                len => (len, PartKind::Bad(tell(&error))),
            },
        };
        let rest = |len: usize| text.get(len..).unwrap_or_default();
        let bad = |kind: PartKind, why: &str| match kind {
            PartKind::Bad(why) => PartKind::Bad(why),
            PartKind::Event | PartKind::Array => PartKind::Bad(why.to_owned()),
        };
        // brackets that close nothing belong to the value before them
        let stray = len.map_or(0, |len| broken::closing(rest(len)));
        let is_last = |len: usize| !broken::goes_on(rest(len + broken::comma(rest(len))));
        if let (Some(len), PartKind::Array) = (len, &kind)
            && is_last(len + stray)
        {
            // its end is certain, so a bracket behind it costs itself
            return (start + len, kind);
        }
        match len.map(|len| len + stray).filter(|len| is_last(*len)) {
            Some(len) if stray > 0 => (start + len, bad(kind, "a bracket behind the value closes nothing")),
            Some(len) => (start + len, kind),
            None => (to, bad(kind, "something follows the end of the value")),
        }
    }

    /// Takes parts of the payload.
    fn take(&mut self, found: Vec<(usize, usize, PartKind)>) {
        for (start, end, kind) in found {
            if self.is_over() {
                break;
            }
            match kind {
                PartKind::Event => self.split.events.push(self.payload.slice(start..end)),
                PartKind::Array => _ = self.array(start, end),
                PartKind::Bad(error) => self.bad(start, end, error),
            }
        }
    }

    /// Whether a text that is no single object is meant as one value per line: its first or its last line is an object
    /// or an array by itself. (Inner lines alone do not tell: an indented object may hold such lines.)
    fn looks_like_lines(&self, from: usize, to: usize) -> bool {
        let mut lines = self.line_bounds(from, to);
        let complete = |bounds: (usize, usize)| {
            let text = self.payload.get(bounds.0..bounds.1).unwrap_or_default();
            let mut jiter = Jiter::new(text);
            let peek = jiter.peek().ok().filter(|peek| matches!(*peek, Peek::Object | Peek::Array));
            peek.is_some_and(|peek| check(&mut jiter, peek, 0).is_ok()) && jiter.finish().is_ok()
        };
        let first = lines.next();
        let last = lines.last().or(first);
        first.zip(last).is_some_and(|(first, last)| complete(first) || complete(last))
    }

    fn lines(&mut self, from: usize, to: usize) {
        for (start, end) in self.line_bounds(from, to) {
            if self.is_over() {
                return;
            }
            if self.payload.get(start) == Some(&b'[') {
                self.arrays_and_values(start, end);
                continue;
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
                    "{error}; this is bad part {BAD_PARTS_MAX} of the payload, and all that follows is set aside with \
                    it"
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
