//! What a group of a user aggregate is made of.
//!
//! In: rows, and the guest that takes them. Out: the group as a resource of the guest, and its value. Invariant: a
//! group can be made again at any time, from what it was saved as and the rows since; the resource is a convenience.
//! Not here: which rows a group has (`users`), guests (`udf`).

use std::sync::Arc;

use super::state::{put_values, read_values};
use crate::query::builtins::RowError;
use crate::udf::{Live, UserAggregate};
use crate::value::Value;
use crate::value::codec::{ByteReader, Damaged, put_bytes, put_varint};

/// Rows after which a group that can be saved is saved: making it again costs at most as many calls, and saving costs
/// one call in as many.
const SAVE_ROWS: usize = 32;
/// The reason of a row for which there was no memory, which other groups of the instance may have used up.
const NO_MEMORY: &str = "udf_memory";

/// A row as a guest takes it: its event time, then the arguments.
pub(super) type UserRow = Arc<[Value]>;

/// Rows of a group, as the guest holds them.
#[derive(Clone, Debug, Default)]
pub(super) struct GuestRows {
    pub saved: Option<Arc<[u8]>>,
    /// Rows since it was saved, in the order in which they entered.
    pub rows: Vec<UserRow>,
    pub live: Option<Live>,
    /// The guest has taken a row that has not been added yet.
    ahead: bool,
    /// Where saving failed: not again before there is this number of rows.
    save_at: usize,
}

/// Equal when they are made of the same.
impl PartialEq for GuestRows {
    fn eq(&self, other: &GuestRows) -> bool {
        self.saved == other.saved && self.rows == other.rows
    }
}

impl GuestRows {
    /// A group that these rows have entered.
    pub(super) fn of(rows: &[UserRow]) -> GuestRows {
        GuestRows { rows: rows.to_vec(), ..GuestRows::default() }
    }

    /// The group as a resource; made again when it lives no more.
    pub(super) fn live(&mut self, guest: &mut dyn UserAggregate) -> Result<Live, RowError> {
        self.undo();
        let live = self.found_or_made(guest)?;
        self.live = Some(live.clone());
        Ok(live)
    }

    fn found_or_made(&self, guest: &mut dyn UserAggregate) -> Result<Live, RowError> {
        match &self.live {
            Some(live) if guest.is_live(live) => Ok(live.clone()),
            // the first failure may be that of an instance which others had used up
            _ => self.made(guest).or_else(|_| self.made(guest)),
        }
    }

    fn made(&self, guest: &mut dyn UserAggregate) -> Result<Live, RowError> {
        let live = guest.begin(self.saved.as_deref())?;
        guest.repeat(&live, &mut self.rows.iter().map(AsRef::as_ref))?;
        Ok(live)
    }

    /// Lets the guest take a row. It is added by [`GuestRows::add`], or taken back by [`GuestRows::undo`].
    pub(super) fn enter(&mut self, guest: &mut dyn UserAggregate, row: &[Value]) -> Result<(), RowError> {
        let entered = with_memory(guest, |guest| self.live(guest).and_then(|live| guest.accumulate(&live, row)));
        self.ahead = entered.is_ok();
        if entered.is_err() {
            self.live = None;
        }
        entered
    }

    pub(super) fn undo(&mut self) {
        if std::mem::take(&mut self.ahead) {
            self.live = None;
        }
    }

    /// A row is part of the group from now on.
    pub(super) fn add(&mut self, row: &[Value]) {
        self.push(row.into());
    }

    pub(super) fn push(&mut self, row: UserRow) {
        if !std::mem::take(&mut self.ahead) {
            self.live = None;
        }
        self.rows.push(row);
    }

    /// Appends the rows of a later share.
    pub(super) fn append(&mut self, later: &GuestRows) {
        self.live = None;
        self.rows.extend(later.rows.iter().cloned());
        // rows cannot be had of it any more: `Users::value` says so
        self.saved = self.saved.take().or_else(|| later.saved.clone());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.saved.is_none() && self.rows.is_empty()
    }

    /// Lets rows up to `time` go: one by one where that is less work than making the group again.
    pub(super) fn expire(&mut self, guest: &mut dyn UserAggregate, can_leave: bool, time: i64) {
        let gone = self.rows.iter().take_while(|row| time_of(row) <= time).count();
        if gone == 0 {
            return;
        }
        self.undo();
        let left = self.rows.len() - gone;
        let live = self.live.take().filter(|live| can_leave && gone <= left && guest.is_live(live));
        let leaving = self.rows.drain(..gone);
        // a guest that cannot let them go is made again without them
        self.live = live.filter(|live| leaving.into_iter().all(|row| guest.deaccumulate(live, &row).is_ok()));
    }

    /// Puts what was saved in place of the rows, when there are enough of them.
    pub(super) fn save(&mut self, guest: &mut dyn UserAggregate) {
        if self.rows.len() < SAVE_ROWS.max(self.save_at) {
            return;
        }
        let Some(live) = self.live.as_ref().filter(|live| guest.is_live(live)) else { return };
        match guest.save(live) {
            Ok(bytes) => {
                self.saved = Some(bytes.into());
                self.rows.clear();
                self.save_at = 0;
            }
            Err(error) => {
                tracing::debug!("a group keeps its rows: {}", error.message);
                self.live = None;
                self.save_at = self.rows.len().saturating_mul(2);
            }
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.saved.is_some()));
        if let Some(saved) = &self.saved {
            put_bytes(out, saved);
        }
        put_varint(out, self.rows.len() as u64);
        self.rows.iter().for_each(|row| put_values(out, row));
    }

    pub(super) fn read(reader: &mut ByteReader<'_>) -> Result<GuestRows, Damaged> {
        let saved = if reader.byte()? == 0 { None } else { Some(reader.bytes()?.into()) };
        let n = reader.length()?;
        let rows = (0..n).map(|_| read_values(reader).map(UserRow::from)).collect::<Result<_, _>>()?;
        Ok(GuestRows { saved, rows, ..GuestRows::default() })
    }

    pub(super) fn bytes(&self) -> usize {
        let row = |row: &UserRow| 32 + row.iter().map(|v| 24 + v.heap_bytes()).sum::<usize>();
        size_of::<GuestRows>() + self.saved.as_ref().map_or(0, |s| s.len()) + self.rows.iter().map(row).sum::<usize>()
    }
}

/// Does something again when there was no memory for it: the instance is gone, and with it what others had used up.
/// Also when the version that did it is on trial and may be put back for it.
pub(super) fn with_memory<T>(
    guest: &mut dyn UserAggregate,
    mut act: impl FnMut(&mut dyn UserAggregate) -> Result<T, RowError>,
) -> Result<T, RowError> {
    let mut outcome = act(guest);
    while outcome.is_err() && guest.take_again() {
        outcome = act(guest);
    }
    match outcome {
        Err(error) if error.reason == NO_MEMORY => act(guest),
        outcome => outcome,
    }
}

pub(super) fn time_of(row: &UserRow) -> i64 {
    match row.first() {
        Some(Value::DateTime(time)) => time.ticks(),
        _ => i64::MIN,
    }
}

/// The value of a group whose rows lie in shares, in time order.
pub(super) fn value_of(shares: &[GuestRows], guest: &mut dyn UserAggregate) -> Result<Value, RowError> {
    let live = match shares {
        [one] => one.found_or_made(guest)?,
        many => merged(many, guest).or_else(|_| merged(many, guest))?,
    };
    guest.compute(&live)
}

fn merged(shares: &[GuestRows], guest: &mut dyn UserAggregate) -> Result<Live, RowError> {
    let whole = guest.begin(None)?;
    for share in shares {
        let part = share.found_or_made(guest)?;
        guest.merge(&whole, &part)?;
    }
    Ok(whole)
}
