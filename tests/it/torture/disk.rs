//! The disk of a process: the shim in front of it (`tests/torture/disk.c`), and the trace that it writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::workload::Plan;
use crate::harness::{root, until};

/// Calls that fail: `count` of a kind, from the `from`-th on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// As the shim names it.
    pub kind: &'static str,
    pub from: u64,
    pub count: u64,
    /// 0: a sync that says it is done, and is not.
    pub error: i32,
}

/// For ever, as far as a test is concerned.
pub const ON: u64 = 1 << 40;

pub const EIO: i32 = 5;
pub const ENOSPC: i32 = 28;
pub const EDQUOT: i32 = 122;

/// The shim, built, and a folder for what it is told to watch.
pub struct Shim {
    dir: TempDir,
}

impl Shim {
    pub fn build() -> Shim {
        let dir = tempfile::tempdir_in(scratch()).expect("a folder");
        let built = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(dir.path().join("disk.so"))
            .arg(root("tests/torture/disk.c"))
            .arg("-lpthread")
            .output()
            .expect("a C compiler (apt-get install gcc)");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Shim { dir }
    }

    /// An empty folder that a process may use, beside its trace.
    pub fn disk(&self) -> Watched<'_> {
        let dir = tempfile::tempdir_in(scratch()).expect("a folder");
        let base = dir.path().canonicalize().expect("a path without links");
        fs::create_dir(base.join("pool")).expect("a folder");
        Watched { shim: self, base, _dir: dir }
    }
}

/// A process that does not outlive its test.
pub struct Child(pub process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Memory, where the system has a folder there: what is synced is a matter of the trace, and images are made in
/// thousands.
pub fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// A folder that processes keep a pool in, and all that they did to it.
pub struct Watched<'a> {
    shim: &'a Shim,
    base: PathBuf,
    _dir: TempDir,
}

impl Watched<'_> {
    pub fn folder(&self) -> PathBuf {
        self.base.join("pool")
    }

    /// Runs the workload as a process of its own.
    ///
    /// # Panics
    /// When it does, or ends in another way than by itself.
    pub fn run(&self, plan: Plan, fault: Option<Fault>) {
        let said = self.base.join("said");
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command
            .args(["torture::workload::a_pool_under_the_shim", "--exact", "--ignored", "--nocapture"])
            .env("LD_PRELOAD", self.shim.dir.path().join("disk.so"))
            .env("FOREBAY_DISK_FOLDER", self.folder())
            .env("FOREBAY_DISK_TRACE", self.base.join("trace"))
            .env("FOREBAY_DISK_NOTES", self.base.join("notes"))
            .env("FOREBAY_WORKLOAD_SEED", plan.seed.to_string())
            .env("FOREBAY_WORKLOAD_STEPS", plan.steps.to_string())
            .env("FOREBAY_WORKLOAD_FIRST", plan.first.to_string())
            .env("FOREBAY_WORKLOAD_PATIENCE_MS", plan.patience.as_millis().to_string())
            .env("FOREBAY_WORKLOAD_CLOSES", u8::from(plan.closes).to_string())
            .stdin(Stdio::null())
            .stdout(fs::File::create(&said).expect("a file"))
            .stderr(fs::File::options().append(true).open(&said).expect("a file"));
        if let Some(Fault { kind, from, count, error }) = fault {
            command.env("FOREBAY_DISK_FAULT", format!("{kind}:{from}:{count}:{error}"));
        }
        let mut child = Child(command.spawn().expect("this binary starts"));
        let ended = until(&format!("the workload to end with {fault:?}"), || child.0.try_wait().expect("a status"));
        let said = fs::read_to_string(&said).unwrap_or_default();
        assert!(ended.success() && !said.contains("panicked"), "with {fault:?} it ended with {ended}:\n{said}");
    }

    pub fn trace(&self) -> Trace {
        Trace::parse(&fs::read(self.base.join("trace")).expect("a trace"))
    }

    /// Keeps everything for whoever looks for the cause; says where.
    pub fn keep(&self, name: &str) -> PathBuf {
        let to = root("target/torture").join(name);
        let _ = fs::remove_dir_all(&to);
        copy_folder(&self.base, &to);
        to
    }
}

/// A plan that nothing disturbs.
pub fn plan(seed: u64, steps: usize, first: u64) -> Plan {
    Plan { seed, steps, first, patience: Duration::from_secs(60), closes: false }
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy_folder(&path, &target),
            false => assert!(fs::copy(&path, &target).is_ok(), "a copy of {}", path.display()),
        }
    }
}

/// How a sync ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncEnd {
    Done,
    Failed,
    /// It said that it was done.
    Lied,
}

/// One call, as the shim saw it.
#[derive(Clone, Debug)]
pub enum Call {
    /// A process begins: descriptors of the one before are closed.
    Begin,
    Open {
        fd: i32,
        name: String,
        is_created: bool,
        is_emptied: bool,
    },
    Write {
        fd: i32,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    Length {
        fd: i32,
        length: u64,
    },
    Rename {
        from: String,
        to: String,
    },
    Unlink {
        name: String,
    },
    /// `fd`: `None` for the folder.
    Sync {
        fd: Option<i32>,
        end: SyncEnd,
    },
    Close {
        fd: i32,
    },
    /// What the workload says.
    Note(String),
    /// It failed, and has changed nothing (more).
    Failed,
}

pub struct Trace {
    pub calls: Vec<Call>,
}

impl Trace {
    fn parse(bytes: &[u8]) -> Trace {
        let mut calls = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (head, behind) = rest.split_at(32);
            let short = |at: usize| u16::from_ne_bytes(head[at..at + 2].try_into().unwrap()) as usize;
            let int = |at: usize| i32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
            let long = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().unwrap());
            let (kind, flags, fd, error) = (char::from(head[0]), head[1], int(8), int(12));
            let (offset, length) = (long(16), long(24));
            let (name, behind) = behind.split_at(short(2));
            let (to, behind) = behind.split_at(short(4));
            let has_bytes = matches!(kind, 'W' | 'N') && error == 0;
            let (bytes, behind) = behind.split_at(if has_bytes { length as usize } else { 0 });
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a name");
            calls.push(match kind {
                'B' => Call::Begin,
                'S' => {
                    let end = match (error, flags & 4 != 0) {
                        (_, true) => SyncEnd::Lied,
                        (0, false) => SyncEnd::Done,
                        _ => SyncEnd::Failed,
                    };
                    Call::Sync { fd: (fd >= 0).then_some(fd), end }
                }
                'C' => Call::Close { fd },
                _ if error != 0 => Call::Failed,
                'O' => Call::Open { fd, name: text(name), is_created: flags & 1 != 0, is_emptied: flags & 2 != 0 },
                'W' => Call::Write { fd, offset, bytes: bytes.into() },
                'T' => Call::Length { fd, length },
                'R' => Call::Rename { from: text(name), to: text(to) },
                'U' => Call::Unlink { name: text(name) },
                'N' => Call::Note(text(bytes).trim_end().to_owned()),
                other => panic!("a record of kind {other:?} in the trace"),
            });
            rest = behind;
        }
        Trace { calls }
    }

    /// How many calls of a kind there are that a fault could hit, in the words of [`Fault::kind`].
    pub fn count(&self, kind: &str) -> u64 {
        let is_one = |call: &&Call| match call {
            Call::Write { .. } => kind == "write",
            Call::Length { .. } => kind == "truncate",
            Call::Sync { .. } => kind == "sync",
            Call::Rename { .. } => kind == "rename",
            Call::Unlink { .. } => kind == "unlink",
            Call::Open { .. } => kind == "open",
            _ => false,
        };
        self.calls.iter().filter(is_one).count() as u64
    }
}
