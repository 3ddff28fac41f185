//! A pool that is damaged, as the person sees it who runs the job: `/readyz`, metrics, log, and the commands that help.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use forebay::batch::{RawEvent, Urgency};
use forebay::journal::{Append, Journal, JournalConfig};
use forebay::time::Timestamp;
use serde_json::Value as Json;

use crate::harness::{Forebay, cli, until};
use crate::support::{assert_pool_is_good, succeeds, write_job};

/// A job whose broker is away: it works on what its pool has.
fn job_file(dir: &Path, journal: &str) -> PathBuf {
    let text = format!(
        "[job]\nname = \"damaged\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n[journal]\n\
         path = \"pool.db\"\n{journal}[inputs.t]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:1\"\ntopics = [\"t\"]\n\
         [outputs.out]\ntype = \"file\"\npath = \"out.jsonl\"\n"
    );
    write_job(dir, &text, "SELECT n INTO out FROM t")
}

/// Stores events that nobody has read, each in a segment of its own.
fn fill(dir: &Path, numbers: std::ops::Range<i64>) {
    let journal = Journal::open(JournalConfig::new(dir.join("pool.db"))).unwrap();
    let input = journal.input("t").unwrap();
    for n in numbers {
        let (done, stored) = channel();
        let payload = format!("{{\"n\":{n}}}").into();
        journal.append(Append {
            input,
            events: vec![RawEvent { arrival: Timestamp::MIN, payload, message: Arc::default(), mark: 0 }],
            received: 1,
            undecodable: Vec::new(),
            dropped: Vec::new(),
            ledger: Vec::new(),
            era: 0,
            urgency: Urgency::AtOnce,
            on_durable: Box::new(move |result| done.send(result).unwrap()),
        });
        stored.recv().unwrap().unwrap();
        journal.sync().unwrap();
    }
    journal.close();
}

fn rows(dir: &Path) -> usize {
    fs::read_to_string(dir.join("out.jsonl")).unwrap_or_default().lines().count()
}

fn degraded(forebay: &Forebay) -> Vec<String> {
    let answer: Json = serde_json::from_str(&forebay.get("/readyz").1).unwrap();
    let list = answer["degraded"].as_array().cloned().unwrap_or_default();
    list.iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

#[test]
fn records_that_are_missing_are_told_in_all_places_until_a_person_has_seen_it() {
    let dir = tempfile::tempdir().unwrap();
    let job = job_file(dir.path(), "");
    fill(dir.path(), 0..8);
    let pool = dir.path().join("pool.db");
    let gone = "DELETE FROM segment WHERE first IN (3, 4, 6)";
    rusqlite::Connection::open(&pool).unwrap().execute_batch(gone).unwrap();
    let verify = ["journal", "verify", "--job", "job.toml"];
    let (code, _, err) = cli(dir.path(), &verify);
    assert!(code == 1 && err.contains("stream 0: 2 records between 3 and 5 are missing"), "{err}");

    let forebay = Forebay::start(&job);
    until("what is left", || (rows(dir.path()) == 5).then_some(()));
    let told = "the pool: records that cannot be read were skipped, 3 in 2 places: ";
    until("the word of it", || degraded(&forebay).iter().any(|line| line.starts_with(told)).then_some(()));
    let log = forebay.log();
    assert!(
        log.contains("2 records of the stream inputs (number 0), from offset 3 on, cannot be read: missing"),
        "{log}"
    );
    assert!(log.contains("1 record of the stream inputs (number 0), from offset 6 on"), "{log}");
    assert_eq!(forebay.metric("forebay_quarantined_segments"), 2.0);
    assert_eq!(forebay.metric("forebay_quarantined_records_unseen"), 3.0);
    let skipped = "forebay_consumer_skipped_total{job=\"damaged\",consumer=\"statement out\",reason=\"missing\"}";
    until("the count of the consumer", || (forebay.metric(skipped) == 3.0).then_some(()));
    assert_eq!(forebay.metric("forebay_statement_rows_in_total"), 5.0);
    assert_eq!(forebay.metric("forebay_consumer_read_total"), 5.0, "what was skipped is not read");

    let status = succeeds(dir.path(), &["journal", "status", "--job", "job.toml"]);
    let aside = "quarantined 3 records in 2 places; `forebay journal quarantine drop` says that you have seen it\n\
                 quarantined: stream 0 offsets 3 to 5: missing";
    assert!(status.contains(aside), "{status}");
    let drop = ["journal", "quarantine", "drop", "--job", "job.toml"];
    assert_eq!(succeeds(dir.path(), &drop), "3 records in 2 places seen\n", "by the running job");
    until("silence", || (!degraded(&forebay).iter().any(|line| line.starts_with(told))).then_some(()));
    assert_eq!(forebay.metric("forebay_quarantined_records_unseen"), 0.0);
    assert_eq!(forebay.metric("forebay_quarantined_records"), 3.0);
    forebay.stop();
    assert_eq!(succeeds(dir.path(), &drop), "0 records in 0 places seen\n", "while the job does not run");
    let good = succeeds(dir.path(), &verify);
    assert!(good.contains(", 2 quarantined (3 records): all checksums and all equations hold"), "{good}");
}

#[test]
fn a_pool_beyond_use_stops_the_job_or_is_put_aside_as_the_job_says() {
    let dir = tempfile::tempdir().unwrap();
    let job = job_file(dir.path(), "");
    fill(dir.path(), 0..3);
    let pool = dir.path().join("pool.db");
    let bytes = vec![0x5a; 40_960];
    fs::write(&pool, &bytes).unwrap();
    let remedy = "`on_damage = \"fresh\"`";
    for command in [
        &["run", "job.toml"][..],
        &["journal", "status", "--job", "job.toml"],
        &["journal", "verify", "--job", "job.toml"],
        &["journal", "reset-state", "--job", "job.toml", "out"],
    ] {
        let (code, _, err) = cli(dir.path(), command);
        assert!(code == 1 && err.contains(remedy) && err.contains("no database any more"), "{command:?}: {code} {err}");
    }
    let check = succeeds(dir.path(), &["check", "--offline", "job.toml"]);
    assert!(
        check.contains("warning: the pool cannot be read: ") && check.contains("a start ends with this"),
        "{check}"
    );
    assert!(fs::read(&pool).unwrap() == bytes, "it is left as it is");

    assert_eq!(job_file(dir.path(), "on_damage = \"fresh\"\n"), job);
    let check = succeeds(dir.path(), &["check", "--offline", "job.toml"]);
    assert!(check.contains("a start moves it aside and begins a fresh one"), "{check}");
    let (code, _, _) = cli(dir.path(), &["journal", "reset-state", "--job", "job.toml", "out"]);
    assert!(code == 1 && fs::read(&pool).unwrap() == bytes, "a command moves nothing");
    let forebay = Forebay::start(&job);
    let alarm = "so a fresh one was begun with what can be read of it (records there: 1, known to be missing: 0)";
    assert!(forebay.log().contains(alarm), "{}", forebay.log());
    assert!(degraded(&forebay).iter().any(|line| line.contains(alarm)));
    assert_eq!(forebay.metric("forebay_pool_alarm"), 1.0);
    forebay.stop();
    let kept = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
    assert!(kept.into_iter().any(|path| path != pool && fs::read(path).is_ok_and(|kept| kept == bytes)));
    assert_pool_is_good(dir.path());
    let forebay = Forebay::start(&job);
    assert_eq!(forebay.metric("forebay_pool_alarm"), 0.0);
    forebay.stop();
}

#[test]
fn a_pool_that_does_not_open_is_salvaged_put_in_place_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let job = job_file(dir.path(), "");
    fill(dir.path(), 0..8);
    let pool = dir.path().join("pool.db");
    let mut bytes = fs::read(&pool).unwrap();
    bytes[..4096].fill(0);
    fs::write(&pool, &bytes).unwrap();
    let (code, _, err) = cli(dir.path(), &["run", "job.toml"]);
    assert!(code == 1 && err.contains("`forebay journal salvage --job JOB FILE` writes all that can be read"), "{err}");

    let salvage = ["journal", "salvage", "--job", "job.toml", "new.db"];
    let said = succeeds(dir.path(), &salvage);
    assert!(said.starts_with("new.db: 8 records in "), "{said}");
    assert!(said.contains("0 records missing in all"), "{said}");
    assert!(said.contains("note: the first page of the file cannot be read"), "{said}");
    let next = "forebay journal restore --job job.toml --same-gateway new.db\n";
    assert!(said.ends_with(next), "{said}");
    assert!(fs::read(&pool).unwrap() == bytes, "it is left as it is");
    let restore = ["journal", "restore", "--job", "job.toml", "--same-gateway", "new.db"];
    let (code, _, err) = cli(dir.path(), &restore);
    assert!(code == 1 && err.contains("there is a pool where the backup is to be: "), "{err}");
    for file in ["", "-redo", "-high-water"] {
        let name = format!("pool.db{file}");
        fs::rename(dir.path().join(&name), dir.path().join(format!("damaged-{name}"))).unwrap();
    }
    succeeds(dir.path(), &restore);
    let forebay = Forebay::start(&job);
    until("what was salvaged", || (rows(dir.path()) == 8).then_some(()));
    forebay.stop();
    assert_pool_is_good(dir.path());
    let status = succeeds(dir.path(), &["journal", "status", "--job", "job.toml"]);
    assert!(status.contains("this pool was salvaged from a damaged one: 0 records are lost"), "{status}");
}

#[test]
fn a_pool_that_is_gone_beside_its_logs_is_told_by_every_command() {
    let dir = tempfile::tempdir().unwrap();
    job_file(dir.path(), "");
    fill(dir.path(), 0..3);
    fs::remove_file(dir.path().join("pool.db")).unwrap();
    let gone = "pool.db: the file is gone, and pool.db-redo beside it tells that there was a pool";
    for command in ["status", "verify", "reset-state"] {
        let statement = if command == "reset-state" { &["out"][..] } else { &[] };
        let args = [&["journal", command, "--job", "job.toml"], statement].concat();
        let (code, _, err) = cli(dir.path(), &args);
        assert!(code == 1 && err.contains(gone), "{command}: {code} {err}");
    }
    let check = succeeds(dir.path(), &["check", "--offline", "job.toml"]);
    assert!(check.contains("warning: the pool cannot be read: ") && check.contains(gone), "{check}");
    assert!(!dir.path().join("pool.db").exists());
}
