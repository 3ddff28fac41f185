//! One connection to a broker, for sending.
//!
//! In: where the broker is, and which version is spoken. Out: a [`Session`], and at its end why it ended. Invariant:
//! its task polls until the connection ends. Not here: what is sent, when to connect again.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use crate::mqtt::socket::Ending;
use crate::mqtt::wire::{self, Client, Event, Events, Failure, Opening, Queued};
use crate::mqtt::{Connector, Protocol, Trouble};

/// Messages under way at once; brokers allow fewer (mosquitto: 20) and the client keeps to that.
pub const WINDOW: u16 = 512;
/// Requests the client writes with one system call.
const REQUEST_BATCH: usize = 128;
/// A goodbye is not worth waiting for longer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Session {
    pub client: Client,
    pub task: JoinHandle<Trouble>,
    pub since: Instant,
    /// The broker's limit for a packet, bytes.
    pub packet_bytes_max: Option<u32>,
}

impl Session {
    /// Connects, and waits until the broker accepted us.
    pub async fn open(broker: &Connector, protocol: Protocol) -> Result<Session, Trouble> {
        let ending = Ending::new();
        // the client itself writes what came together
        ending.is_coming();
        let opening = Opening {
            session_expiry: None,
            receive_maximum: None,
            packet_bytes_max: None,
            outgoing_max: WINDOW,
            requests_max: usize::from(WINDOW),
            request_batch: REQUEST_BATCH,
            read_batch: REQUEST_BATCH,
        };
        let (client, mut events) = wire::open(broker, protocol, opening, ending.clone()).await?;
        let packet_bytes_max = match events.poll().await {
            Ok(Event::Accepted { packet_bytes_max, .. }) => packet_bytes_max,
            Ok(_) | Err(Failure::Ended) => {
                return Err(Trouble::new("the broker does not begin with CONNACK".to_owned()));
            }
            Err(Failure::Lost(trouble)) => return Err(trouble),
        };
        let task = tokio::spawn(poll(events, ending).in_current_span());
        Ok(Session { client, task, since: Instant::now(), packet_bytes_max })
    }

    /// Why the connection ended. Its task is ending.
    pub async fn ended(self, broker: &Connector) -> Trouble {
        match self.task.await {
            Ok(trouble) => trouble,
            Err(_) => Trouble::new(format!("the connection to {} ended", broker.config.address)),
        }
    }

    /// Says goodbye.
    pub async fn close(&mut self) {
        if self.client.disconnect() == Queued::Yes {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut self.task).await;
        }
    }
}

async fn poll(mut events: Events, ending: Ending) -> Trouble {
    loop {
        match events.poll().await {
            Ok(_) => {}
            Err(Failure::Ended) => {
                drop(events);
                ending.closed_by_peer().await;
                return Trouble::new("the connection was closed".to_owned());
            }
            Err(Failure::Lost(trouble)) => return trouble,
        }
    }
}
