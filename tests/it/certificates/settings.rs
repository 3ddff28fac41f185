//! What `forebay check` and `forebay run` say of the TLS files that a job names: each mistake at its place. No peer.

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};

use super::fill;
use crate::harness::write;
use crate::support::{refuses, succeeds, write_job};

/// Writes a job with these settings of an input, a table, an endpoint and an output.
fn job(dir: &Path, tls: &str, keys: [&str; 4]) {
    let [input, table, endpoint, output] = keys;
    let text = format!(
        "[job]\nname = \"job\"\nquery = \"job.asaql\"\n[inputs.a]\ntype = \"mqtt\"\nurl = \"mqtt{tls}://127.0.0.1\"\n\
        topics = [\"a\"]\n{input}\n\
         [inputs.zones]\ntype = \"reference\"\nurl = \"http{tls}://127.0.0.1/zones\"\n{table}\n\
         [functions.score]\ntype = \"azureml\"\nurl = \"http{tls}://127.0.0.1/score\"\n{endpoint}\n\
         [outputs.hook]\ntype = \"http\"\nurl = \"http{tls}://127.0.0.1/rows\"\n{output}\n"
    );
    write_job(dir, &text, "SELECT a.n AS n INTO hook FROM a");
}

/// What `check` says to such a job, whose files are empty.
fn check(tls: &str, keys: [&str; 4], want: &Expect) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["gw.pem", "gw.key"] {
        write(dir.path(), name, "");
    }
    job(dir.path(), tls, keys);
    let err = refuses(dir.path(), &["check", "job.toml"]);
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

/// What `check` and `run` say to a job in a folder with certificates of every kind.
fn refused(dir: &Path, keys: [&str; 4]) -> String {
    job(dir, "s", keys);
    let err = refuses(dir, &["check", "--offline", "job.toml"]);
    assert_eq!(refuses(dir, &["run", "job.toml"]), err, "`run` says the same");
    err
}

#[test]
fn files_that_cannot_be_used_are_told_at_their_place() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    write(dir.path(), "broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let said = refused(
        dir.path(),
        [
            "cert_file = \"first.pem\"\nkey_file = \"first.key\"",
            "cert_file = \"gateway.pem\"\nkey_file = \"renewed.key\"",
            "cert_file = \"names\"\nkey_file = \"leaf\"",
            "ca_file = \"broken.pem\"",
        ],
    );
    expect![[r#"
        error: `cert_file` first.pem: the certificate is of X.509 version 1, which TLS libraries refuse: have it issued as version 3 (with `openssl x509 -req`, add `-extfile FILE` where FILE says `basicConstraints = CA:FALSE`)
          --> job.toml:8:13
           |
         8 | cert_file = "first.pem"
           |             ^^^^^^^^^^^ cannot be used

        error: `key_file` renewed.key: the key does not belong to the certificate in gateway.pem
           --> job.toml:14:12
            |
         14 | key_file = "renewed.key"
            |            ^^^^^^^^^^^^^ cannot be used

        error: `cert_file` names: holds no PEM certificate
           --> job.toml:18:13
            |
         18 | cert_file = "names"
            |             ^^^^^^^ cannot be used

        error: `key_file` leaf: holds no private key in PEM form
           --> job.toml:19:12
            |
         19 | key_file = "leaf"
            |            ^^^^^^ cannot be used

        error: `ca_file` broken.pem: no certificate in it can be read; copy the whole file again from where it was issued
           --> job.toml:23:11
            |
         23 | ca_file = "broken.pem"
            |           ^^^^^^^^^^^^ cannot be used

        5 errors
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_damaged_pem_file_is_told_in_words_and_without_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let cut = |name: &str| text(name).split_once("-----END").unwrap().0.to_owned();
    write(dir.path(), "cut.pem", &cut("gateway.pem"));
    write(dir.path(), "cut.key", &cut("gateway.key"));
    write(dir.path(), "head.pem", &text("gateway.pem").replacen("CERTIFICATE-----", "CERTIFICATE", 1));
    write(dir.path(), "inside.pem", &text("ca.pem").replacen("\nMII", "\n!!!", 1));
    let said = refused(
        dir.path(),
        [
            "cert_file = \"cut.pem\"\nkey_file = \"cut.key\"",
            "cert_file = \"head.pem\"\nkey_file = \"gateway.key\"",
            "ca_file = \"inside.pem\"",
            "",
        ],
    );
    expect![[r#"
        error: `cert_file` cut.pem: is cut off: a `-----BEGIN …-----` has no `-----END …-----`; copy the whole file again from where it was issued
          --> job.toml:8:13
           |
         8 | cert_file = "cut.pem"
           |             ^^^^^^^^^ cannot be used

        error: `key_file` cut.key: is cut off: a `-----BEGIN …-----` has no `-----END …-----`; copy the whole file again from where it was issued
          --> job.toml:9:12
           |
         9 | key_file = "cut.key"
           |            ^^^^^^^^^ cannot be used

        error: `cert_file` head.pem: is damaged: a line that starts with `-----BEGIN` does not end with `-----`; copy the whole file again from where it was issued
           --> job.toml:13:13
            |
         13 | cert_file = "head.pem"
            |             ^^^^^^^^^^ cannot be used

        error: `ca_file` inside.pem: is damaged: what stands between `-----BEGIN …-----` and `-----END …-----` is no base64; copy the whole file again from where it was issued
           --> job.toml:18:11
            |
         18 | ca_file = "inside.pem"
            |           ^^^^^^^^^^^^ cannot be used

        4 errors
    "#]].assert_eq(&said);
}

#[test]
fn every_section_reads_its_files() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let good = "cert_file = \"gateway.pem\"\nkey_file = \"gateway.key\"\nca_file = \"ca.pem\"";
    for bad in 0..4 {
        for (keys, words) in [
            (
                "cert_file = \"first.pem\"\nkey_file = \"first.key\"",
                "`cert_file` first.pem: the certificate is of X.509",
            ),
            ("cert_file = \"gone.pem\"\nkey_file = \"first.key\"", "gone.pem does not exist"),
            ("ca_file = \"leaf\"", "`ca_file` leaf: holds no PEM certificate"),
        ] {
            let mut all = [good; 4];
            all[bad] = keys;
            let said = refused(dir.path(), all);
            assert!(said.contains(words) && said.matches("error: ").count() == 1, "section {bad}: {said}");
        }
    }
}

#[test]
fn a_certificate_that_is_not_valid_now_is_a_warning_with_its_date() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let authorities = fs::read_to_string(dir.path().join("ca.pem")).unwrap()
        + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    write(dir.path(), "some.pem", &authorities);
    let past = "cert_file = \"past.pem\"\nkey_file = \"past.key\"";
    job(dir.path(), "s", [past, "", "ca_file = \"past.pem\"", "ca_file = \"some.pem\""]);
    let out = succeeds(dir.path(), &["check", "--offline", "job.toml"]);
    for words in [
        "warning: `cert_file` past.pem: the client certificate expired at 2020-02-01T00:00:00Z: renew it, or correct \
        the clock",
        "job.toml:8:13",
        "warning: `ca_file` past.pem: the certificate expired at 2020-02-01T00:00:00Z: renew it, or correct the clock \
         of this machine; it is trusted all the same",
        "warning: `ca_file` some.pem: 1 certificate cannot be read; the others are trusted",
    ] {
        assert!(out.contains(words), "{out}");
    }
}

#[test]
fn indented_lines_and_a_byte_order_mark_are_let_pass() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    for name in ["gateway.pem", "gateway.key", "ca.pem"] {
        let text = fs::read_to_string(dir.path().join(name)).unwrap();
        write(dir.path(), name, &format!("\u{feff}{}", text.replace('\n', "\r\n  ")));
    }
    let keys = "cert_file = \"gateway.pem\"\nkey_file = \"gateway.key\"\nca_file = \"ca.pem\"";
    job(dir.path(), "s", [keys; 4]);
    succeeds(dir.path(), &["check", "--offline", "job.toml"]);
}

#[test]
fn what_a_text_editor_or_a_bad_copy_did_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let text = fs::read_to_string(dir.path().join("gateway.pem")).unwrap();
    let wide: Vec<u8> = [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    fs::write(dir.path().join("wide.pem"), wide).unwrap();
    // the first bytes of a certificate say what it is and how long
    let bad = text.replacen("\nMII", "\nMQI", 1);
    assert_ne!(bad, text);
    write(dir.path(), "flipped.pem", &bad);
    let keys = |name: &str| format!("cert_file = \"{name}\"\nkey_file = \"gateway.key\"");
    for (name, words) in [
        ("wide.pem", "holds no PEM certificate; it is text in UTF-16: save it as UTF-8"),
        ("flipped.pem", "the first certificate is damaged; copy the whole file again from where it was issued"),
    ] {
        let said = refused(dir.path(), [&keys(name), "", "", ""]);
        assert!(said.contains(&format!("error: `cert_file` {name}: {words}\n")), "{said}");
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
    }
}
