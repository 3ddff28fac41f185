//! `forebay udf call`: a function once.
//!
//! In: arguments. Out: its result as JSON. Not here: calls by the thousand (`bench`), calls whose results are known
//! (`golden`).

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{Failed, FunctionSetup, Granting, check_count, find};
use crate::time::{Clock, Timestamp};
use crate::udf::{Component, FunctionBinding, UserFunctions as _, json};
use crate::value::Value;

#[derive(Debug, Args)]
pub struct Call {
    pub file: PathBuf,
    /// Name of the function, in any case style
    pub export: String,
    /// JSON values, or bare text; `null` is NULL
    #[arg(allow_negative_numbers = true)]
    pub args: Vec<String>,
    #[command(flatten)]
    pub granting: Granting,
    /// Event time of the call, ISO 8601 [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub at: Option<Timestamp>,
    #[command(flatten)]
    pub setup: FunctionSetup,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "expected a time such as 2024-05-01T12:00:00Z".to_owned())
}

pub(super) fn run(call: &Call) -> Result<String, Failed> {
    let component = Arc::new(Component::load(&call.setup.engine()?, &call.file, call.setup.limits())?);
    let binding = function(component, &call.export, &call.granting, call.args.len())?;
    let mut host = call.granting.host(&[binding])?;
    let at = call.at.unwrap_or_else(|| Clock::Real.now());
    let value =
        host.call(0, &values(&call.args), at).map_err(|e| Failed::Row(format!("{} ({})", e.message, e.reason)))?;
    Ok(format!("{}\n", value.to_json()))
}

/// The function of that name, granted what the flags say, for this number of arguments.
pub(super) fn function(
    component: Arc<Component>,
    name: &str,
    granting: &Granting,
    given: usize,
) -> Result<FunctionBinding, Failed> {
    let export = find(&component, name)?;
    let binding = FunctionBinding::new(component, export, name).granting(granting.grants());
    if binding.aggregate().is_some() {
        let what = format!("{name} is an aggregate, which takes the rows of a window");
        let help = format!(
            "write rows for `forebay udf test`: {{\"aggregate\": \"{name}\", \"rows\": [[…], […]], \"expected\": …}}; \
            or try `uda.{name}(…)` in a query with `forebay eval QUERY --input NAME=FILE --job JOB`"
        );
        return Err(Failed::Asked { what, help });
    }
    if let Some(signature) = binding.signature() {
        check_count(name, signature, None, given).map_err(Failed::Usage)?;
    }
    Ok(binding)
}

/// Arguments as a person types them.
pub(super) fn values(args: &[String]) -> Vec<Value> {
    args.iter().map(|arg| json::parse(arg).unwrap_or_else(|_| Value::text(arg))).collect()
}
