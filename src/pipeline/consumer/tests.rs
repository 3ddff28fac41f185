//! A consumer by hand, by a clock that the test moves: what it runs, commits and tells, and when.

mod clocks;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use smol_str::SmolStr;

use super::*;
use crate::arrival::ArrivalClock;
use crate::batch::{Batch, Column, RowMeta, Rows};
use crate::engine::{Executor, ExecutorOptions, OnError};
use crate::journal::{ConsumerId, ConsumerSpec, InputId, Journal, JournalConfig};
use crate::pipeline::commits::Commits;
use crate::pipeline::failures::Failures;
use crate::pipeline::reading::tests::store_each;
use crate::pipeline::reading::{Bound, Records};
use crate::pipeline::state_budget::StateBudget;
use crate::pipeline::stop::Stop;
use crate::pipeline::tables::Tables;
use crate::query::catalog::{Catalog, FunctionDef, FunctionKind, InputDef, InputKind};
use crate::query::plan::Part;
use crate::score::ScoreConfig;
use crate::score::azureml::AzureMl;
use crate::time::{Clock, TICKS_PER_MILLISECOND, Timestamp};
use crate::value::Value;

/// A second of the day of the tests.
fn at(second: i64) -> Timestamp {
    Timestamp::parse("2026-05-01T10:00:00Z").unwrap().saturating_add(second * TICKS_PER_SECOND)
}

/// The parts of a query over the input `a`, which may call the endpoint `score`.
fn parts(query: &str) -> Vec<Part> {
    let catalog = Catalog {
        inputs: vec![InputDef { name: "a".to_owned(), kind: InputKind::Stream }],
        outputs: None,
        functions: vec![FunctionDef { name: "score".to_owned(), kind: FunctionKind::External }],
    };
    let plan = crate::query::compile(query, "q", &catalog).unwrap_or_else(|e| panic!("{e}"));
    plan.statements[0].parts.clone()
}

/// A consumer of a stream, or of the input.
fn consumer(journal: &Journal, part: &Part, on_error: OnError, from: StreamId, sink: Sink, clock: &Clock) -> Consumer {
    let options = ExecutorOptions { on_error, ..ExecutorOptions::default() };
    let executor = Executor::new(part, options, None).unwrap();
    let spec = ConsumerSpec::new("statement windows", from);
    Consumer {
        flow: Flow {
            consumer: journal.register_consumer(spec).unwrap().id,
            consumer_name: SmolStr::new("statement windows"),
            statement: SmolStr::new("windows"),
            columns: part.columns.clone(),
            query_version: SmolStr::default(),
            stop: Stop::default(),
            clock: clock.clone(),
            arrival: ArrivalClock::new(clock.clone(), Timestamp::MIN),
            failures: Failures::default(),
            is_driven: false,
        },
        reading: Reading::new(journal.reader(from, 0), Bound::records(10)),
        feed: Feed {
            executor,
            inputs: vec![(journal.input("a").unwrap(), "a".into())],
            aside: Default::default(),
            columns: None,
            refused: None,
            tables: Tables::new(&[], Default::default()),
            journal: journal.clone(),
            pushed: false,
            left_out: 0,
        },
        sink,
        upstream: None,
        feeds_part: false,
        held: 0,
        share: Arc::new(StateBudget::new(1 << 20)).share("windows".into()),
        ahead: None,
        unread: None,
        position: 0,
        others: 0,
        due: SinceCommit::new(0, clock.monotonic()),
        has_ticked: false,
    }
}

/// What comes.
enum Event {
    /// Records are stored: numbers, one each; one that is no number fails.
    Read(&'static [&'static str]),
    /// Nothing, for as long as a read waits.
    Idle,
    /// Segments of other inputs.
    Passed,
    /// The journal answers for all commits that are under way.
    Answered,
    /// The consumer is taken out of the job: the journal refuses what it commits.
    TakenOut,
    /// Another part uses the budget of state up.
    Full,
    /// It gives that back.
    Freed,
    /// The thread that commits answers of the endpoint ends.
    HungUp,
    /// The job is to stop.
    Stop,
}

/// What a round gave.
#[derive(Debug, Default, PartialEq)]
struct Gave {
    /// How many records went through the plan.
    run: i64,
    /// Position, sums of windows and dead letters of a commit.
    commit: Option<(i64, Vec<Value>, usize)>,
    /// The same of a chunk that is to be scored, with the arguments of its rows.
    chunk: Option<(i64, Vec<Value>, usize)>,
    /// The mark for the part behind, in milliseconds of the table, rounded down, where it moved. While a window
    /// is open it is just before the time it stands for: a record may come at that time.
    mark: Option<i64>,
    end: Option<&'static str>,
}

impl Gave {
    fn commit(self, position: i64, sums: &[i64], letters: usize) -> Gave {
        Gave { commit: Some((position, sums.iter().map(|n| Value::BigInt(*n)).collect(), letters)), ..self }
    }

    fn chunk(self, position: i64, args: &[i64], letters: usize) -> Gave {
        Gave { chunk: Some((position, args.iter().map(|n| Value::BigInt(*n)).collect(), letters)), ..self }
    }

    fn mark(self, millis: i64) -> Gave {
        Gave { mark: Some(millis), ..self }
    }

    fn end(self, end: &'static str) -> Gave {
        Gave { end: Some(end), ..self }
    }
}

fn nothing() -> Gave {
    Gave::default()
}

fn run(run: i64) -> Gave {
    Gave { run, ..nothing() }
}

/// The tables begin here, a second after a window of ten.
const START: i64 = 1;

struct Bench {
    consumer: Consumer,
    commits: Commits,
    /// What the part behind sees: of commits, or of chunks.
    mark: Mark,
    told: Option<Timestamp>,
    chunks: Option<Receiver<SentChunk>>,
    budget: Arc<StateBudget>,
    other: Option<Share>,
    clock: Clock,
    journal: Journal,
    input: InputId,
    _runtime: Option<tokio::runtime::Runtime>,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// Windows of ten seconds.
    fn new(on_error: OnError) -> Bench {
        Bench::of(
            "SELECT SUM(CAST(n AS bigint)) AS n FROM a GROUP BY TumblingWindow(second, 10)",
            on_error,
            |journal| (Sink::Stream(journal.stream("windows").unwrap()), Mark::default(), None, None),
        )
    }

    /// One whose windows another part reads.
    fn feeding() -> Bench {
        let mut bench = Bench::new(OnError::DeadLetter);
        bench.consumer.feeds_part = true;
        bench
    }

    /// One that calls an endpoint, which never answers.
    fn scored() -> Bench {
        Bench::of("SELECT udf.score(CAST(n AS bigint)) AS p FROM a", OnError::DeadLetter, |_| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let url = "http://127.0.0.1:9/score".parse().unwrap();
            let config = ScoreConfig::new("score", url, Arc::new(AzureMl::default()));
            let scorer = Scorer::start(config, runtime.handle()).unwrap();
            let (sender, receiver) = channel();
            let sent = Mark::default();
            let to = ToScore {
                room: scorer.new_room(),
                called: CalledRows::default(),
                scorer,
                is_patient: false,
                lane: 0,
                chunks: sender,
                came: Arc::default(),
                sent: sent.clone(),
            };
            (Sink::Score(Box::new(to)), sent, Some(receiver), Some(runtime))
        })
    }

    fn of(
        query: &str,
        on_error: OnError,
        sink: impl FnOnce(&Journal) -> (Sink, Mark, Option<Receiver<SentChunk>>, Option<tokio::runtime::Runtime>),
    ) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(at(START));
        let config = JournalConfig { clock: clock.clone(), ..JournalConfig::new(dir.path().join("pool.db")) };
        let journal = Journal::open(config).unwrap();
        let input = journal.input("a").unwrap();
        let (sink, mark, chunks, runtime) = sink(&journal);
        let budget = Arc::new(StateBudget::new(1 << 20));
        let mut consumer = consumer(&journal, &parts(query)[0], on_error, StreamId::INPUTS, sink, &clock);
        consumer.share = budget.share("windows".into());
        Bench {
            consumer,
            commits: Commits::new(journal.clone(), mark.clone()),
            mark,
            told: None,
            chunks,
            budget,
            other: None,
            clock,
            journal,
            input,
            _runtime: runtime,
            _dir: dir,
        }
    }

    /// One round of the part's loop, or what comes between two.
    fn round(&mut self, event: Event) -> Gave {
        match event {
            Event::Read(numbers) => {
                let payload = |number: &&str| Bytes::from(format!("{{\"n\":\"{number}\"}}"));
                store_each(&self.journal, self.input, self.clock.now(), numbers.iter().map(payload).collect());
            }
            Event::Idle => self.nothing_comes(true),
            Event::Passed => self.nothing_comes(false),
            Event::Answered => {
                let end = self.commits.drain().err().map(|_| "refused");
                return Gave { mark: self.moved(), end, ..nothing() };
            }
            Event::TakenOut => {
                self.journal.keep_only_consumers(&[]).unwrap();
                return nothing();
            }
            Event::Full => {
                let other = self.budget.share("other".into());
                assert!(!other.tell(8 << 20), "nothing may be read any more");
                self.other = Some(other);
                return nothing();
            }
            Event::Freed => {
                self.other = None;
                return nothing();
            }
            Event::HungUp => {
                self.chunks = None;
                return nothing();
            }
            Event::Stop => self.consumer.flow.stop.set(),
        }
        let before = self.consumer.position;
        let end = match self.consumer.read().unwrap() {
            Some(found) => {
                assert_eq!(self.consumer.work(found).unwrap(), Go::On);
                None
            }
            None => Some("ended"),
        };
        let run = self.consumer.position - before;
        let step = match self.consumer.due(end.is_some()) {
            Ok(step) => step,
            Err(PipelineError::StatementStopped { .. }) => return Gave { run, ..nothing() }.end("stopped"),
            Err(error) => panic!("{error}"),
        };
        let commit = step.as_ref().and_then(|step| step.commit.as_ref()).map(|commit| {
            let rows = commit.emit.as_ref().map_or_else(Vec::new, |(_, rows)| firsts(&rows.batch));
            (commit.position, rows, commit.dead_letters.len())
        });
        if let Some(step) = step {
            self.commits.add(step).unwrap();
        }
        let chunk = self.chunks.as_ref().and_then(|chunks| chunks.try_recv().ok());
        let chunk =
            chunk.map(|SentChunk { commit, batch, .. }| (commit.position, firsts(&batch), commit.dead_letters.len()));
        Gave { run, commit, chunk, mark: self.moved(), end }
    }

    /// A read gives this without the journal; what could not be pushed goes before it.
    fn nothing_comes(&mut self, is_at_end: bool) {
        let records = Records::Events(Vec::new());
        let position = self.consumer.reading.position();
        self.consumer.unread.get_or_insert(Stretch { records, len: 0, position, others: 0, is_at_end });
    }

    fn moved(&mut self) -> Option<i64> {
        let now = self.mark.get().map(|reached| reached.time);
        let moved = now.filter(|_| now != self.told);
        self.told = now;
        moved.map(|mark| (mark.ticks() - at(START).ticks()).div_euclid(TICKS_PER_MILLISECOND))
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

/// The first column.
fn firsts(batch: &Batch) -> Vec<Value> {
    batch.rows().map(|(_, row)| row[0].clone()).collect()
}

use Event::{Answered, Freed, Full, HungUp, Idle, Passed, Read, Stop as StopNow, TakenOut};

#[test]
fn what_comes_out_is_committed_at_once_and_a_position_alone_after_a_second() {
    Bench::new(OnError::DeadLetter).run([
        (0, Idle, nothing()),
        (0, Read(&["1", "2"]), run(2)),
        (999, Idle, nothing()),
        (1_000, Idle, nothing().commit(2, &[], 0)),
        (1_500, Read(&["4"]), run(1)),
        // failures are as urgent as rows
        (1_600, Read(&["x"]), run(1).commit(4, &[], 1)),
        (9_500, Idle, nothing()),
        // segments of other inputs were passed, and ours may follow
        (9_501, Passed, nothing()),
        // the window's time has come, half a second late: nothing was read since, and its row is committed
        (9_501, Idle, nothing().commit(4, &[7], 0)),
        (10_000, Idle, nothing()),
        (10_100, Read(&["8"]), run(1)),
        (10_200, StopNow, nothing().commit(5, &[], 0).end("ended")),
    ]);
}

#[test]
fn records_close_the_windows_before_them() {
    Bench::new(OnError::DeadLetter).run([
        (0, Read(&["1"]), run(1)),
        (20_000, Read(&["2"]), run(1).commit(2, &[1], 0)),
        (20_000, StopNow, nothing().end("ended")),
    ]);
}

#[test]
fn a_statement_that_stops_commits_nothing_behind_its_last_commit() {
    Bench::new(OnError::Stop).run([
        (0, Read(&["1"]), run(1)),
        (1_000, Idle, nothing().commit(1, &[], 0)),
        (1_100, Read(&["2", "x"]), run(2).end("stopped")),
    ]);
}

#[test]
fn the_part_behind_learns_how_late_it_is_once_all_before_is_confirmed() {
    Bench::feeding().run([
        // nothing is under way
        (0, Idle, nothing().mark(-501)),
        (100, Read(&["1"]), run(1).mark(99)),
        (1_100, Idle, nothing().commit(1, &[], 0)),
        (1_200, Idle, nothing()),
        (1_200, Answered, nothing().mark(699)),
        (1_300, Idle, nothing().mark(799)),
        (9_600, Idle, nothing().commit(1, &[1], 0)),
        (9_700, Idle, nothing()),
        (9_700, Answered, nothing().mark(9_199)),
    ]);
}

#[test]
fn a_commit_that_is_refused_ends_the_part_and_moves_no_mark() {
    Bench::feeding().run([
        (0, Read(&["1"]), run(1).mark(-1)),
        (1_000, Idle, nothing().commit(1, &[], 0)),
        (1_000, Answered, nothing().mark(499)),
        (1_000, TakenOut, nothing()),
        (1_100, Read(&["2"]), run(1).mark(1_099)),
        (2_000, Idle, nothing().commit(2, &[], 0)),
        (2_100, Idle, nothing()),
        (2_100, Answered, nothing().end("refused")),
    ]);
}

#[test]
fn while_the_state_of_all_is_too_large_nothing_is_run_and_time_passes_up_to_what_waits() {
    Bench::new(OnError::DeadLetter).run([
        (0, Read(&["1"]), run(1)),
        (0, Full, nothing()),
        // idle reads go on: time is what lets go of state
        (1_000, Idle, nothing().commit(1, &[], 0)),
        (15_000, Read(&["2"]), nothing().commit(1, &[1], 0)),
        (60_000, Idle, nothing()),
        (60_000, Freed, nothing()),
        (60_000, Idle, run(1).commit(2, &[], 0)),
        (60_100, Idle, nothing().commit(2, &[2], 0)),
        (60_100, Full, nothing()),
        (60_200, Read(&["3"]), nothing()),
        // what was not run is read again at the next start
        (62_000, StopNow, nothing().end("ended")),
    ]);
}

#[test]
fn rows_for_an_endpoint_go_on_with_the_commit_that_waits_for_their_answers() {
    Bench::scored().run([
        (0, Read(&["1", "2"]), run(2).chunk(2, &[1, 2], 0).mark(0)),
        (0, Idle, nothing()),
        (100, Read(&["x"]), run(1).chunk(3, &[], 1).mark(100)),
        (200, HungUp, nothing()),
        (200, Read(&["4"]), run(1)),
        (200, Idle, nothing().end("ended")),
    ]);
    Bench::scored().run([(0, Read(&["1"]), run(1).chunk(1, &[1], 0).mark(0)), (100, StopNow, nothing().end("ended"))]);
}

/// Answered rows of these seconds.
fn rows(seconds: &[i64]) -> Rows {
    let mut batch = Batch::new(1);
    for second in seconds {
        batch.push(RowMeta::new(at(*second), at(*second), *second, 0), [Value::BigInt(1)]);
    }
    Rows { columns: [Column { name: "p".into(), spread: false }].into(), batch }
}

#[test]
fn rows_of_a_scored_stream_that_may_not_be_read_still_let_time_pass_up_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(JournalConfig::new(dir.path().join("pool.db"))).unwrap();
    let (from, into) = (journal.stream("answers").unwrap(), journal.stream("windows").unwrap());
    let scoring: ConsumerId = journal.register_consumer(ConsumerSpec::new("scoring", StreamId::INPUTS)).unwrap().id;
    let answer = |seconds: &[i64]| {
        let commit = Commit { emit: Some((from, rows(seconds))), ..Commit::at(scoring, 0) };
        journal.commit(commit).wait().unwrap();
    };
    let parts = parts(
        "WITH s AS (SELECT udf.score(v) AS p FROM a) SELECT SUM(p) AS n FROM s GROUP BY TumblingWindow(second, 10)",
    );
    let budget = Arc::new(StateBudget::new(1 << 20));
    let clock = Clock::manual(at(1_000));
    let part = parts.last().unwrap();
    let mut consumer = consumer(&journal, part, OnError::Stop, from, Sink::Stream(into), &clock);
    (consumer.upstream, consumer.share) = (Some(Mark::default()), budget.share("windows".into()));
    let mut round = |upstream: i64| {
        consumer.upstream.as_ref().unwrap().set(Some(EraTime { era: 0, time: at(upstream) }));
        let found = consumer.read().unwrap().unwrap();
        assert_eq!(consumer.work(found).unwrap(), Go::On);
        let step = consumer.due(false).unwrap().and_then(|step| step.commit);
        step.map(|commit| (commit.position, commit.emit.map(|(_, rows)| rows.batch.row(0).to_vec())))
    };

    answer(&[1, 3]);
    assert_eq!(round(3), None, "the window is open");
    let other = budget.share("other".into());
    assert!(!other.tell(8 << 20), "nothing may be read any more");
    answer(&[25, 26]);
    assert_eq!(round(40), Some((2, Some(vec![Value::BigInt(2)]))), "the window before the rows that wait closes");
    assert_eq!(round(40), None, "and theirs does not, though the part before is past its end");
    drop(other);
    assert_eq!(round(40), None, "they are read");
    assert_eq!(round(40), Some((4, Some(vec![Value::BigInt(2)]))), "and then their window closes with both");
}
