//! Making a failing run small: the same oracle, fewer operations, fewer faults, less time.
//!
//! First the faults are named: the run is repeated with the sites that were struck and with
//! silent dice. Then everything that can be taken away is, by halves and then one by one, as long
//! as the same oracle speaks. A run takes some milliseconds, so that a thousand tries are a matter
//! of seconds; the time is bounded all the same.

use std::time::{Duration, Instant};

use driftless_core::engine::Config;

use crate::commit;
use crate::ring0::app::{AppOp, Work};
use crate::ring0::plan::{Blow, StateFate};
use crate::ring0::sites::{Site, Strike};
use crate::ring0::{Plan, Report, Violation, report};
use crate::scenario::Scenario;
use crate::trace::Keep;

/// How large a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Operations of the application.
    pub operations: usize,
    /// Blows, faults that strike, outages.
    pub faults: usize,
    /// What the script takes, without what comes after it.
    pub length: Duration,
}

impl Size {
    /// Of a plan; `struck` is how many sites were struck in its run, for one that does not name them.
    pub fn of(plan: &Plan, struck: usize) -> Size {
        let outage = usize::from(!plan.store.outage.is_zero());
        let struck = if let Strike::Only(sites) = &plan.strike { sites.len() } else { struck };
        let faults = plan.blows.len() + struck + outage + usize::from(plan.crash_at.is_some());
        Size {
            operations: plan.operations(),
            faults,
            length: plan.script.iter().map(|(wait, _)| *wait).sum(),
        }
    }
}

/// A small run.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The run.
    pub scenario: Scenario,
    /// What it makes an oracle say.
    pub violation: Violation,
    /// The size before.
    pub before: Size,
    /// The size now.
    pub after: Size,
    /// Runs that were tried.
    pub runs: u64,
    /// Whether the time ran out before nothing more could be taken away.
    pub cut_short: bool,
}

/// Makes a failing run small within about `time`. `None` if the run does not fail.
pub fn shrink(seed: u64, plan: &Plan, time: Duration) -> Option<Shrunk> {
    shrink_where(seed, plan, time, &|_| true)
}

/// The same, to a run of which `holds` is true as well: that it passes without a planted bug.
pub fn shrink_where(seed: u64, plan: &Plan, time: Duration, holds: &dyn Fn(&Plan) -> bool) -> Option<Shrunk> {
    let first = report(seed, plan.clone(), Keep::Nothing, None);
    let violation = first.result.as_ref().err()?.clone();
    let before = Size::of(plan, first.struck.len());
    let deadline = Instant::now() + time;
    let mut shrinker =
        Shrinker { seed, best: plan.clone(), violation, last: first, deadline, runs: 1, holds };
    shrinker.name_the_faults();
    loop {
        let before = shrinker.best.clone();
        shrinker.round();
        if shrinker.best == before || shrinker.is_late() {
            break;
        }
    }
    let after = shrinker.size();
    let story = format!("{} (commit {})", shrinker.violation.text, commit::current());
    let scenario = Scenario {
        violates: Some(shrinker.violation.oracle.to_owned()),
        story,
        ..Scenario::new(seed, shrinker.best.clone())
    };
    Some(Shrunk {
        scenario,
        violation: shrinker.violation.clone(),
        before,
        after,
        runs: shrinker.runs,
        cut_short: shrinker.is_late(),
    })
}

struct Shrinker<'a> {
    seed: u64,
    /// The smallest plan so far that fails.
    best: Plan,
    /// What the oracle says of it.
    violation: Violation,
    /// Its run.
    last: Report,
    deadline: Instant,
    runs: u64,
    /// What must be true of each plan besides.
    holds: &'a dyn Fn(&Plan) -> bool,
}

impl Shrinker<'_> {
    fn size(&self) -> Size {
        Size::of(&self.best, self.last.struck.len())
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Takes `plan` if the same oracle speaks of it.
    fn try_plan(&mut self, plan: Plan) -> bool {
        if plan == self.best || self.is_late() {
            return false;
        }
        self.runs += 1;
        let report = report(self.seed, plan.clone(), Keep::Nothing, None);
        let Err(violation) = &report.result else { return false };
        if !is_same(violation, &self.violation) || !(self.holds)(&plan) {
            return false;
        }
        (self.violation, self.best, self.last) = (violation.clone(), plan, report);
        true
    }

    fn change(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.best.clone();
        change(&mut plan);
        self.try_plan(plan)
    }

    /// From now on the dice are silent and each fault has a name, if the run fails that way too.
    /// Otherwise whole kinds of faults are switched off.
    fn name_the_faults(&mut self) {
        if !matches!(self.best.strike, Strike::Only(_)) {
            let only = Strike::Only(self.last.struck.clone());
            if self.change(|plan| plan.strike = only) {
                return;
            }
        }
        let kinds: Vec<String> = self.last.hits.iter().map(|(name, _)| name.to_owned()).collect();
        for kind in kinds {
            self.change(|plan| {
                if let Strike::Without(kinds) = &mut plan.strike {
                    kinds.insert(kind);
                } else if plan.strike == Strike::All {
                    plan.strike = Strike::Without([kind].into());
                }
            });
        }
    }

    fn round(&mut self) {
        self.change(|plan| plan.crash_at = None);
        self.change(|plan| plan.store.outage = Duration::ZERO);
        self.take_away(|plan| plan.blows.len(), |plan, at, count| drop(plan.blows.drain(at..at + count)));
        self.take_away(|plan| sites(plan).len(), without_sites);
        self.ease_sites();
        self.take_away(|plan| plan.script.len(), without_operations);
        self.take_away(|plan| sites(plan).len(), without_sites);
        self.ease_settings();
        self.ease_operations();
        self.ease_blows();
        self.shorten();
    }

    /// Takes away what is counted: large parts first, then single ones, from the end to the start.
    fn take_away(&mut self, count: impl Fn(&Plan) -> usize, remove: impl Fn(&mut Plan, usize, usize)) {
        let mut part = count(&self.best);
        while part > 0 {
            let mut end = count(&self.best);
            while end > 0 {
                let start = end.saturating_sub(part);
                self.change(|plan| remove(plan, start, end - start));
                end = start;
            }
            part /= 2;
        }
    }

    /// Each fault that is left strikes at the first such place: that place may get another name, or
    /// another count, when operations are taken out.
    fn ease_sites(&mut self) {
        for at in 0..sites(&self.best).len() {
            let mut change = |change: fn(&mut Site)| {
                self.change(|plan| {
                    if let Strike::Only(sites) = &mut plan.strike {
                        change(&mut sites[at]);
                    }
                })
            };
            change(|site| {
                // "commit 0/1-1.ltx" is any commit then; operations of SQLite stay what they are.
                let words = if site.at.starts_with("sqlite") { 2 } else { 1 };
                site.at = site.at.split(' ').take(words).collect::<Vec<_>>().join(" ");
            });
            change(|site| site.nth = 0);
        }
    }

    /// Each setting becomes the usual one.
    fn ease_settings(&mut self) {
        let usual = Plan::default();
        self.change(|plan| plan.store.latency = usual.store.latency);
        self.change(|plan| plan.store.page_max = usual.store.page_max);
        self.change(|plan| plan.store.conditions = usual.store.conditions);
        self.change(|plan| plan.source_latency = usual.source_latency);
        self.change(|plan| plan.durable = usual.durable);
        if matches!(self.best.strike, Strike::Only(_)) {
            // The dice have no say, so that these mean nothing.
            self.change(|plan| {
                (plan.store.per_mille, plan.source_faults, plan.state_faults, plan.events_lost) =
                    (0, 0, 0, 0);
            });
        }
        let usual = Config::default();
        self.change(|plan| plan.config = usual.clone());
        self.change(|plan| plan.config.sync_interval = usual.sync_interval);
        self.change(|plan| plan.config.min_checkpoint_pages = usual.min_checkpoint_pages);
        self.change(|plan| plan.config.quiet_after = usual.quiet_after);
        self.change(|plan| plan.config.pending_bytes_max = usual.pending_bytes_max);
        self.change(|plan| plan.config.store_deadline = usual.store_deadline);
        self.change(|plan| plan.config.remote = usual.remote);
        self.change(|plan| plan.config.newest_only_from = usual.newest_only_from);
        self.change(|plan| plan.config.pending_byte = usual.pending_byte);
    }

    /// Each operation becomes a smaller one.
    fn ease_operations(&mut self) {
        for at in 0..self.best.script.len() {
            let small = Work::Insert { rows: 1, bytes: 100 };
            let easier = match self.best.script[at].1 {
                AppOp::Write(work) if work != small => AppOp::Write(small),
                AppOp::Begin(work) if work != small => AppOp::Begin(small),
                AppOp::DieInCommit(work) if work != small => AppOp::DieInCommit(small),
                AppOp::FailCommit(work) if work != small => AppOp::FailCommit(small),
                _ => continue,
            };
            self.change(|plan| plan.script[at].1 = easier);
        }
    }

    /// Each blow becomes a lighter one.
    fn ease_blows(&mut self) {
        let soon = Duration::from_secs(1);
        for at in 0..self.best.blows.len() {
            match self.best.blows[at].1 {
                Blow::Kill { state, down } => {
                    if state != StateFate::Kept {
                        self.change(|plan| plan.blows[at].1 = Blow::Kill { state: StateFate::Kept, down });
                    }
                    self.change(|plan| {
                        if let Blow::Kill { down, .. } = &mut plan.blows[at].1 {
                            *down = soon.min(*down);
                        }
                    });
                }
                Blow::PowerLoss { .. } => {
                    let kill = Blow::Kill { state: StateFate::Kept, down: soon };
                    self.change(|plan| plan.blows[at].1 = kill);
                }
                _ => {}
            }
        }
    }

    /// Waits become shorter: all of them, then each; blows follow.
    fn shorten(&mut self) {
        while self.change(|plan| {
            plan.script.iter_mut().for_each(|(wait, _)| *wait = halved(*wait));
            move_times(plan, halved);
        }) {}
        for at in 0..self.best.script.len() {
            if !self.best.script[at].0.is_zero() {
                let by = self.best.script[at].0;
                let start: Duration = self.best.script[..at].iter().map(|(wait, _)| *wait).sum();
                self.change(|plan| {
                    plan.script[at].0 = Duration::ZERO;
                    move_times(
                        plan,
                        |when| if when > start { when.saturating_sub(by).max(start) } else { when },
                    );
                });
            }
        }
    }
}

fn halved(time: Duration) -> Duration {
    Duration::from_millis((time / 2).as_millis() as u64)
}

/// Whether two oracles say the same: of panics, the sentence counts as well, but for its numbers.
fn is_same(one: &Violation, other: &Violation) -> bool {
    let words = |violation: &Violation| {
        violation.text.chars().filter(|c| !c.is_ascii_hexdigit()).take(60).collect::<String>()
    };
    one.oracle == other.oracle && (one.oracle != "panic" || words(one) == words(other))
}

fn sites(plan: &Plan) -> &[Site] {
    match &plan.strike {
        Strike::Only(sites) => sites,
        _ => &[],
    }
}

fn without_sites(plan: &mut Plan, at: usize, count: usize) {
    if let Strike::Only(sites) = &mut plan.strike {
        sites.drain(at..at + count);
    }
}

/// Blows and faults that are bound to a time move with it.
fn move_times(plan: &mut Plan, moved: impl Fn(Duration) -> Duration) {
    plan.blows.iter_mut().for_each(|(at, _)| *at = moved(*at));
    if let Strike::Only(sites) = &mut plan.strike {
        sites.iter_mut().for_each(|site| site.after = moved(site.after));
    }
}

/// Takes operations out; what follows happens when it did before.
fn without_operations(plan: &mut Plan, at: usize, count: usize) {
    let waited: Duration = plan.script.drain(at..at + count).map(|(wait, _)| wait).sum();
    if let Some((wait, _)) = plan.script.get_mut(at) {
        *wait += waited;
    }
}

#[cfg(test)]
mod tests {
    use crate::ring0::planted::Planted;

    use super::*;

    /// A long run full of faults, of which three things matter.
    #[test]
    fn a_planted_failure_shrinks_to_what_it_takes() {
        let planted = |seed: u64| Plan { planted: Some(Planted::LostAnswer), ..Plan::of_seed(seed) };
        let fails = |seed: &u64| report(*seed, planted(*seed), Keep::Nothing, None).result.is_err();
        let seed =
            (100_000..100_200).find(fails).expect("some seed loses an answer after a VACUUM and a death");
        let shrunk = shrink(seed, &planted(seed), Duration::from_secs(60)).expect("it fails");
        assert_eq!(shrunk.violation.oracle, "planted");
        assert!(shrunk.before.operations > 50, "{:?}", shrunk.before);
        assert!(shrunk.after.operations <= 10 && shrunk.after.faults <= 3, "{:?}", shrunk.after);
        assert!(shrunk.after.length < shrunk.before.length);

        let again = Scenario::read(&shrunk.scenario.write()).unwrap();
        let seen = report(again.seed, again.plan, Keep::Nothing, None).result.unwrap_err();
        assert_eq!(seen, shrunk.violation, "the file says all that it takes");
    }

    #[test]
    fn a_run_that_does_not_fail_is_not_shrunk() {
        assert!(shrink(5, &crate::ring0::scripts::daily(), Duration::from_secs(5)).is_none());
    }

    #[test]
    fn operations_are_taken_out_without_moving_the_others() {
        let ms = Duration::from_millis;
        let script = (1..=4).map(|n| (ms(n), AppOp::Autocheckpoint(n as u32))).collect();
        let mut plan = Plan::calm(script);
        without_operations(&mut plan, 1, 2);
        assert_eq!(plan.script, [(ms(1), AppOp::Autocheckpoint(1)), (ms(9), AppOp::Autocheckpoint(4))]);
    }
}
