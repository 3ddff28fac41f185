//! The stages in which rows can fail, and what to do about each reason.
//!
//! In: the ledger. Out: rows of each stage that went through and that failed, by [`FailureCause`]; words for a person.
//! Invariant: a row that a WHERE left out is in neither, so a statement is judged by the rows that were to come out.
//! Not here: over which time (`failing`), when it is told (`failures`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use smol_str::{SmolStr, format_smolstr};

use super::super::failing::RowTally;
use crate::diagnostic::Thousands;
use crate::journal::{Edge, Ledger, what};

/// Where rows fail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stage {
    edge: Edge,
    /// As counters have it: `scored`, `scored/score`.
    name: SmolStr,
    /// Of a statement: rows that the query itself made, and not those that it read.
    are_made: bool,
}

/// Why rows fail, and what becomes of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FailureCause {
    pub fate: FailureFate,
    pub reason: SmolStr,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureFate {
    #[default]
    DeadLetter,
    /// It is gone: an early or a late event.
    Dropped,
}

/// What became of the rows of a stage so far.
#[derive(Debug, Default)]
pub struct StageCounts {
    through: u64,
    pub causes: BTreeMap<FailureCause, u64>,
}

impl StageCounts {
    pub fn tally(&self) -> RowTally {
        RowTally { through: self.through, failed: self.causes.values().sum() }
    }
}

/// All stages that have counters.
pub fn counts(ledger: &Ledger) -> BTreeMap<Stage, StageCounts> {
    let mut stages: BTreeMap<Stage, StageCounts> = BTreeMap::new();
    for (counter, n) in ledger.iter() {
        let (edge, what) = (counter.edge, counter.what.as_str());
        let is_through = matches!(
            (edge, what),
            (Edge::Input, what::STORED)
                | (Edge::Statement, what::EVALUATED | what::ANSWERED_LOCALLY | what::ROWS_OUT)
                | (Edge::Output, what::DELIVERED)
        );
        let fate = match (edge, what, counter.reason.as_str()) {
            (Edge::Input, what::UNDECODABLE, _) | (Edge::Output, what::DEAD_LETTERED, _) => {
                Some(FailureFate::DeadLetter)
            }
            (Edge::Statement, what::FAILED, "early" | "late" | "out_of_order") => Some(FailureFate::Dropped),
            (Edge::Statement, what::FAILED | "failed_derived", _) => Some(FailureFate::DeadLetter),
            // empty payloads that are skipped, and NULL in place of an expression, are wanted
            _ => None,
        };
        if !is_through && fate.is_none() {
            continue;
        }
        let are_made = edge == Edge::Statement && matches!(what, what::ROWS_OUT | "failed_derived");
        let stage = stages.entry(Stage { edge, name: counter.name.clone(), are_made }).or_default();
        match fate {
            None => stage.through += n,
            Some(fate) => {
                let reason = if counter.reason.is_empty() { "rejected".into() } else { counter.reason.clone() };
                *stage.causes.entry(FailureCause { fate, reason }).or_default() += n;
            }
        }
    }
    stages
}

/// The command that lists dead letters of the job with this file.
pub fn command(job: &Path) -> String {
    let path = std::path::absolute(job).unwrap_or_else(|_| job.to_path_buf());
    format!("forebay journal dead-letters ls --job {}", quoted(&path.display().to_string()))
}

/// As one word of a shell's line.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

impl Stage {
    /// Name of the input, statement or output, and what of a statement it is.
    fn parts(&self) -> (&str, Option<&str>) {
        let part = |suffix: &'static str| Some((self.name.strip_suffix(suffix)?, suffix.strip_prefix('/')));
        match self.edge {
            Edge::Statement => part("/score").or_else(|| part("/answers")).unwrap_or((&self.name, None)),
            _ => (&self.name, None),
        }
    }

    /// As dead letters name it, without what it is of a statement.
    pub fn in_letters(&self) -> SmolStr {
        format_smolstr!("{} {}", self.edge.as_str(), self.parts().0)
    }

    /// One row, of several.
    pub fn noun(&self) -> &'static str {
        if self.edge == Edge::Input { "payloads" } else { "rows" }
    }

    pub fn rows(&self) -> &'static str {
        match (self.edge, self.are_made) {
            (Edge::Input, _) => "payloads",
            (_, true) => "rows that the query made",
            (_, false) => "rows",
        }
    }

    /// How many failed, and why.
    pub fn what_failed(&self, cause: &FailureCause, rows: u64) -> String {
        let (rows, reason) = (Thousands(rows), &cause.reason);
        match (self.edge, reason.as_str()) {
            (Edge::Input, _) => format!("payloads, or parts of them, are no events: {rows} ({reason})"),
            (Edge::Output, _) => format!("rows are refused: {rows} ({reason})"),
            (_, "early" | "late") => {
                format!("events are dropped because they are too {reason}: {rows} (counted in statement_failed)")
            }
            (_, "out_of_order") => {
                format!("events are dropped because they came behind later ones: {rows} (counted in statement_failed)")
            }
            _ => format!("{} fail: {rows} ({reason})", self.rows()),
        }
    }

    /// What to do, and how to look at what failed.
    pub fn advice(&self, cause: &FailureCause, command: &str) -> String {
        let remedy = self.remedy(cause);
        if cause.fate != FailureFate::DeadLetter {
            return remedy.to_owned();
        }
        let (name, _) = self.parts();
        let filter = match self.edge {
            Edge::Statement => format!("--statement {} --reason {}", quoted(name), cause.reason),
            _ => format!("--stage {} --reason {}", quoted(&self.in_letters()), cause.reason),
        };
        format!("{remedy}; look: {command} {filter}")
    }

    fn remedy(&self, cause: &FailureCause) -> &'static str {
        let is_answer = self.parts().1 == Some("score");
        match (self.edge, cause.reason.as_str()) {
            (Edge::Input, _) => "correct who sends, or format and compression of the input",
            (Edge::Output, _) => "correct the query or the receiver, then replay them",
            (_, "early") => "set the device's clock right, or this machine's",
            (_, "late") => {
                "set the device's clock right, or this machine's; raise late_tolerance if the way is slow, or set \
                 out_of_order_policy = \"adjust\" to keep such events"
            }
            (_, "out_of_order") => {
                "raise out_of_order_tolerance, or set out_of_order_policy = \"adjust\" to keep such events"
            }
            (_, "fault") => "this is a fault of forebay: please report it with the log",
            (_, reason) if reason.starts_with("udf_") => "correct the function, or what it is given, then replay them",
            _ if is_answer => "correct the query, or the model that refuses the rows, then replay them",
            _ => "correct the query (TRY_CAST gives NULL) or who sends, then replay them",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, of) = self.parts();
        write!(f, "{} {name}", self.edge.as_str())?;
        of.map_or(Ok(()), |of| write!(f, " ({of})"))?;
        if self.are_made { f.write_str(" (made)") } else { Ok(()) }
    }
}
