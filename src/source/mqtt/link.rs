//! One connection as the tokens see it.
//!
//! In: ranges received, tokens resolved on any thread. Out: acknowledgements into the client's queue. Invariant: a link
//! belongs to one connection and one client object; once closed it sends nothing, so a token can never acknowledge a
//! message of a later connection that happens to have the same packet id. Not here: the network.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::acks::Acks;
use super::send_window::SendWindow;
use crate::batch::Urgency;
use crate::kill_point::{self, KillPoint};
use crate::mqtt::socket::Ending;
use crate::mqtt::status::{JobState, Status, StatusAnswer};
use crate::mqtt::wire::{Client, Queued};
use crate::source::Acknowledge;
use crate::source::stats::{SourceStats, add};
use crate::time::task_now;

/// Acknowledges the messages of one range.
#[derive(Debug)]
#[must_use = "dropping it acknowledges nothing and makes the source connect again"]
pub(super) struct AckToken {
    link: Arc<Link>,
    range: u64,
    is_resolved: bool,
}

impl Acknowledge for AckToken {
    fn stored(mut self: Box<Self>) {
        self.is_resolved = true;
        self.link.stored(self.range);
    }
}

impl Drop for AckToken {
    fn drop(&mut self) {
        if !self.is_resolved {
            self.link.given_up(self.range);
        }
    }
}

#[derive(Debug)]
pub(super) struct Link {
    state: Mutex<LinkState>,
    /// A range was resolved.
    changed: Notify,
    ending: Ending,
    stats: Arc<SourceStats>,
    /// The input stops: what is given up from then on does not end the connection.
    stop: CancellationToken,
}

#[derive(Debug)]
struct LinkState {
    acks: Acks,
    window: SendWindow,
    /// Released and not yet taken by the client's queue, which may be full for a moment.
    backlog: VecDeque<u16>,
    /// `None` once the connection is closed.
    client: Option<Client>,
    /// Disconnect as soon as nothing is unresolved.
    is_stopping: bool,
    has_said_goodbye: bool,
    /// The job stops: the broker is told before the goodbye.
    is_last: bool,
    /// The goodbye does not wait for what is unresolved.
    is_hurried: bool,
    /// `None` without one, and once the last word was taken.
    status: Option<Status>,
    last_word: Option<StatusAnswer>,
}

impl Link {
    pub fn new(
        client: Client,
        ending: Ending,
        window: SendWindow,
        stats: Arc<SourceStats>,
        status: Option<Status>,
        stop: CancellationToken,
    ) -> Link {
        let state = LinkState {
            acks: Acks::default(),
            window,
            backlog: VecDeque::new(),
            client: Some(client),
            is_stopping: false,
            has_said_goodbye: false,
            is_last: false,
            is_hurried: false,
            status,
            last_word: None,
        };
        Link { state: Mutex::new(state), changed: Notify::new(), ending, stats, stop }
    }

    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more is taken from the network; acknowledgements still leave.
    pub fn read_nothing(&self) {
        self.ending.read_nothing();
    }

    /// What comes is taken again.
    pub fn read_on(&self) {
        self.ending.read_on();
    }

    /// Registers what was received and gives its token.
    pub fn receive(self: &Arc<Self>, packet_ids: Vec<u16>, bytes: usize, qos0: u64) -> AckToken {
        let mut state = self.lock();
        let under_way = state.acks.messages();
        if !packet_ids.is_empty() {
            state.window.received(under_way, under_way + packet_ids.len(), task_now());
        }
        let range = state.acks.receive(packet_ids, bytes, qos0);
        self.publish_bytes(&state);
        AckToken { link: self.clone(), range, is_resolved: false }
    }

    fn stored(&self, range: u64) {
        let mut state = self.lock();
        let LinkState { acks, backlog, .. } = &mut *state;
        acks.stored(range, backlog);
        state.send_backlog();
        self.resolved(&mut state);
    }

    fn given_up(&self, range: u64) {
        let mut state = self.lock();
        add(&self.stats.lost_qos0, state.acks.given_up(range));
        if !state.is_stopping && !self.stop.is_cancelled() && !state.has_said_goodbye {
            state.has_said_goodbye = true;
            self.disconnect_now(&state);
        }
        self.resolved(&mut state);
    }

    fn resolved(&self, state: &mut LinkState) {
        self.publish_bytes(state);
        self.disconnect_when_done(state);
        self.changed.notify_one();
    }

    fn publish_bytes(&self, state: &LinkState) {
        self.stats.unacked_bytes.store(state.acks.bytes() as u64, Ordering::Relaxed);
    }

    /// When the answer to the last word is to be there.
    pub fn answer_due(&self) -> Option<Instant> {
        self.lock().last_word.as_ref().map(StatusAnswer::due)
    }

    /// Tries again what the client's queue had no room for, and looks for the answer to the last word.
    pub fn send_backlog(&self) {
        let mut state = self.lock();
        state.send_backlog();
        self.disconnect_when_done(&mut state);
    }

    /// Whether the broker waits for the acknowledgement of this packet id.
    pub fn holds(&self, packet_id: u16) -> bool {
        self.lock().acks.holds(packet_id)
    }

    pub fn bytes(&self) -> usize {
        self.lock().acks.bytes()
    }

    /// How soon what is not acknowledged has to be stored.
    pub fn urgency(&self) -> Urgency {
        let state = self.lock();
        state.window.urgency(state.acks.messages(), state.acks.bytes())
    }

    /// Waits until at most `bytes` are unresolved.
    pub async fn room(&self, bytes: usize) {
        while self.bytes() > bytes {
            self.changed.notified().await;
        }
    }

    /// Waits until every token is resolved.
    pub async fn all_resolved(&self) {
        while self.lock().acks.unresolved() > 0 {
            self.changed.notified().await;
        }
    }

    /// The job stops: disconnects when the last token is resolved.
    pub fn stop(&self) {
        self.lock().is_last = true;
        self.leave();
    }

    /// Disconnects when the last token is resolved.
    pub fn leave(&self) {
        let mut state = self.lock();
        state.is_stopping = true;
        self.disconnect_when_done(&mut state);
    }

    /// The job stops: disconnects at once, or behind the last word where there is one.
    pub fn stop_now(&self) {
        let mut state = self.lock();
        if state.status.is_none() {
            return self.disconnect_now(&state);
        }
        (state.is_stopping, state.is_last, state.is_hurried) = (true, true, true);
        self.disconnect_when_done(&mut state);
    }

    fn disconnect_now(&self, state: &LinkState) {
        // a goodbye that is only collected would never leave
        self.ending.is_coming();
        if let Some(client) = &state.client {
            client.disconnect_now();
        }
    }

    fn disconnect_when_done(&self, state: &mut LinkState) {
        let is_done = state.acks.unresolved() == 0 && state.backlog.is_empty();
        if !state.is_stopping || state.has_said_goodbye || !(is_done || state.is_hurried) {
            return;
        }
        // a goodbye would overtake it
        if state.is_last && !state.has_last_word() {
            return;
        }
        self.ending.is_coming();
        // behind the acknowledgements in the same queue; where that is full, each that leaves it gives the event loop
        // an event, and then we try again
        let queued = state.client.as_ref().map(Client::disconnect);
        state.has_said_goodbye = queued != Some(Queued::Full);
    }

    /// The client is gone: nothing is sent from here on. After a goodbye this waits until the broker has read all.
    pub async fn close(&self) {
        {
            let mut state = self.lock();
            state.client = None;
            state.backlog.clear();
        }
        self.ending.closed_by_peer().await;
    }

    /// Packet ids of the batches that were given up.
    pub fn lost_ids(&self) -> Vec<u16> {
        self.lock().acks.lost_ids().collect()
    }
}

/// Waits until every token is resolved; for ever where there is no link.
pub(super) async fn settled(link: Option<Arc<Link>>) {
    match link {
        Some(link) => link.all_resolved().await,
        None => std::future::pending().await,
    }
}

impl LinkState {
    /// Whether the broker knows that the job stopped, or there is no way to tell it.
    fn has_last_word(&mut self) -> bool {
        let (Some(status), Some(client)) = (&self.status, &self.client) else { return true };
        match &mut self.last_word {
            // it was refused at the beginning
            None if !status.is_due() => self.status = None,
            None => match status.tell(client, JobState::Stopped) {
                Ok(told) => self.last_word = Some(told),
                // an event follows when there is room
                Err(Queued::Full) => {}
                Err(Queued::Gone | Queued::Yes) => self.status = None,
            },
            Some(told) => {
                // the answer is an event of the connection
                if let Some(receipt) = told.look() {
                    status.note(&receipt);
                    (self.status, self.last_word) = (None, None);
                }
            }
        }
        self.status.is_none()
    }

    fn send_backlog(&mut self) {
        let Some(client) = &self.client else {
            self.backlog.clear();
            return;
        };
        while let Some(&packet_id) = self.backlog.front() {
            kill_point::reached(KillPoint::Acknowledge);
            match client.acknowledge(packet_id) {
                // each acknowledgement that leaves the queue gives the event loop an event, and then we try again
                Queued::Full => return,
                // the event loop ended: the connection is about to be closed
                Queued::Gone => self.backlog.clear(),
                Queued::Yes => {
                    self.backlog.pop_front();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Span;
    use crate::mqtt::Protocol;
    use crate::mqtt::status::StatusTopic;
    use crate::mqtt::wire::{self, Inbound};

    /// A link over a client that nobody polls; its inbound half keeps the queue open.
    async fn link(status: Option<Status>) -> (Arc<Link>, CancellationToken, Inbound) {
        let (client, inbound) = wire::unpolled().await;
        let stop = CancellationToken::new();
        let window = SendWindow::new(Protocol::V5, 1000, 1 << 20);
        (Arc::new(Link::new(client, Ending::new(), window, Arc::default(), status, stop.clone())), stop, inbound)
    }

    fn has_said_goodbye(link: &Link) -> bool {
        link.lock().has_said_goodbye
    }

    #[tokio::test]
    async fn what_is_given_up_ends_the_connection_unless_the_input_stops() {
        let (running, ..) = link(None).await;
        drop(running.receive(vec![1], 10, 0));
        assert!(has_said_goodbye(&running));

        let (stopping, stop, _inbound) = link(None).await;
        let stored = stopping.receive(vec![1], 10, 0);
        let waiting = stopping.receive(vec![], 10, 1);
        stop.cancel();
        drop(waiting);
        assert!(!has_said_goodbye(&stopping), "an acknowledgement is still to come");
        stopping.stop();
        assert!(!has_said_goodbye(&stopping));
        Box::new(stored).stored();
        assert!(has_said_goodbye(&stopping));
    }

    #[tokio::test]
    async fn a_goodbye_waits_for_the_answer_to_the_last_word_as_long_as_one_may_take() {
        let status = Status::new(&StatusTopic { topic: "state".to_owned(), span: Span::default() }, "taxi");
        let (link, _stop, _inbound) = link(Some(status.clone())).await;
        assert_eq!(link.answer_due(), None);
        link.stop();
        assert!(link.answer_due().is_some());
        link.send_backlog();
        assert!(!has_said_goodbye(&link) && status.is_due());
        link.lock().last_word.as_mut().unwrap().come_due();
        link.send_backlog();
        assert!(has_said_goodbye(&link) && !status.is_due());
        assert_eq!(link.answer_due(), None);
    }
}
