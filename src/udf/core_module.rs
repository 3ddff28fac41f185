//! Core modules as files of functions, by the convention in `wit/core-abi.md`.
//!
//! In: a compiled module. Out: its functions, its imports linked, and calls of the functions. Invariant: a module that
//! loaded keeps to the convention as far as its types say; what it says at run time (addresses, lengths, text) is
//! checked at each call. Not here: components (`component`), the answers of WASI (`wasi`).

mod wasi;

use wasmtime::component::Val;
use wasmtime::{
    ExternType, Func, FuncType as CoreType, Linker, Memory, Module, Store, TypedFunc, Val as CoreVal, ValType,
};

pub use wasi::{Exited, Wasi};

use super::component::{Callable, EntryPoint, Export, Passing};
use super::instance::GuestState;
use super::wit::{Field, FuncType, Name, Wit};
use crate::query::catalog::{Shape, Signature};

/// What tells a function of JSON from one of numbers.
const JSON_PREFIX: &str = "forebay_json_";
/// Names that are not the guest's own.
const RESERVED_PREFIX: &str = "forebay_";
const ALLOC: &str = "forebay_alloc";
const MEMORY: &str = "memory";
const INITIALIZE: &str = "_initialize";
const START: &str = "_start";
/// The bit of a result's length that says that its text is an error.
const IS_ERROR: u64 = 1 << 31;

/// What is wrong with a module, before its first call.
#[derive(Debug)]
pub enum ModuleProblem {
    /// a program with `_start`, not a library
    Command,
    /// an export that does not keep to the convention, and how
    Export { name: String, reason: String },
    /// imports that nobody provides, sorted
    Imports(Vec<String>),
    /// wasmtime's own words
    Linker(wasmtime::Error),
}

impl From<wasmtime::Error> for ModuleProblem {
    fn from(error: wasmtime::Error) -> ModuleProblem {
        ModuleProblem::Linker(error)
    }
}

/// Whether a module is the inside of a component that was not made yet: `wit-bindgen` leaves the type of the component
/// in a custom section, and its exports are not what they seem.
pub fn awaits_its_component(wasm: &[u8]) -> bool {
    let mut rest = wasm.get(8..).unwrap_or_default();
    while let Some((id, body, after)) = section(rest) {
        let name = (id == 0).then(|| sized(body)).flatten().map(|(name, _)| name);
        if name.is_some_and(|name| name.starts_with(b"component-type")) {
            return true;
        }
        rest = after;
    }
    false
}

/// A section: its id, its contents, and what follows.
fn section(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (id, rest) = bytes.split_first()?;
    let (body, after) = sized(rest)?;
    Some((*id, body, after))
}

/// Bytes with their length before them (LEB128), and what follows.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (i, byte) in bytes.iter().take(5).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return bytes.get(i + 1..)?.split_at_checked(length);
        }
    }
    None
}

/// The names of all imports, in the file's order.
pub fn imports(module: &Module) -> Vec<String> {
    module.imports().map(|i| format!("{}.{}", i.module(), i.name())).collect()
}

/// The module's imports satisfied by stubs.
///
/// # Errors
/// Imports that nobody provides.
pub fn link(module: &Module) -> Result<wasmtime::InstancePre<GuestState>, ModuleProblem> {
    let mut linker = Linker::new(module.engine());
    let mut unknown = Vec::new();
    for import in module.imports() {
        if !wasi::link(&mut linker, &import)? {
            unknown.push(format!("{}.{}", import.module(), import.name()));
        }
    }
    unknown.sort();
    unknown.dedup();
    if unknown.is_empty() { Ok(linker.instantiate_pre(module)?) } else { Err(ModuleProblem::Imports(unknown)) }
}

/// The functions that a query can mean, in the file's order.
///
/// # Errors
/// An export does not keep to the convention.
pub fn exports(module: &Module) -> Result<Vec<Export>, ModuleProblem> {
    let mut found = Vec::new();
    let has = |name: &str| module.get_export(name).is_some();
    if has(START) && !has(INITIALIZE) {
        return Err(ModuleProblem::Command);
    }
    for export in module.exports() {
        let name = export.name();
        let wrong = |reason: String| Err(ModuleProblem::Export { name: name.to_owned(), reason });
        let ExternType::Func(ty) = export.ty() else {
            if name.starts_with(RESERVED_PREFIX) {
                return wrong("is no function".to_owned());
            }
            continue;
        };
        if let Some(plain) = name.strip_prefix(JSON_PREFIX) {
            if !is(&ty, &[ValType::I32, ValType::I32], &[ValType::I64]) {
                return wrong(format!("is {}; a function of JSON is func(i32, i32) -> i64", shown(&ty)));
            }
            if plain.is_empty() {
                return wrong("lacks the function's name after the prefix".to_owned());
            }
            if !matches!(module.get_export(MEMORY), Some(ExternType::Memory(_))) {
                return wrong(format!("takes text, and the module exports no memory of the name `{MEMORY}`"));
            }
            if !has(ALLOC) {
                return wrong(format!("takes text, and the module does not export `{ALLOC}`, func(i32) -> i32"));
            }
            found.push(json(name, plain));
        } else if name == ALLOC {
            if !is(&ty, &[ValType::I32], &[ValType::I32]) {
                return wrong(format!("is {}; it has to be func(i32) -> i32", shown(&ty)));
            }
        } else if name.starts_with(RESERVED_PREFIX) {
            return wrong("is no part of this version's convention".to_owned());
        } else if name == INITIALIZE {
            if !is(&ty, &[], &[]) {
                return wrong(format!("is {}; it has to be func()", shown(&ty)));
            }
        } else if !name.starts_with('_') {
            found.push(numbers(name, &ty));
        }
    }
    Ok(found)
}

fn is(ty: &CoreType, params: &[ValType], results: &[ValType]) -> bool {
    let same = |theirs: &mut dyn Iterator<Item = ValType>, ours: &[ValType]| {
        let theirs: Vec<ValType> = theirs.collect();
        theirs.len() == ours.len() && theirs.iter().zip(ours).all(|(a, b)| ValType::eq(a, b))
    };
    same(&mut ty.params(), params) && same(&mut ty.results(), results)
}

fn json(name: &str, plain: &str) -> Export {
    let text = format!("{plain}: JSON, any number of arguments");
    let signature = Signature { params: Vec::new(), rest: Some(Shape::Any), result: Shape::Any, text };
    let callable = Ok(Callable { signature, passing: Passing::Json, resource: None });
    Export { name: plain.to_owned(), interface: None, callable, entry: EntryPoint::Core(name.to_owned()) }
}

fn numbers(name: &str, ty: &CoreType) -> Export {
    let number = |ty: ValType| match ty {
        ValType::I32 => Ok(Wit::S32),
        ValType::I64 => Ok(Wit::S64),
        ValType::F32 => Ok(Wit::F32),
        ValType::F64 => Ok(Wit::F64),
        other => Err(format!("{other} has no SQL value")),
    };
    let param = |(i, ty)| Ok(Field { name: Name::new(&format!("p{}", i + 1)), ty: number(ty)? });
    let read = || {
        let params = ty.params().enumerate().map(param).collect::<Result<_, String>>()?;
        let mut results = ty.results();
        let result = results.next().map(number).transpose()?;
        let more = results.count();
        if more > 0 {
            Err(format!("it has {} results; a function gives one", more + 1))
        } else {
            Ok(FuncType { params, result })
        }
    };
    let callable = read().map(|typed| {
        let signature = Signature { text: format!("{name}: {}", shown(ty)), ..typed.signature(name) };
        Callable { signature, passing: Passing::Typed(typed), resource: None }
    });
    Export { name: name.to_owned(), interface: None, callable, entry: EntryPoint::Core(name.to_owned()) }
}

/// Core types: `func(i64, f64) -> i64`.
fn shown(ty: &CoreType) -> String {
    let list = |types: &mut dyn Iterator<Item = ValType>| types.map(|ty| ty.to_string()).collect::<Vec<_>>().join(", ");
    let (params, results) = (list(&mut ty.params()), list(&mut ty.results()));
    match ty.results().len() {
        0 => format!("func({params})"),
        1 => format!("func({params}) -> {results}"),
        _ => format!("func({params}) -> ({results})"),
    }
}

/// The functions of an instance.
pub struct CoreFunctions {
    /// by export; `None` for those that no query can call
    entries: Vec<Option<CoreFunction>>,
    /// what functions of JSON need
    texts: Option<TextExports>,
    /// kept from call to call for their allocation
    params: Vec<CoreVal>,
}

enum CoreFunction {
    Numbers(Func),
    Json(TypedFunc<(u32, u32), u64>),
}

struct TextExports {
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
}

/// What a function of JSON answered.
#[derive(Debug, PartialEq, Eq)]
pub enum JsonReply {
    Null,
    Json(String),
    /// the row fails with these words
    Error(String),
}

/// A guest that breaks the convention at run time.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("`{ALLOC}` has no room for {0} bytes of arguments; raise its memory limit or free what it holds")]
    NoRoom(usize),
    #[error("`{ALLOC}` gave address {pointer}, where {length} bytes do not fit into its {memory} bytes of memory")]
    Alloc { pointer: u32, length: usize, memory: usize },
    #[error("gave a result at address {pointer} with {length} bytes, outside of its {memory} bytes of memory")]
    Outside { pointer: u32, length: usize, memory: usize },
    #[error("gave a result that is not UTF-8")]
    NotUtf8,
    #[error("gave {0} bytes of text")]
    TooLong(usize),
    #[error("is no exported function")]
    NoFunction,
}

impl CoreFunctions {
    /// Finds the functions of a new instance and runs its `_initialize`.
    ///
    /// # Errors
    /// That function traps.
    pub fn start(
        store: &mut Store<GuestState>,
        instance: &wasmtime::Instance,
        exports: &[Export],
    ) -> wasmtime::Result<CoreFunctions> {
        let mut entries = Vec::with_capacity(exports.len());
        for export in exports {
            entries.push(match (&export.entry, &export.callable) {
                (EntryPoint::Core(name), Ok(Callable { passing: Passing::Json, .. })) => {
                    Some(CoreFunction::Json(instance.get_typed_func(&mut *store, name)?))
                }
                (EntryPoint::Core(name), Ok(_)) => instance.get_func(&mut *store, name).map(CoreFunction::Numbers),
                _ => None,
            });
        }
        let texts = match (instance.get_memory(&mut *store, MEMORY), instance.get_typed_func(&mut *store, ALLOC)) {
            (Some(memory), Ok(alloc)) => Some(TextExports { memory, alloc }),
            _ => None,
        };
        if let Some(initialize) = instance.get_func(&mut *store, INITIALIZE) {
            initialize.call(&mut *store, &[], &mut [])?;
        }
        Ok(CoreFunctions { entries, texts, params: Vec::new() })
    }

    /// Calls a function of numbers.
    ///
    /// # Errors
    /// It traps.
    pub fn call_numbers(
        &mut self,
        store: &mut Store<GuestState>,
        export: usize,
        params: &[Val],
        results: &mut [Val],
    ) -> wasmtime::Result<()> {
        let Some(Some(CoreFunction::Numbers(func))) = self.entries.get(export) else {
            return Err(Broken::NoFunction.into());
        };
        self.params.clear();
        self.params.extend(params.iter().filter_map(to_core));
        let Some(result) = results.first_mut() else { return func.call(store, &self.params, &mut []) };
        let mut core = [CoreVal::I64(0)];
        func.call(store, &self.params, &mut core)?;
        let [core] = core;
        *result = from_core(&core).ok_or(Broken::NoFunction)?;
        Ok(())
    }

    /// Calls a function of JSON with the text of its arguments.
    ///
    /// # Errors
    /// It traps or breaks the convention.
    pub fn call_json(
        &mut self,
        store: &mut Store<GuestState>,
        export: usize,
        arguments: &str,
        result_bytes_max: usize,
    ) -> wasmtime::Result<JsonReply> {
        let (Some(Some(CoreFunction::Json(func))), Some(texts)) = (self.entries.get(export), &self.texts) else {
            return Err(Broken::NoFunction.into());
        };
        let length = u32::try_from(arguments.len()).map_err(|_| Broken::NoRoom(arguments.len()))?;
        let pointer = texts.alloc.call(&mut *store, length)?;
        if pointer == 0 {
            return Err(Broken::NoRoom(arguments.len()).into());
        }
        if texts.memory.write(&mut *store, pointer as usize, arguments.as_bytes()).is_err() {
            let memory = texts.memory.data_size(&*store);
            return Err(Broken::Alloc { pointer, length: arguments.len(), memory }.into());
        }
        let packed = func.call(&mut *store, (pointer, length))?;
        if packed == 0 {
            return Ok(JsonReply::Null);
        }
        let is_error = packed & IS_ERROR != 0;
        let (pointer, length) = ((packed >> 32) as u32, (packed & (IS_ERROR - 1)) as usize);
        let memory = texts.memory.data(&*store);
        let bytes = memory.get(pointer as usize..).and_then(|rest| rest.get(..length));
        let bytes = bytes.ok_or(Broken::Outside { pointer, length, memory: memory.len() })?;
        if length > result_bytes_max {
            return Err(Broken::TooLong(length).into());
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Broken::NotUtf8)?.to_owned();
        Ok(if is_error { JsonReply::Error(text) } else { JsonReply::Json(text) })
    }
}

/// The types of `numbers` alone; `None` cannot be.
fn to_core(val: &Val) -> Option<CoreVal> {
    match val {
        Val::S32(n) => Some(CoreVal::I32(*n)),
        Val::S64(n) => Some(CoreVal::I64(*n)),
        Val::Float32(f) => Some(CoreVal::F32(f.to_bits())),
        Val::Float64(f) => Some(CoreVal::F64(f.to_bits())),
        _ => None,
    }
}

fn from_core(core: &CoreVal) -> Option<Val> {
    match core {
        CoreVal::I32(n) => Some(Val::S32(*n)),
        CoreVal::I64(n) => Some(Val::S64(*n)),
        CoreVal::F32(bits) => Some(Val::Float32(f32::from_bits(*bits))),
        CoreVal::F64(bits) => Some(Val::Float64(f64::from_bits(*bits))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inside_of_a_component_is_told_by_its_custom_section() {
        let of = |text: &str| awaits_its_component(&wat::parse_str(text).unwrap());
        assert!(of(r#"(module (func (export "f")) (@custom "component-type:w" "x"))"#));
        assert!(!of(r#"(module (func (export "component-type")) (@custom "name-of-mine" "component-type"))"#));
        let whole = wat::parse_str(r#"(module (func (export "f")) (@custom "component-type:w" "x"))"#).unwrap();
        for end in 0..whole.len() {
            awaits_its_component(&whole[..end]);
        }
    }
}
