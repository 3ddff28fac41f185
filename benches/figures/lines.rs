//! Counts the lines of a file that grows.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub struct Lines {
    path: PathBuf,
    /// Once it is there.
    file: Option<File>,
    seen: u64,
    buffer: Vec<u8>,
}

impl Lines {
    pub fn of(path: &Path) -> Lines {
        Lines { path: path.to_owned(), file: None, seen: 0, buffer: vec![0; 1 << 20] }
    }

    /// Of the file as it is now; 0 before there is one.
    pub fn count(&mut self) -> u64 {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return 0 };
        loop {
            let n = file.read(&mut self.buffer).unwrap();
            if n == 0 {
                return self.seen;
            }
            self.seen += self.buffer[..n].iter().filter(|b| **b == b'\n').count() as u64;
        }
    }
}
