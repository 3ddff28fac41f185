//! The files of TLS: whom we trust, and who we are.
//!
//! In: `ca_file`, `cert_file`, `key_file` of a section. Out: [`TlsFiles`], and from them the configuration of a client,
//! or which file is unusable and why. Invariant: a certificate has a key, and nothing of a key is part of a message.
//! What is wrong with a file is said in the same words when a job is read and when it connects. Not here: connecting,
//! whether a server's certificate is good.

mod identity;
mod mistrust;
mod refusal;
mod verifier;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use crate::diagnostic::{Diagnostic, counted};
use crate::settings::Section;
use crate::time::Clock;
use identity::ReadAnew;
use verifier::Verifier;

pub use mistrust::{Mistrust, mistrust};
pub use refusal::alert;

/// A list of certificates is a few KB, all authorities of a system 300 KB; whoever names a disk image instead gets an
/// error, not a full memory.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Of what [`Told`] tells where a renewed pair cannot be used.
const PAIR_OF_BEFORE: &str = "the pair of before";

const COPY_AGAIN: &str = "copy the whole file again from where it was issued";

/// What a section says of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Who we are to a server that asks for a certificate.
    pub client: Option<ClientFiles>,
    /// What was said of them.
    pub told: Told,
}

/// A client certificate and its key; both may be in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// PEM: the certificate, then those that lead to the authority.
    pub cert_file: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key_file: PathBuf,
}

/// What was said of each file last, so that it is told once, however often the file is read: when a job is checked, and
/// for each connection. Clones remember together.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<BTreeMap<&'static str, String>>>);

/// What was told is no part of what a section says.
impl PartialEq for Told {
    fn eq(&self, _: &Told) -> bool {
        true
    }
}

impl Eq for Told {}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

impl Told {
    /// Warns, unless that is what was said last of `subject`; `None`: there is nothing to say now.
    fn warn(&self, subject: &'static str, what: Option<String>) {
        if self.is_new(subject, what.as_deref())
            && let Some(text) = what
        {
            tracing::warn!("{text}");
        }
    }

    /// Why files that were renewed are not in use, where the pair of before goes on.
    pub fn refused(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(PAIR_OF_BEFORE).cloned()
    }

    /// Whether this is not what was said last of `subject`; now it is.
    fn is_new(&self, subject: &'static str, what: Option<&str>) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = match what {
            Some(text) => said.insert(subject, text.to_owned()),
            None => said.remove(subject),
        };
        last.as_deref() != what
    }
}

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {}: {why}", path.display())]
pub struct TlsFileError {
    pub key: &'static str,
    pub path: PathBuf,
    pub why: String,
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    File(#[from] TlsFileError),
    #[error("the system's certificates cannot be used ({0}): name a `ca_file`")]
    System(String),
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

impl TlsFiles {
    /// Reads the keys.
    pub fn read(section: &mut Section) -> TlsFiles {
        let ca_file = section.file("ca_file");
        let (cert_file, key_file) = (section.file("cert_file"), section.file("key_file"));
        match (section.has("cert_file"), section.has("key_file")) {
            (true, false) => {
                let help = "write `key_file = \"…\"` too, or leave the certificate out";
                section.wrong(
                    "cert_file",
                    "`cert_file` without `key_file`",
                    "a certificate needs its private key",
                    help,
                );
            }
            (false, true) => {
                let help = "write `cert_file = \"…\"` too, or leave the key out";
                section.wrong("key_file", "`key_file` without `cert_file`", "a key needs its certificate", help);
            }
            _ => {}
        }
        let client = cert_file.zip(key_file).map(|(cert_file, key_file)| ClientFiles { cert_file, key_file });
        TlsFiles { ca_file, client, told: Told::default() }
    }

    /// Tells which of the files cannot be used, each at its place, where the files of a job are looked at. What is odd
    /// with one is a warning there, and no connection repeats it. Blocks on the files.
    pub fn examine(&self, section: &Section) {
        if !section.problems().looks_at_files() {
            return;
        }
        let unusable = |error: TlsFileError| {
            let found = Diagnostic::error(error.to_string(), section.value_span(error.key));
            section.problems().push(found.label("cannot be used"));
        };
        let odd = |key: &'static str, text: String, label: &str| {
            self.told.is_new(key, Some(&text));
            section.problems().push(Diagnostic::warning(text, section.value_span(key)).label(label));
        };
        // a file that is not there was told when its key was read
        if let Some(path) = self.ca_file.as_ref().filter(|path| path.is_file()) {
            match Authorities::read(path) {
                Err(error) => unusable(error),
                Ok(authorities) => {
                    authorities
                        .warning(path)
                        .into_iter()
                        .for_each(|text| odd("ca_file", text, "not all of it can be relied upon"));
                }
            }
        }
        if let Some(files) = self.client.as_ref().filter(|files| files.are_there()) {
            match files.read() {
                Err(errors) => errors.into_iter().for_each(unusable),
                Ok(pair) => pair.warning.into_iter().for_each(|text| odd("cert_file", text, "not valid now")),
            }
        }
    }

    /// Refuses the keys where there is no TLS: with `plain`, such as `http://`.
    pub fn refuse(section: &Section, plain: &str, tls: &str) {
        for key in ["ca_file", "cert_file", "key_file"].into_iter().filter(|key| section.has(key)) {
            let label = format!("has no use with `{plain}`");
            section.wrong(key, format!("`{key}` without TLS"), label, format!("write the url with `{tls}`"));
        }
    }

    /// Whether the section names no file, so that all is the system's.
    pub fn is_empty(&self) -> bool {
        self.ca_file.is_none() && self.client.is_none()
    }

    /// The configuration for one connection. Blocks on the files.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn for_one_connection(&self) -> Result<ClientConfig, TlsError> {
        let builder = self.trusting()?;
        Ok(match &self.client {
            None => builder.with_no_client_auth(),
            Some(files) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(files.load(&self.told)?))),
        })
    }

    /// The configuration for all connections of a client. The client certificate is read anew for each of them; a pair
    /// that became unusable is told in the log, and the former one goes on. Blocks on the files.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn for_many_connections(&self) -> Result<ClientConfig, TlsError> {
        let builder = self.trusting()?;
        let Some(files) = &self.client else { return Ok(builder.with_no_client_auth()) };
        let mut config = builder.with_client_cert_resolver(Arc::new(ReadAnew::new(files.clone(), self.told.clone())?));
        // a resumed session goes on with the certificate that it began with
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn trusting(&self) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
        let (roots, named) = match &self.ca_file {
            Some(path) => {
                let authorities = Authorities::read(path)?;
                self.told.warn("ca_file", authorities.warning(path));
                (authorities.roots, authorities.named)
            }
            None => (system()?, Vec::new()),
        };
        let setup = |why: &dyn fmt::Display| TlsError::Setup(why.to_string());
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier::new(roots, named, provider.clone()).map_err(|e| setup(&e))?;
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Ok(builder.map_err(|e| setup(&e))?.dangerous().with_custom_certificate_verifier(Arc::new(verifier)))
    }
}

/// Whom a file says to trust.
struct Authorities {
    roots: RootCertStore,
    /// The certificates themselves: a server may show one of them as its own.
    named: Vec<CertificateDer<'static>>,
    /// Certificates of the file that cannot be read.
    unusable: usize,
    /// Why none of them is valid now.
    outdated: Option<String>,
}

impl Authorities {
    fn read(path: &Path) -> Result<Authorities, TlsFileError> {
        let certificates = certificates("ca_file", path)?;
        let now = Clock::Real.now();
        let outdated: Option<Vec<_>> = certificates.iter().map(|one| identity::validity(one, now)).collect();
        let mut roots = RootCertStore::empty();
        let (_, unusable) = roots.add_parsable_certificates(certificates.iter().cloned());
        if roots.is_empty() {
            let why = format!("no certificate in it can be read; {COPY_AGAIN}");
            return Err(TlsFileError { key: "ca_file", path: path.to_owned(), why });
        }
        Ok(Authorities {
            roots,
            named: certificates,
            unusable,
            outdated: outdated.and_then(|all| all.into_iter().next()),
        })
    }

    fn warning(&self, path: &Path) -> Option<String> {
        let unusable = (self.unusable > 0)
            .then(|| format!("{} cannot be read; the others are trusted", counted(self.unusable, "certificate")));
        // TLS libraries look at the dates of a server's certificate, not at those of an authority that a file names
        let outdated = self.outdated.as_ref().map(|why| format!("the certificate {why}; it is trusted all the same"));
        let what: Vec<String> = unusable.into_iter().chain(outdated).collect();
        (!what.is_empty()).then(|| format!("`ca_file` {}: {}", path.display(), what.join("; ")))
    }
}

fn system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(TlsError::System(why));
    }
    Ok(roots)
}

/// The certificates of a file, at least one.
fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let unusable = |why: String| TlsFileError { key, path: path.to_owned(), why };
    let bytes = contents(key, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.map_err(|e| unusable(garbled(&e)))?;
    if certificates.is_empty() {
        let hint = match (has(&bytes, "PRIVATE KEY-----"), bytes.first()) {
            (true, _) => "; it holds a private key: are the files exchanged?",
            // how DER and PKCS#12 begin
            (false, Some(0x30)) => {
                "; it is binary: convert it with `openssl x509 -inform der`, or a .p12 file with \
                 `openssl pkcs12 -nodes`"
            }
            _ => not_text(&bytes),
        };
        return Err(unusable(format!("holds no PEM certificate{hint}")));
    }
    Ok(certificates)
}

/// What is wrong with a PEM file and what to do. Nothing of the file is part of it: it may hold a key.
fn garbled(error: &pem::Error) -> String {
    let again = COPY_AGAIN;
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            format!("is cut off: a `-----BEGIN …-----` has no `-----END …-----`; {again}")
        }
        pem::Error::IllegalSectionStart { .. } => {
            format!("is damaged: a line that starts with `-----BEGIN` does not end with `-----`; {again}")
        }
        pem::Error::Base64Decode(_) => {
            format!("is damaged: what stands between `-----BEGIN …-----` and `-----END …-----` is no base64; {again}")
        }
        _ => format!("is no PEM file: {error}; name one that begins with `-----BEGIN`"),
    }
}

fn contents(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsFileError> {
    let unusable = |why: String| TlsFileError { key, path: path.to_owned(), why };
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|e| unusable(format!("{e}; correct the path or its permissions")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unusable(format!(
            "more than {FILE_BYTES_MAX} bytes are too many for certificates; name a PEM file"
        )));
    }
    Ok(at_line_starts(bytes))
}

/// PEM whose lines are indented, or that begins with a byte order mark, as PEM has it: what begins a part stands at the
/// start of a line. Other bytes stay as they are.
fn at_line_starts(bytes: Vec<u8>) -> Vec<u8> {
    if !has(&bytes, "-----BEGIN") {
        return bytes;
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    text.split_inclusive(|byte| *byte == b'\n').flat_map(|line| line.trim_ascii_start()).copied().collect()
}

/// What is to be said of a file in which no PEM is found, where its first bytes tell.
fn not_text(bytes: &[u8]) -> &'static str {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "; it is text in UTF-16: save it as UTF-8",
        _ => "",
    }
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_file_stand_at_the_start_of_a_line() {
        for (text, want) in [
            (
                &b"\xef\xbb\xbf-----BEGIN X-----\n  AA\n\t-----END X-----"[..],
                &b"-----BEGIN X-----\nAA\n-----END X-----"[..],
            ),
            (b"  -----BEGIN X-----\r\n\n AA\r\n", b"-----BEGIN X-----\r\nAA\r\n"),
            (b" \xef\xbb\xbf 0\n", b" \xef\xbb\xbf 0\n"),
        ] {
            assert_eq!(at_line_starts(text.to_vec()), want);
        }
    }
}
