//! The process: its databases, their watches, its control socket.
//!
//! Databases come and go while it runs ([`databases`]). Whatever names one (the command line, the
//! configuration, the control socket, a configuration that is read again) goes through
//! `Host::add`, which refuses a file or a replica that is taken ([`twins`]), and ends it by
//! telling its engine to finish and waiting until nothing of it is left ([`running`]).

mod changes;
pub(crate) mod databases;
mod restoring;
mod running;
pub(crate) mod twins;
mod watching;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driftless_adapters::fs::RealFs;
use driftless_adapters::keys::ReplicaLayout;
use driftless_adapters::object::Net;
use driftless_adapters::pool::unblock;
use driftless_adapters::store::{Store, StoreError};
use driftless_core::engine::Config;
use driftless_core::ids::Mono;
use driftless_core::machine::{Event, Exit, Machine, Notice};
use smol::LocalExecutor;
use smol::channel::Sender;

use crate::clock;
use crate::config::Replica;
use crate::control;
use crate::driver::{Driver, Ports};
use crate::port::output::{Check, OutputPort};
use crate::port::place;
use crate::port::state::StateJournal;
use crate::port::store::StorePort;
use crate::service::signals::Signals;
use crate::service::{Ended, Service};

use self::changes::Changes;
use self::databases::{Entry, Life, Origin};
use self::twins::{Refusal, Twins};

/// One database and where it is replicated.
#[derive(Clone, Debug)]
pub struct ReplicateJob {
    /// The database file, which need not exist yet.
    pub database: PathBuf,
    /// Where it is replicated.
    pub replica: Replica,
    /// Settings of the engine.
    pub engine: Config,
    /// Whether to restore the database before it is followed, if it is not there.
    pub restore_if_missing: bool,
}

/// Settings of the process.
#[derive(Clone, Debug)]
pub struct ReplicateOptions {
    /// Where local state is kept; beside the first database by default.
    pub state_dir: Option<PathBuf>,
    /// How long the final sync may take.
    pub shutdown_sync_timeout: Duration,
    /// The words of a command to run beside the replication, which ends with it.
    pub exec: Option<Vec<String>>,
}

impl Default for ReplicateOptions {
    fn default() -> ReplicateOptions {
        ReplicateOptions { state_dir: None, shutdown_sync_timeout: Duration::from_secs(30), exec: None }
    }
}

/// The process as its tasks see it.
pub(crate) struct Host {
    executor: Rc<LocalExecutor<'static>>,
    net: Net,
    journal: Arc<Mutex<StateJournal<RealFs>>>,
    databases: RefCell<BTreeMap<u32, Entry>>,
    next_number: Cell<u32>,
    pub(crate) changes: Changes,
    /// Says that other databases run now.
    watches: Sender<()>,
    /// Says that a database wants events again.
    events_wanted: Sender<()>,
    /// The process is ending: nothing new begins.
    closing: Cell<bool>,
    shutdown_sync_timeout: Cell<Duration>,
}

/// The state directory that a database has unless told otherwise.
pub fn default_state_dir(database: &Path) -> PathBuf {
    let name = database.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    database.with_file_name(format!(".{name}-driftless"))
}

/// Replicates until every database has ended: by a signal, by `-once`, with the application, or by
/// an error that needs a person.
pub fn replicate(jobs: Vec<ReplicateJob>, options: ReplicateOptions) -> Ended {
    tune_allocator();
    block_on(|executor, net| run_all(jobs, options, executor, net))
}

/// Runs a future with the process's executors: its own tasks, which stay on this thread, and the
/// connections of its object stores.
fn block_on<'a, F: Future>(future: impl FnOnce(Rc<LocalExecutor<'a>>, Net) -> F) -> F::Output {
    let executor = Rc::new(LocalExecutor::new());
    let net = Net::new(Arc::new(smol::Executor::new()));
    let connections = Arc::clone(net.executor());
    smol::block_on(connections.run(executor.run(future(Rc::clone(&executor), net))))
}

async fn run_all(
    jobs: Vec<ReplicateJob>,
    options: ReplicateOptions,
    executor: Rc<LocalExecutor<'static>>,
    net: Net,
) -> Ended {
    // Before anything is said to have begun: a signal that comes first would end the process.
    let signals = match Signals::take(options.exec.is_some()) {
        Ok(signals) => signals,
        Err(error) => {
            let error = format!("signals cannot be received: {error}");
            return Ended::alone(misconfigured(&error, "see ulimit -n"));
        }
    };
    let Some(first) = jobs.first() else {
        return Ended::alone(misconfigured(
            "there is no database to replicate",
            "name one on the command line or in the configuration",
        ));
    };
    let directory = options.state_dir.clone().unwrap_or_else(|| default_state_dir(&first.database));
    let (lock, journal) = match open_state(&directory).await {
        Ok(opened) => opened,
        Err(exit) => return Ended::alone(exit),
    };
    let (watches, databases_changed) = smol::channel::bounded(1);
    let (events_wanted, wanted) = smol::channel::bounded(1);
    let host = Rc::new(Host {
        executor: executor.clone(),
        net,
        journal,
        databases: RefCell::default(),
        next_number: Cell::new(0),
        changes: Changes::default(),
        watches,
        events_wanted,
        closing: Cell::new(false),
        shutdown_sync_timeout: Cell::new(options.shutdown_sync_timeout),
    });
    if let Err(refusal) = host.begin(jobs) {
        return Ended::alone(misconfigured(&refusal.error, &refusal.hint));
    }
    let helpers = [
        executor.spawn(watching::watch(host.clone(), databases_changed, wanted)),
        executor.spawn(control::serve(host.clone(), directory)),
    ];
    let ended = Service::new(options.exec, signals, host).run().await;
    drop(helpers);
    drop(lock);
    ended
}

/// Takes the state directory and opens what is in it.
async fn open_state(
    directory: &Path,
) -> Result<(control::StateLock, Arc<Mutex<StateJournal<RealFs>>>), Exit> {
    let lock = control::StateLock::take(directory)?;
    let directory = directory.to_path_buf();
    match unblock(move || StateJournal::open(RealFs, directory)).await {
        Ok(journal) => Ok((lock, Arc::new(Mutex::new(journal)))),
        Err(error) => {
            Err(misconfigured(&error.to_string(), "give a directory that can be written with -state-dir"))
        }
    }
}

fn misconfigured(error: &str, hint: &str) -> Exit {
    Exit::Misconfigured { error: error.into(), hint: hint.into() }
}

impl Host {
    /// Adds and starts the first databases, all or none.
    fn begin(self: &Rc<Self>, jobs: Vec<ReplicateJob>) -> Result<(), Refusal> {
        let mut twins = Twins::default();
        for job in &jobs {
            twins.take(&job.database, &job.replica)?;
            place::open(&job.replica, &self.net).map_err(refused)?;
        }
        for job in jobs {
            let number = self.insert(job, Origin::Given);
            running::start(self, number).map_err(refused)?;
        }
        Ok(())
    }

    fn insert(&self, job: ReplicateJob, origin: Origin) -> u32 {
        let number = self.next_number.replace(self.next_number.get() + 1);
        let entry = Entry::new(job, origin);
        self.databases.borrow_mut().insert(number, entry);
        number
    }

    /// Changes a database and tells whoever waits; the default if it has been forgotten.
    fn change<T: Default>(&self, number: u32, change: impl FnOnce(&mut Entry) -> T) -> T {
        let changed = self.databases.borrow_mut().get_mut(&number).map(change).unwrap_or_default();
        self.changes.tell();
        changed
    }

    /// Looks at a database; `None` if it has been forgotten.
    pub(crate) fn look<T>(&self, number: u32, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.databases.borrow().get(&number).map(look)
    }

    /// Looks at all databases, in the order in which they were added.
    pub(crate) fn for_each(&self, look: impl FnMut(&Entry)) {
        self.databases.borrow().values().for_each(look);
    }

    /// The databases whose engines may still act.
    fn live_databases(&self) -> Vec<PathBuf> {
        let databases = self.databases.borrow();
        databases.values().filter(|entry| entry.is_live()).map(|entry| entry.database.clone()).collect()
    }

    fn wants_events(&self) -> bool {
        self.databases.borrow().values().any(|entry| entry.wants_events)
    }

    /// Says so to the watcher. A full channel says it already.
    fn events_are_wanted(&self) {
        let _ = self.events_wanted.try_send(());
    }

    /// Tells the watcher that other databases run. A full channel says it already.
    fn watches_changed(&self) {
        let _ = self.watches.try_send(());
    }

    fn name_in_journal(&self, entry: &Entry) -> String {
        format!("{}\n{}", entry.database.display(), entry.replica.place())
    }

    /// Tells a database that runs to finish; one that was told already is left to it.
    fn finish(&self, number: u32, deadline: Mono) {
        self.change(number, |entry| {
            if entry.life == Life::Running {
                entry.life = Life::Stopping;
                entry.send(Event::Shutdown { deadline });
            }
        });
    }

    /// Ends the process: the first call has each database finish, any other has it stop at once.
    pub(crate) fn close(&self) {
        let deadline = clock::mono().after(self.shutdown_sync_timeout.get());
        if self.closing.replace(true) {
            self.for_each(|entry| entry.send(Event::Shutdown { deadline }));
        } else {
            let numbers: Vec<u32> = self.databases.borrow().keys().copied().collect();
            numbers.into_iter().for_each(|number| self.finish(number, deadline));
        }
        self.changes.tell();
    }

    /// The worst end, once all databases have come to theirs.
    pub(crate) fn ended(&self) -> Option<Exit> {
        let databases = self.databases.borrow();
        let over = |entry: &Entry| match entry.life {
            Life::Ended(_) | Life::Leaving { asked: false, .. } => true,
            Life::Stopped(_) | Life::Leaving { asked: true, .. } => self.closing.get(),
            Life::Running | Life::Stopping => false,
        };
        if !databases.values().all(over) {
            return None;
        }
        let exits = databases.values().filter_map(Entry::exit);
        Some(exits.max_by_key(|exit| exit.code()).cloned().unwrap_or(Exit::Done))
    }
}

fn refused(error: StoreError) -> Refusal {
    Refusal { hint: error.hint.clone().unwrap_or_default(), error: error.to_string() }
}

/// Runs a machine that needs no source to its end, on a replica.
///
/// `output` is where a restore puts its file, and `check` what is asked of that file before it
/// takes the target's place.
///
/// # Errors
/// `Misconfigured` where the replica's settings cannot work.
pub fn run_machine<M: Machine>(
    machine: M,
    replica: &Replica,
    output: Option<PathBuf>,
    check: Option<Check>,
    on_notice: &mut dyn FnMut(&Notice),
) -> Result<(Exit, M::Status), StoreError> {
    tune_allocator();
    block_on(async |executor, net| {
        let (store, layout) = place::open(replica, &net)?;
        let ports = Ports {
            store: Some(Arc::new(StorePort::new(store, layout))),
            output: output.map(|target| Arc::new(Mutex::new(OutputPort::new(RealFs, target, check)))),
            ..Ports::default()
        };
        let mut driver = Driver::new(machine, ports, executor);
        let exit = driver
            .run(|_, notice| {
                if let Some(notice) = notice {
                    on_notice(notice);
                }
            })
            .await;
        Ok((exit, driver.machine.status()))
    })
}

/// Uses the store of a replica without a machine, as commands that only look do.
///
/// # Errors
/// `Misconfigured` where the replica's settings cannot work, and what `work` fails with.
pub fn with_store<T>(
    replica: &Replica,
    work: impl AsyncFnOnce(&dyn Store, ReplicaLayout) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    block_on(async |_, net| {
        let (store, layout) = place::open(replica, &net)?;
        work(&*store, layout).await
    })
}

/// Asks the process that replicates out of `state_dir` how its databases are; `None` if there is
/// none.
///
/// # Errors
/// When it does not answer.
pub fn query_status(state_dir: &Path) -> std::io::Result<Option<serde_json::Value>> {
    control::query(state_dir)
}

/// Gives memory back to the system instead of keeping an arena for each thread.
fn tune_allocator() {
    crate::memory::keep_small();
}
