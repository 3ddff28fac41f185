//! Date functions and the names of date parts.
//!
//! In: datetimes (or ISO 8601 text) and the name of a part. Out: datetimes and counts, all UTC. Invariant: a week
//! begins on Sunday wherever it matters, whatever the machine's language. Not here: reading a clock, windows,
//! `System.Timestamp()`.

use super::args::Args;
use super::error::{Out, RowError};
use crate::query::date_part::DatePart;
use crate::time::{Civil, TICKS_PER_DAY, TICKS_PER_MILLISECOND, TICKS_PER_SECOND, Timestamp, days_in_month};
use crate::value::Value;

const TICKS_PER_MICROSECOND: i64 = 10;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl DatePart {
    /// Reads a part's name or one of its abbreviations, in any letter case.
    pub fn parse(text: &str) -> Option<DatePart> {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return DatePart::parse(&text.to_ascii_lowercase());
        }
        Some(match text {
            "year" | "yy" | "yyyy" => DatePart::Year,
            "quarter" | "qq" | "q" => DatePart::Quarter,
            "month" | "mm" | "m" => DatePart::Month,
            "dayofyear" | "dy" | "y" => DatePart::DayOfYear,
            "day" | "dd" | "d" => DatePart::Day,
            "week" | "wk" | "ww" => DatePart::Week,
            "weekday" | "dw" | "w" => DatePart::Weekday,
            "hour" | "hh" => DatePart::Hour,
            "minute" | "mi" | "n" => DatePart::Minute,
            "second" | "ss" | "s" => DatePart::Second,
            "millisecond" | "ms" => DatePart::Millisecond,
            "microsecond" | "mcs" => DatePart::Microsecond,
            _ => return None,
        })
    }

    /// The full name, lower case.
    pub fn name(self) -> &'static str {
        match self {
            DatePart::Year => "year",
            DatePart::Quarter => "quarter",
            DatePart::Month => "month",
            DatePart::DayOfYear => "dayofyear",
            DatePart::Day => "day",
            DatePart::Week => "week",
            DatePart::Weekday => "weekday",
            DatePart::Hour => "hour",
            DatePart::Minute => "minute",
            DatePart::Second => "second",
            DatePart::Millisecond => "millisecond",
            DatePart::Microsecond => "microsecond",
        }
    }

    /// Ticks of 100 ns in one of these; `None` for those whose length varies.
    pub fn ticks(self) -> Option<i64> {
        Some(match self {
            DatePart::Year | DatePart::Quarter | DatePart::Month => return None,
            DatePart::DayOfYear | DatePart::Day | DatePart::Weekday => TICKS_PER_DAY,
            DatePart::Week => 7 * TICKS_PER_DAY,
            DatePart::Hour => 3600 * TICKS_PER_SECOND,
            DatePart::Minute => 60 * TICKS_PER_SECOND,
            DatePart::Second => TICKS_PER_SECOND,
            DatePart::Millisecond => TICKS_PER_MILLISECOND,
            DatePart::Microsecond => TICKS_PER_MICROSECOND,
        })
    }

    fn months(self) -> i64 {
        match self {
            DatePart::Year => 12,
            DatePart::Quarter => 3,
            _ => 1,
        }
    }
}

/// How many boundaries of `part` lie between `a` and `b`; negative when `b` is earlier.
pub fn datediff(part: DatePart, a: Timestamp, b: Timestamp) -> i64 {
    boundary(part, b) - boundary(part, a)
}

/// The number of the part that a moment lies in, counted from year one.
fn boundary(part: DatePart, t: Timestamp) -> i64 {
    match part.ticks() {
        // day 0 is a Monday, and a week begins on Sunday
        Some(_) if part == DatePart::Week => (t.day_number() + 1).div_euclid(7),
        Some(ticks) => t.ticks().div_euclid(ticks),
        None => {
            let c = t.civil();
            (c.year * 12 + c.month - 1).div_euclid(part.months())
        }
    }
}

/// `t` moved by `n` parts; a day past the end of a month becomes its last. `None` outside years 1 to 9999.
pub fn dateadd(part: DatePart, n: i64, t: Timestamp) -> Option<Timestamp> {
    if let Some(ticks) = part.ticks() {
        return n.checked_mul(ticks).and_then(|ticks| t.checked_add(ticks));
    }
    let c = t.civil();
    let months = n.checked_mul(part.months())?.checked_add(c.year * 12 + c.month - 1)?;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
    Timestamp::from_civil(Civil { year, month, day: c.day.min(days_in_month(year, month)), ..c })
}

/// The first argument as a date part: the binder puts its full name there as a constant.
fn part(args: Args<'_>) -> Result<DatePart, RowError> {
    let name = args.text(0)?;
    DatePart::parse(&name)
        .ok_or_else(|| args.error("argument", format!("'{}' is no part of a date", super::text::excerpt(&name))))
}

pub fn dateadd_function(values: &[Value]) -> Out {
    let Some(args) = Args::strict("DATEADD", values) else { return Ok(Value::Null) };
    let (part, n, t) = (part(args)?, args.integer(1)?, args.datetime(2)?);
    match dateadd(part, n, t) {
        Some(moved) => Ok(Value::DateTime(moved)),
        None => Err(args.error("overflow", format!("{t} and {n} {}(s) is outside years 1 to 9999", part.name()))),
    }
}

pub fn datediff_function(values: &[Value]) -> Out {
    let Some(args) = Args::strict("DATEDIFF", values) else { return Ok(Value::Null) };
    Ok(Value::BigInt(datediff(part(args)?, args.datetime(1)?, args.datetime(2)?)))
}

pub fn datepart(values: &[Value]) -> Out {
    let Some(args) = Args::strict("DATEPART", values) else { return Ok(Value::Null) };
    Ok(Value::BigInt(part_of(part(args)?, args.datetime(1)?)))
}

pub fn datename(values: &[Value]) -> Out {
    let Some(args) = Args::strict("DATENAME", values) else { return Ok(Value::Null) };
    let part = part(args)?;
    let n = part_of(part, args.datetime(1)?);
    let names: &[&str] = match part {
        DatePart::Month => &MONTHS,
        DatePart::Weekday => &WEEKDAYS,
        _ => &[],
    };
    let name = usize::try_from(n - 1).ok().and_then(|i| names.get(i));
    Ok(Value::text(name.map_or_else(|| n.to_string(), |name| (*name).to_owned())))
}

/// Days since January 1st.
fn day_of_year(c: Civil) -> i64 {
    (1..c.month).map(|month| days_in_month(c.year, month)).sum::<i64>() + c.day - 1
}

fn part_of(part: DatePart, t: Timestamp) -> i64 {
    let c = t.civil();
    let new_year = t.day_number() - day_of_year(c);
    // Sunday is 0
    let weekday = |day: i64| (day + 1).rem_euclid(7);
    match part {
        DatePart::Year => c.year,
        DatePart::Quarter => (c.month - 1) / 3 + 1,
        DatePart::Month => c.month,
        DatePart::DayOfYear => day_of_year(c) + 1,
        DatePart::Day => c.day,
        // January 1st lies in week 1, the next week begins on the next Sunday
        DatePart::Week => (t.day_number() - new_year + weekday(new_year)) / 7 + 1,
        DatePart::Weekday => weekday(t.day_number()) + 1,
        DatePart::Hour => c.hour,
        DatePart::Minute => c.minute,
        DatePart::Second => c.second,
        DatePart::Millisecond => c.ticks / TICKS_PER_MILLISECOND,
        DatePart::Microsecond => c.ticks / TICKS_PER_MICROSECOND,
    }
}

fn field(name: &'static str, values: &[Value], part: DatePart) -> Out {
    let Some(args) = Args::strict(name, values) else { return Ok(Value::Null) };
    Ok(Value::BigInt(part_of(part, args.datetime(0)?)))
}

pub fn day(values: &[Value]) -> Out {
    field("DAY", values, DatePart::Day)
}

pub fn month(values: &[Value]) -> Out {
    field("MONTH", values, DatePart::Month)
}

pub fn year(values: &[Value]) -> Out {
    field("YEAR", values, DatePart::Year)
}

/// `DATETIMEFROMPARTS(year, month, day, hour, minute, second, millisecond)`
pub fn datetimefromparts(values: &[Value]) -> Out {
    let Some(args) = Args::strict("DATETIMEFROMPARTS", values) else { return Ok(Value::Null) };
    let ms = args.integer(6)?;
    let civil = Civil {
        year: args.integer(0)?,
        month: args.integer(1)?,
        day: args.integer(2)?,
        hour: args.integer(3)?,
        minute: args.integer(4)?,
        second: args.integer(5)?,
        ticks: ms.saturating_mul(TICKS_PER_MILLISECOND),
    };
    match Timestamp::from_civil(civil) {
        Some(t) => Ok(Value::DateTime(t)),
        None => Err(args.error(
            "argument",
            format!(
                "year {}, month {}, day {}, hour {}, minute {}, second {}, millisecond {ms} are no date",
                civil.year, civil.month, civil.day, civil.hour, civil.minute, civil.second
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARTS: [DatePart; 12] = [
        DatePart::Year,
        DatePart::Quarter,
        DatePart::Month,
        DatePart::DayOfYear,
        DatePart::Day,
        DatePart::Week,
        DatePart::Weekday,
        DatePart::Hour,
        DatePart::Minute,
        DatePart::Second,
        DatePart::Millisecond,
        DatePart::Microsecond,
    ];

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn parts_read_back_from_their_names() {
        for part in PARTS {
            assert_eq!(DatePart::parse(part.name()), Some(part));
            assert_eq!(DatePart::parse(&part.name().to_uppercase()), Some(part));
        }
        for wrong in ["", "ns", "nanosecond", "iso_week", "tzoffset", "years"] {
            assert_eq!(DatePart::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn differences_count_boundaries() {
        for (part, a, b, expected) in [
            (DatePart::Year, "2023-12-31T23:59:59", "2024-01-01", 1),
            (DatePart::Quarter, "2022-11-01", "2024-02-01", 5),
            (DatePart::Month, "2024-03-31T12:00", "2024-04-01", 1),
            (DatePart::Week, "2024-05-04", "2024-05-05", 1),
            (DatePart::Week, "2024-05-05", "2024-05-11", 0),
            (DatePart::Weekday, "2024-05-05", "2024-05-11", 6),
            (DatePart::Second, "2024-01-02T00:00:05", "2024-01-01T23:59:55", -10),
            (DatePart::Microsecond, "2024-01-01T00:00:00.25", "2024-01-01T00:00:02", 1_750_000),
        ] {
            assert_eq!(datediff(part, at(a), at(b)), expected, "{part:?} {a} {b}");
        }
    }

    #[test]
    fn months_end_where_they_end() {
        assert_eq!(dateadd(DatePart::Month, 1, at("2024-01-31")), Some(at("2024-02-29")));
        assert_eq!(dateadd(DatePart::Year, -1, at("2024-02-29")), Some(at("2023-02-28")));
        assert_eq!(dateadd(DatePart::Quarter, 1, at("2023-11-15T22:30")), Some(at("2024-02-15T22:30")));
        assert_eq!(dateadd(DatePart::Year, 8000, at("2024-01-01")), None);
        assert_eq!(dateadd(DatePart::Week, i64::MAX, at("2024-01-01")), None);
    }

    #[test]
    fn parts_and_names() {
        let t = at("2024-08-17T21:43:09.2504567");
        let parts: Vec<i64> = PARTS.iter().map(|p| part_of(*p, t)).collect();
        assert_eq!(parts, [2024, 3, 8, 230, 17, 33, 7, 21, 43, 9, 250, 250_456]);
        assert_eq!(part_of(DatePart::Week, at("2024-01-01")), 1);
        assert_eq!(part_of(DatePart::Week, at("2024-01-07")), 2);
        assert_eq!(part_of(DatePart::Weekday, at("2024-01-07")), 1);
        let name = |part: &str, t: &str| datename(&[Value::text(part), Value::text(t)]).unwrap();
        assert_eq!(name("month", "2024-08-07"), Value::text("August"));
        assert_eq!(name("weekday", "2024-08-07"), Value::text("Wednesday"));
        assert_eq!(name("hour", "2024-08-07T05:00"), Value::text("5"));
    }

    #[test]
    fn bad_dates_are_errors_of_the_row() {
        let reason = |r: Out| r.unwrap_err().reason;
        let n = Value::BigInt;
        assert_eq!(reason(day(&[Value::text("soon")])), "conversion");
        assert_eq!(reason(day(&[n(5)])), "argument");
        assert_eq!(reason(datetimefromparts(&[n(2023), n(2), n(29), n(0), n(0), n(0), n(0)])), "argument");
        assert_eq!(reason(datetimefromparts(&[n(2023), n(2), n(2), n(0), n(0), n(0), n(i64::MAX)])), "argument");
        assert_eq!(reason(datepart(&[Value::text("eon"), Value::text("2024-01-01")])), "argument");
        assert_eq!(
            dateadd_function(&[Value::text("day"), Value::Float(1.9), Value::text("2024-01-01")]),
            Ok(Value::DateTime(at("2024-01-02")))
        );
    }

    proptest! {
        /// Moving by whole parts crosses as many boundaries.
        #[test]
        fn adding_and_difference_agree(
            ticks in 0..=Timestamp::MAX.ticks(),
            n in -3000i64..3000,
            part in prop::sample::select(PARTS.to_vec()),
        ) {
            let t = Timestamp::from_ticks(ticks).unwrap();
            if let Some(moved) = dateadd(part, n, t) {
                prop_assert_eq!(datediff(part, t, moved), n);
            }
        }
    }
}
