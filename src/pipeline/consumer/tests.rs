//! Consumers by hand: what they do with time while they may not read.

use std::sync::Arc;

use smol_str::SmolStr;

use super::*;
use crate::batch::{Batch, Column, RowMeta, Rows};
use crate::engine::{Executor, ExecutorOptions};
use crate::journal::{ConsumerSpec, Journal, JournalConfig, OnFull, Start};
use crate::pipeline::reading::Bound;
use crate::pipeline::state_budget::StateBudget;
use crate::pipeline::stop::Stop;
use crate::pipeline::tables::Tables;
use crate::query::catalog::{Catalog, FunctionDef, FunctionKind, InputDef, InputKind};
use crate::time::Clock;

fn at(second: i64) -> Timestamp {
    Timestamp::parse("2026-05-01T10:00:00Z").unwrap().saturating_add(second * TICKS_PER_SECOND)
}

/// Answered rows of these seconds.
fn rows(seconds: &[i64]) -> Rows {
    let mut batch = Batch::new(1);
    for second in seconds {
        batch
            .push(RowMeta { time: at(*second), arrival: at(*second), offset: *second, ordinal: 0 }, [Value::BigInt(1)]);
    }
    Rows { columns: [Column { name: "p".into(), spread: false }].into(), batch }
}

fn registered(journal: &Journal, name: &str, stream: StreamId) -> crate::journal::ConsumerId {
    let spec = ConsumerSpec {
        name: name.into(),
        fingerprint: String::new(),
        stream,
        start: Start::Oldest,
        on_full: OnFull::Block,
        limits: Default::default(),
    };
    journal.register_consumer(spec).unwrap().id
}

#[test]
fn rows_of_a_scored_stream_that_may_not_be_read_still_let_time_pass_up_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(JournalConfig::new(dir.path().join("pool.db"))).unwrap();
    let (from, into) = (journal.stream("answers").unwrap(), journal.stream("windows").unwrap());
    let (scoring, windows) = (registered(&journal, "scoring", StreamId::INPUTS), registered(&journal, "windows", from));
    let answer = |seconds: &[i64]| {
        let commit = Commit { emit: Some((from, rows(seconds))), ..Commit::at(scoring, 0) };
        journal.commit(commit).wait().unwrap();
    };

    let catalog = Catalog {
        inputs: vec![InputDef { name: "a".to_owned(), kind: InputKind::Stream }],
        outputs: None,
        functions: vec![FunctionDef { name: "score".to_owned(), kind: FunctionKind::External }],
    };
    let query =
        "WITH s AS (SELECT udf.score(v) AS p FROM a) SELECT SUM(p) AS n FROM s GROUP BY TumblingWindow(second, 10)";
    let plan = crate::query::compile(query, "q", &catalog).unwrap_or_else(|e| panic!("{e}"));
    let executor = Executor::new(plan.statements[0].parts.last().unwrap(), ExecutorOptions::default(), None).unwrap();
    let tables = Tables::new(&[], Default::default());
    let budget = Arc::new(StateBudget::new(1 << 20));
    let clock = Clock::manual(at(1_000));
    let mut consumer = Consumer {
        flow: Flow {
            consumer: windows,
            statement: SmolStr::new("windows"),
            columns: Arc::new([]),
            query_version: SmolStr::default(),
            stop: Stop::default(),
            clock: clock.clone(),
        },
        reading: Reading::new(journal.reader(from, 0), Bound::records(10)),
        feed: Feed { executor, inputs: Vec::new(), columns: None, tables, pushed: false },
        sink: Sink::Stream(into),
        upstream: Some(Mark::default()),
        feeds_part: false,
        held: 0,
        share: budget.share("windows".into()),
        ahead: None,
        unread: None,
        position: 0,
        due: SinceCommit::new(0, clock.monotonic()),
        has_ticked: false,
    };
    let mut round = |upstream: i64| {
        consumer.upstream.as_ref().unwrap().set(Some(at(upstream)));
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
