//! The form of a job file: TOML, sections, keys, units, ranges. Each problem is drawn with a suggestion.

use expect_test::expect;

use super::bad;
use crate::support::refused;

#[test]
fn an_empty_file_says_what_is_needed() {
    expect![[r#"
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
    "#]]
    .assert_eq(&refused("taxi.toml", ""));
}

#[test]
fn text_that_is_no_toml() {
    bad(
        &[("name  = \"taxi\"", "name = taxi\nx = \"a")],
        expect![[r#"
            error: invalid boolean, expected `true`
              --> taxi.toml:3:8
               |
             3 | name = taxi
               |        ^^^^
               = help: the job file is TOML: `key = "text"` under `[section]`

            error: invalid basic string, expected `"`
              --> taxi.toml:4:7
               |
             4 | x =***
               |       ^
               = help: the job file is TOML: `key = "text"` under `[section]`

            2 errors
        "#]],
    );
}

#[test]
fn what_is_written_twice_is_one_error() {
    let second = "[outputs.scored] # again\ntype  = \"file\"\npath = \"x\"\nbody = \"row\"\n";
    let batch = "[outputs.scored.batch]\nrows = 5\n";
    for (from, to, want) in [
        (
            "[functions.score]",
            format!("{second}\n[functions.score]"),
            expect![[r#"
            error: the section `[outputs.scored]` is written twice
               --> taxi.toml:25:10
                |
             25 | [outputs.scored]
                |          ^^^^^^ it begins in line 15 already
                = help: give one of the two another name, or move its keys into the other
        "#]],
        ),
        (
            "[functions.score]",
            format!("{second}{batch}{second}{batch}\n[functions.score]"),
            expect![[r#"
                error: the section `[outputs.scored]` is written twice
                   --> taxi.toml:21:10
                    |
                 21 | [outputs.scored] # again
                    |          ^^^^^^ it begins in line 15 already
                    = help: give one of the two another name, or move its keys into the other
            "#]],
        ),
        (
            "[inputs.rides]",
            "[job]\nname = \"other\"\n[inputs.rides]".to_owned(),
            expect![[r#"
            error: the section `[job]` is written twice
              --> taxi.toml:6:2
               |
             6 | [job]
               |  ^^^ it begins in line 2 already
               = help: give one of the two another name, or move its keys into the other
        "#]],
        ),
        (
            "query =",
            "name = \"other\"\nquery =".to_owned(),
            expect![[r#"
            error: `name` is set twice
              --> taxi.toml:4:1
               |
             4 | name = "other"
               | ^^^^ the second one
               = help: keep one of the two lines
        "#]],
        ),
        (
            "topics = [\"taxi/+/rides\"]",
            "topics = [\"taxi/+/rides\"]\nretry = { first = 1, first = 2 }".to_owned(),
            expect![[r#"
                error: `first` is set twice
                   --> taxi.toml:10:22
                    |
                 10 | retry =*************************
                    |                      ^^^^^ the second one
                    = help: keep one of the two lines
            "#]],
        ),
        (
            "key  = \"env:AML_KEY\"",
            "headers = { token = \"aaaa\", token = \"bbbb\" } # Jos\u{e9}".to_owned(),
            expect![[r#"
                error: `token` is set twice
                   --> taxi.toml:18:29
                    |
                 18 | headers =*******************************************
                    |                             ^^^^^ the second one
                    = help: keep one of the two lines
            "#]],
        ),
        (
            "key  = \"env:AML_KEY\"",
            "Authorization = \"Bearer aaaa\"\nAuthorization = 12345".to_owned(),
            expect![[r#"
                error: `Authorization` is set twice
                   --> taxi.toml:19:1
                    |
                 19 | Authorization =******
                    | ^^^^^^^^^^^^^ the second one
                    = help: keep one of the two lines
            "#]],
        ),
        (
            "key  = \"env:AML_KEY\"",
            "password = \"\"\"\nsecret line\n\"\"\" junk".to_owned(),
            expect![[r#"
                error: unexpected key or value, expected newline, `#`
                   --> taxi.toml:20:5
                    |
                 20 | ********
                    |     ^
                    = help: the job file is TOML: `key = "text"` under `[section]`
            "#]],
        ),
        (
            "key  = \"env:AML_KEY\"",
            "key  = \"s3cr3t".to_owned(),
            expect![[r#"
                error: invalid basic string, expected `"`
                   --> taxi.toml:18:15
                    |
                 18 | key  =********
                    |               ^
                    = help: the job file is TOML: `key = "text"` under `[section]`
            "#]],
        ),
        (
            "key  = \"env:AML_KEY\"",
            "key  = \"env:AML_KEY\"\nkey  = \"s3cr3t\"".to_owned(),
            expect![[r#"
                error: `key` is set twice
                   --> taxi.toml:19:1
                    |
                 19 | key  =*********
                    | ^^^ the second one
                    = help: keep one of the two lines
            "#]],
        ),
    ] {
        bad(&[(from, &to)], want);
    }
}

#[test]
fn unknown_keys_and_sections_get_a_suggestion() {
    bad(
        &[("topics", "topic"), ("[outputs.scored]", "[output.scored]"), ("component", "colour = 1\ncomponent")],
        expect![[r#"
            error: the job has no output
              --> taxi.toml
               = help: add a section `[outputs.NAME]`

            error: `[inputs.rides]` needs `topics`
              --> taxi.toml:6:9
               |
             6 | [inputs.rides]
               |         ^^^^^ `topics` is missing
               = help: write `topics = ["taxi/+/rides"]`

            error: unknown key `topic`
              --> taxi.toml:9:1
               |
             9 | topic = ["taxi/+/rides"]
               | ^^^^^ `[inputs.rides]` has no such key
               = help: did you mean `topics`?

            error: unknown key `colour`
               --> taxi.toml:13:1
                |
             13 | colour = 1
                | ^^^^^^ `[functions.createArray]` has no such key
                = help: known are type, component, export, memory, timeout, result_bytes_max, imports, state_bytes_max, state_key_bytes_max, config, lookup, on_error

            error: unknown key `output`
               --> taxi.toml:21:2
                |
             21 | [output.scored]
                |  ^^^^^^ the job file has no such key
                = help: did you mean `outputs`?

            5 errors
        "#]],
    );
}

#[test]
fn missing_keys_are_told_at_their_section() {
    bad(
        &[
            ("name  = \"taxi\"\n", ""),
            ("type  = \"mqtt\"\nurl   = \"mqtt://127.0.0.1:1883\"\n", "type = \"mqtt\"\n"),
            ("type = \"azureml\"\n", ""),
        ],
        expect![[r#"
            error: `[job]` needs `name`
              --> taxi.toml:2:2
               |
             2 | [job]
               |  ^^^ `name` is missing
               = help: write `name = "taxi"`

            error: `[functions.score]` needs `type`
               --> taxi.toml:14:12
                |
             14 | [functions.score]
                |            ^^^^^ `type` is missing
                = help: write `type = "wasm"` or `type = "azureml"`

            error: `[outputs.scored]` needs `url`
               --> taxi.toml:18:10
                |
             18 | [outputs.scored]
                |          ^^^^^^ `url` is missing
                = help: write `url = "mqtt://127.0.0.1:1883"`

            3 errors
        "#]],
    );
}

#[test]
fn units_ranges_and_types() {
    bad(
        &[
            (
                "type = \"azureml\"",
                "type = \"azureml\"\nmax_batch_count = 20000\nlinger = 20\nparallel_requests = \
                \"many\"\nmax_batch_bytes = \"1 apple\"",
            ),
            ("[job]", "[journal]\nmax_bytes = \"1KB\"\non_full = \"drop\"\n[job]\nlate_tolerance = \"30d\""),
            ("topics = [\"taxi/+/rides\"]", "topics = [\"taxi/#/rides\", 7]\npayload_bytes_max = \"32MiB\""),
        ],
        expect![[r#"
            error: `max_bytes` has the wrong form
              --> taxi.toml:3:13
               |
             3 | max_bytes = "1KB"
               |             ^^^^^ expected a size from "16MiB" to "16TiB"
               = help: write it with a unit, like "32MiB" or "1GB"; the default is "1GiB"

            error: `on_full` has the wrong form
              --> taxi.toml:4:11
               |
             4 | on_full = "drop"
               |           ^^^^^^ expected "block" or "drop-oldest"
               = help: write `on_full = "block"`

            error: `late_tolerance` has the wrong form
              --> taxi.toml:6:18
               |
             6 | late_tolerance = "30d"
               |                  ^^^^^ expected a duration from "0s" to "20d23h59m59s"
               = help: write it with a unit, like "20ms", "5s" or "7d"; or "forever"; the default is "5s"

            error: `taxi/#/rides` is no topic here
               --> taxi.toml:13:11
                |
             13 | topics = ["taxi/#/rides", 7]
                |           ^^^^^^^^^^^^^^ `#` stands for all that follows: `a/#`

            error: `topics` has the wrong form
               --> taxi.toml:13:27
                |
             13 | topics = ["taxi/#/rides", 7]
                |                           ^ expected a text
                = help: write `topics = ["…"]`

            error: `payload_bytes_max` is above `unacked_bytes_max`
               --> taxi.toml:14:21
                |
             14 | payload_bytes_max = "32MiB"
                |                     ^^^^^^^ one message would never fit
                = help: raise `unacked_bytes_max` or lower `payload_bytes_max`

            error: `max_batch_count` has the wrong form
               --> taxi.toml:22:19
                |
             22 | max_batch_count = 20000
                |                   ^^^^^ expected a whole number from 1 to 10000
                = help: the default is 1000

            error: `linger` has the wrong form
               --> taxi.toml:23:10
                |
             23 | linger = 20
                |          ^^ expected a duration from "0s" to "10s"
                = help: write it with a unit, like "20ms", "5s" or "7d"; the default is "20ms"

            error: `parallel_requests` has the wrong form
               --> taxi.toml:24:21
                |
             24 | parallel_requests = "many"
                |                     ^^^^^^ expected a whole number from 1 to 256
                = help: the default is 20

            error: `max_batch_bytes` has the wrong form
               --> taxi.toml:25:19
                |
             25 | max_batch_bytes = "1 apple"
                |                   ^^^^^^^^^ expected a size from "1KiB" to "64MiB"
                = help: write it with a unit, like "32MiB" or "1GB"; the default is "1MB"

            10 errors
        "#]],
    );
}
