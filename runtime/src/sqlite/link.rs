//! [`Link`]: the attachment to one live database.

use core::fmt;
use std::ffi::{CString, NulError};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::code::{OpResult, SqliteCode};
use super::connection::{CheckpointCounts, CheckpointMode, Connection, SlotMemory, Sql, TxnState};
use super::file::{INDEX_HEADER_BYTES, copy_index};
use super::probe::{self, ProbeError, SourceFacts};
use super::process::set_up_process;
use super::registry::{Claim, FileId};

/// One of the two connections of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Slot {
    /// Open as long as the link; its descriptors serve the reads.
    A,
    /// Opened when a pin moves or the write lock is needed.
    B,
}

/// How a link opens its database.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct LinkOptions {
    /// A registered VFS instead of the operating system's. Its files are not the kernel's, so no
    /// claim is taken and no path is looked at: for simulators.
    pub vfs: Option<CString>,
}

/// What the last close does to the WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// Leaves `-wal` and `-shm` as they are.
    LeaveWal,
    /// Lets SQLite checkpoint and delete them if no other connection exists.
    Plain,
}

/// What a read of the wal-index found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexRead {
    /// Header copy 1, header copy 2, checkpoint information, as they lie in memory (integers in
    /// the machine's byte order). The copies may differ: a commit was under way.
    Present([u8; INDEX_HEADER_BYTES]),
    /// There is no wal-index yet: slot A has not read in WAL mode, or `-shm` is empty.
    Absent,
}

/// Why a link cannot be had, or not any more.
#[derive(Debug)]
pub enum LinkError {
    /// The path is not absolute, or holds a NUL byte.
    BadPath(PathBuf),
    /// The path cannot be looked at.
    Probe(ProbeError),
    /// No file is at the path.
    NotFound(PathBuf),
    /// This process has a link on the file, perhaps by another name, or reads its header now.
    AlreadyLinked(FileId),
    /// Another file took the path while it was opened.
    Replaced,
    /// SQLite could open the file for reading only, where `BEGIN IMMEDIATE` locks nothing.
    ReadOnly,
    /// SQLite refused.
    Sqlite(SqliteCode),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::BadPath(path) => write!(f, "not an absolute path: {}", path.display()),
            LinkError::Probe(_) => write!(f, "the database file cannot be examined"),
            LinkError::NotFound(path) => write!(f, "no database at {}", path.display()),
            LinkError::AlreadyLinked(id) => {
                write!(f, "device {} inode {} is open in this process already", id.dev, id.ino)
            }
            LinkError::Replaced => write!(f, "another file took the path while it was opened"),
            LinkError::ReadOnly => write!(f, "the database can be opened for reading only"),
            LinkError::Sqlite(_) => write!(f, "sqlite refused"),
        }
    }
}

impl core::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            LinkError::Probe(error) => Some(error),
            LinkError::Sqlite(code) => Some(code),
            _ => None,
        }
    }
}

impl From<SqliteCode> for LinkError {
    fn from(code: SqliteCode) -> LinkError {
        LinkError::Sqlite(code)
    }
}

impl From<NulError> for LinkError {
    fn from(error: NulError) -> LinkError {
        LinkError::BadPath(PathBuf::from(String::from_utf8_lossy(&error.into_vec()).into_owned()))
    }
}

/// Up to two connections to one live database, and the files read through them.
///
/// Each method is one operation that answers what happened; none retries, orders or refuses for
/// safety's sake, which is the core's business. Asking a slot that is closed answers
/// [`SqliteCode::MISUSE`]. Dropping a link leaves the WAL as [`Close::LeaveWal`] does.
///
/// `Send`, and used by one thread at a time: its connections have no mutex.
pub struct Link {
    // Declared before `claim`: the claim ends only when both connections are closed.
    a: Option<Connection>,
    b: Option<Connection>,
    path: PathBuf,
    path_c: CString,
    options: LinkOptions,
    claim: Option<Claim>,
}

impl Link {
    /// Opens slot A and reads nothing: database, `-wal` and `-shm` stay as they are until the
    /// first [`begin_read`](Link::begin_read).
    ///
    /// `path` must be absolute and free of symbolic links ([`SourceFacts::realpath`]): SQLite
    /// answers `SQLITE_CANTOPEN_SYMLINK` otherwise.
    ///
    /// # Errors
    /// [`LinkError::AlreadyLinked`] while this process has the file open under any name,
    /// [`LinkError::ReadOnly`] where writing is not allowed; the rest as SQLite or the system says.
    pub fn open(path: &Path, options: LinkOptions) -> Result<Link, LinkError> {
        set_up_process();
        if !path.is_absolute() {
            return Err(LinkError::BadPath(path.to_path_buf()));
        }
        let path_c = CString::new(path.as_os_str().as_bytes())?;
        let claim = match options.vfs {
            Some(_) => None,
            None => {
                let id = identify(path)?;
                Some((Claim::take(id).ok_or(LinkError::AlreadyLinked(id))?, id))
            }
        };
        let connection = Connection::open(&path_c, options.vfs.as_deref())?;
        if connection.is_read_only() {
            return Err(LinkError::ReadOnly);
        }
        if let Some((_, id)) = &claim
            && identify(path)? != *id
        {
            return Err(LinkError::Replaced);
        }
        let claim = claim.map(|(claim, _)| claim);
        Ok(Link { a: Some(connection), b: None, path: path.to_path_buf(), path_c, options, claim })
    }

    /// Opens a slot; nothing happens if it is open. Nothing is read.
    ///
    /// # Errors
    /// As SQLite says; [`LinkError::ReadOnly`] as for [`Link::open`].
    pub fn open_slot(&mut self, slot: Slot) -> Result<(), LinkError> {
        if self.slot(slot).is_some() {
            return Ok(());
        }
        let connection = Connection::open(&self.path_c, self.options.vfs.as_deref())?;
        if connection.is_read_only() {
            return Err(LinkError::ReadOnly);
        }
        *self.slot_mut(slot) = Some(connection);
        Ok(())
    }

    /// Closes a slot, ending its transaction and leaving the WAL; nothing happens if it is closed.
    pub fn close_slot(&mut self, slot: Slot) {
        *self.slot_mut(slot) = None;
    }

    /// Closes both slots.
    ///
    /// # Errors
    /// For [`Close::Plain`], when SQLite refuses to change what a close does; the link is closed
    /// all the same and the WAL left.
    pub fn close(mut self, how: Close) -> OpResult {
        let mut set = Ok(());
        for connection in [&mut self.a, &mut self.b].into_iter().flatten() {
            set = set.and(connection.set_leave_wal(how == Close::LeaveWal));
        }
        set
    }

    // --- transactions ---

    /// Takes a snapshot: `BEGIN`, then `PRAGMA application_id` as the first access.
    ///
    /// All or nothing: if the access fails, the empty `BEGIN` is undone before the answer. In WAL
    /// mode the slot's first call creates `-wal` and `-shm` if they are missing.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn begin_read(&mut self, slot: Slot) -> OpResult {
        let connection = self.connection_mut(slot)?;
        connection.run(Sql::Begin)?;
        let touched = connection.run(Sql::Touch);
        if touched.is_err() && !connection.is_autocommit() {
            connection.run(Sql::Rollback)?;
        }
        touched
    }

    /// Drops the snapshot: `COMMIT`.
    ///
    /// # Errors
    /// As SQLite says; `SQLITE_ERROR` when no transaction is open.
    pub fn end_read(&mut self, slot: Slot) -> OpResult {
        self.connection_mut(slot)?.run(Sql::Commit)
    }

    /// Takes the write lock, and a snapshot with it: `BEGIN IMMEDIATE`.
    ///
    /// # Errors
    /// `Busy` at once when another connection holds the lock; otherwise as SQLite says.
    pub fn begin_immediate(&mut self, slot: Slot) -> OpResult {
        self.connection_mut(slot)?.run(Sql::BeginImmediate)
    }

    /// Ends any transaction: `ROLLBACK`. Writes nothing.
    ///
    /// # Errors
    /// As SQLite says; `SQLITE_ERROR` when no transaction is open.
    pub fn rollback(&mut self, slot: Slot) -> OpResult {
        self.connection_mut(slot)?.run(Sql::Rollback)
    }

    /// What the slot holds, for after a failed or doubtful operation; `None` for a closed slot.
    pub fn in_transaction(&self, slot: Slot) -> TxnState {
        self.slot(slot).map_or(TxnState::None, Connection::txn_state)
    }

    /// Whether a `BEGIN` is open on the slot, even one that holds nothing.
    pub fn in_begin(&self, slot: Slot) -> bool {
        self.slot(slot).is_some_and(|connection| !connection.is_autocommit())
    }

    /// Whether the slot's connection is open.
    pub fn is_open(&self, slot: Slot) -> bool {
        self.slot(slot).is_some()
    }

    /// Heap bytes that SQLite holds for the slot; all zero for a closed one.
    pub fn memory(&self, slot: Slot) -> SlotMemory {
        self.slot(slot).map_or(SlotMemory::default(), Connection::memory)
    }

    // --- checkpoints ---

    /// Backfills what no reader needs, without waiting. The other slot may hold the write lock.
    ///
    /// A slot that has never read answers counts of -1 and has done nothing: SQLite looks for a
    /// WAL only when a connection reads.
    ///
    /// # Errors
    /// `Busy` while another checkpoint runs, `Locked` while the slot itself is in a transaction;
    /// otherwise as SQLite says.
    pub fn checkpoint_passive(&mut self, slot: Slot) -> Result<CheckpointCounts, SqliteCode> {
        self.connection_mut(slot)?.checkpoint(CheckpointMode::Passive)
    }

    /// Backfills everything and empties the WAL file. Always `Busy` while we hold the write lock
    /// or a mark above 0 ourselves.
    ///
    /// # Errors
    /// `Busy` when a reader or a writer stands in the way; otherwise as SQLite says.
    pub fn checkpoint_truncate(&mut self, slot: Slot) -> Result<CheckpointCounts, SqliteCode> {
        self.connection_mut(slot)?.checkpoint(CheckpointMode::Truncate)
    }

    /// Whether no connection anywhere reads at a mark above 0: takes the locks `READ1..4`
    /// exclusively through slot A and gives them back at once.
    ///
    /// `false` as well while one of our own slots reads at such a mark. Readers that begin in
    /// the microseconds between find the marks busy and try again.
    ///
    /// # Errors
    /// As the VFS says; `SQLITE_IOERR_SHMLOCK` before slot A's first read.
    pub fn probe_readers(&mut self) -> Result<bool, SqliteCode> {
        self.connection_mut(Slot::A)?.main_file().probe_readers()
    }

    // --- reading what is there ---

    /// The head of the wal-index as it lies in memory, through slot A. No system call, but for
    /// the first time.
    ///
    /// # Errors
    /// As the VFS says; `ReadOnly` when `-shm` cannot be written.
    pub fn read_index(&mut self) -> Result<IndexRead, SqliteCode> {
        let connection = self.connection_mut(Slot::A)?;
        if connection.index.is_none() && connection.wal_file().is_some() {
            connection.index = connection.main_file().map_index()?;
        }
        let Some(index) = connection.index else { return Ok(IndexRead::Absent) };
        // SAFETY: it was mapped by this connection, which is open, and regions of the wal-index
        // stay mapped until the last connection on the file closes.
        Ok(IndexRead::Present(unsafe { copy_index(index) }))
    }

    /// Reads `buf.len()` bytes of the WAL at `offset` through slot A, in one call, and answers
    /// how many there were. 0 too when slot A has no WAL open.
    ///
    /// # Errors
    /// As the VFS says.
    pub fn read_wal_into(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, SqliteCode> {
        self.connection_mut(Slot::A)?.wal_file().map_or(Ok(0), |wal| wal.read_at(offset, buf))
    }

    /// Reads parts of the WAL, each an offset and a length, one behind the other into `buf`, which is
    /// as long as all of them; answers how many bytes there were before the file ended.
    ///
    /// # Errors
    /// As the VFS says.
    pub fn read_wal_parts_into(&mut self, parts: &[(u64, u32)], buf: &mut [u8]) -> Result<usize, SqliteCode> {
        let Some(wal) = self.connection_mut(Slot::A)?.wal_file() else { return Ok(0) };
        let mut there = 0;
        for (offset, len) in parts {
            let read = wal.read_at(*offset, &mut buf[there..there + *len as usize])?;
            there += read;
            if read < *len as usize {
                break;
            }
        }
        Ok(there)
    }

    /// The pages of `count` frames from `first` on, as the wal-index has them: four bytes each, in the
    /// byte order of this machine; fewer where it ends. No system call, but for the first time that a
    /// part of the wal-index is looked at.
    ///
    /// # Errors
    /// As the VFS says.
    pub fn frame_pages(&mut self, first: u32, count: u32) -> Result<Vec<u8>, SqliteCode> {
        let connection = self.connection_mut(Slot::A)?;
        match connection.wal_file() {
            Some(_) => connection.main_file().frame_pages(first, count),
            None => Ok(Vec::new()),
        }
    }

    /// As [`read_wal_into`](Link::read_wal_into), into a vector of `len` bytes or fewer.
    ///
    /// # Errors
    /// As the VFS says.
    pub fn read_wal(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, SqliteCode> {
        collect(len, |buf| self.read_wal_into(offset, buf))
    }

    /// Reads `buf.len()` bytes of the database file at `offset` through slot A, in one call, past
    /// the page cache of SQLite, and answers how many there were.
    ///
    /// # Errors
    /// As the VFS says.
    pub fn read_pages_into(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, SqliteCode> {
        self.connection_mut(Slot::A)?.main_file().read_at(offset, buf)
    }

    /// As [`read_pages_into`](Link::read_pages_into), into a vector of `len` bytes or fewer.
    ///
    /// # Errors
    /// As the VFS says.
    pub fn read_pages(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, SqliteCode> {
        collect(len, |buf| self.read_pages_into(offset, buf))
    }

    /// Whether the path leads elsewhere than to the file that slot A has open.
    ///
    /// # Errors
    /// `SQLITE_NOTFOUND` from a VFS that cannot tell.
    pub fn has_moved(&mut self) -> Result<bool, SqliteCode> {
        self.connection_mut(Slot::A)?.has_moved()
    }

    /// What `stat` says about the path now, without opening the database.
    ///
    /// # Errors
    /// As the system says.
    pub fn facts(&mut self) -> Result<SourceFacts, ProbeError> {
        probe::stat_facts(&self.path)
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that was opened; `None` under a VFS of one's own.
    pub fn file_id(&self) -> Option<FileId> {
        self.claim.as_ref().map(Claim::file)
    }

    fn slot(&self, slot: Slot) -> Option<&Connection> {
        match slot {
            Slot::A => self.a.as_ref(),
            Slot::B => self.b.as_ref(),
        }
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut Option<Connection> {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }

    fn connection_mut(&mut self, slot: Slot) -> Result<&mut Connection, SqliteCode> {
        self.slot_mut(slot).as_mut().ok_or(SqliteCode::MISUSE)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("path", &self.path)
            .field("file", &self.file_id())
            .field("a", &self.a.as_ref().map(Connection::txn_state))
            .field("b", &self.b.as_ref().map(Connection::txn_state))
            .finish_non_exhaustive()
    }
}

fn identify(path: &Path) -> Result<FileId, LinkError> {
    let file = probe::stat_file(path).map_err(LinkError::Probe)?;
    Ok(file.ok_or_else(|| LinkError::NotFound(path.to_path_buf()))?.id)
}

fn collect(
    len: usize,
    read: impl FnOnce(&mut [u8]) -> Result<usize, SqliteCode>,
) -> Result<Vec<u8>, SqliteCode> {
    let mut bytes = vec![0; len];
    let there = read(&mut bytes)?;
    bytes.truncate(there);
    Ok(bytes)
}
