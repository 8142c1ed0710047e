//! Write transactions, in the WAL or beside a rollback journal, and the way from one to the other.

use super::{DIRTY_MAX, Holds, Pager};
use crate::model::code::Code;
use crate::model::wal::{Frame, Mode, Wal};
use crate::vfs::locks::Level;

/// The version number of SQLite 3.54.1 in the header of a database.
const SQLITE_VERSION: u32 = 3_054_001;

impl Pager {
    /// Takes the write lock, and a snapshot first.
    pub(in crate::model) fn begin_write(&mut self) -> Result<(), Code> {
        self.begin_read()?;
        let locked = match &mut self.wal {
            Some(wal) => wal.begin_write(),
            None => self.raise(Level::Reserved),
        };
        if locked.is_err() {
            self.end_read();
            return locked;
        }
        self.holds = Holds::WriteLock;
        self.pages_before = self.pages;
        Ok(())
    }

    /// A page that is about to be changed.
    pub(in crate::model) fn change(&mut self, no: u32) -> Result<&mut [u8], Code> {
        assert!(self.holds == Holds::WriteLock && no != self.lock_page(), "page {no} may be written");
        if !self.dirty.contains(&no) {
            if self.dirty.len() >= DIRTY_MAX {
                match self.spill() {
                    // Readers are in the way: it stays in memory.
                    Ok(()) | Err(Code::Busy) => {}
                    Err(code) => return Err(code),
                }
            }
            self.get(no)?;
            self.note_in_journal(no)?;
            self.dirty.push(no);
        }
        Ok(self.cache[no as usize].as_deref_mut().expect("a changed page stays in memory"))
    }

    /// Sets the number of pages in the database, which page 1 holds as well.
    pub(in crate::model) fn set_pages(&mut self, pages: u32) -> Result<(), Code> {
        self.change(1)?[28..32].copy_from_slice(&pages.to_be_bytes());
        // What was cut off and comes back later must not be read from the file.
        for no in pages + 1..=self.pages {
            self.note_in_journal(no)?;
        }
        self.cache.truncate(pages as usize + 1);
        self.dirty.retain(|no| *no <= pages);
        for no in self.pages + 1..=pages {
            self.keep(no, vec![0; self.page_bytes].into());
        }
        self.pages = pages;
        Ok(())
    }

    /// Writes a changed page out before the commit: not page 1, which is always in use.
    fn spill(&mut self) -> Result<(), Code> {
        let at = self.dirty.iter().position(|no| *no != 1).expect("more than one page is changed");
        let no = self.dirty[at];
        if self.wal.is_none() {
            self.sync_journal()?;
            self.raise(Level::Exclusive)?;
            self.dirty.remove(at);
            (self.spilled, self.db_written) = (true, true);
            return self.db.write(self.held(no), u64::from(no - 1) * self.page_bytes as u64);
        }
        self.dirty.remove(at);
        let page = self.cache[no as usize].as_deref().expect("a changed page stays in memory");
        let wal = self.wal.as_mut().expect("looked at above");
        wal.write(self.page_bytes, &[(no, page)], None, self.synchronous)?;
        self.spilled = true;
        Ok(())
    }

    /// Commits. A commit that fails is rolled back, and may stand in the WAL all the same. Outside
    /// of WAL mode one that meets readers is busy, and the transaction stays open.
    pub(in crate::model) fn commit(&mut self) -> Result<(), Code> {
        let written = self.spilled || !self.dirty.is_empty();
        let done = match (&self.wal, written) {
            (Some(_), false) => Ok(()),
            (Some(_), true) => self.commit_frames(),
            // Even a commit of nothing takes the lock.
            (None, _) => self.raise(Level::Exclusive).and_then(|()| match written {
                true => self.commit_beside_journal(),
                false => Ok(()),
            }),
        };
        if done == Err(Code::Busy) && self.wal.is_none() {
            return done;
        }
        if done.is_err() {
            self.rollback();
            return done;
        }
        (self.spilled, self.db_written, self.journal) = (false, false, None);
        self.dirty.clear();
        self.let_go();
        let frames = self.wal.as_mut().map_or(0, Wal::take_committed);
        if frames > 0 && self.autocheckpoint > 0 && frames >= self.autocheckpoint {
            // The commit has succeeded, whatever becomes of this.
            let _ = self.checkpoint(Mode::Passive);
        }
        Ok(())
    }

    fn commit_frames(&mut self) -> Result<(), Code> {
        self.dirty.sort_unstable();
        if self.dirty.is_empty() {
            self.get(1)?;
            self.dirty.push(1);
        }
        if self.dirty[0] == 1 {
            self.count_change();
        }
        let held =
            |no: &u32| (*no, self.cache[*no as usize].as_deref().expect("a changed page stays in memory"));
        let frames: Vec<Frame<'_>> = self.dirty.iter().map(held).collect();
        let wal = self.wal.as_mut().expect("looked at by the caller");
        wal.write(self.page_bytes, &frames, Some(self.pages), self.synchronous)
    }

    /// Counts the change counter of page 1 up.
    pub(super) fn count_change(&mut self) {
        let change = self.change.wrapping_add(1).to_be_bytes();
        let page = self.cache[1].as_deref_mut().expect("page 1 is read first");
        page[24..28].copy_from_slice(&change);
        page[92..96].copy_from_slice(&change);
        page[96..100].copy_from_slice(&SQLITE_VERSION.to_be_bytes());
    }

    fn commit_beside_journal(&mut self) -> Result<(), Code> {
        self.change(1)?;
        self.count_change();
        self.sync_journal()?;
        self.dirty.sort_unstable();
        self.db_written = true;
        for no in std::mem::take(&mut self.dirty) {
            self.db.write(self.held(no), u64::from(no - 1) * self.page_bytes as u64)?;
        }
        let size = u64::from(self.pages) * self.page_bytes as u64;
        if self.db.len()? < size {
            self.db.truncate(size)?;
        }
        self.db.sync()?;
        self.delete_journal()?;
        self.change += 1;
        // It is committed; what is cut off now was not in the database any more.
        if self.db.len()? > size { self.db.truncate(size) } else { Ok(()) }
    }

    /// Takes everything back.
    pub(in crate::model) fn rollback(&mut self) {
        self.dirty.clear();
        self.cache.clear();
        if let Some(wal) = &mut self.wal {
            wal.undo();
        } else if self.journal.is_some() {
            // What this leaves undone, the next opener does.
            let _ = if self.db_written { self.play_back() } else { self.delete_journal() };
        }
        (self.spilled, self.db_written, self.journal) = (false, false, None);
        self.let_go();
    }

    /// Leaves WAL mode, or enters it. Busy while others use the database.
    pub(in crate::model) fn set_wal_mode(&mut self, on: bool) -> Result<(), Code> {
        if !on {
            self.close_wal()?;
        }
        self.no_wal = !on;
        let done = self.set_version(if on { 2 } else { 1 });
        self.no_wal = false;
        if done.is_ok() {
            self.wal_mode = on;
        }
        done
    }

    /// The last connection copies the WAL back and deletes it, and stays.
    fn close_wal(&mut self) -> Result<(), Code> {
        if self.wal.is_none() {
            self.raise(Level::Shared)?;
            if self.machine.access(&self.process, &format!("{}-wal", self.path))? {
                self.open_wal()?;
            }
        }
        let Some(wal) = self.wal.take() else { return Ok(()) };
        let before = self.db.level();
        if let Err(code) = self.raise(Level::Exclusive) {
            self.db.unlock(before);
            self.wal = Some(wal);
            return Err(code);
        }
        let done = wal.close(true, self.synchronous, self.page_bytes);
        self.cache.clear();
        self.db.unlock(if done.is_ok() { Level::None } else { Level::Shared });
        done
    }

    fn set_version(&mut self, version: u8) -> Result<(), Code> {
        self.begin_read()?;
        if self.pages > 0 && self.get(1)?[18..20] == [version; 2] {
            self.end_read();
            return Ok(());
        }
        self.begin_write()?;
        let done = if self.pages == 0 { self.lay_out() } else { Ok(()) };
        let done = done.and_then(|()| self.change(1).map(|page| page[18..20].fill(version)));
        let done = done.and_then(|()| self.commit());
        if done.is_err() && self.holds == Holds::WriteLock {
            self.rollback();
        }
        done
    }

    /// Gives the database another page size, outside of WAL mode. Page 1 is all that is left.
    pub(in crate::model) fn set_page_bytes(&mut self, page_bytes: usize) -> Result<(), Code> {
        assert!(self.wal.is_none(), "in WAL mode the page size stays");
        for no in 1..=self.pages {
            self.note_in_journal(no)?;
        }
        let version = self.get(1)?[18];
        self.cache.clear();
        self.dirty.clear();
        self.page_bytes = page_bytes;
        self.lay_out()?;
        self.change(1)?[18..20].fill(version);
        Ok(())
    }

    /// The header of a new database of one page.
    pub(in crate::model) fn lay_out(&mut self) -> Result<(), Code> {
        self.pages = 1;
        self.keep(1, vec![0; self.page_bytes].into());
        let page_bytes = if self.page_bytes == 65_536 { 1 } else { self.page_bytes as u16 };
        let page = self.change(1)?;
        page[..16].copy_from_slice(b"SQLite format 3\0");
        page[16..18].copy_from_slice(&page_bytes.to_be_bytes());
        page[18..24].copy_from_slice(&[1, 1, 0, 64, 32, 32]);
        page[28..32].copy_from_slice(&1_u32.to_be_bytes());
        page[47] = 4;
        page[59] = 1;
        Ok(())
    }
}
