//! `forebay:host/clock`: the event time of the row.
//!
//! Invariant: no machine's clock is read, so a replay finds the same time. Not here: time policies (`engine`).

use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower};

use super::{Grant, lent};
use crate::udf::instance::GuestState;

#[derive(Clone, Copy, Debug, ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    #[component(name = "ticks-since-year-one")]
    ticks_since_year_one: i64,
}

pub fn link(linker: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    linker.func_wrap("now", |mut store, ()| {
        let at = lent(&mut store, Grant::Clock)?.at;
        Ok((Datetime { ticks_since_year_one: at.ticks() },))
    })
}
