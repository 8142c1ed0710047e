//! Putting one segment at a time, strictly in order.
//!
//! A put is create-if-absent. Its answer may be lost, and a segment of that name may exist
//! already: then the object is read back, and its header decides by the rules of DESIGN §5. A
//! transaction is reported as replicated only here, after its put is known to have succeeded.
//! The content of a segment is frozen from its first try to its end, so that whatever lands late
//! lands the same.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::ghost::{Ghost, GhostStep, step_of};
use super::history::{Point, Record, Step};
use super::verdict::{Verdict, judge_header};
use super::{Replicator, Retry};
use crate::checksum::DbXor;
use crate::ids::{DbChecksum, Level, Mono, Now, PageNo, PageSize, TxidRange, Wall};
use crate::job::{Image, Job, JobOutput};
use crate::ltx::{Chain, HEADER_FLAG_NO_CHECKSUM, LTX_HEADER_BYTES, LtxHeader};
use crate::machine::{
    Action, Actions, ByteRange, Chunk, Exit, Fact, Object, OpId, Outcome, PART_BYTES_MAX, PutId, Reason,
    Request, Severity, StoreError, StoreErrorKind, StoreReply, StoreRequest,
};
use crate::wal::{FRAME_HEADER_BYTES, Salts, WAL_HEADER_BYTES, WalPosition};

/// A segment on its way.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Segment {
    pub(super) step: Step,
    pub(super) header: LtxHeader,
    pub(super) object: Object,
    pub(super) bytes: Chunk,
    /// `frames_captured` when it was cut.
    pub(super) frames: u64,
    pub(super) retry: Retry,
    intent_written: bool,
}

/// Where the put of a segment stands.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Upload {
    Idle,
    Encode {
        op: OpId,
        draft: Box<Draft>,
    },
    Intent {
        op: OpId,
        segment: Box<Segment>,
    },
    AwaitRetry {
        segment: Box<Segment>,
        read_back: bool,
    },
    Open {
        op: OpId,
        since: Mono,
        segment: Box<Segment>,
    },
    Part {
        op: OpId,
        since: Mono,
        put: PutId,
        sent: usize,
        segment: Box<Segment>,
    },
    Commit {
        op: OpId,
        since: Mono,
        segment: Box<Segment>,
    },
    ReadBack {
        op: OpId,
        since: Mono,
        segment: Box<Segment>,
    },
    /// A streamed put whose fate is unknown: what stands there?
    Settle {
        op: Option<OpId>,
        since: Mono,
        header: Box<LtxHeader>,
        object: Object,
        retry: Retry,
    },
    Fetch {
        op: Option<OpId>,
        since: Mono,
        ghost: Box<Ghost>,
        retry: Retry,
    },
    Done {
        op: OpId,
    },
}

/// A segment before it is encoded.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Draft {
    pub(super) header: LtxHeader,
    pub(super) pre: Option<DbChecksum>,
    pub(super) full: bool,
    pub(super) file: (u64, u64),
    pub(super) wal: Option<WalPosition>,
    pub(super) frames: u64,
}

/// What a segment's header says of the WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WalSpan {
    pub(super) offset: i64,
    pub(super) size: i64,
    pub(super) salts: Salts,
}

impl WalSpan {
    /// No position: whoever reads this takes a full base (`docs/FORMAT.md`).
    pub(super) const NONE: WalSpan =
        WalSpan { offset: WAL_HEADER_BYTES as i64, size: 0, salts: Salts { one: 0, two: 0 } };

    /// From the position before the first frame to the end, within the generation of the end.
    pub(super) fn between(start: Option<WalPosition>, end: WalPosition, page_size: PageSize) -> WalSpan {
        let frame_bytes = i64::from(page_size.get()) + FRAME_HEADER_BYTES as i64;
        let at = |frame: u32| WAL_HEADER_BYTES as i64 + i64::from(frame) * frame_bytes;
        let from = start
            .filter(|start| start.salts == end.salts && start.frame < end.frame)
            .map_or(0, |start| start.frame);
        WalSpan { offset: at(from), size: at(end.frame) - at(from), salts: end.salts }
    }
}

impl Upload {
    pub(super) fn awaits(&self, op: OpId) -> bool {
        match self {
            Upload::Encode { op: awaited, .. }
            | Upload::Intent { op: awaited, .. }
            | Upload::Open { op: awaited, .. }
            | Upload::Part { op: awaited, .. }
            | Upload::Commit { op: awaited, .. }
            | Upload::ReadBack { op: awaited, .. }
            | Upload::Done { op: awaited } => *awaited == op,
            Upload::Fetch { op: awaited, .. } | Upload::Settle { op: awaited, .. } => *awaited == Some(op),
            Upload::Idle | Upload::AwaitRetry { .. } => false,
        }
    }

    /// Whether a request failed and is to be tried again, for who knows how long.
    pub(super) fn waits_for_store(&self) -> bool {
        match self {
            Upload::AwaitRetry { .. } => true,
            Upload::Settle { op: None, retry, .. } | Upload::Fetch { op: None, retry, .. } => {
                retry.attempts > 0
            }
            _ => false,
        }
    }

    /// When the store request under way began, and its name.
    fn under_way(&self) -> Option<(OpId, Mono)> {
        match self {
            Upload::Open { op, since, .. }
            | Upload::Part { op, since, .. }
            | Upload::Commit { op, since, .. }
            | Upload::ReadBack { op, since, .. }
            | Upload::Settle { op: Some(op), since, .. }
            | Upload::Fetch { op: Some(op), since, .. } => Some((*op, *since)),
            _ => None,
        }
    }
}

impl Replicator {
    pub(super) fn upload_is_idle(&self) -> bool {
        matches!(self.upload, Upload::Idle)
    }

    pub(super) fn upload_deadline(&self) -> Option<(Mono, Reason)> {
        if let Some((_, since)) = self.upload.under_way() {
            return Some((since.after(self.config.store_deadline), Reason::Deadline));
        }
        match &self.upload {
            Upload::AwaitRetry { segment, .. } => segment.retry.at.map(|at| (at, Reason::Retry)),
            Upload::Fetch { op: None, retry, .. } | Upload::Settle { op: None, retry, .. } => {
                retry.at.map(|at| (at, Reason::Retry))
            }
            Upload::Idle if self.may_cut() => self.cut_at().map(|at| (at, Reason::Sync)),
            _ => None,
        }
    }

    pub(super) fn upload_tick(&mut self, now: Now, out: &mut Actions) {
        let Some((op, since)) = self.upload.under_way() else { return };
        if since.after(self.config.store_deadline) > now.mono {
            return;
        }
        out.push(Action::Cancel { op });
        let text = format!("no answer from the store in {} s", self.config.store_deadline.as_secs());
        // A put that was not answered may have had its effect.
        self.upload_failed(now, StoreError { kind: StoreErrorKind::Ambiguous, text }, out);
    }

    /// Whether what waits may be cut into a segment: everything in it is committed and whole.
    fn may_cut(&self) -> bool {
        !self.pending.is_empty()
            && self.base.is_none()
            && self.base_wanted.is_none()
            && !self.journal_busy()
            && self.source.position.is_some()
            && !self.source.is_capturing()
    }

    fn cut_at(&self) -> Option<Mono> {
        let since = self.pending.since?;
        let full = self.pending.is_over() || self.pending.bytes() > self.config.pending_bytes_max / 2;
        if full || self.draining() || self.sync_now {
            return Some(since);
        }
        Some(since.after(self.config.sync_interval))
    }

    pub(super) fn upload_pump(&mut self, now: Now, out: &mut Actions) -> bool {
        match &self.upload {
            Upload::Idle => {
                if !self.may_cut() || self.cut_at().is_none_or(|at| at > now.mono) {
                    return false;
                }
                self.cut(now, out)
            }
            Upload::AwaitRetry { segment, .. } if segment.retry.due(now.mono) => {
                let Upload::AwaitRetry { segment, read_back } =
                    core::mem::replace(&mut self.upload, Upload::Idle)
                else {
                    unreachable!("matched above");
                };
                if read_back {
                    self.read_back(now, segment, out)
                } else {
                    self.put_open(now, segment, out)
                }
                true
            }
            Upload::Fetch { op: None, retry, .. } if retry.due(now.mono) => {
                self.fetch(now, out);
                true
            }
            Upload::Settle { op: None, retry, object, .. } if retry.due(now.mono) => {
                let range = ByteRange::At { offset: 0, len: LTX_HEADER_BYTES as u64 };
                let request = Request::Store(StoreRequest::Get { object: *object, range });
                let asked = self.submit(request, out);
                if let Upload::Settle { op, since, .. } = &mut self.upload {
                    (*op, *since) = (Some(asked), now.mono);
                }
                true
            }
            _ => false,
        }
    }

    /// Turns what waits into a segment.
    fn cut(&mut self, now: Now, out: &mut Actions) -> bool {
        self.sync_now = false;
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

    pub(super) fn draft(&self, header: LtxHeader, full: bool, wal: Option<WalPosition>) -> Draft {
        Draft {
            pre: header.chain.pre,
            header,
            full,
            file: self.source.file(),
            wal,
            frames: self.frames_captured,
        }
    }

    /// The header of the next segment, its post-state unset.
    pub(super) fn header(&self, page_size: PageSize, pages: u32, span: WalSpan, wall: Wall) -> LtxHeader {
        let beyond = if span.size == 0 { 0 } else { LtxHeader::wal_beyond(page_size) };
        LtxHeader {
            page_size,
            commit: pages,
            range: TxidRange::single(self.next_txid()),
            stamp: wall.max(self.history.head_stamp),
            flags: HEADER_FLAG_NO_CHECKSUM,
            pre_apply: 0,
            wal_offset: span.offset,
            wal_size: span.size + beyond,
            wal_salts: span.salts,
            lineage: self.history.lineage,
            chain: Chain { pre: self.history.head_post, post: None, incarnation: self.history.incarnation },
        }
    }

    pub(super) fn start_encoding(&mut self, draft: Draft, xor: DbXor, images: Vec<Image>, out: &mut Actions) {
        let job = Job::Segment { header: draft.header, xor, images, pending_byte: self.config.pending_byte };
        let op = self.submit(Request::Compute(job), out);
        self.upload = Upload::Encode { op, draft: Box::new(draft) };
    }

    pub(super) fn upload_completed(&mut self, now: Now, outcome: Outcome, out: &mut Actions) {
        match outcome {
            Outcome::Compute(JobOutput::Segment { bytes, post, sums }) => {
                self.encoded(bytes, post, sums, out)
            }
            Outcome::Store(Ok(reply)) => self.upload_progress(now, reply, out),
            Outcome::Store(Err(error)) => self.upload_failed(now, error, out),
            Outcome::State(result) => {
                if let Err(error) = result {
                    self.journal_failed(error, out);
                }
                match core::mem::replace(&mut self.upload, Upload::Idle) {
                    Upload::Intent { segment, .. } => self.put_open(now, segment, out),
                    Upload::Done { .. } => {}
                    other => unreachable!("{other:?} writes no record"),
                }
            }
            other => unreachable!("an upload asks for nothing that ends in {other:?}"),
        }
    }

    fn encoded(&mut self, bytes: Chunk, post: DbChecksum, sums: Vec<(PageNo, u64)>, out: &mut Actions) {
        let Upload::Encode { draft, .. } = core::mem::replace(&mut self.upload, Upload::Idle) else {
            unreachable!("only an encoding ends in a segment");
        };
        let mut header = draft.header;
        header.chain.post = Some(post);
        let step =
            Step { pre: draft.pre, to: point_of(&header, draft.file, draft.wal), full: draft.full, sums };
        let object = Object { level: Level::CAPTURES, range: header.range };
        let segment = Box::new(Segment {
            step,
            header,
            object,
            bytes,
            frames: draft.frames,
            retry: Retry::default(),
            intent_written: false,
        });
        self.write_intent(segment, out);
    }

    fn write_intent(&mut self, mut segment: Box<Segment>, out: &mut Actions) {
        segment.intent_written = true;
        let op = self.append(&Record::Intent(segment.step.clone()), out);
        self.upload = Upload::Intent { op, segment };
    }

    fn put_open(&mut self, now: Now, segment: Box<Segment>, out: &mut Actions) {
        let op = self.submit(Request::Store(StoreRequest::PutOpen { object: segment.object }), out);
        self.upload = Upload::Open { op, since: now.mono, segment };
    }

    fn put_part(&mut self, now: Now, put: PutId, sent: usize, segment: Box<Segment>, out: &mut Actions) {
        if sent == segment.bytes.len() {
            let op = self.submit(Request::Store(StoreRequest::PutCommit { put }), out);
            self.upload = Upload::Commit { op, since: now.mono, segment };
            return;
        }
        let end = (sent + PART_BYTES_MAX).min(segment.bytes.len());
        let bytes = segment.bytes.slice(sent, end);
        let op = self.submit(Request::Store(StoreRequest::PutPart { put, bytes }), out);
        self.upload = Upload::Part { op, since: now.mono, put, sent: end, segment };
    }

    fn read_back(&mut self, now: Now, segment: Box<Segment>, out: &mut Actions) {
        let range = ByteRange::At { offset: 0, len: LTX_HEADER_BYTES as u64 };
        let op = self.submit(Request::Store(StoreRequest::Get { object: segment.object, range }), out);
        self.upload = Upload::ReadBack { op, since: now.mono, segment };
    }

    fn upload_progress(&mut self, now: Now, reply: StoreReply, out: &mut Actions) {
        match (core::mem::replace(&mut self.upload, Upload::Idle), reply) {
            (Upload::Open { op, segment, .. }, StoreReply::Done) => self.put_part(now, op, 0, segment, out),
            (Upload::Part { put, sent, segment, .. }, StoreReply::Done) => {
                self.put_part(now, put, sent, segment, out)
            }
            (Upload::Commit { segment, .. }, StoreReply::Done) => self.stored(*segment, out),
            (Upload::ReadBack { segment, .. }, StoreReply::Bytes { bytes, .. }) => {
                self.judge(now, segment, &bytes, out);
            }
            (Upload::Settle { header, object, .. }, StoreReply::Bytes { bytes, .. }) => {
                self.settled(now, &header, object, &bytes, out);
            }
            (Upload::Fetch { ghost, .. }, StoreReply::Bytes { bytes, object_len }) => {
                self.fetched(now, ghost, &bytes, object_len, out);
            }
            (state, reply) => unreachable!("{state:?} is not answered by {reply:?}"),
        }
    }

    /// Whose segment stands where ours was to go?
    fn judge(&mut self, now: Now, segment: Box<Segment>, bytes: &[u8], out: &mut Actions) {
        let found = match super::standing::decode_header(bytes) {
            Ok(header) => header,
            Err(error) => {
                let error = format!(
                    "the object {} that stands where a segment was to go is damaged: {error}",
                    segment.object
                );
                let hint = "run driftless verify on the replica".to_string();
                return self.stop(Exit::Corrupt { error, hint }, out);
            }
        };
        match judge_header(&segment.header, &self.tried, &found) {
            Verdict::Ours => self.stored(*segment, out),
            Verdict::Ghost => self.take_over(now, segment.object, out),
            Verdict::Foreign => self.fence(segment.object, &found, out),
        }
    }

    /// What stands where a streamed base was to go: nothing, our own, or another's. Our own is
    /// read whole, since its page checksums were not kept.
    fn settled(&mut self, now: Now, ours: &LtxHeader, object: Object, bytes: &[u8], out: &mut Actions) {
        match super::standing::decode_header(bytes) {
            Ok(found) if judge_header(ours, &self.tried, &found) == Verdict::Foreign => {
                self.fence(object, &found, out)
            }
            Ok(_) => self.take_over(now, object, out),
            Err(error) => {
                let error =
                    format!("the object {object} that stands where a segment was to go is damaged: {error}");
                let hint = "run driftless verify on the replica".to_string();
                self.stop(Exit::Corrupt { error, hint }, out);
            }
        }
    }

    /// Finds out what became of a streamed put before anything else is sent.
    pub(super) fn settle_stream(&mut self, now: Now, header: LtxHeader, object: Object, retry: Retry) {
        self.upload = Upload::Settle { op: None, since: now.mono, header: Box::new(header), object, retry };
    }

    fn take_over(&mut self, now: Now, object: Object, out: &mut Actions) {
        let text = format!("{object} was written by an earlier try: taking it over");
        out.notify(Severity::Info, Fact::Remark { text });
        let ghost = Box::new(Ghost::new(object, self.config.pending_byte));
        self.upload = Upload::Fetch { op: None, since: now.mono, ghost, retry: Retry::default() };
    }

    fn fence(&mut self, object: Object, found: &LtxHeader, out: &mut Actions) {
        let name =
            |lineage: Option<crate::ids::Lineage>| lineage.map_or("none".to_string(), |l| l.to_string());
        let error = format!(
            "{object} was written by lineage {} incarnation {}, this is lineage {} incarnation {}",
            name(found.lineage),
            found.chain.incarnation.0,
            name(self.history.lineage),
            self.history.incarnation.0
        );
        self.stop(super::standing::fenced(error), out);
    }

    fn fetch(&mut self, now: Now, out: &mut Actions) {
        let Upload::Fetch { ghost, retry, .. } = core::mem::replace(&mut self.upload, Upload::Idle) else {
            unreachable!("only called while fetching");
        };
        let op = self.submit(Request::Store(ghost.request()), out);
        self.upload = Upload::Fetch { op: Some(op), since: now.mono, ghost, retry };
    }

    fn fetched(&mut self, now: Now, mut ghost: Box<Ghost>, bytes: &[u8], object_len: u64, out: &mut Actions) {
        match ghost.push(bytes, object_len) {
            GhostStep::More => {
                self.upload = Upload::Fetch { op: None, since: now.mono, ghost, retry: Retry::default() };
            }
            GhostStep::Corrupt(error) => {
                let error = format!("a segment of an earlier try is damaged: {error}");
                let hint = "run driftless verify on the replica".to_string();
                self.stop(Exit::Corrupt { error, hint }, out);
            }
            GhostStep::Whole(header, sums) => {
                let step = step_of(&header, sums, self.config.pending_byte).expect("a ghost has a chain");
                let txid = step.to.txid;
                let whole_table = self.history.table.is_some() || step.full;
                self.history.advance(&step);
                self.tried.clear();
                out.notify(Severity::Info, Fact::Adopted { txid });
                let pages = self.history.point.as_ref().map_or(0, |point| point.pages);
                self.forget_pending(pages);
                self.frames_captured = self.frames_replicated;
                self.journal.bytes = u64::MAX / 4;
                let full = !whole_table || !self.table_holds();
                self.want_base("a segment of an earlier try was taken over".into(), full, false, false);
            }
        }
    }

    /// The segment is on the replica, and so is everything before it.
    fn stored(&mut self, segment: Segment, out: &mut Actions) {
        if segment.retry.attempts > 0 {
            out.notify(Severity::Info, Fact::Recovered { what: "writing to the replica".into() });
        }
        self.last_error = None;
        self.base_retry.clear();
        self.tried.clear();
        let txid = segment.step.to.txid;
        self.history.advance(&segment.step);
        self.frames_replicated = self.frames_replicated.max(segment.frames);
        out.notify(
            Severity::Info,
            Fact::Replicated {
                txid,
                bytes: segment.bytes.len() as u64,
                pages: segment.step.sums.len() as u32,
            },
        );
        self.finish_stored(out);
    }

    /// Writes down that the point moved.
    pub(super) fn finish_stored(&mut self, out: &mut Actions) {
        let txid = self.history.point.as_ref().expect("just advanced").txid;
        if self.journal.broken {
            // Its intent may be missing, and that of an earlier try stand in its place: only the
            // rewrite that follows says the truth.
            self.upload = Upload::Idle;
        } else {
            let op = self.append(&Record::Done(txid), out);
            self.upload = Upload::Done { op };
        }
        self.once_is_done();
    }

    /// With `-once`, the first state that is on the replica is the last one wanted.
    pub(super) fn once_is_done(&mut self) {
        if self.config.once && !self.draining() {
            self.life = super::Life::Draining { deadline: None };
            self.source.drain(Mono::default());
        }
    }

    fn upload_failed(&mut self, now: Now, error: StoreError, out: &mut Actions) {
        let state = core::mem::replace(&mut self.upload, Upload::Idle);
        let kind = error.kind;
        let (segment, read_back) = match state {
            Upload::Open { segment, .. } => {
                let taken = kind == StoreErrorKind::AlreadyExists;
                (segment, taken)
            }
            Upload::Part { segment, put, .. } => {
                self.submit(Request::Store(StoreRequest::PutAbort { put }), out);
                (segment, kind == StoreErrorKind::AlreadyExists)
            }
            Upload::Commit { segment, .. } => {
                (segment, matches!(kind, StoreErrorKind::AlreadyExists | StoreErrorKind::Ambiguous))
            }
            Upload::ReadBack { segment, .. } => (segment, kind != StoreErrorKind::NotFound),
            // Nothing stands there: the base begins anew.
            Upload::Settle { .. } if kind == StoreErrorKind::NotFound => return,
            Upload::Settle { header, object, mut retry, .. } => {
                let draw = self.draw();
                let wait = retry.fail(now.mono, draw);
                self.say_retry("reading a segment back", &error.text, wait.as_millis() as u64, out);
                self.upload = Upload::Settle { op: None, since: now.mono, header, object, retry };
                return;
            }
            Upload::Fetch { ghost, mut retry, .. } => {
                let draw = self.draw();
                let wait = retry.fail(now.mono, draw);
                self.say_retry("reading a segment back", &error.text, wait.as_millis() as u64, out);
                self.upload = Upload::Fetch { op: None, since: now.mono, ghost, retry };
                return;
            }
            other => unreachable!("{other:?} asks nothing of the store"),
        };
        self.retry_put(now, segment, read_back, &error, out);
    }

    fn retry_put(
        &mut self,
        now: Now,
        mut segment: Box<Segment>,
        read_back: bool,
        error: &StoreError,
        out: &mut Actions,
    ) {
        let at_once = read_back && error.kind == StoreErrorKind::AlreadyExists;
        if at_once {
            return self.read_back(now, segment, out);
        }
        let draw = self.draw();
        let wait = segment.retry.fail(now.mono, draw);
        self.say_retry("writing to the replica", &error.text, wait.as_millis() as u64, out);
        self.upload = Upload::AwaitRetry { segment, read_back };
    }

    pub(super) fn say_retry(&mut self, what: &str, error: &str, wait_ms: u64, out: &mut Actions) {
        self.last_error = Some(String::from(error));
        out.notify(Severity::Warn, Fact::Retrying { what: what.into(), error: error.into(), wait_ms });
    }
}

/// The point that a header describes.
pub(super) fn point_of(header: &LtxHeader, file: (u64, u64), wal: Option<WalPosition>) -> Point {
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
