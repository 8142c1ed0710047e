//! One run of one database: ports, machine, driver, and what is left behind.

use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driftless_adapters::fs::RealFs;
use driftless_adapters::store::StoreError;
use driftless_core::compact::CompactConfig;
use driftless_core::engine::Config;
use driftless_core::keeper::Keeper;
use driftless_core::machine::{Fact, Machine, Notice, ReplicaId};
use driftless_core::validate::ValidateConfig;

use super::databases::{Entry, Life};
use super::{Host, restoring};
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

/// Calls that an ended machine has left on threads are waited for with looks so far apart.
const TENURE_LOOK: Duration = Duration::from_millis(5);
/// The longest time between two such looks.
const TENURE_LOOK_MAX: Duration = Duration::from_secs(1);

/// Starts a database that does not run.
///
/// # Errors
/// `Misconfigured` for a replica whose settings cannot work.
pub(super) fn start(host: &Rc<Host>, number: u32) -> Result<(), StoreError> {
    let (driver, tenure) = {
        let databases = host.databases.borrow();
        let entry = databases.get(&number).expect("whoever starts a database has just seen it");
        assert!(!entry.is_live(), "two engines on one database would share its locks");
        let (store, layout) = place::open(&entry.replica, &host.net)?;
        let create_if_absent = store.capabilities().create_if_absent;
        let port = StorePort::new(store, layout);
        let store = Arc::new(port.counted(entry.replica.kind(), host.requests.clone()));
        let ports = ports(host, number, entry, Arc::clone(&store));
        let tenure = ports.tenure.clone();
        let remote = entry.replica.server().is_some();
        let mut config = Config { create_if_absent, remote, ..entry.settings.engine.clone() };
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
    host.change(number, |entry| {
        entry.life = Life::Running;
        entry.sender = Some(driver.sender());
        entry.status = None;
        (entry.levels, entry.retention, entry.validation) = (None, None, None);
        entry.wants_events = true;
    });
    host.watches_changed();
    host.spawn(run(host.clone(), number, driver, tenure));
    Ok(())
}

fn ports(host: &Host, number: u32, entry: &Entry, store: Arc<StorePort>) -> Ports {
    let records = Records::new(Arc::clone(&host.journal), host.name_in_journal(entry).into());
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
        tenure: Tenure::default(),
    }
}

async fn run(host: Rc<Host>, number: u32, mut driver: Driver<'static, Keeper>, tenure: Tenure) {
    let database = host.look(number, |entry| entry.database.display().to_string()).unwrap_or_default();
    let exit = match restoring::if_missing(&host, number).await {
        Ok(()) => driver.run(|machine, notice| observe(&host, number, &database, machine, notice)).await,
        Err(exit) => exit,
    };
    log::exit(&database, &exit);
    host.change(number, |entry| {
        entry.sender = None;
        entry.wants_events = false;
        let asked = entry.life == Life::Stopping;
        entry.life = Life::Leaving { exit, asked };
    });
    // With it go the link and whatever else no thread holds.
    drop(driver);
    let mut wait = TENURE_LOOK;
    while !tenure.is_over() {
        async_io::Timer::after(wait).await;
        wait = (wait * 2).min(TENURE_LOOK_MAX);
    }
    host.change(number, |entry| {
        entry.life = match core::mem::replace(&mut entry.life, Life::Running) {
            Life::Leaving { exit, asked: true } => Life::Stopped(exit),
            Life::Leaving { exit, asked: false } => Life::Ended(exit),
            life => unreachable!("nothing but this task ends a run, and it is {life:?}"),
        };
    });
    host.watches_changed();
}

fn observe(host: &Host, number: u32, database: &str, machine: &Keeper, notice: Option<&Notice>) {
    let Some(notice) = notice else {
        let woken = host.change(number, |entry| {
            let wanted = core::mem::replace(&mut entry.wants_events, machine.wants_events());
            let status = machine.status();
            entry.tally.status(&status);
            entry.status = Some(status);
            entry.levels = machine.compaction();
            entry.retention = machine.retention();
            entry.validation = machine.validation();
            entry.wants_events && !wanted
        });
        if woken {
            host.events_are_wanted();
        }
        return;
    };
    log::notice(database, notice);
    host.tally(number, |tally| tally.notice(notice, clock::wall()));
    match notice.fact {
        Fact::Detached { .. } => {
            crate::port::buffers::clear();
            crate::memory::give_back();
        }
        Fact::Replicated { .. } | Fact::Adopted { .. } => {
            host.change(number, |entry| entry.last_sync = Some(clock::wall()));
        }
        _ => {}
    }
}
