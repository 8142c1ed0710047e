//! The faults of the full generation, as they befall a world.

use std::sync::Arc;
use std::time::Duration;

use driftless_core::engine::{Compression, Config};
use driftless_core::machine::{OpId, Outcome, StoreError, StoreReply, StoreRequest};

use super::app::{AppEnd, AppOp, Memory, PATH};
use super::dice::Dice;
use super::excuses::Excuses;
use super::levels::Compacted;
use super::local::Local;
use super::mishap::{Mishap, Worker};
use super::places::Places;
use super::plan::{Blow, Conditions, Plan, StateFate};
use super::restore::Restored;
use super::rival::Rival;
use super::sites::Sites;
use super::state::SimState;
use super::store::Fate;
use super::truth::Truth;
use super::validation::Validations;
use super::violation::Violation;
use super::weather::{FATES, SLOW, Weather};
use super::world::{Entry, World};
use crate::disk::{Content, Disk, Saved};
use crate::trace::{Kind, node};

/// What a world has only in runs of the full generation.
#[derive(Default)]
pub(super) struct Full {
    /// The faults of our own files.
    pub(super) mishap: Option<Mishap>,
    /// The local state, where it stands on the disk.
    pub(super) local: Option<Local>,
    /// Others who write there.
    pub(super) rivals: Vec<Rival>,
    /// Which databases of the process have an engine, where that is decided.
    pub(super) places: Option<Places>,
    /// Processes that have begun with places.
    pub(super) processes: u64,
    /// A database was left to the sweep.
    pub(super) swept: bool,
    /// What their dice have been asked.
    pub(super) places_steps: u64,
    /// The main replicator ended fenced by one of them, and nobody starts it again.
    pub(super) main_fenced: bool,
    /// The faults of the store.
    pub(super) weather: Option<Weather>,
    /// What excuses an end that would otherwise be wrong.
    pub(super) excuses: Excuses,
    /// How often a run ended fenced since one went on.
    pub(super) fences: u32,
    /// Until when our process does not run.
    paused_until: u64,
    /// Until when a writer may be kept waiting: nobody can let go of a lock who does not run.
    lenient_until: u64,
    /// Since when the monotonic clock stands, and until when.
    mono_stands: Option<(u64, u64)>,
    /// How long it has stood before.
    mono_lost: u64,
    /// Until when the wall clock stands.
    wall_stands_until: u64,
    /// How much the wall clock runs fast, in millionths.
    drift_ppm: i64,
    /// What the compactor has done.
    pub(super) compacted: Compacted,
    /// What the validator has done.
    pub(super) validations: Validations,
    /// The machine as it was once.
    snapshot: Option<Snapshot>,
}

/// A machine at one moment: what a snapshot of it brings back.
#[derive(Debug)]
struct Snapshot {
    disk: Saved,
    state: SimState,
    app: Memory,
    /// What its configuration says.
    adopt: bool,
}

impl Full {
    pub(super) fn new(dice: Dice, plan: &Plan, sites: &Sites, disk: &Disk) -> Full {
        if plan.faults.is_empty() {
            return Full::default();
        }
        let refuses = plan.store.conditions == Conditions::Kept;
        let weather = Weather::new(dice, &plan.faults, plan.store.per_mille, plan.length(), refuses);
        let drift = plan.faults.has("clock: drift");
        let drift_ppm = if drift { dice.range("drift", "", 0, 0, 4_000) as i64 - 2_000 } else { 0 };
        let mishap = Mishap::new(dice, &plan.faults, sites.clone());
        let hook = mishap.clone();
        disk.set_fault_hook(Some(Arc::new(move |op, path: &str| hook.strikes(op, path))));
        Full {
            weather: Some(weather),
            drift_ppm,
            mishap: Some(mishap),
            local: Some(Local::default()),
            ..Full::default()
        }
    }
}

impl Full {
    /// The truth of each who writes there, the main one first.
    pub(super) fn truths<'a>(&'a self, main: &'a Truth) -> Vec<&'a Truth> {
        std::iter::once(main).chain(self.rivals.iter().map(|rival| &rival.truth)).collect()
    }
}

impl World {
    /// Time passes; what the wall clock makes of it is another matter.
    pub(super) fn pass(&mut self, ns: u64) {
        let (now, stands) = (self.now_ns(), self.wall_stands());
        self.clock.advance_ns(ns);
        if self.healed_at.is_some() {
            return;
        }
        if stands {
            self.step_wall(-(ns as i64));
        } else if self.full.drift_ppm != 0 {
            self.step_wall(ns as i64 / 1_000_000 * self.full.drift_ppm);
            if now == 0 || ns > 1_000_000 {
                self.hit("clock: drift");
            }
        }
    }

    /// What the monotonic clock reads, in nanoseconds.
    pub(super) fn mono_ns(&self) -> u64 {
        let now = self.now_ns();
        let standing = self.full.mono_stands.map_or(0, |(since, until)| now.min(until) - since);
        now - self.full.mono_lost - standing
    }

    /// Whether the monotonic clock stands.
    pub(super) fn is_mono_frozen(&self) -> bool {
        self.full.mono_stands.is_some_and(|(_, until)| self.now_ns() < until)
    }

    /// Whether the wall clock stands.
    pub(super) fn wall_stands(&self) -> bool {
        self.healed_at.is_none() && self.now_ns() < self.full.wall_stands_until
    }

    fn freeze_mono(&mut self, length: Duration) {
        let now = self.now_ns();
        if let Some((since, until)) = self.full.mono_stands.take() {
            self.full.mono_lost += now.min(until) - since;
        }
        self.full.mono_stands = Some((now, now + length.as_nanos() as u64));
        self.be_lenient(length);
    }

    fn be_lenient(&mut self, length: Duration) {
        let slack = Duration::from_millis(100) + 24 * self.plan.source_latency;
        let until = self.now_ns() + (length + slack).as_nanos() as u64;
        self.full.lenient_until = self.full.lenient_until.max(until);
    }

    /// Whether a writer may be kept waiting now.
    pub(super) fn is_lenient(&self) -> bool {
        self.now_ns() < self.full.lenient_until
    }

    /// Whether our process is paused.
    pub(super) fn is_paused(&self) -> bool {
        self.running.is_some() && self.now_ns() < self.full.paused_until
    }

    /// A process that does not run does nothing: what it would do comes once it runs.
    pub(super) fn hold_back(&mut self, entry: Entry) -> Option<Entry> {
        let ours = matches!(
            entry,
            Entry::Source { .. }
                | Entry::Compute { .. }
                | Entry::Deliver { .. }
                | Entry::Tick { .. }
                | Entry::Probed { .. }
                | Entry::Changed
                | Entry::Blow(Blow::Stop { .. } | Blow::SyncNow | Blow::SecondSignal)
        );
        if !ours || !self.is_paused() {
            return Some(entry);
        }
        let wait = Duration::from_nanos(self.full.paused_until - self.now_ns());
        self.later(wait, entry);
        None
    }

    /// The settings, which may have been changed between two runs.
    pub(super) fn settings(&mut self) -> Config {
        let mut config = Config { remote: self.plan.is_remote(), ..self.plan.config.clone() };
        // What a person sets may change between two runs.
        if config.compression != Compression::Lz4
            && self.dice.draw("zstd", "run", self.runs).is_multiple_of(4)
        {
            config.compression = Compression::Lz4;
        }
        let (dice, run) = (self.dice, self.runs);
        let drawn = self.may("process: settings changed") && dice.chance("settings", "", run, 1, 2);
        if !self.sites.strikes("settings", "process: settings changed", drawn) {
            return config;
        }
        let pick = |name: &str, of: &[u64]| *dice.pick("settings", name, run, of);
        Config {
            sync_interval: Duration::from_millis(pick("sync interval", &[20, 200, 1_000, 10_000])),
            min_checkpoint_pages: pick("checkpoint", &[8, 30, 120, 1_000]) as u32,
            quiet_after: Duration::from_millis(pick("quiet", &[300, 2_000, 15_000])),
            pending_bytes_max: pick("pending", &[6_000, 40_000, 16 << 20]) as usize,
            store_deadline: Duration::from_secs(pick("deadline", &[4, 60])),
            ..config
        }
    }

    /// A run begins.
    pub(super) fn full_start(&mut self) {
        self.full.excuses.started();
        self.full.paused_until = 0;
        if self.runs == 1 && self.may("clock: far from now") {
            // 1971, or 2101.
            let years = *self.dice.pick("clock", "years", 0, &[-56, 74]);
            self.step_wall(years * 365 * 24 * 3_600 * 1_000_000_000);
            self.hit("clock: far from now");
        }
        self.perhaps_crash_in_recovery();
    }

    /// A process may die again before it has found its way back.
    fn perhaps_crash_in_recovery(&mut self) {
        let drawn = self.may("process: crashed in recovery")
            && self.crash_at.is_none()
            && self.runs > 1
            && self.dice.chance("recovery", "crash", self.runs, 1, 3);
        if self.sites.strikes("recovery", "process: crashed in recovery", drawn) {
            let more = self.dice.range("recovery", "at", self.runs, 1, 14);
            self.crash_at = Some(self.summary.actions + more);
        }
    }

    /// Faults that are no blow end with the others.
    pub(super) fn heal_clocks(&mut self) {
        let now = self.now_ns();
        if let Some((since, until)) = self.full.mono_stands.take() {
            self.full.mono_lost += now.min(until) - since;
        }
        self.full.paused_until = 0;
        if let Some(mishap) = &self.full.mishap {
            mishap.heal();
        }
        if !self.plan.faults.is_empty() {
            self.crash_at = None;
        }
    }

    /// Counts what the application has done.
    pub(super) fn hit_by_app(&mut self, op: AppOp, end: &AppEnd) {
        let name = op.name().filter(|_| *end != AppEnd::Busy && !self.plan.faults.is_empty());
        if let Some(name) = name {
            self.hit(name);
        }
    }

    /// Whether the database has grown past the lock page.
    pub(super) fn hit_lock_page(&mut self) {
        let Some(last) = self.truth.last().filter(|last| last.page_bytes() > 0) else { return };
        if last.pages() as u64 > self.plan.config.pending_byte / last.page_bytes() as u64 {
            self.hit("app: lock page crossed");
        }
    }

    /// How much longer a disk takes that stalls.
    pub(super) fn stall(&mut self, wait: Duration) -> Duration {
        let n = self.summary.actions;
        let drawn = self.may("disk: stall") && self.dice.chance("stall", "", n, 1, 200);
        if !self.sites.strikes("the disk", "disk: stall", drawn) {
            return wait;
        }
        let longer = self.dice.wait("stall", "length", n, 10_000, 20_000_000);
        self.be_lenient(longer);
        wait + longer
    }

    /// Who is at work on the disk from now on.
    pub(super) fn works(&self, worker: Worker) {
        if let Some(mishap) = &self.full.mishap {
            mishap.set(worker);
        }
    }

    /// A process that has died in an operation on its own files is killed where it stands.
    pub(super) fn bury(&mut self) -> bool {
        if !self.full.mishap.as_ref().is_some_and(Mishap::has_died) {
            return false;
        }
        self.kill();
        let down = self.dice.wait("death", "down", self.summary.actions, 1_000, 3_000_000);
        self.later(down, Entry::Start);
        true
    }

    /// The blows of the full generation.
    pub(super) fn trouble(&mut self, blow: Blow) -> Result<(), Violation> {
        match blow {
            Blow::Pause { length } if self.running.is_some() => {
                self.full.paused_until = self.now_ns() + length.as_nanos() as u64;
                self.be_lenient(length);
            }
            Blow::SecondSignal => {
                let stopping = self.running.as_ref().is_some_and(|running| running.stopping.is_some());
                if stopping {
                    return self.stop_again();
                }
            }
            Blow::FreezeMono { length } => self.freeze_mono(length),
            Blow::FreezeWall { length } => {
                self.full.wall_stands_until = self.now_ns() + length.as_nanos() as u64;
            }
            Blow::Snapshot => {
                let (disk, state) = (self.sqlite.disk().save(), self.state.clone());
                self.full.snapshot =
                    Some(Snapshot { disk, state, app: self.app.memory(), adopt: self.adopt });
            }
            Blow::RollBack { down } => {
                let Some(Snapshot { disk, state, app, adopt }) = self.full.snapshot.take() else {
                    return Ok(());
                };
                self.adopt = adopt;
                self.replace_machine(&disk, state, &app);
                self.full.excuses.roll_back();
                self.later(down, Entry::Start);
            }
            Blow::EmptyDisk { down } => {
                self.replace_machine(&Saved::default(), SimState::default(), &Memory::default());
                self.lose(StateFate::Lost);
                self.later(down, Entry::Start);
            }
            Blow::Rival { adopt } => self.add_rival(adopt),
            Blow::Clone => self.clone_machine(),
            Blow::Tamper(how) => self.tamper(how),
            _ => {}
        }
        Ok(())
    }

    /// Whether another run has begun since this one.
    pub(super) fn is_long_dead(&self, run: u64) -> bool {
        !self.plan.faults.is_empty() && run != self.dice.draw("run", "", self.runs)
    }

    /// Whether there is no database any more, or an empty one.
    pub(super) fn nothing_is_owed(&self) -> bool {
        let is_empty = |file: Option<Content<'_>>| file.is_none_or(|file| file.bytes.is_empty());
        !self.plan.faults.is_empty() && self.sqlite.disk().look_at(PATH, is_empty)
    }

    fn replace_machine(&mut self, disk: &Saved, state: SimState, app: &Memory) {
        self.kill();
        self.sqlite.roll_back(disk);
        self.state = state;
        self.app.recall(app);
        self.open_first();
        self.look_for_cold();
        self.note_changes(false);
    }

    /// Whether a fault may befall the run, and has not ended with the others.
    pub(super) fn may(&self, name: &'static str) -> bool {
        self.healed_at.is_none() && self.plan.faults.has(name)
    }

    /// What becomes of a request to the store, and when.
    pub(super) fn weathered(
        &mut self,
        request: &StoreRequest,
        subject: &str,
        wait: Duration,
    ) -> (Fate, Duration) {
        let bytes = match request {
            StoreRequest::PutPart { bytes, .. } => bytes.len() as u64,
            StoreRequest::Get { object, .. } => self.store.get(object).map_or(0, |body| body.len() as u64),
            _ => 0,
        };
        let weather = self.full.weather.as_ref().expect("asked only where there is weather");
        let slowness = weather.slowness(bytes);
        let drawn = weather.drawn(request, subject, self.store_steps, self.now_ns());
        let mut wait = wait;
        if let Some(slowness) = slowness {
            self.hit(SLOW);
            wait += slowness;
        }
        let Some(fault) = self.sites.settle(subject, drawn, &FATES) else { return (Fate::Works, wait) };
        self.summary.faults += 1;
        let weather = self.full.weather.as_ref().expect("asked only where there is weather");
        let (fate, longer) = weather.effect(fault, subject, self.store_steps);
        (fate, wait + longer)
    }

    /// What is to be known before a request has its effect.
    pub(super) fn note_store_request(&mut self, run: u64, op: OpId, request: &StoreRequest, fate: Fate) {
        self.store.now_ns = self.now_ns();
        let part = matches!(request, StoreRequest::PutPart { .. });
        let validators = self.note_validators_request(op, fate);
        self.full.compacted.requests += u64::from(op.run != run && !part && !validators);
        let Some(weather) = &self.full.weather else { return };
        self.store.ahead = weather.clock_ahead(self.store.now_ns);
        self.store.limbo = self.plan.faults.has("store: unfinished bodies");
        if matches!(fate, Fate::Flipped(_) | Fate::Foreign) {
            self.full.excuses.lie();
        }
        if self.store.last_seq.0 == op.run && op.seq < self.store.last_seq.1 {
            self.hit("store: reordered");
        }
        self.store.last_seq = (op.run, op.seq);
        if matches!(request, StoreRequest::DropUnfinished { .. }) {
            if self.store.limbo && self.store.unfinished(run) > 0 {
                self.hit("store: unfinished bodies");
            }
            if !self.store.ahead.is_zero() {
                self.hit("store: clock leaps");
            }
        }
        if let (Fate::Twice, StoreRequest::PutCommit { .. }) = (fate, request) {
            let wait = self.dice.wait("again", "", self.store_steps, 1_000, 20_000_000);
            self.later(
                wait,
                Entry::Store { run, op, request: request.clone(), fate: Fate::Hangs, late: true },
            );
        }
    }

    /// What is to be known once a request has had its effect; an answer may come twice.
    pub(super) fn note_store_answer(
        &mut self,
        run: u64,
        op: OpId,
        result: &Result<StoreReply, StoreError>,
        fate: Fate,
    ) {
        if std::mem::take(&mut self.store.hidden) > 0 {
            let list = matches!(result, Ok(StoreReply::Listing { .. }));
            self.hit(if list { "store: stale list, seen" } else { "store: stale read, seen" });
            self.full.excuses.lie();
        }
        let drawn = self.may("store: answer twice")
            && self.dice.chance("duplicate answer", "", self.store_steps, 1, 12);
        if fate.is_answered() && self.sites.strikes("an answer", "store: answer twice", drawn) {
            let wait = self.dice.wait("duplicate answer", "wait", self.store_steps, 0, 5_000_000);
            self.later(wait, Entry::Deliver { run, op, outcome: Outcome::Store(result.clone()) });
        }
    }

    /// Between two runs the store may lose what it acknowledged last.
    pub(super) fn perhaps_vanish(&mut self) {
        let lands = self
            .queue
            .iter()
            .any(|entry| matches!(entry, Entry::Store { request: StoreRequest::PutCommit { .. }, .. }));
        let drawn =
            !lands && self.may("store: objects vanish") && self.dice.chance("vanishes", "", self.runs, 1, 3);
        if !self.sites.strikes("a start", "store: objects vanish", drawn) {
            return;
        }
        let count = self.dice.range("vanishes", "count", self.runs, 1, 4) as usize;
        let lost = self.store.lose_newest(count);
        if lost > 0 {
            self.note(node::STORE, Kind::Fault, format_args!("the {lost} newest objects vanish"));
            self.full.excuses.vanish();
            self.restored = Restored::default();
        }
    }
}
