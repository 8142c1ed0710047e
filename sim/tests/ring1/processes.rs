//! The processes that run in nodes: production's driver over production's ports, and nothing else.
//!
//! A process finds what its host keeps ([`Host`]): the database, which the application shares, and
//! a disk with the local journal. All the rest dies with it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use driftless::driver::{self, Driver, Ports};
use driftless::port::Blocking;
use driftless::port::scratch::Scratch;
use driftless::port::state::{Records, StateJournal};
use driftless::port::store::StorePort;
use driftless_adapters::object::settings::{AccessKeys, S3, Secret, Service, Settings, Transport};
use driftless_adapters::object::{self, Net};
use driftless_core::engine::{Config, Replicator, Status};
use driftless_core::machine::{
    Chunk, Event, Exit, Fact, Machine, Notice, OpIds, OutputError, OutputRequest, Reason, ReplicaId,
};
use driftless_core::probe::Probe;
use driftless_sim::disk::{Disk, SimFs};
use smol::LocalExecutor;
use smol::channel::Sender;

use super::database::{self, Source};
use super::judge::{LAYOUT, ROOT};
use super::server::{ADDRESS, BUCKET};

/// What outlives a process, and what is known of the one that runs.
pub struct Host {
    pub database: database::Shared,
    pub disk: Disk,
    pub config: Config,
    pub adopt: bool,
    pub seen: Mutex<Seen>,
    /// Told of each report of the process.
    pub on_fact: Box<dyn Fn(&Fact) + Send + Sync>,
}

/// What was seen of a host's process.
#[derive(Default)]
pub struct Seen {
    /// Starts so far.
    pub starts: u64,
    /// The reason for which it wants to be woken next, while it runs.
    pub waits_for: Option<Reason>,
    pub status: Option<Status>,
    pub sender: Option<Sender<Event>>,
    pub wants_events: bool,
    /// Probes that run.
    pub probes: u64,
    /// How it ended, if it did by itself.
    pub exit: Option<Exit>,
    /// The last things that it said.
    pub said: VecDeque<String>,
}

impl Host {
    /// No holder of the lock awaits.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no holder panics")
    }

    /// Tells the process, if one listens.
    pub fn send(&self, event: Event) {
        if let Some(sender) = &self.seen().sender {
            // A process that was killed listens no more.
            let _ = sender.try_send(event);
        }
    }

    /// The process is dead.
    pub fn forget_process(&self) {
        let mut seen = self.seen();
        seen.sender = None;
        seen.status = None;
        seen.waits_for = None;
        seen.wants_events = false;
        seen.probes = 0;
    }

    fn observe(&self, machine: &Replicator, notice: Option<&Notice>) {
        if let Some(notice) = notice {
            let mut seen = self.seen();
            seen.said.push_back(format!("{:?}", notice.fact));
            if seen.said.len() > 8 {
                seen.said.pop_front();
            }
            drop(seen);
            return (self.on_fact)(&notice.fact);
        }
        let mut seen = self.seen();
        seen.status = Some(machine.status());
        seen.waits_for = machine.next_deadline().map(|(_, reason)| reason);
        seen.wants_events = machine.wants_events();
    }
}

/// What every process has: executors, and ways to the store.
pub async fn process<T>(work: impl AsyncFnOnce(Rc<LocalExecutor<'static>>, Net, Arc<StorePort>) -> T) -> T {
    let executor = Rc::new(LocalExecutor::new());
    let net = Net::new(Arc::new(smol::Executor::new()));
    let connections = Arc::clone(net.executor());
    let keys = AccessKeys { id: "id".into(), secret: Secret::new("secret"), session_token: None };
    let settings = Settings {
        root: ROOT.into(),
        service: Service::S3(S3 {
            bucket: BUCKET.into(),
            region: Some("us-east-1".into()),
            endpoint: Some(format!("http://{ADDRESS}")),
            path_style: true,
            keys: Some(keys),
            ..S3::default()
        }),
        transport: Transport::default(),
    };
    let store = object::open(&settings, &net).expect("settings that work");
    let port = Arc::new(StorePort::new(store, LAYOUT));
    connections.run(executor.run(work(Rc::clone(&executor), net, port))).await
}

/// `driftless replicate`, from its start to its end.
pub async fn replicate(host: Arc<Host>) {
    let exit = process(async |executor, _net, store| {
        let fs = SimFs::new(host.disk.clone());
        let journal = StateJournal::open(fs.clone(), "/state".into()).expect("a disk without faults");
        let records = Records::new(Arc::new(Mutex::new(journal)), "/database\nreplica".into());
        let ports = Ports {
            source: Some(Arc::new(Mutex::new(Source::new(Arc::clone(&host.database))))),
            store: Some(Arc::clone(&store)),
            state: Some(Arc::new(Mutex::new(records))),
            scratch: Some(Arc::new(Mutex::new(Scratch::new(fs, "/scratch".into())))),
            ..Ports::default()
        };
        let config = Config { adopt: host.adopt, ..host.config.clone() };
        let machine = Replicator::new(ReplicaId(0), driver::entropy(), config);
        let mut driver = Driver::new(machine, ports, Rc::clone(&executor));
        let sender = driver.sender();
        {
            let mut seen = host.seen();
            seen.starts += 1;
            (seen.exit, seen.wants_events) = (None, true);
            seen.sender = Some(sender.clone());
        }
        let probed = probe(store, Rc::clone(&executor), None, sender);
        let prober = Arc::clone(&host);
        prober.seen().probes += 1;
        executor
            .spawn(async move {
                probed.await;
                prober.seen().probes -= 1;
            })
            .detach();
        driver.run(|machine, notice| host.observe(machine, notice)).await
    })
    .await;
    host.forget_process();
    host.seen().exit = Some(exit);
}

/// Tries what the store promises, and sends what was found.
pub async fn probe(
    store: Arc<StorePort>,
    executor: Rc<LocalExecutor<'static>>,
    within: Option<Duration>,
    listener: Sender<Event>,
) {
    let ports = Ports { store: Some(store), ..Ports::default() };
    let probe = Probe::new(OpIds::new(ReplicaId(0), driver::entropy()));
    let probe = match within {
        Some(time) => probe.within(time),
        None => probe,
    };
    let mut driver = Driver::new(probe, ports, executor);
    driver.run(|_, _| {}).await;
    let _ = listener.try_send(Event::StoreProbed(driver.machine.status()));
}

/// Runs a machine that only reads, as `restore` and `verify` do: how it ended, how it stands, and
/// the file that it has built.
pub async fn read<M: Machine>(machine: M) -> (Exit, M::Status, Option<Vec<u8>>) {
    process(async |executor, _net, store| {
        let file: Built = Arc::default();
        let built = Arc::clone(&file);
        let output = Output::new(Box::new(move |bytes, _| {
            *built.lock().expect("no holder panics") = Some(bytes);
            Ok(())
        }));
        let ports =
            Ports { store: Some(store), output: Some(Arc::new(Mutex::new(output))), ..Ports::default() };
        let mut driver = Driver::new(machine, ports, executor);
        let exit = driver.run(|_, _| {}).await;
        let built = file.lock().expect("no holder panics").take();
        (exit, driver.machine.status(), built)
    })
    .await
}

/// A file in memory that stands in its place.
type Built = Arc<Mutex<Option<Vec<u8>>>>;

/// Puts what was built in its place, instead of what stands there if so.
type Publish = Box<dyn FnMut(Vec<u8>, bool) -> Result<(), OutputError> + Send>;

/// The file that a restore builds, in memory.
pub struct Output {
    building: Vec<u8>,
    publish: Publish,
}

impl Output {
    /// Nothing is built yet.
    pub fn new(publish: Publish) -> Output {
        Output { building: Vec::new(), publish }
    }
}

impl Blocking<OutputRequest> for Output {
    type Answer = Result<Chunk, OutputError>;

    fn perform(&mut self, request: &OutputRequest) -> Self::Answer {
        match request {
            OutputRequest::Create { .. } | OutputRequest::Discard => self.building.clear(),
            OutputRequest::Write(extents) => {
                for (offset, bytes) in extents {
                    let (start, end) = (*offset as usize, *offset as usize + bytes.len());
                    self.building.resize(self.building.len().max(end), 0);
                    self.building[start..end].copy_from_slice(bytes);
                }
            }
            OutputRequest::SetLen(len) => self.building.resize(*len as usize, 0),
            OutputRequest::Sync => {}
            OutputRequest::Publish { replace } => {
                (self.publish)(std::mem::take(&mut self.building), *replace)?;
            }
            // Nothing stands in the target's place, and nothing was left.
            OutputRequest::ReadTarget { .. } | OutputRequest::ReadBuilt { .. } => {}
        }
        Ok(Chunk::default())
    }
}
