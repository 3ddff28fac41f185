//! Functions of other SQL that this language has not, and what to write instead.
//!
//! In: the name of a function that is unknown. Out: a hint. Invariant: what a hint says to write is in the language.
//! Not here: misspelt names of the language's own functions.

/// Names in upper case, and the hint.
const HINTS: &[(&[&str], &str)] = &[
    (&["ISNULL", "IFNULL", "NVL"], "write `COALESCE(a, b)`: the first that is not NULL"),
    (&["IIF", "IF", "CHOOSE", "DECODE"], "write `CASE WHEN a > b THEN x ELSE y END`"),
    (&["CONVERT", "PARSE", "TO_NUMBER", "TO_CHAR", "TO_DATE", "STR"], "write `CAST(x AS type)`"),
    (&["TRY_CONVERT", "TRY_PARSE"], "write `TRY_CAST(x AS type)`: NULL where it does not convert"),
    (
        &["GETDATE", "NOW", "SYSDATETIME", "SYSUTCDATETIME", "CURRENT_TIMESTAMP", "SYSDATETIMEOFFSET"],
        "no function reads a clock: `System.Timestamp()` is the time of the event, `GETUTCDATE()` its arrival",
    ),
    (&["CEIL"], "write `CEILING(x)`"),
    (&["POW"], "write `POWER(x, y)`"),
    (&["LENGTH", "CHAR_LENGTH", "DATALENGTH"], "write `LEN(s)`"),
    (&["SUBSTR", "MID"], "write `SUBSTRING(s, start, length)`"),
    (&["INSTR", "POSITION", "STRPOS"], "write `CHARINDEX(find, s)`"),
    (&["ASCII"], "write `UNICODE(s)`: the code of the first character"),
    (&["CHAR", "CHR"], "write `NCHAR(n)`"),
    (&["UCASE"], "write `UPPER(s)`"),
    (&["LCASE"], "write `LOWER(s)`"),
    (&["REGEXP_LIKE", "REGEXP", "RLIKE"], "write `REGEXMATCH(s, pattern) > 0`"),
    (&["NEWID", "NEWGUID", "UUID"], "a stable id of each event is `GetMetadataPropertyValue(input, 'EventId')`"),
    (
        &["STRING_AGG", "GROUP_CONCAT", "LISTAGG", "ARRAY_AGG"],
        "write `Collect(x)` for an array, and join its texts in a function of yours: `udf.name(Collect(x))`",
    ),
    (
        &["ROW_NUMBER", "RANK", "DENSE_RANK", "NTILE"],
        "write `CollectTop(n) OVER (ORDER BY x)` with a window: an array of rank and value",
    ),
    (&["FIRST_VALUE", "LAST_VALUE", "ARGMAX", "ARGMIN"], "write `TopOne(x) OVER (ORDER BY y)` with a window"),
    (
        &["LEAD"],
        "nothing looks ahead: name the step and compare a row with the one before by `LAG(x) OVER (LIMIT \
        DURATION(second, 10))`",
    ),
    (&["MEDIAN"], "write `PERCENTILE_CONT(0.5) OVER (ORDER BY x)`"),
    (&["STDDEV", "STDDEV_SAMP"], "write `STDEV(x)`"),
    (&["STDDEV_POP"], "write `STDEVP(x)`"),
    (&["VARIANCE", "VAR_SAMP"], "write `VAR(x)`"),
    (&["VAR_POP"], "write `VARP(x)`"),
    (&["DATE_ADD", "ADDDATE"], "write `DATEADD(minute, 5, t)`"),
    (&["DATE_SUB"], "write `DATEADD(minute, -5, t)`"),
    (&["EXTRACT"], "write `DATEPART(hour, t)`"),
    (
        &["HOUR", "MINUTE", "SECOND", "WEEK", "QUARTER"],
        "write `DATEPART(hour, t)`; DAY, MONTH and YEAR are functions of their own",
    ),
    (&["TUMBLE", "HOP", "SESSION_WINDOW"], "write `GROUP BY TumblingWindow(second, 10)`"),
];

/// Names that the documents of the service say are not there, and that need code.
const CODE: &[&str] = &[
    "LOG",
    "LOG10",
    "LN",
    "PI",
    "SIN",
    "COS",
    "TAN",
    "ASIN",
    "ACOS",
    "ATAN",
    "ATAN2",
    "RAND",
    "FORMAT",
    "SPLIT",
    "STRING_SPLIT",
    "REGEXREPLACE",
    "REGEXP_REPLACE",
    "HASHBYTES",
    "CHECKSUM",
    "MD5",
    "SHA1",
    "SHA256",
    "EOMONTH",
    "SOUNDEX",
    "JSON_VALUE",
    "JSON_QUERY",
];

/// What to write instead of a function of other SQL.
pub(super) fn hint(name: &str) -> Option<&'static str> {
    let known = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    let found = HINTS.iter().find(|(names, _)| known(names)).map(|(_, hint)| *hint);
    found.or_else(|| {
        known(CODE).then_some(
            "the language has none; write it in any language that compiles to wasm and call it as `udf.name(…)`",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::builtins;

    #[test]
    fn no_hint_hides_a_function_of_the_language() {
        for name in HINTS.iter().flat_map(|(names, _)| names.iter()).chain(CODE) {
            assert!(builtins::lookup(name).is_none(), "{name}");
            assert!(
                !super::super::aggregate::is_aggregate(name) && !super::super::analytic::is_analytic(name),
                "{name}"
            );
        }
        assert_eq!(hint("isnull"), Some("write `COALESCE(a, b)`: the first that is not NULL"));
        assert!(hint("log10").is_some_and(|text| text.contains("udf.name")));
        assert_eq!(hint("COALESC"), None);
    }
}
