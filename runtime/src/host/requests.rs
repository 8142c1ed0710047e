//! What a person asks of a running process about one of its databases.

use std::borrow::Cow;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use driftless_adapters::pool::unblock;
use driftless_core::engine::{Journal, Phase, Status};
use driftless_core::ids::Txid;
use driftless_core::machine::Exit;

use super::databases::{Entry, Life, Origin};
use super::plan::{GRACE, job_of};
use super::registrations::{self, Registration};
use super::twins::{Refusal, is_same_file};
use super::{Host, name_in_journal, refused};
use crate::cli::error::CliError;
use crate::cli::target::check_pair;
use crate::clock;

/// Why something that was asked for was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// The exit code of whoever asked.
    pub(crate) code: u8,
    pub(crate) error: String,
    pub(crate) hint: String,
}

/// Whose fault it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FailureKind {
    /// What was asked for makes no sense.
    Asked,
    /// There is no such database.
    Unknown,
    /// Not in the state that things are in.
    Conflict,
    /// It was tried, and failed.
    Failed,
    /// Not in the time that was given.
    Late,
    /// The process is ending, or has too much to do.
    Unavailable,
}

impl Failure {
    pub(crate) fn new(
        kind: FailureKind,
        code: u8,
        error: impl Into<String>,
        hint: impl Into<String>,
    ) -> Failure {
        Failure { kind, code, error: error.into(), hint: hint.into() }
    }

    fn unknown(path: &Path) -> Failure {
        let hint = "driftless list names those that are";
        Failure::new(FailureKind::Unknown, 1, format!("database not found: {}", path.display()), hint)
    }

    fn closing() -> Failure {
        Failure::new(FailureKind::Unavailable, 1, "the process is ending", "ask again once it runs")
    }

    fn hangs(path: &Path) -> Failure {
        let error = format!("{} is still being let go", path.display());
        Failure::new(FailureKind::Late, 1, error, "a call that hangs keeps it: see the log")
    }

    fn of_exit(exit: Exit) -> Result<(), Failure> {
        CliError::from_exit(exit).map_err(|error| Failure { kind: FailureKind::Failed, ..error.into() })
    }
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Failure {
        let hint = error.hint.clone().unwrap_or_default();
        Failure::new(FailureKind::Asked, error.code, error.to_string(), hint)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::new(FailureKind::Conflict, 2, refusal.error, refusal.hint)
    }
}

/// A request that changed nothing since things were so already, or one that did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Done,
    Already,
}

/// How far a sync came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Synced {
    /// The transaction that holds, or will hold, what was committed before.
    pub(crate) txid: Option<Txid>,
    /// The last transaction on the replica.
    pub(crate) replicated: Option<Txid>,
    /// Whether anything was there to be replicated.
    pub(crate) changed: bool,
}

impl Host {
    /// The database of a path, whatever its name there.
    pub(crate) fn find(&self, path: &Path) -> Option<u32> {
        let databases = self.databases.borrow();
        if let Some(number) = self.paths.find(self, path) {
            return Some(number);
        }
        let exact = databases.iter().find(|(_, entry)| entry.database == path);
        let same = || databases.iter().find(|(_, entry)| is_same_file(&entry.database, path));
        exact.or_else(same).map(|(number, _)| *number)
    }

    fn known(&self, path: &Path) -> Result<u32, Failure> {
        self.find(path).ok_or_else(|| Failure::unknown(path))
    }

    /// The last transaction of a database on its replica.
    pub(crate) fn replicated(&self, number: u32) -> Option<Txid> {
        self.look(number, Entry::replicated).flatten()
    }

    /// Adds a database for good, and starts it.
    pub(crate) async fn register(self: &Rc<Self>, path: &Path, replica: &str) -> Result<Effect, Failure> {
        let Some(database) = path.to_str().map(str::to_owned) else {
            let error = format!("the path {} is not valid utf-8", path.display());
            return Err(Failure::new(FailureKind::Asked, 2, error, "name the database in the configuration"));
        };
        let registration = Registration { database, replica: replica.to_owned() };
        let mut registered = self.registrations.lock().await;
        if self.closing.get() {
            return Err(Failure::closing());
        }
        let job = job_of(&registration, &self.settings.borrow())
            .map_err(|refusal| Failure { kind: FailureKind::Asked, ..refusal.into() })?;
        if let Some(number) = self.find(path) {
            let place = self.look(number, |entry| entry.replica.clone());
            if place.as_ref() == Some(&job.replica) {
                return self.registered_again(number, path);
            }
            let other = place.map_or(String::new(), |replica| replica.url());
            let error = format!("{} is replicated already, to {other}", path.display());
            let hint = format!("driftless unregister {} first, to move it to another place", path.display());
            return Err(Failure::new(FailureKind::Conflict, 1, error, hint));
        }
        check_pair(&job.database, &job.replica)?;
        let keys = self.keys_of(&job);
        self.refuse_twin(&job, &keys)?;
        crate::port::place::open(&job.replica, &self.net).map_err(refused)?;
        let mut list = registered.clone();
        // One that rests behind the configuration's stands there already.
        list.retain(|known| known.database != registration.database);
        list.push(registration);
        self.save(&list).await?;
        *registered = list;
        if self.closing.get() {
            return Err(Failure::closing());
        }
        let number = self.insert(job, Origin::Registered, &keys);
        self.run(number)?;
        Ok(Effect::Done)
    }

    /// What becomes of a database that is registered a second time. One that has ended by itself is
    /// started again; one that a person has stopped is not.
    fn registered_again(self: &Rc<Self>, number: u32, path: &Path) -> Result<Effect, Failure> {
        let rests = |why: &str| {
            let error = format!("{} is registered, and {why}", path.display());
            let hint = format!("driftless start {}", path.display());
            Err(Failure::new(FailureKind::Conflict, 1, error, hint))
        };
        match self.look(number, |entry| entry.life.clone()) {
            None => Err(Failure::unknown(path)),
            Some(Life::Running | Life::Resetting { again: true, .. }) => Ok(Effect::Already),
            Some(Life::Ended(_)) => self.begin_again(number, path).map(|()| Effect::Done),
            Some(Life::Stopped(_)) => rests("was stopped"),
            Some(Life::Stopping | Life::Leaving { .. } | Life::Resetting { .. }) => rests("is stopping"),
        }
    }

    async fn save(&self, list: &[Registration]) -> Result<(), Failure> {
        let (directory, list) = (self.directory.clone(), list.to_vec());
        let saved = unblock(move || registrations::save(&directory, &list)).await;
        saved.map_err(|error| {
            let error = format!("cannot write down what is registered: {error}");
            Failure::new(FailureKind::Failed, 1, error, "see that the state directory can be written")
        })
    }

    /// Makes a last sync of a database and forgets it. What its last sync failed with is told, and
    /// it is forgotten all the same.
    pub(crate) async fn unregister(
        &self,
        path: &Path,
        timeout: Duration,
    ) -> Result<(Effect, Option<Txid>), Failure> {
        let found = self.find(path);
        if let Some(number) = found {
            self.finish_in(number, path, timeout).await?;
        }
        let mut registered = self.registrations.lock().await;
        let name = found.and_then(|number| self.look(number, |entry| entry.database.clone()));
        let name = name.unwrap_or_else(|| path.to_path_buf());
        let mut list = registered.clone();
        list.retain(|known| Path::new(&known.database) != name);
        if list.len() != registered.len() {
            self.save(&list).await?;
            *registered = list;
        } else if found.is_none() {
            return Ok((Effect::Already, None));
        }
        let Some(number) = found else { return Ok((Effect::Done, None)) };
        if self.is_live(number) {
            let error = format!("{} was started again meanwhile", path.display());
            return Err(Failure::new(FailureKind::Conflict, 1, error, "unregister it once more"));
        }
        let replicated = self.replicated(number);
        if let Some(entry) = self.forget(number) {
            if entry.origin == Origin::Found {
                self.discovery.leave(&entry.database);
            }
            if entry.origin != Origin::Registered {
                let database = entry.database.display();
                tracing::warn!(%database, "forgotten until the configuration is read again, which names it");
            }
            if let Life::Stopped(exit) = entry.life {
                Failure::of_exit(exit)?;
            }
        }
        Ok((Effect::Done, replicated))
    }

    /// Starts a database that was stopped, or has ended.
    pub(crate) async fn start(self: &Rc<Self>, path: &Path, timeout: Duration) -> Result<Effect, Failure> {
        let number = self.known(path)?;
        if self.look(number, |entry| entry.life == Life::Running) == Some(true) {
            return Ok(Effect::Already);
        }
        self.left(number, path, timeout).await?;
        self.begin_again(number, path)?;
        Ok(Effect::Done)
    }

    fn begin_again(self: &Rc<Self>, number: u32, path: &Path) -> Result<(), Failure> {
        match self.look(number, |entry| entry.is_live()) {
            None => Err(Failure::unknown(path)),
            _ if self.closing.get() => Err(Failure::closing()),
            // Another request was faster.
            Some(true) => Ok(()),
            Some(false) => Ok(self.run(number)?),
        }
    }

    /// Makes a last sync of a database and lets it go until it is started again.
    pub(crate) async fn stop(&self, path: &Path, timeout: Duration) -> Result<Effect, Failure> {
        let number = self.known(path)?;
        let live = self.is_live(number);
        self.finish_in(number, path, timeout).await?;
        let exit = self.change(number, |entry| {
            // One that has ended by itself rests from now on as well.
            let exit = entry.exit().cloned()?;
            entry.life = Life::Stopped(exit.clone());
            Some(exit)
        });
        match (live, exit) {
            (false, _) => Ok(Effect::Already),
            (true, None) => Err(Failure::unknown(path)),
            (true, Some(exit)) => Failure::of_exit(exit).map(|()| Effect::Done),
        }
    }

    /// Tells a database to finish in so much time, and waits until nothing of it is left.
    async fn finish_in(&self, number: u32, path: &Path, timeout: Duration) -> Result<(), Failure> {
        self.finish(number, clock::mono().after(timeout));
        self.left(number, path, timeout + GRACE).await
    }

    async fn left(&self, number: u32, path: &Path, timeout: Duration) -> Result<(), Failure> {
        let left = self.changes.until(|| (!self.is_live(number)).then_some(()));
        within(timeout, left).await.ok_or_else(|| Failure::hangs(path))
    }

    /// Forgets what is known of a database's replica, so that a whole base is written next, and
    /// starts it again if it ran.
    pub(crate) async fn reset(self: &Rc<Self>, path: &Path, timeout: Duration) -> Result<Effect, Failure> {
        let number = self.known(path)?;
        let rests = self.look(number, |entry| matches!(entry.life, Life::Stopped(_))) == Some(true);
        self.finish_in(number, path, timeout).await?;
        let name = self.begin_reset(number, path, !rests)?;
        let journal = self.journal.clone();
        let reset = unblock(move || {
            let mut journal = journal.lock().expect("no holder panics");
            let number = journal.number(&name)?;
            let left = Journal::reset(&journal.load_records(number)?);
            let effect = if left.is_empty() { Effect::Already } else { Effect::Done };
            journal.rewrite(number, &left).map(|()| effect)
        });
        let effect = reset.await.map_err(|error| {
            let error = format!("the local state cannot be written: {error}");
            Failure::new(FailureKind::Failed, 1, error, "see that the state directory can be written")
        });
        if self.end_reset(number) {
            self.begin_again(number, path)?;
        }
        effect
    }

    /// Keeps everyone from a database whose records are to be written anew. Returns their name.
    fn begin_reset(&self, number: u32, path: &Path, again: bool) -> Result<String, Failure> {
        let name = self.look(number, |entry| name_in_journal(&entry.database, &entry.replica));
        let begun = self.change(number, |entry| {
            let (Life::Stopped(exit) | Life::Ended(exit)) = &entry.life else { return false };
            entry.life = Life::Resetting { exit: exit.clone(), again };
            true
        });
        match name {
            None => Err(Failure::unknown(path)),
            Some(name) if begun => Ok(name),
            Some(_) => {
                let error = format!("{} was started again, or is being reset, meanwhile", path.display());
                Err(Failure::new(FailureKind::Conflict, 1, error, "reset it once more"))
            }
        }
    }

    /// Lets it go on. Returns whether it is to run: nobody has told it to finish meanwhile.
    fn end_reset(&self, number: u32) -> bool {
        // It was kept in view.
        self.watches_changed();
        self.change(number, |entry| {
            let Life::Resetting { exit, again } = &entry.life else {
                unreachable!("nothing but a reset ends itself, and it is {:?}", entry.life)
            };
            let again = *again;
            entry.life = Life::Stopped(exit.clone());
            again
        })
    }

    /// Has what is committed replicated now. With `wait`, the answer comes when all that was
    /// committed before the question is on the replica.
    pub(crate) async fn sync(&self, path: &Path, wait: bool, timeout: Duration) -> Result<Synced, Failure> {
        let number = self.known(path)?;
        let asked = clock::mono();
        let before = self.replicated(number);
        self.sync_now(number);
        let reached = |status: &Status| match wait {
            true => status.synced_until >= Some(asked),
            false => status.captured_until >= Some(asked),
        };
        let ended = self.changes.until(|| self.look_at_sync(number, path, &reached).transpose());
        let limit = if wait { timeout } else { timeout.min(Duration::from_secs(5)) };
        let status = match within(limit, ended).await {
            Some(status) => status?,
            None if wait => return Err(self.not_synced(number, path, timeout)),
            None => self.status_of(number),
        };
        let replicated = status.as_ref().and_then(|status| status.replicated);
        let under_way = status
            .as_ref()
            .map_or(0, |status| u64::from(status.uploading) + u64::from(status.pages_waiting > 0));
        let txid = Txid::new(replicated.map_or(0, Txid::get) + under_way);
        Ok(Synced { txid, replicated, changed: under_way > 0 || replicated != before })
    }

    /// The status once it shows what is waited for; an error if it never will.
    fn look_at_sync(
        &self,
        number: u32,
        path: &Path,
        reached: &impl Fn(&Status) -> bool,
    ) -> Result<Option<Option<Status>>, Failure> {
        let looked = self.look(number, |entry| match (&entry.life, entry.status()) {
            (Life::Running | Life::Stopping, Some(status)) if reached(&status) => {
                Ok(Some(Some(status.into_owned())))
            }
            (Life::Running | Life::Stopping, _) => Ok(None),
            _ => Err(not_running(entry)),
        });
        looked.unwrap_or_else(|| Err(Failure::unknown(path)))
    }

    fn status_of(&self, number: u32) -> Option<Status> {
        self.look(number, |entry| entry.status().map(Cow::into_owned)).flatten()
    }

    fn not_synced(&self, number: u32, path: &Path, timeout: Duration) -> Failure {
        let status = self.status_of(number);
        let seconds = timeout.as_secs();
        let (why, hint) = match status {
            Some(Status { waiting: Some(waiting), .. }) => (waiting.why, waiting.hint),
            Some(Status { last_error: Some(error), .. }) => (error, "it is tried on and on".into()),
            Some(Status { phase: Phase::Base, .. }) => {
                ("the whole database is being written".into(), "give it more time with -timeout".into())
            }
            _ => ("it is not done yet".into(), "give it more time with -timeout".into()),
        };
        let error = format!("{} is not on its replica after {seconds} s: {why}", path.display());
        Failure::new(FailureKind::Late, 1, error, hint)
    }
}

fn not_running(entry: &Entry) -> Failure {
    let database = entry.database.display();
    let why = match entry.exit().cloned().map(CliError::from_exit) {
        Some(Err(error)) => format!(": {error}"),
        _ => String::new(),
    };
    let error = format!("{database} is not being replicated{why}");
    Failure::new(FailureKind::Conflict, 1, error, format!("driftless start {database}"))
}

/// What comes of a future in this time.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let late = async {
        async_io::Timer::after(limit).await;
        None
    };
    futures_lite::future::or(async { Some(future.await) }, late).await
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use driftless_adapters::object::Net;
    use smol::LocalExecutor;

    use super::*;
    use crate::config::Replica;
    use crate::host::{ReplicateJob, ReplicateOptions};

    #[test]
    fn nothing_starts_while_records_are_written_anew() {
        let directory = std::env::temp_dir().join(format!("driftless-reset-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let executor = Rc::new(LocalExecutor::new());
        let net = Net::new(Arc::new(smol::Executor::new()));
        let place = directory.clone();
        smol::block_on(executor.clone().run(async move {
            let options = ReplicateOptions::default();
            let (host, _watching, _places) =
                Host::new(executor.clone(), net, place.clone(), options, None).await.unwrap();
            let database = place.join("a.db");
            let replica = Replica::parse(&format!("file://{}", place.join("r").display())).unwrap();
            let job = ReplicateJob {
                database: database.clone(),
                replica,
                settings: Arc::default(),
                restore_if_missing: false,
            };
            let keys = host.keys_of(&job);
            let number = host.insert(job, Origin::Given, &keys);
            // A disk that does not answer yet.
            let (journal, (held, is_held), (release, released)) =
                (host.journal.clone(), mpsc::channel(), mpsc::channel::<()>());
            let disk = std::thread::spawn(move || {
                let _journal = journal.lock().unwrap();
                held.send(()).unwrap();
                let _ = released.recv();
            });
            is_held.recv().unwrap();
            let (resetting, path) = (host.clone(), database.clone());
            let reset = executor.spawn(async move { resetting.reset(&path, Duration::from_secs(30)).await });
            let begun = host.changes.until(|| host.is_live(number).then_some(()));
            assert!(within(Duration::from_secs(30), begun).await.is_some(), "nothing keeps others away");
            let early = host.start(&database, Duration::from_millis(50)).await;
            assert_eq!(early.map_err(|failure| failure.kind), Err(FailureKind::Late));
            drop(release);
            assert_eq!(reset.await, Ok(Effect::Already));
            assert_eq!(host.look(number, |entry| entry.life.clone()), Some(Life::Stopped(Exit::Done)));
            disk.join().unwrap();
        }));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
