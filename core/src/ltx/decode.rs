//! Reading a segment as it arrives.
//!
//! Bytes go in by [`Decoder::push`] in pieces of any size, items come out by
//! [`Decoder::next_item`] until it asks for more. The file checksum stands last, so pages come
//! out before anything vouches for the whole: a caller that applies them must be ready to throw
//! the result away until [`Item::End`].
//!
//! Memory is bounded by the largest piece, one frame, and the index (about ten bytes a page):
//! the index at the end is compared byte by byte with the one that the frames call for.

use alloc::vec::Vec;

use super::encode::snapshot_pages;
use super::frame::{self, SIZED_HEAD_BYTES, Step};
use super::header::check_flagged;
use super::index::EncodedIndex;
use super::{END_BYTES, Expected, LTX_HEADER_BYTES, LtxError, LtxHeader, TRAILER_BYTES, Trailer};
use crate::checksum::{DbXor, FileDigest, ltx_page_checksum};
use crate::ids::{PENDING_BYTE, PageNo};

/// What the decoder has for its caller.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Item<'a> {
    /// Once, first.
    Header(LtxHeader),
    /// Once for each page, ascending.
    Page {
        /// The page.
        page: PageNo,
        /// Its content, one page long.
        data: &'a [u8],
    },
    /// Once, last: everything was there and every checksum held.
    End(Trailer),
    /// Push more bytes; if there are none, the file is truncated (see [`Decoder::finish`]).
    NeedMore,
}

/// Reads a segment.
///
/// ```
/// use driftless_core::ids::{PageNo, PageSize, Txid, TxidRange, Wall};
/// use driftless_core::ltx::{Decoder, Encoder, Item, LtxHeader};
///
/// let page_size = PageSize::new(512).unwrap();
/// let header = LtxHeader::new(page_size, 2, TxidRange::single(Txid::new(7).unwrap()), Wall(0));
/// let mut file = Vec::new();
/// let mut encoder = Encoder::new(&header, &mut file);
/// encoder.page(PageNo::new(2).unwrap(), &[b'z'; 512], &mut file);
/// encoder.finish(0, &mut file);
///
/// let mut decoder = Decoder::new();
/// let mut pages = 0;
/// for piece in file.chunks(33) {
///     decoder.push(piece);
///     loop {
///         match decoder.next_item()? {
///             Item::Header(found) => assert_eq!(found, header),
///             Item::Page { page, data } => {
///                 assert_eq!((page.get(), data), (2, &[b'z'; 512][..]));
///                 pages += 1;
///             }
///             Item::End(_) | Item::NeedMore => break,
///         }
///     }
/// }
/// decoder.finish()?;
/// assert_eq!(pages, 1);
/// # Ok::<(), driftless_core::ltx::LtxError>(())
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct Decoder {
    state: State,
    /// Bytes pushed; those before `start` are consumed.
    buffer: Vec<u8>,
    start: usize,
    /// Where in the file `buffer[start]` stands.
    offset: u64,
    digest: FileDigest,
    pending_byte: u64,
}

#[derive(Clone, PartialEq, Debug)]
enum State {
    AwaitHeader,
    AwaitFrame(Frames),
    /// Comparing the index: what it must be, and how much of that has been seen.
    AwaitIndex {
        header: LtxHeader,
        xor: DbXor,
        expected: Vec<u8>,
        seen: usize,
    },
    AwaitTrailer {
        header: LtxHeader,
        xor: DbXor,
    },
    Ended(Trailer),
    Failed(LtxError),
}

/// What is known while frames arrive.
#[derive(Clone, PartialEq, Debug)]
struct Frames {
    header: LtxHeader,
    lock_page: PageNo,
    /// The page last read.
    data: Vec<u8>,
    /// How long its LZ4 block is, which lies right before what comes next, if it stood there as one.
    block_bytes: Option<usize>,
    last_page: Option<PageNo>,
    pages: u32,
    index: EncodedIndex,
    /// Of the pages so far; kept only for a snapshot with checksums of the format's own.
    xor: DbXor,
}

/// What [`Decoder::advance`] found; a page's content then lies in [`Frames::data`].
enum Found {
    Header(LtxHeader),
    Page(PageNo),
    End(Trailer),
    Nothing,
}

impl Decoder {
    /// A decoder at the start of a file.
    pub fn new() -> Decoder {
        Decoder {
            state: State::AwaitHeader,
            buffer: Vec::new(),
            start: 0,
            offset: 0,
            digest: FileDigest::new(),
            pending_byte: PENDING_BYTE,
        }
    }

    /// Moves SQLite's lock bytes, as the simulator does (default: [`PENDING_BYTE`]).
    #[must_use]
    pub fn with_pending_byte(mut self, pending_byte: u64) -> Decoder {
        assert!(self.state == State::AwaitHeader, "the lock page is set before the header is read");
        self.pending_byte = pending_byte;
        self
    }

    /// Takes in the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        if let State::AwaitFrame(frames) = &mut self.state {
            frames.block_bytes = None;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next item, or [`Item::NeedMore`]. After the end it repeats [`Item::End`].
    ///
    /// # Errors
    /// [`Corrupt`](LtxError::Corrupt) or [`Unsupported`](LtxError::Unsupported); the same again
    /// on further calls.
    pub fn next_item(&mut self) -> Result<Item<'_>, LtxError> {
        match self.advance() {
            Err(error) => {
                self.state = State::Failed(error);
                Err(error)
            }
            Ok(Found::Header(header)) => Ok(Item::Header(header)),
            Ok(Found::End(trailer)) => Ok(Item::End(trailer)),
            Ok(Found::Nothing) => Ok(Item::NeedMore),
            Ok(Found::Page(page)) => {
                let State::AwaitFrame(frames) = &self.state else {
                    unreachable!("a page was read among the frames");
                };
                Ok(Item::Page { page, data: &frames.data })
            }
        }
    }

    /// The content of the page that came out last, and its LZ4 block where it is compressed as one: for a
    /// copy that need not compress it again. `None` before the first page and after the last; the block is
    /// there until more bytes are pushed.
    pub fn last_page(&self) -> Option<(&[u8], Option<&[u8]>)> {
        let State::AwaitFrame(frames) = &self.state else { return None };
        frames.last_page?;
        let block = frames.block_bytes.map(|len| &self.buffer[self.start - len..self.start]);
        Some((&frames.data, block))
    }

    /// Says that the file ends here.
    ///
    /// # Errors
    /// [`Truncated`](LtxError::Truncated) if its end has not been read, and what
    /// [`next_item`](Decoder::next_item) reported.
    pub fn finish(mut self) -> Result<Trailer, LtxError> {
        let what = match self.state {
            State::Ended(_) => match self.advance()? {
                Found::End(trailer) => return Ok(trailer),
                _ => unreachable!("nothing but the end follows the end"),
            },
            State::Failed(error) => return Err(error),
            State::AwaitHeader => "header",
            State::AwaitFrame(_) => "page frames",
            State::AwaitIndex { .. } => "page index",
            State::AwaitTrailer { .. } => "trailer",
        };
        Err(LtxError::Truncated { offset: self.offset + self.rest().len() as u64, what })
    }

    /// The header, once it has been read and as long as the file is in order.
    pub const fn header(&self) -> Option<&LtxHeader> {
        match &self.state {
            State::AwaitFrame(frames) => Some(&frames.header),
            State::AwaitIndex { header, .. } | State::AwaitTrailer { header, .. } => Some(header),
            _ => None,
        }
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Goes on until there is something to report.
    fn advance(&mut self) -> Result<Found, LtxError> {
        loop {
            let found = match &self.state {
                State::AwaitHeader => self.advance_header()?,
                State::AwaitFrame(_) => self.advance_frame()?,
                State::AwaitIndex { .. } => self.advance_index()?,
                State::AwaitTrailer { header, xor } => {
                    let (header, xor) = (*header, *xor);
                    self.advance_trailer(&header, xor)?
                }
                State::Ended(trailer) => {
                    let trailer = *trailer;
                    if !self.rest().is_empty() {
                        let left = self.rest().len() as u64;
                        return Err(LtxError::corrupt(
                            self.offset,
                            "bytes behind the trailer",
                            Expected::Value(0),
                            left,
                        ));
                    }
                    return Ok(Found::End(trailer));
                }
                State::Failed(error) => return Err(*error),
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    fn advance_header(&mut self) -> Result<Option<Found>, LtxError> {
        let Some(bytes) = self.rest().first_chunk::<LTX_HEADER_BYTES>().copied() else {
            return Ok(Some(Found::Nothing));
        };
        let header = LtxHeader::decode(&bytes)?;
        self.digest.update(&bytes);
        self.consume(LTX_HEADER_BYTES);
        self.state = State::AwaitFrame(Frames {
            header,
            lock_page: header.page_size.lock_page(self.pending_byte),
            data: alloc::vec![0; header.page_size.bytes()],
            block_bytes: None,
            last_page: None,
            pages: 0,
            index: EncodedIndex::default(),
            xor: DbXor::new(),
        });
        Ok(Some(Found::Header(header)))
    }

    fn advance_frame(&mut self) -> Result<Option<Found>, LtxError> {
        let State::AwaitFrame(frames) = &mut self.state else {
            unreachable!("called among the frames");
        };
        let bytes = &self.buffer[self.start..];
        let step = match frame::read(bytes, self.offset, frames.header.page_size, &mut frames.data) {
            Err(LtxError::NeedMore { .. }) => return Ok(Some(Found::Nothing)),
            step => step?,
        };
        match step {
            Step::Page { page, head_bytes, frame_bytes } => {
                frames.take(page, self.offset, frame_bytes)?;
                frames.block_bytes = (head_bytes == SIZED_HEAD_BYTES).then(|| frame_bytes - SIZED_HEAD_BYTES);
                self.digest.update(&bytes[..head_bytes]);
                self.digest.update(&frames.data);
                self.consume(frame_bytes);
                Ok(Some(Found::Page(page)))
            }
            Step::End => {
                frames.check_complete(self.offset)?;
                let index = core::mem::take(&mut frames.index);
                self.digest.update(&bytes[..END_BYTES]);
                let (header, xor) = (frames.header, frames.xor);
                self.state = State::AwaitIndex { header, xor, expected: index.finish(), seen: 0 };
                self.consume(END_BYTES);
                Ok(None)
            }
        }
    }

    fn advance_index(&mut self) -> Result<Option<Found>, LtxError> {
        let State::AwaitIndex { header, xor, expected, seen } = &mut self.state else {
            unreachable!("called within the index");
        };
        let bytes = &self.buffer[self.start..];
        let bytes = &bytes[..bytes.len().min(expected.len() - *seen)];
        let wanted = &expected[*seen..*seen + bytes.len()];
        if let Some(at) = bytes.iter().zip(wanted).position(|(found, wanted)| found != wanted) {
            let wanted = Expected::Bits(wanted[at].into());
            return Err(LtxError::corrupt(self.offset + at as u64, "page index", wanted, bytes[at].into()));
        }
        self.digest.update(bytes);
        *seen += bytes.len();
        let taken = bytes.len();
        let whole = *seen == expected.len();
        if whole {
            self.state = State::AwaitTrailer { header: *header, xor: *xor };
        }
        self.consume(taken);
        Ok(if whole { None } else { Some(Found::Nothing) })
    }

    fn advance_trailer(&mut self, header: &LtxHeader, xor: DbXor) -> Result<Option<Found>, LtxError> {
        let Some(bytes) = self.rest().first_chunk::<TRAILER_BYTES>().copied() else {
            return Ok(Some(Found::Nothing));
        };
        let trailer = Trailer::decode(&bytes);
        self.digest.update(&bytes[..8]);
        let sum = self.digest.finish();
        if trailer.file_checksum != sum {
            let found = trailer.file_checksum;
            return Err(LtxError::corrupt(self.offset + 8, "file checksum", Expected::Bits(sum), found));
        }
        let what = "post-apply checksum";
        let found = trailer.post_apply;
        if !header.has_checksums() {
            if found != 0 {
                return Err(LtxError::corrupt(self.offset, what, Expected::Bits(0), found));
            }
        } else {
            check_flagged(self.offset, what, found)?;
            let state = xor.finish().get();
            if header.range.is_snapshot() && found != state {
                return Err(LtxError::corrupt(self.offset, what, Expected::Bits(state), found));
            }
        }
        self.consume(TRAILER_BYTES);
        self.state = State::Ended(trailer);
        Ok(None)
    }
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

impl Frames {
    /// Notes the page in `data`, whose frame stands `offset` bytes into the file.
    fn take(&mut self, page: PageNo, offset: u64, frame_bytes: usize) -> Result<(), LtxError> {
        let raw = u64::from(page.get());
        let min = self.last_page.map_or(1, |last| u64::from(last.get()) + 1);
        if raw < min {
            return Err(LtxError::corrupt(offset, "page number", Expected::AtLeast(min), raw));
        }
        if raw > u64::from(self.header.commit) {
            let expected = Expected::AtMost(self.header.commit.into());
            return Err(LtxError::corrupt(offset, "page number", expected, raw));
        }
        if page == self.lock_page {
            let expected = Expected::Rule("a page other than the lock page");
            return Err(LtxError::corrupt(offset, "page number", expected, raw));
        }
        self.index.push(page, offset, frame_bytes as u64);
        if self.header.has_checksums() && self.header.range.is_snapshot() {
            self.xor.toggle(ltx_page_checksum(page, &self.data));
        }
        self.last_page = Some(page);
        self.pages += 1;
        Ok(())
    }

    /// A snapshot holds every page but the lock page.
    fn check_complete(&self, offset: u64) -> Result<(), LtxError> {
        let expected = snapshot_pages(self.header.commit, self.lock_page);
        if self.header.range.is_snapshot() && self.pages != expected {
            let expected = Expected::Value(expected.into());
            return Err(LtxError::corrupt(
                offset,
                "number of pages in a snapshot",
                expected,
                self.pages.into(),
            ));
        }
        Ok(())
    }
}
