//! A loaded file of functions: a component, or a core module that keeps to `wit/core-abi.md`.
//!
//! In: a file. Out: its functions and aggregates with their signatures, ready to be instantiated. Invariant: a loaded
//! file has its imports satisfied and no two functions of one folded name. Not here: instances (`instance`), compiled
//! code on disk (`cache`), what only core modules need (`core_module`).

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{ComponentExportIndex, InstancePre};

use super::aggregate::resource::{self, Resource};
use super::cache::Code;
use super::core_module::{self, ModuleProblem};
use super::engine::Engine;
use super::grants::Grant;
use super::imports::{self, RefusedImport};
use super::instance::GuestState;
use super::wit::FuncType;
use super::{Limits, UdfError, cache};
use crate::query::catalog::{Offers, Signature, folded};

/// Largest component file. Python's have 18 MB; beyond this somebody named the wrong file.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// What a core module starts with.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
/// What every WebAssembly file starts with.
const WASM: &[u8] = b"\0asm";
/// Exports of these are for other runtimes, such as `wasi:cli/run`.
const FOREIGN: &str = "wasi:";
/// What componentize-py leaves of its own: an interface of this name with `init`, which it called when it built.
const OF_THE_BUILD: (&str, &str) = ("exports", "init");

/// A file of functions with its exports known and its imports linked. Shared by the hosts that call it.
pub struct Component {
    path: PathBuf,
    engine: Engine,
    limits: Limits,
    bytes: usize,
    digest: String,
    origin: Origin,
    imports: Vec<String>,
    exports: Vec<Export>,
    linked: Linked,
}

/// What instances are made from, by the kind of the file.
pub(super) enum Linked {
    Component(InstancePre<GuestState>),
    Core(wasmtime::InstancePre<GuestState>),
}

/// Where the compiled code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Cache,
    Compiler,
}

/// An exported function, or a resource: an aggregate.
#[derive(Debug)]
pub struct Export {
    /// name as the guest writes it, without the prefix of a core module's function of JSON
    pub name: String,
    /// the exported interface it is in; `None` at the top level
    pub interface: Option<String>,
    /// what it takes and gives; `Err`: why no query can call it
    pub callable: Result<Callable, String>,
    pub(super) entry: EntryPoint,
}

/// Where an instance has the function.
#[derive(Debug)]
pub(super) enum EntryPoint {
    Component(ComponentExportIndex),
    /// the export of a core module, under its own name
    Core(String),
}

/// A function or an aggregate that a query can call.
#[derive(Debug)]
pub struct Callable {
    pub signature: Signature,
    pub(super) passing: Passing,
    /// an aggregate's members; its type has the parameters of `accumulate` and the result of `compute`
    pub(super) resource: Option<Box<Resource>>,
}

/// How arguments and result cross.
#[derive(Debug)]
pub(super) enum Passing {
    /// as values of their types
    Typed(FuncType),
    /// as JSON text
    Json,
}

impl Export {
    /// `interface#name`, or the name alone at the top level.
    pub fn path(&self) -> String {
        self.interface.as_ref().map_or_else(|| self.name.clone(), |interface| format!("{interface}#{}", self.name))
    }

    /// The name in the file.
    fn in_file(&self) -> String {
        match &self.entry {
            EntryPoint::Component(_) => self.path(),
            EntryPoint::Core(name) => name.clone(),
        }
    }

    /// What stands before its name in a query.
    pub fn prefix(&self) -> &'static str {
        if self.aggregate().is_some() { "uda" } else { "udf" }
    }

    /// What an aggregate offers; `None` for a function.
    pub fn aggregate(&self) -> Option<Offers> {
        self.callable.as_ref().ok().and_then(|c| c.resource.as_ref()).map(|r| r.offers)
    }
}

impl Component {
    /// Reads, compiles (or finds compiled) and checks a file.
    ///
    /// # Errors
    /// The file is neither component nor core module, asks for imports that nobody provides, has two functions of one
    /// folded name, or none.
    pub fn load(engine: &Engine, path: &Path, limits: Limits) -> Result<Component, UdfError> {
        let source = |source| UdfError::Read { path: path.to_owned(), source };
        let file = fs::File::open(path).map_err(source)?;
        let meta = file.metadata().map_err(source)?;
        if !meta.is_file() {
            return Err(UdfError::NotWasm { path: path.to_owned() });
        }
        let bytes = meta.len();
        if bytes > FILE_BYTES_MAX {
            return Err(UdfError::TooLarge { path: path.to_owned(), bytes, max: FILE_BYTES_MAX });
        }
        let mut wasm = Vec::new();
        // a file that grows meanwhile is cut off here, and then is no component
        file.take(FILE_BYTES_MAX).read_to_end(&mut wasm).map_err(source)?;
        Component::from_bytes(engine, path, &wasm, limits)
    }

    /// The same for bytes already read; `path` is the name shown in errors.
    ///
    /// # Errors
    /// See [`Component::load`].
    pub fn from_bytes(engine: &Engine, path: &Path, wasm: &[u8], limits: Limits) -> Result<Component, UdfError> {
        let path = path.to_owned();
        if wasmtime::Engine::detect_precompiled(wasm).is_some() {
            return Err(UdfError::CompiledCode { path });
        }
        if !wasm.starts_with(WASM) {
            return Err(UdfError::NotWasm { path });
        }
        if wasm.starts_with(CORE_MODULE) && core_module::awaits_its_component(wasm) {
            return Err(UdfError::NotYetComponent { path });
        }
        let digest = cache::digest(wasm);
        let (code, origin) = match engine.cache().load(engine.wasm(), &digest) {
            Some(code) => (code, Origin::Cache),
            None => (compile(engine, &path, wasm, &digest)?, Origin::Compiler),
        };
        let (linked, exports, imports) = match &code {
            Code::Component(component) => of_component(&path, component)?,
            Code::Module(module) => of_module(&path, module)?,
        };
        check_names(&path, &exports)?;
        Ok(Component {
            path,
            engine: engine.clone(),
            limits,
            bytes: wasm.len(),
            digest,
            origin,
            imports,
            exports,
            linked,
        })
    }

    /// The index of the function a query means by `name`, in any case style; `interface#name` is exact.
    ///
    /// # Errors
    /// There is none, with those there are; or it cannot be called, with the reason.
    pub fn find(&self, name: &str) -> Result<usize, UdfError> {
        let exact = self.exports.iter().position(|e| e.path() == name);
        let found = exact.or_else(|| self.exports.iter().position(|e| folded(&e.name) == folded(name)));
        let Some((index, export)) = found.and_then(|i| self.exports.get(i).map(|e| (i, e))) else {
            let names: Vec<String> = self.exports.iter().map(Export::path).collect();
            return Err(UdfError::NoSuchExport {
                path: self.path.clone(),
                name: name.to_owned(),
                exports: names.join(", "),
            });
        };
        match &export.callable {
            Ok(_) => Ok(index),
            Err(reason) => {
                Err(UdfError::NotCallable { path: self.path.clone(), export: export.path(), reason: reason.clone() })
            }
        }
    }

    /// The exported functions, in the file's order.
    pub fn exports(&self) -> &[Export] {
        &self.exports
    }

    /// The signature of an export; `None` when there is none at the index or no query can call it.
    pub fn signature(&self, export: usize) -> Option<&Signature> {
        self.callable(export).map(|c| &c.signature)
    }

    pub(super) fn callable(&self, export: usize) -> Option<&Callable> {
        self.exports.get(export).and_then(|e| e.callable.as_ref().ok())
    }

    /// What its signatures are written in: `WIT`, or `core` types.
    pub fn kind(&self) -> &'static str {
        match self.linked {
            Linked::Component(_) => "WIT",
            Linked::Core(_) => "core",
        }
    }

    /// Names of the imports, those that are granted or stubbed.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// What it has to be granted before it can be called.
    pub fn needs(&self) -> Vec<Grant> {
        let mut needs: Vec<Grant> = self.imports.iter().filter_map(|name| Grant::of_import(name)).collect();
        needs.sort_unstable();
        needs
    }

    /// Size of the file.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// SHA-256 of the file, in hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn origin(&self) -> Origin {
        self.origin
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn linked(&self) -> &Linked {
        &self.linked
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component").field("path", &self.path).field("digest", &self.digest).finish_non_exhaustive()
    }
}

#[cfg(feature = "compile")]
fn compile(engine: &Engine, path: &Path, wasm: &[u8], digest: &str) -> Result<Code, UdfError> {
    let compiled = if wasm.starts_with(CORE_MODULE) {
        wasmtime::Module::from_binary(engine.wasm(), wasm).map(Code::Module)
    } else {
        wasmtime::component::Component::from_binary(engine.wasm(), wasm).map(Code::Component)
    };
    let code = compiled.map_err(|e| UdfError::Compile { path: path.to_owned(), reason: format!("{e:#}") })?;
    engine.cache().store(engine.wasm(), digest, &code);
    Ok(code)
}

#[cfg(not(feature = "compile"))]
fn compile(engine: &Engine, path: &Path, _wasm: &[u8], digest: &str) -> Result<Code, UdfError> {
    let path = path.to_owned();
    let (cache, host) = (engine.cache().place(), host());
    Err(match engine.cache().count(engine.wasm(), digest) {
        0 => UdfError::NoCompiler { path, cache, host },
        _ => UdfError::OtherMachine { path, cache, host },
    })
}

/// This machine, as `udf precompile --target` takes it.
#[cfg(not(feature = "compile"))]
fn host() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "x86_64-unknown-linux-gnu",
        "aarch64" => "aarch64-unknown-linux-gnu",
        "riscv64" => "riscv64gc-unknown-linux-gnu",
        "arm" => "armv7-unknown-linux-gnueabihf",
        other => other,
    }
}

/// Whether it is a core module; else it is a component.
#[cfg(feature = "compile")]
pub(super) fn is_core_module(wasm: &[u8]) -> bool {
    wasm.starts_with(CORE_MODULE)
}

/// What a file gives: instances, functions, names of imports.
type Parts = (Linked, Vec<Export>, Vec<String>);

fn of_component(path: &Path, component: &wasmtime::component::Component) -> Result<Parts, UdfError> {
    let start = |e: wasmtime::Error| UdfError::Start { path: path.to_owned(), reason: format!("{e:#}") };
    let linker = imports::linker(component).map_err(|refused| match refused {
        RefusedImport::Unknown(names) => UdfError::UnknownImport { path: path.to_owned(), imports: names.join(", ") },
        RefusedImport::Linker(e) => start(e),
    })?;
    let pre = linker.instantiate_pre(component).map_err(start)?;
    Ok((Linked::Component(pre), exports(component), imports::names(component)))
}

fn of_module(path: &Path, module: &wasmtime::Module) -> Result<Parts, UdfError> {
    let read =
        || Ok((Linked::Core(core_module::link(module)?), core_module::exports(module)?, core_module::imports(module)));
    let path = path.to_owned();
    read().map_err(|problem| match problem {
        ModuleProblem::Command => UdfError::Command { path },
        ModuleProblem::Export { name, reason } => UdfError::CoreExport { path, export: name, reason },
        ModuleProblem::Imports(names) => UdfError::UnknownImport { path, imports: names.join(", ") },
        ModuleProblem::Linker(e) => UdfError::Start { path, reason: format!("{e:#}") },
    })
}

/// All functions at the top level and one level down, in interfaces.
fn exports(component: &wasmtime::component::Component) -> Vec<Export> {
    let engine = component.engine();
    let mut found = Vec::new();
    let read = |interface: Option<&str>, parent: Option<&ComponentExportIndex>, name: &str, item: &ComponentItem| {
        let ComponentItem::ComponentFunc(func) = item else { return None };
        if resource::is_member(name) || (interface, name) == (Some(OF_THE_BUILD.0), OF_THE_BUILD.1) {
            return None;
        }
        let callable = FuncType::read(func)
            .map(|ty| Callable { signature: ty.signature(name), passing: Passing::Typed(ty), resource: None })
            .map_err(|e| e.to_string());
        let index = component.get_export_index(parent, name)?;
        Some(Export {
            name: name.to_owned(),
            interface: interface.map(str::to_owned),
            callable,
            entry: EntryPoint::Component(index),
        })
    };
    for (name, item) in component.component_type().exports(engine) {
        match &item.ty {
            ComponentItem::ComponentInstance(instance) if !name.starts_with(FOREIGN) => {
                let parent = component.get_export_index(None, name);
                let inner: Vec<_> = instance.exports(engine).collect();
                found.extend(
                    inner.iter().filter_map(|(function, item)| read(Some(name), parent.as_ref(), function, &item.ty)),
                );
                let members = inner.iter().map(|(name, item)| (*name, &item.ty));
                found.extend(resource::exports(members, Some(name), |member| {
                    component.get_export_index(parent.as_ref(), member)
                }));
            }
            ty => found.extend(read(None, None, name, ty)),
        }
    }
    let ty = component.component_type();
    let top: Vec<_> = ty.exports(engine).collect();
    let members = top.iter().map(|(name, item)| (*name, &item.ty));
    found.extend(resource::exports(members, None, |member| component.get_export_index(None, member)));
    found
}

fn check_names(path: &Path, exports: &[Export]) -> Result<(), UdfError> {
    if exports.is_empty() {
        return Err(UdfError::NoFunctions { path: path.to_owned() });
    }
    let mut seen: HashMap<String, &Export> = HashMap::new();
    for export in exports {
        if let Some(first) = seen.insert(folded(&export.name), export) {
            return Err(UdfError::Collision {
                path: path.to_owned(),
                first: first.in_file(),
                second: export.in_file(),
            });
        }
    }
    Ok(())
}
