//! Any sequence of events and outcomes into the replicator: it never panics, it asks for nothing
//! that the contract forbids, and it is a function of what it was told.
//!
//! The host here answers requests of the right kind with anything: mostly what a small world would
//! say (a WAL of four transactions, a store in memory, a journal), so that the replicator gets
//! somewhere, and now and then noise, or an error of any kind.

use std::collections::BTreeMap;
use std::time::Duration;

use driftless_core::engine::{Config, Replicator};
use driftless_core::ids::{Mono, Now, PageNo, PageSize, Wall};
use driftless_core::machine::{
    Action, Actions, ByteRange, Chunk, Event, Filesystem, INDEX_BYTES, LinkReply, Listed, Machine, Object,
    OpId, Outcome, PART_BYTES_MAX, ReplicaId, Request, ScratchRequest, SourceError, SourceErrorKind,
    SourceFacts, SourceReply, SourceRequest, StateReply, StateRequest, StoreError, StoreErrorKind,
    StoreReply, StoreRequest, WalFacts,
};
use driftless_core::probe::{Finding, Findings};
use driftless_core::wal::{
    FRAME_HEADER_BYTES, FrameHeader, READ_MARK_UNUSED, Salts, WAL_HEADER_BYTES, WalChecksum, WalHeader,
    WalIndex,
};
use driftless_fuzz::{Feed, lengthened};

const PAGE_BYTES: usize = 512;
const FRAMES: u32 = 8;

/// A WAL of transactions of two frames, and the checksum after each frame.
struct Wal {
    bytes: Vec<u8>,
    sums: Vec<WalChecksum>,
}

fn salts(generation: u32) -> Salts {
    Salts { one: 7 + generation, two: 40 + generation }
}

fn wal(generation: u32) -> Wal {
    let size = PageSize::new(512).unwrap();
    let header = WalHeader::new(size, 0, salts(generation), false);
    let (mut bytes, mut sums) = (header.encode().to_vec(), vec![header.checksum]);
    for n in 0..FRAMES {
        let page = [n as u8 + 10 * generation as u8; PAGE_BYTES];
        let commit = if n % 2 == 1 { 3 + n / 2 } else { 0 };
        let no = PageNo::new(1 + (n * 3) % (3 + n / 2)).unwrap();
        let frame = FrameHeader::new(sums[n as usize], false, salts(generation), no, commit, &page);
        bytes.extend_from_slice(&frame.encode());
        bytes.extend_from_slice(&page);
        sums.push(frame.checksum);
    }
    Wal { bytes, sums }
}

/// What the host has under way, and the small world that it answers from.
struct Host<'a> {
    feed: Feed<'a>,
    /// Something odd comes once in so many answers; 0 for never.
    noise: u32,
    wals: [Wal; 2],
    generation: u32,
    frames: u32,
    backfilled: u32,
    objects: BTreeMap<Object, Vec<u8>>,
    bodies: BTreeMap<OpId, (Object, Vec<u8>)>,
    journal: Vec<Chunk>,
    open: Vec<(OpId, Request)>,
    cancelled: Vec<OpId>,
    linked: bool,
    /// The request that opened the link, while it stands.
    last_open: Option<OpId>,
    last_seq: u64,
    stopped: bool,
}

impl<'a> Host<'a> {
    fn new(mut feed: Feed<'a>) -> Host<'a> {
        let noise = [0, 0, 200, 60, 12][feed.below(5) as usize];
        Host {
            feed,
            noise,
            wals: [wal(0), wal(1)],
            generation: 0,
            frames: 2,
            backfilled: 0,
            objects: BTreeMap::new(),
            bodies: BTreeMap::new(),
            journal: Vec::new(),
            open: Vec::new(),
            cancelled: Vec::new(),
            linked: false,
            last_open: None,
            last_seq: 0,
            stopped: false,
        }
    }
}

impl Host<'_> {
    /// Something odd: never in some runs, often in others.
    fn rarely(&mut self) -> bool {
        self.noise > 0 && self.feed.below(self.noise) == 0
    }

    fn index(&mut self) -> Option<Box<[u8; INDEX_BYTES]>> {
        if self.rarely() {
            return None;
        }
        let frame_checksum = self.wals[self.generation as usize].sums[self.frames as usize];
        let index = WalIndex {
            change: self.feed.u32(),
            is_init: true,
            big_endian_checksums: false,
            page_size: (self.frames > 0).then(|| PageSize::new(512).unwrap()),
            mx_frame: self.frames,
            pages: 2 + self.frames.div_ceil(2),
            frame_checksum,
            salts: salts(self.generation),
            n_backfill: self.backfilled,
            read_marks: [0, self.frames, READ_MARK_UNUSED, READ_MARK_UNUSED, READ_MARK_UNUSED],
            n_backfill_attempted: self.backfilled,
        };
        let mut bytes = index.encode();
        if self.rarely() {
            bytes[self.feed.below(INDEX_BYTES as u32) as usize] ^= self.feed.u8();
        }
        Some(Box::new(bytes))
    }

    /// The application commits, checkpoints, starts the WAL over, or does nothing.
    fn live(&mut self) {
        match self.feed.below(8) {
            0 | 1 if self.frames < FRAMES => self.frames += 2,
            2 => self.backfilled = self.frames,
            3 if self.backfilled == self.frames => {
                (self.generation, self.frames, self.backfilled) = (1 - self.generation, 0, 0);
            }
            _ => {}
        }
    }

    fn slice(&mut self, all: &[u8], offset: u64, len: u32) -> Chunk {
        if self.rarely() {
            let len = self.feed.below(len.min(2_000) + 1) as usize;
            return Chunk::from(self.feed.fill(len));
        }
        let start = (offset as usize).min(all.len());
        Chunk::from(all[start..(start + len as usize).min(all.len())].to_vec())
    }

    /// The pages of frames, from their headers.
    fn frame_pages(&mut self, wal: &[u8], first: u32, count: u32) -> Chunk {
        let first = WAL_HEADER_BYTES + (first as usize - 1) * (FRAME_HEADER_BYTES + PAGE_BYTES);
        let frames = wal.get(first..).unwrap_or_default().chunks(FRAME_HEADER_BYTES + PAGE_BYTES);
        let pages = frames
            .take(count as usize)
            .flat_map(|frame| u32::from_be_bytes(frame[..4].try_into().expect("four bytes")).to_ne_bytes());
        let pages: Vec<u8> = pages.collect();
        self.slice(&pages, 0, count * 4)
    }

    fn facts(&mut self) -> SourceFacts {
        SourceFacts {
            device: 1,
            inode: 5 + u64::from(self.rarely()),
            links: 1 + u64::from(self.rarely() && self.feed.below(8) == 0),
            size: if self.rarely() { 0 } else { 7 * PAGE_BYTES as u64 },
            ctime_ns: i128::from(self.feed.below(3)) * 1_000_000_000,
            now_ns: i128::from(self.feed.below(8)) * 1_000_000_000,
            boot_id: "boot".into(),
            owner: !self.rarely(),
            regular: !(self.rarely() && self.feed.below(8) == 0),
            filesystem: if self.rarely() && self.feed.below(8) == 0 {
                Filesystem::Remote("nfs".into())
            } else {
                Filesystem::Local
            },
            wal: (!self.rarely()).then(|| WalFacts {
                inode: 6 + u64::from(self.rarely()),
                size: u64::from(self.feed.below(3)) * 4_000,
                mtime_ns: i128::from(self.feed.below(3)) * 1_000_000_000,
            }),
            shm: !self.rarely(),
            journal: self.rarely().then_some(1),
        }
    }

    fn header(&mut self) -> Vec<u8> {
        let mut header = b"SQLite format 3\0".to_vec();
        header.extend_from_slice(&[2, 0, 2, 2]);
        header.resize(100, 0);
        if self.rarely() {
            let at = self.feed.below(100) as usize;
            header[at] = self.feed.u8();
            header.truncate(100 - self.feed.below(3) as usize);
        }
        header
    }

    fn source(&mut self, request: &SourceRequest) -> Outcome {
        self.live();
        if self.rarely() && *request != SourceRequest::LitestreamHead {
            use SourceErrorKind::{Busy, Denied, Io, Missing, NotADatabase};
            let kinds = [Busy, Busy, Busy, Io, Io, Missing, Denied, NotADatabase];
            let kind = kinds[self.feed.below(8) as usize];
            let index = self.index().filter(|_| self.linked);
            return Outcome::Source(Err(SourceError { kind, text: "it failed".into(), index }));
        }
        let mut bytes = None;
        match request {
            SourceRequest::Stat => {
                let facts = (!self.rarely()).then(|| Box::new(self.facts()));
                return Outcome::Source(Ok(SourceReply::Facts(facts)));
            }
            SourceRequest::ReadHeader => return Outcome::Source(Ok(SourceReply::Header(self.header()))),
            SourceRequest::LitestreamHead => return Outcome::Source(Ok(SourceReply::Litestream(None))),
            SourceRequest::Close { .. } => return Outcome::Source(Ok(SourceReply::Closed)),
            SourceRequest::ReadWal { offset, len, .. } => {
                let all = std::mem::take(&mut self.wals[self.generation as usize].bytes);
                bytes = Some(self.slice(&all, *offset, *len));
                self.wals[self.generation as usize].bytes = all;
            }
            SourceRequest::ReadWalParts { parts, .. } => {
                let all = std::mem::take(&mut self.wals[self.generation as usize].bytes);
                let parts = parts.iter().flat_map(|(offset, len)| self.slice(&all, *offset, *len).to_vec());
                bytes = Some(Chunk::from(parts.collect::<Vec<u8>>()));
                self.wals[self.generation as usize].bytes = all;
            }
            SourceRequest::FramePages { first, count } => {
                let all = std::mem::take(&mut self.wals[self.generation as usize].bytes);
                bytes = Some(self.frame_pages(&all, *first, *count));
                self.wals[self.generation as usize].bytes = all;
            }
            SourceRequest::ReadDatabase { offset, len, .. } => {
                let mut all = self.header();
                all.resize(7 * PAGE_BYTES, 3);
                bytes = Some(self.slice(&all, *offset, *len));
            }
            SourceRequest::CheckpointPassive(_) if self.feed.bool() => self.backfilled = self.frames,
            _ => {}
        }
        let index = self.index();
        let moved = self.rarely();
        Outcome::Source(Ok(SourceReply::Link(LinkReply { index, bytes, moved, read_only: false })))
    }

    fn store(&mut self, op: OpId, request: &StoreRequest) -> Outcome {
        use StoreErrorKind::{
            AlreadyExists, Ambiguous, Conflict, Corrupt, Denied, Misconfigured, NoSpace, NotFound, Retry,
            Unsupported,
        };
        let fails = self.rarely();
        let result = if fails && self.feed.bool() { Ok(StoreReply::Done) } else { self.effect(op, request) };
        if fails {
            let kinds = [
                Retry,
                Retry,
                Ambiguous,
                Ambiguous,
                Conflict,
                AlreadyExists,
                NotFound,
                Denied,
                NoSpace,
                Corrupt,
                Misconfigured,
                Unsupported,
            ];
            let kind = kinds[self.feed.below(kinds.len() as u32) as usize];
            return Outcome::Store(Err(StoreError::new(kind, "it failed")));
        }
        Outcome::Store(result)
    }

    fn effect(&mut self, op: OpId, request: &StoreRequest) -> Result<StoreReply, StoreError> {
        let error = |kind| Err(StoreError::new(kind, "so it is"));
        match request {
            StoreRequest::List { level, after, limit } => {
                let here = self.objects.iter().filter(|(object, _)| object.level == *level);
                let mut entries: Vec<Listed> = here
                    .filter(|(object, _)| after.is_none_or(|after| object.range > after))
                    .map(|(object, body)| Listed { object: *object, len: body.len() as u64, modified: None })
                    .collect();
                let max = (1 + self.feed.below(3)).min(*limit) as usize;
                let more = entries.len() > max;
                entries.truncate(max);
                Ok(StoreReply::Listing { entries, more })
            }
            StoreRequest::Get { object, range } => {
                let Some(body) = self.objects.get(object) else { return error(StoreErrorKind::NotFound) };
                let len = body.len() as u64;
                let (offset, want) = match range {
                    ByteRange::At { offset, len } => (*offset, *len),
                    ByteRange::Tail(want) => (len.saturating_sub(*want), *want),
                };
                let body = body.clone();
                let bytes = self.slice(&body, offset, want.min(1 << 20) as u32);
                Ok(StoreReply::Bytes { bytes, object_len: len })
            }
            StoreRequest::PutOpen { object, .. } => {
                self.bodies.insert(op, (*object, Vec::new()));
                Ok(StoreReply::Done)
            }
            StoreRequest::PutPart { put, bytes } => {
                if let Some((_, body)) = self.bodies.get_mut(put) {
                    body.extend_from_slice(bytes);
                }
                Ok(StoreReply::Done)
            }
            StoreRequest::PutCommit { put } => {
                let Some((object, body)) = self.bodies.remove(put) else {
                    return error(StoreErrorKind::Retry);
                };
                if self.objects.contains_key(&object) {
                    return error(StoreErrorKind::AlreadyExists);
                }
                self.objects.insert(object, body);
                Ok(StoreReply::Done)
            }
            StoreRequest::PutAbort { put } => {
                self.bodies.remove(put);
                Ok(StoreReply::Done)
            }
            StoreRequest::DropUnfinished { .. } => Ok(StoreReply::Dropped(u64::from(self.feed.below(2)))),
            StoreRequest::Delete { .. } => panic!("the replicator deletes nothing"),
            StoreRequest::GetDictionary { .. } | StoreRequest::PutDictionary { .. } => {
                panic!("nothing is compressed with zstd here")
            }
            StoreRequest::ListLegacy { .. } | StoreRequest::GetLegacy { .. } => {
                panic!("the replicator reads no other layout")
            }
        }
    }

    fn state(&mut self, request: &StateRequest) -> Outcome {
        if self.rarely() {
            return Outcome::State(Err("no room".into()));
        }
        match request {
            StateRequest::Load => return Outcome::State(Ok(StateReply::Records(self.journal.clone()))),
            StateRequest::Append(record) => self.journal.push(record.clone()),
            StateRequest::Rewrite(records) => self.journal = records.clone(),
            StateRequest::Sync => {}
        }
        Outcome::State(Ok(StateReply::Done))
    }

    fn answer(&mut self, op: OpId, request: Request) -> Outcome {
        match request {
            Request::Source(request) => self.source(&request),
            Request::Store(request) => self.store(op, &request),
            Request::State(request) => self.state(&request),
            Request::Compute(job) => Outcome::Compute(job.run()),
            Request::Prove if self.rarely() => Outcome::Proven(Err("another has it".into())),
            Request::Prove => Outcome::Proven(Ok(())),
            Request::Scratch(_) if self.rarely() => Outcome::Scratch(Err("no room".into())),
            Request::Scratch(ScratchRequest::Read { len, .. }) => {
                Outcome::Scratch(Ok(Chunk::from(self.feed.fill(len as usize))))
            }
            Request::Scratch(_) => Outcome::Scratch(Ok(Chunk::from(Vec::new()))),
            other @ (Request::Cell(_) | Request::Output(_) | Request::Copy(_) | Request::Grant(_)) => {
                panic!("the replicator asks for {other:?}")
            }
        }
    }

    /// Takes the actions of one event, each of which must be one that the contract allows.
    fn take(&mut self, actions: &mut Actions) {
        for action in actions.drain() {
            assert!(!self.stopped, "nothing follows the end: {action:?}");
            match action {
                Action::Submit { op, request } => {
                    assert!(op.seq > self.last_seq, "a name is given once");
                    self.last_seq = op.seq;
                    self.check(&request);
                    if request == Request::Source(SourceRequest::Open) {
                        self.last_open = Some(op);
                    }
                    self.open.push((op, request));
                }
                Action::Cancel { op } => self.cancelled.push(op),
                Action::Stopped(_) => self.stopped = true,
                Action::Notify(_) => {}
            }
        }
    }

    fn under_way(&self, kind: impl Fn(&Request) -> bool) -> usize {
        self.open.iter().filter(|(op, request)| !self.cancelled.contains(op) && kind(request)).count()
    }

    fn check(&mut self, request: &Request) {
        match request {
            Request::Store(
                StoreRequest::PutOpen { .. } | StoreRequest::PutPart { .. } | StoreRequest::PutCommit { .. },
            ) => {
                if let Request::Store(StoreRequest::PutPart { bytes, .. }) = request {
                    assert!(!bytes.is_empty() && bytes.len() <= PART_BYTES_MAX);
                }
                let puts = self.under_way(|it| {
                    matches!(
                        it,
                        Request::Store(
                            StoreRequest::PutOpen { .. }
                                | StoreRequest::PutPart { .. }
                                | StoreRequest::PutCommit { .. }
                        )
                    )
                });
                assert_eq!(puts, 0, "one step of one put at a time");
            }
            Request::Source(request) => {
                let asked = self.under_way(|it| matches!(it, Request::Source(_)));
                assert_eq!(asked, 0, "one request to the source at a time, and then {request:?}");
                match request {
                    SourceRequest::Open => {
                        assert!(!std::mem::replace(&mut self.linked, true), "opened twice")
                    }
                    SourceRequest::Close { .. } => self.linked = false,
                    SourceRequest::Stat | SourceRequest::ReadHeader | SourceRequest::LitestreamHead => {}
                    other => assert!(self.linked, "{other:?} without a link"),
                }
            }
            _ => {}
        }
    }
}

fn config(feed: &mut Feed<'_>) -> Config {
    let config = Config {
        sync_interval: Duration::from_millis(u64::from(feed.below(3)) * 100),
        min_checkpoint_pages: 1 + feed.below(4),
        quiet_after: Duration::from_millis(u64::from(feed.below(3)) * 200),
        pending_bytes_max: [700, 1_600, 1 << 20][feed.below(3) as usize],
        create_if_absent: feed.below(4) != 0,
        once: feed.below(8) == 0,
        adopt: feed.below(8) == 0,
        newest_only_from: 1 + feed.below(9),
        ..Config::default()
    };
    // By a draw that was there before: the corpus keeps its meaning.
    let by = config.newest_only_from;
    Config { epoch: by.is_multiple_of(3).then_some(2), succeeds: by == 9, ..config }
}

fn event(host: &mut Host<'_>, now: &mut Duration, deadline: Option<Mono>) -> Event {
    match host.feed.below(24) {
        0 => Event::SourceChanged,
        1 => Event::SyncNow,
        2 if host.feed.below(6) == 0 => {
            Event::Shutdown { deadline: Mono::from_duration(*now + Duration::from_secs(5)) }
        }
        3 => Event::StoreProbed(Findings { create_if_absent: Finding::Ignored, ..Findings::default() }),
        4 => {
            let op = OpId { replica: ReplicaId(0), run: 77, seq: u64::from(host.feed.below(30)) };
            Event::Completed { op, outcome: Outcome::State(Ok(StateReply::Done)) }
        }
        5..=8 => {
            *now =
                deadline.map_or(*now, |at| at.as_duration().max(*now).min(*now + Duration::from_secs(120)));
            Event::Tick
        }
        _ if host.open.is_empty() => {
            *now = deadline.map_or(*now, |at| at.as_duration().max(*now));
            Event::Tick
        }
        _ => {
            let at = host.feed.below(host.open.len() as u32) as usize;
            let (op, request) = host.open.remove(at);
            *now += Duration::from_micros(u64::from(host.feed.below(5_000)));
            let outcome = host.answer(op, request);
            // Opening that failed has opened nothing.
            if matches!((&outcome, host.last_open), (Outcome::Source(Err(_)), Some(last)) if last == op) {
                host.linked = false;
            }
            Event::Completed { op, outcome }
        }
    }
}

/// Feeds a replicator with events until the bytes or the replicator end; how many segments it put.
fn run(bytes: &[u8]) -> usize {
    let mut feed = Feed::new(bytes);
    let config = config(&mut feed);
    let mut host = Host::new(feed);
    let mut machine = Replicator::new(ReplicaId(0), 1, config);
    let mut twin = machine.clone();
    let (mut now, mut next) = (Duration::ZERO, Event::Start { entropy: 9 });
    while !host.feed.is_empty() {
        let clocks = Now { mono: Mono::from_duration(now), wall: Wall(now.as_millis() as i64) };
        let (mut actions, mut again) = (Actions::new(), Actions::new());
        twin.handle(clocks, next.clone(), &mut again);
        machine.handle(clocks, next, &mut actions);
        assert_eq!(actions, again, "a machine is a function of its events");
        host.take(&mut actions);
        let deadline = machine.next_deadline().map(|(at, _)| at);
        if host.stopped {
            assert_eq!(deadline, None, "who has ended waits for nothing");
        }
        next = event(&mut host, &mut now, deadline);
    }
    host.objects.len()
}

#[test]
fn event_sequences() {
    bolero::check!().with_iterations(1_500).with_max_len(8_192).for_each(|bytes: &[u8]| {
        run(&lengthened(bytes, 8_192));
    });
}

/// What the host answers lets the replicator do its work now and then.
#[test]
fn event_sequences_get_somewhere() {
    let (mut put, mut most) = (0, 0);
    for n in 0..300_u32 {
        let bytes = lengthened(&n.to_be_bytes(), 16_384);
        let segments = run(&bytes);
        put += usize::from(segments > 0);
        most = most.max(segments);
    }
    assert!(put > 60 && most > 5, "{put} of 300 put anything, {most} at the most");
}
