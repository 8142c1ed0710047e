//! Walking frames with their checksums, from any position onwards.
//!
//! A frame's checksum depends on all frames before it, so a reader that stops must remember
//! where it was *and* the sums there: [`WalPosition`]. The same three numbers prove continuity
//! later: as long as the WAL holds a frame with that number, these salts and this checksum, the
//! history up to it is the one that was read.
//!
//! The scanner does not decide what is committed. Its caller passes `mxFrame` of the wal-index
//! as the limit, and compares the checksum there with `aFrameCksum`. A mismatch below the limit
//! is a restart or an error, never the end of data.

use core::fmt;

use super::{FRAME_HEADER_BYTES, FrameHeader, Salts, WalChecksum, WalHeader, frame_bytes};
use crate::ids::PageSize;

/// How far a WAL has been read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalPosition {
    /// The generation.
    pub salts: Salts,
    /// Frames consumed; 0 right after the header.
    pub frame: u32,
    /// The running checksum there: of frame `frame`, or of the header if that is 0.
    pub checksum: WalChecksum,
}

/// Checks frames one after another.
///
/// ```
/// use driftless_core::ids::{PageNo, PageSize};
/// use driftless_core::wal::{FrameHeader, Salts, Scanner, WalHeader};
///
/// let page_size = PageSize::new(512).unwrap();
/// let salts = Salts { one: 7, two: 42 };
/// let header = WalHeader::new(page_size, 0, salts, false);
/// let page = [b'x'; 512];
/// let frame = FrameHeader::new(header.checksum, false, salts, PageNo::FIRST, 1, &page);
/// let mut wal = frame.encode().to_vec();
/// wal.extend_from_slice(&page);
///
/// let mut scanner = Scanner::from_header(&header);
/// let mut commits = 0;
/// let consumed = scanner.scan(&wal, 1, &mut |frame_no, frame, data| {
///     assert_eq!((frame_no, frame.page, data), (1, PageNo::FIRST, &page[..]));
///     commits += u32::from(frame.is_commit());
/// })?;
/// assert_eq!((consumed, commits), (wal.len(), 1));
/// assert_eq!(scanner.position().frame, 1);
/// # Ok::<(), driftless_core::wal::ScanStop>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scanner {
    /// Behind the last frame that was in order.
    position: WalPosition,
    page_size: PageSize,
    big_endian_checksums: bool,
}

impl Scanner {
    /// Starts before the first frame.
    pub fn from_header(header: &WalHeader) -> Scanner {
        let position = WalPosition { salts: header.salts, frame: 0, checksum: header.checksum };
        Scanner::resume(position, header.page_size, header.big_endian_checksums)
    }

    /// Goes on behind `position`; the rest is as the WAL's header has it.
    pub fn resume(position: WalPosition, page_size: PageSize, big_endian_checksums: bool) -> Scanner {
        Scanner { position, page_size, big_endian_checksums }
    }

    /// Reads frames from `bytes`, which start where the scanner stands, up to and with frame
    /// `limit_frame`, and hands each to `sink` (its number from 1, header, page) once it is
    /// checked. Returns the bytes consumed: whole frames only; a partial last frame is left for
    /// the next call.
    ///
    /// # Errors
    /// [`ScanStop`] at the first frame out of order. Frames before it have been handed over, and
    /// [`position`](Scanner::position) stands behind the last of them.
    pub fn scan(
        &mut self,
        bytes: &[u8],
        limit_frame: u32,
        sink: &mut impl FnMut(u32, &FrameHeader, &[u8]),
    ) -> Result<usize, ScanStop> {
        let size = frame_bytes(self.page_size);
        let mut consumed = 0;
        for frame in bytes.chunks_exact(size) {
            if self.position.frame >= limit_frame {
                break;
            }
            let (head, data) =
                frame.split_first_chunk::<FRAME_HEADER_BYTES>().expect("a frame is longer than its header");
            let header = check(self.position, self.big_endian_checksums, head, data)?;
            self.position.frame += 1;
            self.position.checksum = header.checksum;
            consumed += size;
            sink(self.position.frame, &header, data);
        }
        Ok(consumed)
    }

    /// Behind the last frame that was in order.
    pub const fn position(&self) -> WalPosition {
        self.position
    }

    /// The page size given at the start.
    pub const fn page_size(&self) -> PageSize {
        self.page_size
    }
}

/// Checks the frame behind `before` as SQLite does, in its order: salts, page number, checksum.
pub(super) fn check(
    before: WalPosition,
    big_endian_checksums: bool,
    head: &[u8; FRAME_HEADER_BYTES],
    data: &[u8],
) -> Result<FrameHeader, ScanStop> {
    let frame = before.frame + 1;
    if Salts::read(head, 8) != before.salts {
        return Err(ScanStop::SaltMismatch { frame });
    }
    let header = FrameHeader::decode(head).ok_or(ScanStop::ZeroPage { frame })?;
    let checksum =
        before.checksum.update(&head[..8], big_endian_checksums).update(data, big_endian_checksums);
    if checksum != header.checksum {
        return Err(ScanStop::ChecksumMismatch { frame });
    }
    Ok(header)
}

/// Why a frame does not continue the WAL. At or below `mxFrame` each of these means that the WAL
/// restarted, or is broken; behind it they are what lies there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanStop {
    /// The frame belongs to another generation.
    SaltMismatch {
        /// Its number, from 1.
        frame: u32,
    },
    /// The frame, or one before it, is not the one that was summed.
    ChecksumMismatch {
        /// Its number, from 1.
        frame: u32,
    },
    /// The frame names page zero.
    ZeroPage {
        /// Its number, from 1.
        frame: u32,
    },
    /// The frame holds another page than the wal-index says.
    OtherPage {
        /// Its number, from 1.
        frame: u32,
    },
    /// The file ends before the frame does.
    Missing {
        /// Its number, from 1.
        frame: u32,
    },
}

impl fmt::Display for ScanStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScanStop::SaltMismatch { frame } => write!(f, "wal frame {frame}: salts of another generation"),
            ScanStop::ChecksumMismatch { frame } => write!(f, "wal frame {frame}: checksum mismatch"),
            ScanStop::ZeroPage { frame } => write!(f, "wal frame {frame}: page number zero"),
            ScanStop::OtherPage { frame } => {
                write!(f, "wal frame {frame}: another page than the wal-index says")
            }
            ScanStop::Missing { frame } => write!(f, "wal frame {frame}: the file ends before it"),
        }
    }
}

impl core::error::Error for ScanStop {}
