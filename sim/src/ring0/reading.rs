//! The committed database as the files say it.
//!
//! This is the simulator's own reading of the WAL format, so that truth does not rest on the code
//! that is judged by it. It takes the database file and lays over it the WAL's frames up to the
//! last commit frame of the valid chain. That is what SQLite's recovery takes; while a wal-index
//! is alive it is the committed state only right after a commit has succeeded, and [`Truth`]
//! asks only then.
//!
//! A [`Reader`] reads the same files again and again, and most times little has changed. It goes
//! on where the chain ended if nothing before has changed: not the database file, and of the WAL
//! not a byte, or else neither the header nor the head of any frame, whose checksum covers all that
//! precedes it.
//!
//! [`Truth`]: super::truth::Truth

use std::collections::BTreeMap;

use super::image::Image;
use crate::disk::{Content, Disk};

const HEADER_BYTES: usize = 32;
const FRAME_BYTES: usize = 24;

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

/// The state of the files when they were last read.
#[derive(Debug)]
struct Known {
    /// Versions of the database file and of the WAL, and which file the latter is.
    db_version: u64,
    wal_version: u64,
    wal_birth: u64,
    /// The head of the WAL and of each frame up to the last commit.
    header: Vec<u8>,
    heads: Vec<[u8; FRAME_BYTES]>,
    reading: Reading,
}

/// Reads one database again and again.
#[derive(Debug, Default)]
pub struct Reader {
    wal_path: String,
    known: Option<Known>,
}

/// Reads the database at `path` once; `None` if there is none, or none with a header.
pub fn read(disk: &Disk, path: &str, pending_byte: u64) -> Option<Reading> {
    Reader::default().read(disk, path, pending_byte).cloned()
}

impl Reader {
    /// Reads the database at `path`, always the same; `None` if there is none, or none with a
    /// header.
    pub fn read(&mut self, disk: &Disk, path: &str, pending_byte: u64) -> Option<&Reading> {
        if self.wal_path.is_empty() {
            self.wal_path = format!("{path}-wal");
        }
        let Reader { wal_path, known } = self;
        disk.look_at(path, |db| {
            disk.look_at(wal_path, |wal| {
                *known = db.and_then(|db| Known::now(known.take(), db, wal, pending_byte));
            });
        });
        known.as_ref().map(|known| &known.reading)
    }
}

impl Known {
    /// What is known now, after what was known before.
    fn now(
        before: Option<Known>,
        db: Content<'_>,
        wal: Option<Content<'_>>,
        pending_byte: u64,
    ) -> Option<Known> {
        let (birth, version, bytes) =
            wal.map_or((0, 0, [].as_slice()), |wal| (wal.birth, wal.version, wal.bytes));
        let mut known = match before {
            Some(known) if (known.db_version, known.wal_version) == (db.version, version) => {
                return Some(known);
            }
            Some(mut known) if wal.is_some_and(|wal| known.precedes(db, wal)) => {
                known.go_on(bytes, &Image::default());
                known
            }
            before => {
                let like = before.map(|known| known.reading.image).unwrap_or_default();
                Known::begin(db, bytes, &like)?
            }
        };
        (known.wal_birth, known.wal_version) = (birth, version);
        known.reading.image.blank_lock_page(pending_byte);
        Some(known)
    }

    /// Whether the files are as they were, but for what may follow in the WAL.
    fn precedes(&self, db: Content<'_>, wal: Content<'_>) -> bool {
        if (self.db_version, self.wal_birth) != (db.version, wal.birth) || self.header.is_empty() {
            return false;
        }
        let frame_bytes = FRAME_BYTES + self.reading.image.page_bytes();
        if wal.changed_since(self.wal_version) >= (HEADER_BYTES + self.heads.len() * frame_bytes) as u64 {
            return true;
        }
        let starts = |at: usize, head: &[u8]| wal.bytes.get(at..).is_some_and(|rest| rest.starts_with(head));
        let frames = self.heads.iter().enumerate();
        starts(0, &self.header) && frames.rev().all(|(n, head)| starts(HEADER_BYTES + n * frame_bytes, head))
    }

    fn begin(db: Content<'_>, wal: &[u8], like: &Image) -> Option<Known> {
        let header = db.bytes.get(..100)?;
        let page_bytes = match be16(header, 16) {
            1 => 65_536,
            n => n as usize,
        };
        let mut image = Image::of_bytes(page_bytes, db.bytes, like);
        let in_header = be32(header, 28) as usize;
        if page_bytes > 0 && in_header > 0 && be32(header, 24) == be32(header, 92) {
            image.resize(in_header);
        }
        let mut known = Known {
            db_version: db.version,
            wal_version: 0,
            wal_birth: 0,
            header: wal_header(wal, page_bytes).unwrap_or_default(),
            heads: Vec::new(),
            reading: Reading { image, end: ChainEnd::default() },
        };
        if !known.header.is_empty() {
            let head = &known.header;
            known.reading.end.salts = (be32(head, 16), be32(head, 20));
            known.go_on(wal, like);
        }
        Some(known)
    }

    /// Lays the commits that follow over the image, sharing pages with `like`.
    fn go_on(&mut self, wal: &[u8], like: &Image) {
        let Reading { image, end } = &mut self.reading;
        let big_endian = be32(&self.header, 0) & 1 == 1;
        let frame_bytes = FRAME_BYTES + image.page_bytes();
        let mut running = match end.frames {
            0 => (be32(&self.header, 24), be32(&self.header, 28)),
            _ => end.checksum,
        };
        let mut waiting: BTreeMap<usize, &[u8]> = BTreeMap::new();
        let mut heads: Vec<[u8; FRAME_BYTES]> = Vec::new();
        let rest = wal.get(HEADER_BYTES + end.frames as usize * frame_bytes..).unwrap_or(&[]);
        for frame in rest.chunks_exact(frame_bytes) {
            running = checksum(running, &frame[..8], big_endian);
            running = checksum(running, &frame[FRAME_BYTES..], big_endian);
            let salts = (be32(frame, 8), be32(frame, 12));
            if salts != end.salts || running != (be32(frame, 16), be32(frame, 20)) || be32(frame, 0) == 0 {
                break;
            }
            waiting.insert(be32(frame, 0) as usize, &frame[FRAME_BYTES..]);
            heads.push(frame[..FRAME_BYTES].try_into().expect("as many"));
            let commit = be32(frame, 4) as usize;
            if commit == 0 {
                continue;
            }
            self.heads.append(&mut heads);
            (end.frames, end.checksum) = (self.heads.len() as u32, running);
            let last = waiting.keys().next_back().map_or(0, |page| *page);
            image.resize(image.pages().max(last));
            std::mem::take(&mut waiting)
                .iter()
                .for_each(|(page, data)| image.set_page_like(*page, data, like));
            image.resize(commit);
        }
    }
}

/// The header of a WAL, if it is sound and one of a database with such pages.
fn wal_header(wal: &[u8], page_bytes: usize) -> Option<Vec<u8>> {
    let header = wal.get(..HEADER_BYTES)?;
    let magic = be32(header, 0);
    let sum = checksum((0, 0), &header[..24], magic & 1 == 1);
    let sound = magic & !1 == 0x377f_0682
        && sum == (be32(header, 24), be32(header, 28))
        && be32(header, 8) as usize == page_bytes;
    sound.then(|| header.to_vec())
}

/// The cumulative checksum of SQLite's WAL, over big-endian or little-endian words.
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

#[cfg(test)]
mod tests;
