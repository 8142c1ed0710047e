//! Reading a replica now and then while it is written, to see whether it can be relied upon still.
//!
//! The [`Validator`] of a database lets a [`Verifier`](crate::verify::Verifier) read the whole replica at
//! the multiples of an interval, and says what came of it. It changes nothing, and replication goes on
//! whatever it finds.
//!
//! What can go wrong, and what prevents it: an alarm about what retention and compaction delete meanwhile
//! (what went since the listing is looked for in a new one), about bytes that changed on their way (what
//! seems damaged is read again), about a store that does not answer (nothing was found out then, and it is
//! tried again); silence about objects that went with all that told of them (what was reported as stored
//! must be there); a process whose validations starve its replication (one at a time of all its databases,
//! two reads under way, some megabytes of memory).
//!
//! Nothing that was sound before is passed over: bits rot in what nobody writes.
//! [Decision 0019](../../../docs/decisions/0019-validation.md) has the reasons.

mod machine;
#[cfg(test)]
mod tests;

pub use machine::Validator;

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::ids::{PENDING_BYTE, Wall};

/// Faults that a status names; more are counted.
pub const FAULTS_MAX: usize = 16;

/// The settings of one validator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValidateConfig {
    /// How often the replica is read, longer than nothing. Default 24 h; who asks for none has no validator.
    pub interval: Duration,
    /// How long a store request may take before it counts as lost. Default 60 s.
    pub store_deadline: Duration,
    /// Where SQLite keeps its lock bytes; only tests move them.
    pub pending_byte: u64,
}

impl Default for ValidateConfig {
    fn default() -> ValidateConfig {
        ValidateConfig {
            interval: Duration::from_secs(24 * 60 * 60),
            store_deadline: Duration::from_secs(60),
            pending_byte: PENDING_BYTE,
        }
    }
}

/// A validation that came to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Validated {
    /// When that was.
    pub at: Wall,
    /// Objects that were read.
    pub objects: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// What is wrong, a line each, of no more than [`FAULTS_MAX`].
    pub faults: Vec<String>,
    /// How much is wrong in all.
    pub faults_count: u64,
}

/// How a validator stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValidateStatus {
    /// Whether a validation is under way, or waits for its turn.
    pub validating: bool,
    /// The last that came to its end.
    pub last: Option<Validated>,
    /// Why none could be made since.
    pub trouble: Option<String>,
}

impl ValidateStatus {
    /// Whether the last validation that came to its end found a fault.
    pub fn is_faulty(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.faults_count > 0)
    }
}
