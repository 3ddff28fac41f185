//! From what compilers and people write to a component.
//!
//! In: a core module (with its world embedded, or beside it as WIT), the text of one, or a JavaScript file. Out: the
//! component. Invariant: what comes out is valid and exports what its world says. Not here: running cargo (`cli/udf`).

pub mod javascript;

use std::path::Path;

use wit_component::StringEncoding;
use wit_parser::Resolve;

use super::UdfError;

/// Wraps a core module that carries its own component type (what `wit-bindgen` embeds); a component is given back as it
/// is. `path` is the name shown in errors.
///
/// # Errors
/// The module carries no component type, or imports what its type does not (such as WASI preview 1).
pub fn component(path: &Path, wasm: &[u8]) -> Result<Vec<u8>, UdfError> {
    if !wasm.starts_with(b"\0asm") {
        return Err(UdfError::NotWasm { path: path.to_owned() });
    }
    if !wasm.starts_with(CORE_MODULE) {
        return Ok(wasm.to_vec());
    }
    let failed = |reason: String| UdfError::Build { path: path.to_owned(), reason };
    if wasm.windows(PREVIEW_1.len()).any(|w| w == PREVIEW_1) {
        return Err(failed(
            "it imports WASI preview 1; build it for wasm32-unknown-unknown, which needs no imports".to_owned(),
        ));
    }
    let described = wit_component::metadata::decode(wasm).map_err(|e| failed(format!("{e:#}")))?.0.is_some();
    if !described {
        return Err(failed(
            "it carries no component type; export its functions with wit-bindgen, or name its world: `--wit \
            FILE_OR_DIR`"
                .to_owned(),
        ));
    }
    let mut encoder =
        wit_component::ComponentEncoder::default().validate(true).module(wasm).map_err(|e| failed(format!("{e:#}")))?;
    encoder.encode().map_err(|e| failed(format!("{e:#}")))
}

/// Wraps a core module whose world is in a WIT file or folder; `world` may be left out where there is one.
///
/// # Errors
/// The WIT does not parse or has no such world; the module does not export what the world says, by the names and types
/// of the canonical ABI.
pub fn with_world(path: &Path, wasm: &[u8], wit: &Path, world: Option<&str>) -> Result<Vec<u8>, UdfError> {
    if !wasm.starts_with(CORE_MODULE) {
        let reason = "it is no core module, so no world can be added to it".to_owned();
        return Err(UdfError::Build { path: path.to_owned(), reason });
    }
    let bad_wit = |reason: String| UdfError::Wit { path: wit.to_owned(), reason };
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit).map_err(|e| bad_wit(format!("{e:#}")))?;
    let world = resolve.select_world(&[package], world).map_err(|e| bad_wit(format!("{e:#}")))?;
    let mut module = wasm.to_vec();
    let embedded = wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8);
    embedded.map_err(|e| bad_wit(format!("{e:#}")))?;
    component(path, &module)
}

/// Assembles the text of a module or a component.
///
/// # Errors
/// It does not parse; the reason shows the place.
pub fn assemble(path: &Path, text: &str) -> Result<Vec<u8>, UdfError> {
    wat::parse_str(text).map_err(|mut error| {
        error.set_path(path);
        UdfError::Text { reason: error.to_string() }
    })
}

/// Whether these bytes are a core module, which forebay also calls as it is.
pub fn is_core_module(wasm: &[u8]) -> bool {
    wasm.starts_with(CORE_MODULE)
}

const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
const PREVIEW_1: &[u8] = b"wasi_snapshot_preview1";
