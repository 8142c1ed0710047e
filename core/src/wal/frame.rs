//! The 24 bytes before each page of a WAL.

use super::{Salts, WAL_HEADER_BYTES, WalChecksum};
use crate::bytes::be_u32;
use crate::ids::{PageNo, PageSize};

/// Bytes in a frame header.
pub const FRAME_HEADER_BYTES: usize = 24;

/// Bytes in one frame: header and page.
pub const fn frame_bytes(page_size: PageSize) -> usize {
    FRAME_HEADER_BYTES + page_size.bytes()
}

/// Where frame `frame_no` (counted from 1) starts in the WAL, in bytes. For the number of the
/// last frame plus one it is the length of the WAL; 0 panics.
pub const fn frame_offset(page_size: PageSize, frame_no: u32) -> u64 {
    assert!(frame_no > 0, "frames are counted from 1");
    WAL_HEADER_BYTES as u64 + (frame_no - 1) as u64 * frame_bytes(page_size) as u64
}

/// What stands before a page in the WAL. Decoding checks no checksum: that runs over all frames
/// before and is the [`Scanner`](super::Scanner)'s work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The page whose content follows.
    pub page: PageNo,
    /// For the last frame of a transaction the size of the database in pages after it; for
    /// other frames zero.
    pub commit: u32,
    /// The WAL header's salts, if the frame belongs to the current generation.
    pub salts: Salts,
    /// The running checksum up to and with this frame.
    pub checksum: WalChecksum,
}

impl FrameHeader {
    /// Reads a frame header; `None` if its page number is zero, which no valid frame has.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Option<FrameHeader> {
        Some(FrameHeader {
            page: PageNo::new(be_u32(bytes, 0))?,
            commit: be_u32(bytes, 4),
            salts: Salts::read(bytes, 8),
            checksum: WalChecksum(be_u32(bytes, 16), be_u32(bytes, 20)),
        })
    }

    /// The header as it stands in the file.
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.page.get().to_be_bytes());
        bytes[4..8].copy_from_slice(&self.commit.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.salts.to_bytes());
        bytes[16..24].copy_from_slice(&self.checksum.to_bytes());
        bytes
    }

    /// The frame that follows a frame or header with checksum `before`, checksum filled in.
    pub fn new(
        before: WalChecksum,
        big_endian_checksums: bool,
        salts: Salts,
        page: PageNo,
        commit: u32,
        data: &[u8],
    ) -> FrameHeader {
        let mut frame = FrameHeader { page, commit, salts, checksum: before };
        frame.checksum =
            before.update(&frame.encode()[..8], big_endian_checksums).update(data, big_endian_checksums);
        frame
    }

    /// Whether the frame ends a transaction.
    pub const fn is_commit(&self) -> bool {
        self.commit != 0
    }
}
