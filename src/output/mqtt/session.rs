//! One connection to a broker, for sending: of our own, or that of an input.
//!
//! In: a [`Way`] to the broker. Out: a [`Session`], and at its end why it ended. Invariant: somebody polls it until the
//! connection ends. Not here: what is sent, when to try again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::error::Elapsed;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::mqtt::line::{Carrier, Line, Loan, SendRight};
use crate::mqtt::socket::Ending;
use crate::mqtt::status::{JobState, Status, StatusAnswer};
use crate::mqtt::wire::{self, BrokerReceipt, Client, Inbound, Incoming, Opening, PollError, Queued};
use crate::mqtt::{BrokerConfig, Choice, Closings, Connector, Trouble};
use crate::time::{task_now, task_since};

/// Messages under way at once.
pub const WINDOW: u16 = wire::OUTGOING_WINDOW;
/// Requests the client writes with one system call.
const REQUEST_BATCH: usize = 128;
/// A goodbye is not worth waiting for longer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// See [`Way::within`].
const OTHERS_FIRST: u32 = 4;

/// How to come to a session.
#[derive(Debug)]
pub enum Way {
    Own(Box<Connector>, Choice, Closings),
    /// Over the connection of an input.
    Input(String, Loan),
}

impl Way {
    pub fn own(broker: BrokerConfig, client_id: String, job: &str) -> Way {
        let choice = Choice::new(broker.protocol);
        let broker = Connector::new(broker, client_id).of_job(job);
        Way::Own(Box::new(broker), choice, Closings::default())
    }

    pub fn of_input(name: &str, line: Arc<Line>) -> Way {
        Way::Input(name.to_owned(), Loan::of(line))
    }

    /// A session that the broker accepted.
    pub async fn open(&mut self) -> Result<Session, Trouble> {
        let (broker, choice) = match self {
            Way::Own(broker, choice, _) => (broker, choice),
            Way::Input(name, loan) => {
                let waiting = |trouble: Trouble| {
                    Trouble::new(format!("waiting for the connection of input `{name}`: {}", trouble.text))
                };
                return loan.carrier().await.map(Session::over).map_err(waiting);
            }
        };
        let session = Session::open(broker, choice).await?;
        if let Some(why) = choice.accepted() {
            tracing::warn!("speaking MQTT 3.1.1 from here on, in which rows have no user property: {why}");
        }
        Ok(session)
    }

    /// Waits until the broker has answered what the session told it of the job; to be called before rows are sent. A
    /// broker that ends the connection because of it means no row. May be dropped and called again; after an error the
    /// session is over.
    pub async fn greeted(&self, session: &mut Session) -> Result<(), Trouble> {
        let Way::Own(broker, ..) = self else { return Ok(()) };
        let (Some(status), Some(told), Held::Own { task, .. }) =
            (&broker.status, &mut session.greeting, &mut session.held)
        else {
            return Ok(());
        };
        let receipt = told.receipt().await;
        session.greeting = None;
        status.note(&receipt);
        session.since = task_now();
        if receipt != BrokerReceipt::Unknown {
            return Ok(());
        }
        let gone = |_| Trouble::new(format!("the connection to {} ended", broker.config.address));
        let mut trouble = task.await.unwrap_or_else(gone);
        trouble.text.push_str(&status.may_be_why());
        Err(trouble)
    }

    /// A session ended, or there was none. `true`: the other version is to be tried now.
    pub fn failed(&mut self, trouble: &Trouble) -> bool {
        match self {
            Way::Own(_, choice, _) => choice.failed(trouble),
            // the input chooses the version
            Way::Input(..) => false,
        }
    }

    /// Whether the session is over.
    pub fn is_over(&self, session: &Session) -> bool {
        match (self, &session.held) {
            (Way::Input(_, loan), Held::Lent(carrier)) => loan.is_over(carrier),
            (_, Held::Own { task, .. }) => task.is_finished(),
            (Way::Own(..), Held::Lent(_)) => true,
        }
    }

    /// Why the session ended. It is over, or about to be. `at_message`: one message was under way, which may have been
    /// the reason; `is_told`: the caller tells the reason.
    pub async fn ended(&mut self, session: Session, at_message: bool, is_told: bool) -> Trouble {
        let held = task_since(session.since);
        match (self, session.held) {
            (Way::Input(_, loan), Held::Lent(carrier)) => loan.ended(&carrier).await,
            (Way::Own(broker, _, closings), Held::Own { task, .. }) => match task.await {
                Ok(trouble) => {
                    let judged = closings.judge(trouble.clone(), Some(held), broker);
                    if at_message {
                        return trouble;
                    }
                    if closings.begins_to_tell() && !is_told {
                        tracing::warn!("{}", judged.text);
                    }
                    judged
                }
                Err(_) => Trouble::new(format!("the connection to {} ended", broker.config.address)),
            },
            (Way::Own(..), Held::Lent(_)) | (Way::Input(..), Held::Own { .. }) => {
                Trouble::new("no connection".to_owned())
            }
        }
    }

    /// Whether the broker closes each connection soon. Those of an input are counted there.
    pub fn is_closed_soon(&self) -> bool {
        match self {
            Way::Own(_, _, closings) => closings.tells(),
            Way::Input(..) => false,
        }
    }

    /// The connections that were closed last were the work of a row.
    pub fn found_row(&mut self) {
        match self {
            Way::Own(_, _, closings) => *closings = Closings::default(),
            Way::Input(_, loan) => loan.found_row(),
        }
    }

    /// Waits until the session is over: a receipt that has not come by then never comes.
    pub async fn over(&self, session: &Session) {
        match (self, &session.held) {
            (Way::Input(_, loan), Held::Lent(carrier)) => {
                loan.ended(carrier).await;
            }
            (_, Held::Own { ended, .. }) => ended.cancelled().await,
            (Way::Own(..), Held::Lent(_)) => {}
        }
    }

    /// The right to send, where several outputs share a connection.
    pub async fn send_right(&self, alone: bool) -> Option<SendRight> {
        match self {
            Way::Own(..) => None,
            Way::Input(_, loan) => Some(loan.send_right(alone).await),
        }
    }

    /// Whether a connection that the broker ended because of a message means one of ours.
    pub fn is_meant(&self, right: Option<&SendRight>) -> bool {
        match self {
            Way::Own(..) => true,
            Way::Input(_, loan) => matches!(right, Some(SendRight::Alone { .. })) || !loan.is_shared(),
        }
    }

    /// The broker confirmed a message.
    pub fn confirmed(&self) {
        if let Way::Input(_, loan) = self {
            loan.confirmed();
        }
    }

    /// Messages that the broker confirmed to others that share the connection, and to us; 0 on our own.
    pub fn confirmations(&self) -> u64 {
        match self {
            Way::Own(..) => 0,
            Way::Input(_, loan) => loan.confirmations(),
        }
    }

    /// Waits for what the broker has to do, `patience` at most; longer, up to [`OTHERS_FIRST`] times that, while it
    /// confirms messages of other outputs that share the connection: ours may wait behind them.
    pub async fn within<T>(&self, patience: Duration, what: impl Future<Output = T>) -> Result<T, Elapsed> {
        tokio::pin!(what);
        let mut times = 0;
        loop {
            let before = self.confirmations();
            let done = tokio::time::timeout(patience, &mut what).await;
            times += 1;
            if done.is_ok() || times >= OTHERS_FIRST || self.confirmations() == before {
                return done;
            }
        }
    }

    /// Leaves a session in which the broker confirms nothing, or not the message to this topic.
    pub async fn leave(&self, session: Session, topic: Option<&str>, patience: Duration) -> Trouble {
        let what = match topic {
            Some(topic) => format!("did not confirm a row to topic `{topic}`"),
            None => "confirmed nothing".to_owned(),
        };
        let text = format!("{self} {what} within {} s; connecting again", patience.as_secs_f64());
        let known = match (self, session.held) {
            (Way::Input(_, loan), Held::Lent(carrier)) => loan.leave(&carrier, text.clone()).await,
            (_, Held::Own { task, .. }) => {
                task.abort();
                None
            }
            (Way::Own(..), Held::Lent(_)) => None,
        };
        known.unwrap_or_else(|| Trouble { is_ours: true, ..Trouble::new(text) })
    }

    /// Whether the connection tells the broker of the job.
    pub fn tells_status(&self) -> bool {
        match self {
            Way::Own(broker, ..) => broker.status.is_some(),
            // the input tells
            Way::Input(..) => false,
        }
    }

    /// Says goodbye.
    pub async fn close(self, session: Option<Session>) {
        match self {
            Way::Own(broker, ..) => {
                let Some(Session { client, held: Held::Own { task, ending, .. }, .. }) = session else { return };
                let goodbye = async move {
                    if told_stop(broker.status_due(), &client).await {
                        ending.is_coming();
                        if client.disconnect() == Queued::Yes {
                            let _ = task.await;
                        }
                    }
                };
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
            }
            Way::Input(_, loan) => {
                // what it holds of the client is let go first
                drop(session);
                loan.give_back().await;
            }
        }
    }
}

/// The broker, for log lines.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Own(broker, ..) => broker.config.address.fmt(f),
            Way::Input(name, _) => write!(f, "the broker of input `{name}`"),
        }
    }
}

#[derive(Debug)]
pub struct Session {
    pub client: Client,
    pub since: Instant,
    /// The broker's limit for a packet, bytes.
    pub packet_bytes_max: Option<u32>,
    /// What it told the broker of the job waits for its answer.
    greeting: Option<StatusAnswer>,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Own {
        /// It polls the session.
        task: AbortOnDropHandle<Trouble>,
        ended: CancellationToken,
        ending: Ending,
    },
    Lent(Carrier),
}

impl Session {
    /// One that the input has.
    fn over(carrier: Carrier) -> Session {
        let Carrier { client, packet_bytes_max, .. } = carrier.clone();
        Session { client, since: task_now(), packet_bytes_max, greeting: None, held: Held::Lent(carrier) }
    }

    /// Connects, waits until the broker accepted us, and tells it of the job where that is asked for.
    async fn open(broker: &Connector, choice: &Choice) -> Result<Session, Trouble> {
        let ending = Ending::new();
        let opening = Opening {
            session_expiry: None,
            receive_maximum: None,
            packet_bytes_max: None,
            outgoing_max: WINDOW,
            requests_max: usize::from(WINDOW),
            request_batch: REQUEST_BATCH,
            read_batch: REQUEST_BATCH,
        };
        let (client, mut events) = wire::open(broker, choice.now(), opening, ending.clone()).await?;
        let packet_bytes_max = match events.poll().await {
            Ok(Incoming::Accepted { packet_bytes_max, .. }) => packet_bytes_max,
            Ok(_) | Err(PollError::Ended) => {
                return Err(Trouble::new("the broker does not begin with CONNACK".to_owned()));
            }
            Err(PollError::Lost(trouble)) => return Err(trouble),
        };
        let ended = CancellationToken::new();
        let told = ended.clone().drop_guard();
        let near = ending.clone();
        let polling = async move {
            let trouble = poll(events, near).await;
            drop(told);
            trouble
        };
        let task = AbortOnDropHandle::new(tokio::spawn(polling.in_current_span()));
        // a connection that is gone already tells so itself
        let greeting = broker.status_due().and_then(|status| status.tell(&client, JobState::Running).ok());
        let held = Held::Own { task, ended, ending };
        Ok(Session { client, since: task_now(), packet_bytes_max, greeting, held })
    }
}

/// Tells that the job stopped; whether a goodbye may follow. Without one the broker says that the job was lost.
async fn told_stop(status: Option<&Status>, client: &Client) -> bool {
    let Some(status) = status else { return true };
    let Ok(mut told) = status.tell(client, JobState::Stopped) else { return false };
    // a goodbye would overtake it
    let receipt = told.receipt().await;
    status.note(&receipt);
    receipt != BrokerReceipt::Unknown
}

async fn poll(mut events: Inbound, ending: Ending) -> Trouble {
    loop {
        match events.poll().await {
            Ok(_) => {}
            Err(PollError::Ended) => {
                drop(events);
                ending.closed_by_peer().await;
                return Trouble::new("the connection was closed".to_owned());
            }
            Err(PollError::Lost(trouble)) => return trouble,
        }
    }
}
