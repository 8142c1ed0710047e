//! Noticing changes where the kernel does not report them.
//!
//! For each database the watcher keeps what `stat` said about the file and its `-wal`, and the
//! WAL's header, whose salts change when it starts again at the same size. A time stamp has a
//! grain (milliseconds to two seconds), and a second commit within it may leave size and stamp as
//! they were. So a file whose stamp was fresh when it was looked at counts as changed once more:
//! a needless look is cheap, a missed commit is not.
//!
//! How often to poll is the core's business; nothing here waits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::WatchEvent;
use crate::clock;
use crate::sqlite::FileId;
use crate::sqlite::probe::{self, WAL_HEADER_BYTES};

/// The coarsest time stamps in use: FAT's.
const STAMP_GRAIN_NS: i64 = 2_000_000_000;

/// Polls databases, each by its own path. A poll costs two `stat` a database, and an open, a read
/// and a close of `-wal` when its `stat` differs; no descriptor is kept.
#[derive(Default)]
pub struct PollWatcher {
    databases: BTreeMap<PathBuf, Seen>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    file: Option<Stamp>,
    wal: Option<Stamp>,
    wal_header: Option<[u8; WAL_HEADER_BYTES]>,
    /// A stamp was so young that it may stand for a later change as well.
    fresh: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    id: FileId,
    size: u64,
    mtime_ns: i64,
}

impl PollWatcher {
    /// Watches nothing yet.
    pub fn new() -> PollWatcher {
        PollWatcher::default()
    }

    /// Watches a database, which need not exist, from its present state on.
    pub fn add(&mut self, database: &Path) {
        let seen = look(database, Seen::default());
        self.databases.insert(database.to_path_buf(), seen);
    }

    /// Forgets a database.
    pub fn remove(&mut self, database: &Path) {
        self.databases.remove(database);
    }

    /// Whether nothing is watched.
    pub fn is_empty(&self) -> bool {
        self.databases.is_empty()
    }

    /// Looks at every database once and names those that changed since the last look, by the
    /// database's own path.
    pub fn poll(&mut self) -> Vec<WatchEvent> {
        let mut changed = Vec::new();
        for (database, seen) in &mut self.databases {
            let now = look(database, *seen);
            if now != (Seen { fresh: now.fresh, ..*seen }) || seen.fresh {
                changed.push(WatchEvent::Changed(database.clone()));
            }
            *seen = now;
        }
        changed
    }
}

/// A file that cannot be looked at counts as missing.
fn look(database: &Path, before: Seen) -> Seen {
    let wall_ns = clock::wall().0.saturating_mul(1_000_000);
    let wal_path = probe::companion(database, "-wal");
    let (file, wal) = (stamp(database), stamp(&wal_path));
    let wal_header = if wal == before.wal && !before.fresh {
        before.wal_header
    } else {
        probe::read_wal_frame(database, 0, WAL_HEADER_BYTES).ok().and_then(|bytes| bytes.try_into().ok())
    };
    let is_fresh = |stamp: &Stamp| wall_ns.saturating_sub(stamp.mtime_ns) < STAMP_GRAIN_NS;
    let fresh = [&file, &wal].into_iter().flatten().any(is_fresh);
    Seen { file, wal, wal_header, fresh }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = probe::stat_file(path).ok().flatten()?;
    Some(Stamp { id: file.id, size: file.size, mtime_ns: file.mtime_ns })
}
