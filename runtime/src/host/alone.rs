//! Machines and stores of commands that look at a replica, without databases that run.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use driftless_adapters::fs::RealFs;
use driftless_adapters::keys::ReplicaLayout;
use driftless_adapters::store::{Store, StoreError};
use driftless_core::lease::CELL;
use driftless_core::machine::{CellReply, CellRequest, Exit, Machine, Notice, StoreErrorKind};

use super::{block_on, tune_allocator};
use crate::config::Replica;
use crate::driver::{Driver, Ports};
use crate::port::output::{Check, OutputPort};
use crate::port::place;
use crate::port::store::StorePort;

/// Runs a machine that needs no source to its end, on a replica.
///
/// `output` is where a restore puts its file, and `check` what is asked of that file before it
/// takes the target's place.
///
/// # Errors
/// `Misconfigured` where the replica's settings cannot work.
pub fn run_machine<M: Machine>(
    machine: M,
    replica: &Replica,
    output: Option<PathBuf>,
    check: Option<Check>,
    on_notice: &mut dyn FnMut(&Notice),
) -> Result<(Exit, M::Status), StoreError> {
    tune_allocator();
    block_on(async |executor, net| {
        let (store, layout) = place::open(replica, &net)?;
        let ports = Ports {
            store: Some(Arc::new(StorePort::new(store, layout))),
            output: output.map(|target| Arc::new(Mutex::new(OutputPort::new(RealFs, target, check))) as _),
            ..Ports::default()
        };
        let mut driver = Driver::new(machine, ports, executor);
        let exit = driver
            .run(|_, notice| {
                if let Some(notice) = notice {
                    on_notice(notice);
                }
            })
            .await;
        Ok((exit, driver.machine.status()))
    })
}

/// Uses the store of a replica without a machine, as commands that only look do.
///
/// # Errors
/// `Misconfigured` where the replica's settings cannot work, and what `work` fails with.
pub fn with_store<T>(
    replica: &Replica,
    work: impl AsyncFnOnce(&dyn Store, ReplicaLayout) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    block_on(async |_, net| {
        let (store, layout) = place::open(replica, &net)?;
        work(&*store, layout).await
    })
}

/// The content of the lease at a replica, as it is now; `None` if there is none.
///
/// # Errors
/// `Misconfigured` where the replica's settings cannot work, and as the store says.
pub fn read_lease(replica: &Replica) -> Result<Option<Vec<u8>>, StoreError> {
    block_on(async |_, net| {
        let (store, layout) = place::open(replica, &net)?;
        let port = StorePort::new(store, layout);
        match port.perform_cell(CellRequest::Read { cell: CELL.into() }).await {
            Ok(CellReply::Content { bytes, .. }) => Ok(Some(bytes.to_vec())),
            Ok(_) => Ok(None),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => {
                let failed = StoreError::new(StoreErrorKind::Retry, "the lease cannot be read", error.text);
                Err(StoreError { hint: Some(error.hint).filter(|hint| !hint.is_empty()), ..failed })
            }
        }
    })
}
