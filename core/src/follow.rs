//! A copy that stays current: `restore -f`.
//!
//! The [`Follower`] restores the newest state, as the [`Restorer`](crate::restore::Restorer) does, and from
//! then on looks at the replica at an interval, fetches what is new by the way with the fewest bytes
//! ([`route`]), and writes it into the copy as one SQLite transaction at a time: readers in other
//! processes see one committed state of the source or the next, never part of one, and no lock of
//! ours keeps them waiting.
//!
//! **What is believed.** The checksum of each page of the copy is kept in a table, and so is that of
//! all together. A file that says from which state it leads must begin at ours, and where it says to
//! which it leads, the table must say the same *before* the transaction is committed. Files that say
//! nothing, Litestream's, are proven by their file checksum alone.
//!
//! **What a kill leaves.** Before each commit the position file names the state before and after it
//! ([`Position`]); SQLite's commit decides which of them it is. At the next start all pages are read,
//! and whichever has their checksum is where it goes on. A copy in neither state is somebody else's
//! work, or damage; it is not touched unless that was asked for.
//!
//! **When there is no way.** Retention has removed what comes next, a new history was begun, or the
//! copy may be written although it is not what it should be: then the newest state is read whole and the pages that differ are
//! written, in one transaction again, so that readers notice nothing but a later state. Only a
//! change of the page size needs another file in the copy's place.

mod apply;
mod bequest;
mod machine;
mod open;
mod position;
mod route;
mod table;
#[cfg(test)]
mod tests;
mod trouble;

pub use bequest::Candidates;
pub use machine::Follower;
pub use position::{Position, decode as decode_positions, encode as encode_positions, mask};
pub use route::{Route, route};

use bequest::bequest;

use core::time::Duration;

use crate::ids::{Txid, Wall};
use crate::restore::RestoreConfig;

/// How to follow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FollowConfig {
    /// How often the replica is looked at.
    pub interval: Duration,
    /// Whether what stands in the copy's place may be replaced if it is no copy of ours.
    pub replace: bool,
    /// Whether what fails before anything was read may pass as well: a standby outlives a store that is away,
    /// where a person who asks for a copy wants to hear of it.
    pub patient: bool,
    /// How to restore, and how to read. The target is the newest state in any case.
    pub restore: RestoreConfig,
}

impl Default for FollowConfig {
    fn default() -> FollowConfig {
        FollowConfig {
            interval: Duration::from_secs(1),
            replace: false,
            patient: false,
            restore: RestoreConfig::default(),
        }
    }
}

/// What a follower is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FollowPhase {
    /// It has not been started.
    Idle,
    /// Restoring the database for the first time.
    Restoring,
    /// Opening the copy and reading all its pages.
    Surveying,
    /// Asking the replica for news.
    Polling,
    /// Writing a later state.
    Applying,
    /// Waiting for the next look.
    Resting,
    /// It has ended.
    Stopped,
}

/// How a follower stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FollowStatus {
    /// What it is doing.
    pub phase: FollowPhase,
    /// What readers of the copy see; `None` while that is not known.
    pub position: Option<Txid>,
    /// When that was captured.
    pub stamp: Option<Wall>,
    /// The highest transaction seen on the replica.
    pub head: Option<Txid>,
    /// Transactions committed to the copy by this run.
    pub commits: u64,
    /// How often the copy was compared with the whole newest state.
    pub rebases: u64,
    /// Whether the copy was found not to be writable, and nothing has gone well since: locked by
    /// somebody else, or on a disk that is full.
    pub obstructed: bool,
    /// Requests to the store.
    pub requests: u64,
    /// Bytes read from it.
    pub bytes: u64,
}
