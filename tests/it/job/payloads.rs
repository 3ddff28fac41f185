//! How payloads are read and what a signature says of its columns.

use expect_test::expect;

use super::bad;

#[test]
fn columns_of_a_signature() {
    bad(
        &[(
            "key  = \"env:AML_KEY\"",
            "input_kind = \"split\"\ncolumns = [{ name = \"a\", type = \"flaot\" }, { name = \"b\" }, 3, { name = \
            \"c\", type = \"bit\", unit = 1 }]\nconstants = { when = 2024-01-01 }",
        )],
        expect![[r#"
            error: this is no type of a column
               --> taxi.toml:19:33
                |
             19 | columns = [{ name = "a", type = "flaot" }, { name = "b" }, 3, { name = "c", type = "bit", unit = 1 }]
                |                                 ^^^^^^^ expected a type of the query language
                = help: did you mean "float"?

            error: `[functions.score.columns]` needs `type`
               --> taxi.toml:19:44
                |
             19 | columns = [{ name = "a", type = "flaot" }, { name = "b" }, 3, { name = "c", type = "bit", unit = 1 }]
                |                                            ^^^^^^^^^^^^^^ `type` is missing
                = help: write `columns = [{ name = "distance", type = "float" }]`

            error: a column has the wrong form
               --> taxi.toml:19:60
                |
             19 | columns = [{ name = "a", type = "flaot" }, { name = "b" }, 3, { name = "c", type = "bit", unit = 1 }]
                |                                                            ^ expected `{ name, type }`
                = help: write `columns = [{ name = "distance", type = "float" }]`

            error: unknown key `unit`
               --> taxi.toml:19:91
                |
             19 | columns = [{ name = "a", type = "flaot" }, { name = "b" }, 3, { name = "c", type = "bit", unit = 1 }]
                |                                                                                           ^^^^ `[functions.score.columns]` has no such key
                = help: known are name, type

            error: a constant has no JSON form
               --> taxi.toml:20:22
                |
             20 | constants = { when = 2024-01-01 }
                |                      ^^^^^^^^^^ dates are texts in JSON
                = help: write a text, a number, `true`, `false`, a list or a table

            5 errors
        "#]],
    );
}

#[test]
fn formats_of_payloads() {
    bad(
        &[("topics = ", "format = \"cvs\"\nunpacked_bytes_max = \"1MiB\"\nempty = \"drop\"\ntopics = ")],
        expect![[r#"
        error: `format` has the wrong form
          --> taxi.toml:9:10
           |
         9 | format = "cvs"
           |          ^^^^^ expected "json" or "csv" or "text" or "bytes"
           = help: did you mean "csv"?

        error: `unpacked_bytes_max` without `compression`
           --> taxi.toml:10:22
            |
         10 | unpacked_bytes_max = "1MiB"
            |                      ^^^^^^ nothing is unpacked
            = help: write `compression = "gzip"`, or leave this out

        error: `empty` has the wrong form
           --> taxi.toml:11:9
            |
         11 | empty = "drop"
            |         ^^^^^^ expected "skip" or "dead-letter"
            = help: write `empty = "skip"`

        3 errors
    "#]],
    );
    bad(
        &[("topics = ", "format = \"csv\"\ndelimiter = \"a\"\ncolumns = [\"x\", \"x\", \"\"]\ntopics = ")],
        expect![[r#"
        error: this does not delimit fields
           --> taxi.toml:10:13
            |
         10 | delimiter = "a"
            |             ^^^ expected one sign of ASCII, no quote
            = help: write `delimiter = ";"`, or `"\t"` for a tab; the default is ","

        error: two columns of the same name
           --> taxi.toml:11:17
            |
         11 | columns = ["x", "x", ""]
            |                 ^^^ a row has it twice
            = help: write `columns = ["time", "value"]`, or leave it out where the first line names the columns

        error: a column has no name
           --> taxi.toml:11:22
            |
         11 | columns = ["x", "x", ""]
            |                      ^^ expected a name
            = help: write `columns = ["time", "value"]`, or leave it out where the first line names the columns

        3 errors
    "#]],
    );
    bad(
        &[("topics = ", "delimiter = \";\"\ntopics = ")],
        expect![[r#"
            error: unknown key `delimiter`
              --> taxi.toml:9:1
               |
             9 | delimiter = ";"
               | ^^^^^^^^^ `[inputs.rides]` has no such key
               = help: known are type, url, username, password, ca_file, cert_file, key_file, client_id, keep_alive, protocol, status_topic, topics, payload_bytes_max, unacked_bytes_max, qos, receive_maximum, session_expiry, format, compression, unpacked_bytes_max, empty
        "#]],
    );
}
