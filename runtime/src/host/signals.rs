//! Signals: the first that asks for an end has it made well, the second has it made now. SIGHUP has
//! the configuration read again; where there is none, it does what it does to any program.

use std::io;
use std::rc::Rc;

use async_signal::{Signal, Signals};
use driftless_core::machine::Event;
use futures_lite::StreamExt as _;
use smol::channel::Receiver;

use super::{Host, Moment};
use crate::clock;

/// Receives signals from now on.
///
/// # Errors
/// As the system says.
pub(super) fn listen(reload: bool) -> io::Result<Signals> {
    let hup = reload.then_some(Signal::Hup);
    Signals::new([Signal::Term, Signal::Int].into_iter().chain(hup))
}

/// Serves signals for as long as the process runs.
pub(super) async fn serve(mut signals: Signals, host: Rc<Host>) {
    let (reload, reloads) = smol::channel::bounded(1);
    // Beside this one: a reload waits for databases to end, and an end of the process does not.
    let _reloading = host.executor.spawn(serve_reloads(host.clone(), reloads));
    while let Some(signal) = signals.next().await {
        match signal {
            Ok(Signal::Hup) => {
                // While one waits, another would read the same.
                let _ = reload.try_send(());
                continue;
            }
            Ok(signal) => tracing::info!(?signal, "stopping"),
            Err(error) => tracing::warn!(%error, "a signal was not understood"),
        }
        host.close();
    }
}

async fn serve_reloads(host: Rc<Host>, reloads: Receiver<()>) {
    while reloads.recv().await.is_ok() {
        if !host.closing.get() {
            host.reload().await;
        }
    }
}

impl Host {
    /// Ends the process: the first call has each database finish, any other has it stop at once.
    pub(crate) fn close(&self) {
        let deadline = clock::mono().after(self.shutdown_sync_timeout.get());
        if self.closing.replace(true) {
            self.for_each(|entry| entry.send(Event::Shutdown { deadline }));
        } else {
            (self.tell)(Moment::Stopping);
            let numbers: Vec<u32> = self.databases.borrow().keys().copied().collect();
            numbers.into_iter().for_each(|number| self.finish(number, deadline));
        }
        self.changes.tell();
        self.lives.tell();
    }
}
