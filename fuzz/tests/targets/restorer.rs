//! The restore and the verification over stores that answer anything: they never panic, and a restore
//! that ends well has brought back exactly the state that was asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use driftless_core::checksum::{DbXor, page_checksum};
use driftless_core::ids::{DbChecksum, Level, Lineage, Mono, Now, PageNo, PageSize, Txid, TxidRange, Wall};
use driftless_core::ltx::{Encoder, LtxHeader};
use driftless_core::machine::{
    Action, Actions, ByteRange, Chunk, Event, Exit, Listed, Machine, Object, OpId, OpIds, Outcome,
    OutputError, OutputRequest, ReplicaId, Request, StoreError, StoreErrorKind, StoreReply, StoreRequest,
};
use driftless_core::restore::{RestoreConfig, RestoreTarget, Restorer};
use driftless_core::verify::{Verifier, VerifyConfig};
use driftless_fuzz::{Feed, lengthened};

const PAGE_BYTES: usize = 512;

type Objects = BTreeMap<Object, Vec<u8>>;

fn checksum(pages: &[Vec<u8>]) -> DbChecksum {
    let mut xor = DbXor::new();
    for (no, page) in (1..).zip(pages) {
        xor.toggle(page_checksum(PageNo::new(no).unwrap(), page));
    }
    xor.finish()
}

/// Some transactions, each in its segment, some also merged into a file of level 1, and the state
/// after each.
fn history(feed: &mut Feed<'_>) -> (Objects, Vec<Vec<u8>>) {
    let (mut objects, mut states) = (Objects::new(), Vec::new());
    let mut pages: Vec<Vec<u8>> = Vec::new();
    let chained = feed.below(4) != 0;
    for txid in 1..=1 + feed.below(5) {
        let pre = (!pages.is_empty()).then(|| checksum(&pages));
        let before = pages.len();
        pages.resize(1 + feed.below(4) as usize, Vec::new());
        let full = txid == 1 || feed.below(4) == 0;
        let mut sent = Vec::new();
        for (at, page) in pages.iter_mut().enumerate() {
            if full || at >= before || feed.bool() {
                *page = feed.fill(PAGE_BYTES);
                if at == 0 {
                    page[..16].copy_from_slice(b"SQLite format 3\0");
                    page[16..18].copy_from_slice(&512_u16.to_be_bytes());
                }
                sent.push(at);
            }
        }
        let range = TxidRange::single(Txid::new(txid.into()).unwrap());
        let stamp = Wall(i64::from(txid / 2));
        let mut header = LtxHeader::new(PageSize::new(512).unwrap(), pages.len() as u32, range, stamp);
        if chained {
            header.lineage = Lineage::new(5);
            (header.chain.pre, header.chain.post) = (pre, Some(checksum(&pages)));
        }
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&header, &mut bytes);
        for at in sent {
            encoder.page(PageNo::new(at as u32 + 1).unwrap(), &pages[at], &mut bytes);
        }
        encoder.finish(0, &mut bytes);
        objects.insert(Object { level: Level::CAPTURES, range }, bytes);
        states.push(pages.concat());
    }
    (objects, states)
}

/// A host with a store that answers as it likes.
struct Host<'a> {
    feed: Feed<'a>,
    objects: Objects,
    /// How often it says something else than the truth.
    lies: bool,
    output: Vec<u8>,
    /// What stands in the target's place.
    present: Vec<u8>,
    published: bool,
    open: Vec<(OpId, Request)>,
}

impl Host<'_> {
    fn store(&mut self, request: &StoreRequest) -> Result<StoreReply, StoreError> {
        use StoreErrorKind::{Ambiguous, Conflict, Corrupt, Denied, NotFound, Retry};
        if self.feed.below(12) == 0 {
            let kinds = [Retry, Retry, Ambiguous, Conflict, NotFound, Denied, Corrupt];
            let kind = kinds[self.feed.below(kinds.len() as u32) as usize];
            let hides = kind == NotFound && !self.lies;
            return Err(StoreError::new(if hides { Retry } else { kind }, "it failed"));
        }
        match request {
            StoreRequest::List { level, after, limit } => {
                let here = self.objects.iter().filter(|(object, _)| object.level == *level);
                let mut entries: Vec<Listed> = here
                    .filter(|(object, _)| after.is_none_or(|after| object.range > after))
                    .map(|(object, body)| Listed { object: *object, len: body.len() as u64, modified: None })
                    .collect();
                let max = (1 + self.feed.below(4)).min(*limit) as usize;
                let more = entries.len() > max;
                entries.truncate(max);
                if self.lies && self.feed.below(6) == 0 {
                    entries.iter_mut().for_each(|entry| entry.len = self.feed.below(5_000).into());
                }
                Ok(StoreReply::Listing { entries, more })
            }
            StoreRequest::Get { object, range } => {
                let Some(body) = self.objects.get(object) else {
                    return Err(StoreError::new(NotFound, "no such object"));
                };
                let len = body.len() as u64;
                let (start, end) = match range {
                    ByteRange::At { offset, len: want } => {
                        ((*offset).min(len), offset.saturating_add(*want).min(len))
                    }
                    ByteRange::Tail(want) => (len.saturating_sub(*want), len),
                };
                let mut bytes = body[start as usize..end as usize].to_vec();
                if self.lies && !bytes.is_empty() && self.feed.below(6) == 0 {
                    let at = self.feed.below(bytes.len() as u32) as usize;
                    bytes[at] ^= 1 << (self.feed.u8() % 8);
                    bytes.truncate(bytes.len() - self.feed.below(3).min(bytes.len() as u32) as usize);
                }
                let object_len =
                    if self.lies && self.feed.below(12) == 0 { self.feed.u32().into() } else { len };
                Ok(StoreReply::Bytes { bytes: Chunk::from(bytes), object_len })
            }
            StoreRequest::GetDictionary { .. } => Err(StoreError::new(NotFound, "no such object")),
            other => panic!("a restore only reads, and asks for {other:?}"),
        }
    }

    fn write(&mut self, request: OutputRequest) -> Result<Chunk, OutputError> {
        if self.feed.below(60) == 0 {
            return Err(OutputError { exists: false, text: "no space left".into() });
        }
        match request {
            OutputRequest::Create { keep: true } => {}
            OutputRequest::Create { keep: false } | OutputRequest::Discard => self.output = Vec::new(),
            OutputRequest::ReadBuilt { offset, len } => {
                let start = self.output.len().min(offset as usize);
                let end = self.output.len().min(start + len as usize);
                return Ok(Chunk::from(self.output[start..end].to_vec()));
            }
            OutputRequest::Write(extents) => {
                for (offset, bytes) in extents {
                    let end = offset as usize + bytes.len();
                    self.output.resize(self.output.len().max(end), 0);
                    self.output[offset as usize..end].copy_from_slice(&bytes);
                }
            }
            OutputRequest::SetLen(len) => self.output.resize(len as usize, 0),
            OutputRequest::Sync => {}
            OutputRequest::Publish { .. } => self.published = true,
            OutputRequest::ReadTarget { offset, len } => {
                let start = self.present.len().min(offset as usize);
                let end = self.present.len().min(start + len as usize);
                let mut read = self.present[start..end].to_vec();
                if !read.is_empty() && self.feed.below(20) == 0 {
                    // Somebody writes to it.
                    let at = self.feed.below(read.len() as u32) as usize;
                    read[at] ^= 1 << (self.feed.u8() % 8);
                }
                return Ok(Chunk::from(read));
            }
        }
        Ok(Chunk::default())
    }

    /// Runs a machine to its end, or for a while.
    fn run<M: Machine>(&mut self, machine: &mut M) -> Option<Exit> {
        let (mut now, mut event) = (Duration::ZERO, Event::Start { entropy: 3 });
        for _ in 0..3_000 {
            let mut out = Actions::new();
            machine.handle(Now { mono: Mono::from_duration(now), wall: Wall(0) }, event, &mut out);
            for action in out.drain() {
                match action {
                    Action::Submit { op, request } => self.open.push((op, request)),
                    Action::Cancel { op } => self.open.retain(|(open, _)| *open != op),
                    Action::Notify(_) => {}
                    Action::Stopped(exit) => return Some(exit),
                }
            }
            if self.open.is_empty() || self.feed.below(30) == 0 {
                now = machine.next_deadline().map_or(now, |(at, _)| at.as_duration().max(now));
                event = Event::Tick;
                continue;
            }
            let at = self.feed.below(self.open.len() as u32) as usize;
            let (op, request) = self.open.remove(at);
            let outcome = match request {
                Request::Store(request) => Outcome::Store(self.store(&request)),
                Request::Compute(job) => Outcome::Compute(job.run()),
                Request::Output(request) => Outcome::Output(self.write(request)),
                other => panic!("it asks for {other:?}"),
            };
            event = Event::Completed { op, outcome };
        }
        None
    }
}

fn host<'a>(bytes: &'a [u8], spoil: bool) -> (Host<'a>, Vec<Vec<u8>>) {
    let mut feed = Feed::new(bytes);
    let (mut objects, states) = history(&mut feed);
    let lies = feed.bool();
    let names: Vec<Object> = objects.keys().copied().collect();
    if spoil && feed.below(3) == 0 {
        let name = names[feed.below(names.len() as u32) as usize];
        match feed.below(3) {
            0 => drop(objects.remove(&name)),
            1 => {
                let body = objects.get_mut(&name).unwrap();
                let at = feed.below(body.len() as u32) as usize;
                body[at] ^= 1 << (feed.u8() % 8);
            }
            _ => {
                let body = objects.get_mut(&name).unwrap();
                body.truncate(feed.below(body.len() as u32) as usize);
            }
        }
    }
    (
        Host {
            feed,
            objects,
            lies,
            output: Vec::new(),
            present: Vec::new(),
            published: false,
            open: Vec::new(),
        },
        states,
    )
}

#[test]
fn restores_of_any_store() {
    bolero::check!().with_iterations(3_000).with_max_len(2_048).for_each(|bytes: &[u8]| {
        let bytes = lengthened(bytes, 4_096);
        let (mut host, states) = host(&bytes, true);
        let txid = 1 + u64::from(host.feed.below(states.len() as u32 + 1));
        let target = match host.feed.below(3) {
            0 => RestoreTarget::At(Txid::new(txid).unwrap()),
            1 => RestoreTarget::Time(Wall(host.feed.below(4).into())),
            _ => RestoreTarget::Latest,
        };
        let replace = host.feed.bool();
        if host.feed.bool() {
            // What a killed restore has left.
            host.output = states[host.feed.below(states.len() as u32) as usize].clone();
            let from = host.feed.below(host.output.len() as u32) as usize;
            host.output[from..].fill(0);
        }
        if replace {
            host.present = states[host.feed.below(states.len() as u32) as usize].clone();
        }
        let config = RestoreConfig { target, replace, parallelism: 3, ..RestoreConfig::default() };
        let mut restorer = Restorer::new(config, OpIds::new(ReplicaId(0), 1));
        let exit = host.run(&mut restorer);
        assert_eq!(restorer.status().phase == driftless_core::restore::RestorePhase::Stopped, exit.is_some());
        if exit != Some(Exit::Done) {
            return;
        }
        assert!(host.published, "it ends well once the result is in place");
        let found = restorer.status().target.expect("it was decided").get();
        if let RestoreTarget::At(txid) = target {
            assert_eq!(found, txid.get());
        }
        assert!(host.output == states[found as usize - 1], "not the state of transaction {found}");
    });
}

#[test]
fn verifications_of_any_store() {
    bolero::check!().with_iterations(2_000).with_max_len(2_048).for_each(|bytes: &[u8]| {
        let bytes = lengthened(bytes, 4_096);
        let (mut host, _) = host(&bytes, true);
        let mut verifier = Verifier::new(VerifyConfig::default(), OpIds::new(ReplicaId(0), 1));
        host.run(&mut verifier);
    });
}
