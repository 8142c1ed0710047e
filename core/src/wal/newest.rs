//! Reading of many frames only those that hold the newest image of their page.
//!
//! Under a busy writer most frames of a stretch are out of date within it: the same few pages of an
//! index, again and again. The wal-index names the page of each frame, so what is out of date need
//! not be read. That is what SQLite itself goes by, in each read and each checkpoint, and it never
//! looks at a checksum there; here each frame that is read is still proven by its own, against the
//! sum that stands in the frame before it, and must hold the page that the wal-index named.
//!
//! The last frame of a stretch is always among those, so the stretch ends in a
//! [position](WalPosition) like that of a [`Scanner`](super::Scanner).

use alloc::vec::Vec;

use super::scan::{WalPosition, check};
use super::{FRAME_HEADER_BYTES, FrameHeader, ScanStop, frame_bytes, frame_offset};
use crate::ids::PageSize;
use crate::mutant::{self, Mutant};

/// Frames that lie one behind the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    first: u32,
    count: u32,
}

/// The newest frame of each page within a stretch of the WAL, and how far they were read.
///
/// ```
/// use driftless_core::ids::{PageNo, PageSize};
/// use driftless_core::wal::{FrameHeader, Newest, Salts, WalHeader, WalPosition};
///
/// let page_size = PageSize::new(512).unwrap();
/// let header = WalHeader::new(page_size, 0, Salts { one: 7, two: 42 }, false);
/// let mut position = WalPosition { salts: header.salts, frame: 0, checksum: header.checksum };
/// let (mut wal, mut sum) = (header.encode().to_vec(), header.checksum);
/// for (page, fill) in [(2, b'a'), (3, b'b'), (2, b'c')] {
///     let (page, data) = (PageNo::new(page).unwrap(), [fill; 512]);
///     let frame = FrameHeader::new(sum, false, header.salts, page, 3, &data);
///     wal.extend_from_slice(&frame.encode());
///     wal.extend_from_slice(&data);
///     sum = frame.checksum;
/// }
/// let index: Vec<u8> = [2_u32, 3, 2].iter().flat_map(|page| page.to_ne_bytes()).collect();
///
/// let mut newest = Newest::of(position, page_size, false, &index).expect("no page is zero");
/// let mut seen = Vec::new();
/// while !newest.is_done() {
///     let parts = newest.ask(1 << 18);
///     let bytes: Vec<u8> = parts
///         .iter()
///         .flat_map(|(offset, len)| wal[*offset as usize..][..*len as usize].to_vec())
///         .collect();
///     newest.take(&bytes, &mut |frame, data| seen.push((frame.page.get(), data[0])))?;
/// }
/// assert_eq!(seen, [(3, b'b'), (2, b'c')]);
/// assert_eq!((newest.position().frame, newest.position().checksum), (3, sum));
/// # Ok::<(), driftless_core::wal::ScanStop>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Newest {
    /// Frame and page, in the order of the frames.
    frames: Vec<(u32, u32)>,
    /// How many of them were taken.
    taken: usize,
    /// Behind the last frame that was looked at.
    position: WalPosition,
    page_size: PageSize,
    big_endian_checksums: bool,
    /// What was asked for last.
    asked: Vec<Run>,
}

impl Newest {
    /// The stretch behind `before` whose frames hold `pages`: one number for each frame, as they
    /// stand in the wal-index, in the byte order of this machine. `None` if one of them is zero or
    /// there are none: somebody is writing the wal-index anew, and every frame must be read.
    pub fn of(
        before: WalPosition,
        page_size: PageSize,
        big_endian_checksums: bool,
        pages: &[u8],
    ) -> Option<Newest> {
        let (pages, []) = pages.as_chunks::<4>() else { return None };
        let mut frames: Vec<(u32, u32)> =
            (before.frame + 1..).zip(pages).map(|(frame, page)| (u32::from_ne_bytes(*page), frame)).collect();
        frames.sort_unstable();
        if frames.first().is_none_or(|(page, _)| *page == 0) {
            return None;
        }
        if mutant::on(Mutant::OutdatedFrameRead) {
            frames.dedup_by_key(|(page, _)| *page);
        }
        let mut frames: Vec<(u32, u32)> = frames
            .chunk_by(|(page, _), (next, _)| page == next)
            .filter_map(|of_a_page| of_a_page.last())
            .map(|(page, frame)| (*frame, *page))
            .collect();
        frames.sort_unstable();
        Some(Newest {
            frames,
            taken: 0,
            position: before,
            page_size,
            big_endian_checksums,
            asked: Vec::new(),
        })
    }

    /// How many frames hold a newest image.
    pub fn count(&self) -> usize {
        self.frames.len()
    }

    /// Whether all were taken, so that [`position`](Newest::position) is behind the stretch.
    pub fn is_done(&self) -> bool {
        self.taken == self.frames.len()
    }

    /// Behind the last frame that was looked at.
    pub const fn position(&self) -> WalPosition {
        self.position
    }

    /// Offsets and lengths of what to read next, at most about `bytes_max` in all: the frames that
    /// come next, each with the one before it, whose sum proves it; always one at the least.
    pub fn ask(&mut self, bytes_max: u32) -> Vec<(u64, u32)> {
        let frame_bytes = frame_bytes(self.page_size) as u32;
        let mut room = (bytes_max / frame_bytes).max(2);
        let mut known = self.position.frame;
        self.asked.clear();
        for (frame, _) in &self.frames[self.taken..] {
            let first = frame - u32::from(known + 1 != *frame);
            let count = frame + 1 - first;
            if count > room {
                break;
            }
            room -= count;
            known = *frame;
            match self.asked.last_mut() {
                Some(run) if run.first + run.count == first => run.count += count,
                _ => self.asked.push(Run { first, count }),
            }
        }
        let part = |run: &Run| (frame_offset(self.page_size, run.first), run.count * frame_bytes);
        self.asked.iter().map(part).collect()
    }

    /// Takes what was [asked](Newest::ask) for, all parts one behind the other, and hands each
    /// newest frame to `sink` once it is checked.
    ///
    /// # Errors
    /// [`ScanStop`] at the first frame out of order.
    pub fn take(&mut self, bytes: &[u8], sink: &mut impl FnMut(&FrameHeader, &[u8])) -> Result<(), ScanStop> {
        let mut there = bytes.chunks_exact(frame_bytes(self.page_size));
        for run in core::mem::take(&mut self.asked) {
            for frame in run.first..run.first + run.count {
                let bytes = there.next().ok_or(ScanStop::Missing { frame })?;
                let (head, data) = bytes
                    .split_first_chunk::<FRAME_HEADER_BYTES>()
                    .expect("a frame is longer than its header");
                match self.frames.get(self.taken) {
                    Some((newest, page)) if *newest == frame => {
                        assert_eq!(self.position.frame + 1, frame, "the frame before it was looked at");
                        let header = match mutant::on(Mutant::NewestUnproven) {
                            true => FrameHeader::decode(head).ok_or(ScanStop::ZeroPage { frame })?,
                            false => check(self.position, self.big_endian_checksums, head, data)?,
                        };
                        if header.page.get() != *page {
                            return Err(ScanStop::OtherPage { frame });
                        }
                        self.position.checksum = header.checksum;
                        self.taken += 1;
                        sink(&header, data);
                    }
                    _ => {
                        let header = FrameHeader::decode(head).ok_or(ScanStop::ZeroPage { frame })?;
                        if header.salts != self.position.salts {
                            return Err(ScanStop::SaltMismatch { frame });
                        }
                        self.position.checksum = header.checksum;
                    }
                }
                self.position.frame = frame;
            }
        }
        Ok(())
    }
}
