//! One client, whichever version of MQTT it speaks.
//!
//! In: a [`Connector`] and what a session is to be like. Out: a [`Client`] that sends and an [`Inbound`] half that is
//! polled. Invariant: whoever uses them knows no version; what one version lacks is left out, and said so here. MQTT
//! 3.1.1 lacks properties, so row ids as well; the receive maximum, so the bound on memory is ours alone; the session's
//! expiry, which is the broker's own setting; and reasons. Not here: which version is spoken (`choice`).

mod refusal;
mod session;
mod v311;
mod v5;

use bytes::Bytes;
use rumqttc::QoS;

use super::broker::{Protocol, Qos};
use super::connection::{Connector, Trouble};
use super::socket::Ending;

/// Packet ids of our own that a client that only subscribes keeps room for. With the default of 65,535 the client keeps
/// 10 MB and looks through all of it at every acknowledgement.
pub const OUTGOING_MIN: u16 = 16;
/// Messages that a client that publishes has under way at once; brokers allow fewer (mosquitto: 20) and the client
/// keeps to that.
pub const OUTGOING_WINDOW: u16 = 512;

impl From<Qos> for QoS {
    fn from(qos: Qos) -> QoS {
        match qos {
            Qos::AtMostOnce => QoS::AtMostOnce,
            Qos::AtLeastOnce => QoS::AtLeastOnce,
        }
    }
}

/// A client of a broker that nobody connects to; its inbound half keeps the queue open.
#[cfg(test)]
pub async fn unpolled() -> (Client, Inbound) {
    let address = super::broker::MqttAddress::parse("mqtt://h").unwrap();
    let connector = Connector::new(super::broker::BrokerConfig::new(address), "a");
    let opening = Opening {
        session_expiry: None,
        receive_maximum: None,
        packet_bytes_max: None,
        outgoing_max: 16,
        requests_max: 16,
        request_batch: 1,
        read_batch: 1,
    };
    open(&connector, Protocol::V5, opening, Ending::new()).await.unwrap()
}

/// What a session is to be like.
#[derive(Clone, Debug)]
pub struct Opening {
    /// `None`: a new session. Else the one that the broker keeps, and for how many seconds it keeps it from now on.
    pub session_expiry: Option<u32>,
    /// Messages that the broker may have in flight to us, where it can be told.
    pub receive_maximum: Option<u16>,
    /// Largest packet that is taken, bytes.
    pub packet_bytes_max: Option<u32>,
    /// Messages of ours in flight.
    pub outgoing_max: u16,
    /// Requests that wait in the client's queue.
    pub requests_max: usize,
    /// Requests that are written at once.
    pub request_batch: usize,
    /// Packets that are read at once.
    pub read_batch: usize,
}

/// The sending half.
#[derive(Clone, Debug)]
pub enum Client {
    V5(rumqttc::AsyncClient),
    V311(rumqttc_v4::AsyncClient),
}

/// The receiving half, which also writes: nothing moves while it is not polled.
pub enum Inbound {
    V5(Box<v5::Inbound>),
    V311(Box<v311::Inbound>),
}

/// What happened.
#[derive(Debug)]
pub enum Incoming {
    /// The broker accepted us.
    Accepted {
        session_present: bool,
        /// The largest packet that it takes, bytes.
        packet_bytes_max: Option<u32>,
    },
    Message(Message),
    /// What it said to each filter: the QoS that it grants, or `Err` with its word for a refusal.
    Subscribed(Vec<Result<u8, String>>),
    Other,
}

/// A message that was received.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub topic: Bytes,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
    /// The broker sent it before.
    pub dup: bool,
    /// 0 for QoS 0.
    pub packet_id: u16,
    pub properties: Vec<(String, String)>,
}

/// Why polling ended.
#[derive(Debug)]
pub enum PollError {
    /// We asked for it.
    Ended,
    Lost(Trouble),
}

/// What became of an acknowledgement or a goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    Yes,
    /// The queue is full; each entry that leaves it gives an event.
    Full,
    /// The connection is gone.
    Gone,
}

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    pub topic: &'a str,
    pub payload: Bytes,
    pub qos: Qos,
    pub retain: bool,
    /// Left out in MQTT 3.1.1.
    pub properties: Vec<(String, String)>,
}

/// The answer to a message, to come.
#[derive(Debug)]
pub enum Notice {
    V5(rumqttc::PublishNotice),
    V311(rumqttc_v4::PublishNotice),
}

/// What the broker said to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerReceipt {
    Taken,
    /// It took it, and told that nobody has subscribed to the topic (MQTT 5: reason 0x10).
    TakenForNobody,
    /// It will never take it; why.
    Rejected(String),
    /// It does not take it now; why.
    Refused(String),
    /// The connection ended before.
    Unknown,
}

/// Makes a client; nothing is sent before its events are polled.
pub async fn open(
    connector: &Connector,
    protocol: Protocol,
    opening: Opening,
    ending: Ending,
) -> Result<(Client, Inbound), Trouble> {
    match protocol {
        Protocol::V5 => v5::open(connector, opening, ending).await,
        Protocol::V311 => v311::open(connector, opening, ending).await,
    }
}

impl Inbound {
    pub async fn poll(&mut self) -> Result<Incoming, PollError> {
        match self {
            Inbound::V5(events) => events.poll().await,
            Inbound::V311(events) => events.poll().await,
        }
    }

    /// Whether nothing that was read already waits to be polled.
    pub fn is_empty(&self) -> bool {
        match self {
            Inbound::V5(events) => events.is_empty(),
            Inbound::V311(events) => events.is_empty(),
        }
    }
}

impl Client {
    /// Whether a broker can say why it takes no message.
    pub fn hears_reasons(&self) -> bool {
        matches!(self, Client::V5(_))
    }

    /// Asks for topics.
    pub fn subscribe(&self, filters: &[String], qos: Qos) -> Result<(), String> {
        match self {
            Client::V5(client) => v5::subscribe(client, filters, qos),
            Client::V311(client) => v311::subscribe(client, filters, qos),
        }
    }

    /// Acknowledges a message.
    pub fn acknowledge(&self, packet_id: u16) -> Queued {
        match self {
            Client::V5(client) => v5::acknowledge(client, packet_id),
            Client::V311(client) => v311::acknowledge(client, packet_id),
        }
    }

    /// Queues a message; waits while the queue is full. `None`: the connection is gone.
    pub async fn publish(&self, message: Outgoing<'_>) -> Option<Notice> {
        match self {
            Client::V5(client) => v5::publish(client, message).await,
            Client::V311(client) => v311::publish(client, message).await,
        }
    }

    /// Queues a message if there is room.
    pub fn try_publish(&self, message: Outgoing<'_>) -> Result<Notice, Queued> {
        match self {
            Client::V5(client) => v5::try_publish(client, message),
            Client::V311(client) => v311::try_publish(client, message),
        }
    }

    /// Says goodbye behind the acknowledgements that are queued.
    pub fn disconnect(&self) -> Queued {
        match self {
            Client::V5(client) => v5::disconnect(client),
            Client::V311(client) => v311::disconnect(client),
        }
    }

    /// Says goodbye at once. This queue of the client has no bound; where it fails the connection is gone already.
    pub fn disconnect_now(&self) {
        let _ = match self {
            Client::V5(client) => client.try_disconnect_now().map_err(drop),
            Client::V311(client) => client.try_disconnect_now().map_err(drop),
        };
    }

    /// The size of a message as a packet, where the broker sets a limit for that.
    pub fn packet_bytes(&self, message: &Outgoing<'_>) -> Option<usize> {
        match self {
            Client::V5(_) => Some(v5::packet_bytes(message)),
            Client::V311(_) => None,
        }
    }
}

impl Notice {
    /// Waits for the broker's answer.
    pub async fn receipt(self) -> BrokerReceipt {
        match self {
            Notice::V5(notice) => v5::receipt(notice).await,
            Notice::V311(notice) => v311::receipt(notice).await,
        }
    }
}
