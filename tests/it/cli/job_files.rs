//! Mistakes in a job file: its form, its keys, its addresses. The binary draws each and ends with 2. No peer.

use std::net::TcpListener;

use expect_test::{Expect, expect};

use super::{JOB, Taxi};

#[test]
fn bad_job_files() {
    let place = Taxi::new();
    let cases = [
        (
            "",
            expect![[r#"
            exit 2
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
        "#]],
        ),
        (
            "job = \"taxi\"",
            expect![[r#"
            exit 2
            error: the job has no input
              --> taxi.toml
               = help: add a section `[inputs.NAME]`

            error: the job has no output
              --> taxi.toml
               = help: add a section `[outputs.NAME]`

            error: `job` has the wrong form
              --> taxi.toml:1:7
               |
             1 | job = "taxi"
               |       ^^^^^^ expected a section `[job]`
               = help: settings stand under their section

            3 errors
        "#]],
        ),
        (
            "[job]\nname = taxi\n",
            expect![[r#"
            exit 2
            error: invalid boolean, expected `true`
              --> taxi.toml:2:8
               |
             2 | name = taxi
               |        ^^^^
               = help: the job file is TOML: `key = "text"` under `[section]`
        "#]],
        ),
        (
            &JOB.replace("topics", "topic"),
            expect![[r#"
            exit 2
            error: `[inputs.rides]` needs `topics`
              --> taxi.toml:8:9
               |
             8 | [inputs.rides]
               |         ^^^^^ `topics` is missing
               = help: write `topics = ["taxi/+/rides"]`

            error: unknown key `topic`
               --> taxi.toml:11:1
                |
             11 | topic = ["taxi/+/rides"]
                | ^^^^^ `[inputs.rides]` has no such key
                = help: did you mean `topics`?

            2 errors
        "#]],
        ),
        (
            &JOB.replace("name = \"taxi\"\n", "late_tolerance = 5\n"),
            expect![[r#"
            exit 2
            error: `[job]` needs `name`
              --> taxi.toml:1:2
               |
             1 | [job]
               |  ^^^ `name` is missing
               = help: write `name = "taxi"`

            error: `late_tolerance` has the wrong form
              --> taxi.toml:2:18
               |
             2 | late_tolerance = 5
               |                  ^ expected a duration from "0s" to "20d23h59m59s"
               = help: write it with a unit, like "20ms", "5s" or "7d"; or "forever"; the default is "5s"

            2 errors
        "#]],
        ),
        (
            &JOB.replace("[functions.score]", "[functions.create_array]"),
            expect![[r#"
            exit 2
            error: two functions of the same name
               --> taxi.toml:17:12
                |
             17 | [functions.create_array]
                |            ^^^^^^^^^^^^ a query cannot tell it from `createArray`
                = help: letters and digits have to differ, ignoring letter case
        "#]],
        ),
        (
            &JOB.replace("\"azureml\"", "\"azurml\""),
            expect![[r#"
            exit 2
            error: `type` has the wrong form
               --> taxi.toml:18:8
                |
             18 | type = "azurml"
                |        ^^^^^^^^ expected "wasm" or "azureml"
                = help: did you mean "azureml"?
        "#]],
        ),
    ];
    place.check_contents("taxi.toml", cases);
    place.write("taxi.toml", b"[job]\nname = \"\xff\"\n");
    place.check(&expect![[r#"
        exit 2
        error: the job file cannot be read: stream did not contain valid UTF-8
          --> taxi.toml
           = help: a job file is UTF-8 text
    "#]]);
    place.expect_of_all(
        &[&["check", "other.toml"], &["run", "other.toml"]],
        &expect![[r#"
        exit 2
        error: the job file cannot be read: No such file or directory (os error 2)
          --> other.toml
           = help: check the path and its permissions
    "#]],
    );
    place.expect(
        &["run", "."],
        &expect![[r#"
        exit 2
        error: the job file cannot be read: Is a directory (os error 21)
          --> .
           = help: name the job file inside it
    "#]],
    );
}

#[test]
fn bad_keys() {
    let place = Taxi::new();
    place.write("empty", "");
    place.write("binary", b"\xff\xfe\x00");
    let check = |environment: &[(&str, &str)], key: &str, wanted: &Expect| {
        place.job("env:AML_KEY", key);
        wanted.assert_eq(&place.answer_in(environment, &["check", "taxi.toml"]));
    };
    check(
        &[],
        "env:FOREBAY_TEST_UNSET",
        &expect![[r#"
        exit 2
        error: the environment variable FOREBAY_TEST_UNSET is not set
           --> taxi.toml:20:7
            |
         20 | key = "env:FOREBAY_TEST_UNSET"
            |       ^^^^^^^^^^^^^^^^^^^^^^^^ cannot be used
            = help: set it where forebay is started
    "#]],
    );
    check(
        &[("AML_KEY", "")],
        "env:AML_KEY",
        &expect![[r#"
        exit 2
        error: env:AML_KEY is empty
           --> taxi.toml:20:7
            |
         20 | key = "env:AML_KEY"
            |       ^^^^^^^^^^^^^ cannot be used
            = help: put the secret there
    "#]],
    );
    check(
        &[],
        "file:empty",
        &expect![[r#"
        exit 2
        error: file:empty is empty
           --> taxi.toml:20:7
            |
         20 | key = "file:empty"
            |       ^^^^^^^^^^^^ cannot be used
            = help: put the secret there
    "#]],
    );
    check(
        &[],
        "file:binary",
        &expect![[r#"
        exit 2
        error: file:binary is no UTF-8 text
           --> taxi.toml:20:7
            |
         20 | key = "file:binary"
            |       ^^^^^^^^^^^^^ cannot be used
            = help: check that it is the right file
    "#]],
    );
    check(
        &[],
        "file:none",
        &expect![[r#"
        exit 2
        error: none cannot be read: No such file or directory (os error 2)
           --> taxi.toml:20:7
            |
         20 | key = "file:none"
            |       ^^^^^^^^^^^ cannot be used
            = help: check the path and its permissions
    "#]],
    );
    check(
        &[],
        "credential:aml",
        &expect![[r#"
        exit 2
        error: the credential aml has no folder: CREDENTIALS_DIRECTORY is not set
           --> taxi.toml:20:7
            |
         20 | key = "credential:aml"
            |       ^^^^^^^^^^^^^^^^ cannot be used
            = help: systemd sets it for units with `LoadCredential=`; elsewhere use `env:` or `file:`
    "#]],
    );
    check(
        &[("CREDENTIALS_DIRECTORY", "credentials")],
        "credential:aml",
        &expect![[r#"
        exit 2
        error: credentials/aml cannot be read: No such file or directory (os error 2)
           --> taxi.toml:20:7
            |
         20 | key = "credential:aml"
            |       ^^^^^^^^^^^^^^^^ cannot be used
            = help: check the path and its permissions
    "#]],
    );
    check(
        &[],
        "s3cr3t-k3y",
        &expect![[r#"
        exit 2
        error: `key` is written into the job file
           --> taxi.toml:20:7
            |
         20 | key = "**********"
            |       ^^^^^^^^^^^^ expected `env:NAME`, `file:PATH` or `credential:NAME`
            = note: job files are copied and logged; secrets are only referred to
            = help: put the secret into an environment variable and write `key = "env:NAME"`
    "#]],
    );
    check(
        &[("AML_KEY", "two\nlines")],
        "env:AML_KEY",
        &expect![[r#"
        exit 2
        error: env:AML_KEY is no key: it is blank or has characters that a header cannot hold
           --> taxi.toml:20:7
            |
         20 | key = "env:AML_KEY"
            |       ^^^^^^^^^^^^^ cannot be used
            = help: put only the key there, on one line
    "#]],
    );
}

#[test]
fn bad_addresses() {
    let place = Taxi::new();
    let broker = "mqtt://127.0.0.1:1";
    let endpoint = "http://127.0.0.1:5001/score";
    let metrics = "127.0.0.1:0";
    let cases = [
        (
            broker,
            "http://127.0.0.1:1",
            expect![[r#"
            exit 2
            error: this is no address of a broker
               --> taxi.toml:10:7
                |
             10 | url = "http://127.0.0.1:1"
                |       ^^^^^^^^^^^^^^^^^^^^ expected `mqtt://` or `mqtts://`
                = help: write `mqtt://host:1883`, or `mqtts://host:8883` for TLS
        "#]],
        ),
        (
            broker,
            "mqtt://",
            expect![[r#"
            exit 2
            error: the address has no host
               --> taxi.toml:10:7
                |
             10 | url = "mqtt://"
                |       ^^^^^^^^^ expected a name or an address
                = help: write `mqtt://host:1883`, or `mqtts://host:8883` for TLS
        "#]],
        ),
        (
            broker,
            "mqtt:///rides",
            expect![[r#"
            exit 2
            error: the address has no host
               --> taxi.toml:10:7
                |
             10 | url = "mqtt:///rides"
                |       ^^^^^^^^^^^^^^^ expected a name or an address
                = help: write `mqtt://host:1883`, or `mqtts://host:8883` for TLS
        "#]],
        ),
        (
            broker,
            "mqtt://:1883",
            expect![[r#"
            exit 2
            error: this is no address: empty host
               --> taxi.toml:10:7
                |
             10 | url = "mqtt://:1883"
                |       ^^^^^^^^^^^^^^ cannot be read
                = help: write `mqtt://host:1883`, or `mqtts://host:8883` for TLS
        "#]],
        ),
        (
            broker,
            "mqtt://gateway:99999",
            expect![[r#"
            exit 2
            error: this is no address: invalid port number
               --> taxi.toml:10:7
                |
             10 | url = "mqtt://gateway:99999"
                |       ^^^^^^^^^^^^^^^^^^^^^^ cannot be read
                = help: write `mqtt://host:1883`, or `mqtts://host:8883` for TLS
        "#]],
        ),
        (
            broker,
            "mqtt://gateway/rides",
            expect![[r#"
            exit 2
            error: an address of a broker has no path
               --> taxi.toml:10:7
                |
             10 | url = "mqtt://gateway/rides"
                |       ^^^^^^^^^^^^^^^^^^^^^^ expected only host and port
                = help: topics are listed by `topics` or `topic`
        "#]],
        ),
        (
            broker,
            "127.0.0.1:1883",
            expect![[r#"
            exit 2
            error: this is no address: relative URL without a base
               --> taxi.toml:10:7
                |
             10 | url = "127.0.0.1:1883"
                |       ^^^^^^^^^^^^^^^^ cannot be read
                = help: write `mqtt://host:1883`, or `mqtts://host:8883` for TLS
        "#]],
        ),
        (
            endpoint,
            "mqtt://127.0.0.1/score",
            expect![[r#"
            exit 2
            error: this is no address of an endpoint
               --> taxi.toml:19:7
                |
             19 | url = "mqtt://127.0.0.1/score"
                |       ^^^^^^^^^^^^^^^^^^^^^^^^ expected `http://` or `https://`
                = help: write `https://host/score`, or `http://127.0.0.1:5001/score`
        "#]],
        ),
        (
            endpoint,
            "https://",
            expect![[r#"
            exit 2
            error: this is no address: empty host
               --> taxi.toml:19:7
                |
             19 | url = "https://"
                |       ^^^^^^^^^^ cannot be read
                = help: write `https://host/score`, or `http://127.0.0.1:5001/score`
        "#]],
        ),
        (
            endpoint,
            "https://user:pass@host/score",
            expect![[r#"
            exit 2
            error: a password stands in an address
               --> taxi.toml:19:7
                |
             19 | url = "****************************"
                |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ expected the address without `user:password@`
                = help: write `username = "…"` and `password = "env:NAME"`, or `key = "env:NAME"` for an endpoint
        "#]],
        ),
        (
            metrics,
            "0.0.0.0:9464",
            expect![[r#"
            exit 2
            error: metrics would be open to the network
              --> taxi.toml:6:10
               |
             6 | listen = "0.0.0.0:9464"
               |          ^^^^^^^^^^^^^^ expected a loopback address
               = help: metrics have no login; write `allow_remote = true` if that is meant
        "#]],
        ),
        (
            metrics,
            "localhost",
            expect![[r#"
            exit 2
            error: `listen` has the wrong form
              --> taxi.toml:6:10
               |
             6 | listen = "localhost"
               |          ^^^^^^^^^^^ expected an address and a port
               = help: write `listen = "127.0.0.1:9464"`
        "#]],
        ),
        (
            metrics,
            "127.0.0.1:99999",
            expect![[r#"
            exit 2
            error: `listen` has the wrong form
              --> taxi.toml:6:10
               |
             6 | listen = "127.0.0.1:99999"
               |          ^^^^^^^^^^^^^^^^^ expected an address and a port
               = help: write `listen = "127.0.0.1:9464"`
        "#]],
        ),
    ];
    for (from, to, wanted) in cases {
        place.job(from, to);
        place.check(&wanted);
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    place.write("taxi.toml", JOB.replace("127.0.0.1:0", &address).replace("key = \"env:AML_KEY\"\n", ""));
    place.write("taxi.asaql", "SELECT vendorid INTO scored FROM rides");
    expect![[r#"
        exit 1
        error: metrics cannot listen on ADDRESS: Address already in use (os error 98); set another `listen` in [metrics], or `enabled = false`
    "#]].assert_eq(&place.answer_in(&[("FOREBAY_LOG", "error")], &["run", "taxi.toml"]).replace(&address, "ADDRESS"));
}
