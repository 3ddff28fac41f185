//! The section of an MQTT input.
//!
//! In: `[inputs.NAME]` with `type = "mqtt"`. Out: [`MqttSourceConfig`], checked. Invariant: there is at least one topic
//! filter, each is valid, no two overlap, and one message of the largest size fits what may be unacknowledged. Not
//! here: running.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::{MqttSource, Way};
use crate::diagnostic::Diagnostic;
use crate::mqtt::line::Line;
use crate::mqtt::{BrokerConfig, Connector, Protocol, Qos, Shared, StatusTopic, topic};
use crate::settings::{Problems, Secret, Section, Text};
use crate::source::{Keeps, Neighbour, Site, SourceSettings, Started};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The largest MQTT message there is: the length field ends here.
const PAYLOAD_MAX: u64 = 256 * MIB - 1;
/// MQTT's session expiry is a 32-bit number of seconds, of which the largest means "for ever".
const SESSION_EXPIRY_MAX: Duration = Duration::from_secs(u32::MAX as u64 - 1);
/// Records kept to recognise a redelivery, in receive windows.
const RECENT_WINDOWS: usize = 2;

/// An MQTT input, as the job describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct MqttSourceConfig {
    pub broker: BrokerConfig,
    /// Topic filters, wildcards allowed; at least one, and no message belongs to two of them.
    pub topics: Vec<String>,
    /// With [`Qos::AtMostOnce`] a message that finds no room is lost and counted.
    pub qos: Qos,
    /// Largest payload, bytes; told to the broker with some room for topic and properties.
    pub payload_bytes_max: u32,
    /// How many messages the broker may have in flight to us; at least 1.
    pub receive_maximum: u16,
    /// Bytes of messages that are received and not stored, at which we stop reading.
    pub unacked_bytes_max: usize,
    /// How long the broker keeps the session while we are away; `None`: for ever.
    pub session_expiry: Option<Duration>,
}

impl MqttSourceConfig {
    /// Larger messages are an exception that the operator should decide on.
    pub const PAYLOAD_BYTES_MAX: u32 = 1 << 20;
    /// The records of one commit.
    pub const RECEIVE_MAXIMUM: u16 = 1_000;
    pub const UNACKED_BYTES_MAX: usize = 16 << 20;
    /// A long weekend without the gateway loses nothing.
    pub const SESSION_EXPIRY: Duration = Duration::from_secs(7 * 86_400);

    /// With the defaults: QoS 1, 1 MiB payloads, 1,000 messages ahead, 16 MiB unacknowledged, a session of 7 days.
    pub fn new(broker: BrokerConfig, topics: Vec<String>) -> MqttSourceConfig {
        MqttSourceConfig {
            broker,
            topics,
            qos: Qos::AtLeastOnce,
            payload_bytes_max: Self::PAYLOAD_BYTES_MAX,
            receive_maximum: Self::RECEIVE_MAXIMUM,
            unacked_bytes_max: Self::UNACKED_BYTES_MAX,
            session_expiry: Some(Self::SESSION_EXPIRY),
        }
    }

    /// Reads and checks the section.
    pub fn read(section: &mut Section) -> Option<MqttSourceConfig> {
        let broker = BrokerConfig::read(section);
        let topics = section.required_texts("topics", "write `topics = [\"taxi/+/rides\"]`");
        for filter in &topics {
            if let Some(problem) = topic::filter_problem(&filter.value) {
                topic::tell(section, filter, problem);
            }
        }
        refuse_overlaps(section, &topics);
        let payload_bytes_max = section.size("payload_bytes_max", KIB, PAYLOAD_MAX, Self::PAYLOAD_BYTES_MAX.into());
        let unacked_bytes_max = section.size("unacked_bytes_max", KIB, 4 * KIB * MIB, Self::UNACKED_BYTES_MAX as u64);
        let is_read = !section.is_wrong("payload_bytes_max") && !section.is_wrong("unacked_bytes_max");
        if is_read && payload_bytes_max > unacked_bytes_max {
            let key = if section.has("payload_bytes_max") { "payload_bytes_max" } else { "unacked_bytes_max" };
            section.wrong(
                key,
                "`payload_bytes_max` is above `unacked_bytes_max`",
                "one message would never fit",
                "raise `unacked_bytes_max` or lower `payload_bytes_max`",
            );
        }
        let qos = Qos::read(section);
        let receive_maximum = section.count("receive_maximum", 1, u16::MAX.into(), Self::RECEIVE_MAXIMUM.into());
        let expiry = Some(Self::SESSION_EXPIRY);
        let session_expiry = section.duration_or_forever("session_expiry", Duration::ZERO, SESSION_EXPIRY_MAX, expiry);
        Some(MqttSourceConfig {
            broker: broker?,
            topics: topics.into_iter().map(|topic| topic.value).collect(),
            qos,
            payload_bytes_max: u32::try_from(payload_bytes_max).unwrap_or(u32::MAX),
            receive_maximum: u16::try_from(receive_maximum).unwrap_or(u16::MAX),
            unacked_bytes_max: usize::try_from(unacked_bytes_max).unwrap_or(usize::MAX),
            session_expiry,
        })
    }

    /// The same as MQTT has it: whole seconds, of which the largest number means "for ever".
    pub(super) fn session_expiry_seconds(&self) -> u32 {
        self.session_expiry.map_or(u32::MAX, |expiry| u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX))
    }
}

/// Tells for each filter the first one before it with which it shares messages.
fn refuse_overlaps(section: &Section, topics: &[Text]) {
    let valid: Vec<&Text> = topics.iter().filter(|filter| topic::filter_problem(&filter.value).is_none()).collect();
    for (i, second) in valid.iter().enumerate() {
        let Some(first) = valid.iter().take(i).find(|first| topic::overlap(&first.value, &second.value)) else {
            continue;
        };
        let (one, other) = (first.value.as_str(), second.value.as_str());
        if one == other {
            let error =
                Diagnostic::error(format!("`{other}` is a duplicate"), second.span).label("stands in the list before");
            section.problems().push(error.help("leave one of them out"));
            continue;
        }
        let is_shared = topic::is_shared(one) || topic::is_shared(other);
        let help = match (topic::covers(one, other), topic::covers(other, one)) {
            (true, _) if !is_shared => format!("leave out `{other}`: `{one}` covers it"),
            (_, true) if !is_shared => format!("leave out `{one}`: `{other}` covers it"),
            _ => "narrow one of them so that no topic matches both, or give each an input of its own".to_owned(),
        };
        let error = Diagnostic::error(format!("`{one}` and `{other}` overlap"), second.span);
        section
            .problems()
            .push(error.label("these two filters overlap: a broker may deliver such a message twice").help(help));
    }
}

/// Reads the section for the table of sources.
pub(in crate::source) fn read(section: &mut Section) -> Option<Arc<dyn SourceSettings>> {
    MqttSourceConfig::read(section).map(|config| Arc::new(config) as Arc<dyn SourceSettings>)
}

impl SourceSettings for MqttSourceConfig {
    fn secrets(&self) -> Vec<&Secret> {
        self.broker.secrets()
    }

    fn exclusive(&self) -> Vec<String> {
        self.broker.exclusive()
    }

    fn offer(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(Shared { broker: self.broker.clone(), topics: self.topics.clone() }))
    }

    fn check_beside(&self, inputs: &[Neighbour<'_>], problems: &Problems) {
        let inputs = inputs.iter().filter_map(|input| Some((input.name, input.offer.as_ref()?.downcast_ref()?)));
        StatusTopic::check(&self.broker, inputs, problems);
    }

    fn recent_records(&self) -> usize {
        usize::from(self.receive_maximum) * RECENT_WINDOWS
    }

    fn keeps(&self) -> Keeps {
        match self.session_expiry {
            _ if self.qos == Qos::AtMostOnce => Keeps::Nothing,
            // MQTT 3.1.1 has no expiry
            Some(expiry) if self.broker.protocol != Some(Protocol::V311) => Keeps::For(expiry),
            _ => Keeps::Forever,
        }
    }

    fn note(&self) -> Option<&'static str> {
        Some(
            "while this gateway is away the broker keeps its messages only as far as its own queue limit goes;\n      \
             mosquitto keeps 1,000 for a client unless max_queued_messages is raised",
        )
    }

    fn start(&self, site: Site<'_>) -> Result<Started, String> {
        let identity = (site.identify)(self.broker.client_id.as_deref())?;
        let line = site.connections.get::<Line>(site.name);
        let Site { job, recent, keeps_bytes, stored_in, clock, .. } = site;
        let broker = Connector::new(self.broker.clone(), identity.name).of_job(job);
        let way = Way { line, broker, is_known: identity.is_known, stored_in };
        let (source, arrivals) = MqttSource::start_on(way, self.clone(), recent, keeps_bytes, clock);
        Ok(Started { source: Box::new(source), arrivals })
    }
}
