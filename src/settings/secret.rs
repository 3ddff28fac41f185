//! Passwords and keys, which a job file only refers to.
//!
//! In: `env:NAME`, `file:PATH`, `credential:NAME`. Out: the secret, read when it is needed, so that a changed one can
//! be read again. Invariant: no secret is part of a job, of its debug form or of an error. Not here: what a secret is
//! for.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::diagnostic::Span;

/// Keys and tokens are far shorter; more is the wrong file.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Parts of names under which people keep secrets.
const SECRET_NAMES: [&str; 8] =
    ["password", "passwd", "secret", "token", "apikey", "accesskey", "privatekey", "authorization"];

/// Parts of names, also of misspelt ones, whose values no message shows.
const SECRETIVE: [&str; 8] = ["pas", "pwd", "secret", "token", "key", "auth", "credential", "sas"];
/// Names that hold one of them and are no secrets.
const OPEN: [&str; 4] = ["keepalive", "keyfile", "keyheader", "keys"];

/// Whether a setting of this name is likely to be a secret: then it may only be referred to.
pub fn may_be_secret(name: &str) -> bool {
    let letters = letters(name);
    letters == "key" || SECRET_NAMES.iter().any(|part| letters.contains(part))
}

/// Whether a value under this name might be a secret, so that no message shows it.
pub(super) fn is_secretive(name: &str) -> bool {
    let letters = letters(name);
    SECRETIVE.iter().any(|part| letters.contains(part)) && !OPEN.iter().any(|part| letters.contains(part))
}

fn letters(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Where a secret is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    source: SecretSource,
    span: Span,
    /// It goes into a header of HTTP.
    is_key: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file, without its last line break.
    File(PathBuf),
    /// A file in the folder that systemd names in `CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// Why a secret cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the environment variable {name} is not set")]
    Unset { name: String },
    #[error("{place} is empty")]
    Empty { place: String },
    #[error("{place} is no UTF-8 text")]
    NotText { place: String },
    #[error("{place} is no key: it is blank or has characters that a header cannot hold")]
    NotKey { place: String },
    #[error("{} is longer than {SECRET_BYTES_MAX} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the credential {name} has no folder: CREDENTIALS_DIRECTORY is not set")]
    NoCredentials { name: String },
}

impl SecretError {
    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            SecretError::Unset { .. } => "set it where forebay is started",
            SecretError::Empty { .. } => "put the secret there",
            SecretError::NotText { .. } | SecretError::TooLong { .. } => "check that it is the right file",
            SecretError::NotKey { .. } => "put only the key there, on one line",
            SecretError::Unreadable { .. } => "check the path and its permissions",
            SecretError::NoCredentials { .. } => {
                "systemd sets it for units with `LoadCredential=`; elsewhere use `env:` or `file:`"
            }
        }
    }
}

impl Secret {
    /// `None`: not a reference, so perhaps the secret itself.
    pub fn parse(text: &str, span: Span, folder: &Path) -> Option<Secret> {
        let (kind, name) = text.split_once(':')?;
        let is_name = !name.is_empty() && !name.contains(['/', '=', ' ']);
        let source = match kind {
            "env" if is_name => SecretSource::Env(name.to_string()),
            "file" if !name.is_empty() => SecretSource::File(folder.join(name)),
            "credential" if is_name => SecretSource::Credential(name.to_string()),
            _ => return None,
        };
        Some(Secret { source, span, is_key: false })
    }

    /// The same as a key, which goes into a header of HTTP; blanks around it do not count.
    pub fn as_key(self) -> Secret {
        Secret { is_key: true, ..self }
    }

    pub fn source(&self) -> &SecretSource {
        &self.source
    }

    /// Its place in the job file.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Reads the secret as it is now. Blocks on a file.
    ///
    /// # Errors
    /// When there is none, or it is no text; for a key, when it does not fit a header.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        let text = match &self.source {
            SecretSource::Env(name) => std::env::var(name).map_err(|error| match error {
                std::env::VarError::NotPresent => SecretError::Unset { name: name.clone() },
                std::env::VarError::NotUnicode(_) => SecretError::NotText { place: self.to_string() },
            })?,
            SecretSource::File(path) => self.read_file(path)?,
            SecretSource::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| SecretError::NoCredentials { name: name.clone() })?;
                self.read_file(&Path::new(&folder).join(name))?
            }
        };
        if text.is_empty() {
            return Err(SecretError::Empty { place: self.to_string() });
        }
        let key = text.trim();
        if self.is_key && (key.is_empty() || key.chars().any(char::is_control)) {
            return Err(SecretError::NotKey { place: self.to_string() });
        }
        Ok(SecretString::from(text))
    }

    fn read_file(&self, path: &Path) -> Result<String, SecretError> {
        let unreadable = |source| SecretError::Unreadable { path: path.to_path_buf(), source };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > SECRET_BYTES_MAX {
            return Err(SecretError::TooLong { path: path.to_path_buf() });
        }
        let text = String::from_utf8(bytes).map_err(|_| SecretError::NotText { place: self.to_string() })?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(text.strip_suffix('\r').unwrap_or(text).to_string())
    }
}

impl fmt::Display for Secret {
    /// The reference, not the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            SecretSource::Env(name) => write!(f, "env:{name}"),
            SecretSource::File(path) => write!(f, "file:{}", path.display()),
            SecretSource::Credential(name) => write!(f, "credential:{name}"),
        }
    }
}
