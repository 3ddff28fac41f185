//! `forebay journal …`: looks into a job's pool, also while the job runs.

mod copies;
mod dead_letters;
mod letter_changes;
mod letter_lines;
mod records;
mod repairs;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use self::dead_letters::DeadLetterCommand;
use self::records::RecordArgs;
use super::eval::OnErrorArg;
use super::say::{answer, complain};
use crate::arrival::Eras;
use crate::diagnostic::Seconds;
use crate::job;
use crate::journal::{ConsumerStatus, JournalStatus, LedgerLine, RestoredOn, left_of_pool, size, verify, what};
use crate::pipeline::Trend;

#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// What the pool holds and where every consumer stands
    Status {
        #[command(flatten)]
        of: WhichPool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every segment's checksum and the equations of the ledger
    Verify {
        #[command(flatten)]
        of: WhichPool,
    },
    /// What the pool still holds of each input
    Ls {
        #[command(flatten)]
        of: WhichPool,
        #[command(flatten)]
        which: RecordArgs,
    },
    /// Write events that the pool still holds as lines of JSON, byte for byte
    Export {
        #[command(flatten)]
        of: WhichPool,
        #[command(flatten)]
        which: RecordArgs,
    },
    /// Run another query over events that the pool still holds, and print the rows
    Replay {
        #[command(flatten)]
        of: WhichPool,
        #[command(flatten)]
        which: RecordArgs,
        /// File with the query, `-` for standard input, or the query itself
        #[arg(long)]
        query: String,
        /// What becomes of a row whose evaluation fails
        #[arg(long, value_name = "POLICY", default_value = "stop")]
        on_error: OnErrorArg,
    },
    /// Write the pool into one file, as it is now; also while the job runs
    Backup {
        #[command(flatten)]
        of: WhichPool,
        /// The file to write; one that is there is not written over
        file: PathBuf,
    },
    /// Make a backup the pool of the job, which has none; row ids of what comes are others than the original's
    Restore {
        #[command(flatten)]
        of: WhichPool,
        /// The gateway is the one that the backup is of, and the original is gone: keep the client ids, so that
        /// sessions at brokers go on
        #[arg(long)]
        same_gateway: bool,
        /// The backup
        file: PathBuf,
    },
    /// Write all that can be read of a damaged pool into a new one; the job must not run, and nothing of the pool is
    /// changed
    Salvage {
        #[command(flatten)]
        of: WhichPool,
        /// The file to write; one that is there is not written over
        file: PathBuf,
    },
    /// Rows that could not go on, each with its reason
    #[command(subcommand)]
    DeadLetters(DeadLetterCommand),
    /// Give up what a statement holds (open windows, joins, LAG, what functions remember); the job must not run
    ResetState {
        #[command(flatten)]
        of: WhichPool,
        /// The statement, by the name of its output
        statement: String,
    },
    /// Records that cannot be read and were set aside
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
}

#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// Say that you have seen them: their bytes go, `/readyz` says nothing of them any more; also while the job runs
    Drop {
        #[command(flatten)]
        of: WhichPool,
    },
}

/// Which pool.
#[derive(Debug, clap::Args)]
pub struct WhichPool {
    /// The job file
    #[arg(long)]
    job: PathBuf,
}

impl WhichPool {
    /// The pool's path.
    fn pool(&self) -> Result<PathBuf, NotDone> {
        self.settings().map(|settings| settings.config.path)
    }

    /// What the job says of its pool; a job whose functions or query are broken still has a pool to look into.
    fn settings(&self) -> Result<job::JournalSection, NotDone> {
        self.job().map(|job| job.journal)
    }

    /// A job, whether it has a pool or not.
    fn any_job(&self) -> Result<job::Job, NotDone> {
        let text = job::text(&self.job).map_err(|e| (2, e.to_string()))?;
        job::parse(&text, &self.job).map_err(|e| (2, e.to_string()))
    }

    /// A job that has a pool.
    fn job(&self) -> Result<job::Job, NotDone> {
        let job = self.any_job()?;
        let pool = &job.journal.config.path;
        if left_of_pool(pool).is_none() {
            return Err((
                1,
                format!("error: the job has no pool yet: {} does not exist; `forebay run` makes it", pool.display()),
            ));
        }
        Ok(job)
    }
}

/// Runs the command: 2 for a mistake in the job file, 1 for a failure.
pub fn run(command: &JournalCommand) -> ExitCode {
    let done = match command {
        JournalCommand::Status { of, json } => of.settings().and_then(|settings| status(&settings, *json)),
        JournalCommand::Verify { of } => of.pool().and_then(|pool| verified(&pool)),
        JournalCommand::Ls { of, which } => of.job().and_then(|job| records::list(&job, which)),
        JournalCommand::Export { of, which } => match of.job() {
            Ok(job) => return records::export(&job, which),
            Err(failed) => Err(failed),
        },
        JournalCommand::Replay { of, which, query, on_error } => match of.job() {
            Ok(job) => return records::replay(&job, &of.job, which, query, *on_error),
            Err(failed) => Err(failed),
        },
        JournalCommand::Backup { of, file } => of.job().and_then(|job| copies::back_up(&job, file)),
        JournalCommand::Restore { of, same_gateway, file } => {
            let on = if *same_gateway { RestoredOn::Same } else { RestoredOn::Another };
            of.any_job().and_then(|job| copies::restore(&job, file, on))
        }
        JournalCommand::Salvage { of, file } => of.job().and_then(|job| copies::salvage(&job, &of.job, file)),
        JournalCommand::DeadLetters(command) => return dead_letters::run(command),
        JournalCommand::ResetState { of, statement } => of.job().and_then(|job| repairs::reset_state(&job, statement)),
        JournalCommand::Quarantine(QuarantineCommand::Drop { of }) => {
            of.job().and_then(|job| repairs::drop_quarantine(&job))
        }
    };
    ended(done)
}

/// Says how a command ended.
fn ended(done: Result<String, NotDone>) -> ExitCode {
    match done {
        Ok(text) => answer(&text, ExitCode::SUCCESS),
        Err((code, text)) => {
            complain(format_args!("{}\n", text.trim_end()));
            ExitCode::from(code)
        }
    }
}

/// Exit code and text of a command that did not do what it was asked.
type NotDone = (u8, String);

fn failure(error: impl std::fmt::Display) -> NotDone {
    (1, format!("error: {error}"))
}

fn status(settings: &job::JournalSection, json: bool) -> Result<String, NotDone> {
    let status = JournalStatus::watch_readonly(&settings.config.path).map_err(failure)?;
    let status = status.with_room(settings.config.max_bytes).with_card(settings.card_endurance);
    if json {
        return serde_json::to_string_pretty(&status).map(|text| text + "\n").map_err(failure);
    }
    Ok(describe(&status, settings))
}

/// The status as a person reads it.
fn describe(status: &JournalStatus, settings: &job::JournalSection) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "pool {}: {} in use ({} file, {} write-ahead log, {} redo log)",
        status.path,
        size(status.used_bytes),
        size(status.file_bytes),
        size(status.wal_bytes),
        size(status.redo_bytes)
    );
    let _ = writeln!(out, "{}", lasts(status));
    if let Some(pin) = &status.pin {
        let _ = writeln!(out, "{}{pin}", if pin.is_backup() { "" } else { "ALARM: " });
    }
    if let Some(alarm) = &status.alarm {
        let _ = writeln!(out, "ALARM: {alarm}");
    }
    out.push_str(&set_back(&status.eras));
    let _ = writeln!(out, "{}", wear(status, settings));
    let _ = writeln!(out, "\nstreams");
    for s in &status.streams {
        let name = if s.id == 0 { "inputs" } else { &s.name };
        let _ = writeln!(
            out,
            "  {name:<24} {:>12} record{} in {:>6} segment{}, offsets {} to {}",
            number(s.records),
            plural(s.records),
            number(s.segments),
            plural(s.segments),
            s.first,
            s.next
        );
    }
    let _ = writeln!(out, "\nconsumers");
    for c in &status.consumers {
        let pins = if c.pins && c.pending > 0 { ", holds the oldest segment" } else { "" };
        let skipped = skipped(status, &c.name);
        let oldest = c.oldest_seconds.map_or(String::new(), |age| format!(", the oldest for {}", lasted(age)));
        let pending = number(c.pending);
        let _ = writeln!(out, "  {:<24} at {:>12}, {pending:>12} pending{pins}{skipped}{oldest}", c.name, c.position);
        out.push_str(&progress(c));
    }
    out.push_str(&outputs(status));
    out.push_str(&references(status));
    out.push('\n');
    out.push_str(&ledger(status));
    let _ =
        writeln!(out, "\ndead letters {} ({})", number(status.dead_letters.letters), size(status.dead_letters.bytes));
    if status.quarantined.ranges > 0 {
        let q = status.quarantined;
        let seen = match q.unseen_ranges {
            0 => ", seen by somebody",
            _ => "; `forebay journal quarantine drop` says that you have seen it",
        };
        let records = counted(q.records, "record");
        let _ = writeln!(out, "quarantined {records} in {}{seen}", counted(q.ranges, "place"));
    }
    for q in &status.quarantine {
        let _ = writeln!(out, "quarantined: stream {} offsets {} to {}: {}", q.stream, q.first, q.end, q.reason);
    }
    out
}

/// How often the machine's clock was wrong for so long that it was trusted, and which times its events have.
fn set_back(eras: &Eras) -> String {
    if eras.number() == 0 {
        return String::new();
    }
    let used: Vec<String> = eras.used().map(|(from, to)| format!("{from} to {to}")).collect();
    format!("arrival time was set back {}; used before: {}\n", counted(eras.number().into(), "time"), used.join(", "))
}

/// What a consumer was moved past, by reason, and what of that it had in hand.
fn skipped(status: &JournalStatus, consumer: &str) -> String {
    let is_skip = |l: &&LedgerLine| l.edge == "consumer" && l.name == consumer && l.what == "skipped";
    let skips = status.ledger.iter().filter(is_skip);
    let mut told: String = skips.map(|l| format!(", {} skipped ({})", number(l.value), l.reason)).collect();
    let sum = |what| {
        let of = status.ledger.iter().filter(|l| l.edge == "consumer" && l.name == consumer && l.what == what);
        of.map(|l| l.value).sum::<u64>()
    };
    let in_hand = sum(what::IN_HAND).saturating_sub(sum(what::SETTLED));
    if in_hand > 0 {
        told += &format!(", {} in hand", number(in_hand));
    }
    told
}

/// How a consumer that is behind gets on, in the words of the log.
fn progress(consumer: &ConsumerStatus) -> String {
    match consumer.pace {
        Some(pace) if pace.read + pace.skipped == 0.0 => {
            format!("  {:<24} no commit within {:.1} s; one may wait for 5 s\n", "", pace.over_seconds)
        }
        Some(pace) => {
            let (read, come, skipped) = (pace.read, pace.come, pace.skipped);
            format!("  {:<24} {}\n", "", Trend { behind: consumer.pending, read, come, skipped })
        }
        None => String::new(),
    }
}

/// When outputs last delivered, and for how long their oldest records have waited.
fn outputs(status: &JournalStatus) -> String {
    let mut out = String::from("\noutputs\n");
    for output in &status.outputs {
        let delivered =
            output.delivered_at.as_ref().map_or("no delivery yet".to_owned(), |at| format!("last delivery {at}"));
        let oldest = output.oldest_seconds.map_or(String::new(), |age| format!(", the oldest for {}", lasted(age)));
        out.push_str(&format!("  {:<24} {delivered}, {} pending{oldest}\n", output.name, number(output.pending)));
    }
    out
}

fn lasted(seconds: u64) -> Seconds {
    Seconds(Duration::from_secs(seconds))
}

/// How long the pool lasts while its readers are away.
pub(super) fn lasts(status: &JournalStatus) -> String {
    let room = status.room.map_or(String::new(), |room| format!("room for {} more", size(room.bytes)));
    match status.left {
        Some(left) => format!("if nobody reads, it lasts {left}"),
        None => format!("{room}; no event has come yet, so how long that lasts is not known"),
    }
}

/// What is written a day, against the budget and the life of the card.
pub(super) fn wear(status: &JournalStatus, settings: &job::JournalSection) -> String {
    let budget = settings
        .config
        .write_budget
        .map_or("no write budget".to_owned(), |budget| format!("write budget {} a day", size(budget)));
    let life = settings
        .card_endurance
        .zip(status.card_years)
        .map_or(String::new(), |(endurance, years)| format!("; a card for {} lasts {years:.1} years", size(endurance)));
    format!(
        "written {} a day over the last day, {} a day over the last minute ({budget}{life})",
        size(status.wear.last_day),
        size(status.wear.last_minute)
    )
}

/// The tables of reference data, with what is wrong.
fn references(status: &JournalStatus) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    if !status.references.is_empty() {
        out.push_str("\nreference data\n");
    }
    for table in &status.references {
        let version = table.version.as_ref().map_or("no version yet".to_owned(), |v| {
            let digest: String = v.digest.chars().take(12).collect();
            format!("version {digest}, {}, loaded {}, {} kept", counted(v.rows, "row"), v.loaded_at, size(v.bytes))
        });
        let _ = writeln!(out, "  {:<24} {version}", table.name);
        if let Some(error) = &table.error {
            let _ = writeln!(out, "    since {}: {}", error.at, error.message);
        }
    }
    out
}

/// The ledger, a line an edge: every counter with its reasons.
pub fn ledger(status: &JournalStatus) -> String {
    use std::fmt::Write;
    let mut out = String::from("ledger\n");
    let mut edges: Vec<(&str, &str)> = status.ledger.iter().map(|l| (l.edge, l.name.as_str())).collect();
    edges.dedup();
    for (edge, name) in edges {
        let lines = status.ledger.iter().filter(|l| l.edge == edge && l.name == name);
        let counts: Vec<String> = lines
            .map(|l| {
                let reason = if l.reason.is_empty() { String::new() } else { format!(" ({})", l.reason) };
                format!("{}{reason} {}", l.what.replace('_', " "), number(l.value))
            })
            .collect();
        let of = if name.is_empty() { String::new() } else { format!(" {name}") };
        let _ = writeln!(out, "  {}{of}: {}", edge.replace('_', " "), counts.join(", "));
    }
    out
}

/// Checks the whole pool: a line that says so, or exit code and problems.
pub(super) fn verified(pool: &Path) -> Result<String, NotDone> {
    let report = verify(pool).map_err(failure)?;
    let summary = format!(
        "{}, {}, {}, {} quarantined{}",
        counted(report.segments, "segment"),
        counted(report.records, "record"),
        size(report.bytes),
        report.quarantined,
        match report.quarantined_records {
            0 => String::new(),
            n => format!(" ({})", counted(n, "record")),
        }
    );
    if report.is_good() {
        return Ok(format!("{summary}: all checksums and all equations hold\n"));
    }
    Err((1, format!("{summary}\n{}\nerror: {}", report.problems.join("\n"), counted(report.problem_count, "problem"))))
}

/// `12,345`
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 row`, `1,000 rows`.
pub fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", number(n), plural(n))
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::ConsumerPace;

    #[test]
    fn a_consumer_that_is_behind_has_its_pace_and_the_time_left_below_it() {
        let said = |read, come, skipped| {
            let pace = Some(ConsumerPace { read, come, skipped, left_seconds: None, over_seconds: 0.52 });
            let consumer = ConsumerStatus {
                id: 1,
                name: "output a".into(),
                stream: 0,
                start: 0,
                position: 0,
                pending: 1_200_000,
                oldest_seconds: Some(20),
                pins: true,
                drop_oldest: false,
                limits: None,
                pace,
            };
            progress(&consumer).trim().to_owned()
        };
        assert_eq!(said(80_000.0, 0.0, 0.0), "catching up: 1,200,000 records behind, 80,000 a second, about 15 s left");
        let falls = "falling further behind: 1,200,000 records behind, 50 a second are read, 100 come";
        assert_eq!(said(50.0, 100.0, 0.0), falls);
        assert_eq!(said(0.0, 100.0, 0.0), "no commit within 0.5 s; one may wait for 5 s");
    }
}
