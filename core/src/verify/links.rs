//! What objects say about each other, as a pure function of their headers.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Checked;
use crate::ids::{DbChecksum, Level, Lineage};
use crate::ltx::LtxHeader;
use crate::machine::{Listed, Object};
use crate::restore::{Inventory, Target, plan};

/// Whether a file says to which state it leads.
pub(super) fn is_chained(header: &LtxHeader) -> bool {
    header.lineage.is_some() && header.chain.post.is_some()
}

/// Everything that does not fit, a line each.
pub(super) fn faults(objects: &[Listed], sound: &BTreeMap<Object, Checked>) -> Vec<String> {
    let mut faults = uncovered(objects);
    if faults.is_empty() {
        let usable = Inventory::new(objects.to_vec()).without(|it| !sound.contains_key(&it.object));
        let latest = Inventory::new(objects.to_vec()).highest();
        if let Some(latest) = latest
            && let Err(error) = plan(&usable, Target::At(latest))
        {
            faults.push(format!("the latest state cannot be restored from the sound objects: {error}"));
        }
    }
    faults.extend(broken_states(sound));
    faults.extend(writers_out_of_order(sound));
    faults.extend(page_size_changes(sound));
    faults
}

/// Stretches of transactions that no object of any level holds.
fn uncovered(objects: &[Listed]) -> Vec<String> {
    let mut ranges: Vec<_> = objects.iter().map(|it| it.object).collect();
    ranges.sort_by_key(|it| it.range);
    let mut faults = Vec::new();
    let mut have = 0u64;
    let mut before: Option<Object> = None;
    for object in ranges {
        let (min, max) = (object.range.min().get(), object.range.max().get());
        if min > have + 1 {
            let after = before
                .map_or_else(|| "nothing stands alone".to_string(), |it| format!("files lead up to {it}"));
            let (expected, first, last) = (have + 1, have + 1, min - 1);
            faults.push(format!(
                "transactions {first:016x} to {last:016x} are missing: {after}, expected {expected:016x} next, found {object}"
            ));
        }
        if max > have {
            have = max;
            before = Some(object);
        }
    }
    faults
}

/// At each boundary all files that end there or begin there must agree on the state.
fn broken_states(sound: &BTreeMap<Object, Checked>) -> Vec<String> {
    let mut states: BTreeMap<u64, (DbChecksum, Object)> = BTreeMap::new();
    let mut faults = Vec::new();
    // Ends come first, and of them those of the lowest level, which was there first.
    for (object, checked) in sound {
        let Some(post) = checked.header.chain.post else { continue };
        let (expected, by) = *states.entry(object.range.max().get()).or_insert((post, *object));
        if expected != post {
            faults.push(format!(
                "{object}: post-state at byte 88: expected {expected} as {by} says, found {post}"
            ));
        }
    }
    for (object, checked) in sound {
        let Some(pre) = checked.header.chain.pre else { continue };
        let (expected, by) = *states.entry(object.range.min().get() - 1).or_insert((pre, *object));
        if expected != pre {
            faults.push(format!(
                "{object}: pre-state at byte 80: expected {expected} as {by} says, found {pre}"
            ));
        }
    }
    faults
}

/// Along the captures a lineage does not come back once left, and within one the incarnation
/// does not fall.
fn writers_out_of_order(sound: &BTreeMap<Object, Checked>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut left: BTreeSet<Lineage> = BTreeSet::new();
    let mut last: Option<(Object, &LtxHeader)> = None;
    for (object, checked) in sound.iter().filter(|(object, _)| object.level == Level::CAPTURES) {
        let header = &checked.header;
        let Some(lineage) = header.lineage else { continue };
        if let Some((before, known)) = last {
            if known.lineage != Some(lineage) {
                left.extend(known.lineage);
            } else if header.chain.incarnation < known.chain.incarnation {
                let (expected, found) = (known.chain.incarnation.0, header.chain.incarnation.0);
                faults.push(format!(
                    "{object}: incarnation at byte 96: expected at least {expected} as in {before}, found {found}"
                ));
            }
        }
        if left.contains(&lineage) {
            faults.push(format!(
                "{object}: lineage at byte 72: expected one that was not left before, found {lineage}"
            ));
        }
        last = Some((*object, header));
    }
    faults
}

/// The page size may change only where every page is written anew.
fn page_size_changes(sound: &BTreeMap<Object, Checked>) -> Vec<String> {
    let mut faults = Vec::new();
    for ((before, known), (object, checked)) in sound.iter().zip(sound.iter().skip(1)) {
        let adjoin = before.level == object.level && before.range.max().next() >= object.range.min();
        let (expected, found) = (known.header.page_size, checked.header.page_size);
        if adjoin && expected != found && !checked.full {
            faults.push(format!(
                "{object}: page size at byte 8: expected {expected} as in {before} in a file without every page, found {found}"
            ));
        }
    }
    faults
}
