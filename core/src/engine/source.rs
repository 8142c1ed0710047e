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
//! | seal | lock other, capture, look behind the last frame and at the files, unlock other, end pin, close |
//!
//! A failure abandons the script; what stands is put in order (`tidy`), and the next look begins
//! afresh.

mod attach;
mod capture;
mod checkpoint;
mod let_go;
mod look;
mod script;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::ToString;
use core::time::Duration;

use super::config::{
    ALERT_AFTER, ALERT_FACTOR, CAPTURE_BYTES, CHECKPOINT_AGAIN, CHECKPOINT_WAIT, COMMIT_WAIT_MAX,
    CTIME_SETTLED_NS, LOCK_AGAIN, LOCK_FACTOR, LOCK_HOLD, LOCK_REFUSED_MAX, LOCK_REST_LONG, LOCK_REST_SHORT,
    LOCK_TRY, LOOK_MAX, LOOK_MIN, NEWEST_FRAMES, PASSES_MAX, SCRIPT_AGAIN, SLOW_LOCK, SWEEP,
};
use super::pin::{Pin, PinClass, classify};
use super::standing::{Admission, Continuity, Sighting, plan_admission, plan_continuity, plan_header};
use super::{Record, Replicator, Retry, Waiting};
use crate::ids::{Mono, Now, PageSize};
use crate::machine::{
    Actions, Exit, Fact, LinkReply, OpId, Outcome, Reason, Request, ScratchRequest, SealRecord, Severity,
    Slot, SourceError, SourceErrorKind, SourceFacts, SourceReply, SourceRequest, WalFacts,
};
use crate::mutant::{self, Mutant};
use crate::wal::{
    FRAME_HEADER_BYTES, FrameHeader, Newest, Salts, ScanStop, Scanner, WAL_HEADER_BYTES, WalHeader, WalIndex,
    WalPosition, frame_offset,
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
    /// The header of the frame behind the last committed one, under the write lock.
    Tail,
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
    Moved,
    Frames,
    FramePages,
    Newest,
    Aside,
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
    /// Behind the last committed frame stands another of the same WAL, as after a commit that
    /// failed: whoever recovers the WAL may take it for committed, and no byte changes.
    tail: bool,
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
    /// When it was asked for: what was committed before is in it.
    index_at: Mono,
    /// The answer to the last BEGIN brought no index, and none has come since.
    index_is_old: bool,
    /// Everything up to here is captured.
    pub(super) position: Option<WalPosition>,
    scanner: Option<Scanner>,
    /// What is being read of many frames, behind the position.
    newest: Option<Newest>,
    /// The wal-index did not name the pages of this capture's frames, so all are read.
    every_frame: bool,
    mark: Option<FrameHeader>,
    /// The files' facts while continuity is being proven.
    proof_facts: Option<Box<SourceFacts>>,
    /// Retries within a step (a torn index, a busy lock) until this moment.
    step_until: Option<Mono>,
    step_again: Option<Mono>,
    lock_since: Option<Mono>,
    /// When the request under way was made.
    op_since: Mono,
    /// How long the last checkpoint took, which tells how quick the disk is at the moment.
    copying_took: Duration,
    look_at: Option<Mono>,
    look_wait: Duration,
    looked_at: Option<Mono>,
    /// The look before that was a moment earlier: what it did not see was written since.
    recent: bool,
    /// The replicator's `frames_captured` and what was not captured, at that look.
    frames_seen: u64,
    /// The highest rate of the last looks at which frames came.
    frames_per_second: u64,
    /// Whether an event asked for the next look, so that the files' names are checked as well.
    changed: bool,
    /// What a capture reads up to.
    target: Option<WalIndex>,
    /// When that was asked for.
    target_at: Mono,
    changed_while_cold: bool,
    last_activity: Mono,
    quiet_at: Option<Mono>,
    checkpoint_at: Option<Mono>,
    /// Frames in the WAL from which the next checkpoint is tried.
    checkpoint_frames: u32,
    /// Passes without the lock that may still precede the lock.
    passes_left: u8,
    /// Until when the lock is not taken for a checkpoint.
    lock_rest_until: Option<Mono>,
    /// How many times in a row the lock was held for long.
    slow_locks: u8,
    /// Letting go has tried to copy back a WAL of this many frames.
    let_go_tried: Option<u32>,
    truncate_tried: bool,
    lock_failed: bool,
    /// How often in a row the lock was asked for in vain, each time for a while.
    lock_refusals: u32,
    /// Since when the WAL has been over its bound, and whether that was said.
    over_since: Option<Mono>,
    over_said: bool,
    retry: Retry,
    sweep_at: Option<Mono>,
    final_turn: bool,
    drained: bool,
    /// Whether people were told that the source is followed.
    said_attached: bool,
    /// The link is let go of because of a failure: closing it is no end of a final turn.
    failed: bool,
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
            tail: false,
            page_size: None,
            reserved_bytes: 0,
            read_only: false,
            home: Slot::A,
            pin: None,
            other: None,
            locked: false,
            index: None,
            index_at: Mono::default(),
            index_is_old: false,
            position: None,
            scanner: None,
            newest: None,
            every_frame: false,
            mark: None,
            proof_facts: None,
            step_until: None,
            step_again: None,
            lock_since: None,
            op_since: Mono::default(),
            copying_took: Duration::ZERO,
            look_at: None,
            look_wait: LOOK_MIN,
            looked_at: None,
            recent: false,
            frames_seen: 0,
            frames_per_second: 0,
            changed: false,
            target: None,
            target_at: Mono::default(),
            changed_while_cold: false,
            last_activity: Mono::default(),
            quiet_at: None,
            checkpoint_at: None,
            checkpoint_frames: 0,
            passes_left: 0,
            lock_rest_until: None,
            slow_locks: 0,
            let_go_tried: None,
            truncate_tried: false,
            lock_failed: false,
            lock_refusals: 0,
            over_since: None,
            over_said: false,
            retry: Retry::default(),
            sweep_at: None,
            final_turn: false,
            drained: false,
            said_attached: false,
            failed: false,
        }
    }

    pub(super) fn awaits(&self, op: OpId) -> bool {
        self.op.is_some_and(|(awaited, _)| awaited == op)
    }

    /// Since when an answer is awaited.
    pub(super) fn asked_since(&self) -> Option<Mono> {
        self.op.map(|_| self.op_since)
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
        self.newest = None;
        self.every_frame = false;
        self.target = None;
    }

    /// Look at once.
    pub(super) fn look_now(&mut self) {
        self.look_at = Some(Mono::default());
    }

    /// Somebody waits: a planned look comes no later than this.
    pub(super) fn look_by(&mut self, at: Mono) {
        self.look_at = self.look_at.map(|planned| planned.min(at));
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
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

    /// Whether there was no `-wal` before the link was opened.
    fn found_no_wal(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.wal.is_none())
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
            self.look_wait = self.look_wait.min(LOOK_MIN);
            self.changed = true;
        } else {
            self.changed_while_cold = true;
        }
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
            if self.script.contains(&Step::Close) {
                // The last capture may lie behind us, and what is committed since is not in it.
                self.failed = true;
                self.changed_while_cold = true;
            }
        } else {
            self.changed_while_cold = true;
        }
    }

    /// Whether the write lock is held for longer than anything but a checkpoint should take.
    pub(super) fn lock_is_held_long(&self, now: Now) -> bool {
        self.lock_since.is_some_and(|since| now.mono.since(since) >= LOCK_HOLD)
    }

    /// Forgets the link. What was captured keeps its position: its segment may still be to come.
    fn close_state(&mut self) {
        let old = core::mem::replace(self, Source::new());
        self.final_turn = old.final_turn;
        self.drained = old.drained;
        self.retry = old.retry;
        // An event that came while the link was being closed was not looked into.
        let changed = old.changed && !mutant::on(Mutant::EventForgottenInClose);
        self.changed_while_cold = old.changed_while_cold || changed;
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
        // Whatever cannot be begun yet is begun by the event that makes it possible.
        if !source.open {
            let blocked = !self.pending.is_empty() || self.base.is_some() || self.draining_is_over();
            if blocked || (self.base_wanted.is_some() && self.base_is_blocked()) {
                return None;
            }
            // With a base wanted, opening waits for that as well.
            let base = self.base_retry.at.filter(|_| self.base_wanted.is_some());
            if source.changed_while_cold {
                return source.retry.at.max(base).map(|at| (at, Reason::Retry));
            }
            return source.sweep_at.map(|at| (base.map_or(at, |base| at.max(base)), Reason::Sweep));
        }
        if self.base_uses_link() || (self.base_wanted.is_some() && !self.base_is_followed()) {
            return None;
        }
        let look = source.look_at.map(|at| (at, Reason::Look));
        let quiet = source.quiet_at.filter(|_| self.may_let_go()).map(|at| (at, Reason::Quiet));
        let checkpoint =
            source.checkpoint_at.filter(|_| self.checkpoint_wanted()).map(|at| (at, Reason::Checkpoint));
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
        if self.base_uses_link() {
            return false;
        }
        if self.source.open { self.choose_open(now, out) } else { self.choose_closed(now) }
    }

    fn begin_script(&mut self, steps: &[Step]) -> bool {
        self.source.script.extend(steps.iter().copied());
        self.source.step_until = None;
        true
    }

    fn choose_closed(&mut self, now: Now) -> bool {
        let source = &mut self.source;
        let swept = source.sweep_at.is_some_and(|at| at <= now.mono);
        let wanted = source.changed_while_cold || swept;
        // What a base or a segment holds extends the point: it leaves before the source is proven anew.
        let leaving = self.base.is_some() || !self.pending.is_empty();
        let ready = self.source.retry.due(now.mono) && self.base_may_begin(now) && !leaving;
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

    fn choose_open(&mut self, now: Now, out: &mut Actions) -> bool {
        let source = &self.source;
        if self.base_wanted.is_some() && !self.base_is_followed() {
            // The base begins its own pin; until it may, nothing is worth holding. A store that
            // does not answer must not keep the WAL from being started over.
            let waits = self.upload.waits_for_store() || !self.base_retry.due(now.mono);
            if waits {
                self.detach(now, "a base waits until it may begin", out);
            }
            return waits;
        }
        let forgotten = source.look_at.is_none() && source.frames_uncaptured() > 0 && !source.final_turn;
        if forgotten && !mutant::on(Mutant::FramesBehindForgotten) {
            // An answer told of them behind the last capture, and their event may have been lost.
            self.source.look_at = Some(now.mono.after(LOOK_MIN));
        }
        if self.source.look_at.is_some_and(|at| at <= now.mono) {
            self.source.look_at = None;
            return self.begin_script(&[Step::Look]);
        }
        if self.checkpoint_wanted() && self.source.checkpoint_at.is_none_or(|at| at <= now.mono) {
            return self.begin_checkpoint(now);
        }
        if self.may_let_go() && self.source.quiet_at.is_some_and(|at| at <= now.mono) {
            return self.begin_letting_go();
        }
        false
    }
}
