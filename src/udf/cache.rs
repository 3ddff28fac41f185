//! Compiled code on disk.
//!
//! In: the bytes of a component or core module. Out: the compiled code, read from the folder or compiled and put there.
//! Invariant: only code that this program wrote, whole and unchanged, into a folder that nobody else may write is ever
//! loaded. Not here: the settings that the code depends on (`engine`); wasmtime stores them in the code and refuses
//! other ones.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::{Module, Precompiled, component::Component};

/// First bytes of a file of the cache; the digest of the rest follows.
const MAGIC: &[u8; 8] = b"fbcwasm1";
const DIGEST_BYTES: usize = 32;
/// Permission bits of those who must not write the folder.
const OTHERS_WRITE: u32 = 0o022;

/// Compiled code of either kind.
#[derive(Clone)]
pub enum Code {
    Component(Component),
    Module(Module),
}

/// A folder of compiled code; `None` when there is none or it is not safe to use.
#[derive(Debug)]
pub struct Cache {
    dir: Option<PathBuf>,
}

impl Cache {
    /// Takes the folder, making it when absent. One that others could write is left alone, with a warning.
    pub fn new(dir: Option<PathBuf>) -> Cache {
        let dir = dir.filter(|dir| match private(dir) {
            Ok(()) => true,
            Err(reason) => {
                tracing::warn!(dir = %dir.display(), reason, "compiled functions are not cached");
                false
            }
        });
        Cache { dir }
    }

    /// The folder in words.
    #[cfg(not(feature = "compile"))]
    pub fn place(&self) -> String {
        self.dir.as_ref().map_or_else(|| "a cache folder (none is set)".to_owned(), |dir| dir.display().to_string())
    }

    /// How many files there are of a file with this digest, whether they fit or not.
    #[cfg(not(feature = "compile"))]
    pub fn count(&self, engine: &wasmtime::Engine, digest: &str) -> usize {
        self.dir.as_ref().map_or(0, |dir| candidates(engine, dir, digest).len())
    }

    /// The compiled code of a file with this digest, when the folder has it and it fits the engine.
    pub fn load(&self, engine: &wasmtime::Engine, digest: &str) -> Option<Code> {
        let dir = self.dir.as_ref()?;
        candidates(engine, dir, digest).iter().find_map(|path| read(engine, path))
    }

    /// Keeps compiled code. That it cannot be kept is a warning: the next start compiles again.
    #[cfg(feature = "compile")]
    pub fn store(&self, engine: &wasmtime::Engine, digest: &str, code: &Code) {
        let Some(dir) = &self.dir else { return };
        let serialized = match code {
            Code::Component(component) => component.serialize(),
            Code::Module(module) => module.serialize(),
        };
        let written = serialized
            .map_err(|e| e.to_string())
            .and_then(|code| write(dir, &file_name(engine, digest), &code).map_err(|e| e.to_string()));
        if let Err(reason) = written {
            tracing::warn!(dir = %dir.display(), reason, "compiled function not cached");
        }
    }
}

/// Where compiled code is kept when nobody says: the folder systemd gives a service, else the user's cache folder.
pub fn default_dir() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    of("CACHE_DIRECTORY")
        .or_else(|| of("XDG_CACHE_HOME").map(|dir| dir.join("forebay")))
        .or_else(|| of("HOME").map(|dir| dir.join(".cache/forebay")))
}

/// Hex digest of a file's bytes.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Checks that only this user, or root, may write the folder.
pub(super) fn private(dir: &Path) -> Result<(), String> {
    match fs::symlink_metadata(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| e.to_string())?;
        }
        Err(e) => return Err(e.to_string()),
        Ok(_) => {}
    }
    let meta = fs::metadata(dir).map_err(|e| e.to_string())?;
    // the owner of /proc/self is the user that this process acts as
    let me = fs::metadata("/proc/self").map_err(|e| e.to_string())?.uid();
    if !meta.is_dir() {
        Err("not a folder".to_owned())
    } else if meta.uid() != me && meta.uid() != 0 {
        Err("another user owns the folder; use one of your own".to_owned())
    } else if meta.mode() & OTHERS_WRITE != 0 {
        Err("others may write the folder; chmod 700 it".to_owned())
    } else {
        Ok(())
    }
}

/// With the compiler wasmtime names the settings that the code depends on.
#[cfg(feature = "compile")]
pub(super) fn file_name(engine: &wasmtime::Engine, digest: &str) -> String {
    use std::hash::{Hash, Hasher};
    let mut hasher = rustc_hash::FxHasher::default();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{digest}-{:016x}.cwasm", hasher.finish())
}

#[cfg(feature = "compile")]
fn candidates(engine: &wasmtime::Engine, dir: &Path, digest: &str) -> Vec<PathBuf> {
    vec![dir.join(file_name(engine, digest))]
}

/// Without it, every file made from these bytes is tried; loading checks the settings.
#[cfg(not(feature = "compile"))]
fn candidates(_engine: &wasmtime::Engine, dir: &Path, digest: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let named = entries
        .flatten()
        .filter(|e| e.file_name().to_str().is_some_and(|name| name.starts_with(digest) && name.ends_with(".cwasm")));
    named.map(|e| e.path()).collect()
}

/// Reads one file. Whatever is wrong with it, the answer is to compile again, which also replaces it.
fn read(engine: &wasmtime::Engine, path: &Path) -> Option<Code> {
    let bytes = fs::read(path).ok()?;
    let (magic, rest) = bytes.split_at_checked(MAGIC.len())?;
    let (sum, code) = rest.split_at_checked(DIGEST_BYTES)?;
    if magic != MAGIC || sum != Sha256::digest(code).as_slice() {
        tracing::warn!(path = %path.display(), "compiled function is damaged and is not used");
        return None;
    }
    // SAFETY: loading runs what the bytes say, so they must be what `serialize` of the same kind gave. They are: the
    // folder and its file are writable by this user or root alone (`private`), only `write` puts files there, whole by
    // rename, and the digest stored with the code shows that the disk kept it. wasmtime itself refuses another version
    // or settings.
    #[allow(unsafe_code)]
    let loaded = unsafe {
        match wasmtime::Engine::detect_precompiled(code)? {
            Precompiled::Component => Component::deserialize(engine, code).map(Code::Component),
            Precompiled::Module => Module::deserialize(engine, code).map(Code::Module),
        }
    };
    loaded.inspect_err(|e| tracing::debug!(path = %path.display(), reason = %e, "compiled function does not fit")).ok()
}

#[cfg(feature = "compile")]
pub(super) fn write(dir: &Path, name: &str, code: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    // a name of its own, so that two processes that compile at once do not write one file
    let temporary = dir.join(format!(".{name}.{}", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let written = file
        .write_all(MAGIC)
        .and_then(|()| file.write_all(&Sha256::digest(code)))
        .and_then(|()| file.write_all(code))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, dir.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
