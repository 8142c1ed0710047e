//! Others who write to the same replica: a second database on its path, a person who moves it to
//! another database with `-adopt`, a copy of the whole machine.
//!
//! A rival is a machine of its own: disk, application with its SQLite, local state, replicator. It
//! shares the store, and the clocks. What must hold: whoever goes on extends what is there and says
//! nothing that is not so; everybody else ends fenced; in the end exactly one goes on
//! (`docs/decisions/0001-identity.md`). Only stores that keep their conditions promise that.

use std::path::PathBuf;
use std::time::Duration;

use driftless::port::scratch::Scratch;
use driftless_core::engine::{Config, Replicator};
use driftless_core::job::Job;
use driftless_core::machine::{
    Action, Actions, Event, Exit, Fact, Machine, OpId, Outcome, ReplicaId, Request, SourceRequest,
    StoreRequest,
};
use driftless_core::probe::{Finding, Findings};

use super::app::{App, AppEnd, AppOp, PATH, Work};
use super::host::DRIFTLESS;
use super::misfortune::Misfortune;
use super::sites::{Sites, Strike};
use super::sqlite::{Source, Sqlite};
use super::state::SimState;
use super::store::Fate;
use super::truth::Truth;
use super::violation::Violation;
use super::world::{Entry, World};
use crate::disk::{Disk, DiskConfig, SimFs};
use crate::trace::Kind;

/// How often a person tells a rival to adopt again after it was fenced all the same.
const ADOPTIONS: u32 = 4;

/// One of them.
pub(super) struct Rival {
    app: App,
    running: Option<Running>,
    pub(super) sqlite: Box<dyn Sqlite>,
    state: SimState,
    pub(super) truth: Truth,
    config: Config,
    runs: u64,
    /// Ended fenced, and nobody says otherwise.
    pub(super) fenced: bool,
    adoptions: u32,
    /// Operations that its application has yet to do.
    ops: u64,
    steps: u64,
}

struct Running {
    engine: Replicator,
    port: Box<dyn Source>,
    scratch: Scratch<SimFs>,
    run: u64,
    wake: u64,
}

/// Something to come for a rival.
#[derive(Debug)]
pub(super) enum ToRival {
    App,
    Start,
    Kill,
    Changed,
    Source { run: u64, op: OpId, request: SourceRequest },
    Compute { run: u64, op: OpId, job: Job },
    Store { run: u64, op: OpId, request: StoreRequest, fate: Fate },
    Deliver { run: u64, op: OpId, outcome: Outcome },
    Probed { run: u64 },
    Tick { run: u64, wake: u64 },
}

impl Rival {
    fn is_running(&self, run: u64) -> bool {
        self.running.as_ref().is_some_and(|running| running.run == run)
    }

    fn kill(&mut self) {
        self.sqlite.kill_process(DRIFTLESS);
        self.running = None;
    }

    fn look_for_cold(&mut self, pending_byte: u64) {
        if !self.sqlite.wal_index_lives(PATH) && !self.app.is_writing() {
            let disk = self.sqlite.disk().clone();
            self.truth.cold(&disk, PATH, pending_byte);
        }
    }
}

impl World {
    /// Another database on the same replica.
    pub(super) fn add_rival(&mut self, adopt: bool) {
        let disk = Disk::new(DiskConfig { dev: 0x802, ..DiskConfig::default() }, self.clock.clone());
        self.join(disk, SimState::default(), Truth::new(), None, adopt);
        self.restored.others_at.push(0);
    }

    /// A copy of the machine, its local state included.
    pub(super) fn clone_machine(&mut self) {
        let disk = Disk::new(DiskConfig::default(), self.clock.clone());
        disk.roll_back(&self.sqlite.disk().save());
        let app = self.app.memory();
        self.join(disk, self.state.clone(), self.truth.copy(), Some(app), false);
        self.restored.others_at.push(self.restored.truth_at);
    }

    fn join(
        &mut self,
        disk: Disk,
        state: SimState,
        truth: Truth,
        app_memory: Option<super::app::Memory>,
        adopt: bool,
    ) {
        let n = self.full.rivals.len();
        let sqlite = self.sqlite.another(disk, &self.clock, self.dice.draw("rival", "host", n as u64));
        let calm = Misfortune::new(self.dice, 0, Sites::new(Strike::All));
        let mut app = App::new(sqlite.as_ref(), true, calm);
        if let Some(memory) = &app_memory {
            app.recall(memory);
        }
        let mut rival = Rival {
            app,
            running: None,
            sqlite,
            state,
            truth,
            config: Config { adopt, prove_tenure: self.plan.levels.is_some(), ..self.plan.config.clone() },
            runs: 0,
            fenced: false,
            adoptions: if adopt { ADOPTIONS } else { 0 },
            ops: self.dice.range("rival", "ops", n as u64, 4, 30),
            steps: 0,
        };
        rival.look_for_cold(self.plan.config.pending_byte);
        self.full.rivals.push(rival);
        if n == 1 {
            self.hit("topology: three contenders");
        }
        self.later(Duration::from_millis(1), Entry::Rival(n, ToRival::App));
        self.later(Duration::from_millis(500), Entry::Rival(n, ToRival::Start));
        for kill in 0..self.dice.range("rival", "kills", n as u64, 0, 2) {
            let wait = self.dice.wait("rival", "kill", kill + 10 * n as u64, 600_000, 60_000_000);
            self.later(wait, Entry::Rival(n, ToRival::Kill));
        }
    }

    pub(super) fn rival(&mut self, n: usize, entry: ToRival) -> Result<(), Violation> {
        let rival = &mut self.full.rivals[n];
        match entry {
            ToRival::App => self.rival_app(n),
            ToRival::Start => self.rival_start(n),
            ToRival::Kill => {
                if self.healed_at.is_none() && rival.running.is_some() {
                    rival.kill();
                    rival.look_for_cold(self.plan.config.pending_byte);
                    self.later(Duration::from_secs(2), Entry::Rival(n, ToRival::Start));
                }
                Ok(())
            }
            ToRival::Changed => {
                let wants = rival.running.as_ref().is_some_and(|running| running.engine.wants_events());
                if wants { self.rival_handle(n, Event::SourceChanged) } else { Ok(()) }
            }
            ToRival::Store { run, op, request, fate } => self.rival_store(n, run, op, &request, fate),
            ToRival::Source { run, op, request } if rival.is_running(run) => {
                let running = rival.running.as_mut().expect("it runs");
                let outcome = Outcome::Source(running.port.perform(&request));
                rival.look_for_cold(self.plan.config.pending_byte);
                self.rival_handle(n, Event::Completed { op, outcome })
            }
            ToRival::Compute { run, op, job } if rival.is_running(run) => {
                self.rival_handle(n, Event::Completed { op, outcome: Outcome::Compute(job.run()) })
            }
            ToRival::Deliver { run, op, outcome } if rival.is_running(run) => {
                self.rival_handle(n, Event::Completed { op, outcome })
            }
            ToRival::Probed { run } if rival.is_running(run) => {
                let findings = Findings { create_if_absent: Finding::Holds, ..Findings::default() };
                self.rival_handle(n, Event::StoreProbed(findings))
            }
            ToRival::Tick { run, wake }
                if rival.running.as_ref().is_some_and(|r| (r.run, r.wake) == (run, wake)) =>
            {
                self.rival_handle(n, Event::Tick)
            }
            _ => Ok(()),
        }
    }

    fn rival_app(&mut self, n: usize) -> Result<(), Violation> {
        let pending_byte = self.plan.config.pending_byte;
        let healed = self.healed_at.is_some();
        let (dice, rival) = (self.dice, &mut self.full.rivals[n]);
        rival.steps += 1;
        let key = rival.steps * 4 + n as u64;
        let work = match dice.draw("rival", "work", key) % 4 {
            0 => Work::Update { of: 3 },
            _ => Work::Insert { rows: 3, bytes: 200 },
        };
        let op = match dice.draw("rival", "op", key) % 12 {
            _ if rival.steps == 1 => AppOp::Open { page_bytes: 1_024 },
            0 if !healed => AppOp::Checkpoint("TRUNCATE"),
            1 if !healed => AppOp::Close,
            _ => AppOp::Write(work),
        };
        let end = rival.app.perform(rival.sqlite.as_ref(), op)?;
        let disk = rival.sqlite.disk().clone();
        match &end {
            AppEnd::Committed => rival.truth.committed(&disk, PATH, pending_byte),
            AppEnd::Failed(_) => rival.truth.failed(&disk, PATH, pending_byte),
            _ => rival.truth.perhaps(&disk, PATH, pending_byte),
        }
        rival.look_for_cold(pending_byte);
        rival.ops = rival.ops.saturating_sub(u64::from(end != AppEnd::Busy));
        let goes_on = rival.ops > 0;
        self.note(RIVALS[n], Kind::Operation, format_args!("{op:?}: {end:?}"));
        self.later(Duration::from_millis(2), Entry::Rival(n, ToRival::Changed));
        if goes_on {
            let wait = if end == AppEnd::Busy { Duration::from_millis(1) } else { Duration::ZERO };
            let wait = wait + dice.wait("rival", "wait", key, 0, 3_000_000);
            self.later(wait, Entry::Rival(n, ToRival::App));
        }
        Ok(())
    }

    fn rival_start(&mut self, n: usize) -> Result<(), Violation> {
        let (dice, rival) = (self.dice, &mut self.full.rivals[n]);
        if rival.running.is_some() || rival.fenced {
            return Ok(());
        }
        rival.runs += 1;
        let key = rival.runs * 4 + n as u64;
        let run = dice.draw("rival", "run", key);
        rival.running = Some(Running {
            engine: Replicator::new(ReplicaId(0), run, rival.config.clone()),
            port: rival.sqlite.source(DRIFTLESS, PATH),
            scratch: Scratch::new(SimFs::new(rival.sqlite.disk().clone()), PathBuf::from("/scratch")),
            run,
            wake: 0,
        });
        if rival.config.remote {
            self.later(
                dice.wait("rival", "probe", key, 100_000, 20_000_000),
                Entry::Rival(n, ToRival::Probed { run }),
            );
        }
        self.note(RIVALS[n], Kind::Start, format_args!("run {run:x}"));
        self.rival_handle(n, Event::Start { entropy: dice.draw("rival", "entropy", key) })
    }

    fn rival_handle(&mut self, n: usize, event: Event) -> Result<(), Violation> {
        let now = self.now();
        let Some(running) = &mut self.full.rivals[n].running else { return Ok(()) };
        let run = running.run;
        let mut actions = Actions::new();
        running.engine.handle(now, event, &mut actions);
        for action in actions.drain() {
            self.note(RIVALS[n], Kind::Action, format_args!("{action:?}"));
            match action {
                Action::Submit { op, request } => self.rival_submit(n, run, op, request)?,
                Action::Cancel { .. } => {}
                Action::Notify(notice) => self.rival_says(n, &notice.fact)?,
                Action::Stopped(exit) => return self.rival_stopped(n, &exit),
            }
        }
        let Some(running) = &mut self.full.rivals[n].running else { return Ok(()) };
        running.wake += 1;
        let wake = running.wake;
        if let Some((at, _)) = running.engine.next_deadline() {
            let wait = at.since(now.mono) + Duration::from_micros(300);
            let wait = if self.is_mono_frozen() { wait.max(Duration::from_millis(200)) } else { wait };
            if wait < Duration::from_secs(1 << 30) {
                self.later(wait, Entry::Rival(n, ToRival::Tick { run, wake }));
            }
        }
        Ok(())
    }

    fn rival_submit(&mut self, n: usize, run: u64, op: OpId, request: Request) -> Result<(), Violation> {
        let wait = Duration::from_micros(self.dice.range("rival", "takes", op.seq * 4 + n as u64, 1, 2_000));
        let entry = match request {
            Request::Source(request) => ToRival::Source { run, op, request },
            Request::Compute(job) => ToRival::Compute { run, op, job },
            Request::State(request) => {
                let outcome = Outcome::State(Ok(self.full.rivals[n].state.perform(&request)));
                ToRival::Deliver { run, op, outcome }
            }
            Request::Scratch(request) => {
                let running = self.full.rivals[n].running.as_mut().expect("it has just asked");
                let outcome =
                    Outcome::Scratch(running.scratch.perform(&request).map_err(|error| error.to_string()));
                ToRival::Deliver { run, op, outcome }
            }
            Request::Store(request) => {
                let (fate, wait) = self.fate(&request);
                self.later(wait, Entry::Rival(n, ToRival::Store { run, op, request, fate }));
                return Ok(());
            }
            other => return Err(Violation::new("contract", format!("a replicator asks for {other:?}"))),
        };
        self.later(wait, Entry::Rival(n, entry));
        Ok(())
    }

    fn rival_store(
        &mut self,
        n: usize,
        run: u64,
        op: OpId,
        request: &StoreRequest,
        fate: Fate,
    ) -> Result<(), Violation> {
        let runs = self.full.rivals[n].is_running(run);
        let lands = matches!(request, StoreRequest::PutCommit { .. }) && fate.has_effect();
        if !runs && !lands {
            return Ok(());
        }
        let subject = self.store.subject(request);
        self.store.now_ns = self.now_ns();
        let result = self.store.perform(op, request, fate);
        self.note(RIVALS[n], Kind::Request, format_args!("{subject}: {fate:?}"));
        if runs && fate.is_answered() {
            return self.rival_handle(n, Event::Completed { op, outcome: Outcome::Store(result) });
        }
        Ok(())
    }

    fn rival_says(&mut self, n: usize, fact: &Fact) -> Result<(), Violation> {
        if let Fact::Replicated { txid, .. } = fact {
            self.restore_all()?;
            self.check_owner(*txid, n + 1)?;
        }
        Ok(())
    }

    fn rival_stopped(&mut self, n: usize, exit: &Exit) -> Result<(), Violation> {
        self.note(RIVALS[n], Kind::Stop, format_args!("{exit:?}"));
        if !matches!(exit, Exit::Fenced { .. }) {
            return Err(Violation::new("exit", format!("a rival ends with {exit:?}")));
        }
        self.hit("topology: a rival fenced");
        let rival = &mut self.full.rivals[n];
        rival.kill();
        rival.look_for_cold(self.plan.config.pending_byte);
        if rival.adoptions == 0 {
            rival.fenced = true;
            return Ok(());
        }
        rival.adoptions -= 1;
        self.later(Duration::from_secs(1), Entry::Rival(n, ToRival::Start));
        Ok(())
    }

    /// What somebody says is replicated must be a state of theirs.
    pub(super) fn check_owner(&self, txid: driftless_core::ids::Txid, who: usize) -> Result<(), Violation> {
        let owners = self.restored.owners.get(&txid).copied().unwrap_or(0);
        if self.full.rivals.is_empty() || owners & 1 << who != 0 {
            return Ok(());
        }
        // It may have come to the very state since, by another commit than the one that is there.
        let state = usize::try_from(txid.get() - 1).ok().and_then(|at| self.restored.states.get(at));
        let truths = self.full.truths(&self.truth);
        if state.is_some_and(|(state, _)| truths[who].find(state, 0).is_some()) {
            return Ok(());
        }
        let text = format!("{txid} is said to be replicated by contender {who}, and is of {owners:b}");
        Err(Violation::new("fork", text))
    }

    /// Who has not been fenced: the main replicator is 0.
    pub(super) fn contenders(&self) -> Vec<usize> {
        let rivals = self.full.rivals.iter().enumerate().filter(|(_, rival)| !rival.fenced);
        let main = (!self.full.main_fenced).then_some(0);
        main.into_iter().chain(rivals.map(|(n, _)| n + 1)).collect()
    }

    fn rivals_sleep(&self) -> bool {
        self.full.rivals.iter().filter(|rival| !rival.fenced).all(|rival| {
            let deadline = rival.running.as_ref().map(|running| running.engine.next_deadline());
            deadline.is_some_and(|deadline| self.is_rest(deadline, rival.sqlite.disk()))
        })
    }

    fn contenders_sleep(&self) -> bool {
        let main = self.full.main_fenced || self.main_sleeps();
        let waiting = |entry: &Entry| {
            let ticks = matches!(entry, Entry::Tick { .. } | Entry::Rival(_, ToRival::Tick { .. }));
            !ticks && !self.is_sweep(entry)
        };
        main && self.rivals_sleep() && !self.queue.iter().any(waiting)
    }

    /// With all faults at an end, each of those who are left commits once more and again, until the
    /// store has decided between them.
    ///
    /// # Errors
    /// When more than one goes on, or none, or the one is not complete.
    pub(super) fn converge_rivals(&mut self, bound: Duration) -> Result<(), Violation> {
        for _ in 0..24 {
            // A copy with a higher number takes the other's segments for its own, one after the other,
            // and waits after each as after a failure.
            let bound = bound + Duration::from_secs(12) * self.restored.segments as u32;
            let until = self.now_ns() + bound.as_nanos() as u64;
            while !self.contenders_sleep() || !self.last_contender_is_complete()? {
                if self.queue.next_at().is_none_or(|at| at > until) {
                    let text = format!("no rest among rivals {bound:?} after the end of faults");
                    let differs = self.difference_of_the_last();
                    return Err(Violation::new("liveness", format!("{text}: {differs:?}")));
                }
                self.step()?;
            }
            if self.contenders().len() <= 1 {
                break;
            }
            for who in self.contenders() {
                match who.checked_sub(1) {
                    None => self.write_once_more()?,
                    Some(n) => self.later(Duration::ZERO, Entry::Rival(n, ToRival::App)),
                }
            }
        }
        match self.contenders()[..] {
            [_] => Ok(()),
            _ => Err(Violation::new("rivals", format!("{:?} go on", self.contenders()))),
        }
    }

    /// Whether the only one who is left, if there is only one, has everything on the replica.
    fn last_contender_is_complete(&mut self) -> Result<bool, Violation> {
        self.restore_all()?;
        Ok(self.difference_of_the_last().is_none())
    }

    /// Who is left, if there is only one, and what the replica does not have of theirs.
    fn difference_of_the_last(&self) -> Option<(usize, String)> {
        let [who] = self.contenders()[..] else { return None };
        let truth = who.checked_sub(1).map_or(&self.truth, |n| &self.full.rivals[n].truth);
        let last = truth.last().filter(|last| **last != self.restored.image)?;
        Some((who, self.restored.image.differences(last)))
    }
}

/// Their lanes.
const RIVALS: [&str; 3] = ["rival 1", "rival 2", "rival 3"];
