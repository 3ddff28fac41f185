//! The name of a new function.
//!
//! In: what a person typed. Out: the same words in the forms of the languages. Invariant: each form is a name where it
//! is used, WIT and the language included. Not here: what a query may call it, which is any form of it.

use super::{Failed, Language};
use crate::query::catalog::folded;

/// Longer ones serve nobody.
const LENGTH_MAX: usize = 64;

/// One name in four forms.
#[derive(Debug, PartialEq, Eq)]
pub struct NewName {
    pub snake: String,
    pub kebab: String,
    pub camel: String,
    pub pascal: String,
}

impl NewName {
    /// # Errors
    /// It is no name, or a word of the language or of WIT.
    pub fn read(text: &str, language: Language) -> Result<NewName, Failed> {
        let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let words = words(text);
        // core modules may not have exports that begin with `forebay_`
        let is_reserved = words.first().is_some_and(|word| word == "forebay");
        if is_reserved {
            let what =
                format!("`{text}` cannot be the name of a function: those that begin with `forebay` are reserved");
            return Err(Failed::Asked { what, help: "take another name".to_owned() });
        }
        if !is_plain || text.len() > LENGTH_MAX || !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let what = format!("`{text}` cannot be the name of a function");
            let help = format!(
                "begin it with a letter, and use letters of English, digits, `_` and `-`, {LENGTH_MAX} at most"
            );
            return Err(Failed::Asked { what, help });
        }
        let pascal: String = words.iter().map(|word| capital(word)).collect();
        let (first, rest) = pascal.split_at(1);
        let name = NewName {
            snake: words.join("_"),
            kebab: words.join("-"),
            camel: first.to_lowercase() + rest,
            pascal: pascal.clone(),
        };
        let of = [
            (language.title(), language.words()),
            ("forebay", FOREBAY),
            ("WIT", if language.has_wit() { WIT } else { "" }),
        ];
        let mut taken =
            of.iter().filter(|(_, words)| words.split_whitespace().any(|word| folded(word) == folded(&name.snake)));
        if let Some((whose, _)) = taken.next() {
            let what = format!("`{text}` is a word of {whose}, so a function there cannot have that name");
            return Err(Failed::Asked { what, help: format!("take another name, such as `my_{}`", name.snake) });
        }
        Ok(name)
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The words of a name in any style, lower case. One that begins with a digit belongs to the word before: WIT has no
/// others.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut before, mut begins) = ('_', true);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        // HTTPStatus is http status
        let ends_capitals = before.is_ascii_uppercase() && chars.peek().is_some_and(char::is_ascii_lowercase);
        begins |= c.is_ascii_uppercase() && (!before.is_ascii_uppercase() || ends_capitals);
        before = c;
        if !c.is_ascii_alphanumeric() {
            begins = true;
            continue;
        }
        match words.last_mut() {
            Some(word) if !begins || c.is_ascii_digit() => word.push(c.to_ascii_lowercase()),
            _ => words.push(c.to_ascii_lowercase().to_string()),
        }
        begins = false;
    }
    words
}

impl Language {
    fn has_wit(self) -> bool {
        !matches!(self, Language::Go | Language::AssemblyScript | Language::Wat)
    }

    /// Words that cannot name a function, those that the new file uses itself with them.
    fn words(self) -> &'static str {
        match self {
            Language::Rust => RUST,
            Language::C => C,
            Language::Zig => ZIG,
            Language::JavaScript | Language::AssemblyScript => JAVASCRIPT,
            Language::Python => PYTHON,
            Language::Go => GO,
            Language::Wat => "",
        }
    }
}

/// Exports with a meaning of their own.
const FOREBAY: &str = "memory forebay_alloc main initialize exports functions aggregates";
const WIT: &str = "async bool borrow char constructor enum error_context export f32 f64 flags from func future import \
                   include interface list option own package record resource result s16 s32 s64 s8 static stream \
                   string tuple type u16 u32 u64 u8 use variant with world map as";
const RUST: &str = "abstract as async await become box break const continue crate do dyn else enum extern false final \
                    fn for gen if impl in let loop macro match mod move mut override priv pub ref return self static \
                    struct super trait true try type typeof unsafe unsized use virtual where while yield exported \
                    guest export cell option vec string result";
const C: &str = "alignas alignof auto bool break case char const constexpr continue default do double else enum extern \
                 false float for goto if inline int long nullptr register restrict return short signed sizeof static \
                 struct switch thread_local true typedef typeof union unsigned void volatile while string next answer \
                 answer_was_read fraction_or_error text asm cabi_realloc export";
const ZIG: &str = "cabi_realloc";
const JAVASCRIPT: &str = "abstract arguments as async await boolean break case catch class const continue debugger \
                          declare default delete do else enum eval export extends false final finally for from \
                          function get if implements import in instanceof interface is let math module namespace nan \
                          new null number object of package private protected public return set static string super \
                          switch this throw true try type typeof undefined var void while with yield error infinity \
                          symbol date array";
const PYTHON: &str = "and as assert async await break class continue def del elif else except false finally for from \
                      global if import in is lambda none nonlocal not or pass raise return true try while with yield";
const GO: &str = "any append bool break byte cap case chan clear close complex const continue copy default defer \
                  delete else fallthrough false float32 float64 for func go goto if imag import int interface iota len \
                  make map max min new nil package panic print println range real recover return rune select string \
                  struct switch true type uint uint32 uint64 var address alloc answer arguments error errors is_error \
                  json result slices unsafe init";

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(text: &str) -> String {
        let NewName { snake, kebab, camel, pascal } = NewName::read(text, Language::Rust).unwrap();
        format!("{snake} {kebab} {camel} {pascal}")
    }

    #[test]
    fn a_name_has_the_forms_of_the_languages() {
        for (text, wanted) in [
            ("createArray", "create_array create-array createArray CreateArray"),
            ("create-array", "create_array create-array createArray CreateArray"),
            ("CREATE_ARRAY", "create_array create-array createArray CreateArray"),
            ("HTTPStatus", "http_status http-status httpStatus HttpStatus"),
            ("crc-16_of-8x", "crc16_of8x crc16-of8x crc16Of8x Crc16Of8x"),
            ("a__b-", "a_b a-b aB AB"),
            ("x", "x x x X"),
        ] {
            assert_eq!(forms(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(65);
        for text in ["", "9lives", "-x", "_x", "größe", "a b", "a/b", "..", "a.b", &long] {
            let failed = NewName::read(text, Language::Rust).unwrap_err();
            assert_eq!(failed.to_string(), format!("`{text}` cannot be the name of a function"));
        }
        for (text, language, whose) in [
            ("fn", Language::Rust, "Rust"),
            ("record", Language::Python, "WIT"),
            ("is_error", Language::Go, "Go"),
            ("Memory", Language::Wat, "forebay"),
            ("typeOf", Language::JavaScript, "JavaScript"),
        ] {
            let said = NewName::read(text, language).unwrap_err().to_string();
            assert_eq!(said, format!("`{text}` is a word of {whose}, so a function there cannot have that name"));
        }
        assert!(NewName::read("record", Language::Go).is_ok());
    }
}
