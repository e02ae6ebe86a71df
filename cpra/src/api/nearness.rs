//! "Did you mean": the names closest to one that does not exist.
//!
//! Closeness is the number of letters to insert, delete, replace or swap with their neighbour; up to a third of the
//! name and at most three. Without such a name, the nearest ones in the alphabet that begin alike are offered.

use tokio::task::yield_now;

use crate::units::limits::{API_NEAR_MAX, API_NEAR_SCAN_MAX, API_SCAN_SLICE, MONITOR_NAME_MAX};
use crate::world::Catalog;

/// At most [`API_NEAR_MAX`] names, all equally close. Looks at [`API_NEAR_SCAN_MAX`] names at most.
pub(super) async fn nearest(catalog: &Catalog, wanted: &str) -> Vec<String> {
    if wanted.len() > MONITOR_NAME_MAX {
        return Vec::new();
    }
    let letters: Vec<char> = wanted.chars().flat_map(char::to_lowercase).collect();
    let allowed = (letters.len() / 3).clamp(1, 3);
    let mut near: Vec<(usize, &str)> = Vec::new();
    let mut candidate = Vec::new();
    let mut table = Table::default();
    for (looked_at, id) in catalog.ids_after(None).take(API_NEAR_SCAN_MAX).enumerate() {
        if looked_at % API_SCAN_SLICE == API_SCAN_SLICE - 1 {
            yield_now().await;
        }
        let name = catalog.name(id);
        // A letter has at most four bytes: most names are ruled out without a look at their letters.
        if name.len() > 4 * (letters.len() + allowed) {
            continue;
        }
        candidate.clear();
        candidate.extend(name.chars().flat_map(char::to_lowercase));
        if let Some(distance) = table.distance(&letters, &candidate, allowed) {
            let place = near.partition_point(|&(other, _)| other <= distance);
            near.insert(place, (distance, name));
            near.truncate(API_NEAR_MAX);
        }
    }
    if let Some(&(closest, _)) = near.first() {
        near.retain(|&(distance, _)| distance == closest);
    } else {
        let stem: String = wanted.chars().take(3).collect();
        let following = catalog.ids_after(Some(wanted)).map(|id| catalog.name(id));
        near.extend(following.take_while(|name| name.starts_with(&stem)).take(API_NEAR_MAX).map(|name| (0, name)));
    }
    near.into_iter().map(|(_, name)| name.to_owned()).collect()
}

/// Rows of the table, kept from one pair of words to the next: allocating them was most of the time.
#[derive(Default)]
struct Table {
    before: Vec<usize>,
    last: Vec<usize>,
    this: Vec<usize>,
}

impl Table {
    /// The distance of two words where it is at most `allowed` (optimal string alignment, only the band around the
    /// diagonal that can still come out below the bound).
    fn distance(&mut self, a: &[char], b: &[char], allowed: usize) -> Option<usize> {
        if a.len().abs_diff(b.len()) > allowed {
            return None;
        }
        let far = allowed + 1;
        let Self { before, last, this } = self;
        for row in [&mut *before, last, this] {
            row.clear();
            row.resize(b.len() + 1, far);
        }
        last.iter_mut().take(far).enumerate().for_each(|(column, cost)| *cost = column);
        let mut last_least = 0;
        for row in 1..=a.len() {
            let first = row.saturating_sub(allowed).max(1);
            // Left of the band may stand what was in it two rows ago.
            this[first - 1] = if first == 1 { row.min(far) } else { far };
            let mut least = this[first - 1];
            for column in first..=(row + allowed).min(b.len()) {
                let differs = usize::from(a[row - 1] != b[column - 1]);
                let mut cost = (last[column - 1] + differs).min(last[column] + 1).min(this[column - 1] + 1);
                if row > 1 && column > 1 && a[row - 1] == b[column - 2] && a[row - 2] == b[column - 1] {
                    cost = cost.min(before[column - 2] + 1);
                }
                this[column] = cost.min(far);
                least = least.min(this[column]);
            }
            // A swap reaches back two rows: only when both of them are too far is the word.
            if least > allowed && last_least > allowed {
                return None;
            }
            last_least = least;
            std::mem::swap(before, last);
            std::mem::swap(last, this);
        }
        last.last().copied().filter(|&distance| distance <= allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_whole_table() {
        let words = ["", "a", "ab", "ba", "abc", "acb", "shop/web", "shop/wbe", "shop/db", "shpo/web", "ü☃x", "ü☃"];
        let mut table = Table::default();
        for a in words {
            for b in words {
                let (x, y): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
                let full = whole(&x, &y);
                for allowed in 1..=3 {
                    assert_eq!(table.distance(&x, &y, allowed), (full <= allowed).then_some(full), "{a} {b} {allowed}");
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn rows_that_are_kept_do_not_show(pairs in proptest::collection::vec(("[abc]{0,12}", "[abc]{0,12}"), 1..8)) {
            let mut table = Table::default();
            for (a, b) in pairs {
                let (x, y): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
                let full = whole(&x, &y);
                for allowed in 1..=3 {
                    proptest::prop_assert_eq!(table.distance(&x, &y, allowed), (full <= allowed).then_some(full));
                }
            }
        }
    }

    fn whole(a: &[char], b: &[char]) -> usize {
        let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
        for row in 0..=a.len() {
            for column in 0..=b.len() {
                table[row][column] = if row == 0 || column == 0 {
                    row + column
                } else {
                    let differs = usize::from(a[row - 1] != b[column - 1]);
                    let mut cost = (table[row - 1][column - 1] + differs)
                        .min(table[row - 1][column] + 1)
                        .min(table[row][column - 1] + 1);
                    if row > 1 && column > 1 && a[row - 1] == b[column - 2] && a[row - 2] == b[column - 1] {
                        cost = cost.min(table[row - 2][column - 2] + 1);
                    }
                    cost
                };
            }
        }
        table[a.len()][b.len()]
    }
}
