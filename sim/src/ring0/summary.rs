//! What a run came to.

use serde::{Deserialize, Serialize};

use super::hits::Hits;

/// What is in the application's database, as far as it does not depend on random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Contents {
    /// Commits that it counts.
    pub commits: u64,
    /// How much its rows hold.
    pub size: u64,
}

/// How much of a replica a level is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Held {
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Actions of all replicators.
    pub actions: u64,
    /// Transactions that were reported as replicated, each restored and compared.
    pub restored: u64,
    /// Files of higher levels, each compared with what its transactions make.
    pub compacted: u64,
    /// Files that were deleted, each of which could go.
    pub deleted: u64,
    /// Of each level, the most that it held at a time.
    pub held_max: [Held; 10],
    /// Ends of files that had to be restorable, and were restored in the end.
    pub ends: u64,
    /// Validations of the replica, each verdict held against the truth.
    pub validated: u64,
    /// Commits of the application.
    pub commits: u64,
    /// Starts of the process.
    pub starts: u64,
    /// Deaths of the process, by whatever cause.
    pub crashes: u64,
    /// Store requests that did not simply work.
    pub faults: u64,
    /// Faults of every kind that struck, by name.
    pub hits: Hits,
    /// Promises that were not held to, each by its reason, which the truth proves.
    pub excuses: Hits,
    /// Commits that were left behind in the WAL and do not count.
    pub phantoms: u64,
    /// Runs that ended fenced and were told to adopt.
    pub fenced: u64,
    /// Whole bases, and bases by difference.
    pub bases: (u64, u64),
    /// Sealed and unsealed detachments.
    pub detached: (u64, u64),
    /// Bytes of the longest `-wal` that the application saw.
    pub wal_bytes_max: u64,
    /// Microseconds for which the application could not write at the most.
    pub blocked_us_max: u64,
    /// Milliseconds that were simulated.
    pub simulated_ms: u64,
    /// What the application's database holds in the end.
    pub contents: Contents,
    /// Microseconds from the end of faults to quiet.
    pub converged_us: u64,
    /// The hash of all that happened, record by record.
    pub trace_hash: u64,
}
