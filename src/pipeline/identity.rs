//! The names by which brokers know a job.
//!
//! In: the name that the job file writes, if it does. Out: the name to use, and whether it was used before. Invariant:
//! a name is made once and then kept in the journal. Not here: what a name is for.

use crate::journal::{Journal, JournalError};
use crate::source::Identity;

/// The written name, else `STEM-` and eight digits.
pub fn identify(journal: &Journal, written: Option<&str>, stem: &str) -> Result<Identity, JournalError> {
    let name = match written {
        Some(name) => name.to_owned(),
        None => format!("{stem}-{}", journal.client_id_suffix()?),
    };
    let key = format!("client/{name}");
    let is_known = journal.get_meta(&key)?.is_some();
    if !is_known {
        journal.put_meta(&key, b"used")?;
    }
    Ok(Identity { name, is_known })
}
