//! What a connection tells a broker of its job: that it runs, that it stopped, that it was lost.
//!
//! In: `status_topic` of a section, the job's name. Out: retained messages of QoS 1, the last will among them, and what
//! became of them. Invariant: a message is one JSON object with the job's name and one of three states. Not here: when
//! they are sent.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::broker::{BrokerConfig, Qos};
use super::connection::Trouble;
use super::shared::Shared;
use super::topic;
use super::wire::{BrokerReceipt, Client, Notice, Outgoing, Queued};
use crate::diagnostic::{Diagnostic, Span};
use crate::settings::{Problems, Section};
use crate::time::task_now;

/// A broker that accepted a connection answers a status sooner; one that does not has refused it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A broker that refused the status is not asked again before: it may end the connection each time.
const AGAIN: Duration = Duration::from_secs(3_600);

/// Where a connection tells of its job.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusTopic {
    pub topic: String,
    /// Its place in the job file.
    pub span: Span,
}

impl StatusTopic {
    /// Reads `status_topic`.
    pub(super) fn read(section: &mut Section) -> Option<Box<StatusTopic>> {
        let text = section.text("status_topic")?;
        if let Some(problem) = problem(&text.value) {
            topic::tell(section, &text, problem);
            return None;
        }
        Some(Box::new(StatusTopic { topic: text.value, span: text.span }))
    }

    /// Warns of inputs at the same broker that receive what is told there.
    pub(crate) fn check<'a>(
        broker: &BrokerConfig,
        inputs: impl Iterator<Item = (&'a str, &'a Shared)>,
        problems: &Problems,
    ) {
        let Some(status) = &broker.status_topic else { return };
        for (name, input) in inputs.filter(|(_, input)| input.broker.address == broker.address) {
            let Some(filter) = input.receives(&status.topic) else { continue };
            let title = format!("the job's status comes back as events of input `{name}`");
            let warning = Diagnostic::warning(title, status.span).label(format!("its filter `{filter}` takes it in"));
            problems.push(warning.help("write a topic that no filter of the job takes in"));
        }
    }
}

fn problem(topic: &str) -> Option<&'static str> {
    match topic {
        _ if topic.contains(['+', '#']) => Some("expected one topic, without `+` and `#`"),
        _ if topic.contains(['{', '}']) => Some("expected one topic, without columns in braces"),
        _ => topic::topic_problem(topic),
    }
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobState {
    Running,
    /// In order.
    Stopped,
    /// The broker says so itself, once the connection is gone without a goodbye.
    Lost,
}

/// Where a connection tells of its job, and of which one.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub topic: String,
    job: String,
    /// When the broker refused it last.
    refused: Arc<Mutex<Option<Instant>>>,
}

impl Status {
    pub fn new(topic: &StatusTopic, job: &str) -> Status {
        Status { topic: topic.topic.clone(), job: job.to_owned(), refused: Arc::default() }
    }

    pub fn payload(&self, state: JobState) -> Bytes {
        let state = match state {
            JobState::Running => "running",
            JobState::Stopped => "stopped",
            JobState::Lost => "lost",
        };
        Bytes::from(serde_json::json!({ "job": self.job, "state": state }).to_string())
    }

    /// Queues the message, if there is room in the queue; the answer is to come.
    pub fn tell(&self, client: &Client, state: JobState) -> Result<StatusAnswer, Queued> {
        let (topic, payload) = (self.topic.as_str(), self.payload(state));
        let message = Outgoing { topic, payload, qos: Qos::AtLeastOnce, retain: true, properties: Vec::new() };
        client.try_publish(message).map(StatusAnswer::new)
    }

    /// Why a connection is not used yet that has told a status.
    pub fn is_awaited(&self) -> Trouble {
        let topic = &self.topic;
        let why = format!(
            "the broker has not answered the job's status so far: see its access rules for status_topic `{topic}`"
        );
        Trouble::new(why)
    }

    /// What to say of a connection that ended before the first status was taken.
    pub fn may_be_why(&self) -> String {
        format!("; it had not taken the job's status: see its access rules for status_topic `{}`", self.topic)
    }

    /// Whether the broker is to be told: one that refused it is left alone for an hour.
    pub fn is_due(&self) -> bool {
        self.is_due_at(task_now())
    }

    fn is_due_at(&self, now: Instant) -> bool {
        self.refused().is_none_or(|at| now.saturating_duration_since(at) >= AGAIN)
    }

    /// Notes what the broker said. The job goes on without, also at brokers that end the connection besides.
    pub fn note(&self, receipt: &BrokerReceipt) {
        if let BrokerReceipt::Rejected(why) | BrokerReceipt::Refused(why) = receipt {
            let topic = &self.topic;
            tracing::warn!("the job's status was not taken at status_topic `{topic}`, next try in an hour: {why}");
            *self.refused() = Some(task_now());
        }
    }

    fn refused(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The broker's answer to a status, to come. Where there is none in time, that is a refusal.
pub(crate) struct StatusAnswer {
    receipt: Pin<Box<dyn Future<Output = BrokerReceipt> + Send + Sync>>,
    due: Instant,
}

impl StatusAnswer {
    fn new(notice: Notice) -> StatusAnswer {
        StatusAnswer { receipt: Box::pin(notice.receipt()), due: task_now() + ANSWER_TIMEOUT }
    }

    /// When the broker has answered, or refused.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The answer, if it is there. To be asked after events of the connection and when it is due, and not again once it
    /// was there.
    pub fn look(&mut self) -> Option<BrokerReceipt> {
        match self.receipt.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(receipt) => Some(receipt),
            Poll::Pending => (task_now() >= self.due).then(silence),
        }
    }

    /// As if all its time had passed.
    #[cfg(test)]
    pub fn come_due(&mut self) {
        self.due = task_now();
    }

    /// Waits for the answer; may be dropped and called again, but not once it was there.
    pub async fn receipt(&mut self) -> BrokerReceipt {
        let answer = tokio::time::timeout_at(self.due, self.receipt.as_mut()).await;
        answer.unwrap_or_else(|_| silence())
    }
}

fn silence() -> BrokerReceipt {
    let seconds = ANSWER_TIMEOUT.as_secs();
    BrokerReceipt::Refused(format!("the broker gave no answer within {seconds} s: see its access rules"))
}

impl fmt::Debug for StatusAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatusAnswer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_job_and_its_state() {
        let status = Status::new(&StatusTopic { topic: "t".to_owned(), span: Span::default() }, "taxi");
        for (state, text) in [
            (JobState::Running, r#"{"job":"taxi","state":"running"}"#),
            (JobState::Stopped, r#"{"job":"taxi","state":"stopped"}"#),
            (JobState::Lost, r#"{"job":"taxi","state":"lost"}"#),
        ] {
            assert_eq!(status.payload(state), text);
        }
    }

    #[test]
    fn a_broker_that_refuses_is_left_alone_for_an_hour() {
        let status = Status::new(&StatusTopic { topic: "t".to_owned(), span: Span::default() }, "taxi");
        let of_next_connection = status.clone();
        status.note(&BrokerReceipt::Taken);
        assert!(of_next_connection.is_due());
        status.note(&BrokerReceipt::Refused("no".to_owned()));
        assert!(!of_next_connection.is_due());
        let at = of_next_connection.refused().unwrap();
        assert!(!of_next_connection.is_due_at(at + AGAIN - Duration::from_secs(1)));
        assert!(of_next_connection.is_due_at(at + AGAIN));
    }

    #[test]
    fn a_topic_is_one_topic() {
        for topic in ["", "a/+", "a/#", "$SYS/x", "a/{k}", "a\0"] {
            assert!(problem(topic).is_some(), "{topic}");
        }
        assert_eq!(problem("plant/gateway 7/state"), None);
    }
}
