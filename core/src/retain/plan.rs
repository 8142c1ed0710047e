//! What may go, from a listing: a pure decision.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::TENURE_BACK;
use crate::ids::{Level, Wall};
use crate::machine::{Listed, Object};
use crate::mutant::{self, Mutant};

/// Why a file may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Because {
    /// This file of a higher level holds its transactions, each end of which stays restorable there.
    Compacted(Object),
    /// This snapshot holds its transactions, and is older than anything that must be restorable.
    Outdated(Object),
}

impl Because {
    /// What holds the transactions.
    pub fn cover(self) -> Object {
        match self {
            Because::Compacted(object) | Because::Outdated(object) => object,
        }
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Because::Compacted(object) => write!(f, "compacted into {object}"),
            Because::Outdated(object) => write!(f, "older than the retention, and held by {object}"),
        }
    }
}

/// A file that may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Removal {
    /// The file.
    pub file: Listed,
    /// Why.
    pub because: Because,
}

/// The times that decide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// Now, by the clock by which the store says when objects were written.
    pub now: Wall,
    /// For how long every level's end stays restorable.
    pub snapshot: Duration,
    /// How long a file stays after another covers it.
    pub grace: Duration,
}

impl Times {
    /// When a snapshot is old enough for everything before it to go.
    fn outdates_at(&self, snapshot: &Listed) -> Option<Wall> {
        later(later(snapshot.modified?, self.snapshot)?, self.grace)
    }

    /// When what a file of a level holds may go from the level below.
    fn covers_at(&self, file: &Listed) -> Option<Wall> {
        later(file.modified?, self.grace)
    }

    fn has_passed(&self, at: Option<Wall>) -> bool {
        at.is_some_and(|at| at <= self.now) || mutant::on(Mutant::RetentionImpatient)
    }
}

fn later(at: Wall, by: Duration) -> Option<Wall> {
    at.0.checked_add(i64::try_from(by.as_millis()).ok()?).map(Wall)
}

/// What may go, and when there will be more.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RetainPlan {
    /// By level, then by range, ascending: the order in which they must go.
    pub removals: Vec<Removal>,
    /// When more may go although nothing is written, if anything may.
    pub next: Option<Wall>,
}

/// A listing, sorted.
struct Shelves {
    captures: Vec<Listed>,
    /// Levels 1 to 8, by level and range.
    merged: Vec<Listed>,
    snapshots: Vec<Listed>,
    /// For each level below 9 the highest transaction that it holds; 0 for none.
    fronts: [u64; Level::SNAPSHOTS.get() as usize],
    /// The highest level that is made.
    top: usize,
}

impl Shelves {
    fn new(files: &[Listed], top: Option<u8>) -> Shelves {
        let mut files: Vec<Listed> = files.to_vec();
        files.sort_by_key(|file| (file.object.level, file.object.range));
        let mut fronts = [0; Level::SNAPSHOTS.get() as usize];
        for file in &files {
            if let Some(front) = fronts.get_mut(usize::from(file.object.level.get())) {
                *front = (*front).max(file.object.range.max().get());
            }
        }
        let (captures, rest): (Vec<Listed>, Vec<Listed>) =
            files.into_iter().partition(|file| file.object.level == Level::CAPTURES);
        let (snapshots, merged): (Vec<Listed>, Vec<Listed>) =
            rest.into_iter().partition(|file| file.object.level == Level::SNAPSHOTS);
        let top = top.map(usize::from);
        let top = top.or_else(|| fronts.iter().rposition(|front| *front > 0)).unwrap_or(0);
        Shelves { captures, merged, snapshots, fronts, top: top.min(fronts.len() - 1) }
    }

    /// The files of level 0 that may go at all: the newest never do.
    fn captures_past_keeping(&self) -> &[Listed] {
        let kept = if mutant::on(Mutant::HeadNotKept) { 0 } else { TENURE_BACK as usize + 1 };
        &self.captures[..self.captures.len().saturating_sub(kept)]
    }

    /// Whether nobody but a restore needs a file any more. A level above has yet to take what lies past its
    /// end, and the newest file of a level tells where that is.
    fn is_done_with(&self, file: &Listed) -> bool {
        let (level, max) = (usize::from(file.object.level.get()), file.object.range.max().get());
        if level > self.top || mutant::on(Mutant::InputsEaten) {
            return true;
        }
        let taken = level == self.top || self.fronts[level + 1..=self.top].iter().any(|front| *front >= max);
        taken && (level == 0 || max < self.fronts[level])
    }

    /// What a snapshot makes superfluous.
    fn outdated_by<'a>(&'a self, snapshot: &'a Listed) -> impl Iterator<Item = &'a Listed> {
        let end = snapshot.object.range.max();
        let levels = self.captures_past_keeping().iter().chain(&self.merged);
        let levels = levels.filter(|file| self.is_done_with(file));
        let all = levels.chain(self.snapshots.iter().filter(|file| file.object != snapshot.object));
        all.filter(move |file| file.object.range.max() <= end)
    }
}

/// Decides what may go of `files`, a whole listing. What is `refused` covers nothing; `top` is the highest
/// level that is made, if anybody knows.
pub fn plan_retention(
    files: &[Listed],
    refused: &BTreeSet<Object>,
    top: Option<u8>,
    times: Times,
) -> RetainPlan {
    let shelves = Shelves::new(files, top);
    let may_cover = |file: &&Listed| file.object.range.is_snapshot() && !refused.contains(&file.object);
    let snapshots = || shelves.snapshots.iter().filter(may_cover);
    let outdating = snapshots().rfind(|it| times.has_passed(times.outdates_at(it)));
    let mut plan = RetainPlan::default();
    plan.take_captures(&shelves, outdating, refused, times);
    if let Some(snapshot) = outdating {
        let because = Because::Outdated(snapshot.object);
        let gone = shelves.outdated_by(snapshot).filter(|file| file.object.level != Level::CAPTURES);
        plan.removals.extend(gone.map(|file| Removal { file: *file, because }));
    }
    // Another snapshot will outdate something at its own time.
    let gone: BTreeSet<Object> = plan.removals.iter().map(|removal| removal.file.object).collect();
    let outdates = |it: &&Listed| shelves.outdated_by(it).any(|file| !gone.contains(&file.object));
    let ahead = snapshots().filter(outdates).filter_map(|it| times.outdates_at(it));
    plan.next = ahead.filter(|at| *at > times.now).chain(plan.next).min();
    plan
}

impl RetainPlan {
    /// Takes files of level 0 from the first on, as far as each may go.
    fn take_captures(
        &mut self,
        shelves: &Shelves,
        outdating: Option<&Listed>,
        refused: &BTreeSet<Object>,
        times: Times,
    ) {
        let outdated: BTreeSet<Object> =
            outdating.into_iter().flat_map(|it| shelves.outdated_by(it)).map(|it| it.object).collect();
        for file in shelves.captures_past_keeping() {
            let cover = cover_of(file, &shelves.merged, refused);
            let compacted = cover.filter(|cover| times.has_passed(times.covers_at(cover)));
            let because = match (compacted, outdating) {
                (Some(cover), _) => Because::Compacted(cover.object),
                (None, Some(snapshot)) if outdated.contains(&file.object) => {
                    Because::Outdated(snapshot.object)
                }
                (None, _) => {
                    self.next = cover.and_then(|cover| times.covers_at(cover));
                    return;
                }
            };
            self.removals.push(Removal { file: *file, because });
        }
    }
}

/// The file of the lowest level that holds all transactions of `file`; `merged` is in order.
fn cover_of<'a>(file: &Listed, merged: &'a [Listed], refused: &BTreeSet<Object>) -> Option<&'a Listed> {
    let range = file.object.range;
    let covers = |it: &&Listed| {
        let holds = it.object.range.min() <= range.min() && range.max() <= it.object.range.max();
        (holds || mutant::on(Mutant::CoverGuessed)) && !refused.contains(&it.object)
    };
    let mut at = 0;
    while at < merged.len() {
        let level = merged[at].object.level;
        let end = at + merged[at..].partition_point(|it| it.object.level == level);
        let begun = at + merged[at..end].partition_point(|it| it.object.range.min() <= range.min());
        // Files of a level overlap where a put came late, and no more than a few do.
        if let Some(cover) = merged[at..begun].iter().rev().take(4).find(covers) {
            return Some(cover);
        }
        at = end;
    }
    None
}
