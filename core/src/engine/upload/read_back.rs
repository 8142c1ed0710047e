//! What became of a put whose answer was lost, and whose object stands where ours was to go.
//!
//! The header of what stands there decides: our own put is done; one of an earlier try of ours is
//! part of the history, and is read whole, since its page checksums were not kept; anything else
//! fences us. Where nothing stands, the put had no effect and is tried again.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Landed, Segment, Streamed, Upload};
use crate::engine::adoption::Refused;
use crate::engine::config::LATE_PUT;
use crate::engine::ghost::{Ghost, GhostStep, step_of};
use crate::engine::standing::{decode_header, fenced, overtaken};
use crate::engine::verdict::{Verdict, judge_header};
use crate::engine::{Replicator, Retry};
use crate::ids::{Lineage, Mono, Now, PageNo};
use crate::ltx::{LTX_HEADER_BYTES, LtxHeader};
use crate::machine::{
    Actions, ByteRange, Exit, Fact, Object, Request, Severity, StoreError, StoreErrorKind, StoreRequest,
};
use crate::mutant::{self, Mutant};
use crate::probe::Finding;

impl Replicator {
    /// `waited`: whether the wait after the failed put is over.
    pub(super) fn read_back(&mut self, now: Now, segment: Box<Segment>, waited: bool, out: &mut Actions) {
        let op = self.submit(header_request(segment.object), out);
        self.upload = Upload::ReadBack { op, since: now.mono, segment, waited };
    }

    /// Whose segment stands where ours was to go?
    pub(super) fn judge(&mut self, now: Now, mut segment: Box<Segment>, bytes: &[u8], out: &mut Actions) {
        let Some(found) = self.header_there(segment.object, bytes, out) else { return };
        if self.is_preceded(&found) {
            return self.stop(overtaken(segment.object), out);
        }
        match judge_header(&segment.header, &self.tried, &found) {
            // The same states by an earlier run, at a later time: what follows must not be before it, and
            // a header alone proves no time.
            Verdict::Ours
                if found.chain.incarnation < segment.header.chain.incarnation
                    && found.stamp > segment.header.stamp
                    && !mutant::on(Mutant::StampThereUnread) =>
            {
                self.take_over(now, segment.object, out);
            }
            Verdict::Ours if self.config.epoch.is_some() && mutant::on(Mutant::OwnPutFences) => {
                self.meet_foreign(now, Refused::Segment(segment), &found, out);
            }
            Verdict::Ours => self.landed(now, Landed::Segment(segment), out),
            Verdict::Ghost if self.may_land(now, segment.given_up) => {
                self.wait_for_ours(now, &mut segment.retry, out);
                self.upload = Upload::AwaitRetry { segment, read_back: true };
            }
            Verdict::Ghost => self.take_over(now, segment.object, out),
            Verdict::Foreign => self.meet_foreign(now, Refused::Segment(segment), &found, out),
        }
    }

    /// What stands where a streamed base was to go: nothing, our own, or another's. Our own is
    /// read whole, since its page checksums were not kept.
    pub(super) fn settled(&mut self, now: Now, mut put: Box<Streamed>, bytes: &[u8], out: &mut Actions) {
        let Some(found) = self.header_there(put.object, bytes, out) else { return };
        if self.is_preceded(&found) {
            return self.stop(overtaken(put.object), out);
        }
        match judge_header(&put.header, &self.tried, &found) {
            Verdict::Ghost if self.may_land(now, Some(put.given_up)) => {
                self.wait_for_ours(now, &mut put.retry, out);
                self.upload = Upload::Settle { op: None, since: now.mono, put };
            }
            Verdict::Ours | Verdict::Ghost => self.take_over(now, put.object, out),
            Verdict::Foreign => self.meet_foreign(now, Refused::Streamed(put), &found, out),
        }
    }

    /// What an earlier try wrote stands there, and ours may still land on top of it: which of the two
    /// goes into the history shows later.
    pub(in crate::engine) fn wait_for_ours(&mut self, now: Now, retry: &mut Retry, out: &mut Actions) {
        let text = "a put that was not answered may still replace what an earlier try wrote";
        let failure = StoreError::new(StoreErrorKind::Ambiguous, text.to_string());
        self.try_later(now, retry, "writing to the replica", &failure, out);
    }

    /// Whether a put that was given up then may still land where something stands. Where the store
    /// refuses to replace an object there is nothing to wait for: whatever lands first stays. A server
    /// is only taken at its word once the probe has found so.
    pub(in crate::engine) fn may_land(&self, now: Now, given_up: Option<Mono>) -> bool {
        let known = !self.config.remote
            || self.store.create_if_absent == Finding::Holds
            || mutant::on(Mutant::ServerBelieved);
        let refused = self.config.create_if_absent && known || mutant::on(Mutant::LateBody);
        !refused && given_up.is_some_and(|at| now.mono < at.after(LATE_PUT))
    }

    /// Whether what stands where a successor's first segment was to go is the predecessor's, which this
    /// database does not have.
    fn is_preceded(&self, found: &LtxHeader) -> bool {
        let earlier = found.chain.incarnation < self.history.incarnation;
        self.is_unfenced()
            && found.lineage == self.history.lineage
            && earlier
            && !mutant::on(Mutant::PredecessorReverted)
    }

    /// The header of what stands there; stops where there is none to read.
    fn header_there(&mut self, object: Object, bytes: &[u8], out: &mut Actions) -> Option<LtxHeader> {
        match decode_header(bytes) {
            Ok(header) => Some(header),
            Err(error) => {
                let error =
                    format!("the object {object} that stands where a segment was to go is damaged: {error}");
                let hint = "run driftless verify on the replica".to_string();
                self.stop(Exit::Corrupt { error, hint }, out);
                None
            }
        }
    }

    /// Finds out what became of a streamed put before anything else is sent.
    pub(in crate::engine) fn settle_stream(
        &mut self,
        now: Now,
        header: LtxHeader,
        object: Object,
        retry: Retry,
    ) {
        let put = Box::new(Streamed { header, object, given_up: now.mono, retry });
        self.upload = Upload::Settle { op: None, since: now.mono, put };
    }

    pub(super) fn settle(&mut self, now: Now, out: &mut Actions) {
        let Upload::Settle { put, .. } = &self.upload else {
            unreachable!("only called while a put is being settled");
        };
        let asked = self.submit(header_request(put.object), out);
        if let Upload::Settle { op, since, .. } = &mut self.upload {
            (*op, *since) = (Some(asked), now.mono);
        }
    }

    fn take_over(&mut self, now: Now, object: Object, out: &mut Actions) {
        let text = format!("{object} was written by an earlier try: taking it over");
        out.notify(Severity::Info, Fact::Remark { text });
        let ghost = Box::new(Ghost::new(object, self.config.pending_byte));
        self.upload = Upload::Fetch { op: None, since: now.mono, ghost, retry: Retry::default() };
    }

    pub(in crate::engine) fn fence(&mut self, object: Object, found: &LtxHeader, out: &mut Actions) {
        let name = |lineage: Option<Lineage>| lineage.map_or("none".to_string(), |l| l.to_string());
        let error = format!(
            "{object} was written by lineage {} incarnation {}, this is lineage {} incarnation {}",
            name(found.lineage),
            found.chain.incarnation.0,
            name(self.history.lineage),
            self.history.incarnation.0
        );
        self.stop(fenced(error), out);
    }

    pub(super) fn fetch(&mut self, now: Now, out: &mut Actions) {
        let Upload::Fetch { ghost, retry, .. } = core::mem::replace(&mut self.upload, Upload::Idle) else {
            unreachable!("only called while fetching");
        };
        let op = self.submit(Request::Store(ghost.request()), out);
        self.upload = Upload::Fetch { op: Some(op), since: now.mono, ghost, retry };
    }

    pub(super) fn fetched(
        &mut self,
        now: Now,
        mut ghost: Box<Ghost>,
        bytes: &[u8],
        object_len: u64,
        out: &mut Actions,
    ) {
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
                self.landed(now, Landed::Ghost(Box::new((header, sums))), out);
            }
        }
    }

    /// What an earlier try wrote is the head.
    pub(super) fn taken_over(&mut self, header: LtxHeader, sums: Vec<(PageNo, u64)>, out: &mut Actions) {
        let step = step_of(&header, sums, self.config.pending_byte).expect("a ghost has a chain");
        let txid = step.to.txid;
        let whole_table = self.history.table.is_some() || step.full;
        self.history.advance(&step);
        self.adoption = None;
        self.tried.clear();
        out.notify(Severity::Info, Fact::Adopted { txid });
        let pages = self.history.point.as_ref().map_or(0, |point| point.pages);
        self.forget_pending(pages);
        self.frames_captured = self.frames_replicated;
        self.journal.bytes = u64::MAX / 4;
        if mutant::on(Mutant::GhostNotRebased) {
            return;
        }
        let full = !whole_table || !self.table_holds();
        self.want_base("a segment of an earlier try was taken over".into(), full, false, false);
    }
}

/// Asks for the header of what stands under a name.
pub(in crate::engine) fn header_request(object: Object) -> Request {
    let range = ByteRange::At { offset: 0, len: LTX_HEADER_BYTES as u64 };
    Request::Store(StoreRequest::Get { object, range })
}
