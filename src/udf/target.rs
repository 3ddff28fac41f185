//! Compiled code for other machines.
//!
//! In: a target's name and files. Out: compiled code in a folder, which is copied to such a machine as its cache.
//! Invariant: what is made here is not run here; the settings but for the machine's own are those of [`super::engine`],
//! so a machine of that kind finds code that fits. Not here: checking a file's functions (`component`).

use std::path::{Path, PathBuf};

use super::engine;
use super::{UdfError, cache};

/// wasmtime's interpreter for machines that it makes no code for.
const PULLEY_32: &str = "pulley32";

/// A kind of machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// as it was named
    name: String,
    /// as wasmtime names it
    triple: String,
}

/// Why there is no code for a machine.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    #[error(
        "`{0}` is no machine that forebay runs on; known are x86_64-unknown-linux-gnu, aarch64-unknown-linux-gnu, \
        riscv64gc-unknown-linux-gnu, armv7-unknown-linux-gnueabihf"
    )]
    Unknown(String),
    #[error(
        "this build makes code for {host} alone; for `{target}` build forebay with `cargo build --release --features \
        precompile-targets`, or run this on such a machine"
    )]
    NotInBuild { target: String, host: String },
}

impl Target {
    /// The machine with a name such as `aarch64-unknown-linux-gnu`.
    ///
    /// # Errors
    /// It is none of Linux, or of a processor that nothing is known of; or this build makes no code for it.
    pub fn named(name: &str) -> Result<Target, TargetError> {
        let unknown = || TargetError::Unknown(name.to_owned());
        let (processor, system) = name.split_once('-').ok_or_else(unknown)?;
        if !system.split('-').any(|part| part == "linux") {
            return Err(unknown());
        }
        let triple = match processor {
            "x86_64" | "aarch64" | "riscv64gc" | "s390x" => name,
            "i586" | "i686" | "riscv32gc" => PULLEY_32,
            arm if arm.starts_with("arm") || arm.starts_with("thumbv7") => PULLEY_32,
            _ => return Err(unknown()),
        };
        let is_host = triple != PULLEY_32 && processor.starts_with(std::env::consts::ARCH);
        if !is_host && cfg!(not(feature = "precompile-targets")) {
            return Err(TargetError::NotInBuild { target: name.to_owned(), host: std::env::consts::ARCH.to_owned() });
        }
        Ok(Target { name: name.to_owned(), triple: triple.to_owned() })
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Makes code for one kind of machine.
#[derive(Debug)]
pub struct Precompiler {
    wasm: wasmtime::Engine,
    folder: PathBuf,
}

impl Precompiler {
    /// Code goes into `folder`, made with mode 0700 when absent.
    ///
    /// # Errors
    /// Others may write the folder; the compiler does not know the machine.
    pub fn new(target: &Target, folder: &Path) -> Result<Precompiler, UdfError> {
        let failed = |reason: String| UdfError::Engine(reason);
        cache::private(folder).map_err(|reason| UdfError::CacheFolder { folder: folder.to_owned(), reason })?;
        let mut config = engine::config();
        config.target(&target.triple).map_err(|e| failed(format!("{e:#}")))?;
        let wasm = wasmtime::Engine::new(&config).map_err(|e| failed(format!("{e:#}")))?;
        Ok(Precompiler { wasm, folder: folder.to_owned() })
    }

    /// Compiles a file's bytes; `path` is the name shown in errors. Answers the file that was written.
    ///
    /// # Errors
    /// It does not compile, or the folder takes no file.
    pub fn compile(&self, path: &Path, wasm: &[u8]) -> Result<PathBuf, UdfError> {
        let compiled = match super::component::is_core_module(wasm) {
            true => self.wasm.precompile_module(wasm),
            false => self.wasm.precompile_component(wasm),
        };
        let code = compiled.map_err(|e| UdfError::Compile { path: path.to_owned(), reason: format!("{e:#}") })?;
        let name = cache::file_name(&self.wasm, &cache::digest(wasm));
        let unwritten =
            |e: std::io::Error| UdfError::CacheFolder { folder: self.folder.clone(), reason: e.to_string() };
        cache::write(&self.folder, &name, &code).map_err(unwritten)?;
        Ok(self.folder.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udf::{Component, Engine, Limits, Origin};

    #[test]
    fn machines_by_name() {
        let unknown = |name: &str| assert_eq!(Target::named(name), Err(TargetError::Unknown(name.to_owned())));
        ["x86_64", "x86_64-apple-darwin", "sparc64-unknown-linux-gnu", "linux", ""].into_iter().for_each(unknown);
        let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        assert_eq!(Target::named(&host).map(|t| t.triple), Ok(host));
        let other =
            if cfg!(target_arch = "aarch64") { "x86_64-unknown-linux-gnu" } else { "aarch64-unknown-linux-gnu" };
        for name in [other, "armv7-unknown-linux-gnueabihf"] {
            match Target::named(name) {
                Err(TargetError::NotInBuild { target, .. }) if cfg!(not(feature = "precompile-targets")) => {
                    assert_eq!(target, name)
                }
                Ok(target) if cfg!(feature = "precompile-targets") => {
                    assert_eq!(target.triple == PULLEY_32, name.starts_with("arm"))
                }
                odd => panic!("{odd:?}"),
            }
        }
    }

    #[test]
    fn code_for_another_machine_is_never_loaded() {
        let wasm = wat::parse_str("(module (func (export \"f\") (result i64) (i64.const 7)))").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let load = || {
            Component::from_bytes(
                &Engine::new(Some(dir.path().to_owned())).unwrap(),
                Path::new("f.wasm"),
                &wasm,
                Limits::default(),
            )
            .unwrap()
        };
        assert_eq!(load().origin(), Origin::Compiler);
        let ours = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        // the same processor, so that no compiler but the host's is needed
        let foreign = Target { name: String::new(), triple: format!("{}-unknown-freebsd", std::env::consts::ARCH) };
        let made = Precompiler::new(&foreign, dir.path()).unwrap().compile(Path::new("f.wasm"), &wasm).unwrap();
        assert_ne!(made, ours);
        std::fs::rename(&made, &ours).unwrap();
        assert_eq!(load().origin(), Origin::Compiler, "made again in place of it");
        assert_eq!(load().origin(), Origin::Cache);
    }
}
