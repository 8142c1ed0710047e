//! One machine under a script, and what is seen of it after each step.

use std::sync::{Arc, Mutex};

use driftless_core::machine::{Slot, SourceError, SourceReply, SourceRequest};
use driftless_sim::disk::Stat;
use driftless_sim::ring0::reading;
use driftless_sim::ring0::sqlite::{Connection, Counts, Source, SqlError, SqlErrorKind, Sqlite};
use driftless_sim::vfs::VfsOp;

use super::PENDING;
use super::script::{Fault, Step, Who};

const PATH: &str = "/a.db";
const COPY: &str = "/copy.db";
const NAMES: [&str; 2] = ["one", "two"];
const LINK: &str = "link";

/// What a slot of the link is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begun {
    Not,
    Read,
    Immediate,
}

/// The machine, its two applications and a replicator's port.
pub struct Bench<'a> {
    sqlite: &'a dyn Sqlite,
    writers: [Option<Box<dyn Connection>>; 2],
    readers: [Option<Box<dyn Connection>>; 2],
    source: Option<Box<dyn Source>>,
    open: bool,
    /// Whether slots A and B are in a transaction.
    begun: [Begun; 2],
    fault: Arc<Mutex<Option<(&'static str, Fault)>>>,
    /// Salts that were seen, in order.
    salts: Vec<[u8; 8]>,
    stats: [Option<Stat>; 2],
}

impl<'a> Bench<'a> {
    pub fn new(sqlite: &'a dyn Sqlite) -> Bench<'a> {
        let fault: Arc<Mutex<Option<(&'static str, Fault)>>> = Arc::default();
        let armed = Arc::clone(&fault);
        sqlite.set_fault_hook(Arc::new(move |process: &str, op, path: &str| {
            let mut armed = armed.lock().expect("no one panicked");
            let (who, fault) = (*armed)?;
            let hit = who == process && fault.op == op && path.ends_with(fault.suffix);
            hit.then(|| armed.take().map(|(_, fault)| fault.kind)).flatten()
        }));
        Bench {
            sqlite,
            writers: [None, None],
            readers: [None, None],
            source: None,
            open: false,
            begun: [Begun::Not; 2],
            fault,
            salts: Vec::new(),
            stats: [None, None],
        }
    }

    /// Does one step; answers how it ended and what is seen then.
    pub fn perform(&mut self, step: &Step) -> String {
        let end = self.run(step);
        *self.fault.lock().expect("no one panicked") = None;
        let mut end = end.unwrap_or_else(|error| self.sort(&error));
        for (who, name) in NAMES.iter().enumerate() {
            let had = self.writers[who].is_some() || self.readers[who].is_some();
            if had && !self.sqlite.is_alive(name) {
                end.push_str(" died");
                (self.writers[who], self.readers[who]) = (None, None);
            }
        }
        if self.source.is_some() && !self.sqlite.is_alive(LINK) {
            end.push_str(" died");
            (self.source, self.open, self.begun) = (None, false, [Begun::Not; 2]);
        }
        format!("{end} | {}", self.look())
    }

    fn sort(&mut self, error: &SqlError) -> String {
        match error.kind {
            SqlErrorKind::Busy => "busy".into(),
            SqlErrorKind::Io => "io".into(),
            // How a file is not to be opened is told by a code of another kind.
            SqlErrorKind::Other => "refused".into(),
        }
    }

    fn arm(&self, who: &'static str, fault: Option<Fault>) {
        let fault = self.certain(fault);
        *self.fault.lock().expect("no one panicked") = fault.map(|fault| (who, fault));
    }

    fn run(&mut self, step: &Step) -> Result<String, SqlError> {
        match step {
            Step::Open(who) => self.open(*who),
            Step::Close(who, fault) => {
                self.arm(NAMES[*who], *fault);
                self.readers[*who] = None;
                self.writers[*who].take().map_or(Ok("-".into()), |db| db.close().map(|()| "closed".into()))
            }
            Step::Kill(who) => {
                self.sqlite.kill_process(NAMES[*who]);
                (self.writers[*who], self.readers[*who]) = (None, None);
                Ok("killed".into())
            }
            Step::PowerLoss(survives) => {
                self.sqlite.power_loss(&mut |_| *survives);
                (self.writers, self.readers) = ([None, None], [None, None]);
                (self.source, self.open, self.begun) = (None, false, [Begun::Not; 2]);
                Ok("dark".into())
            }
            Step::KillLink => {
                self.sqlite.kill_process(LINK);
                (self.source, self.open, self.begun) = (None, false, [Begun::Not; 2]);
                Ok("killed".into())
            }
            Step::Delete => Ok(self.delete()),
            Step::Link(request, fault) => Ok(self.request(request, *fault)),
            Step::Snapshot(who) => self.snapshot(*who),
            Step::SnapshotEnd(who) => {
                let had = self.readers[*who].take().is_some();
                Ok(if had { "ended" } else { "-" }.into())
            }
            step => self.write(step),
        }
    }

    fn open(&mut self, who: Who) -> Result<String, SqlError> {
        if self.writers[who].is_some() {
            return Ok("-".into());
        }
        let mut db = self.sqlite.open(NAMES[who], PATH)?;
        db.prepare(1_024, true)?;
        db.set_autocheckpoint(0)?;
        self.writers[who] = Some(db);
        Ok("opened".into())
    }

    fn snapshot(&mut self, who: Who) -> Result<String, SqlError> {
        if self.readers[who].is_some() || self.writers[who].is_none() {
            return Ok("-".into());
        }
        let mut db = self.sqlite.open(NAMES[who], PATH)?;
        db.begin_snapshot()?;
        self.readers[who] = Some(db);
        Ok("begun".into())
    }

    /// The files go while no application uses them; the replicator may.
    fn delete(&mut self) -> String {
        if self.writers.iter().chain(&self.readers).any(Option::is_some) {
            return "-".into();
        }
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let _ = self.sqlite.disk().unlink(&format!("{PATH}{suffix}"));
        }
        "deleted".into()
    }

    /// What a connection does that stands open.
    fn write(&mut self, step: &Step) -> Result<String, SqlError> {
        let (who, fault) = match step {
            Step::Commit(who, fault) | Step::Write(who, _, fault) | Step::Checkpoint(who, _, fault) => {
                (*who, *fault)
            }
            Step::Begin(who, _)
            | Step::Rollback(who)
            | Step::Vacuum(who)
            | Step::Autocheckpoint(who, _)
            | Step::LeaveWal(who)
            | Step::EnterWal(who)
            | Step::PageSize(who, _)
            | Step::Copy(who) => (*who, None),
            step => unreachable!("{step:?} needs no connection"),
        };
        let fault = self.certain(fault);
        let armed = Arc::clone(&self.fault);
        let arm = || *armed.lock().expect("no one panicked") = fault.map(|fault| (NAMES[who], fault));
        let mut held = self.writers[who].take();
        let Some(db) = held.as_deref_mut() else { return Ok("-".into()) };
        let done = on_connection(db, step, arm);
        let _ = self.sqlite.disk().unlink(COPY);
        let busy = done.as_ref().is_err_and(|error| error.kind == SqlErrorKind::Busy);
        // What is left open is only what was meant to be: how much of it is spilled depends on rows.
        let left = matches!(step, Step::Write(..)) || !busy;
        if done.is_err() && left && self.sqlite.is_alive(NAMES[who]) && !db.is_autocommit() {
            let _ = db.rollback();
        }
        self.writers[who] = held;
        done
    }

    fn request(&mut self, request: &SourceRequest, fault: Option<Fault>) -> String {
        if self.open == matches!(request, SourceRequest::Open) {
            return "-".into();
        }
        // The machine never lets SQLite create a database, nor opens what is not in WAL mode.
        let header = self.sqlite.disk().contents(PATH).unwrap_or_default();
        if *request == SourceRequest::Open && header.get(18..20) != Some(&[2, 2]) {
            return "not now".into();
        }
        // No replicator begins a transaction within a transaction, or ends one that it has not begun.
        let (slot, expected) = match request {
            SourceRequest::BeginRead(slot) | SourceRequest::BeginImmediate(slot) => (*slot, Begun::Not),
            SourceRequest::EndRead(slot) => (*slot, Begun::Read),
            SourceRequest::Rollback(slot) => (*slot, Begun::Immediate),
            _ => (Slot::A, self.begun[0]),
        };
        if self.begun[slot as usize] != expected {
            return "not so".into();
        }
        // A file that was deleted is read through the WAL of its successor: what comes of that
        // depends on the sizes of both.
        if matches!(request, SourceRequest::BeginRead(_) | SourceRequest::BeginImmediate(_))
            && self.has_moved()
        {
            return "elsewhere".into();
        }
        let fault = self.certain(fault);
        let source = self.source.get_or_insert_with(|| self.sqlite.source(LINK, PATH));
        *self.fault.lock().expect("no one panicked") = fault.map(|fault| (LINK, fault));
        let answer = source.perform(request);
        match (request, &answer) {
            (SourceRequest::Open, Ok(_)) => (self.open, self.begun) = (true, [Begun::Not; 2]),
            (SourceRequest::BeginRead(slot), Ok(_)) => self.begun[*slot as usize] = Begun::Read,
            (SourceRequest::BeginImmediate(slot), Ok(_)) => self.begun[*slot as usize] = Begun::Immediate,
            (SourceRequest::EndRead(slot) | SourceRequest::Rollback(slot), _) => {
                self.begun[*slot as usize] = Begun::Not
            }
            (SourceRequest::Close { .. }, _) => (self.open, self.begun) = (false, [Begun::Not; 2]),
            _ => {}
        }
        match answer {
            Ok(SourceReply::Link(reply)) => format!("done {}", if reply.moved { "moved" } else { "" }),
            Ok(_) => "done".into(),
            Err(SourceError { kind, .. }) => format!("{kind:?}"),
        }
    }

    /// Whether anybody has a snapshot. Then it depends on which pages were written twice whether
    /// the part of the WAL that may be copied has any.
    fn is_pinned(&self) -> bool {
        self.readers.iter().any(Option::is_some)
            || self.writers.iter().flatten().any(|db| !db.is_autocommit())
            || self.begun != [Begun::Not; 2]
    }

    /// The fault, where it strikes for sure.
    fn certain(&self, fault: Option<Fault>) -> Option<Fault> {
        fault.filter(|fault| fault.op != VfsOp::Write || fault.suffix != ".db" || !self.is_pinned())
    }

    /// What can be seen now.
    fn look(&mut self) -> String {
        let disk = self.sqlite.disk();
        let mut seen = Vec::new();
        let pinned = self.is_pinned();
        for (n, suffix) in ["", "-wal", "-shm", "-journal"].iter().enumerate() {
            let stat = disk.stat(&format!("{PATH}{suffix}")).ok();
            if n < 2 {
                let written = stat.map(|stat| stat.mtime_ns) != self.stats[n].map(|stat| stat.mtime_ns);
                if written && (n > 0 || !pinned) {
                    seen.push(format!("{suffix}written"));
                }
                self.stats[n] = stat;
            }
            match stat {
                Some(stat) if stat.size == 0 => seen.push(format!("{suffix}:empty")),
                Some(_) => seen.push(format!("{suffix}:there")),
                None => {}
            }
        }
        if disk.stat(&format!("{PATH}-journal")).is_ok() {
            seen.push("journal".into());
        }
        let version = disk.contents(PATH).and_then(|bytes| bytes.get(18..20).map(<[u8]>::to_vec));
        seen.push(format!("version {version:?}"));
        if self.sqlite.wal_index_lives(PATH) {
            seen.push("lives".into());
        }
        let in_file =
            reading::read(disk, PATH, PENDING).map_or(0, |reading| self.commits(reading.end.frames));
        seen.push(format!("file {in_file}"));
        for reader in self.readers.iter_mut().flatten() {
            seen.push(format!("reader {:?}", reader.number().ok()));
        }
        if let Some(index) = self.index() {
            seen.push(self.tell(&index, in_file));
        }
        seen.join(" ")
    }

    fn has_moved(&mut self) -> bool {
        let source = self.source.as_mut().filter(|_| self.open);
        let answer = source.map(|source| source.perform(&SourceRequest::HasMoved));
        matches!(answer, Some(Ok(SourceReply::Link(reply))) if reply.moved)
    }

    fn index(&mut self) -> Option<[u8; 136]> {
        let source = self.source.as_mut().filter(|_| self.open)?;
        match source.perform(&SourceRequest::HasMoved) {
            // Of files that have no name any more the index cannot be told by their names.
            Ok(SourceReply::Link(reply)) if !reply.moved => reply.index.map(|index| *index),
            _ => None,
        }
    }

    /// Commit frames among the first so many frames of the WAL.
    fn commits(&self, frames: u32) -> usize {
        let wal = self.sqlite.disk().contents(&format!("{PATH}-wal")).unwrap_or_default();
        let Some(size) = wal.get(8..12) else { return 0 };
        let page_bytes = u32::from_be_bytes(size.try_into().expect("four bytes")) as usize;
        let frames = wal[32.min(wal.len())..].chunks_exact(24 + page_bytes).take(frames as usize);
        frames.filter(|frame| frame[4..8] != [0; 4]).count()
    }

    fn tell(&mut self, index: &[u8; 136], in_file: usize) -> String {
        let word = |at: usize| u32::from_ne_bytes(index[at..at + 4].try_into().expect("four bytes"));
        if index[12] == 0 {
            return "no index".into();
        }
        let salts: [u8; 8] = index[32..40].try_into().expect("eight bytes");
        let known = self.salts.iter().position(|known| *known == salts);
        let generation = known.unwrap_or_else(|| {
            self.salts.push(salts);
            self.salts.len() - 1
        });
        let (last, backfilled) = (word(16), word(96));
        let marks: Vec<String> = (1..5)
            .map(|mark| match word(100 + 4 * mark) {
                u32::MAX => "-".into(),
                frame => self.commits(frame).to_string(),
            })
            .collect();
        let mut words = vec![format!(
            "generation {generation} ends {} backfilled {}",
            self.commits(last),
            self.commits(backfilled)
        )];
        words.push(format!("marks {}", marks.join(",")));
        if in_file > self.commits(last) {
            words.push("phantom".into());
        }
        if known.is_none() && generation > 0 {
            words.push("restarted".into());
        }
        if marks.iter().any(|mark| mark != "-" && mark != "0") {
            words.push("marked".into());
        }
        if backfilled > 0 && backfilled < last {
            words.push("part".into());
        }
        if backfilled == last && last > 0 {
            let bytes = self.sqlite.disk().stat(PATH).map_or(0, |stat| stat.size);
            let page_bytes = u16::from_ne_bytes([index[14], index[15]]);
            words.push(format!("whole {}", bytes == u64::from(word(20)) * u64::from(page_bytes)));
        }
        words.join(" ")
    }
}

fn on_connection(db: &mut dyn Connection, step: &Step, arm: impl FnOnce()) -> Result<String, SqlError> {
    match step {
        Step::Begin(_, work) => {
            db.begin()?;
            let n = db.number()?;
            db.work(*work, n)?;
            Ok(format!("begun {n}"))
        }
        Step::Commit(..) if db.is_autocommit() => Ok("-".into()),
        Step::Commit(..) => {
            arm();
            db.commit()?;
            Ok("committed".into())
        }
        Step::Rollback(_) if db.is_autocommit() => Ok("-".into()),
        Step::Rollback(_) => db.rollback().map(|()| "back".into()),
        // The rest is not for a connection in a transaction.
        _ if !db.is_autocommit() => Ok("later".into()),
        Step::Write(_, work, _) => {
            db.begin()?;
            let n = db.number()?;
            db.work(*work, n)?;
            arm();
            db.commit()?;
            Ok(format!("committed {n}"))
        }
        Step::Vacuum(_) => db.vacuum().map(|()| "smaller".into()),
        Step::Checkpoint(_, mode, _) => {
            arm();
            let Counts { busy, log, backfilled } = db.checkpoint(mode)?;
            let part = match backfilled {
                _ if log < 0 => "unknown",
                _ if backfilled == log => "all",
                0 => "none",
                _ => "some",
            };
            Ok(format!("{} {part} {}", if busy { "busy" } else { "free" }, log > 0))
        }
        Step::Autocheckpoint(_, pages) => db.set_autocheckpoint(*pages).map(|()| "set".into()),
        Step::LeaveWal(_) => db.leave_wal_mode().map(|left| format!("left {left}")),
        Step::EnterWal(_) => db.enter_wal_mode().map(|()| "entered".into()),
        Step::PageSize(_, bytes) => db.set_page_size(*bytes).map(|()| "sized".into()),
        Step::Copy(_) => db.vacuum_into(COPY).map(|()| "copied".into()),
        step => unreachable!("{step:?} is no operation of a connection"),
    }
}
