//! Starts to load the reference data.
//!
//! In: the job's tables. Out: [`Reference`]s and the tasks that load them. Invariant: the journal keeps no version of a
//! table that the job does not name. Not here: loading (`reference`).

use smol_str::SmolStr;
use tokio_util::sync::CancellationToken;

use super::PipelineError;
use super::report::WatchedStages;
use crate::job::Job;
use crate::journal::Journal;
use crate::reference::Reference;
use crate::time::Clock;

/// The tables that streams are joined with, and the tasks that load them.
pub type References = (Vec<Reference>, Vec<tokio::task::JoinHandle<()>>);

/// Starts to load the reference data.
pub fn start(
    job: &Job,
    journal: &Journal,
    clock: &Clock,
    watched: &WatchedStages,
    ended: &CancellationToken,
) -> Result<References, PipelineError> {
    let names: Vec<SmolStr> = job.references().map(|(input, _)| SmolStr::new(&input.name)).collect();
    journal.keep_only_references(&names)?;
    let mut made = (Vec::new(), Vec::new());
    for (input, settings) in job.references() {
        let _span = tracing::error_span!("input", name = %input.name).entered();
        let started = Reference::start(&input.name, settings, journal.clone(), clock.clone(), ended.clone());
        let (reference, task) =
            started.map_err(|reason| PipelineError::Input { name: SmolStr::new(&input.name), reason })?;
        watched.add_reference(reference.clone());
        made.0.push(reference);
        made.1.push(task);
    }
    Ok(made)
}
