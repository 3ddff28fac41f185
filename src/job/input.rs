//! `[inputs.NAME]`: where events come from.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{Broker, Qos, qos};
use super::reader::{Section, Text};
use super::reference::{self, ReferenceInput};
use crate::diagnostic::{Diagnostic, Span};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The largest MQTT message there is: the length field ends here.
const MQTT_PAYLOAD_MAX: u64 = 256 * MIB - 1;

/// MQTT's session expiry is a 32-bit number of seconds.
const SESSION_EXPIRY_MAX: Duration = Duration::from_secs(u32::MAX as u64 - 1);

#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub name: String,
    pub kind: InputKind,
    pub format: Format,
    /// Its name in the job file.
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "a job has a handful of inputs")]
pub enum InputKind {
    Mqtt(MqttInput),
    File(FileInput),
    Reference(ReferenceInput),
}

/// How payloads are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An object, an array of objects, or one object a line.
    Json,
}

#[derive(Clone, Debug, PartialEq)]
pub struct MqttInput {
    pub broker: Broker,
    /// Valid topic filters, at least one.
    pub topics: Vec<String>,
    pub qos: Qos,
    /// The broker is told not to send larger ones; one that comes all the same ends the connection and, the third time,
    /// raises an alarm. 1 MiB.
    pub payload_bytes_max: usize,
    /// Messages the broker may send ahead of acknowledgements. 1,000: the records of one commit.
    pub receive_maximum: u16,
    /// Received and not yet stored; past it the source disconnects until there is room. 16 MiB.
    pub unacked_bytes_max: usize,
    /// How long the broker keeps the session of an absent gateway. `None`: for ever.
    pub session_expiry: Option<Duration>,
}

/// A finite file, read once.
#[derive(Clone, Debug, PartialEq)]
pub struct FileInput {
    pub path: PathBuf,
}

#[derive(Clone, Copy)]
enum Type {
    Mqtt,
    File,
    Reference,
}

pub(super) fn read(mut section: Section) -> Option<Input> {
    let words = [("mqtt", Type::Mqtt), ("file", Type::File), ("reference", Type::Reference)];
    section.required_text("type", "write `type = \"mqtt\"`, or `type = \"reference\"` for a table to join with")?;
    let kind = section.optional_choice("type", &words)?;
    let is_reference = matches!(kind, Type::Reference);
    let kind = match kind {
        Type::Mqtt => mqtt(&mut section).map(InputKind::Mqtt),
        Type::File => {
            let path = section.required_file("path", "write `path = \"rides.jsonl\"`; the path is relative to the job file");
            path.map(|path| InputKind::File(FileInput { path }))
        }
        Type::Reference => reference::read(&mut section).map(InputKind::Reference),
    };
    // reference data has formats of its own
    let format = match is_reference {
        true => Format::Json,
        false => section.choice("format", &[("json", Format::Json)], Format::Json),
    };
    let (name, span) = (section.name(), section.span.unwrap_or_default());
    section.finish();
    Some(Input { name, kind: kind?, format, span })
}

fn mqtt(section: &mut Section) -> Option<MqttInput> {
    let broker = Broker::read(section);
    let topics = section.required_texts("topics", "write `topics = [\"taxi/+/rides\"]`");
    for topic in &topics {
        if let Some(why) = bad_filter(&topic.value) {
            section.problems().push(bad_topic(topic, why));
        }
    }
    let payload_bytes_max = section.size("payload_bytes_max", KIB, MQTT_PAYLOAD_MAX, MIB);
    let unacked_bytes_max = section.size("unacked_bytes_max", KIB, 4 * KIB * MIB, 16 * MIB);
    if payload_bytes_max > unacked_bytes_max {
        let key = if section.has("payload_bytes_max") { "payload_bytes_max" } else { "unacked_bytes_max" };
        section.wrong(
            key,
            "`payload_bytes_max` is above `unacked_bytes_max`",
            "one message would never fit",
            "raise `unacked_bytes_max` or lower `payload_bytes_max`",
        );
    }
    let week = Some(Duration::from_secs(7 * 86_400));
    Some(MqttInput {
        topics: topics.into_iter().map(|topic| topic.value).collect(),
        qos: qos(section),
        payload_bytes_max: usize::try_from(payload_bytes_max).unwrap_or(usize::MAX),
        receive_maximum: u16::try_from(section.count("receive_maximum", 1, 65_535, 1_000)).unwrap_or(u16::MAX),
        unacked_bytes_max: usize::try_from(unacked_bytes_max).unwrap_or(usize::MAX),
        session_expiry: section.duration_or_forever("session_expiry", Duration::ZERO, SESSION_EXPIRY_MAX, week),
        broker: broker?,
    })
}

pub(super) fn bad_topic(topic: &Text, why: &str) -> Diagnostic {
    Diagnostic::error(format!("`{}` is no topic here", topic.value.escape_debug()), topic.span).label(why)
}

/// Why a topic filter is not one; by MQTT's rules for `+` and `#`.
fn bad_filter(filter: &str) -> Option<&'static str> {
    // `$share/group/filter`: the group is a name, the rest the filter
    let filter = match filter.strip_prefix("$share/") {
        Some(shared) => match shared.split_once('/') {
            Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) => filter,
            _ => return Some("expected `$share/group/filter`"),
        },
        None => filter,
    };
    let levels: Vec<&str> = filter.split('/').collect();
    if let Some(why) = bad_text(filter) {
        return Some(why);
    }
    if levels.iter().any(|level| level.contains('+') && *level != "+") {
        return Some("`+` stands for a whole level: `a/+/b`");
    }
    let open = levels.iter().position(|level| level.contains('#'));
    match open {
        Some(at) if at + 1 != levels.len() || levels.last() != Some(&"#") => Some("`#` stands for all that follows: `a/#`"),
        _ => None,
    }
}

/// Why a topic to publish on is not one.
pub(super) fn bad_name(topic: &str) -> Option<&'static str> {
    match topic {
        _ if topic.contains(['+', '#']) => Some("rows go to one topic, without `+` and `#`"),
        _ if topic.starts_with('$') => Some("topics that start with `$` belong to the broker"),
        _ => bad_text(topic),
    }
}

fn bad_text(topic: &str) -> Option<&'static str> {
    match topic {
        "" => Some("expected a topic that is not empty"),
        _ if topic.len() > 65_535 => Some("expected at most 65,535 bytes"),
        _ if topic.chars().any(char::is_control) => Some("control characters are not allowed"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_filters() {
        for (filter, good) in [
            ("a/b", true),
            ("/", true),
            ("+/b/+", true),
            ("#", true),
            ("a/#", true),
            ("$share/g/a/+", true),
            ("$SYS/#", true),
            ("", false),
            ("a+/b", false),
            ("a/#/b", false),
            ("a#", false),
            ("$share/g", false),
            ("$share//a", false),
            ("a\0b", false),
        ] {
            assert_eq!(bad_filter(filter).is_none(), good, "{filter:?}");
        }
        for (topic, good) in [("a/b", true), ("a/+", false), ("#", false), ("$SYS/x", false), ("", false)] {
            assert_eq!(bad_name(topic).is_none(), good, "{topic:?}");
        }
    }
}
