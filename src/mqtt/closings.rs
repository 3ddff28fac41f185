//! Connections that a broker ends again and again without a reason.
//!
//! In: how each connection ended. Out: the same; from the third early end in a row on with the likely reason.
//! Invariant: a reason that the broker gave stays as it is. Not here: when to try again.

use std::time::Duration;

use super::connection::{Connector, Trouble};

/// This number of connections in a row is no accident.
const TELLING: u32 = 3;
/// A connection that held longer did not end because of its beginning. Two clients with one id throw each other out as
/// fast as they come back, which is after a minute at most.
const SOON: Duration = Duration::from_secs(90);

/// Counts the connections in a row that the broker accepted and closed soon.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Closings {
    in_a_row: u32,
}

impl Closings {
    /// A connection ended after `held`; `None`: the broker had not accepted it.
    pub fn judge(&mut self, trouble: Trouble, held: Option<Duration>, broker: &Connector) -> Trouble {
        match held {
            Some(held) if trouble.is_bare && held < SOON => self.in_a_row = self.in_a_row.saturating_add(1),
            Some(_) => self.in_a_row = 0,
            None => {}
        }
        if !self.tells() || !trouble.is_bare {
            return trouble;
        }
        let (at, id) = (&broker.config.address, &broker.client_id);
        let text = format!(
            "{at} closes each connection soon after it accepted it: another client may have the client id `{id}`, give \
             each its own; else see the broker's log"
        );
        Trouble { text, is_passing: false, ..trouble }
    }

    /// Whether the likely reason is named.
    pub fn tells(self) -> bool {
        self.in_a_row >= TELLING
    }

    /// Whether more ended in a row than the search for one row takes, which is up to five connections.
    pub fn is_storm(self) -> bool {
        self.in_a_row >= 2 * TELLING
    }

    /// Whether the last connection is the first to name the likely reason.
    pub fn begins_to_tell(self) -> bool {
        self.in_a_row == TELLING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::broker::{BrokerConfig, MqttAddress};

    #[test]
    fn the_third_connection_in_a_row_that_is_closed_soon_tells() {
        let broker = Connector::new(BrokerConfig::new(MqttAddress::parse("mqtt://h").unwrap()), "gateway");
        let (soon, long) = (Some(Duration::from_secs(2)), Some(Duration::from_secs(3_600)));
        let named = Trouble { is_bare: false, ..broker.closed(true) };
        let table = [
            (broker.closed(true), soon, false),
            (broker.closed(true), soon, false),
            // nobody listened for a while
            (Trouble::new("nothing listens".to_owned()), None, false),
            (broker.closed(true), soon, true),
            (broker.closed(true), long, false),
            (broker.closed(true), soon, false),
            (broker.closed(true), soon, false),
            (broker.closed(true), soon, true),
            (named, soon, false),
            (broker.closed(true), soon, false),
        ];
        let mut closings = Closings::default();
        for (step, (trouble, held, tells)) in table.into_iter().enumerate() {
            let text = closings.judge(trouble, held, &broker).text;
            assert_eq!(text.contains("client id `gateway`"), tells, "{step}: {text}");
        }
    }
}
