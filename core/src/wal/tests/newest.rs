//! Which frames are read of many, beside a scan of all of them.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use crate::ids::{PageNo, PageSize};
use crate::wal::{
    FrameHeader, Newest, Salts, ScanStop, Scanner, WAL_HEADER_BYTES, WalHeader, frame_bytes, frame_offset,
};

/// A WAL of 512-byte pages; the page of each frame, as the wal-index has them; and the header.
fn churned(pages: &[u32]) -> (WalHeader, Vec<u8>, Vec<u8>) {
    let header = WalHeader::new(PageSize::new(512).unwrap(), 3, Salts { one: 9, two: 10 }, false);
    let (mut wal, mut sum) = (header.encode().to_vec(), header.checksum);
    for (n, page) in pages.iter().enumerate() {
        let data: Vec<u8> = (0..512).map(|at| (n * 31 + at) as u8).collect();
        let commit = if n % 3 == 2 || n + 1 == pages.len() { 40 } else { 0 };
        let frame = FrameHeader::new(sum, false, header.salts, PageNo::new(*page).unwrap(), commit, &data);
        wal.extend_from_slice(&frame.encode());
        wal.extend_from_slice(&data);
        sum = frame.checksum;
    }
    let index = pages.iter().flat_map(|page| page.to_ne_bytes()).collect();
    (header, wal, index)
}

/// Reads a stretch as [`Newest`] asks for it. The images by page, and the bytes that were read.
fn read_newest(
    newest: &mut Newest,
    wal: &[u8],
    bytes_max: u32,
) -> Result<(BTreeMap<u32, Vec<u8>>, usize), ScanStop> {
    let (mut images, mut read) = (BTreeMap::new(), 0);
    while !newest.is_done() {
        let parts = newest.ask(bytes_max);
        assert!(!parts.is_empty(), "each request brings it further");
        let mut bytes = Vec::new();
        for (offset, len) in parts {
            let start = (offset as usize).min(wal.len());
            bytes.extend_from_slice(&wal[start..(start + len as usize).min(wal.len())]);
        }
        read += bytes.len();
        newest.take(&bytes, &mut |frame, data| {
            assert!(images.insert(frame.page.get(), data.to_vec()).is_none(), "each page once");
        })?;
    }
    Ok((images, read))
}

proptest! {
    #[test]
    fn newest_frames_are_those_that_a_scan_leaves(
        pages in proptest::collection::vec(1_u32..30, 1..200),
        start in 0_usize..200,
        bytes_max in 1_u32..20_000,
    ) {
        let (header, wal, index) = churned(&pages);
        let start = start % pages.len();
        let mut scanner = Scanner::from_header(&header);
        scanner.scan(&wal[WAL_HEADER_BYTES..], start as u32, &mut |_, _, _| {}).unwrap();
        let before = scanner.position();
        let mut expected = BTreeMap::new();
        let rest = &wal[frame_offset(header.page_size, start as u32 + 1) as usize..];
        scanner
            .scan(rest, u32::MAX, &mut |_, frame, data| {
                expected.insert(frame.page.get(), data.to_vec());
            })
            .unwrap();

        let mut newest = Newest::of(before, header.page_size, false, &index[4 * start..]).unwrap();
        prop_assert_eq!(newest.count(), expected.len());
        let (images, _) = read_newest(&mut newest, &wal, bytes_max).unwrap();
        prop_assert_eq!(images, expected);
        prop_assert_eq!(newest.position(), scanner.position());
    }

    #[test]
    fn a_frame_that_is_read_for_being_newest_is_proven(
        pages in proptest::collection::vec(1_u32..12, 2..60),
        at in 0_usize..60 * 536,
        bit in 0_u8..8,
    ) {
        let (header, mut wal, index) = churned(&pages);
        let before = Scanner::from_header(&header).position();
        let mut newest = Newest::of(before, header.page_size, false, &index).unwrap();
        let (whole, _) = read_newest(&mut newest.clone(), &wal, 4_000).unwrap();
        let at = WAL_HEADER_BYTES + at % (wal.len() - WAL_HEADER_BYTES);
        wal[at] ^= 1 << bit;
        // Either the change lies in what is out of date, or it is noticed.
        if let Ok((images, _)) = read_newest(&mut newest, &wal, 4_000) {
            prop_assert_eq!(images, whole);
        }
    }
}

#[test]
fn what_is_out_of_date_is_not_read() {
    // An index page and a table page, changed a hundred times each.
    let pages: Vec<u32> = (0..200).map(|n| 2 + n % 2).collect();
    let (header, wal, index) = churned(&pages);
    let before = Scanner::from_header(&header).position();
    let mut newest = Newest::of(before, header.page_size, false, &index).unwrap();
    let (images, read) = read_newest(&mut newest, &wal, 1 << 18).unwrap();
    assert_eq!((images.len(), newest.position().frame), (2, 200));
    assert_eq!(read, 3 * frame_bytes(header.page_size), "two frames and the one before them");
}

#[test]
fn a_wal_index_that_names_no_page_or_another_is_not_believed() {
    let (header, wal, mut index) = churned(&[2, 3, 2, 4]);
    let before = Scanner::from_header(&header).position();
    let of = |index: &[u8]| Newest::of(before, header.page_size, false, index);
    assert_eq!(of(&[]), None, "it was not there");
    index[4..8].fill(0);
    assert_eq!(of(&index), None, "it is being written");
    index[4..8].copy_from_slice(&9_u32.to_ne_bytes());
    let stop = read_newest(&mut of(&index).unwrap(), &wal, 1 << 18).unwrap_err();
    assert_eq!(stop, ScanStop::OtherPage { frame: 2 });
    index[4..8].copy_from_slice(&3_u32.to_ne_bytes());
    let cut = &wal[..wal.len() - 1];
    let stop = read_newest(&mut of(&index).unwrap(), cut, 1 << 18).unwrap_err();
    assert_eq!(stop, ScanStop::Missing { frame: 4 });
    // Another generation has begun to overwrite it.
    let mut other = wal.clone();
    other[frame_offset(header.page_size, 3) as usize + 8] ^= 1;
    let stop = read_newest(&mut of(&index).unwrap(), &other, 1 << 18).unwrap_err();
    assert_eq!(stop, ScanStop::SaltMismatch { frame: 3 });
}
