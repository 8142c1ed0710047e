//! Stores and disks in trouble: late, failing, full, hanging, away.
//!
//! Whatever the trouble, the same holds once it is over: nothing is lost (the last restore is the
//! source), nothing is doubled (each transaction is reported once and has one object), the WAL
//! stayed within its bound, the status named the trouble while it lasted, and nobody had to help.

pub mod full_speed;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use driftless_tests::app::App;
use driftless_tests::daemon::level0;
use driftless_tests::sidecar::Sidecar;
use driftless_tests::store_faults::{Away, FsyncFaults, Tmpfs, Volume};
use driftless_tests::{PATIENCE, wait_for};
use serde_json::json;

use crate::side_by_side::{KEEP, Scene, recovers, status, trouble_is_told};

/// The WAL's bound under any load without long readers (DESIGN §12).
const WAL_BYTES_MAX: u64 = 64 << 20;
#[test]
fn a_store_that_answers_late() {
    let scene = Scene::new("late");
    let faults = FsyncFaults::new(scene.dir.path());
    faults.delay(".tmp", 1_500);
    let mut app = App::start();
    app.start_writer(&scene.database, json!({ "keep": KEEP, "rate": 500 }));
    let sidecar = scene.setup().environment(&faults.variables()).start();
    let mut largest = 0;
    wait_for("five transactions on a slow store", PATIENCE, || {
        largest = largest.max(scene.wal_bytes());
        sidecar.replicated() >= Some(5)
    });
    eprintln!("WAL at most {largest} bytes beside a late store");
    assert!(largest <= WAL_BYTES_MAX, "the WAL grew to {largest} bytes");
    app.stop_writer();
    drop(app);
    scene.ends_well(sidecar);
}

/// The sync of an object fails before it has its name, then that of its directory after: the
/// first is a failure, the second an answer that was lost.
#[test]
fn a_store_that_fails_and_loses_answers() {
    let scene = Scene::new("fails");
    let faults = FsyncFaults::new(scene.dir.path());
    let mut app = App::start();
    app.start_writer(&scene.database, json!({ "rate": 500, "keep": KEEP }));
    let mut sidecar = scene.setup().environment(&faults.variables()).start();
    sidecar.wait_line("replicated txid=");
    for (suffix, times) in [(".tmp", 1), (".tmp", 4), ("/ltx/0", 1), ("/ltx/0", 3), (".tmp", 2)] {
        let before = sidecar.replicated();
        faults.fail(suffix, times);
        wait_for("the faults to happen", PATIENCE, || faults.used_up());
        wait_for("replication to go on", PATIENCE, || sidecar.replicated() > before);
    }
    assert!(sidecar.count("failed, again in") >= 5);
    scene.recovers_whole(app, sidecar);
}

/// More pages change than memory may hold: the WAL keeps its bound all the same.
#[test]
fn a_store_that_is_away_for_a_minute() {
    let scene = Scene::new("away");
    let mut app = App::start();
    app.start_writer(&scene.database, json!({ "keep": 20_000, "bytes": 2_400, "rate": 300 }));
    let mut sidecar = scene.sidecar();
    sidecar.wait_line("replicated txid=");
    let (before, held) = (Instant::now(), sidecar.replicated());
    let away = Away::take(&scene.replica);
    trouble_is_told(&sidecar);
    let mut largest = 0;
    while before.elapsed() < Duration::from_secs(60) {
        largest = largest.max(scene.wal_bytes());
        std::thread::sleep(Duration::from_millis(20));
    }
    let told = status(&sidecar);
    assert!(told["lag_seconds"].as_f64().is_some_and(|lag| lag > 55.0), "{told}");
    assert!(told["lag_frames"].as_u64().is_some_and(|frames| frames > 10_000), "{told}");
    assert!(largest <= WAL_BYTES_MAX, "the WAL grew to {largest} bytes");
    eprintln!("WAL at most {largest} bytes while the store was away; {told}");
    away.bring_back();
    wait_for("replication to go on", PATIENCE, || sidecar.replicated() > held);
    app.stop_writer();
    drop(app);
    recovers(&sidecar);
    scene.ends_well(sidecar);
}

/// A write that hangs for longer than a request may take, and lands after all.
#[test]
fn a_store_that_hangs_beyond_the_deadline() {
    let mut scene = Scene::new("hangs");
    let mount = scene.dir.join("volume");
    scene.replica = mount.join("replica");
    let mut volume = Volume::mount(scene.dir.path(), &mount, 64);
    let mut app = App::start();
    app.start_writer(&scene.database, json!({ "rate": 200, "keep": KEEP }));
    let mut sidecar = scene.sidecar();
    sidecar.wait_line("replicated txid=");
    volume.freeze();
    let frozen = Instant::now();
    let mut largest = 0;
    while sidecar.count("no answer from the store") == 0 {
        largest = largest.max(scene.wal_bytes());
        assert!(frozen.elapsed() < Duration::from_secs(90), "a hanging put is never given up");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(status(&sidecar)["last_error"].is_string());
    assert!(largest <= WAL_BYTES_MAX, "the WAL grew to {largest} bytes");
    volume.thaw();
    scene.recovers_whole(app, sidecar);
    drop(volume);
}

#[test]
fn a_replica_without_space() {
    let mut scene = Scene::new("full-replica");
    let mount = scene.dir.join("volume");
    scene.replica = mount.join("replica");
    let volume = Tmpfs::mount(&mount, 24 << 10);
    let mut app = App::start();
    app.start_writer(&scene.database, json!({ "rate": 300, "keep": KEEP }));
    let mut sidecar = scene.sidecar();
    sidecar.wait_line("replicated txid=");
    volume.fill();
    trouble_is_told(&sidecar);
    sidecar.wait_nth_line("failed, again in", 4);
    volume.free();
    scene.recovers_whole(app, sidecar);
    drop(volume);
}

/// The local state cannot be written: replication goes on without, and a kill in that time costs
/// nothing but work.
#[test]
fn local_state_without_space() {
    let scene = Scene::new("full-state");
    let state = scene.dir.join("state");
    let volume = Tmpfs::mount(&state, 512);
    let mut app = App::start();
    app.start_writer(&scene.database, json!({ "rate": 300, "keep": KEEP }));
    let mut sidecar = scene.setup().state_dir(&state).start();
    sidecar.wait_line("replicated txid=");
    volume.fill();
    sidecar.wait_line("local state cannot be written");
    let before = sidecar.replicated();
    wait_for("replication to go on without local state", PATIENCE, || {
        sidecar.replicated().map(|txid| txid - 2) > before
    });
    sidecar.kill();
    let mut sidecar = scene.setup().state_dir(&state).start();
    sidecar.wait_line("replicated txid=");
    volume.free();
    sidecar.wait_line("local state: works again");
    let committed = app.pause_writer();
    recovers(&sidecar);
    assert_eq!(scene.held(), committed);
    // What was written down since is whole: a third run goes on from it without a survey.
    sidecar.kill();
    let sidecar = scene.setup().state_dir(&state).start();
    app.resume_writer();
    wait_for("replication to go on", PATIENCE, || sidecar.replicated().is_some());
    app.stop_writer();
    drop(app);
    scene.ends_well(sidecar);
    drop(volume);
}

/// It ends with exit 5, and says what helps.
#[track_caller]
fn is_fenced(mut sidecar: Sidecar, says: &str) {
    assert_eq!(sidecar.wait(PATIENCE).code(), Some(5), "{:?}", sidecar.lines());
    assert!(sidecar.count(says) > 0, "{:?}", sidecar.lines());
}

fn lose_state(scene: &Scene) {
    fs::remove_dir_all(scene.dir.join(".app.db-driftless")).expect("it was there");
}

/// With the local state lost, the source in the head's state or past it by the WAL's own proof is
/// enough to go on in the same history.
#[test]
fn local_state_lost_while_stopped() {
    let (scene, mut app) = Scene::with_app("lost-state");
    app.sql("a", "PRAGMA wal_autocheckpoint=0");
    app.tx("a");
    let sidecar = scene.sidecar();
    sidecar.caught_up();
    sidecar.stop();
    lose_state(&scene);
    // Nothing happened meanwhile.
    let sidecar = scene.sidecar();
    sidecar.caught_up();
    app.tx("a");
    sidecar.caught_up();
    let last = sidecar.replicated();
    sidecar.kill();
    lose_state(&scene);
    // One commit more in the same WAL.
    app.tx("a");
    let sidecar = scene.sidecar();
    sidecar.caught_up();
    assert!(sidecar.replicated() > last);
    drop(app);
    scene.ends_well(sidecar);
    assert_eq!(scene.held(), 3);
}

/// With the local state lost and the WAL restarted since, nothing proves that this database is the
/// one: exit 5, until a person says so.
#[test]
fn local_state_lost_and_nothing_to_prove_it() {
    let (scene, mut app) = Scene::left("no-proof");
    lose_state(&scene);
    app.tx("a");
    app.sql("a", "PRAGMA wal_checkpoint(TRUNCATE)");
    app.tx("a");
    is_fenced(scene.sidecar(), "-adopt");
    let sidecar = scene.setup().arguments(&["-adopt"]).start();
    drop(app);
    scene.ends_well(sidecar);
    assert_eq!(scene.held(), 3);
}

#[test]
fn a_replica_of_another_database() {
    let (scene, mut app) = Scene::left("foreign");
    let before = snapshot(&scene.replica);
    let other = scene.dir.join("other.db");
    app.prepare("b", &other);
    app.tx("b");
    app.tx("b");
    is_fenced(Sidecar::of(&other, &scene.replica), "hint");
    assert_eq!(snapshot(&scene.replica), before, "nothing may be written there");
}

/// Names and sizes of the objects of level 0.
fn snapshot(replica: &Path) -> Vec<(u64, u64)> {
    let size = |txid| {
        fs::metadata(replica.join(format!("ltx/0/{txid:016x}-{txid:016x}.ltx"))).map_or(0, |f| f.len())
    };
    level0(replica).into_iter().map(|txid| (txid, size(txid))).collect()
}

/// What must leave a trace when the final sync is not to be had: exit 6, and the transactions.
fn stopped_while_away(signals: usize, timeout: &str, within: Duration) {
    let (scene, mut app) = Scene::with_app("stop-away");
    app.tx("a");
    let settings = format!("shutdown-sync-timeout: {timeout}");
    let mut sidecar = scene.setup().settings(&settings).start();
    sidecar.caught_up();
    let next = sidecar.replicated().expect("caught up") + 1;
    let away = Away::take(&scene.replica);
    app.tx("a");
    trouble_is_told(&sidecar);
    let asked = Instant::now();
    for n in 1..=signals {
        sidecar.ask_to_stop();
        if n < signals {
            sidecar.wait_nth_line("stopping", n);
        }
    }
    assert_eq!(sidecar.wait(PATIENCE).code(), Some(6), "{:?}", sidecar.lines());
    assert!(asked.elapsed() < within, "took {:?}", asked.elapsed());
    let named = format!("{next:016x}");
    assert!(sidecar.lines().iter().rev().take(6).any(|line| line.contains(&named)), "{:?}", sidecar.lines());
    away.bring_back();
    // Nobody has to do anything but start it again.
    let sidecar = scene.sidecar();
    drop(app);
    scene.ends_well(sidecar);
    assert_eq!(scene.held(), 2);
}

/// Everything is on the replica, and a commit is so fresh that the seal would have to wait for the
/// clock: that is no reason to say that something is left.
#[test]
fn a_stop_with_little_time_and_nothing_left_to_do() {
    let (scene, mut app) = Scene::with_app("little-time");
    let start = || scene.setup().settings("shutdown-sync-timeout: 500ms").start();
    for _ in 0..3 {
        let sidecar = start();
        app.tx("a");
        sidecar.caught_up();
        sidecar.stop();
    }
    let sidecar = start();
    drop(app);
    scene.ends_well(sidecar);
    assert_eq!(scene.held(), 3);
}

#[test]
fn a_shutdown_while_the_store_is_away_names_what_is_left() {
    stopped_while_away(1, "2s", Duration::from_secs(6));
}

#[test]
fn a_second_signal_stops_at_once() {
    stopped_while_away(2, "60s", Duration::from_secs(4));
}
