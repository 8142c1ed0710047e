//! Databases that are as an earlier run of the process has left them.
//!
//! Of most databases of a process that has many nothing has changed while it was away. Their records say
//! what their files were when everything was on the replica: where they are that still, a database begins
//! without an engine, and without a request to the store.

use std::path::PathBuf;

use driftless_adapters::pool::unblock;
use driftless_core::engine::{Journal, Resting};
use driftless_core::keeper::Keeper;
use driftless_core::tiers::Fingerprint;

use super::{Host, ReplicateJob, name_in_journal};
use crate::clock;
use crate::sqlite::probe;

/// What the files of a database are, and how it stands.
pub(super) type Rested = (Fingerprint, Resting);

impl Host {
    /// Of each database whether it is as it was left, in their order.
    pub(super) async fn rested(&self, jobs: impl Iterator<Item = &ReplicateJob>) -> Vec<Option<Rested>> {
        // Others may have gone on where this host left off: only the replica knows.
        let alone = self.lease.is_none();
        let asked: Vec<Option<(String, PathBuf)>> = jobs
            .map(|job| {
                let settings = &job.settings;
                let may = Keeper::may_rest(
                    &settings.engine,
                    settings.levels.is_some(),
                    settings.validation.is_some(),
                );
                (may && alone).then(|| (name_in_journal(&job.database, &job.replica), job.database.clone()))
            })
            .collect();
        let journal = self.journal.clone();
        let look = move || {
            let now = clock::mono();
            let rested = |(name, path): (String, PathBuf)| {
                // What cannot be read counts as lost: an engine finds out.
                let records = {
                    // For one at a time: engines that run have records to write.
                    let journal = journal.lock().expect("no holder panics");
                    journal.load_records(journal.find(&name).ok()??).ok()?
                };
                let (file, wal) = probe::seal_facts(&path)?;
                Journal::replay(&records).at_rest(now, &file, wal)
            };
            asked.into_iter().map(|asked| rested(asked?)).collect()
        };
        unblock(look).await
    }
}
