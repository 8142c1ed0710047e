//! The content of one file, twice: as readers see it and as the platter has it.
//!
//! A write changes the current bytes at once and is remembered as a [`Change`]; a sync plays
//! the remembered changes onto the durable bytes. Power loss plays a subset of them: each
//! 512-byte sector of each write is asked for by itself, so that writes survive torn and out
//! of order. A sector keeps whole writes or none of them, and bytes beside a write in the
//! same sector are never damaged (SQLite calls this "powersafe overwrite").

use std::collections::VecDeque;

/// The unit in which unsynced data survives power loss, in bytes.
pub const SECTOR_BYTES: u64 = 512;

/// Beyond this many unsynced bytes in one file the older half is written back, as a kernel
/// does. Without it a workload that never syncs would keep every byte it ever wrote.
const UNSYNCED_BYTES_MAX: usize = 16 << 20;

enum Change {
    Write { offset: u64, bytes: Box<[u8]> },
    SetLen(u64),
}

impl Change {
    fn cost(&self) -> usize {
        match self {
            Change::Write { bytes, .. } => bytes.len(),
            Change::SetLen(_) => 0,
        }
    }

    fn play(&self, onto: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => put(onto, *offset, bytes),
            Change::SetLen(len) => resize(onto, *len),
        }
    }
}

/// A piece of unsynced content whose survival is being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The sector that begins at or holds this offset.
    Sector(u64),
    /// A truncation or extension to this length.
    SetLen(u64),
}

#[derive(Default)]
pub(super) struct Image {
    current: Vec<u8>,
    durable: Vec<u8>,
    unsynced: VecDeque<Change>,
    unsynced_bytes: usize,
}

impl Image {
    /// Content that is all on the platter.
    pub(super) fn durable(bytes: Vec<u8>) -> Image {
        Image { current: bytes.clone(), durable: bytes, ..Image::default() }
    }

    pub(super) fn len(&self) -> u64 {
        self.current.len() as u64
    }

    pub(super) fn current(&self) -> &[u8] {
        &self.current
    }

    pub(super) fn is_clean(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// Copy from the current bytes; the count is short at the end of the file.
    pub(super) fn read_at(&self, buf: &mut [u8], offset: u64) -> usize {
        copy_out(&self.current, buf, offset)
    }

    /// Copy from the durable bytes, as a drive does that lost track of its own cache.
    pub(super) fn read_stale(&self, buf: &mut [u8], offset: u64) -> usize {
        copy_out(&self.durable, buf, offset)
    }

    pub(super) fn write_at(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        put(&mut self.current, offset, bytes);
        self.remember(Change::Write { offset, bytes: bytes.into() });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        resize(&mut self.current, len);
        self.remember(Change::SetLen(len));
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.play(&mut self.durable);
        }
        self.unsynced_bytes = 0;
    }

    /// Mark everything clean without storing it: what Linux does with the dirty pages of a
    /// file whose fsync failed. The next sync succeeds and has nothing to write.
    pub(super) fn forget_unsynced(&mut self) {
        self.unsynced.clear();
        self.unsynced_bytes = 0;
    }

    /// Damage one byte on the platter and in the cache.
    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        for bytes in [&mut self.current, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(offset as usize) {
                *byte ^= mask;
            }
        }
    }

    /// The image after power loss, where `keep` decides what of the unsynced data survives.
    pub(super) fn after_power_loss(&self, mut keep: impl FnMut(Piece) -> bool) -> Image {
        let mut survived = self.durable.clone();
        for change in &self.unsynced {
            match change {
                Change::SetLen(len) => {
                    if keep(Piece::SetLen(*len)) {
                        resize(&mut survived, *len);
                    }
                }
                Change::Write { offset, bytes } => {
                    for (at, sector) in sectors(*offset, bytes) {
                        if keep(Piece::Sector(at)) {
                            put(&mut survived, at, sector);
                        }
                    }
                }
            }
        }
        Image::durable(survived)
    }

    fn remember(&mut self, change: Change) {
        self.unsynced_bytes += change.cost();
        self.unsynced.push_back(change);
        if self.unsynced_bytes <= UNSYNCED_BYTES_MAX {
            return;
        }
        while self.unsynced_bytes > UNSYNCED_BYTES_MAX / 2 {
            let oldest = self.unsynced.pop_front().expect("counted bytes belong to a change");
            self.unsynced_bytes -= oldest.cost();
            oldest.play(&mut self.durable);
        }
    }
}

/// The parts of a write, cut where sectors begin.
fn sectors(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = offset;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let room = (SECTOR_BYTES - at % SECTOR_BYTES) as usize;
        let (head, tail) = rest.split_at(room.min(rest.len()));
        let piece = (at, head);
        at += head.len() as u64;
        rest = tail;
        Some(piece)
    })
}

fn copy_out(from: &[u8], buf: &mut [u8], offset: u64) -> usize {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(from.len());
    let count = buf.len().min(from.len() - start);
    buf[..count].copy_from_slice(&from[start..start + count]);
    count
}

fn put(onto: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = offset as usize;
    let end = start + bytes.len();
    if onto.len() < end {
        onto.resize(end, 0);
    }
    onto[start..end].copy_from_slice(bytes);
}

fn resize(bytes: &mut Vec<u8>, len: u64) {
    bytes.resize(len as usize, 0);
}
