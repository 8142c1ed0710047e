//! From a standby to the primary: copies follow the replica, are brought to its end when the lease is taken,
//! and become databases that are replicated.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use driftless_adapters::fs::RealFs;
use driftless_adapters::pool::unblock;
use driftless_core::application::{Databases, Standing};
use driftless_core::follow::{Candidates, FollowConfig, Follower};
use driftless_core::lease::{LeaseEvent, Role};
use driftless_core::machine::{Chunk, Event, Exit, Fact, OpIds, ReplicaId, StateReply, StateRequest};
use futures_lite::FutureExt as _;
use smol::channel::Sender;

use super::databases::Life;
use super::lease::{LeaseSide, depose};
use super::{Host, ReplicateJob, name_in_journal};
use crate::changes::Changes;
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

/// A copy that follows one replica.
struct Copy {
    job: ReplicateJob,
    follower: RefCell<Option<Sender<Event>>>,
    /// It is to come to the end of the history.
    succeeds: Cell<bool>,
    ends: Cell<bool>,
    news: Changes,
    /// What the journal is to say; nothing where there is nothing on the replica.
    outcome: RefCell<Option<Result<Option<Vec<Chunk>>, Exit>>>,
}

/// Contends until this process is the primary, or ends.
pub(super) async fn contend(host: Rc<Host>, jobs: Vec<ReplicateJob>) {
    if let Err(exit) = come_to_write(&host, jobs).await {
        depose(&host, exit);
    }
    host.changes.tell();
    host.lives.tell();
}

async fn come_to_write(host: &Rc<Host>, jobs: Vec<ReplicateJob>) -> Result<(), Exit> {
    let lease = Rc::clone(host.lease.as_ref().expect("only a process with a lease contends"));
    let view = lease.view();
    let known = view.until(|status| (status.role != Role::Standby || status.settled).then_some(()));
    let closing = async { host.changes.until(|| host.is_closing().then_some(())).await };
    known.or(closing).await;
    if !lease.goes_on() {
        let ends = async {
            host.changes.until(|| (host.is_closing() || lease.lost().is_some()).then_some(())).await;
            Ok(())
        };
        host.changes.until(|| lease.tried()).or(ends).await?;
    }
    if !lease.continues() && !host.is_closing() && lease.lost().is_none() {
        let copies = follow(host, &lease, jobs.clone()).await?;
        if copies.is_empty() && !jobs.is_empty() {
            return Ok(());
        }
        for copy in &copies {
            inherit(host, copy).await?;
        }
        let fenced = copies.iter().filter(|copy| copy.bequest().is_some());
        lease.will_fence(fenced.map(|copy| copy.job.database.clone()));
    }
    if host.is_closing() || lease.lost().is_some() {
        return Ok(());
    }
    let refused = |error: super::Refusal| Exit::Misconfigured { error: error.error, hint: error.hint };
    host.begin(jobs.clone(), Vec::new()).await.map_err(refused)?;
    if lease.lost().is_some() {
        // It was lost while they were begun.
        host.abandon();
    }
    loop {
        let standing = host.changes.until(|| settled(host, &lease)).await;
        match standing {
            Settled::Ready => break,
            Settled::Ended => return Ok(()),
            Settled::Failed(exit) => return Err(exit),
            Settled::Overtaken(database) => {
                tracing::info!(database = %database.display(), "the predecessor has written one more: following it");
                let job = jobs.iter().find(|job| job.database == database).cloned();
                let copies = follow(host, &lease, job.into_iter().collect()).await?;
                for copy in &copies {
                    inherit(host, copy).await?;
                }
                let begun = host.start(&database, ENDS_WITHIN).await;
                begun.map_err(|failure| Exit::Failed { error: failure.error, hint: failure.hint })?;
            }
        }
    }
    for job in &jobs {
        // The database goes on from here: what the file says of the copy is over.
        let _ = fs::remove_file(position_path(&job.database));
    }
    lease.activate().await
}

enum Settled {
    Ready,
    Overtaken(PathBuf),
    Failed(Exit),
    Ended,
}

/// Whether the databases are fenced, or something keeps them from it.
fn settled(host: &Host, lease: &LeaseSide) -> Option<Settled> {
    if host.is_closing() || lease.lost().is_some() {
        return Some(Settled::Ended);
    }
    let (mut standing, mut ended) = (Standing::default(), None);
    host.for_each(|entry| match &entry.life {
        Life::Ended(Exit::Overtaken { .. }) => ended = Some(Settled::Overtaken(entry.database.clone())),
        Life::Ended(exit) | Life::Leaving { exit, .. } => standing.add(None, Some(exit)),
        _ => standing.add(entry.status().as_deref(), None),
    });
    if ended.is_some() {
        return ended;
    }
    match standing.sum() {
        Databases::Ready => Some(Settled::Ready),
        Databases::Starting => None,
        Databases::Failed | Databases::Lost | Databases::Ended => {
            let mut exit = None;
            host.for_each(|entry| match &entry.life {
                Life::Ended(found) if !matches!(found, Exit::Done) => exit = Some(found.clone()),
                _ => {}
            });
            // One that leaves has not ended yet.
            exit.map(Settled::Failed)
        }
    }
}

/// Follows until this process holds the lease and each copy is at the end of its history. No copies come back
/// when the process ends instead.
async fn follow(
    host: &Rc<Host>,
    lease: &Rc<LeaseSide>,
    jobs: Vec<ReplicateJob>,
) -> Result<Vec<Rc<Copy>>, Exit> {
    let view = lease.view();
    let holder =
        view.look(|status| status.body.as_ref().map(|body| (body.holder, body.epoch, body.address.clone())));
    match holder {
        _ if view.look(|status| status.until.is_some()) => {}
        Some((holder, epoch, address)) => {
            let holder = format!("{holder:016x}");
            tracing::info!(holder, epoch, address, "standing by: another process holds the lease");
        }
        None => tracing::info!("standing by: nobody has ever held the lease"),
    }
    let copies: Vec<Rc<Copy>> = jobs.into_iter().map(Copy::new).map(Rc::new).collect();
    for copy in &copies {
        lease.copies.set(lease.copies.get() + 1);
        host.spawn(keep(host.clone(), lease.clone(), copy.clone()));
    }
    let over = || host.is_closing() || lease.lost().is_some();
    let mut seen = None;
    loop {
        let news = view.until(|status| {
            let held = status.until.is_some();
            let progress = status.body.as_ref().map(|body| (body.epoch, body.progress));
            (held || progress != seen).then_some((held, progress))
        });
        let ends = async {
            host.changes.until(|| over().then_some(())).await;
            (false, seen)
        };
        let failed = async {
            host.changes.until(|| copies.iter().any(|copy| copy.has_failed()).then_some(())).await;
            (false, seen)
        };
        let (held, progress) = news.or(ends).or(failed).await;
        seen = progress;
        if over() {
            copies.iter().for_each(|copy| copy.end());
            host.changes.until(|| (lease.copies.get() == 0).then_some(())).await;
            return Ok(Vec::new());
        }
        if let Some(exit) = copies.iter().find_map(|copy| copy.failure()) {
            copies.iter().for_each(|copy| copy.end());
            return Err(exit);
        }
        copies.iter().for_each(|copy| copy.tell(held));
        if held {
            break;
        }
    }
    let done = || copies.iter().all(|copy| copy.outcome.borrow().is_some()).then_some(());
    let ends = async { host.changes.until(|| over().then_some(())).await };
    host.changes.until(done).or(ends).await;
    if over() {
        copies.iter().for_each(|copy| copy.end());
        return Ok(Vec::new());
    }
    match copies.iter().find_map(|copy| copy.failure()) {
        Some(exit) => Err(exit),
        None => Ok(copies),
    }
}

impl Copy {
    fn new(job: ReplicateJob) -> Copy {
        Copy {
            job,
            follower: RefCell::default(),
            succeeds: Cell::new(false),
            ends: Cell::new(false),
            news: Changes::default(),
            outcome: RefCell::default(),
        }
    }

    fn send(&self, event: Event) {
        if let Some(follower) = &*self.follower.borrow() {
            let _ = follower.try_send(event);
        }
        self.news.tell();
    }

    /// There is news, or this process holds the lease.
    fn tell(&self, held: bool) {
        if held {
            self.succeeds.set(true);
            return self.send(Event::Lease(LeaseEvent::Succeed));
        }
        self.send(Event::SyncNow);
    }

    fn end(&self) {
        self.ends.set(true);
        self.send(Event::Shutdown { deadline: clock::mono().after(ENDS_WITHIN) });
    }

    fn bequest(&self) -> Option<Vec<Chunk>> {
        self.outcome.borrow().as_ref()?.as_ref().ok()?.clone()
    }

    fn failure(&self) -> Option<Exit> {
        self.outcome.borrow().as_ref()?.as_ref().err().cloned()
    }

    fn has_failed(&self) -> bool {
        self.failure().is_some()
    }
}

/// Keeps one copy, through whatever ends its follower.
async fn keep(host: Rc<Host>, lease: Rc<LeaseSide>, copy: Rc<Copy>) {
    let outcome = keep_on(&host, &lease, &copy).await;
    *copy.outcome.borrow_mut() = Some(outcome);
    lease.copies.set(lease.copies.get() - 1);
    host.changes.tell();
    host.lives.tell();
}

async fn keep_on(host: &Rc<Host>, lease: &LeaseSide, copy: &Copy) -> Result<Option<Vec<Chunk>>, Exit> {
    let database = copy.job.database.clone();
    let name = database.display().to_string();
    let trouble = |error: io::Error| Exit::Failed {
        error: format!("{}: {error}", database.display()),
        hint: "see to the disk of the database".into(),
    };
    name_its_state(host, &copy.job).await.map_err(trouble)?;
    loop {
        if copy.ends.get() {
            return Ok(None);
        }
        let (mut driver, sender) = follower(host, &copy.job)?;
        *copy.follower.borrow_mut() = Some(sender.clone());
        if copy.succeeds.get() {
            let _ = sender.try_send(Event::Lease(LeaseEvent::Succeed));
        }
        let mut said = Instant::now();
        let run = driver.run(|_, notice| {
            let Some(notice) = notice else { return };
            if !matches!(notice.fact, Fact::Progress { .. }) || said.elapsed() >= PROGRESS_EVERY {
                log::notice(&name, notice);
                said = Instant::now();
            }
        });
        let exit = run.await;
        *copy.follower.borrow_mut() = None;
        match exit {
            Exit::Done => match driver.machine.bequest() {
                Some(records) => return Ok(Some(records)),
                None if copy.ends.get() => return Ok(None),
                None => {}
            },
            Exit::NothingToRestore { .. } if copy.succeeds.get() => return Ok(None),
            Exit::NothingToRestore { .. } => {
                let waits = || (copy.succeeds.get() || copy.ends.get()).then_some(());
                tracing::info!(database = name, "there is nothing on the replica yet");
                let again = async {
                    copy.news.next().await;
                };
                copy.news.until(waits).or(again).await;
            }
            Exit::Failed { error, .. } if driver.machine.is_unknown() => {
                tracing::warn!(database = name, "{error}");
                let epoch = lease.status().body.map_or(0, |body| body.epoch);
                let path = database.clone();
                let aside = unblock(move || move_aside(&path, epoch)).await.map_err(trouble)?;
                let what = "what was not replicated is kept";
                tracing::warn!(database = name, kept = %aside.display(), "{what}");
            }
            exit => return Err(exit),
        }
    }
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
    let config = FollowConfig { interval: LOOK_EVERY, ..FollowConfig::default() };
    let follower = Follower::new(config, OpIds::new(ReplicaId(0), driver::entropy()));
    let driver = Driver::new(follower, ports, host.executor.clone());
    let sender = driver.sender();
    Ok((driver, sender))
}

fn records(host: &Host, job: &ReplicateJob) -> Records<RealFs> {
    Records::new(Arc::clone(&host.journal), name_in_journal(&job.database, &job.replica).into())
}

/// Says in the position file in which states this host may have left the database as its writer.
async fn name_its_state(host: &Host, job: &ReplicateJob) -> io::Result<()> {
    let (database, mut records) = (job.database.clone(), records(host, job));
    unblock(move || {
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
    })
    .await
}

/// What the copy was becomes what this process has replicated.
async fn inherit(host: &Host, copy: &Copy) -> Result<(), Exit> {
    let Some(bequest) = copy.bequest() else { return Ok(()) };
    let mut journal = records(host, &copy.job);
    let written = unblock(move || {
        journal.perform(&StateRequest::Rewrite(bequest))?;
        journal.perform(&StateRequest::Sync)
    });
    written.await.map(drop).map_err(|error| Exit::Failed {
        error: format!("the local journal cannot be written: {error}"),
        hint: "see to the disk of the state directory".into(),
    })
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
