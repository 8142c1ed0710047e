//! Recovery: what the file says becomes the wal-index.

use super::{CHECKPOINT_LOCK, FRAME_BYTES, HEADER_BYTES, Wal, read_lock};
use crate::model::code::Code;
use crate::model::index::{Header, MARK_UNUSED, MARKS};
use crate::ring0::reading::{be32, checksum};

impl Wal {
    /// Reads the whole WAL under every lock but those of readers.
    pub(super) fn recover(&mut self) -> Result<(), Code> {
        let first = CHECKPOINT_LOCK + usize::from(self.checkpoints);
        self.lock(first, read_lock(0) - first)?;
        let done = self.rebuild();
        self.unlock(first, read_lock(0) - first);
        done
    }

    fn rebuild(&mut self) -> Result<(), Code> {
        self.header = Header::default();
        self.db.index(|index| index.clear());
        let size = self.file.len()?;
        let mut end = (0, 0);
        if size > HEADER_BYTES {
            let mut head = [0; HEADER_BYTES as usize];
            self.file.read_exact(&mut head, 0)?;
            if self.take_file_header(&head)? {
                end = self.take_frames(size)?;
            }
        }
        self.header.checksum = end;
        let (db, mut header) = (&self.db, self.header);
        db.index(|index| {
            index.publish(&mut header);
            (index.backfill, index.attempted, index.marks[0]) = (0, header.mx_frame, 0);
        });
        self.header = header;
        for i in 1..MARKS {
            match self.lock(read_lock(i), 1) {
                Ok(()) => {
                    let mark = if i == 1 && header.mx_frame > 0 { header.mx_frame } else { MARK_UNUSED };
                    self.db.index(|index| index.marks[i] = mark);
                    self.unlock(read_lock(i), 1);
                }
                Err(Code::Busy) => {}
                Err(code) => return Err(code),
            }
        }
        Ok(())
    }

    /// Takes over what the header of the file says; answers whether frames may follow it.
    fn take_file_header(&mut self, head: &[u8]) -> Result<bool, Code> {
        let (magic, page_bytes) = (be32(head, 0), be32(head, 8));
        let sound = page_bytes.is_power_of_two() && (512..=65_536).contains(&page_bytes);
        if magic & !1 != 0x377f_0682 || !sound {
            return Ok(false);
        }
        self.header.big_endian = magic & 1 == 1;
        self.page_bytes = page_bytes as usize;
        self.sequence = be32(head, 12);
        self.header.salts = (be32(head, 16), be32(head, 20));
        self.header.checksum = checksum((0, 0), &head[..24], self.header.big_endian);
        if self.header.checksum != (be32(head, 24), be32(head, 28)) {
            return Ok(false);
        }
        if be32(head, 4) != 3_007_000 {
            return Err(Code::CantOpen);
        }
        Ok(true)
    }

    /// Takes the frames of the valid chain; answers the checksum at its last commit.
    fn take_frames(&mut self, size: u64) -> Result<(u32, u32), Code> {
        let frame_bytes = FRAME_BYTES + self.page_bytes as u64;
        let last = ((size - HEADER_BYTES) / frame_bytes) as u32;
        let mut frame = vec![0; frame_bytes as usize];
        let mut end = (0, 0);
        for no in 1..=last {
            self.file.read_exact(&mut frame, self.offset(no))?;
            let (page, commit) = (be32(&frame, 0), be32(&frame, 4));
            if (be32(&frame, 8), be32(&frame, 12)) != self.header.salts || page == 0 {
                break;
            }
            let sum = checksum(self.header.checksum, &frame[..8], self.header.big_endian);
            let sum = checksum(sum, &frame[24..], self.header.big_endian);
            if sum != (be32(&frame, 16), be32(&frame, 20)) {
                break;
            }
            self.header.checksum = sum;
            self.db.index(|index| index.append(no, page));
            if commit > 0 {
                self.header.mx_frame = no;
                self.header.pages = commit;
                self.header.page_bytes = self.page_bytes as u32;
                end = sum;
            }
        }
        Ok(end)
    }
}
