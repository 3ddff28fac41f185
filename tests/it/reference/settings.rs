//! What `forebay check` says of reference inputs: settings, rows and columns, and their place in a query. No peer.

use expect_test::{Expect, expect};

use super::QUERY;
use crate::harness::{cli, write};
use crate::support::{refused, succeeds, write_job};

/// The message of a job whose reference input has these settings.
fn bad(zones: &str, want: &Expect) {
    let text = format!(
        "[job]\nname = \"taxi\"\nquery = \"taxi.asaql\"\n[inputs.zones]\ntype = \
        \"reference\"\n{zones}[outputs.out]\ntype = \"stdout\"\n"
    );
    want.assert_eq(&refused("taxi.toml", &text));
}

#[test]
fn settings_that_do_not_go_together() {
    bad(
        "format = \"cvs\"\nrelaod = \"1m\"\n",
        &expect![[r#"
        error: `[inputs.zones]` needs `path`
          --> taxi.toml:4:9
           |
         4 | [inputs.zones]
           |         ^^^^^ `path` is missing
           = help: write `path = "zones.json"` for a file, or `url = "https://host/zones.json"`

        error: `format` has the wrong form
          --> taxi.toml:6:10
           |
         6 | format = "cvs"
           |          ^^^^^ expected "json" or "csv"
           = help: did you mean "csv"?

        error: unknown key `relaod`
          --> taxi.toml:7:1
           |
         7 | relaod = "1m"
           | ^^^^^^ `[inputs.zones]` has no such key
           = help: did you mean `reload`?

        3 errors
    "#]],
    );
    bad(
        "path = \"a.json\"\nurl = \"http://127.0.0.1/a\"\n",
        &expect![[r#"
        error: reference data has `path` or `url`, not both
          --> taxi.toml:7:7
           |
         7 | url = "http://127.0.0.1/a"
           |       ^^^^^^^^^^^^^^^^^^^^ a second place
           = help: write `path = "zones.json"` for a file, or `url = "https://host/zones.json"`
    "#]],
    );
    bad(
        "path = \"a.json\"\nkey = \"env:KEY\"\ndelimiter = \";\"\nreload = \"10ms\"\n",
        &expect![[r#"
        error: `key` has no use for a file
          --> taxi.toml:7:7
           |
         7 | key = "env:KEY"
           |       ^^^^^^^^^ only an address has it
           = help: leave it out, or write `url` in place of `path`

        error: `delimiter` has no use for JSON
          --> taxi.toml:8:13
           |
         8 | delimiter = ";"
           |             ^^^ only CSV has it
           = help: write `format = "csv"`, or leave it out

        error: `reload` has the wrong form
          --> taxi.toml:9:10
           |
         9 | reload = "10ms"
           |          ^^^^^^ expected a duration from "1s" to "366d"
           = help: write it with a unit, like "20ms", "5s" or "7d"; leave it out and an address is asked every "10m", a file read when it changes

        3 errors
    "#]],
    );
    bad(
        "path = \"a.csv\"\nformat = \"csv\"\ndelimiter = \"tab\"\nbytes_max = \"1GiB\"\nrows_max = 0\n",
        &expect![[r#"
        error: this does not delimit fields
          --> taxi.toml:8:13
           |
         8 | delimiter = "tab"
           |             ^^^^^ expected one sign of ASCII, no quote
           = help: write `delimiter = ";"`, or `"\t"` for a tab; the default is ","

        error: `bytes_max` has the wrong form
          --> taxi.toml:9:13
           |
         9 | bytes_max = "1GiB"
           |             ^^^^^^ expected a size from "1KiB" to "256MiB"
           = help: write it with a unit, like "32MiB" or "1GB"; the default is "16MiB"

        error: `rows_max` has the wrong form
           --> taxi.toml:10:12
            |
         10 | rows_max = 0
            |            ^ expected a whole number from 1 to 10000000
            = help: the default is 100000

        3 errors
    "#]],
    );
    bad(
        "url = \"ftp://host/a\"\nkey = \"s3cr3t\"\nkey_header = \"x key\"\ntimeout = 5\nqos = 1\n",
        &expect![[r#"
            error: this is no address of an endpoint
              --> taxi.toml:6:7
               |
             6 | url = "ftp://host/a"
               |       ^^^^^^^^^^^^^^ expected `http://` or `https://`
               = help: write `https://host/score`, or `http://127.0.0.1:5001/score`

            error: `key` is written into the job file
              --> taxi.toml:7:7
               |
             7 | key = "******"
               |       ^^^^^^^^ expected `env:NAME`, `file:PATH` or `credential:NAME`
               = note: job files are copied and logged; secrets are only referred to
               = help: put the secret into an environment variable and write `key = "env:NAME"`

            error: this is no name of a header
              --> taxi.toml:8:14
               |
             8 | key_header = "x key"
               |              ^^^^^^^ expected letters, digits and `-`
               = help: write `key_header = "x-api-key"`, or leave it out for `Authorization: Bearer`

            error: `timeout` has the wrong form
              --> taxi.toml:9:11
               |
             9 | timeout = 5
               |           ^ expected a duration from "100ms" to "10m"
               = help: write it with a unit, like "20ms", "5s" or "7d"; the default is "30s"

            error: unknown key `qos`
               --> taxi.toml:10:1
                |
             10 | qos = 1
                | ^^^ `[inputs.zones]` has no such key
                = help: known are type, path, url, key, key_header, ca_file, cert_file, key_file, timeout, allow_plain_http, format, reload, bytes_max, rows_max

            5 errors
        "#]],
    );
    bad(
        "url = \"http://127.0.0.1/a\"\nca_file = \"ca.pem\"\nkey_header = \"x-api-key\"\n",
        &expect![[r#"
            error: `ca_file` without TLS
              --> taxi.toml:7:11
               |
             7 | ca_file = "ca.pem"
               |           ^^^^^^^^ has no use with `http://`
               = help: write the url with `https://`

            error: `key_header` without `key`
              --> taxi.toml:8:14
               |
             8 | key_header = "x-api-key"
               |              ^^^^^^^^^^^ there is nothing to send in it
               = help: write `key = "env:NAME"`, or leave `key_header` out

            2 errors
        "#]],
    );
}

#[test]
fn check_shows_rows_and_columns() {
    let dir = tempfile::tempdir().unwrap();
    let job = "[job]\nname = \"test\"\nquery = \"job.asaql\"\n[inputs.rides]\ntype = \"mqtt\"\n\
        url = \"mqtt://127.0.0.1:1\"\ntopics = [\"rides\"]\n\
               [inputs.zones]\ntype = \"reference\"\npath = \"zones.json\"\n\
               [inputs.codes]\ntype = \"reference\"\npath = \"codes.csv\"\nformat = \"csv\"\n\
               [inputs.away]\ntype = \"reference\"\nurl = \"http://127.0.0.1:1/away?sig=s3cr3t\"\n\
               [outputs.out]\ntype = \"stdout\"\n";
    write_job(dir.path(), job, QUERY);
    write(dir.path(), "zones.json", r#"[{"id":1,"name":null},{"id":2,"name":"south","at":{"x":1.5}}]"#);
    write(dir.path(), "codes.csv", "zone,code\nnorth\n");
    let out = succeeds(dir.path(), &["check", "--offline", "job.toml"]);
    expect![[r#"
        job test, pool test.db

        plan
          into out
            read rides: zone, n
            join reference zones on zone = zones.id
            gives n, zone = zones.name

        reference data
          zones
            from  zones.json
            2 rows: id bigint, name nvarchar(max), at record
          codes
            from  codes.csv
            warning: it cannot be loaded now: line 2: 1 field, but the first line names 2
            until it can, the statements that join with it wait, and events wait in the pool
          away
            from  http://127.0.0.1:1/away
            it was not asked for (--offline)

        pool
          if nobody reads, it takes 5,965,232 events of 150 bytes that cannot be compressed:
          about 69 days at 1 a second, about 6 days at 10, about 16 hours at 100;
          rows that statements store take room beside them

        note: while this gateway is away the broker keeps its messages only as far as its own queue limit goes;
              mosquitto keeps 1,000 for a client unless max_queued_messages is raised

        the job is valid
    "#]]
    .assert_eq(&out);
}

#[test]
fn reference_data_in_the_wrong_place_of_a_query() {
    let dir = tempfile::tempdir().unwrap();
    let job = "[job]\nname = \"test\"\nquery = \"job.asaql\"\n[inputs.rides]\ntype = \"mqtt\"\n\
        url = \"mqtt://127.0.0.1:1\"\ntopics = [\"rides\"]\n\
               [inputs.zones]\ntype = \"reference\"\npath = \"zones.json\"\n[outputs.out]\ntype = \"stdout\"\n";
    write_job(dir.path(), job, "SELECT z.name INTO out FROM zones z JOIN rides r ON r.zone = z.id");
    let (code, out, err) = cli(dir.path(), &["check", "job.toml"]);
    assert_eq!((code, out.as_str()), (2, ""));
    expect![[r#"
        error: reference data `zones` in FROM
          --> job.asaql:1:29
           |
         1 | SELECT z.name INTO out FROM zones z JOIN rides r ON r.zone = z.id
           |                             ^^^^^ reference data never moves time
           = help: read a stream and join it: `FROM input JOIN zones ON input.id = zones.id`

        error: the join is not time bounded
          --> job.asaql:1:53
           |
         1 | SELECT z.name INTO out FROM zones z JOIN rides r ON r.zone = z.id
           |                                                     ^^^^^^^^^^^^^ expected a DATEDIFF between the two sources
           = help: add `AND DATEDIFF(second, z, r) BETWEEN 0 AND 10`: rows wait for a partner only so long

        2 errors
    "#]]
    .assert_eq(&err);
}
