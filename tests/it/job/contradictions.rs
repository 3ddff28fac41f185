//! Settings that are good alone and wrong together: equal names, sizes that cannot hold, two owners of one file.

use expect_test::expect;
use forebay::job::*;

use super::{SMALL, bad, good};
use crate::support::refused;

#[test]
fn names_that_a_query_cannot_tell_apart() {
    bad(
        &[
            ("[functions.score]", "[functions.create_array]"),
            ("[outputs.scored]", "[outputs.Scored]\ntype = \"stdout\"\n[outputs.scored]"),
        ],
        expect![[r#"
            error: two functions of the same name
               --> taxi.toml:15:12
                |
             15 | [functions.create_array]
                |            ^^^^^^^^^^^^ a query cannot tell it from `createArray`
                = help: letters and digits have to differ, ignoring letter case

            error: two outputs of the same name
               --> taxi.toml:22:10
                |
             22 | [outputs.scored]
                |          ^^^^^^ a query cannot tell it from `Scored`
                = help: names have to differ in more than letter case

            2 errors
        "#]],
    );
}

#[test]
fn settings_that_contradict_each_other() {
    bad(
        &[
            ("url    = \"mqtt://127.0.0.1:1883\"", "url = \"mqtt://127.0.0.1:1883\"\nca_file = \"ca.pem\""),
            ("key  = \"env:AML_KEY\"", "columns = []\noutput_path = \"a..b\""),
            (
                "[outputs.scored]",
                "[outputs.file]\ntype = \"file\"\npath = \"a\"\nkeep_files = 3\nfsync_interval = \
                \"1s\"\n[metrics]\nlisten = \"0.0.0.0:1\"\n[outputs.scored]",
            ),
        ],
        expect![[r#"
            error: `ca_file` without TLS
              --> taxi.toml:9:11
               |
             9 | ca_file = "ca.pem"
               |           ^^^^^^^^ has no use with `mqtt://`
               = help: write the url with `mqtts://`

            error: `columns` without `input_kind`
               --> taxi.toml:19:11
                |
             19 | columns = []
                |           ^^ half a signature
                = help: write `input_kind = "array"`, or leave the signature to the endpoint's swagger

            error: `output_path` has an empty part
               --> taxi.toml:20:15
                |
             20 | output_path = "a..b"
                |               ^^^^^^ expected names
                = help: write `output_path = "Inputs.data"`; names with points stand in a list

            error: `keep_files` without rotation
               --> taxi.toml:25:14
                |
             25 | keep_files = 3
                |              ^ there is only one file
                = help: add `rotate_bytes = "64MiB"` or `rotate_interval = "1d"`

            error: `fsync_interval` has no use here
               --> taxi.toml:26:18
                |
             26 | fsync_interval = "1s"
                |                  ^^^^ only with `fsync = "interval"`
                = help: write `fsync = "interval"`, or leave this out

            error: metrics would be open to the network
               --> taxi.toml:28:10
                |
             28 | listen = "0.0.0.0:1"
                |          ^^^^^^^^^^^ expected a loopback address
                = help: metrics have no login; write `allow_remote = true` if that is meant

            6 errors
        "#]],
    );
}

#[test]
fn requests_whose_rows_can_never_be_under_way_at_once_are_refused() {
    let with = |keys: &str| SMALL.replace("key  = \"env:AML_KEY\"", keys);
    let parallel = |text: &str| {
        let job = good(text);
        let endpoint = job.functions.iter().find_map(|f| match &f.kind {
            FunctionSettings::Endpoint(endpoint) => Some(endpoint.parallel_requests),
            FunctionSettings::Wasm(_) => None,
        });
        endpoint.expect("an endpoint")
    };
    assert_eq!(parallel(&with("max_batch_count = 6_553")), 20);
    assert_eq!(parallel(&with("max_batch_count = 10_000")), 13, "the default is what fits");
    assert_eq!(parallel(&with("max_batch_count = 512\nparallel_requests = 256")), 256);
    bad(
        &[("key  = \"env:AML_KEY\"", "max_batch_count = 10_000\nparallel_requests = 14")],
        expect![[r#"
            error: 14 requests of 10000 rows can never be under way at once
               --> taxi.toml:19:21
                |
             19 | parallel_requests = 14
                |                     ^^ at most 13
                = help: a function holds at most 131072 rows in requests (64 MiB with those that wait): lower this or max_batch_count
        "#]],
    );
}

#[test]
fn parts_that_would_get_into_each_others_way_are_refused() {
    let with = |sections: &str| {
        let text = format!("{SMALL}{sections}");
        refused("/etc/forebay/taxi.toml", &text)
    };
    let file = |name: &str, path: &str| format!("[outputs.{name}]\ntype = \"file\"\npath = {path:?}\n");
    for (path, owner) in [("taxi.toml", "the job file"), ("taxi.asaql", "its query"), ("taxi.db", "its pool")] {
        let said = with(&file("lines", path));
        assert!(said.contains(&format!("the file /etc/forebay/{path} is that of {owner}")), "{said}");
    }
    let said = with(&(file("a", "rows.jsonl") + &file("b", "./rows.jsonl")));
    assert!(said.contains("the file /etc/forebay/rows.jsonl is that of output `a`"), "{said}");
    let client = "url = \"mqtt://127.0.0.1:1883\"\nclient_id = \"one\"\n";
    let said = with(&format!(
        "[inputs.a]\ntype = \"mqtt\"\ntopics = [\"a\"]\n{client}[outputs.b]\ntype = \"mqtt\"\ntopic = \"b\"\n{client}"
    ));
    assert!(said.contains("the client id `one` at 127.0.0.1:1883 is that of input `a`"), "{said}");
    let status = "url = \"mqtt://127.0.0.1:1883\"\nstatus_topic = \"s\"\n";
    let said = with(&format!(
        "[outputs.a]\ntype = \"mqtt\"\ntopic = \"a\"\n{status}[outputs.b]\ntype = \"mqtt\"\ntopic = \"b\"\n{status}"
    ));
    assert!(said.contains("the status topic `s` at 127.0.0.1:1883 is that of output `a`"), "{said}");
}

#[test]
fn a_share_of_the_pool_for_an_output_that_may_lose_nothing() {
    bad(
        &[("topic = \"taxi/scored\"", "topic = \"taxi/scored\"\nmax_bytes = \"20MiB\"")],
        expect![[r#"
        error: `max_bytes` here says what may wait before the oldest is dropped
           --> taxi.toml:24:13
            |
         24 | max_bytes = "20MiB"
            |             ^^^^^^^ nothing may be dropped unless `on_full` says so
            = help: add `on_full = "drop-oldest"`, or leave `max_bytes` to [journal]
    "#]],
    );
}
