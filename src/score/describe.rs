//! A signature in words, for `forebay check`.
//!
//! In: an [`EndpointSignature`] and what is known of the columns a query sends. Out: lines of text: what goes where,
//! and what is converted how. Invariant: a conversion shown as possible is one that `body` makes. Not here: fetching.

use std::fmt::Write;

use crate::diagnostic::counted;
use crate::value::{SmolStr, Type, Value, same_ignoring_case};

use super::body::conversion;
use super::signature::{Cell, Cells, EndpointSignature, Layout, PerRow, SignatureColumn};

/// Columns that are named where a row does not fit.
const LISTED_MAX: usize = 12;

/// What is known of a value that a query sends: its name, when it has one, and its type.
pub type Given = (Option<SmolStr>, Option<Type>);

/// Describes a signature. `given`: the columns of the query's argument in their order, with names where they have any
/// and types where they are known; empty when nothing is known.
pub fn describe(signature: &EndpointSignature, given: &[Given]) -> String {
    let mut out = String::new();
    let input = &signature.input;
    let _ = writeln!(out, "rows     `{}`: {}", input.path.join("."), layout_words(&input.layout));
    for (name, value) in &input.constants {
        let _ = writeln!(out, "constant `{name}`: {value}");
    }
    let place = if signature.output.path.is_empty() {
        "the answer".into()
    } else {
        format!("`{}`", signature.output.path.join("."))
    };
    let _ = writeln!(out, "results  {place}: {}", per_row_words(&signature.output.per_row));
    match &input.layout {
        Layout::Records { columns, .. } => named_columns(&mut out, columns, given),
        Layout::Split { columns }
        | Layout::Columns { columns }
        | Layout::Index { columns }
        | Layout::Table { columns, .. } => named_columns(&mut out, columns, &in_order(columns, given)),
        Layout::Array { width, cells, .. } => list_columns(&mut out, *width, cells, given),
        Layout::Vector { cell } => line(&mut out, "value", *cell, given.first().and_then(|(_, ty)| *ty)),
        Layout::Untyped => {}
    }
    out
}

/// Why no row of this form can be sent: each reason in words, none when it fits or too little is known.
pub fn misfits(signature: &EndpointSignature, given: &[Given]) -> Vec<String> {
    let is_array = given.iter().all(|(name, _)| name.is_none());
    match &signature.input.layout {
        _ if given.is_empty() => Vec::new(),
        Layout::Records { .. } if is_array => vec!["it takes a record, and this is an array".to_owned()],
        Layout::Records { columns, required } => {
            named_misfits(columns, given, |column| required.is_empty() || required.contains(&column.name))
        }
        Layout::Split { columns }
        | Layout::Columns { columns }
        | Layout::Index { columns }
        | Layout::Table { columns, .. } => match is_array && columns.len() != given.len() {
            true => vec![format!("it takes {}, and this array has {}", columns_of(columns), given.len())],
            false => named_misfits(columns, &in_order(columns, given), |_| true),
        },
        Layout::Array { .. } if !is_array => vec!["it takes an array, and this is a record".to_owned()],
        Layout::Array { width: Some(width), .. } if *width != given.len() => {
            vec![format!("it takes {}, and this array has {}", counted(*width, "column"), given.len())]
        }
        Layout::Array { .. } | Layout::Vector { .. } | Layout::Untyped => Vec::new(),
    }
}

fn named_misfits(
    columns: &[SignatureColumn],
    given: &[Given],
    is_needed: impl Fn(&SignatureColumn) -> bool,
) -> Vec<String> {
    let mut misfits = Vec::new();
    for column in columns {
        match given.iter().find(|(name, _)| is(column, name.as_ref())) {
            None if is_needed(column) => misfits.push(format!("its column `{}` is missing", column.name)),
            Some((_, Some(ty))) if conversion(*ty, column.cell).is_err() => {
                misfits.push(format!("its column `{}` takes {}, to which no {ty} converts", column.name, column.cell));
            }
            _ => {}
        }
    }
    let unknown = given
        .iter()
        .filter_map(|(name, _)| name.as_ref())
        .filter(|name| !columns.iter().any(|column| is(column, Some(name))));
    misfits.extend(unknown.map(|name| format!("it has no column `{name}`")));
    misfits
}

/// An array goes into a data frame by position: its values get the names of the columns.
fn in_order(columns: &[SignatureColumn], given: &[Given]) -> Vec<Given> {
    let named = |(i, (name, ty)): (usize, &Given)| {
        (name.clone().or_else(|| columns.get(i).map(|c| c.name.as_str().into())), *ty)
    };
    given.iter().enumerate().map(named).collect()
}

fn is(column: &SignatureColumn, name: Option<&SmolStr>) -> bool {
    name.is_some_and(|name| same_ignoring_case(name, &column.name))
}

fn columns_of(columns: &[SignatureColumn]) -> String {
    counted(columns.len(), "column")
}

/// The columns that a signature takes, in a few words.
pub(super) fn taken(layout: &Layout) -> String {
    let named = |columns: &[SignatureColumn]| {
        listed(columns.len(), columns.iter().map(|column| format!("{} {}", column.name, column.cell)))
    };
    match layout {
        Layout::Array { width, cells: Cells::Each(cells), .. } => {
            let width = width.unwrap_or(cells.len());
            format!("an array of {}", listed(width, cells.iter().map(Cell::to_string)))
        }
        Layout::Array { width, cells: Cells::All(cell), .. } => {
            let width = width.map_or_else(|| "any width".to_owned(), |width| counted(width, "column"));
            format!("an array of {width} ({cell})")
        }
        Layout::Records { columns, .. } => format!("a record of {}", named(columns)),
        Layout::Vector { cell } => format!("one {cell}"),
        Layout::Split { columns }
        | Layout::Columns { columns }
        | Layout::Index { columns }
        | Layout::Table { columns, .. } => format!("a data frame of {}", named(columns)),
        Layout::Untyped => "anything".to_owned(),
    }
}

/// The columns of a row, in a few words.
pub(super) fn sent(row: &Value) -> String {
    let kind = |value: &Value| value.kind().map_or_else(|| "NULL".to_owned(), |kind| kind.to_string());
    match row {
        Value::Array(items) => format!("an array of {}", listed(items.len(), items.iter().map(kind))),
        Value::Record(record) => {
            let columns = record.iter().map(|(name, value)| format!("{name} {}", kind(value)));
            format!("a record of {}", listed(record.len(), columns))
        }
        other => format!("one {}", kind(other)),
    }
}

/// This number of columns and the first of them.
fn listed(len: usize, columns: impl Iterator<Item = String>) -> String {
    let mut shown: Vec<String> = columns.take(LISTED_MAX).collect();
    if len > shown.len() && !shown.is_empty() {
        shown.push("…".to_owned());
    }
    match shown.is_empty() {
        true => counted(len, "column"),
        false => format!("{} ({})", counted(len, "column"), shown.join(", ")),
    }
}

fn layout_words(layout: &Layout) -> String {
    match layout {
        Layout::Array { width: Some(width), .. } => format!("one array of {} a row", counted(*width, "column")),
        Layout::Array { .. } => "one array a row, of any width".into(),
        Layout::Records { columns, .. } => format!("one record of {} a row", columns_of(columns)),
        Layout::Vector { cell } => format!("one {cell} a row"),
        Layout::Split { columns } => format!("a data frame of {} (split)", columns_of(columns)),
        Layout::Columns { columns } => format!("a data frame of {} (by column)", columns_of(columns)),
        Layout::Index { columns } => format!("a data frame of {} (by row)", columns_of(columns)),
        Layout::Table { columns, .. } => format!("a data frame of {} (table)", columns_of(columns)),
        Layout::Untyped => {
            "as the query gives them; the endpoint describes nothing, so nothing is checked or converted".into()
        }
    }
}

fn per_row_words(per_row: &PerRow) -> String {
    match per_row {
        PerRow::Cell(cell) => format!("one {cell} a row"),
        PerRow::Record(columns) => {
            let columns: Vec<String> = columns.iter().map(|c| format!("{} {}", c.name, c.cell)).collect();
            format!("one record a row ({})", columns.join(", "))
        }
        PerRow::Untyped => "one a row, of unknown type".into(),
    }
}

fn named_columns(out: &mut String, columns: &[SignatureColumn], given: &[Given]) {
    for column in columns {
        let found = given.iter().find(|(name, _)| is(column, name.as_ref()));
        if !given.is_empty() && found.is_none() {
            let _ = writeln!(
                out,
                "  {:<16} {:<14} MISSING: the query does not send it",
                column.name,
                column.cell.to_string()
            );
        } else {
            line(out, &column.name, column.cell, found.and_then(|(_, ty)| *ty));
        }
    }
    for (name, _) in given.iter().filter(|(name, _)| !columns.iter().any(|column| is(column, name.as_ref()))) {
        let _ =
            writeln!(out, "  {:<16} {:<14} EXTRA: the endpoint has no such column", name.as_deref().unwrap_or("?"), "");
    }
}

fn list_columns(out: &mut String, width: Option<usize>, cells: &Cells, given: &[Given]) {
    if let Some(width) = width.filter(|width| !given.is_empty() && *width != given.len()) {
        let sent = counted(given.len(), "column");
        let _ = writeln!(out, "  WRONG WIDTH: the query sends {sent}, the endpoint takes {width}");
    }
    for i in 0..width.unwrap_or(1).max(given.len()) {
        let cell = match cells {
            Cells::All(cell) => *cell,
            Cells::Each(cells) => cells.get(i).copied().unwrap_or(Cell::Any),
        };
        let (name, ty) = given.get(i).cloned().unwrap_or_default();
        line(out, &name.map_or_else(|| format!("column {}", i + 1), |name| name.to_string()), cell, ty);
    }
}

fn line(out: &mut String, name: &str, cell: Cell, given: Option<Type>) {
    let _ = match given.map(|ty| (ty, conversion(ty, cell))) {
        None => writeln!(out, "  {name:<16} {cell}"),
        Some((ty, Ok(how))) => writeln!(out, "  {name:<16} {:<14} from {ty}: {how}", cell.to_string()),
        Some((ty, Err(why))) => {
            writeln!(out, "  {name:<16} {:<14} from {ty}: {}", cell.to_string(), why.to_uppercase())
        }
    };
}
