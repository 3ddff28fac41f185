//! forebay: MQTT telemetry in, Stream Analytics SQL over it, user functions as WebAssembly components, a durable pool
//! in SQLite, batched calls to Azure Machine Learning endpoints, scored rows out.
//!
//! The modules, in flow order; each may use only those above it, and `pipeline` alone sees every stage.

// `make doc` documents private items too: the book is for who works on the crate
#![allow(rustdoc::private_intra_doc_links)]
// they panic where the stream is closed or full: `cli::say` does not
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod kill_point;
pub mod time;
pub mod arrival;
pub mod backoff;
pub mod blocking;
pub mod value;
pub mod batch;
pub mod diagnostic;
pub mod settings;
pub mod tls;
pub mod http;
pub mod links;
pub mod connections;
pub mod mqtt;
pub mod decode;
pub mod source;
pub mod journal;
pub mod query;
pub mod reference;
pub mod udf;
pub mod engine;
pub mod score;
pub mod output;
pub mod job;
pub mod telemetry;
pub mod control;
pub mod pipeline;
pub mod demo;
pub mod cli;
