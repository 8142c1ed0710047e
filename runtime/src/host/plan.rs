//! Which databases there should be, and bringing those that there are in line with it.
//!
//! The configuration wins over registrations: where both name a file or a replica, the
//! registration rests and is said to. All is checked before anything is touched, so that a
//! configuration that is wrong changes nothing. What goes ends before what comes begins, since two
//! databases may have swapped their replicas.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use driftless_core::machine::Exit;
use driftless_core::tiers::Tier;

use super::databases::{Entry, Life, Origin};
use super::registrations::Registration;
use super::rested::Rested;
use super::twins::{Keys, Refusal, Twins};
use super::{Host, ReplicateJob, refused};
use crate::clock;
use crate::config::{Replica, Settings};
use crate::port::place;

/// What is left of an ended database is waited for so much longer than its final sync may take.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// A database that there should be.
pub(super) struct Wanted {
    job: ReplicateJob,
    origin: Origin,
    keys: Keys,
}

/// Databases that there should be, and no two of them the same.
struct Plan {
    wanted: Vec<Wanted>,
    twins: Twins,
}

impl Plan {
    fn take(&mut self, job: ReplicateJob, origin: Origin) -> Result<(), Refusal> {
        let Plan { wanted, twins } = self;
        let keys = twins.keys(&job.database, &job.replica);
        let other = |number: u32| {
            wanted.get(number as usize).map(|it| (it.job.database.clone(), it.job.replica.clone()))
        };
        twins.take(wanted.len() as u32, &keys, (&job.database, &job.replica), other)?;
        wanted.push(Wanted { job, origin, keys });
        Ok(())
    }
}

/// Checks what is given and adds what is registered.
///
/// # Errors
/// When two of those that are given share a file or a replica, when a replica's settings cannot
/// work, and when there is nothing to do for a process that does not stay.
pub(super) fn plan(
    host: &Host,
    given: &[ReplicateJob],
    found: &[ReplicateJob],
    registrations: &[Registration],
) -> Result<Vec<Wanted>, Refusal> {
    let mut plan = Plan { wanted: Vec::new(), twins: host.twins.borrow().sibling() };
    for job in given {
        plan.take(job.clone(), Origin::Given)?;
        place::open(&job.replica, &host.net).map_err(refused)?;
    }
    let mut opened = Vec::<&Replica>::new();
    for job in found {
        // One place for all of a directory: what is wrong with it is wrong with each.
        if !opened.iter().any(|replica| replica.server() == job.replica.server()) {
            place::open(&job.replica, &host.net).map_err(refused)?;
            opened.push(&job.replica);
        }
        if let Err(Refusal { error, hint }) = plan.take(job.clone(), Origin::Found) {
            let database = job.database.display().to_string();
            tracing::error!(database, hint, "this database is not replicated: {error}");
        }
    }
    for registration in registrations {
        let job = match job_of(registration, &host.settings.borrow()) {
            Ok(job) => job,
            // What it says may quote the URL, and that may hold a secret.
            Err(_) => {
                rests(registration, "the URL of its replica cannot be understood");
                continue;
            }
        };
        let same = |given: &&ReplicateJob| given.database == job.database && given.replica == job.replica;
        if given.iter().chain(found).any(|given| same(&given)) {
            continue;
        }
        if let Err(refusal) = plan.take(job, Origin::Registered) {
            rests(registration, &refusal.error);
        }
    }
    let wanted = plan.wanted;
    if wanted.is_empty() && !host.stays && !host.discovery.watches() {
        let hint = "name one on the command line or in the configuration, or enable its socket".into();
        return Err(Refusal { error: "there is no database to replicate".into(), hint });
    }
    Ok(wanted)
}

fn rests(registration: &Registration, error: &str) {
    let database = &registration.database;
    tracing::warn!(database, "the registration of this database is not used: {error}");
}

/// What a registration asks for.
pub(super) fn job_of(registration: &Registration, settings: &Settings) -> Result<ReplicateJob, Refusal> {
    let replica = Replica::parse(&registration.replica)
        .map_err(|error| Refusal { error: error.error, hint: error.hint })?;
    let database = Path::new(&registration.database).to_path_buf();
    // To own a replica is said of those databases that were named with it.
    let mut settings = settings.clone();
    settings.engine.adopt = false;
    Ok(ReplicateJob { database, replica, settings: settings.into(), restore_if_missing: false })
}

impl Host {
    /// Ends what is not wanted any more or has other settings, then begins what is to run.
    pub(super) async fn bring_in_line(self: &Rc<Self>, wanted: Vec<Wanted>) {
        let (mut gone, mut changed) = (Vec::new(), Vec::new());
        let order: Vec<PathBuf> = wanted.iter().map(|wanted| wanted.job.database.clone()).collect();
        let mut new: BTreeMap<PathBuf, Wanted> =
            wanted.into_iter().map(|wanted| (wanted.job.database.clone(), wanted)).collect();
        for (number, entry) in self.databases.borrow_mut().iter_mut() {
            match new.remove(&entry.database) {
                None => gone.push(*number),
                Some(Wanted { job, origin, keys }) => {
                    entry.origin = origin;
                    if job.replica != entry.replica || job.settings != entry.settings {
                        let rests = matches!(entry.life, Life::Stopped(_));
                        changed.push((*number, job, keys, rests));
                    }
                }
            }
        }
        self.finish_all(gone.iter().chain(changed.iter().map(|(number, ..)| number))).await;
        for number in gone {
            if self.is_left(number) {
                self.forget(number);
            }
        }
        for (number, job, keys, rests) in changed {
            if self.is_left(number) {
                self.twins.borrow_mut().put(number, &keys);
                self.replace(number, job, rests);
            }
        }
        let new: Vec<Wanted> = order.iter().filter_map(|database| new.remove(database)).collect();
        let rested = self.rested(new.iter().map(|wanted| &wanted.job)).await;
        for (Wanted { job, origin, keys }, rested) in new.into_iter().zip(rested) {
            self.add(job, origin, &keys, rested);
        }
        self.watches_changed();
    }

    /// Tells databases to finish, and waits until nothing of them is left or they have had their
    /// time.
    async fn finish_all(&self, numbers: impl Iterator<Item = &u32> + Clone) {
        let timeout = self.shutdown_sync_timeout.get();
        let deadline = clock::mono().after(timeout);
        for number in numbers.clone() {
            self.finish(*number, deadline);
        }
        let left = || numbers.clone().all(|number| !self.is_live(*number)).then_some(());
        let waited = async {
            async_io::Timer::after(timeout + GRACE).await;
        };
        futures_lite::future::or(self.changes.until(left), waited).await;
    }

    pub(super) fn is_live(&self, number: u32) -> bool {
        self.look(number, |entry| entry.is_live()).unwrap_or(false)
    }

    /// Whether a database may be forgotten or changed; if not, that is said.
    fn is_left(&self, number: u32) -> bool {
        let live = self.is_live(number);
        if live && let Some(database) = self.look(number, |entry| entry.database.display().to_string()) {
            tracing::error!(database, "a call that hangs keeps the database: it stays as it was");
        }
        !live
    }

    /// Gives a database other settings, and starts it unless it rests.
    fn replace(self: &Rc<Self>, number: u32, job: ReplicateJob, rests: bool) {
        let database = job.database.display().to_string();
        self.change(number, |entry| (entry.replica, entry.settings) = (job.replica, job.settings));
        if rests || self.closing.get() {
            return;
        }
        if let Err(refusal) = self.run(number) {
            tracing::error!(database, hint = refusal.hint, "cannot be started: {}", refusal.error);
        }
    }

    /// Has a database run from now on, as soon as there is a place; one that cannot be started has ended.
    pub(super) fn run(self: &Rc<Self>, number: u32) -> Result<(), Refusal> {
        let replica = self.look(number, |entry| entry.replica.clone());
        let opened =
            replica.map_or(Ok(()), |replica| place::open(&replica, &self.net).map(drop)).map_err(refused);
        match opened.clone() {
            Err(Refusal { error, hint }) => {
                self.change(number, |entry| entry.life = Life::Ended(Exit::Misconfigured { error, hint }));
            }
            Ok(()) => self.run_on(number, None),
        }
        opened
    }

    /// Has a database run whose replica can be opened.
    fn run_on(&self, number: u32, rested: Option<Rested>) {
        self.change(number, Entry::begin);
        let tier = self.tiers(|tiers| {
            match rested {
                Some((fingerprint, _)) => tiers.add_at_rest(clock::mono(), number, fingerprint),
                None => tiers.add(number),
            }
            tiers.tier(number)
        });
        // One that gets an engine all the same finds out by itself how it stands.
        if let Some((_, resting)) = rested.filter(|_| tier == Some(Tier::Cold)) {
            self.change(number, |entry| entry.rests(resting));
        }
        self.watches_changed();
    }

    /// Adds a database whose replica can be opened, and has it run, unless its file or replica is taken.
    /// Says whether it was.
    pub(super) fn add(&self, job: ReplicateJob, origin: Origin, keys: &Keys, rested: Option<Rested>) -> bool {
        let database = job.database.display().to_string();
        if self.closing.get() {
            return false;
        }
        if let Err(refusal) = self.refuse_twin(&job, keys) {
            tracing::error!(database, hint = refusal.hint, "cannot be started: {}", refusal.error);
            return false;
        }
        let number = self.insert(job, origin, keys);
        self.run_on(number, rested);
        true
    }

    /// What a database and its replica are known by now.
    pub(super) fn keys_of(&self, job: &ReplicateJob) -> Keys {
        self.twins.borrow().keys(&job.database, &job.replica)
    }

    /// Whether a file or a replica is taken.
    ///
    /// # Errors
    /// When it is.
    pub(super) fn refuse_twin(&self, job: &ReplicateJob, keys: &Keys) -> Result<(), Refusal> {
        self.twins.borrow().refuse(keys, (&job.database, &job.replica), |number| self.holding(number))
    }

    fn holding(&self, number: u32) -> Option<(PathBuf, Replica)> {
        self.look(number, |entry| (entry.database.clone(), entry.replica.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_registered_adopts_nothing() {
        let registration = Registration { database: "/a.db".into(), replica: "file:///replica".into() };
        let mut settings = Settings::default();
        settings.engine.adopt = true;
        assert!(!job_of(&registration, &settings).unwrap().settings.engine.adopt);
    }
}
