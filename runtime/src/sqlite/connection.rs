//! One connection behind a safe type: the only place that holds a `sqlite3*`.
//!
//! Everything a link says to SQLite is one of five statements, prepared when first used (1.4 KB
//! each) and kept, so that moving a pin parses nothing. None of them loads the schema: `PRAGMA
//! application_id` reads page 1 and is the cheapest statement that takes a snapshot. It names no
//! table, so SQLite never prepares it again when the schema changes.

use std::ffi::{CStr, c_int};
use std::ptr::{self, NonNull};

use rusqlite::ffi;

use super::code::{OpResult, SqliteCode};
use super::file::DbFile;

/// The statements of a link.
#[derive(Clone, Copy)]
pub(super) enum Sql {
    Begin,
    BeginImmediate,
    Commit,
    Rollback,
    /// Takes the snapshot of the transaction that `Begin` opened.
    Touch,
}

const SQL: [&CStr; 5] = [c"BEGIN", c"BEGIN IMMEDIATE", c"COMMIT", c"ROLLBACK", c"PRAGMA application_id"];

/// What a connection holds of the database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TxnState {
    /// No snapshot and no lock.
    None,
    /// A snapshot: a pin, if its read mark is above 0.
    Read,
    /// The write lock.
    Write,
}

/// Frames seen by a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CheckpointCounts {
    /// Frames in the WAL; -1 when nothing was done, because the database is not in WAL mode or
    /// the connection has not read yet and does not know.
    pub log: i32,
    /// Frames of those that are in the database file; -1 when unknown.
    pub backfilled: i32,
}

/// Heap bytes that SQLite holds for one connection, beside its own few kilobytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SlotMemory {
    /// Pages in the cache.
    pub cache: u32,
    /// The parsed schema: stays 0, however many tables there are.
    pub schema: u32,
    /// Prepared statements.
    pub statements: u32,
}

/// How far a checkpoint goes.
#[derive(Clone, Copy)]
pub(super) enum CheckpointMode {
    Passive,
    Truncate,
}

/// An open connection with its statements. Dropping it leaves the WAL as it is.
pub(super) struct Connection {
    db: NonNull<ffi::sqlite3>,
    statements: [*mut ffi::sqlite3_stmt; SQL.len()],
    /// The database file.
    main: NonNull<ffi::sqlite3_file>,
    /// What `JOURNAL_POINTER` answers while no WAL is open: the rollback journal's place.
    rollback_journal: *mut ffi::sqlite3_file,
    /// The first region of the wal-index once it was mapped; it stays mapped until close.
    pub(super) index: Option<NonNull<u32>>,
}

// SAFETY: a NOMUTEX connection may move between threads and must not be used by two at once.
// Every call needs `&Connection` or `&mut Connection`, and the raw pointers keep it from `Sync`.
unsafe impl Send for Connection {}

impl Connection {
    /// Opens for reading and writing, never creating; reads nothing of the file.
    pub(super) fn open(path: &CStr, vfs: Option<&CStr>) -> Result<Connection, SqliteCode> {
        let flags = ffi::SQLITE_OPEN_READWRITE
            | ffi::SQLITE_OPEN_NOMUTEX
            | ffi::SQLITE_OPEN_PRIVATECACHE
            | ffi::SQLITE_OPEN_NOFOLLOW
            | ffi::SQLITE_OPEN_EXRESCODE;
        let mut db = ptr::null_mut();
        let vfs = vfs.map_or(ptr::null(), CStr::as_ptr);
        // SAFETY: both strings are NUL-terminated and outlive the call; `db` is written to.
        let opened = unsafe { ffi::sqlite3_open_v2(path.as_ptr(), &mut db, flags, vfs) };
        let db = NonNull::new(db).ok_or(SqliteCode::from_raw(ffi::SQLITE_NOMEM))?;
        let mut connection = Connection {
            db,
            statements: [ptr::null_mut(); SQL.len()],
            main: NonNull::dangling(),
            rollback_journal: ptr::null_mut(),
            index: None,
        };
        // From here on a failure drops the connection, which closes it.
        SqliteCode::check(opened)?;
        connection.configure()?;
        connection.main = NonNull::new(connection.file_pointer(ffi::SQLITE_FCNTL_FILE_POINTER)?)
            .ok_or(SqliteCode::MISUSE)?;
        connection.rollback_journal = connection.file_pointer(ffi::SQLITE_FCNTL_JOURNAL_POINTER)?;
        Ok(connection)
    }

    fn configure(&mut self) -> OpResult {
        let (none, off): (*mut u8, c_int) = (ptr::null_mut(), 0);
        // SAFETY: LOOKASIDE takes a buffer (none), a slot size and a number of slots; nothing has
        // used the lookaside memory of a connection that was opened a moment ago.
        let lookaside = unsafe {
            ffi::sqlite3_db_config(self.db.as_ptr(), ffi::SQLITE_DBCONFIG_LOOKASIDE, none, off, off)
        };
        SqliteCode::check(lookaside)?;
        self.set_leave_wal(true)?;
        // SAFETY: the connection is open; 0 removes the hook that checkpoints after commits.
        SqliteCode::check(unsafe { ffi::sqlite3_wal_autocheckpoint(self.db.as_ptr(), 0) })
    }

    fn statement(&mut self, sql: Sql) -> Result<NonNull<ffi::sqlite3_stmt>, SqliteCode> {
        let statement = &mut self.statements[sql as usize];
        if let Some(prepared) = NonNull::new(*statement) {
            return Ok(prepared);
        }
        let (text, no_tail) = (SQL[sql as usize], ptr::null_mut());
        // SAFETY: the text is NUL-terminated, -1 says so; `statement` receives the result.
        let prepared = unsafe {
            ffi::sqlite3_prepare_v3(
                self.db.as_ptr(),
                text.as_ptr(),
                -1,
                ffi::SQLITE_PREPARE_PERSISTENT,
                statement,
                no_tail,
            )
        };
        SqliteCode::check(prepared)?;
        NonNull::new(*statement).ok_or(SqliteCode::MISUSE)
    }

    /// Whether the last close leaves `-wal` and `-shm` alone, or checkpoints and deletes them.
    pub(super) fn set_leave_wal(&mut self, leave: bool) -> OpResult {
        let (on, out): (c_int, *mut c_int) = (c_int::from(leave), ptr::null_mut());
        // SAFETY: NO_CKPT_ON_CLOSE takes an int and a pointer that may be null.
        SqliteCode::check(unsafe {
            ffi::sqlite3_db_config(self.db.as_ptr(), ffi::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, on, out)
        })
    }

    /// How often SQLite had to prepare the snapshot statement again.
    #[cfg(test)]
    fn reprepared(&mut self) -> c_int {
        let touch = self.statement(Sql::Touch).expect("it prepares");
        // SAFETY: as in `run`; 0 leaves the counter as it is.
        unsafe { ffi::sqlite3_stmt_status(touch.as_ptr(), ffi::SQLITE_STMTSTATUS_REPREPARE, 0) }
    }

    /// Runs one statement to its first row or its end.
    pub(super) fn run(&mut self, sql: Sql) -> OpResult {
        let statement = self.statement(sql)?;
        // SAFETY: it was prepared by this connection, and only `drop` finalizes it.
        let stepped = unsafe { ffi::sqlite3_step(statement.as_ptr()) };
        // SAFETY: as above. The answer repeats the step's.
        unsafe { ffi::sqlite3_reset(statement.as_ptr()) };
        SqliteCode::check(stepped)
    }

    /// Copies frames into the database file. The counts stand only when the call succeeds.
    pub(super) fn checkpoint(&mut self, mode: CheckpointMode) -> Result<CheckpointCounts, SqliteCode> {
        let mode = match mode {
            CheckpointMode::Passive => ffi::SQLITE_CHECKPOINT_PASSIVE,
            CheckpointMode::Truncate => ffi::SQLITE_CHECKPOINT_TRUNCATE,
        };
        let (mut log, mut backfilled) = (-1, -1);
        // SAFETY: the connection is open, the name is a C string, both counts are written to.
        let done = unsafe {
            ffi::sqlite3_wal_checkpoint_v2(
                self.db.as_ptr(),
                c"main".as_ptr(),
                mode,
                &mut log,
                &mut backfilled,
            )
        };
        SqliteCode::check(done)?;
        Ok(CheckpointCounts { log, backfilled })
    }

    /// Whether SQLite fell back to opening the file for reading only.
    pub(super) fn is_read_only(&self) -> bool {
        // SAFETY: the connection is open and "main" names its database.
        unsafe { ffi::sqlite3_db_readonly(self.db.as_ptr(), c"main".as_ptr()) != 0 }
    }

    /// What the connection holds.
    pub(super) fn txn_state(&self) -> TxnState {
        // SAFETY: as for `is_read_only`.
        match unsafe { ffi::sqlite3_txn_state(self.db.as_ptr(), c"main".as_ptr()) } {
            ffi::SQLITE_TXN_NONE => TxnState::None,
            ffi::SQLITE_TXN_READ => TxnState::Read,
            _ => TxnState::Write,
        }
    }

    /// Whether no BEGIN is open, not even one that holds nothing.
    pub(super) fn is_autocommit(&self) -> bool {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_get_autocommit(self.db.as_ptr()) != 0 }
    }

    /// What SQLite says it holds.
    pub(super) fn memory(&self) -> SlotMemory {
        let status = |op: c_int| {
            let (mut now, mut most) = (0, 0);
            // SAFETY: the connection is open and both numbers are written to.
            unsafe { ffi::sqlite3_db_status(self.db.as_ptr(), op, &mut now, &mut most, 0) };
            u32::try_from(now).unwrap_or(0)
        };
        SlotMemory {
            cache: status(ffi::SQLITE_DBSTATUS_CACHE_USED),
            schema: status(ffi::SQLITE_DBSTATUS_SCHEMA_USED),
            statements: status(ffi::SQLITE_DBSTATUS_STMT_USED),
        }
    }

    /// Whether the path leads elsewhere than to the file that is open.
    pub(super) fn has_moved(&self) -> Result<bool, SqliteCode> {
        let mut moved: c_int = 0;
        self.control(ffi::SQLITE_FCNTL_HAS_MOVED, (&raw mut moved).cast())?;
        Ok(moved != 0)
    }

    /// The database file.
    pub(super) fn main_file(&self) -> DbFile<'_> {
        // SAFETY: SQLite opened the file with the connection and closes it with it.
        unsafe { DbFile::new(self.main) }
    }

    /// The WAL file; `None` until the connection's first read in WAL mode.
    pub(super) fn wal_file(&self) -> Option<DbFile<'_>> {
        let journal = self.file_pointer(ffi::SQLITE_FCNTL_JOURNAL_POINTER).ok()?;
        if journal == self.rollback_journal {
            return None;
        }
        // SAFETY: another answer than the rollback journal's is the file of the open WAL, which
        // stays open until the connection closes or itself leaves WAL mode, which it never does.
        NonNull::new(journal).map(|file| unsafe { DbFile::new(file) })
    }

    fn file_pointer(&self, op: c_int) -> Result<*mut ffi::sqlite3_file, SqliteCode> {
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        self.control(op, (&raw mut file).cast())?;
        Ok(file)
    }

    fn control(&self, op: c_int, answer: *mut std::ffi::c_void) -> OpResult {
        // SAFETY: the connection is open; each caller passes a pointer to what its op writes.
        SqliteCode::check(unsafe {
            ffi::sqlite3_file_control(self.db.as_ptr(), c"main".as_ptr(), op, answer)
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for statement in self.statements {
            // SAFETY: prepared by this connection or null, which is allowed; finalized once.
            unsafe { ffi::sqlite3_finalize(statement) };
        }
        // SAFETY: no statement is left, so the close succeeds, ending any transaction; `db` is
        // not used afterwards. SQLite wants the close even after a failed open.
        unsafe { ffi::sqlite3_close(self.db.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_schema_prepares_nothing_again() {
        super::super::set_up_process();
        let path = std::env::temp_dir().join(format!("driftless-reprepare-{}.db", std::process::id()));
        let application = rusqlite::Connection::open(&path).expect("open");
        let name = std::ffi::CString::new(path.to_str().expect("plain")).expect("plain");
        let mut connection = Connection::open(&name, None).expect("open");
        for n in 0..10 {
            application.execute_batch(&format!("CREATE TABLE t{n}(a)")).expect("create");
            connection.run(Sql::Begin).expect("begin");
            connection.run(Sql::Touch).expect("touch");
            connection.run(Sql::Commit).expect("commit");
        }
        assert_eq!(connection.reprepared(), 0);
        drop((connection, application));
        std::fs::remove_file(path).expect("remove");
    }
}
