//! Runs of the standard size, by which the simulator's speed is measured: ten simulated minutes,
//! three hundred commits, small pages, three crashes, ten faults, twenty restores, or more of each.

use std::time::Duration;

use super::{Blow, MS, Plan, StateFate, script};
use crate::ring0::app::AppOp;
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
        last(&mut plan.script, Duration::from_secs(dice.range("standard", "seconds", 0, 600, 720)));
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

/// Makes a script last so long: long waits are shortened, or rests come between stretches.
fn last(script: &mut [(Duration, AppOp)], length: Duration) {
    let before: Duration = script.iter().map(|(wait, _)| *wait).sum();
    if before > length {
        let (of, to) = (before.as_micros().max(1), length.as_micros());
        let long = script.iter_mut().filter(|(wait, _)| *wait > Duration::from_millis(100));
        long.for_each(|(wait, _)| *wait = Duration::from_micros((wait.as_micros() * to / of) as u64));
        return;
    }
    let rest = (length - before) / (script.len() / STRETCH) as u32;
    script.iter_mut().skip(STRETCH).step_by(STRETCH).for_each(|(wait, _)| *wait += rest);
}
