//! Named places at which a process kills itself, so that a test can look at what a crash there leaves.
//!
//! In: `FOREBAY_KILL_AT=NAME:N` from the environment, and a call of [`reached`] at each place. Out: SIGKILL where the
//! place is passed for the N-th time. Invariant: a build without debug assertions has no word of it, and both functions
//! are empty there. Not here: what must hold afterwards (`tests/it/torture`).

/// A place between two steps that a crash can part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillPoint {
    /// A start has taken over what the process before left in the redo log, and has not begun the log anew.
    TakenOver,
    /// Messages have come, and nothing of them is stored.
    Receive,
    /// The writer has commands, and has done nothing of them.
    BeforeCommit,
    /// A record is written to the redo log, and not synced.
    LogWritten,
    /// A commit is durable, and nobody has been told.
    AfterCommit,
    /// A source knows that a message is stored, and has sent no acknowledgement.
    Acknowledge,
    /// A batch is about to be sent to an endpoint.
    ScoreSend,
    /// An endpoint has answered, and the answer is not stored.
    ScoreAnswer,
    /// Rows are about to be handed to an output.
    Deliver,
    /// The receiver has confirmed rows, and the position behind them is not stored.
    Delivered,
    /// The file is about to take over what the redo log holds.
    CheckpointBegin,
    /// It has taken that over in a transaction which is not committed.
    CheckpointWritten,
    /// The transaction is committed, and the redo log has not begun anew.
    CheckpointDone,
    /// Segments that nobody needs are deleted in a transaction which is not committed.
    Trim,
    /// Small segments are replaced by full ones in a transaction which is not committed.
    Merge,
}

#[cfg(not(debug_assertions))]
mod armed {
    use super::KillPoint;

    /// Nothing: this build has no kill points.
    ///
    /// # Errors
    /// None.
    pub fn arm() -> Result<(), String> {
        Ok(())
    }

    /// Nothing: this build has no kill points.
    #[inline(always)]
    pub fn reached(_: KillPoint) {}
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::KillPoint;

    const VARIABLE: &str = "FOREBAY_KILL_AT";

    /// Where this process ends, and how often it still passes that place.
    static ARMED: OnceLock<(KillPoint, AtomicU64)> = OnceLock::new();

    impl KillPoint {
        pub const ALL: [KillPoint; 15] = [
            KillPoint::TakenOver,
            KillPoint::Receive,
            KillPoint::BeforeCommit,
            KillPoint::LogWritten,
            KillPoint::AfterCommit,
            KillPoint::Acknowledge,
            KillPoint::ScoreSend,
            KillPoint::ScoreAnswer,
            KillPoint::Deliver,
            KillPoint::Delivered,
            KillPoint::CheckpointBegin,
            KillPoint::CheckpointWritten,
            KillPoint::CheckpointDone,
            KillPoint::Trim,
            KillPoint::Merge,
        ];

        /// As it is written in the environment.
        pub fn name(self) -> &'static str {
            match self {
                KillPoint::TakenOver => "taken-over",
                KillPoint::Receive => "receive",
                KillPoint::BeforeCommit => "before-commit",
                KillPoint::LogWritten => "log-written",
                KillPoint::AfterCommit => "after-commit",
                KillPoint::Acknowledge => "acknowledge",
                KillPoint::ScoreSend => "score-send",
                KillPoint::ScoreAnswer => "score-answer",
                KillPoint::Deliver => "deliver",
                KillPoint::Delivered => "delivered",
                KillPoint::CheckpointBegin => "checkpoint-begin",
                KillPoint::CheckpointWritten => "checkpoint-written",
                KillPoint::CheckpointDone => "checkpoint-done",
                KillPoint::Trim => "trim",
                KillPoint::Merge => "merge",
            }
        }
    }

    /// Takes what the environment says.
    ///
    /// # Errors
    /// What is written there is no kill point.
    pub fn arm() -> Result<(), String> {
        let Some(text) = std::env::var_os(VARIABLE) else { return Ok(()) };
        let (point, passes) = parse(&text.to_string_lossy())?;
        tracing::warn!(place = point.name(), passes, "this process kills itself, as {VARIABLE} says");
        // a process is armed once
        let _ = ARMED.set((point, AtomicU64::new(passes)));
        Ok(())
    }

    /// Ends the process where it is to end.
    pub fn reached(point: KillPoint) {
        let Some((armed, passes)) = ARMED.get() else { return };
        if *armed == point && passes.fetch_sub(1, Ordering::Relaxed) == 1 {
            // nothing runs behind it, on any thread
            let _ = kill_process(getpid(), Signal::KILL);
            std::process::abort();
        }
    }

    fn parse(text: &str) -> Result<(KillPoint, u64), String> {
        let (name, passes) = text.rsplit_once(':').unwrap_or((text, ""));
        let Some(point) = KillPoint::ALL.into_iter().find(|point| point.name() == name) else {
            let all = KillPoint::ALL.map(KillPoint::name).join(", ");
            return Err(format!("{VARIABLE}={text}: `{name}` is no kill point; write NAME:N with one of {all}"));
        };
        match passes.parse() {
            Ok(passes) if passes > 0 => Ok((point, passes)),
            _ => Err(format!(
                "{VARIABLE}={text}: behind the name stands which pass ends the process, from 1 on, as in `{name}:1`"
            )),
        }
    }

    #[cfg(test)]
    mod tests {
        use std::fs;
        use std::path::Path;

        use super::*;

        /// The points that are called below a folder, by their names in the code.
        fn called(folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    called(&path, found);
                } else if !path.ends_with("kill_point.rs") && path.extension().is_some_and(|e| e == "rs") {
                    let text = fs::read_to_string(&path).unwrap();
                    let calls = text.split("kill_point::reached(KillPoint::").skip(1);
                    found.extend(calls.map(|rest| rest.split(')').next().unwrap().to_owned()));
                }
            }
        }

        #[test]
        fn each_point_is_one_place_in_the_code_and_can_be_named() {
            let mut found = Vec::new();
            called(Path::new("src"), &mut found);
            found.sort();
            let mut all: Vec<String> = KillPoint::ALL.iter().map(|point| format!("{point:?}")).collect();
            all.sort();
            assert_eq!(found, all);
            for point in KillPoint::ALL {
                assert_eq!(parse(&format!("{}:7", point.name())), Ok((point, 7)));
            }
        }

        #[test]
        fn what_names_no_point_is_told_with_what_to_write() {
            let of = |text| parse(text).unwrap_err();
            assert!(of("befor-commit:1").starts_with(
                "FOREBAY_KILL_AT=befor-commit:1: `befor-commit` is no kill point; write NAME:N with one of taken-over,"
            ));
            for text in ["trim", "trim:", "trim:0", "trim:-1", "trim:x"] {
                assert!(of(text).contains("which pass ends the process, from 1 on, as in `trim:1`"), "{text}");
            }
        }
    }
}

pub use armed::{arm, reached};
