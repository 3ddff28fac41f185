//! The signature of a scoring endpoint, read from its swagger document.
//!
//! In: swagger 2.0 or OpenAPI 3.0/3.1 text, or what a person wrote in the job file. Out: [`EndpointSignature`]: where
//! the rows go in the request, how they are laid out, the types of their cells, what else the body must hold, and where
//! the results are. Invariant: a path of an input is never empty, and reading a document never panics or loops. Not
//! here: walking the document (`swagger`), fetching it (`http`), building bodies (`body`).

#[cfg(test)]
mod tests;
pub(super) mod written;

use std::fmt;

use serde_json::Value as Json;

use super::swagger;

/// What an endpoint takes and gives.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSignature {
    /// Path of the score operation as the document spells it; empty for a written signature.
    pub score_path: String,
    pub input: InputForm,
    pub output: OutputForm,
}

/// Where and how rows are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct InputForm {
    /// Keys from the top of the body down to the rows: `data`, or `Inputs` and `WebServiceInput0`.
    pub path: Vec<String>,
    pub layout: Layout,
    /// Other top-level properties with the value to send.
    pub constants: Vec<(String, Json)>,
}

/// How rows are laid out below the path.
#[derive(Clone, Debug, PartialEq)]
pub enum Layout {
    /// A row is a list; `dims` counts the levels of lists including the one of rows.
    Array { dims: usize, width: Option<usize>, cells: Cells },
    /// A row is an object.
    Records { columns: Vec<SignatureColumn>, required: Vec<String> },
    /// A row is a scalar.
    Vector { cell: Cell },
    /// `{"columns": […], "index": […], "data": [[…]]}`
    Split { columns: Vec<SignatureColumn> },
    /// `{"column": {"0": …}}`
    Columns { columns: Vec<SignatureColumn> },
    /// `{"0": {"column": …}}`
    Index { columns: Vec<SignatureColumn> },
    /// `{"schema": …, "data": [{"index": 0, …}]}`; the schema is that of the example
    Table { columns: Vec<SignatureColumn>, schema: Json },
    /// Nothing is known: the row goes as the query typed it, in a list.
    Untyped,
}

/// Types of the cells of a row that is a list.
#[derive(Clone, Debug, PartialEq)]
pub enum Cells {
    All(Cell),
    Each(Vec<Cell>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct SignatureColumn {
    pub name: String,
    pub cell: Cell,
}

/// The type of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    BigInt,
    Float,
    Text,
    Bit,
    /// `zoned`: sent with a final `Z`. A column made from dates without a zone refuses one that has it, so the sample
    /// in the document decides.
    DateTime {
        zoned: bool,
    },
    Array,
    Any,
}

impl Cell {
    /// The cell type that the job file names; as in the query language.
    pub fn parse(name: &str) -> Option<Cell> {
        Some(match name.trim().to_ascii_lowercase().as_str() {
            "bigint" => Cell::BigInt,
            "float" => Cell::Float,
            "nvarchar(max)" | "string" => Cell::Text,
            "bit" => Cell::Bit,
            "datetime" => Cell::DateTime { zoned: true },
            "array" => Cell::Array,
            "any" => Cell::Any,
            _ => return None,
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cell::BigInt => "bigint",
            Cell::Float => "float",
            Cell::Text => "nvarchar(max)",
            Cell::Bit => "bit",
            Cell::DateTime { .. } => "datetime",
            Cell::Array => "array",
            Cell::Any => "any",
        })
    }
}

/// Where the results are. A hint only: it comes from the author's sample and nothing enforces it.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputForm {
    /// Keys to follow to the list of results; empty when the body is the list, or nothing is known.
    pub path: Vec<String>,
    pub per_row: PerRow,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PerRow {
    Cell(Cell),
    Record(Vec<SignatureColumn>),
    Untyped,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SignatureError {
    #[error("the swagger document is not JSON: {0}")]
    NotJson(String),
    #[error("the swagger document has no score operation (a `post` on a path that ends in /score)")]
    NoOperation,
    #[error("the swagger document is broken: {0}")]
    Broken(String),
    #[error(
        "several inputs hold rows ({}): write the signature in the job file and name the one to use",
        .0.join(", ")
    )]
    Ambiguous(Vec<String>),
}

impl EndpointSignature {
    /// Reads a swagger document (2.0, 3.0 or 3.1).
    pub fn from_swagger(text: &str) -> Result<EndpointSignature, SignatureError> {
        swagger::signature(&serde_json::from_str(text).map_err(|e| SignatureError::NotJson(e.to_string()))?)
    }

    /// What is used when the endpoint has no swagger and none was written: `{"data": [row, …]}`, rows as the query
    /// typed them, the result found by the usual names.
    pub fn untyped() -> EndpointSignature {
        EndpointSignature::of(vec!["data".into()], Layout::Untyped, Vec::new())
    }

    /// One that is not read from a document: keys down to the rows, their layout, keys down to the results (none: found
    /// by the usual names).
    pub fn of(path: Vec<String>, layout: Layout, results: Vec<String>) -> EndpointSignature {
        EndpointSignature {
            score_path: String::new(),
            input: InputForm { path, layout, constants: Vec::new() },
            output: OutputForm { path: results, per_row: PerRow::Untyped },
        }
    }

    /// Sets what the job file says for other properties of the body; they win over the document's example.
    pub fn with_constants(mut self, constants: &[(String, Json)]) -> EndpointSignature {
        for (name, value) in constants {
            match self.input.constants.iter_mut().find(|(n, _)| n == name) {
                Some((_, old)) => *old = value.clone(),
                None => self.input.constants.push((name.clone(), value.clone())),
            }
        }
        self
    }

    /// Whether rows go out unchecked.
    pub fn is_untyped(&self) -> bool {
        self.input.layout == Layout::Untyped
    }
}
