//! What a pool writes in a day, and how long a card lasts by that: the status line, `check` and gauges say the same.
#![allow(clippy::unwrap_used, clippy::panic)]

use crate::harness::{Forebay, until};
use crate::support::{Mosquitto, publish_numbers, rows_of, runtime, succeeds, write_job};

fn job(broker: &Mosquitto, journal: &str) -> String {
    format!(
        "[job]\nname = \"test\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [inputs.rides]\ntype = \"mqtt\"\nurl = \"{}\"\ntopics = [\"a/+\"]\n\
         [outputs.rows]\ntype = \"file\"\npath = \"rows.jsonl\"\nrow_id = \"id\"\n[journal]\n{journal}\n",
        broker.url()
    )
}

const QUERY: &str = "SELECT n INTO rows FROM rides";

#[test]
fn what_is_written_a_day_and_the_years_of_the_card_are_told_by_all_that_tell_of_the_pool() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, broker) = (runtime(), Mosquitto::start());
    let settings = job(&broker, "write_budget = \"2GB/day\"\ncard_endurance = \"30TB\"");
    let forebay = Forebay::run(&write_job(dir.path(), &settings, QUERY));
    runtime.block_on(publish_numbers(&broker.url(), "a/1", 0..200));
    until("the rows", || (rows_of(&dir.path().join("rows.jsonl")).len() == 200).then_some(()));
    let metrics = until("the gauges", || {
        Some(forebay.metrics()).filter(|metrics| metrics.keys().any(|name| name.starts_with("forebay_pool_card_years")))
    });
    let gauge = |name: &str| metrics[&format!("forebay_pool_{name}{{job=\"test\"}}")];
    assert_eq!(gauge("write_budget_bytes"), 2e9);
    let day = gauge("written_day_bytes");
    assert!(day > 0.0 && gauge("written_minute_bytes") >= day);
    let years = 30e12 / (day * 365.25);
    assert!((gauge("card_years") / years - 1.0).abs() < 1e-6, "{} and {years}", gauge("card_years"));
    forebay.stop();

    let status = succeeds(dir.path(), &["journal", "status", "--job", "job.toml"]);
    let line = status.lines().find(|line| line.starts_with("written ")).unwrap_or_else(|| panic!("{status}"));
    let known = "over the last minute (write budget 2000.0 MB a day; a card for 30.0 TB lasts ";
    let (_, end) = line.split_once(known).unwrap_or_else(|| panic!("{line}"));
    assert!(line.contains(" a day over the last day, "), "{line}");
    let json = succeeds(dir.path(), &["journal", "status", "--job", "job.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let years = json["card_years"].as_f64().unwrap();
    assert!((30e12 / (json["wear"]["last_day"].as_f64().unwrap() * 365.25) / years - 1.0).abs() < 1e-6, "{json}");
    assert_eq!(end, format!("{years:.1} years)"));
    let check = succeeds(dir.path(), &["check", "job.toml"]);
    assert!(check.contains(&format!("\n  {line}\n")), "{check}\nlacks {line}");

    write_job(dir.path(), &job(&broker, "write_budget = \"none\""), QUERY);
    let status = succeeds(dir.path(), &["journal", "status", "--job", "job.toml"]);
    assert!(status.contains("over the last minute (no write budget)\n"), "{status}");
}
