//! Reading a segment as it arrives.
//!
//! The file comes in pieces of any size; [`Decoder::next_item`] takes from a piece what the next
//! item needs, until it asks for more. The file checksum stands last, so pages come out before
//! anything vouches for the whole: a caller that applies them must be ready to throw the result
//! away until [`Item::End`].
//!
//! Memory is bounded by two frames and the index (about ten bytes a page): the index at the end
//! is compared byte by byte with the one that the frames call for. Pieces are read where they
//! stand; only a frame that two of them share is put together.

use alloc::vec::Vec;
use core::fmt;

use super::encode::snapshot_pages;
use super::frame::{self, SIZED_HEAD_BYTES, Step};
use super::header::check_flagged;
use super::index::EncodedIndex;
use super::{
    Codec, Dictionaries, END_BYTES, Expected, LTX_HEADER_BYTES, LtxError, LtxHeader, TRAILER_BYTES, Trailer,
    Unpacker,
};
use crate::checksum::{DbXor, FileDigest, ltx_page_checksum};
use crate::ids::{PENDING_BYTE, PageNo};

/// Bytes of a piece that are kept at a time until an item is whole. An item that two pieces share
/// is put together in a few steps; nothing else is copied.
const CARRY_STEP: usize = 8 << 10;

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
    /// The piece is used up; if there is no other, the file is truncated (see [`Decoder::finish`]).
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
/// for mut piece in file.chunks(33) {
///     loop {
///         match decoder.next_item(&mut piece)? {
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
    /// The beginning of an item whose end has not come.
    carry: Vec<u8>,
    /// Where in the file the next item begins.
    offset: u64,
    digest: FileDigest,
    pending_byte: u64,
    dictionaries: Dictionaries,
    scratch: Scratch,
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
    /// How long its block is, if it stood in the file as one.
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
            carry: Vec::new(),
            offset: 0,
            digest: FileDigest::new(),
            pending_byte: PENDING_BYTE,
            dictionaries: Dictionaries::default(),
            scratch: Scratch(None),
        }
    }

    /// With the dictionaries at hand. A file that needs another ends with [`LtxError::Dictionary`], before
    /// its first page and before its header is reported.
    #[must_use]
    pub fn with_dictionaries(mut self, dictionaries: &Dictionaries) -> Decoder {
        assert!(self.state == State::AwaitHeader, "dictionaries are given before the header is read");
        self.dictionaries = dictionaries.clone();
        self
    }

    /// Moves SQLite's lock bytes, as the simulator does (default: [`PENDING_BYTE`]).
    #[must_use]
    pub fn with_pending_byte(mut self, pending_byte: u64) -> Decoder {
        assert!(self.state == State::AwaitHeader, "the lock page is set before the header is read");
        self.pending_byte = pending_byte;
        self
    }

    /// The next item, or [`Item::NeedMore`]. What it took of the next bytes of the file, `piece`,
    /// is cut off there. After the end it repeats [`Item::End`], unless more bytes come.
    ///
    /// # Errors
    /// [`Corrupt`](LtxError::Corrupt) or [`Unsupported`](LtxError::Unsupported); the same again
    /// on further calls.
    pub fn next_item(&mut self, piece: &mut &[u8]) -> Result<Item<'_>, LtxError> {
        match self.advance(piece) {
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

    /// The content of the page that came out last, and the length of its block, for a copy that
    /// need not compress it again: the block ends where the rest of the piece begins. `None` before
    /// the first page and after the last, or where the page stood otherwise or in two pieces.
    pub fn last_page(&self) -> Option<(&[u8], Option<usize>)> {
        let State::AwaitFrame(frames) = &self.state else { return None };
        frames.last_page?;
        Some((&frames.data, frames.block_bytes))
    }

    /// Says that the file ends here.
    ///
    /// # Errors
    /// [`Truncated`](LtxError::Truncated) if its end has not been read, and what
    /// [`next_item`](Decoder::next_item) reported.
    pub fn finish(self) -> Result<Trailer, LtxError> {
        let what = match self.state {
            State::Ended(trailer) => return Ok(trailer),
            State::Failed(error) => return Err(error),
            State::AwaitHeader => "header",
            State::AwaitFrame(_) => "page frames",
            State::AwaitIndex { .. } => "page index",
            State::AwaitTrailer { .. } => "trailer",
        };
        Err(LtxError::Truncated { offset: self.offset + self.carry.len() as u64, what })
    }

    /// The header, once it has been read and as long as the file is in order.
    pub const fn header(&self) -> Option<&LtxHeader> {
        match &self.state {
            State::AwaitFrame(frames) => Some(&frames.header),
            State::AwaitIndex { header, .. } | State::AwaitTrailer { header, .. } => Some(header),
            _ => None,
        }
    }

    /// Goes on until there is something to report.
    fn advance(&mut self, piece: &mut &[u8]) -> Result<Found, LtxError> {
        loop {
            if let State::Ended(trailer) = self.state {
                let left = (self.carry.len() + piece.len()) as u64;
                let what = "bytes behind the trailer";
                return match left {
                    0 => Ok(Found::End(trailer)),
                    _ => Err(LtxError::corrupt(self.offset, what, Expected::Value(0), left)),
                };
            }
            let step = if self.carry.is_empty() { self.step(piece) } else { self.step_across(piece) };
            match step {
                Ok((taken, found)) => {
                    *piece = &piece[taken..];
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
                Err(LtxError::NeedMore { .. }) if piece.is_empty() => return Ok(Found::Nothing),
                Err(LtxError::NeedMore { .. }) => {
                    let kept = piece.len().min(CARRY_STEP);
                    self.carry.extend_from_slice(&piece[..kept]);
                    *piece = &piece[kept..];
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A step over what was kept of earlier pieces and the start of `piece`. Says how many bytes
    /// of `piece` it took.
    fn step_across(&mut self, piece: &[u8]) -> Result<(usize, Option<Found>), LtxError> {
        let mut bytes = core::mem::take(&mut self.carry);
        let kept = bytes.len();
        bytes.extend_from_slice(&piece[..piece.len().min(CARRY_STEP)]);
        let step = self.step(&bytes);
        if let State::AwaitFrame(frames) = &mut self.state {
            frames.block_bytes = None;
        }
        // Without a step the bytes stay as they were; with one, what it left of them.
        let taken = step.as_ref().map_or(0, |(taken, _)| *taken);
        bytes.truncate(kept);
        bytes.drain(..taken.min(kept));
        self.carry = bytes;
        step.map(|(taken, found)| (taken.saturating_sub(kept), found))
    }

    /// Reads one item, or a part of the index, from the start of `bytes`. Says how many it took.
    fn step(&mut self, bytes: &[u8]) -> Result<(usize, Option<Found>), LtxError> {
        let (taken, found) = match &self.state {
            State::AwaitHeader => self.read_header(bytes)?,
            State::AwaitFrame(_) => self.read_frame(bytes)?,
            State::AwaitIndex { .. } => self.read_index(bytes)?,
            State::AwaitTrailer { header, xor } => {
                let (header, xor) = (*header, *xor);
                self.read_trailer(bytes, &header, xor)?
            }
            State::Ended(_) => unreachable!("nothing is read behind the end"),
            State::Failed(error) => return Err(*error),
        };
        self.offset += taken as u64;
        Ok((taken, found))
    }

    fn read_header(&mut self, bytes: &[u8]) -> Result<(usize, Option<Found>), LtxError> {
        let bytes = first::<LTX_HEADER_BYTES>(bytes)?;
        let header = LtxHeader::decode(bytes)?;
        if let Codec::Zstd(Some(id)) = header.codec {
            self.dictionaries.get(id)?;
        }
        self.digest.update(bytes);
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
        Ok((LTX_HEADER_BYTES, Some(Found::Header(header))))
    }

    fn read_frame(&mut self, bytes: &[u8]) -> Result<(usize, Option<Found>), LtxError> {
        let State::AwaitFrame(frames) = &mut self.state else {
            unreachable!("called among the frames");
        };
        let unpacker = self.scratch.get(frames.header.codec, &self.dictionaries)?;
        match frame::read(bytes, self.offset, frames.header.page_size, unpacker, &mut frames.data)? {
            Step::Page { page, head_bytes, frame_bytes } => {
                frames.take(page, self.offset, frame_bytes)?;
                frames.block_bytes = (head_bytes == SIZED_HEAD_BYTES).then(|| frame_bytes - SIZED_HEAD_BYTES);
                self.digest.update(&bytes[..head_bytes]);
                self.digest.update(&frames.data);
                Ok((frame_bytes, Some(Found::Page(page))))
            }
            Step::End => {
                frames.check_complete(self.offset)?;
                let index = core::mem::take(&mut frames.index);
                self.digest.update(&bytes[..END_BYTES]);
                let (header, xor) = (frames.header, frames.xor);
                self.state = State::AwaitIndex { header, xor, expected: index.finish(), seen: 0 };
                Ok((END_BYTES, None))
            }
        }
    }

    fn read_index(&mut self, bytes: &[u8]) -> Result<(usize, Option<Found>), LtxError> {
        let State::AwaitIndex { header, xor, expected, seen } = &mut self.state else {
            unreachable!("called within the index");
        };
        let wanted = &expected[*seen..];
        let taken = bytes.len().min(wanted.len());
        if taken == 0 {
            return Err(LtxError::NeedMore { bytes: 1 });
        }
        let (bytes, wanted) = (&bytes[..taken], &wanted[..taken]);
        if let Some(at) = bytes.iter().zip(wanted).position(|(found, wanted)| found != wanted) {
            let wanted = Expected::Bits(wanted[at].into());
            return Err(LtxError::corrupt(self.offset + at as u64, "page index", wanted, bytes[at].into()));
        }
        self.digest.update(bytes);
        *seen += taken;
        if *seen == expected.len() {
            self.state = State::AwaitTrailer { header: *header, xor: *xor };
        }
        Ok((taken, None))
    }

    fn read_trailer(
        &mut self,
        bytes: &[u8],
        header: &LtxHeader,
        xor: DbXor,
    ) -> Result<(usize, Option<Found>), LtxError> {
        let bytes = first::<TRAILER_BYTES>(bytes)?;
        let trailer = Trailer::decode(bytes);
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
        self.state = State::Ended(trailer);
        Ok((TRAILER_BYTES, None))
    }
}

/// The first `N` of `bytes`.
fn first<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], LtxError> {
    bytes.first_chunk().ok_or(LtxError::NeedMore { bytes: N as u64 })
}

/// The decompressor, which carries nothing from one page to the next. Hence all are equal, and a copy
/// starts without.
struct Scratch(Option<Unpacker>);

impl Scratch {
    fn get(&mut self, codec: Codec, dictionaries: &Dictionaries) -> Result<&mut Unpacker, LtxError> {
        let unpacker = match self.0.take() {
            Some(unpacker) => unpacker,
            None => Unpacker::new(codec, dictionaries)?,
        };
        Ok(self.0.insert(unpacker))
    }
}

impl Clone for Scratch {
    fn clone(&self) -> Scratch {
        Scratch(None)
    }
}

impl PartialEq for Scratch {
    fn eq(&self, _: &Scratch) -> bool {
        true
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratch")
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
