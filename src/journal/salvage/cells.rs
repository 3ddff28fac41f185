//! Rows on the pages of trees, each for itself.
//!
//! In: pages. Out: the rows of one page, or those of a tree in the order of their keys, with a hole where something
//! between two of them cannot be read. Invariant: no bytes, however bad, make this panic, run in a ring, or take more
//! memory than the file has bytes. Not here: what a row means (`shapes`).
//!
//! After <https://www.sqlite.org/fileformat2.html>: a leaf has cells, each with a record, whose end may lie on a chain
//! of overflow pages. Of a tree with row numbers the inner pages have keys alone; of one without, records too.

use std::collections::HashSet;

use rusqlite::types::Value;

use super::pages::{Page, Pages, number};
use crate::journal::schema::PAGE_BYTES;

/// What a page can hold; no byte of ours is kept at its end.
const USABLE: usize = PAGE_BYTES as usize;
/// Deeper than a tree of any size.
const DEPTH_MAX: usize = 24;

/// What a page of a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PageKind {
    Leaf,
    Inner,
}

/// Which kind of tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TreeKind {
    /// Of a table with row numbers.
    Table,
    /// Of an index, or of a table without row numbers.
    Index,
}

/// What lies at a place of a tree.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TreePlace {
    Row {
        /// 0 in a tree without.
        number: i64,
        values: Vec<Value>,
    },
    /// One row or many that cannot be read.
    Hole,
}

/// Which pages were met so far.
#[derive(Debug)]
pub(super) struct Walker<'a> {
    pub pages: &'a Pages,
    pub reached: HashSet<u32>,
}

impl Walker<'_> {
    /// Gives all places of a tree in the order of their keys.
    pub fn walk<E>(
        &mut self,
        root: u32,
        tree: TreeKind,
        each: &mut impl FnMut(TreePlace) -> Result<(), E>,
    ) -> Result<(), E> {
        self.walk_below(root, tree, DEPTH_MAX, each)
    }

    fn walk_below<E>(
        &mut self,
        at: u32,
        tree: TreeKind,
        depth: usize,
        each: &mut impl FnMut(TreePlace) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(page) = self.pages.page(at).filter(|_| depth > 0 && self.reached.insert(at)) else {
            return each(TreePlace::Hole);
        };
        let head = if at == 1 { 100 } else { 0 };
        let Some((kind, _)) = kind(&page, head).filter(|(_, found)| *found == tree) else {
            return each(TreePlace::Hole);
        };
        let Some(cells) = cells(&page, head, kind) else { return each(TreePlace::Hole) };
        for cell in cells {
            if kind == PageKind::Inner {
                self.walk_below(number(bytes(&page, cell)), tree, depth - 1, each)?;
                if tree == TreeKind::Table {
                    continue;
                }
            }
            let from = if kind == PageKind::Inner { cell + 4 } else { cell };
            each(self.pages.row(&page, from, tree).unwrap_or(TreePlace::Hole))?;
        }
        match kind {
            PageKind::Inner => self.walk_below(number(bytes(&page, head + 8)), tree, depth - 1, each),
            PageKind::Leaf => Ok(()),
        }
    }
}

impl Pages {
    /// The rows of a leaf of a table that are whole; none of another page.
    pub fn rows_of_leaf(&self, at: u32) -> Vec<(i64, Vec<Value>)> {
        let Some(page) =
            self.page(at).filter(|page| at > 1 && kind(page, 0) == Some((PageKind::Leaf, TreeKind::Table)))
        else {
            return Vec::new();
        };
        let cells = cells(&page, 0, PageKind::Leaf).unwrap_or_default();
        let rows = cells.into_iter().filter_map(|cell| match self.row(&page, cell, TreeKind::Table)? {
            TreePlace::Row { number, values } => Some((number, values)),
            TreePlace::Hole => None,
        });
        rows.collect()
    }

    /// The row whose cell begins there.
    fn row(&self, page: &Page, from: usize, tree: TreeKind) -> Option<TreePlace> {
        let mut rest = bytes(page, from);
        let length = usize::try_from(varint(&mut rest)?).ok()?;
        let number = if tree == TreeKind::Table { varint(&mut rest)? as i64 } else { 0 };
        let record = self.payload(rest, length, tree)?;
        Some(TreePlace::Row { number, values: values(&record)? })
    }

    /// The record of a cell; its end may lie on other pages.
    fn payload(&self, rest: &[u8], length: usize, tree: TreeKind) -> Option<Vec<u8>> {
        let local = local_bytes(length, tree);
        let mut record = rest.get(..local)?.to_vec();
        if local == length {
            return Some(record);
        }
        // no chain is longer than the file
        if length > self.count() as usize * USABLE {
            return None;
        }
        let mut next = number(rest.get(local..local + 4)?);
        while record.len() < length {
            let page = self.page(next)?;
            // cleared: what follows would look like a record that ends in zeros
            if page.iter().all(|byte| *byte == 0) {
                return None;
            }
            let more = (length - record.len()).min(USABLE - 4);
            record.extend_from_slice(page.get(4..4 + more)?);
            next = number(page.as_slice());
        }
        // the last page of a chain names no other
        (next == 0).then_some(record)
    }
}

/// How much of a record lies in its cell.
fn local_bytes(length: usize, tree: TreeKind) -> usize {
    let most = match tree {
        TreeKind::Table => USABLE - 35,
        TreeKind::Index => (USABLE - 12) * 64 / 255 - 23,
    };
    if length <= most {
        return length;
    }
    let least = (USABLE - 12) * 32 / 255 - 23;
    let local = least + (length - least) % (USABLE - 4);
    if local <= most { local } else { least }
}

fn kind(page: &Page, head: usize) -> Option<(PageKind, TreeKind)> {
    match page.get(head)? {
        0x0d => Some((PageKind::Leaf, TreeKind::Table)),
        0x05 => Some((PageKind::Inner, TreeKind::Table)),
        0x0a => Some((PageKind::Leaf, TreeKind::Index)),
        0x02 => Some((PageKind::Inner, TreeKind::Index)),
        _ => None,
    }
}

/// Where the cells of a page begin, in the order of their keys.
fn cells(page: &Page, head: usize, kind: PageKind) -> Option<Vec<usize>> {
    let short = |at: usize| page.get(at..)?.first_chunk().map(|two| usize::from(u16::from_be_bytes(*two)));
    let pointers = head + if kind == PageKind::Inner { 12 } else { 8 };
    let count = short(head + 3)?;
    let found: Vec<usize> = (0..count).map(|i| short(pointers + 2 * i)).collect::<Option<_>>()?;
    // none lies in the list of them
    found.iter().all(|cell| *cell >= pointers + 2 * count).then_some(found)
}

fn bytes(page: &Page, from: usize) -> &[u8] {
    page.get(from..).unwrap_or_default()
}

/// SQLite's own: seven bits a byte, the most significant first, and all eight of a ninth.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for i in 0..9 {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        if i == 8 {
            return Some((value << 8) | u64::from(*byte));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

/// The values of a record: their types come first.
fn values(record: &[u8]) -> Option<Vec<Value>> {
    let mut rest = record;
    let head = usize::try_from(varint(&mut rest)?).ok()?;
    let begin = record.len() - rest.len();
    let mut types = record.get(begin..head)?;
    let mut body = record.get(head..)?;
    let mut found = Vec::new();
    while !types.is_empty() {
        found.push(value(varint(&mut types)?, &mut body)?);
    }
    body.is_empty().then_some(found)
}

fn value(kind: u64, body: &mut &[u8]) -> Option<Value> {
    let mut take = |n: usize| {
        let (taken, rest) = body.split_at_checked(n)?;
        *body = rest;
        Some(taken)
    };
    let integer = |bytes: &[u8]| {
        let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
        bytes.iter().fold(if negative { -1 } else { 0 }, |all: i64, byte| (all << 8) | i64::from(*byte))
    };
    Some(match kind {
        0 => Value::Null,
        1..=4 => Value::Integer(integer(take(kind as usize)?)),
        5 => Value::Integer(integer(take(6)?)),
        6 => Value::Integer(integer(take(8)?)),
        7 => Value::Real(f64::from_be_bytes(take(8)?.try_into().ok()?)),
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        10 | 11 => return None,
        even if even % 2 == 0 => Value::Blob(take(usize::try_from((even - 12) / 2).ok()?)?.to_vec()),
        odd => Value::Text(String::from_utf8(take(usize::try_from((odd - 13) / 2).ok()?)?.to_vec()).ok()?),
    })
}
