//! `forebay udf new`, `test` and `bench` as a person uses them: what is made builds and passes its own golden rows, and
//! what is wrong is said whole. A language whose tools are missing is named past the test's capture; with
//! FOREBAY_GUESTS=all, or under CI, that is a failure.

#[path = "udf_commands/golden.rs"]
mod golden;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::expect;
use sha2::{Digest as _, Sha256};

use crate::harness::{binary, cli_in, root};
use crate::place::Place;

/// What an unoptimised engine gives a function on a busy machine.
const PATIENT: [&str; 2] = ["--timeout-ms", "60000"];

/// A folder whose commands keep compiled code from run to run.
fn place() -> Place {
    Place::new(&[("CACHE_DIRECTORY", &cache())])
}

/// Kept from run to run: the code of the larger languages takes half a minute to compile.
fn kept() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new-functions");
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn cache() -> String {
    kept().join("cache").display().to_string()
}

/// A program that builds: with the tools that `make udfs` installs before those of the system.
fn with_tools(program: &str, dir: &Path) -> Command {
    let tools = root("target/tools");
    let places = [tools.join("venv/bin"), tools.join("node_modules/.bin")];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(places.into_iter().chain(std::env::split_paths(&path))).unwrap();
    let mut command = Command::new(program);
    command.current_dir(dir).env("PATH", path).env("FOREBAY", binary());
    command.env("FOREBAY_COMPONENTIZE_JS", tools.join("node_modules/@bytecodealliance/componentize-js"));
    // what the examples were built of is enough, and is built already
    command.env("CARGO_NET_OFFLINE", "true").env("CARGO_TARGET_DIR", root("udfs/target"));
    for flags in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        command.env_remove(flags);
    }
    command
}

/// Whether a language's tools are here; said aloud when not, or a failure where none may be left out.
fn can_build(language: &str, asked: &[&[&str]]) -> bool {
    let runs = |words: &[&str]| {
        let output = with_tools(words[0], Path::new(".")).args(&words[1..]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let Some(missing) = asked.iter().find(|words| !runs(words)) else { return true };
    let all = std::env::var("FOREBAY_GUESTS").map_or(std::env::var_os("CI").is_some(), |wanted| wanted == "all");
    assert!(!all, "no language may be left out, and {missing:?} does not run: see what `make udfs` says");
    // not by eprintln, which is shown only when a test fails
    let said = format!("NOT TESTED: udf new --lang {language}: {missing:?} does not run; run `make udfs`\n");
    std::io::stderr().write_all(said.as_bytes()).unwrap();
    false
}

/// Begins a function, builds it as its README says, and runs its golden rows.
fn passes(language: &str, name: &str, flags: &[&str], rows: usize) {
    let place = place();
    let said = place.answer(&[&["udf", "new", name, "--lang", language], flags].concat());
    assert!(said.starts_with(&format!("exit 0\n{name} in ")), "{said}");
    let dir = place.path().join(name);
    for file in files(&dir) {
        assert!(!fs::read_to_string(&file).unwrap().contains("{{"), "{}", file.display());
    }
    let wasm = dir.join(format!("{name}.wasm"));
    let built = kept().join(format!("{name}-{}.wasm", digest(&dir)));
    if built.exists() {
        fs::copy(&built, &wasm).unwrap();
    } else {
        if language == "rust" {
            fs::copy(root("udfs/Cargo.lock"), dir.join("Cargo.lock")).unwrap();
        }
        let output = with_tools("sh", place.path()).arg(format!("{name}/build.sh")).output().unwrap();
        assert!(output.status.success(), "{language}: {}", String::from_utf8_lossy(&output.stderr));
        if matches!(language, "javascript" | "python") {
            fs::copy(&wasm, &built).unwrap();
        }
    }
    let file = format!("{name}/{name}.wasm");
    let args = [&["udf", "test", &file], PATIENT.as_slice()].concat();
    assert_eq!(place.answer(&args), format!("exit 0\n{rows} passed, 0 failed\n"), "{language}");
    // and the rows can fail
    let golden = fs::read_to_string(dir.join("golden.jsonl")).unwrap();
    place.write("other.jsonl", golden.replacen("5}", "6}", 1));
    let said = place.answer(&[&args, ["other.jsonl"].as_slice()].concat());
    assert!(said.starts_with("exit 1\nFAILED other.jsonl:1 "), "{said}");
    assert!(said.ends_with(&format!("{} passed, 1 failed\n", rows - 1)), "{said}");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Of everything that decides what is built: most of a minute of processor time is spent once for each content.
fn digest(dir: &Path) -> String {
    let mut hash = Sha256::new();
    let of_build = [root("udfs/tools"), root("src/udf/build")];
    for file in std::iter::once(dir).chain(of_build.iter().map(PathBuf::as_path)).flat_map(files) {
        hash.update(fs::read(file).unwrap());
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_new_function_in_rust_builds_and_passes() {
    passes("rust", "band", &[], 4);
    passes("rust", "spread", &["--aggregate"], 3);
}

#[test]
fn a_new_function_in_wat_builds_and_passes() {
    passes("wat", "band", &[], 4);
}

#[test]
fn a_new_function_in_c_and_zig_builds_and_passes() {
    if can_build("c", &[&["python3", "-m", "ziglang", "version"]]) {
        passes("c", "band_c", &[], 4);
        passes("zig", "band_zig", &[], 4);
    }
}

#[test]
fn a_new_function_in_go_builds_and_passes() {
    if can_build("go", &[&["go", "version"]]) {
        passes("go", "band_go", &[], 4);
    }
}

#[test]
fn a_new_function_in_assemblyscript_builds_and_passes() {
    if can_build("assemblyscript", &[&["asc", "--version"]]) {
        passes("assemblyscript", "band_as", &[], 4);
    }
}

#[test]
fn a_new_function_in_python_builds_and_passes() {
    if can_build("python", &[&["componentize-py", "--version"]]) {
        passes("python", "band_py", &[], 4);
    }
}

const COMPONENTIZE: &[&str] = &["node", "-e", "require('fs').accessSync(process.env.FOREBAY_COMPONENTIZE_JS)"];

#[test]
fn a_new_function_in_javascript_builds_and_passes() {
    if can_build("javascript", &[COMPONENTIZE]) {
        passes("javascript", "band_js", &[], 4);
    }
}

/// Its form, and its rows in node: that such a file becomes an aggregate is shown with the examples, and costs a
/// minute.
#[test]
fn a_new_aggregate_in_javascript_has_the_form_and_passes() {
    if !can_build("javascript", &[&["node", "--version"]]) {
        return;
    }
    let place = place();
    place.answer(&["udf", "new", "spread", "--lang", "javascript", "--aggregate"]);
    let dir = place.path().join("spread");
    let (code, _, said) = cli_in(&dir, &[("FOREBAY_COMPONENTIZE_JS", "/nowhere")], &["udf", "build", "spread.js"]);
    // the form is looked at first
    assert_eq!(
        (code, said.lines().next()),
        (1, Some("error: componentize-js is missing, which puts a JavaScript engine into the component"))
    );
    let script = fs::read_to_string(dir.join("spread.js")).unwrap()
        + "const rows = require('fs').readFileSync('golden.jsonl', 'utf8').trim().split('\\n').map((line) => JSON.parse(line));
           for (const row of rows) {
               const group = new main();
               group.init();
               row.rows.forEach((args, i) => group.accumulate(...args, new Date(1000 * i)));
               if (group.computeResult() !== row.expected) throw new Error(JSON.stringify(row));
           }
           console.log(rows.length);";
    let output = with_tools("node", &dir).args(["-e", &script]).output().unwrap();
    assert_eq!(
        (String::from_utf8_lossy(&output.stdout).trim(), String::from_utf8_lossy(&output.stderr).trim()),
        ("3", "")
    );
}

#[test]
fn what_a_build_lacks_is_said() {
    let place = place();
    let languages = ["rust", "c", "zig", "javascript", "python", "go", "assemblyscript", "wat"];
    let mut said = String::new();
    for language in languages {
        let name = format!("f_{language}");
        place.answer(&["udf", "new", &name, "--lang", language]);
        // WebAssembly text needs forebay alone
        let forebay = if language == "wat" { "forebay" } else { binary() };
        let mut command = Command::new("/bin/sh");
        command.arg("build.sh").current_dir(place.path().join(&name)).env("PATH", "/nowhere").env("FOREBAY", forebay);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{language}");
        said += &format!("{language}: {}", String::from_utf8(output.stderr).unwrap());
    }
    expect![[r#"
        rust: cargo is missing: install Rust by rustup, see rustup.rs
        c: zig is missing: install it from ziglang.org, or by pip: python3 -m pip install ziglang
        zig: zig is missing: install it from ziglang.org, or by pip: python3 -m pip install ziglang
        javascript: node is missing: install Node.js 20 or newer (Debian: apt-get install nodejs npm)
        python: componentize-py is missing: install it by pip (Python 3.10 or newer): python3 -m pip install componentize-py
        go: go is missing: install Go 1.24 or newer from go.dev/dl
        assemblyscript: asc is missing: install Node.js 20 or newer (Debian: apt-get install nodejs npm), then here: npm install
        wat: forebay is missing: put it on the PATH, or name it: FOREBAY=/path/to/forebay sh build.sh
    "#]]
    .assert_eq(&said);
}

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
