//! Topic filters.
//!
//! In: filters as the job writes them, topics as the broker sends them. Out: whether they are valid, match, overlap.
//! Invariant: a valid filter never makes matching loop or allocate. Not here: subscribing.

use crate::diagnostic::Diagnostic;
use crate::settings::{Section, Text};

/// Longest topic or filter MQTT can carry, bytes.
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// Why a text is no topic filter; `None` when it is one.
pub fn filter_problem(filter: &str) -> Option<&'static str> {
    if filter.starts_with("$share/") && shared_part(filter).is_none() {
        return Some("expected `$share/group/filter`");
    }
    let filter = shared_part(filter).unwrap_or(filter);
    if let Some(problem) = text_problem(filter) {
        return Some(problem);
    }
    if filter.split('/').any(|level| level.contains('+') && level != "+") {
        return Some("`+` stands for a whole level: `a/+/b`");
    }
    let mut levels = filter.split('/').skip_while(|level| !level.contains('#'));
    match levels.next() {
        Some(level) if level != "#" || levels.next().is_some() => Some("`#` stands for all that follows: `a/#`"),
        _ => None,
    }
}

/// Why a text is no topic to publish to; `None` when it is one.
pub fn topic_problem(topic: &str) -> Option<&'static str> {
    match topic {
        _ if topic.contains(['+', '#']) => Some("rows go to one topic, without `+` and `#`"),
        _ if topic.starts_with('$') => Some("topics that start with `$` belong to the broker"),
        _ => text_problem(topic),
    }
}

fn text_problem(topic: &str) -> Option<&'static str> {
    match topic {
        "" => Some("expected a topic that is not empty"),
        _ if topic.len() > TOPIC_BYTES_MAX => Some("expected at most 65,535 bytes"),
        _ if topic.chars().any(char::is_control) => Some("control characters are not allowed"),
        _ => None,
    }
}

/// Says at a text's place why it is no topic.
pub(crate) fn tell(section: &Section, topic: &Text, problem: &str) {
    let error = Diagnostic::error(format!("`{}` is no topic here", topic.value.escape_debug()), topic.span);
    section.problems().push(error.label(problem));
}

/// Whether a message on `topic` belongs to the subscription `filter` (a shared one by its filter part).
pub fn matches(filter: &str, topic: &str) -> bool {
    let filter = shared_part(filter).unwrap_or(filter);
    // a wildcard at the first level does not match the broker's own topics
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether a message may belong to both subscriptions (shared ones by their filter part).
pub fn overlap(a: &str, b: &str) -> bool {
    let (a, b) = (shared_part(a).unwrap_or(a), shared_part(b).unwrap_or(b));
    // as in `matches`
    if (a.starts_with('$') && b.starts_with(['+', '#'])) || (b.starts_with('$') && a.starts_with(['+', '#'])) {
        return false;
    }
    let (mut a, mut b) = (a.split('/'), b.split('/'));
    loop {
        match (a.next(), b.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(one), Some(other)) if one == other || one == "+" || other == "+" => {}
            _ => return false,
        }
    }
}

/// Whether all that belongs to `narrow` belongs to `wide`, for two filters that overlap and are not shared.
pub fn covers(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('/'), narrow.split('/'));
    loop {
        match (wide.next(), narrow.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// Whether a subscription is shared with others.
pub fn is_shared(filter: &str) -> bool {
    shared_part(filter).is_some()
}

/// `FILTER` of `$share/GROUP/FILTER`.
fn shared_part(filter: &str) -> Option<&str> {
    let (group, rest) = filter.strip_prefix("$share/")?.split_once('/')?;
    (!group.is_empty() && !group.contains(['+', '#'])).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_mqtt_says() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("a/+/c", "a/b/c", true),
            ("a/+/c", "a//c", true),
            ("a/+", "a", false),
            ("a/+", "a/", true),
            ("+", "/a", false),
            ("+/+", "/a", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("#", "anything/at/all", true),
            ("#", "$SYS/broker", false),
            ("+/broker", "$SYS/broker", false),
            ("$SYS/#", "$SYS/broker", true),
            ("$share/g/a/+", "a/b", true),
            ("$share/g/a/+", "b/b", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn filters_overlap_where_a_topic_matches_both() {
        for (a, b, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/c", false),
            ("a/b", "a/b/c", false),
            ("a/#", "a/+/b", true),
            ("a/#", "a", true),
            ("a/#", "b/#", false),
            ("a/#", "a/b/#", true),
            ("a/+", "a", false),
            ("a/+", "a/b/c", false),
            ("a/+", "+/b", true),
            ("a/+/c", "+/b/d", false),
            ("a/+/#", "a", false),
            ("a/+/#", "a/b", true),
            ("a/+", "a/", true),
            ("+", "/a", false),
            ("#", "x/y", true),
            ("#", "+/y", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/+", true),
            ("$share/g/a/#", "a/b", true),
            ("$share/g/a/#", "$share/h/a/+", true),
            ("$share/g/a", "$share/g/b", false),
            ("$share/g/#", "$SYS/x", false),
        ] {
            assert_eq!(overlap(a, b), expected, "{a} {b}");
            assert_eq!(overlap(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_filter_covers_what_it_matches_all_of() {
        for (wide, narrow, expected) in [
            ("a/#", "a/+/b", true),
            ("a/+/b", "a/#", false),
            ("a/#", "a", true),
            ("a/+", "a/b", true),
            ("a/+", "+/b", false),
            ("+/+", "a/#", false),
            ("+/#", "a/+", true),
            ("a/+/#", "a/#", false),
            ("a/b", "a/b", true),
        ] {
            assert_eq!(covers(wide, narrow), expected, "{wide} {narrow}");
        }
    }

    #[test]
    fn filters_are_checked() {
        for filter in ["a", "/", "+", "#", "a/+/b/#", "$share/g/a", "$SYS/#"] {
            assert_eq!(filter_problem(filter), None, "{filter}");
        }
        for filter in
            ["", "a#", "#/a", "a+/b", "a/b+", "$share/g", "$share//a", "$share/+/a", "$share/g/", "a\0", "a/#/b"]
        {
            assert!(filter_problem(filter).is_some(), "{filter}");
        }
        for topic in ["", "a/+", "a/#", "\0", "$SYS/x"] {
            assert!(topic_problem(topic).is_some(), "{topic}");
        }
        assert_eq!(topic_problem("a/b c/ü"), None);
    }
}
