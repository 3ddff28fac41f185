//! The task that keeps a table fresh.
//!
//! In: looks at its place. Out: versions, and what is wrong. Invariant: a version is in the journal before anybody sees
//! it, so a row that was joined with it is never followed, after a crash, by one joined with an older; a problem is
//! logged once for each change of its reason. Not here: reading (`place`, `load`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smol_str::SmolStr;
use tokio::time::Instant;

use super::place::{LookError, Looked, TablePlace};
use super::{Reference, ReferenceFormat, ReferenceInput, Version, digest, form, format_of, rows};
use crate::backoff::{Backoff, Retry};
use crate::journal::{Journal, StoredReference};
use crate::time::{Clock, Timestamp, task_now};

/// How often a file is looked at: soon enough for a person who waits, and a `stat` costs next to nothing.
const FILE_LOOK: Duration = Duration::from_secs(1);
/// What is wrong in itself hardly changes sooner, and an address without a time of its own is asked this often.
const LOOK: Duration = Duration::from_secs(60);

pub(super) struct Reload {
    reference: Reference,
    place: TablePlace,
    format: ReferenceFormat,
    rows_max: usize,
    every: Option<Duration>,
    journal: Journal,
    clock: Clock,
    /// When all is to be read, whether it changed or not.
    due: Option<Instant>,
    retry: Retry,
    /// The pause while something is wrong.
    again: Duration,
    is_first: bool,
    /// The journal was asked for its version.
    fell_back: bool,
    /// What the journal was last told of as wrong; `None`: nothing yet.
    noted: Option<Option<String>>,
}

/// What became of bytes.
enum LoadedTable {
    /// Those of the version in use.
    Same,
    New(Version),
}

impl Reload {
    pub fn new(reference: Reference, input: &ReferenceInput, journal: Journal, clock: Clock) -> Result<Reload, String> {
        Ok(Reload {
            place: TablePlace::new(input)?,
            reference,
            format: input.format,
            rows_max: input.rows_max,
            every: input.reload,
            journal,
            clock,
            due: None,
            retry: Retry::new(Backoff::TABLE),
            again: Duration::ZERO,
            is_first: true,
            fell_back: false,
            noted: None,
        })
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        loop {
            let all = self.is_first || self.due.is_some_and(|due| due <= task_now());
            if all {
                self.due = self.every.map(|every| task_now() + every);
            }
            let outcome = self.attempt(all).await;
            self.settle(outcome).await;
            self.is_first = false;
            tokio::time::sleep(self.pause()).await;
        }
    }

    async fn attempt(&mut self, all: bool) -> Result<(), LookError> {
        // an address tells itself whether something is new, a file only by what is in it
        let is_file = matches!(self.place, TablePlace::File(_));
        let kept = self.reference.with(|status| status.not_kept.is_none());
        let bytes = match self.place.look((all && is_file) || !kept).await? {
            Looked::Bytes(bytes) => bytes,
            Looked::Changing | Looked::Same => return self.trouble_before(),
        };
        match self.load(bytes.clone()).await? {
            LoadedTable::Same if kept => {}
            LoadedTable::Same => {
                if let Some(version) = self.reference.current() {
                    self.keep(&version, bytes).await;
                }
            }
            LoadedTable::New(version) => {
                self.keep(&version, bytes).await;
                tracing::info!(version = %shown(&version.digest), rows = version.rows.len(), "reference data loaded");
                self.give_out(version);
            }
        }
        self.place.accept();
        Ok(())
    }

    /// Nothing is new, so what was wrong with it still is.
    fn trouble_before(&self) -> Result<(), LookError> {
        match (self.reference.with(|status| status.trouble.clone()), &self.place) {
            (Some(trouble), TablePlace::File(_)) => Err(LookError::Bad(trouble)),
            _ => Ok(()),
        }
    }

    async fn load(&self, bytes: Bytes) -> Result<LoadedTable, LookError> {
        let (format, rows_max) = (self.format, self.rows_max);
        let (current, at) = (self.reference.current(), self.clock.now());
        let loading = tokio::task::spawn_blocking(move || {
            let digest = digest(&form(format), &bytes);
            if current.is_some_and(|current| current.digest == digest) {
                return Ok(LoadedTable::Same);
            }
            let rows = rows(&bytes, format, rows_max)?;
            Ok(LoadedTable::New(Version { digest, loaded_at: at, rows: Arc::new(rows) }))
        });
        loading
            .await
            .map_err(|e| LookError::Bad(e.to_string()))?
            .map_err(|e: super::LoadError| LookError::Bad(e.to_string()))
    }

    /// Keeps a version for a start offline.
    async fn keep(&self, version: &Version, bytes: Bytes) {
        let (journal, name) = (self.journal.clone(), self.reference.name().clone());
        let (digest, form, rows, loaded_at) =
            (version.digest.to_string(), form(self.format), version.rows.len() as u64, version.loaded_at);
        let keeping = tokio::task::spawn_blocking(move || {
            if journal.reference_digest(&name)?.is_some_and(|kept| kept == digest) {
                return Ok(());
            }
            journal.put_reference(&name, &StoredReference { digest, form, rows, loaded_at, bytes })
        });
        let not_kept = match keeping.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        let is_new = self.reference.with(|status| std::mem::replace(&mut status.not_kept, not_kept.clone()).is_none());
        if let Some(why) = not_kept.filter(|_| is_new) {
            tracing::warn!("this version of the reference data is not kept for a start offline: {why}");
        }
    }

    fn give_out(&self, version: Version) {
        self.reference.with(|status| {
            status.version = Some(Arc::new(version));
            status.loads += 1;
        });
    }

    /// Notes how an attempt ended; one that failed while there is no version falls back on what the journal has.
    async fn settle(&mut self, outcome: Result<(), LookError>) {
        let is_away = matches!(outcome, Err(LookError::Away(_)));
        let trouble = outcome.err().map(|error| error.to_string());
        if trouble.is_some() && self.reference.current().is_none() && !std::mem::replace(&mut self.fell_back, true) {
            self.fall_back().await;
        }
        let has_version = self.reference.current().is_some();
        let was_troubled = self.reference.with(|status| status.trouble.is_some());
        if !was_troubled {
            self.retry.succeeded();
        }
        self.again = match is_away || !has_version {
            true => self.retry.failed(),
            false => self.every.unwrap_or(LOOK),
        };
        let before = self.reference.with(|status| {
            status.failures += u64::from(trouble.is_some() && status.trouble != trouble || is_away);
            std::mem::replace(&mut status.trouble, trouble.clone())
        });
        let input = self.reference.name().clone();
        match &trouble {
            Some(why) if before != trouble && has_version => {
                tracing::warn!("reference data cannot be loaded, the last good version stays in use: {why}");
            }
            Some(why) if before != trouble => {
                tracing::warn!(
                    "reference data cannot be loaded and there is no earlier version, so the statements that join with \
                    it wait: {why}"
                );
            }
            None if before.is_some() => tracing::info!("reference data is good again"),
            _ => {}
        }
        if self.noted.as_ref() != Some(&trouble) {
            let (journal, at, message) = (self.journal.clone(), self.clock.now(), trouble.clone());
            let noting =
                tokio::task::spawn_blocking(move || journal.note_reference_error(&input, at, message.as_deref()));
            // what was not noted is noted with the next change
            let _ = noting.await;
            self.noted = Some(trouble);
        }
    }

    /// Takes the version that the journal keeps, in the form that it was kept in.
    async fn fall_back(&self) {
        let (journal, name) = (self.journal.clone(), self.reference.name().clone());
        let reading = tokio::task::spawn_blocking(move || {
            let stored = journal.reference(&name).map_err(|e| e.to_string())?;
            stored.map(version).transpose()
        });
        match reading.await.map_err(|e| e.to_string()).and_then(|read| read) {
            Ok(Some(version)) => {
                let (id, at) = (shown(&version.digest), version.loaded_at);
                tracing::warn!(version = %id, "starting with the reference data that the pool keeps, loaded {at}");
                self.give_out(version);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("the reference data that the pool keeps cannot be read: {error}"),
        }
    }

    fn pause(&self) -> Duration {
        let until_due = self.due.map(|due| due.saturating_duration_since(task_now()));
        let troubled = self.reference.with(|status| status.trouble.is_some());
        match &self.place {
            TablePlace::File(_) => until_due.map_or(FILE_LOOK, |left| left.min(FILE_LOOK)),
            TablePlace::Http(_) if troubled => until_due.map_or(self.again, |left| left.min(self.again)),
            TablePlace::Http(_) => until_due.unwrap_or(LOOK),
        }
    }
}

/// A version from what the journal keeps.
fn version(stored: StoredReference) -> Result<Version, String> {
    let format = format_of(&stored.form)
        .ok_or_else(|| format!("it is kept in a form that this program does not know: {}", stored.form))?;
    // it was within the limits when it was kept
    let rows = rows(&stored.bytes, format, usize::MAX).map_err(|e| e.to_string())?;
    let loaded_at: Timestamp = stored.loaded_at;
    Ok(Version { digest: SmolStr::new(stored.digest), loaded_at, rows: Arc::new(rows) })
}

/// As much of a digest as a person compares.
fn shown(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
