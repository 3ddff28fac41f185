//! Pauses between two reads of a stream that is neither quiet nor fast.
//!
//! In: what was read, and when the journal commits next. Out: for how long nothing needs to be read. Invariant: nothing
//! that is read after a pause is stored later than without it, and a fast stream has no pauses. Not here: reading.
//!
//! Arrival time is stamped where a message is read, so one that comes during a pause is stamped up to [`PAUSE_MAX`]
//! late.
//!
//! A stream of 200 messages a second would wake the source, the intake and the network's thread for each message, while
//! the journal, to spare a flash card, commits ten times a second. What waits in the socket meanwhile is read at once.

use std::time::Duration;

use tokio::time::Instant;

/// One acknowledgement more or less under way at the broker costs nothing; longer pauses gain little.
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// A shorter one costs as much as it saves.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Behind this number of messages or bytes in one batch there may be more in the socket: the client takes 8 KiB at
/// once.
const BATCH_MAX: usize = 64;
const BYTES_MAX: usize = 4 << 10;
/// Messages in [`SPAN`] from which on the stream is fast.
const SPAN: Duration = Duration::from_millis(100);
const SPAN_MESSAGES_MAX: usize = 1_000;

/// Of one connection.
#[derive(Debug)]
pub(super) struct Lull {
    since: Instant,
    messages: usize,
    is_fast: bool,
}

impl Lull {
    pub fn new(now: Instant) -> Lull {
        Lull { since: now, messages: 0, is_fast: false }
    }

    /// A batch of these was handed over, and the next commit is made in `stored_in`: how long to read nothing.
    pub fn after(&mut self, messages: usize, bytes: usize, stored_in: Duration, now: Instant) -> Option<Duration> {
        self.messages = self.messages.saturating_add(messages);
        if now.duration_since(self.since) >= SPAN {
            self.is_fast = self.messages > SPAN_MESSAGES_MAX;
            (self.since, self.messages) = (now, 0);
        }
        // half of the time, so that what comes in the other half still goes with that commit
        let pause = (stored_in / 2).min(PAUSE_MAX);
        let is_all = messages < BATCH_MAX && bytes < BYTES_MAX;
        (!self.is_fast && self.messages <= SPAN_MESSAGES_MAX && is_all && pause >= PAUSE_MIN).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::task_now;

    const NOW: Duration = Duration::ZERO;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn pauses_end_before_the_commit_and_come_only_where_it_is_stretched() {
        let now = task_now();
        let mut lull = Lull::new(now);
        for (stored_in, pause) in
            [(NOW, None), (ms(3), None), (ms(4), Some(2)), (ms(30), Some(15)), (ms(150), Some(20))]
        {
            assert_eq!(lull.after(1, 200, stored_in, now), pause.map(ms), "{stored_in:?}");
        }
        assert_eq!(lull.after(BATCH_MAX, 200, ms(150), now), None, "there may be more in the socket");
        assert_eq!(lull.after(40, BYTES_MAX, ms(150), now), None, "the client's buffer was full");
    }

    #[test]
    fn a_fast_stream_has_no_pauses_until_it_is_slow_again() {
        let start = task_now();
        let mut lull = Lull::new(start);
        let mut pauses = |from: u64, messages: usize| {
            let batches = (from..from + 200).step_by(10);
            batches.filter(|at| lull.after(messages, 100, ms(150), start + ms(*at)).is_some()).count()
        };
        // 5,000 and 20,000 a second in batches that are not full, then 5,000 again
        assert_eq!(pauses(0, 50), 20);
        let fast = pauses(200, 200) + pauses(400, 200);
        assert_eq!(fast, 0, "the batches are large");
        assert!(pauses(600, 50) > 8, "it takes one span to see it");
        let mut lull = Lull::new(start);
        let small = (0..400).filter(|at| lull.after(20, 100, ms(150), start + ms(*at)).is_some()).count();
        assert!(small <= 51, "20 a millisecond: {small}");
    }
}
