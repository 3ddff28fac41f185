//! Where a table comes from: a file or an address.
//!
//! In: the wish to look. Out: the bytes, or that nothing is new. Invariant: at most one byte more than `bytes_max` is
//! read; a file counts as changed only when it stayed as it is from one look to the next, so that one being written is
//! left alone; a key never appears in an error. Not here: when to look, what the bytes mean.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{StatusCode, redirect};

use super::{ReferenceAddress, ReferenceInput, ReferencePlace};
use crate::http::{self, ClientSettings, Scrub, key_header};

/// A link that is down is noticed after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers that send elsewhere are followed so often.
const REDIRECTS_MAX: usize = 5;
/// A file that was different at this many looks in a row is told: it would never be read.
const CHANGING_MAX: u32 = 30;

/// What a look gave.
#[derive(Debug)]
pub enum Looked {
    Bytes(Bytes),
    /// What was read the last time.
    Same,
    /// A file that is being written.
    Changing,
}

/// Why a look gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// It may be there soon.
    #[error("{0}")]
    Away(String),
    /// It stays so until somebody changes it.
    #[error("{0}")]
    Bad(String),
}

#[derive(Debug)]
pub(super) enum TablePlace {
    File(Watched),
    Http(Box<Address>),
}

impl TablePlace {
    pub fn new(input: &ReferenceInput) -> Result<TablePlace, String> {
        Ok(match &input.place {
            ReferencePlace::File(path) => TablePlace::File(Watched::new(path, input.bytes_max)),
            ReferencePlace::Http(address) => TablePlace::Http(Box::new(Address::new(address, input.bytes_max)?)),
        })
    }

    /// Looks for something new; `all`: also reads what seems to be the same.
    pub async fn look(&mut self, all: bool) -> Result<Looked, LookError> {
        match self {
            TablePlace::Http(address) => address.fetch(all).await,
            TablePlace::File(watched) => {
                let mut moved = std::mem::replace(watched, Watched::new(Path::new(""), 0));
                let looked = tokio::task::spawn_blocking(move || (moved.look(all), moved)).await;
                let (looked, back) = looked.map_err(|e| LookError::Away(e.to_string()))?;
                *watched = back;
                looked
            }
        }
    }

    /// What was read the last time is in use: an address need not send it again.
    pub fn accept(&mut self) {
        if let TablePlace::Http(address) = self {
            address.accepted = std::mem::take(&mut address.offered);
        }
    }
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
}

impl From<&Metadata> for Stamp {
    fn from(m: &Metadata) -> Stamp {
        Stamp {
            size: m.size(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
            inode: m.ino(),
        }
    }
}

/// A file that is looked at again and again.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    bytes_max: usize,
    /// As it was when it was last read.
    read: Option<Stamp>,
    /// As it was at the last look.
    before: Option<Stamp>,
    changing: u32,
    is_first: bool,
}

impl Watched {
    pub fn new(path: &Path, bytes_max: usize) -> Watched {
        Watched { path: path.to_path_buf(), bytes_max, read: None, before: None, changing: 0, is_first: true }
    }

    /// The bytes, when they are new and the file has stayed as it is since the last look; the first look reads at once.
    ///
    /// # Errors
    /// It cannot be read, is longer than it may be, or changes all the time.
    pub fn look(&mut self, all: bool) -> Result<Looked, LookError> {
        let is_first = std::mem::replace(&mut self.is_first, false);
        let opened = File::open(&self.path).and_then(|file| Ok((Stamp::from(&file.metadata()?), file)));
        let (stamp, file) = opened.map_err(|error| {
            (self.read, self.before) = (None, None);
            self.away(&error)
        })?;
        let before = self.before.replace(stamp);
        if self.read == Some(stamp) {
            self.changing = 0;
            if !all {
                return Ok(Looked::Same);
            }
        } else if !is_first && before != Some(stamp) {
            return self.is_changing();
        }
        if stamp.size > self.bytes_max as u64 {
            self.read = Some(stamp);
            return Err(too_large(self.bytes_max));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(stamp.size).unwrap_or(0).min(self.bytes_max));
        // what is opened is read, even if the name stands for another file by now
        let read = (&file).take(self.bytes_max as u64 + 1).read_to_end(&mut bytes).and_then(|_| file.metadata());
        let after = Stamp::from(&read.map_err(|error| self.away(&error))?);
        if after != stamp {
            self.before = Some(after);
            return self.is_changing();
        }
        (self.read, self.changing) = (Some(stamp), 0);
        if bytes.len() > self.bytes_max {
            return Err(too_large(self.bytes_max));
        }
        Ok(Looked::Bytes(Bytes::from(bytes)))
    }

    fn is_changing(&mut self) -> Result<Looked, LookError> {
        self.changing += 1;
        if self.changing < CHANGING_MAX {
            return Ok(Looked::Changing);
        }
        let why = format!("{} changes all the time; write a new file beside it and rename it", self.path.display());
        Err(LookError::Away(why))
    }

    fn away(&self, error: &std::io::Error) -> LookError {
        LookError::Away(format!("{} cannot be read: {error}", self.path.display()))
    }
}

fn too_large(bytes_max: usize) -> LookError {
    LookError::Bad(format!("it is longer than {bytes_max} bytes; raise `bytes_max`"))
}

/// An address that is asked again and again.
#[derive(Debug)]
pub(super) struct Address {
    client: reqwest::Client,
    address: ReferenceAddress,
    bytes_max: usize,
    /// What the server told of the version in use, to be asked by.
    accepted: HeaderMap,
    /// … and of the one that was read last.
    offered: HeaderMap,
}

impl Address {
    fn new(address: &ReferenceAddress, bytes_max: usize) -> Result<Address, String> {
        let settings = ClientSettings {
            connect_timeout: CONNECT_TIMEOUT.min(address.timeout),
            idle_connections: 1,
            tls: &address.tls,
            is_plain: address.url.scheme() == "http",
            redirects: redirects(address.key.is_some()),
        };
        let client = http::client(settings).map_err(|e| e.to_string())?;
        Ok(Address {
            client,
            address: address.clone(),
            bytes_max,
            accepted: HeaderMap::new(),
            offered: HeaderMap::new(),
        })
    }

    async fn fetch(&mut self, all: bool) -> Result<Looked, LookError> {
        let mut call = self.client.get(self.address.url.clone()).timeout(self.address.timeout);
        let mut scrub = Scrub::of(&self.address.url);
        if let Some(secret) = &self.address.key {
            let (secret, header) = (secret.clone(), self.address.key_header.clone());
            let read = tokio::task::spawn_blocking(move || key_header(&secret, header.as_deref())).await;
            let (name, value) = read.map_err(|e| LookError::Away(e.to_string()))?.map_err(LookError::Away)?;
            value.to_str().into_iter().for_each(|key| scrub.add(key));
            call = call.header(name, value);
        }
        if !all {
            call = call.headers(self.accepted.clone());
        }
        let response = call.send().await.map_err(|e| self.away(e))?;
        let status = response.status();
        if status == StatusCode::NOT_MODIFIED && !all && !self.accepted.is_empty() {
            return Ok(Looked::Same);
        }
        if status != StatusCode::OK {
            let elsewhere =
                if status.is_redirection() { ", which is not followed (see `url` in docs/job-file.md)" } else { "" };
            return Err(LookError::Away(format!("{} answered {}{elsewhere}", self.shown(), status.as_u16())));
        }
        self.offered = validators(response.headers());
        match http::read(response, self.bytes_max).await {
            Ok(Some(mut bytes)) => {
                // what cannot be read as a table is quoted
                scrub.hide(&mut bytes);
                Ok(Looked::Bytes(Bytes::from(bytes)))
            }
            Ok(None) => Err(too_large(self.bytes_max)),
            Err(error) => Err(self.away(error)),
        }
    }

    fn away(&self, error: reqwest::Error) -> LookError {
        if error.is_timeout() && !error.is_connect() {
            return LookError::Away(format!("{} gave no whole answer within {:?}", self.shown(), self.address.timeout));
        }
        LookError::Away(format!("{}: {}", self.shown(), http::problem(error, &self.address.tls)))
    }

    /// Without its query, which may hold a signature.
    fn shown(&self) -> String {
        let mut url = self.address.url.clone();
        url.set_query(None);
        url.to_string()
    }
}

/// A key goes to the host that it was meant for, and nothing that began with TLS goes on without.
fn redirects(has_key: bool) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        let from = attempt.previous().last().cloned();
        let loses_tls = from.as_ref().is_some_and(|from| from.scheme() == "https") && attempt.url().scheme() != "https";
        let leaves = from.is_some_and(|from| from.origin() != attempt.url().origin());
        if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error(format!("it sends elsewhere more than {REDIRECTS_MAX} times"))
        } else if loses_tls || (has_key && leaves) {
            attempt.stop()
        } else {
            attempt.follow()
        }
    })
}

/// The headers to ask by the next time.
fn validators(headers: &HeaderMap) -> HeaderMap {
    let pairs = [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)];
    pairs.into_iter().filter_map(|(told, asked)| Some((asked, headers.get(told)?.clone()))).collect()
}
