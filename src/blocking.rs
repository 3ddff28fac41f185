//! Work that takes long, away from the tasks of the runtime.
//!
//! In: work. Out: its result, to whoever awaits it. Invariant: a panic of the work is one of the task that asked, and
//! lines that it logs stand under the same span. Not here: what takes long.

use std::panic::resume_unwind;

/// Up to this many bytes of JSON are read in a task. All tasks share one thread, and more would hold up the others.
pub const INLINE_BYTES: usize = 64 << 10;

/// Does in a thread of its own what would hold up the tasks of the runtime.
pub async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(done) => done,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // the runtime ends, and this task with it
            Err(_) => std::future::pending().await,
        },
    }
}
