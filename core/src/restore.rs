//! Bringing a database back from its replica.
//!
//! The [`Restorer`] lists the replica, plans the files that lead to the wanted state ([`plan`]),
//! reads their headers and page indexes from the newest to the oldest until nothing before
//! matters, and then fetches each page once, in its newest version. What it builds stands beside
//! the target and takes its place in one last step, so that whatever goes wrong before leaves an
//! existing target as it was.
//!
//! Where the state's checksum is known (segments written by Driftless), single pages are read
//! out of the middle of files, and the result is proven by the XOR of all its pages' checksums.
//! Files that say nothing about the state are read whole under their own checksum.
//!
//! Where an older state of the same history stands in the target's place and may be replaced, only
//! what has changed since is fetched, and the rest taken from there; `present.rs` tells how.
//!
//! A damaged object is named with offset, expected and found value. If other files cover what it
//! held, the restore goes on with those and says so. It never ends well with another state than
//! the one asked for.

mod dictionaries;
mod fetch;
mod jobs;
mod keep;
mod machine;
mod output;
mod overlap;
mod plan;
mod present;
mod reader;
mod resume;
mod room;
mod status;
mod survey;
#[cfg(test)]
pub(crate) mod tests;

pub use jobs::{
    Claimed, Claims, Decoded, GAP_BYTES_MAX, Next, OUTPUT_BYTES_MAX, Purpose, RUN_BYTES_MAX, RestoreJob,
    RestoreOutput, Run, Stream, Win, Wins,
};
pub use machine::Restorer;
pub use plan::{Inventory, Plan, PlanError, Target, plan};
pub use room::Room;

pub(crate) use output::{OutputStep, output_exit};
pub(crate) use reader::Reader;
pub(crate) use survey::check_name;

use alloc::vec::Vec;
use core::time::Duration;

use crate::ids::{DbChecksum, PENDING_BYTE, PageSize, Txid, Wall};
use crate::machine::Object;

/// Which state to restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestoreTarget {
    /// The newest on the replica.
    Latest,
    /// The state at this transaction.
    At(Txid),
    /// The state at the highest transaction stamped at or before this time.
    Time(Wall),
}

/// What to restore, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestoreConfig {
    /// Which state.
    pub target: RestoreTarget,
    /// Whether an existing target file may be replaced.
    pub replace: bool,
    /// Stop once it is known what would be fetched.
    pub dry_run: bool,
    /// Reads under way at once, from 1; of files whose beginning and end are read apart, for each of
    /// the two. Of content no more than twelve mebibytes are read or wait at once, which is six reads
    /// out of the middle of a large file.
    pub parallelism: usize,
    /// When to give up one try of a request.
    pub request_deadline: Duration,
    /// Where SQLite keeps its lock bytes ([`PENDING_BYTE`]).
    pub pending_byte: u64,
}

/// The most files that are read whole at once: each holds a few pieces, and as much again of pages.
const LANES_MAX: usize = 8;
/// Bytes of content that are read or have been, and wait to be decoded.
const HELD_BYTES_MAX: u64 = 12 << 20;

impl RestoreConfig {
    /// Files that are read whole at once.
    pub(crate) fn lanes(&self) -> usize {
        self.parallelism.min(LANES_MAX)
    }

    /// Runs that are decoded and written at once, of up to [`OUTPUT_BYTES_MAX`] each: enough to keep a few
    /// processors and the disk busy.
    fn decodes(&self) -> usize {
        (self.parallelism / 4).clamp(2, 8)
    }
}

impl Default for RestoreConfig {
    fn default() -> RestoreConfig {
        RestoreConfig {
            target: RestoreTarget::Latest,
            replace: false,
            dry_run: false,
            parallelism: 16,
            request_deadline: Duration::from_secs(30),
            pending_byte: PENDING_BYTE,
        }
    }
}

/// What a restore is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestorePhase {
    /// It has not been started.
    Idle,
    /// Listing the replica.
    Listing,
    /// Looking for the transaction that belongs to a time.
    Dating,
    /// Reading headers and page indexes.
    Surveying,
    /// Fetching and writing pages.
    Fetching,
    /// Looking for the object that is to blame for a wrong result.
    Auditing,
    /// Making the result durable and putting it into place.
    Finishing,
    /// Cleaning up, or beginning again.
    Settling,
    /// It has ended.
    Stopped,
}

/// A file of the plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlannedFile {
    /// Its name: level and range.
    pub object: Object,
    /// Its length in bytes.
    pub len: u64,
    /// Whether it says to which state it leads; `None` while its header is unknown.
    pub chained: Option<bool>,
    /// Whether pages are read out of its middle; otherwise it is read whole.
    pub ranged: bool,
    /// Pages that it provides.
    pub pages: u32,
    /// Bytes to fetch of it beyond its header and index.
    pub fetch_bytes: u64,
    /// Requests that fetch them.
    pub fetch_requests: u64,
}

/// How a restore stands; also its report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestoreStatus {
    /// What it is doing.
    pub phase: RestorePhase,
    /// The transaction that is restored, once known.
    pub target: Option<Txid>,
    /// When that transaction was captured.
    pub stamp: Option<Wall>,
    /// The page size of the state.
    pub page_size: Option<PageSize>,
    /// Its size in pages.
    pub pages: u32,
    /// Pages fetched and written so far.
    pub pages_done: u64,
    /// Pages that need not be fetched, since they stand in the target's place, or a killed restore has
    /// written them; so far.
    pub pages_kept: u64,
    /// Whether they are what a killed restore has left.
    pub resumed: bool,
    /// Whether a database stands there whose state is not known: some of its pages may be kept, and
    /// what there is to fetch is known only when it has been.
    pub guesses: bool,
    /// The files that are used, in the order in which they apply.
    pub plan: Vec<PlannedFile>,
    /// Bytes received so far, of headers and indexes too.
    pub bytes_fetched: u64,
    /// Requests sent so far, with listings and retries.
    pub requests: u64,
    /// The checksum that the target's segment promises; `None` if it promises none.
    pub post: Option<DbChecksum>,
    /// Whether the result was proven to have it.
    pub proven: bool,
    /// How often the replica was listed.
    pub listings: u32,
    /// Damaged objects that were gone around.
    pub excluded: Vec<Object>,
}
