//! What is on the replica, and the page checksums of that state.
//!
//! The page table (8 bytes a page) is what makes a re-base by difference possible and the chain's
//! post-state cheap: a segment's post-state is its pre-state with the old checksums of its pages
//! taken out and the new ones put in. The table is tied to one transaction. It is kept in the
//! local journal as a base and a run of differences, so that a crash loses none of it; an intent
//! is journalled before each put, so that a put whose answer died with the process is recognised
//! by its post-state and not surveyed anew.

use alloc::string::String;
use alloc::vec::Vec;

use super::Resting;
use crate::checksum::DbXor;
use crate::ids::{DbChecksum, Incarnation, Lineage, Mono, PageNo, PageSize, Txid, Wall};
use crate::ltx::LtxHeader;
use crate::machine::{Chunk, Object, SealRecord, WalFacts};
use crate::mutant::{self, Mutant};
use crate::probe::Findings;
use crate::tiers::Fingerprint;
use crate::wal::{Salts, WalChecksum, WalPosition};

/// The checksum of every page of one state of the database.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PageTable {
    sums: Vec<u64>,
    xor: DbXor,
}

impl PageTable {
    /// The table of an empty database.
    pub fn new() -> PageTable {
        PageTable::default()
    }

    /// Pages in the database.
    pub fn pages(&self) -> u32 {
        self.sums.len() as u32
    }

    /// The checksum of a page; `None` past the end, and for the lock page, which has none.
    pub fn get(&self, page: PageNo) -> Option<u64> {
        self.sums.get(page.get() as usize - 1).copied().filter(|sum| *sum != 0)
    }

    /// Sets the number of pages; those past the end are forgotten, new ones have no checksum yet.
    pub fn resize(&mut self, pages: u32) {
        for sum in self.sums.drain((pages as usize).min(self.sums.len())..) {
            self.xor.toggle(sum);
        }
        self.sums.resize(pages as usize, 0);
    }

    /// Sets the checksum of a page within the database.
    pub fn set(&mut self, page: PageNo, sum: u64) {
        let slot = &mut self.sums[page.get() as usize - 1];
        self.xor.toggle(*slot);
        self.xor.toggle(sum);
        *slot = sum;
    }

    /// The checksum of the database.
    pub fn checksum(&self) -> DbChecksum {
        self.xor.finish()
    }

    /// The accumulator, for a job that adds new pages to it.
    pub fn xor(&self) -> DbXor {
        self.xor
    }

    /// The accumulator without `taken` and without every page past `pages`.
    pub fn xor_without(&self, taken: impl Iterator<Item = PageNo>, pages: u32) -> DbXor {
        let mut xor = self.xor;
        for page in taken.filter(|page| page.get() <= pages) {
            xor.toggle(self.get(page).unwrap_or(0));
        }
        for sum in self.sums.iter().skip(pages as usize) {
            xor.toggle(*sum);
        }
        xor
    }

    /// All pages with a checksum, in order.
    pub fn iter(&self) -> impl Iterator<Item = (PageNo, u64)> + '_ {
        self.sums
            .iter()
            .enumerate()
            .filter(|(_, sum)| **sum != 0)
            .map(|(i, sum)| (PageNo::new(i as u32 + 1).expect("pages count from 1"), *sum))
    }
}

/// One state of the database that is on the replica, and where the source stood when it was
/// captured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    /// The transaction that leads to it.
    pub txid: Txid,
    /// The stamp of its segment.
    pub stamp: Wall,
    /// The page size.
    pub page_size: PageSize,
    /// Pages in the database.
    pub pages: u32,
    /// The checksum of the database.
    pub post: DbChecksum,
    /// Device and inode of the source.
    pub file: (u64, u64),
    /// The end of what was captured in the WAL; `None` where it is not known, as for a segment
    /// that was taken over from an earlier run.
    pub wal: Option<WalPosition>,
}

/// What changes from one point to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The checksum of the state before; `None` where that is not known.
    pub pre: Option<DbChecksum>,
    /// Where it leads.
    pub to: Point,
    /// Whether `sums` names every page, so that nothing of the table before it counts.
    pub full: bool,
    /// New checksums of the pages that changed.
    pub sums: Vec<(PageNo, u64)>,
}

/// Everything that is known of the replica's end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// Whose history it is; set at the latest before the first put.
    pub lineage: Option<Lineage>,
    /// This run's number.
    pub incarnation: Incarnation,
    /// The last state that is known to be on the replica, with all before it.
    pub point: Option<Point>,
    /// The page checksums of that state; `None` if they are unknown.
    pub table: Option<PageTable>,
    /// A seal that still stands for the point.
    pub seal: Option<SealRecord>,
    /// The highest transaction on the replica, which may be ahead of `point` when another
    /// program wrote it.
    pub head: Option<Txid>,
    /// The stamp of the head.
    pub head_stamp: Wall,
    /// The head's post-state, where its segment says it.
    pub head_post: Option<DbChecksum>,
    /// A person has thrown away what was known: a whole base is due, whatever a survey would find.
    pub reset: bool,
}

impl History {
    /// The transaction that comes next.
    pub fn next_txid(&self) -> Txid {
        self.head.map_or(Txid::FIRST, Txid::next)
    }

    /// Whether a header that was read is that of the segment which led to the point, in all that is
    /// built on.
    pub(super) fn ends_with(&self, object: Object, header: &LtxHeader) -> bool {
        self.point.as_ref().is_some_and(|point| {
            object.range.max() == point.txid
                && header.chain.post == Some(point.post)
                && header.stamp == point.stamp
                && header.lineage == self.lineage
                && header.chain.incarnation <= self.incarnation
        })
    }

    /// Takes a step that is on the replica now.
    pub fn advance(&mut self, step: &Step) {
        let table = self.table.get_or_insert_default();
        apply(table, step);
        self.head = Some(step.to.txid);
        self.head_stamp = step.to.stamp;
        self.head_post = Some(step.to.post);
        self.point = Some(step.to.clone());
        self.seal = None;
        self.reset &= !step.full;
    }
}

fn apply(table: &mut PageTable, step: &Step) {
    if step.full {
        table.resize(0);
    }
    table.resize(step.to.pages);
    for (page, sum) in &step.sums {
        table.set(*page, *sum);
    }
}

/// One entry of the local journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// Whose history this is and which run began.
    Identity {
        /// The history.
        lineage: Lineage,
        /// The run.
        incarnation: Incarnation,
    },
    /// A put that is about to begin.
    Intent(Step),
    /// The put of this transaction is on the replica.
    Done(Txid),
    /// The position of the point was sealed.
    Sealed {
        /// The database file as it was then.
        seal: SealRecord,
        /// Where the WAL stood.
        wal: WalPosition,
    },
    /// The WAL position of the point moved without a change of state.
    Moved {
        /// Device and inode of the source.
        file: (u64, u64),
        /// The new position.
        wal: WalPosition,
    },
    /// A person has thrown away what was known of the replica's states.
    Reset,
}

/// What the journal says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Journal {
    /// The state at the last confirmed put.
    pub history: History,
    /// A put that was begun and not confirmed.
    pub intent: Option<Step>,
}

impl Journal {
    /// Replays records; stops at the first that makes no sense, as if the rest were lost.
    pub fn replay(records: &[Chunk]) -> Journal {
        let mut journal = Journal::default();
        for record in records {
            let Some(record) = Record::decode(record) else { break };
            journal.take(record);
        }
        journal
    }

    /// Where a database stands whose files, which are `file` and `wal` now, are as an earlier run has left
    /// them with a seal, with everything on the replica. A `-wal` with anything in it tells nothing: which
    /// it was is not written down.
    pub fn at_rest(
        &self,
        now: Mono,
        file: &SealRecord,
        wal: Option<WalFacts>,
    ) -> Option<(Fingerprint, Resting)> {
        let seal = self.history.seal.as_ref()?;
        let point = self.history.point.as_ref()?;
        let settled = self.intent.is_none() && self.history.lineage.is_some() && !self.history.reset;
        let believed = seal != file && mutant::on(Mutant::OldRecordsBelieved);
        let (seal, same) = if believed { (file, true) } else { (seal, seal == file) };
        let as_left = settled && wal.is_none_or(|wal| wal.size == 0) && same;
        let resting = || Resting {
            replicated: Some(point.txid),
            post: Some(point.post),
            lineage: self.history.lineage,
            synced_until: Some(now),
            store: Findings::default(),
            page_size: Some(point.page_size),
        };
        as_left.then(|| {
            let files = Fingerprint::new(seal.device, seal.inode, seal.size, seal.ctime_ns, wal);
            (files, resting())
        })
    }

    /// A step counts only if it starts where the table stands and ends where it says: a journal
    /// with a hole (a full disk) must not yield a table of no state at all.
    fn advance(&mut self, step: &Step) {
        let stands = self.history.point.as_ref().map(|point| point.post);
        let follows = step.full || (stands.is_some() && stands == step.pre);
        if !follows && !mutant::on(Mutant::JournalHoleTrusted) {
            self.history.table = None;
            self.history.point = None;
            return;
        }
        self.history.advance(step);
        let leads_there = self.history.table.as_ref().map(PageTable::checksum) == Some(step.to.post);
        if !leads_there && !mutant::on(Mutant::JournalHoleTrusted) {
            self.history.table = None;
            self.history.point = None;
        }
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Identity { lineage, incarnation } => {
                if self.history.lineage != Some(lineage) {
                    self.history = History { lineage: Some(lineage), ..History::default() };
                    self.intent = None;
                }
                self.history.incarnation = incarnation;
            }
            Record::Intent(step) => self.intent = Some(step),
            Record::Done(txid) => {
                if let Some(step) = self.intent.take_if(|step| step.to.txid == txid) {
                    self.advance(&step);
                }
            }
            Record::Sealed { seal, wal } => {
                if let Some(point) = &mut self.history.point {
                    point.file = (seal.device, seal.inode);
                    point.wal = Some(wal);
                    self.history.seal = Some(seal);
                }
            }
            Record::Moved { file, wal } => {
                if let Some(point) = &mut self.history.point {
                    point.file = file;
                    point.wal = Some(wal);
                    self.history.seal = None;
                }
            }
            Record::Reset => {
                let History { lineage, incarnation, .. } = self.history;
                self.history = History { lineage, incarnation, reset: true, ..History::default() };
                self.intent = None;
            }
        }
    }

    /// The records that are left when a person throws away what is known: whose history it is, and
    /// that a whole base is due. None if nothing is known.
    pub fn reset(records: &[Chunk]) -> Vec<Chunk> {
        let mut journal = Journal::replay(records);
        journal.take(Record::Reset);
        Journal::rewrite(&journal.history)
    }

    /// The fewest records that say the same.
    pub fn rewrite(history: &History) -> Vec<Chunk> {
        let mut records = Vec::new();
        let Some(lineage) = history.lineage else { return records };
        records.push(Record::Identity { lineage, incarnation: history.incarnation }.encode());
        if history.reset {
            records.push(Record::Reset.encode());
        }
        if let (Some(point), Some(table)) = (&history.point, &history.table) {
            let step = Step { pre: None, to: point.clone(), full: true, sums: table.iter().collect() };
            records.push(Record::Intent(step).encode());
            records.push(Record::Done(point.txid).encode());
        }
        if let (Some(seal), Some(wal)) = (&history.seal, history.point.as_ref().and_then(|point| point.wal)) {
            records.push(Record::Sealed { seal: seal.clone(), wal }.encode());
        }
        records
    }
}

impl Record {
    /// The stored form.
    pub fn encode(&self) -> Chunk {
        let mut w = Writer(Vec::new());
        match self {
            Record::Identity { lineage, incarnation } => {
                w.u8(1);
                w.u64(lineage.get());
                w.u32(incarnation.0);
            }
            Record::Intent(step) => {
                w.0.reserve(96 + step.sums.len() * 12);
                w.u8(2);
                w.u64(DbChecksum::to_stored(step.pre));
                w.point(&step.to);
                w.u8(u8::from(step.full));
                w.u32(step.sums.len() as u32);
                for (page, sum) in &step.sums {
                    w.u32(page.get());
                    w.u64(*sum);
                }
            }
            Record::Done(txid) => {
                w.u8(3);
                w.u64(txid.get());
            }
            Record::Sealed { seal, wal } => {
                w.u8(4);
                w.wal(wal);
                w.u64(seal.device);
                w.u64(seal.inode);
                w.u64(seal.size);
                w.0.extend_from_slice(&seal.ctime_ns.to_be_bytes());
                w.u32(seal.boot_id.len() as u32);
                w.0.extend_from_slice(seal.boot_id.as_bytes());
            }
            Record::Moved { file, wal } => {
                w.u8(5);
                w.u64(file.0);
                w.u64(file.1);
                w.wal(wal);
            }
            Record::Reset => w.u8(6),
        }
        Chunk::from(w.0)
    }

    /// Reads the stored form; `None` if it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Record> {
        let mut r = Reader(bytes);
        let record = match r.u8()? {
            1 => Record::Identity { lineage: Lineage::new(r.u64()?)?, incarnation: Incarnation(r.u32()?) },
            2 => {
                let pre = DbChecksum::from_stored(r.u64()?);
                let to = r.point()?;
                let full = r.u8()? != 0;
                let count = r.u32()? as usize;
                if r.0.len() != count.checked_mul(12)? {
                    return None;
                }
                let mut sums = Vec::with_capacity(count);
                for _ in 0..count {
                    let page = PageNo::new(r.u32()?)?;
                    if page.get() > to.pages {
                        return None;
                    }
                    sums.push((page, r.u64()?));
                }
                Record::Intent(Step { pre, to, full, sums })
            }
            3 => Record::Done(Txid::new(r.u64()?)?),
            4 => {
                let wal = r.wal()?;
                let seal = SealRecord {
                    device: r.u64()?,
                    inode: r.u64()?,
                    size: r.u64()?,
                    ctime_ns: i128::from_be_bytes(r.take(16)?.try_into().ok()?),
                    boot_id: {
                        let len = r.u32()? as usize;
                        String::from_utf8(r.take(len)?.to_vec()).ok()?
                    },
                };
                Record::Sealed { seal, wal }
            }
            5 => Record::Moved { file: (r.u64()?, r.u64()?), wal: r.wal()? },
            6 => Record::Reset,
            _ => return None,
        };
        r.0.is_empty().then_some(record)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, v: u8) {
        self.0.push(v);
    }
    fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_be_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_be_bytes());
    }
    fn wal(&mut self, wal: &WalPosition) {
        self.u32(wal.salts.one);
        self.u32(wal.salts.two);
        self.u32(wal.frame);
        self.u32(wal.checksum.0);
        self.u32(wal.checksum.1);
    }
    fn point(&mut self, point: &Point) {
        self.u64(point.txid.get());
        self.u64(point.stamp.0 as u64);
        self.u32(point.page_size.get());
        self.u32(point.pages);
        self.u64(point.post.get());
        self.u64(point.file.0);
        self.u64(point.file.1);
        self.u8(u8::from(point.wal.is_some()));
        if let Some(wal) = &point.wal {
            self.wal(wal);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }
    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }
    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }
    fn wal(&mut self) -> Option<WalPosition> {
        Some(WalPosition {
            salts: Salts { one: self.u32()?, two: self.u32()? },
            frame: self.u32()?,
            checksum: WalChecksum(self.u32()?, self.u32()?),
        })
    }
    fn point(&mut self) -> Option<Point> {
        Some(Point {
            txid: Txid::new(self.u64()?)?,
            stamp: Wall(self.u64()? as i64),
            page_size: PageSize::new(self.u32()?)?,
            pages: self.u32()?,
            post: DbChecksum::from_stored(self.u64()?)?,
            file: (self.u64()?, self.u64()?),
            wal: if self.u8()? != 0 { Some(self.wal()?) } else { None },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    fn sealed() -> (SealRecord, Vec<Record>) {
        let seal = SealRecord { device: 1, inode: 2, size: 512, ctime_ns: 3, boot_id: "boot".into() };
        let wal = WalPosition { salts: Salts { one: 1, two: 2 }, frame: 3, checksum: WalChecksum(4, 5) };
        let mut table = PageTable::new();
        table.resize(1);
        table.set(PageNo::FIRST, 1 << 63 | 9);
        let to = Point {
            txid: Txid::FIRST,
            stamp: Wall(1),
            page_size: PageSize::new(512).unwrap(),
            pages: 1,
            post: table.checksum(),
            file: (1, 2),
            wal: None,
        };
        let step = Step { pre: None, to, full: true, sums: table.iter().collect() };
        let records = vec![
            Record::Identity { lineage: Lineage::new(7).unwrap(), incarnation: Incarnation(1) },
            Record::Intent(step),
            Record::Done(Txid::FIRST),
            Record::Sealed { seal: seal.clone(), wal },
        ];
        (seal, records)
    }

    fn replay(records: &[Record]) -> Journal {
        Journal::replay(&records.iter().map(Record::encode).collect::<Vec<_>>())
    }

    #[test]
    fn at_rest_is_what_was_sealed_and_is_so_still() {
        let (seal, records) = sealed();
        let now = Mono::default();
        let journal = replay(&records);
        let (files, resting) = journal.at_rest(now, &seal, None).unwrap();
        assert_eq!(files, Fingerprint::new(1, 2, 512, 3, None));
        assert_eq!((resting.replicated, resting.post), (Some(Txid::FIRST), Some(journal_post(&journal))));
        let wal = |size| Some(WalFacts { inode: 8, size, mtime_ns: 9 });
        assert!(journal.at_rest(now, &seal, wal(0)).is_some());
        // Which `-wal` it was is not written down.
        assert_eq!(journal.at_rest(now, &seal, wal(32)), None);
        for other in [
            SealRecord { inode: 3, ..seal.clone() },
            SealRecord { ctime_ns: 4, ..seal.clone() },
            // Nobody says what the disk was given before the power failed.
            SealRecord { boot_id: "other".into(), ..seal.clone() },
        ] {
            assert_eq!(journal.at_rest(now, &other, None), None, "{other:?}");
        }
    }

    #[test]
    fn what_has_come_after_the_seal_is_not_at_rest() {
        let (seal, records) = sealed();
        let intent = records[1].clone();
        let wal = replay(&records).history.point.and_then(|point| point.wal).unwrap();
        for after in [intent, Record::Reset, Record::Moved { file: (1, 2), wal }] {
            let records = [&records[..], &[after]].concat();
            assert_eq!(replay(&records).at_rest(Mono::default(), &seal, None), None);
        }
        // Cut short anywhere.
        for count in 0..records.len() {
            assert_eq!(replay(&records[..count]).at_rest(Mono::default(), &seal, None), None);
        }
    }

    fn journal_post(journal: &Journal) -> DbChecksum {
        journal.history.point.as_ref().unwrap().post
    }
}
