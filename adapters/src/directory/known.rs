//! What one process knows about the durability of a replica's directories.
//!
//! Two facts, each bought with a sync and then free: that the path down to a directory is durable
//! (*linked*, needed before a put), and that the names in it are (*settled*, needed before any of
//! them is shown). Both are forgotten freely, at the price of syncing again; so the memory is
//! bounded and simply emptied when full.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use driftless_core::mutant::{self, Mutant};

use super::DirectoryStore;
use crate::fs::{Fs, FsError, FsErrorKind};

/// How many directories are remembered; about 100 bytes each.
const DIRECTORIES_MAX: usize = 4096;

/// See the module.
#[derive(Default)]
pub(super) struct Known {
    directories: BTreeMap<Box<str>, Facts>,
    /// Grows whenever trust is withdrawn. A sync that began before then proves nothing after.
    withdrawals: u64,
}

#[derive(Clone, Copy, Default)]
struct Facts {
    linked: bool,
    settled: bool,
}

impl Known {
    /// Withdraws trust in the names in one directory.
    pub(super) fn unsettle(&mut self, directory: &str) {
        self.withdrawals += 1;
        if let Some(facts) = self.directories.get_mut(directory) {
            facts.settled = false;
        }
    }

    /// Withdraws trust in everything.
    pub(super) fn forget_all(&mut self) {
        self.withdrawals += 1;
        self.directories.clear();
    }

    fn get(&self, directory: &str) -> Facts {
        self.directories.get(directory).copied().unwrap_or_default()
    }

    /// Notes what a sync has proven, unless trust was withdrawn since it began.
    fn learn(&mut self, directory: &str, since: u64, fact: impl FnOnce(&mut Facts)) {
        if self.withdrawals != since {
            return;
        }
        if let Some(facts) = self.directories.get_mut(directory) {
            return fact(facts);
        }
        if self.directories.len() >= DIRECTORIES_MAX {
            self.directories.clear();
        }
        fact(self.directories.entry(directory.into()).or_default());
    }
}

impl<F: Fs> DirectoryStore<F> {
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is a single step, so a panic elsewhere leaves it usable.
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a directory of the replica, and the path down to it, durable.
    ///
    /// Every component from the root down is made or found, and its parent synced, once: those
    /// that were found may have been made by a process that died before its sync, or by a copy
    /// from elsewhere that never synced at all.
    pub(super) fn make_directory(&self, directory: &str) -> Result<(), FsError> {
        if self.known().get(directory).linked {
            return Ok(());
        }
        let inner = directory.match_indices('/').map(|(at, _)| &directory[..at]);
        let whole = (!directory.is_empty()).then_some(directory);
        for part in [""].into_iter().chain(inner).chain(whole) {
            let (facts, since) = {
                let known = self.known();
                (known.get(part), known.withdrawals)
            };
            if !facts.linked {
                self.make_component(part)?;
                self.known().learn(part, since, |facts| facts.linked = true);
            }
        }
        Ok(())
    }

    /// Makes one directory, durably; those above it in the replica are linked already.
    fn make_component(&self, part: &str) -> Result<(), FsError> {
        if part.is_empty() {
            return self.shared.fs.create_dir_all(&self.shared.root);
        }
        let parent = part.rsplit_once('/').map_or("", |(parent, _)| parent);
        let made = match self.shared.fs.create_dir(&self.path(part)) {
            Err(e) if e.kind != FsErrorKind::Exists => Err(e),
            _ if mutant::on(Mutant::ParentUnsynced) => Ok(()),
            _ => self.shared.fs.sync_dir(&self.path(parent)),
        };
        if made.as_ref().is_err_and(|e| e.kind == FsErrorKind::NotFound) {
            // What was known to be there has been removed. The next attempt begins at the root.
            self.known().forget_all();
        }
        made
    }

    /// Makes the names in a directory durable before they are shown, unless they are known to be.
    /// A directory that does not exist has none.
    pub(super) fn settle(&self, directory: &str) -> Result<(), FsError> {
        if self.known().get(directory).settled {
            return Ok(());
        }
        match self.sync_names(directory) {
            Err(e) if matches!(e.kind, FsErrorKind::NotFound | FsErrorKind::BadPath) => Ok(()),
            synced => synced,
        }
    }

    /// Syncs the names in a directory and notes how it went.
    pub(super) fn sync_names(&self, directory: &str) -> Result<(), FsError> {
        let since = self.known().withdrawals;
        let synced = match mutant::on(Mutant::DirectoryUnsynced) {
            true => Ok(()),
            false => self.shared.fs.sync_dir(&self.path(directory)),
        };
        let mut known = self.known();
        match synced {
            Ok(()) => known.learn(directory, since, |facts| facts.settled = true),
            Err(_) => known.unsettle(directory),
        }
        synced
    }
}
