//! Arrival time: what a job takes for the present moment when it stamps events and closes windows.
//!
//! In: both hands of the machine's clock, and how far arrival time had come before. Out: an [`ArrivalTime`]: a moment,
//! and whether the clock that gave it is trusted. Invariant: arrival time never goes back and never stands still while
//! monotonic time passes; a trusted one lies within [`SLACK`] of the wall clock. Not here: event time (`engine`), how
//! old records are (`journal::ages`), who stores how far it came (`journal`).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::time::{Clock, TICKS_PER_SECOND, Timestamp};

/// No wall clock that tells less is right: the compiler that this version needs was made then (2026-04-16).
pub const BUILT: Timestamp = Timestamp::from_unix_seconds(1_776_297_600);
/// The wall clock may differ this much from what is expected without being set: beyond it, it jumped.
const NEAR: i64 = 300 * TICKS_PER_SECOND;
/// Arrival time may be ahead of a trusted clock by this much: the late tolerance by default, so that an event of a
/// device whose clock is right is not late by our clock alone.
const SLACK: i64 = 5 * TICKS_PER_SECOND;
/// What the wall clock may gain or lose on the monotonic one between two looks and still run in step.
const STEP: i64 = TICKS_PER_SECOND;
/// A clock that jumped ahead is trusted when it has run in step for so long.
const STEADY: Duration = Duration::from_secs(60);
/// The same where it was wrong from the start on: a correction is what one waits for then.
const STEADY_AT_START: Duration = Duration::from_secs(10);

/// A moment of arrival time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrivalTime {
    pub at: Timestamp,
    /// The wall clock said so; else monotonic time carried on from what was known.
    pub is_trusted: bool,
}

impl ArrivalTime {
    /// By a clock that is trusted.
    pub fn trusted(at: Timestamp) -> ArrivalTime {
        ArrivalTime { at, is_trusted: true }
    }
}

/// What is wrong with the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// It tells a time before [`BUILT`].
    BeforeBuilt,
    /// It is behind by more than [`NEAR`].
    Behind,
    /// It is behind by less, and arrival time waits for it at half speed.
    CatchingUp,
    /// It jumped ahead by more than [`NEAR`].
    Ahead,
}

/// What a person is told of the clock.
#[derive(Clone, Debug, PartialEq)]
pub struct ClockStatus {
    /// What is wrong, what the job does and what helps; `None` while the clock is trusted.
    pub trouble: Option<String>,
    /// The wall clock minus arrival time.
    pub offset_seconds: f64,
}

/// The one arrival clock of a running job; clones are the same clock. Sources stamp by it, and consumers let time pass
/// by it.
#[derive(Clone, Debug)]
pub struct ArrivalClock(Arc<ClockHands>);

#[derive(Debug)]
struct ClockHands {
    clock: Clock,
    hands: Mutex<Hands>,
}

/// As of the last look.
#[derive(Clone, Copy, Debug)]
struct Hands {
    arrival: Timestamp,
    wall: Timestamp,
    monotonic: Instant,
    /// Since when the wall clock has run in step with the monotonic one.
    steady: Instant,
    doubt: Option<Doubt>,
    /// The doubt is there since the start.
    is_since_start: bool,
}

impl ArrivalClock {
    /// `last`: how far arrival time had come when the job last ran; the first moment of all for a new pool. No wall
    /// clock can be compared with what it was before the start, so one that is ahead of `last` is trusted.
    pub fn new(clock: Clock, last: Timestamp) -> ArrivalClock {
        let (wall, monotonic) = (clock.now(), clock.monotonic());
        let floor = last.max(if wall < BUILT { BUILT } else { Timestamp::MIN });
        let arrival = floor.max(wall);
        let doubt = doubt(wall, wall.ticks() - arrival.ticks(), true);
        let hands = Hands { arrival, wall, monotonic, steady: monotonic, doubt, is_since_start: true };
        if let Some(doubt) = doubt {
            warn(doubt, hands);
        }
        ArrivalClock(Arc::new(ClockHands { clock, hands: Mutex::new(hands) }))
    }

    /// The present moment. What changes in the clock is logged by whoever looks first.
    pub fn now(&self) -> ArrivalTime {
        let hands = self.look();
        ArrivalTime { at: hands.arrival, is_trusted: hands.doubt.is_none() }
    }

    pub fn status(&self) -> ClockStatus {
        let hands = self.look();
        let offset = hands.wall.ticks() - hands.arrival.ticks();
        ClockStatus {
            trouble: hands.doubt.map(|doubt| doubt.told(hands)),
            offset_seconds: offset as f64 / TICKS_PER_SECOND as f64,
        }
    }

    fn look(&self) -> Hands {
        let mut hands = self.0.hands.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *hands;
        let (wall, monotonic) = (self.0.clock.now(), self.0.clock.monotonic());
        let passed = ticks(monotonic.saturating_duration_since(before.monotonic));
        let stepped = wall.ticks() - before.wall.ticks() - passed;
        let expected = before.arrival.saturating_add(passed);
        let ahead = wall.ticks() - expected.ticks();
        hands.wall = wall;
        hands.monotonic = monotonic.max(before.monotonic);
        if stepped.abs() > STEP {
            hands.steady = hands.monotonic;
        }
        let needed = if before.is_since_start { STEADY_AT_START } else { STEADY };
        let is_steady = before.doubt.is_some() && hands.monotonic.saturating_duration_since(hands.steady) >= needed;
        hands.doubt = doubt(wall, ahead, is_steady);
        hands.arrival = match hands.doubt {
            Some(Doubt::BeforeBuilt | Doubt::Behind | Doubt::Ahead) => expected,
            // half speed while it is behind, and no further than it; rounded up, so that time never stands still
            Some(Doubt::CatchingUp) | None => wall.max(before.arrival.saturating_add((passed + 1) / 2)),
        };
        match (before.doubt, hands.doubt) {
            (None, Some(doubt)) => {
                hands.is_since_start = false;
                // told with what was expected
                warn(doubt, Hands { arrival: expected, ..*hands });
            }
            (Some(_), None) => {
                let by = hands.arrival.ticks() - expected.ticks();
                tracing::info!(
                    wall = %wall,
                    expected = %expected,
                    "the clock is trusted again: arrival time goes by it and leaps by {}",
                    TimeLength(by)
                );
            }
            _ => {}
        }
        *hands
    }
}

/// What is wrong with a wall clock that is `ahead` of what is expected by so many ticks (less than 0: behind).
fn doubt(wall: Timestamp, ahead: i64, is_steady: bool) -> Option<Doubt> {
    match ahead {
        _ if wall < BUILT => Some(Doubt::BeforeBuilt),
        ahead if ahead > NEAR && !is_steady => Some(Doubt::Ahead),
        ahead if ahead >= -SLACK => None,
        ahead if ahead >= -NEAR => Some(Doubt::CatchingUp),
        _ => Some(Doubt::Behind),
    }
}

fn warn(doubt: Doubt, hands: Hands) {
    tracing::warn!(wall = %hands.wall, expected = %hands.arrival, "{}", doubt.told(hands));
}

impl Doubt {
    /// What is seen, what the job does, and what helps.
    fn told(self, hands: Hands) -> String {
        let Hands { wall, arrival, is_since_start, .. } = hands;
        let by = TimeLength((wall.ticks() - arrival.ticks()).saturating_abs());
        let seen = match self {
            Doubt::BeforeBuilt => format!("the machine's clock says {wall}, before this version was made"),
            Doubt::Behind if is_since_start => {
                format!("the machine's clock says {wall} and is {by} behind the newest event of the pool")
            }
            Doubt::Behind | Doubt::CatchingUp => format!("the machine's clock says {wall} and is {by} behind"),
            Doubt::Ahead => format!("the machine's clock jumped {by} ahead, to {wall}"),
        };
        let done = match self {
            Doubt::CatchingUp => "arrival time goes at half speed until the clock has caught up".to_owned(),
            Doubt::Ahead => {
                let needed = if is_since_start { STEADY_AT_START } else { STEADY };
                format!(
                    "arrival time goes on from {arrival} by monotonic time, until the clock has run evenly for {} s",
                    needed.as_secs()
                )
            }
            Doubt::BeforeBuilt | Doubt::Behind => format!("arrival time goes on from {arrival} by monotonic time"),
        };
        format!("{seen}: it is not trusted, {done}; the early rule is off; check NTP and the battery of the RTC")
    }
}

/// A length of time as a person reads it.
struct TimeLength(i64);

impl fmt::Display for TimeLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 as f64 / TICKS_PER_SECOND as f64;
        match seconds.abs() {
            small if small < 600.0 => write!(f, "{seconds:.1} s"),
            hours if hours < 172_800.0 => write!(f, "{:.1} h", seconds / 3_600.0),
            _ => write!(f, "{:.1} days", seconds / 86_400.0),
        }
    }
}

fn ticks(time: Duration) -> i64 {
    i64::try_from(time.as_nanos() / 100).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
