//! How fast the pool fills when nobody reads, and how long its room lasts.
//!
//! In: the size of each record as it is stored, and what records take in the file once they are merged and compressed.
//! Out: [`GrowthStatus`], and from it a [`Left`]. Invariant: every record counts, also one that was read before it got
//! into the file: it would be there if its reader were away. Not here: when the pool is full (`budget`), state and dead
//! letters, which have bounds of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::pace::{ByteWindow, DAY_PIECE};
use super::paths::folder;
use super::schema::PAGE_BYTES;

/// Where the writer keeps a [`GrowthStatus`] in `meta`, as JSON.
const META: &str = "growth";

/// The present pace is that of 96 pieces: 16 minutes.
const RECENT_PIECE: Duration = Duration::from_secs(10);
/// With records in fewer pieces than this the last day tells more: a short burst is no pace, and a record an hour none
/// either.
const RECENT_PIECES_MIN: usize = 8;
/// A start knows no pace before this.
const SHORTEST: Duration = Duration::from_secs(10);
/// A stream in which nothing came for as many of them, a day, has no pace.
const DAY_PIECES: u64 = 86_400 / DAY_PIECE.as_secs();
/// What was learned of a stream's compression is halved beyond this number of raw bytes, so that what comes now counts.
const LEARNED_BYTES: u64 = 256 << 10;

/// How large records are as they come, and how much of the file they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    pub raw: u64,
    pub stored: u64,
}

impl Sizes {
    /// Of a segment: `data` bytes after compression.
    pub(super) fn of(raw: u64, data: u64) -> Sizes {
        Sizes { raw, stored: bytes_in_file(data) }
    }

    pub(super) fn add(&mut self, other: Sizes) {
        self.raw += other.raw;
        self.stored += other.stored;
    }

    /// What this number of raw bytes takes in the file.
    fn scale(self, raw: u64) -> u64 {
        if self.raw == 0 { raw } else { (raw as f64 * self.stored as f64 / self.raw as f64) as u64 }
    }
}

/// What a segment takes in the file: as many as fit share a page, and a large one has pages of its own behind it. The
/// numbers are those of SQLite's file format (cells of a table's leaf, overflow pages).
fn bytes_in_file(data: u64) -> u64 {
    /// The other columns of the row with its own header, and its entry in the index.
    const HEAD: u64 = 36;
    const INDEX: u64 = 13;
    const CELL_MAX: u64 = PAGE_BYTES - 35;
    const CELL_MIN: u64 = (PAGE_BYTES - 12) * 32 / 255 - 23;
    const OVERFLOW: u64 = PAGE_BYTES - 4;
    let row = data + HEAD;
    let cell = match row {
        0..=CELL_MAX => row,
        _ => Some(CELL_MIN + (row - CELL_MIN) % OVERFLOW).filter(|cell| *cell <= CELL_MAX).unwrap_or(CELL_MIN),
    };
    let share = PAGE_BYTES / (PAGE_BYTES / cell).max(1);
    INDEX + share + (row - cell).div_ceil(OVERFLOW) * PAGE_BYTES
}

/// How fast a stream grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamGrowth {
    pub stream: u32,
    /// Bytes of the file a day, at the present pace, if nobody read.
    pub a_day: u64,
    /// Of a sample of its newest records, after compression.
    pub sizes: Sizes,
}

/// How fast the pool would fill if nobody read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrowthStatus {
    pub streams: Vec<StreamGrowth>,
}

impl GrowthStatus {
    /// Bytes of the file a day, over all streams.
    pub fn a_day(&self) -> u64 {
        self.streams.iter().map(|stream| stream.a_day).sum()
    }

    /// As the last checkpoint left it.
    pub(super) fn read(db: &Connection) -> rusqlite::Result<GrowthStatus> {
        let stored: Option<Vec<u8>> =
            db.query_row("SELECT value FROM meta WHERE key = ?1", [META], |row| row.get(0)).optional()?;
        // what another version wrote is of no use, and no reason to fail
        Ok(stored.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default())
    }

    pub(super) fn save(&self, db: &Connection) -> rusqlite::Result<()> {
        let json = serde_json::to_vec(self).unwrap_or_default();
        db.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?.execute(params![META, json])?;
        Ok(())
    }
}

/// Counts what comes.
#[derive(Debug)]
pub(super) struct Growth {
    start: Instant,
    streams: BTreeMap<u32, Stream>,
    /// Of the run before: counts for each stream until something comes in it.
    before: GrowthStatus,
}

#[derive(Debug)]
struct Stream {
    /// Raw bytes.
    recent: ByteWindow,
    day: ByteWindow,
    learned: Sizes,
    /// Bytes of the file that it would have taken since the start, unmerged; 0 until something comes.
    taken: u64,
    /// As single commits left them: counts until something was learned.
    unmerged: Sizes,
}

impl Growth {
    pub fn new(before: GrowthStatus, now: Instant) -> Growth {
        Growth { start: now, streams: BTreeMap::new(), before }
    }

    fn stream(&mut self, id: u32) -> &mut Stream {
        let (start, before) = (self.start, &self.before);
        self.streams.entry(id).or_insert_with(|| Stream {
            recent: ByteWindow::new(RECENT_PIECE, start),
            day: ByteWindow::new(DAY_PIECE, start),
            learned: before.streams.iter().find(|s| s.stream == id).map_or(Sizes::default(), |s| s.sizes),
            taken: 0,
            unmerged: Sizes::default(),
        })
    }

    /// A segment was committed.
    pub fn came(&mut self, stream: u32, sizes: Sizes, now: Instant) {
        let stream = self.stream(stream);
        stream.recent.add(sizes.raw, now);
        stream.day.add(sizes.raw, now);
        stream.taken += sizes.stored;
        stream.unmerged.add(sizes);
        halve(&mut stream.unmerged);
    }

    /// More than what a stream has taken of the file since the start.
    pub fn taken(&self, stream: u32) -> u64 {
        self.streams.get(&stream).map_or(0, |stream| stream.taken)
    }

    /// Segments of a stream were merged and compressed as they lie in the file.
    pub fn learn(&mut self, stream: u32, sizes: Sizes) {
        if sizes.raw > 0 {
            let learned = &mut self.stream(stream).learned;
            learned.add(sizes);
            halve(learned);
        }
    }

    pub fn told(&self, now: Instant) -> GrowthStatus {
        let rate = |stream: &Stream| match stream.recent.pieces_with_bytes(now) {
            RECENT_PIECES_MIN.. => stream.recent.a_day_from(SHORTEST, now),
            _ => stream.day.a_day_from(SHORTEST, now),
        };
        let of = |id: u32, stream: &Stream| {
            let sizes = if stream.learned.raw > 0 { stream.learned } else { stream.unmerged };
            StreamGrowth { stream: id, a_day: sizes.scale(rate(stream)), sizes }
        };
        let came = || self.streams.iter().filter(|(_, stream)| stream.taken > 0);
        let not_yet = self.before.streams.iter().filter(|before| came().all(|(id, _)| *id != before.stream));
        // what would be left of its last day
        let over = now.saturating_duration_since(self.start).as_secs() / DAY_PIECE.as_secs();
        let left = DAY_PIECES.saturating_sub(over);
        let fading = |before: &StreamGrowth| {
            let a_day = u128::from(before.a_day) * u128::from(left) / u128::from(DAY_PIECES);
            StreamGrowth { a_day: a_day as u64, ..*before }
        };
        let mut streams: Vec<StreamGrowth> =
            came().map(|(id, stream)| of(*id, stream)).chain(not_yet.map(fading)).collect();
        streams.sort_unstable_by_key(|stream| stream.stream);
        GrowthStatus { streams }
    }
}

fn halve(sizes: &mut Sizes) {
    while sizes.raw > LEARNED_BYTES {
        (sizes.raw, sizes.stored) = (sizes.raw / 2, sizes.stored / 2);
    }
}

/// What ends the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RoomBound {
    /// `max_bytes` under `[journal]`.
    MaxBytes,
    Disk,
}

/// What the pool may still take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PoolRoom {
    pub bytes: u64,
    pub bound: RoomBound,
}

impl PoolRoom {
    /// `used`: bytes of the budget; `free`: bytes of the file that hold nothing.
    pub fn of(path: &Path, max_bytes: u64, used: u64, free: u64) -> PoolRoom {
        let budget = PoolRoom { bytes: max_bytes.saturating_sub(used), bound: RoomBound::MaxBytes };
        match disk_free(path).map(|bytes| PoolRoom { bytes: bytes.saturating_add(free), bound: RoomBound::Disk }) {
            Some(disk) if disk.bytes < budget.bytes => disk,
            _ => budget,
        }
    }
}

/// Bytes of the file system of this file that we may use; `None` where it does not tell.
pub(super) fn disk_free(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder(path)).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// How long the room lasts if nobody reads. Its text says so in one clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    pub seconds: u64,
    /// Bytes of the file a day.
    pub a_day: u64,
    pub room: PoolRoom,
}

impl Left {
    /// `None`: nothing comes, so there is no end.
    pub fn of(room: PoolRoom, a_day: u64) -> Option<Left> {
        let seconds = (u128::from(room.bytes) * 86_400).checked_div(u128::from(a_day))?;
        Some(Left { seconds: u64::try_from(seconds).unwrap_or(u64::MAX), a_day, room })
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.room.bound {
            RoomBound::MaxBytes => "max_bytes",
            RoomBound::Disk => "the disk",
        };
        let (time, each, room) = (lasting(self.seconds), size(self.a_day / 24), size(self.room.bytes));
        write!(f, "{time} at {each} an hour into the {room} that are left of {of}")
    }
}

/// `45 minutes`, `31 hours`, `12 days`.
pub fn lasting(seconds: u64) -> String {
    const HOUR: u64 = 3_600;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0..60 => "less than a minute".to_owned(),
        60..7_200 => format!("about {} minutes", seconds / 60),
        7_200..259_200 => format!("about {} hours", seconds / HOUR),
        259_200..315_360_000 => format!("about {} days", seconds / DAY),
        _ => "more than 10 years".to_owned(),
    }
}

/// With the unit that gives four or five digits: `8192 B`, `369.9 KB`.
pub fn size(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{:.1} KB", n as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        10_000_000_000..10_000_000_000_000 => format!("{:.1} GB", n as f64 / 1e9),
        _ => format!("{:.1} TB", n as f64 / 1e12),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    /// 60 events of 150 bytes that take 4,096 bytes of the file.
    const MINUTE: Sizes = Sizes { raw: 9_000, stored: 4_096 };

    fn grown() -> (Growth, Instant) {
        let start = Clock::Real.monotonic();
        let mut growth = Growth::new(GrowthStatus::default(), start);
        growth.learn(0, MINUTE);
        (growth, start)
    }

    #[test]
    fn a_trickle_and_a_steady_stream_have_the_pace_that_they_have() {
        for (pause, bytes) in [(SECOND, 150), (300 * SECOND, 150), (SECOND, 3_000_000)] {
            let (mut growth, start) = grown();
            let a_day = (86_400.0 * bytes as f64 / pause.as_secs_f64() * 4_096.0 / 9_000.0) as u64;
            let mut now = start;
            while now < start + 20_000 * SECOND {
                growth.came(0, Sizes { raw: bytes, stored: bytes }, now);
                now += pause;
                if now > start + 3_000 * SECOND {
                    let told = growth.told(now).a_day();
                    assert!(told.abs_diff(a_day) < a_day / 10, "{told} instead of {a_day} a day, every {pause:?}");
                }
            }
        }
    }

    #[test]
    fn a_segment_takes_as_much_of_the_file_as_is_told() {
        use crate::journal::segment::{Draft, Sealer, SegmentKind};
        let dir = tempfile::TempDir::new().unwrap();
        let db = crate::journal::schema::open_writer(&dir.path().join("job.db"), 1 << 30).unwrap();
        let pages = || db.query_row("PRAGMA page_count", [], |row| row.get::<_, u32>(0).map(u64::from)).unwrap();
        let mut first = 0;
        for (data, n) in [(60, 20_000), (700, 3_000), (2_100, 1_000), (3_000, 1_000), (4_100, 1_000), (70_000, 100)] {
            let before = pages();
            db.execute_batch("BEGIN").unwrap();
            for _ in 0..n {
                let draft = Draft {
                    stream: 0,
                    first,
                    input: 1,
                    count: 1,
                    arrival: 1 << 59,
                    raw: b"{}",
                    kind: SegmentKind::Events,
                };
                let mut sealed = Sealer::new().seal(draft);
                sealed.data = vec![7; data];
                crate::journal::checkpoint::insert_segment(&db, &sealed).unwrap();
                first += 1;
            }
            db.execute_batch("COMMIT").unwrap();
            let (took, told) = ((pages() - before) * PAGE_BYTES / n, bytes_in_file(data as u64));
            assert!(took.abs_diff(told) * 20 <= took, "{data} bytes took {took} and not {told}");
        }
    }

    #[test]
    fn a_burst_after_a_quiet_day_is_no_pace_and_a_lasting_change_is() {
        let (mut growth, start) = grown();
        let at = |s: u64| start + SECOND * s as u32;
        (0..86_400).step_by(10).for_each(|s| growth.came(0, Sizes { raw: 1_000, stored: 1_000 }, at(s)));
        let quiet = growth.told(at(86_400)).a_day();
        growth.came(1, Sizes { raw: 50_000_000, stored: 50_000_000 }, at(86_400));
        let burst = growth.told(at(86_401)).streams[1].a_day;
        assert!(burst <= 50_000_000, "a burst is told over the day: {burst}");
        (86_400..88_000).for_each(|s| growth.came(0, Sizes { raw: 10_000, stored: 10_000 }, at(s)));
        let busy = growth.told(at(88_000)).streams[0].a_day;
        assert!(busy > 80 * quiet, "{busy} after {quiet}");
    }

    #[test]
    fn a_new_run_goes_on_with_what_was_known() {
        let (mut growth, start) = grown();
        growth.came(0, MINUTE, start);
        let before = growth.told(start + 60 * SECOND);
        let mut again = Growth::new(before.clone(), start);
        assert_eq!(again.told(start), before, "until something comes");
        again.came(0, Sizes { raw: 9_000, stored: 9_000 }, start);
        assert_eq!(again.told(start + 60 * SECOND), before, "compression is not learned anew");
    }

    #[test]
    fn what_was_known_of_a_stream_counts_until_it_comes_or_a_day_is_over() {
        let known = |stream, a_day| StreamGrowth { stream, a_day, sizes: MINUTE };
        let before = GrowthStatus { streams: vec![known(0, 80_000_000), known(1, 4_000_000)] };
        let (_, start) = grown();
        let mut growth = Growth::new(before.clone(), start);
        // what the run before left in the log is merged
        growth.learn(0, MINUTE);
        assert_eq!(growth.told(start).a_day(), before.a_day());
        growth.came(1, Sizes { raw: 10, stored: 10 }, start);
        let told = |growth: &Growth, hours| growth.told(start + 3_600 * SECOND * hours);
        let first = growth.told(start + SECOND);
        assert_eq!(first.streams[0], before.streams[0]);
        assert!(first.streams[1].a_day < 1_000_000, "{first:?}");
        assert_eq!(told(&growth, 12).streams[0], known(0, 40_000_000), "half of its last day was quiet");
        assert_eq!(told(&growth, 24).streams[0].a_day, 0, "it may be gone");
        growth.came(0, MINUTE, start + 3_600 * SECOND);
        assert!(told(&growth, 2).streams[0].a_day < 1_000_000);
    }

    #[test]
    fn the_smaller_room_counts_and_its_time_is_told() {
        let here = std::env::current_dir().unwrap().join("pool.db");
        let room = PoolRoom::of(&here, 1 << 20, 1 << 19, 0);
        assert_eq!(room, PoolRoom { bytes: 1 << 19, bound: RoomBound::MaxBytes });
        assert_eq!(PoolRoom::of(&here, u64::MAX, 0, 0).bound, RoomBound::Disk);
        assert_eq!(Left::of(room, 0), None);
        let left = Left::of(PoolRoom { bytes: 10_000_000, bound: RoomBound::Disk }, 24_000_000).unwrap();
        assert_eq!(left.seconds, 36_000);
        assert_eq!(left.to_string(), "about 10 hours at 1000.0 KB an hour into the 10.0 MB that are left of the disk");
        let times: Vec<String> = [59, 7_199, 7_200, 259_199, 259_200, u64::MAX].map(lasting).into();
        assert_eq!(
            times,
            [
                "less than a minute",
                "about 119 minutes",
                "about 2 hours",
                "about 71 hours",
                "about 3 days",
                "more than 10 years"
            ]
        );
    }
}
