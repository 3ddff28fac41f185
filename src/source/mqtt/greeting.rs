//! The first message of a connection: that the job runs.
//!
//! In: a connection that the broker accepted. Out: the same on the line for outputs, once the broker has answered the
//! greeting, has not answered it in time, or at once where there is none. Invariant: if the broker ends the connection
//! because of the greeting, no row of an output is blamed. Not here: the last message (`link`).

use tokio::time::Instant;

use crate::mqtt::line::Line;
use crate::mqtt::status::{JobState, Status, StatusAnswer};
use crate::mqtt::wire::Client;

use super::end::End;

/// A word that waits for its answer.
#[derive(Debug)]
struct Word {
    told: StatusAnswer,
    client: Client,
    packet_bytes_max: Option<u32>,
}

/// What is told at the beginning.
#[derive(Debug)]
pub(super) struct Greeting<'a> {
    status: Option<&'a Status>,
    line: &'a Line,
    word: Option<Word>,
}

impl<'a> Greeting<'a> {
    /// To be said before anything else is sent.
    pub fn say(status: Option<&'a Status>, line: &'a Line, client: &Client, packet_bytes_max: Option<u32>) -> Self {
        let client = client.clone();
        match status.map(|status| status.tell(&client, JobState::Running)) {
            Some(Ok(told)) => {
                if let Some(status) = status {
                    line.waits(status.is_awaited());
                }
                Greeting { status, line, word: Some(Word { told, client, packet_bytes_max }) }
            }
            // a connection that is gone already tells so itself
            None | Some(Err(_)) => {
                line.up(client, packet_bytes_max);
                Greeting { status, line, word: None }
            }
        }
    }

    /// When the answer is to be there.
    pub fn answer_due(&self) -> Option<Instant> {
        self.word.as_ref().map(|word| word.told.due())
    }

    /// Looks for the answer, after an event of the connection and when it is due.
    pub fn look(&mut self) {
        let Some(receipt) = self.word.as_mut().and_then(|word| word.told.look()) else { return };
        if let Some(status) = self.status {
            status.note(&receipt);
        }
        if let Some(Word { client, packet_bytes_max, .. }) = self.word.take() {
            self.line.up(client, packet_bytes_max);
        }
    }

    /// The connection ended: names the word if it may be the reason.
    pub fn judge(self, end: End) -> End {
        match (end, self.status, self.word) {
            (End::Lost(mut trouble), Some(status), Some(_)) if trouble.is_bare => {
                trouble.text.push_str(&status.may_be_why());
                End::Lost(trouble)
            }
            (end, ..) => end,
        }
    }
}

/// Waits until an answer is due; for ever where none is to come.
pub(super) async fn no_answer(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostic::Span;
    use crate::mqtt::line::Loan;
    use crate::mqtt::status::StatusTopic;
    use crate::mqtt::wire;

    #[tokio::test]
    async fn while_the_greeting_is_not_answered_the_line_says_so() {
        let status = Status::new(&StatusTopic { topic: "state".to_owned(), span: Span::default() }, "taxi");
        let (client, _inbound) = wire::unpolled().await;
        let line = Arc::new(Line::default());
        let loan = Loan::of(line.clone());
        let mut greeting = Greeting::say(Some(&status), &line, &client, None);
        greeting.look();
        let why = loan.present().unwrap_err().text;
        assert!(why.contains("has not answered") && why.contains("status_topic `state`"), "{why}");
        greeting.word.as_mut().unwrap().told.come_due();
        greeting.look();
        assert!(loan.present().is_ok());

        line.down(End::Settled.trouble());
        Greeting::say(None, &line, &client, None);
        assert!(loan.present().is_ok(), "there is nothing to wait for");
    }
}
