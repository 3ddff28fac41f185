//! A record at fault, put aside so that its statement goes on behind it.
//!
//! In: a statement and the offset at which it stands. Out: a dead letter with the record, and a note in the pool that
//! the statement does not read it. Invariant: both are stored in one transaction, or none. Not here: reading past it
//! (`feed`), trying it again (`replay`).

use std::time::Duration;

use super::prepare;
use crate::batch::RawEvent;
use crate::job::{InputSettings, Job};
use crate::journal::{ConsumerStatus, DeadLetter, Journal, LetterOrigin, Read, StreamId};
use crate::time::Clock;
use crate::value::SmolStr;

/// How long the record is looked for.
const LOOK: Duration = Duration::from_secs(5);

/// What a letter says of its job.
#[derive(Clone, Debug)]
pub struct AsideJob {
    /// Names of the inputs that are streams.
    inputs: Vec<SmolStr>,
    query_version: SmolStr,
}

impl AsideJob {
    /// Of a job file; a query that cannot be read has no version.
    pub fn of(job: &Job) -> AsideJob {
        let text = std::fs::read_to_string(&job.query);
        let query_version = text.map_or_else(|_| SmolStr::default(), |text| prepare::version(&text));
        let streams = job.inputs.iter().filter(|input| matches!(input.kind, InputSettings::Stream(_)));
        AsideJob { inputs: streams.map(|input| SmolStr::new(&input.name)).collect(), query_version }
    }
}

/// The consumer by which a statement reads the inputs.
///
/// # Errors
/// There is none of that name; those that there are.
pub fn reading(journal: &Journal, statement: &str) -> Result<ConsumerStatus, String> {
    let status = journal.summary().map_err(|e| e.to_string())?;
    let wanted = format!("statement {statement}");
    let readers = || status.consumers.iter().filter(|consumer| consumer.stream == StreamId::INPUTS.0);
    readers().find(|consumer| consumer.name.eq_ignore_ascii_case(&wanted)).cloned().ok_or_else(|| {
        let known: Vec<&str> = readers().filter_map(|consumer| consumer.name.strip_prefix("statement ")).collect();
        format!("no statement `{statement}` reads the inputs: there are `{}`", known.join("`, `"))
    })
}

/// Puts the record aside for one statement, whether the job runs or not. It goes on behind it from its next start on.
///
/// # Errors
/// Why not, for whoever asked; nothing was changed then.
pub fn set_aside(journal: &Journal, of: &AsideJob, statement: &str, offset: i64) -> Result<(), String> {
    let told = |e: crate::journal::JournalError| e.to_string();
    let reader = reading(journal, statement)?;
    let position = reader.position;
    if offset < position {
        return Err(format!(
            "statement {statement} has passed offset {offset}, it stands at {position}: what failed there failed \
             behind a stored stream; correct the query, or set on_error = \"dead-letter\""
        ));
    }
    let none = || format!("there is no record at offset {offset}: see `forebay journal status`");
    if offset >= journal.ends(StreamId::INPUTS).1 {
        return Err(none());
    }
    let mut events = journal.reader(StreamId::INPUTS, offset);
    let read = events.next(1, Clock::Real.monotonic() + LOOK).map_err(told)?;
    let found = match &read {
        Read::Events(slice) if slice.first() == offset => slice.events().next().map(|event| (slice.input(), event)),
        _ => None,
    };
    let (input, event) = found.ok_or_else(none)?;
    let name = of.inputs.iter().find(|known| journal.input(known).is_ok_and(|id| id.0 == input));
    let letter = letter(&reader.name, offset, name.cloned(), &event, of.query_version.clone());
    journal.put_aside(SmolStr::new(&reader.name), letter).map_err(told)
}

fn letter(stage: &str, offset: i64, input: Option<SmolStr>, event: &RawEvent, query_version: SmolStr) -> DeadLetter {
    DeadLetter {
        at: event.arrival,
        stage: SmolStr::new(stage),
        reason: SmolStr::new_static("set_aside"),
        message: "put aside by a person: the statement does not read it".to_owned(),
        input,
        offset: Some(offset),
        payload: event.payload.to_vec(),
        query_version,
        attempts: 1,
        origin: Some(LetterOrigin::of_event(event)),
        ..DeadLetter::default()
    }
}
