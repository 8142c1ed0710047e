//! How far a database is ahead of its replica while no process replicates it.
//!
//! The replica's newest capture says up to which frame of which generation of the WAL it went.
//! As long as the WAL is of that generation, the committed frames behind are the lag. A WAL that
//! has been started over proves nothing, and then the lag is said to be unknown rather than zero.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use driftless_core::ltx::LtxHeader;
use driftless_core::wal::{Salts, Scanner, WAL_HEADER_BYTES, WalHeader, frame_bytes};

/// Committed frames of a WAL file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Committed {
    salts: Salts,
    frames: u32,
    frame_bytes: u64,
}

/// Committed frames that are not on the replica; `None` if that cannot be told.
pub fn frames_behind(wal: &Path, head: Option<&LtxHeader>) -> Option<u64> {
    let head = head?;
    let committed = committed(wal)?;
    if committed.salts != head.wal_salts {
        return None;
    }
    let end = u64::try_from(head.wal_end()).ok()?;
    let captured = end.checked_sub(WAL_HEADER_BYTES as u64)? / committed.frame_bytes;
    Some(u64::from(committed.frames).saturating_sub(captured))
}

/// Reads a WAL as a recovering SQLite would: frames that are in order, up to the last commit.
fn committed(wal: &Path) -> Option<Committed> {
    let mut file = File::open(wal).ok()?;
    let mut bytes = [0; WAL_HEADER_BYTES];
    file.read_exact(&mut bytes).ok()?;
    let header = WalHeader::decode(&bytes).ok()?;
    let size = frame_bytes(header.page_size);
    let (mut scanner, mut frames) = (Scanner::from_header(&header), 0);
    let mut buffer = vec![0; size * ((1 << 20) / size).max(1)];
    loop {
        let filled = read_full(&mut file, &mut buffer).ok()?;
        let before = scanner.position().frame;
        let scanned = scanner.scan(&buffer[..filled], u32::MAX, &mut |number, frame, _| {
            if frame.is_commit() {
                frames = number;
            }
        });
        if scanned.is_err() || filled < buffer.len() || scanner.position().frame == before {
            return Some(Committed { salts: header.salts, frames, frame_bytes: size as u64 });
        }
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_core::ids::{PageNo, PageSize, Txid, TxidRange, Wall};
    use driftless_core::wal::FrameHeader;

    const SALTS: Salts = Salts { one: 1, two: 2 };

    /// A WAL of frames, `true` where one commits.
    fn wal(commits: &[bool]) -> Vec<u8> {
        let header = WalHeader::new(PageSize::new(512).unwrap(), 0, SALTS, false);
        let (mut bytes, mut sum) = (header.encode().to_vec(), header.checksum);
        for commit in commits {
            let frame = FrameHeader::new(sum, false, SALTS, PageNo::FIRST, u32::from(*commit), &[7; 512]);
            sum = frame.checksum;
            bytes.extend(frame.encode());
            bytes.extend([7; 512]);
        }
        bytes
    }

    fn head(frames: i64, salts: Salts) -> LtxHeader {
        let range = TxidRange::single(Txid::FIRST);
        let mut header = LtxHeader::new(PageSize::new(512).unwrap(), 1, range, Wall(0));
        (header.wal_offset, header.wal_size, header.wal_salts) = (32, frames * 536, salts);
        header
    }

    #[test]
    fn the_lag_is_counted_in_committed_frames() {
        let path = std::env::temp_dir().join(format!("driftless-lag-{}", std::process::id()));
        let check = |bytes: &[u8], head: &LtxHeader, expected| {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(frames_behind(&path, Some(head)), expected);
        };
        let bytes = wal(&[true, false, true, false]);
        check(&bytes, &head(1, SALTS), Some(2));
        check(&bytes, &head(3, SALTS), Some(0));
        check(&bytes[..bytes.len() - 100], &head(0, SALTS), Some(3));
        check(&bytes, &head(1, Salts { one: 9, two: 9 }), None);
        check(b"", &head(1, SALTS), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(frames_behind(&path, Some(&head(1, SALTS))), None);
    }
}
