//! One run of one database: ports, machine, driver, and what is left behind.

use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driftless_adapters::fs::RealFs;
use driftless_adapters::store::StoreError;
use driftless_core::compact::CompactConfig;
use driftless_core::engine::Config;
use driftless_core::keeper::Keeper;
use driftless_core::lease::request_deadline;
use driftless_core::machine::{Event, Exit, Fact, Machine, Notice, ReplicaId};
use driftless_core::tiers::{Left, Standing, Tier};
use driftless_core::validate::ValidateConfig;
use futures_lite::FutureExt as _;
use smol::channel::Receiver;

use super::databases::{Entry, Life};
use super::{Host, name_in_journal, restoring};
use crate::clock;
use crate::driver::{self, Driver, Ports, Tenure};
use crate::log;
use crate::port::grant::Grants;
use crate::port::place;
use crate::port::scratch::Scratch;
use crate::port::source::{RealFiles, SourcePort};
use crate::port::state::Records;
use crate::port::store::StorePort;
use crate::sqlite::LinkOptions;
use crate::sqlite::probe::fingerprint;

/// Calls that an ended machine has left on threads are waited for with looks so far apart.
const TENURE_LOOK: Duration = Duration::from_millis(5);
/// The longest time between two such looks.
const TENURE_LOOK_MAX: Duration = Duration::from_secs(1);

/// Gives a database an engine, which it has not.
///
/// # Errors
/// `Misconfigured` for a replica whose settings cannot work.
pub(super) fn start(host: &Rc<Host>, number: u32) -> Result<(), StoreError> {
    let (driver, tenure) = {
        let databases = host.databases.borrow();
        let entry = databases.get(&number).expect("whoever starts a database has just seen it");
        assert!(entry.sender.is_none(), "two engines on one database would share its locks");
        let (store, layout) = place::open(&entry.replica, &host.net)?;
        let create_if_absent = store.capabilities().create_if_absent;
        let port = StorePort::new(store, layout);
        let store = Arc::new(port.counted(entry.replica.kind(), host.requests.clone()));
        let ports = ports(host, number, entry, Arc::clone(&store));
        let tenure = ports.tenure.clone();
        let remote = entry.replica.server().is_some();
        let mut config = Config { create_if_absent, remote, ..entry.settings.engine.clone() };
        if let Some(lease) = &host.lease {
            (config.epoch, config.succeeds) = (Some(lease.epoch()), lease.is_unfenced(&entry.database));
            config.store_deadline = config.store_deadline.min(request_deadline(lease.ttl()));
        }
        // What was adopted once is ours: another's history is not to be overrun a second time.
        config.adopt &= entry.last_sync.is_none();
        let levels = entry.settings.levels.clone();
        let levels = levels.map(|levels| CompactConfig { create_if_absent, remote, ..levels });
        let validation = entry.settings.validation;
        let validation = validation.map(|interval| ValidateConfig { interval, ..ValidateConfig::default() });
        let machine = Keeper::new(ReplicaId(number), driver::entropy(), config, levels, validation);
        let driver = Driver::new(machine, ports, host.executor.clone());
        // What is not claimed need not be tried; and a run that ends at once would leave the probe's
        // objects behind.
        let probes = create_if_absent && !entry.settings.engine.once;
        if let Some(server) = entry.replica.server().filter(|_| probes) {
            host.probes.tell(server, &store, driver.sender());
        }
        (driver, tenure)
    };
    let (rest, told) = smol::channel::bounded(1);
    let first = host.change(number, |entry| {
        entry.sender = Some(driver.sender());
        entry.rest = Some(rest);
        if core::mem::take(&mut entry.sync_wanted) {
            entry.send(Event::SyncNow);
        }
        if let Some(deadline) = entry.finish_by.take() {
            entry.life = Life::Stopping;
            entry.send(Event::Shutdown { deadline });
        }
        !core::mem::replace(&mut entry.begun, true)
    });
    host.spawn(run(host.clone(), number, driver, tenure, Turn { first, told }));
    Ok(())
}

/// The time that a database has an engine.
struct Turn {
    /// Whether it is the first since the database was started.
    first: bool,
    /// Says that it may end without a word.
    told: Receiver<()>,
}

fn ports(host: &Host, number: u32, entry: &Entry, store: Arc<StorePort>) -> Ports {
    let records =
        Records::new(Arc::clone(&host.journal), name_in_journal(&entry.database, &entry.replica).into());
    let scratch = host.directory.join(format!("scratch-{number}"));
    let files = RealFiles::new(entry.database.clone());
    let source = SourcePort::new(entry.database.clone(), files, LinkOptions::default());
    Ports {
        copy: None,
        source: Some(Arc::new(Mutex::new(source))),
        store: Some(store),
        state: Some(Arc::new(Mutex::new(records))),
        scratch: Some(Arc::new(Mutex::new(Scratch::new(RealFs, scratch)))),
        output: None,
        grants: Grants::new(host.shares.clone()),
        lease: host.lease.as_ref().map(|lease| lease.view()),
        tenure: Tenure::default(),
    }
}

async fn run(host: Rc<Host>, number: u32, mut driver: Driver<'static, Keeper>, tenure: Tenure, turn: Turn) {
    let database = host.look(number, |entry| entry.database.display().to_string()).unwrap_or_default();
    let restored = if turn.first { restoring::if_missing(&host, number).await } else { Ok(()) };
    let exit = match restored {
        Ok(()) => run_turn(&host, number, &database, &mut driver, &turn.told).await,
        Err(exit) => Some(exit),
    };
    let left = host.change(number, |entry| {
        (entry.sender, entry.rest, entry.standing) = (None, None, None);
        let turn_over = core::mem::take(&mut entry.turn_over) && entry.life == Life::Running;
        let told = driver.has_events() || driver.machine.was_told();
        let left = Left::of(exit.as_ref(), driver.machine.rest(clock::now()), told);
        left.filter(|_| turn_over || exit.is_none())
    });
    if left.is_none()
        && let Some(exit) = exit
    {
        log::exit(&database, &exit);
        host.change(number, |entry| {
            entry.wants_events = false;
            let asked = entry.life == Life::Stopping;
            entry.life = Life::Leaving { exit, asked };
        });
    }
    // With it go the link and whatever else no thread holds.
    drop(driver);
    let mut wait = TENURE_LOOK;
    while !tenure.is_over() {
        async_io::Timer::after(wait).await;
        wait = (wait * 2).min(TENURE_LOOK_MAX);
    }
    match left {
        Some(left) => leave_place(&host, number, left),
        None => end(&host, number),
    }
}

/// Runs an engine until it ends, or until it rests and its place is wanted: then there is no exit.
async fn run_turn(
    host: &Rc<Host>,
    number: u32,
    database: &str,
    driver: &mut Driver<'static, Keeper>,
    told: &Receiver<()>,
) -> Option<Exit> {
    let mut begun = false;
    loop {
        let run = async {
            let observe = |machine: &Keeper, notice: Option<&Notice>| {
                observe(host, number, database, machine, notice);
            };
            Some(match core::mem::replace(&mut begun, true) {
                false => driver.run(observe).await,
                true => driver.resume(observe).await,
            })
        };
        let rests = async {
            told.recv().await.expect("the entry holds a sender");
            None
        };
        if let Some(exit) = run.or(rests).await {
            return Some(exit);
        }
        if driver.is_idle() && driver.machine.rest(clock::now()).is_some() {
            return None;
        }
        host.change(number, |entry| entry.standing = Some(Standing::Busy));
        host.tiers(|tiers| tiers.stays(clock::mono(), number));
    }
}

/// Nothing is left of an engine whose database goes on.
fn leave_place(host: &Rc<Host>, number: u32, left: Left) {
    let path = host.look(number, |entry| entry.database.clone()).unwrap_or_default();
    let tier = host.tiers(|tiers| {
        tiers.left(number, left, || fingerprint(&path));
        tiers.tier(number)
    });
    // It was told to finish while its last engine left.
    let finish_by = host.change(number, |entry| {
        entry.wants_events = true;
        if tier == Some(Tier::Cold) {
            entry.goes_cold();
        }
        entry.finish_by.take()
    });
    if let Some(deadline) = finish_by {
        host.finish_without_engine(number, deadline);
    }
    host.give_back_soon();
    host.events_are_wanted();
}

/// Nothing is left of a run.
fn end(host: &Rc<Host>, number: u32) {
    host.change(number, |entry| {
        entry.life = match core::mem::replace(&mut entry.life, Life::Running) {
            Life::Leaving { exit, asked: true } => Life::Stopped(exit),
            Life::Leaving { exit, asked: false } => Life::Ended(exit),
            life => unreachable!("nothing but this task ends a run, and it is {life:?}"),
        };
    });
    host.tiers(|tiers| tiers.remove(number));
    host.watches_changed();
}

fn observe(host: &Host, number: u32, database: &str, machine: &Keeper, notice: Option<&Notice>) {
    let Some(notice) = notice else {
        let now = clock::now();
        let status = machine.status();
        let standing = machine.standing(now, &status);
        let (woken, moved) = host.change(number, |entry| {
            let wanted = core::mem::replace(&mut entry.wants_events, machine.wants_events());
            entry.observe(machine, status);
            let moved = entry.standing.replace(standing) != Some(standing);
            (entry.wants_events && !wanted, moved)
        });
        if woken {
            host.events_are_wanted();
        }
        if moved {
            host.tiers(|tiers| tiers.stands(now.mono, number, standing));
        }
        return;
    };
    log::notice(database, notice);
    host.tally(number, |tally| tally.notice(notice, clock::wall()));
    match notice.fact {
        Fact::Detached { .. } => {
            host.give_back_soon();
        }
        Fact::Replicated { .. } | Fact::Adopted { .. } => {
            let place = host.change(number, |entry| {
                entry.last_sync = Some(clock::wall());
                host.lease.as_ref().map(|lease| (lease, entry.replica.place_id()))
            });
            if let Some((lease, place)) = place {
                lease.put(place);
            }
        }
        _ => {}
    }
}
