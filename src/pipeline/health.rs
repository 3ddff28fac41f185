//! What is wrong with a running job.
//!
//! Invariant: a problem is logged when it is reported, and only then. Not here: conditions that a stage can tell at any
//! moment (a full pool, a broker that is away): `report` asks for those.

use std::sync::{Arc, Mutex, PoisonError};

use smol_str::SmolStr;
use tokio::sync::watch;

use super::PipelineError;
use super::state_budget::StateBudget;
use crate::journal::JournalError;

/// A statement that stopped.
#[derive(Debug)]
struct StoppedStatement {
    /// The thread that ended so.
    who: SmolStr,
    /// The statement's name and the offset of the record at fault, if one is.
    stands: Option<(SmolStr, i64)>,
    why: String,
}

/// Problems that last until a person acts.
#[derive(Debug)]
pub struct Health {
    stopped: Mutex<Vec<StoppedStatement>>,
    note: Mutex<Option<String>>,
    /// What is amiss since the start, until the next one.
    since_start: Mutex<Vec<String>>,
    fatal: watch::Sender<Option<String>>,
    /// What the statements hold.
    pub state: Arc<StateBudget>,
}

impl Health {
    pub fn new(state_bytes_max: u64) -> Health {
        Health {
            stopped: Mutex::default(),
            note: Mutex::default(),
            since_start: Mutex::default(),
            fatal: watch::Sender::new(None),
            state: Arc::new(StateBudget::new(state_bytes_max)),
        }
    }

    /// A consumer ended with an error. A statement that stopped by its own policy leaves the rest of the job running;
    /// all else ends the job.
    pub fn ended(&self, who: &SmolStr, error: &PipelineError) {
        if let PipelineError::Journal(JournalError::Closed | JournalError::NoRoom { .. }) = error {
            // the job stops, on a full disk too, and what was refused is done again at the next start
            return;
        }
        tracing::error!("{error}");
        match error {
            PipelineError::StatementStopped { .. }
            | PipelineError::ScoringEnded { .. }
            | PipelineError::StateDamaged { .. } => {
                let stands = match error {
                    PipelineError::StatementStopped { statement, offset, .. } => Some((statement.clone(), *offset)),
                    _ => None,
                };
                let stopped = StoppedStatement { who: who.clone(), stands, why: error.to_string() };
                self.stopped.lock().unwrap_or_else(PoisonError::into_inner).push(stopped);
            }
            _ => self.fail(error.to_string()),
        }
    }

    /// The part `who` of a statement, whose state is damaged, stops its statement alone: the rest is started.
    ///
    /// # Errors
    /// What else kept it from being made.
    pub fn or_stopped(&self, who: &SmolStr, made: Result<(), PipelineError>) -> Result<(), PipelineError> {
        match made {
            Err(error @ PipelineError::StateDamaged { .. }) => {
                self.ended(&SmolStr::new(format!("statement {who}")), &error);
                Ok(())
            }
            made => made,
        }
    }

    /// The job cannot go on.
    pub fn fail(&self, why: String) {
        self.fatal.send_if_modified(|fatal| {
            let is_first = fatal.is_none();
            fatal.get_or_insert(why);
            is_first
        });
    }

    /// Something that whoever looks at the job should know, though it runs; takes the place of what was noted before.
    pub fn note(&self, text: Option<String>) {
        if let Some(text) = &text {
            tracing::error!("{text}");
        }
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// Something that is amiss and stays so until the next start.
    pub fn is_amiss(&self, text: String) {
        tracing::warn!("{text}");
        self.since_start.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// What is amiss since the start.
    pub fn amiss(&self) -> Vec<String> {
        self.since_start.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was noted.
    pub fn noted(&self) -> Option<String> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Statements that stopped, and why.
    pub fn stopped(&self) -> Vec<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|s| s.why.clone()).collect()
    }

    /// At which offset a statement stands, if it stopped at a record.
    pub fn stands_at(&self, statement: &str) -> Option<i64> {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let stands = stopped.iter().filter_map(|stopped| stopped.stands.as_ref());
        stands.filter(|(name, _)| name.eq_ignore_ascii_case(statement)).map(|(_, offset)| *offset).next_back()
    }

    /// Names of the threads that ended so: `statement NAME`, `score NAME`, `output NAME`.
    pub fn stopped_parts(&self) -> Vec<SmolStr> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|s| s.who.clone()).collect()
    }

    /// Why the job cannot go on, if so.
    pub fn fatal(&self) -> Option<String> {
        self.fatal.borrow().clone()
    }

    /// Resolves once the job cannot go on.
    pub async fn failed(&self) -> String {
        let mut fatal = self.fatal.subscribe();
        // the sender lives as long as `self`, so the wait cannot fail
        fatal.wait_for(Option::is_some).await.ok().and_then(|why| why.clone()).unwrap_or_default()
    }
}
