//! Whether a put that has succeeded extends the head.
//!
//! Retention deletes what is covered, and a deleted name can be taken again. A writer that was asleep while
//! another went on would find the next name free, put, and report as replicated what no restore leads to.
//! So after each put, and before anything is said of it, the segment [`TENURE_BACK`] transactions before it
//! is looked for: retention goes upwards in blocks of fewer, each seen to be gone before the next, and never
//! takes as many of the newest. If it is there, nothing newer was ever deleted, and the put met every rival
//! that there is. If it is not (a history that is short, or that another program keeps short), a listing
//! past the put decides: whoever went on has left a newer segment.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Segment, Upload, header_request};
use crate::engine::standing::fenced;
use crate::engine::{Replicator, Retry};
use crate::ids::{Level, Now, PageNo, Txid, TxidRange};
use crate::ltx::LtxHeader;
use crate::machine::{
    Actions, Listed, Object, Request, StoreError, StoreErrorKind, StoreReply, StoreRequest,
};
use crate::mutant::{self, Mutant};
use crate::retain::TENURE_BACK;

/// What is on the replica and not yet known to extend the head.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::engine) enum Landed {
    Segment(Box<Segment>),
    /// The base that is under way.
    Base,
    /// A segment of an earlier try of ours that was read whole.
    Ghost(Box<(LtxHeader, Vec<(PageNo, u64)>)>),
}

/// What is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::engine) enum Proof {
    /// A segment that would have gone before any newer one.
    Back(Txid),
    /// What lies past the put.
    Beyond,
    /// The lease, which whoever goes on takes first.
    Lease,
}

impl Replicator {
    /// What follows once a put is known to have succeeded.
    pub(in crate::engine) fn landed(&mut self, now: Now, landed: Landed, out: &mut Actions) {
        let leased = self.config.epoch.is_some() && !mutant::on(Mutant::LeaseUnread);
        let proves = self.config.prove_tenure && !mutant::on(Mutant::TenureUnproven);
        let proof = match (leased, proves) {
            // Whoever went on meanwhile has taken the lease first.
            (true, _) => Proof::Lease,
            (false, false) => return self.proven(landed, out),
            (false, true) => {
                let back = self.next_txid().get().checked_sub(TENURE_BACK).and_then(Txid::new);
                back.map_or(Proof::Beyond, Proof::Back)
            }
        };
        self.upload = Upload::Tenure { op: None, since: now.mono, proof, landed, retry: Retry::default() };
    }

    pub(super) fn prove(&mut self, now: Now, out: &mut Actions) {
        let put = self.next_txid();
        let Upload::Tenure { proof, .. } = &self.upload else {
            unreachable!("only called while a put is being proven");
        };
        let request = match proof {
            Proof::Back(txid) => {
                header_request(Object { level: Level::CAPTURES, range: TxidRange::single(*txid) })
            }
            Proof::Beyond => {
                let after = Some(TxidRange::single(put));
                Request::Store(StoreRequest::List { level: Level::CAPTURES, after, limit: 1 })
            }
            Proof::Lease => Request::Prove,
        };
        let asked = self.submit(request, out);
        if let Upload::Tenure { op, since, .. } = &mut self.upload {
            (*op, *since) = (Some(asked), now.mono);
        }
    }

    /// What was looked at is there, or was listed.
    pub(super) fn proof_came(&mut self, now: Now, landed: Landed, reply: StoreReply, out: &mut Actions) {
        match reply {
            StoreReply::Bytes { .. } => self.proven(landed, out),
            StoreReply::Listing { entries, more } => match entries.first() {
                Some(newer) => self.outrun(newer, out),
                None if more => {
                    let text = "a listing was cut short before its first entry";
                    let error = StoreError::new(StoreErrorKind::Corrupt, text);
                    self.prove_later(now, (Proof::Beyond, landed, Retry::default()), &error, out);
                }
                None => self.proven(landed, out),
            },
            other => unreachable!("a proof is not answered by {other:?}"),
        }
    }

    /// The lease was looked at.
    pub(super) fn lease_shown(&mut self, shown: Result<(), String>, out: &mut Actions) {
        let Upload::Tenure { landed, .. } = core::mem::replace(&mut self.upload, Upload::Idle) else {
            unreachable!("only called while a put is being proven");
        };
        match shown {
            Ok(()) => self.proven(landed, out),
            Err(error) => self.stop(fenced(error), out),
        }
    }

    /// The look has failed.
    pub(super) fn proof_failed(
        &mut self,
        now: Now,
        (proof, landed, retry): (Proof, Landed, Retry),
        error: &StoreError,
        out: &mut Actions,
    ) {
        match (error.kind, proof) {
            (StoreErrorKind::NotFound, Proof::Back(_)) => {
                let retry = Retry::default();
                let proof = Proof::Beyond;
                self.upload = Upload::Tenure { op: None, since: now.mono, proof, landed, retry };
            }
            // A level that does not exist holds nothing.
            (StoreErrorKind::NotFound, Proof::Beyond) => self.proven(landed, out),
            _ => self.prove_later(now, (proof, landed, retry), error, out),
        }
    }

    fn prove_later(
        &mut self,
        now: Now,
        (proof, landed, mut retry): (Proof, Landed, Retry),
        error: &StoreError,
        out: &mut Actions,
    ) {
        self.try_later(now, &mut retry, "looking for another writer", error, out);
        self.upload = Upload::Tenure { op: None, since: now.mono, proof, landed, retry };
    }

    /// It is the head.
    fn proven(&mut self, landed: Landed, out: &mut Actions) {
        self.succeeded = true;
        match landed {
            Landed::Segment(segment) => self.stored(*segment, out),
            Landed::Base => self.base_is_stored(out),
            Landed::Ghost(ghost) => self.taken_over(ghost.0, ghost.1, out),
        }
    }

    /// Somebody went on from where we were, and its segments were deleted since.
    fn outrun(&mut self, newer: &Listed, out: &mut Actions) {
        let put = self.next_txid();
        let error = format!(
            "{} is on the replica, although this process has just written {put}: another process went on while this one was away",
            newer.object
        );
        self.stop(fenced(error), out);
    }
}
