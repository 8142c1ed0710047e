//! Running the machine that keeps a copy current (`restore -f`).

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driftless_adapters::fs::RealFs;
use driftless_adapters::store::{StoreError, StoreErrorKind};
use driftless_core::follow::Follower;
use driftless_core::machine::{Event, Exit, Notice};
use futures_lite::FutureExt as _;

use super::{block_on, tune_allocator};
use crate::clock;
use crate::config::Replica;
use crate::driver::{Driver, Ports};
use crate::port::copy::CopyPort;
use crate::port::output::{Check, OutputPort};
use crate::port::place;
use crate::port::store::StorePort;
use crate::service::signals::Signals;

/// How long a follower may take to let go of its copy.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Keeps a copy of a database at `copy` current until a signal tells the process to end; `check` is
/// asked of the file that is restored at first, before it takes its place.
///
/// # Errors
/// `Misconfigured` where the replica's settings cannot work, or signals cannot be received.
pub fn run_follower(
    follower: Follower,
    replica: &Replica,
    copy: PathBuf,
    check: Option<Check>,
    on_notice: &mut dyn FnMut(&Notice),
) -> Result<Exit, StoreError> {
    tune_allocator();
    let mut signals = Signals::take(false, false).map_err(|error| {
        StoreError::new(StoreErrorKind::Misconfigured, "signals cannot be received", error.to_string())
    })?;
    block_on(async |executor, net| {
        let (store, layout) = place::open(replica, &net)?;
        let ports = Ports {
            store: Some(Arc::new(StorePort::new(store, layout))),
            output: Some(Arc::new(Mutex::new(OutputPort::new(RealFs, copy.clone(), check)))),
            copy: Some(Arc::new(Mutex::new(CopyPort::new(copy)))),
            ..Ports::default()
        };
        let mut driver = Driver::new(follower, ports, executor);
        let sender = driver.sender();
        let told = async {
            loop {
                signals.next().await;
                let deadline = clock::mono().after(ENDS_WITHIN);
                let _ = sender.try_send(Event::Shutdown { deadline });
            }
        };
        let run = driver.run(|_, notice| notice.into_iter().for_each(&mut *on_notice));
        Ok(run.or(told).await)
    })
}
