//! Frames: those of a commit, and those that are spilled before it.

use super::{FRAME_BYTES, HEADER_BYTES, Synchronous, WRITE_LOCK, Wal, read_lock};
use crate::model::code::Code;
use crate::model::index::{MARK_UNUSED, MARKS};
use crate::ring0::reading::{be32, checksum};

/// A page to be written.
pub(in crate::model) type Frame<'a> = (u32, &'a [u8]);

impl Wal {
    /// Takes the write lock, if nothing was committed since the snapshot.
    pub(in crate::model) fn begin_write(&mut self) -> Result<(), Code> {
        self.lock(WRITE_LOCK, 1)?;
        if self.db.index(|index| index.header) != self.header {
            self.unlock(WRITE_LOCK, 1);
            return Err(Code::Busy);
        }
        self.writes = true;
        Ok(())
    }

    pub(super) fn end_write(&mut self) {
        if std::mem::take(&mut self.writes) {
            self.unlock(WRITE_LOCK, 1);
            self.rechecksum = 0;
        }
    }

    /// Takes back what was written and not committed.
    pub(in crate::model) fn undo(&mut self) {
        if self.writes {
            self.header = self.db.index(|index| index.header);
            self.rechecksum = 0;
        }
    }

    /// Starts the WAL over, its whole content being in the database and no reader in it.
    pub(super) fn restart_header(&mut self) {
        let salt = self.machine.random() as u32;
        self.sequence = self.sequence.wrapping_add(1);
        self.header.mx_frame = 0;
        self.header.salts = (self.header.salts.0.wrapping_add(1), salt);
        let mut header = self.header;
        self.db.index(|index| {
            index.publish(&mut header);
            index.clear();
            (index.backfill, index.attempted) = (0, 0);
            index.marks = [MARK_UNUSED; MARKS];
            (index.marks[0], index.marks[1]) = (0, 0);
        });
        self.header = header;
    }

    /// Starts the WAL over if the writer stands on the mark of the database file alone.
    fn restart_log(&mut self) -> Result<(), Code> {
        if self.mark != Some(0) {
            return Ok(());
        }
        if self.db.index(|index| index.backfill) > 0 {
            match self.lock(read_lock(1), MARKS - 1) {
                Ok(()) => {
                    self.restart_header();
                    self.unlock_marks();
                }
                Err(Code::Busy) => {}
                Err(code) => return Err(code),
            }
        }
        self.unlock(read_lock(0), 1);
        self.mark = None;
        self.begin_read_in_wal()
    }

    /// Writes frames; with the size of the database in pages they make a commit.
    pub(in crate::model) fn write(
        &mut self,
        page_bytes: usize,
        pages: &[Frame<'_>],
        commit: Option<u32>,
        sync: Synchronous,
    ) -> Result<(), Code> {
        let live = self.db.index(|index| index.header);
        let spilled_from = if live == self.header { 0 } else { live.mx_frame + 1 };
        self.restart_log()?;
        if self.header.mx_frame == 0 {
            self.write_header(page_bytes, sync)?;
        }
        if self.page_bytes != page_bytes {
            return Err(Code::Corrupt);
        }
        let mut last = self.header.mx_frame;
        let mut appended = Vec::with_capacity(pages.len());
        for (n, (page, data)) in pages.iter().enumerate() {
            let marks_commit = commit.is_some() && n + 1 == pages.len();
            if spilled_from > 0 && !marks_commit && self.rewrite(*page, data, spilled_from)? {
                continue;
            }
            last += 1;
            let pages = if marks_commit { commit.unwrap_or(0) } else { 0 };
            self.write_frame(last, *page, data, pages)?;
            appended.push(*page);
        }
        if commit.is_some() && self.rechecksum > 0 {
            self.rewrite_checksums(last)?;
        }
        if commit.is_some() && sync >= Synchronous::Full {
            self.file.sync()?;
        }
        self.publish(&appended, page_bytes, commit);
        Ok(())
    }

    fn publish(&mut self, appended: &[u32], page_bytes: usize, commit: Option<u32>) {
        let mut header = self.header;
        self.db.index(|index| {
            for page in appended {
                header.mx_frame += 1;
                index.append(header.mx_frame, *page);
            }
            header.page_bytes = page_bytes as u32;
            if let Some(pages) = commit {
                header.change = header.change.wrapping_add(1);
                header.pages = pages;
                index.publish(&mut header);
            }
        });
        self.header = header;
        if commit.is_some() {
            self.committed = header.mx_frame;
        }
    }

    fn write_header(&mut self, page_bytes: usize, sync: Synchronous) -> Result<(), Code> {
        if self.sequence == 0 {
            let salts = self.machine.random();
            self.header.salts = (salts as u32, (salts >> 32) as u32);
        }
        self.header.big_endian = self.machine.both_orders && self.machine.random() % 2 == 1;
        let mut head = [0; HEADER_BYTES as usize];
        let mut put = |at: usize, value: u32| head[at..at + 4].copy_from_slice(&value.to_be_bytes());
        put(0, 0x377f_0682 | u32::from(self.header.big_endian));
        put(4, 3_007_000);
        put(8, page_bytes as u32);
        put(12, self.sequence);
        put(16, self.header.salts.0);
        put(20, self.header.salts.1);
        let sum = checksum((0, 0), &head[..24], self.header.big_endian);
        head[24..28].copy_from_slice(&sum.0.to_be_bytes());
        head[28..32].copy_from_slice(&sum.1.to_be_bytes());
        self.page_bytes = page_bytes;
        self.header.checksum = sum;
        self.file.write(&head, 0)?;
        // Frames that follow must not become durable before the new salts.
        if sync == Synchronous::Off { Ok(()) } else { self.file.sync() }
    }

    fn write_frame(&mut self, frame: u32, page: u32, data: &[u8], commit: u32) -> Result<(), Code> {
        let head = self.encode(page, data, commit);
        let offset = self.offset(frame);
        self.file.write(&head, offset)?;
        self.file.write(data, offset + FRAME_BYTES)
    }

    /// The head of a frame, without a checksum while an earlier frame waits for its own.
    fn encode(&mut self, page: u32, data: &[u8], commit: u32) -> [u8; FRAME_BYTES as usize] {
        let mut head = [0; FRAME_BYTES as usize];
        head[..4].copy_from_slice(&page.to_be_bytes());
        head[4..8].copy_from_slice(&commit.to_be_bytes());
        if self.rechecksum > 0 {
            return head;
        }
        let sum = checksum(self.header.checksum, &head[..8], self.header.big_endian);
        self.header.checksum = checksum(sum, data, self.header.big_endian);
        let (salts, sum) = (self.header.salts, self.header.checksum);
        for (at, value) in [(8, salts.0), (12, salts.1), (16, sum.0), (20, sum.1)] {
            head[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        head
    }

    /// Writes a page over its frame of this transaction, if it has one.
    fn rewrite(&mut self, page: u32, data: &[u8], spilled_from: u32) -> Result<bool, Code> {
        let Some(frame) = self.find(page).filter(|frame| *frame >= spilled_from) else { return Ok(false) };
        if self.rechecksum == 0 || frame < self.rechecksum {
            self.rechecksum = frame;
        }
        self.file.write(data, self.offset(frame) + FRAME_BYTES)?;
        Ok(true)
    }

    fn rewrite_checksums(&mut self, last: u32) -> Result<(), Code> {
        let first = std::mem::take(&mut self.rechecksum);
        let before = if first == 1 { 24 } else { self.offset(first - 1) + 16 };
        let mut sum = [0; 8];
        self.file.read_exact(&mut sum, before)?;
        self.header.checksum = (be32(&sum, 0), be32(&sum, 4));
        let mut bytes = vec![0; FRAME_BYTES as usize + self.page_bytes];
        for frame in first..=last {
            let offset = self.offset(frame);
            self.file.read_exact(&mut bytes, offset)?;
            let (page, commit) = (be32(&bytes, 0), be32(&bytes, 4));
            let head = self.encode(page, &bytes[FRAME_BYTES as usize..], commit);
            self.file.write(&head, offset)?;
        }
        Ok(())
    }
}
