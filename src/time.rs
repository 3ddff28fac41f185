//! Instants and clocks.
//!
//! In: ISO 8601 text, calendar parts, the machine's clock, the runtime's. Out: [`Timestamp`], a count of 100 ns ticks;
//! [`Clock`] for threads and for what is stored, and [`task_now`] for tasks: the only places that read a clock.
//! Invariant: a `Timestamp` always lies in years 1 to 9999. Not here: time zones (text is normalised to UTC on the way
//! in), date functions of the query language.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Ticks of 100 ns in one second.
pub const TICKS_PER_SECOND: i64 = 10_000_000;
/// Ticks of 100 ns in one millisecond.
pub const TICKS_PER_MILLISECOND: i64 = 10_000;
/// Ticks of 100 ns in one day.
pub const TICKS_PER_DAY: i64 = 86_400 * TICKS_PER_SECOND;

/// Days from 0001-01-01 to 1970-01-01 in the proleptic Gregorian calendar.
const UNIX_EPOCH_DAYS: i64 = 719_162;
/// Ticks from year one to the Unix epoch.
const UNIX_EPOCH_TICKS: i64 = UNIX_EPOCH_DAYS * TICKS_PER_DAY;

/// A moment in UTC, counted in ticks of 100 ns since 0001-01-01T00:00:00Z: the resolution and the origin that
/// Stream Analytics uses, so windows align to the zeroth hour by plain division.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(i64);

/// Calendar fields of a [`Timestamp`], UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Civil {
    pub year: i64,
    /// 1 to 12
    pub month: i64,
    /// 1 to 31
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    /// ticks of 100 ns inside the second, 0 to 9,999,999
    pub ticks: i64,
}

impl Timestamp {
    /// 0001-01-01T00:00:00Z
    pub const MIN: Timestamp = Timestamp(0);
    /// 9999-12-31T23:59:59.9999999Z
    pub const MAX: Timestamp = Timestamp(3_652_059 * TICKS_PER_DAY - 1);

    /// From ticks since year one; `None` outside years 1 to 9999.
    pub fn from_ticks(ticks: i64) -> Option<Timestamp> {
        (Self::MIN.0..=Self::MAX.0).contains(&ticks).then_some(Timestamp(ticks))
    }

    /// From ticks since year one, clamped into years 1 to 9999.
    pub fn saturating_from_ticks(ticks: i64) -> Timestamp {
        Timestamp(ticks.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Ticks of 100 ns since year one.
    pub fn ticks(self) -> i64 {
        self.0
    }

    /// From seconds since 1970, for moments that are known when this is compiled.
    pub const fn from_unix_seconds(seconds: i32) -> Timestamp {
        Timestamp(seconds as i64 * TICKS_PER_SECOND + UNIX_EPOCH_TICKS)
    }

    /// From milliseconds since 1970; clamped.
    pub fn from_unix_millis(ms: i64) -> Timestamp {
        Self::saturating_from_ticks(ms.saturating_mul(TICKS_PER_MILLISECOND).saturating_add(UNIX_EPOCH_TICKS))
    }

    /// Milliseconds since 1970, rounded down.
    pub fn unix_millis(self) -> i64 {
        (self.0 - UNIX_EPOCH_TICKS).div_euclid(TICKS_PER_MILLISECOND)
    }

    /// This moment moved by `ticks`; clamped at the ends of the calendar.
    pub fn saturating_add(self, ticks: i64) -> Timestamp {
        Self::saturating_from_ticks(self.0.saturating_add(ticks))
    }

    /// This moment moved by `ticks`; `None` outside years 1 to 9999.
    pub fn checked_add(self, ticks: i64) -> Option<Timestamp> {
        self.0.checked_add(ticks).and_then(Self::from_ticks)
    }

    /// From calendar fields; `None` when a field is out of its range.
    pub fn from_civil(c: Civil) -> Option<Timestamp> {
        let in_range = (1..=9999).contains(&c.year)
            && (1..=12).contains(&c.month)
            && (1..=days_in_month(c.year, c.month)).contains(&c.day)
            && (0..24).contains(&c.hour)
            && (0..60).contains(&c.minute)
            && (0..60).contains(&c.second)
            && (0..TICKS_PER_SECOND).contains(&c.ticks);
        if !in_range {
            return None;
        }
        let days = days_from_civil(c.year, c.month, c.day);
        let seconds = c.hour * 3600 + c.minute * 60 + c.second;
        Self::from_ticks(days * TICKS_PER_DAY + seconds * TICKS_PER_SECOND + c.ticks)
    }

    /// The calendar fields of this moment, UTC.
    pub fn civil(self) -> Civil {
        let days = self.0.div_euclid(TICKS_PER_DAY);
        let rest = self.0.rem_euclid(TICKS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        let seconds = rest / TICKS_PER_SECOND;
        Civil {
            year,
            month,
            day,
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            ticks: rest % TICKS_PER_SECOND,
        }
    }

    /// Days since 0001-01-01, a Monday.
    pub fn day_number(self) -> i64 {
        self.0.div_euclid(TICKS_PER_DAY)
    }

    /// Reads ISO 8601: `YYYY-MM-DD`, optionally `T` or a blank and `hh:mm[:ss[.f…]]`, optionally `Z` or `±hh[:]mm`.
    /// Text without a zone is UTC; digits past 100 ns are cut off. `None` when it is not such text.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let b = text.trim().as_bytes();
        let number = |from: usize, to: usize| -> Option<i64> {
            let digits = b.get(from..to)?;
            digits.iter().try_fold(0i64, |n, d| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0')))
        };
        let mut civil = Civil {
            year: number(0, 4)?,
            month: number(5, 7)?,
            day: number(8, 10)?,
            hour: 0,
            minute: 0,
            second: 0,
            ticks: 0,
        };
        if b.get(4) != Some(&b'-') || b.get(7) != Some(&b'-') {
            return None;
        }
        let mut at = 10;
        if let Some(separator) = b.get(at) {
            if !matches!(separator, b'T' | b't' | b' ') {
                return None;
            }
            civil.hour = number(11, 13)?;
            civil.minute = number(14, 16)?;
            if b.get(13) != Some(&b':') {
                return None;
            }
            at = 16;
            if b.get(at) == Some(&b':') {
                civil.second = number(17, 19)?;
                at = 19;
                if matches!(b.get(at), Some(b'.' | b',')) {
                    at += 1;
                    let start = at;
                    let mut scale = TICKS_PER_SECOND;
                    while let Some(d) = b.get(at).filter(|d| d.is_ascii_digit()) {
                        scale /= 10;
                        civil.ticks += i64::from(d - b'0') * scale;
                        at += 1;
                    }
                    if at == start {
                        return None;
                    }
                }
            }
        }
        let offset_minutes = match b.get(at..)? {
            [] | [b'Z' | b'z'] => 0,
            [sign @ (b'+' | b'-'), zone @ ..] => {
                let (h, m) = match zone.len() {
                    2 => (number(at + 1, at + 3)?, 0),
                    4 => (number(at + 1, at + 3)?, number(at + 3, at + 5)?),
                    5 if zone.get(2) == Some(&b':') => (number(at + 1, at + 3)?, number(at + 4, at + 6)?),
                    _ => return None,
                };
                if h > 14 || m > 59 {
                    return None;
                }
                let minutes = h * 60 + m;
                if *sign == b'-' { -minutes } else { minutes }
            }
            _ => return None,
        };
        Self::from_civil(civil)?.checked_add(-offset_minutes * 60 * TICKS_PER_SECOND)
    }
}

/// The output form of the query language: seven fraction digits and `Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.civil();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:07}Z",
            c.year, c.month, c.day, c.hour, c.minute, c.second, c.ticks
        )
    }
}

/// Days in a month of the proleptic Gregorian calendar; `month` is 1 to 12.
pub fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 0001-01-01. March-based years make the leap day the last of its year, so months add up by a linear rule.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 306
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 306;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Where time comes from: the machine, or a test. The wall clock says what time it is and may jump; the monotonic one
/// says how long something took and never goes back.
#[derive(Clone, Debug)]
pub enum Clock {
    Real,
    /// Moved by [`Clock::set`] and [`Clock::advance`]; never moves by itself.
    Manual(Arc<Manual>),
}

/// The two hands of a clock that a test moves.
#[derive(Debug)]
pub struct Manual {
    /// Ticks of the wall clock.
    wall: AtomicI64,
    /// When the clock was made, by the machine.
    made: Instant,
    /// Nanoseconds of monotonic time since then.
    since: AtomicU64,
}

impl Clock {
    /// A clock that stands at `start` until it is moved.
    pub fn manual(start: Timestamp) -> Clock {
        Clock::Manual(Arc::new(Manual {
            wall: AtomicI64::new(start.ticks()),
            made: monotonic(),
            since: AtomicU64::new(0),
        }))
    }

    /// The present moment by the wall clock.
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::Real => {
                let since = wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                let ticks = i64::try_from(since.as_nanos() / 100).unwrap_or(i64::MAX);
                Timestamp::saturating_from_ticks(ticks.saturating_add(UNIX_EPOCH_TICKS))
            }
            Clock::Manual(manual) => Timestamp::saturating_from_ticks(manual.wall.load(Ordering::Acquire)),
        }
    }

    /// The present moment by the monotonic clock.
    pub fn monotonic(&self) -> Instant {
        match self {
            Clock::Real => monotonic(),
            Clock::Manual(manual) => manual.made + Duration::from_nanos(manual.since.load(Ordering::Acquire)),
        }
    }

    /// How long ago a moment of the monotonic clock was.
    pub fn since(&self, moment: Instant) -> Duration {
        self.monotonic().saturating_duration_since(moment)
    }

    /// Sets the wall clock of a test, as NTP or a person does; no effect on the real one.
    pub fn set(&self, to: Timestamp) {
        if let Clock::Manual(manual) = self {
            manual.wall.store(to.ticks(), Ordering::Release);
        }
    }

    /// Lets time pass on both clocks of a test; no effect on the real one.
    pub fn advance(&self, by: Duration) {
        if let Clock::Manual(manual) = self {
            let ticks = i64::try_from(by.as_nanos() / 100).unwrap_or(i64::MAX);
            self.set(self.now().saturating_add(ticks));
            manual.since.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::AcqRel);
        }
    }
}

/// The present moment by the clock of the tokio runtime, which goes on with its timers: a paused runtime stands still
/// and leaps from timer to timer. For tasks that wait by those timers; whoever blocks a thread asks a [`Clock`].
#[expect(clippy::disallowed_methods, reason = "the one place that reads the runtime's clock")]
pub fn task_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// How long ago a moment of the runtime's clock was.
pub fn task_since(moment: tokio::time::Instant) -> Duration {
    task_now().saturating_duration_since(moment)
}

/// Blocks this thread. For places that nothing can wake; whoever can be told to stop waits on that instead.
#[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
fn monotonic() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_at_full_resolution() {
        for text in ["0001-01-01T00:00:00.0000000Z", "2024-02-29T23:59:59.9999999Z", "9999-12-31T23:59:59.9999999Z"] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.9999999Z");
    }

    #[test]
    fn a_clock_of_a_test_moves_only_when_told_and_its_two_hands_apart() {
        let start = Timestamp::parse("2024-05-01T10:00:00Z").unwrap();
        let clock = Clock::manual(start);
        let before = clock.monotonic();
        clock.advance(Duration::from_secs(2));
        assert_eq!(
            (clock.now(), clock.monotonic() - before),
            (start.saturating_add(2 * TICKS_PER_SECOND), Duration::from_secs(2))
        );
        clock.set(Timestamp::MIN);
        assert_eq!((clock.now(), clock.monotonic() - before), (Timestamp::MIN, Duration::from_secs(2)));
    }

    #[test]
    fn offsets_are_applied_and_a_missing_zone_is_utc() {
        let utc = Timestamp::parse("2024-05-01T10:00:00Z").unwrap();
        assert_eq!(Timestamp::parse("2024-05-01T12:30:00+02:30"), Some(utc));
        assert_eq!(Timestamp::parse("2024-05-01T05:00:00-0500"), Some(utc));
        assert_eq!(Timestamp::parse("2024-05-01 10:00"), Some(utc));
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in [
            "",
            "2024",
            "2024-13-01",
            "2023-02-29",
            "2024-05-01T24:00:00",
            "2024-05-01T10:343.45",
            "2024-05-01T10:00:00.Z",
            "2024-05-01T10:00:00+99:00",
            "noon",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn unix_epoch_is_where_it_should_be() {
        assert_eq!(Timestamp::from_unix_millis(0).to_string(), "1970-01-01T00:00:00.0000000Z");
        assert_eq!(Timestamp::parse("1970-01-01").unwrap().unix_millis(), 0);
    }

    #[test]
    fn every_day_of_four_centuries_converts_back() {
        for day in 0..146_097i64 {
            let (y, m, d) = civil_from_days(day);
            assert_eq!(days_from_civil(y, m, d), day);
        }
    }
}
