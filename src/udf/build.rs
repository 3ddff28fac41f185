//! From a core module to a component.
//!
//! In: a core module that carries its own component type (what `wit-bindgen` embeds). Out: the component. Invariant: what
//! comes out is valid and exports what the module's world says. Not here: running a compiler (`cli/udf`).

use std::path::Path;

use super::UdfError;

/// Wraps a core module; a component is given back as it is. `path` is the name shown in errors.
///
/// # Errors
/// The module carries no component type, or imports what its type does not (such as WASI preview 1).
pub fn component(path: &Path, wasm: &[u8]) -> Result<Vec<u8>, UdfError> {
    if !wasm.starts_with(b"\0asm") {
        return Err(UdfError::NotWasm { path: path.to_owned() });
    }
    if !wasm.starts_with(b"\0asm\x01\0\0\0") {
        return Ok(wasm.to_vec());
    }
    let failed = |reason: String| UdfError::Build { path: path.to_owned(), reason };
    if wasm.windows(PREVIEW_1.len()).any(|w| w == PREVIEW_1) {
        return Err(failed("it imports WASI preview 1; build it for wasm32-unknown-unknown, which needs no imports".to_owned()));
    }
    let described = wit_component::metadata::decode(wasm).map_err(|e| failed(format!("{e:#}")))?.0.is_some();
    if !described {
        return Err(failed("it carries no component type; export its functions with wit-bindgen".to_owned()));
    }
    let mut encoder = wit_component::ComponentEncoder::default().validate(true).module(wasm).map_err(|e| failed(format!("{e:#}")))?;
    encoder.encode().map_err(|e| failed(format!("{e:#}")))
}

const PREVIEW_1: &[u8] = b"wasi_snapshot_preview1";
