//! Where the control socket of a pool is.
//!
//! In: the pool's path. Out: the path of the socket, and a name for it that a socket's address has room for. Invariant:
//! whoever comes to a pool by a symbolic link finds the same socket, and two pools of a folder have two. Not here:
//! listening and calling.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::journal::beside_journal;

/// A socket's address holds 108 bytes, the last of which is zero.
const ADDRESS_BYTES_MAX: usize = 107;
/// Longest name of the file, so that `/proc/self/fd/2147483647/NAME` fits.
const NAME_BYTES_MAX: usize = 80;

#[derive(Debug)]
pub struct ControlAddress {
    pub path: PathBuf,
}

impl ControlAddress {
    pub fn beside(pool: &Path) -> ControlAddress {
        let path = beside_journal(pool, "-control");
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.len() <= NAME_BYTES_MAX {
            return ControlAddress { path };
        }
        let digest: String = Sha256::digest(name).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        ControlAddress { path: path.with_file_name(format!("{digest}-control")) }
    }

    /// Does something with a path of the socket that is short enough. A long one goes by way of the open folder.
    pub fn with_short<T>(&self, done: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        if self.path.as_os_str().len() <= ADDRESS_BYTES_MAX {
            return done(&self.path);
        }
        let folder = File::open(self.path.parent().unwrap_or(Path::new("/")))?;
        let name = self.path.file_name().unwrap_or_default();
        done(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
    }
}
