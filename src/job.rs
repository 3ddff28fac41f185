//! The job file: what to read, compute, call and write.
//!
//! In: TOML text. Out: a checked [`Job`], or every problem of the file at once, with line, caret and hint. Invariant:
//! past [`parse`] nothing is left to validate but what lies outside the file: paths ([`load`] looks), secrets
//! ([`Job::check_secrets`]), the query (`query`). Not here: the keys of any stage, which reads its own section.

mod backlog;
mod function;
mod input;
mod journal;
mod metrics;
mod output;

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use backlog::BacklogSettings;
pub use function::{FunctionSection, FunctionSettings};
pub use input::{FileInput, InputSection, InputSettings, StreamInput};
pub use journal::JournalSection;
pub use metrics::Metrics;
pub use output::OutputSection;

use crate::diagnostic::{Diagnostic, Diagnostics, Span};
pub use crate::engine::{OnError, TimePolicies};
pub use crate::journal::Start;
use crate::reference::ReferenceInput;
use crate::settings::{Problems, Secret, Section, document, the_file};
use crate::source::Neighbour;

/// Job files are written by hand; more is the wrong file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// State that a job may hold unless it says otherwise: a quarter of the memory of a gateway with 1 GiB, and room for
/// some million groups of a COUNT and a SUM.
const STATE_BYTES_MAX: u64 = 256 << 20;
/// Less would stop at the first few keys.
const STATE_BYTES_MIN: u64 = 64 << 10;

/// The longest tolerance of the time policies: 20 days, 23:59:59.
const TOLERANCE_MAX: Duration = Duration::from_secs(21 * 86_400 - 1);

/// A checked job.
#[derive(Clone, Debug)]
pub struct Job {
    /// Letters, digits, `-`, `_`, `.`; at most 64. Part of file names and client ids.
    pub name: String,
    /// The job file itself.
    pub path: PathBuf,
    /// The query file.
    pub query: PathBuf,
    /// What happens to a row that fails, unless its function says otherwise.
    pub on_error: OnError,
    /// Where a new statement starts to read.
    pub start: Start,
    /// For inputs with TIMESTAMP BY.
    pub time: TimePolicies,
    /// The file says how late an event may be; else that is the default.
    pub chose_late_tolerance: bool,
    /// At least one; in the order of the file, names unique ignoring case.
    pub inputs: Vec<InputSection>,
    /// Names unique when folded to letters and digits.
    pub functions: Vec<FunctionSection>,
    /// At least one; names unique ignoring case.
    pub outputs: Vec<OutputSection>,
    pub journal: JournalSection,
    pub metrics: Metrics,
    /// What the statements may hold in windows, joins and the like, together.
    pub state_bytes_max: u64,
    /// Odd settings that stop nothing, to be shown once.
    pub warnings: Diagnostics,
    /// The file's text without literal secrets, for messages that come later.
    text: String,
}

/// The words of `on_error`.
const ON_ERROR: &[(&str, OnError)] =
    &[("dead-letter", OnError::DeadLetter), ("null", OnError::Null), ("stop", OnError::Stop)];

/// Reads and checks a job file, and that the files it names exist.
///
/// # Errors
/// Every problem found.
pub fn load(path: &Path) -> Result<Job, Diagnostics> {
    read(&text(path)?, path, true)
}

/// Reads a job file and checks nothing but that it can be one.
///
/// # Errors
/// One problem: it cannot be read, is no text, or is far too long.
pub fn text(path: &Path) -> Result<String, Diagnostics> {
    let refused = |title: String, help: &str| {
        let mut refused = Diagnostics::new(path.display().to_string(), "");
        refused.push(Diagnostic::error(title, None).help(help));
        refused
    };
    let mut text = String::new();
    let opened = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    opened.map_err(|error| {
        let help = match error.kind() {
            ErrorKind::InvalidData => "a job file is UTF-8 text",
            ErrorKind::IsADirectory => "name the job file inside it",
            _ => "check the path and its permissions",
        };
        refused(format!("the job file cannot be read: {error}"), help)
    })?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(
            format!("the job file is longer than {FILE_BYTES_MAX} bytes"),
            "check that it is the right file",
        ));
    }
    Ok(text)
}

/// Names of settings whose values are no secrets.
const HARMLESS: [&str; 16] = [
    "name",
    "query",
    "type",
    "topics",
    "topic",
    "path",
    "listen",
    "format",
    "body",
    "qos",
    "retain",
    "batch",
    "client_id",
    "mode",
    "component",
    "keep_alive",
];

/// Checks the text of a job file; `path` is its place, to which its paths are relative. Looks at no other file.
///
/// # Errors
/// Every problem found.
pub fn parse(text: &str, path: &Path) -> Result<Job, Diagnostics> {
    read(text, path, false)
}

fn read(text: &str, path: &Path, look_at_files: bool) -> Result<Job, Diagnostics> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let problems = Problems::new(&path.display().to_string(), text, folder, look_at_files);
    let job = document(text, &HARMLESS, &problems).and_then(|root| checked(root, path, &problems));
    let mut found = problems.into_inner();
    found.sort();
    match job {
        Some(job) if !found.has_errors() => Ok(Job { text: found.text.clone(), warnings: found, ..job }),
        _ => Err(found),
    }
}

fn checked(document: toml::Spanned<toml::de::DeTable<'_>>, path: &Path, problems: &Problems) -> Option<Job> {
    let mut root = Section::root(document.get_ref(), problems);
    let general = root.section("job", true).and_then(general);
    let inputs = root.named("inputs", input::read);
    let functions = root.named("functions", function::read);
    let outputs = root.named("outputs", output::read);
    for (kind, names, folded) in [
        ("inputs", inputs.iter().map(|input| (&input.name, input.span)).collect::<Vec<_>>(), false),
        ("functions", functions.iter().map(|function| (&function.name, function.span)).collect(), true),
        ("outputs", outputs.iter().map(|output| (&output.name, output.span)).collect(), false),
    ] {
        unique(kind, &names, folded, problems);
    }
    for (kind, is_empty) in [("input", inputs.is_empty()), ("output", outputs.is_empty())] {
        let key = format!("{kind}s");
        if is_empty && !root.has(&key) {
            problems.push(
                Diagnostic::error(format!("the job has no {kind}"), None).help(format!("add a section `[{key}.NAME]`")),
            );
        }
    }
    let name = general.as_ref().map_or("job", |general| general.name.as_str());
    let journal = journal::read(root.section("journal", false), name, problems);
    let metrics = metrics::read(root.section("metrics", false));
    root.finish();
    let general = general?;
    let files = [(path, "the job file"), (&general.query, "its query"), (&journal.config.path, "its pool")];
    alone(&files, &inputs, &outputs, problems);
    together(&inputs, &outputs, problems);
    Some(Job {
        name: general.name,
        path: path.to_path_buf(),
        query: general.query,
        on_error: general.on_error,
        start: general.start,
        time: general.time,
        chose_late_tolerance: general.chose_late_tolerance,
        inputs,
        functions,
        outputs,
        journal,
        metrics,
        state_bytes_max: general.state_bytes_max,
        warnings: Diagnostics::new(path.display().to_string(), ""),
        text: String::new(),
    })
}

/// Who has a thing that only one may have.
struct Owner {
    thing: String,
    who: String,
    /// The input, if outputs may send over its connection.
    lender: Option<String>,
}

/// Parts of the job that would get into each other's way: two writers of a file, two clients of one name.
fn alone(files: &[(&Path, &str)], inputs: &[InputSection], outputs: &[OutputSection], problems: &Problems) {
    let of_file = |(path, what): &(&Path, &str)| Owner { thing: the_file(path), who: (*what).to_owned(), lender: None };
    let mut owners: Vec<Owner> = files.iter().map(of_file).collect();
    let inputs = inputs.iter().filter_map(|input| Some((input, stream(input)?))).flat_map(|(input, stream)| {
        let lender = stream.source.offer().map(|_| input.name.clone());
        let own = |thing| Owner { thing, who: format!("input `{}`", input.name), lender: lender.clone() };
        stream.source.exclusive().into_iter().map(|thing| (own(thing), input.span)).collect::<Vec<_>>()
    });
    let outputs = outputs.iter().flat_map(|output| {
        let own = |thing| Owner { thing, who: format!("output `{}`", output.name), lender: None };
        output.settings.exclusive().into_iter().map(move |thing| (own(thing), output.span))
    });
    for (owner, span) in inputs.chain(outputs) {
        let Some(first) = owners.iter().find(|first| first.thing == owner.thing) else {
            owners.push(owner);
            continue;
        };
        let help = match &first.lender {
            Some(input) if owner.lender.is_none() => {
                format!("give it one of its own, or write `connection = \"{input}\"` to send over that of the input")
            }
            _ => "give each its own, or leave a client id or status topic out".to_owned(),
        };
        let error = Diagnostic::error(format!("{} is that of {}", first.thing, first.who), span);
        problems.push(error.label("needs one of its own").help(help));
    }
}

/// What inputs and outputs have to do with inputs.
fn together(inputs: &[InputSection], outputs: &[OutputSection], problems: &Problems) {
    let offer = |input: &InputSection| stream(input).and_then(|stream| stream.source.offer());
    let neighbours: Vec<_> = inputs.iter().map(|input| Neighbour { name: &input.name, offer: offer(input) }).collect();
    for input in inputs.iter().filter_map(stream) {
        input.source.check_beside(&neighbours, problems);
    }
    for output in outputs {
        output.settings.check_beside(&neighbours, problems);
    }
}

fn stream(input: &InputSection) -> Option<&StreamInput> {
    match &input.kind {
        InputSettings::Stream(stream) => Some(stream),
        InputSettings::File(_) | InputSettings::Reference(_) => None,
    }
}

/// What `[job]` holds.
struct General {
    name: String,
    query: PathBuf,
    on_error: OnError,
    start: Start,
    time: TimePolicies,
    chose_late_tolerance: bool,
    state_bytes_max: u64,
}

fn general(mut section: Section) -> Option<General> {
    let name = section.required_text("name", "write `name = \"taxi\"`");
    if let Some(name) = &name {
        let fits = name.value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && (1..=64).contains(&name.value.len());
        if !fits || name.value.starts_with('.') {
            let error = Diagnostic::error("the job's name does not fit", name.span)
                .label("expected letters, digits, `-`, `_` and `.`");
            section.problems().push(
                error.help("it becomes part of file names and client ids: at most 64 characters, no leading `.`"),
            );
        }
    }
    let query = section.required_file("query", "write `query = \"taxi.asaql\"`; the path is relative to the job file");
    let general = General {
        name: name.map(|name| name.value).unwrap_or_default(),
        query: query.unwrap_or_default(),
        on_error: section.choice("on_error", ON_ERROR, OnError::DeadLetter),
        state_bytes_max: section.size("state_bytes_max", STATE_BYTES_MIN, 1 << 40, STATE_BYTES_MAX),
        start: section.choice("start", &[("now", Start::Now), ("oldest", Start::Oldest)], Start::Oldest),
        chose_late_tolerance: section.has("late_tolerance"),
        time: time_policies(&mut section),
    };
    section.finish();
    Some(general)
}

/// The defaults are the engine's.
fn time_policies(section: &mut Section) -> TimePolicies {
    let defaults = TimePolicies::default();
    let late = defaults.late_tolerance.map(duration);
    let late_tolerance = section.duration_or_forever("late_tolerance", Duration::ZERO, TOLERANCE_MAX, late);
    let out_of_order = duration(defaults.out_of_order);
    let out_of_order = section.duration("out_of_order_tolerance", Duration::ZERO, TOLERANCE_MAX, out_of_order);
    TimePolicies {
        late_tolerance: late_tolerance.map(ticks),
        out_of_order: ticks(out_of_order),
        adjust: section.choice("out_of_order_policy", &[("adjust", true), ("drop", false)], defaults.adjust),
        ..defaults
    }
}

/// At most [`TOLERANCE_MAX`], so it fits.
fn ticks(tolerance: Duration) -> i64 {
    i64::try_from(tolerance.as_nanos() / 100).unwrap_or(i64::MAX)
}

fn duration(ticks: i64) -> Duration {
    Duration::from_nanos(ticks.unsigned_abs().saturating_mul(100))
}

/// Names that a query could not tell apart.
fn unique(kind: &str, names: &[(&String, Span)], folded: bool, problems: &Problems) {
    let key = |name: &str| {
        let letters = name.chars().filter(|c| !folded || c.is_alphanumeric());
        letters.flat_map(char::to_lowercase).collect::<String>()
    };
    let mut seen: Vec<(String, &String)> = Vec::new();
    for (name, span) in names {
        match seen.iter().find(|(other, _)| *other == key(name)) {
            Some((_, other)) => {
                let error = Diagnostic::error(format!("two {kind} of the same name"), *span)
                    .label(format!("a query cannot tell it from `{other}`"));
                problems.push(error.help(if folded {
                    "letters and digits have to differ, ignoring letter case"
                } else {
                    "names have to differ in more than letter case"
                }));
            }
            None => seen.push((key(name), name)),
        }
    }
}

impl Job {
    /// The folder of the job file.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// A fresh list for problems that lie outside the file but are shown at a place in it.
    pub fn problems(&self) -> Diagnostics {
        Diagnostics::new(self.path.display().to_string(), self.text.as_str())
    }

    /// The tables that streams are joined with.
    pub fn references(&self) -> impl Iterator<Item = (&InputSection, &ReferenceInput)> {
        self.inputs.iter().filter_map(|input| match &input.kind {
            InputSettings::Reference(reference) => Some((input, reference)),
            InputSettings::Stream(_) | InputSettings::File(_) => None,
        })
    }

    /// Every secret the job names.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let inputs = self.inputs.iter().flat_map(InputSection::secrets);
        inputs
            .chain(self.functions.iter().flat_map(FunctionSection::secrets))
            .chain(self.outputs.iter().flat_map(OutputSection::secrets))
    }

    /// Reads every secret once, to find what is missing before the job starts.
    ///
    /// # Errors
    /// A problem for each secret that cannot be read, at its place in the job file.
    pub fn check_secrets(&self) -> Result<(), Diagnostics> {
        let mut errors = self.problems();
        for secret in self.secrets() {
            if let Err(error) = secret.read() {
                errors.push(
                    Diagnostic::error(error.to_string(), secret.span()).label("cannot be used").help(error.help()),
                );
            }
        }
        errors.into_result(())
    }
}
