use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::batch::RawEvent;
use crate::journal::command::ask;
use crate::journal::{Append, Commit, ConsumerId, InputId};
use crate::time::Timestamp;

const HOUR: Duration = Duration::from_secs(3_600);
/// Records that are due at once.
const RECORDS: usize = 10;

fn append(records: usize, urgency: Urgency) -> Command {
    let event =
        RawEvent { arrival: Timestamp::MIN, payload: Bytes::from_static(b"x"), message: Arc::default(), mark: 0 };
    Command::Append(Append {
        input: InputId(1),
        events: vec![event; records],
        received: records as u64,
        undecodable: vec![],
        dropped: vec![],
        ledger: vec![],
        era: 0,
        urgency,
        on_durable: Box::new(|_| {}),
    })
}

fn commit(can_wait: bool) -> Command {
    Command::Commit(Commit { can_wait, ..Commit::at(ConsumerId(1), 1) }, Box::new(|_| {}))
}

/// Whether a writer that waits, as [`Queue::take`] does, is woken by a command. What is due at once does not wait.
fn wakes(queue: &Queue, rule: Rule, idle_until: Instant, lane: Lane, command: Command) -> bool {
    let mut state = queue.lock();
    let until = match state.due(rule) {
        Some(Due::At(due)) => due,
        Some(Due::Now) => panic!("it would not wait"),
        None => idle_until,
    };
    state.waits = Some((rule, until));
    drop(state);
    queue.push(lane, command);
    queue.lock().waits.is_none()
}

#[test]
fn a_command_wakes_the_writer_only_where_a_commit_is_due_sooner_by_it() {
    use Urgency::{AtOnce, InBudget, Soon};
    type Pushed = (Lane, fn() -> Command, bool);
    let consumer = Lane::Consumer(1);
    let later: Pushed = (consumer, || commit(true), false);
    // an hour until the next commit, a minute until one that is wanted soon; each line says whether a command wakes
    let busy: [&[Pushed]; 7] = [
        &[(Lane::Intake, || append(1, InBudget), true), later, later, (consumer, || commit(false), false)],
        &[(Lane::Intake, || append(1, InBudget), true), (Lane::Intake, || append(1, InBudget), false)],
        &[(Lane::Intake, || append(1, InBudget), true), (Lane::Intake, || append(1, Soon), true), later],
        &[(Lane::Intake, || append(1, InBudget), true), (Lane::Intake, || append(RECORDS, InBudget), true)],
        &[(Lane::Intake, || append(1, Soon), true), (Lane::Intake, || append(1, AtOnce), true)],
        &[(Lane::Intake, || append(1, InBudget), true), (Lane::Control, || ask(|_| Ok(())).0, true)],
        &[(consumer, || commit(true), true), later, (consumer, || commit(false), false)],
    ];
    let now = Clock::Real.monotonic();
    let rule = Rule { next: now + HOUR, next_soon: now + Duration::from_secs(60), records: RECORDS };
    // a commit may be made at once: only what can wait does
    let rested = Rule { next: now, next_soon: now, ..rule };
    let quiet: [&[Pushed]; 3] = [
        &[(consumer, || commit(true), true), later, later, (consumer, || commit(true), true)],
        &[(consumer, || commit(true), true), later, (consumer, || commit(false), true)],
        &[(consumer, || commit(true), true), later, (Lane::Intake, || append(1, InBudget), true)],
    ];
    let all = busy.map(|line| (rule, line)).into_iter().chain(quiet.map(|line| (rested, line)));
    for (i, (rule, line)) in all.enumerate() {
        let queue = Queue::default();
        for (j, (lane, command, expected)) in line.iter().enumerate() {
            let woken = wakes(&queue, rule, now + 2 * HOUR, *lane, command());
            assert_eq!(woken, *expected, "line {i}, command {j}");
        }
    }
    let upkeep = now + Duration::from_secs(1);
    assert!(!wakes(&Queue::default(), rule, upkeep, consumer, commit(true)), "it wakes by itself before");
}
