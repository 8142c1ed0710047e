//! The host of the replicator: it starts and kills it, carries out its actions, brings back what
//! came of them, and decides nothing.

use std::path::PathBuf;
use std::time::Duration;

use driftless::port::scratch::Scratch;
use driftless_core::engine::Record;
use driftless_core::ids::Mono;
use driftless_core::keeper::Keeper;
use driftless_core::machine::{
    Action, Actions, ByteRange, Chunk, Event, Exit, Fact, Machine, Notice, OpId, Outcome, ReplicaId, Request,
    SourceReply, SourceRequest, StateRequest, StoreError, StoreReply, StoreRequest,
};

use super::app::PATH;
use super::mishap::Worker;
use super::oracles::acknowledged::check_report;
use super::oracles::convergence::AHEAD;
use super::oracles::exit;
use super::oracles::limits::Underway;
use super::oracles::purity::Tape;
use super::oracles::transitions::Story;
use super::oracles::wrong_bytes::is_altered;
use super::sqlite::Source;
use super::store::Fate;
use super::violation::Violation;
use super::world::{Entry, World};
use crate::disk::SimFs;
use crate::trace::{Kind, node};

/// The replicator's process.
pub const DRIFTLESS: &str = "driftless";

/// A replicator that runs.
pub(super) struct Running {
    pub(super) engine: Keeper,
    pub(super) port: Box<dyn Source>,
    scratch: Scratch<SimFs>,
    pub(super) run: u64,
    /// Counts what the tick under way is for.
    pub(super) wake: u64,
    /// When it starts again, once it was told to stop.
    pub(super) stopping: Option<Duration>,
    /// It was told to make room for other databases of the process.
    pub(super) turn_over: bool,
    /// What it was in the beginning and what happened to it since, where it is to be played again.
    again: Option<(Keeper, Tape)>,
    pub(super) underway: Underway,
    story: Story,
}

/// A run of more actions than this counts as one that goes in circles; usual ones have some thousands.
const ACTIONS_MAX: u64 = 1_000_000;
/// One run of the process out of so many is played again in the end.
const PLAYED_AGAIN_OF: u64 = 4;
/// A put whose sender has died.
const GHOST: &str = "store: put lands after its sender's death";

/// What becomes of a request that does not simply work, by weight.
const FATES: [Fate; 7] =
    [Fate::Refused, Fate::Conflict, Fate::Lost, Fate::Lost, Fate::Unclear, Fate::Hangs, Fate::Swallowed];

impl World {
    pub(super) fn start(&mut self) -> Result<(), Violation> {
        if self.is_up() || self.full.main_fenced {
            return Ok(());
        }
        self.perhaps_vanish();
        if !self.open_local() {
            self.later(Duration::from_secs(1), Entry::Start);
            return Ok(());
        }
        if self.plan.tiers { self.open_places() } else { self.start_engine() }
    }

    /// The database gets its engine.
    pub(super) fn start_engine(&mut self) -> Result<(), Violation> {
        self.runs += 1;
        self.reads.clear();
        self.summary.starts += 1;
        let run = self.dice.draw("run", "", self.runs);
        let port = self.sqlite.source(DRIFTLESS, PATH);
        let scratch = Scratch::new(SimFs::new(self.sqlite.disk().clone()), PathBuf::from("/scratch"));
        let engine = {
            let config = self.config();
            let levels = self.plan.levels.as_ref().map(|levels| levels.config(&config));
            let validation = self.plan.validation(&config);
            Keeper::new(ReplicaId(0), run, config, levels, validation)
        };
        self.note(node::DRIFTLESS, Kind::Start, format_args!("start {}, run {run:x}", self.runs));
        self.full_start();
        // Played again are some: what differs once differs in all, and it takes as long as the run itself.
        let again = self.dice.chance("purity", "", self.runs, 1, PLAYED_AGAIN_OF);
        self.running = Some(Running {
            again: again.then(|| (engine.clone(), Tape::default())),
            engine,
            port,
            scratch,
            run,
            wake: 0,
            stopping: None,
            turn_over: false,
            underway: Underway::default(),
            story: Story::default(),
        });
        // A server is probed, a directory is not.
        if self.plan.is_remote() {
            let wait = self.dice.wait("probe", "", self.runs, 100_000, 20_000_000);
            self.later(wait, Entry::Probed { run });
        }
        let entropy = self.dice.draw("entropy", "", self.runs);
        self.handle(Event::Start { entropy })
    }

    /// SIGKILL: requests to the store may outlive it, all else ends.
    pub(super) fn kill(&mut self) {
        if let Some(running) = &self.running {
            self.summary.crashes += 1;
            self.note(node::DRIFTLESS, Kind::Crash, format_args!("run {:x} dies", running.run));
        }
        self.end();
    }

    /// The process is no more.
    fn end(&mut self) {
        self.sqlite.kill_process(DRIFTLESS);
        self.close_local();
        self.full.places = None;
        self.end_engine();
    }

    /// The engine is no more.
    pub(super) fn end_engine(&mut self) {
        if let Some(Running { again: Some((first, tape)), .. }) = self.running.take()
            && let Err(violation) = tape.check(first)
        {
            self.broken.get_or_insert(violation);
        }
        self.look_for_cold();
        self.note_changes(false);
    }

    pub(super) fn stop(&mut self, down: Duration) -> Result<(), Violation> {
        if self.running.as_ref().is_some_and(|running| running.stopping.is_some()) {
            return self.stop_again();
        }
        self.meddle_before_stop()?;
        let grace = self.dice.wait("stop", "grace", self.runs, 100_000, 60_000_000);
        let running = self.running.as_mut().expect("checked by the caller");
        running.stopping = Some(down);
        self.owed = if self.nothing_is_owed() { 0 } else { self.truth.owed() };
        let deadline = self.now().mono.after(grace);
        self.handle(Event::Shutdown { deadline })
    }

    /// Tells a process that stops already to end at once. What it owes was settled when it was first told.
    pub(super) fn stop_again(&mut self) -> Result<(), Violation> {
        self.handle(Event::Shutdown { deadline: Mono::default() })
    }

    /// Gives the replicator an event and carries out what it asks for.
    pub(super) fn handle(&mut self, event: Event) -> Result<(), Violation> {
        let now = self.now();
        let Some(run) = self.running.as_ref().map(|running| running.run) else { return Ok(()) };
        let mut actions = Actions::new();
        self.note(node::DRIFTLESS, Kind::Event, format_args!("{event:?}"));
        let running = self.running.as_mut().expect("looked at above");
        let completed = if let Event::Completed { op, .. } = &event { Some(*op) } else { None };
        match &mut running.again {
            Some((_, tape)) => {
                running.engine.handle(now, event.clone(), &mut actions);
                tape.record(now, event, &actions);
            }
            None => running.engine.handle(now, event, &mut actions),
        }
        let actions: Vec<Action> = actions.drain().collect();
        running.underway.step(completed, &actions)?;
        for action in actions {
            self.summary.actions += 1;
            self.note_validators(completed, &action);
            self.carry_out(run, action)?;
            if self.crash_at == Some(self.summary.actions) {
                self.crash_at = None;
                let n = self.summary.actions;
                self.note(node::MACHINE, Kind::Fault, format_args!("crash after action {n}"));
                self.hit("process: crashed after an action");
                if self.plan.crash_power {
                    self.power_loss();
                } else {
                    self.kill();
                    self.lose(self.plan.crash_state);
                }
                let down = self.dice.wait("crash", "down", self.summary.actions, 1_000, 3_000_000);
                self.later(down, Entry::Start);
                return Ok(());
            }
            if !self.is_running(run) {
                return Ok(());
            }
        }
        self.arm();
        if self.summary.actions > ACTIONS_MAX {
            return Err(Violation::new("spin", format!("more than {ACTIONS_MAX} actions")));
        }
        self.check_synced()?;
        self.note_standing()
    }

    /// Plans the tick for the deadline that stands now.
    fn arm(&mut self) {
        let now = self.now();
        let Some(running) = &mut self.running else { return };
        running.wake += 1;
        let (run, wake) = (running.run, running.wake);
        let Some((at, _)) = running.engine.next_deadline() else { return };
        let late = self.dice.wait("tick", "late", wake, 1, 2_000);
        let wait = at.since(now.mono) + late;
        let wait = if self.is_mono_frozen() { wait.max(Duration::from_millis(200)) } else { wait };
        let far = Mono::from_duration(Duration::from_secs(1 << 33));
        if at < far {
            self.later(wait, Entry::Tick { run, wake });
        }
    }

    pub(super) fn carry_out(&mut self, run: u64, action: Action) -> Result<(), Violation> {
        let kind = match &action {
            Action::Notify(Notice { fact: Fact::Checkpointed { .. }, .. }) => Kind::Checkpoint,
            _ => Kind::Action,
        };
        self.note(node::DRIFTLESS, kind, format_args!("{action:?}"));
        if let Some(running) = &mut self.running {
            running.story.tell(&action)?;
        }
        match action {
            Action::Submit { op, request } => self.submit(run, op, request),
            Action::Cancel { .. } => Ok(()),
            Action::Notify(notice) => self.notice(&notice.fact),
            Action::Stopped(exit) => self.stopped(exit),
        }
    }

    fn submit(&mut self, run: u64, op: OpId, request: Request) -> Result<(), Violation> {
        let n = self.summary.actions;
        let latency = self.plan.source_latency.as_micros() as u64;
        match request {
            Request::Source(request) => {
                let wait = self.dice.wait("source", "wait", n, 1, latency);
                let wait = self.stall(wait);
                self.later(wait, Entry::Source { run, op, request });
            }
            Request::State(request) => self.submit_state(run, op, &request)?,
            Request::Compute(job) => {
                let wait = self.dice.wait("compute", "wait", n, 1, 5_000);
                self.later(wait, Entry::Compute { run, op, job });
            }
            Request::Store(request) if self.dies_in_put(op, &request) => {}
            Request::Store(request) => {
                let (fate, wait) = self.fate(&request);
                self.later(wait, Entry::Store { run, op, request, fate, late: false });
            }
            Request::Scratch(request) => {
                let fails = self.fails("scratch", n, "scratch: no room");
                self.works(Worker::Scratch);
                let running = self.running.as_mut().expect("it has just asked");
                let outcome = Outcome::Scratch(match fails {
                    true => Err("no room".into()),
                    false => running.scratch.perform(&request).map_err(|error| error.to_string()),
                });
                self.works(Worker::Other);
                if self.bury() {
                    return Ok(());
                }
                let wait = self.dice.wait("scratch", "wait", n, 1, 5_000);
                self.later(wait, Entry::Deliver { run, op, outcome });
            }
            Request::Grant(_) => {
                // Others may hold it for a while.
                let wait = self.dice.wait("grant", "wait", n, 1, 500_000);
                self.later(wait, Entry::Deliver { run, op, outcome: Outcome::Granted });
            }
            other @ (Request::Output(_) | Request::Copy(_) | Request::Cell(_) | Request::Prove) => {
                return Err(Violation::new("contract", format!("a replicator asks for {other:?}")));
            }
        }
        Ok(())
    }

    fn submit_state(&mut self, run: u64, op: OpId, request: &StateRequest) -> Result<(), Violation> {
        let n = self.summary.actions;
        // A journal on the disk has the disk's own faults.
        let simple = self.full.local.is_none() && *request != StateRequest::Load;
        let fails = simple && self.fails("state", n, "state: no room");
        // Without a record of who we are, the state counts as lost.
        let names_us = match request {
            StateRequest::Append(record) => matches!(Record::decode(record), Some(Record::Identity { .. })),
            request => *request == StateRequest::Sync,
        };
        self.state_lost |= fails && names_us;
        let answer = match (fails, self.local_request(request)?) {
            (_, Some(answer)) => {
                self.state_lost |= answer.is_err() && names_us;
                answer
            }
            (true, None) => self.state.refuse(),
            (false, None) => Ok(self.state.perform(request)),
        };
        if self.bury() {
            return Ok(());
        }
        let outcome = Outcome::State(answer);
        let wait = self.dice.wait("state", "wait", n, 1, 5_000);
        let wait = self.stall(wait);
        self.later(wait, Entry::Deliver { run, op, outcome });
        Ok(())
    }

    pub(super) fn source(&mut self, run: u64, op: OpId, request: &SourceRequest) -> Result<(), Violation> {
        self.meddle(request)?;
        self.source_steps.set(u64::from(self.healed_at.is_none()) * (self.summary.actions + 1));
        // Frames with their headers are proven by checksums; a page by itself, like one of the
        // database file, has none, and who reads it must take it as it comes.
        let framed = match request {
            SourceRequest::ReadWal { len, .. } => *len > 24 && !(*len >= 512 && len.is_power_of_two()),
            SourceRequest::ReadWalParts { .. } => true,
            _ => false,
        };
        if framed {
            self.works(Worker::Wal);
        }
        let running = self.running.as_mut().expect("checked by the caller");
        let mut outcome = Outcome::Source(running.port.perform(request));
        self.works(Worker::Other);
        self.source_steps.set(0);
        self.spoil_index(request, &mut outcome);
        if !self.sqlite.is_alive(DRIFTLESS) {
            self.note(node::MACHINE, Kind::Fault, format_args!("death in {request:?}"));
            self.kill();
            let down = self.dice.wait("death", "down", self.summary.actions, 1_000, 3_000_000);
            self.later(down, Entry::Start);
            return Ok(());
        }
        self.look_for_cold();
        self.note_changes(false);
        let n = self.summary.actions;
        if self.dice.chance("source", "answers late", n, 1, 2) {
            return self.handle(Event::Completed { op, outcome });
        }
        let latency = self.plan.source_latency.as_micros() as u64;
        let wait = self.dice.wait("source", "answer", n, 1, latency);
        self.later(wait, Entry::Deliver { run, op, outcome });
        Ok(())
    }

    /// What an answer tells of the wal-index, at a moment when somebody writes it.
    fn spoil_index(&mut self, request: &SourceRequest, outcome: &mut Outcome) {
        let Outcome::Source(Ok(SourceReply::Link(reply))) = outcome else { return };
        if self.healed_at.is_some() {
            return;
        }
        let n = self.summary.actions;
        let torn = self.dice.chance("index", "torn", n, 1, 100);
        if self.sites.strikes("index", "source: index torn", torn) {
            // A writer is in the middle of publishing it.
            reply.index = None;
        }
        let SourceRequest::FramePages { count, .. } = request else { return };
        let emptied = self.may("app: index emptied") && self.dice.chance("index", "emptied", n, 1, 20);
        if self.sites.strikes("frame pages", "app: index emptied", emptied) {
            // It empties the table before it fills it again.
            let mut pages = reply.bytes.take().map_or(Vec::new(), |pages| pages.to_vec());
            let from = self.dice.draw("index", "emptied from", n) % u64::from(*count);
            pages.iter_mut().skip(4 * from as usize).for_each(|byte| *byte = 0);
            reply.bytes = Some(Chunk::from(pages));
        }
    }

    fn fails(&self, what: &str, n: u64, fault: &'static str) -> bool {
        let drawn = || self.dice.chance("fault", what, n, self.plan.state_faults, 1_000);
        let fails = self.healed_at.is_none() && self.sites.strikes(what, fault, drawn());
        if fails {
            self.note(node::MACHINE, Kind::Fault, format_args!("{fault}"));
        }
        fails
    }

    /// What becomes of a request to the store, and when.
    pub(super) fn fate(&mut self, request: &StoreRequest) -> (Fate, Duration) {
        self.store_steps += 1;
        let subject = self.store.subject(request);
        let n = self.store_steps;
        let latency = self.plan.store.latency.as_micros() as u64;
        let wait = self.dice.wait("store wait", &subject, n, 100, latency);
        if self.healed_at.is_some() {
            return (Fate::Works, wait);
        }
        if self.full.weather.is_some() {
            return self.weathered(request, &subject, wait);
        }
        if self.in_outage() {
            self.summary.faults += 1;
            self.hit("store: outage");
            let fates = [Fate::Refused, Fate::Refused, Fate::Swallowed, Fate::Unclear];
            return (*self.dice.pick("outage", &subject, n, &fates), wait);
        }
        let drawn = self.dice.chance("store fault", &subject, n, self.plan.store.per_mille, 1_000);
        let drawn = drawn.then(|| self.dice.pick("store fate", &subject, n, &FATES).name());
        let names = FATES.map(Fate::name);
        let Some(fault) = self.sites.settle(&subject, drawn, &names) else { return (Fate::Works, wait) };
        self.summary.faults += 1;
        let fate = FATES[names.iter().position(|name| *name == fault).expect("one of them")];
        let wait =
            if fate == Fate::Hangs { self.dice.wait("hang", &subject, n, 1_000, 90_000_000) } else { wait };
        (fate, wait)
    }

    pub(super) fn store_request(
        &mut self,
        run: u64,
        op: OpId,
        request: StoreRequest,
        fate: Fate,
        late: bool,
    ) -> Result<(), Violation> {
        let subject = self.store.subject(&request);
        if !self.is_running(run) {
            // Sent by the dead: what was sent whole may land, at once or later.
            let lands = matches!(request, StoreRequest::PutCommit { .. }) && fate.has_effect();
            if lands && !late && self.ambush(op, &request) {
                return Ok(());
            }
            let drawn = || self.dice.chance("ghost", &subject, op.seq, 2, 3);
            if !lands || !self.sites.strikes(&format!("ghost {subject}"), GHOST, drawn()) {
                return Ok(());
            }
            // Where nothing is refused, what lands after its process's time replaces what came since:
            // such a store promises nothing then (`docs/OPERATING.md`).
            let past = fate == Fate::Hangs || self.running.is_some() || self.is_long_dead(run);
            if !self.store.keeps_conditions && past {
                return Ok(());
            }
            if !late && self.store.keeps_conditions && self.dice.chance("ghost late", &subject, op.seq, 1, 2)
            {
                let wait = self.dice.wait("ghost wait", &subject, op.seq, 1_000, 20_000_000);
                self.later(wait, Entry::Store { run, op, request, fate, late: true });
                return Ok(());
            }
        }
        self.spring(&request)?;
        self.note_store_request(run, op, &request, fate);
        let objects = self.store.len();
        let result = self.store.perform(op, &request, fate);
        self.store.check_kept()?;
        self.check_deleted()?;
        // What the compactor reads is nobody's to adopt.
        if op.run == run {
            self.note_read(&request, &result);
        }
        let put = if self.store.len() > objects { Kind::Put } else { Kind::Request };
        let kind = if fate == Fate::Works || put == Kind::Put { put } else { Kind::Fault };
        self.note(node::STORE, kind, format_args!("{subject}: {fate:?}"));
        self.note_store_answer(run, op, &result, fate);
        self.plant_after_request(put, fate)?;
        if fate.is_answered() && self.is_paused() {
            // It has its effect, and waits where the process will find it.
            let outcome = Outcome::Store(result);
            self.later(Duration::ZERO, Entry::Deliver { run, op, outcome });
            return Ok(());
        }
        if fate.is_answered() && self.is_running(run) {
            return self.handle(Event::Completed { op, outcome: Outcome::Store(result) });
        }
        Ok(())
    }

    /// Notes what was read of a segment, and whether its bytes are those of the body.
    fn note_read(&mut self, request: &StoreRequest, result: &Result<StoreReply, StoreError>) {
        let StoreRequest::Get { object, range } = request else { return };
        let (Ok(StoreReply::Bytes { bytes, object_len }), Some(body)) = (result, self.store.get(object))
        else {
            return;
        };
        let offset = match range {
            ByteRange::At { offset, .. } => *offset,
            ByteRange::Tail(_) => (body.len() - bytes.len().min(body.len())) as u64,
        };
        let altered = *object_len != body.len() as u64
            || is_altered(
                body,
                offset as usize,
                bytes,
                self.plan.config.pending_byte,
                self.store.dictionaries(),
            );
        self.reads.read(object.range.max(), altered);
    }

    fn notice(&mut self, fact: &Fact) -> Result<(), Violation> {
        self.note_levels(fact)?;
        match fact {
            Fact::Replicated { txid, .. } | Fact::Adopted { txid } => {
                self.full.fences = 0;
                self.restore_all()?;
                check_report(self.restored.txid, *txid)?;
                if matches!(fact, Fact::Replicated { .. }) {
                    self.check_owner(*txid, 0)?;
                }
                if matches!(fact, Fact::Adopted { .. }) {
                    self.reads.adopted(*txid)?;
                }
            }
            Fact::Validated { verdict, .. } => self.check_validated(verdict)?,
            Fact::Base { full: true, .. } => self.summary.bases.0 += 1,
            Fact::Base { full: false, .. } => self.summary.bases.1 += 1,
            Fact::Detached { sealed: true } => self.summary.detached.0 += 1,
            Fact::Detached { sealed: false } => self.summary.detached.1 += 1,
            _ => {}
        }
        Ok(())
    }

    fn stopped(&mut self, exit: Exit) -> Result<(), Violation> {
        let running = self.running.as_ref().expect("it has just acted");
        let (stopping, turn_over) = (running.stopping, running.turn_over);
        let fenced = matches!(exit, Exit::Fenced { .. });
        let unknown = self.state_lost && !self.adopt;
        exit::check(
            &exit,
            exit::Allowed {
                stop: stopping.is_some() || turn_over,
                fenced: unknown || self.full.excuses.fence() || !self.full.rivals.is_empty(),
                corrupt: self.full.excuses.corruption(),
            },
        )?;
        if matches!(exit, Exit::Unreplicated { .. }) {
            self.hit("process: stopped with work undone");
        }
        self.check_owed(&exit)?;
        self.note(node::DRIFTLESS, Kind::Stop, format_args!("{exit:?}"));
        if self.turn_ended(&exit)? {
            return Ok(());
        }
        self.end();
        if fenced && !self.full.rivals.is_empty() {
            self.hit("topology: fenced by a rival");
            self.full.main_fenced = true;
            return Ok(());
        }
        if fenced {
            self.summary.fenced += 1;
            self.full.fences += 1;
            // A person looks again before they adopt, unless they know of a loss.
            self.adopt |= self.plan.faults.is_empty() || self.state_lost || self.full.fences > 1;
        }
        self.later(stopping.unwrap_or(Duration::from_secs(1)), Entry::Start);
        Ok(())
    }

    /// Whoever says that all is done has everything on the replica that was owed when they were told to stop.
    pub(super) fn check_owed(&mut self, exit: &Exit) -> Result<(), Violation> {
        self.restore_all()?;
        let owed = self.owed.saturating_sub(1);
        // Another may have gone on from there.
        let passed = || !self.full.rivals.is_empty() && self.restored.had(&self.truth, owed);
        let mut all =
            self.truth.find(&self.restored.image, owed).is_some() || passed() || self.nothing_is_owed();
        if *exit == Exit::Done && !all && self.has_gone_back() {
            self.excuse(AHEAD);
            all = true;
        }
        exit::check_done(exit, if all { self.owed } else { 0 }, self.owed)
    }

    /// A process that nobody ended is a function of its events as well, of which no more come.
    pub(super) fn check_purity(&mut self) -> Result<(), Violation> {
        let Some(running) = &mut self.running else { return Ok(()) };
        running.again.take().map_or(Ok(()), |(first, tape)| tape.check(first))
    }
}
