//! Whether all that was committed before a moment is on the replica when the replicator says so.

use driftless_core::ids::Mono;
use driftless_core::machine::Machine as _;

use super::violation::Violation;
use super::world::World;

/// How many states were committed, and when.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// In the order of time.
    counts: Vec<(Mono, usize)>,
    /// The moment of the last check: no claim of the past is looked at twice.
    checked: Option<Mono>,
}

impl Commits {
    /// Notes how many states are committed beyond doubt by now.
    pub(super) fn note(&mut self, now: Mono, owed: usize) {
        if self.counts.last().is_none_or(|(_, last)| *last < owed) {
            self.counts.push((now, owed));
        }
    }

    /// How many states were committed before a moment.
    fn before(&self, moment: Mono) -> usize {
        self.counts.iter().rev().find(|(at, _)| *at < moment).map_or(0, |(_, owed)| *owed)
    }
}

impl World {
    /// Looks whether the replicator claims more than before, and whether that is so.
    pub(super) fn check_synced(&mut self) -> Result<(), Violation> {
        let Some(running) = &self.running else { return Ok(()) };
        let until = running.engine.status().synced_until;
        let Some(moment) = until.filter(|_| until > self.commits.checked) else { return Ok(()) };
        self.commits.checked = until;
        let owed = self.commits.before(moment);
        self.restore_all()?;
        // What it says stays true when another has gone on from there.
        let passed = !self.full.rivals.is_empty() && self.restored.truth_at + 1 >= owed;
        if owed == 0 || passed || self.truth.find(&self.restored.image, owed - 1).is_some() {
            return Ok(());
        }
        let text = format!(
            "everything before {moment:?} is said to be on the replica: state {} is there, {} was committed",
            self.restored.truth_at,
            owed - 1
        );
        Err(Violation::new("synced", text))
    }
}
