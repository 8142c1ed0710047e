//! Where faults strike, one by one, so that a failing run can be told with the few that matter.
//!
//! Every decision about a fault goes through [`Sites::settle`]: at which place (a request to one
//! object, an operation of SQLite), which fault the dice have drawn there, and which could strike
//! there at all. A place is asked for again and again; the `nth` time of it is a [`Site`]. A run
//! under [`Strike::All`] does what the dice say and remembers the sites that were struck. The
//! shrinker then runs [`Strike::Only`] those, and takes away one after the other: the dice are
//! not asked for faults any more, so that an operation can be taken out of the script without
//! another fault in the place of the one that mattered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::hits::Hits;
use crate::disk::lock;

/// One moment at one place, and the fault that struck.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// The name of the fault, as among the [`Hits`].
    pub fault: String,
    /// The place.
    pub at: String,
    /// How often the place had been asked for before.
    pub nth: u64,
}

/// Which faults strike.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Strike {
    /// Those that the dice say.
    #[default]
    All,
    /// Those that the dice say, without these kinds, which are named as among the [`Hits`].
    Without(BTreeSet<String>),
    /// These and no others.
    Only(BTreeSet<Site>),
}

/// Decides about the faults of a run, counts and remembers them.
#[derive(Clone, Debug)]
pub struct Sites(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    strike: Strike,
    asked: BTreeMap<String, u64>,
    struck: Vec<Site>,
    hits: Hits,
}

impl Sites {
    /// Nothing has struck yet.
    pub fn new(strike: Strike) -> Sites {
        let inner = Inner { strike, asked: BTreeMap::new(), struck: Vec::new(), hits: Hits::default() };
        Sites(Arc::new(Mutex::new(inner)))
    }

    /// Which fault strikes at this place now, if any. `drawn` is what the dice say; `kinds` are all
    /// that they could have said.
    pub fn settle(
        &self,
        at: &str,
        drawn: Option<&'static str>,
        kinds: &[&'static str],
    ) -> Option<&'static str> {
        let mut inner = lock(&self.0);
        let nth = match inner.asked.get_mut(at) {
            Some(asked) => {
                *asked += 1;
                *asked
            }
            None => *inner.asked.entry(at.to_owned()).or_default(),
        };
        let site = |fault: &str| Site { fault: fault.to_owned(), at: at.to_owned(), nth };
        let fault = match &inner.strike {
            Strike::All => drawn,
            Strike::Without(kinds) => drawn.filter(|fault| !kinds.contains(*fault)),
            Strike::Only(sites) => kinds.iter().copied().find(|fault| sites.contains(&site(fault))),
        }?;
        inner.hits.hit(fault);
        inner.struck.push(site(fault));
        Some(fault)
    }

    /// Whether a fault strikes at this place now, where there is but one kind.
    pub fn strikes(&self, at: &str, fault: &'static str, drawn: bool) -> bool {
        self.settle(at, drawn.then_some(fault), &[fault]).is_some()
    }

    /// Counts a fault that the plan itself names, and that has no site.
    pub fn hit(&self, fault: &'static str) {
        lock(&self.0).hits.hit(fault);
    }

    /// All faults that struck.
    pub fn hits(&self) -> Hits {
        lock(&self.0).hits.clone()
    }

    /// The sites that were struck, in the order of time.
    pub fn struck(&self) -> Vec<Site> {
        lock(&self.0).struck.clone()
    }

    /// Whether only named sites are struck, so that the dice have no say.
    pub fn are_named(&self) -> bool {
        matches!(lock(&self.0).strike, Strike::Only(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 2] = ["store: refused", "store: conflict"];

    #[test]
    fn what_the_dice_drew_strikes_again_when_it_is_named() {
        let run = |strike: Strike, drawn: [Option<&'static str>; 4]| {
            let sites = Sites::new(strike);
            let struck: Vec<_> = drawn.iter().map(|drawn| sites.settle("put 1", *drawn, &KINDS)).collect();
            (struck, sites)
        };
        let drawn = [None, Some(KINDS[1]), None, Some(KINDS[0])];
        let (struck, sites) = run(Strike::All, drawn);
        assert_eq!(struck, drawn);
        assert_eq!((sites.hits().total(), sites.hits().of(KINDS[0])), (2, 1));

        let named: BTreeSet<Site> = sites.struck().into_iter().collect();
        assert_eq!(run(Strike::Only(named.clone()), [None; 4]).0, drawn, "the dice have no say");
        let one = named.into_iter().filter(|site| site.nth == 3).collect();
        assert_eq!(run(Strike::Only(one), drawn).0, [None, None, None, Some(KINDS[0])]);
        let without = Strike::Without([KINDS[1].to_owned()].into());
        assert_eq!(run(without, drawn).0, [None, None, None, Some(KINDS[0])]);
    }

    #[test]
    fn places_are_counted_each_for_itself() {
        let sites = Sites::new(Strike::All);
        assert!(sites.strikes("a", "lost", true) && !sites.strikes("a", "lost", false));
        assert!(sites.strikes("b", "lost", true) && sites.strikes("a", "lost", true));
        let nth: Vec<_> = sites.struck().into_iter().map(|site| (site.at, site.nth)).collect();
        assert_eq!(nth, [("a".into(), 0), ("b".into(), 0), ("a".into(), 2)]);
    }
}
