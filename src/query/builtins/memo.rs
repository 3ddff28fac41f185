//! A small memory of compiled patterns, one a thread.
//!
//! In: a key and a way to compile it. Out: the compiled form, made once while the key stays in use. Invariant: never
//! more than `limit` entries; the one unused for longest goes first. Not here: what is compiled.

use std::rc::Rc;

/// Entries with the newest use last.
#[derive(Debug)]
pub struct Memo<T> {
    limit: usize,
    entries: Vec<(String, Rc<T>)>,
}

impl<T> Memo<T> {
    pub const fn new(limit: usize) -> Memo<T> {
        Memo { limit, entries: Vec::new() }
    }

    /// The compiled form of `key`.
    pub fn get(&mut self, key: &str, compile: impl FnOnce(&str) -> T) -> Rc<T> {
        if let Some((_, made)) = self.entries.last().filter(|(k, _)| k == key) {
            return made.clone();
        }
        let entry = match self.entries.iter().position(|(k, _)| k == key) {
            Some(i) => self.entries.remove(i),
            None => {
                if self.entries.len() >= self.limit {
                    self.entries.remove(0);
                }
                (key.to_owned(), Rc::new(compile(key)))
            }
        };
        let made = entry.1.clone();
        self.entries.push(entry);
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let mut memo = Memo::new(2);
        let mut compiled = Vec::new();
        for key in ["a", "b", "a", "c", "a", "b"] {
            memo.get(key, |k| compiled.push(k.to_owned()));
        }
        assert_eq!(compiled, ["a", "b", "c", "b"]);
    }
}
