//! Every state that the application committed, in order, recorded outside of the engine.
//!
//! A commit frame in the file is not a commit: an application that dies or gets an error in the
//! sync of its commit leaves one behind that SQLite, while a wal-index is alive, does not count
//! and later overwrites. So the files are read only after a commit that succeeded, and once
//! nobody keeps a wal-index alive, when the next opener's recovery takes what is there.

use super::image::{self, ChainEnd, Image, Reading};
use crate::disk::Disk;

/// Committed states.
#[derive(Debug, Default)]
pub struct Truth {
    states: Vec<(u64, Image)>,
    /// The chain's end at the last commit that counted.
    end: Option<ChainEnd>,
    /// Where the chain ends by a commit that did not count.
    phantom: Option<ChainEnd>,
    /// Phantoms seen, each the digest of its image.
    phantoms: Vec<u64>,
}

impl Truth {
    /// Nothing was committed yet.
    pub fn new() -> Truth {
        Truth::default()
    }

    /// The number of states.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether nothing was committed.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// The last committed state.
    pub fn last(&self) -> Option<&Image> {
        self.states.last().map(|(_, image)| image)
    }

    /// How many commits were refused as phantoms.
    pub fn phantoms(&self) -> usize {
        self.phantoms.len()
    }

    /// The first state from `from` on that equals `image`.
    pub fn find(&self, image: &Image, from: usize) -> Option<usize> {
        let digest = image.digest();
        let found = self.states[from.min(self.states.len())..]
            .iter()
            .position(|(known, state)| *known == digest && state == image);
        found.map(|at| from + at)
    }

    /// Whether `image` is one that a phantom commit would have made.
    pub fn is_phantom(&self, image: &Image) -> bool {
        self.phantoms.contains(&image.digest()) && self.find(image, 0).is_none()
    }

    /// A write of the application succeeded: what the files say now is committed.
    pub fn committed(&mut self, disk: &Disk, path: &str, pending_byte: u64) {
        if let Some(reading) = image::read(disk, path, pending_byte) {
            self.admit(reading);
        }
    }

    /// A write of the application succeeded that may have been empty, so that a phantom may still
    /// stand.
    pub fn perhaps(&mut self, disk: &Disk, path: &str, pending_byte: u64) {
        let Some(reading) = image::read(disk, path, pending_byte) else { return };
        if self.phantom == Some(reading.end) {
            return; // Nothing was written over the phantom: the transaction was empty.
        }
        self.admit(reading);
    }

    /// A write of the application failed, or it died in it: what the files say beyond the last
    /// commit does not count as long as a wal-index is alive.
    pub fn failed(&mut self, disk: &Disk, path: &str, pending_byte: u64) {
        let Some(reading) = image::read(disk, path, pending_byte) else { return };
        if reading.end.frames > 0 && self.end != Some(reading.end) && self.last() != Some(&reading.image) {
            self.phantom = Some(reading.end);
            self.phantoms.push(reading.image.digest());
        }
    }

    /// Nobody has the wal-index mapped: whoever opens next takes what the files say.
    pub fn cold(&mut self, disk: &Disk, path: &str, pending_byte: u64) {
        if disk.contents(&format!("{path}-journal")).is_some_and(|journal| !journal.is_empty()) {
            return; // It will be rolled back to what was there before.
        }
        if let Some(reading) = image::read(disk, path, pending_byte) {
            self.admit(reading);
        }
    }

    fn admit(&mut self, reading: Reading) {
        self.phantom = None;
        self.end = Some(reading.end);
        if self.last() != Some(&reading.image) {
            self.states.push((reading.image.digest(), reading.image));
        }
    }
}
