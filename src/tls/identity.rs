//! Who we are: a certificate and its key.
//!
//! In: two files. Out: the pair, or what is wrong with which file. Invariant: the key belongs to the first certificate,
//! which is of X.509 version 3. Not here: what a server says to it (`refusal`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::{ResolvesClientCert, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{CertificateError, Error, RootCertStore, SignatureScheme};

use super::{
    COPY_AGAIN, ClientFiles, PAIR_OF_BEFORE, TlsFileError, Told, certificates, contents, garbled, has, not_text,
};
use crate::time::{Clock, Timestamp};

const KINDS: &str = "expected RSA of 2048 bits or more, EC P-256 or P-384, or Ed25519";

/// A certificate and its key, as they are in the files now.
#[derive(Debug)]
pub(super) struct Pair {
    key: Arc<CertifiedKey>,
    /// The certificate is not valid now. That stops nothing: the server's clock decides.
    pub warning: Option<String>,
}

impl ClientFiles {
    /// Reads the pair, and tells in the log what is odd with it, once.
    pub(super) fn load(&self, told: &Told) -> Result<Arc<CertifiedKey>, TlsFileError> {
        let pair = self.pair(self.chain()?, self.key()?)?;
        told.warn("cert_file", pair.warning);
        Ok(pair.key)
    }

    /// Reads the pair; what is wrong with either file is told.
    pub(super) fn read(&self) -> Result<Pair, Vec<TlsFileError>> {
        match (self.chain(), self.key()) {
            (Ok(chain), Ok(key)) => self.pair(chain, key).map_err(|error| vec![error]),
            (chain, key) => Err(chain.err().into_iter().chain(key.err()).collect()),
        }
    }

    /// Whether both can be looked at.
    pub(super) fn are_there(&self) -> bool {
        self.cert_file.is_file() && self.key_file.is_file()
    }

    /// The certificates, of which the first can be used.
    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
        let chain = certificates("cert_file", &self.cert_file)?;
        if let Some(first) = chain.first() {
            ParsedCertificate::try_from(first).map_err(|error| self.cert_error(unreadable(&error)))?;
        }
        Ok(chain)
    }

    fn pair(&self, chain: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>) -> Result<Pair, TlsFileError> {
        let problem = chain.first().and_then(|first| validity(first, Clock::Real.now()));
        let warning = problem
            .map(|problem| format!("`cert_file` {}: the client certificate {problem}", self.cert_file.display()));
        match key.public_key().map(|public| chain.iter().position(|certificate| belongs(certificate, &public))) {
            None | Some(Some(0)) => Ok(Pair { key: Arc::new(CertifiedKey::new(chain, key)), warning }),
            Some(Some(other)) => Err(self.cert_error(format!(
                "the key in `key_file` belongs to certificate {} of the file: put that one first, \
                 then those that lead to the authority",
                other + 1
            ))),
            Some(None) => {
                let certificate = self.cert_file.display();
                Err(self.key_error(format!("the key does not belong to the certificate in {certificate}")))
            }
        }
    }

    fn key(&self) -> Result<Arc<dyn SigningKey>, TlsFileError> {
        let bytes = contents("key_file", &self.key_file)?;
        if has(&bytes, "ENCRYPTED") {
            let name = self.key_file.display();
            return Err(self.key_error(format!(
                "the key is encrypted: write it without a passphrase, for forebay's user alone to \
                 read (`openssl pkey -in {name} -out FILE`)"
            )));
        }
        let der = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound if has(&bytes, "-----BEGIN CERTIFICATE-----") => {
                self.key_error("holds no private key; it holds a certificate: are the files exchanged?".to_owned())
            }
            rustls::pki_types::pem::Error::NoItemsFound => {
                self.key_error(format!("holds no private key in PEM form{}", not_text(&bytes)))
            }
            error => self.key_error(garbled(&error)),
        })?;
        // the library's own words may quote what it read
        ring::sign::any_supported_type(&der)
            .map_err(|_| self.key_error(format!("the key is broken or of another kind: {KINDS}")))
    }

    /// What is to be said of the certificate's time, if it is not valid now. Blocks on the file.
    pub(super) fn validity(&self) -> Option<String> {
        certificates("cert_file", &self.cert_file).ok()?.first().and_then(|first| validity(first, Clock::Real.now()))
    }

    fn cert_error(&self, why: String) -> TlsFileError {
        TlsFileError { key: "cert_file", path: self.cert_file.clone(), why }
    }

    fn key_error(&self, why: String) -> TlsFileError {
        TlsFileError { key: "key_file", path: self.key_file.clone(), why }
    }
}

fn unreadable(error: &Error) -> String {
    if format!("{error:?}").contains("UnsupportedCertVersion") {
        let how = "with `openssl x509 -req`, add `-extfile FILE` where FILE says `basicConstraints = CA:FALSE`";
        return format!(
            "the certificate is of X.509 version 1, which TLS libraries refuse: have it issued as version 3 ({how})"
        );
    }
    // the library names its own parts, which tell nobody anything
    match error {
        Error::InvalidCertificate(_) => format!("the first certificate is damaged; {COPY_AGAIN}"),
        error => format!("the certificate cannot be read: {error}"),
    }
}

fn belongs(certificate: &CertificateDer<'_>, public: &[u8]) -> bool {
    ParsedCertificate::try_from(certificate).is_ok_and(|parsed| parsed.subject_public_key_info().as_ref() == public)
}

/// Time is the first thing that is verified, so nobody needs to be trusted for this.
pub(super) fn validity(certificate: &CertificateDer<'_>, now: Timestamp) -> Option<String> {
    let millis = u64::try_from(now.unix_millis()).unwrap_or(0);
    let now = UnixTime::since_unix_epoch(Duration::from_millis(millis));
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    match verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], now, algorithms) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(format!("expired at {}: renew it, or correct the clock of this machine", shown(not_after)))
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            Some(format!("is not valid before {}: correct the clock of this machine, or wait", shown(not_before)))
        }
        _ => None,
    }
}

pub(super) fn shown(time: UnixTime) -> String {
    let millis = i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1_000);
    Timestamp::from_unix_millis(millis).to_string().replace(".0000000Z", "Z")
}

/// Gives each handshake the pair that is in the files now.
#[derive(Debug)]
pub(super) struct ReadAnew {
    files: ClientFiles,
    last: Mutex<Arc<CertifiedKey>>,
    told: Told,
}

impl ReadAnew {
    pub fn new(files: ClientFiles, told: Told) -> Result<ReadAnew, TlsFileError> {
        let last = Mutex::new(files.load(&told)?);
        Ok(ReadAnew { files, last, told })
    }
}

impl ResolvesClientCert for ReadAnew {
    /// Reads two small files on the thread of the handshake.
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let read = self.files.load(&self.told);
        let problem = read.as_ref().err();
        let problem = problem.map(|e| format!("{e}; the client certificate that was read before is used"));
        self.told.warn(PAIR_OF_BEFORE, problem);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(pair) = read {
            *last = pair;
        }
        Some(last.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Valid in the year 2025.
    const YEAR: &[u8] = b"-----BEGIN CERTIFICATE-----
MIIBVzCB/qADAgECAgIQADAKBggqhkjOPQQDAjANMQswCQYDVQQDDAJjYTAeFw0y
NTAxMDEwMDAwMDBaFw0yNjAxMDEwMDAwMDBaMA4xDDAKBgNVBAMMA29sZDBZMBMG
ByqGSM49AgEGCCqGSM49AwEHA0IABCUkddrKYB2ivuo+2YGpHHv4enc16rntHC8d
mTx8bejYdohZS6ihf8CxTdvkjyuEV48RHKBcdh+gKhVnWUJu0CujTTBLMAkGA1Ud
EwQCMAAwHQYDVR0OBBYEFCd2zG1BaJDZFfYQ6ZgWXGaQ06P6MB8GA1UdIwQYMBaA
FGhKkszyXPelg7Qv9FPr1WN1L3eYMAoGCCqGSM49BAMCA0gAMEUCIGYcwKD3upIi
41Z+Uj//dM/kGU9ji9u13O1l5PMz37FhAiEAk9kpJGK1qT7tUIek8Iw/KHKklVnE
DIOhzC9uCKvAv7c=
-----END CERTIFICATE-----";

    #[test]
    fn a_certificate_that_is_not_valid_now_is_told_with_its_date() {
        let certificate = CertificateDer::from_pem_slice(YEAR).unwrap();
        for (now, words) in [
            ("2024-12-31T23:59:59Z", Some("is not valid before 2025-01-01T00:00:00Z")),
            ("2025-06-01T00:00:00Z", None),
            ("2026-01-01T00:00:01Z", Some("expired at 2026-01-01T00:00:00Z")),
        ] {
            let told = validity(&certificate, Timestamp::parse(now).unwrap());
            assert_eq!(told.is_some(), words.is_some(), "{now}: {told:?}");
            assert!(told.unwrap_or_default().contains(words.unwrap_or_default()), "{now}");
        }
    }
}
