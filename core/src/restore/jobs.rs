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

use crate::checksum::{DbXor, page_checksum};
use crate::ids::{PENDING_BYTE, PageNo, PageSize};
use crate::ltx::{
    Codec, Decoder, Dictionaries, Expected, Item, LtxError, LtxHeader, PageIndex, Trailer, Unpacker,
    frame_bytes_max,
};
use crate::machine::Chunk;

/// The most bytes of pages that one job hands out, about.
pub const OUTPUT_BYTES_MAX: usize = 2 << 20;
/// The longest ranged read.
pub const RUN_BYTES_MAX: u64 = 4 << 20;
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
            RestoreJob::Pages { page_size, wins, run, bytes, codec, dictionaries } => {
                let wins = &wins.as_slice()[run.first..run.end];
                let unpacker = Unpacker::new(codec, &dictionaries);
                let decoded = unpacker
                    .and_then(|mut unpacker| decode_run(page_size, wins, run.offset, &bytes, &mut unpacker));
                RestoreOutput::Pages(decoded)
            }
            RestoreJob::Stream { mut stream, bytes, last } => {
                let (decoded, next) = stream.advance(bytes, last);
                RestoreOutput::Stream { stream, decoded, next }
            }
        }
    }
}

fn claim(claims: &mut Claims, header: &LtxHeader, tail: &[u8], file_bytes: u64) -> Result<Claimed, LtxError> {
    let index = PageIndex::decode_tail(tail, file_bytes)?;
    let at = file_bytes.saturating_sub(tail.len() as u64);
    let size_max = frame_bytes_max(header.page_size) as u64;
    for entry in &index.entries {
        if entry.page.get() > header.commit {
            let (expected, found) = (Expected::AtMost(header.commit.into()), entry.page.get().into());
            return Err(LtxError::Corrupt { offset: at, what: "page number in the index", expected, found });
        }
        if entry.page == claims.lock_page {
            let expected = Expected::Rule("a page other than the lock page");
            let found = entry.page.get().into();
            return Err(LtxError::Corrupt { offset: at, what: "page number in the index", expected, found });
        }
        if entry.size > size_max {
            let expected = Expected::AtMost(size_max);
            return Err(LtxError::Corrupt {
                offset: at,
                what: "frame size in the index",
                expected,
                found: entry.size,
            });
        }
    }
    let pages = index.entries.len() as u64;
    let all = u64::from(all_pages(header.commit, claims.lock_page));
    if header.range.is_snapshot() && pages != all {
        let expected = Expected::Value(all);
        return Err(LtxError::Corrupt {
            offset: at,
            what: "number of pages in a snapshot",
            expected,
            found: pages,
        });
    }
    claims.limit = claims.limit.min(header.commit);
    let mut wins = Vec::new();
    for entry in &index.entries {
        if claims.claim(entry.page) {
            wins.push(Win { page: entry.page, size: entry.size as u32, offset: entry.offset });
        }
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

/// Collects pages into as few writes as there are stretches of neighbours.
struct Writes {
    page_size: PageSize,
    done: Vec<(u64, Chunk)>,
    first: Option<PageNo>,
    next: u64,
    buffer: Vec<u8>,
}

impl Writes {
    fn new(page_size: PageSize) -> Writes {
        Writes { page_size, done: Vec::new(), first: None, next: 0, buffer: Vec::new() }
    }

    /// Begins another stretch if `page` does not follow what is there. `more` is how many neighbours
    /// follow at least, itself included.
    fn turn_to(&mut self, page: PageNo, more: usize) {
        if self.next != u64::from(page.get()) || self.buffer.len() >= OUTPUT_BYTES_MAX {
            self.flush();
            self.first = Some(page);
            let pages_max = (OUTPUT_BYTES_MAX / self.page_size.bytes()).max(1);
            self.buffer.reserve_exact(more.min(pages_max) * self.page_size.bytes());
        }
        self.next = u64::from(page.get()) + 1;
    }

    /// Room for the content of `page`.
    fn slot(&mut self, page: PageNo, more: usize) -> &mut [u8] {
        self.turn_to(page, more);
        let start = self.buffer.len();
        self.buffer.resize(start + self.page_size.bytes(), 0);
        &mut self.buffer[start..]
    }

    /// Takes the content of `page`.
    fn push(&mut self, page: PageNo, more: usize, data: &[u8]) {
        self.turn_to(page, more);
        self.buffer.extend_from_slice(data);
    }

    fn flush(&mut self) {
        if let Some(first) = self.first.take() {
            let offset = (u64::from(first.get()) - 1) * u64::from(self.page_size.get());
            self.done.push((offset, Chunk::from(core::mem::take(&mut self.buffer))));
        }
    }

    fn finish(mut self) -> Vec<(u64, Chunk)> {
        self.flush();
        self.done
    }
}

/// How many of `wins` from the first on are pages that follow one another.
fn neighbours(wins: &[Win]) -> usize {
    let pairs = wins.windows(2).take_while(|pair| pair[1].page.get() == pair[0].page.get() + 1);
    pairs.count() + 1
}

/// `bytes` stand `offset` bytes into the file.
fn decode_run(
    page_size: PageSize,
    wins: &[Win],
    offset: u64,
    bytes: &[u8],
    unpacker: &mut Unpacker,
) -> Result<Decoded, LtxError> {
    let mut writes = Writes::new(page_size);
    let mut xor = DbXor::new();
    let mut sums = Vec::with_capacity(wins.len());
    let mut stretch = 0;
    for (at, win) in wins.iter().enumerate() {
        if stretch == 0 {
            stretch = neighbours(&wins[at..]);
        }
        let start = (win.offset - offset) as usize;
        let frame = &bytes[start..start + win.size as usize];
        let data = writes.slot(win.page, stretch);
        stretch -= 1;
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
        let mut writes: Option<Writes> = self.header.map(|header| Writes::new(header.page_size));
        let (mut pages, mut stretch) = (0usize, 0);
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
                    writes = Some(Writes::new(header.page_size));
                }
                Ok(Item::Page { page, data }) => {
                    self.pages += 1;
                    pages += 1;
                    let wins = &self.wins.as_slice()[self.written..];
                    let wanted = wins.first().is_some_and(|win| win.page == page);
                    if let (true, Purpose::Write, Some(writes)) = (wanted, self.purpose, &mut writes) {
                        if stretch == 0 {
                            stretch = neighbours(wins);
                        }
                        writes.push(page, stretch, data);
                        stretch -= 1;
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
