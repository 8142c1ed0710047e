//! The process of a host that contends for the lease: production's drivers over production's ports, and what
//! the succession decides carried out.

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use driftless::clock;
use driftless::driver::{self, Driver, Ports};
use driftless::port::lease::LeaseView;
use driftless::port::scratch::Scratch;
use driftless::port::state::{Records, StateJournal};
use driftless::port::store::StorePort;
use driftless::port::{Blocking as _, Shared};
use driftless_core::application::{Databases, Standing};
use driftless_core::compact::CompactConfig;
use driftless_core::engine::Config;
use driftless_core::follow::{Candidates, FollowConfig, Follower};
use driftless_core::keeper::Keeper;
use driftless_core::lease::{Lease, LeaseConfig, LeaseEvent, PlaceId, Role, Term, request_deadline};
use driftless_core::machine::{
    Chunk, Event, Exit, Fact, Machine as _, Notice, OpIds, OutputError, OutputRequest, ReplicaId, StateReply,
    StateRequest,
};
use driftless_core::probe::Findings;
use driftless_core::succession::{self, Action, Followed, Stand, Succession, View};
use driftless_sim::disk::{Disk, SimFs};
use smol::LocalExecutor;
use smol::channel::{Sender, unbounded};

use crate::copy::{Copy, Position};
use crate::database;
use crate::processes::{self, Output, process};

/// Hears what a host's process does.
pub type Tells = Box<dyn Fn(&Host, Happening) + Send + Sync>;

/// What outlives a process of a host, and what is known of the one that runs.
pub struct Host {
    pub number: usize,
    pub database: database::Shared,
    /// The local journal, the position file, the claim.
    pub disk: Disk,
    pub ttl: Duration,
    pub config: Config,
    /// What is compacted, and what goes then.
    pub levels: Option<CompactConfig>,
    pub seen: Mutex<Seen>,
    /// Told of what matters to the judges.
    pub tells: Tells,
}

/// What was seen of a host's process.
#[derive(Default)]
pub struct Seen {
    /// Counts the processes, so that what belongs to one of the dead is told from the rest.
    pub run: u64,
    /// Whether it is the primary, and its application runs.
    pub active: bool,
    /// The claim that was written down.
    pub term: Option<Term>,
    /// Where to ask it for a hand-over.
    pub asks: Option<Sender<Told>>,
    /// To the replicator: where it hears of changes.
    pub changes: Option<Sender<Event>>,
}

/// What a process does that the judges look at.
#[derive(Debug)]
pub enum Happening {
    Says(Fact),
    /// The follower says it.
    Follows(Fact),
    /// What stands in the database's place is about to be written over, or replaced.
    WritesOver,
    /// It was moved out of the way.
    KeptAside,
    /// A replicator begins from what stands there, behind another writer if so.
    Begins {
        fences: bool,
    },
    /// Everything is fenced.
    Activates,
    /// The lease says so.
    IsPrimary,
    /// A replicator found another one's segment where its first was to stand.
    Overtaken,
    /// The process ends by itself.
    Ends(Exit),
}

/// What the main loop of a process hears.
pub enum Told {
    Lease,
    LeaseEnded(Exit),
    Probed(Findings),
    Step(succession::Event),
    Replicator(Stand),
    ReplicatorEnded(Exit),
    HandOver,
}

/// Where the database's replica is.
const PLACE: PlaceId = PlaceId(1);

/// How long a copy may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

impl Host {
    /// No holder of the lock awaits.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no holder panics")
    }

    /// The process is dead, and its application with it.
    pub fn forget_process(&self) {
        let mut seen = self.seen();
        seen.run += 1;
        seen.active = false;
        (seen.asks, seen.changes) = (None, None);
    }

    fn tell(&self, happening: Happening) {
        (self.tells)(self, happening);
    }

    fn position(&self) -> Position {
        Position(self.disk.clone())
    }

    /// What a machine of another host has, were it a copy of this one.
    pub fn become_copy_of(&self, other: &Host) {
        let bytes = other.database.lock().expect("no holder panics").bytes().to_vec();
        self.database.lock().expect("no holder panics").replace(bytes);
        self.disk.roll_back(&other.disk.save());
        let term = other.seen().term;
        self.seen().term = term;
    }
}

/// A contender, from its start to its end.
pub async fn contend(host: Arc<Host>, holder: u64) {
    let begins = host.number == 0;
    let exit = process(async |executor, _net, store| {
        let mut process = Process::begin(Arc::clone(&host), executor, store, holder, begins);
        process.run().await
    })
    .await;
    host.forget_process();
    host.tell(Happening::Ends(exit));
}

struct Process {
    host: Arc<Host>,
    executor: Rc<LocalExecutor<'static>>,
    store: Arc<StorePort>,
    journal: Arc<Mutex<StateJournal<SimFs>>>,
    lease: Rc<LeaseView>,
    told: Sender<Told>,
    hears: smol::channel::Receiver<Told>,
    succession: Succession,
    follower: Option<Sender<Event>>,
    replicator: Option<Sender<Event>>,
    findings: Option<Findings>,
    view: Option<View>,
    stand: Option<Stand>,
    /// Everything is fenced, and the lease is being told.
    activating: bool,
    /// It hands over.
    leaves: bool,
    tasks: Vec<smol::Task<()>>,
}

impl Process {
    fn begin(
        host: Arc<Host>,
        executor: Rc<LocalExecutor<'static>>,
        store: Arc<StorePort>,
        holder: u64,
        begins: bool,
    ) -> Process {
        let fs = SimFs::new(host.disk.clone());
        let journal = StateJournal::open(fs, "/state".into()).expect("a disk without faults");
        let (told, hears) = unbounded();
        let term = {
            let mut seen = host.seen();
            seen.asks = Some(told.clone());
            seen.term
        };
        let config = LeaseConfig { ttl: host.ttl, holder, term, begins, ..LeaseConfig::default() };
        let machine = Lease::new(config, OpIds::new(ReplicaId(7), driver::entropy()));
        let ports = Ports { store: Some(Arc::clone(&store)), ..Ports::default() };
        let mut driver = Driver::new(machine, ports, Rc::clone(&executor));
        let lease = LeaseView::new(driver.machine.status(), driver.sender());
        let (view, tells) = (Rc::clone(&lease), told.clone());
        let contends = executor.spawn(async move {
            let exit = driver
                .run(|machine, _| {
                    view.show(machine.status());
                    let _ = tells.try_send(Told::Lease);
                })
                .await;
            view.show(driver.machine.status());
            let _ = tells.try_send(Told::LeaseEnded(exit));
        });
        let (listener, probes) = unbounded();
        let (tells, probed) = (
            told.clone(),
            processes::probe(
                Arc::clone(&store),
                Rc::clone(&executor),
                Some(request_deadline(host.ttl)),
                listener,
            ),
        );
        let tries = executor.spawn(async move {
            probed.await;
            if let Ok(Event::StoreProbed(findings)) = probes.try_recv() {
                let _ = tells.try_send(Told::Probed(findings));
            }
        });
        Process {
            tasks: vec![contends, tries],
            succession: Succession::new(vec![PLACE], false, term.is_some()),
            host,
            executor,
            store,
            journal: Arc::new(Mutex::new(journal)),
            lease,
            told,
            hears,
            follower: None,
            replicator: None,
            findings: None,
            view: None,
            stand: None,
            activating: false,
            leaves: false,
        }
    }

    async fn run(&mut self) -> Exit {
        loop {
            let told = self.hears.recv().await.expect("this holds a sender");
            let end = match told {
                Told::LeaseEnded(exit) => Some(exit),
                Told::Lease => self.lease_moved(),
                Told::Probed(findings) => {
                    if let Some(replicator) = &self.replicator {
                        let _ = replicator.try_send(Event::StoreProbed(findings));
                    }
                    self.findings = Some(findings);
                    self.lease.tell(Event::Lease(LeaseEvent::Tried(findings.keeps_leases())));
                    self.succeed(succession::Event::Tried(Ok(())))
                }
                Told::Step(event) => self.succeed(event),
                Told::Replicator(stand) => self.stands(stand),
                Told::ReplicatorEnded(exit) => self.replicator_ended(exit),
                Told::HandOver => {
                    self.hand_over();
                    None
                }
            };
            if let Some(exit) = end {
                return exit;
            }
        }
    }

    fn succeed(&mut self, event: succession::Event) -> Option<Exit> {
        let actions: Vec<Action> = self.succession.handle(event).into_iter().collect();
        actions.into_iter().find_map(|action| self.carry_out(action))
    }

    fn step(&self, event: succession::Event) {
        let _ = self.told.try_send(Told::Step(event));
    }

    fn carry_out(&mut self, action: Action) -> Option<Exit> {
        use succession::Event as Done;
        match action {
            Action::Disclaim => {
                self.host.seen().term = None;
                self.step(Done::Disclaimed(Ok(())));
            }
            Action::Name(n) => {
                self.name_its_state();
                self.step(Done::Named(n, Ok(())));
            }
            Action::Search { .. } => unreachable!("its database is named"),
            Action::Contend(contends) => self.lease.tell(Event::Lease(LeaseEvent::Contend(contends))),
            Action::Follow { database, succeeds } => self.follow(database, succeeds),
            Action::Tell { succeeds, .. } => self.tell_follower(match succeeds {
                true => Event::Lease(LeaseEvent::Succeed),
                false => Event::SyncNow,
            }),
            Action::End(_) => {
                self.tell_follower(Event::Shutdown { deadline: clock::mono().after(ENDS_WITHIN) });
            }
            Action::MoveAside(n) => {
                self.rewrite(Vec::new());
                self.host.tell(Happening::KeptAside);
                self.host.database.lock().expect("no holder panics").replace(Vec::new());
                self.host.position().remove();
                self.step(Done::MovedAside(n, Ok(())));
            }
            Action::Inherit(n, records) => {
                self.rewrite(records);
                self.step(Done::Inherited(n, Ok(())));
            }
            Action::Begin(databases) => {
                databases.into_iter().for_each(|(_, fences)| self.replicate(fences));
            }
            Action::Activate => {
                self.host.tell(Happening::Activates);
                self.host.position().remove();
                self.activating = true;
                self.host.seen().term = self.lease.look(|status| status.term);
                self.lease.tell(Event::Lease(LeaseEvent::Activate));
            }
            Action::Fail(exit) => return Some(exit),
        }
        None
    }

    fn records(&self) -> Records<SimFs> {
        Records::new(Arc::clone(&self.journal), "/database\nreplica".into())
    }

    fn rewrite(&self, records: Vec<Chunk>) {
        let mut journal = self.records();
        let done = journal.perform(&StateRequest::Rewrite(records));
        done.and_then(|_| journal.perform(&StateRequest::Sync)).expect("a disk without faults");
    }

    fn name_its_state(&self) {
        let position = self.host.position();
        if position.read().is_some() || !self.host.database.lock().expect("no holder panics").exists() {
            return;
        }
        let known = match self.records().perform(&StateRequest::Load) {
            Ok(StateReply::Records(records)) => Candidates::of_journal(&records),
            _ => None,
        };
        position.replace(&known.map_or_else(Vec::new, |known| known.encode()));
    }

    fn tell_follower(&self, event: Event) {
        if let Some(follower) = &self.follower {
            // One that has ended needs none.
            let _ = follower.try_send(event);
        }
    }

    fn follow(&mut self, n: usize, succeeds: bool) {
        let mut config =
            FollowConfig { interval: Duration::from_secs(3_600), patient: true, ..FollowConfig::default() };
        config.restore.request_deadline = request_deadline(self.host.ttl);
        let writes_over = || {
            let host = Arc::clone(&self.host);
            Box::new(move || host.tell(Happening::WritesOver)) as Box<dyn Fn() + Send>
        };
        let (database, before) = (Arc::clone(&self.host.database), writes_over());
        let publish = move |bytes: Vec<u8>, replace: bool| {
            before();
            let mut database = database.lock().expect("no holder panics");
            if database.exists() && !replace {
                return Err(OutputError { exists: true, text: "there is a file".into() });
            }
            database.replace(bytes);
            Ok(())
        };
        let copy = Copy::new(Arc::clone(&self.host.database), self.host.position(), writes_over());
        let output: Shared<OutputRequest, Result<Chunk, OutputError>> =
            Arc::new(Mutex::new(Output::new(Box::new(publish))));
        let ports = Ports {
            store: Some(Arc::clone(&self.store)),
            output: Some(output),
            copy: Some(Arc::new(Mutex::new(copy))),
            ..Ports::default()
        };
        let machine = Follower::new(config, OpIds::new(ReplicaId(1), driver::entropy()));
        let mut driver = Driver::new(machine, ports, Rc::clone(&self.executor));
        let sender = driver.sender();
        if succeeds {
            let _ = sender.try_send(Event::Lease(LeaseEvent::Succeed));
        }
        self.follower = Some(sender);
        let (tells, host) = (self.told.clone(), Arc::clone(&self.host));
        let task = self.executor.spawn(async move {
            let mut obstructed = false;
            let observe = |machine: &Follower, notice: Option<&Notice>| {
                if let Some(Notice { fact, .. }) = notice {
                    host.tell(Happening::Follows(fact.clone()));
                }
                let is_so = machine.status().obstructed;
                if std::mem::replace(&mut obstructed, is_so) != is_so {
                    let _ = tells.try_send(Told::Step(succession::Event::Obstructed(n, is_so)));
                }
            };
            let exit = driver.run(observe).await;
            let (bequest, unknown) = (driver.machine.bequest(), driver.machine.is_unknown());
            // The copy is closed before anybody goes on with it.
            drop(driver);
            let followed = Followed { exit, bequest, unknown };
            let _ = tells.try_send(Told::Step(succession::Event::Followed(n, followed)));
        });
        self.tasks.push(task);
    }

    fn replicate(&mut self, fences: bool) {
        self.host.tell(Happening::Begins { fences });
        self.stand = None;
        let config = Config {
            epoch: Some(self.lease.look(|status| status.body.as_ref().map_or(0, |body| body.epoch))),
            succeeds: fences,
            ..self.host.config.clone()
        };
        let fs = SimFs::new(self.host.disk.clone());
        let ports = Ports {
            source: Some(Arc::new(Mutex::new(database::Source::new(Arc::clone(&self.host.database))))),
            store: Some(Arc::clone(&self.store)),
            state: Some(Arc::new(Mutex::new(self.records()))),
            scratch: Some(Arc::new(Mutex::new(Scratch::new(fs, "/scratch".into())))),
            lease: Some(Rc::clone(&self.lease)),
            ..Ports::default()
        };
        let levels = self.host.levels.clone();
        let machine = Keeper::new(ReplicaId(0), driver::entropy(), config, levels, None);
        let mut driver = Driver::new(machine, ports, Rc::clone(&self.executor));
        let sender = driver.sender();
        if let Some(findings) = self.findings {
            let _ = sender.try_send(Event::StoreProbed(findings));
        }
        self.replicator = Some(sender.clone());
        self.host.seen().changes = Some(sender);
        let (host, lease, tells) = (Arc::clone(&self.host), Rc::clone(&self.lease), self.told.clone());
        let task = self.executor.spawn(async move {
            let observe = |machine: &Keeper, notice: Option<&Notice>| match notice {
                Some(Notice { fact, .. }) => {
                    if let Fact::Replicated { .. } | Fact::Adopted { .. } = fact {
                        lease.tell(Event::Lease(LeaseEvent::Put(PLACE)));
                    }
                    host.tell(Happening::Says(fact.clone()));
                }
                None => {
                    let mut standing = Standing::default();
                    standing.add(Some(&machine.status()), None);
                    let ready = standing.sum() == Databases::Ready;
                    let stand = if ready { Stand::Ready } else { Stand::Starting };
                    let _ = tells.try_send(Told::Replicator(stand));
                }
            };
            let exit = driver.run(observe).await;
            drop(driver);
            let _ = tells.try_send(Told::ReplicatorEnded(exit));
        });
        self.tasks.push(task);
    }

    fn stands(&mut self, stand: Stand) -> Option<Exit> {
        if self.stand.as_ref() == Some(&stand) {
            return None;
        }
        self.stand = Some(stand.clone());
        self.succeed(succession::Event::Stands(0, stand))
    }

    fn replicator_ended(&mut self, exit: Exit) -> Option<Exit> {
        (self.replicator, self.host.seen().changes) = (None, None);
        if matches!(exit, Exit::Overtaken { .. }) {
            self.host.tell(Happening::Overtaken);
        }
        if self.leaves {
            if exit != Exit::Done {
                return Some(exit);
            }
            self.lease.tell(Event::Shutdown { deadline: clock::mono().after(Duration::from_secs(10)) });
            return None;
        }
        if self.host.seen().active || self.activating {
            return Some(exit);
        }
        self.stands(Stand::Ended(exit))
    }

    /// The application ends, and the process once all is on the replica.
    fn hand_over(&mut self) {
        let was_active = std::mem::take(&mut self.host.seen().active);
        if let Some(replicator) = self.replicator.as_ref().filter(|_| was_active) {
            self.leaves = true;
            let _ = replicator.try_send(Event::Shutdown { deadline: clock::mono().after(ENDS_WITHIN) });
        }
    }

    fn lease_moved(&mut self) -> Option<Exit> {
        if self.activating && self.lease.look(|status| status.role) == Role::Primary {
            self.activating = false;
            self.host.seen().active = true;
            self.host.tell(Happening::IsPrimary);
        }
        let view = self.lease.look(View::of);
        if self.view.as_ref() == Some(&view) {
            return None;
        }
        self.view = Some(view.clone());
        self.succeed(succession::Event::Lease(view))
    }
}

impl Drop for Process {
    /// However a process ends, nothing of it goes on, and the system gives its locks back. Its machines hold the
    /// executor that holds them: a task that was cancelled is dropped at its next turn.
    fn drop(&mut self) {
        self.tasks.clear();
        while self.executor.try_tick() {}
    }
}
