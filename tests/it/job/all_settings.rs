//! A job that sets everything: each setting arrives as the type that the rest of the program takes.

use std::path::Path;
use std::time::Duration;

use expect_test::expect;
use forebay::job::*;
use forebay::journal::{BacklogLimits, OnDamage, OnFull};
use forebay::score::EndpointSignature;
use forebay::score::signature::{Cell, Layout, SignatureColumn};
use forebay::time::TICKS_PER_SECOND;

use super::{SMALL, good};

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
        catchup_rate = 700
        catchup_jitter = "30s"
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
        max_age = "2h"

        [outputs.a]
        type = "file"
        path = "out/a.jsonl"
        rotate_bytes = "1GB"
        rotate_interval = "1d"
        keep_files = 3
        fsync = "interval"
        fsync_interval = "250ms"
        row_id = "id"
        on_full = "drop-oldest"
        max_bytes = "20MiB"
        max_age = "1d"
        [outputs.b]
        type = "stdout"

        [journal]
        path = "/var/lib/forebay/plant.db"
        max_bytes = "100MiB"
        on_full = "drop-oldest"
        max_age = "30d"
        warn_below = "2d"
        retention = "7d"
        dead_letters_max_bytes = "10MiB"
        commit_interval = "5ms"
        commit_records = 10
        write_budget = "2GB/day"
        card_endurance = "30TB"
        on_damage = "fresh"

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
            InputSection {
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
                                    told: Told,
                                },
                                client_id: Some(
                                    "gw-7",
                                ),
                                keep_alive: 60s,
                                protocol: None,
                                status_topic: None,
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
            InputSection {
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
    let FunctionSettings::Endpoint(score) = &job.functions[1].kind else { panic!("{:?}", job.functions) };
    assert_eq!((score.catchup_rate, score.catchup_jitter), (Some(700), Duration::from_secs(30)));
    let constants = serde_json::to_string(&score.constants).expect("json");
    assert_eq!(constants, r#"[["z",1],["method","predict"],["list",[1.5,true]],["inner",{"x":16}]]"#);
    let column = |name: &str, cell| SignatureColumn { name: name.into(), cell };
    let columns = vec![column("distance", Cell::Float), column("note", Cell::Any)];
    let layout = Layout::Records { columns, required: Vec::new() };
    assert_eq!(
        score.signature,
        Some(EndpointSignature::of(vec!["Inputs".into(), "data".into()], layout, vec!["Results".into()]))
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
            OutputSection {
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
                    told: ToldColumns {
                        row_id: Some(
                            Text {
                                value: "id",
                                span: Span {
                                    start: 2096,
                                    end: 2100,
                                },
                            },
                        ),
                        scored_by: None,
                        revision: None,
                    },
                },
                backlog: BacklogSettings {
                    on_full: Some(
                        DropOldest,
                    ),
                    max_bytes: Some(
                        20971520,
                    ),
                    max_age: Some(
                        86400s,
                    ),
                },
                span: Span {
                    start: 1882,
                    end: 1883,
                },
            },
            OutputSection {
                name: "b",
                settings: StdoutOutputConfig {
                    told: ToldColumns {
                        row_id: None,
                        scored_by: None,
                        revision: None,
                    },
                },
                backlog: BacklogSettings {
                    on_full: None,
                    max_bytes: None,
                    max_age: None,
                },
                span: Span {
                    start: 2201,
                    end: 2202,
                },
            },
        ]
    "#]]
    .assert_debug_eq(&job.outputs);
    assert_eq!(
        (job.journal.on_full, job.journal.config.retention, job.journal.config.commit_records),
        (OnFull::DropOldest, Some(Duration::from_secs(604_800)), 10)
    );
    let day = Duration::from_secs(86_400);
    assert_eq!((job.journal.max_age, job.journal.warn_below), (Some(30 * day), Some(2 * day)));
    assert_eq!(job.journal.config.write_budget, Some(2_000_000_000));
    assert_eq!(job.journal.card_endurance, Some(30_000_000_000_000));
    assert_eq!(job.journal.config.on_damage, OnDamage::Fresh);
    let limits = |max_age, max_bytes| BacklogLimits { max_age: Some(max_age), max_bytes };
    let within = |backlog: BacklogSettings| backlog.within(&job.journal);
    assert_eq!(within(job.outputs[0].backlog), (OnFull::DropOldest, limits(day, Some(20 << 20))));
    assert_eq!(within(job.outputs[1].backlog), (OnFull::DropOldest, limits(30 * day, None)));
    assert_eq!(within(job.functions[1].backlog), (OnFull::DropOldest, limits(day / 12, None)));
    assert_eq!(job.metrics.listen.to_string(), "0.0.0.0:9000");
}

#[test]
fn a_pool_may_write_as_much_as_it_takes() {
    for text in ["none", "NONE"] {
        let job = good(&SMALL.replace("[job]", &format!("[journal]\nwrite_budget = \"{text}\"\n[job]")));
        assert_eq!(job.journal.config.write_budget, None);
    }
    let job = good(&SMALL.replace("[job]", "[journal]\nwrite_budget = \"1.5 GB/day\"\n[job]"));
    assert_eq!(job.journal.config.write_budget, Some(1_500_000_000));
}
