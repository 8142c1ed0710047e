//! Runs whose segments are compressed with zstd, some of them with a dictionary, beside a compactor.

use driftless_core::engine::Compression;

use super::Plan;
use crate::ring0::dice::Dice;

/// Seeds from here on are compressed with zstd, in most of their runs.
pub const ZSTD_FROM: u64 = 40_000_000;

impl Plan {
    /// The same with zstd. A dictionary is made of as few pages as a small database has.
    pub(super) fn with_zstd(self, dice: &Dice) -> Plan {
        let mut plan = self;
        let level = *dice.pick("zstd", "level", 0, &[1, 3, 9]);
        plan.config.compression = Compression::Zstd { level };
        plan.config.sample_pages_min = *dice.pick("zstd", "sample", 0, &[8, 12, 20]) as usize;
        // The rows are noise, from which nothing is learnt that pays.
        plan.config.dictionary_permille_max = 5_000;
        plan
    }
}
