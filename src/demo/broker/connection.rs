//! One client's connection.
//!
//! In: a socket. Out: the client's packets to the hub, the hub's bytes to the client. Invariant: reading and writing do
//! not wait for each other, but a client that does not read is not read from either. Not here: routing.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::Error as CodecError;
use rumqttc::{
    ConnAck, ConnAckProperties, ConnectAuth, ConnectReturnCode, Disconnect, DisconnectReasonCode, Packet, PubAck,
    Publish, QoS, SubAck, SubscribeReasonCode, UnsubAck, UnsubAckReason,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::hub::{Client, Next, lesser};
use super::{Shared, lock};
use crate::mqtt::topic;

/// A client that says nothing after connecting is let go.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest packet taken when no limit is set: the protocol's own would be 256 MiB.
const PACKET_BYTES_MAX: u32 = 16 << 20;
/// Answers that wait for a client that does not read; beyond it nothing more is read from it.
const ANSWERS_BYTES_MAX: usize = 1 << 20;
/// How often a client that does not read is looked after.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Serves a client until either side has enough.
pub(super) async fn serve(stream: TcpStream, shared: Shared) {
    let _ = stream.set_nodelay(true);
    let (read, mut write) = stream.into_split();
    let max = lock(&shared).options.packet_bytes_max.unwrap_or(PACKET_BYTES_MAX);
    let mut packets = Packets { read, buffer: BytesMut::new(), max };
    let Ok(Ok(Some(Packet::Connect(connect, _, auth)))) = tokio::time::timeout(HELLO_TIMEOUT, packets.next()).await
    else {
        return;
    };
    let properties = connect.properties.unwrap_or_default();
    // who brings no name gets one
    let assigned = connect.client_id.is_empty().then(|| format!("anonymous-{:016x}", fastrand::u64(..)));
    let client = Client {
        id: assigned.clone().unwrap_or(connect.client_id),
        clean_start: connect.clean_start,
        is_persistent: properties.session_expiry_interval.unwrap_or(0) > 0,
        receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
        packet_bytes_max: properties.max_packet_size,
    };
    let answer = if !is_allowed(&shared, &auth) {
        Err(ConnectReturnCode::BadUserNamePassword)
    } else {
        lock(&shared).connect(&client).ok_or(ConnectReturnCode::QuotaExceeded)
    };
    let connack = Packet::ConnAck(connack(&shared, answer, assigned));
    let mut hello = BytesMut::new();
    if connack.write(&mut hello, None).is_err() || write.write_all(&hello).await.is_err() {
        return;
    }
    let Ok((connection, _)) = answer else { return };
    let link = Link { shared, client: client.id, connection };
    // a client may be silent for one and a half times what it promised
    let patience = match connect.keep_alive {
        0 => Duration::MAX,
        seconds => Duration::from_millis(u64::from(seconds) * 1_500),
    };
    tokio::select! {
        () = link.receive(packets, patience) => {}
        () = link.transmit(write) => {}
    }
    lock(&link.shared).disconnect(&link.client, link.connection);
}

fn is_allowed(shared: &Shared, auth: &ConnectAuth) -> bool {
    let hub = lock(shared);
    let users = &hub.options.users;
    users.is_empty()
        || match auth {
            ConnectAuth::UsernamePassword { username, password } => {
                users.iter().any(|(user, secret)| user == username && secret.as_bytes() == &**password)
            }
            _ => false,
        }
}

fn connack(shared: &Shared, answer: Result<(u64, bool), ConnectReturnCode>, assigned: Option<String>) -> ConnAck {
    let hub = lock(shared);
    match answer {
        Err(code) => ConnAck { session_present: false, code, properties: None },
        Ok((_, session_present)) => {
            let properties = ConnAckProperties {
                session_expiry_interval: None,
                receive_max: Some(hub.options.receive_maximum),
                max_qos: Some(1),
                retain_available: None,
                max_packet_size: hub.options.packet_bytes_max,
                assigned_client_identifier: assigned,
                topic_alias_max: None,
                reason_string: None,
                user_properties: Vec::new(),
                wildcard_subscription_available: None,
                subscription_identifiers_available: Some(0),
                shared_subscription_available: Some(0),
                server_keep_alive: None,
                response_information: None,
                server_reference: None,
                authentication_method: None,
                authentication_data: None,
            };
            ConnAck { session_present, code: ConnectReturnCode::Success, properties: Some(properties) }
        }
    }
}

/// The packets of a socket.
struct Packets {
    read: OwnedReadHalf,
    buffer: BytesMut,
    max: u32,
}

impl Packets {
    /// The next packet; `None` at the end.
    async fn next(&mut self) -> io::Result<Option<Packet>> {
        loop {
            match Packet::read(&mut self.buffer, Some(self.max)) {
                Ok(packet) => return Ok(Some(packet)),
                Err(CodecError::InsufficientBytes(more)) => self.buffer.reserve(more.min(64 << 10)),
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

struct Link {
    shared: Shared,
    client: String,
    connection: u64,
}

impl Link {
    async fn receive(&self, mut packets: Packets, patience: Duration) {
        loop {
            let packet = match tokio::time::timeout(patience, packets.next()).await {
                Ok(Ok(Some(packet))) => packet,
                Ok(Ok(None)) => return,
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    return self.end_with(DisconnectReasonCode::MalformedPacket).await;
                }
                Ok(Err(_)) | Err(_) => return,
            };
            match packet {
                Packet::Publish(publish) if publish.qos == QoS::ExactlyOnce => {
                    return self.end_with(DisconnectReasonCode::QoSNotSupported).await;
                }
                Packet::Publish(publish) => self.published(publish),
                Packet::PubAck(ack) => lock(&self.shared).acknowledge(&self.client, self.connection, ack.pkid),
                Packet::Subscribe(subscribe) => {
                    let codes = subscribe.filters.iter().map(|f| match topic::filter_problem(&f.path) {
                        Some(_) => SubscribeReasonCode::TopicFilterInvalid,
                        None if f.path.starts_with("$share/") => SubscribeReasonCode::SharedSubscriptionsNotSupported,
                        None => SubscribeReasonCode::Success(lesser(f.qos, QoS::AtLeastOnce)),
                    });
                    let return_codes: Vec<_> = codes.collect();
                    let accepted = std::iter::zip(&subscribe.filters, &return_codes)
                        .filter(|(_, code)| matches!(code, SubscribeReasonCode::Success(_)))
                        .map(|(filter, _)| filter.clone())
                        .collect::<Vec<_>>();
                    self.send(&Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None }));
                    lock(&self.shared).subscribe(&self.client, self.connection, &accepted);
                }
                Packet::Unsubscribe(unsubscribe) => {
                    lock(&self.shared).unsubscribe(&self.client, self.connection, &unsubscribe.filters);
                    let reasons = vec![UnsubAckReason::Success; unsubscribe.filters.len()];
                    self.send(&Packet::UnsubAck(UnsubAck { pkid: unsubscribe.pkid, reasons, properties: None }));
                }
                Packet::PingReq => self.send(&Packet::PingResp),
                Packet::Disconnect(_) => return,
                _ => return self.end_with(DisconnectReasonCode::ProtocolError).await,
            }
            while lock(&self.shared).backlog(&self.client, self.connection) > ANSWERS_BYTES_MAX {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }

    fn published(&self, publish: Publish) {
        let (packet_id, qos) = (publish.pkid, publish.qos);
        let mut hub = lock(&self.shared);
        let is_silent = hub.faults.silent_at.iter().any(|topic| topic.as_bytes() == &*publish.topic);
        hub.publish(publish);
        if qos == QoS::AtMostOnce || is_silent {
            return;
        }
        if hub.faults.lose_pubacks > 0 {
            hub.faults.lose_pubacks -= 1;
            if hub.faults.lose_pubacks == 0 {
                hub.end(&self.client, self.connection);
            }
            return;
        }
        let delay = hub.faults.puback_delay;
        let ack = Packet::PubAck(PubAck::new(packet_id, None));
        if delay.is_zero() {
            return hub.send(&self.client, self.connection, &ack);
        }
        let (shared, client, connection) = (self.shared.clone(), self.client.clone(), self.connection);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            lock(&shared).send(&client, connection, &ack);
        });
    }

    fn send(&self, packet: &Packet) {
        lock(&self.shared).send(&self.client, self.connection, packet);
    }

    /// Says why, and waits for the writing side to end the connection.
    async fn end_with(&self, reason: DisconnectReasonCode) {
        self.send(&Packet::Disconnect(Disconnect::new(reason)));
        lock(&self.shared).end(&self.client, self.connection);
        std::future::pending().await
    }

    async fn transmit(&self, mut write: OwnedWriteHalf) {
        loop {
            let next = lock(&self.shared).next(&self.client, self.connection);
            match next {
                Next::Write(bytes) => {
                    if write.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Next::WriteAndEnd(bytes) => {
                    let _ = write.write_all(&bytes).await;
                    let _ = write.shutdown().await;
                    return;
                }
                Next::Wait(wake) => wake.notified().await,
                Next::End => return,
            }
        }
    }
}
