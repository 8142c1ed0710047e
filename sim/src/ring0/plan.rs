//! What a run is made of: settings, a script for the application, and a fate for the process.

use std::time::Duration;

use driftless_core::engine::{Compression, Config};
use driftless_core::ids::PENDING_BYTE;
use serde::{Deserialize, Serialize};

use super::app::{AppOp, Work};
use super::dice::Dice;
use super::faults::{FULL_FROM, Faults};
use super::planted::Planted;
use super::sites::Strike;
use crate::scenario::parts::{ConfigText, time, timed};

mod full;
mod levels;
mod tiers;
mod validation;
mod zstd;

pub use levels::{LEVELS_FROM, Levels, RETAIN_FROM, RIVALS_FROM, Retain};
pub use tiers::TIERS_FROM;
pub use validation::VALIDATION_FROM;
pub use zstd::ZSTD_FROM;

/// What becomes of the local state between two runs of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StateFate {
    /// It is as it was.
    Kept,
    /// So many records that were not synced are gone.
    Cut(usize),
    /// All is gone.
    Lost,
}

/// Something that happens to the process or its surroundings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Blow {
    /// SIGKILL, and a start after `down`.
    Kill {
        /// What is left of the local state.
        state: StateFate,
        /// How long it stays dead.
        #[serde(with = "time")]
        down: Duration,
    },
    /// An orderly stop, and a start after `down`.
    Stop {
        /// How long it stays down.
        #[serde(with = "time")]
        down: Duration,
    },
    /// The wall clock is set by so many milliseconds.
    WallStep(i64),
    /// A person asks for a sync.
    SyncNow,
    /// The machine loses power; everything starts again after `down`.
    PowerLoss {
        /// How long it stays dark.
        #[serde(with = "time")]
        down: Duration,
    },
    /// Our process does not run for a while, its requests go on without it.
    Pause {
        /// For how long.
        #[serde(with = "time")]
        length: Duration,
    },
    /// A stop that was asked for is asked for again: at once, now.
    SecondSignal,
    /// The monotonic clock stands.
    FreezeMono {
        /// For how long.
        #[serde(with = "time")]
        length: Duration,
    },
    /// The wall clock stands.
    FreezeWall {
        /// For how long.
        #[serde(with = "time")]
        length: Duration,
    },
    /// A snapshot of the machine is taken.
    Snapshot,
    /// The machine becomes what it was at the snapshot; the store does not.
    RollBack {
        /// How long it takes.
        #[serde(with = "time")]
        down: Duration,
    },
    /// The machine gets another disk, with nothing on it.
    EmptyDisk {
        /// How long it takes.
        #[serde(with = "time")]
        down: Duration,
    },
    /// Another database begins to replicate to the same place.
    Rival {
        /// Whether somebody said that it owns the replica.
        adopt: bool,
    },
    /// The machine is copied, and the copy started beside it.
    Clone,
    /// Somebody, or the disk, lays hands on the journal of the local state.
    Tamper(Tamper),
}

/// What becomes of a file behind its owner's back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Tamper {
    /// It is removed.
    Remove,
    /// It is cut.
    Truncate,
    /// An older copy takes its place.
    Swap,
    /// A bit of it changes on the platter.
    Rot,
}

impl Blow {
    /// Whether something breaks.
    pub const fn is_fault(self) -> bool {
        !matches!(self, Blow::Stop { .. } | Blow::SyncNow | Blow::WallStep(_) | Blow::Snapshot)
    }

    /// Its name among the hits.
    pub const fn name(self) -> &'static str {
        match self {
            Blow::Kill { .. } => "process: killed",
            Blow::Stop { .. } => "process: stopped",
            Blow::WallStep(_) => "clock: wall stepped",
            Blow::SyncNow => "process: told to sync",
            Blow::PowerLoss { .. } => "machine: power lost",
            Blow::Pause { .. } => "process: paused",
            Blow::SecondSignal => "process: second signal",
            Blow::FreezeMono { .. } => "clock: monotonic stands",
            Blow::FreezeWall { .. } => "clock: wall stands",
            Blow::Snapshot => "machine: snapshot",
            Blow::RollBack { .. } => "machine: rolled back",
            Blow::EmptyDisk { .. } => "machine: empty disk",
            Blow::Rival { adopt: false } => "topology: a rival",
            Blow::Rival { adopt: true } => "topology: a rival adopts",
            Blow::Clone => "topology: a clone",
            Blow::Tamper(Tamper::Remove) => "disk: removed by hand",
            Blow::Tamper(Tamper::Truncate) => "disk: truncated by hand",
            Blow::Tamper(Tamper::Swap) => "disk: swapped by hand",
            Blow::Tamper(Tamper::Rot) => "disk: bit rot at rest",
        }
    }
}

/// How faulty the store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreFaults {
    /// Out of a thousand requests, so many do not simply work.
    pub per_mille: u64,
    /// The longest usual latency.
    #[serde(with = "time")]
    pub latency: Duration,
    /// Length of the longest outage; zero for none.
    #[serde(with = "time")]
    pub outage: Duration,
    /// Entries in one answer to a listing.
    pub page_max: usize,
    /// Whether it refuses to replace an object.
    pub conditions: Conditions,
}

impl Default for StoreFaults {
    /// None.
    fn default() -> StoreFaults {
        StoreFaults {
            per_mille: 0,
            latency: Duration::from_millis(20),
            outage: Duration::ZERO,
            page_max: 1_000,
            conditions: Conditions::Kept,
        }
    }
}

/// What the store makes of create-if-absent, and who knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Conditions {
    /// It keeps it.
    Kept,
    /// It does not, and says so.
    Disclaimed,
    /// It does not, which the probe finds out some seconds after each start.
    Ignored,
}

/// Seeds from here on also vary what the store makes of conditions; those before were kept for
/// stories of stores that keep them.
pub const CONDITIONS_FROM: u64 = 1_000_000;

/// Seeds from here on run on a model of SQLite; those before were kept for SQLite itself.
pub const MODEL_FROM: u64 = 10_000_000;

/// Seeds whose stories are told only where every frame of a short capture is read, as it was when they
/// were kept.
const EVERY_FRAME: [u64; 2] = [15_301_791, 15_613_030];

/// What the application and the replicator's link run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// SQLite itself and the production link.
    Library,
    /// A model of both.
    Model,
}

/// A whole run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// What SQLite is.
    pub workload: Workload,
    /// The settings of the replicator.
    #[serde(with = "ConfigText")]
    pub config: Config,
    /// The application's operations, each so long after the one before.
    #[serde(with = "timed")]
    pub script: Vec<(Duration, AppOp)>,
    /// Blows, by the time from the start.
    #[serde(with = "timed")]
    pub blows: Vec<(Duration, Blow)>,
    /// The store.
    pub store: StoreFaults,
    /// The longest latency of a request to the source.
    #[serde(with = "time")]
    pub source_latency: Duration,
    /// Out of ten thousand operations of SQLite in our process, so many fail, and now and then the
    /// process dies in one.
    pub source_faults: u64,
    /// Out of a thousand records, so many cannot be written.
    pub state_faults: u64,
    /// Whether the application syncs each commit, so that power loss takes none.
    pub durable: bool,
    /// Out of a hundred changes of the files, so many are not told of.
    pub events_lost: u64,
    /// The process dies right after this action.
    pub crash_at: Option<u64>,
    /// What is left of the local state after that.
    pub crash_state: StateFate,
    /// The machine loses power there.
    pub crash_power: bool,
    /// Which of the faults that the dice decide about strike.
    pub strike: Strike,
    /// What may befall it beyond the above: only runs of the full generation have any.
    pub faults: Faults,
    /// The compactor, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub levels: Option<Levels>,
    /// Whether the process has many databases, so that the engine comes and goes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tiers: bool,
    /// How often the replica is validated, if it is, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_ms: Option<u64>,
    /// A defect that is put in to try the tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planted: Option<Planted>,
}

const MS: u64 = 1_000;

impl Default for Plan {
    /// Nothing happens, and nothing goes wrong.
    fn default() -> Plan {
        Plan::calm(Vec::new())
    }
}

impl Plan {
    /// Whether the store is a server, which is probed, and may be found not to keep what it says.
    pub fn is_remote(&self) -> bool {
        self.config.remote || self.store.conditions == Conditions::Ignored
    }

    /// Operations of the application, without those that only let time pass.
    pub fn operations(&self) -> usize {
        self.script.iter().filter(|(_, op)| *op != AppOp::Rest).count()
    }

    /// A run without faults.
    pub fn calm(script: Vec<(Duration, AppOp)>) -> Plan {
        Plan {
            workload: Workload::Library,
            config: Config::default(),
            script,
            blows: Vec::new(),
            store: StoreFaults::default(),
            source_latency: Duration::from_micros(200),
            source_faults: 0,
            state_faults: 0,
            durable: true,
            events_lost: 0,
            crash_at: None,
            crash_state: StateFate::Kept,
            crash_power: false,
            strike: Strike::All,
            faults: Faults::none(),
            levels: None,
            tiers: false,
            validation_ms: None,
            planted: None,
        }
    }

    /// The run of a seed.
    pub fn of_seed(seed: u64) -> Plan {
        let ops = Dice::new(seed).range("plan", "ops", 0, 60, 220);
        Plan::of_seed_with(seed, ops, &[512, 512, 1_024, 1_024, 4_096])
    }

    /// The run of a seed with so many operations and one of these page sizes.
    pub fn of_seed_with(seed: u64, ops: u64, page_sizes: &[u64]) -> Plan {
        let plan = Plan::of_early_seed(seed, ops, page_sizes);
        let dice = Dice::new(seed);
        let plan = if seed < FULL_FROM { plan } else { plan.made_full(&dice) };
        if seed >= TIERS_FROM {
            return plan.with_zstd(&dice).with_tiers(seed, &dice);
        }
        let plan = if seed < LEVELS_FROM {
            plan
        } else {
            plan.with_levels(&dice, seed >= RETAIN_FROM, seed >= RIVALS_FROM)
        };
        let plan = if seed < ZSTD_FROM { plan } else { plan.with_zstd(&dice) };
        if seed < VALIDATION_FROM { plan } else { plan.with_validation(&dice) }
    }

    fn of_early_seed(seed: u64, ops: u64, page_sizes: &[u64]) -> Plan {
        let dice = Dice::new(seed);
        let pick = |name: &str, of: &[u64]| *dice.pick("plan", name, 0, of);
        let page_bytes = pick("page size", page_sizes) as u32;
        let script = script(&dice, ops, page_bytes);
        let length: Duration = script.iter().map(|(wait, _)| *wait).sum();
        let conditions = match pick("conditions", &[0, 0, 1, 2]) {
            1 if seed >= CONDITIONS_FROM => Conditions::Disclaimed,
            2 if seed >= CONDITIONS_FROM => Conditions::Ignored,
            _ => Conditions::Kept,
        };
        Plan {
            workload: if seed < MODEL_FROM { Workload::Library } else { Workload::Model },
            config: Config { create_if_absent: conditions != Conditions::Disclaimed, ..config(&dice, seed) },
            blows: blows(&dice, length),
            script,
            store: StoreFaults {
                per_mille: pick("store faults", &[0, 20, 100, 300]),
                latency: Duration::from_millis(pick("store latency", &[5, 50, 500, 3_000])),
                outage: Duration::from_secs(pick("outage", &[0, 0, 10, 100])),
                page_max: pick("list page", &[2, 7, 1_000]) as usize,
                conditions,
            },
            source_latency: Duration::from_micros(pick("source latency", &[50, 1_000, 20_000])),
            source_faults: pick("source faults", &[0, 0, 10, 100]),
            state_faults: pick("state faults", &[0, 0, 10, 200]),
            durable: pick("durable", &[0, 1]) == 1,
            events_lost: pick("events lost", &[0, 0, 3, 20]),
            crash_at: None,
            crash_state: StateFate::Kept,
            crash_power: false,
            strike: Strike::All,
            faults: Faults::none(),
            levels: None,
            tiers: false,
            validation_ms: None,
            planted: None,
        }
    }
}

fn config(dice: &Dice, seed: u64) -> Config {
    let as_ever = seed < FULL_FROM || EVERY_FRAME.contains(&seed);
    let pick = |name: &str, of: &[u64]| *dice.pick("config", name, 0, of);
    Config {
        sync_interval: Duration::from_millis(pick("sync interval", &[20, 200, 1_000, 10_000])),
        min_checkpoint_pages: pick("checkpoint", &[8, 30, 120, 1_000]) as u32,
        quiet_after: Duration::from_millis(pick("quiet", &[300, 2_000, 15_000])),
        pending_bytes_max: pick("pending", &[6_000, 40_000, 16 << 20, 16 << 20]) as usize,
        store_deadline: Duration::from_secs(pick("deadline", &[4, 60])),
        remote: pick("remote", &[0, 1]) == 1,
        create_if_absent: true,
        prove_tenure: false,
        epoch: None,
        succeeds: false,
        shutdown_sync_interval: Config::default().shutdown_sync_interval,
        adopt: false,
        once: false,
        compression: Compression::Lz4,
        sample_pages_min: 16,
        dictionary_permille_max: 970,
        newest_only_from: if as_ever { 32 } else { pick("newest", &[1, 2, 8, 32]) as u32 },
        pending_byte: pick("pending byte", &[PENDING_BYTE, PENDING_BYTE, 0x10000]),
    }
}

fn blows(dice: &Dice, length: Duration) -> Vec<(Duration, Blow)> {
    let count = dice.range("blow", "count", 0, 0, 6);
    let within = length.as_micros().max(1) as u64;
    let mut blows: Vec<(Duration, Blow)> = (0..count)
        .map(|n| {
            let at = Duration::from_micros(dice.draw("blow", "at", n) % within);
            let down = dice.wait("blow", "down", n, 5 * MS, 60_000 * MS);
            let state = match dice.draw("blow", "state", n) % 8 {
                0 => StateFate::Lost,
                1 | 2 => StateFate::Cut(dice.range("blow", "cut", n, 1, 6) as usize),
                _ => StateFate::Kept,
            };
            let blow = match dice.draw("blow", "kind", n) % 10 {
                0 | 1 => Blow::Stop { down },
                2 => Blow::WallStep(dice.range("blow", "step", n, 0, 20_000) as i64 - 10_000),
                3 => Blow::SyncNow,
                4 => Blow::PowerLoss { down },
                _ => Blow::Kill { state, down },
            };
            (at, blow)
        })
        .collect();
    blows.sort_by_key(|(at, _)| *at);
    blows
}

pub(super) fn script(dice: &Dice, ops: u64, page_bytes: u32) -> Vec<(Duration, AppOp)> {
    let calmness = dice.range("script", "calm", 0, 0, 2);
    let wild = dice.chance("script", "wild", 0, 1, 2);
    let mut script = vec![(Duration::ZERO, AppOp::Open { page_bytes })];
    for n in 0..ops {
        let pace = dice.draw("pace", "", n / 12) % 3 + calmness;
        let wait = match pace {
            0 | 1 => dice.wait("op", "wait", n, 0, 3 * MS),
            2 => dice.wait("op", "wait", n, 0, 300 * MS),
            3 => dice.wait("op", "wait", n, 0, 3_000 * MS),
            _ => dice.wait("op", "wait", n, 0, 40_000 * MS),
        };
        script.push((wait, app_op(dice, n, wild)));
    }
    let rest = Duration::from_millis(500);
    script.extend([AppOp::Rollback, AppOp::ReaderEnd].map(|op| (rest, op)));
    script.push((rest, AppOp::Open { page_bytes }));
    script.push((rest, AppOp::Write(Work::Insert { rows: 1, bytes: 100 })));
    match dice.draw("script", "end", 0) % 3 {
        0 => script.push((rest, AppOp::Close)),
        1 => script.push((rest, AppOp::Kill)),
        _ => {}
    }
    script
}

fn work(dice: &Dice, n: u64) -> Work {
    match dice.draw("work", "", n) % 12 {
        0..=5 => Work::Insert {
            rows: dice.range("work", "rows", n, 1, 6) as u32,
            bytes: dice.range("work", "bytes", n, 20, 900) as u32,
        },
        6 => Work::Insert { rows: dice.range("work", "many", n, 20, 120) as u32, bytes: 400 },
        7 | 8 => Work::Update { of: dice.range("work", "of", n, 1, 30) as u32 },
        9 | 10 => Work::Delete { of: dice.range("work", "of", n, 2, 9) as u32 },
        _ => Work::Nothing,
    }
}

fn app_op(dice: &Dice, n: u64, wild: bool) -> AppOp {
    let page_bytes = *dice.pick("op", "page size", n, &[512, 1_024, 4_096]);
    let draw = dice.draw("op", "kind", n) % if wild { 112 } else { 100 };
    match draw {
        0..=47 => AppOp::Write(work(dice, n)),
        48..=53 => AppOp::Begin(work(dice, n)),
        54..=59 => AppOp::Commit,
        60..=61 => AppOp::Rollback,
        62 => AppOp::Vacuum,
        63..=72 => {
            let modes = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"];
            AppOp::Checkpoint(modes[(dice.draw("op", "mode", n) % 4) as usize])
        }
        73..=74 => AppOp::Autocheckpoint(*dice.pick("op", "auto", n, &[0, 10, 1_000])),
        75..=78 => AppOp::ReaderBegin,
        79..=83 => AppOp::ReaderEnd,
        84..=86 => AppOp::Close,
        87..=89 => AppOp::Kill,
        90..=92 => AppOp::DieInCommit(work(dice, n)),
        93..=95 => AppOp::FailCommit(work(dice, n)),
        96..=99 => AppOp::Rest,
        100..=102 => AppOp::Rollbackward,
        103..=104 => AppOp::PageSize(page_bytes),
        105..=106 => AppOp::Recreate { page_bytes },
        107..=108 => AppOp::RenameOver { page_bytes },
        109..=110 => AppOp::Backup,
        _ => AppOp::RestoreBackup,
    }
}
