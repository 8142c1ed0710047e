//! Many databases in one process: more than have an engine at once.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use driftless_tests::command::{restore, run};
use driftless_tests::daemon::told;
use driftless_tests::db::{dump_digest, open_wal};
use driftless_tests::{Daemon, TempDir, poll};
use rusqlite::Connection;
use rustix::process::Signal;

/// Databases that one process replicates, each with an application.
struct Crowd {
    dir: TempDir,
    config: PathBuf,
    count: usize,
    apps: Vec<Connection>,
}

impl Crowd {
    fn new(name: &str, count: usize, keys: &str) -> Crowd {
        let dir = TempDir::new(name);
        let mut crowd = Crowd { config: dir.join("driftless.yml"), count, apps: Vec::new(), dir };
        let mut text = format!(
            "state-dir: {}\nshutdown-sync-timeout: 60s\nsync-interval: 100ms\n{keys}dbs:\n",
            crowd.dir.join("state").display()
        );
        for n in 0..count {
            let app = open_wal(&crowd.database(n));
            app.execute_batch("create table t(n integer primary key, pad blob)").expect("a fresh database");
            crowd.apps.push(app);
            let (database, replica) = (crowd.database(n), crowd.replica(n));
            text.push_str(&format!(
                "- {{path: {}, replica: {{path: {}}}}}\n",
                database.display(),
                replica.display()
            ));
        }
        fs::write(&crowd.config, text).expect("our own directory");
        crowd
    }

    fn database(&self, n: usize) -> PathBuf {
        self.dir.join(&format!("{n:03}.db"))
    }

    fn replica(&self, n: usize) -> PathBuf {
        self.dir.join(&format!("replica-{n:03}"))
    }

    fn start(&self) -> Daemon {
        let log = self.dir.join("crowd");
        Daemon::replicate_at(&log, self.dir.path(), &self.config)
    }

    fn write(&self, n: usize) {
        self.apps[n].execute("insert into t(pad) values (randomblob(300))", []).expect("it writes");
    }

    /// How many are cold, wait, and have an engine.
    fn tiers(&self) -> (u64, u64, u64) {
        let told = told(&self.dir.join("state"));
        let count =
            |name: &str| told["tiers"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {told}"));
        (count("cold"), count("waiting"), count("hot"))
    }

    fn assert_restored(&self) {
        for n in 0..self.count {
            let copy = self.dir.join(&format!("copy-{n:03}.db"));
            let _ = fs::remove_file(&copy);
            restore(&self.replica(n), &copy, None);
            assert_eq!(dump_digest(&copy), dump_digest(&self.database(n)), "database {n}");
        }
    }
}

#[test]
fn more_than_have_places_take_turns_and_lose_nothing() {
    let crowd = Crowd::new("many-turns", 20, "max-hot: 3\n");
    let mut daemon = crowd.start();
    daemon.wait_for_line("replicated txid=");
    let (began, mut seed) = (Instant::now(), 1_usize);
    while began.elapsed() < Duration::from_secs(8) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        crowd.write((seed >> 33) % 20);
        std::thread::sleep(Duration::from_millis(5));
    }
    let (_, _, hot) = crowd.tiers();
    assert!((1..=3).contains(&hot), "{hot} have an engine");
    assert!(daemon.is_running());
    // Most of them have changed since they had an engine.
    daemon.term().expect_code(0);
    crowd.assert_restored();
    // Killed in the middle of it, the next process goes on.
    let mut daemon = crowd.start();
    (0..20).for_each(|n| crowd.write(n));
    daemon.wait_for_line("replicated txid=");
    daemon.kill9();
    let mut daemon = crowd.start();
    (0..20).for_each(|n| crowd.write(n));
    // Before that a signal ends it without a word.
    daemon.wait_for_line("replicating");
    daemon.term().expect_code(0);
    crowd.assert_restored();
}

/// Those that have had no turn when it is told to end at once are named, and lose nothing.
#[test]
fn a_second_signal_ends_those_that_wait_for_a_turn() {
    let crowd = Crowd::new("many-twice", 20, "max-hot: 1\n");
    let mut daemon = crowd.start();
    daemon.wait_for_line("replicated txid=");
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("stopping");
    daemon.signal(Signal::TERM);
    let ended = daemon.wait_end(Duration::from_secs(20));
    assert_eq!(ended.code, 6, "{}", ended.log);
    assert!(ended.log.contains("before its turn") && !ended.log.contains("panicked"), "{}", ended.log);
    let mut daemon = crowd.start();
    daemon.wait_for_line("replicating");
    daemon.term().expect_code(0);
    crowd.assert_restored();
}

#[test]
fn with_once_all_have_their_turn_and_the_process_ends() {
    let crowd = Crowd::new("many-once", 9, "max-hot: 2\n");
    (0..9).for_each(|n| crowd.write(n));
    for _ in 0..2 {
        let once = ["replicate".as_ref(), "-once".as_ref(), "-config".as_ref(), crowd.config.as_os_str()];
        run(once).expect_ok();
        crowd.assert_restored();
        (0..9).for_each(|n| crowd.write(n));
    }
}

#[test]
fn what_is_quiet_has_no_engine_and_wakes_with_a_commit() {
    const COUNT: usize = 72;
    let crowd = Crowd::new("many-quiet", COUNT, "");
    let mut daemon = crowd.start();
    daemon.wait_for_line("replicated txid=");
    let cold = |wanted: u64| poll(Duration::from_secs(60), || (crowd.tiers().0 == wanted).then_some(()));
    assert!(cold(COUNT as u64 - 64).is_some(), "{:?}\n{}", crowd.tiers(), daemon.log());
    // Whoever asks for what has not changed wakes nobody.
    assert_eq!(crowd.tiers(), (COUNT as u64 - 64, 0, 64));
    (0..COUNT).for_each(|n| crowd.write(n));
    let replicated =
        |n: &usize| fs::read_dir(crowd.replica(*n).join("ltx/0")).is_ok_and(|list| list.count() >= 2);
    let all = poll(Duration::from_secs(30), || (0..COUNT).all(|n| replicated(&n)).then_some(()));
    assert!(
        all.is_some(),
        "{:?} are behind:\n{}",
        (0..COUNT).filter(|n| !replicated(n)).collect::<Vec<_>>(),
        daemon.log()
    );
    assert!(cold(COUNT as u64 - 64).is_some(), "{:?}\n{}", crowd.tiers(), daemon.log());
    // The end finds a change that nobody has told of yet.
    (0..COUNT).for_each(|n| crowd.write(n));
    daemon.term().expect_code(0);
    crowd.assert_restored();
}

/// With a process that has many, what nothing has happened to since begins without an engine.
#[test]
fn what_is_as_it_was_left_begins_without_an_engine() {
    const COUNT: usize = 70;
    let mut crowd = Crowd::new("many-known", COUNT, "");
    (0..COUNT).for_each(|n| crowd.write(n));
    crowd.apps.clear();
    let mut daemon = crowd.start();
    daemon.wait_for_line("replicated txid=");
    let quiet = || {
        let told = told(&crowd.dir.join("state"));
        let databases = told["databases"].as_array().expect("a list");
        databases.iter().all(|database| database["phase"] == "quiet")
    };
    assert!(poll(Duration::from_secs(60), || quiet().then_some(())).is_some(), "{}", daemon.log());
    daemon.term().expect_code(0);
    let change = |n: usize| {
        let app = open_wal(&crowd.database(n));
        app.execute("insert into t(pad) values (randomblob(300))", []).expect("it writes");
    };
    change(COUNT - 1);
    let mut daemon = crowd.start();
    daemon.wait_for_line("replicated txid=");
    // One that was changed has an engine, as have the first.
    let (cold, ..) = crowd.tiers();
    assert_eq!(cold, COUNT as u64 - 64 - 1, "{}", daemon.log());
    let last = told(&crowd.dir.join("state"))["databases"][COUNT - 2].clone();
    assert_eq!((last["phase"].as_str(), last["lag_frames"].as_u64()), (Some("quiet"), Some(0)), "{last}");
    assert!(last["replicated_txid"].is_string(), "{last}");
    change(COUNT - 2);
    let segments = || fs::read_dir(crowd.replica(COUNT - 2).join("ltx/0")).map_or(0, |list| list.count());
    let before = segments();
    assert!(poll(Duration::from_secs(20), || (segments() > before).then_some(())).is_some());
    daemon.term().expect_code(0);
    crowd.assert_restored();
}
