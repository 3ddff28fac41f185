//! Bits that turn while nobody looks: in the file's pages, the logs and the mark beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::disk::{Call, Shim, copy_folder, plan, scratch};
use super::judge::{Found, Known, Trust, judge};
use super::workload::Plan;
use super::{Tally, each_of, repeat_with, seed, times};

const STEPS: usize = 200;
/// A page of SQLite's file.
const PAGE: usize = 4096;
/// Nothing here takes long: what takes longer does not end.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// A pool as a process left it, and what that process was told.
struct Left {
    folder: tempfile::TempDir,
    known: Known,
    how: &'static str,
}

impl Left {
    fn make(shim: &Shim, seed: u64, how: &'static str) -> Left {
        let watched = shim.disk();
        watched.run(Plan { closes: how == "closed", ..plan(seed, STEPS, 0) }, None);
        let trace = watched.trace();
        let notes = trace.calls.iter().filter_map(|call| match call {
            Call::Note(note) => Some(note.as_str()),
            _ => None,
        });
        let known = Known::of(notes);
        let folder = tempfile::tempdir_in(scratch()).expect("a folder");
        copy_folder(&watched.folder(), folder.path());
        // SQLite's memory: made anew at each start
        let _ = fs::remove_file(folder.path().join("job.db-shm"));
        Left { folder, known, how }
    }
}

/// Bits to turn, in one file.
#[derive(Clone, Debug)]
struct Turned {
    of: usize,
    file: &'static str,
    /// Byte and bit.
    bits: Vec<(usize, u8)>,
}

/// Tables that fit a page or two, each of which counts: among random pages they are hardly ever met.
const BOOKS: [&str; 7] = ["consumer", "stream", "state", "ledger", "meta", "input", "dead_letter"];

/// Where the rows of a small table lie in a file that was closed: the used end of the page that it begins with.
fn rows_of(db: &Path, table: &str) -> Range<usize> {
    let schema = rusqlite::Connection::open(db).expect("a pool");
    let sql = "SELECT rootpage FROM sqlite_master WHERE type = 'table' AND name = ?1";
    let page: usize = schema.query_row(sql, [table], |row| row.get::<_, i64>(0)).expect("a table") as usize - 1;
    drop(schema);
    let bytes = fs::read(db).expect("a file");
    let head = &bytes[page * PAGE..];
    // bytes 5 and 6 of a page tell where its content begins
    let begin = usize::from(u16::from_be_bytes([head[5], head[6]]));
    page * PAGE + begin..(page + 1) * PAGE
}

const FILES: [&str; 4] = ["job.db", "job.db-wal", "job.db-redo", "job.db-high-water"];

fn draw(left: &[Left], rng: &mut fastrand::Rng) -> Turned {
    loop {
        let of = rng.usize(0..left.len());
        // pages and segments first, but the others too
        let file = FILES[[0, 0, 0, 0, 0, 1, 2, 2, 2, 3][rng.usize(0..10)]];
        let length = fs::metadata(left[of].folder.path().join(file)).map_or(0, |file| file.len() as usize);
        if length == 0 {
            continue;
        }
        // few bits side by side are what a worn cell gives, and many a page that went wrong
        let page = rng.usize(0..length.div_ceil(PAGE)) * PAGE;
        let within = page..length.min(page + PAGE);
        // heads of pages are small, and what follows from them is large
        let within = match rng.u8(0..4) {
            0 => within.start..within.end.min(within.start + 64),
            1 | 2 if file == FILES[0] && left[of].how == "closed" => {
                rows_of(&left[of].folder.path().join(file), BOOKS[rng.usize(0..BOOKS.len())])
            }
            _ => within,
        };
        let count = [1, 1, 1, 2, 4, 8, 64][rng.usize(0..7)];
        let bits = (0..count).map(|_| (rng.usize(within.clone()), rng.u8(0..8))).collect();
        return Turned { of, file, bits };
    }
}

/// Turns the bits and has everything read.
fn turn(left: &[Left], turned: &Turned) -> Result<Found, String> {
    let Left { folder, known, how } = &left[turned.of];
    let copy = tempfile::tempdir_in(scratch()).expect("a folder");
    copy_folder(folder.path(), copy.path());
    let path = copy.path().join(turned.file);
    let mut bytes = fs::read(&path).expect("a file");
    turned.bits.iter().for_each(|(at, bit)| bytes[*at] ^= 1 << bit);
    fs::write(&path, bytes).expect("a file");
    let told = |why: String| format!("{why}\n  in a pool that was {how}, bits of {}: {:?}", turned.file, turned.bits);
    let found = within_time(copy.path(), known).map_err(told)?;
    if !found.silent.is_empty() {
        let (first, missing) = (found.silent[0], found.silent.len());
        return Err(told(format!("{missing} events are missing in silence, the first at {first}")));
    }
    if let Some(why) = &found.refused
        && !helps(why)
    {
        return Err(told(format!("the start refuses without a remedy: {why}")));
    }
    Ok(found)
}

/// Whether a refusal says what to do.
fn helps(why: &str) -> bool {
    let remedies = [
        "on_damage = \"fresh\"",
        "move it and the files beside it",
        "journal reset-state",
        "journal verify",
        "run it with",
    ];
    remedies.iter().any(|remedy| why.contains(remedy))
}

fn within_time(folder: &Path, known: &Known) -> Result<Found, String> {
    let (done, judged) = sync_channel(1);
    let (path, known) = (folder.to_owned(), known.clone());
    let judging = std::thread::spawn(move || {
        let judged = catch_unwind(AssertUnwindSafe(|| judge(&path, &known, Trust::Broken)));
        let _ = done.send(judged);
    });
    match judged.recv_timeout(ENDS_WITHIN) {
        Ok(Ok(found)) => {
            judging.join().expect("it caught its panics");
            found
        }
        Ok(Err(_)) => Err("it panicked".to_owned()),
        Err(_) => Err(format!("it did not end within {ENDS_WITHIN:?}")),
    }
}

#[test]
fn a_bit_that_turns_never_gives_a_wrong_row_and_no_loss_is_silent() {
    let (sample, seed) = (times("FOREBAY_TORTURE_BITS", 300), seed());
    let _told = repeat_with(seed, "FOREBAY_TORTURE_BITS", sample, "torture::bits");
    let shim = Shim::build();
    let left = ["closed", "killed"].map(|how| Left::make(&shim, seed, how));
    let mut rng = fastrand::Rng::with_seed(seed);
    let all: Vec<Turned> = (0..sample).map(|_| draw(&left, &mut rng)).collect();
    let found = each_of(&all, |turned| turn(&left, turned));
    let count = |of: fn(&Found) -> bool| found.iter().filter(|found| of(found)).count();
    let (refused, lost) = (count(|f| f.refused.is_some()), count(|f| f.told > 0));
    let by_verify = count(|f| f.by_verify.is_some());
    let told: usize = found.iter().map(|found| found.told).sum();
    assert!(refused > 0 && lost > 0, "{refused} refused, {lost} with a loss: these bits show little");
    let mut files: BTreeMap<&str, usize> = BTreeMap::new();
    all.iter().for_each(|turned| *files.entry(turned.file).or_default() += 1);
    let by_verify_alone: BTreeSet<&String> = found.iter().filter_map(|found| found.by_verify.as_ref()).collect();
    println!("{files:?}, by `verify` alone: {by_verify_alone:?}");
    Tally::new("bits turn in the file, the logs, the mark").tried(sample, "pools").found(format!(
        "no wrong row; {lost} pools with {told} events lost, counted and told; {refused} starts refused with the \
         remedy; {by_verify} times positions or state were wrong and `verify` says so"
    ));
}
