//! Mistakes in a job file: its form, its keys, its addresses. The binary draws each and ends with 2. No peer.

use std::net::TcpListener;

use expect_test::expect;

use super::{CHECK, JOB, Taxi};

/// What the binary says to one wrong value of `taxi.toml`, in the line `at`: title, label and help.
fn wrong_value(at: usize, line: &str, [title, label, help]: [&str; 3]) -> String {
    let (gutter, value) = (at.to_string().len(), line.find('"').unwrap());
    let (carets, column) = ("^".repeat(line.len() - value), value + 1);
    format!(
        "exit 2\nerror: {title}\n{:gutter$} --> taxi.toml:{at}:{column}\n {:gutter$} |\n {at} | {line}\n \
         {:gutter$} | {:value$}{carets} {label}\n {:gutter$} = help: {help}\n",
        "", "", "", "", ""
    )
}

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
    for (environment, key, title, help) in [
        (
            &[][..],
            "env:FOREBAY_TEST_UNSET",
            "the environment variable FOREBAY_TEST_UNSET is not set",
            "set it where forebay is started",
        ),
        (&[("AML_KEY", "")], "env:AML_KEY", "env:AML_KEY is empty", "put the secret there"),
        (&[], "file:empty", "file:empty is empty", "put the secret there"),
        (&[], "file:binary", "file:binary is no UTF-8 text", "check that it is the right file"),
        (
            &[],
            "file:none",
            "none cannot be read: No such file or directory (os error 2)",
            "check the path and its permissions",
        ),
        (
            &[],
            "credential:aml",
            "the credential aml has no folder: CREDENTIALS_DIRECTORY is not set",
            "systemd sets it for units with `LoadCredential=`; elsewhere use `env:` or `file:`",
        ),
        (
            &[("CREDENTIALS_DIRECTORY", "credentials")],
            "credential:aml",
            "credentials/aml cannot be read: No such file or directory (os error 2)",
            "check the path and its permissions",
        ),
        (
            &[("AML_KEY", "two\nlines")],
            "env:AML_KEY",
            "env:AML_KEY is no key: it is blank or has characters that a header cannot hold",
            "put only the key there, on one line",
        ),
    ] {
        place.job("env:AML_KEY", key);
        let said = place.answer_in(environment, &["check", "taxi.toml"]);
        assert_eq!(said, wrong_value(20, &format!("key = \"{key}\""), [title, "cannot be used", help]));
    }
    place.job("env:AML_KEY", "s3cr3t-k3y");
    let said = place.answer(&["check", "taxi.toml"]);
    expect![[r#"
        exit 2
        error: `key` is written into the job file
           --> taxi.toml:20:7
            |
         20 | key = "**********"
            |       ^^^^^^^^^^^^ expected `env:NAME`, `file:PATH` or `credential:NAME`
            = note: job files are copied and logged; secrets are only referred to
            = help: put the secret into an environment variable and write `key = "env:NAME"`
    "#]]
    .assert_eq(&said);
}

#[test]
fn bad_addresses() {
    let place = Taxi::new();
    let broker = "mqtt://127.0.0.1:1";
    let endpoint = "http://127.0.0.1:5001/score";
    let metrics = "127.0.0.1:0";
    const OF_A_BROKER: &str = "write `mqtt://host:1883`, or `mqtts://host:8883` for TLS";
    const OF_AN_ENDPOINT: &str = "write `https://host/score`, or `http://127.0.0.1:5001/score`";
    let cases = [
        (
            broker,
            "http://127.0.0.1:1",
            ["this is no address of a broker", "expected `mqtt://` or `mqtts://`", OF_A_BROKER],
        ),
        (broker, "mqtt://", ["the address has no host", "expected a name or an address", OF_A_BROKER]),
        (broker, "mqtt:///rides", ["the address has no host", "expected a name or an address", OF_A_BROKER]),
        (broker, "mqtt://:1883", ["this is no address: empty host", "cannot be read", OF_A_BROKER]),
        (broker, "mqtt://gateway:99999", ["this is no address: invalid port number", "cannot be read", OF_A_BROKER]),
        (
            broker,
            "mqtt://gateway/rides",
            [
                "an address of a broker has no path",
                "expected only host and port",
                "topics are listed by `topics` or `topic`",
            ],
        ),
        (broker, "127.0.0.1:1883", ["this is no address: relative URL without a base", "cannot be read", OF_A_BROKER]),
        (
            broker,
            "mqtt://gateway:0",
            ["nothing can be reached at port 0", "expected a port from 1 to 65535", OF_A_BROKER],
        ),
        (
            endpoint,
            "mqtt://127.0.0.1/score",
            ["this is no address of an endpoint", "expected `http://` or `https://`", OF_AN_ENDPOINT],
        ),
        (endpoint, "https://", ["this is no address: empty host", "cannot be read", OF_AN_ENDPOINT]),
        (
            endpoint,
            "http://127.0.0.1/#x",
            [
                "what follows `#` in an address is never sent",
                "expected no `#`",
                "remove it; write a `#` that belongs to the path or the query as `%23`",
            ],
        ),
        (
            endpoint,
            "http://127.0.0.1:0",
            ["nothing can be reached at port 0", "expected a port from 1 to 65535", OF_AN_ENDPOINT],
        ),
        (
            endpoint,
            "https://user:pass@host/score",
            [
                "a password stands in an address",
                "expected the address without `user:password@`",
                "write `username = \"…\"` and `password = \"env:NAME\"`, or `key = \"env:NAME\"` for an endpoint",
            ],
        ),
        (
            metrics,
            "0.0.0.0:9464",
            [
                "metrics would be open to the network",
                "expected a loopback address",
                "metrics have no login; write `allow_remote = true` if that is meant",
            ],
        ),
        (
            metrics,
            "localhost",
            ["`listen` has the wrong form", "expected an address and a port", "write `listen = \"127.0.0.1:9464\"`"],
        ),
        (
            metrics,
            "127.0.0.1:99999",
            ["`listen` has the wrong form", "expected an address and a port", "write `listen = \"127.0.0.1:9464\"`"],
        ),
    ];
    for (from, to, words) in cases {
        place.job(from, to);
        let (at, key) = match from {
            _ if from == broker => (10, "url"),
            _ if from == endpoint => (19, "url"),
            _ => (6, "listen"),
        };
        let shown = if to.contains("user:pass") { "*".repeat(to.len()) } else { to.to_owned() };
        assert_eq!(place.answer(&CHECK), wrong_value(at, &format!("{key} = \"{shown}\""), words));
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

#[test]
fn what_a_pool_may_write_and_a_card_can_take() {
    let place = Taxi::new();
    let budget = [
        "`write_budget` cannot be used",
        "expected a size a day from \"1MB/day\" to \"1000TB/day\", or \"none\"",
        "write it like `write_budget = \"10GB/day\"`, which is the default",
    ];
    let endurance = [
        "`card_endurance` has the wrong form",
        "expected a size from \"1GB\" to \"1048576TiB\"",
        "write it with a unit, like \"32MiB\" or \"1GB\"; take it from the data sheet (TBW), or leave the key out",
    ];
    for (key, values, words) in [
        ("write_budget", ["10GB", "1KB/day", "2000TB/day", "much/day", "0", "10GB/hour"], budget),
        ("card_endurance", ["none", "1MB", "2000000TB", "30", "30TBW", ""], endurance),
    ] {
        for value in values {
            let line = format!("{key} = \"{value}\"");
            place.write("taxi.toml", format!("{JOB}[journal]\n{line}\n"));
            assert_eq!(place.answer(&CHECK), wrong_value(JOB.lines().count() + 2, &line, words));
        }
    }
}
