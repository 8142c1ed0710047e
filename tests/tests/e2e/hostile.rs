//! An application that does what it likes with its database, beside us and while we are away.
//!
//! Each test ends in the same way: once we say that all is replicated, every transaction on the
//! replica restores to a state that the application committed, and the last one is the source
//! byte for byte.

mod changes;
mod continuity;
mod phantom;
mod places;

use std::path::Path;
use std::time::{Duration, Instant};

use driftless_tests::app::App;
use driftless_tests::daemon::level0;
use driftless_tests::sidecar::{Sidecar, assert_equal_to_source, restore_checked};
use driftless_tests::{PATIENCE, random, wait_for};
use serde_json::json;

use crate::side_by_side::Scene;

impl Scene {
    /// Restores every transaction that the replica has, and the last.
    fn check_replica(&self, keep: u64) -> u64 {
        let copy = self.dir.join("copy.db");
        let check = |txid| restore_checked(&self.replica, txid, &copy, keep).expect("it is on the replica");
        for txid in level0(&self.replica) {
            check(Some(txid));
        }
        check(None).transactions
    }

    /// The end of each test. The applications have ended.
    fn ends_equal(&self, sidecar: Sidecar, keep: u64) -> u64 {
        sidecar.caught_up();
        sidecar.stop();
        assert_equal_to_source(&self.database, &self.replica);
        self.check_replica(keep)
    }
}

/// Runs `step` again and again for this long: load lasts, it is no wait for anything.
fn keep_on(time: Duration, mut step: impl FnMut()) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        step();
    }
}

const KEEP: u64 = 300;

#[test]
fn checkpoints_of_the_application_at_any_moment() {
    for autocheckpoint in [1_000, 10, 0] {
        let scene = Scene::new("checkpoints");
        let mut app = App::start();
        app.start_writer(
            &scene.database,
            json!({ "autocheckpoint": autocheckpoint, "keep": KEEP, "rollback_every": 7, "seed": autocheckpoint + 5 }),
        );
        let sidecar = scene.sidecar();
        app.open("checkpoints", &scene.database);
        let mut seed = 77 + autocheckpoint;
        keep_on(Duration::from_secs(3), || {
            let mode = ["PASSIVE", "TRUNCATE", "RESTART", "FULL"][(random(&mut seed) % 4) as usize];
            // Without a busy timeout it is often refused, with or without us.
            let _ = app.try_sql("checkpoints", &format!("PRAGMA wal_checkpoint({mode})"));
            std::thread::sleep(Duration::from_millis(random(&mut seed) % 30));
        });
        let counts = app.stop_writer();
        eprintln!("autocheckpoint {autocheckpoint}: {counts}");
        drop(app);
        let seen = scene.ends_equal(sidecar, KEEP);
        assert!(seen >= counts["committed"].as_u64().expect("a count"));
    }
}

#[test]
fn overlapping_readers_and_three_writers_of_an_older_sqlite() {
    let scene = Scene::new("readers");
    let mut setup = App::start();
    setup.prepare("a", &scene.database);
    let sidecar = scene.sidecar();
    let mut writers: Vec<App> = (0..3).map(|_| App::python()).collect();
    let mut readers: Vec<App> = (0..3).map(|_| App::python()).collect();
    writers.iter_mut().for_each(|app| app.open("w", &scene.database));
    readers.iter_mut().for_each(|app| app.open("r", &scene.database));
    let mut next = [5_u64, 20, 100].map(|ms| (Duration::from_millis(ms), Instant::now(), false));
    let (mut committed, mut busy, mut turn) = (0_u64, 0_u64, 0_usize);
    keep_on(Duration::from_secs(5), || {
        for (app, (length, since, open)) in readers.iter_mut().zip(&mut next) {
            if since.elapsed() >= *length {
                if *open {
                    app.sql("r", "COMMIT");
                }
                app.sql("r", "BEGIN");
                app.sql("r", "SELECT count(*) FROM tx");
                (*since, *open) = (Instant::now(), true);
            }
        }
        // No busy timeout: whoever is refused counts it and goes on.
        let app = &mut writers[turn % 3];
        turn += 1;
        match app.try_sql("w", "INSERT INTO tx(n) VALUES(0)") {
            Ok(_) => committed += 1,
            Err(error) => {
                assert!(error.contains("locked"), "{error}");
                busy += 1;
            }
        }
    });
    eprintln!("{committed} committed, {busy} refused");
    drop((writers, readers, setup));
    assert_eq!(scene.ends_equal(sidecar, 0), committed);
}

/// A reader keeps the WAL past what was promised of it: a person is told, once, and the writer goes
/// on. When he ends, so does the growth.
#[test]
fn a_reader_that_keeps_the_wal_is_told_of() {
    const TOLD: &str = "cannot be restarted: an application's reader keeps it";
    let scene = Scene::new("kept-wal");
    let mut app = App::start();
    app.prepare("r", &scene.database);
    app.tx("r");
    let mut sidecar = scene.sidecar();
    sidecar.caught_up();
    app.sql("r", "BEGIN");
    app.sql("r", "SELECT count(*) FROM tx");
    app.start_writer(&scene.database, json!({ "keep": KEEP, "rate": 500 }));
    sidecar.wait_line(TOLD);
    let before = app.committed();
    wait_for("commits behind the reader", PATIENCE, || app.committed() > before + 200);
    assert_eq!(sidecar.count(TOLD), 1);
    app.sql("r", "COMMIT");
    let frames = |app: &mut App| app.sql("r", "PRAGMA wal_checkpoint(NOOP)")[0][1].as_u64();
    wait_for("the WAL to start over", PATIENCE, || frames(&mut app).is_some_and(|frames| frames < 5_000));
    app.stop_writer();
    drop(app);
    scene.ends_equal(sidecar, KEEP);
}

#[test]
fn a_reader_that_stays_for_long_loses_nothing() {
    let scene = Scene::new("long-reader");
    let mut app = App::start();
    app.start_writer(&scene.database, json!({ "keep": KEEP, "rate": 1500 }));
    let sidecar = scene.sidecar();
    let mut reader = App::start();
    reader.open("r", &scene.database);
    for round in 0..3 {
        reader.sql("r", "BEGIN");
        let seen = reader.number("r", "SELECT count(*) FROM tx");
        let before = app.committed();
        wait_for("commits beside the reader", PATIENCE, || app.committed() > before + 1_500);
        assert_eq!(reader.number("r", "SELECT count(*) FROM tx"), seen, "round {round}");
        reader.sql("r", "COMMIT");
    }
    app.stop_writer();
    drop((app, reader));
    scene.ends_equal(sidecar, KEEP);
}

#[test]
fn the_last_connection_comes_and_goes() {
    let scene = Scene::new("last-connection");
    let sidecar = scene.sidecar();
    let mut seed = 3;
    for round in 1..=40 {
        let (mut rust, mut python) = (App::start(), App::python());
        rust.prepare("a", &scene.database);
        assert_eq!(rust.tx("a"), 2 * round - 1);
        rust.close("a");
        std::thread::sleep(Duration::from_millis(random(&mut seed) % 60));
        python.open("a", &scene.database);
        python.sql("a", "INSERT INTO tx(n) VALUES(0)");
        if round % 3 != 0 {
            python.close("a");
        }
    }
    assert_eq!(scene.ends_equal(sidecar, u64::MAX), 80);
}

#[test]
fn starting_on_a_wal_that_is_copied_back_and_truncated_meanwhile() {
    let check = |round: u64| {
        let mut seed = 52 + round;
        let (scene, mut app) = Scene::with_app("backfilled");
        app.tx("a");
        app.sql("a", "PRAGMA wal_checkpoint(PASSIVE)");
        let sidecar = scene.sidecar();
        std::thread::sleep(Duration::from_micros(random(&mut seed) % 20_000));
        let _ = app.try_sql("a", "PRAGMA wal_checkpoint(TRUNCATE)");
        app.tx("a");
        app.sql("a", "PRAGMA wal_checkpoint(PASSIVE)");
        app.tx("a");
        drop(app);
        assert_eq!(scene.ends_equal(sidecar, u64::MAX), 3, "round {round}");
    };
    std::thread::scope(|scope| {
        for first in 0..4 {
            scope.spawn(move || (first * 3..first * 3 + 3).for_each(check));
        }
    });
}

/// Whether a file lies beside the database.
fn beside(database: &Path, suffix: &str) -> bool {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    Path::new(&name).exists()
}
