//! One open file of SQLite: what each I/O method does, in safe code.
//!
//! Each method asks the host for the fate of the operation, then does it, and answers with
//! the error code that SQLite's unix VFS would give. A file of a dead process answers I/O
//! errors only.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::ffi;

use super::host::{VfsFault, VfsOp};
use super::locks::{FileLocks, Level, Owner};
use super::shm::REGION_BYTES;
use super::world::{Process, ShmJoin, World};
use crate::disk::{DiskFile, ENOSPC, lock, parent};

/// An SQLite result code other than SQLITE_OK.
pub(super) type Code = i32;

/// How a file is used, from the flags of xOpen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) read_only: bool,
    /// Only main databases are locked.
    pub(super) lockable: bool,
    /// The first sync of a journal or WAL makes its name durable, too.
    pub(super) sync_name: bool,
}

pub(super) struct OpenFile {
    world: Arc<World>,
    process: Arc<Process>,
    owner: Owner,
    file: DiskFile,
    read_only: bool,
    locks: Option<Arc<Mutex<FileLocks>>>,
    shm: Mutex<Option<ShmJoin>>,
    sync_name: AtomicBool,
    persist_wal: AtomicBool,
    powersafe: AtomicBool,
}

impl OpenFile {
    pub(super) fn new(world: &Arc<World>, process: &Arc<Process>, file: DiskFile, usage: Usage) -> Self {
        process.open_files.fetch_add(1, Ordering::SeqCst);
        Self {
            owner: Owner { process: process.id, handle: world.next_id() },
            locks: usage.lockable.then(|| world.locks_of(&file)),
            world: Arc::clone(world),
            process: Arc::clone(process),
            file,
            read_only: usage.read_only,
            shm: Mutex::default(),
            sync_name: AtomicBool::new(usage.sync_name),
            persist_wal: AtomicBool::new(false),
            powersafe: AtomicBool::new(true),
        }
    }

    /// Fill `buf`, with zeros past the end of the file.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Code> {
        self.enter(VfsOp::Read)?;
        let mut done = 0;
        while done < buf.len() {
            let got = self.file.read_at(&mut buf[done..], offset + done as u64);
            match got.map_err(|_| ffi::SQLITE_IOERR_READ)? {
                0 => {
                    buf[done..].fill(0);
                    return Err(ffi::SQLITE_IOERR_SHORT_READ);
                }
                count => done += count,
            }
        }
        Ok(())
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Code> {
        self.enter(VfsOp::Write)?;
        self.writable()?;
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|error| code_of(&error, ffi::SQLITE_IOERR_WRITE))
    }

    pub(super) fn truncate(&self, len: u64) -> Result<(), Code> {
        self.enter(VfsOp::Truncate)?;
        self.writable()?;
        self.file.set_len(len).map_err(|_| ffi::SQLITE_IOERR_TRUNCATE)
    }

    pub(super) fn sync(&self) -> Result<(), Code> {
        self.enter(VfsOp::Sync)?;
        self.file.sync().map_err(|_| ffi::SQLITE_IOERR_FSYNC)?;
        if self.sync_name.load(Ordering::SeqCst) {
            let synced = self.world.disk.sync_dir(parent(self.file.path()));
            synced.map_err(|_| ffi::SQLITE_IOERR_DIR_FSYNC)?;
            self.sync_name.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    pub(super) fn size(&self) -> Result<u64, Code> {
        self.alive(ffi::SQLITE_IOERR_FSTAT)?;
        self.file.len().map_err(|_| ffi::SQLITE_IOERR_FSTAT)
    }

    pub(super) fn lock(&self, want: Level) -> Result<(), Code> {
        self.enter(VfsOp::Lock)?;
        let Some(locks) = &self.locks else {
            return Ok(());
        };
        let mut locks = lock(locks);
        self.alive(ffi::SQLITE_IOERR_LOCK)?;
        if locks.acquire(self.owner, want) { Ok(()) } else { Err(ffi::SQLITE_BUSY) }
    }

    pub(super) fn unlock(&self, to: Level) -> Result<(), Code> {
        self.alive(ffi::SQLITE_IOERR_UNLOCK)?;
        if let Some(locks) = &self.locks {
            lock(locks).release(self.owner, to);
        }
        Ok(())
    }

    pub(super) fn is_reserved(&self) -> Result<bool, Code> {
        self.alive(ffi::SQLITE_IOERR_CHECKRESERVEDLOCK)?;
        Ok(self.locks.as_ref().is_some_and(|locks| lock(locks).is_reserved()))
    }

    pub(super) fn level(&self) -> Level {
        let level = |locks: &Arc<Mutex<FileLocks>>| lock(locks).level(self.owner);
        self.locks.as_ref().map_or(Level::None, level)
    }

    pub(super) fn has_moved(&self) -> bool {
        self.file.has_moved()
    }

    pub(super) fn persist_wal(&self) -> &AtomicBool {
        &self.persist_wal
    }

    pub(super) fn powersafe(&self) -> &AtomicBool {
        &self.powersafe
    }

    pub(super) fn has_external_reader(&self) -> bool {
        let join = lock(&self.shm);
        let reader = |join: &ShmJoin| lock(&join.node).locks.has_external_reader(self.process.id);
        join.as_ref().is_some_and(reader)
    }

    /// The address of a region of the wal-index, `None` if it does not exist yet.
    pub(super) fn shm_map(
        &self,
        region: usize,
        region_bytes: usize,
        extend: bool,
    ) -> Result<Option<NonNull<std::ffi::c_void>>, Code> {
        assert_eq!(region_bytes, REGION_BYTES, "SQLite knows one size of region");
        self.enter(VfsOp::ShmMap)?;
        let mut shm = lock(&self.shm);
        if shm.is_none() {
            let joined = self.world.join_shm(&self.process, &self.file);
            *shm = Some(joined.map_err(|_| ffi::SQLITE_IOERR_SHMOPEN)?);
        }
        let join = shm.as_ref().expect("joined above");
        let mut node = lock(&join.node);
        self.alive(ffi::SQLITE_IOERR_SHMMAP)?;
        node.region(&join.map, region, extend).map_err(|_| ffi::SQLITE_IOERR_SHMMAP)
    }

    pub(super) fn shm_lock(&self, mask: u8, exclusive: bool) -> Result<(), Code> {
        self.enter(VfsOp::ShmLock)?;
        let join = lock(&self.shm);
        let join = join.as_ref().ok_or(ffi::SQLITE_IOERR_SHMLOCK)?;
        let mut node = lock(&join.node);
        self.alive(ffi::SQLITE_IOERR_SHMLOCK)?;
        if node.locks.acquire(self.owner, mask, exclusive) { Ok(()) } else { Err(ffi::SQLITE_BUSY) }
    }

    pub(super) fn shm_unlock(&self, mask: u8) -> Result<(), Code> {
        self.alive(ffi::SQLITE_IOERR_SHMLOCK)?;
        if let Some(join) = &*lock(&self.shm) {
            lock(&join.node).locks.release(self.owner, mask);
        }
        Ok(())
    }

    /// Stop using the wal-index; `delete` removes its file if no one in this process uses it.
    pub(super) fn shm_unmap(&self, delete: bool) {
        let Some(join) = lock(&self.shm).take() else {
            return;
        };
        lock(&join.node).locks.drop_handle(self.owner);
        let last = self.world.leave_shm(&self.process, &self.file, &join);
        if last && delete && self.process.is_alive() {
            // As in the unix VFS, nobody hears of a failure.
            let _ = self.world.disk.unlink(&format!("{}-shm", self.file.path()));
        }
    }

    fn writable(&self) -> Result<(), Code> {
        if self.read_only { Err(ffi::SQLITE_READONLY) } else { Ok(()) }
    }

    fn alive(&self, otherwise: Code) -> Result<(), Code> {
        if self.process.is_alive() { Ok(()) } else { Err(otherwise) }
    }

    fn enter(&self, op: VfsOp) -> Result<(), Code> {
        match self.world.fate(&self.process, op, self.file.path()) {
            None => Ok(()),
            Some(fault) => Err(code_of_fault(fault, op)),
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.shm_unmap(false);
        if let Some(locks) = self.locks.take() {
            lock(&locks).release(self.owner, Level::None);
            drop(locks);
            self.world.forget_locks(&self.file);
        }
        self.process.open_files.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The code for a fault that the host asked for.
pub(super) fn code_of_fault(fault: VfsFault, op: VfsOp) -> Code {
    match fault {
        VfsFault::Full => ffi::SQLITE_FULL,
        VfsFault::Busy => ffi::SQLITE_BUSY,
        VfsFault::Io | VfsFault::Die => match op {
            VfsOp::Open => ffi::SQLITE_CANTOPEN,
            VfsOp::Delete => ffi::SQLITE_IOERR_DELETE,
            VfsOp::Access => ffi::SQLITE_IOERR_ACCESS,
            VfsOp::Read => ffi::SQLITE_IOERR_READ,
            VfsOp::Write => ffi::SQLITE_IOERR_WRITE,
            VfsOp::Truncate => ffi::SQLITE_IOERR_TRUNCATE,
            VfsOp::Sync => ffi::SQLITE_IOERR_FSYNC,
            VfsOp::Lock => ffi::SQLITE_IOERR_LOCK,
            VfsOp::ShmMap => ffi::SQLITE_IOERR_SHMMAP,
            VfsOp::ShmLock => ffi::SQLITE_IOERR_SHMLOCK,
        },
    }
}

/// A full disk has a code of its own; everything else is the I/O error of the operation.
fn code_of(error: &io::Error, otherwise: Code) -> Code {
    if error.raw_os_error() == Some(ENOSPC) { ffi::SQLITE_FULL } else { otherwise }
}
