//! Fetching pages, proving the result, and finding who is to blame when it is wrong.
//!
//! What a file provides is known once its index has claimed it, and then may be fetched, while the
//! indexes of older files are still being read (`overlap.rs`). The newest files come first and the oldest,
//! which is the largest, last: it fills the gaps between the pages of the others from the beginning to
//! the end, so that each stretch of the result is complete in the order in which a disk likes it.
//!
//! What is held at a time has two limits: bytes as they came from the store, and runs that are being
//! decoded and written, each of which is up to [`OUTPUT_BYTES_MAX`](super::OUTPUT_BYTES_MAX) long.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::keep::Pages;
use super::machine::{File, Key, Phase, Restorer, Then, Work};
use super::present::Presence;
use super::{Decoded, HELD_BYTES_MAX, Next, Purpose, Reader, RestoreJob, Room, Stream, Wins};
use crate::checksum::DbXor;
use crate::ids::{Now, PageNo};
use crate::ltx::LtxError;
use crate::machine::{Actions, ByteRange, Chunk, Fact, OutputRequest, Request, Severity, StoreRequest};

/// How many tasks are looked at for one that may begin.
const LOOKED_AT_MAX: usize = 32;

/// Something to fetch: of a file of the plan a run, or all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Task {
    pub(super) file: usize,
    pub(super) run: Option<usize>,
    /// Tasks of a step are begun when those of the steps before have ended, and only if the result is
    /// not the target yet.
    pub(super) step: u32,
}

/// A task under way.
#[derive(Clone, PartialEq, Debug)]
struct Lane {
    task: Task,
    /// Of a file that is read whole.
    reader: Option<Reader>,
    /// Of a run: its bytes, until it is decoded.
    bytes: Option<Chunk>,
    /// Of a run that is read for itself: its length.
    held: u64,
    /// Whether a run is being decoded, or written.
    decoding: bool,
    /// Whether a write is under way.
    writing: bool,
    /// Of a run: what it writes from.
    room: Option<Chunk>,
    /// Whether nothing but that write is left.
    ending: bool,
}

/// Fetching and writing.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Fetch {
    pub(super) tasks: VecDeque<Task>,
    lanes: BTreeMap<u64, Lane>,
    /// Lanes opened so far.
    opened: u64,
    total: u64,
    step: u32,
    /// Pages fetched so far, where the others may be kept as they stand in the target's place.
    fetched: Option<Pages>,
    /// Files from this one on have their tasks here, while the survey goes on.
    pub(super) down_to: usize,
    /// Tasks that have not begun and whose bytes are at hand.
    pub(super) at_hand: usize,
    /// Memory of runs that were written.
    rooms: Vec<Room>,
}

impl Fetch {
    /// Nothing to fetch yet, of about `total` pages in `files` files.
    pub(super) fn new(total: u64, files: usize) -> Fetch {
        Fetch { total, down_to: files, ..Fetch::default() }
    }

    /// The file that a lane works on.
    pub(super) fn file_of(&self, lane: u64) -> Option<usize> {
        self.lanes.get(&lane).map(|lane| lane.task.file)
    }

    /// Bytes that are read or have been, and are not decoded yet.
    fn held(&self) -> u64 {
        let readers = self.lanes.values().filter_map(|lane| lane.reader.as_ref()).map(Reader::ahead);
        self.lanes.values().map(|lane| lane.held).sum::<u64>() + readers.sum::<u64>()
    }

    fn decoding(&self) -> usize {
        self.lanes.values().filter(|lane| lane.decoding).count()
    }

    /// Runs that wait to be decoded.
    fn backlog(&self) -> usize {
        self.lanes.values().filter(|lane| lane.bytes.is_some()).count()
    }
}

/// Reading all files whole from the oldest to the newest, with the checksum of each page of the
/// database as it was after each, to find the first that is wrong.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Audit {
    at: usize,
    pub(super) reader: Reader,
    sums: Vec<u64>,
    state: DbXor,
    /// What the restore ended with.
    found: DbXor,
}

impl File {
    /// What is fetched of it. The newest is read even if it provides no page: it says how many there are,
    /// and only its own checksum proves that.
    pub(super) fn tasks(&self, at: usize, newest: bool) -> Vec<Task> {
        let task = |run| Task { file: at, run, step: 0 };
        match self.ranged {
            true => (0..self.runs.len()).map(|run| task(Some(run))).collect(),
            false if newest || !self.wins.as_slice().is_empty() => [task(None)].into(),
            false => Vec::new(),
        }
    }
}

impl Restorer {
    /// Fetches what is left, now that all claims are known.
    pub(super) fn begin_fetch(&mut self, now: Now, out: &mut Actions) {
        let header = self.target_header().expect("the target's header was read before its pages");
        if self.fetch.is_some() {
            self.add_claimed(self.used_from);
        } else {
            self.xor = DbXor::new();
            self.pages_done = 0;
            let mut fetch = Fetch::default();
            if let Some(present) = self.present() {
                self.xor = present.xor_of(header.commit);
                fetch.fetched = Some(Pages::new(header.commit));
            }
            self.plan_tasks(&mut fetch);
            fetch.tasks.iter().for_each(|task| self.files[task.file].pending += 1);
            self.fetch = Some(fetch);
        }
        let pages = self.files[self.used_from..].iter().map(|file| file.wins.as_slice().len() as u64);
        let total = pages.sum();
        self.fetch.as_mut().expect("it was just begun").total = total;
        self.phase = Phase::Fetch;
        self.pump_fetch(now, out);
    }

    /// Which runs and files to fetch: from the newest file to the oldest. Where fewer than all may do, one
    /// file after the other and page 1 first. SQLite writes into that by itself, so that it may differ
    /// where nothing else does.
    fn plan_tasks(&mut self, fetch: &mut Fetch) {
        let (guesses, newest) = (self.guesses(), self.files.len() - 1);
        let mut first = None;
        if let Presence::Left(left) = &self.presence {
            return self.plan_missing(left, fetch);
        }
        let order = (self.used_from..self.files.len()).rev();
        if guesses {
            first = order.clone().find(|&at| self.files[at].splits_first());
            fetch.tasks.extend(first.map(|file| Task { file, run: Some(0), step: 0 }));
        }
        let mut step = 0;
        for at in order {
            let file = &self.files[at];
            // What is at hand costs nothing.
            step += u32::from(guesses && !file.wins.as_slice().is_empty() && file.body.is_none());
            let tasks = file.tasks(at, at == newest).into_iter().skip(usize::from(first == Some(at)));
            fetch.tasks.extend(tasks.map(|task| Task { step, ..task }));
        }
    }

    /// Opens lanes, reads ahead, and ends the phase when nothing is left.
    pub(super) fn pump_fetch(&mut self, now: Now, out: &mut Actions) {
        let enough = self.guesses() && self.is_target();
        if let Some(fetch) = self.fetch.as_mut().filter(|_| enough) {
            fetch.tasks.clear();
        }
        while let Some(at) = self.next_task() {
            let Some(fetch) = &mut self.fetch else { return };
            let task = fetch.tasks.remove(at).expect("it was just found");
            fetch.step = task.step;
            fetch.opened += 1;
            let id = fetch.opened;
            self.open_lane(now, id, task, out);
        }
        self.pump_decodes(out);
        self.read_ahead(now, out);
        let Some(fetch) = &self.fetch else { return };
        if self.phase == Phase::Fetch && fetch.lanes.is_empty() && fetch.tasks.is_empty() {
            self.fetched(now, out);
        }
    }

    /// The first task that may begin.
    fn next_task(&self) -> Option<usize> {
        let fetch = self.fetch.as_ref()?;
        let (held, idle) = (fetch.held(), fetch.lanes.is_empty());
        let streams = fetch.lanes.values().filter(|lane| lane.reader.is_some()).count();
        // What a near store gives faster than it is decoded stays where it is.
        let backlog = fetch.backlog() >= self.config.decodes();
        let may_read = !backlog && self.flight.len() < self.config.parallelism;
        let may_begin = |task: &Task| {
            let file = &self.files[task.file];
            match (task.run, &file.body) {
                _ if task.step > fetch.step => idle,
                (Some(_), Some(_)) => !backlog,
                (Some(run), None) => may_read && (held == 0 || held + file.runs[run].len <= HELD_BYTES_MAX),
                (None, Some(_)) => streams < self.config.lanes(),
                (None, None) => streams < self.config.lanes() && self.phase == Phase::Fetch,
            }
        };
        fetch.tasks.iter().take(LOOKED_AT_MAX).position(may_begin)
    }

    /// Whether the pages so far, and all others as they stand in the target's place, are the target.
    fn is_target(&self) -> bool {
        self.target_header().is_some_and(|header| header.chain.post == Some(self.xor.finish()))
    }

    fn open_lane(&mut self, now: Now, id: u64, task: Task, out: &mut Actions) {
        let Some(fetch) = &mut self.fetch else { return };
        let file = &mut self.files[task.file];
        let listed = file.listed;
        let mut lane = Lane {
            task,
            reader: None,
            bytes: None,
            held: 0,
            decoding: false,
            writing: false,
            room: None,
            ending: false,
        };
        if let Some(at) = task.run {
            let run = file.runs[at];
            lane.bytes = file
                .body
                .as_ref()
                .map(|body| body.slice(run.offset as usize, (run.offset + run.len) as usize));
            if lane.bytes.is_some() {
                fetch.at_hand = fetch.at_hand.saturating_sub(1);
            } else {
                lane.held = run.len;
                let range = ByteRange::At { offset: run.offset, len: run.len };
                let request = StoreRequest::Get { object: listed.object, range };
                self.flight.send(now, Key::Run(id), request, out);
            }
            fetch.lanes.insert(id, lane);
            return;
        }
        let (wins, pending_byte) = (file.wins.clone(), self.config.pending_byte);
        let reader = Reader::new(listed, Stream::new(Purpose::Write, wins, pending_byte, &self.dictionaries));
        lane.reader = Some(match file.body.clone() {
            Some(body) => reader.with_body(body),
            None => reader,
        });
        fetch.lanes.insert(id, lane);
        self.pump_lane(id, out);
    }

    /// Keeps as many pieces under way as may be, and at least one for each file that waits.
    fn read_ahead(&mut self, now: Now, out: &mut Actions) {
        let Some(fetch) = &mut self.fetch else { return };
        let mut held = fetch.held();
        for (&id, lane) in &mut fetch.lanes {
            let Some(reader) = &mut lane.reader else { continue };
            let key = |offset| Key::Piece(id, offset);
            let parallelism = if held < HELD_BYTES_MAX { self.config.parallelism } else { 0 };
            let before = reader.ahead();
            reader.read_ahead(now, &mut self.flight, parallelism, key, out);
            held += reader.ahead() - before;
        }
    }

    pub(super) fn take_run(&mut self, now: Now, lane: u64, bytes: Chunk, out: &mut Actions) {
        let Some(it) = self.fetch.as_mut().and_then(|fetch| fetch.lanes.get_mut(&lane)) else { return };
        it.bytes = Some(bytes);
        // Another may be read in its place.
        self.pump_fetch(now, out);
    }

    /// Decodes runs that are at hand, in the order in which they were begun.
    fn pump_decodes(&mut self, out: &mut Actions) {
        let decodes = self.config.decodes();
        while let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.decoding() < decodes) {
            let Some((&id, lane)) = fetch.lanes.iter_mut().find(|(_, lane)| lane.bytes.is_some()) else {
                return;
            };
            let (Some(bytes), Some(run)) = (lane.bytes.take(), lane.task.run) else { return };
            lane.decoding = true;
            let file = &self.files[lane.task.file];
            let header = file.header.expect("pages follow their header");
            let job = RestoreJob::Pages {
                page_size: header.page_size,
                wins: file.wins.clone(),
                run: file.runs[run],
                bytes,
                codec: header.codec,
                dictionaries: self.dictionaries.clone(),
                room: fetch.rooms.pop().unwrap_or_default(),
            };
            self.compute(Work::Pages(id), job, out);
        }
    }

    pub(super) fn take_piece(&mut self, now: Now, lane: u64, offset: u64, bytes: Chunk, out: &mut Actions) {
        if let Phase::Audit(audit) = &mut self.phase {
            audit.reader.arrived(offset, bytes);
            return self.pump_audit(now, out);
        }
        let it = self.fetch.as_mut().and_then(|fetch| fetch.lanes.get_mut(&lane));
        if let Some(reader) = it.and_then(|lane| lane.reader.as_mut()) {
            reader.arrived(offset, bytes);
            self.pump_lane(lane, out);
            self.read_ahead(now, out);
        }
    }

    /// Lets the decoder go on, once what it gave before is written.
    fn pump_lane(&mut self, id: u64, out: &mut Actions) {
        let Some(lane) = self.fetch.as_mut().and_then(|fetch| fetch.lanes.get_mut(&id)) else { return };
        if lane.writing || lane.ending {
            return;
        }
        if let Some(job) = lane.reader.as_mut().and_then(Reader::next_job) {
            self.compute(Work::Stream(id), job, out);
        }
    }

    /// Takes the pages of a run.
    pub(super) fn decoded(
        &mut self,
        now: Now,
        lane: u64,
        result: Result<Decoded, LtxError>,
        out: &mut Actions,
    ) {
        let Some(it) = self.fetch.as_mut().and_then(|fetch| fetch.lanes.get_mut(&lane)) else { return };
        it.ending = true;
        let file = it.task.file;
        match result {
            Ok(decoded) => self.write(now, lane, decoded, out),
            Err(error) => self.blame_file(file, error.to_string(), out),
        }
    }

    /// Takes what a stream gave.
    pub(super) fn streamed(
        &mut self,
        now: Now,
        lane: u64,
        stream: Box<Stream>,
        decoded: Decoded,
        next: Next,
        out: &mut Actions,
    ) {
        let Some(it) = self.fetch.as_mut().and_then(|fetch| fetch.lanes.get_mut(&lane)) else { return };
        let file = it.task.file;
        if let Next::Failed(error) = next {
            return self.blame_file(file, error.to_string(), out);
        }
        let seen = stream.header().copied();
        if let Some(reader) = &mut it.reader {
            reader.back(stream, &next);
        }
        it.ending = matches!(next, Next::End(_));
        if seen.is_some() && seen != self.files[file].header {
            let text = "header at byte 0: expected what was read before, found another".to_string();
            return self.blame_file(file, text, out);
        }
        self.write(now, lane, decoded, out);
    }

    fn write(&mut self, now: Now, lane: u64, decoded: Decoded, out: &mut Actions) {
        self.count(&decoded);
        let Some(fetch) = &mut self.fetch else { return };
        let total = fetch.total;
        let nothing = decoded.writes.is_empty();
        if let Some(it) = fetch.lanes.get_mut(&lane) {
            it.writing = !nothing;
            let first = decoded.writes.first().filter(|_| it.reader.is_none());
            it.room = first.map(|(_, bytes)| bytes.clone());
        }
        if !nothing {
            let request = Request::Output(OutputRequest::Write(decoded.writes));
            self.submit(Work::Write(lane), request, out);
        }
        if self.pages_done - self.told >= (total / 64).max(1) {
            self.told = self.pages_done;
            out.notify(
                Severity::Info,
                Fact::Progress { what: "restoring pages", done: self.pages_done, total },
            );
        }
        if nothing {
            self.lane_rests(now, lane, out);
        }
    }

    /// Counts fetched pages in, and those out that they replace.
    fn count(&mut self, decoded: &Decoded) {
        self.pages_done += u64::from(decoded.pages);
        let Some(fetch) = &mut self.fetch else { return };
        let (Some(fetched), Presence::Seen(present) | Presence::Left(present)) =
            (&mut fetch.fetched, &self.presence)
        else {
            return self.xor.toggle(decoded.xor.finish().get());
        };
        for &(page, sum) in &decoded.sums {
            if let Some(old) = present.sum(page) {
                self.xor.toggle(old);
            }
            self.xor.toggle(sum);
            fetched.insert(page);
        }
    }

    /// The write of a lane has ended.
    pub(super) fn written(&mut self, now: Now, lane: u64, out: &mut Actions) {
        let Some(it) = self.fetch.as_mut().and_then(|fetch| fetch.lanes.get_mut(&lane)) else { return };
        it.writing = false;
        let room = it.room.take();
        if let (Some(room), Some(fetch)) = (room, &mut self.fetch) {
            fetch.rooms.push(Room::of(room));
        }
        self.lane_rests(now, lane, out);
    }

    fn lane_rests(&mut self, now: Now, lane: u64, out: &mut Actions) {
        let Some(fetch) = &mut self.fetch else { return };
        if !fetch.lanes.get(&lane).is_some_and(|lane| lane.ending) {
            self.pump_lane(lane, out);
            return self.read_ahead(now, out);
        }
        let file = fetch.lanes.remove(&lane).expect("it was just found").task.file;
        self.task_ended(file);
        self.pump_survey(now, out);
        self.pump_fetch(now, out);
    }

    /// Everything is written: is it right?
    fn fetched(&mut self, now: Now, out: &mut Actions) {
        let header = self.target_header().expect("the target's header was read before its pages");
        let kept = self.fetch.take().and_then(|fetch| fetch.fetched);
        match (header.chain.post, kept) {
            (Some(expected), _) if expected != self.xor.finish() => {
                if self.present().is_some() {
                    let why = "what was fetched and what was there do not give the state";
                    return self.restore_whole(why, out);
                }
                self.begin_audit(now, out);
            }
            (Some(_), Some(fetched)) if matches!(self.presence, Presence::Seen(_)) => {
                self.begin_keep(fetched, out);
            }
            (promised, fetched) => {
                if let (Some(fetched), Presence::Left(left)) = (fetched, &self.presence) {
                    self.pages_kept = left.count(header.commit, &fetched);
                }
                self.proven = promised.is_some();
                self.finish(out);
            }
        }
    }

    fn begin_audit(&mut self, now: Now, out: &mut Actions) {
        let text =
            "the restored pages have another checksum than the target promises; reading all files whole";
        out.notify(Severity::Warn, Fact::Remark { text: text.into() });
        let at = self.used_from;
        let (reader, found) = (self.auditor(at), self.xor);
        self.phase = Phase::Audit(Audit { at, reader, sums: Vec::new(), state: DbXor::new(), found });
        self.pump_audit(now, out);
    }

    fn auditor(&self, at: usize) -> Reader {
        let stream =
            Stream::new(Purpose::Sums, Wins::default(), self.config.pending_byte, &self.dictionaries);
        Reader::new(self.files[at].listed, stream)
    }

    fn pump_audit(&mut self, now: Now, out: &mut Actions) {
        let Phase::Audit(audit) = &mut self.phase else { return };
        let reader = &mut audit.reader;
        // Nothing else reads meanwhile: as far ahead as the reader itself allows.
        reader.read_ahead(now, &mut self.flight, usize::MAX, |offset| Key::Piece(0, offset), out);
        if let Some(job) = reader.next_job() {
            self.compute(Work::Stream(0), job, out);
        }
    }

    pub(super) fn audited(
        &mut self,
        now: Now,
        stream: Box<Stream>,
        decoded: &Decoded,
        next: Next,
        out: &mut Actions,
    ) {
        let Phase::Audit(audit) = &mut self.phase else { return };
        let at = audit.at;
        audit.note(stream.header().map_or(0, |header| header.commit), &decoded.sums);
        match next {
            Next::Failed(error) => return self.blame_file(at, error.to_string(), out),
            Next::Bytes | Next::More => audit.reader.back(stream, &next),
            Next::End(_) => {
                let state = audit.state.finish();
                let promised = self.files[at].header.and_then(|header| header.chain.post);
                if let Some(promised) = promised.filter(|&promised| promised != state) {
                    let text = format!(
                        "post-state at byte 88: expected {promised} as its header says, found {state} by its pages and those before"
                    );
                    return self.blame_file(at, text, out);
                }
                if at + 1 == self.files.len() {
                    return self.acquitted(out);
                }
                let reader = self.auditor(at + 1);
                if let Phase::Audit(audit) = &mut self.phase {
                    audit.at = at + 1;
                    audit.reader = reader;
                }
            }
        }
        self.pump_audit(now, out);
    }

    /// Every file is sound, so what came in was not: once may be the wire.
    fn acquitted(&mut self, out: &mut Actions) {
        let Phase::Audit(audit) = &self.phase else { return };
        let (found, state) = (audit.found.finish(), audit.state.finish());
        if self.rereads == 0 {
            self.rereads += 1;
            let text = "all files are sound when read whole; restoring once more";
            out.notify(Severity::Warn, Fact::Remark { text: text.into() });
            return self.settle(Then::Plan, out);
        }
        let text = format!(
            "the store gives other bytes for parts than for the whole: expected {state}, found {found} at byte 0"
        );
        self.blame_file(self.files.len() - 1, text, out);
    }
}

impl Audit {
    /// Applies pages of the file being read; `commit` is the size of the database after it.
    fn note(&mut self, commit: u32, sums: &[(PageNo, u64)]) {
        let size = commit as usize;
        for sum in self.sums.drain(size.min(self.sums.len())..) {
            if sum != 0 {
                self.state.toggle(sum);
            }
        }
        self.sums.resize(size, 0);
        for &(page, sum) in sums {
            let slot = &mut self.sums[page.get() as usize - 1];
            if *slot != 0 {
                self.state.toggle(*slot);
            }
            self.state.toggle(sum);
            *slot = sum;
        }
    }
}
