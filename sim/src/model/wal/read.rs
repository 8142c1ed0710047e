//! Snapshots: the header, the mark, the frames that count.

use super::{RECOVER_LOCK, WRITE_LOCK, Wal, read_lock};
use crate::model::code::Code;
use crate::model::index::{MARK_UNUSED, MARKS};

/// Tries at taking a snapshot before it is given up.
const TRIES_MAX: u32 = 100;

/// Something was in the way for an instant.
enum Failed {
    Retry,
    Code(Code),
}

impl From<Code> for Failed {
    fn from(code: Code) -> Failed {
        Failed::Code(code)
    }
}

impl Wal {
    /// Takes the header over if it is good; answers whether it is, and notes whether it changed.
    fn try_header(&mut self, changed: &mut bool) -> bool {
        let live = self.db.index(|index| index.header);
        if !live.is_init {
            return false;
        }
        if live != self.header {
            *changed = true;
            self.header = live;
            self.page_bytes = live.page_bytes as usize;
        }
        true
    }

    /// Brings the connection's header up to date; recovers the wal-index if there is none.
    pub(super) fn read_header(&mut self, changed: &mut bool) -> Result<(), Code> {
        self.map(self.writes)?;
        if self.mapped && self.try_header(changed) {
            return Ok(());
        }
        let had = self.writes;
        if !had {
            self.lock(WRITE_LOCK, 1)?;
            self.writes = true;
        }
        let done = self.header_under_lock(changed);
        if !had {
            self.writes = false;
            self.unlock(WRITE_LOCK, 1);
        }
        done
    }

    fn header_under_lock(&mut self, changed: &mut bool) -> Result<(), Code> {
        self.map(true)?;
        if !self.try_header(changed) {
            *changed = true;
            self.recover()?;
        }
        Ok(())
    }

    fn map(&mut self, extend: bool) -> Result<(), Code> {
        if !self.mapped {
            self.mapped = self.db.shm_map(extend)?;
        }
        Ok(())
    }

    /// Takes a snapshot. Answers whether anything changed since the last one.
    pub(in crate::model) fn begin_read(&mut self) -> Result<bool, Code> {
        let mut changed = false;
        let mut tries = 0;
        loop {
            match self.try_begin_read(&mut changed, false, &mut tries) {
                Ok(()) => return Ok(changed),
                Err(Failed::Code(code)) => return Err(code),
                Err(Failed::Retry) => {}
            }
        }
    }

    /// As [`begin_read`](Wal::begin_read) for a writer that has left the mark of the database file.
    pub(super) fn begin_read_in_wal(&mut self) -> Result<(), Code> {
        let mut tries = 0;
        loop {
            match self.try_begin_read(&mut false, true, &mut tries) {
                Ok(()) => return Ok(()),
                Err(Failed::Code(code)) => return Err(code),
                Err(Failed::Retry) => {}
            }
        }
    }

    fn try_begin_read(&mut self, changed: &mut bool, in_wal: bool, tries: &mut u32) -> Result<(), Failed> {
        *tries += 1;
        if *tries > 5 {
            if *tries > TRIES_MAX {
                return Err(Code::Protocol.into());
            }
            let us = if *tries >= 10 { u64::from((*tries - 9) * (*tries - 9) * 39) } else { 1 };
            self.machine.disk.clock().advance_ns(us * 1_000);
        }
        if !in_wal {
            match self.read_header(changed) {
                Err(Code::Busy) if !self.mapped => return Err(Failed::Retry),
                Err(Code::Busy) => {
                    self.lock_shared(RECOVER_LOCK)?;
                    self.unlock(RECOVER_LOCK, 1);
                    return Err(Failed::Retry);
                }
                done => done?,
            }
            let backfilled = self.db.index(|index| index.backfill) == self.header.mx_frame;
            if backfilled {
                match self.lock_shared(read_lock(0)) {
                    Ok(()) => {
                        self.mark = Some(0);
                        return Ok(());
                    }
                    Err(Code::Busy) => {}
                    Err(code) => return Err(code.into()),
                }
            }
        }
        self.take_mark()
    }

    /// Locks the highest mark that the snapshot does not lie below, which is raised if need be.
    fn take_mark(&mut self) -> Result<(), Failed> {
        let want = self.header.mx_frame;
        let marks = self.db.index(|index| index.marks);
        let mut best = (1..MARKS)
            .filter(|i| marks[*i] <= want)
            .fold((0, 0), |(at, highest), i| if marks[i] >= highest { (i, marks[i]) } else { (at, highest) });
        if best.1 < want || best.0 == 0 {
            for i in 1..MARKS {
                match self.lock(read_lock(i), 1) {
                    Ok(()) => {
                        self.db.index(|index| index.marks[i] = want);
                        self.unlock(read_lock(i), 1);
                        best = (i, want);
                        break;
                    }
                    Err(Code::Busy) => {}
                    Err(code) => return Err(code.into()),
                }
            }
        }
        let (mark, value) = best;
        if mark == 0 {
            return Err(Failed::Retry);
        }
        match self.lock_shared(read_lock(mark)) {
            Ok(()) => {}
            Err(Code::Busy) => return Err(Failed::Retry),
            Err(code) => return Err(code.into()),
        }
        debug_assert!(value != MARK_UNUSED, "a mark in use");
        self.min_frame = self.db.index(|index| index.backfill) + 1;
        self.mark = Some(mark);
        Ok(())
    }

    /// Lets the snapshot go, and the write lock with it.
    pub(in crate::model) fn end_read(&mut self) {
        self.end_write();
        if let Some(mark) = self.mark.take() {
            self.unlock(read_lock(mark), 1);
        }
    }

    /// The frame that holds a page in the snapshot; `None` if the database file has it.
    pub(in crate::model) fn find(&self, page: u32) -> Option<u32> {
        if self.header.mx_frame == 0 || self.mark.is_none_or(|mark| mark == 0) {
            return None;
        }
        self.db.index(|index| index.find(page, self.min_frame, self.header.mx_frame))
    }

    /// Reads the page of a frame, or its beginning into a shorter buffer.
    pub(in crate::model) fn read_frame(&self, frame: u32, page: &mut [u8]) -> Result<(), Code> {
        let len = page.len().min(self.page_bytes);
        self.file.read_exact(&mut page[..len], self.offset(frame) + super::FRAME_BYTES)
    }
}
