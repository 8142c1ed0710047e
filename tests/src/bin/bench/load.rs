//! A writer at full speed and at a steady rate; an idle database.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use driftless_tests::dir::tree_bytes;

use crate::Program;
use crate::process::Measured;

/// A fresh directory for one run.
pub fn scratch(name: &str) -> PathBuf {
    let root = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = root.join(format!("driftless-bench-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a scratch directory is made");
    directory
}

/// `load [SECONDS]`.
pub fn main(words: &[&str]) {
    let seconds: f64 = words.first().map_or(15.0, |word| word.parse().expect("seconds"));
    println!("\n## Load: {seconds} s, transactions of five rows, synchronous=NORMAL\n");
    println!(
        "| writer | beside | tx/s | CPU µs/tx | slowest commit ms | p99.99 ms | WAL MB max | WAL MB end | written MB | replica MB | RSS MB | peak MB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for rate in [0.0, 4_000.0, 400.0] {
        row(rate, None, seconds);
        row(rate, Some(Program::Driftless), seconds);
        row(rate, Some(Program::Litestream), seconds);
    }
}

fn row(rate: f64, program: Option<Program>, seconds: f64) {
    let directory = scratch("load");
    let (db, replica) = (directory.join("app.db"), directory.join("replica"));
    warm_up(&db);
    let measured = program.map(|program| Measured::start(program, &db, &replica));
    std::thread::sleep(Duration::from_secs(2));
    let before = measured.as_ref().map_or(Duration::ZERO, Measured::cpu);
    let mut writer = Command::new(std::env::current_exe().expect("own path"))
        .args(["writer", db.to_str().expect("a path in UTF-8"), &seconds.to_string(), &rate.to_string(), "5"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the writer starts");
    let mut wal_max = 0;
    while writer.try_wait().expect("the writer runs").is_none() {
        wal_max = wal_max.max(wal_bytes(&db));
        std::thread::sleep(Duration::from_millis(20));
    }
    let report = writer.wait_with_output().expect("the writer reports").stdout;
    let report: Value = serde_json::from_slice(&report).expect("the writer reports in JSON");
    std::thread::sleep(Duration::from_secs(3));
    let tx = report["tx"].as_f64().expect("a count");
    let (cpu, written, rss, peak) = measured.as_ref().map_or((0.0, 0, 0.0, 0.0), |it| {
        ((it.cpu() - before).as_secs_f64() * 1e6 / tx, it.bytes_written(), it.rss_mb(), it.peak_mb())
    });
    println!(
        "| {} | {} | {:.0} | {cpu:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {rss:.1} | {peak:.1} |",
        if rate == 0.0 { "full speed".to_string() } else { format!("{rate:.0} tx/s") },
        program.map_or("nothing", Program::name),
        report["per_second"].as_f64().unwrap_or(0.0),
        report["max_ms"].as_f64().unwrap_or(0.0),
        report["p9999_ms"].as_f64().unwrap_or(0.0),
        wal_max as f64 / 1e6,
        wal_bytes(&db) as f64 / 1e6,
        written as f64 / 1e6,
        tree_bytes(&replica) as f64 / 1e6,
    );
    if let Some(measured) = measured {
        measured.stop();
    }
    let _ = fs::remove_dir_all(&directory);
}

fn warm_up(db: &Path) {
    let done = Command::new(std::env::current_exe().expect("own path"))
        .args(["writer", db.to_str().expect("a path in UTF-8"), "0.2", "0", "5"])
        .stdout(Stdio::null())
        .status()
        .expect("the writer starts");
    assert!(done.success(), "the writer makes the database");
}

fn wal_bytes(db: &Path) -> u64 {
    let mut name = db.as_os_str().to_os_string();
    name.push("-wal");
    fs::metadata(PathBuf::from(name)).map_or(0, |meta| meta.len())
}

/// One database that nobody writes to: 30 s to settle, then 30 s of counting.
pub fn idle() {
    println!("\n## Idle: one database, counted for 30 s, 30 s after its last write\n");
    println!("| program | RSS MB | threads | descriptors | context switches in 30 s | CPU ms in 30 s |");
    println!("|---|---|---|---|---|---|");
    for program in [Program::Driftless, Program::Litestream] {
        let directory = scratch("idle");
        let (db, replica) = (directory.join("app.db"), directory.join("replica"));
        warm_up(&db);
        let measured = Measured::start(program, &db, &replica);
        let settled = Instant::now() + Duration::from_secs(30);
        std::thread::sleep(settled.saturating_duration_since(Instant::now()));
        let (threads, fds, before) = measured.counts();
        let cpu = measured.cpu();
        std::thread::sleep(Duration::from_secs(30));
        let (_, _, after) = measured.counts();
        println!(
            "| {} | {:.1} | {threads} | {fds} | {} | {} |",
            program.name(),
            measured.rss_mb(),
            after - before,
            (measured.cpu() - cpu).as_millis()
        );
        measured.stop();
        let _ = fs::remove_dir_all(&directory);
    }
}
