//! Segments compressed with zstd: what goes in comes out, and nothing else ever does.

use proptest::prelude::*;

use super::*;
use crate::ids::{PageNo, PageSize, Txid, TxidRange, Wall};
use crate::ltx::{Decoder, Encoder, Item, PageIndex};

type Pages = Vec<(PageNo, Vec<u8>)>;

/// A dictionary of words that the pages of these tests hold.
pub(crate) fn dictionary() -> Dictionary {
    let words: Vec<u8> = (0..200).flat_map(|n| format!("driftless word {n} ").into_bytes()).collect();
    Dictionary::new(words)
}

/// The ways to compress.
pub(crate) fn packings() -> [Packing; 3] {
    let zstd = |dictionary| Packing::Zstd { level: 3, dictionary };
    [Packing::Lz4, zstd(None), zstd(Some(dictionary()))]
}

/// The same segment compressed in another way.
pub(crate) fn repack(file: &[u8], packing: &Packing) -> Vec<u8> {
    let (mut header, pages) = decode(file).expect("it is sound");
    header.pack(packing);
    encode(&header, packing, &pages)
}

fn with_dictionary() -> Dictionaries {
    let mut dictionaries = Dictionaries::default();
    dictionaries.add(dictionary());
    dictionaries
}

fn encode(header: &LtxHeader, packing: &Packing, pages: &Pages) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::packed(header, packing.clone(), &mut file);
    for (page, data) in pages {
        encoder.page(*page, data, &mut file);
    }
    encoder.finish(0, &mut file);
    file
}

fn decode(file: &[u8]) -> Result<(LtxHeader, Pages), LtxError> {
    let mut decoder = Decoder::new().with_dictionaries(&with_dictionary());
    let (mut header, mut pages, mut piece) = (None, Pages::new(), file);
    loop {
        match decoder.next_item(&mut piece)? {
            Item::Header(found) => header = Some(found),
            Item::Page { page, data } => pages.push((page, data.to_vec())),
            Item::NeedMore | Item::End(_) => break,
        }
    }
    decoder.finish()?;
    Ok((header.expect("a file that ends has one"), pages))
}

fn header(packing: &Packing) -> LtxHeader {
    let page_size = PageSize::new(512).expect("a page size");
    let mut header = LtxHeader::new(page_size, 40, TxidRange::single(Txid::new(7).expect("from 1")), Wall(5));
    header.pack(packing);
    header
}

/// Words, or what no compressor makes shorter.
fn page(words: bool, seed: u32) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u32
    };
    let mut page = Vec::new();
    while page.len() < 512 {
        match words {
            true => page.extend_from_slice(format!("driftless word {} ", draw() % 200).as_bytes()),
            false => page.push(draw() as u8),
        }
    }
    page.truncate(512);
    page
}

fn sample() -> Pages {
    [(2, true), (3, false), (9, true)]
        .map(|(n, words)| (PageNo::new(n).expect("from 1"), page(words, n)))
        .into()
}

#[test]
fn pages_come_out_as_they_went_in_and_a_dictionary_makes_them_shorter() {
    let len = |packing: &Packing| {
        let file = encode(&header(packing), packing, &sample());
        assert_eq!(decode(&file), Ok((header(packing), sample())));
        let index = PageIndex::decode_tail(&file, file.len() as u64).expect("an index");
        let entry = index.entries[1];
        assert!(entry.size <= 512 + 10 + 4, "noise stands there as it is");
        file.len()
    };
    let [lz4, zstd, with_dictionary] = packings().map(|packing| len(&packing));
    assert!(zstd < lz4 && with_dictionary < zstd - 50, "{lz4} {zstd} {with_dictionary}");
}

#[test]
fn a_dictionary_that_is_not_there_or_is_another_is_named() {
    let packing = &packings()[2];
    let file = encode(&header(packing), packing, &sample());
    let id = dictionary().id();
    let found = Decoder::new().next_item(&mut &file[..]).map(drop);
    assert_eq!(found, Err(LtxError::Dictionary { id }));
    let text = format!("dictionary {id}, with which it was compressed, is missing");
    assert_eq!(alloc::string::ToString::to_string(&LtxError::Dictionary { id }), text);
    assert_eq!(Dictionary::read(id, dictionary().bytes()), Ok(dictionary()));
    let damaged = Dictionary::read(id, &dictionary().bytes()[1..]).expect_err("it is another");
    assert!(damaged.starts_with(&format!("dictionary {id} is damaged")), "{damaged}");
}

#[test]
fn a_flag_without_the_other_is_refused() {
    let mut bytes = header(&packings()[1]).encode();
    bytes[7] = 0;
    let error = LtxHeader::decode(&bytes).expect_err("checksums of the format's own have no room");
    assert_eq!(error, LtxError::Unsupported { offset: 4, what: "header flags", found: 1 << 16 });
}

proptest! {
    #[test]
    fn a_damaged_segment_is_never_another(
        which in 0usize..3,
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let packing = &packings()[which];
        let mut file = encode(&header(packing), packing, &sample());
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        // A block has more than one form; what comes out of it is vouched for, whatever it is.
        if let Ok((_, pages)) = decode(&file) {
            prop_assert_eq!(pages, sample());
        }
    }

    #[test]
    fn no_block_makes_more_than_a_page(block in prop::collection::vec(any::<u8>(), 1..600), which in 1usize..3) {
        let mut out = [0; 512];
        let codec = packings()[which].codec();
        let mut unpacker = Unpacker::new(codec, &with_dictionary()).expect("it is there");
        let _ = unpacker.unpack(&block, &mut out);
        let mut framed = [0x28, 0xb5, 0x2f, 0xfd].to_vec();
        framed.extend_from_slice(&block);
        framed.truncate(511);
        let _ = unpacker.unpack(&framed, &mut out);
    }
}
