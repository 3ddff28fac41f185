//! Which input each event of a mixed segment came from.
//!
//! In: the inputs of events, in the order of their offsets. Out: runs of events of one input, which lie before the
//! events of a mixed segment, and the inputs again. Invariant: runs are read for exactly as many events as there are.
//! Not here: the events themselves (`events`).

use super::NO_INPUT;
use crate::value::codec::{ByteReader, Damaged, put_varint};

/// The runs of these inputs; what an event builder gives is put behind them.
pub fn put_inputs(inputs: &[u16]) -> Vec<u8> {
    let runs: Vec<&[u16]> = inputs.chunk_by(|a, b| a == b).collect();
    let mut out = Vec::with_capacity(4 + runs.len() * 2);
    put_varint(&mut out, runs.len() as u64);
    for run in runs {
        put_varint(&mut out, u64::from(run.first().copied().unwrap_or(NO_INPUT)));
        put_varint(&mut out, run.len() as u64);
    }
    out
}

/// The runs at the front of a mixed segment: an input and how many events it has there.
pub(super) struct InputRuns(Vec<(u16, u64)>);

impl InputRuns {
    pub fn read(reader: &mut ByteReader<'_>) -> Result<InputRuns, Damaged> {
        let mut runs = Vec::new();
        for _ in 0..reader.length()? {
            let at = reader.position();
            let input = u16::try_from(reader.varint()?).ok().filter(|input| *input != NO_INPUT);
            runs.push((input.ok_or(Damaged { at })?, reader.varint()?));
        }
        Ok(InputRuns(runs))
    }

    /// Gives each event its input.
    pub fn give<'a>(self, mut events: impl Iterator<Item = &'a mut u16>) -> Result<(), Damaged> {
        for (input, count) in self.0 {
            for _ in 0..count {
                *events.next().ok_or(Damaged { at: 0 })? = input;
            }
        }
        if events.next().is_none() { Ok(()) } else { Err(Damaged { at: 0 }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], events: usize) -> Result<Vec<u16>, Damaged> {
        let mut inputs = vec![NO_INPUT; events];
        InputRuns::read(&mut ByteReader::new(bytes))?.give(inputs.iter_mut())?;
        Ok(inputs)
    }

    #[test]
    fn runs_are_read_for_as_many_events_as_there_are() {
        for inputs in [&[1, 1, 2, 1, u16::MAX][..], &[3], &[]] {
            let bytes = put_inputs(inputs);
            assert_eq!(read(&bytes, inputs.len()).unwrap(), inputs);
            assert!(read(&bytes, inputs.len() + 1).is_err(), "an event has no input");
            assert!(inputs.is_empty() || read(&bytes, inputs.len() - 1).is_err(), "an input has no event");
        }
        assert!(read(&[1, 0, 1], 1).is_err(), "no input has the number 0");
        assert!(read(&[1, 1], 1).is_err() && read(&[9], 0).is_err(), "cut off");
        let endless = [&[1, 1][..], &[0xff; 9], &[1]].concat();
        assert!(read(&endless, 5).is_err());
    }
}
