//! What glibc keeps of memory that is free.
//!
//! In: the beginning of the process, and a minute that passed. Out: calls to glibc; elsewhere nothing. Invariant: no
//! allocation is moved; one that comes meanwhile waits for a walk over the free pieces, which is longer with a
//! larger heap. Not here: using less.

use std::time::Duration;

/// Between two times that free pages are given back. A burst takes memory in many small pieces, and a few that stay
/// keep the rest from going back by itself: 50 MB after 45 minutes with an outage each ten, and 40 with this.
const INTERVAL: Duration = Duration::from_secs(60);

/// glibc gives threads arenas of their own, and each keeps what its busiest moment took: at full speed 75 MB instead of
/// 62. Whoever sets `MALLOC_ARENA_MAX` has a reason. To be called before there are other threads.
pub fn share_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        // SAFETY: a call without pointers, before any other thread exists.
        #[expect(unsafe_code, reason = "there is no other way to say it to glibc")]
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}

/// Gives the pages of free memory back once a minute, for as long as the runtime lives.
pub(super) async fn give_back_each_minute() {
    loop {
        tokio::time::sleep(INTERVAL).await;
        // one that failed is tried again in a minute
        let _ = tokio::task::spawn_blocking(give_back).await;
    }
}

fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes glibc's own locks, and touches nothing that is in use.
    #[expect(unsafe_code, reason = "there is no other way to say it to glibc")]
    unsafe {
        libc::malloc_trim(0);
    }
}
