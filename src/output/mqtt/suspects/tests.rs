//! Brokers as tables of how connections ended.

use super::*;
use crate::output::mqtt::tests::config;
use crate::output::mqtt::{MessageLimits, Queue};
use crate::output::progress::Progress;
use crate::output::tests::{IDS, rows};
use crate::time::task_now;

/// A message of one row at topic `t/1`, by its place.
fn message(place: usize) -> RowMessage {
    message_at(1, place)
}

/// The same at topic `t/N`.
fn message_at(topic: i64, place: usize) -> RowMessage {
    let rows = rows([topic]);
    let mut progress = Progress::default();
    progress.begin(&rows, IDS);
    let limits = MessageLimits { rows: 1, bytes: 1_000 };
    let mut queue = Queue::new(&config(), limits, &rows, IDS, &mut progress, &Suspects::default());
    let mut message = queue.next().unwrap();
    message.rows[0].id = format!("{topic}-{place}");
    message
}

/// A broker at which a message of another topic has come through.
fn seen() -> Suspects {
    let mut suspects = Suspects::default();
    confirm(&mut suspects, &message_at(9, 0));
    suspects
}

fn confirm(suspects: &mut Suspects, message: &RowMessage) {
    let RowMessage { topic_name, rows, .. } = message;
    let row = rows[0].id.clone();
    let mut copy = message_at(topic_name.strip_prefix("t/").unwrap().parse().unwrap(), 0);
    copy.rows[0].id = row;
    suspects.confirmed(copy);
}

/// The broker closes a connection at this message; whether it confirms a witness before.
fn close(suspects: &mut Suspects, message: &RowMessage, confirms: bool, now: Instant) -> Finding {
    suspects.connected();
    if suspects.wanted_before().is_some() {
        if !confirms {
            // closed at the witness: the suspect was not sent
            return Finding::Open;
        }
        suspects.witness_confirmed();
    }
    suspects.ended_at(message, HowEnded::Closed, &"mqtt://h", now)
}

/// Connections until something is found.
fn connections(suspects: &mut Suspects, message: &RowMessage) -> (u32, Finding) {
    let now = task_now();
    for n in 1..50 {
        let found = close(suspects, message, true, now);
        if found != Finding::Open {
            return (n, found);
        }
    }
    panic!("nothing is found");
}

fn is_found(suspects: &mut Suspects, message: &RowMessage) -> bool {
    matches!(connections(suspects, message).1, Finding::AtFault { .. })
}

#[test]
fn a_row_is_found_by_five_connections_and_the_next_by_two() {
    let mut suspects = seen();
    let (n, found) = connections(&mut suspects, &message(0));
    assert_eq!(n, 5);
    assert!(
        matches!(&found, Finding::AtFault { why, is_proven: true }
            if why.contains("5 times") && why.contains("`t/1`")),
        "{found:?}"
    );
    assert_eq!(connections(&mut suspects, &message(1)).0, 2);
}

#[test]
fn a_broker_that_takes_nothing_blames_no_row() {
    for mut suspects in [seen(), Suspects::default()] {
        let now = task_now();
        for n in 0..1_000 {
            assert_eq!(close(&mut suspects, &message(0), false, now), Finding::Open);
            // nor one that closes at another message each time
            if n % 3 == 0 {
                assert_eq!(close(&mut suspects, &message(n), false, now), Finding::Open);
            }
        }
    }
}

#[test]
fn where_nothing_was_ever_confirmed_a_row_is_found_after_ten_minutes() {
    let mut suspects = Suspects::default();
    let begin = task_now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    for second in 0..60 {
        assert_eq!(close(&mut suspects, &message(0), false, at(second * 10)), Finding::Open);
    }
    assert!(matches!(close(&mut suspects, &message(0), false, at(600)), Finding::AtFault { is_proven: false, .. }));
    assert_eq!(close(&mut suspects, &message(1), false, at(601)), Finding::Open);
}

#[test]
fn a_topic_at_which_nothing_is_confirmed_costs_five_rows_and_then_waits() {
    let mut suspects = seen();
    let other = message_at(9, 1);
    for n in 0..5 {
        assert!(is_found(&mut suspects, &message(n)));
        confirm(&mut suspects, &other);
    }
    let (_, found) = connections(&mut suspects, &message(5));
    assert!(
        matches!(&found, Finding::TopicRefused(why) if why.contains("`t/1`, 5 of them are dead letters")),
        "{found:?}"
    );
    assert_eq!((suspects.turn("t/1"), suspects.turn("t/2")), (1, 0));
    assert!(!is_found(&mut suspects, &message(5)) && !is_found(&mut suspects, &message(5)), "as often as it is tried");
    confirm(&mut suspects, &other);
    assert!(!is_found(&mut suspects, &message(5)), "another topic says nothing of this one");
    confirm(&mut suspects, &message(7));
    assert_eq!(suspects.turn("t/1"), 0);
    assert!(is_found(&mut suspects, &message(8)));

    let mut suspects = seen();
    suspects.refused_at(&message(0).topic_name);
    assert!(!is_found(&mut suspects, &message(0)), "the broker has said that it is the topic");
}

/// The broker does not confirm this message; whether it confirms what is sent behind it.
fn keep_silent(suspects: &mut Suspects, message: &RowMessage, confirms: bool, now: Instant) -> Finding {
    suspects.connected();
    assert!(suspects.wanted_before().is_none());
    if suspects.wanted_behind(message).is_some() && confirms {
        suspects.witness_confirmed();
    }
    suspects.ended_at(message, HowEnded::Silent(Duration::from_secs(30)), &"mqtt://h", now)
}

#[test]
fn a_row_that_is_never_confirmed_is_found_by_six_connections_each_time() {
    let (mut suspects, now) = (seen(), task_now());
    for place in 0..2 {
        for _ in 0..5 {
            assert_eq!(keep_silent(&mut suspects, &message(place), true, now), Finding::Open);
            assert!(!suspects.is_early(), "half a minute passes before each: it is told");
            assert!(suspects.wanted_behind(&message(7)).is_none(), "it is no suspect");
        }
        let found = keep_silent(&mut suspects, &message(place), true, now);
        let Finding::AtFault { why, is_proven: true } = found else { panic!("not found") };
        assert!(why.contains("did not confirm this within 30 s, 6 times, and confirmed what came behind"), "{why}");
    }
    assert_eq!(connections(&mut suspects, &message(2)).0, 5, "it is not known to close connections");
}

#[test]
fn silence_and_closings_are_proofs_apart() {
    let (mut suspects, now) = (seen(), task_now());
    for _ in 0..3 {
        assert_eq!(keep_silent(&mut suspects, &message(0), true, now), Finding::Open);
    }
    // the broker goes away and comes back
    for _ in 0..3 {
        suspects.connected();
        assert_eq!(suspects.ended_at(&message(0), HowEnded::Closed, &"mqtt://h", now), Finding::Open);
    }
    assert!(suspects.wanted_before().is_some(), "a closing is proven by closings alone");
}

#[test]
fn a_broker_that_confirms_nothing_blames_no_row_by_its_silence() {
    let begin = task_now();
    for mut suspects in [seen(), Suspects::default()] {
        for minute in 0..1_000 {
            let now = begin + Duration::from_secs(minute * 60);
            assert_eq!(keep_silent(&mut suspects, &message(0), false, now), Finding::Open);
        }
    }
}

#[test]
fn a_row_that_is_rejected_is_no_suspect_any_more() {
    let (mut suspects, now) = (seen(), task_now());
    for _ in 0..3 {
        close(&mut suspects, &message(0), true, now);
    }
    assert!(suspects.wanted_before().is_some());
    suspects.settled(&message(1));
    assert!(suspects.wanted_before().is_some());
    suspects.settled(&message(0));
    assert!(suspects.wanted_before().is_none());
}

#[test]
fn a_topic_for_each_row_costs_no_more_rows_while_nothing_is_confirmed() {
    let mut suspects = seen();
    let at_fault = (0..20).filter(|n| is_found(&mut suspects, &message_at(*n, 0))).count();
    assert_eq!(at_fault, 5);
    confirm(&mut suspects, &message_at(50, 0));
    assert!(is_found(&mut suspects, &message_at(51, 0)));
}

#[test]
fn a_row_that_is_confirmed_after_all_is_no_suspect_and_clears_what_was_known() {
    let mut suspects = seen();
    connections(&mut suspects, &message(0));
    let now = task_now();
    assert_eq!(close(&mut suspects, &message(1), true, now), Finding::Open);
    assert!(suspects.wanted_before().is_some());
    confirm(&mut suspects, &message(2));
    assert!(suspects.wanted_before().is_some(), "another row says nothing of it");
    confirm(&mut suspects, &message(1));
    assert!(suspects.wanted_before().is_none());
    assert_eq!(connections(&mut suspects, &message(3)).0, 5);
}

#[test]
fn of_refused_topics_the_one_that_was_tried_last_comes_last() {
    let mut suspects = seen();
    let (one, two) = (message_at(1, 0), message_at(2, 0));
    suspects.refused_at(&one.topic_name);
    suspects.refused_at(&two.topic_name);
    assert!(suspects.turn("t/1") < suspects.turn("t/2"));
    assert!(matches!(suspects.ended_at(&one, HowEnded::Closed, &"h", task_now()), Finding::TopicRefused(_)));
    assert!(suspects.turn("t/1") > suspects.turn("t/2"));
}
