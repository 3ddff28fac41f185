//! What a pool still holds: listed, exported, and read by another query, while the job runs and when it does not.

use serde_json::Value as Json;

use crate::harness::{cli, until};
use crate::support::{JobFolder, publish_numbers, rows_of, succeeds, write_job};

#[test]
fn events_of_the_pool_are_listed_exported_and_read_by_another_query() {
    let folder = JobFolder::new();
    let url = folder.broker.url();
    let text = format!(
        "[job]\nname = \"test\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [journal]\npath = \"pool.db\"\nretention = \"1h\"\n\
         [inputs.t]\ntype = \"mqtt\"\nurl = \"{url}\"\ntopics = [\"t\"]\n\
         [inputs.quiet]\ntype = \"mqtt\"\nurl = \"{url}\"\ntopics = [\"quiet\"]\n\
         [outputs.out]\ntype = \"file\"\npath = \"out.jsonl\"\nrow_id = \"id\"\n"
    );
    write_job(folder.dir(), &text, "SELECT n INTO out FROM t UNION SELECT n FROM quiet");
    let journal = |args: &[&str]| {
        let all = [&["journal", args[0], "--job", "job.toml"], &args[1..]].concat();
        succeeds(folder.dir(), &all)
    };
    let looks = || {
        let listed = journal(&["ls"]);
        assert!(listed.starts_with("          50  t  ") && listed.ends_with("  offsets 0 to 49\n"), "{listed}");
        let exported = journal(&["export", "--from", "1h"]);
        let lines: Vec<Json> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told = |i: usize| (lines[i]["offset"].as_i64(), lines[i]["topic"].as_str(), lines[i]["payload"].as_str());
        assert_eq!((lines.len(), told(7)), (50, (Some(7), Some("t"), Some("{\"n\":7}"))), "{exported}");
        let query = "SELECT n * 2 AS m, GetMetadataPropertyValue(t, 'Mqtt.Topic') AS topic INTO x FROM t WHERE n > 47";
        let rows = journal(&["replay", "--query", query]);
        let row = |m: i64| format!("{{\"output\":\"x\",\"row\":{{\"m\":{m},\"topic\":\"t\"}}}}\n");
        assert_eq!(rows, row(96) + &row(98));
        assert_eq!(journal(&["replay", "--query", "SELECT n INTO x FROM t", "--to", "2026-01-01"]), "");
        let none = "no events: `retention` under [journal] keeps them after they are read\n";
        assert_eq!(journal(&["ls", "--input", "quiet"]), none);
    };
    let forebay = folder.run();
    folder.runtime.block_on(publish_numbers(&url, "t", 0..50));
    until("all rows", || (rows_of(&folder.path("out.jsonl")).len() == 50).then_some(()));
    looks();
    forebay.stop();
    looks();
    let refused = |args: &[&str]| cli(folder.dir(), &[&["journal"], args].concat());
    let (code, _, told) = refused(&["ls", "--job", "job.toml", "--input", "none"]);
    assert_eq!((code, told.as_str()), (2, "error: the job has no input `none`: it has `t`, `quiet`\n"));
    let (code, _, told) = refused(&["replay", "--job", "job.toml", "--query", "SELECT x FROM nothing"]);
    assert!(code == 2 && told.contains("nothing"), "{told}");
    folder.is_good();
}
