//! `AnomalyDetection_SpikeAndDip` and `AnomalyDetection_ChangePoint`: what is unusual against a key's own past.
//!
//! In: numbers by key in time order. Out: the record `{IsAnomaly, Score}` for each. Invariant: a result depends on the
//! values held alone, the last `history` of the key within the duration, and is computed from them anew each time: sums
//! are not carried on, so a restart changes no bit. Not here: evaluation of arguments (`analytic`); missing samples,
//! which are not made up: a repeated value is no evidence, and the methods need no even spacing.

mod change_point;
mod density;
mod past;
mod spike;

#[cfg(test)]
mod tests;

use rustc_hash::FxHashMap;

use self::change_point::{evidence, rank};
use self::past::{LearnedValue, Past};
use super::fault::{Fault, Unloadable};
use super::state::{Loaded, StateWriter};
use crate::query::plan::SpikeMode;
use crate::value::codec::{ByteReader, put_bytes};
use crate::value::{Record, SmolStr, Value};

/// Before anything is known nothing is unusual: a chance of 1, and a capital of 1.
const SCORE_AT_FIRST: f64 = 1.0;

#[derive(Debug)]
pub(super) struct Detector {
    /// Kind byte of its state rows.
    kind: u8,
    method: Detection,
    /// The chance of a false alarm that is allowed: what the confidence leaves.
    risk: f64,
    /// Values that are learned from.
    history: usize,
    /// Ticks after which a value is forgotten.
    limit: i64,
    keys: FxHashMap<Box<[u8]>, Past>,
    changed: Vec<Box<[u8]>>,
    /// Values held, of all keys, and bytes of the keys.
    values: usize,
    key_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
enum Detection {
    Spike(SpikeMode),
    ChangePoint,
}

impl Detector {
    /// `mode`: looks for spikes or dips; without it for change points. `confidence`: percent. `limit`: ticks.
    pub(super) fn new(kind: u8, mode: Option<SpikeMode>, confidence: f64, history: usize, limit: i64) -> Detector {
        let method = mode.map_or(Detection::ChangePoint, Detection::Spike);
        let risk = (100.0 - confidence) / 100.0;
        Detector {
            kind,
            method,
            risk,
            history: history.max(1),
            limit,
            keys: FxHashMap::default(),
            changed: Vec::new(),
            values: 0,
            key_bytes: 0,
        }
    }

    /// The result for a value, which is then learned if it `matches`. A missing value (NULL) is neither judged nor
    /// learned.
    pub(super) fn observe(&mut self, key: &[u8], time: i64, value: Option<f64>, matches: bool) -> Value {
        // minus zero is zero
        let Some(x) = value.map(|x| x + 0.0) else { return result(false, Value::Null) };
        let past = match self.keys.get_mut(key) {
            Some(past) => past,
            None if !matches => return result(false, Value::Float(SCORE_AT_FIRST)),
            None => {
                self.key_bytes += key.len();
                self.keys.entry(key.into()).or_default()
            }
        };
        let before = past.len();
        while past.front().is_some_and(|sample| time.saturating_sub(sample.time) >= self.limit) {
            past.pop_front();
        }
        let (alarm, score, rank) = match self.method {
            Detection::Spike(_) if past.len() < spike::enough(self.risk).min(self.history) => {
                (false, SCORE_AT_FIRST, None)
            }
            Detection::Spike(mode) => {
                let (alarm, chance) = spike::judge(past.sorted(), x, mode, self.risk);
                (alarm, chance, None)
            }
            Detection::ChangePoint => {
                let rank = matches.then(|| rank(past.sorted(), x));
                let own = rank.map(|rank| LearnedValue::new(time, x, Some(rank)));
                let newest_first = own.iter().chain(past.newest_first()).take(self.history);
                let evidence = evidence(newest_first.map(|sample| sample.bets));
                (evidence * self.risk >= 1.0, evidence, rank)
            }
        };
        if matches {
            past.push(LearnedValue::new(time, x, rank));
            while past.len() > self.history {
                past.pop_front();
            }
        }
        self.values = (self.values + past.len()).saturating_sub(before);
        if !past.dirty {
            past.dirty = true;
            self.changed.push(key.into());
        }
        result(alarm, Value::Float(score))
    }

    /// Values held, of all keys.
    pub(super) fn len(&self) -> usize {
        self.values
    }

    /// Lets go of what is too old at this watermark.
    pub(super) fn forget(&mut self, watermark: i64) {
        for (key, past) in &mut self.keys {
            let before = past.len();
            while past.front().is_some_and(|sample| watermark.saturating_sub(sample.time) >= self.limit) {
                past.pop_front();
            }
            self.values = self.values.saturating_sub(before - past.len());
            if past.len() < before && !past.dirty {
                past.dirty = true;
                self.changed.push(key.clone());
            }
        }
    }

    pub(super) fn changes(&mut self, writer: &mut StateWriter<'_>) -> Result<(), Fault> {
        let mut found = Ok(());
        for key in self.changed.drain(..) {
            let Some(past) = self.keys.get_mut(&key) else {
                found = Err(Fault("a key of a detector changed that is not there"));
                continue;
            };
            let mut rest = Vec::with_capacity(key.len() + 8);
            put_bytes(&mut rest, &key);
            past.changes(self.kind, &rest, writer);
            if past.len() == 0 {
                self.key_bytes = self.key_bytes.saturating_sub(key.len());
                self.keys.remove(&key);
            }
        }
        found
    }

    pub(super) fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Unloadable> {
        let key = ByteReader::new(loaded.rest).bytes()?;
        Ok(self.keys.entry(key.into()).or_default().load(loaded.value)?)
    }

    /// All stored rows are in.
    pub(super) fn loaded(&mut self) {
        self.keys.values_mut().for_each(|past| past.settle(self.history));
        self.values = self.keys.values().map(Past::len).sum();
        self.key_bytes = self.keys.keys().map(|key| key.len()).sum();
    }

    /// About how many bytes are held.
    pub(super) fn bytes(&self) -> usize {
        self.keys.len() * size_of::<Past>() + self.values * past::SAMPLE_BYTES + self.key_bytes
    }
}

fn result(alarm: bool, score: Value) -> Value {
    let fields = vec![
        (SmolStr::new_static("IsAnomaly"), Value::BigInt(i64::from(alarm))),
        (SmolStr::new_static("Score"), score),
    ];
    Value::record(Record::from_unique(fields))
}
