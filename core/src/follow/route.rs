//! The way from the state that the copy shows to the newest one, with the fewest bytes.
//!
//! A file holds the last content of each page that its transactions changed. So it may be applied
//! to any state from the one before its first transaction up to its last, and files of all levels
//! make one graph, whose cheapest path is found in one pass by ascending end.

use alloc::vec::Vec;

use crate::ids::Txid;
use crate::machine::Listed;

/// A state that can be reached.
#[derive(Clone, Copy)]
struct End {
    txid: u64,
    bytes: u64,
    /// The file that leads there, and the place of the state that it is applied to.
    by: Option<(Listed, usize)>,
}

/// A way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// In the order in which they apply.
    pub files: Vec<Listed>,
    /// Their bytes together.
    pub bytes: u64,
    /// Where it leads.
    pub end: Txid,
}

/// The cheapest way from `have` to the highest state that can be reached without a file that stands
/// alone; `None` if none leads further. `objects` may be in any order.
pub fn route(objects: &[Listed], have: Txid) -> Option<Route> {
    let mut files: Vec<&Listed> =
        objects.iter().filter(|it| it.object.range.max() > have && !it.object.range.is_snapshot()).collect();
    files.sort_by_key(|it| (it.object.range.max(), it.len, it.object.level));
    let mut ends = alloc::vec![End { txid: have.get(), bytes: 0, by: None }];
    // Places in `ends`, by ascending state and ascending cost: a higher state at no more cost is
    // better wherever a lower one would do.
    let mut front = alloc::vec![0usize];
    for file in files {
        let (min, max) = (file.object.range.min().get(), file.object.range.max().get());
        let from = front.partition_point(|&at| ends[at].txid < min - 1);
        let Some(&from) = front.get(from) else { continue };
        if ends[from].txid >= max {
            continue;
        }
        let bytes = ends[from].bytes + file.len;
        let last = ends[*front.last().expect("the front holds a state")];
        if last.txid == max && last.bytes <= bytes {
            continue;
        }
        while front.last().is_some_and(|&at| ends[at].bytes >= bytes) {
            front.pop();
        }
        front.push(ends.len());
        ends.push(End { txid: max, bytes, by: Some((*file, from)) });
    }
    let mut at = *front.last()?;
    let (end, bytes) = (Txid::new(ends[at].txid)?, ends[at].bytes);
    let mut files = Vec::new();
    while let Some((file, from)) = ends[at].by {
        files.push(file);
        at = from;
    }
    files.reverse();
    (!files.is_empty()).then_some(Route { files, bytes, end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Level, TxidRange};
    use crate::machine::Object;

    fn file(level: u8, min: u64, max: u64, len: u64) -> Listed {
        let txid = |n| Txid::new(n).unwrap();
        let range = TxidRange::new(txid(min), txid(max)).unwrap();
        Listed { object: Object { level: Level::new(level).unwrap(), range }, len, modified: None }
    }

    fn check(files: &[Listed], have: u64, expected: Option<(&[usize], u64)>) {
        let found = route(files, Txid::new(have).unwrap());
        let expected = expected.map(|(places, end)| {
            let files: Vec<Listed> = places.iter().map(|&at| files[at]).collect();
            (files, end)
        });
        assert_eq!(found.map(|route| (route.files, route.end.get())), expected);
    }

    #[test]
    fn the_fewest_bytes_win() {
        let singles: Vec<Listed> = (1..=9).map(|n| file(0, n, n, 10)).collect();
        check(&singles, 6, Some((&[6, 7, 8], 9)));
        check(&singles, 9, None);
        let with = |level, min, max, len| {
            let mut files = singles.clone();
            files.push(file(level, min, max, len));
            files
        };
        // A level that costs less than what it holds, one that costs more, one that begins earlier.
        check(&with(1, 5, 8, 25), 4, Some((&[9, 8], 9)));
        check(&with(1, 5, 8, 45), 4, Some((&[4, 5, 6, 7, 8], 9)));
        check(&with(2, 2, 8, 15), 4, Some((&[9, 8], 9)));
        check(&with(2, 2, 8, 15), 7, Some((&[7, 8], 9)));
    }

    #[test]
    fn gaps_end_the_way_and_snapshots_are_no_step() {
        let files = [file(0, 5, 5, 10), file(0, 7, 7, 10), file(9, 1, 7, 1)];
        check(&files, 4, Some((&[0], 5)));
        check(&files, 3, None);
        check(&files, 6, Some((&[1], 7)));
    }
}
