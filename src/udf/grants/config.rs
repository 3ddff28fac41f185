//! `forebay:host/config`: settings of the function in the job file.
//!
//! Invariant: a function sees its own settings alone; values that are secrets are shown to the guest and to nobody
//! else.

use secrecy::ExposeSecret;
use wasmtime::component::LinkerInstance;

use super::{Grant, lent};
use crate::udf::instance::GuestState;

pub fn link(linker: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    linker.func_wrap("get", |mut store, (key,): (String,)| {
        let lent = lent(&mut store, Grant::Config)?;
        let value = lent.granted.grants.config.as_ref().and_then(|config| config.get(&key));
        Ok((value.map(|value| value.expose_secret().to_owned()),))
    })?;
    linker.func_wrap("keys", |mut store, ()| {
        let lent = lent(&mut store, Grant::Config)?;
        let keys: Vec<String> = lent.granted.grants.config.iter().flat_map(|config| config.keys().cloned()).collect();
        Ok((keys,))
    })
}
