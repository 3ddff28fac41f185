//! What `forebay check` prints of a job: the plan, both sides of every function, errors and warnings. The embedded
//! endpoint answers where a signature is asked for.

use expect_test::{Expect, expect};
use forebay::demo::endpoint::Endpoint;

use super::{QUERY, Taxi};
use crate::harness::cli_in;
use crate::support::runtime;

#[test]
fn check_prints_the_plan_and_both_sides_of_every_function() {
    let place = Taxi::new();
    place.check(&expect![[r#"
        exit 0
        job taxi, pool taxi.db

        plan
          into scored
            read rides: vendorid, weekday, pickuphour, passenger, distance
            call score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance))
            gives fare = score()

        functions
          udf.createArray(vendorid nvarchar(max), weekday nvarchar(max), pickuphour nvarchar(max), passenger nvarchar(max), distance nvarchar(max))
            gives array (nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max))
            WIT   create-array: func(vendorid: string, weekday: string, pickuphour: string, passenger: string, distance: string) -> tuple<string, string, string, string, string>
            from  create_array.wasm
          udf.score
            at    http://127.0.0.1:5001/score
            its signature was not asked for (--offline)

        pool
          if nobody reads, it takes 5,965,232 events of 150 bytes that cannot be compressed:
          about 69 days at 1 a second, about 6 days at 10, about 16 hours at 100;
          rows that statements store take room beside them

        note: while this gateway is away the broker keeps its messages only as far as its own queue limit goes;
              mosquitto keeps 1,000 for a client unless max_queued_messages is raised

        the job is valid
    "#]]);
    // the columns that the endpoint describes stand beside what the query sends
    let runtime = runtime();
    let endpoint = runtime.block_on(Endpoint::start()).unwrap();
    place.job("http://127.0.0.1:5001/score", &endpoint.url());
    let described = place.answer(&["check", "taxi.toml"]);
    let (_, described) = described.split_once("  udf.score\n").unwrap();
    let (described, _) = described.split_once("\nnote").unwrap();
    let described = format!("udf.score\n{described}").replace(&endpoint.url(), "ENDPOINT");
    expect![[r#"
        udf.score
            at    ENDPOINT
            rows     `data`: one array of 5 columns a row
            results  the answer: one float a row
              column 1         nvarchar(max)  from nvarchar(max): as is
              column 2         nvarchar(max)  from nvarchar(max): as is
              column 3         nvarchar(max)  from nvarchar(max): as is
              column 4         nvarchar(max)  from nvarchar(max): as is
              column 5         nvarchar(max)  from nvarchar(max): as is

        pool
          if nobody reads, it takes 5,965,232 events of 150 bytes that cannot be compressed:
          about 69 days at 1 a second, about 6 days at 10, about 16 hours at 100;
          rows that statements store take room beside them
    "#]]
    .assert_eq(&described);
    assert_eq!(endpoint.requests(), 0, "nothing is scored by a check");
    // an endpoint that is away is no mistake
    place.job("127.0.0.1:5001", "127.0.0.1:1");
    let away = place.answer(&["check", "taxi.toml"]);
    assert!(away.starts_with("exit 0\n"), "{away}");
    assert!(away.contains("that is no mistake: rows wait in the pool until the endpoint answers\n"), "{away}");
}

#[test]
fn check_takes_the_literal_form_of_a_data_frame_and_shows_its_columns() {
    let place = Taxi::new();
    let columns = r#"[
        { name = "vendorid", type = "nvarchar(max)" }, { name = "distance", type = "float" },
        { name = "zone", type = "any" },
    ]"#;
    place
        .job("key = \"env:AML_KEY\"", &format!("input_path = \"data\"\ninput_kind = \"records\"\ncolumns = {columns}"));
    place.write(
        "taxi.asaql",
        "WITH Dataframe AS (SELECT CAST(vendorid AS nvarchar(max)) AS vendorid, CAST(distance AS float) AS distance, \
        zone FROM rides)\nSELECT udf.score(Dataframe)\nINTO scored\nFROM rides",
    );
    place.check(&expect![[r#"
        exit 0
        job taxi, pool taxi.db

        plan
          into scored
            read rides: vendorid, distance, zone
            call score({vendorid: CAST(vendorid AS nvarchar(max)), distance: CAST(distance AS float), zone: zone})
            gives score = score()

        functions
          udf.createArray(vendorid nvarchar(max), weekday nvarchar(max), pickuphour nvarchar(max), passenger nvarchar(max), distance nvarchar(max))
            gives array (nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max))
            WIT   create-array: func(vendorid: string, weekday: string, pickuphour: string, passenger: string, distance: string) -> tuple<string, string, string, string, string>
            from  create_array.wasm
          udf.score
            at    http://127.0.0.1:5001/score
            rows     `data`: one record of 3 columns a row
            results  the answer: one a row, of unknown type
              vendorid         nvarchar(max)  from nvarchar(max): as is
              distance         float          from float: as is
              zone             any

        pool
          if nobody reads, it takes 5,965,232 events of 150 bytes that cannot be compressed:
          about 69 days at 1 a second, about 6 days at 10, about 16 hours at 100;
          rows that statements store take room beside them

        note: while this gateway is away the broker keeps its messages only as far as its own queue limit goes;
              mosquitto keeps 1,000 for a client unless max_queued_messages is raised

        the job is valid
    "#]]);
}

#[test]
fn what_an_endpoint_can_never_take_is_an_error_at_the_call() {
    let place = Taxi::new();
    let signature = |kind: &str, columns: &str| {
        place.job(
            "key = \"env:AML_KEY\"",
            &format!("input_path = \"data\"\ninput_kind = \"{kind}\"\ncolumns = [{columns}]"),
        );
    };
    let columns = |names: &[&str]| {
        names.iter().map(|n| format!("{{ name = \"{n}\", type = \"float\" }}")).collect::<Vec<_>>().join(", ")
    };
    // all of the report goes to standard output, the errors do not
    let errors = |wanted: &Expect| {
        let (code, out, err) = cli_in(place.path(), &[], &["check", "--offline", "taxi.toml"]);
        assert!(out.starts_with("job taxi") && !out.contains("the job is valid"), "{out}");
        wanted.assert_eq(&format!("exit {code}\n{err}"));
    };
    signature("array", &columns(&["a", "b"]));
    errors(&expect![[r#"
        exit 2

        error: `udf.score` never takes this: it takes 2 columns, and this array has 5
          --> taxi.asaql:1:8
           |
         1 | SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare
           |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ no row of it can be sent
           = help: correct the query, or the signature in the job file where it is written there; types are above
    "#]]);
    signature("records", &columns(&["a", "b"]));
    errors(&expect![[r#"
        exit 2

        error: `udf.score` never takes this: it takes a record, and this is an array
          --> taxi.asaql:1:8
           |
         1 | SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare
           |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ no row of it can be sent
           = help: correct the query, or the signature in the job file where it is written there; types are above
    "#]]);
    place.write(
        "taxi.asaql",
        "WITH Ride AS (SELECT CAST(at AS datetime) AS a, CAST(b AS float) AS b, c FROM rides)\nSELECT udf.score(Ride) \
        AS fare\nINTO scored\nFROM Ride",
    );
    errors(&expect![[r#"
        exit 2

        error: `udf.score` never takes this: its column `a` takes float, to which no datetime converts
          --> taxi.asaql:2:8
           |
         2 | SELECT udf.score(Ride) AS fare
           |        ^^^^^^^^^^^^^^^ no row of it can be sent
           = help: correct the query, or the signature in the job file where it is written there; types are above

        error: `udf.score` never takes this: it has no column `c`
          --> taxi.asaql:2:8
           |
         2 | SELECT udf.score(Ride) AS fare
           |        ^^^^^^^^^^^^^^^ no row of it can be sent
           = help: correct the query, or the signature in the job file where it is written there; types are above

        2 errors
    "#]]);
    signature("array", &columns(&["a", "b", "c"]));
    errors(&expect![[r#"
        exit 2

        error: `udf.score` never takes this: it takes an array, and this is a record
          --> taxi.asaql:2:8
           |
         2 | SELECT udf.score(Ride) AS fare
           |        ^^^^^^^^^^^^^^^ no row of it can be sent
           = help: correct the query, or the signature in the job file where it is written there; types are above
    "#]]);
    // a data frame takes an array by position
    place.write("taxi.asaql", QUERY);
    signature("split", &columns(&["a", "b"]));
    errors(&expect![[r#"
        exit 2

        error: `udf.score` never takes this: it takes 2 columns, and this array has 5
          --> taxi.asaql:1:8
           |
         1 | SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare
           |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ no row of it can be sent
           = help: correct the query, or the signature in the job file where it is written there; types are above
    "#]]);
    // a call that not every row reaches too
    const GUARDED: &str = "SELECT COALESCE(fare, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, \
        distance))) AS fare\nINTO scored\nFROM rides\n";
    place.write("taxi.asaql", GUARDED);
    errors(&expect![[r#"
        exit 2

        error: `udf.score` never takes this: it takes 2 columns, and this array has 5
          --> taxi.asaql:1:23
           |
         1 | SELECT COALESCE(fare, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance))) AS fare
           |                       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ no row of it can be sent
           = help: correct the query, or the signature in the job file where it is written there; types are above
    "#]]);
    place.write("taxi.asaql", QUERY);
    signature("split", &columns(&["a", "b", "c", "d", "e"]).replace("float", "nvarchar(max)"));
    let good = place.answer(&["check", "--offline", "taxi.toml"]);
    assert!(
        good.starts_with("exit 0\n") && good.contains("  e                nvarchar(max)  from nvarchar(max): as is\n"),
        "{good}"
    );
}

#[test]
fn a_key_may_cross_the_network_unencrypted_where_the_job_says_so() {
    let place = Taxi::new();
    place.job(
        "url = \"http://127.0.0.1:5001/score\"",
        "url = \"http://fares.example/score?code=abcdef&v=1\"\nallow_plain_http = true",
    );
    place.check(&expect![[r#"
        exit 0
        job taxi, pool taxi.db

        plan
          into scored
            read rides: vendorid, weekday, pickuphour, passenger, distance
            call score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance))
            gives fare = score()

        functions
          udf.createArray(vendorid nvarchar(max), weekday nvarchar(max), pickuphour nvarchar(max), passenger nvarchar(max), distance nvarchar(max))
            gives array (nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max))
            WIT   create-array: func(vendorid: string, weekday: string, pickuphour: string, passenger: string, distance: string) -> tuple<string, string, string, string, string>
            from  create_array.wasm
          udf.score
            at    http://fares.example/score?code=***&v=1
            its signature was not asked for (--offline)

        pool
          if nobody reads, it takes 5,965,232 events of 150 bytes that cannot be compressed:
          about 69 days at 1 a second, about 6 days at 10, about 16 hours at 100;
          rows that statements store take room beside them

        note: while this gateway is away the broker keeps its messages only as far as its own queue limit goes;
              mosquitto keeps 1,000 for a client unless max_queued_messages is raised

        the job is valid
    "#]]);
}

#[test]
fn a_key_over_plain_http_to_another_machine_is_refused() {
    let place = Taxi::new();
    place.job("http://127.0.0.1:5001/score", "http://192.168.1.5/score?code=abcdef");
    place.check(&expect![[r#"
        exit 2
        error: the key would cross the network unencrypted
           --> taxi.toml:19:1
            |
         19 | url = "************************************"
            | ^^^ no TLS
            = help: write the url with `https://`; or `allow_plain_http = true` in this section, if whoever can read along may have the key
    "#]]);
}
