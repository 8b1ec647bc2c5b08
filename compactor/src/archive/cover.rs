//! What is left to export. Pure.

use std::ops::Range;

use varve_common::Offset;

/// Of `wanted`, what no file covers, in order. A file that is there and not in the list (a run was killed between the two) is
/// made again as it was, whole: so nothing else comes to overlap it.
#[must_use]
pub fn left(
    wanted: Range<Offset>,
    listed: &[Range<Offset>],
    unlisted: &[Range<Offset>],
) -> Vec<Range<Offset>> {
    let overlaps = |range: &&Range<Offset>| range.start < wanted.end && wanted.start < range.end;
    let again: Vec<_> = unlisted.iter().filter(overlaps).cloned().collect();
    let mut taken: Vec<_> = listed.iter().chain(&again).cloned().collect();
    taken.sort_by_key(|range| (range.start, range.end));
    let mut left = again;
    let mut next = wanted.start;
    for range in &taken {
        if range.start > next && next < wanted.end {
            left.push(next..range.start.min(wanted.end));
        }
        next = next.max(range.end);
    }
    if next < wanted.end {
        left.push(next..wanted.end);
    }
    left.sort_by_key(|range| range.start);
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pair = (u64, u64);

    fn range(range: Pair) -> Range<Offset> {
        Offset(range.0)..Offset(range.1)
    }

    fn left_of(wanted: Pair, listed: &[Pair], unlisted: &[Pair]) -> Vec<Pair> {
        let ranges = |all: &[Pair]| all.iter().copied().map(range).collect::<Vec<_>>();
        let left = left(range(wanted), &ranges(listed), &ranges(unlisted));
        left.into_iter().map(|range| (range.start.0, range.end.0)).collect()
    }

    #[test]
    fn what_files_cover_is_not_exported_again() {
        assert_eq!(left_of((0, 100), &[], &[]), [(0, 100)]);
        assert_eq!(left_of((0, 100), &[(0, 40), (40, 60)], &[]), [(60, 100)]);
        assert_eq!(left_of((10, 100), &[(20, 30), (90, 200)], &[]), [(10, 20), (30, 90)]);
        assert_eq!(left_of((0, 100), &[(0, 100)], &[]), []);
        assert_eq!(left_of((50, 60), &[(0, 40), (70, 80)], &[]), [(50, 60)]);
    }

    #[test]
    fn a_file_that_is_not_listed_is_made_again_whole() {
        assert_eq!(left_of((0, 100), &[(0, 40)], &[(40, 60)]), [(40, 60), (60, 100)]);
        assert_eq!(left_of((50, 100), &[], &[(40, 60)]), [(40, 60), (60, 100)]);
        assert_eq!(left_of((70, 100), &[], &[(40, 60)]), [(70, 100)]);
    }
}
