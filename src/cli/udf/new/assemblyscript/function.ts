// udf.{{camel}}(value, low, high): where a value lies between two bounds, 0 to 1. A core module: an export that takes and
// gives numbers is a function of SQL directly. Texts, records and errors with words go as JSON: see wit/core-abi.md of forebay.

/** No number (null in rows) when `low` is not below `high`. */
export function {{camel}}(value: f64, low: f64, high: f64): f64 {
  if (!(low < high)) return NaN;
  return Math.min(Math.max((value - low) / (high - low), 0), 1);
}
