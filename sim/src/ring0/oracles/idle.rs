//! A quiet database costs nothing, and nobody wakes for nothing.

use std::time::Duration;

use driftless_core::ids::Mono;
use driftless_core::machine::Reason;

use super::super::app::PATH;
use super::super::reading;
use super::super::violation::Violation;
use super::super::world::World;

/// How long a quiet world is watched: less than the time to the sweep.
const WATCHED: Duration = Duration::from_secs(14 * 60);
/// Actions that looking once may take: to open the database, to copy its WAL back and to look once
/// more at the event of that, and to seal it twice, the second time with a settled clock (46 in seed
/// 13409785).
const LOOK: u64 = 48;
/// So many more if a frame of this WAL stands behind the last committed one, of a commit that failed
/// or that power loss has torn: a recovery may make it count without changing a byte, so that the
/// sweep must open the database, and seals it twice (seeds 200909 and 100095).
const LOOK_BEHIND: u64 = 24;

/// A deadline that has passed must start something, or be named no more: otherwise the host would
/// wake without end. `deadline` is the one that stands after a tick that led to `actions`.
///
/// # Errors
/// When it does not.
pub fn check_tick(deadline: Option<(Mono, Reason)>, now: Mono, actions: u64) -> Result<(), Violation> {
    match deadline {
        Some((at, reason)) if at <= now && actions == 0 => {
            let text = format!("a tick starts nothing, and {reason:?} is due since {at:?}");
            Err(Violation::new("spin", text))
        }
        _ => Ok(()),
    }
}

impl World {
    /// Whether a frame with the salts of the WAL stands behind the last committed one.
    fn something_stands_behind(&self) -> bool {
        let disk = self.sqlite.disk();
        let reading = reading::read(disk, PATH, self.plan.config.pending_byte);
        let Some((reading, wal)) = reading.zip(disk.contents(&format!("{PATH}-wal"))) else { return false };
        let at = 32 + reading.end.frames as usize * (24 + reading.image.page_bytes());
        let salts = |at: usize| wal.get(at..at + 8);
        salts(at + 8).is_some_and(|behind| Some(behind) == salts(16))
    }

    /// Actions and requests to the store so far, but for those of validations: whoever asks for these asks
    /// for them at their interval.
    fn spent(&self) -> (u64, u64) {
        let validations = &self.full.validations;
        (self.summary.actions - validations.actions, self.store.requests - validations.requests)
    }

    /// A quiet world stays quiet: no request, until the sweep looks once.
    pub(in super::super) fn check_idle(&mut self) -> Result<(), Violation> {
        let fail = |text: String| Violation::new("idle", text);
        self.is_watched = true;
        let look = LOOK + if self.something_stands_behind() { LOOK_BEHIND } else { 0 };
        let until = self.now_ns() + WATCHED.as_nanos() as u64;
        let (actions, requests) = self.spent();
        if let Some((at, reason)) =
            self.running.as_ref().and_then(|running| running.engine.deadline_but_of_validation())
            && !self.is_rest(Some((at, reason)), self.sqlite.disk())
        {
            return Err(fail(format!("a deadline at {at:?} for {reason:?}")));
        }
        while self.queue.next_at().is_some_and(|at| at < until) {
            let (before, _) = self.spent();
            self.step()?;
            if self.spent().0 > before + look {
                return Err(fail("a quiet source keeps the replicator busy".into()));
            }
        }
        let (actions_now, requests_now) = self.spent();
        if requests_now != requests {
            return Err(fail(format!("{} store requests", requests_now - requests)));
        }
        if actions_now > actions + look {
            return Err(fail(format!("{} actions", actions_now - actions)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_that_starts_nothing_and_comes_again_is_found() {
        let at = |seconds| Mono::from_duration(Duration::from_secs(seconds));
        let due = Some((at(5), Reason::Sweep));
        assert_eq!(check_tick(due, at(5), 0).unwrap_err().oracle, "spin");
        check_tick(due, at(5), 1).unwrap();
        check_tick(due, at(4), 0).unwrap();
        check_tick(None, at(5), 0).unwrap();
    }
}
