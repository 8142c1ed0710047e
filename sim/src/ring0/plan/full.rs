//! Runs of the full generation: what an early seed would give, without what is switched off, and
//! with the faults of the catalogue.

use std::time::Duration;

use super::{Blow, Conditions, MS, Plan, StateFate, Tamper, Workload};
use crate::ring0::app::{AppOp, Synchronous, Work};
use crate::ring0::dice::Dice;
use crate::ring0::faults::{Class, Fault, Faults};

impl Plan {
    /// The length of the script.
    pub fn length(&self) -> Duration {
        self.script.iter().map(|(wait, _)| *wait).sum()
    }

    /// What the scripts of early seeds never have: one transaction that is longer than a capture
    /// reads at a time, and a commit that failed, which stands in the WAL until somebody recovers it
    /// once the source has been let go of.
    fn add_ends(&mut self, dice: &Dice) {
        if dice.chance("full", "long transaction", 0, 1, 4) {
            let at = dice.range("full", "long at", 0, 1, self.script.len() as u64 - 1) as usize;
            let long = AppOp::Write(Work::Insert { rows: 700, bytes: 600 });
            self.script.insert(at, (Duration::from_millis(20), long));
        }
        if dice.chance("full", "failed at last", 0, 1, 4) {
            let failed = AppOp::FailCommit(Work::Insert { rows: 1, bytes: 100 });
            let ms = Duration::from_millis;
            self.script.extend([(ms(300), AppOp::Open { page_bytes: 1_024 }), (ms(300), failed)]);
            self.script.extend([(ms(25_000), AppOp::Kill), (ms(500), AppOp::Open { page_bytes: 1_024 })]);
            // No event tells of it: who is told to stop must look. Operations take time as well, so that
            // the script ends after its length.
            self.blows.push((self.length() * 2 + ms(60_000), Blow::Stop { down: ms(500) }));
        }
    }

    pub(super) fn made_full(self, dice: &Dice) -> Plan {
        let faults = Faults::of_dice(dice);
        let on = |class: Class| {
            faults.names().any(|name| Fault::named(name).is_some_and(|fault| fault.class == class))
        };
        let mut plan = self;
        // These are drawn under their own names, in `Weather`.
        plan.store.per_mille = match on(Class::Store) {
            true => *dice.pick("full", "store faults", 0, &[20, 100, 300]),
            false => 0,
        };
        plan.store.outage = Duration::ZERO;
        if !on(Class::Process) {
            plan.events_lost = 0;
        }
        if !on(Class::Disk) {
            (plan.source_faults, plan.state_faults) = (0, 0);
        }
        plan.add_ends(dice);
        plan.script = script(dice, &faults, &plan);
        plan.blows = blows(dice, &faults, &plan);
        let contested = plan.blows.iter().any(|(_, blow)| matches!(blow, Blow::Rival { .. } | Blow::Clone));
        // A store that lies, or lost local state, may end anybody fenced: then nothing would follow
        // from who is.
        plan.faults = if contested { faults.truthful() } else { faults };
        plan.state_faults *= u64::from(!contested);
        plan
    }
}

/// What an early seed would suffer, as far as it is on, and what only these do.
fn blows(dice: &Dice, faults: &Faults, plan: &Plan) -> Vec<(Duration, Blow)> {
    let here = |name: &'static str| Fault::named(name).is_none() || faults.has(name);
    let mut blows: Vec<_> = plan.blows.iter().copied().filter(|(_, blow)| here(blow.name())).collect();
    let within = plan.length().as_micros().max(1) as u64;
    let at = |name: &str, n: u64| Duration::from_micros(dice.draw("full blow", name, n) % within);
    let length = |name: &str, high: u64| dice.wait("full length", name, 0, 5 * MS, high * MS);
    let mut add = |name: &'static str, n: u64, blow: Blow| {
        if faults.has(name) {
            blows.push((at(name, n), blow));
        }
    };
    for (n, how) in [Tamper::Remove, Tamper::Truncate, Tamper::Swap, Tamper::Rot].into_iter().enumerate() {
        let blow = Blow::Tamper(how);
        add(blow.name(), n as u64, blow);
    }
    for n in 0..2 {
        add("machine: power lost", n, Blow::PowerLoss { down: Duration::from_millis(30 + 700 * n) });
        let hours = dice.range("full blow", "hours", n, 0, 72) as i64 - 36;
        add("clock: wall stepped", n, Blow::WallStep(hours * 3_600_000 + 17));
        add("process: paused", n, Blow::Pause { length: length("pause", 120_000) });
        add("clock: monotonic stands", n, Blow::FreezeMono { length: length("mono", 60_000) });
        add("clock: wall stands", n, Blow::FreezeWall { length: length("wall", 60_000) });
    }
    let down = length("down", 20_000);
    let stop = at("process: second signal", 0);
    let again = stop + length("again", 500);
    if faults.has("process: second signal") {
        blows.extend([(stop, Blow::Stop { down }), (again, Blow::SecondSignal)]);
    }
    if faults.has("process: stopped with work undone") {
        // Just after something was written.
        blows.extend((0..2).map(|n| (at("stop", n), Blow::Stop { down })));
    }
    // The application must come to make its database again.
    let early = |name: &str| at(name, 0).saturating_sub(Duration::from_millis(1_600));
    if faults.has("machine: empty disk") {
        blows.push((early("empty disk"), Blow::EmptyDisk { down }));
    }
    if faults.has("machine: rolled back") {
        let (a, b) = (early("snapshot"), early("roll back"));
        blows.extend([(a.min(b), Blow::Snapshot), (a.max(b), Blow::RollBack { down })]);
    }
    rivals(dice, faults, plan, &mut blows);
    blows.sort_by_key(|(at, _)| *at);
    blows
}

/// Others who write there: at stores only that promise something then, and where nothing else may
/// end a run fenced.
fn rivals(dice: &Dice, faults: &Faults, plan: &Plan, blows: &mut Vec<(Duration, Blow)>) {
    let kinds = [Blow::Rival { adopt: false }, Blow::Rival { adopt: true }, Blow::Clone];
    let here: Vec<Blow> = kinds.into_iter().filter(|blow| faults.has(blow.name())).collect();
    if here.is_empty() || plan.store.conditions != Conditions::Kept || !dice.chance("rivals", "", 0, 1, 2) {
        return;
    }
    let replaces = |blow: Blow| {
        let tampers = matches!(blow, Blow::Tamper(_));
        tampers || matches!(blow, Blow::RollBack { .. } | Blow::EmptyDisk { .. } | Blow::Snapshot)
    };
    blows.retain(|(_, blow)| !replaces(*blow));
    for (_, blow) in blows.iter_mut() {
        if let Blow::Kill { state, .. } = blow {
            *state = StateFate::Kept;
        }
    }
    let count = if faults.has("topology: three contenders") { 2 } else { 1 };
    let within = plan.length().as_micros().max(1) as u64;
    blows.extend((0..count).map(|n| {
        let at = Duration::from_micros(dice.draw("rival", "at", n) % within);
        (at, *dice.pick("rival", "kind", n, &here))
    }));
}

/// The early script without what is switched off, and with what only these runs have.
fn script(dice: &Dice, faults: &Faults, plan: &Plan) -> Vec<(Duration, AppOp)> {
    let here = |op: &AppOp| op.name().is_none_or(|name| Fault::named(name).is_none() || faults.has(name));
    let insert = |rows, bytes| Work::Insert { rows, bytes };
    let more = [
        AppOp::Write(insert(600, 400)),
        AppOp::Savepoint(insert(3, 200)),
        AppOp::Synchronous(Synchronous::Off),
        AppOp::Synchronous(Synchronous::Normal),
        AppOp::Synchronous(Synchronous::Full),
        AppOp::OtherWrite(insert(2, 300)),
        AppOp::OtherWrite(Work::Update { of: 4 }),
        AppOp::Delete,
    ];
    let in_model = |op: &AppOp| !matches!(op, AppOp::Savepoint(_));
    let possible = |op: &AppOp| plan.workload == Workload::Library || in_model(op);
    let mut more: Vec<AppOp> = more.into_iter().filter(|op| here(op) && possible(op)).collect();
    let mut script = Vec::new();
    for (n, (wait, op)) in plan.script.iter().enumerate() {
        // The end of a script closes what is open.
        let last = n + 11 > plan.script.len();
        script.push((*wait, if here(op) || last { *op } else { AppOp::Write(insert(2, 100)) }));
        if last || n == 0 || more.is_empty() || !dice.chance("full op", "", n as u64, 1, 12) {
            continue;
        }
        let op = *dice.pick("full op", "kind", n as u64, &more);
        script.push((dice.wait("full op", "wait", n as u64, 0, 300 * MS), op));
        // One of them is enough: a base of them all takes longer than a slow store may.
        more.retain(|other| other.name() != Some("app: huge transaction") || *other != op);
        if op == AppOp::Delete {
            let wait = dice.wait("full op", "absent", n as u64, 0, 20_000 * MS);
            script.push((wait, AppOp::Open { page_bytes: 1_024 }));
        }
    }
    script
}
