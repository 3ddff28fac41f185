//! "Did you mean": the nearest of some names.
//!
//! In: a name and what would have been valid. Out: the candidate a person most likely meant. Invariant: the work is
//! bounded, whatever the length of the name. Not here: wording.

/// Longer names are not compared: nobody mistypes them, and the work grows with the square.
const LENGTH_MAX: usize = 64;

/// More edits than this make another word, however long it is.
const EDITS_MAX: usize = 3;

/// The candidate nearest to `name`, ignoring letter case, if it is near enough to be a slip: one edit in three letters,
/// three at most. A swap of two neighbours counts as one edit. The first of equally near ones wins.
pub fn suggest<'a, S: AsRef<str> + ?Sized + 'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a S>,
) -> Option<&'a str> {
    let wanted = letters(name)?;
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let candidate = candidate.as_ref();
        let Some(have) = letters(candidate) else { continue };
        let allowed = (wanted.len().max(have.len()) / 3).clamp(1, EDITS_MAX);
        let distance = distance(&wanted, &have);
        if distance <= allowed && distance < have.len() && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

fn letters(name: &str) -> Option<Vec<char>> {
    let letters: Vec<char> = name.chars().flat_map(char::to_lowercase).take(LENGTH_MAX + 1).collect();
    (letters.len() <= LENGTH_MAX).then_some(letters)
}

/// Edits (insert, delete, replace, swap neighbours) that turn `a` into `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
            let mut least = (at(&last, j + 1) + 1).min(at(&row, j) + 1).min(at(&last, j) + usize::from(x != y));
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                least = least.min(at(&before_last, j - 1) + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_wins_and_far_ones_are_not_offered() {
        let names = ["SELECT", "INTO", "FROM", "WHERE", "topics"];
        for (typed, want) in [
            ("SELCT", Some("SELECT")),
            ("form", Some("FROM")),
            ("wehre", Some("WHERE")),
            ("topic", Some("topics")),
            ("TOPICS", Some("topics")),
            ("x", None),
            ("distance", None),
            ("", None),
        ] {
            assert_eq!(suggest(typed, names), want, "{typed}");
        }
    }

    #[test]
    fn takes_owned_names_and_ignores_endless_ones() {
        let names = vec!["rides".to_string(), "x".repeat(1000)];
        assert_eq!(suggest("ride", &names), Some("rides"));
        assert_eq!(suggest(&"x".repeat(999), &names), None);
    }
}
