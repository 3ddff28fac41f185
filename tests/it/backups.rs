//! `forebay journal backup` and `restore`, as the person sees them who moves a job to another gateway.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use forebay::journal::{Journal, JournalConfig};
use serde_json::Value as Json;

use crate::harness::{Forebay, binary, cli, until};
use crate::support::{Mosquitto, assert_pool_is_good, publish_numbers, rows_of, runtime, succeeds, write_job};

/// A job for this broker; `output`: the section of its one output, `out`.
fn job(dir: &Path, broker: &Mosquitto, output: &str) -> std::path::PathBuf {
    let text = format!(
        "[job]\nname = \"moved\"\nquery = \"job.asaql\"\nstart = \"oldest\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [inputs.t]\ntype = \"mqtt\"\nurl = \"{}\"\ntopics = [\"t/+\"]\n[outputs.out]\n{output}\n",
        broker.url()
    );
    write_job(dir, &text, "SELECT n INTO out FROM t")
}

const BACKUP: [&str; 5] = ["journal", "backup", "--job", "job.toml", "copy.db"];
const TO_FILE: &str = "type = \"file\"\npath = \"out.jsonl\"\nrow_id = \"id\"";

fn numbers(dir: &Path) -> Vec<i64> {
    rows_of(&dir.join("out.jsonl")).iter().map(|row: &Json| row["n"].as_i64().unwrap()).collect()
}

#[test]
fn a_backup_of_a_running_job_becomes_a_job_on_another_gateway_while_the_first_goes_on() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (runtime, broker) = (runtime(), Mosquitto::start());
    // nobody answers there, so the rows wait in the pool
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let forebay = Forebay::run(&job(first.path(), &broker, &format!("type = \"http\"\nurl = \"http://{nobody}/\"")));
    runtime.block_on(publish_numbers(&broker.url(), "t/1", 0..500));
    let stored = || forebay.metric("forebay_input_stored_total");
    until("the events", || (stored() == 500.0).then_some(()));
    // events go on to come while the backup is made
    let url = broker.url();
    let publishing = runtime.spawn(async move { publish_numbers(&url, "t/1", 500..3000).await });
    let said = succeeds(first.path(), &BACKUP);
    assert!(
        said.starts_with("copy.db: ") && said.contains(" records to read for 1 consumer, 0 dead letters"),
        "{said}"
    );
    runtime.block_on(publishing).unwrap();
    until("all events", || (stored() == 3000.0).then_some(()));

    let again = cli(first.path(), &BACKUP);
    assert!(again.0 == 1 && again.2.contains("copy.db is there already, and nothing is written over"), "{again:?}");
    let copy = first.path().join("copy.db");
    let restore = ["journal", "restore", "--job", "job.toml", copy.to_str().unwrap()];
    let taken = cli(first.path(), &restore);
    assert!(taken.0 == 1 && taken.2.contains("moved.db is in use: stop the job, move its pool"), "{taken:?}");

    let moved = job(second.path(), &broker, TO_FILE);
    let said = succeeds(second.path(), &restore);
    assert!(
        said.contains("moved.db is restored from ") && said.contains("Brokers know this job by new client ids"),
        "{said}"
    );
    let other = Forebay::run(&moved);
    until("what was acknowledged before", || (numbers(second.path()).len() >= 500).then_some(()));
    runtime.block_on(publish_numbers(&broker.url(), "t/1", 3000..3010));
    until("what comes", || numbers(second.path()).contains(&3009).then_some(()));
    let found = numbers(second.path());
    // the broker delivers each to both, and neither throws the other out
    until("the first one has it too", || (stored() == 3010.0).then_some(()));
    let of_backup = found.len() - 10;
    assert_eq!(found, (0..of_backup as i64).chain(3000..3010).collect::<Vec<_>>());
    other.stop();
    assert_pool_is_good(second.path());
    let refused = cli(second.path(), &restore);
    assert!(refused.0 == 1 && refused.2.contains("there is a pool where the backup is to be"), "{refused:?}");
    forebay.stop();
    assert_pool_is_good(first.path());

    // rows of equal events have equal ids, and rows of others have others
    job(first.path(), &broker, TO_FILE);
    let forebay = Forebay::run(&first.path().join("job.toml"));
    until("the rows of the first", || (numbers(first.path()).len() == 3010).then_some(()));
    forebay.stop();
    let (ours, theirs) = (rows_of(&first.path().join("out.jsonl")), rows_of(&second.path().join("out.jsonl")));
    assert_eq!(ours[..of_backup], theirs[..of_backup]);
    let (ours, theirs) = (&ours[of_backup..], &theirs[of_backup..]);
    assert!(theirs.iter().all(|their| ours.iter().all(|our| our["id"] != their["id"])), "{theirs:?}");
}

#[test]
fn on_the_same_gateway_the_session_at_the_broker_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, broker) = (runtime(), Mosquitto::start());
    let job = job(dir.path(), &broker, TO_FILE);
    Forebay::run(&job).stop();
    succeeds(dir.path(), &BACKUP);
    // the broker keeps them for the job
    runtime.block_on(publish_numbers(&broker.url(), "t/1", 0..20));
    for file in ["", "-redo", "-high-water"] {
        fs::remove_file(dir.path().join(format!("moved.db{file}"))).unwrap();
    }
    let said = succeeds(dir.path(), &["journal", "restore", "--job", "job.toml", "--same-gateway", "copy.db"]);
    assert!(said.contains("Brokers know this job by its former client ids"), "{said}");
    let forebay = Forebay::run(&job);
    until("what the broker kept", || (numbers(dir.path()).len() == 20).then_some(()));
    forebay.stop();
    assert_pool_is_good(dir.path());
}

/// A pool that takes a while to copy.
fn large_pool(dir: &Path) {
    let journal = Journal::open(JournalConfig::new(dir.join("moved.db"))).unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    for n in 0..60 {
        let bytes: Vec<u8> = (0..1 << 20).map(|_| rng.u8(..)).collect();
        journal.put_meta(&format!("large {n}"), &bytes).unwrap();
    }
    journal.close();
}

/// Has a command begin to write a file of this name, and kills it there.
fn killed_while_it_writes(dir: &Path, args: &[&str], unfinished: &str) {
    let mut child = Command::new(binary())
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = dir.join(unfinished);
    while !file.metadata().is_ok_and(|file| file.len() > 4 << 20) {
        assert!(child.try_wait().unwrap().is_none(), "it was done before it could be killed");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_kill_in_the_middle_leaves_no_backup_and_no_pool_and_the_next_attempt_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start();
    job(dir.path(), &broker, TO_FILE);
    large_pool(dir.path());
    for _ in 0..3 {
        killed_while_it_writes(dir.path(), &BACKUP, "copy.db-unfinished");
        assert!(!dir.path().join("copy.db").exists());
    }
    succeeds(dir.path(), &BACKUP);
    assert!(!dir.path().join("copy.db-unfinished").exists());
    for file in ["", "-redo", "-high-water"] {
        fs::remove_file(dir.path().join(format!("moved.db{file}"))).unwrap();
    }
    let restore = ["journal", "restore", "--job", "job.toml", "copy.db"];
    for _ in 0..3 {
        killed_while_it_writes(dir.path(), &restore, "moved.db-unfinished");
        assert!(!dir.path().join("moved.db").exists());
    }
    succeeds(dir.path(), &restore);
    assert!(!dir.path().join("moved.db-unfinished").exists());
    assert_pool_is_good(dir.path());
    let db = rusqlite::Connection::open(dir.path().join("moved.db")).unwrap();
    let sql = "SELECT count(*) FROM meta WHERE key LIKE 'large %' AND length(value) = 1 << 20";
    assert_eq!(db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 60);
}
