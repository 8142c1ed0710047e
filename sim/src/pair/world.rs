//! The loop: what happens next, requests to the store, blows, and what must hold.

use std::collections::BTreeSet;
use std::time::Duration;

use driftless_core::compact::CompactConfig;
use driftless_core::ids::{Mono, Now, Txid, Wall};
use driftless_core::lease::{Lease, LeaseConfig, LeaseEvent, Role};
use driftless_core::machine::{
    Action, Actions, CellRequest, CopyRequest, Event, Exit, Machine, OpId, OpIds, Outcome, ReplicaId,
    Request, SourceRequest, StoreRequest,
};
use driftless_core::probe::{Finding, Findings};
use driftless_core::succession::{self, Succession};

use super::explore::{Case, Survey, Way};
use super::node::{Node, PENDING, Running, Who};
use super::{PLACE, Summary};
use crate::failover::store::Store as Cell;
use crate::ring0::Violation;
use crate::ring0::app::PATH;
use crate::ring0::dice::Dice;
use crate::ring0::queue::Queue;
use crate::ring0::restore::Restored;
use crate::ring0::store::{Fate, SimStore};
use crate::trace::{Kind, Trace};
use crate::upkeep;

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;
const START_NS: u64 = 1_800_000_000_000_000_000;
/// Until when faults strike in the run of a seed.
const TROUBLED: u64 = 120 * SECOND;
/// From this seed on levels are made, and what they cover is deleted.
pub const LEVELS_FROM: u64 = 10_000_000;
/// From this seed on applications give pages back, and every second first host has a database before anything runs.
const BEFORE_FROM: u64 = 3_000;
/// From there on until applications stop to write.
const WRITES_ON: u64 = 60 * SECOND;
/// From there on until all that was committed is on the replica.
const QUIET: u64 = 30 * SECOND;
/// After the faults, somebody writes within twice the time to live, two answers that never come, and this: a
/// process that has died begins again within 15 s.
pub(super) const BEYOND: u64 = 25 * SECOND;
const STEPS_MAX: u64 = 400_000;
const NAMES: [&str; 3] = ["host 0", "host 1", "host 2"];

/// What is asked of the store.
#[derive(Debug)]
pub(super) enum Ask {
    Store(StoreRequest),
    Cell(CellRequest),
}

#[derive(Debug)]
pub(super) enum Entry {
    Begin(usize),
    Blow(u64),
    /// Somebody else locks the copy of a host.
    Lock(u64),
    /// What the script says happens to whoever writes.
    Way(Way),
    App(usize, u64),
    Changed(usize, u64),
    Tick {
        host: usize,
        who: Who,
        no: u64,
        wake: u64,
    },
    Source {
        host: usize,
        no: u64,
        op: OpId,
        request: SourceRequest,
    },
    /// The store was found to keep its conditions.
    Probed {
        host: usize,
        no: u64,
    },
    /// A request reaches the store.
    Arrive {
        host: usize,
        who: Who,
        no: u64,
        op: OpId,
        ask: Box<Ask>,
    },
    Deliver {
        host: usize,
        who: Who,
        no: u64,
        op: OpId,
        outcome: Box<Outcome>,
    },
    /// Replicas are looked for.
    Search {
        host: usize,
        run: u64,
    },
    /// What came of a step of the succession of this process.
    Told {
        host: usize,
        run: u64,
        event: succession::Event,
    },
    Healed,
    End,
}

pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) dice: Dice,
    pub(super) now: u64,
    pub(super) queue: Queue<Entry>,
    pub(super) store: SimStore,
    pub(super) cell: Cell,
    pub(super) restored: Restored,
    /// The states of the replica, without what the copy's SQLite puts into page 1.
    pub(super) known: BTreeSet<u64>,
    /// The epoch of the last segment, and the first segments of all.
    pub(super) epoch: Option<u32>,
    pub(super) fences: Vec<Txid>,
    pub(super) ttl: Duration,
    pub(super) per_mille: u64,
    pub(super) latency: u64,
    pub(super) numbers: u64,
    pub(super) requests: u64,
    pub(super) primary: Option<u64>,
    pub(super) writes_since_heal: Option<u64>,
    /// Whether applications give pages back.
    pub(super) shrinks: bool,
    /// What is compacted, and what goes then.
    pub(super) levels: Option<CompactConfig>,
    pub(super) summary: Summary,
    pub(super) trace: Trace,
    /// Until when faults strike.
    pub(super) troubled: u64,
    /// What strikes, instead of what the dice say.
    pub(super) script: Option<Case>,
    /// What there was to strike.
    pub(super) survey: Survey,
}

/// Runs one seed, and writes what happens to a trace.
///
/// # Errors
/// What an oracle saw.
pub fn run(seed: u64, trace: Trace) -> Result<Summary, Violation> {
    let dice = Dice::new(seed);
    let blows = (0..dice.range("plan", "blows", 0, 1, 8))
        .map(|n| (dice.range("blow", "at", n, 5 * SECOND, TROUBLED), Entry::Blow(n)));
    let locks = (0..dice.range("plan", "locks", 0, 0, 3))
        .map(|n| (dice.range("lock", "at", n, 0, TROUBLED), Entry::Lock(n)));
    let entries = blows.chain(locks).collect();
    let mut world = World::new(dice, dice.range("plan", "hosts", 0, 2, 3) as usize, TROUBLED, trace);
    if seed >= LEVELS_FROM {
        world.store.tells_time = true;
        world.levels = Some(upkeep::hurried(&dice, world.ttl, PENDING));
    }
    world.shrinks = seed >= BEFORE_FROM;
    if seed >= BEFORE_FROM && seed.is_multiple_of(2) {
        world.has_written_before()?;
    }
    world.run(entries).map(|world| world.summary)
}

impl World {
    pub(super) fn new(dice: Dice, count: usize, troubled: u64, trace: Trace) -> World {
        let skewed = dice.chance("plan", "skewed", 0, 1, 2);
        let clocks = |n: u64| {
            let ahead = if skewed { dice.range("clock", "ahead", n, 0, 90) * SECOND } else { 0 };
            (ahead, dice.range("clock", "mono", n, 0, 1 << 50))
        };
        let node = |n: usize| Node::new(n, START_NS, clocks(n as u64), dice.draw("plan", "sqlite", n as u64));
        World {
            nodes: (0..count).map(node).collect(),
            now: 0,
            queue: Queue::new(dice),
            store: SimStore::new(1_000, true),
            cell: Cell::new(dice.chance("store", "mute", 0, 1, 4)),
            restored: Restored::beside(count - 1),
            known: BTreeSet::new(),
            epoch: None,
            fences: Vec::new(),
            ttl: Duration::from_secs(*dice.pick("plan", "ttl", 0, &[3, 10])),
            per_mille: *dice.pick("plan", "faults", 0, &[0, 20, 100]),
            latency: *dice.pick("plan", "latency", 0, &[5, 50, 400]),
            numbers: 0,
            requests: 0,
            primary: None,
            writes_since_heal: None,
            shrinks: false,
            levels: None,
            summary: Summary::default(),
            trace,
            dice,
            troubled,
            script: None,
            survey: Survey::default(),
        }
    }

    /// Runs to the end, with these entries besides what follows from the plan.
    pub(super) fn run(mut self, entries: Vec<(u64, Entry)>) -> Result<World, Violation> {
        for host in 0..self.nodes.len() {
            let at = self.dice.wait("plan", "begin", host as u64, 0, 5_000_000).as_nanos() as u64;
            self.queue.push(at, Entry::Begin(host));
        }
        for (at, entry) in entries {
            self.queue.push(at, entry);
        }
        self.queue.push(self.troubled, Entry::Healed);
        self.queue.push(self.rests() + QUIET, Entry::End);
        for _ in 0..STEPS_MAX {
            let Some((at, entry)) = self.queue.pop() else { break };
            self.pass_to(at);
            if matches!(entry, Entry::End) {
                self.finish()?;
                return Ok(self);
            }
            self.happen(entry)?;
        }
        Err(Violation::new("spin", format!("more than {STEPS_MAX} steps")))
    }

    pub(super) fn pass_to(&mut self, at: u64) {
        self.now = self.now.max(at);
        self.store.now_ns = self.now;
        self.nodes.iter().for_each(|node| node.clock.set_ns(START_NS + self.now + node.ahead_ns));
    }

    pub(super) fn is_troubled(&self) -> bool {
        self.now < self.troubled
    }

    /// When applications stop to write.
    pub(super) fn rests(&self) -> u64 {
        self.troubled + WRITES_ON
    }

    pub(super) fn later(&mut self, wait_ns: u64, entry: Entry) {
        self.queue.push(self.now + wait_ns, entry);
    }

    pub(super) fn times(&self, host: usize) -> Now {
        let node = &self.nodes[host];
        Now {
            mono: Mono::from_duration(Duration::from_nanos(self.now + node.mono_ns)),
            wall: Wall(((START_NS + self.now + node.ahead_ns) / MS) as i64),
        }
    }

    pub(super) fn note(&self, host: usize, kind: Kind, text: std::fmt::Arguments<'_>) {
        self.trace.note(self.now, NAMES[host], kind, text);
    }

    /// A number for the next of something.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn draw_wait(&mut self, what: &str, least_us: u64, most_us: u64) -> u64 {
        let n = self.number();
        self.dice.wait("wait", what, n, least_us, most_us).as_nanos() as u64
    }

    /// Who stands still does nothing until it goes on; what was sent arrives.
    fn stands_until(&self, entry: &Entry) -> u64 {
        match entry {
            Entry::Tick { host, .. } | Entry::Source { host, .. } | Entry::Deliver { host, .. } => {
                self.nodes[*host].paused_until
            }
            Entry::Told { host, .. } | Entry::Search { host, .. } | Entry::Changed(host, _) => {
                self.nodes[*host].paused_until
            }
            Entry::App(host, _) => self.nodes[*host].app_paused_until,
            _ => 0,
        }
    }

    fn happen(&mut self, entry: Entry) -> Result<(), Violation> {
        let stands_until = self.stands_until(&entry);
        if stands_until > self.now {
            self.queue.push(stands_until, entry);
            return Ok(());
        }
        match entry {
            Entry::Begin(host) => self.begin(host),
            Entry::Blow(n) => self.blow(n),
            Entry::Lock(n) => {
                self.lock_copy(n);
                Ok(())
            }
            Entry::Way(way) => self.way(way),
            Entry::App(host, run) if self.nodes[host].run == run => self.app_step(host),
            Entry::Changed(host, run) if self.nodes[host].run == run => {
                let replicator = self.nodes[host].replicator.as_ref();
                let wants = replicator.is_some_and(|it| it.machine.wants_events());
                if wants { self.handle(host, Who::Replicator, Event::SourceChanged) } else { Ok(()) }
            }
            Entry::Tick { host, who, no, wake } => {
                let node = &self.nodes[host];
                let wakes = match who {
                    Who::Lease => node.lease.as_ref().map(|it| (it.no, it.wake)),
                    Who::Follower => node.follower.as_ref().map(|it| (it.no, it.wake)),
                    Who::Replicator => node.replicator.as_ref().map(|it| (it.no, it.wake)),
                };
                if wakes == Some((no, wake)) { self.handle(host, who, Event::Tick) } else { Ok(()) }
            }
            Entry::Source { host, no, op, request }
                if self.nodes[host].number_of(Who::Replicator) == Some(no) =>
            {
                let source = self.nodes[host].source.as_mut().expect("a replicator has one");
                let outcome = Outcome::Source(source.perform(&request));
                self.handle(host, Who::Replicator, Event::Completed { op, outcome })
            }
            Entry::Probed { host, no } if self.nodes[host].number_of(Who::Replicator) == Some(no) => {
                let (create_if_absent, swap) = (Finding::Holds, Finding::Holds);
                let findings = Findings { create_if_absent, swap, ..Findings::default() };
                self.handle(host, Who::Replicator, Event::StoreProbed(findings))
            }
            Entry::Arrive { host, who, no, op, ask } => self.arrive(host, (who, no), op, &ask),
            Entry::Deliver { host, who, no, op, outcome } if self.nodes[host].number_of(who) == Some(no) => {
                self.handle(host, who, Event::Completed { op, outcome: *outcome })
            }
            Entry::Search { host, run } if self.nodes[host].run == run => {
                self.search(host);
                Ok(())
            }
            Entry::Told { host, run, event } if self.nodes[host].run == run => {
                if let succession::Event::Tried(Ok(())) = event {
                    self.handle(host, Who::Lease, Event::Lease(LeaseEvent::Tried(true)))?;
                }
                self.succeed(host, event)
            }
            Entry::Healed => {
                for node in &mut self.nodes {
                    (node.paused_until, node.app_paused_until) = (0, 0);
                    (node.cut_until, node.copy_locked_until) = (0, 0);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A process begins.
    fn begin(&mut self, host: usize) -> Result<(), Violation> {
        if self.nodes[host].lease.is_some() {
            return Ok(());
        }
        let run = self.number();
        let no = self.number();
        let ids = OpIds::new(ReplicaId(7), self.dice.draw("run", "lease", no));
        let searches = self.dice.chance("plan", "searches", 0, 1, 2);
        let node = &mut self.nodes[host];
        let config = LeaseConfig {
            ttl: self.ttl,
            begins: host == 0,
            holder: node.holder,
            term: node.term,
            ..LeaseConfig::default()
        };
        // Whoever is to begin the history has it, and others may have to find it.
        let knows = host == 0 || !searches || node.disk().exists(PATH);
        let places = if knows { vec![PLACE] } else { vec![] };
        (node.run, node.found, node.claimed_behind) = (run, knows, None);
        node.succession = Some(Succession::new(places, searches, node.term.is_some()));
        node.lease = Some(Running { machine: Lease::new(config, ids), no, wake: 0 });
        self.note(host, Kind::Start, format_args!("process {run}"));
        let tried = succession::Event::Tried(Ok(()));
        let wait = self.draw_wait("tried", 100_000, 2_000_000);
        self.later(wait, Entry::Told { host, run, event: tried });
        let entropy = self.dice.draw("entropy", "", run);
        self.handle(host, Who::Lease, Event::Start { entropy })
    }

    /// The process ends, and another begins after a while.
    pub(super) fn ends(&mut self, host: usize) {
        self.ends_for(host, None);
    }

    /// The same; for how long is drawn where it is not said.
    pub(super) fn ends_for(&mut self, host: usize, down: Option<u64>) {
        self.note(host, Kind::Crash, format_args!("the process ends"));
        self.nodes[host].end();
        self.nodes[host].run = self.number();
        let wait = down.unwrap_or_else(|| self.draw_wait("restart", 100_000, 15_000_000));
        self.later(wait, Entry::Begin(host));
    }

    /// The lease is lost, or the process cannot go on.
    pub(super) fn depose(&mut self, host: usize, why: &str) {
        self.note(host, Kind::Note, format_args!("deposed: {why}"));
        self.summary.deposed += u64::from(self.nodes[host].active);
        self.ends(host);
    }

    /// Gives a machine an event and carries out what it asks for.
    pub(super) fn handle(&mut self, host: usize, who: Who, event: Event) -> Result<(), Violation> {
        let now = self.times(host);
        let Some(no) = self.nodes[host].number_of(who) else { return Ok(()) };
        self.note(host, Kind::Event, format_args!("{who:?} {event:?}"));
        let node = &mut self.nodes[host];
        let mut actions = Actions::new();
        match who {
            Who::Lease => step(&mut node.lease, now, event, &mut actions),
            Who::Follower => step(&mut node.follower, now, event, &mut actions),
            Who::Replicator => step(&mut node.replicator, now, event, &mut actions),
        }
        for action in actions.drain() {
            self.note(host, Kind::Action, format_args!("{who:?} {action:?}"));
            match action {
                Action::Submit { op, request } => self.submit(host, (who, no), op, request)?,
                Action::Cancel { .. } => {}
                Action::Notify(notice) => self.says(host, who, &notice.fact)?,
                Action::Stopped(exit) => return self.stopped(host, who, exit),
            }
            self.acted(host)?;
            if self.nodes[host].number_of(who) != Some(no) {
                return Ok(());
            }
        }
        self.arm(host, who, now);
        match who {
            Who::Lease => self.lease_moved(host),
            Who::Replicator => self.replicator_moved(host),
            Who::Follower => self.follower_moved(host),
        }
    }

    fn arm(&mut self, host: usize, who: Who, now: Now) {
        let node = &mut self.nodes[host];
        let (due, no, wake) = match who {
            Who::Lease => wake(&mut node.lease),
            Who::Follower => wake(&mut node.follower),
            Who::Replicator => wake(&mut node.replicator),
        };
        let wait = due.map(|at| at.since(now.mono) + Duration::from_micros(200));
        if let Some(wait) = wait.filter(|wait| *wait < Duration::from_secs(1 << 20)) {
            self.later(wait.as_nanos() as u64, Entry::Tick { host, who, no, wake });
        }
    }

    fn submit(
        &mut self,
        host: usize,
        (who, no): (Who, u64),
        op: OpId,
        request: Request,
    ) -> Result<(), Violation> {
        let wait = self.draw_wait("takes", 1, 3_000);
        let node = &mut self.nodes[host];
        let outcome = match request {
            Request::Store(request) => return self.send(host, (who, no), op, Ask::Store(request)),
            Request::Cell(request) => return self.send(host, (who, no), op, Ask::Cell(request)),
            Request::Source(request) => {
                self.later(wait, Entry::Source { host, no, op, request });
                return Ok(());
            }
            Request::Compute(job) => Outcome::Compute(job.run()),
            Request::State(request) => Outcome::State(Ok(node.state.perform(&request))),
            Request::Scratch(request) => {
                Outcome::Scratch(node.scratch.perform(&request).map_err(|error| error.to_string()))
            }
            Request::Grant(_) => Outcome::Granted,
            Request::Prove => {
                node.proofs += 1;
                node.proving = Some((node.proofs, no, op));
                let number = node.proofs;
                let event = Event::Lease(LeaseEvent::Prove(number));
                return self.handle(host, Who::Lease, event);
            }
            Request::Copy(request) => {
                self.check_copy(host, &request)?;
                let locked = self.nodes[host].copy_locked_until > self.now;
                let copy = self.nodes[host].copy.as_mut().expect("a follower has one");
                match request {
                    CopyRequest::Begin if locked => Outcome::Copy(Err("database is locked".into())),
                    request => Outcome::Copy(copy.perform(&request)),
                }
            }
            Request::Output(request) => {
                self.check_output(host, &request)?;
                Outcome::Output(super::output::perform(&self.nodes[host].disk(), &request))
            }
        };
        self.later(wait, Entry::Deliver { host, who, no, op, outcome: Box::new(outcome) });
        Ok(())
    }

    fn send(&mut self, host: usize, (who, no): (Who, u64), op: OpId, ask: Ask) -> Result<(), Violation> {
        self.requests += 1;
        let late =
            self.is_troubled() && self.dice.chance("store", "late", self.requests, self.per_mille, 1_000);
        let most = if late { 30_000_000 } else { 1_000 * self.latency };
        let wait = self.draw_wait("store", 300, most) + self.late();
        self.later(wait, Entry::Arrive { host, who, no, op, ask: Box::new(ask) });
        Ok(())
    }

    /// A request reaches the store, whatever has become of its sender.
    fn arrive(&mut self, host: usize, (who, no): (Who, u64), op: OpId, ask: &Ask) -> Result<(), Violation> {
        self.requests += 1;
        let n = self.requests;
        let cut = self.nodes[host].cut_until > self.now;
        if cut && self.dice.chance("store", "cut before", n, 1, 2) {
            return Ok(());
        }
        let drawn = self.is_troubled() && self.dice.chance("store", "fault", n, self.per_mille, 1_000);
        let scripted = self.scripted_fate();
        let fate = match drawn {
            _ if scripted != Fate::Works => scripted,
            true => *self.dice.pick(
                "store",
                "fate",
                n,
                &[Fate::Refused, Fate::Lost, Fate::Unclear, Fate::Swallowed],
            ),
            false => Fate::Works,
        };
        self.summary.faults += u64::from(fate != Fate::Works);
        let outcome = match ask {
            Ask::Store(request) => Outcome::Store(self.perform(op, request, fate)?),
            Ask::Cell(request) if fate.has_effect() => {
                let result = self.cell.cell(request)?;
                Outcome::Cell(match fate {
                    Fate::Works => result,
                    Fate::Taken => self.cell.cell(request)?,
                    _ => Err(lost()),
                })
            }
            Ask::Cell(_) => Outcome::Cell(Err(lost())),
        };
        self.note(host, Kind::Request, format_args!("{who:?} {ask:?}: {fate:?}, {outcome:?}"));
        self.restore_all()?;
        self.store.check_kept()?;
        if cut || !fate.is_answered() {
            return Ok(());
        }
        let wait = self.draw_wait("answer", 200, 2_000);
        self.later(wait, Entry::Deliver { host, who, no, op, outcome: Box::new(outcome) });
        Ok(())
    }

    /// A host has become the primary.
    fn stopped(&mut self, host: usize, who: Who, exit: Exit) -> Result<(), Violation> {
        self.note(host, Kind::Stop, format_args!("{who:?} {exit:?}"));
        let node = &mut self.nodes[host];
        match who {
            Who::Lease if exit == Exit::Done => {
                self.ends(host);
                Ok(())
            }
            Who::Lease => {
                self.depose(host, exit.error().unwrap_or_default());
                Ok(())
            }
            Who::Follower => {
                let follower = node.follower.take().expect("it has just ended");
                node.copy = None;
                self.follower_ended(host, follower.machine, exit)
            }
            Who::Replicator => {
                (node.replicator, node.source) = (None, None);
                self.replicator_ended(host, exit)
            }
        }
    }

    pub(super) fn role(&self, host: usize) -> Option<Role> {
        self.nodes[host].lease.as_ref().map(|it| it.machine.status().role)
    }
}

fn lost() -> driftless_core::machine::StoreError {
    use driftless_core::machine::{StoreError, StoreErrorKind};
    StoreError::new(StoreErrorKind::Ambiguous, "the connection was reset")
}

fn step<M: Machine>(running: &mut Option<Running<M>>, now: Now, event: Event, out: &mut Actions) {
    if let Some(running) = running {
        running.machine.handle(now, event, out);
    }
}

/// When a machine wants to be told the time, and by which number.
fn wake<M: Machine>(running: &mut Option<Running<M>>) -> (Option<Mono>, u64, u64) {
    let Some(running) = running else { return (None, 0, 0) };
    running.wake += 1;
    (running.machine.next_deadline().map(|(at, _)| at), running.no, running.wake)
}
