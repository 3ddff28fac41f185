//! A new function of each language builds with that language's real tools and passes its golden rows. A language whose
//! tools are missing is named past the test's capture; with FOREBAY_GUESTS=all, or under CI, that is a failure.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::expect;
use sha2::{Digest as _, Sha256};

use super::{PATIENT, files, kept, place};
use crate::harness::{binary, cli_in, root};

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
        + "const rows = require('fs').readFileSync('golden.jsonl', 'utf8').trim().split('\\n').map((line) => \
            JSON.parse(line));
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
