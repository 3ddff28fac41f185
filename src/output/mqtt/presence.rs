//! Keeps the connection of an output that tells of its job while no rows come.
//!
//! In: an output between two requests. Out: a connection that is there from the start on, and again after each loss.
//! Invariant: it may be dropped at any time. Not here: what is told (`mqtt::status`).

use super::MqttOutput;
use crate::time::{task_now, task_since};

impl MqttOutput {
    /// Keeps the connection, where it has something to tell of the job. Has no end.
    pub(super) async fn keep_connection(&mut self) {
        if !self.way.tells_status() {
            return std::future::pending().await;
        }
        loop {
            if let Some(at) = self.not_before {
                tokio::time::sleep_until(at).await;
            }
            let wait = match self.connect().await {
                Ok(()) => {
                    self.quiet_trouble = None;
                    let Some(session) = &self.session else { continue };
                    self.way.over(session).await;
                    self.retry.lost_after(task_since(session.since))
                }
                Err(trouble) => {
                    self.way.failed(&trouble);
                    if self.quiet_trouble.as_ref() != Some(&trouble.text) {
                        tracing::warn!("the job's status is not told: {}", trouble.text);
                    }
                    self.quiet_trouble = Some(trouble.text);
                    self.retry.failed()
                }
            };
            self.not_before = Some(task_now() + wait);
        }
    }
}
