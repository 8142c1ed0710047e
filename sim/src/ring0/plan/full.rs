//! Runs of the full generation: what an early seed would give, without what is switched off, and
//! with the faults of the catalogue.

use std::time::Duration;

use super::{Blow, Plan};
use crate::ring0::app::{AppOp, Work};
use crate::ring0::dice::Dice;
use crate::ring0::faults::{Class, Fault, Faults};

impl Plan {
    /// The length of the script.
    pub fn length(&self) -> Duration {
        self.script.iter().map(|(wait, _)| *wait).sum()
    }

    /// What the scripts of early seeds never have: one transaction that is longer than a capture
    /// reads at a time, and a commit that failed, which stands in the WAL until somebody recovers it
    /// once the source has been let go of.
    fn add_ends(&mut self, dice: &Dice) {
        if dice.chance("full", "long transaction", 0, 1, 4) {
            let at = dice.range("full", "long at", 0, 1, self.script.len() as u64 - 1) as usize;
            let long = AppOp::Write(Work::Insert { rows: 700, bytes: 600 });
            self.script.insert(at, (Duration::from_millis(20), long));
        }
        if dice.chance("full", "failed at last", 0, 1, 4) {
            let failed = AppOp::FailCommit(Work::Insert { rows: 1, bytes: 100 });
            let ms = Duration::from_millis;
            self.script.extend([(ms(300), AppOp::Open { page_bytes: 1_024 }), (ms(300), failed)]);
            self.script.extend([(ms(25_000), AppOp::Kill), (ms(500), AppOp::Open { page_bytes: 1_024 })]);
            // No event tells of it: who is told to stop must look. Operations take time as well, so that
            // the script ends after its length.
            self.blows.push((self.length() * 2 + ms(60_000), Blow::Stop { down: ms(500) }));
        }
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
        plan.add_ends(dice);
        plan.faults = faults;
        plan
    }
}
