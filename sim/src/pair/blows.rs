//! What befalls the hosts.

use std::time::Duration;

use driftless_core::machine::Event;

use super::node::Who;
use super::world::{MS, SECOND, World};
use crate::disk::Unsynced;
use crate::ring0::Violation;
use crate::ring0::sqlite::Sqlite as _;
use crate::trace::Kind;

impl World {
    pub(super) fn blow(&mut self, n: u64) -> Result<(), Violation> {
        let any = (self.dice.draw("blow", "host", n) % self.nodes.len() as u64) as usize;
        // Most strike whoever writes.
        let writer = self.nodes.iter().position(|it| it.active);
        let host = writer.filter(|_| self.dice.chance("blow", "writer", n, 3, 4)).unwrap_or(any);
        let long = self.dice.wait("blow", "long", n, 500_000, 40_000_000).as_nanos() as u64;
        let kind = self.dice.draw("blow", "kind", n) % 11;
        self.summary.faults += 1;
        self.note(host, Kind::Fault, format_args!("blow {kind}, {} ms", long / MS));
        match kind {
            0 | 1 => self.ends(host),
            2 => self.nodes[host].paused_until = (self.now + long).min(self.troubled),
            3 => {
                let until = (self.now + long).min(self.troubled);
                (self.nodes[host].paused_until, self.nodes[host].app_paused_until) = (until, until);
            }
            4 | 5 => self.nodes[host].cut_until = self.now + long,
            6 => {
                let dice = self.dice;
                let mut lost = 0;
                let survives = |_: &Unsynced<'_>| {
                    lost += 1;
                    dice.chance("power", "survives", (n << 32) + lost, 1, 2)
                };
                self.power_fails(host, survives, dice.range("power", "records", n, 0, 4) as usize);
            }
            7 if self.nodes[host].active => return self.hand_over(host),
            8 => self.become_copy_of(host),
            9 => {
                let step = self.dice.range("blow", "step", n, 0, 600) * SECOND;
                self.nodes[host].ahead_ns = step;
                self.pass_to(self.now);
            }
            _ => {
                self.ends(host);
                self.nodes[host].state.lose_all();
                self.nodes[host].forgot = true;
            }
        }
        Ok(())
    }

    /// Somebody else locks the copy of a host for a while, so that it cannot be written.
    pub(super) fn lock_copy(&mut self, n: u64) {
        let host = (self.dice.draw("lock", "host", n) % self.nodes.len() as u64) as usize;
        let long = self.dice.wait("lock", "long", n, 500_000, 60_000_000).as_nanos() as u64;
        self.summary.faults += 1;
        self.note(host, Kind::Fault, format_args!("its copy is locked for {} ms", long / MS));
        self.nodes[host].copy_locked_until = self.now + long;
    }

    /// The machine of a host goes down, with what was not synced and does not survive by chance, and with the
    /// last so many records of its journal that were not.
    pub(super) fn power_fails(
        &mut self,
        host: usize,
        mut survives: impl FnMut(&Unsynced<'_>) -> bool,
        records: usize,
    ) {
        self.ends(host);
        self.nodes[host].model.power_loss(&mut survives);
        self.nodes[host].forgot = true;
        self.nodes[host].state.lose_unsynced(records);
    }

    /// Another host becomes a copy of this machine, its disk and its name included.
    pub(super) fn become_copy_of(&mut self, host: usize) {
        let other = (host + 1) % self.nodes.len();
        self.ends(other);
        let from = &self.nodes[host];
        let saved = from.disk().save();
        let (holder, term, state, truth) = (from.holder, from.term, from.state.clone(), from.truth.copy());
        let (ahead_ns, asides) = (from.ahead_ns, from.asides.clone());
        let to = &mut self.nodes[other];
        to.model.roll_back(&saved);
        (to.holder, to.term, to.state) = (holder, term, state);
        to.truth.go_on_from(&truth);
        (to.ahead_ns, to.asides) = (ahead_ns, asides);
    }

    /// The application ends, and the process once everything is replicated.
    pub(super) fn hand_over(&mut self, host: usize) -> Result<(), Violation> {
        self.nodes[host].end_application();
        self.nodes[host].leaves = true;
        let deadline = self.times(host).mono.after(Duration::from_secs(30));
        self.handle(host, Who::Replicator, Event::Shutdown { deadline })
    }
}
