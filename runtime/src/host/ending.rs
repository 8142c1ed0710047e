//! How a process ends: its databases finish, or are let go of, and the worst end is its own.

use driftless_core::machine::{Event, Exit};

use super::databases::{Entry, Life};
use super::{Host, Moment};
use crate::clock;

impl Host {
    /// Lets go of all databases at once, whatever is not replicated.
    pub(super) fn abandon(&self) {
        let deadline = clock::mono();
        let numbers: Vec<u32> = self.databases.borrow().keys().copied().collect();
        numbers.into_iter().for_each(|number| self.finish(number, deadline));
        self.for_each(|entry| entry.send(Event::Shutdown { deadline }));
        self.give_up_all();
        self.changes.tell();
        self.lives.tell();
    }

    /// Ends the process: the first call has each database finish, any other has it stop at once.
    pub(crate) fn close(&self) {
        if let Some(lease) = self.lease.as_ref().filter(|lease| lease.lost().is_some()) {
            lease.end_asked.set(true);
        }
        let deadline = clock::mono().after(self.shutdown_sync_timeout.get());
        if self.closing.replace(true) {
            self.for_each(|entry| entry.send(Event::Shutdown { deadline }));
            self.give_up_all();
        } else {
            self.tell(Moment::Stopping);
            let numbers: Vec<u32> = self.databases.borrow().keys().copied().collect();
            numbers.into_iter().for_each(|number| self.finish(number, deadline));
        }
        self.changes.tell();
        self.lives.tell();
    }

    /// Whether nothing is left of any run.
    pub(super) fn are_over(&self) -> bool {
        let databases = self.databases.borrow();
        databases.values().all(|entry| matches!(entry.life, Life::Ended(_) | Life::Stopped(_)))
    }

    /// The worst end, once all databases have come to theirs.
    pub(crate) fn ended(&self) -> Option<Exit> {
        if let Some(lease) = &self.lease {
            if let Some(exit) = lease.lost() {
                return (lease.may_end() && self.are_over()).then_some(exit);
            }
            let waits = !lease.is_active() && !self.closing.get();
            if waits || lease.copies.get() > 0 {
                return None;
            }
        }
        let databases = self.databases.borrow();
        let over = |entry: &Entry| match entry.life {
            Life::Ended(_) | Life::Leaving { asked: false, .. } => true,
            Life::Stopped(_) | Life::Leaving { asked: true, .. } => self.closing.get(),
            Life::Running | Life::Stopping | Life::Resetting { .. } => false,
        };
        let goes_on = (self.stays || self.discovery.watches()) && !self.closing.get();
        if goes_on || !databases.values().all(|entry| over(entry)) {
            return None;
        }
        let exits = databases.values().filter_map(|entry| entry.exit());
        Some(exits.max_by_key(|exit| exit.code()).cloned().unwrap_or(Exit::Done))
    }
}
