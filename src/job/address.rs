//! Addresses of brokers and endpoints, and what logging in takes.
//!
//! Invariant: an address holds no password.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::reader::{Section, Text};
use super::secret::Secret;
use crate::diagnostic::Diagnostic;

/// The keep-alive of MQTT is a 16-bit number of seconds.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(65_535);
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Delivery of MQTT messages. There is no level 2: what repeats is found by the row's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// May be lost on the way.
    AtMostOnce,
    AtLeastOnce,
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttAddress {
    /// A name or an address; an IPv6 address has no brackets.
    pub host: String,
    pub port: u16,
    pub tls: bool,
}

/// A broker and how to log in to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Broker {
    pub address: MqttAddress,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// Certificates (PEM) to trust instead of the system's; only with TLS.
    pub ca_file: Option<PathBuf>,
    /// `None`: one that is made once and kept in the journal.
    pub client_id: Option<String>,
    /// Whole seconds, 1 to 65,535.
    pub keep_alive: Duration,
}

impl Broker {
    /// Reads `url`, `username`, `password`, `ca_file`, `client_id`, `keep_alive`.
    pub(super) fn read(section: &mut Section) -> Option<Broker> {
        let address = section.required_text("url", "write `url = \"mqtt://127.0.0.1:1883\"`").and_then(|url| mqtt_address(section, &url));
        let username = section.text("username").map(|text| text.value);
        let password = section.secret("password");
        let ca_file = section.file("ca_file");
        let client_id = section.text("client_id");
        if let Some(id) = client_id.as_ref().filter(|id| id.value.len() > 128 || id.value.chars().any(char::is_control)) {
            let error = Diagnostic::error("the client id does not fit", id.span).label("expected at most 128 bytes of text");
            section.problems().push(error.help("leave it out: forebay makes one and keeps it in the journal"));
        }
        let mut keep_alive = section.duration("keep_alive", Duration::from_secs(1), KEEP_ALIVE_MAX, KEEP_ALIVE);
        if keep_alive.subsec_nanos() > 0 {
            section.wrong(
                "keep_alive",
                "`keep_alive` is no whole number of seconds",
                "expected whole seconds",
                "write `keep_alive = \"30s\"`",
            );
            keep_alive = KEEP_ALIVE;
        }
        let address = address?;
        if ca_file.is_some() && !address.tls {
            section.wrong("ca_file", "`ca_file` without TLS", "has no use with `mqtt://`", "write the url with `mqtts://`");
        }
        if password.is_some() && !address.tls && !is_loopback(&address.host) {
            let warning = Diagnostic::warning("the password crosses the network unencrypted", section.key_span("url")).label("no TLS");
            section.problems().push(warning.help("write the url with `mqtts://`"));
        }
        let client_id = client_id.map(|text| text.value);
        Some(Broker { address, username, password, ca_file, client_id, keep_alive })
    }
}

pub(super) fn qos(section: &mut Section) -> Qos {
    if let Some((toml::de::DeValue::Integer(level), span)) = section.get("qos")
        && level.as_str() == "2"
    {
        let error = Diagnostic::error("QoS 2 is not supported", span).label("expected 0 or 1");
        let why = "QoS 2 is exactly once for one hop only and costs two more packets a message; with QoS 1 every row carries an id by which repeats are dropped";
        section.problems().push(error.help("write `qos = 1`").note(why));
        return Qos::AtLeastOnce;
    }
    match section.count("qos", 0, 1, 1) {
        0 => Qos::AtMostOnce,
        _ => Qos::AtLeastOnce,
    }
}

fn mqtt_address(section: &Section, text: &Text) -> Option<MqttAddress> {
    let bad = |title: &str, label: &str, help: &str| {
        section.problems().push(Diagnostic::error(title, text.span).label(label).help(help));
        None
    };
    const FORM: &str = "write `mqtt://host:1883`, or `mqtts://host:8883` for TLS";
    let url = address(section, text, FORM)?;
    let tls = match url.scheme() {
        "mqtt" => false,
        "mqtts" => true,
        "tcp" => return bad("brokers are addressed by `mqtt://`", "expected `mqtt://` or `mqtts://`", FORM),
        "ssl" | "tls" => return bad("brokers with TLS are addressed by `mqtts://`", "expected `mqtts://`", FORM),
        "ws" | "wss" => return bad("MQTT over WebSocket is not supported", "expected `mqtt://` or `mqtts://`", FORM),
        _ => return bad("this is no address of a broker", "expected `mqtt://` or `mqtts://`", FORM),
    };
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return bad("an address of a broker has no path", "expected only host and port", "topics are listed by `topics` or `topic`");
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return bad("the address has no host", "expected a name or an address", FORM);
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
    Some(MqttAddress { host, port: url.port().unwrap_or(if tls { 8883 } else { 1883 }), tls })
}

/// An address of an HTTP endpoint.
pub(super) fn http_address(section: &Section, text: &Text) -> Option<Url> {
    const FORM: &str = "write `https://host/score`, or `http://127.0.0.1:5001/score`";
    let url = address(section, text, FORM)?;
    if !matches!(url.scheme(), "http" | "https") || url.fragment().is_some() {
        let error = Diagnostic::error("this is no address of an endpoint", text.span).label("expected `http://` or `https://`");
        section.problems().push(error.help(FORM));
        return None;
    }
    Some(url)
}

/// Any address without a password.
fn address(section: &Section, text: &Text, form: &str) -> Option<Url> {
    let refuse = |error: Diagnostic| {
        section.problems().push(error);
        None
    };
    // by hand as well: what does not parse may still hold a password
    if has_credentials(&text.value) {
        section.problems().mask(text.span);
        let error = Diagnostic::error("a password stands in an address", text.span).label("expected the address without `user:password@`");
        return refuse(error.help("write `username = \"…\"` and `password = \"env:NAME\"`, or `key = \"env:NAME\"` for an endpoint"));
    }
    match Url::parse(&text.value) {
        Ok(url) => Some(url),
        Err(why) => refuse(Diagnostic::error(format!("this is no address: {why}"), text.span).label("cannot be read").help(form)),
    }
}

/// Whether something stands before an `@` in front of the host.
fn has_credentials(url: &str) -> bool {
    let authority = url.split_once("//").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    authority.is_some_and(|authority| authority.contains('@'))
}

pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
