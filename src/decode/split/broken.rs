//! Where a broken value ends.
//!
//! In: text that begins with a value that is not valid JSON. Out: where it ends, as far as its brackets and quotes
//! tell. Invariant: nothing inside a broken value is taken for a value of its own; where an end is not certain there is
//! none. Not here: what is wrong with the value.

/// Brackets inside of one another that are followed: no event has as many.
const DEPTH_MAX: usize = 1_024;

/// The end of a value that stands among others with nothing but blanks between them.
pub fn value(text: &[u8]) -> Option<usize> {
    if matches!(text.first()?, b'}' | b']') {
        return Some(closing(text));
    }
    if !matches!(text.first()?, b'{' | b'[') {
        let end = text.iter().position(|byte| is_blank(*byte) || matches!(byte, b'{' | b'['));
        let end = end.unwrap_or(text.len());
        let is_word = text.get(..end)?.iter().all(|byte| !matches!(byte, b'"' | b',' | b':' | b'}' | b']'));
        return (is_word && end > 0).then_some(end);
    }
    let mut walk = Walk::new(text);
    loop {
        let (at, _) = walk.next()?;
        if walk.open.is_empty() {
            return Some(at + 1);
        }
    }
}

/// The end of an element of an array: where the comma or the bracket behind it stands.
pub fn element(text: &[u8]) -> Option<usize> {
    let mut walk = Walk::new(text);
    loop {
        if walk.open.is_empty() && matches!(text.get(walk.at)?, b',' | b']') {
            return Some(walk.at);
        }
        walk.next()?;
    }
}

/// The length of the closing brackets that a text begins with, and of the blanks before and between them. Where they
/// stand behind a whole value they close nothing, and another value may follow: inside of an object or an array a comma
/// or a bracket would.
pub fn closing(text: &[u8]) -> usize {
    let others = text.iter().position(|byte| !is_blank(*byte) && !matches!(byte, b'}' | b']'));
    let run = text.get(..others.unwrap_or(text.len())).unwrap_or_default();
    run.iter().rposition(|byte| !is_blank(*byte)).map_or(0, |last| last + 1)
}

/// The same inside of an array, where a comma or the end of the array follows: 0 where none does, or a bracket may be
/// that end.
pub fn closing_inside(text: &[u8]) -> usize {
    let others = text.iter().position(|byte| !is_blank(*byte) && *byte != b'}');
    let (run, rest) = text.split_at(others.unwrap_or(text.len()));
    let strays = run.iter().rposition(|byte| !is_blank(*byte)).map_or(0, |last| last + 1);
    if comma(rest) > 0 || rest.starts_with(b"]") { strays } else { 0 }
}

/// The length of a comma that stands between two values where no array is open, or behind the last one, and of the
/// blanks before it. 0: there is none, or it does not separate values.
pub fn comma(text: &[u8]) -> usize {
    let Some(at) = text.iter().position(|byte| !is_blank(*byte)).filter(|at| text.get(*at) == Some(&b',')) else {
        return 0;
    };
    let next = text.iter().skip(at + 1).find(|byte| !is_blank(**byte));
    if matches!(next, None | Some(b'{' | b'[')) { at + 1 } else { 0 }
}

/// Whether what follows a value cannot be the beginning of another, so that the value was none by itself.
pub fn goes_on(rest: &[u8]) -> bool {
    let next = rest.iter().find(|byte| !is_blank(**byte));
    next.is_some_and(|byte| matches!(byte, b',' | b':' | b'}' | b']'))
}

/// What JSON takes for blank.
pub fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A walk over text that knows which brackets are open and takes a quoted text for one step.
struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    open: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(text: &'a [u8]) -> Walk<'a> {
        Walk { text, at: 0, open: Vec::new() }
    }

    /// One step: where it began, and its first byte. `None`: the text ends, a quote or a bracket does not fit.
    fn next(&mut self) -> Option<(usize, u8)> {
        let (start, byte) = (self.at, *self.text.get(self.at)?);
        self.at += 1;
        match byte {
            b'"' => self.quoted()?,
            b'{' | b'[' if self.open.len() < DEPTH_MAX => self.open.push(byte),
            b'{' | b'[' => return None,
            b'}' => (self.open.pop()? == b'{').then_some(())?,
            b']' => (self.open.pop()? == b'[').then_some(())?,
            _ => {}
        }
        Some((start, byte))
    }

    fn quoted(&mut self) -> Option<()> {
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_where_its_brackets_close() {
        for (text, rest) in [
            ("{\"a\":}{\"b\":1}", Some("{\"b\":1}")),
            ("{\"a\":[1,,{}]} 7", Some(" 7")),
            ("{\"a\":\"}\\\"{\"x}{}", Some("{}")),
            ("[1,]", Some("")),
            ("noise {\"a\":1}", Some(" {\"a\":1}")),
            ("noise{}", Some("{}")),
            ("NaN", Some("")),
            ("\u{c}{}", Some("{}")),
            (" {}", None),
            ("{\"a\":{\"b\":1}", None),
            ("{\"a\":1]}", None),
            ("{\"a\":\"x}{\"a\":2}", None),
            (",{}", None),
            ("}", Some("")),
            ("} ]}{}", Some("{}")),
            ("\"x {}", None),
            ("a:{}", None),
        ] {
            assert_eq!(value(text.as_bytes()).map(|end| &text[end..]), rest, "{text}");
        }
        assert_eq!(value("[".repeat(100_000).as_bytes()), None);
    }

    #[test]
    fn an_element_ends_before_the_comma_or_the_bracket_behind_it() {
        for (text, rest) in [
            ("{\"a\":},{\"b\":1}]", Some(",{\"b\":1}]")),
            ("{\"a\":}x y , 7]", Some(", 7]")),
            ("oops]", Some("]")),
            (",{}]", Some(",{}]")),
            ("\",]\",1]", Some(",1]")),
            ("{\"a\":,{\"b\":1}]", None),
            ("{\"a\":", None),
            ("oops", None),
        ] {
            assert_eq!(element(text.as_bytes()).map(|end| &text[end..]), rest, "{text}");
        }
    }
}
