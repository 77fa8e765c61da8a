//! "Did you mean": the nearest of a few known words.

/// Longest word compared, in bytes; longer ones get no suggestion.
const WORD_BYTES: usize = 64;

/// The word of `known` nearest to `typed`, if it is near enough to be what was meant.
///
/// Near means an edit distance of at most a third of the typed length, at least 1 and at most 3.
pub fn did_you_mean<'a>(typed: &str, known: &mut dyn Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (typed.len() / 3).clamp(1, 3);
    let mut nearest = None;
    // Each byte more is one insertion at least.
    for word in known.filter(|word| word.len().abs_diff(typed.len()) <= allowed) {
        let distance = distance(typed, word);
        if distance <= allowed && nearest.is_none_or(|(least, _)| distance < least) {
            nearest = Some((distance, word));
        }
    }
    nearest.map(|(_, word)| word)
}

/// The number of single-byte insertions, deletions, substitutions and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() > WORD_BYTES || b.len() > WORD_BYTES {
        return usize::MAX;
    }
    let mut before = [0usize; WORD_BYTES + 1];
    let mut above: [usize; WORD_BYTES + 1] = core::array::from_fn(|i| i);
    for i in 1..=a.len() {
        let mut row = [0usize; WORD_BYTES + 1];
        row[0] = i;
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = above;
        above = row;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["memory", "pids", "cpu", "restart"];
        assert_eq!(did_you_mean("memroy", &mut known.into_iter()), Some("memory"));
        assert_eq!(did_you_mean("pid", &mut known.into_iter()), Some("pids"));
        assert_eq!(did_you_mean("restrat", &mut known.into_iter()), Some("restart"));
        assert_eq!(did_you_mean("watchdog", &mut known.into_iter()), None);
        assert_eq!(did_you_mean(&"x".repeat(500), &mut known.into_iter()), None);
    }
}
