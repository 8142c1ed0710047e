//! What a machine asks of an object store.
//!
//! Objects are named by level and range; the host turns that into a key of the layout in use.
//! Bodies stream in parts of at most one mebibyte. The error kinds are sorted by what the core
//! will do; `Ambiguous` is the one that must never be guessed away: the request may have had its
//! effect.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::{Chunk, OpId};
use crate::ids::{Level, TxidRange, Wall};
use crate::legacy::{LegacyListed, LegacyObject};
use crate::ltx::DictionaryId;

/// The largest part of a body on its way to or from a store, in bytes: 1 MiB.
pub const PART_BYTES_MAX: usize = 1 << 20;

/// Bytes a second below which a body counts as stuck: 64 KiB. A request that moves a body may take
/// so much longer than one that does not.
pub const BODY_RATE_MIN: u64 = 64 << 10;

/// How much longer a request may take because so many bytes move with it, `shares` requests at a time.
pub(crate) fn body_time(bytes: u64, shares: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(shares).saturating_mul(1_000) / BODY_RATE_MIN)
}

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
    /// The objects of Litestream 0.3's layout in ascending order of their names, at most `limit`.
    ListLegacy {
        /// Only names after this one.
        after: Option<LegacyObject>,
        /// How many at the most.
        limit: u32,
    },
    /// Bytes of an object of that layout.
    GetLegacy {
        /// Which object.
        object: LegacyObject,
        /// Which bytes.
        range: ByteRange,
    },
    /// All of a dictionary, but no more than a byte past
    /// [`DICTIONARY_BYTES_MAX`](crate::ltx::DICTIONARY_BYTES_MAX).
    GetDictionary {
        /// Which.
        id: DictionaryId,
    },
    /// Write a dictionary whole, under its name. What stands there already is the same.
    PutDictionary {
        /// Its name.
        id: DictionaryId,
        /// All of it.
        bytes: Chunk,
        /// As of a segment.
        condition: PutCondition,
    },
    /// Begin to write an object; it comes to exist only by `PutCommit`.
    PutOpen {
        /// Which object.
        object: Object,
        /// Whether an object of the name may exist then: a store that can tell refuses the commit
        /// as `AlreadyExists`. Where none is asked for, an object of the name is replaced.
        condition: PutCondition,
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
    /// Remove what puts that were never finished have left invisibly, once it is so old.
    DropUnfinished {
        /// By the store's own clock.
        older_than: Duration,
    },
}

/// When a put takes effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutCondition {
    /// Only if no object of the name exists.
    IfAbsent,
    /// In any case: for stores that cannot refuse.
    Always,
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
    /// To `ListLegacy`.
    LegacyListing {
        /// In ascending order of their names.
        entries: Vec<LegacyListed>,
        /// Whether there are more after the last.
        more: bool,
    },
    /// To `Get`, `GetLegacy` and `GetDictionary`.
    Bytes {
        /// What was asked for, or less where the object ends.
        bytes: Chunk,
        /// The length of the whole object.
        object_len: u64,
    },
    /// To `DropUnfinished`: how many were removed.
    Dropped(u64),
    /// To the others.
    Done,
}

/// What a failure means, by what the core does next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum StoreErrorKind {
    /// There is no such object. The core re-plans.
    NotFound,
    /// The key is taken (412, `EEXIST`), and this put did not take it. The core reads what is
    /// there and decides whose it is.
    AlreadyExists,
    /// A concurrent operation on the key got in the way (409); nothing happened. The core tries
    /// again.
    Conflict,
    /// It did not happen and may succeed later: throttling, 5xx and resets before any effect, no
    /// descriptors, a device error before the commit. The core tries again, slower each time.
    Retry,
    /// The fate of a put is unknown: the answer was lost, or the name is there and may not be
    /// durable. The core reads back before it does anything else.
    Ambiguous,
    /// Credentials are missing, expired or insufficient. The core says so loudly and keeps trying.
    Denied,
    /// The store is full or over quota. The core waits for room.
    NoSpace,
    /// The settings cannot work: no such bucket, a file where a directory should be. A person must
    /// act.
    Misconfigured,
    /// The store cannot do this at all. The core does without or refuses to start.
    Unsupported,
    /// The store broke its own word: a body shorter than announced, a listing out of order. The
    /// core does not use it.
    Corrupt,
}

impl StoreErrorKind {
    /// All kinds.
    pub const ALL: [StoreErrorKind; 10] = [
        StoreErrorKind::NotFound,
        StoreErrorKind::AlreadyExists,
        StoreErrorKind::Conflict,
        StoreErrorKind::Retry,
        StoreErrorKind::Ambiguous,
        StoreErrorKind::Denied,
        StoreErrorKind::NoSpace,
        StoreErrorKind::Misconfigured,
        StoreErrorKind::Unsupported,
        StoreErrorKind::Corrupt,
    ];
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreErrorKind::NotFound => "not found",
            StoreErrorKind::AlreadyExists => "exists already",
            StoreErrorKind::Conflict => "conflicting operation",
            StoreErrorKind::Retry => "failed for now",
            StoreErrorKind::Ambiguous => "outcome unknown",
            StoreErrorKind::Denied => "access denied",
            StoreErrorKind::NoSpace => "no space left",
            StoreErrorKind::Misconfigured => "misconfigured",
            StoreErrorKind::Unsupported => "not supported",
            StoreErrorKind::Corrupt => "inconsistent answer",
        })
    }
}

/// A failed request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreError {
    /// What to do about it.
    pub kind: StoreErrorKind,
    /// The cause, for people.
    pub text: String,
    /// What a person can do; empty where nothing is known to help.
    pub hint: String,
}

impl StoreError {
    /// A failure without a hint.
    pub fn new(kind: StoreErrorKind, text: impl Into<String>) -> StoreError {
        StoreError { kind, text: text.into(), hint: String::new() }
    }
}
