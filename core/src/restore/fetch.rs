//! Fetching pages, proving the result, and finding who is to blame when it is wrong.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::keep::Pages;
use super::machine::{Key, Phase, Restorer, Then, Work};
use super::present::Presence;
use super::{Decoded, Next, Purpose, Reader, RestoreJob, Stream, Wins};
use crate::checksum::DbXor;
use crate::ids::{Now, PageNo};
use crate::ltx::LtxError;
use crate::machine::{Actions, ByteRange, Chunk, Fact, OutputRequest, Request, Severity, StoreRequest};

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
    /// Whether a write is under way.
    writing: bool,
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
    pub(super) total: u64,
    step: u32,
    /// Pages fetched so far, where the others may be kept as they stand in the target's place.
    fetched: Option<Pages>,
}

impl Fetch {
    /// The file that a lane works on.
    pub(super) fn file_of(&self, lane: u64) -> Option<usize> {
        self.lanes.get(&lane).map(|lane| lane.task.file)
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

impl Restorer {
    pub(super) fn begin_fetch(&mut self, now: Now, out: &mut Actions) {
        let header = self.target_header().expect("the target's header was read before its pages");
        self.xor = DbXor::new();
        self.pages_done = 0;
        let mut fetch = Fetch::default();
        if let Some(present) = self.present() {
            self.xor = present.xor_of(header.commit);
            fetch.fetched = Some(Pages::new(header.commit));
        }
        self.plan_tasks(&mut fetch);
        self.phase = Phase::Fetch(fetch);
        self.pump_fetch(now, out);
    }

    /// Which runs and files to fetch. In any order, unless fewer than all may do: then from the newest
    /// file to the oldest, and page 1 first. SQLite writes into that by itself, so that it may differ
    /// where nothing else does.
    fn plan_tasks(&mut self, fetch: &mut Fetch) {
        let (guesses, newest) = (self.guesses(), self.files.len() - 1);
        let mut order: Vec<usize> = (self.used_from..self.files.len()).collect();
        let mut first = None;
        if let Presence::Left(left) = &self.presence {
            return self.plan_missing(left, fetch);
        }
        if guesses {
            order.reverse();
            first = order.iter().copied().find(|&at| self.files[at].splits_first());
            fetch.tasks.extend(first.map(|file| Task { file, run: Some(0), step: 0 }));
        }
        let mut step = 0;
        for at in order {
            let file = &self.files[at];
            let pages = file.wins.as_slice().len() as u64;
            fetch.total += pages;
            // What is at hand costs nothing.
            step += u32::from(guesses && pages > 0 && file.body.is_none());
            if file.ranged {
                let from = usize::from(first == Some(at));
                let tasks = (from..file.runs.len()).map(|run| Task { file: at, run: Some(run), step });
                fetch.tasks.extend(tasks);
            } else if pages > 0 || at == newest {
                // The newest says how many pages there are, and only its own checksum proves that.
                fetch.tasks.push_back(Task { file: at, run: None, step });
            }
        }
    }

    /// Opens lanes, reads ahead, and ends the phase when nothing is left.
    fn pump_fetch(&mut self, now: Now, out: &mut Actions) {
        let lanes = self.config.lanes();
        loop {
            let enough = self.guesses() && self.is_target();
            let Phase::Fetch(fetch) = &mut self.phase else { return };
            if enough {
                fetch.tasks.clear();
            }
            let Some(task) = fetch.tasks.front().copied() else { break };
            let waits = task.step > fetch.step && !fetch.lanes.is_empty();
            if waits || fetch.lanes.len() >= lanes {
                break;
            }
            fetch.tasks.pop_front();
            fetch.step = task.step;
            fetch.opened += 1;
            let id = fetch.opened;
            self.open_lane(now, id, task, out);
        }
        self.read_ahead(now, out);
        let Phase::Fetch(fetch) = &self.phase else { return };
        if fetch.lanes.is_empty() && fetch.tasks.is_empty() {
            self.fetched(now, out);
        }
    }

    /// Whether the pages so far, and all others as they stand in the target's place, are the target.
    fn is_target(&self) -> bool {
        self.target_header().is_some_and(|header| header.chain.post == Some(self.xor.finish()))
    }

    fn open_lane(&mut self, now: Now, id: u64, task: Task, out: &mut Actions) {
        let Phase::Fetch(fetch) = &mut self.phase else { return };
        let file = &mut self.files[task.file];
        let listed = file.listed;
        let mut lane = Lane { task, reader: None, writing: false, ending: false };
        if let Some(at) = task.run {
            let run = file.runs[at];
            let range = ByteRange::At { offset: run.offset, len: run.len };
            let body = file.body.clone();
            fetch.lanes.insert(id, lane);
            match body {
                Some(body) => {
                    self.take_run(id, body.slice(run.offset as usize, (run.offset + run.len) as usize), out)
                }
                None => self.flight.send(
                    now,
                    Key::Run(id),
                    StoreRequest::Get { object: listed.object, range },
                    out,
                ),
            }
            return;
        }
        let (wins, pending_byte) = (file.wins.clone(), self.config.pending_byte);
        let reader = Reader::new(listed, Stream::new(Purpose::Write, wins, pending_byte, &self.dictionaries));
        lane.reader = Some(match file.body.take() {
            Some(body) => reader.with_body(body),
            None => reader,
        });
        fetch.lanes.insert(id, lane);
        self.pump_lane(id, out);
    }

    /// Keeps as many pieces under way as may be, and at least one for each file that waits.
    fn read_ahead(&mut self, now: Now, out: &mut Actions) {
        let lanes = self.config.lanes();
        let Phase::Fetch(fetch) = &mut self.phase else { return };
        for (&id, lane) in &mut fetch.lanes {
            let Some(reader) = &mut lane.reader else { continue };
            let key = |offset| Key::Piece(id, offset);
            reader.read_ahead(now, &mut self.flight, lanes, key, out);
        }
    }

    pub(super) fn take_run(&mut self, lane: u64, bytes: Chunk, out: &mut Actions) {
        let Phase::Fetch(fetch) = &self.phase else { return };
        let Some(Task { file, run: Some(run), .. }) = fetch.lanes.get(&lane).map(|lane| lane.task) else {
            return;
        };
        let file = &self.files[file];
        let header = file.header.expect("pages follow their header");
        let job = RestoreJob::Pages {
            page_size: header.page_size,
            wins: file.wins.clone(),
            run: file.runs[run],
            bytes,
            codec: header.codec,
            dictionaries: self.dictionaries.clone(),
        };
        self.compute(Work::Pages(lane), job, out);
    }

    pub(super) fn take_piece(&mut self, now: Now, lane: u64, offset: u64, bytes: Chunk, out: &mut Actions) {
        match &mut self.phase {
            Phase::Audit(audit) => {
                audit.reader.arrived(offset, bytes);
                self.pump_audit(now, out);
            }
            Phase::Fetch(fetch) => {
                if let Some(reader) = fetch.lanes.get_mut(&lane).and_then(|lane| lane.reader.as_mut()) {
                    reader.arrived(offset, bytes);
                    self.pump_lane(lane, out);
                    self.read_ahead(now, out);
                }
            }
            _ => {}
        }
    }

    /// Lets the decoder go on, once what it gave before is written.
    fn pump_lane(&mut self, id: u64, out: &mut Actions) {
        let Phase::Fetch(fetch) = &mut self.phase else { return };
        let Some(lane) = fetch.lanes.get_mut(&id) else { return };
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
        let Phase::Fetch(fetch) = &mut self.phase else { return };
        let Some(it) = fetch.lanes.get_mut(&lane) else { return };
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
        let Phase::Fetch(fetch) = &mut self.phase else { return };
        let Some(it) = fetch.lanes.get_mut(&lane) else { return };
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
        let Phase::Fetch(fetch) = &mut self.phase else { return };
        let total = fetch.total;
        let nothing = decoded.writes.is_empty();
        if let Some(it) = fetch.lanes.get_mut(&lane) {
            it.writing = !nothing;
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
        let Phase::Fetch(fetch) = &mut self.phase else { return };
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
        let Phase::Fetch(fetch) = &mut self.phase else { return };
        let Some(it) = fetch.lanes.get_mut(&lane) else { return };
        it.writing = false;
        self.lane_rests(now, lane, out);
    }

    fn lane_rests(&mut self, now: Now, lane: u64, out: &mut Actions) {
        let Phase::Fetch(fetch) = &mut self.phase else { return };
        if fetch.lanes.get(&lane).is_some_and(|lane| lane.ending) {
            fetch.lanes.remove(&lane);
            self.pump_fetch(now, out);
        } else {
            self.pump_lane(lane, out);
            self.read_ahead(now, out);
        }
    }

    /// Everything is written: is it right?
    fn fetched(&mut self, now: Now, out: &mut Actions) {
        let header = self.target_header().expect("the target's header was read before its pages");
        let kept = match &mut self.phase {
            Phase::Fetch(fetch) => fetch.fetched.take(),
            _ => None,
        };
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
