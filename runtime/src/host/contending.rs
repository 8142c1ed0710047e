//! From a standby to the primary: what the core's [`Succession`] decides is carried out, with followers,
//! replicators and files.

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Write as _};
use std::mem;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use driftless_adapters::fs::RealFs;
use driftless_adapters::pool::unblock;
use driftless_core::application::{Databases, Standing};
use driftless_core::follow::{Candidates, FollowConfig, Follower};
use driftless_core::lease::{LeaseEvent, request_deadline};
use driftless_core::machine::{
    Chunk, Event, Exit, Fact, Machine as _, OpIds, ReplicaId, StateReply, StateRequest,
};
use driftless_core::succession::{self, Action, Followed, Stand, Succession, View};
use futures_lite::FutureExt as _;
use smol::channel::{Receiver, Sender};

use super::databases::{Entry, Life};
use super::lease::{LeaseSide, depose};
use super::{Host, ReplicateJob, name_in_journal};
use crate::clock;
use crate::driver::{self, Driver, Ports};
use crate::log;
use crate::port::Blocking as _;
use crate::port::copy::{CopyPort, position_path};
use crate::port::output::OutputPort;
use crate::port::place;
use crate::port::state::Records;
use crate::port::store::StorePort;
use crate::sqlite::probe::companion;

/// A copy looks when the lease says that there is news, and otherwise this often.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// The shortest time between two log lines about progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// How long a copy may take to let go.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Contends until this process is the primary, or ends.
pub(super) async fn contend(host: Rc<Host>, jobs: Vec<ReplicateJob>) {
    let lease = Rc::clone(host.lease.as_ref().expect("only a process with a lease contends"));
    let (told, hears) = smol::channel::unbounded();
    let sides = jobs.into_iter().map(|job| Side { job, follower: None, begun: false, stand: None }).collect();
    let contention = Contention { host: host.clone(), lease, sides, told, hears };
    if let Err(exit) = contention.run().await {
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
    told: Sender<succession::Event>,
    hears: Receiver<succession::Event>,
}

/// One database.
struct Side {
    job: ReplicateJob,
    /// Leads to the follower that was begun last.
    follower: Option<Sender<Event>>,
    /// Whether a replicator was begun for it.
    begun: bool,
    /// What was last told of that.
    stand: Option<Stand>,
}

impl Contention {
    async fn run(mut self) -> Result<(), Exit> {
        let places = self.sides.iter().map(|side| side.job.replica.place_id()).collect();
        let mut succession = Succession::new(places, self.lease.returns());
        let (mut seen, mut tried) = (None, false);
        while !succession.is_over() {
            let event = self.next(seen.as_ref(), tried).await;
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
    async fn next(&self, seen: Option<&View>, tried: bool) -> succession::Event {
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
        ends.or(looks).or(store).or(told).or(stands).await
    }

    /// A replicator that stands otherwise than was told last.
    fn changed_stand(&self) -> Option<succession::Event> {
        let begun = self.sides.iter().enumerate().filter(|(_, side)| side.begun);
        let mut stands: Vec<(usize, &Side, Stand)> =
            begun.map(|(n, side)| (n, side, Stand::Starting)).collect();
        self.host.for_each(|entry| {
            let mut stands = stands.iter_mut();
            if let Some((_, _, stand)) = stands.find(|(_, side, _)| side.job.database == entry.database) {
                *stand = stand_of(entry);
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
                let named = name_its_state(&self.host, &self.sides[n].job);
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
                for side in &self.sides {
                    // The database goes on from here: what the file says of the copy is over.
                    forget_position(side.job.database.clone()).await?;
                }
                return self.lease.activate().await;
            }
            Action::Fail(exit) => return Err(exit),
        }
        Ok(())
    }

    /// Does something for a database, and tells what came of it. The process does not end before that.
    fn spawn(&self, step: impl Future<Output = succession::Event> + 'static) {
        let (host, lease, told) = (self.host.clone(), self.lease.clone(), self.told.clone());
        lease.copies.set(lease.copies.get() + 1);
        self.host.spawn(async move {
            // Nobody hears it once the succession is over.
            let _ = told.try_send(step.await);
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
            let _ = told.try_send(succession::Event::Obstructed(n, is_so));
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
            let jobs = new.iter().map(|n| self.sides[*n].job.clone()).collect();
            let begun = self.host.begin(jobs, Vec::new()).await;
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
            if mem::replace(&mut obstructed, is_so) != is_so {
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

async fn keep_aside(database: PathBuf, epoch: u64) -> Result<(), Exit> {
    let name = database.display().to_string();
    let path = database.clone();
    let aside =
        unblock(move || move_aside(&path, epoch)).await.map_err(|error| disk_trouble(&database, &error))?;
    tracing::warn!(database = name, kept = %aside.display(), "what was not replicated is kept");
    Ok(())
}

fn disk_trouble(database: &Path, error: &io::Error) -> Exit {
    let error = format!("{}: {error}", database.display());
    Exit::Failed { error, hint: "see to the disk of the database".into() }
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

/// Says in the position file in which states this host may have left the database as its writer.
fn name_its_state(host: &Host, job: &ReplicateJob) -> impl Future<Output = Result<(), Exit>> + use<> {
    let (database, mut records) = (job.database.clone(), records(host, job));
    let named = unblock({
        let database = database.clone();
        move || {
            let position = position_path(&database);
            if position.exists() || !database.exists() {
                return Ok(());
            }
            let known = match records.perform(&StateRequest::Load) {
                Ok(StateReply::Records(records)) => Candidates::of_journal(&records),
                _ => None,
            };
            // Without any it is in no state that is known, and is kept.
            write_whole(&position, &known.map_or_else(Vec::new, |known| known.encode()))
        }
    });
    async move { named.await.map_err(|error| disk_trouble(&database, &error)) }
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

/// Removes the position file of a copy, durably.
async fn forget_position(database: PathBuf) -> Result<(), Exit> {
    let path = database.clone();
    let removed = unblock(move || match fs::remove_file(position_path(&path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_directory(&path),
    });
    removed.await.map_err(|error| disk_trouble(&database, &error))
}

/// Moves a database out of the way, with all that belongs to it.
fn move_aside(database: &Path, epoch: u64) -> io::Result<PathBuf> {
    let name = |n: u32| {
        let mut name = database.as_os_str().to_owned();
        name.push(format!(".unreplicated-{epoch}"));
        if n > 1 {
            name.push(format!("-{n}"));
        }
        PathBuf::from(name)
    };
    let aside = (1..).map(name).find(|aside| !aside.exists()).expect("numbers do not run out");
    // Under both names before it loses the first: a death in between must not part a database from its WAL,
    // which would go with whatever takes the place.
    for suffix in ["", "-wal", "-journal"] {
        match fs::hard_link(companion(database, suffix), companion(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_directory(database)?;
    let names = ["", "-wal", "-journal", "-shm"].map(|suffix| companion(database, suffix));
    for left in names.into_iter().chain([position_path(database)]) {
        match fs::remove_file(left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_directory(database)?;
    Ok(aside)
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_directory(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(super::databases::directory_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_moved_aside_keeps_its_wal_wherever_a_death_comes() {
        let directory = std::env::temp_dir().join(format!("driftless-aside-{}", std::process::id()));
        for left in [&["", "-wal"][..], &["-wal"], &["", "-wal", "-shm", "-txid"]] {
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(&directory).unwrap();
            let database = directory.join("a.db");
            // A try before this one came as far as both names, and perhaps further.
            let tried = directory.join("a.db.unreplicated-7");
            for suffix in ["", "-wal"] {
                fs::write(companion(&tried, suffix), format!("what{suffix}")).unwrap();
            }
            left.iter()
                .for_each(|suffix| fs::write(companion(&database, suffix), format!("what{suffix}")).unwrap());
            let aside = move_aside(&database, 7).unwrap();
            assert_eq!(aside, directory.join("a.db.unreplicated-7-2"));
            for kept in [tried.clone(), aside] {
                for suffix in ["", "-wal"].into_iter().filter(|suffix| kept == tried || left.contains(suffix))
                {
                    assert_eq!(
                        fs::read_to_string(companion(&kept, suffix)).unwrap(),
                        format!("what{suffix}")
                    );
                }
            }
            let names = fs::read_dir(&directory).unwrap().flatten();
            assert!(
                names
                    .into_iter()
                    .all(|it| it.file_name().to_string_lossy().starts_with("a.db.unreplicated-7"))
            );
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
