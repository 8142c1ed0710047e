//! Every state that the application committed, in order, recorded outside of the engine.
//!
//! A commit frame in the file is not a commit: an application that dies or gets an error in the
//! sync of its commit leaves one behind that SQLite, while a wal-index is alive, does not count
//! and later overwrites. So the files are read only after a commit that succeeded, and once
//! nobody keeps a wal-index alive, when the next opener's recovery takes what is there.

use super::image::Image;
use super::reading::{ChainEnd, Reader};
use crate::disk::Disk;

/// Committed states.
#[derive(Debug, Default)]
pub struct Truth {
    states: Vec<(u64, Image)>,
    /// The chain's end at the last commit that counted.
    end: Option<ChainEnd>,
    /// Where the chain ends by a commit that did not count.
    phantom: Option<ChainEnd>,
    /// States up to here were committed; what follows counts only once somebody recovers it.
    owed: usize,
    /// Phantoms seen, each the mark of its image.
    phantoms: Vec<u64>,
    reader: Reader,
    /// A recovery has brought the last state, as it makes a commit count that had failed.
    recovered: bool,
    /// The disk's generation at which the files were last what counts.
    cold_at: Option<u64>,
}

impl Truth {
    /// Nothing was committed yet.
    pub fn new() -> Truth {
        Truth::default()
    }

    /// The same, to be read on from another disk.
    pub fn copy(&self) -> Truth {
        Truth {
            states: self.states.clone(),
            end: self.end,
            phantom: self.phantom,
            recovered: self.recovered,
            cold_at: None,
            owed: self.owed,
            phantoms: self.phantoms.clone(),
            reader: Reader::default(),
        }
    }

    /// Goes on from another truth: what was there before stays before it.
    pub fn go_on_from(&mut self, other: &Truth) {
        let before = std::mem::replace(self, other.copy());
        self.states = before.states.into_iter().chain(other.states.iter().cloned()).collect();
        self.owed = self.states.len();
        self.phantoms.extend(before.phantoms);
    }

    /// The number of states.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether nothing was committed.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// How many states are committed beyond doubt, to the last of them.
    pub fn owed(&self) -> usize {
        self.owed
    }

    /// The last committed state.
    pub fn last(&self) -> Option<&Image> {
        self.states.last().map(|(_, image)| image)
    }

    /// The states from `at` on.
    pub fn from(&self, at: usize) -> impl Iterator<Item = &Image> {
        self.states.iter().skip(at).map(|(_, image)| image)
    }

    /// How many commits were refused as phantoms.
    pub fn phantoms(&self) -> usize {
        self.phantoms.len()
    }

    /// The first state from `from` on that equals `image`.
    pub fn find(&self, image: &Image, from: usize) -> Option<usize> {
        let mark = image.mark();
        let found = self.states[from.min(self.states.len())..]
            .iter()
            .position(|(known, state)| *known == mark && state == image);
        found.map(|at| from + at)
    }

    /// Whether `image` is one that a phantom commit would have made.
    pub fn is_phantom(&self, image: &Image) -> bool {
        self.phantoms.contains(&image.mark()) && self.find(image, 0).is_none()
    }

    /// A write of the application succeeded: what the files say now is committed.
    pub fn committed(&mut self, disk: &Disk, path: &str, pending_byte: u64) {
        self.cold_at = None;
        if let Some(reading) = self.reader.read(disk, path, pending_byte) {
            self.phantom = None;
            self.end = Some(reading.end);
            self.recovered &= !admit(&mut self.states, &reading.image);
            self.owed = self.states.len();
        }
    }

    /// A write of the application succeeded that may have been empty, so that a phantom may still
    /// stand.
    pub fn perhaps(&mut self, disk: &Disk, path: &str, pending_byte: u64) {
        let Some(reading) = self.reader.read(disk, path, pending_byte) else { return };
        if self.phantom == Some(reading.end) {
            return; // Nothing was written over the phantom: the transaction was empty.
        }
        self.committed(disk, path, pending_byte);
    }

    /// A write of the application failed, or it died in it: what the files say beyond the last
    /// commit does not count as long as a wal-index is alive.
    pub fn failed(&mut self, disk: &Disk, path: &str, pending_byte: u64) {
        self.cold_at = None;
        let Some(reading) = self.reader.read(disk, path, pending_byte) else { return };
        let same = self.states.last().is_some_and(|(_, last)| *last == reading.image);
        if reading.end.frames > 0 && self.end != Some(reading.end) && !same {
            self.phantom = Some(reading.end);
            self.phantoms.push(reading.image.mark());
        }
    }

    /// Nobody has the wal-index mapped: whoever opens next takes what the files say.
    pub fn cold(&mut self, disk: &Disk, path: &str, pending_byte: u64) {
        let generation = Some(disk.generation());
        if std::mem::replace(&mut self.cold_at, generation) == generation {
            return;
        }
        let journal = disk.look_at(&format!("{path}-journal"), |journal| {
            journal.is_some_and(|journal| !journal.bytes.is_empty())
        });
        if journal {
            return; // It will be rolled back to what was there before.
        }
        if let Some(reading) = self.reader.read(disk, path, pending_byte) {
            self.phantom = None;
            self.end = Some(reading.end);
            self.recovered |= admit(&mut self.states, &reading.image);
        }
    }

    /// Whether the last state is one that a recovery has brought. It writes nothing, so that no event
    /// tells of it.
    pub fn was_recovered(&self) -> bool {
        self.recovered
    }

    /// Whether the last state is one from before the state `at`, and came after it.
    pub fn has_gone_back_behind(&self, at: usize) -> bool {
        let Some(last) = self.last().filter(|_| at + 1 < self.len()) else { return false };
        self.find(last, 0).is_some_and(|first| first < at)
    }

    /// A write of an application without files succeeded: this is the state that it left.
    pub fn note(&mut self, image: Image) {
        self.states.push((image.mark(), image));
        self.owed = self.states.len();
    }

    /// Takes a state for committed, or for one that a phantom would have made.
    #[cfg(test)]
    pub(super) fn pretend(&mut self, image: Image, committed: bool) {
        if committed {
            self.states.push((image.mark(), image));
        } else {
            self.phantoms.push(image.mark());
        }
    }
}

/// Takes a state as the last one, unless it is that already.
fn admit(states: &mut Vec<(u64, Image)>, image: &Image) -> bool {
    let new = states.last().is_none_or(|(_, last)| last != image);
    if new {
        states.push((image.mark(), image.clone()));
    }
    new
}

#[cfg(test)]
mod tests {
    use crate::disk::{DiskConfig, SimClock};
    use crate::ring0::app::{App, AppEnd, AppOp, PATH, Work};
    use crate::ring0::dice::Dice;
    use crate::ring0::misfortune::Misfortune;
    use crate::ring0::sites::{Sites, Strike};
    use crate::ring0::sqlite::{Library, Sqlite as _};

    use super::*;

    const PENDING: u64 = 0x4000_0000;

    /// A phantom does not count while a wal-index lives, and counts once none does.
    #[test]
    fn a_phantom_counts_only_after_a_recovery() {
        let clock = SimClock::new(1_800_000_000_000_000_000);
        let disk = Disk::new(DiskConfig::default(), clock.clone());
        let sqlite = Library::new(disk.clone(), clock, 9, PENDING);
        let mut app = App::new(&sqlite, true, Misfortune::new(Dice::new(9), 0, Sites::new(Strike::All)));
        let mut truth = Truth::new();
        app.perform(&sqlite, AppOp::Open { page_bytes: 512 }).unwrap();
        let work = Work::Insert { rows: 3, bytes: 200 };
        assert_eq!(app.perform(&sqlite, AppOp::Write(work)).unwrap(), AppEnd::Committed);
        truth.committed(&disk, PATH, PENDING);
        let committed = truth.last().unwrap().clone();
        let witness = sqlite.library().unwrap().open("witness", PATH).unwrap();
        let rows = |db: &rusqlite::Connection| {
            db.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))
        };
        assert_eq!(rows(&witness).unwrap(), 3);

        assert!(matches!(app.perform(&sqlite, AppOp::DieInCommit(work)).unwrap(), AppEnd::Failed(_)));
        assert!(sqlite.wal_index_lives(PATH));
        truth.failed(&disk, PATH, PENDING);
        truth.perhaps(&disk, PATH, PENDING);
        assert_eq!((truth.last(), truth.phantoms()), (Some(&committed), 1));
        let phantom = crate::ring0::reading::read(&disk, PATH, PENDING).unwrap().image;
        assert!(phantom != committed && truth.is_phantom(&phantom));
        assert_eq!(rows(&witness).unwrap(), 3);

        drop(witness);
        sqlite.kill_process("witness");
        // The witness was the last and checkpointed what counts.
        truth.cold(&disk, PATH, PENDING);
        assert_eq!(truth.last(), Some(&committed));
    }
}
