//! `forebay check JOB`: everything that can be known before the job runs.
//!
//! In: a job file. Out: the plan, the signatures of the functions and of the endpoints; or every problem, exit 2.
//! Invariant: nothing is changed and no row is sent; an endpoint is asked only for its description, and one that is
//! away is no mistake. Not here: wording of problems (`diagnostic`).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::journal::{counted, number};
use super::say::{answer, complain};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::job::{FunctionSettings, InputSettings, Job};
use crate::journal::{JournalStatus, OnDamage, lasting, left_of_pool, reference_readonly};
use crate::pipeline::Prepared;
use crate::pipeline::lateness::{Outlived, outlived};
use crate::query::catalog::Shape;
use crate::query::plan::{Expr, Node, explain};
use crate::reference::{ReferenceInput, ReferencePlace, load_once};
use crate::score::{EndpointSignature, Fallback, Given, ScoreConfig, describe, fetch_signature, misfits};
use crate::settings::address::masked;
use crate::value::{SmolStr, Type, Value};

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The job file (TOML)
    job: PathBuf,
    /// Do not ask the endpoints for their signatures, nor addresses for reference data
    #[arg(long)]
    offline: bool,
}

/// Rows of a table whose columns are told, and how many columns.
const ROWS_LOOKED_AT: usize = 1000;
const COLUMNS_SHOWN: usize = 50;

/// How long an endpoint may take to describe itself: a person waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Checks the job: 0 and the plan, or 2 and the problems.
pub fn run(args: &CheckArgs) -> ExitCode {
    match super::run::load(&args.job) {
        Ok((job, prepared)) => {
            let (text, misfits) = report(&job, &prepared, args.offline);
            if misfits.is_empty() {
                return answer(&format!("{text}\nthe job is valid\n"), ExitCode::SUCCESS);
            }
            let code = answer(&text, ExitCode::from(2));
            complain(format_args!("\n{misfits}"));
            code
        }
        Err(problems) => {
            complain(problems);
            ExitCode::from(2)
        }
    }
}

/// The report, and what can never be sent to an endpoint, at its place in the query.
fn report(job: &Job, prepared: &Prepared, offline: bool) -> (String, Diagnostics) {
    let mut misfits =
        Diagnostics::new(job.query.display().to_string(), std::fs::read_to_string(&job.query).unwrap_or_default());
    let mut out = format!(
        "job {}, pool {}\n\nplan\n{}",
        job.name,
        shown(&job.journal.config.path),
        indented(&explain(&prepared.plan))
    );
    if !job.functions.is_empty() {
        out.push_str("\nfunctions\n");
    }
    for binding in &prepared.bindings {
        if let Some(signature) = binding.signature() {
            let params: Vec<String> = signature.params.iter().map(|p| format!("{} {}", p.name, p.shape)).collect();
            let (prefix, time) = match binding.aggregate() {
                Some(offers) if offers.time => ("uda", " = System.Timestamp()"),
                Some(_) => ("uda", ""),
                None => ("udf", ""),
            };
            out.push_str(&format!("  {prefix}.{}({}{time})\n", binding.name, params.join(", ")));
            out.push_str(&format!("    gives {}\n    WIT   {}\n", signature.result, signature.text));
        }
        out.push_str(&format!("    from  {}\n", shown(binding.component.path())));
    }
    for function in &job.functions {
        if let FunctionSettings::Endpoint(endpoint) = &function.kind {
            let sent = sent(prepared, &function.name);
            let signature = signature(endpoint, offline).map_or_else(
                |why| why,
                |(before, signature)| {
                    misfits.items.extend(sent.iter().flat_map(|sent| complaints(&function.name, &signature, sent)));
                    before + &sent.iter().map(|sent| describe(&signature, &sent.values)).collect::<String>()
                },
            );
            out.push_str(&format!(
                "  udf.{}\n    at    {}\n{}{}",
                function.name,
                masked(&endpoint.url),
                endpoint.fallback.as_ref().map(stand_in).unwrap_or_default() + &few_requests(endpoint.linger_idle),
                indented(&indented(&signature))
            ));
        }
    }
    out.push_str(&references(job, offline));
    out.push_str(&lasting_pool(job));
    // `run` refuses it; the folder may be there on the machine that runs the job
    let folder = job.journal.config.path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        out.push_str(&format!(
            "\nwarning: the pool's folder {} is not there: make it before the job starts\n",
            folder.display()
        ));
    }
    let pool = &job.journal.config.path;
    if let Some(error) = left_of_pool(pool).and_then(|_| JournalStatus::summary_readonly(pool).err()) {
        let then = match job.journal.config.on_damage {
            OnDamage::Stop => "a start ends with this",
            OnDamage::Fresh => "where it is beyond use, a start moves it aside and begins a fresh one",
        };
        out.push_str(&format!("\nwarning: the pool cannot be read: {error}; {then}\n"));
    }
    for warning in &prepared.warnings {
        out.push_str(&format!("\n{warning}"));
    }
    for note in notes(job, prepared) {
        out.push_str(&format!("\nnote: {note}\n"));
    }
    misfits.sort();
    (out, misfits)
}

/// Who answers while the endpoint is away.
fn stand_in(fallback: &Fallback) -> String {
    let then = if fallback.rescore { ", and once more by the endpoint when it is back" } else { "" };
    format!("    away  {:?}: rows are answered by {}{then}\n", fallback.after, fallback.shown())
}

/// Bytes of a request and its answer beside their rows: headers of both, and those of some five packets.
const REQUEST_BYTES: f64 = 1_200.0;

/// What it means for a metered link that rows wait for others while no request is out.
fn few_requests(linger_idle: Duration) -> String {
    if linger_idle.is_zero() {
        return String::new();
    }
    let requests = 86_400.0 / linger_idle.as_secs_f64();
    let month = requests * 30.0 * REQUEST_BYTES;
    format!(
        "    sends {} requests a day at most while the stream is slow: about {} MB a month beside the rows\n",
        number(requests.round() as u64),
        number((month / 1e6).round() as u64)
    )
}

/// A small event, and what it takes in the file where nothing of it can be compressed.
const EVENT_BYTES: u64 = 150;
const EVENT_BYTES_STORED: u64 = 180;

/// How long the pool lasts while its readers are away: at the pace that it has seen, or by what its budget means. And
/// what it writes a day, once there is one.
fn lasting_pool(job: &Job) -> String {
    let config = &job.journal.config;
    let known = config.path.exists().then(|| JournalStatus::summary_readonly(&config.path).ok()).flatten();
    let known = known.map(|status| status.with_room(config.max_bytes).with_card(job.journal.card_endurance));
    let wear = known.as_ref().map_or(String::new(), |s| format!("  {}\n", super::journal::wear(s, &job.journal)));
    if let Some(status) = known.filter(|status| status.left.is_some()) {
        return format!("\npool\n  {}\n{wear}", super::journal::lasts(&status));
    }
    let events = config.max_bytes / EVENT_BYTES_STORED;
    let [one, ten, hundred] = [1, 10, 100].map(|rate| lasting(events / rate));
    format!(
        "\npool\n  if nobody reads, it takes {} events of {EVENT_BYTES} bytes that cannot be compressed:\n  {one} at 1 \
         a second, {ten} at 10, {hundred} at 100;\n  rows that statements store take room beside them\n{wear}",
        number(events),
    )
}

/// What the kinds of sources want known, each once; and what somebody who chose a tolerance chose with it.
fn notes(job: &Job, prepared: &Prepared) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    for input in &job.inputs {
        if let InputSettings::Stream(stream) = &input.kind {
            notes.extend(stream.source.note().map(str::to_owned).filter(|note| !notes.contains(note)));
        }
    }
    if job.chose_late_tolerance {
        notes.extend(outlived(job, &prepared.plan).iter().map(Outlived::note));
    }
    notes
}

/// A form in which rows go to an endpoint, as far as it is known.
#[derive(Default)]
struct Sent {
    values: Vec<Given>,
    /// The call in the query.
    at: Option<Span>,
}

/// What the statements send to an endpoint, each form once; one that nothing is known of when there is no other.
fn sent(prepared: &Prepared, function: &str) -> Vec<Sent> {
    let mut forms: Vec<Sent> = Vec::new();
    for part in prepared.plan.statements.iter().flat_map(|s| &s.parts) {
        let Some(call) = part.external.as_ref().filter(|call| call.function == function) else { continue };
        let Node::Project { exprs, input } = &part.root else { continue };
        let argument = exprs.last().map(|argument| match argument {
            // for rows that are not for the call it is NULL
            Expr::Case { branches, .. } if call.called.is_some() => branches.first().map_or(argument, |(_, sent)| sent),
            argument => argument,
        });
        let values = argument.map(|argument| form(argument, input, prepared)).unwrap_or_default();
        if !values.is_empty() && !forms.iter().any(|known| known.values == values) {
            forms.push(Sent { values, at: Some(call.span) });
        }
    }
    if forms.is_empty() { vec![Sent::default()] } else { forms }
}

fn complaints(function: &str, signature: &EndpointSignature, sent: &Sent) -> Vec<Diagnostic> {
    let complaint = |why: String| {
        let error = Diagnostic::error(format!("`udf.{function}` never takes this: {why}"), sent.at)
            .label("no row of it can be sent");
        error.help("correct the query, or the signature in the job file where it is written there; types are above")
    };
    misfits(signature, &sent.values).into_iter().map(complaint).collect()
}

/// `rows`: what gives the rows that the expression reads.
fn form(argument: &Expr, rows: &Node, prepared: &Prepared) -> Vec<Given> {
    match argument {
        Expr::Record(fields) => fields.iter().map(|(name, e)| (Some(name.clone()), kind(e, rows, prepared))).collect(),
        Expr::Udf { index, .. } => match prepared.bindings.get(*index).and_then(|b| b.signature()).map(|s| &s.result) {
            Some(Shape::Tuple(items)) => items.iter().map(|shape| (None, shape.kind())).collect(),
            // as `udf` names them to a query
            Some(Shape::Record(fields)) => {
                fields.iter().map(|(name, shape)| (Some(name.replace('-', "_").into()), shape.kind())).collect()
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// The type of an expression that has the same for every row.
fn kind(e: &Expr, rows: &Node, prepared: &Prepared) -> Option<Type> {
    match e {
        Expr::Slot(slot) => match rows {
            Node::Project { exprs, input } => exprs.get(*slot).and_then(|e| kind(e, input, prepared)),
            Node::Filter { input, .. } => kind(e, input, prepared),
            _ => None,
        },
        Expr::Const(value) => value.kind(),
        Expr::Time | Expr::Arrival => Some(Type::DateTime),
        Expr::Cast { ty, .. } => Some(*ty),
        Expr::Try(e) => kind(e, rows, prepared),
        Expr::Builtin { function, .. } => function.returns,
        Expr::Udf { index, .. } => {
            prepared.bindings.get(*index).and_then(|b| b.signature()).and_then(|s| s.result.kind())
        }
        _ => None,
    }
}

/// The endpoint's signature and what to say before it; or why it is not known now.
fn signature(endpoint: &ScoreConfig, offline: bool) -> Result<(String, EndpointSignature), String> {
    if let Some(signature) = &endpoint.signature {
        return Ok((String::new(), signature.clone()));
    }
    if offline {
        return Err("its signature was not asked for (--offline)\n".to_owned());
    }
    let fetched = super::run::runtime().map_err(|e| e.to_string()).and_then(|runtime| {
        runtime.block_on(async {
            tokio::time::timeout(PATIENCE, fetch_signature(endpoint))
                .await
                .unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}")))
        })
    });
    match fetched {
        Ok(Some(signature)) => Ok((String::new(), signature)),
        Ok(None) => {
            let before = "it publishes no description, so nothing is checked or converted before sending\n";
            Ok((before.to_owned(), EndpointSignature::untyped()))
        }
        Err(error) => Err(format!(
            "its signature is not known now: {error}\nthat is no mistake: rows wait in the pool until the endpoint \
            answers\n"
        )),
    }
}

/// The tables of reference data, as they are now.
fn references(job: &Job, offline: bool) -> String {
    let mut out = String::new();
    for (input, settings) in job.references() {
        if out.is_empty() {
            out.push_str("\nreference data\n");
        }
        let place = match &settings.place {
            ReferencePlace::File(path) => shown(path),
            ReferencePlace::Http(address) => {
                let mut url = address.url.clone();
                // it may hold a signature
                url.set_query(None);
                url.to_string()
            }
        };
        let found = match settings.place {
            ReferencePlace::Http(_) if offline => "it was not asked for (--offline)\n".to_owned(),
            _ => table(settings).unwrap_or_else(|why| {
                let kept = reference_readonly(&job.journal.config.path, &input.name).ok().flatten();
                let until = match kept {
                    Some(kept) => format!(
                        "until it can, the version of {} in the pool is used, {}",
                        kept.loaded_at,
                        counted(kept.rows, "row")
                    ),
                    None => {
                        "until it can, the statements that join with it wait, and events wait in the pool".to_owned()
                    }
                };
                format!("warning: it cannot be loaded now: {why}\n{until}\n")
            }),
        };
        out.push_str(&format!("  {}\n    from  {place}\n{}", input.name, indented(&indented(&found))));
    }
    out
}

/// Rows and columns of a table.
fn table(settings: &ReferenceInput) -> Result<String, String> {
    let runtime = super::run::runtime().map_err(|e| e.to_string())?;
    let loading = async { tokio::time::timeout(PATIENCE, load_once(settings)).await };
    let rows = runtime.block_on(loading).unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}")))?;
    let mut columns: Vec<(SmolStr, Option<Type>)> = Vec::new();
    let records = rows
        .iter()
        .take(ROWS_LOOKED_AT)
        .filter_map(|row| if let Value::Record(record) = row { Some(record) } else { None });
    for (name, value) in records.flat_map(|record| record.iter()) {
        let has_room = columns.len() < COLUMNS_SHOWN;
        match columns.iter_mut().find(|(known, _)| known == name) {
            Some((_, ty)) if ty.is_none() => *ty = value.kind(),
            Some(_) => {}
            None if has_room => columns.push((name.clone(), value.kind())),
            None => {}
        }
    }
    let named = columns.iter().map(|(name, ty)| ty.map_or_else(|| name.to_string(), |ty| format!("{name} {ty}")));
    let named: Vec<String> = named.collect();
    let columns = if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) };
    Ok(format!("{}{columns}\n", counted(rows.len() as u64, "row")))
}

/// A path as a person would type it here: without `..`, from the current folder when it lies inside.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().and_then(|dir| dir.canonicalize());
    // a pool may not be there yet, its folder is
    let whole = path.canonicalize().or_else(|_| match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            folder.canonicalize().map(|folder| folder.join(name))
        }
        _ => Ok(path.to_owned()),
    });
    match (here, whole) {
        (Ok(here), Ok(whole)) => whole.strip_prefix(&here).unwrap_or(&whole).display().to_string(),
        _ => path.display().to_string(),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}
