//! What `check` says of the files of TLS.

use expect_test::{Expect, expect};

use crate::harness::{cli, write};

/// What `check` says to a job with these settings of an input, a table, an endpoint and an output.
fn check(tls: &str, keys: [&str; 4], want: &Expect) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["gw.pem", "gw.key"] {
        write(dir.path(), name, "");
    }
    write(dir.path(), "job.asaql", "SELECT a.n AS n INTO hook FROM a");
    let [input, table, endpoint, output] = keys;
    let text = format!(
        "[job]\nname = \"job\"\nquery = \"job.asaql\"\n[inputs.a]\ntype = \"mqtt\"\nurl = \"mqtt{tls}://127.0.0.1\"\ntopics = [\"a\"]\n{input}\n\
         [inputs.zones]\ntype = \"reference\"\nurl = \"http{tls}://127.0.0.1/zones\"\n{table}\n\
         [functions.score]\ntype = \"azureml\"\nurl = \"http{tls}://127.0.0.1/score\"\n{endpoint}\n\
         [outputs.hook]\ntype = \"http\"\nurl = \"http{tls}://127.0.0.1/rows\"\n{output}\n"
    );
    write(dir.path(), "job.toml", &text);
    let (code, out, err) = cli(dir.path(), &["check", "job.toml"]);
    assert_eq!(code, 2, "{out}{err}");
    want.assert_eq(&err.replace(&dir.path().display().to_string(), "DIR"));
}

const CERTIFICATE: &str = "cert_file = \"gw.pem\"";
const KEY: &str = "key_file = \"gw.key\"";

#[test]
fn a_certificate_without_a_key_is_refused() {
    check(
        "s",
        [CERTIFICATE, KEY, CERTIFICATE, KEY],
        &expect![[r#"
        error: `cert_file` without `key_file`
          --> job.toml:8:13
           |
         8 | cert_file = "gw.pem"
           |             ^^^^^^^^ a certificate needs its private key
           = help: write `key_file = "…"` too, or leave the certificate out

        error: `key_file` without `cert_file`
           --> job.toml:12:12
            |
         12 | key_file = "gw.key"
            |            ^^^^^^^^ a key needs its certificate
            = help: write `cert_file = "…"` too, or leave the key out

        error: `cert_file` without `key_file`
           --> job.toml:16:13
            |
         16 | cert_file = "gw.pem"
            |             ^^^^^^^^ a certificate needs its private key
            = help: write `key_file = "…"` too, or leave the certificate out

        error: `key_file` without `cert_file`
           --> job.toml:20:12
            |
         20 | key_file = "gw.key"
            |            ^^^^^^^^ a key needs its certificate
            = help: write `cert_file = "…"` too, or leave the key out

        4 errors
    "#]],
    );
}

#[test]
fn a_certificate_without_tls_is_refused() {
    let both = format!("{CERTIFICATE}\n{KEY}");
    check(
        "",
        [&both, &both, &both, &both],
        &expect![[r#"
        error: `cert_file` without TLS
          --> job.toml:8:13
           |
         8 | cert_file = "gw.pem"
           |             ^^^^^^^^ has no use with `mqtt://`
           = help: write the url with `mqtts://`

        error: `key_file` without TLS
          --> job.toml:9:12
           |
         9 | key_file = "gw.key"
           |            ^^^^^^^^ has no use with `mqtt://`
           = help: write the url with `mqtts://`

        error: `cert_file` without TLS
           --> job.toml:13:13
            |
         13 | cert_file = "gw.pem"
            |             ^^^^^^^^ has no use with `http://`
            = help: write the url with `https://`

        error: `key_file` without TLS
           --> job.toml:14:12
            |
         14 | key_file = "gw.key"
            |            ^^^^^^^^ has no use with `http://`
            = help: write the url with `https://`

        error: `cert_file` without TLS
           --> job.toml:18:13
            |
         18 | cert_file = "gw.pem"
            |             ^^^^^^^^ has no use with `http://`
            = help: write the url with `https://`

        error: `key_file` without TLS
           --> job.toml:19:12
            |
         19 | key_file = "gw.key"
            |            ^^^^^^^^ has no use with `http://`
            = help: write the url with `https://`

        error: `cert_file` without TLS
           --> job.toml:23:13
            |
         23 | cert_file = "gw.pem"
            |             ^^^^^^^^ has no use with `http://`
            = help: write the url with `https://`

        error: `key_file` without TLS
           --> job.toml:24:12
            |
         24 | key_file = "gw.key"
            |            ^^^^^^^^ has no use with `http://`
            = help: write the url with `https://`

        8 errors
    "#]],
    );
}

#[test]
fn a_certificate_that_is_not_there_is_refused() {
    let missing = format!("cert_file = \"gone.pem\"\n{KEY}");
    check(
        "s",
        [&missing, "", "", ""],
        &expect![[r#"
        error: `cert_file` names no file
          --> job.toml:8:13
           |
         8 | cert_file = "gone.pem"
           |             ^^^^^^^^^^ gone.pem does not exist
           = help: paths are relative to the job file
    "#]],
    );
}
