//! A connection that an input lends to outputs.
//!
//! In: the client of each connection of the input, once it may be used, and why it ended. Out: a [`Carrier`] to send
//! over, and the reason at its end, or why there is none. Invariant: a carrier is withdrawn once its client is gone. A
//! receipt that has not come by then never comes. Not here: connecting, receiving, sending.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

use super::connection::{CONNECT_TIMEOUT, Trouble};
use super::wire::Client;

/// How long a borrower waits for a connection before it says that there is none. An attempt to connect is over sooner,
/// so that it can say why.
const UP_TIMEOUT: Duration = CONNECT_TIMEOUT.saturating_add(Duration::from_secs(2));
/// How long a borrower that gives its loan back waits for the goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The line of one input.
#[derive(Debug, Default)]
pub(crate) struct Line {
    state: watch::Sender<Phase>,
    loans: watch::Sender<usize>,
    /// The number of the last connection that a borrower wants to be left, and why.
    unwanted: watch::Sender<(u64, String)>,
    /// Read by an output while it sends, written by one that looks for the row at fault: a broker that ends the
    /// connection then means that one.
    turns: Arc<RwLock<()>>,
    /// Messages of all outputs that the broker confirmed.
    confirmed: AtomicU64,
    /// Rows that were found to be the reason why connections ended.
    found: AtomicU64,
}

#[derive(Clone, Debug)]
enum Phase {
    Down(Gone),
    /// The broker accepted a connection that is not lent yet: why.
    Waiting(Gone, Trouble),
    Up(Carrier),
    /// There will be none any more.
    Closed(Trouble),
}

/// The last connection.
#[derive(Clone, Debug)]
struct Gone {
    number: u64,
    /// Why it ended.
    why: Trouble,
    /// Why there is no other one since.
    since: Option<Trouble>,
}

impl Default for Phase {
    fn default() -> Phase {
        let why = Trouble::new("it was not up so far".to_owned());
        Phase::Down(Gone { number: 0, why, since: None })
    }
}

/// A connection to send over.
#[derive(Clone, Debug)]
pub(crate) struct Carrier {
    pub client: Client,
    /// The broker's limit for a packet, bytes.
    pub packet_bytes_max: Option<u32>,
    number: u64,
}

/// What the input does with its line.
impl Line {
    /// Rows of outputs that were found to be the reason why connections ended.
    pub fn found_rows(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    /// Whether outputs use it.
    pub fn is_borrowed(&self) -> bool {
        *self.loans.borrow() > 0
    }

    /// Whether an output is sending.
    pub fn is_sending(&self) -> bool {
        self.turns.try_write().is_err()
    }

    /// Waits until no output uses it.
    pub async fn returned(&self) {
        // it cannot fail: the sender is ours
        let _ = self.loans.subscribe().wait_for(|loans| *loans == 0).await;
    }

    /// The broker accepted a connection, which is lent later: why.
    pub fn waits(&self, why: Trouble) {
        self.state.send_modify(|state| {
            if let Phase::Down(gone) | Phase::Waiting(gone, _) = state {
                *state = Phase::Waiting(gone.clone(), why);
            }
        });
    }

    /// A connection that the broker accepted is lent from now on.
    pub fn up(&self, client: Client, packet_bytes_max: Option<u32>) {
        self.state.send_modify(|state| {
            let number = state.number() + 1;
            *state = Phase::Up(Carrier { client, packet_bytes_max, number });
        });
    }

    /// The present connection ended, and its client is gone; or one could not be made that would have been offered.
    pub fn down(&self, trouble: Trouble) {
        self.state.send_modify(|state| match state {
            Phase::Up(Carrier { number, .. }) => {
                *state = Phase::Down(Gone { number: *number, why: trouble, since: None });
            }
            Phase::Down(gone) | Phase::Waiting(gone, _) => {
                *state = Phase::Down(Gone { since: Some(trouble), ..gone.clone() });
            }
            Phase::Closed(_) => {}
        });
    }

    /// There will be no connection any more.
    pub fn close(&self) {
        self.state.send_modify(|state| {
            *state = Phase::Closed(match state {
                Phase::Down(gone) => gone.trouble().clone(),
                Phase::Closed(trouble) => trouble.clone(),
                Phase::Waiting(..) | Phase::Up(_) => Trouble::new("the input ended".to_owned()),
            });
        });
    }

    /// Whether the last connection was left because an output wanted it.
    pub fn was_unwanted(&self) -> bool {
        let unwanted = self.unwanted.borrow().0;
        match &*self.state.borrow() {
            // what came since was not lent
            Phase::Down(Gone { number, since: None, .. }) => *number > 0 && *number == unwanted,
            Phase::Up(carrier) => carrier.number == unwanted,
            Phase::Down(_) | Phase::Waiting(..) | Phase::Closed(_) => false,
        }
    }

    /// Waits until an output wants the present connection to be left; gives why. Without an end while there is none.
    pub async fn unwanted(&self) -> String {
        let present = match &*self.state.borrow() {
            Phase::Up(carrier) => Some(carrier.number),
            Phase::Down(_) | Phase::Waiting(..) | Phase::Closed(_) => None,
        };
        let Some(present) = present else { return std::future::pending().await };
        let mut unwanted = self.unwanted.subscribe();
        let why = unwanted.wait_for(|(number, _)| *number == present).await.map(|unwanted| unwanted.1.clone());
        match why {
            Ok(why) => why,
            // it cannot be: the sender is ours
            Err(_) => std::future::pending().await,
        }
    }
}

impl Phase {
    fn number(&self) -> u64 {
        match self {
            Phase::Down(gone) | Phase::Waiting(gone, _) => gone.number,
            Phase::Up(carrier) => carrier.number,
            Phase::Closed(_) => u64::MAX,
        }
    }
}

impl Gone {
    fn trouble(&self) -> &Trouble {
        self.since.as_ref().unwrap_or(&self.why)
    }
}

/// The right of an output to use a line, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Loan(Arc<Line>);

impl Loan {
    pub fn of(line: Arc<Line>) -> Loan {
        line.loans.send_modify(|loans| *loans += 1);
        Loan(line)
    }

    /// A connection, waiting a while for one; else why there is none.
    pub async fn carrier(&self) -> Result<Carrier, Trouble> {
        let mut state = self.0.state.subscribe();
        let waiting = state.wait_for(|state| !matches!(state, Phase::Down(_) | Phase::Waiting(..)));
        // what ends the waiting is told by the state
        let _ = tokio::time::timeout(UP_TIMEOUT, waiting).await;
        self.present()
    }

    /// The connection, or why there is none now.
    pub fn present(&self) -> Result<Carrier, Trouble> {
        match &*self.0.state.borrow() {
            Phase::Up(carrier) => Ok(carrier.clone()),
            Phase::Down(gone) => Err(gone.trouble().clone()),
            Phase::Waiting(_, trouble) | Phase::Closed(trouble) => Err(trouble.clone()),
        }
    }

    /// Whether the connection is over.
    pub fn is_over(&self, carrier: &Carrier) -> bool {
        !self.0.state.borrow().is(carrier)
    }

    /// Waits for the end of the connection; gives why it ended, as far as that is still known.
    pub async fn ended(&self, carrier: &Carrier) -> Trouble {
        let mut state = self.0.state.subscribe();
        match state.wait_for(|state| !state.is(carrier)).await.as_deref() {
            Ok(Phase::Down(gone) | Phase::Waiting(gone, _)) if gone.number == carrier.number => gone.why.clone(),
            Ok(Phase::Closed(trouble)) => trouble.clone(),
            _ => Trouble::new("the connection ended".to_owned()),
        }
    }

    /// Asks the input to leave the connection, and waits until it has; gives why it ended when it was over already.
    pub async fn leave(&self, carrier: &Carrier, why: String) -> Option<Trouble> {
        if self.is_over(carrier) {
            return Some(self.ended(carrier).await);
        }
        self.0.unwanted.send_if_modified(|unwanted| {
            let is_newer = unwanted.0 < carrier.number;
            if is_newer {
                *unwanted = (carrier.number, why);
            }
            is_newer
        });
        self.ended(carrier).await;
        None
    }

    /// The right to send: beside other outputs, or alone. One that has the line alone knows that a broker which ends
    /// the connection means it.
    pub async fn send_right(&self, alone: bool) -> SendRight {
        match alone {
            true => SendRight::Alone { _guard: self.0.turns.clone().write_owned().await },
            false => SendRight::Beside { _guard: self.0.turns.clone().read_owned().await },
        }
    }

    /// The broker confirmed a message of ours.
    pub fn confirmed(&self) {
        self.0.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    /// A row of ours is why the connections that were closed last ended.
    pub fn found_row(&self) {
        self.0.found.fetch_add(1, Ordering::Relaxed);
    }

    /// How many it confirmed, of all outputs that use the line: they share what may be under way.
    pub fn confirmations(&self) -> u64 {
        self.0.confirmed.load(Ordering::Relaxed)
    }

    /// Whether other outputs use the line too.
    pub fn is_shared(&self) -> bool {
        *self.0.loans.borrow() > 1
    }

    /// Gives the loan back. The last one waits a while for the goodbye: an input that was stopped stays for it.
    pub async fn give_back(self) {
        let line = self.0.clone();
        drop(self);
        let has_connection = matches!(*line.state.borrow(), Phase::Waiting(..) | Phase::Up(_));
        if line.is_borrowed() || !has_connection {
            return;
        }
        let mut state = line.state.subscribe();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, state.wait_for(|state| matches!(state, Phase::Closed(_)))).await;
    }
}

/// See [`Loan::send_right`].
#[derive(Debug)]
pub(crate) enum SendRight {
    Alone { _guard: OwnedRwLockWriteGuard<()> },
    Beside { _guard: OwnedRwLockReadGuard<()> },
}

impl Phase {
    fn is(&self, carrier: &Carrier) -> bool {
        matches!(self, Phase::Up(present) if present.number == carrier.number)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.0.loans.send_modify(|loans| *loans = loans.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::wire;

    async fn client() -> Client {
        wire::unpolled().await.0
    }

    #[tokio::test]
    async fn a_borrower_hears_why_there_is_no_connection_now_and_why_its_own_ended() {
        let line = Arc::new(Line::default());
        let loan = Loan::of(line.clone());
        let trouble = |text: &str| Trouble::new(text.to_owned());
        line.down(trouble("nothing listens"));
        assert_eq!(loan.present().unwrap_err().text, "nothing listens");
        line.up(client().await, None);
        let carrier = loan.present().unwrap();
        line.down(trouble("a row ended it"));
        assert_eq!(loan.present().unwrap_err().text, "a row ended it");
        line.down(trouble("the login is refused"));
        assert_eq!(loan.present().unwrap_err().text, "the login is refused");
        assert_eq!(loan.ended(&carrier).await.text, "a row ended it");
        line.waits(trouble("it was accepted"));
        assert_eq!(loan.present().unwrap_err().text, "it was accepted");
        assert_eq!(loan.ended(&carrier).await.text, "a row ended it");
        line.down(trouble("the login is refused"));
        line.close();
        assert_eq!(loan.present().unwrap_err().text, "the login is refused");
    }

    #[tokio::test]
    async fn a_borrower_that_waited_in_vain_hears_the_true_cause() {
        let refuses: fn(&Line) = |line| line.down(Trouble::new("nothing answers".to_owned()));
        let accepts: fn(&Line) = |line| line.waits(Trouble::new("the status is not answered".to_owned()));
        for (told, cause) in [
            (vec![], "it was not up so far"),
            (vec![refuses], "nothing answers"),
            (vec![accepts], "the status is not answered"),
            (vec![refuses, accepts], "the status is not answered"),
            (vec![accepts, refuses], "nothing answers"),
            (vec![refuses, accepts, refuses, accepts], "the status is not answered"),
        ] {
            let line = Arc::new(Line::default());
            let loan = Loan::of(line.clone());
            let is_waiting = tokio::time::timeout(Duration::ZERO, loan.carrier()).await.is_err();
            assert!(is_waiting);
            told.iter().for_each(|tell| tell(&line));
            let is_waiting = tokio::time::timeout(Duration::ZERO, loan.carrier()).await.is_err();
            assert!(is_waiting, "it may come yet: {cause}");
            assert_eq!(loan.present().unwrap_err().text, cause);
        }
        // what an attempt to connect has to say is there by then
        assert!(UP_TIMEOUT > CONNECT_TIMEOUT);
    }

    #[tokio::test]
    async fn the_last_borrower_waits_for_the_goodbye_of_each_connection_that_is_there() {
        let accepts: fn(&Line, Client) = |line, _| line.waits(Trouble::new("the status is not answered".to_owned()));
        let lends: fn(&Line, Client) = |line, client| line.up(client, None);
        let loses: fn(&Line, Client) = |line, _| line.down(Trouble::new("it ended".to_owned()));
        for (last, waits) in [(accepts, true), (lends, true), (loses, false)] {
            let line = Arc::new(Line::default());
            let (one, other) = (Loan::of(line.clone()), Loan::of(line.clone()));
            last(&line, client().await);
            let soon = Duration::from_millis(20);
            assert!(tokio::time::timeout(soon, one.give_back()).await.is_ok(), "another still has the line");
            let returning = other.give_back();
            tokio::pin!(returning);
            assert_eq!(tokio::time::timeout(soon, &mut returning).await.is_err(), waits);
            if waits {
                assert!(!line.is_borrowed());
                line.close();
                assert!(tokio::time::timeout(soon, returning).await.is_ok());
            }
        }
    }

    #[tokio::test]
    async fn the_input_knows_that_an_output_wanted_the_connection_left() {
        let line = Arc::new(Line::default());
        let loan = Loan::of(line.clone());
        for is_wanted in [true, false] {
            line.up(client().await, None);
            let carrier = loan.present().unwrap();
            if !is_wanted {
                let leaving = loan.leave(&carrier, "it confirms nothing".to_owned());
                let input = async {
                    assert_eq!(line.unwanted().await, "it confirms nothing");
                    line.down(Trouble::new("left".to_owned()));
                };
                tokio::join!(leaving, input);
            } else {
                line.down(Trouble::new("lost".to_owned()));
            }
            assert_eq!(line.was_unwanted(), !is_wanted);
        }
    }
}
