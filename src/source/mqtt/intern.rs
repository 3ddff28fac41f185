//! One [`MessageMeta`] for many messages.
//!
//! In: topic and properties of a publish. Out: a shared `MessageMeta`, and whether the topic belongs to the input.
//! Invariant: equal topic and properties give equal metas; memory is bounded. Not here: payloads.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHasher};
use smol_str::SmolStr;

use crate::batch::MessageMeta;
use crate::mqtt::topic;
use crate::mqtt::wire::Message;

/// Topics with their properties kept at once; a fleet beyond that pays an allocation a message now and then.
const METAS_MAX: usize = 4_096;

#[derive(Debug)]
pub(super) struct Interner {
    filters: Vec<String>,
    known: FxHashMap<u64, Known>,
    last: Option<Known>,
}

#[derive(Clone, Debug)]
pub(super) struct Known {
    pub meta: Arc<MessageMeta>,
    qos: u8,
    retain: bool,
    /// some filter of the input matches the topic
    pub is_wanted: bool,
}

impl Interner {
    pub fn new(filters: Vec<String>) -> Interner {
        Interner { filters, known: FxHashMap::default(), last: None }
    }

    /// The meta of a publish; its topic must be UTF-8 (the protocol says so), else what is not is replaced.
    pub fn meta(&mut self, publish: &Message) -> Known {
        if let Some(last) = &self.last
            && last.is_of(publish)
        {
            return last.clone();
        }
        let key = key(publish);
        let known = match self.known.get(&key) {
            Some(known) if known.is_of(publish) => known.clone(),
            _ => {
                let known = self.describe(publish);
                if self.known.len() >= METAS_MAX {
                    self.known.clear();
                }
                self.known.insert(key, known.clone());
                known
            }
        };
        self.last = Some(known.clone());
        known
    }

    fn describe(&self, publish: &Message) -> Known {
        let topic = String::from_utf8_lossy(&publish.topic);
        let is_wanted = self.filters.iter().any(|filter| topic::matches(filter, &topic));
        let properties = publish.properties.iter().map(|(n, v)| (SmolStr::new(n), SmolStr::new(v))).collect();
        let meta = MessageMeta { name: SmolStr::new(&topic), properties, facts: facts(publish) };
        Known { meta: Arc::new(meta), qos: publish.qos, retain: publish.retain, is_wanted }
    }
}

/// `qos` and `retain`, where they are not zero.
fn facts(publish: &Message) -> Vec<(SmolStr, SmolStr)> {
    let qos = match publish.qos {
        0 => None,
        1 => Some("1"),
        _ => Some("2"),
    };
    let facts = [("qos", qos), ("retain", publish.retain.then_some("true"))];
    facts
        .into_iter()
        .filter_map(|(word, value)| Some((SmolStr::new_static(word), SmolStr::new_static(value?))))
        .collect()
}

impl Known {
    fn is_of(&self, publish: &Message) -> bool {
        self.meta.name.as_bytes() == &*publish.topic
            && self.qos == publish.qos
            && self.retain == publish.retain
            && self
                .meta
                .properties
                .iter()
                .map(|(n, v)| (n.as_str(), v.as_str()))
                .eq(publish.properties.iter().map(|(n, v)| (n.as_str(), v.as_str())))
    }
}

fn key(publish: &Message) -> u64 {
    let mut hasher = FxHasher::default();
    publish.topic.hash(&mut hasher);
    (publish.qos, publish.retain, &publish.properties).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(topic: &str, property: Option<&str>) -> Message {
        let properties = property.map(|v| ("n".to_owned(), v.to_owned())).into_iter().collect();
        Message { topic: topic.to_owned().into(), qos: 1, properties, ..Message::default() }
    }

    #[test]
    fn equal_messages_share_and_others_do_not() {
        let mut interner = Interner::new(vec!["a/+".into()]);
        let first = interner.meta(&publish("a/1", Some("v")));
        interner.meta(&publish("a/2", None));
        let again = interner.meta(&publish("a/1", Some("v")));
        assert!(Arc::ptr_eq(&first.meta, &again.meta));
        let other = interner.meta(&publish("a/1", Some("w")));
        assert_eq!(other.meta.properties, [("n".into(), "w".into())]);
        assert!(other.is_wanted);
        assert!(!interner.meta(&publish("b", None)).is_wanted);
    }

    #[test]
    fn the_number_of_metas_is_bounded() {
        let mut interner = Interner::new(vec!["#".into()]);
        for i in 0..METAS_MAX * 2 {
            interner.meta(&publish(&format!("t/{i}"), None));
        }
        assert!(interner.known.len() <= METAS_MAX);
    }
}
