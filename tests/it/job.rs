//! Job files: what a good one says, and every problem of bad ones, drawn whole. One good job and its changes; a module
//! a subject. No peer: `job::parse` reads text, `job::load` files.

#[path = "job/all_settings.rs"]
mod all_settings;
#[path = "job/contradictions.rs"]
mod contradictions;
#[path = "job/defaults.rs"]
mod defaults;
#[path = "job/files.rs"]
mod files;
#[path = "job/form.rs"]
mod form;
#[path = "job/mqtt.rs"]
mod mqtt;
#[path = "job/payloads.rs"]
mod payloads;
#[path = "job/secrets.rs"]
mod secrets;

use std::path::Path;

use expect_test::Expect;
use forebay::job::{self, *};

use crate::support::refused;

const SMALL: &str = r#"
[job]
name  = "taxi"
query = "taxi.asaql"

[inputs.rides]
type   = "mqtt"
url    = "mqtt://127.0.0.1:1883"
topics = ["taxi/+/rides"]

[functions.createArray]
type      = "wasm"
component = "udfs/create_array.wasm"

[functions.score]
type = "azureml"
url  = "http://127.0.0.1:5001/score"
key  = "env:AML_KEY"

[outputs.scored]
type  = "mqtt"
url   = "mqtt://127.0.0.1:1883"
topic = "taxi/scored"
"#;

fn good(text: &str) -> Job {
    job::parse(text, Path::new("jobs/taxi.toml")).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The message of a bad file that is `SMALL` with some changes.
fn bad(changes: &[(&str, &str)], want: Expect) {
    let text = changes.iter().fold(SMALL.to_string(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    });
    want.assert_eq(&refused("taxi.toml", &text));
}

fn mib(count: u64) -> u64 {
    count << 20
}
