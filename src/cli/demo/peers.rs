//! Broker and endpoint of the demo: embedded, or somebody's own.
//!
//! In: addresses that were given. Out: peers that answer. Invariant: a real peer that does not answer is told within
//! [`PATIENCE`], before anything starts. Not here: what is sent to them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use tokio::net::TcpStream;

use super::{NoResult, failure};
use crate::demo::broker::Broker;
use crate::demo::endpoint::Endpoint;
use crate::demo::folder::{Folder, Setup};

/// How long a real peer may take to answer: a person waits.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Where a real broker listens.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerAddress {
    pub url: String,
    pub host: String,
    pub port: u16,
}

impl BrokerAddress {
    /// Reads `mqtt://host:port`.
    ///
    /// # Errors
    /// What is wrong with it, for the command line.
    pub fn parse(text: &str) -> Result<BrokerAddress, String> {
        const FORM: &str = "write mqtt://host:1883";
        let url = Url::parse(text).map_err(|why| format!("{why}; {FORM}"))?;
        if url.scheme() != "mqtt" {
            return Err(format!("the demo's own clients speak only plain MQTT; {FORM}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("the demo does not log in; {FORM}"));
        }
        let Some(host) = url.host_str().filter(|h| !h.is_empty()) else { return Err(format!("no host; {FORM}")) };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("a broker's address has no path; {FORM}"));
        }
        if url.port() == Some(0) {
            return Err(format!("nothing can be reached at port 0; {FORM}"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(BrokerAddress { url: text.to_owned(), host, port: url.port().unwrap_or(1883) })
    }
}

/// What the job talks to.
#[derive(Debug)]
pub struct Peers {
    /// `None`: somebody's own.
    pub broker: Option<Broker>,
    pub broker_url: String,
    pub host: String,
    pub port: u16,
    /// First level of all topics. On a real broker one of our own, so that nobody else's rides come in.
    pub root: String,
    /// `None`: somebody's own.
    pub endpoint: Option<Endpoint>,
    pub endpoint_url: String,
}

impl Peers {
    /// Starts the embedded ones, and looks whether the others are there.
    ///
    /// # Errors
    /// When a real one does not answer, or there is no port.
    pub async fn start(broker: Option<&BrokerAddress>, endpoint: Option<&Url>) -> Result<Peers, NoResult> {
        if let Some(real) = broker {
            let remedy = "start one with `mosquitto -p 1883`, or leave out --broker";
            reach(&real.host, real.port)
                .await
                .map_err(|why| failure(format!("the broker {} does not answer: {why}; {remedy}", real.url)))?;
        }
        if let Some(url) = endpoint {
            let remedy = "start it, or leave out --endpoint";
            let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
            let host = host.trim_start_matches('[').trim_end_matches(']');
            reach(host, port)
                .await
                .map_err(|why| failure(format!("the endpoint {url} does not answer: {why}; {remedy}")))?;
        }
        let (broker, address, root) = match broker {
            Some(real) => (None, real.clone(), format!("forebay-demo-{:08x}", fastrand::u32(..))),
            None => {
                let own =
                    Broker::start().await.map_err(|why| failure(format!("the embedded broker gets no port: {why}")))?;
                let (host, port) = (own.address().ip().to_string(), own.address().port());
                let address = BrokerAddress { url: own.url(), host, port };
                (Some(own), address, "taxi".to_owned())
            }
        };
        let (endpoint, endpoint_url) = match endpoint {
            Some(url) => (None, url.to_string()),
            None => {
                let own = Endpoint::start()
                    .await
                    .map_err(|why| failure(format!("the embedded endpoint gets no port: {why}")))?;
                let url = own.url();
                (Some(own), url)
            }
        };
        Ok(Peers {
            broker,
            broker_url: address.url,
            host: address.host,
            port: address.port,
            root,
            endpoint,
            endpoint_url,
        })
    }

    /// Writes the job that runs between these peers.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn write_job(&self, folder: &Folder, component: &Path, key: Option<&str>) -> std::io::Result<PathBuf> {
        folder.write_job(&Setup {
            broker: &self.broker_url,
            root: &self.root,
            component,
            endpoint: &self.endpoint_url,
            key,
        })
    }
}

async fn reach(host: &str, port: u16) -> Result<(), String> {
    match tokio::time::timeout(PATIENCE, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(why)) => Err(why.to_string()),
        Err(_) => Err(format!("no connection in {PATIENCE:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_brokers() {
        let good = |text: &str| BrokerAddress::parse(text).map(|a| (a.host, a.port)).unwrap();
        assert_eq!(good("mqtt://127.0.0.1:1884"), ("127.0.0.1".to_owned(), 1884));
        assert_eq!(good("mqtt://broker.example.org/"), ("broker.example.org".to_owned(), 1883));
        assert_eq!(good("mqtt://[::1]:1883"), ("::1".to_owned(), 1883));
        for (bad, why) in [
            ("localhost:1883", "plain MQTT"),
            ("mqtts://h:8883", "plain MQTT"),
            ("mqtt://me:secret@h", "does not log in"),
            ("mqtt://h/topic", "no path"),
            ("mqtt://", "no host"),
            ("mqtt://h:0", "port 0"),
            ("h", "relative URL"),
        ] {
            let error = BrokerAddress::parse(bad).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{bad}: {error}");
        }
    }
}
