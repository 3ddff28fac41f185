//! A job that outages cut off and one that nothing disturbs, over the same events of one mosquitto: the same rows.
//!
//! Both jobs go by one clock, which the test moves. The links of the first run through gates: that of the input, of the
//! endpoint and of the outputs. What is compared is what came out of either, with the ids where they do not depend on
//! how the events were cut.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes as Body;
use axum::routing::post;
use forebay::job;
use forebay::journal::{Edge, verify};
use forebay::pipeline::{Pipeline, prepare};
use forebay::time::{Clock, TICKS_PER_MILLISECOND};
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::{Message, Mosquitto, Subscriber, publish, wait_until, write_job};

/// By the clock of the jobs.
const OUTAGE_S: i64 = 40;

const QUERY: &str = "
WITH s AS (SELECT deviceId, n, udf.score(n) AS v FROM t TIMESTAMP BY at),
l AS (SELECT deviceId, n, udf.score(n) AS v FROM t TIMESTAMP BY at OVER deviceId)
SELECT n, deviceId INTO plain FROM t;

SELECT deviceId, COUNT(*) AS c, SUM(n) AS s, System.Timestamp() AS at
INTO tumbling FROM t TIMESTAMP BY at GROUP BY deviceId, TumblingWindow(second, 2);

SELECT deviceId, COUNT(*) AS c, SUM(n) AS s, System.Timestamp() AS at
INTO session FROM t TIMESTAMP BY at GROUP BY deviceId, SessionWindow(second, 3, 20) OVER (PARTITION BY deviceId);

SELECT deviceId, n, LAG(n) OVER (PARTITION BY deviceId LIMIT DURATION(hour, 1)) AS before, System.Timestamp() AS at
INTO lag FROM t TIMESTAMP BY at;

SELECT deviceId, n, LAG(n) OVER (PARTITION BY deviceId LIMIT DURATION(hour, 1)) AS before, System.Timestamp() AS at
INTO laglane FROM t TIMESTAMP BY at OVER deviceId;

SELECT deviceId, COUNT(*) AS c, SUM(n) AS s, System.Timestamp() AS at
INTO lanes FROM t TIMESTAMP BY at OVER deviceId GROUP BY deviceId, TumblingWindow(second, 2);

SELECT deviceId, COUNT(*) AS c, SUM(v) AS s, System.Timestamp() AS at
INTO scored FROM s GROUP BY deviceId, TumblingWindow(second, 2);

SELECT deviceId, COUNT(*) AS c, SUM(v) AS s, System.Timestamp() AS at
INTO scoredlane FROM l GROUP BY deviceId, TumblingWindow(second, 2);
";
const OUTPUTS: [&str; 8] = ["plain", "tumbling", "session", "lag", "laglane", "lanes", "scored", "scoredlane"];

/// What may be away.
const INPUT: usize = 0;
const ENDPOINT: usize = 1;
const OUTPUT: usize = 2;

/// Passes connections on while it is open; while it is shut, those there are break and new ones are closed at once.
struct Gate {
    port: u16,
    open: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Gate {
    async fn to(port: u16) -> Gate {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let here = listener.local_addr().unwrap().port();
        let (open, state) = watch::channel(true);
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut state = state.clone();
                if !*state.borrow_and_update() {
                    continue;
                }
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = state.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Gate { port: here, open, accepting }
    }

    fn shut(&self) {
        self.open.send_replace(false);
    }

    fn open(&self) {
        self.open.send_replace(true);
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A running job, and who listens to its outputs.
struct Running {
    name: &'static str,
    dir: TempDir,
    pipeline: Pipeline,
    listening: Subscriber,
}

impl Running {
    async fn start(
        name: &'static str,
        broker: &Mosquitto,
        gates: [&Gate; 3],
        tolerance_s: i64,
        clock: &Clock,
    ) -> Running {
        let [input, endpoint, outputs] = gates;
        let listening = Subscriber::start(&broker.url(), &format!("{name}/+")).await;
        let mut text = format!(
            "[job]\nname = \"{name}\"\nquery = \"job.asaql\"\nlate_tolerance = \"{tolerance_s}s\"\n\
             out_of_order_tolerance = \"1s\"\n[metrics]\nenabled = false\n[journal]\npath = \"pool.db\"\n\
             [inputs.t]\ntype = \"mqtt\"\nurl = \"{}\"\ntopics = [\"in\"]\n\
             [functions.score]\ntype = \"azureml\"\nurl = \"{}/score\"\ninput_kind = \"vector\"\n",
            input.url("mqtt"),
            endpoint.url("http"),
        );
        for output in OUTPUTS {
            let url = outputs.url("mqtt");
            text += &format!(
                "[outputs.{output}]\ntype = \"mqtt\"\nurl = \"{url}\"\ntopic = \"{name}/{output}\"\nrow_id = \"id\"\n"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let job = job::load(&write_job(dir.path(), &text, QUERY)).unwrap_or_else(|e| panic!("{e}"));
        let prepared = prepare::prepare(&job).unwrap_or_else(|e| panic!("{e}"));
        let pipeline = Pipeline::start(&job, &prepared, clock.clone()).await.unwrap();
        wait_until("the subscription", || pipeline.report().not_ready.is_empty()).await;
        Running { name, dir, pipeline, listening }
    }

    fn counted(&self, edge: Edge, what: &str) -> u64 {
        let ledger = self.pipeline.journal().ledger();
        ledger.iter().filter(|(c, _)| c.edge == edge && c.what == what).map(|(_, n)| n).sum()
    }

    async fn stores(&self, events: usize) {
        let stored = || self.counted(Edge::Input, "stored");
        wait_until(&format!("{} stores {events} events", self.name), || stored() == events as u64).await;
    }

    /// What came out of an output, each row once, without the incarnation in its id. Where ids depend on what was read
    /// together they are left out.
    fn rows(&self, output: &str) -> Vec<Json> {
        let payloads = self.listening.payloads_at(&format!("{}/{output}", self.name));
        let mut seen = HashSet::new();
        let mut rows = Vec::new();
        for payload in payloads {
            let mut row: Json = serde_json::from_str(&payload).unwrap();
            let id = row.as_object_mut().unwrap().remove("id").unwrap().as_str().unwrap().to_owned();
            if output == "plain" {
                row["id"] = id.split_once('-').unwrap().1.into();
            }
            if seen.insert(id) {
                rows.push(row);
            }
        }
        rows
    }
}

/// What came out of an output, by device, in its order.
type Rows = BTreeMap<String, Vec<String>>;

/// What both jobs gave: by output, first that without outages.
struct Outcome {
    rows: BTreeMap<&'static str, [Rows; 2]>,
    /// Events that were moved in time.
    adjusted: [u64; 2],
}

/// Runs both jobs; in each phase these peers of the one are away.
async fn both(tolerance_s: i64, phases: &[&[usize]]) -> Outcome {
    let clock = Clock::manual(Clock::Real.now());
    let broker = Mosquitto::start();
    let scorer = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let scorer_port = scorer.local_addr().unwrap().port();
    let serving = tokio::spawn(async move { axum::serve(scorer, Router::new().route("/score", post(doubled))).await });
    let through = [Gate::to(broker.port).await, Gate::to(scorer_port).await, Gate::to(broker.port).await];
    let aside = [Gate::to(broker.port).await, Gate::to(scorer_port).await, Gate::to(broker.port).await];
    let calm = Running::start("calm", &broker, aside.each_ref(), tolerance_s, &clock).await;
    let rough = Running::start("rough", &broker, through.each_ref(), tolerance_s, &clock).await;
    let mut sent = 0;
    for away in phases {
        away.iter().for_each(|gate| through[*gate].shut());
        // some before and some after, so that windows are open at either end of an outage
        for _ in 0..2 {
            publish(&broker.url(), events(&clock, &mut sent)).await;
            calm.stores(sent).await;
            if !away.contains(&INPUT) {
                rough.stores(sent).await;
            }
            pass(&clock, OUTAGE_S / 2).await;
        }
        through.iter().for_each(Gate::open);
        rough.stores(sent).await;
    }
    for job in [&calm, &rough] {
        for output in OUTPUTS {
            let name = job.name;
            wait_until(&format!("all rows of {output} of {name}"), || {
                // the last windows close by the clock
                clock.advance(Duration::from_millis(100));
                let rows = job.rows(output);
                let counted: u64 = rows.iter().map(|row| row["c"].as_u64().unwrap_or(1)).sum();
                assert!(counted <= sent as u64, "{name}/{output}: {rows:?}");
                counted == sent as u64
            })
            .await;
        }
    }
    let both = [calm, rough];
    let rows = OUTPUTS.map(|output| (output, both.each_ref().map(|job| by_device(job.rows(output)))));
    let adjusted = both.each_ref().map(|job| job.counted(Edge::Statement, "adjusted"));
    for job in both {
        assert_eq!(job.counted(Edge::Input, "received"), job.counted(Edge::Input, "stored"), "{}", job.name);
        job.pipeline.stop().await.unwrap();
        assert!(verify(&job.dir.path().join("pool.db")).unwrap().is_good(), "{}", job.name);
    }
    serving.abort();
    Outcome { rows: rows.into(), adjusted }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rows_after_outages_are_those_without() {
    let all = [INPUT, ENDPOINT, OUTPUT];
    let outcome = both(OUTAGE_S + 20, &[&[], &[INPUT], &[ENDPOINT], &[OUTPUT], &all, &[]]).await;
    for (output, [calm, rough]) in &outcome.rows {
        assert_eq!(calm, rough, "{output}");
    }
    assert_eq!(outcome.adjusted[0], outcome.adjusted[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_outage_of_the_link_beyond_the_tolerance_moves_events_and_others_do_not() {
    let tolerance_s = OUTAGE_S - 10;
    let outcome = both(tolerance_s, &[&[], &[ENDPOINT, OUTPUT], &[]]).await;
    for (output, [calm, rough]) in &outcome.rows {
        assert_eq!(calm, rough, "{output}");
    }
    let outcome = both(tolerance_s, &[&[], &[INPUT], &[]]).await;
    for (output, [calm, rough]) in &outcome.rows {
        assert_eq!(calm == rough, *output == "plain", "{output}");
    }
    assert!(outcome.adjusted[0] < outcome.adjusted[1], "{:?}", outcome.adjusted);
}

fn by_device(rows: Vec<Json>) -> Rows {
    let mut devices = Rows::new();
    for row in rows {
        devices.entry(row["deviceId"].to_string()).or_default().push(row.to_string());
    }
    devices
}

/// Lets time pass in small steps, with a moment for the jobs in each.
async fn pass(clock: &Clock, seconds: i64) {
    for _ in 0..seconds {
        clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Twenty events of now: of two devices that agree, of one whose clock is behind, and of one that is often quiet.
fn events(clock: &Clock, sent: &mut usize) -> Vec<Message> {
    let now = clock.now();
    let message = |i: i64| {
        let n = *sent as i64 + i;
        let (device, behind_ms) = match i % 5 {
            0 | 1 => ("a", 0),
            2 => ("b", 0),
            // further behind than the out-of-order tolerance, and still not late after an outage
            3 => ("behind", 8_000),
            _ if sent.is_multiple_of(60) => ("quiet", 1_500),
            _ => ("b", 700),
        };
        let at = now.saturating_add((i * 400 - behind_ms) * TICKS_PER_MILLISECOND);
        Message::new("in", format!(r#"{{"deviceId":"{device}","n":{n},"at":"{at}"}}"#))
    };
    let messages: Vec<Message> = (0..20).map(message).collect();
    *sent += messages.len();
    messages
}

/// Answers each number with its double.
async fn doubled(body: Body) -> String {
    let body: Json = serde_json::from_slice(&body).unwrap();
    let doubles = body["data"].as_array().unwrap().iter().map(|n| 2 * n.as_i64().unwrap());
    serde_json::to_string(&doubles.collect::<Vec<_>>()).unwrap()
}
