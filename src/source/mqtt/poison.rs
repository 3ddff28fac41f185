//! Finds the message that ends every connection.
//!
//! In: why connections were lost, in order. Out: the alarm to raise. Invariant: only sizes that are equal several times
//! in a row are taken for one message that comes back. Not here: getting rid of it, which is the operator's decision.

use super::MqttSourceConfig;
use crate::mqtt::Trouble;

/// This many equal size errors in a row: it is one message that comes back each time.
const POISON_AFTER: u32 = 3;

/// Finds the message that comes back each time and ends the connection each time.
#[derive(Debug, Default)]
pub(super) struct Poison {
    size: usize,
    times: u32,
}

impl Poison {
    /// The alarm for a lost connection.
    pub fn judge(&mut self, trouble: Trouble, config: &MqttSourceConfig, client_id: &str) -> String {
        let Some(size) = trouble.oversize else {
            *self = Poison::default();
            return trouble.text;
        };
        self.times = if size == self.size { self.times + 1 } else { 1 };
        self.size = size;
        if self.times < POISON_AFTER {
            return trouble.text;
        }
        format!(
            "a message of {size} bytes on {} is over payload_bytes_max = {} and holds up everything behind it: raise \
             payload_bytes_max, or delete the session of client `{client_id}` at the broker, which loses what is \
             queued there",
            config.topics.iter().map(|t| format!("`{t}`")).collect::<Vec<_>>().join(", "),
            config.payload_bytes_max,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::{BrokerConfig, MqttAddress};

    #[test]
    fn three_equal_size_errors_name_topic_limit_and_remedy() {
        let config = MqttSourceConfig::new(
            BrokerConfig::new(MqttAddress::parse("mqtt://127.0.0.1:1").unwrap()),
            vec!["a/#".into()],
        );
        let mut poison = Poison::default();
        let oversize = |n| Trouble { oversize: Some(n), ..Trouble::new("too big".into()) };
        for n in [5, 7, 7] {
            assert_eq!(poison.judge(oversize(n), &config, "c"), "too big");
        }
        let alarm = poison.judge(oversize(7), &config, "c");
        for word in ["7 bytes", "`a/#`", "payload_bytes_max = 1048576", "raise payload_bytes_max", "client `c`"] {
            assert!(alarm.contains(word), "{alarm}");
        }
        poison.judge(Trouble::new("gone".into()), &config, "c");
        assert_eq!(poison.judge(oversize(7), &config, "c"), "too big", "something else came between");
    }
}
