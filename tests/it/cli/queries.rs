//! Mistakes in a query, and in the payloads that it reads: what the binary prints, and the dead letters of a job that
//! runs against mosquitto.

use expect_test::{Expect, expect};

use super::{QUERY, Taxi, job_at};
use crate::harness::{Forebay, until};
use crate::support::{Message, Mosquitto, dead_letters, publish, runtime};

#[test]
fn bad_queries() {
    let place = Taxi::new();
    let cases = [
        (
            "SELECT fare INTO scored FROM ride",
            expect![[r#"
            exit 2
            error: unknown input or step `ride`
              --> taxi.asaql:1:30
               |
             1 | SELECT fare INTO scored FROM ride
               |                              ^^^^ nothing has this name
               = help: did you mean `rides`?
        "#]],
        ),
        (
            "SELECT fare INTO score FROM rides",
            expect![[r#"
            exit 2
            error: unknown output `score`
              --> taxi.asaql:1:18
               |
             1 | SELECT fare INTO score FROM rides
               |                  ^^^^^ not an output of this job
               = help: did you mean `scored`?
        "#]],
        ),
        (
            "SELECT fare, INTO scored FROM rides",
            expect![[r#"
            exit 2
            error: unexpected `INTO`
              --> taxi.asaql:1:14
               |
             1 | SELECT fare, INTO scored FROM rides
               |              ^^^^ expected an expression
               = help: remove the comma before `INTO`
        "#]],
        ),
        (
            "SELECT COUNT(*) AS n INTO scored FROM rides GROUP BY vendorid",
            expect![[r#"
            exit 2
            error: a window must be specified in GROUP BY
              --> taxi.asaql:1:54
               |
             1 | SELECT COUNT(*) AS n INTO scored FROM rides GROUP BY vendorid
               |                                                      ^^^^^^^^ a stream has no end, so a group needs one
               = help: add a window, `TumblingWindow(second, 10)`, or `System.Timestamp()` for rows of one moment
        "#]],
        ),
        (
            "SELECT udf.scor(vendorid) AS fare INTO scored FROM rides",
            expect![[r#"
                exit 2
                error: unknown function `udf.scor`
                  --> taxi.asaql:1:8
                   |
                 1 | SELECT udf.scor(vendorid) AS fare INTO scored FROM rides
                   |        ^^^^^^^^ not a function of this job
                   = help: did you mean `score`?
            "#]],
        ),
        (
            "SELECT udf.createArray(vendorid, weekday) AS list INTO scored FROM rides",
            expect![[r#"
            exit 2
            error: `udf.createArray` takes 5 arguments
              --> taxi.asaql:1:8
               |
             1 | SELECT udf.createArray(vendorid, weekday) AS list INTO scored FROM rides
               |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ 2 given
               = note: the call: udf.createArray(any, any)
               = note: the function: create-array: func(vendorid: string, weekday: string, pickuphour: string, passenger: string, distance: string) -> tuple<string, string, string, string, string>
        "#]],
        ),
        (
            "WITH Ride AS (SELECT vendorid, weekday FROM rides)\nSELECT udf.createArray(vendorid, weekday, 5, 2, Ride) \
            AS list\nINTO scored FROM Ride",
            expect![[r#"
                exit 2
                error: `distance` of `udf.createArray` cannot take this argument
                  --> taxi.asaql:2:49
                   |
                 2 | SELECT udf.createArray(vendorid, weekday, 5, 2, Ride) AS list
                   |                                                 ^^^^ a record never becomes nvarchar(max)
                   = note: the call: udf.createArray(any, any, bigint, bigint, record)
                   = note: the function: create-array: func(vendorid: string, weekday: string, pickuphour: string, passenger: string, distance: string) -> tuple<string, string, string, string, string>
                   = help: `distance` takes nvarchar(max)
            "#]],
        ),
        (
            "SELECT 'open AS a INTO scored FROM rides",
            expect![[r#"
            exit 2
            error: a text is not closed
              --> taxi.asaql:1:8
               |
             1 | SELECT 'open AS a INTO scored FROM rides
               |        ^ opened here
               = help: close it with `'`; a quote inside a text is doubled: `'it''s'`
        "#]],
        ),
        (
            "",
            expect![[r#"
            exit 2
            error: the script has no SELECT
              --> taxi.asaql
               = help: write at least `SELECT * INTO output FROM input`
        "#]],
        ),
    ];
    for (query, wanted) in cases {
        place.write("taxi.asaql", query);
        place.check(&wanted);
        let run = place.answer(&["run", "taxi.toml"]);
        assert_eq!(run, place.answer(&["check", "taxi.toml"]), "run and check say the same");
    }
    // eval takes the query itself
    place.write("rides.jsonl", "{\"fare\":1}\n");
    place.expect(
        &["eval", "SELECT fare FROM ride", "--input", "rides=rides.jsonl"],
        &expect![[r#"
        exit 2
        error: unknown input or step `ride`
          --> command line:1:18
           |
         1 | SELECT fare FROM ride
           |                  ^^^^ nothing has this name
           = help: did you mean `rides`?
    "#]],
    );
    place.expect(
        &["eval", "SELECT 1 / (fare - 1) AS r FROM rides", "--input", "rides=rides.jsonl"],
        &expect![[r#"
            exit 3
            error: division by zero in `/`; guard it with CASE or NULLIF
              --> command line:1:8
               |
             1 | SELECT 1 / (fare - 1) AS r FROM rides
               |        ^^^^^^^^^^^^^^ divide_by_zero
               = note: the event: {"fare":1}
        "#]],
    );
    // functions are those of a job, and an endpoint is not called from files
    place.write("taxi.asaql", QUERY);
    place.expect(
        &["eval", "taxi.asaql", "--input", "rides=rides.jsonl"],
        &expect![[r#"
            exit 2
            error: unknown function `udf.score`
              --> taxi.asaql:1:8
               |
             1 | SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare
               |        ^^^^^^^^^ not a function of this job
               = help: functions are those of a job file: `[functions.score]`; `forebay eval` takes one with `--job`
        "#]],
    );
    place.write("taxi.asaql", "SELECT udf.score(fare) AS fare INTO scored FROM rides");
    place.expect(
        &["eval", "taxi.asaql", "--input", "rides=rides.jsonl", "--job", "taxi.toml"],
        &expect![[r#"
        exit 2
        error: `score` is an endpoint, and a run over files calls none
          --> taxi.asaql:1:8
           |
         1 | SELECT udf.score(fare) AS fare INTO scored FROM rides
           |        ^^^^^^^^^^^^^^^ not called here
           = help: run the job with `forebay run`, or leave the call out
    "#]],
    );
}

#[test]
fn bad_payloads() {
    let place = Taxi::new();
    let cases: [(&[u8], Expect); 8] = [
        (
            b"vendor 7",
            expect![[r#"
            exit 1
            warning: gw.json: byte 0: not an event, passed over: not valid JSON: expected value at line 1 column 1
            error: `gw`: gw.json holds no JSON object; give a JSON array of objects or one object per line
        "#]],
        ),
        (
            b"42",
            expect![[r#"
            exit 1
            warning: gw.json: byte 0: not an event, passed over: an event must be a JSON object
            error: `gw`: gw.json holds no JSON object; give a JSON array of objects or one object per line
        "#]],
        ),
        (
            b"{\"v\":1}\n{\"v\":2\n{\"v\":3}\n",
            expect![[r#"
            exit 0
            {"output":"o","row":{"v":1}}
            {"output":"o","row":{"v":3}}
            warning: gw.json: byte 8: not an event, passed over: not valid JSON: EOF while parsing an object at line 1 column 6
        "#]],
        ),
        (
            b"[{\"v\":1}, 7, null, {\"v\":2}]",
            expect![[r#"
            exit 0
            {"output":"o","row":{"v":1}}
            {"output":"o","row":{"v":2}}
            warning: gw.json: byte 10: not an event, passed over: an element of the array is not a JSON object
            warning: gw.json: byte 13: not an event, passed over: an element of the array is not a JSON object
        "#]],
        ),
        (
            b"[{\"v\":1}, {\"v\":2}",
            expect![[r#"
            exit 0
            {"output":"o","row":{"v":1}}
            {"output":"o","row":{"v":2}}
            warning: gw.json: byte 17: not an event, passed over: not valid JSON: EOF while parsing a list at line 1 column 17
        "#]],
        ),
        (
            b"{\"v\":1} trailing",
            expect![[r#"
            exit 0
            {"output":"o","row":{"v":1}}
            warning: gw.json: byte 8: not an event, passed over: not valid JSON: expected ident at line 1 column 11
        "#]],
        ),
        (
            b"{\"v\":\"\xff\"}\n{\"v\":1}",
            expect![[r#"
            exit 0
            {"output":"o","row":{"v":1}}
            warning: gw.json: byte 0: not an event, passed over: not valid JSON: invalid unicode code point at line 1 column 7
        "#]],
        ),
        (
            b"{\"v\":NaN}\n{\"v\":1}",
            expect![[r#"
            exit 0
            {"output":"o","row":{"v":1}}
            warning: gw.json: byte 0: not an event, passed over: not valid JSON: expected value at line 1 column 6
        "#]],
        ),
    ];
    place.expect_of_contents("gw.json", &["eval", "SELECT v INTO o FROM gw", "--input", "gw=gw.json"], cases);
    place.write("gw.json", "[".repeat(300) + &"]".repeat(300));
    place.expect(
        &["eval", "SELECT v INTO o FROM gw", "--input", "gw=gw.json"],
        &expect![[r#"
        exit 1
        warning: gw.json: byte 1: not an event, passed over: not valid JSON: recursion limit exceeded at line 1 column 266
        error: `gw`: gw.json holds no JSON object; give a JSON array of objects or one object per line
    "#]],
    );
    place.write("gw.json", "{\"v\":1,\"at\":\"soon\"}");
    place.expect(
        &["eval", "SELECT v INTO o FROM gw", "--input", "gw=gw.json", "--arrival-field", "at"],
        &expect![[r#"
        exit 1
        error: `gw`, event 1: `at` is no time: "soon"; give ISO 8601 text or milliseconds since 1970
    "#]],
    );
}

#[test]
fn bad_payloads_of_a_running_job_are_dead_letters_with_a_reason() {
    let place = Taxi::new();
    let broker = Mosquitto::start();
    let job = job_at(&broker);
    place.write("taxi.toml", job.replacen("topics =", "empty = \"dead-letter\"\ntopics =", 1));
    place.write("taxi.asaql", "SELECT vendorid INTO scored FROM rides");
    let forebay = Forebay::run(&place.path().join("taxi.toml"));
    until("the source to be connected", || (forebay.metric("forebay_source_connected") == 1.0).then_some(()));
    let payloads: [&[u8]; 7] = [
        b"vendor 7",
        b"42",
        b"",
        b"{\"vendorid\":1",
        b"[{\"vendorid\":1},7]",
        b"{\"vendorid\":\"\xff\"}",
        b"{\"vendorid\":NaN}",
    ];
    let runtime = runtime();
    runtime.block_on(publish(&broker.url(), payloads.iter().map(|p| Message::new("taxi/1/rides", *p)).collect()));
    let listed = until("seven dead letters", || {
        let out = dead_letters(place.path(), "taxi.toml");
        (out.lines().count() >= 14).then_some(out)
    });
    forebay.stop();
    // the moment of each is left out, and the indent, which `expect!` takes off
    let listed: Vec<String> = listed
        .lines()
        .map(|line| {
            line.split("  ").filter(|part| !part.starts_with("20")).collect::<Vec<_>>().join("  ").trim().to_owned()
                + "\n"
        })
        .collect();
    expect![[r#"
        1  input rides: undecodable: not valid JSON: expected value at line 1 column 1 (topic taxi/1/rides)
        vendor 7
        2  input rides: undecodable: an event must be a JSON object (topic taxi/1/rides)
        42
        3  input rides: undecodable: the payload is empty (topic taxi/1/rides)
        (empty)
        4  input rides: undecodable: not valid JSON: EOF while parsing an object at line 1 column 13 (topic taxi/1/rides)
        {"vendorid":1
        5  input rides: undecodable: an element of the array is not a JSON object (byte 16 of the payload, topic taxi/1/rides)
        7
        6  input rides: undecodable: not valid JSON: invalid unicode code point at line 1 column 14 (topic taxi/1/rides)
        {"vendorid":"�"}
        7  input rides: undecodable: not valid JSON: expected value at line 1 column 13 (topic taxi/1/rides)
        {"vendorid":NaN}
    "#]]
    .assert_eq(&listed.concat());
}
