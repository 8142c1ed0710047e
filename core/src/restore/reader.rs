//! Reading one object from its start to its end, a few pieces ahead of the decoder.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use super::jobs::{Next, RestoreJob, Stream};
use crate::ids::Now;
use crate::machine::{Actions, ByteRange, Chunk, Listed, PART_BYTES_MAX, StoreRequest};
use crate::reading::Flight;

/// Pieces of one object that may be under way or waiting for the decoder.
const AHEAD_PIECES: u64 = 4;

/// An object being read whole. The decoder travels with the jobs; it is here between them.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Reader {
    pub(crate) listed: Listed,
    /// Bytes asked for so far.
    asked: u64,
    /// Bytes that came and went to the decoder.
    taken: u64,
    ready: BTreeMap<u64, Chunk>,
    /// `None` while a job has it.
    stream: Option<Box<Stream>>,
    /// The decoder stopped at its limit of output and has more without further bytes.
    more: bool,
}

impl Reader {
    pub(crate) fn new(listed: Listed, stream: Stream) -> Reader {
        Reader {
            listed,
            asked: 0,
            taken: 0,
            ready: BTreeMap::new(),
            stream: Some(Box::new(stream)),
            more: false,
        }
    }

    /// Goes on from bytes at hand instead of reading.
    pub(crate) fn with_body(mut self, body: Chunk) -> Reader {
        self.asked = body.len() as u64;
        self.ready.insert(0, body);
        self
    }

    /// Bytes that were asked for and are not with the decoder yet.
    pub(crate) fn ahead(&self) -> u64 {
        self.asked - self.taken
    }

    /// Asks for pieces as long as fewer than `parallelism` reads are under way, and for one in any
    /// case where nothing goes on without it. `key` names a piece by its offset.
    pub(crate) fn read_ahead<K: Copy>(
        &mut self,
        now: Now,
        flight: &mut Flight<K>,
        parallelism: usize,
        key: impl Fn(u64) -> K,
        out: &mut Actions,
    ) {
        while self.starves() || flight.len() < parallelism {
            let Some((offset, len)) = self.next_piece() else { break };
            let range = ByteRange::At { offset, len };
            flight.send(now, key(offset), StoreRequest::Get { object: self.listed.object, range }, out);
        }
    }

    /// The next piece to ask for: offset and length.
    fn next_piece(&mut self) -> Option<(u64, u64)> {
        let piece = PART_BYTES_MAX as u64;
        if self.asked >= self.listed.len || self.asked - self.taken >= AHEAD_PIECES * piece {
            return None;
        }
        let (offset, len) = (self.asked, piece.min(self.listed.len - self.asked));
        self.asked += len;
        Some((offset, len))
    }

    /// Whether it can go on only with a piece that nobody has asked for.
    fn starves(&self) -> bool {
        self.asked == self.taken && self.stream.is_some() && !self.more
    }

    pub(crate) fn arrived(&mut self, offset: u64, bytes: Chunk) {
        self.ready.insert(offset, bytes);
    }

    /// The next job, if the decoder is here and can go on.
    pub(crate) fn next_job(&mut self) -> Option<RestoreJob> {
        self.stream.as_ref()?;
        let bytes = if self.more {
            None
        } else {
            let bytes = self.ready.remove(&self.taken)?;
            self.taken += bytes.len() as u64;
            Some(bytes)
        };
        self.more = false;
        let last = self.taken >= self.listed.len;
        Some(RestoreJob::Stream { stream: self.stream.take()?, bytes, last })
    }

    /// Takes the decoder back.
    pub(crate) fn back(&mut self, stream: Box<Stream>, next: &Next) {
        self.stream = Some(stream);
        self.more = *next == Next::More;
    }
}
