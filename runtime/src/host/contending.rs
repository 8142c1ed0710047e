//! From a standby to the primary: what the core's [`Succession`] decides is carried out, with followers,
//! replicators and files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::future::Future;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_io::Timer;
use driftless_adapters::fs::RealFs;
use driftless_adapters::pool::unblock;
use driftless_core::application::{Databases, Standing};
use driftless_core::follow::{FollowConfig, Follower};
use driftless_core::lease::{LeaseEvent, PlaceId, request_deadline};
use driftless_core::machine::{Chunk, Event, Exit, Fact, Machine as _, OpIds, ReplicaId, StateRequest};
use driftless_core::succession::{self, Action, Followed, Stand, Succession, View};
use futures_lite::FutureExt as _;
use smol::channel::{Receiver, Sender};

use super::copies::{forget_positions, keep_aside, name_its_state};
use super::databases::{Entry, Life};
use super::lease::{LeaseSide, depose};
use super::twins::Refusal;
use super::{Host, ReplicateJob, name_in_journal, prefixes};
use crate::clock;
use crate::discover::Directory;
use crate::driver::{self, Driver, Ports};
use crate::log;
use crate::port::Blocking as _;
use crate::port::copy::CopyPort;
use crate::port::output::OutputPort;
use crate::port::place;
use crate::port::state::Records;
use crate::port::store::StorePort;

/// A copy looks when the lease says that there is news, and otherwise this often.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// The shortest time between two log lines about progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// How long a copy may take to let go.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Contends until this process is the primary, or ends.
pub(super) async fn contend(host: Rc<Host>, jobs: Vec<ReplicateJob>, directories: Vec<Directory>) {
    let contention = Contention::open(host.clone(), jobs, directories).await;
    let over = match contention {
        Ok(contention) => contention.run().await,
        Err(exit) => Err(exit),
    };
    if let Err(exit) = over {
        depose(&host, exit);
    }
    host.changes.tell();
    host.lives.tell();
}

/// Carries out what a [`Succession`] decides, and tells it what came of it.
struct Contention {
    host: Rc<Host>,
    lease: Rc<LeaseSide>,
    /// By number.
    sides: Vec<Side>,
    /// The numbers of databases.
    numbers: BTreeMap<PathBuf, usize>,
    /// Where their replicas are.
    places: BTreeSet<PlaceId>,
    directories: Vec<Directory>,
    told: Sender<Told>,
    hears: Receiver<Told>,
}

/// What came of an action.
enum Told {
    Step(succession::Event),
    /// Of a search: the databases that have a replica.
    Found(Result<Vec<ReplicateJob>, String>),
}

/// One database.
struct Side {
    job: ReplicateJob,
    /// Whether it lies in a directory, and was not named by itself.
    found: bool,
    /// Leads to the follower that was begun last.
    follower: Option<Sender<Event>>,
    /// Whether a replicator was begun for it.
    begun: bool,
    /// What was last told of that.
    stand: Option<Stand>,
}

impl Contention {
    async fn open(
        host: Rc<Host>,
        jobs: Vec<ReplicateJob>,
        directories: Vec<Directory>,
    ) -> Result<Contention, Exit> {
        let lease = Rc::clone(host.lease.as_ref().expect("only a process with a lease contends"));
        // What is missing may be on the replica.
        let looked = |it: &Directory| Directory { watch: true, ..it.clone() };
        let looked: Vec<Directory> = directories.iter().map(looked).collect();
        let found = host.found_in(&looked, &jobs).await;
        let found = found.map_err(|Refusal { error, hint }| Exit::Misconfigured { error, hint })?;
        let (told, hears) = smol::channel::unbounded();
        let (sides, numbers, places) = Default::default();
        let mut contention = Contention { host, lease, sides, numbers, places, directories, told, hears };
        contention.add(jobs, false);
        contention.add(found, true);
        Ok(contention)
    }

    /// Gives numbers to databases that have none yet, and says where their replicas are.
    fn add(&mut self, jobs: Vec<ReplicateJob>, found: bool) -> Vec<PlaceId> {
        let mut places = Vec::new();
        for job in jobs {
            let place = job.replica.place_id();
            // Of two with one replica, as a directory may find what is named by itself, the first has it.
            if !self.numbers.contains_key(&job.database) && self.places.insert(place) {
                self.numbers.insert(job.database.clone(), self.sides.len());
                places.push(place);
                self.sides.push(Side { job, found, follower: None, begun: false, stand: None });
            }
        }
        places
    }

    async fn run(mut self) -> Result<(), Exit> {
        let places = self.sides.iter().map(|side| side.job.replica.place_id()).collect();
        let mut succession = Succession::new(places, !self.directories.is_empty(), self.lease.returns());
        let (mut seen, mut tried) = (None, false);
        while !succession.is_over() {
            let event = match self.next(seen.as_ref(), tried).await {
                Told::Step(event) => event,
                Told::Found(found) => succession::Event::Found(found.map(|jobs| self.add(jobs, true))),
            };
            match &event {
                succession::Event::Lease(view) => seen = Some(view.clone()),
                succession::Event::Tried(_) => tried = true,
                succession::Event::Stands(n, stand) => self.sides[*n].stand = Some(stand.clone()),
                succession::Event::Followed(n, followed) => self.tell_end(*n, followed),
                _ => {}
            }
            for action in succession.handle(event) {
                if matches!(action, Action::Disclaim) {
                    self.say_that_it_stands_by();
                }
                if let Err(exit) = self.carry_out(action).await {
                    for action in succession.handle(succession::Event::Ends) {
                        let _ = self.carry_out(action).await;
                    }
                    return Err(exit);
                }
            }
        }
        Ok(())
    }

    /// What the succession is to be told next. What ends it comes first.
    async fn next(&self, seen: Option<&View>, tried: bool) -> Told {
        let (host, lease) = (&self.host, &self.lease);
        let ends = host
            .changes
            .until(|| (host.is_closing() || lease.lost().is_some()).then_some(succession::Event::Ends));
        let view = lease.view();
        let looks = view.until(|status| {
            let view = View::of(status);
            (Some(&view) != seen).then_some(succession::Event::Lease(view))
        });
        let store = host.changes.until(|| lease.tried().filter(|_| !tried).map(succession::Event::Tried));
        let stands = host.changes.until(|| self.changed_stand());
        let told = async { self.hears.recv().await.expect("this holds a sender") };
        let before = async { Told::Step(ends.or(looks).or(store).await) };
        before.or(told).or(async { Told::Step(stands.await) }).await
    }

    /// A replicator that stands otherwise than was told last.
    fn changed_stand(&self) -> Option<succession::Event> {
        let begun = self.sides.iter().enumerate().filter(|(_, side)| side.begun);
        let mut stands: Vec<(usize, &Side, Stand)> =
            // One without an entry was refused, which was said, or somebody had it forgotten.
            begun.map(|(n, side)| (n, side, Stand::Ended(Exit::Done))).collect();
        self.host.for_each(|entry| {
            let number = self.numbers.get(&entry.database);
            let at = number.and_then(|n| stands.binary_search_by_key(n, |(n, ..)| *n).ok());
            if let Some(at) = at {
                stands[at].2 = stand_of(entry);
            }
        });
        let mut changed = stands.into_iter().filter(|(_, side, stand)| side.stand.as_ref() != Some(stand));
        changed.next().map(|(n, _, stand)| succession::Event::Stands(n, stand))
    }

    async fn carry_out(&mut self, action: Action) -> Result<(), Exit> {
        match action {
            Action::Disclaim => {
                let lease = self.lease.clone();
                self.spawn(async move { succession::Event::Disclaimed(lease.disclaim().await) });
            }
            Action::Name(n) => {
                let job = &self.sides[n].job;
                let named = name_its_state(job.database.clone(), records(&self.host, job));
                self.spawn(async move { succession::Event::Named(n, named.await) });
            }
            Action::Follow { database, succeeds } => return self.follow(database, succeeds),
            Action::Tell { database, succeeds: true } => {
                self.sides[database].send(Event::Lease(LeaseEvent::Succeed))
            }
            Action::Tell { database, .. } => self.sides[database].send(Event::SyncNow),
            Action::End(n) => {
                self.sides[n].send(Event::Shutdown { deadline: clock::mono().after(ENDS_WITHIN) });
            }
            Action::MoveAside(n) => {
                let (database, epoch) = (self.sides[n].job.database.clone(), self.lease.epoch());
                let emptied = inherit(&self.host, &self.sides[n].job, Vec::new());
                self.spawn(async move {
                    let done = match emptied.await {
                        Ok(()) => keep_aside(database, epoch).await,
                        Err(exit) => Err(exit),
                    };
                    succession::Event::MovedAside(n, done)
                });
            }
            Action::Inherit(n, records) => {
                let written = inherit(&self.host, &self.sides[n].job, records);
                self.spawn(async move { succession::Event::Inherited(n, written.await) });
            }
            Action::Search { wait } => self.search(wait),
            Action::Contend(contends) => {
                if !contends {
                    let hint =
                        "see who holds its lock, and to the disk; the lease is left to others until then";
                    tracing::warn!(hint, "a copy cannot be written");
                }
                self.lease.view().tell(Event::Lease(LeaseEvent::Contend(contends)));
            }
            Action::Begin(databases) => return self.begin(databases).await,
            Action::Activate => {
                // The databases go on from here: what the files say of the copies is over.
                forget_positions(self.sides.iter().map(|side| side.job.database.clone()).collect()).await?;
                self.lease.activate().await?;
                if self.lease.is_active() {
                    // From now on databases come and go in them.
                    self.host.discovery.replace(std::mem::take(&mut self.directories));
                    self.host.watches_changed();
                }
            }
            Action::Fail(exit) => return Err(exit),
        }
        Ok(())
    }

    /// Looks for databases that have a replica, and makes the directories that they are to be in.
    fn search(&self, wait: Duration) {
        let (host, told) = (self.host.clone(), self.told.clone());
        let known: BTreeSet<PathBuf> = self.numbers.keys().cloned().collect();
        let directories = self.directories.clone();
        let deadline = request_deadline(self.lease.ttl());
        self.host.spawn(async move {
            Timer::after(wait).await;
            let found = search(&host, &directories, &known, deadline).await;
            if let Err(error) = &found {
                tracing::warn!("databases cannot be looked for on the replica: {error}");
            }
            // Nobody hears it once the succession is over.
            let _ = told.try_send(Told::Found(found));
        });
    }

    /// Does something for a database, and tells what came of it. The process does not end before that.
    fn spawn(&self, step: impl Future<Output = succession::Event> + 'static) {
        let (host, lease, told) = (self.host.clone(), self.lease.clone(), self.told.clone());
        lease.copies.set(lease.copies.get() + 1);
        self.host.spawn(async move {
            // Nobody hears it once the succession is over.
            let _ = told.try_send(Told::Step(step.await));
            lease.copies.set(lease.copies.get() - 1);
            host.changes.tell();
            host.lives.tell();
        });
    }

    fn follow(&mut self, n: usize, succeeds: bool) -> Result<(), Exit> {
        let side = &mut self.sides[n];
        let name = side.job.database.display().to_string();
        if side.begun {
            tracing::info!(database = name, "the predecessor has written one more: following it");
        }
        let (driver, sender) = follower(&self.host, &side.job)?;
        if succeeds {
            let _ = sender.try_send(Event::Lease(LeaseEvent::Succeed));
        }
        side.follower = Some(sender);
        let told = self.told.clone();
        let obstructed = move |is_so| {
            // Nobody hears it once the succession is over.
            let _ = told.try_send(Told::Step(succession::Event::Obstructed(n, is_so)));
        };
        self.spawn(
            async move { succession::Event::Followed(n, run_follower(driver, &name, obstructed).await) },
        );
        Ok(())
    }

    async fn begin(&mut self, databases: Vec<(usize, bool)>) -> Result<(), Exit> {
        let fenced = databases.iter().filter(|(_, fences)| *fences);
        self.lease.will_fence(fenced.map(|(n, _)| self.sides[*n].job.database.clone()));
        let (again, new): (Vec<usize>, Vec<usize>) =
            databases.iter().map(|(n, _)| *n).partition(|n| self.sides[*n].begun);
        for (n, _) in &databases {
            (self.sides[*n].begun, self.sides[*n].stand) = (true, None);
        }
        if !new.is_empty() {
            // What was begun before goes on.
            let jobs = |found| -> Vec<ReplicateJob> {
                let begun = self.sides.iter().filter(|side| side.begun && side.found == found);
                begun.map(|side| side.job.clone()).collect()
            };
            let begun = self.host.take_up(&jobs(false), &jobs(true)).await;
            begun.map_err(|refusal| Exit::Misconfigured { error: refusal.error, hint: refusal.hint })?;
        }
        for n in again {
            let begun = self.host.start(&self.sides[n].job.database, ENDS_WITHIN).await;
            begun.map_err(|failure| Exit::Failed { error: failure.error, hint: failure.hint })?;
        }
        if self.lease.lost().is_some() {
            // It was lost while they were begun.
            self.host.abandon();
        }
        Ok(())
    }

    fn say_that_it_stands_by(&self) {
        let status = self.lease.status();
        match status.body {
            _ if status.until.is_some() => {}
            Some(body) => {
                let (holder, epoch, address) = (format!("{:016x}", body.holder), body.epoch, body.address);
                tracing::info!(holder, epoch, address, "standing by: another process holds the lease");
            }
            None => tracing::info!("standing by: nobody has ever held the lease"),
        }
    }

    fn tell_end(&self, n: usize, followed: &Followed) {
        let database = self.sides[n].job.database.display().to_string();
        match &followed.exit {
            Exit::NothingToRestore { .. } => tracing::info!(database, "there is nothing on the replica yet"),
            Exit::Failed { error, .. } if followed.unknown => tracing::warn!(database, "{error}"),
            _ => {}
        }
    }
}

impl Side {
    fn send(&self, event: Event) {
        if let Some(follower) = &self.follower {
            // One that has ended needs none.
            let _ = follower.try_send(event);
        }
    }
}

fn stand_of(entry: &Entry) -> Stand {
    match &entry.life {
        Life::Ended(exit) => Stand::Ended(exit.clone()),
        // It has not ended yet.
        Life::Leaving { .. } => Stand::Starting,
        _ => {
            let mut standing = Standing::default();
            standing.add(entry.status().as_deref(), None);
            if standing.sum() == Databases::Ready { Stand::Ready } else { Stand::Starting }
        }
    }
}

async fn run_follower(
    mut driver: Driver<'static, Follower>,
    name: &str,
    tell_obstructed: impl Fn(bool),
) -> Followed {
    let mut said = Instant::now();
    let mut obstructed = false;
    let run = driver.run(|machine, notice| {
        let Some(notice) = notice else {
            let is_so = machine.status().obstructed;
            if std::mem::replace(&mut obstructed, is_so) != is_so {
                tell_obstructed(is_so);
            }
            return;
        };
        if !matches!(notice.fact, Fact::Progress { .. }) || said.elapsed() >= PROGRESS_EVERY {
            log::notice(name, notice);
            said = Instant::now();
        }
    });
    let exit = run.await;
    Followed { exit, bequest: driver.machine.bequest(), unknown: driver.machine.is_unknown() }
}

fn follower(host: &Rc<Host>, job: &ReplicateJob) -> Result<(Driver<'static, Follower>, Sender<Event>), Exit> {
    let (store, layout) = place::open(&job.replica, &host.net).map_err(|error| {
        let hint = error.hint.clone().unwrap_or_default();
        Exit::Misconfigured { error: error.to_string(), hint }
    })?;
    let port = StorePort::new(store, layout).counted(job.replica.kind(), host.requests.clone());
    let ports = Ports {
        store: Some(Arc::new(port)),
        output: Some(Arc::new(Mutex::new(OutputPort::new(RealFs, job.database.clone(), None)))),
        copy: Some(Arc::new(Mutex::new(CopyPort::new(job.database.clone())))),
        ..Ports::default()
    };
    let mut config = FollowConfig { interval: LOOK_EVERY, patient: true, ..FollowConfig::default() };
    if let Some(lease) = &host.lease {
        config.restore.request_deadline = request_deadline(lease.ttl());
    }
    let follower = Follower::new(config, OpIds::new(ReplicaId(0), driver::entropy()));
    let driver = Driver::new(follower, ports, host.executor.clone());
    let sender = driver.sender();
    Ok((driver, sender))
}

fn records(host: &Host, job: &ReplicateJob) -> Records<RealFs> {
    Records::new(Arc::clone(&host.journal), name_in_journal(&job.database, &job.replica).into())
}

/// What the copy was becomes what this process has replicated; nothing, where it is moved aside.
fn inherit(
    host: &Host,
    job: &ReplicateJob,
    bequest: Vec<Chunk>,
) -> impl Future<Output = Result<(), Exit>> + use<> {
    let mut journal = records(host, job);
    let written = unblock(move || {
        journal.perform(&StateRequest::Rewrite(bequest))?;
        journal.perform(&StateRequest::Sync)
    });
    async move {
        written.await.map(drop).map_err(|error| Exit::Failed {
            error: format!("the local journal cannot be written: {error}"),
            hint: "see to the disk of the state directory".into(),
        })
    }
}

/// Which databases of some directories have a replica.
async fn search(
    host: &Host,
    directories: &[Directory],
    known: &BTreeSet<PathBuf>,
    deadline: Duration,
) -> Result<Vec<ReplicateJob>, String> {
    let mut jobs = Vec::new();
    for directory in directories {
        let found = prefixes::search(&host.executor, directory, known, &host.net, deadline).await;
        let found = found.map_err(|error| error.to_string())?;
        jobs.extend(
            found.iter().filter(|path| !known.contains(*path)).filter_map(|it| directory.job_for(it)),
        );
    }
    let made = unblock(move || {
        jobs.retain(|job| match job.database.parent().map_or(Ok(()), fs::create_dir_all) {
            Err(error) if matches!(error.kind(), ErrorKind::NotADirectory | ErrorKind::AlreadyExists) => {
                let database = job.database.display().to_string();
                tracing::error!(
                    database,
                    "this database is not followed: a file is where its directory is to be"
                );
                false
            }
            // Whatever else is in the way, its follower meets.
            _ => true,
        });
        jobs
    });
    Ok(made.await)
}
