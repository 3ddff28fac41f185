//! What a component asks for.
//!
//! In: the imports of a component. Out: a linker that satisfies the harmless ones. Invariant: nothing of the machine is
//! ever linked; a WASI function traps with its name when called. Not here: what granted imports such as `log` do
//! (`grants`).

use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Component, Linker, LinkerInstance, ResourceType};

use super::grants::{self, Grant};
use super::instance::GuestState;

/// The package namespace whose imports toolchains link whether or not the code needs them.
const STUBBED: &str = "wasi:";

/// The trap of a stub.
#[derive(Debug, thiserror::Error)]
#[error("calls {import}, which is not granted")]
pub struct NotGranted {
    pub import: String,
}

/// An import that cannot be linked.
#[derive(Debug)]
pub enum RefusedImport {
    /// names of the imports that nobody provides, sorted
    Unknown(Vec<String>),
    /// wasmtime's own words
    Linker(wasmtime::Error),
}

impl From<wasmtime::Error> for RefusedImport {
    fn from(error: wasmtime::Error) -> RefusedImport {
        RefusedImport::Linker(error)
    }
}

/// The names of all imports, in the file's order.
pub fn names(component: &Component) -> Vec<String> {
    component.component_type().imports(component.engine()).map(|(name, _)| name.to_owned()).collect()
}

/// A linker with what can be granted, and with stubs for WASI and for interfaces that only name types.
///
/// # Errors
/// Any other import.
pub fn linker(component: &Component) -> Result<Linker<GuestState>, RefusedImport> {
    let engine = component.engine();
    let mut linker = Linker::new(engine);
    let mut unknown = Vec::new();
    for (name, import) in component.component_type().imports(engine) {
        match &import.ty {
            ComponentItem::ComponentInstance(_) if let Some(grant) = Grant::of_import(name) => {
                grants::link(&mut linker.instance(name)?, grant)?
            }
            ComponentItem::ComponentInstance(instance) if name.starts_with(STUBBED) || only_types(instance, engine) => {
                stub(&mut linker.instance(name)?, instance, name, engine)?;
            }
            ComponentItem::Type(_) => {}
            _ => unknown.push(name.to_owned()),
        }
    }
    if unknown.is_empty() {
        return Ok(linker);
    }
    unknown.sort();
    Err(RefusedImport::Unknown(unknown))
}

/// An interface without functions and resources asks for nothing: `use` of a type imports it.
fn only_types(instance: &ComponentInstance, engine: &wasmtime::Engine) -> bool {
    instance.exports(engine).all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)))
}

fn stub<T: 'static>(
    linker: &mut LinkerInstance<'_, T>,
    instance: &ComponentInstance,
    path: &str,
    engine: &wasmtime::Engine,
) -> wasmtime::Result<()> {
    for (name, item) in instance.exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(_) => {
                let import = format!("{path}#{name}");
                linker.func_new(name, move |_, _, _, _| Err(NotGranted { import: import.clone() }.into()))?;
            }
            ComponentItem::Resource(_) => linker.resource(name, ResourceType::host::<()>(), |_, _| Ok(()))?,
            ComponentItem::ComponentInstance(inner) => {
                stub(&mut linker.instance(name)?, &inner, &format!("{path}/{name}"), engine)?
            }
            _ => {}
        }
    }
    Ok(())
}
