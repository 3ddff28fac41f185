//! One meaning a name: a type has the name that another one has only where the table here says why.

use std::collections::BTreeMap;
use std::path::Path;

use super::{production, sources};

/// Names that stand more than once: how often, and why nobody takes one for the other.
const SEVERAL: &[(&str, usize, &str)] = &[
    ("Answer", 4, "what somebody asked gives back: an endpoint, a session's store, a command, a script of the build"),
    ("Asked", 2, "the settings of a consumer in the journal's books; a golden row's call, known to its command alone"),
    ("Call", 2, "a call in a query; the command `udf call`, whose name clap takes from it"),
    ("Client", 2, "a client of MQTT, as the other end and as the demo's broker sees it"),
    ("Command", 2, "what the writer is told; what the program is told, whose name clap takes from it"),
    ("Expr", 2, "an expression as it is written and as it is compiled: always with its module, `ast` or `plan`"),
    ("Failed", 2, "why a command or the writer ends; private to the file of each"),
    ("Held", 2, "rows that operators hold; how a session of the MQTT output is held, private to its file"),
    ("Inbound", 3, "the receiving half of an MQTT client: of both versions, and of each"),
    ("Inner", 3, "what clones of a handle share; private to the file of each"),
    ("Lane", 2, "a substream's operators; the commands of one consumer: what goes side by side, in two modules"),
    ("Link", 2, "a connection of MQTT, as the source and as the demo's broker sees it"),
    ("Member", 2, "a substream among others; an export of a resource: private to the file of each"),
    ("Message", 3, "a message of MQTT: of the client, of the demo's broker, of the demo's subscriber"),
    ("Misfit", 2, "why a redo log is not its file's; why a broker does not speak our version: modules that never meet"),
    ("Part", 2, "a part of a plan; the values that a recognised redelivery is told by, private to its file"),
    ("Parts", 2, "what a whole is put together from; private to the file of each"),
    ("Piece", 2, "rows that fit a body; a piece of a topic's template, private to its file"),
    ("Queue", 2, "what waits in order: commands for the writer, messages for a broker"),
    ("Receiver", 2, "what receives messages of MQTT: the source's, and the demo's subscriber"),
    ("Seen", 2, "what came already: messages of a session, rides of the demo"),
    ("Session", 2, "a session of MQTT: the output's, and that of the demo's broker"),
    ("Shared", 7, "what the owner of something shares with those outside; each known to its module alone"),
    ("Site", 2, "what a source and an output are given where they are made: the same thing at both ends"),
    ("Suspect", 2, "the row that may be at fault; private to the file of each"),
    ("Text", 2, "a text of the job file; what stands in for a mark of a template, private to its file"),
    ("Verdict", 3, "how a command judges: the demo, a case, a golden row"),
    ("Wanted", 2, "what has to come of a case or a golden row: the same thing in two commands"),
    ("Way", 2, "how a source and an output come to their connection: of their own, or lent"),
];

/// The types that a file declares, outside of functions and tests.
fn declared(text: &str) -> Vec<&str> {
    let named = text.lines().filter_map(|line| {
        let rest = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1,
            Some(rest) => rest,
            None => line,
        };
        // what is indented belongs to something else
        let is_own = !rest.starts_with(' ') || rest.len() < line.len();
        let (kind, rest) = rest.trim_start().split_once(' ').filter(|_| is_own)?;
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        matches!(kind, "struct" | "enum" | "trait" | "type").then(|| &rest[..end])
    });
    named.collect()
}

#[test]
fn a_name_has_one_meaning() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    // what `udf new` writes for somebody else is no part of the crate
    files.retain(|file| !file.ends_with("lib.rs") && file.extension().is_some_and(|e| e == "rs"));
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in &files {
        for name in declared(&production(file)) {
            places.entry(name.to_owned()).or_default().push(file.display().to_string());
        }
    }
    assert!(places.len() > 500, "{} types are found", places.len());
    let allowed: BTreeMap<&str, usize> = SEVERAL.iter().map(|(name, times, _)| (*name, *times)).collect();
    assert_eq!(allowed.len(), SEVERAL.len(), "a name stands in the table twice");
    let mut wrong = Vec::new();
    for (name, files) in &places {
        let may = allowed.get(name.as_str()).copied().unwrap_or(1);
        if files.len() > may {
            wrong.push(format!("{name} is the name of {} types, in {}: rename one", files.len(), files.join(", ")));
        }
    }
    for (name, times, _) in SEVERAL {
        let found = places.get(*name).map_or(0, Vec::len);
        if found < *times {
            wrong.push(format!("{name} stands {found} times: correct the table or take it out"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn types_are_found_as_they_are_declared() {
    let text = r#"
pub struct A<T>(T);
pub(in crate::m) enum B {
    struct_f: u8,
}
struct C;
pub(super) type D = u8;
trait E: Send {
    type Inner;
}
/// struct G
pub fn struct_h() {}
impl A<u8> {}
pub use a::I;
"#;
    assert_eq!(declared(text), ["A", "B", "C", "D", "E"]);
}
