//! Signals: the first that asks for an end has it made well, the second has it made now.

use std::io;
use std::rc::Rc;

use async_signal::{Signal, Signals};
use driftless_core::machine::Event;
use futures_lite::StreamExt as _;

use super::Host;
use crate::clock;

/// Receives signals from now on.
///
/// # Errors
/// As the system says.
pub(super) fn listen() -> io::Result<Signals> {
    Signals::new([Signal::Term, Signal::Int])
}

/// Serves signals for as long as the process runs.
pub(super) async fn serve(mut signals: Signals, host: Rc<Host>) {
    while let Some(signal) = signals.next().await {
        match signal {
            Ok(signal) => tracing::info!(?signal, "stopping"),
            Err(error) => tracing::warn!(%error, "a signal was not understood"),
        }
        host.close();
    }
}

impl Host {
    /// Ends the process: the first call has each database finish, any other has it stop at once.
    pub(crate) fn close(&self) {
        let deadline = clock::mono().after(self.shutdown_sync_timeout.get());
        if self.closing.replace(true) {
            self.for_each(|entry| entry.send(Event::Shutdown { deadline }));
        } else {
            let numbers: Vec<u32> = self.databases.borrow().keys().copied().collect();
            numbers.into_iter().for_each(|number| self.finish(number, deadline));
        }
        self.changes.tell();
    }
}
