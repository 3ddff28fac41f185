//! What a job of the few required keys says: the documented default of each other setting.

use std::path::Path;
use std::time::Duration;

use expect_test::expect;
use forebay::job::*;
use forebay::journal::OnFull;
use forebay::score::{Mode, NanPolicy};
use forebay::time::TICKS_PER_SECOND;

use super::{SMALL, good, mib};

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
            InputSection {
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
                                    told: Told,
                                },
                                client_id: None,
                                keep_alive: 30s,
                                protocol: None,
                                status_topic: None,
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

    let FunctionSettings::Wasm(array) = &job.functions[0].kind else { panic!("{:?}", job.functions) };
    assert_eq!((array.component.as_path(), &array.export), (Path::new("jobs/udfs/create_array.wasm"), &None));
    let limits = array.limits;
    assert_eq!(
        (limits.memory_bytes, limits.timeout, limits.result_bytes_max),
        (32 << 20, Duration::from_millis(100), 1 << 20)
    );

    let FunctionSettings::Endpoint(score) = &job.functions[1].kind else { panic!("{:?}", job.functions) };
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
            OutputSection {
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
                                told: Told,
                            },
                            client_id: None,
                            keep_alive: 30s,
                            protocol: None,
                            status_topic: None,
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
                    told: ToldColumns {
                        row_id: None,
                        scored_by: None,
                        revision: None,
                    },
                    puback_timeout: 30s,
                },
                backlog: BacklogSettings {
                    on_full: None,
                    max_bytes: None,
                    max_age: None,
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
    assert_eq!((pool.commit_interval, pool.commit_records), (Duration::from_millis(140), 1_000));
    assert_eq!((pool.write_budget, job.journal.card_endurance), (Some(10_000_000_000), None));
    assert_eq!((job.metrics.enabled, job.metrics.listen.to_string()), (true, "127.0.0.1:9464".into()));
    assert!(job.warnings.is_empty());
}
