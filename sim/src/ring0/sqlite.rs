//! SQLite on one simulated machine: what the application and the replicator's link use.
//!
//! A world does not know whether the library itself runs on its disk ([`Library`]: workload B) or
//! a model of it (workload A). Both have processes that can be killed, connections with the few
//! operations that the application needs, and a port that answers the requests of a replicator.
//! Both ask the same fault hook about each operation on a file, by the names of the VFS's methods.

mod library;

use std::fmt;
use std::sync::Arc;

use driftless_core::machine::{SourceError, SourceReply, SourceRequest};

pub use library::Library;

use super::app::{Synchronous, Work};
use super::plan::{Plan, Workload};
use crate::disk::{Disk, Saved, SimClock, Unsynced};
use crate::model::Model;
use crate::vfs::{SimSqlite, VfsFaultHook};

/// A machine with SQLite.
pub trait Sqlite {
    /// The machine's disk.
    fn disk(&self) -> &Disk;

    /// Consults `hook` before each operation on a file from now on.
    fn set_fault_hook(&self, hook: Arc<VfsFaultHook>);

    /// Opens a database for reading and writing in a process, creating it if need be. The process
    /// starts with its first connection.
    ///
    /// # Errors
    /// As SQLite says.
    fn open(&self, process: &str, path: &str) -> SqlResult<Box<dyn Connection>>;

    /// The port through which a replicator in a process, which starts with it, reaches a database.
    fn source(&self, process: &str, path: &str) -> Box<dyn Source>;

    /// Whether a process has started and not died.
    fn is_alive(&self, process: &str) -> bool;

    /// Whether a living connection has the wal-index of a database mapped. While none has, the
    /// next opener recovers it from the files.
    fn wal_index_lives(&self, path: &str) -> bool;

    /// SIGKILL.
    fn kill_process(&self, process: &str);

    /// Every process dies, and `survives` decides about all that was not synced.
    fn power_loss(&self, survives: &mut dyn FnMut(&Unsynced<'_>) -> bool);

    /// The machine comes back as it was once: every process dies, and the disk is as it was saved.
    fn roll_back(&self, saved: &Saved);

    /// Another machine of the same kind, with a disk and a seed of its own.
    fn another(&self, disk: Disk, clock: &SimClock, seed: u64) -> Box<dyn Sqlite>;

    /// The library, where it is not a model.
    fn library(&self) -> Option<&SimSqlite> {
        None
    }
}

/// The machine of a plan, whose randomness follows from a seed.
pub fn machine(plan: &Plan, seed: u64, disk: Disk, clock: &SimClock) -> Box<dyn Sqlite> {
    let pending_byte = plan.config.pending_byte;
    match plan.workload {
        Workload::Library => Box::new(Library::new(disk, clock.clone(), seed, pending_byte)),
        Workload::Model => Box::new(Model::new(disk, seed, pending_byte, true)),
    }
}

/// A replicator's port to its database.
pub trait Source {
    /// Carries out one request.
    ///
    /// # Errors
    /// As SQLite or the system says, sorted for the core.
    fn perform(&mut self, request: &SourceRequest) -> Result<SourceReply, SourceError>;
}

/// One connection of the application. Its busy timeout is zero.
///
/// The database holds rows that [`Connection::work`] adds, rewrites and deletes, and a number that
/// counts the transactions which did so.
pub trait Connection {
    /// Makes sure of WAL mode and of the tables, in a database that has this page size if it is
    /// new. If `durable`, each commit is synced.
    ///
    /// # Errors
    /// As SQLite says.
    fn prepare(&mut self, page_bytes: u32, durable: bool) -> SqlResult<()>;

    /// `PRAGMA wal_autocheckpoint`.
    ///
    /// # Errors
    /// As SQLite says.
    fn set_autocheckpoint(&mut self, pages: u32) -> SqlResult<()>;

    /// `BEGIN IMMEDIATE`.
    ///
    /// # Errors
    /// As SQLite says.
    fn begin(&mut self) -> SqlResult<()>;

    /// Takes a snapshot and keeps it.
    ///
    /// # Errors
    /// As SQLite says.
    fn begin_snapshot(&mut self) -> SqlResult<()>;

    /// The number.
    ///
    /// # Errors
    /// As SQLite says.
    fn number(&mut self) -> SqlResult<i64>;

    /// Does the work of one transaction, the `n`-th, and counts the number up.
    ///
    /// # Errors
    /// As SQLite says.
    fn work(&mut self, work: Work, n: i64) -> SqlResult<()>;

    /// Adds two rows and sets the number.
    ///
    /// # Errors
    /// As SQLite says.
    fn fill(&mut self, number: i64) -> SqlResult<()>;

    /// Within a transaction: does something and undoes it, by a savepoint.
    ///
    /// # Errors
    /// As SQLite says.
    fn undo_some(&mut self) -> SqlResult<()>;

    /// `PRAGMA synchronous`.
    ///
    /// # Errors
    /// As SQLite says.
    fn set_synchronous(&mut self, mode: Synchronous) -> SqlResult<()>;

    /// `COMMIT`.
    ///
    /// # Errors
    /// As SQLite says.
    fn commit(&mut self) -> SqlResult<()>;

    /// `ROLLBACK`.
    ///
    /// # Errors
    /// As SQLite says.
    fn rollback(&mut self) -> SqlResult<()>;

    /// `VACUUM`.
    ///
    /// # Errors
    /// As SQLite says.
    fn vacuum(&mut self) -> SqlResult<()>;

    /// `VACUUM INTO`.
    ///
    /// # Errors
    /// As SQLite says.
    fn vacuum_into(&mut self, path: &str) -> SqlResult<()>;

    /// `PRAGMA wal_checkpoint`.
    ///
    /// # Errors
    /// As SQLite says; a checkpoint that is kept from its end says so in its counts.
    fn checkpoint(&mut self, mode: &str) -> SqlResult<Counts>;

    /// `PRAGMA journal_mode=DELETE`, every commit there being durable. Answers whether it is so.
    ///
    /// # Errors
    /// As SQLite says.
    fn leave_wal_mode(&mut self) -> SqlResult<bool>;

    /// `PRAGMA journal_mode=WAL`.
    ///
    /// # Errors
    /// As SQLite says.
    fn enter_wal_mode(&mut self) -> SqlResult<()>;

    /// `PRAGMA page_size` and `VACUUM`, which changes it outside of WAL mode only.
    ///
    /// # Errors
    /// As SQLite says.
    fn set_page_size(&mut self, page_bytes: u32) -> SqlResult<()>;

    /// Whether no transaction is open.
    fn is_autocommit(&self) -> bool;

    /// What is wrong with the database, or "ok".
    ///
    /// # Errors
    /// As SQLite says.
    fn integrity(&mut self) -> SqlResult<String>;

    /// How much the rows hold, which no random byte has a say in.
    ///
    /// # Errors
    /// As SQLite says.
    fn total(&mut self) -> SqlResult<u64>;

    /// How many things in it are named after a replicator.
    ///
    /// # Errors
    /// As SQLite says.
    fn traces(&mut self) -> SqlResult<i64>;

    /// Closes it in order.
    ///
    /// # Errors
    /// As SQLite says.
    fn close(self: Box<Self>) -> SqlResult<()>;
}

/// What a checkpoint answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Whether something kept it from its end.
    pub busy: bool,
    /// Frames in the WAL; -1 where there is none.
    pub log: i64,
    /// Frames of those that are in the database file.
    pub backfilled: i64,
}

/// What an operation of SQLite answers.
pub type SqlResult<T> = Result<T, SqlError>;

/// A failed operation of SQLite.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SqlError {
    /// What the application makes of it.
    pub kind: SqlErrorKind,
    /// The cause, for people.
    pub text: String,
}

/// The kinds of failures that the application tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SqlErrorKind {
    /// `SQLITE_BUSY` or `SQLITE_LOCKED`.
    Busy,
    /// `SQLITE_IOERR`.
    Io,
    /// All else.
    Other,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for SqlError {}
