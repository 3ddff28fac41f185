//! `[journal]`: the durable pool.
//!
//! In: the section, if there is one. Out: [`JournalSection`], with the journal's own defaults. Invariant: dead letters
//! never take most of the pool. Not here: what only the program knows, such as the clock.

use std::time::Duration;

use super::backlog;
use crate::journal::{JournalConfig, OnDamage, OnFull};
use crate::settings::{Problems, Section, units};

const MB: u64 = 1_000_000;
const GB: u64 = 1_000 * MB;
const TB: u64 = 1_000 * GB;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// More than any disk takes in its life.
const ENDURANCE_MAX: u64 = 1_048_576 * 1024 * GIB;
const DAY: Duration = Duration::from_secs(86_400);

/// Below this the write-ahead log and the reserve leave no room for segments.
const BYTES_MIN: u64 = 16 * MIB;

/// Time to drive to a gateway.
const WARN_BELOW: Duration = DAY;

/// What the job says of its pool.
#[derive(Clone, Debug)]
pub struct JournalSection {
    /// The path is by default `<job name>.db` beside the job file.
    pub config: JournalConfig,
    /// What gives way when the budget is reached.
    pub on_full: OnFull,
    /// How long a record waits for its readers at most.
    pub max_age: Option<Duration>,
    /// Whoever looks is told once the room lasts for less, if nobody reads.
    pub warn_below: Option<Duration>,
    /// Bytes that the card or disk can take in its life.
    pub card_endurance: Option<u64>,
}

/// `section`: `None` when the file has none, or a bad one.
pub(super) fn read(section: Option<Section>, job: &str, problems: &Problems) -> JournalSection {
    let base = JournalConfig::new(problems.folder().join(format!("{job}.db")));
    let Some(mut section) = section else {
        let warn_below = Some(WARN_BELOW);
        return JournalSection {
            config: base,
            on_full: OnFull::default(),
            max_age: None,
            warn_below,
            card_endurance: None,
        };
    };
    let path = section.path("path").unwrap_or_else(|| base.path.clone());
    if problems.looks_at_files() && path.is_dir() && section.has("path") {
        let label = format!("{} is a folder", path.display());
        section.wrong("path", "`path` names no file", label, "name a file in it");
    }
    let max_bytes = section.size("max_bytes", BYTES_MIN, 16 * 1024 * GIB, base.max_bytes);
    let on_full = section.choice("on_full", backlog::ON_FULL, OnFull::default());
    let max_age = backlog::max_age(&mut section);
    let retention = section.duration("retention", Duration::ZERO, 3_660 * DAY, base.retention.unwrap_or_default());
    // a small pool gets a small share for dead letters unless the file says otherwise
    let share = base.dead_letters_max_bytes.min(max_bytes / 4);
    let dead_letters_max_bytes = section.size("dead_letters_max_bytes", MIB, 16 * 1024 * GIB, share);
    if dead_letters_max_bytes > max_bytes / 2 && !section.is_wrong("max_bytes") {
        let help = "raise `max_bytes`, or lower this";
        section.wrong(
            "dead_letters_max_bytes",
            "dead letters would take most of the journal",
            "expected at most half of `max_bytes`",
            help,
        );
    }
    let warn_below = section.duration("warn_below", Duration::ZERO, 3_660 * DAY, WARN_BELOW);
    let second = Duration::from_secs(1);
    let commit_interval = section.duration("commit_interval", second / 1_000, 10 * second, base.commit_interval);
    let records = section.count("commit_records", 1, 100_000, base.commit_records as u64);
    let write_budget = write_budget(&mut section, base.write_budget);
    let on_damage = [("stop", OnDamage::Stop), ("fresh", OnDamage::Fresh)];
    let on_damage = section.choice("on_damage", &on_damage, base.on_damage);
    let help = "take it from the data sheet (TBW), or leave the key out";
    let card_endurance = section.optional_size("card_endurance", GB, ENDURANCE_MAX, help);
    section.finish();
    let config = JournalConfig {
        path,
        max_bytes,
        retention: Some(retention).filter(|retention| !retention.is_zero()),
        dead_letters_max_bytes,
        commit_interval,
        write_budget,
        commit_records: usize::try_from(records).unwrap_or(usize::MAX),
        on_damage,
        ..base
    };
    let warn_below = Some(warn_below).filter(|warn_below| !warn_below.is_zero());
    JournalSection { config, on_full, max_age, warn_below, card_endurance }
}

/// Bytes a day; `None` for `"none"`.
fn write_budget(section: &mut Section, default: Option<u64>) -> Option<u64> {
    let Some(text) = section.text("write_budget") else { return default };
    if text.value.eq_ignore_ascii_case("none") {
        return None;
    }
    let bytes = text.value.strip_suffix("/day").and_then(|size| units::size(size.trim_end()));
    let fits = bytes.filter(|bytes| (MB..=1_000 * TB).contains(bytes));
    if fits.is_none() {
        section.wrong(
            "write_budget",
            "`write_budget` cannot be used",
            "expected a size a day from \"1MB/day\" to \"1000TB/day\", or \"none\"",
            "write it like `write_budget = \"10GB/day\"`, which is the default",
        );
    }
    fits.or(default)
}
