//! How long the present thread has really run.
//!
//! A guest cannot sleep, so the time that it used is the processor time of its thread. A wall clock would blame it for
//! the load of the machine. Not here: when to look.

use std::time::Duration;

/// Processor time of the calling thread; `None` where the kernel does not tell. Costs a system call or three.
pub fn of_this_thread() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_with_work_and_not_with_sleep() {
        let start = of_this_thread().unwrap();
        crate::time::pause(Duration::from_millis(30));
        let slept = of_this_thread().unwrap() - start;
        assert!(slept < Duration::from_millis(20), "{slept:?} of processor time in a sleep");
        let mut n = 0u64;
        while of_this_thread().unwrap() - start < Duration::from_millis(30) {
            n = std::hint::black_box(n.wrapping_add(1));
        }
        assert!(n > 0);
    }
}
