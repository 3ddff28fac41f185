//! Aggregates against their definitions.

use proptest::prelude::*;

use super::prepare::name;
use super::*;
use crate::diagnostic::Span;
use crate::query::plan::Expr;
use crate::value::codec::{ByteReader, DEPTH_MAX};

fn aggregate(function: AggregateFunction, distinct: bool, order: &[bool]) -> Aggregate {
    let order_by = order.iter().map(|d| (Expr::Slot(0), *d)).collect();
    Aggregate {
        function,
        argument: Some(Expr::Slot(0)),
        user_args: Vec::new(),
        distinct,
        order_by,
        span: Span::default(),
    }
}

fn over(aggregate: &Aggregate, rows: &[Vec<Value>]) -> Value {
    let mut acc = Acc::new(aggregate);
    rows.iter().for_each(|row| acc.add(aggregate, row).unwrap());
    acc.finish(aggregate).unwrap()
}

fn ints(values: &[i64]) -> Vec<Vec<Value>> {
    values.iter().map(|v| vec![Value::BigInt(*v)]).collect()
}

#[test]
fn results_of_every_function() {
    use AggregateFunction::*;
    let rows = ints(&[4, 1, 3, 1]);
    let one = |f| over(&aggregate(f, false, &[]), &rows);
    assert_eq!(one(Count), Value::BigInt(4));
    assert_eq!(one(Sum), Value::BigInt(9));
    assert_eq!(one(Avg), Value::Float(2.25));
    assert_eq!(one(Min { text: false }), Value::BigInt(1));
    assert_eq!(one(Max { text: false }), Value::BigInt(4));
    assert_eq!(one(VarP), Value::Float(1.6875));
    assert_eq!(one(Var), Value::Float(2.25));
    assert_eq!(one(StDev), Value::Float(1.5));
    assert_eq!(one(PercentileCont { fraction: 0.5 }), Value::Float(2.0));
    assert_eq!(one(PercentileDisc { fraction: 0.5 }), Value::BigInt(1));
    assert_eq!(over(&aggregate(Count, true, &[]), &rows), Value::BigInt(3));
    assert_eq!(over(&aggregate(Sum, true, &[]), &rows), Value::BigInt(8));
    assert_eq!(over(&aggregate(StDev, false, &[]), &ints(&[1])), Value::Null);
    assert_eq!(over(&aggregate(Sum, false, &[]), &[vec![Value::Null]]), Value::Null);
    assert_eq!(over(&aggregate(Count, false, &[]), &[vec![Value::Null]]), Value::BigInt(0));
}

#[test]
fn a_discrete_percentile_is_the_first_value_whose_share_reaches_it() {
    for n in 1..=120 {
        let values = ints(&(1..=n).collect::<Vec<_>>());
        for percent in 0..=100 {
            let fraction = f64::from(percent) / 100.0;
            let found = over(&aggregate(AggregateFunction::PercentileDisc { fraction }, false, &[false]), &values);
            let first = (1..=n).find(|rank| *rank as f64 / n as f64 >= fraction);
            assert_eq!(Some(found), first.map(Value::BigInt), "{fraction} of {n}");
        }
    }
}

#[test]
fn whole_sums_are_exact_and_overflow_is_an_error() {
    let sum = aggregate(AggregateFunction::Sum, false, &[]);
    assert_eq!(over(&sum, &ints(&[i64::MAX, 1, -1])), Value::BigInt(i64::MAX));
    let mut acc = Acc::new(&sum);
    ints(&[i64::MAX, 1]).iter().for_each(|row| acc.add(&sum, row).unwrap());
    assert_eq!(acc.finish(&sum).unwrap_err().reason, "overflow");
}

#[test]
fn floats_that_leave_their_range_are_errors_and_no_others() {
    use AggregateFunction::*;
    let of = |function, values: &[f64]| {
        let aggregate = aggregate(function, false, &[false]);
        let mut acc = Acc::new(&aggregate);
        values.iter().for_each(|v| acc.add(&aggregate, &[Value::Float(*v), Value::Float(*v)]).unwrap());
        acc.finish(&aggregate).map_err(|e| e.reason)
    };
    let max = f64::MAX;
    for function in [StDev, StDevP, Var, VarP] {
        assert_eq!(of(function, &[max, -max, max]), Err("overflow"));
    }
    assert_eq!(of(Sum, &[max, max]), Err("overflow"));
    assert_eq!(of(Sum, &[max, max, -max]), Ok(Value::Float(max)));
    assert_eq!(of(Sum, &[max, -max, 1.5]), Ok(Value::Float(1.5)));
    assert_eq!(of(Avg, &[max, max, max]), Ok(Value::Float(max)));
    assert_eq!(of(Avg, &[1e300, 2e300]), Ok(Value::Float(1.5e300)));
    assert_eq!(of(Avg, &[1e-300, 3e-300]), Ok(Value::Float(2e-300)));
    assert_eq!(of(Avg, &[f64::INFINITY, f64::NEG_INFINITY]), Err("overflow"));
    assert_eq!(of(PercentileCont { fraction: 0.5 }, &[max, -max]), Ok(Value::Float(0.0)));
    assert!(of(PercentileCont { fraction: 0.75 }, &[max, -max]).is_ok());
    assert_eq!(of(PercentileCont { fraction: 0.5 }, &[f64::INFINITY]), Err("overflow"));
}

#[test]
fn a_sum_of_huge_floats_reads_back() {
    let sum = aggregate(AggregateFunction::Sum, false, &[]);
    let mut acc = Acc::new(&sum);
    for value in [Value::BigInt(3), Value::Float(1.5), Value::Float(f64::MAX)] {
        acc.add(&sum, &[value]).unwrap();
        let mut bytes = Vec::new();
        acc.write(&mut bytes);
        let mut reader = ByteReader::new(&bytes);
        assert_eq!(Acc::read(&sum, &mut reader).unwrap(), acc);
        assert!(reader.is_done());
    }
}

#[test]
fn collections_nest_no_deeper_than_stored_values() {
    use AggregateFunction::*;
    let nested = |levels: usize| (0..levels).fold(Value::BigInt(1), |inner, _| Value::array(vec![inner]));
    for (function, adds) in [(Collect, 1), (CollectTop { count: 2 }, 2), (TopOne, 0)] {
        let aggregate = aggregate(function, false, &[false]);
        let of = |levels: usize| {
            let mut acc = Acc::new(&aggregate);
            acc.add(&aggregate, &[nested(levels), Value::BigInt(1)]).unwrap();
            acc.finish(&aggregate)
        };
        assert!(of(DEPTH_MAX - adds).is_ok(), "{:?}", aggregate.function);
        let error = of(DEPTH_MAX - adds + 1).unwrap_err();
        assert_eq!(error.reason, "too_deep");
        assert!(error.message.starts_with(name(&aggregate.function)), "{}", error.message);
    }
}

#[test]
fn top_keeps_arrival_order_among_ties_and_null_is_smallest() {
    let top = aggregate(AggregateFunction::CollectTop { count: 3 }, false, &[true]);
    let row = |order: Value, name: &str| vec![Value::text(name), order];
    let rows = [
        row(Value::BigInt(1), "a"),
        row(Value::Null, "n"),
        row(Value::Float(2.0), "b"),
        row(Value::BigInt(2), "c"),
        row(Value::BigInt(0), "z"),
    ];
    assert_eq!(
        over(&top, &rows).to_json(),
        r#"[{"rank":1,"value":"b"},{"rank":2,"value":"c"},{"rank":3,"value":"a"}]"#
    );
}

proptest! {
    #[test]
    fn parts_merge_to_the_whole_and_state_reads_back(
        values in prop::collection::vec(prop::option::of(-50i64..50), 0..30),
        cut in 0usize..30,
    ) {
        use AggregateFunction::*;
        let rows: Vec<Vec<Value>> = values
            .iter()
            .map(|v| {
                let v = v.map_or(Value::Null, Value::BigInt);
                vec![v.clone(), v]
            })
            .collect();
        let cut = cut.min(rows.len());
        for (function, distinct) in [
            (Count, false),
            (Count, true),
            (Sum, false),
            (Min { text: false }, false),
            (Max { text: false }, false),
            (Collect, false),
            (CollectTop { count: 4 }, false),
            (TopOne, false),
            (PercentileDisc { fraction: 0.3 }, false),
            (Avg, true),
        ] {
            let aggregate = aggregate(function, distinct, &[false]);
            let (mut first, mut second) = (Acc::new(&aggregate), Acc::new(&aggregate));
            rows[..cut].iter().for_each(|row| first.add(&aggregate, row).unwrap());
            rows[cut..].iter().for_each(|row| second.add(&aggregate, row).unwrap());
            let mut bytes = Vec::new();
            first.write(&mut bytes);
            let mut reader = ByteReader::new(&bytes);
            prop_assert_eq!(&Acc::read(&aggregate, &mut reader).unwrap(), &first);
            prop_assert!(reader.is_done());
            first.merge(&aggregate, &second).unwrap();
            prop_assert_eq!(first.finish(&aggregate).unwrap(), over(&aggregate, &rows));
        }
    }
}

#[test]
fn what_does_not_belong_together_is_a_fault_and_adds_nothing() {
    let (sum, count) = (aggregate(AggregateFunction::Sum, false, &[]), aggregate(AggregateFunction::Count, false, &[]));
    let mut acc = Acc::new(&sum);
    acc.add(&sum, &[Value::BigInt(2)]).unwrap();
    assert!(acc.add(&sum, &[]).is_err(), "a row without the argument");
    assert!(acc.add(&sum, &[Value::text("2")]).is_err(), "an argument that was not prepared");
    assert!(acc.merge(&sum, &Acc::new(&count)).is_err(), "another aggregate");
    assert_eq!(acc.finish(&sum).map_err(|e| e.message), Ok(Value::BigInt(2)));
    let mut deviation = Acc::new(&aggregate(AggregateFunction::StDev, false, &[]));
    let nothing = deviation.clone();
    deviation.merge(&sum, &nothing).unwrap();
    assert_eq!(deviation, nothing);
}
