//! Where the copy stands: a small text file beside it, written before the copy changes.
//!
//! The file and the database cannot change in one step. So the file names both states, the one
//! before the coming commit and the one after it, each with the checksum of all its pages; whoever
//! goes on after a kill reads the pages and sees which of the two they are. If they are neither,
//! somebody else has written, or something was lost, and the copy is compared with the replica.
//!
//! SQLite puts a counter and its own version into page 1 whenever it commits, and the journal mode
//! may have been another at the source. These bytes are left out of what is compared
//! ([`mask`]); the checksum that page 1 had at the source is kept beside.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::checksum::{FileDigest, page_checksum};
use crate::ids::{DbChecksum, PageNo, PageSize, Txid, Wall};

const TITLE: &str = "driftless follow 1";
/// Ends the line of a state that the replica has yet to show.
const DOUBTFUL: &str = " doubtful";

/// A state of the copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Its transaction.
    pub txid: Txid,
    /// The size of a page.
    pub page_size: PageSize,
    /// How many there are.
    pub pages: u32,
    /// The checksum of the state as it was at the source.
    pub state: DbChecksum,
    /// The checksum of page 1 as it was at the source; zero for a file that a restore has built, whose
    /// page 1 is that of the source.
    pub first: u64,
    /// The same, without the bytes that differ here.
    pub masked: u64,
    /// When the state was captured.
    pub stamp: Wall,
    /// Whether the replica has yet to show that it has this state: it is that of a put whose end its writer did
    /// not live to see.
    pub doubtful: bool,
}

/// The checksum of page 1 without what SQLite or the copy's journal mode puts there: the file format
/// (18, 19), the change counter (24 to 27), and which SQLite wrote last (92 to 99).
pub fn mask(page: &[u8]) -> u64 {
    let mut page = page.to_vec();
    for range in [18..20, 24..28, 92..100] {
        page[range].fill(0);
    }
    page_checksum(PageNo::FIRST, &page)
}

/// The file: the transaction that the copy shows at least, then each state that it may show.
pub fn encode(positions: &[Position]) -> Vec<u8> {
    let lowest = positions.iter().map(|it| it.txid.get()).min().unwrap_or(0);
    let mut text = format!("{lowest:016x}\n{TITLE}\n");
    for it in positions {
        let Position { txid, page_size, pages, state, first, masked, stamp, doubtful } = it;
        let doubtful = if *doubtful { DOUBTFUL } else { "" };
        text.push_str(&format!(
            "{txid} {page_size} {pages} {state} {first:016x} {masked:016x} {}{doubtful}\n",
            stamp.0
        ));
    }
    let sum = sum(&text);
    text.push_str(&format!("sum {sum:016x}\n"));
    text.into_bytes()
}

/// Reads the file. One that is not ours, Litestream's among them, names no state.
pub fn decode(bytes: &[u8]) -> Vec<Position> {
    let decode = || {
        let text = core::str::from_utf8(bytes).ok()?;
        let (body, last) = text.trim_end_matches('\n').rsplit_once('\n')?;
        let body = format!("{body}\n");
        (last.strip_prefix("sum ")? == format!("{:016x}", sum(&body))).then_some(())?;
        let mut lines = body.lines().skip(1);
        (lines.next()? == TITLE).then_some(())?;
        lines.map(decode_line).collect::<Option<Vec<Position>>>()
    };
    decode().unwrap_or_default()
}

fn decode_line(line: &str) -> Option<Position> {
    let doubtful = line.ends_with(DOUBTFUL);
    let mut words = line.split(' ');
    let hex = |word: Option<&str>| u64::from_str_radix(word?, 16).ok();
    Some(Position {
        txid: Txid::new(hex(words.next())?)?,
        page_size: PageSize::new(words.next()?.parse().ok()?)?,
        pages: words.next()?.parse().ok()?,
        state: DbChecksum::from_stored(hex(words.next())?)?,
        first: hex(words.next())?,
        masked: hex(words.next())?,
        stamp: Wall(words.next()?.parse().ok()?),
        doubtful,
    })
}

fn sum(text: &String) -> u64 {
    let mut digest = FileDigest::new();
    digest.update(text.as_bytes());
    digest.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(txid: u64) -> Position {
        Position {
            txid: Txid::new(txid).unwrap(),
            page_size: PageSize::new(65536).unwrap(),
            pages: 7,
            state: DbChecksum::from_xor(txid),
            first: 1 << 63 | 5,
            masked: 1 << 63 | 6,
            stamp: Wall(-5),
            doubtful: txid == 12,
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for positions in [&[][..], &[position(9)], &[position(9), position(12)]] {
            assert_eq!(decode(&encode(positions)), positions);
        }
        assert!(encode(&[position(12), position(9)]).starts_with(b"0000000000000009\n"));
    }

    #[test]
    fn what_is_not_whole_names_no_state() {
        let whole = encode(&[position(9), position(12)]);
        for len in 0..whole.len() - 1 {
            assert_eq!(decode(&whole[..len]), [], "cut at {len}");
        }
        for at in 0..whole.len() - 1 {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_eq!(decode(&changed), [], "changed at {at}");
        }
        assert_eq!(decode(b"0000000000000009\n"), [], "what Litestream keeps there");
    }

    #[test]
    fn what_sqlite_writes_into_page_1_is_left_out() {
        let page = [7; 512];
        let with = |at: usize| {
            let mut page = page;
            page[at] = 8;
            mask(&page) != mask(&[7; 512])
        };
        let seen: Vec<usize> = (0..101).filter(|&at| !with(at)).collect();
        assert_eq!(seen, [18, 19, 24, 25, 26, 27, 92, 93, 94, 95, 96, 97, 98, 99]);
    }
}
