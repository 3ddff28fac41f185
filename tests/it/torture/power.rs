//! What a power cut leaves of a disk, from the trace of what was done to it.
//!
//! In: calls, in their order. Out: after each of them, what the disk may hold when the power fails there. The model is
//! what POSIX promises and no more, so that it covers ext4 with `data=ordered`, XFS, btrfs and F2FS alike:
//!
//! - What a sync of a file covered is there: its bytes and its length.
//! - Of what was written since, any part may be there: each sector of 512 bytes by itself, and in any order. The length
//!   is one that the file had. Where it is longer than what reached the disk, there are zeros: no file system of today
//!   shows the old content of a block to the file that it was given to.
//! - What a failed sync covered may be lost also where a later sync succeeds: Linux marks such pages as clean.
//! - A name that was made, changed or removed is sure once the folder is synced. Until then names are as they were
//!   after some earlier one of these changes: file systems keep their order, since they go through one journal. (ext4
//!   also makes the name of a file sure that is synced. That is not relied on.)

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::disk::{Call, SyncEnd};

const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Arc<[u8]>),
    Length(u64),
}

#[derive(Clone, Debug)]
struct Unsynced {
    change: Change,
    /// A sync covers it: it stands here since something before it is not sure.
    is_sure: bool,
    /// A sync that failed covered it: no later one makes it sure.
    is_left: bool,
    /// A sync covered it that was none.
    is_lied: bool,
}

/// A file, by whatever name.
#[derive(Clone, Debug, Default)]
struct Body {
    /// What is sure.
    synced: Vec<u8>,
    /// In order.
    since: Vec<Unsynced>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Is(String, usize),
    Gone(String),
}

/// A disk with one folder.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    bodies: Vec<Body>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    open: HashMap<i32, usize>,
}

/// Which of what is not sure is there after the power cut.
#[derive(Clone, Copy, Debug)]
pub enum Survives {
    Nothing,
    Everything,
    /// Each sector, and each other change, by this chance in 256.
    Sectors(u8),
    /// Each write as a whole, by this chance in 256.
    Writes(u8),
    /// Everything but what a sync covered that was none.
    AllButLies,
}

impl Survives {
    pub fn draw(rng: &mut fastrand::Rng) -> Survives {
        match rng.u8(0..8) {
            0 => Survives::Nothing,
            1 => Survives::Everything,
            2..5 => Survives::Writes(rng.u8(10..246)),
            _ => Survives::Sectors(rng.u8(10..246)),
        }
    }

    fn whole(self, rng: &mut fastrand::Rng) -> bool {
        match self {
            Survives::Nothing => false,
            Survives::Everything | Survives::AllButLies => true,
            Survives::Sectors(chance) | Survives::Writes(chance) => rng.u8(..) < chance,
        }
    }
}

impl Disk {
    /// What lies in a folder, all of it sure.
    pub fn of(folder: &Path) -> Disk {
        let mut disk = Disk::default();
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            disk.synced_names.insert(name, disk.bodies.len());
            disk.bodies.push(Body { synced: fs::read(&path).expect("a file"), since: Vec::new() });
        }
        disk.names = disk.synced_names.clone();
        disk
    }

    pub fn apply(&mut self, call: &Call) {
        match call {
            Call::Begin => self.open.clear(),
            Call::Open { fd, name, is_created, is_emptied } => {
                if *is_created || !self.names.contains_key(name) {
                    self.name_changed(NameChange::Is(name.clone(), self.bodies.len()));
                    self.bodies.push(Body::default());
                }
                let body = self.names[name];
                self.open.insert(*fd, body);
                if *is_emptied {
                    self.bodies[body].changed(Change::Length(0));
                }
            }
            Call::Write { fd, offset, bytes } => self.body(*fd).changed(Change::Write(*offset, bytes.clone())),
            Call::Length { fd, length } => self.body(*fd).changed(Change::Length(*length)),
            Call::Rename { from, to } => {
                if let Some(body) = self.names.get(from).copied() {
                    self.name_changed(NameChange::Is(to.clone(), body));
                    self.name_changed(NameChange::Gone(from.clone()));
                }
            }
            Call::Unlink { name } => self.name_changed(NameChange::Gone(name.clone())),
            Call::Sync { fd: Some(fd), end } => self.body(*fd).synced(*end),
            Call::Sync { fd: None, end: SyncEnd::Done } => {
                for change in std::mem::take(&mut self.name_changes) {
                    change.apply(&mut self.synced_names);
                }
            }
            Call::Close { fd } => drop(self.open.remove(fd)),
            Call::Sync { fd: None, .. } | Call::Note(_) | Call::Failed => {}
        }
    }

    fn body(&mut self, fd: i32) -> &mut Body {
        let body = self.open.get(&fd).unwrap_or_else(|| panic!("descriptor {fd} is not open"));
        &mut self.bodies[*body]
    }

    fn name_changed(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.name_changes.push(change);
    }

    /// Writes what is there after a power cut into an empty folder.
    pub fn image(&self, into: &Path, survives: Survives, rng: &mut fastrand::Rng) {
        let mut names = self.synced_names.clone();
        let changes = match survives {
            Survives::Nothing => 0,
            Survives::Everything | Survives::AllButLies => self.name_changes.len(),
            _ => rng.usize(0..=self.name_changes.len()),
        };
        self.name_changes.iter().take(changes).cloned().for_each(|change| change.apply(&mut names));
        for (name, body) in names {
            fs::write(into.join(name), self.bodies[body].left(survives, rng)).expect("a file of an image");
        }
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Is(name, body) => drop(names.insert(name, body)),
            NameChange::Gone(name) => drop(names.remove(&name)),
        }
    }
}

impl Body {
    fn changed(&mut self, change: Change) {
        self.since.push(Unsynced { change, is_sure: false, is_left: false, is_lied: false });
    }

    fn synced(&mut self, end: SyncEnd) {
        match end {
            SyncEnd::Lied => {
                self.since.iter_mut().for_each(|one| one.is_lied = true);
                return;
            }
            SyncEnd::Failed => self.since.iter_mut().filter(|one| !one.is_sure).for_each(|one| one.is_left = true),
            SyncEnd::Done => self.since.iter_mut().for_each(|one| one.is_sure = !one.is_left),
        }
        let sure = self.since.iter().take_while(|one| one.is_sure).count();
        for one in self.since.drain(..sure) {
            one.change.apply(&mut self.synced);
        }
    }

    fn left(&self, survives: Survives, rng: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for Unsynced { change, is_sure, is_lied, .. } in &self.since {
            match (change, survives) {
                _ if *is_sure => change.apply(&mut bytes),
                (_, Survives::AllButLies) if *is_lied => {}
                (Change::Write(offset, written), Survives::Sectors(chance)) => {
                    tear(&mut bytes, *offset as usize, written, chance, rng);
                }
                _ if survives.whole(rng) => change.apply(&mut bytes),
                (Change::Write(offset, written), _) if survives.whole(rng) => {
                    // the length alone
                    let end = *offset as usize + written.len();
                    bytes.resize(bytes.len().max(end), 0);
                }
                _ => {}
            }
        }
        bytes
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Length(length) => bytes.resize(*length as usize, 0),
            Change::Write(offset, written) => {
                let (from, to) = (*offset as usize, *offset as usize + written.len());
                bytes.resize(bytes.len().max(to), 0);
                bytes[from..to].copy_from_slice(written);
            }
        }
    }
}

/// Writes some sectors of a write.
fn tear(bytes: &mut Vec<u8>, offset: usize, written: &[u8], chance: u8, rng: &mut fastrand::Rng) {
    let mut from = offset;
    while from < offset + written.len() {
        let to = ((from / SECTOR + 1) * SECTOR).min(offset + written.len());
        if rng.u8(..) < chance {
            bytes.resize(bytes.len().max(to), 0);
            bytes[from..to].copy_from_slice(&written[from - offset..to - offset]);
        }
        from = to;
    }
}
