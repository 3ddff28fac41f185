//! Mistakes on the command line: the binary prints its usage or what is wrong with a value, and ends with 2. No peer.

use expect_test::{Expect, expect};

use super::Taxi;
use crate::harness::cli_in;

#[test]
fn bad_arguments() {
    let place = Taxi::new();
    place.write("gw.json", "[]");
    let eval = ["eval", "SELECT v FROM gw", "--input", "gw=gw.json"];
    let cases: [(&[&str], Expect); 13] = [
        (
            &["chek", "taxi.toml"],
            expect![[r#"
            exit 2
            error: unrecognized subcommand 'chek'

              tip: a similar subcommand exists: 'check'

            Usage: forebay [OPTIONS] <COMMAND>

            For more information, try '--help'.
        "#]],
        ),
        (
            &["run"],
            expect![[r#"
            exit 2
            error: the following required arguments were not provided:
              <JOB>

            Usage: forebay run <JOB>

            For more information, try '--help'.
        "#]],
        ),
        (
            &["check", "taxi.toml", "--ofline"],
            expect![[r#"
            exit 2
            error: unexpected argument '--ofline' found

              tip: a similar argument exists: '--offline'

            Usage: forebay check --offline <JOB>

            For more information, try '--help'.
        "#]],
        ),
        (
            &["eval"],
            expect![[r#"
            exit 2
            error: the following required arguments were not provided:
              <QUERY>

            Usage: forebay eval <QUERY>

            For more information, try '--help'.
        "#]],
        ),
        (
            &["eval", "SELECT v FROM gw", "--input", "gw.json"],
            expect![[r#"
            exit 2
            error: invalid value 'gw.json' for '--input <NAME=FILE>': write NAME=FILE, as in readings=readings.jsonl

            For more information, try '--help'.
        "#]],
        ),
        (
            &[eval.as_slice(), &["--input", "GW=gw.json"]].concat(),
            expect![[r#"
            exit 1
            error: `GW` is given twice; one name is one file
        "#]],
        ),
        (
            &[eval.as_slice(), &["--late-tolerance", "5s"]].concat(),
            expect![[r#"
            exit 2
            error: invalid value '5s' for '--late-tolerance <S>': write a whole number of seconds, as in 5, or -1 for any time

            For more information, try '--help'.
        "#]],
        ),
        (
            &[eval.as_slice(), &["--late-tolerance", "-2"]].concat(),
            expect![[r#"
            exit 2
            error: invalid value '-2' for '--late-tolerance <S>': write a whole number of seconds, as in 5, or -1 for any time

            For more information, try '--help'.
        "#]],
        ),
        (
            &[eval.as_slice(), &["--out-of-order-policy", "keep"]].concat(),
            expect![[r#"
            exit 2
            error: invalid value 'keep' for '--out-of-order-policy <POLICY>'
              [possible values: adjust, drop]

            For more information, try '--help'.
        "#]],
        ),
        (
            &["journal", "status"],
            expect![[r#"
            exit 2
            error: the following required arguments were not provided:
              --job <JOB>

            Usage: forebay journal status --job <JOB>

            For more information, try '--help'.
        "#]],
        ),
        (
            &["journal", "dead-letters", "ls", "--job", "taxi.toml", "--limit", "all"],
            expect![[r#"
            exit 2
            error: invalid value 'all' for '--limit <LIMIT>': invalid digit found in string

            For more information, try '--help'.
        "#]],
        ),
        (
            &["udf", "call", "create_array.wasm"],
            expect![[r#"
            exit 2
            error: the following required arguments were not provided:
              <EXPORT>

            Usage: forebay udf call <FILE> <EXPORT> [ARGS]...

            For more information, try '--help'.
        "#]],
        ),
        (
            &["udf", "call", "create_array.wasm", "createArray", "--memory-mib", "0"],
            expect![[r#"
            exit 2
            error: invalid value '0' for '--memory-mib <MIB>': 0 is not in 1..=4096

            For more information, try '--help'.
        "#]],
        ),
    ];
    place.expect_each(cases);
    for group in [&[][..], &["journal"], &["udf"], &["journal", "dead-letters"], &["journal", "quarantine"]] {
        let (code, out, err) = cli_in(place.path(), &[], group);
        assert_eq!((code, out.as_str()), (2, ""), "{group:?}");
        assert!(err.contains("Usage: forebay"), "{err}");
    }
}
