//! Starts the sources.
//!
//! In: the job's streams. Out: running sources with their intakes. Invariant: a source starts when everything
//! behind it runs. Not here: receiving (`source`), storing (`intake`).

use std::sync::Arc;

use smol_str::SmolStr;
use tokio::task::JoinHandle;

use super::PipelineError;
use super::health::Health;
use super::identity::identify;
use super::intake::Intake;
use super::report::WatchedStages;
use crate::connections::Connections;
use crate::job::{InputSettings, Job};
use crate::journal::{Journal, JournalError};
use crate::source::{RecentRecord, Site, Source};

/// How many of the newest records the journal keeps at hand.
pub fn recent_records(job: &Job) -> usize {
    let wanted = job.inputs.iter().map(|input| match &input.kind {
        InputSettings::Stream(stream) => stream.source.recent_records(),
        InputSettings::File(_) | InputSettings::Reference(_) => 0,
    });
    wanted.max().unwrap_or(0)
}

type Intakes = Vec<JoinHandle<Result<(), JournalError>>>;

/// Connects the inputs.
pub fn start(
    job: &Job,
    journal: &Journal,
    watched: &WatchedStages,
    health: &Arc<Health>,
    connections: &Connections,
) -> Result<(Vec<Box<dyn Source>>, Intakes), PipelineError> {
    let (mut sources, mut intakes) = (Vec::new(), Vec::new());
    for input in &job.inputs {
        let name = SmolStr::new(&input.name);
        let _span = tracing::error_span!("input", name = %name).entered();
        let stream = match &input.kind {
            InputSettings::Stream(stream) => stream,
            InputSettings::Reference(_) => continue,
            InputSettings::File(_) => {
                return Err(PipelineError::Input {
                    name,
                    reason: "it is a file, and a job reads streams; use `forebay eval`".to_owned(),
                });
            }
        };
        let id = journal.input(&input.name)?;
        let stem = format!("forebay-{}-{}", job.name, input.name);
        let stored = journal.recent_messages(id, stream.source.recent_records())?;
        let recent = stored.iter().map(|m| RecentRecord { mark: m.mark, name: &m.message.name, payload: &m.payload });
        let site = Site {
            job: &job.name,
            name: &input.name,
            connections,
            identify: &|written| identify(journal, written, &stem).map_err(|e| e.to_string()),
            recent: recent.collect(),
            keeps_bytes: stream.payloads.keeps_bytes(),
            stored_in: {
                let journal = journal.clone();
                Arc::new(move || journal.next_commit_in())
            },
            clock: watched.arrival().clone(),
        };
        let started =
            stream.source.start(site).map_err(|reason| PipelineError::Input { name: name.clone(), reason })?;
        watched.add_source(name.clone(), started.source.stats().clone());
        let intake = Intake {
            name: name.clone(),
            input: id,
            payloads: stream.payloads.clone(),
            journal: journal.clone(),
            stats: started.source.stats().clone(),
            health: health.clone(),
            failures: watched.failures().clone(),
        };
        intakes.push(intake.spawn(started.arrivals));
        sources.push(started.source);
    }
    Ok((sources, intakes))
}
