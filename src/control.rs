//! How commands talk to a running job: a Unix socket beside its pool.
//!
//! In: a [`ControlRequest`] as one line of JSON. Out: one [`ControlResponse`] as a line. Invariant: a line, the time
//! for it and the number of callers are bounded; only our own user and root are answered. Not here: what a request does
//! (`pipeline`), and what a command does where no job runs.

mod address;
mod message;

use std::io::{self, BufRead, BufReader as BlockingReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use address::ControlAddress;
pub use message::{ControlRequest, ControlResponse, ReplayEdit, ReplayOutcome, ReplayRequest};

/// Longest line, its end included: edited letters go in several requests.
pub const LINE_BYTES_MAX: usize = 4 << 20;
/// How long a line may be on its way, in and out.
const LINE_TIME: Duration = Duration::from_secs(10);
/// Callers that are served at once; others wait to be accepted.
const CALLERS_MAX: usize = 4;
/// A pause behind an accept that failed, as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why a job could not be asked, or cannot be reached by the commands.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(
        "the job runs as the user with the number {user}, and only that user and root may change it: run the command \
         so, as with `sudo -u '#{user}' forebay …`"
    )]
    Permission { user: u32 },
    #[error("the control socket {path}: {source}")]
    Socket { path: String, source: io::Error },
    #[error("the job did not answer at {path} within {seconds} s; it goes on: look at its log, and ask again")]
    Silent { path: String, seconds: u64 },
    #[error("the job answered at {path} what this program does not read ({answer}): use the program that it runs")]
    Answer { path: String, answer: String },
    #[error("the request has {bytes} bytes, {LINE_BYTES_MAX} are the most: ask for fewer at once")]
    TooLong { bytes: usize },
}

impl ControlError {
    fn socket(path: &Path, source: io::Error) -> ControlError {
        ControlError::Socket { path: path.display().to_string(), source }
    }
}

/// What a job does with a request; called on a thread that may block.
pub type ControlHandler = Arc<dyn Fn(ControlRequest) -> ControlResponse + Send + Sync>;

/// The listening end. Its file is gone once it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    address: ControlAddress,
    /// Our own user.
    user: u32,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // where that fails the next job replaces it, and a command finds nobody there
        let _ = std::fs::remove_file(&self.address.path);
    }
}

impl ControlSocket {
    /// Listens beside a pool. The caller holds the pool's lock, so a socket that is there belongs to nobody any more.
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// What the system says, as on a file system without sockets.
    pub fn bind(pool: &Path) -> Result<ControlSocket, ControlError> {
        let address = ControlAddress::beside(pool);
        let told = |e: io::Error| ControlError::socket(&address.path, e);
        match std::fs::remove_file(&address.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(told(error)),
            _ => {}
        }
        let listener = address.with_short(|path| UnixListener::bind(path)).map_err(told)?;
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&address.path, private).map_err(told)?;
        let user = std::fs::symlink_metadata(&address.path).map_err(told)?.uid();
        Ok(ControlSocket { listener, address, user })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.address.path
    }

    /// Answers until told to end; requests that are being done are finished first.
    pub async fn serve(self, handler: ControlHandler, ended: CancellationToken) {
        let (room, mut callers) = (Arc::new(Semaphore::new(CALLERS_MAX)), JoinSet::new());
        loop {
            let next = async {
                let place = room.clone().acquire_owned().await.ok();
                (self.listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                next = next => next,
                () = ended.cancelled() => break,
            };
            while callers.try_join_next().is_some() {}
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the control socket took no caller");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // between the making of the file and its mode anybody may have come
            if !stream.peer_cred().is_ok_and(|peer| may_ask(peer.uid(), self.user)) {
                continue;
            }
            let (handler, ended) = (handler.clone(), ended.clone());
            callers.spawn(async move {
                let _place = place;
                converse(stream, handler, ended).await;
            });
        }
        while callers.join_next().await.is_some() {}
    }
}

/// Root may do whatever the job's user may.
fn may_ask(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

/// Serves one caller: a line in, a line out, until it hangs up or the job stops.
async fn converse(stream: UnixStream, handler: ControlHandler, ended: CancellationToken) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut read).take(LINE_BYTES_MAX as u64 + 1);
        let came = tokio::select! {
            came = tokio::time::timeout(LINE_TIME, bounded.read_until(b'\n', &mut line)) => came,
            () = ended.cancelled() => return,
        };
        if !matches!(came, Ok(Ok(n)) if n > 0) {
            return;
        }
        let is_whole = line.len() <= LINE_BYTES_MAX && line.ends_with(b"\n");
        let line = if is_whole {
            let handler = handler.clone();
            let respond = move || match ControlRequest::from_line(&line) {
                Err(why) => ControlResponse::refused(why).to_line(),
                Ok(request) => handler(request).to_line(),
            };
            // also reading the line: it may be long, and the runtime has one thread
            let failed = || ControlResponse::refused("forebay failed at it: please report the log".to_owned());
            tokio::task::spawn_blocking(respond).await.unwrap_or_else(|_| failed().to_line())
        } else {
            ControlResponse::refused(format!("a request is one line of {LINE_BYTES_MAX} bytes at most")).to_line()
        };
        let sent = tokio::time::timeout(LINE_TIME, write.write_all(line.as_bytes())).await;
        if !is_whole || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

/// A job that listens.
#[derive(Debug)]
pub struct ControlClient {
    stream: BlockingReader<BlockingStream>,
    path: PathBuf,
}

impl ControlClient {
    /// Calls the job of a pool; `None` where none listens.
    ///
    /// # Errors
    /// The job belongs to another user, or the system says why not.
    pub fn call(pool: &Path) -> Result<Option<ControlClient>, ControlError> {
        let address = ControlAddress::beside(pool);
        let stream = match address.with_short(|path| BlockingStream::connect(path)) {
            Ok(stream) => stream,
            Err(error) => return unanswered(&address.path, error).map(|()| None),
        };
        let told = |e: io::Error| ControlError::socket(&address.path, e);
        stream.set_write_timeout(Some(LINE_TIME)).map_err(told)?;
        Ok(Some(ControlClient { stream: BlockingReader::new(stream), path: address.path }))
    }

    /// Asks, and waits for the answer no longer than this.
    ///
    /// # Errors
    /// There is no answer, or none that this program reads.
    pub fn ask(&mut self, request: &ControlRequest, patience: Duration) -> Result<ControlResponse, ControlError> {
        let line = request.to_line();
        if line.len() > LINE_BYTES_MAX {
            return Err(ControlError::TooLong { bytes: line.len() });
        }
        let path = || self.path.display().to_string();
        let silent = || ControlError::Silent { path: path(), seconds: patience.as_secs() };
        let told = |e: io::Error| match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => silent(),
            _ => ControlError::socket(&self.path, e),
        };
        self.stream.get_ref().set_read_timeout(Some(patience)).map_err(told)?;
        self.stream.get_mut().write_all(line.as_bytes()).map_err(told)?;
        let mut answer = Vec::new();
        (&mut self.stream).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut answer).map_err(told)?;
        if answer.is_empty() {
            let gone = io::Error::new(io::ErrorKind::UnexpectedEof, "the job hung up, as when it stops; ask again");
            return Err(ControlError::socket(&self.path, gone));
        }
        ControlResponse::from_line(&answer).map_err(|answer| ControlError::Answer { path: path(), answer })
    }
}

/// What it means that nobody took a call: a job that ended leaves its socket or none.
fn unanswered(path: &Path, error: io::Error) -> Result<(), ControlError> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(()),
        io::ErrorKind::PermissionDenied => match std::fs::symlink_metadata(path) {
            Ok(socket) => Err(ControlError::Permission { user: socket.uid() }),
            Err(error) => Err(ControlError::socket(path, error)),
        },
        _ => Err(ControlError::socket(path, error)),
    }
}

#[cfg(test)]
mod tests;
