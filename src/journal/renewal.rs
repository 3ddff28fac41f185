//! What tells the ids of rows apart where offsets may be given out twice.
//!
//! In: the end of the inputs at a start that cannot be sure of it: the pool lacked something, or the file that says how
//! far it was acknowledged says something else. Out: from that offset on, ids carry a mark of their own. Invariant:
//! rows of events that the pool had by then keep their ids, so a row that is repeated after a crash is recognised. Not
//! here: ids (`output`).

use std::sync::Arc;

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::meta::load_json;

/// Where they are kept in `meta`, as JSON.
const RENEWALS: &str = "id_renewals";
/// With more, the rows of the oldest have long left: a power cut a day for three years.
const RENEWALS_MAX: usize = 1024;

/// From an offset of the inputs on, row ids carry this mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRenewal {
    pub from: i64,
    /// Random, so that two starts from the same copy of a pool differ too.
    pub mark: String,
}

pub(super) fn load(db: &Connection) -> rusqlite::Result<Arc<[IdRenewal]>> {
    load_json::<Vec<IdRenewal>>(db, RENEWALS).map(Arc::from)
}

/// Ids carry another mark from this offset on.
pub(super) fn renew(db: &Connection, from: i64) -> rusqlite::Result<()> {
    let mut known = load(db)?.to_vec();
    // what was given out since the one before is none, or it is lost
    known.retain(|renewal| renewal.from < from);
    known.push(IdRenewal { from, mark: format!("{:08x}", fastrand::u32(..)) });
    known.drain(..known.len().saturating_sub(RENEWALS_MAX));
    let json = serde_json::to_vec(&known).unwrap_or_default();
    db.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![RENEWALS, json])?;
    Ok(())
}
