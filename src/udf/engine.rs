//! wasmtime's settings.
//!
//! In: a folder for compiled code. Out: an [`Engine`] that all components of a process share. Invariant: every setting
//! is made here, with its reason. Not here: limits of one component (`Limits`), which a store enforces.

use std::path::PathBuf;
use std::sync::Arc;

use wasmtime::Config;

use super::UdfError;
use super::cache::Cache;
use super::ticker::{Ticker, Ticking};

/// Stack of guest code. Deep recursion ends here as a trap; wasmtime sets it for all components at once, and the
/// threads that call functions have 2 MiB.
pub const STACK_BYTES: usize = 512 << 10;

/// Frames that a trap keeps: one is shown.
const BACKTRACE_FRAMES: usize = 4;

/// The engine, its tick and its cache; cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    wasm: wasmtime::Engine,
    cache: Cache,
    ticker: Ticker,
}

impl Engine {
    /// `cache` is the private folder for compiled code, made with mode 0700 when absent; `None` compiles every time.
    ///
    /// # Errors
    /// The processor or the system lacks something that wasmtime needs.
    pub fn new(cache: Option<PathBuf>) -> Result<Engine, UdfError> {
        let wasm = wasmtime::Engine::new(&config()).map_err(|e| UdfError::Engine(format!("{e:#}")))?;
        let ticker = Ticker::start(wasm.weak()).map_err(|e| UdfError::Engine(e.to_string()))?;
        Ok(Engine { inner: Arc::new(Inner { cache: Cache::new(cache), wasm, ticker }) })
    }

    pub(super) fn wasm(&self) -> &wasmtime::Engine {
        &self.inner.wasm
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    pub(super) fn ticking(&self) -> Ticking<'_> {
        self.inner.ticker.call()
    }
}

pub(super) fn config() -> Config {
    let mut config = Config::new();
    // a deadline a call, in wall-clock time as the operator means it, cheaper than counting instructions
    config.epoch_interruption(true);
    config.max_wasm_stack(STACK_BYTES);
    // the asynchronous part of the component model costs four times per call, and nothing here awaits
    config.concurrency_support(false);
    // 64-bit memories are slower and no function needs one inside 32 MiB
    config.wasm_memory64(false);
    // its results differ between processors, and a row must not
    config.wasm_relaxed_simd(false);
    // the name of the function that trapped is the best hint there is; lines would need debug information
    config.wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES));
    // maps code to offsets in the file, which nobody looks at; a tenth of the cached code
    config.generate_address_map(false);
    // symbols in native backtraces are for debuggers
    config.native_unwind_info(false);
    #[cfg(feature = "compile")]
    config.cranelift_opt_level(wasmtime::OptLevel::Speed);
    config
}
