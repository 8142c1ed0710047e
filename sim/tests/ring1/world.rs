//! One run: hosts with an application and a replicator each, one store, somebody who restores.
//!
//! The supervisor's tasks let happen what the plan says and judge what comes of it. Then all faults
//! end, and all must come to rest ([`healing`]).

mod healing;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use driftless::clock;
use driftless_core::ids::Txid;
use driftless_core::machine::{Event, Exit, Fact, OpIds, ReplicaId};
use driftless_core::restore::{RestoreConfig, Restorer};
use driftless_sim::disk::{Disk, DiskConfig, SimClock};
use driftless_sim::ring0::dice::Dice;
use driftless_sim::ring0::image::Image;
use driftless_sim::ring0::violation::Violation;
use madsim::net::NetSim;
use madsim::runtime::{Handle, Runtime};
use madsim::task::NodeId;
use madsim::time::{TimeHandle, sleep};

use super::database::{Connection, Database};
use super::judge::Judge;
use super::pair;
use super::plan::{Blow, Op, Plan, Scenario};
use super::processes::{self, Host};
use super::server::{self, ADDRESS, Store};

/// What a run came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    pub commits: u64,
    pub segments: u64,
    pub reports: u64,
    pub starts: u64,
    pub restores: u64,
    pub fenced: u64,
    pub takeovers: u64,
    pub overtaken: u64,
    /// Databases that were kept aside.
    pub asides: u64,
    /// Objects that were deleted.
    pub deleted: u64,
    /// Steps of copies from one state to a later one.
    pub followed: u64,
    pub requests: u64,
    /// Requests that did not simply work.
    pub faults: u64,
    /// Milliseconds from the end of faults to quiet.
    pub converged_ms: u64,
    /// A digest of all that was asked of the store, and when.
    pub digest: u64,
}

/// A run in which something was not as it must be.
#[derive(Debug)]
pub struct Failure {
    pub scenario: Scenario,
    pub seed: u64,
    pub violation: Violation,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { scenario, seed, violation } = self;
        let name = scenario.name();
        write!(f, "ring 1, {name} {seed}: {violation}\nreplay: cargo ring1 replay {name} {seed} -v")
    }
}

/// Runs a seed of a scenario.
///
/// # Errors
/// What the first oracle says that is not content.
pub fn run(scenario: Scenario, seed: u64, verbose: bool) -> Result<Summary, Failure> {
    // A thread of its own has fresh keys for hash maps, which madsim draws from the seed.
    let run = std::thread::spawn(move || {
        let dice = Dice::new(Dice::new(seed).draw("scenario", &scenario.name(), 0));
        let plan = Plan::of(scenario, &dice);
        let mut config = madsim::Config::default();
        config.net.packet_loss_rate = plan.loss as f64 / 1_000.0;
        config.net.send_latency = Duration::from_micros(200)..plan.latency;
        let mut runtime = Runtime::with_seed_and_config(dice.draw("madsim", "", 0), config);
        runtime.set_time_limit(Duration::from_secs(4 * 60 * 60));
        match scenario {
            Scenario::Failover => runtime.block_on(pair::run(plan, dice, verbose)),
            _ => runtime.block_on(World::run(plan, dice, verbose)),
        }
    });
    match run.join() {
        Ok(Ok(summary)) => Ok(summary),
        Ok(Err(violation)) => Err(Failure { scenario, seed, violation }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("(no words)").to_owned();
            Err(Failure { scenario, seed, violation: Violation::new("panic", text) })
        }
    }
}

struct World {
    plan: Plan,
    dice: Dice,
    store: server::Shared,
    store_node: NodeId,
    judge: Mutex<Judge>,
    hosts: Vec<(Arc<Host>, NodeId)>,
    /// Counts the deaths and starts of each host's process and then of the store, so that a start
    /// that comes too late is none.
    deaths: Mutex<Vec<u64>>,
    healed: AtomicBool,
    /// Restores under way.
    readers: Mutex<u64>,
    violation: Mutex<Option<Violation>>,
    tally: Mutex<Summary>,
    verbose: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}

fn node(name: &str, ip: IpAddr) -> madsim::runtime::NodeHandle {
    Handle::current().create_node().name(name).ip(ip).build()
}

impl World {
    async fn run(plan: Plan, dice: Dice, verbose: bool) -> Result<Summary, Violation> {
        let world = World::new(plan, dice, verbose);
        if verbose {
            eprintln!("{:#?}", world.plan);
        }
        let ops = madsim::task::spawn(Arc::clone(&world).live());
        let blows = madsim::task::spawn(Arc::clone(&world).strike());
        ops.await.expect("never cancelled");
        blows.await.expect("never cancelled");
        world.heal().await;
        world.converge().await?;
        world.check_idle().await?;
        world.check_readers().await?;
        world.finish()
    }

    fn new(plan: Plan, dice: Dice, verbose: bool) -> Arc<World> {
        let store = Store::new(dice, plan.page_max, verbose);
        server::locked(&store).weather = plan.weather;
        let address: std::net::SocketAddr = ADDRESS.parse().expect("an address");
        let served = Arc::clone(&store);
        let handle = Handle::current();
        let store_node = handle.create_node().name("store").ip(address.ip());
        let store_node = store_node.init(move || server::serve(Arc::clone(&served))).build().id();
        Arc::new_cyclic(|world: &std::sync::Weak<World>| {
            let hosts = (0..plan.starts.len())
                .map(|n| {
                    let on_fact = {
                        let world = world.clone();
                        move |fact: &Fact| {
                            if let Some(world) = world.upgrade() {
                                world.said(n, fact);
                            }
                        }
                    };
                    let host = Arc::new(host(&plan, &dice, n, Box::new(on_fact)));
                    let run = Arc::clone(&host);
                    // A process that is killed before it began does not wait when it starts again.
                    let wait = Mutex::new(Some(plan.starts[n].0));
                    let builder = handle.create_node().name(format!("host {n}"));
                    let builder = builder.ip(IpAddr::from([10, 0, 0, 1 + n as u8]));
                    let node = builder.init(move || {
                        let (host, wait) = (Arc::clone(&run), locked(&wait).take());
                        async move {
                            sleep(wait.unwrap_or_default()).await;
                            processes::replicate(host).await;
                        }
                    });
                    (host, node.build().id())
                })
                .collect::<Vec<_>>();
            let mut judge = Judge::new(hosts.len());
            for (truth, (host, _)) in judge.truths.iter_mut().zip(&hosts) {
                truth.note(locked(&host.database).image(&Image::default()));
            }
            World {
                store,
                store_node,
                judge: Mutex::new(judge),
                deaths: Mutex::new(vec![0; hosts.len() + 1]),
                healed: AtomicBool::new(false),
                readers: Mutex::default(),
                hosts,
                violation: Mutex::default(),
                tally: Mutex::default(),
                plan,
                dice,
                verbose,
            }
        })
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{:>12.6} {}", TimeHandle::current().elapsed().as_secs_f64(), text());
        }
    }

    fn object(&self, found: Result<(), Violation>) {
        if let Err(violation) = found {
            self.say(|| format!("!!! {violation}"));
            locked(&self.violation).get_or_insert(violation);
        }
    }

    /// A process says something.
    fn said(&self, n: usize, fact: &Fact) {
        self.say(|| format!("host {n} says {fact:?}"));
        if let Fact::Replicated { txid, .. } | Fact::Adopted { txid } = fact {
            let mut judge = locked(&self.judge);
            let mut found = judge.report(n, *txid, &server::locked(&self.store).bucket);
            if let Fact::Replicated { .. } = fact {
                found = found.and_then(|()| judge.written(n, *txid));
            }
            drop(judge);
            self.object(found);
        }
        if let Fact::Head { txid } = fact {
            locked(&self.judge).found(n, *txid);
        }
    }

    /// The applications.
    async fn live(self: Arc<Self>) {
        let mut ops = self.plan.ops.clone();
        ops.sort_by_key(|(at, ..)| *at);
        for (n, (at, host, op)) in ops.into_iter().enumerate() {
            until(at).await;
            if locked(&self.violation).is_some() {
                return;
            }
            self.perform(n as u64, host, op).await;
        }
        for (host, _) in &self.hosts {
            locked(&host.database).end(Connection::Reader);
        }
    }

    async fn perform(&self, n: u64, host: usize, op: Op) {
        let shared = &self.hosts[host].0.database;
        let (pages, size) = match op {
            Op::Checkpoint => {
                locked(shared).checkpoint();
                return self.tell(n, host).await;
            }
            Op::ReaderBegin => return locked(shared).begin_read(Connection::Reader),
            Op::ReaderEnd => return locked(shared).end(Connection::Reader),
            Op::Write { changed, added } => {
                let database = locked(shared);
                let (before, page_bytes) = (database.pages(), database.page_bytes());
                let pages = (0..changed)
                    .map(|k| {
                        2 + (self.dice.draw("page", "which", n * 64 + u64::from(k)) % 1_000) as u32 % before
                    })
                    .chain(before + 1..=before + added)
                    .map(|page| (page, content(&self.dice, n, page, page_bytes)))
                    .collect();
                (pages, before + added)
            }
            Op::Shrink => (BTreeMap::new(), (locked(shared).pages() * 3 / 4).max(1)),
        };
        // A writer that finds the lock taken waits, as with a busy timeout.
        while self.hosts[host].0.database.lock().expect("no holder panics").commit(&pages, size).is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        self.committed(host);
        self.tell(n, host).await;
    }

    fn committed(&self, host: usize) {
        let mut database = locked(&self.hosts[host].0.database);
        let truth = &mut locked(&self.judge).truths[host];
        truth.note(database.image(truth.last().expect("the first state is known")));
        locked(&self.tally).commits += 1;
        self.say(|| format!("host {host} commits: {} pages, {} frames", database.pages(), database.frames()));
        if database.frames() > 1_000 {
            database.checkpoint();
        }
    }

    /// The watcher's work: the process hears of a change a little later.
    async fn tell(&self, n: u64, host: usize) {
        let host = Arc::clone(&self.hosts[host].0);
        let late = self.dice.wait("watch", "late", n, 20, 20_000);
        madsim::task::spawn(async move {
            sleep(late).await;
            let wants = host.seen().wants_events;
            if wants {
                host.send(Event::SourceChanged);
            }
        });
    }

    /// What befalls the processes.
    async fn strike(self: Arc<Self>) {
        for (n, (at, host, blow)) in self.plan.blows.clone().into_iter().enumerate() {
            until(at).await;
            self.say(|| format!("!!! host {host}: {blow:?}"));
            let world = Arc::clone(&self);
            match blow {
                Blow::Kill { power, down } => {
                    let death = self.kill(host, power, n as u64);
                    madsim::task::spawn(world.start_later(host, death, down));
                }
                Blow::Stop { grace, down } => drop(madsim::task::spawn(world.stop(host, grace, down))),
                Blow::Pause { time } => drop(madsim::task::spawn(world.pause(host, time))),
                Blow::Cut { out, back, time } => {
                    madsim::task::spawn(world.cut(host, out, back, time));
                }
                Blow::StoreDown { down } => {
                    let store = self.hosts.len();
                    Handle::current().kill(self.store_node);
                    let death = self.died(store);
                    madsim::task::spawn(world.start_later(store, death, down));
                }
                Blow::Restore => drop(madsim::task::spawn(world.restore(10 + n as u8))),
            }
        }
    }

    /// Counts a death or a start.
    fn died(&self, n: usize) -> u64 {
        if let Some((host, _)) = self.hosts.get(n) {
            host.forget_process();
        }
        let mut deaths = locked(&self.deaths);
        deaths[n] += 1;
        deaths[n]
    }

    fn kill(&self, n: usize, power: bool, strike: u64) -> u64 {
        let (host, node) = &self.hosts[n];
        Handle::current().kill(*node);
        if power {
            let mut piece = 0;
            host.disk.power_loss(|_| {
                piece += 1;
                self.dice.chance("power", "survives", strike << 16 | piece, 1, 2)
            });
        }
        self.died(n)
    }

    /// Starts a process again that is dead since `death`, if nobody else does before.
    async fn start_later(self: Arc<Self>, n: usize, death: u64, down: Duration) {
        let healed = self.healed.load(Ordering::Relaxed);
        sleep(if healed { Duration::ZERO } else { down }).await;
        if locked(&self.deaths)[n] == death {
            self.start(n);
        }
    }

    fn start(&self, n: usize) {
        self.died(n);
        self.say(|| format!("node {n} starts again"));
        Handle::current().restart(self.hosts.get(n).map_or(self.store_node, |(_, node)| *node));
    }

    async fn stop(self: Arc<Self>, n: usize, grace: Duration, down: Duration) {
        let host = &self.hosts[n].0;
        let (death, owed) = (locked(&self.deaths)[n], locked(&self.judge).truths[n].len());
        let listens = host.seen().sender.is_some();
        host.send(Event::Shutdown { deadline: clock::mono().after(grace) });
        // Beyond its deadline a process ends once the call under way has.
        while listens && locked(&self.deaths)[n] == death && host.seen().exit.is_none() {
            sleep(Duration::from_millis(100)).await;
        }
        if locked(&self.deaths)[n] != death || !listens {
            return;
        }
        let exit = host.seen().exit.clone();
        self.say(|| format!("host {n} ends: {exit:?}"));
        if exit == Some(Exit::Done) {
            let found = locked(&self.judge).done(n, owed, &server::locked(&self.store).bucket);
            self.object(found);
        }
        self.start_later(n, death, down).await;
    }

    async fn pause(self: Arc<Self>, n: usize, time: Duration) {
        Handle::current().pause(self.hosts[n].1);
        sleep(time).await;
        Handle::current().resume(self.hosts[n].1);
    }

    async fn cut(self: Arc<Self>, n: usize, out: bool, back: bool, time: Duration) {
        let (host, store, net) = (self.hosts[n].1, self.store_node, NetSim::current());
        if out {
            net.clog_link(host, store);
        }
        if back {
            net.clog_link(store, host);
        }
        sleep(time).await;
        net.unclog_link(host, store);
        net.unclog_link(store, host);
    }

    /// Somebody on another machine restores what is there.
    async fn restore(self: Arc<Self>, address: u8) {
        let known = locked(&self.judge).reported;
        let node = node("reader", IpAddr::from([10, 0, 1, address]));
        let restorer = || Restorer::new(RestoreConfig::default(), OpIds::new(ReplicaId(0), 7));
        *locked(&self.readers) += 1;
        let reader = node.spawn(async move {
            // What runs in a process stays on its thread.
            madsim::task::spawn_local(processes::read(restorer())).await.expect("never cancelled")
        });
        let (exit, status, file) = reader.await.expect("never cancelled");
        *locked(&self.readers) -= 1;
        self.say(|| format!("a restore ends: {exit:?} {:?}", status.target));
        self.object(self.judge_restore(known, &exit, status.target, file));
    }

    fn judge_restore(
        &self,
        known: Option<Txid>,
        exit: &Exit,
        target: Option<Txid>,
        file: Option<Vec<u8>>,
    ) -> Result<(), Violation> {
        let fail = |text: String| Err(Violation::new("restore", text));
        match (exit, file) {
            (Exit::Done, Some(bytes)) => {
                locked(&self.tally).restores += 1;
                let image = Image::of_bytes(self.plan.page_bytes as usize, &bytes, &Image::default());
                let store = server::locked(&self.store);
                locked(&self.judge).restored(target, known, &image, &store.bucket)
            }
            (Exit::NothingToRestore { .. }, _) if known.is_none() => Ok(()),
            // It gives up in the end where the store does not answer.
            (Exit::Failed { .. }, _) if self.plan.scenario != Scenario::Calm => Ok(()),
            (exit, _) => fail(format!("{known:?} was reported, and a restore ended with {exit:?}")),
        }
    }

    fn finish(&self) -> Result<Summary, Violation> {
        let store = server::locked(&self.store);
        let judge = locked(&self.judge);
        judge.check_contiguous(&store.bucket)?;
        Ok(Summary {
            segments: judge.segments(),
            reports: judge.reports,
            starts: self.hosts.iter().map(|(host, _)| host.seen().starts).sum(),
            requests: store.requests,
            faults: store.faults,
            digest: store.digest(),
            ..*locked(&self.tally)
        })
    }
}

fn host(plan: &Plan, dice: &Dice, n: usize, on_fact: Box<dyn Fn(&Fact) + Send + Sync>) -> Host {
    let number = n as u64;
    // Twins are the same to the last byte.
    let content_of = if plan.scenario == Scenario::Twins { 0 } else { number };
    let salt = dice.draw("salt", "", number) as u32;
    let mut database = Database::new(plan.page_bytes, content_of as u32, 10 * (number + 1), salt);
    if plan.first_pages > 1 {
        let page_bytes = database.page_bytes();
        let first = (2..=plan.first_pages)
            .map(|page| (page, content(dice, u64::MAX - content_of, page, page_bytes)))
            .collect();
        database.commit(&first, plan.first_pages).expect("nobody else is there");
    }
    let disk = Disk::new(DiskConfig::default(), SimClock::new(1_800_000_000_000_000_000));
    Host {
        database: Arc::new(Mutex::new(database)),
        disk,
        config: plan.config.clone(),
        adopt: plan.starts[n].1,
        seen: Mutex::default(),
        on_fact,
    }
}

/// Half of a page repeats, and half is noise.
pub fn content(dice: &Dice, n: u64, page: u32, page_bytes: usize) -> Vec<u8> {
    let mut word = dice.draw("content", "", n ^ u64::from(page) << 40);
    let mut bytes = vec![word as u8; page_bytes];
    for eight in bytes[page_bytes / 8..].chunks_exact_mut(8) {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        eight.copy_from_slice(&(word ^ word >> 29).to_le_bytes());
    }
    bytes
}

async fn until(at: Duration) {
    let now = TimeHandle::current().elapsed();
    sleep(at.saturating_sub(now)).await;
}
