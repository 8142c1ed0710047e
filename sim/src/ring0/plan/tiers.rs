//! Runs of a process of many databases, in which engines come and go.

use std::time::Duration;

use super::{Blow, Plan, StateFate, Workload};
use crate::ring0::app::AppOp;
use crate::ring0::dice::Dice;
use crate::ring0::faults::Faults;

/// Seeds from here on have such a process; without levels, which keep an engine busy.
pub const TIERS_FROM: u64 = 60_000_000;

/// How often the application closes its database for a while, so that no `-wal` is left, and the process
/// begins anew meanwhile.
const RESTS: u64 = 3;

impl Plan {
    /// The same in a process of many databases; one in eight on SQLite itself.
    pub(super) fn with_tiers(self, seed: u64, dice: &Dice) -> Plan {
        // Files that change without a new time are taken for what they were, unless an engine is there.
        let judged = |name: &&str| *name != "clock: wall stands";
        let blows = self.blows.into_iter().filter(|(_, blow)| judged(&blow.name())).collect();
        let faults = Faults::of_names(self.faults.names().filter(judged));
        let workload = if seed.is_multiple_of(8) { Workload::Library } else { self.workload };
        let mut plan = Plan { workload, blows, faults, tiers: true, ..self };
        plan.config.quiet_after = Duration::from_millis(*dice.pick("tiers", "quiet", 0, &[300, 300, 2_000]));
        (0..RESTS).for_each(|n| plan.rest(dice, n));
        plan.blows.sort_by_key(|(at, _)| *at);
        plan
    }

    /// The application is away for a while, and the process begins anew in it.
    fn rest(&mut self, dice: &Dice, n: u64) {
        let at = dice.range("tiers", "rest at", n, 0, self.script.len() as u64) as usize;
        let away = dice.wait("tiers", "away", n, 4_000_000, 60_000_000);
        let begun: Duration = self.script[..at].iter().map(|(wait, _)| *wait).sum();
        self.script.insert(at, (away, AppOp::Open { page_bytes: 1_024 }));
        self.script.insert(at, (Duration::ZERO, AppOp::Close));
        for (later, _) in self.blows.iter_mut().filter(|(later, _)| *later > begun) {
            *later += away;
        }
        let within = away.mul_f64(dice.range("tiers", "within", n, 300, 950) as f64 / 1_000.0);
        let down = dice.wait("tiers", "down", n, 100_000, 20_000_000);
        let blow = match dice.draw("tiers", "blow", n) % 2 {
            0 => Blow::Stop { down },
            _ => Blow::Kill { state: StateFate::Kept, down },
        };
        self.blows.push((begun + within, blow));
    }
}
