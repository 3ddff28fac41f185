//! Accumulators as stored bytes.
//!
//! In: an accumulator. Out: bytes, and back. Invariant: what was written reads back equal. Not here: the rows of state
//! that hold them.

use super::Acc;
use crate::engine::share::GuestRows;
use crate::engine::state::{put_values, read_values};
use crate::query::plan::Aggregate;
use crate::value::codec::{ByteReader, Damaged, put_bytes, put_signed, put_varint};

/// In place of `floats_seen` where the sum of huge floats follows, which is nearly never.
const SUM_WITH_HUGE: u8 = 2;

impl Acc {
    pub(in crate::engine) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Acc::Count(n) => put_signed(out, *n),
            Acc::Sum { whole, floats, huge, count, floats_seen } => {
                out.extend_from_slice(&whole.to_le_bytes());
                out.extend_from_slice(&floats.to_le_bytes());
                put_varint(out, *count);
                out.push(if *huge == 0.0 { u8::from(*floats_seen) } else { SUM_WITH_HUGE });
                if *huge != 0.0 {
                    out.extend_from_slice(&huge.to_le_bytes());
                }
            }
            Acc::Extreme(value) => put_values(out, std::slice::from_ref(value)),
            Acc::Moments { count, mean, squares } => {
                put_varint(out, *count);
                out.extend_from_slice(&mean.to_le_bytes());
                out.extend_from_slice(&squares.to_le_bytes());
            }
            Acc::Values(values) => put_values(out, values),
            Acc::Top(best) => {
                put_varint(out, best.len() as u64);
                for (order, value) in best {
                    put_values(out, order);
                    put_values(out, std::slice::from_ref(value));
                }
            }
            Acc::Distinct(seen) => {
                put_varint(out, seen.len() as u64);
                for (key, value) in seen {
                    put_bytes(out, key);
                    put_values(out, std::slice::from_ref(value));
                }
            }
            // groups with several shares are made for a window that ends, and never stored
            Acc::User(shares) => shares.iter().for_each(|share| share.write(out)),
        }
    }

    pub(in crate::engine) fn read(aggregate: &Aggregate, reader: &mut ByteReader<'_>) -> Result<Acc, Damaged> {
        let one = |reader: &mut ByteReader<'_>| read_values(reader)?.pop().ok_or(Damaged { at: 0 });
        let float = |reader: &mut ByteReader<'_>| Ok::<_, Damaged>(f64::from_le_bytes(array(reader.take(8)?)?));
        Ok(match Acc::new(aggregate) {
            Acc::Count(_) => Acc::Count(reader.signed()?),
            Acc::Sum { .. } => {
                let (whole, floats) = (i128::from_le_bytes(array(reader.take(16)?)?), float(reader)?);
                let (count, seen) = (reader.varint()?, reader.byte()?);
                let huge = if seen == SUM_WITH_HUGE { float(reader)? } else { 0.0 };
                Acc::Sum { whole, floats, huge, count, floats_seen: seen != 0 }
            }
            Acc::Extreme(_) => Acc::Extreme(one(reader)?),
            Acc::Moments { .. } => {
                Acc::Moments { count: reader.varint()?, mean: float(reader)?, squares: float(reader)? }
            }
            Acc::Values(_) => Acc::Values(read_values(reader)?),
            Acc::Top(_) => {
                let n = reader.length()?;
                Acc::Top((0..n).map(|_| Ok((read_values(reader)?, one(reader)?))).collect::<Result<_, Damaged>>()?)
            }
            Acc::Distinct(_) => {
                let n = reader.length()?;
                Acc::Distinct(
                    (0..n).map(|_| Ok((reader.bytes()?.to_vec(), one(reader)?))).collect::<Result<_, Damaged>>()?,
                )
            }
            Acc::User(_) => Acc::User(vec![GuestRows::read(reader)?]),
        })
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Damaged> {
    bytes.try_into().map_err(|_| Damaged { at: 0 })
}
