//! Runs of the full generation: what an early seed would give, without what is switched off, and
//! with the faults of the catalogue.

use std::time::Duration;

use super::Plan;
use crate::ring0::dice::Dice;
use crate::ring0::faults::{Class, Fault, Faults};

impl Plan {
    /// The length of the script.
    pub fn length(&self) -> Duration {
        self.script.iter().map(|(wait, _)| *wait).sum()
    }

    pub(super) fn made_full(self, dice: &Dice) -> Plan {
        let faults = Faults::of_dice(dice);
        let on = |class: Class| {
            faults.names().any(|name| Fault::named(name).is_some_and(|fault| fault.class == class))
        };
        let mut plan = self;
        // These are drawn under their own names, in `Weather`.
        plan.store.per_mille = match on(Class::Store) {
            true => *dice.pick("full", "store faults", 0, &[20, 100, 300]),
            false => 0,
        };
        plan.store.outage = Duration::ZERO;
        plan.faults = faults;
        plan
    }
}
