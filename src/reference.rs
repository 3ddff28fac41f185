//! Reference data: tables that streams are joined with, loaded as a whole and loaded again while the job runs.
//!
//! In: a file or an address, and the version that the journal keeps. Out: a [`Reference`], whose present [`Version`]
//! anybody may take at any moment. Invariant: a version is whole, within its limits and in the journal before it is
//! given out (unless the journal has no room, which is told); what cannot be loaded leaves the one before it in place.
//! Not here: when a statement takes a version over (`pipeline`), joining (`engine`).

mod csv;
mod json;
mod load;
mod place;
mod reload;
mod settings;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use smol_str::SmolStr;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::journal::{Journal, StoredReference};
use crate::time::{Clock, Timestamp};
use crate::value::Value;

pub use load::{LoadError, rows};
pub use place::{LookError, Looked, Watched};
pub use settings::{ReferenceAddress, ReferenceFormat, ReferenceInput, ReferencePlace, read};

use place::TablePlace;
use reload::Reload;

/// One state of a table.
#[derive(Debug)]
pub struct Version {
    /// Of the form and the bytes, hexadecimal.
    pub digest: SmolStr,
    pub loaded_at: Timestamp,
    /// A record each.
    pub rows: Arc<Vec<Value>>,
}

/// A table and the task that keeps it fresh. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Reference(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: SmolStr,
    status: Mutex<TableStatus>,
}

/// How a table is.
#[derive(Clone, Debug, Default)]
pub struct TableStatus {
    /// `None`: no good version was ever seen, so statements that join with it wait.
    pub version: Option<Arc<Version>>,
    /// Why the newest data is not in use.
    pub trouble: Option<String>,
    /// Why the present version is not in the journal.
    pub not_kept: Option<String>,
    /// Versions taken since the start.
    pub loads: u64,
    /// Attempts that gave no version since the start.
    pub failures: u64,
}

impl Reference {
    /// Starts to load. The first attempt decides whether the journal's version is used; later ones replace what is
    /// there. Needs a tokio runtime.
    ///
    /// # Errors
    /// When no client can be made for its address.
    pub fn start(
        name: &str,
        input: &ReferenceInput,
        journal: Journal,
        clock: Clock,
        ended: CancellationToken,
    ) -> Result<(Reference, JoinHandle<()>), String> {
        let reference = Reference(Arc::new(Shared { name: SmolStr::new(name), status: Mutex::default() }));
        let reload = Reload::new(reference.clone(), input, journal, clock)?;
        let loading = async move {
            tokio::select! {
                () = reload.run() => {}
                () = ended.cancelled() => {}
            }
        };
        let task = tokio::spawn(loading.in_current_span());
        Ok((reference, task))
    }

    pub fn name(&self) -> &SmolStr {
        &self.0.name
    }

    /// The newest good version.
    pub fn current(&self) -> Option<Arc<Version>> {
        self.with(|status| status.version.clone())
    }

    pub fn status(&self) -> TableStatus {
        self.with(|status| status.clone())
    }

    fn with<T>(&self, f: impl FnOnce(&mut TableStatus) -> T) -> T {
        f(&mut self.0.status.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Loads a table once, for `check`.
///
/// # Errors
/// Why there is no version now.
pub async fn load_once(input: &ReferenceInput) -> Result<Vec<Value>, String> {
    let mut place = TablePlace::new(input)?;
    let bytes = match place.look(true).await.map_err(|error| error.to_string())? {
        Looked::Bytes(bytes) => bytes,
        Looked::Same | Looked::Changing => return Err("it is being written just now".to_owned()),
    };
    let (format, rows_max) = (input.format, input.rows_max);
    let loaded = tokio::task::spawn_blocking(move || rows(&bytes, format, rows_max)).await;
    loaded.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

/// The form as the journal keeps it beside the bytes.
fn form(format: ReferenceFormat) -> String {
    match format {
        ReferenceFormat::Json => "json".to_owned(),
        ReferenceFormat::Csv { delimiter } => format!("csv{}", char::from(delimiter)),
    }
}

/// The other way round; `None` for a form of another program.
/// The rows of a table that a pool keeps.
///
/// # Errors
/// They were kept by another version of the program.
pub fn kept_rows(stored: &StoredReference) -> Result<Vec<Value>, LoadError> {
    let format = format_of(&stored.form).ok_or(LoadError::Empty)?;
    rows(&stored.bytes, format, usize::MAX)
}

fn format_of(form: &str) -> Option<ReferenceFormat> {
    match form.as_bytes() {
        b"json" => Some(ReferenceFormat::Json),
        [b'c', b's', b'v', delimiter] => Some(ReferenceFormat::Csv { delimiter: *delimiter }),
        _ => None,
    }
}

fn digest(form: &str, bytes: &[u8]) -> SmolStr {
    let digest = Sha256::new().chain_update(form).chain_update([0]).chain_update(bytes).finalize();
    SmolStr::new(digest.iter().map(|b| format!("{b:02x}")).collect::<String>())
}
