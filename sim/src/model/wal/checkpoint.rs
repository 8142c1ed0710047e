//! Checkpoints: frames are copied into the database as far as no reader is in the way.

use super::{CHECKPOINT_LOCK, FRAME_BYTES, Synchronous, WRITE_LOCK, Wal, read_lock};
use crate::model::code::Code;
use crate::model::index::{Header, MARK_UNUSED, MARKS};
use crate::ring0::sqlite::Counts;

/// How far a checkpoint goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::model) enum Mode {
    Passive,
    Full,
    Restart,
    Truncate,
}

impl Mode {
    pub(in crate::model) fn named(name: &str) -> Mode {
        match name {
            "PASSIVE" => Mode::Passive,
            "FULL" => Mode::Full,
            "RESTART" => Mode::Restart,
            "TRUNCATE" => Mode::Truncate,
            _ => panic!("no mode of a checkpoint is named {name}"),
        }
    }
}

impl Wal {
    /// A checkpoint; `busy` in the counts says that something kept it from its end.
    pub(in crate::model) fn checkpoint(
        &mut self,
        mode: Mode,
        sync: Synchronous,
        page_bytes: usize,
    ) -> Result<Counts, Code> {
        self.lock(CHECKPOINT_LOCK, 1)?;
        self.checkpoints = true;
        let mut changed = false;
        let done = self.checkpoint_locked(mode, sync, page_bytes, &mut changed);
        if changed {
            // The next snapshot must see that it is another.
            self.header = Header::default();
        }
        self.end_write();
        self.checkpoints = false;
        self.unlock(CHECKPOINT_LOCK, 1);
        done
    }

    fn checkpoint_locked(
        &mut self,
        mode: Mode,
        sync: Synchronous,
        page_bytes: usize,
        changed: &mut bool,
    ) -> Result<Counts, Code> {
        let mut granted = mode;
        if mode > Mode::Passive {
            match self.lock(WRITE_LOCK, 1) {
                Ok(()) => self.writes = true,
                Err(Code::Busy) => granted = Mode::Passive,
                Err(code) => return Err(code),
            }
        }
        self.read_header(changed)?;
        if self.header.mx_frame > 0 && self.header.page_bytes as usize != page_bytes {
            return Err(Code::Corrupt);
        }
        let busy = match self.copy_back(granted, sync) {
            Ok(()) => granted != mode,
            Err(Code::Busy) => true,
            Err(code) => return Err(code),
        };
        let backfilled = self.db.index(|index| index.backfill);
        Ok(Counts { busy, log: i64::from(self.header.mx_frame), backfilled: i64::from(backfilled) })
    }

    fn copy_back(&mut self, mode: Mode, sync: Synchronous) -> Result<(), Code> {
        if self.db.index(|index| index.backfill) < self.header.mx_frame {
            let safe = self.safe_frame()?;
            if self.db.index(|index| index.backfill) < safe {
                match self.lock(read_lock(0), 1) {
                    Ok(()) => {
                        let done = self.backfill(safe, sync);
                        self.unlock(read_lock(0), 1);
                        done?;
                    }
                    Err(Code::Busy) => {}
                    Err(code) => return Err(code),
                }
            }
        }
        if mode == Mode::Passive {
            return Ok(());
        }
        if self.db.index(|index| index.backfill) < self.header.mx_frame {
            return Err(Code::Busy);
        }
        if mode >= Mode::Restart {
            self.lock(read_lock(1), MARKS - 1)?;
            let mut done = Ok(());
            if mode == Mode::Truncate {
                self.restart_header();
                done = self.file.truncate(0);
            }
            self.unlock_marks();
            done?;
        }
        Ok(())
    }

    /// The last frame that no reader keeps from being copied. Marks that nobody holds move on.
    fn safe_frame(&mut self) -> Result<u32, Code> {
        let mut safe = self.header.mx_frame;
        for i in 1..MARKS {
            let mark = self.db.index(|index| index.marks[i]);
            if safe <= mark {
                continue;
            }
            match self.lock(read_lock(i), 1) {
                Ok(()) => {
                    self.db.index(|index| index.marks[i] = if i == 1 { safe } else { MARK_UNUSED });
                    self.unlock(read_lock(i), 1);
                }
                Err(Code::Busy) => safe = mark,
                Err(code) => return Err(code),
            }
        }
        Ok(safe)
    }

    fn backfill(&mut self, safe: u32, sync: Synchronous) -> Result<(), Code> {
        let (live, done) = self.db.index(|index| (index.header, index.backfill));
        if live.salts != self.header.salts {
            return Ok(());
        }
        self.db.index(|index| index.attempted = safe);
        if sync > Synchronous::Off {
            self.file.sync()?;
        }
        let size = self.header.page_bytes as usize;
        let mut page = vec![0; size];
        for (no, frame) in self.db.index(|index| index.newest(self.header.mx_frame)) {
            if frame <= done || frame > safe || no > self.header.pages {
                continue;
            }
            self.file.read_exact(&mut page, self.offset(frame) + FRAME_BYTES)?;
            self.db.write(&page, u64::from(no - 1) * size as u64)?;
        }
        if safe == live.mx_frame {
            self.db.truncate(u64::from(self.header.pages) * size as u64)?;
            if sync > Synchronous::Off {
                self.db.sync()?;
            }
        }
        self.db.index(|index| index.backfill = safe);
        Ok(())
    }
}
