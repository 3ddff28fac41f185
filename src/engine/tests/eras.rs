//! Arrival time that is set back: what came before and what comes after have nothing to do with each other.

use super::*;

/// Rows in order, with their times; and what is left of the state.
type Given = (Vec<String>, Vec<(u32, Vec<u8>)>);

/// Feeds events in calls of the given lengths; from `begins` on they are of another era. After each call that says so
/// what was taken last goes on in a fresh executor.
fn feed_eras(
    part: &Part,
    options: &ExecutorOptions,
    events: &[(String, RawEvent)],
    begins: Option<usize>,
    cuts: &[(usize, bool)],
    ends: bool,
) -> Given {
    let fresh = || Executor::new(part, options.clone(), Some(half())).unwrap();
    let (mut executor, mut position) = (fresh(), 0);
    let mut state: BTreeMap<(u32, Vec<u8>), Vec<u8>> = BTreeMap::new();
    let mut out = Vec::new();
    let mut take = |executor: &mut Executor| {
        let emitted = executor.take();
        let times = emitted.rows.batch.meta().iter().map(|m| m.time.to_string());
        out.extend(lines(&emitted.rows).into_iter().zip(times).map(|(line, time)| format!("{time} {line}")));
        for change in emitted.state {
            match change.value {
                Some(value) => drop(state.insert((change.op, change.key), value)),
                None => drop(state.remove(&(change.op, change.key)).expect("a removed state row was there")),
            }
        }
        state.clone()
    };
    let mut push = |executor: &mut Executor, to: usize| {
        while position < to {
            if begins == Some(position) {
                executor.begin_era(1);
            }
            executor.push_events(&events[position].0, position as i64, std::slice::from_ref(&events[position].1));
            position += 1;
        }
    };
    let mut end = 0;
    for (length, crash) in cuts {
        end = (end + length).min(events.len());
        push(&mut executor, end);
        if *crash {
            let stored = take(&mut executor);
            executor = fresh();
            executor
                .load_state(stored.iter().map(|((op, key), value)| (*op, key.as_slice(), value.as_slice())))
                .unwrap();
        }
    }
    push(&mut executor, events.len());
    if begins == Some(events.len()) {
        executor.begin_era(1);
    }
    if ends {
        executor.finish();
    }
    let left = take(&mut executor).into_keys().collect();
    (out, left)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// The rows are those of the two eras alone, however the input is cut and whatever crashes; of the former nothing
    /// stays.
    #[test]
    fn two_eras_are_two_inputs(
        query in 0..QUERIES.len(),
        over in any::<bool>(),
        former in sent(),
        latter in sent(),
        cuts in prop::collection::vec((1usize..6, any::<bool>()), 0..12),
        out_of_order in 0i64..3,
    ) {
        let text = match over && query < 4 {
            true => QUERIES[query].replace("TIMESTAMP BY t", "TIMESTAMP BY t OVER k"),
            false => QUERIES[query].to_owned(),
        };
        let part = &parts(&text)[0];
        let policies = TimePolicies {
            late_tolerance: Some(3 * SECOND),
            out_of_order: out_of_order * SECOND,
            ..TimePolicies::default()
        };
        let options = ExecutorOptions { policies, ..ExecutorOptions::default() };
        // both begin at the same time, so the second lies in the past of the first
        let (former, latter) = (raw(&former), raw(&latter));
        let both: Vec<_> = former.iter().chain(&latter).cloned().collect();
        let begins = Some(former.len());
        let (mut alone, _) = feed_eras(part, &options, &former, None, &[], true);
        alone.extend(feed_eras(part, &options, &latter, None, &[], true).0);
        let (whole, _) = feed_eras(part, &options, &both, begins, &[], true);
        prop_assert_eq!(&alone, &whole);
        let (cut, _) = feed_eras(part, &options, &both, begins, &cuts, true);
        prop_assert_eq!(&whole, &cut);
        let (_, left) = feed_eras(part, &options, &former, begins, &cuts, false);
        prop_assert!(left.iter().all(|(op, _)| *op > u32::MAX - 4), "{:?}", left);
    }
}
