//! `JOIN endpoint INTO (column type, …) AS row ON …`: a form that an article on the service shows and no engine
//! compiles.
//!
//! In: the tokens from that INTO on. Out: an error whose help is the same statement as a call. Invariant: what is not
//! recognised is left out of the rewrite, never guessed. Not here: a join of reference data (`from`).

use std::ops::Range;

use super::Parser;
use super::error::{Error, error};
use crate::query::ast::Ident;
use crate::query::token::{Kind, Sign};

/// What the article's types are here; others are left as they come.
const TYPES: [(&str, &[&str]); 5] = [
    ("nvarchar(max)", &["STRING", "NVARCHAR", "VARCHAR", "TEXT"]),
    ("float", &["FLOAT", "DOUBLE", "REAL", "DECIMAL"]),
    ("bigint", &["BIGINT", "INT", "INTEGER", "LONG"]),
    ("bit", &["BIT", "BOOL", "BOOLEAN"]),
    ("datetime", &["DATETIME", "TIMESTAMP"]),
];

/// The parts of the statement that the rewrite is made of.
#[derive(Default)]
struct Parts {
    items: String,
    output: Option<String>,
    /// what stands between FROM and JOIN
    source: String,
    /// the name that the SELECT list has for it
    source_name: String,
    columns: Vec<String>,
    row: Option<String>,
    condition: Option<String>,
    result: Option<String>,
}

impl Parser<'_> {
    /// Whether the name of a joined input is followed by this form.
    pub(super) fn at_endpoint_join(&self) -> bool {
        self.at_word("INTO") && self.is_sign(1, Sign::Open)
    }

    /// The error; `endpoint` is what is joined, and the next token its INTO.
    pub(super) fn endpoint_join(&mut self, endpoint: &Ident) -> Error {
        let start = self.peek().span;
        let mut parts = self.before_join();
        self.bump();
        let columns = self.in_parentheses();
        let span = start.to(self.previous().span);
        parts.columns = self.columns(columns);
        if self.take_word("AS") && self.at_name() {
            let row = self.bump();
            parts.row = Some(self.text_of(row).to_owned());
        }
        self.behind_join(&mut parts);
        let name = &endpoint.name;
        let problem =
            error(format!("`{name}` cannot be joined: an endpoint is called"), span, "a join takes no columns to send")
                .note(format!(
                    "the endpoint is a function of the job file: `[functions.{name}]` with `type = \"azureml\"`"
                ));
        Box::new(problem.help(format!("write\n{}", parts.rewrite(name))))
    }

    /// The SELECT list, INTO and the first source, which have been read already.
    fn before_join(&self) -> Parts {
        let mut parts = Parts::default();
        let find = |word: &str, below: usize| {
            let is = |at: &usize| {
                self.tokens
                    .get(*at)
                    .is_some_and(|t| t.kind == Kind::Word && self.text_of(*t).eq_ignore_ascii_case(word))
            };
            (0..below).rev().find(is)
        };
        let Some(from) = find("FROM", self.at) else { return parts };
        let Some(join) =
            (from..self.at).find(|at| ["JOIN", "INNER", "LEFT"].iter().any(|w| find(w, *at + 1) == Some(*at)))
        else {
            return parts;
        };
        let Some(select) = find("SELECT", from) else { return parts };
        let into = find("INTO", from).filter(|at| *at > select);
        parts.items = self.text_between(select + 1..into.unwrap_or(from));
        parts.output = into.map(|at| self.text_between(at + 1..from));
        parts.source = self.text_between(from + 1..join);
        let word = |at: usize| self.text_between(at..at + 1).to_ascii_uppercase();
        let name = match word(from + 2).as_str() {
            "AS" => from + 3,
            "TIMESTAMP" | "PARTITION" => from + 1,
            _ if from + 2 < join => from + 2,
            _ => from + 1,
        };
        parts.source_name = self.text_between(name..name + 1);
        parts
    }

    /// `name type, …`, with a CAST where the type is one of ours.
    fn columns(&self, inside: Range<usize>) -> Vec<String> {
        let mut columns = Vec::new();
        let mut at = inside.start;
        while at < inside.end {
            let name = self.text_between(at..at + 1);
            let word = self.text_between(at + 1..at + 2).to_ascii_uppercase();
            let ty = TYPES.iter().find(|(_, words)| words.contains(&word.as_str())).map(|(ty, _)| *ty);
            columns.push(ty.map_or_else(|| name.clone(), |ty| format!("CAST({name} AS {ty}) AS {name}")));
            let mut depth = 0usize;
            while at < inside.end {
                match self.tokens.get(at).map(|t| t.kind) {
                    Some(Kind::Sign(Sign::Open)) => depth += 1,
                    Some(Kind::Sign(Sign::Close)) => depth = depth.saturating_sub(1),
                    Some(Kind::Sign(Sign::Comma)) if depth == 0 => break,
                    _ => {}
                }
                at += 1;
            }
            at += 1;
        }
        columns
    }

    /// WHERE and the APPLY that opens the answer, in either order; ON says what the call's argument says.
    fn behind_join(&mut self, parts: &mut Parts) {
        while !matches!(self.peek().kind, Kind::End | Kind::Semicolon) && !self.starts_statement() {
            if self.take_word("WHERE") {
                let start = self.at;
                while !matches!(self.peek().kind, Kind::End | Kind::Semicolon)
                    && !self.starts_statement()
                    && !["CROSS", "OUTER", "GROUP", "HAVING"].iter().any(|word| self.at_word(word))
                {
                    self.bump();
                }
                parts.condition = Some(self.text_between(start..self.at)).filter(|text| !text.is_empty());
            } else if self.take_word("APPLY") {
                self.bump();
                if self.at_sign(Sign::Open) {
                    self.in_parentheses();
                }
                self.take_word("AS");
                if self.at_name() {
                    let result = self.bump();
                    parts.result = Some(self.text_of(result).to_owned());
                }
            } else {
                self.bump();
            }
        }
    }

    /// Passes a pair of parentheses; answers the tokens inside.
    fn in_parentheses(&mut self) -> Range<usize> {
        let start = self.at + 1;
        let mut depth = 0usize;
        loop {
            match self.bump().kind {
                Kind::Sign(Sign::Open) => depth += 1,
                Kind::Sign(Sign::Close) if depth <= 1 => return start..self.at.saturating_sub(1),
                Kind::Sign(Sign::Close) => depth -= 1,
                Kind::End => return start..self.at,
                _ => {}
            }
        }
    }

    /// The text of some tokens on one line.
    fn text_between(&self, tokens: Range<usize>) -> String {
        let (Some(first), Some(last)) =
            (self.tokens.get(tokens.start), tokens.end.checked_sub(1).and_then(|at| self.tokens.get(at)))
        else {
            return String::new();
        };
        let text = self.text.get(first.span.start..last.span.end).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Parts {
    fn rewrite(&self, endpoint: &str) -> String {
        let row = self.row.clone().unwrap_or_else(|| format!("{endpoint}_row"));
        let result = self.result.clone().unwrap_or_else(|| format!("{endpoint}_result"));
        let condition = self.condition.as_ref().map_or_else(String::new, |text| format!("\n    WHERE {text}"));
        let output = self.output.as_ref().map_or_else(String::new, |name| format!("\nINTO {name}"));
        let Parts { items, source, source_name, columns, .. } = self;
        let columns = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
        format!(
            "WITH {row} AS (\n    SELECT {columns}\n    FROM {source}\n), {endpoint}_scored AS (\n    SELECT \
            {source_name}, udf.{endpoint}({row}) AS {result}\n    FROM {source}{condition}\n)\nSELECT \
            {items}{output}\nFROM {endpoint}_scored"
        )
    }
}
