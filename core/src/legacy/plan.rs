//! Which objects lead to a state, as a pure function of a listing.
//!
//! The newest state of a generation is the one that its last segment leads to, and what is missing on
//! the way is an error: never an older state. Of a segment's length the names tell nothing, so that
//! a hole within one WAL is found only while it is read.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use super::{Generation, LegacyListed, LegacyObject, LegacyOrder, LegacyPart, LegacyTarget};
use crate::ids::Wall;

/// Everything of this layout on a replica.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LegacyInventory {
    /// Ascending; no object twice.
    objects: Vec<LegacyListed>,
}

impl LegacyInventory {
    /// Takes a listing in any order.
    pub fn new(mut objects: Vec<LegacyListed>) -> LegacyInventory {
        objects.sort_by_key(|it| it.object);
        objects.dedup_by_key(|it| it.object);
        LegacyInventory { objects }
    }

    /// Whether there is nothing of this layout.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// When the last object was written; `None` if the store tells no times, or there is none.
    pub fn newest(&self) -> Option<Wall> {
        self.objects.iter().map(|it| it.modified).max().flatten()
    }

    fn of(&self, generation: Generation) -> impl Iterator<Item = &LegacyListed> {
        self.objects.iter().filter(move |it| it.object.generation == generation)
    }
}

/// The objects that lead to a state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LegacyPlan {
    /// Whose state it is.
    pub generation: Generation,
    /// The snapshot, then the segments, in the order in which they apply.
    pub objects: Vec<LegacyListed>,
}

/// Why there is no way to a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LegacyPlanError {
    /// There is nothing of this layout.
    Empty,
    /// There is no generation of this name.
    NoGeneration(Generation),
    /// Several generations, and the store does not tell which was written last.
    Which(Generation, Generation),
    /// The generation holds no snapshot.
    NoSnapshot(Generation),
    /// A time is asked for, and the store tells none of this object.
    NoTime(LegacyObject),
    /// No generation has a snapshot that was written at or before the time.
    Before {
        /// The time.
        time: Wall,
        /// When the first snapshot was written.
        first: Option<Wall>,
    },
    /// The generation has no snapshot at or below the index, or its WAL does not reach it.
    NoIndex {
        /// Whose.
        generation: Generation,
        /// The index.
        index: u32,
        /// The lowest that has a snapshot, and the highest that there is.
        there: (u32, u32),
    },
    /// An object is missing that must be there.
    Missing {
        /// The object.
        object: LegacyObject,
        /// The one that follows it.
        next: LegacyObject,
    },
    /// An object holds nothing.
    Hollow(LegacyObject),
    /// An object is of a kind that is not read.
    WholeWal(LegacyObject),
}

impl LegacyPlanError {
    /// What a person can do.
    pub fn hint(&self) -> &'static str {
        match self {
            LegacyPlanError::Empty => "check the replica's address; `databases` lists what is configured",
            LegacyPlanError::NoGeneration(_) => "the names below generations/ are those that there are",
            LegacyPlanError::Which(..) => "name the one that you want with -generation",
            LegacyPlanError::NoTime(_) => "restore to an -index instead",
            LegacyPlanError::NoSnapshot(_) | LegacyPlanError::Before { .. } => {
                "name another generation with -generation, or another time"
            }
            LegacyPlanError::NoIndex { .. } => "restore one of those that there are, or leave -index out",
            LegacyPlanError::Missing { .. } | LegacyPlanError::Hollow(_) => {
                "restore a state before it with -generation and -index, or bring the object back"
            }
            LegacyPlanError::WholeWal(_) => {
                "Litestream 0.3.0 to 0.3.4 wrote such files: restore with one of these"
            }
        }
    }
}

impl fmt::Display for LegacyPlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            LegacyPlanError::Empty => f.write_str("the replica holds no generation"),
            LegacyPlanError::NoGeneration(it) => write!(f, "the replica holds no generation {it}"),
            LegacyPlanError::Which(one, other) => {
                write!(f, "whether generation {one} or {other} was written last cannot be told")
            }
            LegacyPlanError::NoSnapshot(it) => write!(f, "generation {it} holds no snapshot"),
            LegacyPlanError::NoTime(object) => write!(f, "the store does not tell when {object} was written"),
            LegacyPlanError::Before { time, first } => {
                write!(f, "no snapshot was written at or before {} ms since 1970", time.0)?;
                first.map_or(Ok(()), |first| write!(f, "; the first was at {} ms since 1970", first.0))
            }
            LegacyPlanError::NoIndex { generation, index, there: (low, high) } => {
                write!(
                    f,
                    "generation {generation} does not reach index {index:08x}: it has {low:08x} to {high:08x}"
                )
            }
            LegacyPlanError::Missing { object, next } => {
                write!(f, "{object} is missing, although {next} follows it")
            }
            LegacyPlanError::Hollow(object) => write!(f, "{object} holds nothing"),
            LegacyPlanError::WholeWal(object) => {
                write!(f, "{object} is a whole wal in one file, which is not read here")
            }
        }
    }
}

impl core::error::Error for LegacyPlanError {}

/// Finds the objects that lead to the state that is asked for.
///
/// # Errors
/// [`LegacyPlanError`], never a plan that leads anywhere else.
pub fn plan(inventory: &LegacyInventory, order: &LegacyOrder) -> Result<LegacyPlan, LegacyPlanError> {
    if inventory.is_empty() {
        return Err(LegacyPlanError::Empty);
    }
    let generation = match (order.generation, order.target) {
        (Some(it), _) if inventory.of(it).next().is_none() => return Err(LegacyPlanError::NoGeneration(it)),
        (Some(it), _) => it,
        (None, LegacyTarget::Time(time)) => at_time(inventory, time)?,
        (None, _) => last_written(inventory)?,
    };
    let snapshot = snapshot(inventory, generation, order.target)?;
    let mut objects = alloc::vec![snapshot];
    for it in inventory.of(generation).filter(|it| it.object.index >= snapshot.object.index) {
        match it.object.part {
            LegacyPart::Snapshot => {}
            _ if reaches(order.target, it)? => objects.push(*it),
            // What follows cannot be applied without it.
            _ => break,
        }
    }
    check(&objects)?;
    let reached = objects.last().map(|it| it.object);
    if let LegacyTarget::Index(index) = order.target
        && !reached.is_some_and(|it| it.index == index && it.part != LegacyPart::Snapshot)
    {
        return Err(no_index(inventory, generation, index));
    }
    Ok(LegacyPlan { generation, objects })
}

/// The generation whose last object is the newest.
fn last_written(inventory: &LegacyInventory) -> Result<Generation, LegacyPlanError> {
    let mut ends: BTreeMap<Generation, Option<Wall>> = BTreeMap::new();
    for it in &inventory.objects {
        let end = ends.entry(it.object.generation).or_default();
        *end = it.modified.max(*end);
    }
    let mut ends: Vec<_> = ends.into_iter().collect();
    ends.sort_by_key(|(_, end)| core::cmp::Reverse(*end));
    match *ends.as_slice() {
        [(only, _)] => Ok(only),
        [(one, end), (other, next), ..] if end == next || next.is_none() => {
            Err(LegacyPlanError::Which(one, other))
        }
        [(newest, _), ..] => Ok(newest),
        [] => Err(LegacyPlanError::Empty),
    }
}

/// The generation that was being written at a time: the one that began last before it.
fn at_time(inventory: &LegacyInventory, time: Wall) -> Result<Generation, LegacyPlanError> {
    let mut begins: BTreeMap<Generation, Wall> = BTreeMap::new();
    for it in inventory.objects.iter().filter(|it| it.object.part == LegacyPart::Snapshot) {
        let at = it.modified.ok_or(LegacyPlanError::NoTime(it.object))?;
        begins.entry(it.object.generation).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }
    let mut begun: Vec<_> = begins.iter().filter(|(_, at)| **at <= time).collect();
    begun.sort_by_key(|(_, at)| core::cmp::Reverse(**at));
    match *begun.as_slice() {
        [] => Err(LegacyPlanError::Before { time, first: begins.values().min().copied() }),
        [(one, at), (other, next), ..] if at == next => Err(LegacyPlanError::Which(*one, *other)),
        [(last, _), ..] => Ok(*last),
    }
}

/// Whether an object belongs to the state that is asked for, or to one before it.
fn reaches(target: LegacyTarget, it: &LegacyListed) -> Result<bool, LegacyPlanError> {
    match target {
        LegacyTarget::Latest => Ok(true),
        LegacyTarget::Index(index) => Ok(it.object.index <= index),
        LegacyTarget::Time(time) => {
            it.modified.map(|at| at <= time).ok_or(LegacyPlanError::NoTime(it.object))
        }
    }
}

/// The newest snapshot that belongs to the state that is asked for, or to one before it.
fn snapshot(
    inventory: &LegacyInventory,
    generation: Generation,
    target: LegacyTarget,
) -> Result<LegacyListed, LegacyPlanError> {
    let all: Vec<&LegacyListed> =
        inventory.of(generation).filter(|it| it.object.part == LegacyPart::Snapshot).collect();
    for it in all.iter().rev() {
        if reaches(target, it)? {
            return Ok(**it);
        }
    }
    Err(match target {
        LegacyTarget::Index(index) if !all.is_empty() => no_index(inventory, generation, index),
        LegacyTarget::Time(time) if !all.is_empty() => {
            LegacyPlanError::Before { time, first: all.iter().filter_map(|it| it.modified).min() }
        }
        _ => LegacyPlanError::NoSnapshot(generation),
    })
}

fn no_index(inventory: &LegacyInventory, generation: Generation, index: u32) -> LegacyPlanError {
    let mut snapshots = inventory.of(generation).filter(|it| it.object.part == LegacyPart::Snapshot);
    let low = snapshots.next().map_or(0, |it| it.object.index);
    let high = inventory.of(generation).map(|it| it.object.index).max().unwrap_or(0);
    LegacyPlanError::NoIndex { generation, index, there: (low, high) }
}

/// Whether the snapshot and what follows it can be one history, by the names.
fn check(objects: &[LegacyListed]) -> Result<(), LegacyPlanError> {
    for it in objects {
        match it.object.part {
            LegacyPart::WholeWal { .. } => return Err(LegacyPlanError::WholeWal(it.object)),
            _ if it.len == 0 => return Err(LegacyPlanError::Hollow(it.object)),
            _ => {}
        }
    }
    for pair in objects.windows(2) {
        let [before, next] = [pair[0].object, pair[1].object];
        let first_of = |index| LegacyObject { index, part: LegacyPart::Wal { offset: 0 }, ..next };
        let missing = match before.part {
            LegacyPart::Snapshot if next != first_of(before.index) => first_of(before.index),
            LegacyPart::Wal { .. } if next.index > before.index && next != first_of(before.index + 1) => {
                first_of(before.index + 1)
            }
            _ => continue,
        };
        return Err(LegacyPlanError::Missing { object: missing, next });
    }
    Ok(())
}
