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

/// Decides what may go of `files`, a whole listing. What is `refused` covers nothing.
pub fn plan_retention(files: &[Listed], refused: &BTreeSet<Object>, times: Times) -> RetainPlan {
    let mut files: Vec<Listed> = files.to_vec();
    files.sort_by_key(|file| (file.object.level, file.object.range));
    let (captures, rest): (Vec<Listed>, Vec<Listed>) =
        files.into_iter().partition(|file| file.object.level == Level::CAPTURES);
    let (snapshots, merged): (Vec<Listed>, Vec<Listed>) =
        rest.into_iter().partition(|file| file.object.level == Level::SNAPSHOTS);
    let may_cover = |file: &&Listed| !refused.contains(&file.object);
    let whole = |file: &&Listed| file.object.range.is_snapshot() && may_cover(file);
    let outdating =
        snapshots.iter().filter(whole).rfind(|snapshot| times.has_passed(times.outdates_at(snapshot)));
    let mut plan = RetainPlan::default();
    plan.captures(&captures, &merged, outdating, refused, times);
    if let Some(snapshot) = outdating {
        let held = |file: &&Listed| file.object.range.max() <= snapshot.object.range.max();
        let because = Because::Outdated(snapshot.object);
        let older = snapshots.iter().filter(|file| file.object != snapshot.object);
        let gone = merged.iter().chain(older).filter(held);
        plan.removals.extend(gone.map(|file| Removal { file: *file, because }));
    }
    // Another snapshot will outdate something at its own time.
    let stays = |file: &&Listed| !plan.removals.iter().any(|removal| removal.file.object == file.object);
    let stays: Vec<&Listed> =
        merged.iter().chain(&snapshots).chain(kept_out(&captures)).filter(stays).collect();
    let outdates = |snapshot: &&Listed| {
        let end = snapshot.object.range.max();
        stays.iter().any(|file| file.object != snapshot.object && file.object.range.max() <= end)
    };
    let ahead = snapshots.iter().filter(whole).filter(outdates).filter_map(|it| times.outdates_at(it));
    let ahead = ahead.filter(|at| *at > times.now);
    plan.next = ahead.chain(plan.next).min();
    plan
}

/// The files of level 0 that may go at all: the newest never do.
fn kept_out(captures: &[Listed]) -> &[Listed] {
    let kept = if mutant::on(Mutant::HeadNotKept) { 0 } else { TENURE_BACK as usize + 1 };
    &captures[..captures.len().saturating_sub(kept)]
}

impl RetainPlan {
    /// Takes files of level 0 from the first on, as far as each may go.
    fn captures(
        &mut self,
        captures: &[Listed],
        merged: &[Listed],
        outdating: Option<&Listed>,
        refused: &BTreeSet<Object>,
        times: Times,
    ) {
        for file in kept_out(captures) {
            let cover = cover_of(file, merged, refused);
            let compacted = cover.filter(|cover| times.has_passed(times.covers_at(cover)));
            let outdated =
                outdating.filter(|snapshot| file.object.range.max() <= snapshot.object.range.max());
            let because = match (compacted, outdated) {
                (Some(cover), _) => Because::Compacted(cover.object),
                (None, Some(snapshot)) => Because::Outdated(snapshot.object),
                (None, None) => {
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
