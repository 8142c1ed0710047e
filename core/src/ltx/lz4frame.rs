//! The LZ4 *frame* format, as far as Litestream has used it.
//!
//! A frame is a magic number, a descriptor, blocks, an end mark and checksums. Only decoding is
//! needed. Litestream 0.5.0 to 0.5.11 wrapped each page in a frame: there the output is a buffer of
//! known length ([`decode`]), and a frame that decodes to anything else is corrupt. Litestream 0.3
//! made each object one frame of any length ([`FrameStream`]). Checksums are verified where the
//! frame has them. Little-endian, unlike everything around it:
//! <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>.

mod stream;

pub use stream::{Block, FrameStream};

use xxhash_rust::xxh32::xxh32;

use super::{Expected, LtxError};

const MAGIC: u32 = 0x184d_2204;

/// Block size bit: the block is stored as it is.
const STORED: u32 = 1 << 31;

/// What the descriptor says about the blocks.
#[derive(Clone, Copy)]
struct Descriptor {
    /// Bytes before the first block.
    bytes: usize,
    block_bytes_max: usize,
    independent: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
}

/// How many bytes the frame at the start of `bytes` takes, without decompressing it.
/// `offset` is where in the file it stands, for errors; no frame longer than `bytes_max` is
/// accepted.
///
/// # Errors
/// [`NeedMore`](LtxError::NeedMore) if `bytes` ends within the frame; its number grows from call
/// to call, because a frame tells its length only block by block.
pub fn measure(bytes: &[u8], offset: u64, bytes_max: usize) -> Result<usize, LtxError> {
    let head = descriptor(bytes, offset)?;
    let mut at = head.bytes;
    loop {
        let (size, _) = block_header(bytes, offset, at, &head)?;
        at += 4;
        if size == 0 {
            break;
        }
        at += size + 4 * usize::from(head.block_checksums);
        check_total(at, offset, bytes_max)?;
    }
    at += 4 * usize::from(head.content_checksum);
    check_total(at, offset, bytes_max)?;
    need(bytes, at)?;
    Ok(at)
}

/// Decompresses the frame at the start of `bytes` into `out`, which it must fill exactly, and
/// returns its length in bytes. `offset` is where in the file it stands, for errors.
///
/// # Errors
/// [`NeedMore`](LtxError::NeedMore) if `bytes` ends within the frame,
/// [`Unsupported`](LtxError::Unsupported) for dictionaries, and
/// [`Corrupt`](LtxError::Corrupt) for everything else.
pub fn decode(bytes: &[u8], offset: u64, out: &mut [u8]) -> Result<usize, LtxError> {
    let head = descriptor(bytes, offset)?;
    if let Some(found) = head.content_size.filter(|&n| n != out.len() as u64) {
        return Err(LtxError::corrupt(
            offset + 6,
            "lz4 content size",
            Expected::Value(out.len() as u64),
            found,
        ));
    }
    let mut at = head.bytes;
    let mut filled = 0;
    loop {
        let (size, stored) = block_header(bytes, offset, at, &head)?;
        at += 4;
        if size == 0 {
            break;
        }
        need(bytes, at + size + 4 * usize::from(head.block_checksums))?;
        let block = &bytes[at..at + size];
        let block_at = offset + at as u64;
        at += size;
        if head.block_checksums {
            check_xxh32(bytes, offset, at, "lz4 block checksum", xxh32(block, 0))?;
            at += 4;
        }
        filled += decode_block(block, block_at, stored, head.independent, out, filled)?;
    }
    if filled != out.len() {
        let expected = Expected::Value(out.len() as u64);
        return Err(LtxError::corrupt(offset, "lz4 frame (decompressed bytes)", expected, filled as u64));
    }
    if head.content_checksum {
        need(bytes, at + 4)?;
        check_xxh32(bytes, offset, at, "lz4 content checksum", xxh32(out, 0))?;
        at += 4;
    }
    Ok(at)
}

/// Decompresses one block behind the `filled` bytes of `out`; returns the bytes it gave.
fn decode_block(
    block: &[u8],
    offset: u64,
    stored: bool,
    independent: bool,
    out: &mut [u8],
    filled: usize,
) -> Result<usize, LtxError> {
    let (before, rest) = out.split_at_mut(filled);
    if stored {
        let room = rest.len() as u64;
        let target = rest.get_mut(..block.len()).ok_or(LtxError::corrupt(
            offset,
            "lz4 block size",
            Expected::AtMost(room),
            block.len() as u64,
        ))?;
        target.copy_from_slice(block);
        return Ok(block.len());
    }
    let decompressed = if independent {
        lz4_flex::block::decompress_into(block, rest)
    } else {
        lz4_flex::block::decompress_into_with_dict(block, rest, before)
    };
    decompressed.map_err(|_| {
        LtxError::corrupt(
            offset,
            "lz4 block",
            Expected::Rule("a block that decompresses to the rest of the page"),
            block.len() as u64,
        )
    })
}

fn descriptor(bytes: &[u8], offset: u64) -> Result<Descriptor, LtxError> {
    need(bytes, 7)?;
    let magic = le_u32(bytes, 0);
    if magic != MAGIC {
        let expected = Expected::Bits(MAGIC.into());
        return Err(LtxError::corrupt(offset, "lz4 frame magic", expected, magic.into()));
    }
    let (flags, block_code) = (bytes[4], bytes[5]);
    // Version 01 in the top bits; bit 1 is reserved.
    if flags >> 6 != 1 || flags & 2 != 0 {
        let expected = Expected::Rule("version 1 and no reserved bits");
        return Err(LtxError::corrupt(offset + 4, "lz4 frame flags", expected, flags.into()));
    }
    if flags & 1 != 0 {
        return Err(LtxError::Unsupported {
            offset: offset + 4,
            what: "lz4 dictionary",
            found: flags.into(),
        });
    }
    if block_code & 0x8f != 0 || block_code < 0x40 {
        let expected = Expected::Rule("a block size code from 4 to 7 and no reserved bits");
        return Err(LtxError::corrupt(offset + 5, "lz4 block size code", expected, block_code.into()));
    }
    let sum_at = if flags & 8 != 0 { 14 } else { 6 };
    need(bytes, sum_at + 1)?;
    let sum = (xxh32(&bytes[4..sum_at], 0) >> 8) as u8;
    if bytes[sum_at] != sum {
        let expected = Expected::Bits(sum.into());
        let found = bytes[sum_at].into();
        return Err(LtxError::corrupt(offset + sum_at as u64, "lz4 header checksum", expected, found));
    }
    Ok(Descriptor {
        bytes: sum_at + 1,
        block_bytes_max: 1 << (8 + 2 * (block_code >> 4)),
        independent: flags & 0x20 != 0,
        block_checksums: flags & 0x10 != 0,
        content_checksum: flags & 4 != 0,
        content_size: (flags & 8 != 0)
            .then(|| u64::from(le_u32(bytes, 6)) | u64::from(le_u32(bytes, 10)) << 32),
    })
}

/// The size of the block whose header stands at `at`, and whether it is stored as it is.
/// Size 0 is the end mark.
fn block_header(bytes: &[u8], offset: u64, at: usize, head: &Descriptor) -> Result<(usize, bool), LtxError> {
    need(bytes, at + 4)?;
    let raw = le_u32(bytes, at);
    let size = (raw & !STORED) as usize;
    // A stored block of no bytes would let a frame go on forever.
    if size > head.block_bytes_max || raw == STORED {
        let expected = Expected::AtMost(head.block_bytes_max as u64);
        return Err(LtxError::corrupt(offset + at as u64, "lz4 block size", expected, raw.into()));
    }
    Ok((size, raw & STORED != 0))
}

fn check_xxh32(bytes: &[u8], offset: u64, at: usize, what: &'static str, sum: u32) -> Result<(), LtxError> {
    let found = le_u32(bytes, at);
    if found == sum {
        return Ok(());
    }
    Err(LtxError::corrupt(offset + at as u64, what, Expected::Bits(sum.into()), found.into()))
}

fn check_total(total: usize, offset: u64, bytes_max: usize) -> Result<(), LtxError> {
    if total <= bytes_max {
        return Ok(());
    }
    Err(LtxError::corrupt(offset, "lz4 frame length", Expected::AtMost(bytes_max as u64), total as u64))
}

fn need(bytes: &[u8], len: usize) -> Result<(), LtxError> {
    if bytes.len() >= len { Ok(()) } else { Err(LtxError::NeedMore { bytes: len as u64 }) }
}

fn le_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
pub(super) mod tests;
