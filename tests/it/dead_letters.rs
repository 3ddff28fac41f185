//! What could not go on, as the commands show it, and the way back.

#[path = "dead_letters/replays.rs"]
mod replays;

use std::path::Path;

use forebay::journal::{DeadLetter, Journal, JournalConfig, verify};
use forebay::time::Timestamp;
use serde_json::Value as Json;

use crate::harness::{cli, write};
use crate::support::{refuses, succeeds, write_job};

/// A folder with a job that does not run, and a pool with these letters.
fn pool_with(dir: &Path, letters: Vec<DeadLetter>) {
    let job = "[job]\nname = \"letters\"\nquery = \"job.asaql\"\n[inputs.rides]\ntype = \"mqtt\"\n\
        url = \"mqtt://127.0.0.1:1\"\ntopics = [\"rides\"]\n[outputs.alerts]\ntype = \"stdout\"\n\
        [journal]\npath = \"pool.db\"\n";
    write_job(dir, job, "SELECT * INTO alerts FROM rides");
    let journal = Journal::open(JournalConfig::new(dir.join("pool.db"))).unwrap();
    journal.add_dead_letters(letters).unwrap();
    journal.close();
}

fn letter(hour: u32, stage: &str, reason: &str, offset: i64, payload: &[u8]) -> DeadLetter {
    DeadLetter {
        at: Timestamp::parse(&format!("2026-11-28T{hour:02}:00:00.1234567Z")).unwrap(),
        stage: stage.into(),
        reason: reason.into(),
        message: format!("message {offset}"),
        offset: Some(offset),
        payload: payload.to_vec(),
        attempts: 1,
        ..DeadLetter::default()
    }
}

/// The command over the job of the folder.
fn letters(dir: &Path, args: &[&str]) -> String {
    succeeds(dir, &[&["journal", "dead-letters"], args, &["--job", "job.toml"]].concat())
}

fn several() -> Vec<DeadLetter> {
    let binary = DeadLetter {
        offset: None,
        input: Some("rides".into()),
        ..letter(1, "input rides", "undecodable", 0, b"\xff\0{")
    };
    vec![
        binary,
        letter(2, "statement alerts", "conversion", 5, b"{\"n\":1,\"text\":\"a\\nb\"}"),
        letter(3, "statement alerts (score)", "endpoint_400", 6, b"{\"n\":2,\"argument\":[1,2.5]}"),
        letter(4, "statement alerts2", "conversion", 7, "\u{1b}[31mred".as_bytes()),
        letter(5, "output alerts", "rejected", 8, b""),
    ]
}

/// Numbers that `ls --json` gives.
fn ids(out: &str) -> Vec<i64> {
    out.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()["id"].as_i64().unwrap()).collect()
}

#[test]
fn letters_are_found_by_what_they_are_and_counted_by_reason() {
    let dir = tempfile::tempdir().unwrap();
    pool_with(dir.path(), several());
    let found = |args: &[&str]| ids(&letters(dir.path(), &[&["ls", "--json"], args].concat()));
    for (args, wanted) in [
        (&[][..], &[1, 2, 3, 4, 5][..]),
        (&["--stage", "statement alerts"], &[2, 3]),
        (&["--stage", "statement alerts (score)"], &[3]),
        (&["--stage", "OUTPUT"], &[5]),
        (&["--stage", "out"], &[]),
        (&["--statement", "Alerts"], &[2, 3]),
        (&["--statement", "alert_"], &[]),
        (&["--reason", "conversion"], &[2, 4]),
        (&["--since", "2026-11-28T02:00:00.1234567Z"], &[2, 3, 4, 5]),
        (&["--until", "2026-11-28T02:00:00.1234567Z"], &[1]),
        (&["--since", "1s"], &[]),
        (&["--id", "5", "--id", "1", "--id", "99"], &[1, 5]),
        (&["--after", "2", "--limit", "2"], &[3, 4]),
        (&["--statement", "alerts", "--reason", "conversion", "--since", "2026-11-28T00:00:00Z", "--after", "1"], &[2]),
    ] {
        assert_eq!(found(args), wanted, "{args:?}");
    }
    let summary = letters(dir.path(), &["ls", "--summary"]);
    assert_eq!(
        summary.lines().next().unwrap(),
        "           1  input rides               undecodable        162 B  2026-11-28T01:00:00.1234567Z to \
        2026-11-28T01:00:00.1234567Z",
        "{summary}"
    );
    assert!(summary.ends_with("           5  in all\n"), "{summary}");
    let narrow = letters(dir.path(), &["ls", "--summary", "--reason", "conversion"]);
    assert!(narrow.ends_with("           2  in all\n") && narrow.lines().count() == 3, "{narrow}");
    assert_eq!(letters(dir.path(), &["ls", "--reason", "none"]), "no such dead letters\n");
    let wrong = refuses(dir.path(), &["journal", "dead-letters", "ls", "--job", "job.toml", "--since", "yesterday"]);
    assert!(wrong.contains("write a time such as 2026-11-28T08:00:00Z, or how long ago"), "{wrong}");
}

#[test]
fn a_letter_is_shown_whole_and_nothing_in_it_reaches_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    pool_with(dir.path(), several());
    let shown = letters(dir.path(), &["show", "3"]);
    assert!(shown.contains("stage         statement alerts (score)\n"), "{shown}");
    assert!(shown.ends_with("payload, 26 bytes:\n  n: 2\n  argument: [1,2.5]\n"), "{shown}");
    let shown = letters(dir.path(), &["show", "1"]);
    assert!(shown.ends_with("payload, 3 bytes:\n  (no UTF-8; base64) /wB7\n"), "{shown}");
    assert!(!letters(dir.path(), &["show", "4"]).contains('\u{1b}'));
    let (code, _, err) = cli(dir.path(), &["journal", "dead-letters", "show", "9", "--job", "job.toml"]);
    assert_eq!(
        (code, err.as_str()),
        (1, "error: there is no dead letter 9; `forebay journal dead-letters ls` lists them\n")
    );
}

#[test]
fn an_export_has_every_byte_and_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    pool_with(dir.path(), several());
    let out = letters(dir.path(), &["export"]);
    assert_eq!(ids(&out), [1, 2, 3, 4, 5]);
    let first: Json = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!((first["payload"].as_str(), first["payload_encoding"].as_str()), (Some("/wB7"), Some("base64")));
    let second: Json = serde_json::from_str(out.lines().nth(1).unwrap()).unwrap();
    let payload = (second["payload"].as_str(), second["payload_encoding"].as_str());
    assert_eq!(payload, (Some("{\"n\":1,\"text\":\"a\\nb\"}"), Some("utf-8")));
    let told = letters(dir.path(), &["export", "--to", "out.jsonl", "--stage", "statement"]);
    assert_eq!(told, "3 dead letters written to out.jsonl\n");
    let file = dir.path().join("out.jsonl");
    assert_eq!(ids(&std::fs::read_to_string(&file).unwrap()), [2, 3, 4]);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // it is never written over
    write(dir.path(), "kept", "mine");
    let (code, _, err) = cli(dir.path(), &["journal", "dead-letters", "export", "--job", "job.toml", "--to", "kept"]);
    assert!(code == 1 && err.starts_with("error: kept: "), "{err}");
    assert_eq!(std::fs::read_to_string(dir.path().join("kept")).unwrap(), "mine");
    assert!(verify(&dir.path().join("pool.db")).unwrap().is_good());
}

#[test]
fn a_job_that_does_not_run_has_its_letters_dropped_by_the_command() {
    let dir = tempfile::tempdir().unwrap();
    pool_with(dir.path(), several());
    let which = refuses(dir.path(), &["journal", "dead-letters", "drop", "--job", "job.toml"]);
    assert!(which.starts_with("error: which ones? say so by --stage") && which.contains("--all"), "{which}");
    assert_eq!(letters(dir.path(), &["drop", "--statement", "alerts"]), "2 dead letters dropped\n");
    assert_eq!(letters(dir.path(), &["drop", "--reason", "none"]), "0 dead letters dropped\n");
    assert_eq!(ids(&letters(dir.path(), &["ls", "--json"])), [1, 4, 5]);
    // whoever has the pool open without a socket is not raced
    let open = Journal::open(JournalConfig::new(dir.path().join("pool.db"))).unwrap();
    let (code, _, err) = cli(dir.path(), &["journal", "dead-letters", "drop", "--all", "--job", "job.toml"]);
    assert!(code == 1 && err.contains("is in use, but no job listens beside it"), "{err}");
    open.close();
    assert_eq!(letters(dir.path(), &["drop", "--all"]), "3 dead letters dropped\n");
    assert!(verify(&dir.path().join("pool.db")).unwrap().is_good());
    let status = succeeds(dir.path(), &["journal", "status", "--job", "job.toml"]);
    assert!(status.contains("dead letters: dropped (command) 5, stored 5"), "{status}");
}
