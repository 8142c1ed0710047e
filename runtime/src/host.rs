//! The process: its databases, their watches, its control socket.
//!
//! Databases come and go while it runs (`databases`). Whatever names one (the command line, the
//! configuration, the control socket, a configuration that is read again) goes through
//! `Host::add`, which refuses a file or a replica that is taken (`twins`), and ends it by
//! telling its engine to finish and waiting until nothing of it is left (`running`).

mod alone;
mod contending;
mod copies;
pub(crate) mod databases;
pub(crate) mod discovering;
mod ending;
mod following;
pub(crate) mod lease;
mod paths;
mod places;
mod plan;
mod prefixes;
mod probes;
mod registrations;
mod reload;
pub(crate) mod requests;
mod rested;
mod restoring;
mod running;
pub(crate) mod twins;
mod watching;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driftless_adapters::fs::RealFs;
use driftless_adapters::object::Net;
use driftless_adapters::pool::unblock;
use driftless_adapters::store::StoreError;
use driftless_core::ids::{Mono, Now};
use driftless_core::machine::{Event, Exit};
use driftless_core::tiers::{Limits, Tiers};
use smol::LocalExecutor;
use smol::channel::{Receiver, Sender};

use crate::clock;
use crate::config::{Replica, Settings};
use crate::control;
use crate::discover::{self, Directory};
use crate::metrics::requests::Requests;
use crate::metrics::server::{self, Endpoint};
use crate::metrics::tally::Tally;
use crate::port::grant::Shares;
use crate::port::state::StateJournal;
use crate::service::heartbeat::{self, Heartbeat};
use crate::service::notify::{self, Notifier};
use crate::service::signals::Signals;
use crate::service::{Ended, Service};

pub use self::alone::{read_lease, run_machine, with_store};
use self::databases::{Entry, Life, Origin};
use self::discovering::Discovery;
pub use self::following::run_follower;
pub use self::lease::LeaseOptions;
use self::lease::LeaseSide;
use self::paths::Paths;
pub use self::prefixes::replicated_in;
use self::probes::Probes;
use self::registrations::Registration;
use self::reload::Reloads;
pub use self::reload::{Reread, Rereader};
use self::twins::{Keys, Refusal, Twins};
use crate::changes::Changes;
pub use crate::control::SocketPlace;

/// One database and where it is replicated.
#[derive(Clone, Debug)]
pub struct ReplicateJob {
    /// The database file, which need not exist yet.
    pub database: PathBuf,
    /// Where it is replicated.
    pub replica: Replica,
    /// How it is replicated.
    pub settings: Arc<Settings>,
    /// Whether to restore the database before it is followed, if it is not there.
    pub restore_if_missing: bool,
}

/// Settings of the process.
pub struct ReplicateOptions {
    /// Where local state is kept; beside the first database by default.
    pub state_dir: Option<PathBuf>,
    /// How long the final sync may take.
    pub shutdown_sync_timeout: Duration,
    /// A control socket besides the one in the state directory. With it the process stays when it
    /// has no database, or none that goes on.
    pub socket: Option<SocketPlace>,
    /// Settings of databases that are registered while the process runs.
    pub settings: Settings,
    /// Directories of databases.
    pub directories: Vec<Directory>,
    /// Reads the configuration again, if there is one.
    pub reread: Option<Rereader>,
    /// The words of a command to run beside the replication, which ends with it.
    pub exec: Option<Vec<String>>,
    /// A service manager that wants to know of the process.
    pub notifier: Option<Rc<Notifier>>,
    /// Where a heartbeat goes, if anywhere.
    pub heartbeat: Option<Heartbeat>,
    /// Where metrics are served, as `host:port`, if anywhere; the host may be left out.
    pub addr: Option<String>,
    /// What the databases may have together.
    pub limits: Limits,
    /// How the process contends for the right to write, if others may have it.
    pub lease: Option<LeaseOptions>,
}

impl Default for ReplicateOptions {
    fn default() -> ReplicateOptions {
        ReplicateOptions {
            state_dir: None,
            shutdown_sync_timeout: Duration::from_secs(30),
            socket: None,
            settings: Settings::default(),
            directories: Vec::new(),
            reread: None,
            exec: None,
            notifier: None,
            heartbeat: None,
            addr: None,
            limits: Limits::default(),
            lease: None,
        }
    }
}

/// What the process has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// Every database has been started, and the control sockets are there.
    Ready,
    /// The configuration is being read again.
    Reloading,
    /// That is done, or nothing was changed.
    Reloaded,
    /// It was told to end.
    Stopping,
}

/// Where local state is kept when neither the options nor a database says it.
pub const HOMELESS_STATE_DIR: &str = "/var/lib/driftless";

/// How long the end of the process waits for answers that are under way.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The process as its tasks see it.
pub(crate) struct Host {
    executor: Rc<LocalExecutor<'static>>,
    net: Net,
    journal: Arc<Mutex<StateJournal<RealFs>>>,
    databases: RefCell<BTreeMap<u32, Box<Entry>>>,
    /// Which of those that run have an engine.
    tiers: RefCell<Tiers>,
    /// Says that this may have changed.
    places_told: Sender<()>,
    /// Databases without an engine that are to finish, by when.
    give_ups: RefCell<BTreeSet<(Mono, u32)>>,
    /// When free memory goes back to the system.
    give_back_at: Cell<Option<Mono>>,
    next_number: Cell<u32>,
    paths: Paths,
    twins: RefCell<Twins>,
    pub(crate) discovery: Discovery,
    /// A directory is to be looked at.
    discoveries: Changes,
    probes: Probes,
    /// Anything that a request may wait for.
    pub(crate) changes: Changes,
    /// A database has come into another state of its life, or has been forgotten.
    pub(crate) lives: Changes,
    /// Says that other databases run now.
    watches: Sender<()>,
    /// Says that a database wants events again.
    events_wanted: Sender<()>,
    /// Requests that are being answered.
    pub(crate) answering: Cell<usize>,
    /// The process is ending: nothing new begins.
    closing: Cell<bool>,
    /// It does not end by itself.
    stays: bool,
    shutdown_sync_timeout: Cell<Duration>,
    /// The state directory.
    pub(crate) directory: PathBuf,
    /// What is registered; held by whoever changes the set of databases.
    registrations: smol::lock::Mutex<Vec<Registration>>,
    /// Settings of databases that are registered.
    settings: RefCell<Settings>,
    reread: Option<Rereader>,
    pub(crate) reloads: RefCell<Reloads>,
    notifier: Option<Rc<Notifier>>,
    /// What was counted of requests to stores.
    pub(crate) requests: Requests,
    /// What its machines have together.
    shares: Shares,
    /// When it started.
    pub(crate) started: Now,
    /// The right to write, if others may have it.
    pub(crate) lease: Option<Rc<LeaseSide>>,
}

/// Compactions under way at once, of some 20 MiB each.
const COMPACTIONS_MAX: usize = 2;
/// Validations under way at once, beside those, of some 10 MiB each.
const VALIDATIONS_MAX: usize = 1;

/// The name of a database's records.
fn name_in_journal(database: &Path, replica: &Replica) -> String {
    format!("{}\n{}", database.display(), replica.place())
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
    let signals = match Signals::take(options.exec.is_some(), options.reread.is_some()) {
        Ok(signals) => signals,
        Err(error) => {
            let error = format!("signals cannot be received: {error}");
            return Ended::alone(misconfigured(&error, "see ulimit -n"));
        }
    };
    match begin(jobs, options, executor, net).await {
        Ok(begun) => {
            let Begun { host, command, helpers, sockets, lock } = begun;
            let ended = Service::new(command, signals, host.clone()).run().await;
            lease::release(&host, &ended.databases).await;
            // Whoever has asked for this end hears of it.
            let answered = host.changes.until(|| (host.answering.get() == 0).then_some(()));
            let _ = requests::within(LAST_ANSWERS, answered).await;
            drop(helpers);
            sockets.iter().for_each(|socket| socket.remove());
            drop(lock);
            ended
        }
        Err(exit) => Ended::alone(exit),
    }
}

/// A process whose databases run.
struct Begun {
    host: Rc<Host>,
    command: Option<Vec<String>>,
    helpers: Vec<smol::Task<()>>,
    sockets: Vec<Rc<control::Socket>>,
    lock: control::StateLock,
}

async fn begin(
    jobs: Vec<ReplicateJob>,
    mut options: ReplicateOptions,
    executor: Rc<LocalExecutor<'static>>,
    net: Net,
) -> Result<Begun, Exit> {
    let refuse = |refusal: Refusal| misconfigured(&refusal.error, &refusal.hint);
    let directories = std::mem::take(&mut options.directories);
    let beside = jobs.first().map(|first| default_state_dir(&first.database));
    let inside = directories.first().map(|first| discover::default_state_dir(&first.root));
    let directory = options.state_dir.clone().or(beside).or(inside);
    let directory = directory.unwrap_or_else(|| PathBuf::from(HOMELESS_STATE_DIR));
    make_roots(&directories)?;
    let lock = control::StateLock::take(&directory)?;
    let (socket, command) = (options.socket.clone(), options.exec.take());
    let heartbeat = options.heartbeat.take();
    let endpoint = options.addr.as_deref().map(Endpoint::bind).transpose().map_err(refuse)?;
    let lease = options.lease.take();
    let contends = |options| LeaseSide::open(options, command.is_some(), &directory, (&executor, &net));
    let (lease, contender) = lease.map(contends).transpose()?.unzip();
    let (host, watching, places) = Host::new(executor.clone(), net, directory, options, lease)
        .await
        .map_err(|error| misconfigured(&error, "give a directory that can be written with -state-dir"))?;
    let sockets = control::open(&host.directory, socket.as_ref()).map_err(refuse)?;
    let mut helpers = Vec::new();
    if let Some(contender) = contender {
        helpers.push(executor.spawn(lease::serve(host.clone(), contender)));
        helpers.push(executor.spawn(contending::contend(host.clone(), jobs, directories)));
    } else if let Err(refusal) = host.begin(jobs, directories).await {
        sockets.iter().for_each(|socket| socket.remove());
        return Err(refuse(refusal));
    }
    helpers.push(executor.spawn(watching::watch(host.clone(), watching)));
    helpers.push(executor.spawn(places::serve(host.clone(), places)));
    helpers.push(executor.spawn(discovering::discover(host.clone())));
    helpers.extend(sockets.iter().map(|socket| executor.spawn(control::serve(host.clone(), socket.clone()))));
    if let Some(notifier) = &host.notifier {
        helpers.push(executor.spawn(notify::serve(host.clone(), notifier.clone())));
        helpers.push(executor.spawn(notify::feed(notifier.clone())));
    }
    if let Some(endpoint) = endpoint {
        helpers.push(executor.spawn(server::serve(host.clone(), endpoint)));
    }
    if let Some(heartbeat) = heartbeat {
        helpers.push(executor.spawn(heartbeat::beat(host.clone(), heartbeat)));
    }
    host.tell(Moment::Ready);
    Ok(Begun { host, command, helpers, sockets, lock })
}

/// Checks that the directories are there, before local state is made in the first. One whose databases
/// are to be restored is made.
fn make_roots(directories: &[Directory]) -> Result<(), Exit> {
    for directory in directories {
        if directory.restore_if_missing {
            // What fails is told below.
            let _ = std::fs::create_dir_all(&directory.root);
        }
        if let Err(error) = std::fs::read_dir(&directory.root) {
            let refusal = discovering::unusable(directory, &error);
            return Err(misconfigured(&refusal.error, &refusal.hint));
        }
    }
    Ok(())
}

fn misconfigured(error: &str, hint: &str) -> Exit {
    Exit::Misconfigured { error: error.into(), hint: hint.into() }
}

impl Host {
    /// A process without databases, and what its watcher and its places listen to.
    async fn new(
        executor: Rc<LocalExecutor<'static>>,
        net: Net,
        directory: PathBuf,
        options: ReplicateOptions,
        lease: Option<Rc<LeaseSide>>,
    ) -> Result<(Rc<Host>, watching::Signals, Receiver<()>), String> {
        let place = directory.clone();
        let opened = unblock(move || {
            let registered = registrations::load(&place).map_err(|error| error.to_string())?;
            let journal = StateJournal::open(RealFs, place).map_err(|error| error.to_string())?;
            Ok::<_, String>((registered, journal))
        });
        let (registered, journal) = opened.await?;
        let (watches, databases) = smol::channel::bounded(1);
        let (events_wanted, wanted) = smol::channel::bounded(1);
        let (places_told, places) = smol::channel::bounded(1);
        let host = Host {
            probes: Probes::new(executor.clone()),
            executor,
            net,
            journal: Arc::new(Mutex::new(journal)),
            databases: RefCell::default(),
            tiers: RefCell::new(Tiers::new(places::within_descriptors(options.limits))),
            places_told,
            give_ups: RefCell::default(),
            give_back_at: Cell::new(None),
            next_number: Cell::new(0),
            paths: Paths::default(),
            twins: RefCell::default(),
            discovery: Discovery::default(),
            discoveries: Changes::default(),
            changes: Changes::default(),
            lives: Changes::default(),
            watches,
            events_wanted,
            answering: Cell::new(0),
            closing: Cell::new(false),
            stays: options.socket.is_some(),
            shutdown_sync_timeout: Cell::new(options.shutdown_sync_timeout),
            directory,
            registrations: smol::lock::Mutex::new(registered),
            settings: RefCell::new(options.settings),
            reread: options.reread,
            reloads: RefCell::default(),
            notifier: options.notifier,
            requests: Requests::default(),
            shares: Shares::new(COMPACTIONS_MAX, VALIDATIONS_MAX),
            lease,
            started: clock::now(),
        };
        Ok((Rc::new(host), watching::Signals { databases, wanted }, places))
    }

    /// Starts the first databases: those that are given, all or none, those that directories hold, and
    /// those that are registered.
    async fn begin(self: &Rc<Self>, jobs: Vec<ReplicateJob>, within: Vec<Directory>) -> Result<(), Refusal> {
        let found = self.found_in(&within, &jobs).await?;
        self.discovery.replace(within);
        self.take_up(&jobs, &found).await
    }

    /// Starts these databases, those that were given and those that were found, beside what is registered.
    async fn take_up(self: &Rc<Self>, given: &[ReplicateJob], found: &[ReplicateJob]) -> Result<(), Refusal> {
        let registrations = self.registrations.lock().await;
        let wanted = plan::plan(self, given, found, &registrations)?;
        self.bring_in_line(wanted).await;
        Ok(())
    }

    fn insert(&self, job: ReplicateJob, origin: Origin, keys: &Keys) -> u32 {
        let number = self.next_number.replace(self.next_number.get() + 1);
        self.twins.borrow_mut().put(number, keys);
        self.paths.add(&job.database, number);
        self.databases.borrow_mut().insert(number, Box::new(Entry::new(number, job, origin)));
        number
    }

    /// Changes a database and tells whoever waits; the default if it has been forgotten.
    fn change<T: Default>(&self, number: u32, change: impl FnOnce(&mut Entry) -> T) -> T {
        let mut databases = self.databases.borrow_mut();
        let Some(entry) = databases.get_mut(&number) else { return T::default() };
        let before = core::mem::discriminant(&entry.life);
        let changed = change(entry);
        let lives_on = before == core::mem::discriminant(&entry.life);
        drop(databases);
        self.changes.tell();
        if !lives_on {
            self.lives.tell();
        }
        changed
    }

    /// Counts something of a database. Nobody waits for that.
    fn tally(&self, number: u32, count: impl FnOnce(&mut Tally)) {
        if let Some(entry) = self.databases.borrow_mut().get_mut(&number) {
            count(entry.tally());
        }
    }

    /// Forgets a database of which nothing is left.
    fn forget(&self, number: u32) -> Option<Box<Entry>> {
        let entry = self.databases.borrow_mut().remove(&number);
        if let Some(entry) = &entry {
            self.paths.remove(&entry.database, number);
            self.twins.borrow_mut().forget(|number| self.databases.borrow().contains_key(&number));
        }
        self.tiers(|tiers| tiers.remove(number));
        self.changes.tell();
        self.lives.tell();
        entry
    }

    /// Runs a task beside the others, for as long as the process runs.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(task).detach();
    }

    /// Looks at a database; `None` if it has been forgotten.
    pub(crate) fn look<T>(&self, number: u32, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.databases.borrow().get(&number).map(|entry| look(entry))
    }

    /// Looks at all databases, in the order in which they were added.
    pub(crate) fn for_each(&self, mut look: impl FnMut(&Entry)) {
        self.databases.borrow().values().for_each(|entry| look(entry));
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

    /// Tells a database that runs to finish, or one that would run again not to; one that was told
    /// already is left to it.
    fn finish(&self, number: u32, deadline: Mono) {
        let without_engine = self.change(number, |entry| {
            match &mut entry.life {
                Life::Running if entry.sender.is_none() => return true,
                Life::Running => {
                    entry.life = Life::Stopping;
                    // A second time would be taken for the second signal.
                    if !entry.turn_over {
                        entry.send(Event::Shutdown { deadline });
                    }
                }
                Life::Resetting { again, .. } => *again = false,
                _ => {}
            }
            false
        });
        if without_engine {
            self.finish_without_engine(number, deadline);
        }
    }

    fn tell(&self, moment: Moment) {
        if let Some(notifier) = &self.notifier {
            notifier.moment(moment, self.shutdown_sync_timeout.get());
        }
    }

    /// Connections to anyone.
    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    /// Whether the process was told to end.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }
}

fn refused(error: StoreError) -> Refusal {
    Refusal { hint: error.hint.clone().unwrap_or_default(), error: error.to_string() }
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
