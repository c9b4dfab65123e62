//! "Did you mean": the known name nearest to a misspelt one.

/// The candidate with the smallest edit distance to `name`, letters of either case being equal, unless even
/// that one is too far away to be what was meant (more than a third of its letters differ).
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (distance(&name, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(name.len()) / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in bytes. Names are short; the quadratic time does not matter.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (row_number, l) in left.bytes().enumerate() {
        let mut diagonal = row_number;
        let mut previous = row_number + 1;
        for (cell, r) in row.iter_mut().skip(1).zip(right.bytes()) {
            let replaced = diagonal + usize::from(l != r);
            diagonal = *cell;
            previous = replaced.min(previous + 1).min(*cell + 1);
            *cell = previous;
        }
        if let Some(first) = row.first_mut() {
            *first = row_number + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn distances() {
        for (left, right, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("abc", "abc", 0),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }

    #[test]
    fn far_names_give_no_hint() {
        assert_eq!(nearest("pulInterval", ["pullInterval", "pullPeerNum"]), Some("pullInterval"));
        assert_eq!(nearest("PULLINTERVAL", ["pullInterval"]), Some("pullInterval"));
        assert_eq!(nearest("colour", ["pullInterval", "endpoint"]), None);
    }
}
