//! Errors of what a person typed, drawn with file, line and caret.

/// A range of bytes of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Span {
        Span { start, end }
    }

    /// From the start of this span to the end of the other.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// One error (or warning) in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// what is wrong, lower case
    pub title: String,
    /// where; `None` for a problem of the whole file
    pub span: Option<Span>,
    /// what was expected at the caret
    pub label: String,
    /// what to do about it
    pub help: Option<String>,
    /// more lines of explanation (both signatures of a function, …)
    pub notes: Vec<String>,
    /// short name of the offending construct where tests look for a word
    pub is_warning: bool,
}

/// All problems of one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostics {
    pub file: String,
    pub text: String,
    pub items: Vec<Diagnostic>,
}
