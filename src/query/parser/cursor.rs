//! Looking at tokens and taking them.

use smol_str::SmolStr;

use super::{Parsed, Parser, error};
use crate::diagnostic::Span;
use crate::query::ast::Ident;
use crate::query::token::{Bad, Kind, Sign, Token, is_reserved, unquoted};

impl<'a> Parser<'a> {
    pub(super) fn peek(&self) -> Token {
        self.peek_at(0)
    }

    /// The token `ahead` of the next one; the end of the text goes on for ever.
    pub(super) fn peek_at(&self, ahead: usize) -> Token {
        let token = self.tokens.get(self.at + ahead).or(self.tokens.last());
        token.copied().unwrap_or(Token { kind: Kind::End, span: Span::new(0, 0) })
    }

    /// The token before the next one; at the start, the next one.
    pub(super) fn previous(&self) -> Token {
        self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).copied().unwrap_or_else(|| self.peek())
    }

    pub(super) fn bump(&mut self) -> Token {
        let token = self.peek();
        if token.kind != Kind::End {
            self.at += 1;
        }
        token
    }

    pub(super) fn text_of(&self, token: Token) -> &'a str {
        self.text.get(token.span.start..token.span.end).unwrap_or_default()
    }

    pub(super) fn take_kind(&mut self, kind: Kind) -> bool {
        let taken = self.peek().kind == kind;
        if taken {
            self.bump();
        }
        taken
    }

    pub(super) fn is_word(&self, ahead: usize, word: &str) -> bool {
        let token = self.peek_at(ahead);
        token.kind == Kind::Word && self.text_of(token).eq_ignore_ascii_case(word)
    }

    pub(super) fn at_word(&self, word: &str) -> bool {
        self.is_word(0, word)
    }

    /// Whether these words come next, in this order.
    pub(super) fn at_words(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(ahead, word)| self.is_word(ahead, word))
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        self.take_words(&[word])
    }

    pub(super) fn take_words(&mut self, words: &[&str]) -> bool {
        let taken = self.at_words(words);
        if taken {
            self.at += words.len();
        }
        taken
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Parsed<()> {
        if self.take_word(word) { Ok(()) } else { Err(self.unexpected(&format!("`{word}`"), &[word])) }
    }

    pub(super) fn at_sign(&self, sign: Sign) -> bool {
        self.is_sign(0, sign)
    }

    pub(super) fn is_sign(&self, ahead: usize, sign: Sign) -> bool {
        self.peek_at(ahead).kind == Kind::Sign(sign)
    }

    pub(super) fn take_sign(&mut self, sign: Sign) -> bool {
        self.take_kind(Kind::Sign(sign))
    }

    pub(super) fn expect_sign(&mut self, sign: Sign, expected: &str) -> Parsed<()> {
        if self.take_sign(sign) { Ok(()) } else { Err(self.unexpected(expected, &[])) }
    }

    /// `(`, after what needs one.
    pub(super) fn expect_open(&mut self, after: &str) -> Parsed<()> {
        self.expect_sign(Sign::Open, &format!("`(` after `{after}`"))
    }

    /// Whether the next token can be a name: quoted, or a word that is not reserved.
    pub(super) fn at_name(&self) -> bool {
        let token = self.peek();
        match token.kind {
            Kind::Bracketed | Kind::DoubleQuoted => true,
            Kind::Word => !is_reserved(self.text_of(token)),
            _ => false,
        }
    }

    /// A name, `what` it is for said in the error.
    pub(super) fn name(&mut self, what: &str) -> Parsed<Ident> {
        if self.at_name() {
            return Ok(self.bump_ident());
        }
        let token = self.peek();
        Err(match token.kind {
            Kind::Word => error::reserved(what, self.text_of(token), token.span),
            _ => self.unexpected(what, &[]),
        })
    }

    /// Any word or quoted token as a name.
    pub(super) fn bump_ident(&mut self) -> Ident {
        let token = self.bump();
        let text = self.text_of(token);
        match token.kind {
            Kind::Word => Ident { name: SmolStr::new(text), span: token.span, quoted: false },
            _ => Ident { name: SmolStr::new(unquoted(text)), span: token.span, quoted: true },
        }
    }

    /// One or more of something, separated by commas.
    pub(super) fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut all = vec![one(self)?];
        while self.take_sign(Sign::Comma) {
            all.push(one(self)?);
        }
        Ok(all)
    }

    /// From the start of `start` to the end of the last token taken.
    pub(super) fn span_from(&self, start: Span) -> Span {
        start.to(self.previous().span)
    }

    /// The error of a token that cannot stand here. `words` are the keywords that could, for a hint at a misspelt one.
    pub(super) fn unexpected(&self, expected: &str, words: &[&str]) -> error::Error {
        let token = self.peek();
        if let Kind::Bad(bad) = token.kind {
            return self.bad(bad, token);
        }
        let loose = self.loose_alias.filter(|at| at + 1 == self.at).map(|_| self.previous());
        let misspelt = [Some(token), loose].into_iter().flatten().find_map(|suspect| {
            let is_word = suspect.kind == Kind::Word && !is_reserved(self.text_of(suspect));
            let meant = is_word.then(|| crate::diagnostic::suggest(self.text_of(suspect), words.iter().copied()))??;
            Some((self.text_of(suspect), suspect.span, meant))
        });
        if let Some((written, span, meant)) = misspelt {
            return error::misspelt(written, span, meant);
        }
        error::unexpected(token.kind, self.text_of(token), token.span, expected)
    }

    fn bad(&self, bad: Bad, token: Token) -> error::Error {
        error::bad(bad, self.text_of(token), token.span)
    }
}
