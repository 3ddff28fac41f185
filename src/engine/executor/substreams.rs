//! The operator trees of a part that reads `TIMESTAMP BY … OVER`: one for each substream.
//!
//! In: rows by key. Out: which trees have something to do, and the state that changed. Invariant: a quiet substream is
//! looked at only when something of it is due, and one of which nothing can matter any more is forgotten. Not here:
//! what a step does (`lane`).

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::lane::{Lane, Weight};
use crate::batch::Batch;
use crate::engine::emitted::StateUpdate;
use crate::engine::fault::Fault;
use crate::engine::key::Key;
use crate::engine::options::EngineError;
use crate::value::Value;

/// What a substream costs beside what its operators hold: the operators themselves, roughly.
const LANE_BYTES: usize = 1024;

#[derive(Default)]
pub(super) struct Substreams {
    members: FxHashMap<Key, Member>,
    /// Those that have rows to work off, that changed since the last take, and when something of each is due.
    touched: Vec<Key>,
    unsaved: Vec<Key>,
    due: BTreeSet<(i64, Key)>,
    /// What all of them hold.
    weight: Weight,
}

struct Member {
    lane: Lane,
    touched: bool,
    deadline: Option<i64>,
}

/// The name of a substream as a value, for rows on their way to another part.
pub(super) fn named(key: &[u8]) -> Value {
    Value::text(key.iter().map(|byte| char::from(*byte)).collect::<String>())
}

/// The key that a name was made of. Rows without one, of a pool that an earlier version wrote, are of one substream.
fn key_of(name: Option<&Value>) -> Vec<u8> {
    match name {
        Some(Value::Text(name)) => name.chars().map(|c| u8::try_from(c).unwrap_or_default()).collect(),
        _ => Vec::new(),
    }
}

const NOT_THERE: Fault = Fault("a substream is not there that was noted");

impl Substreams {
    /// The tree of a substream; `make` builds it when its first row comes.
    pub(super) fn lane(
        &mut self,
        key: &[u8],
        make: impl FnOnce() -> Result<Lane, EngineError>,
    ) -> Result<&mut Lane, Fault> {
        Ok(&mut self.member(key, make)?.lane)
    }

    fn member(&mut self, key: &[u8], make: impl FnOnce() -> Result<Lane, EngineError>) -> Result<&mut Member, Fault> {
        if !self.members.contains_key(key) {
            let again = Fault("operators that were built before cannot be built for a further substream");
            let lane = make().map_err(|_| again)?;
            self.weight.bytes += LANE_BYTES;
            self.members.insert(key.into(), Member { lane, touched: false, deadline: None });
        }
        self.members.get_mut(key).ok_or(NOT_THERE)
    }

    /// Moves rows to an inbox of the substream.
    pub(super) fn receive(
        &mut self,
        key: &[u8],
        ingress: usize,
        rows: &mut Batch,
        make: impl FnOnce() -> Result<Lane, EngineError>,
    ) -> Result<(), Fault> {
        let member = self.member(key, make)?;
        member.lane.inbox(ingress, rows.width(), rows.len())?.append(rows);
        if !std::mem::replace(&mut member.touched, true) {
            self.touched.push(key.into());
        }
        Ok(())
    }

    /// Moves rows of a stream to the first inbox of their substreams, which the column `slot` names.
    pub(super) fn receive_rows(
        &mut self,
        rows: &Batch,
        slot: usize,
        make: impl Fn() -> Result<Lane, EngineError>,
    ) -> Result<(), Fault> {
        let mut alone = Batch::new(rows.width());
        let mut found = Ok(());
        for (meta, row) in rows.rows() {
            alone.push(*meta, row.iter().cloned());
            found = found.and(self.receive(&key_of(row.get(slot)), 0, &mut alone, &make));
            alone.clear();
        }
        found
    }

    /// Notes that each of them has something to do.
    pub(super) fn touch_all(&mut self) {
        for (key, member) in &mut self.members {
            if !std::mem::replace(&mut member.touched, true) {
                self.touched.push(key.clone());
            }
        }
    }

    /// Those that have something to do when nothing before `floor` can come, in the order of their keys.
    pub(super) fn active(&mut self, floor: i64) -> Vec<Key> {
        let mut keys = std::mem::take(&mut self.touched);
        while self.due.first().is_some_and(|(deadline, _)| *deadline < floor)
            && let Some((_, key)) = self.due.pop_first()
        {
            keys.push(key);
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Lets one of them work; notes what it holds and when it has to be looked at next.
    pub(super) fn work<T>(&mut self, key: &Key, floor: i64, step: impl FnOnce(&mut Lane) -> T) -> Result<T, Fault> {
        let member = self.members.get_mut(key).ok_or(NOT_THERE)?;
        if !member.lane.unsaved {
            self.unsaved.push(key.clone());
        }
        let result = step(&mut member.lane);
        member.touched = false;
        member.schedule(key, &mut self.due, floor);
        member.weigh(&mut self.weight);
        Ok(result)
    }

    /// When something of one of them is due.
    pub(super) fn deadline(&self) -> Option<i64> {
        self.due.first().map(|(deadline, _)| *deadline)
    }

    pub(super) fn weight(&self) -> Weight {
        self.weight
    }

    /// Writes what changed since the last take, and forgets those in which nothing can matter from `floor` on.
    pub(super) fn changes(&mut self, floor: i64, state: &mut Vec<StateUpdate>) -> Result<(), Fault> {
        let mut keys = std::mem::take(&mut self.unsaved);
        keys.sort_unstable();
        // all of them, whatever one finds
        let mut found = Ok(());
        for key in keys {
            let Some(member) = self.members.get_mut(&key) else {
                found = Err(NOT_THERE);
                continue;
            };
            let tree = &mut member.lane.tree;
            let is_idle = !member.touched && tree.is_idle(floor);
            found = found.and(tree.changes(&key, state));
            if is_idle {
                tree.retire(&key, state);
            }
            member.lane.unsaved = false;
            member.weigh(&mut self.weight);
            if is_idle {
                self.forget(&key);
            }
        }
        found
    }

    /// Writes what changed since the last take, and removes the last rows of all: nothing is open any more.
    pub(super) fn retire(&mut self, state: &mut Vec<StateUpdate>) -> Result<(), Fault> {
        let mut members: Vec<(&Key, &mut Member)> = self.members.iter_mut().collect();
        members.sort_unstable_by_key(|(key, _)| *key);
        members.into_iter().map(|(key, member)| member.lane.retire(key, state)).fold(Ok(()), Result::and)
    }

    fn forget(&mut self, key: &Key) {
        let Some(member) = self.members.remove(key) else { return };
        if let Some(deadline) = member.deadline {
            self.due.remove(&(deadline, key.clone()));
        }
        let gone = member.lane.weight;
        self.weight.bytes = self.weight.bytes.saturating_sub(gone.bytes + LANE_BYTES);
        self.weight.waiting = self.weight.waiting.saturating_sub(gone.waiting);
    }

    /// All stored rows are in.
    pub(super) fn loaded(&mut self) {
        for (key, member) in &mut self.members {
            member.lane.tree.loaded();
            member.schedule(key, &mut self.due, i64::MIN);
            member.touched = false;
            member.weigh(&mut self.weight);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }
}

impl Member {
    /// Notes when it has to be looked at next: when something of it is due, else when it can be forgotten.
    fn schedule(&mut self, key: &Key, due: &mut BTreeSet<(i64, Key)>, floor: i64) {
        let deadline = self.lane.tree.deadline().or_else(|| self.lane.newest().map(|newest| newest.max(floor)));
        if self.deadline != deadline {
            if let Some(old) = self.deadline {
                due.remove(&(old, key.clone()));
            }
            self.deadline = deadline;
        }
        if let Some(deadline) = deadline {
            due.insert((deadline, key.clone()));
        }
    }

    /// Brings the sum over all of them up to date with this one.
    fn weigh(&mut self, sum: &mut Weight) {
        let before = self.lane.weight;
        let now = self.lane.weigh();
        sum.bytes = (sum.bytes + now.bytes).saturating_sub(before.bytes);
        sum.waiting = (sum.waiting + now.waiting).saturating_sub(before.waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::RowMeta;
    use crate::engine::options::ExecutorOptions;
    use crate::query::plan::Node;
    use crate::time::Timestamp;

    fn row() -> Batch {
        let mut rows = Batch::new(1);
        let meta = RowMeta::new(Timestamp::MIN, Timestamp::MIN, 0, 0);
        rows.push(meta, [Value::BigInt(1)]);
        rows
    }

    fn lane(ingresses: usize) -> Result<Lane, EngineError> {
        Lane::new(&Node::Rows { width: 1 }, &ExecutorOptions::default(), ingresses)
    }

    #[test]
    fn a_row_that_no_tree_takes_is_a_fault_and_stays_with_who_brings_it() {
        let mut substreams = Substreams::default();
        let mut rows = row();
        let refused = substreams.receive(b"k", 0, &mut rows, || Err(EngineError::TooManyCalls { max: 1 }));
        assert!(refused.is_err(), "no tree can be built");
        assert!(substreams.receive(b"k", 1, &mut rows, || lane(1)).is_err(), "the tree has one inbox");
        assert_eq!(rows.len(), 1);
        assert_eq!(substreams.receive(b"k", 0, &mut rows, || lane(1)), Ok(()));
        assert!(rows.is_empty());
        assert_eq!(substreams.active(i64::MIN), [Key::from(&b"k"[..])]);
    }

    #[test]
    fn a_key_is_found_again_by_its_name() {
        let keys = [vec![], vec![0, 3, 97, 127], (0..=255).collect()];
        keys.iter().for_each(|key| assert_eq!(key_of(Some(&named(key))), *key));
    }

    #[test]
    fn a_substream_that_was_noted_and_is_not_there_is_a_fault() {
        let mut substreams = Substreams::default();
        assert_eq!(substreams.work(&Key::from(&b"k"[..]), 0, |_| ()), Err(NOT_THERE));
        substreams.unsaved.push(Key::from(&b"k"[..]));
        assert_eq!(substreams.changes(0, &mut Vec::new()), Err(NOT_THERE));
    }
}
