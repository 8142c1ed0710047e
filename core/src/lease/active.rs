//! Which databases were put to last: so that those who follow look at what has changed, and warm that first.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::checksum::FileDigest;

/// So many are named. What fell off is not known, and whoever missed it looks everywhere.
const NAMED_MAX: usize = 64;

/// The place of a database's replica, the same on each host that replicates it there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PlaceId(pub u64);

impl PlaceId {
    /// Of a place as people write it. Hosts that write it differently look more often than they need to.
    pub fn of(place: &str) -> PlaceId {
        let mut digest = FileDigest::new();
        digest.update(place.as_bytes());
        PlaceId(digest.finish())
    }
}

/// Databases with the number of the segment that was put for each last, the newest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Active(Vec<(PlaceId, u64)>);

impl Active {
    /// The segment of this number was put there. Numbers grow.
    pub fn put(&mut self, place: PlaceId, number: u64) {
        self.0.retain(|(other, _)| *other != place);
        self.0.insert(0, (place, number));
        self.0.truncate(NAMED_MAX);
    }

    /// The same databases for a holder that has put nothing yet.
    pub fn inherited(&self) -> Active {
        Active(self.0.iter().map(|(place, _)| (*place, 0)).collect())
    }

    /// Where something was put behind this number. `None` where some of them may have fallen off, or were
    /// never named.
    pub fn since(&self, number: u64) -> Option<Vec<PlaceId>> {
        let put: Vec<PlaceId> =
            self.0.iter().take_while(|(_, last)| *last > number).map(|(place, _)| *place).collect();
        (!put.is_empty() && put.len() < NAMED_MAX).then_some(put)
    }

    /// The databases, the most active first.
    pub fn places(&self) -> impl Iterator<Item = PlaceId> {
        self.0.iter().map(|(place, _)| *place)
    }

    pub(super) fn encode(&self) -> String {
        let names: Vec<String> =
            self.0.iter().map(|(place, number)| format!("{:016x}@{number}", place.0)).collect();
        names.join(" ")
    }

    pub(super) fn decode(text: &str) -> Option<Active> {
        let one = |name: &str| {
            let (place, number) = name.split_once('@')?;
            Some((PlaceId(u64::from_str_radix(place, 16).ok()?), number.parse().ok()?))
        };
        text.split(' ').filter(|name| !name.is_empty()).map(one).collect::<Option<Vec<_>>>().map(Active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_since_is_named_or_known_to_be_missing() {
        let place = |n: u64| PlaceId(n);
        let mut active = Active::default();
        assert_eq!(active.since(0), None, "nothing is named");
        for (number, n) in [1, 2, 3, 2, 1].into_iter().enumerate() {
            active.put(place(n), number as u64 + 1);
        }
        assert_eq!(active.since(3), Some(alloc::vec![place(1), place(2)]));
        assert_eq!(active.since(4), Some(alloc::vec![place(1)]));
        assert_eq!(active.since(5), None, "somebody counts what nobody names");
        assert_eq!(Active::decode(&active.encode()), Some(active.clone()));
        let inherited = active.inherited();
        assert_eq!(inherited.places().collect::<Vec<_>>(), [place(1), place(2), place(3)]);
        assert_eq!(inherited.since(0), None);
        for n in 0..NAMED_MAX as u64 {
            active.put(place(100 + n), 6 + n);
        }
        assert_eq!(active.since(6).map(|put| put.len()), Some(NAMED_MAX - 1));
        assert_eq!(active.since(5), None, "one more may have fallen off");
        for wrong in ["1", "@1", "1@", "g@1", "1@-1", "1@1,2@2"] {
            assert_eq!(Active::decode(wrong), None, "{wrong}");
        }
    }
}
