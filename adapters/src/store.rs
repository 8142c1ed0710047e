//! The contract between Driftless and a place that keeps objects.
//!
//! A store holds immutable objects under [`Key`]s. Four verbs: put, get, list, delete. What makes
//! the contract worth writing down is what happens when they fail:
//!
//! - **Create-if-absent is decided at commit.** Two writers on one replica are kept apart by the
//!   store refusing the second of two creations of one key; a store that checks first and writes
//!   later lets both pass when they overlap, and there are then two histories (opendal's `fs`
//!   service did so in 100 of 100 races). A store that cannot do it must say so in
//!   [`Capabilities`] and refuse [`PutCondition::IfAbsent`] as `Unsupported`.
//! - **An unknown fate is [`StoreErrorKind::Ambiguous`], never a failure.** A put whose answer was
//!   lost may have happened. If it were reported as failed, the writer would cut the same
//!   identifier again with other bytes, and meet its own earlier object as a rival's.
//! - **Nothing is visible before the commit, and nothing partial ever.** An aborted or dropped put
//!   leaves no object, and neither does a crash.
//! - **What a get or a list has shown may be relied on**, whoever put it there. A writer reads
//!   back an ambiguous put and then calls it replicated; a directory must have synced the name
//!   before it shows the object.
//! - **A completed delete may yet be undone** by a crash or a lagging replica; the object then
//!   reappears whole. Callers plan from listings, not from memory.
//!
//! Stores do not retry, wait, back off or clean up unasked ([`Store::drop_unfinished`]). Deadlines are the caller's: it drops
//! the future. A dropped `commit` has an unknown fate, like an ambiguous one.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use driftless_core::ids::Wall;
use driftless_core::machine;
pub use driftless_core::machine::{PART_BYTES_MAX, StoreErrorKind};

use crate::keys::Key;

/// A future that may move between threads, as methods of an `Arc<dyn Store>` return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place that keeps objects. Safe to use from several tasks and threads at once.
///
/// Dropping a future abandons the operation: an abandoned put is not visible unless its commit had
/// begun, and an abandoned delete may or may not have happened.
pub trait Store: Send + Sync {
    /// Begins an object. Nothing is visible until [`PutBody::commit`], which also decides the
    /// condition; a store may refuse with `AlreadyExists` earlier when it happens to know.
    ///
    /// `Unsupported` for a condition that [`Store::capabilities`] does not claim.
    fn put<'a>(
        &'a self,
        key: &'a Key,
        condition: PutCondition,
    ) -> BoxFuture<'a, Result<Box<dyn PutBody>, StoreError>>;

    /// Opens an object, or a part of it, for reading. `NotFound` is reported here and not by the
    /// body. What of the range lies outside the object is left out: a range past the end or of
    /// length zero yields an empty body, with [`GetBody::object_len`] still told.
    fn get<'a>(
        &'a self,
        key: &'a Key,
        range: ByteRange,
    ) -> BoxFuture<'a, Result<Box<dyn GetBody>, StoreError>>;

    /// Up to `limit` (at least 1) objects whose keys start with `prefix`, which is text and need
    /// not end at a slash, in ascending order of the keys' bytes, from the first key greater than
    /// `start_after`, which need not exist. An empty prefix lists everything; one that nothing
    /// matches yields an empty page.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a Key>,
        limit: usize,
    ) -> BoxFuture<'a, Result<ListPage, StoreError>>;

    /// Removes an object; succeeds where there is none.
    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StoreError>>;

    /// What the store can promise; the same each time.
    fn capabilities(&self) -> Capabilities;

    /// Gives up puts that were begun longer than `older_than` ago by the store's own clock and
    /// never ended, below `prefix` as in [`Store::list`], and says how many. They are invisible
    /// and take room: what a process that was killed leaves behind. A put that is still under way
    /// somewhere is lost with them, so `older_than` must exceed what any put takes.
    ///
    /// A store that leaves nothing of the kind, or clears it away itself, has nothing to do here.
    fn drop_unfinished<'a>(
        &'a self,
        prefix: &'a str,
        older_than: Duration,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        let _ = (prefix, older_than);
        Box::pin(async { Ok(0) })
    }
}

/// An object being written. Dropping it without [`PutBody::commit`] leaves nothing visible; what
/// it leaves invisibly (a temporary file, an unfinished multipart upload) is the store's to hide.
pub trait PutBody: Send {
    /// Adds the next bytes, at most [`PART_BYTES_MAX`] and possibly none. Panics on more. After an
    /// error the object cannot be committed any more.
    fn write(&mut self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Makes the object visible and durable, whole and at once, if the condition holds at that
    /// moment. `AlreadyExists`, `Conflict`; `Ambiguous` where the fate is unknown. Every other
    /// kind promises that the object was not created by this put and never will be.
    ///
    /// Answers with the version that [`GetBody::version`] tells of what was put, if the store names
    /// one in its answer; whoever needs it where there is none reads the object.
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Option<Version>, StoreError>>;

    /// Gives the object up. An error concerns invisible leftovers only.
    fn abort(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>>;
}

/// An object, or a part of one, being read.
pub trait GetBody: Send {
    /// The length of the whole object in bytes, whatever the range.
    fn object_len(&self) -> u64;

    /// Bytes of the range that [`GetBody::next`] has yet to yield.
    fn remaining(&self) -> u64;

    /// Which content this is, for [`PutCondition::Matches`]; told by stores that claim
    /// [`Capabilities::swap`].
    fn version(&self) -> Option<Version> {
        None
    }

    /// The next bytes, 1 to [`PART_BYTES_MAX`]; `None` once all of the range was yielded and not
    /// before: a body that ends early is an error (`Retry` where a connection broke, `Corrupt`
    /// where the object itself is shorter than it was said to be).
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>>;
}

/// When a put may take effect.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PutCondition {
    /// Only if no object has the key at the moment of the commit.
    IfAbsent,
    /// Only if the key's object is still the one that [`GetBody::version`] named; `AlreadyExists`
    /// if it is another, and also if there is none.
    Matches(Version),
    /// In any case, replacing what has the key.
    Always,
}

impl From<machine::PutCondition> for PutCondition {
    fn from(condition: machine::PutCondition) -> PutCondition {
        match condition {
            machine::PutCondition::IfAbsent => PutCondition::IfAbsent,
            machine::PutCondition::Always => PutCondition::Always,
        }
    }
}

/// Names one content of one key, in the store's own words (an entity tag, a generation).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version(pub Box<str>);

/// Which bytes of an object to read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ByteRange {
    /// From `offset`, up to `len` bytes or to the end.
    From {
        /// First byte, counted from 0; may lie past the end.
        offset: u64,
        /// How many bytes at most; `None` for all that follow.
        len: Option<u64>,
    },
    /// The last `n` bytes, or all of a shorter object.
    Tail(u64),
}

impl ByteRange {
    /// The whole object.
    pub const ALL: ByteRange = ByteRange::From { offset: 0, len: None };

    /// `len` bytes from `offset`.
    pub const fn at(offset: u64, len: u64) -> ByteRange {
        ByteRange::From { offset, len: Some(len) }
    }

    /// The first byte and the byte after the last, within an object of `object_len` bytes; equal
    /// where nothing is left.
    pub fn within(self, object_len: u64) -> (u64, u64) {
        match self {
            ByteRange::From { offset, len } => {
                let start = offset.min(object_len);
                let end = len.map_or(object_len, |len| start.saturating_add(len).min(object_len));
                (start, end)
            }
            ByteRange::Tail(n) => (object_len.saturating_sub(n), object_len),
        }
    }
}

/// One object in a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListEntry {
    /// Its key.
    pub key: Key,
    /// Its length in bytes.
    pub len: u64,
    /// When it was last put, by the store's clock, which may be wrong; `None` if the store does
    /// not say.
    pub modified: Option<Wall>,
}

/// A part of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListPage {
    /// Ascending by key, without duplicates; at most the limit, and a store may return fewer.
    pub entries: Vec<ListEntry>,
    /// Whether keys may follow. A page that says so holds at least one entry, after which to go
    /// on; only a page that denies it ends the listing, however short.
    pub more: bool,
}

/// What a store promises. The battery checks what is claimed and reports the rest as unclaimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// [`PutCondition::IfAbsent`] is exact: of any number of concurrent creations of a key one
    /// succeeds. Without it a replica may have a single writer only, and no failover.
    pub create_if_absent: bool,
    /// An object can be replaced on the condition that it is still the one read before
    /// (compare-and-swap), as a lease needs: [`PutCondition::Matches`] is exact.
    pub swap: bool,
    /// [`ListEntry::modified`] is filled.
    pub modified: bool,
}

/// A failed operation of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreError {
    /// For the core.
    pub kind: StoreErrorKind,
    /// What it was about: a key, a path or a bucket.
    pub subject: String,
    /// What happened, in the words of whoever noticed, lower-case; may be empty.
    pub cause: String,
    /// What a person may do about it, if anything is known to help.
    pub hint: Option<String>,
}

impl StoreError {
    /// An error without a hint.
    pub fn new(kind: StoreErrorKind, subject: impl fmt::Display, cause: impl Into<String>) -> StoreError {
        StoreError { kind, subject: subject.to_string(), cause: cause.into(), hint: None }
    }

    /// The same with advice, a full sentence fragment such as "free some space or move the replica".
    pub fn with_hint(mut self, hint: impl Into<String>) -> StoreError {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.kind)?;
        if self.cause.is_empty() || self.cause == self.kind.to_string() {
            return Ok(());
        }
        write!(f, " ({})", self.cause)
    }
}

impl std::error::Error for StoreError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_object() {
        let check =
            |range: ByteRange, object_len, span| assert_eq!(range.within(object_len), span, "{range:?}");
        check(ByteRange::ALL, 10, (0, 10));
        check(ByteRange::at(3, 4), 10, (3, 7));
        check(ByteRange::at(3, 0), 10, (3, 3));
        check(ByteRange::at(8, 4), 10, (8, 10));
        check(ByteRange::at(12, 4), 10, (10, 10));
        check(ByteRange::at(9, u64::MAX), 10, (9, 10));
        check(ByteRange::Tail(3), 10, (7, 10));
        check(ByteRange::Tail(30), 10, (0, 10));
        check(ByteRange::Tail(0), 10, (10, 10));
        check(ByteRange::ALL, 0, (0, 0));
    }

    #[test]
    fn messages_name_the_subject_once() {
        let error = StoreError::new(StoreErrorKind::NoSpace, "ltx/0/a", "no space left on device");
        assert_eq!(error.to_string(), "ltx/0/a: no space left (no space left on device)");
        let error = StoreError::new(StoreErrorKind::NotFound, "ltx/0/a", "");
        assert_eq!(error.to_string(), "ltx/0/a: not found");
    }
}
