//! Statements of a script: CREATE TABLE, WITH, SELECT; and what other SQL has and this language has not.

use super::error::{Error, error, shown};
use super::{Parsed, Parser};
use crate::diagnostic::Diagnostic;
use crate::query::ast::{ColumnDef, CreateTable, Script, Select, Step};
use crate::query::token::{Kind, Sign};

/// What may stand at the start of a statement.
const STARTS: &[&str] = &["SELECT", "WITH", "CREATE"];

/// What could have followed a complete SELECT, for hints at misspelt words.
const CLAUSES: &[&str] = &[
    "SELECT",
    "FROM",
    "INTO",
    "TIMESTAMP",
    "PARTITION",
    "JOIN",
    "LEFT",
    "CROSS",
    "OUTER",
    "WHERE",
    "GROUP",
    "HAVING",
    "UNION",
];

impl Parser<'_> {
    pub(super) fn statement(&mut self, script: &mut Script) -> Parsed<()> {
        if self.at_word("SELECT") {
            let select = self.select()?;
            self.end_of_statement()?;
            script.statements.push(select);
            Ok(())
        } else if self.at_word("WITH") {
            self.with(script)
        } else if self.at_word("CREATE") {
            let table = self.create_table()?;
            script.tables.push(table);
            self.end_of_statement()
        } else {
            Err(self.no_statement())
        }
    }

    /// Whether a statement starts here, as far as one can tell behind an error. `(SELECT` and `UNION SELECT` go on with
    /// one.
    pub(super) fn starts_statement(&self) -> bool {
        let goes_on = || {
            let before = self.previous();
            before.kind == Kind::Sign(Sign::Open)
                || ["UNION", "ALL"].iter().any(|word| self.text_of(before).eq_ignore_ascii_case(word))
        };
        (self.at_word("SELECT") && !goes_on())
            || (self.at_word("WITH") && self.is_word(2, "AS"))
            || self.at_words(&["CREATE", "TABLE"])
    }

    fn end_of_statement(&mut self) -> Parsed<()> {
        let ends =
            matches!(self.peek().kind, Kind::Semicolon | Kind::End) || STARTS.iter().any(|word| self.at_word(word));
        if ends { Ok(()) } else { Err(self.behind_select("the end of the statement")) }
    }

    // `CREATE TABLE name (column type, …)`
    fn create_table(&mut self) -> Parsed<CreateTable> {
        let start = self.bump().span;
        if !self.take_word("TABLE") {
            let misspelt = self.unexpected("`TABLE`", &["TABLE"]);
            return Err(Box::new(misspelt.help("the only thing to create is `CREATE TABLE input (column type, …)`")));
        }
        let name = self.name("the name of an input")?;
        self.expect_sign(Sign::Open, "`(` and the columns")?;
        let columns = self.list(|p| {
            let name = p.name("the name of a column")?;
            let ty = p.type_name()?;
            let span = p.span_from(name.span);
            Ok(ColumnDef { name, ty, span })
        })?;
        self.expect_sign(Sign::Close, "`,` and another column, or `)`")?;
        Ok(CreateTable { name, columns, span: self.span_from(start) })
    }

    // `WITH name AS (select), …`
    fn with(&mut self, script: &mut Script) -> Parsed<()> {
        let with = self.bump().span;
        if !script.steps.is_empty() {
            let error = error("a script has one WITH", with, "a second `WITH`");
            return Err(Box::new(error.help("write all steps behind the first `WITH`, separated by commas")));
        }
        if !script.statements.is_empty() {
            let error = error("WITH stands behind a SELECT", with, "expected before the first `SELECT`");
            return Err(Box::new(
                error.help("every SELECT of a script can use the steps of the one WITH at its start"),
            ));
        }
        self.in_step = true;
        let steps = self.list(Self::step)?;
        self.in_step = false;
        if !self.at_word("SELECT") {
            return Err(self.unexpected("`,` and another step, or the `SELECT` that uses the steps", &["SELECT"]));
        }
        script.steps = steps;
        Ok(())
    }

    fn step(&mut self) -> Parsed<Step> {
        let name = self.name("the name of a step")?;
        self.expect_word("AS")?;
        self.expect_sign(Sign::Open, "`(` and the step's `SELECT`")?;
        if !self.at_word("SELECT") {
            return Err(self.unexpected("`SELECT`", &["SELECT"]));
        }
        let body = self.select()?;
        if !self.take_sign(Sign::Close) {
            return Err(self.behind_select("`)` at the end of the step"));
        }
        Ok(Step { name, body })
    }

    /// One or more SELECTs joined by UNION.
    pub(super) fn select(&mut self) -> Parsed<Select> {
        let start = self.peek().span;
        let mut into = None;
        let mut cores = vec![self.core(&mut into)?];
        while self.take_word("UNION") {
            self.take_word("ALL");
            if !self.at_word("SELECT") {
                return Err(self.unexpected("`SELECT` after `UNION`", &["SELECT", "ALL"]));
            }
            let mut second = None;
            cores.push(self.core(&mut second)?);
            if let Some(name) = second {
                let error = error(
                    "INTO belongs to the first SELECT of a UNION",
                    name.span,
                    "the whole union goes to one output",
                );
                return Err(Box::new(error.help(format!("move `INTO {}` before the first `FROM`", name.name))));
            }
        }
        Ok(Select { cores, into, span: self.span_from(start) })
    }

    /// The error of whatever follows a SELECT and does not belong there.
    fn behind_select(&self, expected: &str) -> Error {
        let token = self.peek();
        let word = self.text_of(token).to_ascii_uppercase();
        let at = |title: &str, label: &str, help: &str| Box::new(error(title, token.span, label).help(help));
        if token.kind != Kind::Word {
            return self.unexpected(expected, CLAUSES);
        }
        const ORDER: &str =
            "the order is SELECT, INTO, FROM (TIMESTAMP BY, PARTITION BY, JOIN), WHERE, GROUP BY, HAVING, UNION";
        match word.as_str() {
            "ORDER" => at(
                "ORDER BY is not in the language",
                "a stream has no end to sort at",
                "rows come in the order of time; `ORDER BY` stands only inside `OVER (…)` of TopOne, CollectTop and \
                the percentiles",
            ),
            "LIMIT" | "OFFSET" | "FETCH" => at(
                &format!("{word} is not in the language"),
                "a stream has no end to count to",
                "take the first rows of a window with `CollectTop(n) OVER (ORDER BY …)` and `GROUP BY` a window",
            ),
            "EXCEPT" | "INTERSECT" | "MINUS" => at(
                &format!("{word} is not in the language"),
                "only `UNION` combines SELECTs",
                "use a `LEFT JOIN` and `WHERE … IS NULL` for what is absent, a `JOIN` for what is in both",
            ),
            "MATCH_RECOGNIZE" => at(
                "MATCH_RECOGNIZE is misplaced or written twice",
                "stands right behind an input or a step, its TIMESTAMP BY and its PARTITION BY",
                ORDER,
            ),
            "INTO" => {
                at("INTO stands behind FROM", "expected before `FROM`", "write `SELECT … INTO output FROM input`")
            }
            "FROM" | "WHERE" | "GROUP" | "HAVING" => {
                at(&format!("{word} is misplaced or written twice"), "cannot stand here", ORDER)
            }
            "JOIN" | "INNER" | "LEFT" | "CROSS" | "OUTER" | "RIGHT" | "FULL" => {
                at(&format!("{word} is misplaced"), "joins stand behind the first input of FROM", ORDER)
            }
            "TIMESTAMP" if self.is_word(1, "BY") => {
                at("TIMESTAMP BY is misplaced or written twice", "stands right behind the name of its input", ORDER)
            }
            "PARTITION" if self.is_word(1, "BY") => {
                at("PARTITION BY is misplaced or written twice", "stands right behind the name of its input", ORDER)
            }
            _ => self.unexpected(expected, CLAUSES),
        }
    }

    /// The error of a statement that starts with none of the words that start one.
    fn no_statement(&self) -> Error {
        const STATEMENTS: &str = "`SELECT`, `WITH` or `CREATE TABLE`";
        let token = self.peek();
        let word = self.text_of(token).to_ascii_uppercase();
        let (what, help) = match word.as_str() {
            "DECLARE" | "SET" => {
                ("variables are", "write the value where it is used, or read it from a reference input")
            }
            "INSERT" => ("INSERT is", "write `SELECT … INTO output FROM input`"),
            "UPDATE" | "DELETE" | "MERGE" | "TRUNCATE" => {
                ("changing stored data is", "a query only turns events into rows: `SELECT … INTO output`")
            }
            "DROP" | "ALTER" | "USE" | "GRANT" => {
                ("database commands are", "inputs and outputs are named in the job file")
            }
            "IF" | "WHILE" | "BEGIN" | "RETURN" | "EXEC" | "EXECUTE" | "PRINT" => {
                ("procedures are", "write `CASE` for a choice, a function for a computation")
            }
            _ => return self.unexpected(STATEMENTS, STARTS),
        };
        let title = format!("{what} not in the language");
        Box::new(
            error(title, token.span, format!("expected {STATEMENTS}, found {}", shown(self.text_of(token)))).help(help),
        )
    }

    pub(super) fn no_select(&self) -> Error {
        Box::new(
            Diagnostic::error("the script has no SELECT", None)
                .help("write at least `SELECT * INTO output FROM input`"),
        )
    }
}
