//! To come.

pub mod udf;
