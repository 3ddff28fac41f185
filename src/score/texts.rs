//! Room for the texts of failed rows that wait to be stored.
//!
//! In: failures, each with its texts. Out: the same, or with the start of the message alone where no room is left.
//! Invariant: the texts of one function's failed rows take at most [`BYTES_MAX`], and each cut one [`SHORT_MAX`]
//! besides, until somebody has taken them. Not here: which row failed, the room of the rows themselves (`room`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Failure, clipped};

/// Texts of failed rows behind rows that have no answer yet: those of 300 rows at least.
pub const BYTES_MAX: usize = 4 << 20;
/// Bytes that are left of a message that finds no room: with it a failed row takes about what it was counted with.
pub const SHORT_MAX: usize = 100;

/// What the texts of one function take.
#[derive(Clone, Debug, Default)]
pub struct Texts(Arc<AtomicUsize>);

/// A place for the texts of a row, given back when it is dropped.
#[derive(Debug)]
struct TextPlace {
    of: Texts,
    bytes: usize,
}

/// Holds the place of a failure's texts.
#[derive(Clone, Debug, Default)]
pub struct TextsGuard {
    _place: Option<Arc<TextPlace>>,
}

impl PartialEq for TextsGuard {
    /// It says nothing about the failure.
    fn eq(&self, _: &TextsGuard) -> bool {
        true
    }
}

impl Texts {
    /// Gives the texts of a failure a place, or cuts them.
    pub fn keep(&self, failure: &mut Failure) {
        let bytes = failure.text_bytes();
        let room = |used: usize| used.checked_add(bytes).filter(|used| *used <= BYTES_MAX);
        if self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_ok() {
            failure.kept = TextsGuard { _place: Some(Arc::new(TextPlace { of: self.clone(), bytes })) };
            return;
        }
        failure.message = clipped(&failure.message, SHORT_MAX);
        (failure.request, failure.response, failure.request_id) = (String::new(), String::new(), String::new());
    }

    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for TextPlace {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(bytes: usize) -> Failure {
        Failure {
            reason: "rejected",
            message: "m".repeat(bytes / 2),
            request: "r".repeat(bytes / 2),
            ..Failure::default()
        }
    }

    #[test]
    fn texts_without_a_place_are_cut_and_a_place_is_given_back() {
        let texts = Texts::default();
        let mut large = failure(BYTES_MAX - 100);
        texts.keep(&mut large);
        assert_eq!((large.text_bytes(), texts.used()), (BYTES_MAX - 100, BYTES_MAX - 100));
        let mut cut = failure(1_000);
        texts.keep(&mut cut);
        assert_eq!((cut.message.clone(), cut.request.as_str()), ("m".repeat(SHORT_MAX) + "…", ""));
        let mut small = failure(100);
        texts.keep(&mut small);
        assert_eq!((small.text_bytes(), texts.used()), (100, BYTES_MAX));
        let copy = small.clone();
        drop(large);
        drop(small);
        assert_eq!(texts.used(), 100, "the copy has its texts too");
        drop((copy, cut));
        assert_eq!(texts.used(), 0);
        let mut again = failure(1_000);
        texts.keep(&mut again);
        assert_eq!(again.text_bytes(), 1_000);
    }
}
