//! From a job file to a plan: everything that can be known before anything runs.
//!
//! In: a checked job. Out: its functions, loaded, and its query, compiled against them. Invariant: no file is changed,
//! and no endpoint or broker is called. Not here: starting.

use std::io::ErrorKind;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use smol_str::SmolStr;

use super::fallbacks;
use super::lateness::outlived;
use crate::diagnostic::{Diagnostic, Diagnostics, suggest};
use crate::engine::{Executor, ExecutorOptions};
use crate::job::{self, FunctionSection, FunctionSettings, Job};
use crate::query::catalog::{self, Catalog, FunctionDef, InputDef, InputKind};
use crate::query::plan::Plan;
use crate::score::Order;
use crate::source::SOURCES;
use crate::udf::{Component, Engine, FunctionBinding, UdfError, WasmConfig, default_cache_dir};
use crate::value::same_ignoring_case;

/// A job that can start.
#[derive(Debug)]
pub struct Prepared {
    pub catalog: Catalog,
    /// The query's text, which `plan` was made of.
    pub text: Arc<str>,
    pub plan: Plan,
    /// Local functions, in the order of the plan's indexes.
    pub bindings: Vec<FunctionBinding>,
    /// What a row does that fails, and the time policies, for every executor of the job.
    pub options: ExecutorOptions,
    /// Tells the query's text from others in dead letters.
    pub query_version: SmolStr,
    /// Odd things that stop nothing.
    pub warnings: Vec<Diagnostics>,
}

/// All problems of a job, in the texts in which they stand.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct PrepareError(pub Vec<Diagnostics>);

/// Loads the functions and compiles the query.
///
/// # Errors
/// Every problem of the components and of the query.
pub fn prepare(job: &Job) -> Result<Prepared, PrepareError> {
    let mut problems = job.problems();
    for input in job.inputs.iter().filter(|input| matches!(input.kind, job::InputSettings::File(_))) {
        let error = Diagnostic::error(format!("input `{}` is a file, and a job reads streams", input.name), input.span);
        let running: Vec<String> = SOURCES.iter().map(|(word, _)| format!("`type = \"{word}\"`")).collect();
        problems.push(
            error
                .label(format!("only {} runs", running.join(" or ")))
                .help("run the query over files with `forebay eval QUERY --input NAME=FILE`"),
        );
    }
    let (functions, bindings) = functions(job, &mut problems);
    let text = match std::fs::read_to_string(&job.query) {
        Ok(text) => text,
        Err(error) => {
            let help = match error.kind() {
                ErrorKind::InvalidData => "a query is UTF-8 text; `query` in [job] names its file",
                _ => "check its permissions; `query` in [job] names it, relative to the job file",
            };
            problems.push(
                Diagnostic::error(format!("the query {} cannot be read: {error}", job.query.display()), None)
                    .help(help),
            );
            return Err(PrepareError(vec![problems]));
        }
    };
    let catalog = Catalog {
        inputs: job.inputs.iter().map(|i| InputDef { name: i.name.clone(), kind: kind(i) }).collect(),
        outputs: Some(job.outputs.iter().map(|o| o.name.clone()).collect()),
        functions,
    };
    unknown_tables(job, &catalog, &mut problems);
    // a component that did not load is still in the catalog as something that takes anything: the query's own mistakes
    // are told in the same run
    let compiled = crate::query::compile(&text, &job.query.display().to_string(), &catalog);
    let mut misfits = None;
    if let Ok(plan) = &compiled {
        let file = job.query.display().to_string();
        let query = fallbacks::Compiled { text: &text, file: &file, catalog: &catalog, plan };
        misfits = Some(fallbacks::check(job, query, &mut problems)).filter(|found| !found.is_empty());
        missing_columns(job, plan, &mut problems);
        kept_orders(job, plan, &mut problems);
        if !job.chose_late_tolerance {
            outlived(job, plan).iter().for_each(|input| problems.push(input.warning()));
        }
    }
    match compiled {
        Ok(_) if misfits.is_some() => {
            let of_job = Some(problems).filter(Diagnostics::has_errors);
            Err(PrepareError(of_job.into_iter().chain(misfits).collect()))
        }
        Ok(plan) if !problems.has_errors() => runnable(
            Prepared {
                options: options(job, &bindings),
                catalog,
                text: Arc::from(text.as_str()),
                plan,
                bindings,
                query_version: version(&text),
                warnings: [job.warnings.clone(), problems].into_iter().filter(|w| !w.is_empty()).collect(),
            },
            &text,
            job,
        ),
        Ok(_) => Err(PrepareError(vec![problems])),
        Err(errors) if problems.has_errors() => Err(PrepareError(vec![problems, errors])),
        Err(errors) => Err(PrepareError(vec![errors])),
    }
}

fn kind(input: &job::InputSection) -> InputKind {
    match &input.kind {
        job::InputSettings::Reference(_) => InputKind::Reference,
        job::InputSettings::Stream(_) | job::InputSettings::File(_) => InputKind::Stream,
    }
}

/// Builds every part once: what the engine cannot run is told here and not at the start.
fn runnable(prepared: Prepared, text: &str, job: &Job) -> Result<Prepared, PrepareError> {
    let mut errors = Diagnostics::new(job.query.display().to_string(), text);
    for statement in &prepared.plan.statements {
        for part in &statement.parts {
            let root = Executor::new(part, prepared.options.clone(), None).map(drop);
            let tail = |e| Executor::for_tail(e, &part.columns, prepared.options.clone(), None).map(drop);
            if let Err(error) = root.and_then(|()| part.external.as_ref().map_or(Ok(()), tail)) {
                errors.push(Diagnostic::error(error.to_string(), statement.span).label("this cannot run"));
            }
        }
    }
    if errors.is_empty() { Ok(prepared) } else { Err(PrepareError(vec![errors])) }
}

/// A short digest of a text.
pub fn version(text: &str) -> SmolStr {
    let digest = Sha256::digest(text.as_bytes());
    SmolStr::new(digest.iter().take(6).map(|b| format!("{b:02x}")).collect::<String>())
}

/// The catalog's functions and the bindings of the local ones; what does not load becomes a problem at its place.
pub fn functions(job: &Job, problems: &mut Diagnostics) -> (Vec<FunctionDef>, Vec<FunctionBinding>) {
    let mut engine = None;
    let mut bindings: Vec<FunctionBinding> = Vec::new();
    let mut known = Vec::new();
    for function in &job.functions {
        let kind = match &function.kind {
            FunctionSettings::Endpoint(_) => catalog::FunctionKind::External,
            FunctionSettings::Wasm(wasm) => {
                let engine = engine.get_or_insert_with(|| Engine::new(default_cache_dir()));
                let loaded = match engine {
                    Ok(engine) => load(engine, function, wasm),
                    Err(UdfError::Engine(reason)) => Err(UdfError::Engine(reason.clone())),
                    Err(other) => Err(UdfError::Engine(other.to_string())),
                };
                match loaded {
                    Ok((binding, signature)) => {
                        let (index, offers, keeps_state) = (bindings.len(), binding.aggregate(), binding.keeps_state());
                        unused_grants(&binding, function, wasm, problems);
                        bindings.push(binding);
                        match offers {
                            Some(offers) => catalog::FunctionKind::Aggregate { index, signature, offers },
                            None => catalog::FunctionKind::Local { index, signature, keeps_state },
                        }
                    }
                    Err(error) => {
                        let problem =
                            Diagnostic::error(error.to_string(), function.span).label("this function cannot be used");
                        problems.push(match error.help() {
                            Some(help) => problem.help(help),
                            None => problem,
                        });
                        catalog::FunctionKind::Unknown
                    }
                }
            }
        };
        known.push(FunctionDef { name: function.name.clone(), kind });
    }
    (known, bindings)
}

fn load(
    engine: &Engine,
    function: &FunctionSection,
    wasm: &WasmConfig,
) -> Result<(FunctionBinding, catalog::Signature), UdfError> {
    let component = Component::load(engine, &wasm.component, wasm.limits)?;
    let grants = wasm.grants.grants()?;
    let name = wasm.export.as_deref().unwrap_or(&function.name);
    let export = component.find(name)?;
    let signature = component.signature(export).cloned().ok_or_else(|| UdfError::NotCallable {
        path: wasm.component.clone(),
        export: name.to_owned(),
        reason: "it has no signature".to_owned(),
    })?;
    let binding = FunctionBinding::new(Arc::new(component), export, &function.name).granting(grants);
    binding.check_grants()?;
    Ok((binding, signature))
}

/// A grant that nobody asks for is a mistake, or a component of another version.
fn unused_grants(binding: &FunctionBinding, function: &FunctionSection, wasm: &WasmConfig, problems: &mut Diagnostics) {
    let needs = binding.component.needs();
    for (word, span) in wasm.grants.spans.iter().filter(|(word, _)| !needs.iter().any(|grant| grant.word() == *word)) {
        let warning =
            Diagnostic::warning(format!("`{word}` is granted to `{}`, which does not import it", function.name), *span);
        problems.push(warning.label("has no use").help("leave it out, or check that the component is the right one"));
    }
}

/// Reference inputs that functions are granted and the job does not have.
fn unknown_tables(job: &Job, catalog: &Catalog, problems: &mut Diagnostics) {
    let references = catalog.inputs.iter().filter(|input| input.kind == InputKind::Reference);
    let known: Vec<&str> = references.map(|input| input.name.as_str()).collect();
    let granted = job.functions.iter().filter_map(|function| match &function.kind {
        FunctionSettings::Wasm(wasm) => Some(&wasm.grants.lookup),
        FunctionSettings::Endpoint(_) => None,
    });
    for (name, span) in granted.flatten().filter(|(name, _)| !known.contains(&name.as_str())) {
        let help = match suggest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None if known.is_empty() => "the job has none".to_owned(),
            None => format!("known: {}", known.join(", ")),
        };
        problems.push(
            Diagnostic::error(format!("`lookup` names no reference input: `{name}`"), *span)
                .label("not found")
                .help(help),
        );
    }
}

/// Columns that an output needs and a statement never gives it. `*` may give any.
fn missing_columns(job: &Job, plan: &Plan, problems: &mut Diagnostics) {
    for statement in &plan.statements {
        let Some(part) = statement.parts.last().filter(|part| part.columns.iter().all(|column| !column.spread)) else {
            continue;
        };
        let Some(output) = job.outputs.iter().find(|output| same_ignoring_case(&output.name, &statement.output)) else {
            continue;
        };
        let names: Vec<&str> = part.columns.iter().map(|column| column.name.as_str()).collect();
        for (column, span) in output.settings.columns() {
            if names.iter().any(|name| same_ignoring_case(name, column)) {
                continue;
            }
            let help = match suggest(column, names.iter().copied()) {
                Some(meant) => format!("did you mean `{{{meant}}}`?"),
                None => format!("its columns: {}", names.join(", ")),
            };
            let title = format!("a statement INTO {} has no column `{column}`", output.name);
            problems.push(Diagnostic::warning(title, span).label("every row of it becomes a dead letter").help(help));
        }
    }
}

/// Endpoints whose answers may come in any order, called by statements that need them in that of the stream.
fn kept_orders(job: &Job, plan: &Plan, problems: &mut Diagnostics) {
    for statement in plan.statements.iter().filter(|statement| statement.is_stateful()) {
        for called in statement.parts.iter().filter_map(|part| part.external.as_ref()) {
            let function = job.functions.iter().find(|f| same_ignoring_case(&f.name, &called.function));
            let Some(FunctionSettings::Endpoint(endpoint)) = function.map(|function| &function.kind) else { continue };
            if endpoint.order != Order::None {
                continue;
            }
            let title = format!("the statement INTO {} keeps its rows in the order of the stream", statement.output);
            let help = "TIMESTAMP BY, windows, LAG, joins and functions with state need it: `order = \"none\"` holds \
                        for statements without them";
            problems.push(
                Diagnostic::warning(title, endpoint.order_span).label("a request that hangs holds it up").help(help),
            );
        }
    }
}

/// What the job says about failing rows and late events.
pub fn options(job: &Job, bindings: &[FunctionBinding]) -> ExecutorOptions {
    let of_function = |name: &str| job.functions.iter().find(|f| f.name == name).and_then(|f| f.on_error);
    ExecutorOptions {
        on_error: job.on_error,
        functions_on_error: bindings.iter().enumerate().filter_map(|(i, b)| Some((i, of_function(&b.name)?))).collect(),
        policies: job.time,
        ..ExecutorOptions::default()
    }
}
