//! Carries out what the tiers decide: which databases have an engine.
//!
//! A database that runs has an engine only while it needs one and there is a place
//! ([`driftless_core::tiers`]). Without one, its changes are told to the tiers instead, and what a
//! person asks of it waits until it has one.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use driftless_adapters::pool::unblock;
use driftless_core::ids::{Mono, Txid};
use driftless_core::machine::{Event, Exit};
use driftless_core::tiers::{Fingerprint, Limits, Order, Tier, Tiers};
use futures_lite::FutureExt as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use smol::channel::Receiver;

use super::databases::{Entry, Life};
use super::{Host, running};
use crate::clock;
use crate::sqlite::probe::fingerprint;

/// How long the final sync of an engine may take that makes room for others.
const TURN_END: Duration = Duration::from_secs(10);
/// Free memory goes back to the system so long after a database has been closed: many are closed
/// together, and to look for what is free takes long where there is much.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(1);
/// Databases looked at in one go on a thread.
const SWEEP_BATCH: usize = 1_000;

/// Descriptors that a database with an engine may need, its part of a store's connections included.
const DESCRIPTORS_EACH: u64 = 6;
/// Descriptors of the process itself.
const DESCRIPTORS_KEPT: u64 = 128;

/// As many engines as there are descriptors for, of which the process takes all that it may have.
pub(super) fn within_descriptors(limits: Limits) -> Limits {
    let found = getrlimit(Resource::Nofile);
    let most = Rlimit { current: found.maximum, maximum: found.maximum };
    let raised = found.current != found.maximum && setrlimit(Resource::Nofile, most).is_ok();
    let Some(count) = (if raised { found.maximum } else { found.current }) else { return limits };
    let room =
        usize::try_from(count.saturating_sub(DESCRIPTORS_KEPT) / DESCRIPTORS_EACH).unwrap_or(usize::MAX);
    if room < limits.hot {
        tracing::warn!("{count} file descriptors are enough for {room} databases at once: see ulimit -n");
    }
    Limits { hot: limits.hot.min(room.max(1)), ..limits }
}

/// Gives places and takes them away, for as long as the process runs.
pub(super) async fn serve(host: Rc<Host>, told: Receiver<()>) {
    let mut orders = Vec::new();
    loop {
        host.tiers.borrow_mut().orders(clock::mono(), &mut orders);
        let any = !orders.is_empty();
        let look = orders.contains(&Order::Look);
        for order in orders.drain(..) {
            carry_out(&host, order);
        }
        if look {
            sweep(&host).await;
        }
        host.give_up_late(clock::mono());
        host.give_back(clock::mono());
        if any {
            // What was begun has its turn before more is.
            futures_lite::future::yield_now().await;
            continue;
        }
        let woken = async {
            told.recv().await.expect("the host holds a sender");
        };
        let due = async {
            let deadlines =
                [host.tiers.borrow().next_deadline(), host.next_give_up(), host.give_back_at.get()];
            match deadlines.into_iter().flatten().min() {
                Some(at) => async_io::Timer::after(at.since(clock::mono())).await,
                None => std::future::pending().await,
            };
        };
        woken.or(due).await;
    }
}

fn carry_out(host: &Rc<Host>, order: Order) {
    match order {
        Order::Start(number) => {
            if let Err(error) = running::start(host, number) {
                let database = host.look(number, |entry| entry.database.display().to_string());
                let hint = error.hint.clone().unwrap_or_default();
                tracing::error!(database, hint, "cannot be started: {error}");
                let exit = Exit::Misconfigured { error: error.to_string(), hint };
                host.change(number, |entry| entry.life = Life::Ended(exit));
                host.tiers(|tiers| tiers.remove(number));
            }
        }
        // The caller does, once the others are carried out.
        Order::Look => {}
        Order::Rest(number) => {
            host.look(number, |entry| entry.rest.as_ref().map(|rest| rest.try_send(())));
        }
        Order::Finish(number) => {
            let deadline = clock::mono().after(TURN_END);
            host.change(number, |entry| {
                // One that was told by a person to finish does so already, and with -once each ends by
                // itself.
                let goes_on = entry.life == Life::Running && !entry.settings.engine.once;
                if goes_on && !core::mem::replace(&mut entry.turn_over, true) {
                    entry.send(Event::Shutdown { deadline });
                }
            });
        }
    }
}

/// Compares the files of all cold databases with what they were.
async fn sweep(host: &Rc<Host>) {
    let cold: Vec<u32> = host.tiers.borrow().cold().collect();
    for batch in cold.chunks(SWEEP_BATCH) {
        let path = |number: &u32| Some((*number, host.look(*number, |entry| entry.database.clone())?));
        let paths: Vec<(u32, PathBuf)> = batch.iter().filter_map(path).collect();
        let look = move || paths.into_iter().map(|(number, path)| (number, fingerprint(&path))).collect();
        let looked: Vec<(u32, Option<Fingerprint>)> = unblock(look).await;
        host.tiers(|tiers| looked.into_iter().for_each(|(number, now)| tiers.told(number, || now)));
    }
}

impl Host {
    /// Changes the tiers, and has what follows carried out.
    pub(super) fn tiers<T>(&self, change: impl FnOnce(&mut Tiers) -> T) -> T {
        let changed = change(&mut self.tiers.borrow_mut());
        // A full channel says it already.
        let _ = self.places_told.try_send(());
        changed
    }

    /// Has free memory given back to the system in a moment.
    pub(super) fn give_back_soon(&self) {
        if self.give_back_at.get().is_none() {
            self.give_back_at.set(Some(clock::mono().after(GIVE_BACK_AFTER)));
            let _ = self.places_told.try_send(());
        }
    }

    fn give_back(&self, now: Mono) {
        if self.give_back_at.get().is_some_and(|at| at <= now) {
            self.give_back_at.set(None);
            crate::port::buffers::clear();
            crate::memory::give_back();
        }
    }

    /// How many of the databases that run are without an engine, wait for one, and have one.
    pub(crate) fn tier_counts(&self) -> (usize, usize, usize) {
        self.tiers.borrow().counts()
    }

    /// Tells a database that its files may have changed.
    pub(crate) fn source_changed(&self, entry: &Entry) {
        match entry.sender {
            Some(_) => entry.send(Event::SourceChanged),
            None if entry.life == Life::Running => {
                self.tiers(|tiers| tiers.told(entry.number, || fingerprint(&entry.database)));
            }
            None => {}
        }
    }

    /// Has all that is committed to a database now sent as soon as may be.
    pub(super) fn sync_now(&self, number: u32) {
        let sent = self.change(number, |entry| {
            entry.send(Event::SyncNow);
            entry.sync_wanted = entry.sender.is_none();
            entry.sender.is_some()
        });
        if !sent {
            self.tiers(|tiers| tiers.change(number));
        }
    }

    /// Has a database without an engine finish: at once if nothing has happened since it had one.
    pub(super) fn finish_without_engine(&self, number: u32, deadline: Mono) {
        let path = self.look(number, |entry| entry.database.clone()).unwrap_or_default();
        let cold = self.tiers(|tiers| {
            tiers.told(number, || fingerprint(&path));
            tiers.tier(number) == Some(Tier::Cold)
        });
        if cold {
            self.tiers(|tiers| tiers.remove(number));
            self.change(number, |entry| entry.life = Life::Stopped(Exit::Done));
        } else {
            self.change(number, |entry| entry.finish_by = Some(deadline));
            self.give_ups.borrow_mut().insert((deadline, number));
        }
    }

    /// Ends those that were to finish and have no engine yet.
    pub(super) fn give_up_all(&self) {
        let last = self.give_ups.borrow().last().map(|(at, _)| *at);
        self.give_up_late(last.unwrap_or_default());
    }

    fn next_give_up(&self) -> Option<Mono> {
        self.give_ups.borrow().first().map(|(at, _)| *at)
    }

    /// Ends those that were to finish by now and have found no place.
    fn give_up_late(&self, now: Mono) {
        loop {
            let first = self.give_ups.borrow().first().copied();
            let Some((at, number)) = first.filter(|(at, _)| *at <= now) else { return };
            self.give_ups.borrow_mut().remove(&(at, number));
            let late = self.change(number, |entry| {
                let late = entry.life == Life::Running && entry.finish_by.is_some();
                if late {
                    let error = "the time allowed for the final sync was over before its turn".into();
                    let from =
                        entry.replicated().and_then(|txid| Txid::new(txid.get() + 1)).unwrap_or(Txid::FIRST);
                    entry.life = Life::Stopped(Exit::Unreplicated { from, frames: 0, error });
                }
                late
            });
            if late {
                self.tiers(|tiers| tiers.remove(number));
            }
        }
    }
}
