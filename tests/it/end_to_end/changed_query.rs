//! A query that is changed between two runs of the binary: rows of the old one still leave.

use forebay::demo::client::{Message, Receiver};

use super::{job, listen};
use crate::harness::{Forebay, until};
use crate::support::{Mosquitto, runtime};

#[test]
fn a_changed_query_loses_no_row_of_the_old_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let mut broker = Mosquitto::start();
    let out = Mosquitto::start();
    let queries = [
        "SELECT n, LAG(n) OVER (LIMIT DURATION(hour, 1)) AS before INTO plain FROM rides",
        "SELECT n AS number, LAG(n) OVER (LIMIT DURATION(hour, 1)) AS previous INTO plain FROM rides",
        "SELECT n AS direct INTO plain FROM rides",
    ];
    let extra = format!("[outputs.plain]\ntype = \"mqtt\"\nurl = \"{}\"\ntopic = \"out/plain\"\n", out.url());
    let (receiver, seen) = listen(&runtime, &out, "receiver", "out/plain");
    drop(receiver);
    let mut out = out;
    out.stop();
    for (i, query) in queries.iter().enumerate() {
        let path = job(dir.path(), &broker, query, &[], &[], &extra);
        let forebay = Forebay::run(&path);
        let messages =
            (0..3).map(|n| crate::support::Message::new("taxi/a/rides", format!("{{\"n\":{}}}", i * 3 + n))).collect();
        runtime.block_on(crate::support::publish(&broker.url(), messages));
        until("three rows more", || {
            (forebay.metric("forebay_input_stored_total") == (i as f64 + 1.0) * 3.0).then_some(())
        });
        until("them to be read", || {
            (i == 2 || forebay.metric("forebay_consumer_pending{job=\"test\",consumer=\"statement plain\"}") == 0.0)
                .then_some(())
        });
        if i < 2 {
            forebay.stop();
            continue;
        }
        out.start_again();
        let sink = seen.clone();
        let take = move |m: Message| {
            sink.lock()
                .expect("seen")
                .push((m.row_id.expect("an id"), serde_json::from_slice(&m.payload).expect("JSON")))
        };
        let _receiver =
            runtime.block_on(async { Receiver::listen("receiver", "127.0.0.1", out.port, "out/plain", take) });
        until("nine rows", || (seen.lock().expect("seen").len() >= 9).then_some(()));
        let mut numbers: Vec<(String, i64)> = Vec::new();
        for (_, row) in seen.lock().expect("seen").iter() {
            for name in ["n", "number", "direct"] {
                numbers.extend(row[name].as_i64().map(|n| (name.to_owned(), n)));
            }
        }
        numbers.sort_by_key(|(_, n)| *n);
        let expected: Vec<(String, i64)> =
            (0..9).map(|n| (["n", "number", "direct"][n as usize / 3].to_owned(), n)).collect();
        assert_eq!(numbers, expected);
        forebay.stop();
        break;
    }
    broker.stop();
}
