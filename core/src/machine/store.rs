//! What a machine asks of an object store.
//!
//! Objects are named by level and range; the host turns that into a key of the layout in use.
//! Bodies stream in parts of at most one mebibyte. The error kinds are sorted by what the core
//! will do; `Ambiguous` is the one that must never be guessed away: the request may have had its
//! effect.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{Chunk, OpId};
use crate::ids::{Level, TxidRange, Wall};

/// The largest part of a body, in bytes.
pub const PART_BYTES_MAX: usize = 1 << 20;

/// One segment on the replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// Its level.
    pub level: Level,
    /// The transactions it holds.
    pub range: TxidRange,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.ltx", self.level, self.range)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}", self.level, self.range)
    }
}

/// A part of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteRange {
    /// `len` bytes from `offset`; fewer come only where the object ends.
    At {
        /// From the start.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// The last bytes, or all of a shorter object.
    Tail(u64),
}

/// An upload under way, named by the request that opened it.
pub type PutId = OpId;

/// A request to the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreRequest {
    /// The objects of a level in ascending order of their names, at most `limit`.
    List {
        /// Which level.
        level: Level,
        /// Only names after this one.
        after: Option<TxidRange>,
        /// How many at the most.
        limit: u32,
    },
    /// Bytes of an object, at most [`PART_BYTES_MAX`] of them... larger ranges come whole.
    Get {
        /// Which object.
        object: Object,
        /// Which bytes.
        range: ByteRange,
    },
    /// Begin to write an object; it comes to exist only by `PutCommit`, and only if no object of
    /// the name exists then.
    PutOpen {
        /// Which object.
        object: Object,
    },
    /// Append to an open body.
    PutPart {
        /// The request that opened it.
        put: PutId,
        /// The bytes.
        bytes: Chunk,
    },
    /// Make the object exist, whole and durable.
    PutCommit {
        /// The request that opened it.
        put: PutId,
    },
    /// Forget the body.
    PutAbort {
        /// The request that opened it.
        put: PutId,
    },
    /// Remove an object; an absent one is no error.
    Delete {
        /// Which object.
        object: Object,
    },
}

/// An object in a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its name.
    pub object: Object,
    /// Its length in bytes.
    pub len: u64,
    /// When the store says that it was written; for people only.
    pub modified: Option<Wall>,
}

/// The answer to a [`StoreRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreReply {
    /// To `List`.
    Listing {
        /// In ascending order.
        entries: Vec<Listed>,
        /// Whether there are more after the last.
        more: bool,
    },
    /// To `Get`.
    Bytes {
        /// What was asked for, or less where the object ends.
        bytes: Chunk,
        /// The length of the whole object.
        object_len: u64,
    },
    /// To the others.
    Done,
}

/// What the core will do about a failure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StoreErrorKind {
    /// No such object.
    NotFound,
    /// The object exists already (412, EEXIST).
    AlreadyExists,
    /// Two requests met (409): try again.
    Conflict,
    /// It had no effect; try again (throttled, 5xx, connection refused or reset before sending).
    Retry,
    /// It may have had its effect: read back before anything else.
    Ambiguous,
    /// No permission.
    Denied,
    /// No space or over quota.
    NoSpace,
    /// The bucket, path, or address is wrong.
    Misconfigured,
    /// The store cannot do this at all.
    Unsupported,
    /// Bytes came back wrong.
    Corrupt,
}

/// A failed request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreError {
    /// What to do about it.
    pub kind: StoreErrorKind,
    /// The cause, for people.
    pub text: String,
}
