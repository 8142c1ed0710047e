//! Which database files this process holds.
//!
//! POSIX locks belong to a process and a file, not to a descriptor: closing *any* descriptor of a
//! database drops every lock that SQLite holds on it here, silently. An application of SQLite 3.40
//! then took the lock for its own, deleted the WAL under our reader, and the commits in it were
//! gone. SQLite guards its own descriptors against this and cannot guard ours; so whoever is about
//! to open a database file claims it first, and a file is claimed once at a time.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What makes a file itself, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId {
    /// The device number.
    pub dev: u64,
    /// The inode number.
    pub ino: u64,
}

/// The exclusive right of this process to open one database file; ends when dropped.
#[derive(Debug)]
pub(super) struct Claim(FileId);

impl Claim {
    /// `None` while another claim on the file stands.
    pub(super) fn take(file: FileId) -> Option<Claim> {
        // Not `then_some`: a claim made in vain would end the one that stands when it drops.
        held().insert(file).then(|| Claim(file))
    }

    /// The file that is claimed.
    pub(super) fn file(&self) -> FileId {
        self.0
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        held().remove(&self.0);
    }
}

/// Whether this process has a link on the file, or is reading its header.
pub fn is_claimed(file: FileId) -> bool {
    held().contains(&file)
}

fn held() -> MutexGuard<'static, BTreeSet<FileId>> {
    static HELD: Mutex<BTreeSet<FileId>> = Mutex::new(BTreeSet::new());
    // Insert and remove leave the set whole, so a panic elsewhere cannot have broken it.
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_claimed_once_at_a_time() {
        let file = FileId { dev: u64::MAX, ino: 7 };
        let claim = Claim::take(file).expect("free");
        assert!(is_claimed(file));
        assert!(Claim::take(file).is_none());
        drop(claim);
        assert!(!is_claimed(file));
        assert!(Claim::take(file).is_some());
    }
}
