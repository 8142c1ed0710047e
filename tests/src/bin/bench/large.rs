//! Restores of large databases with many increments, from a directory and from S3 at a distance.
//!
//! One replica, written by Driftless: a base and an increment a transaction, each of which changes a
//! hundred rows anywhere. The same files are then put into a bucket of rclone's, which serves ranges of
//! a file at the speed of a file, behind a proxy that holds each request up.

use std::fs;
use std::path::Path;
use std::time::Duration;

use driftless_tests::PATIENCE;
use driftless_tests::place::{Place, Remote};
use driftless_tests::proxy::{Fault, Proxy, Rule};
use driftless_tests::servers::Rclone;
use driftless_tests::{random, wait_for};
use rusqlite::Connection;

use crate::Program;
use crate::load::scratch;
use crate::process::Measured;
use crate::restore::{copy, measure};
use crate::writer::sentence;

/// Megabytes of the database, and increments.
const SIZES: [(u64, u32); 2] = [(300, 150), (2_000, 1_000)];
/// What a request to the distant server takes longer.
const LATENCY: Duration = Duration::from_millis(30);
const RUNS: usize = 3;
/// Rows that a transaction changes.
const CHANGED: u32 = 100;
/// Sentences in a row, of some 210 bytes each.
const SENTENCES: usize = 15;
const ROW_BYTES: u64 = 3_400;

/// `restore-large [MB INCREMENTS]`.
pub fn main(words: &[&str]) {
    let number = |word: &&str| word.parse().expect("a number");
    let sizes = match words {
        [mb, increments] => vec![(number(mb), number(increments) as u32)],
        _ => SIZES.to_vec(),
    };
    println!("\n## Restore of a large database with many increments, medians of {RUNS}\n");
    println!(
        "| from | database MB | replica MB | increments | restored by | wall s | user+sys s | peak MB | requests | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (mb, increments) in sizes {
        let directory = scratch("large");
        let (db, replica) = (directory.join("app.db"), directory.join("replica"));
        fill(&db, &replica, mb, increments);
        let row = Row { db: &db, replica: &replica, increments, directory: &directory };
        row.print("a directory", &replica, None);
        copy(&db, &directory);
        let rclone = Rclone::start();
        let bucket = rclone.bucket("large");
        upload(&replica, &Remote::s3(&bucket, bucket.server()));
        let proxy = Proxy::start(bucket.server());
        proxy.add(Rule::new(Fault::DelayRequest(LATENCY)));
        let from = format!("S3, {} ms away", LATENCY.as_millis());
        row.print(&from, &Remote::s3(&bucket, proxy.address()), Some(&proxy));
        let _ = fs::remove_dir_all(&directory);
    }
}

/// What the rows of one replica share.
struct Row<'a> {
    db: &'a Path,
    replica: &'a Path,
    increments: u32,
    directory: &'a Path,
}

impl Row<'_> {
    fn print(&self, from: &str, place: &dyn Place, proxy: Option<&Proxy>) {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let size = mb(fs::metadata(self.db).map_or(0, |meta| meta.len()));
        let measured = |program| {
            let mark = proxy.map(Proxy::mark);
            let it = measure(program, place, self.directory, RUNS);
            let asked = proxy.zip(mark).map(|(proxy, mark)| proxy.since(mark).len() / RUNS);
            (program, it, asked.map_or_else(String::new, |asked| asked.to_string()))
        };
        let all = [measured(Program::Litestream), measured(Program::Driftless)];
        let theirs = all[0].1;
        for (program, it, asked) in all {
            println!(
                "| {from} | {size:.0} | {:.0} | {} | {} | {:.3} | {:.2} | {:.0} | {asked} | {:.1} |",
                mb(driftless_tests::dir::tree_bytes(self.replica)),
                self.increments,
                program.name(),
                it.0,
                it.1,
                it.2,
                theirs.0 / it.0,
            );
        }
    }
}

fn fill(db: &Path, replica: &Path, mb: u64, increments: u32) {
    let app = Connection::open(db).expect("the database opens");
    let mut seed = 12_345_u32;
    let mut text = || (0..SENTENCES).map(|_| sentence(&mut seed)).collect::<String>();
    app.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; BEGIN;
         CREATE TABLE doc(id INTEGER PRIMARY KEY, body TEXT)",
    )
    .expect("the schema is made");
    let rows = mb * 1_000_000 / ROW_BYTES;
    let mut insert = app.prepare("INSERT INTO doc(body) VALUES (?)").expect("the statement is right");
    for _ in 0..rows {
        insert.execute([text()]).expect("a row is inserted");
    }
    drop(insert);
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    app.execute_batch("COMMIT").expect("it commits");
    app.query_row(checkpoint, [], |_| Ok(())).expect("the checkpoint runs");
    let config = db.with_extension("yml");
    let (path, to) = (db.display(), replica.display());
    let lines =
        format!("dbs:\n  - path: {path}\n    replica:\n      path: {to}\n      sync-interval: 10ms\n");
    fs::write(&config, lines).expect("a configuration is written");
    let measured = Measured::configured(db, &config);
    wait_for("the base", PATIENCE * 4, || !replica.ltx_files(0).is_empty());
    let mut chance = 7;
    for increment in 0..increments {
        app.execute_batch("BEGIN IMMEDIATE").expect("the write lock is had");
        let mut update = app.prepare("UPDATE doc SET body = ? WHERE id = ?").expect("it is right");
        for _ in 0..CHANGED {
            let id = 1 + (random(&mut chance) >> 11) % rows;
            update.execute((text(), id as i64)).expect("a row is changed");
        }
        drop(update);
        app.execute_batch("COMMIT").expect("it commits");
        let sent = increment as usize + 2;
        wait_for("an increment", PATIENCE, || replica.ltx_files(0).len() >= sent);
    }
    measured.stop();
    app.query_row(checkpoint, [], |_| Ok(())).expect("the checkpoint runs");
}

/// Puts all files of a directory into a bucket, under the names that they have there.
fn upload(replica: &Path, to: &Remote) {
    for (min, max) in replica.ltx_files(0) {
        let path = replica.join(format!("ltx/0/{min:016x}-{max:016x}.ltx"));
        to.objects().put(&to.key(0, min, max), &fs::read(path).expect("it was listed"));
    }
}
