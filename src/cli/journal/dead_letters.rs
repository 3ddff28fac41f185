//! `forebay journal dead-letters …`: what could not go on, and what becomes of it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use super::{NotDone, WhichPool, counted, ended, failure, letter_changes, letter_lines, number};
use crate::cli::say::print;
use crate::journal::{LetterFilter, StoredDeadLetter, count_dead_letters, dead_letters_readonly, size};
use crate::settings::units::duration;
use crate::time::{Clock, Timestamp};

#[derive(Debug, Subcommand)]
pub enum DeadLetterCommand {
    /// List them, oldest first, or count them
    Ls {
        #[command(flatten)]
        of: WhichPool,
        #[command(flatten)]
        which: LetterArgs,
        /// Begin behind this number
        #[arg(long, default_value_t = 0)]
        after: i64,
        /// List this number at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Count them by stage and reason instead
        #[arg(long, conflicts_with_all = ["limit", "json"])]
        summary: bool,
        /// Print JSON, one object a line, with whole payloads
        #[arg(long)]
        json: bool,
    },
    /// Print one whole, with its payload, the request and the answer
    Show {
        #[command(flatten)]
        of: WhichPool,
        /// Its number
        id: i64,
    },
    /// Write them as lines of JSON, byte for byte
    Export {
        #[command(flatten)]
        of: WhichPool,
        #[command(flatten)]
        which: LetterArgs,
        /// Into this file, which must not exist yet, instead of to standard output
        #[arg(long)]
        to: Option<PathBuf>,
    },
    /// Drop them for good, also while the job runs
    Drop {
        #[command(flatten)]
        of: WhichPool,
        #[command(flatten)]
        which: LetterArgs,
        /// Every one
        #[arg(long)]
        all: bool,
    },
    /// Put the record aside at which a statement stands (on_error = "stop"); it goes on behind it at its next start
    Add {
        #[command(flatten)]
        of: WhichPool,
        /// The statement, by the name of its output
        #[arg(long)]
        statement: String,
        /// The offset that its message names
        #[arg(long)]
        offset: i64,
    },
    /// Have the running job try them again, with its present query, functions and outputs
    Replay {
        #[command(flatten)]
        of: WhichPool,
        #[command(flatten)]
        which: LetterArgs,
        /// Change them in $EDITOR first; those that were changed are replayed
        #[arg(long)]
        edit: bool,
        /// Take them, with their payloads, from a file that `export` wrote
        #[arg(
            long,
            conflicts_with_all = ["edit", "stage", "reason", "statement", "since", "until", "ids"]
        )]
        from: Option<PathBuf>,
    },
}

/// Which of them.
#[derive(Clone, Debug, clap::Args)]
pub struct LetterArgs {
    /// Of this stage, or of all that begin with these words: `output`, `output alerts`
    #[arg(long)]
    stage: Option<String>,
    /// With this reason, as `ls --summary` names it
    #[arg(long)]
    reason: Option<String>,
    /// Of this statement, by the name of its output
    #[arg(long)]
    statement: Option<String>,
    /// From this time on: ISO 8601 in UTC, or how long ago, such as 2h
    #[arg(long, value_parser = moment)]
    since: Option<GivenMoment>,
    /// Up to this time, itself not included
    #[arg(long, value_parser = moment)]
    until: Option<GivenMoment>,
    /// With this number; may be given several times
    #[arg(long = "id")]
    ids: Vec<i64>,
}

/// A time as a person gives it.
#[derive(Clone, Copy, Debug)]
pub enum GivenMoment {
    At(Timestamp),
    Ago(Duration),
}

pub fn moment(text: &str) -> Result<GivenMoment, String> {
    let ago = || duration(text).map(GivenMoment::Ago);
    Timestamp::parse(text)
        .map(GivenMoment::At)
        .or_else(ago)
        .ok_or_else(|| "write a time such as 2026-11-28T08:00:00Z, or how long ago, such as 30m or 2h".to_owned())
}

impl GivenMoment {
    pub fn ticks(self) -> i64 {
        match self {
            GivenMoment::At(time) => time.ticks(),
            GivenMoment::Ago(ago) => {
                let ticks = i64::try_from(ago.as_nanos() / 100).unwrap_or(i64::MAX);
                Clock::Real.now().saturating_add(-ticks).ticks()
            }
        }
    }
}

impl LetterArgs {
    fn filter(&self) -> LetterFilter {
        let LetterArgs { stage, reason, statement, since, until, ids } = self.clone();
        LetterFilter {
            stage,
            reason,
            statement,
            since: since.map(GivenMoment::ticks),
            until: until.map(GivenMoment::ticks),
            ids: (!ids.is_empty()).then_some(ids),
            ..LetterFilter::default()
        }
    }
}

/// Letters that are read from the pool at once: a few MiB, unless payloads are large.
const PAGE: usize = 200;

/// Runs the command: 2 for a mistake in the arguments or the job file, 1 for a failure.
pub fn run(command: &DeadLetterCommand) -> ExitCode {
    match command {
        DeadLetterCommand::Ls { of, which, summary: true, .. } => {
            ended(of.pool().and_then(|pool| summary(&pool, &which.filter())))
        }
        DeadLetterCommand::Ls { of, which, after, limit, json, .. } => {
            let filter = LetterFilter { after: *after, ..which.filter() };
            ended(of.pool().and_then(|pool| list(&pool, &filter, *limit, *json)))
        }
        DeadLetterCommand::Show { of, id } => ended(of.pool().and_then(|pool| show(&pool, *id))),
        DeadLetterCommand::Export { of, which, to: Some(file) } => {
            ended(of.pool().and_then(|pool| export_to(&pool, which.filter(), file)))
        }
        DeadLetterCommand::Export { of, which, to: None } => match of.pool() {
            Ok(pool) => export(&pool, which.filter()),
            Err(failed) => ended(Err(failed)),
        },
        DeadLetterCommand::Drop { of, which, all } => {
            ended(of.job().and_then(|job| letter_changes::drop_letters(&job, which.filter(), *all)))
        }
        DeadLetterCommand::Add { of, statement, offset } => {
            ended(of.job().and_then(|job| letter_changes::add(&job, statement, *offset)))
        }
        DeadLetterCommand::Replay { of, which, edit, from } => ended(of.job().and_then(|job| match (from, edit) {
            (Some(file), _) => letter_changes::replay_from(&job, file),
            (None, true) => letter_changes::replay_edited(&job, which.filter()),
            (None, false) => letter_changes::replay(&job, which.filter()),
        })),
    }
}

fn list(pool: &Path, filter: &LetterFilter, limit: usize, json: bool) -> Result<String, NotDone> {
    let letters = dead_letters_readonly(pool, filter, limit).map_err(failure)?;
    let mut out = String::new();
    for letter in &letters {
        out.push_str(&if json { letter_lines::line(letter) } else { as_text(letter) });
        out.push('\n');
    }
    if letters.len() == limit && !json {
        out.push_str(&format!("there may be more: --after {}\n", letters.last().map_or(filter.after, |l| l.id)));
    }
    if letters.is_empty() && !json {
        out.push_str(none(filter));
    }
    Ok(out)
}

pub fn none(filter: &LetterFilter) -> &'static str {
    if filter.is_narrow() { "no such dead letters\n" } else { "no dead letters\n" }
}

fn summary(pool: &Path, filter: &LetterFilter) -> Result<String, NotDone> {
    use std::fmt::Write;
    let counts = count_dead_letters(pool, filter).map_err(failure)?;
    if counts.is_empty() {
        return Ok(none(filter).to_owned());
    }
    let stages = counts.iter().map(|count| count.stage.chars().count()).max().unwrap_or(0);
    let reasons = counts.iter().map(|count| count.reason.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for count in &counts {
        let (letters, bytes) = (number(count.letters), size(count.bytes));
        let (stage, reason) = (&count.stage, &count.reason);
        let _ = writeln!(
            out,
            "{letters:>12}  {stage:<stages$}  {reason:<reasons$}  {bytes:>10}  {} to {}",
            count.first, count.last
        );
    }
    let letters = counts.iter().map(|count| count.letters).sum();
    let _ = writeln!(out, "{:>12}  in all", number(letters));
    Ok(out)
}

/// Longest part of a payload that a listing shows, characters.
const SHOWN: usize = 120;

fn as_text(stored: &StoredDeadLetter) -> String {
    let l = &stored.letter;
    let payload = String::from_utf8_lossy(&l.payload);
    let mut shown: String = payload.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if payload.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    if shown.trim().is_empty() {
        shown = "(empty)".to_owned();
    }
    let offset = l.offset.map(|o| format!(" offset {o}")).unwrap_or_default();
    let attempts = if l.attempts > 1 { format!(" ({} attempts)", l.attempts) } else { String::new() };
    format!("{:>6}  {}  {}{offset}: {}: {}{attempts}\n        {shown}", stored.id, l.at, l.stage, l.reason, l.message)
}

fn show(pool: &Path, id: i64) -> Result<String, NotDone> {
    use std::fmt::Write;
    let filter = LetterFilter { ids: Some(vec![id]), ..LetterFilter::default() };
    let letters = dead_letters_readonly(pool, &filter, 1).map_err(failure)?;
    let Some(stored) = letters.first() else {
        return Err((1, format!("error: there is no dead letter {id}; `forebay journal dead-letters ls` lists them")));
    };
    let l = &stored.letter;
    let mut out = String::new();
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name:<14}{value}");
        }
    };
    put("number", &id.to_string());
    put("time", &l.at.to_string());
    put("stage", &l.stage);
    put("reason", &l.reason);
    put("message", &l.message);
    put("input", l.input.as_deref().unwrap_or_default());
    put("offset", &l.offset.map(|offset| offset.to_string()).unwrap_or_default());
    put("ordinal", &l.offset.map(|_| l.ordinal.to_string()).unwrap_or_default());
    put("query version", &l.query_version);
    put("attempts", &l.attempts.to_string());
    for (name, bytes) in
        [("payload", Some(&l.payload)), ("request", l.request.as_ref()), ("answer", l.response.as_ref())]
    {
        if let Some(bytes) = bytes {
            let _ = write!(out, "\n{name}, {}:\n{}\n", counted(bytes.len() as u64, "byte"), body(bytes));
        }
    }
    Ok(out)
}

/// A payload as a person reads it: the fields of a JSON object on a line each, bytes that are no text as base64.
fn body(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return format!("  (no UTF-8; base64) {}", crate::value::base64(bytes));
    };
    let lines = match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) {
        Ok(fields) => fields.iter().map(|(name, value)| format!("  {name}: {value}")).collect::<Vec<_>>().join("\n"),
        Err(_) => format!("  {}", text.replace('\n', "\n  ")),
    };
    // what moves the cursor or changes colours is not for a terminal
    lines.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// Gives lines of letters, page by page; how many there were.
pub fn each_page<E: From<NotDone>>(
    pool: &Path,
    mut filter: LetterFilter,
    mut take: impl FnMut(&str) -> Result<(), E>,
) -> Result<u64, E> {
    let mut found = 0;
    loop {
        let letters = dead_letters_readonly(pool, &filter, PAGE).map_err(failure)?;
        let Some(last) = letters.last() else { return Ok(found) };
        filter.after = last.id;
        found += letters.len() as u64;
        take(&letters.iter().map(|letter| letter_lines::line(letter) + "\n").collect::<String>())?;
    }
}

/// Why an export to standard output ended early.
enum ExportEnd {
    Failed(NotDone),
    Unwritten(crate::cli::say::Unwritten),
}

impl From<NotDone> for ExportEnd {
    fn from(failed: NotDone) -> ExportEnd {
        ExportEnd::Failed(failed)
    }
}

fn export(pool: &Path, filter: LetterFilter) -> ExitCode {
    match each_page(pool, filter, |lines| print(lines).map_err(ExportEnd::Unwritten)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(ExportEnd::Failed(failed)) => ended(Err(failed)),
        Err(ExportEnd::Unwritten(unwritten)) => unwritten.end(ExitCode::SUCCESS),
    }
}

/// Only its owner may read the file: payloads are in it.
fn export_to(pool: &Path, filter: LetterFilter, file: &Path) -> Result<String, NotDone> {
    let told = |error: std::io::Error| (1, format!("error: {}: {error}", file.display()));
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(told)?;
    let n = each_page(pool, filter, |lines| out.write_all(lines.as_bytes()).map_err(told))?;
    out.sync_all().map_err(told)?;
    Ok(format!("{} written to {}\n", counted(n, "dead letter"), file.display()))
}
