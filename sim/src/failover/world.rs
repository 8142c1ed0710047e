//! The loop.

mod writer;

use std::collections::BTreeSet;
use std::time::Duration;

use driftless_core::ids::{Mono, Now, Wall};
use driftless_core::lease::{LeaseConfig, LeaseEvent, Role};
use driftless_core::machine::{
    Action, Actions, CellReply, CellRequest, Event, Exit, Machine as _, OpId, Outcome, Request, StoreError,
    StoreErrorKind,
};
use driftless_core::mutant::{self, Mutant};

use super::Summary;
use super::host::{Host, Writer};
use super::store::{Segment, Store, Tenure};
use crate::ring0::Violation;
use crate::ring0::dice::Dice;
use crate::ring0::queue::Queue;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Until when faults strike.
const TROUBLED: u64 = 180 * SECOND;
/// Until when all goes on without any.
const END: u64 = TROUBLED + 120 * SECOND;
/// After the faults, somebody writes within the time to live and this.
const BEYOND: u64 = 20 * SECOND;
const STEPS_MAX: u64 = 400_000;

/// What is asked of the store.
#[derive(Clone, Debug)]
enum Ask {
    Cell(OpId, CellRequest),
    List,
    Put(u64, Segment),
    /// What stands under this name?
    Look(u64),
}

#[derive(Clone, Debug)]
enum Answer {
    Cell(OpId, Result<CellReply, StoreError>),
    Listed(Vec<(u64, Segment)>),
    Put(u64, Segment, Result<(), StoreErrorKind>),
    Found(u64, Option<Segment>),
    /// Nothing came back in time.
    Lost(Ask),
}

#[derive(Clone, Debug)]
enum Entry {
    Tick(usize, u64),
    Commit(usize, u64),
    /// A request arrives.
    Effect {
        host: usize,
        run: u64,
        n: u64,
        ask: Ask,
    },
    Deliver {
        host: usize,
        run: u64,
        answer: Answer,
    },
    Begin(usize),
    Blow(u64),
    /// What is covered is deleted.
    Retain,
    Healed,
    End,
}

struct World {
    dice: Dice,
    now: u64,
    queue: Queue<Entry>,
    hosts: Vec<Host>,
    store: Store,
    tenures: Vec<Tenure>,
    /// Claims after which another was made under the same name.
    superseded: BTreeSet<u64>,
    ttl: Duration,
    requests: u64,
    runs: u64,
    transactions: u64,
    acknowledged: BTreeSet<u64>,
    summary: Summary,
    /// When somebody's application last began to run, or went on.
    writes_since_heal: Option<u64>,
    /// Whether the writer has other databases, of which there is always a put to be proven.
    crowded: bool,
}

/// Runs one seed.
///
/// # Errors
/// What an oracle saw.
pub fn run(seed: u64) -> Result<Summary, Violation> {
    let dice = Dice::new(seed);
    let count = dice.range("plan", "hosts", 0, 2, 3) as usize;
    let ttl = Duration::from_secs(*dice.pick("plan", "ttl", 0, &[3, 10]));
    let clock = |n: usize| dice.range("clock", "", n as u64, 0, 1 << 50);
    let world = World {
        queue: Queue::new(Dice::new(seed)),
        now: 0,
        hosts: (0..count).map(|n| Host::new(n, clock(n))).collect(),
        store: Store::new(dice.chance("store", "mute", 0, 1, 4)),
        tenures: Vec::new(),
        superseded: BTreeSet::new(),
        ttl,
        requests: 0,
        runs: 0,
        transactions: 0,
        acknowledged: BTreeSet::new(),
        summary: Summary::default(),
        writes_since_heal: None,
        crowded: dice.chance("plan", "crowd", 0, 1, 3),
        dice,
    };
    world.run()
}

impl World {
    fn run(mut self) -> Result<Summary, Violation> {
        for host in 0..self.hosts.len() {
            let at = self.dice.wait("plan", "begin", host as u64, 0, 5_000_000).as_nanos() as u64;
            self.queue.push(at, Entry::Begin(host));
        }
        for n in 0..self.dice.range("plan", "blows", 0, 0, 9) {
            self.queue.push(self.dice.range("blow", "at", n, SECOND, TROUBLED), Entry::Blow(n));
        }
        if self.dice.chance("plan", "retention", 0, 1, 2) {
            self.queue.push(20 * SECOND, Entry::Retain);
        }
        self.queue.push(TROUBLED, Entry::Healed);
        self.queue.push(END, Entry::End);
        let mut steps = 0;
        while let Some((at, entry)) = self.queue.pop() {
            steps += 1;
            if steps > STEPS_MAX {
                return Err(Violation::new("spin", format!("more than {STEPS_MAX} steps")));
            }
            self.now = at;
            if matches!(entry, Entry::End) {
                return self.finish();
            }
            self.happen(entry)?;
        }
        Err(Violation::new("liveness", "nothing is left to happen"))
    }

    fn is_troubled(&self) -> bool {
        self.now < TROUBLED
    }

    fn note(&mut self, word: u64) {
        self.summary.hash =
            (self.summary.hash ^ word ^ self.now).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(7);
    }

    fn happen(&mut self, entry: Entry) -> Result<(), Violation> {
        // A host that stands still does nothing until it goes on; what it has sent arrives.
        let of = match &entry {
            Entry::Tick(host, _) | Entry::Commit(host, _) | Entry::Deliver { host, .. } => Some(*host),
            _ => None,
        };
        if let Some(host) = of
            && self.hosts[host].paused_until > self.now
        {
            self.queue.push(self.hosts[host].paused_until, entry);
            return Ok(());
        }
        match entry {
            Entry::Tick(host, run) if self.hosts[host].run == run => {
                // One that was superseded says nothing; after a pause all that is due comes at once.
                if self.hosts[host].tick_at.take_if(|at| *at <= self.now).is_none() {
                    return Ok(());
                }
                self.tell(host, Event::Tick)
            }
            Entry::Commit(host, run) if self.hosts[host].run == run => self.commit(host),
            Entry::Effect { host, run, n, ask } => self.arrive(host, run, n, &ask),
            Entry::Deliver { host, run, answer } if self.hosts[host].run == run => {
                self.answered(host, answer)
            }
            Entry::Begin(host) => self.begin(host),
            Entry::Blow(n) => self.blow(n),
            Entry::Retain => {
                self.store.retain();
                self.queue.push(self.now + 5 * SECOND, Entry::Retain);
                Ok(())
            }
            Entry::Healed => {
                for host in &mut self.hosts {
                    (host.paused_until, host.cut_until) = (host.paused_until.min(self.now), 0);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, host: usize) -> Result<(), Violation> {
        if self.hosts[host].lease.is_some() {
            return Ok(());
        }
        self.runs += 1;
        let run = self.runs;
        let config = LeaseConfig { ttl: self.ttl, begins: host == 0, ..LeaseConfig::default() };
        self.hosts[host].begin(run, config);
        let entropy = self.dice.draw("entropy", "", run);
        self.tell(host, Event::Start { entropy })?;
        self.tell(host, Event::Lease(LeaseEvent::Tried(true)))
    }

    /// The process of a host ends, and another begins after a while.
    fn ends(&mut self, host: usize, least: u64) {
        self.hosts[host].end();
        // A process that is dead takes no answers.
        self.runs += 1;
        self.hosts[host].run = self.runs;
        let wait = self.dice.wait("restart", "", self.runs, 100_000, 20_000_000).as_nanos() as u64;
        self.queue.push(self.now + least + wait, Entry::Begin(host));
    }

    fn blow(&mut self, n: u64) -> Result<(), Violation> {
        let host = (self.dice.draw("blow", "host", n) % self.hosts.len() as u64) as usize;
        // Most strike whoever writes.
        let writer = self.hosts.iter().position(|it| it.runs_application);
        let host = writer.filter(|_| self.dice.chance("blow", "writer", n, 2, 3)).unwrap_or(host);
        let long = self.dice.wait("blow", "long", n, 100_000, 40_000_000).as_nanos() as u64;
        self.summary.faults += 1;
        match self.dice.draw("blow", "kind", n) % 7 {
            0 | 1 => self.ends(host, 0),
            2 | 3 => self.hosts[host].paused_until = (self.now + long).min(TROUBLED),
            4 => self.hosts[host].cut_until = self.now + long,
            5 if self.hosts[host].lease.is_some() => {
                (self.hosts[host].runs_application, self.hosts[host].leaves) = (false, true);
                self.hosts[host].writer = Writer::Idle;
                let deadline = self.mono(host).after(Duration::from_secs(5));
                return self.tell(host, Event::Shutdown { deadline });
            }
            _ => {
                // A machine becomes a copy of another, disk and all.
                let other = (host + 1) % self.hosts.len();
                let from = &self.hosts[host];
                let (holder, term) = (from.holder, from.term);
                let (database, replicated, segments) =
                    (from.database.clone(), from.replicated, from.segments);
                self.ends(other, 0);
                let to = &mut self.hosts[other];
                (to.holder, to.term) = (holder, term);
                (to.database, to.replicated, to.segments) = (database, replicated, segments);
            }
        }
        Ok(())
    }

    fn mono(&self, host: usize) -> Mono {
        Mono::from_duration(Duration::from_nanos(self.now + self.hosts[host].clock_ns))
    }

    /// Tells the lease of a host something, and carries out what it says.
    fn tell(&mut self, host: usize, event: Event) -> Result<(), Violation> {
        let now =
            Now { mono: self.mono(host), wall: Wall(self.dice.draw("wall", "", self.requests) as i64 >> 20) };
        let mut out = Actions::new();
        let Some(lease) = self.hosts[host].lease.as_mut() else { return Ok(()) };
        lease.handle(now, event, &mut out);
        let status = lease.status();
        let next = lease.next_deadline();
        let run = self.hosts[host].run;
        let mut ended = None;
        for action in out.drain() {
            match action {
                Action::Submit { op, request: Request::Cell(request) } => {
                    self.hosts[host].asked = Some(op);
                    self.ask(host, Ask::Cell(op, request));
                }
                Action::Stopped(exit) => ended = Some(exit),
                Action::Cancel { .. } | Action::Notify(_) => {}
                other => return Err(Violation::new("contract", format!("a lease asks for {other:?}"))),
            }
        }
        self.note(status.requests << 8 | status.role as u64);
        if let Some((at, _)) = next {
            let at =
                (at.as_duration().as_nanos() as u64).saturating_sub(self.hosts[host].clock_ns).max(self.now);
            let known = self.hosts[host].tick_at.replace(at);
            if known != Some(at) {
                self.queue.push(at, Entry::Tick(host, run));
            }
        }
        if let (Some(until), Some(term), Some(body)) = (status.until, status.term, &status.body)
            && !self.hosts[host].leaves
        {
            let until_ns = (until.as_duration().as_nanos() as u64).saturating_sub(self.hosts[host].clock_ns);
            self.holds(Tenure { holder: body.holder, term: term.0, until_ns, released: false })?;
        }
        if let Some(exit) = ended {
            if let Role::Released = status.role {
                let term = status.body.map(|body| body.term.0);
                self.tenures.iter_mut().filter(|it| Some(it.term) == term).for_each(|it| it.released = true);
            }
            if let Exit::Fenced { error, .. } = &exit {
                self.summary.deposed += 1;
                self.check_deposed(error)?;
            }
            self.ends(host, 0);
            return Ok(());
        }
        self.write_on(host)
    }

    /// Whoever holds the lease is the only one, by everyone's own account.
    fn holds(&mut self, tenure: Tenure) -> Result<(), Violation> {
        if self.superseded.contains(&tenure.term) {
            return Ok(());
        }
        if let Some(known) = self.tenures.iter_mut().find(|it| it.term == tenure.term) {
            *known = tenure;
        } else {
            // A copy of a machine takes what is its original's at once: that hears of it at its next look, and
            // until then nothing that it puts is proven.
            let earlier = self.tenures.iter().filter(|it| it.holder == tenure.holder).map(|it| it.term);
            self.superseded.extend(earlier);
            self.tenures.push(tenure);
        }
        let now = self.now;
        let overlaps = |it: &&Tenure| {
            !self.superseded.contains(&it.term)
                && it.term != tenure.term
                && it.holder != tenure.holder
                && !it.released
                && it.until_ns > now
        };
        // One that is dead, or deposed, holds nothing; one that gives it up has stopped writing, and may not
        // have heard that it is given up.
        let living: BTreeSet<u64> = self
            .hosts
            .iter()
            .filter(|host| host.holds() && !host.leaves)
            .filter_map(|host| host.lease.as_ref().and_then(|lease| lease.status().term).map(|term| term.0))
            .collect();
        match self.tenures.iter().filter(|it| living.contains(&it.term)).find(overlaps) {
            Some(other) => {
                let text = format!("{tenure:?} begins while {other:?} lasts, at {now}");
                Err(Violation::new("tenure", text))
            }
            None => Ok(()),
        }
    }

    fn ask(&mut self, host: usize, ask: Ask) {
        self.requests += 1;
        let n = self.requests;
        let run = self.hosts[host].run;
        let latency = self.dice.wait("store", "latency", n, 1_000, 400_000).as_nanos() as u64;
        self.queue.push(self.now + latency, Entry::Effect { host, run, n, ask });
    }

    /// A request is at the store, or is lost on the way.
    fn arrive(&mut self, host: usize, run: u64, n: u64, ask: &Ask) -> Result<(), Violation> {
        let troubled = self.is_troubled();
        if self.hosts[host].cut_until > self.now && troubled {
            self.lose(host, run, ask);
            return Ok(());
        }
        let fault = if troubled { self.dice.draw("store", "fault", n) % 30 } else { 99 };
        self.summary.faults += u64::from(fault < 4);
        // Late: what was sent arrives when nobody waits for it any more.
        if fault == 0 && !self.dice.chance("store", "again", n, 1, 2) {
            let later = self.dice.wait("store", "late", n, 500_000, 30_000_000).as_nanos() as u64;
            let n = n | 1 << 40;
            self.queue
                .push((self.now + later).min(TROUBLED), Entry::Effect { host, run, n, ask: ask.clone() });
            self.lose(host, run, ask);
            return Ok(());
        }
        let refused = fault == 1;
        let error = |kind| StoreError::new(kind, "simulated");
        let answer = match ask {
            Ask::Cell(op, _) if refused => Answer::Cell(*op, Err(error(StoreErrorKind::Retry))),
            Ask::Put(name, it) if refused => Answer::Put(*name, it.clone(), Err(StoreErrorKind::Retry)),
            Ask::Cell(op, request) => Answer::Cell(*op, self.store.cell(request)?),
            Ask::List => {
                Answer::Listed(self.store.chain.iter().map(|(name, it)| (*name, it.clone())).collect())
            }
            Ask::Put(name, it) => {
                let put = self.store.put(*name, it)?.map_err(|error| error.kind);
                Answer::Put(*name, it.clone(), put)
            }
            Ask::Look(name) => Answer::Found(*name, self.store.at(*name).cloned()),
        };
        let answer = match (fault, answer) {
            (2, Answer::Cell(op, _)) => Answer::Cell(op, Err(error(StoreErrorKind::Ambiguous))),
            (2 | 3, Answer::Put(name, it, _)) => Answer::Put(name, it, Err(StoreErrorKind::Ambiguous)),
            (3, Answer::Cell(..)) => return Ok(()),
            (_, answer) => answer,
        };
        let latency = self.dice.wait("store", "back", n, 1_000, 300_000).as_nanos() as u64;
        self.queue.push(self.now + latency, Entry::Deliver { host, run, answer });
        Ok(())
    }

    /// No answer comes. The lease knows by itself how long to wait for one.
    fn lose(&mut self, host: usize, run: u64, ask: &Ask) {
        if !matches!(ask, Ask::Cell(..)) {
            let answer = Answer::Lost(ask.clone());
            self.queue.push(self.now + 5 * SECOND, Entry::Deliver { host, run, answer });
        }
    }

    fn answered(&mut self, host: usize, answer: Answer) -> Result<(), Violation> {
        match answer {
            Answer::Cell(op, result) => {
                if self.hosts[host].asked != Some(op) {
                    return Ok(());
                }
                self.tell(host, Event::Completed { op, outcome: Outcome::Cell(result) })?;
                return self.want_proofs(host);
            }
            Answer::Listed(chain) => self.listed(host, &chain),
            // An answer that is not awaited any more says nothing.
            Answer::Put(name, it, result) if self.puts(host, name, Some(&it)) => self.put_ended(host, result),
            Answer::Found(name, found) if self.puts(host, name, None) => self.found(host, found),
            Answer::Lost(Ask::Put(name, it)) if self.puts(host, name, Some(&it)) => {
                self.put_ended(host, Err(StoreErrorKind::Ambiguous));
            }
            Answer::Lost(Ask::Look(name)) if self.puts(host, name, None) => self.ask(host, Ask::Look(name)),
            Answer::Lost(Ask::List) => self.ask(host, Ask::List),
            Answer::Put(..) | Answer::Found(..) | Answer::Lost(_) => {}
        }
        self.write_on(host)
    }

    /// Another database wants a look to begin, and one more while that is under way.
    fn want_proofs(&mut self, host: usize) -> Result<(), Violation> {
        for _ in 0..2 {
            if self.crowded && self.hosts[host].runs_application {
                self.hosts[host].proofs += 1;
                let proof = self.hosts[host].proofs;
                self.tell(host, Event::Lease(LeaseEvent::Prove(proof)))?;
            }
        }
        Ok(())
    }

    /// A holder whom nothing befalls keeps its lease.
    fn check_deposed(&self, error: &str) -> Result<(), Violation> {
        let calm = self.now > TROUBLED + 2 * self.ttl.as_nanos() as u64;
        match calm && error.contains("not renewed") {
            true => Err(Violation::new("kept", error.to_owned())),
            false => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Summary, Violation> {
        let history = self.store.history();
        let there: BTreeSet<u64> = history.iter().copied().collect();
        if there.len() != history.len() {
            return Err(Violation::new("fork", "a transaction is in the history twice"));
        }
        if let Some(lost) = self.acknowledged.iter().find(|it| !there.contains(it)) {
            return Err(Violation::new(
                "acknowledged",
                format!("{lost} was acknowledged and is in no history"),
            ));
        }
        let bound = TROUBLED + 2 * self.ttl.as_nanos() as u64 + BEYOND;
        match self.writes_since_heal {
            Some(at) if at <= bound => {}
            at => {
                return Err(Violation::new(
                    "liveness",
                    format!("nobody wrote until {at:?}, {bound} is the bound"),
                ));
            }
        }
        if !self.hosts.iter().any(|host| host.runs_application && host.role() == Some(Role::Primary)) {
            return Err(Violation::new("liveness", "in the end nobody writes"));
        }
        let lost = self.transactions - there.len() as u64;
        let (claims, takeovers) = (self.store.claims, self.store.takeovers);
        self.summary = Summary { claims, takeovers, lost_tails: lost, ..self.summary };
        self.summary.acknowledged = self.acknowledged.len() as u64;
        Ok(self.summary)
    }
}
