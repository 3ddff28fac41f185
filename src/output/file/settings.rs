//! The section of a file output.
//!
//! In: `[outputs.NAME]` with `type = "file"`. Out: [`FileOutputConfig`], checked. Invariant: old files are only deleted
//! where files are rotated. Not here: writing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::FileOutput;
use crate::output::{Output, OutputSettings, Site, ToldColumns};
use crate::settings::Section;
use crate::settings::units::show_size;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// When written lines are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before each batch counts as delivered.
    Always,
    /// With the first batch after this time, and at the end; a power failure may cost what came since.
    Interval(Duration),
    /// When the system likes.
    Never,
}

/// A file output, as the job describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct FileOutputConfig {
    pub path: PathBuf,
    /// A batch that would make the file longer starts a new one, bytes.
    pub rotate_bytes: Option<u64>,
    /// A new file for each such interval, aligned to the clock (an hour begins at :00).
    pub rotate_interval: Option<Duration>,
    /// How many rotated files stay; older ones are deleted. `None` keeps all.
    pub keep_files: Option<usize>,
    pub fsync: Fsync,
    pub told: ToldColumns,
}

impl FileOutputConfig {
    /// Without rotation, durable after each batch.
    pub fn new(path: impl Into<PathBuf>) -> FileOutputConfig {
        FileOutputConfig {
            path: path.into(),
            rotate_bytes: None,
            rotate_interval: None,
            keep_files: None,
            fsync: Fsync::Always,
            told: ToldColumns::default(),
        }
    }

    /// Reads and checks the section.
    pub fn read(section: &mut Section) -> Option<FileOutputConfig> {
        let help = "write `path = \"scored.jsonl\"`; the path is relative to the job file";
        let path = section.required_text("path", help).and_then(|_| section.file_to_make("path"));
        let rotate_bytes = section.optional_size("rotate_bytes", KIB, TIB, "without it files grow without end");
        let rotate_interval =
            section.optional_duration("rotate_interval", SECOND, 366 * DAY, "without it files grow without end");
        let keep_files = section.has("keep_files").then(|| section.count("keep_files", 1, 1_000_000, 10));
        if keep_files.is_some() && !section.has("rotate_bytes") && !section.has("rotate_interval") {
            section.wrong(
                "keep_files",
                "`keep_files` without rotation",
                "there is only one file",
                format!("add `rotate_bytes = \"{}\"` or `rotate_interval = \"1d\"`", show_size(64 * MIB)),
            );
        }
        let fsync = fsync(section);
        let told = ToldColumns::read(section);
        let keep_files = keep_files.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        Some(FileOutputConfig {
            rotate_bytes,
            rotate_interval,
            keep_files,
            fsync,
            told,
            ..FileOutputConfig::new(path?)
        })
    }
}

fn fsync(section: &mut Section) -> Fsync {
    let words = [("always", Fsync::Always), ("interval", Fsync::Interval(SECOND)), ("never", Fsync::Never)];
    let fsync = section.choice("fsync", &words, Fsync::Always);
    let is_given = section.has("fsync_interval");
    let interval = section.duration("fsync_interval", Duration::from_millis(1), 3_600 * SECOND, SECOND);
    if let Fsync::Interval(_) = fsync {
        return Fsync::Interval(interval);
    }
    if is_given && !section.is_wrong("fsync") {
        section.wrong(
            "fsync_interval",
            "`fsync_interval` has no use here",
            "only with `fsync = \"interval\"`",
            "write `fsync = \"interval\"`, or leave this out",
        );
    }
    fsync
}

/// Reads the section for the table of outputs.
pub(in crate::output) fn read(section: &mut Section) -> Option<Arc<dyn OutputSettings>> {
    FileOutputConfig::read(section).map(|config| Arc::new(config) as Arc<dyn OutputSettings>)
}

impl OutputSettings for FileOutputConfig {
    fn told(&self) -> &ToldColumns {
        &self.told
    }

    fn exclusive(&self) -> Vec<String> {
        vec![crate::settings::the_file(&self.path)]
    }

    fn build(&self, site: Site<'_>) -> Result<Box<dyn Output>, String> {
        Ok(Box::new(FileOutput::new(self.clone(), site.clock, site.stats)))
    }
}
