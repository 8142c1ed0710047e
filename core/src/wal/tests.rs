//! One test for each sentence of SQLite's WAL format page on which a reader depends, named after
//! it. The bytes are built here by hand, independently of the code under test.

mod newest;

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::ids::{PageNo, PageSize};

const SALTS: Salts = Salts { one: 0x0102_0304, two: 0xfffe_fdfc };

/// The checksum loop as the format page prints it, over words collected first.
fn sum(start: (u32, u32), bytes: &[u8], big_endian: bool) -> (u32, u32) {
    let words: Vec<u32> = (0..bytes.len() / 4)
        .map(|i| bytes[4 * i..4 * i + 4].try_into().unwrap())
        .map(|word| if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
        .collect();
    let (mut s0, mut s1) = start;
    for i in (0..words.len()).step_by(2) {
        s0 = s0.wrapping_add(words[i].wrapping_add(s1));
        s1 = s1.wrapping_add(words[i + 1].wrapping_add(s0));
    }
    (s0, s1)
}

fn put(bytes: &mut Vec<u8>, numbers: &[u32]) {
    numbers.iter().for_each(|n| bytes.extend_from_slice(&n.to_be_bytes()));
}

/// A WAL under construction.
struct Wal {
    bytes: Vec<u8>,
    page_size: u32,
    big_endian: bool,
    salts: Salts,
    sums: (u32, u32),
}

impl Wal {
    fn new(page_size: u32, big_endian: bool) -> Wal {
        let mut bytes = Vec::new();
        let magic = if big_endian { 0x377f_0683 } else { 0x377f_0682 };
        put(&mut bytes, &[magic, 3_007_000, page_size, 9, SALTS.one, SALTS.two]);
        let sums = sum((0, 0), &bytes, big_endian);
        put(&mut bytes, &[sums.0, sums.1]);
        Wal { bytes, page_size, big_endian, salts: SALTS, sums }
    }

    fn frame(&mut self, page: u32, commit: u32, fill: u8) -> &mut Wal {
        let data: Vec<u8> = (0..self.page_size).map(|i| fill.wrapping_add((i % 7) as u8)).collect();
        self.frame_of(page, commit, &data)
    }

    fn frame_of(&mut self, page: u32, commit: u32, data: &[u8]) -> &mut Wal {
        let mut head = Vec::new();
        put(&mut head, &[page, commit]);
        self.sums = sum(sum(self.sums, &head, self.big_endian), data, self.big_endian);
        put(&mut head, &[self.salts.one, self.salts.two, self.sums.0, self.sums.1]);
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(data);
        self
    }

    fn scanner(&self) -> Scanner {
        Scanner::from_header(&WalHeader::decode(&self.bytes).unwrap())
    }

    fn frames(&self) -> &[u8] {
        &self.bytes[32..]
    }
}

/// The (frame, page, commit) of each frame that came out.
type Seen = Vec<(u32, u32, u32)>;

/// Scans and lists what came out, then the bytes consumed or the stop.
fn check(scanner: &mut Scanner, bytes: &[u8], limit: u32) -> (Seen, Result<usize, ScanStop>) {
    let mut seen = Vec::new();
    let page_bytes = scanner.page_size().bytes();
    let result = scanner.scan(bytes, limit, &mut |frame_no, frame, data| {
        assert_eq!(data.len(), page_bytes);
        seen.push((frame_no, frame.page.get(), frame.commit));
    });
    (seen, result)
}

fn three_frames(big_endian: bool) -> Wal {
    let mut wal = Wal::new(512, big_endian);
    wal.frame(1, 0, 1).frame(2, 2, 2).frame(2, 2, 3);
    wal
}

const FRAME: usize = 24 + 512;

#[test]
fn the_wal_header_is_32_bytes_of_eight_big_endian_integers() {
    for big_endian in [false, true] {
        let wal = Wal::new(4096, big_endian);
        assert_eq!(wal.bytes.len(), WAL_HEADER_BYTES);
        let header = WalHeader::decode(&wal.bytes).unwrap();
        assert_eq!(
            header,
            WalHeader {
                big_endian_checksums: big_endian,
                page_size: PageSize::new(4096).unwrap(),
                sequence: 9,
                salts: SALTS,
                checksum: WalChecksum(wal.sums.0, wal.sums.1),
            }
        );
        assert_eq!(header.encode()[..], wal.bytes);
        assert_eq!(WalHeader::new(header.page_size, 9, SALTS, big_endian), header);
        for len in 0..32 {
            assert_eq!(WalHeader::decode(&wal.bytes[..len]), Err(WalHeaderError::Short { found: len }));
        }
    }
}

#[test]
fn the_magic_number_is_0x377f0682_or_0x377f0683() {
    let mut wal = Wal::new(512, false);
    for bit in 1..32 {
        let found = 0x377f_0682 ^ 1 << bit;
        wal.bytes[..4].copy_from_slice(&u32::to_be_bytes(found));
        assert_eq!(WalHeader::decode(&wal.bytes), Err(WalHeaderError::NotAWal { found }));
    }
    assert_eq!(WalHeader::decode(&[0; 32]), Err(WalHeaderError::NotAWal { found: 0 }));
}

#[test]
fn the_file_format_version_is_3007000() {
    let mut wal = Wal::new(512, true);
    wal.bytes[4..8].copy_from_slice(&3_007_001u32.to_be_bytes());
    assert!(matches!(WalHeader::decode(&wal.bytes), Err(WalHeaderError::BadChecksum { .. })));
    let sums = sum((0, 0), &wal.bytes[..24], true);
    wal.bytes.truncate(24);
    put(&mut wal.bytes, &[sums.0, sums.1]);
    assert_eq!(WalHeader::decode(&wal.bytes), Err(WalHeaderError::BadVersion { found: 3_007_001 }));
}

#[test]
fn the_database_page_size_stands_plainly_also_65536() {
    for page_size in [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] {
        let mut wal = Wal::new(page_size, false);
        wal.frame(1, 1, 77);
        assert_eq!(WalHeader::decode(&wal.bytes).unwrap().page_size.get(), page_size);
        assert_eq!(check(&mut wal.scanner(), wal.frames(), 1).0, [(1, 1, 1)]);
    }
    for found in [0, 1, 256, 513, 131_072] {
        let wal = Wal::new(found, false);
        assert_eq!(WalHeader::decode(&wal.bytes), Err(WalHeaderError::BadPageSize { found }));
    }
}

#[test]
fn the_header_checksum_covers_its_first_24_bytes() {
    let wal = Wal::new(512, false);
    for at in 12..32 {
        let mut bytes = wal.bytes.clone();
        bytes[at] ^= 0x10;
        assert!(matches!(WalHeader::decode(&bytes), Err(WalHeaderError::BadChecksum { .. })), "byte {at}");
    }
}

#[test]
fn immediately_following_the_header_are_zero_or_more_frames() {
    let mut wal = Wal::new(512, false);
    assert_eq!(check(&mut wal.scanner(), wal.frames(), 10), (vec![], Ok(0)));
    let mut scanner = wal.scanner();
    wal.frame(1, 0, 1).frame(2, 2, 2);
    assert_eq!(check(&mut scanner, wal.frames(), 10), (vec![(1, 1, 0), (2, 2, 2)], Ok(2 * FRAME)));
    let page_size = scanner.page_size();
    assert_eq!(frame_bytes(page_size), FRAME);
    assert_eq!((frame_offset(page_size, 1), frame_offset(page_size, 2)), (32, 568));
    assert_eq!(frame_offset(page_size, 3), wal.bytes.len() as u64);
    assert_eq!(frame_offset(PageSize::new(65_536).unwrap(), u32::MAX), 32 + 65_560 * 4_294_967_294);
}

#[test]
fn the_frame_header_is_six_big_endian_integers() {
    let mut wal = Wal::new(512, true);
    wal.frame(0x0a0b_0c0d, 0x1a1b_1c1d, 5);
    let head: &[u8; 24] = wal.frames().first_chunk().unwrap();
    let frame = FrameHeader::decode(head).unwrap();
    let expected = FrameHeader {
        page: PageNo::new(0x0a0b_0c0d).unwrap(),
        commit: 0x1a1b_1c1d,
        salts: SALTS,
        checksum: WalChecksum(wal.sums.0, wal.sums.1),
    };
    assert_eq!(frame, expected);
    assert_eq!(&frame.encode(), head);
    let header = WalHeader::decode(&wal.bytes).unwrap();
    let data = &wal.frames()[24..];
    assert_eq!(FrameHeader::new(header.checksum, true, SALTS, frame.page, frame.commit, data), frame);
}

#[test]
fn a_commit_record_carries_the_database_size_and_all_others_zero() {
    let mut wal = Wal::new(512, false);
    wal.frame(3, 0, 1).frame(1, 3, 2);
    let mut commits = Vec::new();
    wal.scanner()
        .scan(wal.frames(), 2, &mut |_, frame, _| commits.push((frame.is_commit(), frame.commit)))
        .unwrap();
    assert_eq!(commits, [(false, 0), (true, 3)]);
}

#[test]
fn a_frame_is_valid_only_if_its_salts_match_the_header() {
    for at in 8..16 {
        let mut wal = three_frames(false);
        wal.bytes[32 + FRAME + at] ^= 1;
        let mut scanner = wal.scanner();
        let (seen, result) = check(&mut scanner, wal.frames(), 3);
        assert_eq!((seen.len(), result), (1, Err(ScanStop::SaltMismatch { frame: 2 })), "byte {at}");
        assert_eq!(scanner.position().frame, 1);
    }
}

#[test]
fn old_frames_left_over_from_prior_checkpoints_are_invalid() {
    let old = three_frames(false);
    let mut new = Wal::new(512, false);
    new.salts = Salts { one: SALTS.one + 1, two: 5 };
    new.bytes.truncate(16);
    put(&mut new.bytes, &[new.salts.one, new.salts.two]);
    new.sums = sum((0, 0), &new.bytes, false);
    let sums = new.sums;
    put(&mut new.bytes, &[sums.0, sums.1]);
    new.frame(2, 2, 9);
    // The restarted WAL has overwritten the first frame; two of the old remain behind it.
    new.bytes.extend_from_slice(&old.frames()[FRAME..]);
    let mut scanner = new.scanner();
    assert_eq!(
        check(&mut scanner, new.frames(), 3),
        (vec![(1, 2, 2)], Err(ScanStop::SaltMismatch { frame: 2 }))
    );
}

#[test]
fn a_frame_is_valid_only_if_its_checksum_matches_all_content_up_to_it() {
    for big_endian in [false, true] {
        let good = three_frames(big_endian);
        for at in (0..8).chain(16..FRAME) {
            let mut wal = three_frames(big_endian);
            wal.bytes[32 + FRAME + at] ^= 4;
            let (seen, result) = check(&mut wal.scanner(), wal.frames(), 3);
            assert_eq!((seen.len(), result), (1, Err(ScanStop::ChecksumMismatch { frame: 2 })), "byte {at}");
        }
        // The second frame is sound by itself but the first is another one.
        let mut other = Wal::new(512, big_endian);
        other.frame(1, 0, 200);
        let mut mixed = other.bytes.clone();
        mixed.extend_from_slice(&good.frames()[FRAME..]);
        let (seen, result) = check(&mut other.scanner(), &mixed[32..], 3);
        assert_eq!((seen.len(), result), (1, Err(ScanStop::ChecksumMismatch { frame: 2 })));
    }
}

#[test]
fn the_checksum_starts_with_the_first_24_bytes_of_the_header() {
    let wal = three_frames(true);
    let mut header = WalHeader::decode(&wal.bytes).unwrap();
    header.checksum.1 ^= 1;
    let result = check(&mut Scanner::from_header(&header), wal.frames(), 3).1;
    assert_eq!(result, Err(ScanStop::ChecksumMismatch { frame: 1 }));
}

#[test]
fn words_are_big_endian_if_the_magic_is_0x377f0683_and_little_endian_otherwise() {
    let bytes: Vec<u8> = (0..64).collect();
    for big_endian in [false, true] {
        let (s0, s1) = sum((3, 4), &bytes, big_endian);
        assert_eq!(WalChecksum(3, 4).update(&bytes, big_endian), WalChecksum(s0, s1));
    }
    assert_ne!(sum((0, 0), &bytes, true), sum((0, 0), &bytes, false));
    let wal = three_frames(false);
    let mut header = WalHeader::decode(&wal.bytes).unwrap();
    header.big_endian_checksums = true;
    let result = check(&mut Scanner::from_header(&header), wal.frames(), 3).1;
    assert_eq!(result, Err(ScanStop::ChecksumMismatch { frame: 1 }));
}

#[test]
fn checksums_are_always_stored_big_endian() {
    let wal = three_frames(false);
    assert_eq!(wal.bytes[24..28], WalHeader::decode(&wal.bytes).unwrap().checksum.0.to_be_bytes());
    let mut scanner = wal.scanner();
    assert_eq!(check(&mut scanner, wal.frames(), 3).1, Ok(3 * FRAME));
    let last = &wal.frames()[2 * FRAME..];
    assert_eq!(last[16..20], scanner.position().checksum.0.to_be_bytes());
    assert_eq!(last[20..24], scanner.position().checksum.1.to_be_bytes());
}

#[test]
fn s0_and_s1_are_weighted_with_fibonacci_numbers() {
    // s1 spans all terms; the first weighs most, and s0 omits the last.
    let words = |n: [u32; 4]| n.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
    assert_eq!(WalChecksum::default().update(&words([1, 0, 0, 0]), true), WalChecksum(2, 3));
    assert_eq!(WalChecksum::default().update(&words([0, 1, 0, 0]), true), WalChecksum(1, 2));
    assert_eq!(WalChecksum::default().update(&words([0, 0, 1, 0]), true), WalChecksum(1, 1));
    assert_eq!(WalChecksum::default().update(&words([0, 0, 0, 1]), true), WalChecksum(0, 1));
}

/// Long runs are summed in four parts (`checksum.rs`): every length around that, and every page.
#[test]
fn the_checksum_is_the_loops_at_every_length() {
    let bytes: Vec<u8> = (0..65_536_u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
    for len in (0..2_048).step_by(8).chain([4_096, 8_192, 32_768, 65_536]) {
        for start in [(0, 0), (u32::MAX, 1), (0x1234_5678, 0x9abc_def0)] {
            for big_endian in [false, true] {
                let WalChecksum(s0, s1) = WalChecksum(start.0, start.1).update(&bytes[..len], big_endian);
                assert_eq!((s0, s1), sum(start, &bytes[..len], big_endian), "{len} bytes");
            }
        }
    }
}

#[test]
#[should_panic(expected = "whole pairs of words")]
fn the_checksum_works_only_for_a_multiple_of_eight_bytes() {
    let _ = WalChecksum::default().update(&[0; 12], true);
}

#[test]
fn a_partial_last_frame_is_left_alone() {
    let wal = three_frames(false);
    for cut in [1, 23, 24, FRAME - 1] {
        let mut scanner = wal.scanner();
        let bytes = &wal.frames()[..2 * FRAME + cut];
        assert_eq!(check(&mut scanner, bytes, 3).1, Ok(2 * FRAME));
        // The rest arrives.
        assert_eq!(check(&mut scanner, &wal.frames()[2 * FRAME..], 3), (vec![(3, 2, 2)], Ok(FRAME)));
    }
}

#[test]
fn a_reader_ignores_content_behind_its_mx_frame() {
    let mut wal = three_frames(false);
    wal.bytes[32 + 2 * FRAME + 100] ^= 1;
    let mut scanner = wal.scanner();
    assert_eq!(check(&mut scanner, wal.frames(), 2), (vec![(1, 1, 0), (2, 2, 2)], Ok(2 * FRAME)));
    assert_eq!(check(&mut scanner, &wal.frames()[2 * FRAME..], 2), (vec![], Ok(0)));
    assert_eq!(
        check(&mut scanner, &wal.frames()[2 * FRAME..], 3),
        (vec![], Err(ScanStop::ChecksumMismatch { frame: 3 }))
    );
}

#[test]
fn a_frame_of_page_zero_is_invalid() {
    let mut wal = Wal::new(512, true);
    wal.frame(0, 1, 1);
    assert_eq!(check(&mut wal.scanner(), wal.frames(), 1), (vec![], Err(ScanStop::ZeroPage { frame: 1 })));
}

#[test]
fn errors_read_as_one_lower_case_sentence() {
    assert_eq!(ScanStop::SaltMismatch { frame: 3 }.to_string(), "wal frame 3: salts of another generation");
    assert_eq!(
        WalHeader::decode(&[0; 32]).unwrap_err().to_string(),
        "wal header, byte 0: expected magic 0x377f0682 or 0x377f0683, found 0x0"
    );
    assert_eq!(WalIndexError::Torn.to_string(), "wal-index: the two header copies differ");
}

/// A wal-index written field by field as SQLite lays out `WalIndexHdr` and `WalCkptInfo`.
fn shm(page_size: u16) -> [u8; INDEX_BYTES] {
    let mut header = Vec::new();
    for n in [3_007_000u32, 0, 77] {
        header.extend_from_slice(&n.to_ne_bytes());
    }
    header.extend_from_slice(&[1, 0]);
    header.extend_from_slice(&page_size.to_ne_bytes());
    for n in [1234u32, 99, 0xaaaa_bbbb, 0xcccc_dddd] {
        header.extend_from_slice(&n.to_ne_bytes());
    }
    put(&mut header, &[SALTS.one, SALTS.two]);
    let sums = sum((0, 0), &header, cfg!(target_endian = "big"));
    header.extend_from_slice(&sums.0.to_ne_bytes());
    header.extend_from_slice(&sums.1.to_ne_bytes());
    let mut bytes = [header.clone(), header].concat();
    for n in [1000u32, 0, 1234, 17, u32::MAX, u32::MAX, 0, 0, 1100, 0] {
        bytes.extend_from_slice(&n.to_ne_bytes());
    }
    bytes.try_into().unwrap()
}

fn index() -> WalIndex {
    WalIndex {
        change: 77,
        is_init: true,
        big_endian_checksums: false,
        page_size: PageSize::new(4096),
        mx_frame: 1234,
        pages: 99,
        frame_checksum: WalChecksum(0xaaaa_bbbb, 0xcccc_dddd),
        salts: SALTS,
        n_backfill: 1000,
        read_marks: [0, 1234, 17, READ_MARK_UNUSED, READ_MARK_UNUSED],
        n_backfill_attempted: 1100,
    }
}

#[test]
fn the_wal_index_header_is_two_copies_of_48_bytes_and_checkpoint_information() {
    assert_eq!(WalIndex::parse(&shm(4096)), Ok(index()));
    assert_eq!(index().encode(), shm(4096));
}

/// An application that closes and opens again leaves an empty WAL, whose recovery knows no page
/// size. Taken for a torn index, it would be looked at for ever (simulator, seed 29).
#[test]
fn an_empty_wal_has_an_index_without_a_page_size() {
    let empty = WalIndex { page_size: None, mx_frame: 0, ..index() };
    assert_eq!(WalIndex::parse(&empty.encode()), Ok(empty));
    let frames = WalIndex { page_size: None, ..index() };
    assert_eq!(WalIndex::parse(&frames.encode()), Err(WalIndexError::BadPageSize { found: 0 }));
}

#[test]
fn a_page_size_of_65536_stands_as_1_in_the_wal_index() {
    let expected = WalIndex { page_size: PageSize::new(65_536), ..index() };
    assert_eq!(WalIndex::parse(&shm(1)), Ok(expected));
    assert_eq!(expected.encode(), shm(1));
    assert_eq!(WalIndex::parse(&shm(100)), Err(WalIndexError::BadPageSize { found: 100 }));
}

#[test]
fn two_copies_that_differ_are_a_header_being_written() {
    for at in 0..96 {
        let mut bytes = shm(4096);
        bytes[at] ^= 1;
        assert_eq!(WalIndex::parse(&bytes), Err(WalIndexError::Torn), "byte {at}");
    }
}

#[test]
fn equal_copies_must_be_initialised_summed_and_of_the_known_version() {
    assert_eq!(WalIndex::parse(&[0; INDEX_BYTES]), Err(WalIndexError::NotInitialised));
    for at in (0..48).filter(|&at| at != 12) {
        let mut bytes = shm(4096);
        bytes[at] ^= 1;
        bytes[48 + at] ^= 1;
        assert!(matches!(WalIndex::parse(&bytes), Err(WalIndexError::BadChecksum { .. })), "byte {at}");
    }
    let mut bytes = shm(4096);
    bytes[..4].copy_from_slice(&3_007_001u32.to_ne_bytes());
    let sums = sum((0, 0), &bytes[..40], cfg!(target_endian = "big"));
    bytes[40..44].copy_from_slice(&sums.0.to_ne_bytes());
    bytes[44..48].copy_from_slice(&sums.1.to_ne_bytes());
    bytes.copy_within(..48, 48);
    assert_eq!(WalIndex::parse(&bytes), Err(WalIndexError::BadVersion { found: 3_007_001 }));
}

#[test]
fn a_position_right_behind_the_header_goes_on_with_the_first_frame() {
    let mut wal = Wal::new(512, false);
    let mut scanner = wal.scanner();
    // Nothing there yet: the position stays where it is, and keeps the header's checksum.
    assert_eq!(check(&mut scanner, wal.frames(), 9), (vec![], Ok(0)));
    let position = scanner.position();
    let header = WalHeader::decode(&wal.bytes).unwrap();
    assert_eq!(position, WalPosition { salts: SALTS, frame: 0, checksum: header.checksum });
    assert_eq!(frame_offset(header.page_size, position.frame + 1), WAL_HEADER_BYTES as u64);

    wal.frame(1, 1, 5).frame(1, 1, 6);
    let mut scanner = Scanner::resume(position, header.page_size, header.big_endian_checksums);
    assert_eq!(check(&mut scanner, wal.frames(), 1), (vec![(1, 1, 1)], Ok(FRAME)));
    // The same place with another checksum is another WAL.
    let elsewhere = WalPosition { checksum: WalChecksum(1, 2), ..position };
    let mut scanner = Scanner::resume(elsewhere, header.page_size, header.big_endian_checksums);
    assert_eq!(check(&mut scanner, wal.frames(), 2), (vec![], Err(ScanStop::ChecksumMismatch { frame: 1 })));
}

/// A WAL of which only the end is there, the frames from `first` on: what lies before is told by
/// the position alone.
struct WalEnd {
    frames: Wal,
    first: u32,
}

impl WalEnd {
    /// Reads as from a file.
    fn read(&self, offset: u64, len: usize) -> &[u8] {
        let start = 32 + u64::from(self.first - 1) * (24 + u64::from(self.frames.page_size));
        let from = usize::try_from(offset - start).unwrap();
        let held = self.frames.frames();
        &held[from.min(held.len())..(from + len).min(held.len())]
    }
}

#[test]
fn frames_beyond_4_gib_are_found_where_they_are() {
    // Around the frame that crosses 2^32 bytes, and at the highest numbers that there are.
    for (page_size, before) in
        [(65_536, 65_510), (65_536, 65_512), (4_096, 1_042_467), (512, 8_012_998), (512, u32::MAX - 4)]
    {
        let mut frames = Wal::new(page_size, false);
        frames.sums = (0x1234, 0x5678);
        frames.frame(7, 0, 1).frame(8, 0, 2).frame(9, 9, 3).frame(7, 9, 4);
        let source = WalEnd { frames, first: before + 1 };
        let page_size = PageSize::new(page_size).unwrap();
        let position = WalPosition { salts: SALTS, frame: before, checksum: WalChecksum(0x1234, 0x5678) };
        let mut scanner = Scanner::resume(position, page_size, false);
        let mut seen = Vec::new();
        for _ in 0..4 {
            // One frame at a time, each found anew by its number.
            let offset = frame_offset(page_size, scanner.position().frame + 1);
            let (more, result) = check(&mut scanner, source.read(offset, frame_bytes(page_size)), before + 4);
            assert_eq!(result, Ok(frame_bytes(page_size)), "at {offset}");
            seen.extend(more);
        }
        let expected = [(7, 0), (8, 0), (9, 9), (7, 9)];
        let numbered = (1..).zip(expected).map(|(n, (page, commit))| (before + n, page, commit));
        assert_eq!(seen, numbered.collect::<Vec<_>>());
        assert!(frame_offset(page_size, before + 4) + frame_bytes(page_size) as u64 > 1 << 32);
    }
}

proptest! {
    #[test]
    fn any_way_of_cutting_the_frames_reads_the_same(
        big_endian: bool,
        frames in prop::collection::vec((1u32..9, 0u32..3, any::<u8>()), 0..8),
        cuts in prop::collection::vec(1usize..1500, 1..20),
        limit in 0u32..10,
    ) {
        let mut wal = Wal::new(512, big_endian);
        for &(page, commit, fill) in &frames {
            wal.frame(page, commit, fill);
        }
        let expected: Vec<_> = (1u32..).zip(&frames).take(limit as usize).map(|(n, f)| (n, f.0, f.1)).collect();

        let (mut seen, mut at, mut have) = (Vec::new(), 0, 0);
        let mut scanner = wal.scanner();
        for cut in cuts.iter().cycle() {
            have = (have + cut).min(wal.frames().len());
            // Each piece is read by a scanner that knows only the position.
            let header = WalHeader::decode(&wal.bytes).unwrap();
            scanner = Scanner::resume(scanner.position(), header.page_size, header.big_endian_checksums);
            let (more, result) = check(&mut scanner, &wal.frames()[at..have], limit);
            seen.extend(more);
            at += result.unwrap();
            if have == wal.frames().len() {
                break;
            }
        }
        prop_assert_eq!(&seen, &expected);
        prop_assert_eq!(scanner.position().frame as usize, expected.len());
        if expected.len() == frames.len() {
            prop_assert_eq!(scanner.position().checksum, WalChecksum(wal.sums.0, wal.sums.1));
        }
    }

    #[test]
    fn headers_come_back_as_they_were(
        shift in 9u32..17, sequence: u32, one: u32, two: u32, big_endian: bool,
        page in 1u32.., commit: u32, s0: u32, s1: u32,
    ) {
        let salts = Salts { one, two };
        let header = WalHeader::new(PageSize::new(1 << shift).unwrap(), sequence, salts, big_endian);
        prop_assert_eq!(WalHeader::decode(&header.encode()), Ok(header));
        let frame = FrameHeader { page: PageNo::new(page).unwrap(), commit, salts, checksum: WalChecksum(s0, s1) };
        prop_assert_eq!(FrameHeader::decode(&frame.encode()), Some(frame));
        let index = WalIndex { salts, mx_frame: commit, page_size: Some(header.page_size), ..index() };
        prop_assert_eq!(WalIndex::parse(&index.encode()), Ok(index));
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = WalHeader::decode(&bytes);
        let header = WalHeader::new(PageSize::new(512).unwrap(), 0, SALTS, false);
        let _ = check(&mut Scanner::from_header(&header), &bytes, 9);
        if let Some(index) = bytes.first_chunk() {
            let _ = WalIndex::parse(index);
        }
    }
}
