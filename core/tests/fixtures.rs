//! Every segment that Litestream wrote for us decodes, with all checksums.
//!
//! The files come from Litestream 0.5.5 and 0.5.11 (LZ4 frames) and 0.5.17 (LZ4 blocks) and live
//! outside the repository: in `$DRIFTLESS_SHARED/fixtures`, or `../../shared/fixtures` from this
//! crate. Their absence fails these tests rather than skipping them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use driftless_core::ids::PageNo;
use driftless_core::ltx::{
    Decoder, Encoder, Item, LtxHeader, PageIndex, Trailer, decode_frame, parse_file_name,
};

type Pages = BTreeMap<PageNo, Vec<u8>>;

fn fixtures() -> PathBuf {
    let shared = match std::env::var_os("DRIFTLESS_SHARED") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    shared.join("fixtures")
}

/// All segments of the fixtures whose directory name starts with `prefix`.
fn segments(prefix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let sets = std::fs::read_dir(fixtures())
        .unwrap_or_else(|error| panic!("fixtures are missing at {}: {error}", fixtures().display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    let mut directories: Vec<PathBuf> = sets.map(|set| set.join("replica")).collect();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "ltx") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn decode(name: &str, file: &[u8], piece: usize) -> (LtxHeader, Pages, Trailer) {
    let mut decoder = Decoder::new();
    let (mut header, mut pages) = (None, Pages::new());
    for mut piece in file.chunks(piece) {
        loop {
            match decoder.next_item(&mut piece).unwrap_or_else(|error| panic!("{name}: {error}")) {
                Item::Header(found) => header = Some(found),
                Item::Page { page, data } => assert!(pages.insert(page, data.to_vec()).is_none()),
                Item::End(_) | Item::NeedMore => break,
            }
        }
    }
    let trailer = decoder.finish().unwrap();
    (header.unwrap(), pages, trailer)
}

fn check(path: &Path) {
    let name = path.display().to_string();
    let file = std::fs::read(path).unwrap();
    let (header, pages, trailer) = decode(&name, &file, 4096);
    assert_eq!(parse_file_name(path.file_name().unwrap().to_str().unwrap()), Some(header.range), "{name}");
    assert_eq!(trailer.post_apply, 0);
    assert_eq!(header.lineage, None);
    assert_eq!(header.encode(), file[..100]);
    assert_eq!(trailer.encode(), file[file.len() - 16..]);
    if file.len() < 30_000 {
        assert_eq!(decode(&name, &file, 1), (header, pages.clone(), trailer));
    }

    // The index says the same as the frames, and is written back byte for byte.
    let index = PageIndex::decode_tail(&file, file.len() as u64).unwrap();
    let listed: BTreeSet<PageNo> = index.entries.iter().map(|entry| entry.page).collect();
    assert!(listed.iter().eq(pages.keys()));
    let mut encoded = Vec::new();
    index.encode(&mut encoded);
    assert!(file[..file.len() - 16].ends_with(&encoded));
    let mut out = vec![0; header.page_size.bytes()];
    for entry in &index.entries {
        let frame = &file[entry.offset as usize..][..entry.size as usize];
        assert_eq!(decode_frame(frame, header.page_size, &mut out), Ok((entry.page, frame.len())));
        assert_eq!(out, pages[&entry.page]);
    }

    // Written again, the pages are the same. The bytes need not be: another compressor may
    // find other matches, and old files hold LZ4 frames that are written no more.
    let mut again = Vec::new();
    let mut encoder = Encoder::new(&header, &mut again);
    for (page, data) in &pages {
        encoder.page(*page, data, &mut again);
    }
    encoder.finish(0, &mut again);
    let (header_again, pages_again, _) = decode(&name, &again, 65_536);
    assert_eq!((header_again, pages_again), (header, pages));
}

/// A fixture that lost files would test less without a word, so their number is part of it.
fn check_all(prefix: &str, count: usize) {
    let segments = segments(prefix);
    assert_eq!(segments.len(), count, "segments of {prefix}");
    segments.iter().for_each(|path| check(path));
}

#[test]
fn litestream_0_5_5_wrote_lz4_frames() {
    check_all("ltx-0.5.5-", 52);
}

#[test]
fn litestream_0_5_11_wrote_lz4_frames_also_of_small_pages() {
    check_all("ltx-0.5.11-", 32);
}

#[test]
fn litestream_0_5_17_writes_lz4_blocks_also_while_the_database_shrinks() {
    check_all("ltx-0.5.17-", 60);
}
