//! Reading a swagger document.
//!
//! In: its JSON. Out: an [`EndpointSignature`]. Invariant: `$ref`s are followed a bounded number of times, so a
//! document that refers to itself ends in an error. Not here: what the signature is used for.

use serde_json::{Map, Value as Json};

use super::signature::{
    Cell, Cells, EndpointSignature, InputForm, Layout, OutputForm, PerRow, SignatureColumn, SignatureError,
};

/// References followed in a row; generated documents use one or two.
const REFERENCES_MAX: usize = 32;
/// Levels of arrays or objects walked into; far above what models take.
const LEVELS_MAX: usize = 32;

type Result<T> = std::result::Result<T, SignatureError>;

static NULL: Json = Json::Null;

pub(super) fn signature(doc: &Json) -> Result<EndpointSignature> {
    let (path, operation) = score_operation(doc)?;
    Ok(EndpointSignature { score_path: path.clone(), input: input(doc, operation)?, output: output(doc, operation)? })
}

/// A member of an object; JSON null when there is none.
fn at<'a>(node: &'a Json, key: &str) -> &'a Json {
    node.get(key).unwrap_or(&NULL)
}

fn object<'a>(node: &'a Json, key: &str) -> Option<&'a Map<String, Json>> {
    at(node, key).as_object().filter(|o| !o.is_empty())
}

/// The first member of an object, the first item of an array; JSON null when there is none.
fn first(node: &Json) -> &Json {
    let member = node.as_object().and_then(|o| o.values().next());
    member.or_else(|| node.get(0)).unwrap_or(&NULL)
}

fn deref<'a>(doc: &'a Json, mut node: &'a Json) -> Result<&'a Json> {
    for _ in 0..REFERENCES_MAX {
        let Some(target) = node.get("$ref") else { return Ok(node) };
        let pointer = target.as_str().and_then(|t| t.strip_prefix('#'));
        node = pointer
            .and_then(|p| doc.pointer(p))
            .ok_or_else(|| SignatureError::Broken(format!("reference {target} leads nowhere inside the document")))?;
    }
    Err(SignatureError::Broken("a reference leads back to itself".into()))
}

fn score_operation(doc: &Json) -> Result<(&String, &Json)> {
    let posts: Vec<(&String, &Json)> = at(doc, "paths")
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(path, ops)| Some((path, ops.get("post")?)))
        .collect();
    let by_path = posts.iter().find(|(path, _)| path.trim_end_matches('/').ends_with("/score"));
    let by_id = || posts.iter().find(|(_, op)| at(op, "operationId") == "RunMLService");
    let only = || posts.first().filter(|_| posts.len() == 1);
    by_path.or_else(by_id).or_else(only).copied().ok_or(SignatureError::NoOperation)
}

/// The schema below a 3.x content map, or directly in a 2.0 parameter or response.
fn schema_in<'a>(doc: &'a Json, holder: &'a Json) -> Result<&'a Json> {
    let holder = match object(holder, "content") {
        Some(content) => content.get("application/json").or_else(|| content.values().next()).unwrap_or(&NULL),
        None => holder,
    };
    deref(doc, at(holder, "schema"))
}

fn request_schema<'a>(doc: &'a Json, operation: &'a Json) -> Result<&'a Json> {
    if let Some(body) = operation.get("requestBody") {
        return schema_in(doc, deref(doc, body)?);
    }
    for parameter in at(operation, "parameters").as_array().into_iter().flatten() {
        let parameter = deref(doc, parameter)?;
        if at(parameter, "in") == "body" {
            return schema_in(doc, parameter);
        }
    }
    Ok(&NULL)
}

fn input(doc: &Json, operation: &Json) -> Result<InputForm> {
    let schema = request_schema(doc, operation)?;
    let example = at(schema, "example");
    let untyped = || EndpointSignature::untyped().input;
    let Some(properties) = object(schema, "properties") else { return Ok(untyped()) };

    let wrapped = properties.get("Inputs");
    let (scope, examples) = match wrapped {
        Some(inputs) => (object(deref(doc, inputs)?, "properties"), at(example, "Inputs")),
        None => (Some(properties), example),
    };
    let mut tables = Vec::new();
    for (name, schema) in scope.into_iter().flatten() {
        if let Some(layout) = layout(doc, schema, at(examples, name))? {
            tables.push((name.clone(), layout));
        }
    }
    if tables.len() > 1 {
        return Err(SignatureError::Ambiguous(tables.into_iter().map(|(name, _)| name).collect()));
    }
    let Some((name, layout)) = tables.pop() else { return Ok(untyped()) };
    let path: Vec<String> = wrapped.map(|_| "Inputs".to_string()).into_iter().chain([name]).collect();
    // a property described as `{}` is an argument nobody described: sending its empty example would override a default
    let described = |schema: &Json| schema.as_object().is_some_and(|s| !s.is_empty());
    let constants = properties
        .iter()
        .filter(|(name, schema)| Some(*name) != path.first() && described(schema))
        .map(|(name, _)| (name.clone(), at(example, name).clone()))
        .collect();
    Ok(InputForm { path, layout, constants })
}

/// How rows are laid out in this property; `None` when it holds no rows.
fn layout(doc: &Json, schema: &Json, example: &Json) -> Result<Option<Layout>> {
    let schema = deref(doc, schema)?;
    let form = at(schema, "format").as_str().unwrap_or_default();
    if at(schema, "type") == "array" {
        return list_layout(doc, schema, form, example).map(Some);
    }
    let Some(properties) = object(schema, "properties") else { return Ok(None) };
    if properties.contains_key("columns") && properties.contains_key("data") {
        let row = at(example, "data").get(0).and_then(Json::as_array).into_iter().flatten();
        let names = at(example, "columns").as_array().into_iter().flatten();
        let column = |(name, cell): (&Json, &Json)| SignatureColumn {
            name: name.as_str().unwrap_or_default().into(),
            cell: cell_of_example(cell),
        };
        return Ok(Some(Layout::Split { columns: names.zip(row).map(column).collect() }));
    }
    Ok(match form {
        "pandas.DataFrame:columns" => Some(Layout::Columns { columns: columns_by_name(doc, properties, example)? }),
        "pandas.DataFrame:index" => {
            let row = deref(doc, first(at(schema, "properties")))?;
            Some(Layout::Index { columns: columns(doc, row, first(example), None)? })
        }
        "pandas.DataFrame:table" => {
            let data = deref(doc, properties.get("data").unwrap_or(&NULL))?;
            let item = deref(doc, at(data, "items"))?;
            let columns = columns(doc, item, first(at(example, "data")), Some("index"))?;
            Some(Layout::Table { columns, schema: at(example, "schema").clone() })
        }
        _ => None,
    })
}

fn list_layout(doc: &Json, schema: &Json, form: &str, example: &Json) -> Result<Layout> {
    let item = deref(doc, at(schema, "items"))?;
    let sample = first(example);
    if at(item, "type") == "array" {
        let (mut leaf, mut dims) = (deref(doc, at(item, "items"))?, 2);
        while at(leaf, "type") == "array" && dims < LEVELS_MAX {
            (leaf, dims) = (deref(doc, at(leaf, "items"))?, dims + 1);
        }
        // only the example tells the width
        let row = sample.as_array().filter(|r| !r.is_empty());
        let cells = match row {
            // the schema's type is that of the first column alone
            Some(row) if form == "pandas.DataFrame:values" => Cells::Each(row.iter().map(cell_of_example).collect()),
            _ => Cells::All(cell_of_schema(leaf, &NULL)),
        };
        return Ok(Layout::Array { dims, width: row.map(Vec::len), cells });
    }
    if object(item, "properties").is_some() || at(item, "type") == "object" {
        let required =
            at(item, "required").as_array().into_iter().flatten().filter_map(Json::as_str).map(String::from).collect();
        return Ok(Layout::Records { columns: columns(doc, item, sample, None)?, required });
    }
    Ok(Layout::Vector { cell: cell_of_schema(item, sample) })
}

fn columns(doc: &Json, item: &Json, sample: &Json, skip: Option<&str>) -> Result<Vec<SignatureColumn>> {
    let properties = object(item, "properties").into_iter().flatten().filter(|(name, _)| Some(name.as_str()) != skip);
    properties
        .map(|(name, schema)| {
            Ok(SignatureColumn { name: name.clone(), cell: cell_of_schema(deref(doc, schema)?, at(sample, name)) })
        })
        .collect()
}

/// Columns of the orient whose cells are keyed by row below each column.
fn columns_by_name(doc: &Json, properties: &Map<String, Json>, example: &Json) -> Result<Vec<SignatureColumn>> {
    let column = |(name, schema): (&String, &Json)| {
        let cell = deref(doc, first(at(deref(doc, schema)?, "properties")))?;
        Ok(SignatureColumn { name: name.clone(), cell: cell_of_schema(cell, first(at(example, name))) })
    };
    properties.iter().map(column).collect()
}

fn cell_of_schema(schema: &Json, sample: &Json) -> Cell {
    match at(schema, "type").as_str() {
        Some("integer") => Cell::BigInt,
        Some("number") => Cell::Float,
        Some("boolean") => Cell::Bit,
        Some("array") => Cell::Array,
        Some("string") if at(schema, "format") == "date-time" => Cell::DateTime { zoned: is_zoned(sample) },
        Some("string") => Cell::Text,
        // an object without properties: the author's sample was empty there
        _ => Cell::Any,
    }
}

/// Whether a sample date has a zone; without a sample the standard form, which has one.
fn is_zoned(sample: &Json) -> bool {
    let time = sample.as_str().and_then(|s| s.split_once('T')).map(|(_, time)| time);
    time.is_none_or(|t| t.ends_with('Z') || t.contains('+') || t.contains('-'))
}

fn cell_of_example(value: &Json) -> Cell {
    match value {
        Json::Bool(_) => Cell::Bit,
        Json::Number(n) if n.is_f64() => Cell::Float,
        Json::Number(_) => Cell::BigInt,
        Json::String(_) => Cell::Text,
        _ => Cell::Any,
    }
}

fn output(doc: &Json, operation: &Json) -> Result<OutputForm> {
    let responses = at(operation, "responses");
    let response = responses.get("200").or_else(|| responses.get("default")).unwrap_or(&NULL);
    let mut schema = schema_in(doc, deref(doc, response)?)?;
    let mut path = Vec::new();
    while at(schema, "type") != "array" && path.len() < LEVELS_MAX {
        let Some(properties) = object(schema, "properties").filter(|p| p.len() == 1) else { break };
        for (name, below) in properties {
            path.push(name.clone());
            schema = deref(doc, below)?;
        }
    }
    if at(schema, "type") != "array" {
        return Ok(OutputForm { path, per_row: PerRow::Untyped });
    }
    let item = deref(doc, at(schema, "items"))?;
    let per_row = match object(item, "properties") {
        Some(_) => PerRow::Record(columns(doc, item, &NULL, None)?),
        None => PerRow::Cell(cell_of_schema(item, &NULL)),
    };
    Ok(OutputForm { path, per_row })
}
