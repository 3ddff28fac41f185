//! A broker's settings.
//!
//! In: `url`, `username`, `password`, `client_id`, `keep_alive`, `protocol`, `status_topic`, `qos` of a section, and
//! the files of TLS. Out: [`BrokerConfig`] and [`Qos`], checked. Invariant: an address holds no password, and a
//! password has a user name. Not here: connecting.

use std::fmt;
use std::time::Duration;

use toml::de::DeValue;

use super::status::StatusTopic;
use crate::diagnostic::Diagnostic;
use crate::settings::address::{self, BadAddress, is_loopback};
use crate::settings::{Secret, Section};
use crate::tls::TlsFiles;

/// The keep-alive of MQTT is a 16-bit number of seconds.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(65_535);
/// Longer ids are refused by some brokers.
const CLIENT_ID_BYTES_MAX: usize = 128;

/// Delivery of MQTT messages. There is no level 2: what repeats is found by the row's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// May be lost on the way.
    AtMostOnce,
    AtLeastOnce,
}

/// A version of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    V5,
    V311,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::V5 => "MQTT 5",
            Protocol::V311 => "MQTT 3.1.1",
        })
    }
}

impl Qos {
    /// Reads `qos`.
    pub fn read(section: &mut Section) -> Qos {
        if let Some((DeValue::Integer(level), span)) = section.get("qos")
            && level.as_str() == "2"
        {
            let error = Diagnostic::error("QoS 2 is not supported", span).label("expected 0 or 1");
            let why = "QoS 2 is exactly once for one hop only and costs two more packets a message; with QoS 1 every \
                row carries an id by which repeats are dropped";
            section.problems().push(error.help("write `qos = 1`").note(why));
            return Qos::AtLeastOnce;
        }
        match section.count("qos", 0, 1, 1) {
            0 => Qos::AtMostOnce,
            _ => Qos::AtLeastOnce,
        }
    }
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttAddress {
    /// A name or an address; an IPv6 address has no brackets.
    pub host: String,
    pub port: u16,
    pub tls: bool,
}

impl MqttAddress {
    /// Reads `mqtt://host[:port]` or `mqtts://host[:port]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<MqttAddress, BadAddress> {
        const FORM: &str = "write `mqtt://host:1883`, or `mqtts://host:8883` for TLS";
        const SCHEMES: &str = "expected `mqtt://` or `mqtts://`";
        let url = address::parse(text, FORM)?;
        let tls = match url.scheme() {
            "mqtt" => false,
            "mqtts" => true,
            "tcp" => return Err(BadAddress::new("brokers are addressed by `mqtt://`", SCHEMES, FORM)),
            "ssl" | "tls" => {
                return Err(BadAddress::new(
                    "brokers with TLS are addressed by `mqtts://`",
                    "expected `mqtts://`",
                    FORM,
                ));
            }
            "ws" | "wss" => return Err(BadAddress::new("MQTT over WebSocket is not supported", SCHEMES, FORM)),
            _ => return Err(BadAddress::new("this is no address of a broker", SCHEMES, FORM)),
        };
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return Err(BadAddress::new("the address has no host", "expected a name or an address", FORM));
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            let help = "topics are listed by `topics` or `topic`";
            return Err(BadAddress::new("an address of a broker has no path", "expected only host and port", help));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        Ok(MqttAddress { host, port: url.port().unwrap_or(if tls { 8883 } else { 1883 }), tls })
    }

    /// As a job file has it.
    pub fn url(&self) -> String {
        format!("{}://{self}", if self.tls { "mqtts" } else { "mqtt" })
    }
}

impl fmt::Display for MqttAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A broker and who we are to it.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    pub address: MqttAddress,
    pub username: Option<String>,
    /// Only with a user name.
    pub password: Option<Secret>,
    /// Empty without TLS.
    pub tls: TlsFiles,
    /// `None`: one that is made once and kept in the journal.
    pub client_id: Option<String>,
    /// Whole seconds, 1 to 65,535.
    pub keep_alive: Duration,
    /// `None`: MQTT 5, and 3.1.1 where the broker does not speak that.
    pub protocol: Option<Protocol>,
    /// Where the connection tells that the job runs, stopped or was lost.
    pub status_topic: Option<Box<StatusTopic>>,
}

impl BrokerConfig {
    /// The client id that is written: a broker throws out whoever has it when another one comes with it.
    fn the_client(&self) -> Option<String> {
        self.client_id.as_ref().map(|id| format!("the client id `{id}` at {}", self.address))
    }

    /// What no other connection of the job may use besides: the client id that is written, and the status topic, where
    /// the last one to speak would be believed.
    pub fn exclusive(&self) -> Vec<String> {
        let status = self.status_topic.as_ref();
        let status = status.map(|status| format!("the status topic `{}` at {}", status.topic, self.address));
        self.the_client().into_iter().chain(status).collect()
    }

    /// Notices a dead link within a minute, at one small packet each way.
    pub const KEEP_ALIVE: Duration = Duration::from_secs(30);

    /// The keys that it reads.
    pub const KEYS: [&str; 10] = [
        "url",
        "username",
        "password",
        "ca_file",
        "cert_file",
        "key_file",
        "client_id",
        "keep_alive",
        "protocol",
        "status_topic",
    ];

    pub fn new(address: MqttAddress) -> BrokerConfig {
        BrokerConfig {
            address,
            username: None,
            password: None,
            tls: TlsFiles::default(),
            client_id: None,
            keep_alive: Self::KEEP_ALIVE,
            protocol: None,
            status_topic: None,
        }
    }

    /// Reads the keys that say where a broker is and who we are to it.
    pub fn read(section: &mut Section) -> Option<BrokerConfig> {
        let url = section.required_text("url", "write `url = \"mqtt://127.0.0.1:1883\"`");
        let address = url.and_then(|url| MqttAddress::parse(&url.value).map_err(|bad| bad.tell(section, &url)).ok());
        let username = section.text("username").map(|text| text.value);
        let password = section.secret("password");
        let tls = TlsFiles::read(section);
        let client_id = client_id(section);
        let keep_alive = keep_alive(section);
        let versions = [("auto", None), ("5", Some(Protocol::V5)), ("3.1.1", Some(Protocol::V311))];
        let protocol = section.choice("protocol", &versions, None);
        let status_topic = StatusTopic::read(section);
        if password.is_some() && username.is_none() && !section.has("username") {
            let help = "write `username = \"…\"` too, or leave the password out";
            section.wrong("password", "`password` without `username`", "a password needs a user name", help);
        }
        let address = address?;
        match address.tls {
            true => tls.examine(section),
            false => TlsFiles::refuse(section, "mqtt://", "mqtts://"),
        }
        if password.is_some() && !address.tls && !is_loopback(&address.host) {
            let warning = Diagnostic::warning("the password crosses the network unencrypted", section.key_span("url"))
                .label("no TLS");
            section.problems().push(warning.help("write the url with `mqtts://`"));
        }
        Some(BrokerConfig { address, username, password, tls, client_id, keep_alive, protocol, status_topic })
    }

    pub fn secrets(&self) -> Vec<&Secret> {
        self.password.iter().collect()
    }
}

fn client_id(section: &mut Section) -> Option<String> {
    let id = section.text("client_id")?;
    if id.value.len() > CLIENT_ID_BYTES_MAX || id.value.chars().any(char::is_control) {
        let error =
            Diagnostic::error("the client id does not fit", id.span).label("expected at most 128 bytes of text");
        section.problems().push(error.help("leave it out: forebay makes one and keeps it in the journal"));
    }
    Some(id.value)
}

fn keep_alive(section: &mut Section) -> Duration {
    let keep_alive = section.duration("keep_alive", Duration::from_secs(1), KEEP_ALIVE_MAX, BrokerConfig::KEEP_ALIVE);
    if keep_alive.subsec_nanos() == 0 {
        return keep_alive;
    }
    section.wrong(
        "keep_alive",
        "`keep_alive` is no whole number of seconds",
        "expected whole seconds",
        "write `keep_alive = \"30s\"`",
    );
    BrokerConfig::KEEP_ALIVE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (url, host, port, tls, shown) in [
            ("mqtt://broker", "broker", 1883, false, "broker:1883"),
            ("mqtts://broker/", "broker", 8883, true, "broker:8883"),
            ("mqtt://10.0.0.1:99", "10.0.0.1", 99, false, "10.0.0.1:99"),
            ("mqtt://[::1]:99", "::1", 99, false, "[::1]:99"),
            ("mqtts://[::1]", "::1", 8883, true, "[::1]:8883"),
        ] {
            let address = MqttAddress::parse(url).unwrap();
            assert_eq!(address, MqttAddress { host: host.into(), port, tls });
            assert_eq!(address.to_string(), shown);
            assert_eq!(MqttAddress::parse(&address.url()).unwrap(), address);
        }
    }

    #[test]
    fn bad_addresses_say_what_is_wrong_without_showing_a_password() {
        for (url, word) in [
            ("broker:1883", "no address of a broker"),
            ("http://broker", "no address of a broker"),
            ("mqtt://", "no host"),
            ("mqtt://b:x", "no address"),
            ("mqtt://[::1", "no address"),
            ("mqtt://b/path", "no path"),
            ("mqtt://user:hunter2@b", "a password stands in an address"),
        ] {
            let message = MqttAddress::parse(url).unwrap_err().to_string();
            assert!(message.contains(word), "{url}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
