//! What statements and the columns of their calls are called.
//!
//! In: a plan. Out: names. Invariant: they depend on the plan alone, so whatever is stored under one is found again.
//! Not here: names of brokers (`identity`).

use std::collections::BTreeMap;
use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};

use crate::batch::Column;
use crate::query::plan::{External, Plan, Statement};

/// The statements of a plan under the names that counters and row ids have for them.
pub fn named(plan: &Plan) -> Vec<(SmolStr, &Statement)> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let each = plan.statements.iter().map(|statement| {
        let place = places.entry(statement.output.to_lowercase()).or_default();
        *place += 1;
        // two statements may write to one output
        let name = if *place == 1 { statement.output.clone() } else { format_smolstr!("{}~{place}", statement.output) };
        (name, statement)
    });
    each.collect()
}

/// The columns of the rows that a call is sent.
pub fn sent_columns(external: &External) -> Arc<[Column]> {
    external.names.iter().map(|name| Column { name: name.clone(), spread: false }).collect()
}
