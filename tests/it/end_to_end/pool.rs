//! A pool that is full: acknowledgements to mosquitto wait, and the job goes on or stops.

use forebay::demo::client::Publisher;
use forebay::demo::fleet::Fleet;
use forebay::time::Timestamp;

use super::{distinct, job, listen};
use crate::harness::{Forebay, PATIENCE, until};
use crate::score::Server;
use crate::support::{Mosquitto, runtime};

#[test]
fn a_full_pool_withholds_acknowledgements_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = reserved.local_addr().expect("an address");
    drop(reserved);
    let query = "SELECT rideId, filler, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) \
        AS fare INTO scored FROM rides";
    let path =
        job(dir.path(), &broker, query, &[("score", address)], &["scored"], "[journal]\nmax_bytes = \"16MiB\"\n");
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/scored");
    let mut forebay = Forebay::run(&path);
    // noise does not compress, so the pool fills as it would with real bytes
    let mut rng = fastrand::Rng::with_seed(3);
    let mut fleet = Fleet::new(3);
    let count = 20_000;
    runtime.block_on(async {
        let feed = Publisher::connect("fleet", "127.0.0.1", broker.port);
        for _ in 0..count {
            let ride = fleet.ride(Timestamp::MIN);
            let noise: String = (0..1500).map(|_| rng.alphanumeric()).collect();
            let payload = ride.payload.replacen('{', &format!("{{\"filler\":\"{noise}\","), 1);
            assert!(feed.send(&ride.topic, payload).await);
        }
        assert!(feed.drained(PATIENCE).await);
    });
    until("intake to stop", || (forebay.metric("forebay_pool_full") == 1.0).then_some(()));
    let stored = forebay.metric("forebay_input_stored_total");
    assert!(stored < f64::from(count), "the pool is too small for all: {stored}");
    let file = std::fs::metadata(dir.path().join("test.db")).expect("the pool").len();
    assert!(file < 24 << 20, "the pool keeps near its budget: {file} bytes");
    assert!(forebay.is_alive());
    assert_eq!(forebay.get("/healthz").0, 200);
    let _server = Server::start_on("array", address.port());
    until("all rides scored once there is room", || (distinct(&seen) == count as usize).then_some(()));
    assert!(forebay.is_alive());
    forebay.stop();
}

#[test]
fn a_job_stops_although_its_pool_is_full_and_its_output_is_away() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let query = "SELECT rideId, filler, LAG(n) OVER (LIMIT DURATION(hour, 1)) AS before INTO away FROM rides";
    let extra = format!(
        "[outputs.away]\ntype = \"mqtt\"\nurl = \"mqtt://{nobody}\"\ntopic = \"x\"\n[journal]\nmax_bytes = \"16MiB\"\n"
    );
    let path = job(dir.path(), &broker, query, &[], &[], &extra);
    let forebay = Forebay::run(&path);
    let mut rng = fastrand::Rng::with_seed(6);
    runtime.block_on(async {
        let feed = Publisher::connect("fleet", "127.0.0.1", broker.port);
        for n in 0..24_000 {
            let noise: String = (0..1500).map(|_| rng.alphanumeric()).collect();
            assert!(feed.send("taxi/a/rides", format!("{{\"n\":{n},\"filler\":\"{noise}\"}}")).await);
        }
        assert!(feed.drained(PATIENCE).await);
    });
    until("intake to stop", || (forebay.metric("forebay_pool_full") == 1.0).then_some(()));
    // waits for the end, and asserts that it is a good one
    forebay.stop();
}
