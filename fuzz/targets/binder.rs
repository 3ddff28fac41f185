//! Any text is a plan that can be explained and started, or errors that can be drawn.

#![no_main]

use std::sync::LazyLock;

use forebay::engine::{Executor, ExecutorOptions};
use forebay::query::catalog::Catalog;
use forebay::query::plan::explain;
use libfuzzer_sys::fuzz_target;

static CATALOG: LazyLock<Catalog> = LazyLock::new(forebay_fuzz::catalog);

fuzz_target!(|text: &str| {
    match forebay::query::compile(text, "query.asaql", &CATALOG) {
        Err(errors) => assert!(errors.to_string().contains("error: "), "no error was drawn"),
        Ok(plan) => {
            assert!(!explain(&plan).is_empty());
            for part in plan.statements.iter().flat_map(|s| &s.parts) {
                // what the engine cannot run it says
                let _ = Executor::new(part, ExecutorOptions::default(), None);
                if let Some(external) = &part.external {
                    let _ = Executor::for_tail(external, &part.columns, ExecutorOptions::default(), None);
                }
            }
        }
    }
});
