//! What befalls the process and its machine, by the plan.

use driftless_core::machine::Event;

use super::plan::{Blow, StateFate};
use super::violation::Violation;
use super::world::{Entry, World};
use crate::trace::{Kind, node};

impl World {
    pub(super) fn blow(&mut self, blow: Blow) -> Result<(), Violation> {
        self.note(node::MACHINE, Kind::Fault, format_args!("{blow:?}"));
        self.hit(blow.name());
        match blow {
            Blow::Kill { state, down } if self.running.is_some() => {
                self.kill();
                self.lose(state);
                self.later(down, Entry::Start);
                Ok(())
            }
            Blow::Stop { down } if self.running.is_some() => self.stop(down),
            Blow::Kill { .. } | Blow::Stop { .. } => Ok(()),
            Blow::WallStep(ms) => {
                self.step_wall(ms * 1_000_000);
                Ok(())
            }
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
        self.sqlite.power_loss(&mut |_| {
            n += 1;
            dice.chance("survives", "", at ^ n, 1, 2)
        });
        self.app.power_lost();
        self.lose(StateFate::Cut(dice.range("survives", "records", at, 0, 6) as usize));
        self.look_for_cold();
    }

    pub(super) fn lose(&mut self, state: StateFate) {
        match state {
            StateFate::Kept => {}
            StateFate::Cut(count) => self.state.lose_unsynced(count),
            StateFate::Lost => {
                self.state.lose_all();
                self.state_lost = true;
            }
        }
    }
}
