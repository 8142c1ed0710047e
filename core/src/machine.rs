//! The contract between a machine and its host: events in, actions out.
//!
//! Both are plain data, so that a run can be recorded, compared and replayed, and so that a crash
//! between any two of them can be simulated by dropping the machine. Each request carries an
//! [`OpId`] that its completion brings back; a machine ignores a completion it does not await,
//! which makes answers to a dead predecessor harmless by construction.
//!
//! Requests are leaves, one system call, SQLite call or store request each. The host knows no
//! rule about order and takes no decision; it may run everything it holds concurrently.

mod cell;
mod chunk;
mod copy;
mod fact;
mod grant;
mod source;
mod store;

pub use cell::{CellCondition, CellReply, CellRequest};
pub use chunk::Chunk;
pub use copy::{CopyError, CopyReply, CopyRequest};
pub use fact::{Fact, Notice, Severity, Verdict};
pub use grant::{Budget, GrantRequest};
pub use source::{
    Filesystem, INDEX_BYTES, LinkReply, LitestreamHead, SealRecord, Slot, SourceError, SourceErrorKind,
    SourceFacts, SourceReply, SourceRequest, WalFacts,
};
pub(crate) use store::body_time;
pub use store::{
    ByteRange, Listed, Object, PART_BYTES_MAX, PutCondition, PutId, StoreError, StoreErrorKind, StoreReply,
    StoreRequest,
};

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::ids::{Incarnation, Mono, Now, Txid};
use crate::job::{Job, JobOutput};
use crate::lease::LeaseEvent;
use crate::probe::Findings;

/// A database with one replica target. A database with several targets has several of these.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ReplicaId(pub u32);

/// Names one request of one run of one machine. Two runs never share an identifier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId {
    /// The database and target on whose behalf the request is made.
    pub replica: ReplicaId,
    /// A number that the host draws for each machine it starts; it tells a run from the runs
    /// before it even when local state is lost. Not the incarnation stored in segments.
    pub run: u64,
    /// Counts the requests of this run from 1.
    pub seq: u64,
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op{}.{:x}.{}", self.replica.0, self.run & 0xffff, self.seq)
    }
}

/// What a host tells a machine.
#[expect(
    clippy::large_enum_variant,
    reason = "moved a few hundred times a second at most; a box would be an allocation each"
)]
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The first event, once. `entropy` is random; all that a machine draws derives from it.
    Start {
        /// A random number from the operating system (or the simulator's seed).
        entropy: u64,
    },
    /// The deadline that [`Machine::next_deadline`] named has passed, or any time at all.
    Tick,
    /// The source's files may have changed. Spurious ones cost one look.
    SourceChanged,
    /// Replicate what is there now and report, without waiting for the sync interval.
    SyncNow,
    /// What the start-up probe found out about the store; it may come at any time, or never.
    StoreProbed(Findings),
    /// Something about the lease of the process.
    Lease(LeaseEvent),
    /// A segment of level 0 is on the replica, and so is everything before it.
    Stored {
        /// Its transaction.
        txid: Txid,
        /// Its length; `None` where nobody has counted.
        bytes: Option<u64>,
    },
    /// Finish: replicate what is committed, let go of the source, and stop, by `deadline` at the
    /// latest. A second one stops at once.
    Shutdown {
        /// When to give up and report what is left.
        deadline: Mono,
    },
    /// A request has ended.
    Completed {
        /// The request's name.
        op: OpId,
        /// How it ended.
        outcome: Outcome,
    },
}

/// How a request ended, by its kind.
#[expect(
    clippy::large_enum_variant,
    reason = "moved a few hundred times a second at most; a box would be an allocation each"
)]
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// Of a [`Request::Source`].
    Source(Result<SourceReply, SourceError>),
    /// Of a [`Request::Store`].
    Store(Result<StoreReply, StoreError>),
    /// Of a [`Request::Cell`].
    Cell(Result<CellReply, StoreError>),
    /// Of a [`Request::State`]; a failure is text for people, since the state may be lost.
    State(Result<StateReply, String>),
    /// Of a [`Request::Scratch`]: what was read, or nothing; a failure is text for people.
    Scratch(Result<Chunk, String>),
    /// Of a [`Request::Output`]: what was read, or nothing.
    Output(Result<Chunk, OutputError>),
    /// Of a [`Request::Copy`].
    Copy(Result<CopyReply, CopyError>),
    /// Of a [`Request::Compute`].
    Compute(JobOutput),
    /// Of a [`Request::Grant`]: it was granted, or is given back.
    Granted,
    /// Of a [`Request::Prove`]; a failure is for good, and says why.
    Proven(Result<(), String>),
}

/// What a machine asks of its host.
#[expect(
    clippy::large_enum_variant,
    reason = "moved a few hundred times a second at most; a box would be an allocation each"
)]
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Carry this out and bring the outcome back under `op`.
    Submit {
        /// The name to bring back.
        op: OpId,
        /// What to do.
        request: Request,
    },
    /// The machine no longer awaits `op`. The host may drop it; if it completes all the same,
    /// its effects stand and its completion is ignored.
    Cancel {
        /// The request that is no longer awaited.
        op: OpId,
    },
    /// A fact for people: the host turns it into a log line or a metric.
    Notify(Notice),
    /// The machine has ended and will not act again.
    Stopped(Exit),
}

/// One leaf action.
#[expect(
    clippy::large_enum_variant,
    reason = "moved a few hundred times a second at most; a box would be an allocation each"
)]
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// Of the database that is replicated.
    Source(SourceRequest),
    /// Of the object store that holds the replica.
    Store(StoreRequest),
    /// Of small objects beside the segments.
    Cell(CellRequest),
    /// Of the process's own records on this host.
    State(StateRequest),
    /// Of bytes that are put aside for a while.
    Scratch(ScratchRequest),
    /// Of the file that a restore writes.
    Output(OutputRequest),
    /// Of the copy that follows a replica.
    Copy(CopyRequest),
    /// Processor work with no effect but its result.
    Compute(Job),
    /// A share of what all machines of the process have together.
    Grant(GrantRequest),
    /// Complete once a look at the lease that began after this has shown that the process still holds it.
    Prove,
}

/// Local records: an append-only, checksummed journal that the host keeps per replica. All of it
/// can be lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StateRequest {
    /// All records of this replica, in the order in which they were appended.
    Load,
    /// Append one record. Durable against the death of the process once it completes.
    Append(Chunk),
    /// Replace all records of this replica by these, atomically, and make them durable.
    Rewrite(Vec<Chunk>),
    /// Make everything appended so far durable against power loss.
    Sync,
}

/// The answer to a [`StateRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StateReply {
    /// To `Load`.
    Records(Vec<Chunk>),
    /// To the others.
    Done,
}

/// Bytes put aside on the host's disk, in a file without a name. Nothing of it outlives the
/// process, and nothing of it is synced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ScratchRequest {
    /// Write `bytes` at `offset`. The first write makes the file.
    Write {
        /// Which file. Numbers ascend: a machine uses one after the other, and none again.
        file: u64,
        /// From its start.
        offset: u64,
        /// What to write.
        bytes: Chunk,
    },
    /// Read what was written. All of it comes, or an error.
    Read {
        /// Which file.
        file: u64,
        /// From its start.
        offset: u64,
        /// How many bytes.
        len: u32,
    },
    /// Forget the file; its space is free again.
    Drop {
        /// Which file.
        file: u64,
    },
}

/// The file that a restore builds beside its target. One output a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OutputRequest {
    /// Create the file beside the target, readable by its owner only.
    Create {
        /// Whether the content that a killed restore has left there may stay. Otherwise it is empty.
        keep: bool,
    },
    /// Write each of these at its offset from the start of the file. Many at once, since a restore
    /// writes single pages by the ten thousand, and a turn through a host costs more than its write.
    Write(Vec<(u64, Chunk)>),
    /// Set the length, which also cuts what an earlier attempt left.
    SetLen(u64),
    /// Make the file's content durable.
    Sync,
    /// Put the file in the target's place and make that durable. Without `replace` an existing
    /// target is an error and stays as it is.
    Publish {
        /// Whether an existing target may be replaced, with its `-wal`, `-shm` and `-journal`.
        replace: bool,
    },
    /// Remove the file.
    Discard,
    /// Read the file that was created: all of these bytes, or those up to its end.
    ReadBuilt {
        /// From its start.
        offset: u64,
        /// How many bytes.
        len: u32,
    },
    /// Read what stands in the target's place, without touching it: all of these bytes, or those up
    /// to its end. Nothing comes where no file stands, or one whose `-wal` or `-journal` has content:
    /// it alone is not the database.
    ReadTarget {
        /// From its start.
        offset: u64,
        /// How many bytes.
        len: u32,
    },
}

/// Why an output request failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutputError {
    /// Whether the target exists and may not be replaced.
    pub exists: bool,
    /// The cause, for people.
    pub text: String,
}

/// How a machine ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// All is done; exit code 0.
    Done,
    /// It failed; exit code 1.
    Failed {
        /// The cause.
        error: String,
        /// What a person can do.
        hint: String,
    },
    /// It was asked for something that cannot be; exit code 2.
    Misconfigured {
        /// The cause.
        error: String,
        /// What a person can do.
        hint: String,
    },
    /// There is nothing to restore; exit code 3.
    NothingToRestore {
        /// What is missing.
        error: String,
        /// What a person can do.
        hint: String,
    },
    /// An object is damaged; exit code 4.
    Corrupt {
        /// Object, offset, expected and found.
        error: String,
        /// What a person can do.
        hint: String,
    },
    /// A predecessor has written one more transaction, so that this database, its successor's, is not at the
    /// end of the history any more: it follows and tries again. Exit code 5.
    Overtaken {
        /// What was found.
        error: String,
    },
    /// The replica belongs to another history; exit code 5.
    Fenced {
        /// What was found.
        error: String,
        /// What a person can do.
        hint: String,
    },
    /// Stopped with committed transactions that are not on the replica; exit code 6.
    Unreplicated {
        /// The first transaction that is missing there.
        from: Txid,
        /// Committed frames that are in it or after it, as far as they are known.
        frames: u64,
        /// Why they are not there.
        error: String,
    },
}

impl Exit {
    /// Why it has not ended well.
    pub fn error(&self) -> Option<&str> {
        match self {
            Exit::Done => None,
            Exit::Failed { error, .. }
            | Exit::Misconfigured { error, .. }
            | Exit::NothingToRestore { error, .. }
            | Exit::Corrupt { error, .. }
            | Exit::Overtaken { error }
            | Exit::Fenced { error, .. }
            | Exit::Unreplicated { error, .. } => Some(error),
        }
    }

    /// The process exit code (`docs/OPERATING.md` has the table).
    pub fn code(&self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed { .. } => 1,
            Exit::Misconfigured { .. } => 2,
            Exit::NothingToRestore { .. } => 3,
            Exit::Corrupt { .. } => 4,
            Exit::Overtaken { .. } | Exit::Fenced { .. } => 5,
            Exit::Unreplicated { .. } => 6,
        }
    }
}

/// Why a machine wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// When captured pages have waited for the sync interval.
    Sync,
    /// When the WAL should be looked at again under load.
    Look,
    /// When a checkpoint may be tried again.
    Checkpoint,
    /// When a quiet source may be let go.
    Quiet,
    /// When a failed request may be tried again.
    Retry,
    /// When a request has been under way for too long.
    Deadline,
    /// When the source should be looked for again although no event said so.
    Sweep,
    /// When shutting down has taken as long as it may.
    Shutdown,
    /// When a level is due.
    Compact,
    /// When something that is covered may go.
    Retain,
    /// When the replica is to be looked at again.
    Poll,
    /// When the replica is to be validated.
    Validate,
}

/// The actions of one step, in the order in which they were decided.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Actions(Vec<Action>);

impl Actions {
    /// No actions.
    pub fn new() -> Actions {
        Actions(Vec::new())
    }

    /// Adds one.
    pub fn push(&mut self, action: Action) {
        self.0.push(action);
    }

    /// Adds a fact for people.
    pub fn notify(&mut self, severity: Severity, fact: Fact) {
        self.0.push(Action::Notify(Notice { severity, fact }));
    }

    /// Takes everything out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Action> + '_ {
        self.0.drain(..)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A pure state machine under a host.
pub trait Machine {
    /// What people and oracles may look at.
    type Status;

    /// Takes one event and appends what is to be done. The only mutator. Never blocks, and never
    /// holds a core for more than about a millisecond.
    fn handle(&mut self, now: Now, event: Event, out: &mut Actions);

    /// When to call [`Machine::handle`] with [`Event::Tick`] if nothing else happens first, and
    /// why. Asked anew after each event, so that there is no timer to cancel.
    fn next_deadline(&self) -> Option<(Mono, Reason)>;

    /// A look at the state, without effect.
    fn status(&self) -> Self::Status;
}

/// Hands out [`OpId`]s.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpIds {
    replica: ReplicaId,
    run: u64,
    last: u64,
}

impl OpIds {
    /// A source of identifiers for one run; `run` differs between runs.
    pub fn new(replica: ReplicaId, run: u64) -> OpIds {
        OpIds { replica, run, last: 0 }
    }

    /// A source for a machine within this one, of a run of its own.
    pub(crate) fn fork(&mut self) -> OpIds {
        self.last += 1;
        let run = self.run.rotate_left(17) ^ self.last.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        OpIds { replica: self.replica, run, last: 0 }
    }

    /// Submits `request` under a fresh identifier and returns that.
    pub fn submit(&mut self, request: Request, out: &mut Actions) -> OpId {
        self.last += 1;
        let op = OpId { replica: self.replica, run: self.run, seq: self.last };
        out.push(Action::Submit { op, request });
        op
    }
}

/// The incarnation after `this`, for a new run.
pub fn next_incarnation(this: Incarnation) -> Incarnation {
    Incarnation(this.0.checked_add(1).expect("incarnations do not run out: one a second lasts 136 years"))
}
