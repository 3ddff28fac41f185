//! The state of an executor: what a start takes back, and what is left of it when an era begins.
//!
//! In: rows of state; the word that arrival time was set back. Out: an executor as it was at a commit, or one that
//! begins anew. Invariant: a row of state that belongs to nobody is an error, and what an era held leaves no row
//! behind. Not here: what changed since the last take (`executor`).

use super::lane::Lane;
use super::output::IDS;
use super::substreams::Substreams;
use super::{Executor, FUNCTIONS, Trees};
use crate::engine::emitted::StateUpdate;
use crate::engine::env::StepOrigin;
use crate::engine::fault::{Fault, Unloadable};
use crate::engine::options::EngineError;
use crate::engine::state::Loaded;
use crate::time::Timestamp;
use crate::value::codec::{ByteReader, Damaged, put_varint};

/// The state row that says which era the executor is in; there is none in the first. (The pipeline has one of its own
/// below the functions'.)
const ERA: u32 = u32::MAX - 3;

impl Executor {
    /// Takes back the state of a commit, before anything is pushed.
    ///
    /// # Errors
    /// A row is damaged.
    pub fn load_state<'a>(
        &mut self,
        rows: impl IntoIterator<Item = (u32, &'a [u8], &'a [u8])>,
    ) -> Result<(), EngineError> {
        for (op, key, value) in rows {
            self.load_row(op, key, value).map_err(|why| EngineError::unloadable(op, why))?;
        }
        match &mut self.trees {
            Trees::One(lane) => {
                lane.tree.loaded();
                lane.weigh();
            }
            Trees::BySubstream(substreams) => substreams.loaded(),
        }
        Ok(())
    }

    fn load_row(&mut self, op: u32, key: &[u8], value: &[u8]) -> Result<(), Unloadable> {
        match op {
            IDS => return Ok(self.output.load(value)?),
            ERA => {
                self.era = u32::try_from(ByteReader::new(value).varint()?).map_err(|_| Damaged { at: 0 })?;
                self.taken_era = self.era;
                return Ok(());
            }
            FUNCTIONS => {
                return match (&mut self.env.functions, self.remembers) {
                    (Some(functions), true) => Ok(functions.load_state(key, value)?),
                    // rows of a function that is called no more stay where they are
                    _ => Ok(()),
                };
            }
            _ => {}
        }
        let loaded = Loaded::parse(key, value)?;
        let lane = match &mut self.trees {
            Trees::One(lane) if loaded.substream.is_empty() => lane,
            // the row is of a substream, and there are none
            Trees::One(_) => return Err(Damaged { at: 0 }.into()),
            Trees::BySubstream(substreams) => {
                let inboxes = self.ingresses.len().max(1);
                let make = || Lane::new(&self.root, &self.env.options, inboxes);
                substreams.lane(loaded.substream, make)?
            }
        };
        lane.tree.load(op, &loaded)
    }

    /// Which era of arrival time it is in; 0 before that was ever set back.
    pub fn era(&self) -> u32 {
        self.era
    }

    /// Arrival time was set back: what comes from here on is of this era, and has nothing to do with what came before.
    /// Everything that is open closes as at the end of the input, rows that wait come out, and event time begins anew.
    /// Ids go on, and so does what functions remember.
    pub fn begin_era(&mut self, era: u32) {
        if self.env.stopped.is_some() || era <= self.era {
            return;
        }
        self.finish();
        let mut state = Vec::new();
        let left = match &mut self.trees {
            Trees::One(lane) => lane.retire(b"", &mut state),
            Trees::BySubstream(substreams) => substreams.retire(&mut state),
        };
        let fresh = match &self.trees {
            Trees::One(_) => {
                Lane::new(&self.root, &self.env.options, self.ingresses.len()).map(|lane| Trees::One(Box::new(lane)))
            }
            Trees::BySubstream(_) => Ok(Trees::BySubstream(Substreams::default())),
        };
        let again = Fault("operators that were built before cannot be built for a further era");
        match left.and(fresh.map_err(|_| again)) {
            Ok(trees) => self.trees = trees,
            Err(fault) => self.env.report(&StepOrigin::default(), fault),
        }
        // a part without state learns it by its position, which may lie before the era: rows of before may be open
        if self.root.is_stateful() || self.remembers {
            let mut value = Vec::new();
            put_varint(&mut value, u64::from(era));
            state.push(StateUpdate { op: ERA, key: Vec::new(), value: Some(value) });
        }
        self.of_former.append(&mut state);
        self.era = era;
        self.now = Timestamp::MIN.ticks();
        self.rows_watermark = i64::MIN;
        self.watermark = i64::MIN;
    }
}
