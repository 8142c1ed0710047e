//! A host that keeps objects in a map and does one thing at a time, in an order drawn from a
//! seed, with the faults that a test asks for.

use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

use core::time::Duration;

use crate::ids::{Level, Mono, Now, PageSize, Wall};
use crate::legacy::{LegacyListed, LegacyObject};
use crate::ltx::parse_file_name;
use crate::machine::{
    Action, Actions, ByteRange, Chunk, CopyReply, CopyRequest, Event, Exit, Fact, Listed, Machine, Object,
    OpId, OpIds, Outcome, OutputError, OutputRequest, ReplicaId, Request, StoreError, StoreErrorKind,
    StoreReply, StoreRequest,
};
use crate::restore::{RestoreConfig, RestoreStatus, Restorer};

/// What a store may do to a read before it is served.
pub type Hook = Box<dyn FnMut(&StoreRequest, &mut BTreeMap<Object, Vec<u8>>) -> Option<StoreError>>;

/// What somebody may do to a file.
pub type Change = Box<dyn FnMut(&mut Vec<u8>)>;

pub struct Host {
    pub store: BTreeMap<Object, Vec<u8>>,
    /// When all of that was written, as the store says.
    pub written: Option<Wall>,
    /// What there is of Litestream 0.3's layout: each object and when it was written.
    pub dictionaries: BTreeMap<crate::ltx::DictionaryId, Vec<u8>>,
    pub legacy: BTreeMap<LegacyObject, (Vec<u8>, Option<Wall>)>,
    /// What stands in the target's place.
    pub target: Option<Vec<u8>>,
    /// What is being built, or was left by one that was killed.
    pub output: Option<Vec<u8>>,
    created: bool,
    /// The position file of a copy that stands in the target's place.
    pub position: Option<Vec<u8>>,
    /// What its open transaction has made of the copy.
    pub transaction: Option<Vec<u8>>,
    /// Changes when somebody else has written to the copy.
    pub version: u32,
    /// Which request to the copy fails: the n-th, counted from 1.
    pub copy_fails_at: Option<u64>,
    pub copies: u64,
    /// After how many events the process is killed.
    pub killed_after: Option<usize>,
    pub seed: u64,
    /// Of a thousand reads: how many fail for a while, come short, or are never answered.
    pub trouble_permille: u64,
    pub list_entries_max: usize,
    pub hook: Option<Hook>,
    /// Which output request fails: the n-th, counted from 1.
    pub output_fails_at: Option<u64>,
    pub outputs: u64,
    /// Which read of what stands in the target's place fails: the n-th, counted from 1.
    pub target_read_fails_at: Option<u64>,
    pub target_reads: u64,
    /// What somebody does to the target each time that its beginning has been read.
    pub on_target_read: Option<Change>,
    /// After how many events the host is told to stop.
    pub shutdown_after: Option<usize>,
    pub reads_open_max: usize,
    /// The most bytes that reads under way had asked for.
    pub read_bytes_open_max: u64,
    pub read_bytes: u64,
    pub facts: Vec<Fact>,
    now: Duration,
    held: Vec<(OpId, Request)>,
    lost: BTreeSet<OpId>,
    cancelled: BTreeSet<OpId>,
}

impl Host {
    pub fn new(store: BTreeMap<Object, Vec<u8>>) -> Host {
        Host {
            store,
            written: None,
            dictionaries: BTreeMap::new(),
            legacy: BTreeMap::new(),
            target: None,
            output: None,
            created: false,
            position: None,
            transaction: None,
            version: 0,
            copy_fails_at: None,
            copies: 0,
            killed_after: None,
            seed: 1,
            trouble_permille: 0,
            list_entries_max: 7,
            hook: None,
            output_fails_at: None,
            outputs: 0,
            target_read_fails_at: None,
            target_reads: 0,
            on_target_read: None,
            shutdown_after: None,
            reads_open_max: 0,
            read_bytes_open_max: 0,
            read_bytes: 0,
            facts: Vec::new(),
            now: Duration::ZERO,
            held: Vec::new(),
            lost: BTreeSet::new(),
            cancelled: BTreeSet::new(),
        }
    }

    /// Objects from `<dir>/<level>/<min>-<max>.ltx`.
    pub fn from_dir(dir: &Path) -> Host {
        Host::new(load(dir))
    }

    pub fn seeded(mut self, seed: u64, trouble_permille: u64) -> Host {
        self.seed = seed;
        self.trouble_permille = trouble_permille;
        self
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    }

    pub fn restore(&mut self, config: RestoreConfig) -> (Exit, RestoreStatus) {
        let mut restorer = Restorer::new(config, OpIds::new(ReplicaId(0), self.seed));
        let exit = self.run(&mut restorer);
        let status = restorer.status();
        (exit, status)
    }

    /// Runs a machine to its end.
    pub fn run<M: Machine>(&mut self, machine: &mut M) -> Exit {
        self.held.clear();
        self.lost.clear();
        let mut event = Event::Start { entropy: self.seed };
        for n in 0..2_000_000 {
            let mut out = Actions::new();
            machine.handle(Now { mono: Mono::from_duration(self.now), wall: Wall(0) }, event, &mut out);
            if let Some(exit) = self.take(&mut out) {
                assert!(
                    self.held.iter().all(|(_, it)| !matches!(it, Request::Output(_))),
                    "no output is left under way"
                );
                return exit;
            }
            if self.killed_after == Some(n) {
                (self.created, self.transaction) = (false, None);
                return Exit::Failed { error: "killed".into(), hint: String::new() };
            }
            if self.shutdown_after == Some(n) {
                event = Event::Shutdown { deadline: Mono::from_duration(self.now + Duration::from_secs(60)) };
                continue;
            }
            event = match self.next() {
                Some(event) => event,
                None => {
                    let (at, _) =
                        machine.next_deadline().expect("a machine that awaits nothing has a deadline");
                    self.now = self.now.max(at.as_duration());
                    Event::Tick
                }
            };
        }
        panic!("the machine does not come to an end");
    }

    fn take(&mut self, out: &mut Actions) -> Option<Exit> {
        let mut exit = None;
        for action in out.drain() {
            assert!(exit.is_none(), "nothing follows the end");
            match action {
                Action::Submit { op, request } => self.held.push((op, request)),
                Action::Cancel { op } => {
                    self.lost.remove(&op);
                    self.cancelled.insert(op);
                    // A cancelled request may be answered all the same.
                    if op.seq % 2 == 0 {
                        self.held.retain(|(held, _)| *held != op);
                    }
                }
                Action::Notify(notice) => self.facts.push(notice.fact),
                Action::Stopped(found) => exit = Some(found),
            }
        }
        let awaited = self.held.iter().filter(|(op, _)| !self.cancelled.contains(op));
        let reads = awaited.filter_map(|(_, it)| match it {
            Request::Store(StoreRequest::Get { range, .. } | StoreRequest::GetLegacy { range, .. }) => {
                Some(match *range {
                    ByteRange::At { len, .. } | ByteRange::Tail(len) => len,
                })
            }
            _ => None,
        });
        let lens: Vec<u64> = reads.collect();
        self.reads_open_max = self.reads_open_max.max(lens.len());
        self.read_bytes_open_max = self.read_bytes_open_max.max(lens.iter().sum());
        exit
    }

    fn next(&mut self) -> Option<Event> {
        loop {
            let open: Vec<usize> =
                (0..self.held.len()).filter(|&at| !self.lost.contains(&self.held[at].0)).collect();
            if open.is_empty() {
                return None;
            }
            let at = open[self.draw(open.len() as u64) as usize];
            let (op, request) = self.held.swap_remove(at);
            let outcome = match request {
                Request::Store(request) => {
                    if self.trouble_permille > 0
                        && self.draw(1000) < self.trouble_permille
                        && self.draw(4) == 0
                    {
                        self.lost.insert(op);
                        self.held.push((op, Request::Store(request)));
                        continue;
                    }
                    Outcome::Store(self.read(&request))
                }
                Request::Compute(job) => Outcome::Compute(job.run()),
                Request::Output(request) => Outcome::Output(self.write(request)),
                Request::Copy(request) => {
                    self.copies += 1;
                    let fails = self.copy_fails_at == Some(self.copies);
                    Outcome::Copy(if fails { Err("no space left".into()) } else { Ok(self.copy(request)) })
                }
                other => panic!("not asked for by a restore: {other:?}"),
            };
            return Some(Event::Completed { op, outcome });
        }
    }

    fn read(&mut self, request: &StoreRequest) -> Result<StoreReply, StoreError> {
        let fail = |kind| Err(StoreError::new(kind, "injected"));
        if let Some(error) = self.hook.as_mut().and_then(|hook| hook(request, &mut self.store)) {
            return Err(error);
        }
        let trouble = self.trouble_permille > 0 && self.draw(1000) < self.trouble_permille;
        let kind = [StoreErrorKind::Retry, StoreErrorKind::Conflict, StoreErrorKind::Ambiguous];
        if trouble && self.draw(2) == 0 {
            let at = self.draw(3) as usize;
            return fail(kind[at]);
        }
        match *request {
            StoreRequest::List { level, after, limit } => {
                let all = self.store.iter().filter(|(it, _)| it.level == level);
                let mut entries: Vec<Listed> = all
                    .filter(|(it, _)| after.is_none_or(|after| it.range > after))
                    .map(|(&object, bytes)| Listed {
                        object,
                        len: bytes.len() as u64,
                        modified: self.written,
                    })
                    .collect();
                let limit = self.list_entries_max.min(limit as usize);
                let more = entries.len() > limit;
                entries.truncate(limit);
                Ok(StoreReply::Listing { entries, more })
            }
            StoreRequest::ListLegacy { after, limit } => {
                let mut entries: Vec<LegacyListed> = self
                    .legacy
                    .iter()
                    .filter(|(it, _)| after.is_none_or(|after| it.to_string() > after.to_string()))
                    .map(|(&object, &(ref bytes, modified))| LegacyListed {
                        object,
                        len: bytes.len() as u64,
                        modified,
                    })
                    .collect();
                entries.sort_by_key(|it| it.object.to_string());
                let limit = self.list_entries_max.min(limit as usize);
                let more = entries.len() > limit;
                entries.truncate(limit);
                Ok(StoreReply::LegacyListing { entries, more })
            }
            StoreRequest::Get { object, range } => match self.store.get(&object) {
                Some(bytes) => Ok(self.cut(&bytes.clone(), range, trouble)),
                None => fail(StoreErrorKind::NotFound),
            },
            StoreRequest::GetLegacy { object, range } => match self.legacy.get(&object) {
                Some((bytes, _)) => Ok(self.cut(&bytes.clone(), range, trouble)),
                None => fail(StoreErrorKind::NotFound),
            },
            // A header that was spoilt may name one.
            StoreRequest::GetDictionary { id } => match self.dictionaries.get(&id) {
                Some(bytes) => Ok(self.cut(&bytes.clone(), ByteRange::Tail(u64::MAX), trouble)),
                None => fail(StoreErrorKind::NotFound),
            },
            _ => panic!("a restore only reads"),
        }
    }

    /// A range of an object; half of it, if there is trouble.
    fn cut(&mut self, whole: &[u8], range: ByteRange, trouble: bool) -> StoreReply {
        let object_len = whole.len() as u64;
        let (start, mut end) = match range {
            ByteRange::At { offset, len } => {
                (offset.min(object_len), offset.saturating_add(len).min(object_len))
            }
            ByteRange::Tail(len) => (object_len.saturating_sub(len), object_len),
        };
        if trouble {
            end = start + (end - start) / 2;
        }
        let bytes = whole[start as usize..end as usize].to_vec();
        self.read_bytes += bytes.len() as u64;
        StoreReply::Bytes { bytes: Chunk::from(bytes), object_len }
    }

    fn write(&mut self, request: OutputRequest) -> Result<Chunk, OutputError> {
        let fail = |exists, text: &str| Err(OutputError { exists, text: text.into() });
        if let OutputRequest::ReadTarget { offset, len } = request {
            self.target_reads += 1;
            if self.target_read_fails_at == Some(self.target_reads) {
                return fail(false, "no such device");
            }
            let target = self.target.as_deref().unwrap_or_default();
            let start = target.len().min(offset as usize);
            let end = target.len().min(start + len as usize);
            let read = target[start..end].to_vec();
            if let (Some(change), true) = (&mut self.on_target_read, offset == 0) {
                change(self.target.as_mut().expect("something stands there"));
            }
            return Ok(Chunk::from(read));
        }
        if let OutputRequest::ReadBuilt { offset, len } = request {
            let output = self.output.as_ref().expect("the output is created first");
            let start = output.len().min(offset as usize);
            return Ok(Chunk::from(output[start..output.len().min(start + len as usize)].to_vec()));
        }
        self.outputs += 1;
        if self.output_fails_at == Some(self.outputs) {
            return fail(false, "no space left");
        }
        if let OutputRequest::Create { keep } = request {
            assert!(!self.created, "an output is created once");
            self.created = true;
            self.output = Some(self.output.take().filter(|_| keep).unwrap_or_default());
            return Ok(Chunk::default());
        }
        let output = self.output.as_mut().expect("the output is created first");
        match request {
            OutputRequest::Create { .. }
            | OutputRequest::ReadTarget { .. }
            | OutputRequest::ReadBuilt { .. } => {
                unreachable!("handled above")
            }
            OutputRequest::Write(extents) => {
                for (offset, bytes) in extents {
                    let end = offset as usize + bytes.len();
                    if output.len() < end {
                        output.resize(end, 0);
                    }
                    output[offset as usize..end].copy_from_slice(&bytes);
                }
            }
            OutputRequest::SetLen(len) => output.resize(len as usize, 0),
            OutputRequest::Sync => {}
            OutputRequest::Publish { replace } => {
                if self.target.is_some() && !replace {
                    return fail(true, "the target exists");
                }
                self.target = self.output.take();
                self.created = false;
            }
            OutputRequest::Discard => {
                self.output = None;
                self.created = false;
            }
        }
        Ok(Chunk::default())
    }

    /// A database as SQLite keeps one: what is not committed is nowhere, and a commit that writes page
    /// 1 leaves its own marks there.
    fn copy(&mut self, request: CopyRequest) -> CopyReply {
        let page_size = |file: &[u8]| PageSize::from_u16(u16::from_be_bytes([file[16], file[17]])).unwrap();
        match request {
            CopyRequest::Look => CopyReply::Found {
                database: self.target.is_some(),
                position: self.position.clone().map(Chunk::from),
            },
            CopyRequest::Save(bytes) => {
                self.position = Some(bytes.to_vec());
                CopyReply::Done
            }
            CopyRequest::Open => {
                let file = self.target.as_ref().expect("it was looked for");
                let (page_size, version) = (page_size(file).get(), self.version);
                CopyReply::Opened { page_size, pages: file.len() as u32 / page_size, version }
            }
            CopyRequest::Read { first, count } => {
                let file = self.target.as_ref().expect("it is open");
                let bytes = page_size(file).bytes();
                let start = (first.get() as usize - 1) * bytes;
                CopyReply::Pages(Chunk::from(file[start..start + count as usize * bytes].to_vec()))
            }
            CopyRequest::Begin => {
                assert!(self.transaction.is_none(), "one transaction at a time");
                self.transaction.clone_from(&self.target);
                CopyReply::Begun(self.version)
            }
            CopyRequest::Write(pages) => {
                let bytes = page_size(self.target.as_ref().unwrap()).bytes();
                let file = self.transaction.as_mut().expect("a transaction is open");
                for (page, image) in pages {
                    let start = (page.get() as usize - 1) * bytes;
                    file.resize(file.len().max(start + bytes), 0);
                    file[start..start + bytes].copy_from_slice(&image);
                }
                CopyReply::Done
            }
            CopyRequest::Finish { first, cut } => {
                let bytes = page_size(self.target.as_ref().unwrap()).bytes();
                let file = self.transaction.as_mut().expect("a transaction is open");
                if let Some(first) = first {
                    file[..bytes].copy_from_slice(&first);
                }
                let pages = cut.map_or(file.len(), |pages| pages as usize * bytes);
                file.truncate(pages);
                CopyReply::Done
            }
            CopyRequest::Commit => {
                let mut file = self.transaction.take().expect("a transaction is open");
                file[24..28].fill(self.copies as u8);
                file[92..100].fill(self.copies as u8);
                self.target = Some(file);
                CopyReply::Done
            }
            CopyRequest::Close => {
                self.transaction = None;
                CopyReply::Done
            }
        }
    }

    /// All remarks, for assertions about words.
    pub fn remarks(&self) -> String {
        let remarks = self.facts.iter().filter_map(|fact| match fact {
            Fact::Remark { text } => Some(text.as_str()),
            _ => None,
        });
        remarks.collect::<Vec<_>>().join("\n")
    }
}

fn load(dir: &Path) -> BTreeMap<Object, Vec<u8>> {
    let mut store = BTreeMap::new();
    for level in Level::all() {
        let Ok(files) = std::fs::read_dir(dir.join(std::format!("{level}"))) else { continue };
        for file in files {
            let file = file.unwrap();
            let range = parse_file_name(file.file_name().to_str().unwrap()).expect("a segment's name");
            store.insert(Object { level, range }, std::fs::read(file.path()).unwrap());
        }
    }
    store
}
