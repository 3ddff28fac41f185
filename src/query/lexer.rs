//! Cuts the text of a query into tokens.
//!
//! In: any text. Out: its tokens, the last of which is [`Kind::End`]. Invariant: never fails; what is no token becomes
//! a [`Kind::Bad`], which the parser reports when it gets there. Not here: keywords, grammar, wording of errors.

use super::token::{Bad, Kind, Sign, Token};
use crate::diagnostic::Span;

/// The tokens of a text, blanks and comments left out.
pub fn lex(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new() };
    while lexer.skip_blanks() {
        lexer.token();
    }
    let end = lexer.tokens.last().map_or(0, |token| token.span.end);
    lexer.tokens.push(Token { kind: Kind::End, span: Span::new(end, end) });
    lexer.tokens
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn push(&mut self, kind: Kind, length: usize) {
        let start = self.at;
        self.at += length;
        self.tokens.push(Token { kind, span: Span::new(start, self.at) });
    }

    /// Goes on to the next token; false at the end of the text.
    fn skip_blanks(&mut self) -> bool {
        loop {
            let rest = self.rest();
            // files of some editors start with a byte order mark
            let trimmed = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("--") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if let Some(comment) = trimmed.strip_prefix("/*") {
                match comment_length(comment) {
                    Some(length) => self.at += 2 + length,
                    None => {
                        self.push(Kind::Bad(Bad::OpenComment), 2);
                        self.at = self.text.len();
                    }
                }
            } else {
                return !trimmed.is_empty();
            }
        }
    }

    fn token(&mut self) {
        let rest = self.rest();
        let mut chars = rest.chars();
        let (Some(first), second) = (chars.next(), chars.next()) else { return };
        match first {
            'N' | 'n' if second == Some('\'') => self.quoted(2, '\'', Kind::Text, Bad::OpenText),
            '\'' => self.quoted(1, '\'', Kind::Text, Bad::OpenText),
            '[' => self.quoted(1, ']', Kind::Bracketed, Bad::OpenBracket),
            '"' => self.quoted(1, '"', Kind::DoubleQuoted, Bad::OpenQuote),
            _ if starts_word(first) => self.word(),
            '0'..='9' => self.number(),
            '.' if second.is_some_and(|c| c.is_ascii_digit()) && !self.follows_name() => self.number(),
            _ => self.sign(first, second),
        }
    }

    /// In `a.1` and `[a].1` the point belongs to a path, not to a number.
    fn follows_name(&self) -> bool {
        self.tokens.last().is_some_and(|last| {
            let name = matches!(last.kind, Kind::Word | Kind::Bracketed | Kind::DoubleQuoted | Kind::Sign(Sign::Close));
            name && last.span.end == self.at
        })
    }

    fn quoted(&mut self, open: usize, close: char, kind: Kind, unclosed: Bad) {
        let rest = self.rest();
        let Some(length) = quoted_length(rest.get(open..).unwrap_or_default(), close) else {
            self.push(Kind::Bad(unclosed), open);
            self.at = self.text.len();
            return;
        };
        let is_empty_name = length == 1 && kind != Kind::Text;
        self.push(if is_empty_name { Kind::Bad(Bad::EmptyName) } else { kind }, open + length);
    }

    fn word(&mut self) {
        let rest = self.rest();
        let length = rest.find(|c| !continues_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        let alone = word.eq_ignore_ascii_case("GO") && self.starts_line() && ends_line(after);
        self.push(if alone { Kind::Semicolon } else { Kind::Word }, length);
    }

    fn starts_line(&self) -> bool {
        let before = self.text.get(..self.at).unwrap_or_default();
        let last_end = self.tokens.last().map_or(0, |token| token.span.end);
        before.get(last_end..).unwrap_or_default().contains('\n') || last_end == 0
    }

    fn number(&mut self) {
        let rest = self.rest();
        let mut length = digits(rest);
        if rest.get(length..).is_some_and(|more| more.starts_with('.')) {
            length += 1;
            length += digits(rest.get(length..).unwrap_or_default());
        }
        if let Some(more) = rest.get(length..).and_then(|more| more.strip_prefix(['e', 'E'])) {
            let sign = usize::from(more.starts_with(['+', '-']));
            match digits(more.get(sign..).unwrap_or_default()) {
                0 => {}
                exponent => length += 1 + sign + exponent,
            }
        }
        let runs_on = rest.get(length..).unwrap_or_default();
        let letters = runs_on.find(|c| !continues_word(c)).unwrap_or(runs_on.len());
        self.push(if letters > 0 { Kind::Bad(Bad::Number) } else { Kind::Number }, length + letters);
    }

    fn sign(&mut self, first: char, second: Option<char>) {
        use Sign::*;
        let (kind, length) = match (first, second) {
            ('=', Some('=')) | ('&', Some('&')) | ('|', Some('|')) => (Kind::Bad(Bad::Doubled), 2),
            ('<', Some('>')) | ('!', Some('=')) => (Kind::Sign(NotEqual), 2),
            ('<', Some('=')) | ('!', Some('>')) => (Kind::Sign(LessEqual), 2),
            ('>', Some('=')) | ('!', Some('<')) => (Kind::Sign(GreaterEqual), 2),
            ('(', _) => (Kind::Sign(Open), 1),
            (')', _) => (Kind::Sign(Close), 1),
            (',', _) => (Kind::Sign(Comma), 1),
            ('.', _) => (Kind::Sign(Dot), 1),
            ('*', _) => (Kind::Sign(Star), 1),
            ('+', _) => (Kind::Sign(Plus), 1),
            ('-', _) => (Kind::Sign(Minus), 1),
            ('/', _) => (Kind::Sign(Slash), 1),
            ('%', _) => (Kind::Sign(Percent), 1),
            ('&', _) => (Kind::Sign(Ampersand), 1),
            ('|', _) => (Kind::Sign(Bar), 1),
            ('^', _) => (Kind::Sign(Caret), 1),
            ('~', _) => (Kind::Sign(Tilde), 1),
            ('=', _) => (Kind::Sign(Equal), 1),
            ('<', _) => (Kind::Sign(Less), 1),
            ('>', _) => (Kind::Sign(Greater), 1),
            (';', _) => (Kind::Semicolon, 1),
            _ => (Kind::Bad(Bad::Character), first.len_utf8()),
        };
        self.push(kind, length);
    }
}

fn starts_word(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn continues_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn ends_line(after: &str) -> bool {
    after.split('\n').next().unwrap_or_default().trim().is_empty()
}

/// Length up to and including the closing quote; a doubled one does not close.
fn quoted_length(text: &str, close: char) -> Option<usize> {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == close && chars.next_if(|(_, next)| *next == close).is_none() {
            return Some(at + c.len_utf8());
        }
    }
    None
}

/// Length up to and including the end of a comment whose start is already read. Comments nest, as in T-SQL.
fn comment_length(text: &str) -> Option<usize> {
    let mut depth = 1usize;
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        let next = bytes.peek().map(|(_, next)| *next);
        match (byte, next) {
            (b'*', Some(b'/')) => depth -= 1,
            (b'/', Some(b'*')) => depth += 1,
            _ => continue,
        }
        bytes.next();
        if depth == 0 {
            return Some(at + 2);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(Kind, &str)> {
        let tokens = lex(text);
        let shown = tokens.iter().filter(|token| token.kind != Kind::End);
        shown.map(|token| (token.kind, &text[token.span.start..token.span.end])).collect()
    }

    #[test]
    fn words_names_and_texts() {
        use Kind::*;
        assert_eq!(
            kinds("a_1$ [b ]] c] \"d\" 'it''s' N'ü' größe"),
            [
                (Word, "a_1$"),
                (Bracketed, "[b ]] c]"),
                (DoubleQuoted, "\"d\""),
                (Text, "'it''s'"),
                (Text, "N'ü'"),
                (Word, "größe")
            ]
        );
    }

    #[test]
    fn numbers_and_paths() {
        use Kind::*;
        assert_eq!(
            kinds("1 1.5 .5 1. 1e3 2.5E-7"),
            ["1", "1.5", ".5", "1.", "1e3", "2.5E-7"].map(|text| (Number, text))
        );
        assert_eq!(kinds("a.1"), [(Word, "a"), (Sign(super::Sign::Dot), "."), (Number, "1")]);
        assert_eq!(kinds("10s 0x1F 1e"), ["10s", "0x1F", "1e"].map(|text| (Bad(super::Bad::Number), text)));
    }

    #[test]
    fn each_spelling_of_an_operator() {
        let signs: Vec<Kind> = kinds("<> != <= !> >= !<").into_iter().map(|(kind, _)| kind).collect();
        use Sign::*;
        assert_eq!(signs, [NotEqual, NotEqual, LessEqual, LessEqual, GreaterEqual, GreaterEqual].map(Kind::Sign));
    }

    #[test]
    fn comments_are_blanks() {
        assert_eq!(kinds("a -- b\nc /* d /* e */ ' */ f -- g"), ["a", "c", "f"].map(|text| (Kind::Word, text)));
    }

    #[test]
    fn go_ends_a_statement_only_alone_on_its_line() {
        assert_eq!(
            kinds("a\n go \nGO b go\ngo"),
            [
                (Kind::Word, "a"),
                (Kind::Semicolon, "go"),
                (Kind::Word, "GO"),
                (Kind::Word, "b"),
                (Kind::Word, "go"),
                (Kind::Semicolon, "go")
            ]
        );
    }

    #[test]
    fn what_is_open_at_the_end_is_marked_where_it_opens() {
        for (text, bad) in [
            ("a 'b", Bad::OpenText),
            ("a [b", Bad::OpenBracket),
            ("a \"b", Bad::OpenQuote),
            ("a /* b", Bad::OpenComment),
        ] {
            let tokens = lex(text);
            assert_eq!(
                tokens.iter().map(|token| token.kind).collect::<Vec<_>>(),
                [Kind::Word, Kind::Bad(bad), Kind::End],
                "{text}"
            );
            assert_eq!(tokens[1].span.start, 2);
        }
        assert_eq!(
            kinds("[] ? =="),
            [(Kind::Bad(Bad::EmptyName), "[]"), (Kind::Bad(Bad::Character), "?"), (Kind::Bad(Bad::Doubled), "==")]
        );
    }

    proptest::proptest! {
        #[test]
        fn tokens_are_in_order_and_inside_the_text(text in "\\PC{0,60}") {
            let mut last = 0;
            for token in lex(&text) {
                assert!(token.span.start >= last && token.span.end >= token.span.start);
                assert!(text.get(token.span.start..token.span.end).is_some());
                last = token.span.end;
            }
        }
    }
}
