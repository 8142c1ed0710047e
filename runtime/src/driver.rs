//! Drives one machine: events in, actions out, on a smol executor.
//!
//! The loop takes one event at a time, hands it to the machine, and starts whatever came out. It
//! knows no rule about order. Blocking work goes to the thread pool; what takes a few
//! microseconds runs in place, since a thread would cost more. Between events it sleeps until the
//! machine's own deadline, and where there is none it does not wake at all.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use driftless_adapters::pool::unblock;
use driftless_adapters::timer::Timer;
use driftless_core::ids::Mono;
use driftless_core::machine::{
    Action, Actions, Chunk, Event, Exit, Machine, Notice, OpId, Outcome, OutputError, Request, SourceError,
    SourceErrorKind, SourceReply, StoreError, StoreErrorKind,
};
use futures_lite::FutureExt as _;
use smol::LocalExecutor;
use smol::channel::{Receiver, Sender};

use crate::clock;
use crate::port::grant::Grants;
use crate::port::lease::LeaseView;
use crate::port::store::StorePort;
use crate::port::{self, Shared, buffers};

/// What a machine may reach. A machine that asks for what is not there gets an error.
#[derive(Clone, Default)]
pub struct Ports {
    /// The database.
    pub source: Option<port::Source>,
    /// The replica.
    pub store: Option<Arc<StorePort>>,
    /// The records of this machine in the local journal.
    pub state: Option<port::State>,
    /// What is put aside for a while.
    pub scratch: Option<port::PutAside>,
    /// The file that a restore builds.
    pub output: Option<port::Output>,
    /// The copy that follows a replica.
    pub copy: Option<port::Copy>,
    /// What it holds of what the process has.
    pub grants: Grants,
    /// The lease under which it writes, if there is one.
    pub lease: Option<Rc<LeaseView>>,
    /// Held by everything of this machine that runs on a thread.
    pub tenure: Tenure,
}

/// Tells when the last call of an ended machine has returned: what runs on a thread cannot be
/// cancelled, and it holds the database's link and the journal until then.
#[derive(Clone, Default)]
pub struct Tenure(Arc<()>);

impl Tenure {
    /// Whether nobody else holds it.
    pub fn is_over(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// A machine on an executor.
pub struct Driver<'a, M> {
    /// The machine.
    pub machine: M,
    executor: Rc<LocalExecutor<'a>>,
    ports: Ports,
    sender: Sender<Event>,
    receiver: Receiver<Event>,
    under_way: BTreeMap<OpId, smol::Task<()>>,
    /// Since when no other on this thread has had a turn.
    turn_since: Mono,
}

impl<'a, M: Machine> Driver<'a, M> {
    /// A driver that has not begun.
    pub fn new(machine: M, ports: Ports, executor: Rc<LocalExecutor<'a>>) -> Driver<'a, M> {
        let (sender, receiver) = smol::channel::unbounded();
        let (under_way, turn_since) = (BTreeMap::new(), clock::mono());
        Driver { machine, executor, ports, sender, receiver, under_way, turn_since }
    }

    /// Where to send events that come from outside.
    pub fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// Runs the machine to its end. `observe` sees the machine after each event, and each notice.
    pub async fn run(&mut self, observe: impl FnMut(&M, Option<&Notice>)) -> Exit {
        self.run_from(Event::Start { entropy: entropy() }, observe).await
    }

    /// Goes on with a machine whose run was dropped while it waited.
    pub async fn resume(&mut self, observe: impl FnMut(&M, Option<&Notice>)) -> Exit {
        let event = self.next_event().await;
        self.run_from(event, observe).await
    }

    /// Whether an event waits.
    pub fn has_events(&self) -> bool {
        !self.receiver.is_empty()
    }

    /// Whether no event waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        !self.has_events() && self.under_way.is_empty()
    }

    async fn run_from(&mut self, mut event: Event, mut observe: impl FnMut(&M, Option<&Notice>)) -> Exit {
        let mut actions = Actions::new();
        loop {
            if let Event::Completed { op, .. } = &event {
                self.under_way.remove(op);
            }
            let read = bytes_read(&event).cloned();
            self.machine.handle(clock::now(), event, &mut actions);
            if let Some(read) = read {
                buffers::give(read);
            }
            let mut ended = None;
            for action in actions.drain() {
                match action {
                    Action::Submit { op, request } => self.start(op, request),
                    // Dropping the task ends what can be ended; what runs on a thread runs on.
                    Action::Cancel { op } => {
                        drop(self.under_way.remove(&op));
                        self.ports.grants.forget(op);
                    }
                    Action::Notify(notice) => observe(&self.machine, Some(&notice)),
                    Action::Stopped(exit) => ended = Some(exit),
                }
            }
            observe(&self.machine, None);
            if let Some(exit) = ended {
                return exit;
            }
            event = self.next_event().await;
        }
    }

    /// Dropping the future loses no event.
    async fn next_event(&mut self) -> Event {
        if !self.receiver.is_empty() {
            self.let_others().await;
        }
        match self.receiver.try_recv() {
            Ok(event) => event,
            Err(_) => {
                let event = self.wait().await;
                self.turn_since = clock::mono();
                event
            }
        }
    }

    /// What is done in place has its answer at once: others on this thread come between, where it
    /// has taken long enough for them to notice.
    async fn let_others(&mut self) {
        // Simulated time stands still while nothing waits.
        if cfg!(madsim) || clock::mono().since(self.turn_since) >= TURN {
            futures_lite::future::yield_now().await;
            self.turn_since = clock::mono();
        }
    }

    async fn wait(&self) -> Event {
        let received = async { self.receiver.recv().await.expect("the driver holds a sender") };
        match self.machine.next_deadline() {
            None => received.await,
            Some((at, _)) => {
                let wait = at.since(clock::mono());
                let tick = async {
                    Timer::after(wait).await;
                    Event::Tick
                };
                received.or(tick).await
            }
        }
    }

    fn start(&mut self, op: OpId, request: Request) {
        let sender = self.sender.clone();
        let ports = self.ports.clone();
        if let Request::Source(request) = &request
            && port::is_short(request)
            && let Some(source) = &ports.source
        {
            let outcome = Outcome::Source(source.lock().expect("no holder panics").perform(request));
            // The receiver lives as long as the driver.
            let _ = sender.try_send(Event::Completed { op, outcome });
            return;
        }
        let task = self.executor.spawn(async move {
            let outcome = perform(op, request, ports).await;
            let _ = sender.try_send(Event::Completed { op, outcome });
        });
        self.under_way.insert(op, task);
    }
}

/// What was read from the source, whose buffer is used again once the machine has seen it.
fn bytes_read(event: &Event) -> Option<&Chunk> {
    match event {
        Event::Completed { outcome: Outcome::Source(Ok(SourceReply::Link(reply))), .. } => {
            reply.bytes.as_ref()
        }
        _ => None,
    }
}

async fn perform(op: OpId, request: Request, ports: Ports) -> Outcome {
    match request {
        Request::Source(request) => Outcome::Source(match ports.source {
            Some(source) => on_thread(ports.tenure, source, request).await,
            None => {
                let text = "there is no source".into();
                Err(SourceError { kind: SourceErrorKind::Missing, text, index: None })
            }
        }),
        Request::Store(request) => Outcome::Store(match ports.store {
            Some(store) => store.perform(op, request).await,
            None => Err(StoreError::new(StoreErrorKind::Unsupported, "there is no store")),
        }),
        Request::Cell(request) => Outcome::Cell(match ports.store {
            Some(store) => store.perform_cell(request).await,
            None => Err(StoreError::new(StoreErrorKind::Unsupported, "there is no store")),
        }),
        Request::State(request) => Outcome::State(match ports.state {
            Some(state) => on_thread(ports.tenure, state, request).await,
            None => Err("there is no local state".into()),
        }),
        Request::Scratch(request) => Outcome::Scratch(match ports.scratch {
            Some(scratch) => on_thread(ports.tenure, scratch, request).await,
            None => Err("there is no room to put anything aside".into()),
        }),
        Request::Output(request) => Outcome::Output(match ports.output {
            Some(output) => on_thread(ports.tenure, output, request).await,
            None => Err(OutputError { exists: false, text: "there is no output".into() }),
        }),
        Request::Copy(request) => Outcome::Copy(match ports.copy {
            Some(copy) => on_thread(ports.tenure, copy, request).await,
            None => Err("there is no copy".into()),
        }),
        Request::Grant(request) => {
            ports.grants.perform(op, request).await;
            Outcome::Granted
        }
        Request::Prove => Outcome::Proven(match ports.lease {
            Some(lease) => lease.prove().await,
            None => Err("there is no lease".into()),
        }),
        Request::Compute(job) => Outcome::Compute(unblock(move || job.run()).await),
    }
}

/// Runs on a thread what uses the database, the journal or another file.
async fn on_thread<Q: Send + 'static, A: Send + 'static>(
    tenure: Tenure,
    port: Shared<Q, A>,
    request: Q,
) -> A {
    unblock(move || {
        let done = port.lock().expect("no holder panics").perform(&request);
        drop(port);
        drop(tenure);
        done
    })
    .await
}

/// A random number from the operating system, or from the seed of a simulation.
pub fn entropy() -> u64 {
    #[cfg(madsim)]
    return madsim::rand::random();
    #[cfg(not(madsim))]
    system_entropy()
}

#[cfg(not(madsim))]
fn system_entropy() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds each hasher from the system's random source.
    std::collections::hash_map::RandomState::new().build_hasher().finish()
        ^ (clock::wall().0 as u64).rotate_left(32)
        ^ u64::from(std::process::id())
}

/// How long a machine that always has something to do keeps its thread to itself.
const TURN: Duration = Duration::from_micros(500);

/// How long a poll of a source without events waits.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
