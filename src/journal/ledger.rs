//! Counters that are committed with the cursors, and the equations that hold between them.
//!
//! In: what stages counted since their last commit. Out: totals by [`Counter`], and [`Imbalance`]s. Invariant: a
//! counter never decreases, and is as durable as the position it was committed with. Not here: rates and gauges
//! (metrics).

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use smol_str::SmolStr;

/// Names of what is counted. Stages may count more beside these; only these are in an equation.
pub mod what {
    pub const RECEIVED: &str = "received";
    pub const STORED: &str = "stored";
    pub const UNDECODABLE: &str = "undecodable";
    pub const DROPPED: &str = "dropped";
    pub const READ: &str = "read";
    /// Of what it has read: what its statement, or its output, took, and what it passed by reason.
    pub const GIVEN: &str = "given";
    pub const PASSED: &str = "passed";
    /// Records that were given while others before them had no answer.
    pub const AHEAD: &str = "ahead";
    pub const SKIPPED: &str = "skipped";
    /// Records that a consumer had in hand when the journal moved it past them, and those of them that it has committed
    /// since.
    pub const IN_HAND: &str = "in_hand";
    pub const SETTLED: &str = "settled";
    pub const ROWS_IN: &str = "rows_in";
    pub const FILTERED: &str = "filtered";
    pub const FAILED: &str = "failed";
    pub const EVALUATED: &str = "evaluated";
    /// Rows that a fallback answered in place of an endpoint.
    pub const ANSWERED_LOCALLY: &str = "answered_locally";
    /// Rows whose evaluation does not reach the call of an endpoint.
    pub const NOT_CALLED: &str = "not_called";
    /// Rows that began to wait inside a plan for earlier ones, and those that no longer do.
    pub const HELD: &str = "held";
    pub const RELEASED: &str = "released";
    pub const ROWS_OUT: &str = "rows_out";
    pub const DELIVERED: &str = "delivered";
    pub const DEAD_LETTERED: &str = "dead_lettered";
    /// Events that were acknowledged and that the pool no longer had at a start.
    pub const LOST: &str = "lost";
    pub const REMOVED: &str = "removed";
}

/// Where in the flow something is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Edge {
    Input,
    Consumer,
    Statement,
    Output,
    /// The dead-letter table as a whole; counted by the journal.
    DeadLetters,
}

impl Edge {
    const ALL: [Edge; 5] = [Edge::Input, Edge::Consumer, Edge::Statement, Edge::Output, Edge::DeadLetters];

    pub fn as_str(self) -> &'static str {
        match self {
            Edge::Input => "input",
            Edge::Consumer => "consumer",
            Edge::Statement => "statement",
            Edge::Output => "output",
            Edge::DeadLetters => "dead_letters",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Edge> {
        Edge::ALL.into_iter().find(|edge| edge.as_str() == text)
    }
}

/// What a number in the ledger counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counter {
    pub edge: Edge,
    /// Name of the input, consumer, statement or output.
    pub name: SmolStr,
    /// One of [`what`], or a word of the stage's own.
    pub what: SmolStr,
    /// Empty where no reason is needed.
    pub reason: SmolStr,
}

impl Counter {
    pub fn new(edge: Edge, name: impl Into<SmolStr>, what: impl Into<SmolStr>) -> Counter {
        Counter { edge, name: name.into(), what: what.into(), reason: SmolStr::default() }
    }

    pub fn because(mut self, reason: impl Into<SmolStr>) -> Counter {
        self.reason = reason.into();
        self
    }
}

/// An equation that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{edge} {name}: {equation} does not hold: {left} on the left, {right} on the right", edge = edge.as_str())]
pub struct Imbalance {
    pub edge: Edge,
    pub name: SmolStr,
    pub equation: &'static str,
    pub left: i128,
    pub right: i128,
}

/// All counters of a journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger(BTreeMap<Counter, u64>);

impl Ledger {
    pub fn add(&mut self, counter: Counter, n: u64) {
        if n > 0 {
            let total = self.0.entry(counter).or_default();
            *total = total.saturating_add(n);
        }
    }

    /// Takes a total as another book has it.
    pub(super) fn set(&mut self, counter: Counter, total: u64) {
        self.0.insert(counter, total);
    }

    /// One counter's total.
    pub fn get(&self, counter: &Counter) -> u64 {
        self.0.get(counter).copied().unwrap_or(0)
    }

    /// The total over all reasons.
    pub fn sum(&self, edge: Edge, name: &str, what: &str) -> u64 {
        self.0.iter().filter(|(c, _)| c.edge == edge && c.name == name && c.what == what).map(|(_, n)| n).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Counter, u64)> {
        self.0.iter().map(|(counter, n)| (counter, *n))
    }

    /// Records that a consumer has in hand although the journal has moved it past them, by the reason for that.
    pub(super) fn in_hand_by_reason(&self, consumer: &str) -> Vec<(SmolStr, u64)> {
        let counters = self.0.iter();
        let held = counters.filter(|(c, _)| c.edge == Edge::Consumer && c.name == consumer && c.what == what::IN_HAND);
        let left = held.map(|(counter, n)| {
            let settled = self.get(&Counter { what: what::SETTLED.into(), ..counter.clone() });
            (counter.reason.clone(), n.saturating_sub(settled))
        });
        left.filter(|(_, left)| *left > 0).collect()
    }

    /// Their number over all reasons.
    pub fn in_hand(&self, consumer: &str) -> u64 {
        self.in_hand_by_reason(consumer).iter().map(|(_, n)| n).sum()
    }

    /// Names that have counters at this edge.
    pub fn names(&self, edge: Edge) -> Vec<SmolStr> {
        let mut names: Vec<SmolStr> = self.0.keys().filter(|c| c.edge == edge).map(|c| c.name.clone()).collect();
        names.dedup();
        names
    }

    /// The equations of inputs, statements and outputs. (A consumer's needs its position: `status` and `verify` know
    /// it.)
    pub fn imbalances(&self) -> Vec<Imbalance> {
        use what::*;
        let mut found = Vec::new();
        let mut check = |edge: Edge, equation, left: &[&str], right: &[&str]| {
            for name in self.names(edge) {
                let sum = |what: &str| i128::from(self.sum(edge, &name, what));
                let total = |side: &[&str]| -> i128 { side.iter().map(|what| sum(what)).sum() };
                let (left, right) = (total(left), total(right));
                if left != right {
                    found.push(Imbalance { edge, name, equation, left, right });
                }
            }
        };
        check(Edge::Input, "received = stored + undecodable + dropped", &[RECEIVED], &[STORED, UNDECODABLE, DROPPED]);
        check(
            Edge::Statement,
            "rows in + released = filtered + failed + evaluated + answered locally + not called + held",
            &[ROWS_IN, RELEASED],
            &[FILTERED, FAILED, EVALUATED, ANSWERED_LOCALLY, NOT_CALLED, HELD],
        );
        check(
            Edge::Output,
            "rows in = delivered + dead-lettered + dropped",
            &[ROWS_IN],
            &[DELIVERED, DEAD_LETTERED, DROPPED],
        );
        found
    }

    /// read = given + passed, for consumers that count what they give. One that was given records ahead of others may
    /// have been moved past these, and then they are given and not read.
    pub fn given_imbalances(&self) -> Vec<Imbalance> {
        use what::*;
        let imbalance = |name: SmolStr| {
            let sum = |what: &str| i128::from(self.sum(Edge::Consumer, &name, what));
            let (left, right) = (sum(READ), sum(GIVEN) + sum(PASSED));
            let equation = "read = given + passed";
            (left != right && sum(AHEAD) == 0).then_some(Imbalance {
                edge: Edge::Consumer,
                name,
                equation,
                left,
                right,
            })
        };
        // whoever uses a journal without statements need not count
        let counts = self.0.keys().any(|counter| counter.edge == Edge::Consumer && counter.what == GIVEN);
        self.names(Edge::Consumer).into_iter().filter(|_| counts).filter_map(imbalance).collect()
    }

    pub(super) fn load(db: &Connection) -> rusqlite::Result<Ledger> {
        let mut statement = db.prepare("SELECT edge, name, what, reason, value FROM ledger")?;
        let mut rows = statement.query([])?;
        let mut ledger = Ledger::default();
        while let Some(row) = rows.next()? {
            let text = |i| row.get::<_, String>(i).map(SmolStr::from);
            // an edge of a newer program is not ours to interpret
            let Some(edge) = Edge::parse(&row.get::<_, String>(0)?) else { continue };
            let value = u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0);
            ledger.0.insert(Counter { edge, name: text(1)?, what: text(2)?, reason: text(3)? }, value);
        }
        Ok(ledger)
    }

    /// Writes the counters that differ from those already stored.
    pub(super) fn save(&self, db: &Connection, stored: &Ledger) -> rusqlite::Result<()> {
        let mut statement = db.prepare_cached("INSERT OR REPLACE INTO ledger VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for (counter, value) in &self.0 {
            if stored.0.get(counter) != Some(value) {
                let value = i64::try_from(*value).unwrap_or(i64::MAX);
                let texts = (counter.name.as_str(), counter.what.as_str(), counter.reason.as_str());
                statement.execute(params![counter.edge.as_str(), texts.0, texts.1, texts.2, value])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_equation_is_checked_over_all_reasons() {
        let mut ledger = Ledger::default();
        ledger.add(Counter::new(Edge::Input, "rides", what::RECEIVED), 10);
        ledger.add(Counter::new(Edge::Input, "rides", what::STORED), 7);
        ledger.add(Counter::new(Edge::Input, "rides", what::DROPPED).because("too_deep"), 2);
        ledger.add(Counter::new(Edge::Output, "scored", what::ROWS_IN), 1);
        let found = ledger.imbalances();
        assert_eq!(
            found.iter().map(|i| (i.edge, i.left, i.right)).collect::<Vec<_>>(),
            [(Edge::Input, 10, 9), (Edge::Output, 1, 0)]
        );
        assert!(
            found[0].to_string().contains("input rides: received = stored + undecodable + dropped"),
            "{}",
            found[0]
        );
        ledger.add(Counter::new(Edge::Input, "rides", what::DROPPED).because("too_large"), 1);
        ledger.add(Counter::new(Edge::Output, "scored", what::DELIVERED), 1);
        assert_eq!(ledger.imbalances(), []);
    }
}
