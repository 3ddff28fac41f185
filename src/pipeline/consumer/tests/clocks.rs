//! A part whose machine has a wrong clock, by hands that the test moves: windows go on, each is reported once, and
//! every event is in exactly one row or counted.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::arrival::{ArrivalTime, Eras};
use crate::batch::{MessageMeta, RawEvent, Urgency};
use crate::engine::TimePolicies;
use crate::journal::{Append, Edge};
use crate::pipeline::clock_watch;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// What a query gives of one event a second.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// The first column says how many events a row is made of.
    Counts,
    /// Each event gives one row with its number.
    Each,
}

/// By arrival and by the event's own time.
const QUERIES: &[(&str, Shape)] = &[
    ("SELECT COUNT(*) AS c FROM a GROUP BY TumblingWindow(second, 10)", Shape::Counts),
    ("SELECT COUNT(*) AS c FROM a TIMESTAMP BY t GROUP BY TumblingWindow(second, 10)", Shape::Counts),
    ("SELECT COUNT(*) AS c FROM a GROUP BY SessionWindow(second, 3, 8)", Shape::Counts),
    ("SELECT COUNT(*) AS c FROM a TIMESTAMP BY t GROUP BY SessionWindow(second, 3, 8)", Shape::Counts),
    ("SELECT x.n AS n FROM a x JOIN a y ON x.n = y.n AND DATEDIFF(second, x, y) BETWEEN 0 AND 3", Shape::Each),
    (
        "SELECT x.n AS n FROM a x TIMESTAMP BY t JOIN a y TIMESTAMP BY t ON x.n = y.n AND DATEDIFF(second, x, y) \
         BETWEEN 0 AND 3",
        Shape::Each,
    ),
    ("SELECT n, LAG(n) OVER (LIMIT DURATION(second, 5)) AS l FROM a", Shape::Each),
    ("SELECT n, LAG(n) OVER (LIMIT DURATION(second, 5)) AS l FROM a TIMESTAMP BY t", Shape::Each),
];

/// A job of one statement on a machine with a wrong clock.
struct Machine {
    part: Part,
    policies: TimePolicies,
    /// What the machine tells.
    clock: Clock,
    journal: Journal,
    arrival: ArrivalClock,
    consumer: Consumer,
    commits: Commits,
    input: InputId,
    /// How far the wall clock is from the right time, in seconds.
    wrong: i64,
    sent: i64,
    /// Time and first columns of each row.
    rows: Vec<(Timestamp, Vec<Value>)>,
    dir: tempfile::TempDir,
}

fn journal(dir: &Path, clock: &Clock) -> Journal {
    let config = JournalConfig { clock: clock.clone(), ..JournalConfig::new(dir.join("pool.db")) };
    Journal::open(config).unwrap()
}

/// Windows are 10 s long, and events 5 s late.
const MARGIN: i64 = 15 * TICKS_PER_SECOND;

fn of_pool(journal: &Journal, clock: &Clock) -> ArrivalClock {
    ArrivalClock::of_pool(clock.clone(), journal.last_arrival(), Eras::clone(&journal.eras()), MARGIN)
}

/// What the job does each second.
fn look(journal: &Journal, arrival: &ArrivalClock) {
    if let Some(news) = clock_watch::look(arrival) {
        clock_watch::keep(journal, arrival, news).unwrap();
    }
}

impl Machine {
    /// The wall clock is wrong by so many seconds at the start of a new pool.
    fn new(query: &str, policies: TimePolicies, wrong: i64) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(at(START + wrong));
        let part = parts(query).remove(0);
        let journal = journal(dir.path(), &clock);
        let (input, into) = (journal.input("a").unwrap(), journal.stream("windows").unwrap());
        let arrival = of_pool(&journal, &clock);
        let consumer = consumer(&journal, &part, OnError::DeadLetter, StreamId::INPUTS, Sink::Stream(into), &clock);
        let commits = Commits::new(journal.clone(), Mark::default());
        let (sent, rows) = (0, Vec::new());
        let mut machine =
            Machine { part, policies, clock, journal, arrival, consumer, commits, input, wrong, sent, rows, dir };
        machine.begin();
        machine
    }

    /// As the start of a job does: state and position are those of the pool.
    fn begin(&mut self) {
        let options =
            ExecutorOptions { on_error: OnError::DeadLetter, policies: self.policies, ..ExecutorOptions::default() };
        let mut executor = Executor::new(&self.part, options, None).unwrap();
        let state = self.journal.load_state(self.consumer.flow.consumer).unwrap();
        executor.load_state(state.iter().map(|e| (e.op, e.key.as_slice(), e.value.as_slice()))).unwrap();
        self.consumer.feed.executor = executor;
        self.consumer.flow.arrival = self.arrival.clone();
        let spec = ConsumerSpec::new("statement windows", StreamId::INPUTS);
        let position = self.journal.register_consumer(spec).unwrap().position;
        self.consumer.reading = Reading::new(self.journal.reader(StreamId::INPUTS, position), Bound::records(10));
        self.consumer.position = position;
        self.consumer.due = SinceCommit::new(position, self.clock.monotonic());
    }

    /// The process is killed and starts again; what was not committed is lost.
    fn restart(&mut self) {
        self.commits.drain().unwrap();
        self.journal.close();
        self.journal = journal(self.dir.path(), &self.clock);
        self.arrival = of_pool(&self.journal, &self.clock);
        let into = self.journal.stream("windows").unwrap();
        let (part, sink) = (&self.part, Sink::Stream(into));
        self.consumer = consumer(&self.journal, part, OnError::DeadLetter, StreamId::INPUTS, sink, &self.clock);
        self.commits = Commits::new(self.journal.clone(), Mark::default());
        self.begin();
    }

    /// Somebody sets the clock.
    fn set_wrong(&mut self, wrong: i64) {
        self.clock.set(self.clock.now().saturating_add((wrong - self.wrong) * TICKS_PER_SECOND));
        self.wrong = wrong;
    }

    /// The right time.
    fn right(&self) -> Timestamp {
        self.clock.now().saturating_add(-self.wrong * TICKS_PER_SECOND)
    }

    /// One event of a device whose clock is right.
    fn send(&mut self) {
        let ArrivalTime { at: arrival, era, is_trusted } = self.arrival.now();
        let payload = Bytes::from(format!("{{\"n\":{},\"t\":\"{}\"}}", self.sent, self.right()));
        let message = MessageMeta { name: "t".into(), ..MessageMeta::default() };
        let message = Arc::new(if is_trusted { message } else { message.untimed() });
        let (done, stored) = channel();
        self.journal.append(Append {
            input: self.input,
            received: 1,
            events: vec![RawEvent { arrival, payload, message, mark: 0 }],
            undecodable: Vec::new(),
            dropped: Vec::new(),
            ledger: Vec::new(),
            era,
            urgency: Urgency::AtOnce,
            on_durable: Box::new(move |result| done.send(result).unwrap()),
        });
        self.journal.flush();
        stored.recv().unwrap().unwrap();
        self.sent += 1;
        self.round();
    }

    /// Nothing comes for as long as a read waits, and the clock is looked at.
    fn idle(&mut self) {
        look(&self.journal, &self.arrival);
        let records = Records::Events(Vec::new());
        let position = self.consumer.reading.position();
        self.consumer.unread.get_or_insert(Stretch { records, len: 0, position, others: 0, is_at_end: true });
        self.round();
    }

    fn round(&mut self) {
        let found = self.consumer.read().unwrap().unwrap();
        assert_eq!(self.consumer.work(found).unwrap(), Go::On);
        let Some(step) = self.consumer.due(false).unwrap() else { return };
        if let Some((_, rows)) = step.commit.as_ref().and_then(|commit| commit.emit.as_ref()) {
            self.rows.extend(rows.batch.rows().map(|(meta, row)| (meta.time, row.to_vec())));
        }
        self.commits.add(step).unwrap();
    }

    /// Lets seconds pass, with an event in the first half of each and none in the second.
    fn pass(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_millis(500));
            self.send();
            self.clock.advance(Duration::from_millis(500));
            self.idle();
        }
    }

    /// The same with an event every two seconds.
    fn pass_slowly(&mut self, seconds: i64) {
        for _ in 0..seconds / 2 {
            self.clock.advance(Duration::from_millis(1_000));
            self.send();
            self.clock.advance(Duration::from_millis(1_000));
            self.idle();
        }
    }

    /// How many events the early, the late and the out-of-order rule dropped.
    fn dropped(&mut self) -> BTreeMap<&'static str, u64> {
        self.commits.drain().unwrap();
        let ledger = self.journal.ledger();
        let of = |reason| ledger.iter().filter(move |(c, _)| c.edge == Edge::Statement && c.reason == reason);
        let sum = |reason| (reason, of(reason).map(|(_, n)| n).sum());
        ["early", "late", "out_of_order"].map(sum).into_iter().filter(|(_, n)| *n > 0).collect()
    }

    /// Events that are in rows, how many rows there are at most for one event or window end.
    fn reported(&self, shape: Shape) -> (i64, usize) {
        let int = |value: &Value| match value {
            Value::BigInt(n) => *n,
            other => panic!("{other:?} is no number"),
        };
        let mut times: BTreeMap<i64, usize> = BTreeMap::new();
        for (time, row) in &self.rows {
            *times.entry(if shape == Shape::Counts { time.ticks() } else { int(&row[0]) }).or_default() += 1;
        }
        let events = self.rows.iter().map(|(_, row)| if shape == Shape::Counts { int(&row[0]) } else { 1 }).sum();
        (events, times.values().copied().max().unwrap_or(0))
    }

    /// Closes what is open after the device has fallen silent, and checks that all is reported once.
    fn check(&mut self, shape: Shape, what: &str) {
        for _ in 0..60 {
            self.clock.advance(Duration::from_millis(500));
            self.idle();
        }
        let dropped = self.dropped();
        let (events, times) = self.reported(shape);
        assert_eq!(times, 1, "{what}: a window or an event is reported twice: {:?}", self.rows);
        // a join of an input with itself reads each event twice
        let gone = dropped.values().sum::<u64>() / self.part.root.scans().count() as u64;
        assert_eq!(events + gone as i64, self.sent, "{what}: events are missing or doubled; dropped: {dropped:?}");
    }

    /// Whether `System.Timestamp()` of the newest row is within some seconds of the right time.
    fn is_right_within(&self, seconds: i64) -> bool {
        let newest = self.rows.last().map_or(Timestamp::MIN, |(time, _)| *time);
        (newest.ticks() - self.right().ticks()).abs() <= seconds * TICKS_PER_SECOND
    }
}

/// A way that a clock goes wrong: how wrong it is at the start, then for how many seconds each wrong time lasts. After
/// the last one it is right for `then` seconds.
struct Story {
    name: &'static str,
    start: i64,
    steps: &'static [(i64, i64)],
    then: i64,
    /// Nothing tells that the clock is wrong, at least for a while: events whose own time is right are early or late.
    is_late: bool,
}

/// What is left of 1970 from the day of the tests.
const IN_1970: i64 = -1_777_629_000;

const STORIES: &[Story] = &[
    Story { name: "30 s ahead", start: 0, steps: &[(0, 30), (30, 60)], then: 120, is_late: true },
    Story { name: "30 s behind", start: 0, steps: &[(0, 30), (-30, 80), (0, 10)], then: 120, is_late: true },
    Story { name: "5 h ahead, soon back", start: 0, steps: &[(0, 30), (5 * HOUR, 40)], then: 120, is_late: true },
    Story { name: "5 h ahead, and back", start: 0, steps: &[(0, 30), (5 * HOUR, 100)], then: 120, is_late: true },
    Story { name: "5 h behind, and back", start: 0, steps: &[(0, 30), (-5 * HOUR, 50)], then: 120, is_late: false },
    Story { name: "5 h behind for long", start: 0, steps: &[(0, 30), (-5 * HOUR, 100)], then: 120, is_late: true },
    Story { name: "400 days ahead, soon back", start: 0, steps: &[(0, 30), (400 * DAY, 40)], then: 120, is_late: true },
    Story { name: "400 days ahead, and back", start: 0, steps: &[(0, 30), (400 * DAY, 100)], then: 120, is_late: true },
    Story { name: "into a used time", start: 0, steps: &[(0, 30), (400, 160)], then: 600, is_late: true },
    Story { name: "400 days ahead at first", start: 400 * DAY, steps: &[(400 * DAY, 60)], then: 120, is_late: true },
    Story { name: "1970, then right", start: IN_1970, steps: &[(IN_1970, 60)], then: 120, is_late: false },
    Story { name: "5 h behind at first", start: -5 * HOUR, steps: &[(-5 * HOUR, 60)], then: 120, is_late: true },
];

fn policies(adjust: bool) -> TimePolicies {
    TimePolicies { adjust, out_of_order: 0, ..TimePolicies::default() }
}

#[test]
fn by_arrival_windows_go_on_and_every_event_is_reported_once_whatever_the_clock_does() {
    tell_all(false);
}

#[test]
fn by_event_time_windows_go_on_and_every_event_is_reported_once_whatever_the_clock_does() {
    tell_all(true);
}

/// Runs all stories; each query with restarts in every other of them.
fn tell_all(timed: bool) {
    for (i, Story { name, start, steps, then, is_late }) in STORIES.iter().enumerate() {
        let queries = QUERIES.iter().filter(|(query, _)| query.contains("TIMESTAMP BY") == timed);
        for (j, (query, shape)) in queries.enumerate() {
            let restarts = (i + j) % 2 == 1;
            let what = format!("{name}, {query}, restarts: {restarts}");
            let may_be_late = *is_late && timed;
            let mut machine = Machine::new(query, policies((i + j / 2) % 2 == 1), *start);
            for (wrong, seconds) in *steps {
                machine.set_wrong(*wrong);
                let before = machine.rows.len();
                machine.pass_slowly(seconds / 2);
                if restarts {
                    machine.restart();
                }
                machine.pass_slowly(seconds - seconds / 2);
                let needed = usize::from(*seconds >= 20 && !(may_be_late && *wrong != 0));
                assert!(machine.rows.len() >= before + needed, "{what}: nothing came out at {wrong} s wrong");
            }
            machine.set_wrong(0);
            machine.pass_slowly(*then);
            assert!(machine.arrival.now().is_trusted, "{what}: {:?}", machine.arrival.status());
            assert!(machine.is_right_within(20), "{what}: {:?} at {}", machine.rows.last(), machine.right());
            machine.check(*shape, &what);
            let dropped = machine.dropped();
            assert!(
                dropped.is_empty() || may_be_late && dropped.keys().all(|reason| *reason != "out_of_order"),
                "{what}: {dropped:?}"
            );
        }
    }
}

#[test]
fn a_window_that_a_tick_closed_gets_no_row_more_after_a_start_with_an_earlier_clock() {
    for wrong in [-30, -5 * HOUR, IN_1970] {
        let mut machine = Machine::new(QUERIES[0].0, policies(false), 0);
        machine.pass(5);
        // what is in the file then has all events, and the tick comes later
        machine.restart();
        for _ in 0..10 {
            machine.clock.advance(Duration::from_millis(500));
            machine.idle();
        }
        // at 11 s the window up to 10 s is out, and the newest event is of 5.5 s
        assert_eq!(machine.rows, [(at(10), vec![Value::BigInt(5)])]);
        machine.set_wrong(wrong);
        machine.restart();
        assert!(!machine.arrival.now().is_trusted);
        machine.pass(50);
        machine.set_wrong(0);
        machine.pass(60);
        machine.check(Shape::Counts, &format!("{wrong} s"));
        assert!(machine.arrival.now().is_trusted && machine.is_right_within(40));
    }
}

/// A clock that stays ahead is taken after a minute. By then devices that are right are late: each is told.
#[test]
fn events_that_are_late_by_a_wrong_clock_are_counted() {
    let mut machine = Machine::new(QUERIES[1].0, policies(false), 0);
    machine.pass(30);
    machine.set_wrong(HOUR);
    machine.pass(59);
    assert!(machine.dropped().is_empty(), "the clock is not trusted yet");
    machine.pass(31);
    assert!(machine.arrival.now().is_trusted);
    let late = machine.dropped()["late"];
    assert!((29..=31).contains(&late), "{late}");
    machine.check(Shape::Counts, "1 h ahead");
}

/// A new pool, by a clock that nothing tells to be wrong: whoever is right is early. Behind the build date none is.
#[test]
fn nobody_is_early_by_a_clock_that_is_not_trusted() {
    for (wrong, early) in [(-HOUR, 5), (IN_1970, 0)] {
        let mut machine = Machine::new(QUERIES[1].0, policies(false), wrong);
        machine.pass(5);
        assert_eq!(machine.dropped().get("early").copied().unwrap_or(0), early, "{wrong} s");
    }
}

/// A pool of two events whose clock was a year ahead: arrival time was set back behind them.
fn set_back(journal: &Journal) {
    let year = 365 * DAY * TICKS_PER_SECOND;
    let clock = Clock::manual(at(0).saturating_add(year));
    let arrival = ArrivalClock::new(clock.clone(), Timestamp::MIN);
    let input = journal.input("a").unwrap();
    store_each(journal, input, clock.now(), vec![Bytes::from_static(b"{}"); 2]);
    clock.set(at(0));
    arrival.now();
    clock.advance(Duration::from_secs(60));
    look(journal, &arrival);
    assert_eq!((arrival.now().era, arrival.now().at), (1, at(60)));
}

#[test]
fn a_part_behind_a_stream_begins_anew_with_the_first_row_of_an_era_or_by_the_mark() {
    for by_row in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(at(0));
        let journal = journal(dir.path(), &clock);
        set_back(&journal);
        let (from, into) = (journal.stream("answers").unwrap(), journal.stream("windows").unwrap());
        let scoring = journal.register_consumer(ConsumerSpec::new("scoring", StreamId::INPUTS)).unwrap().id;
        let answer = |offset: i64, second: i64| {
            let mut rows = rows(&[second]);
            rows.batch.meta_mut()[0].offset = offset;
            let commit = Commit { emit: Some((from, rows)), ..Commit::at(scoring, 0) };
            journal.commit(commit).wait().unwrap();
        };
        let parts = parts(
            "WITH s AS (SELECT udf.score(v) AS p FROM a) SELECT SUM(p) AS n FROM s GROUP BY TumblingWindow(second, 10)",
        );
        let part = parts.last().unwrap();
        let mut consumer = consumer(&journal, part, OnError::Stop, from, Sink::Stream(into), &clock);
        consumer.upstream = Some(Mark::default());
        let mut round = |era: u32, second: i64| -> Vec<(Timestamp, Value)> {
            consumer.upstream.as_ref().unwrap().set(Some(EraTime { era, time: at(second) }));
            let found = consumer.read().unwrap().unwrap();
            assert_eq!(consumer.work(found).unwrap(), Go::On);
            let step = consumer.due(false).unwrap().and_then(|step| step.commit).and_then(|commit| commit.emit);
            step.map_or_else(Vec::new, |(_, r)| r.batch.rows().map(|(m, row)| (m.time, row[0].clone())).collect())
        };
        let window = |second| vec![(at(second), Value::BigInt(1))];
        answer(0, 1_001);
        assert_eq!(round(0, 1_001), [], "the window is open");
        if by_row {
            answer(2, 61);
        }
        assert_eq!(round(1, 61), window(1_010), "what was before closes");
        if !by_row {
            answer(2, 61);
            assert_eq!(round(1, 61), []);
        }
        assert_eq!(round(1, 75), window(70), "and what comes then is of its own time");
    }
}
