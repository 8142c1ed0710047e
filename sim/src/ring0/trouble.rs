//! The faults of the full generation, as they befall a world.

use std::time::Duration;

use driftless_core::machine::{OpId, Outcome, StoreError, StoreReply, StoreRequest};

use super::dice::Dice;
use super::plan::{Conditions, Plan};
use super::restore::Restored;
use super::store::Fate;
use super::weather::Weather;
use super::world::{Entry, World};

impl Weather {
    /// The store's faults of a plan, if it is of the full generation and has any.
    pub(super) fn of_plan(dice: Dice, plan: &Plan) -> Option<Weather> {
        let refuses = plan.store.conditions == Conditions::Kept;
        (!plan.faults.is_empty())
            .then(|| Weather::new(dice, &plan.faults, plan.store.per_mille, plan.length(), refuses))
    }
}

impl World {
    /// Counts that a fault has befallen the run.
    pub(super) fn hit(&mut self, name: &'static str) {
        *self.summary.hits.entry(name).or_default() += 1;
    }

    /// Whether a fault may befall the run, and has not ended with the others.
    pub(super) fn may(&self, name: &'static str) -> bool {
        self.healed_at.is_none() && self.plan.faults.has(name)
    }

    /// What becomes of a request to the store, and when.
    pub(super) fn weathered(
        &mut self,
        request: &StoreRequest,
        subject: &str,
        wait: Duration,
    ) -> (Fate, Duration) {
        let bytes = match request {
            StoreRequest::PutPart { bytes, .. } => bytes.len() as u64,
            StoreRequest::Get { object, .. } => self.store.get(object).map_or(0, |body| body.len() as u64),
            _ => 0,
        };
        let weather = self.weather.as_ref().expect("asked only where there is weather");
        let decision = weather.decide(request, subject, self.store_steps, self.now_ns(), bytes);
        let later = |name: &&str| matches!(*name, "stale list" | "stale read");
        for name in decision.names.into_iter().flatten().filter(|name| !later(name)) {
            self.hit(name);
        }
        self.summary.faults += u64::from(decision.names[0].is_some());
        (decision.fate, wait + decision.extra)
    }

    /// What is to be known before a request has its effect.
    pub(super) fn note_store_request(&mut self, run: u64, op: OpId, request: &StoreRequest, fate: Fate) {
        self.store.now_ns = self.now_ns();
        let Some(weather) = &self.weather else { return };
        self.store.ahead = weather.clock_ahead(self.store.now_ns);
        self.store.limbo = self.plan.faults.has("multipart limbo");
        if matches!(fate, Fate::Flipped(_) | Fate::Foreign) {
            self.excuses.lie();
        }
        if self.store.last_seq.0 == run && op.seq < self.store.last_seq.1 {
            self.hit("reordering");
        }
        self.store.last_seq = (run, op.seq);
        if matches!(request, StoreRequest::DropUnfinished { .. }) {
            if self.store.limbo && self.store.unfinished(run) > 0 {
                self.hit("multipart limbo");
            }
            if !self.store.ahead.is_zero() {
                self.hit("store clock skew");
            }
        }
        if let (Fate::Twice, StoreRequest::PutCommit { .. }) = (fate, request) {
            let wait = self.dice.wait("again", "", self.store_steps, 1_000, 20_000_000);
            self.later(
                wait,
                Entry::Store { run, op, request: request.clone(), fate: Fate::Hangs, late: true },
            );
        }
    }

    /// What is to be known once a request has had its effect; an answer may come twice.
    pub(super) fn note_store_answer(
        &mut self,
        run: u64,
        op: OpId,
        result: &Result<StoreReply, StoreError>,
        fate: Fate,
    ) {
        if std::mem::take(&mut self.store.hidden) > 0 {
            let list = matches!(result, Ok(StoreReply::Listing { .. }));
            self.hit(if list { "stale list" } else { "stale read" });
            self.excuses.lie();
        }
        let again = self.may("duplicate answer")
            && fate.is_answered()
            && self.dice.chance("duplicate answer", "", self.store_steps, 1, 12);
        if again {
            self.hit("duplicate answer");
            let wait = self.dice.wait("duplicate answer", "wait", self.store_steps, 0, 5_000_000);
            self.later(wait, Entry::Deliver { run, op, outcome: Outcome::Store(result.clone()) });
        }
    }

    /// Between two runs the store may lose what it acknowledged last.
    pub(super) fn perhaps_vanish(&mut self) {
        let lands = self
            .queue
            .iter()
            .any(|entry| matches!(entry, Entry::Store { request: StoreRequest::PutCommit { .. }, .. }));
        if lands || !self.may("object vanishes") || !self.dice.chance("vanishes", "", self.runs, 1, 3) {
            return;
        }
        let count = self.dice.range("vanishes", "count", self.runs, 1, 4) as usize;
        let lost = self.store.lose_newest(count);
        if lost > 0 {
            self.say(|| format!("!!!  the {lost} newest objects vanish"));
            self.hit("object vanishes");
            self.excuses.vanish();
            self.restored = Restored::default();
        }
    }
}
