//! Writing a segment page by page.
//!
//! The encoder never holds the segment: what it writes goes to the caller's buffer, which may be
//! taken away between calls, and it keeps only the checksum and the index so far. Both are plain
//! data, so a half-done segment can move between threads with the job that makes it.
//!
//! What would make a segment that no reader accepts is a bug of the caller and panics: pages out
//! of order, beyond the end of the database, of the wrong size, the lock page, or a snapshot
//! that lacks a page.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use super::frame::{SIZED_HEAD_BYTES, block_bytes_max};
use super::index::EncodedIndex;
use super::zstd::ZstdPacker;
use super::{Dictionaries, END_BYTES, FRAME_FLAG_SIZE, LtxHeader, Packing, Trailer};
use crate::checksum::FileDigest;
use crate::ids::{PENDING_BYTE, PageNo};

/// Writes a segment.
///
/// ```
/// use driftless_core::ids::{PageNo, PageSize, Txid, TxidRange, Wall};
/// use driftless_core::ltx::{Encoder, LtxHeader, PageIndex};
///
/// let page_size = PageSize::new(4096).unwrap();
/// let header = LtxHeader::new(page_size, 1, TxidRange::single(Txid::FIRST), Wall(0));
/// let mut file = Vec::new();
/// let mut encoder = Encoder::new(&header, &mut file);
/// encoder.page(PageNo::FIRST, &[0x5a; 4096], &mut file);
/// let trailer = encoder.finish(0, &mut file);
///
/// assert!(file.ends_with(&trailer.encode()));
/// let index = PageIndex::decode_tail(&file, file.len() as u64)?;
/// assert_eq!(index.get(PageNo::FIRST).unwrap().offset, 100);
/// # Ok::<(), driftless_core::ltx::LtxError>(())
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct Encoder {
    header: LtxHeader,
    lock_page: PageNo,
    /// Bytes written since the start of the file.
    offset: u64,
    digest: FileDigest,
    index: EncodedIndex,
    last_page: Option<PageNo>,
    pages: u32,
    packing: Packing,
    scratch: Scratch,
}

impl Encoder {
    /// Starts a segment whose pages need no dictionary, and writes its header to `out`.
    ///
    /// # Panics
    /// If a reader would refuse the header, or it names a dictionary.
    pub fn new(header: &LtxHeader, out: &mut Vec<u8>) -> Encoder {
        match Packing::of(header.codec, &Dictionaries::default()) {
            Ok(packing) => Encoder::packed(header, packing, out),
            Err(error) => panic!("a segment is made with what its header names: {error}"),
        }
    }

    /// The same, with pages compressed so.
    ///
    /// # Panics
    /// If a reader would refuse the header, or it says something else.
    pub fn packed(header: &LtxHeader, packing: Packing, out: &mut Vec<u8>) -> Encoder {
        assert_eq!(header.codec, packing.codec(), "a segment is made with what its header names");
        let bytes = header.encode();
        if let Err(error) = LtxHeader::decode(&bytes) {
            panic!("a segment needs a header that readers accept: {error}");
        }
        let mut digest = FileDigest::new();
        digest.update(&bytes);
        out.extend_from_slice(&bytes);
        Encoder {
            header: *header,
            lock_page: header.page_size.lock_page(PENDING_BYTE),
            offset: bytes.len() as u64,
            digest,
            index: EncodedIndex::default(),
            last_page: None,
            pages: 0,
            packing,
            scratch: Scratch::default(),
        }
    }

    /// Moves SQLite's lock bytes, as the simulator does (default: [`PENDING_BYTE`]).
    #[must_use]
    pub fn with_pending_byte(mut self, pending_byte: u64) -> Encoder {
        assert!(self.pages == 0, "the lock page is set before the first page");
        self.lock_page = self.header.page_size.lock_page(pending_byte);
        self
    }

    /// Compresses one page and appends its frame to `out`.
    ///
    /// # Panics
    /// Unless `page` follows all pages before it, lies within the database and is not the lock
    /// page, and `data` is one page long.
    pub fn page(&mut self, page: PageNo, data: &[u8], out: &mut Vec<u8>) {
        let start = self.begin_frame(page, data, out);
        let block_at = start + SIZED_HEAD_BYTES;
        // The library insists on more room than any block takes.
        out.resize(block_at + get_maximum_output_size(data.len()), 0);
        let size = match &self.packing {
            Packing::Lz4 => self.scratch.lz4(data, &mut out[block_at..]),
            Packing::Zstd { level, dictionary } => {
                let new = || ZstdPacker::new(*level, dictionary.as_ref());
                let packer = self.scratch.zstd.get_or_insert_with(new);
                packer.pack(data, &mut out[block_at..block_at + data.len()])
            }
        };
        out.truncate(block_at + size);
        self.end_frame(page, data, start, out);
    }

    /// The same with a block of the segment's codec that holds the page already, as [`Decoder::last_page`] gives it.
    ///
    /// [`Decoder::last_page`]: super::Decoder::last_page
    ///
    /// # Panics
    /// As [`page`](Encoder::page) does, and for a block that no reader would accept. Whether it holds
    /// `data` is the caller's business.
    pub fn page_from_block(&mut self, page: PageNo, data: &[u8], block: &[u8], out: &mut Vec<u8>) {
        let start = self.begin_frame(page, data, out);
        out.resize(start + SIZED_HEAD_BYTES, 0);
        out.extend_from_slice(block);
        self.end_frame(page, data, start, out);
    }

    /// Where the frame starts in `out`.
    fn begin_frame(&self, page: PageNo, data: &[u8], out: &[u8]) -> usize {
        assert_eq!(data.len(), self.header.page_size.bytes(), "a frame holds exactly one page");
        assert!(Some(page) > self.last_page, "pages of a segment ascend");
        assert!(page.get() <= self.header.commit, "a segment holds no page beyond its commit size");
        assert!(page != self.lock_page, "the lock page never appears in a segment");
        out.len()
    }

    /// Fills in the head of the frame at `start`, whose block ends `out`.
    fn end_frame(&mut self, page: PageNo, data: &[u8], start: usize, out: &mut [u8]) {
        let size = out.len() - start - SIZED_HEAD_BYTES;
        let fits = (1..=block_bytes_max(self.header.page_size)).contains(&size);
        assert!(fits, "readers accept every block written");
        let head = &mut out[start..start + SIZED_HEAD_BYTES];
        head[..4].copy_from_slice(&page.get().to_be_bytes());
        head[4..6].copy_from_slice(&FRAME_FLAG_SIZE.to_be_bytes());
        head[6..].copy_from_slice(&(size as u32).to_be_bytes());

        self.digest.update(head);
        self.digest.update(data);
        let frame_bytes = (SIZED_HEAD_BYTES + size) as u64;
        self.index.push(page, self.offset, frame_bytes);
        self.offset += frame_bytes;
        self.last_page = Some(page);
        self.pages += 1;
    }

    /// Ends the segment: appends the six zeros, the index and the trailer to `out`.
    /// `post_apply` is the format's own checksum of the database afterwards; zero unless the
    /// header has checksums, which no segment of Driftless's has.
    ///
    /// # Panics
    /// If `post_apply` contradicts the header, or a snapshot lacks a page.
    pub fn finish(mut self, post_apply: u64, out: &mut Vec<u8>) -> Trailer {
        if self.header.has_checksums() {
            assert!(post_apply >> 63 == 1, "a segment with checksums has one of the state it leads to");
        } else {
            assert!(post_apply == 0, "a segment without checksums has none of the state it leads to");
        }
        if self.header.range.is_snapshot() {
            let expected = snapshot_pages(self.header.commit, self.lock_page);
            assert_eq!(self.pages, expected, "a snapshot holds every page");
        }
        let start = out.len();
        out.extend_from_slice(&[0; END_BYTES]);
        out.append(&mut self.index.finish());
        self.digest.update(&out[start..]);
        self.digest.update(&post_apply.to_be_bytes());
        let trailer = Trailer { post_apply, file_checksum: self.digest.finish() };
        out.extend_from_slice(&trailer.encode());
        trailer
    }

    /// Bytes written so far, over all buffers.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Pages written so far.
    pub const fn pages(&self) -> u32 {
        self.pages
    }
}

/// How many pages a snapshot of a database of `commit` pages holds: all but the lock page.
pub(crate) fn snapshot_pages(commit: u32, lock_page: PageNo) -> u32 {
    commit - u32::from(commit >= lock_page.get())
}

/// The compressor's memory, which carries nothing from one page to the next: of LZ4 a table of 8 KiB that
/// is cleared for each page, so that reusing it saves an allocation a page. Hence all are equal, and a
/// copy starts without. In a box: the table is aligned to 64 bytes, and every event and action that may
/// hold an encoder would be as well.
#[derive(Default)]
struct Scratch {
    lz4: Option<Box<CompressTable>>,
    zstd: Option<ZstdPacker>,
}

impl Scratch {
    /// Returns the size of the block.
    fn lz4(&mut self, data: &[u8], out: &mut [u8]) -> usize {
        let table = self.lz4.get_or_insert_default();
        compress_into_with_table(data, out, table).expect("there is room for the longest block")
    }
}

impl Clone for Scratch {
    fn clone(&self) -> Scratch {
        Scratch::default()
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
