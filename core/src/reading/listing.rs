//! Listing a replica so that nothing can slip through.
//!
//! A compactor writes a higher level before it deletes from a lower one. So levels are listed
//! one after the other in ascending order: a file that is gone when its level is listed has been
//! covered before that, and what covers it is seen later. Listing them at once would be faster
//! and could show an older latest state without any gap.
//!
//! For the same reason an object that has gone when it is read is no damage: what covers it is in
//! a new listing. Only a bounded number of those is tried, so that a program that keeps removing
//! objects ends the run instead of keeping it up for ever.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Flight;
use crate::ids::{Level, Now, TxidRange};
use crate::machine::{Actions, Exit, Fact, Listed, Severity, StoreRequest};

/// Entries asked for at once; what S3 gives at the most.
const PAGE_ENTRIES: u32 = 1000;

/// How often a replica is listed again before that is given up.
const RELISTS_MAX: u32 = 5;

/// The listings of one replica: how many there were, and the one under way.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Listings {
    count: u32,
    level: u8,
    after: Option<TxidRange>,
    found: Vec<Listed>,
}

impl Listings {
    /// Begins a listing from the lowest level; `key` is what its requests are for.
    pub(crate) fn begin<K: Copy>(&mut self, now: Now, key: K, flight: &mut Flight<K>, out: &mut Actions) {
        *self = Listings { count: self.count + 1, ..Listings::default() };
        flight.send(now, key, self.request().expect("there is a first level"), out);
    }

    /// Takes a page and asks for the next one under `key`, or gives what was found once there is
    /// none.
    pub(crate) fn take<K: Copy>(
        &mut self,
        now: Now,
        key: K,
        (entries, more): (Vec<Listed>, bool),
        flight: &mut Flight<K>,
        out: &mut Actions,
    ) -> Result<Option<Vec<Listed>>, Exit> {
        self.note(entries, more).map_err(|error| Exit::Failed {
            error,
            hint: "the store does not list names in order; see docs/STORAGE".into(),
        })?;
        match self.request() {
            Some(request) => {
                flight.send(now, key, request, out);
                Ok(None)
            }
            None => Ok(Some(core::mem::take(&mut self.found))),
        }
    }

    /// Says that the replica is listed again because of `why`; the end, if that was done too often.
    pub(crate) fn again(&self, why: &str, out: &mut Actions) -> Result<(), Exit> {
        if self.count > RELISTS_MAX {
            return Err(Exit::Failed {
                error: format!("{why}, after {} listings", self.count),
                hint: "something removes objects while they are read: check retention and other programs"
                    .into(),
            });
        }
        let text = format!("{why}; listing the replica again");
        out.notify(Severity::Info, Fact::Remark { text });
        Ok(())
    }

    /// How many have begun.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// What to ask next; `None` once all is listed.
    fn request(&self) -> Option<StoreRequest> {
        let level = Level::new(self.level)?;
        Some(StoreRequest::List { level, after: self.after, limit: PAGE_ENTRIES })
    }

    fn note(&mut self, entries: Vec<Listed>, more: bool) -> Result<(), String> {
        for entry in &entries {
            let range = entry.object.range;
            if entry.object.level.get() != self.level || self.after.is_some_and(|after| range <= after) {
                return Err(format!(
                    "the listing of level {} holds {} out of its order",
                    self.level, entry.object
                ));
            }
            self.after = Some(range);
        }
        if more && entries.is_empty() {
            return Err(format!("the listing of level {} promises more and gives none", self.level));
        }
        self.found.extend(entries);
        if !more {
            self.level += 1;
            self.after = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::time::Duration;
    use std::{panic, vec};

    use super::*;
    use crate::ids::{Mono, Txid, Wall};
    use crate::machine::{Action, Object, OpIds, ReplicaId, Request};

    const NOW: Now = Now { mono: Mono::from_duration(Duration::ZERO), wall: Wall(0) };

    fn listed(level: u8, txid: u64) -> Listed {
        let range = TxidRange::single(Txid::new(txid).unwrap());
        Listed { object: Object { level: Level::new(level).unwrap(), range }, len: 1, modified: None }
    }

    fn asked(out: &mut Actions) -> Vec<(u8, Option<u64>)> {
        out.drain()
            .map(|action| match action {
                Action::Submit {
                    request: Request::Store(StoreRequest::List { level, after, .. }), ..
                } => (level.get(), after.map(|range| range.max().get())),
                other => panic!("{other:?} is no listing"),
            })
            .collect()
    }

    /// Gives the pages, one after the other, to a new listing. What was found, and what was asked.
    #[expect(clippy::type_complexity, reason = "the two things that a listing does")]
    fn list(pages: &[(Vec<Listed>, bool)]) -> (Result<Option<Vec<Listed>>, Exit>, Vec<(u8, Option<u64>)>) {
        let mut flight = Flight::new(OpIds::new(ReplicaId(0), 1), Duration::from_secs(1));
        let (mut listings, mut out) = (Listings::default(), Actions::new());
        listings.begin(NOW, (), &mut flight, &mut out);
        let mut last = Ok(None);
        for page in pages {
            assert_eq!(last, Ok(None), "it ended before its last page");
            last = listings.take(NOW, (), page.clone(), &mut flight, &mut out);
        }
        (last, asked(&mut out))
    }

    #[test]
    fn levels_are_listed_one_after_the_other_page_by_page() {
        let mut pages = vec![(vec![listed(0, 1), listed(0, 2)], true), (vec![listed(0, 3)], false)];
        pages.extend((1..9).map(|_| (vec![], false)));
        pages.push((vec![listed(9, 1)], false));
        let (found, asked) = list(&pages);
        assert_eq!(found, Ok(Some(vec![listed(0, 1), listed(0, 2), listed(0, 3), listed(9, 1)])));
        let mut expected = vec![(0, None), (0, Some(2))];
        expected.extend((1..=9).map(|level| (level, None)));
        assert_eq!(asked, expected);
    }

    #[test]
    fn a_page_that_cannot_be_is_an_error() {
        let check = |page: (Vec<Listed>, bool), text: &str| match list(&[page]).0 {
            Err(Exit::Failed { error, .. }) => assert!(error.contains(text), "{error}"),
            other => panic!("{other:?}"),
        };
        check((vec![listed(0, 2), listed(0, 1)], false), "out of its order");
        check((vec![listed(0, 2), listed(0, 2)], false), "out of its order");
        check((vec![listed(1, 2)], false), "out of its order");
        check((vec![], true), "promises more and gives none");
    }

    #[test]
    fn a_new_listing_forgets_the_one_before_and_only_so_many_follow() {
        let mut flight = Flight::new(OpIds::new(ReplicaId(0), 1), Duration::from_secs(1));
        let (mut listings, mut out) = (Listings::default(), Actions::new());
        for count in 1..=RELISTS_MAX {
            listings.begin(NOW, (), &mut flight, &mut out);
            assert_eq!(asked(&mut out), [(0, None)]);
            let page = (vec![listed(0, 1)], true);
            assert_eq!(listings.take(NOW, (), page, &mut flight, &mut out), Ok(None));
            assert_eq!(asked(&mut out), [(0, Some(1))]);
            assert_eq!((listings.count(), listings.again("it has gone", &mut out)), (count, Ok(())));
            assert_eq!(out.drain().count(), 1, "it says so");
        }
        listings.begin(NOW, (), &mut flight, &mut out);
        let Err(Exit::Failed { error, .. }) = listings.again("it has gone", &mut out) else {
            panic!("it goes on for ever");
        };
        assert_eq!(error, "it has gone, after 6 listings".to_string());
    }
}
