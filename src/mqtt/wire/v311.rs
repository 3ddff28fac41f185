//! MQTT 3.1.1.

use rumqttc_v4::mqttbytes::Error as CodecError;
use rumqttc_v4::{
    AckMode, AsyncClient, ClientError, ConnectReturnCode, ConnectionError, EventLoop, LastWill, ManualAck, MqttOptions,
    NetworkOptions, Packet, PubAck, Publish, PublishNotice, PublishOptions, QoS, StateError, SubscribeFilter,
    SubscribeReasonCode, Transport,
};
use secrecy::ExposeSecret;

use super::refusal::{FirstBytes, Noted};
use super::{BrokerReceipt, Client, Incoming, Message, Notice, Opening, Outgoing, PollError, Queued};
use crate::mqtt::broker::{MqttAddress, Protocol, Qos};
use crate::mqtt::connection::{BrokerRefusal, CONNECT_TIMEOUT, Connector, Misfit, Trouble};
use crate::mqtt::socket::Ending;
use crate::mqtt::status::JobState;

/// The largest packet there is: the length field ends here.
const PACKET_BYTES_MAX: usize = 256 << 20;

pub struct Inbound {
    events: EventLoop,
    connector: Connector,
    first_bytes: FirstBytes,
    is_accepted: bool,
}

pub async fn open(
    connector: &Connector,
    opening: Opening,
    ending: Ending,
) -> Result<(Client, super::Inbound), Trouble> {
    let first_bytes = FirstBytes::default();
    let mut options = options(connector, ending, first_bytes.clone()).await?;
    options.set_clean_session(opening.session_expiry.is_none());
    if opening.session_expiry.is_some() {
        options.set_ack_mode(AckMode::Manual);
    }
    let incoming = opening.packet_bytes_max.map_or(PACKET_BYTES_MAX, |bytes| bytes as usize);
    options.set_max_packet_size(incoming, PACKET_BYTES_MAX);
    options.set_inflight(opening.outgoing_max);
    options.set_max_request_batch(opening.request_batch);
    options.set_read_batch_size(opening.read_batch);
    let (client, mut events) = AsyncClient::builder(options).capacity(opening.requests_max).build();
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
    events.set_network_options(network);
    let events = Inbound { events, connector: connector.clone(), first_bytes, is_accepted: false };
    Ok((Client::V311(client), super::Inbound::V311(Box::new(events))))
}

/// Options with everything that has to do with reaching the broker.
async fn options(connector: &Connector, ending: Ending, first_bytes: FirstBytes) -> Result<MqttOptions, Trouble> {
    let MqttAddress { host, port, tls } = connector.config.address.clone();
    let mut options = MqttOptions::new(&connector.client_id, (host, port));
    options.set_keep_alive(connector.keep_alive_seconds());
    if let Some(user) = &connector.config.username {
        match connector.password().await? {
            Some(password) => options.set_credentials(user, password.expose_secret().to_owned()),
            None => options.set_username(user),
        };
    }
    if let Some(status) = connector.status_due() {
        options.set_last_will(LastWill::new(&status.topic, status.payload(JobState::Lost), QoS::AtLeastOnce, true));
    }
    if tls {
        options.set_transport(Transport::tls_with_config(connector.tls().await?));
    }
    let connector = connector.clone();
    options.set_socket_connector(move |_, _| {
        let (stream, first_bytes) = (connector.clone().stream(ending.clone()), first_bytes.clone());
        async move { Ok(Noted::new(stream.await?, first_bytes)) }
    });
    Ok(options)
}

impl Inbound {
    pub async fn poll(&mut self) -> Result<Incoming, PollError> {
        match self.events.poll().await {
            Ok(rumqttc_v4::Event::Incoming(Packet::Publish(publish))) => Ok(Incoming::Message(message(publish))),
            Ok(rumqttc_v4::Event::Incoming(Packet::ConnAck(connack))) => {
                self.is_accepted = true;
                Ok(Incoming::Accepted { session_present: connack.session_present, packet_bytes_max: None })
            }
            Ok(rumqttc_v4::Event::Incoming(Packet::SubAck(suback))) => {
                let answer = |code: SubscribeReasonCode| match code {
                    SubscribeReasonCode::Success(qos) => Ok(qos as u8),
                    SubscribeReasonCode::Failure => Err("Failure".to_owned()),
                };
                Ok(Incoming::Subscribed(suback.return_codes.into_iter().map(answer).collect()))
            }
            Ok(_) => Ok(Incoming::Other),
            Err(ConnectionError::RequestsDone) => Err(PollError::Ended),
            Err(_) if !self.is_accepted && self.first_bytes.are_http() => {
                Err(PollError::Lost(self.connector.no_broker()))
            }
            Err(error) => Err(PollError::Lost(explain(&self.connector, &error, self.is_accepted))),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.events.state.events.is_empty()
    }
}

fn message(publish: Publish) -> Message {
    Message {
        topic: publish.topic,
        payload: publish.payload,
        qos: publish.qos as u8,
        retain: publish.retain,
        dup: publish.dup,
        packet_id: publish.pkid,
        properties: Vec::new(),
    }
}

pub fn subscribe(client: &AsyncClient, filters: &[String], qos: Qos) -> Result<(), String> {
    let filters = filters.iter().map(|filter| SubscribeFilter { path: filter.clone(), qos: qos.into() });
    client.try_subscribe_many(filters.collect::<Vec<_>>()).map_err(|e| e.to_string())
}

pub fn acknowledge(client: &AsyncClient, packet_id: u16) -> Queued {
    queued(&client.try_manual_ack(ManualAck::PubAck(PubAck::new(packet_id))))
}

pub fn disconnect(client: &AsyncClient) -> Queued {
    queued(&client.try_disconnect())
}

fn queued(result: &Result<(), ClientError>) -> Queued {
    result.as_ref().map_or_else(not_queued, |()| Queued::Yes)
}

fn not_queued(error: &ClientError) -> Queued {
    match error {
        ClientError::RequestChannelFull(_) => Queued::Full,
        _ => Queued::Gone,
    }
}

pub async fn publish(client: &AsyncClient, message: Outgoing<'_>) -> Option<Notice> {
    let options = PublishOptions::new(message.qos.into()).retain(message.retain);
    client.publish_tracked(message.topic, message.payload, options).await.ok().map(Notice::V311)
}

pub fn try_publish(client: &AsyncClient, message: Outgoing<'_>) -> Result<Notice, Queued> {
    let options = PublishOptions::new(message.qos.into()).retain(message.retain);
    let notice = client.try_publish_tracked(message.topic, message.payload, options);
    notice.map(Notice::V311).map_err(|error| not_queued(&error))
}

pub async fn receipt(notice: PublishNotice) -> BrokerReceipt {
    match notice.wait_async().await {
        Ok(_) => BrokerReceipt::Taken,
        Err(_) => BrokerReceipt::Unknown,
    }
}

/// What a failure of the client means for the person who runs the gateway.
fn explain(connector: &Connector, error: &ConnectionError, was_connected: bool) -> Trouble {
    let at = &connector.config.address;
    match error {
        ConnectionError::ConnectionRefused(code) => connector.refused(refusal(*code)),
        ConnectionError::NetworkTimeout => connector.no_answer(),
        ConnectionError::Tls(e) => connector.tls_problem(e),
        ConnectionError::Io(e)
        | ConnectionError::MqttState(StateError::Io(e) | StateError::Deserialization(CodecError::Io(e))) => {
            connector.io_problem(e, was_connected)
        }
        ConnectionError::MqttState(StateError::Deserialization(CodecError::PayloadSizeLimitExceeded(size))) => {
            Trouble { oversize: Some(*size), ..Trouble::new(format!("a packet of {size} bytes is over the limit")) }
        }
        ConnectionError::MqttState(StateError::Deserialization(error)) => Trouble {
            misfit: Some(Misfit::Broken),
            ..Trouble::new(format!("{at} sends what is no MQTT 3.1.1: {error}"))
        },
        ConnectionError::MqttState(StateError::ConnectionAborted) => connector.closed(was_connected),
        ConnectionError::MqttState(StateError::AwaitPingResp) => connector.silent(),
        other => Trouble::new(format!("connection to {at}: {other}")),
    }
}

fn refusal(code: ConnectReturnCode) -> BrokerRefusal {
    match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => BrokerRefusal::Login,
        ConnectReturnCode::BadClientId => BrokerRefusal::ClientId,
        ConnectReturnCode::RefusedProtocolVersion => BrokerRefusal::Version(Protocol::V311),
        ConnectReturnCode::ServiceUnavailable => BrokerRefusal::Busy,
        other => BrokerRefusal::Other(format!("{other:?}")),
    }
}
