//! What a run is made of.

use std::time::Duration;

use driftless_core::engine::Config;
use driftless_sim::ring0::dice::Dice;

use super::fates::Weather;

/// What a run is mainly about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// Nothing goes wrong.
    Calm,
    /// The process is killed, or power fails, at any moment; it starts again on the same disk.
    Kills,
    /// The way to the store is cut, one way or both, for up to minutes.
    Partitions,
    /// Packets are lost and late.
    Loss,
    /// The process stands still for a while, as under SIGSTOP.
    Pauses,
    /// The store refuses, loses answers, and lets puts land late.
    Weather,
    /// Objects so large that they go in parts, with kills, cuts and bad weather.
    Large,
    /// Two processes with two databases begin on one replica at once.
    Rivals,
    /// The same with two copies of one database, each of which can prove at first that it is the
    /// replica's.
    Twins,
    /// A second process takes the replica over (`-adopt`) while the first one works.
    Takeover,
    /// Hosts that hand the database on to each other under a lease.
    Failover,
    /// All of the faults of one host.
    Everything,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 12] = [
        Scenario::Calm,
        Scenario::Kills,
        Scenario::Partitions,
        Scenario::Loss,
        Scenario::Pauses,
        Scenario::Weather,
        Scenario::Large,
        Scenario::Rivals,
        Scenario::Twins,
        Scenario::Takeover,
        Scenario::Failover,
        Scenario::Everything,
    ];

    /// Its name in commands.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// The scenario of that name.
    pub fn named(name: &str) -> Option<Scenario> {
        Scenario::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    fn is_any(self, of: &[Scenario]) -> bool {
        self == Scenario::Everything || of.contains(&self)
    }

    /// How many processes write to the replica.
    pub fn hosts(self) -> usize {
        if matches!(self, Scenario::Rivals | Scenario::Twins | Scenario::Takeover) { 2 } else { 1 }
    }
}

/// What the application of a host does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Changes some pages, and adds some.
    Write { changed: u32, added: u32 },
    /// Gives the last pages back.
    Shrink,
    /// A passive checkpoint.
    Checkpoint,
    /// Begins to read an old state.
    ReaderBegin,
    /// Ends that.
    ReaderEnd,
}

/// What happens to a host, or to the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// SIGKILL, or power failure, and a start after `down`.
    Kill { power: bool, down: Duration },
    /// An orderly stop with so much time, and a start after `down`.
    Stop { grace: Duration, down: Duration },
    /// SIGSTOP, and SIGCONT after a while.
    Pause { time: Duration },
    /// Packets to the store (`out`), from it (`back`), or both stop for a while.
    Cut { out: bool, back: bool, time: Duration },
    /// The store's process dies, and is there again after a while. What it holds is durable.
    StoreDown { down: Duration },
    /// Somebody restores from another machine.
    Restore,
}

/// Something to come: when, to which host, what.
pub type Planned<T> = (Duration, usize, T);

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scenario: Scenario,
    pub config: Config,
    pub page_bytes: u32,
    /// Pages in the database when the process first starts.
    pub first_pages: u32,
    pub ops: Vec<Planned<Op>>,
    pub blows: Vec<Planned<Blow>>,
    pub weather: Weather,
    /// Lost packets out of a thousand.
    pub loss: u64,
    /// The longest latency of a packet.
    pub latency: Duration,
    /// The most names in a page of a list.
    pub page_max: usize,
    /// When each host's process first starts, and whether it is told to adopt.
    pub starts: Vec<(Duration, bool)>,
}

const S: u64 = 1_000_000;

impl Plan {
    /// The run of a seed.
    pub fn of(scenario: Scenario, dice: &Dice) -> Plan {
        let pick = |name: &str, of: &[u64]| *dice.pick("plan", name, 0, of);
        let lossy = scenario.is_any(&[Scenario::Loss]);
        let windy = scenario.is_any(&[Scenario::Weather]);
        let per_mille = match scenario {
            Scenario::Large => pick("store", &[0, 5, 20]),
            Scenario::Rivals | Scenario::Twins | Scenario::Takeover | Scenario::Failover => {
                pick("store", &[0, 10, 40])
            }
            _ if windy => pick("store", &[10, 30, 60]),
            _ => 0,
        };
        let length = Duration::from_secs(dice.range("plan", "length", 0, 30, 180));
        let large = scenario == Scenario::Large;
        let starts = match scenario {
            Scenario::Rivals | Scenario::Twins => {
                vec![(Duration::ZERO, false), (dice.wait("start", "b", 0, 0, 3 * S), false)]
            }
            Scenario::Takeover => {
                vec![(Duration::ZERO, false), (dice.wait("start", "b", 0, 10 * S, 60 * S), true)]
            }
            _ => vec![(Duration::ZERO, false)],
        };
        Plan {
            scenario,
            config: config(dice, large),
            page_bytes: if large { 4_096 } else { pick("page size", &[512, 512, 1_024, 4_096]) as u32 },
            first_pages: if large { 2_000 } else { pick("first pages", &[1, 2, 30, 300]) as u32 },
            ops: (0..scenario.hosts()).flat_map(|host| ops(dice, host, length, large)).collect(),
            blows: blows(dice, scenario, length),
            weather: Weather::storm(per_mille),
            loss: match scenario {
                Scenario::Failover => pick("loss", &[0, 0, 10, 100]),
                _ if lossy => pick("loss", &[10, 100, 300]),
                _ => 0,
            },
            latency: Duration::from_millis(match scenario {
                Scenario::Failover => pick("latency", &[10, 10, 300]),
                _ if lossy => pick("latency", &[10, 300, 2_000]),
                _ => 10,
            }),
            page_max: pick("list page", &[2, 7, 1_000]) as usize,
            starts,
        }
    }
}

fn config(dice: &Dice, large: bool) -> Config {
    let pick = |name: &str, of: &[u64]| *dice.pick("config", name, 0, of);
    Config {
        sync_interval: Duration::from_millis(pick("sync interval", &[50, 1_000, 1_000, 5_000])),
        min_checkpoint_pages: pick("checkpoint", &[8, 60, 1_000]) as u32,
        quiet_after: Duration::from_millis(pick("quiet", &[1_000, 15_000])),
        pending_bytes_max: pick("pending", &[20_000, 16 << 20]) as usize,
        store_deadline: Duration::from_secs(if large { 60 } else { pick("deadline", &[4, 20, 60]) }),
        remote: true,
        newest_only_from: pick("newest", &[2, 8, 32]) as u32,
        ..Config::default()
    }
}

fn ops(dice: &Dice, host: usize, length: Duration, large: bool) -> Vec<Planned<Op>> {
    let (mut at, mut ops, mut n) = (Duration::ZERO, Vec::new(), host as u64 * 1_000_000);
    // Each committed state is kept whole by the judges.
    let most = if large { 25 } else { usize::MAX };
    while at < length && ops.len() < most {
        n += 1;
        // Bursts, and times in which little happens.
        at += match dice.draw("pace", "", n / 15) % 4 {
            0 => dice.wait("op", "wait", n, 500, 20_000),
            1 | 2 => dice.wait("op", "wait", n, 10_000, 2 * S),
            _ => dice.wait("op", "wait", n, S, 20 * S),
        };
        let op = match dice.draw("op", "kind", n) % 40 {
            0 => Op::Shrink,
            1..=3 => Op::Checkpoint,
            4 | 5 => Op::ReaderBegin,
            6..=8 => Op::ReaderEnd,
            9 if !large => Op::Write { changed: 0, added: dice.range("op", "many", n, 20, 200) as u32 },
            _ => Op::Write {
                changed: dice.range("op", "changed", n, 0, 6) as u32,
                added: dice.range("op", "added", n, 0, 2) as u32,
            },
        };
        ops.push((at, host, op));
    }
    ops
}

fn blows(dice: &Dice, scenario: Scenario, length: Duration) -> Vec<Planned<Blow>> {
    let mut kinds: Vec<u64> = vec![5];
    let mut add = |of: &[Scenario], kind: &[u64]| {
        if scenario.is_any(of) {
            kinds.extend_from_slice(kind);
        }
    };
    use Scenario::{Kills, Large, Partitions, Pauses, Rivals, Takeover, Twins, Weather};
    add(&[Kills, Large, Rivals, Twins, Takeover], &[0, 0, 0, 1]);
    add(&[Partitions, Large, Rivals, Twins, Takeover], &[3, 3, 3]);
    add(&[Pauses, Rivals, Twins, Takeover], &[2, 2]);
    add(&[Weather], &[4]);
    let most = if scenario == Scenario::Calm { 2 } else { 8 };
    let count = dice.range("blow", "count", 0, 1, most);
    let within = length.as_micros() as u64;
    let mut blows: Vec<Planned<Blow>> = (0..count)
        .map(|n| {
            let at = Duration::from_micros(dice.draw("blow", "at", n) % within);
            let host = dice.draw("blow", "host", n) as usize % scenario.hosts();
            let time = |name: &str, most: u64| dice.wait("blow", name, n, 5_000, most * S);
            let blow = match *dice.pick("blow", "kind", n, &kinds) {
                0 => Blow::Kill { power: dice.chance("blow", "power", n, 1, 3), down: time("down", 60) },
                1 => Blow::Stop { grace: time("grace", 60), down: time("down", 60) },
                2 => Blow::Pause { time: time("pause", 180) },
                3 => {
                    let which = dice.draw("blow", "which", n) % 4;
                    Blow::Cut { out: which != 1, back: which != 0, time: time("cut", 200) }
                }
                4 => Blow::StoreDown { down: time("store", 60) },
                _ => Blow::Restore,
            };
            (at, host, blow)
        })
        .collect();
    blows.sort_by_key(|(at, ..)| *at);
    blows
}
