//! Addresses: texts to URLs without a password.
//!
//! In: a text. Out: a URL, or what is wrong with the text. Invariant: an address holds no password, and a text that may
//! hold one is masked; so is a query with a key in it wherever an address is shown. Not here: what is at an address.

use std::fmt;

use reqwest::Url;

use super::secret::is_secretive;
use super::section::{Section, Text};
use crate::diagnostic::Diagnostic;

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadAddress {
    title: String,
    label: &'static str,
    help: &'static str,
    /// The text may hold a password.
    is_secret: bool,
}

impl BadAddress {
    pub fn new(title: impl Into<String>, label: &'static str, help: &'static str) -> BadAddress {
        BadAddress { title: title.into(), label, help, is_secret: false }
    }

    /// Says so at the text's place.
    pub fn tell(self, section: &Section, text: &Text) {
        if self.is_secret {
            section.problems().mask(text.span);
        }
        section.problems().push(Diagnostic::error(self.title, text.span).label(self.label).help(self.help));
    }
}

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.help)
    }
}

impl std::error::Error for BadAddress {}

/// The address of an HTTP endpoint; `None` with the problem told.
pub fn http(section: &Section, text: &Text) -> Option<Url> {
    let url = parse_http(&text.value).map_err(|bad| bad.tell(section, text)).ok()?;
    if !secrets_in(&url).is_empty() {
        section.problems().mask(text.span);
    }
    Some(url)
}

/// Names of a query that hold a key, besides those that sound like one: Azure Functions' `code`, the signature of a
/// shared access token.
const SECRET_QUERIES: [&str; 3] = ["code", "sig", "signature"];

fn is_secret_query(name: &str) -> bool {
    SECRET_QUERIES.iter().any(|secret| name.eq_ignore_ascii_case(secret)) || is_secretive(name)
}

/// The keys in an address, as they are meant.
pub fn secrets_in(url: &Url) -> Vec<String> {
    let found = url.query_pairs().filter(|(name, value)| is_secret_query(name) && !value.is_empty());
    found.map(|(_, value)| value.into_owned()).chain(url.password().map(str::to_owned)).collect()
}

/// An address for a person, with stars for keys and passwords.
pub fn masked(url: &Url) -> String {
    let mut shown = url.clone();
    let query = url.query().map(|query| query.split('&').map(masked_pair).collect::<Vec<_>>().join("&"));
    shown.set_query(query.as_deref());
    if !url.username().is_empty() || url.password().is_some() {
        // refused only for addresses that have no host
        let _ = shown.set_username("***").and_then(|()| shown.set_password(None));
    }
    shown.to_string()
}

fn masked_pair(pair: &str) -> String {
    let is_secret = |name: &str| {
        let decoded = reqwest::Url::parse(&format!("http://h/?{name}")).ok();
        let decoded = decoded.as_ref().and_then(|url| url.query_pairs().next()).map(|(name, _)| name.into_owned());
        is_secret_query(&decoded.unwrap_or_else(|| name.to_owned()))
    };
    match pair.split_once('=') {
        Some((name, value)) if !value.is_empty() && is_secret(name) => format!("{name}=***"),
        _ => pair.to_owned(),
    }
}

/// Reads the address of an HTTP endpoint.
///
/// # Errors
/// What is wrong with it.
pub fn parse_http(text: &str) -> Result<Url, BadAddress> {
    const FORM: &str = "write `https://host/score`, or `http://127.0.0.1:5001/score`";
    let url = parse(text, FORM)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(BadAddress::new("this is no address of an endpoint", "expected `http://` or `https://`", FORM));
    }
    if url.fragment().is_some() {
        let help = "remove it; write a `#` that belongs to the path or the query as `%23`";
        return Err(BadAddress::new("what follows `#` in an address is never sent", "expected no `#`", help));
    }
    // the parser takes the first name that it finds for the host: `c` in `http:///c`
    let authority = text.trim_start().get(url.scheme().len()..).and_then(|rest| rest.strip_prefix("://"));
    if authority.is_none_or(|authority| authority.starts_with(['/', '\\'])) {
        return Err(BadAddress::new("the address has no host", "expected a name or an address", FORM));
    }
    Ok(url)
}

/// Reads any address to connect to; `form` says how one is written.
///
/// # Errors
/// It holds a password, is no URL, or names port 0.
pub fn parse(text: &str, form: &'static str) -> Result<Url, BadAddress> {
    // by hand as well: what does not parse may still hold a password
    if has_credentials(text) {
        let help = "write `username = \"…\"` and `password = \"env:NAME\"`, or `key = \"env:NAME\"` for an endpoint";
        let bad =
            BadAddress::new("a password stands in an address", "expected the address without `user:password@`", help);
        return Err(BadAddress { is_secret: true, ..bad });
    }
    let url = Url::parse(text)
        .map_err(|why| BadAddress::new(format!("this is no address: {why}"), "cannot be read", form))?;
    if url.port() == Some(0) {
        return Err(BadAddress::new("nothing can be reached at port 0", "expected a port from 1 to 65535", form));
    }
    Ok(url)
}

/// Whether something stands before an `@` in front of the host.
fn has_credentials(url: &str) -> bool {
    let authority = url.split_once("//").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    authority.is_some_and(|authority| authority.contains('@'))
}

/// Refuses a secret that would cross a network unencrypted, but where the section allows that. Only this machine is
/// near enough: whoever is in a private network reads what goes through it.
pub fn refuse_open_secret(section: &mut Section, url: Option<&Url>, has_secret: bool) {
    let is_allowed = section.boolean("allow_plain_http", false);
    let Some(url) = url else { return };
    let has_secret = has_secret || !secrets_in(url).is_empty();
    if has_secret && !is_allowed && url.scheme() == "http" && !url.host_str().is_some_and(is_loopback) {
        let error =
            Diagnostic::error("the key would cross the network unencrypted", section.key_span("url")).label("no TLS");
        let help = "write the url with `https://`; or `allow_plain_http = true` in this section, if whoever can read \
                    along may have the key";
        section.problems().push(error.help(help));
    }
}

/// Whether a host is this machine, so that nothing crosses a network.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_an_address_are_masked_and_nothing_else() {
        for (text, shown) in [
            ("https://h/score?code=abc&v=1", "https://h/score?code=***&v=1"),
            ("https://h/score?SIG=a%3D&se=2030&sp=r", "https://h/score?SIG=***&se=2030&sp=r"),
            (
                "https://h/?api-key=1&subscription-key=2&token=3&key=4",
                "https://h/?api-key=***&subscription-key=***&token=***&key=***",
            ),
            ("https://h/?c%6fde=abc", "https://h/?c%6fde=***"),
            ("https://user:password@h/", "https://***@h/"),
            ("https://h/?version=3&code=", "https://h/?version=3&code="),
            ("https://h/codes?x", "https://h/codes?x"),
        ] {
            assert_eq!(masked(&Url::parse(text).unwrap()), shown);
        }
    }

    #[test]
    fn an_address_that_cannot_be_connected_to_is_refused() {
        for text in
            ["http:///c", "https:////c/d", "http:c", "http:/c", "HTTP:///c", " http:///c", "http:\\\\c", "http://\\c"]
        {
            let refused = parse_http(text).expect_err(text).to_string();
            assert!(refused.contains("the address has no host"), "{text}: {refused}");
        }
        for text in ["http://", "http://:80/c", "http://?c"] {
            let refused = parse_http(text).expect_err(text).to_string();
            assert!(refused.contains("empty host"), "{text}: {refused}");
        }
        for text in ["http://h:0", "https://h:00/c", "mqtt://h:0"] {
            let refused = parse(text, "write another").expect_err(text).to_string();
            assert_eq!(refused, "nothing can be reached at port 0: write another", "{text}");
        }
        for text in ["http://h/#x", "http://h#", "https://h/c?q=1#x"] {
            let refused = parse_http(text).expect_err(text).to_string();
            assert!(
                refused.starts_with("what follows `#` in an address is never sent: remove it"),
                "{text}: {refused}"
            );
        }
        for text in
            ["http://h", "https://h/c//d", "http://h/%23x", "HTTPS://H:1/", "http://[::1]:80/x?y=//z", " http://h"]
        {
            assert!(parse_http(text).is_ok(), "{text}");
        }
    }
}
