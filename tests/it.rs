//! The one integration binary (each one links wasmtime); a module a topic.

// a test that panics has failed
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)] // tests wait for real peers in real time

#[path = "it/after_outage.rs"]
mod after_outage;
#[path = "it/architecture.rs"]
mod architecture;
#[path = "it/backups.rs"]
mod backups;
#[path = "it/cases.rs"]
mod cases;
#[path = "it/certificates.rs"]
mod certificates;
#[path = "it/cli.rs"]
mod cli;
#[path = "it/crash.rs"]
mod crash;
#[path = "it/damaged_pool.rs"]
mod damaged_pool;
#[path = "it/dead_letters.rs"]
mod dead_letters;
#[path = "it/dead_output.rs"]
mod dead_output;
#[path = "it/demo.rs"]
mod demo;
#[path = "it/end_to_end.rs"]
mod end_to_end;
#[path = "it/formats.rs"]
mod formats;
#[path = "it/guests.rs"]
mod guests;
#[path = "it/harness.rs"]
mod harness;
#[path = "it/job.rs"]
mod job;
#[path = "it/journal.rs"]
mod journal;
#[path = "it/kills.rs"]
mod kills;
#[path = "it/local_answers.rs"]
mod local_answers;
#[path = "it/misfits.rs"]
mod misfits;
#[path = "it/mqtt.rs"]
mod mqtt;
#[path = "it/mqtt_output.rs"]
mod mqtt_output;
#[path = "it/mqtt_status.rs"]
mod mqtt_status;
#[path = "it/mqtt_shared.rs"]
mod mqtt_shared;
#[path = "it/one_mistake.rs"]
mod one_mistake;
#[path = "it/output.rs"]
mod output;
#[path = "it/place.rs"]
mod place;
#[path = "it/query_errors.rs"]
mod query_errors;
#[path = "it/reference.rs"]
mod reference;
#[path = "it/score.rs"]
mod score;
#[path = "it/sent_again.rs"]
mod sent_again;
#[path = "it/silence.rs"]
mod silence;
#[path = "it/slow_past.rs"]
mod slow_past;
#[path = "it/start.rs"]
mod start;
#[path = "it/support.rs"]
mod support;
#[path = "it/swap.rs"]
mod swap;
#[path = "it/torture.rs"]
mod torture;
#[path = "it/uda.rs"]
mod uda;
#[path = "it/udf.rs"]
mod udf;
#[path = "it/udf_commands.rs"]
mod udf_commands;
#[path = "it/udf_grants.rs"]
mod udf_grants;
#[path = "it/versions.rs"]
mod versions;
#[path = "it/webhook.rs"]
mod webhook;
#[path = "it/written.rs"]
mod written;
