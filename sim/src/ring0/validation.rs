//! The validator beside the replicator: what it says is looked at, and what it asks for is its own account.

use driftless_core::ids::Level;
use driftless_core::machine::{Action, OpId, Verdict};

use super::oracles::validation::{Told, check};
use super::restore::decode;
use super::store::Fate;
use super::violation::Violation;
use super::world::{Entry, World};

/// What the validator has done in all runs of its process.
#[derive(Debug, Default)]
pub(super) struct Validations {
    /// Actions that it led to.
    pub(super) actions: u64,
    /// Requests to the store.
    pub(super) requests: u64,
    /// Wrong answers to the validation under way.
    lies: u64,
}

/// Listings of one validation, and readings of one object, at the most.
const LOOKS: (u64, u64) = (8, 3);
/// Requests of which each may be sent again, before that is given up.
const TRIES: u64 = 10;

impl World {
    fn is_validators(&self, op: OpId) -> bool {
        self.running.as_ref().is_some_and(|running| running.engine.is_validators(op))
    }

    /// Whether what is to come is the validator's.
    pub(super) fn is_of_validation(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Compute { op, .. } | Entry::Store { op, .. } | Entry::Deliver { op, .. } => {
                self.is_validators(*op)
            }
            _ => false,
        }
    }

    /// Counts what an event of the validator has led to, or what it asks for otherwise.
    pub(super) fn note_validators(&mut self, event: Option<OpId>, action: &Action) {
        let asked = match action {
            Action::Submit { op, .. } | Action::Cancel { op } => Some(*op),
            Action::Notify(_) | Action::Stopped(_) => None,
        };
        let theirs = event.into_iter().chain(asked).any(|op| self.is_validators(op));
        self.full.validations.actions += u64::from(theirs);
    }

    /// Counts a request to the store; whether it is the validator's.
    pub(super) fn note_validators_request(&mut self, op: OpId, fate: Fate) -> bool {
        let theirs = self.is_validators(op);
        let lies = matches!(fate, Fate::Cut(_) | Fate::Flipped(_) | Fate::Foreign | Fate::Stale(_));
        self.full.validations.requests += u64::from(theirs);
        self.full.validations.lies += u64::from(theirs && lies);
        theirs
    }

    /// The validator asked for no more than so many validations read, failures aside.
    pub(super) fn check_validator_requests(&self) -> Result<(), Violation> {
        let objects = self.store.len_ever() as u64;
        let pages = Level::all().count() as u64 + objects / self.store.page_max.max(1) as u64;
        let each = LOOKS.0 * pages + LOOKS.1 * objects;
        let occasions = self.summary.validated + self.summary.starts + 1;
        let (made, budget) = (self.full.validations.requests, occasions * each + self.summary.faults * TRIES);
        if made > budget {
            let text = format!("{made} requests of the validator, {budget} for {occasions} validations");
            return Err(Violation::new("limits", text));
        }
        Ok(())
    }

    /// A validation has come to a verdict.
    pub(super) fn check_validated(&mut self, verdict: &Verdict) -> Result<(), Violation> {
        self.summary.validated += 1;
        let lies = core::mem::take(&mut self.full.validations.lies);
        let whole = |body| decode(body, self.plan.config.pending_byte, self.store.dictionaries()).is_ok();
        let damaged = match verdict {
            Verdict::Faulty { .. } => self.store.objects().filter(|(_, body)| !whole(body)).count() as u64,
            _ => 0,
        };
        if check(verdict, damaged, lies)? == Told::Misled {
            self.excuse("a store has answered the same validation wrongly more than twice");
        }
        Ok(())
    }
}
