//! One compaction: reading the inputs in pieces, merging them, and putting what comes out.
//!
//! Memory is bounded: a piece or two of each input, the decoders' frames, a part or two of the result, and
//! the page indexes. The object comes to exist by the commit, which is asked for only after every input has
//! shown that it is whole. If an object of the name is there already, or nobody knows what became of the
//! commit, the header there decides; it is never replaced.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::levels::Batch;
use super::machine::{Compactor, Failure, Step};
use super::merge::{Merge, MergeJob, MergeNext, MergeOutput};
use super::standing::{Standing, standing};
use crate::engine::decode_header;
use crate::ids::{Level, Mono, Now};
use crate::job::Job;
use crate::ltx::{Dictionaries, Dictionary, DictionaryId, LTX_HEADER_BYTES, LtxHeader, Trailer};
use crate::machine::{
    Action, Actions, ByteRange, Chunk, Fact, Listed, Object, OpId, PART_BYTES_MAX, PutCondition, PutId,
    Reason, Request, Severity, StoreError, StoreErrorKind, StoreReply, StoreRequest, body_time,
};
use crate::restore::{Next, Purpose, RUN_BYTES_MAX, Reader, Stream, Wins};

/// Reads under way at once.
const READS_MAX: usize = 4;
/// Bytes of all inputs that are read ahead, about.
const AHEAD_BYTES: u64 = 8 << 20;
/// Bytes of one read of an input, at least and at most.
const WINDOW_BYTES: (u64, u64) = (64 << 10, RUN_BYTES_MAX);
/// Bytes of the result that a request of its put may have to wait for.
const IN_FLIGHT_MAX: u64 = 32 << 20;

/// What a read is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    List,
    /// A piece of an input.
    Piece(usize),
    /// A piece of the result, at this offset.
    Check(u64),
    /// A dictionary that an input names.
    Dictionary(DictionaryId),
}

/// A file that is merged.
#[derive(Clone, PartialEq, Debug)]
struct Input {
    listed: Listed,
    asked: u64,
    under_way: bool,
    ready: Option<Chunk>,
    /// The merge cannot go on without more of it.
    wanted: bool,
}

impl Input {
    /// Whether a read of it may be sent.
    fn may_be_read(&self) -> bool {
        !self.under_way && self.ready.is_none() && self.asked < self.listed.len
    }

    /// Whether what the merge wants of it has not come.
    fn is_awaited(&self) -> bool {
        self.wanted && (self.under_way || self.may_be_read())
    }
}

/// Where the put of the result stands.
#[derive(Clone, PartialEq, Debug)]
enum Put {
    /// Its header is not known yet.
    Await,
    /// Does anything stand there? Asked of stores that would replace it.
    Vacant,
    Open,
    Ready(PutId),
    Part(PutId),
    Commit,
    /// What stands there?
    ReadBack,
    /// What stands there is read whole before it counts.
    Check {
        reader: Box<Reader>,
        /// What it must end with, if we wrote it just now.
        trailer: Option<Trailer>,
    },
}

/// A compaction under way.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Work {
    batch: Batch,
    inputs: Vec<Input>,
    /// `None` while a job has it.
    merge: Option<Box<Merge>>,
    job: Option<OpId>,
    dictionaries: Dictionaries,
    /// The dictionary that was asked for; the merge begins again once it is here.
    lacks: Option<DictionaryId>,
    header: Option<LtxHeader>,
    /// What came out and was not sent.
    out: VecDeque<Chunk>,
    /// Pages in the result and its end, once all has come out.
    end: Option<(u32, Trailer)>,
    put: Put,
    /// The put's request under way, and since when.
    op: Option<(OpId, Mono)>,
    sent: u64,
}

impl Failure {
    /// Something that is not as it was listed, or does not fit.
    pub(super) fn outdated(text: String) -> Failure {
        Failure { text, hint: String::new(), outdated: true }
    }

    /// What only a look at the whole replica explains.
    fn damaged(text: String) -> Failure {
        Failure { text, hint: "run driftless verify on the replica".to_string(), outdated: true }
    }

    pub(super) fn of_store(what: &str, error: StoreError) -> Failure {
        let outdated = error.kind == StoreErrorKind::NotFound;
        Failure { text: format!("{what}: {}", error.text), hint: error.hint, outdated }
    }
}

impl Work {
    pub(super) fn new(batch: Batch, pending_byte: u64, dictionaries: Dictionaries) -> Work {
        let input = |listed: &Listed| Input {
            listed: *listed,
            asked: 0,
            under_way: false,
            ready: None,
            wanted: true,
        };
        Work {
            inputs: batch.inputs.iter().map(input).collect(),
            merge: Some(Box::new(Merge::new(
                &batch.inputs,
                batch.object.range,
                pending_byte,
                dictionaries.clone(),
            ))),
            job: None,
            dictionaries,
            lacks: None,
            header: None,
            out: VecDeque::new(),
            end: None,
            put: Put::Await,
            op: None,
            sent: 0,
            batch,
        }
    }

    pub(super) fn level(&self) -> Level {
        self.batch.object.level
    }

    pub(super) fn more(&self) -> bool {
        self.batch.more
    }

    /// The fact that it was made.
    pub(super) fn told(&self, file: &Listed) -> Fact {
        Fact::Compacted {
            object: file.object,
            bytes: file.len,
            inputs: self.inputs.len() as u32,
            inputs_bytes: self.inputs.iter().map(|input| input.listed.len).sum(),
        }
    }

    fn object(&self) -> Object {
        self.batch.object
    }

    /// Asks for pieces: of those inputs first that the merge waits for.
    fn next_piece(&mut self) -> Option<(usize, StoreRequest)> {
        let window = (AHEAD_BYTES / self.inputs.len() as u64).clamp(WINDOW_BYTES.0, WINDOW_BYTES.1);
        let inputs = || self.inputs.iter().enumerate().filter(|(_, input)| input.may_be_read());
        let (at, _) = inputs().find(|(_, input)| input.wanted).or_else(|| inputs().next())?;
        let input = &mut self.inputs[at];
        let (offset, len) = (input.asked, window.min(input.listed.len - input.asked));
        input.asked += len;
        input.under_way = true;
        let range = ByteRange::At { offset, len };
        Some((at, StoreRequest::Get { object: input.listed.object, range }))
    }

    /// The next job, if the merge is here, has what it lacks, and has room for what comes out.
    fn next_job(&mut self) -> Option<MergeJob> {
        let waiting: usize = self.out.iter().map(|chunk| chunk.len()).sum();
        if self.merge.is_none() || self.end.is_some() || waiting >= PART_BYTES_MAX {
            return None;
        }
        if self.inputs.iter().any(Input::is_awaited) {
            return None;
        }
        let mut pieces = Vec::new();
        for (at, input) in self.inputs.iter_mut().enumerate().filter(|(_, input)| input.wanted) {
            pieces.extend(input.ready.take().map(|bytes| (at, bytes)));
            input.wanted = false;
        }
        Some(MergeJob { merge: self.merge.take()?, pieces })
    }

    /// Takes what a job gave; what is wrong, if it cannot go on.
    fn take_output(&mut self, output: MergeOutput) -> Result<(), String> {
        let MergeOutput { merge, bytes, next } = output;
        self.header = merge.begun();
        self.merge = Some(merge);
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + PART_BYTES_MAX).min(bytes.len());
            self.out.push_back(bytes.slice(at, end));
            at = end;
        }
        match next {
            MergeNext::Bytes(inputs) => inputs.into_iter().for_each(|at| self.inputs[at].wanted = true),
            MergeNext::More => {}
            MergeNext::Dictionary(id) => self.lacks = Some(id),
            MergeNext::End { pages, trailer } => self.end = Some((pages, trailer)),
            MergeNext::Failed { input: Some(at), text } => {
                return Err(format!("{}: {text}", self.inputs[at].listed.object));
            }
            MergeNext::Failed { input: None, text } => {
                let (first, last) = (&self.inputs[0], &self.inputs[self.inputs.len() - 1]);
                return Err(format!("{} to {}: {text}", first.listed.object, last.listed.object));
            }
        }
        Ok(())
    }

    /// The next request of the put, if none is under way and there is anything to ask.
    fn next_put(&mut self, create_if_absent: bool) -> Option<Request> {
        let object = self.object();
        let request = match &self.put {
            _ if self.op.is_some() => return None,
            Put::Await => {
                self.header?;
                if create_if_absent {
                    self.put = Put::Open;
                    StoreRequest::PutOpen { object, condition: PutCondition::IfAbsent }
                } else {
                    self.put = Put::Vacant;
                    return Some(header_request(object));
                }
            }
            // Asked again only after the look.
            Put::Open => StoreRequest::PutOpen { object, condition: PutCondition::Always },
            Put::Ready(put) => {
                let put = *put;
                if let Some(bytes) = self.out.pop_front() {
                    self.put = Put::Part(put);
                    self.sent += bytes.len() as u64;
                    StoreRequest::PutPart { put, bytes }
                } else {
                    self.end?;
                    self.put = Put::Commit;
                    StoreRequest::PutCommit { put }
                }
            }
            Put::Vacant | Put::Part(_) | Put::Commit | Put::ReadBack | Put::Check { .. } => return None,
        };
        Some(Request::Store(request))
    }
}

impl Compactor {
    fn work(&mut self) -> Option<&mut Work> {
        if let Step::Work(work) = &mut self.step { Some(work) } else { None }
    }

    pub(super) fn put_awaits(&self, op: OpId) -> bool {
        matches!(&self.step, Step::Work(work) if work.op.is_some_and(|(awaited, _)| awaited == op))
    }

    pub(super) fn job_awaits(&self, op: OpId) -> bool {
        matches!(&self.step, Step::Work(work) if work.job == Some(op))
    }

    /// Starts whatever can be started.
    pub(super) fn pump_work(&mut self, now: Now, out: &mut Actions) {
        let Step::Work(work) = &mut self.step else { return };
        if let Put::Check { reader, .. } = &mut work.put {
            reader.read_ahead(now, &mut self.flight, READS_MAX, Key::Check, out);
            if let Some(job) = reader.next_job() {
                work.job = Some(self.flight.submit(Request::Compute(Job::Restore(job)), out));
            }
            return;
        }
        if let Put::ReadBack = work.put {
            work.op = work.op.or_else(|| {
                let request = header_request(work.batch.object);
                Some((self.flight.submit(request, out), now.mono))
            });
            return;
        }
        if work.lacks.is_some() {
            return;
        }
        while self.flight.len() < READS_MAX
            && let Some((at, request)) = work.next_piece()
        {
            self.flight.send(now, Key::Piece(at), request, out);
        }
        if let Some(job) = work.next_job() {
            work.job = Some(self.flight.submit(Request::Compute(Job::Merge(job)), out));
        }
        if let Some(request) = work.next_put(self.config.create_if_absent) {
            work.op = Some((self.flight.submit(request, out), now.mono));
        }
    }

    pub(super) fn work_landed(
        &mut self,
        now: Now,
        key: Key,
        result: Result<StoreReply, StoreError>,
        out: &mut Actions,
    ) {
        let Step::Work(work) = &mut self.step else { return };
        let level = work.level();
        if let Key::Dictionary(id) = key {
            return self.take_dictionary(now, id, result, out);
        }
        let listed = match (key, &work.put) {
            (Key::Check(_), Put::Check { reader, .. }) => reader.listed,
            (Key::Piece(at), _) => work.inputs[at].listed,
            _ => return,
        };
        let what = format!("read {}", listed.object);
        let (bytes, object_len) = match result {
            Ok(StoreReply::Bytes { bytes, object_len }) => (bytes, object_len),
            Ok(reply) => unreachable!("a read is not answered by {reply:?}"),
            Err(error) => return self.fail(now, level, Failure::of_store(&what, error), out),
        };
        if object_len != listed.len {
            let text = format!("{what}: it is {object_len} bytes long where {} were listed", listed.len);
            return self.fail(now, level, Failure::outdated(text), out);
        }
        match (key, &mut work.put) {
            (Key::Check(offset), Put::Check { reader, .. }) => reader.arrived(offset, bytes),
            (Key::Piece(at), _) => {
                let input = &mut work.inputs[at];
                (input.under_way, input.ready) = (false, Some(bytes));
            }
            _ => {}
        }
    }

    pub(super) fn merged(&mut self, now: Now, output: MergeOutput, out: &mut Actions) {
        let Some(work) = self.work() else { return };
        work.job = None;
        let level = work.level();
        if let Err(text) = work.take_output(output) {
            return self.fail(now, level, Failure::damaged(text), out);
        }
        if let Some(id) = self.work().and_then(|work| work.lacks) {
            self.flight.cancel_all(out);
            self.flight.send(now, Key::Dictionary(id), StoreRequest::GetDictionary { id }, out);
        }
    }

    /// Begins the merge again, with a dictionary that it lacked. Nothing was put before.
    fn take_dictionary(
        &mut self,
        now: Now,
        id: DictionaryId,
        result: Result<StoreReply, StoreError>,
        out: &mut Actions,
    ) {
        let pending_byte = self.config.pending_byte;
        let Some(work) = self.work() else { return };
        let level = work.level();
        let text = match result {
            Ok(StoreReply::Bytes { bytes, .. }) => match Dictionary::read(id, &bytes) {
                Ok(dictionary) => {
                    let mut dictionaries = work.dictionaries.clone();
                    dictionaries.add(dictionary);
                    *work = Work::new(work.batch.clone(), pending_byte, dictionaries);
                    return;
                }
                Err(text) => text,
            },
            Ok(reply) => unreachable!("a read is not answered by {reply:?}"),
            Err(error) => format!("read dictionary {id}: {}", error.text),
        };
        self.fail(now, level, Failure::damaged(text), out);
    }

    pub(super) fn put_completed(
        &mut self,
        now: Now,
        op: OpId,
        result: Result<StoreReply, StoreError>,
        out: &mut Actions,
    ) {
        let Some(work) = self.work() else { return };
        work.op = None;
        match result {
            Ok(StoreReply::Bytes { bytes, object_len }) => self.judge(now, &bytes, object_len, out),
            Ok(_) => match work.put {
                Put::Open => work.put = Put::Ready(op),
                Put::Part(put) => work.put = Put::Ready(put),
                Put::Commit => {
                    let trailer = work.end.map(|(_, trailer)| trailer);
                    let file = Listed { object: work.object(), len: work.sent, modified: None };
                    self.stands(now, file, trailer, out);
                }
                ref put => unreachable!("{put:?} is not done by an answer without bytes"),
            },
            Err(error) => self.put_failed(now, op, error, out),
        }
    }

    fn put_failed(&mut self, now: Now, op: OpId, error: StoreError, out: &mut Actions) {
        let Some(work) = self.work() else { return };
        let (level, kind) = (work.level(), error.kind);
        match work.put {
            Put::Vacant if kind == StoreErrorKind::NotFound => work.put = Put::Open,
            Put::Open | Put::Part(_) | Put::Commit if kind == StoreErrorKind::AlreadyExists => {
                self.look(out);
            }
            Put::Commit if kind == StoreErrorKind::Ambiguous => self.look(out),
            ref put => {
                // It may be open all the same.
                let open = matches!(put, Put::Open).then_some(op);
                let what = format!("write {}", work.object());
                if let Some(put) = open {
                    self.flight.submit(Request::Store(StoreRequest::PutAbort { put }), out);
                }
                self.fail(now, level, Failure::of_store(&what, error), out);
            }
        }
    }

    /// What stands there decides; what is read for the result is not needed any more.
    fn look(&mut self, out: &mut Actions) {
        self.drop_requests(out);
        if let Some(work) = self.work() {
            work.put = Put::ReadBack;
        }
    }

    /// Whose is it that stands there?
    fn judge(&mut self, now: Now, bytes: &[u8], object_len: u64, out: &mut Actions) {
        let Some(work) = self.work() else { return };
        let (level, object) = (work.level(), work.object());
        let ours = work.header.expect("a put follows the header");
        let found = match decode_header(bytes) {
            Ok(found) => found,
            Err(error) => {
                let text = format!(
                    "the object {object} that stands where a compaction was to go is damaged: {error}"
                );
                self.levels.refuse(object);
                return self.fail(now, level, Failure::damaged(text), out);
            }
        };
        match standing(&ours, &found) {
            Standing::Other => {
                let text = format!(
                    "{object} is there already, and is not what its files make: it belongs to lineage {} and leads to {}",
                    found.lineage.map_or("none".to_string(), |lineage| lineage.to_string()),
                    found.chain.post.map_or("an unknown state".to_string(), |post| post.to_string()),
                );
                let hint = "another program writes to this replica; it is left as it is".to_string();
                self.levels.refuse(object);
                return self.fail(now, level, Failure { text, hint, outdated: true }, out);
            }
            Standing::Unchained => {
                let text = format!("{object} was written by another program from the same files: it is kept");
                out.notify(Severity::Info, Fact::Remark { text });
            }
            Standing::Same => {}
        }
        self.drop_requests(out);
        self.stands(now, Listed { object, len: object_len, modified: None }, None, out);
    }

    /// The result is there. It counts at once, or once it has been read.
    fn stands(&mut self, now: Now, file: Listed, trailer: Option<Trailer>, out: &mut Actions) {
        if !self.config.verify {
            return self.finished(now, file, out);
        }
        self.flight.cancel_all(out);
        let pending_byte = self.config.pending_byte;
        let Some(work) = self.work() else { return };
        let stream = Stream::new(Purpose::Check, Wins::default(), pending_byte, &work.dictionaries);
        work.put = Put::Check { reader: Box::new(Reader::new(file, stream)), trailer };
    }

    /// More of the result was read back.
    pub(super) fn checked(&mut self, now: Now, stream: Box<Stream>, next: Next, out: &mut Actions) {
        let Some(work) = self.work() else { return };
        work.job = None;
        let (level, object, ours) = (work.level(), work.object(), work.header);
        let Put::Check { reader, trailer } = &mut work.put else { return };
        let wrong = match next {
            Next::Bytes | Next::More => return reader.back(stream, &next),
            Next::Failed(error) => error.to_string(),
            Next::End(found) if trailer.is_some_and(|expected| expected != found) => {
                "another file checksum than was written".to_string()
            }
            Next::End(_) => {
                let file = reader.listed;
                let found = stream.header().copied();
                let same = found.zip(ours).is_some_and(|(found, ours)| {
                    if trailer.is_some() { found == ours } else { standing(&ours, &found) != Standing::Other }
                });
                if same {
                    return self.finished(now, file, out);
                }
                "another header than was written".to_string()
            }
        };
        let text = format!("{object} was read back before it counts, and is not sound: {wrong}");
        let hint = "it is not used; run driftless verify on the replica".to_string();
        self.fail(now, level, Failure { text, hint, outdated: false }, out);
    }

    pub(super) fn put_deadline(&self) -> Option<(Mono, Reason)> {
        let Step::Work(work) = &self.step else { return None };
        let (_, since) = work.op?;
        Some((since.after(self.put_time(work.sent)), Reason::Deadline))
    }

    /// How long a request of the put may take after so many bytes.
    fn put_time(&self, sent: u64) -> Duration {
        let slow = if self.config.remote { body_time(sent.min(IN_FLIGHT_MAX), 1) } else { Duration::ZERO };
        self.config.store_deadline + slow
    }

    pub(super) fn put_tick(&mut self, now: Now, out: &mut Actions) {
        let Some((at, _)) = self.put_deadline().filter(|(at, _)| *at <= now.mono) else { return };
        let Some((op, since)) = self.work().and_then(|work| work.op.take()) else { return };
        out.push(Action::Cancel { op });
        let text = format!("no answer from the store in {} s", at.since(since).as_secs());
        // A put that was not answered may have had its effect.
        self.put_failed(now, op, StoreError::new(StoreErrorKind::Ambiguous, text), out);
    }

    /// Awaits nothing more of what was asked for, and forgets the body.
    fn drop_requests(&mut self, out: &mut Actions) {
        self.flight.cancel_all(out);
        let Some(work) = self.work() else { return };
        let op = work.op.take().map(|(op, _)| op);
        op.into_iter().chain(work.job.take()).for_each(|op| out.push(Action::Cancel { op }));
        work.out.clear();
        let open = match work.put {
            Put::Ready(put) | Put::Part(put) => Some(put),
            Put::Open => op,
            _ => None,
        };
        let Some(put) = open else { return };
        self.flight.submit(Request::Store(StoreRequest::PutAbort { put }), out);
    }

    pub(super) fn drop_work(&mut self, out: &mut Actions) {
        self.drop_requests(out);
    }
}

/// Asks for the header of what stands under a name.
fn header_request(object: Object) -> Request {
    let range = ByteRange::At { offset: 0, len: LTX_HEADER_BYTES as u64 };
    Request::Store(StoreRequest::Get { object, range })
}
