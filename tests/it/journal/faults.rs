//! What the disk does to a journal: writes that fail, room that is gone.

use super::*;

#[test]
fn after_a_failed_write_nothing_is_acknowledged_any_more() {
    let pool = Pool::new();
    pool.store_some(3);
    let consumer = pool.consumer("scored", StreamId::INPUTS);
    let db = rusqlite::Connection::open(&pool.path).unwrap();
    db.execute_batch("ALTER TABLE segment RENAME TO elsewhere").unwrap();
    // too large for the redo log
    let failed = pool.append(vec![noise(2 << 20, 1)]).recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert!(matches!(failed, JournalError::Poisoned { .. }), "{failed}");
    assert!(failed.to_string().contains("forebay journal verify"), "{failed}");
    db.execute_batch("ALTER TABLE elsewhere RENAME TO segment").unwrap();
    let later = pool.append(vec![b"{}".to_vec()]).recv_timeout(PATIENCE).unwrap();
    assert_eq!(later, Err(failed.clone()), "not even when it could work again");
    assert_eq!(pool.journal.commit(Commit::at(consumer.id, 1)).wait(), Err(failed.clone()));
    assert_eq!(pool.journal.put_meta("a", b"b"), Err(failed.clone()));
    assert_eq!(pool.journal.refusal(), Some(failed));
    assert_eq!(pool.payloads(0).len(), 3, "what is stored can still be read");
    let pool = pool.reopen();
    assert_eq!(pool.store_some(1), 3..4);
    assert!(verify(&pool.path).unwrap().is_good());
}
