//! Which version of MQTT is spoken.
//!
//! In: the setting, and how connections ended. Out: the version of the next connection. Invariant: a broker that
//! accepted MQTT 5 once is left only for what it says or sends, never for a connection that it closed. Not here:
//! connecting.

use super::broker::Protocol;
use super::connection::{Misfit, Trouble};

/// Connections closed before they were accepted that count as "it does not speak MQTT 5": one may be a broker that is
/// just going down.
const CLOSED_MAX: u32 = 2;

/// The version that is spoken, and why.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    /// The job file names none.
    is_free: bool,
    now: Protocol,
    has_accepted_5: bool,
    /// Connections in MQTT 5 that were closed before they were accepted, one after another.
    closed: u32,
    /// Why MQTT 5 was left; told when the other one works.
    left: Option<String>,
    has_accepted_311: bool,
}

impl Choice {
    pub fn new(setting: Option<Protocol>) -> Choice {
        let now = setting.unwrap_or(Protocol::V5);
        Choice {
            is_free: setting.is_none(),
            now,
            has_accepted_5: false,
            closed: 0,
            left: None,
            has_accepted_311: false,
        }
    }

    pub fn now(&self) -> Protocol {
        self.now
    }

    /// A connection was accepted. Gives once why MQTT 3.1.1 is spoken.
    pub fn accepted(&mut self) -> Option<String> {
        self.closed = 0;
        match self.now {
            Protocol::V5 => self.has_accepted_5 = true,
            Protocol::V311 => self.has_accepted_311 = true,
        }
        self.left.take()
    }

    /// A connection ended. `true`: the other version is to be tried now, and there is nothing to tell yet.
    pub fn failed(&mut self, trouble: &Trouble) -> bool {
        if !self.is_free {
            return false;
        }
        match (self.now, trouble.misfit) {
            (Protocol::V5, Some(Misfit::Closed)) if !self.has_accepted_5 => {
                self.closed += 1;
                self.closed >= CLOSED_MAX && self.leave_5(trouble)
            }
            (Protocol::V5, Some(Misfit::Refused | Misfit::Broken)) => self.leave_5(trouble),
            // it was no matter of the version
            (Protocol::V311, Some(_)) if !self.has_accepted_311 => {
                *self = Choice { has_accepted_5: self.has_accepted_5, ..Choice::new(None) };
                false
            }
            _ => false,
        }
    }

    fn leave_5(&mut self, trouble: &Trouble) -> bool {
        self.now = Protocol::V311;
        self.closed = 0;
        self.left = Some(trouble.text.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Protocol::{V5, V311};

    fn lost(misfit: Option<Misfit>) -> Trouble {
        Trouble { misfit, ..Trouble::new("why".to_owned()) }
    }

    #[test]
    fn what_the_broker_says_or_sends_decides_at_once() {
        for misfit in [Misfit::Refused, Misfit::Broken] {
            let mut choice = Choice::new(None);
            assert_eq!(choice.now(), V5);
            assert!(choice.failed(&lost(Some(misfit))));
            assert_eq!(choice.now(), V311);
            assert_eq!(choice.accepted().as_deref(), Some("why"));
            assert_eq!(choice.accepted(), None, "told once");
            assert!(!choice.failed(&lost(Some(Misfit::Closed))));
            assert_eq!(choice.now(), V311, "it works");
        }
        let mut choice = Choice::new(None);
        choice.accepted();
        assert!(choice.failed(&lost(Some(Misfit::Broken))), "also after it was accepted");
    }

    #[test]
    fn a_closed_connection_decides_only_at_the_second_time_and_never_after_an_accepted_one() {
        let mut choice = Choice::new(None);
        assert!(!choice.failed(&lost(Some(Misfit::Closed))));
        assert!(!choice.failed(&lost(None)));
        assert!(choice.failed(&lost(Some(Misfit::Closed))));
        assert_eq!(choice.now(), V311);
        assert!(!choice.failed(&lost(Some(Misfit::Closed))), "it closes this one too");
        assert_eq!(choice.now(), V5);

        let mut choice = Choice::new(None);
        choice.accepted();
        for _ in 0..10 {
            assert!(!choice.failed(&lost(Some(Misfit::Closed))));
        }
        assert_eq!(choice.now(), V5);
    }

    #[test]
    fn a_version_that_the_job_file_names_stays() {
        for setting in [V5, V311] {
            let mut choice = Choice::new(Some(setting));
            for misfit in [Misfit::Refused, Misfit::Broken, Misfit::Closed, Misfit::Closed] {
                assert!(!choice.failed(&lost(Some(misfit))));
            }
            assert_eq!(choice.now(), setting);
        }
    }
}
