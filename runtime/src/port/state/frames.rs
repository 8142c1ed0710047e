//! The frames of the journal.

use driftless_adapters::fs::{Fs, FsError};
use driftless_core::checksum::FileDigest;
use driftless_core::machine::Chunk;

pub(super) const MAGIC: &[u8; 8] = b"DRFTJRN1";
/// Bytes before a payload.
pub(super) const FRAME_BYTES: usize = 16;
/// Set in the number of a database whose records before are replaced.
pub(super) const REPLACES: u32 = 1 << 31;
/// A longer payload is damage: a table of 2^32 pages would be the largest record.
const PAYLOAD_BYTES_MAX: usize = 1 << 31;
/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// A frame that is whole.
pub(super) struct Frame<'a> {
    /// As it stands there; 0 for a name.
    pub(super) database: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the beginning of `bytes`.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Frame<'a>> {
        let head = bytes.first_chunk::<FRAME_BYTES>()?;
        let payload = bytes[FRAME_BYTES..].get(..payload_bytes(head))?;
        let database = u32::from_be_bytes(head[4..8].try_into().ok()?);
        let stored = u64::from_be_bytes(head[8..].try_into().ok()?);
        (sum(&head[..8], payload) == stored).then_some(Frame { database, payload })
    }

    /// The number and the name that it gives.
    pub(super) fn name(&self) -> Option<(u32, &'a str)> {
        let (number, name) = self.payload.split_first_chunk::<4>().filter(|_| self.database == 0)?;
        Some((u32::from_be_bytes(*number), std::str::from_utf8(name).ok()?))
    }
}

fn payload_bytes(head: &[u8; FRAME_BYTES]) -> usize {
    u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize
}

pub(super) fn name_payload(number: u32, name: &str) -> Vec<u8> {
    [&number.to_be_bytes()[..], name.as_bytes()].concat()
}

fn sum(head: &[u8], payload: &[u8]) -> u64 {
    let mut digest = FileDigest::new();
    digest.update(head);
    digest.update(payload);
    digest.finish()
}

pub(super) fn encode(database: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_BYTES + payload.len());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(database.to_be_bytes());
    bytes.extend(sum(&bytes[..8], payload).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Records as the payload of one frame.
pub(super) fn join(records: &[Chunk]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        bytes.extend((record.len() as u32).to_be_bytes());
        bytes.extend_from_slice(record);
    }
    bytes
}

/// The records that [`join`] has joined.
pub(super) fn split(mut payload: &[u8]) -> Option<Vec<&[u8]>> {
    let mut records = Vec::new();
    while !payload.is_empty() {
        let (len, rest) = payload.split_first_chunk::<4>()?;
        let (record, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        records.push(record);
        payload = rest;
    }
    Some(records)
}

/// Gives each frame of a file of `len` bytes and where it begins. Returns where the last one that is
/// whole ends; 0 if the file is no journal.
pub(super) fn scan<F: Fs>(
    fs: &F,
    file: &F::File,
    len: u64,
    mut take: impl FnMut(u64, Frame<'_>),
) -> Result<u64, FsError> {
    let mut window = Window { fs, file, len, at: 0, bytes: Vec::new(), past: 0 };
    if window.want(MAGIC.len())? != *MAGIC {
        return Ok(0);
    }
    window.skip(MAGIC.len());
    let mut at = MAGIC.len() as u64;
    loop {
        let Some(head) = window.want(FRAME_BYTES)?.first_chunk::<FRAME_BYTES>() else { return Ok(at) };
        let payload = payload_bytes(head);
        let frame = FRAME_BYTES + payload;
        if payload > PAYLOAD_BYTES_MAX || at + frame as u64 > len {
            return Ok(at);
        }
        let Some(whole) = Frame::parse(window.want(frame)?) else { return Ok(at) };
        take(at, whole);
        window.skip(frame);
        at += frame as u64;
    }
}

/// Bytes of a file from some offset on.
struct Window<'a, F: Fs> {
    fs: &'a F,
    file: &'a F::File,
    /// What is known of the length of the file: memory that nothing would be read to is not asked for.
    len: u64,
    /// Where `bytes` begin in the file.
    at: u64,
    bytes: Vec<u8>,
    /// Bytes of them that are not asked for again.
    past: usize,
}

impl<F: Fs> Window<'_, F> {
    /// The next bytes: so many, or fewer at the end of the file.
    fn want(&mut self, count: usize) -> Result<&[u8], FsError> {
        while self.bytes.len() < self.past + count {
            self.bytes.drain(..self.past);
            self.at += self.past as u64;
            self.past = 0;
            let held = self.bytes.len();
            let from = self.at + held as u64;
            let room = READ_BYTES.min(self.len.saturating_sub(from) as usize).max(count - held);
            self.bytes.resize(held + room, 0);
            let read = self.fs.read_at(self.file, &mut self.bytes[held..], from);
            self.bytes.truncate(held + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                break;
            }
        }
        Ok(&self.bytes[self.past..self.bytes.len().min(self.past + count)])
    }

    fn skip(&mut self, count: usize) {
        self.past += count;
    }
}
