//! Old images of pages that the application changes while a base is streamed.
//!
//! A base is one state of the database, and to send it can take hours. Were its pin held for so
//! long, the WAL could not be started over. So capture and checkpoints go on meanwhile, and a page
//! that the base has not read yet is put aside, as it was in the base's state, before the pin
//! moves past its change: from then on a checkpoint, ours or the application's, may overwrite it.
//! A capture puts aside what it endangers before it ends ([`Replicator::put_aside_next`]), and a
//! pin never ends but behind a capture; so no script can forget it.
//!
//! Where a page stands in the base's state, until it is put aside: in the WAL frame that the
//! overlay names, until the WAL is started over; afterwards, and without such a frame, in the
//! database file. That the wal-index counts a frame as copied back says nothing before that: a
//! checkpoint passes over a page that a later frame holds, one that it may not copy yet. (The
//! simulator found that, by the checksums.) The WAL is started over only once all of it is copied
//! back, and nobody copies back a change of the page before the pin has moved past it. Whether it
//! was started over is seen in the index that comes with each answer: its salts change before its
//! first frame does.
//!
//! What is put aside goes to a scratch file, which dies with the process. Where that cannot be
//! written, the base begins again with a pin that stays.

use super::*;
use crate::machine::ScratchRequest;
use crate::wal::FrameHeader;

/// Images are written to the scratch file so many bytes at a time.
const BATCH_BYTES: usize = 1 << 18;

/// What a base has put aside, and what it still must.
#[derive(Clone, PartialEq, Debug, Default)]
pub(in crate::engine) struct Aside {
    /// The number of the scratch file.
    file: u64,
    /// Pages that were changed since the base's state and have not been put aside.
    endangered: BTreeSet<u32>,
    /// Where in the scratch file the image of a page is, counted in pages.
    places: BTreeMap<u32, u32>,
    /// Images that have been read and not written, in the order of their places.
    batch: Vec<u8>,
    /// The page that is being read, and whether from the WAL.
    reading: Option<(u32, bool)>,
    /// From here on a smaller database has cut pages off, and they are noted.
    cut_from: u32,
}

impl Aside {
    /// Nothing yet, of a database of `pages` pages.
    pub(super) fn new(file: u64, pages: u32) -> Aside {
        Aside { file, cut_from: pages.saturating_add(1), ..Aside::default() }
    }

    /// Runs of pages within `pages` that were put aside side by side: first page, first place,
    /// number.
    pub(super) fn runs(&self, pages: core::ops::Range<u32>) -> Vec<(u32, u32, u32)> {
        let mut runs: Vec<(u32, u32, u32)> = Vec::new();
        for (&page, &place) in self.places.range(pages) {
            match runs.last_mut() {
                Some((first, at, count)) if *first + *count == page && *at + *count == place => *count += 1,
                _ => runs.push((page, place, 1)),
            }
        }
        runs
    }

    /// Whether a page was put aside.
    pub(super) fn holds(&self, page: u32) -> bool {
        self.places.contains_key(&page)
    }

    /// The request that reads a run.
    pub(super) fn read(&self, place: u32, pages: u32, page_size: PageSize) -> ScratchRequest {
        let offset = u64::from(place) * u64::from(page_size.get());
        ScratchRequest::Read { file: self.file, offset, len: pages * page_size.get() }
    }
}

impl Base {
    /// Whether capture goes on beside it, so that images may have to be put aside.
    pub(in crate::engine) fn is_followed(&self) -> bool {
        self.aside.is_some()
    }

    /// The first page that has not been read in the second pass.
    fn unread_from(&self) -> u32 {
        match self.step {
            BaseStep::Read | BaseStep::Aside | BaseStep::Patch => self.chunk.0,
            _ => self.chunk.1,
        }
    }

    /// A frame was captured, whose page, or what a smaller database cuts off, may be overwritten
    /// once the pin has moved.
    pub(in crate::engine) fn note_captured(&mut self, frame: &FrameHeader) {
        let unread = self.unread_from();
        let Some(aside) = &mut self.aside else { return };
        let cut = match frame.commit {
            0 => None,
            commit => Some(unread.max(commit.saturating_add(1))..aside.cut_from),
        };
        let cut = cut.filter(|cut| !cut.is_empty());
        if let Some(cut) = &cut {
            aside.cut_from = cut.start;
        }
        let changed = Some(frame.page.get()).filter(|page| *page >= unread && self.differ.contains(page));
        let cut = cut.map(|cut| self.differ.range(cut));
        let pages = changed.into_iter().chain(cut.into_iter().flatten().copied());
        let pages = pages.filter(|_| !mutant::on(Mutant::AsideForgotten));
        aside.endangered.extend(pages.filter(|page| !aside.places.contains_key(page)));
    }

    /// Reads the page in the base's state.
    fn aside_request(&self, page: u32, index: &WalIndex) -> (SourceRequest, bool) {
        let page_bytes = self.page_size.get();
        match self.overlay.get(&page) {
            Some(frame) if self.is_in_wal(index) => {
                let offset = frame_offset(self.page_size, *frame) + FRAME_HEADER_BYTES as u64;
                (SourceRequest::ReadWal { offset, len: page_bytes, recent: true }, true)
            }
            _ => {
                let offset = u64::from(page - 1) * u64::from(page_bytes);
                (SourceRequest::ReadDatabase { offset, len: page_bytes, recent: true }, false)
            }
        }
    }

    /// A run of images came back from the scratch file.
    pub(super) fn took_aside(&mut self, bytes: &[u8]) {
        let (page, ..) = self.aside_runs.pop().expect("set with the step");
        let at = (page - self.chunk.0) as usize * self.page_size.bytes();
        self.buffer[at..at + bytes.len()].copy_from_slice(bytes);
        self.step = self.after_patches();
    }

    /// Whether the frames of the overlay still stand in the WAL.
    pub(super) fn is_in_wal(&self, index: &WalIndex) -> bool {
        index.salts == self.end.salts
    }
}

impl Replicator {
    /// Whether capture and checkpoints go on although a base is under way.
    pub(in crate::engine) fn base_is_followed(&self) -> bool {
        self.base.as_ref().is_some_and(Base::is_followed)
    }

    /// Whether a base is using the link, or will before it lets others.
    pub(in crate::engine) fn base_uses_link(&self) -> bool {
        self.base.as_ref().is_some_and(|base| {
            let reads = matches!(base.step, BaseStep::Read | BaseStep::Aside | BaseStep::Patch);
            !base.is_followed() || (reads && base.op.is_some())
        })
    }

    /// Whether something is endangered still, for which there is no time under the write lock.
    pub(in crate::engine) fn endangers(&self) -> bool {
        self.base.as_ref().and_then(|base| base.aside.as_ref()).is_some_and(|it| !it.endangered.is_empty())
    }

    /// At the end of a capture: reads or writes the next of what it has endangered; false once all
    /// of that is safe, or the write lock has been held for long.
    pub(in crate::engine) fn put_aside_next(&mut self, now: Now, out: &mut Actions) -> bool {
        let Some(index) = self.source.index else { return false };
        let held_long = self.source.lock_is_held_long(now);
        let Some(base) = &mut self.base else { return false };
        let unread = base.unread_from();
        let Some(aside) = &mut base.aside else { return false };
        aside.endangered = aside.endangered.split_off(&unread);
        let next = aside.endangered.first().copied().filter(|_| !held_long);
        if let Some(page) = next.filter(|_| aside.batch.len() < BATCH_BYTES) {
            let (request, from_wal) = base.aside_request(page, &index);
            base.aside.as_mut().expect("matched above").reading = Some((page, from_wal));
            self.source_read_aside(now, request, out);
            return true;
        }
        if aside.batch.is_empty() {
            return false;
        }
        let bytes = core::mem::take(&mut aside.batch);
        let page_bytes = u64::from(base.page_size.get());
        let offset = aside.places.len() as u64 * page_bytes - bytes.len() as u64;
        let request = ScratchRequest::Write { file: aside.file, offset, bytes: Chunk::from(bytes) };
        self.source_write_aside(request, out);
        true
    }

    /// The image of a page came.
    pub(in crate::engine) fn aside_read(&mut self, now: Now, bytes: &[u8], out: &mut Actions) {
        let salts = self.source.index.as_ref().map(|index| index.salts);
        let Some(base) = &mut self.base else { return };
        let (page_bytes, same_wal) = (base.page_size.bytes(), salts == Some(base.end.salts));
        let Some(aside) = &mut base.aside else { return };
        let Some((page, from_wal)) = aside.reading.take() else { return };
        if from_wal && !same_wal {
            // The WAL was started over meanwhile: the page is read again, from the file.
            return;
        }
        if from_wal && bytes.len() != page_bytes {
            return self.lose_position(now, "the WAL is shorter than the wal-index says", out);
        }
        aside.endangered.remove(&page);
        aside.places.insert(page, aside.places.len() as u32);
        let end = aside.batch.len() + page_bytes;
        aside.batch.extend_from_slice(bytes);
        // Past the end of the file a page is zeros.
        aside.batch.resize(end, 0);
    }

    /// Nothing can be put aside: the base begins again and keeps its pin.
    pub(in crate::engine) fn aside_failed(&mut self, now: Now, error: &str, out: &mut Actions) {
        self.base_stays = true;
        self.detach(now, &format!("old images of pages cannot be put aside: {error}"), out);
    }

    /// The link is being let go of: a base that has not read all of its pages has lost its state.
    pub(in crate::engine) fn base_lost_link(&mut self, now: Now, out: &mut Actions) {
        let reads = |base: &Base| base.stream.as_ref().is_some_and(|stream| !stream.finished);
        if !self.base.as_ref().is_some_and(|base| base.is_followed() && reads(base)) {
            return;
        }
        let base = self.base.take().expect("checked above");
        if let Some(op) = base.op {
            out.push(Action::Cancel { op });
        }
        self.base_dropped(&base, out);
        self.base_wanted = Some(base.wanted);
        let draw = self.draw();
        self.base_retry.fail(now.mono, draw);
    }

    /// Gives up what a base holds on the store and in the scratch file.
    pub(super) fn base_dropped(&mut self, base: &Base, out: &mut Actions) {
        // One that is being opened has the name of its request.
        let opening = base.op.filter(|_| base.step == BaseStep::Open);
        if let Some(put) = base.stream.as_ref().and_then(|stream| stream.put).or(opening) {
            self.submit(Request::Store(StoreRequest::PutAbort { put }), out);
        }
        self.drop_aside(base, out);
    }

    /// Nobody waits for the answer, and no later base uses the same number.
    pub(super) fn drop_aside(&mut self, base: &Base, out: &mut Actions) {
        if let Some(aside) = base.aside.as_ref().filter(|aside| !aside.places.is_empty()) {
            self.submit(Request::Scratch(ScratchRequest::Drop { file: aside.file }), out);
        }
    }
}
