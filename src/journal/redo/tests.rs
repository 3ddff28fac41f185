use super::*;

const LOG_MAX: u64 = 4 << 20;
const AT: Age = Age { epoch: 77, generation: 7 };

fn found(path: &Path, age: Age) -> Vec<Vec<u8>> {
    let Bodies { bodies, misfit } = read(path, age).unwrap();
    assert_eq!(misfit, None);
    bodies
}

#[test]
fn records_are_read_back_up_to_the_first_that_is_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = RedoLog::create(&path, AT, LOG_MAX).unwrap();
    assert_eq!(log.append(b"one").unwrap(), BLOCK);
    assert_eq!(log.append(&[2; 5000]).unwrap(), 2 * BLOCK);
    log.append(b"").unwrap();
    let all = [b"one".to_vec(), vec![2; 5000], Vec::new()];
    assert_eq!(found(&path, AT), all);

    let whole = std::fs::read(&path).unwrap();
    let start = BLOCK as usize;
    let ends = [HEAD_BYTES + 3, 2 * HEAD_BYTES + 5003, 3 * HEAD_BYTES + 5003].map(|end| start + end);
    let count = |bytes: &[u8]| bodies(bytes, AT).bodies.len();
    for at in 0..ends[2] {
        let expected = ends.iter().filter(|end| **end <= at).count();
        let mut lost = whole.clone();
        lost[at.max(start)..].fill(0xff);
        assert_eq!(count(&lost), expected, "garbage from {at} on");
        let cut = bodies(&whole[..at], AT);
        assert_eq!((cut.bodies.len(), cut.misfit), (expected, Some(Misfit::Shortened)), "cut at {at}");
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        match at {
            0..20 => assert_eq!(bodies(&damaged, AT), Bodies::misfit(Misfit::Foreign)),
            20..4096 => assert_eq!(count(&damaged), 3),
            _ => assert_eq!(count(&damaged), expected, "damaged at {at}"),
        }
    }
}

#[test]
fn a_log_that_does_not_fit_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let misfit = |age| read(&path, age).unwrap().misfit;
    assert_eq!(misfit(AT), Some(Misfit::Gone));
    let mut log = RedoLog::create(&path, AT, LOG_MAX).unwrap();
    log.append(b"one").unwrap();
    assert_eq!(misfit(AT), None);
    assert_eq!(misfit(Age { epoch: 78, ..AT }), Some(Misfit::Foreign));
    assert_eq!(misfit(Age { generation: 6, ..AT }), Some(Misfit::Newer));
    assert!(found(&path, AT.next()).is_empty(), "a checkpoint has taken it over");
    assert!(found(&path, Age { epoch: 1, generation: 0 }).is_empty(), "a closed pool looks at no log");
    std::fs::write(&path, vec![0; LENGTH_MIN as usize]).unwrap();
    assert_eq!(misfit(AT), Some(Misfit::Foreign));
}

#[test]
fn a_restart_voids_the_records_before_it_and_those_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = RedoLog::create(&path, AT, LOG_MAX).unwrap();
    assert!(!log.is_touched());
    (0..10).for_each(|_| assert_eq!(log.append(b"same length").unwrap(), BLOCK));
    assert!(log.is_touched());
    log.restart(AT.next());
    assert!(!log.is_touched());
    log.append(b"same length").unwrap();
    assert_eq!(found(&path, AT.next()).len(), 1, "the second record is of the generation before");
    assert_eq!(read(&path, AT).unwrap().misfit, Some(Misfit::Newer), "its first is gone");
    assert!(found(&path, AT.next().next()).is_empty());
}

#[test]
fn a_log_of_another_start_leaves_nothing_that_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = RedoLog::create(&path, AT, LOG_MAX).unwrap();
    (0..10).for_each(|_| assert_eq!(log.append(b"same length").unwrap(), BLOCK));
    let other = Age { epoch: 78, ..AT };
    let mut log = RedoLog::create(&path, other, LOG_MAX).unwrap();
    assert!(found(&path, other).is_empty());
    log.append(b"same length").unwrap();
    assert_eq!(found(&path, other).len(), 1);
}

#[test]
fn the_file_grows_by_doubling_and_shrinks_when_it_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let length = || std::fs::metadata(&path).unwrap().len();
    let mut log = RedoLog::create(&path, AT, LOG_MAX).unwrap();
    assert_eq!(length(), LENGTH_MIN);
    while log.has_room(100_000) {
        log.append(&[0; 100_000]).unwrap();
    }
    assert_eq!((length(), found(&path, AT).len()), (LOG_MAX, 41));
    log.shrink().unwrap();
    assert_eq!(length(), LOG_MAX, "it is in use");
    log.restart(AT.next());
    log.shrink().unwrap();
    assert_eq!(length(), LENGTH_MIN);
    log.append(b"x").unwrap();
    assert_eq!(found(&path, AT.next()), [b"x"]);
}

#[test]
fn a_record_that_failed_may_be_there_and_is_not_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = RedoLog::create(&path, AT, LOG_MAX).unwrap();
    // takes every write and cannot be synchronised
    log.break_with(OpenOptions::new().write(true).open("/dev/null").unwrap());
    log.append(b"lost").unwrap_err();
    assert!(log.is_touched());
    log.break_with(OpenOptions::new().write(true).open("/dev/full").unwrap());
    assert_eq!(log.append(b"lost").unwrap_err().kind(), ErrorKind::StorageFull);
}
