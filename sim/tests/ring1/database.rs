//! A database in WAL mode without SQLite: its files' bytes, its wal-index and its locks.
//!
//! Ring 1 is about processes and networks; real SQLite is ring 0's and ring 2's. What the link
//! would do for the replicator is done here on bytes in memory, by the rules of SQLite's `wal.c`:
//! read marks, the two halves of a checkpoint, and when a writer may start the WAL over. The
//! application keeps its connection open throughout, so the wal-index never has to be recovered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use driftless::clock;
use driftless::port::Blocking;
use driftless_core::ids::{PageNo, PageSize};
use driftless_core::machine::{
    Chunk, Filesystem, LinkReply, Slot, SourceError, SourceErrorKind, SourceFacts, SourceReply,
    SourceRequest, WalFacts,
};
use driftless_core::wal::{
    FRAME_HEADER_BYTES, FrameHeader, READ_MARK_UNUSED, Salts, WAL_HEADER_BYTES, WalChecksum, WalHeader,
    WalIndex, frame_bytes, frame_offset,
};
use driftless_sim::ring0::image::Image;

/// A connection: the application's writer and reader, the two of the link, and that of a copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Connection {
    Writer,
    Reader,
    Link(bool),
    Copy,
}

/// What a connection holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Its slot among the read marks.
    mark: usize,
    writes: bool,
}

/// Somebody else holds the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Busy;

/// One database.
#[derive(Debug)]
pub struct Database {
    page_size: PageSize,
    file: Vec<u8>,
    wal: Vec<u8>,
    index: WalIndex,
    sequence: u32,
    held: BTreeMap<Connection, Held>,
    /// The committed state, apart from files and WAL.
    state: Vec<u8>,
    changes: u32,
    version: u32,
    file_changed_ns: i128,
    wal_changed_ns: i128,
    inode: u64,
}

/// A database that an application and a replicator share.
pub type Shared = Arc<Mutex<Database>>;

fn now_ns() -> i128 {
    i128::from(clock::wall().0) * 1_000_000
}

impl Database {
    /// An empty database in WAL mode, of one page, with a `user_version` that tells it from others.
    pub fn new(page_bytes: u32, version: u32, inode: u64, salt: u32) -> Database {
        let page_size = PageSize::new(page_bytes).expect("one of SQLite's sizes");
        let salts = Salts { one: salt, two: salt.rotate_left(7) };
        let mut database = Database {
            page_size,
            file: Vec::new(),
            wal: Vec::new(),
            index: WalIndex {
                change: 0,
                is_init: true,
                big_endian_checksums: false,
                page_size: Some(page_size),
                mx_frame: 0,
                pages: 1,
                frame_checksum: WalChecksum::default(),
                salts,
                n_backfill: 0,
                read_marks: [0, 0, READ_MARK_UNUSED, READ_MARK_UNUSED, READ_MARK_UNUSED],
                n_backfill_attempted: 0,
            },
            sequence: 0,
            held: BTreeMap::new(),
            state: vec![0; page_bytes as usize],
            version,
            changes: 0,
            file_changed_ns: now_ns(),
            wal_changed_ns: now_ns(),
            inode,
        };
        database.write_header(1);
        database.file = database.state.clone();
        database
    }

    /// Bytes in a page.
    pub fn page_bytes(&self) -> usize {
        self.page_size.bytes()
    }

    /// Pages in the committed state.
    pub fn pages(&self) -> u32 {
        (self.state.len() / self.page_bytes()) as u32
    }

    /// Frames in the WAL.
    pub fn frames(&self) -> u32 {
        self.index.mx_frame
    }

    /// The committed state, which shares the pages that are as in `like`.
    pub fn image(&self, like: &Image) -> Image {
        Image::of_bytes(self.page_bytes(), &self.state, like)
    }

    /// Whether there is a file at all.
    pub fn exists(&self) -> bool {
        !self.state.is_empty()
    }

    /// Another file takes its place, without a WAL; none, if there are no bytes.
    pub fn replace(&mut self, bytes: Vec<u8>) {
        self.held.clear();
        self.inode += 2;
        self.wal.clear();
        self.start_over();
        if let Some(header) = bytes.first_chunk::<100>() {
            let be32 = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
            (self.changes, self.version) = (be32(24), be32(60));
        }
        (self.file, self.state) = (bytes.clone(), bytes);
        self.index.pages = if self.exists() { self.pages() } else { 0 };
        self.index.change = self.index.change.wrapping_add(1);
        (self.file_changed_ns, self.wal_changed_ns) = (now_ns(), now_ns());
    }

    /// The application makes a database of one page where there is none.
    pub fn create(&mut self) {
        self.state = vec![0; self.page_bytes()];
        self.write_header(1);
        let first = std::mem::take(&mut self.state);
        self.replace(first);
    }

    /// All of the committed state.
    pub fn bytes(&self) -> &[u8] {
        &self.state
    }

    fn write_header(&mut self, pages: u32) {
        self.changes += 1;
        let raw_size = u16::try_from(self.page_size.get()).unwrap_or(1);
        let header = &mut self.state[..100];
        header[..16].copy_from_slice(b"SQLite format 3\0");
        header[16..18].copy_from_slice(&raw_size.to_be_bytes());
        header[18..24].copy_from_slice(&[2, 2, 0, 64, 32, 32]);
        header[24..28].copy_from_slice(&self.changes.to_be_bytes());
        header[28..32].copy_from_slice(&pages.to_be_bytes());
        header[60..64].copy_from_slice(&self.version.to_be_bytes());
        header[92..96].copy_from_slice(&self.changes.to_be_bytes());
        header[96..100].copy_from_slice(&3_054_000_u32.to_be_bytes());
    }

    /// Commits new content for some pages (not the first) and a size. Pages past the old end that
    /// are not given are zeros, and written all the same, as SQLite does.
    ///
    /// # Errors
    /// While another connection writes.
    pub fn commit(&mut self, pages: &BTreeMap<u32, Vec<u8>>, size: u32) -> Result<(), Busy> {
        if self.held.values().any(|held| held.writes) {
            return Err(Busy);
        }
        let (page_bytes, before) = (self.page_bytes(), self.pages());
        let mut pages: BTreeMap<u32, Vec<u8>> = pages.clone();
        pages.retain(|page, _| (2..=size).contains(page));
        for page in before + 1..=size {
            pages.entry(page).or_insert_with(|| vec![0; page_bytes]);
        }
        pages.insert(1, self.state[..page_bytes].to_vec());
        self.write(Connection::Writer, &pages, size);
        Ok(())
    }

    /// Commits these pages; of the first, what SQLite writes there itself is its own.
    pub fn write(&mut self, connection: Connection, pages: &BTreeMap<u32, Vec<u8>>, size: u32) {
        let page_bytes = self.page_bytes();
        self.begin_read(connection);
        self.restart_wal_if_possible(connection);
        self.held.remove(&connection);
        self.state.resize(size as usize * page_bytes, 0);
        for (page, content) in pages {
            let start = (*page as usize - 1) * page_bytes;
            self.state[start..start + page_bytes].copy_from_slice(content);
        }
        if let Some(first) = pages.get(&1) {
            self.version = u32::from_be_bytes(first[60..64].try_into().expect("four bytes"));
            self.write_header(size);
        }
        let written: Vec<u32> = pages.keys().copied().collect();
        for (n, page) in written.iter().enumerate() {
            let commit = if n + 1 == written.len() { size } else { 0 };
            self.append(*page, commit);
        }
        self.index.pages = size;
        self.index.change = self.index.change.wrapping_add(1);
        self.wal_changed_ns = now_ns();
    }

    fn append(&mut self, page: u32, commit: u32) {
        let page_bytes = self.page_bytes();
        if self.index.mx_frame == 0 {
            let header = WalHeader::new(self.page_size, self.sequence, self.index.salts, false);
            overwrite(&mut self.wal, 0, &header.encode());
            self.index.frame_checksum = header.checksum;
        }
        let start = (page as usize - 1) * page_bytes;
        let content = self.state[start..start + page_bytes].to_vec();
        let no = PageNo::new(page).expect("counted from 1");
        let before = self.index.frame_checksum;
        let frame = FrameHeader::new(before, false, self.index.salts, no, commit, &content);
        let at = frame_offset(self.page_size, self.index.mx_frame + 1) as usize;
        overwrite(&mut self.wal, at, &frame.encode());
        overwrite(&mut self.wal, at + FRAME_HEADER_BYTES, &content);
        self.index.mx_frame += 1;
        self.index.frame_checksum = frame.checksum;
    }

    fn users(&self, slot: usize) -> usize {
        self.held.values().filter(|held| held.mark == slot).count()
    }

    /// `walRestartLog`: for a writer whose own read is on mark zero.
    fn restart_wal_if_possible(&mut self, writer: Connection) {
        let on_zero = self.held.get(&writer).is_some_and(|held| held.mark == 0);
        if on_zero && self.index.n_backfill > 0 && (1..5).all(|slot| self.users(slot) == 0) {
            self.start_over();
        }
    }

    /// `walRestartHdr`.
    fn start_over(&mut self) {
        let index = &mut self.index;
        let two = index.salts.two.wrapping_mul(0x9e37_79b9).wrapping_add(index.change);
        index.salts = Salts { one: index.salts.one.wrapping_add(1), two };
        (index.mx_frame, index.n_backfill, index.n_backfill_attempted) = (0, 0, 0);
        index.read_marks = [0, 0, READ_MARK_UNUSED, READ_MARK_UNUSED, READ_MARK_UNUSED];
        self.sequence = self.sequence.wrapping_add(1);
    }

    /// `walTryBeginRead`; a transaction that stands goes on.
    pub fn begin_read(&mut self, connection: Connection) {
        if self.held.contains_key(&connection) {
            return;
        }
        let mx_frame = self.index.mx_frame;
        let mut mark = 0;
        if self.index.n_backfill != mx_frame {
            let best = (1..5).filter(|slot| self.index.read_marks[*slot] <= mx_frame);
            let best = best.max_by_key(|slot| (self.index.read_marks[*slot], *slot));
            mark = best.unwrap_or(0);
            if mark == 0 || self.index.read_marks[mark] < mx_frame {
                let free = (1..5).find(|slot| self.users(*slot) == 0);
                mark = free.expect("four connections and four marks");
                self.index.read_marks[mark] = mx_frame;
            }
        }
        self.held.insert(connection, Held { mark, writes: false });
    }

    /// Ends what a connection holds.
    pub fn end(&mut self, connection: Connection) {
        self.held.remove(&connection);
    }

    /// Takes the write lock.
    ///
    /// # Errors
    /// While another connection writes.
    pub fn begin_immediate(&mut self, connection: Connection) -> Result<(), Busy> {
        if self.held.values().any(|held| held.writes) {
            return Err(Busy);
        }
        self.begin_read(connection);
        self.held.get_mut(&connection).expect("just begun").writes = true;
        Ok(())
    }

    /// `walCheckpoint`, passive: as far as readers let it.
    pub fn checkpoint(&mut self) {
        let mut safe = self.index.mx_frame;
        for slot in 1..5 {
            if safe > self.index.read_marks[slot] {
                if self.users(slot) > 0 {
                    safe = self.index.read_marks[slot];
                } else {
                    self.index.read_marks[slot] = if slot == 1 { safe } else { READ_MARK_UNUSED };
                }
            }
        }
        if self.index.n_backfill >= safe || self.users(0) > 0 {
            return;
        }
        self.index.n_backfill_attempted = safe;
        let (page_bytes, mut end) = (self.page_bytes(), 0);
        for frame in 1..=safe {
            let at = frame_offset(self.page_size, frame) as usize;
            let header = self.wal[at..at + FRAME_HEADER_BYTES].try_into().expect("of that length");
            let header = FrameHeader::decode(header).expect("written by us");
            end = if header.is_commit() { header.commit } else { end };
            if frame <= self.index.n_backfill {
                continue;
            }
            let from = at + FRAME_HEADER_BYTES;
            let content = self.wal[from..from + page_bytes].to_vec();
            overwrite(&mut self.file, (header.page.get() as usize - 1) * page_bytes, &content);
        }
        if safe == self.index.mx_frame {
            self.file.resize(self.index.pages as usize * page_bytes, 0);
        } else {
            // Pages of a state that was larger stay until all is copied.
            self.file.resize(self.file.len().max(end as usize * page_bytes), 0);
        }
        self.index.n_backfill = safe;
        self.file_changed_ns = now_ns();
    }

    /// A checkpoint that empties the WAL.
    fn checkpoint_truncate(&mut self, connection: Connection) -> Result<(), Busy> {
        if self.held.iter().any(|(holder, held)| held.writes && *holder != connection) {
            return Err(Busy);
        }
        self.checkpoint();
        if self.index.n_backfill < self.index.mx_frame || (1..5).any(|slot| self.users(slot) > 0) {
            return Err(Busy);
        }
        self.start_over();
        self.wal.clear();
        self.wal_changed_ns = now_ns();
        Ok(())
    }

    /// The pages of frames, as the wal-index would have them.
    fn frame_pages(&self, first: u32, count: u32) -> Chunk {
        let frames = (first..first + count).filter(|frame| *frame <= self.index.mx_frame);
        let pages = frames.flat_map(|frame| {
            let at = frame_offset(self.page_size, frame) as usize;
            let page = self.wal[at..at + 4].try_into().expect("four bytes");
            u32::from_be_bytes(page).to_ne_bytes()
        });
        Chunk::from(pages.collect::<Vec<u8>>())
    }

    fn facts(&self) -> SourceFacts {
        // The tick of a kernel's clock.
        let tick = |ns: i128| ns - ns % 4_000_000;
        SourceFacts {
            device: 1,
            inode: self.inode,
            links: 1,
            size: self.file.len() as u64,
            ctime_ns: tick(self.file_changed_ns),
            now_ns: now_ns(),
            boot_id: "simulated".into(),
            owner: true,
            regular: true,
            filesystem: Filesystem::Local,
            wal: Some(WalFacts {
                inode: self.inode + 1,
                size: self.wal.len() as u64,
                mtime_ns: tick(self.wal_changed_ns),
            }),
            shm: true,
            journal: None,
        }
    }
}

fn overwrite(bytes: &mut Vec<u8>, at: usize, with: &[u8]) {
    if bytes.len() < at + with.len() {
        bytes.resize(at + with.len(), 0);
    }
    bytes[at..at + with.len()].copy_from_slice(with);
}

fn part(bytes: &[u8], offset: u64, len: u32) -> Chunk {
    let start = (offset as usize).min(bytes.len());
    let end = (start + len as usize).min(bytes.len());
    Chunk::from(bytes[start..end].to_vec())
}

/// The link of one process to a database. Its end is that of its connections.
pub struct Source {
    database: Shared,
    open: bool,
}

impl Source {
    /// Nothing is open yet.
    pub fn new(database: Shared) -> Source {
        Source { database, open: false }
    }
}

impl Drop for Source {
    /// The system gives the locks of a process back, however it ends.
    fn drop(&mut self) {
        let mut database = self.database.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        [false, true].into_iter().for_each(|b| database.end(Connection::Link(b)));
    }
}

fn connection(slot: Slot) -> Connection {
    Connection::Link(slot == Slot::B)
}

impl Blocking<SourceRequest> for Source {
    type Answer = Result<SourceReply, SourceError>;

    fn perform(&mut self, request: &SourceRequest) -> Self::Answer {
        let mut database = self.database.lock().expect("no holder panics");
        match request {
            SourceRequest::Stat => {
                let facts = database.exists().then(|| Box::new(database.facts()));
                return Ok(SourceReply::Facts(facts));
            }
            SourceRequest::ReadHeader => {
                return Ok(SourceReply::Header(part(&database.file, 0, 100).to_vec()));
            }
            SourceRequest::LitestreamHead => return Ok(SourceReply::Litestream(None)),
            SourceRequest::Open => {
                self.open = true;
                let reply = LinkReply { index: None, bytes: None, moved: false, read_only: false };
                return Ok(SourceReply::Link(reply));
            }
            SourceRequest::Close { .. } => {
                self.open = false;
                [false, true].into_iter().for_each(|b| database.end(Connection::Link(b)));
                return Ok(SourceReply::Closed);
            }
            request => assert!(self.open, "{request:?} needs a link"),
        }
        let mut bytes = None;
        let done = match request {
            SourceRequest::BeginRead(slot) => {
                database.begin_read(connection(*slot));
                Ok(())
            }
            SourceRequest::EndRead(slot) | SourceRequest::Rollback(slot) => {
                database.end(connection(*slot));
                Ok(())
            }
            SourceRequest::BeginImmediate(slot) => database.begin_immediate(connection(*slot)),
            SourceRequest::CheckpointPassive(_) => {
                database.checkpoint();
                Ok(())
            }
            SourceRequest::CheckpointTruncate(slot) => database.checkpoint_truncate(connection(*slot)),
            SourceRequest::ReadWal { offset, len, .. } => {
                bytes = Some(part(&database.wal, *offset, *len));
                Ok(())
            }
            SourceRequest::ReadWalParts { parts, .. } => {
                let parts =
                    parts.iter().flat_map(|(offset, len)| part(&database.wal, *offset, *len).to_vec());
                bytes = Some(Chunk::from(parts.collect::<Vec<u8>>()));
                Ok(())
            }
            SourceRequest::FramePages { first, count } => {
                bytes = Some(database.frame_pages(*first, *count));
                Ok(())
            }
            SourceRequest::ReadDatabase { offset, len, .. } => {
                bytes = Some(part(&database.file, *offset, *len));
                Ok(())
            }
            _ => Ok(()),
        };
        let index = Some(Box::new(database.index.encode()));
        match done {
            Ok(()) => Ok(SourceReply::Link(LinkReply { index, bytes, moved: false, read_only: false })),
            Err(Busy) => {
                Err(SourceError { kind: SourceErrorKind::Busy, text: "database is locked".into(), index })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(database: &mut Database, page: u32, fill: u8) {
        let content = vec![fill; database.page_bytes()];
        let size = database.pages().max(page);
        database.commit(&BTreeMap::from([(page, content)]), size).unwrap();
    }

    /// What a recovery of the files would find is what was committed.
    fn check(database: &Database) {
        let disk = driftless_sim::disk::Disk::new(
            driftless_sim::disk::DiskConfig::default(),
            driftless_sim::disk::SimClock::new(1),
        );
        for (path, bytes) in [("/db", &database.file), ("/db-wal", &database.wal)] {
            disk.create(path).unwrap().write_at(bytes, 0).unwrap();
        }
        let read = driftless_sim::ring0::reading::read(&disk, "/db", 1 << 30).unwrap();
        assert_eq!(read.image, database.image(&Image::default()));
    }

    #[test]
    fn files_and_state_agree() {
        let runtime = madsim::runtime::Runtime::with_seed_and_config(1, Default::default());
        runtime.block_on(async {
            let mut database = Database::new(512, 7, 7, 1);
            check(&database);
            for round in 0..20 {
                write(&mut database, 2 + round % 5, round as u8);
                check(&database);
                if round == 3 {
                    database.begin_read(Connection::Reader);
                }
                if round % 3 == 0 {
                    database.checkpoint();
                    check(&database);
                }
                if round == 12 {
                    assert!(database.index.n_backfill < database.index.mx_frame, "a reader is in the way");
                    database.end(Connection::Reader);
                }
            }
            assert!(database.sequence > 0, "the WAL was started over");
            assert!(database.wal.len() > WAL_HEADER_BYTES + frame_bytes(database.page_size));
            database.begin_immediate(Connection::Link(false)).unwrap();
            assert_eq!(database.commit(&BTreeMap::new(), 3), Err(Busy));
            database.end(Connection::Link(false));
            database.commit(&BTreeMap::new(), 3).unwrap();
            check(&database);
        });
    }
}
