//! The wal-index: what of the WAL is committed, what of that is in the database, who reads.

use crate::ring0::reading::checksum;

/// A read mark that no reader uses.
pub(super) const MARK_UNUSED: u32 = u32::MAX;

/// Read marks; the first stands for the database file alone.
pub(super) const MARKS: usize = 5;

/// The header, of which the wal-index holds two equal copies.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Header {
    pub(super) change: u32,
    pub(super) is_init: bool,
    pub(super) big_endian: bool,
    /// 0 after the recovery of an empty WAL.
    pub(super) page_bytes: u32,
    pub(super) mx_frame: u32,
    pub(super) pages: u32,
    pub(super) checksum: (u32, u32),
    pub(super) salts: (u32, u32),
}

/// The shared memory of one database.
#[derive(Default, Debug)]
pub(super) struct Index {
    pub(super) header: Header,
    pub(super) backfill: u32,
    pub(super) attempted: u32,
    pub(super) marks: [u32; MARKS],
    /// The page of each frame.
    pages: Vec<u32>,
    /// The frames of each page, in order.
    frames: Vec<Vec<u32>>,
}

impl Index {
    /// Publishes a header.
    pub(super) fn publish(&mut self, header: &mut Header) {
        header.is_init = true;
        self.header = *header;
    }

    /// Notes which page a frame holds; what was noted about it and later ones is forgotten.
    pub(super) fn append(&mut self, frame: u32, page: u32) {
        self.forget_from(frame);
        assert_eq!(self.pages.len() as u32 + 1, frame, "frames are appended in order");
        self.pages.push(page);
        let at = page as usize;
        if self.frames.len() <= at {
            self.frames.resize_with(at + 1, Vec::new);
        }
        self.frames[at].push(frame);
    }

    fn forget_from(&mut self, frame: u32) {
        while self.pages.len() as u32 >= frame {
            let page = self.pages.pop().expect("there are as many");
            let gone = self.frames[page as usize].pop();
            debug_assert!(gone.is_some_and(|gone| gone >= frame), "noted under its page");
        }
    }

    /// Forgets every frame.
    pub(super) fn clear(&mut self) {
        self.forget_from(1);
    }

    /// The newest frame of a page from `low` to `high`, both included.
    pub(super) fn find(&self, page: u32, low: u32, high: u32) -> Option<u32> {
        let frames = self.frames.get(page as usize)?;
        frames.iter().rev().copied().find(|frame| *frame <= high).filter(|frame| *frame >= low)
    }

    /// The pages of `count` frames from `first` on, as they lie in memory: fewer where it has none.
    pub(super) fn frame_pages(&self, first: u32, count: u32) -> Vec<u8> {
        let pages = self.pages.iter().skip(first as usize - 1).take(count as usize);
        pages.flat_map(|page| page.to_ne_bytes()).collect()
    }

    /// Pages that have frames, in ascending order, each with its newest frame up to `high`.
    pub(super) fn newest(&self, high: u32) -> Vec<(u32, u32)> {
        let pages = 1..self.frames.len() as u32;
        pages.filter_map(|page| Some((page, self.find(page, 1, high)?))).collect()
    }

    /// The first 136 bytes as they lie in memory.
    pub(super) fn bytes(&self) -> [u8; 136] {
        let mut bytes = [0; 136];
        let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        let header = &self.header;
        if header.is_init {
            put(0, 3_007_000);
            put(8, header.change);
            put(16, header.mx_frame);
            put(20, header.pages);
            put(24, header.checksum.0);
            put(28, header.checksum.1);
        }
        put(96, self.backfill);
        self.marks.iter().enumerate().for_each(|(slot, mark)| put(100 + 4 * slot, *mark));
        put(128, self.attempted);
        if header.is_init {
            bytes[12] = 1;
            bytes[13] = u8::from(header.big_endian);
            let page_bytes = (header.page_bytes & 0xff00 | header.page_bytes >> 16) as u16;
            bytes[14..16].copy_from_slice(&page_bytes.to_ne_bytes());
            bytes[32..36].copy_from_slice(&header.salts.0.to_be_bytes());
            bytes[36..40].copy_from_slice(&header.salts.1.to_be_bytes());
            let sum = checksum((0, 0), &bytes[..40], cfg!(target_endian = "big"));
            bytes[40..44].copy_from_slice(&sum.0.to_ne_bytes());
            bytes[44..48].copy_from_slice(&sum.1.to_ne_bytes());
            bytes.copy_within(..48, 48);
        }
        bytes
    }
}
