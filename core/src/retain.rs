//! Deleting what a replica need not keep.
//!
//! The [`Retainer`] of a database follows its compactor. A file of level 0 goes some time after a file of a
//! higher level holds its transactions; files of the levels above, and older snapshots, go once a snapshot
//! that holds them is older than the time for which every level's end is to be restorable.
//!
//! What can go wrong, and what prevents it: what covers a file is damaged (it is read whole, under its
//! checksum, before anything that it covers goes) or belongs to another history (it must lead to the state
//! of a file that ends with it); a stale view (each pass begins with a fresh listing, from the lowest level
//! up); a restore under way (what has just been covered stays for the grace period); a clock that was set
//! (the time is not taken to be later than the store's own, and what has passed since by the clock that
//! nobody sets). The newest snapshot always stays, and so does what a level above has
//! yet to take.
//!
//! A deleted name can be taken again, so create-if-absent no longer keeps a writer out that was asleep
//! while another went on. Three rules together do: level 0 goes in ascending order, in blocks of fewer than
//! [`TENURE_BACK`] transactions, each seen to be gone before the next; as many of its newest files stay; and
//! a writer looks, after each put and before it says that anything is replicated, whether the segment that
//! lies so far back is still there. If it is, nothing that is newer was ever deleted.
//! [Decision 0015](../../../docs/decisions/0015-retention.md) has the reasons.

mod fence;
mod link;
mod machine;
mod plan;
#[cfg(test)]
mod tests;

pub use machine::{RetainPass, Retainer};
pub use plan::{Because, Removal, RetainPlan, Times, plan_retention};

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::ids::PENDING_BYTE;

/// How many transactions back a writer looks after a put, how many of a block may be deleted in any order,
/// and how many of level 0 stay in any case.
pub const TENURE_BACK: u64 = 16;

/// The settings of one retainer. `Default` is what Litestream does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetainConfig {
    /// For how long every end of a level's file stays restorable. Default 24 h.
    pub snapshot_retention: Duration,
    /// How long a file stays after another covers it: restores under way may have planned with it. Default
    /// 5 min.
    pub l0_retention: Duration,
    /// The highest level that is made, 1 to 8: what it has yet to take stays, and so does its newest file. If
    /// nobody says, it is the highest that holds anything.
    pub top: Option<u8>,
    /// How long the first segment of an epoch of the lease, and the one before it, stay on level 0 in any case:
    /// a writer that wakes late meets them. Default 30 days.
    pub fence_retention: Duration,
    /// The epoch under which the replicator beside it writes. A pass that follows none looks for fences in any
    /// case.
    pub epoch: Option<u64>,
    /// How long a store request may take before it counts as lost. Default 60 s.
    pub store_deadline: Duration,
    /// Where SQLite keeps its lock bytes; only tests move them.
    pub pending_byte: u64,
}

impl Default for RetainConfig {
    fn default() -> RetainConfig {
        RetainConfig {
            snapshot_retention: Duration::from_secs(24 * 60 * 60),
            l0_retention: Duration::from_secs(5 * 60),
            top: None,
            fence_retention: Duration::from_secs(30 * 24 * 60 * 60),
            epoch: None,
            store_deadline: Duration::from_secs(60),
            pending_byte: PENDING_BYTE,
        }
    }
}

/// How a retainer stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetainStatus {
    /// Whether a pass is under way.
    pub passing: bool,
    /// What the last pass deleted, or would have.
    pub removed: Vec<Removal>,
    /// What went wrong last, if no pass has come to its end since.
    pub trouble: Option<String>,
}
