//! The WAL and its index: what is damaged is never taken for committed data.

use driftless_core::ids::{PageNo, PageSize};
use driftless_core::wal::{
    FRAME_HEADER_BYTES, FrameHeader, INDEX_BYTES, Salts, Scanner, WAL_HEADER_BYTES, WalChecksum, WalHeader,
    WalIndex, WalPosition, frame_bytes,
};
use driftless_fuzz::Feed;

const PAGE_SIZE: PageSize = PageSize::new(512).unwrap();

/// The WAL checksum as the format page states it, independent of the code under test.
fn sum(mut sums: (u32, u32), bytes: &[u8], big_endian: bool) -> (u32, u32) {
    for pair in bytes.chunks(8) {
        let word = |at: usize| {
            let bytes = [pair[at], pair[at + 1], pair[at + 2], pair[at + 3]];
            if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        sums.0 = sums.0.wrapping_add(word(0)).wrapping_add(sums.1);
        sums.1 = sums.1.wrapping_add(word(4)).wrapping_add(sums.0);
    }
    sums
}

/// Scans `wal` in pieces and returns how many frames were accepted, each checked against `sum`.
fn scan_checked(wal: &[u8], limit: u32, frames_at_once: usize) -> u32 {
    let Ok(header) = WalHeader::decode(wal) else { return 0 };
    let head = sum((0, 0), &wal[..24], header.big_endian_checksums);
    assert_eq!(WalChecksum(head.0, head.1), header.checksum, "a header with a wrong checksum was accepted");
    if header.page_size != PAGE_SIZE {
        return 0;
    }
    let size = frame_bytes(PAGE_SIZE);
    let mut sums = head;
    let mut accepted = 0;
    let mut scanner = Scanner::from_header(&header);
    for piece in wal[WAL_HEADER_BYTES..].chunks(size * frames_at_once) {
        let end = scanner.scan(piece, limit, &mut |number, frame, page| {
            accepted += 1;
            assert_eq!(number, accepted, "frames are counted from 1 without a gap");
            let at = WAL_HEADER_BYTES + (number as usize - 1) * size;
            sums = sum(sums, &wal[at..at + 8], header.big_endian_checksums);
            sums = sum(sums, page, header.big_endian_checksums);
            assert_eq!(
                frame.checksum,
                WalChecksum(sums.0, sums.1),
                "a frame with a wrong checksum was accepted"
            );
            assert_eq!(frame.salts, header.salts, "a frame of another generation was accepted");
            assert_eq!(page, &wal[at + FRAME_HEADER_BYTES..at + size], "a frame hands over its own page");
        });
        if end.is_err() || accepted >= limit {
            break;
        }
    }
    assert!(accepted <= limit, "nothing past mxFrame is read");
    accepted
}

#[test]
fn wal_bytes() {
    bolero::check!().with_iterations(40_000).with_max_len(4096).for_each(|bytes: &[u8]| {
        let mut feed = Feed::new(bytes);
        let limit = feed.below(20);
        scan_checked(feed.rest(), limit, 1);
        // A scanner that goes on from anywhere must not panic on anything.
        let salts = Salts { one: feed.u32(), two: feed.u32() };
        let position = WalPosition { salts, frame: limit, checksum: WalChecksum(feed.u32(), feed.u32()) };
        let mut scanner = Scanner::resume(position, PAGE_SIZE, feed.bool());
        let _ = scanner.scan(feed.rest(), u32::MAX, &mut |_, _, _| {});
    });
}

#[test]
fn wal_bytes_damaged() {
    bolero::check!().with_iterations(20_000).with_max_len(512).for_each(|bytes: &[u8]| {
        let mut feed = Feed::new(bytes);
        let salts = Salts { one: feed.u32(), two: feed.u32() };
        let big_endian = feed.bool();
        let header = WalHeader::new(PAGE_SIZE, feed.u32(), salts, big_endian);
        let mut wal = header.encode().to_vec();
        let mut last = header.checksum;
        let frames = feed.below(6);
        for _ in 0..frames {
            let page = feed.fill(PAGE_SIZE.bytes());
            let number = PageNo::new(1 + feed.below(9)).unwrap();
            let frame = FrameHeader::new(last, big_endian, salts, number, feed.below(9), &page);
            last = frame.checksum;
            wal.extend_from_slice(&frame.encode());
            wal.extend_from_slice(&page);
        }
        let pieces = 1 + feed.below(3) as usize;
        assert_eq!(scan_checked(&wal, frames, pieces), frames, "a sound WAL is read to its end");

        let at = feed.u32() as usize % wal.len();
        wal[at] ^= 1 << feed.below(8);
        let hit = (at.saturating_sub(WAL_HEADER_BYTES) / frame_bytes(PAGE_SIZE)) as u32;
        let whole = if at < WAL_HEADER_BYTES { 0 } else { hit };
        assert_eq!(
            scan_checked(&wal, frames, pieces),
            whole,
            "frames from the damage on are refused, byte {at}"
        );
    });
}

#[test]
fn wal_index() {
    bolero::check!().with_iterations(80_000).with_max_len(256).for_each(|bytes: &[u8]| {
        let mut feed = Feed::new(bytes);
        let raw: [u8; INDEX_BYTES] = core::array::from_fn(|_| feed.u8());
        if let Ok(index) = WalIndex::parse(&raw) {
            assert_eq!(WalIndex::parse(&index.encode()), Ok(index));
        }

        let mut feed = Feed::new(bytes);
        let index = WalIndex {
            change: feed.u32(),
            is_init: true,
            big_endian_checksums: feed.bool(),
            page_size: PageSize::new(512 << feed.below(8)),
            mx_frame: feed.u32(),
            pages: feed.u32(),
            frame_checksum: WalChecksum(feed.u32(), feed.u32()),
            salts: Salts { one: feed.u32(), two: feed.u32() },
            n_backfill: feed.u32(),
            read_marks: core::array::from_fn(|_| feed.u32()),
            n_backfill_attempted: feed.u32(),
        };
        let sound = index.encode();
        assert_eq!(WalIndex::parse(&sound), Ok(index));

        let (at, bit) = (feed.below(48) as usize, 1 << feed.below(8));
        let mut torn = sound;
        torn[at] ^= bit;
        assert!(WalIndex::parse(&torn).is_err(), "two copies that differ at byte {at} say nothing");
        let mut torn_behind = sound;
        torn_behind[48 + at] ^= bit;
        assert!(
            WalIndex::parse(&torn_behind).is_err(),
            "nor if it is the second that is damaged, at byte {at}"
        );
        torn[48 + at] ^= bit;
        assert!(WalIndex::parse(&torn).is_err(), "equal copies, wrong at byte {at}, were accepted");
    });
}
