use std::time::Duration;

use super::*;
use crate::mqtt::line::Line;
use crate::mqtt::wire;
use crate::mqtt::{BrokerConfig, MqttAddress};
use crate::output::tests::{IDS, rows};
use crate::settings::Text;
use crate::time::task_now;

/// An output with a topic of its own for each value of `n`.
pub(super) fn config() -> MqttOutputConfig {
    let broker = BrokerConfig::new(MqttAddress::parse("mqtt://h").unwrap());
    let text = Text { value: "t/{n}".to_owned(), span: crate::diagnostic::Span::default() };
    MqttOutputConfig::new(broker, TopicTemplate::parse(&text).unwrap())
}

/// The same topic for all rows.
pub(super) fn fixed() -> TopicTemplate {
    TopicTemplate::parse(&Text { value: "t".to_owned(), span: crate::diagnostic::Span::default() }).unwrap()
}

#[tokio::test]
async fn a_connection_that_ends_means_an_output_only_while_no_other_sends_over_it() {
    let line = Arc::new(Line::default());
    let one = Way::of_input("a", line.clone());
    let beside = one.send_right(false).await;
    assert!(one.is_meant(beside.as_ref()), "there is no other");
    let other = Way::of_input("a", line);
    let beside_too = other.send_right(false).await;
    assert!(!one.is_meant(beside.as_ref()) && !other.is_meant(beside_too.as_ref()));

    let soon = Duration::from_millis(20);
    assert!(tokio::time::timeout(soon, one.send_right(true)).await.is_err(), "the other is still sending");
    drop((beside, beside_too));
    let alone = one.send_right(true).await;
    assert!(one.is_meant(alone.as_ref()));
    assert!(tokio::time::timeout(soon, other.send_right(false)).await.is_err(), "it has the line for itself");
    drop(alone);
    assert!(other.send_right(false).await.is_some());
}

#[tokio::test]
async fn a_row_is_rejected_only_when_the_broker_means_it() {
    let refused = || Trouble { rejection: Some("too large".to_owned()), ..Trouble::new("it ended".to_owned()) };
    for (is_meant, delivery) in
        [(true, Delivery::Rejected { rows: vec![(0, "too large".to_owned())] }), (false, Delivery::Delivered)]
    {
        let way = Way::of_input("a", Arc::new(Line::default()));
        let mut output = MqttOutput::new(config(), way, Arc::default());
        let rows = rows([1]);
        output.progress.begin(&rows, IDS);
        let limits = output.limits();
        let suspect = Queue::new(&output.config, limits, &rows, IDS, &mut output.progress, &output.suspects).next();
        assert!(suspect.is_some());
        let attempt = Attempt { trouble: refused(), suspect, had_several: false, is_meant, how: None };
        assert_eq!(output.failed(attempt, IDS.consumer), None, "the row is looked for, or found, at once");
        assert_eq!(output.searches.contains_key(IDS.consumer), !is_meant);
        assert_eq!(output.progress.finish(), delivery);
    }
}

#[tokio::test]
async fn connections_that_we_left_ourselves_are_no_reason_to_look_for_a_row() {
    for (is_ours, searches) in [(true, false), (false, true)] {
        let way = Way::of_input("a", Arc::new(Line::default()));
        let mut output = MqttOutput::new(config(), way, Arc::default());
        for _ in 0..LOSSES_MAX {
            let trouble = Trouble { is_ours, ..Trouble::new("it ended".to_owned()) };
            let attempt = Attempt { trouble, suspect: None, had_several: true, is_meant: true, how: None };
            assert!(output.failed(attempt, IDS.consumer).is_some());
        }
        assert_eq!(output.searches.contains_key(IDS.consumer), searches);
    }
}

#[tokio::test]
async fn an_output_waits_longer_while_the_broker_confirms_what_others_sent() {
    let line = Arc::new(Line::default());
    let (way, other) = (Way::of_input("a", line.clone()), Way::of_input("a", line));
    let patience = Duration::from_millis(500);
    assert!(way.within(patience, std::future::pending::<()>()).await.is_err());
    let others = async {
        loop {
            tokio::time::sleep(patience / 10).await;
            other.confirmed();
        }
    };
    let done = tokio::select! {
        done = way.within(patience, tokio::time::sleep(patience * 2)) => done,
        () = others => Ok(()),
    };
    assert!(done.is_ok());
}

/// An attempt that ended with the one row of the batch under way.
fn ended_at_row(output: &mut MqttOutput, rows: &Rows, how: HowEnded) -> Attempt {
    output.progress.begin(rows, IDS);
    let limits = output.limits();
    let suspect = Queue::new(&output.config, limits, rows, IDS, &mut output.progress, &output.suspects).next();
    let trouble = Trouble { is_ours: how != HowEnded::Closed, ..Trouble::new("it ended".to_owned()) };
    Attempt { trouble, suspect, had_several: false, is_meant: true, how: Some(how) }
}

/// An output at whose broker another row came through.
fn output_with_witness() -> MqttOutput {
    let mut output = MqttOutput::new(config(), Way::of_input("a", Arc::new(Line::default())), Arc::default());
    let witness = ended_at_row(&mut output, &rows([9]), HowEnded::Closed).suspect;
    output.suspects.confirmed(witness.unwrap());
    output
}

#[tokio::test]
async fn a_step_of_a_search_that_tells_something_makes_no_pause_longer() {
    let (rows, first) = (rows([1]), Backoff::BROKER.base);
    let mut output = output_with_witness();
    // whether the broker confirms what is sent behind the row, and what is said then
    let steps = [false, true, true, true, true, true].map(|is_confirmed| {
        output.suspects.connected();
        if is_confirmed {
            output.suspects.witness_confirmed();
        }
        let attempt = ended_at_row(&mut output, &rows, HowEnded::Silent(Duration::from_secs(30)));
        let said = output.failed(attempt, IDS.consumer);
        assert!(!is_confirmed || output.not_before.unwrap() <= task_now() + first);
        said
    });
    let again =
        |got_further| Some(Delivery::TryAgain { reason: "it ended".to_owned(), got_further, is_untouched: false });
    assert_eq!(steps, [again(false), again(true), again(true), again(true), again(true), None]);
    assert!(matches!(output.progress.finish(), Delivery::Rejected { .. }));
}

#[tokio::test]
async fn a_broker_that_confirms_nothing_is_tried_less_and_less_often() {
    for how in [HowEnded::Silent(Duration::from_secs(30)), HowEnded::Closed] {
        let (rows, mut output) = (rows([1]), output_with_witness());
        let mut longest = Duration::ZERO;
        for _ in 0..100 {
            output.suspects.connected();
            let attempt = ended_at_row(&mut output, &rows, how);
            if let Some(said) = output.failed(attempt, IDS.consumer) {
                assert!(matches!(said, Delivery::TryAgain { got_further: false, .. }), "{said:?}");
            }
            longest = longest.max(output.not_before.unwrap().duration_since(task_now()));
        }
        assert!(longest > Duration::from_secs(10), "{how:?}: {longest:?}");
    }
}

#[tokio::test]
async fn who_waited_for_others_sends_over_the_connection_that_is_there_then() {
    let line = Arc::new(Line::default());
    let ((first, _of_first), (second, _of_second)) = (wire::unpolled().await, wire::unpolled().await);
    line.up(first, None);
    let alone = Way::of_input("a", line.clone()).send_right(true).await;
    let mut output = MqttOutput::new(config(), Way::of_input("a", line.clone()), Arc::default());
    {
        let turn = output.turn(IDS.consumer);
        tokio::pin!(turn);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut turn).await.is_err(), "another has the line");
        line.down(Trouble::new("the other left it".to_owned()));
        line.up(second, None);
        drop(alone);
        assert!(turn.await.unwrap().is_some());
    }
    assert!(output.session.as_ref().is_some_and(|session| !output.way.is_over(session)));
}
