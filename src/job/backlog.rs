//! `on_full`, `max_bytes` and `max_age` of an output or an endpoint: what becomes of rows that wait too long for it.
//!
//! In: its section. Out: [`BacklogSettings`]. Invariant: a share is only for whoever may lose the oldest. Not here: the
//! budget of the whole pool (`journal`).

use std::time::Duration;

use super::JournalSection;
use crate::journal::{BacklogLimits, OnFull};
use crate::settings::Section;

/// How an output or an endpoint that is away differs from what `[journal]` says. `None`: it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BacklogSettings {
    pub on_full: Option<OnFull>,
    pub max_bytes: Option<u64>,
    pub max_age: Option<Duration>,
}

pub(super) const ON_FULL: &[(&str, OnFull)] = &[("block", OnFull::Block), ("drop-oldest", OnFull::DropOldest)];

const BYTES_MIN: u64 = 1 << 20;
const BYTES_MAX: u64 = 16 << 40;
const AGE_MIN: Duration = Duration::from_secs(1);
const AGE_MAX: Duration = Duration::from_secs(3_660 * 86_400);

impl BacklogSettings {
    pub(super) fn read(section: &mut Section) -> BacklogSettings {
        let on_full = section.optional_choice("on_full", ON_FULL);
        let help = "it is a part of `max_bytes` in [journal]";
        let max_bytes = section.optional_size("max_bytes", BYTES_MIN, BYTES_MAX, help);
        let max_age = max_age(section);
        if max_bytes.is_some() && on_full != Some(OnFull::DropOldest) && !section.is_wrong("on_full") {
            section.wrong(
                "max_bytes",
                "`max_bytes` here says what may wait before the oldest is dropped",
                "nothing may be dropped unless `on_full` says so",
                "add `on_full = \"drop-oldest\"`, or leave `max_bytes` to [journal]",
            );
        }
        BacklogSettings { on_full, max_bytes, max_age }
    }

    /// With what `[journal]` says for all.
    pub fn within(self, journal: &JournalSection) -> (OnFull, BacklogLimits) {
        let limits = BacklogLimits { max_age: self.max_age.or(journal.max_age), max_bytes: self.max_bytes };
        (self.on_full.unwrap_or(journal.on_full), limits)
    }
}

pub(super) fn max_age(section: &mut Section) -> Option<Duration> {
    section.optional_duration("max_age", AGE_MIN, AGE_MAX, "without it records wait as long as the pool has room")
}
