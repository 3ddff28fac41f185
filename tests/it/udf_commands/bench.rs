//! What `forebay udf bench` prints of the built example functions, with every number as `#`.

use expect_test::expect;

use super::place;

/// What is printed with its numbers as `#`.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let is_number = c.is_ascii_digit() || (c == '.' && out.ends_with('#'));
        match is_number {
            true if out.ends_with('#') => {}
            true => out.push('#'),
            false => out.push(c),
        }
    }
    out = out.replace("µs", "ms").replace("# s", "# ms");
    // of an unoptimised build alone
    out.lines().filter(|line| !line.contains("without optimisation")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_function_is_timed() {
    let place = place();
    place.with("create_array").with("weighted_mean").with("visit_count");
    let bench =
        |args: &[&str]| without_numbers(&place.answer(&[&["udf", "bench"], args, &["--seconds", "1"]].concat()));
    place.answer(&["udf", "inspect", "create_array.wasm"]);
    expect![[r#"
        exit #
        code        found in the cache, loaded in # ms
        instance    # ms, first call # ms
        measured    # calls in # rounds, after # to warm up
        a second    # calls
        a row       # ns median, # ns best of the rounds
        memory      # KiB at most
        instances   # made
        failures    none
    "#]]
    .assert_eq(&bench(&["create_array.wasm", "createArray", "1", "Mon", "13", "1", "2.5"]));
    expect![[r#"
        exit #
        code        found in the cache, loaded in # ms
        instance    # ms, first call # ms
        measured    # calls in # rounds, after # to warm up
        a second    # calls
        a row       # ns median, # ns best of the rounds
        memory      # KiB at most
        instances   # made
        note        the function was not called: an argument is NULL that it does not take, so the result is NULL
        failures    none
    "#]]
    .assert_eq(&bench(&["create_array.wasm", "createArray", "1", "Mon", "13", "null", "2.5"]));
    expect![[r#"
        exit #
        code        found in the cache, loaded in # ms
        instance    # ms, first call # ms
        measured    # calls in # rounds, after # to warm up
        a second    # calls
        a row       # ns median, # ns best of the rounds
        memory      # KiB at most
        instances   # made
        failures    # udf_conversion
                    the last: udf.createArray: argument # (distance: string): record {} is no nvarchar(max) (udf_conversion)
    "#]]
    .assert_eq(&bench(&["create_array.wasm", "createArray", "1", "Mon", "13", "1", "{}"]));
    place.expect(
        &["udf", "bench", "create_array.wasm", "creat_array"],
        &expect![[r#"
            exit 2
            error: create_array.wasm exports no function `creat_array`; it has create-array
             = help: did you mean `create_array`?
        "#]],
    );
    place.expect(
        &["udf", "bench", "create_array.wasm", "create_array", "1"],
        &expect![[r#"
            exit 2
            error: create_array takes 5 arguments, not 1: udf.create_array(vendorid nvarchar(max), weekday nvarchar(max), pickuphour nvarchar(max), passenger nvarchar(max), distance nvarchar(max)) -> array (nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max))
        "#]],
    );
    place.expect(
        &["udf", "bench", "weighted_mean.wasm", "weighted_mean", "1", "2"],
        &expect![[r#"
            exit 2
            error: weighted_mean is an aggregate, which takes the rows of a window
             = help: write rows for `forebay udf test`: {"aggregate": "weighted_mean", "rows": [[…], […]], "expected": …}; or try `uda.weighted_mean(…)` in a query with `forebay eval QUERY --input NAME=FILE --job JOB`
        "#]],
    );
    place.expect(
        &["udf", "bench", "visit_count.wasm", "visit_count", "ann"],
        &expect![[r#"
            exit 2
            error: visit_count.wasm imports forebay:host/state@0.1.0, forebay:host/clock@0.1.0, forebay:host/config@0.1.0, forebay:host/log@0.1.0, which is not granted; grant it with --import state --import clock --config KEY=VALUE --import log
        "#]],
    );
    place.expect(
        &["udf", "call", "create_array.wasm", "creat_array"],
        &expect![[r#"
            exit 2
            error: create_array.wasm exports no function `creat_array`; it has create-array
             = help: did you mean `create_array`?
        "#]],
    );
}
