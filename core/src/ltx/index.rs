//! The page index: where in the file each page's frame stands.
//!
//! It lets a reader fetch a single page with two ranged reads. The index comes from a store and
//! may be anything, so it is believed only as far as it can be true: pages ascend, the first
//! frame follows the header, each frame follows the one before, and the last ends where the
//! six zeros begin. Offsets point at frame headers and sizes cover header and content. Nothing
//! is allocated that the bytes at hand do not call for.

use alloc::vec::Vec;

use super::{END_BYTES, Expected, LTX_HEADER_BYTES, LtxError, TRAILER_BYTES};
use crate::bytes::be_u64;
use crate::ids::PageNo;

/// Bytes behind the varints: their size, and the trailer.
const TAIL_BYTES: usize = 8 + TRAILER_BYTES;

/// Where one page's frame stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexEntry {
    /// The page.
    pub page: PageNo,
    /// Where its frame header starts, in bytes from the start of the file.
    pub offset: u64,
    /// The length of its frame in bytes, header included.
    pub size: u64,
}

/// All frames of a segment in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PageIndex {
    /// Ascending by page and by offset.
    pub entries: Vec<IndexEntry>,
}

impl PageIndex {
    /// Reads the index out of `tail`, the last bytes of a file of `file_bytes` bytes.
    ///
    /// # Errors
    /// [`NeedMore`](LtxError::NeedMore) with the length that `tail` must have;
    /// [`Corrupt`](LtxError::Corrupt) for an index that cannot be true. The file checksum, which
    /// covers the index, is not verified here.
    pub fn decode_tail(tail: &[u8], file_bytes: u64) -> Result<PageIndex, LtxError> {
        let mut entries: Vec<IndexEntry> = Vec::new();
        PageIndex::visit_tail(tail, file_bytes, |entry| {
            entries.push(entry);
            Ok(())
        })?;
        Ok(PageIndex { entries })
    }

    /// The same, but gives each entry to `visit` as soon as it is read and holds none: what follows may
    /// yet turn out to be wrong.
    ///
    /// # Errors
    /// As [`decode_tail`](Self::decode_tail), before the first entry for
    /// [`NeedMore`](LtxError::NeedMore); what `visit` fails with.
    pub fn visit_tail(
        tail: &[u8],
        file_bytes: u64,
        visit: impl FnMut(IndexEntry) -> Result<(), LtxError>,
    ) -> Result<(), LtxError> {
        let fixed = (LTX_HEADER_BYTES + END_BYTES + 1 + TAIL_BYTES) as u64;
        if file_bytes < fixed || (tail.len() as u64) > file_bytes {
            return Err(LtxError::corrupt(
                0,
                "file length",
                Expected::AtLeast(fixed.max(tail.len() as u64)),
                file_bytes,
            ));
        }
        let Some(size_at) = tail.len().checked_sub(TAIL_BYTES) else {
            return Err(LtxError::NeedMore { bytes: TAIL_BYTES as u64 });
        };
        let size = be_u64(tail, size_at);
        let size_max = file_bytes - fixed + 1;
        if size == 0 || size > size_max {
            let offset = file_bytes - TAIL_BYTES as u64;
            return Err(LtxError::corrupt(offset, "page index size", Expected::AtMost(size_max), size));
        }
        if size > size_at as u64 {
            return Err(LtxError::NeedMore { bytes: size + TAIL_BYTES as u64 });
        }
        let index_at = file_bytes - TAIL_BYTES as u64 - size;
        visit_entries(&tail[size_at - size as usize..size_at], index_at, visit)
    }

    /// Appends the index as it stands in the file: varints, their zero, their size.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut encoded = EncodedIndex::default();
        for entry in &self.entries {
            encoded.push(entry.page, entry.offset, entry.size);
        }
        out.extend_from_slice(&encoded.finish());
    }

    /// Where `page` stands, if it is in the segment.
    pub fn get(&self, page: PageNo) -> Option<IndexEntry> {
        let at = self.entries.binary_search_by_key(&page, |entry| entry.page).ok()?;
        Some(self.entries[at])
    }
}

/// The index in its written form, grown page by page: about ten bytes a page, where a list of
/// entries would take 24.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct EncodedIndex {
    varints: Vec<u8>,
}

impl EncodedIndex {
    pub(super) fn push(&mut self, page: PageNo, offset: u64, size: u64) {
        put_varint(&mut self.varints, page.get().into());
        put_varint(&mut self.varints, offset);
        put_varint(&mut self.varints, size);
    }

    /// The bytes between the six zeros and the trailer.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.varints.push(0);
        let size = self.varints.len() as u64;
        self.varints.extend_from_slice(&size.to_be_bytes());
        self.varints
    }
}

/// `bytes` are the varints with their zero, `index_at` bytes into the file.
fn visit_entries(
    bytes: &[u8],
    index_at: u64,
    mut visit: impl FnMut(IndexEntry) -> Result<(), LtxError>,
) -> Result<(), LtxError> {
    let mut reader = Varints { bytes, at: 0, index_at };
    let mut page_min = 1;
    let mut frame_at = LTX_HEADER_BYTES as u64;
    let frames_end = index_at - END_BYTES as u64;
    loop {
        let at = reader.offset();
        let raw_page = reader.next()?;
        if raw_page == 0 {
            break;
        }
        let page =
            u32::try_from(raw_page).ok().and_then(PageNo::new).filter(|_| raw_page >= page_min).ok_or(
                LtxError::corrupt(at, "page number in the index", Expected::AtLeast(page_min), raw_page),
            )?;
        page_min = raw_page + 1;
        let at = reader.offset();
        let offset = reader.next()?;
        if offset != frame_at {
            return Err(LtxError::corrupt(
                at,
                "frame offset in the index",
                Expected::Value(frame_at),
                offset,
            ));
        }
        let at = reader.offset();
        let size = reader.next()?;
        let size_max = frames_end - frame_at;
        if size == 0 || size > size_max {
            return Err(LtxError::corrupt(at, "frame size in the index", Expected::AtMost(size_max), size));
        }
        frame_at += size;
        visit(IndexEntry { page, offset, size })?;
    }
    if reader.at != bytes.len() {
        let left = (bytes.len() - reader.at) as u64;
        return Err(LtxError::corrupt(
            reader.offset(),
            "bytes behind the page index",
            Expected::Value(0),
            left,
        ));
    }
    if frame_at != frames_end {
        return Err(LtxError::corrupt(
            index_at,
            "end of the frames in the index",
            Expected::Value(frames_end),
            frame_at,
        ));
    }
    Ok(())
}

/// Little-endian groups of seven bits, the top bit of each byte saying that more follow.
struct Varints<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where in the file `bytes` start.
    index_at: u64,
}

impl Varints<'_> {
    fn offset(&self) -> u64 {
        self.index_at + self.at as u64
    }

    fn next(&mut self) -> Result<u64, LtxError> {
        let start = self.offset();
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else {
                let expected = Expected::Rule("a number that ends within the index");
                return Err(LtxError::corrupt(start, "number in the page index", expected, value));
            };
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte holds one bit, and a last byte of zero would write the same
            // number in a second way.
            if (shift == 63 && byte > 1) || (shift > 0 && byte == 0) {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        let expected = Expected::Rule("a number of 64 bits in its shortest form");
        Err(LtxError::corrupt(start, "number in the page index", expected, value))
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
