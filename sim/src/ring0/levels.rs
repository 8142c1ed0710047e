//! The compactor beside the replicator: what it says is looked at, and what it may ask for counted.

use std::time::Duration;

use driftless_core::compact::FAN_IN_MAX;
use driftless_core::ids::Txid;
use driftless_core::machine::{Fact, Object};

use super::oracles::{levels, retention};
use super::restore::decode;
use super::violation::Violation;
use super::world::{World, capture};
use crate::trace::{Kind, node};

/// What a compactor has done in all runs of its process.
#[derive(Debug, Default)]
pub(super) struct Compacted {
    /// Files that it made or found.
    made: u64,
    /// Times that something was to be tried again.
    retries: u64,
    /// Requests to the store.
    pub(super) requests: u64,
}

/// Requests of one compaction: its inputs, which are small here, a listing of each level, and its put, sent
/// and looked up.
const REQUESTS: u64 = FAN_IN_MAX as u64 + 40;
/// How long a pass of the retention may wait after one that failed, and take.
pub(super) const RETAINS: Duration = Duration::from_secs(1_000);
/// How long it may go on once faults have ended: a level that has failed with its last try just before
/// that rests for ten minutes, and then come the intervals of all (seed 22980141: three levels rested, and
/// the last was made 602 s after).
pub(super) const SETTLES: Duration = Duration::from_secs(600 + 165);

impl World {
    /// A file of a higher level is there, and counts.
    pub(super) fn note_levels(&mut self, fact: &Fact) -> Result<(), Violation> {
        match fact {
            Fact::Compacted { object, .. } => {
                self.full.compacted.made += 1;
                self.summary.compacted += 1;
                self.check_compacted(object)
            }
            Fact::Retained { objects, .. } => {
                self.summary.deleted += u64::from(*objects);
                Ok(())
            }
            Fact::Retrying { .. } => {
                self.full.compacted.retries += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_compacted(&self, object: &Object) -> Result<(), Violation> {
        let pending_byte = self.plan.config.pending_byte;
        let fail = |text: String| Violation::new("levels", format!("{object}: {text}"));
        let body = self.store.get(object).ok_or_else(|| fail("it is reported, and not there".into()))?;
        let dictionaries = self.store.dictionaries();
        let file = decode(body, pending_byte, dictionaries).map_err(fail)?;
        let mut captures = Vec::new();
        for txid in object.range.min().get()..=object.range.max().get() {
            let capture = capture(Txid::new(txid).expect("it lies in a range"));
            let body = self.store.ever(&capture).ok_or_else(|| fail(format!("{capture} is missing")))?;
            captures.push(decode(body, pending_byte, dictionaries).map_err(fail)?);
        }
        levels::check(object, file, &captures)?;
        self.note(node::ORACLE, Kind::Restore, format_args!("{object} is what its transactions make"));
        Ok(())
    }

    /// Something was deleted: could it go?
    pub(super) fn check_deleted(&mut self) -> Result<(), Violation> {
        let Some((gone, left, end)) = self.store.take_deleted() else { return Ok(()) };
        let retain = self.plan.levels.as_ref().and_then(|levels| levels.retain);
        let times = retain.ok_or_else(|| Violation::new("retention", format!("{gone} was deleted")))?;
        let times = retention::Times { snapshot_ms: times.snapshot_ms, grace_ms: times.l0_ms };
        let result = retention::check(&gone, &left, end, times);
        // One clock that is right is enough (decision 0015).
        if result.is_err() && self.steps_ns > 0 && !self.store.ahead.is_zero() {
            self.excuse("both clocks are ahead");
            return Ok(());
        }
        result
    }

    /// The compactor asked for no more than it made or failed to make.
    pub(super) fn check_compactor_requests(&self) -> Result<(), Violation> {
        let compacted = &self.full.compacted;
        let occasions = compacted.made + compacted.retries + 2 * self.summary.starts + self.summary.faults;
        // Listings grow with what is there.
        let pages = self.store.len() as u64 / self.store.page_max.max(1) as u64 + 1;
        let budget = occasions * (REQUESTS + pages);
        if self.plan.levels.is_some() && compacted.requests > budget {
            let text =
                format!("{} requests of the compactor, {budget} for {compacted:?}", compacted.requests);
            return Err(Violation::new("limits", text));
        }
        Ok(())
    }
}
