//! Cutting what was captured into a segment, and making its bytes.
//!
//! A cut is due when its first frame is a sync interval old, or at once where memory runs short
//! or someone waits for it. It is made only of whole transactions, between two captures, and
//! never with a page missing that growth must have written: then the database is read instead.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use super::{Segment, Upload};
use crate::checksum::DbXor;
use crate::engine::history::{Point, Step};
use crate::engine::{Replicator, Retry};
use crate::ids::{DbChecksum, Level, Mono, Now, PageNo, PageSize, TxidRange, Wall};
use crate::job::{Image, Job};
use crate::ltx::{Chain, Codec, HEADER_FLAG_NO_CHECKSUM, LtxHeader, Packing};
use crate::machine::{Actions, Chunk, Object, Request};
use crate::mutant::{self, Mutant};
use crate::wal::{FRAME_HEADER_BYTES, Salts, WAL_HEADER_BYTES, WalPosition};

/// A segment before it is encoded.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::engine) struct Draft {
    pub(in crate::engine) header: LtxHeader,
    pub(in crate::engine) packing: Packing,
    pub(in crate::engine) pre: Option<DbChecksum>,
    pub(in crate::engine) full: bool,
    pub(in crate::engine) file: (u64, u64),
    pub(in crate::engine) wal: Option<WalPosition>,
    pub(in crate::engine) frames: u64,
    pub(in crate::engine) claim: Option<Mono>,
}

/// What a segment's header says of the WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::engine) struct WalSpan {
    pub(in crate::engine) offset: i64,
    pub(in crate::engine) size: i64,
    pub(in crate::engine) salts: Salts,
}

impl WalSpan {
    /// No position: whoever reads this takes a full base (`docs/FORMAT.md`).
    pub(in crate::engine) const NONE: WalSpan =
        WalSpan { offset: WAL_HEADER_BYTES as i64, size: 0, salts: Salts { one: 0, two: 0 } };

    /// From the position before the first frame to the end, within the generation of the end.
    pub(in crate::engine) fn between(
        start: Option<WalPosition>,
        end: WalPosition,
        page_size: PageSize,
    ) -> WalSpan {
        let frame_bytes = i64::from(page_size.get()) + FRAME_HEADER_BYTES as i64;
        let at = |frame: u32| WAL_HEADER_BYTES as i64 + i64::from(frame) * frame_bytes;
        let from = start
            .filter(|start| start.salts == end.salts && start.frame < end.frame)
            .map_or(0, |start| start.frame);
        WalSpan { offset: at(from), size: at(end.frame) - at(from), salts: end.salts }
    }
}

impl Replicator {
    /// Whether what waits may be cut into a segment: everything in it is committed and whole.
    pub(super) fn may_cut(&self) -> bool {
        !self.pending.is_empty()
            && self.base.is_none()
            && self.base_wanted.is_none()
            && !self.journal_busy()
            && !self.recalls_dictionary()
            && self.source.position.is_some()
            && (!self.source.is_capturing() || mutant::on(Mutant::CutWithinCapture))
    }

    pub(super) fn cut_at(&self) -> Option<Mono> {
        let since = self.pending.since?;
        let full = self.pending.is_over() || self.pending.bytes() > self.config.pending_bytes_max / 2;
        if full || self.draining() || self.synced.is_wanted() {
            return Some(since);
        }
        Some(since.after(self.config.sync_interval))
    }

    /// Turns what waits into a segment.
    pub(super) fn cut(&mut self, now: Now, out: &mut Actions) -> bool {
        let page_size = self.source.page_size().expect("captured pages have a size");
        let lock_page = page_size.lock_page(self.config.pending_byte);
        if let Some(page) = self.pending.missing(lock_page) {
            // Growth that the WAL did not show: never send a set with a hole.
            let why = format!("page {page} is new and was not in the WAL");
            self.forget_pending(self.pending.commit());
            self.want_base(why, false, false, false);
            return true;
        }
        if self.pending.is_over() {
            self.want_dirty_base();
            return true;
        }
        let table = self.history.table.as_ref().expect("capture follows a known state");
        let pages = self.pending.commit();
        let xor = table.xor_without(self.pending.page_numbers(), pages);
        let wal = self.source.position.expect("checked before the cut");
        let span = WalSpan::between(self.pending.start, wal, page_size);
        let images = self.pending.freeze(page_size);
        let header = self.header(page_size, pages, span, now.wall);
        let draft = self.draft(header, false, Some(wal));
        self.start_encoding(draft, xor, images, out);
        true
    }

    pub(in crate::engine) fn draft(
        &self,
        mut header: LtxHeader,
        full: bool,
        wal: Option<WalPosition>,
    ) -> Draft {
        let packing = self.packing();
        header.pack(&packing);
        Draft {
            pre: header.chain.pre,
            header,
            packing,
            full,
            file: self.source.file(),
            wal,
            frames: self.frames_captured,
            claim: self.synced.claim(),
        }
    }

    /// The header of the next segment, its post-state and how it is compressed unset.
    pub(in crate::engine) fn header(
        &self,
        page_size: PageSize,
        pages: u32,
        span: WalSpan,
        wall: Wall,
    ) -> LtxHeader {
        let beyond = if span.size == 0 { 0 } else { LtxHeader::wal_beyond(page_size) };
        LtxHeader {
            page_size,
            commit: pages,
            range: TxidRange::single(self.next_txid()),
            stamp: if mutant::on(Mutant::StampGoesBack) { wall } else { wall.max(self.history.head_stamp) },
            codec: Codec::Lz4,
            flags: HEADER_FLAG_NO_CHECKSUM,
            pre_apply: 0,
            wal_offset: span.offset,
            wal_size: span.size + beyond,
            wal_salts: span.salts,
            lineage: self.history.lineage,
            chain: Chain { pre: self.history.head_post, post: None, incarnation: self.history.incarnation },
        }
    }

    pub(in crate::engine) fn start_encoding(
        &mut self,
        draft: Draft,
        xor: DbXor,
        images: Vec<Image>,
        out: &mut Actions,
    ) {
        self.sample(&images, out);
        let (header, packing, pending_byte) = (draft.header, draft.packing.clone(), self.config.pending_byte);
        let job = Job::Segment { header, xor, images, packing, pending_byte };
        let op = self.submit(Request::Compute(job), out);
        self.upload = Upload::Encode { op, draft: Box::new(draft) };
    }

    pub(super) fn encoded(
        &mut self,
        bytes: Chunk,
        post: DbChecksum,
        sums: Vec<(PageNo, u64)>,
        out: &mut Actions,
    ) {
        let Upload::Encode { draft, .. } = core::mem::replace(&mut self.upload, Upload::Idle) else {
            unreachable!("only an encoding ends in a segment");
        };
        let mut header = draft.header;
        header.chain.post = Some(post);
        let step =
            Step { pre: draft.pre, to: point_of(&header, draft.file, draft.wal), full: draft.full, sums };
        let (pages, page_bytes) = (step.sums.len() as u32, header.page_size.bytes());
        self.weigh_segment(header.codec, pages, page_bytes, bytes.len() as u64);
        let object = Object { level: Level::CAPTURES, range: header.range };
        let segment = Box::new(Segment {
            step,
            header,
            object,
            bytes,
            frames: draft.frames,
            claim: draft.claim,
            given_up: None,
            retry: Retry::default(),
        });
        self.write_intent(segment, out);
    }
}

/// The point that a header describes.
pub(in crate::engine) fn point_of(header: &LtxHeader, file: (u64, u64), wal: Option<WalPosition>) -> Point {
    Point {
        txid: header.range.max(),
        stamp: header.stamp,
        page_size: header.page_size,
        pages: header.commit,
        post: header.chain.post.expect("set when the segment was encoded"),
        file,
        wal,
    }
}
