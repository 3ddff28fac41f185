//! Receipts that never come: something between a job and mosquitto lets rows through and holds back what confirms them.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use forebay::job;
use forebay::journal::{Edge, verify};
use forebay::output::MqttOutputConfig;
use forebay::pipeline::{Pipeline, prepare};
use forebay::time::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::read_keys;
use crate::support::{Message, Mosquitto, Subscriber, dead_letters, publish, wait_until, write_job};

/// A broker that is alive confirms sooner.
const PATIENCE: Duration = Duration::from_millis(300);

/// MQTT's fixed headers, in both versions: PUBLISH without its flags, and PUBACK.
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
/// What rows have whose PUBACK never gets through.
const MARKS: [&[u8]; 2] = [b"\"n\":13,", b"\"n\":16,"];

/// Stands in front of a broker.
struct Between {
    port: u16,
    /// No PUBACK of the broker gets through.
    is_mute: Arc<AtomicBool>,
    held_back: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Between {
    async fn start(broker: u16) -> Between {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_mute, held_back) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (mute, held) = (is_mute.clone(), held_back.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (from_client, to_client) = client.into_split();
                let (from_broker, to_broker) = TcpStream::connect(("127.0.0.1", broker)).await.unwrap().into_split();
                let (mute, held) = (mute.clone(), held.clone());
                tokio::spawn(async move {
                    let marked = Mutex::default();
                    tokio::select! {
                        _ = publishes(from_client, to_broker, &marked) => {}
                        _ = answers(from_broker, to_client, &mute, &held, &marked) => {}
                    }
                });
            }
        });
        Between { port, is_mute, held_back, accepting }
    }

    fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The next packet, and where its head ends.
async fn packet(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<(Vec<u8>, usize)> {
    let mut packet = vec![from.read_u8().await?];
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = from.read_u8().await?;
        packet.push(byte);
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let head = packet.len();
    packet.resize(head + length, 0);
    from.read_exact(&mut packet[head..]).await?;
    Ok((packet, head))
}

fn has(packet: &[u8], mark: &[u8]) -> bool {
    packet.windows(mark.len()).any(|bytes| bytes == mark)
}

/// Passes the client's packets on and remembers the ids of those that have a mark.
async fn publishes(
    mut client: OwnedReadHalf,
    mut broker: OwnedWriteHalf,
    marked: &Mutex<Vec<[u8; 2]>>,
) -> io::Result<()> {
    loop {
        let (packet, head) = packet(&mut client).await?;
        if packet[0] & 0xf0 == PUBLISH && MARKS.iter().any(|mark| has(&packet, mark)) {
            let topic = usize::from(u16::from_be_bytes([packet[head], packet[head + 1]]));
            marked.lock().unwrap().push([packet[head + 2 + topic], packet[head + 3 + topic]]);
        }
        broker.write_all(&packet).await?;
    }
}

/// Passes the broker's packets on, PUBACKs only while it is not mute, and none of a marked row.
async fn answers(
    mut broker: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    is_mute: &AtomicBool,
    held_back: &AtomicUsize,
    marked: &Mutex<Vec<[u8; 2]>>,
) -> io::Result<()> {
    loop {
        let (packet, head) = packet(&mut broker).await?;
        let is_marked = || marked.lock().unwrap().contains(&[packet[head], packet[head + 1]]);
        if packet[0] == PUBACK && (is_mute.load(Ordering::SeqCst) || is_marked()) {
            held_back.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        client.write_all(&packet).await?;
    }
}

/// What this process logs, from the first call of [`Log::of_process`] on. Not of some threads only: which places log is
/// kept for all threads, and one that was first met by a thread without a log would say nothing on the others.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn of_process() -> &'static Log {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Log::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
            tracing::subscriber::set_global_default(subscriber).unwrap();
            tracing::callsite::rebuild_interest_cache();
            log
        })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A running job whose outputs wait for a receipt for [`PATIENCE`]; they have these keys.
async fn running(folder: &Path, url: &str, version: &str, keys: &str, outputs: &[&str]) -> Pipeline {
    let keys = format!("{keys}row_id = \"id\"\n");
    let mut text = format!(
        "[job]\nname = \"plant\"\nquery = \"job.asaql\"\n[metrics]\nenabled = false\n[journal]\npath = \"pool.db\"\n\
         [inputs.a]\ntype = \"mqtt\"\nurl = \"{url}\"\nclient_id = \"device\"\nprotocol = \"{version}\"\n\
         topics = [\"in\"]\n"
    );
    let mut query = String::new();
    for output in outputs {
        text.push_str(&format!("[outputs.{output}]\ntype = \"mqtt\"\n{keys}"));
        query.push_str(&format!("SELECT n INTO {output} FROM a\n"));
    }
    let mut job = job::load(&write_job(folder, &text, &query)).unwrap_or_else(|e| panic!("{e}"));
    for output in &mut job.outputs {
        let config = read_keys(&keys).unwrap_or_else(|e| panic!("{e}"));
        output.settings = Arc::new(MqttOutputConfig { puback_timeout: PATIENCE, ..config });
    }
    let prepared = prepare::prepare(&job).unwrap_or_else(|e| panic!("{e}"));
    let pipeline = Pipeline::start(&job, &prepared, Clock::Real).await.unwrap();
    wait_until("the subscription", || pipeline.report().not_ready.is_empty()).await;
    pipeline
}

fn delivered(pipeline: &Pipeline) -> u64 {
    let ledger = pipeline.journal().ledger();
    ledger.iter().filter(|(c, _)| c.edge == Edge::Output && c.what == "delivered").map(|(_, n)| n).sum()
}

async fn send(broker: &Mosquitto, numbers: std::ops::Range<i64>) {
    publish(&broker.url(), numbers.map(|n| Message::new("in", format!("{{\"n\":{n}}}"))).collect()).await;
}

/// The rows that a subscriber saw, each once.
fn distinct(subscriber: &Subscriber) -> Vec<String> {
    let mut rows = subscriber.payloads_at("out");
    rows.sort();
    rows.dedup();
    rows
}

async fn rows_outlast_missing_receipts(version: &str, is_shared: bool) {
    let log = Log::of_process();
    let before = log.text().len();
    let broker = Mosquitto::start();
    let between = Between::start(broker.port).await;
    let subscriber = Subscriber::start(&broker.url(), "out").await;
    let folder = tempfile::tempdir().unwrap();
    let own = format!("url = \"{}\"\nprotocol = \"{version}\"\n", between.url());
    let (connection, whose) = match is_shared {
        true => ("connection = \"a\"\n".to_owned(), "the broker of input `a`".to_owned()),
        false => (own, format!("127.0.0.1:{}", between.port)),
    };
    let pipeline =
        running(folder.path(), &between.url(), version, &format!("{connection}topic = \"out\"\n"), &["b"]).await;
    let reason = format!("{whose} did not confirm a row to topic `out` within 0.3 s; connecting again");
    let is_told = || pipeline.report().not_ready.iter().any(|problem| *problem == format!("output b: {reason}"));
    send(&broker, 0..5).await;
    wait_until(&format!("{reason:?} of /readyz"), is_told).await;
    let text = log.text().split_off(before);
    let told = text.lines().filter(|line| line.contains(" WARN output{name=b}") && line.contains(&reason)).count();
    assert_eq!(told, 1, "{text}");
    assert!(between.held_back.load(Ordering::SeqCst) > 0 && delivered(&pipeline) == 0, "nothing was confirmed");
    // what comes meanwhile waits with them
    send(&broker, 5..10).await;
    between.is_mute.store(false, Ordering::SeqCst);
    wait_until("all are confirmed", || delivered(&pipeline) == 10).await;
    wait_until("the job is ready", || pipeline.report().not_ready.is_empty()).await;
    pipeline.stop().await.unwrap();
    wait_until("all rows at the subscriber", || distinct(&subscriber).len() >= 10).await;
    let rows = distinct(&subscriber);
    assert_eq!(rows.len(), 10, "a row that is sent again is the same row: {rows:?}");
    assert!((0..10).all(|n| rows.iter().any(|row| row.starts_with(&format!("{{\"n\":{n},")))), "{rows:?}");
    assert!(verify(&folder.path().join("pool.db")).unwrap().is_good());
}

/// One test: the log is that of the process, and no other says the same of this topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rows_without_a_receipt_are_sent_again_and_hold_up_no_others_for_ever() {
    for version in ["5", "3.1.1"] {
        for is_shared in [false, true] {
            rows_outlast_missing_receipts(version, is_shared).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rows_that_are_never_confirmed_hold_up_no_others() {
    let both = |is_shared, outputs| async move {
        tokio::join!(
            rows_behind_those_are_confirmed("5", is_shared, outputs),
            rows_behind_those_are_confirmed("3.1.1", is_shared, outputs),
        )
    };
    tokio::join!(both(false, &["b"]), both(true, &["b"]), both(true, &["b", "c"]));
}

/// Two rows of one batch that the broker takes and never confirms are dead letters, and those behind them get through.
async fn rows_behind_those_are_confirmed(version: &str, is_shared: bool, outputs: &[&str]) {
    let broker = Mosquitto::start();
    let between = Between::start(broker.port).await;
    between.is_mute.store(false, Ordering::SeqCst);
    let folder = tempfile::tempdir().unwrap();
    let connection = match is_shared {
        true => "connection = \"a\"\n".to_owned(),
        false => format!("url = \"{}\"\nprotocol = \"{version}\"\n", between.url()),
    };
    let pipeline =
        running(folder.path(), &between.url(), version, &format!("{connection}topic = \"late\"\n"), outputs).await;
    let all = outputs.len() as u64;
    send(&broker, 10..20).await;
    // fourteen connections for two rows
    let others = async {
        while delivered(&pipeline) != 8 * all {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(180), others).await.expect("the others are confirmed");
    send(&broker, 20..25).await;
    wait_until("those behind are confirmed", || delivered(&pipeline) == 13 * all).await;
    pipeline.stop().await.unwrap();
    let letters = dead_letters(folder.path(), "job.toml");
    assert_eq!(letters.matches("did not confirm this within 0.3 s, ").count(), 2 * outputs.len(), "{letters}");
    assert_eq!(letters.matches("topic `late`").count(), 2 * outputs.len(), "{letters}");
    for row in ["\"n\":13", "\"n\":16"] {
        assert_eq!(letters.matches(row).count(), outputs.len(), "{letters}");
    }
}
