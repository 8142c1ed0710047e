//! Replicas as Litestream 0.3 wrote them, made page by page: WALs with real checksums, cut into
//! segments, and LZ4 frames with blocks of any size, linked or not.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use xxhash_rust::xxh32::xxh32;

use crate::ids::{PageNo, PageSize, Wall};
use crate::legacy::{Generation, LegacyObject, LegacyPart};
use crate::wal::{FrameHeader, Salts, WalHeader};

pub const GENERATION: Generation = Generation(0x0ccf_80b8_acbd_45e4);

/// An LZ4 frame as `pierrec/lz4` writes it: a content checksum and no content size. `code` is that
/// of the block size, 4 (64 KiB) to 7 (4 MiB). Blocks that do not shrink are stored.
pub fn lz4_frame(content: &[u8], code: u8, linked: bool) -> Vec<u8> {
    let mut frame = vec![4, 0x22, 0x4d, 0x18, if linked { 0x44 } else { 0x64 }, code << 4];
    frame.push((xxh32(&frame[4..], 0) >> 8) as u8);
    let block_bytes = 1 << (8 + 2 * code);
    for (at, block) in content.chunks(block_bytes).enumerate() {
        let before = &content[..at * block_bytes];
        let window = &before[before.len().saturating_sub(64 << 10)..];
        let packed = match linked && !window.is_empty() {
            true => lz4_flex::block::compress_with_dict(block, window),
            false => lz4_flex::block::compress(block),
        };
        let stored = packed.len() >= block.len();
        let bytes = if stored { block } else { &packed };
        let size = bytes.len() as u32 | if stored { 1 << 31 } else { 0 };
        frame.extend_from_slice(&size.to_le_bytes());
        frame.extend_from_slice(bytes);
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&xxh32(content, 0).to_le_bytes());
    frame
}

/// A database in WAL mode and its replica.
pub struct LegacyHistory {
    pub page_size: PageSize,
    pub objects: BTreeMap<LegacyObject, (Vec<u8>, Option<Wall>)>,
    /// After each segment: the segment, and the database.
    pub states: Vec<(LegacyObject, Vec<u8>)>,
    /// The database now.
    pub pages: Vec<Vec<u8>>,
    index: u32,
    header: WalHeader,
    /// The WAL of the index so far, and how much of it is on the replica.
    wal: Vec<u8>,
    sent: usize,
    last: FrameHeader,
    clock: i64,
    draw: u64,
}

impl LegacyHistory {
    /// A database of so many pages, with a snapshot and an empty WAL of index 0.
    pub fn new(page_bytes: u32, pages: u32, seed: u64) -> LegacyHistory {
        let page_size = PageSize::new(page_bytes).unwrap();
        let header = WalHeader::new(page_size, 0, Salts { one: 1, two: 2 }, false);
        let last =
            FrameHeader { page: PageNo::FIRST, commit: 0, salts: header.salts, checksum: header.checksum };
        let mut history = LegacyHistory {
            page_size,
            objects: BTreeMap::new(),
            states: Vec::new(),
            pages: Vec::new(),
            index: 0,
            header,
            wal: header.encode().to_vec(),
            sent: 0,
            last,
            clock: 0,
            draw: seed,
        };
        for _ in 0..pages {
            let page = history.content();
            history.pages.push(page);
        }
        history.say_size();
        history.snapshot();
        history
    }

    pub fn draw(&mut self, below: u32) -> u32 {
        self.draw = self.draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.draw >> 33) as u32 % below
    }

    /// A page that LZ4 can halve, but not make vanish.
    fn content(&mut self) -> Vec<u8> {
        let mut page = vec![b'.'; self.page_size.bytes()];
        for byte in page.iter_mut().step_by(5) {
            *byte = self.draw(256) as u8;
        }
        page
    }

    /// Writes the database header, and in it the size, onto the first page.
    fn say_size(&mut self) {
        let size = self.pages.len() as u32;
        let raw = self.page_size.get();
        let page = &mut self.pages[0];
        page[..16].copy_from_slice(b"SQLite format 3\0");
        page[16..18].copy_from_slice(&(if raw == 65_536 { 1 } else { raw as u16 }).to_be_bytes());
        for at in [24, 92] {
            page[at..at + 4].copy_from_slice(&9_u32.to_be_bytes());
        }
        page[28..32].copy_from_slice(&size.to_be_bytes());
    }

    pub fn object(&self, part: LegacyPart) -> LegacyObject {
        LegacyObject { generation: GENERATION, index: self.index, part }
    }

    fn put(&mut self, object: LegacyObject, content: &[u8]) {
        self.clock += 1000;
        let code = 4 + self.draw(4) as u8;
        let linked = self.draw(2) == 0;
        let frame = lz4_frame(content, code, linked);
        self.objects.insert(object, (frame, Some(Wall(self.clock))));
    }

    /// A copy of the database as it is now, under the index of the WAL in use.
    pub fn snapshot(&mut self) {
        let object = self.object(LegacyPart::Snapshot);
        let content = self.pages.concat();
        self.put(object, &content);
    }

    /// Appends a frame of a page as it is now.
    pub fn frame(&mut self, page: u32, commit: u32) {
        let content = &self.pages[page as usize - 1];
        let no = PageNo::new(page).unwrap();
        let frame = FrameHeader::new(self.last.checksum, false, self.header.salts, no, commit, content);
        self.wal.extend_from_slice(&frame.encode());
        self.wal.extend_from_slice(content);
        self.last = frame;
    }

    /// A transaction that rewrites some pages, each once or twice, and makes the database `size`
    /// pages long.
    pub fn commit(&mut self, size: u32, rewrites: u32) {
        let before = self.pages.len() as u32;
        let blank = vec![0; self.page_size.bytes()];
        self.pages.resize(size as usize, blank);
        let mut changed: Vec<u32> = (before + 1..=size).collect();
        for _ in 0..rewrites {
            let page = 1 + self.draw(size);
            changed.push(page);
        }
        if size != before || changed.is_empty() {
            changed.push(1);
        }
        for (at, &page) in changed.iter().enumerate() {
            self.pages[page as usize - 1] = self.content();
            if changed[..=at].contains(&1) {
                self.say_size();
            }
            self.frame(page, if at + 1 == changed.len() { size } else { 0 });
        }
    }

    /// Puts what the WAL has grown by since the last segment.
    pub fn send(&mut self) -> LegacyObject {
        let object = self.object(LegacyPart::Wal { offset: self.sent as u64 });
        let content = self.wal[self.sent..].to_vec();
        self.put(object, &content);
        self.sent = self.wal.len();
        self.states.push((object, self.pages.concat()));
        object
    }

    /// The WAL begins anew: everything is in the database.
    pub fn restart(&mut self) {
        self.index += 1;
        let salts = Salts { one: self.header.salts.one + 1, two: self.draw(u32::MAX) };
        self.header = WalHeader::new(self.page_size, self.index, salts, false);
        self.last.checksum = self.header.checksum;
        self.wal = self.header.encode().to_vec();
        self.sent = 0;
    }

    /// Several indexes with several segments each; a snapshot at the start of every third index.
    pub fn typical(page_bytes: u32, seed: u64) -> LegacyHistory {
        let mut history = LegacyHistory::new(page_bytes, 9, seed);
        for index in 0..5 {
            if index > 0 {
                history.restart();
                if index % 3 == 0 {
                    history.snapshot();
                }
            }
            // Now and then the first segment of an index is its header alone.
            if history.draw(3) == 0 {
                history.send();
            }
            for _ in 0..1 + history.draw(4) {
                for _ in 0..1 + history.draw(4) {
                    let size = 5 + history.draw(40);
                    let rewrites = history.draw(12);
                    history.commit(size, rewrites);
                }
                history.send();
            }
        }
        history
    }

    /// What is on the replica up to and with a segment.
    pub fn up_to(&self, last: LegacyObject) -> BTreeMap<LegacyObject, (Vec<u8>, Option<Wall>)> {
        let within = |object: &LegacyObject| match object.part {
            LegacyPart::Snapshot => object.index <= last.index,
            _ => *object <= last,
        };
        self.objects
            .iter()
            .filter(|(object, _)| within(object))
            .map(|(object, body)| (*object, body.clone()))
            .collect()
    }
}
