//! One connection: locks on the database file, the snapshot, pages read and written.
//!
//! A connection reads through the WAL or, outside of WAL mode, from the file alone, and writes by
//! frames or by way of a rollback journal ([`journal`]). Few changed pages stay in memory before
//! they are spilled, as with SQLite under a small cache.

mod journal;
mod transaction;

use std::rc::Rc;

use super::code::Code;
use super::machine::{File, Machine, Process, Usage};
use super::wal::{Mode, Synchronous, Wal};
use crate::ring0::reading::{be16, be32};
use crate::ring0::sqlite::Counts;
use crate::vfs::locks::Level;
use journal::Journal;

/// Changed pages that stay in memory.
const DIRTY_MAX: usize = 20;

/// What a connection holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Holds {
    Nothing,
    Snapshot,
    WriteLock,
}

/// A connection to a database.
pub(super) struct Pager {
    pub(super) machine: Rc<Machine>,
    process: Rc<Process>,
    path: String,
    pub(super) db: Rc<File>,
    pub(super) wal: Option<Wal>,
    pub(super) holds: Holds,
    pub(super) synchronous: Synchronous,
    /// Pages in the WAL after a commit at which it checkpoints; 0 for never.
    pub(super) autocheckpoint: u32,
    /// Whether its close may checkpoint and delete the WAL.
    pub(super) checkpoints_at_close: bool,
    /// Whether the connection takes the database for one in WAL mode.
    pub(super) wal_mode: bool,
    /// WAL mode is being left.
    no_wal: bool,
    pub(super) page_bytes: usize,
    /// Pages in the database, as the transaction has it.
    pages: u32,
    pages_before: u32,
    /// By page number.
    cache: Vec<Option<Box<[u8]>>>,
    /// Changed pages, the longest unspilled first.
    dirty: Vec<u32>,
    spilled: bool,
    /// Whether the transaction has written into the file beside its journal.
    db_written: bool,
    /// The change counter where page 1 was read.
    change: u32,
    journal: Option<Journal>,
    closed: bool,
}

impl Pager {
    /// Opens a database, creating the file if `create`. The header is read for its page size,
    /// under no lock.
    pub(super) fn open(
        machine: &Rc<Machine>,
        process: &Rc<Process>,
        path: &str,
        create: bool,
    ) -> Result<Pager, Code> {
        let usage = Usage { create, lockable: true, sync_name: false };
        let db = File::open(machine, process, path, usage)?;
        let mut header = [0; 100];
        db.read(&mut header, 0)?;
        let page_bytes = match be16(&header, 16) {
            1 => 65_536,
            bytes if bytes.is_power_of_two() && bytes >= 512 => bytes as usize,
            _ => 4_096,
        };
        Ok(Pager {
            machine: Rc::clone(machine),
            process: Rc::clone(process),
            path: path.to_owned(),
            db: Rc::new(db),
            wal: None,
            holds: Holds::Nothing,
            synchronous: Synchronous::Full,
            autocheckpoint: 1_000,
            checkpoints_at_close: true,
            wal_mode: false,
            no_wal: false,
            page_bytes,
            pages: 0,
            pages_before: 0,
            cache: Vec::new(),
            dirty: Vec::new(),
            spilled: false,
            db_written: false,
            change: 0,
            journal: None,
            closed: false,
        })
    }

    /// Takes a snapshot.
    pub(super) fn begin_read(&mut self) -> Result<(), Code> {
        if self.holds > Holds::Nothing {
            return Ok(());
        }
        let done = self.read_first_page();
        if done.is_err() {
            self.let_go();
        }
        done
    }

    fn read_first_page(&mut self) -> Result<(), Code> {
        loop {
            self.share()?;
            self.holds = Holds::Snapshot;
            if self.pages == 0 {
                return Ok(());
            }
            let page = self.get(1)?;
            if !page.starts_with(b"SQLite format 3\0") || page[19] > 2 {
                return Err(Code::NotADb);
            }
            let page_bytes = match be16(page, 16) {
                1 => 65_536,
                bytes => bytes as usize,
            };
            let (in_wal, in_header) = (page[19] == 2, be32(page, 28));
            let trusted = in_header > 0 && page[24..28] == page[92..96];
            if in_wal && self.wal.is_none() && !self.no_wal {
                self.open_wal()?;
                self.holds = Holds::Nothing;
                continue;
            }
            if page_bytes != self.page_bytes {
                self.page_bytes = page_bytes;
                self.cache.clear();
                self.let_go();
                continue;
            }
            if trusted && in_header > self.pages {
                return Err(Code::Corrupt);
            }
            if trusted {
                self.pages = in_header;
            }
            return Ok(());
        }
    }

    /// The shared lock, a hot journal rolled back, the WAL opened if there is one, a snapshot.
    fn share(&mut self) -> Result<(), Code> {
        if self.wal.is_none() {
            self.raise(Level::Shared)?;
            self.roll_back_hot_journal()?;
            self.forget_if_changed()?;
            let wal_path = format!("{}-wal", self.path);
            if self.machine.access(&self.process, &wal_path)? {
                if self.db.len()? == 0 {
                    self.machine.delete(&self.process, &wal_path, false)?;
                } else {
                    self.open_wal()?;
                }
            } else {
                self.wal_mode = false;
            }
        }
        let mut pages = 0;
        if let Some(wal) = &mut self.wal {
            wal.end_read();
            let changed = wal.begin_read()?;
            if changed {
                self.cache.clear();
            }
            pages = wal.db_pages();
        }
        if pages == 0 {
            pages = self.db.len()?.div_ceil(self.page_bytes as u64) as u32;
        }
        // Where that failed, the number of before stands: a close asks by it whether the file has moved.
        self.pages = pages;
        Ok(())
    }

    /// Raises the lock on the file, if it is not so high already.
    fn raise(&self, level: Level) -> Result<(), Code> {
        if self.db.level() >= level { Ok(()) } else { self.db.lock(level) }
    }

    fn open_wal(&mut self) -> Result<(), Code> {
        self.wal = Some(Wal::open(&self.machine, &self.process, &self.db, &self.path)?);
        self.wal_mode = true;
        Ok(())
    }

    /// Outside of WAL mode the change counter says whether the cache is still good.
    fn forget_if_changed(&mut self) -> Result<(), Code> {
        let mut version = [0; 16];
        self.db.read(&mut version, 24)?;
        let unchanged = self.cached(1).is_some_and(|page| page[24..40] == version);
        if !unchanged {
            self.cache.clear();
        }
        Ok(())
    }

    /// Ends whatever is held but the connection's use of the WAL.
    fn let_go(&mut self) {
        self.holds = Holds::Nothing;
        match &mut self.wal {
            Some(wal) => wal.end_read(),
            None => self.db.unlock(Level::None),
        }
    }

    /// Ends a snapshot.
    pub(super) fn end_read(&mut self) {
        assert!(self.holds <= Holds::Snapshot, "a write transaction commits or rolls back");
        if self.holds == Holds::Snapshot {
            self.let_go();
        }
    }

    /// Pages in the database.
    pub(super) fn pages(&self) -> u32 {
        self.pages
    }

    /// The page that holds SQLite's lock byte, and no data.
    pub(super) fn lock_page(&self) -> u32 {
        (self.machine.pending_byte / self.page_bytes as u64) as u32 + 1
    }

    /// A page in the snapshot or the transaction.
    pub(super) fn get(&mut self, no: u32) -> Result<&[u8], Code> {
        if self.cached(no).is_none() {
            let mut page = vec![0; self.page_bytes].into_boxed_slice();
            let frame = self.wal.as_ref().and_then(|wal| Some((wal, wal.find(no)?)));
            match frame {
                Some((wal, frame)) => wal.read_frame(frame, &mut page)?,
                None => {
                    self.db.read(&mut page, u64::from(no - 1) * self.page_bytes as u64)?;
                }
            }
            if no == 1 {
                self.change = be32(&page, 24);
            }
            self.keep(no, page);
        }
        Ok(self.cached(no).expect("read above"))
    }

    fn cached(&self, no: u32) -> Option<&[u8]> {
        self.cache.get(no as usize)?.as_deref()
    }

    fn keep(&mut self, no: u32, page: Box<[u8]>) {
        if self.cache.len() <= no as usize {
            self.cache.resize_with(no as usize + 1, || None);
        }
        self.cache[no as usize] = Some(page);
    }

    /// A page that is in memory.
    fn held(&self, no: u32) -> &[u8] {
        self.cached(no).expect("a changed page stays in memory")
    }

    /// A checkpoint; counts of -1 where no WAL is open.
    pub(super) fn checkpoint(&mut self, mode: Mode) -> Result<Counts, Code> {
        if self.holds > Holds::Nothing {
            return Err(Code::Locked);
        }
        if self.wal.is_none() && self.wal_mode {
            // The WAL is opened by a read, whose failure nobody hears of.
            let _ = self.begin_read();
            self.end_read();
        }
        match &mut self.wal {
            Some(wal) => wal.checkpoint(mode, self.synchronous, self.page_bytes),
            None => Ok(Counts { busy: false, log: -1, backfilled: -1 }),
        }
    }

    /// Whether the path leads elsewhere than to the file that is open.
    pub(super) fn has_moved(&self) -> bool {
        self.db.has_moved()
    }

    /// Ends everything, and the WAL with the last connection if it may.
    pub(super) fn close(&mut self) -> Result<(), Code> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        if self.holds == Holds::WriteLock {
            self.rollback();
        }
        self.end_read();
        let may = self.checkpoints_at_close && (self.pages == 0 || !self.db.has_moved());
        let done = match self.wal.take() {
            Some(wal) => wal.close(may, self.synchronous, self.page_bytes),
            None => Ok(()),
        };
        self.db.unlock(Level::None);
        done
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        // As with SQLite, nobody hears of a failure.
        let _ = self.close();
    }
}
