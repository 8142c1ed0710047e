//! The processor work of a restore.
//!
//! Three jobs. [`RestoreJob::Claim`] reads a file's page index and claims for it the pages that
//! no newer file has; files are claimed from the newest to the oldest, so a claim is final.
//! [`RestoreJob::Pages`] decodes frames out of the middle of a file. [`RestoreJob::Stream`]
//! decodes a whole file piece by piece under its file checksum. What travels between jobs is
//! plain data, and each job's output is bounded by [`OUTPUT_BYTES_MAX`] and a piece.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::Room;
use crate::checksum::{DbXor, page_checksum};
use crate::ids::{PENDING_BYTE, PageNo, PageSize};
use crate::ltx::{
    Codec, Decoder, Dictionaries, Expected, Item, LtxError, LtxHeader, PageIndex, Trailer, Unpacker,
    frame_bytes_max,
};
use crate::machine::Chunk;

/// The most bytes of pages that one job hands out, about.
pub const OUTPUT_BYTES_MAX: usize = 2 << 20;
/// The longest ranged read; one frame may be longer.
pub const RUN_BYTES_MAX: u64 = 4 << 20;
/// What a page takes of an index at the least: three numbers.
const INDEX_ENTRY_BYTES_MIN: usize = 3;
/// Bytes that are read and thrown away sooner than making a further request.
pub const GAP_BYTES_MAX: u64 = 64 << 10;

/// A page that a file provides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Win {
    /// The page.
    pub page: PageNo,
    /// The length of its frame in bytes.
    pub size: u32,
    /// Where its frame starts in the file.
    pub offset: u64,
}

/// The pages that a file provides, ascending; cheap to clone, and terse to print.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Wins(Arc<Vec<Win>>);

impl Wins {
    /// The pages.
    pub fn as_slice(&self) -> &[Win] {
        &self.0
    }
}

impl fmt::Debug for Wins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} pages]", self.0.len())
    }
}

/// Frames that one ranged read fetches, among them perhaps some that are not wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first of the file's [`Wins`].
    pub first: usize,
    /// One past the last of them.
    pub end: usize,
    /// Where in the file the read starts.
    pub offset: u64,
    /// Its length.
    pub len: u64,
}

/// Which pages of the state to restore have been found so far: a bit a page.
#[derive(Clone, PartialEq, Eq)]
pub struct Claims {
    bits: Vec<u64>,
    lock_page: PageNo,
    /// Pages beyond this were cut off by a file already claimed.
    limit: u32,
    commit: u32,
    left: u32,
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} of {} pages to find]", self.left, self.commit)
    }
}

impl Claims {
    /// Nothing found of a database of `commit` pages.
    pub fn new(page_size: PageSize, commit: u32, pending_byte: u64) -> Claims {
        let lock_page = page_size.lock_page(pending_byte);
        let bits = alloc::vec![0; (commit as usize).div_ceil(64)];
        Claims { bits, lock_page, limit: commit, commit, left: all_pages(commit, lock_page) }
    }

    /// Pages that no file has provided yet.
    pub const fn left(&self) -> u32 {
        self.left
    }

    /// Whether one of them lies beyond `pages`, or was cut off once and must have been written since.
    pub fn left_beyond(&self, pages: u32) -> bool {
        let from = self.limit.min(pages).saturating_add(1);
        (from..=self.commit).filter_map(PageNo::new).any(|page| page != self.lock_page && !self.has(page))
    }

    /// The lowest of them.
    pub fn first_left(&self) -> Option<PageNo> {
        (1..=self.commit).filter_map(PageNo::new).find(|&page| page != self.lock_page && !self.has(page))
    }

    fn has(&self, page: PageNo) -> bool {
        let at = page.get() as usize - 1;
        self.bits[at / 64] >> (at % 64) & 1 == 1
    }

    fn claim(&mut self, page: PageNo) -> bool {
        if page.get() > self.limit || page == self.lock_page || self.has(page) {
            return false;
        }
        let at = page.get() as usize - 1;
        self.bits[at / 64] |= 1 << (at % 64);
        self.left -= 1;
        true
    }
}

/// All pages of a database but the lock page.
fn all_pages(commit: u32, lock_page: PageNo) -> u32 {
    commit - u32::from(commit >= lock_page.get())
}

/// What a file contributes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claimed {
    /// The pages that it provides.
    pub wins: Wins,
    /// The ranged reads that fetch them.
    pub runs: Vec<Run>,
    /// Whether it holds every page, so that nothing before it matters.
    pub full: bool,
}

/// What a stream is read for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Its winning pages are written.
    Write,
    /// The checksum of each page is wanted.
    Sums,
    /// Each page is wanted, and its checksum.
    Images,
    /// Only whether it is sound.
    Check,
}

/// A file being decoded from start to end.
#[derive(Clone, PartialEq, Debug)]
pub struct Stream {
    decoder: Decoder,
    /// The piece at hand; bytes before `taken` went to the decoder.
    piece: Chunk,
    taken: usize,
    purpose: Purpose,
    wins: Wins,
    /// Wins written so far.
    written: usize,
    header: Option<LtxHeader>,
    lock_page: Option<PageNo>,
    pending_byte: u64,
    pages: u32,
}

impl Stream {
    /// A stream at its start.
    pub fn new(purpose: Purpose, wins: Wins, pending_byte: u64, dictionaries: &Dictionaries) -> Stream {
        let mut decoder = Decoder::new().with_dictionaries(dictionaries);
        if pending_byte != PENDING_BYTE {
            decoder = decoder.with_pending_byte(pending_byte);
        }
        Stream {
            decoder,
            piece: Chunk::default(),
            taken: 0,
            purpose,
            wins,
            written: 0,
            header: None,
            lock_page: None,
            pending_byte,
            pages: 0,
        }
    }

    /// The header, once it has been read.
    pub const fn header(&self) -> Option<&LtxHeader> {
        self.header.as_ref()
    }

    /// Whether every page of the database has been seen.
    pub fn is_full(&self) -> bool {
        match (self.header, self.lock_page) {
            (Some(header), Some(lock_page)) => self.pages == all_pages(header.commit, lock_page),
            _ => false,
        }
    }
}

/// What to compute.
#[derive(Clone, PartialEq, Debug)]
pub enum RestoreJob {
    /// Read a page index and claim pages.
    Claim {
        /// What newer files have left.
        claims: Claims,
        /// The header of this one.
        header: LtxHeader,
        /// The last bytes of the file, or all of it.
        tail: Chunk,
        /// Its length.
        file_bytes: u64,
    },
    /// Decode pages out of the middle of a file.
    Pages {
        /// Their size.
        page_size: PageSize,
        /// The file's wins.
        wins: Wins,
        /// Which of them, and where `bytes` stand in the file.
        run: Run,
        /// The frames.
        bytes: Chunk,
        /// How their pages are compressed.
        codec: Codec,
        /// The dictionaries at hand.
        dictionaries: Dictionaries,
        /// Where to put the pages.
        room: Room,
    },
    /// Decode more of a whole file.
    Stream {
        /// The state so far.
        stream: Box<Stream>,
        /// More bytes; `None` to go on with those at hand.
        bytes: Option<Chunk>,
        /// Whether the file ends with them.
        last: bool,
    },
}

/// What came out.
#[derive(Clone, PartialEq, Debug)]
pub enum RestoreOutput {
    /// Of [`RestoreJob::Claim`].
    Claim {
        /// What is left.
        claims: Claims,
        /// What the file contributes. [`LtxError::NeedMore`] asks for a longer tail.
        result: Result<Claimed, LtxError>,
    },
    /// Of [`RestoreJob::Pages`]: what was decoded, or what is wrong with the file.
    Pages(Result<Decoded, LtxError>),
    /// Of [`RestoreJob::Stream`].
    Stream {
        /// The state to go on with.
        stream: Box<Stream>,
        /// What was decoded.
        decoded: Decoded,
        /// What to do next.
        next: Next,
    },
}

/// Pages decoded by one job.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Decoded {
    /// What to write: offsets in the database and bytes.
    pub writes: Vec<(u64, Chunk)>,
    /// The checksums of these pages, together: of those to write, or of all.
    pub xor: DbXor,
    /// How many pages are to be written.
    pub pages: u32,
    /// The checksum of each page that counts in `xor`.
    pub sums: Vec<(PageNo, u64)>,
    /// The content of each page, in the order of `sums`, if asked for.
    pub images: Vec<Chunk>,
}

/// How a stream goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// With more bytes.
    Bytes,
    /// Without; it stopped because enough has come out.
    More,
    /// Not at all: everything was there and the file checksum held.
    End(Trailer),
    /// Not at all: the file is damaged.
    Failed(LtxError),
}

impl RestoreJob {
    /// Does the work.
    pub fn run(self) -> RestoreOutput {
        match self {
            RestoreJob::Claim { mut claims, header, tail, file_bytes } => {
                let result = claim(&mut claims, &header, &tail, file_bytes);
                RestoreOutput::Claim { claims, result }
            }
            RestoreJob::Pages { page_size, wins, run, bytes, codec, dictionaries, room } => {
                let wins = &wins.as_slice()[run.first..run.end];
                let unpacker = Unpacker::new(codec, &dictionaries);
                let writes = Writes::new(page_size, wins.len(), room);
                let decoded = unpacker
                    .and_then(|mut unpacker| decode_run(writes, wins, run.offset, &bytes, &mut unpacker));
                RestoreOutput::Pages(decoded)
            }
            RestoreJob::Stream { mut stream, bytes, last } => {
                let (decoded, next) = stream.advance(bytes, last);
                RestoreOutput::Stream { stream, decoded, next }
            }
        }
    }
}

/// Claims pages as the index is read, which is not held in any other form: that of a large database
/// takes as much room as all else together. After an error the claims mean nothing, unless it asks for
/// more bytes.
fn claim(claims: &mut Claims, header: &LtxHeader, tail: &[u8], file_bytes: u64) -> Result<Claimed, LtxError> {
    let at = file_bytes.saturating_sub(tail.len() as u64);
    let corrupt = |what, expected, found| Err(LtxError::Corrupt { offset: at, what, expected, found });
    let size_max = frame_bytes_max(header.page_size) as u64;
    let limit = claims.limit.min(header.commit);
    let mut wins = Vec::with_capacity((claims.left as usize).min(tail.len() / INDEX_ENTRY_BYTES_MIN));
    let mut pages = 0_u64;
    PageIndex::visit_tail(tail, file_bytes, |entry| {
        let page = u64::from(entry.page.get());
        if page > header.commit.into() {
            return corrupt("page number in the index", Expected::AtMost(header.commit.into()), page);
        }
        if entry.page == claims.lock_page {
            return corrupt(
                "page number in the index",
                Expected::Rule("a page other than the lock page"),
                page,
            );
        }
        if entry.size > size_max {
            return corrupt("frame size in the index", Expected::AtMost(size_max), entry.size);
        }
        pages += 1;
        claims.limit = limit;
        if claims.claim(entry.page) {
            wins.push(Win { page: entry.page, size: entry.size as u32, offset: entry.offset });
        }
        Ok(())
    })?;
    claims.limit = limit;
    let all = u64::from(all_pages(header.commit, claims.lock_page));
    if header.range.is_snapshot() && pages != all {
        let expected = Expected::Value(all);
        corrupt("number of pages in a snapshot", expected, pages)?;
    }
    wins.shrink_to_fit();
    let runs = plan_runs(&wins, header.page_size);
    Ok(Claimed { wins: Wins(Arc::new(wins)), runs, full: pages == all })
}

/// Joins neighbours: a gap costs less than a request, up to a point.
fn plan_runs(wins: &[Win], page_size: PageSize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let pages_max = (OUTPUT_BYTES_MAX / page_size.bytes()).max(1);
    for (at, win) in wins.iter().enumerate() {
        let end = win.offset + u64::from(win.size);
        match runs.last_mut() {
            Some(run)
                if win.offset - (run.offset + run.len) <= GAP_BYTES_MAX
                    && end - run.offset <= RUN_BYTES_MAX
                    && at - run.first < pages_max =>
            {
                run.len = end - run.offset;
                run.end = at + 1;
            }
            _ => runs.push(Run { first: at, end: at + 1, offset: win.offset, len: win.size.into() }),
        }
    }
    runs
}

/// Collects pages into one buffer, and into as few writes as there are stretches of neighbours.
struct Writes {
    page_size: PageSize,
    buffer: Vec<u8>,
    /// Bytes of it that are taken.
    taken: usize,
    /// Of each stretch: its first page, and where in the buffer it begins.
    stretches: Vec<(PageNo, usize)>,
    /// The page that would go on with the last of them.
    next: u64,
}

impl Writes {
    /// Room for so many pages is made at once.
    fn new(page_size: PageSize, pages: usize, room: Room) -> Writes {
        let pages = pages.min((OUTPUT_BYTES_MAX / page_size.bytes()).max(1));
        let bytes = pages * page_size.bytes();
        let buffer = room.for_bytes(bytes);
        Writes { page_size, buffer, taken: 0, stretches: Vec::new(), next: 0 }
    }

    /// Room for the content of `page`, with anything in it.
    fn slot(&mut self, page: PageNo) -> &mut [u8] {
        if self.next != u64::from(page.get()) {
            self.stretches.push((page, self.taken));
        }
        self.next = u64::from(page.get()) + 1;
        let start = self.taken;
        self.taken += self.page_size.bytes();
        if self.buffer.len() < self.taken {
            self.buffer.resize(self.taken, 0);
        }
        &mut self.buffer[start..self.taken]
    }

    fn finish(mut self) -> Vec<(u64, Chunk)> {
        self.buffer.truncate(self.taken);
        let all = Chunk::from(self.buffer);
        let ends = self.stretches.iter().skip(1).map(|&(_, start)| start).chain([all.len()]);
        let stretches = self.stretches.iter().zip(ends);
        let extent = |(&(first, start), end): (&(PageNo, usize), usize)| {
            let offset = (u64::from(first.get()) - 1) * u64::from(self.page_size.get());
            (offset, all.slice(start, end))
        };
        stretches.map(extent).collect()
    }
}

/// `bytes` stand `offset` bytes into the file.
fn decode_run(
    mut writes: Writes,
    wins: &[Win],
    offset: u64,
    bytes: &[u8],
    unpacker: &mut Unpacker,
) -> Result<Decoded, LtxError> {
    let page_size = writes.page_size;
    let mut xor = DbXor::new();
    let mut sums = Vec::with_capacity(wins.len());
    for win in wins {
        let start = (win.offset - offset) as usize;
        let frame = &bytes[start..start + win.size as usize];
        let data = writes.slot(win.page);
        let (page, size) =
            unpacker.decode_frame(frame, page_size, data).map_err(|error| shift(error, win))?;
        if page != win.page {
            let (expected, found) = (Expected::Value(win.page.get().into()), page.get().into());
            return Err(LtxError::Corrupt { offset: win.offset, what: "page number", expected, found });
        }
        if size != win.size as usize {
            let (expected, found) = (Expected::Value(win.size.into()), size as u64);
            return Err(LtxError::Corrupt { offset: win.offset, what: "frame size", expected, found });
        }
        let sum = page_checksum(page, data);
        xor.toggle(sum);
        sums.push((page, sum));
    }
    Ok(Decoded { writes: writes.finish(), xor, pages: wins.len() as u32, sums, images: Vec::new() })
}

/// Counts an offset from the start of the file instead of the frame's.
fn shift(error: LtxError, win: &Win) -> LtxError {
    match error {
        LtxError::NeedMore { .. } => {
            let expected = Expected::Rule("a frame as long as the index says");
            LtxError::Corrupt { offset: win.offset, what: "frame size", expected, found: win.size.into() }
        }
        LtxError::Dictionary { id } => LtxError::Dictionary { id },
        LtxError::Truncated { offset, what } => LtxError::Truncated { offset: offset + win.offset, what },
        LtxError::Corrupt { offset, what, expected, found } => {
            LtxError::Corrupt { offset: offset + win.offset, what, expected, found }
        }
        LtxError::Unsupported { offset, what, found } => {
            LtxError::Unsupported { offset: offset + win.offset, what, found }
        }
    }
}

impl Stream {
    fn advance(&mut self, bytes: Option<Chunk>, last: bool) -> (Decoded, Next) {
        if let Some(bytes) = bytes {
            (self.piece, self.taken) = (bytes, 0);
        }
        let piece = core::mem::take(&mut self.piece);
        let mut rest = &piece[self.taken..];
        let mut decoded = Decoded::default();
        let left = self.wins.as_slice().len() - self.written;
        let begin = |header: LtxHeader| Writes::new(header.page_size, left, Room::default());
        let mut writes: Option<Writes> = self.header.map(begin);
        let mut pages = 0_usize;
        let next = loop {
            let page_bytes = self.header.map_or(1, |header| header.page_size.bytes());
            if pages * page_bytes >= OUTPUT_BYTES_MAX {
                break Next::More;
            }
            match self.decoder.next_item(&mut rest) {
                Err(error) => break Next::Failed(error),
                Ok(Item::Header(header)) => {
                    self.header = Some(header);
                    self.lock_page = Some(header.page_size.lock_page(self.pending_byte));
                    writes = Some(begin(header));
                }
                Ok(Item::Page { page, data }) => {
                    self.pages += 1;
                    pages += 1;
                    let wins = &self.wins.as_slice()[self.written..];
                    let wanted = wins.first().is_some_and(|win| win.page == page);
                    if let (true, Purpose::Write, Some(writes)) = (wanted, self.purpose, &mut writes) {
                        writes.slot(page).copy_from_slice(data);
                        self.written += 1;
                        decoded.pages += 1;
                    }
                    if wanted || self.purpose != Purpose::Write {
                        let sum = page_checksum(page, data);
                        decoded.xor.toggle(sum);
                        if self.purpose != Purpose::Check {
                            decoded.sums.push((page, sum));
                        }
                        if self.purpose == Purpose::Images {
                            decoded.images.push(Chunk::from(data.to_vec()));
                        }
                    }
                }
                Ok(Item::End(trailer)) => break self.end(trailer, last),
                Ok(Item::NeedMore) if last => break Next::Failed(self.truncated()),
                Ok(Item::NeedMore) => break Next::Bytes,
            }
        };
        decoded.writes = writes.map_or_else(Vec::new, Writes::finish);
        if next == Next::More {
            self.taken = piece.len() - rest.len();
            self.piece = piece;
        }
        (decoded, next)
    }

    /// Nothing may follow the trailer, and the index that pages were claimed from must be that
    /// of the file, or a page would be missing.
    fn end(&self, trailer: Trailer, last: bool) -> Next {
        let corrupt =
            |offset, what, expected| Next::Failed(LtxError::Corrupt { offset, what, expected, found: 0 });
        if !last {
            return corrupt(0, "end of the file", Expected::Rule("nothing behind the trailer"));
        }
        match self.wins.as_slice().get(self.written) {
            Some(win) if self.purpose == Purpose::Write => {
                corrupt(win.offset, "page number", Expected::Value(win.page.get().into()))
            }
            _ => Next::End(trailer),
        }
    }

    fn truncated(&self) -> LtxError {
        match self.decoder.clone().finish() {
            Err(error) => error,
            Ok(_) => LtxError::Truncated { offset: 0, what: "trailer" },
        }
    }
}
