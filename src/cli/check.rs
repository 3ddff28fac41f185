//! `forebay check JOB`: everything that can be known before the job runs.
//!
//! In: a job file. Out: the plan, the signatures of the functions and of the endpoints; or every problem, exit 2.
//! Invariant: nothing is changed and no row is sent; an endpoint is asked only for its description, and one that is away
//! is no mistake. Not here: wording of problems (`diagnostic`).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::job::{AzureMlFunction, FunctionKind, InputKind, Job};
use crate::pipeline::{Prepared, score_config};
use crate::query::catalog::Shape;
use crate::query::plan::{Expr, Node, explain};
use crate::score::{Signature, describe, fetch_swagger};
use crate::value::{SmolStr, Type};

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The job file (TOML)
    job: PathBuf,
    /// Do not ask the endpoints for their signatures
    #[arg(long)]
    offline: bool,
}

/// How long an endpoint may take to describe itself: a person waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Checks the job: 0 and the plan, or 2 and the problems.
pub fn run(args: &CheckArgs) -> ExitCode {
    match super::run::load(&args.job) {
        Ok((job, prepared)) => {
            print!("{}", report(&job, &prepared, args.offline));
            println!("\nthe job is valid");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprint!("{problems}");
            ExitCode::from(2)
        }
    }
}

fn report(job: &Job, prepared: &Prepared, offline: bool) -> String {
    let mut out = format!("job {}, pool {}\n\nplan\n{}", job.name, shown(&job.journal.path), indented(&explain(&prepared.plan)));
    if !job.functions.is_empty() {
        out.push_str("\nfunctions\n");
    }
    for binding in &prepared.bindings {
        if let Some(signature) = binding.signature() {
            let params: Vec<String> = signature.params.iter().map(|p| format!("{} {}", p.name, p.shape)).collect();
            out.push_str(&format!("  udf.{}({})\n", binding.name, params.join(", ")));
            out.push_str(&format!("    gives {}\n    WIT   {}\n", signature.result, signature.text));
        }
        out.push_str(&format!("    from  {}\n", shown(binding.component.path())));
    }
    for function in &job.functions {
        if let FunctionKind::AzureMl(endpoint) = &function.kind {
            let signature = signature(&function.name, endpoint, &sent(prepared, &function.name), offline);
            out.push_str(&format!("  udf.{}\n    at    {}\n{}", function.name, endpoint.url, indented(&indented(&signature))));
        }
    }
    for warning in &prepared.warnings {
        out.push_str(&format!("\n{warning}"));
    }
    if job.inputs.iter().any(|i| matches!(i.kind, InputKind::Mqtt(_))) {
        out.push_str("\nnote: while this gateway is away the broker keeps its messages only as far as its own queue limit goes;\n      mosquitto keeps 1,000 for a client unless max_queued_messages is raised\n");
    }
    out
}

/// Name and type of each value of a row that goes to an endpoint, as far as they are known.
type Sent = Vec<(Option<SmolStr>, Option<Type>)>;

/// What the statements send to an endpoint, each form once; one that nothing is known of when there is no other.
fn sent(prepared: &Prepared, function: &str) -> Vec<Sent> {
    let parts = prepared.plan.statements.iter().flat_map(|s| &s.parts);
    let calls = parts.filter(|part| part.external.as_ref().is_some_and(|call| call.function == function));
    let mut forms: Vec<Sent> = Vec::new();
    for part in calls {
        let Node::Project { exprs, input } = &part.root else { continue };
        let form = exprs.last().map(|argument| form(argument, input, prepared)).unwrap_or_default();
        if !form.is_empty() && !forms.contains(&form) {
            forms.push(form);
        }
    }
    if forms.is_empty() { vec![Sent::new()] } else { forms }
}

/// `rows`: what gives the rows that the expression reads.
fn form(argument: &Expr, rows: &Node, prepared: &Prepared) -> Sent {
    match argument {
        Expr::Record(fields) => fields.iter().map(|(name, e)| (Some(name.clone()), kind(e, rows, prepared))).collect(),
        Expr::Udf { index, .. } => match prepared.bindings.get(*index).and_then(|b| b.signature()).map(|s| &s.result) {
            Some(Shape::Tuple(items)) => items.iter().map(|shape| (None, shape.kind())).collect(),
            // as `udf` names them to a query
            Some(Shape::Record(fields)) => fields.iter().map(|(name, shape)| (Some(name.replace('-', "_").into()), shape.kind())).collect(),
            _ => Sent::new(),
        },
        _ => Sent::new(),
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
        Expr::Builtin { function, .. } => function.returns,
        Expr::Udf { index, .. } => prepared.bindings.get(*index).and_then(|b| b.signature()).and_then(|s| s.result.kind()),
        _ => None,
    }
}

/// The endpoint's signature in words, or why it is not known now.
fn signature(name: &str, endpoint: &AzureMlFunction, sent: &[Sent], offline: bool) -> String {
    let in_words = |signature: &Signature| sent.iter().map(|sent| describe(signature, sent)).collect::<String>();
    let config = match score_config(name, endpoint) {
        Ok(config) => config,
        Err(error) => return format!("its signature is wrong: {error}\n"),
    };
    if let Some(signature) = &config.signature {
        return in_words(signature);
    }
    if offline {
        return "its signature was not asked for (--offline)\n".to_owned();
    }
    let fetched = super::run::runtime().map_err(|e| e.to_string()).and_then(|runtime| {
        runtime.block_on(async {
            tokio::time::timeout(PATIENCE, fetch_swagger(&config)).await.unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}")))
        })
    });
    match fetched {
        Ok(Some((_, signature))) => in_words(&signature),
        Ok(None) => {
            format!("it publishes no description, so nothing is checked or converted before sending\n{}", in_words(&Signature::untyped()))
        }
        Err(error) => {
            format!("its signature is not known now: {error}\nthat is no mistake: rows wait in the pool until the endpoint answers\n")
        }
    }
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
