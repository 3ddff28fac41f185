//! A signature that a person writes, where the endpoint does not describe itself.
//!
//! In: `input_kind`, `input_path`, `columns`, `output_path` of a section. Out: an [`EndpointSignature`]. Invariant:
//! rows of objects have columns, and a vector has at most one. Not here: what the endpoint says of itself.

use toml::de::DeValue;

use super::{Cell, Cells, EndpointSignature, Layout, SignatureColumn};
use crate::diagnostic::{Diagnostic, Span, suggest};
use crate::settings::Section;

/// How rows stand in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WrittenForm {
    /// A list of lists.
    Array,
    /// A list of objects.
    Records,
    /// A list of values.
    Vector,
    /// An object of `columns` and `data`.
    Split,
}

const CELL_TYPES: [&str; 7] = ["bigint", "float", "nvarchar(max)", "datetime", "bit", "array", "any"];

/// `input_kind`, `input_path`, `columns`, `output_path`.
pub(in crate::score) fn read(section: &mut Section) -> Option<EndpointSignature> {
    let words = [
        ("array", WrittenForm::Array),
        ("records", WrittenForm::Records),
        ("vector", WrittenForm::Vector),
        ("split", WrittenForm::Split),
    ];
    let others = ["input_path", "columns", "output_path"].into_iter().find(|key| section.has(key));
    let is_given = section.has("input_kind");
    let kind = section.optional_choice("input_kind", &words);
    let input_path = path(section, "input_path").unwrap_or_else(|| vec!["data".to_string()]);
    let columns = columns(section);
    let output_path = path(section, "output_path");
    if let Some(key) = others.filter(|_| !is_given) {
        let title = format!("`{key}` without `input_kind`");
        section.wrong(
            key,
            title,
            "half a signature",
            "write `input_kind = \"array\"`, or leave the signature to the endpoint's swagger",
        );
        return None;
    }
    let input = kind?;
    let missing = columns.is_empty() && matches!(input, WrittenForm::Records | WrittenForm::Split);
    if missing && !section.has("columns") {
        section.wrong(
            "input_kind",
            "the columns are missing",
            "rows of this kind have named columns",
            "write `columns = [{ name = \"distance\", type = \"float\" }]`",
        );
    } else if columns.len() > 1 && input == WrittenForm::Vector {
        section.wrong(
            "columns",
            "a vector has one column",
            "expected one",
            "write `input_kind = \"array\"` for rows of several values",
        );
    }
    let cells = || columns.iter().map(|column| column.cell).collect::<Vec<_>>();
    let layout = match input {
        WrittenForm::Array | WrittenForm::Records if columns.is_empty() => Layout::Untyped,
        WrittenForm::Array => Layout::Array { dims: 2, width: Some(columns.len()), cells: Cells::Each(cells()) },
        WrittenForm::Records => Layout::Records { columns, required: Vec::new() },
        WrittenForm::Vector => Layout::Vector { cell: cells().first().copied().unwrap_or(Cell::Any) },
        WrittenForm::Split => Layout::Split { columns },
    };
    Some(EndpointSignature::of(input_path, layout, output_path.unwrap_or_default()))
}

/// `"Inputs.data"` or `["Inputs", "data"]`.
fn path(section: &mut Section, key: &str) -> Option<Vec<String>> {
    let parts: Vec<String> = match section.get(key)?.0 {
        DeValue::String(text) => text.split('.').map(str::to_string).collect(),
        _ => section.texts(key)?.into_iter().map(|part| part.value).collect(),
    };
    let is_complete = !parts.is_empty() && parts.iter().all(|part| !part.is_empty());
    if !is_complete && !section.is_wrong(key) {
        section.wrong(
            key,
            format!("`{key}` has an empty part"),
            "expected names",
            format!("write `{key} = \"Inputs.data\"`; names with points stand in a list"),
        );
    }
    is_complete.then_some(parts)
}

fn columns(section: &mut Section) -> Vec<SignatureColumn> {
    const FORM: &str = "write `columns = [{ name = \"distance\", type = \"float\" }]`";
    let Some((value, span)) = section.get("columns") else { return Vec::new() };
    let DeValue::Array(items) = value else {
        section.problems().push(
            Diagnostic::error("`columns` has the wrong form", span).label("expected a list of tables").help(FORM),
        );
        return Vec::new();
    };
    let mut columns: Vec<SignatureColumn> = Vec::new();
    for item in items.iter() {
        let DeValue::Table(table) = item.get_ref() else {
            section.problems().push(
                Diagnostic::error("a column has the wrong form", Span::from(item.span()))
                    .label("expected `{ name, type }`")
                    .help(FORM),
            );
            continue;
        };
        let mut column = section.inner("columns", table);
        column.span = Some(Span::from(item.span()));
        let name = column.required_text("name", FORM);
        let ty = column.required_text("type", FORM).and_then(|text| {
            let found = Cell::parse(&text.value);
            if found.is_none() {
                let error = Diagnostic::error("this is no type of a column", text.span)
                    .label("expected a type of the query language");
                let meant = suggest(&text.value, CELL_TYPES);
                column.problems().push(error.help(
                    meant.map_or(format!("the types are {}", CELL_TYPES.join(", ")), |meant| {
                        format!("did you mean \"{meant}\"?")
                    }),
                ));
            }
            found
        });
        column.finish();
        let (Some(name), Some(ty)) = (name, ty) else { continue };
        if columns.iter().any(|other| other.name == name.value) {
            section
                .problems()
                .push(Diagnostic::error("two columns of the same name", name.span).label("a row has it twice"));
        }
        columns.push(SignatureColumn { name: name.value, cell: ty });
    }
    columns
}
