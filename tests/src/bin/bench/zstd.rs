//! What zstd saves and costs, beside LZ4: pages by themselves, and a daemon beside a writer.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use driftless_core::engine::{Best, TrainJob};
use driftless_core::ids::{PageNo, PageSize, Txid, TxidRange, Wall};
use driftless_core::ltx::{Decoder, Dictionaries, Encoder, Item, LtxHeader, Packing, PageIndex};
use driftless_core::machine::Chunk;
use serde_json::Value;
use stats_alloc::Region;

use driftless_tests::dir::tree_bytes;

use crate::ALLOCATOR;
use crate::load::scratch;
use crate::process::Measured;

const KINDS: [&str; 2] = ["text", "integer"];

/// `zstd [SECONDS]`.
pub fn main(words: &[&str]) {
    let seconds: f64 = words.first().map_or(10.0, |word| word.parse().expect("seconds"));
    println!("\n## Compression: pages of 4 KiB of a database, best of 5\n");
    println!(
        "| pages | with | ratio | encode µs a page | decode µs a page | allocations a page, encode | decode |"
    );
    println!("|---|---|---|---|---|---|---|");
    KINDS.into_iter().for_each(pages_by_themselves);
    println!("\n## Compression: a daemon beside a writer, {seconds} s, transactions of five rows\n");
    println!(
        "| rows | with | rate | tx/s | CPU µs/tx | raw MB of level 0 | replica MB | ratio | RSS MB | peak MB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for kind in KINDS {
        for rate in [0.0, 400.0] {
            for with in ["lz4", "zstd"] {
                beside_a_writer(kind, with, rate, seconds);
            }
        }
    }
}

fn write(db: &Path, seconds: f64, rate: f64, kind: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    let db = db.to_str().expect("a path in UTF-8");
    command.args(["writer", db, &seconds.to_string(), &rate.to_string(), "5", kind]).stdout(Stdio::piped());
    command
}

fn pages_by_themselves(kind: &str) {
    let directory = scratch("zstd-pages");
    let db = directory.join("app.db");
    assert!(write(&db, 2.0, 2_000.0, kind).output().expect("the writer runs").status.success());
    let connection = rusqlite::Connection::open(&db).expect("the database opens");
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    connection.query_row(checkpoint, [], |_| Ok(())).expect("the checkpoint runs");
    let bytes = fs::read(&db).expect("the database is there");
    let pages: Vec<Chunk> = bytes.chunks(4_096).map(|page| Chunk::from(page.to_vec())).collect();
    let sampled = pages.iter().step_by(pages.len().div_ceil(512)).cloned().collect();
    let begun = Instant::now();
    let trained = TrainJob { pages: sampled, level: 3, current: None, permille_max: 970 }.run();
    let training = begun.elapsed().as_millis();
    let zstd = |level, dictionary| Packing::Zstd { level, dictionary };
    row(kind, "lz4", &pages, Packing::Lz4);
    row(kind, "zstd 1", &pages, zstd(1, None));
    row(kind, "zstd 3", &pages, zstd(3, None));
    match trained.best {
        Best::New(dictionary) => {
            let kib = dictionary.bytes().len() / 1024;
            let name = |level| format!("zstd {level}, dictionary of {kib} KiB (made in {training} ms)");
            row(kind, &name(1), &pages, zstd(1, Some(dictionary.clone())));
            row(kind, &name(3), &pages, zstd(3, Some(dictionary)));
        }
        _ => println!("| {kind} | no dictionary pays (found out in {training} ms) | | | | | |"),
    }
    let _ = fs::remove_dir_all(&directory);
}

fn row(kind: &str, name: &str, pages: &[Chunk], packing: Packing) {
    let mut dictionaries = Dictionaries::default();
    let mut beside = 0;
    if let Packing::Zstd { dictionary: Some(dictionary), .. } = &packing {
        beside = dictionary.bytes().len();
        dictionaries.add(dictionary.clone());
    }
    let mut file = Vec::with_capacity(pages.len() * 4_096);
    let (encode, encode_allocations) = best(|| encode(pages, &packing, &mut file));
    let (decode, decode_allocations) = best(|| decode(&file, &dictionaries));
    let count = pages.len() as f64;
    println!(
        "| {kind} | {name} | {:.2} | {:.2} | {:.2} | {:.4} | {:.4} |",
        count * 4_096.0 / (file.len() + beside) as f64,
        encode * 1e6 / count,
        decode * 1e6 / count,
        encode_allocations as f64 / count,
        decode_allocations as f64 / count,
    );
}

fn best(mut work: impl FnMut()) -> (f64, usize) {
    let (mut seconds, mut allocations) = (f64::MAX, usize::MAX);
    for _ in 0..5 {
        let region = Region::new(ALLOCATOR);
        let begun = Instant::now();
        work();
        seconds = seconds.min(begun.elapsed().as_secs_f64());
        let change = region.change();
        allocations = allocations.min(change.allocations + change.reallocations);
    }
    (seconds, allocations)
}

fn encode(pages: &[Chunk], packing: &Packing, file: &mut Vec<u8>) {
    file.clear();
    let size = PageSize::new(4_096).expect("a size");
    let mut header = LtxHeader::new(size, pages.len() as u32, TxidRange::single(Txid::FIRST), Wall(0));
    header.pack(packing);
    let mut encoder = Encoder::packed(&header, packing.clone(), file);
    for (page, no) in pages.iter().zip(1..) {
        encoder.page(PageNo::new(no).expect("pages count from 1"), page, file);
    }
    encoder.finish(0, file);
}

fn decode(file: &[u8], dictionaries: &Dictionaries) {
    let mut decoder = Decoder::new().with_dictionaries(dictionaries);
    for mut piece in file.chunks(64 << 10) {
        while !matches!(decoder.next_item(&mut piece).expect("it decodes"), Item::NeedMore | Item::End(_)) {}
    }
    decoder.finish().expect("it is whole");
}

fn beside_a_writer(kind: &str, with: &str, rate: f64, seconds: f64) {
    let directory = scratch("zstd-load");
    let (db, replica) = (directory.join("app.db"), directory.join("replica"));
    assert!(write(&db, 0.5, 0.0, kind).output().expect("the writer runs").status.success());
    let config = directory.join("driftless.yml");
    let text = format!(
        "compression: {with}\ndbs: [{{path: {}, replica: {{path: {}}}}}]\n",
        db.display(),
        replica.display()
    );
    fs::write(&config, text).expect("our own directory");
    let measured = Measured::configured(&db, &config);
    // The first base, and the dictionary that it teaches.
    std::thread::sleep(Duration::from_secs(3));
    let (cpu, raw, stored) = (measured.cpu(), raw_bytes(&replica), tree_bytes(&replica));
    let report = write(&db, seconds, rate, kind).output().expect("the writer reports").stdout;
    let report: Value = serde_json::from_slice(&report).expect("the writer reports in JSON");
    std::thread::sleep(Duration::from_secs(3));
    let tx = report["tx"].as_f64().expect("a count");
    let (raw, stored) = (raw_bytes(&replica) - raw, tree_bytes(&replica) - stored);
    println!(
        "| {kind} | {with} | {} | {:.0} | {:.1} | {:.1} | {:.2} | {:.2} | {:.1} | {:.1} |",
        if rate == 0.0 { "full speed".to_string() } else { format!("{rate:.0} tx/s") },
        report["per_second"].as_f64().unwrap_or(0.0),
        (measured.cpu() - cpu).as_secs_f64() * 1e6 / tx,
        raw as f64 / 1e6,
        stored as f64 / 1e6,
        raw as f64 / stored as f64,
        measured.rss_mb(),
        measured.peak_mb(),
    );
    measured.stop();
    let _ = fs::remove_dir_all(&directory);
}

/// The pages in all segments of level 0, as they were.
fn raw_bytes(replica: &Path) -> u64 {
    let files = fs::read_dir(replica.join("ltx/0")).expect("a level");
    let pages = files.map(|entry| {
        let bytes = fs::read(entry.expect("readable").path()).expect("readable");
        PageIndex::decode_tail(&bytes, bytes.len() as u64).expect("an index").entries.len() as u64
    });
    pages.sum::<u64>() * 4_096
}
