//! Starts and reloads that fail leave nothing half done: no thread, no lock of the pool, no lost state. mosquitto is
//! the peer of the jobs that run.

use std::net::TcpListener;
use std::path::Path;

use forebay::job;
use forebay::journal::{Journal, JournalConfig};
use forebay::pipeline::{Pipeline, prepare};
use forebay::time::Clock;

use crate::harness::{Forebay, until, write};
use crate::support::{Mosquitto, publish_numbers, runtime, wait_until, write_job};

fn job_file(dir: &Path, broker: u16, metrics: &str) -> std::path::PathBuf {
    let text = format!(
        "[job]\nname = \"start\"\nquery = \"job.asaql\"\n[metrics]\nlisten = {metrics:?}\n[journal]\n\
        path = \"pool.db\"\n\
         [inputs.t]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{broker}\"\ntopics = [\"t\"]\n\
         [outputs.out]\ntype = \"file\"\npath = \"out.jsonl\"\n"
    );
    write_job(dir, &text, "SELECT n INTO out FROM t")
}

/// Threads of this process that deliver to the output `gone`.
fn threads_of_jobs() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name == "output gone").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_start_that_fails_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = job_file(dir.path(), 9, &taken.local_addr().unwrap().to_string());
    let job = job::load(&path).unwrap();
    let prepared = prepare::prepare(&job).unwrap();
    let error = Pipeline::start(&job, &prepared, Clock::Real).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("metrics"), "{error}");
    // the pool is free: nobody holds its lock
    Journal::open(JournalConfig::new(dir.path().join("pool.db"))).unwrap().close();

    // a statement whose state is damaged fails after outputs and endpoints were built
    let query = "SELECT n, LAG(n) OVER (LIMIT DURATION(hour, 1)) AS b INTO gone FROM t";
    let text = "[job]\nname = \"start\"\nquery = \"job.asaql\"\n[metrics]\nenabled = false\n[journal]\n\
        path = \"pool.db\"\n\
                [inputs.t]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:9\"\ntopics = [\"t\"]\n\
                [outputs.gone]\ntype = \"file\"\npath = \"out.jsonl\"\n";
    let job = job::load(&write_job(dir.path(), text, query)).unwrap_or_else(|e| panic!("{e}"));
    let prepared = prepare::prepare(&job).unwrap();
    let pipeline = Pipeline::start(&job, &prepared, Clock::Real).await.unwrap();
    // what is looked for below can be found
    wait_until("the thread of the output", || threads_of_jobs() == ["output gone"]).await;
    pipeline.stop().await.unwrap();
    let db = rusqlite::Connection::open(dir.path().join("pool.db")).unwrap();
    db.execute("INSERT INTO state SELECT id, 0, x'ff', x'ff' FROM consumer WHERE name = 'statement gone'", []).unwrap();
    drop(db);
    let error = Pipeline::start(&job, &prepared, Clock::Real).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("stored state of operator 0"), "{error}");
    assert_eq!(threads_of_jobs(), [""; 0]);
    Journal::open(JournalConfig::new(dir.path().join("pool.db"))).unwrap().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_start_that_fails_late_leaves_the_state_of_a_changed_statement() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start();
    let query = |hours: u32| {
        format!(
            "SELECT n, LAG(n) OVER (LIMIT DURATION(hour, {hours})) AS b INTO out FROM t\n\
             SELECT n, LAG(n) OVER (LIMIT DURATION(hour, 1)) AS b INTO other FROM t\n"
        )
    };
    job_file(dir.path(), broker.port, "127.0.0.1:0");
    let text = std::fs::read_to_string(dir.path().join("job.toml")).unwrap();
    let path =
        write(dir.path(), "job.toml", &format!("{text}[outputs.other]\ntype = \"file\"\npath = \"other.jsonl\"\n"));
    let start = async |hours: u32| {
        write(dir.path(), "job.asaql", &query(hours));
        let job = job::load(&path).unwrap_or_else(|e| panic!("{e}"));
        let prepared = prepare::prepare(&job).unwrap();
        Pipeline::start(&job, &prepared, Clock::Real).await
    };
    let rows = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default().lines().count();
    let pipeline = start(1).await.unwrap();
    wait_until("the subscription", || pipeline.snapshot().trouble.is_empty()).await;
    publish_numbers(&broker.url(), "t", 0..3).await;
    wait_until("three rows of each", || rows("out.jsonl") == 3 && rows("other.jsonl") == 3).await;
    pipeline.stop().await.unwrap();

    // the state of the statement behind the changed one does not load
    let damage = |sql: &str| {
        let db = rusqlite::Connection::open(dir.path().join("pool.db")).unwrap();
        assert_eq!(db.execute(sql, []).unwrap(), 1);
        db.query_row("SELECT group_concat(name || fingerprint) FROM consumer", [], |row| row.get::<_, String>(0))
            .unwrap()
    };
    let before = damage("INSERT INTO state SELECT id, 0, x'ff', x'ff' FROM consumer WHERE name = 'statement other'");
    let error = start(2).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("stored state of operator 0"), "{error}");
    let after = damage("DELETE FROM state WHERE key = x'ff'");
    assert_eq!(before, after, "the start that failed has changed a consumer");

    let pipeline = start(1).await.unwrap();
    publish_numbers(&broker.url(), "t", 3..4).await;
    wait_until("the fourth row", || rows("out.jsonl") == 4).await;
    pipeline.stop().await.unwrap();
    let last = std::fs::read_to_string(dir.path().join("out.jsonl")).unwrap();
    assert!(last.ends_with("{\"n\":3,\"b\":2}\n"), "the state is gone: {last}");
}

#[test]
fn a_reload_that_cannot_start_goes_on_with_the_former_job_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let broker = Mosquitto::start();
    let path = job_file(dir.path(), broker.port, "127.0.0.1:0");
    let forebay = Forebay::run(&path);
    let rows = || std::fs::read_to_string(dir.path().join("out.jsonl")).unwrap_or_default().lines().count();
    runtime.block_on(publish_numbers(&broker.url(), "t", 0..10));
    until("ten rows", || (rows() == 10).then_some(()));

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    job_file(dir.path(), broker.port, &taken.local_addr().unwrap().to_string());
    forebay.signal("-HUP");
    let said = || forebay.log().contains("not reloaded, the job goes on as it was: ");
    until("the word that it was not reloaded", || said().then_some(()));
    // the former job listens on a port of its own choice again: the last one in the log
    let address = until("the former job's port", || {
        let log = forebay.log();
        let after = log.split("not reloaded").next().unwrap_or_default();
        after.rsplit("metrics on http://").next()?.split('/').next()?.trim().parse().ok()
    });
    let (status, text) = crate::harness::http(address, "GET", "/readyz", "");
    assert!(text.contains("not reloaded, the job goes on as it was"), "{status} {text}");
    runtime.block_on(publish_numbers(&broker.url(), "t", 10..20));
    until("twenty rows", || (rows() == 20).then_some(()));
    forebay.stop();
}
