//! How to reach a broker, and what to tell a person when that does not work.
//!
//! In: address, identity and TLS settings. Out: options for the MQTT client, and [`Trouble`]: what is wrong and what to
//! do next. Invariant: no secret is ever part of a message. Not here: sessions, subscriptions, retries.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rumqttc::mqttbytes::Error as CodecError;
use rumqttc::{ConnectReturnCode, ConnectionError, DisconnectReasonCode, MqttOptions, StateError, TlsConfiguration, Transport};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;

use super::socket::{CollectedWrites, Collecting};
use super::topic;

/// Connecting, TLS and MQTT handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A CA file is a few KB; whoever names a disk image instead gets an error, not a full memory.
const CA_BYTES_MAX: u64 = 4 << 20;

/// A broker and who we are to it.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// `mqtt://host[:1883]` or `mqtts://host[:8883]`
    pub url: String,
    pub client_id: String,
    pub username: Option<String>,
    pub password: Option<SecretString>,
    /// PEM file with the certificates to trust instead of the system's; for `mqtts` only.
    pub ca_file: Option<PathBuf>,
    /// Whole seconds, 1 to 65,535.
    pub keep_alive: Duration,
}

impl BrokerConfig {
    /// Notices a dead link within half a minute, at one small packet each way.
    pub const KEEP_ALIVE: Duration = Duration::from_secs(20);

    pub fn new(url: impl Into<String>, client_id: impl Into<String>) -> BrokerConfig {
        BrokerConfig {
            url: url.into(),
            client_id: client_id.into(),
            username: None,
            password: None,
            ca_file: None,
            keep_alive: Self::KEEP_ALIVE,
        }
    }
}

/// Settings that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("`{url}` is no broker address: {problem}; write `mqtt://host:1883` or `mqtts://host:8883`")]
    Url { url: String, problem: &'static str },
    #[error("an mqtt input needs at least one topic")]
    NoTopics,
    #[error("topic `{topic}`: {problem}")]
    Topic { topic: String, problem: &'static str },
    #[error("qos {0} is not supported: use 0 or 1 (QoS 2 would store every message twice for what row ids already give)")]
    Qos(u8),
    #[error("{name} = {value} is out of range: {expected}")]
    Range { name: &'static str, value: u64, expected: &'static str },
    #[error("`ca_file` needs an `mqtts://` url")]
    CaWithoutTls,
    #[error("a password needs a user name")]
    PasswordWithoutUser,
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub tls: bool,
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

impl Endpoint {
    /// Reads `mqtt://host[:port]` or `mqtts://host[:port]`.
    pub fn parse(url: &str) -> Result<Endpoint, ConfigError> {
        let wrong = |problem| ConfigError::Url { url: without_user(url), problem };
        let (tls, rest) = match url.split_once("://") {
            Some(("mqtt" | "tcp", rest)) => (false, rest),
            Some(("mqtts" | "ssl", rest)) => (true, rest),
            Some(_) => return Err(wrong("the scheme is neither mqtt nor mqtts")),
            None => return Err(wrong("the scheme is missing")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err(wrong("user name and password have their own settings"));
        }
        if rest.contains(['/', '?', '#']) {
            return Err(wrong("it has more than host and port"));
        }
        let (host, port) = match rest.strip_prefix('[').map(|r| r.split_once(']')) {
            Some(Some((host, ""))) => (host, None),
            Some(Some((host, port))) => {
                (host, Some(port.strip_prefix(':').ok_or_else(|| wrong("`]` is followed by something else than a port"))?))
            }
            Some(None) => return Err(wrong("`]` is missing")),
            None => rest.rsplit_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            None => {
                if tls {
                    8883
                } else {
                    1883
                }
            }
            Some(text) => text.parse().ok().filter(|p| *p > 0).ok_or_else(|| wrong("the port is no number from 1 to 65535"))?,
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        Ok(Endpoint { tls, host: host.to_owned(), port })
    }
}

/// The url as it may be shown: what stands before an `@` could be a password.
fn without_user(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            format!("{}…{}", url.get(..scheme + 3).unwrap_or_default(), url.get(at..).unwrap_or_default())
        }
        _ => url.to_owned(),
    }
}

/// A broker whose settings were checked.
#[derive(Clone, Debug)]
pub(crate) struct CheckedBroker {
    pub endpoint: Endpoint,
    pub config: BrokerConfig,
}

impl CheckedBroker {
    pub fn new(config: BrokerConfig) -> Result<CheckedBroker, ConfigError> {
        let endpoint = Endpoint::parse(&config.url)?;
        if config.ca_file.is_some() && !endpoint.tls {
            return Err(ConfigError::CaWithoutTls);
        }
        if config.password.is_some() && config.username.is_none() {
            return Err(ConfigError::PasswordWithoutUser);
        }
        let keep_alive = config.keep_alive.as_secs();
        if !(1..=65_535).contains(&keep_alive) {
            return Err(ConfigError::Range { name: "keep_alive", value: keep_alive, expected: "1 to 65535 seconds" });
        }
        if config.client_id.is_empty() || config.client_id.len() > topic::TOPIC_BYTES_MAX {
            let value = config.client_id.len() as u64;
            return Err(ConfigError::Range { name: "client_id length", value, expected: "1 to 65535 bytes" });
        }
        Ok(CheckedBroker { endpoint, config })
    }

    /// Options with everything that has to do with reaching the broker. The CA file is read anew for each connection, so
    /// that a renewed one is picked up.
    pub async fn options(&self, collecting: Collecting) -> Result<MqttOptions, Trouble> {
        let Endpoint { tls, host, port } = self.endpoint.clone();
        let mut options = MqttOptions::new(&self.config.client_id, (host.clone(), port));
        options.set_keep_alive(u16::try_from(self.config.keep_alive.as_secs()).unwrap_or(u16::MAX));
        options.set_connect_timeout(CONNECT_TIMEOUT);
        if let Some(user) = &self.config.username {
            match &self.config.password {
                Some(password) => options.set_credentials(user, password.expose_secret().to_owned()),
                None => options.set_username(user),
            };
        }
        if tls {
            options.set_transport(Transport::tls_with_config(self.tls().await?));
        }
        options.set_socket_connector(move |_, _| {
            let (host, collecting) = (host.clone(), collecting.clone());
            async move {
                let stream = connect(&host, port).await?;
                // acknowledgements leave in batches of our own making
                stream.set_nodelay(true)?;
                Ok(CollectedWrites::new(stream, collecting))
            }
        });
        Ok(options)
    }

    async fn tls(&self) -> Result<TlsConfiguration, Trouble> {
        let Some(path) = &self.config.ca_file else {
            return TlsConfiguration::try_default_rustls()
                .map_err(|e| Trouble::new(format!("the system's certificates cannot be used ({e}): name a `ca_file`")));
        };
        let unreadable = |problem: String| Trouble::new(format!("`ca_file` {}: {problem}", path.display()));
        let size = tokio::fs::metadata(path).await.map_err(|e| unreadable(format!("{e}; correct the path or its permissions")))?.len();
        if size > CA_BYTES_MAX {
            return Err(unreadable(format!("{size} bytes are too many for a list of certificates; name a PEM file")));
        }
        let ca = tokio::fs::read(path).await.map_err(|e| unreadable(format!("{e}; correct the path or its permissions")))?;
        if !ca.windows(10).any(|w| w == b"-----BEGIN") {
            return Err(unreadable("holds no PEM certificate".to_owned()));
        }
        Ok(TlsConfiguration::Simple { ca, alpn: None, client_auth: None })
    }

    /// What a failure of the client means for the person who runs the gateway.
    pub fn explain(&self, error: &ConnectionError, was_connected: bool) -> Trouble {
        let at = &self.endpoint;
        match error {
            ConnectionError::ConnectionRefused(code) => Trouble::new(self.refusal(*code)),
            ConnectionError::Timeout(_) => {
                Trouble::new(format!("no answer from {at} within {} s: check address, firewall and broker", CONNECT_TIMEOUT.as_secs()))
            }
            ConnectionError::Tls(e) => Trouble::new(self.tls_problem(e)),
            ConnectionError::Io(e) => self.io_problem(e, was_connected),
            ConnectionError::MqttState(StateError::Io(e)) => self.io_problem(e, was_connected),
            ConnectionError::MqttState(StateError::Deserialization(CodecError::Io(e))) => self.io_problem(e, was_connected),
            ConnectionError::MqttState(StateError::Deserialization(CodecError::PayloadSizeLimitExceeded { pkt_size, max })) => Trouble {
                text: format!("a packet of {pkt_size} bytes is over the limit of {max}"),
                oversize: Some(*pkt_size),
                rejection: None,
            },
            ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
                self.server_disconnect(*reason_code, reason_string.as_deref())
            }
            ConnectionError::MqttState(StateError::Deserialization(CodecError::InvalidConnectReturnCode(code))) => {
                let text = format!("{at} answered with code {code:#04x}, which is not for this kind of packet");
                // some brokers refuse a publish with the code for a packet that is too large
                Trouble { text, oversize: None, rejection: (*code == 0x95).then(|| "the broker finds the message too large".to_owned()) }
            }
            ConnectionError::MqttState(StateError::ConnectionAborted) => self.closed(was_connected),
            ConnectionError::MqttState(StateError::AwaitPingResp) => {
                Trouble::new(format!("{at} stopped answering: check the link and the broker"))
            }
            other => Trouble::new(format!("connection to {at}: {other}")),
        }
    }

    fn refusal(&self, code: ConnectReturnCode) -> String {
        let at = &self.endpoint;
        match code {
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => match &self.config.username {
                Some(user) => format!("{at} refused user `{user}`: correct `username` and `password`, or the broker's access rules"),
                None => format!("{at} wants a user name: set `username` and `password`"),
            },
            ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => {
                format!("{at} refused the client id `{}`: set another `client_id`", self.config.client_id)
            }
            ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion => {
                format!("{at} does not speak MQTT 5: use a broker that does")
            }
            ConnectReturnCode::ServiceUnavailable | ConnectReturnCode::ServerUnavailable | ConnectReturnCode::ServerBusy => {
                format!("{at} is busy or not ready; trying again")
            }
            other => format!("{at} refused the connection ({other:?}): see the broker's log"),
        }
    }

    fn tls_problem(&self, error: &rumqttc::TlsError) -> String {
        let text = format!("{error:?}");
        let at = &self.endpoint;
        let advice = if text.contains("UnknownIssuer") || text.contains("CaUsedAsEndEntity") {
            "its certificate is not signed by a trusted authority: name the right `ca_file`"
        } else if text.contains("NotValidForName") {
            "its certificate is for another host name: use that name in `url`"
        } else if text.contains("Expired") || text.contains("NotValidYet") {
            "its certificate is not valid now: check it, and the clock of this machine"
        } else if text.contains("InvalidContentType") || text.contains("InvalidMessage") || text.contains("UnexpectedEof") {
            "it does not speak TLS there: check the port, or use `mqtt://`"
        } else {
            "check `ca_file` and the broker's certificate"
        };
        format!("TLS with {at}: {advice} ({error})")
    }

    fn io_problem(&self, error: &io::Error, was_connected: bool) -> Trouble {
        let at = &self.endpoint;
        Trouble::new(match error.kind() {
            io::ErrorKind::ConnectionRefused => format!("nothing listens at {at}: start the broker or correct `url`"),
            io::ErrorKind::NotFound => format!("host `{}` has no address: correct `url` or the name service ({error})", at.host),
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe => {
                return self.closed(was_connected);
            }
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::TimedOut => {
                format!("{at} cannot be reached ({error}): check the network")
            }
            _ => format!("connection to {at}: {error}"),
        })
    }

    fn closed(&self, was_connected: bool) -> Trouble {
        let at = &self.endpoint;
        Trouble::new(if was_connected {
            format!("{at} closed the connection; trying again")
        } else if self.endpoint.tls {
            format!("{at} closed the connection before accepting it: see the broker's log")
        } else {
            format!("{at} closed the connection before accepting it: see the broker's log, or use `mqtts://` if it wants TLS")
        })
    }

    fn server_disconnect(&self, code: DisconnectReasonCode, reason: Option<&str>) -> Trouble {
        let at = &self.endpoint;
        let said = reason.map(|r| format!(" ({r})")).unwrap_or_default();
        let text = match code {
            DisconnectReasonCode::SessionTakenOver => {
                format!("another client took over the client id `{}` at {at}: give each its own", self.config.client_id)
            }
            DisconnectReasonCode::ServerShuttingDown | DisconnectReasonCode::ServerBusy => {
                format!("{at} is going down or busy{said}; trying again")
            }
            DisconnectReasonCode::NotAuthorized => format!("{at} withdrew our rights{said}: see the broker's access rules"),
            other => format!("{at} ended the connection: {other:?}{said}"),
        };
        let rejection = matches!(
            code,
            DisconnectReasonCode::PacketTooLarge | DisconnectReasonCode::PayloadFormatInvalid | DisconnectReasonCode::TopicNameInvalid
        )
        .then(|| format!("the broker refuses the message: {code:?}{said}"));
        Trouble { text, oversize: None, rejection }
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let unknown = |e: io::Error| io::Error::new(io::ErrorKind::NotFound, e);
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(unknown)?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no address found"));
    }
    TcpStream::connect(&*addresses).await
}

/// Why there is no connection, in words that say what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub text: String,
    /// A message over the size limit ended the connection: its size in bytes.
    pub oversize: Option<usize>,
    /// The broker said that it will not have the message we sent.
    pub rejection: Option<String>,
}

impl Trouble {
    pub fn new(text: String) -> Trouble {
        Trouble { text, oversize: None, rejection: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let endpoint = |tls, host: &str, port| Ok(Endpoint { tls, host: host.into(), port });
        assert_eq!(Endpoint::parse("mqtt://broker"), endpoint(false, "broker", 1883));
        assert_eq!(Endpoint::parse("mqtts://broker/"), endpoint(true, "broker", 8883));
        assert_eq!(Endpoint::parse("mqtt://10.0.0.1:99"), endpoint(false, "10.0.0.1", 99));
        assert_eq!(Endpoint::parse("mqtt://[::1]:99"), endpoint(false, "::1", 99));
        assert_eq!(Endpoint::parse("mqtts://[::1]"), endpoint(true, "::1", 8883));
    }

    #[test]
    fn bad_addresses_say_what_is_wrong_without_showing_a_password() {
        for (url, word) in [
            ("broker:1883", "scheme"),
            ("http://broker", "scheme"),
            ("mqtt://", "host"),
            ("mqtt://b:0", "port"),
            ("mqtt://b:x", "port"),
            ("mqtt://[::1", "]"),
            ("mqtt://[::1]x", "]"),
            ("mqtt://b/path", "more than"),
            ("mqtt://user:hunter2@b", "own settings"),
        ] {
            let message = Endpoint::parse(url).unwrap_err().to_string();
            assert!(message.contains(word), "{url}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let mut config = BrokerConfig::new("mqtt://b", "c");
        config.ca_file = Some("ca.pem".into());
        assert_eq!(CheckedBroker::new(config).unwrap_err(), ConfigError::CaWithoutTls);
        let mut config = BrokerConfig::new("mqtt://b", "c");
        config.password = Some("x".into());
        assert_eq!(CheckedBroker::new(config).unwrap_err(), ConfigError::PasswordWithoutUser);
        let mut config = BrokerConfig::new("mqtt://b", "c");
        config.keep_alive = Duration::from_millis(10);
        assert!(matches!(CheckedBroker::new(config).unwrap_err(), ConfigError::Range { name: "keep_alive", .. }));
        assert!(CheckedBroker::new(BrokerConfig::new("mqtt://b", "")).is_err());
    }
}
