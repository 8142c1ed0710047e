//! What stands on which level, as far as a compaction needs to know.
//!
//! It is found by a listing when it is first needed, and kept by what this compactor and its replicator do
//! from then on. Levels are listed from the top down, and each only past what the level above holds: what is
//! below that has been compacted, however much of it there is. Nothing is taken for compacted or contiguous
//! that was not seen to be; a gap is an error with a name.
//!
//! Of level 0 only what the replicator has confirmed counts: what else may stand there is a rival's, or a
//! put of ours that nobody has judged yet.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::ids::{Level, Txid, TxidRange, Wall};
use crate::machine::{Listed, Object};
use crate::mutant::{self, Mutant};
use crate::restore::{Inventory, Plan, Target, plan};

/// Files of a level that are known at a time: a replica that has grown for months without levels has
/// millions.
const LISTED_MAX: usize = 4_096;
/// Files that one compaction merges at the most; more are taken in turns.
pub const FAN_IN_MAX: usize = 64;

/// What is to be merged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Batch {
    /// The files, in the order in which they apply.
    pub(super) inputs: Vec<Listed>,
    /// What the result is called.
    pub(super) object: Object,
    /// Whether more waits than is taken at once.
    pub(super) more: bool,
}

/// What stands where.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Levels {
    /// For each level from 0 to the highest that is compacted, the files past what the level above holds,
    /// ascending; at the highest, those past the newest snapshot.
    files: Vec<Vec<Listed>>,
    /// For each level, the highest transaction that it or a level above it holds; 0 for none.
    fronts: Vec<u64>,
    snapshot: Option<Listed>,
    /// The highest transaction that is known to be on level 0 with all before it; 0 for none.
    confirmed: u64,
    /// Whether levels are listed from their start.
    wide: bool,
    /// Levels that hold more than was listed of them.
    cut: Vec<bool>,
    /// What stands under a name that was to be ours and is not what our files make: it counts as not there.
    refused: BTreeSet<Object>,
}

impl Levels {
    /// Nothing is known of levels 0 to `top`.
    pub(super) fn new(top: u8) -> Levels {
        let levels = usize::from(top) + 1;
        Levels {
            files: alloc::vec![Vec::new(); levels],
            fronts: alloc::vec![0; levels + 1],
            snapshot: None,
            confirmed: 0,
            wide: false,
            cut: alloc::vec![false; levels],
            refused: BTreeSet::new(),
        }
    }

    fn top(&self) -> usize {
        self.files.len() - 1
    }

    /// The levels in the order in which they are to be listed.
    pub(super) fn next_listed(&self, after: Option<Level>) -> Option<Level> {
        match after {
            None => Some(Level::SNAPSHOTS),
            Some(Level::SNAPSHOTS) => Level::new(self.top() as u8),
            Some(level) => level.get().checked_sub(1).and_then(Level::new),
        }
    }

    /// After which name a level is to be listed.
    pub(super) fn listed_after(&self, level: Level) -> Option<TxidRange> {
        let above = usize::from(level.get()) + 1;
        let front = self.fronts.get(above).copied().filter(|_| above <= self.top() && !self.wide)?;
        TxidRange::new(Txid::new(front)?, Txid::new(u64::MAX)?)
    }

    /// Takes more of what a listing gave of a level.
    pub(super) fn listed(&mut self, level: Level, entries: &[Listed]) {
        for entry in entries {
            self.put(level, *entry);
        }
        self.prune();
    }

    /// Whether more of a level may be listed: of one that has grown for months without a compaction only
    /// so much is known at a time.
    pub(super) fn has_room(&self, level: Level) -> bool {
        self.files.get(usize::from(level.get())).is_none_or(|files| files.len() < LISTED_MAX)
    }

    /// There is more of this level than was listed.
    pub(super) fn cut(&mut self, level: Level) {
        self.cut[usize::from(level.get())] = true;
    }

    /// Whether so little is left of what was listed of such a level that it is to be listed again.
    pub(super) fn is_used_up(&self) -> bool {
        self.files.iter().zip(&self.cut).any(|(files, cut)| *cut && files.len() < FAN_IN_MAX)
    }

    /// This object is not ours, and is passed over from now on.
    pub(super) fn refuse(&mut self, object: Object) {
        self.refused.insert(object);
    }

    /// A file that is there.
    fn put(&mut self, level: Level, file: Listed) {
        let (at, max) = (usize::from(level.get()), file.object.range.max().get());
        if self.refused.contains(&file.object) {
            return;
        }
        // What lies between it and what was listed is not known.
        let beyond =
            |files: &Vec<Listed>| files.last().is_none_or(|last| file.object.range > last.object.range);
        if self.cut.get(at) == Some(&true) && self.files.get(at).is_some_and(beyond) {
            return;
        }
        if level == Level::SNAPSHOTS {
            let newest = self.snapshot.map_or(0, |snapshot| snapshot.object.range.max().get());
            if file.object.range.is_snapshot() && max > newest {
                self.snapshot = Some(file);
            }
        } else if at <= self.top() && (level != Level::CAPTURES || max <= self.confirmed) {
            let files = &mut self.files[at];
            let place = files.partition_point(|known| known.object.range < file.object.range);
            if files.get(place).is_none_or(|known| known.object != file.object) {
                files.insert(place, file);
            }
            for front in &mut self.fronts[..=at] {
                *front = (*front).max(max);
            }
        }
    }

    /// Forgets what the level above, or at the top the newest snapshot, holds.
    fn prune(&mut self) {
        let newest = self.snapshot.map_or(0, |snapshot| snapshot.object.range.max().get());
        let top = self.top();
        for (at, files) in self.files.iter_mut().enumerate() {
            let front = if at == top { newest } else { self.fronts[at + 1] };
            files.retain(|file| file.object.range.max().get() > front);
        }
    }

    /// The replicator has stored a segment of so many bytes. `false` if something before it was missed.
    pub(super) fn stored(&mut self, txid: Txid, bytes: u64, at: Wall) -> bool {
        let follows = self.confirmed == txid.get() - 1;
        self.confirmed = txid.get();
        let object = Object { level: Level::CAPTURES, range: TxidRange::single(txid) };
        self.put(Level::CAPTURES, Listed { object, len: bytes, modified: Some(at) });
        self.prune();
        follows
    }

    /// Everything up to this transaction is on level 0, whatever its size.
    pub(super) fn confirm(&mut self, txid: Txid) {
        self.confirmed = self.confirmed.max(txid.get());
    }

    /// The file of a compaction has come to be.
    pub(super) fn made(&mut self, file: Listed) {
        self.put(file.object.level, file);
        self.prune();
    }

    /// Forgets what was listed: it is no longer so.
    pub(super) fn forget(&mut self) {
        let (confirmed, wide) = (self.confirmed, self.wide);
        let refused = core::mem::take(&mut self.refused);
        *self = Levels { confirmed, wide, refused, ..Levels::new(self.top() as u8) };
    }

    /// Has the levels listed from their start from now on: a file that begins before what the level above
    /// holds was not listed.
    pub(super) fn look_wider(&mut self) {
        self.wide = true;
    }

    /// They were.
    pub(super) fn look_as_usual(&mut self) {
        self.wide = false;
    }

    /// Whether something waits to be compacted to `level`, and since when as far as that is known.
    pub(super) fn waits(&self, level: Level) -> Option<Option<Wall>> {
        if level == Level::SNAPSHOTS {
            let newest = self.snapshot.map_or(0, |snapshot| snapshot.object.range.max().get());
            let end = self.fronts[0];
            let past = || self.files.iter().flatten().filter(|file| file.object.range.max().get() > newest);
            let alone =
                past().any(|file| file.object.range.is_snapshot() && file.object.range.max().get() == end);
            let oldest = past().min_by_key(|file| file.object.range)?;
            return (end > newest && !alone).then_some(oldest.modified);
        }
        let below = usize::from(level.get()) - 1;
        self.files[below].first().map(|file| file.modified)
    }

    /// What is to be compacted to `level` next; `None` if nothing waits.
    ///
    /// # Errors
    /// The first transaction that is missing, for people.
    pub(super) fn plan(&self, level: Level) -> Result<Option<Batch>, String> {
        if level == Level::SNAPSHOTS { self.plan_snapshot() } else { self.plan_level(level) }
    }

    fn plan_level(&self, level: Level) -> Result<Option<Batch>, String> {
        let at = usize::from(level.get());
        let files = &self.files[at - 1];
        let Some(first) = files.first() else { return Ok(None) };
        let front = self.fronts[at];
        // What lies between may be held by a snapshot, where another program's retention has been at work.
        // But a listing that is late looks the same (seed 20042015).
        let mut have = if front == 0 { first.object.range.min().get() - 1 } else { front };
        let mut inputs: Vec<Listed> = Vec::new();
        // Two files overlap where a put of a process that had died came late: the one that reaches further
        // holds what the other does.
        while inputs.len() < FAN_IN_MAX
            && let Some(file) = self.next_file(at - 1, have)
        {
            have = file.object.range.max().get();
            inputs.push(*file);
        }
        let Some(first) = inputs.first() else {
            let (expected, found) = (have + 1, first.object);
            return Err(format!(
                "level {} goes on with {found} where {expected:016x} comes next: what lies between is missing",
                at - 1
            ));
        };
        let more = self.next_file(at - 1, have).is_some();
        let max = Txid::new(have).expect("a file was taken");
        let range = TxidRange::new(first.object.range.min(), max).expect("files reach further and further");
        Ok(Some(Batch { inputs, object: Object { level, range }, more }))
    }

    /// Of the files of a level that go on from `have` the one that reaches furthest.
    fn next_file(&self, level: usize, have: u64) -> Option<&Listed> {
        let bridged = mutant::on(Mutant::GapBridged);
        let goes_on = |file: &&Listed| {
            let range = file.object.range;
            range.max().get() > have && (range.min().get() <= have + 1 || bridged)
        };
        let candidates = self.files[level].iter().filter(goes_on);
        if bridged { candidates.min_by_key(|file| file.object.range) } else { candidates.max_by_key(reach) }
    }

    /// The newest snapshot, or a first file that stands alone, and all that follows.
    fn all(&self) -> Result<Plan, String> {
        let all = self.files.iter().flatten().chain(&self.snapshot).copied().collect();
        plan(&Inventory::new(all), Target::Latest).map_err(|error| error.to_string())
    }

    fn plan_snapshot(&self) -> Result<Option<Batch>, String> {
        if self.waits(Level::SNAPSHOTS).is_none() {
            return Ok(None);
        }
        let mut inputs = self.all()?.files;
        let more = inputs.len() > FAN_IN_MAX;
        inputs.truncate(FAN_IN_MAX);
        let max = inputs.last().expect("a plan holds a file").object.range.max();
        if inputs.len() == 1 {
            return Ok(None);
        }
        let range = TxidRange::new(Txid::FIRST, max).expect("1 is the lowest");
        Ok(Some(Batch { inputs, object: Object { level: Level::SNAPSHOTS, range }, more }))
    }

    /// Whether a restore reads more of what came since the newest snapshot than of that itself, and at least
    /// so many bytes of it.
    pub(super) fn outweighs(&self, bytes_min: u64) -> bool {
        let Ok(plan) = self.all() else { return false };
        let since: u64 = plan.files.iter().skip(1).map(|file| file.len).sum();
        plan.files.len() > 1 && since > bytes_min.max(plan.files[0].len)
    }

    /// The highest transaction that a level holds.
    pub(super) fn front(&self, level: Level) -> Option<Txid> {
        match level {
            Level::SNAPSHOTS => self.snapshot.map(|snapshot| snapshot.object.range.max()),
            level => Txid::new(*self.fronts.get(usize::from(level.get()))?),
        }
    }
}

/// How far a file reaches; of two that reach as far, the one that begins later is the smaller.
fn reach(file: &&Listed) -> (Txid, Txid) {
    (file.object.range.max(), file.object.range.min())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(level: u8, min: u64, max: u64) -> Listed {
        let range = TxidRange::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap();
        let object = Object { level: Level::new(level).unwrap(), range };
        Listed { object, len: 100, modified: Some(Wall(min as i64)) }
    }

    fn level(n: u8) -> Level {
        Level::new(n).unwrap()
    }

    /// Levels 1 to 3 with these files, listed as a compactor does, of which so many are confirmed.
    fn levels(files: &[(u8, u64, u64)], confirmed: u64) -> Levels {
        let mut levels = Levels::new(3);
        levels.confirmed = confirmed;
        let mut at = None;
        while let Some(level) = levels.next_listed(at) {
            at = Some(level);
            let after = levels.listed_after(level);
            let here = files.iter().map(|(n, min, max)| file(*n, *min, *max));
            let mut here: Vec<Listed> = here
                .filter(|it| it.object.level == level && after.is_none_or(|after| it.object.range > after))
                .collect();
            here.sort_by_key(|it| it.object.range);
            levels.listed(level, &here);
        }
        levels
    }

    /// The names of what is merged to `n`, and of what becomes of it.
    fn planned(levels: &Levels, n: u8) -> Result<Option<(Vec<String>, String)>, String> {
        let names = |batch: Batch| {
            let inputs = batch.inputs.iter().map(|it| format!("{:?}", it.object)).collect();
            (inputs, format!("{:?}", batch.object))
        };
        levels.plan(level(n)).map(|batch| batch.map(names))
    }

    fn check(levels: &Levels, n: u8, inputs: &[&str], object: &str) {
        let inputs = inputs.iter().map(|it| it.to_string()).collect();
        assert_eq!(planned(levels, n), Ok(Some((inputs, object.to_string()))));
    }

    #[test]
    fn a_level_goes_on_where_it_ended() {
        let known = levels(&[(0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 4, 4), (1, 1, 2), (2, 1, 2), (9, 1, 1)], 4);
        check(&known, 1, &["0/T3-T3", "0/T4-T4"], "1/T3-T4");
        assert_eq!(planned(&known, 2), Ok(None));
        check(&known, 3, &["2/T1-T2"], "3/T1-T2");
        check(&known, 9, &["2/T1-T2", "0/T3-T3", "0/T4-T4"], "9/T1-T4");
        assert_eq!(known.waits(level(1)), Some(Some(Wall(3))), "since the first of them came");
        assert_eq!((known.waits(level(2)), known.waits(level(9)).is_some()), (None, true));
    }

    #[test]
    fn what_nobody_confirmed_does_not_count() {
        let known = levels(&[(0, 1, 1), (0, 2, 2), (0, 3, 3)], 2);
        check(&known, 1, &["0/T1-T1", "0/T2-T2"], "1/T1-T2");
        assert_eq!(planned(&levels(&[(0, 1, 1)], 0), 1), Ok(None));
    }

    #[test]
    fn what_is_stored_and_made_is_remembered() {
        let mut known = levels(&[(0, 1, 1)], 1);
        assert_eq!(planned(&known, 9), Ok(None), "the first base stands alone");
        assert!(known.stored(Txid::new(2).unwrap(), 7, Wall(5)));
        check(&known, 1, &["0/T1-T1", "0/T2-T2"], "1/T1-T2");
        known.made(file(1, 1, 2));
        assert_eq!(planned(&known, 1), Ok(None));
        check(&known, 2, &["1/T1-T2"], "2/T1-T2");
        assert!(!known.stored(Txid::new(4).unwrap(), 7, Wall(5)), "the third was missed");
        known.made(file(9, 1, 2));
        assert_eq!(known.front(level(9)), Txid::new(2));
        known.forget();
        assert_eq!((known.confirmed, known.front(level(9))), (4, None));
    }

    #[test]
    fn a_gap_is_named_and_not_bridged() {
        let gap = levels(&[(0, 1, 1), (0, 2, 2), (0, 4, 4), (1, 1, 1)], 4);
        check(&gap, 1, &["0/T2-T2"], "1/T2-T2");
        let at_once = levels(&[(0, 4, 4), (1, 1, 2)], 4);
        let error = planned(&at_once, 1).unwrap_err();
        assert!(error.contains("where 0000000000000003 comes next: what lies between is missing"), "{error}");
        let error = planned(&levels(&[(0, 1, 1), (0, 3, 3)], 3), 9).unwrap_err();
        assert!(error.contains("0000000000000002 is missing on the way"), "{error}");
    }

    #[test]
    fn of_files_that_overlap_the_furthest_is_taken() {
        let files = [(1, 1, 2), (1, 1, 3), (1, 3, 3), (1, 4, 6), (1, 5, 5)];
        check(&levels(&files, 0), 2, &["1/T1-T3", "1/T4-T6"], "2/T1-T6");
        // One that begins before the front is listed only once a gap has shown.
        let files = [(1, 2, 5), (1, 6, 7), (2, 1, 3)];
        let mut known = levels(&files, 0);
        assert!(planned(&known, 2).unwrap_err().contains("0000000000000004 comes next"));
        known.look_wider();
        known.forget();
        let mut at = None;
        while let Some(level) = known.next_listed(at) {
            at = Some(level);
            assert_eq!(known.listed_after(level), None);
            let here = files.iter().map(|(n, min, max)| file(*n, *min, *max));
            known.listed(level, &here.filter(|it| it.object.level == level).collect::<Vec<_>>());
        }
        check(&known, 2, &["1/T2-T5", "1/T6-T7"], "2/T2-T7");
    }

    #[test]
    fn more_than_fit_at_once_are_taken_in_turns() {
        let files: Vec<_> = (1..=100).map(|n| (0, n, n)).collect();
        let known = levels(&files, 100);
        for n in [1, 9] {
            let batch = known.plan(level(n)).unwrap().unwrap();
            assert_eq!((batch.inputs.len(), batch.more), (FAN_IN_MAX, true));
            assert_eq!(batch.object.range.max().get(), FAN_IN_MAX as u64);
        }
    }

    #[test]
    fn of_a_level_that_is_too_long_only_so_much_is_known() {
        let mut known = Levels::new(1);
        known.confirmed = 10_000;
        let here: Vec<Listed> = (1..=LISTED_MAX as u64).map(|n| file(0, n, n)).collect();
        assert!(known.has_room(level(0)));
        known.listed(level(0), &here);
        assert!(!known.has_room(level(0)));
        known.cut(level(0));
        // It is confirmed, and what lies between is not known.
        assert!(known.stored(Txid::new(10_001).unwrap(), 7, Wall(5)));
        let mut turns = 0;
        while !known.is_used_up() {
            let batch = known.plan(level(1)).unwrap().unwrap();
            assert!(batch.object.range.max().get() <= LISTED_MAX as u64);
            known.made(Listed { object: batch.object, ..file(1, 1, 1) });
            turns += 1;
        }
        assert_eq!(turns, LISTED_MAX / FAN_IN_MAX);
        assert_eq!((known.front(level(1)), known.confirmed), (Txid::new(LISTED_MAX as u64), 10_001));
        known.forget();
        assert!(!known.is_used_up() && known.has_room(level(0)));
    }

    #[test]
    fn what_was_refused_counts_as_not_there() {
        let files = [(0, 1, 1), (0, 2, 2), (0, 3, 3), (1, 1, 2)];
        let mut known = levels(&files, 3);
        check(&known, 1, &["0/T3-T3"], "1/T3-T3");
        known.refuse(file(1, 1, 2).object);
        known.forget();
        for (n, min, max) in [(1, 1, 2), (0, 1, 1), (0, 2, 2), (0, 3, 3)] {
            known.listed(level(n), &[file(n, min, max)]);
        }
        check(&known, 1, &["0/T1-T1", "0/T2-T2", "0/T3-T3"], "1/T1-T3");
        assert_eq!(planned(&known, 2), Ok(None));
    }

    #[test]
    fn the_log_is_weighed_as_a_restore_reads_it() {
        let known = levels(&[(9, 1, 5), (3, 1, 4), (3, 5, 6)], 0);
        assert!(!known.outweighs(0), "as much");
        let known = levels(&[(9, 1, 5), (3, 1, 4), (3, 5, 6), (2, 7, 7)], 0);
        assert!(known.outweighs(0) && !known.outweighs(200));
        assert!(!levels(&[], 0).outweighs(0));
    }
}
