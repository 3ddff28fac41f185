//! Sizes and durations as people write them: `32MiB`, `1GB`, `20ms`, `1m30s`, `7d`.
//!
//! Invariant: exact; a fraction is cut off below one byte or one nanosecond.

use std::time::Duration;

const SIZES: &[(&str, u128)] = &[
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

const DURATIONS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("min", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

/// Bytes of `32MiB`, `1.5 GB`, `100B`; letter case does not matter. `None` without a unit.
pub fn size(text: &str) -> Option<u64> {
    quantities(text, SIZES).and_then(|bytes| u64::try_from(bytes).ok())
}

/// `20ms`, `1m30s`, `0.5h`. `None` without a unit.
pub fn duration(text: &str) -> Option<Duration> {
    quantities(text, DURATIONS).and_then(|nanos| u64::try_from(nanos).ok()).map(Duration::from_nanos)
}

/// The sum of numbers with units. Bounded: a number has at most 19 digits.
fn quantities(text: &str, units: &[(&str, u128)]) -> Option<u128> {
    let mut rest = text.trim();
    let mut sum = 0u128;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number = leading(rest, |c| c.is_ascii_digit() || c == '.');
        rest = rest.get(number.len()..)?.trim_start();
        let word = leading(rest, |c| c.is_ascii_alphabetic());
        rest = rest.get(word.len()..)?.trim_start();
        let (_, unit) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(word))?;
        sum = sum.checked_add(scaled(number, *unit)?)?;
    }
    Some(sum)
}

fn leading(text: &str, is_part: impl Fn(char) -> bool) -> &str {
    text.split(|c| !is_part(c)).next().unwrap_or_default()
}

fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits_fit = (1..=19).contains(&whole.len()) && fraction.len() <= 15 && !number.ends_with('.');
    if !digits_fit || fraction.contains('.') {
        return None;
    }
    let part = match fraction {
        "" => 0,
        digits => {
            digits.parse::<u128>().ok()?.checked_mul(unit)? / 10u128.checked_pow(u32::try_from(digits.len()).ok()?)?
        }
    };
    whole.parse::<u128>().ok()?.checked_mul(unit)?.checked_add(part)
}

/// A size as an error shows it: in the largest unit that divides it.
pub fn show_size(bytes: u64) -> String {
    let units = [
        ("TiB", 1u64 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("KB", 1_000),
    ];
    let fit = units.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    fit.map_or(format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// A duration as an error shows it: `20d23h59m59s`.
pub fn show_duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    if rest == 0 {
        return "0s".into();
    }
    let mut shown = String::new();
    for name in ["d", "h", "m", "s", "ms", "us", "ns"] {
        let unit = DURATIONS.iter().find(|(word, _)| *word == name).map_or(1, |(_, unit)| *unit);
        if rest >= unit {
            shown.push_str(&format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("32MiB", Some(32 << 20)),
            ("1GB", Some(1_000_000_000)),
            ("1.5 kib", Some(1536)),
            ("100B", Some(100)),
            ("0b", Some(0)),
            ("0.0000001KB", Some(0)),
            ("", None),
            ("32", None),
            ("MiB", None),
            ("1.GB", None),
            ("1.2.3GB", None),
            ("-1GB", None),
            ("1XB", None),
            ("99999999999999TB", None),
            ("1é", None),
        ] {
            assert_eq!(size(text), want, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("20ms", Some(20)),
            ("5s", Some(5_000)),
            ("1m30s", Some(90_000)),
            ("2 h 1 min", Some(7_260_000)),
            ("0.5s", Some(500)),
            ("7d", Some(604_800_000)),
            ("0s", Some(0)),
            ("5", None),
            ("s", None),
            ("5 weeks", None),
            ("1000000d", None),
        ] {
            assert_eq!(duration(text), want.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for bytes in [1, 1000, 1024, 1536, 1_000_000, 64 << 20, 1_000_000_000, 1 << 30] {
            assert_eq!(size(&show_size(bytes)), Some(bytes));
        }
        for nanos in [0, 1, 1_000, 20_000_000, 5_000_000_000, 90_000_000_001, 604_800_000_000_000] {
            assert_eq!(duration(&show_duration(Duration::from_nanos(nanos))), Some(Duration::from_nanos(nanos)));
        }
    }
}
