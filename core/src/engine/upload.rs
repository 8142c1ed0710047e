//! Putting one segment at a time, strictly in order.
//!
//! A put is create-if-absent. Its answer may be lost, and a segment of that name may exist
//! already: then the object is read back ([`read_back`]), and its header decides by the rules of
//! DESIGN §5. A transaction is reported as replicated only here, after its put is known to have
//! succeeded.
//! The content of a segment is frozen from its first try to its end, so that whatever lands late
//! lands the same.

mod cut;
mod read_back;
mod tenure;

use alloc::boxed::Box;
use alloc::format;
use core::time::Duration;

pub(super) use self::cut::{Draft, WalSpan, point_of};
pub(super) use self::read_back::header_request;
pub(super) use self::tenure::Landed;
use self::tenure::Proof;
use super::ghost::Ghost;
use super::history::{Record, Step};
use super::{Failure, Replicator, Retry};
use crate::ids::{Mono, Now};
use crate::job::JobOutput;
use crate::ltx::LtxHeader;
use crate::machine::{
    Action, Actions, Chunk, Exit, Fact, Object, OpId, Outcome, PART_BYTES_MAX, PutCondition, PutId, Reason,
    Request, Severity, StoreError, StoreErrorKind, StoreReply, StoreRequest,
};
use crate::mutant::{self, Mutant};

/// A segment on its way.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Segment {
    pub(super) step: Step,
    pub(super) header: LtxHeader,
    pub(super) object: Object,
    pub(super) bytes: Chunk,
    /// `frames_captured` when it was cut.
    pub(super) frames: u64,
    /// What could be claimed then (`synced.rs`).
    pub(super) claim: Option<Mono>,
    /// When a put of it was given up that may have had its effect, or may yet.
    pub(super) given_up: Option<Mono>,
    pub(super) retry: Retry,
}

/// A streamed put whose fate is unknown.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Streamed {
    pub(super) header: LtxHeader,
    pub(super) object: Object,
    pub(super) given_up: Mono,
    pub(super) retry: Retry,
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
    /// Does anything stand there? Asked of stores that would replace it.
    Vacant {
        op: OpId,
        since: Mono,
        segment: Box<Segment>,
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
        /// Whether the wait after the failed put is over.
        waited: bool,
    },
    /// A streamed put whose fate is unknown: what stands there?
    Settle {
        op: Option<OpId>,
        since: Mono,
        put: Box<Streamed>,
    },
    Fetch {
        op: Option<OpId>,
        since: Mono,
        ghost: Box<Ghost>,
        retry: Retry,
    },
    /// A put has succeeded: does it extend the head?
    Tenure {
        op: Option<OpId>,
        since: Mono,
        proof: Proof,
        landed: Landed,
        retry: Retry,
    },
    Done {
        op: OpId,
    },
}

impl Upload {
    pub(super) fn awaits(&self, op: OpId) -> bool {
        match self {
            Upload::Encode { op: awaited, .. }
            | Upload::Intent { op: awaited, .. }
            | Upload::Vacant { op: awaited, .. }
            | Upload::Open { op: awaited, .. }
            | Upload::Part { op: awaited, .. }
            | Upload::Commit { op: awaited, .. }
            | Upload::ReadBack { op: awaited, .. }
            | Upload::Done { op: awaited } => *awaited == op,
            Upload::Fetch { op: awaited, .. }
            | Upload::Settle { op: awaited, .. }
            | Upload::Tenure { op: awaited, .. } => *awaited == Some(op),
            Upload::Idle | Upload::AwaitRetry { .. } => false,
        }
    }

    /// Whether a request failed and is to be tried again, for who knows how long.
    pub(super) fn waits_for_store(&self) -> bool {
        match self {
            Upload::AwaitRetry { .. } => true,
            Upload::Settle { op: None, put, .. } => put.retry.attempts > 0,
            Upload::Fetch { op: None, retry, .. } | Upload::Tenure { op: None, retry, .. } => {
                retry.attempts > 0
            }
            _ => false,
        }
    }

    /// Ends a wait for the store.
    pub(super) fn hasten(&mut self, now: Mono) {
        match self {
            Upload::AwaitRetry { segment, .. } => segment.retry.hasten(now),
            Upload::Settle { op: None, put, .. } => put.retry.hasten(now),
            Upload::Fetch { op: None, retry, .. } | Upload::Tenure { op: None, retry, .. } => {
                retry.hasten(now)
            }
            _ => {}
        }
    }

    /// When the store request under way began, its name, and how many bytes were sent before it or
    /// with it.
    fn under_way(&self) -> Option<(OpId, Mono, u64)> {
        match self {
            Upload::Part { op, since, sent, .. } => Some((*op, *since, *sent as u64)),
            Upload::Commit { op, since, segment } => Some((*op, *since, segment.bytes.len() as u64)),
            Upload::Vacant { op, since, .. }
            | Upload::Open { op, since, .. }
            | Upload::ReadBack { op, since, .. }
            | Upload::Settle { op: Some(op), since, .. }
            | Upload::Fetch { op: Some(op), since, .. }
            | Upload::Tenure { op: Some(op), since, .. } => Some((*op, *since, 0)),
            _ => None,
        }
    }
}

impl Replicator {
    pub(super) fn upload_is_idle(&self) -> bool {
        matches!(self.upload, Upload::Idle)
    }

    pub(super) fn upload_deadline(&self) -> Option<(Mono, Reason)> {
        if let Some((_, since, sent)) = self.upload.under_way() {
            return Some((since.after(self.config.put_deadline(sent)), Reason::Deadline));
        }
        match &self.upload {
            Upload::AwaitRetry { .. } if mutant::on(Mutant::RetryNeverDue) => None,
            Upload::AwaitRetry { segment, .. } => segment.retry.at.map(|at| (at, Reason::Retry)),
            Upload::Settle { op: None, put, .. } => put.retry.at.map(|at| (at, Reason::Retry)),
            Upload::Fetch { op: None, retry, .. } | Upload::Tenure { op: None, retry, .. } => {
                retry.at.map(|at| (at, Reason::Retry))
            }
            Upload::Idle if self.may_cut() => self.cut_at().map(|at| (at, Reason::Sync)),
            _ => None,
        }
    }

    pub(super) fn upload_tick(&mut self, now: Now, out: &mut Actions) {
        let Some((op, since, sent)) = self.upload.under_way() else { return };
        let deadline = self.config.put_deadline(sent);
        if since.after(deadline) > now.mono || mutant::on(Mutant::HangNotNoticed) {
            return;
        }
        out.push(Action::Cancel { op });
        let text = format!("no answer from the store in {} s", deadline.as_secs());
        // A put that was not answered may have had its effect.
        self.upload_failed(now, StoreError::new(StoreErrorKind::Ambiguous, text), out);
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
                    self.read_back(now, segment, true, out)
                } else {
                    self.put_begin(now, segment, out)
                }
                true
            }
            Upload::Fetch { op: None, retry, .. } if retry.due(now.mono) => {
                self.fetch(now, out);
                true
            }
            Upload::Settle { op: None, put, .. } if put.retry.due(now.mono) => {
                self.settle(now, out);
                true
            }
            Upload::Tenure { op: None, retry, .. } if retry.due(now.mono) => {
                self.prove(now, out);
                true
            }
            _ => false,
        }
    }

    pub(super) fn upload_completed(&mut self, now: Now, outcome: Outcome, out: &mut Actions) {
        match outcome {
            Outcome::Compute(JobOutput::Segment { bytes, post, sums }) => {
                self.encoded(bytes, post, sums, out)
            }
            Outcome::Store(Ok(reply)) => self.upload_progress(now, reply, out),
            Outcome::Store(Err(error)) => self.upload_failed(now, error, out),
            Outcome::Proven(shown) => self.lease_shown(shown, out),
            Outcome::State(result) => {
                if let Err(error) = result {
                    self.journal_failed(error, out);
                }
                match core::mem::replace(&mut self.upload, Upload::Idle) {
                    Upload::Intent { segment, .. } => self.put_begin(now, segment, out),
                    Upload::Done { .. } => {}
                    other => unreachable!("{other:?} writes no record"),
                }
            }
            other => unreachable!("an upload asks for nothing that ends in {other:?}"),
        }
    }

    fn write_intent(&mut self, segment: Box<Segment>, out: &mut Actions) {
        let op = self.append(&Record::Intent(segment.step.clone()), out);
        self.upload = Upload::Intent { op, segment };
    }

    fn put_begin(&mut self, now: Now, segment: Box<Segment>, out: &mut Actions) {
        if self.config.create_if_absent || mutant::on(Mutant::VacantSkipped) {
            return self.put_open(now, segment, out);
        }
        let op = self.submit(header_request(segment.object), out);
        self.upload = Upload::Vacant { op, since: now.mono, segment };
    }

    fn put_open(&mut self, now: Now, segment: Box<Segment>, out: &mut Actions) {
        let op = self.submit(self.open_request(segment.object), out);
        self.upload = Upload::Open { op, since: now.mono, segment };
    }

    pub(super) fn open_request(&self, object: Object) -> Request {
        let condition = match self.config.create_if_absent {
            true => PutCondition::IfAbsent,
            false => PutCondition::Always,
        };
        Request::Store(StoreRequest::PutOpen { object, condition })
    }

    fn put_part(&mut self, now: Now, put: PutId, sent: usize, segment: Box<Segment>, out: &mut Actions) {
        if sent == segment.bytes.len() {
            let op = self.submit(Request::Store(StoreRequest::PutCommit { put }), out);
            if mutant::on(Mutant::PutsPipelined) {
                return self.landed(now, Landed::Segment(segment), out);
            }
            self.upload = Upload::Commit { op, since: now.mono, segment };
            return;
        }
        let end = (sent + PART_BYTES_MAX).min(segment.bytes.len());
        let bytes = segment.bytes.slice(sent, end);
        let op = self.submit(Request::Store(StoreRequest::PutPart { put, bytes }), out);
        self.upload = Upload::Part { op, since: now.mono, put, sent: end, segment };
    }

    fn upload_progress(&mut self, now: Now, reply: StoreReply, out: &mut Actions) {
        match (core::mem::replace(&mut self.upload, Upload::Idle), reply) {
            (Upload::Open { op, segment, .. }, StoreReply::Done) => self.put_part(now, op, 0, segment, out),
            (Upload::Part { put, sent, segment, .. }, StoreReply::Done) => {
                self.put_part(now, put, sent, segment, out)
            }
            (Upload::Commit { segment, .. }, StoreReply::Done) => {
                self.landed(now, Landed::Segment(segment), out);
            }
            (
                Upload::Vacant { segment, .. } | Upload::ReadBack { segment, .. },
                StoreReply::Bytes { bytes, .. },
            ) => {
                self.judge(now, segment, &bytes, out);
            }
            (Upload::Settle { put, .. }, StoreReply::Bytes { bytes, .. }) => {
                self.settled(now, put, &bytes, out);
            }
            (Upload::Fetch { ghost, .. }, StoreReply::Bytes { bytes, object_len }) => {
                self.fetched(now, ghost, &bytes, object_len, out);
            }
            (Upload::Tenure { landed, .. }, reply) => self.proof_came(now, landed, reply, out),
            (state, reply) => unreachable!("{state:?} is not answered by {reply:?}"),
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
        self.synced.store(segment.claim);
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
        self.adoption = None;
        let txid = self.history.point.as_ref().expect("just advanced").txid;
        if self.journal.broken && !counts_as_whole() {
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
        if self.ends_at(&error) {
            return self.stop_failed("writing to the replica", error, out);
        }
        let state = core::mem::replace(&mut self.upload, Upload::Idle);
        let kind = error.kind;
        let (segment, read_back) = match state {
            Upload::Vacant { segment, .. } if kind == StoreErrorKind::NotFound => {
                return self.put_open(now, segment, out);
            }
            Upload::Vacant { segment, .. } => (segment, false),
            Upload::Open { segment, .. } => {
                let taken = kind == StoreErrorKind::AlreadyExists;
                (segment, taken)
            }
            Upload::Part { segment, put, .. } => {
                self.submit(Request::Store(StoreRequest::PutAbort { put }), out);
                (segment, kind == StoreErrorKind::AlreadyExists)
            }
            Upload::Commit { segment, .. } if counts_as_done(kind) => {
                return self.landed(now, Landed::Segment(segment), out);
            }
            Upload::Commit { mut segment, .. } => {
                if kind == StoreErrorKind::Ambiguous {
                    segment.given_up = Some(now.mono);
                }
                (segment, matches!(kind, StoreErrorKind::AlreadyExists | StoreErrorKind::Ambiguous))
            }
            // That was the wait: the put had no effect. Where the store has just said that something
            // stands there, both would go on asking each other without one.
            Upload::ReadBack { segment, waited: true, .. } if kind == StoreErrorKind::NotFound => {
                return self.put_begin(now, segment, out);
            }
            Upload::ReadBack { segment, .. } => (segment, kind != StoreErrorKind::NotFound),
            // Nothing stands there, and nothing will: the base begins anew.
            Upload::Settle { put, .. }
                if kind == StoreErrorKind::NotFound && !self.may_land(now, Some(put.given_up)) =>
            {
                return;
            }
            Upload::Settle { mut put, .. } => {
                self.try_later(now, &mut put.retry, "reading a segment back", &error, out);
                self.upload = Upload::Settle { op: None, since: now.mono, put };
                return;
            }
            Upload::Fetch { ghost, mut retry, .. } => {
                self.try_later(now, &mut retry, "reading a segment back", &error, out);
                self.upload = Upload::Fetch { op: None, since: now.mono, ghost, retry };
                return;
            }
            Upload::Tenure { proof, landed, retry, .. } => {
                return self.proof_failed(now, (proof, landed, retry), &error, out);
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
            return self.read_back(now, segment, false, out);
        }
        self.try_later(now, &mut segment.retry, "writing to the replica", error, out);
        if mutant::on(Mutant::SegmentDropped) {
            return;
        }
        self.upload = Upload::AwaitRetry { segment, read_back };
    }

    /// Whether a failure that only a person ends is the end: somebody waits for `-once`.
    pub(super) fn ends_at(&self, error: &StoreError) -> bool {
        use StoreErrorKind::{Denied, Misconfigured, Unsupported};
        self.config.once && matches!(error.kind, Denied | Misconfigured | Unsupported)
    }

    pub(super) fn stop_failed(&mut self, what: &str, error: StoreError, out: &mut Actions) {
        let StoreError { text, hint, .. } = error;
        self.stop(Exit::Failed { error: format!("{what}: {text}"), hint }, out);
    }

    /// Notes a failure and says when the request will be tried again.
    fn try_later(&mut self, now: Now, retry: &mut Retry, what: &str, error: &StoreError, out: &mut Actions) {
        let draw = self.draw();
        let wait = retry.fail_within(now.mono, draw, self.store_retry_max());
        self.say_retry(what, error.into(), wait, out);
    }

    /// Notes a failure that is not the last word, for the status and the log.
    pub(super) fn say_retry(&mut self, what: &str, failure: Failure, wait: Duration, out: &mut Actions) {
        self.last_error = Some(failure.clone());
        let Failure { text, hint } = failure;
        let wait_ms = wait.as_millis() as u64;
        out.notify(Severity::Warn, Fact::Retrying { what: what.into(), error: text, hint, wait_ms });
    }
}

/// A journal with a hole does not.
fn counts_as_whole() -> bool {
    mutant::on(Mutant::DoneBehindHole) || mutant::on(Mutant::JournalHoleTrusted)
}

/// No failure does.
fn counts_as_done(kind: StoreErrorKind) -> bool {
    match kind {
        StoreErrorKind::AlreadyExists => mutant::on(Mutant::TakenIsDone),
        StoreErrorKind::Ambiguous => mutant::on(Mutant::NoReadBack),
        _ => false,
    }
}
