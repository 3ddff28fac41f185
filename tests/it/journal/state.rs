//! State is given up whatever of it is damaged.

use super::damage::{clear_page, pages};
use super::*;

/// What SQLite counts without a look at it, and removes only where it can be read.
#[test]
fn state_is_given_up_where_what_a_page_holds_is_damaged_or_what_lies_behind_it() {
    let pool = Pool::new();
    pool.store_some(3);
    let ids = ["a", "b"].map(|name| pool.consumer(name, StreamId::INPUTS).id);
    let row =
        |i: u8| StateChange { op: 2, key: vec![i], value: Some(noise(if i < 4 { 14_000 } else { 300 }, i.into())) };
    for id in ids {
        pool.commit(Commit { state: (0..40).map(row).collect(), ..Commit::at(id, 2) });
    }
    pool.journal.close();
    let (behind, leaves) = (pages(&pool.path, "state", "overflow"), pages(&pool.path, "state", "leaf"));
    assert!(behind.len() > 12 && leaves.len() > 4, "{behind:?} {leaves:?}");
    let (mut damaged, mut beyond) = (0, 0);
    'pages: for (page, is_leaf) in
        behind.iter().map(|page| (*page, false)).chain(leaves.iter().map(|page| (*page, true)))
    {
        let image = TempDir::new().unwrap();
        let path = image.path().join("job.db");
        for file in ["", "-high-water", "-redo"] {
            fs::copy(beside(&pool.path, file), beside(&path, file)).unwrap();
        }
        match is_leaf {
            // how many rows there are and where they lie stays
            true => {
                use std::os::unix::fs::FileExt;
                let file = fs::File::options().write(true).open(&path).unwrap();
                file.write_all_at(&[0xff; 2048], (page as u64 - 1) * 4096 + 2048).unwrap();
            }
            false => clear_page(&path, page),
        }
        let image = Pool::open(JournalConfig { path, ..pool.config.clone() });
        let loaded = |id| image.journal.load_state(id).map(|rows| rows.len());
        let was_whole = ids.map(|id| loaded(id).is_ok());
        assert!(was_whole != [true, true], "page {page}");
        damaged += u32::from(!was_whole[0]);
        for (name, id) in ["a", "b"].iter().zip(ids) {
            if let Err(error) = image.journal.reset_state(vec![(*name).into()]) {
                // one leads to what lies where the new table is to begin
                assert!(is_leaf && matches!(error, JournalError::BeyondUse { .. }), "page {page}, {name}: {error}");
                beyond += 1;
                continue 'pages;
            }
            assert_eq!(loaded(id), Ok(0), "page {page}, {name}");
            if *name == "a" && was_whole[1] {
                assert_eq!(loaded(ids[1]), Ok(40), "page {page}");
            }
        }
        let image = image.reopen();
        assert_eq!(ids.map(|id| image.journal.load_state(id)), [Ok(vec![]), Ok(vec![])], "page {page}");
    }
    assert!(beyond <= 1, "{beyond} pages let nobody give up state");
    assert!(damaged > 6, "{damaged} pages cost the state of the first");
}
