//! What receiving alone costs: the job's own MQTT source, every batch acknowledged at once, nothing done with it.
//!
//! Runs as a process of its own: the benchmark starts itself again with [`ROLE`] set. It says `started` and `done` on
//! standard output and ends when its standard input does.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use forebay::cli::run::runtime;
use forebay::mqtt::{BrokerConfig, MqttAddress};
use forebay::source::{Identity, MqttSource, MqttSourceConfig, RecentRecord};
use forebay::time::Clock;

use crate::end_to_end::{RECEIVE_MAXIMUM, TOPIC};

/// `URL CLIENT COUNT`
pub const ROLE: &str = "FOREBAY_BENCH_ROLE";

/// The process itself.
pub fn run(role: &str) {
    let mut words = role.split(' ');
    let mut word = || words.next().expect("URL CLIENT COUNT").to_owned();
    let (url, client, count) = (word(), word(), word().parse::<u64>().unwrap());
    let say = |what: &str| {
        println!("{what}");
        std::io::stdout().flush().unwrap();
    };
    runtime().unwrap().block_on(async {
        let config = MqttSourceConfig {
            receive_maximum: RECEIVE_MAXIMUM,
            ..MqttSourceConfig::new(BrokerConfig::new(MqttAddress::parse(&url).unwrap()), vec![TOPIC.to_owned()])
        };
        let identity = Identity { name: client, is_known: false };
        let (source, mut arrivals) =
            MqttSource::start(config, identity, std::iter::empty::<RecentRecord>(), true, Clock::Real);
        say("started");
        let mut seen = 0;
        while seen < count {
            let batch = arrivals.recv().await.expect("the source runs");
            seen += batch.messages.len() as u64;
            batch.ack.stored();
        }
        say("done");
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
        source.stop().await;
    });
}

/// The running process, seen from the benchmark.
pub struct Baseline {
    child: Child,
    stdin: ChildStdin,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Baseline {
    /// Returns when it has begun to connect.
    pub fn start(url: &str, client: &str, count: u64) -> Baseline {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(ROLE, format!("{url} {client} {count}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut baseline = Baseline { child, stdin, lines };
        baseline.expect("started");
        baseline
    }

    fn expect(&mut self, what: &str) {
        let line = self.lines.next().expect("a line").unwrap();
        assert_eq!(line, what);
    }

    /// Waits until it has received everything.
    pub fn done(&mut self) {
        self.expect("done");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says goodbye to the broker, which keeps the session.
    pub fn stop(self) {
        let Baseline { mut child, stdin, .. } = self;
        drop(stdin);
        child.wait().unwrap();
    }
}
