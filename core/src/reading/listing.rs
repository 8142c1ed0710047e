//! Listing a replica so that nothing can slip through.
//!
//! A compactor writes a higher level before it deletes from a lower one. So levels are listed
//! one after the other in ascending order: a file that is gone when its level is listed has been
//! covered before that, and what covers it is seen later. Listing them at once and no more would
//! be faster, and could show an older latest state without any gap.
//!
//! Ten answers one after the other are a third of a second where a store is 30 ms away. So a first
//! listing asks for all levels at once, and when all have answered for those above level 0 a second
//! time, at once again. If the second answers are those of the first, the levels above stood still
//! meanwhile. Whatever had gone from a level at its first answer had been covered before that, and so
//! before the second question: by a file that the second answers show. If they differ, nothing is
//! concluded, and the levels are listed one after the other. (What this cannot see and the slow way
//! could is a file that is put after the first answer and deleted before the second, with what it held
//! covered by another that is put within the same moment: no retention deletes what it has just seen
//! for the first time.)
//!
//! For the same reason an object that has gone when it is read is no damage: what covers it is in
//! a new listing. Only a bounded number of those is tried, so that a program that keeps removing
//! objects ends the run instead of keeping it up for ever. A new listing takes the slow way.

use alloc::collections::VecDeque;
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
    /// The level that is listed, of one after the other.
    at: Option<Level>,
    /// What is asked for at once.
    together: Option<Together>,
    levels: Vec<Part>,
}

/// What was found of a level.
#[derive(Clone, PartialEq, Debug, Default)]
struct Part {
    after: Option<TxidRange>,
    found: Vec<Listed>,
}

/// Levels that are listed at once.
#[derive(Clone, PartialEq, Debug)]
struct Together {
    /// Lists under way at the most.
    width: usize,
    waiting: VecDeque<Level>,
    open: usize,
    /// What the first round has found, once it has ended.
    first: Option<Vec<Part>>,
}

impl Listings {
    /// Begins a listing from the lowest level; `key` is what its requests are for.
    pub(crate) fn begin<K: Copy>(&mut self, now: Now, key: K, flight: &mut Flight<K>, out: &mut Actions) {
        self.count += 1;
        self.one_by_one(now, |_| key, flight, out);
    }

    /// Takes a page and asks for the next one under `key`, or gives what was found once there is
    /// none.
    pub(crate) fn take<K: Copy>(
        &mut self,
        now: Now,
        key: K,
        page: (Vec<Listed>, bool),
        flight: &mut Flight<K>,
        out: &mut Actions,
    ) -> Result<Option<Vec<Listed>>, Exit> {
        let level = self.at.expect("a level is listed");
        self.take_of(level, now, |_| key, page, flight, out)
    }

    /// Begins a listing of all levels, of which `width` are asked for at once; if there was one before,
    /// one level after the other. `key` says what a request for a level is for.
    pub(crate) fn begin_together<K: Copy>(
        &mut self,
        width: usize,
        now: Now,
        key: impl Fn(Level) -> K,
        flight: &mut Flight<K>,
        out: &mut Actions,
    ) {
        self.count += 1;
        if self.count > 1 || width < 2 {
            return self.one_by_one(now, key, flight, out);
        }
        let together = Together { width, waiting: Level::all().collect(), open: 0, first: None };
        (self.at, self.together, self.levels) = (None, Some(together), parts());
        self.ask_together(now, key, flight, out);
    }

    /// As [`take`](Self::take), for a page of `level`.
    pub(crate) fn take_of<K: Copy>(
        &mut self,
        level: Level,
        now: Now,
        key: impl Fn(Level) -> K,
        (entries, more): (Vec<Listed>, bool),
        flight: &mut Flight<K>,
        out: &mut Actions,
    ) -> Result<Option<Vec<Listed>>, Exit> {
        self.note(level, entries, more).map_err(|error| Exit::Failed {
            error,
            hint: "the store does not list names in order; see docs/STORAGE".into(),
        })?;
        if more {
            flight.send(now, key(level), self.request(level), out);
            return Ok(None);
        }
        let Some(together) = &mut self.together else {
            self.at = Level::new(level.get() + 1);
            return match self.at {
                Some(next) => {
                    flight.send(now, key(next), self.request(next), out);
                    Ok(None)
                }
                None => Ok(Some(self.all())),
            };
        };
        together.open -= 1;
        if together.open > 0 || !together.waiting.is_empty() {
            self.ask_together(now, key, flight, out);
            return Ok(None);
        }
        match together.first.take() {
            None => {
                together.waiting = Level::all().skip(1).collect();
                together.first = Some(core::mem::replace(&mut self.levels, parts()));
                self.ask_together(now, key, flight, out);
                Ok(None)
            }
            Some(first) if first[1..] == self.levels[1..] => {
                self.levels = first;
                Ok(Some(self.all()))
            }
            Some(_) => {
                self.one_by_one(now, key, flight, out);
                Ok(None)
            }
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

    fn one_by_one<K: Copy>(
        &mut self,
        now: Now,
        key: impl Fn(Level) -> K,
        flight: &mut Flight<K>,
        out: &mut Actions,
    ) {
        (self.at, self.together, self.levels) = (Some(Level::CAPTURES), None, parts());
        flight.send(now, key(Level::CAPTURES), self.request(Level::CAPTURES), out);
    }

    fn ask_together<K: Copy>(
        &mut self,
        now: Now,
        key: impl Fn(Level) -> K,
        flight: &mut Flight<K>,
        out: &mut Actions,
    ) {
        while let Some(together) = self.together.as_mut().filter(|it| it.open < it.width) {
            let Some(level) = together.waiting.pop_front() else { return };
            together.open += 1;
            flight.send(now, key(level), self.request(level), out);
        }
    }

    /// What to ask next of a level.
    fn request(&self, level: Level) -> StoreRequest {
        let after = self.levels[usize::from(level.get())].after;
        StoreRequest::List { level, after, limit: PAGE_ENTRIES }
    }

    /// What was found, in ascending order.
    fn all(&mut self) -> Vec<Listed> {
        core::mem::take(&mut self.levels).into_iter().flat_map(|part| part.found).collect()
    }

    fn note(&mut self, level: Level, entries: Vec<Listed>, more: bool) -> Result<(), String> {
        let part = &mut self.levels[usize::from(level.get())];
        for entry in &entries {
            let range = entry.object.range;
            if entry.object.level != level || part.after.is_some_and(|after| range <= after) {
                return Err(format!("the listing of level {level} holds {} out of its order", entry.object));
            }
            part.after = Some(range);
        }
        if more && entries.is_empty() {
            return Err(format!("the listing of level {level} promises more and gives none"));
        }
        part.found.extend(entries);
        Ok(())
    }
}

fn parts() -> Vec<Part> {
    Level::all().map(|_| Part::default()).collect()
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

    /// Lists at once, up to three at a time, what `store` holds at each answer: it is told how many there
    /// were. The answers come in any order. What was found, and how many were asked for.
    fn list_together(seed: u64, store: impl Fn(usize) -> Vec<Listed>) -> (Vec<Listed>, usize) {
        let mut flight = Flight::new(OpIds::new(ReplicaId(0), 1), Duration::from_secs(1));
        let (mut listings, mut out) = (Listings::default(), Actions::new());
        let key = |level: Level| level;
        listings.begin_together(3, NOW, key, &mut flight, &mut out);
        let (mut open, mut draw) = (Vec::new(), seed);
        for answer in 0.. {
            open.extend(asked(&mut out));
            assert!(open.len() <= 3, "{open:?} at once");
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (level, after) = open.swap_remove((draw >> 33) as usize % open.len());
            let of_level = |it: &Listed| {
                it.object.level.get() == level
                    && after.is_none_or(|after| it.object.range.min().get() > after)
            };
            let mut entries: Vec<Listed> = store(answer).into_iter().filter(of_level).collect();
            let more = entries.len() > 2;
            entries.truncate(2);
            let level = Level::new(level).unwrap();
            let taken = listings.take_of(level, NOW, key, (entries, more), &mut flight, &mut out).unwrap();
            if let Some(found) = taken {
                assert!(open.is_empty() && asked(&mut out).is_empty(), "nothing is left under way");
                return (found, answer + 1);
            }
        }
        unreachable!("it comes to an end")
    }

    #[test]
    fn levels_that_stand_still_are_listed_at_once() {
        let store = || vec![listed(0, 1), listed(0, 2), listed(0, 3), listed(4, 1), listed(9, 1)];
        for seed in 0..20 {
            // Ten, a second page of level 0, and nine once more.
            assert_eq!(list_together(seed, |_| store()), (store(), 20));
            // Level 0 may go on: what comes after its answer is newer than the listing.
            let (found, answers) = list_together(seed, |answer| match answer < 11 {
                true => store(),
                false => [&store()[..3], &[listed(0, 4)], &store()[3..]].concat(),
            });
            assert_eq!((found, answers), (store(), 20));
        }
    }

    #[test]
    fn whenever_a_file_is_merged_and_removed_it_or_what_holds_it_is_found() {
        let merged = |level| Listed {
            object: Object {
                level: Level::new(level).unwrap(),
                range: TxidRange::new(Txid::new(2).unwrap(), Txid::new(3).unwrap()).unwrap(),
            },
            ..listed(level, 2)
        };
        let mut slow = 0;
        for seed in 0..40 {
            for (from, merges) in (0..24).flat_map(|from| [1, 3, 8, 20, 30].map(move |gap| (from, gap))) {
                // What holds it is put, it is removed; later the same, a level higher.
                let (found, answers) = list_together(seed, |answer| {
                    let mut there = vec![listed(0, 1)];
                    if answer <= from {
                        there.extend([listed(0, 2), listed(0, 3)]);
                    }
                    if (from..=from + merges).contains(&answer) {
                        there.push(merged(1));
                    }
                    if answer >= from + merges {
                        there.push(merged(3));
                    }
                    there
                });
                slow += usize::from(answers > 20);
                // A file that stands for fewer answers than a listing takes may be missed, as may be
                // what holds it: see the head of this file.
                let highest = found.iter().map(|it| it.object.range.max().get()).max();
                assert!(highest == Some(3) || merges < 20, "seed {seed}, from {from}, {merges}: {found:?}");
            }
        }
        assert!(slow > 100, "some were listed one level after the other");
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
