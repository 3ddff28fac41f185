//! Rows to a file, one JSON object a line, with rotation.
//!
//! In: batches of rows. Out: [`Delivery`]. Invariant: the file always ends with a whole line, except after a crash, and
//! then the half line is cut off before anything is appended. Not here: compression, remote file systems' own
//! semantics.

mod settings;

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, UNIX_EPOCH};

use super::{Delivering, Delivery, Output, OutputStats, RowIds, ToldColumns, lines};
use crate::batch::Rows;
use crate::time::{Clock, TICKS_PER_MILLISECOND, TICKS_PER_SECOND, Timestamp};

pub(super) use settings::read;
pub use settings::{FileOutputConfig, Fsync};

/// How far back the start of a half-written line is looked for: rows are far smaller.
const TAIL_BYTES_MAX: u64 = 64 << 20;
/// Highest number among rotated files of one second: what three digits hold.
const SAME_SECOND_MAX: u32 = 999;

#[derive(Debug)]
pub struct FileOutput {
    path: PathBuf,
    told: ToldColumns,
    /// `None` while a thread writes, or after one was left alone with it.
    writer: Option<FileWriter>,
    fresh: FileWriter,
}

impl FileOutput {
    pub(super) fn new(config: FileOutputConfig, clock: Clock, stats: Arc<OutputStats>) -> FileOutput {
        let (path, told) = (config.path.clone(), config.told.clone());
        let writer = || FileWriter { config: config.clone(), clock: clock.clone(), stats: stats.clone(), open: None };
        FileOutput { path, told, writer: Some(writer()), fresh: writer() }
    }

    async fn write(&mut self, rows: &Rows, ids: RowIds<'_>) -> Delivery {
        let text = lines(rows, &self.told, ids);
        // a thread that a dropped delivery left behind closes its file when done; a new writer opens it again
        let mut writer = self.writer.take().unwrap_or_else(|| self.fresh.clone_closed());
        let written = tokio::task::spawn_blocking(move || {
            let result = writer.append(text.as_bytes());
            (writer, result)
        })
        .await;
        match written {
            Ok((writer, result)) => {
                self.writer = Some(writer);
                match result {
                    Ok(()) => Delivery::Delivered,
                    Err(error) => Delivery::try_again(explain(&self.path, &error)),
                }
            }
            Err(error) => Delivery::try_again(format!("{}: {error}", self.path.display())),
        }
    }

    async fn finish(self) {
        if let Some(mut writer) = self.writer {
            let closed = tokio::task::spawn_blocking(move || writer.close()).await;
            if let Ok(Err(error)) = closed {
                tracing::warn!("{}", explain(&self.path, &error));
            }
        }
    }
}

impl Output for FileOutput {
    fn deliver<'a>(&'a mut self, rows: &'a Rows, ids: RowIds<'a>) -> Delivering<'a> {
        Box::pin(self.write(rows, ids))
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.finish())
    }
}

impl fmt::Display for FileOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

fn explain(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("{path}: no space left; rows wait in the journal until there is some")
        }
        io::ErrorKind::PermissionDenied => format!("{path}: {error}; give the service the right to write there"),
        io::ErrorKind::NotFound => format!("{path}: {error}; create the folder"),
        io::ErrorKind::ReadOnlyFilesystem => format!("{path}: {error}; choose a writable place"),
        _ => format!("{path}: {error}"),
    }
}

/// The blocking half.
#[derive(Debug)]
struct FileWriter {
    config: FileOutputConfig,
    clock: Clock,
    stats: Arc<OutputStats>,
    open: Option<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    len: u64,
    /// which rotation interval its content belongs to; `None` while it is empty
    interval: Option<i64>,
    synced_at: Instant,
}

impl FileWriter {
    fn clone_closed(&self) -> FileWriter {
        FileWriter { config: self.config.clone(), clock: self.clock.clone(), stats: self.stats.clone(), open: None }
    }

    /// Appends whole lines. After an error the file is as before, or closed, to be repaired when it is opened again.
    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        let now = self.clock.now();
        let interval = self.interval_of(now);
        if self.open.is_none() {
            self.open = Some(self.open_file()?);
        }
        if self.open.as_ref().is_some_and(|open| self.is_due(open, text.len(), interval)) {
            self.rotate(now)?;
            self.open = Some(self.open_file()?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        if let Err(error) = open.file.write_all(text) {
            // on a full disk half a line may have found room
            if open.file.set_len(open.len).is_err() {
                self.open = None;
            }
            return Err(error);
        }
        let synced = match self.config.fsync {
            Fsync::Always => open.file.sync_data(),
            Fsync::Interval(every) if self.clock.monotonic().saturating_duration_since(open.synced_at) >= every => {
                open.synced_at = self.clock.monotonic();
                open.file.sync_data()
            }
            Fsync::Interval(_) | Fsync::Never => Ok(()),
        };
        if let Err(error) = synced {
            // what the system says about this file from here on cannot be trusted: cut the batch off and open anew
            let _ = open.file.set_len(open.len);
            self.open = None;
            return Err(error);
        }
        open.len += text.len() as u64;
        open.interval = interval;
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some(open) if self.config.fsync != Fsync::Never => open.file.sync_data(),
            _ => Ok(()),
        }
    }

    fn interval_of(&self, at: Timestamp) -> Option<i64> {
        let every = i64::try_from(self.config.rotate_interval?.as_millis()).ok().filter(|n| *n > 0)?;
        Some(at.ticks().div_euclid(every.saturating_mul(TICKS_PER_MILLISECOND)))
    }

    fn is_due(&self, open: &OpenFile, more: usize, interval: Option<i64>) -> bool {
        let is_too_long = self.config.rotate_bytes.is_some_and(|max| open.len + more as u64 > max);
        let is_too_old = open.interval.is_some() && open.interval != interval;
        open.len > 0 && (is_too_long || is_too_old)
    }

    fn open_file(&self) -> io::Result<OpenFile> {
        let path = &self.config.path;
        let is_new = !path.exists();
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                io::Error::other("another process or output writes this file; give each its own")
            }
            TryLockError::Error(error) => error,
        })?;
        if repair(&mut file)? {
            self.stats.repaired.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("{}: a half-written last line was cut off", path.display());
        }
        if is_new && self.config.fsync != Fsync::Never {
            sync_folder(path)?;
        }
        let len = file.metadata()?.len();
        let modified = file.metadata()?.modified().ok().map_or_else(
            || self.clock.now(),
            |modified| {
                let millis = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                Timestamp::from_unix_millis(i64::try_from(millis).unwrap_or(i64::MAX))
            },
        );
        let interval = self.interval_of(modified).filter(|_| len > 0);
        self.stats.opened.fetch_add(1, Ordering::Relaxed);
        Ok(OpenFile { file, len, interval, synced_at: self.clock.monotonic() })
    }

    /// Gives the file its final name and deletes the oldest ones.
    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        self.close()?;
        let path = &self.config.path;
        let mut old = rotated_files(path)?;
        old.sort();
        let target = rotated(path, &next_stamp(old.last().map(|(stamp, _)| stamp.as_str()), now));
        fs::rename(path, &target)?;
        if let Some(keep) = self.config.keep_files {
            old.push((String::new(), target));
            let surplus = old.len().saturating_sub(keep);
            for (_, file) in old.into_iter().take(surplus) {
                fs::remove_file(file)?;
            }
        }
        if self.config.fsync == Fsync::Never { Ok(()) } else { sync_folder(path) }
    }
}

/// `rows.jsonl` becomes `rows.20260131T235959Z-000.jsonl`.
fn rotated(path: &Path, stamp: &str) -> PathBuf {
    let (stem, extension) = name_parts(path);
    path.with_file_name(format!("{stem}.{stamp}{extension}"))
}

/// The stamp for a file rotated now: always behind the newest one there is, also when the clock was set back, so that
/// the order of names is the order of rows and the oldest is what gets deleted.
fn next_stamp(newest: Option<&str>, now: Timestamp) -> String {
    let stamp = |at: Timestamp, n: u32| {
        let c = at.civil();
        format!("{:04}{:02}{:02}T{:02}{:02}{:02}Z-{n:03}", c.year, c.month, c.day, c.hour, c.minute, c.second)
    };
    let first = stamp(now, 0);
    let Some((second, n)) = newest.filter(|newest| *newest >= first.as_str()).and_then(read_stamp) else {
        return first;
    };
    if n < SAME_SECOND_MAX { stamp(second, n + 1) } else { stamp(second.saturating_add(TICKS_PER_SECOND), 0) }
}

/// Second and number of a stamp.
fn read_stamp(stamp: &str) -> Option<(Timestamp, u32)> {
    let part = |from: usize, to: usize| stamp.get(from..to);
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(9, 11)?,
        part(11, 13)?,
        part(13, 15)?
    );
    Some((Timestamp::parse(&text)?, part(17, 20)?.parse().ok()?))
}

fn name_parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    let extension = text(path.extension());
    (text(path.file_stem()), if extension.is_empty() { extension } else { format!(".{extension}") })
}

/// The rotated files of this path with their stamps: only names that [`rotated`] makes, so that nothing else is ever
/// deleted.
fn rotated_files(path: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let (stem, extension) = name_parts(path);
    let is_stamp = |stamp: &str| {
        let pattern = "00000000T000000Z-000";
        stamp.len() == pattern.len()
            && stamp.bytes().zip(pattern.bytes()).all(|(b, p)| if p == b'0' { b.is_ascii_digit() } else { b == p })
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let entry = entry?;
        let name = entry.file_name();
        let stamp = name.to_str().and_then(|n| n.strip_prefix(&stem)?.strip_prefix('.')?.strip_suffix(&extension));
        if let Some(stamp) = stamp.filter(|s| is_stamp(s)) {
            files.push((stamp.to_owned(), entry.path()));
        }
    }
    Ok(files)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes names durable: a new or renamed file is only found after a crash when its folder was synced.
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// Makes the file end with a whole line. True when a half line was cut off. A file that does not look like rows is left
/// alone, with an error.
fn repair(file: &mut File) -> io::Result<bool> {
    let len = file.metadata()?.len();
    let from = len.saturating_sub(TAIL_BYTES_MAX);
    let tail = last_line(file, from, len)?;
    if tail.is_empty() {
        return Ok(false);
    }
    if serde_json::from_slice::<serde::de::IgnoredAny>(&tail).is_ok() && tail.starts_with(b"{") {
        // only the line end is missing
        file.write_all(b"\n")?;
        return Ok(false);
    }
    // a power failure can leave zeros where a line was to be
    let is_ours = tail.starts_with(b"{") || tail.iter().all(|b| *b == 0);
    let starts_with_rows = first_byte(file)?.is_some_and(|b| b == b'{' || b == 0);
    if !is_ours || !starts_with_rows {
        return Err(io::Error::other(
            "the file exists, does not end with a line end and does not hold rows; move it away or choose another path",
        ));
    }
    file.set_len(len - tail.len() as u64)?;
    Ok(true)
}

/// What follows the last line end between two positions, read backwards in growing steps.
fn last_line(file: &mut File, from: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut step = 8 << 10;
    loop {
        let start = len.saturating_sub(step).max(from);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(len - start).read_to_end(&mut bytes)?;
        if let Some(at) = bytes.iter().rposition(|b| *b == b'\n') {
            return Ok(bytes.split_off(at + 1));
        }
        if start == from {
            return if from == 0 {
                Ok(bytes)
            } else {
                Err(io::Error::other("the last line has no end within 64 MiB; move the file away"))
            };
        }
        step *= 8;
    }
}

fn first_byte(file: &mut File) -> io::Result<Option<u8>> {
    file.seek(SeekFrom::Start(0))?;
    let mut byte = [0u8; 1];
    Ok(if file.read(&mut byte)? == 1 { byte.first().copied() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_sort_in_the_order_of_their_rows() {
        let at = |text| Timestamp::parse(text).unwrap();
        let now = at("2026-01-31T23:59:59Z");
        assert_eq!(next_stamp(None, now), "20260131T235959Z-000");
        assert_eq!(next_stamp(Some("20260131T235958Z-005"), now), "20260131T235959Z-000");
        assert_eq!(next_stamp(Some("20260131T235959Z-005"), now), "20260131T235959Z-006");
        assert_eq!(next_stamp(Some("20260131T235959Z-999"), now), "20260201T000000Z-000");
        assert_eq!(next_stamp(Some("20270101T000000Z-001"), now), "20270101T000000Z-002", "the clock was set back");
    }
}
