//! How to reach a broker, and what to tell a person when that does not work.
//!
//! In: a broker's settings and a client id. Out: a stream, what to trust, the password; and [`Trouble`]: what is wrong
//! and what to do next. Invariant: no secret is ever part of a message. Not here: the packets of any version (`wire`).

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::TlsConfiguration;
use secrecy::SecretString;
use tokio::net::TcpStream;

use super::broker::{BrokerConfig, Protocol};
use super::socket::{CollectedWrites, Ending};
use super::status::Status;
use crate::tls;

/// Connecting, TLS and MQTT handshake together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The way to a broker under a client id.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub config: BrokerConfig,
    pub client_id: String,
    /// What it tells the broker of the job.
    pub status: Option<Status>,
}

impl Connector {
    pub fn new(config: BrokerConfig, client_id: impl Into<String>) -> Connector {
        Connector { config, client_id: client_id.into(), status: None }
    }

    /// Tells the broker of the job of this name, where there is a topic for that.
    pub fn of_job(self, job: &str) -> Connector {
        let status = self.config.status_topic.as_ref().map(|topic| Status::new(topic, job));
        Connector { status, ..self }
    }

    /// What is told over a connection that begins now.
    pub fn status_due(&self) -> Option<&Status> {
        self.status.as_ref().filter(|status| status.is_due())
    }

    pub(super) fn keep_alive_seconds(&self) -> u16 {
        u16::try_from(self.config.keep_alive.as_secs()).unwrap_or(u16::MAX)
    }

    /// A stream to the broker, without TLS.
    pub(super) async fn stream(self, ending: Ending) -> io::Result<CollectedWrites<TcpStream>> {
        let stream = connect(&self.config.address.host, self.config.address.port).await?;
        // acknowledgements leave in batches of our own making
        stream.set_nodelay(true)?;
        Ok(CollectedWrites::new(stream, ending))
    }

    /// The password, read anew for each connection, so that a changed one is picked up.
    pub(super) async fn password(&self) -> Result<Option<SecretString>, Trouble> {
        let Some(secret) = self.config.password.clone() else { return Ok(None) };
        let reading =
            tokio::task::spawn_blocking(move || secret.read().map_err(|e| format!("password: {e}; {}", e.help())));
        let read = reading.await.unwrap_or_else(|e| Err(e.to_string()));
        read.map(Some).map_err(Trouble::new)
    }

    /// Whom to trust and who we are; the files are read anew for each connection, so that renewed ones are picked up.
    pub(super) async fn tls(&self) -> Result<TlsConfiguration, Trouble> {
        let (files, span) = (self.config.tls.clone(), tracing::Span::current());
        let read = tokio::task::spawn_blocking(move || span.in_scope(|| files.for_one_connection())).await;
        let config = read.map_err(|e| Trouble::new(e.to_string()))?.map_err(|e| Trouble::new(e.to_string()))?;
        Ok(TlsConfiguration::Rustls(Arc::new(config)))
    }

    /// The broker refused us.
    pub(super) fn refused(&self, refusal: BrokerRefusal) -> Trouble {
        let at = &self.config.address;
        let text = match refusal {
            BrokerRefusal::Login => self.login_refused(),
            BrokerRefusal::ClientId => {
                format!("{at} refused the client id `{}`: set another `client_id`", self.client_id)
            }
            BrokerRefusal::Version(version) => {
                let text = match (self.config.protocol, version) {
                    (Some(_), _) => {
                        format!("{at} does not speak {version}: leave `protocol` out, or name the version it speaks")
                    }
                    // the other version follows
                    (None, Protocol::V5) => format!("{at} does not speak {version}"),
                    (None, Protocol::V311) => format!("{at} does not speak {version} either: see the broker's log"),
                };
                return Trouble { misfit: Some(Misfit::Refused), ..Trouble::new(text) };
            }
            BrokerRefusal::Will(code) => {
                format!("{at} keeps no last will of QoS 1 as a retained message ({code}): leave `status_topic` out")
            }
            BrokerRefusal::Busy => format!("{at} is busy or not ready; trying again"),
            BrokerRefusal::Other(code) => format!("{at} refused the connection ({code}): see the broker's log"),
        };
        Trouble::new(text)
    }

    /// A broker may check at this time too whether we may publish the last will.
    fn login_refused(&self) -> String {
        let at = &self.config.address;
        let text = match &self.config.username {
            Some(user) => {
                format!("{at} refused user `{user}`: correct `username` and `password`, or the broker's access rules")
            }
            None => format!("{at} wants a user name: set `username` and `password`"),
        };
        match &self.status {
            Some(status) => format!("{text}; or let it publish to status_topic `{}`", status.topic),
            None => text,
        }
    }

    pub(super) fn no_answer(&self) -> Trouble {
        let (at, seconds) = (&self.config.address, CONNECT_TIMEOUT.as_secs());
        Trouble::new(format!("no answer from {at} within {seconds} s: check address, firewall and broker"))
    }

    pub(super) fn no_broker(&self) -> Trouble {
        Trouble::new(format!(
            "{} is no MQTT broker, it answers in HTTP: correct the port in `url`",
            self.config.address
        ))
    }

    pub(super) fn silent(&self) -> Trouble {
        let text = format!("{} stopped answering: check the link and the broker", self.config.address);
        Trouble { is_passing: true, ..Trouble::new(text) }
    }

    /// The broker's certificate does not verify, or it refused ours, or wants one.
    fn certificate_problem(&self, error: &(dyn Error + 'static)) -> Option<Trouble> {
        let said = match tls::mistrust(error) {
            Some((_, said)) => said,
            None => self.config.tls.refusal(tls::alert(error)?)?,
        };
        Some(Trouble::new(format!("TLS with {}: {said}", self.config.address)))
    }

    pub(super) fn tls_problem(&self, error: &(dyn Error + 'static)) -> Trouble {
        if let Some(trouble) = self.certificate_problem(error) {
            return trouble;
        }
        // all that the library knows
        let (at, text) = (&self.config.address, format!("{error:?}"));
        let advice =
            if text.contains("InvalidContentType") || text.contains("InvalidMessage") || text.contains("UnexpectedEof")
            {
                "it does not speak TLS there: check the port, or use `mqtt://`"
            } else {
                "check `ca_file` and the broker's certificate"
            };
        Trouble::new(format!("TLS with {at}: {advice} ({error})"))
    }

    pub(super) fn io_problem(&self, error: &io::Error, was_connected: bool) -> Trouble {
        if let Some(trouble) = self.certificate_problem(error) {
            return trouble;
        }
        let at = &self.config.address;
        let text = match error.kind() {
            io::ErrorKind::ConnectionRefused => format!("nothing listens at {at}: start the broker or correct `url`"),
            io::ErrorKind::NotFound => {
                format!("host `{}` has no address: correct `url` or the name service ({error})", at.host)
            }
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
        };
        Trouble { is_passing: was_connected, ..Trouble::new(text) }
    }

    pub(super) fn closed(&self, was_connected: bool) -> Trouble {
        let at = &self.config.address;
        let text = if was_connected {
            format!("{at} closed the connection; trying again")
        } else if let Some(client) = &self.config.tls.client {
            let file = client.cert_file.display();
            format!(
                "{at} closed the connection before accepting it: see the broker's log, it may refuse `cert_file` {file}"
            )
        } else if self.config.address.tls {
            format!("{at} closed the connection before accepting it: see the broker's log")
        } else {
            format!(
                "{at} closed the connection before accepting it: see the broker's log, or use `mqtts://` if it wants \
                TLS"
            )
        };
        Trouble {
            misfit: (!was_connected).then_some(Misfit::Closed),
            is_bare: was_connected,
            is_passing: was_connected,
            ..Trouble::new(text)
        }
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
    /// It may be that the broker does not speak the version of MQTT that we do.
    pub misfit: Option<Misfit>,
    /// The broker closed a connection that it had accepted, and gave no reason.
    pub is_bare: bool,
    /// We left the connection ourselves: no message that was under way is to blame.
    pub is_ours: bool,
    /// Once the connection is back nothing is left to be done about it.
    pub is_passing: bool,
}

/// How a broker shows that it does not speak our version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// It says so.
    Refused,
    /// It closes the connection before it accepts it; there are other reasons for that.
    Closed,
    /// It sends what the version does not allow.
    Broken,
}

/// Why a broker does not accept us.
#[derive(Clone, Debug)]
pub(super) enum BrokerRefusal {
    Login,
    ClientId,
    /// It does not speak this version.
    Version(Protocol),
    /// It does not take the last will as it is.
    Will(String),
    Busy,
    Other(String),
}

impl Trouble {
    pub fn new(text: String) -> Trouble {
        Trouble {
            text,
            oversize: None,
            rejection: None,
            misfit: None,
            is_bare: false,
            is_ours: false,
            is_passing: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Span;
    use crate::mqtt::broker::MqttAddress;
    use crate::mqtt::status::StatusTopic;

    #[test]
    fn a_refusal_may_mean_the_last_will() {
        let mut config = BrokerConfig::new(MqttAddress::parse("mqtt://h").unwrap());
        config.username = Some("gw".to_owned());
        config.status_topic = Some(Box::new(StatusTopic { topic: "state".to_owned(), span: Span::default() }));
        let text = Connector::new(config.clone(), "a").refused(BrokerRefusal::Login).text;
        assert!(!text.contains("status_topic"), "it tells nothing: {text}");
        let connector = Connector::new(config, "a").of_job("taxi");
        let text = connector.refused(BrokerRefusal::Login).text;
        assert!(text.ends_with("; or let it publish to status_topic `state`"), "{text}");
        let text = connector.refused(BrokerRefusal::Will("RetainNotSupported".to_owned())).text;
        assert!(text.ends_with("(RetainNotSupported): leave `status_topic` out"), "{text}");
    }
}
