//! Reference data in a running job: loaded from files and addresses, replaced, broken, kept for a start offline. The
//! peers are the real binary, mosquitto and an HTTP server whose answers the test sets.

#[path = "reference/addresses.rs"]
mod addresses;
#[path = "reference/files.rs"]
mod files;
#[path = "reference/pool.rs"]
mod pool;
#[path = "reference/restarts.rs"]
mod restarts;
#[path = "reference/server.rs"]
mod server;
#[path = "reference/settings.rs"]
mod settings;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;

use serde_json::Value as Json;

use crate::harness::{Forebay, until};
use crate::support::{JobFolder, Message, publish, replace, rows_of, write_job};

const QUERY: &str = "SELECT r.n AS n, z.name AS zone INTO out FROM rides r JOIN zones z ON r.zone = z.id";

struct Place(JobFolder);

impl Place {
    fn new() -> Place {
        Place(JobFolder::new())
    }

    fn replace(&self, name: &str, text: &str) {
        replace(&self.path(name), text);
    }

    /// Writes the job: the settings of `zones`, and what else there is.
    fn job(&self, query: &str, zones: &str, more: &str) -> PathBuf {
        let text = format!(
            "[job]\nname = \"test\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [inputs.rides]\ntype = \"mqtt\"\nurl = \"{}\"\ntopics = [\"rides\"]\n\
             [inputs.zones]\ntype = \"reference\"\n{zones}\n\
             [outputs.out]\ntype = \"file\"\npath = \"out.jsonl\"\nfsync = \"never\"\nrow_id = \"id\"\n{more}",
            self.broker.url()
        );
        write_job(self.dir(), &text, query)
    }

    fn send(&self, numbers: std::ops::Range<i64>, zone: i64) {
        let messages = numbers.map(|n| Message::new("rides", format!(r#"{{"n":{n},"zone":{zone}}}"#))).collect();
        self.runtime.block_on(publish(&self.broker.url(), messages));
    }

    fn rows(&self, file: &str) -> Vec<Json> {
        rows_of(&self.path(file))
    }

    /// The zone that each number was joined with, once there are as many as wanted.
    fn zones(&self, count: usize) -> BTreeMap<i64, String> {
        until(&format!("{count} rows"), || {
            let rows = self.rows("out.jsonl");
            let zones =
                rows.iter().map(|row| (row["n"].as_i64().unwrap(), row["zone"].as_str().unwrap_or("null").to_owned()));
            Some(zones.collect::<BTreeMap<_, _>>()).filter(|zones| zones.len() >= count)
        })
    }
}

impl Deref for Place {
    type Target = JobFolder;

    fn deref(&self) -> &JobFolder {
        &self.0
    }
}

fn metric(forebay: &Forebay, name: &str, input: &str) -> f64 {
    forebay.metric(&format!("forebay_{name}{{job=\"test\",input=\"{input}\"}}"))
}

fn wait_for_version(forebay: &Forebay, input: &str, loads: f64) {
    until(&format!("version {loads} of {input}; log:\n{}", forebay.log()), || {
        (metric(forebay, "reference_loads_total", input) >= loads).then_some(())
    });
}

/// What `/readyz` says: status, problems, what is degraded.
fn ready(forebay: &Forebay) -> (u16, String, String) {
    let (status, body) = forebay.get("/readyz");
    let body: Json = serde_json::from_str(&body).unwrap();
    (status, body["problems"].to_string(), body["degraded"].to_string())
}

fn wait_for_degraded(forebay: &Forebay, text: &str) {
    until(&format!("an alarm with {text:?}; /readyz: {:?}; log:\n{}", ready(forebay), forebay.log()), || {
        let (status, problems, degraded) = ready(forebay);
        assert_eq!((status, problems.as_str()), (200, "[]"), "old data is no reason to stop");
        degraded.contains(text).then_some(())
    });
}
