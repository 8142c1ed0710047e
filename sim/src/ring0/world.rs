//! The world of one run: a disk, an application, an object store, and a replicator under a host
//! that knows no rule.
//!
//! The loop takes what happens next off the [`Queue`], lets it happen, and asks the oracles. Time
//! stands in one place, the clock of the disk; the monotonic clock is what that would read had
//! nobody set it.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use driftless_core::engine::Config;
use driftless_core::ids::{Level, Mono, Now, Txid, TxidRange, Wall};
use driftless_core::job::Job;
use driftless_core::machine::{Event, Machine, Object, OpId, Outcome, SourceRequest, StoreRequest};
use driftless_core::probe::{Finding, Findings};

use super::app::{App, AppEnd, AppOp, PATH, SHM_PATH, WAL_PATH, Work};
use super::dice::Dice;
use super::host::Running;
use super::misfortune::Misfortune;
use super::oracles::acknowledged::Commits;
use super::oracles::convergence::WALL_AHEAD_NS;
use super::oracles::fork::Histories;
use super::oracles::limits::{self, Occasions};
use super::oracles::wrong_bytes::Reads;
use super::oracles::{idle, unharmed};
use super::places::ToPlaces;
use super::plan::{Blow, Conditions, Plan};
use super::planted::Seen;
use super::queue::Queue;
use super::restore::Restored;
use super::rival::ToRival;
use super::sites::Sites;
use super::sqlite::{self, Sqlite};
use super::state::SimState;
use super::store::{Fate, SimStore};
pub use super::summary::Summary;
use super::trouble::Full;
use super::truth::Truth;
use super::violation::Violation;
use crate::disk::{Disk, DiskConfig, SimClock};
use crate::trace::{Keep, Kind, Trace, node};

const START_NS: u64 = 1_800_000_000_000_000_000;

/// Something to come.
#[derive(Debug)]
pub(super) enum Entry {
    /// The next operation of the script.
    App,
    Source {
        run: u64,
        op: OpId,
        request: SourceRequest,
    },
    Compute {
        run: u64,
        op: OpId,
        job: Job,
    },
    Store {
        run: u64,
        op: OpId,
        request: StoreRequest,
        fate: Fate,
        late: bool,
    },
    Deliver {
        run: u64,
        op: OpId,
        outcome: Outcome,
    },
    Tick {
        run: u64,
        wake: u64,
    },
    /// The probe of a run comes to its end.
    Probed {
        run: u64,
    },
    Changed,
    Start,
    /// Something to come for the places of a process.
    Places(u64, ToPlaces),
    Blow(Blow),
    /// Something to come for another who writes there.
    Rival(usize, ToRival),
}

/// One run.
pub struct World {
    // Connections end before the machine does: the order of the fields matters.
    pub(super) app: App,
    pub(super) running: Option<Running>,
    pub(super) sqlite: Box<dyn Sqlite>,
    pub(super) plan: Plan,
    pub(super) dice: Dice,
    pub(super) queue: Queue<Entry>,
    pub(super) clock: SimClock,
    pub(super) steps_ns: i64,
    /// When the wall clock was last set forward while it stood before the time of a file.
    pub(super) set_right_at: Option<u64>,
    pub(super) store: SimStore,
    pub(super) state: SimState,
    pub(super) truth: Truth,
    pub(super) restored: Restored,
    pub(super) commits: Commits,
    pub(super) summary: Summary,
    pub(super) runs: u64,
    pub(super) adopt: bool,
    pub(super) state_lost: bool,
    /// What only runs of the full generation have.
    pub(super) full: Full,
    pub(super) crash_at: Option<u64>,
    script: VecDeque<(Duration, AppOp)>,
    tries: u32,
    /// Since when the application tries in vain to write.
    blocked_since: Option<u64>,
    /// What must be restorable if the process stops and says that all is done.
    pub(super) owed: usize,
    pub(super) ended: bool,
    pub(super) healed_at: Option<u64>,
    pub(super) changed_waits: bool,
    pub(super) event_lost: bool,
    /// Nobody acts any more: a quiet world is looked at.
    pub(super) is_watched: bool,
    seen_files: Vec<Option<crate::disk::Stat>>,
    seen_generation: u64,
    pub(super) app_steps: u64,
    pub(super) store_steps: u64,
    pub(super) source_steps: Misfortune,
    outages: Vec<(u64, u64)>,
    pub(super) sites: Sites,
    pub(super) seen: Seen,
    /// What was seen where nobody could be told at once.
    pub(super) broken: Option<Violation>,
    histories: Histories,
    pub(super) reads: Reads,
    pub(super) trace: Trace,
}

impl World {
    /// A world in which nothing has happened, which tells what happens if it is verbose.
    pub fn new(seed: u64, plan: Plan, verbose: bool) -> World {
        World::watched(seed, plan, Trace::new(if verbose { Keep::Print } else { Keep::Hash }))
    }

    /// A world in which nothing has happened, and that writes what does to a trace.
    pub fn watched(seed: u64, plan: Plan, trace: Trace) -> World {
        let dice = Dice::new(seed);
        let clock = SimClock::new(START_NS);
        let disk = Disk::new(DiskConfig::default(), clock.clone());
        let sites = Sites::new(plan.strike.clone());
        let full = Full::new(dice, &plan, &sites, &disk);
        let sqlite = sqlite::machine(&plan, seed, disk, &clock);
        let source_steps = Misfortune::new(dice, plan.source_faults, sites.clone());
        let app = App::new(sqlite.as_ref(), plan.durable, source_steps.clone());
        let mut queue = Queue::new(dice);
        for (at, blow) in &plan.blows {
            queue.push(at.as_nanos() as u64, Entry::Blow(*blow));
        }
        queue.push(0, Entry::Start);
        queue.push(1, Entry::App);
        let outage = plan.store.outage.as_nanos() as u64;
        let outages = (0..2)
            .filter(|_| outage > 0)
            .map(|n| {
                let start = dice.range("outage", "at", n, 0, 60) * 1_000_000_000;
                (start, start + dice.range("outage", "length", n, 1, outage))
            })
            .collect();
        World {
            app,
            running: None,
            sqlite,
            dice,
            queue,
            store: SimStore::of_plan(&plan, &clock),
            clock,
            steps_ns: 0,
            set_right_at: None,
            state: SimState::default(),
            truth: Truth::new(),
            restored: Restored::default(),
            commits: Commits::default(),
            summary: Summary::default(),
            runs: 0,
            adopt: false,
            state_lost: false,
            full,
            crash_at: plan.crash_at,
            script: plan.script.iter().copied().collect(),
            tries: 0,
            blocked_since: None,
            owed: 0,
            ended: false,
            healed_at: None,
            changed_waits: false,
            event_lost: false,
            is_watched: false,
            seen_files: Vec::new(),
            seen_generation: 0,
            app_steps: 0,
            store_steps: 0,
            source_steps,
            outages,
            sites,
            seen: Seen::default(),
            broken: None,
            histories: Histories::default(),
            reads: Reads::default(),
            trace,
            plan,
        }
    }

    /// Runs to the end and asks every oracle, or until so much time has passed.
    ///
    /// # Errors
    /// What the first oracle says that is not content.
    pub fn run_until(mut self, until: Option<Duration>) -> Result<Summary, Violation> {
        let until = until.map_or(u64::MAX, |until| until.as_nanos() as u64);
        while !self.ended {
            if self.queue.next_at().is_some_and(|at| at > until) {
                return Ok(self.sum_up());
            }
            self.step()?;
        }
        self.heal();
        self.converge()?;
        self.check_idle()?;
        self.finish()
    }

    pub(super) fn step(&mut self) -> Result<(), Violation> {
        let Some((at, entry)) = self.queue.pop() else {
            return Err(Violation::new("liveness", "nothing is to come"));
        };
        let now = self.now_ns();
        if at > now {
            self.pass(at - now);
        }
        self.sites.set_now(Duration::from_nanos(self.now_ns()));
        if let Some(entry) = self.hold_back(entry) {
            self.happen(entry)?;
        }
        self.broken.take().map_or(Ok(()), Err)
    }

    fn heal(&mut self) {
        self.healed_at = Some(self.now_ns());
        self.heal_clocks();
        self.note(node::MACHINE, Kind::Phase, format_args!("all faults end"));
    }

    fn finish(mut self) -> Result<Summary, Violation> {
        let segments = self.store.check_contiguous()?;
        self.check_purity()?;
        // Others ask on their own account.
        if self.full.rivals.is_empty() {
            let own = self.store.requests - self.store.parts;
            let of_others = self.full.compacted.requests + self.full.validations.requests;
            limits::requests(own.saturating_sub(of_others), self.occasions(segments))?;
            self.check_compactor_requests()?;
            self.check_validator_requests()?;
        }
        self.check_restores()?;
        self.check_last()?;
        self.app.check_source(self.sqlite.as_ref())?;
        self.summary.contents = self.app.contents(self.sqlite.as_ref())?;
        self.note(node::ORACLE, Kind::Phase, format_args!("the end: {:?}", self.restored.image));
        Ok(self.sum_up())
    }

    /// What requests to the store there were occasions for.
    fn occasions(&self, segments: u64) -> Occasions {
        Occasions {
            starts: self.summary.starts,
            segments,
            faults: self.summary.faults,
            pages: segments / self.store.page_max.max(1) as u64 + 1,
        }
    }

    /// A promise is not held to, for a reason that the truth proves.
    pub(super) fn excuse(&mut self, why: &'static str) {
        self.note(node::ORACLE, Kind::Note, format_args!("excused: {why}"));
        self.summary.excuses.hit(why);
    }

    fn sum_up(mut self) -> Summary {
        self.summary.commits = self.app.commits;
        self.summary.restored = self.restored.segments;
        self.summary.held_max = self.store.held_max;
        self.summary.phantoms = self.truth.phantoms() as u64;
        self.summary.simulated_ms = self.now_ns() / 1_000_000;
        self.hit_lock_page();
        (0..self.restored.same_stamps).for_each(|_| self.hit("clock: equal timestamps"));
        self.summary.hits = self.sites.hits();
        self.summary.trace_hash = self.trace.hash();
        self.summary
    }

    /// Applies every segment that is on the replica.
    pub(super) fn restore_all(&mut self) -> Result<(), Violation> {
        loop {
            let object = capture(self.restored.next());
            let Some(body) = self.store.ever(&object).cloned() else { return Ok(()) };
            let truths = self.full.truths(&self.truth);
            self.restored.dictionaries.clone_from(self.store.dictionaries());
            self.restored.apply(&body, &truths, self.plan.config.pending_byte)?;
            self.histories.follow(object.range.min(), self.restored.lineage)?;
            let at = self.restored.truth_at;
            self.note(
                node::ORACLE,
                Kind::Restore,
                format_args!("{object} restored: state {at} of the truth"),
            );
        }
    }

    /// Sets the wall clock by so much.
    pub(super) fn step_wall(&mut self, ns: i64) {
        if ns > WALL_AHEAD_NS && self.some_file_is_ahead() {
            self.set_right_at = Some(self.now_ns());
        }
        self.steps_ns += ns;
        self.clock.set_ns((self.clock.now_ns() as i64 + ns) as u64);
    }

    pub(super) fn now_ns(&self) -> u64 {
        (self.clock.now_ns() as i64 - START_NS as i64 - self.steps_ns) as u64
    }

    pub(super) fn now(&self) -> Now {
        Now {
            mono: Mono::from_duration(Duration::from_nanos(self.mono_ns())),
            wall: Wall((self.clock.now_ns() / 1_000_000) as i64),
        }
    }

    pub(super) fn later(&mut self, wait: Duration, entry: Entry) {
        let at = self.now_ns() + wait.as_nanos() as u64;
        self.queue.push(at, entry);
    }

    /// The faults of this run.
    pub fn sites(&self) -> Sites {
        self.sites.clone()
    }

    /// Tells the trace what happened.
    pub(super) fn note(&self, node: &'static str, kind: Kind, text: fmt::Arguments<'_>) {
        self.trace.note(self.now_ns(), node, kind, text);
    }

    /// Counts a fault that the plan itself names; every other goes through [`Sites`].
    pub(super) fn hit(&mut self, name: &'static str) {
        self.sites.hit(name);
    }

    fn happen(&mut self, entry: Entry) -> Result<(), Violation> {
        match entry {
            Entry::App => self.app_step(),
            Entry::Blow(blow) => self.blow(blow),
            Entry::Start => self.start(),
            Entry::Rival(n, entry) => self.rival(n, entry),
            Entry::Places(process, entry) => self.places_entry(process, entry),
            Entry::Changed => {
                self.changed_waits = false;
                match &self.running {
                    Some(running) if running.engine.wants_events() => self.handle(Event::SourceChanged),
                    Some(_) => Ok(()),
                    None => self.changed_without_engine(),
                }
            }
            Entry::Tick { run, wake } => match &self.running {
                Some(running) if running.run == run && running.wake == wake => self.tick(),
                _ => Ok(()),
            },
            Entry::Probed { run } if self.is_running(run) => self.handle(Event::StoreProbed(Findings {
                create_if_absent: match self.plan.store.conditions {
                    Conditions::Ignored => Finding::Ignored,
                    _ => Finding::Holds,
                },
                ..Findings::default()
            })),
            Entry::Deliver { run, op, outcome } if self.is_running(run) => {
                self.handle(Event::Completed { op, outcome })
            }
            Entry::Source { run, op, request } if self.is_running(run) => self.source(run, op, &request),
            Entry::Compute { run, op, job } if self.is_running(run) => {
                let outcome = Outcome::Compute(job.run());
                self.handle(Event::Completed { op, outcome })
            }
            Entry::Store { run, op, request, fate, late } => self.store_request(run, op, request, fate, late),
            Entry::Deliver { .. } | Entry::Source { .. } | Entry::Compute { .. } | Entry::Probed { .. } => {
                Ok(())
            }
        }
    }

    fn tick(&mut self) -> Result<(), Violation> {
        let before = self.summary.actions;
        self.handle(Event::Tick)?;
        let Some(running) = &self.running else { return Ok(()) };
        idle::check_tick(running.engine.next_deadline(), self.now().mono, self.summary.actions - before)
    }

    pub(super) fn is_running(&self, run: u64) -> bool {
        self.running.as_ref().is_some_and(|running| running.run == run)
    }

    /// The application opens its database before it goes on, so that what this commits is seen for
    /// itself.
    pub(super) fn open_first(&mut self) {
        self.script.push_front((Duration::ZERO, AppOp::Open { page_bytes: 1_024 }));
    }

    /// The application commits once more, after its script.
    pub(super) fn write_once_more(&mut self) -> Result<(), Violation> {
        self.script.push_back((Duration::ZERO, AppOp::Write(Work::Insert { rows: 1, bytes: 100 })));
        self.app_step()
    }

    fn app_step(&mut self) -> Result<(), Violation> {
        let Some((_, op)) = self.script.front().copied() else {
            self.ended = self.queue.iter().all(|entry| !matches!(entry, Entry::Start | Entry::Blow(_)));
            if !self.ended {
                self.later(Duration::from_millis(100), Entry::App);
            }
            return Ok(());
        };
        let end = self.app_acts(op)?;
        self.note_blocked(op, &end)?;
        let wal = self.sqlite.disk().stat(WAL_PATH).map_or(0, |wal| wal.size);
        self.summary.wal_bytes_max = self.summary.wal_bytes_max.max(wal);
        self.clock.advance_ns(self.dice.range("app", "takes", self.app_steps, 1_000, 200_000));
        if end == AppEnd::Busy && self.tries < 2_000 {
            self.tries += 1;
            self.later(Duration::from_millis(1), Entry::App);
            return Ok(());
        }
        self.tries = 0;
        self.script.pop_front();
        let wait = self.script.front().map_or(Duration::ZERO, |(wait, _)| *wait);
        self.later(wait, Entry::App);
        Ok(())
    }

    /// Notes for how long the application has tried to write.
    fn note_blocked(&mut self, op: AppOp, end: &AppEnd) -> Result<(), Violation> {
        let writes =
            matches!(op, AppOp::Write(_) | AppOp::Begin(_) | AppOp::DieInCommit(_) | AppOp::FailCommit(_));
        if !writes || *end != AppEnd::Busy || self.is_lenient() {
            self.blocked_since = None;
            return Ok(());
        }
        let now = self.now_ns();
        let blocked = Duration::from_nanos(now - *self.blocked_since.get_or_insert(now));
        self.summary.blocked_us_max = self.summary.blocked_us_max.max(blocked.as_micros() as u64);
        unharmed::waits(blocked, self.plan.source_latency)
    }

    /// If nobody keeps the wal-index alive, the files are what counts.
    pub(super) fn look_for_cold(&mut self) {
        if !self.sqlite.wal_index_lives(PATH) && !self.app.is_writing() {
            let disk = self.sqlite.disk().clone();
            self.truth.cold(&disk, PATH, self.plan.config.pending_byte);
        }
    }

    /// Sends an event if the files changed.
    pub(super) fn note_changes(&mut self, by_app: bool) {
        let disk = self.sqlite.disk();
        if std::mem::replace(&mut self.seen_generation, disk.generation()) == disk.generation() {
            return;
        }
        let seen: Vec<_> = [PATH, WAL_PATH, SHM_PATH].iter().map(|path| disk.stat(path).ok()).collect();
        // While the wall clock stands, a change need not show.
        if seen == self.seen_files && !(by_app && self.wall_stands()) {
            return;
        }
        self.seen_files = seen;
        if self.changed_waits {
            return;
        }
        let n = self.summary.actions + self.app_steps;
        let lost = || self.dice.chance("event", "lost", n, self.plan.events_lost, 100);
        if by_app && self.healed_at.is_none() && self.sites.strikes("event", "event: lost", lost()) {
            self.note(node::MACHINE, Kind::Fault, format_args!("the event of a change is lost"));
            self.event_lost = true;
            return;
        }
        self.changed_waits = true;
        let wait = self.dice.wait("event", "wait", n, 50, 30_000);
        self.later(wait, Entry::Changed);
    }

    /// Whether the store is not to be reached now.
    pub(super) fn in_outage(&self) -> bool {
        let now = self.now_ns();
        self.healed_at.is_none() && self.outages.iter().any(|(start, end)| (*start..*end).contains(&now))
    }

    pub(super) fn config(&mut self) -> Config {
        Config { adopt: self.adopt, ..self.settings() }
    }
}

/// The level-0 object of a transaction.
pub(super) fn capture(txid: Txid) -> Object {
    Object { level: Level::CAPTURES, range: TxidRange::single(txid) }
}

#[cfg(test)]
mod tests;
