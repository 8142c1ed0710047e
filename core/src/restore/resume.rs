//! Going on from what a killed restore has left.
//!
//! The file that it built beside the target is still there, and what it wrote is in it. No record says
//! what that is: a record would have to be synced in step with the file, and the pages tell by
//! themselves. A page that was not written reads as zeros. So the others are taken as they are, those
//! that are missing fetched, and the state of all together held against the target's, as for a copy
//! that stands in the target's place. Where it is another (the kill cut a write in two, the power
//! failed before all was on the disk, or the killed restore had another target), the other pages are
//! fetched as well, until it is the target's or everything has been fetched.
//!
//! The file is locked for as long as it is built, so nobody changes what was read of it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::fetch::{Fetch, Task};
use super::keep::Pages;
use super::machine::{File, Phase, Restorer, Work};
use super::overlap::Early;
use super::present::{Presence, Present};
use crate::ids::{Now, PageNo};
use crate::job::Job;
use crate::machine::{Actions, Chunk, OutputError, OutputRequest, PART_BYTES_MAX, Request};

/// Reading what was left.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Recall {
    left: Box<Present>,
    /// Of the bytes at hand: which pages were written.
    written: Vec<bool>,
    /// Whether they are the last.
    last: bool,
}

impl Present {
    /// How many of the first `pages` are there and were not fetched.
    pub(super) fn count(&self, pages: u32, fetched: &Pages) -> u64 {
        let pages = (1..=pages).filter_map(PageNo::new);
        pages.filter(|&page| self.sum(page).is_some() && !fetched.has(page)).count() as u64
    }
}

impl Restorer {
    /// Whether what a killed restore has left is of use: only the target's state can tell.
    pub(super) fn resumes(&self) -> bool {
        let proof = self.target_header().is_some_and(|header| header.chain.post.is_some());
        self.resume && proof && self.presence == Presence::Useless
    }

    /// The file is there; is anything in it?
    pub(super) fn begin_recall(&mut self, now: Now, out: &mut Actions) {
        self.early = Early::Open;
        let header = self.target_header().filter(|_| self.resumes());
        let Some(header) = header else { return self.begin_fetch(now, out) };
        let left = Box::new(Present::new(header.page_size, self.config.pending_byte));
        self.phase = Phase::Recall(Recall { left, written: Vec::new(), last: false });
        self.recall_on(out);
    }

    fn recall_on(&mut self, out: &mut Actions) {
        let Phase::Recall(recall) = &self.phase else { return };
        let offset = u64::from(recall.left.pages()) * u64::from(recall.left.page_size().get());
        let request = OutputRequest::ReadBuilt { offset, len: PART_BYTES_MAX as u32 };
        self.submit(Work::Recall, Request::Output(request), out);
    }

    pub(super) fn recalled(&mut self, now: Now, result: Result<Chunk, OutputError>, out: &mut Actions) {
        let early = self.early == Early::Looking;
        if !early && !matches!(self.phase, Phase::Recall(_)) {
            return;
        }
        let Ok(bytes) = result else {
            return self.restore_whole("what a killed restore has left cannot be read", out);
        };
        if early {
            return self.looked_early(now, !bytes.is_empty(), out);
        }
        let Phase::Recall(recall) = &mut self.phase else { return };
        let page_size = recall.left.page_size();
        recall.last = bytes.len() < PART_BYTES_MAX;
        let whole = bytes.len() - bytes.len() % page_size.bytes();
        if whole == 0 {
            return self.recalled_all(now, out);
        }
        let bytes = bytes.slice(0, whole);
        let pages = bytes.chunks_exact(page_size.bytes());
        recall.written = pages.map(|page| page.iter().any(|&byte| byte != 0)).collect();
        let first = PageNo::new(recall.left.pages() + 1).expect("pages count from 1");
        let lock_page = recall.left.lock_page().get().checked_sub(first.get()).map(|at| at as usize);
        if lock_page.and_then(|at| recall.written.get(at)) == Some(&true) {
            // Its state does not tell of that page, and SQLite's file has zeros there.
            return self.restore_whole("what was left has a lock page, which no restore writes", out);
        }
        self.submit(Work::RecallSums, Request::Compute(Job::Checksums { first, page_size, bytes }), out);
    }

    pub(super) fn recall_summed(&mut self, now: Now, sums: &[u64], out: &mut Actions) {
        let Phase::Recall(recall) = &mut self.phase else { return };
        let there = sums.iter().zip(&recall.written).map(|(&sum, &written)| if written { sum } else { 0 });
        let there: Vec<u64> = there.collect();
        recall.left.push(&there);
        if recall.last { self.recalled_all(now, out) } else { self.recall_on(out) }
    }

    fn recalled_all(&mut self, now: Now, out: &mut Actions) {
        let Phase::Recall(recall) = core::mem::replace(&mut self.phase, Phase::Idle) else { return };
        if recall.left.pages() > 0 {
            self.presence = Presence::Left(recall.left);
        }
        self.begin_fetch(now, out);
    }

    /// First what holds a page that is missing, and all else only if that is not enough.
    pub(super) fn plan_missing(&self, left: &Present, fetch: &mut Fetch) {
        let mut rest = Vec::new();
        for (at, file) in self.files.iter().enumerate().skip(self.used_from) {
            for (task, first, end) in tasks(at, file) {
                let missing = |page: PageNo| left.sum(page).is_none();
                match file.wins.as_slice()[first..end].iter().any(|win| missing(win.page)) {
                    true => fetch.tasks.push_back(task),
                    false => rest.push(Task { step: 1, ..task }),
                }
            }
        }
        fetch.tasks.extend(rest);
    }
}

/// What can be fetched of a file, each with its wins.
fn tasks(at: usize, file: &File) -> Vec<(Task, usize, usize)> {
    let wins = |task: &Task| match task.run {
        Some(run) => (file.runs[run].first, file.runs[run].end),
        None => (0, file.wins.as_slice().len()),
    };
    let tasks = file.tasks(at, false).into_iter();
    tasks.map(|task| (task, wins(&task).0, wins(&task).1)).collect()
}
