//! `forebay journal ls | export | replay`: the events that a pool still holds.
//!
//! In: a job, and which of its events. Out: a table, lines of JSON, or the rows of another query. Invariant: nothing is
//! changed, and the job may be running. Not here: dead letters.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use bytes::Bytes;
use serde_json::json;

use super::dead_letters::{GivenMoment, moment};
use super::{NotDone, counted, ended, failure, number};
use crate::cli::eval::finite::{Event, FiniteRun, Policies, RunError};
use crate::cli::eval::{self, OnErrorArg, QueryFailure};
use crate::cli::say::{Unwritten, complain, print};
use crate::job::{InputSettings, Job};
use crate::journal::{JournalError, RecordFilter, StoredRecord, each_record, reference_readonly, size};
use crate::reference::kept_rows;
use crate::time::{TICKS_PER_SECOND, Timestamp};
use crate::value::{SmolStr, base64};

/// Which events.
#[derive(Clone, Debug, clap::Args)]
pub struct RecordArgs {
    /// Of this input
    #[arg(long)]
    input: Option<String>,
    /// That arrived from this time on: ISO 8601 in UTC, or how long ago, such as 2h
    #[arg(long, value_parser = moment)]
    from: Option<GivenMoment>,
    /// That arrived up to this time, itself not included
    #[arg(long, value_parser = moment)]
    to: Option<GivenMoment>,
}

/// A query is run in memory: so many bytes of events it may read, each with what it costs beside its payload.
const REPLAY_BYTES_MAX: usize = 128 << 20;
const EVENT_BYTES: usize = 256;
/// Lines of an export that are written at once, in bytes.
const LINES_BYTES: usize = 64 << 10;

impl RecordArgs {
    fn filter(&self, job: &Job) -> Result<RecordFilter, NotDone> {
        let streams = || job.inputs.iter().filter(|input| !matches!(input.kind, InputSettings::Reference(_)));
        let input = match &self.input {
            None => None,
            Some(name) => match streams().find(|input| input.name.eq_ignore_ascii_case(name)) {
                Some(input) => Some(SmolStr::new(&input.name)),
                None => {
                    let known: Vec<&str> = streams().map(|input| input.name.as_str()).collect();
                    return Err((2, format!("error: the job has no input `{name}`: it has `{}`", known.join("`, `"))));
                }
            },
        };
        let time = |given: Option<GivenMoment>| given.map(|at| Timestamp::saturating_from_ticks(at.ticks()));
        Ok(RecordFilter { input, from: time(self.from), to: time(self.to) })
    }
}

/// What there is of one input.
struct InputSum {
    records: u64,
    bytes: u64,
    first: StoredRecord,
    last: StoredRecord,
}

/// A line an input.
pub fn list(job: &Job, which: &RecordArgs) -> Result<String, NotDone> {
    use std::fmt::Write;
    let mut sums: BTreeMap<SmolStr, InputSum> = BTreeMap::new();
    let damaged = each_record(&job.journal.config.path, &which.filter(job)?, |record| {
        let bytes = record.payload.len() as u64;
        let sum = sums.entry(record.input.clone()).or_insert_with(|| InputSum {
            records: 0,
            bytes: 0,
            first: record.clone(),
            last: record.clone(),
        });
        (sum.records, sum.bytes, sum.last) = (sum.records + 1, sum.bytes + bytes, record);
        true
    })
    .map_err(failure)?;
    let mut out = String::new();
    let width = sums.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, InputSum { records, bytes, first, last }) in &sums {
        let _ = writeln!(
            out,
            "{:>12}  {name:<width$}  {:>10}  {} to {}  offsets {} to {}",
            number(*records),
            size(*bytes),
            first.arrival,
            last.arrival,
            first.offset,
            last.offset
        );
    }
    if sums.is_empty() {
        out.push_str("no events: `retention` under [journal] keeps them after they are read\n");
    }
    if damaged > 0 {
        let _ = writeln!(out, "{} in damaged segments: see `forebay journal verify`", counted(damaged, "event"));
    }
    Ok(out)
}

/// Lines of JSON to standard output.
pub fn export(job: &Job, which: &RecordArgs) -> ExitCode {
    let filter = match which.filter(job) {
        Ok(filter) => filter,
        Err(failed) => return ended(Err(failed)),
    };
    let (mut lines, mut unwritten) = (String::new(), None);
    let mut write = |lines: &mut String| {
        unwritten = print(lines).err();
        lines.clear();
        unwritten.is_none()
    };
    let read = each_record(&job.journal.config.path, &filter, |record| {
        lines.push_str(&line(&record));
        lines.len() < LINES_BYTES || write(&mut lines)
    });
    if !lines.is_empty() {
        write(&mut lines);
    }
    match (unwritten, read) {
        (Some(unwritten), _) => Unwritten::end(unwritten, ExitCode::SUCCESS),
        (None, Ok(0)) => ExitCode::SUCCESS,
        (None, Ok(damaged)) => {
            ended(Err(failure(format_args!("{} not written: {}", counted(damaged, "event"), DAMAGED))))
        }
        (None, Err(error)) => ended(Err(failure(error))),
    }
}

const DAMAGED: &str = "their segments are damaged, see `forebay journal verify`";

fn line(record: &StoredRecord) -> String {
    let (payload, encoding) = match std::str::from_utf8(&record.payload) {
        Ok(text) => (text.to_owned(), "utf-8"),
        Err(_) => (base64(&record.payload), "base64"),
    };
    let pairs = |pairs: &[(SmolStr, SmolStr)]| -> Vec<[String; 2]> {
        pairs.iter().map(|(name, value)| [name.to_string(), value.to_string()]).collect()
    };
    let line = json!({
        "offset": record.offset,
        "arrival": record.arrival.to_string(),
        "input": record.input.as_str(),
        "topic": record.message.name.as_str(),
        "properties": pairs(&record.message.properties),
        "facts": pairs(&record.message.facts),
        "payload": payload,
        "payload_encoding": encoding,
    });
    format!("{line}\n")
}

/// Prints the rows of another query.
pub fn replay(job: &Job, file: &Path, which: &RecordArgs, query: &str, on_error: OnErrorArg) -> ExitCode {
    let filter = match which.filter(job) {
        Ok(filter) => filter,
        Err(failed) => return ended(Err(failed)),
    };
    eval::printing(|out| {
        let (text, name) = eval::query(query)?;
        let run = over_pool(job, file, &filter, on_error)?;
        eval::print_rows(&run, (&text, &name), out)
    })
}

fn over_pool(job: &Job, file: &Path, filter: &RecordFilter, on_error: OnErrorArg) -> Result<FiniteRun, QueryFailure> {
    let told = |error: JournalError| QueryFailure::Run(RunError::Other(error.to_string()));
    let seconds = |ticks: i64| ticks.saturating_add(TICKS_PER_SECOND - 1) / TICKS_PER_SECOND;
    let pool = &job.journal.config.path;
    let mut run = FiniteRun::new(Policies {
        late_tolerance_s: job.time.late_tolerance.map_or(-1, seconds),
        out_of_order_tolerance_s: seconds(job.time.out_of_order),
        drop: !job.time.adjust,
    });
    run.on_error = on_error.into();
    run.load_functions(file)?;
    for input in &job.inputs {
        if let InputSettings::Reference(_) = &input.kind {
            let kept = reference_readonly(pool, &input.name).map_err(told)?;
            let rows = kept.map(|stored| kept_rows(&stored)).transpose();
            let rows = rows.map_err(|e| QueryFailure::Input(format!("`{}`: {e}", input.name)))?.unwrap_or_default();
            run.references.push((input.name.clone(), rows.iter().map(|row| row.to_json().into()).collect()));
        } else {
            run.inputs.push((input.name.clone(), Vec::new()));
        }
    }
    let mut left = REPLAY_BYTES_MAX;
    let mut is_over = false;
    let damaged = each_record(pool, filter, |record| {
        let lane = run.inputs.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case(&record.input));
        // of an input that the job has no more
        let Some((_, events)) = lane else { return true };
        let bytes = record.payload.len() + EVENT_BYTES;
        is_over = bytes > left;
        left = left.saturating_sub(bytes);
        // a slice would keep its segment
        let payload = Bytes::copy_from_slice(&record.payload);
        events.push(Event { arrival: Some(record.arrival), payload, message: record.message });
        !is_over
    })
    .map_err(told)?;
    if is_over {
        let text = format!(
            "the events take more than {} of memory: say which ones by --from, --to or --input",
            size(REPLAY_BYTES_MAX as u64)
        );
        return Err(QueryFailure::Input(text));
    }
    if damaged > 0 {
        complain(format_args!("warning: without {}: {DAMAGED}\n", counted(damaged, "event")));
    }
    Ok(run)
}
