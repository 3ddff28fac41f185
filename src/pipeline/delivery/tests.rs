//! A deliverer by hand, by a clock that the test moves: what it gives its output and what it commits, and when.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::batch::RawEvent;
use crate::connections::Connections;
use crate::engine::{Executor, ExecutorOptions, OnError};
use crate::journal::{ConsumerSpec, InputId, Journal, JournalConfig, StreamId};
use crate::output::{CountedOutput, Delivering, Fill, Output, OutputSettings, RowIds, Site, ToldColumns};
use crate::pipeline::reading::{Bound, Events};
use crate::pipeline::stop::Stop;
use crate::pipeline::tables::Tables;
use crate::query::catalog::{Catalog, InputDef, InputKind};
use crate::time::{Clock, Timestamp};
use crate::value::Value;

/// An output that answers by a script, and delivers behind its end.
#[derive(Clone, Debug, Default)]
struct Script(Arc<Mutex<Written>>);

#[derive(Debug, Default)]
struct Written {
    answers: VecDeque<Delivery>,
    /// The numbers of each batch that it was given.
    given: Vec<Vec<i64>>,
    /// Set when it is given rows.
    stops: Option<Stop>,
}

impl Script {
    fn written(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap()
    }
}

impl std::fmt::Display for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the script")
    }
}

impl Output for Script {
    fn deliver<'a>(&'a mut self, rows: &'a Rows, _: RowIds<'a>) -> Delivering<'a> {
        let number = |value: &Value| if let Value::BigInt(n) = value { *n } else { panic!("{value:?}") };
        let mut written = self.written();
        written.given.push(rows.batch.rows().map(|(_, row)| number(&row[0])).collect());
        if let Some(stop) = &written.stops {
            stop.set();
        }
        Box::pin(std::future::ready(written.answers.pop_front().unwrap_or(Delivery::Delivered)))
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

static TOLD: ToldColumns = ToldColumns { row_id: None, scored_by: None, revision: None };

impl OutputSettings for Script {
    fn told(&self) -> &ToldColumns {
        &TOLD
    }

    fn build(&self, _: Site<'_>) -> Result<Box<dyn Output>, String> {
        Ok(Box::new(self.clone()))
    }
}

/// What comes.
enum Event {
    /// Numbers, one a record; one that is no number fails.
    Read(&'static [&'static str]),
    /// Nothing, for as long as a read waits.
    Idle,
    /// The output answers its next deliveries so.
    Answers(Vec<Delivery>),
    /// The job is to stop.
    Stop,
    /// The job is to stop when the output is given rows next.
    StopsThen,
}

/// What a round gave.
#[derive(Debug, Default, PartialEq)]
struct Gave {
    given: Vec<Vec<i64>>,
    /// Position and dead letters of the commit.
    commit: Option<(i64, usize)>,
    end: Option<&'static str>,
}

fn gave(given: &[&[i64]], commit: Option<(i64, usize)>) -> Gave {
    Gave { given: given.iter().map(|batch| batch.to_vec()).collect(), commit, end: None }
}

struct Bench {
    deliverer: Deliverer,
    script: Script,
    clock: Clock,
    stop: Stop,
    at: i64,
    _runtime: tokio::runtime::Runtime,
    _journal: Journal,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(fill: Fill, on_error: OnError) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(JournalConfig::new(dir.path().join("pool.db"))).unwrap();
        let spec = ConsumerSpec::new("statement out", StreamId::INPUTS);
        let consumer = journal.register_consumer(spec).unwrap().id;
        let catalog = Catalog {
            inputs: vec![InputDef { name: "a".to_owned(), kind: InputKind::Stream }],
            outputs: None,
            functions: Vec::new(),
        };
        let plan = crate::query::compile("SELECT CAST(n AS bigint) AS n FROM a WHERE n <> 'out'", "q", &catalog);
        let plan = plan.unwrap_or_else(|e| panic!("{e}"));
        let part = plan.statements[0].parts.first().unwrap();
        let options = ExecutorOptions { on_error, ..ExecutorOptions::default() };
        let executor = Executor::new(part, options, None).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let script = Script::default();
        let output = CountedOutput::build(
            &script,
            "job",
            &|_| Err("it has no name".to_owned()),
            &Connections::default(),
            Clock::Real,
        )
        .unwrap();
        let _entered = runtime.enter();
        let (output, _) = OutputHandle::spawn(
            "out".into(),
            fill,
            output,
            crate::pipeline::outputs::PoolIds::default(),
            CancellationToken::new(),
        );
        let (clock, stop) = (Clock::manual(Timestamp::MIN), Stop::default());
        let deliverer = Deliverer {
            flow: Flow {
                consumer,
                consumer_name: "statement out".into(),
                statement: "out".into(),
                columns: part.columns.clone(),
                query_version: SmolStr::default(),
                stop: stop.clone(),
                clock: clock.clone(),
                arrival: crate::arrival::ArrivalClock::new(clock.clone(), Timestamp::MIN),
                failures: crate::pipeline::failures::Failures::default(),
                is_driven: false,
            },
            reading: Reading::new(journal.reader(StreamId::INPUTS, 0), Bound::records(10)),
            feed: Some(Feed {
                executor,
                inputs: vec![(InputId(0), "a".into())],
                aside: Default::default(),
                columns: None,
                refused: None,
                tables: Tables::new(&[], Default::default()),
                journal: journal.clone(),
                pushed: false,
                left_out: 0,
            }),
            output,
            statement: "out".into(),
            scorers: None,
            backoff: Backoff { base: Duration::ZERO, cap: Duration::ZERO },
            held: 0,
            gathering: Gathering::new(fill),
            stride: RECORDS_MAX,
            pending: Uncommitted::at(0),
            due: SinceCommit::new(0, clock.monotonic()),
            stopped: None,
            held_back: None,
        };
        Bench { deliverer, script, clock, stop, at: 0, _runtime: runtime, _journal: journal, _dir: dir }
    }

    /// One round of the part's loop.
    fn round(&mut self, event: Event) -> Gave {
        let records = match event {
            Event::Read(records) => records,
            Event::Idle => &[],
            Event::Answers(answers) => {
                self.script.written().answers.extend(answers);
                &[]
            }
            Event::Stop => {
                self.stop.set();
                &[]
            }
            Event::StopsThen => {
                self.script.written().stops = Some(self.stop.clone());
                &[]
            }
        };
        let events = records.iter().map(|number| RawEvent {
            arrival: Timestamp::MIN,
            payload: Bytes::from(format!("{{\"n\":\"{number}\"}}")),
            message: Arc::default(),
            mark: 0,
        });
        let (first, end) = (self.at, self.at + records.len() as i64);
        let run = Events { input: 0, offsets: (first..end).collect(), events: events.collect() };
        self.at = end;
        let stretch = Stretch {
            records: Records::Events(vec![run]),
            len: records.len(),
            position: self.at,
            others: 0,
            is_at_end: true,
        };
        let ends = |gave: Gave, end| Gave { end: Some(end), ..gave };
        // what a read answers without the journal
        let found = match self.deliverer.stopped.is_some() || self.stop.is_set() {
            true => match self.deliverer.read() {
                Err(PipelineError::StatementStopped { .. }) => return ends(Gave::default(), "stopped"),
                Ok(None) => {
                    let commit = self.committed(true);
                    return ends(Gave { commit, ..Gave::default() }, "ended");
                }
                found => found.unwrap().unwrap(),
            },
            false => stretch,
        };
        let go = match self.deliverer.work(found) {
            Ok(go) => go,
            Err(PipelineError::Output { .. }) => return ends(self.given(None), "gone"),
            Err(error) => panic!("{error}"),
        };
        let commit = self.committed(go == Go::Stop);
        let gave = self.given(commit);
        if go == Go::Stop { ends(gave, "ended") } else { gave }
    }

    fn committed(&mut self, at_end: bool) -> Option<(i64, usize)> {
        let commit = self.deliverer.due(at_end).unwrap()?.commit.unwrap();
        Some((commit.position, commit.dead_letters.len()))
    }

    fn given(&self, commit: Option<(i64, usize)>) -> Gave {
        Gave { given: std::mem::take(&mut self.script.written().given), commit, end: None }
    }

    /// Runs a table of milliseconds, what comes then, and what it gives.
    fn run(&mut self, table: impl IntoIterator<Item = (u64, Event, Gave)>) {
        let mut before = 0;
        for (i, (millis, event, want)) in table.into_iter().enumerate() {
            self.clock.advance(Duration::from_millis(millis - before));
            before = millis;
            assert_eq!(self.round(event), want, "line {i}, at {millis} ms");
        }
    }
}

use Event::{Answers, Idle, Read, Stop as StopNow, StopsThen};

const AT_ONCE: Fill = Fill { rows: 0, time: Duration::ZERO };
const SECOND: Fill = Fill { rows: 3, time: Duration::from_secs(1) };

fn nothing() -> Gave {
    Gave::default()
}

fn end(end: &'static str, gave: Gave) -> Gave {
    Gave { end: Some(end), ..gave }
}

#[test]
fn rows_are_delivered_at_once_and_the_position_moves_behind_them() {
    let try_again = || Delivery::try_again("busy");
    let rejected = Delivery::Rejected { rows: vec![(1, "too large".to_owned())] };
    Bench::new(AT_ONCE, OnError::DeadLetter).run([
        (0, Idle, nothing()),
        (0, Read(&["1", "2"]), gave(&[&[1, 2]], Some((2, 0)))),
        // what gives no rows is committed after a second, or with rows
        (100, Read(&["out"]), nothing()),
        (999, Idle, nothing()),
        (1_000, Idle, gave(&[], Some((3, 0)))),
        (1_200, Read(&["out"]), nothing()),
        (1_300, Read(&["5"]), gave(&[&[5]], Some((5, 0)))),
        // failures are as urgent as rows
        (1_300, Read(&["x"]), gave(&[], Some((6, 1)))),
        (1_300, Answers(vec![try_again(), try_again(), rejected]), nothing()),
        (1_300, Read(&["7", "8"]), gave(&[&[7, 8], &[7, 8], &[7, 8]], Some((8, 1)))),
        (9_000, Idle, nothing()),
        (9_000, Answers(vec![Delivery::Gone { reason: "closed".to_owned() }]), nothing()),
        (9_000, Read(&["9"]), end("gone", gave(&[&[9]], None))),
    ]);
}

#[test]
fn rows_that_wait_for_others_hold_the_position() {
    Bench::new(SECOND, OnError::DeadLetter).run([
        (0, Read(&["1"]), nothing()),
        (500, Read(&["x"]), nothing()),
        (999, Idle, nothing()),
        (1_000, Idle, gave(&[&[1]], Some((2, 1)))),
        (5_000, Read(&["3"]), nothing()),
        (5_100, Read(&["4", "5"]), gave(&[&[3, 4, 5]], Some((5, 0)))),
        (5_200, Read(&["6"]), nothing()),
        (5_300, StopNow, gave(&[&[6]], Some((6, 0)))),
        (5_300, Idle, end("ended", nothing())),
    ]);
}

#[test]
fn what_is_set_aside_and_counted_while_rows_wait_is_bounded() {
    let mut bench = Bench::new(Fill { rows: 3, time: Duration::from_secs(60) }, OnError::DeadLetter);
    assert_eq!(bench.round(Read(&["1"])), nothing());
    // counters of many reads are summed up
    (0..100).for_each(|_| assert_eq!(bench.round(Read(&["out"])), nothing()));
    assert!(bench.deliverer.pending.ledger.len() <= 5, "{:?}", bench.deliverer.pending.ledger);
    let many: &[&str] = vec!["x"; 500].leak();
    let mut rounds = 0;
    let gave = loop {
        rounds += 1;
        assert!(rounds < 20, "dead letters wait without a bound");
        let gave = bench.round(Read(many));
        if gave != nothing() {
            break gave;
        }
        assert!(bench.deliverer.pending.letters_bytes < LETTERS_BYTES_MAX);
    };
    let commit = Some((101 + 500 * rounds as i64, 500 * rounds));
    assert_eq!(gave, Gave { given: vec![vec![1]], commit, end: None }, "the row waits no longer, nothing is left out");
    assert!(rounds > 1);
}

#[test]
fn a_statement_that_stops_is_seen_at_once_and_delivers_what_came_before() {
    for fill in [AT_ONCE, SECOND] {
        Bench::new(fill, OnError::Stop)
            .run([(0, Read(&["x", "1"]), gave(&[], Some((0, 0)))), (0, Idle, end("stopped", nothing()))]);
    }
    Bench::new(SECOND, OnError::Stop).run([
        (0, Read(&["1"]), nothing()),
        (10, Read(&["2", "x", "3"]), gave(&[&[1, 2]], Some((2, 0)))),
        (10, Idle, end("stopped", nothing())),
    ]);
}

#[test]
fn what_lies_behind_a_stop_is_not_counted() {
    let mut bench = Bench::new(SECOND, OnError::Stop);
    assert_eq!(bench.round(Read(&["out", "1"])), nothing());
    let counted = |bench: &Bench| -> BTreeMap<String, u64> {
        let ledger = bench.deliverer.pending.ledger.iter();
        ledger.map(|(counter, n)| (format!("{} {}", counter.what, counter.reason).trim().to_owned(), *n)).collect()
    };
    let named = |counts: &[(&str, u64)]| counts.iter().map(|(what, n)| ((*what).to_owned(), *n)).collect();
    assert_eq!(
        counted(&bench),
        named(&[("evaluated", 1), ("filtered", 1), ("given", 2), ("rows_in", 2), ("rows_out", 1)])
    );
    // of two rows at fault the first one counts, and a filter reads all of them before a projection reads the first
    bench.deliverer.due(false).unwrap();
    let run = [r#"{"n":"out"}"#, "{", r#"{"n":"2"}"#, r#"{"n":"x"}"#, "{", r#"{"n":"out"}"#, r#"{"n":"x"}"#];
    let events = run.map(|payload| RawEvent {
        arrival: Timestamp::MIN,
        payload: Bytes::from_static(payload.as_bytes()),
        message: Arc::default(),
        mark: 0,
    });
    let records = Records::Events(vec![Events { input: 0, offsets: (2..9).collect(), events: events.into() }]);
    let rows = bench.deliverer.rows(Stretch { records, len: 7, position: 9, others: 0, is_at_end: true }).unwrap();
    assert_eq!((rows.batch.len(), bench.deliverer.pending.position, bench.deliverer.pending.letters.len()), (1, 5, 1));
    assert_eq!(
        counted(&bench),
        named(&[
            ("evaluated", 2),
            ("failed undecodable", 1),
            ("filtered", 2),
            ("given", 5),
            ("rows_in", 5),
            ("rows_out", 2),
        ])
    );
}

#[test]
fn a_stop_amid_a_retry_commits_nothing_that_was_not_delivered() {
    let try_again = || Delivery::try_again("away");
    Bench::new(AT_ONCE, OnError::DeadLetter).run([
        (0, Read(&["1"]), gave(&[&[1]], Some((1, 0)))),
        (0, Read(&["out"]), nothing()),
        (0, Answers(vec![try_again()]), nothing()),
        (0, StopsThen, nothing()),
        (0, Read(&["3"]), end("ended", gave(&[&[3]], None))),
    ]);
}

#[test]
fn a_slow_receiver_is_given_fewer_records_and_a_fast_one_more() {
    let millis = Duration::from_millis;
    for (stride, took, full, next) in [
        (1000, millis(0), 0, 1000),
        (1000, millis(500), 0, 1000),
        (1000, millis(5_000), 0, 100),
        // an outage
        (1000, millis(3_600_000), 0, 10),
        (10, millis(1), 0, 20),
        (10, millis(250), 0, 20),
        (10, millis(1_000), 0, 10),
        (800, millis(1), 0, 1000),
        // what the receiver likes at once is given to it
        (1000, millis(5_000), 300, 300),
        (5000, millis(500), 5000, 5000),
    ] {
        assert_eq!(next_stride(stride, took, full), next, "{stride} {took:?} {full}");
    }
}

#[test]
fn an_output_is_in_trouble_until_each_of_its_consumers_gets_through() {
    let mut bench = Bench::new(AT_ONCE, OnError::DeadLetter);
    let event = RawEvent {
        arrival: Timestamp::MIN,
        payload: Bytes::from_static(b"{\"n\":\"1\"}"),
        message: Arc::default(),
        mark: 0,
    };
    let records = Records::Events(vec![Events { input: 0, offsets: vec![0], events: vec![event] }]);
    let rows = bench.deliverer.rows(Stretch { records, len: 1, position: 1, others: 0, is_at_end: true }).unwrap();
    let (rows, output) = (Arc::new(rows), bench.deliverer.output.clone());
    let full = Delivery::try_again("full");
    // two of one statement: one delivers what its former text gave
    for (consumer, answer, trouble) in [
        ("statement a", full.clone(), Some("full")),
        ("output a", Delivery::Delivered, Some("full")),
        ("statement a", full, Some("full")),
        ("output a", Delivery::Delivered, Some("full")),
        ("statement a", Delivery::Delivered, None),
    ] {
        bench.script.written().answers.push_back(answer.clone());
        assert_eq!(output.deliver(&rows, &"a".into(), &consumer.into(), None, 0), answer);
        assert_eq!(output.trouble().as_deref(), trouble, "after {consumer}");
    }
}

#[test]
fn pauses_grow_unless_the_output_got_further() {
    let longest = |answers: &[bool]| {
        let once = |_| {
            let mut retry = Retry::new(Backoff::BROKER);
            answers.iter().map(|got_further| pause(&mut retry, *got_further)).last().unwrap()
        };
        (0..1_000).map(once).max().unwrap()
    };
    let first = Backoff::BROKER.base;
    assert!(longest(&[false; 12]) > 10 * first);
    assert!(longest(&[true; 12]) <= first, "each step of a search tells something");
    assert!(longest(&[false, false, false, false, true]) <= first);
    assert!(longest(&[true, false, false, false, false]) > first);
}
