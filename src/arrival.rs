//! Arrival time: what a job takes for the present moment when it stamps events and closes windows.
//!
//! In: both hands of the machine's clock, and how far arrival time had come before. Out: an [`ArrivalTime`]: a moment,
//! and whether the clock that gave it is trusted. Invariant: inside an era arrival time never goes back, and it stands
//! still only before a time that an earlier era has used; a trusted one lies within [`SLACK`] of the wall clock. Not
//! here: event time (`engine`), how old records are (`journal::ages`), who stores how far it came (`journal`).

mod eras;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::time::{Clock, TICKS_PER_SECOND, Timestamp};

pub use eras::Eras;

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
/// The same where it was wrong from the start on, or where it is set back to what it would tell without an earlier
/// jump: a correction is what one waits for then.
const STEADY_AT_START: Duration = Duration::from_secs(10);

/// A moment of arrival time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrivalTime {
    pub at: Timestamp,
    /// Of which era it is: see [`Eras`].
    pub era: u32,
    /// The wall clock said so; else monotonic time carried on from what was known.
    pub is_trusted: bool,
}

impl ArrivalTime {
    /// Of the first era, by a clock that is trusted.
    pub fn trusted(at: Timestamp) -> ArrivalTime {
        ArrivalTime { at, era: 0, is_trusted: true }
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
    /// It tells a time that an earlier era has used: arrival time stands before that.
    Used,
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
    /// Ticks that a time has to be away from a used one: the longest window.
    margin: i64,
    hands: Mutex<Hands>,
}

/// As of the last look.
#[derive(Clone, Debug)]
struct Hands {
    /// Arrival time, but for where that stands.
    expected: Timestamp,
    arrival: Timestamp,
    wall: Timestamp,
    monotonic: Instant,
    /// Since when the wall clock has run in step with the monotonic one.
    steady: Instant,
    doubt: Option<Doubt>,
    /// The doubt is there since the start.
    is_since_start: bool,
    /// What was expected when arrival time last leapt ahead, and when that was.
    leapt: Option<(Timestamp, Instant)>,
    eras: Eras,
    /// The pool does not know of the last leap.
    is_unsaved: bool,
}

/// Where arrival time may be set back to: see [`ArrivalClock::way_back`].
#[derive(Clone, Debug, PartialEq)]
pub struct WayBack {
    pub to: Timestamp,
    /// How far arrival time has come.
    pub from: Timestamp,
    /// As they are before.
    pub eras: Eras,
    seen: Instant,
}

impl ArrivalClock {
    /// `last`: how far arrival time had come when the job last ran; the first moment of all for a new pool. No wall
    /// clock can be compared with what it was before the start, so one that is ahead of `last` is trusted.
    pub fn new(clock: Clock, last: Timestamp) -> ArrivalClock {
        ArrivalClock::of_pool(clock, last, Eras::default(), 0)
    }

    /// As [`ArrivalClock::new`], of a pool whose arrival time may have been set back before. `margin`: ticks of the
    /// longest window, and how late its events may be.
    pub fn of_pool(clock: Clock, last: Timestamp, eras: Eras, margin: i64) -> ArrivalClock {
        let (wall, monotonic) = (clock.now(), clock.monotonic());
        let floor = last.max(if wall < BUILT { BUILT } else { Timestamp::MIN });
        let expected = floor.max(wall);
        let doubt = doubt(wall, wall.ticks() - expected.ticks(), true);
        let mut eras = eras;
        let is_new = last == Timestamp::MIN && eras == Eras::default();
        let is_unsaved = is_new || expected.ticks() - last.ticks() > NEAR;
        if is_new {
            eras = Eras::starting(expected);
        } else if is_unsaved {
            eras.leap(last, eras.outside(expected, margin).max(last));
        }
        let arrival = eras.outside(expected, margin).max(last);
        let hands = Hands {
            expected,
            arrival,
            wall,
            monotonic,
            steady: monotonic,
            doubt,
            is_since_start: true,
            leapt: None,
            eras,
            is_unsaved,
        };
        let clock = ArrivalClock(Arc::new(ClockHands { clock, margin, hands: Mutex::new(hands.clone()) }));
        if let Some(doubt) = hands.doubt() {
            clock.warn(doubt, &hands);
        }
        clock
    }

    /// The present moment. What changes in the clock is logged by whoever looks first.
    pub fn now(&self) -> ArrivalTime {
        self.look(|hands| ArrivalTime {
            at: hands.arrival,
            era: hands.eras.number(),
            is_trusted: hands.doubt().is_none(),
        })
    }

    pub fn status(&self) -> ClockStatus {
        self.look(|hands| ClockStatus {
            trouble: hands.doubt().map(|doubt| self.told(doubt, hands)),
            offset_seconds: (hands.wall.ticks() - hands.arrival.ticks()) as f64 / TICKS_PER_SECOND as f64,
        })
    }

    /// Where arrival time should be set back to: to a clock that is far behind, has run evenly, and tells no time that
    /// was used. Whoever asks stores that an era begins, and then calls [`ArrivalClock::begin_era`].
    pub fn way_back(&self) -> Option<WayBack> {
        self.look(|hands| {
            let is_back = hands.doubt == Some(Doubt::Behind) && hands.is_steady(hands.needed_back());
            let is_free = || !hands.eras.is_used(hands.wall, self.0.margin, hands.arrival);
            let eras = || hands.eras.clone();
            let way = || WayBack { to: hands.wall, from: hands.arrival, eras: eras(), seen: hands.monotonic };
            (is_back && is_free()).then(way)
        })
    }

    /// Sets arrival time back: the pool says that the present era ended where it was.
    pub fn begin_era(&self, way: &WayBack, eras: Eras) {
        let mut hands = self.0.hands.lock().unwrap_or_else(PoisonError::into_inner);
        let mut eras = eras;
        // it leapt while the pool stored that
        let is_unsaved = hands.eras != way.eras;
        if is_unsaved {
            eras.also_used(&hands.eras, hands.arrival);
        }
        *hands = Hands {
            expected: way.to,
            arrival: way.to,
            monotonic: way.seen,
            doubt: None,
            leapt: None,
            eras,
            is_unsaved,
            ..hands.clone()
        };
        tracing::info!(
            wall = %way.to,
            expected = %way.from,
            "the clock is trusted again: arrival time goes by it and is set back by {}; what is open closes once",
            TimeLength(way.from.ticks() - way.to.ticks())
        );
    }

    /// The eras where the pool does not know them yet. Whoever asks stores them, and then calls
    /// [`ArrivalClock::saved`].
    pub fn unsaved_eras(&self) -> Option<Eras> {
        let hands = self.0.hands.lock().unwrap_or_else(PoisonError::into_inner);
        hands.is_unsaved.then(|| hands.eras.clone())
    }

    /// The pool knows these eras; a leap that came meanwhile is still to be stored.
    pub fn saved(&self, eras: &Eras) {
        let mut hands = self.0.hands.lock().unwrap_or_else(PoisonError::into_inner);
        hands.is_unsaved &= hands.eras != *eras;
    }

    fn look<T>(&self, tell: impl FnOnce(&Hands) -> T) -> T {
        let mut hands = self.0.hands.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, monotonic) = (self.0.clock.now(), self.0.clock.monotonic().max(hands.monotonic));
        let passed = ticks(monotonic.saturating_duration_since(hands.monotonic));
        let stepped = wall.ticks() - hands.wall.ticks() - passed;
        let expected = hands.expected.saturating_add(passed);
        let ahead = wall.ticks() - expected.ticks();
        let before = hands.doubt();
        (hands.wall, hands.monotonic) = (wall, monotonic);
        if stepped.abs() > STEP {
            hands.steady = monotonic;
        }
        let is_steady = hands.doubt.is_some() && hands.is_steady(hands.needed_ahead());
        hands.doubt = doubt(wall, ahead, is_steady);
        hands.expected = match hands.doubt {
            // half speed while it is behind, and no further than it; rounded up, so that time never stands still
            Some(Doubt::CatchingUp) | None => wall.max(hands.expected.saturating_add((passed + 1) / 2)),
            Some(_) => expected,
        };
        if hands.doubt.is_none() && ahead > NEAR {
            hands.leapt = Some((expected, monotonic));
            // it may leap into a used time, and stands before that
            let (until, from) = (hands.arrival, hands.eras.outside(hands.expected, self.0.margin));
            hands.eras.leap(until, from.max(until));
            hands.is_unsaved = true;
        }
        hands.arrival = hands.eras.outside(hands.expected, self.0.margin).max(hands.arrival);
        match (before, hands.doubt()) {
            (None, Some(doubt)) => {
                hands.is_since_start = false;
                // told with what was expected
                self.warn(doubt, &Hands { expected, ..hands.clone() });
            }
            (Some(_), None) => {
                tracing::info!(
                    wall = %wall,
                    expected = %expected,
                    "the clock is trusted again: arrival time goes by it and leaps by {}",
                    TimeLength(hands.arrival.ticks() - expected.ticks())
                );
            }
            _ => {}
        }
        tell(&hands)
    }

    fn warn(&self, doubt: Doubt, hands: &Hands) {
        tracing::warn!(wall = %hands.wall, expected = %hands.expected, "{}", self.told(doubt, hands));
    }

    /// What is seen, what the job does, and what helps.
    fn told(&self, doubt: Doubt, hands: &Hands) -> String {
        let Hands { wall, expected, arrival, is_since_start, .. } = hands;
        let by = TimeLength((wall.ticks() - expected.ticks()).saturating_abs());
        let seen = match doubt {
            Doubt::BeforeBuilt => format!("the machine's clock says {wall}, before this version was made"),
            Doubt::Behind if *is_since_start => {
                format!("the machine's clock says {wall} and is {by} behind the newest event of the pool")
            }
            Doubt::Behind | Doubt::CatchingUp => format!("the machine's clock says {wall} and is {by} behind"),
            Doubt::Ahead => format!("the machine's clock jumped {by} ahead, to {wall}"),
            Doubt::Used => {
                return format!(
                    "the machine's clock says {wall}, a time that events of the pool have by an earlier, wrong clock: \
                     arrival time stands at {arrival} until it is past, so that no window is reported twice; the early \
                     rule is off"
                );
            }
        };
        let goes_on = format!("arrival time goes on from {arrival} by monotonic time");
        let done = match doubt {
            Doubt::CatchingUp => "arrival time goes at half speed until the clock has caught up".to_owned(),
            Doubt::Ahead => {
                let needed = hands.needed_ahead().as_secs();
                format!("{goes_on}, until the clock has run evenly for {needed} s")
            }
            Doubt::Behind if hands.eras.is_used(*wall, self.0.margin, *arrival) => {
                format!("{goes_on}, since events of the pool have that time already")
            }
            Doubt::Behind => {
                let needed = hands.needed_back().as_secs();
                format!("{goes_on}, and is set back when the clock has run evenly for {needed} s")
            }
            Doubt::BeforeBuilt | Doubt::Used => goes_on,
        };
        format!("{seen}: it is not trusted, {done}; the early rule is off; check NTP and the battery of the RTC")
    }
}

impl Hands {
    /// What is wrong, as others see it.
    fn doubt(&self) -> Option<Doubt> {
        if self.arrival < self.expected { Some(Doubt::Used) } else { self.doubt }
    }

    fn is_steady(&self, needed: Duration) -> bool {
        self.monotonic.saturating_duration_since(self.steady) >= needed
    }

    /// For how long a clock that jumped ahead has to run evenly.
    fn needed_ahead(&self) -> Duration {
        if self.is_since_start { STEADY_AT_START } else { STEADY }
    }

    /// For how long a clock that is far behind has to run evenly.
    fn needed_back(&self) -> Duration {
        let without_leap = |(at, since): (Timestamp, Instant)| {
            at.saturating_add(ticks(self.monotonic.saturating_duration_since(since)))
        };
        let is_near = |told: Timestamp| (self.wall.ticks() - told.ticks()).abs() <= NEAR;
        if self.leapt.map(without_leap).is_some_and(is_near) { STEADY_AT_START } else { STEADY }
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
