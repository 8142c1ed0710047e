//! From the bytes of objects to the pages of the database, as a job.
//!
//! A snapshot's content goes to the file as it comes. Of a WAL the newest image of each page in the
//! stretch at hand is written at once, also where the commit is still to come: segments end with a
//! commit, so that in a sound replica it does come. Where the last WAL ends in the middle of a
//! transaction all the same, the [`tail`](Unpacker::tail) says so, and the restore is run again with
//! a [`WalLimit`]. So a transaction of any size is applied without being held.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{LegacyObject, LegacyPart};
use crate::bytes::{be_u16, be_u32};
use crate::ids::{PageNo, PageSize};
use crate::ltx::LtxError;
use crate::ltx::lz4frame::{Block, FrameStream};
use crate::machine::Chunk;
use crate::wal::{FrameHeader, Scanner, WAL_HEADER_BYTES, WalHeader};

/// Content bytes after which a job ends, so that what it gives can be written.
const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// The database header, of which the page size is needed.
const DATABASE_HEADER_BYTES: usize = 100;

/// What a file begins with that Litestream 0.3 has encrypted.
const AGE_MAGIC: &[u8] = b"age-encryption.org/";

/// How far the WAL of an index is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalLimit {
    /// Of which index.
    pub index: u32,
    /// Up to which frame, from 1; 0 for none.
    pub frame: u32,
}

/// A WAL being applied.
#[derive(Clone, PartialEq, Debug, Default)]
struct Wal {
    /// `None` before its header.
    scanner: Option<Scanner>,
    /// Bytes of a frame, or of the header, whose rest is still to come.
    rest: Vec<u8>,
    /// The last frame that ended a transaction; 0 where there is none.
    committed: u32,
    /// Pages of the transaction under way that lie beyond the size before it.
    grown: BTreeSet<u32>,
}

/// What stands on the first page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct FirstPage {
    change_counter: u32,
    pages: u32,
    valid_for: u32,
}

impl FirstPage {
    fn read(page: &[u8]) -> FirstPage {
        let at = |at| be_u32(page, at);
        FirstPage { change_counter: at(24), pages: at(28), valid_for: at(92) }
    }

    /// The size in pages, where the database says it.
    fn size(&self) -> Option<u32> {
        (self.pages != 0 && self.change_counter == self.valid_for).then_some(self.pages)
    }
}

/// The objects of a plan, decoded one after the other.
#[derive(Clone, PartialEq, Debug)]
pub struct Unpacker {
    object: Option<LegacyObject>,
    frame: FrameStream,
    /// The first bytes of the snapshot.
    head: Vec<u8>,
    page_size: Option<PageSize>,
    /// The size of the database in pages, after the last commit.
    pages: u32,
    first_page: FirstPage,
    wal: Wal,
    limit: Option<WalLimit>,
    frames: u64,
    pending_byte: u64,
}

/// A piece of an object to decode.
#[derive(Clone, PartialEq, Debug)]
pub struct UnpackJob {
    /// The state so far.
    pub unpacker: Box<Unpacker>,
    /// More bytes; `None` to go on with those at hand.
    pub bytes: Option<Chunk>,
    /// Whether the object ends with them.
    pub last: bool,
}

/// What came out.
#[derive(Clone, PartialEq, Debug)]
pub struct UnpackOutput {
    /// The state to go on with.
    pub unpacker: Box<Unpacker>,
    /// What to write: offsets in the database and bytes. No two overlap.
    pub writes: Vec<(u64, Chunk)>,
    /// What to do next.
    pub next: UnpackNext,
}

/// How an object goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UnpackNext {
    /// With more bytes.
    Bytes,
    /// Without; it stopped because enough has come out.
    More,
    /// Not at all: it has ended, and held so many bytes.
    End(u64),
    /// Not at all: it is damaged, and how.
    Failed(String),
}

impl UnpackJob {
    /// Does the work.
    pub fn run(self) -> UnpackOutput {
        let UnpackJob { mut unpacker, bytes, last } = self;
        let mut writes = Vec::new();
        let next = unpacker.advance(bytes.as_deref(), last, &mut writes).unwrap_or_else(UnpackNext::Failed);
        UnpackOutput { unpacker, writes, next }
    }
}

impl Unpacker {
    /// Nothing yet. `limit` holds the WAL of one index back.
    pub fn new(limit: Option<WalLimit>, pending_byte: u64) -> Unpacker {
        Unpacker {
            object: None,
            frame: FrameStream::new(),
            head: Vec::new(),
            page_size: None,
            pages: 0,
            first_page: FirstPage::default(),
            wal: Wal::default(),
            limit,
            frames: 0,
            pending_byte,
        }
    }

    /// Goes on with another object.
    pub fn begin(&mut self, object: LegacyObject) {
        if self.object.is_none_or(|before| before.index != object.index) {
            self.wal = Wal::default();
        }
        self.object = Some(object);
        self.frame = FrameStream::new();
    }

    /// The page size, once known.
    pub const fn page_size(&self) -> Option<PageSize> {
        self.page_size
    }

    /// The size of the database in pages, after the last commit.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// Frames applied.
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Where the WAL at hand ends in the middle of a transaction: its last commit.
    pub fn tail(&self) -> Option<WalLimit> {
        let frame = self.wal.scanner.as_ref()?.position().frame;
        let index = self.object?.index;
        (frame > self.wal.committed).then_some(WalLimit { index, frame: self.wal.committed })
    }

    /// Whether the WAL at hand may end here.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_end(&self) -> Result<(), String> {
        match self.wal.rest.len() {
            0 => Ok(()),
            rest => Err(format!("the wal ends within a frame, {rest} bytes after the last whole one")),
        }
    }

    /// Whether the database is as large as its first page says. A snapshot that was copied while
    /// the WAL was further than what is applied of it may hold pages of a later state. (A file that
    /// was shrunk may be longer than it says, as long as no WAL cuts it.)
    ///
    /// # Errors
    /// Where it is not.
    pub fn check_size(&self) -> Result<(), String> {
        let fits = match self.first_page.size() {
            Some(size) if self.frames > 0 => size == self.pages,
            Some(size) => size <= self.pages,
            None => true,
        };
        if fits {
            return Ok(());
        }
        Err(format!(
            "its first page tells of {} pages where the state has {}: it holds parts of a later one",
            self.first_page.pages, self.pages
        ))
    }

    fn advance(
        &mut self,
        bytes: Option<&[u8]>,
        last: bool,
        writes: &mut Vec<(u64, Chunk)>,
    ) -> Result<UnpackNext, String> {
        let object = self.object.ok_or("no object was begun")?;
        if let Some(bytes) = bytes {
            if self.frame.offset() == 0 && bytes.starts_with(AGE_MAGIC) {
                return Err("it is encrypted by age, which is not read here: restore with Litestream".into());
            }
            self.frame.push(bytes);
        }
        let text = |error: LtxError| error.to_string();
        let mut images = Images::default();
        let mut out = 0;
        let next = loop {
            if out >= OUTPUT_BYTES_MAX {
                break UnpackNext::More;
            }
            match self.frame.next_block().map_err(text)? {
                Block::Content(content) => {
                    out += content.len();
                    match object.part {
                        LegacyPart::Snapshot => self.copy(content, writes)?,
                        _ => self.apply(object.index, &content, &mut images)?,
                    }
                }
                Block::NeedMore if last => {
                    return Err(format!(
                        "the file ends at byte {} within its lz4 frame",
                        self.frame.offset()
                    ));
                }
                Block::NeedMore => break UnpackNext::Bytes,
                Block::End if !last => return Err("more bytes follow the lz4 frame".into()),
                Block::End => break self.object_ended(object)?,
            }
        };
        if let Some(page_size) = self.page_size {
            images.join(page_size, writes);
        }
        Ok(next)
    }

    /// Takes bytes of the snapshot.
    fn copy(&mut self, content: Vec<u8>, writes: &mut Vec<(u64, Chunk)>) -> Result<(), String> {
        let missing = DATABASE_HEADER_BYTES - self.head.len();
        if missing > 0 {
            self.head.extend_from_slice(&content[..missing.min(content.len())]);
            if self.head.len() == DATABASE_HEADER_BYTES {
                self.page_size = Some(page_size_of(&self.head)?);
                self.first_page = FirstPage::read(&self.head);
            }
        }
        let offset = self.frame.content_bytes() - content.len() as u64;
        writes.push((offset, Chunk::from(content)));
        Ok(())
    }

    fn object_ended(&mut self, object: LegacyObject) -> Result<UnpackNext, String> {
        let bytes = self.frame.content_bytes();
        if object.part == LegacyPart::Snapshot && bytes > 0 {
            let page_size = self.page_size.ok_or("the snapshot is shorter than a database header")?;
            let page_bytes = u64::from(page_size.get());
            if !bytes.is_multiple_of(page_bytes) {
                return Err(format!(
                    "the snapshot has {bytes} bytes, which are no whole pages of {page_size}"
                ));
            }
            self.pages = u32::try_from(bytes / page_bytes).map_err(|_| "the snapshot has too many pages")?;
        }
        Ok(UnpackNext::End(bytes))
    }

    /// Takes bytes of a WAL.
    fn apply(&mut self, index: u32, content: &[u8], images: &mut Images) -> Result<(), String> {
        let mut bytes = core::mem::take(&mut self.wal.rest);
        bytes.extend_from_slice(content);
        let mut consumed = 0;
        if self.wal.scanner.is_none() {
            if bytes.len() < WAL_HEADER_BYTES {
                self.wal.rest = bytes;
                return Ok(());
            }
            self.begin_wal(&bytes)?;
            consumed = WAL_HEADER_BYTES;
        }
        let held_back = self.limit.filter(|limit| limit.index == index);
        let until = held_back.map_or(u32::MAX, |limit| limit.frame);
        let mut scanner = self.wal.scanner.take().ok_or("a wal begins with its header")?;
        let mut fault = None;
        let scanned = scanner.scan(&bytes[consumed..], until, &mut |number, frame, page| {
            if fault.is_none() {
                fault = self.frame(number, frame, page, images).err();
            }
        });
        let reached = scanner.position().frame;
        self.wal.scanner = Some(scanner);
        if let Some(fault) = fault {
            return Err(fault);
        }
        consumed += scanned.map_err(|stop| stop.to_string())?;
        // What is held back is not looked at.
        if held_back.is_none_or(|limit| reached < limit.frame) {
            bytes.drain(..consumed);
            self.wal.rest = bytes;
        }
        Ok(())
    }

    fn begin_wal(&mut self, bytes: &[u8]) -> Result<(), String> {
        let header = WalHeader::decode(bytes).map_err(|error| error.to_string())?;
        let page_size = *self.page_size.get_or_insert(header.page_size);
        if page_size != header.page_size {
            return Err(format!(
                "wal header, byte 8: expected the page size of the snapshot, {page_size}, found {}",
                header.page_size
            ));
        }
        self.wal.scanner = Some(Scanner::from_header(&header));
        Ok(())
    }

    fn frame(
        &mut self,
        number: u32,
        frame: &FrameHeader,
        page: &[u8],
        images: &mut Images,
    ) -> Result<(), String> {
        self.frames += 1;
        let no = frame.page;
        images.0.insert(no, page.to_vec());
        if no == PageNo::FIRST {
            self.first_page = FirstPage::read(page);
        }
        if no.get() > self.pages {
            self.wal.grown.insert(no.get());
        }
        if frame.is_commit() {
            self.commit(number, frame.commit)?;
        }
        Ok(())
    }

    /// A database that grows gets all of its new pages by the transaction that lets it grow.
    fn commit(&mut self, number: u32, pages: u32) -> Result<(), String> {
        let lock_page = self.page_size.map(|size| size.lock_page(self.pending_byte).get());
        let mut grown = self.wal.grown.iter().copied();
        for page in (self.pages + 1..=pages).filter(|&page| Some(page) != lock_page) {
            // Pages ascend; the lock page may stand among them nevertheless.
            if grown.find(|&it| it >= page) != Some(page) {
                return Err(format!(
                    "wal frame {number}: the database grows from {} to {pages} pages, and page {page} does not come with it: part of the wal before it is missing",
                    self.pages
                ));
            }
        }
        self.pages = pages;
        self.wal.committed = number;
        self.wal.grown.clear();
        Ok(())
    }
}

/// The newest images of pages, by number.
#[derive(Default)]
struct Images(BTreeMap<PageNo, Vec<u8>>);

impl Images {
    /// Joins pages that follow one another into one write.
    fn join(self, page_size: PageSize, writes: &mut Vec<(u64, Chunk)>) {
        let mut under_way: Option<(u64, Vec<u8>)> = None;
        for (no, page) in self.0 {
            let offset = (u64::from(no.get()) - 1) * u64::from(page_size.get());
            match &mut under_way {
                Some((start, bytes)) if *start + bytes.len() as u64 == offset => {
                    bytes.extend_from_slice(&page);
                }
                _ => {
                    let done = under_way.replace((offset, page));
                    writes.extend(done.map(|(start, bytes)| (start, Chunk::from(bytes))));
                }
            }
        }
        writes.extend(under_way.map(|(start, bytes)| (start, Chunk::from(bytes))));
    }
}

fn page_size_of(header: &[u8]) -> Result<PageSize, String> {
    if !header.starts_with(b"SQLite format 3\0") {
        return Err("corrupt database header at byte 0: expected \"SQLite format 3\"".into());
    }
    let raw = be_u16(header, 16);
    PageSize::from_u16(raw).ok_or_else(|| {
        format!("corrupt database header at byte 16: expected a page size of 512 to 65536, found {raw}")
    })
}
