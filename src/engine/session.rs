//! Session windows: rows until a pause, cut at checkpoints when they last too long.
//!
//! In: rows in time order. Out: a result for each group of a session when it ends. Invariant: a session ends at its
//! last row plus the timeout, or at the first multiple of the longest duration that lies at least that long behind its
//! start; what follows a cut starts at the cut. Not here: evaluation of keys.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::accumulate::Acc;
use super::fault::{Fault, Unloadable};
use super::group::Group;
use super::key::{Key, put_key};
use super::prepared::PreparedRow;
use super::state::{Loaded, StateWriter};
use crate::batch::RowMeta;
use crate::query::plan::{Aggregate, SessionKey};
use crate::value::Value;
use crate::value::codec::{ByteReader, Damaged, put_bytes, put_signed};

const SESSION: u8 = 3;
const GROUP: u8 = 4;

#[derive(Debug)]
pub(super) struct Sessions {
    timeout: i64,
    max_duration: i64,
    partition_by: Vec<SessionKey>,
    sessions: FxHashMap<Key, OpenSession>,
    /// When each session ends if no row comes.
    ends: BTreeSet<(i64, Key)>,
    changed: Vec<Key>,
    /// Groups and sessions whose state rows go.
    gone: Vec<(Key, Option<Key>)>,
    scratch: Vec<u8>,
    /// What sessions and groups hold; groups as of the last commit.
    bytes: usize,
}

/// What a session costs beside its groups, its place among the ends too.
const SESSION_BYTES: usize = 2 * size_of::<(Key, OpenSession)>() + 48;

#[derive(Debug, Default)]
struct OpenSession {
    start: i64,
    last: i64,
    groups: FxHashMap<Key, Group>,
    dirty: bool,
    stored: bool,
}

impl Sessions {
    pub(super) fn new(timeout: i64, max_duration: i64, partition_by: Vec<SessionKey>) -> Sessions {
        Sessions {
            timeout: timeout.max(1),
            max_duration: max_duration.max(1),
            partition_by,
            sessions: FxHashMap::default(),
            ends: BTreeSet::new(),
            changed: Vec::new(),
            gone: Vec::new(),
            scratch: Vec::new(),
            bytes: 0,
        }
    }

    fn end_of(&self, session: &OpenSession) -> i64 {
        let quiet = session.last.saturating_add(self.timeout);
        if session.groups.is_empty() {
            return quiet;
        }
        quiet.min(self.checkpoint(session.start))
    }

    /// The first multiple of the longest duration at least that long after `start`.
    fn checkpoint(&self, start: i64) -> i64 {
        let from = start.saturating_add(self.max_duration);
        (from.div_euclid(self.max_duration) + i64::from(from.rem_euclid(self.max_duration) > 0))
            .saturating_mul(self.max_duration)
    }

    pub(super) fn add(&mut self, aggregates: &[Aggregate], meta: &RowMeta, row: &PreparedRow) -> Result<(), Fault> {
        let mut key = std::mem::take(&mut self.scratch);
        self.put_session_key(&mut key, row);
        let time = meta.time.ticks();
        match self.sessions.get(key.as_slice()) {
            Some(session) => drop(self.ends.remove(&(self.end_of(session), key.as_slice().into()))),
            None => {
                self.bytes += SESSION_BYTES;
                self.sessions
                    .insert(key.as_slice().into(), OpenSession { start: time, last: time, ..OpenSession::default() });
            }
        }
        let entered = self.enter(&key, aggregates, meta, row);
        self.reschedule(&key);
        self.scratch = key;
        entered
    }

    fn enter(&mut self, key: &[u8], aggregates: &[Aggregate], meta: &RowMeta, row: &PreparedRow) -> Result<(), Fault> {
        let time = meta.time.ticks();
        let session = self.sessions.get_mut(key).ok_or(Fault("a session is not there that a row has opened"))?;
        if session.groups.is_empty() {
            // every checkpoint since the cut has cut again, with nothing to give
            session.start =
                session.start.max((time - 1).div_euclid(self.max_duration).saturating_mul(self.max_duration));
        }
        session.last = time;
        if !std::mem::replace(&mut session.dirty, true) {
            self.changed.push(key.into());
        }
        let group = match session.groups.get_mut(row.key.as_slice()) {
            Some(group) => group,
            None => {
                let group = session.groups.entry(row.key.as_slice().into());
                let group = group.or_insert_with(|| Group::new(aggregates, *meta, &row.keys));
                group.weight = group.bytes();
                self.bytes += group.weight;
                group
            }
        };
        group.dirty = true;
        group.add(aggregates, meta, &row.args)
    }

    /// An accumulator of the group that a row will enter, if it has begun.
    pub(super) fn acc_mut(&mut self, row: &PreparedRow, place: usize) -> Option<&mut Acc> {
        let mut key = std::mem::take(&mut self.scratch);
        self.put_session_key(&mut key, row);
        let group =
            self.sessions.get_mut(key.as_slice()).and_then(|session| session.groups.get_mut(row.key.as_slice()));
        self.scratch = key;
        group?.accs.get_mut(place)
    }

    fn put_session_key(&self, key: &mut Vec<u8>, row: &PreparedRow) {
        key.clear();
        for i in &self.partition_by {
            if let Some(value) = row.keys.get(*i) {
                put_key(key, value);
            }
        }
    }

    fn reschedule(&mut self, key: &[u8]) {
        if let Some(session) = self.sessions.get(key) {
            self.ends.insert((self.end_of(session), key.into()));
        }
    }

    pub(super) fn next_end(&self) -> Option<i64> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Ends the first session, whose end is `end`.
    pub(super) fn close(&mut self, end: i64, mut put: impl FnMut(&RowMeta, &[Value], &[Acc])) -> Result<(), Fault> {
        let (_, key) = self.ends.pop_first().ok_or(Fault("a session ends that has no end"))?;
        let mut session = self.sessions.remove(&key).ok_or(Fault("a session ends that is not there"))?;
        // in the order of their first rows, so results do not depend on hashing
        let mut groups: Vec<_> = session.groups.iter().collect();
        groups.sort_unstable_by_key(|(key, g)| (g.first.time, g.first.offset, g.first.ordinal, *key));
        groups.iter().for_each(|(_, group)| put(&group.newest, &group.keys, &group.accs));
        let weight = session.groups.values().map(|g| g.weight).sum::<usize>() + SESSION_BYTES;
        self.bytes = self.bytes.saturating_sub(weight);
        let stored = session.groups.drain().filter(|(_, g)| g.stored);
        self.gone.extend(stored.map(|(group, _)| (key.clone(), Some(group))));
        if end < session.last.saturating_add(self.timeout) {
            // cut: what still belongs to the session starts here
            session.start = end;
            if !session.dirty {
                session.dirty = true;
                self.changed.push(key.clone());
            }
            self.bytes += SESSION_BYTES;
            self.sessions.insert(key.clone(), session);
            self.reschedule(&key);
        } else if session.stored {
            self.gone.push((key, None));
        }
        Ok(())
    }

    pub(super) fn changes(&mut self, window: u8, writer: &mut StateWriter<'_>) -> Result<(), Fault> {
        let session_key = |key: &[u8]| {
            let mut rest = vec![window];
            put_bytes(&mut rest, key);
            rest
        };
        let group_key = |key: &[u8], group: &[u8]| {
            let mut rest = session_key(key);
            rest.extend_from_slice(group);
            rest
        };
        for (key, group) in self.gone.drain(..) {
            match group {
                Some(group) => writer.put(GROUP, &group_key(&key, &group), None),
                None => writer.put(SESSION, &session_key(&key), None),
            }
        }
        for key in self.changed.drain(..) {
            // one that has ended since is gone
            let Some(session) = self.sessions.get_mut(&key) else { continue };
            session.dirty = false;
            session.stored = true;
            let mut value = Vec::new();
            put_signed(&mut value, session.start);
            put_signed(&mut value, session.last);
            writer.put(SESSION, &session_key(&key), Some(value));
            for (id, group) in session.groups.iter_mut().filter(|(_, g)| g.dirty) {
                group.dirty = false;
                group.stored = true;
                let weight = group.bytes();
                self.bytes = (self.bytes + weight).saturating_sub(group.weight);
                group.weight = weight;
                writer.put(GROUP, &group_key(&key, id), Some(group.write()));
            }
        }
        Ok(())
    }

    pub(super) fn load(
        &mut self,
        aggregates: &[Aggregate],
        loaded: &Loaded<'_>,
        rest: &[u8],
    ) -> Result<(), Unloadable> {
        let mut reader = ByteReader::new(rest);
        let key = reader.bytes()?;
        if !self.sessions.contains_key(key) {
            self.bytes += SESSION_BYTES;
        }
        let session = self.sessions.entry(key.into()).or_default();
        if loaded.kind == SESSION {
            let mut reader = ByteReader::new(loaded.value);
            session.start = reader.signed()?;
            session.last = reader.signed()?;
            session.stored = true;
            return Ok(());
        }
        let mut before = Vec::new();
        put_bytes(&mut before, key);
        let id = rest.get(before.len()..).ok_or(Damaged { at: 0 })?;
        let mut group = Group::read(aggregates, loaded.value)?;
        group.weight = group.bytes();
        self.bytes += group.weight;
        session.groups.insert(id.into(), group);
        Ok(())
    }

    /// Finds the ends of loaded sessions again.
    pub(super) fn loaded(&mut self) {
        let keys: Vec<Key> = self.sessions.keys().cloned().collect();
        keys.iter().for_each(|key| self.reschedule(key));
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.gone.is_empty()
    }
}
