//! What `forebay udf new` prints, writes and refuses; it overwrites nothing.

use std::fs;

use expect_test::expect;

use super::{files, place};

#[test]
fn what_is_new_is_told_and_nothing_is_overwritten() {
    let place = place();
    place.expect(
        &["udf", "new", "movingRange", "--lang", "wat", "--dir", "my/functions"],
        &expect![[r#"
            exit 0
            moving_range in WebAssembly text, in the folder my/functions:
              moving_range.wat
              build.sh
              golden.jsonl
              README.md

            It needs nothing but forebay. Next:

              cd my/functions
              sh build.sh
              forebay udf test moving_range.wasm

            README.md there has what to write into a job file.
        "#]],
    );
    expect![[r##"
        # moving_range

        A user function for forebay, in WebAssembly text: `udf.movingRange(value, low, high)`.

        Needs nothing but forebay.

        ```sh
        sh build.sh
        forebay udf test moving_range.wasm    # the rows of golden.jsonl: calls whose results are known
        ```

        In a job file, and in its query:

        ```toml
        [functions.movingRange]
        type      = "wasm"
        component = "functions/moving_range.wasm"
        ```

        ```sql
        SELECT device, udf.movingRange(value, 10, 20) AS result FROM readings
        ```

        Begin with `moving_range.wat`. `forebay udf inspect moving_range.wasm` shows what a query sees, `forebay udf call moving_range.wasm moving_range 15 10 20` tries it.
    "##]]
    .assert_eq(&fs::read_to_string(place.path().join("my/functions/README.md")).unwrap());
    let before = fs::metadata(place.path().join("my/functions/build.sh")).unwrap().modified().unwrap();
    place.expect(
        &["udf", "new", "other", "--lang", "wat", "--dir", "my/functions"],
        &expect![[r#"
            exit 2
            error: my/functions exists already; nothing was changed
             = help: take another name, or another folder with `--dir DIR`
        "#]],
    );
    assert_eq!(fs::metadata(place.path().join("my/functions/build.sh")).unwrap().modified().unwrap(), before);
    assert_eq!(files(&place.path().join("my")).len(), 4);
    place.write("taken", "");
    place.expect(
        &["udf", "new", "taken", "--lang", "go"],
        &expect![[r#"
            exit 2
            error: taken exists already; nothing was changed
             = help: take another name, or another folder with `--dir DIR`
        "#]],
    );
    place.expect(
        &["udf", "new", "9lives", "--lang", "go"],
        &expect![[r#"
            exit 2
            error: `9lives` cannot be the name of a function
             = help: begin it with a letter, and use letters of English, digits, `_` and `-`, 64 at most
        "#]],
    );
    place.expect(
        &["udf", "new", "forebay_x", "--lang", "go"],
        &expect![[r#"
            exit 2
            error: `forebay_x` cannot be the name of a function: those that begin with `forebay` are reserved
             = help: take another name
        "#]],
    );
    place.expect(
        &["udf", "new", "func", "--lang", "go"],
        &expect![[r#"
            exit 2
            error: `func` is a word of Go, so a function there cannot have that name
             = help: take another name, such as `my_func`
        "#]],
    );
    place.expect(
        &["udf", "new", "x", "--lang", "go", "--aggregate"],
        &expect![[r#"
            exit 2
            error: there is no form of an aggregate for Go here
             = help: aggregates begin with `--lang rust` or `--lang javascript`
        "#]],
    );
    assert!(!place.path().join("x").exists());
    place.expect(
        &["udf", "new", "x", "--lang", "ada"],
        &expect![[r#"
            exit 2
            error: invalid value 'ada' for '--lang <LANGUAGE>'
              [possible values: rust, c, zig, javascript, python, go, assemblyscript, wat]

            For more information, try '--help'.
        "#]],
    );
}
