//! A whole database, page for page, and how to read the committed one from the files.
//!
//! This is the simulator's own reading of the WAL format, so that truth does not rest on the code
//! that is judged by it. It takes the database file and lays over it the WAL's frames up to the
//! last commit frame of the valid chain. That is what SQLite's recovery takes; while a wal-index
//! is alive it is the committed state only right after a commit has succeeded, and [`Truth`]
//! asks only then.
//!
//! [`Truth`]: super::truth::Truth

use std::hash::{DefaultHasher, Hash, Hasher};

use driftless_core::checksum::{DbXor, page_checksum};
use driftless_core::ids::{DbChecksum, PageNo};

use crate::disk::Disk;

/// One state of a database. The lock page reads as zeros.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// Bytes in a page; 0 for no database.
    pub page_bytes: usize,
    /// The pages, one after the other.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pages of {} ({:x})", self.pages(), self.page_bytes, self.digest())
    }
}

impl Image {
    /// Pages in the database.
    pub fn pages(&self) -> usize {
        self.bytes.len().checked_div(self.page_bytes).unwrap_or(0)
    }

    /// A page, counted from 1.
    pub fn page(&self, no: usize) -> &[u8] {
        &self.bytes[(no - 1) * self.page_bytes..no * self.page_bytes]
    }

    /// Makes the page that covers `pending_byte` read as zeros.
    pub fn blank_lock_page(&mut self, pending_byte: u64) {
        let start =
            (pending_byte as usize).checked_div(self.page_bytes).map_or(0, |page| page * self.page_bytes);
        if self.page_bytes > 0 && start < self.bytes.len() {
            self.bytes[start..start + self.page_bytes].fill(0);
        }
    }

    /// A number that stands for the content.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.page_bytes, &self.bytes).hash(&mut hasher);
        hasher.finish()
    }

    /// The checksum of the LTX chain.
    pub fn checksum(&self, pending_byte: u64) -> DbChecksum {
        let lock_page = pending_byte as usize / self.page_bytes.max(1) + 1;
        let mut xor = DbXor::new();
        for no in (1..=self.pages()).filter(|no| *no != lock_page) {
            xor.toggle(page_checksum(PageNo::new(no as u32).expect("counted from 1"), self.page(no)));
        }
        xor.finish()
    }

    /// The first pages on which two images differ, for people.
    pub fn differences(&self, other: &Image) -> String {
        if self.page_bytes != other.page_bytes || self.pages() != other.pages() {
            return format!("{self:?} against {other:?}");
        }
        let differ: Vec<usize> = (1..=self.pages()).filter(|no| self.page(*no) != other.page(*no)).collect();
        format!("{self:?}: {} pages differ, the first are {:?}", differ.len(), &differ[..differ.len().min(8)])
    }
}

/// Where the valid chain of a WAL ends: salts, frames up to the last commit, checksum there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChainEnd {
    /// Both salts.
    pub salts: (u32, u32),
    /// Frames up to the last commit frame.
    pub frames: u32,
    /// The cumulative checksum in that frame.
    pub checksum: (u32, u32),
}

/// What the files say.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The state after the last commit frame.
    pub image: Image,
    /// Where the chain ends.
    pub end: ChainEnd,
}

/// Reads the database at `path`; `None` if there is none, or none with a header.
pub fn read(disk: &Disk, path: &str, pending_byte: u64) -> Option<Reading> {
    let mut bytes = disk.contents(path)?;
    let header = bytes.get(..100)?;
    let page_bytes = match be16(header, 16) {
        1 => 65_536,
        n => n as usize,
    };
    let in_header = be32(header, 28) as usize * page_bytes;
    if in_header > 0 && be32(header, 24) == be32(header, 92) {
        bytes.resize(in_header, 0);
    }
    let wal = disk.contents(&format!("{path}-wal")).unwrap_or_default();
    let end = overlay(&mut bytes, &wal, page_bytes);
    let mut image = Image { page_bytes, bytes };
    image.blank_lock_page(pending_byte);
    Some(Reading { image, end })
}

fn overlay(bytes: &mut Vec<u8>, wal: &[u8], page_bytes: usize) -> ChainEnd {
    let mut end = ChainEnd::default();
    let Some(header) = wal.get(..32) else { return end };
    let big_endian = match be32(header, 0) {
        0x377f_0682 => false,
        0x377f_0683 => true,
        _ => return end,
    };
    let sum = checksum((0, 0), &header[..24], big_endian);
    if sum != (be32(header, 24), be32(header, 28)) || be32(header, 8) as usize != page_bytes {
        return end;
    }
    end.salts = (be32(header, 16), be32(header, 20));
    let mut running = sum;
    let mut waiting: Vec<(usize, &[u8])> = Vec::new();
    for (n, frame) in wal[32..].chunks_exact(24 + page_bytes).enumerate() {
        running = checksum(running, &frame[..8], big_endian);
        running = checksum(running, &frame[24..], big_endian);
        let salts = (be32(frame, 8), be32(frame, 12));
        if salts != end.salts || running != (be32(frame, 16), be32(frame, 20)) || be32(frame, 0) == 0 {
            break;
        }
        waiting.push((be32(frame, 0) as usize, &frame[24..]));
        let commit = be32(frame, 4) as usize;
        if commit == 0 {
            continue;
        }
        end.frames = n as u32 + 1;
        end.checksum = running;
        let len = waiting.iter().map(|(page, _)| page * page_bytes).max().unwrap_or(0);
        bytes.resize(bytes.len().max(len), 0);
        for (page, data) in waiting.drain(..) {
            bytes[(page - 1) * page_bytes..page * page_bytes].copy_from_slice(data);
        }
        bytes.resize(commit * page_bytes, 0);
    }
    end
}

pub(crate) fn checksum(mut sum: (u32, u32), bytes: &[u8], big_endian: bool) -> (u32, u32) {
    let word = |four: &[u8]| {
        let four: [u8; 4] = four.try_into().expect("four bytes");
        if big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
    };
    for pair in bytes.chunks_exact(8) {
        sum.0 = sum.0.wrapping_add(word(&pair[..4])).wrapping_add(sum.1);
        sum.1 = sum.1.wrapping_add(word(&pair[4..])).wrapping_add(sum.0);
    }
    sum
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u32 {
    u32::from(bytes[at]) << 8 | u32::from(bytes[at + 1])
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    be16(bytes, at) << 16 | be16(bytes, at + 2)
}
