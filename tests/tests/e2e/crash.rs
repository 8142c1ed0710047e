//! SIGKILL at any moment loses nothing that was reported.
//!
//! A writer at full speed; the replicator is killed fifty times, whatever it is doing, and started
//! again. When a line reports a transaction as replicated, the replica's objects are hard-linked
//! aside before anything else can happen; later each such snapshot must restore that very
//! transaction to a committed state, and the final restore must be the source byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use driftless_tests::app::App;
use driftless_tests::sidecar::{OnReplicated, Setup, Sidecar, assert_equal_to_source, restore_checked};
use driftless_tests::store_faults::FsyncFaults;
use driftless_tests::{PATIENCE, TempDir, random, wait_for};
use serde_json::json;

/// Kills in all.
const KILLS: usize = 50;
/// Of those at least this many while an object was being written.
const KILLS_IN_PUT: usize = 15;
/// Transactions whose payload the writer keeps, so that the database stays small.
const KEEP: u64 = 400;

/// The snapshots taken so far: transaction to directory.
type Snapshots = Arc<Mutex<BTreeMap<u64, PathBuf>>>;

/// Hard-links every object of the replica into a directory of its own.
fn link_objects(replica: &Path, to: &Path) {
    let levels = fs::read_dir(replica.join("ltx")).expect("something was replicated");
    for level in levels.map(|entry| entry.expect("readable")) {
        let directory = to.join("ltx").join(level.file_name());
        fs::create_dir_all(&directory).expect("the scratch directory can be written");
        for object in fs::read_dir(level.path()).expect("a level is a directory") {
            let name = object.expect("readable").file_name();
            if name.to_string_lossy().ends_with(".ltx") {
                fs::hard_link(level.path().join(&name), directory.join(&name)).expect("objects stay");
            }
        }
    }
}

fn snapshot_hook(replica: &Path, scratch: &Path, snapshots: &Snapshots) -> OnReplicated {
    let (replica, scratch, snapshots) = (replica.to_path_buf(), scratch.to_path_buf(), Arc::clone(snapshots));
    Box::new(move |txid| {
        let to = scratch.join(format!("at-{txid:016x}"));
        link_objects(&replica, &to);
        let before = snapshots.lock().expect("no holder panics").insert(txid, to);
        assert_eq!(before, None, "transaction {txid} was reported twice");
    })
}

/// Objects that process `pid` was writing when it died.
fn unfinished(replica: &Path, pid: u32) -> usize {
    let Ok(names) = fs::read_dir(replica.join("ltx/0")) else { return 0 };
    let mark = format!(".{pid}-");
    let names = names.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".tmp") && name.contains(&mark)).count()
}

#[test]
fn fifty_kills_lose_nothing_that_was_reported() {
    let scratch = TempDir::new("crash");
    let (database, replica) = (scratch.join("app.db"), scratch.join("replica"));
    let faults = FsyncFaults::new(scratch.path());
    let snapshots = Snapshots::default();
    let mut app = App::start();
    app.start_writer(&database, json!({ "rows": 5, "bytes": 300, "keep": KEEP, "seed": 7 }));
    // Objects take long to become durable: many kills meet one that is not.
    faults.delay(".tmp", 300);
    let start = || {
        Setup::new(&database, &replica)
            .environment(&faults.variables())
            .on_replicated(snapshot_hook(&replica, scratch.path(), &snapshots))
            .start()
    };
    let mut seed = 0x5eed_u64;
    let (mut in_put, mut reported_before) = (0, 0);
    let begun = Instant::now();
    let mut kill = 0;
    // A slow machine meets fewer puts: it is killed more often.
    while kill < KILLS || (in_put < KILLS_IN_PUT && kill < 2 * KILLS) {
        kill += 1;
        let sidecar = start();
        if kill % 10 == 0 {
            // Each restart goes on: now and then one lives until it has shown that.
            let goal = snapshots.lock().expect("no holder panics").len() + 1;
            wait_for("another transaction", PATIENCE, || {
                snapshots.lock().expect("no holder panics").len() >= goal
            });
        }
        std::thread::sleep(Duration::from_millis(random(&mut seed) % 1_400));
        let pid = sidecar.pid();
        sidecar.kill();
        in_put += usize::from(unfinished(&replica, pid) > 0);
        let reported = snapshots.lock().expect("no holder panics").len();
        assert!(reported >= reported_before);
        reported_before = reported;
    }
    eprintln!(
        "{kill} kills in {:?}, {in_put} with a put outstanding, {reported_before} reported",
        begun.elapsed()
    );
    assert!(in_put >= KILLS_IN_PUT, "only {in_put} kills met a put");
    let last = start();
    let counts = app.stop_writer();
    eprintln!("writer: {counts}");
    last.caught_up();
    last.stop();
    drop(app);
    assert_equal_to_source(&database, &replica);
    let mut transactions = 0;
    let snapshots = snapshots.lock().expect("no holder panics");
    for (txid, directory) in snapshots.iter() {
        let copy = directory.join("copy.db");
        let seen =
            restore_checked(directory, Some(*txid), &copy, KEEP).expect("it was reported as replicated");
        assert!(seen.transactions >= transactions, "txid {txid} went back");
        transactions = seen.transactions;
        fs::remove_file(copy).expect("just restored");
    }
    assert!(snapshots.len() >= 20, "only {} transactions were reported", snapshots.len());
}

#[test]
fn a_first_segment_is_restorable_within_a_second() {
    let scratch = TempDir::new("first-second");
    let (database, replica) = (scratch.join("app.db"), scratch.join("replica"));
    let mut app = App::start();
    app.prepare("a", &database);
    let i = app.tx("a");
    let mut sidecar = Sidecar::of(&database, &replica);
    sidecar.wait_line("replicated txid=");
    let took = sidecar.started.elapsed();
    let seen = restore_checked(&replica, None, &scratch.join("copy.db"), u64::MAX).expect("it restores");
    assert_eq!(seen.transactions, i as u64);
    assert!(took < Duration::from_secs(1), "the first segment took {took:?}");
    sidecar.stop();
}
