//! Keys and passwords: they are referred to, never written down, and read when they are asked for.

use expect_test::expect;
use forebay::job;
use secrecy::ExposeSecret;

use super::{SMALL, bad, good};

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

/// Whatever is wrong with the line of a secret, or beside it.
#[test]
fn no_message_shows_a_secret() {
    const SECRET: &str = "hunterTWO99";
    for line in [
        "password = \"SECRET",
        "password = 'SECRET",
        "password = SECRET",
        "password: \"SECRET\"",
        "password \"SECRET\"",
        "password = \"\\q SECRET\"",
        "password = \"SECRET\" junk",
        "password =\n\"SECRET\"",
        "password = \"SECRET\r\n",
        "password = [\"SECRET\"]",
        "password = { x = \"SECRET\" }",
        "pasword = \"SECRET\"",
        "passwd = \"SECRET\"",
        "pwd = \"SECRET\"",
        "token = \"SECRET\"",
        "Password = \"SECRET\"",
        "headers = { x-token = \"SECRET\", x-token = \"SECRET\" }",
        "config = { key = \"SECRET\" }",
        "o2 = { key = \"SECRET }",
        "key2 = \"env:X\", key2 = \"SECRET\"",
        "url = \"mqtt://u:SECRET@h\"",
        "url = mqtt://u:SECRET@h",
        "url2 = \"http://h/?sig=SECRET#f\"",
        "url2 = \"http://u:SECRET@h:0/\"",
    ] {
        let line = line.replace("SECRET", SECRET);
        for section in ["[inputs.rides]", "[functions.score]", "[outputs.scored]"] {
            let text = SMALL.replacen(section, &format!("{section}\n{line}"), 1);
            let said = crate::support::refused("taxi.toml", &text);
            assert!(!said.contains(SECRET), "{line:?} in {section}:\n{said}");
        }
    }
}

/// A hidden text of several lines leaves the places of other problems where they are.
#[test]
fn what_is_hidden_moves_nothing() {
    let text = SMALL.replacen("[inputs.rides]", "[inputs.rides]\npasword = \"\"\"\nfirst\nsecond\n\"\"\"", 1);
    let text = text.replacen("topics", "topicz", 1);
    let line = text.lines().position(|line| line.starts_with("topicz")).unwrap() + 1;
    let said = crate::support::refused("taxi.toml", &text);
    assert!(said.contains(&format!("{line} | topicz = ")) && !said.contains("second"), "{said}");
}
