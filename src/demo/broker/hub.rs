//! What the broker knows: sessions, queues, retained messages.
//!
//! In: packets of clients. Out: bytes for each connection. Invariant: a session sends queued messages in order and
//! never forgets one before its PUBACK. Not here: sockets, time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::{Packet, Publish, PublishProperties, QoS, RetainForwardRule, SubscribeFilter};
use rustc_hash::FxHashSet;
use tokio::sync::Notify;

use super::BrokerOptions;
use crate::mqtt::topic;

/// Bytes put together for one write.
const OUT_BYTES_MAX: usize = 256 << 10;
/// Acknowledgements remembered for tests.
const ACKNOWLEDGED_MAX: usize = 65_536;
/// A demo has a fleet, not a city.
const SESSIONS_MAX: usize = 10_000;
const RETAINED_MAX: usize = 10_000;
/// As many messages can be under way to one client.
const PACKET_IDS: usize = 65_535;

/// How the broker misbehaves; nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Cut the connection after this many more publishes to subscribers.
    pub drop_after: Option<u64>,
    /// Forget the session of whoever connects.
    pub forget_session: bool,
    /// Send each publish twice, the second time marked as a duplicate.
    pub duplicate: bool,
    /// Wait before acknowledging to a publisher.
    pub puback_delay: Duration,
    /// Acknowledge no publish to these topics.
    pub silent_at: Vec<String>,
    /// Take this many more publishes without acknowledging, then cut the publisher's connection.
    pub lose_pubacks: u64,
    pub ignore_receive_maximum: bool,
    pub ignore_packet_size: bool,
}

/// Counts since the broker started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerStats {
    pub connects: u64,
    /// messages from publishers
    pub received: u64,
    /// publishes written to subscribers, repetitions included
    pub sent: u64,
    /// messages that a session had no room for
    pub dropped: u64,
    /// messages larger than a subscriber takes
    pub oversize: u64,
}

#[derive(Debug)]
pub(super) struct Hub {
    pub options: BrokerOptions,
    pub faults: Faults,
    pub stats: BrokerStats,
    pub acknowledged: VecDeque<(String, u16)>,
    sessions: HashMap<String, Session>,
    retained: BTreeMap<String, Arc<Message>>,
    connections: u64,
}

#[derive(Debug)]
struct Message {
    topic: String,
    payload: Bytes,
    qos: QoS,
    retain: bool,
    properties: Option<PublishProperties>,
}

#[derive(Debug)]
struct Session {
    /// Number of the connection it is used by.
    connection: Option<u64>,
    wake: Arc<Notify>,
    out: BytesMut,
    /// Cut the connection when `out` is written.
    is_ending: bool,
    is_persistent: bool,
    subscriptions: Vec<SubscribeFilter>,
    queue: VecDeque<Outbound>,
    in_flight: VecDeque<InFlight>,
    /// packet ids of `in_flight`
    in_use: FxHashSet<u16>,
    last_packet_id: u16,
    receive_maximum: usize,
    packet_bytes_max: Option<u32>,
}

#[derive(Debug, Clone)]
struct Outbound {
    message: Arc<Message>,
    qos: QoS,
    retain: bool,
}

#[derive(Debug)]
struct InFlight {
    packet_id: u16,
    outbound: Outbound,
    is_sent: bool,
    dup: bool,
}

/// What a connection is to do next.
pub(super) enum Next {
    Write(BytesMut),
    WriteAndEnd(BytesMut),
    Wait(Arc<Notify>),
    /// Another connection took the session over, or it was cut.
    End,
}

/// What a client says about itself when it connects.
#[derive(Debug)]
pub(super) struct Client {
    pub id: String,
    pub clean_start: bool,
    pub is_persistent: bool,
    pub receive_maximum: u16,
    pub packet_bytes_max: Option<u32>,
}

impl Hub {
    pub fn new(options: BrokerOptions) -> Hub {
        Hub {
            options,
            faults: Faults::default(),
            stats: BrokerStats::default(),
            acknowledged: VecDeque::new(),
            sessions: HashMap::new(),
            retained: BTreeMap::new(),
            connections: 0,
        }
    }

    /// Gives a client its session: the number of the connection, and whether the session was there already. `None` when
    /// there is no room for another one.
    pub fn connect(&mut self, client: &Client) -> Option<(u64, bool)> {
        self.stats.connects += 1;
        self.connections += 1;
        let number = self.connections;
        if client.clean_start || self.faults.forget_session {
            if let Some(old) = self.sessions.remove(&client.id) {
                old.wake.notify_one();
            }
        } else if let Some(session) = self.sessions.get_mut(&client.id) {
            let before = std::mem::replace(&mut session.wake, Arc::new(Notify::new()));
            before.notify_one();
            session.connection = Some(number);
            session.out.clear();
            session.is_ending = false;
            session.is_persistent = client.is_persistent;
            session.receive_maximum = client.receive_maximum.min(self.options.in_flight_max).into();
            session.packet_bytes_max = client.packet_bytes_max;
            for message in &mut session.in_flight {
                message.dup |= message.is_sent;
                message.is_sent = false;
            }
            return Some((number, true));
        }
        if self.sessions.len() >= SESSIONS_MAX {
            return None;
        }
        let session = Session {
            connection: Some(number),
            wake: Arc::new(Notify::new()),
            out: BytesMut::new(),
            is_ending: false,
            is_persistent: client.is_persistent,
            subscriptions: Vec::new(),
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            in_use: FxHashSet::default(),
            last_packet_id: 0,
            receive_maximum: client.receive_maximum.min(self.options.in_flight_max).into(),
            packet_bytes_max: client.packet_bytes_max,
        };
        self.sessions.insert(client.id.clone(), session);
        Some((number, false))
    }

    /// The connection is gone.
    pub fn disconnect(&mut self, client: &str, connection: u64) {
        if let Some(session) = self.current(client, connection) {
            session.connection = None;
            if !session.is_persistent {
                self.sessions.remove(client);
            }
        }
    }

    pub fn drop_connections(&mut self) {
        for session in self.sessions.values_mut() {
            session.connection = None;
            session.wake.notify_one();
        }
        self.sessions.retain(|_, s| s.is_persistent);
    }

    pub fn forget_sessions(&mut self) {
        self.sessions.clear();
    }

    pub fn wake_all(&self) {
        self.sessions.values().for_each(|s| s.wake.notify_one());
    }

    pub fn pending(&self, client: &str) -> Option<usize> {
        self.sessions.get(client).map(|s| s.queue.len() + s.in_flight.len())
    }

    /// The session, as long as this connection has it.
    fn current(&mut self, client: &str, connection: u64) -> Option<&mut Session> {
        self.sessions.get_mut(client).filter(|s| s.connection == Some(connection))
    }

    /// Bytes that wait to be written.
    pub fn backlog(&mut self, client: &str, connection: u64) -> usize {
        self.current(client, connection).map_or(0, |s| s.out.len())
    }

    /// Sends a packet other than PUBLISH.
    pub fn send(&mut self, client: &str, connection: u64, packet: &Packet) {
        if let Some(session) = self.current(client, connection) {
            // only packets of our own making come here, and these fit
            let _ = packet.write(&mut session.out, None);
            session.wake.notify_one();
        }
    }

    /// Ends a connection after what it has to send.
    pub fn end(&mut self, client: &str, connection: u64) {
        if let Some(session) = self.current(client, connection) {
            session.is_ending = true;
            session.wake.notify_one();
        }
    }

    pub fn subscribe(&mut self, client: &str, connection: u64, filters: &[SubscribeFilter]) {
        let retained = &self.retained;
        let Some(session) = self.sessions.get_mut(client).filter(|s| s.connection == Some(connection)) else { return };
        for filter in filters {
            let known = session.subscriptions.iter().position(|s| s.path == filter.path);
            let wants_retained = match filter.retain_forward_rule {
                RetainForwardRule::OnEverySubscribe => true,
                RetainForwardRule::OnNewSubscribe => known.is_none(),
                RetainForwardRule::Never => false,
            };
            match known.and_then(|i| session.subscriptions.get_mut(i)) {
                Some(subscription) => *subscription = filter.clone(),
                None => session.subscriptions.push(filter.clone()),
            }
            if wants_retained {
                let matching = retained.values().filter(|m| topic::matches(&filter.path, &m.topic));
                session.queue.extend(matching.map(|m| Outbound {
                    message: m.clone(),
                    qos: lesser(m.qos, filter.qos),
                    retain: true,
                }));
            }
        }
        session.wake.notify_one();
    }

    pub fn unsubscribe(&mut self, client: &str, connection: u64, filters: &[String]) {
        if let Some(session) = self.current(client, connection) {
            session.subscriptions.retain(|s| !filters.contains(&s.path));
        }
    }

    /// Gives a message to all who want it.
    pub fn publish(&mut self, publish: Publish) {
        self.stats.received += 1;
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let message = Arc::new(Message {
            topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: publish.properties,
        });
        if message.retain {
            if message.payload.is_empty() {
                self.retained.remove(&message.topic);
            } else if self.retained.len() < RETAINED_MAX || self.retained.contains_key(&message.topic) {
                self.retained.insert(message.topic.clone(), message.clone());
            } else {
                self.stats.dropped += 1;
            }
        }
        for session in self.sessions.values_mut() {
            let matching = session.subscriptions.iter().filter(|s| topic::matches(&s.path, &message.topic));
            let Some(subscription) = matching.max_by_key(|s| s.qos as u8) else { continue };
            let qos = lesser(message.qos, subscription.qos);
            if qos == QoS::AtMostOnce && session.connection.is_none() {
                continue;
            }
            if session.queue.len() >= self.options.queue_max {
                self.stats.dropped += 1;
                continue;
            }
            let retain = message.retain && subscription.preserve_retain;
            session.queue.push_back(Outbound { message: message.clone(), qos, retain });
            session.wake.notify_one();
        }
    }

    /// A subscriber has acknowledged a publish.
    pub fn acknowledge(&mut self, client: &str, connection: u64, packet_id: u16) {
        if let Some(session) = self.current(client, connection) {
            session.in_use.remove(&packet_id);
            if session.in_flight.front().is_some_and(|m| m.packet_id == packet_id) {
                session.in_flight.pop_front();
            } else {
                session.in_flight.retain(|m| m.packet_id != packet_id);
            }
            session.wake.notify_one();
            self.acknowledged.push_back((client.to_owned(), packet_id));
            if self.acknowledged.len() > ACKNOWLEDGED_MAX {
                self.acknowledged.pop_front();
            }
        }
    }

    /// What a connection has to write now.
    pub fn next(&mut self, client: &str, connection: u64) -> Next {
        let Hub { sessions, faults, stats, .. } = self;
        let Some(session) = sessions.get_mut(client).filter(|s| s.connection == Some(connection)) else {
            return Next::End;
        };
        session.fill(faults, stats);
        let out = session.out.split();
        match (session.is_ending, out.is_empty()) {
            (true, _) => Next::WriteAndEnd(out),
            (false, false) => Next::Write(out),
            (false, true) => Next::Wait(session.wake.clone()),
        }
    }
}

/// The lower of two qualities of service; we do not serve exactly once.
pub(super) fn lesser(a: QoS, b: QoS) -> QoS {
    if a == QoS::AtMostOnce || b == QoS::AtMostOnce { QoS::AtMostOnce } else { QoS::AtLeastOnce }
}

impl Session {
    /// Writes what may go to the client now.
    fn fill(&mut self, faults: &mut Faults, stats: &mut BrokerStats) {
        let window = if faults.ignore_receive_maximum { PACKET_IDS } else { self.receive_maximum };
        let mut resent = 0;
        while self.out.len() < OUT_BYTES_MAX && !self.is_ending {
            if let Some(i) = (resent..self.in_flight.len()).find(|i| self.in_flight.get(*i).is_some_and(|m| !m.is_sent))
            {
                resent = i + 1;
                let Some(message) = self.in_flight.get_mut(i) else { return };
                message.is_sent = true;
                let (packet_id, dup, outbound) = (message.packet_id, message.dup, message.outbound.clone());
                self.write(&outbound, packet_id, dup, faults, stats);
                continue;
            }
            let Some(next) = self.queue.front() else { return };
            let mut packet_id = 0;
            if next.qos != QoS::AtMostOnce {
                if self.in_flight.len() >= window {
                    return;
                }
                packet_id = self.free_packet_id();
            }
            let Some(outbound) = self.queue.pop_front() else { return };
            if !self.write(&outbound, packet_id, false, faults, stats) {
                continue;
            }
            if packet_id != 0 {
                self.in_use.insert(packet_id);
                self.in_flight.push_back(InFlight { packet_id, outbound: outbound.clone(), is_sent: true, dup: false });
                if faults.duplicate && !self.is_ending {
                    self.write(&outbound, packet_id, true, faults, stats);
                }
            }
        }
    }

    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            if !self.in_use.contains(&self.last_packet_id) {
                return self.last_packet_id;
            }
        }
    }

    /// False when the client does not take messages of this size.
    fn write(
        &mut self,
        outbound: &Outbound,
        packet_id: u16,
        dup: bool,
        faults: &mut Faults,
        stats: &mut BrokerStats,
    ) -> bool {
        let Outbound { message, qos, retain } = outbound;
        let mut publish =
            Publish::new(message.topic.as_str(), *qos, message.payload.clone(), message.properties.clone());
        publish.pkid = packet_id;
        publish.dup = dup;
        publish.retain = *retain;
        let limit = self.packet_bytes_max.filter(|_| !faults.ignore_packet_size);
        if Packet::Publish(publish).write(&mut self.out, limit).is_err() {
            stats.oversize += 1;
            return false;
        }
        stats.sent += 1;
        if let Some(left) = &mut faults.drop_after {
            *left = left.saturating_sub(1);
            if *left == 0 {
                faults.drop_after = None;
                self.is_ending = true;
            }
        }
        true
    }
}
