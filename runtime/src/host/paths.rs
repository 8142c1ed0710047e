//! From a path to the database that has it.
//!
//! Sixteen bytes a database: the path itself stands with the database, and is compared there. Two
//! paths of one hash make one of them unknown here; whoever adds it then learns from `twins` that it
//! is taken.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;

use super::Host;

#[derive(Default)]
pub(super) struct Paths {
    hasher: RandomState,
    numbers: RefCell<BTreeMap<u64, u32>>,
}

impl Paths {
    pub(super) fn add(&self, path: &Path, number: u32) {
        self.numbers.borrow_mut().insert(self.hasher.hash_one(path), number);
    }

    pub(super) fn remove(&self, path: &Path, number: u32) {
        let hash = self.hasher.hash_one(path);
        let mut numbers = self.numbers.borrow_mut();
        if numbers.get(&hash) == Some(&number) {
            numbers.remove(&hash);
        }
    }

    /// The database of this very path.
    pub(super) fn find(&self, host: &Host, path: &Path) -> Option<u32> {
        let number = self.numbers.borrow().get(&self.hasher.hash_one(path)).copied()?;
        host.look(number, |entry| entry.database == path)?.then_some(number)
    }
}
