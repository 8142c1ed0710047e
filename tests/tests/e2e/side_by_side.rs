//! Where an application and the replicator stand side by side on one database.

use std::fs;
use std::path::PathBuf;

use driftless_tests::app::App;
use driftless_tests::place::Place;
use driftless_tests::sidecar::{
    Setup, Sidecar, assert_equal_to_source, is_caught_up, reported, restore_checked,
};
use driftless_tests::{PATIENCE, TempDir, wait_for};
use serde_json::Value;

/// Transactions whose payload a writer keeps.
pub const KEEP: u64 = 400;

/// A database, its replica, and the directory of both.
pub struct Scene<P: Place = PathBuf> {
    /// Holds everything.
    pub dir: TempDir,
    /// The database; not there before an application makes it.
    pub database: PathBuf,
    /// The replica: a directory unless it is said to be elsewhere.
    pub replica: P,
}

impl Scene {
    /// Nothing is there yet.
    pub fn new(name: &str) -> Scene {
        let dir = TempDir::new(name);
        let (database, replica) = (dir.join("app.db"), dir.join("replica"));
        Scene { dir, database, replica }
    }

    /// With an application whose connection `a` has prepared the database.
    pub fn with_app(name: &str) -> (Scene, App) {
        let scene = Scene::new(name);
        let app = scene.app();
        (scene, app)
    }

    /// With an application that has committed one transaction, and a replicator that has come,
    /// replicated it and stopped.
    pub fn left(name: &str) -> (Scene, App) {
        let (scene, mut app) = Scene::with_app(name);
        app.tx("a");
        let sidecar = scene.sidecar();
        sidecar.caught_up();
        sidecar.stop();
        (scene, app)
    }
}

impl<P: Place> Scene<P> {
    /// Nothing is there yet, and the replica is to lie at `replica`.
    pub fn at(name: &str, replica: P) -> Scene<P> {
        let dir = TempDir::new(name);
        let database = dir.join("app.db");
        Scene { dir, database, replica }
    }

    /// An application whose connection `a` has prepared the database.
    pub fn app(&self) -> App {
        let mut app = App::start();
        app.prepare("a", &self.database);
        app
    }

    /// How to start the replicator here.
    pub fn setup(&self) -> Setup {
        Setup::new(&self.database, &self.replica)
    }

    /// Starts it.
    pub fn sidecar(&self) -> Sidecar {
        self.setup().start()
    }

    /// Bytes of the WAL.
    pub fn wal_bytes(&self) -> u64 {
        fs::metadata(format!("{}-wal", self.database.display())).map_or(0, |facts| facts.len())
    }

    /// How many transactions the newest state on the replica holds.
    pub fn held(&self) -> u64 {
        let seen = restore_checked(&self.replica, None, &self.dir.join("copy.db"), KEEP);
        seen.expect("the replica restores").transactions
    }

    /// The trouble is over: what was committed is all there, and the writer ends.
    pub fn recovers_whole(&self, mut app: App, sidecar: Sidecar) {
        let committed = app.pause_writer();
        recovers(&sidecar);
        assert_eq!(self.held(), committed);
        app.stop_writer();
        drop(app);
        self.ends_well(sidecar);
    }

    /// The end of a story: the application has ended, the trouble is over. Nothing is lost, nothing
    /// is doubled.
    pub fn ends_well(&self, sidecar: Sidecar) {
        sidecar.caught_up();
        let lines = sidecar.lines();
        sidecar.stop();
        let mut txids: Vec<u64> = lines.iter().filter_map(|line| reported(line)).collect();
        let reports = txids.len();
        txids.dedup();
        assert_eq!(txids.len(), reports, "a transaction was reported twice");
        let objects = self.replica.ltx_files(0);
        let expected: Vec<(u64, u64)> = (1..=objects.len() as u64).map(|txid| (txid, txid)).collect();
        assert_eq!(objects, expected, "a gap or a double in level 0");
        assert_equal_to_source(&self.database, &self.replica);
    }
}

/// The status; null while it cannot be had.
pub fn status(sidecar: &Sidecar) -> Value {
    sidecar.status().unwrap_or_default()
}

/// Waits until the status names a failure and a lag.
pub fn trouble_is_told(sidecar: &Sidecar) {
    wait_for("the trouble in the status", PATIENCE, || {
        let status = status(sidecar);
        status["last_error"].is_string() && status["lag_frames"] != 0
    });
}

/// Waits until all is replicated and no error is left.
pub fn recovers(sidecar: &Sidecar) {
    wait_for("recovery without a human", PATIENCE, || is_caught_up(&status(sidecar)));
    assert!(status(sidecar)["last_error"].is_null(), "{}", status(sidecar));
}
