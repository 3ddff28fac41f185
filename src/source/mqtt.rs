//! The MQTT source: one task that connects, receives and hands over, for as long as the job runs.
//!
//! In: a checked config, the newest records of the journal, a clock. Out: [`Arrivals`] through a bounded channel.
//! Invariant: a connection takes messages only when every token of earlier connections is resolved, so a packet id
//! never means two messages at once and what we hold is what one connection received. Not here: what is stored, the
//! task itself (`receiver`).

pub mod acks;
mod end;
mod greeting;
mod hand_over;
mod intern;
mod link;
mod lull;
mod poison;
mod receiver;
pub mod redelivery;
mod send_window;
mod settings;
mod subscription;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::stats::SourceStats;
use super::{Arrivals, Identity, RecentRecord, Source, StoredIn};
use crate::arrival::ArrivalClock;
use crate::mqtt::Connector;
use crate::mqtt::line::Line;
use crate::time::{Clock, Timestamp};
use hand_over::Sorter;
use intern::Interner;
use link::Link;
use receiver::Receiver;
use redelivery::Seen;

pub use settings::MqttSourceConfig;
pub(super) use settings::read;

/// Batches on their way to the intake. Their bytes are bounded by `unacked_bytes_max`; this bounds how many small ones
/// wait, and is more than a commit interval gives.
const BATCHES_MAX: usize = 1_024;
/// Messages remembered to recognise redeliveries: at least these, at about 100 bytes each, since brokers exceed the
/// window they were given, and four windows if that is more.
const SEEN_MIN: usize = 16_384;
const SEEN_WINDOWS: usize = 4;
/// How long a stop waits for what was received to be stored.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A running source. Dropping it ends the task without a goodbye; [`Source::stop`] says one.
#[derive(Debug)]
pub struct MqttSource {
    stats: Arc<SourceStats>,
    stop: CancellationToken,
    current: Current,
    line: Arc<Line>,
    task: Option<JoinHandle<()>>,
}

/// How a source comes to its messages.
struct Way {
    line: Arc<Line>,
    broker: Connector,
    /// The broker may have a session of ours.
    is_known: bool,
    stored_in: StoredIn,
}

/// The link of the present connection.
type Current = Arc<Mutex<Option<Arc<Link>>>>;

impl MqttSource {
    /// Starts receiving. `recent` are the newest records of this input in the journal, oldest first; a few thousand do.
    /// `keeps_bytes`: what is stored is the payload as it came. It does not tell the broker of its job, and stamps by
    /// `clock` as it is at the start of a new pool. The channel
    /// ends when the source was stopped. Needs a tokio runtime.
    pub fn start<'a>(
        config: MqttSourceConfig,
        identity: Identity,
        recent: impl IntoIterator<Item = RecentRecord<'a>>,
        keeps_bytes: bool,
        clock: Clock,
    ) -> (MqttSource, mpsc::Receiver<Arrivals>) {
        let broker = Connector::new(config.broker.clone(), identity.name);
        let stored_in: StoredIn = Arc::new(|| Duration::ZERO);
        let way = Way { line: Arc::default(), broker, is_known: identity.is_known, stored_in };
        Self::start_on(way, config, recent, keeps_bytes, ArrivalClock::new(clock, Timestamp::MIN))
    }

    /// As [`MqttSource::start`]; the connection is offered on a line, and the connector may have a status to tell.
    fn start_on<'a>(
        way: Way,
        config: MqttSourceConfig,
        recent: impl IntoIterator<Item = RecentRecord<'a>>,
        keeps_bytes: bool,
        clock: ArrivalClock,
    ) -> (MqttSource, mpsc::Receiver<Arrivals>) {
        let stats = Arc::new(SourceStats::default());
        let stop = CancellationToken::new();
        let current = Current::default();
        let (out, arrivals) = mpsc::channel(BATCHES_MAX);
        let mut seen = Seen::new((usize::from(config.receive_maximum) * SEEN_WINDOWS).max(SEEN_MIN));
        seen.seed(recent);
        let Way { line, broker, is_known, stored_in } = way;
        let ends = receiver::Ends {
            out,
            stored_in,
            stats: stats.clone(),
            stop: stop.clone(),
            current: current.clone(),
            line: line.clone(),
        };
        let sorter = Sorter {
            seen,
            interner: Interner::new(config.topics.clone()),
            keeps_bytes,
            unacked_bytes_max: config.unacked_bytes_max,
            clock,
            stats: stats.clone(),
        };
        let receiver = Receiver::new(config, broker, sorter, is_known, ends);
        let task = tokio::spawn(receiver.run().in_current_span());
        (MqttSource { stats, stop, current, line, task: Some(task) }, arrivals)
    }

    /// Takes no further messages, waits up to 5 s until those handed over are stored and acknowledged, and says goodbye
    /// to the broker, which keeps the session. Where outputs send over the connection, the goodbye follows when the
    /// last of them is done.
    pub async fn stop(mut self) {
        let is_lent_on = self.line.is_borrowed();
        let current = || self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let link = current();
        self.stop.cancel();
        if is_lent_on {
            if let Some(link) = link {
                let _ = tokio::time::timeout(STOP_TIMEOUT, link.all_resolved()).await;
            }
            // it ends by itself
            self.task = None;
            return;
        }
        if let Some(link) = current() {
            link.stop();
        }
        let Some(mut task) = self.task.take() else { return };
        if tokio::time::timeout(STOP_TIMEOUT, &mut task).await.is_ok() {
            return;
        }
        if let Some(link) = current() {
            link.stop_now();
        }
        if tokio::time::timeout(STOP_TIMEOUT, &mut task).await.is_err() {
            task.abort();
        }
    }
}

impl Source for MqttSource {
    fn stats(&self) -> &Arc<SourceStats> {
        &self.stats
    }

    fn stop(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(MqttSource::stop(*self))
    }
}

impl Drop for MqttSource {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
