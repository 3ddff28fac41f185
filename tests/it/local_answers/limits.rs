//! How long rows wait to be scored again, and how much room they may take: those that are dropped keep their first
//! answer, and are counted.

use super::*;
use crate::support::{Message, publish, succeeds};

const RESCORED: &str = "statement out/rescore";

fn counted(forebay: &Forebay, what: &str, consumer: &str, reason: &str) -> f64 {
    let labels = format!("{{job=\"test\",consumer=\"{consumer}\",reason=\"{reason}\"");
    forebay.metric(&format!("forebay_consumer_{what}_total{labels}"))
}

fn skipped(forebay: &Forebay, consumer: &str, reason: &str) -> f64 {
    counted(forebay, "skipped", consumer, reason)
}

/// Skipped, or in hand of the part that asks the endpoint when it was moved past them.
fn passed(forebay: &Forebay, consumer: &str, reason: &str) -> f64 {
    skipped(forebay, consumer, reason) + counted(forebay, "in_hand", consumer, reason)
}

/// The numbers that were corrected, in order.
fn corrected(rows: &BTreeMap<(String, i64), Row>) -> Vec<i64> {
    let mut numbers: Vec<i64> = rows.values().filter(|row| row.revision == 1).map(|row| row.n).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn rows_older_than_max_age_are_not_scored_again() {
    let keys = "input_kind = \"vector\"\nfallback_after = \"0s\"\nrescore = true\nmax_age = \"5s\"";
    let place = Place::new(keys, "", QUERY);
    let forebay = place.outage(Mood::Busy, 0..40);
    answered(&place.wait_for(&forebay, 40), 0..40, "udf.local", 0);
    until(&format!("all of them to be dropped; log:\n{}", forebay.log()), || {
        (passed(&forebay, RESCORED, "age") == 40.0).then_some(())
    });
    let of_all = ["forebay_consumer_skipped_total", "forebay_consumer_in_hand_total"].map(|name| forebay.metric(name));
    assert_eq!(of_all.iter().sum::<f64>(), 40.0, "nobody else has lost any");
    assert!(forebay.stop().success());
    place.is_good();
    // the next outage's rows come behind them, so corrections of these would be there before
    place.edit("max_age = \"5s\"", "");
    let forebay = place.run();
    assert_eq!(skipped(&forebay, RESCORED, "age"), 40.0, "what it had in hand at the stop is dropped");
    assert!(forebay.log().contains("are dropped"), "{}", forebay.log());
    place.send(40..50);
    answered(&place.wait_for(&forebay, 50), 40..50, "udf.local", 0);
    place.model.is(Mood::Well);
    let rows = place.wait_for(&forebay, 60);
    assert_eq!(corrected(&rows), (40..50).collect::<Vec<_>>());
    assert!(forebay.stop().success());
    let status = succeeds(place.dir(), &["journal", "status", "--job", "job.toml"]);
    assert!(status.contains("40 skipped (age)"), "{status}");
    place.is_good();
}

#[test]
fn the_oldest_rows_beyond_their_share_are_not_scored_again_and_those_within_it_are() {
    const ROWS: i64 = 2_000;
    let keys = "input_kind = \"vector\"\nfallback_after = \"0s\"\nrescore = true\n\
        on_full = \"drop-oldest\"\nmax_bytes = \"1MiB\"";
    let place = Place::new(keys, "", "SELECT n, noise, udf.score(n) AS s INTO out FROM t");
    let mut rng = fastrand::Rng::with_seed(7);
    let mut message = |n: i64| {
        let noise: String = (0..1_500).map(|_| rng.alphanumeric()).collect();
        Message::new("t", format!(r#"{{"n":{n},"noise":"{noise}"}}"#))
    };
    let forebay = place.outage(Mood::Busy, 0..0);
    // the share is that of the rows that wait for their first answer as well: all of these are far below it
    for first in (0..ROWS).step_by(250) {
        let messages = (first..first + 250).map(&mut message).collect();
        place.runtime.block_on(publish(&place.broker.url(), messages));
        place.wait_for(&forebay, first as usize + 250);
    }
    until("the oldest to be dropped", || (passed(&forebay, RESCORED, "share") >= 1_000.0).then_some(()));
    assert_eq!(skipped(&forebay, "statement out", "share"), 0.0, "every row has its first answer");
    let told_before = forebay.log().contains("are dropped");
    assert!(forebay.stop().success());
    place.model.is(Mood::Well);
    let forebay = place.run();
    assert!(told_before || forebay.log().contains("are dropped"), "{}", forebay.log());
    let dropped = || skipped(&forebay, RESCORED, "share") as i64;
    let rows = until(&format!("the others to be corrected; log:\n{}", forebay.log()), || {
        let rows: BTreeMap<_, _> = place.rows().into_iter().map(|row| ((row.id.clone(), row.revision), row)).collect();
        (rows.len() as i64 >= 2 * ROWS - dropped()).then_some(rows)
    });
    assert!((1_000..ROWS).contains(&dropped()), "{}", dropped());
    assert_eq!(corrected(&rows), (dropped()..ROWS).collect::<Vec<_>>());
    answered(&rows, dropped()..ROWS, "score", 1);
    assert!(forebay.stop().success());
    place.is_good();
}
