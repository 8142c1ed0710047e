//! Replicas that Litestream 0.3 wrote: read, never written.
//!
//! There a replica is a set of *generations*, each an unbroken run of the WAL with at least one
//! copy of the database:
//!
//! ```text
//! generations/<generation>/snapshots/<index>.snapshot.lz4      the database file
//! generations/<generation>/wal/<index>_<offset>.wal.lz4        bytes of a WAL
//! ```
//!
//! The *index* counts the WAL files of a generation: it grows by one whenever the WAL begins anew,
//! and the WAL of an index begins with its 32-byte header at offset 0. The snapshot of an index was
//! copied while that WAL was in use, so it may hold any part of it already, and the WAL is applied
//! from its start. Each object is one LZ4 frame.
//!
//! The [`LegacyRestorer`] takes the newest snapshot at or before the wanted state and every WAL
//! segment after it, and writes the frames up to the last commit to their places in the file. What
//! the names promise is held against the content: a segment must begin where the one before it
//! ended, each frame must carry its WAL's salts and running checksum, an index that another
//! follows must end with a commit, and growth must bring its pages. What is missing is an error
//! with a name, never an older state.
//!
//! Where a replica holds both this layout and LTX, the [`EitherRestorer`] finds out which of them
//! was written last.

mod apply;
mod either;
mod listing;
mod machine;
mod name;
mod pieces;
mod plan;
#[cfg(test)]
mod tests;
mod unpack;

pub use either::{EitherRestorer, EitherStatus};
pub use machine::LegacyRestorer;
pub use name::{GENERATIONS_PREFIX, Generation, LegacyObject, LegacyPart};
pub use plan::{LegacyInventory, LegacyPlan, LegacyPlanError, plan};
pub use unpack::{UnpackJob, UnpackNext, UnpackOutput, Unpacker, WalLimit};

use alloc::vec::Vec;

use crate::ids::{PageSize, Wall};
use crate::restore::RestorePhase;

/// An object of this layout in a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LegacyListed {
    /// Its name.
    pub object: LegacyObject,
    /// Its length in bytes.
    pub len: u64,
    /// When the store says that it was written. Names hold no time, so that a time to restore to
    /// is compared with this.
    pub modified: Option<Wall>,
}

/// Which state of a generation to restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LegacyTarget {
    /// The newest.
    Latest,
    /// The state at the end of the WAL of this index.
    Index(u32),
    /// The state that was on the replica at this time, by the store's clock.
    Time(Wall),
}

/// What to restore of a replica of this layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LegacyOrder {
    /// Which generation; `None` for the one that was written last.
    pub generation: Option<Generation>,
    /// Which of its states.
    pub target: LegacyTarget,
}

/// How a restore of this layout stands; also its report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LegacyStatus {
    /// What it is doing.
    pub phase: RestorePhase,
    /// The generation, once known.
    pub generation: Option<Generation>,
    /// The index of the last WAL that is applied, or of the snapshot where there is none.
    pub index: Option<u32>,
    /// When the last object of the plan was written, by the store's clock.
    pub stamp: Option<Wall>,
    /// The page size, once known.
    pub page_size: Option<PageSize>,
    /// The size of the state in pages, once known.
    pub pages: u32,
    /// Frames of the WAL that were applied.
    pub frames: u64,
    /// The snapshot and the segments, in the order in which they apply.
    pub plan: Vec<LegacyListed>,
    /// Bytes received so far.
    pub bytes_fetched: u64,
    /// Requests sent so far, with listings and retries.
    pub requests: u64,
    /// How often the replica was listed.
    pub listings: u32,
}
