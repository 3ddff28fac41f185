//! Why a server's certificate is not trusted.
//!
//! In: a failed connection. Out: which fault its certificate has, and what to do about it, with the dates, the names
//! and this machine's clock. Invariant: such a fault is told apart from a link that is down, however deep it lies in an
//! error. Not here: what a server says to our certificate (`refusal`), the verdict itself (`verifier`).

use std::error::Error;

use rustls::CertificateError;
use rustls::pki_types::{ServerName, UnixTime};

use super::identity::shown;
use super::refusal::in_tls;
use super::verifier::SignedByItself;

/// The fault of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistrust {
    Expired,
    NotYetValid,
    WrongName,
    UnknownAuthority,
    SelfSigned,
    /// Damaged, withdrawn, of version 1 …
    Other,
}

impl Mistrust {
    /// Short name for states and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Mistrust::Expired => "certificate expired",
            Mistrust::NotYetValid => "certificate not valid yet",
            Mistrust::WrongName => "certificate for another name",
            Mistrust::UnknownAuthority => "certificate of an unknown authority",
            Mistrust::SelfSigned => "certificate signed by itself",
            Mistrust::Other => "certificate not valid",
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Mistrust::Expired => {
                "if the gateway's clock is wrong, correct it; else have the server's certificate renewed"
            }
            Mistrust::NotYetValid => {
                "correct the gateway's clock, which is likely behind; else wait until the certificate is valid"
            }
            Mistrust::WrongName => {
                "use a name in `url` that the certificate has, or have it issued for this one (`subjectAltName`)"
            }
            Mistrust::UnknownAuthority => "set `ca_file` to the certificate of the authority that signed it",
            Mistrust::SelfSigned => {
                "if you know the server, set `ca_file` to this very certificate; else find out who answers in its place"
            }
            Mistrust::Other => "have the server's certificate issued anew",
        }
    }
}

/// What is wrong with the server's certificate, if that is how a connection ended: the fault, and a sentence.
pub fn mistrust(error: &(dyn Error + 'static)) -> Option<(Mistrust, String)> {
    let rustls::Error::InvalidCertificate(why) = in_tls(error)? else { return None };
    let clock = |time: UnixTime| format!("and the clock of this machine says {}", shown(time));
    let (fault, what) = match why {
        CertificateError::ExpiredContext { time, not_after } => {
            (Mistrust::Expired, format!("expired at {}, {}", shown(*not_after), clock(*time)))
        }
        CertificateError::Expired => (Mistrust::Expired, "has expired".to_owned()),
        CertificateError::NotValidYetContext { time, not_before } => {
            (Mistrust::NotYetValid, format!("is not valid before {}, {}", shown(*not_before), clock(*time)))
        }
        CertificateError::NotValidYet => (Mistrust::NotYetValid, "is not valid yet".to_owned()),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let asked = match expected {
                ServerName::DnsName(name) => name.as_ref().to_owned(),
                ServerName::IpAddress(address) => std::net::IpAddr::from(*address).to_string(),
                _ => "the host of `url`".to_owned(),
            };
            let names = match presented.as_slice() {
                [] => "no name in `subjectAltName`, which alone counts".to_owned(),
                names => named(names),
            };
            (Mistrust::WrongName, format!("is not for {asked}: it has {names}"))
        }
        CertificateError::NotValidForName => (Mistrust::WrongName, "is for another host name".to_owned()),
        CertificateError::UnknownIssuer => {
            (Mistrust::UnknownAuthority, "is signed by an authority that is not trusted here".to_owned())
        }
        CertificateError::Other(other) if other.0.downcast_ref::<SignedByItself>().is_some() => {
            (Mistrust::SelfSigned, "is signed by itself and is not among the trusted ones".to_owned())
        }
        other if format!("{other:?}").contains("UnsupportedCertVersion") => {
            (Mistrust::Other, "is of X.509 version 1, which TLS libraries refuse: version 3 is needed".to_owned())
        }
        other => (Mistrust::Other, format!("cannot be used ({other})")),
    };
    Some((fault, format!("its certificate {what}: {}", fault.remedy())))
}

/// Names as the library tells them: `DnsName("localhost")`, `IpAddress(127.0.0.1)`.
fn named(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn each_fault_is_told_by_its_name_with_what_to_do() {
        use CertificateError as E;
        for (error, fault, words) in [
            (
                E::ExpiredContext { time: at(1_800_000_000), not_after: at(1_700_000_000) },
                Mistrust::Expired,
                "expired at 2023-11-14T22:13:20Z, and the clock of this machine says 2027-01-15T08:00:00Z: if the",
            ),
            (
                E::NotValidYetContext { time: at(0), not_before: at(1_700_000_000) },
                Mistrust::NotYetValid,
                "is not valid before 2023-11-14T22:13:20Z, and the clock of this machine says 1970-01-01T00:00:00Z",
            ),
            (
                E::NotValidForNameContext {
                    expected: ServerName::try_from("h.example").unwrap().to_owned(),
                    presented: vec!["other.example".to_owned()],
                },
                Mistrust::WrongName,
                "is not for h.example: it has other.example",
            ),
            (E::UnknownIssuer, Mistrust::UnknownAuthority, "set `ca_file` to the certificate of the authority"),
            (E::Other(rustls::OtherError(Arc::new(SignedByItself))), Mistrust::SelfSigned, "is signed by itself"),
            (E::BadEncoding, Mistrust::Other, "have the server's certificate issued anew"),
        ] {
            let error = || rustls::Error::InvalidCertificate(error.clone());
            // as the connection of an HTTP client and that of a broker wrap it
            let twice = std::io::Error::other(std::io::Error::new(std::io::ErrorKind::InvalidData, error()));
            for (found, said) in [mistrust(&error()), mistrust(&twice)].map(Option::unwrap) {
                assert_eq!(found, fault);
                assert!(said.contains(words) && said.contains(fault.remedy()), "{said}");
            }
        }
        assert_eq!(mistrust(&rustls::Error::DecryptError), None);
        assert_eq!(mistrust(&std::io::Error::from(std::io::ErrorKind::ConnectionReset)), None);
    }
}
