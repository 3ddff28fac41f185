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

/// Has the pool refuse the last step in which a part is made.
fn refuse(consumer: &str) -> String {
    format!(
        "INSERT INTO aside VALUES ('{consumer}', -1);
         CREATE TRIGGER refused BEFORE DELETE ON aside BEGIN SELECT RAISE(ABORT, 'refused by the test'); END;"
    )
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

    // a statement that the pool refuses fails after outputs and endpoints were built
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
    db.execute_batch(&refuse("statement gone")).unwrap();
    drop(db);
    let error = Pipeline::start(&job, &prepared, Clock::Real).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("refused by the test"), "{error}");
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

    // the statement behind the changed one cannot be made
    let damage = |sql: &str| {
        let db = rusqlite::Connection::open(dir.path().join("pool.db")).unwrap();
        db.execute_batch(sql).unwrap();
        db.query_row("SELECT group_concat(name || fingerprint) FROM consumer", [], |row| row.get::<_, String>(0))
            .unwrap()
    };
    let before = damage(&refuse("statement other"));
    let error = start(2).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("refused by the test"), "{error}");
    let after = damage("DROP TRIGGER refused; DELETE FROM aside");
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

#[test]
fn a_statement_whose_state_is_damaged_stops_alone_until_it_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let broker = Mosquitto::start();
    let path = job_file(dir.path(), broker.port, "127.0.0.1:0");
    let text = std::fs::read_to_string(&path).unwrap();
    write(dir.path(), "job.toml", &format!("{text}[outputs.other]\ntype = \"file\"\npath = \"other.jsonl\"\n"));
    let lag = |output: &str| format!("SELECT n, LAG(n) OVER (LIMIT DURATION(hour, 1)) AS b INTO {output} FROM t\n");
    write(dir.path(), "job.asaql", &(lag("out") + &lag("other")));
    let rows = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default().lines().count();
    let forebay = Forebay::run(&path);
    runtime.block_on(publish_numbers(&broker.url(), "t", 0..3));
    until("three rows of each", || (rows("out.jsonl") == 3 && rows("other.jsonl") == 3).then_some(()));
    forebay.stop();

    let db = rusqlite::Connection::open(dir.path().join("pool.db")).unwrap();
    let sql = "UPDATE state SET value = value || x'00' WHERE consumer = (SELECT id FROM consumer WHERE name = \
               'statement out')";
    assert!(db.execute(sql, []).unwrap() > 0);
    drop(db);
    let forebay = Forebay::run(&path);
    runtime.block_on(publish_numbers(&broker.url(), "t", 3..5));
    until("five rows of the other", || (rows("other.jsonl") == 5).then_some(()));
    assert_eq!(rows("out.jsonl"), 3);
    let (status, body) = forebay.get("/readyz");
    let remedy = "statement out stopped: its state in the pool is damaged";
    assert!(status == 503 && body.contains(remedy), "{body}");
    assert!(body.contains("`forebay journal reset-state --job JOB out`"), "{body}");
    assert!(forebay.log().contains(remedy), "{}", forebay.log());
    assert_eq!(forebay.metric("forebay_statements_stopped"), 1.0);
    assert_eq!(forebay.get("/healthz").0, 200);
    let reset =
        |statement: &str| crate::harness::cli(dir.path(), &["journal", "reset-state", "--job", "job.toml", statement]);
    let (code, _, err) = reset("out");
    assert!(code == 1 && err.contains("is in use: stop the job, run this again"), "{err}");
    forebay.stop();
    let (code, _, err) = reset("nobody");
    assert!(code == 1 && err.contains("no statement `nobody`: there are `out`, `other`"), "{err}");
    let (code, out, err) = reset("OUT");
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("statement out: ") && out.contains("removed; it goes on at offset 3\n"), "{out}");
    assert!(out.contains("windows that were open"), "{out}");

    let forebay = Forebay::run(&path);
    until("five rows of both", || (rows("out.jsonl") == 5).then_some(()));
    let out = std::fs::read_to_string(dir.path().join("out.jsonl")).unwrap();
    assert!(out.ends_with("{\"n\":3,\"b\":null}\n{\"n\":4,\"b\":3}\n"), "{out}");
    assert_eq!(forebay.metric("forebay_statements_stopped"), 0.0);
    forebay.stop();
    crate::support::assert_pool_is_good(dir.path());
}
