//! The same replica restored by both programs, next to a plain durable copy of the database.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use driftless_tests::dir::tree_bytes;
use driftless_tests::place::Place;

use crate::Program;
use crate::load::scratch;
use crate::process::Measured;

const RUNS: usize = 5;

/// One replica by each program, restored by each, five times; medians.
pub fn main() {
    println!("\n## Restore of the same directory replica\n");
    println!(
        "| replica written by | database MB | replica MB | files | restored by | wall s | user+sys s | peak MB | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for writer in [Program::Driftless, Program::Litestream] {
        let directory = scratch("restore");
        let (db, replica) = (directory.join("app.db"), directory.join("replica"));
        fill(writer, &db, &replica);
        let size = fs::metadata(&db).map_or(0, |meta| meta.len()) as f64 / 1e6;
        let files = count_files(&replica);
        let theirs = measure(Program::Litestream, &replica, &directory, RUNS);
        let ours = measure(Program::Driftless, &replica, &directory, RUNS);
        for (program, it) in [(Program::Litestream, theirs), (Program::Driftless, ours)] {
            println!(
                "| {} | {size:.0} | {:.0} | {files} | {} | {:.3} | {:.2} | {:.0} | {:.1} |",
                writer.name(),
                tree_bytes(&replica) as f64 / 1e6,
                program.name(),
                it.0,
                it.1,
                it.2,
                theirs.0 / it.0,
            );
        }
        copy(&db, &directory);
        let _ = fs::remove_dir_all(&directory);
    }
}

fn fill(writer: Program, db: &Path, replica: &Path) {
    let exe = std::env::current_exe().expect("own path");
    let run = |seconds: &str, rate: &str| {
        let words = ["writer", db.to_str().expect("a path in UTF-8"), seconds, rate, "5"];
        let status =
            Command::new(&exe).args(words).stdout(Stdio::null()).status().expect("the writer starts");
        assert!(status.success(), "the writer writes");
    };
    run("0.1", "0");
    let measured = Measured::start(writer, db, replica);
    thread::sleep(Duration::from_secs(2));
    run("60", "4000");
    thread::sleep(Duration::from_secs(3));
    measured.stop();
    let connection = rusqlite::Connection::open(db).expect("the database opens");
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
}

/// The median of so many restores: wall time, processor time, both in seconds, and the peak in MiB.
pub fn measure(program: Program, replica: &dyn Place, directory: &Path, runs: usize) -> (f64, f64, f64) {
    // Found, and ours built, before the clock runs.
    let binary = program.binary();
    let mut runs: Vec<(f64, f64, f64)> = (0..runs).map(|_| once(&binary, replica, directory)).collect();
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    runs[runs.len() / 2]
}

fn once(binary: &Path, replica: &dyn Place, directory: &Path) -> (f64, f64, f64) {
    let out = directory.join("restored.db");
    let _ = fs::remove_file(&out);
    let _ = fs::remove_file(directory.join("restored.db-txid"));
    // What the filling and the run before have left to write is not part of this one.
    rustix::fs::sync();
    let begun = Instant::now();
    let before = children_cpu();
    let mut command = Command::new(binary);
    command.args(["restore", "-o", out.to_str().expect("a path in UTF-8")]);
    let mut child = replica
        .equip(&mut command)
        .arg(replica.url())
        .stdout(Stdio::null())
        .stderr(fs::File::create(directory.join("restore.log")).expect("a log file is made"))
        .spawn()
        .expect("the restore starts");
    // Asked by another thread and seldom: the restore wants all processors, and ends when it ends.
    let (pid, ended) = (child.id(), AtomicBool::new(false));
    let (status, wall, peak) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0.0_f64;
            while !ended.load(Ordering::Relaxed) {
                peak = peak.max(peak_mb(pid));
                thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        let status = child.wait().expect("the restore runs");
        let wall = begun.elapsed();
        ended.store(true, Ordering::Relaxed);
        (status, wall, watcher.join().expect("it only reads"))
    });
    let said = || fs::read_to_string(directory.join("restore.log")).unwrap_or_default();
    assert!(status.success(), "{} does not restore: {}", binary.display(), said());
    (wall.as_secs_f64(), children_cpu() - before, peak)
}

fn peak_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Processor time of all children that have ended.
fn children_cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    [13, 14].iter().filter_map(|i| fields.get(*i)?.parse::<f64>().ok()).sum::<f64>() / 100.0
}

pub fn copy(db: &Path, directory: &Path) {
    let mut times: Vec<f64> = (0..5)
        .map(|_| {
            let out = directory.join("copy.db");
            let _ = fs::remove_file(&out);
            rustix::fs::sync();
            let begun = Instant::now();
            fs::copy(db, &out).expect("the database is copied");
            fs::File::open(&out).and_then(|file| file.sync_all()).expect("the copy is synced");
            begun.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("| (durable copy of the database file) | | | | cp + fsync | {:.3} | | | |", times[2]);
}

fn count_files(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count_files(&entry.path()),
            _ => 1,
        })
        .sum()
}
