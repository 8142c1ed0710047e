//! Taking pages from what stands in the target's place: those that were not fetched.
//!
//! The result is proven by then, from the checksums of the pages that were fetched and of those that
//! stand there. So each of the latter is read once more, and what is written is what was just found
//! to have the checksum that went into the proof.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::machine::{Phase, Restorer, Work};
use super::present::{Presence, Present};
use crate::ids::PageNo;
use crate::job::Job;
use crate::machine::{Actions, Chunk, OutputError, OutputRequest, PART_BYTES_MAX, Request};

/// Windows under way at once.
const AHEAD_WINDOWS: usize = 4;
const CHANGED: &str = "the database in the target's place has changed since it was looked at";

/// A bit a page, from page 1 on.
#[derive(Clone, PartialEq)]
pub(super) struct Pages(Vec<u64>);

impl core::fmt::Debug for Pages {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let count: u32 = self.0.iter().map(|bits| bits.count_ones()).sum();
        write!(f, "[{count} pages]")
    }
}

impl Pages {
    pub(super) fn new(commit: u32) -> Pages {
        Pages(alloc::vec![0; (commit as usize).div_ceil(64)])
    }

    pub(super) fn insert(&mut self, page: PageNo) {
        let at = page.get() as usize - 1;
        self.0[at / 64] |= 1 << (at % 64);
    }

    pub(super) fn has(&self, page: PageNo) -> bool {
        let at = page.get() as usize - 1;
        self.0[at / 64] >> (at % 64) & 1 == 1
    }
}

/// The pages in windows of a piece each.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Keep {
    fetched: Pages,
    /// The last page that could be kept.
    last: u32,
    /// The first page of the window that is looked at next.
    next: u32,
    /// Windows under way, and the bytes of those that were read.
    open: BTreeMap<u32, Chunk>,
}

impl Keep {
    /// The pages of the window from `first` on that are kept.
    fn kept<'a>(&'a self, present: &'a Present, first: u32) -> impl Iterator<Item = (PageNo, u64)> + 'a {
        let end = self.last.min(first + window(present) - 1);
        let pages = (first..=end).filter_map(PageNo::new).filter(|&page| !self.fetched.has(page));
        pages.filter_map(|page| Some((page, present.sum(page)?)))
    }

    /// The next window with a page that is kept.
    fn advance(&mut self, present: &Present) -> Option<u32> {
        while self.next <= self.last {
            let first = self.next;
            self.next += window(present);
            if self.kept(present, first).next().is_some() {
                return Some(first);
            }
        }
        None
    }
}

/// Pages in a window.
fn window(present: &Present) -> u32 {
    (PART_BYTES_MAX / present.page_size().bytes()) as u32
}

impl Restorer {
    /// Takes all pages that were not fetched.
    pub(super) fn begin_keep(&mut self, fetched: Pages, out: &mut Actions) {
        let (Some(header), Presence::Seen(present)) = (self.target_header(), &self.presence) else {
            unreachable!("pages are kept of a file that was seen, for a target that is known")
        };
        let last = header.commit.min(present.pages());
        self.pages_kept = 0;
        self.phase = Phase::Keep(Keep { fetched, last, next: 1, open: BTreeMap::new() });
        self.pump_keep(out);
    }

    fn pump_keep(&mut self, out: &mut Actions) {
        loop {
            let (Phase::Keep(keep), Presence::Seen(present)) = (&mut self.phase, &self.presence) else {
                return;
            };
            if keep.open.len() >= AHEAD_WINDOWS {
                return;
            }
            let Some(first) = keep.advance(present) else { break };
            keep.open.insert(first, Chunk::default());
            let page_bytes = present.page_size().get();
            let pages = window(present).min(keep.last - first + 1);
            let request = OutputRequest::ReadTarget {
                offset: u64::from(first - 1) * u64::from(page_bytes),
                len: pages * page_bytes,
            };
            self.submit(Work::Keep(first), Request::Output(request), out);
        }
        if matches!(&self.phase, Phase::Keep(keep) if keep.open.is_empty()) {
            self.proven = true;
            self.finish(out);
        }
    }

    /// Takes a window's bytes.
    pub(super) fn keep_read(&mut self, first: u32, result: Result<Chunk, OutputError>, out: &mut Actions) {
        let (Phase::Keep(keep), Presence::Seen(present)) = (&mut self.phase, &self.presence) else { return };
        let page_size = present.page_size();
        let wanted = window(present).min(keep.last - first + 1) as usize * page_size.bytes();
        let Some(bytes) = result.ok().filter(|bytes| bytes.len() == wanted) else {
            return self.restore_whole(CHANGED, out);
        };
        keep.open.insert(first, bytes.clone());
        let page = PageNo::new(first).expect("pages count from 1");
        let job = Job::Checksums { first: page, page_size, bytes };
        self.submit(Work::KeepSums(first), Request::Compute(job), out);
    }

    pub(super) fn keep_summed(&mut self, first: u32, sums: &[u64], out: &mut Actions) {
        let (Phase::Keep(keep), Presence::Seen(present)) = (&mut self.phase, &self.presence) else { return };
        let Some(bytes) = keep.open.remove(&first) else { return };
        let page_bytes = present.page_size().bytes();
        let mut stretches: Vec<(u32, u32)> = Vec::new();
        let mut changed = false;
        for (page, sum) in keep.kept(present, first) {
            let at = page.get() - first;
            changed |= sums.get(at as usize) != Some(&sum);
            match stretches.last_mut() {
                Some((_, end)) if *end == at => *end += 1,
                _ => stretches.push((at, at + 1)),
            }
        }
        if changed {
            return self.restore_whole(CHANGED, out);
        }
        // It counts as under way until it is written.
        keep.open.insert(first, Chunk::default());
        let mut writes = Vec::new();
        for (at, end) in stretches {
            let offset = (u64::from(first - 1) + u64::from(at)) * page_bytes as u64;
            writes.push((offset, bytes.slice(at as usize * page_bytes, end as usize * page_bytes)));
            self.pages_kept += u64::from(end - at);
        }
        self.submit(Work::KeepWrite(first), Request::Output(OutputRequest::Write(writes)), out);
    }

    /// A window is written.
    pub(super) fn kept(&mut self, first: u32, out: &mut Actions) {
        let Phase::Keep(keep) = &mut self.phase else { return };
        keep.open.remove(&first);
        self.pump_keep(out);
    }
}
