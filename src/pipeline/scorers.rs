//! Starts a scorer for each endpoint.
//!
//! In: the job's endpoints. Out: [`Scorer`]s. Invariant: a description that was seen once is kept in the journal, so
//! that a start works offline. Not here: scoring (`score`).

use std::collections::BTreeMap;

use smol_str::SmolStr;
use tokio::runtime::Handle;
use tracing::Instrument;

use super::PipelineError;
use super::report::WatchedStages;
use crate::job::{FunctionSettings, Job};
use crate::journal::Journal;
use crate::score::{ScoreConfig, Scorer};
use crate::settings::address::masked;

/// Starts a scorer for each endpoint.
pub fn start(
    job: &Job,
    journal: &Journal,
    watched: &WatchedStages,
) -> Result<BTreeMap<SmolStr, Scorer>, PipelineError> {
    let mut scorers = BTreeMap::new();
    for function in &job.functions {
        let FunctionSettings::Endpoint(endpoint) = &function.kind else { continue };
        let name = SmolStr::new(&function.name);
        let _span = tracing::error_span!("function", name = %name).entered();
        let problem = |reason: String| PipelineError::Function { name: name.clone(), reason };
        let key = format!("swagger/{}/{}", function.name, masked(&endpoint.url));
        let cached = journal.get_meta(&key)?.and_then(|text| String::from_utf8(text).ok());
        let config = ScoreConfig { cached_description: cached, ..endpoint.as_ref().clone() };
        let scorer = Scorer::start(config, &Handle::current()).map_err(|e| problem(e.to_string()))?;
        keep_description(&scorer, journal.clone(), key);
        watched.add_scorer(scorer.clone());
        scorers.insert(name, scorer);
    }
    Ok(scorers)
}

/// Keeps each new document, so that the next start works offline.
fn keep_description(scorer: &Scorer, journal: Journal, key: String) {
    let mut updates = scorer.description_updates();
    let keeping = async move {
        while updates.changed().await.is_ok() {
            let Some(text) = updates.borrow_and_update().clone() else { continue };
            let (journal, key) = (journal.clone(), key.clone());
            let kept = tokio::task::spawn_blocking(move || journal.put_meta(&key, text.as_bytes())).await;
            if let Ok(Err(error)) = kept {
                tracing::warn!("the endpoint's signature is not kept for an offline start: {error}");
            }
        }
    };
    tokio::spawn(keeping.in_current_span());
}
