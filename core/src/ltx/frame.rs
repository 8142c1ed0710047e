//! One page in a segment: its number, flags, and compressed content.
//!
//! With flag 1 a u32 size follows the flags and then an LZ4 *block* of that size. Without it an
//! LZ4 *frame* follows, which ends by itself ([`lz4frame`](super::lz4frame)). Either way the
//! content is exactly one page. A header of six zero bytes ends the frames.

use super::{Codec, Dictionaries, Expected, LtxError, Unpacker, lz4frame};
use crate::bytes::{be_u16, be_u32};
use crate::ids::{PageNo, PageSize};

/// Page flag: a u32 compressed size and an LZ4 block follow.
pub const FRAME_FLAG_SIZE: u16 = 1;

/// Bytes of zeros that end the frames: a header without page and flags.
pub const END_BYTES: usize = 6;

/// Bytes of a frame header, without the size.
const HEAD_BYTES: usize = 6;

/// Bytes of a frame header with the size.
pub(super) const SIZED_HEAD_BYTES: usize = 10;

/// The longest frame that can hold a page, in bytes. Both kinds fit: a block may exceed its
/// content by 1/255 and 16 bytes, and an LZ4 frame of the smallest sensible blocks by less
/// than the content again.
pub const fn frame_bytes_max(page_size: PageSize) -> usize {
    SIZED_HEAD_BYTES + 64 + 2 * page_size.bytes()
}

/// The longest LZ4 block that can hold a page.
pub(super) const fn block_bytes_max(page_size: PageSize) -> usize {
    page_size.bytes() + page_size.bytes() / 255 + 16
}

/// What stands at a place among the frames.
pub(super) enum Step {
    /// The six zeros.
    End,
    /// A page, now in the output buffer.
    Page {
        page: PageNo,
        /// Bytes at the start of the frame that the file checksum covers as they are.
        head_bytes: usize,
        /// Bytes of the whole frame.
        frame_bytes: usize,
    },
}

/// Reads what stands at the start of `bytes`, `offset` bytes into the file, into `out`, which
/// is one page long. [`LtxError::NeedMore`] if `bytes` ends too early.
pub(super) fn read(
    bytes: &[u8],
    offset: u64,
    page_size: PageSize,
    unpacker: &mut Unpacker,
    out: &mut [u8],
) -> Result<Step, LtxError> {
    assert_eq!(out.len(), page_size.bytes(), "a frame decompresses into exactly one page");
    need(bytes, HEAD_BYTES)?;
    let flags = be_u16(bytes, 4);
    let Some(page) = PageNo::new(be_u32(bytes, 0)) else {
        if flags == 0 {
            return Ok(Step::End);
        }
        let expected = Expected::Rule("zero behind page number zero");
        return Err(LtxError::corrupt(offset + 4, "page flags", expected, flags.into()));
    };
    let sized = flags & FRAME_FLAG_SIZE != 0;
    if flags & !FRAME_FLAG_SIZE != 0 || (unpacker.is_zstd() && !sized) {
        return Err(LtxError::Unsupported { offset: offset + 4, what: "page flags", found: flags.into() });
    }
    if !sized {
        let frame = &bytes[HEAD_BYTES..];
        let frame_at = offset + HEAD_BYTES as u64;
        let size = lz4frame::measure(frame, frame_at, frame_bytes_max(page_size) - HEAD_BYTES)
            .and_then(|_| lz4frame::decode(frame, frame_at, out))
            .map_err(|error| shift_need(error, HEAD_BYTES as u64))?;
        return Ok(Step::Page { page, head_bytes: HEAD_BYTES, frame_bytes: HEAD_BYTES + size });
    }
    need(bytes, SIZED_HEAD_BYTES)?;
    let size = be_u32(bytes, 6) as usize;
    let size_max = if unpacker.is_zstd() { page_size.bytes() } else { block_bytes_max(page_size) };
    if size == 0 || size > size_max {
        let expected = Expected::AtMost(size_max as u64);
        return Err(LtxError::corrupt(offset + 6, "compressed size", expected, size as u64));
    }
    need(bytes, SIZED_HEAD_BYTES + size)?;
    let block = &bytes[SIZED_HEAD_BYTES..SIZED_HEAD_BYTES + size];
    // Decompressed bytes that differ are the file checksum's business; here only their number.
    if unpacker.unpack(block, out) {
        return Ok(Step::Page { page, head_bytes: SIZED_HEAD_BYTES, frame_bytes: SIZED_HEAD_BYTES + size });
    }
    let what = if unpacker.is_zstd() { "zstd block" } else { "lz4 block" };
    let expected = Expected::Rule("a block that decompresses to one page");
    Err(LtxError::corrupt(offset + SIZED_HEAD_BYTES as u64, what, expected, size as u64))
}

/// Decompresses the frame at the start of `bytes` into `out`, which is one page long, and
/// returns its page number and its length in bytes. For reads of single pages by
/// [`PageIndex`](super::PageIndex); the compressor's checks aside, nothing vouches for the content. Of a
/// segment whose pages are compressed with LZ4; others go through [`Unpacker::decode_frame`].
///
/// # Errors
/// [`NeedMore`](LtxError::NeedMore) if `bytes` ends within the frame;
/// [`Corrupt`](LtxError::Corrupt) if it does not decode to one page, or if the end of the frames
/// stands there instead. Offsets count from the start of `bytes`.
///
/// # Panics
/// If `out` is not one page long.
pub fn decode_frame(bytes: &[u8], page_size: PageSize, out: &mut [u8]) -> Result<(PageNo, usize), LtxError> {
    Unpacker::new(Codec::Lz4, &Dictionaries::default())?.decode_frame(bytes, page_size, out)
}

impl Unpacker {
    /// [`decode_frame`] for a segment of this codec.
    ///
    /// # Errors
    /// The same.
    ///
    /// # Panics
    /// The same.
    pub fn decode_frame(
        &mut self,
        bytes: &[u8],
        page_size: PageSize,
        out: &mut [u8],
    ) -> Result<(PageNo, usize), LtxError> {
        match read(bytes, 0, page_size, self, out)? {
            Step::Page { page, frame_bytes, .. } => Ok((page, frame_bytes)),
            Step::End => Err(LtxError::corrupt(0, "page number", Expected::AtLeast(1), 0)),
        }
    }
}

fn need(bytes: &[u8], len: usize) -> Result<(), LtxError> {
    if bytes.len() >= len { Ok(()) } else { Err(LtxError::NeedMore { bytes: len as u64 }) }
}

/// A shortage counted from `by` bytes further on.
fn shift_need(error: LtxError, by: u64) -> LtxError {
    match error {
        LtxError::NeedMore { bytes } => LtxError::NeedMore { bytes: bytes + by },
        other => other,
    }
}
