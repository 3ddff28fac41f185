//! The words and signs of a query.
//!
//! In: nothing. Out: [`Token`], a kind and a range of the text. Invariant: a token owns nothing, so a list of them
//! costs little. Not here: where a token begins and ends (`lexer`), what may follow it (`parser`).

use crate::diagnostic::Span;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    pub kind: Kind,
    pub span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name or a keyword; letter case does not matter for keywords.
    Word,
    /// `[name]`, brackets included
    Bracketed,
    /// `"…"`, quotes included: a name or a text, by its place
    DoubleQuoted,
    /// `'…'` or `N'…'`, quotes included
    Text,
    /// `12`, `1.5`, `.5`, `1e3`
    Number,
    Sign(Sign),
    /// `;`, or `GO` alone on its line
    Semicolon,
    /// Something that no query contains.
    Bad(Bad),
    /// The end of the text, right behind the last token.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Open,
    Close,
    Comma,
    Dot,
    Star,
    Plus,
    Minus,
    Slash,
    Percent,
    Ampersand,
    Bar,
    Caret,
    Tilde,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// Why a piece of text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    OpenText,
    OpenBracket,
    OpenQuote,
    OpenComment,
    EmptyName,
    /// A number that runs into letters: `10s`, `0x1F`
    Number,
    /// `==`, `&&`, `||`
    Doubled,
    Character,
}

/// Words that cannot be names without brackets. The documents publish no list: these are the T-SQL words that the
/// grammar needs to tell where an expression or a clause ends. All others (TIMESTAMP, PARTITION, LIMIT, TOP, …) are
/// keywords by their place only.
const RESERVED: &[&str] = &[
    "AND", "AS", "BETWEEN", "BY", "CASE", "CREATE", "CROSS", "DISTINCT", "ELSE", "END", "FROM", "FULL", "GROUP",
    "HAVING", "IN", "INNER", "INTO", "IS", "JOIN", "LEFT", "LIKE", "NOT", "NULL", "ON", "OR", "ORDER", "OUTER", "OVER",
    "RIGHT", "SELECT", "THEN", "UNION", "WHEN", "WHERE", "WITH",
];

/// Whether a bare word is a keyword wherever it stands.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(word))
}

/// The text of a quoted name or text: without its quotes, doubled closing quotes made single.
pub fn unquoted(token: &str) -> String {
    let (inner, close) = match token.chars().next() {
        Some('[') => (token.get(1..), ']'),
        Some('"') => (token.get(1..), '"'),
        Some('N' | 'n') => (token.get(2..), '\''),
        _ => (token.get(1..), '\''),
    };
    let inner = inner.and_then(|inner| inner.strip_suffix(close)).unwrap_or_default();
    let doubled = [close, close].iter().collect::<String>();
    inner.replace(&doubled, close.encode_utf8(&mut [0; 4]))
}
