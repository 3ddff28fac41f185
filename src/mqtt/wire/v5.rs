//! MQTT 5.

use rumqttc::mqttbytes::Error as CodecError;
use rumqttc::{
    AckMode, AsyncClient, BrokerSessionResumePolicy, ClientError, ConnectReturnCode, ConnectionError,
    DisconnectReasonCode, EventLoop, IncomingPacketSizeLimit, LastWill, ManualAck, MqttOptions, Packet, PubAck,
    PubAckReason, Publish, PublishNotice, PublishNoticeError, PublishOptions, PublishProperties, PublishResult, QoS,
    RetainForwardRule, StateError, SubscribeFilter, SubscribeReasonCode, Transport,
};
use secrecy::ExposeSecret;

use super::refusal::{FirstBytes, Noted};
use super::session::NothingInFlight;
use super::{BrokerReceipt, Client, Incoming, Message, Notice, Opening, Outgoing, PollError, Queued};
use crate::mqtt::broker::{MqttAddress, Protocol, Qos};
use crate::mqtt::connection::{BrokerRefusal, CONNECT_TIMEOUT, Connector, Misfit, Trouble};
use crate::mqtt::socket::Ending;
use crate::mqtt::status::JobState;

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
    options.set_clean_start(opening.session_expiry.is_none());
    if let Some(seconds) = opening.session_expiry {
        options.set_session_expiry_interval(Some(seconds));
        options
            .set_session_store(NothingInFlight { session_expiry_seconds: seconds, outgoing_max: opening.outgoing_max });
        options.set_broker_session_resume_policy(BrokerSessionResumePolicy::AllowBrokerOnly);
        options.set_ack_mode(AckMode::Manual);
    }
    options.set_receive_maximum(opening.receive_maximum);
    if let Some(bytes) = opening.packet_bytes_max {
        options.set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(bytes));
    }
    options.set_outgoing_inflight_upper_limit(opening.outgoing_max);
    options.set_max_request_batch(opening.request_batch);
    options.set_read_batch_size(opening.read_batch);
    let (client, events) = AsyncClient::builder(options).capacity(opening.requests_max).build();
    let events = Inbound { events, connector: connector.clone(), first_bytes, is_accepted: false };
    Ok((Client::V5(client), super::Inbound::V5(Box::new(events))))
}

/// Options with everything that has to do with reaching the broker.
async fn options(connector: &Connector, ending: Ending, first_bytes: FirstBytes) -> Result<MqttOptions, Trouble> {
    let MqttAddress { host, port, tls } = connector.config.address.clone();
    let mut options = MqttOptions::new(&connector.client_id, (host, port));
    options.set_keep_alive(connector.keep_alive_seconds());
    options.set_connect_timeout(CONNECT_TIMEOUT);
    if let Some(user) = &connector.config.username {
        match connector.password().await? {
            Some(password) => options.set_credentials(user, password.expose_secret().to_owned()),
            None => options.set_username(user),
        };
    }
    if let Some(status) = connector.status_due() {
        options.set_last_will(LastWill::new(
            &status.topic,
            status.payload(JobState::Lost),
            QoS::AtLeastOnce,
            true,
            None,
        ));
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
            Ok(rumqttc::Event::Incoming(Packet::Publish(publish))) => Ok(Incoming::Message(message(publish))),
            Ok(rumqttc::Event::Incoming(Packet::ConnAck(connack))) => {
                self.is_accepted = true;
                // the store was for accepting the session; asking it again at every packet is for nothing
                self.events.options.clear_session_store();
                let packet_bytes_max = connack.properties.and_then(|p| p.max_packet_size);
                Ok(Incoming::Accepted { session_present: connack.session_present, packet_bytes_max })
            }
            Ok(rumqttc::Event::Incoming(Packet::SubAck(suback))) => {
                let answer = |code: SubscribeReasonCode| match code {
                    SubscribeReasonCode::Success(qos) => Ok(qos as u8),
                    code => Err(format!("{code:?}")),
                };
                Ok(Incoming::Subscribed(suback.return_codes.into_iter().map(answer).collect()))
            }
            Ok(_) => Ok(Incoming::Other),
            Err(ConnectionError::RequestsDone) => Err(PollError::Ended),
            Err(_) if !self.is_accepted && self.first_bytes.are_refusal() => {
                Err(PollError::Lost(self.connector.refused(BrokerRefusal::Version(Protocol::V5))))
            }
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
        properties: publish.properties.map(|p| p.user_properties).unwrap_or_default(),
    }
}

pub fn subscribe(client: &AsyncClient, filters: &[String], qos: Qos) -> Result<(), String> {
    let filters = filters.iter().map(|filter| SubscribeFilter {
        path: filter.clone(),
        qos: qos.into(),
        nolocal: false,
        preserve_retain: true,
        // retained messages come once a session, not once a connection
        retain_forward_rule: RetainForwardRule::OnNewSubscribe,
    });
    client.try_subscribe_many(filters.collect::<Vec<_>>()).map_err(|e| e.to_string())
}

pub fn acknowledge(client: &AsyncClient, packet_id: u16) -> Queued {
    queued(&client.try_manual_ack(ManualAck::PubAck(PubAck::new(packet_id, None))))
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
    let Outgoing { topic, payload, qos, retain, properties } = message;
    client.publish_tracked(topic, payload, options_of(qos, retain, properties)).await.ok().map(Notice::V5)
}

pub fn try_publish(client: &AsyncClient, message: Outgoing<'_>) -> Result<Notice, Queued> {
    let Outgoing { topic, payload, qos, retain, properties } = message;
    let notice = client.try_publish_tracked(topic, payload, options_of(qos, retain, properties));
    notice.map(Notice::V5).map_err(|error| not_queued(&error))
}

fn options_of(qos: Qos, retain: bool, user_properties: Vec<(String, String)>) -> PublishOptions {
    let properties = PublishProperties { user_properties, ..PublishProperties::default() };
    PublishOptions::new(qos.into()).retain(retain).properties(properties)
}

pub fn packet_bytes(message: &Outgoing<'_>) -> usize {
    let properties = PublishProperties { user_properties: message.properties.clone(), ..PublishProperties::default() };
    Packet::Publish(Publish::new(message.topic, message.qos.into(), message.payload.clone(), Some(properties))).size()
}

pub async fn receipt(notice: PublishNotice) -> BrokerReceipt {
    let puback = match notice.wait_async().await {
        Ok(PublishResult::Qos1(puback)) => puback,
        Ok(_) => return BrokerReceipt::Taken,
        Err(PublishNoticeError::RetainNotSupported) => {
            return BrokerReceipt::Rejected(
                "the broker does not keep retained messages: set `retain = false`".to_owned(),
            );
        }
        Err(_) => return BrokerReceipt::Unknown,
    };
    match puback.reason {
        PubAckReason::Success => BrokerReceipt::Taken,
        PubAckReason::NoMatchingSubscribers => BrokerReceipt::TakenForNobody,
        PubAckReason::TopicNameInvalid => BrokerReceipt::Rejected("the broker refuses the topic".to_owned()),
        PubAckReason::PayloadFormatInvalid => {
            BrokerReceipt::Rejected("the broker refuses the payload's format".to_owned())
        }
        PubAckReason::NotAuthorized => BrokerReceipt::Refused(
            "the broker does not let us publish to the topic: correct `topic` or its access rules".to_owned(),
        ),
        other => BrokerReceipt::Refused(format!("the broker does not take the row now ({other:?})")),
    }
}

/// What a failure of the client means for the person who runs the gateway.
fn explain(connector: &Connector, error: &ConnectionError, was_connected: bool) -> Trouble {
    let at = &connector.config.address;
    match error {
        ConnectionError::ConnectionRefused(code) => connector.refused(refusal(*code)),
        ConnectionError::Timeout(_) => connector.no_answer(),
        ConnectionError::Tls(e) => connector.tls_problem(e),
        ConnectionError::Io(e)
        | ConnectionError::MqttState(StateError::Io(e) | StateError::Deserialization(CodecError::Io(e))) => {
            connector.io_problem(e, was_connected)
        }
        ConnectionError::MqttState(StateError::Deserialization(CodecError::PayloadSizeLimitExceeded {
            pkt_size,
            max,
        })) => {
            let trouble = Trouble::new(format!("a packet of {pkt_size} bytes is over the limit of {max}"));
            Trouble { oversize: Some(*pkt_size), ..trouble }
        }
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            server_disconnect(connector, *reason_code, reason_string.as_deref())
        }
        ConnectionError::MqttState(StateError::Deserialization(CodecError::InvalidConnectReturnCode(0x95))) => {
            // some brokers refuse a publish with the code for a packet that is too large
            let trouble = Trouble::new(format!("{at} finds a message too large (code 0x95)"));
            Trouble { rejection: Some("the broker finds the message too large".to_owned()), ..trouble }
        }
        ConnectionError::MqttState(StateError::Deserialization(error)) => {
            let text = match error {
                CodecError::InvalidConnectReturnCode(code) => {
                    format!("{at} answered with code {code:#04x}, which is not for this kind of packet")
                }
                error => format!("{at} sends what is no MQTT 5: {error}"),
            };
            Trouble { misfit: Some(Misfit::Broken), ..Trouble::new(text) }
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => connector.closed(was_connected),
        ConnectionError::MqttState(StateError::AwaitPingResp) => connector.silent(),
        other => Trouble::new(format!("connection to {at}: {other}")),
    }
}

fn refusal(code: ConnectReturnCode) -> BrokerRefusal {
    match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => BrokerRefusal::Login,
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => BrokerRefusal::ClientId,
        ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion => {
            BrokerRefusal::Version(Protocol::V5)
        }
        ConnectReturnCode::ServiceUnavailable
        | ConnectReturnCode::ServerUnavailable
        | ConnectReturnCode::ServerBusy => BrokerRefusal::Busy,
        ConnectReturnCode::RetainNotSupported | ConnectReturnCode::QoSNotSupported => {
            BrokerRefusal::Will(format!("{code:?}"))
        }
        other => BrokerRefusal::Other(format!("{other:?}")),
    }
}

fn server_disconnect(connector: &Connector, code: DisconnectReasonCode, reason: Option<&str>) -> Trouble {
    let at = &connector.config.address;
    let said = reason.map(|r| format!(" ({r})")).unwrap_or_default();
    let text = match code {
        DisconnectReasonCode::SessionTakenOver => {
            format!("another client took over the client id `{}` at {at}: give each its own", connector.client_id)
        }
        DisconnectReasonCode::ServerShuttingDown | DisconnectReasonCode::ServerBusy => {
            format!("{at} is going down or busy{said}; trying again")
        }
        DisconnectReasonCode::NotAuthorized => format!("{at} withdrew our rights{said}: see the broker's access rules"),
        other => format!("{at} ended the connection: {other:?}{said}"),
    };
    let rejection = matches!(
        code,
        DisconnectReasonCode::PacketTooLarge
            | DisconnectReasonCode::PayloadFormatInvalid
            | DisconnectReasonCode::TopicNameInvalid
    )
    .then(|| format!("the broker refuses the message: {code:?}{said}"));
    let is_passing = matches!(code, DisconnectReasonCode::ServerShuttingDown | DisconnectReasonCode::ServerBusy);
    Trouble { rejection, is_passing, ..Trouble::new(text) }
}
