//! Ring 2 of the simulator: the real binary, real SQLite and a real server, in a storm.
//!
//! An application writes numbered transactions as fast as it may, a replicator sends them to moto by
//! way of the fault proxy, and a seed chooses what befalls them: SIGKILL, SIGSTOP and SIGTERM of the
//! replicator, SIGKILL and SIGSTOP of the application, and on the wire cuts, refusals, lost and late
//! answers, bodies that break off, silence. Then all trouble ends, and what was committed must be on
//! the replica byte for byte, what was reported must restore, and exit codes must have been true.
//!
//! Which blows come in which order, and for how long, follows from the seed. What they strike does
//! not: processes and the kernel go their own ways. So a seed that failed is worth running again, and
//! may pass.
//!
//! A short storm is a test; `cargo run --release -p driftless-tests --bin ring2 -- --hours 1` is a
//! long one.

mod blows;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::app::{App, check_copy};
use crate::db::{dump_digest, integrity_check, open_to_read};
use crate::place::{Place as _, Remote};
use crate::proxy::{Proxy, RuleId, put_more_than_once};
use crate::servers::moto;
use crate::sidecar::{Setup, Sidecar, assert_equal_to_source, restore, restore_checked};
use crate::{PATIENCE, TempDir, random, wait_for};

/// Transactions whose payload the writer keeps, so that the database stays small.
const KEEP: u64 = 400;
/// Reported transactions that are restored at the end.
const RESTORED: usize = 5;
/// What a process is told that is to stop in a storm.
const SETTINGS: &str = "shutdown-sync-timeout: 2s";

/// What happened in a storm.
#[derive(Clone, Default, Debug)]
pub struct Counts {
    /// Blows by name.
    pub blows: std::collections::BTreeMap<&'static str, u64>,
    /// Requests that met a fault of the proxy.
    pub faults: u64,
    /// Transactions that the application has committed.
    pub committed: u64,
    /// Transactions of the replica that were reported as replicated.
    pub reported: u64,
    /// Orderly stops that said that all is on the replica, and those that said that it is not.
    pub stops: (u64, u64),
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { faults, committed, reported, stops: (done, left), .. } = self;
        write!(f, "{committed} commits, {reported} segments, {faults} faulty requests, ")?;
        write!(f, "{done} stops with all done and {left} without")?;
        self.blows.iter().try_for_each(|(name, count)| write!(f, ", {name} {count}"))
    }
}

/// An application, a replicator, and the way between them and the store.
pub struct Ring2 {
    // They end before what they use.
    app: Option<App>,
    sidecar: Option<Sidecar>,
    proxy: Proxy,
    /// The replica by way of the proxy, and straight at the server.
    replica: Remote,
    direct: Remote,
    database: PathBuf,
    seed: u64,
    chance: u64,
    rules: Vec<RuleId>,
    /// The last transaction that the application is known to have committed.
    acknowledged: u64,
    /// Transactions of the replica that were reported, in order.
    reported: Arc<Mutex<Vec<u64>>>,
    counts: Counts,
    dir: TempDir,
}

impl Ring2 {
    /// A fair day: the application writes, and the replicator has replicated something.
    pub fn new(name: &str, seed: u64) -> Ring2 {
        let bucket = moto().bucket(name);
        let proxy = Proxy::start(bucket.server());
        let (replica, direct) = (Remote::s3(&bucket, proxy.address()), Remote::s3(&bucket, bucket.server()));
        let dir = TempDir::new(name);
        let mut ring = Ring2 {
            app: None,
            sidecar: None,
            replica,
            direct,
            proxy,
            database: dir.join("app.db"),
            seed,
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            rules: Vec::new(),
            acknowledged: 0,
            reported: Arc::default(),
            counts: Counts::default(),
            dir,
        };
        ring.start_app();
        ring.start_sidecar();
        wait_for("a first segment", PATIENCE, || !ring.reported().is_empty());
        ring
    }

    /// What happened so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A number below `limit`.
    fn chance(&mut self, limit: u64) -> u64 {
        (random(&mut self.chance) >> 11) % limit
    }

    /// A time up to so many milliseconds, short ones more often than long ones.
    fn time(&mut self, most_ms: u64) -> Duration {
        let part = self.chance(1_000) * self.chance(1_000) / 1_000;
        Duration::from_millis(most_ms * part / 1_000)
    }

    fn reported(&self) -> Vec<u64> {
        self.reported.lock().expect("no holder panics").clone()
    }

    fn start_app(&mut self) {
        let mut app = App::start();
        let rate = [20, 200, 2_000][self.chance(3) as usize];
        let (rows, bytes) = (1 + self.chance(8), 50 + self.chance(600));
        let synchronous = ["NORMAL", "FULL"][self.chance(2) as usize];
        let autocheckpoint = [100, 1_000][self.chance(2) as usize];
        let writer = json!({
            "rate": rate, "rows": rows, "bytes": bytes, "keep": KEEP, "seed": self.chance(1 << 40),
            "synchronous": synchronous, "autocheckpoint": autocheckpoint,
        });
        app.start_writer(&self.database, writer);
        self.app = Some(app);
    }

    fn start_sidecar(&mut self) {
        let reported = Arc::clone(&self.reported);
        let setup = Setup::new(&self.database, &self.replica).settings(SETTINGS);
        let note = Box::new(move |txid| reported.lock().expect("no holder panics").push(txid));
        self.sidecar = Some(setup.on_replicated(note).start());
    }

    /// The last committed transaction, as another connection sees it.
    fn committed(&self) -> u64 {
        let number = "SELECT coalesce(max(i), 0) FROM tx";
        let committed: i64 = open_to_read(&self.database)
            .query_row(number, [], |row| row.get(0))
            .expect("the application has made its tables");
        committed.cast_unsigned()
    }

    /// Blow upon blow for so long.
    pub fn storm(&mut self, length: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < length {
            self.strike();
            let rest = self.time(1_500);
            std::thread::sleep(rest);
        }
    }

    /// All trouble ends, and everything is compared. Panics, and keeps all files, where something is
    /// not as it must be.
    pub fn heal_and_compare(mut self) -> Counts {
        self.heal();
        let mut app = self.app.take().expect("it runs between blows");
        app.stop_writer();
        drop(app);
        let committed = self.committed();
        assert!(committed >= self.acknowledged, "the application itself has lost {committed}");
        let sidecar = self.sidecar.take().expect("it runs between blows");
        sidecar.caught_up();
        sidecar.stop();
        self.compare(committed);
        self.counts.committed = committed;
        self.counts.reported = self.reported().len() as u64;
        self.counts.faults = self.proxy.records().iter().filter(|r| !r.faults.is_empty()).count() as u64;
        self.counts.clone()
    }

    fn heal(&mut self) {
        self.rules.clear();
        self.proxy.clear();
        self.proxy.heal();
        // What hangs would hang until its deadline of a minute.
        self.proxy.cut_all();
    }

    fn compare(&self, committed: u64) {
        let objects = self.direct.ltx_files(0);
        let expected: Vec<(u64, u64)> = (1..=objects.len() as u64).map(|txid| (txid, txid)).collect();
        assert_eq!(objects, expected, "a gap or a double in level 0");
        let twice = put_more_than_once(&self.proxy.records());
        assert!(twice.is_empty(), "put more than once: {twice:?}");
        self.direct.run(&["verify"]).expect_code(0);
        assert_equal_to_source(&self.database, &self.direct);
        let copy = self.dir.join("copy.db");
        restore(&self.direct, None, &copy).expect("the replica restores");
        integrity_check(&copy);
        assert_eq!(dump_digest(&copy), dump_digest(&self.database), "the restore has another content");
        let seen = check_copy(&copy, KEEP).expect("a state that was committed");
        assert_eq!(seen.transactions, committed, "not all that was committed");
        self.check_reported();
    }

    /// Some of what was reported, the first and the last of it too: each is there, and none goes back.
    fn check_reported(&self) {
        let mut reported = self.reported();
        reported.sort_unstable();
        let count = reported.len();
        reported.dedup();
        assert_eq!(reported.len(), count, "a transaction was reported twice");
        let last = reported.last().copied().expect("something was reported on the fair day");
        let objects = self.direct.ltx_files(0).len() as u64;
        assert!(last <= objects, "{last} was reported, and the replica ends at {objects}");
        let step = (reported.len() / RESTORED).max(1);
        let mut transactions = 0;
        for txid in reported.iter().copied().step_by(step).chain([last]) {
            let at = self.dir.join("at.db");
            let seen = restore_checked(&self.direct, Some(txid), &at, KEEP).expect("it was reported");
            assert!(seen.transactions >= transactions, "transaction {txid:x} went back");
            transactions = seen.transactions;
            fs::remove_file(at).expect("just restored");
        }
    }
}

impl Drop for Ring2 {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("ring 2, seed {}: {}\nreplay: {}", self.seed, self.counts, replay(self.seed));
        }
    }
}

/// The command that runs a seed again.
pub fn replay(seed: u64) -> String {
    format!("cargo run --release -p driftless-tests --bin ring2 -- --seed {seed} --rounds 1")
}
