//! Until when everything is on the replica.
//!
//! Whoever asks for a sync wants all that was committed before on the replica, while commits go on.
//! No count of frames tells when that is so: there are always more, and a base makes the counts
//! mean something else. A moment does. Each wal-index is as old as the request that brought it, a
//! capture that ends has captured all that its index showed, and a segment holds what had been
//! captured when it was cut. The file that is open need not be the one that the path names any
//! more: what is captured counts up to the last moment at which it was.

use super::Replicator;
use crate::ids::Mono;
use crate::mutant::{self, Mutant};

/// Moments that only move forward, except that what was captured can be lost.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Synced {
    /// Everything committed to the open file before this moment was captured.
    pub(super) captured: Option<Mono>,
    /// At this moment the path named that file.
    verified: Option<Mono>,
    /// Everything committed before this moment is on the replica.
    replicated: Option<Mono>,
    /// Someone waits for all that was committed before.
    wanted: Option<Mono>,
}

impl Synced {
    /// Someone waits from now on.
    pub(super) fn want(&mut self, now: Mono) {
        self.wanted = Some(now);
    }

    /// Whether someone waits, so that no segment waits for company.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// The path named the open file, or one that is as it was left.
    pub(super) fn verify(&mut self, at: Mono) {
        self.verified = self.verified.max(Some(at));
    }

    /// A file was opened, perhaps another one than before.
    pub(super) fn attach(&mut self, at: Mono) {
        self.captured = None;
        self.verify(at);
    }

    /// Everything committed before this moment was captured, whatever the file.
    pub(super) fn claim(&self) -> Option<Mono> {
        self.captured.min(self.verified)
    }

    /// A segment is on the replica, and everything before it: `claim` is what could be claimed when
    /// it was cut.
    pub(super) fn store(&mut self, claim: Option<Mono>) {
        self.replicated = self.replicated.max(claim);
    }

    /// Everything committed before this moment is on the replica.
    pub(super) fn until(&self) -> Option<Mono> {
        self.replicated
    }
}

impl Replicator {
    /// Where nothing is left to be put, what was captured is on the replica.
    pub(super) fn note_synced(&mut self) {
        let settled = mutant::on(Mutant::SyncedAhead)
            || self.boot.is_done()
                && self.pending.is_empty()
                && self.upload_is_idle()
                && self.base.is_none()
                && self.base_wanted.is_none();
        if settled {
            self.synced.store(self.synced.claim());
        }
        if self.synced.until() >= self.synced.wanted {
            self.synced.wanted = None;
        }
    }
}
