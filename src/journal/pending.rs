//! Segments that are in the redo log and not yet in the SQLite file.
//!
//! In: sealed segments of group commits. Out: the one at an offset, for readers that are behind the tail in memory.
//! Invariant: those of a stream follow each other without a gap, and lie behind all that the file has of it. Not here:
//! decoding, and what else the log holds (`changes`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::segment::Sealed;

#[derive(Debug, Default)]
pub(super) struct Pending {
    streams: BTreeMap<u32, VecDeque<Arc<Sealed>>>,
    bytes: usize,
}

/// Where a reader finds what is at an offset.
#[derive(Debug, PartialEq)]
pub(super) enum Whereabouts {
    Here(Arc<Sealed>),
    /// In the file, if anywhere; what follows in the log begins at this offset.
    File {
        end: Option<i64>,
    },
}

impl Pending {
    pub fn extend(&mut self, sealed: Vec<Sealed>) {
        for sealed in sealed {
            self.bytes += sealed.bytes();
            self.streams.entry(sealed.head.stream).or_default().push_back(Arc::new(sealed));
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The streams of which something is here.
    pub fn streams(&self) -> impl Iterator<Item = u32> {
        self.streams.keys().copied()
    }

    /// In the order of streams and offsets.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Sealed>> {
        self.streams.values().flatten()
    }

    /// Those of one stream, in order.
    pub fn of(&self, stream: u32) -> impl Iterator<Item = &Arc<Sealed>> {
        self.streams.get(&stream).into_iter().flatten()
    }

    pub fn place(&self, stream: u32, offset: i64) -> Whereabouts {
        let Some(segments) = self.streams.get(&stream) else { return Whereabouts::File { end: None } };
        let behind = segments.partition_point(|sealed| sealed.head.first <= offset);
        match behind.checked_sub(1).and_then(|i| segments.get(i)).filter(|sealed| sealed.end() > offset) {
            Some(sealed) => Whereabouts::Here(sealed.clone()),
            None => Whereabouts::File { end: segments.get(behind).map(|sealed| sealed.head.first) },
        }
    }

    /// The file has taken over everything.
    pub fn clear(&mut self) {
        *self = Pending::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::segment::{Draft, Sealer, SegmentKind};

    #[test]
    fn a_reader_finds_what_is_here_and_how_far_the_file_goes() {
        let mut pending = Pending::default();
        let sealed = |stream, first, count| {
            let kind = if stream > 0 { SegmentKind::Rows } else { SegmentKind::Events };
            Sealer::new().seal(Draft { stream, first, input: 1, count, arrival: 0, raw: b"raw", kind })
        };
        pending.extend(vec![sealed(0, 10, 5), sealed(1, 0, 1), sealed(0, 15, 1)]);
        let place = |stream, offset| match pending.place(stream, offset) {
            Whereabouts::Here(sealed) => Ok(sealed.head.first),
            Whereabouts::File { end } => Err(end),
        };
        assert_eq!(place(0, 9), Err(Some(10)));
        assert_eq!((place(0, 10), place(0, 14), place(0, 15), place(0, 16)), (Ok(10), Ok(10), Ok(15), Err(None)));
        assert_eq!((place(1, 0), place(1, 1), place(2, 0)), (Ok(0), Err(None), Err(None)));
        assert_eq!(pending.of(0).count(), 2);
        pending.clear();
        assert_eq!((pending.iter().count(), pending.bytes()), (0, 0));
    }
}
