//! The pages of a pool's file, read without SQLite.
//!
//! In: the file, and the write-ahead log beside it. Out: a page by its number, as of the last commit in both; which
//! pages hold nothing. Invariant: nothing is written, and a page that the disk does not give is no error: it is not
//! there. Not here: what lies on a page (`cells`).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::journal::schema::{PAGE_BYTES, wal_path};

/// How a file of SQLite begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Of the header of a page in the write-ahead log, and of that log.
const FRAME_HEAD: usize = 24;
const WAL_HEAD: usize = 32;

pub(super) type Page = Box<[u8; PAGE_BYTES as usize]>;

#[derive(Debug)]
pub(super) struct Pages {
    file: Option<File>,
    wal: Option<File>,
    /// Where the newest version of a page lies in the log.
    in_wal: HashMap<u32, u64>,
    count: u32,
}

impl Pages {
    /// A file that is gone has no pages.
    pub fn open(path: &Path) -> io::Result<Pages> {
        let file = or_none(File::open(path))?;
        let wal = or_none(File::open(wal_path(path)))?;
        let bytes = file.as_ref().map_or(Ok(0), |file| file.metadata().map(|data| data.len()))?;
        let count = u32::try_from(bytes.div_ceil(PAGE_BYTES)).unwrap_or(u32::MAX);
        let mut pages = Pages { file, wal, in_wal: HashMap::new(), count };
        pages.read_log();
        Ok(pages)
    }

    /// They are numbered from 1 to this.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// `None`: it is not there, or the disk does not give it.
    pub fn page(&self, number: u32) -> Option<Page> {
        let mut page = Box::new([0; PAGE_BYTES as usize]);
        if number == 0 || number > self.count {
            return None;
        }
        let read = match self.in_wal.get(&number) {
            Some(at) => self.wal.as_ref()?.read_exact_at(page.as_mut_slice(), *at),
            None => self.file.as_ref()?.read_exact_at(page.as_mut_slice(), u64::from(number - 1) * PAGE_BYTES),
        };
        read.is_ok().then_some(page)
    }

    /// The first one, if it is that of a file with pages of our size.
    pub fn first(&self) -> Option<Page> {
        self.page(1)
            .filter(|page| page.starts_with(MAGIC) && number(from(page.as_slice(), 16)) >> 16 == PAGE_BYTES as u32)
    }

    /// What the first page says of program and version of the tables.
    pub fn form(&self) -> Option<(i64, i64)> {
        let first = self.first()?;
        let at = |place| i64::from(number(from(first.as_slice(), place)));
        Some((at(68), at(60)))
    }

    /// The pages that hold nothing, though something old may lie there; `None` where nobody can tell.
    pub fn free(&self) -> Option<HashSet<u32>> {
        let first = self.first()?;
        let (mut trunk, count) = (number(from(first.as_slice(), 32)), number(from(first.as_slice(), 36)));
        let mut free = HashSet::new();
        while trunk != 0 {
            let page = self.page(trunk)?;
            let leaves = number(from(page.as_slice(), 4)) as usize;
            // a page that was named already: the list runs in a ring
            if !free.insert(trunk) || leaves > page.len() / 4 - 2 {
                return None;
            }
            free.extend(from(page.as_slice(), 8).chunks_exact(4).take(leaves).map(number));
            trunk = number(page.as_slice());
        }
        (free.len() == count as usize).then_some(free)
    }

    /// Finds the pages of the log that count: those of whole transactions, as SQLite takes them over.
    fn read_log(&mut self) {
        let Some(wal) = &self.wal else { return };
        let mut head = [0; WAL_HEAD];
        if wal.read_exact_at(&mut head, 0).is_err() {
            return;
        }
        let is_big = match number(&head) {
            0x377f_0683 => true,
            0x377f_0682 => false,
            _ => return,
        };
        let (head, own_sum) = head.split_at(WAL_HEAD - 8);
        let mut sum = checksum((0, 0), head, is_big);
        if number(from(head, 8)) != PAGE_BYTES as u32 || sum != pair(own_sum) {
            return;
        }
        let salts = from(head, 16);
        let (mut at, mut waiting) = (WAL_HEAD as u64, Vec::new());
        let mut frame = [0; FRAME_HEAD + PAGE_BYTES as usize];
        while wal.read_exact_at(&mut frame, at).is_ok() {
            let (head, page) = frame.split_at(FRAME_HEAD);
            let (covered, rest) = head.split_at(8);
            sum = checksum(checksum(sum, covered, is_big), page, is_big);
            let (own_salts, own_sum) = rest.split_at(8);
            if own_salts != salts || pair(own_sum) != sum {
                break;
            }
            waiting.push((number(covered), at + FRAME_HEAD as u64));
            let pages_then = number(from(covered, 4));
            if pages_then > 0 {
                self.in_wal.extend(waiting.drain(..));
                self.count = pages_then;
            }
            at += (FRAME_HEAD as u64) + PAGE_BYTES;
        }
    }
}

fn or_none(opened: io::Result<File>) -> io::Result<Option<File>> {
    match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn from(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..).unwrap_or_default()
}

/// The four bytes at the front.
pub(super) fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |four| u32::from_be_bytes(*four))
}

fn pair(bytes: &[u8]) -> (u32, u32) {
    (number(bytes), number(from(bytes, 4)))
}

/// The checksum of the write-ahead log goes on from that of what lies before.
fn checksum((mut a, mut b): (u32, u32), bytes: &[u8], is_big: bool) -> (u32, u32) {
    for eight in bytes.chunks_exact(8) {
        let (x, y) = pair(eight);
        let (x, y) = if is_big { (x, y) } else { (x.swap_bytes(), y.swap_bytes()) };
        a = a.wrapping_add(x).wrapping_add(b);
        b = b.wrapping_add(y).wrapping_add(a);
    }
    (a, b)
}
