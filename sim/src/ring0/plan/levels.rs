//! Runs whose replicator has a compactor beside it.

use std::time::Duration;

use driftless_core::compact::CompactConfig;
use driftless_core::engine::Config;
use driftless_core::retain::RetainConfig;
use serde::{Deserialize, Serialize};

use super::{Blow, Plan};
use crate::ring0::dice::Dice;
use crate::ring0::faults::{Class, Fault, Faults};

/// Seeds from here on have levels as well; those before were kept for stories without.
pub const LEVELS_FROM: u64 = 20_000_000;

/// Seeds from here on delete what is covered as well.
pub const RETAIN_FROM: u64 = 30_000_000;

/// Seeds from here on have others beside levels who write to the same replica.
pub const RIVALS_FROM: u64 = 50_000_000;

/// What cannot be judged yet where there are levels: a store that loses what it has acknowledged makes
/// files of a history that is written anew.
const NOT_WITH_LEVELS: [&str; 1] = ["store: objects vanish"];

/// The settings of a compactor, in milliseconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Levels {
    /// How often level 1 and so on are made.
    pub intervals_ms: Vec<u64>,
    /// How often a snapshot is made.
    pub snapshot_ms: u64,
    /// From so many bytes on, it is made when the log outweighs the last.
    pub snapshot_bytes_min: u64,
    /// Whether each result is read back.
    pub verify: bool,
    /// What is deleted, if anything is.
    #[serde(default)]
    pub retain: Option<Retain>,
    /// Whether each end of a file that must be restorable is restored in the end, and not a few.
    #[serde(default)]
    pub every_end: bool,
}

/// The settings of a retainer, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retain {
    /// How long each end of a level stays restorable.
    pub snapshot_ms: u64,
    /// How long a file stays after another holds what it does.
    pub l0_ms: u64,
}

impl Levels {
    fn of_dice(dice: &Dice) -> Levels {
        let intervals: &[&[u64]] =
            &[&[900, 4_000, 15_000], &[3_000, 20_000], &[500], &[1_000, 2_000, 4_000, 8_000]];
        let pick = |name: &str, of: &[u64]| *dice.pick("levels", name, 0, of);
        Levels {
            intervals_ms: intervals[pick("intervals", &[0, 1, 2, 3]) as usize].to_vec(),
            snapshot_ms: pick("snapshot", &[7_000, 40_000]),
            snapshot_bytes_min: pick("bytes", &[1, 1, 1 << 20]),
            verify: pick("verify", &[0, 1]) == 1,
            retain: None,
            every_end: false,
        }
    }

    fn with_retention(self, dice: &Dice) -> Levels {
        let pick = |name: &str, of: &[u64]| *dice.pick("retain", name, 0, of);
        let retain =
            Retain { snapshot_ms: pick("snapshot", &[5_000, 30_000]), l0_ms: pick("l0", &[500, 4_000]) };
        Levels { retain: Some(retain), ..self }
    }

    /// The settings of a compactor beside a replicator with those.
    pub fn config(&self, engine: &Config) -> CompactConfig {
        CompactConfig {
            levels: self.intervals_ms.iter().map(|ms| Duration::from_millis(*ms)).collect(),
            snapshot_interval: Duration::from_millis(self.snapshot_ms),
            snapshot_bytes_min: self.snapshot_bytes_min,
            verify: self.verify,
            retention: self.retain.map(|retain| RetainConfig {
                snapshot_retention: Duration::from_millis(retain.snapshot_ms),
                l0_retention: Duration::from_millis(retain.l0_ms),
                ..RetainConfig::default()
            }),
            create_if_absent: engine.create_if_absent,
            remote: engine.remote,
            store_deadline: engine.store_deadline,
            pending_byte: engine.pending_byte,
        }
    }
}

impl Plan {
    /// The same with a compactor, with a retainer or without, and with rivals or without.
    pub(super) fn with_levels(self, dice: &Dice, retains: bool, rivals: bool) -> Plan {
        let mut plan = self;
        plan.blows.retain(|(_, blow)| rivals || !matches!(blow, Blow::Rival { .. } | Blow::Clone));
        let judged = |name: &&str| {
            let topology = Fault::named(name).is_some_and(|fault| fault.class == Class::Topology);
            (rivals || !topology) && !NOT_WITH_LEVELS.contains(name)
        };
        plan.faults = Faults::of_names(plan.faults.names().filter(judged));
        let levels = Levels::of_dice(dice);
        plan.levels = Some(if retains { levels.with_retention(dice) } else { levels });
        plan
    }
}
