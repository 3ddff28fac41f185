//! What a broker answers to a subscription, in words.

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SubscribeAnswer {
    /// The topics that were refused, and what to do.
    pub refused: Option<String>,
    /// The others, each with the QoS that the broker grants.
    pub granted: String,
    /// Those of which it grants a lower QoS than was asked for, and what that means.
    pub lowered: Option<String>,
}

impl SubscribeAnswer {
    /// `qos` was asked for.
    pub fn of(topics: &[String], qos: u8, answers: &[Result<u8, String>]) -> SubscribeAnswer {
        let answered = || std::iter::zip(topics, answers);
        let refused = answered().filter_map(|(topic, answer)| Some(format!("`{topic}` ({})", answer.as_ref().err()?)));
        let refused: Vec<String> = refused.collect();
        let granted = || answered().filter_map(|(topic, answer)| Some((topic, *answer.as_ref().ok()?)));
        let shown = |(topic, qos): (&String, u8)| format!("`{topic}` (QoS {qos})");
        let lowered: Vec<String> = granted().filter(|(_, granted)| *granted < qos).map(shown).collect();
        let text = |what: Vec<String>, before: &str, behind: &str| {
            (!what.is_empty()).then(|| format!("{before} {}{behind}", what.join(", ")))
        };
        SubscribeAnswer {
            refused: text(
                refused,
                "the broker refused the subscription to",
                ": correct `topics` or the broker's access rules",
            ),
            granted: granted().map(shown).collect::<Vec<_>>().join(", "),
            lowered: text(
                lowered,
                "the broker grants a lower QoS than was asked for to",
                ": with QoS 0 it keeps nothing while this input is away; raise the broker's limit, or set `qos` to \
                 what it grants",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_and_what_is_lowered_is_told_with_its_topic() {
        let topics = ["a/#", "b", "c"].map(str::to_owned);
        let answer = SubscribeAnswer::of(&topics, 1, &[Ok(1), Ok(0), Err("NotAuthorized".to_owned())]);
        assert_eq!(answer.granted, "`a/#` (QoS 1), `b` (QoS 0)");
        assert!(answer.refused.unwrap().starts_with("the broker refused the subscription to `c` (NotAuthorized): "));
        assert!(answer.lowered.unwrap().contains(" asked for to `b` (QoS 0): with QoS 0 it keeps nothing"));
        let all = SubscribeAnswer::of(&topics, 0, &[Ok(0), Ok(0), Ok(0)]);
        assert_eq!((all.refused, all.lowered), (None, None));
    }
}
