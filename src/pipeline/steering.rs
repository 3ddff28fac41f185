//! What a running job does when a command asks.
//!
//! In: requests of the control socket. Out: what was done. Invariant: a job that cannot listen runs all the same, and
//! says so. Not here: the socket (`control`), replaying.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::health::Health;
use super::replay::Replayer;
use super::report::WatchedStages;
use super::set_aside::{AsideJob, reading, set_aside};
use crate::control::{ControlHandler, ControlRequest, ControlResponse, ControlSocket};
use crate::journal::Journal;

/// What commands ask of.
#[derive(Debug)]
pub struct Heard {
    pub journal: Journal,
    pub replayer: Replayer,
    pub job: AsideJob,
    pub health: Arc<Health>,
    pub watched: Arc<WatchedStages>,
}

/// Listens beside the pool until told to end; `None` where that cannot be. Needs a tokio runtime.
pub fn listen(heard: Heard, ended: CancellationToken) -> Option<JoinHandle<()>> {
    let socket = match ControlSocket::bind(heard.journal.path()) {
        Ok(socket) => socket,
        Err(error) => {
            heard.health.is_amiss(format!(
                "commands that change the running job, such as `journal dead-letters replay`, do not find it: {error}; \
                 put the pool on a file system that has sockets, and start again"
            ));
            return None;
        }
    };
    tracing::debug!(socket = %socket.path().display(), "commands are heard");
    let handler: ControlHandler = Arc::new(move |request| heard.answer(request));
    Some(tokio::spawn(socket.serve(handler, ended)))
}

impl Heard {
    fn answer(&self, request: ControlRequest) -> ControlResponse {
        let done = match request {
            ControlRequest::DropDeadLetters { filter } => {
                self.replayer.drop_letters(filter).map(|letters| ControlResponse::Dropped { letters })
            }
            ControlRequest::SetAside { statement, offset } => {
                self.put_aside(&statement, offset).map(|()| ControlResponse::IsAside)
            }
            ControlRequest::DropQuarantine => {
                let seen = self.journal.acknowledge_quarantine();
                let told = seen
                    .map(|n| ControlResponse::QuarantineSeen { ranges: n.unseen_ranges, records: n.unseen_records });
                told.map_err(|e| e.to_string())
            }
            ControlRequest::Retry { function } => {
                self.watched.retry(&function).map(|trouble| ControlResponse::Retried { trouble })
            }
            ControlRequest::ReplayDeadLetters(request) => self.replayer.replay(request).map(ControlResponse::Replayed),
        };
        done.unwrap_or_else(ControlResponse::refused)
    }

    /// A record at which no statement stands is not at fault.
    fn put_aside(&self, statement: &str, offset: i64) -> Result<(), String> {
        let reads = reading(&self.journal, statement)?;
        match self.health.stands_at(statement) {
            Some(at) if at == offset => {}
            Some(at) => return Err(format!("statement {statement} stands at offset {at}, and not at {offset}")),
            // it stood at an earlier record, which was put aside and is passed at the next start
            None if offset < reads.position => {}
            None => {
                return Err(format!(
                    "statement {statement} runs: only the record is put aside at which a statement stands \
                     (on_error = \"stop\"); `/readyz` and the log name its offset"
                ));
            }
        }
        set_aside(&self.journal, &self.job, statement, offset)
    }
}
