//! Imports by grant: what a function may ask for, what it remembers, and that a `kill -9` does not change what that is.
//! The guests are the built `asker` and `visit_count`.

#[path = "udf_grants/answers.rs"]
mod answers;
#[path = "udf_grants/commands.rs"]
mod commands;
#[path = "udf_grants/denied.rs"]
mod denied;
#[path = "udf_grants/order.rs"]
mod order;
#[path = "udf_grants/restarts.rs"]
mod restarts;
#[path = "udf_grants/state.rs"]
mod state;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use forebay::query::builtins::RowError;
use forebay::time::Timestamp;
use forebay::udf::{Component, Engine, FunctionBinding, Grants, Host, Limits, StateLimits, UserFunctions, json};
use forebay::value::Value;
use secrecy::SecretString;

use crate::harness::component;
use crate::support::write_job;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(None).unwrap());

const NOW: Timestamp = Timestamp::MIN;

const GRANTED: &str = "imports = [\"log\", \"state\", \"clock\"]\nconfig = { every = 2 }";

fn guest(name: &str) -> Arc<Component> {
    Arc::new(
        Component::load(&ENGINE, &component(name), Limits { timeout: Duration::from_secs(10), ..Limits::default() })
            .unwrap(),
    )
}

/// Everything.
fn all(state: StateLimits) -> Grants {
    let setting = |(key, value): (&str, &str)| (key.to_owned(), SecretString::from(value));
    Grants {
        log: true,
        clock: true,
        state: Some(state),
        config: Some([("threshold", "5"), ("apikey", "k")].map(setting).into_iter().collect()),
        lookup: vec!["zones".into()],
    }
}

/// The asker under the given names, each a function of its own as in a job.
struct Asker {
    names: Vec<&'static str>,
    bindings: Vec<FunctionBinding>,
    host: Host,
}

impl Asker {
    fn new(names: &[&'static str], limits: StateLimits) -> Asker {
        let component = guest("asker");
        // one function name, so that all of them remember the same
        let bind = |name: &&str| {
            FunctionBinding::new(component.clone(), component.find(name).unwrap(), *name).granting(all(limits))
        };
        let bindings: Vec<_> = names.iter().map(bind).collect();
        let host = Host::new(&bindings).unwrap();
        Asker { names: names.to_vec(), bindings, host }
    }

    fn ask(&mut self, name: &str, args: &[&str]) -> Result<String, RowError> {
        let index = self.names.iter().position(|n| *n == name).unwrap();
        let args: Vec<Value> =
            args.iter().map(|text| json::parse(text).unwrap_or_else(|_| Value::text(text))).collect();
        self.host
            .call(index, &args, Timestamp::parse("2024-05-01T12:00:00.0000001Z").unwrap())
            .map(|value| value.to_json())
    }

    fn state(&mut self) -> BTreeMap<String, Option<String>> {
        let mut rows = Vec::new();
        self.host.take_state(&mut rows);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        rows.into_iter().map(|(key, value)| (text(key), value.map(text))).collect()
    }
}

fn ok(text: &str) -> Result<String, RowError> {
    Ok(text.to_owned())
}

/// A job of one function, with its grants.
fn job(dir: &Path, grants: &str) {
    let text = format!(
        "[job]\nname = \"visits\"\nquery = \"job.asaql\"\n[inputs.doors]\ntype = \"mqtt\"\n\
        url = \"mqtt://127.0.0.1:1883\"\ntopics = [\"door\"]\n\
         [functions.visitCount]\ntype = \"wasm\"\ncomponent = \"visit_count.wasm\"\n{grants}\n[outputs.out]\n\
         type = \"stdout\"\n"
    );
    write_job(dir, &text, "SELECT udf.visitCount(who) AS visit INTO out FROM doors");
    std::fs::copy(component("visit_count"), dir.join("visit_count.wasm")).unwrap();
}
