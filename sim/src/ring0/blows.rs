//! What befalls the process and its machine, by the plan.

use driftless_core::machine::Event;

use super::plan::{Blow, StateFate};
use super::violation::Violation;
use super::world::{Entry, World};
use crate::disk::{SECTOR_BYTES, Unsynced};
use crate::trace::{Kind, node};

/// What a power loss has taken, and of what.
#[derive(Default)]
struct Losses {
    /// The end of the last sector of a write, its file, and whether it survived.
    last: Option<(String, u64, bool)>,
    lost: bool,
    torn: bool,
    disordered: bool,
    name: bool,
}

impl Losses {
    fn note(&mut self, unsynced: &Unsynced<'_>, survives: bool) {
        match unsynced {
            Unsynced::Name { .. } => self.name |= !survives,
            Unsynced::SetLen { .. } => self.lost |= !survives,
            Unsynced::Sector { path, offset } => {
                self.lost |= !survives;
                if let Some((file, end, survived)) = &self.last
                    && file == path
                {
                    self.torn |= *end == *offset && *survived != survives;
                    self.disordered |= *end != *offset && !survived && survives;
                }
                let end = (offset / SECTOR_BYTES + 1) * SECTOR_BYTES;
                self.last = Some(((*path).to_owned(), end, survives));
            }
        }
    }

    fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let all = [
            (self.lost, "disk: unsynced write lost"),
            (self.torn, "disk: torn write"),
            (self.disordered, "disk: writes out of order"),
            (self.name, "disk: name lost"),
        ];
        all.into_iter().filter(|(hit, _)| *hit).map(|(_, name)| name)
    }
}

impl World {
    pub(super) fn blow(&mut self, blow: Blow) -> Result<(), Violation> {
        self.note(node::MACHINE, Kind::Fault, format_args!("{blow:?}"));
        self.hit(blow.name());
        match blow {
            Blow::Kill { state, down } if self.is_up() => {
                self.kill();
                self.lose(state);
                self.later(down, Entry::Start);
                Ok(())
            }
            Blow::Stop { down } if self.running.is_some() => self.stop(down),
            Blow::Stop { down } if self.is_up() => self.stop_without_engine(down),
            Blow::Kill { .. } | Blow::Stop { .. } => Ok(()),
            Blow::WallStep(ms) => {
                self.step_wall(ms * 1_000_000);
                Ok(())
            }
            Blow::SyncNow if self.running.is_none() => self.sync_without_engine(),
            Blow::SyncNow => self.handle(Event::SyncNow),
            Blow::PowerLoss { down } => {
                self.power_loss();
                self.later(down, Entry::Start);
                Ok(())
            }
            other => self.trouble(other),
        }
    }

    pub(super) fn power_loss(&mut self) {
        self.kill();
        let (dice, at) = (self.dice, self.now_ns());
        let mut n = 0;
        let mut losses = Losses::default();
        self.sqlite.power_loss(&mut |unsynced| {
            n += 1;
            let survives = dice.chance("survives", "", at ^ n, 1, 2);
            losses.note(unsynced, survives);
            survives
        });
        losses.names().for_each(|name| self.hit(name));
        self.app.power_lost();
        if self.app.throw_away(self.sqlite.disk()) {
            self.open_first();
        }
        self.store.power_loss(dice, at);
        self.lose(StateFate::Cut(dice.range("survives", "records", at, 0, 6) as usize));
        self.look_for_cold();
    }

    pub(super) fn lose(&mut self, state: StateFate) {
        match state {
            StateFate::Kept => {}
            // A journal on the disk loses what the disk loses.
            StateFate::Cut(_) if self.full.local.is_some() => {}
            StateFate::Cut(count) => self.state.lose_unsynced(count),
            StateFate::Lost => {
                self.state.lose_all();
                self.lose_local();
                self.state_lost = true;
            }
        }
    }
}
