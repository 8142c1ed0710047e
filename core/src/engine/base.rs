//! Reading the whole database: the survey, and the segment that follows from it.
//!
//! A survey reads every page of one pinned state and computes its checksum. Compared with the
//! page table it names the pages that differ; without a table every page is sent. What differs
//! goes out as one segment: from memory where it fits the budget, otherwise streamed in a second
//! pass over the same state, in constant memory. Capture and checkpoints go on beside the second
//! pass, since it takes as long as the store does: `aside.rs` keeps what they would overwrite.
//! Each page of the second pass must have the checksum that the survey found.
//!
//! Which state the pin gives is decided by what the wal-index showed around its BEGIN: on a mark
//! above zero, the database file overlaid by the WAL's frames up to the index seen after the
//! BEGIN (nothing past our mark can be copied back, and nothing can be restarted, so that any end
//! at or past the snapshot reads the same); on a frozen database the file alone. An unproven pin
//! is given back and taken again.

mod aside;
mod state;
mod stream;
mod survey;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use self::aside::Aside;
use super::config::READ_BYTES;
use super::history::{PageTable, Record, Step};
use super::pin::{Pin, PinClass, classify};
use super::upload::{WalSpan, header_request, point_of};
use super::{BaseWanted, Replicator};
use crate::ids::{Level, Mono, Now, PageNo, PageSize};
use crate::job::{Image, Job, JobOutput};
use crate::ltx::{Encoder, LtxHeader};
use crate::machine::{
    Action, Actions, Chunk, Fact, LinkReply, Object, OpId, Outcome, PART_BYTES_MAX, PutId, Reason, Request,
    Severity, SourceError, SourceErrorKind, SourceReply, SourceRequest, StoreError, StoreErrorKind,
    StoreRequest,
};
use crate::mutant::{self, Mutant};
use crate::wal::{
    FRAME_HEADER_BYTES, Salts, Scanner, WAL_HEADER_BYTES, WalHeader, WalIndex, WalPosition, frame_offset,
};

/// Where a base stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BaseStep {
    /// Look at the wal-index, so that the BEGIN has a "before".
    Look,
    Begin,
    /// End the new transaction again: what it reads is not proven.
    GiveBack,
    /// End the old pin.
    HandOver,
    /// The file's length, where the wal-index does not tell the database's.
    Size,
    WalHeader,
    Overlay,
    /// Pages of the database file.
    Read,
    /// Images of pages in the chunk that were put aside.
    Aside,
    /// Newer images of pages in the chunk, from the WAL.
    Patch,
    Sum,
    // Streaming.
    /// Does anything stand under the name? Asked of stores that would replace it.
    Vacant,
    Open,
    Encode,
    Part,
    Intent,
    Commit,
    /// The put has succeeded; whether it extends the head is being found out (`upload/tenure.rs`).
    Landed,
}

/// A survey and what follows.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Base {
    wanted: BaseWanted,
    /// Only these pages can differ; `None` for all.
    only: Option<BTreeSet<u32>>,
    step: BaseStep,
    op: Option<OpId>,
    since: Mono,
    again_at: Option<Mono>,
    tries: u32,
    index: Option<WalIndex>,
    frozen: bool,
    page_size: PageSize,
    lock_page: PageNo,
    pages: u32,
    scanner: Option<Scanner>,
    /// Newest frame of each page up to `end`.
    overlay: BTreeMap<u32, u32>,
    end: WalPosition,
    last_page: Option<PageNo>,
    /// The pages of the chunk under way: first and one past the last.
    chunk: (u32, u32),
    buffer: Vec<u8>,
    patches: Vec<(u32, u32)>,
    /// What of the chunk was put aside: first page, first place, number.
    aside_runs: Vec<(u32, u32, u32)>,
    /// What the application has changed meanwhile; `None` while the pin stays.
    aside: Option<Aside>,
    table: PageTable,
    differ: BTreeSet<u32>,
    /// The chunk whose checksums are being computed.
    summed_chunk: Option<Chunk>,
    kept: Option<Vec<Image>>,
    kept_bytes: usize,
    second_pass: bool,
    stream: Option<Box<Stream>>,
}

/// A segment that is streamed.
#[derive(Clone, PartialEq, Debug)]
struct Stream {
    header: LtxHeader,
    object: Object,
    put: Option<PutId>,
    encoder: Option<Encoder>,
    out: Vec<Chunk>,
    finished: bool,
    bytes: u64,
    /// `frames_captured` in the state that it holds.
    frames: u64,
    record: Option<Step>,
}

impl Base {
    /// Bytes of the stream that were sent, with the part under way.
    fn sent(&self) -> u64 {
        self.stream.as_ref().map_or(0, |stream| stream.bytes)
    }

    pub(super) fn awaits(&self, op: OpId) -> bool {
        self.op == Some(op)
    }

    /// The WAL frames that come next in the overlay.
    fn overlay_request(&self) -> SourceRequest {
        let at = self.scanner.as_ref().expect("set with the header").position().frame;
        let frame_bytes = self.page_size.get() + FRAME_HEADER_BYTES as u32;
        let frames = (self.end.frame - at).min((READ_BYTES / frame_bytes).max(1));
        SourceRequest::ReadWal {
            offset: frame_offset(self.page_size, at + 1),
            len: frames * frame_bytes,
            recent: false,
        }
    }

    fn read_request(&self) -> SourceRequest {
        let page_bytes = u64::from(self.page_size.get());
        SourceRequest::ReadDatabase {
            offset: u64::from(self.chunk.0 - 1) * page_bytes,
            len: (self.chunk.1 - self.chunk.0) * self.page_size.get(),
            recent: false,
        }
    }

    fn patch_request(&self) -> SourceRequest {
        let (_, frame) = self.patches.last().expect("the step is left when they are done");
        SourceRequest::ReadWal {
            offset: frame_offset(self.page_size, *frame) + FRAME_HEADER_BYTES as u64,
            len: self.page_size.get(),
            recent: false,
        }
    }

    fn after_patches(&self) -> BaseStep {
        if !self.aside_runs.is_empty() {
            BaseStep::Aside
        } else if !self.patches.is_empty() {
            BaseStep::Patch
        } else if self.second_pass {
            BaseStep::Encode
        } else {
            BaseStep::Sum
        }
    }

    /// The pages of the chunk that go into the segment, and the end after the last.
    fn encode_request(&mut self) -> Request {
        let page_bytes = self.page_size.bytes();
        let bytes = Chunk::from(core::mem::take(&mut self.buffer));
        let images: Vec<Image> = self
            .differ
            .range(self.chunk.0..self.chunk.1)
            .map(|page| {
                let at = (page - self.chunk.0) as usize * page_bytes;
                (PageNo::new(*page).expect("pages count from 1"), bytes.slice(at, at + page_bytes))
            })
            .collect();
        let stream = self.stream.as_mut().expect("only a stream encodes");
        let finish = self.chunk.0 > self.pages;
        let encoder = stream.encoder.take().expect("one encoding at a time");
        Request::Compute(Job::Pages { encoder, images, finish })
    }

    /// Ends the state to survey where the head's header says that its capture ended, if the WAL
    /// that is there still reaches back to that.
    fn end_at_head(&mut self, header: &LtxHeader, index: &WalIndex) {
        let frame_bytes = i64::from(header.page_size.get()) + FRAME_HEADER_BYTES as i64;
        let bytes = header.wal_end() - WAL_HEADER_BYTES as i64;
        let frame = u32::try_from(bytes / frame_bytes).unwrap_or(0);
        let same = header.wal_salts == index.salts && header.page_size == self.page_size;
        let reaches =
            frame > 0 && bytes % frame_bytes == 0 && frame <= index.mx_frame && index.n_backfill <= frame;
        if same && reaches && frame < index.mx_frame {
            self.end.frame = frame;
            self.pages = header.commit;
            self.frozen = false;
        } else if header.wal_salts != index.salts && index.mx_frame > 0 && index.n_backfill == 0 {
            // The WAL has begun anew and nothing of it was copied back: the file alone may be the
            // head's state, and all of this WAL what was committed since.
            self.end.frame = 0;
            self.end.checksum = Default::default();
            self.pages = header.commit;
            self.frozen = false;
        }
    }
}

impl Replicator {
    pub(super) fn want_base(&mut self, why: String, full: bool, prove: bool, fence: bool) {
        if full {
            self.history.table = None;
            self.history.point = None;
        }
        // The base reads all of it anew; what waits here would keep the source from being opened.
        self.forget_pending(self.history.point.as_ref().map_or(0, |point| point.pages));
        self.base_wanted = Some(BaseWanted { why, full, prove, fence, at_end: false });
    }

    /// The captured pages were given up: read just those again.
    pub(super) fn want_dirty_base(&mut self) {
        let only: BTreeSet<u32> = self.pending.page_numbers().map(PageNo::get).collect();
        // Without the pin under which they were captured, others may have changed as well.
        self.dirty = Some(only).filter(|_| self.source.is_open());
        self.want_base("more pages changed than memory may hold".into(), false, false, false);
    }

    /// Whether a base may begin when one is wanted; true when none is.
    pub(super) fn base_may_begin(&self, now: Now) -> bool {
        self.base_wanted.is_none() || (!self.base_is_blocked() && self.base_retry.due(now.mono))
    }

    /// Whether a base waits for something whose end is an event.
    pub(super) fn base_is_blocked(&self) -> bool {
        !self.upload_is_idle() || self.journal_busy() || self.recalls_dictionary()
    }

    /// Whether a link stands that a base may use.
    fn base_has_link(&self) -> bool {
        self.source.is_open() && self.source.is_idle() && self.source.pin.is_some()
    }

    pub(super) fn base_deadline(&self) -> Option<(Mono, Reason)> {
        if let Some(base) = &self.base {
            return match (base.op, base.step) {
                (Some(_), BaseStep::Vacant | BaseStep::Open | BaseStep::Part | BaseStep::Commit) => {
                    Some((base.since.after(self.config.put_deadline(base.sent())), Reason::Deadline))
                }
                (None, _) => base.again_at.map(|at| (at, Reason::Look)),
                _ => None,
            };
        }
        // Without a link it waits for the source side, which has a deadline of its own.
        let possible = self.base_has_link() && self.boot.is_done() && !self.base_is_blocked();
        if self.base_wanted.is_some() && possible {
            return self.base_retry.at.map(|at| (at, Reason::Retry));
        }
        None
    }

    pub(super) fn base_tick(&mut self, now: Now, out: &mut Actions) {
        let Some(base) = &self.base else { return };
        let store =
            matches!(base.step, BaseStep::Vacant | BaseStep::Open | BaseStep::Part | BaseStep::Commit);
        let deadline = self.config.put_deadline(base.sent());
        if let Some(op) = base.op.filter(|_| store && base.since.after(deadline) <= now.mono) {
            out.push(Action::Cancel { op });
            let text = format!("no answer from the store in {} s", deadline.as_secs());
            self.base_store_failed(now, StoreError::new(StoreErrorKind::Ambiguous, text), out);
        }
    }

    pub(super) fn base_pump(&mut self, now: Now, out: &mut Actions) -> bool {
        if self.base.is_none() {
            return self.base_begin(now, out);
        }
        let base = self.base.as_mut().expect("checked above");
        let waits = base.again_at.is_some_and(|at| at > now.mono) || base.step == BaseStep::Landed;
        if base.op.is_some() || waits {
            return false;
        }
        let reads = matches!(base.step, BaseStep::Read | BaseStep::Aside | BaseStep::Patch);
        if base.is_followed() && reads && !self.source.is_idle() {
            return false;
        }
        base.again_at = None;
        self.base_submit(now, out);
        true
    }

    fn base_begin(&mut self, now: Now, out: &mut Actions) -> bool {
        if !self.base_has_link()
            || !self.boot.is_done()
            || self.base_wanted.is_none()
            || !self.base_may_begin(now)
        {
            return false;
        }
        let wanted = self.base_wanted.clone().expect("checked above");
        let Some(page_size) = self.source.page_size() else { return false };
        let same_size = self.history.point.as_ref().is_some_and(|point| point.page_size == page_size);
        let known = self.history.table.is_some() && same_size && !wanted.full && !wanted.prove;
        out.notify(Severity::Info, Fact::Base { full: !known, why: wanted.why.clone() });
        if !wanted.prove && !known {
            self.history.table = None;
        }
        // What was captured since it was wanted has changed as well, and need not stand in the WAL
        // any more.
        let since = self.pending.page_numbers().map(PageNo::get);
        let since = since.filter(|_| !mutant::on(Mutant::CapturedSinceForgotten));
        let only = self.dirty.take().filter(|_| known).map(|only| only.into_iter().chain(since).collect());
        let pages = self.history.point.as_ref().map_or(0, |point| point.pages);
        self.forget_pending(pages);
        self.base = Some(Base {
            wanted,
            only,
            step: BaseStep::Look,
            op: None,
            since: now.mono,
            again_at: None,
            tries: 0,
            index: None,
            frozen: false,
            page_size,
            lock_page: page_size.lock_page(self.config.pending_byte),
            pages: 0,
            scanner: None,
            overlay: BTreeMap::new(),
            end: WalPosition { salts: Salts { one: 0, two: 0 }, frame: 0, checksum: Default::default() },
            last_page: None,
            chunk: (1, 1),
            buffer: Vec::new(),
            patches: Vec::new(),
            aside_runs: Vec::new(),
            aside: None,
            table: PageTable::new(),
            differ: BTreeSet::new(),
            summed_chunk: None,
            kept: Some(Vec::new()),
            kept_bytes: 0,
            second_pass: false,
            stream: None,
        });
        true
    }

    fn base_ref(&mut self) -> &mut Base {
        self.base.as_mut().expect("only called while a base is under way")
    }

    fn base_submit(&mut self, now: Now, out: &mut Actions) {
        let home = self.source.home;
        let base = self.base.as_mut().expect("checked by the caller");
        let request = match base.step {
            BaseStep::Look => Request::Source(SourceRequest::Look),
            BaseStep::Begin => Request::Source(SourceRequest::BeginRead(home.other())),
            BaseStep::GiveBack => Request::Source(SourceRequest::EndRead(home.other())),
            BaseStep::HandOver => Request::Source(SourceRequest::EndRead(home)),
            BaseStep::Size => Request::Source(SourceRequest::Stat),
            BaseStep::WalHeader => Request::Source(SourceRequest::ReadWal {
                offset: 0,
                len: WAL_HEADER_BYTES as u32,
                recent: false,
            }),
            BaseStep::Overlay => Request::Source(base.overlay_request()),
            BaseStep::Read => Request::Source(base.read_request()),
            BaseStep::Aside => {
                let (_, place, pages) = *base.aside_runs.last().expect("the step is left when they are done");
                let aside = base.aside.as_ref().expect("there is something aside");
                Request::Scratch(aside.read(place, pages, base.page_size))
            }
            BaseStep::Patch => Request::Source(base.patch_request()),
            BaseStep::Sum => {
                let bytes = Chunk::from(core::mem::take(&mut base.buffer));
                base.summed_chunk = Some(bytes.clone());
                let first = PageNo::new(base.chunk.0).expect("pages count from 1");
                Request::Compute(Job::Checksums { first, page_size: base.page_size, bytes })
            }
            BaseStep::Vacant => header_request(base.stream.as_ref().expect("set with the step").object),
            BaseStep::Open => {
                let object = base.stream.as_ref().expect("set with the step").object;
                self.open_request(object)
            }
            BaseStep::Encode => base.encode_request(),
            BaseStep::Part => {
                let stream = base.stream.as_mut().expect("set with the step");
                let bytes = stream.out.remove(0);
                stream.bytes += bytes.len() as u64;
                Request::Store(StoreRequest::PutPart { put: stream.put.expect("open"), bytes })
            }
            BaseStep::Intent => {
                let stream = base.stream.as_mut().expect("set with the step");
                let record = Record::Intent(stream.record.clone().expect("set with the step")).encode();
                self.journal.bytes += record.len() as u64;
                Request::State(crate::machine::StateRequest::Append(record))
            }
            BaseStep::Commit => {
                let stream = base.stream.as_ref().expect("set with the step");
                Request::Store(StoreRequest::PutCommit { put: stream.put.expect("open") })
            }
            BaseStep::Landed => unreachable!("nothing is asked for it"),
        };
        let op = self.submit(request, out);
        let base = self.base_ref();
        base.op = Some(op);
        base.since = now.mono;
    }

    pub(super) fn base_completed(&mut self, now: Now, op: OpId, outcome: Outcome, out: &mut Actions) {
        self.base_ref().op = None;
        match outcome {
            Outcome::Source(Ok(SourceReply::Link(reply))) => self.base_link(now, &reply, out),
            Outcome::Source(Ok(SourceReply::Facts(facts))) => {
                let Some(facts) = facts else {
                    return self.base_source_failed(now, "the database file is gone", out);
                };
                let other = self.source.file() != (facts.device, facts.inode);
                if other && !mutant::on(Mutant::LengthByPath) {
                    // The length by path is that of another file than the one that is open.
                    return self.base_source_failed(now, "the database file was replaced", out);
                }
                let base = self.base_ref();
                base.pages = (facts.size / u64::from(base.page_size.get())) as u32;
                self.base_overlay_or_survey(now, out);
            }
            Outcome::Source(Ok(other)) => unreachable!("a base is not answered by {other:?}"),
            Outcome::Source(Err(error)) => self.base_source_error(now, error, out),
            Outcome::Compute(JobOutput::Checksums(sums)) => self.base_summed(now, &sums, out),
            Outcome::Compute(JobOutput::Pages { encoder, bytes, sums }) => {
                self.base_encoded(now, encoder, bytes, &sums, out)
            }
            Outcome::Compute(other) => unreachable!("a base computes no {other:?}"),
            Outcome::State(result) => {
                if let Err(error) = result {
                    self.journal_failed(error, out);
                }
                self.base_ref().step = BaseStep::Commit;
            }
            Outcome::Scratch(Ok(bytes)) => self.base_ref().took_aside(&bytes),
            Outcome::Scratch(Err(error)) => {
                self.base_stays = true;
                self.base_source_failed(now, &format!("what was put aside cannot be read: {error}"), out);
            }
            Outcome::Store(Ok(_)) => self.base_stored(now, op, out),
            Outcome::Store(Err(error)) => self.base_store_failed(now, error, out),
            other @ (Outcome::Output(_)
            | Outcome::Copy(_)
            | Outcome::Cell(_)
            | Outcome::Granted
            | Outcome::Proven(_)) => {
                unreachable!("a base asks for no {other:?}")
            }
        }
    }

    fn base_link(&mut self, now: Now, reply: &LinkReply, out: &mut Actions) {
        let before = self.source.index;
        let since = self.base_ref().since;
        let seen = self.take_index(reply, since).is_ok();
        let step = self.base_ref().step;
        if !seen && matches!(step, BaseStep::Look) {
            return self.base_again(now, out);
        }
        match step {
            BaseStep::Look => self.base_ref().step = BaseStep::Begin,
            BaseStep::Begin => self.base_begun(before.as_ref(), seen),
            BaseStep::GiveBack => {
                self.source.other = None;
                self.base_ref().step = BaseStep::Look;
                self.base_again(now, out);
            }
            BaseStep::HandOver => {
                self.source.pin = self.source.other.take();
                self.source.home = self.source.home.other();
                self.base_pinned(now, out);
            }
            BaseStep::WalHeader => self.base_wal_header(now, reply, out),
            BaseStep::Overlay => self.base_overlay(now, reply, out),
            BaseStep::Read => self.base_read(reply),
            BaseStep::Patch => self.base_patched(now, reply, out),
            step => unreachable!("{step:?} does not use the link"),
        }
    }

    /// Capture goes on from the base's state.
    fn base_hand_over(&mut self) {
        let base = self.base.as_ref().expect("only called while a base is under way");
        self.source.position = Some(base.end);
        self.source.forget_scanner();
        self.pending.reset(base.pages);
        if let Some(pin) = &mut self.source.pin {
            pin.complete |= base.frozen;
        }
        self.source.look_now();
    }

    /// The end of a base.
    fn base_finish(&mut self, out: &mut Actions) {
        if self.base_is_followed() {
            // Capture has gone on already, unless the link was let go of and that forgotten.
            if self.pending.is_empty() {
                let pages = self.base_ref().pages;
                self.pending.reset(pages);
            }
            self.source.look_now();
        } else {
            self.base_hand_over();
        }
        let base = self.base.take().expect("only called while a base is under way");
        self.drop_aside(&base, out);
        self.base_wanted = None;
        (self.base_stays, self.base_differed) = (false, false);
    }

    fn base_source_error(&mut self, now: Now, error: SourceError, out: &mut Actions) {
        let step = self.base_ref().step;
        if error.kind == SourceErrorKind::Busy && step == BaseStep::Begin {
            self.base_ref().step = BaseStep::Look;
            return self.base_again(now, out);
        }
        self.base_source_failed(now, &error.text, out);
    }

    fn base_source_failed(&mut self, now: Now, why: &str, out: &mut Actions) {
        let base = self.base.take().expect("only called while a base is under way");
        self.base_dropped(&base, out);
        self.base_wanted = Some(base.wanted);
        let draw = self.draw();
        self.base_retry.fail(now.mono, draw);
        if self.source.is_idle() {
            self.detach(now, why, out);
        } else {
            // It was not the link that failed, and a script is using it.
            out.notify(Severity::Warn, Fact::Remark { text: why.to_string() });
        }
    }
}
