//! Sorting, with the machinery once: std's sort is 4 KB for each type that it sorts, so that the places are sorted.
#![forbid(unsafe_code)]

use core::cmp::Ordering;

/// Sorts by the elements' own order. Equal ones stay in theirs.
pub fn sort<T: Ord>(list: &mut Vec<T>) {
    sort_by(list, T::cmp);
}

/// Sorts by `compare`. Equal elements stay in their order.
pub fn sort_by<T>(list: &mut Vec<T>, compare: impl Fn(&T, &T) -> Ordering) {
    let places = places(list.len(), &|a, b| match (list.get(a), list.get(b)) {
        (Some(a), Some(b)) => compare(a, b),
        _ => Ordering::Equal,
    });
    let mut slots: Vec<Option<T>> = core::mem::take(list).into_iter().map(Some).collect();
    list.extend(places.into_iter().filter_map(|place| slots.get_mut(place)?.take()));
}

/// The places from 0 to `count` in sorted order.
fn places(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_by(|a, b| compare(*a, *b));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_as_std_sorts() {
        let seed = 20_261_121u64;
        println!("seed {seed}");
        let mut state = seed;
        for length in [0, 1, 2, 3, 20, 21, 100, 5000] {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state >> 60
            };
            let mut ours: Vec<(u64, usize)> = (0..length).map(|place| (next(), place)).collect();
            let mut theirs = ours.clone();
            sort_by(&mut ours, |a, b| a.0.cmp(&b.0));
            theirs.sort_by_key(|pair| pair.0);
            assert_eq!(ours, theirs, "length {length}");
        }
    }
}
