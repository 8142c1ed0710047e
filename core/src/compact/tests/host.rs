//! A host that keeps objects in a map, does one thing at a time in an order drawn from a seed, and lets time
//! pass to the next deadline when there is nothing to do.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use core::time::Duration;

use crate::compact::{CompactConfig, Compactor};
use crate::ids::{Mono, Now, Txid, Wall};
use crate::machine::{
    Action, Actions, ByteRange, Chunk, Event, Exit, Fact, GrantRequest, Listed, Machine, Notice, Object,
    OpId, OpIds, Outcome, PutCondition, Reason, ReplicaId, Request, StoreError, StoreErrorKind, StoreReply,
    StoreRequest,
};

use crate::retain::{RetainConfig, RetainPass, Retainer};

/// What may happen to a request before it is served: an error instead of it, or after it.
pub type Hook =
    Box<dyn FnMut(&StoreRequest, &mut BTreeMap<Object, Vec<u8>>) -> Option<(StoreErrorKind, bool)>>;

pub struct Host {
    pub store: BTreeMap<Object, Vec<u8>>,
    pub compactor: Compactor,
    /// What deletes, if anything does; the store tells when objects were written then.
    pub retainer: Option<Retainer>,
    /// When each object was written.
    pub born: BTreeMap<Object, Wall>,
    /// How far the wall clock is ahead of the store's.
    pub ahead_ms: i64,
    pub hook: Option<Hook>,
    /// Which requests are never answered, and have no effect.
    pub swallow: Option<fn(&StoreRequest) -> bool>,
    pub facts: Vec<Fact>,
    /// Since the start, and since 1970 less a day and a bit.
    pub now: Duration,
    pub requests: u64,
    pub grants_open: u32,
    pub reads_open_max: usize,
    pub job_bytes_max: usize,
    /// How many actions are carried out before the process dies.
    pub dies_after: Option<u64>,
    pub dead: bool,
    pub exit: Option<Exit>,
    seed: u64,
    bodies: BTreeMap<OpId, (Object, PutCondition, Vec<u8>)>,
    held: Vec<(OpId, Request)>,
}

/// When the clock of these tests starts: five seconds past a full day.
pub const START: i64 = 20_000 * 86_400_000 + 5_000;

impl Host {
    pub fn new(config: CompactConfig, store: BTreeMap<Object, Vec<u8>>, seed: u64) -> Host {
        let mut host = Host {
            store,
            compactor: Compactor::new(config, OpIds::new(ReplicaId(0), seed)),
            retainer: None,
            born: BTreeMap::new(),
            ahead_ms: 0,
            hook: None,
            swallow: None,
            facts: Vec::new(),
            now: Duration::ZERO,
            requests: 0,
            grants_open: 0,
            reads_open_max: 0,
            job_bytes_max: 0,
            dies_after: None,
            dead: false,
            exit: None,
            seed: seed * 2 + 1,
            bodies: BTreeMap::new(),
            held: Vec::new(),
        };
        host.tell(Event::Start { entropy: seed });
        host
    }

    fn draw(&mut self, below: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as usize % below
    }

    /// The store's clock.
    pub fn wall(&self) -> Wall {
        Wall(START + self.now.as_millis() as i64)
    }

    /// Deletes what is covered from now on.
    pub fn retain(&mut self, config: RetainConfig, pass: RetainPass) {
        self.retainer = Some(Retainer::new(config, pass, OpIds::new(ReplicaId(0), u64::MAX)));
        self.tell(Event::Start { entropy: 1 });
    }

    pub fn next_deadline(&self) -> Option<(Mono, Reason)> {
        let retainer = self.retainer.as_ref().and_then(Machine::next_deadline);
        [self.compactor.next_deadline(), retainer].into_iter().flatten().min()
    }

    pub fn tell(&mut self, event: Event) {
        let now = Now { mono: Mono::from_duration(self.now), wall: Wall(self.wall().0 + self.ahead_ms) };
        let mut out = Actions::new();
        let mut of_retainer = Actions::new();
        if let Some(retainer) = &mut self.retainer {
            retainer.handle(now, event.clone(), &mut of_retainer);
        }
        self.compactor.handle(now, event, &mut out);
        let out: Vec<Action> = out.drain().collect();
        let made =
            |action: &Action| matches!(action, Action::Notify(Notice { fact: Fact::Compacted { .. }, .. }));
        if let Some(retainer) = self.retainer.as_mut().filter(|_| out.iter().any(made)) {
            retainer.compacted(now);
        }
        for action in out.into_iter().chain(of_retainer.drain()) {
            if self.dies_after == Some(0) {
                self.dead = true;
                return;
            }
            self.dies_after = self.dies_after.map(|left| left - 1);
            match action {
                Action::Submit { op, request } => self.held.push((op, request)),
                Action::Cancel { op } => self.cancel(op),
                Action::Notify(Notice { fact, .. }) => self.facts.push(fact),
                Action::Stopped(exit) => self.exit = Some(exit),
            }
        }
        let reads = self.held.iter().filter(|(_, it)| matches!(it, Request::Store(StoreRequest::Get { .. })));
        self.reads_open_max = self.reads_open_max.max(reads.count());
    }

    /// What was not carried out does not happen; the body of a put goes with its commit.
    fn cancel(&mut self, op: OpId) {
        let Some(at) = self.held.iter().position(|(held, _)| *held == op) else { return };
        if let (_, Request::Store(StoreRequest::PutCommit { put })) = self.held.remove(at) {
            self.bodies.remove(&put);
        }
    }

    /// The replicator has put a segment there.
    pub fn stored(&mut self, txid: u64, bytes: Vec<u8>) {
        let object = super::object(0, txid, txid);
        let len = bytes.len() as u64;
        self.store.insert(object, bytes);
        self.born.insert(object, self.wall());
        self.tell(Event::Stored { txid: Txid::new(txid).unwrap(), bytes: Some(len) });
    }

    /// Does what is asked for until nothing is.
    pub fn settle(&mut self) {
        for _ in 0..1_000_000 {
            if self.dead || self.held.is_empty() {
                return;
            }
            self.step();
        }
        panic!("the compactor does not come to rest");
    }

    /// Does one thing that is asked for.
    pub fn step(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let at = self.draw(self.held.len());
        let (op, request) = self.held.swap_remove(at);
        if let (Request::Store(request), Some(swallow)) = (&request, &self.swallow)
            && swallow(request)
        {
            return;
        }
        let outcome = self.perform(op, request);
        self.tell(Event::Completed { op, outcome });
    }

    /// Lets time pass until then, and all that is due happen.
    pub fn until(&mut self, end: Duration) {
        self.settle();
        while let Some((at, _)) = self.next_deadline()
            && at.as_duration() <= end
            && !self.dead
        {
            self.now = self.now.max(at.as_duration());
            self.tell(Event::Tick);
            self.settle();
        }
        self.now = self.now.max(end);
    }

    /// Lets time pass until nothing is scheduled.
    pub fn rest(&mut self) {
        self.until(self.now + Duration::from_secs(90 * 86_400));
        assert!(self.dead || self.next_deadline().is_none(), "nothing is scheduled in the end");
    }

    fn perform(&mut self, op: OpId, request: Request) -> Outcome {
        match request {
            Request::Store(request) => {
                self.requests += 1;
                let hooked = self.hook.as_mut().and_then(|hook| hook(&request, &mut self.store));
                let result = match hooked {
                    Some((kind, false)) => {
                        // Of a commit that fails nothing is left.
                        if let StoreRequest::PutCommit { put } = &request {
                            self.bodies.remove(put);
                        }
                        Err(StoreError::new(kind, "injected"))
                    }
                    Some((kind, true)) => {
                        let _ = self.store(op, &request);
                        Err(StoreError::new(kind, "injected"))
                    }
                    None => self.store(op, &request),
                };
                Outcome::Store(result)
            }
            Request::Compute(job) => {
                let output = job.run();
                if let crate::job::JobOutput::Merge(output) = &output {
                    self.job_bytes_max = self.job_bytes_max.max(output.bytes.len());
                }
                Outcome::Compute(output)
            }
            Request::Grant(GrantRequest::Take(_)) => {
                self.grants_open += 1;
                Outcome::Granted
            }
            Request::Grant(GrantRequest::Return { .. }) => {
                self.grants_open -= 1;
                Outcome::Granted
            }
            other => panic!("a compactor asks for {other:?}"),
        }
    }

    fn store(&mut self, op: OpId, request: &StoreRequest) -> Result<StoreReply, StoreError> {
        let fail = |kind| Err(StoreError::new(kind, "as the store says"));
        match request {
            StoreRequest::List { level, after, limit } => {
                let all = self.store.iter().filter(|(it, _)| it.level == *level);
                let mut entries: Vec<Listed> = all
                    .filter(|(it, _)| after.is_none_or(|after| it.range > after))
                    .map(|(object, body)| Listed {
                        object: *object,
                        len: body.len() as u64,
                        modified: self.retainer.as_ref().map(|_| self.born[object]),
                    })
                    .collect();
                let page = (*limit as usize).min(3);
                let more = entries.len() > page;
                entries.truncate(page);
                Ok(StoreReply::Listing { entries, more })
            }
            StoreRequest::Get { object, range: ByteRange::At { offset, len } } => {
                let Some(body) = self.store.get(object) else { return fail(StoreErrorKind::NotFound) };
                let end = (offset + len).min(body.len() as u64) as usize;
                let bytes = Chunk::from(body[(*offset as usize).min(end)..end].to_vec());
                Ok(StoreReply::Bytes { bytes, object_len: body.len() as u64 })
            }
            StoreRequest::PutOpen { object, condition } => {
                self.bodies.insert(op, (*object, *condition, Vec::new()));
                Ok(StoreReply::Done)
            }
            StoreRequest::PutPart { put, bytes } => {
                assert!(bytes.len() <= crate::machine::PART_BYTES_MAX, "a part is bounded");
                self.bodies.get_mut(put).expect("an open body").2.extend_from_slice(bytes);
                Ok(StoreReply::Done)
            }
            StoreRequest::PutCommit { put } => {
                let (object, condition, body) = self.bodies.remove(put).expect("an open body");
                if condition == PutCondition::IfAbsent && self.store.contains_key(&object) {
                    return fail(StoreErrorKind::AlreadyExists);
                }
                self.store.insert(object, body);
                self.born.insert(object, self.wall());
                Ok(StoreReply::Done)
            }
            StoreRequest::Delete { object } => {
                self.store.remove(object);
                Ok(StoreReply::Done)
            }
            StoreRequest::PutAbort { put } => {
                self.bodies.remove(put);
                Ok(StoreReply::Done)
            }
            other => panic!("a compactor asks for {other:?}"),
        }
    }

    /// Names of the objects of a level, as numbers.
    pub fn level(&self, level: u8) -> Vec<(u64, u64)> {
        let here = self.store.keys().filter(|object| object.level.get() == level);
        here.map(|object| (object.range.min().get(), object.range.max().get())).collect()
    }

    pub fn open_bodies(&self) -> usize {
        self.bodies.len()
    }
}
