//! Commands for a pool that is damaged: what a statement holds is given up, what was set aside is acknowledged.
//!
//! In: a job, and a statement. Out: what was lost by it, in words. Invariant: state is removed only while the job does
//! not run, and only that of the statement. Not here: what can be read of a pool that is beyond use.

use super::letter_changes::{alone, ask, unexpected};
use super::{NotDone, counted, failure};
use crate::control::{ControlClient, ControlRequest, ControlResponse};
use crate::job::Job;
use crate::journal::{Journal, JournalConfig, JournalError, JournalStatus, OnDamage, ResetState};
use crate::pipeline::journal_config;
use crate::time::Clock;
use crate::value::SmolStr;

/// Removes the state of all parts of a statement.
pub fn reset_state(job: &Job, statement: &str) -> Result<String, NotDone> {
    let config = JournalConfig { on_damage: OnDamage::Stop, ..journal_config(job, &Clock::Real) };
    let journal = Journal::open(config).map_err(|error| match error {
        JournalError::Locked { path, .. } => {
            failure(format_args!("{path} is in use: stop the job, run this again, and start the job"))
        }
        other => failure(other),
    })?;
    let done = reset(&journal, statement);
    journal.close();
    done
}

fn reset(journal: &Journal, statement: &str) -> Result<String, NotDone> {
    let status = journal.summary().map_err(failure)?;
    let parts = parts_of(&status, statement);
    if parts.is_empty() {
        let known: Vec<&str> = status.consumers.iter().filter_map(|c| c.name.strip_prefix("statement ")).collect();
        let known: Vec<&str> = known.into_iter().filter(|name| !name.contains('/')).collect();
        let text = format!("error: the pool has no statement `{statement}`: there are `{}`", known.join("`, `"));
        return Err((1, text));
    }
    let reset = journal.reset_state(parts).map_err(failure)?;
    let line = |part: &ResetState| {
        let rows = match part.rows {
            Some(rows) => format!("{} removed", counted(rows, "row of state")),
            None => "its state, of which not all could be read, is removed".to_owned(),
        };
        format!("{}: {rows}; it goes on at offset {}\n", part.consumer, part.position)
    };
    let lines: String = reset.iter().map(line).collect();
    Ok(format!(
        "{lines}What the statement held is given up: windows that were open, rows that waited in joins and for others, \
         values of LAG and other analytic functions, what its functions remember. It begins empty at the next start, \
         and records that were scored ahead of its offset are scored again; row ids stay the same\n"
    ))
}

/// The consumers that keep the state of a statement.
fn parts_of(status: &JournalStatus, statement: &str) -> Vec<SmolStr> {
    let is_part = |name: &str| {
        let name = name.strip_prefix("statement ").unwrap_or_default();
        let base = name.split_once('/').map_or(name, |(base, _)| base);
        base.eq_ignore_ascii_case(statement)
    };
    status.consumers.iter().filter(|c| is_part(&c.name)).map(|c| SmolStr::new(&c.name)).collect()
}

/// Says that a person has seen what was set aside.
pub fn drop_quarantine(job: &Job) -> Result<String, NotDone> {
    let (ranges, records) = match ControlClient::call(&job.journal.config.path).map_err(failure)? {
        Some(mut client) => match ask(&mut client, &ControlRequest::DropQuarantine)? {
            ControlResponse::QuarantineSeen { ranges, records } => (ranges, records),
            other => return Err(unexpected(&other)),
        },
        None => alone(job, Journal::acknowledge_quarantine).map(|count| (count.unseen_ranges, count.unseen_records))?,
    };
    Ok(format!("{} in {} seen\n", counted(records, "record"), counted(ranges, "place")))
}
