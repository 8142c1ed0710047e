//! One database, one replica, two replicators in turn.
//!
//! The application writes numbered rows all the time, also between the legs. Both compact at short
//! levels, so that each one's compaction runs over files of the other's, and so that ours goes on
//! behind files whose chain is erased. What must hold after each leg: the replica holds rows 1 to some n,
//! each once, for both restorers; after the last one, all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use driftless_tests::command::{litestream_restore, restore};
use driftless_tests::db::{open_to_read, open_wal};
use driftless_tests::place::{Place, Remote};
use driftless_tests::servers::moto;
use driftless_tests::{Daemon, TempDir, dump_digest, integrity_check, wait_for};

/// More than [`driftless_tests::PATIENCE`]: Litestream's own schedules are waited for.
const LEG: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Replicator {
    Litestream,
    Driftless,
}

/// Writes rows 1, 2, 3, … until told to stop, one a transaction, with a running sum beside them.
struct Application {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Application {
    fn start(db: &Path) -> Application {
        let app = open_wal(db);
        app.execute_batch(
            "create table if not exists log(n integer primary key, pad blob);
             create table if not exists total(rows integer, sum integer);
             insert into total select 0, 0 where not exists (select 1 from total)",
        )
        .unwrap();
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop_too, written_too) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = thread::spawn(move || {
            for n in 1_i64.. {
                app.execute_batch(&format!(
                    "begin immediate;
                     insert into log values ({n}, randomblob(300));
                     update total set rows = rows + 1, sum = sum + {n};
                     commit"
                ))
                .expect("the application is never refused");
                written_too.store(n.cast_unsigned(), Ordering::SeqCst);
                if stop_too.load(Ordering::SeqCst) {
                    return;
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        Application { stop, written, thread: Some(thread) }
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    fn wait_for_rows(&self, more: u64) {
        let goal = self.written() + more;
        wait_for("the application to write", LEG, || {
            assert!(!self.thread.as_ref().expect("runs").is_finished(), "the application died");
            self.written() >= goal
        });
    }

    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("stopped once").join().expect("the application did not fail");
        self.written()
    }
}

struct Scene<P: Place> {
    dir: TempDir,
    db: PathBuf,
    replica: P,
    config: PathBuf,
}

impl Scene<PathBuf> {
    fn new(name: &str) -> Scene<PathBuf> {
        let dir = TempDir::new(name);
        let replica = dir.join("replica");
        Scene::at(dir, replica)
    }
}

impl<P: Place> Scene<P> {
    fn at(dir: TempDir, replica: P) -> Scene<P> {
        let (db, config) = (dir.join("app.db"), dir.join("litestream.yml"));
        let keys = replica.litestream_keys().into_iter();
        let keys: String = keys.map(|(name, value)| format!("      {name}: {value}\n")).collect();
        let text = format!(
            "levels:\n  - interval: 1s\n  - interval: 3s\n  - interval: 9s\n\
             snapshot:\n  interval: 10s\n  retention: 1h\n\
             l0-retention: 4s\nl0-retention-check-interval: 1s\n\
             dbs:\n  - path: {}\n    replica:\n{keys}      sync-interval: 200ms\n",
            db.display(),
        );
        fs::write(&config, text).unwrap();
        Scene { dir, db, replica, config }
    }

    fn head(&self) -> u64 {
        (0..=9).flat_map(|level| self.replica.ltx_files(level)).map(|(_, max)| max).max().unwrap_or(0)
    }

    fn covered(&self, level: u32) -> u64 {
        self.replica.ltx_files(level).into_iter().map(|(_, max)| max).max().unwrap_or(0)
    }

    /// Lets one replicator run, by the same configuration, while the application writes, until it has
    /// compacted beyond what it found.
    fn leg(&self, who: Replicator, app: &Application) {
        let found = self.head();
        let (mut daemon, error) = match who {
            Replicator::Driftless => (Daemon::replicate_at(&self.db, &self.replica, &self.config), " ERROR "),
            Replicator::Litestream => {
                (Daemon::litestream_at(&self.db, &self.replica, &self.config), "level=ERROR")
            }
        };
        daemon.wait_until("a compaction over all that was found", LEG, || {
            // A store that is asked all the time has none left for others.
            thread::sleep(Duration::from_millis(100));
            self.covered(0) >= found + 5 && self.covered(1) > found && self.covered(2) >= found
        });
        app.wait_for_rows(20);
        let ended = daemon.term().expect_code(0);
        assert!(!ended.log.contains(error), "{}", ended.log);
        assert!(self.head() >= found + 5, "{who:?} has made no progress");
        app.wait_for_rows(20);
    }

    /// Restores with both programs and checks that each result has rows 1 to n; returns n.
    fn check(&self, leg: usize) -> u64 {
        let (ours, theirs) =
            (self.dir.join(&format!("ours-{leg}.db")), self.dir.join(&format!("theirs-{leg}.db")));
        restore(&self.replica, &ours, None);
        litestream_restore(&self.replica, &theirs);
        assert_eq!(dump_digest(&ours), dump_digest(&theirs), "after leg {leg} the two restores differ");
        integrity_check(&ours);
        rows_without_gap(&ours)
    }
}

/// How many rows there are; they are 1 to n, and each was counted once.
fn rows_without_gap(db: &Path) -> u64 {
    let (count, max, distinct, rows, sum): (i64, i64, i64, i64, i64) = open_to_read(db)
        .query_row(
            "select count(*), max(n), count(distinct n), (select rows from total), (select sum from total) from log",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
        )
        .unwrap();
    assert_eq!([max, distinct, rows], [count; 3], "rows are lost or doubled in {}", db.display());
    assert_eq!(sum, count * (count + 1) / 2, "{}", db.display());
    count.cast_unsigned()
}

fn check<P: Place>(scene: &Scene<P>, legs: [Replicator; 4]) {
    let app = Application::start(&scene.db);
    app.wait_for_rows(20);
    let mut replicated = 0;
    let mut app = Some(app);
    for (leg, who) in legs.into_iter().enumerate() {
        let before = app.as_ref().expect("runs until the last leg").written();
        scene.leg(who, app.as_ref().expect("runs until the last leg"));
        if leg + 1 == legs.len() {
            // The last leg comes once more, to take what was written after its end.
            let written = app.take().expect("the last leg").stop();
            final_sync(scene, who);
            replicated = scene.check(leg);
            assert_eq!(replicated, written, "the last restore has every row");
            assert_eq!(dump_digest(&scene.db), dump_digest(&scene.dir.join(&format!("ours-{leg}.db"))));
        } else {
            let now = scene.check(leg);
            assert!(
                now > replicated && now >= before,
                "leg {leg}: {now} rows after {replicated}, {before} written"
            );
            replicated = now;
        }
    }
}

fn final_sync<P: Place>(scene: &Scene<P>, who: Replicator) {
    match who {
        Replicator::Driftless => {
            let db = scene.db.to_str().expect("a plain path");
            scene.replica.run(&["replicate", "-once", db]).expect_ok();
        }
        Replicator::Litestream => {
            let found = scene.head();
            let mut daemon = Daemon::litestream_at(&scene.db, &scene.replica, &scene.config);
            daemon.wait_until("Litestream to go on", LEG, || scene.head() > found);
            daemon.term().expect_code(0);
        }
    }
}

/// A transaction that commits after our end and before Litestream's start, in a WAL that the
/// application then begins anew. Litestream loses such a transaction after a run of its own.
fn check_gap(name: &str, end: fn(Daemon)) {
    let scene = Scene::new(name);
    let app = open_wal(&scene.db);
    app.execute_batch(
        "pragma wal_autocheckpoint = 0; create table a(x); create table b(x); create table c(x)",
    )
    .unwrap();
    app.execute_batch("insert into a values (1)").unwrap();
    let mut daemon = Daemon::replicate(&scene.db, &scene.replica);
    daemon.wait_until("the first segment", LEG, || scene.head() >= 1);
    app.execute_batch("insert into a values (2)").unwrap();
    daemon.wait_until("the second segment", LEG, || scene.head() >= 2);
    end(daemon);
    app.execute_batch("insert into b values ('in the gap')").unwrap();
    app.execute_batch("pragma wal_checkpoint(full); insert into c values ('in a new wal')").unwrap();
    let found = scene.head();
    let mut litestream = Daemon::litestream_at(&scene.db, &scene.replica, &scene.config);
    litestream.wait_until("Litestream to take over", LEG, || scene.head() > found);
    let takeover = scene.head();
    app.execute_batch("insert into c values ('live')").unwrap();
    litestream.wait_until("Litestream to go on", LEG, || scene.head() > takeover);
    litestream.term().expect_code(0);
    // A snapshot would hide what is missing from the files of level 0 and those made of them.
    let _ = fs::remove_dir_all(scene.replica.join("ltx/9"));
    let (ours, theirs) = (scene.dir.join("ours.db"), scene.dir.join("theirs.db"));
    restore(&scene.replica, &ours, None);
    litestream_restore(&scene.replica, &theirs);
    for restored in [&ours, &theirs] {
        assert_eq!(dump_digest(restored), dump_digest(&scene.db), "{}", restored.display());
    }
}

#[test]
fn litestream_misses_nothing_that_was_committed_after_our_stop() {
    check_gap("gap-term", |daemon| {
        daemon.term().expect_code(0);
    });
}

#[test]
fn litestream_misses_nothing_that_was_committed_after_our_crash() {
    check_gap("gap-kill", |daemon| {
        daemon.kill9();
    });
}

#[test]
fn four_legs_beginning_with_litestream_lose_and_double_nothing() {
    use Replicator::{Driftless, Litestream};
    check(&Scene::new("handover-ls"), [Litestream, Driftless, Litestream, Driftless]);
}

#[test]
fn four_legs_beginning_with_us_lose_and_double_nothing() {
    use Replicator::{Driftless, Litestream};
    check(&Scene::new("handover-us"), [Driftless, Litestream, Driftless, Litestream]);
}

/// The same in a bucket, where levels have other names and each file is a request. Both orders at the
/// same time: Litestream's schedules are waited for.
#[test]
fn four_legs_in_s3_lose_and_double_nothing_whoever_begins() {
    use Replicator::{Driftless, Litestream};
    let orders = [
        ("handover-s3-ls", [Litestream, Driftless, Litestream, Driftless]),
        ("handover-s3-us", [Driftless, Litestream, Driftless, Litestream]),
    ];
    thread::scope(|scope| {
        for (name, legs) in orders {
            scope.spawn(move || {
                let bucket = moto().bucket(name);
                check(&Scene::at(TempDir::new(name), Remote::s3(&bucket, bucket.server())), legs);
            });
        }
    });
}
