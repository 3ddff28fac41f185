//! How to reach a broker, and what to tell a person when that does not work.
//!
//! In: a broker's settings and a client id. Out: options for the MQTT client, and [`Trouble`]: what is wrong and what to
//! do next. Invariant: no secret is ever part of a message. Not here: sessions, subscriptions, retries.

use std::io;
use std::time::Duration;

use rumqttc::mqttbytes::Error as CodecError;
use rumqttc::{ConnectReturnCode, ConnectionError, DisconnectReasonCode, MqttOptions, StateError, TlsConfiguration, Transport};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;

use super::broker::{BrokerConfig, MqttAddress};
use super::socket::{CollectedWrites, Collecting};

/// Connecting, TLS and MQTT handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A CA file is a few KB; whoever names a disk image instead gets an error, not a full memory.
const CA_BYTES_MAX: u64 = 4 << 20;

/// The way to a broker under a client id.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub config: BrokerConfig,
    pub client_id: String,
}

impl Connector {
    pub fn new(config: BrokerConfig, client_id: impl Into<String>) -> Connector {
        Connector { config, client_id: client_id.into() }
    }

    /// Options with everything that has to do with reaching the broker. Password and CA file are read anew for each
    /// connection, so that a renewed one is picked up.
    pub async fn options(&self, collecting: Collecting) -> Result<MqttOptions, Trouble> {
        let MqttAddress { tls, host, port } = self.config.address.clone();
        let mut options = MqttOptions::new(&self.client_id, (host.clone(), port));
        options.set_keep_alive(u16::try_from(self.config.keep_alive.as_secs()).unwrap_or(u16::MAX));
        options.set_connect_timeout(CONNECT_TIMEOUT);
        if let Some(user) = &self.config.username {
            match self.password().await? {
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

    async fn password(&self) -> Result<Option<SecretString>, Trouble> {
        let Some(secret) = self.config.password.clone() else { return Ok(None) };
        let reading = tokio::task::spawn_blocking(move || secret.read().map_err(|e| format!("password: {e}; {}", e.help())));
        let read = reading.await.unwrap_or_else(|e| Err(e.to_string()));
        read.map(Some).map_err(Trouble::new)
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
        let at = &self.config.address;
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
        let at = &self.config.address;
        match code {
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => match &self.config.username {
                Some(user) => format!("{at} refused user `{user}`: correct `username` and `password`, or the broker's access rules"),
                None => format!("{at} wants a user name: set `username` and `password`"),
            },
            ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => {
                format!("{at} refused the client id `{}`: set another `client_id`", self.client_id)
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
        let at = &self.config.address;
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
        let at = &self.config.address;
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
        let at = &self.config.address;
        Trouble::new(if was_connected {
            format!("{at} closed the connection; trying again")
        } else if self.config.address.tls {
            format!("{at} closed the connection before accepting it: see the broker's log")
        } else {
            format!("{at} closed the connection before accepting it: see the broker's log, or use `mqtts://` if it wants TLS")
        })
    }

    fn server_disconnect(&self, code: DisconnectReasonCode, reason: Option<&str>) -> Trouble {
        let at = &self.config.address;
        let said = reason.map(|r| format!(" ({r})")).unwrap_or_default();
        let text = match code {
            DisconnectReasonCode::SessionTakenOver => {
                format!("another client took over the client id `{}` at {at}: give each its own", self.client_id)
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
