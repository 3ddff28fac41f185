//! What core modules import: WASI preview 1 so that runtimes start, and AssemblyScript's `abort`.
//!
//! In: an import. Out: a stub for it. Invariant: nothing real is behind any of them, and the same calls in an instance
//! get the same answers at every run; the table in `wit/core-abi.md` is this file in words. Not here: WASI of
//! components (`imports`).

use wasmtime::{Caller, Extern, ExternType, ImportType, Linker, Memory};

use crate::time::Timestamp;
use crate::udf::imports::NotGranted;
use crate::udf::instance::GuestState;

const PREVIEW_1: &str = "wasi_snapshot_preview1";
/// Text of standard output and error that is kept for a message: what a panic begins with.
const SAID_BYTES_MAX: usize = 400;
/// Characters of an abort message that are kept.
const ABORT_CHARS_MAX: u32 = 200;
/// A random generator of the same numbers every time; any number would do.
const SEED: u64 = 0x00f0_4eba_7000_0001;

/// Answers of WASI: `errno`.
const DONE: i32 = 0;
const BAD_DESCRIPTOR: i32 = 8;
const BAD_ADDRESS: i32 = 21;

/// Standard input, output and error.
const STDIN: i32 = 0;
const STDIO: std::ops::RangeInclusive<i32> = 0..=2;
const CHARACTER_DEVICE: u8 = 2;
const REALTIME: i32 = 0;
const RESOLUTION_NANOS: u64 = 1000;

/// What the stubs of one instance remember.
#[derive(Debug)]
pub struct Wasi {
    rng: fastrand::Rng,
    monotonic_nanos: u64,
    /// what the guest wrote during the present call, its start
    said: Vec<u8>,
}

impl Default for Wasi {
    fn default() -> Wasi {
        Wasi { rng: fastrand::Rng::with_seed(SEED), monotonic_nanos: 0, said: Vec::new() }
    }
}

impl Wasi {
    /// A call begins.
    pub fn begin(&mut self) {
        self.said.clear();
    }

    /// The start of what the guest wrote during the call, as one line.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.said).split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// The guest ended its process.
#[derive(Debug, thiserror::Error)]
pub enum Exited {
    #[error("ended itself with exit code {0}")]
    Code(i32),
    #[error("aborted: {0}")]
    Abort(String),
}

/// Links a stub for an import; `false`: nobody provides it.
pub fn link(linker: &mut Linker<GuestState>, import: &ImportType<'_>) -> wasmtime::Result<bool> {
    let ExternType::Func(ty) = import.ty() else { return Ok(false) };
    let (module, name) = (import.module(), import.name());
    // a module may import one function twice
    linker.allow_shadowing(true);
    match (module, name) {
        ("env", "abort") => {
            linker.func_wrap(
                module,
                name,
                |mut caller: Caller<'_, GuestState>, message: u32, _file: u32, line: u32, _column: u32| {
                    let text = caller_memory(&mut caller).and_then(|m| assembly_script_text(m.data(&caller), message));
                    let text = text.unwrap_or_else(|| format!("without a message, in line {line}"));
                    wasmtime::Result::<()>::Err(Exited::Abort(text).into())
                },
            )?;
        }
        (PREVIEW_1, "args_sizes_get" | "environ_sizes_get") => {
            linker.func_wrap(module, name, |mut c: Caller<'_, GuestState>, count: u32, bytes: u32| {
                write(&mut c, count, &[0; 4]).max(write(&mut c, bytes, &[0; 4]))
            })?;
        }
        (PREVIEW_1, "args_get" | "environ_get") => {
            linker.func_wrap(module, name, |_: i32, _: i32| DONE)?;
        }
        (PREVIEW_1, "clock_res_get") => {
            linker.func_wrap(module, name, |mut c: Caller<'_, GuestState>, _: i32, to: u32| {
                write(&mut c, to, &RESOLUTION_NANOS.to_le_bytes())
            })?;
        }
        (PREVIEW_1, "clock_time_get") => {
            linker.func_wrap(module, name, |mut c: Caller<'_, GuestState>, clock: i32, _: i64, to: u32| {
                let nanos = if clock == REALTIME {
                    unix_nanos(c.data().at)
                } else {
                    let wasi = &mut c.data_mut().wasi;
                    wasi.monotonic_nanos = wasi.monotonic_nanos.saturating_add(RESOLUTION_NANOS);
                    wasi.monotonic_nanos
                };
                write(&mut c, to, &nanos.to_le_bytes())
            })?;
        }
        (PREVIEW_1, "random_get") => {
            linker.func_wrap(module, name, |mut c: Caller<'_, GuestState>, to: u32, length: u32| {
                let Some(memory) = caller_memory(&mut c) else { return BAD_ADDRESS };
                let (data, state) = memory.data_and_store_mut(&mut c);
                let room = data.get_mut(to as usize..).and_then(|rest| rest.get_mut(..length as usize));
                room.map_or(BAD_ADDRESS, |room| {
                    state.wasi.rng.fill(room);
                    DONE
                })
            })?;
        }
        (PREVIEW_1, "fd_write") => {
            linker.func_wrap(
                module,
                name,
                |mut c: Caller<'_, GuestState>, fd: i32, pieces: u32, count: u32, written: u32| {
                    if fd == STDIN || !STDIO.contains(&fd) {
                        return BAD_DESCRIPTOR;
                    }
                    match take_writing(&mut c, pieces, count) {
                        Some(bytes) => write(&mut c, written, &bytes.to_le_bytes()),
                        None => BAD_ADDRESS,
                    }
                },
            )?;
        }
        (PREVIEW_1, "fd_read") => {
            linker.func_wrap(
                module,
                name,
                |mut c: Caller<'_, GuestState>, fd: i32, _: u32, _: u32, read: u32| {
                    if fd == STDIN { write(&mut c, read, &[0; 4]) } else { BAD_DESCRIPTOR }
                },
            )?;
        }
        (PREVIEW_1, "fd_fdstat_get") => {
            linker.func_wrap(module, name, |mut c: Caller<'_, GuestState>, fd: i32, to: u32| {
                let mut stat = [0; 24];
                stat[0] = CHARACTER_DEVICE;
                if STDIO.contains(&fd) { write(&mut c, to, &stat) } else { BAD_DESCRIPTOR }
            })?;
        }
        (PREVIEW_1, "fd_fdstat_set_flags") => {
            linker.func_wrap(
                module,
                name,
                |fd: i32, _: i32| if STDIO.contains(&fd) { DONE } else { BAD_DESCRIPTOR },
            )?;
        }
        (PREVIEW_1, "fd_close") => {
            linker.func_wrap(module, name, |fd: i32| if STDIO.contains(&fd) { DONE } else { BAD_DESCRIPTOR })?;
        }
        (PREVIEW_1, "fd_prestat_get") => {
            linker.func_wrap(module, name, |_: i32, _: i32| BAD_DESCRIPTOR)?;
        }
        (PREVIEW_1, "fd_prestat_dir_name") => {
            linker.func_wrap(module, name, |_: i32, _: i32, _: i32| BAD_DESCRIPTOR)?;
        }
        (PREVIEW_1, "sched_yield") => {
            linker.func_wrap(module, name, || DONE)?;
        }
        (PREVIEW_1, "proc_exit") => {
            linker.func_wrap(module, name, |code: i32| wasmtime::Result::<()>::Err(Exited::Code(code).into()))?;
        }
        (PREVIEW_1, _) => {
            let import = format!("{module}.{name}");
            linker.func_new(module, name, ty, move |_, _, _| Err(NotGranted { import: import.clone() }.into()))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn caller_memory(caller: &mut Caller<'_, GuestState>) -> Option<Memory> {
    caller.get_export("memory").and_then(Extern::into_memory)
}

fn write(caller: &mut Caller<'_, GuestState>, to: u32, bytes: &[u8]) -> i32 {
    let written = caller_memory(caller).is_some_and(|memory| memory.write(&mut *caller, to as usize, bytes).is_ok());
    if written { DONE } else { BAD_ADDRESS }
}

/// Takes what the pieces hold, and keeps the start of it. Answers their bytes; `None`: they lie outside of memory.
fn take_writing(caller: &mut Caller<'_, GuestState>, pieces: u32, count: u32) -> Option<u32> {
    let memory = caller_memory(caller)?;
    let (data, state) = memory.data_and_store_mut(caller);
    let list = data.get(pieces as usize..)?.get(..(count as usize).checked_mul(8)?)?;
    let mut total = 0_u32;
    for piece in list.chunks_exact(8) {
        let (pointer, length) = (little_endian(piece, 0)?, little_endian(piece, 4)?);
        let bytes = data.get(pointer as usize..)?.get(..length as usize)?;
        let room = SAID_BYTES_MAX.saturating_sub(state.wasi.said.len()).min(bytes.len());
        state.wasi.said.extend_from_slice(bytes.get(..room)?);
        total = total.saturating_add(length);
    }
    Some(total)
}

fn little_endian(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

/// A string of AssemblyScript: UTF-16, its length in bytes in the four bytes before it.
fn assembly_script_text(memory: &[u8], pointer: u32) -> Option<String> {
    let pointer = pointer as usize;
    let bytes = little_endian(memory, pointer.checked_sub(4)?)?.min(2 * ABORT_CHARS_MAX) as usize;
    let units: Vec<u16> =
        memory.get(pointer..)?.get(..bytes)?.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    Some(String::from_utf16_lossy(&units)).filter(|text| !text.is_empty())
}

/// Event time as WASI counts: nanoseconds since 1970, 0 before.
fn unix_nanos(at: Timestamp) -> u64 {
    let ticks = at.ticks().saturating_sub(Timestamp::from_unix_millis(0).ticks());
    u64::try_from(ticks).unwrap_or(0).saturating_mul(100)
}
