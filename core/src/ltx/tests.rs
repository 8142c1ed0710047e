//! The format against itself: round trips, damage of every kind, and limits. Files that
//! Litestream wrote are read in `tests/fixtures.rs` of this crate.

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::lz4frame::tests::lz4_frame;
use super::*;
use crate::checksum::{DbXor, ltx_page_checksum};
use crate::ids::{DbChecksum, Incarnation, Lineage, PageNo, PageSize, Txid, TxidRange, Wall};
use crate::wal::Salts;

type Pages = Vec<(PageNo, Vec<u8>)>;

fn page(n: u32) -> PageNo {
    PageNo::new(n).unwrap()
}

fn range(min: u64, max: u64) -> TxidRange {
    TxidRange::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap()
}

fn header() -> LtxHeader {
    let mut header = LtxHeader::new(PageSize::new(512).unwrap(), 9, range(5, 7), Wall(1_795_169_328_006));
    header.wal_offset = 4152;
    header.wal_size = 24_720;
    header.wal_salts = Salts { one: 7, two: 8 };
    header.lineage = Lineage::new(0x1122_3344_5566_7788);
    header.chain = Chain {
        pre: DbChecksum::from_stored(0x8000_0000_0000_0001),
        post: DbChecksum::from_stored(0x8000_0000_0000_0002),
        incarnation: Incarnation(3),
    };
    header
}

/// Half text, half noise: compressible, but not to nothing.
pub(super) fn content(seed: u32) -> Vec<u8> {
    let noise = |i: u32| (i.wrapping_mul(seed.wrapping_mul(2).wrapping_add(0x9e37_79b1)) >> 13) as u8;
    (0..512).map(|i| if i % 128 < 60 { noise(i) } else { b"driftless "[i as usize % 10] }).collect()
}

fn encode(header: &LtxHeader, pages: &[(PageNo, Vec<u8>)], post_apply: u64) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(header, &mut file);
    for (page, data) in pages {
        encoder.page(*page, data, &mut file);
        assert_eq!(encoder.offset(), file.len() as u64);
    }
    assert_eq!(encoder.pages() as usize, pages.len());
    encoder.finish(post_apply, &mut file);
    file
}

fn decode_from(mut decoder: Decoder, file: &[u8], cuts: &[usize]) -> Result<(LtxHeader, Pages), LtxError> {
    let (mut header, mut pages, mut piece, mut rest) = (None, Vec::new(), &file[..0], file);
    let mut cuts = cuts.iter().cycle();
    loop {
        match decoder.next_item(&mut piece)? {
            Item::Header(found) => assert!(header.replace(found).is_none(), "one header"),
            Item::Page { page, data } => pages.push((page, data.to_vec())),
            Item::NeedMore | Item::End(_) if !rest.is_empty() => {
                (piece, rest) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            }
            Item::NeedMore | Item::End(_) => break,
        }
    }
    decoder.finish()?;
    Ok((header.unwrap(), pages))
}

fn decode(file: &[u8]) -> Result<(LtxHeader, Pages), LtxError> {
    decode_from(Decoder::new(), file, &[file.len().max(1)])
}

fn sample() -> (Vec<u8>, Pages) {
    let pages: Pages = [2, 3, 8].map(|n| (page(n), content(n))).into();
    (encode(&header(), &pages, 0), pages)
}

/// The file with its checksum made good again after a change, if it still decodes that far.
fn resealed(file: &[u8], digested: &[&[u8]]) -> Vec<u8> {
    let mut digest = crate::checksum::FileDigest::new();
    digested.iter().for_each(|part| digest.update(part));
    let mut file = file.to_vec();
    let at = file.len() - 8;
    file[at..].copy_from_slice(&digest.finish().to_be_bytes());
    file
}

#[test]
fn the_header_stands_byte_for_byte_where_the_format_says() {
    let bytes = header().encode();
    let mut expected = Vec::new();
    expected.extend_from_slice(b"LTX1");
    for n in [2u32, 512, 9] {
        expected.extend_from_slice(&n.to_be_bytes());
    }
    for n in [5u64, 7, 1_795_169_328_006, 0, 4152, 24_720] {
        expected.extend_from_slice(&n.to_be_bytes());
    }
    for n in [7u32, 8] {
        expected.extend_from_slice(&n.to_be_bytes());
    }
    for n in [0x1122_3344_5566_7788u64, 0x8000_0000_0000_0001, 0x8000_0000_0000_0002] {
        expected.extend_from_slice(&n.to_be_bytes());
    }
    expected.extend_from_slice(&3u32.to_be_bytes());
    assert_eq!(bytes[..], expected);
    assert_eq!(LtxHeader::decode(&bytes), Ok(header()));
    assert!(!header().has_checksums());
}

#[test]
fn a_header_that_cannot_be_is_refused_with_the_field_named() {
    let check = |at: usize, value: &[u8], message: &str| {
        let mut bytes = header().encode();
        bytes[at..at + value.len()].copy_from_slice(value);
        assert_eq!(LtxHeader::decode(&bytes).unwrap_err().to_string(), message);
    };
    check(0, b"LTX2", "corrupt magic number at byte 0: expected 0x4c545831, found 0x4c545832");
    check(4, &[0, 0, 0, 3], "unsupported header flags at byte 4: 0x3");
    check(4, &[0, 1, 0, 0], "unsupported header flags at byte 4: 0x10000");
    check(
        8,
        &[0, 0, 2, 1],
        "corrupt page size at byte 8: expected a power of two from 512 to 65536, found 513",
    );
    check(23, &[0], "corrupt min txid at byte 16: expected at least 1, found 0");
    check(31, &[4], "corrupt max txid at byte 24: expected at least 5, found 4");
    check(31, &[0], "corrupt max txid at byte 24: expected at least 5, found 0");
    check(47, &[1], "corrupt pre-apply checksum at byte 40: expected 0x0, found 0x1");
    check(
        48,
        &[0x80],
        "corrupt wal offset at byte 48: expected at most 9223372036854775807, found 9223372036854779960",
    );
    check(
        56,
        &[0x80],
        "corrupt wal size at byte 56: expected at most 9223372036854775807, found 9223372036854800528",
    );
    // Without flag 2 a segment must have checksums of the format's own.
    check(
        7,
        &[0],
        "corrupt pre-apply checksum at byte 40: expected a checksum with its top bit set, found 0",
    );
}

#[test]
fn a_half_done_segment_is_plain_data() {
    let (file, pages) = sample();
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&header(), &mut bytes);
    encoder.page(pages[0].0, &pages[0].1, &mut bytes);
    let mut copy = encoder.clone();
    assert_eq!(copy, encoder);
    // The caller may take the buffer away between calls.
    let mut later = Vec::new();
    copy.page(pages[1].0, &pages[1].1, &mut later);
    assert_ne!(copy, encoder);
    copy.page(pages[2].0, &pages[2].1, &mut later);
    copy.finish(0, &mut later);
    assert_eq!([bytes, later].concat(), file);
    fn sendable<T: Send + 'static>(_: &T) {}
    sendable(&encoder);
}

#[test]
fn a_segment_may_hold_no_page_at_all() {
    let file = encode(&header(), &[], 0);
    assert_eq!(file.len(), 100 + 6 + 1 + 8 + 16);
    assert_eq!(decode(&file), Ok((header(), vec![])));
    assert_eq!(PageIndex::decode_tail(&file, file.len() as u64), Ok(PageIndex::default()));
}

#[test]
fn any_flipped_bit_is_found_out() {
    let (file, _) = sample();
    let mut same = 0;
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            // The file checksum covers pages, not blocks. A block whose bytes changed and that
            // still gives the same page would be sound, and is the only such case.
            if let Ok(found) = decode(&damaged) {
                assert_eq!(found, decode(&file).unwrap(), "byte {at}, bit {bit}");
                same += 1;
            }
        }
    }
    // Offsets into repeated text can be off by a period; nothing else is free to change.
    assert!(same < file.len() / 10, "{same} flips made no difference");
}

#[test]
fn a_file_cut_anywhere_is_truncated() {
    let (file, _) = sample();
    for len in 0..file.len() {
        let error = decode(&file[..len]).unwrap_err();
        assert!(
            matches!(error, LtxError::Truncated { offset, .. } if offset == len as u64),
            "{len}: {error}"
        );
    }
    let mut longer = file.clone();
    longer.push(0);
    let error = decode(&longer).unwrap_err();
    assert_eq!(
        error.to_string(),
        std::format!("corrupt bytes behind the trailer at byte {}: expected 0, found 1", file.len())
    );
}

#[test]
fn a_failed_decoder_stays_failed() {
    let (mut file, _) = sample();
    file[100] = 0xff;
    let mut decoder = Decoder::new();
    let mut rest = &file[..];
    assert!(matches!(decoder.next_item(&mut rest), Ok(Item::Header(_))));
    assert!(decoder.header().is_some());
    let error = decoder.next_item(&mut rest).unwrap_err();
    assert_eq!(decoder.next_item(&mut rest), Err(error));
    assert_eq!(decoder.next_item(&mut &[1][..]), Err(error));
    assert_eq!(decoder.finish(), Err(error));
}

#[test]
fn the_index_leads_to_single_pages() {
    let (file, pages) = sample();
    let index = PageIndex::decode_tail(&file, file.len() as u64).unwrap();
    assert_eq!(index.entries.len(), 3);
    assert_eq!(index.get(page(4)), None);
    let mut out = vec![0; 512];
    for (number, data) in &pages {
        let entry = index.get(*number).unwrap();
        let frame = &file[entry.offset as usize..(entry.offset + entry.size) as usize];
        let size = PageSize::new(512).unwrap();
        assert_eq!(decode_frame(frame, size, &mut out), Ok((*number, frame.len())));
        assert_eq!(&out, data);
        for len in 0..frame.len() {
            let error = decode_frame(&frame[..len], size, &mut out).unwrap_err();
            assert!(
                matches!(error, LtxError::NeedMore { bytes } if bytes > len as u64 && bytes <= frame.len() as u64)
            );
        }
    }
    let end = decode_frame(&[0; 6], PageSize::new(512).unwrap(), &mut out).unwrap_err();
    assert_eq!(end.to_string(), "corrupt page number at byte 0: expected at least 1, found 0");
}

#[test]
fn a_tail_too_short_for_the_index_says_how_long_it_must_be() {
    let (file, _) = sample();
    let whole = PageIndex::decode_tail(&file, file.len() as u64).unwrap();
    let mut encoded = Vec::new();
    whole.encode(&mut encoded);
    let needed = encoded.len() + 16;
    for len in 0..=file.len() {
        let result = PageIndex::decode_tail(&file[file.len() - len..], file.len() as u64);
        if len < 24 {
            assert_eq!(result, Err(LtxError::NeedMore { bytes: 24 }));
        } else if len < needed {
            assert_eq!(result, Err(LtxError::NeedMore { bytes: needed as u64 }));
        } else {
            assert_eq!(result.as_ref(), Ok(&whole));
        }
    }
}

#[test]
fn an_index_that_cannot_be_true_is_refused() {
    // A file of 1,000 bytes with this index and frames from 100 to where the index needs them.
    let check = |varints: &[u8], message: &str| {
        let mut tail = varints.to_vec();
        tail.extend_from_slice(&(varints.len() as u64).to_be_bytes());
        tail.extend_from_slice(&[0; 16]);
        let result = PageIndex::decode_tail(&tail, 1000);
        assert_eq!(result.map_err(|error| error.to_string()).unwrap_err(), message);
    };
    let at = |n: usize| 1000 - 24 - n as u64;
    // 1000 - 24 - 8 - 6: where the frames end for an index of eight bytes.
    let good = [1, 100, 200, 1, 2, 0xac, 2, 0];
    assert_eq!(at(good.len()), 968);
    check(
        &[1, 100, 10, 1, 110, 10, 0],
        "corrupt page number in the index at byte 972: expected at least 2, found 1",
    );
    check(
        &[2, 100, 10, 1, 110, 10, 0],
        "corrupt page number in the index at byte 972: expected at least 3, found 1",
    );
    check(&[1, 99, 10, 0], "corrupt frame offset in the index at byte 973: expected 100, found 99");
    check(
        &[1, 100, 10, 2, 111, 10, 0],
        "corrupt frame offset in the index at byte 973: expected 110, found 111",
    );
    check(&[1, 100, 0, 0], "corrupt frame size in the index at byte 974: expected at most 866, found 0");
    check(
        &[1, 100, 0xe7, 6, 0],
        "corrupt frame size in the index at byte 973: expected at most 865, found 871",
    );
    check(&[1, 100, 10, 0], "corrupt end of the frames in the index at byte 972: expected 966, found 110");
    check(&[0, 0], "corrupt bytes behind the page index at byte 975: expected 0, found 1");
    check(
        &[1, 100, 10],
        "corrupt number in the page index at byte 976: expected a number that ends within the index, found 0",
    );
    check(
        &[0x81, 0, 100, 10, 0],
        "corrupt number in the page index at byte 971: expected a number of 64 bits in its shortest form, found 1",
    );
    check(
        &[0xff; 11],
        "corrupt number in the page index at byte 965: expected a number of 64 bits in its shortest form, found 9223372036854775807",
    );
    let huge = [0x80, 0x80, 0x80, 0x80, 0x10, 100, 10, 0];
    check(&huge, "corrupt page number in the index at byte 968: expected at least 1, found 4294967296");

    let tail = |size: u64| [&size.to_be_bytes()[..], &[0; 16]].concat();
    for size in [0, 871, u64::MAX] {
        let error = PageIndex::decode_tail(&tail(size), 1000).unwrap_err();
        assert!(
            error.to_string().starts_with("corrupt page index size at byte 976: expected at most 870"),
            "{error}"
        );
    }
    // The largest that could be asks for bytes and allocates none.
    assert_eq!(PageIndex::decode_tail(&tail(870), 1000), Err(LtxError::NeedMore { bytes: 894 }));
    for file_bytes in [0, 130] {
        assert!(matches!(PageIndex::decode_tail(&[], file_bytes), Err(LtxError::Corrupt { .. })));
    }
    assert!(matches!(PageIndex::decode_tail(&[0; 200], 199), Err(LtxError::Corrupt { .. })));
}

#[test]
fn a_sealed_lie_in_the_index_is_found_by_the_frames() {
    let (file, pages) = sample();
    let index_at = file.len() - 24 - 8;
    // Swap the size of the last frame for another one and make the file checksum good.
    let mut lie = file.clone();
    lie[index_at] ^= 1;
    let mut digested: Vec<&[u8]> = vec![&lie[..100]];
    let index = PageIndex::decode_tail(&file, file.len() as u64).unwrap();
    for (entry, (_, data)) in index.entries.iter().zip(&pages) {
        digested.push(&lie[entry.offset as usize..entry.offset as usize + 10]);
        digested.push(data);
    }
    let last = index.entries.last().unwrap();
    digested.push(&lie[(last.offset + last.size) as usize..file.len() - 8]);
    let error = decode(&resealed(&lie, &digested)).unwrap_err();
    assert!(error.to_string().starts_with("corrupt page index at byte"), "{error}");
}

#[test]
fn checksums_of_the_formats_own_are_checked_where_they_are() {
    let pages: Pages = (1..=4).map(|n| (page(n), content(n))).collect();
    let mut xor = DbXor::new();
    pages.iter().for_each(|(n, data)| xor.toggle(ltx_page_checksum(*n, data)));
    let mut snapshot = LtxHeader { commit: 4, range: range(1, 7), flags: 0, ..header() };
    let post = xor.finish().get();
    assert_eq!(decode(&encode(&snapshot, &pages, post)), Ok((snapshot, pages.clone())));
    let error = decode(&encode(&snapshot, &pages, post ^ 1)).unwrap_err();
    assert!(error.to_string().starts_with("corrupt post-apply checksum"), "{error}");

    // What lies before a segment is not known here, so only the form can be checked.
    snapshot.range = range(2, 7);
    snapshot.pre_apply = 1 << 63;
    assert!(decode(&encode(&snapshot, &pages, post ^ 1)).is_ok());
}

#[test]
fn a_snapshot_without_the_lock_page_is_whole() {
    let pending = 16 * 512;
    let header = LtxHeader { commit: 18, range: range(1, 1), ..header() };
    let all: Pages = (1..=18).filter(|n| *n != 17).map(|n| (page(n), content(n))).collect();
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&header, &mut file).with_pending_byte(pending);
    all.iter().for_each(|(n, data)| encoder.page(*n, data, &mut file));
    encoder.finish(0, &mut file);
    assert_eq!(decode_from(Decoder::new().with_pending_byte(pending), &file, &[7]), Ok((header, all)));
    let error = decode(&file).unwrap_err();
    assert!(error.to_string().ends_with("expected 18, found 17"), "{error}");
    let header = LtxHeader { range: range(2, 2), ..header };
    let with_lock_page = encode(&header, &[(page(17), content(1))], 0);
    assert!(decode_from(Decoder::new().with_pending_byte(pending), &with_lock_page, &[9000]).is_err());
}

#[test]
#[should_panic(expected = "a snapshot holds every page")]
fn a_snapshot_that_lacks_a_page_is_not_written() {
    encode(&LtxHeader { range: range(1, 2), ..header() }, &[(page(2), content(2))], 0);
}

#[test]
#[should_panic(expected = "pages of a segment ascend")]
fn pages_out_of_order_are_not_written() {
    encode(&header(), &[(page(3), content(3)), (page(3), content(3))], 0);
}

#[test]
#[should_panic(expected = "no page beyond its commit size")]
fn pages_beyond_the_end_are_not_written() {
    encode(&header(), &[(page(10), content(3))], 0);
}

#[test]
#[should_panic(expected = "the lock page never appears")]
fn the_lock_page_is_not_written() {
    let header = LtxHeader { commit: u32::MAX, ..header() };
    let lock_page = header.page_size.lock_page(crate::ids::PENDING_BYTE);
    encode(&header, &[(lock_page, content(3))], 0);
}

/// Frames that no encoder of ours writes, up to the point where the decoder must object.
fn decode_frames(frames: &[(u32, &[u8])]) -> std::string::String {
    let mut file = header().encode().to_vec();
    for (page, content) in frames {
        let block = lz4_flex::block::compress(content);
        file.extend_from_slice(&page.to_be_bytes());
        file.extend_from_slice(&[0, 1]);
        file.extend_from_slice(&(block.len() as u32).to_be_bytes());
        file.extend_from_slice(&block);
    }
    decode(&file).unwrap_err().to_string()
}

#[test]
fn pages_read_must_ascend_and_lie_within_the_database() {
    let data = [0; 512];
    let at = 100 + 10 + lz4_flex::block::compress(&data).len();
    let message = |rule: &str| std::format!("corrupt page number at byte {at}: expected {rule}");
    assert_eq!(decode_frames(&[(3, &data), (3, &data)]), message("at least 4, found 3"));
    assert_eq!(decode_frames(&[(3, &data), (2, &data)]), message("at least 4, found 2"));
    assert_eq!(decode_frames(&[(9, &data), (10, &data)]), message("at most 9, found 10"));
}

#[test]
fn a_block_must_hold_exactly_one_page() {
    for len in [0, 511, 513, 530] {
        let message = decode_frames(&[(1, &vec![7; len])]);
        let expected = "corrupt lz4 block at byte 110: expected a block that decompresses to one page";
        assert!(message.starts_with(expected), "{len} bytes: {message}");
    }
}

#[test]
fn a_tiny_frame_cannot_claim_a_giant_size() {
    let mut file = header().encode().to_vec();
    file.extend_from_slice(&[0, 0, 0, 1, 0, 1, 0xff, 0xff, 0xff, 0xff]);
    let error = decode(&file).unwrap_err();
    assert_eq!(
        error.to_string(),
        "corrupt compressed size at byte 106: expected at most 530, found 4294967295"
    );
    let mut file = header().encode().to_vec();
    file.extend_from_slice(&[0, 0, 0, 0, 0, 1]);
    assert!(decode(&file).unwrap_err().to_string().starts_with("corrupt page flags at byte 104"));
    let mut file = header().encode().to_vec();
    file.extend_from_slice(&[0, 0, 0, 1, 0, 2]);
    assert_eq!(decode(&file).unwrap_err().to_string(), "unsupported page flags at byte 104: 0x2");
}

#[test]
fn segments_of_litestream_0_5_0_to_0_5_11_hold_lz4_frames() {
    let data = content(9);
    let header = header();
    let frame = [&[0, 0, 0, 4, 0, 0][..], &lz4_frame(0x24, &data, &[(&data, false)])].concat();
    let mut index = Vec::new();
    PageIndex { entries: vec![IndexEntry { page: page(4), offset: 100, size: frame.len() as u64 }] }
        .encode(&mut index);
    let head = header.encode();
    let end = [&[0; 6][..], &index, &[0; 8]].concat();
    let file = [&head[..], &frame, &end, &[0; 8]].concat();
    let file = resealed(&file, &[&head, &frame[..6], &data, &end]);
    let expected = Ok((header, vec![(page(4), data)]));
    assert_eq!(decode(&file), expected);
    assert_eq!(decode_from(Decoder::new(), &file, &[1]), expected);
}

#[test]
fn names_come_back_as_ranges() {
    let range = range(0x18, 0x3d);
    assert_eq!(file_name(range), "0000000000000018-000000000000003d.ltx");
    assert_eq!(parse_file_name(&file_name(range)), Some(range));
    for name in [
        "0000000000000018-000000000000003D.ltx",
        "0000000000000018-000000000000003d.ltx.tmp",
        "0000000000000000-0000000000000001.ltx",
        "000000000000003d-0000000000000018.ltx",
        "18-3d.ltx",
        "0000000000000018_000000000000003d.ltx",
        "+000000000000018-000000000000003d.ltx",
        "",
    ] {
        assert_eq!(parse_file_name(name), None, "{name}");
    }
}

fn any_header() -> impl Strategy<Value = LtxHeader> {
    let ids = (any::<u64>(), 1u64.., 1u64.., any::<i64>());
    let wal = (0i64.., 0i64.., any::<u32>(), any::<u32>());
    let chain = (any::<u64>(), any::<u64>(), any::<u32>());
    (9u32..17, any::<u32>(), ids, wal, chain).prop_map(|(shift, commit, ids, wal, chain)| {
        let range = range(ids.1.min(ids.2), ids.1.max(ids.2));
        let mut header = LtxHeader::new(PageSize::new(1 << shift).unwrap(), commit, range, Wall(ids.3));
        header.lineage = Lineage::new(ids.0);
        (header.wal_offset, header.wal_size) = (wal.0, wal.1);
        header.wal_salts = Salts { one: wal.2, two: wal.3 };
        header.chain = Chain {
            pre: DbChecksum::from_stored(chain.0),
            post: DbChecksum::from_stored(chain.1),
            incarnation: Incarnation(chain.2),
        };
        header
    })
}

/// Pages of all kinds: constant, noisy, and in between.
fn any_page() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<u8>().prop_map(|fill| vec![fill; 512]),
        any::<u32>().prop_map(content),
        prop::collection::vec(any::<u8>(), 512),
    ]
}

proptest! {
    #[test]
    fn headers_round_trip(header in any_header()) {
        prop_assert_eq!(LtxHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn headers_are_read_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 100)) {
        let mut bytes: [u8; 100] = bytes.try_into().unwrap();
        bytes[..4].copy_from_slice(b"LTX1");
        let flags = bytes[7] & 3;
        bytes[4..8].copy_from_slice(&[0, 0, 0, flags]);
        bytes[8..12].copy_from_slice(&[0, 0, 0x10, 0]);
        if let Ok(header) = LtxHeader::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn an_index_round_trips(pages in prop::collection::btree_map(1u32.., 1u64..1 << 40, 0..50)) {
        let mut index = PageIndex::default();
        let mut offset = 100;
        for (number, size) in pages {
            index.entries.push(IndexEntry { page: page(number), offset, size });
            offset += size;
        }
        let mut tail = Vec::new();
        index.encode(&mut tail);
        let file_bytes = offset + 6 + tail.len() as u64 + 16;
        tail.extend_from_slice(&[0; 16]);
        prop_assert_eq!(PageIndex::decode_tail(&tail, file_bytes), Ok(index));
    }

    #[test]
    fn a_segment_round_trips_however_it_is_cut(
        pages in prop::collection::btree_map(1u32..40, any_page(), 0..10),
        cuts in prop::collection::vec(1usize..900, 1..10),
    ) {
        let header = LtxHeader { commit: 40, ..header() };
        let pages: Pages = pages.into_iter().map(|(n, data)| (page(n), data)).collect();
        let file = encode(&header, &pages, 0);
        let expected = Ok((header, pages));
        prop_assert_eq!(decode_from(Decoder::new(), &file, &cuts), expected);
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..2000),
        keep in 0usize..600,
        cut in 1usize..300,
    ) {
        let (file, _) = sample();
        let keep = keep.min(file.len()).min(bytes.len());
        bytes[..keep].copy_from_slice(&file[..keep]);
        prop_assert!(decode_from(Decoder::new(), &bytes, &[cut]).is_err());
        let _ = PageIndex::decode_tail(&bytes, 5000);
        let mut out = vec![0; 512];
        let _ = decode_frame(&bytes, PageSize::new(512).unwrap(), &mut out);
        let _ = lz4frame::decode(&bytes, 0, &mut out);
    }
}
