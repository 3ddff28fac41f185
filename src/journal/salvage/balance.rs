//! Counters of a ledger that could not be read whole, put right.
//!
//! In: books. Out: the same with counters under the reason `salvage` where an equation did not hold. Invariant: no
//! counter is made smaller, and afterwards all equations hold. Not here: what they mean (`ledger`).

use crate::journal::books::Books;
use crate::journal::ledger::{Counter, Edge, what};

/// The reason that tells these counts from others.
const SALVAGE: &str = "salvage";

/// How many equations did not hold.
pub(super) fn balance(books: &mut Books) -> usize {
    let mut found = books.ledger.imbalances();
    found.extend(books.consumer_imbalances());
    for imbalance in &found {
        let (left, right) = sides(imbalance.edge);
        let difference = imbalance.left.abs_diff(imbalance.right);
        let what = if imbalance.left < imbalance.right { left } else { right };
        add(books, imbalance.edge, &imbalance.name, what, difference);
    }
    let mut several = found.len();
    // what is counted as read may just have become more
    for imbalance in books.ledger.given_imbalances() {
        let what = if imbalance.left < imbalance.right { what::AHEAD } else { what::PASSED };
        add(books, Edge::Consumer, &imbalance.name, what, imbalance.left.abs_diff(imbalance.right));
        several += 1;
    }
    let ledger = &books.ledger;
    let stored: u64 = ledger.names(Edge::Input).iter().map(|name| ledger.sum(Edge::Input, name, what::STORED)).sum();
    let counted = i128::from(stored) + i128::from(ledger.sum(Edge::Input, "", what::LOST));
    let given_out = i128::from(books.inputs_end());
    if counted < given_out {
        // nobody can tell of which input they were
        add(books, Edge::Input, "", what::STORED, counted.abs_diff(given_out));
        add(books, Edge::Input, "", what::RECEIVED, counted.abs_diff(given_out));
        several += 1;
    }
    let letters = |what: &str| books.ledger.sum(Edge::DeadLetters, "", what);
    let stored = letters(what::STORED);
    let known = books.dead_letters.letters + letters(what::DROPPED) + letters(what::REMOVED);
    if stored != known {
        let what = if stored < known { what::STORED } else { what::DROPPED };
        add(books, Edge::DeadLetters, "", what, u128::from(stored.abs_diff(known)));
        several += 1;
    }
    several
}

/// What is counted where the left side of an edge's equation is too small, and where the right one is.
fn sides(edge: Edge) -> (&'static str, &'static str) {
    match edge {
        Edge::Input => (what::RECEIVED, what::DROPPED),
        Edge::Consumer => (what::STORED, what::READ),
        Edge::Statement => (what::ROWS_IN, what::EVALUATED),
        Edge::Output => (what::ROWS_IN, what::DROPPED),
        Edge::DeadLetters => (what::STORED, what::DROPPED),
    }
}

fn add(books: &mut Books, edge: Edge, name: &str, what: &'static str, n: u128) {
    let counter = Counter::new(edge, name, what).because(SALVAGE);
    books.ledger.add(counter, u64::try_from(n).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::books::{ConsumerBook, DeadLetterCount, INPUTS, StreamBook};
    use crate::time::Timestamp;

    #[test]
    fn all_equations_hold_afterwards_and_nothing_is_taken_back() {
        let mut books = Books::default();
        let last_arrival = Timestamp::MIN;
        let inputs = StreamBook { name: "inputs".into(), first: 0, next: 90, last_arrival, trimmed_to: i64::MIN };
        books.streams.insert(INPUTS, inputs);
        for (id, name, position) in [(1, "a", 40), (2, "b", 90)] {
            books.consumers.insert(id, ConsumerBook { name: name.into(), position, ..ConsumerBook::default() });
        }
        let counts = [
            (Edge::Input, "i", what::STORED, 70),
            (Edge::Input, "j", what::RECEIVED, 5),
            (Edge::Consumer, "b", what::SKIPPED, 100),
            (Edge::Consumer, "b", what::GIVEN, 10),
            (Edge::Statement, "s", what::FAILED, 3),
            (Edge::Statement, "t", what::ROWS_IN, 3),
            (Edge::Output, "o", what::ROWS_IN, 9),
            (Edge::Output, "p", what::DELIVERED, 9),
            (Edge::DeadLetters, "", what::STORED, 7),
        ];
        for (edge, name, what, n) in counts {
            books.ledger.add(Counter::new(edge, name, what), n);
        }
        books.dead_letters = DeadLetterCount { letters: 4, bytes: 0 };
        assert_eq!(balance(&mut books), 12);
        assert_eq!((books.ledger.imbalances(), books.consumer_imbalances()), (vec![], vec![]));
        assert_eq!(books.ledger.given_imbalances(), []);
        for (edge, name, what, n) in counts {
            assert_eq!(books.ledger.get(&Counter::new(edge, name, what)), n, "{name} {what}");
        }
        let dropped = Counter::new(Edge::DeadLetters, "", what::DROPPED).because(SALVAGE);
        assert_eq!(books.ledger.get(&dropped), 3);
        assert_eq!(balance(&mut books), 0);
    }
}
