//! Addresses, QoS, protocol versions and topic filters of MQTT inputs and outputs, as a job file writes them.

use expect_test::expect;

use super::{SMALL, bad, good, refused};

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
fn a_status_topic_is_one_topic() {
    for (topic, why) in [
        ("state/+", "expected one topic, without `+` and `#`"),
        ("state/{k}", "expected one topic, without columns in braces"),
        ("$SYS/state", "topics that start with `$` belong to the broker"),
    ] {
        let said =
            refused("taxi.toml", &SMALL.replacen("topics = ", &format!("status_topic = {topic:?}\ntopics = "), 1));
        assert!(said.contains(&format!("error: `{topic}` is no topic here")) && said.contains(why), "{said}");
    }
    bad(
        &[("url   = \"mqtt://127.0.0.1:1883\"", "connection = \"rides\"\nstatus_topic = \"state\"")],
        expect![[r#"
        error: `status_topic` beside `connection`
           --> taxi.toml:23:16
            |
         23 | status_topic = "state"
            |                ^^^^^^^ the connection is that of input `rides`
            = help: leave `status_topic` out here; it belongs to `[inputs.rides]`
    "#]],
    );
}

#[test]
fn a_status_that_comes_back_is_a_warning() {
    let (input, output) = ("status_topic = \"taxi/x/rides\"\ntopics = ", "status_topic = \"taxi/y/rides\"\ntopic = ");
    let text = SMALL.replacen("topic = ", output, 1).replacen("topics = ", input, 1);
    expect![[r#"
        warning: the job's status comes back as events of input `rides`
          --> jobs/taxi.toml:9:16
           |
         9 | status_topic = "taxi/x/rides"
           |                ^^^^^^^^^^^^^^ its filter `taxi/+/rides` takes it in
           = help: write a topic that no filter of the job takes in

        warning: the job's status comes back as events of input `rides`
           --> jobs/taxi.toml:24:16
            |
         24 | status_topic = "taxi/y/rides"
            |                ^^^^^^^^^^^^^^ its filter `taxi/+/rides` takes it in
            = help: write a topic that no filter of the job takes in

        2 warnings
    "#]]
    .assert_eq(&good(&text).warnings.to_string());
    let elsewhere = SMALL.replacen("topic = ", "status_topic = \"state/out\"\ntopic = ", 1);
    assert_eq!(good(&elsewhere).warnings.to_string(), "");
}
