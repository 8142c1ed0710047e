//! Reading objects one after the other, a few pieces ahead of the decoder.
//!
//! Segments are small and there may be thousands, so the pieces that are under way may belong to
//! several objects; they are handed out in the order in which they apply.

use alloc::collections::BTreeMap;

use super::LegacyListed;
use crate::ids::Now;
use crate::machine::{Actions, ByteRange, Chunk, PART_BYTES_MAX, StoreRequest};
use crate::reading::Flight;

/// Bytes that may be under way or wait for the decoder.
const AHEAD_BYTES: u64 = 8 << 20;

/// A stretch of one object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    /// Which object of the plan.
    pub(super) at: usize,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// Whether the object ends with it.
    pub(super) last: bool,
}

/// The pieces of a plan's objects.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Pieces {
    /// The next piece to ask for: its object, and where in it.
    next: (usize, u64),
    /// Pieces asked for, and those handed out, so far.
    asked: u64,
    taken: u64,
    /// Asked for and not handed out.
    ahead: BTreeMap<u64, (Piece, Option<Chunk>)>,
    ahead_bytes: u64,
}

impl Pieces {
    /// Asks for pieces, `parallelism` ahead at the most. `key` names a piece by its number.
    pub(super) fn ask<K: Copy>(
        &mut self,
        now: Now,
        objects: &[LegacyListed],
        parallelism: usize,
        key: impl Fn(u64) -> K,
        flight: &mut Flight<K>,
        out: &mut Actions,
    ) {
        while self.ahead.len() < parallelism {
            let (at, offset) = self.next;
            let Some(listed) = objects.get(at) else { return };
            let len = (PART_BYTES_MAX as u64).min(listed.len - offset);
            if !self.ahead.is_empty() && self.ahead_bytes + len > AHEAD_BYTES {
                return;
            }
            let last = offset + len == listed.len;
            self.next = if last { (at + 1, 0) } else { (at, offset + len) };
            self.ahead.insert(self.asked, (Piece { at, offset, len, last }, None));
            self.ahead_bytes += len;
            let range = ByteRange::At { offset, len };
            let request = StoreRequest::GetLegacy { object: listed.object, range };
            flight.send(now, key(self.asked), request, out);
            self.asked += 1;
        }
    }

    /// The piece of a number that is under way.
    pub(super) fn get(&self, number: u64) -> Option<Piece> {
        self.ahead.get(&number).map(|(piece, _)| *piece)
    }

    pub(super) fn arrived(&mut self, number: u64, bytes: Chunk) {
        if let Some((_, waiting)) = self.ahead.get_mut(&number) {
            *waiting = Some(bytes);
        }
    }

    /// The next piece in order, if it has come.
    pub(super) fn take(&mut self) -> Option<(Piece, Chunk)> {
        let (piece, bytes) = self.ahead.get(&self.taken)?;
        let found = (*piece, bytes.clone()?);
        self.ahead.remove(&self.taken);
        self.ahead_bytes -= found.0.len;
        self.taken += 1;
        Some(found)
    }
}
