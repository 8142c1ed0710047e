//! Where faults strike, one by one, so that a failing run can be told with the few that matter.
//!
//! Every decision about a fault goes through [`Sites::settle`]: at which place (a request to one
//! object, an operation of SQLite), which fault the dice have drawn there, and which could strike
//! there at all. A run under [`Strike::All`] does what the dice say and remembers each fault as a
//! [`Site`]. The shrinker then runs [`Strike::Only`] those, and takes away one after the other: the
//! dice are not asked for faults any more, so that an operation can be taken out of the script
//! without another fault in the place of the one that mattered. A site is bound to a time and not to
//! a count from the start, so that it stays where it was when what came before it is taken out.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::hits::Hits;
use crate::disk::lock;
use crate::scenario::parts::time;

/// One fault that strikes once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// The name of the fault, as among the [`Hits`].
    pub fault: String,
    /// The place, or what its name begins with: `commit` for any commit of a put.
    pub at: String,
    /// Not before so much time has passed in the run.
    #[serde(default, with = "time")]
    pub after: Duration,
    /// So many times the place is spared from then on.
    #[serde(default)]
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
    Only(Vec<Site>),
}

/// Decides about the faults of a run, counts and remembers them.
#[derive(Clone, Debug)]
pub struct Sites(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    strike: Strike,
    now: Duration,
    /// How often a place was asked for at this moment; seldom more than three are.
    asked: Vec<(String, u64)>,
    struck: Vec<Site>,
    /// All that could have struck, if that is to be known.
    survey: Option<Vec<Site>>,
    hits: Hits,
}

impl Sites {
    /// Nothing has struck yet.
    pub fn new(strike: Strike) -> Sites {
        Sites(Arc::new(Mutex::new(Inner {
            strike,
            now: Duration::ZERO,
            asked: Vec::new(),
            struck: Vec::new(),
            survey: None,
            hits: Hits::default(),
        })))
    }

    /// So much time has passed in the run.
    pub fn set_now(&self, now: Duration) {
        let mut inner = lock(&self.0);
        if now != inner.now {
            inner.now = now;
            inner.asked.clear();
        }
    }

    /// Which fault strikes at this place now, if any. `drawn` is what the dice say; `kinds` are all
    /// that they could have said.
    pub fn settle(
        &self,
        at: &str,
        drawn: Option<&'static str>,
        kinds: &[&'static str],
    ) -> Option<&'static str> {
        let inner = &mut *lock(&self.0);
        let nth = match inner.asked.iter_mut().find(|(place, _)| place == at) {
            Some((_, asked)) => {
                *asked += 1;
                *asked
            }
            None => {
                inner.asked.push((at.to_owned(), 0));
                0
            }
        };
        let site = |fault: &str| Site { fault: fault.to_owned(), at: at.to_owned(), after: inner.now, nth };
        if let Some(survey) = &mut inner.survey {
            survey.extend(kinds.iter().map(|fault| site(fault)));
        }
        let fault = match &mut inner.strike {
            Strike::All => drawn,
            Strike::Without(kinds) => drawn.filter(|fault| !kinds.contains(*fault)),
            Strike::Only(sites) => named(sites, at, inner.now, kinds),
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

    /// Remembers from now on all that could strike.
    pub fn survey(&self) {
        lock(&self.0).survey = Some(Vec::new());
    }

    /// All that could have struck since then, each once.
    pub fn surveyed(&self) -> Vec<Site> {
        let mut sites = lock(&self.0).survey.take().unwrap_or_default();
        sites.dedup();
        sites
    }
}

/// The fault of the first of `sites` whose turn it is at this place.
fn named(sites: &mut Vec<Site>, at: &str, now: Duration, kinds: &[&'static str]) -> Option<&'static str> {
    let mut found = None;
    for (no, site) in sites.iter_mut().enumerate() {
        let Some(kind) = kinds.iter().find(|kind| **kind == site.fault) else { continue };
        if site.after > now || !at.starts_with(&site.at) {
            continue;
        }
        match site.nth {
            0 if found.is_none() => found = Some((no, *kind)),
            0 => {}
            _ => site.nth -= 1,
        }
    }
    let (no, kind) = found?;
    sites.remove(no);
    Some(kind)
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

        let named = sites.struck();
        assert_eq!(run(Strike::Only(named.clone()), [None; 4]).0, drawn, "the dice have no say");
        let one = named.into_iter().filter(|site| site.nth == 3).collect();
        assert_eq!(run(Strike::Only(one), drawn).0, [None, None, None, Some(KINDS[0])]);
        let without = Strike::Without([KINDS[1].to_owned()].into());
        assert_eq!(run(without, drawn).0, [None, None, None, Some(KINDS[0])]);
    }

    #[test]
    fn a_site_waits_for_its_time_and_its_place() {
        let ms = Duration::from_millis;
        let site = |at: &str, after, nth| Site { fault: "lost".into(), at: at.into(), after: ms(after), nth };
        let sites = Sites::new(Strike::Only(vec![site("put", 5, 1), site("put 2", 0, 0), site("get", 0, 0)]));
        let asked = [(1, "put 1"), (1, "put 2"), (5, "put 3"), (5, "put 4"), (6, "put 5"), (7, "got 1")];
        let struck: Vec<bool> = asked
            .iter()
            .map(|(at, place)| {
                sites.set_now(ms(*at));
                sites.strikes(place, "lost", true)
            })
            .collect();
        assert_eq!(struck, [false, true, false, true, false, false]);
        let places: Vec<_> = sites.struck().into_iter().map(|site| (site.at, site.after, site.nth)).collect();
        assert_eq!(places, [("put 2".to_owned(), ms(1), 0), ("put 4".to_owned(), ms(5), 0)]);
    }

    #[test]
    fn a_survey_names_all_that_could_strike() {
        let sites = Sites::new(Strike::Only(Vec::new()));
        sites.survey();
        sites.settle("a", None, &["x", "y", "y"]);
        sites.settle("a", None, &["x"]);
        let surveyed: Vec<_> = sites.surveyed().into_iter().map(|site| (site.fault, site.nth)).collect();
        assert_eq!(surveyed, [("x".into(), 0), ("y".into(), 0), ("x".into(), 1)]);
        assert_eq!(sites.hits().total(), 0);
    }
}
