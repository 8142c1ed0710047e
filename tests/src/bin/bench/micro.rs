//! Micro-benchmarks of the formats, with allocations counted.

use std::time::Instant;

use driftless_core::checksum::page_checksum;
use driftless_core::compact::{Merge, MergeJob, MergeNext};
use driftless_core::ids::{Level, PENDING_BYTE, PageNo, PageSize, Txid, TxidRange, Wall};
use driftless_core::ltx::{Decoder, Dictionaries, Encoder, Item, LtxHeader, PageIndex};
use driftless_core::machine::{Chunk, Listed, Object};
use driftless_core::restore::{Claims, RestoreJob, RestoreOutput, Room, Run};
use driftless_core::wal::{FrameHeader, Salts, Scanner, WalHeader};
use stats_alloc::Region;

use crate::ALLOCATOR;

const PAGES: u32 = 4_096;

/// Prints the table.
pub fn main() {
    let size = PageSize::new(4_096).expect("a size");
    let pages: Vec<Vec<u8>> = (1..=PAGES).map(text_page).collect();
    let wal = wal_of(&pages, size);
    let mut file = Vec::with_capacity(32 << 20);
    println!("\n## Micro: {PAGES} different text pages of 4 KiB, best of 9\n");
    println!("| work | µs a page | MB/s | allocations a page |");
    println!("|---|---|---|---|");
    report("WAL scan (salts, checksums)", || scan(&wal, size));
    report("page checksum (CRC-64)", || {
        pages.iter().zip(1..).map(|(page, no)| page_checksum(number(no), page)).fold(0, |a, b| a ^ b)
    });
    report("LTX encode (LZ4, checksums, index)", || encode(&pages, size, &mut file));
    report("LTX decode, pieces of 64 KiB", || decode(&file));
    report("page iteration (index of the tail)", || {
        let index = PageIndex::decode_tail(&file, file.len() as u64).expect("the index decodes");
        index.entries.iter().map(|entry| entry.offset).sum()
    });
    report("ranged restore (claim, then runs of up to 4 MiB)", || ranged(&file));
    let files = halves(&pages, size);
    report("compaction: a whole file and 8 that change half of it", || merge(&files));
}

fn number(no: u32) -> PageNo {
    PageNo::new(no).expect("pages count from 1")
}

fn text_page(no: u32) -> Vec<u8> {
    let mut page = Vec::with_capacity(4_200);
    let mut seed = no.wrapping_mul(2_654_435_761);
    while page.len() < 4_096 {
        seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        page.extend_from_slice(
            format!("event {seed:08x} user {} opened page {}; ", seed % 5_000, seed >> 20).as_bytes(),
        );
    }
    page.truncate(4_096);
    page
}

fn wal_of(pages: &[Vec<u8>], size: PageSize) -> Vec<u8> {
    let salts = Salts { one: 1, two: 2 };
    let header = WalHeader::new(size, 0, salts, false);
    let mut bytes = header.encode().to_vec();
    let mut sum = header.checksum;
    for (page, no) in pages.iter().zip(1..) {
        let frame = FrameHeader::new(sum, false, salts, number(no), no, page);
        sum = frame.checksum;
        bytes.extend_from_slice(&frame.encode());
        bytes.extend_from_slice(page);
    }
    bytes
}

fn scan(wal: &[u8], size: PageSize) -> u64 {
    let header = WalHeader::decode(wal).expect("the header decodes");
    let mut scanner = Scanner::from_header(&header);
    let mut seen = 0_u64;
    scanner
        .scan(&wal[32..], PAGES, &mut |_, frame, _| seen += u64::from(frame.page.get()))
        .expect("the frames are in order");
    seen + u64::from(size.get())
}

fn encode(pages: &[Vec<u8>], size: PageSize, file: &mut Vec<u8>) -> u64 {
    file.clear();
    let header = LtxHeader::new(size, PAGES, TxidRange::single(Txid::FIRST), Wall(0));
    let mut encoder = Encoder::new(&header, file);
    for (page, no) in pages.iter().zip(1..) {
        encoder.page(number(no), page, file);
    }
    encoder.finish(0, file);
    file.len() as u64
}

fn decode(file: &[u8]) -> u64 {
    let mut decoder = Decoder::new();
    let mut seen = 0;
    for mut piece in file.chunks(64 << 10) {
        loop {
            match decoder.next_item(&mut piece).expect("the file decodes") {
                Item::Page { page, .. } => seen += u64::from(page.get()),
                Item::Header(_) => {}
                Item::NeedMore | Item::End(_) => break,
            }
        }
    }
    seen
}

fn report(name: &str, mut work: impl FnMut() -> u64) {
    let mut best = f64::MAX;
    let mut allocations = usize::MAX;
    for _ in 0..9 {
        let region = Region::new(ALLOCATOR);
        let begun = Instant::now();
        std::hint::black_box(work());
        best = best.min(begun.elapsed().as_secs_f64());
        let change = region.change();
        allocations = allocations.min(change.allocations + change.reallocations);
    }
    println!(
        "| {name} | {:.3} | {:.0} | {:.4} |",
        best * 1e6 / f64::from(PAGES),
        f64::from(PAGES) * 4_096.0 / best / 1e6,
        allocations as f64 / f64::from(PAGES)
    );
}

/// Takes every page of a file by its index, in runs, as a restore does that need not read it whole.
fn ranged(file: &[u8]) -> u64 {
    let bytes = Chunk::from(file.to_vec());
    let header = LtxHeader::decode(file.first_chunk().expect("a header")).expect("the header decodes");
    let claims = Claims::new(header.page_size, header.commit, PENDING_BYTE);
    let claim = RestoreJob::Claim { claims, header, tail: bytes.clone(), file_bytes: bytes.len() as u64 };
    let RestoreOutput::Claim { result, .. } = claim.run() else { unreachable!("that is its output") };
    let claimed = result.expect("the index decodes");
    let mut room = Room::default();
    let mut pages = |run: Run| {
        let (page_size, codec, dictionaries) = (header.page_size, header.codec, Dictionaries::default());
        let wins = claimed.wins.clone();
        let bytes = bytes.slice(run.offset as usize, (run.offset + run.len) as usize);
        let room_of_this = std::mem::take(&mut room);
        let job = RestoreJob::Pages { page_size, wins, run, bytes, codec, dictionaries, room: room_of_this };
        let RestoreOutput::Pages(decoded) = job.run() else { unreachable!("that is its output") };
        let decoded = decoded.expect("the frames decode");
        room = decoded.writes.into_iter().next().map(|(_, bytes)| Room::of(bytes)).unwrap_or_default();
        u64::from(decoded.pages)
    };
    claimed.runs.iter().copied().map(&mut pages).sum()
}

/// A file of all pages, and eight that hold each second page of an eighth anew.
fn halves(pages: &[Vec<u8>], size: PageSize) -> Vec<(Listed, Chunk)> {
    let first = {
        let mut file = Vec::new();
        encode(pages, size, &mut file);
        file
    };
    let part = pages.len() / 8;
    let changed = (0..8).map(|at| {
        let txid = Txid::new(at as u64 + 2).expect("transactions count from 1");
        let mut file = Vec::new();
        let header = LtxHeader::new(size, PAGES, TxidRange::single(txid), Wall(0));
        let mut encoder = Encoder::new(&header, &mut file);
        for no in (at * part..(at + 1) * part).step_by(2) {
            encoder.page(number(no as u32 + 1), &pages[pages.len() - 1 - no], &mut file);
        }
        encoder.finish(0, &mut file);
        file
    });
    let listed = |(file, txid): (Vec<u8>, u64)| {
        let range = TxidRange::single(Txid::new(txid).expect("transactions count from 1"));
        let object = Object { level: Level::new(0).expect("a level"), range };
        (Listed { object, len: file.len() as u64, modified: None }, Chunk::from(file))
    };
    std::iter::once(first).chain(changed).zip(1..).map(listed).collect()
}

/// Merges files that lie in memory; the pages of the result.
fn merge(files: &[(Listed, Chunk)]) -> u64 {
    let inputs: Vec<Listed> = files.iter().map(|(listed, _)| *listed).collect();
    let last = inputs.last().expect("a file").object.range.max();
    let range = TxidRange::new(Txid::FIRST, last).expect("ascending");
    let mut merge = Box::new(Merge::new(&inputs, range, PENDING_BYTE, Dictionaries::default()));
    let mut pieces = Vec::new();
    loop {
        let done = MergeJob { merge, pieces }.run();
        merge = done.merge;
        pieces = match done.next {
            MergeNext::Bytes(lacking) => {
                lacking.into_iter().map(|input| (input, files[input].1.clone())).collect()
            }
            MergeNext::More => Vec::new(),
            MergeNext::End { pages, .. } => return u64::from(pages),
            other => unreachable!("the files fit together: {other:?}"),
        };
    }
}
