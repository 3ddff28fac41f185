//! Both ends over real sockets.

use std::os::unix::fs::FileTypeExt;
use std::sync::Mutex;

use super::*;
use crate::journal::LetterFilter;

const SOON: Duration = Duration::from_secs(20);

fn drop_request(reason: &str) -> ControlRequest {
    let filter = LetterFilter { reason: Some(reason.to_owned()), ..LetterFilter::default() };
    ControlRequest::DropDeadLetters { filter }
}

/// A job that remembers what it was asked, while it lives.
struct FakeJob {
    runtime: tokio::runtime::Runtime,
    asked: Arc<Mutex<Vec<ControlRequest>>>,
    ended: CancellationToken,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl FakeJob {
    fn start(pool: &Path) -> FakeJob {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (asked, ended) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
        let socket = {
            let _in = runtime.enter();
            ControlSocket::bind(pool).unwrap()
        };
        let seen = asked.clone();
        let handler = move |request| {
            let mut asked = seen.lock().unwrap();
            asked.push(request);
            ControlResponse::Dropped { letters: asked.len() as u64 }
        };
        let serving = Some(runtime.spawn(socket.serve(Arc::new(handler), ended.clone())));
        FakeJob { runtime, asked, ended, serving }
    }

    fn stop(&mut self) {
        self.ended.cancel();
        self.runtime.block_on(self.serving.take().unwrap()).unwrap();
    }
}

/// A raw line, and what comes back until the job hangs up.
fn raw(pool: &Path, bytes: &[u8]) -> String {
    let mut stream = ControlAddress::beside(pool).with_short(|path| BlockingStream::connect(path)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    // it may hang up before all of it is written
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn a_request_is_answered_and_several_go_over_one_connection() {
    let dir = tempfile::tempdir().unwrap();
    let pool = dir.path().join("pool.db");
    assert!(ControlClient::call(&pool).unwrap().is_none(), "nobody listens");
    let mut job = FakeJob::start(&pool);
    let mode = std::fs::metadata(dir.path().join("pool.db-control")).unwrap();
    assert!(mode.file_type().is_socket() && mode.permissions().mode() & 0o777 == 0o600);
    let mut client = ControlClient::call(&pool).unwrap().unwrap();
    for n in 1..=2 {
        let answer = client.ask(&drop_request("a"), SOON).unwrap();
        assert_eq!(answer, ControlResponse::Dropped { letters: n });
    }
    assert_eq!(*job.asked.lock().unwrap(), [drop_request("a"), drop_request("a")]);
    // a caller that only holds the line does not keep the job from stopping
    job.stop();
    assert!(client.ask(&drop_request("b"), SOON).unwrap_err().to_string().contains("pool.db-control"));
    assert!(ControlClient::call(&pool).unwrap().is_none() && !dir.path().join("pool.db-control").exists());
}

#[test]
fn a_line_that_is_too_long_of_another_version_or_no_request_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let pool = dir.path().join("pool.db");
    let mut job = FakeJob::start(&pool);
    let long = [vec![b'x'; LINE_BYTES_MAX], b"\n".to_vec()].concat();
    for (line, said) in [
        (&b"{\"v\":2,\"do\":\"drop-dead-letters\"}\n"[..], "has version 2, and the program of the job speaks 1"),
        (b"{\"do\":\"drop-dead-letters\"}\n", "the line has no version"),
        (b"nothing\n", "a line is one JSON object"),
        (b"{\"v\":1,\"do\":\"dance\"}\n", "version 1 has no such line"),
        (b"{\"v\":1", "a request is one line of 4194304 bytes at most"),
        (&long, "a request is one line of 4194304 bytes at most"),
    ] {
        let answer = raw(&pool, line);
        assert!(answer.contains(said) && answer.contains("\"refused\"") && answer.ends_with('\n'), "{answer}");
    }
    assert!(job.asked.lock().unwrap().is_empty());
    let request = ControlRequest::ReplayDeadLetters(ReplayRequest {
        filter: LetterFilter::default(),
        edits: Some(vec![ReplayEdit { id: 1, payload: "x".repeat(LINE_BYTES_MAX) }]),
    });
    let error = ControlClient::call(&pool).unwrap().unwrap().ask(&request, SOON).unwrap_err();
    assert!(matches!(error, ControlError::TooLong { .. }), "{error}");
    job.stop();
}

#[test]
fn a_pool_has_one_socket_by_all_its_names_however_long_and_a_dead_one_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let (long, link) = (deep.join("n".repeat(200)), dir.path().join("link.db"));
    std::os::unix::fs::symlink(&long, &link).unwrap();
    // left by a process that was killed
    let dead = ControlAddress::beside(&long);
    drop(dead.with_short(|path| std::os::unix::net::UnixListener::bind(path)).unwrap());
    assert!(dead.path.exists() && ControlClient::call(&link).unwrap().is_none());
    let mut job = FakeJob::start(&long);
    let mut beside = FakeJob::start(&deep.join("other.db"));
    ControlClient::call(&link).unwrap().unwrap().ask(&drop_request("a"), SOON).unwrap();
    assert_eq!((job.asked.lock().unwrap().len(), beside.asked.lock().unwrap().len()), (1, 0));
    job.stop();
    beside.stop();
}

#[test]
fn who_may_ask_and_what_another_user_is_told() {
    assert!(may_ask(1000, 1000) && may_ask(0, 1000) && !may_ask(1001, 1000) && !may_ask(1000, 0));
    let dir = tempfile::tempdir().unwrap();
    let user = std::fs::metadata(dir.path()).unwrap().uid();
    let error = unanswered(dir.path(), io::ErrorKind::PermissionDenied.into()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("the job runs as the user with the number {user}")), "{error}");
    assert!(error.contains(&format!("sudo -u '#{user}'")), "{error}");
}
