//! Rows whose form does not fit the signature: are a few rows at fault, or do the query and the model not belong
//! together?
//!
//! In: the rows of a batch that cannot be sent, and how many of it can. Out: whether the rows are to be decided or the
//! function pauses, and both forms in words for whoever repairs it. Invariant: while no row has fitted a signature, no
//! row is condemned for its form. Not here: what fits (`body`), the gate.

use super::super::body::FormMisfit;
use super::super::queue::Unsendable;

/// This number of rows in a row that fail for the same reason of form pauses.
const IN_A_ROW: usize = 100;
/// Half of a batch pauses only from this number of rows on.
const HALF_MIN: usize = 10;

/// What to do with rows that do not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMisfit {
    /// Where the form of many is at fault the function pauses and rows wait; a few among others are dead letters.
    #[default]
    Pause,
    /// All of them are dead letters.
    DeadLetter,
}

/// What is known of the rows under one signature.
#[derive(Clone, Debug, Default)]
pub struct Misfits {
    /// A row has fitted.
    pub is_fitted: bool,
    /// Rows that did not since one did, all for the same reason.
    in_a_row: usize,
    why: String,
}

impl Misfits {
    /// Looks at a batch of which `fit` rows can be sent. `Some`: the function is to pause, and this is the number among
    /// `bad` of a row that shows why.
    pub fn judge(&mut self, fit: usize, bad: &[Unsendable]) -> Option<usize> {
        self.is_fitted |= fit > 0;
        let counts = |misfit: &FormMisfit| misfit.is_certain || !self.is_fitted;
        let mut reasons: Vec<(&str, usize, usize)> = Vec::new();
        for (i, misfit) in bad.iter().enumerate().filter_map(|(i, row)| Some((i, row.misfit.as_ref()?))) {
            match reasons.iter_mut().find(|(what, ..)| *what == misfit.what) {
                Some((_, rows, _)) => *rows += 1,
                None if counts(misfit) => reasons.push((&misfit.what, 1, i)),
                None => {}
            }
        }
        let Some((what, rows, first)) = reasons.into_iter().max_by_key(|(_, rows, _)| *rows) else {
            if fit > 0 {
                self.in_a_row = 0;
            }
            return None;
        };
        match fit == 0 && self.why == what {
            true => self.in_a_row += rows,
            false => (self.in_a_row, self.why) = (rows, what.to_owned()),
        }
        let is_half = rows >= HALF_MIN && 2 * rows >= fit + bad.len();
        let pauses = !self.is_fitted || is_half || (fit == 0 && self.in_a_row >= IN_A_ROW);
        pauses.then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Failure;
    use super::super::super::queue::RowRef;
    use super::*;

    fn bad(whats: &[(&str, bool, usize)]) -> Vec<Unsendable> {
        let rows = whats.iter().flat_map(|(what, is_certain, rows)| {
            let misfit = (!what.is_empty()).then(|| FormMisfit { what: (*what).to_owned(), is_certain: *is_certain });
            std::iter::repeat_n(misfit, *rows)
        });
        let row = |(row, misfit)| Unsendable { row: RowRef { chunk: 1, row }, failure: Failure::default(), misfit };
        rows.enumerate().map(row).collect()
    }

    #[test]
    fn many_of_one_form_pause_and_a_few_do_not() {
        // whether a row fitted before, how many fit now, those that do not, and which shows why
        type Line = (bool, usize, &'static [(&'static str, bool, usize)], Option<usize>);
        let table: [Line; 12] = [
            (false, 0, &[("width", true, 1)], Some(0)),
            (false, 0, &[("", false, 3), ("width", true, 1)], Some(3)),
            // a value and no form
            (false, 0, &[("", false, 500)], None),
            // perhaps only these values
            (false, 0, &[("text", false, 5)], Some(0)),
            (true, 0, &[("text", false, 500)], None),
            (false, 1, &[("width", true, 1)], None),
            (false, 9, &[("width", true, 9)], None),
            (true, 10, &[("width", true, 10)], Some(0)),
            (true, 11, &[("width", true, 10)], None),
            (true, 0, &[("width", true, 9)], None),
            (true, 0, &[("missing", true, 4), ("", false, 2), ("width", true, 10)], Some(6)),
            (true, 0, &[("missing", true, 10), ("", false, 11)], None),
        ];
        for (is_fitted, fit, rows, first) in table {
            let mut misfits = Misfits { is_fitted, ..Misfits::default() };
            assert_eq!(misfits.judge(fit, &bad(rows)), first, "{is_fitted} {fit} {rows:?}");
        }
    }

    #[test]
    fn one_after_another_pause_at_the_hundredth() {
        let mut misfits = Misfits { is_fitted: true, ..Misfits::default() };
        let one = bad(&[("width", true, 1)]);
        for _ in 0..3 {
            (1..IN_A_ROW).for_each(|_| assert_eq!(misfits.judge(0, &one), None));
            assert_eq!(misfits.judge(1, &[]), None);
        }
        (1..IN_A_ROW).for_each(|_| assert_eq!(misfits.judge(0, &one), None));
        assert_eq!(misfits.judge(0, &bad(&[("missing", true, 1)])), None);
        (1..IN_A_ROW).for_each(|_| assert_eq!(misfits.judge(0, &one), None));
        assert_eq!(misfits.judge(0, &one), Some(0));
    }
}
