//! Whether a server's certificate is good.
//!
//! In: the certificate that a server shows. Out: the verdict of the library, but for two answers. A certificate that
//! stands in `ca_file` itself is taken for what it is, and one that nobody but itself signed is told as such.
//! Invariant: what is taken has the right name, is valid now, and the server proves that it has its key. Not here: the
//! words for a person (`mistrust`).

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::VerifierBuilderError,
};

/// A certificate that its own key signed, or one of an authority that a server shows as its own.
#[derive(Debug)]
pub(super) struct SignedByItself;

impl fmt::Display for SignedByItself {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the certificate is signed by itself")
    }
}

impl std::error::Error for SignedByItself {}

/// Judges by the library, and by the certificates of `ca_file` themselves.
#[derive(Debug)]
pub(super) struct Verifier {
    library: Arc<WebPkiServerVerifier>,
    /// Those that a person named.
    named: Vec<CertificateDer<'static>>,
}

impl Verifier {
    pub fn new(
        roots: RootCertStore,
        named: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Verifier, VerifierBuilderError> {
        let library = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Verifier { library, named })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.library.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let Err(Error::InvalidCertificate(why)) = &verdict else { return verdict };
        // its dates were looked at before; the library takes no certificate of an authority for a server's
        let is_authority = format!("{why:?}").contains("CaUsedAsEndEntity");
        if !is_authority && *why != CertificateError::UnknownIssuer {
            return verdict;
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if self.named.iter().any(|named| named.as_ref() == end_entity.as_ref()) {
            verify_server_name(&certificate, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        if is_authority || signs_itself(&certificate, end_entity, now) {
            return Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(SignedByItself)))));
        }
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.library.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.library.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.library.supported_verify_schemes()
    }
}

/// Whether a certificate would be good if it were trusted itself.
fn signs_itself(certificate: &ParsedCertificate<'_>, der: &CertificateDer<'_>, now: UnixTime) -> bool {
    let mut itself = RootCertStore::empty();
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    itself.add(der.clone().into_owned()).is_ok()
        && verify_server_cert_signed_by_trust_anchor(certificate, &itself, &[], now, algorithms).is_ok()
}
