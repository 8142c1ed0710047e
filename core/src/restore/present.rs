//! What stands in the target's place, when it may be replaced.
//!
//! Often that is an older state of the same history: last night's copy, brought up to date. Then only
//! what has changed since has to be fetched. What changed, the files themselves know: a page that
//! none of those since that state holds is what it was. So all that is wanted of the file is its
//! state, the checksum of all its pages.
//!
//! The way there is not that of a whole restore: that begins with the last snapshot, which holds every
//! page. Here the files that were merged on the way are followed back past it, as long as they are not
//! more than it ([`Inventory::backwards`](super::Inventory)); the snapshot is for what none of them has.
//!
//! First their headers are read, the newest first. One that leads to this state, or begins with it,
//! places the file: what is before that is spared, and no byte of it read.
//!
//! If none does, it may be a state in the middle of a file that was merged since; or SQLite has
//! written its own bytes into page 1, as it does when the journal mode is changed; or somebody has
//! changed a few pages; or it is another database. Nothing tells which. Then the pages are fetched as
//! for a whole restore, but page 1 before all others and the files one after the other from the newest,
//! and after each page it is known which state the result would have with all others as they stand
//! there: once that is the target's, no more are fetched. If it never comes to that, everything has
//! been fetched, each page once.
//!
//! The file is not believed. What is taken from it is read again, held against the checksums that went
//! into the proof, and written beside the target: if somebody has changed it meanwhile, it is not used.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::machine::{File, Key, Phase, Restorer, Then, Work};
use super::survey::{head_request, read_header};
use crate::checksum::DbXor;
use crate::ids::{DbChecksum, Now, PageNo, PageSize};
use crate::job::Job;
use crate::machine::{Actions, Chunk, Fact, OutputError, OutputRequest, PART_BYTES_MAX, Request, Severity};

/// What is known of it.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Presence {
    /// It has not been looked at.
    Unseen,
    /// There is none, or it is of no use.
    Useless,
    /// A database with pages of the target's size.
    Seen(Box<Present>),
    /// None that is of use, but a killed restore has left this.
    Left(Box<Present>),
}

/// The checksum of each of its pages: eight bytes a page.
#[derive(Clone, PartialEq)]
pub(super) struct Present {
    page_size: PageSize,
    lock_page: PageNo,
    /// Zero for the lock page, and for what a killed restore has not written.
    sums: Vec<u64>,
    xor: DbXor,
}

impl core::fmt::Debug for Present {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "[{} pages, state {}]", self.sums.len(), self.state())
    }
}

impl Present {
    pub(super) fn new(page_size: PageSize, pending_byte: u64) -> Present {
        let lock_page = page_size.lock_page(pending_byte);
        Present { page_size, lock_page, sums: Vec::new(), xor: DbXor::new() }
    }

    pub(super) fn page_size(&self) -> PageSize {
        self.page_size
    }

    pub(super) fn lock_page(&self) -> PageNo {
        self.lock_page
    }

    pub(super) fn pages(&self) -> u32 {
        self.sums.len() as u32
    }

    pub(super) fn state(&self) -> DbChecksum {
        self.xor.finish()
    }

    /// The checksum of a page; `None` for one that is not there.
    pub(super) fn sum(&self, page: PageNo) -> Option<u64> {
        self.sums.get(page.get() as usize - 1).copied().filter(|&sum| sum != 0)
    }

    /// The checksums of the first `pages`, together.
    pub(super) fn xor_of(&self, pages: u32) -> DbXor {
        let mut xor = self.xor;
        for &sum in self.sums.iter().skip(pages as usize).filter(|&&sum| sum != 0) {
            xor.toggle(sum);
        }
        xor
    }

    /// Takes the checksums of the pages that follow. Zero stands for one that is not there.
    pub(super) fn push(&mut self, sums: &[u64]) {
        for &sum in sums {
            let absent = sum == 0 || self.sums.len() + 1 == self.lock_page.get() as usize;
            if !absent {
                self.xor.toggle(sum);
            }
            self.sums.push(if absent { 0 } else { sum });
        }
    }
}

/// Reading it.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Look {
    /// Awaiting the newest header: without a state to prove the result by, it is of no use.
    Header,
    /// Reading its pages; whether the last of them have come.
    Pages(Box<Present>, bool),
}

/// Reading the headers of the plan.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Place {
    /// The file whose turn it is.
    at: usize,
    /// The lowest file asked for.
    asked_down_to: usize,
}

impl Restorer {
    /// Looks at what stands in the target's place, if that may be of use.
    pub(super) fn begin_presence(&mut self, now: Now, out: &mut Actions) {
        (self.spared, self.pages_kept) = (None, 0);
        if matches!(self.presence, Presence::Left(_)) {
            // It was discarded with the file.
            self.presence = Presence::Useless;
        }
        match self.presence {
            Presence::Useless | Presence::Left(_) => self.begin_survey(now, out),
            Presence::Seen(_) => self.begin_place(now, out),
            Presence::Unseen => {
                self.phase = Phase::Look(Look::Header);
                let at = self.files.len() - 1;
                self.flight.send(now, Key::Head(at), head_request(&self.files[at].listed), out);
            }
        }
    }

    /// Takes a header that was asked for on the way to the survey.
    pub(super) fn take_header(&mut self, now: Now, at: usize, bytes: &[u8], out: &mut Actions) {
        let Ok(header) = read_header(&self.files[at].listed, bytes) else {
            // The survey will come to it, and say what is wrong.
            self.flight.cancel_all(out);
            return self.begin_survey(now, out);
        };
        self.files[at].header = Some(header);
        if self.phase != Phase::Look(Look::Header) {
            return self.pump_place(now, out);
        }
        if !self.files[at].is_chained() {
            return self.useless(now, out);
        }
        let present = Present::new(header.page_size, self.config.pending_byte);
        self.phase = Phase::Look(Look::Pages(Box::new(present), false));
        self.look_on(out);
    }

    fn look_on(&mut self, out: &mut Actions) {
        let Phase::Look(Look::Pages(present, _)) = &self.phase else { return };
        let offset = u64::from(present.pages()) * u64::from(present.page_size.get());
        let request = OutputRequest::ReadTarget { offset, len: PART_BYTES_MAX as u32 };
        self.submit(Work::Look, Request::Output(request), out);
    }

    /// Takes some of its bytes.
    pub(super) fn looked(&mut self, now: Now, result: Result<Chunk, OutputError>, out: &mut Actions) {
        let Phase::Look(Look::Pages(present, last)) = &mut self.phase else { return };
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) => {
                let text = format!("what stands in the target's place cannot be read: {}", error.text);
                out.notify(Severity::Warn, Fact::Remark { text });
                return self.useless(now, out);
            }
        };
        let page_size = present.page_size;
        if present.sums.is_empty() && !is_database(&bytes, page_size) {
            return self.useless(now, out);
        }
        *last = bytes.len() < PART_BYTES_MAX;
        // What follows the last whole page, SQLite does not read either.
        let whole = bytes.len() - bytes.len() % page_size.bytes();
        if whole == 0 {
            return self.seen(now, out);
        }
        let first = PageNo::new(present.pages() + 1).expect("pages count from 1");
        let job = Job::Checksums { first, page_size, bytes: bytes.slice(0, whole) };
        self.submit(Work::LookSums, Request::Compute(job), out);
    }

    pub(super) fn look_summed(&mut self, now: Now, sums: &[u64], out: &mut Actions) {
        let Phase::Look(Look::Pages(present, last)) = &mut self.phase else { return };
        present.push(sums);
        if *last { self.seen(now, out) } else { self.look_on(out) }
    }

    fn seen(&mut self, now: Now, out: &mut Actions) {
        let Phase::Look(Look::Pages(present, _)) = core::mem::replace(&mut self.phase, Phase::Idle) else {
            return;
        };
        self.presence = Presence::Seen(present);
        self.begin_place(now, out);
    }

    /// Restores as if nothing stood there.
    fn useless(&mut self, now: Now, out: &mut Actions) {
        self.presence = Presence::Useless;
        self.begin_survey(now, out);
    }

    fn begin_place(&mut self, now: Now, out: &mut Actions) {
        let (usable, target) = (self.usable(), self.target.expect("it was planned for"));
        let ways = usable.backwards(target, &self.files[0].listed);
        let known = self.files.pop().expect("a plan holds a file");
        self.files = ways.into_iter().map(File::new).collect();
        for file in self.files.iter_mut().filter(|file| file.listed == known.listed) {
            file.header = known.header;
        }
        let count = self.files.len();
        self.phase = Phase::Place(Place { at: count - 1, asked_down_to: count });
        self.pump_place(now, out);
    }

    /// Reads headers until one names the state that stands there.
    fn pump_place(&mut self, now: Now, out: &mut Actions) {
        let (Phase::Place(place), Presence::Seen(present)) = (&mut self.phase, &self.presence) else {
            return;
        };
        let (state, pages, page_size) = (Some(present.state()), present.pages(), present.page_size);
        let newest = self.files.len() - 1;
        while let Some(header) = self.files[place.at].header {
            if place.at == newest && !self.files[newest].is_chained() {
                self.flight.cancel_all(out);
                self.presence = Presence::Useless;
                return self.begin_plan(now, out);
            }
            let spared = if header.page_size != page_size {
                None
            } else if header.chain.post == state && header.commit == pages {
                Some(place.at + 1)
            } else if header.chain.pre == state {
                Some(place.at)
            } else if place.at > 0 {
                place.at -= 1;
                continue;
            } else {
                None
            };
            self.spared = spared;
            self.flight.cancel_all(out);
            return self.begin_survey(now, out);
        }
        let lowest = (place.at + 1).saturating_sub(self.config.parallelism);
        while place.asked_down_to > lowest {
            place.asked_down_to -= 1;
            let (at, file) = (place.asked_down_to, &self.files[place.asked_down_to]);
            if file.header.is_none() {
                self.flight.send(now, Key::Head(at), head_request(&file.listed), out);
            }
        }
    }

    /// Whether pages of what stands there are used although its state is not known.
    pub(super) fn guesses(&self) -> bool {
        matches!(self.presence, Presence::Seen(_) | Presence::Left(_)) && self.spared.is_none()
    }

    /// What is there already of the result, wherever it is.
    pub(super) fn present(&self) -> Option<&Present> {
        match &self.presence {
            Presence::Seen(present) | Presence::Left(present) => Some(present),
            Presence::Unseen | Presence::Useless => None,
        }
    }

    /// Begins again as if nothing stood there.
    pub(super) fn restore_whole(&mut self, why: &str, out: &mut Actions) {
        let text: String = format!("{why}: restoring whole");
        out.notify(Severity::Warn, Fact::Remark { text });
        (self.presence, self.resume) = (Presence::Useless, false);
        self.settle(Then::Plan, out);
    }
}

/// Whether a file that begins so is a database with such pages.
fn is_database(bytes: &[u8], page_size: PageSize) -> bool {
    let size = bytes.get(16..18).map(|size| u16::from_be_bytes([size[0], size[1]]));
    bytes.starts_with(b"SQLite format 3\0") && size.and_then(PageSize::from_u16) == Some(page_size)
}
