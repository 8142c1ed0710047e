//! Which files lead to a state, as a pure function of a listing.
//!
//! The rule: begin with the file that stands alone (its range starts at 1) and reaches furthest
//! without passing the target, then take, at each step and from any level, the file that starts
//! at or before the next transaction and reaches furthest. A file that reaches further only adds
//! to what can follow it, so this finds a way wherever there is one, and the shortest.
//!
//! The incumbent hands out an older state when files are missing below the newest one, with exit
//! code 0. Here the latest state is the highest transaction that any object ends at, and what is
//! missing on the way to it is an error with a name.

use alloc::vec::Vec;
use core::fmt;

use crate::ids::{Txid, TxidRange};
use crate::machine::Listed;
use crate::mutant::{self, Mutant};

/// Everything on a replica.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inventory {
    /// Ascending by min, then max, then level; no object twice.
    objects: Vec<Listed>,
}

impl Inventory {
    /// Takes a listing in any order.
    pub fn new(mut objects: Vec<Listed>) -> Inventory {
        objects.sort_by_key(|it| (it.object.range, it.object.level));
        objects.dedup_by_key(|it| it.object);
        Inventory { objects }
    }

    /// The objects, ascending by range and level.
    pub fn objects(&self) -> &[Listed] {
        &self.objects
    }

    /// The highest transaction that any object ends at.
    pub fn highest(&self) -> Option<Txid> {
        self.objects.iter().map(|it| it.object.range.max()).max()
    }

    /// The same without the objects that `drop` picks.
    #[must_use]
    pub fn without(&self, drop: impl Fn(&Listed) -> bool) -> Inventory {
        Inventory { objects: self.objects.iter().filter(|it| !drop(it)).copied().collect() }
    }

    /// Goes as far towards `target` as the files allow: the files and the state they lead to.
    fn walk(&self, target: Txid) -> Option<(Vec<Listed>, Txid)> {
        let mut candidates = self.objects.iter().filter(|it| it.object.range.max() <= target).peekable();
        let mut base: Option<&Listed> = None;
        while let Some(it) = candidates.next_if(|it| it.object.range.is_snapshot()) {
            // Later ones reach at least as far, and of equals they have the higher level.
            base = Some(it);
        }
        let mut files = alloc::vec![*base?];
        let mut have = base?.object.range.max();
        let mut best: Option<&Listed> = None;
        let reach = 1 + u64::from(mutant::on(Mutant::PlanSkipsOne));
        loop {
            while let Some(it) =
                candidates.next_if(|it| it.object.range.min().get() <= have.get().saturating_add(reach))
            {
                best = Some(best.map_or(it, |best| further(best, it)));
            }
            match best {
                Some(it) if it.object.range.max() > have => {
                    files.push(*it);
                    have = it.object.range.max();
                }
                _ => return Some((files, have)),
            }
        }
    }

    /// The files that hold what has changed up to `target`, as far back as they go and make up no more
    /// bytes than `base`: those of its plan first, then from any level, each the one that starts
    /// earliest. In the order in which they apply, with `base` before them for all other pages; it may
    /// stand for a later state than the first of them, since what none of them holds has not changed.
    pub(super) fn backwards(&self, target: Txid, base: &Listed) -> Vec<Listed> {
        let (mut files, mut end, mut bytes) = (Vec::new(), target.get(), 0);
        let usable = |it: &&Listed| !it.object.range.is_snapshot() && it.object.range.max() <= target;
        while let Some(file) = self
            .objects
            .iter()
            .filter(usable)
            .filter(|it| (it.object.range.min().get()..=it.object.range.max().get()).contains(&end))
            .min_by_key(|it| (it.object.range.min(), it.len))
        {
            if end <= base.object.range.max().get() {
                bytes += file.len;
                if bytes > base.len {
                    break;
                }
            }
            files.push(*file);
            end = file.object.range.min().get() - 1;
        }
        files.push(*base);
        files.reverse();
        files
    }

    /// Whether the state at `target` can be reached.
    fn reaches(&self, target: Txid) -> bool {
        self.walk(target).is_some_and(|(_, have)| have == target)
    }

    /// The lowest state above `target` that can be reached.
    fn above(&self, target: Txid) -> Option<Txid> {
        let mut ends: Vec<Txid> =
            self.objects.iter().map(|it| it.object.range.max()).filter(|&end| end > target).collect();
        ends.sort_unstable();
        ends.dedup();
        ends.into_iter().find(|&end| self.reaches(end))
    }
}

/// Of two files the one that reaches further; of equals the shorter, then the higher level.
fn further<'a>(one: &'a Listed, other: &'a Listed) -> &'a Listed {
    let key = |it: &Listed| (it.object.range.max(), core::cmp::Reverse(it.len), it.object.level);
    if key(other) > key(one) { other } else { one }
}

/// What to restore, in terms of transactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The highest transaction that any object ends at.
    Latest,
    /// Exactly this one.
    At(Txid),
}

/// The files that lead to a state, the one that stands alone first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The state that they lead to.
    pub target: Txid,
    /// In the order in which they apply.
    pub files: Vec<Listed>,
}

/// Why there is no way to a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlanError {
    /// There are no objects.
    Empty,
    /// Files lead up to some state and others end at the target, but between them some are
    /// missing.
    Gap {
        /// Where to.
        target: Txid,
        /// The highest state below that can be reached, if there is one.
        have: Option<Txid>,
        /// The first transaction that is missing.
        missing: Txid,
        /// Where the next file starts.
        next: Txid,
        /// The lowest state above the target that can be reached.
        above: Option<Txid>,
    },
    /// No file ends at the target.
    NotExact {
        /// Where to.
        target: Txid,
        /// The highest state below that can be reached.
        below: Option<Txid>,
        /// The lowest state above that can be reached.
        above: Option<Txid>,
    },
}

impl PlanError {
    /// What a person can do.
    pub fn hint(&self) -> &'static str {
        match self {
            PlanError::Empty => "check the replica's address; `databases` lists what is configured",
            PlanError::Gap { .. } => {
                "restore one of the states named with -txid; `verify` lists all that is missing"
            }
            PlanError::NotExact { .. } => "restore one of the states named with -txid; `ltx` lists all files",
        }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let near = |f: &mut fmt::Formatter<'_>, below: Option<Txid>, above: Option<Txid>| match (below, above)
        {
            (Some(below), Some(above)) => {
                write!(f, "; restorable next to it are {below} below and {above} above")
            }
            (Some(below), None) => write!(f, "; the nearest restorable below is {below}, and none is above"),
            (None, Some(above)) => write!(f, "; the nearest restorable above is {above}, and none is below"),
            (None, None) => f.write_str("; no state near it can be restored"),
        };
        match *self {
            PlanError::Empty => f.write_str("the replica holds no segments"),
            PlanError::Gap { target, have: Some(have), missing, next, above } => {
                write!(
                    f,
                    "transaction {missing} is missing on the way to {target}: files lead up to {have}, the next starts at {next}"
                )?;
                near(f, Some(have), above)
            }
            PlanError::Gap { target, have: None, missing, next, above } => {
                write!(
                    f,
                    "transaction {missing} is missing on the way to {target}: no file at or below it stands alone, the first starts at {next}"
                )?;
                near(f, None, above)
            }
            PlanError::NotExact { target, below, above } => {
                write!(f, "no file ends at transaction {target}")?;
                near(f, below, above)
            }
        }
    }
}

impl core::error::Error for PlanError {}

/// Finds the files that lead to `target`.
///
/// # Errors
/// [`PlanError`], never a plan that leads anywhere else.
pub fn plan(inventory: &Inventory, target: Target) -> Result<Plan, PlanError> {
    let highest = inventory.highest().ok_or(PlanError::Empty)?;
    let target = match target {
        Target::Latest => highest,
        Target::At(txid) => txid,
    };
    let (files, have) = match inventory.walk(target) {
        Some((files, have)) if have == target => return Ok(Plan { target, files }),
        Some((files, have)) => (files, Some(have)),
        None => (Vec::new(), None),
    };
    debug_assert_eq!(have.is_none(), files.is_empty(), "a walk starts with a file");
    let above = inventory.above(target);
    let ends = inventory.objects.iter().filter(|it| it.object.range.max() <= target);
    let mut ends = ends.map(|it| it.object.range);
    if !ends.clone().any(|range| TxidRange::max(range) == target) {
        return Err(PlanError::NotExact { target, below: have, above });
    }
    let missing = have.map_or(Txid::FIRST, Txid::next);
    // Ascending by min, so the first that starts beyond is the lowest.
    let next = ends.find(|range| TxidRange::min(*range) > missing).map_or(target, TxidRange::min);
    Err(PlanError::Gap { target, have, missing, next, above })
}
