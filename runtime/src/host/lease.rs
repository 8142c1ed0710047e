//! The lease of the process: its machine, what is kept of it on this host, and what its loss brings about.
//!
//! What is decided is in [`driftless_core::lease`]. Here it is carried out: the machine runs, the claim is
//! written down once everything is fenced, the hooks run, and a process that has lost the lease lets go of its
//! databases and holds their write locks until whoever commits there has been stopped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use driftless_adapters::pool::unblock;
use driftless_core::engine::LATE_PUT;
use driftless_core::lease::{
    Lease, LeaseConfig, LeaseEvent, LeaseStatus, PlaceId, Role, Term, request_deadline,
};
use driftless_core::machine::{Event, Exit, Machine as _, OpIds, ReplicaId};
use driftless_core::probe::{Findings, Probe};
use smol::LocalExecutor;

use super::Host;
use super::requests::within;
use crate::clock;
use crate::config::Replica;
use crate::driver::{self, Driver, Ports};
use crate::log;
use crate::port::lease::LeaseView;
use crate::port::place;
use crate::port::store::StorePort;
use crate::service::child::Application;
use crate::sqlite::{Close, Link, LinkOptions, Slot};

/// How a process contends for the lease.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// Where the object is.
    pub replica: Replica,
    /// How long a holder may go without renewing it.
    pub ttl: Duration,
    /// Where this process can be asked: for people and load balancers.
    pub address: String,
    /// Whether to take a lease that nobody has ever held.
    pub begins: bool,
    /// A command that is run once this process is the primary.
    pub promote: Option<Vec<String>>,
    /// A command that is run once it is not any more, to end the application.
    pub demote: Option<Vec<String>>,
}

/// How long the lease may take to be given up.
const RELEASE_MAX: Duration = Duration::from_secs(10);
/// How long a hook may take.
const HOOK_MAX: Duration = LATE_PUT;
/// How long the write lock is tried for while a commit is under way.
const LOCK_TRIES: u32 = 200;
const LOCK_AGAIN: Duration = Duration::from_millis(25);

/// The lease in a process.
pub(crate) struct LeaseSide {
    view: Rc<LeaseView>,
    options: LeaseOptions,
    /// Kept on this host: who it is, and the claim that it made last.
    file: PathBuf,
    holder: u64,
    /// Whether an earlier process of this host was the primary, with a store that was tried.
    returns: bool,
    /// Whether the process runs its application itself.
    attends: bool,
    /// Databases whose history may still be gone on with by the predecessor.
    unfenced: RefCell<BTreeSet<PathBuf>>,
    /// Copies that follow the replica.
    pub(super) copies: Cell<usize>,
    active: Cell<bool>,
    hands_over: Cell<bool>,
    /// The application that this process does not run was told to end, or nobody can tell it.
    finishing: Cell<bool>,
    /// It has ended.
    demoted: Cell<bool>,
    lost: RefCell<Option<Exit>>,
    /// Nothing keeps a process that has lost it any more.
    may_end: Cell<bool>,
    /// Somebody has asked for the end since it was lost.
    pub(super) end_asked: Cell<bool>,
    store: RefCell<Option<Findings>>,
}

impl LeaseSide {
    /// A contender that has not begun, and what runs it.
    ///
    /// # Errors
    /// When the store cannot hold a lease, or nothing can be kept in the state directory.
    pub(super) fn open(
        options: LeaseOptions,
        attends: bool,
        directory: &Path,
        host: (&Rc<LocalExecutor<'static>>, &driftless_adapters::object::Net),
    ) -> Result<(Rc<LeaseSide>, Running), Exit> {
        let (executor, net) = host;
        let refuse = |error: String, hint: &str| Exit::Misconfigured { error, hint: hint.into() };
        let (store, layout) = place::open(&options.replica, net)
            .map_err(|error| refuse(error.to_string(), error.hint.as_deref().unwrap_or_default()))?;
        let can = store.capabilities();
        if !can.swap || !can.create_if_absent {
            let error =
                format!("{} cannot hold a lease: it replaces nothing on condition", options.replica.place());
            return Err(refuse(error, "failover takes s3, abs or gs; name one with lease.url"));
        }
        let port = std::sync::Arc::new(StorePort::new(store, layout));
        let file = directory.join("lease");
        let kept = Kept::load_or_draw(&file).map_err(|error| {
            refuse(
                format!("{}: {error}", file.display()),
                "name a directory that can be written with -state-dir",
            )
        })?;
        let config = LeaseConfig {
            ttl: options.ttl,
            holder: kept.holder,
            address: options.address.clone(),
            term: kept.term,
            begins: options.begins,
        };
        let ports = Ports { store: Some(port), ..Ports::default() };
        let machine = Lease::new(config, OpIds::new(ReplicaId(u32::MAX), driver::entropy()));
        let status = machine.status();
        let probe = Probe::new(OpIds::new(ReplicaId(u32::MAX), driver::entropy()));
        let probe = probe.within(request_deadline(options.ttl));
        let probe = Driver::new(probe, ports.clone(), executor.clone());
        let driver = Driver::new(machine, ports, executor.clone());
        let side = LeaseSide {
            view: LeaseView::new(status, driver.sender()),
            options,
            file,
            holder: kept.holder,
            returns: kept.term.is_some(),
            attends,
            unfenced: RefCell::default(),
            copies: Cell::new(0),
            active: Cell::new(false),
            hands_over: Cell::new(false),
            finishing: Cell::new(false),
            demoted: Cell::new(false),
            lost: RefCell::default(),
            may_end: Cell::new(false),
            end_asked: Cell::new(false),
            store: RefCell::default(),
        };
        Ok((Rc::new(side), Running { driver, probe }))
    }

    /// The machine as others see it.
    pub(crate) fn view(&self) -> Rc<LeaseView> {
        Rc::clone(&self.view)
    }

    /// How it stands.
    pub(crate) fn status(&self) -> LeaseStatus {
        self.view.look(LeaseStatus::clone)
    }

    /// This host among the contenders.
    pub(crate) fn holder(&self) -> u64 {
        self.holder
    }

    /// Whether this process is the primary, with everything fenced.
    pub(crate) fn is_active(&self) -> bool {
        self.active.get() && self.lost.borrow().is_none()
    }

    /// Whether the application is to end, so that another host can take over.
    pub(crate) fn hands_over(&self) -> bool {
        self.hands_over.get()
    }

    /// Whether this process can end whoever commits to its databases.
    pub(crate) fn ends_application(&self) -> bool {
        self.attends || self.options.demote.is_some()
    }

    /// Whether another may be the primary, and this process waits.
    pub(crate) fn is_standby(&self) -> bool {
        self.view.look(|status| status.role == Role::Standby) && self.lost.borrow().is_none()
    }

    /// Whether an earlier process of this host was the primary, with a store that was tried.
    pub(super) fn returns(&self) -> bool {
        self.returns
    }

    /// How long a holder may go without renewing it.
    pub(super) fn ttl(&self) -> Duration {
        self.options.ttl
    }

    /// The epoch of the lease as it was last seen.
    pub(super) fn epoch(&self) -> u64 {
        self.status().body.map_or(0, |body| body.epoch)
    }

    /// Why it is lost, if it is.
    pub(crate) fn lost(&self) -> Option<Exit> {
        self.lost.borrow().clone()
    }

    /// Whether nothing keeps a process that has lost it from ending.
    pub(super) fn may_end(&self) -> bool {
        self.may_end.get()
    }

    /// Whether the next run of this database comes after another writer.
    pub(super) fn is_unfenced(&self, database: &Path) -> bool {
        self.unfenced.borrow().contains(database)
    }

    /// The next run of these databases comes after another writer.
    pub(super) fn will_fence(&self, databases: impl Iterator<Item = PathBuf>) {
        self.unfenced.borrow_mut().extend(databases);
    }

    /// A segment was put there.
    pub(super) fn put(&self, place: PlaceId) {
        self.view.tell(Event::Lease(LeaseEvent::Put(place)));
    }

    /// The store was tried, and keeps what a lease needs.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn tried(&self) -> Option<Result<(), Exit>> {
        let findings = (*self.store.borrow())?;
        let error = format!(
            "{} does not keep what a lease needs: create-if-absent {}, compare-and-swap {}",
            self.options.replica.place(),
            findings.create_if_absent.word(),
            findings.swap.word()
        );
        let hint = "failover takes a store that refuses: docs/FAILOVER.md lists them".into();
        Some(if findings.keeps_leases() { Ok(()) } else { Err(Exit::Misconfigured { error, hint }) })
    }

    /// Forgets the claim of an earlier process of this host.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub(super) async fn disclaim(&self) -> Result<(), Exit> {
        self.keep(None).await
    }

    async fn keep(&self, term: Option<Term>) -> Result<(), Exit> {
        let file = self.file.clone();
        let kept = Kept { holder: self.holder, term };
        unblock(move || kept.save(&file)).await.map_err(|error| Exit::Failed {
            error: format!("{}: {error}", self.file.display()),
            hint: "see to the disk of the state directory".into(),
        })
    }

    /// Everything is fenced: writes the claim down, says so in the lease, and runs the hook.
    ///
    /// # Errors
    /// When the claim cannot be written down, or the hook fails.
    pub(super) async fn activate(&self) -> Result<(), Exit> {
        let status = self.status();
        self.keep(status.term).await?;
        self.view.tell(Event::Lease(LeaseEvent::Activate));
        let role = self.view.until(|status| Some(status.role).filter(|role| *role != Role::Claimant)).await;
        if role != Role::Primary {
            // Whoever runs the machine tells why.
            return Ok(());
        }
        self.unfenced.borrow_mut().clear();
        let epoch = status.body.map_or(0, |body| body.epoch);
        if let Some(words) = &self.options.promote {
            hook("promote", words, epoch).await.map_err(|error| Exit::Failed {
                error: format!("the promote hook {error}"),
                hint: "the lease runs out, and another host takes it".into(),
            })?;
        }
        self.active.set(true);
        tracing::info!(epoch, "this process is the primary");
        Ok(())
    }
}

/// Runs a command and waits for its end.
async fn hook(role: &str, words: &[String], epoch: u64) -> Result<(), String> {
    tracing::info!(hook = role, program = words[0], "a hook begins");
    let variables = [("DRIFTLESS_EVENT", role.to_owned()), ("DRIFTLESS_EPOCH", epoch.to_string())];
    let begun = Application::start_with(words, &variables);
    let begun = begun.map_err(|exit| exit.error().unwrap_or_default().to_owned())?;
    match within(HOOK_MAX, begun.ended()).await {
        Some(end) if end.code() == 0 => Ok(()),
        Some(end) => Err(end.describe()),
        None => {
            begun.kill();
            Err(format!("did not end in {} s", HOOK_MAX.as_secs()))
        }
    }
}

/// The machines that run beside the databases.
pub(super) struct Running {
    driver: Driver<'static, Lease>,
    probe: Driver<'static, Probe>,
}

/// Runs the machine until the lease is given up or lost.
pub(super) async fn serve(host: Rc<Host>, running: Running) {
    let Running { mut driver, mut probe } = running;
    let lease = Rc::clone(host.lease.as_ref().expect("only a process with a lease runs it"));
    let findings = {
        let (host, lease) = (host.clone(), lease.clone());
        async move {
            probe.run(|_, _| {}).await;
            *lease.store.borrow_mut() = Some(probe.machine.status());
            if let Some(found) = lease.tried() {
                lease.view.tell(Event::Lease(LeaseEvent::Tried(found.is_ok())));
            }
            host.changes.tell();
        }
    };
    host.spawn(findings);
    let run = driver.run(|machine, notice| match notice {
        Some(notice) => log::notice("lease", notice),
        None => {
            let status = machine.status();
            let before = lease.view.look(|status| status.role);
            let moved = before != status.role;
            lease.view.show(status);
            if moved {
                host.changes.tell();
                host.lives.tell();
            }
        }
    });
    match run.await {
        Exit::Done => {}
        exit => depose(&host, exit),
    }
}

/// The lease is lost, or could never be used: the databases are let go of at once, and whoever commits to
/// them is kept from it.
pub(super) fn depose(host: &Rc<Host>, exit: Exit) {
    let Some(lease) = &host.lease else { return };
    if lease.lost.borrow().is_some() {
        return;
    }
    let (error, hint) = (exit.error().unwrap_or_default().to_owned(), hint_of(&exit));
    tracing::error!(hint, "this process may not write any more: {error}");
    let held = lease.active.get();
    *lease.lost.borrow_mut() = Some(exit);
    host.abandon();
    host.spawn(keep_from_committing(host.clone(), held));
}

fn hint_of(exit: &Exit) -> &str {
    match exit {
        Exit::Fenced { hint, .. } | Exit::Failed { hint, .. } | Exit::Misconfigured { hint, .. } => hint,
        _ => "",
    }
}

/// Once the databases are let go of: holds their write locks until the application was stopped.
async fn keep_from_committing(host: Rc<Host>, held: bool) {
    let lease = Rc::clone(host.lease.as_ref().expect("it was lost"));
    host.lives.until(|| host.are_over().then_some(())).await;
    let mut locks = Vec::new();
    if held && !lease.attends {
        let mut databases = Vec::new();
        host.for_each(|entry| databases.push(entry.database.clone()));
        for database in databases {
            let shown = database.display().to_string();
            match unblock(move || write_lock(&database)).await {
                Ok(lock) => locks.push(lock),
                Err(error) => tracing::error!(database = shown, "commits are not kept from it: {error}"),
            }
        }
        let epoch = lease.epoch();
        let stopped = match &lease.options.demote {
            None => false,
            Some(words) => match hook("demote", words, epoch).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!("the demote hook {error}");
                    false
                }
            },
        };
        if !stopped {
            let hint = "stop the application, then this process";
            tracing::error!(hint, "the write lock is held, so that commits fail instead of being lost");
            host.lives.until(|| lease.end_asked.get().then_some(())).await;
        }
    }
    drop(locks);
    lease.may_end.set(true);
    host.changes.tell();
    host.lives.tell();
}

/// SQLite's write lock, until it is dropped.
fn write_lock(database: &Path) -> Result<Link, String> {
    let mut link = Link::open(database, LinkOptions::default()).map_err(|error| error.to_string())?;
    link.open_slot(Slot::A).map_err(|error| error.to_string())?;
    for tried in 1.. {
        match link.begin_immediate(Slot::A) {
            Ok(()) => break,
            Err(error) if tried >= LOCK_TRIES => {
                let _ = link.close(Close::LeaveWal);
                return Err(error.to_string());
            }
            Err(_) => std::thread::sleep(LOCK_AGAIN),
        }
    }
    Ok(link)
}

/// The process is to end. An application that it does not run is ended first: what that would commit once the
/// lease is given up would be lost.
pub(crate) fn finish(host: &Rc<Host>) {
    let ends = |lease: &&Rc<LeaseSide>| lease.is_active() && !lease.attends && !lease.finishing.replace(true);
    let Some(lease) = host.lease.as_ref().filter(ends).cloned() else { return host.close() };
    let Some(words) = lease.options.demote.clone() else {
        let hint = "stop the application first, or name a command that does with lease.demote";
        tracing::warn!(hint, "the application may go on committing: the lease is not given up, and runs out");
        return host.close();
    };
    let epoch = lease.epoch();
    let task = {
        let host = Rc::clone(host);
        async move {
            match hook("demote", &words, epoch).await {
                Ok(()) => lease.demoted.set(true),
                Err(error) => {
                    tracing::error!("the demote hook {error}: the lease is not given up, and runs out");
                }
            }
            if !host.is_closing() {
                host.close();
            }
        }
    };
    host.spawn(task);
}

/// The process ends: a lease that it holds is given up if everything is replicated and nobody can commit any
/// more, and runs out otherwise.
pub(super) async fn release(host: &Host, databases: &Exit) {
    let Some(lease) = host.lease.as_ref().filter(|lease| lease.lost().is_none()) else { return };
    let holds = lease.view.look(|status| status.until.is_some());
    let ended = lease.attends || lease.demoted.get() || !lease.active.get();
    if !holds || !ended || *databases != Exit::Done {
        return;
    }
    lease.view.tell(Event::Shutdown { deadline: clock::mono().after(RELEASE_MAX) });
    let over = lease
        .view
        .until(|status| (status.role != Role::Primary && status.role != Role::Claimant).then_some(()));
    if within(RELEASE_MAX, over).await.is_none() {
        tracing::warn!("the lease could not be given up: it runs out by itself");
    }
}

/// What is kept of the lease on this host.
struct Kept {
    holder: u64,
    term: Option<Term>,
}

impl Kept {
    /// Reads it; draws a name for this host where there is none.
    fn load_or_draw(file: &Path) -> io::Result<Kept> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            u64::from_str_radix(value, 16).ok()
        };
        match field("holder") {
            Some(holder) => Ok(Kept { holder, term: field("term").map(Term) }),
            None => {
                let kept = Kept { holder: driver::entropy(), term: None };
                kept.save(file)?;
                Ok(kept)
            }
        }
    }

    fn save(&self, file: &Path) -> io::Result<()> {
        let mut text = format!("holder {:016x}\n", self.holder);
        if let Some(term) = self.term {
            text.push_str(&format!("term {:016x}\n", term.0));
        }
        let new = file.with_extension("new");
        let mut written = File::create(&new)?;
        written.write_all(text.as_bytes())?;
        written.sync_all()?;
        fs::rename(&new, file)?;
        File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Host {
    /// Ends the application and the process, once those who wait look often.
    pub(crate) fn hand_over(self: &Rc<Self>) {
        let Some(lease) = self.lease.clone() else { return };
        tracing::info!("handing over");
        lease.view.tell(Event::Lease(LeaseEvent::Announce));
        let wait = lease.options.ttl / 3 + lease.options.ttl / 10;
        let host = Rc::clone(self);
        self.spawn(async move {
            async_io::Timer::after(wait).await;
            lease.hands_over.set(true);
            host.lives.tell();
        });
    }
}
