//! Connections that wait for the next request.
//!
//! A connection is a task of hyper's on the executor, so a server that closes it is noticed at
//! once and costs no descriptor. Those that stay idle for [`IDLE`] are closed by one task that
//! sleeps until the eldest is due and ends with the last of them: a process that has settled is
//! not woken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;
use smol::{Executor, Task};

use super::body::Body;
use super::io::Meter;
use super::socket::Watch;
use crate::timer::Timer;

/// How long a connection may wait; below the minute after which many servers close it.
pub(super) const IDLE: Duration = Duration::from_secs(50);
/// The most idle connections to one server: as many as a restore reads through at once.
const IDLE_MAX: usize = 16;

/// What two requests must have in common to share a connection.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    pub(super) secure: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) skip_verify: bool,
    /// Reached without a proxy, whatever the environment says.
    pub(super) direct: bool,
}

/// A connection. Dropping it closes it.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    meter: Arc<Meter>,
    socket: Watch,
    _task: Task<()>,
}

impl Connection {
    pub(super) fn new(
        sender: SendRequest<Body>,
        meter: Arc<Meter>,
        socket: Watch,
        task: Task<()>,
    ) -> Connection {
        Connection { sender, meter, socket, _task: task }
    }

    pub(super) fn sender(&mut self) -> &mut SendRequest<Body> {
        &mut self.sender
    }

    pub(super) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Whether it may carry another request. What can be read from an idle connection is its end,
    /// or something that nobody asked for; its task may not have come to it yet.
    fn is_quiet(&self) -> bool {
        !self.sender.is_closed() && self.socket.is_quiet()
    }
}

#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// For each server the connections and since when they are idle, the eldest first.
    waiting: BTreeMap<Key, Vec<(Instant, Connection)>>,
    reaper_runs: bool,
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that became idle last, if one is still good.
    pub(super) fn take(&self, key: &Key) -> Option<Connection> {
        let mut idle = self.idle();
        let waiting = idle.waiting.get_mut(key)?;
        loop {
            let (since, connection) = waiting.pop()?;
            if since.elapsed() < IDLE && connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    /// Lets a connection wait for the next request.
    pub(super) fn keep(self: &Arc<Self>, key: Key, connection: Connection, executor: &Executor<'static>) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.idle();
        let waiting = idle.waiting.entry(key).or_default();
        if waiting.len() >= IDLE_MAX {
            waiting.remove(0);
        }
        waiting.push((Instant::now(), connection));
        if !std::mem::replace(&mut idle.reaper_runs, true) {
            executor.spawn(reap(Arc::downgrade(self))).detach();
        }
    }

    /// Closes what has waited long enough. The next moment at which to do so, if anything waits.
    pub(super) fn close_old(&self, now: Instant) -> Option<Instant> {
        let mut idle = self.idle();
        idle.waiting.retain(|_, waiting| {
            waiting.retain(|(since, connection)| now < *since + IDLE && !connection.sender.is_closed());
            !waiting.is_empty()
        });
        let next = idle.waiting.values().flatten().map(|(since, _)| *since + IDLE).min();
        idle.reaper_runs = next.is_some();
        next
    }
}

async fn reap(pool: Weak<Pool>) {
    let mut next = Instant::now() + IDLE;
    loop {
        Timer::at(next).await;
        match pool.upgrade().and_then(|pool| pool.close_old(Instant::now())) {
            Some(due) => next = due,
            None => return,
        }
    }
}
