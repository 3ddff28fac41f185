//! `forebay eval`: run a query over finite files in event time and print the rows.
//!
//! In: a query and files. Out: one JSON object a row on standard output, messages on standard error. Exit codes: 0
//! done, 2 the query or the job file is wrong, 3 stopped by a runtime error, 1 anything else. Not here: the run itself
//! (`finite`).

pub mod finite;
mod notes;

use std::collections::HashSet;
use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;

use super::say::complain;
use super::test::OutOfOrder;
use crate::batch::write_row_json;
use crate::decode::{Decoder, split};
use crate::engine::OnError;
use crate::reference::{self, ReferenceFormat};
use crate::time::Timestamp;
use crate::value::{Value, write_json_text};
use finite::{Event, FiniteRun, Policies, RunError};

#[derive(Debug, Args)]
pub struct EvalArgs {
    /// File with the query, `-` for standard input, or the query itself
    pub query: String,
    /// Events of an input: a JSON array, one object per line, or CSV (.csv)
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file)]
    pub input: Vec<(String, PathBuf)>,
    /// Rows of a reference table, in the same form
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file)]
    pub reference: Vec<(String, PathBuf)>,
    /// How late an event may arrive, in seconds; -1 for any time
    #[arg(long, value_name = "S", default_value_t = 5, allow_negative_numbers = true, value_parser = late)]
    pub late_tolerance: i64,
    /// How far out of order events are put back, in seconds
    #[arg(long, value_name = "S", default_value_t = 0, allow_negative_numbers = true, value_parser = seconds)]
    pub out_of_order_tolerance: i64,
    /// What becomes of events beyond a tolerance
    #[arg(long, value_name = "POLICY", default_value = "adjust")]
    pub out_of_order_policy: OutOfOrder,
    /// Field that holds each event's arrival time [default: arrival time equals event time]
    #[arg(long, value_name = "NAME")]
    pub arrival_field: Option<String>,
    /// Job file whose functions the query may call
    #[arg(long, value_name = "JOB")]
    pub job: Option<PathBuf>,
    /// What becomes of a row whose evaluation fails
    #[arg(long, value_name = "POLICY", default_value = "stop")]
    pub on_error: OnErrorArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnErrorArg {
    Stop,
    Null,
    DeadLetter,
}

impl From<OnErrorArg> for OnError {
    fn from(arg: OnErrorArg) -> OnError {
        match arg {
            OnErrorArg::Stop => OnError::Stop,
            OnErrorArg::Null => OnError::Null,
            OnErrorArg::DeadLetter => OnError::DeadLetter,
        }
    }
}

fn seconds(text: &str) -> Result<i64, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds >= 0);
    seconds.ok_or_else(|| "write a whole number of seconds, as in 5".to_owned())
}

fn late(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { seconds(text).map_err(|e| e + ", or -1 for any time") }
}

/// `NAME=FILE`
fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("write NAME=FILE, as in readings=readings.jsonl".to_owned()),
    }
}

/// Why a run gave no or not all rows.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueryFailure {
    #[error("{path} cannot be read: {source}; {}", .help)]
    File { path: PathBuf, source: io::Error, help: &'static str },
    #[error("{0}")]
    Input(String),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("standard output: {0}")]
    Output(io::Error),
}

impl QueryFailure {
    fn exit_code(&self) -> ExitCode {
        match self {
            QueryFailure::Run(RunError::Compile(_) | RunError::Job(_)) => ExitCode::from(2),
            QueryFailure::Run(RunError::Stopped(_)) => ExitCode::from(3),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Runs the command.
pub fn run(args: EvalArgs) -> ExitCode {
    printing(|out| eval(&args, out))
}

/// Has rows printed, and says how that ended.
pub(super) fn printing(eval: impl FnOnce(&mut BufWriter<io::StdoutLock<'_>>) -> Result<(), QueryFailure>) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = eval(&mut out).and_then(|()| out.flush().map_err(QueryFailure::Output));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // a reader that is gone has seen what it wanted
        Err(QueryFailure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // rows that came before the error stand above it
            let _ = out.flush();
            match &error {
                // drawn with its own title
                QueryFailure::Run(
                    RunError::Compile(problems) | RunError::Stopped(problems) | RunError::Job(problems),
                ) => complain(problems),
                _ => complain(format_args!("error: {error}\n")),
            }
            error.exit_code()
        }
    }
}

fn eval(args: &EvalArgs, out: &mut impl Write) -> Result<(), QueryFailure> {
    let (text, file) = query(&args.query)?;
    let mut names = HashSet::new();
    if let Some((name, _)) =
        args.input.iter().chain(&args.reference).find(|(name, _)| !names.insert(name.to_lowercase()))
    {
        return Err(QueryFailure::Input(format!("`{name}` is given twice; one name is one file")));
    }
    let mut run = FiniteRun::new(Policies {
        late_tolerance_s: args.late_tolerance,
        out_of_order_tolerance_s: args.out_of_order_tolerance,
        drop: args.out_of_order_policy == OutOfOrder::Drop,
    });
    run.on_error = args.on_error.into();
    if let Some(job) = &args.job {
        run.load_functions(job)?;
    }
    for (name, file) in &args.input {
        let events = read_rows(name, file)?.into_iter().map(Event::now).collect();
        run.inputs.push((name.clone(), with_arrival(name, events, args.arrival_field.as_deref())?));
    }
    for (name, file) in &args.reference {
        run.references.push((name.clone(), read_rows(name, file)?));
    }
    print_rows(&run, (&text, &file), out)
}

/// Runs a query, and prints its rows as they come.
pub(super) fn print_rows(
    run: &FiniteRun,
    (text, file): (&str, &str),
    out: &mut impl Write,
) -> Result<(), QueryFailure> {
    let mut line = String::new();
    let mut broken = None;
    let report = run.run(text, file, |output, columns, row| {
        line.clear();
        line.push_str("{\"output\":");
        write_json_text(output, &mut line);
        line.push_str(",\"row\":");
        write_row_json(columns, row, &mut line);
        line.push_str("}\n");
        if broken.is_none() {
            broken = out.write_all(line.as_bytes()).err();
        }
    });
    if let Some(error) = broken {
        return Err(QueryFailure::Output(error));
    }
    for note in report? {
        complain(format_args!("{note}\n"));
    }
    Ok(())
}

/// The text of the query and the name shown in errors.
pub(super) fn query(given: &str) -> Result<(String, String), QueryFailure> {
    let help = "give a file with a query, `-` for standard input, or the query itself";
    let read = |path: &str, source| QueryFailure::File { path: path.into(), source, help };
    if given == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(|e| read("standard input", e))?;
        return Ok((text, "standard input".to_owned()));
    }
    match fs::read_to_string(given) {
        Ok(text) => Ok((text, given.to_owned())),
        // no file has a name like `SELECT * FROM readings`
        Err(_) if given.trim().contains(char::is_whitespace) && !Path::new(given).exists() => {
            Ok((given.to_owned(), "command line".to_owned()))
        }
        Err(e) => Err(read(given, e)),
    }
}

/// The objects of a file; what is none is told on standard error and passed over, as a running job does.
pub(super) fn read_rows(name: &str, file: &Path) -> Result<Vec<Bytes>, QueryFailure> {
    if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
        return csv_rows(name, file);
    }
    let bytes = read_file(file)?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    let rows = split(&Bytes::from(bytes));
    for bad in &rows.bad {
        complain(format_args!(
            "warning: {}: byte {}: not an event, passed over: {}\n",
            file.display(),
            bad.position,
            bad.error
        ));
    }
    if rows.events.is_empty() && !rows.bad.is_empty() {
        return Err(QueryFailure::Input(format!(
            "`{name}`: {} holds no JSON object; give a JSON array of objects or one object per line",
            file.display()
        )));
    }
    Ok(rows.events)
}

/// The lines of a CSV file as objects of texts, as reference data has them.
pub(super) fn csv_rows(name: &str, file: &Path) -> Result<Vec<Bytes>, QueryFailure> {
    let rows = reference::rows(&Bytes::from(read_file(file)?), ReferenceFormat::Csv { delimiter: b',' }, usize::MAX);
    let rows = rows.map_err(|e| QueryFailure::Input(format!("`{name}`: {}: {e}", file.display())))?;
    Ok(rows.iter().map(|row| Bytes::from(row.to_json())).collect())
}

fn read_file(file: &Path) -> Result<Vec<u8>, QueryFailure> {
    fs::read(file).map_err(|source| {
        let help = "give a file with a JSON array of objects, one object per line, or CSV (.csv)";
        QueryFailure::File { path: file.into(), source, help }
    })
}

/// Reads each event's arrival time: ISO 8601 text, or a number of milliseconds since 1970.
fn with_arrival(name: &str, mut events: Vec<Event>, field: Option<&str>) -> Result<Vec<Event>, QueryFailure> {
    let Some(field) = field else { return Ok(events) };
    let mut decoder = Decoder::new([(field.into(), 0)], None, None);
    for (i, event) in events.iter_mut().enumerate() {
        let mut row = [Value::Null];
        let wrong = |what: String| QueryFailure::Input(format!("`{name}`, event {}: {what}", i + 1));
        decoder.decode(&event.payload, &mut row).map_err(|e| wrong(e.to_string()))?;
        let [value] = &row;
        let arrival = match value {
            Value::Text(text) => Timestamp::parse(text),
            Value::BigInt(ms) => Some(Timestamp::from_unix_millis(*ms)),
            _ => None,
        };
        event.arrival = Some(arrival.ok_or_else(|| {
            wrong(format!("`{field}` is no time: {}; give ISO 8601 text or milliseconds since 1970", value.to_json()))
        })?);
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        eval: EvalArgs,
    }

    fn parse(args: &[&str]) -> Result<EvalArgs, clap::Error> {
        Command::try_parse_from([&["eval"], args].concat()).map(|c| c.eval)
    }

    fn eval_text(args: &[&str]) -> (Result<(), QueryFailure>, String) {
        let mut out = Vec::new();
        let done = eval(&parse(args).unwrap(), &mut out);
        (done, String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_flags_of_the_design() {
        let args = parse(&[
            "q.asaql",
            "--input",
            "a=x.json",
            "--input",
            "b=y=z.json",
            "--reference",
            "r=r.json",
            "--late-tolerance",
            "-1",
            "--out-of-order-tolerance",
            "3",
            "--out-of-order-policy",
            "drop",
            "--arrival-field",
            "at",
            "--job",
            "j.toml",
            "--on-error",
            "dead-letter",
        ])
        .unwrap();
        assert_eq!(args.input[1], ("b".to_owned(), PathBuf::from("y=z.json")));
        assert_eq!(args.late_tolerance, -1);
        assert_eq!(args.out_of_order_policy, OutOfOrder::Drop);
        assert_eq!(args.on_error, OnErrorArg::DeadLetter);
        let defaults = parse(&["-"]).unwrap();
        assert_eq!((defaults.late_tolerance, defaults.out_of_order_tolerance), (5, 0));
        assert_eq!((defaults.out_of_order_policy, defaults.on_error), (OutOfOrder::Adjust, OnErrorArg::Stop));
        for wrong in
            [&["q", "--input", "a"][..], &["q", "--late-tolerance", "-2"], &["q", "--out-of-order-policy", "keep"], &[]]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn rows_come_with_the_name_of_their_output() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gw.jsonl");
        fs::write(&file, "{\"v\":1}\n{\"v\":2.50}\nnonsense\n{\"v\":9007199254740993}\n").unwrap();
        let input = format!("gw={}", file.display());
        let (done, out) = eval_text(&["SELECT v, v > 2 AS big INTO hot FROM gw", "--input", &input]);
        assert!(done.is_ok(), "{done:?}");
        assert_eq!(
            out,
            "{\"output\":\"hot\",\"row\":{\"v\":1,\"big\":false}}\n\
            {\"output\":\"hot\",\"row\":{\"v\":2.5,\"big\":true}}\n\
            {\"output\":\"hot\",\"row\":{\"v\":9007199254740993,\"big\":true}}\n"
        );
    }

    #[test]
    fn exit_codes_tell_what_happened() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gw.json");
        fs::write(&file, r#"[{"v":4},{"v":0},{"v":2}]"#).unwrap();
        let input = format!("gw={}", file.display());
        let code =
            |args: &[&str]| eval_text(args).0.map_or_else(|e| format!("{:?}", e.exit_code()), |()| "done".to_owned());
        let (two, three, one) = (ExitCode::from(2), ExitCode::from(3), ExitCode::FAILURE);
        assert_eq!(code(&["SELECT v FROM", "--input", &input]), format!("{two:?}"));
        assert_eq!(code(&["SELECT v FROM nothing", "--input", &input]), format!("{two:?}"));
        assert_eq!(code(&["SELECT 8 / v AS r FROM gw", "--input", &input]), format!("{three:?}"));
        assert_eq!(code(&["SELECT v FROM gw", "--input", "gw=/nowhere.json"]), format!("{one:?}"));
        assert_eq!(code(&["/nowhere.asaql"]), format!("{one:?}"));
        assert_eq!(code(&["SELECT v FROM gw", "--input", &input, "--reference", &input]), format!("{one:?}"));
        let rows = |policy: &str| eval_text(&["SELECT 8 / v AS r FROM gw", "--input", &input, "--on-error", policy]).1;
        let row = |r: &str| format!("{{\"output\":\"output\",\"row\":{{\"r\":{r}}}}}\n");
        assert_eq!(rows("stop"), row("2"));
        assert_eq!(rows("null"), row("2") + &row("null") + &row("4"));
        assert_eq!(rows("dead-letter"), row("2") + &row("4"));
    }

    #[test]
    fn arrival_times_are_text_or_milliseconds() {
        let event = |payload: &'static str| Event::now(Bytes::from_static(payload.as_bytes()));
        let events =
            with_arrival("a", vec![event(r#"{"at":"2024-01-01T00:00:00Z"}"#), event(r#"{"at":1000}"#)], Some("at"))
                .unwrap();
        assert_eq!(events[0].arrival, Timestamp::parse("2024-01-01"));
        assert_eq!(events[1].arrival, Timestamp::parse("1970-01-01T00:00:01"));
        let error = with_arrival("a", vec![event(r#"{"at":"soon"}"#)], Some("at")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`a`, event 1: `at` is no time: \"soon\"; give ISO 8601 text or milliseconds since 1970"
        );
    }
}
