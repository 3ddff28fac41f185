//! `forebay udf new`: the folder of a new function.
//!
//! In: a name and a language. Out: a folder that builds and has golden rows (`new/`, the files as they are written).
//! Invariant: nothing that exists is changed. Not here: building it, which `build.sh` in the folder does.

mod name;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failed;
use name::NewName;

#[derive(Debug, Args)]
pub struct New {
    /// Name of the function: letters, digits, `_` and `-`
    pub name: String,
    /// What to write it in
    #[arg(long, value_name = "LANGUAGE")]
    pub lang: Language,
    /// An aggregate, which takes the rows of a window (in Rust and JavaScript)
    #[arg(long)]
    pub aggregate: bool,
    /// The folder to make [default: NAME, here]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    Rust,
    C,
    Zig,
    #[value(name = "javascript", alias = "js")]
    JavaScript,
    Python,
    Go,
    #[value(name = "assemblyscript")]
    AssemblyScript,
    Wat,
}

/// A file: its path in the folder, and its text. Both name the function as `{{snake}}`, `{{kebab}}`, `{{camel}}`,
/// `{{pascal}}`.
type File = (&'static str, &'static str);

macro_rules! file {
    ($path:literal, $from:literal) => {
        ($path, include_str!(concat!("new/", $from)))
    };
}

const WIT: File = file!("wit/world.wit", "world.wit");
const GOLDEN: File = file!("golden.jsonl", "golden.jsonl");
const GOLDEN_NUMBERS: File = file!("golden.jsonl", "golden_numbers.jsonl");
const GOLDEN_AGGREGATE: File = file!("golden.jsonl", "golden_aggregate.jsonl");
const README: File = file!("README.md", "README.md");

impl Language {
    fn title(self) -> &'static str {
        match self {
            Language::Rust => "Rust",
            Language::C => "C",
            Language::Zig => "Zig",
            Language::JavaScript => "JavaScript",
            Language::Python => "Python",
            Language::Go => "Go",
            Language::AssemblyScript => "AssemblyScript",
            Language::Wat => "WebAssembly text",
        }
    }

    /// What `build.sh` calls, and where it comes from.
    fn needs(self) -> &'static str {
        match self {
            Language::Rust => "Rust by rustup, with `rustup target add wasm32-unknown-unknown`",
            Language::C => "zig, which has a C compiler (ziglang.org, or `python3 -m pip install ziglang`)",
            Language::Zig => "zig (ziglang.org, or `python3 -m pip install ziglang`)",
            Language::JavaScript => {
                "Node.js 20 or newer (Debian: `apt-get install nodejs npm`), and `npm install` in this folder"
            }
            Language::Python => "Python 3.10 or newer, with `python3 -m pip install componentize-py`",
            Language::Go => "Go 1.24 or newer (go.dev/dl)",
            Language::AssemblyScript => {
                "Node.js 20 or newer (Debian: `apt-get install nodejs npm`), and `npm install` in this folder"
            }
            Language::Wat => "nothing but forebay",
        }
    }

    /// The files beside the README; `None`: there are no aggregates in it.
    fn files(self, aggregate: bool) -> Option<&'static [File]> {
        const PACKAGE: File = file!("package.json", "javascript/package.json");
        let files: &[File] = match (self, aggregate) {
            (Language::Rust, false) => &[
                file!("Cargo.toml", "rust/manifest.toml"),
                file!("src/lib.rs", "rust/lib.rs"),
                WIT,
                file!("build.sh", "rust/build.sh"),
                GOLDEN,
            ],
            (Language::Rust, true) => &[
                file!("Cargo.toml", "rust/manifest.toml"),
                file!("src/lib.rs", "rust_aggregate/lib.rs"),
                file!("wit/world.wit", "rust_aggregate/world.wit"),
                file!("build.sh", "rust/build.sh"),
                GOLDEN_AGGREGATE,
            ],
            (Language::JavaScript, false) => &[
                file!("{{snake}}.js", "javascript/function.js"),
                PACKAGE,
                file!("build.sh", "javascript/build.sh"),
                GOLDEN,
            ],
            (Language::JavaScript, true) => &[
                file!("{{snake}}.js", "javascript_aggregate/function.js"),
                PACKAGE,
                file!("build.sh", "javascript/build.sh"),
                GOLDEN_AGGREGATE,
            ],
            (_, true) => return None,
            (Language::C, _) => &[file!("{{snake}}.c", "c/function.c"), WIT, file!("build.sh", "c/build.sh"), GOLDEN],
            (Language::Zig, _) => {
                &[file!("{{snake}}.zig", "zig/function.zig"), WIT, file!("build.sh", "zig/build.sh"), GOLDEN]
            }
            (Language::Python, _) => {
                &[file!("app.py", "python/app.py"), WIT, file!("build.sh", "python/build.sh"), GOLDEN]
            }
            (Language::Go, _) => &[
                file!("main.go", "go/main.go"),
                file!("go.mod", "go/go.mod"),
                file!("build.sh", "go/build.sh"),
                GOLDEN,
            ],
            (Language::AssemblyScript, _) => &[
                file!("{{snake}}.ts", "assemblyscript/function.ts"),
                file!("package.json", "assemblyscript/package.json"),
                file!("build.sh", "assemblyscript/build.sh"),
                GOLDEN_NUMBERS,
            ],
            (Language::Wat, _) => {
                &[file!("{{snake}}.wat", "wat/function.wat"), file!("build.sh", "wat/build.sh"), GOLDEN_NUMBERS]
            }
        };
        Some(files)
    }
}

pub(super) fn run(new: &New) -> Result<String, Failed> {
    let name = NewName::read(&new.name, new.lang)?;
    let Some(files) = new.lang.files(new.aggregate) else {
        let what = format!("there is no form of an aggregate for {} here", new.lang.title());
        return Err(Failed::Asked {
            what,
            help: "aggregates begin with `--lang rust` or `--lang javascript`".to_owned(),
        });
    };
    let dir = new.dir.clone().unwrap_or_else(|| PathBuf::from(&name.snake));
    make(&dir)?;
    let text = Text { new, name: &name, dir: &dir };
    let mut said = format!("{} in {}, in the folder {}:\n", name.snake, new.lang.title(), dir.display());
    for (path, template) in files.iter().chain([&README]) {
        let path = text.filled(path);
        let file = dir.join(&path);
        let write = || {
            file.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(&file, text.filled(template))
        };
        write().map_err(|source| Failed::Write { path: file.clone(), source })?;
        let _ = writeln!(said, "  {path}");
    }
    let NewName { snake, .. } = &name;
    let _ = write!(said, "\nIt needs {}. Next:\n\n", new.lang.needs());
    let _ = write!(said, "  cd {}\n  sh build.sh\n  forebay udf test {snake}.wasm\n\n", dir.display());
    let _ = writeln!(said, "README.md there has what to write into a job file.");
    Ok(said)
}

/// Makes the folder, and those above it; one that is there is refused.
fn make(dir: &Path) -> Result<(), Failed> {
    let write = |source| Failed::Write { path: dir.to_owned(), source };
    dir.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(write)?;
    std::fs::create_dir(dir).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Failed::Asked {
            what: format!("{} exists already; nothing was changed", dir.display()),
            help: "take another name, or another folder with `--dir DIR`".to_owned(),
        },
        _ => write(e),
    })
}

/// What stands in the place of `{{…}}`.
struct Text<'a> {
    new: &'a New,
    name: &'a NewName,
    dir: &'a Path,
}

impl Text<'_> {
    fn filled(&self, template: &str) -> String {
        let (lang, name) = (self.new.lang, self.name);
        let (what, prefix) = if self.new.aggregate { ("A user aggregate", "uda") } else { ("A user function", "udf") };
        let args = if self.new.aggregate { "value" } else { "value, low, high" };
        let camel = &name.camel;
        let (query, trying) = if self.new.aggregate {
            let query = format!(
                "SELECT device, uda.{camel}(value) AS result FROM readings GROUP BY device, TumblingWindow(minute, 1)"
            );
            (
                query,
                format!(
                    "`forebay udf test {}.wasm` also checks that saved, restored and merged groups give the same",
                    name.snake
                ),
            )
        } else {
            let query = format!("SELECT device, udf.{camel}(value, 10, 20) AS result FROM readings");
            (query, format!("`forebay udf call {0}.wasm {0} 15 10 20` tries it", name.snake))
        };
        let start = match lang {
            Language::Rust => "Begin with `src/lib.rs`; what it takes and gives is in `wit/world.wit`.",
            Language::C => "Begin with `{{snake}}.c`; what it takes and gives is in `wit/world.wit`.",
            Language::Zig => "Begin with `{{snake}}.zig`; what it takes and gives is in `wit/world.wit`.",
            Language::Python => "Begin with `app.py`; what it takes and gives is in `wit/world.wit`.",
            Language::JavaScript => "Begin with `{{snake}}.js`.",
            Language::Go => "Begin with `main.go`.",
            Language::AssemblyScript => "Begin with `{{snake}}.ts`.",
            Language::Wat => "Begin with `{{snake}}.wat`.",
        };
        let folder = self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let call = format!("{prefix}.{camel}({args})");
        let values: [(&str, &str); 12] = [
            // these first: what they hold is filled in too
            ("start", start),
            ("what", what),
            ("call", &call),
            ("query", &query),
            ("try", &trying),
            ("language", lang.title()),
            ("needs", lang.needs()),
            ("folder", &folder),
            ("snake", &name.snake),
            ("kebab", &name.kebab),
            ("camel", camel),
            ("pascal", &name.pascal),
        ];
        values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
    }
}
