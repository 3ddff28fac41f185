//! Too much state of a query: acknowledgements to mosquitto wait until there is room for it again.

use std::time::Duration;

use forebay::demo::fleet::Fleet;

use super::{distinct, job, listen, publish};
use crate::harness::{Forebay, until, write};
use crate::support::{Mosquitto, runtime};

#[test]
fn too_much_state_withholds_acknowledgements_and_a_larger_budget_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    // no window ends while the test runs, and each ride is a key of its own
    let query = "SELECT rideId, COUNT(*) AS n INTO windows FROM rides GROUP BY rideId, TumblingWindow(day, 7)
        SELECT rideId INTO direct FROM rides";
    let path = job(dir.path(), &broker, query, &[], &["windows", "direct"], "");
    let text = std::fs::read_to_string(&path).expect("the job file");
    let with_budget = |max: &str| {
        write(dir.path(), "job.toml", &text.replacen("[job]\n", &format!("[job]\nstate_bytes_max = \"{max}\"\n"), 1))
    };
    let path = with_budget("64KiB");
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/direct");
    let mut forebay = Forebay::run(&path);
    let mut fleet = Fleet::new(6);
    publish(&runtime, &broker, &mut fleet, 500);
    until("intake to stop", || (forebay.metric("forebay_state_full") == 1.0).then_some(()));
    publish(&runtime, &broker, &mut fleet, 400);
    // what was handed over before intake stopped is stored a moment later
    let stored = until("the other statement to go on with all that is stored", || {
        let stored = forebay.metric("forebay_input_stored_total");
        forebay::time::pause(Duration::from_millis(500));
        let is_all = stored == forebay.metric("forebay_input_stored_total") && distinct(&seen) == stored as usize;
        is_all.then_some(stored)
    });
    let (status, body) = forebay.get("/readyz");
    assert_eq!(status, 503, "{body}");
    assert!(
        body.contains("most of it windows: intake waits until windows close; raise state_bytes_max in [job]"),
        "{body}"
    );
    assert!(forebay.log().contains("raise state_bytes_max in [job]"), "{}", forebay.log());
    assert_eq!(forebay.get("/healthz").0, 200);
    assert!(forebay.metric("forebay_state_bytes{") >= f64::from(56 << 10));
    assert_eq!(forebay.metric("forebay_input_stored_total"), stored, "nothing is stored meanwhile");
    assert!(forebay.is_alive());
    forebay.stop();

    let mut forebay = Forebay::run(&with_budget("16MiB"));
    until("everything stored", || (forebay.metric("forebay_input_stored_total") == 900.0).then_some(()));
    until("everything delivered", || (distinct(&seen) == 900).then_some(()));
    until("everything in a window", || {
        (forebay.metric("forebay_statement_evaluated_total{job=\"test\",statement=\"windows\"}") == 900.0).then_some(())
    });
    assert_eq!(forebay.metric("forebay_state_full"), 0.0);
    assert!(forebay.is_alive());
    forebay.stop();
}

#[test]
fn windows_that_close_make_room_for_more_state() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let query = "SELECT rideId, COUNT(*) AS n INTO windows FROM rides GROUP BY rideId, TumblingWindow(second, 3)";
    let path = job(dir.path(), &broker, query, &[], &["windows"], "");
    let text = std::fs::read_to_string(&path).expect("the job file").replacen(
        "[job]\n",
        "[job]\nstate_bytes_max = \"64KiB\"\n",
        1,
    );
    let path = write(dir.path(), "job.toml", &text);
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/windows");
    let forebay = Forebay::run(&path);
    publish(&runtime, &broker, &mut Fleet::new(7), 900);
    // time alone closes the windows; nothing else makes room
    until("every ride in a window", || (distinct(&seen) == 900).then_some(()));
    until("all state gone", || (forebay.metric("forebay_state_full") == 0.0).then_some(()));
    let log = forebay.log();
    assert!(
        log.contains("intake waits until windows close") && log.contains("state has shrunk: intake goes on"),
        "{log}"
    );
    forebay.stop();
}

#[test]
fn a_statement_that_stopped_gives_its_share_of_the_state_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let query = "SELECT k, COUNT(*) AS n, SUM(CAST(v AS bigint)) AS s INTO windows FROM rides GROUP BY k, \
        TumblingWindow(day, 7)
        SELECT k INTO direct FROM rides";
    let path = job(dir.path(), &broker, query, &[], &["windows", "direct"], "");
    let text = std::fs::read_to_string(&path).expect("the job file");
    let head = "[job]\nstate_bytes_max = \"64KiB\"\non_error = \"stop\"\n";
    let path = write(dir.path(), "job.toml", &text.replacen("[job]\n", head, 1));
    let forebay = Forebay::run(&path);
    // 2,500 keys in one message are stored together; the last row stops the statement that holds them
    let object = |n: usize| {
        format!("{{\"k\":\"key-{n}\",\"v\":{}}}", if n == 2_499 { "\"x\"".to_owned() } else { n.to_string() })
    };
    let all: Vec<String> = (0..2_500).map(object).collect();
    let message = crate::support::Message::new("taxi/a/rides", format!("[{}]", all.join(",")));
    runtime.block_on(crate::support::publish(&broker.url(), vec![message]));
    until("the statement to stop", || forebay.log().contains("statement windows stopped at offset").then_some(()));
    until("its state to be gone", || (forebay.metric("forebay_state_full") == 0.0).then_some(()));
    let again = crate::support::Message::new("taxi/a/rides", r#"{"k":"later","v":1}"#);
    runtime.block_on(crate::support::publish(&broker.url(), vec![again]));
    until("what comes later to be stored", || (forebay.metric("forebay_input_stored_total") == 2_501.0).then_some(()));
    until("the other statement to go on", || {
        (forebay.metric("forebay_statement_rows_out_total{job=\"test\",statement=\"direct\"}") == 2_501.0).then_some(())
    });
    forebay.stop();
}
