//! `forebay journal backup | restore | salvage`: a pool as one file, and the way back.
//!
//! In: a job and a file. Out: what was copied, and what is missing, in words. Invariant: nothing is written over,
//! neither a file nor a pool. Not here: how a copy is made (`journal`).

use std::fs;
use std::path::Path;

use super::{NotDone, counted, failure};
use crate::cli::say::complain;
use crate::job::Job;
use crate::journal::{self, JournalError, JournalStatus, RestoredOn, VerifyReport, size};
use crate::pipeline::journal_config;
use crate::time::Clock;

/// Ranges of missing records that are listed one by one.
const RANGES_LISTED: usize = 100;

/// Writes a backup of the pool, also while its job runs.
pub fn back_up(job: &Job, to: &Path) -> Result<String, NotDone> {
    let report = journal::backup(&journal_config(job, &Clock::Real), to).map_err(failure)?;
    complain_of_problems(&report, "the pool has them too");
    let bytes = fs::metadata(to).map_or(0, |file| file.len());
    Ok(format!("{}: {}, {}\n", to.display(), size(bytes), contents(to)?))
}

/// Makes a backup the pool of a job that has none.
pub fn restore(job: &Job, from: &Path, on: RestoredOn) -> Result<String, NotDone> {
    let config = journal_config(job, &Clock::Real);
    let restored = journal::restore(&config, from, on).map_err(|error| match error {
        JournalError::Locked { path, .. } => failure(format_args!(
            "{path} is in use: stop the job, move its pool and the files beside it away, and run this again"
        )),
        other => failure(other),
    })?;
    complain_of_problems(&restored.report, "the backup is as its pool was");
    let pool = &config.path;
    let made =
        restored.made_at.map_or("a copy that does not say when it was made".to_owned(), |at| format!("made {at}"));
    let sessions = match on {
        RestoredOn::Another => {
            "Brokers know this job by new client ids, but for a `client_id` that the job file writes: no two gateways \
             may have the same"
        }
        RestoredOn::Same => "Brokers know this job by its former client ids",
    };
    Ok(format!(
        "{} is restored from {}, {made}: {}\nWhat the original stored or delivered since then is not known here: rows \
         may be delivered again, with equal ids. Row ids from offset {} of the inputs on have a new mark. {sessions}\n",
        pool.display(),
        from.display(),
        contents(pool)?,
        restored.end
    ))
}

/// What waits in a pool that is closed.
fn contents(pool: &Path) -> Result<String, NotDone> {
    let status = JournalStatus::summary_readonly(pool).map_err(failure)?;
    let consumers = status.consumers.len() as u64;
    let pending = status.consumers.iter().map(|consumer| consumer.pending).max().unwrap_or(0);
    Ok(format!("{}, {}", waiting(pending, consumers), counted(status.dead_letters.letters, "dead letter")))
}

/// `pending`: of the consumer that has most to read.
fn waiting(pending: u64, consumers: u64) -> String {
    match (pending, consumers) {
        (0, _) => "no records to read".to_owned(),
        (_, 1) => format!("{} to read for 1 consumer", counted(pending, "record")),
        _ => format!("{} to read for the slowest of {}", counted(pending, "record"), counted(consumers, "consumer")),
    }
}

/// Writes what can be read of a pool into a new one.
pub fn salvage(job: &Job, job_file: &Path, to: &Path) -> Result<String, NotDone> {
    use std::fmt::Write;
    let config = journal_config(job, &Clock::Real);
    let (salvaged, report) = journal::salvage(&config, to).map_err(|error| match error {
        JournalError::Locked { path, .. } => {
            failure(format_args!("{path} is in use: stop the job, and run this again"))
        }
        other => failure(other),
    })?;
    complain_of_problems(&report, "they are in the new pool too");
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{}: {} in {}, {}",
        to.display(),
        counted(salvaged.records, "record"),
        counted(salvaged.segments, "segment"),
        counted(salvaged.dead_letters, "dead letter")
    );
    for range in salvaged.lost.iter().take(RANGES_LISTED) {
        let records = counted((range.end - range.first).unsigned_abs(), "record");
        let _ = writeln!(out, "missing: {records} of {}, offsets {} to {}", range.stream, range.first, range.end);
    }
    if let Some(more) = salvaged.lost.len().checked_sub(RANGES_LISTED + 1) {
        let _ = writeln!(out, "missing: {} more", counted(more as u64 + 1, "range"));
    }
    let missing = counted(salvaged.lost_records(), "record");
    let _ = writeln!(out, "{missing} missing in all; consumers pass and count what they have not read of these");
    for note in &salvaged.notes {
        let _ = writeln!(out, "note: {note}");
    }
    let _ = writeln!(
        out,
        "Nothing has changed in {}. Move it and the files beside it (`-wal`, `-redo`, `-high-water`) away, then put \
         the new pool in place: forebay journal restore --job {} --same-gateway {}",
        config.path.display(),
        as_word(job_file),
        as_word(to)
    );
    Ok(out)
}

/// A path as one word of a shell.
fn as_word(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:,@%=".contains(c);
    // a leading hyphen would be an option
    match !path.is_empty() && path.chars().all(is_plain) && !path.starts_with('-') {
        true => path,
        false if path.starts_with('-') => as_word(&Path::new(".").join(path)),
        false => format!("'{}'", path.replace('\'', "'\\''")),
    }
}

fn complain_of_problems(report: &VerifyReport, whose: &str) {
    if !report.is_good() {
        let problems = report.problems.join("\n");
        let n = counted(report.problem_count, "problem");
        complain(format_args!("{problems}\nwarning: {n}: {whose}, see `forebay journal verify`\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_printed_command_is_one_word_of_a_shell() {
        for (path, word) in [
            ("/mnt/usb/taxi-2026.db", "/mnt/usb/taxi-2026.db"),
            ("/mnt/my stick/new.db", "'/mnt/my stick/new.db'"),
            ("it's.db", r"'it'\''s.db'"),
            ("a$b", "'a$b'"),
            ("-new.db", "./-new.db"),
            ("straße.db", "straße.db"),
        ] {
            assert_eq!(as_word(Path::new(path)), word);
        }
    }

    #[test]
    fn what_waits_is_told_in_plain_numbers() {
        assert_eq!(waiting(0, 3), "no records to read");
        assert_eq!(waiting(1, 1), "1 record to read for 1 consumer");
        assert_eq!(waiting(12, 3), "12 records to read for the slowest of 3 consumers");
    }
}
