//! One connection's use of the WAL, by the rules of SQLite's `wal.c`.
//!
//! The functions have the order of locks, reads, writes and syncs of SQLite 3.54, so that a fault
//! or a death strikes where it would strike there. What cannot happen in one thread is left out:
//! a header that changes between two looks at it.

mod checkpoint;
mod read;
mod recover;
mod write;

use std::rc::Rc;

use super::code::Code;
use super::index::{Header, MARKS};
use super::machine::{File, Machine, Process, Usage};
use crate::vfs::locks::Level;

pub(super) use checkpoint::Mode;
pub(super) use write::Frame;

const WRITE_LOCK: usize = 0;
const CHECKPOINT_LOCK: usize = 1;
const RECOVER_LOCK: usize = 2;

const fn read_lock(mark: usize) -> usize {
    3 + mark
}

/// Bytes before the first frame.
const HEADER_BYTES: u64 = 32;
/// Bytes before the page of a frame.
const FRAME_BYTES: u64 = 24;

/// When files are synced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Synchronous {
    Off,
    Normal,
    Full,
    /// The directory as well, when a rollback journal is deleted.
    Extra,
}

/// The WAL as one connection sees it.
pub(super) struct Wal {
    machine: Rc<Machine>,
    process: Rc<Process>,
    path: String,
    pub(super) file: File,
    db: Rc<File>,
    /// The connection's own copy of the header.
    header: Header,
    mapped: bool,
    /// The mark that it reads at.
    mark: Option<usize>,
    writes: bool,
    checkpoints: bool,
    exclusive: bool,
    /// The checkpoint sequence number.
    sequence: u32,
    /// The first frame that a reader may need.
    min_frame: u32,
    page_bytes: usize,
    /// The first frame of the transaction that was written again, 0 for none.
    rechecksum: u32,
    /// Frames in the WAL at the last commit, until asked for.
    committed: u32,
}

impl Wal {
    pub(super) fn open(
        machine: &Rc<Machine>,
        process: &Rc<Process>,
        db: &Rc<File>,
        db_path: &str,
    ) -> Result<Wal, Code> {
        let path = format!("{db_path}-wal");
        let usage = Usage { create: true, sync_name: true, lockable: false };
        let file = File::open(machine, process, &path, usage)?;
        Ok(Wal {
            machine: Rc::clone(machine),
            process: Rc::clone(process),
            path,
            file,
            db: Rc::clone(db),
            header: Header::default(),
            mapped: false,
            mark: None,
            writes: false,
            checkpoints: false,
            exclusive: false,
            sequence: 0,
            min_frame: 0,
            page_bytes: 0,
            rechecksum: 0,
            committed: 0,
        })
    }

    /// Closes it. The last connection copies everything back and deletes the files, if it may.
    pub(super) fn close(
        mut self,
        may_checkpoint: bool,
        sync: Synchronous,
        page_bytes: usize,
    ) -> Result<(), Code> {
        let mut delete = false;
        let mut done = Ok(());
        if may_checkpoint {
            done = self.db.lock(Level::Exclusive);
            if done.is_ok() {
                self.exclusive = true;
                done = self.checkpoint(Mode::Passive, sync, page_bytes).map(drop);
                delete = done.is_ok();
            }
        }
        self.db.shm_unmap(delete);
        if delete {
            let _ = self.machine.delete(&self.process, &self.path, false);
        }
        done
    }

    /// Pages in the database of the snapshot; 0 where the file has to be asked.
    pub(super) fn db_pages(&self) -> u32 {
        if self.mark.is_some() { self.header.pages } else { 0 }
    }

    /// The frames in the WAL after the last commit; once.
    pub(super) fn take_committed(&mut self) -> u32 {
        std::mem::take(&mut self.committed)
    }

    fn offset(&self, frame: u32) -> u64 {
        HEADER_BYTES + u64::from(frame - 1) * (FRAME_BYTES + self.page_bytes as u64)
    }

    fn lock(&self, first: usize, count: usize) -> Result<(), Code> {
        if self.exclusive { Ok(()) } else { self.db.shm_lock(mask(first, count), true) }
    }

    fn lock_shared(&self, slot: usize) -> Result<(), Code> {
        if self.exclusive { Ok(()) } else { self.db.shm_lock(mask(slot, 1), false) }
    }

    fn unlock(&self, first: usize, count: usize) {
        if !self.exclusive {
            self.db.shm_unlock(mask(first, count));
        }
    }

    fn unlock_marks(&self) {
        self.unlock(read_lock(1), MARKS - 1);
    }
}

const fn mask(first: usize, count: usize) -> u8 {
    (((1_u16 << count) - 1) << first) as u8
}
