//! `forebay:host/state`: what a function remembers from row to row.
//!
//! In: keys and values of guests, rows of an earlier commit. Out: the changes since the last commit. Invariant: a call
//! that fails changes nothing; what is held never passes its limit by a guest's doing; only changed keys are stored.
//! Not here: when that is (`engine::Executor::take`), the table they lie in (`journal`).

use std::collections::BTreeMap;

use wasmtime::component::LinkerInstance;

use super::{CallFailure, Grant, StateRow, lent, refuse};
use crate::udf::instance::GuestState;

/// What an entry costs beside its key and its value, so that a million empty values are not for free.
const ENTRY_BYTES: usize = 64;

/// How much a function may remember, for each statement that calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimits {
    /// all keys and values, and 64 bytes an entry
    pub bytes_max: usize,
    /// one key
    pub key_bytes_max: usize,
}

impl Default for StateLimits {
    /// Some ten thousand counters, which a start reads in milliseconds.
    fn default() -> StateLimits {
        StateLimits { bytes_max: 1 << 20, key_bytes_max: 256 }
    }
}

/// Keys and values, with what the present call and the present commit changed.
#[derive(Debug)]
pub struct KeyValues {
    limits: StateLimits,
    entries: BTreeMap<Box<str>, Box<[u8]>>,
    bytes: usize,
    /// What the call found where it changed something: once a key, so that it is no larger than what is held.
    undo: BTreeMap<Box<str>, Option<Box<[u8]>>>,
    /// Keys changed since the last commit, and whether that holds them; one that came and went is none.
    changed: BTreeMap<Box<str>, bool>,
}

impl KeyValues {
    pub fn new(limits: StateLimits) -> KeyValues {
        KeyValues { limits, entries: BTreeMap::new(), bytes: 0, undo: BTreeMap::new(), changed: BTreeMap::new() }
    }

    fn get(&self, key: &str) -> Option<&[u8]> {
        self.entries.get(key).map(AsRef::as_ref)
    }

    /// # Errors
    /// The limit that it would pass, in words.
    fn set(&mut self, key: &str, value: Vec<u8>) -> Result<(), String> {
        let StateLimits { bytes_max, key_bytes_max } = self.limits;
        if key.len() > key_bytes_max {
            return Err(format!(
                "uses a state key of {} bytes; use shorter ones or raise `state_key_bytes_max` ({key_bytes_max})",
                key.len()
            ));
        }
        let before = self.entries.get(key).map_or(0, |old| cost(key, old));
        let after = self.bytes - before + cost(key, &value);
        // what an earlier setting allowed may shrink
        if after > bytes_max && after > self.bytes {
            return Err(format!(
                "wants to remember {after} bytes; delete what is old or raise `state_bytes_max` ({bytes_max})"
            ));
        }
        self.put(key, Some(value.into()));
        Ok(())
    }

    fn delete(&mut self, key: &str) {
        if self.entries.contains_key(key) {
            self.put(key, None);
        }
    }

    fn put(&mut self, key: &str, value: Option<Box<[u8]>>) {
        let is_gone = value.is_none();
        let old = self.swap(key, value);
        match self.undo.get(key) {
            None => drop(self.undo.insert(key.into(), old)),
            // it came and went in this call
            Some(None) if is_gone => drop(self.undo.remove(key)),
            Some(_) => {}
        }
    }

    fn swap(&mut self, key: &str, value: Option<Box<[u8]>>) -> Option<Box<[u8]>> {
        self.bytes += value.as_ref().map_or(0, |value| cost(key, value));
        let old = match value {
            Some(value) => self.entries.insert(key.into(), value),
            None => self.entries.remove(key),
        };
        self.bytes -= old.as_ref().map_or(0, |old| cost(key, old));
        old
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        let from = self.entries.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        from.take_while(|(key, _)| key.starts_with(prefix)).map(|(key, _)| key.to_string()).collect()
    }

    /// The call went well: what it changed is to be stored.
    pub fn keep(&mut self) {
        for (key, old) in std::mem::take(&mut self.undo) {
            let is_gone = !self.entries.contains_key(&key);
            match self.changed.get(&key) {
                None => drop(self.changed.insert(key, old.is_some())),
                Some(false) if is_gone => drop(self.changed.remove(&key)),
                Some(_) => {}
            }
        }
    }

    /// The call failed: everything is as it was before.
    pub fn take_back(&mut self) {
        for (key, old) in std::mem::take(&mut self.undo) {
            self.swap(&key, old);
        }
    }

    /// The changes since the last time, by key.
    pub fn take(&mut self) -> Vec<StateRow> {
        let changed = std::mem::take(&mut self.changed);
        let row = |(key, stored): (Box<str>, bool)| {
            let value = self.entries.get(&key).map(|value| value.to_vec());
            (stored || value.is_some()).then(|| (key.into_string().into_bytes(), value))
        };
        changed.into_iter().filter_map(row).collect()
    }

    /// Takes an entry of an earlier commit; `false` when the key is no text. The limits do not count: they may have
    /// been lowered since.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> bool {
        std::str::from_utf8(key).is_ok_and(|key| {
            self.swap(key, Some(value.into()));
            true
        })
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cost(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + ENTRY_BYTES
}

pub fn link(linker: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    linker.func_wrap("get", |mut store, (key,): (String,)| {
        let lent = lent(&mut store, Grant::State)?;
        Ok((lent.state.get(&key).map(<[u8]>::to_vec),))
    })?;
    linker.func_wrap("set", |mut store, (key, value): (String, Vec<u8>)| {
        let lent = lent(&mut store, Grant::State)?;
        lent.state.set(&key, value).or_else(|why| refuse(CallFailure::State, why))
    })?;
    linker.func_wrap("delete", |mut store, (key,): (String,)| {
        lent(&mut store, Grant::State)?.state.delete(&key);
        Ok(())
    })?;
    linker.func_wrap("keys", |mut store, (prefix,): (String,)| {
        let lent = lent(&mut store, Grant::State)?;
        Ok((lent.state.keys(&prefix),))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held(values: &KeyValues) -> BTreeMap<String, Vec<u8>> {
        values.entries.iter().map(|(k, v)| (k.to_string(), v.to_vec())).collect()
    }

    #[test]
    fn keys_are_listed_by_prefix_in_order() {
        let mut values = KeyValues::new(StateLimits::default());
        for key in ["b", "ab", "a", "aa", "c"] {
            values.set(key, vec![]).unwrap();
        }
        assert_eq!(values.keys("a"), ["a", "aa", "ab"]);
        assert_eq!(values.keys(""), ["a", "aa", "ab", "b", "c"]);
        assert!(values.keys("d").is_empty());
    }

    #[test]
    fn a_limit_is_said_with_its_setting() {
        let mut values = KeyValues::new(StateLimits { bytes_max: 200, key_bytes_max: 4 });
        values.set("abcd", vec![0; 100]).unwrap();
        assert_eq!(
            values.set("abcde", vec![]).unwrap_err(),
            "uses a state key of 5 bytes; use shorter ones or raise `state_key_bytes_max` (4)"
        );
        assert_eq!(
            values.set("b", vec![]).unwrap_err(),
            "wants to remember 233 bytes; delete what is old or raise `state_bytes_max` (200)"
        );
        values.set("abcd", vec![0; 132]).unwrap();
        assert_eq!(values.bytes(), 200);
        values.delete("abcd");
        assert_eq!(values.bytes(), 0);
    }

    #[test]
    fn what_an_earlier_limit_allowed_may_shrink() {
        let mut values = KeyValues::new(StateLimits { bytes_max: 10, key_bytes_max: 4 });
        assert!(values.load(b"k", &[0; 100]));
        assert!(!values.load(&[0xff], &[]));
        assert!(values.set("k", vec![0; 101]).is_err());
        values.set("k", vec![0; 99]).unwrap();
    }

    #[test]
    fn what_comes_and_goes_leaves_nothing_to_note() {
        let mut values = KeyValues::new(StateLimits::default());
        for i in 0..1000 {
            let key = format!("k{i}");
            values.set(&key, vec![0; 1000]).unwrap();
            values.set(&key, vec![1; 1000]).unwrap();
            values.delete(&key);
        }
        assert!(values.undo.is_empty());
        for i in 0..1000 {
            let key = format!("k{i}");
            values.set(&key, vec![]).unwrap();
            values.keep();
            values.delete(&key);
            values.keep();
        }
        assert!(values.changed.is_empty() && values.take().is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u8, u8),
        Delete(u8),
        End(bool),
        Commit,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..4, any::<u8>()).prop_map(|(k, v)| Step::Set(k, v)),
            2 => (0u8..4).prop_map(Step::Delete),
            2 => any::<bool>().prop_map(Step::End),
            1 => Just(Step::Commit),
        ]
    }

    proptest! {
        /// What commits have stored is what is held; a failed call leaves no trace; a removed row was stored.
        #[test]
        fn commits_hold_what_calls_kept(steps in prop::collection::vec(step(), 0..60)) {
            let mut values = KeyValues::new(StateLimits::default());
            let mut stored: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            let mut before = held(&values);
            for step in steps.into_iter().chain([Step::End(true), Step::Commit]) {
                match step {
                    Step::Set(k, v) => values.set(&format!("k{k}"), vec![v; usize::from(k)]).unwrap(),
                    Step::Delete(k) => values.delete(&format!("k{k}")),
                    Step::End(true) => {
                        values.keep();
                        before = held(&values);
                    }
                    Step::End(false) => {
                        values.take_back();
                        prop_assert_eq!(&held(&values), &before);
                    }
                    Step::Commit => {
                        // commits come between calls
                        values.take_back();
                        for (key, value) in values.take() {
                            match value {
                                Some(value) => drop(stored.insert(key, value)),
                                None => prop_assert!(stored.remove(&key).is_some()),
                            }
                        }
                        let now: BTreeMap<Vec<u8>, Vec<u8>> =
                            held(&values).into_iter().map(|(k, v)| (k.into_bytes(), v)).collect();
                        prop_assert_eq!(&stored, &now);
                    }
                }
                prop_assert!(values.undo.len() <= 8 && values.changed.len() <= 8);
                let bytes: usize = values.entries.iter().map(|(k, v)| cost(k, v)).sum();
                prop_assert_eq!(values.bytes(), bytes);
            }
        }
    }
}
