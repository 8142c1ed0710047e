//! The source side: pin, capture, checkpoint, seal, let go.
//!
//! Each thing that the source side does is a short script of steps, one request each. The pin
//! moves by overlap: the new read transaction begins, everything up to what it saw is captured,
//! and only then does the old one end. So at every step, and in every failure between two steps,
//! whatever has not been captured is protected by a transaction that stands; `pin.rs` says how.
//!
//! | script | steps |
//! |---|---|
//! | turn | begin other, capture, end pin |
//! | lock-free checkpoint | begin other, capture, end pin, checkpoint, begin pin, capture, end other |
//! | locked checkpoint | lock other, capture, end pin, checkpoint, begin pin, capture, unlock other |
//! | seal | lock other, capture, look at the files, unlock other, end pin, close |
//!
//! A failure abandons the script; what stands is put in order (`tidy`), and the next look begins
//! afresh.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::ToString;
use core::time::Duration;

use super::config::{
    ALERT_AFTER, ALERT_FACTOR, CTIME_SETTLED_NS, LOCK_FACTOR, LOCK_HOLD, LOCK_TRY, LOOK_FIRST, LOOK_MAX, LOOK_MIN, READ_BYTES,
    SLOW_CHECKPOINT, SWEEP,
};
use super::pin::{Pin, PinClass, classify};
use super::standing::{Admission, Continuity, Sighting, plan_admission, plan_continuity, plan_header};
use super::{Record, Replicator, Retry, Waiting};
use crate::ids::{Mono, Now, PageSize};
use crate::machine::{
    Actions, Exit, Fact, LinkReply, OpId, Outcome, Reason, Request, SealRecord, Severity, Slot, SourceError,
    SourceErrorKind, SourceFacts, SourceReply, SourceRequest, StateRequest, WalFacts,
};
use crate::wal::{
    FRAME_HEADER_BYTES, FrameHeader, ScanStop, Scanner, WAL_HEADER_BYTES, WalHeader, WalIndex, WalPosition,
    frame_offset,
};

/// One step of a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The files' facts before the link is opened.
    Stat,
    /// The database's header before the link is opened.
    ReadHeader,
    /// Open the link.
    Open,
    /// Start a read transaction in the first slot when attaching.
    BeginFirst,
    /// Start one in the slot that is free.
    BeginOther,
    /// End the pin; the other slot's transaction is the pin then.
    HandOver,
    /// End the pin while the other slot's transaction stands.
    EndPin,
    /// Checkpoint on the slot that has no transaction.
    Checkpoint,
    /// Begin the pin anew in the slot that it had.
    BeginPin,
    /// End the transaction of the other slot.
    EndOther,
    /// Empty the WAL file, by the other slot, while the pin is on mark zero.
    Truncate,
    /// Take the write lock with the other slot.
    Lock,
    /// Give it back.
    Unlock,
    /// Read everything committed that was not captured.
    Capture,
    /// The WAL's header and the frame at our position, then the files' facts: prove continuity.
    Prove,
    /// The files' facts while the link is open: whether they are the same files.
    Verify,
    /// The files' facts under the write lock with everything copied back.
    SealFacts,
    /// Look at the wal-index.
    Look,
    /// Close the link.
    Close,
}

/// What a request in a step was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Only,
    Header,
    WalHeader,
    Mark,
    Facts,
    Frames,
}

/// The source side's state.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Source {
    script: VecDeque<Step>,
    op: Option<(OpId, Part)>,
    open: bool,
    created_wal: bool,
    facts: Option<Box<SourceFacts>>,
    /// The `-wal` when the position was sealed; `None` unless the link was closed upon that. What
    /// stands in a `-wal` that differs was committed since.
    sealed_wal: Option<Option<WalFacts>>,
    page_size: Option<PageSize>,
    reserved_bytes: u8,
    read_only: bool,
    /// The slot of the pin; the other slot is for overlaps and the lock.
    pub(super) home: Slot,
    pub(super) pin: Option<Pin>,
    /// A read transaction in the slot that is not the pin's.
    pub(super) other: Option<Pin>,
    locked: bool,
    pub(super) index: Option<WalIndex>,
    /// Everything up to here is captured.
    pub(super) position: Option<WalPosition>,
    scanner: Option<Scanner>,
    mark: Option<FrameHeader>,
    /// Retries within a step (a torn index, a busy lock) until this moment.
    step_until: Option<Mono>,
    step_again: Option<Mono>,
    lock_since: Option<Mono>,
    op_since: Mono,
    look_at: Option<Mono>,
    look_wait: Duration,
    looked_at: Option<Mono>,
    /// Whether an event asked for the next look, so that the files' names are checked as well.
    changed: bool,
    /// What a capture reads up to.
    target: Option<WalIndex>,
    changed_while_cold: bool,
    last_activity: Mono,
    quiet_at: Option<Mono>,
    checkpoint_at: Option<Mono>,
    /// Frames in the WAL from which the next checkpoint is tried.
    checkpoint_frames: u32,
    checkpoint_cost: Duration,
    /// Letting go has tried to copy back a WAL of this many frames.
    let_go_tried: Option<u32>,
    truncate_tried: bool,
    lock_failed: bool,
    /// Since when the WAL has been over its bound, and whether that was said.
    over_since: Option<Mono>,
    over_said: bool,
    retry: Retry,
    sweep_at: Option<Mono>,
    final_turn: bool,
    /// The link is being closed because all is captured, not because something failed.
    letting_go: bool,
    drained: bool,
}

impl Source {
    pub(super) fn new() -> Source {
        Source {
            script: VecDeque::new(),
            op: None,
            open: false,
            created_wal: false,
            facts: None,
            sealed_wal: None,
            page_size: None,
            reserved_bytes: 0,
            read_only: false,
            home: Slot::A,
            pin: None,
            other: None,
            locked: false,
            index: None,
            position: None,
            scanner: None,
            mark: None,
            step_until: None,
            step_again: None,
            lock_since: None,
            op_since: Mono::default(),
            look_at: None,
            look_wait: LOOK_FIRST,
            looked_at: None,
            changed: false,
            target: None,
            changed_while_cold: false,
            last_activity: Mono::default(),
            quiet_at: None,
            checkpoint_at: None,
            checkpoint_frames: 0,
            checkpoint_cost: Duration::ZERO,
            let_go_tried: None,
            truncate_tried: false,
            lock_failed: false,
            over_since: None,
            over_said: false,
            retry: Retry::default(),
            sweep_at: None,
            final_turn: false,
            letting_go: false,
            drained: false,
        }
    }

    pub(super) fn awaits(&self, op: OpId) -> bool {
        self.op.is_some_and(|(awaited, _)| awaited == op)
    }

    /// Whether no step is under way, so that a base may use the link or a segment may be cut.
    pub(super) fn is_idle(&self) -> bool {
        self.op.is_none() && self.script.is_empty()
    }

    /// Whether a capture has begun and not ended, so that what waits may end within a transaction.
    pub(super) fn is_capturing(&self) -> bool {
        self.target.is_some()
    }

    /// The scanner stands elsewhere than the position does now.
    pub(super) fn forget_scanner(&mut self) {
        self.scanner = None;
        self.target = None;
    }

    /// Look at once.
    pub(super) fn look_now(&mut self) {
        self.look_at = Some(Mono::default());
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether everything that was committed when we were told to finish is captured, or cannot be.
    pub(super) fn is_drained(&self) -> bool {
        self.is_detached() && self.drained
    }

    pub(super) fn is_detached(&self) -> bool {
        !self.open && self.is_idle()
    }

    pub(super) fn page_size(&self) -> Option<PageSize> {
        self.page_size
    }

    pub(super) fn file(&self) -> (u64, u64) {
        self.facts.as_ref().map_or((0, 0), |facts| (facts.device, facts.inode))
    }

    pub(super) fn wal_frames(&self) -> u32 {
        self.index.as_ref().map_or(0, |index| index.mx_frame)
    }

    pub(super) fn frames_uncaptured(&self) -> u32 {
        match (&self.index, &self.position) {
            (Some(index), Some(at)) if index.salts == at.salts => index.mx_frame.saturating_sub(at.frame),
            (Some(index), Some(_)) => index.mx_frame,
            _ => 0,
        }
    }

    /// An event said that the files may have changed.
    pub(super) fn changed(&mut self, now: Mono) {
        if self.open {
            // While a look is planned, the event tells nothing new: it is a quarter of a second away
            // at the most.
            self.look_at.get_or_insert(now);
            self.look_wait = self.look_wait.min(LOOK_FIRST);
            self.changed = true;
        } else {
            self.changed_while_cold = true;
        }
        self.retry = Retry::default();
    }

    /// Attach as soon as may be.
    pub(super) fn wake(&mut self) {
        self.changed_while_cold = true;
        self.sealed_wal = None;
    }

    /// Stop after one more capture.
    pub(super) fn drain(&mut self, now: Mono) {
        self.final_turn = true;
        self.drained = false;
        self.retry = Retry::default();
        self.checkpoint_at = None;
        if self.open {
            self.look_at = Some(now);
        } else {
            self.changed_while_cold = true;
        }
    }

    /// Forgets the link. What was captured keeps its position: its segment may still be to come.
    fn close_state(&mut self) {
        let old = core::mem::replace(self, Source::new());
        self.final_turn = old.final_turn;
        self.drained = old.drained;
        self.retry = old.retry;
        self.changed_while_cold = old.changed_while_cold;
        self.sealed_wal = old.sealed_wal;
        self.facts = old.facts;
        self.page_size = old.page_size;
        self.position = old.position;
    }
}

impl Replicator {
    pub(super) fn source_deadline(&self) -> Option<(Mono, Reason)> {
        let source = &self.source;
        if !self.boot.is_done() {
            return None;
        }
        if source.op.is_some() {
            return None;
        }
        if let Some(at) = source.step_again {
            return Some((at, Reason::Look));
        }
        if !source.script.is_empty() {
            return None;
        }
        if !source.open {
            let retry = source.retry.at.filter(|_| source.changed_while_cold || self.base_wanted.is_some());
            return match retry {
                Some(at) => Some((at, Reason::Retry)),
                None => source.sweep_at.map(|at| (at, Reason::Sweep)),
            };
        }
        if self.base.is_some() {
            return None;
        }
        let look = source.look_at.map(|at| (at, Reason::Look));
        let quiet = source.quiet_at.filter(|_| self.may_let_go()).map(|at| (at, Reason::Quiet));
        let checkpoint = source.checkpoint_at.filter(|_| self.checkpoint_wanted()).map(|at| (at, Reason::Checkpoint));
        [look, quiet, checkpoint].into_iter().flatten().min()
    }

    /// Starts the next step, or chooses the next script.
    pub(super) fn source_pump(&mut self, now: Now, out: &mut Actions) -> bool {
        if !self.boot.is_done() || self.source.op.is_some() {
            return false;
        }
        if self.source.step_again.is_some_and(|at| at > now.mono) {
            return false;
        }
        self.source.step_again = None;
        if let Some(step) = self.source.script.front().copied() {
            self.start_step(now, step, out);
            return true;
        }
        if self.base.is_some() {
            return false;
        }
        if self.source.open { self.choose_open(now) } else { self.choose_closed(now) }
    }

    fn begin_script(&mut self, steps: &[Step]) -> bool {
        self.source.script.extend(steps.iter().copied());
        self.source.step_until = None;
        true
    }

    fn choose_closed(&mut self, now: Now) -> bool {
        let source = &mut self.source;
        let swept = source.sweep_at.is_some_and(|at| at <= now.mono);
        let wanted = source.changed_while_cold || swept || self.base_wanted.is_some();
        let ready = self.source.retry.due(now.mono) && self.base_may_begin(now) && self.pending.is_empty();
        if self.draining_is_over() || !wanted || !ready {
            return false;
        }
        self.source.changed_while_cold = false;
        self.source.sweep_at = Some(now.mono.after(SWEEP));
        self.begin_script(&[Step::Stat])
    }

    /// While draining with the source detached after its last capture there is nothing to attach.
    fn draining_is_over(&self) -> bool {
        self.draining() && self.source.drained
    }

    fn choose_open(&mut self, now: Now) -> bool {
        let source = &self.source;
        if self.base_wanted.is_some() {
            // The base begins its own pin; until it may, nothing is worth holding.
            return false;
        }
        if source.look_at.is_some_and(|at| at <= now.mono) {
            self.source.look_at = None;
            return self.begin_script(&[Step::Look]);
        }
        if self.checkpoint_wanted() && source.checkpoint_at.is_none_or(|at| at <= now.mono) {
            return self.begin_checkpoint();
        }
        if self.may_let_go() && source.quiet_at.is_some_and(|at| at <= now.mono) {
            return self.begin_letting_go();
        }
        false
    }

    fn checkpoint_wanted(&self) -> bool {
        let Some(index) = &self.source.index else { return false };
        let captured = self.source.pin.is_some() && self.source.position.is_some();
        let standing = captured && self.source.reserved_bytes == 0 && !self.source.read_only;
        let due = index.mx_frame >= self.config.min_checkpoint_pages.max(self.source.checkpoint_frames);
        standing && due && !self.wal_may_restart() && !self.source.final_turn
    }

    /// Whether the next commit restarts the WAL: all captured, all copied back, our pin on mark zero.
    fn wal_may_restart(&self) -> bool {
        let source = &self.source;
        source.index.as_ref().is_some_and(|index| index.n_backfill == index.mx_frame)
            && source.pin.is_some_and(|pin| pin.restartable && pin.complete)
            && source.frames_uncaptured() == 0
    }

    fn begin_checkpoint(&mut self) -> bool {
        use Step::{BeginOther, BeginPin, Capture, Checkpoint, EndOther, EndPin, Lock, Unlock, Verify};
        let frames = self.source.wal_frames();
        let locked = frames >= self.config.min_checkpoint_pages.saturating_mul(LOCK_FACTOR)
            && self.source.checkpoint_cost <= SLOW_CHECKPOINT;
        self.begin_script(&[Verify, BeginOther, Capture, EndPin, Checkpoint, BeginPin, Capture, EndOther]);
        if locked {
            self.begin_script(&[Lock, Capture, EndPin, Checkpoint, BeginPin, Capture, Unlock]);
        }
        true
    }

    /// Quiet long enough, everything on the replica.
    fn may_let_go(&self) -> bool {
        let replicated = self.pending.is_empty() && self.upload_is_idle() && self.source.frames_uncaptured() == 0;
        replicated && self.base_wanted.is_none() && self.source.look_at.is_none() && self.source.open
    }

    fn begin_letting_go(&mut self) -> bool {
        use Step::{BeginOther, BeginPin, Capture, Checkpoint, Close, EndOther, EndPin, Lock, SealFacts, Unlock, Verify};
        let Some(index) = self.source.index.as_ref() else { return self.begin_script(&[Close]) };
        self.source.letting_go = self.source.pin.is_some() && self.source.position.is_some();
        let may_checkpoint = self.source.reserved_bytes == 0 && !self.source.read_only;
        if self.source.pin.is_none() || !may_checkpoint || (self.source.lock_failed && self.draining()) {
            return self.begin_script(&[Close]);
        }
        if index.n_backfill < index.mx_frame && self.source.let_go_tried != Some(index.mx_frame) {
            self.source.let_go_tried = Some(index.mx_frame);
            return self.begin_script(&[Verify, BeginOther, Capture, EndPin, Checkpoint, BeginPin, Capture, EndOther]);
        }
        if self.wal_file_is_large() && self.wal_may_restart() && !self.source.truncate_tried {
            // Nobody else gives the space back: the application's checkpoints only start over.
            self.source.truncate_tried = true;
            return self.begin_script(&[Step::Truncate, Verify, Capture]);
        }
        self.begin_script(&[Verify, Lock, Capture, SealFacts, Unlock, Close])
    }

    /// Whether the WAL file has grown past what checkpoints keep it at.
    fn wal_file_is_large(&self) -> bool {
        let page_bytes = u64::from(self.source.page_size.map_or(0, PageSize::get));
        let kept = u64::from(self.config.min_checkpoint_pages) * u64::from(LOCK_FACTOR) * page_bytes;
        let wal = self.source.facts.as_ref().and_then(|facts| facts.wal);
        wal.is_some_and(|wal| wal.size > kept)
    }

    fn source_submit(&mut self, now: Now, part: Part, request: SourceRequest, out: &mut Actions) {
        let op = self.submit(Request::Source(request), out);
        self.source.op = Some((op, part));
        self.source.op_since = now.mono;
    }

    fn start_step(&mut self, now: Now, step: Step, out: &mut Actions) {
        let home = self.source.home;
        let other = home.other();
        let request = match step {
            Step::Stat | Step::Verify | Step::SealFacts => SourceRequest::Stat,
            Step::ReadHeader => SourceRequest::ReadHeader,
            Step::Open => SourceRequest::Open,
            Step::BeginFirst => SourceRequest::BeginRead(Slot::A),
            Step::BeginOther => SourceRequest::BeginRead(other),
            Step::HandOver | Step::EndPin => SourceRequest::EndRead(home),
            Step::Checkpoint => SourceRequest::CheckpointPassive(home),
            Step::BeginPin => SourceRequest::BeginRead(home),
            Step::EndOther => SourceRequest::EndRead(other),
            Step::Lock => {
                self.source.step_until.get_or_insert(now.mono.after(LOCK_TRY));
                SourceRequest::BeginImmediate(other)
            }
            Step::Unlock => SourceRequest::Rollback(other),
            Step::Truncate => SourceRequest::CheckpointTruncate(other),
            Step::Look => SourceRequest::Look,
            Step::Close => SourceRequest::Close { leave_wal: !self.source.created_wal },
            Step::Capture => return self.capture_next(now, out),
            Step::Prove => {
                let request = SourceRequest::ReadDatabase { offset: 0, len: 100 };
                return self.source_submit(now, Part::Header, request, out);
            }
        };
        self.source_submit(now, Part::Only, request, out);
    }

    pub(super) fn source_completed(&mut self, now: Now, outcome: Outcome, out: &mut Actions) {
        let (_, part) = self.source.op.take().expect("the caller checked that it is awaited");
        let Some(step) = self.source.script.front().copied() else {
            unreachable!("a request belongs to the step in front");
        };
        match outcome {
            Outcome::Source(Ok(reply)) => self.step_done(now, step, part, reply, out),
            Outcome::Source(Err(error)) => self.step_failed(now, step, error, out),
            other => unreachable!("the source answers with its own outcomes, not {other:?}"),
        }
    }

    /// Reads the wal-index that came with an answer. A torn one is looked at again.
    pub(super) fn take_index(&mut self, reply: &LinkReply) -> Result<(), ()> {
        let Some(raw) = &reply.index else { return Err(()) };
        match WalIndex::parse(raw) {
            Ok(index) => {
                self.source.index = Some(index);
                Ok(())
            }
            Err(_) => Err(()),
        }
    }

    fn step_done(&mut self, now: Now, step: Step, part: Part, reply: SourceReply, out: &mut Actions) {
        match (step, reply) {
            (Step::Stat, SourceReply::Facts(facts)) => self.stat_done(now, facts, out),
            (Step::ReadHeader, SourceReply::Header(header)) => self.header_done(now, &header, out),
            (Step::Verify, SourceReply::Facts(facts)) => self.verify_done(now, facts, out),
            (Step::SealFacts, SourceReply::Facts(facts)) => self.seal_done(now, facts, out),
            (Step::Prove, SourceReply::Facts(facts)) => self.prove_done(now, facts, out),
            (Step::Close, SourceReply::Closed) => self.close_done(now, out),
            (step, SourceReply::Link(reply)) => self.link_done(now, step, part, &reply, out),
            (step, reply) => unreachable!("{step:?} is not answered by {reply:?}"),
        }
    }

    fn next_step(&mut self) {
        self.source.script.pop_front();
        self.source.step_until = None;
        self.source.step_again = None;
    }

    fn again_soon(&mut self, now: Now, wait: Duration) {
        self.source.step_again = Some(now.mono.after(wait));
    }

    // Attaching.

    fn wait_for(&mut self, now: Now, why: &str, hint: &str, out: &mut Actions) {
        self.source.script.clear();
        self.source.retry = Retry::default();
        self.source.sweep_at = Some(now.mono.after(SWEEP));
        self.source.drained = true;
        let waiting = Waiting { why: why.into(), hint: hint.into() };
        if self.waiting.as_ref() != Some(&waiting) {
            out.notify(Severity::Warn, Fact::Waiting { why: why.into(), hint: hint.into() });
        }
        self.waiting = Some(waiting);
    }

    fn admit(&mut self, now: Now, admission: Admission, out: &mut Actions) -> bool {
        match admission {
            Admission::Open => true,
            Admission::Wait { why, hint } => {
                self.wait_for(now, why, hint, out);
                false
            }
            Admission::Refuse { why, hint } => {
                self.stop(Exit::Misconfigured { error: why, hint: hint.into() }, out);
                false
            }
        }
    }

    fn stat_done(&mut self, now: Now, facts: Option<Box<SourceFacts>>, out: &mut Actions) {
        if facts.is_some() && self.nothing_happened(facts.as_deref()) {
            self.next_step();
            self.source.drained = true;
            return;
        }
        if !self.admit(now, plan_admission(facts.as_deref()), out) {
            return;
        }
        self.source.facts = facts;
        self.next_step();
        self.begin_script(&[Step::ReadHeader]);
    }

    /// Whether the files of a source that was let go are as we left them: our own closing makes
    /// events too.
    fn nothing_happened(&self, facts: Option<&SourceFacts>) -> bool {
        if self.base_wanted.is_some() {
            return false;
        }
        let (Some(facts), Some(seal)) = (facts, &self.history.seal) else { return false };
        let wal_as_left = match (&facts.wal, &self.source.sealed_wal) {
            (None, _) => true,
            (Some(wal), _) if wal.size == 0 => true,
            (Some(wal), Some(Some(left))) => wal == left,
            _ => false,
        };
        *seal == SealRecord::of(facts) && wal_as_left
    }

    fn header_done(&mut self, now: Now, header: &[u8], out: &mut Actions) {
        if !self.admit(now, plan_header(header), out) {
            return;
        }
        self.source.page_size = PageSize::from_u16(u16::from_be_bytes([header[16], header[17]]));
        if self.source.page_size.is_none() {
            let admission = Admission::Refuse {
                why: format!("the database header names page size {}", u16::from_be_bytes([header[16], header[17]])),
                hint: "the file is damaged",
            };
            self.admit(now, admission, out);
            return;
        }
        self.source.reserved_bytes = header[20];
        self.next_step();
        self.begin_script(&[Step::Open, Step::BeginFirst, Step::BeginOther, Step::HandOver, Step::Prove]);
    }

    /// The WAL header, the frame at our position and the files' facts have been read under a pin.
    fn prove_done(&mut self, now: Now, facts: Option<Box<SourceFacts>>, out: &mut Actions) {
        let same = facts.as_ref().is_some_and(|new| same_file(self.source.facts.as_deref(), new));
        let (Some(facts), true) = (facts, same) else {
            return self.detach(now, "the database file changed while it was being opened", out);
        };
        let index = self.source.index.clone().expect("a pin stands");
        let page_size = self.source.page_size.expect("read before opening");
        let sighting = Sighting { facts: &facts, index: &index, page_size, mark: self.source.mark };
        if self.waiting.take().is_some() {
            out.notify(Severity::Info, Fact::Recovered { what: "access to the database".into() });
        }
        out.notify(Severity::Info, Fact::Attached);
        self.source.retry.clear();
        self.source.last_activity = now.mono;
        self.set_quiet(now);
        self.next_step();
        if self.base_wanted.is_none() {
            let continuity = match (&self.history.point, &self.history.table) {
                (Some(point), Some(_)) => plan_continuity(point, self.history.seal.as_ref(), sighting),
                _ => Continuity::Rebase { why: "the local page table is lost".into() },
            };
            match continuity {
                Continuity::From(position) => {
                    self.source.position = Some(position);
                    self.source.facts = Some(facts);
                    self.after_look(now);
                    self.begin_script(&[Step::Capture]);
                    return;
                }
                Continuity::WalStart => {
                    let mut at = WalPosition { salts: index.salts, frame: 0, checksum: Default::default() };
                    at.salts = index.salts;
                    self.source.position = Some(at);
                    self.source.facts = Some(facts);
                    self.begin_script(&[Step::Capture]);
                    return;
                }
                Continuity::Rebase { why } => {
                    let known = self.history.table.is_some()
                        && self.history.point.as_ref().is_some_and(|point| point.page_size == page_size);
                    self.want_base(why, !known && self.history.table.is_none(), false, false);
                }
            }
        }
        self.source.facts = Some(facts);
    }

    // Letting go.

    /// Lets go of a link that is of no use. What was captured stays: its segment leaves before
    /// the source is opened again.
    pub(super) fn detach(&mut self, now: Now, why: &str, out: &mut Actions) {
        if self.source.is_capturing() {
            self.source.position = None;
        }
        out.notify(Severity::Info, Fact::Remark { text: why.to_string() });
        let draw = self.draw();
        // What changes while nothing is pinned is not among them, and nothing was sealed.
        self.dirty = None;
        self.source.sealed_wal = None;
        self.source.letting_go = false;
        let source = &mut self.source;
        source.forget_scanner();
        source.locked = false;
        source.lock_since = None;
        source.step_again = None;
        source.step_until = None;
        source.retry.fail(now.mono, draw);
        source.changed_while_cold = true;
        source.script.clear();
        if source.open {
            source.script.push_back(Step::Close);
        }
    }

    fn close_done(&mut self, now: Now, out: &mut Actions) {
        let sealed = self.history.seal.is_some();
        out.notify(Severity::Info, Fact::Detached { sealed });
        let lost = self.source.position.is_none();
        let drained = self.draining() && self.source.letting_go;
        self.dirty = None;
        self.source.close_state();
        self.source.drained = drained && !lost;
        if lost && !self.pending.is_empty() {
            // What was captured still extends the point; what comes next is proven or surveyed
            // against it, so it must leave first or be forgotten. Forgetting is always right.
            let pages = self.history.point.as_ref().map_or(0, |point| point.pages);
            self.forget_pending(pages);
        }
        self.source.sweep_at = Some(now.mono.after(SWEEP));
        self.source.script.clear();
    }

    pub(super) fn forget_pending(&mut self, pages: u32) {
        self.frames_captured -= self.pending.frames.min(self.frames_captured - self.frames_replicated);
        self.pending.reset(pages);
    }

    fn verify_done(&mut self, now: Now, facts: Option<Box<SourceFacts>>, out: &mut Actions) {
        let known = self.source.facts.as_deref();
        match facts {
            None => self.detach(now, "the database file is gone", out),
            Some(facts) if !same_file(known, &facts) => self.detach(now, "the database file was replaced", out),
            Some(facts) if !same_wal(known, &facts) => self.detach(now, "the -wal file was replaced", out),
            Some(facts) => {
                self.source.facts = Some(facts);
                self.next_step();
            }
        }
    }

    fn seal_done(&mut self, now: Now, facts: Option<Box<SourceFacts>>, out: &mut Actions) {
        let sealed = self.wal_is_copied() && self.source.frames_uncaptured() == 0;
        let Some(facts) = facts.filter(|facts| same_file(self.source.facts.as_deref(), facts)) else {
            return self.detach(now, "the database file was replaced", out);
        };
        let age = facts.now_ns - facts.ctime_ns;
        if !self.pending.is_empty() && !self.draining() {
            // The application has written meanwhile: it is not quiet after all.
            self.source.script.clear();
            self.begin_script(&[Step::Unlock]);
            self.set_quiet(now);
            return;
        }
        if sealed && age < CTIME_SETTLED_NS {
            // A write in the same clock tick would leave the same time: come again when it is older.
            self.source.script.clear();
            self.begin_script(&[Step::Unlock]);
            let wait = Duration::from_nanos((CTIME_SETTLED_NS - age.max(0)).max(1_000_000) as u64);
            self.source.quiet_at = Some(now.mono.after(wait));
            return;
        }
        if sealed && self.pending.is_empty() && self.history.point.is_some() {
            let seal = SealRecord::of(&facts);
            let record = Record::Sealed(seal.clone());
            self.record_moved(out);
            let bytes = record.encode();
            self.submit(Request::State(StateRequest::Append(bytes)), out);
            self.history.seal = Some(seal);
            // As with the database, a write in the same clock tick would leave the same time.
            let settled = facts.wal.is_none_or(|wal| facts.now_ns - wal.mtime_ns >= CTIME_SETTLED_NS);
            self.source.sealed_wal = Some(facts.wal).filter(|_| settled);
        }
        self.source.facts = Some(facts);
        self.next_step();
    }

    /// Writes down a WAL position that moved without a change of state.
    fn record_moved(&mut self, out: &mut Actions) {
        let file = self.source.file();
        let Some(wal) = self.source.position else { return };
        let Some(point) = &mut self.history.point else { return };
        if point.wal != Some(wal) || point.file != file {
            point.wal = Some(wal);
            point.file = file;
            let bytes = Record::Moved { file, wal }.encode();
            self.submit(Request::State(StateRequest::Append(bytes)), out);
        }
    }

    fn wal_is_copied(&self) -> bool {
        self.source.index.as_ref().is_some_and(|index| index.n_backfill == index.mx_frame)
    }

    fn set_quiet(&mut self, now: Now) {
        let wait = if self.draining() { Duration::ZERO } else { self.config.quiet_after };
        self.source.quiet_at = Some(now.mono.after(wait));
    }

    // The open link.

    fn link_done(&mut self, now: Now, step: Step, part: Part, reply: &LinkReply, out: &mut Actions) {
        let before = self.source.index.clone();
        let seen = self.take_index(reply);
        let judged = step == Step::Open || part == Part::Header || self.step_took_effect(step);
        if seen.is_err() && !judged {
            // Torn or not there: a writer is in the middle of publishing it. Nothing hangs on this
            // answer but the look.
            return self.look_again(now, out);
        }
        match step {
            Step::Open => {
                self.source.open = true;
                self.source.sealed_wal = None;
                self.source.read_only = reply.read_only;
                self.source.created_wal = self.source.facts.as_ref().is_some_and(|facts| facts.wal.is_none());
                self.next_step();
            }
            Step::BeginFirst | Step::BeginOther | Step::BeginPin => self.begun(step, before.as_ref(), seen.is_ok()),
            Step::HandOver => {
                self.source.pin = self.source.other.take();
                self.source.home = self.source.home.other();
                self.next_step();
            }
            Step::EndPin => {
                self.source.pin = None;
                self.next_step();
            }
            Step::EndOther => self.end_other(now, out),
            Step::Lock => {
                self.source.locked = true;
                self.source.lock_failed = false;
                self.source.lock_since = Some(now.mono);
                self.next_step();
            }
            Step::Unlock => {
                self.source.locked = false;
                self.source.lock_since = None;
                self.next_step();
                self.after_checkpoint(now, true, out);
            }
            Step::Truncate => self.next_step(),
            Step::Checkpoint => self.checkpointed(now),
            Step::Look => self.looked(now),
            Step::Capture => self.captured(now, part, reply, out),
            Step::Prove => self.prove_part(now, part, reply, out),
            step => unreachable!("{step:?} does not use the link"),
        }
    }

    /// Steps whose effect stands even when the index that came along was torn.
    fn step_took_effect(&self, step: Step) -> bool {
        !matches!(step, Step::Look | Step::Capture | Step::Prove)
    }

    fn look_again(&mut self, now: Now, out: &mut Actions) {
        let until = *self.source.step_until.get_or_insert(now.mono.after(Duration::from_secs(5)));
        if until <= now.mono {
            return self.detach(now, "the wal-index stayed torn for five seconds", out);
        }
        self.again_soon(now, Duration::from_millis(1));
    }

    fn begun(&mut self, step: Step, before: Option<&WalIndex>, seen: bool) {
        let class = match (before, &self.source.index) {
            (Some(before), Some(after)) if seen => classify(before, after),
            _ => PinClass::Unproven,
        };
        let pin = Pin { restartable: class != PinClass::Mark, complete: false };
        match step {
            Step::BeginOther => self.source.other = Some(pin),
            _ => self.source.pin = Some(pin),
        }
        self.next_step();
    }

    fn end_other(&mut self, now: Now, out: &mut Actions) {
        self.source.other = None;
        self.next_step();
        self.after_checkpoint(now, false, out);
    }

    /// New frames were seen, or none.
    fn looked(&mut self, now: Now) {
        self.next_step();
        let frames = self.source.frames_uncaptured();
        let since = self.source.looked_at.replace(now.mono).map(|at| now.mono.since(at));
        if frames > 0 {
            self.source.last_activity = now.mono;
            self.source.look_wait = look_wait(frames, since, self.config.min_checkpoint_pages);
            self.source.let_go_tried = None;
            self.source.truncate_tried = false;
            self.set_quiet(now);
            self.source.look_at = Some(now.mono.after(self.source.look_wait));
            self.begin_script(&[Step::BeginOther, Step::Capture, Step::HandOver]);
        } else {
            self.after_look(now);
            if core::mem::take(&mut self.source.changed) {
                self.begin_script(&[Step::Verify]);
            }
        }
        if self.source.final_turn {
            self.source.look_at = None;
            self.set_quiet(now);
        }
    }

    /// Nothing new: look less often, and once that is slow enough leave it to events.
    fn after_look(&mut self, now: Now) {
        let wait = self.source.look_wait;
        if wait >= LOOK_MAX || self.source.index.is_none() {
            self.source.look_at = None;
            self.source.look_wait = LOOK_FIRST;
        } else {
            self.source.look_wait = (wait * 2).min(LOOK_MAX);
            self.source.look_at = Some(now.mono.after(self.source.look_wait));
        }
    }

    /// Whether the host should say when the files change. While looks are planned anyway, it
    /// need not.
    pub fn wants_events(&self) -> bool {
        !self.source.open || self.source.look_at.is_none()
    }

    // Checkpoints.

    fn checkpointed(&mut self, now: Now) {
        if !self.source.locked {
            self.source.checkpoint_cost = now.mono.since(self.source.op_since);
        }
        self.next_step();
    }

    fn after_checkpoint(&mut self, now: Now, locked: bool, out: &mut Actions) {
        if self.source.script.front() == Some(&Step::Lock) {
            if self.wal_may_restart() {
                self.source.script.clear();
            } else {
                return;
            }
        }
        let Some(index) = self.source.index.clone() else { return };
        out.notify(
            Severity::Debug,
            Fact::Checkpointed { frames: index.mx_frame, backfilled: index.n_backfill, locked },
        );
        let threshold = self.config.min_checkpoint_pages;
        if self.wal_may_restart() {
            self.source.checkpoint_frames = 0;
        } else {
            self.source.checkpoint_frames = index.mx_frame.saturating_add(threshold);
            self.source.checkpoint_at = Some(now.mono.after(LOOK_MIN));
        }
        // A slow disk or a long checkpoint makes it so for a moment; a reader keeps it so.
        if index.mx_frame <= threshold.saturating_mul(ALERT_FACTOR) || self.wal_may_restart() {
            self.source.over_since = None;
            self.source.over_said = false;
            return;
        }
        let since = *self.source.over_since.get_or_insert(now.mono);
        if now.mono.since(since) >= ALERT_AFTER && !core::mem::replace(&mut self.source.over_said, true) {
            out.notify(Severity::Warn, Fact::WalOverBound { frames: index.mx_frame });
        }
    }

    // Capturing.

    /// Whether a restart of the WAL under the pin that stands loses nothing.
    fn restart_is_harmless(&self) -> bool {
        self.source.pin.or(self.source.other).is_some_and(|pin| pin.restartable && pin.complete)
    }

    fn capture_next(&mut self, now: Now, out: &mut Actions) {
        let Some(mut at) = self.source.position else { return self.next_step() };
        if self.source.target.is_none() {
            let index = self.source.index.clone().expect("a link that stands has an index");
            if index.salts != at.salts {
                if !self.restart_is_harmless() && !(index.mx_frame == 0 && at.frame == 0) {
                    return self.lose_position(now, "the WAL was restarted while frames in it had not been captured", out);
                }
                at = WalPosition { salts: index.salts, frame: 0, checksum: Default::default() };
                self.source.position = Some(at);
                self.source.scanner = None;
            }
            if index.mx_frame < at.frame {
                return self.lose_position(now, "the source rolled back: its WAL ends before what was captured", out);
            }
            self.source.target = Some(index);
        }
        let target = self.source.target.as_ref().expect("set above");
        let page_size = self.source.page_size.expect("read before opening");
        if at.frame == target.mx_frame {
            return self.capture_ends(now, out);
        }
        if self.source.scanner.is_none() && at.frame == 0 {
            let request = SourceRequest::ReadWal { offset: 0, len: WAL_HEADER_BYTES as u32 };
            return self.source_submit(now, Part::WalHeader, request, out);
        }
        if self.source.scanner.is_none() {
            self.source.scanner = Some(Scanner::resume(at, page_size, target.big_endian_checksums));
        }
        let frame_bytes = page_size.get() + FRAME_HEADER_BYTES as u32;
        let frames = (target.mx_frame - at.frame).min((READ_BYTES / frame_bytes).max(1));
        let request =
            SourceRequest::ReadWal { offset: frame_offset(page_size, at.frame + 1), len: frames * frame_bytes };
        self.source_submit(now, Part::Frames, request, out);
    }

    fn captured(&mut self, now: Now, part: Part, reply: &LinkReply, out: &mut Actions) {
        let bytes = reply.bytes.as_deref().unwrap_or_default();
        match part {
            Part::WalHeader => self.capture_header(now, bytes, out),
            _ => self.capture_frames(now, bytes, out),
        }
    }

    fn capture_header(&mut self, now: Now, bytes: &[u8], out: &mut Actions) {
        let salts = self.source.target.as_ref().expect("set when the capture began").salts;
        match WalHeader::decode(bytes) {
            Ok(header) if header.salts == salts && Some(header.page_size) == self.source.page_size => {
                self.source.position = Some(WalPosition { salts, frame: 0, checksum: header.checksum });
                self.source.scanner = Some(Scanner::from_header(&header));
            }
            _ => {
                // Restarted again between the look and the read, which mark zero allows only while
                // nothing has been written: look anew.
                self.source.target = None;
                self.look_again(now, out);
            }
        }
    }

    fn capture_frames(&mut self, now: Now, bytes: &[u8], out: &mut Actions) {
        let limit = self.source.target.as_ref().expect("set when the capture began").mx_frame;
        let mut scanner = self.source.scanner.take().expect("set when the capture began");
        let before = self.source.position.expect("a capture has a position");
        let pending = &mut self.pending;
        pending.start.get_or_insert(before);
        let result = scanner.scan(bytes, limit, &mut |_, frame, data| pending.take(now.mono, frame, data));
        let after = scanner.position();
        self.frames_captured += u64::from(after.frame - before.frame);
        self.source.position = Some(after);
        self.source.scanner = Some(scanner);
        match result {
            Ok(0) => self.lose_position(now, "the WAL is shorter than the wal-index says", out),
            Ok(_) => {}
            Err(stop) => self.lose_position(now, &scan_stop_text(&stop), out),
        }
    }

    fn capture_ends(&mut self, now: Now, out: &mut Actions) {
        let target = self.source.target.take().expect("set when the capture began");
        let at = self.source.position.expect("a capture has a position");
        if at.frame > 0 && at.checksum != target.frame_checksum {
            return self.lose_position(now, "the WAL's checksum at its end differs from the wal-index's", out);
        }
        for pin in [&mut self.source.pin, &mut self.source.other].into_iter().flatten() {
            pin.complete = true;
        }
        self.next_step();
    }

    /// What was captured since the point may not be whole: begin again from the point.
    fn lose_position(&mut self, now: Now, why: &str, out: &mut Actions) {
        self.source.position = None;
        self.detach(now, why, out);
    }

    fn prove_part(&mut self, now: Now, part: Part, reply: &LinkReply, out: &mut Actions) {
        let bytes = reply.bytes.as_deref().unwrap_or_default();
        if part == Part::Header {
            if !self.header_still_holds(bytes) {
                return self.detach(now, "the database changed while it was being opened", out);
            }
            let request = SourceRequest::ReadWal { offset: 0, len: WAL_HEADER_BYTES as u32 };
            return self.source_submit(now, Part::WalHeader, request, out);
        }
        if part == Part::WalHeader {
            let point = self.history.point.as_ref().and_then(|point| point.wal.map(|wal| (wal, point.page_size)));
            if let Some((wal, page_size)) = point.filter(|(wal, _)| wal.frame > 0) {
                let request = SourceRequest::ReadWal {
                    offset: frame_offset(page_size, wal.frame),
                    len: FRAME_HEADER_BYTES as u32,
                };
                return self.source_submit(now, Part::Mark, request, out);
            }
        } else {
            self.source.mark = bytes.first_chunk().and_then(FrameHeader::decode);
        }
        self.source_submit(now, Part::Facts, SourceRequest::Stat, out);
    }

    /// Whether the header that was read before the link was opened is still the database's: until
    /// a read transaction stands, the application may leave WAL mode and change the page size.
    fn header_still_holds(&self, header: &[u8]) -> bool {
        plan_header(header) == Admission::Open
            && PageSize::from_u16(u16::from_be_bytes([header[16], header[17]])) == self.source.page_size
            && header[20] == self.source.reserved_bytes
    }

    // Failures.

    fn step_failed(&mut self, now: Now, step: Step, error: SourceError, out: &mut Actions) {
        if let Some(index) = error.index.as_deref().and_then(|raw| WalIndex::parse(raw).ok()) {
            self.source.index = Some(index);
        }
        let busy = error.kind == SourceErrorKind::Busy;
        match step {
            Step::Stat | Step::ReadHeader | Step::Open => self.attach_failed(now, &error, out),
            Step::Lock if busy => self.lock_busy(now),
            Step::Truncate if busy => self.next_step(),
            Step::Checkpoint if busy => {
                let held = self.source.lock_since.map(|at| now.mono.since(at));
                match held {
                    Some(held) if held < LOCK_HOLD => self.again_soon(now, Duration::from_micros(500)),
                    _ => self.next_step(),
                }
            }
            Step::BeginPin if busy && self.source.locked => {
                let held = self.source.lock_since.map(|at| now.mono.since(at));
                match held {
                    Some(held) if held < LOCK_HOLD => self.again_soon(now, Duration::from_micros(500)),
                    _ => self.detach(now, "no read transaction was to be had under the write lock", out),
                }
            }
            Step::BeginPin if busy => {
                // The other slot's transaction still stands: it is the pin now.
                self.source.pin = self.source.other.take();
                self.source.home = self.source.home.other();
                self.abandon(now);
            }
            Step::BeginFirst | Step::BeginOther if busy && self.source.script.contains(&Step::Prove) => {
                let until = *self.source.step_until.get_or_insert(now.mono.after(Duration::from_secs(5)));
                match until <= now.mono {
                    true => self.detach(now, &error.text, out),
                    false => self.again_soon(now, Duration::from_millis(5)),
                }
            }
            Step::BeginOther if busy => self.abandon(now),
            Step::Close => self.close_done(now, out),
            _ => self.detach(now, &format!("{step:?} failed: {}", error.text), out),
        }
    }

    fn lock_busy(&mut self, now: Now) {
        let until = self.source.step_until.expect("set when the step began");
        if now.mono < until {
            return self.again_soon(now, Duration::from_micros(500));
        }
        self.source.lock_failed = true;
        let frames = self.source.wal_frames();
        self.source.checkpoint_frames = frames.saturating_add(self.config.min_checkpoint_pages / 4);
        self.source.quiet_at = Some(now.mono.after(if self.draining() { Duration::ZERO } else { LOOK_FIRST }));
        self.abandon(now);
    }

    /// Gives up the script; what stands stays.
    fn abandon(&mut self, now: Now) {
        self.source.script.clear();
        self.source.step_until = None;
        self.source.target = None;
        self.source.checkpoint_at = Some(now.mono.after(LOOK_FIRST));
        if self.source.other.is_some() {
            self.begin_script(&[Step::EndOther]);
        }
        if !self.source.final_turn {
            self.source.look_at.get_or_insert(now.mono.after(LOOK_FIRST));
        }
    }

    fn attach_failed(&mut self, now: Now, error: &SourceError, out: &mut Actions) {
        match error.kind {
            SourceErrorKind::Missing => {
                let wait = plan_admission(None);
                self.admit(now, wait, out);
            }
            SourceErrorKind::Denied => {
                let hint = "give the user that runs driftless read and write access to the database, its -wal, its -shm and their directory";
                self.wait_for(now, &error.text, hint, out);
            }
            SourceErrorKind::NotADatabase => {
                let hint = "name a plain SQLite database; encrypted files are not supported";
                self.admit(now, Admission::Refuse { why: error.text.clone(), hint }, out);
            }
            SourceErrorKind::Busy | SourceErrorKind::Io => {
                self.source.script.clear();
                let draw = self.draw();
                let wait = self.source.retry.fail(now.mono, draw);
                self.source.changed_while_cold = true;
                self.last_error = Some(error.text.clone());
                out.notify(
                    Severity::Warn,
                    Fact::Retrying {
                        what: "opening the database".into(),
                        error: error.text.clone(),
                        wait_ms: wait.as_millis() as u64,
                    },
                );
            }
        }
    }
}

/// How long to wait for the next look when `frames` came within `since`: until about as many as
/// start a checkpoint may have come.
fn look_wait(frames: u32, since: Option<Duration>, threshold: u32) -> Duration {
    let Some(since) = since.filter(|since| *since < Duration::from_secs(1)) else { return LOOK_FIRST };
    let micros = since.as_micros() as u64 * u64::from(threshold.max(1)) / u64::from(frames.max(1));
    Duration::from_micros(micros).clamp(LOOK_MIN, LOOK_MAX)
}

fn scan_stop_text(stop: &ScanStop) -> alloc::string::String {
    format!("the WAL does not hold what the wal-index says: {stop:?}")
}

fn same_file(known: Option<&SourceFacts>, new: &SourceFacts) -> bool {
    known.is_some_and(|known| (known.device, known.inode) == (new.device, new.inode))
}

/// The `-wal` that is open: once there, its inode stays.
fn same_wal(known: Option<&SourceFacts>, new: &SourceFacts) -> bool {
    match (known.and_then(|known| known.wal), new.wal) {
        (Some(WalFacts { inode: known, .. }), Some(WalFacts { inode: new, .. })) => known == new,
        (Some(_), None) => false,
        _ => true,
    }
}
