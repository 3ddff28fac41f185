//! String functions.
//!
//! In: text and counts. Out: text or positions. Invariant: positions count code points from 1, letter case matters, and
//! a result longer than [`super::RESULT_BYTES_MAX`] is refused before it is built. Not here: patterns (`like`,
//! `regex`).

use super::args::Args;
use super::error::{Out, RowError};
use super::text::{count, length, offset, position, slice};
use crate::value::Value;

/// The length of a part: negative ones stop the job, as each page says.
fn part_length(args: Args<'_>, i: usize) -> Result<usize, RowError> {
    let n = args.integer(i)?;
    if n < 0 {
        return Err(args.error("argument", format!("the length {n} is negative")));
    }
    Ok(length(n))
}

fn on_text(name: &'static str, values: &[Value], f: fn(&str) -> Value) -> Out {
    let Some(args) = Args::strict(name, values) else { return Ok(Value::Null) };
    Ok(f(&args.text(0)?))
}

pub fn len(values: &[Value]) -> Out {
    on_text("LEN", values, |s| Value::BigInt(position(s, s.trim_end_matches(' ').len()) - 1))
}

pub fn lower(values: &[Value]) -> Out {
    on_text("LOWER", values, |s| Value::text(s.to_lowercase()))
}

pub fn upper(values: &[Value]) -> Out {
    on_text("UPPER", values, |s| Value::text(s.to_uppercase()))
}

// Unicode's White_Space property is the list that the pages of the three trim functions give.
pub fn trim(values: &[Value]) -> Out {
    on_text("TRIM", values, |s| Value::text(s.trim()))
}

pub fn ltrim(values: &[Value]) -> Out {
    on_text("LTRIM", values, |s| Value::text(s.trim_start()))
}

pub fn rtrim(values: &[Value]) -> Out {
    on_text("RTRIM", values, |s| Value::text(s.trim_end()))
}

pub fn reverse(values: &[Value]) -> Out {
    on_text("REVERSE", values, |s| Value::text(s.chars().rev().collect::<String>()))
}

/// Code point of the first character; NULL for empty text.
pub fn unicode(values: &[Value]) -> Out {
    on_text("UNICODE", values, |s| s.chars().next().map_or(Value::Null, |c| Value::BigInt(i64::from(u32::from(c)))))
}

/// The character of a code point; NULL outside Unicode and for surrogates.
pub fn nchar(values: &[Value]) -> Out {
    let Some(args) = Args::strict("NCHAR", values) else { return Ok(Value::Null) };
    let code = u32::try_from(args.integer(0)?).ok().and_then(char::from_u32);
    Ok(code.map_or(Value::Null, |c| Value::text(c.encode_utf8(&mut [0; 4]))))
}

pub fn left(values: &[Value]) -> Out {
    let Some(args) = Args::strict("LEFT", values) else { return Ok(Value::Null) };
    let n = part_length(args, 1)?;
    Ok(Value::text(slice(&args.text(0)?, 0, n)))
}

pub fn right(values: &[Value]) -> Out {
    let Some(args) = Args::strict("RIGHT", values) else { return Ok(Value::Null) };
    let n = part_length(args, 1)?;
    let s = args.text(0)?;
    Ok(Value::text(slice(&s, count(&s).saturating_sub(n), usize::MAX)))
}

/// `SUBSTRING(s, start, length)`: a start below 1 shortens the length.
pub fn substring(values: &[Value]) -> Out {
    let Some(args) = Args::strict("SUBSTRING", values) else { return Ok(Value::Null) };
    let (start, wanted) = (args.integer(1)?, part_length(args, 2)?);
    let s = args.text(0)?;
    if start >= 1 {
        return Ok(Value::text(slice(&s, length(start - 1), wanted)));
    }
    let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
    // from below the first character: what is left of `start + length - 1`
    Ok(Value::text(slice(&s, 0, length(start.saturating_sub(1).saturating_add(wanted)))))
}

/// `STUFF(s, start, length, insert)`: a start below 1 is the first character, one past the end gives empty text.
pub fn stuff(values: &[Value]) -> Out {
    let Some(args) = Args::strict("STUFF", values) else { return Ok(Value::Null) };
    let (start, deleted) = (length(args.integer(1)?.max(1) - 1), part_length(args, 2)?);
    let (s, insert) = (args.text(0)?, args.text(3)?);
    if start >= count(&s) {
        return Ok(Value::text(""));
    }
    let (front, rest) = s.split_at(offset(&s, start));
    let back = slice(rest, deleted, usize::MAX);
    args.check_size(front.len() + insert.len() + back.len())?;
    Ok(Value::text([front, &insert, back].concat()))
}

/// `CHARINDEX(find, s [, start])`: the place counts from the start of `s`; 0 when absent.
pub fn charindex(values: &[Value]) -> Out {
    let Some(args) = Args::strict("CHARINDEX", values) else { return Ok(Value::Null) };
    let start = if args.len() > 2 { args.integer(2)? } else { 1 };
    let (find, s) = (args.text(0)?, args.text(1)?);
    let from = offset(&s, length(start.saturating_sub(1)));
    let found = if find.is_empty() { None } else { s.get(from..).and_then(|rest| rest.find(&*find)) };
    Ok(Value::BigInt(found.map_or(0, |at| position(&s, from + at))))
}

pub fn concat(values: &[Value]) -> Out {
    join(Args::new("CONCAT", values), "", 0)
}

/// A NULL separator reads as empty text, as CONCAT reads every NULL.
pub fn concat_ws(values: &[Value]) -> Out {
    let args = Args::new("CONCAT_WS", values);
    let separator = if args.get(0).is_null() { std::borrow::Cow::Borrowed("") } else { args.text(0)? };
    join(args, &separator, 1)
}

/// The arguments from `first` on that are not NULL, with the separator between them.
fn join(args: Args<'_>, separator: &str, first: usize) -> Out {
    let mut out = String::new();
    let mut any = false;
    for i in (first..args.len()).filter(|i| !args.get(*i).is_null()) {
        let part = args.text(i)?;
        let separator = if any { separator } else { "" };
        args.check_size(out.len() + separator.len() + part.len())?;
        out.push_str(separator);
        out.push_str(&part);
        any = true;
    }
    Ok(Value::text(out))
}

/// Every occurrence, left to right; empty `find` changes nothing.
pub fn replace(values: &[Value]) -> Out {
    let Some(args) = Args::strict("REPLACE", values) else { return Ok(Value::Null) };
    let (s, find, with) = (args.text(0)?, args.text(1)?, args.text(2)?);
    if find.is_empty() {
        return Ok(Value::text(s));
    }
    if with.len() > find.len() {
        let growth = s.matches(&*find).count().saturating_mul(with.len() - find.len());
        args.check_size(s.len().saturating_add(growth))?;
    }
    Ok(Value::text(s.replace(&*find, &with)))
}

/// A negative count gives NULL.
pub fn replicate(values: &[Value]) -> Out {
    let Some(args) = Args::strict("REPLICATE", values) else { return Ok(Value::Null) };
    let s = args.text(0)?;
    repeated(args, &s, args.integer(1)?)
}

/// A negative count gives NULL.
pub fn space(values: &[Value]) -> Out {
    let Some(args) = Args::strict("SPACE", values) else { return Ok(Value::Null) };
    repeated(args, " ", args.integer(0)?)
}

fn repeated(args: Args<'_>, unit: &str, n: i64) -> Out {
    if n < 0 {
        return Ok(Value::Null);
    }
    let times = if unit.is_empty() { 0 } else { length(n) };
    args.check_size(unit.len().saturating_mul(times))?;
    Ok(Value::text(unit.repeat(times)))
}

/// Each character that stands in the second text becomes the one at the same place of the third.
pub fn translate(values: &[Value]) -> Out {
    let Some(args) = Args::strict("TRANSLATE", values) else { return Ok(Value::Null) };
    let (s, from, to) = (args.text(0)?, args.text(1)?, args.text(2)?);
    let (given, wanted) = (count(&from), count(&to));
    if given != wanted {
        return Err(args.error("argument", format!("the lists of characters differ in length: {given} and {wanted}")));
    }
    let mut pairs: Vec<(char, char)> = from.chars().zip(to.chars()).collect();
    // a stable sort keeps the first of two equal characters in front, and the search must find that one
    pairs.sort_by_key(|(from, _)| *from);
    pairs.dedup_by_key(|(from, _)| *from);
    let map = |c: char| {
        pairs.binary_search_by_key(&c, |(from, _)| *from).ok().and_then(|i| pairs.get(i)).map_or(c, |(_, to)| *to)
    };
    Ok(Value::text(s.chars().map(map).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::builtins::{RESULT_BYTES_MAX, lookup};

    /// Arguments in JSON to the result in JSON, or to the reason of the error.
    fn call(name: &str, args: &[Value]) -> String {
        match (lookup(name).unwrap().call)(args) {
            Ok(v) => v.to_json(),
            Err(e) => e.reason.to_owned(),
        }
    }

    fn t(s: &str) -> Value {
        Value::text(s)
    }

    const fn n(n: i64) -> Value {
        Value::BigInt(n)
    }

    #[test]
    fn parts_of_text() {
        for (name, args, expected) in [
            ("LEFT", vec![t("häuser"), n(2)], r#""hä""#),
            ("LEFT", vec![t("abc"), n(-1)], "argument"),
            ("LEFT", vec![n(12345), n(2)], r#""12""#),
            ("RIGHT", vec![t("häuser"), n(5)], r#""äuser""#),
            ("RIGHT", vec![t("abc"), n(i64::MAX)], r#""abc""#),
            ("SUBSTRING", vec![t("gateway"), n(0), n(4)], r#""gat""#),
            ("SUBSTRING", vec![t("gateway"), n(-5), n(3)], r#""""#),
            ("SUBSTRING", vec![t("gateway"), n(i64::MIN), n(i64::MAX)], r#""""#),
            ("SUBSTRING", vec![t("gateway"), n(0), n(i64::MAX)], r#""gateway""#),
            ("SUBSTRING", vec![t("gateway"), n(2), n(-1)], "argument"),
            ("SUBSTRING", vec![t("gateway"), Value::Float(2.9), n(1)], r#""a""#),
            ("STUFF", vec![t("sensor"), n(3), n(2), t("XY")], r#""seXYor""#),
            ("STUFF", vec![t("sensor"), n(0), n(2), t("X")], r#""Xnsor""#),
            ("STUFF", vec![t("sensor"), n(7), n(0), t("X")], r#""""#),
            ("STUFF", vec![t("sensor"), n(6), n(1), Value::Null], "null"),
            ("LEN", vec![t("ä b  ")], "3"),
            ("REVERSE", vec![t("aß😀")], r#""😀ßa""#),
            ("TRIM", vec![t("\u{2028}\u{a0}x\u{85}\t")], r#""x""#),
            ("LTRIM", vec![t("  x ")], r#""x ""#),
        ] {
            assert_eq!(call(name, &args), expected, "{name} {args:?}");
        }
    }

    #[test]
    fn joining_skips_nulls() {
        assert_eq!(call("CONCAT", &[Value::Null, n(1), Value::Float(2.5), Value::Bit(true)]), r#""12.51""#);
        assert_eq!(call("CONCAT", &[Value::Null, Value::Null]), r#""""#);
        assert_eq!(call("CONCAT", &[t("a"), Value::array(vec![])]), "argument");
        assert_eq!(call("CONCAT_WS", &[t("/"), t("a"), Value::Null, t(""), t("b")]), r#""a//b""#);
        assert_eq!(call("CONCAT_WS", &[Value::Null, t("a"), t("b")]), r#""ab""#);
    }

    #[test]
    fn searching_counts_from_one_and_minds_letter_case() {
        assert_eq!(call("CHARINDEX", &[t("C"), t("äbCc")]), "3");
        assert_eq!(call("CHARINDEX", &[t("x"), t("abc")]), "0");
        assert_eq!(call("CHARINDEX", &[t(""), t("abc")]), "0");
        assert_eq!(call("CHARINDEX", &[t("a"), t("a"), n(i64::MAX)]), "0");
        assert_eq!(call("CHARINDEX", &[t("a"), t("a"), n(i64::MIN)]), "1");
        assert_eq!(call("REPLACE", &[t("aAa"), t("a"), t("bb")]), r#""bbAbb""#);
        assert_eq!(call("TRANSLATE", &[t("aba"), t("aa"), t("xy")]), r#""xbx""#);
        assert_eq!(call("TRANSLATE", &[t("aba"), t("ab"), t("x")]), "argument");
    }

    #[test]
    fn characters_and_their_codes() {
        assert_eq!(call("NCHAR", &[n(937)]), r#""Ω""#);
        assert_eq!(call("NCHAR", &[n(0xD800)]), "null");
        assert_eq!(call("NCHAR", &[n(-1)]), "null");
        assert_eq!(call("UNICODE", &[t("")]), "null");
        assert_eq!(call("UNICODE", &[t("😀")]), "128512");
    }

    #[test]
    fn runaway_results_are_refused_before_they_are_built() {
        let most = RESULT_BYTES_MAX as i64;
        assert_eq!(call("SPACE", &[n(i64::MAX)]), "too_long");
        assert_eq!(call("SPACE", &[n(-1)]), "null");
        assert_eq!(call("REPLICATE", &[t("ab"), n(most)]), "too_long");
        assert_eq!(call("REPLICATE", &[t(""), n(i64::MAX)]), r#""""#);
        let long = t(&"x".repeat(RESULT_BYTES_MAX));
        assert_eq!(call("CONCAT", &[long.clone(), t("y")]), "too_long");
        assert_eq!(call("REPLACE", &[long.clone(), t("x"), t("yy")]), "too_long");
        assert_eq!(call("STUFF", &[long, n(1), n(0), t("y")]), "too_long");
    }
}
