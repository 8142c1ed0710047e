//! Reading the configuration again while the process runs.

use std::rc::Rc;

use driftless_core::ids::Wall;

use super::databases::Entry;
use super::registrations::Registration;
use super::twins::Refusal;
use super::{Host, Moment, ReplicateJob, plan};
use crate::clock;
use crate::config::Settings;
use crate::discover::Directory;

/// What a configuration that was read again says.
pub struct Reread {
    /// The databases.
    pub jobs: Vec<ReplicateJob>,
    /// The directories of databases.
    pub directories: Vec<Directory>,
    /// Settings of databases that are registered while the process runs.
    pub settings: Settings,
    /// How long the final sync may take.
    pub shutdown_sync_timeout: std::time::Duration,
}

/// Reads the configuration again; the error is a sentence.
pub type Rereader = Box<dyn Fn() -> Result<Reread, String>>;

/// How the configuration was last read again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Reloads {
    /// How many times it was tried.
    pub(crate) count: u64,
    /// When last.
    pub(crate) at: Option<Wall>,
    /// Why nothing was changed, if so.
    pub(crate) error: Option<String>,
}

impl Host {
    /// Reads the configuration again and brings the databases in line with it. One that is wrong
    /// changes nothing.
    pub(crate) async fn reload(self: &Rc<Self>) {
        let Some(reread) = self.reread.as_ref().filter(|_| !self.closing.get()) else { return };
        if self.lease.as_ref().is_some_and(|lease| !lease.is_active()) {
            tracing::warn!("the configuration is not read again while this process is no primary");
            return;
        }
        self.tell(Moment::Reloading);
        let registrations = self.registrations.lock().await;
        let outcome = match reread() {
            Ok(reread) => self.take(reread, &registrations).await.map_err(|refusal| refusal.error),
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(()) => tracing::info!("the configuration was read again"),
            Err(error) => {
                tracing::error!("the configuration was read again, and nothing was changed: {error}")
            }
        }
        let mut reloads = self.reloads.borrow_mut();
        *reloads = Reloads { count: reloads.count + 1, at: Some(clock::wall()), error: outcome.err() };
        drop(reloads);
        self.changes.tell();
        self.tell(Moment::Reloaded);
    }
}

impl Host {
    /// Brings the databases in line with a configuration, unless something is wrong with it.
    async fn take(self: &Rc<Self>, reread: Reread, registrations: &[Registration]) -> Result<(), Refusal> {
        let Reread { mut jobs, directories, settings, shutdown_sync_timeout } = reread;
        let mut found = self.found_in(&directories, &jobs).await?;
        for job in jobs.iter_mut().chain(&mut found) {
            let known = self.paths.find(self, &job.database);
            let adopts = known.and_then(|number| self.look(number, |entry| adopts_as_before(entry, job)));
            job.settings.set_adopt(adopts.unwrap_or(false));
        }
        let before = (self.settings.replace(settings), self.discovery.replace(directories));
        match plan::plan(self, &jobs, &found, registrations) {
            Ok(wanted) => {
                self.shutdown_sync_timeout.set(shutdown_sync_timeout);
                self.bring_in_line(wanted).await;
                // What came while it was read, and what lies below the new ones.
                self.ask_for_all();
                self.watches_changed();
                Ok(())
            }
            Err(refusal) => {
                self.settings.replace(before.0);
                self.discovery.replace(before.1);
                self.ask_for_all();
                Err(refusal)
            }
        }
    }
}

/// To own a replica was said when the process began, of the pairs that were named then. What has
/// come since adopts nothing.
fn adopts_as_before(known: &Entry, job: &ReplicateJob) -> bool {
    known.replica == job.replica && known.settings.engine.adopt
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use driftless_core::engine::Config;

    use crate::config::Replica;
    use crate::host::databases::Origin;

    #[test]
    fn what_has_come_since_the_start_adopts_nothing() {
        let job = |name: &str, replica: &str, adopt| ReplicateJob {
            database: name.into(),
            replica: Replica::parse(replica).unwrap(),
            settings: Arc::new(Settings {
                engine: Config { adopt, ..Config::default() },
                ..Settings::default()
            }),
            restore_if_missing: false,
        };
        let old = Entry::new(0, job("/old.db", "file:///old", true), Origin::Given);
        let new = Entry::new(1, job("/new.db", "file:///new", false), Origin::Given);
        let adopts = |known, name, replica| adopts_as_before(known, &job(name, replica, true));
        assert!(adopts(&old, "/old.db", "file:///old"));
        // It was not said of this place.
        assert!(!adopts(&old, "/old.db", "file:///elsewhere"));
        assert!(!adopts(&new, "/new.db", "file:///new"));
    }
}
