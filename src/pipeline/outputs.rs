//! Outputs as tasks: several statements may write to one.
//!
//! In: rows of statements, one request at a time a consumer. Out: what the output answered. Invariant: an output is
//! owned by one task; a request that was taken is answered. Not here: trying again, positions (`delivery`).

use std::sync::{Arc, Mutex, PoisonError};

use smol_str::SmolStr;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::PipelineError;
use super::identity::identify;
use super::report::WatchedStages;
use crate::batch::Rows;
use crate::connections::Connections;
use crate::job::Job;
use crate::journal::{IdRenewal, Journal};
use crate::output::{CountedOutput, Delivery, Fill, OutputStats, RowIds, ScorerNames, Troubles};
use crate::time::Clock;

/// Requests that wait for one output: each consumer has at most one under way, so this only bounds their number.
const WAITING_MAX: usize = 64;

type Outputs = Vec<(OutputHandle, JoinHandle<()>)>;

/// Gives each output of a job its task. They connect with the first row.
pub fn start(
    job: &Job,
    journal: &Journal,
    clock: &Clock,
    watched: &WatchedStages,
    hurry: &CancellationToken,
    connections: &Connections,
) -> Result<Outputs, PipelineError> {
    let mut made = Vec::new();
    for output in &job.outputs {
        let name = SmolStr::new(&output.name);
        let stem = format!("forebay-{}-out-{}", job.name, output.name);
        let identify =
            |written: Option<&str>| identify(journal, written, &stem).map(|id| id.name).map_err(|e| e.to_string());
        let end = CountedOutput::build(output.settings.as_ref(), &job.name, &identify, connections, clock.clone());
        let end = end.map_err(|reason| PipelineError::Output { name: name.clone(), reason })?;
        let (handle, task) =
            OutputHandle::spawn(name, output.settings.fill(), end, PoolIds::of(journal), hurry.clone());
        watched.add_output(handle.clone());
        made.push((handle, task));
    }
    Ok(made)
}

struct Handed {
    rows: Arc<Rows>,
    statement: SmolStr,
    consumer: SmolStr,
    scorers: Option<ScorerNames>,
    /// Records that its consumer has to read, these among them.
    waiting: u64,
    reply: oneshot::Sender<Delivery>,
}

/// What the ids of all rows of a pool have.
#[derive(Clone, Debug, Default)]
pub struct PoolIds {
    incarnation: String,
    renewals: Arc<[IdRenewal]>,
}

impl PoolIds {
    pub fn of(journal: &Journal) -> PoolIds {
        PoolIds { incarnation: journal.incarnation_hex(), renewals: journal.id_renewals() }
    }
}

/// The sending end of an output.
#[derive(Clone, Debug)]
pub struct OutputHandle {
    name: SmolStr,
    fill: Fill,
    requests: mpsc::Sender<Handed>,
    stats: Arc<OutputStats>,
    troubles: Arc<Mutex<Troubles>>,
}

impl OutputHandle {
    /// Gives the output a task of its own. It ends when all handles are gone; `hurry` gives up what it waits for.
    pub fn spawn(
        name: SmolStr,
        fill: Fill,
        mut output: CountedOutput,
        pool: PoolIds,
        hurry: CancellationToken,
    ) -> (OutputHandle, JoinHandle<()>) {
        let (requests, mut waiting) = mpsc::channel::<Handed>(WAITING_MAX);
        let span = tracing::error_span!("output", name = %name);
        let stats = output.stats().clone();
        let deliveries = async move {
            loop {
                let request = tokio::select! {
                    request = waiting.recv() => request,
                    () = output.tend() => continue,
                };
                let Some(Handed { rows, statement, consumer, scorers, waiting, reply }) = request else { break };
                output.waits(waiting);
                let (statement, consumer, scorers) = (statement.as_str(), consumer.as_str(), scorers.as_ref());
                let (incarnation, renewals) = (pool.incarnation.as_str(), pool.renewals.as_ref());
                let ids = RowIds { incarnation, renewals, statement, consumer, scorers };
                let delivery = tokio::select! {
                    delivery = output.deliver(&rows, ids) => delivery,
                    () = hurry.cancelled() => Delivery::try_again("the job stops"),
                };
                // the consumer may have been stopped meanwhile: then the rows are delivered again at the next start
                let _ = reply.send(delivery);
            }
            if !hurry.is_cancelled() {
                output.close().await;
            }
        };
        let task = tokio::spawn(deliveries.instrument(span));
        (OutputHandle { name, fill, requests, stats, troubles: Arc::default() }, task)
    }

    pub fn name(&self) -> &SmolStr {
        &self.name
    }

    /// Counts since the start.
    pub fn stats(&self) -> &OutputStats {
        &self.stats
    }

    /// How long rows of a quiet stream may wait for others.
    pub fn fill(&self) -> Fill {
        self.fill
    }

    /// Delivers rows of a statement for a consumer, by its name, which has so many records to read, and waits for the
    /// answer. Called from a plain thread.
    pub fn deliver(
        &self,
        rows: &Arc<Rows>,
        statement: &SmolStr,
        consumer: &SmolStr,
        scorers: Option<&ScorerNames>,
        waiting: u64,
    ) -> Delivery {
        let (reply, answer) = oneshot::channel();
        let (statement, scorers) = (statement.clone(), scorers.cloned());
        let request = Handed { rows: rows.clone(), statement, consumer: consumer.clone(), scorers, waiting, reply };
        // the task ends after the last handle, so this means that it failed
        let gone = || Delivery::Gone { reason: "its task ended; please report this with the log".to_owned() };
        if self.requests.blocking_send(request).is_err() {
            return gone();
        }
        let delivery = answer.blocking_recv().unwrap_or_else(|_| gone());
        // for health; the output itself logs each change
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).note(consumer, &delivery);
        delivery
    }

    /// A consumer has given up what it waited with.
    pub fn forget(&self, consumer: &str) {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).note(consumer, &Delivery::Delivered);
    }

    /// Why rows of any consumer wait just now.
    pub fn trouble(&self) -> Option<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).shown()
    }
}
