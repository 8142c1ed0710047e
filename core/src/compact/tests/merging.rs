//! The merge by itself: any history, cut into files anywhere, in pieces of any size.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use proptest::prelude::*;

use super::{decode, laid};
use crate::compact::merge::{Merge, MergeJob, MergeNext, MergeOutput};
use crate::ids::{DbChecksum, Lineage, PENDING_BYTE, Txid, TxidRange};
use crate::ltx::zstd::tests::{dictionary, packings, repack};
use crate::ltx::{Codec, Dictionaries, LTX_HEADER_BYTES, LtxHeader, Packing};
use crate::machine::{Chunk, Listed, Object, PART_BYTES_MAX};
use crate::restore::tests::history::{History, object};

type Store = BTreeMap<Object, Vec<u8>>;

fn range(min: u64, max: u64) -> TxidRange {
    TxidRange::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap()
}

/// Merges files in pieces of these sizes: the result, or which input is to blame for what.
fn merge(
    store: &Store,
    inputs: &[Object],
    range: TxidRange,
    pieces: &[usize],
) -> Result<Vec<u8>, (Option<usize>, String)> {
    merge_with(store, inputs, range, pieces, Dictionaries::default())
}

/// The same with these dictionaries at hand.
fn merge_with(
    store: &Store,
    inputs: &[Object],
    range: TxidRange,
    pieces: &[usize],
    dictionaries: Dictionaries,
) -> Result<Vec<u8>, (Option<usize>, String)> {
    let listed = |it: &Object| Listed { object: *it, len: store[it].len() as u64, modified: None };
    let listed: Vec<Listed> = inputs.iter().map(listed).collect();
    let mut merge = Box::new(Merge::new(&listed, range, PENDING_BYTE, dictionaries));
    let (mut given, mut sizes, mut result) = (std::vec![0; inputs.len()], pieces.iter().cycle(), Vec::new());
    let mut pieces = Vec::new();
    loop {
        let MergeOutput { merge: back, bytes, next } = MergeJob { merge, pieces }.run();
        assert!(bytes.len() <= 2 * PART_BYTES_MAX, "{} bytes came out at once", bytes.len());
        (merge, pieces) = (back, Vec::new());
        result.extend_from_slice(&bytes);
        match next {
            MergeNext::More => {}
            MergeNext::End { pages, trailer } => {
                assert!(result.ends_with(&trailer.encode()));
                if LtxHeader::decode(result.first_chunk().unwrap()).unwrap().codec == Codec::Lz4 {
                    assert_eq!(decode(&result).1.len() as u32, pages);
                }
                return Ok(result);
            }
            MergeNext::Failed { input, text } => return Err((input, text)),
            MergeNext::Dictionary(id) => return Err((None, std::format!("{id}"))),
            MergeNext::Bytes(wanted) => {
                for at in wanted {
                    let body = &store[&inputs[at]];
                    let end = (given[at] + sizes.next().unwrap()).min(body.len());
                    assert!(end > given[at], "nothing is wanted of a file that has been given whole");
                    pieces.push((at, Chunk::from(body[given[at]..end].to_vec())));
                    given[at] = end;
                }
            }
        }
    }
}

/// A history of commits: how long the database is afterwards, and which pages change.
fn history(commits: &[(u32, Vec<u32>)], chained: bool) -> History {
    let mut history = History::new(512, chained);
    for (size, pages) in commits {
        history.commit(*size, pages);
    }
    history
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_merge_is_its_files_laid_over_each_other(
        commits in prop::collection::vec((1u32..24, prop::collection::vec(1u32..24, 0..6)), 1..12),
        cut in 0usize..12,
        chained: bool,
        pieces in prop::collection::vec(1usize..4_000, 1..5),
    ) {
        let mut history = history(&commits, chained);
        let last = history.last;
        let cut = 1 + cut as u64 % last;
        let files: Vec<Object> = (1..=last).map(|txid| object(0, txid, txid)).collect();
        let (head, tail) = files.split_at(cut as usize);
        let mut check = |inputs: &[Object], min: u64, max: u64| {
            let made = merge(&history.store, inputs, range(min, max), &pieces).unwrap();
            let (header, pages) = decode(&made);
            assert!(pages == laid(&history, range(min, max)));
            let end = decode(&history.store[&object(0, max, max)]).0;
            assert_eq!((header.chain.post, header.lineage), (end.chain.post, end.lineage));
            let begin = decode(&history.store[&object(0, min, min)]).0;
            assert_eq!(header.chain.pre, begin.chain.pre);
            assert_eq!(merge(&history.store, inputs, range(min, max), &[7_000]).unwrap(), made, "once more");
            history.store.insert(object(1, min, max), made);
        };
        check(head, 1, cut);
        if !tail.is_empty() {
            check(tail, cut + 1, last);
            let at_once = merge(&history.store, &files, range(1, last), &pieces).unwrap();
            let two = [object(1, 1, cut), object(1, cut + 1, last)];
            let in_turns = merge(&history.store, &two, range(1, last), &pieces).unwrap();
            prop_assert!(at_once == in_turns, "in turns it is the same file");
            let page_bytes = 512;
            let state: Vec<u8> = decode(&at_once).1.into_values().flatten().collect();
            prop_assert_eq!(state.len() % page_bytes, 0);
            prop_assert!(Some(&state) == history.states.get(&last));
        }
    }

    #[test]
    fn a_damaged_file_never_comes_to_its_end(at in 0usize..10_000, bit in 0u32..8, which in 0usize..3) {
        let mut history = history(&[(9, std::vec![]), (9, std::vec![2, 5]), (12, std::vec![5])], false);
        let files = [1, 2, 3].map(|txid| object(0, txid, txid));
        let body = history.store.get_mut(&files[which]).unwrap();
        let at = at % body.len();
        body[at] ^= 1 << bit;
        // Some blocks hold the same page with another bit in them.
        if let Ok(made) = merge(&history.store, &files, range(1, 3), &[900]) {
            let state: Vec<u8> = decode(&made).1.into_values().flatten().collect();
            prop_assert!(Some(&state) == history.states.get(&3));
        }
    }
}

#[test]
fn files_that_do_not_fit_are_named() {
    let commits = [(9, std::vec![]), (9, std::vec![2, 5]), (4, std::vec![1]), (12, std::vec![5])];
    let sound = history(&commits, true);
    let files = [1, 2, 3, 4].map(|txid| object(0, txid, txid));
    let check = |store: &Store, inputs: &[Object], blamed: Option<usize>, says: &str| {
        let max = inputs.iter().map(|it| it.range.max()).max().unwrap();
        let range = TxidRange::new(inputs[0].range.min(), max).unwrap();
        let (input, text) = merge(store, inputs, range, &[3_000]).unwrap_err();
        assert_eq!(input, blamed, "{text}");
        assert!(text.contains(says), "{text}");
    };
    let mut store = sound.store.clone();
    store.insert(files[2], sound.store[&files[1]].clone());
    check(&store, &files, Some(2), "transactions at byte 16");
    let mut store = sound.store.clone();
    store.get_mut(&files[1]).unwrap().pop();
    check(&store, &files, Some(1), "trailer");
    let mut store = sound.store.clone();
    store.get_mut(&files[3]).unwrap().push(0);
    check(&store, &files, Some(3), "behind the trailer");
    check(&sound.store, &[files[0], files[1], files[3]], Some(2), "where 0000000000000003 comes next");
    check(&sound.store, &[files[1], files[0]], Some(1), "where 0000000000000003 comes next");
    let mut store = sound.store.clone();
    store.insert(files[2], sound.encode(3, 3, &[1], Some(DbChecksum::from_xor(7)), None));
    check(&store, &files, Some(2), "pre-state at byte 80");
    // The last file lacks pages by which the database has grown.
    let mut short = history(&commits, false);
    let file = short.encode(4, 4, &[5, 6], None, None);
    short.store.insert(files[3], file);
    check(&short.store, &files[2..], None, "grown by page 7");
    check(&short.store, &files, None, "page 7 was cut off by a later file");
    // Another page size in a file that is not whole.
    let mut other = history(&commits, false);
    other.change_page_size(1_024, 6);
    let whole = other.store[&object(0, 5, 5)].clone();
    let part = other.encode(5, 5, &[1, 2], None, None);
    other.store.insert(object(0, 5, 5), part);
    check(&other.store, &[files[3], object(0, 5, 5)], Some(1), "another page size");
    other.store.insert(object(0, 5, 5), whole);
    let both = [files[3], object(0, 5, 5)];
    // It adds no page, and its header says where the result begins.
    let mut store = other.store.clone();
    store.get_mut(&files[3]).unwrap()[80] ^= 1;
    check(&store, &both, Some(0), "file checksum");
    let made = merge(&other.store, &both, range(4, 5), &[999]).unwrap();
    assert_eq!((decode(&made).0.page_size.get(), decode(&made).1.len()), (1_024, 6));
}

#[test]
fn a_page_is_copied_as_it_is_compressed() {
    let mut history = history(&[(3, std::vec![]), (3, std::vec![2])], true);
    let files = [1, 2].map(|txid| object(0, txid, txid));
    let made = merge(&history.store, &files, range(1, 2), &[100_000]).unwrap();
    let first = history.store[&files[0]].clone();
    let frame = 10 + u32::from_be_bytes(first[106..110].try_into().unwrap()) as usize;
    assert_eq!(made[LTX_HEADER_BYTES..][..frame], first[LTX_HEADER_BYTES..][..frame]);
    // A literal run in the place of a match is another block of the same page.
    let block = lz4_flex::block::compress(&history.pages[1]);
    assert!(block.len() < 512);
    let longer = with_stored_block(&history);
    history.store.insert(files[1], longer);
    let made = merge(&history.store, &files, range(1, 2), &[100_000]).unwrap();
    assert!(made.len() > first.len(), "its block is the longer one");
    assert_eq!(decode(&made).1[&2], history.pages[1]);
}

/// The second transaction's file with its page in a block that was not compressed.
fn with_stored_block(history: &History) -> Vec<u8> {
    let header = decode(&history.store[&object(0, 2, 2)]).0;
    let page = &history.pages[1];
    let (mut block, mut left) = (std::vec![0xf0], page.len() - 15);
    while left >= 255 {
        block.push(255);
        left -= 255;
    }
    block.push(left as u8);
    block.extend_from_slice(page);
    let mut file = Vec::new();
    let mut encoder = crate::ltx::Encoder::new(&header, &mut file);
    encoder.page_from_block(crate::ids::PageNo::new(2).unwrap(), page, &block, &mut file);
    encoder.finish(0, &mut file);
    file
}

#[test]
fn a_result_says_of_states_what_its_files_prove() {
    let mut history = history(&[(6, std::vec![]), (6, std::vec![2]), (7, std::vec![3])], true);
    let files = [1, 2, 3].map(|txid| object(0, txid, txid));
    let set = |history: &mut History, txid: u64, at: usize, value: u64| {
        let mut file = history.store[&object(0, txid, txid)].clone();
        file[at..at + 8].copy_from_slice(&value.to_be_bytes());
        let mut bytes = [0; LTX_HEADER_BYTES];
        bytes.copy_from_slice(&file[..LTX_HEADER_BYTES]);
        let header = LtxHeader::decode(&bytes).unwrap();
        let pages = decode(&history.store[&object(0, txid, txid)]).1;
        let mut file = Vec::new();
        let mut encoder = crate::ltx::Encoder::new(&header, &mut file);
        for (page, data) in pages {
            encoder.page(crate::ids::PageNo::new(page).unwrap(), &data, &mut file);
        }
        encoder.finish(0, &mut file);
        history.store.insert(object(0, txid, txid), file);
    };
    let told = |history: &History, min: usize, max: usize| {
        let made = merge(&history.store, &files[min - 1..max], range(min as u64, max as u64), &[800]);
        let header = decode(&made.unwrap()).0;
        (header.lineage.map(Lineage::get), header.chain.pre, header.chain.post)
    };
    let post = |history: &History, txid: u64| decode(&history.store[&object(0, txid, txid)]).0.chain.post;
    let (one, three) = (post(&history, 1), post(&history, 3));
    assert_eq!(told(&history, 2, 3), (Some(7), one, three));
    assert_eq!(told(&history, 1, 3), (Some(7), None, three));
    // The second belongs to another history: only a file with every page proves its state.
    set(&mut history, 2, 72, 9);
    assert_eq!(told(&history, 2, 3), (None, None, None));
    assert_eq!(told(&history, 1, 3), (Some(7), None, three));
    // The last says nothing.
    set(&mut history, 2, 72, 7);
    set(&mut history, 3, 88, 0);
    assert_eq!((told(&history, 2, 3), told(&history, 1, 3)), ((None, None, None), (None, None, None)));
    // The last says what its pages do not make.
    set(&mut history, 3, 88, DbChecksum::from_xor(5).get());
    let (input, text) = merge(&history.store, &files, range(1, 3), &[800]).unwrap_err();
    assert!(input.is_none() && text.contains("the pages lead to state"), "{text}");
}

/// Files that are compressed in any ways: the pages are those of files that are all compressed alike, the
/// way is that of the newest, and what comes out does not depend on how it was read.
#[test]
fn files_compressed_in_any_ways_become_one_compressed_as_the_newest() {
    let history = history(&[(9, std::vec![]), (9, std::vec![2, 5]), (12, std::vec![5])], true);
    let files = [1, 2, 3].map(|txid| object(0, txid, txid));
    let plain = merge(&history.store, &files, range(1, 3), &[900]).unwrap();
    let mut dictionaries = Dictionaries::default();
    dictionaries.add(dictionary());
    let ways = packings();
    for which in 0..27 {
        let of = |at: usize| &ways[which / 3usize.pow(at as u32) % 3];
        let mut store = Store::new();
        for (at, file) in files.iter().enumerate() {
            store.insert(*file, repack(&history.store[file], of(at)));
        }
        let merged = |pieces: &[usize]| merge_with(&store, &files, range(1, 3), pieces, dictionaries.clone());
        let made = merged(&[900]).unwrap();
        assert_eq!(merged(&[7_000]).as_ref(), Ok(&made), "once more");
        let header = LtxHeader::decode(made.first_chunk().unwrap()).unwrap();
        assert_eq!(header.codec, of(2).codec());
        assert!(repack(&made, &Packing::Lz4) == plain, "the same pages under the same header");
        let needs = (0..3).any(|at| of(at).codec() == ways[2].codec());
        let without = merge(&store, &files, range(1, 3), &[900]);
        assert_eq!(without.is_err(), needs, "a dictionary that is missing is asked for");
    }
}
