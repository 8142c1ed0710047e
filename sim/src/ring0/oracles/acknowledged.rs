//! What the replicator says is on the replica is there.
//!
//! It says so of a transaction when it reports it as replicated, and of a moment: everything that was
//! committed before is there (`driftless sync` waits for that). An application that was told so may
//! throw away its own copy.

use driftless_core::ids::{Mono, Txid};
use driftless_core::machine::Machine as _;

use super::super::violation::Violation;
use super::super::world::{World, capture};
use super::convergence::AHEAD;

/// A transaction may be reported when the replica restores to it.
///
/// # Errors
/// When it does not: `restored` is the last that it restores to.
pub fn check_report(restored: Option<Txid>, said: Txid) -> Result<(), Violation> {
    if restored >= Some(said) {
        return Ok(());
    }
    let missing = capture(restored.map_or(Txid::FIRST, Txid::next));
    Err(Violation::new("replicated", format!("{said} is said to be replicated, {missing} is not there")))
}

/// How many states were committed, and when.
#[derive(Debug, Default)]
pub(in super::super) struct Commits {
    /// In the order of time.
    counts: Vec<(Mono, usize)>,
    /// The moment of the last check: no claim of the past is looked at twice.
    checked: Option<Mono>,
}

impl Commits {
    /// Notes how many states are committed beyond doubt by now.
    pub(in super::super) fn note(&mut self, now: Mono, owed: usize) {
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
    pub(in super::super) fn check_synced(&mut self) -> Result<(), Violation> {
        let Some(running) = &self.running else { return Ok(()) };
        let until = running.engine.status().synced_until;
        let Some(moment) = until.filter(|_| until > self.commits.checked) else { return Ok(()) };
        self.commits.checked = until;
        let owed = self.commits.before(moment);
        self.restore_all()?;
        // What it says stays true when another has gone on from there.
        let passed = || !self.full.rivals.is_empty() && self.restored.had(&self.truth, owed - 1);
        if owed == 0 || self.truth.find(&self.restored.image, owed - 1).is_some() || passed() {
            return Ok(());
        }
        if self.has_gone_back() {
            self.excuse(AHEAD);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_what_is_not_there_is_found() {
        let txid = |n| Txid::new(n).unwrap();
        check_report(Some(txid(3)), txid(3)).unwrap();
        assert_eq!(check_report(Some(txid(3)), txid(4)).unwrap_err().oracle, "replicated");
        assert_eq!(check_report(None, txid(1)).unwrap_err().oracle, "replicated");
    }

    #[test]
    fn commits_are_counted_by_their_moment() {
        let at = |seconds| Mono::from_duration(std::time::Duration::from_secs(seconds));
        let mut commits = Commits::default();
        commits.note(at(1), 1);
        commits.note(at(3), 1);
        commits.note(at(5), 4);
        assert_eq!([1, 2, 5, 6].map(|second| commits.before(at(second))), [0, 1, 1, 4]);
    }
}
