//! What a server says to a client certificate.
//!
//! In: a failed connection. Out: the alert of TLS that ended it, and what that means for who we are. Invariant: an
//! alert that has nothing to do with a client certificate is left to others. Not here: how we judge a server's
//! certificate.

use std::error::Error;

use rustls::AlertDescription;

use super::TlsFiles;

/// The alert by which a server ended a connection, if that is how it ended.
pub fn alert(error: &(dyn Error + 'static)) -> Option<AlertDescription> {
    match in_tls(error)? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// What the TLS library said, however deep it lies in an error.
pub(super) fn in_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        let inner = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .map(|inner| inner as &(dyn Error + 'static));
        if let Some(found) = cause.downcast_ref().or_else(|| inner.and_then(|e| e.downcast_ref())) {
            return Some(found);
        }
        // what an input or output error holds is no source of it
        next = inner.or_else(|| cause.source());
    }
    None
}

impl TlsFiles {
    /// What an alert says of the client certificate, or of the want of one; `None` when it is about something else.
    /// Blocks on the file.
    pub fn refusal(&self, alert: AlertDescription) -> Option<String> {
        use AlertDescription as A;
        let Some(client) = &self.client else {
            let wants_one = matches!(alert, A::CertificateRequired | A::HandshakeFailure | A::NoCertificate);
            return wants_one
                .then(|| format!("it may want a client certificate ({alert:?}): set `cert_file` and `key_file`"));
        };
        let why = match alert {
            A::CertificateExpired => "as expired",
            A::CertificateRevoked => "as revoked",
            A::UnknownCA => "because it does not trust the authority that signed it",
            A::CertificateRequired
            | A::NoCertificate
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateUnknown
            | A::DecryptError
            | A::AccessDenied => "",
            _ => return None,
        };
        let blank = if why.is_empty() { "" } else { " " };
        let validity = client.validity().map_or(String::new(), |problem| format!("; it {problem}"));
        Some(format!(
            "it refuses the client certificate `cert_file` {}{blank}{why} ({alert:?}){validity}",
            client.cert_file.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::ClientFiles;

    #[test]
    fn an_alert_is_found_inside_of_other_errors() {
        let alerted = || rustls::Error::AlertReceived(AlertDescription::UnknownCA);
        let io = std::io::Error::new(std::io::ErrorKind::InvalidData, alerted());
        assert_eq!(alert(&alerted()), Some(AlertDescription::UnknownCA));
        assert_eq!(alert(&io), Some(AlertDescription::UnknownCA));
        assert_eq!(alert(&std::io::Error::other(io)), Some(AlertDescription::UnknownCA));
        assert_eq!(alert(&std::io::Error::from(std::io::ErrorKind::ConnectionReset)), None);
        assert_eq!(alert(&rustls::Error::DecryptError), None);
    }

    #[test]
    fn alerts_about_a_client_certificate_are_told() {
        use AlertDescription as A;
        let with = TlsFiles {
            client: Some(ClientFiles { cert_file: "gw.pem".into(), key_file: "gw.key".into() }),
            ..TlsFiles::default()
        };
        let without = TlsFiles::default();
        for (files, alert, words) in [
            (
                &with,
                A::UnknownCA,
                Some("`cert_file` gw.pem because it does not trust the authority that signed it (UnknownCA)"),
            ),
            (&with, A::CertificateExpired, Some("gw.pem as expired (CertificateExpired)")),
            (&with, A::BadCertificate, Some("gw.pem (BadCertificate)")),
            (&with, A::ProtocolVersion, None),
            (&without, A::CertificateRequired, Some("set `cert_file` and `key_file`")),
            (&without, A::UnknownCA, None),
        ] {
            let told = files.refusal(alert);
            assert_eq!(told.is_some(), words.is_some(), "{alert:?}: {told:?}");
            assert!(told.unwrap_or_default().contains(words.unwrap_or_default()), "{alert:?}");
        }
    }
}
