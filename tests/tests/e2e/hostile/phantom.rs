//! A commit frame is not a commit.
//!
//! The application dies in its commit's fsync, or is told EIO, while we keep the wal-index alive.
//! The WAL then shows a whole transaction that SQLite never committed and later writes over. No
//! restore may ever show it.

use driftless_tests::app::App;
use driftless_tests::daemon::level0;
use driftless_tests::sidecar::restore;
use driftless_tests::store_faults::FsyncFaults;
use rusqlite::Connection;

use crate::side_by_side::Scene;

fn check(die: bool, round: u64) {
    let scene = Scene::new("phantom");
    let faults = FsyncFaults::new(scene.dir.path());
    let mut app = App::preloaded(faults.library(), &[faults.variable()]);
    app.prepare("a", &scene.database);
    app.sql("a", "PRAGMA synchronous=FULL");
    app.sql("a", "PRAGMA wal_autocheckpoint=0");
    for _ in 0..3 + round {
        app.tx("a");
    }
    let sidecar = scene.sidecar();
    sidecar.caught_up();
    match die {
        true => faults.exit_at("-wal"),
        false => faults.fail("-wal", 1),
    }
    let phantom = app.try_sql("a", "INSERT INTO acct VALUES(666, 0, 'phantom')");
    assert!(phantom.is_err(), "the commit was to fail");
    assert!(faults.used_up());
    // We look at the WAL with the frame in it: a status asks for a look.
    let status = sidecar.caught_up();
    assert_eq!(status["lag_frames"], 0);
    let mut other = App::start();
    other.open_patient("b", &scene.database, 5_000);
    assert_eq!(other.number("b", "SELECT count(*) FROM acct WHERE id = 666"), 0, "SQLite never committed it");
    let last = other.tx("b");
    sidecar.caught_up();
    other.kill();
    drop(app);
    assert_eq!(scene.ends_equal(sidecar, u64::MAX), last as u64);
    let copy = scene.dir.join("phantom.db");
    for txid in level0(&scene.replica) {
        let _ = std::fs::remove_file(&copy);
        restore(&scene.replica, Some(txid), &copy).expect("it is on the replica");
        let connection = Connection::open(&copy).expect("a database");
        let phantoms: i64 = connection
            .query_row("SELECT count(*) FROM acct WHERE id = 666", [], |row| row.get(0))
            .expect("a count");
        assert_eq!(phantoms, 0, "txid {txid} shows a commit that never was");
    }
}

#[test]
fn killed_in_its_commits_fsync() {
    std::thread::scope(|scope| (0..3).for_each(|round| drop(scope.spawn(move || check(true, round)))));
}

#[test]
fn told_eio_by_its_commits_fsync() {
    std::thread::scope(|scope| (0..3).for_each(|round| drop(scope.spawn(move || check(false, round)))));
}
