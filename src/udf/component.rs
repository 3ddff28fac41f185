//! A loaded component.
//!
//! In: a file. Out: its functions and aggregates with their signatures, ready to be instantiated. Invariant: a loaded component has its
//! imports satisfied and no two functions of one folded name. Not here: instances (`instance`), compiled code on disk
//! (`cache`).

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{ComponentExportIndex, InstancePre};

use super::aggregate::resource::{self, Resource};
use super::engine::Engine;
use super::imports::{self, Refused};
use super::instance::State;
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

/// A component with its exports known and its imports linked. Shared by the hosts that call it.
pub struct Component {
    path: PathBuf,
    engine: Engine,
    limits: Limits,
    bytes: usize,
    digest: String,
    origin: Origin,
    imports: Vec<String>,
    exports: Vec<Export>,
    pre: InstancePre<State>,
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
    /// name in the guest's kebab case
    pub name: String,
    /// the exported interface it is in; `None` at the top level
    pub interface: Option<String>,
    /// what it takes and gives; `Err`: why no query can call it
    pub callable: Result<Callable, String>,
    pub(super) index: ComponentExportIndex,
}

/// A function or an aggregate that a query can call.
#[derive(Debug)]
pub struct Callable {
    pub signature: Signature,
    pub(super) ty: FuncType,
    /// an aggregate's members; its type has the parameters of `accumulate` and the result of `compute`
    pub(super) resource: Option<Box<Resource>>,
}

impl Export {
    /// `interface#name`, or the name alone at the top level.
    pub fn path(&self) -> String {
        self.interface.as_ref().map_or_else(|| self.name.clone(), |interface| format!("{interface}#{}", self.name))
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
    /// Reads, compiles (or finds compiled) and checks a component.
    ///
    /// # Errors
    /// The file is no component, asks for imports that nobody provides, has two functions of one folded name, or none.
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
        if wasm.starts_with(CORE_MODULE) {
            return Err(UdfError::CoreModule { path });
        }
        if wasmtime::Engine::detect_precompiled(wasm).is_some() {
            return Err(UdfError::CompiledCode { path });
        }
        if !wasm.starts_with(WASM) {
            return Err(UdfError::NotWasm { path });
        }
        let digest = cache::digest(wasm);
        let (compiled, origin) = match engine.cache().load(engine.wasm(), &digest) {
            Some(compiled) => (compiled, Origin::Cache),
            None => (compile(engine, &path, wasm, &digest)?, Origin::Compiler),
        };
        let linker = imports::linker::<State>(&compiled).map_err(|refused| match refused {
            Refused::Unknown(names) => UdfError::UnknownImport { path: path.clone(), imports: names.join(", ") },
            Refused::Linker(e) => UdfError::Start { path: path.clone(), reason: format!("{e:#}") },
        })?;
        let pre = linker.instantiate_pre(&compiled).map_err(|e| UdfError::Start { path: path.clone(), reason: format!("{e:#}") })?;
        let exports = exports(&compiled);
        check_names(&path, &exports)?;
        let imports = imports::names(&compiled);
        Ok(Component { path, engine: engine.clone(), limits, bytes: wasm.len(), digest, origin, imports, exports, pre })
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
            return Err(UdfError::NoSuchExport { path: self.path.clone(), name: name.to_owned(), exports: names.join(", ") });
        };
        match &export.callable {
            Ok(_) => Ok(index),
            Err(reason) => Err(UdfError::NotCallable { path: self.path.clone(), export: export.path(), reason: reason.clone() }),
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

    /// Names of the imports, those that are stubbed.
    pub fn imports(&self) -> &[String] {
        &self.imports
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

    pub(super) fn pre(&self) -> &InstancePre<State> {
        &self.pre
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component").field("path", &self.path).field("digest", &self.digest).finish_non_exhaustive()
    }
}

#[cfg(feature = "compile")]
fn compile(engine: &Engine, path: &Path, wasm: &[u8], digest: &str) -> Result<wasmtime::component::Component, UdfError> {
    let compiled = wasmtime::component::Component::from_binary(engine.wasm(), wasm)
        .map_err(|e| UdfError::Compile { path: path.to_owned(), reason: format!("{e:#}") })?;
    engine.cache().store(engine.wasm(), digest, &compiled);
    Ok(compiled)
}

#[cfg(not(feature = "compile"))]
fn compile(engine: &Engine, path: &Path, _wasm: &[u8], _digest: &str) -> Result<wasmtime::component::Component, UdfError> {
    Err(UdfError::NoCompiler { path: path.to_owned(), cache: engine.cache().place() })
}

/// All functions at the top level and one level down, in interfaces.
fn exports(component: &wasmtime::component::Component) -> Vec<Export> {
    let engine = component.engine();
    let mut found = Vec::new();
    let read = |interface: Option<&str>, parent: Option<&ComponentExportIndex>, name: &str, item: &ComponentItem| {
        let ComponentItem::ComponentFunc(func) = item else { return None };
        if resource::is_member(name) {
            return None;
        }
        let callable =
            FuncType::read(func).map(|ty| Callable { signature: ty.signature(name), ty, resource: None }).map_err(|e| e.to_string());
        let index = component.get_export_index(parent, name)?;
        Some(Export { name: name.to_owned(), interface: interface.map(str::to_owned), callable, index })
    };
    for (name, item) in component.component_type().exports(engine) {
        match &item.ty {
            ComponentItem::ComponentInstance(instance) if !name.starts_with(FOREIGN) => {
                let parent = component.get_export_index(None, name);
                let inner: Vec<_> = instance.exports(engine).collect();
                found.extend(inner.iter().filter_map(|(function, item)| read(Some(name), parent.as_ref(), function, &item.ty)));
                let members = inner.iter().map(|(name, item)| (*name, &item.ty));
                found.extend(resource::exports(members, Some(name), |member| component.get_export_index(parent.as_ref(), member)));
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
            return Err(UdfError::Collision { path: path.to_owned(), first: first.path(), second: export.path() });
        }
    }
    Ok(())
}
