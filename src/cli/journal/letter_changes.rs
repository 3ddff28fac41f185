//! Commands that change what the pool has of dead letters: by the job while it runs, by themselves while it does not.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::dead_letters::each_page;
use super::{NotDone, counted, failure, letter_lines, number};
use crate::control::{ControlClient, ControlRequest, ControlResponse, ReplayEdit, ReplayOutcome, ReplayRequest};
use crate::job::Job;
use crate::journal::{
    DeadLetter, Journal, JournalConfig, JournalError, LetterFilter, OnDamage, StoredDeadLetter, count_dead_letters,
    dead_letters_readonly,
};
use crate::pipeline::journal_config;
use crate::pipeline::set_aside::{AsideJob, set_aside};
use crate::time::Clock;
use crate::value::base64;

/// How long a job may take for one request: it waits 30 s for endpoints and outputs, and for a delivery in hand.
const PATIENCE: Duration = Duration::from_secs(180);
/// Edited letters of one request, and their bytes as text.
const EDITS_MAX: usize = 100;
const EDITS_BYTES_MAX: usize = 2 << 20;

/// Drops letters for good.
pub fn drop_letters(job: &Job, filter: LetterFilter, all: bool) -> Result<String, NotDone> {
    if !filter.is_narrow() && !all {
        let text = "error: which ones? say so by --stage, --statement, --reason, --since, --until or --id; --all drops \
            every one";
        return Err((2, text.to_owned()));
    }
    let pool = &job.journal.config.path;
    let dropped = match ControlClient::call(pool).map_err(failure)? {
        Some(mut client) => match ask(&mut client, &ControlRequest::DropDeadLetters { filter })? {
            ControlResponse::Dropped { letters } => letters,
            other => return Err(unexpected(&other)),
        },
        None => alone(job, |journal| journal.drop_dead_letters(filter))?,
    };
    Ok(format!("{} dropped\n", counted(dropped, "dead letter")))
}

/// Puts a record aside at which a statement stands.
pub fn add(job: &Job, statement: &str, offset: i64) -> Result<String, NotDone> {
    match ControlClient::call(&job.journal.config.path).map_err(failure)? {
        Some(mut client) => {
            let request = ControlRequest::SetAside { statement: statement.to_owned(), offset };
            match ask(&mut client, &request)? {
                ControlResponse::IsAside => {}
                other => return Err(unexpected(&other)),
            }
        }
        None => {
            alone(job, |journal| Ok(set_aside(journal, &AsideJob::of(job), statement, offset)))?.map_err(failure)?
        }
    }
    Ok(format!(
        "offset {offset} is a dead letter of statement {statement}, which goes on behind it when the job starts\n"
    ))
}

/// Does something with the pool of a job that does not run.
pub(super) fn alone<T>(job: &Job, done: impl FnOnce(&Journal) -> Result<T, JournalError>) -> Result<T, NotDone> {
    // a command begins no fresh pool
    let config = JournalConfig { on_damage: OnDamage::Stop, ..journal_config(job, &Clock::Real) };
    let journal = Journal::open(config).map_err(|error| match error {
        JournalError::Locked { path, .. } => failure(format_args!(
            "{path} is in use, but no job listens beside it: it just starts or stops, or is of an earlier version; try \
             again, or stop it first"
        )),
        other => failure(other),
    })?;
    let result = done(&journal).map_err(failure);
    journal.close();
    result
}

pub(super) fn ask(client: &mut ControlClient, request: &ControlRequest) -> Result<ControlResponse, NotDone> {
    match client.ask(request, PATIENCE).map_err(failure)? {
        ControlResponse::Refused { why } => Err(failure(why)),
        answer => Ok(answer),
    }
}

pub(super) fn unexpected(answer: &ControlResponse) -> NotDone {
    failure(format_args!("the job answers something else than it was asked ({answer:?}): use the program that it runs"))
}

/// What a replay came to so far.
#[derive(Debug, Default)]
struct ReplayTally {
    done: u64,
    failed: u64,
    refused: BTreeMap<String, u64>,
    /// Somebody had to be waited for too long.
    gave_up: bool,
    /// Why it ended before its time.
    ended: Option<String>,
    /// There are letters that were not asked for.
    is_cut: bool,
}

impl ReplayTally {
    /// Has letters replayed; gives the number of the last one that was looked at if there are more. What was done
    /// before is told, also where this fails.
    fn ask(&mut self, client: &mut ControlClient, request: ReplayRequest) -> Option<i64> {
        let answer = client.ask(&ControlRequest::ReplayDeadLetters(request), PATIENCE);
        self.ended = Some(match answer {
            Ok(ControlResponse::Replayed(outcome)) => {
                let next = outcome.next;
                self.add(outcome);
                return next;
            }
            Ok(ControlResponse::Refused { why }) => why,
            Ok(other) => format!("the job answers something else than it was asked ({other:?})"),
            Err(error) => error.to_string(),
        });
        None
    }

    /// Whether to ask for more would be in vain.
    fn is_over(&self) -> bool {
        self.gave_up || self.ended.is_some()
    }

    fn add(&mut self, outcome: ReplayOutcome) {
        self.done += outcome.done;
        self.failed += outcome.failed;
        self.gave_up |= outcome.gave_up;
        self.ended = outcome.ended;
        outcome.refused.into_iter().for_each(|(why, n)| *self.refused.entry(why).or_default() += n);
    }

    /// Whether each letter went through.
    fn is_good(&self) -> bool {
        self.failed == 0 && self.refused.is_empty() && !self.gave_up && self.ended.is_none()
    }

    fn told(&self) -> String {
        let is_refused = self.ended.is_some() && self.done == 0 && self.failed == 0 && self.refused.is_empty();
        let mut out = match is_refused {
            true => String::new(),
            false => format!("{} replayed\n", counted(self.done, "dead letter")),
        };
        if self.failed > 0 {
            out.push_str(&format!("{} failed again, with one attempt more\n", number(self.failed)));
        }
        for (why, n) in &self.refused {
            out.push_str(&format!("{} left as they are: {why}\n", number(*n)));
        }
        if self.is_cut {
            out.push_str("the others were not tried\n");
        }
        if let Some(why) = &self.ended {
            out.push_str(&format!("error: {why}\n"));
        }
        out
    }

    fn ended(self) -> Result<String, NotDone> {
        if self.is_good() { Ok(self.told()) } else { Err((1, self.told())) }
    }
}

/// The job that is to replay: only it has the statements and the outputs.
fn running(job: &Job) -> Result<ControlClient, NotDone> {
    let client = ControlClient::call(&job.journal.config.path).map_err(failure)?;
    client.ok_or_else(|| {
        let job = job.path.display();
        failure(format_args!("letters are replayed by the running job, and this one does not run: `forebay run {job}`"))
    })
}

/// Replays letters as they are.
pub fn replay(job: &Job, filter: LetterFilter) -> Result<String, NotDone> {
    let counts = count_dead_letters(&job.journal.config.path, &filter).map_err(failure)?;
    // what becomes a letter meanwhile is not for this replay
    let Some(up_to) = counts.iter().map(|count| count.last_id).max() else {
        return Ok(super::dead_letters::none(&filter).to_owned());
    };
    let mut client = running(job)?;
    let (mut tally, mut after) = (ReplayTally::default(), filter.after);
    loop {
        let filter = LetterFilter { after, up_to: Some(up_to), ..filter.clone() };
        let next = tally.ask(&mut client, ReplayRequest { filter, edits: None });
        match next {
            Some(next) if !tally.is_over() => after = next,
            next => {
                tally.is_cut = next.is_some();
                return tally.ended();
            }
        }
    }
}

/// Replays the letters of a file, with the payloads that they have there.
pub fn replay_from(job: &Job, file: &Path) -> Result<String, NotDone> {
    let letters = read_lines(file)?;
    edited(job, letters, 0)
}

/// Has a person change letters, and replays those that were changed.
pub fn replay_edited(job: &Job, filter: LetterFilter) -> Result<String, NotDone> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let Some(editor) = variable("VISUAL").or_else(|| variable("EDITOR")) else {
        let text = "error: no editor: set EDITOR, or export the letters, change the file, and replay --from it";
        return Err((2, text.to_owned()));
    };
    // asked first: nobody is to write in vain
    drop(running(job)?);
    let file = std::env::temp_dir().join(format!("forebay-letters-{}.jsonl", fastrand::u64(..)));
    let told = |error: std::io::Error| failure(format_args!("{}: {error}", file.display()));
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file).map_err(told)?;
    let n = each_page(&job.journal.config.path, filter.clone(), |lines| out.write_all(lines.as_bytes()).map_err(told))?;
    drop(out);
    if n == 0 {
        fs::remove_file(&file).map_err(told)?;
        return Ok(super::dead_letters::none(&filter).to_owned());
    }
    let before: HashMap<i64, DeadLetter> =
        read_lines(&file)?.into_iter().map(|stored| (stored.id, stored.letter)).collect();
    // an editor may have arguments of its own, as git has it
    let script = format!("{} \"$1\"", editor.to_string_lossy());
    let status = Command::new("sh").args(["-c", &script, "sh"]).arg(&file).status().map_err(told)?;
    if !status.success() {
        fs::remove_file(&file).map_err(told)?;
        return Err(failure(format_args!("the editor ended with {status}: nothing is replayed")));
    }
    let mut letters = read_lines(&file)?;
    let all = letters.len();
    letters.retain(|stored| before.get(&stored.id).is_none_or(|was| was.payload != stored.letter.payload));
    let unchanged = all - letters.len();
    let result = edited(job, letters, unchanged as u64);
    if result.is_ok() {
        fs::remove_file(&file).map_err(told)?;
    }
    result.map_err(|(code, text)| (code, format!("{text}\nwhat was written is in {}", file.display())))
}

fn read_lines(file: &Path) -> Result<Vec<StoredDeadLetter>, NotDone> {
    let text = fs::read_to_string(file).map_err(|e| failure(format_args!("{}: {e}", file.display())))?;
    let mut letters = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let letter = letter_lines::parse(line);
        letters.push(letter.map_err(|why| (2, format!("error: {} line {}: {why}", file.display(), i + 1)))?);
    }
    Ok(letters)
}

/// Replays letters with the payloads that they have here.
fn edited(job: &Job, letters: Vec<StoredDeadLetter>, unchanged: u64) -> Result<String, NotDone> {
    let left = match unchanged {
        0 => String::new(),
        n => format!("{} unchanged, and not replayed\n", number(n)),
    };
    if letters.is_empty() {
        return Ok(format!("{left}nothing to replay\n"));
    }
    let pool: PathBuf = job.journal.config.path.clone();
    let mut client = running(job)?;
    let mut tally = ReplayTally::default();
    let mut rest = letters.as_slice();
    while !rest.is_empty() && !tally.is_over() {
        let mut bytes = 0;
        let fits = rest.iter().take(EDITS_MAX).take_while(|stored| {
            bytes += stored.letter.payload.len() * 4 / 3 + 64;
            bytes <= EDITS_BYTES_MAX
        });
        let (now, later) = rest.split_at(fits.count().max(1).min(rest.len()));
        rest = later;
        let ids = LetterFilter { ids: Some(now.iter().map(|stored| stored.id).collect()), ..LetterFilter::default() };
        let present = dead_letters_readonly(&pool, &ids, now.len()).map_err(failure)?;
        // a number may have been given out anew
        let is_there = |stored: &&StoredDeadLetter| {
            let (a, id) = (&stored.letter, stored.id);
            present.iter().any(|known| {
                let b = &known.letter;
                known.id == id && (a.at, &a.stage, a.offset, a.ordinal) == (b.at, &b.stage, b.offset, b.ordinal)
            })
        };
        let edits: Vec<ReplayEdit> = now
            .iter()
            .filter(is_there)
            .map(|stored| ReplayEdit { id: stored.id, payload: base64(&stored.letter.payload) })
            .collect();
        let gone = now.len() - edits.len();
        if gone > 0 {
            *tally.refused.entry("they are no dead letters of this pool any more".to_owned()).or_default() +=
                gone as u64;
        }
        if !edits.is_empty() {
            tally.ask(&mut client, ReplayRequest { filter: LetterFilter::default(), edits: Some(edits) });
        }
    }
    tally.is_cut = !rest.is_empty();
    tally.ended().map(|told| format!("{told}{left}"))
}
