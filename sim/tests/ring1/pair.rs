//! Hosts that hand one database on to each other (`Scenario::Failover`): the production drivers, lease,
//! succession, follower and replicator in processes of their own, with production's S3 store on a simulated
//! network between them and the bucket.
//!
//! Ring 0's `pair` asks the same of the machines alone, with a model of SQLite and power failures of the
//! database; here what is real is everything between the machines and the wire: connections that break, answers
//! that are lost or cut, requests that arrive when their sender is long gone.

mod judge;
mod process;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use driftless_core::engine::Config;
use driftless_core::ids::{PENDING_BYTE, Txid};
use driftless_core::lease::{CELL, request_deadline};
use driftless_core::machine::{Event, Exit, Fact};
use driftless_sim::disk::{Disk, DiskConfig, SimClock};
use driftless_sim::ring0::dice::Dice;
use driftless_sim::ring0::image::Image;
use driftless_sim::ring0::violation::Violation;
use driftless_sim::upkeep;
use madsim::net::NetSim;
use madsim::runtime::Handle;
use madsim::task::NodeId;
use madsim::time::{TimeHandle, sleep};

use self::judge::Judge;
use self::process::{Happening, Host, Tells, Told, contend};
use crate::database::Database;
use crate::fates::Weather;
use crate::judge::ROOT;
use crate::plan::Plan;
use crate::server::{self, ADDRESS, Store};
use crate::world::{Summary, content};

/// Until when faults strike.
const TROUBLED: Duration = Duration::from_secs(120);
/// When applications stop to write.
const RESTS: Duration = Duration::from_secs(200);
/// When all that was committed is on the replica, and on each copy.
const END: Duration = Duration::from_secs(260);
/// After the faults, somebody writes within twice the time to live, two answers that never come, and this: a
/// process that has died begins again within 15 s, and the store within 20.
const BEYOND: Duration = Duration::from_secs(40);

/// What befalls a host, or the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Blow {
    /// Its process dies, and its application; the machine as well, with what was not synced, if so.
    Kill {
        power: bool,
    },
    /// Its process stands still; so does its application, if so.
    Pause {
        app: bool,
        time: Duration,
    },
    /// Packets to the store, from it, or both stop.
    Cut {
        out: bool,
        back: bool,
        time: Duration,
    },
    HandOver,
    /// The next host becomes a copy of its machine.
    Copied,
    StoreDown {
        time: Duration,
    },
}

struct World {
    dice: Dice,
    ttl: Duration,
    store: server::Shared,
    store_node: NodeId,
    hosts: Vec<(Arc<Host>, NodeId)>,
    state: Mutex<State>,
    verbose: bool,
}

struct State {
    judge: Judge,
    violation: Option<Violation>,
    /// Who is in whose place: the holder's name of each host.
    holders: Vec<u64>,
    /// What would be wrong, were this host the primary.
    wrong: Vec<Option<Violation>>,
    app_paused_until: Vec<Duration>,
    primary: Option<u64>,
    written_since_heal: Option<Duration>,
    tally: Summary,
    draws: u64,
}

fn now() -> Duration {
    TimeHandle::current().elapsed()
}

async fn until(at: Duration) {
    sleep(at.saturating_sub(now())).await;
}

/// Runs a seed.
///
/// # Errors
/// What an oracle saw.
pub async fn run(plan: Plan, dice: Dice, verbose: bool) -> Result<Summary, Violation> {
    let world = World::new(plan, dice, verbose);
    let apps: Vec<_> =
        (0..world.hosts.len()).map(|n| madsim::task::spawn(Arc::clone(&world).live(n))).collect();
    let blows = madsim::task::spawn(Arc::clone(&world).strike());
    until(TROUBLED).await;
    blows.await.expect("never cancelled");
    world.heal();
    until(END).await;
    for app in apps {
        app.await.expect("never cancelled");
    }
    world.finish()
}

impl World {
    fn new(plan: Plan, dice: Dice, verbose: bool) -> Arc<World> {
        let store = Store::new(dice, plan.page_max, verbose);
        server::locked(&store).weather = plan.weather;
        let address: std::net::SocketAddr = ADDRESS.parse().expect("an address");
        let (served, handle) = (Arc::clone(&store), Handle::current());
        let store_node = handle.create_node().name("store").ip(address.ip());
        let store_node = store_node.init(move || server::serve(Arc::clone(&served))).build().id();
        let count = dice.range("plan", "hosts", 0, 2, 3) as usize;
        let ttl = Duration::from_secs(*dice.pick("plan", "ttl", 0, &[3, 10]));
        Arc::new_cyclic(|world: &std::sync::Weak<World>| {
            let hosts = (0..count)
                .map(|n| {
                    let tells = {
                        let world = world.clone();
                        move |host: &Host, happening: Happening| {
                            if let Some(world) = world.upgrade() {
                                world.happens(host, happening);
                            }
                        }
                    };
                    let host = Arc::new(host(&plan, &dice, n, ttl, Box::new(tells)));
                    let (world, run) = (world.clone(), Arc::clone(&host));
                    let builder = handle.create_node().name(format!("host {n}"));
                    let builder = builder.ip(IpAddr::from([10, 0, 0, 1 + n as u8]));
                    let node = builder.init(move || serve(world.clone(), Arc::clone(&run)));
                    (host, node.build().id())
                })
                .collect::<Vec<_>>();
            let state = State {
                judge: Judge::new(count),
                violation: None,
                holders: (0..count as u64).map(|n| 100 + n).collect(),
                wrong: (0..count).map(|_| None).collect(),
                app_paused_until: vec![Duration::ZERO; count],
                primary: None,
                written_since_heal: None,
                tally: Summary::default(),
                draws: 0,
            };
            World { dice, ttl, store, store_node, hosts, state: Mutex::new(state), verbose }
        })
    }

    /// No holder of the lock awaits.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{:>12.6} {}", now().as_secs_f64(), text());
        }
    }

    fn object(&self, found: Result<(), Violation>) {
        if let Err(violation) = found {
            self.say(|| format!("!!! {violation}"));
            self.state().violation.get_or_insert(violation);
        }
    }

    /// A time that is drawn for the next of something.
    fn draw(&self, what: &str, least_us: u64, most_us: u64) -> Duration {
        let n = {
            let mut state = self.state();
            state.draws += 1;
            state.draws
        };
        self.dice.wait("wait", what, n, least_us, most_us)
    }

    fn happens(&self, host: &Host, happening: Happening) {
        let n = host.number;
        self.say(|| format!("host {n}: {happening:?}"));
        let image = host.database.lock().expect("no holder panics").image(&Image::default());
        let mut state = self.state();
        let store = server::locked(&self.store);
        let held = store.bucket.get(&format!("{ROOT}/{CELL}")).is_some();
        let followed = state.judge.follow(&store.bucket);
        let found = followed.and_then(|()| state.happens(n, happening, image, held));
        drop(store);
        drop(state);
        self.object(found);
    }

    /// The application of a host: while its process is the primary, it writes.
    async fn live(self: Arc<Self>, n: usize) {
        let host = &self.hosts[n].0;
        let mut turn = (n as u64) << 32;
        loop {
            turn += 1;
            // Bursts, and times in which little happens.
            let most = if self.dice.chance("app", "slow", turn >> 4, 1, 2) { 3_000_000 } else { 60_000 };
            let wait = self.dice.wait("app", "wait", turn, 2_000, most);
            sleep(wait).await;
            if now() >= RESTS || self.state().violation.is_some() {
                return;
            }
            if host.seen().active && self.state().app_paused_until[n] <= now() {
                self.commit(host, turn);
            }
        }
    }

    fn commit(&self, host: &Arc<Host>, turn: u64) {
        let mut database = host.database.lock().expect("no holder panics");
        if !database.exists() {
            database.create();
        }
        let (before, page_bytes) = (database.pages(), database.page_bytes());
        let (mut pages, mut size) = (std::collections::BTreeMap::new(), before);
        match self.dice.draw("app", "work", turn) % 12 {
            0 => size = (before * 3 / 4).max(1),
            _ => {
                size += self.dice.range("app", "added", turn, 0, 2) as u32;
                for k in 0..self.dice.range("app", "changed", turn, 1, 5) {
                    let page = 2 + (self.dice.draw("app", "page", turn * 8 + k) % u64::from(size)) as u32;
                    pages.insert(page, content(&self.dice, turn, page, page_bytes));
                }
            }
        }
        if database.commit(&pages, size).is_err() {
            // It finds the lock taken, and tries the next thing.
            return;
        }
        if self.dice.chance("app", "checkpoint", turn, 1, 12) {
            database.checkpoint();
        }
        let mut state = self.state();
        let image = database.image(state.judge.truths[host.number].last().unwrap_or(&Image::default()));
        state.judge.truths[host.number].note(image);
        state.tally.commits += 1;
        if now() >= TROUBLED {
            state.written_since_heal.get_or_insert(now());
        }
        drop((state, database));
        // The watcher's work: the process hears of it a little later.
        let (late, host) = (self.dice.wait("watch", "late", turn, 20, 20_000), Arc::clone(host));
        madsim::task::spawn(async move {
            sleep(late).await;
            if let Some(changes) = &host.seen().changes {
                let _ = changes.try_send(Event::SourceChanged);
            }
        });
    }

    async fn strike(self: Arc<Self>) {
        let dice = self.dice;
        let count = dice.range("blow", "count", 0, 1, 8);
        let mut times: Vec<u64> =
            (0..count).map(|n| dice.range("blow", "at", n, 5_000, TROUBLED.as_millis() as u64)).collect();
        times.sort_unstable();
        for (n, at) in times.into_iter().enumerate() {
            until(Duration::from_millis(at)).await;
            let n = n as u64;
            let any = dice.draw("blow", "host", n) as usize % self.hosts.len();
            // Most strike whoever writes.
            let writer = self.hosts.iter().position(|(host, _)| host.seen().active);
            let host = writer.filter(|_| dice.chance("blow", "writer", n, 3, 4)).unwrap_or(any);
            let time = dice.wait("blow", "time", n, 500_000, 40_000_000);
            let time = time.min(TROUBLED.saturating_sub(now()));
            let blow = match dice.draw("blow", "kind", n) % 12 {
                0..=2 => Blow::Kill { power: dice.chance("blow", "power", n, 1, 3) },
                3..=5 => Blow::Pause { app: dice.chance("blow", "app", n, 1, 2), time },
                6 | 7 => {
                    let which = dice.draw("blow", "which", n) % 4;
                    Blow::Cut { out: which != 1, back: which != 0, time }
                }
                8 | 9 => Blow::HandOver,
                10 => Blow::Copied,
                _ => Blow::StoreDown { time: time / 2 },
            };
            self.say(|| format!("!!! host {host}: {blow:?}"));
            self.befall(host, blow, n);
        }
    }

    fn befall(self: &Arc<Self>, n: usize, blow: Blow, strike: u64) {
        let (handle, net) = (Handle::current(), NetSim::current());
        let (host, node) = &self.hosts[n];
        let (node, store) = (*node, self.store_node);
        match blow {
            Blow::Kill { power } => {
                self.kill(n);
                let mut piece = 0;
                if power {
                    host.disk.power_loss(|_| {
                        piece += 1;
                        self.dice.chance("power", "survives", strike << 16 | piece, 1, 2)
                    });
                }
            }
            Blow::Pause { app, time } => {
                if app {
                    self.state().app_paused_until[n] = now() + time;
                }
                handle.pause(node);
                madsim::task::spawn(async move {
                    sleep(time).await;
                    Handle::current().resume(node);
                });
            }
            Blow::Cut { out, back, time } => {
                if out {
                    net.clog_link(node, store);
                }
                if back {
                    net.clog_link(store, node);
                }
                madsim::task::spawn(async move {
                    sleep(time).await;
                    NetSim::current().unclog_link(node, store);
                    NetSim::current().unclog_link(store, node);
                });
            }
            Blow::HandOver => {
                if let Some(asks) = &host.seen().asks {
                    let _ = asks.try_send(Told::HandOver);
                }
            }
            Blow::Copied => {
                let to = (n + 1) % self.hosts.len();
                self.kill(to);
                self.hosts[to].0.become_copy_of(host);
                let mut state = self.state();
                state.judge.copied(n, to);
                state.holders[to] = state.holders[n];
            }
            Blow::StoreDown { .. } if handle.is_exit(store) => {}
            Blow::StoreDown { time } => {
                handle.kill(store);
                madsim::task::spawn(async move {
                    sleep(time).await;
                    Handle::current().restart(store);
                });
            }
        }
    }

    /// A process dies, and another begins after a while.
    fn kill(self: &Arc<Self>, n: usize) {
        let (host, node) = &self.hosts[n];
        let node = *node;
        Handle::current().kill(node);
        host.forget_process();
        self.state().judge.forget_process(n);
        let (wait, run, host) =
            (self.draw("restart", 100_000, 15_000_000), host.seen().run, Arc::clone(host));
        madsim::task::spawn(async move {
            sleep(wait).await;
            // Unless it was killed again since.
            if host.seen().run == run {
                Handle::current().restart(node);
            }
        });
    }

    /// All faults end.
    fn heal(&self) {
        self.say(|| "--- all faults end".into());
        let (net, handle) = (NetSim::current(), Handle::current());
        net.update_config(|config| {
            config.packet_loss_rate = 0.0;
            config.send_latency = Duration::from_micros(200)..Duration::from_millis(10);
        });
        server::locked(&self.store).weather = Weather::default();
        for (_, node) in &self.hosts {
            net.unclog_link(*node, self.store_node);
            net.unclog_link(self.store_node, *node);
            handle.resume(*node);
        }
        self.state().app_paused_until.fill(Duration::ZERO);
    }

    fn finish(&self) -> Result<Summary, Violation> {
        let mut state = self.state();
        let store = server::locked(&self.store);
        if let Some(violation) = state.violation.take() {
            return Err(violation);
        }
        state.judge.follow(&store.bucket)?;
        let liveness = |text: String| Err(Violation::new("liveness", text));
        let bound = TROUBLED + 2 * (self.ttl + request_deadline(self.ttl)) + BEYOND;
        match state.written_since_heal {
            Some(at) if at <= bound => {}
            at => return liveness(format!("nobody wrote until {at:?}, {bound:?} is the bound")),
        }
        let active = self.hosts.iter().filter(|(host, _)| host.seen().active).count();
        if active != 1 {
            return liveness(format!("in the end {active} hosts are primaries"));
        }
        let end = &state.judge.restored.image;
        for (host, _) in &self.hosts {
            let (n, active) = (host.number, host.seen().active);
            let image = host.database.lock().expect("no holder panics").image(end);
            let same = if active { image == *end } else { image.mark_as_copied() == end.mark_as_copied() };
            if !same {
                let differs = end.differences(&image);
                return liveness(format!(
                    "host {n} (primary: {active}) has {image:?}, and the replica ends with {end:?}: {differs}"
                ));
            }
        }
        Ok(Summary {
            segments: state.judge.restored.txid.map_or(0, Txid::get),
            reports: state.judge.reports,
            asides: state.judge.asides() as u64,
            deleted: store.bucket.deleted() as u64,
            requests: store.requests,
            faults: store.faults,
            digest: store.digest(),
            ..state.tally
        })
    }
}

impl State {
    /// Something happens at a host, whose database is so; the lease has been held by anybody or not.
    fn happens(&mut self, n: usize, happening: Happening, image: Image, held: bool) -> Result<(), Violation> {
        match happening {
            Happening::Says(Fact::Replicated { txid, .. }) => self.judge.reported(n, txid),
            Happening::Follows(Fact::Followed { .. }) => {
                self.tally.followed += 1;
                Ok(())
            }
            Happening::Says(_) | Happening::Follows(_) => Ok(()),
            Happening::WritesOver => self.judge.writes_over(n, &image),
            // Whoever stands by is in nobody's way with what it has.
            Happening::KeptAside if !held && n == 0 => {
                let text = format!("host {n} moves its database aside, and nobody has held the lease");
                Err(Violation::new("succession", text))
            }
            Happening::KeptAside => {
                self.judge.kept(n, image);
                Ok(())
            }
            Happening::Begins { fences } => {
                self.judge.begins(n, image, fences);
                Ok(())
            }
            Happening::Activates => {
                // Whoever has lost the lease meanwhile may be wrong.
                self.wrong[n] = self.judge.activates(n, &image).err();
                Ok(())
            }
            Happening::IsPrimary => {
                let holder = self.holders[n];
                self.tally.takeovers += u64::from(self.primary.is_some_and(|before| before != holder));
                self.primary = Some(holder);
                self.wrong[n].take().map_or(Ok(()), Err)
            }
            Happening::Overtaken => {
                self.tally.overtaken += 1;
                Ok(())
            }
            Happening::Ends(exit) => {
                self.judge.forget_process(n);
                self.tally.fenced += u64::from(matches!(exit, Exit::Fenced { .. }));
                match exit {
                    // A hand-over may come to its deadline.
                    Exit::Done | Exit::Fenced { .. } | Exit::Unreplicated { .. } => Ok(()),
                    exit => Err(Violation::new("exit", format!("the process of host {n} ends: {exit:?}"))),
                }
            }
        }
    }
}

/// A host's process, and another behind each that ends by itself.
async fn serve(world: std::sync::Weak<World>, host: Arc<Host>) {
    let draw = |what: &str, most: u64| world.upgrade().expect("it outlives its nodes").draw(what, 1, most);
    if host.seen().run == 0 {
        sleep(draw("begin", 5_000_000)).await;
    }
    loop {
        let holder = {
            let world = world.upgrade().expect("it outlives its nodes");
            let mut state = world.state();
            state.tally.starts += 1;
            state.holders[host.number]
        };
        madsim::task::spawn_local(contend(Arc::clone(&host), holder)).await.expect("never cancelled");
        sleep(draw("restart", 15_000_000)).await;
    }
}

fn host(plan: &Plan, dice: &Dice, number: usize, ttl: Duration, tells: Tells) -> Host {
    let salt = dice.draw("salt", "", number as u64) as u32;
    let mut database = Database::new(plan.page_bytes, 0, 1_000 * (number as u64 + 1), salt);
    // The first may have written before anything runs.
    if number > 0 || dice.chance("plan", "before", 0, 1, 2) {
        database.replace(Vec::new());
    }
    Host {
        number,
        database: Arc::new(Mutex::new(database)),
        disk: Disk::new(DiskConfig::default(), SimClock::new(1_800_000_000_000_000_000)),
        ttl,
        config: Config { store_deadline: request_deadline(ttl), ..plan.config.clone() },
        levels: dice.chance("plan", "levels", 0, 1, 2).then(|| upkeep::hurried(dice, ttl, PENDING_BYTE)),
        seen: Mutex::default(),
        tells,
    }
}
