//! Puts of the dead that wait for the worst moment.
//!
//! A put that was sent whole may land after its sender's death. At a random time it lands before its
//! successor has looked, or never where that matters. So some are kept until the successor is about
//! to put a segment of the same name, and land just before.

use driftless_core::machine::{Object, OpId, StoreRequest};

use super::plan::StateFate;
use super::store::{Fate, SimStore};
use super::violation::Violation;
use super::world::{Entry, World};
use crate::trace::{Kind, node};

/// A put of the dead that lands just before one of the same name.
pub(super) const AMBUSH: &str = "store: put of the dead lands just before ours";

impl SimStore {
    /// Which object a request is about to create, or to look for before that.
    fn awaited(&self, request: &StoreRequest) -> Option<Object> {
        match request {
            StoreRequest::PutCommit { put } if self.keeps_conditions => self.object_of(put),
            // Where nothing would be refused, whoever comes after the look loses.
            StoreRequest::Get { object, .. } if !self.keeps_conditions => Some(*object),
            _ => None,
        }
    }
}

impl World {
    /// Perhaps the process dies with the end of a put just sent, which waits.
    pub(super) fn dies_in_put(&mut self, op: OpId, request: &StoreRequest) -> bool {
        let StoreRequest::PutCommit { put } = request else { return false };
        let Some(object) = self.store.object_of(put).filter(|_| self.healed_at.is_none()) else {
            return false;
        };
        let n = self.store_steps;
        let drawn = self.may(AMBUSH) && self.dice.chance("dies in put", "", n, 1, 16);
        if !self.sites.strikes(&format!("put of {object}"), AMBUSH, drawn) {
            return false;
        }
        self.store.waiting.push((object, op, request.clone()));
        self.kill();
        self.lose(*self.dice.pick("dies in put", "state", n, &[StateFate::Kept, StateFate::Cut(2)]));
        let down = self.dice.wait("dies in put", "down", n, 1_000, 3_000_000);
        self.later(down, Entry::Start);
        true
    }

    /// Keeps a put of the dead for later.
    pub(super) fn ambush(&mut self, op: OpId, request: &StoreRequest) -> bool {
        let StoreRequest::PutCommit { put } = request else { return false };
        let Some(object) = self.store.object_of(put) else { return false };
        let drawn = self.may(AMBUSH) && self.dice.chance("ambush", "", op.seq, 1, 2);
        if self.healed_at.is_some() || !self.sites.strikes(&format!("ghost of {object}"), AMBUSH, drawn) {
            return false;
        }
        self.store.waiting.push((object, op, request.clone()));
        true
    }

    /// What waits for a request lands before it. Not where a person has been told to decide, after a
    /// loss of what we knew: that is a known limit (`docs/OPERATING.md`).
    pub(super) fn spring(&mut self, request: &StoreRequest) -> Result<(), Violation> {
        let Some(object) = self.store.awaited(request) else { return Ok(()) };
        let Some(at) = self.store.waiting.iter().position(|(waits, ..)| *waits == object) else {
            return Ok(());
        };
        let (_, op, put) = self.store.waiting.remove(at);
        // Where nothing is refused, a put that is on its way replaces what lands before it.
        let comes = |entry: &Entry| {
            let Entry::Store { request: StoreRequest::PutCommit { put }, .. } = entry else { return false };
            self.store.object_of(put) == Some(object)
        };
        let replaces = !self.store.keeps_conditions
            && (self.store.get(&object).is_some() || self.queue.iter().any(comes));
        if self.state_lost || self.healed_at.is_some() || replaces {
            return Ok(());
        }
        // Nobody is there to hear of it.
        let _ = self.store.perform(op, &put, Fate::Works);
        self.note(node::STORE, Kind::Fault, format_args!("{object} lands, of one that is dead"));
        self.store.check_kept()
    }
}
