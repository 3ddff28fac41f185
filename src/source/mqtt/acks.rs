//! Which packet ids may be acknowledged now.
//!
//! In: ranges of packet ids in the order they were received, and the news that a range was stored or given up. Out:
//! packet ids to acknowledge. Invariant: ids leave in receive order, each once, and only when their range and all
//! ranges before it are stored (MQTT 5, section 4.6). Not here: connections, locks, sending.

use std::collections::VecDeque;

/// The unacknowledged part of what one connection received.
#[derive(Debug, Default)]
pub struct Acks {
    /// Number of the range at the front of `ranges`.
    first: u64,
    ranges: VecDeque<Range>,
    /// Bytes of ranges that nobody has answered for yet.
    bytes: usize,
    unresolved: usize,
}

#[derive(Debug)]
struct Range {
    packet_ids: Vec<u16>,
    bytes: usize,
    qos0: u64,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unresolved,
    Stored,
    GivenUp,
}

impl Acks {
    /// Adds what was just received: packet ids in receive order, the bytes held until it is resolved, and how many
    /// messages came without a packet id. Gives the number of the range.
    pub fn receive(&mut self, packet_ids: Vec<u16>, bytes: usize, qos0: u64) -> u64 {
        self.ranges.push_back(Range { packet_ids, bytes, qos0, fate: Fate::Unresolved });
        self.bytes += bytes;
        self.unresolved += 1;
        self.first + self.ranges.len() as u64 - 1
    }

    /// The range is durable: appends the ids that may be acknowledged now to `release`.
    pub fn stored(&mut self, number: u64, release: &mut VecDeque<u16>) {
        self.resolve(number, Fate::Stored);
        while self.ranges.front().is_some_and(|r| r.fate == Fate::Stored) {
            if let Some(range) = self.ranges.pop_front() {
                self.first += 1;
                release.extend(range.packet_ids);
            }
        }
    }

    /// The range will never be stored: neither its ids nor any later ones can be acknowledged on this connection.
    /// Gives how many of its messages no broker will send again.
    pub fn given_up(&mut self, number: u64) -> u64 {
        self.resolve(number, Fate::GivenUp).unwrap_or(0)
    }

    fn resolve(&mut self, number: u64, fate: Fate) -> Option<u64> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let range = self.ranges.get_mut(index).filter(|r| r.fate == Fate::Unresolved)?;
        range.fate = fate;
        self.bytes -= range.bytes;
        self.unresolved -= 1;
        Some(range.qos0)
    }

    /// Bytes received and neither stored nor given up.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages received and not yet acknowledged.
    pub fn messages(&self) -> usize {
        self.ranges.iter().map(|range| range.packet_ids.len()).sum()
    }

    /// Ranges received and neither stored nor given up.
    pub fn unresolved(&self) -> usize {
        self.unresolved
    }

    /// Whether a packet id was received and not released: the broker may not use it for another message yet.
    pub fn holds(&self, packet_id: u16) -> bool {
        self.ranges.iter().any(|r| r.packet_ids.contains(&packet_id))
    }

    /// The ids of all ranges that were given up.
    pub fn lost_ids(&self) -> impl Iterator<Item = u16> {
        self.ranges.iter().filter(|r| r.fate == Fate::GivenUp).flat_map(|r| r.packet_ids.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_later_range_waits_for_the_earlier_one() {
        let mut acks = Acks::default();
        let mut out = VecDeque::new();
        let a = acks.receive(vec![1, 2], 10, 0);
        let b = acks.receive(vec![3], 5, 1);
        acks.stored(b, &mut out);
        assert!(out.is_empty());
        assert_eq!((acks.bytes(), acks.unresolved()), (10, 1));
        assert!(acks.holds(3));
        acks.stored(a, &mut out);
        assert_eq!(out, [1, 2, 3]);
        assert!(!acks.holds(3));
    }

    #[test]
    fn what_was_given_up_blocks_everything_behind_it() {
        let mut acks = Acks::default();
        let mut out = VecDeque::new();
        let a = acks.receive(vec![1], 1, 2);
        let b = acks.receive(vec![2], 1, 0);
        assert_eq!(acks.given_up(a), 2);
        assert_eq!(acks.given_up(a), 0, "answered once");
        acks.stored(b, &mut out);
        assert!(out.is_empty());
        assert_eq!(acks.lost_ids().collect::<Vec<_>>(), [1]);
        assert_eq!((acks.bytes(), acks.unresolved()), (0, 0));
    }

    proptest! {
        /// Whatever the order of commits: released ids are a prefix of the received ones, in order, and stored.
        #[test]
        fn acks_leave_in_receive_order(
            sizes in prop::collection::vec(0usize..5, 1..20),
            order in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.9)), 0..40),
        ) {
            let mut acks = Acks::default();
            let mut received = Vec::new();
            let mut numbers = Vec::new();
            for size in &sizes {
                let ids: Vec<u16> = (0..*size).map(|i| (received.len() + i) as u16 + 1).collect();
                received.extend(ids.iter().copied());
                numbers.push((acks.receive(ids.clone(), ids.len(), 0), ids));
            }
            let mut released = VecDeque::new();
            let mut stored = Vec::new();
            let mut resolved = std::collections::BTreeSet::new();
            for (index, is_stored) in order {
                let (number, ids) = &numbers[index.index(numbers.len())];
                if is_stored {
                    acks.stored(*number, &mut released);
                    if resolved.insert(*number) {
                        stored.extend(ids.iter().copied());
                    }
                } else {
                    acks.given_up(*number);
                    resolved.insert(*number);
                }
                prop_assert!(received.iter().zip(&released).all(|(a, b)| a == b));
                prop_assert!(released.iter().all(|id| stored.contains(id)));
            }
            prop_assert_eq!(acks.unresolved(), numbers.len() - resolved.len());
        }
    }
}
