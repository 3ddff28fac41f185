//! What a job does to its pool, in one thread: events in, a statement with state and rows, an output, one that is slow.
//!
//! In: a pool, a seed, how many steps. Out: notes of what was asked for and of what the journal said is durable, in the
//! order in which that happened. Invariant: an event's payload follows from its number alone, and what a consumer has
//! stored from the events that it has read, so that anybody can tell what is right.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay::batch::{Batch, Column, RawEvent, RowMeta, Rows, Urgency};
use forebay::journal::*;
use forebay::time::{Clock, Timestamp};
use forebay::value::Value;

/// An answer that takes longer never comes.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// The state of the consumer `sum` has one row.
pub const SUM: (u32, &[u8]) = (7, b"sum");
/// Of as many events one has a dead letter, in the commit that passes it.
pub const LETTER_EVERY: u64 = 13;

/// Small, so that all that depends on sizes happens soon.
pub fn config(path: PathBuf) -> JournalConfig {
    JournalConfig {
        max_bytes: 4 << 20,
        clock: Clock::manual(at(0)),
        commit_interval: Duration::from_millis(1),
        commit_interval_min: Duration::from_millis(1),
        write_budget: None,
        recent_records: 40,
        ..JournalConfig::new(path)
    }
}

pub fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_700_000_000_000 + ms)
}

/// The payload of event `n`: mostly small, now and then as large as a segment that is not merged.
pub fn payload(n: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(n);
    let length = match rng.u32(0..100) {
        0..2 => rng.usize(70_000..100_000),
        2..12 => rng.usize(2_000..9_000),
        _ => rng.usize(0..400),
    };
    let letter = rng.lowercase();
    let text: String = (0..length).map(|i| if i % 11 == 0 { rng.lowercase() } else { letter }).collect();
    format!("{{\"n\":{n},\"text\":\"{text}\"}}").into_bytes()
}

/// The number that a payload begins with.
pub fn number_of(payload: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(payload).ok()?;
    text.strip_prefix("{\"n\":")?.split_once(',')?.0.parse().ok()
}

/// The row that event `n` at an offset gives.
pub fn row_of(n: u64) -> [Value; 2] {
    [Value::BigInt(n as i64), Value::text(format!("row of {n}"))]
}

pub fn has_letter(n: u64) -> bool {
    n.is_multiple_of(LETTER_EVERY)
}

/// What the consumer `sum` knows: how many events it has read, the sum of their numbers, and its dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub events: u64,
    pub total: u64,
    pub letters: u64,
}

impl Sum {
    pub fn add(&mut self, n: u64) {
        self.events += 1;
        self.total += n;
        self.letters += u64::from(has_letter(n));
    }

    fn bytes(self) -> Vec<u8> {
        format!("{} {} {}", self.events, self.total, self.letters).into_bytes()
    }

    /// Of the state as it was loaded.
    ///
    /// # Errors
    /// It is not what was stored.
    pub fn read(state: &[StateEntry]) -> Result<Sum, String> {
        let Some(entry) = state.first() else { return Ok(Sum::default()) };
        let text = std::str::from_utf8(&entry.value).map_err(|e| e.to_string())?;
        let numbers: Vec<u64> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
        match (numbers.as_slice(), state.len(), (entry.op, entry.key.as_slice()) == SUM) {
            ([events, total, letters], 1, true) => Ok(Sum { events: *events, total: *total, letters: *letters }),
            _ => Err(format!("the state is {state:?}")),
        }
    }
}

/// Where the shim takes notes from.
#[derive(Clone)]
struct Notes(Arc<Mutex<File>>);

impl Notes {
    fn to(&self, line: String) {
        // one call: a note is whole
        self.0.lock().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// How far a run goes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub steps: usize,
    /// The number of its first event: no other run on this pool had it.
    pub first: u64,
    /// How long it waits for a disk that is full.
    pub patience: Duration,
    pub closes: bool,
}

/// Why a run ended.
#[derive(Debug)]
enum Ended {
    Well,
    /// The journal refused, with this reason.
    Refused(String),
}

/// A pool, its consumers and what they have done.
struct Run {
    journal: Journal,
    input: InputId,
    out: StreamId,
    notes: Notes,
    plan: Plan,
    next: u64,
    sum: (ConsumerInfo, Sum, Reader),
    deliver: (ConsumerInfo, i64),
    slow: (ConsumerInfo, i64),
}

/// Opens the pool as [`run`] does.
pub struct Opened {
    pub journal: Journal,
    pub input: InputId,
    pub out: StreamId,
    pub sum: ConsumerInfo,
    pub deliver: ConsumerInfo,
    pub slow: ConsumerInfo,
}

impl Opened {
    pub fn open(path: &Path) -> Result<Opened, JournalError> {
        Opened::of(Journal::open(config(path.to_owned()))?)
    }

    fn of(journal: Journal) -> Result<Opened, JournalError> {
        let (input, out) = (journal.input("rides")?, journal.stream("out")?);
        let consumer = |name: &str, stream| {
            journal.register_consumer(ConsumerSpec { fingerprint: "1".into(), ..ConsumerSpec::new(name, stream) })
        };
        let (sum, slow) = (consumer("sum", StreamId::INPUTS)?, consumer("slow", StreamId::INPUTS)?);
        let deliver = consumer("deliver", out)?;
        journal.keep_only_consumers(&["sum".into(), "slow".into(), "deliver".into()])?;
        Ok(Opened { journal, input, out, sum, deliver, slow })
    }
}

/// Ends the process, as a kill does, where the disk stays full: whoever asks the journal for something waits for it.
fn watch(journal: Journal, plan: Plan, notes: Notes) {
    std::thread::spawn(move || {
        let mut room = Instant::now();
        while room.elapsed() < plan.patience {
            std::thread::sleep(Duration::from_millis(20));
            if !journal.is_disk_full() {
                room = Instant::now();
            }
        }
        notes.to("full".into());
        std::process::exit(0);
    });
}

/// Does all steps of a plan.
fn run(path: &Path, plan: Plan, notes: Notes) -> Ended {
    let journal = Journal::open(config(path.to_owned())).inspect(|journal| watch(journal.clone(), plan, notes.clone()));
    let begun = journal.and_then(Opened::of).map_err(|e| e.to_string()).and_then(|opened| {
        let state = opened.journal.load_state(opened.sum.id).map_err(|e| e.to_string())?;
        Ok((Sum::read(&state)?, opened))
    });
    let (sum, Opened { journal, input, out, sum: info, deliver, slow }) = match begun {
        Ok(begun) => begun,
        Err(why) => {
            notes.to(format!("refused {why}"));
            return Ended::Refused(why);
        }
    };
    notes.to(format!("opened {}", journal.alarm().unwrap_or_default()));
    let from = info.position.min(slow.position);
    let mut all = journal.reader(StreamId::INPUTS, from);
    while let Ok(Read::Events(slice)) = all.next(1000, Instant::now()) {
        slice.iter().for_each(|e| notes.to(format!("found {} {}", number_of(e.payload).unwrap_or(u64::MAX), e.offset)));
    }
    let reader = journal.reader(StreamId::INPUTS, info.position).of(info.id);
    let (deliver_at, slow_at) = (deliver.position, slow.position);
    let mut run = Run {
        journal,
        input,
        out,
        notes: notes.clone(),
        plan,
        next: plan.first,
        sum: (info, sum, reader),
        deliver: (deliver, deliver_at),
        slow: (slow, slow_at),
    };
    let ended = run.all_steps();
    match &ended {
        Ended::Well if plan.closes => {
            run.journal.close();
            notes.to("closed".into());
        }
        Ended::Well => notes.to("done".into()),
        Ended::Refused(why) => notes.to(format!("refused {why}")),
    }
    if !plan.closes {
        // as a process that is killed leaves it
        std::mem::forget(run);
    }
    ended
}

impl Run {
    fn all_steps(&mut self) -> Ended {
        let mut rng = fastrand::Rng::with_seed(self.plan.seed);
        for _ in 0..self.plan.steps {
            let done = match rng.u8(0..20) {
                0..9 => self.append(rng.u64(1..6)),
                9 => self.append(rng.u64(20..60)),
                10..14 => self.read_and_sum(rng.usize(1..40)),
                14..16 => self.deliver(),
                16 => self.go_slowly(rng.i64(1..60)),
                // the file takes over what the log holds
                _ => self.journal.sync().map_err(|e| Ended::Refused(e.to_string())),
            };
            if let Err(ended) = done {
                return ended;
            }
        }
        Ended::Well
    }

    /// What the journal answers, within the time that this may take.
    fn answer<T>(&self, answers: &Receiver<Result<T, JournalError>>) -> Result<T, Ended> {
        let begun = Instant::now();
        loop {
            match answers.recv_timeout(Duration::from_millis(20)) {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => return Err(Ended::Refused(error.to_string())),
                Err(_) => assert!(begun.elapsed() < ANSWER_MAX, "nothing was answered within {ANSWER_MAX:?}"),
            }
        }
    }

    fn append(&mut self, count: u64) -> Result<(), Ended> {
        let numbers: Range<u64> = self.next..self.next + count;
        self.next = numbers.end;
        self.notes.to(format!("append {} {count}", numbers.start));
        let event = |n: u64| RawEvent {
            arrival: at(n as i64),
            payload: Bytes::from(payload(n)),
            message: Arc::default(),
            mark: n + 1,
        };
        let (done, answers) = channel();
        let (notes, first) = (self.notes.clone(), numbers.start);
        self.journal.append(Append {
            input: self.input,
            events: numbers.map(event).collect(),
            received: count,
            undecodable: Vec::new(),
            dropped: Vec::new(),
            ledger: Vec::new(),
            era: 0,
            urgency: Urgency::AtOnce,
            on_durable: Box::new(move |stored: Result<Range<i64>, JournalError>| {
                if let Ok(offsets) = &stored {
                    notes.to(format!("stored {first} {} {}", offsets.end - offsets.start, offsets.start));
                }
                let _ = done.send(stored);
            }),
        });
        self.answer(&answers).map(drop)
    }

    fn commit(&self, name: &'static str, commit: Commit) -> Result<(), Ended> {
        let (done, answers) = channel();
        let (notes, position, can_wait) = (self.notes.clone(), commit.position, commit.can_wait);
        self.notes.to(format!("commit {name} {position}"));
        let told = move |result: Result<(), JournalError>| {
            if result.is_ok() {
                notes.to(format!("committed {name} {position}"));
            }
            let _ = done.send(result);
        };
        self.journal.commit_then(commit, Box::new(told));
        // nobody waits for a commit that can wait
        if can_wait { Ok(()) } else { self.answer(&answers) }
    }

    /// The statement: a row for each event, the state that follows from all of them, and dead letters of some.
    fn read_and_sum(&mut self, max: usize) -> Result<(), Ended> {
        let mut batch = Batch::new(2);
        let mut letters = Vec::new();
        let (info, sum, reader) = &mut self.sum;
        let read = match reader.next(max, Instant::now()) {
            Ok(Read::Events(slice)) => slice,
            Ok(_) => return Ok(()),
            Err(error) => return Err(Ended::Refused(error.to_string())),
        };
        for event in read.iter() {
            let n = number_of(event.payload).unwrap_or(u64::MAX);
            sum.add(n);
            batch.push(RowMeta::new(at(n as i64), at(n as i64), event.offset, 0), row_of(n));
            letters.extend(has_letter(n).then(|| DeadLetter {
                stage: "statement sum".into(),
                reason: "test".into(),
                offset: Some(event.offset),
                payload: event.payload.to_vec(),
                ..DeadLetter::default()
            }));
        }
        let column = |name: &str| Column { name: name.into(), spread: false };
        let rows = Rows { columns: [column("n"), column("text")].into(), batch };
        let change = StateChange { op: SUM.0, key: SUM.1.to_vec(), value: Some(sum.bytes()) };
        let commit = Commit {
            state: vec![change],
            emit: Some((self.out, rows)),
            dead_letters: letters,
            ..Commit::at(info.id, reader.position())
        };
        self.commit("sum", commit)
    }

    fn deliver(&mut self) -> Result<(), Ended> {
        let end = self.journal.ends(self.out).1;
        if end > self.deliver.1 {
            self.deliver.1 = end;
            self.commit("deliver", Commit { can_wait: true, ..Commit::at(self.deliver.0.id, end) })?;
        }
        Ok(())
    }

    fn go_slowly(&mut self, records: i64) -> Result<(), Ended> {
        let to = (self.slow.1 + records).min(self.journal.ends(StreamId::INPUTS).1);
        self.slow.1 = to;
        self.commit("slow", Commit::at(self.slow.0.id, to))
    }
}

/// A word of the environment that the tests give.
fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is missing: the tests of this folder start this one"))
}

#[test]
#[ignore = "it is the process that the other tests of this folder start, under the shim"]
fn a_pool_under_the_shim() {
    let number = |name: &str| given(name).parse::<u64>().expect("a number");
    let plan = Plan {
        seed: number("FOREBAY_WORKLOAD_SEED"),
        steps: number("FOREBAY_WORKLOAD_STEPS") as usize,
        first: number("FOREBAY_WORKLOAD_FIRST"),
        patience: Duration::from_millis(number("FOREBAY_WORKLOAD_PATIENCE_MS")),
        closes: number("FOREBAY_WORKLOAD_CLOSES") == 1,
    };
    let notes = given("FOREBAY_DISK_NOTES");
    let notes = OpenOptions::new().create(true).append(true).open(notes).expect("the notes");
    let path = Path::new(&given("FOREBAY_DISK_FOLDER")).join("job.db");
    run(&path, plan, Notes(Arc::new(Mutex::new(notes))));
    // threads that the pool has left end here
    std::process::exit(0);
}
