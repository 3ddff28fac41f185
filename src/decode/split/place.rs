//! Lines and columns of syntax errors.
//!
//! In: a text, and errors in it from the front to the back. Out: what is wrong and where, in words. Invariant: a text
//! is looked through once for all of its errors. Not here: which part of a text is wrong.

use jiter::JiterError;

/// How far a text was looked through.
pub struct Places<'a> {
    text: &'a [u8],
    /// Bytes looked at.
    seen: usize,
    /// From 1.
    line: usize,
    line_start: usize,
}

impl<'a> Places<'a> {
    pub fn new(text: &'a [u8]) -> Places<'a> {
        Places { text, seen: 0, line: 1, line_start: 0 }
    }

    /// The error in words; `base` is where in the text that begins which it is of.
    pub fn tell(&mut self, base: usize, error: &JiterError) -> String {
        let index = base + error.index;
        if index < self.seen {
            *self = Places::new(self.text);
        }
        let end = (index + 1).min(self.text.len());
        for (i, byte) in self.text.get(self.seen..end).unwrap_or_default().iter().enumerate() {
            if *byte == b'\n' {
                self.line += 1;
                self.line_start = self.seen + i + 1;
            }
        }
        self.seen = self.seen.max(end);
        let column = end.saturating_sub(self.line_start);
        format!("not valid JSON: {} at line {} column {column}", error.error_type, self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiter::{Jiter, LinePosition};

    #[test]
    fn places_are_those_that_the_whole_text_gives() {
        let text = b"{\n\"a\":\n\n} x\n";
        let mut error = Jiter::new(b"x").next_bool().unwrap_err();
        let mut places = Places::new(text);
        for index in (0..text.len() + 2).chain([3, 20]) {
            error.index = index;
            let want = LinePosition::find(text, index);
            let told = places.tell(0, &error);
            assert!(told.ends_with(&format!(" at line {} column {}", want.line, want.column)), "{index}: {told}");
        }
    }
}
