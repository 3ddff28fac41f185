//! The tree keeps its order: a module uses only those above it in `lib.rs`, the files of one module do not import each
//! other in rings, and an implementation of an open end stands in its table and is known to that alone. A name has one
//! meaning (`words`), and a line ends at column 120 (`widths`).

#[path = "architecture/widths.rs"]
mod widths;
#[path = "architecture/words.rs"]
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules whose files import each other in one direction only.
const WITHOUT_RINGS: &[&str] = &["settings", "value", "journal", "query", "engine"];

/// The modules in the order in which `lib.rs` declares them.
fn declared() -> Vec<String> {
    let lib = fs::read_to_string("src/lib.rs").expect("src/lib.rs");
    lib.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned)).collect()
}

/// Production files below a folder; tests may reach for whatever they need.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The place of a file in the tree of modules: `src/engine/key.rs` is `engine`, `key`.
fn module_of(file: &Path) -> Vec<String> {
    let path = file.strip_prefix("src").expect("below src").with_extension("");
    path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
}

/// The code of a file: no comments, no literals, no items for tests.
fn code(text: &str) -> String {
    without_tests(&without_comments(text))
}

fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '"' => end_of_text(rest),
            '\'' => end_of_character(rest),
            'r' if rest.starts_with("r\"") => rest[2..].find('"').map_or(rest.len(), |i| i + 3),
            'r' if rest.starts_with("r#\"") => rest[3..].find("\"#").map_or(rest.len(), |i| i + 5),
            _ => {
                out.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[end..];
    }
    out
}

fn end_of_text(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

/// Past a character literal; a lifetime has no second quote.
fn end_of_character(text: &str) -> usize {
    let escaped = text[1..].starts_with('\\');
    let body = text[1..].chars().take(if escaped { 2 } else { 1 }).map(char::len_utf8).sum::<usize>();
    let closing = if escaped { text[1 + body..].find('\'') } else { text[1 + body..].starts_with('\'').then_some(0) };
    closing.map_or(1, |i| 1 + body + i + 1)
}

fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        rest = &rest[at + MARK.len()..];
        let mut depth = 0;
        let end = rest.char_indices().find_map(|(i, c)| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            (depth == 0 && matches!(c, ';' | '}')).then_some(i + 1)
        });
        rest = &rest[end.unwrap_or(rest.len())..];
    }
    out + rest
}

/// Words and signs; `::` is one.
fn tokens(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = code.trim_start();
    while let Some(c) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let end = match c {
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        found.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    found
}

/// The paths in a code that name other modules: `super::a::B`, and `super::a` and `super::c` of `super::{a, c::D}`.
/// What is handed on by `pub use` is no use of it.
fn paths(code: &str) -> Vec<Vec<String>> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    let is = |i: usize, wanted: &str| tokens.get(i).is_some_and(|token| *token == wanted);
    while at < tokens.len() {
        if is(at, "pub") {
            at += 1;
            if is(at, "(") {
                at += tokens[at..].iter().position(|token| *token == ")").map_or(1, |i| i + 1);
            }
            if is(at, "use") {
                at += tokens[at..].iter().position(|token| *token == ";").unwrap_or(0);
            }
        } else if is_name(tokens[at]) && is(at + 1, "::") && (at == 0 || !is(at - 1, "::")) {
            at = path(&tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reads one path from `at` on; gives the place behind it.
fn path(tokens: &[&str], mut at: usize, before: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    path.push(tokens[at].to_owned());
    at += 1;
    while tokens.get(at) == Some(&"::") {
        match tokens.get(at + 1) {
            Some(&"{") => {
                at += 2;
                while at < tokens.len() && tokens[at] != "}" {
                    at = if is_name(tokens[at]) { self::path(tokens, at, &path, found) } else { at + 1 };
                }
                return at + 1;
            }
            Some(name) if is_name(name) => path.push((*name).to_owned()),
            // `::<T>`, `::*`
            _ => break,
        }
        at += 2;
    }
    if tokens.get(at) == Some(&"as") {
        at += 2;
    }
    found.push(path);
    at
}

/// A path as seen from the root of the crate; `None` for one that leaves it.
fn absolute(path: &[String], module: &[String], children: &BTreeSet<String>) -> Option<Vec<String>> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => Some([&module[..module.len().checked_sub(ups)?], &path[ups..]].concat()),
        first if children.contains(first) => Some([module, path].concat()),
        _ => None,
    }
}

/// The modules that a file declares.
fn children(code: &str) -> BTreeSet<String> {
    let tokens = tokens(code);
    tokens.windows(3).filter(|w| w[0] == "mod" && w[2] == ";").map(|w| w[1].to_owned()).collect()
}

/// What the code of a file names elsewhere in the crate.
fn used(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let code = code(text);
    let children = children(&code);
    paths(&code).iter().filter_map(|path| absolute(path, module, &children)).collect()
}

#[test]
fn a_module_uses_only_those_above_it() {
    let order = declared();
    assert!(order.len() > 10, "lib.rs declares the modules: {order:?}");
    let rank = |name: &str| order.iter().position(|m| m == name);
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let module = module_of(&file);
        let Some(own) = module.first().and_then(|first| rank(first)) else { continue };
        let text = fs::read_to_string(&file).expect("a source file");
        // what is handed on by `pub use` is used all the same here
        let text = text.replace("pub use", "use");
        for name in used(&text, &module).iter().filter_map(|path| path.first()) {
            if rank(name).is_some_and(|r| r > own) {
                wrong.push(format!("{} uses {name}, which stands below it", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where one may add: the implementations of a trait, a file or a folder each, and the table of their names.
struct OpenEnd {
    of: &'static str,
    /// The file of the table, and its name there.
    table: (&'static str, &'static str),
    /// Where the files and folders lie.
    folder: &'static str,
}

const fn open_end(of: &'static str, table: (&'static str, &'static str), folder: &'static str) -> OpenEnd {
    OpenEnd { of, table, folder }
}

const OPEN_ENDS: [OpenEnd; 6] = [
    open_end("Source", ("src/source.rs", "SOURCES"), "src/source"),
    open_end("SourceSettings", ("src/source.rs", "SOURCES"), "src/source"),
    open_end("Format", ("src/decode/format.rs", "FORMATS"), "src/decode/format"),
    open_end("Dialect", ("src/score/dialect.rs", "DIALECTS"), "src/score"),
    open_end("Output", ("src/output.rs", "OUTPUTS"), "src/output"),
    open_end("OutputSettings", ("src/output.rs", "OUTPUTS"), "src/output"),
];

impl OpenEnd {
    /// The file or folder that belongs to an implementation: `src/output/mqtt` for all files of the MQTT output.
    fn home(&self, file: &Path) -> Option<PathBuf> {
        let inside = file.strip_prefix(self.folder).ok()?;
        Some(Path::new(self.folder).join(inside.components().next()?).with_extension(""))
    }

    /// The modules whose `read` stands in the table: `mqtt` of `("mqtt", mqtt::read)`.
    fn listed(&self) -> BTreeSet<String> {
        let (file, name) = self.table;
        let text = fs::read_to_string(file).expect("the file of a table");
        let (_, table) = text.split_once(&format!("const {name}: ")).expect("a table");
        let code = code(table.split_once(';').expect("the end of a table").0);
        let tokens = tokens(&code);
        tokens.windows(3).filter(|w| w[1] == "::" && w[2] == "read").map(|w| w[0].to_owned()).collect()
    }
}

/// The part of a file that is not for tests: a file of tests has none.
fn production(file: &Path) -> String {
    let is_tests = file.file_stem().is_some_and(|stem| stem == "tests")
        || file.components().any(|part| part.as_os_str() == "tests");
    let text = fs::read_to_string(file).expect("a source file");
    if is_tests { String::new() } else { text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned() }
}

/// The types that have a trait, each with its file, by `impl Trait for Type`, also with parameters and by a path.
fn implementations(of: &str, files: &[(PathBuf, String)]) -> Vec<(String, PathBuf)> {
    let found = files.iter().flat_map(|(file, text)| {
        let code = code(text);
        let tokens = tokens(&code);
        let is_for = |i: usize| tokens[i] == "for" && i > 0 && tokens[i - 1] == of;
        // a bound `T: Trait` is followed by no `for`
        let names: Vec<String> =
            (0..tokens.len()).filter(|i| is_for(*i)).map(|i| last_of_path(&tokens[i + 1..])).collect();
        names.into_iter().map(|name| (name, file.clone()))
    });
    found.collect()
}

/// The last name of a path, which is that of the type.
fn last_of_path(tokens: &[&str]) -> String {
    let mut at = 0;
    while tokens.get(at + 1) == Some(&"::") {
        at += 2;
    }
    tokens.get(at).map_or_else(String::new, |name| (*name).to_owned())
}

/// Whether a text names a type, as a whole word and not in a comment.
fn names(text: &str, name: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        line.match_indices(name).any(|(at, _)| {
            let (before, after) = (line[..at].chars().next_back(), line[at + name.len()..].chars().next());
            !is_part(before) && !is_part(after)
        })
    })
}

#[test]
fn an_implementation_of_an_open_end_is_known_to_its_table_alone() {
    let mut paths = Vec::new();
    sources(Path::new("src"), &mut paths);
    let files: Vec<_> = paths.into_iter().map(|path| (path.clone(), production(&path))).collect();
    let mut wrong = Vec::new();
    for end in OPEN_ENDS {
        let (table, listed) = (end.table.0, end.listed());
        let mut missing = listed.clone();
        for (name, own) in implementations(end.of, &files) {
            let Some(home) = end.home(&own) else {
                wrong.push(format!("{name} in {} lies outside of {}", own.display(), end.folder));
                continue;
            };
            let module = home.file_name().expect("a module").to_string_lossy().into_owned();
            missing.remove(&module);
            if !listed.contains(&module) {
                wrong.push(format!("{name} is not in {} of {table}: write a line for {module}::read", end.table.1));
            }
            for (file, text) in &files {
                let is_home = end.home(file).as_ref() == Some(&home);
                if !is_home && file != Path::new(table) && names(text, &name) {
                    wrong.push(format!("{} knows {name}, which only its own files and {table} may", file.display()));
                }
            }
        }
        for module in missing {
            wrong.push(format!("{table} lists {module}, in which nothing has `impl {} for`", end.of));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The files of a module, each with those of the same module that it imports from.
fn imports(module: &str) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let mut files = vec![PathBuf::from(format!("src/{module}.rs"))];
    let folder = PathBuf::from(format!("src/{module}"));
    if folder.is_dir() {
        sources(&folder, &mut files);
    }
    let known: BTreeSet<Vec<String>> = files.iter().map(|file| module_of(file)).collect();
    let of_file = |file: &PathBuf| {
        let own = module_of(file);
        let text = fs::read_to_string(file).expect("a source file");
        let named = used(&text, &own);
        let files = named
            .iter()
            .filter_map(|path| (1..=path.len()).rev().map(|n| path[..n].to_vec()).find(|p| known.contains(p)));
        let files = files.filter(|file| *file != own).collect();
        (own, files)
    };
    files.iter().map(of_file).collect()
}

/// Takes away, again and again, what imports nothing that is left: a ring stays.
fn rings(mut imports: BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    loop {
        let free: BTreeSet<Vec<String>> =
            imports.iter().filter(|(_, of)| of.is_empty()).map(|(file, _)| file.clone()).collect();
        if free.is_empty() {
            return imports;
        }
        imports.retain(|file, _| !free.contains(file));
        imports.values_mut().for_each(|of| of.retain(|file| !free.contains(file)));
    }
}

#[test]
fn files_of_a_module_import_each_other_in_no_ring() {
    let mut wrong = Vec::new();
    for module in WITHOUT_RINGS {
        let imports = imports(module);
        assert!(imports.values().any(|of| !of.is_empty()), "{module} has imports");
        for (file, of) in rings(imports) {
            let of: Vec<String> = of.iter().map(|file| file.join("/")).collect();
            wrong.push(format!("{} imports {}", file.join("/"), of.join(", ")));
        }
    }
    assert!(wrong.is_empty(), "files in rings, or above one:\n{}", wrong.join("\n"));
}

#[test]
fn a_ring_is_found_and_a_tree_is_none() {
    let file = |name: &str| vec!["m".to_owned(), name.to_owned()];
    let graph = |edges: &[(&str, &[&str])]| {
        edges.iter().map(|(f, of)| (file(f), of.iter().map(|n| file(n)).collect())).collect()
    };
    assert!(rings(graph(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])).is_empty());
    let left = rings(graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["b", "d"]), ("d", &[])]));
    assert_eq!(left.into_keys().collect::<Vec<_>>(), [file("a"), file("b"), file("c")]);
}

#[test]
fn imports_are_read_as_the_compiler_reads_them() {
    let text = r#"
        //! super::comment::X
        #[cfg(test)]
        mod tests;
        mod child;
        pub(in crate::m) use super::handed::On;
        use super::{a, b::{self, C as D}, d::E};
        use crate::m::f;
        const TEXT: &str = "super::text::X";
        fn one<'a>(c: &'a char) -> bool { *c == '"' || child::two() || super::super::other::three::<u8>() }
        #[cfg(test)]
        fn for_tests() { super::only_tests::four(); }
        fn last() { self::child::five() }
    "#;
    let module = ["m".to_owned(), "own".to_owned()];
    let found: Vec<String> = used(text, &module).iter().map(|path| path.join("/")).collect();
    let wanted = ["m/a", "m/b/self", "m/b/C", "m/d/E", "m/f", "m/own/child/two", "other/three", "m/own/child/five"];
    assert_eq!(found, wanted);
}
