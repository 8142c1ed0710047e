//! Reading a whole replica to see whether it can be relied upon.
//!
//! The [`Verifier`] reads each object from start to end, under its file checksum, and then holds
//! the objects against each other: what one says about the state it leads to must be
//! what the next says about the state it begins with. It changes nothing. Every fault is one
//! line of text that names object, offset, what was expected and what was found.
//!
//! What seems damaged is read twice more before that is said, and what does not fit is listed twice more:
//! bytes may change on their way as well, and a store may answer with what it was a moment ago.

mod links;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use crate::checksum::DbXor;
use crate::ids::{Mono, Now, PENDING_BYTE, Txid};
use crate::job::{Job, JobOutput};
use crate::ltx::{Dictionaries, Dictionary, DictionaryId, LtxError, LtxHeader};
use crate::machine::{
    Action, Actions, Chunk, Event, Exit, Fact, Listed, Machine, Object, OpId, OpIds, Outcome, Reason,
    Request, Severity, StoreError, StoreErrorKind, StoreReply, StoreRequest,
};
use crate::mutant::{self, Mutant};
use crate::reading::{Flight, Landed, Listings, exit_of};
use crate::restore::{Decoded, Next, Purpose, Reader, RestoreOutput, Stream, Wins, check_name};

/// Readings of an object, and listings of what does not fit, before either counts as a fault.
const LOOKS: u32 = 3;

/// How to verify.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyConfig {
    /// Objects read at once, from 1.
    pub parallelism: usize,
    /// When to give up one try of a request.
    pub request_deadline: Duration,
    /// Where SQLite keeps its lock bytes ([`PENDING_BYTE`]).
    pub pending_byte: u64,
}

impl Default for VerifyConfig {
    fn default() -> VerifyConfig {
        VerifyConfig { parallelism: 8, request_deadline: Duration::from_secs(30), pending_byte: PENDING_BYTE }
    }
}

/// How a verification stands; also its report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyStatus {
    /// Objects on the replica.
    pub objects: u64,
    /// Objects read to their end.
    pub checked: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Requests sent.
    pub requests: u64,
    /// Objects that say to which state they lead.
    pub chained: u64,
    /// Objects that do not, so that only their own checksum was verified.
    pub unchained: u64,
    /// What is wrong, a line each.
    pub faults: Vec<String>,
}

/// What reading an object told.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Checked {
    pub(crate) header: LtxHeader,
    /// Whether it holds every page of the database.
    pub(crate) full: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    List,
    Piece(Object, u64),
    Dictionary(DictionaryId),
}

/// An object being read.
#[derive(Clone, PartialEq, Debug)]
struct Lane {
    reader: Reader,
    xor: DbXor,
}

#[derive(Clone, PartialEq, Debug)]
enum Phase {
    Idle,
    List,
    Read,
    Stopped,
}

/// Verifies a replica; a machine over store reads.
#[derive(Clone, PartialEq, Debug)]
pub struct Verifier {
    config: VerifyConfig,
    flight: Flight<Key>,
    work: BTreeMap<OpId, Object>,
    phase: Phase,
    objects: Vec<Listed>,
    todo: VecDeque<Listed>,
    lanes: BTreeMap<Object, Lane>,
    dictionaries: Dictionaries,
    /// Objects that wait for a dictionary that was asked for.
    waiting: BTreeMap<DictionaryId, Vec<Listed>>,
    /// What is wrong with others.
    bad_dictionaries: BTreeMap<DictionaryId, String>,
    sound: BTreeMap<Object, Checked>,
    damaged: BTreeMap<Object, Vec<String>>,
    /// What seemed damaged when it was read, and how often.
    suspects: BTreeMap<Object, u32>,
    /// The same of dictionaries.
    suspect_dictionaries: BTreeMap<DictionaryId, u32>,
    /// Whether an object went while it was to be read.
    gone: Option<Object>,
    listings: Listings,
    /// Listings that did not fit.
    misfits: u32,
    /// What must be there, if anybody knows.
    owed: Option<Txid>,
    told: u64,
    faults: Vec<String>,
}

impl Verifier {
    /// A verification that begins with [`Event::Start`].
    ///
    /// # Panics
    /// If the configuration's parallelism is zero.
    pub fn new(config: VerifyConfig, ids: OpIds) -> Verifier {
        assert!(config.parallelism > 0, "a verification needs at least one read under way");
        let flight = Flight::new(ids, config.request_deadline);
        Verifier {
            config,
            flight,
            work: BTreeMap::new(),
            phase: Phase::Idle,
            objects: Vec::new(),
            todo: VecDeque::new(),
            lanes: BTreeMap::new(),
            dictionaries: Dictionaries::default(),
            waiting: BTreeMap::new(),
            bad_dictionaries: BTreeMap::new(),
            sound: BTreeMap::new(),
            damaged: BTreeMap::new(),
            suspects: BTreeMap::new(),
            suspect_dictionaries: BTreeMap::new(),
            gone: None,
            listings: Listings::default(),
            misfits: 0,
            owed: None,
            told: 0,
            faults: Vec::new(),
        }
    }

    /// The same, of a replica that must hold everything up to `owed`.
    pub(crate) fn owing(self, owed: Option<Txid>) -> Verifier {
        Verifier { owed, ..self }
    }

    /// What must be there and is not.
    fn shortfall(&self) -> Option<String> {
        let end = self.objects.iter().map(|it| it.object.range.max()).max();
        let owed = self.owed.filter(|owed| end < Some(*owed))?;
        let ends = end.map_or("is empty".to_string(), |end| format!("ends with transaction {end}"));
        Some(format!("the replica {ends}, and everything up to {owed} was stored there"))
    }

    /// Gives up whatever is under way.
    pub(crate) fn let_go(&mut self, out: &mut Actions) {
        self.flight.cancel_all(out);
        for (op, _) in core::mem::take(&mut self.work) {
            out.push(Action::Cancel { op });
        }
        self.phase = Phase::Stopped;
    }

    /// The source of identifiers, for a machine that goes on after this one.
    pub(crate) fn into_ids(self) -> OpIds {
        self.flight.into_ids()
    }

    fn list(&mut self, now: Now, out: &mut Actions) {
        self.gone = None;
        self.phase = Phase::List;
        self.listings.begin(now, Key::List, &mut self.flight, out);
    }

    fn landed(&mut self, now: Now, (key, result): Landed<Key>, out: &mut Actions) {
        if self.phase == Phase::Stopped {
            return;
        }
        let reply = match (key, result) {
            (Key::Dictionary(id), result) => return self.take_dictionary(now, id, result, out),
            (_, Ok(reply)) => reply,
            (Key::Piece(object, _), Err(error)) if error.kind == StoreErrorKind::NotFound => {
                if mutant::on(Mutant::VanishedIsDamage) {
                    return self.read_to_end(now, object, Err(error.text), out);
                }
                self.lanes.remove(&object);
                self.gone = Some(object);
                return self.pump(now, out);
            }
            (Key::List, Err(error)) => return self.stop(exit_of("list the replica", &error), out),
            (Key::Piece(object, _), Err(error)) => {
                return self.stop(exit_of(&format!("read {object}"), &error), out);
            }
        };
        match (key, reply) {
            (Key::List, StoreReply::Listing { entries, more }) => {
                self.take_listing(now, (entries, more), out)
            }
            (Key::Piece(object, offset), StoreReply::Bytes { bytes, object_len }) => {
                self.take_piece(now, object, offset, bytes, object_len, out);
            }
            (key, reply) => panic!("a host answers in kind: {key:?} got {reply:?}"),
        }
    }

    fn take_listing(&mut self, now: Now, page: (Vec<Listed>, bool), out: &mut Actions) {
        if self.phase != Phase::List {
            return;
        }
        self.objects = match self.listings.take(now, Key::List, page, &mut self.flight, out) {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(exit) => return self.stop(exit, out),
        };
        if self.objects.is_empty() && self.owed.is_none() {
            let error = "the replica holds no segments".into();
            return self
                .stop(Exit::NothingToRestore { error, hint: "check the replica's address".into() }, out);
        }
        let known =
            |it: &Listed| self.sound.contains_key(&it.object) || self.damaged.contains_key(&it.object);
        self.todo = self.objects.iter().filter(|it| !known(it)).copied().collect();
        self.phase = Phase::Read;
        self.pump(now, out);
    }

    fn take_piece(
        &mut self,
        now: Now,
        object: Object,
        offset: u64,
        bytes: Chunk,
        object_len: u64,
        out: &mut Actions,
    ) {
        let Some(lane) = self.lanes.get_mut(&object) else { return };
        if lane.reader.listed.len != object_len {
            self.lanes.remove(&object);
            self.gone = Some(object);
        } else {
            lane.reader.arrived(offset, bytes);
        }
        self.pump(now, out);
    }

    /// Reads ahead, decodes what has come, and ends when all is read.
    fn pump(&mut self, now: Now, out: &mut Actions) {
        if self.phase != Phase::Read {
            return;
        }
        while self.lanes.len() < self.config.parallelism
            && let Some(listed) = self.todo.pop_front()
        {
            if listed.len == 0 {
                let text = LtxError::Truncated { offset: 0, what: "header" }.to_string();
                self.damaged.entry(listed.object).or_default().push(text);
                continue;
            }
            let stream =
                Stream::new(Purpose::Check, Wins::default(), self.config.pending_byte, &self.dictionaries);
            self.lanes.insert(listed.object, Lane { reader: Reader::new(listed, stream), xor: DbXor::new() });
        }
        for (&object, lane) in &mut self.lanes {
            let key = |offset| Key::Piece(object, offset);
            lane.reader.read_ahead(now, &mut self.flight, self.config.parallelism, key, out);
            if let Some(job) = lane.reader.next_job() {
                let op = self.flight.submit(Request::Compute(Job::Restore(job)), out);
                self.work.insert(op, object);
            }
        }
        if self.phase == Phase::Read
            && self.lanes.is_empty()
            && self.todo.is_empty()
            && self.waiting.is_empty()
        {
            self.judge(now, out);
        }
    }

    fn decoded(
        &mut self,
        now: Now,
        object: Object,
        stream: Box<Stream>,
        decoded: &Decoded,
        next: Next,
        out: &mut Actions,
    ) {
        let Some(lane) = self.lanes.get_mut(&object) else { return };
        lane.xor.toggle(decoded.xor.finish().get());
        match next {
            Next::Bytes | Next::More => {
                lane.reader.back(stream, &next);
                self.pump(now, out);
            }
            Next::Failed(LtxError::Dictionary { id }) => self.need_dictionary(now, object, id, out),
            Next::Failed(error) => self.read_to_end(now, object, Err(error.to_string()), out),
            Next::End(_) => {
                let header = *stream.header().expect("a file that ends has a header");
                let full = stream.is_full();
                let state = lane.xor.finish();
                let wrong_name = check_name(&lane.reader.listed, &header);
                let wrong_state = header.chain.post.filter(|&post| full && post != state).map(|post| {
                    format!("post-state at byte 88: expected {state} by its pages, found {post}")
                });
                let result = wrong_name.or(wrong_state).map_or(Ok(Checked { header, full }), Err);
                self.read_to_end(now, object, result, out);
            }
        }
    }

    /// Reads an object again once its dictionary is here.
    fn need_dictionary(&mut self, now: Now, object: Object, id: DictionaryId, out: &mut Actions) {
        if let Some(text) = self.bad_dictionaries.get(&id) {
            let text = format!("{text}, and it was compressed with it");
            return self.read_to_end(now, object, Err(text), out);
        }
        let lane = self.lanes.remove(&object).expect("it was being read");
        if self.dictionaries.has(id) {
            self.todo.push_front(lane.reader.listed);
        } else {
            let waiting = self.waiting.entry(id).or_default();
            if waiting.is_empty() {
                self.flight.send(now, Key::Dictionary(id), StoreRequest::GetDictionary { id }, out);
            }
            waiting.push(lane.reader.listed);
        }
        self.pump(now, out);
    }

    fn take_dictionary(
        &mut self,
        now: Now,
        id: DictionaryId,
        result: Result<StoreReply, StoreError>,
        out: &mut Actions,
    ) {
        let read = match result {
            Ok(StoreReply::Bytes { bytes, .. }) => Dictionary::read(id, &bytes),
            Ok(reply) => panic!("a host answers in kind: a dictionary is not {reply:?}"),
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                Err(format!("dictionary {id} is missing"))
            }
            Err(error) => return self.stop(exit_of(&format!("read dictionary {id}"), &error), out),
        };
        match read {
            Ok(dictionary) => self.dictionaries.add(dictionary),
            Err(_) if again(self.suspect_dictionaries.entry(id).or_default()) => {
                return self.flight.send(now, Key::Dictionary(id), StoreRequest::GetDictionary { id }, out);
            }
            Err(text) => {
                self.bad_dictionaries.insert(id, text);
            }
        }
        self.todo.extend(self.waiting.remove(&id).unwrap_or_default());
        self.pump(now, out);
    }

    /// An object has been read.
    fn read_to_end(&mut self, now: Now, object: Object, result: Result<Checked, String>, out: &mut Actions) {
        let lane = self.lanes.remove(&object);
        match result {
            Err(_) if lane.is_some() && again(self.suspects.entry(object).or_default()) => {
                self.todo.extend(lane.map(|lane| lane.reader.listed));
                return self.pump(now, out);
            }
            Ok(checked) => {
                self.sound.insert(object, checked);
            }
            Err(text) => self.damaged.entry(object).or_default().push(text),
        }
        let (done, total) = (self.checked(), self.objects.len() as u64);
        if done - self.told.min(done) >= (total / 64).max(1) {
            self.told = done;
            out.notify(Severity::Info, Fact::Progress { what: "verifying objects", done, total });
        }
        self.pump(now, out);
    }

    fn checked(&self) -> u64 {
        (self.sound.len() + self.damaged.len()) as u64
    }

    /// Everything has been read: do the objects agree with each other?
    fn judge(&mut self, now: Now, out: &mut Actions) {
        if let Some(object) = self.gone {
            let why = format!("{object} has gone since it was listed");
            return match self.listings.again(&why, out) {
                Ok(()) => self.list(now, out),
                Err(exit) => self.stop(exit, out),
            };
        }
        let there = |object: &Object| self.objects.iter().any(|it| it.object == *object);
        self.sound.retain(|object, _| there(object));
        self.damaged.retain(|object, _| there(object));
        let misfits = self.shortfall().into_iter().chain(links::faults(&self.objects, &self.sound));
        let misfits: Vec<String> = misfits.collect();
        if let Some(first) = misfits.first()
            && again(&mut self.misfits)
            && self.listings.again(first, out).is_ok()
        {
            return self.list(now, out);
        }
        for (object, texts) in &self.damaged {
            self.faults.extend(texts.iter().map(|text| format!("{object}: {text}")));
        }
        self.faults.extend(misfits);
        let Some(first) = self.faults.first() else {
            return self.stop(Exit::Done, out);
        };
        let error = match self.faults.len() {
            1 => first.clone(),
            n => format!("{first}; and {} more", n - 1),
        };
        let hint = "the report lists all faults; a new snapshot puts the newest state on sound ground".into();
        self.stop(Exit::Corrupt { error, hint }, out);
    }

    fn stop(&mut self, exit: Exit, out: &mut Actions) {
        self.flight.cancel_all(out);
        self.phase = Phase::Stopped;
        out.push(Action::Stopped(exit));
    }
}

/// Counts a look that has shown something wrong; whether another follows before that counts.
fn again(looks: &mut u32) -> bool {
    *looks += 1;
    *looks < LOOKS
}

impl Machine for Verifier {
    type Status = VerifyStatus;

    fn handle(&mut self, now: Now, event: Event, out: &mut Actions) {
        if self.phase == Phase::Stopped {
            return;
        }
        match event {
            Event::Start { entropy } => {
                if self.phase == Phase::Idle {
                    self.flight.seed(entropy);
                    self.list(now, out);
                }
            }
            Event::Tick => {
                for landed in self.flight.tick(now, out) {
                    self.landed(now, landed, out);
                }
            }
            Event::Shutdown { .. } => {
                let hint = "nothing was changed; run it again".into();
                self.stop(Exit::Failed { error: "interrupted".into(), hint }, out);
            }
            Event::Completed { op, outcome: Outcome::Store(result) } => {
                if let Some(landed) = self.flight.landed(now, op, result, out) {
                    self.landed(now, landed, out);
                }
            }
            Event::Completed { op, outcome } => {
                let Some(object) = self.work.remove(&op) else { return };
                let Outcome::Compute(JobOutput::Restore(RestoreOutput::Stream { stream, decoded, next })) =
                    outcome
                else {
                    panic!("a host answers in kind: {op:?} is a stream");
                };
                self.decoded(now, object, stream, &decoded, next, out);
            }
            Event::SourceChanged
            | Event::SyncNow
            | Event::StoreProbed(_)
            | Event::Lease(_)
            | Event::Stored { .. } => {}
        }
    }

    fn next_deadline(&self) -> Option<(Mono, Reason)> {
        if self.phase == Phase::Stopped { None } else { self.flight.next_deadline() }
    }

    fn status(&self) -> VerifyStatus {
        let chained = self.sound.values().filter(|it| links::is_chained(&it.header)).count() as u64;
        VerifyStatus {
            objects: self.objects.len() as u64,
            checked: self.checked(),
            bytes: self.flight.bytes,
            requests: self.flight.requests,
            chained,
            unchained: self.sound.len() as u64 - chained,
            faults: self.faults.clone(),
        }
    }
}
