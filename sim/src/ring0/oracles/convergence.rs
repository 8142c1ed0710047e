//! Once faults end, everything is on the replica within a bound.
//!
//! The bound is stated with its reasons: the longest request that was under way when the faults
//! ended, the longest back-off, the quiet time, and twice what a seal may wait for the clocks. A
//! change that no event told of waits for the sweep, and where a store refuses nothing, a put that
//! may yet land is waited for.

use std::time::Duration;

use driftless_core::engine::LATE_PUT;
use driftless_core::ids::Mono;
use driftless_core::machine::{Machine as _, Reason};
use driftless_core::tiers::LOOKED_AFTER;

use super::super::app::PATH;
use super::super::image::Image;
use super::super::levels::{RETAINS, SETTLES};
use super::super::violation::Violation;
use super::super::world::{Entry, World};
use crate::disk::Disk;

/// The bound without further reasons.
pub const CONVERGE: Duration = Duration::from_secs(180);
/// How often the sweep comes.
pub const SWEEP: Duration = Duration::from_secs(15 * 60);

/// How far a file's time lies ahead of the wall clock for a wait to be put down to that.
pub(in super::super) const WALL_AHEAD_NS: i64 = 10_000_000_000;

/// A replica that is ahead of the source: what was replicated has left the source since.
pub(in super::super) const AHEAD: &str =
    "power loss took commits that the application had not synced and that were replicated";

/// How long it may take, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// So long.
    pub time: Duration,
    /// The reasons.
    pub why: Vec<&'static str>,
}

/// The bound of a run in which there was an event of each change or not, and whose store refuses or
/// does not.
pub fn bound(all_events: bool, refuses: bool) -> Bound {
    let mut bound = Bound { time: CONVERGE, why: vec!["requests, back-off, quiet, seal"] };
    if !all_events {
        bound.time += SWEEP;
        bound.why.push("there was no event of a change: the sweep");
    }
    if !refuses {
        bound.time += LATE_PUT;
        bound.why.push("the store refuses nothing: puts that may land late");
    }
    bound
}

impl World {
    /// Until everything is on the replica and quiet, within the bound.
    pub(in super::super) fn converge(&mut self) -> Result<(), Violation> {
        let healed = self.healed_at.expect("set before");
        if !self.full.rivals.is_empty() {
            return self.converge_rivals(self.bound(!self.event_lost).time);
        }
        loop {
            let bound = self.bound(!self.event_lost && !self.truth.was_recovered());
            let until = healed + bound.time.as_nanos() as u64;
            if self.is_quiet() && self.is_complete()? {
                break;
            }
            if self.queue.next_at().is_none_or(|at| at > until) {
                if self.is_ahead() {
                    self.excuse(AHEAD);
                    break;
                }
                return Err(self.not_converged(&bound));
            }
            self.step()?;
        }
        self.summary.converged_us = (self.now_ns() - healed) / 1_000;
        Ok(())
    }

    fn bound(&self, all_events: bool) -> Bound {
        let mut bound = bound(all_events, self.store.keeps_conditions);
        if self.plan.levels.is_some() {
            bound.time += SETTLES;
            bound.why.push("levels");
        }
        if let Some(retain) = self.plan.levels.as_ref().and_then(|levels| levels.retain) {
            bound.time += RETAINS + Duration::from_millis(retain.snapshot_ms + 3 * retain.l0_ms);
            // What is old by the true time is so by a clock that is behind only later.
            bound.time += Duration::from_nanos((-self.steps_ns).max(0) as u64).min(RETAINS * 2);
            bound.why.push("retention");
        }
        if self.full.swept || (self.plan.tiers && !self.full.rivals.is_empty()) {
            bound.time += SWEEP;
            bound.why.push("an engine may have finished without a rest: the sweep");
        }
        if self.plan.tiers && self.sites.hits().of("store: objects vanish") > 0 {
            bound.time += LOOKED_AFTER;
            bound.why.push("what began without an engine asks its store within a day");
        }
        // A page that waits for nothing else is a part of its own.
        let truths = self.full.rivals.iter().map(|rival| &rival.truth).chain([&self.truth]);
        let pages = truths.filter_map(|truth| truth.last()).map(Image::pages).max();
        let base = self.plan.store.latency * pages.unwrap_or(0) as u32;
        if base > CONVERGE / 4 {
            bound.time += base;
            bound.why.push("a base, page by page");
        }
        // It learns that the clock was set right when it looks, as late as it would have swept.
        let healed = self.healed_at.unwrap_or_default();
        let looks = self.set_right_at.map_or(0, |at| (at + SWEEP.as_nanos() as u64).saturating_sub(healed));
        if looks > 0 {
            bound.time += Duration::from_nanos(looks);
            bound.why.push("the wall clock was behind a file, and has been set right");
        }
        bound
    }

    fn not_converged(&self, bound: &Bound) -> Violation {
        let status = self.running.as_ref().map(|running| running.engine.status());
        let deadline = self.running.as_ref().and_then(|running| running.engine.next_deadline());
        let differs = self.truth.last().map(|last| self.restored.image.differences(last));
        let same = self.truth.last() == Some(&self.restored.image);
        let text = format!(
            "not done {:?} after the end of faults ({}); replica {} the source ({differs:?}); next {deadline:?}; {status:?}",
            bound.time,
            bound.why.join("; "),
            if same { "equals" } else { "differs from" }
        );
        Violation::new("liveness", text)
    }

    /// Whether nothing but the sweep is to come.
    fn is_quiet(&self) -> bool {
        self.main_sleeps()
            && self.queue.iter().all(|entry| {
                // A validation goes on at its interval, whatever else rests.
                matches!(entry, Entry::Tick { .. }) || self.is_of_validation(entry) || self.is_sweep(entry)
            })
    }

    /// At the very end the replica is what the source is: nothing became of either in the silence.
    pub(in super::super) fn check_last(&mut self) -> Result<(), Violation> {
        if !self.full.rivals.is_empty() || self.is_complete()? || self.has_gone_back() {
            return Ok(());
        }
        let differs = self.truth.last().map(|last| self.restored.image.differences(last));
        Err(Violation::new("source unharmed", format!("after the silence the replica differs: {differs:?}")))
    }

    /// Whether the replicator rests.
    pub(in super::super) fn main_sleeps(&self) -> bool {
        let Some(running) = &self.running else { return self.rests_without_engine() };
        // With a clock that is years behind, or files from a day ahead, nothing is old enough for as long; what
        // it waits for otherwise takes minutes.
        let far = self.now().mono.after(RETAINS * 2);
        let kept_up = running.engine.upkeep_deadline().is_none_or(|(at, _)| at > far);
        self.is_rest(running.engine.deadline_but_of_validation(), self.sqlite.disk()) && kept_up
    }

    /// Whether a replicator with this deadline rests: it waits for the sweep, or for the wall clock
    /// to reach the time of a file that was changed before the clock was set back.
    pub(in super::super) fn is_rest(&self, deadline: Option<(Mono, Reason)>, disk: &Disk) -> bool {
        // Longer than it ever waits to see whether a database is quiet.
        let far = self.now().mono.after(self.plan.config.quiet_after + Duration::from_secs(1));
        match deadline {
            None | Some((_, Reason::Sweep)) => true,
            Some((at, Reason::Quiet)) => at > far && self.is_ahead_of_clock(disk),
            _ => false,
        }
    }

    /// Whether the database was changed at a time that the wall clock has yet to reach.
    fn is_ahead_of_clock(&self, disk: &Disk) -> bool {
        disk.stat(PATH).is_ok_and(|file| file.ctime_ns > self.clock.now_ns() + WALL_AHEAD_NS as u64)
    }

    /// Whether any database was.
    pub(in super::super) fn some_file_is_ahead(&self) -> bool {
        let rivals = self.full.rivals.iter().map(|rival| rival.sqlite.disk());
        rivals.chain([self.sqlite.disk()]).any(|disk| self.is_ahead_of_clock(disk))
    }

    /// Whether the replica's end is the source's committed state.
    fn is_complete(&mut self) -> Result<bool, Violation> {
        self.restore_all()?;
        let nothing = self.truth.is_empty() && self.sqlite.disk().stat(PATH).is_err();
        Ok(nothing || self.truth.last() == Some(&self.restored.image))
    }

    /// Whether power loss has put the source back to a state before the one that is on the replica.
    /// Only an application that does not sync its commits can lose them like that.
    fn is_ahead(&self) -> bool {
        self.is_quiet() && self.has_gone_back()
    }

    /// Whether that is so now, quiet or not.
    pub(in super::super) fn has_gone_back(&self) -> bool {
        let lost = !self.plan.durable && self.sites.hits().of("machine: power lost") > 0;
        // A commit since, or a database made anew, is none that power has put back.
        lost && self.truth.was_recovered() && self.truth.has_gone_back_behind(self.restored.truth_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_as_long_as_its_reasons() {
        assert_eq!(bound(true, true).time, CONVERGE);
        assert_eq!(bound(false, false).time, CONVERGE + SWEEP + LATE_PUT);
        assert_eq!(bound(false, false).why.len(), 3);
    }
}
