//! Runs of the standard size, by which the simulator's speed is measured: ten simulated minutes,
//! three hundred commits, small pages, three crashes, ten faults, twenty restores, or more of each.

use std::time::Duration;

use super::{Blow, MS, Plan, StateFate, script};
use crate::ring0::dice::Dice;

/// Operations between two rests.
const STRETCH: usize = 40;

impl Plan {
    /// An early run with a longer script that rests now and then, and with more crashes.
    pub(super) fn made_standard(self, dice: &Dice) -> Plan {
        let mut plan = self;
        let page_bytes = *dice.pick("standard", "page size", 0, &[512, 512, 1_024]);
        let ops = dice.range("standard", "ops", 0, 680, 800);
        plan.script = script(dice, ops, page_bytes);
        for (n, (wait, _)) in plan.script.iter_mut().enumerate().skip(1).step_by(STRETCH) {
            *wait += Duration::from_millis(dice.range("standard", "rest", n as u64, 20_000, 70_000));
        }
        let length: Duration = plan.script.iter().map(|(wait, _)| *wait).sum();
        let within = length.as_micros() as u64;
        // What the early run draws falls into its own, shorter script.
        let early = plan.blows.last().map_or(1, |(at, _)| at.as_micros().max(1) as u64);
        for (at, _) in &mut plan.blows {
            *at = Duration::from_micros(at.as_micros() as u64 * (within / early).max(1)).min(length);
        }
        let crashes = dice.range("standard", "crashes", 0, 3, 5);
        plan.blows.extend((0..crashes).map(|n| {
            let at = Duration::from_micros(dice.draw("standard", "crash at", n) % within);
            let down = dice.wait("standard", "down", n, 5 * MS, 60_000 * MS);
            let state = match dice.draw("standard", "state", n) % 8 {
                0 => StateFate::Lost,
                1 | 2 => StateFate::Cut(dice.range("standard", "cut", n, 1, 6) as usize),
                _ => StateFate::Kept,
            };
            (at, Blow::Kill { state, down })
        }));
        plan.blows.sort_by_key(|(at, _)| *at);
        plan
    }
}
