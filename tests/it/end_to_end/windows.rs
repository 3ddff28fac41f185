//! Windows of quiet devices behind mosquitto: they close, with a call in between and after a kill.

use std::collections::HashMap;
use std::time::Duration;

use forebay::demo::fleet::Fleet;

use super::{Seen, job, listen, publish};
use crate::harness::{Forebay, until};
use crate::score::Server;
use crate::support::{Mosquitto, runtime};

#[test]
fn tumbling_windows_close_on_a_quiet_device_and_survive_a_kill() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let query = "SELECT deviceId, COUNT(*) AS n, SUM(distance) AS total, System.Timestamp() AS at INTO windows FROM \
        rides GROUP BY deviceId, TumblingWindow(second, 4)";
    let path = job(dir.path(), &broker, query, &[], &["windows"], "");
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/windows");
    let mut fleet = Fleet::new(4);
    let mut sent = 0;
    for _ in 0..3 {
        let forebay = Forebay::run(&path);
        sent += publish(&runtime, &broker, &mut fleet, 500).len();
        until("all stored", || (forebay.metric("forebay_input_stored_total") == sent as f64).then_some(()));
        forebay.kill();
    }
    let forebay = Forebay::run(&path);
    let counted = |seen: &Seen| {
        let seen = seen.lock().expect("seen");
        let rows: HashMap<&str, i64> =
            seen.iter().map(|(id, row)| (id.as_str(), row["n"].as_i64().expect("n"))).collect();
        rows.values().sum::<i64>()
    };
    // nothing is sent any more: ticks alone must close the last window
    until("every ride in exactly one window", || (counted(&seen) >= sent as i64).then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(counted(&seen), sent as i64);
    forebay.stop();
}

#[test]
fn windows_behind_a_call_close_when_the_device_is_quiet() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let server = Server::start("array");
    let query = "WITH Scored AS (SELECT deviceId, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, \
        distance)) AS fare FROM rides)
        SELECT COUNT(*) AS n, SUM(fare) AS total INTO windows FROM Scored GROUP BY TumblingWindow(second, 2)";
    let path = job(dir.path(), &broker, query, &[("score", server.address())], &["windows"], "");
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/windows");
    let forebay = Forebay::run(&path);
    publish(&runtime, &broker, &mut Fleet::new(5), 50);
    let counted = || seen.lock().expect("seen").iter().map(|(_, row)| row["n"].as_i64().expect("n")).sum::<i64>();
    until("all rides in closed windows", || (counted() == 50).then_some(()));
    forebay.stop();
}
