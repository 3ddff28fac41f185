//! To come.

pub mod broker;
