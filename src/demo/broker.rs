//! A small MQTT 5 broker inside the process: for the demo, and for tests that need a broker to misbehave.
//!
//! In: connections on a loopback port that the system picks. Out: the messages, to whom subscribed. Invariant: a QoS 1
//! message that was acknowledged to its publisher stays until each persistent session that wants it has acknowledged
//! it, up to a bound, and what goes over it is counted. Not here: QoS 2, wills, expiry by time, TLS, disk.

mod connection;
mod hub;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use hub::Hub;
pub use hub::{BrokerStats, Faults};

/// What a broker demands and promises.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Who may connect, by user name and password; empty lets anybody in.
    pub users: Vec<(String, String)>,
    /// Largest packet it takes, bytes; told to clients.
    pub packet_bytes_max: Option<u32>,
    /// Publishes a client may have under way to it; told to clients.
    pub receive_maximum: u16,
    /// Publishes under way to a client, if it does not want fewer; not told to anybody.
    pub in_flight_max: u16,
    /// Messages that wait for one session.
    pub queue_max: usize,
}

impl Default for BrokerOptions {
    fn default() -> BrokerOptions {
        BrokerOptions {
            users: Vec::new(),
            packet_bytes_max: None,
            receive_maximum: 256,
            in_flight_max: u16::MAX,
            queue_max: 1_000_000,
        }
    }
}

/// A running broker; dropping it ends everything.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    shared: Shared,
    accepting: Option<JoinHandle<()>>,
}

type Shared = Arc<Mutex<Hub>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Hub> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Broker {
    /// Listens on a free loopback port. Needs a tokio runtime.
    pub async fn start() -> io::Result<Broker> {
        Broker::start_with(BrokerOptions::default()).await
    }

    pub async fn start_with(options: BrokerOptions) -> io::Result<Broker> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(Hub::new(options)));
        let accepting = Some(tokio::spawn(accept(listener, shared.clone())));
        Ok(Broker { address, shared, accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `mqtt://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    pub fn stats(&self) -> BrokerStats {
        lock(&self.shared).stats.clone()
    }

    /// Packet ids that a client has acknowledged, in the order they came (the last 65,536 of all clients).
    pub fn acknowledged(&self, client_id: &str) -> Vec<u16> {
        lock(&self.shared).acknowledged.iter().filter(|(client, _)| client == client_id).map(|(_, id)| *id).collect()
    }

    /// Messages that a session has queued or unacknowledged; `None` without a session.
    pub fn pending(&self, client_id: &str) -> Option<usize> {
        lock(&self.shared).pending(client_id)
    }

    /// Changes how it misbehaves from now on.
    pub fn misbehave(&self, change: impl FnOnce(&mut Faults)) {
        let mut hub = lock(&self.shared);
        change(&mut hub.faults);
        hub.wake_all();
    }

    /// Cuts all connections; sessions stay.
    pub fn drop_connections(&self) {
        lock(&self.shared).drop_connections();
    }

    /// Loses all sessions, as a broker without persistence does on restart; cuts all connections.
    pub fn forget_sessions(&self) {
        let mut hub = lock(&self.shared);
        hub.drop_connections();
        hub.forget_sessions();
    }

    /// Goes away: nothing listens, connections are cut, sessions stay.
    pub async fn go_down(&mut self) {
        if let Some(task) = self.accepting.take() {
            task.abort();
            // the port is free only when the task has let go of it
            let _ = task.await;
        }
        self.drop_connections();
    }

    /// Comes back on the same port.
    pub async fn come_up(&mut self) -> io::Result<()> {
        if self.accepting.is_none() {
            let listener = TcpListener::bind(self.address).await?;
            self.accepting = Some(tokio::spawn(accept(listener, self.shared.clone())));
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(task) = &self.accepting {
            task.abort();
        }
        self.drop_connections();
    }
}

/// After an error of `accept` (too many open files) it pays to wait a moment.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

async fn accept(listener: TcpListener, shared: Shared) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection::serve(stream, shared.clone()));
            }
            Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
        }
    }
}
