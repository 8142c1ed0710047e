//! Restoring a database that is not there before it is followed (`-restore-if-db-not-exists`).
//!
//! The file is built beside its place and takes it in one rename, as by `driftless restore`: a
//! process that dies meanwhile leaves no database, and the next one begins again.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use driftless_adapters::fs::RealFs;
use driftless_core::legacy::{EitherRestorer, EitherStatus};
use driftless_core::machine::{Event, Exit, Fact, Machine as _, OpIds, ReplicaId};
use driftless_core::restore::RestoreConfig;
use futures_lite::FutureExt as _;

use super::Host;
use super::databases::Life;
use crate::driver::{self, Driver, Ports};
use crate::port::output::{Check, OutputPort};
use crate::port::place;
use crate::port::store::StorePort;
use crate::port::vacancy::Vacancy;
use crate::{clock, log};

/// The shortest time between two log lines about progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Restores the database, if it is to be restored and is not there.
///
/// # Errors
/// Why it is not to be followed: it could not be restored, or was told to end meanwhile.
pub(super) async fn if_missing(host: &Host, number: u32) -> Result<(), Exit> {
    let wanted = |entry: &super::Entry| {
        entry.restore_if_missing.then(|| (entry.database.clone(), entry.replica.clone()))
    };
    let Some((database, replica)) = host.look(number, wanted).flatten() else { return Ok(()) };
    let replace = match Vacancy::of(&database) {
        Ok(Vacancy::Free { replace }) => replace,
        Ok(Vacancy::Taken) => return Ok(()),
        Ok(Vacancy::Remains(remains)) => return Err(remaining(&remains)),
        Err(error) => {
            return Err(Exit::Failed {
                error: format!("cannot see whether {} exists: {error}", database.display()),
                hint: "give the user that runs driftless access to its directory".into(),
            });
        }
    };
    let (store, layout) = match place::open(&replica, &host.net) {
        Ok(opened) => opened,
        Err(error) => {
            let hint = error.hint.clone().unwrap_or_default();
            return Err(Exit::Misconfigured { error: error.to_string(), hint });
        }
    };
    // An application that does not wait for us may make it meanwhile, and commit.
    let target = database.clone();
    let check: Check = Box::new(move |_| Vacancy::still_free(&target));
    let ports = Ports {
        store: Some(Arc::new(StorePort::new(store, layout).counted(replica.kind(), host.requests.clone()))),
        output: Some(Arc::new(Mutex::new(OutputPort::new(RealFs, database.clone(), Some(check))))),
        ..Ports::default()
    };
    let name = database.display().to_string();
    tracing::info!(database = name, replica = %replica.place(), "the database does not exist: looking for it on the replica");
    let config = RestoreConfig { replace, ..RestoreConfig::default() };
    let ids = OpIds::new(ReplicaId(number), driver::entropy());
    let machine = EitherRestorer::new(config, None, ids);
    let mut driver = Driver::new(machine, ports, host.executor.clone());
    let sender = driver.sender();
    let told_to_end = async {
        host.changes.until(|| (!is_running(host, number)).then_some(())).await;
        let _ = sender.try_send(Event::Shutdown { deadline: clock::mono() });
        std::future::pending().await
    };
    let mut said = Instant::now();
    let restored = driver.run(|_, notice| {
        let Some(notice) = notice else { return };
        let progress = matches!(notice.fact, Fact::Progress { .. });
        if !progress || said.elapsed() >= PROGRESS_EVERY {
            log::notice(&name, notice);
            said = Instant::now();
        }
    });
    let exit = restored.or(told_to_end).await;
    match exit {
        Exit::Done => {
            tell(&name, &driver.machine.status());
            Ok(())
        }
        Exit::NothingToRestore { .. } => {
            tracing::info!(database = name, "the replica is empty: there is nothing to restore");
            Ok(())
        }
        // It was told to end before there was a database: nothing is committed there.
        Exit::Failed { .. } if !is_running(host, number) => Err(Exit::Done),
        exit => Err(exit),
    }
}

fn tell(database: &str, status: &EitherStatus) {
    match status {
        EitherStatus::Ltx(status) => {
            let txid = status.target.map(|txid| txid.to_string());
            tracing::info!(database, txid, pages = status.pages, "restored from the replica");
        }
        EitherStatus::Legacy(status) => {
            let generation = status.generation.map(|it| it.to_string());
            let text = "restored from what Litestream 0.3 wrote to the replica";
            tracing::info!(database, generation, pages = status.pages, "{text}");
        }
    }
}

fn is_running(host: &Host, number: u32) -> bool {
    host.look(number, |entry| entry.life == Life::Running).unwrap_or(false)
}

fn remaining(remains: &Path) -> Exit {
    Exit::Failed {
        error: format!("{} exists, though its database does not", remains.display()),
        hint: "it may hold the last transactions; if the database was removed on purpose, remove it as well"
            .into(),
    }
}
