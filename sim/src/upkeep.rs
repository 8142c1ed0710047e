//! Levels and retention in a hurry, for hosts that hand a database on.

use std::time::Duration;

use driftless_core::compact::CompactConfig;
use driftless_core::lease::request_deadline;
use driftless_core::retain::RetainConfig;

use crate::ring0::dice::Dice;

/// Intervals so short that files come to be deleted while hosts that could miss them stand still, under a lease of
/// this time to live.
pub fn hurried(dice: &Dice, ttl: Duration, pending_byte: u64) -> CompactConfig {
    let pick = |name: &str, of: &[u64]| Duration::from_millis(*dice.pick("levels", name, 0, of));
    let retention = RetainConfig {
        snapshot_retention: pick("snapshot retention", &[2_000, 20_000]),
        l0_retention: pick("l0", &[500, 4_000]),
        ..RetainConfig::default()
    };
    CompactConfig {
        levels: vec![pick("one", &[1_000, 5_000]), pick("two", &[5_000, 20_000])],
        snapshot_interval: pick("snapshot", &[10_000, 40_000]),
        retention: Some(retention),
        remote: true,
        store_deadline: request_deadline(ttl),
        pending_byte,
        ..CompactConfig::default()
    }
}
