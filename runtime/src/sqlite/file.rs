//! The files of a connection, read through SQLite's own descriptors.
//!
//! A descriptor of our own on the database or on `-shm` would drop SQLite's locks when it closes
//! (see `registry`), so pages, frames and the wal-index are read through the VFS methods of the
//! descriptors that SQLite keeps anyway.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rusqlite::ffi;

use super::code::{OpResult, SqliteCode};

/// Bytes at the start of the wal-index that say what is committed: two header copies of 48
/// bytes and 40 bytes of checkpoint information.
pub const INDEX_HEADER_BYTES: usize = 136;

/// Bytes of one wal-index region: SQLite's `WALINDEX_PGSZ`.
const INDEX_REGION_BYTES: c_int = 32_768;

/// The first of the four reader locks above mark 0, `WAL_READ_LOCK(1)`.
const READ_LOCK_1: c_int = 4;
/// Marks 1 to 4.
const READ_LOCKS: c_int = 4;

/// An open file of a connection that lives for `'c`.
pub(super) struct DbFile<'c> {
    file: NonNull<ffi::sqlite3_file>,
    methods: &'c ffi::sqlite3_io_methods,
    connection: PhantomData<&'c super::connection::Connection>,
}

impl<'c> DbFile<'c> {
    /// # Safety
    /// `file` must be open, with its methods set, for all of `'c`.
    pub(super) unsafe fn new(file: NonNull<ffi::sqlite3_file>) -> DbFile<'c> {
        // SAFETY: the caller's promise; methods are static tables of the VFS.
        let methods = unsafe { &*(*file.as_ptr()).pMethods };
        DbFile { file, methods, connection: PhantomData }
    }

    /// Reads at `offset` and answers how many bytes the file has there, at most `buf.len()`.
    ///
    /// `xRead` fills with zeros what lies past the end and does not say where that was. A short
    /// read therefore asks for the size and reads again exactly that much; should the file shrink
    /// between the two, no byte is certain and the answer is 0.
    pub(super) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, SqliteCode> {
        if buf.is_empty() {
            return Ok(0);
        }
        let offset = i64::try_from(offset).map_err(|_| SqliteCode::MISUSE)?;
        if self.read_exact(offset, buf)? {
            return Ok(buf.len());
        }
        let there = usize::try_from(self.size()?.saturating_sub(offset)).unwrap_or(0).min(buf.len());
        if there == 0 || !self.read_exact(offset, &mut buf[..there])? {
            return Ok(0);
        }
        Ok(there)
    }

    /// Whether the file had all the bytes.
    fn read_exact(&self, offset: i64, buf: &mut [u8]) -> Result<bool, SqliteCode> {
        let read = self.methods.xRead.ok_or(SqliteCode::MISUSE)?;
        let len = c_int::try_from(buf.len()).map_err(|_| SqliteCode::MISUSE)?;
        // SAFETY: the file is open and `buf` has room for `len` bytes.
        match unsafe { read(self.file.as_ptr(), buf.as_mut_ptr().cast(), len, offset) } {
            ffi::SQLITE_OK => Ok(true),
            ffi::SQLITE_IOERR_SHORT_READ => Ok(false),
            failed => Err(SqliteCode::from_raw(failed)),
        }
    }

    /// Bytes in the file now.
    pub(super) fn size(&self) -> Result<i64, SqliteCode> {
        let size_of = self.methods.xFileSize.ok_or(SqliteCode::MISUSE)?;
        let mut size = 0;
        // SAFETY: the file is open and `size` is written to.
        SqliteCode::check(unsafe { size_of(self.file.as_ptr(), &mut size) })?;
        Ok(size)
    }

    /// The start of the wal-index if its first region exists; never extends it.
    ///
    /// Only for a database file whose connection has a WAL open: without one the VFS would create
    /// `-shm` here.
    pub(super) fn map_index(&self) -> Result<Option<NonNull<u32>>, SqliteCode> {
        self.map_index_region(0)
    }

    /// A region of the wal-index if it exists, as [`map_index`](DbFile::map_index).
    fn map_index_region(&self, region: c_int) -> Result<Option<NonNull<u32>>, SqliteCode> {
        // Methods of version 1 end before this field.
        let map = if self.methods.iVersion >= 2 { self.methods.xShmMap } else { None };
        let map = map.ok_or(SqliteCode::MISUSE)?;
        let mut start = ptr::null_mut();
        // SAFETY: the file is open, the 0 asks for a region without extending the file, and `start` is
        // written to.
        SqliteCode::check(unsafe { map(self.file.as_ptr(), region, INDEX_REGION_BYTES, 0, &mut start) })?;
        Ok(NonNull::new(start.cast()))
    }

    /// The pages of `count` frames from `first` on, as [`Link::frame_pages`](super::Link::frame_pages).
    ///
    /// A region is 4,096 page numbers and, behind them, the table by which SQLite finds one. The first
    /// begins with the head, which takes the place of 34 of them.
    pub(super) fn frame_pages(&self, first: u32, count: u32) -> Result<Vec<u8>, SqliteCode> {
        const HEAD_WORDS: u32 = INDEX_HEADER_BYTES as u32 / 4;
        const REGION_FRAMES: u32 = INDEX_REGION_BYTES as u32 / 8;
        let mut pages = Vec::with_capacity(count as usize * 4);
        let (mut at, end) = (first - 1 + HEAD_WORDS, first - 1 + HEAD_WORDS + count);
        while at < end {
            let region = at / REGION_FRAMES;
            let Some(start) = self.map_index_region(region as c_int)? else { break };
            for word in at % REGION_FRAMES..(end - region * REGION_FRAMES).min(REGION_FRAMES) {
                // SAFETY: `start` is what SQLite mapped a moment ago, 32 KB that stay mapped as long as a
                // connection on the file is open, which this is; other processes write to it.
                let word = unsafe { AtomicU32::from_ptr(start.as_ptr().add(word as usize)) };
                pages.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
            }
            at = (region + 1) * REGION_FRAMES;
        }
        Ok(pages)
    }

    /// Whether no connection, here or elsewhere, reads at a mark above 0 at this moment.
    pub(super) fn probe_readers(&self) -> Result<bool, SqliteCode> {
        let lock = if self.methods.iVersion >= 2 { self.methods.xShmLock } else { None };
        let lock = lock.ok_or(SqliteCode::MISUSE)?;
        let shm_lock = |action: c_int| -> OpResult {
            // SAFETY: the file is open, and the range lies within SQLite's eight lock bytes.
            let answer = unsafe {
                lock(self.file.as_ptr(), READ_LOCK_1, READ_LOCKS, action | ffi::SQLITE_SHM_EXCLUSIVE)
            };
            SqliteCode::check(answer)
        };
        match shm_lock(ffi::SQLITE_SHM_LOCK) {
            Ok(()) => shm_lock(ffi::SQLITE_SHM_UNLOCK).map(|()| true),
            Err(code) if code == SqliteCode::from_raw(ffi::SQLITE_BUSY) => Ok(false),
            Err(code) => Err(code),
        }
    }
}

/// Copies the head of the wal-index, other processes writing to it meanwhile.
///
/// The bytes are read in the order first header copy, checkpoint information, second header copy.
/// A writer that starts the WAL again changes the second copy, the first, and then sets the
/// backfill to 0; so whoever sees equal copies of the old header sees no backfill of the new
/// generation. Read last, it could be seen, and a backfill of 0 below an old header looks exactly
/// like a pin. The other way round is possible for an instant, an old backfill above `mxFrame` of a
/// new header, and looks like no pin.
///
/// # Safety
/// `index` must come from [`DbFile::map_index`] of a connection that is still open.
pub(super) unsafe fn copy_index(index: NonNull<u32>) -> [u8; INDEX_HEADER_BYTES] {
    const HEADER_WORDS: usize = 12;
    let mut bytes = [0; INDEX_HEADER_BYTES];
    let mut copy = |words: core::ops::Range<usize>| {
        for word in words {
            // SAFETY: the caller's promise: the region is 32 KB, mapped shared and aligned to a
            // page, so each word is valid; one torn by another process shows as unequal copies.
            let value = unsafe { AtomicU32::from_ptr(index.as_ptr().add(word)) }.load(Ordering::Relaxed);
            bytes[word * 4..word * 4 + 4].copy_from_slice(&value.to_ne_bytes());
        }
        fence(Ordering::SeqCst);
    };
    copy(0..HEADER_WORDS);
    copy(2 * HEADER_WORDS..INDEX_HEADER_BYTES / 4);
    copy(HEADER_WORDS..2 * HEADER_WORDS);
    bytes
}
