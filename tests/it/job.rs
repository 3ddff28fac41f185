//! Job files: what a good one says, and every problem of bad ones, drawn whole.

#![allow(clippy::panic, clippy::expect_used, reason = "helpers of tests")]

use std::path::Path;
use std::time::Duration;

use expect_test::{Expect, expect};
use forebay::job::{self, *};
use forebay::journal::OnFull;
use forebay::score::signature::{Cell, Column, Layout};
use forebay::score::{Mode, NanPolicy, Signature};
use forebay::time::TICKS_PER_SECOND;
use secrecy::ExposeSecret;

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
    want.assert_eq(&job::parse(&text, Path::new("taxi.toml")).expect_err("a bad file").to_string());
}

fn mib(count: u64) -> u64 {
    count << 20
}

#[test]
fn a_small_job_has_the_documented_defaults() {
    let job = good(SMALL);
    assert_eq!((job.name.as_str(), job.query.as_path()), ("taxi", Path::new("jobs/taxi.asaql")));
    assert_eq!((job.on_error, job.start), (OnError::DeadLetter, Start::Oldest));
    let time = &job.time;
    assert_eq!((time.late_tolerance, time.out_of_order, time.adjust), (Some(5 * TICKS_PER_SECOND), 0, true));
    assert_eq!(job.state_bytes_max, mib(256));

    expect![[r#"
        [
            Input {
                name: "rides",
                kind: Stream(
                    StreamInput {
                        source: MqttSourceConfig {
                            broker: BrokerConfig {
                                address: MqttAddress {
                                    host: "127.0.0.1",
                                    port: 1883,
                                    tls: false,
                                },
                                username: None,
                                password: None,
                                tls: TlsFiles {
                                    ca_file: None,
                                    client: None,
                                },
                                client_id: None,
                                keep_alive: 30s,
                                protocol: None,
                            },
                            topics: [
                                "taxi/+/rides",
                            ],
                            qos: AtLeastOnce,
                            payload_bytes_max: 1048576,
                            receive_maximum: 1000,
                            unacked_bytes_max: 16777216,
                            session_expiry: Some(
                                604800s,
                            ),
                        },
                        payloads: Payloads {
                            format: JsonFormat,
                            compression: None,
                            unpacked_bytes_max: 16777216,
                            empty: Skip,
                        },
                    },
                ),
                span: Span {
                    start: 52,
                    end: 57,
                },
            },
        ]
    "#]]
    .assert_debug_eq(&job.inputs);

    let FunctionKind::Wasm(array) = &job.functions[0].kind else { panic!("{:?}", job.functions) };
    assert_eq!((array.component.as_path(), &array.export), (Path::new("jobs/udfs/create_array.wasm"), &None));
    let limits = array.limits;
    assert_eq!(
        (limits.memory_bytes, limits.timeout, limits.result_bytes_max),
        (32 << 20, Duration::from_millis(100), 1 << 20)
    );

    let FunctionKind::Endpoint(score) = &job.functions[1].kind else { panic!("{:?}", job.functions) };
    assert_eq!(score.url.as_str(), "http://127.0.0.1:5001/score");
    expect![[r#"
        AzureMl {
            swagger_url: None,
            deployment: None,
        }
    "#]]
    .assert_debug_eq(&score.dialect);
    assert_eq!((score.max_batch_count, score.max_batch_bytes, score.parallel_requests), (1_000, 1_000_000, 20));
    assert_eq!((score.linger, score.request_timeout), (Duration::from_millis(20), Duration::from_secs(10)));
    assert_eq!((score.mode, score.nan, &score.signature), (Mode::Edge, NanPolicy::Null, &None));

    expect![[r#"
        [
            Output {
                name: "scored",
                settings: MqttOutputConfig {
                    connection: Own(
                        BrokerConfig {
                            address: MqttAddress {
                                host: "127.0.0.1",
                                port: 1883,
                                tls: false,
                            },
                            username: None,
                            password: None,
                            tls: TlsFiles {
                                ca_file: None,
                                client: None,
                            },
                            client_id: None,
                            keep_alive: 30s,
                            protocol: None,
                        },
                    ),
                    topic: TopicTemplate {
                        pieces: [
                            Literal(
                                "taxi/scored",
                            ),
                        ],
                        span: Span {
                            start: 382,
                            end: 395,
                        },
                    },
                    qos: AtLeastOnce,
                    retain: false,
                    body: Row,
                    batch: BatchPolicy {
                        rows: 1,
                        bytes: 1048576,
                        time: 0ns,
                    },
                    row_id: None,
                    puback_timeout: 30s,
                },
                span: Span {
                    start: 319,
                    end: 325,
                },
            },
        ]
    "#]]
    .assert_debug_eq(&job.outputs);

    let pool = &job.journal.config;
    assert_eq!(
        (pool.path.as_path(), pool.max_bytes, job.journal.on_full),
        (Path::new("jobs/taxi.db"), mib(1024), OnFull::Block)
    );
    assert_eq!((pool.retention, pool.dead_letters_max_bytes), (None, mib(64)));
    assert_eq!((pool.commit_interval, pool.commit_records), (Duration::from_millis(150), 1_000));
    assert_eq!((job.metrics.enabled, job.metrics.listen.to_string()), (true, "127.0.0.1:9464".into()));
    assert!(job.warnings.is_empty());
}

#[test]
fn every_setting_can_be_set() {
    let job = good(
        r#"
        [job]
        name = "plant-7"
        query = "/etc/forebay/plant.asaql"
        on_error = "stop"
        start = "now"
        late_tolerance = -1
        out_of_order_tolerance = "1m30s"
        out_of_order_policy = "drop"

        [inputs.rides]
        type = "mqtt"
        url = "mqtts://[::1]"
        topics = ["a/#", "$share/g/b"]
        qos = 0
        username = "gw"
        password = "file:secrets/mqtt"
        ca_file = "ca.pem"
        client_id = "gw-7"
        keep_alive = "1m"
        payload_bytes_max = "64KiB"
        receive_maximum = 20
        unacked_bytes_max = 1048576
        session_expiry = "forever"
        format = "json"

        [inputs."my file"]
        type = "file"
        path = "rides.jsonl"

        [functions.f]
        type = "wasm"
        component = "f.wasm"
        export = "some-other"
        memory = "128MiB"
        timeout = "1s"
        result_bytes_max = "2MB"
        on_error = "null"

        [functions.score]
        type = "azureml"
        url = "https://e.westeurope.inference.ml.azure.com/score"
        key = "credential:aml"
        swagger_url = "https://e.westeurope.inference.ml.azure.com/swagger.json"
        max_batch_count = 50
        max_batch_bytes = "100KB"
        parallel_requests = 2
        linger = "0s"
        request_timeout = "3s"
        mode = "asa"
        order = "stream"
        on_error = "dead-letter"
        ca_file = "ca.pem"
        constants = { z = 1, method = "predict", list = [1.5, true], inner = { x = 0x10 } }
        nan = "dead-letter"
        deployment = "blue"
        input_path = "Inputs.data"
        input_kind = "records"
        columns = [{ name = "distance", type = "float" }, { name = "note", type = "any" }]
        output_path = ["Results"]

        [outputs.a]
        type = "file"
        path = "out/a.jsonl"
        rotate_bytes = "1GB"
        rotate_interval = "1d"
        keep_files = 3
        fsync = "interval"
        fsync_interval = "250ms"
        row_id = "id"
        [outputs.b]
        type = "stdout"

        [journal]
        path = "/var/lib/forebay/plant.db"
        max_bytes = "100MiB"
        on_full = "drop-oldest"
        retention = "7d"
        dead_letters_max_bytes = "10MiB"
        commit_interval = "5ms"
        commit_records = 10

        [metrics]
        listen = "0.0.0.0:9000"
        allow_remote = true
        "#,
    );
    assert_eq!(job.query, Path::new("/etc/forebay/plant.asaql"));
    assert_eq!((job.on_error, job.start, job.time.late_tolerance), (OnError::Stop, Start::Now, None));
    assert_eq!((job.time.out_of_order, job.time.adjust), (90 * TICKS_PER_SECOND, false));
    let names: Vec<&str> = job.inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["rides", "my file"]);
    expect![[r#"
        [
            Input {
                name: "rides",
                kind: Stream(
                    StreamInput {
                        source: MqttSourceConfig {
                            broker: BrokerConfig {
                                address: MqttAddress {
                                    host: "::1",
                                    port: 8883,
                                    tls: true,
                                },
                                username: Some(
                                    "gw",
                                ),
                                password: Some(
                                    Secret {
                                        source: File(
                                            "jobs/secrets/mqtt",
                                        ),
                                        span: Span {
                                            start: 411,
                                            end: 430,
                                        },
                                        is_key: false,
                                    },
                                ),
                                tls: TlsFiles {
                                    ca_file: Some(
                                        "jobs/ca.pem",
                                    ),
                                    client: None,
                                },
                                client_id: Some(
                                    "gw-7",
                                ),
                                keep_alive: 60s,
                                protocol: None,
                            },
                            topics: [
                                "a/#",
                                "$share/g/b",
                            ],
                            qos: AtMostOnce,
                            payload_bytes_max: 65536,
                            receive_maximum: 20,
                            unacked_bytes_max: 1048576,
                            session_expiry: None,
                        },
                        payloads: Payloads {
                            format: JsonFormat,
                            compression: None,
                            unpacked_bytes_max: 16777216,
                            empty: Skip,
                        },
                    },
                ),
                span: Span {
                    start: 254,
                    end: 259,
                },
            },
            Input {
                name: "my file",
                kind: File(
                    FileInput {
                        path: "jobs/rides.jsonl",
                        payloads: Payloads {
                            format: JsonFormat,
                            compression: None,
                            unpacked_bytes_max: 16777216,
                            empty: Skip,
                        },
                    },
                ),
                span: Span {
                    start: 688,
                    end: 697,
                },
            },
        ]
    "#]]
    .assert_debug_eq(&job.inputs);
    assert_eq!(
        job.functions.iter().map(|function| function.on_error).collect::<Vec<_>>(),
        [Some(OnError::Null), Some(OnError::DeadLetter)]
    );
    let FunctionKind::Endpoint(score) = &job.functions[1].kind else { panic!("{:?}", job.functions) };
    let constants = serde_json::to_string(&score.constants).expect("json");
    assert_eq!(constants, r#"[["z",1],["method","predict"],["list",[1.5,true]],["inner",{"x":16}]]"#);
    let column = |name: &str, cell| Column { name: name.into(), cell };
    let columns = vec![column("distance", Cell::Float), column("note", Cell::Any)];
    let layout = Layout::Records { columns, required: Vec::new() };
    assert_eq!(
        score.signature,
        Some(Signature::of(vec!["Inputs".into(), "data".into()], layout, vec!["Results".into()]))
    );
    expect![[r#"
        AzureMl {
            swagger_url: Some(
                Url {
                    scheme: "https",
                    cannot_be_a_base: false,
                    username: "",
                    password: None,
                    host: Some(
                        Domain(
                            "e.westeurope.inference.ml.azure.com",
                        ),
                    ),
                    port: None,
                    path: "/swagger.json",
                    query: None,
                    fragment: None,
                },
            ),
            deployment: Some(
                "blue",
            ),
        }
    "#]]
    .assert_debug_eq(&score.dialect);
    expect![[r#"
        [
            Output {
                name: "a",
                settings: FileOutputConfig {
                    path: "jobs/out/a.jsonl",
                    rotate_bytes: Some(
                        1000000000,
                    ),
                    rotate_interval: Some(
                        86400s,
                    ),
                    keep_files: Some(
                        3,
                    ),
                    fsync: Interval(
                        250ms,
                    ),
                    row_id: Some(
                        "id",
                    ),
                },
                span: Span {
                    start: 1801,
                    end: 1802,
                },
            },
            Output {
                name: "b",
                settings: StdoutOutputConfig {
                    row_id: None,
                },
                span: Span {
                    start: 2037,
                    end: 2038,
                },
            },
        ]
    "#]]
    .assert_debug_eq(&job.outputs);
    assert_eq!(
        (job.journal.on_full, job.journal.config.retention, job.journal.config.commit_records),
        (OnFull::DropOldest, Some(Duration::from_secs(604_800)), 10)
    );
    assert_eq!(job.metrics.listen.to_string(), "0.0.0.0:9000");
}

#[test]
fn an_empty_file_says_what_is_needed() {
    expect![[r#"
        error: the section `[job]` is missing
          --> taxi.toml
           = help: start the file with `[job]`

        error: the job has no input
          --> taxi.toml
           = help: add a section `[inputs.NAME]`

        error: the job has no output
          --> taxi.toml
           = help: add a section `[outputs.NAME]`

        3 errors
    "#]]
    .assert_eq(&job::parse("", Path::new("taxi.toml")).expect_err("empty").to_string());
}

#[test]
fn text_that_is_no_toml() {
    bad(
        &[("name  = \"taxi\"", "name = taxi\nx = \"a")],
        expect![[r#"
        error: invalid boolean, expected `true`
          --> taxi.toml:3:8
           |
         3 | name = taxi
           |        ^^^^
           = help: the job file is TOML: `key = "text"` under `[section]`

        error: invalid basic string, expected `"`
          --> taxi.toml:4:7
           |
         4 | x = "a
           |       ^
           = help: the job file is TOML: `key = "text"` under `[section]`

        2 errors
    "#]],
    );
}

#[test]
fn unknown_keys_and_sections_get_a_suggestion() {
    bad(
        &[("topics", "topic"), ("[outputs.scored]", "[output.scored]"), ("component", "colour = 1\ncomponent")],
        expect![[r#"
            error: the job has no output
              --> taxi.toml
               = help: add a section `[outputs.NAME]`

            error: `[inputs.rides]` needs `topics`
              --> taxi.toml:6:9
               |
             6 | [inputs.rides]
               |         ^^^^^ `topics` is missing
               = help: write `topics = ["taxi/+/rides"]`

            error: unknown key `topic`
              --> taxi.toml:9:1
               |
             9 | topic = ["taxi/+/rides"]
               | ^^^^^ `[inputs.rides]` has no such key
               = help: did you mean `topics`?

            error: unknown key `colour`
               --> taxi.toml:13:1
                |
             13 | colour = 1
                | ^^^^^^ `[functions.createArray]` has no such key
                = help: known are type, component, export, memory, timeout, result_bytes_max, imports, state_bytes_max, state_key_bytes_max, config, lookup, on_error

            error: unknown key `output`
               --> taxi.toml:21:2
                |
             21 | [output.scored]
                |  ^^^^^^ the job file has no such key
                = help: did you mean `outputs`?

            5 errors
        "#]],
    );
}

#[test]
fn missing_keys_are_told_at_their_section() {
    bad(
        &[
            ("name  = \"taxi\"\n", ""),
            ("type  = \"mqtt\"\nurl   = \"mqtt://127.0.0.1:1883\"\n", "type = \"mqtt\"\n"),
            ("type = \"azureml\"\n", ""),
        ],
        expect![[r#"
            error: `[job]` needs `name`
              --> taxi.toml:2:2
               |
             2 | [job]
               |  ^^^ `name` is missing
               = help: write `name = "taxi"`

            error: `[functions.score]` needs `type`
               --> taxi.toml:14:12
                |
             14 | [functions.score]
                |            ^^^^^ `type` is missing
                = help: write `type = "wasm"` or `type = "azureml"`

            error: `[outputs.scored]` needs `url`
               --> taxi.toml:18:10
                |
             18 | [outputs.scored]
                |          ^^^^^^ `url` is missing
                = help: write `url = "mqtt://127.0.0.1:1883"`

            3 errors
        "#]],
    );
}

#[test]
fn a_literal_key_is_refused_and_not_shown() {
    bad(
        &[("env:AML_KEY", "s3cr3t-k3y"), ("mqtt://127.0.0.1:1883", "mqtt://gw:hunter2@127.0.0.1:1883")],
        expect![[r#"
            error: a password stands in an address
              --> taxi.toml:8:10
               |
             8 | url    = "********************************"
               |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ expected the address without `user:password@`
               = help: write `username = "…"` and `password = "env:NAME"`, or `key = "env:NAME"` for an endpoint

            error: `key` is written into the job file
               --> taxi.toml:18:8
                |
             18 | key  = "**********"
                |        ^^^^^^^^^^^^ expected `env:NAME`, `file:PATH` or `credential:NAME`
                = note: job files are copied and logged; secrets are only referred to
                = help: put the secret into an environment variable and write `key = "env:NAME"`

            2 errors
        "#]],
    );
}

#[test]
fn qos_2_is_refused_with_the_reason() {
    bad(
        &[("topics = ", "qos = 2\ntopics = ")],
        expect![[r#"
        error: QoS 2 is not supported
          --> taxi.toml:9:7
           |
         9 | qos = 2
           |       ^ expected 0 or 1
           = note: QoS 2 is exactly once for one hop only and costs two more packets a message; with QoS 1 every row carries an id by which repeats are dropped
           = help: write `qos = 1`
    "#]],
    );
}

#[test]
fn addresses_that_are_none() {
    bad(
        &[
            ("mqtt://127.0.0.1:1883", "tcp://127.0.0.1:1883"),
            ("http://127.0.0.1:5001/score", "127.0.0.1/score"),
            ("mqtt://127.0.0.1:1883", "mqtt://h/a/b"),
        ],
        expect![[r#"
            error: brokers are addressed by `mqtt://`
              --> taxi.toml:8:10
               |
             8 | url    = "tcp://127.0.0.1:1883"
               |          ^^^^^^^^^^^^^^^^^^^^^^ expected `mqtt://` or `mqtts://`
               = help: write `mqtt://host:1883`, or `mqtts://host:8883` for TLS

            error: this is no address: relative URL without a base
               --> taxi.toml:17:8
                |
             17 | url  = "127.0.0.1/score"
                |        ^^^^^^^^^^^^^^^^^ cannot be read
                = help: write `https://host/score`, or `http://127.0.0.1:5001/score`

            error: an address of a broker has no path
               --> taxi.toml:22:9
                |
             22 | url   = "mqtt://h/a/b"
                |         ^^^^^^^^^^^^^^ expected only host and port
                = help: topics are listed by `topics` or `topic`

            3 errors
        "#]],
    );
}

#[test]
fn units_ranges_and_types() {
    bad(
        &[
            (
                "type = \"azureml\"",
                "type = \"azureml\"\nmax_batch_count = 20000\nlinger = 20\nparallel_requests = \"many\"\nmax_batch_bytes = \"1 apple\"",
            ),
            ("[job]", "[journal]\nmax_bytes = \"1KB\"\non_full = \"drop\"\n[job]\nlate_tolerance = \"30d\""),
            ("topics = [\"taxi/+/rides\"]", "topics = [\"taxi/#/rides\", 7]\npayload_bytes_max = \"32MiB\""),
        ],
        expect![[r#"
            error: `max_bytes` has the wrong form
              --> taxi.toml:3:13
               |
             3 | max_bytes = "1KB"
               |             ^^^^^ expected a size from "16MiB" to "16TiB"
               = help: write it with a unit, like "32MiB" or "1GB"; the default is "1GiB"

            error: `on_full` has the wrong form
              --> taxi.toml:4:11
               |
             4 | on_full = "drop"
               |           ^^^^^^ expected "block" or "drop-oldest"
               = help: write `on_full = "block"`

            error: `late_tolerance` has the wrong form
              --> taxi.toml:6:18
               |
             6 | late_tolerance = "30d"
               |                  ^^^^^ expected a duration from "0s" to "20d23h59m59s"
               = help: write it with a unit, like "20ms", "5s" or "7d"; or "forever"; the default is "5s"

            error: `taxi/#/rides` is no topic here
               --> taxi.toml:13:11
                |
             13 | topics = ["taxi/#/rides", 7]
                |           ^^^^^^^^^^^^^^ `#` stands for all that follows: `a/#`

            error: `topics` has the wrong form
               --> taxi.toml:13:27
                |
             13 | topics = ["taxi/#/rides", 7]
                |                           ^ expected a text
                = help: write `topics = ["…"]`

            error: `payload_bytes_max` is above `unacked_bytes_max`
               --> taxi.toml:14:21
                |
             14 | payload_bytes_max = "32MiB"
                |                     ^^^^^^^ one message would never fit
                = help: raise `unacked_bytes_max` or lower `payload_bytes_max`

            error: `max_batch_count` has the wrong form
               --> taxi.toml:22:19
                |
             22 | max_batch_count = 20000
                |                   ^^^^^ expected a whole number from 1 to 10000
                = help: the default is 1000

            error: `linger` has the wrong form
               --> taxi.toml:23:10
                |
             23 | linger = 20
                |          ^^ expected a duration from "0s" to "10s"
                = help: write it with a unit, like "20ms", "5s" or "7d"; the default is "20ms"

            error: `parallel_requests` has the wrong form
               --> taxi.toml:24:21
                |
             24 | parallel_requests = "many"
                |                     ^^^^^^ expected a whole number from 1 to 256
                = help: the default is 20

            error: `max_batch_bytes` has the wrong form
               --> taxi.toml:25:19
                |
             25 | max_batch_bytes = "1 apple"
                |                   ^^^^^^^^^ expected a size from "1KiB" to "64MiB"
                = help: write it with a unit, like "32MiB" or "1GB"; the default is "1MB"

            10 errors
        "#]],
    );
}

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
                "[outputs.file]\ntype = \"file\"\npath = \"a\"\nkeep_files = 3\nfsync_interval = \"1s\"\n[metrics]\nlisten = \"0.0.0.0:1\"\n[outputs.scored]",
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
            FunctionKind::Endpoint(endpoint) => Some(endpoint.parallel_requests),
            FunctionKind::Wasm(_) => None,
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
        job::parse(&text, Path::new("/etc/forebay/taxi.toml")).expect_err("a bad file").to_string()
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
}

#[test]
fn columns_of_a_signature() {
    bad(
        &[(
            "key  = \"env:AML_KEY\"",
            "input_kind = \"split\"\ncolumns = [{ name = \"a\", type = \"flaot\" }, { name = \"b\" }, 3, { name = \"c\", type = \"bit\", unit = 1 }]\nconstants = { when = 2024-01-01 }",
        )],
        expect![[r#"
            error: this is no type of a column
               --> taxi.toml:19:33
                |
             19 | columns = [{ name = "a", type = "flaot" }, { name = "b" }, 3, { name = "c", type = "bit", unit = 1 }]
                |                                 ^^^^^^^ expected a type of the query language
                = help: did you mean "float"?

            error: `[functions.score.columns]` needs `type`
               --> taxi.toml:19:44
                |
             19 | columns = [{ name = "a", type = "flaot" }, { name = "b" }, 3, { name = "c", type = "bit", unit = 1 }]
                |                                            ^^^^^^^^^^^^^^ `type` is missing
                = help: write `columns = [{ name = "distance", type = "float" }]`

            error: a column has the wrong form
               --> taxi.toml:19:60
                |
             19 | columns = [{ name = "a", type = "flaot" }, { name = "b" }, 3, { name = "c", type = "bit", unit = 1 }]
                |                                                            ^ expected `{ name, type }`
                = help: write `columns = [{ name = "distance", type = "float" }]`

            error: unknown key `unit`
               --> taxi.toml:19:91
                |
             19 | columns = [{ name = "a", type = "flaot" }, { name = "b" }, 3, { name = "c", type = "bit", unit = 1 }]
                |                                                                                           ^^^^ `[functions.score.columns]` has no such key
                = help: known are name, type

            error: a constant has no JSON form
               --> taxi.toml:20:22
                |
             20 | constants = { when = 2024-01-01 }
                |                      ^^^^^^^^^^ dates are texts in JSON
                = help: write a text, a number, `true`, `false`, a list or a table

            5 errors
        "#]],
    );
}

#[test]
fn formats_of_payloads() {
    bad(
        &[("topics = ", "format = \"cvs\"\nunpacked_bytes_max = \"1MiB\"\nempty = \"drop\"\ntopics = ")],
        expect![[r#"
        error: `format` has the wrong form
          --> taxi.toml:9:10
           |
         9 | format = "cvs"
           |          ^^^^^ expected "json" or "csv" or "text" or "bytes"
           = help: did you mean "csv"?

        error: `unpacked_bytes_max` without `compression`
           --> taxi.toml:10:22
            |
         10 | unpacked_bytes_max = "1MiB"
            |                      ^^^^^^ nothing is unpacked
            = help: write `compression = "gzip"`, or leave this out

        error: `empty` has the wrong form
           --> taxi.toml:11:9
            |
         11 | empty = "drop"
            |         ^^^^^^ expected "skip" or "dead-letter"
            = help: write `empty = "skip"`

        3 errors
    "#]],
    );
    bad(
        &[("topics = ", "format = \"csv\"\ndelimiter = \"a\"\ncolumns = [\"x\", \"x\", \"\"]\ntopics = ")],
        expect![[r#"
        error: this does not delimit fields
           --> taxi.toml:10:13
            |
         10 | delimiter = "a"
            |             ^^^ expected one sign of ASCII, no quote
            = help: write `delimiter = ";"`, or `"\t"` for a tab; the default is ","

        error: two columns of the same name
           --> taxi.toml:11:17
            |
         11 | columns = ["x", "x", ""]
            |                 ^^^ a row has it twice
            = help: write `columns = ["time", "value"]`, or leave it out where the first line names the columns

        error: a column has no name
           --> taxi.toml:11:22
            |
         11 | columns = ["x", "x", ""]
            |                      ^^ expected a name
            = help: write `columns = ["time", "value"]`, or leave it out where the first line names the columns

        3 errors
    "#]],
    );
    bad(
        &[("topics = ", "delimiter = \";\"\ntopics = ")],
        expect![[r#"
            error: unknown key `delimiter`
              --> taxi.toml:9:1
               |
             9 | delimiter = ";"
               | ^^^^^^^^^ `[inputs.rides]` has no such key
               = help: known are type, url, username, password, ca_file, cert_file, key_file, client_id, keep_alive, protocol, topics, payload_bytes_max, unacked_bytes_max, qos, receive_maximum, session_expiry, format, compression, unpacked_bytes_max, empty
        "#]],
    );
}

#[test]
fn a_version_of_mqtt_may_be_named() {
    bad(
        &[("topics = ", "protocol = \"4\"\ntopics = ")],
        expect![[r#"
        error: `protocol` has the wrong form
          --> taxi.toml:9:12
           |
         9 | protocol = "4"
           |            ^^^ expected "auto" or "5" or "3.1.1"
           = help: write `protocol = "auto"`
    "#]],
    );
    let text = SMALL.replacen("topic = ", "protocol = \"3.1.1\"\ntopic = ", 1);
    expect![[r#"
        warning: rows leave without their ids
           --> jobs/taxi.toml:23:1
            |
         23 | protocol = "3.1.1"
            | ^^^^^^^^ MQTT 3.1.1 has no user properties
            = help: write `row_id = "id"` for a column, so that a receiver can drop repeats
    "#]]
    .assert_eq(&good(&text).warnings.to_string());
    assert!(good(&text.replacen("topic = ", "row_id = \"id\"\ntopic = ", 1)).warnings.is_empty());
}

#[test]
fn filters_of_an_input_do_not_overlap() {
    bad(
        &[(
            "topics = [\"taxi/+/rides\"]",
            "topics = [\"a/#\", \"a/+/b\", \"c\", \"$share/g/c\", \"c\", \"+/d\", \"e/+\"]",
        )],
        expect![[r#"
            error: `a/#` and `a/+/b` overlap
              --> taxi.toml:9:18
               |
             9 | topics = ["a/#", "a/+/b", "c", "$share/g/c", "c", "+/d", "e/+"]
               |                  ^^^^^^^ these two filters overlap: a broker may deliver such a message twice
               = help: leave out `a/+/b`: `a/#` covers it

            error: `c` and `$share/g/c` overlap
              --> taxi.toml:9:32
               |
             9 | topics = ["a/#", "a/+/b", "c", "$share/g/c", "c", "+/d", "e/+"]
               |                                ^^^^^^^^^^^^ these two filters overlap: a broker may deliver such a message twice
               = help: narrow one of them so that no topic matches both, or give each an input of its own

            error: `c` is a duplicate
              --> taxi.toml:9:46
               |
             9 | topics = ["a/#", "a/+/b", "c", "$share/g/c", "c", "+/d", "e/+"]
               |                                              ^^^ stands in the list before
               = help: leave one of them out

            error: `a/#` and `+/d` overlap
              --> taxi.toml:9:51
               |
             9 | topics = ["a/#", "a/+/b", "c", "$share/g/c", "c", "+/d", "e/+"]
               |                                                   ^^^^^ these two filters overlap: a broker may deliver such a message twice
               = help: narrow one of them so that no topic matches both, or give each an input of its own

            error: `+/d` and `e/+` overlap
              --> taxi.toml:9:58
               |
             9 | topics = ["a/#", "a/+/b", "c", "$share/g/c", "c", "+/d", "e/+"]
               |                                                          ^^^^^ these two filters overlap: a broker may deliver such a message twice
               = help: narrow one of them so that no topic matches both, or give each an input of its own

            5 errors
        "#]],
    );
    good(&SMALL.replacen("topics = [\"taxi/+/rides\"]", "topics = [\"a/#\", \"b/+\", \"$share/g/c\", \"$SYS/#\"]", 1));
}

#[test]
fn a_password_needs_a_user_name() {
    bad(
        &[("topics = ", "password = \"env:MQTT\"\ntopics = ")],
        expect![[r#"
        error: `password` without `username`
          --> taxi.toml:9:12
           |
         9 | password = "env:MQTT"
           |            ^^^^^^^^^^ a password needs a user name
           = help: write `username = "…"` too, or leave the password out
    "#]],
    );
}

#[test]
fn passwords_without_tls_are_warned_of() {
    let text = SMALL.replacen(
        "mqtt://127.0.0.1:1883\"",
        "mqtt://broker.plant\"\nusername = \"gw\"\npassword = \"env:MQTT\"",
        1,
    );
    expect![[r#"
        warning: the password crosses the network unencrypted
          --> jobs/taxi.toml:8:1
           |
         8 | url    = "mqtt://broker.plant"
           | ^^^ no TLS
           = help: write the url with `mqtts://`
    "#]]
    .assert_eq(&good(&text).warnings.to_string());
}

#[test]
fn files_that_do_not_exist_are_told_by_load() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("taxi.toml");
    std::fs::write(&path, SMALL).expect("written");
    std::fs::write(folder.path().join("taxi.asaql"), "SELECT * INTO scored FROM rides").expect("written");
    let errors = job::load(&path).expect_err("the component is missing").to_string();
    expect![[r#"
        error: `component` names no file
           --> FOLDER/taxi.toml:13:13
            |
         13 | component = "udfs/create_array.wasm"
            |             ^^^^^^^^^^^^^^^^^^^^^^^^ FOLDER/udfs/create_array.wasm does not exist
            = help: paths are relative to the job file
    "#]]
    .assert_eq(&errors.replace(&folder.path().display().to_string(), "FOLDER"));
    std::fs::create_dir(folder.path().join("udfs")).expect("folder");
    std::fs::write(folder.path().join("udfs/create_array.wasm"), "").expect("written");
    job::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
    let missing = job::load(&folder.path().join("none.toml")).expect_err("no such file").to_string();
    expect![[r#"
        error: the job file cannot be read: No such file or directory (os error 2)
          --> FOLDER/none.toml
           = help: check the path and its permissions
    "#]]
    .assert_eq(&missing.replace(&folder.path().display().to_string(), "FOLDER"));
}

#[test]
fn secrets_are_read_when_asked_for() {
    let folder = tempfile::tempdir().expect("folder");
    let text = SMALL.replace("env:AML_KEY", "file:key");
    let job = job::parse(&text, &folder.path().join("taxi.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    let errors = job.check_secrets().expect_err("there is no such file").to_string();
    expect![[r#"
        error: FOLDER/key cannot be read: No such file or directory (os error 2)
           --> FOLDER/taxi.toml:18:8
            |
         18 | key  = "file:key"
            |        ^^^^^^^^^^ cannot be used
            = help: check the path and its permissions
    "#]]
    .assert_eq(&errors.replace(&folder.path().display().to_string(), "FOLDER"));
    for key in ["first", "second"] {
        std::fs::write(folder.path().join("key"), format!("{key}\n")).expect("written");
        let read: Vec<String> =
            job.secrets().map(|secret| secret.read().expect("readable").expose_secret().to_string()).collect();
        assert_eq!(read, [key]);
    }
    assert!(job.check_secrets().is_ok());
    let unset = good(&SMALL.replace("AML_KEY", "FOREBAY_TEST_NO_SUCH_VARIABLE")).check_secrets().expect_err("not set");
    expect![[r#"
        error: the environment variable FOREBAY_TEST_NO_SUCH_VARIABLE is not set
           --> jobs/taxi.toml:18:8
            |
         18 | key  = "env:FOREBAY_TEST_NO_SUCH_VARIABLE"
            |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ cannot be used
            = help: set it where forebay is started
    "#]]
    .assert_eq(&unset.to_string());
}
