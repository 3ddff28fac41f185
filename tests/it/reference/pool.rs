//! Versions of reference data in the pool: an older pool opens, and a version without room leaves the one before.

use std::path::Path;

use forebay::journal::{Journal, JournalConfig, JournalError, JournalStatus, StoredReference, verify};
use forebay::time::Timestamp;

use super::{Place, QUERY, metric, wait_for_degraded};
use crate::harness::Forebay;

fn journal(dir: &Path, max_bytes: u64) -> Journal {
    Journal::open(JournalConfig { max_bytes, ..JournalConfig::new(dir.join("job.db")) }).unwrap()
}

fn version(digest: &str, bytes: Vec<u8>) -> StoredReference {
    let loaded_at = Timestamp::parse("2026-05-01T10:00:00Z").unwrap();
    StoredReference { digest: digest.to_owned(), form: "json".to_owned(), rows: 1, loaded_at, bytes: bytes.into() }
}

#[test]
fn a_journal_made_before_opens_and_learns_of_reference_data() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path(), 1 << 30).close();
    let path = dir.path().join("job.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("DROP TABLE reference; DROP TABLE reference_error").unwrap();
    drop(db);
    assert!(JournalStatus::open_readonly(&path).unwrap().references.is_empty());
    assert!(verify(&path).unwrap().is_good());
    assert_eq!(forebay::journal::reference_readonly(&path, "zones"), Ok(None));
    let journal = journal(dir.path(), 1 << 30);
    let kept = version("d1", b"[{\"id\":1}]".to_vec());
    journal.put_reference("zones", &kept).unwrap();
    assert_eq!(journal.reference("zones").unwrap(), Some(kept));
    journal.close();
    assert!(verify(&path).unwrap().is_good());
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("UPDATE reference SET digest = 'd2'").unwrap();
    drop(db);
    assert_eq!(
        forebay::journal::reference_readonly(&path, "zones"),
        Ok(None),
        "what does not match its checksum is not given out"
    );
    assert_eq!(verify(&path).unwrap().problems, ["reference data zones: the kept version does not match its checksum"]);
}

#[test]
fn a_version_that_the_budget_has_no_room_for_leaves_the_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(dir.path(), 1 << 20);
    let small = version("small", b"[]".to_vec());
    journal.put_reference("zones", &small).unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    let large = version("large", (0..2 << 20).map(|_| rng.u8(..)).collect());
    assert!(matches!(journal.put_reference("zones", &large), Err(JournalError::Full { .. })));
    assert_eq!(journal.reference("zones").unwrap(), Some(small));
    let medium = version("medium", (0..500 << 10).map(|_| rng.u8(..)).collect());
    journal.put_reference("zones", &medium).unwrap();
    assert!(journal.used_bytes() >= 500 << 10, "it counts in the budget: {}", journal.used_bytes());
}

#[test]
fn a_version_without_room_is_used_and_the_alarm_says_that_it_is_not_kept() {
    let place = Place::new();
    let mut rng = fastrand::Rng::with_seed(2);
    let mut name = || (0..256).map(|_| format!("{:016x}", rng.u64(..))).collect::<String>();
    let rows = (0..9000).map(|id| format!("{{\"id\":{id},\"name\":\"{}\"}}\n", name()));
    place.replace("zones.json", &rows.collect::<String>());
    let settings = "path = \"zones.json\"\nbytes_max = \"64MiB\"";
    let forebay = Forebay::run(&place.job(QUERY, settings, "[journal]\nmax_bytes = \"16MiB\"\n"));
    place.send(0..1, 8999);
    assert_eq!(place.zones(1)[&0].len(), 4096);
    wait_for_degraded(&forebay, "input zones: its version is not kept for a start offline: the journal is full");
    assert_eq!(metric(&forebay, "reference_kept", "zones"), 0.0);
    forebay.stop();
}
