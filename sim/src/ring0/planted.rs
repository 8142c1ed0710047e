//! Defects that are put in to try the tools of the simulator on something known.
//!
//! A run that has none of these is a run of the simulator as it is. Defects of the engine are
//! planted elsewhere, as mutants.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::app::{AppEnd, AppOp};
use super::store::Fate;
use super::violation::Violation;
use super::world::World;
use crate::trace::{Kind, node};

/// A defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Planted {
    /// An oracle that speaks when the answer to a put is lost after a VACUUM and after a death of the
    /// process: the shrinker must find that it takes these three and nothing else.
    LostAnswer,
    /// After a VACUUM, the order of a hash table with a random state gets into what happens: a repeat
    /// of the run must tell.
    RandomState,
}

/// What the defects have to know.
#[derive(Debug, Default)]
pub(super) struct Seen {
    vacuums: u64,
}

impl World {
    /// The application has done something.
    pub(super) fn plant_after_app(&mut self, op: AppOp, end: &AppEnd) {
        self.seen.vacuums += u64::from(op == AppOp::Vacuum && *end == AppEnd::Committed);
        if self.plan.planted == Some(Planted::RandomState) && self.seen.vacuums > 0 {
            let numbers: HashSet<u64> = (0..20).collect();
            let order: Vec<u64> = numbers.into_iter().collect();
            self.note(node::ORACLE, Kind::Note, format_args!("in the order of a hash table: {order:?}"));
        }
    }

    /// The store has done something for a request.
    pub(super) fn plant_after_request(&self, kind: Kind, fate: Fate) -> Result<(), Violation> {
        let lost = fate == Fate::Lost && kind == Kind::Put;
        if self.plan.planted == Some(Planted::LostAnswer)
            && lost
            && self.seen.vacuums > 0
            && self.summary.crashes > 0
        {
            return Err(Violation::new("planted", "an answer was lost after a VACUUM and a death"));
        }
        Ok(())
    }
}
