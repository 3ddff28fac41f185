//! Files and pools that cannot be used: what the binary prints and its exit code. mosquitto is the peer of the one job
//! that runs.

use std::fs;

use expect_test::{Expect, expect};

use super::{JOB, Taxi, job_at};
use crate::harness::Forebay;
use crate::support::Mosquitto;

#[test]
fn bad_files() {
    let place = Taxi::new();
    place.job("taxi.asaql", "none.asaql");
    place.check(&expect![[r#"
        exit 2
        error: `query` names no file
          --> taxi.toml:3:9
           |
         3 | query = "none.asaql"
           |         ^^^^^^^^^^^^ none.asaql does not exist
           = help: paths are relative to the job file
    "#]]);
    place.job("taxi.asaql", ".");
    place.check(&expect![[r#"
        exit 2
        error: `query` names no file
          --> taxi.toml:3:9
           |
         3 | query = "."
           |         ^^^ . is no file
           = help: paths are relative to the job file
    "#]]);
    place.job("taxi.asaql", "create_array.wasm");
    place.check(&expect![[r#"
        exit 2
        error: the query create_array.wasm cannot be read: stream did not contain valid UTF-8
          --> taxi.toml
           = help: a query is UTF-8 text; `query` in [job] names its file
    "#]]);

    // nothing of the job would run
    place.write("rides.jsonl", "");
    place.job(
        "type = \"mqtt\"\nurl = \"mqtt://127.0.0.1:1\"\ntopics = [\"taxi/+/rides\"]",
        "type = \"file\"\npath = \"rides.jsonl\"",
    );
    place.check(&expect![[r#"
        exit 2
        error: input `rides` is a file, and a job reads streams
          --> taxi.toml:8:9
           |
         8 | [inputs.rides]
           |         ^^^^^ only `type = "mqtt"` runs
           = help: run the query over files with `forebay eval QUERY --input NAME=FILE`
    "#]]);

    let eval =
        |input: &str, wanted: &Expect| place.expect(&["eval", "SELECT v INTO o FROM gw", "--input", input], wanted);
    eval(
        "gw=none.json",
        &expect![[r#"
            exit 1
            error: none.json cannot be read: No such file or directory (os error 2); give a file with a JSON array of objects, one object per line, or CSV (.csv)
        "#]],
    );
    eval(
        "gw=.",
        &expect![[r#"
            exit 1
            error: . cannot be read: Is a directory (os error 21); give a file with a JSON array of objects, one object per line, or CSV (.csv)
        "#]],
    );
    place.write("lines.jsonl", "{\"v\":1}\nnonsense\n{\"v\":2}\n");
    eval(
        "gw=lines.jsonl",
        &expect![[r#"
        exit 0
        {"output":"o","row":{"v":1}}
        {"output":"o","row":{"v":2}}
        warning: lines.jsonl: byte 8: not an event, passed over: not valid JSON: expected ident at line 1 column 2
    "#]],
    );
    place.expect(&["eval", "none.asaql"], &expect![[r#"
        exit 1
        error: none.asaql cannot be read: No such file or directory (os error 2); give a file with a query, `-` for standard input, or the query itself
    "#]]);
    place.expect(&["eval", "create_array.wasm"], &expect![[r#"
        exit 1
        error: create_array.wasm cannot be read: stream did not contain valid UTF-8; give a file with a query, `-` for standard input, or the query itself
    "#]]);

    place.expect(
        &["test", "none"],
        &expect![[r#"
        exit 2
        error: none cannot be read: No such file or directory (os error 2); give case files (.json) or folders of them
    "#]],
    );
    place.write("case.json", "[]");
    place.expect(&["test", "case.json"], &expect![[r#"
        exit 1
        FAILED case (case.json)
          no test case: expected a JSON object; a case is a JSON object such as {"query": "SELECT v INTO o FROM gw", "inputs": {"gw": [{"v": 1}]}, "expected": {"o": [{"v": 1}]}}

        0 passed, 1 failed
    "#]]);
    place.write("case.json", "{\"query\": \"SELECT v FROM a\", \"inputs\": {}}");
    place.expect(&["test", "case.json"], &expect![[r#"
        exit 1
        FAILED case (case.json)
          no test case: it needs exactly one of `expected`, `must_fail` and `must_stop`; a case is a JSON object such as {"query": "SELECT v INTO o FROM gw", "inputs": {"gw": [{"v": 1}]}, "expected": {"o": [{"v": 1}]}}

        0 passed, 1 failed
    "#]]);
    fs::remove_file(place.path().join("case.json")).unwrap();
    place.expect(
        &["test", "."],
        &expect![[r#"
        exit 1
        0 passed, 0 failed
        error: no test case found; a case is a .json file
    "#]],
    );
}

#[test]
fn bad_pools() {
    let place = Taxi::new();
    place.write("taxi.toml", JOB);
    place.expect(
        &["journal", "status", "--job", "taxi.toml"],
        &expect![[r#"
        exit 1
        error: the job has no pool yet: taxi.db does not exist; `forebay run` makes it
    "#]],
    );
    place.expect(
        &["journal", "status", "--job", "none.toml"],
        &expect![[r#"
        exit 2
        error: the job file cannot be read: No such file or directory (os error 2)
          --> none.toml
           = help: check the path and its permissions
    "#]],
    );
    place.write("taxi.toml", format!("{JOB}[journal]\npath = \"pools/taxi.db\"\n"));
    place.expect(&["run", "taxi.toml"], &expect![[r#"
        exit 1
        error: cannot open the journal pools/taxi.db: pools/taxi.db.lock: No such file or directory (os error 2); its directory must exist and be writable
    "#]]);
    let a_folder = expect![[r#"
        exit 2
        error: `path` names no file
           --> taxi.toml:26:8
            |
         26 | path = "pools/taxi.db"
            |        ^^^^^^^^^^^^^^^ pools/taxi.db is a folder
            = help: name a file in it
    "#]];
    let untouched = expect![[r#"
        exit 1
        error: pools/taxi.db is not a forebay journal; it was left untouched: move it and the files beside it (`-wal`, `-redo`, `-high-water`) away, or set another `path` under [journal]
    "#]];
    let [run, verify]: [&[&str]; 2] = [&["run", "taxi.toml"], &["journal", "verify", "--job", "taxi.toml"]];
    let [status, letters]: [&[&str]; 2] =
        [&["journal", "status", "--job", "taxi.toml"], &["journal", "dead-letters", "ls", "--job", "taxi.toml"]];
    fs::create_dir_all(place.path().join("pools/taxi.db")).unwrap();
    place.expect(run, &a_folder);
    place.expect(verify, &untouched);
    fs::remove_dir(place.path().join("pools/taxi.db")).unwrap();
    place.write(
        "pools/taxi.db",
        "somebody's notes, which are longer than any header of a database could be: they go on and on and on and on",
    );
    place.expect_of_all(&[run, status, letters], &untouched);
}

#[test]
fn a_pool_in_use_is_refused_to_a_second_process_and_open_to_a_reader() {
    let place = Taxi::new();
    let broker = Mosquitto::start();
    place.write("taxi.toml", job_at(&broker));
    let forebay = Forebay::run(&place.path().join("taxi.toml"));
    place.expect(&["run", "taxi.toml"], &expect![[r#"
        exit 1
        error: the journal taxi.db is in use: another process runs this job and holds taxi.db.lock; stop it, or give this job its own `path` under [journal]
    "#]]);
    assert!(place.answer(&["journal", "status", "--job", "taxi.toml"]).starts_with("exit 0\npool taxi.db: "));
    place.expect(
        &["journal", "verify", "--job", "taxi.toml"],
        &expect![[r#"
        exit 0
        0 segments, 0 records, 0 B, 0 quarantined: all checksums and all equations hold
    "#]],
    );
    place.expect(
        &["journal", "dead-letters", "ls", "--job", "taxi.toml"],
        &expect![[r#"
        exit 0
        no dead letters
    "#]],
    );
    forebay.stop();
}
