//! A replica that is kept small: what goes, what stays, who reads it, and who may still write to it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use driftless_tests::command::{restore, run, run_litestream};
use driftless_tests::daemon::ltx_files;
use driftless_tests::db::open_wal;
use driftless_tests::dir::copy_dir;
use driftless_tests::place::Place as _;
use driftless_tests::{Daemon, PATIENCE, TempDir, dump_digest, integrity_check};
use rusqlite::Connection;
use rustix::process::Signal;

/// A database, its replica, and a configuration whose times are seconds.
struct Scene {
    dir: TempDir,
    db: PathBuf,
    replica: PathBuf,
    config: PathBuf,
}

impl Scene {
    fn new(name: &str, snapshot_retention: &str) -> Scene {
        let dir = TempDir::new(name);
        let (home, replica) = (dir.join("home"), dir.join("replica"));
        fs::create_dir(&home).unwrap();
        let (db, config) = (home.join("app.db"), home.join("litestream.yml"));
        let scene = Scene { dir, db, replica, config };
        scene.configure(&scene.db, &scene.config, snapshot_retention);
        scene
    }

    fn configure(&self, db: &Path, config: &Path, snapshot_retention: &str) {
        let text = format!(
            "levels: [{{interval: 1s}}, {{interval: 2s}}]\n\
             snapshot: {{interval: 3s, retention: {snapshot_retention}}}\nl0-retention: 1s\n\
             dbs: [{{path: {}, replica: {{url: {}, sync-interval: 50ms}}}}]\n",
            db.display(),
            self.replica.url(),
        );
        fs::write(config, text).unwrap();
    }

    fn daemon(&self) -> Daemon {
        Daemon::replicate_at(&self.db, &self.replica, &self.config)
    }

    fn first(&self, level: u32) -> u64 {
        ltx_files(&self.replica, level).first().map_or(0, |(min, _)| *min)
    }

    fn head(&self) -> u64 {
        ltx_files(&self.replica, 0).last().map_or(0, |(_, max)| *max)
    }
}

fn open(db: &Path) -> Connection {
    let app = open_wal(db);
    app.execute_batch("create table if not exists t(n integer primary key, pad blob)").unwrap();
    app
}

/// Transactions with some time between, so that each becomes a segment of its own.
fn write(app: &Connection, count: u64) {
    for _ in 0..count {
        app.execute("insert into t(pad) values (randomblob(700))", []).unwrap();
        thread::sleep(Duration::from_millis(60));
    }
}

fn remove_database(db: &Path) {
    for suffix in ["", "-wal", "-shm", "-txid"] {
        let mut name = db.as_os_str().to_owned();
        name.push(suffix);
        let _ = fs::remove_file(name);
    }
}

fn litestream_restore(replica: &Path, to: &Path, txid: Option<&str>) {
    let (url, to) = (replica.url(), to.display().to_string());
    let mut args = vec!["restore", "-o", &to];
    args.extend(txid.iter().flat_map(|txid| ["-txid", *txid]));
    args.push(&url);
    run_litestream(args).expect_ok();
}

/// Both programs restore the same, at the newest state and where files of higher levels end.
fn both_restore(scene: &Scene) {
    run([OsStr::new("verify"), scene.replica.as_os_str()]).expect_ok();
    let base = ltx_files(&scene.replica, 9).iter().map(|(_, max)| *max).min().expect("there is a snapshot");
    let ends: BTreeSet<u64> =
        (1..=9).flat_map(|level| ltx_files(&scene.replica, level)).map(|(_, max)| max).collect();
    let ends: Vec<u64> = ends.into_iter().filter(|end| *end >= base).collect();
    let sample = ends.iter().step_by(ends.len() / 6 + 1).map(|end| Some(format!("{end:016x}")));
    for txid in sample.chain([None]) {
        let (ours, theirs) = (scene.dir.join("ours.db"), scene.dir.join("theirs.db"));
        restore(&scene.replica, &ours, txid.as_deref());
        litestream_restore(&scene.replica, &theirs, txid.as_deref());
        assert_eq!(dump_digest(&ours), dump_digest(&theirs), "at {txid:?}");
        integrity_check(&ours);
        if txid.is_none() {
            assert_eq!(dump_digest(&ours), dump_digest(&scene.db), "the newest state is the source's");
        }
        remove_database(&ours);
        remove_database(&theirs);
    }
}

/// Litestream restores a replica that we compacted, snapshotted and retained, and runs on from it, and we
/// from what it leaves.
#[test]
fn a_retained_replica_is_restored_and_carried_on_by_litestream() {
    let scene = Scene::new("retained", "2s");
    let app = open(&scene.db);
    let mut daemon = scene.daemon();
    let gone = |level: u32| scene.first(level) > 1;
    for _ in 0..40 {
        write(&app, 20);
        if gone(0) && gone(1) && gone(2) {
            break;
        }
    }
    assert!(gone(0) && gone(1) && gone(2), "nothing went:\n{}", daemon.log());
    daemon.wait_for("a report", PATIENCE, |log| log.contains("deleted what need not be kept"));
    // Some twenty segments a second are made, and stay for a few seconds.
    let captures = ltx_files(&scene.replica, 0).len();
    assert!(captures < 200, "{captures} of {} segments are there", scene.head());
    let ended = daemon.term().expect_code(0);
    assert!(!ended.log.contains(" ERROR ") && !ended.log.contains(" WARN "), "{}", ended.log);
    both_restore(&scene);

    let before = scene.head();
    let mut theirs = Daemon::litestream_at(&scene.db, &scene.replica, &scene.config);
    theirs.wait_until("segments of its own", PATIENCE, || {
        write(&app, 5);
        scene.head() > before + 5
    });
    let ended = theirs.term().expect_code(0);
    assert!(!ended.log.contains("level=ERROR"), "{}", ended.log);
    both_restore(&scene);

    let mut ours = scene.daemon();
    let their_end = scene.head();
    ours.wait_until("segments of our own", PATIENCE, || {
        write(&app, 5);
        scene.head() > their_end + 5
    });
    ours.term().expect_code(0);
    both_restore(&scene);
}

/// A process that was asleep while another one went on and deleted what it had compacted: the next name is
/// free then, its put succeeds, and nothing of it is reported.
#[test]
fn who_slept_while_another_went_on_is_fenced_although_the_name_is_free() {
    let scene = Scene::new("asleep", "1h");
    let clone = scene.dir.join("clone");
    let app = open(&scene.db);
    let daemon = scene.daemon();
    write(&app, 30);
    daemon.term().expect_code(0);
    drop(app);
    copy_dir(scene.db.parent().unwrap(), &clone);
    let (clone_db, clone_config) = (clone.join("app.db"), clone.join("litestream.yml"));
    scene.configure(&clone_db, &clone_config, "1h");
    let end = scene.head();

    // It has found that the replica ends where it does itself.
    let mut sleeper = Daemon::replicate_at(&clone_db, &scene.replica, &clone_config);
    sleeper.wait_for("the end", PATIENCE, |log| log.contains("the replica ends at transaction"));
    let clone_app = open(&clone_db);
    sleeper.wait_until("it to follow", PATIENCE, || scene.head() >= end);
    thread::sleep(Duration::from_secs(1));
    let met = scene.head();
    sleeper.signal(Signal::STOP);

    let app = open(&scene.db);
    let mut original = scene.daemon();
    for _ in 0..40 {
        write(&app, 10);
        if scene.first(0) > met + 1 {
            break;
        }
    }
    assert!(scene.first(0) > met + 1, "{met} and what follows is there still:\n{}", original.log());
    assert!(original.is_running());

    let before = sleeper.log().len();
    sleeper.signal(Signal::CONT);
    write(&clone_app, 1);
    let ended = sleeper.wait_end(PATIENCE).expect_code(5);
    let after = &ended.log[before..];
    assert!(after.contains("another process went on while this one was away"), "{after}");
    assert!(!after.contains("replicated txid="), "it was reported all the same: {after}");

    write(&app, 30);
    original.term().expect_code(0);
    let restored = scene.dir.join("restored.db");
    restore(&scene.replica, &restored, None);
    assert_eq!(dump_digest(&restored), dump_digest(&scene.db));
}

#[test]
fn a_dry_run_names_what_goes_and_a_pass_by_hand_takes_it() {
    let scene = Scene::new("by-hand", "1h");
    let app = open(&scene.db);
    let text = fs::read_to_string(&scene.config).unwrap();
    fs::write(&scene.config, format!("retention: {{enabled: false}}\n{text}")).unwrap();
    let mut daemon = scene.daemon();
    write(&app, 60);
    daemon.wait_until("levels and a snapshot", PATIENCE, || {
        write(&app, 1);
        [1, 2, 9].iter().all(|level| !ltx_files(&scene.replica, *level).is_empty())
    });
    daemon.term().expect_code(0);
    assert_eq!(scene.first(0), 1, "nothing goes where retention is off");
    thread::sleep(Duration::from_millis(1_100));

    let retain = |more: &[&str]| {
        let mut args = vec!["retain".as_ref(), "-json".as_ref(), "-l0-retention".as_ref(), "1s".as_ref()];
        args.extend(more.iter().map(OsStr::new));
        args.push(scene.replica.as_os_str());
        run(args).expect_ok().json()
    };
    let would = retain(&["-dry-run"]);
    assert_eq!(scene.first(0), 1, "a dry run deletes nothing");
    let removed = would["removed"].as_array().expect("a list");
    assert!(removed.len() > 20, "{would}");
    assert_eq!((&removed[0]["level"], &removed[0]["min_txid"]), (&0.into(), &"0000000000000001".into()));
    assert!(removed[0]["because"].as_str().unwrap().starts_with("compacted into 1/"), "{would}");
    let kept_by_usual_times = run([OsStr::new("retain"), OsStr::new("-dry-run"), scene.replica.as_os_str()]);
    assert!(kept_by_usual_times.expect_ok().out.contains("nothing may go"), "five minutes have not passed");

    let did = retain(&[]);
    assert_eq!((&did["removed"], &did["dry_run"]), (&would["removed"], &false.into()));
    assert_eq!(scene.first(0), removed.len() as u64 + 1);
    assert_eq!(retain(&[])["objects"], 0, "a second pass finds nothing");
    both_restore(&scene);
    run(["retain", "-l0-retention", "soon", &scene.replica.url()]).expect_error(2, &["-l0-retention"]);
    run(["retain"]).expect_error(2, &[]);
}
