//! forebay: MQTT telemetry in, Stream Analytics SQL over it, user functions as WebAssembly components, a durable pool
//! in SQLite, batched calls to Azure Machine Learning endpoints, scored rows out.
//!
//! The modules, in flow order; each may use only those above it, and `pipeline` alone sees every stage.

pub mod batch;
pub mod cli;
pub mod decode;
pub mod demo;
pub mod diagnostic;
pub mod engine;
pub mod job;
pub mod journal;
pub mod output;
pub mod pipeline;
pub mod query;
pub mod score;
pub mod source;
pub mod telemetry;
pub mod time;
pub mod udf;
pub mod value;
