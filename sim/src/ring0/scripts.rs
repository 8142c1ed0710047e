//! Short scripts, each crashed after every single action.

use std::time::Duration;

use driftless_core::engine::Config;

use super::app::{AppOp, Work};
use super::plan::{Levels, Plan};

const fn insert(rows: u32, bytes: u32) -> AppOp {
    AppOp::Write(Work::Insert { rows, bytes })
}

fn plan(ops: &[(u64, AppOp)], config: Config) -> Plan {
    let script = ops.iter().map(|(ms, op)| (Duration::from_millis(*ms), *op)).collect();
    Plan { config, ..Plan::calm(script) }
}

/// The short scripts by name, the shortest first.
pub fn short() -> Vec<(&'static str, Plan)> {
    vec![("tiny", tiny()), ("daily", daily()), ("rough", rough()), ("crowded", crowded())]
}

/// A base, one capture, quiet: as little as there can be, for everything that can go wrong in it.
pub fn tiny() -> Plan {
    let config = Config {
        sync_interval: Duration::from_millis(100),
        quiet_after: Duration::from_millis(400),
        ..Config::default()
    };
    plan(&[(0, AppOp::Open { page_bytes: 512 }), (300, insert(1, 50))], config)
}

/// A small database: base, captures, a checkpoint of ours, quiet and seal, waking.
pub fn daily() -> Plan {
    let config = Config {
        sync_interval: Duration::from_millis(100),
        min_checkpoint_pages: 10,
        quiet_after: Duration::from_millis(400),
        ..Config::default()
    };
    let ops = [
        (0, AppOp::Open { page_bytes: 1_024 }),
        (30, insert(3, 200)),
        (250, insert(10, 400)),
        (5, AppOp::Write(Work::Update { of: 3 })),
        (300, insert(20, 400)),
        (4_000, AppOp::Write(Work::Delete { of: 2 })),
        (300, AppOp::Vacuum),
        (2_500, insert(1, 30)),
    ];
    plan(&ops, config)
}

/// Everything that cuts continuity: phantom, kill, checkpoint modes, last close, replacement.
pub fn rough() -> Plan {
    let config = Config {
        sync_interval: Duration::from_millis(50),
        min_checkpoint_pages: 8,
        quiet_after: Duration::from_millis(300),
        ..Config::default()
    };
    let ops = [
        (0, AppOp::Open { page_bytes: 512 }),
        (20, insert(4, 300)),
        (120, AppOp::DieInCommit(Work::Insert { rows: 2, bytes: 200 })),
        (60, insert(2, 100)),
        (60, AppOp::Checkpoint("TRUNCATE")),
        (5, insert(5, 300)),
        (60, AppOp::Close),
        (1_500, AppOp::Recreate { page_bytes: 1_024 }),
        (200, insert(3, 500)),
        (100, AppOp::Kill),
        (100, insert(3, 500)),
    ];
    plan(&ops, config)
}

/// More changes than memory may hold: dirty bases and streams.
pub fn crowded() -> Plan {
    let config = Config {
        sync_interval: Duration::from_millis(50),
        min_checkpoint_pages: 20,
        quiet_after: Duration::from_millis(300),
        pending_bytes_max: 6_000,
        pending_byte: 0x10000,
        ..Config::default()
    };
    let ops = [
        (0, AppOp::Open { page_bytes: 1_024 }),
        (20, insert(90, 800)),
        (300, insert(30, 400)),
        (10, AppOp::Write(Work::Update { of: 2 })),
        (400, AppOp::Write(Work::Delete { of: 3 })),
        (50, AppOp::Vacuum),
        (300, insert(2, 50)),
    ];
    plan(&ops, config)
}

/// A writer at full speed that never checkpoints by itself more often than every
/// `autocheckpoint` pages, and never reads for long.
pub fn full_speed(transactions: u32, autocheckpoint: u32) -> Plan {
    let config = Config {
        sync_interval: Duration::from_millis(200),
        min_checkpoint_pages: 400,
        quiet_after: Duration::from_millis(500),
        ..Config::default()
    };
    let mut ops = vec![(0, AppOp::Open { page_bytes: 512 }), (0, AppOp::Autocheckpoint(autocheckpoint))];
    ops.extend((0..transactions).map(|n| (u64::from(n % 8 == 0), insert(1, 300))));
    plan(&ops, config)
}

/// A writer beside a store that is so slow that the first base takes far longer than the WAL takes
/// to reach its bound many times over. The base is streamed a few pages at a time.
pub fn long_base(transactions: u32) -> Plan {
    let config = Config {
        sync_interval: Duration::from_millis(200),
        min_checkpoint_pages: 100,
        quiet_after: Duration::from_millis(500),
        pending_bytes_max: 8_192,
        ..Config::default()
    };
    let mut ops = vec![(0, AppOp::Open { page_bytes: 512 }), (0, insert(400, 300))];
    ops.extend((0..transactions).map(|n| {
        // Old pages change as well as new ones come, and now and then the database shrinks.
        let op = match n % 40 {
            7 => AppOp::Write(Work::Update { of: 5 }),
            23 => AppOp::Write(Work::Delete { of: 9 }),
            39 => AppOp::Vacuum,
            _ => insert(1, 300),
        };
        (4, op)
    }));
    let mut plan = plan(&ops, config);
    plan.store.latency = Duration::from_millis(400);
    plan
}

/// A busy day: a transaction each five seconds for 24 hours, with levels and retention.
pub fn day(levels: Levels) -> Plan {
    let second = Duration::from_secs(1);
    let mut script = vec![(Duration::ZERO, AppOp::Open { page_bytes: 512 }), (second, insert(40, 100))];
    let updates = (0..24 * 720).map(|n| {
        let work = if n % 10 == 0 { Work::Delete { of: 7 } } else { Work::Insert { rows: 2, bytes: 80 } };
        (5 * second, AppOp::Write(if n % 2 == 0 { work } else { Work::Update { of: 9 } }))
    });
    script.extend(updates);
    Plan { levels: Some(levels), ..Plan::calm(script) }
}
