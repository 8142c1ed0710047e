//! Histories as Driftless writes them, made page by page.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use crate::checksum::{DbXor, page_checksum};
use crate::ids::{
    DbChecksum, Incarnation, Level, Lineage, PENDING_BYTE, PageNo, PageSize, Txid, TxidRange, Wall,
};
use crate::ltx::{Encoder, LtxHeader};
use crate::machine::Object;

/// A database and its replica.
pub struct History {
    pub page_size: PageSize,
    pub pages: Vec<Vec<u8>>,
    pub store: BTreeMap<Object, Vec<u8>>,
    /// The database after each transaction.
    pub states: BTreeMap<u64, Vec<u8>>,
    pub last: u64,
    pub post: Option<DbChecksum>,
    pub chained: bool,
    pub incarnation: u32,
    pub pending_byte: u64,
    draw: u64,
}

pub fn object(level: u8, min: u64, max: u64) -> Object {
    let range = TxidRange::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap();
    Object { level: Level::new(level).unwrap(), range }
}

impl History {
    pub fn new(page_bytes: u32, chained: bool) -> History {
        History {
            page_size: PageSize::new(page_bytes).unwrap(),
            pages: Vec::new(),
            store: BTreeMap::new(),
            states: BTreeMap::new(),
            last: 0,
            post: None,
            chained,
            incarnation: 1,
            pending_byte: PENDING_BYTE,
            draw: 99,
        }
    }

    /// A page that LZ4 can halve, but not make vanish.
    fn content(&mut self) -> Vec<u8> {
        let mut page = vec![b'.'; self.page_size.bytes()];
        for byte in page.iter_mut().step_by(3) {
            self.draw = self.draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (self.draw >> 56) as u8;
        }
        page
    }

    fn lock_page(&self) -> u32 {
        self.page_size.lock_page(self.pending_byte).get()
    }

    /// One transaction: rewrites `pages` and makes the database `commit` pages long.
    pub fn commit(&mut self, commit: u32, pages: &[u32]) {
        let grown = self.pages.len() as u32 + 1..=commit;
        let mut changed: Vec<u32> =
            pages.iter().copied().chain(grown).filter(|&page| page <= commit).collect();
        changed.sort_unstable();
        changed.dedup();
        changed.retain(|&page| page != self.lock_page());
        self.pages.resize(commit as usize, vec![0; self.page_size.bytes()]);
        for &page in &changed {
            self.pages[page as usize - 1] = self.content();
        }
        // As in a database, so that a copy can tell.
        let page_size = (self.page_size.get() as u16).max(1);
        self.pages[0][..16].copy_from_slice(b"SQLite format 3\0");
        self.pages[0][16..18].copy_from_slice(&page_size.to_be_bytes());
        self.last += 1;
        let pre = self.post;
        self.post = Some(self.state());
        self.states.insert(self.last, self.pages.concat());
        let file = self.encode(self.last, self.last, &changed, pre, self.post);
        self.store.insert(object(0, self.last, self.last), file);
    }

    /// Every page at another page size, as after `VACUUM`.
    pub fn change_page_size(&mut self, page_bytes: u32, commit: u32) {
        self.page_size = PageSize::new(page_bytes).unwrap();
        self.pages.clear();
        self.commit(commit, &[]);
    }

    pub fn state(&self) -> DbChecksum {
        let mut xor = DbXor::new();
        for (no, page) in (1..).zip(&self.pages) {
            if no != self.lock_page() {
                xor.toggle(page_checksum(PageNo::new(no).unwrap(), page));
            }
        }
        xor.finish()
    }

    /// A snapshot of the present state.
    pub fn snapshot(&mut self) {
        let all: Vec<u32> = (1..=self.pages.len() as u32).filter(|&page| page != self.lock_page()).collect();
        let file = self.encode(1, self.last, &all, None, self.post);
        self.store.insert(object(9, 1, self.last), file);
    }

    pub fn encode(
        &self,
        min: u64,
        max: u64,
        pages: &[u32],
        pre: Option<DbChecksum>,
        post: Option<DbChecksum>,
    ) -> Vec<u8> {
        let range = object(0, min, max).range;
        let mut header =
            LtxHeader::new(self.page_size, self.pages.len() as u32, range, Wall(max as i64 * 1000));
        if self.chained {
            header.lineage = Lineage::new(7);
            header.chain.pre = pre;
            header.chain.post = post;
            header.chain.incarnation = Incarnation(self.incarnation);
        }
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&header, &mut file).with_pending_byte(self.pending_byte);
        for &page in pages {
            encoder.page(PageNo::new(page).unwrap(), &self.pages[page as usize - 1], &mut file);
        }
        encoder.finish(0, &mut file);
        file
    }

    /// A history with growth, shrinking, and a snapshot in its middle; 40 transactions.
    pub fn typical(page_bytes: u32, chained: bool) -> History {
        let mut history = History::new(page_bytes, chained);
        history.commit(300, &[]);
        history.snapshot();
        for n in 2..=40u32 {
            let size = if n % 11 == 0 { 150 } else { 300 + n * 7 };
            history.commit(size, &[1, n, n * 3 % 150 + 1, n * 5 % 140 + 1]);
            if n == 20 {
                history.snapshot();
            }
        }
        history
    }
}
