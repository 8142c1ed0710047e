//! The contender: looks, claims, renews, proves, gives up.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::body::{Body, State};
use super::{Active, CELL, LeaseConfig, LeaseEvent, LeaseStatus, Role, Term};
use crate::ids::{Mono, Now};
use crate::machine::{
    Action, Actions, CellCondition, CellReply, CellRequest, Chunk, Event, Exit, Fact, Machine, OpId, OpIds,
    Outcome, Reason, Request, Severity, StoreError, StoreErrorKind,
};
use crate::mutant::{self, Mutant};

/// Parts of the time to live: from one renewal to the next.
const RENEWALS: u32 = 3;
/// How long a request may take before its answer counts as lost.
const DEADLINES: u32 = 3;
/// From one try to the next while something is overdue or fails.
const HURRIES: u32 = 20;
/// By how much a look comes earlier than the one before would have it: so those who wait learn when the
/// holder renews, and notice soon when it does not.
const CREEPS: u32 = 256;

/// Writes of unknown fate that are remembered: one of them is forgotten at the worst, and then taken for
/// another host's.
const DOUBTS_MAX: usize = 64;

/// A request under way.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Asked {
    op: OpId,
    since: Mono,
    /// The proof that was asked for last before it began.
    proof: u64,
    /// What it writes; a read otherwise.
    body: Option<Body>,
}

/// The object as it was last seen.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    body: Body,
    version: Option<String>,
    /// When it was first seen so.
    since: Mono,
}

/// A write that is known to have been done.
struct Write {
    body: Body,
    sent: Mono,
    proof: u64,
}

/// A write whose fate is not known.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Doubt {
    nonce: u64,
    sent: Mono,
    proof: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    NotStarted,
    /// Another may hold it.
    Waiting,
    /// This process holds it until then.
    Holding {
        until: Mono,
    },
    /// It was given up.
    Released,
    /// It was lost.
    Deposed,
    Stopped,
}

/// Contends for one lease; a machine over one cell. It ends with [`Exit::Done`] when it is told to end, after
/// the lease was given up if this process held it, and with [`Exit::Fenced`] when it has lost it.
#[derive(Clone, PartialEq, Debug)]
pub struct Lease {
    config: LeaseConfig,
    ops: OpIds,
    entropy: u64,
    phase: Phase,
    asked: Option<Asked>,
    seen: Option<Seen>,
    /// What this process has tried to write since the object was last read, newest last.
    doubts: Vec<Doubt>,
    /// When to look, to renew or to try again.
    next_at: Option<Mono>,
    /// Whether the object must be read before it can be written again.
    unread: bool,
    /// What the next write says.
    state: State,
    progress: u64,
    active: Active,
    /// The proof that was asked for last, and the last that was shown.
    wanted: u64,
    proven: u64,
    continues: bool,
    leaving: Option<Mono>,
    /// The object was read once, or was found to be absent.
    looked: bool,
    /// Whether it would take a lease that is free.
    contends: bool,
    /// Whether the store was found to keep what a lease needs, once it was tried.
    tried: Option<bool>,
    lost: Option<String>,
    last_error: Option<String>,
    requests: u64,
}

impl Lease {
    /// A contender that has not begun.
    ///
    /// # Panics
    /// If the time to live is zero.
    pub fn new(config: LeaseConfig, ops: OpIds) -> Lease {
        assert!(!config.ttl.is_zero(), "a lease lives for some time");
        Lease {
            config,
            ops,
            entropy: 0,
            phase: Phase::NotStarted,
            asked: None,
            seen: None,
            doubts: Vec::new(),
            next_at: None,
            unread: true,
            state: State::Claiming,
            progress: 0,
            active: Active::default(),
            wanted: 0,
            proven: 0,
            continues: false,
            leaving: None,
            looked: false,
            contends: true,
            tried: None,
            lost: None,
            last_error: None,
            requests: 0,
        }
    }

    fn draw(&mut self) -> u64 {
        self.entropy = self.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.entropy;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn part(&self, of: u32) -> Duration {
        self.config.ttl / of
    }

    fn send(&mut self, now: Now, body: Option<Body>, out: &mut Actions) {
        let cell = CELL.to_string();
        let request = match &body {
            None => CellRequest::Read { cell },
            Some(body) => {
                let version = self.seen.as_ref().and_then(|seen| seen.version.clone());
                let condition = version.map_or(CellCondition::Absent, CellCondition::Version);
                CellRequest::Write { cell, bytes: Chunk::from(body.encode()), condition }
            }
        };
        let op = self.ops.submit(Request::Cell(request), out);
        self.requests += 1;
        self.asked = Some(Asked { op, since: now.mono, proof: self.wanted, body });
    }

    /// Asks for what comes next, if it is time.
    fn pump(&mut self, now: Now, out: &mut Actions) {
        if self.asked.is_some() {
            return;
        }
        match self.phase {
            Phase::Waiting if self.leaving.is_some() => self.stop(Exit::Done, out),
            Phase::Waiting if !self.is_due(now) => {}
            Phase::Waiting if self.unread || !self.may_claim(now) => self.send(now, None, out),
            Phase::Waiting => self.claim(now, out),
            // What fails is tried again in a while.
            Phase::Holding { .. } if self.last_error.is_some() && !self.is_due(now) => {}
            Phase::Holding { .. } if self.unread => self.send(now, None, out),
            // It proves as much as a look, of which one after the other may be wanted for ever.
            Phase::Holding { .. } if self.is_due(now) && !self.looks_first() => self.renew(now, out),
            Phase::Holding { .. } if self.wanted > self.proven => self.send(now, None, out),
            _ => {}
        }
    }

    fn looks_first(&self) -> bool {
        self.wanted > self.proven && mutant::on(Mutant::LooksBeforeRenewal)
    }

    fn is_due(&self, now: Now) -> bool {
        self.next_at.is_none_or(|at| at <= now.mono)
    }

    /// Whether what was seen allows to become the holder.
    fn may_claim(&self, now: Now) -> bool {
        let Some(Seen { body, since, .. }) = &self.seen else { return self.begins() };
        let is_free = || {
            let by_wall = body.since.0.saturating_add(body.ttl.as_millis() as i64) <= now.wall.0;
            let is_over = self.runs_out(body, *since) <= now.mono;
            body.state == State::Released || is_over || (by_wall && mutant::on(Mutant::WaiterByWall))
        };
        self.is_own(body) || (self.contends && self.tried == Some(true) && is_free())
    }

    /// Whether a lease that nobody has ever held may be taken.
    fn begins(&self) -> bool {
        self.config.begins && self.tried == Some(true)
    }

    /// Whether it is of the claim of the process before this one, on this host.
    fn is_own(&self, body: &Body) -> bool {
        body.holder == self.config.holder && self.config.term == Some(body.term)
    }

    /// When the holder's time is over, for whoever sees the object as it is since then.
    fn runs_out(&self, body: &Body, since: Mono) -> Mono {
        let ttl = if mutant::on(Mutant::WaiterImpatient) { body.ttl / 2 } else { body.ttl };
        since.after(ttl)
    }

    fn claim(&mut self, now: Now, out: &mut Actions) {
        let epoch = self.seen.as_ref().map_or(0, |seen| seen.body.epoch);
        let term = Term(self.draw());
        let nonce = self.draw();
        let LeaseConfig { ttl, holder, address, .. } = self.config.clone();
        let epoch = if mutant::on(Mutant::EpochKept) { epoch } else { epoch + 1 };
        self.state = State::Claiming;
        self.continues = self.seen.as_ref().is_none_or(|seen| self.is_own(&seen.body));
        let since = now.wall;
        self.active = self.seen.as_ref().map_or_else(Active::default, |seen| seen.body.active.inherited());
        let (state, active) = (State::Claiming, self.active.clone());
        let body = Body { epoch, holder, term, nonce, ttl, state, progress: 0, active, since, address };
        self.send(now, Some(body), out);
    }

    fn renew(&mut self, now: Now, out: &mut Actions) {
        let nonce = self.draw();
        let body = self.seen.as_ref().expect("a holder has written it").body.clone();
        let (state, progress, active) = (self.state, self.progress, self.active.clone());
        self.send(now, Some(Body { nonce, state, progress, active, ..body }), out);
    }

    /// The write of this body is known to have been done.
    fn wrote(&mut self, now: Now, write: Write, version: Option<String>, out: &mut Actions) {
        let Write { body, sent, proof } = write;
        self.doubts.clear();
        self.last_error = None;
        let counted = if mutant::on(Mutant::TenureFromAnswer) { now.mono } else { sent };
        let until = counted.after(body.ttl);
        self.proven = self.proven.max(proof);
        let claimed = !self.is_holding();
        let (epoch, released) = (body.epoch, body.state == State::Released);
        // Where the store does not say which version that is, a read does.
        self.unread = version.is_none();
        self.seen = Some(Seen { body, version, since: now.mono });
        if released {
            if mutant::on(Mutant::LeaseDeleted) {
                self.ops.submit(Request::Cell(CellRequest::Remove { cell: CELL.into() }), out);
            }
            self.phase = Phase::Released;
            out.notify(Severity::Info, Fact::Remark { text: "the lease was given up".into() });
            return self.stop(Exit::Done, out);
        }
        self.phase = Phase::Holding { until };
        self.next_at = Some(sent.after(self.part(RENEWALS)));
        if claimed {
            let text = format!("this process holds the lease, epoch {epoch}");
            out.notify(Severity::Info, Fact::Remark { text });
        }
    }

    fn is_holding(&self) -> bool {
        matches!(self.phase, Phase::Holding { .. })
    }

    /// The object was read.
    fn read(&mut self, now: Now, asked: &Asked, body: Body, version: Option<String>, out: &mut Actions) {
        (self.last_error, self.looked) = (None, true);
        if version.is_none() {
            let text = "the store names no version of the lease, so that it cannot be replaced safely";
            return self.trouble(now, text.into(), String::new(), out);
        }
        let done = self.doubts.iter().find(|doubt| doubt.nonce == body.nonce).cloned();
        if let Some(doubt) = done {
            // It was ours, and its answer was lost. The look itself shows more than that write.
            let proof = doubt.proof.max(asked.proof);
            return self.wrote(now, Write { body, sent: doubt.sent, proof }, version, out);
        }
        let known = self.seen.as_ref().is_some_and(|seen| seen.body.nonce == body.nonce);
        if self.is_holding() {
            if !known {
                let Body { epoch, holder, .. } = body;
                let error = format!("host {holder:016x} has taken the lease in epoch {epoch}");
                self.seen = Some(Seen { body, version, since: now.mono });
                return self.depose(error, out);
            }
            self.proven = self.proven.max(asked.proof);
            return self.knows(version);
        }
        if !known {
            // What was still to land would have replaced another version.
            self.doubts.clear();
        }
        self.look_later(now, known, &body);
        match &mut self.seen {
            Some(seen) if known => seen.version = version,
            _ => self.seen = Some(Seen { body, version, since: now.mono }),
        }
        // What was read a moment ago is good enough to be replaced: the version decides.
        self.unread = !self.may_claim(now);
        if !self.unread {
            self.next_at = None;
        }
    }

    /// The version of what was seen is known.
    fn knows(&mut self, version: Option<String>) {
        if let Some(seen) = &mut self.seen {
            seen.version = version;
        }
        self.unread = false;
    }

    /// When to look again at what another holds.
    fn look_later(&mut self, now: Now, known: bool, body: &Body) {
        // The first time nobody knows how long it has stood there.
        let hurry = body.state == State::Leaving || known || self.seen.is_none();
        let rhythm = body.ttl / RENEWALS - body.ttl / CREEPS;
        let wait = if hurry { body.ttl / HURRIES } else { rhythm };
        let end = self.seen.as_ref().filter(|_| known).map(|seen| self.runs_out(body, seen.since));
        let at = now.mono.after(wait);
        self.next_at = Some(end.map_or(at, |end| if end > now.mono { at.min(end) } else { at }));
    }

    fn absent(&mut self, now: Now, out: &mut Actions) {
        (self.last_error, self.looked) = (None, true);
        if self.is_holding() {
            return self.depose("the lease is gone from the store".into(), out);
        }
        (self.seen, self.unread) = (None, !self.begins());
        self.next_at = if self.begins() { None } else { Some(now.mono.after(self.part(RENEWALS))) };
    }

    fn failed(&mut self, now: Now, asked: Asked, error: &StoreError, out: &mut Actions) {
        use StoreErrorKind::{AlreadyExists, Ambiguous, Conflict, NotFound};
        let Some(body) = asked.body else {
            return match error.kind {
                NotFound => self.absent(now, out),
                _ => self.trouble(now, error.text.clone(), error.hint.clone(), out),
            };
        };
        // A refusal may be of our own write, sent twice on the way.
        if matches!(error.kind, Ambiguous | AlreadyExists | Conflict) {
            let Asked { since: sent, proof, .. } = asked;
            self.doubts.push(Doubt { nonce: body.nonce, sent, proof });
            self.doubts.drain(..self.doubts.len().saturating_sub(DOUBTS_MAX));
        }
        self.unread = true;
        match error.kind {
            AlreadyExists if mutant::on(Mutant::RefusalIsOurs) => {
                let write = Write { body, sent: asked.since, proof: asked.proof };
                self.wrote(now, write, None, out);
            }
            AlreadyExists => self.next_at = None,
            _ => self.trouble(now, error.text.clone(), error.hint.clone(), out),
        }
    }

    /// Something failed that may pass.
    fn trouble(&mut self, now: Now, error: String, hint: String, out: &mut Actions) {
        let wait = self.part(HURRIES);
        if self.last_error.as_ref() != Some(&error) {
            let what = "contending for the lease".into();
            let wait_ms = wait.as_millis() as u64;
            out.notify(Severity::Warn, Fact::Retrying { what, error: error.clone(), hint, wait_ms });
        }
        self.last_error = Some(error);
        self.next_at = Some(now.mono.after(wait));
    }

    fn depose(&mut self, why: String, out: &mut Actions) {
        self.phase = Phase::Deposed;
        self.lost = Some(why.clone());
        let hint = "this host is a standby when it starts again".into();
        if let Some(Asked { op, .. }) = self.asked.take() {
            out.push(Action::Cancel { op });
        }
        out.push(Action::Stopped(Exit::Fenced { error: why, hint }));
    }

    fn stop(&mut self, exit: Exit, out: &mut Actions) {
        if self.phase != Phase::Released {
            self.phase = Phase::Stopped;
        }
        out.push(Action::Stopped(exit));
    }

    /// The time of a holder, or of a request, may be over.
    fn time_passed(&mut self, now: Now, out: &mut Actions) {
        if let Phase::Holding { until } = self.phase
            && until <= now.mono
            && !mutant::on(Mutant::TenureNeverEnds)
        {
            let why = self.last_error.take().unwrap_or_else(|| match self.asked {
                Some(_) => "the store's answers came too late".into(),
                None => "this process was held up".into(),
            });
            let seconds = self.config.ttl.as_secs_f32();
            return self.depose(format!("the lease was not renewed for {seconds} s: {why}"), out);
        }
        if self.leaving.is_some_and(|deadline| deadline <= now.mono) {
            return self.stop(Exit::Done, out);
        }
        if let Some(asked) =
            self.asked.take_if(|asked| asked.since.after(self.config.ttl / DEADLINES) <= now.mono)
        {
            out.push(Action::Cancel { op: asked.op });
            let text = "the store does not answer";
            self.failed(now, asked, &StoreError::new(StoreErrorKind::Ambiguous, text), out);
        }
    }

    fn completed(&mut self, now: Now, op: OpId, outcome: Outcome, out: &mut Actions) {
        let Some(asked) = self.asked.take_if(|asked| asked.op == op) else { return };
        match outcome {
            Outcome::Cell(Ok(CellReply::Written { version })) => {
                let body = asked.body.expect("only a write is answered so");
                let write = Write { body, sent: asked.since, proof: asked.proof };
                self.wrote(now, write, version, out);
            }
            Outcome::Cell(Ok(CellReply::Content { bytes, version })) => match Body::decode(&bytes) {
                Ok(body) => self.read(now, &asked, body, version, out),
                Err(error) => self.trouble(now, error, String::new(), out),
            },
            Outcome::Cell(Err(error)) => self.failed(now, asked, &error, out),
            other => unreachable!("a cell is not answered by {other:?}"),
        }
    }

    fn told(&mut self, event: LeaseEvent) {
        match event {
            LeaseEvent::Tried(holds) => {
                self.tried = Some(holds);
                // What it was not allowed to do it may be allowed now.
                if self.phase == Phase::Waiting {
                    self.next_at = None;
                }
            }
            LeaseEvent::Contend(contends) => {
                self.contends = contends;
                // A lease that it left to others may be free.
                if contends && self.phase == Phase::Waiting {
                    self.next_at = None;
                }
                return;
            }
            LeaseEvent::Activate => self.state = State::Active,
            LeaseEvent::Announce if self.state == State::Active => self.state = State::Leaving,
            LeaseEvent::Announce | LeaseEvent::Succeed => {}
            LeaseEvent::Prove(number) => return self.wanted = self.wanted.max(number),
            LeaseEvent::Put(place) => {
                self.progress += 1;
                return self.active.put(place, self.progress);
            }
        }
        if self.is_holding() {
            self.next_at = None;
        }
    }
}

impl Machine for Lease {
    type Status = LeaseStatus;

    fn handle(&mut self, now: Now, event: Event, out: &mut Actions) {
        match (&self.phase, event) {
            (Phase::Released | Phase::Deposed | Phase::Stopped, _) => return,
            (Phase::NotStarted, Event::Start { entropy }) => {
                self.entropy = entropy;
                self.phase = Phase::Waiting;
            }
            (Phase::NotStarted, _) => return,
            (_, Event::Completed { op, outcome }) => {
                // An answer that comes too late says nothing of what holds now.
                self.time_passed(now, out);
                self.completed(now, op, outcome, out);
            }
            (_, Event::Lease(event)) => self.told(event),
            (_, Event::Shutdown { deadline }) => {
                self.leaving = Some(deadline);
                (self.state, self.next_at) = (State::Released, None);
            }
            _ => {}
        }
        if matches!(self.phase, Phase::Waiting | Phase::Holding { .. }) {
            self.time_passed(now, out);
            self.pump(now, out);
        }
    }

    fn next_deadline(&self) -> Option<(Mono, Reason)> {
        let until = match self.phase {
            Phase::Waiting => None,
            Phase::Holding { until } => Some((until, Reason::Deadline)),
            _ => return None,
        };
        let answer = self.asked.as_ref();
        let answer = answer.map(|asked| (asked.since.after(self.part(DEADLINES)), Reason::Deadline));
        let idle = self.asked.is_none();
        let next = self.next_at.filter(|_| idle).map(|at| (at, Reason::Retry));
        let leaving = self.leaving.map(|at| (at, Reason::Shutdown));
        until.into_iter().chain(answer).chain(next).chain(leaving).min()
    }

    fn status(&self) -> LeaseStatus {
        let body = self.seen.as_ref().map(|seen| seen.body.clone());
        let (role, until) = match self.phase {
            Phase::Holding { until } => {
                let active = body.as_ref().is_some_and(|body| body.state != State::Claiming);
                (if active { Role::Primary } else { Role::Claimant }, Some(until))
            }
            Phase::Deposed => (Role::Deposed, None),
            Phase::Released => (Role::Released, None),
            Phase::NotStarted | Phase::Waiting | Phase::Stopped => (Role::Standby, None),
        };
        // Whoever is to begin the history waits for what is found of the store, and is no copy of anything.
        let waits = self.config.begins && self.tried != Some(false);
        LeaseStatus {
            role,
            term: body.as_ref().filter(|_| until.is_some()).map(|body| body.term),
            body,
            continues: self.continues,
            settled: self.looked
                && self.asked.as_ref().is_none_or(|asked| asked.body.is_none())
                && (self.seen.is_some() || !waits || mutant::on(Mutant::BeginnerFollows)),
            until,
            proven: self.proven,
            lost: self.lost.clone(),
            last_error: self.last_error.clone(),
            requests: self.requests,
        }
    }
}
