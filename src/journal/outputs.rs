//! How outputs get on, as far as a pool tells: when they last delivered, and what waits for them.
//!
//! In: the books, and where consumers are. Out: an [`OutputStatus`] each. Invariant: whoever delivers is known by its
//! name alone, so a pool tells it also where its job is not at hand. Not here: the rest of the status (`status`).

use serde::{Serialize, Serializer};

use super::books::{Books, ConsumerBook};
use crate::time::Timestamp;

/// How an output gets on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputStatus {
    pub name: String,
    /// Who delivers to it.
    pub consumers: Vec<String>,
    /// When a row was last delivered, by the wall clock; as of the last checkpoint, a minute ago at most.
    #[serde(serialize_with = "as_text")]
    pub delivered_at: Option<Timestamp>,
    /// Records that its consumers have to read.
    pub pending: u64,
    /// Seconds since the oldest of these arrived; not known to a summary.
    pub oldest_seconds: Option<u64>,
}

fn as_text<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(|at| at.to_string()).serialize(serializer)
}

/// The outputs that consumers deliver to, and when they last did.
pub(super) fn outputs(books: &Books) -> Vec<OutputStatus> {
    let consumers = || books.consumers.values();
    let mut found: Vec<OutputStatus> = Vec::new();
    for consumer in consumers() {
        let Some(name) = output_of(consumers(), &consumer.name) else { continue };
        let end = books.streams.get(&consumer.stream).map_or(0, |stream| stream.next);
        let pending = u64::try_from(end.saturating_sub(consumer.position)).unwrap_or(0);
        if let Some(known) = found.iter_mut().find(|known| known.name == name) {
            known.pending += pending;
            known.consumers.push(consumer.name.to_string());
            continue;
        }
        let mut delivered = books.delivered.iter().filter(|(output, _)| output.eq_ignore_ascii_case(name));
        found.push(OutputStatus {
            name: name.to_owned(),
            consumers: vec![consumer.name.to_string()],
            delivered_at: delivered.next().map(|(_, at)| Timestamp::saturating_from_ticks(*at)),
            pending,
            oldest_seconds: None,
        });
    }
    found
}

/// The output that a consumer delivers to: `output NAME` does, and `statement NAME` where the statement has no other
/// part. `~2` tells a statement from others for the same output.
fn output_of<'a>(mut consumers: impl Iterator<Item = &'a ConsumerBook>, consumer: &'a str) -> Option<&'a str> {
    let (kind, name) = consumer.split_once(' ')?;
    let mut has_deliverer = || consumers.any(|c| c.name.strip_prefix("output ") == Some(name));
    let delivers = kind == "output" || (kind == "statement" && !name.contains('/') && !has_deliverer());
    delivers.then(|| name.split('~').next().unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_has_the_consumers_that_deliver_to_it() {
        let names = ["statement plain", "statement plain~2", "statement scored", "statement scored/2", "output scored"];
        let mut books = Books { delivered: [("Plain".to_owned(), 0)].into(), ..Books::default() };
        for (id, name) in (1..).zip(names) {
            books.consumers.insert(id, ConsumerBook { name: name.into(), ..ConsumerBook::default() });
        }
        let found = outputs(&books);
        let told: Vec<_> =
            found.iter().map(|o| (o.name.as_str(), o.consumers.join(", "), o.delivered_at.is_some())).collect();
        let plain = ("plain", "statement plain, statement plain~2".to_owned(), true);
        assert_eq!(told, [plain, ("scored", "output scored".to_owned(), false)]);
    }
}
