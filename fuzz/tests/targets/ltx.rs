//! Segments: whatever bytes a store returns, the reader takes what was written or refuses.

use std::collections::BTreeMap;

use driftless_core::ids::{DbChecksum, Incarnation, Lineage, PageNo, PageSize, Txid, TxidRange, Wall};
use driftless_core::ltx::{
    Decoder, Dictionaries, Dictionary, Encoder, IndexEntry, Item, LtxError, LtxHeader, Packing, PageIndex,
    Trailer, Unpacker, decode_frame,
};
use driftless_core::wal::Salts;
use driftless_fuzz::Feed;

/// Brings the lock page to page 129 of 512 bytes.
const PENDING_BYTE: u64 = 0x1_0000;

type Pages = BTreeMap<PageNo, Vec<u8>>;

/// All that a reader is told of a file, and how it ended.
#[derive(PartialEq, Debug)]
struct Told {
    header: Option<LtxHeader>,
    pages: Pages,
    end: Result<Trailer, LtxError>,
}

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Told {
    let mut decoder = Decoder::new().with_pending_byte(PENDING_BYTE).with_dictionaries(&dictionaries());
    let (mut header, mut pages) = (None, Pages::new());
    for mut piece in pieces {
        loop {
            match decoder.next_item(&mut piece) {
                Err(error) => return Told { header, pages, end: Err(error) },
                Ok(Item::Header(found)) => header = Some(found),
                Ok(Item::Page { page, data }) => {
                    let before = pages.insert(page, data.to_vec());
                    assert_eq!(before, None, "a page comes out once");
                }
                Ok(Item::End(_) | Item::NeedMore) => break,
            }
        }
    }
    Told { header, pages, end: decoder.finish() }
}

/// The dictionary of some segments.
fn dictionary() -> Dictionary {
    Dictionary::new((0..2_048_u32).map(|n| ((n * n) >> 5) as u8).collect())
}

fn dictionaries() -> Dictionaries {
    let mut dictionaries = Dictionaries::default();
    dictionaries.add(dictionary());
    dictionaries
}

/// Cuts `file` where `feed` says.
fn pieces<'a>(file: &'a [u8], feed: &mut Feed<'_>) -> Vec<&'a [u8]> {
    let mut rest = file;
    let mut cut = Vec::new();
    while !rest.is_empty() {
        let len = if feed.is_empty() { rest.len() } else { 1 + feed.below(1_200) as usize };
        let (piece, after) = rest.split_at(len.min(rest.len()));
        cut.push(piece);
        rest = after;
    }
    cut
}

fn txid(n: u64) -> Txid {
    Txid::new(n).unwrap()
}

/// A sound segment out of a fuzzer's bytes.
fn build(feed: &mut Feed<'_>) -> (LtxHeader, Pages, Vec<u8>) {
    let page_size = PageSize::new([512, 512, 512, 1024, 4096, 65_536][feed.below(6) as usize]).unwrap();
    let snapshot = feed.bool();
    let commit = if snapshot && page_size.get() > 4096 { feed.below(3) } else { feed.below(140) };
    let min = if snapshot { 1 } else { 2 + feed.u64() / 4 };
    let range = TxidRange::new(txid(min), txid(min + u64::from(feed.u32()))).unwrap();
    let mut header = LtxHeader::new(page_size, commit, range, Wall(feed.u64().cast_signed()));
    header.wal_offset = i64::from(feed.u32());
    header.wal_size = i64::from(feed.u32());
    header.wal_salts = Salts { one: feed.u32(), two: feed.u32() };
    header.lineage = Lineage::new(feed.u64());
    header.chain.pre = DbChecksum::from_stored(feed.u64());
    header.chain.post = DbChecksum::from_stored(feed.u64());
    header.chain.incarnation = Incarnation(feed.u32());

    let zstd = |dictionary| Packing::Zstd { level: 3, dictionary };
    let packing = match feed.below(4) {
        0 | 1 => Packing::Lz4,
        2 => zstd(None),
        _ => zstd(Some(dictionary())),
    };
    header.pack(&packing);
    let lock_page = page_size.lock_page(PENDING_BYTE);
    let mut pages = Pages::new();
    for number in 1..=commit {
        let page = PageNo::new(number).unwrap();
        let wanted = snapshot || (feed.u8().is_multiple_of(16) && pages.len() < 8);
        if wanted && page != lock_page {
            pages.insert(page, feed.fill(page_size.bytes()));
        }
    }
    let mut file = Vec::new();
    let mut encoder = Encoder::packed(&header, packing, &mut file).with_pending_byte(PENDING_BYTE);
    for (page, data) in &pages {
        encoder.page(*page, data, &mut file);
    }
    encoder.finish(0, &mut file);
    (header, pages, file)
}

#[test]
fn ltx_round_trip() {
    bolero::check!().with_iterations(5_000).with_max_len(2048).for_each(|bytes: &[u8]| {
        let mut feed = Feed::new(bytes);
        let (header, pages, file) = build(&mut feed);
        let told = decode(pieces(&file, &mut feed).into_iter());
        assert_eq!(told.header, Some(header));
        assert!(told.pages == pages, "the pages that come out are those that went in");
        let trailer = told.end.expect("a sound file is read to its end");
        assert!(file.ends_with(&trailer.encode()));

        let index = PageIndex::decode_tail(&file, file.len() as u64).expect("a sound index");
        assert_eq!(index.entries.len(), pages.len());
        let mut out = vec![0; header.page_size.bytes()];
        let mut unpacker = Unpacker::new(header.codec, &dictionaries()).expect("it is at hand");
        for (entry, (page, data)) in index.entries.iter().zip(&pages) {
            let frame = &file[entry.offset as usize..(entry.offset + entry.size) as usize];
            assert_eq!(unpacker.decode_frame(frame, header.page_size, &mut out), Ok((*page, frame.len())));
            assert!(&out == data, "a page read alone is the page read in order");
        }
    });
}

#[test]
fn ltx_bytes() {
    bolero::check!().with_iterations(40_000).with_max_len(4096).for_each(|bytes: &[u8]| {
        let mut feed = Feed::new(bytes);
        // Half of them get a header that is in order, so that the frames are reached.
        let mut file = Vec::new();
        if feed.bool() {
            let range = TxidRange::single(txid(9));
            let mut header = LtxHeader::new(PageSize::new(512).unwrap(), 8, range, Wall(0));
            if feed.bool() {
                header.pack(&Packing::Zstd { level: 1, dictionary: Some(dictionary()) });
            }
            file.extend_from_slice(&header.encode());
        }
        let mut cuts = feed;
        file.extend_from_slice(feed.rest());
        let whole = decode(core::iter::once(&file[..]));
        let cut = decode(pieces(&file, &mut cuts).into_iter());
        assert_eq!(whole.end.is_ok(), cut.end.is_ok(), "the verdict does not depend on the pieces");
        assert!((whole.header, whole.pages) == (cut.header, cut.pages), "nor does what comes before it");
        let mut out = vec![0; 512];
        let _ = decode_frame(feed.rest(), PageSize::new(512).unwrap(), &mut out);
    });
}

#[test]
fn ltx_bytes_damaged() {
    bolero::check!().with_iterations(8_000).with_max_len(1024).for_each(|bytes: &[u8]| {
        let mut feed = Feed::new(bytes);
        let (header, pages, mut file) = build(&mut feed);
        match feed.below(3) {
            0 => {
                let at = feed.u32() as usize % file.len();
                file[at] ^= 1 << feed.below(8);
            }
            1 => file.truncate(feed.u32() as usize % file.len()),
            _ => file.extend((0..=feed.below(8)).map(|_| feed.u8())),
        }
        let whole = decode(core::iter::once(&file[..]));
        let cut = decode(pieces(&file, &mut feed).into_iter());
        assert_eq!(whole.end.is_ok(), cut.end.is_ok(), "the verdict does not depend on the pieces");
        if whole.end.is_ok() {
            // One bit of a block may change and the page may not: that is no damage.
            assert_eq!(whole.header, Some(header), "a damaged header was accepted");
            assert!(whole.pages == pages, "damaged pages were accepted");
        }
    });
}

/// An index that is nearly in order: each rule is broken now and then. Returns the end of a file
/// and the length that the file is said to have.
fn build_index(feed: &mut Feed<'_>) -> (Vec<u8>, u64) {
    let (mut page, mut offset) = (0u32, 100u64);
    let mut entries = Vec::new();
    for _ in 0..feed.below(8) {
        page = if feed.below(16) == 0 { page } else { page.saturating_add(1 + feed.below(300)) };
        let size = match feed.below(16) {
            0 => 0,
            1 => feed.u64(),
            _ => 1 + u64::from(feed.below(5_000)),
        };
        let Some(page) = PageNo::new(page) else { continue };
        let said = if feed.below(16) == 0 { offset ^ feed.u64() } else { offset };
        entries.push(IndexEntry { page, offset: said, size });
        offset = offset.wrapping_add(size);
    }
    let mut tail = Vec::new();
    PageIndex { entries }.encode(&mut tail);
    tail.extend_from_slice(&[0; 16]);
    let end = if feed.below(16) == 0 { feed.u64() } else { offset.wrapping_add(6) };
    let file_bytes = end.wrapping_add(tail.len() as u64);
    (tail, file_bytes)
}

/// What holds of an index that was read out of `tail`, the end of a file of `file_bytes` bytes.
fn check_index(index: &PageIndex, tail: &[u8], file_bytes: u64) {
    // Three numbers an entry, a byte each at the least: the bytes bound the memory.
    assert!(index.entries.len() * 3 <= tail.len(), "more entries than bytes");
    assert!(index.entries.capacity() <= tail.len().max(4), "more room than bytes call for");
    let mut offset = 100;
    let mut page = 0;
    for entry in &index.entries {
        assert!(entry.page.get() > page, "pages ascend");
        assert!(entry.offset == offset && entry.size > 0, "frames follow one another: {entry:?}");
        page = entry.page.get();
        offset = entry.offset.checked_add(entry.size).expect("a frame ends before numbers do");
    }
    let size_at = tail.len() - 24;
    let index_bytes = u64::from_be_bytes(tail[size_at..size_at + 8].try_into().unwrap());
    assert_eq!(offset + 6 + index_bytes + 24, file_bytes, "six zeros stand between the frames and the index");
}

#[test]
fn ltx_index_tail() {
    bolero::check!().with_iterations(80_000).with_max_len(1024).for_each(|bytes: &[u8]| {
        let mut feed = Feed::new(bytes);
        let (tail, file_bytes) = match feed.below(3) {
            0 => {
                let file_bytes = feed.u64() >> (feed.u8() % 64);
                (feed.rest().to_vec(), file_bytes)
            }
            1 => build_index(&mut feed),
            _ => {
                // A sound index with one byte changed reaches further than noise.
                let file = build(&mut feed).2;
                let mut tail = file[feed.u32() as usize % file.len()..].to_vec();
                let at = feed.u32() as usize % tail.len();
                tail[at] ^= feed.u8();
                (tail, file.len() as u64)
            }
        };
        match PageIndex::decode_tail(&tail, file_bytes) {
            Ok(index) => check_index(&index, &tail, file_bytes),
            Err(LtxError::NeedMore { bytes }) => {
                assert!(bytes > tail.len() as u64 && bytes <= file_bytes, "more is asked for, and it exists");
            }
            Err(_) => {}
        }
    });
}
