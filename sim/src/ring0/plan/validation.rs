//! Runs whose replica is validated while it is written.

use std::time::Duration;

use driftless_core::engine::Config;
use driftless_core::validate::ValidateConfig;

use super::Plan;
use crate::ring0::dice::Dice;

/// Seeds from here on are validated as well.
pub const VALIDATION_FROM: u64 = 40_000_000;

impl Plan {
    /// The same with a validator.
    pub(super) fn with_validation(self, dice: &Dice) -> Plan {
        let every = *dice.pick("validation", "interval", 0, &[15_000, 60_000, 400_000]);
        Plan { validation_ms: Some(every), ..self }
    }

    /// The settings of a validator beside a replicator with those, if there is one.
    pub fn validation(&self, engine: &Config) -> Option<ValidateConfig> {
        self.validation_ms.map(|every| ValidateConfig {
            interval: Duration::from_millis(every),
            store_deadline: engine.store_deadline,
            pending_byte: engine.pending_byte,
        })
    }
}
