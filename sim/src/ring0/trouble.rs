//! The faults of the full generation, as they befall a world.

use std::time::Duration;

use driftless_core::machine::{OpId, Outcome, StoreError, StoreReply, StoreRequest};

use super::dice::Dice;
use super::plan::{Conditions, Plan};
use super::restore::Restored;
use super::store::Fate;
use super::weather::{FATES, SLOW, Weather};
use super::world::{Entry, World};
use crate::trace::{Kind, node};

impl Weather {
    /// The store's faults of a plan, if it is of the full generation and has any.
    pub(super) fn of_plan(dice: Dice, plan: &Plan) -> Option<Weather> {
        let refuses = plan.store.conditions == Conditions::Kept;
        (!plan.faults.is_empty())
            .then(|| Weather::new(dice, &plan.faults, plan.store.per_mille, plan.length(), refuses))
    }
}

impl World {
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
        let slowness = weather.slowness(bytes);
        let drawn = weather.drawn(request, subject, self.store_steps, self.now_ns());
        let mut wait = wait;
        if let Some(slowness) = slowness {
            self.hit(SLOW);
            wait += slowness;
        }
        let Some(fault) = self.sites.settle(subject, drawn, &FATES) else { return (Fate::Works, wait) };
        self.summary.faults += 1;
        let weather = self.weather.as_ref().expect("asked only where there is weather");
        let (fate, longer) = weather.effect(fault, subject, self.store_steps);
        (fate, wait + longer)
    }

    /// What is to be known before a request has its effect.
    pub(super) fn note_store_request(&mut self, run: u64, op: OpId, request: &StoreRequest, fate: Fate) {
        self.store.now_ns = self.now_ns();
        let Some(weather) = &self.weather else { return };
        self.store.ahead = weather.clock_ahead(self.store.now_ns);
        self.store.limbo = self.plan.faults.has("store: unfinished bodies");
        if matches!(fate, Fate::Flipped(_) | Fate::Foreign) {
            self.excuses.lie();
        }
        if self.store.last_seq.0 == run && op.seq < self.store.last_seq.1 {
            self.hit("store: reordered");
        }
        self.store.last_seq = (run, op.seq);
        if matches!(request, StoreRequest::DropUnfinished { .. }) {
            if self.store.limbo && self.store.unfinished(run) > 0 {
                self.hit("store: unfinished bodies");
            }
            if !self.store.ahead.is_zero() {
                self.hit("store: clock leaps");
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
            self.hit(if list { "store: stale list, seen" } else { "store: stale read, seen" });
            self.excuses.lie();
        }
        let drawn = self.may("store: answer twice")
            && self.dice.chance("duplicate answer", "", self.store_steps, 1, 12);
        if fate.is_answered() && self.sites.strikes("an answer", "store: answer twice", drawn) {
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
        let drawn =
            !lands && self.may("store: objects vanish") && self.dice.chance("vanishes", "", self.runs, 1, 3);
        if !self.sites.strikes("a start", "store: objects vanish", drawn) {
            return;
        }
        let count = self.dice.range("vanishes", "count", self.runs, 1, 4) as usize;
        let lost = self.store.lose_newest(count);
        if lost > 0 {
            self.note(node::STORE, Kind::Fault, format_args!("the {lost} newest objects vanish"));
            self.excuses.vanish();
            self.restored = Restored::default();
        }
    }
}
