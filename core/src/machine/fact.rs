//! What a machine says to people: facts as data, which a host puts into words.

use alloc::string::String;
use core::time::Duration;

use super::Object;
use crate::ids::Txid;

/// A fact for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// How loudly to say it.
    pub severity: Severity,
    /// What happened.
    pub fact: Fact,
}

/// How loudly a fact is said.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Of use when looking for a fault.
    Debug,
    /// Normal life.
    Info,
    /// Needs a person's attention some time.
    Warn,
    /// Needs a person now.
    Error,
}

/// What came of a validation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Each object is whole, and they agree.
    Sound,
    /// Something is wrong.
    Faulty {
        /// The first fault: object, offset, expected and found.
        fault: String,
        /// How many there are besides.
        more: u64,
    },
    /// It could not be done.
    Undone {
        /// What went wrong.
        error: String,
        /// What a person can do; empty where nothing is known to help.
        hint: String,
        /// Milliseconds until the next try.
        wait_ms: u64,
    },
}

impl Verdict {
    /// The word for people.
    pub const fn word(&self) -> &'static str {
        match self {
            Verdict::Sound => "sound",
            Verdict::Faulty { .. } => "faulty",
            Verdict::Undone { .. } => "undone",
        }
    }
}

/// What happened. Field names are those of logs and metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fact {
    /// The source is open and its changes are followed.
    Attached,
    /// The source, which was attached, was let go; events wake it.
    Detached {
        /// Whether the position was sealed, so that waking needs no survey.
        sealed: bool,
    },
    /// The source cannot be replicated now; retried when it changes.
    Waiting {
        /// What is the matter.
        why: String,
        /// What a person can do.
        hint: String,
    },
    /// The replica's end was found.
    Head {
        /// The highest transaction on the replica, if there is one.
        txid: Option<Txid>,
    },
    /// The whole database (or what differs) is being written, and why.
    Base {
        /// Whether every page is written; otherwise only those that differ.
        full: bool,
        /// The reason.
        why: String,
    },
    /// Everything up to this transaction is on the replica and can be restored.
    Replicated {
        /// The transaction.
        txid: Txid,
        /// Bytes of its segment.
        bytes: u64,
        /// Pages in its segment.
        pages: u32,
    },
    /// A segment left by an earlier run was found and taken over.
    Adopted {
        /// Its transaction.
        txid: Txid,
    },
    /// A file of a higher level was made, or was there already.
    Compacted {
        /// Its name.
        object: Object,
        /// Its length in bytes.
        bytes: u64,
        /// How many files went into it.
        inputs: u32,
        /// The bytes of those.
        inputs_bytes: u64,
    },
    /// Files that need not be kept were deleted.
    Retained {
        /// How many.
        objects: u32,
        /// Their bytes.
        bytes: u64,
    },
    /// The replica was to be read and checked.
    Validated {
        /// What came of it.
        verdict: Verdict,
        /// Objects that were read.
        objects: u64,
        /// Bytes that were read.
        bytes: u64,
    },
    /// A copy that follows its replica shows a later state.
    Followed {
        /// Its transaction.
        txid: Txid,
        /// Files that were applied.
        files: u32,
        /// Their bytes.
        bytes: u64,
        /// Pages that were written.
        pages: u64,
        /// Milliseconds since the state was captured, by both hosts' clocks.
        lag_ms: u64,
    },
    /// A checkpoint was run.
    Checkpointed {
        /// Frames in the WAL.
        frames: u32,
        /// Frames copied into the database so far.
        backfilled: u32,
        /// How long the write lock was held; `None` without it. A commit that came meanwhile
        /// waited for as long at the most.
        held: Option<Duration>,
        /// How long copying back and its syncs took.
        took: Duration,
    },
    /// The WAL has grown past the stated bound although checkpoints are tried.
    WalOverBound {
        /// Its size in frames.
        frames: u32,
    },
    /// A request failed and will be tried again.
    Retrying {
        /// What was tried.
        what: String,
        /// What went wrong.
        error: String,
        /// What a person can do; empty where nothing is known to help.
        hint: String,
        /// Milliseconds until the next try.
        wait_ms: u64,
    },
    /// Tried again with success.
    Recovered {
        /// What was tried.
        what: String,
    },
    /// Local records could not be written or read.
    StateTrouble {
        /// What went wrong.
        error: String,
    },
    /// Something that a person should know, in words.
    Remark {
        /// The words.
        text: String,
    },
    /// Progress of long work.
    Progress {
        /// What is being done.
        what: &'static str,
        /// Units done (pages or bytes, as `what` says).
        done: u64,
        /// Units in all.
        total: u64,
    },
}
