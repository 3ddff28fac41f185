//! What a running job does when a command asks.
//!
//! In: requests of the control socket. Out: what was done. Invariant: a job that cannot listen runs all the same, and
//! says so. Not here: the socket (`control`), replaying.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::replay::Replayer;
use super::set_aside::{AsideJob, set_aside};
use crate::control::{ControlHandler, ControlRequest, ControlResponse, ControlSocket};
use crate::journal::Journal;

/// Listens beside the pool until told to end; `None` where that cannot be. Needs a tokio runtime.
pub fn listen(
    journal: &Journal,
    replayer: Replayer,
    job: AsideJob,
    ended: CancellationToken,
) -> Option<JoinHandle<()>> {
    let socket = match ControlSocket::bind(journal.path()) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(
                "commands that change the running job, such as `journal dead-letters replay`, will not find it: \
                 {error}; put the pool on a file system that has sockets"
            );
            return None;
        }
    };
    tracing::debug!(socket = %socket.path().display(), "commands are heard");
    let journal = journal.clone();
    let handler: ControlHandler = Arc::new(move |request| answer(&journal, &replayer, &job, request));
    Some(tokio::spawn(socket.serve(handler, ended)))
}

fn answer(journal: &Journal, replayer: &Replayer, job: &AsideJob, request: ControlRequest) -> ControlResponse {
    let done = match request {
        ControlRequest::DropDeadLetters { filter } => {
            replayer.drop_letters(filter).map(|letters| ControlResponse::Dropped { letters })
        }
        ControlRequest::SetAside { statement, offset } => {
            set_aside(journal, job, &statement, offset).map(|()| ControlResponse::IsAside)
        }
        ControlRequest::DropQuarantine => {
            let seen = journal.acknowledge_quarantine();
            let told =
                seen.map(|n| ControlResponse::QuarantineSeen { ranges: n.unseen_ranges, records: n.unseen_records });
            told.map_err(|e| e.to_string())
        }
        ControlRequest::ReplayDeadLetters(request) => replayer.replay(request).map(ControlResponse::Replayed),
    };
    done.unwrap_or_else(ControlResponse::refused)
}
