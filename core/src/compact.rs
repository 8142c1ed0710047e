//! Keeping a replica small: levels of files that hold ever more transactions each.
//!
//! The [`Compactor`] of a database follows what its replicator stores on level 0, and merges files of a
//! level into one of the level above at the multiples of that level's interval. Level 9 holds snapshots,
//! each merged from the one before it and what came since, so that the host's database is not read for them.
//! Nothing is deleted here: that is the [`Retainer`](crate::retain::Retainer)'s.
//!
//! What can go wrong, and what prevents it: a file that misses transactions (a gap is an error, and never
//! bridged), a file with an old image of a page (`merge`), a damaged input that spreads upwards (every
//! input is read whole under its checksum before the result may exist), a crash in the middle (an object
//! comes to be whole or not at all, and a repeat makes the same one, since a result is a function of its
//! inputs alone), somebody else's object under the name (compared by header, never replaced).
//! [Decision 0013](../../../docs/decisions/0013-levels.md) has the reasons.

mod levels;
mod machine;
mod merge;
mod schedule;
mod standing;
#[cfg(test)]
pub(crate) mod tests;
mod work;

pub use levels::FAN_IN_MAX;
pub use machine::Compactor;
pub use merge::{Merge, MergeJob, MergeNext, MergeOutput};
pub use schedule::{due, next_multiple};

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::ids::{Level, PENDING_BYTE, Txid};
use crate::retain::RetainConfig;

/// The settings of one compactor. `Default` is what Litestream does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompactConfig {
    /// How often level 1, 2 and so on are made from the one below: one to eight intervals, none of them
    /// zero. Default 30 s, 5 min, 1 h.
    pub levels: Vec<Duration>,
    /// How often a snapshot is made if something was written since the last. Default 24 h.
    pub snapshot_interval: Duration,
    /// A snapshot is made earlier once a restore would read more of what came since the last than of that
    /// itself, and at least so many bytes of it. Default 1 MiB: a small database is not copied for each
    /// handful of rows.
    pub snapshot_bytes_min: u64,
    /// Whether each result is read back before it counts. Default off, as Litestream's `verify-compaction`.
    pub verify: bool,
    /// What is deleted once it is covered; `None` for nothing.
    pub retention: Option<RetainConfig>,
    /// Whether the store is said to keep create-if-absent; if not, a look at the name precedes each put.
    pub create_if_absent: bool,
    /// Whether bodies cross a network, which may be slow.
    pub remote: bool,
    /// How long a store request may take before it counts as lost. Default 60 s.
    pub store_deadline: Duration,
    /// Where SQLite keeps its lock bytes; only tests move them.
    pub pending_byte: u64,
}

impl Default for CompactConfig {
    fn default() -> CompactConfig {
        CompactConfig {
            levels: [30, 300, 3_600].map(Duration::from_secs).to_vec(),
            snapshot_interval: Duration::from_secs(24 * 60 * 60),
            snapshot_bytes_min: 1 << 20,
            verify: false,
            retention: Some(RetainConfig::default()),
            create_if_absent: true,
            remote: false,
            store_deadline: Duration::from_secs(60),
            pending_byte: PENDING_BYTE,
        }
    }
}

impl CompactConfig {
    /// How often a level is made.
    fn interval(&self, level: Level) -> Duration {
        match level {
            Level::SNAPSHOTS => self.snapshot_interval,
            level => self.levels[usize::from(level.get()) - 1],
        }
    }

    /// The levels that are made, in ascending order.
    fn made(&self) -> impl Iterator<Item = Level> + use<> {
        (1..=self.levels.len() as u8).filter_map(Level::new).chain([Level::SNAPSHOTS])
    }
}

/// How a compactor stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompactStatus {
    /// The level that is being made.
    pub making: Option<Level>,
    /// For each level that holds anything, the highest transaction on it, as far as that is known.
    pub fronts: Vec<(Level, Txid)>,
    /// What went wrong last, with which level, if that was not made since.
    pub trouble: Vec<(Level, String)>,
}
