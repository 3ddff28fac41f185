//! `forebay:host/lookup`: rows of reference tables.
//!
//! In: tables as the executor holds them, and columns and values that guests look for. Out: rows as JSON text.
//! Invariant: a lookup reads an index, made once for each version of a table and column, never the table. Not here:
//! loading tables.
//!
//! A row is JSON text, not a variant: WIT has no recursive types, so a variant could hold neither records nor arrays.
//! Functions that have no JSON reader take single columns as scalars.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower};

use super::{CallFailure, Grant, lent, refuse};
use crate::udf::instance::GuestState;
use crate::value::Value;

/// Columns of one table that a function may look by: each costs an index of the whole table.
const COLUMNS_MAX: usize = 8;
/// Rows that one lookup gives at most: their text goes into the guest's memory.
const ROWS_MAX: usize = 1000;

/// Every float in this range without a fraction is exactly one bigint.
const WHOLE_MIN: f64 = -9_223_372_036_854_775_808.0;
const WHOLE_END: f64 = 9_223_372_036_854_775_808.0;

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(variant)]
enum Scalar {
    #[component(name = "bit")]
    Bit(bool),
    #[component(name = "bigint")]
    BigInt(i64),
    #[component(name = "float")]
    Float(f64),
    #[component(name = "text")]
    Text(String),
}

#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(record)]
struct Json {
    #[component(name = "json-text")]
    json_text: String,
}

/// A value as an index compares it: numbers of equal value are one key.
#[derive(Debug, PartialEq, Eq, Hash)]
enum LookupKey {
    Whole(i64),
    /// by its bits
    Fraction(u64),
    Text(SmolStr),
}

impl LookupKey {
    /// `None` for what no scalar finds: NULL, records, arrays.
    fn of(value: &Value) -> Option<LookupKey> {
        Some(match value {
            Value::Bit(b) => LookupKey::Whole(i64::from(*b)),
            Value::BigInt(n) => LookupKey::Whole(*n),
            Value::Float(f) if f.fract() == 0.0 && (WHOLE_MIN..WHOLE_END).contains(f) => LookupKey::Whole(*f as i64),
            Value::Float(f) => LookupKey::Fraction(f.to_bits()),
            Value::Text(text) => LookupKey::Text(text.clone()),
            Value::DateTime(time) => LookupKey::Text(SmolStr::new(time.to_string())),
            Value::Null | Value::Record(_) | Value::Array(_) => return None,
        })
    }
}

impl Scalar {
    fn value(self) -> Value {
        match self {
            Scalar::Bit(b) => Value::Bit(b),
            Scalar::BigInt(n) => Value::BigInt(n),
            Scalar::Float(f) => Value::Float(f),
            Scalar::Text(text) => Value::text(text),
        }
    }

    fn of(value: &Value) -> Option<Scalar> {
        Some(match value {
            Value::Bit(b) => Scalar::Bit(*b),
            Value::BigInt(n) => Scalar::BigInt(*n),
            Value::Float(f) => Scalar::Float(*f),
            Value::Text(text) => Scalar::Text(text.to_string()),
            Value::DateTime(time) => Scalar::Text(time.to_string()),
            Value::Null | Value::Record(_) | Value::Array(_) => return None,
        })
    }
}

type LookupIndex = FxHashMap<LookupKey, Vec<usize>>;

/// The tables that a function may read.
#[derive(Debug, Default)]
pub struct LookupTables(FxHashMap<SmolStr, LookupTable>);

/// The present version of a table; `None` before there is one.
#[derive(Debug, Default)]
struct LookupTable {
    rows: Option<Arc<Vec<Value>>>,
    /// by column as the guest spells it
    indexes: FxHashMap<Box<str>, LookupIndex>,
}

impl LookupTables {
    pub fn new(granted: &[SmolStr]) -> LookupTables {
        LookupTables(granted.iter().map(|name| (name.clone(), LookupTable::default())).collect())
    }

    /// Takes a new version; indexes of the one before are forgotten. A table that was not granted is not kept.
    pub fn set(&mut self, name: &str, rows: &Arc<Vec<Value>>) {
        let is_same = |table: &LookupTable| table.rows.as_ref().is_some_and(|known| Arc::ptr_eq(known, rows));
        if let Some(table) = self.0.get_mut(name).filter(|table| !is_same(table)) {
            *table = LookupTable { rows: Some(Arc::clone(rows)), indexes: FxHashMap::default() };
        }
    }

    /// The rows whose column has the value, in the table's order.
    ///
    /// # Errors
    /// The table is not granted or not there; too many columns or rows.
    fn find(&mut self, name: &str, column: &str, value: Scalar) -> Result<impl Iterator<Item = &Value>, String> {
        let Some(table) = self.0.get_mut(name) else {
            return Err(format!("looks into `{name}`, which is not granted; name it in `lookup` of the job file"));
        };
        let Some(rows) = &table.rows else {
            return Err(format!("looks into `{name}`, which is not loaded"));
        };
        if !table.indexes.contains_key(column) {
            if table.indexes.len() >= COLUMNS_MAX {
                return Err(format!(
                    "looks into `{name}` by more than {COLUMNS_MAX} columns; each needs an index: use fewer"
                ));
            }
            table.indexes.insert(column.into(), index(rows, column));
        }
        let found = LookupKey::of(&value.value()).and_then(|key| table.indexes.get(column)?.get(&key));
        Ok(found.into_iter().flatten().filter_map(|i| rows.get(*i)))
    }
}

fn index(rows: &[Value], column: &str) -> LookupIndex {
    let mut index = LookupIndex::default();
    for (i, row) in rows.iter().enumerate() {
        if let Some(key) = cell(row, column).and_then(LookupKey::of) {
            index.entry(key).or_default().push(i);
        }
    }
    index
}

fn cell<'v>(row: &'v Value, column: &str) -> Option<&'v Value> {
    match row {
        Value::Record(record) => record.find(column),
        _ => None,
    }
}

fn json(row: &Value) -> Json {
    Json { json_text: row.to_json() }
}

pub fn link(linker: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    linker.func_wrap("get", |mut store, (table, column, value): (String, String, Scalar)| {
        let mut found = lent(&mut store, Grant::Lookup)?
            .tables
            .find(&table, &column, value)
            .or_else(|why| refuse(CallFailure::Trap, why))?;
        Ok((found.next().map(json),))
    })?;
    linker.func_wrap("all", |mut store, (table, column, value): (String, String, Scalar)| {
        let found = lent(&mut store, Grant::Lookup)?
            .tables
            .find(&table, &column, value)
            .or_else(|why| refuse(CallFailure::Trap, why))?;
        let found: Vec<&Value> = found.collect();
        if found.len() > ROWS_MAX {
            let n = found.len();
            return refuse(
                CallFailure::Trap,
                format!("asks for {n} rows of `{table}` at once; a lookup gives {ROWS_MAX}: look by a narrower column"),
            );
        }
        Ok((found.into_iter().map(json).collect::<Vec<_>>(),))
    })?;
    linker.func_wrap("get-value", |mut store, (table, column, value, wanted): (String, String, Scalar, String)| {
        let mut found = lent(&mut store, Grant::Lookup)?
            .tables
            .find(&table, &column, value)
            .or_else(|why| refuse(CallFailure::Trap, why))?;
        Ok((found.next().and_then(|row| cell(row, &wanted)).and_then(Scalar::of),))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udf::json;

    fn table(text: &str) -> Arc<Vec<Value>> {
        let Value::Array(rows) = json::parse(text).unwrap() else { panic!("an array") };
        Arc::new(rows.to_vec())
    }

    fn found(tables: &mut LookupTables, column: &str, value: Scalar) -> String {
        tables.find("zones", column, value).unwrap().map(Value::to_json).collect()
    }

    #[test]
    fn rows_are_found_by_value_and_a_new_version_by_its_own() {
        let mut tables = LookupTables::new(&["zones".into()]);
        assert!(tables.find("zones", "id", Scalar::BigInt(1)).map(drop).unwrap_err().contains("not loaded"));
        assert!(tables.find("other", "id", Scalar::BigInt(1)).map(drop).unwrap_err().contains("not granted"));
        tables
            .set("zones", &table(r#"[{"id":1.0,"n":"a"},{"id":"1","n":"b"},{"id":null,"n":"a"},{"ID":1,"n":"c"},5]"#));
        tables.set("other", &table("[]"));
        assert_eq!(found(&mut tables, "id", Scalar::BigInt(1)), r#"{"id":1.0,"n":"a"}{"ID":1,"n":"c"}"#);
        assert_eq!(found(&mut tables, "id", Scalar::Text("1".into())), r#"{"id":"1","n":"b"}"#);
        assert_eq!(found(&mut tables, "n", Scalar::Text("a".into())), r#"{"id":1.0,"n":"a"}{"id":null,"n":"a"}"#);
        assert_eq!(found(&mut tables, "none", Scalar::Bit(true)), "");
        tables.set("zones", &table(r#"[{"id":1,"n":"new"}]"#));
        assert_eq!(found(&mut tables, "id", Scalar::Float(1.0)), r#"{"id":1,"n":"new"}"#);
    }

    #[test]
    fn indexes_are_made_once_and_few() {
        let mut tables = LookupTables::new(&["zones".into()]);
        tables.set("zones", &table(r#"[{"id":1}]"#));
        for _ in 0..3 {
            found(&mut tables, "id", Scalar::BigInt(1));
        }
        assert_eq!(tables.0["zones"].indexes.len(), 1);
        for i in 1..COLUMNS_MAX {
            found(&mut tables, &format!("c{i}"), Scalar::BigInt(1));
        }
        assert!(
            tables.find("zones", "one_more", Scalar::BigInt(1)).map(drop).unwrap_err().contains("more than 8 columns")
        );
        assert_eq!(found(&mut tables, "id", Scalar::BigInt(1)), r#"{"id":1}"#);
    }
}
