//! Captured pages that wait for their segment.
//!
//! The newest image of each page since the last segment, in a bounded buffer. Checkpoints do not
//! end a segment: what is here no longer needs the WAL. Past the bound only the page numbers are
//! kept, and the images are read again from a pinned snapshot when the store can take them; the
//! numbers of a whole database fit where its images do not, and nothing is written to local disk
//! (`docs/decisions/0004-no-spool.md`).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::ids::{Mono, PageNo, PageSize};
use crate::job::Image;
use crate::machine::Chunk;
use crate::mutant::{self, Mutant};
use crate::wal::{FrameHeader, WalPosition};

/// Pages captured since the last segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending {
    /// Newest image by page; empty images once over the bound.
    pages: BTreeMap<u32, Vec<u8>>,
    bytes: usize,
    bytes_max: usize,
    over: bool,
    /// Pages in the database at the last commit captured; 0 before the first.
    commit: u32,
    /// The fewest pages that the database had since the last segment, at the commits that were read:
    /// one whose frame was out of date is not among them.
    floor: u32,
    /// When the first frame was captured.
    pub since: Option<Mono>,
    /// Frames captured since the last segment.
    pub frames: u64,
    /// The first frame's position before it, for the segment's header.
    pub start: Option<WalPosition>,
}

impl Pending {
    /// Nothing waits; the database has `pages` pages.
    pub fn new(bytes_max: usize, pages: u32) -> Pending {
        Pending {
            pages: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            over: false,
            commit: pages,
            floor: pages,
            since: None,
            frames: 0,
            start: None,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Whether the images were given up.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Bytes of images held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Distinct pages that wait.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Pages in the database at the last commit captured.
    pub fn commit(&self) -> u32 {
        self.commit
    }

    /// Takes one committed frame.
    pub fn take(&mut self, now: Mono, frame: &FrameHeader, data: &[u8]) {
        self.since.get_or_insert(now);
        self.frames += 1;
        let image = self.pages.entry(frame.page.get()).or_default();
        let newest = image.is_empty() || !mutant::on(Mutant::OldestImageKept);
        if !self.over && newest {
            self.bytes += data.len() - image.len();
            image.clear();
            image.extend_from_slice(data);
            if self.bytes > self.bytes_max {
                self.give_up_images();
            }
        }
        if frame.commit != 0 {
            self.commit = frame.commit;
            self.floor = self.floor.min(frame.commit);
            let past = frame.commit.saturating_add(u32::from(!mutant::on(Mutant::CommitCutsLastPage)));
            while let Some(last) = self.pages.last_entry().filter(|last| *last.key() >= past) {
                self.bytes -= last.remove().len();
            }
        }
    }

    /// Counts frames that were not read, since later ones hold their pages.
    pub fn note_outdated(&mut self, frames: u64) {
        self.frames += frames;
    }

    fn give_up_images(&mut self) {
        self.over = true;
        self.bytes = 0;
        self.pages.values_mut().for_each(|image| *image = Vec::new());
    }

    /// The pages that wait, without images.
    pub fn page_numbers(&self) -> impl Iterator<Item = PageNo> + '_ {
        self.pages.keys().map(|no| PageNo::new(*no).expect("pages count from 1"))
    }

    /// The first page that growth must have written and that was not captured; `None` if the set
    /// is complete. Every page past the smallest size since the last segment is new and stands in
    /// the WAL, except the lock page.
    pub fn missing(&self, lock_page: PageNo) -> Option<u32> {
        let mut expected = self.floor.saturating_add(1);
        for no in self.pages.range(expected..).map(|(no, _)| *no) {
            if expected == lock_page.get() {
                expected += 1;
            }
            if no != expected {
                return Some(expected);
            }
            expected += 1;
        }
        if expected == lock_page.get() && expected <= self.commit {
            expected += 1;
        }
        (expected <= self.commit).then_some(expected)
    }

    /// Empties the buffer into images in ascending order.
    pub fn freeze(&mut self, page_size: PageSize) -> Vec<Image> {
        assert!(!self.over, "images that were given up cannot be sent");
        let pages = core::mem::take(&mut self.pages);
        let images = pages
            .into_iter()
            .filter(|(no, _)| *no <= self.floor || !mutant::on(Mutant::GrowthOmitted))
            .map(|(no, image)| {
                assert_eq!(image.len(), page_size.bytes(), "an image is one page");
                (PageNo::new(no).expect("pages count from 1"), Chunk::from(image))
            })
            .collect();
        self.reset(self.commit);
        images
    }

    /// Forgets everything; the database has `pages` pages.
    pub fn reset(&mut self, pages: u32) {
        *self = Pending::new(self.bytes_max, pages);
    }
}
