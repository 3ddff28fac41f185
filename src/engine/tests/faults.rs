//! Plans that no query gives: what the engine says of them.

use super::env::{Env, StepOrigin};
use super::fault::{Fault, Unloadable};
use super::operator::{OperatorTree, StepContext};
use super::scan::ScanOp;
use super::*;
use crate::query::ast::{ApplyFunction, BinaryOp};
use crate::query::date_part::DatePart;
use crate::query::fault::FAULT;
use crate::query::plan::{
    Aggregate, AggregateFunction, Analytic, AnalyticFunction, Expr, JoinBound, NamedWindow, Node, Window,
};
use crate::value::codec::Damaged;

const POLICIES: [OnError; 3] = [OnError::Stop, OnError::Null, OnError::DeadLetter];

/// A part over rows of one column.
fn part_of(root: Node) -> Part {
    let columns = (0..root.width()).map(|i| Column { name: format!("c{i}").into(), spread: false }).collect();
    Part { root, external: None, substream: None, columns }
}

fn rows(values: &[i64]) -> Rows {
    let mut batch = crate::batch::Batch::new(1);
    for (offset, value) in (0..).zip(values) {
        batch.push(RowMeta::new(at(offset), at(offset), offset, 0), [Value::BigInt(*value)]);
    }
    Rows { columns: Arc::from([Column { name: "v".into(), spread: false }]), batch }
}

fn run(root: Node, policy: OnError) -> Emitted {
    let options = ExecutorOptions { on_error: policy, ..ExecutorOptions::default() };
    let mut executor = Executor::new(&part_of(root), options, None).unwrap();
    executor.push_rows(0, &rows(&[1, 2]));
    executor.finish();
    executor.take()
}

fn input() -> Box<Node> {
    Box::new(Node::Rows { width: 1 })
}

/// What a broken plan gives: each row is kept as a failure that says whose fault it is.
fn is_kept_as_fault(root: &dyn Fn() -> Node, what: &str) {
    for policy in POLICIES {
        let emitted = run(root(), policy);
        assert!(emitted.rows.batch.is_empty(), "{what} {policy:?}: {:?}", emitted.rows);
        let failure = match policy {
            OnError::Stop => emitted.stopped.as_ref().unwrap(),
            OnError::Null | OnError::DeadLetter => {
                assert_eq!(emitted.failures.len(), 2, "{what} {policy:?}");
                let counts = &emitted.counts;
                assert_eq!(
                    counts.failed.get(FAULT).or(counts.failed_derived.get(FAULT)),
                    Some(&2),
                    "{what} {policy:?}"
                );
                emitted.failures.first().unwrap()
            }
        };
        assert_eq!((failure.reason, &failure.body), (FAULT, &FailedBody::Row("[1]".into())), "{what} {policy:?}");
        let says = "which is a fault of forebay: please report it with the query";
        assert!(failure.message.ends_with(says), "{what}: {}", failure.message);
        assert!(emitted.counts.nulled.is_empty(), "{what} {policy:?}");
    }
}

#[test]
fn a_column_that_a_row_does_not_have_is_a_fault_under_every_policy() {
    let missing = || Expr::Slot(5);
    is_kept_as_fault(&|| Node::Project { input: input(), exprs: vec![missing()] }, "project");
    is_kept_as_fault(&|| Node::Filter { input: input(), predicate: missing() }, "filter");
    let sum = || Expr::Binary(BinaryOp::Add, Box::new(Expr::Slot(0)), Box::new(missing()), Span::default());
    is_kept_as_fault(&|| Node::Project { input: input(), exprs: vec![sum()] }, "in a sum");
    let tried = || Expr::Try(Box::new(missing()));
    is_kept_as_fault(&|| Node::Project { input: input(), exprs: vec![tried()] }, "in TryEvaluate");
}

#[test]
fn every_operator_keeps_a_row_that_its_plan_does_not_fit() {
    let missing = || Expr::Slot(5);
    let span = Span::default();
    let sum = || Aggregate {
        function: AggregateFunction::Sum,
        argument: Some(missing()),
        user_args: Vec::new(),
        distinct: false,
        order_by: Vec::new(),
        span,
    };
    let windows = || vec![NamedWindow { name: None, window: Window::Tumbling { size: TICKS_PER_SECOND, offset: 0 } }];
    let group = |keys: Vec<Expr>, aggregates: Vec<Aggregate>| Node::Aggregate {
        input: input(),
        id: 0,
        keys,
        windows: windows(),
        aggregates,
    };
    is_kept_as_fault(&|| group(vec![missing()], Vec::new()), "a key of a group");
    is_kept_as_fault(&|| group(Vec::new(), vec![sum()]), "an aggregate");
    let lag = || Analytic {
        function: AnalyticFunction::Lag { offset: 1 },
        argument: Some(missing()),
        default: None,
        partition_by: Vec::new(),
        order_by: Vec::new(),
        limit: None,
        when: None,
        span,
    };
    is_kept_as_fault(&|| Node::Analytic { input: input(), id: 0, calls: vec![lag()] }, "an analytic call");
    let bound = JoinBound { unit: DatePart::Second, low: 0, high: 1 };
    let keys = || vec![(missing(), Expr::Slot(0))];
    let (left, right) = (input, input);
    let join = || Node::Join { left: left(), right: right(), id: 0, left_outer: true, bound, keys: keys(), on: None };
    is_kept_as_fault(&join, "a join");
    let reference =
        || Node::ReferenceJoin { input: input(), reference: "r".into(), left_outer: true, keys: keys(), on: None };
    is_kept_as_fault(&reference, "a reference join");
    let function = ApplyFunction::GetArrayElements;
    let apply = || Node::Apply { input: input(), outer: true, function, argument: missing(), span };
    is_kept_as_fault(&apply, "APPLY");
}

#[test]
fn state_of_a_window_or_call_that_the_plan_does_not_have_is_damage() {
    let groups =
        || Node::Aggregate { input: input(), id: 0, keys: Vec::new(), windows: Vec::new(), aggregates: Vec::new() };
    let looks = || Node::Analytic { input: input(), id: 0, calls: Vec::new() };
    for root in [groups(), looks()] {
        let mut executor = Executor::new(&part_of(root), ExecutorOptions::default(), None).unwrap();
        let loaded = executor.load_state([(0u32, &[0u8, 0, 3][..], &[0u8][..])]);
        assert!(matches!(loaded, Err(EngineError::State { op: 0, .. })), "{loaded:?}");
    }
}

#[test]
fn a_scan_without_an_inbox_is_reported() {
    let mut env = Env::new(options(OnError::DeadLetter), None);
    let mut scan = OperatorTree::new(ScanOp::new(0, 1, 3, false, 0));
    let produced = scan.step(&mut StepContext {
        env: &mut env,
        origin: StepOrigin::default(),
        inbox: &mut [],
        rows: crate::batch::Batch::default(),
        rows_watermark: 0,
        now: 0,
    });
    assert!(produced.batch.is_empty());
    assert_eq!((env.failures.len(), env.counts.failed_derived.get(FAULT)), (1, Some(&1)));
}

#[test]
fn what_cannot_be_taken_back_is_the_pools_damage_or_a_fault_of_forebay() {
    let told = |why: Unloadable| EngineError::unloadable(7, why).to_string();
    let damaged = told(Damaged { at: 3 }.into());
    assert!(damaged.starts_with("stored state of operator 7: ") && !damaged.contains("fault of forebay"), "{damaged}");
    let fault = told(Fault("a group is not where its key points").into());
    assert!(fault.contains("operator 7") && fault.contains("is a fault of forebay: please report it"), "{fault}");
    assert!(!fault.contains("damaged"), "{fault}");
}
