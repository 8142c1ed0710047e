//! The process: its databases, their watches, its signals, its control socket.

mod probes;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_signal::{Signal, Signals};
use driftless_adapters::fs::RealFs;
use driftless_adapters::keys::ReplicaLayout;
use driftless_adapters::object::Net;
use driftless_adapters::pool::unblock;
use driftless_adapters::store::{Store, StoreError};
use driftless_core::engine::{Config, Replicator, Status};
use driftless_core::machine::{Event, Exit, Fact, Machine, Notice, ReplicaId};
use futures_lite::StreamExt as _;
use smol::LocalExecutor;
use smol::channel::{Receiver, Sender};

use crate::clock;
use crate::config::Replica;
use crate::control;
use crate::driver::{self, Driver, POLL_INTERVAL, Ports};
use crate::log;
use crate::port::output::{Check, OutputPort};
use crate::port::place;
use crate::port::scratch::Scratch;
use crate::port::source::{RealFiles, SourcePort};
use crate::port::state::StateJournal;
use crate::port::store::StorePort;
use crate::sqlite::LinkOptions;
use crate::watch::{PollWatcher, WatchEvent, WatchMode, Watcher};
use probes::Probes;

/// One database and where it is replicated.
#[derive(Clone, Debug)]
pub struct ReplicateJob {
    /// The database file, which need not exist yet.
    pub database: PathBuf,
    /// Where it is replicated.
    pub replica: Replica,
    /// Settings of the engine.
    pub engine: Config,
}

/// Settings of the process.
#[derive(Clone, Debug)]
pub struct ReplicateOptions {
    /// Where local state is kept; beside the first database by default.
    pub state_dir: Option<PathBuf>,
    /// How long the final sync may take.
    pub shutdown_sync_timeout: Duration,
}

impl Default for ReplicateOptions {
    fn default() -> ReplicateOptions {
        ReplicateOptions { state_dir: None, shutdown_sync_timeout: Duration::from_secs(30) }
    }
}

/// A watched batch is followed by this pause; what happens in it is one more batch. In a pause that
/// another file's change began, an application can fill the WAL as fast as it likes.
const BATCH_PAUSE: Duration = Duration::from_millis(25);

/// A database of this process, as others see it.
pub(crate) struct Running {
    pub(crate) database: PathBuf,
    pub(crate) replica: Replica,
    pub(crate) sender: Sender<Event>,
    pub(crate) status: Option<Status>,
    pub(crate) wants_events: bool,
    pub(crate) ended: bool,
}

/// The databases of this process.
pub(crate) type Shared = Rc<RefCell<Vec<Running>>>;

/// The state directory that a database has unless told otherwise.
pub fn default_state_dir(database: &Path) -> PathBuf {
    let name = database.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    database.with_file_name(format!(".{name}-driftless"))
}

/// Replicates until every database has ended: by a signal, by `-once`, or by an error that needs
/// a person. The worst of their ends is returned.
pub fn replicate(jobs: Vec<ReplicateJob>, options: ReplicateOptions) -> Exit {
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
    executor: Rc<LocalExecutor<'_>>,
    net: Net,
) -> Exit {
    // Before anything is said to have begun: a signal that comes first would end the process.
    let signals = match Signals::new([Signal::Term, Signal::Int]) {
        Ok(signals) => signals,
        Err(error) => return misconfigured(&format!("signals cannot be received: {error}"), "see ulimit -n"),
    };
    let Some(first) = jobs.first() else {
        return misconfigured(
            "there is no database to replicate",
            "name one on the command line or in the configuration",
        );
    };
    let directory = options.state_dir.clone().unwrap_or_else(|| default_state_dir(&first.database));
    let lock = match control::StateLock::take(&directory) {
        Ok(lock) => lock,
        Err(exit) => return exit,
    };
    let journal = match unblock({
        let directory = directory.clone();
        move || StateJournal::open(RealFs, directory)
    })
    .await
    {
        Ok(journal) => Arc::new(Mutex::new(journal)),
        Err(error) => {
            return misconfigured(&error.to_string(), "give a directory that can be written with -state-dir");
        }
    };
    let shared: Shared = Rc::new(RefCell::new(Vec::new()));
    let (events_wanted, wanted) = smol::channel::bounded(1);
    let probes = Probes::new(Rc::clone(&executor));
    let mut tasks = Vec::new();
    for (number, job) in jobs.into_iter().enumerate() {
        let mut job = job;
        let store = match open_store(&mut job, &net) {
            Ok(store) => store,
            Err(exit) => return exit,
        };
        let claims = job.engine.create_if_absent;
        let server = job.replica.server().filter(|_| claims);
        let task = start_one(
            number as u32,
            job,
            Arc::clone(&store),
            &journal,
            &shared,
            events_wanted.clone(),
            &executor,
        );
        if let Some(server) = server {
            let sender = shared.borrow().last().expect("just started").sender.clone();
            probes.tell(server, &store, sender);
        }
        tasks.push(task);
    }
    let helpers = [
        executor.spawn(watch_all(shared.clone(), wanted)),
        executor.spawn(serve_signals(signals, shared.clone(), options.shutdown_sync_timeout)),
        executor.spawn(control::serve(shared.clone(), directory)),
    ];
    let mut worst = Exit::Done;
    for task in tasks {
        let exit = task.await;
        if exit.code() > worst.code() {
            worst = exit;
        }
    }
    drop(helpers);
    drop(lock);
    worst
}

fn misconfigured(error: &str, hint: &str) -> Exit {
    Exit::Misconfigured { error: error.into(), hint: hint.into() }
}

/// Opens the store of a job, and takes over what it claims.
fn open_store(job: &mut ReplicateJob, net: &Net) -> Result<Arc<StorePort>, Exit> {
    let (store, layout) = place::open(&job.replica, net)
        .map_err(|error| misconfigured(&error.to_string(), &error.hint.unwrap_or_default()))?;
    job.engine.create_if_absent = store.capabilities().create_if_absent;
    Ok(Arc::new(StorePort::new(store, layout)))
}

fn start_one<'a>(
    number: u32,
    job: ReplicateJob,
    store: Arc<StorePort>,
    journal: &Arc<Mutex<StateJournal<RealFs>>>,
    shared: &Shared,
    events_wanted: Sender<()>,
    executor: &Rc<LocalExecutor<'a>>,
) -> smol::Task<Exit> {
    let name = format!("{}\n{}", job.database.display(), job.replica.place());
    let (number_in_journal, written) = journal.lock().expect("no holder panics").number(&name);
    if let Err(error) = written {
        tracing::warn!(database = %job.database.display(), %error, "local state cannot be written");
    }
    let scratch = journal.lock().expect("no holder panics").directory().join(format!("scratch-{number}"));
    let files = RealFiles::new(job.database.clone());
    let source = SourcePort::new(job.database.clone(), files, LinkOptions::default());
    let ports = Ports {
        source: Some(Arc::new(Mutex::new(source))),
        store: Some(store),
        state: Some((Arc::clone(journal), number_in_journal)),
        scratch: Some(Arc::new(Mutex::new(Scratch::new(RealFs, scratch)))),
        output: None,
    };
    let machine = Replicator::new(ReplicaId(number), driver::entropy(), job.engine.clone());
    let mut driver = Driver::new(machine, ports, executor.clone());
    let index = shared.borrow().len();
    shared.borrow_mut().push(Running {
        database: job.database.clone(),
        replica: job.replica.clone(),
        sender: driver.sender(),
        status: None,
        wants_events: true,
        ended: false,
    });
    let shared = shared.clone();
    executor.spawn(async move {
        let database = job.database.display().to_string();
        let exit = driver
            .run(|machine, notice| match notice {
                Some(notice) => {
                    log::notice(&database, notice);
                    if matches!(notice.fact, Fact::Detached { .. }) {
                        crate::port::buffers::clear();
                        crate::memory::give_back();
                    }
                }
                None => {
                    let running = &mut shared.borrow_mut()[index];
                    let wanted = core::mem::replace(&mut running.wants_events, machine.wants_events());
                    if running.wants_events && !wanted {
                        // A full channel says it already.
                        let _ = events_wanted.try_send(());
                    }
                    running.status = Some(machine.status());
                }
            })
            .await;
        shared.borrow_mut()[index].ended = true;
        log::exit(&database, &exit);
        exit
    })
}

/// Tells each database of changes in its directory.
async fn watch_all(shared: Shared, wanted: Receiver<()>) {
    let mut watcher = Watcher::new();
    let mut polls = PollWatcher::new();
    let databases: Vec<PathBuf> = shared.borrow().iter().map(|running| running.database.clone()).collect();
    let mut waiting = Vec::new();
    for database in &databases {
        let directory = directory_of(database);
        match watcher.watch(&directory) {
            Ok(WatchMode::Events) => {}
            Ok(WatchMode::Poll(reason)) => {
                tracing::warn!(database = %database.display(), ?reason, "changes are found by polling every second");
                polls.add(database);
            }
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "the directory cannot be watched yet");
                waiting.push(database.clone());
            }
        }
    }
    let events = watch_events(&shared, &mut watcher, &wanted);
    if polls.is_empty() && waiting.is_empty() {
        return events.await;
    }
    let polling = async {
        loop {
            async_io::Timer::after(POLL_INTERVAL).await;
            for event in polls.poll() {
                dispatch(&shared, &event);
            }
            waiting.retain(|database| {
                let there = directory_of(database).is_dir();
                if there {
                    polls.add(database);
                    dispatch(&shared, &WatchEvent::Changed(database.clone()));
                }
                !there
            });
        }
    };
    futures_lite::future::zip(events, polling).await;
}

async fn watch_events(shared: &Shared, watcher: &mut Watcher, wanted: &Receiver<()>) {
    loop {
        match watcher.next().await {
            Ok(events) => events.iter().for_each(|event| dispatch(shared, event)),
            Err(error) => tracing::warn!(%error, "reading file events failed"),
        }
        async_io::Timer::after(BATCH_PAUSE).await;
        // While every database plans its own next look, events would tell nothing.
        while shared.borrow().iter().all(|running| !running.wants_events) {
            wanted.recv().await.expect("the process holds a sender");
        }
    }
}

fn directory_of(database: &Path) -> PathBuf {
    match database.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn dispatch(shared: &Shared, event: &WatchEvent) {
    for running in shared.borrow().iter().filter(|running| !running.ended) {
        let concerned = match event {
            WatchEvent::Changed(path) => is_of(path, &running.database),
            WatchEvent::Overflow => true,
            WatchEvent::DirectoryGone(directory) => *directory == directory_of(&running.database),
        };
        if concerned {
            // The driver holds the receiver until the database has ended.
            let _ = running.sender.try_send(Event::SourceChanged);
        }
    }
}

/// Whether a path is the database or its `-wal`; `-shm` changes with every reader and tells
/// nothing.
fn is_of(path: &Path, database: &Path) -> bool {
    let (Some(name), Some(base)) = (path.file_name(), database.file_name()) else { return false };
    let (name, base) = (name.as_encoded_bytes(), base.as_encoded_bytes());
    name.strip_prefix(base).is_some_and(|suffix| matches!(suffix, b"" | b"-wal" | b"-journal"))
}

/// The first signal asks for a final sync, the second stops at once.
async fn serve_signals(mut signals: Signals, shared: Shared, timeout: Duration) {
    while let Some(signal) = signals.next().await {
        match signal {
            Ok(signal) => tracing::info!(?signal, "stopping"),
            Err(error) => tracing::warn!(%error, "a signal was not understood"),
        }
        let deadline = clock::mono().after(timeout);
        for running in shared.borrow().iter() {
            let _ = running.sender.try_send(Event::Shutdown { deadline });
        }
    }
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
            source: None,
            store: Some(Arc::new(StorePort::new(store, layout))),
            state: None,
            scratch: None,
            output: output.map(|target| Arc::new(Mutex::new(OutputPort::new(RealFs, target, check)))),
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

/// Names of databases and their senders, for tests and for the control socket.
pub(crate) fn ask_all(shared: &Shared) {
    for running in shared.borrow().iter().filter(|running| !running.ended) {
        let _ = running.sender.try_send(Event::SourceChanged);
    }
}

/// Gives memory back to the system instead of keeping an arena for each thread.
fn tune_allocator() {
    crate::memory::keep_small();
}
