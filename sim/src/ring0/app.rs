//! The application: SQLite in a process of its own, one small operation after the other.
//!
//! Each committed transaction counts one number up and first looks whether the number is the one
//! that was acknowledged last. A commit whose end the application did not learn leaves two
//! numbers possible, and the next look tells which. So a commit that goes missing is noticed by
//! the application itself, as one would notice it in life.
//!
//! The busy timeout is zero: in a world of one thread nobody else runs while SQLite waits. The
//! loop tries a busy operation again.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::host::DRIFTLESS;
use super::misfortune::Misfortune;
use super::sqlite::{Connection, SqlError, SqlErrorKind, Sqlite};
use super::summary::Contents;
use super::violation::Violation;
use crate::disk::{Disk, lock};
use crate::scenario::parts::checkpoint_mode;
use crate::vfs::{VfsFault, VfsOp};

/// The database's path.
pub const PATH: &str = "/a.db";
/// Its WAL's.
pub const WAL_PATH: &str = "/a.db-wal";
/// Its wal-index's.
pub const SHM_PATH: &str = "/a.db-shm";
/// Another database that is renamed over it, and an older copy of it.
const OTHER: &str = "/other.db";
const BACKUP: &str = "/backup.db";
/// The application's process.
pub const PROCESS: &str = "app";

/// The mode of a checkpoint, as SQL names it.
pub type CheckpointMode = &'static str;

/// What a transaction does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// Adds rows.
    Insert {
        /// How many.
        rows: u32,
        /// Bytes in each.
        bytes: u32,
    },
    /// Rewrites rows.
    Update {
        /// One out of so many.
        of: u32,
    },
    /// Deletes rows.
    Delete {
        /// One out of so many.
        of: u32,
    },
    /// Begins and commits without a change.
    Nothing,
}

/// One operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AppOp {
    /// Does nothing, so that time passes.
    Rest,
    /// Opens the database, creating it with this page size if it is not there.
    Open {
        /// The page size of a new database.
        page_bytes: u32,
    },
    /// Closes every connection in order.
    Close,
    /// A whole transaction.
    Write(Work),
    /// Begins one and leaves it open.
    Begin(Work),
    /// Commits the one that is open.
    Commit,
    /// Rolls it back.
    Rollback,
    /// `VACUUM`.
    Vacuum,
    /// `PRAGMA wal_checkpoint`.
    Checkpoint(#[serde(deserialize_with = "checkpoint_mode")] CheckpointMode),
    /// `PRAGMA wal_autocheckpoint`.
    Autocheckpoint(u32),
    /// A second connection takes a snapshot and keeps it.
    ReaderBegin,
    /// It lets go.
    ReaderEnd,
    /// SIGKILL.
    Kill,
    /// A transaction in whose sync the process dies.
    DieInCommit(Work),
    /// A transaction whose sync fails.
    FailCommit(Work),
    /// Out of WAL mode, one transaction there, and back; refused while others are attached.
    Rollbackward,
    /// A page size by `VACUUM` in rollback mode; refused while others are attached.
    PageSize(u32),
    /// Deletes the database and makes a new one.
    Recreate {
        /// The page size of a new database.
        page_bytes: u32,
    },
    /// Puts another database in its place by rename.
    RenameOver {
        /// The page size of a new database.
        page_bytes: u32,
    },
    /// Keeps a copy of the database.
    Backup,
    /// Puts the copy in its place.
    RestoreBackup,
    /// A transaction part of which is undone, by a savepoint.
    Savepoint(Work),
    /// `PRAGMA synchronous`, from now on.
    Synchronous(Synchronous),
    /// A transaction of another process.
    OtherWrite(Work),
    /// Deletes the database and leaves it so.
    Delete,
}

/// How an operation ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AppEnd {
    /// It wrote: what the files say now is committed.
    Committed,
    /// It may have written, and if so, that is committed.
    Perhaps,
    /// Nothing was committed, but what opening a new database commits.
    Done,
    /// Something may have been written that does not count.
    Failed(String),
    /// Somebody holds a lock.
    Busy,
}

/// The application.
pub struct App {
    writer: Option<Box<dyn Connection>>,
    reader: Option<Box<dyn Connection>>,
    in_transaction: bool,
    autocheckpoint: u32,
    /// The number of the last commit.
    acknowledged: i64,
    /// Numbers that may have been committed instead.
    in_doubt: Vec<i64>,
    /// What was acknowledged before a commit that recovery brought to light.
    unsynced: Vec<i64>,
    kept: Option<i64>,
    /// What was found missing.
    missing: Option<String>,
    fault: Arc<Mutex<Option<VfsFault>>>,
    /// Whether commits are synced.
    durable: bool,
    /// What was asked for beyond that.
    synchronous: Option<Synchronous>,
    /// Commits may not be synced that were made since the last that was.
    loose: bool,
    /// Another process has committed since this one looked.
    others: bool,
    /// Nothing may be synced at all.
    careless: bool,
    /// Power loss may have taken commits that were never synced.
    anything_goes: bool,
    /// Commits that were acknowledged.
    pub commits: u64,
    /// Operations that found a lock in their way.
    pub busy: u64,
}

mod memory;
mod more;

pub use memory::Memory;
pub use more::Synchronous;

type Sql = Result<AppEnd, SqlError>;

impl App {
    /// An application that has not begun. It sets the fault hook of its machine, for the
    /// replicator's process as well: `misfortune` says what becomes of an operation there.
    pub fn new(sqlite: &dyn Sqlite, durable: bool, misfortune: Misfortune) -> App {
        let fault: Arc<Mutex<Option<VfsFault>>> = Arc::default();
        let armed = Arc::clone(&fault);
        sqlite.set_fault_hook(Arc::new(move |process: &str, op, path: &str| {
            if process == DRIFTLESS {
                return misfortune.strikes(op);
            }
            let hit = process == PROCESS && op == VfsOp::Sync && path.ends_with("-wal");
            if hit { lock(&armed).take() } else { None }
        }));
        App {
            writer: None,
            reader: None,
            in_transaction: false,
            autocheckpoint: 1_000,
            acknowledged: 0,
            in_doubt: Vec::new(),
            unsynced: Vec::new(),
            kept: None,
            missing: None,
            fault,
            durable,
            synchronous: None,
            loose: false,
            others: false,
            careless: false,
            anything_goes: false,
            commits: 0,
            busy: 0,
        }
    }

    /// The machine has lost power.
    pub fn power_lost(&mut self) {
        self.forget_connections();
        self.anything_goes |= !self.durable || self.loose;
        self.loose = false;
        self.in_doubt.append(&mut self.unsynced);
    }

    /// Whether a snapshot is being held.
    pub fn is_reading(&self) -> bool {
        self.reader.is_some()
    }

    /// Whether a transaction is open.
    pub fn is_writing(&self) -> bool {
        self.in_transaction
    }

    /// Carries out one operation.
    ///
    /// # Errors
    /// When the application finds that a commit of its own is missing.
    pub fn perform(&mut self, sqlite: &dyn Sqlite, op: AppOp) -> Result<AppEnd, Violation> {
        let end = self.run(sqlite, op);
        *lock(&self.fault) = None;
        match end {
            Ok(end) => {
                if end == AppEnd::Committed {
                    self.loose = !self.durable;
                    self.commits += 1;
                }
                if self.writer.is_some() && !sqlite.is_alive(PROCESS) {
                    // It died in the checkpoint that follows a commit.
                    self.forget_connections();
                }
                Ok(end)
            }
            Err(error) => self.sort(sqlite, error),
        }
    }

    fn sort(&mut self, sqlite: &dyn Sqlite, error: SqlError) -> Result<AppEnd, Violation> {
        if let Some(text) = self.missing.take() {
            return Err(Violation::new("source unharmed", text));
        }
        if !sqlite.is_alive(PROCESS) {
            self.forget_connections();
            return Ok(AppEnd::Failed(error.to_string()));
        }
        let busy = error.kind == SqlErrorKind::Busy;
        self.in_transaction &= busy;
        if let Some(writer) = &mut self.writer
            && !self.in_transaction
            && !writer.is_autocommit()
        {
            let _ = writer.rollback();
        }
        match error.kind {
            SqlErrorKind::Busy => {
                self.busy += 1;
                Ok(AppEnd::Busy)
            }
            SqlErrorKind::Io => Ok(AppEnd::Failed(error.text)),
            SqlErrorKind::Other => {
                Err(Violation::new("source unharmed", format!("the application got: {error}")))
            }
        }
    }

    fn run(&mut self, sqlite: &dyn Sqlite, op: AppOp) -> Sql {
        let finishes = matches!(
            op,
            AppOp::Rest
                | AppOp::Kill
                | AppOp::Commit
                | AppOp::Rollback
                | AppOp::ReaderBegin
                | AppOp::ReaderEnd
        );
        if self.in_transaction && !finishes {
            self.rollback()?;
        }
        match op {
            // What making a database commits is seen for itself.
            AppOp::DieInCommit(_) | AppOp::FailCommit(_) if !sqlite.disk().exists(PATH) => {
                self.open(sqlite, 1_024)
            }
            AppOp::Rest => Ok(AppEnd::Done),
            AppOp::Open { page_bytes } => self.open(sqlite, page_bytes),
            AppOp::Close => self.close(),
            AppOp::Write(work) => self.write(sqlite, work, None),
            AppOp::Begin(work) => self.begin(sqlite, work),
            AppOp::Commit => self.commit(),
            AppOp::Rollback => self.rollback(),
            AppOp::Vacuum => {
                self.opened(sqlite)?.vacuum()?;
                Ok(AppEnd::Committed)
            }
            AppOp::Checkpoint(mode) => {
                self.opened(sqlite)?.checkpoint(mode)?;
                Ok(AppEnd::Done)
            }
            AppOp::Autocheckpoint(pages) => {
                self.autocheckpoint = pages;
                self.set_autocheckpoint()
            }
            AppOp::ReaderBegin => self.reader_begin(sqlite),
            AppOp::ReaderEnd => {
                self.reader = None;
                Ok(AppEnd::Done)
            }
            AppOp::Kill => {
                sqlite.kill_process(PROCESS);
                self.forget_connections();
                Ok(AppEnd::Failed("killed".into()))
            }
            AppOp::DieInCommit(work) => self.write(sqlite, work, Some(VfsFault::Die)),
            AppOp::FailCommit(work) => self.write(sqlite, work, Some(VfsFault::Io)),
            AppOp::Rollbackward => self.rollbackward(sqlite, None),
            AppOp::PageSize(bytes) => self.rollbackward(sqlite, Some(bytes)),
            AppOp::Recreate { page_bytes } => self.recreate(sqlite, page_bytes),
            AppOp::RenameOver { page_bytes } => self.rename_over(sqlite, page_bytes),
            AppOp::Backup => self.backup(sqlite),
            AppOp::RestoreBackup => self.restore_backup(sqlite),
            AppOp::Savepoint(work) => self.savepoint(sqlite, work),
            AppOp::Synchronous(mode) => self.set_synchronous(mode),
            AppOp::OtherWrite(work) => self.other_write(sqlite, work),
            AppOp::Delete => self.delete(sqlite),
        }
    }

    fn forget_connections(&mut self) {
        (self.writer, self.reader, self.in_transaction) = (None, None, false);
    }

    fn open(&mut self, sqlite: &dyn Sqlite, page_bytes: u32) -> Sql {
        if self.writer.is_some() {
            return Ok(AppEnd::Done);
        }
        let fresh = !sqlite.disk().exists(PATH);
        let mut writer = sqlite.open(PROCESS, PATH)?;
        if fresh {
            (self.acknowledged, self.in_doubt) = (0, Vec::new());
        }
        writer.prepare(page_bytes, self.durable)?;
        self.writer = Some(writer);
        self.set_autocheckpoint()?;
        self.apply_synchronous()?;
        Ok(AppEnd::Perhaps)
    }

    fn set_autocheckpoint(&mut self) -> Sql {
        if let Some(writer) = &mut self.writer {
            writer.set_autocheckpoint(self.autocheckpoint)?;
        }
        Ok(AppEnd::Done)
    }

    fn opened(&mut self, sqlite: &dyn Sqlite) -> Result<&mut dyn Connection, SqlError> {
        if self.writer.is_none() {
            self.open(sqlite, 1_024)?;
        }
        Ok(self.writer())
    }

    /// The connection of a transaction that is open.
    fn writer(&mut self) -> &mut dyn Connection {
        self.writer.as_mut().expect("a transaction is open").as_mut()
    }

    fn close(&mut self) -> Sql {
        self.reader = None;
        self.in_transaction = false;
        if let Some(writer) = self.writer.take() {
            writer.close()?;
        }
        Ok(AppEnd::Done)
    }

    fn begin(&mut self, sqlite: &dyn Sqlite, work: Work) -> Sql {
        self.opened(sqlite)?.begin()?;
        self.in_transaction = true;
        let done = self.look().and_then(|()| {
            let n = self.acknowledged;
            self.writer().work(work, n)
        });
        if done.is_err() {
            self.in_transaction = false;
        }
        done?;
        Ok(AppEnd::Done)
    }

    /// Within a transaction: is the last commit there?
    fn look(&mut self) -> Result<(), SqlError> {
        let found = self.writer().number()?;
        if core::mem::take(&mut self.anything_goes) && found <= self.acknowledged {
            (self.acknowledged, self.in_doubt) = (found, Vec::new());
        }
        if found != self.acknowledged && !self.in_doubt.contains(&found) {
            let text = format!(
                "the database is at commit {found}, {} was acknowledged and {:?} in doubt",
                self.acknowledged, self.in_doubt
            );
            self.missing = Some(text.clone());
            return Err(SqlError { kind: SqlErrorKind::Other, text });
        }
        if found != self.acknowledged {
            // It was never synced: power loss may still take it.
            self.unsynced.push(self.acknowledged);
            (self.acknowledged, self.in_doubt) = (found, Vec::new());
        }
        Ok(())
    }

    fn commit(&mut self) -> Sql {
        if !self.in_transaction {
            return Ok(AppEnd::Done);
        }
        let next = self.writer().number()?;
        if next != self.acknowledged {
            self.in_doubt = vec![next];
        }
        self.writer().commit()?;
        self.in_transaction = false;
        if next == self.acknowledged {
            return Ok(AppEnd::Done);
        }
        // Only a commit that wrote has put its frames where a phantom's may have been.
        (self.acknowledged, self.in_doubt, self.unsynced) = (next, Vec::new(), Vec::new());
        Ok(AppEnd::Committed)
    }

    fn rollback(&mut self) -> Sql {
        if core::mem::take(&mut self.in_transaction) {
            self.writer().rollback()?;
        }
        Ok(AppEnd::Done)
    }

    fn write(&mut self, sqlite: &dyn Sqlite, work: Work, fault: Option<VfsFault>) -> Sql {
        self.begin(sqlite, work)?;
        *lock(&self.fault) = fault;
        let end = self.commit();
        if end.is_err() && sqlite.is_alive(PROCESS) {
            self.in_transaction = false;
        }
        end
    }

    fn reader_begin(&mut self, sqlite: &dyn Sqlite) -> Sql {
        if self.writer.is_some() && self.reader.is_none() {
            let mut reader = sqlite.open(PROCESS, PATH)?;
            reader.begin_snapshot()?;
            self.reader = Some(reader);
        }
        Ok(AppEnd::Done)
    }

    fn rollbackward(&mut self, sqlite: &dyn Sqlite, page_bytes: Option<u32>) -> Sql {
        self.reader = None;
        if core::mem::take(&mut self.others) {
            // SQLite keeps what it has cached when it leaves WAL mode, where a commit need not change
            // the counter by which it would notice in the other mode.
            self.opened(sqlite)?.number()?;
        }
        let writer = self.opened(sqlite)?;
        if !writer.leave_wal_mode()? {
            return Ok(AppEnd::Done);
        }
        if let Some(page_bytes) = page_bytes {
            writer.set_page_size(page_bytes)?;
        }
        let written = self.write(sqlite, Work::Insert { rows: 2, bytes: 300 }, None);
        self.opened(sqlite)?.enter_wal_mode()?;
        written
    }

    fn delete_files(disk: &Disk) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let _ = disk.unlink(&format!("{PATH}{suffix}"));
        }
        disk.sync_dir("/").expect("the disk has no faults here");
    }

    fn recreate(&mut self, sqlite: &dyn Sqlite, page_bytes: u32) -> Sql {
        self.close()?;
        App::delete_files(sqlite.disk());
        self.open(sqlite, page_bytes)
    }

    fn rename_over(&mut self, sqlite: &dyn Sqlite, page_bytes: u32) -> Sql {
        self.close()?;
        let disk = sqlite.disk();
        let _ = disk.unlink(OTHER);
        let mut other = sqlite.open(PROCESS, OTHER)?;
        other.prepare(page_bytes, true)?;
        other.fill(1_000_000)?;
        other.close()?;
        App::delete_files(disk);
        disk.rename(OTHER, PATH).and_then(|()| disk.sync_dir("/")).expect("the disk has no faults here");
        (self.acknowledged, self.in_doubt) = (1_000_000, Vec::new());
        self.open(sqlite, page_bytes)
    }

    fn backup(&mut self, sqlite: &dyn Sqlite) -> Sql {
        let _ = sqlite.disk().unlink(BACKUP);
        self.opened(sqlite)?.vacuum_into(BACKUP)?;
        let number = self.opened(sqlite)?.number()?;
        self.kept = Some(number).filter(|_| self.in_doubt.is_empty());
        Ok(AppEnd::Done)
    }

    fn restore_backup(&mut self, sqlite: &dyn Sqlite) -> Sql {
        let Some(kept) = self.kept.take() else { return Ok(AppEnd::Done) };
        self.close()?;
        App::delete_files(sqlite.disk());
        let disk = sqlite.disk();
        let synced = disk.open(BACKUP).and_then(|file| file.sync());
        synced
            .and_then(|()| disk.rename(BACKUP, PATH))
            .and_then(|()| disk.sync_dir("/"))
            .expect("no faults here");
        (self.acknowledged, self.in_doubt) = (kept, Vec::new());
        self.open(sqlite, 1_024)
    }

    /// The end of a run: everything is in order, and no trace of us is in it.
    ///
    /// # Errors
    /// When something is not.
    pub fn check_source(&mut self, sqlite: &dyn Sqlite) -> Result<(), Violation> {
        let fail = |text: String| Violation::new("source unharmed", text);
        let sql = |error: SqlError| fail(error.to_string());
        let writer = self.opened(sqlite).map_err(sql)?;
        let answer = writer.integrity().map_err(sql)?;
        if answer != "ok" {
            return Err(fail(answer));
        }
        let traces = writer.traces().map_err(sql)?;
        if traces > 0 {
            return Err(fail(format!("{traces} objects of ours stand in the schema")));
        }
        self.look().map_err(sql)
    }

    /// What the database holds.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn contents(&mut self, sqlite: &dyn Sqlite) -> Result<Contents, Violation> {
        let sql = |error: SqlError| Violation::new("source unharmed", error.to_string());
        let writer = self.opened(sqlite).map_err(sql)?;
        let commits = writer.number().map_err(sql)? as u64;
        Ok(Contents { commits, size: writer.total().map_err(sql)? })
    }
}
