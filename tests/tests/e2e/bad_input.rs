//! What people give by mistake: one clear error each, with a documented exit code, and nothing
//! that exists is harmed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use driftless_tests::command::{error_text, finish, restore};
use driftless_tests::daemon::{level0, status};
use driftless_tests::db::{content_lines, open_wal, pragma};
use driftless_tests::scene::{Scene, flip, names};
use driftless_tests::{Daemon, PATIENCE, Ran, TempDir, driftless, dump_digest, pages, python, run};
use rusqlite::Connection;

/// Runs `driftless replicate -once DB REPLICA`.
#[track_caller]
fn once(db: &Path, replica: &Path) -> Ran {
    run(["replicate".as_ref(), "-once".as_ref(), db.as_os_str(), replica.as_os_str()])
}

/// A file that is no database stays as it is, and nothing comes to the replica.
fn check_refused(dir: &TempDir, bytes: &[u8]) {
    let (db, replica) = (dir.join("app.db"), dir.join("replica"));
    fs::write(&db, bytes).unwrap();
    once(&db, &replica).expect_error(2, &["not a SQLite database"]).expect_hint();
    let ended = Daemon::replicate(&db, &replica).wait_end(PATIENCE).expect_code(2);
    assert!(error_text(&ended.log).contains("not a SQLite database"), "{}", ended.log);
    assert_eq!(fs::read(&db).unwrap(), bytes);
    assert_eq!(level0(&replica), [0_u64; 0]);
    assert!(!dir.join("app.db-wal").exists() && !dir.join("app.db-shm").exists());
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    check_refused(&TempDir::new("text"), "to whom it may concern\n".repeat(500).as_bytes());
}

#[test]
fn a_database_that_looks_encrypted_is_refused() {
    let noise: Vec<u8> = (0..16_384_u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 21) as u8).collect();
    check_refused(&TempDir::new("encrypted"), &noise);
}

#[test]
fn a_directory_is_no_database_and_a_file_no_replica() {
    let scene = Scene::fresh("kinds");
    let folder = scene.dir.join("folder");
    fs::create_dir(&folder).unwrap();
    once(&folder, &scene.replica).expect_error(2, &["is a directory"]).expect_hint();
    once(&scene.db, &scene.config).expect_error(2, &["is a file"]).expect_hint();
}

#[test]
fn a_missing_database_is_waited_for_and_then_replicated() {
    let dir = TempDir::new("missing");
    let (db, replica) = (dir.join("app.db"), dir.join("replica"));
    once(&db, &replica).expect_error(1, &["the database does not exist"]).expect_hint();
    let mut daemon = Daemon::replicate(&db, &replica);
    daemon.wait_for_line("waiting: the database does not exist");
    let told = status(&db);
    assert_eq!(told["status"], "no database");
    assert_eq!(told["waiting"], "the database does not exist");
    assert!(!db.exists(), "waiting must not make the file");
    let app = open_wal(&db);
    app.execute_batch("create table t(x); insert into t values ('at last')").unwrap();
    daemon.wait_until("the first segment", PATIENCE, || !level0(&replica).is_empty());
    daemon.term().expect_code(0);
    let restored = dir.join("restored.db");
    restore(&replica, &restored, None);
    assert_eq!(dump_digest(&restored), dump_digest(&db));
}

/// Zero bytes, or fewer than a header: an application that has not begun. And one page, which is
/// what it is after it chose WAL mode and nothing else.
#[test]
fn a_database_of_no_page_is_waited_for_and_one_of_one_page_replicated() {
    for (bytes, why) in [(0, "the database is empty"), (99, "shorter than its header")] {
        let dir = TempDir::new("no-page");
        let (db, replica) = (dir.join("app.db"), dir.join("replica"));
        fs::write(&db, vec![0; bytes]).unwrap();
        once(&db, &replica).expect_error(1, &[why]).expect_hint();
        let mut daemon = Daemon::replicate(&db, &replica);
        daemon.wait_for_line(why);
        let told = status(&db);
        assert!(told["waiting"].as_str().expect("waiting").contains(why), "{told}");
        assert_eq!(fs::metadata(&db).unwrap().len(), bytes as u64, "waiting must not write");
        assert!(!dir.join("app.db-wal").exists() && !dir.join("app.db-shm").exists());
        daemon.term().expect_code(0);

        let mut daemon = Daemon::replicate(&db, &replica);
        daemon.wait_for_line(why);
        // SQLite takes less than a header for nothing only if it is nothing.
        fs::write(&db, b"").unwrap();
        let app = open_wal(&db);
        assert_eq!(pragma::<i64>(&app, "page_count"), 1);
        daemon.wait_until("the first segment", PATIENCE, || !level0(&replica).is_empty());
        let restored = dir.join("restored.db");
        restore(&replica, &restored, None);
        assert_eq!(pages(&restored), 1);
        app.execute_batch("create table t(x); insert into t values ('at last')").unwrap();
        drop(app);
        daemon.term().expect_code(0);
        fs::remove_file(&restored).unwrap();
        restore(&replica, &restored, None);
        assert_eq!(dump_digest(&restored), dump_digest(&db));
    }
}

#[test]
fn a_missing_directory_of_a_database_is_waited_for() {
    let dir = TempDir::new("missing-dir");
    let (db, replica, state) = (dir.join("later/app.db"), dir.join("replica"), dir.join("state"));
    let args: [&OsStr; 4] = ["-state-dir".as_ref(), state.as_os_str(), db.as_os_str(), replica.as_os_str()];
    let mut command = Command::new(driftless());
    let mut daemon = Daemon::spawn(command.arg("replicate").args(args), &dir.join("log"));
    daemon.wait_for_line("waiting: the database does not exist");
    fs::create_dir(dir.join("later")).unwrap();
    open_wal(&db).execute_batch("create table t(x); insert into t values ('at last')").unwrap();
    daemon.wait_until("the first segment", PATIENCE, || !level0(&replica).is_empty());
    daemon.term().expect_code(0);
}

#[test]
fn a_database_in_rollback_mode_is_left_alone_until_it_is_switched() {
    let dir = TempDir::new("rollback");
    let (db, replica) = (dir.join("app.db"), dir.join("replica"));
    let app = Connection::open(&db).unwrap();
    app.execute_batch("create table t(x); insert into t values (1)").unwrap();
    once(&db, &replica).expect_error(1, &["rollback"]).expect_hint();
    let mut daemon = Daemon::replicate(&db, &replica);
    let line = daemon.wait_for_line("waiting: the database is in rollback-journal mode");
    assert!(line.contains("PRAGMA journal_mode=WAL"), "the remedy is named: {line}");
    let told = status(&db);
    assert_eq!(told["status"], "error");
    assert!(told["hint"].as_str().expect("a hint").contains("journal_mode"), "{told}");
    assert_eq!(pragma::<String>(&app, "journal_mode"), "delete", "nobody converts it unasked");
    app.execute_batch("insert into t values (2)").unwrap();
    assert_eq!(level0(&replica), [0_u64; 0]);
    // What it could not see it does not call replicated.
    daemon.term().expect_code(6);

    let mut daemon = Daemon::replicate(&db, &replica);
    daemon.wait_for_line("waiting: the database is in rollback-journal mode");
    assert_eq!(pragma::<String>(&app, "journal_mode = wal"), "wal");
    app.execute_batch("insert into t values (3)").unwrap();
    let restored = dir.join("restored.db");
    daemon.wait_until("the third row on the replica", PATIENCE, || {
        let _ = fs::remove_file(&restored);
        let ran = run(["restore".as_ref(), "-o".as_ref(), restored.as_os_str(), replica.as_os_str()]);
        ran.code == 0 && content_lines(&restored, "select x from t").len() == 3
    });
    daemon.term().expect_code(0);
    assert_eq!(dump_digest(&restored), dump_digest(&db));

    // The same where a history has been going on.
    assert_eq!(pragma::<String>(&app, "journal_mode = delete"), "delete");
    app.execute_batch("insert into t values (4)").unwrap();
    let mut daemon = Daemon::replicate(&db, &replica);
    daemon.wait_for_line("waiting: the database is in rollback-journal mode");
    daemon.term().expect_code(6);
}

#[test]
fn a_corrupt_segment_is_named_and_the_target_survives() {
    let scene = Scene::replicated("corrupt", 2);
    let (file, target) = (scene.level0(1), scene.dir.join("target.db"));
    let whole = fs::read(&file).unwrap();
    open_wal(&target).execute_batch("create table precious(x); insert into precious values (1)").unwrap();
    let before = fs::read(&target).unwrap();
    let standing = names(scene.dir.path());
    // In the first page's frame, in the middle of the pages, and in the index behind them.
    for at in [120, whole.len() / 2, whole.len() - 30] {
        flip(&file, at);
        let args: [&OsStr; 7] = [
            "restore".as_ref(),
            "-force".as_ref(),
            "-txid".as_ref(),
            "1".as_ref(),
            "-o".as_ref(),
            target.as_os_str(),
            scene.replica.as_os_str(),
        ];
        run(args).expect_error(4, &[&Scene::object(1)]).expect_hint();
        assert_eq!(fs::read(&target).unwrap(), before, "byte {at}: the old database is gone");
        fs::write(&file, &whole).unwrap();
    }
    fs::write(&file, &whole[..whole.len() - 20]).unwrap();
    let other = scene.dir.join("other.db");
    run(["restore".as_ref(), "-o".as_ref(), other.as_os_str(), scene.replica.as_os_str()])
        .expect_error(4, &[&Scene::object(1)]);
    assert_eq!(names(scene.dir.path()), standing, "a failed restore leaves nothing behind");
}

#[test]
fn a_typo_in_a_url_is_answered_with_what_was_meant() {
    let scene = Scene::fresh("typo");
    for url in ["fiel:///tmp/replica", "flie:///tmp/replica", "file:/tmp/replica", "files:///tmp/replica"] {
        let ran = run(["replicate".as_ref(), scene.db.as_os_str(), OsStr::new(url)])
            .expect_error(2, &[])
            .expect_hint();
        assert!(ran.err.contains("file:///tmp/replica"), "{url}: {}", ran.err);
        run(["restore", "-o", "/nonexistent/x", url]).expect_error(2, &[]).expect_hint();
    }
    run(["replicate".as_ref(), scene.db.as_os_str(), OsStr::new("s4://bucket/path")])
        .expect_error(2, &["s4://"])
        .expect_hint();
    run(["replicate".as_ref(), OsStr::new("file:///tmp/replica"), scene.db.as_os_str()])
        .expect_error(2, &["url where the database should be"])
        .expect_hint();
    assert_eq!(names(scene.dir.path()), ["app.db", "driftless.yml"], "a refused command makes nothing");
}

#[test]
fn a_wrong_command_line_is_refused_with_a_guess() {
    let scene = Scene::fresh("usage");
    let replicate = |flag: &str| {
        run(["replicate".as_ref(), OsStr::new(flag), scene.db.as_os_str(), scene.replica.as_os_str()])
    };
    let ran = replicate("-onec").expect_error(2, &["-onec"]).expect_hint();
    assert!(ran.err.contains("did you mean -once?"), "{}", ran.err);
    replicate("--no-such-flag").expect_error(2, &["-no-such-flag"]).expect_hint();
    let ran = run(["restroe"]).expect_error(2, &["restroe"]).expect_hint();
    assert!(ran.err.contains("restore"), "{}", ran.err);
    run(Vec::<&str>::new()).expect_error(2, &[]).expect_hint();
    run(["replicate".as_ref(), scene.db.as_os_str()]).expect_error(2, &["no replica"]).expect_hint();
    run(["replicate", "a", "b", "c"]).expect_error(2, &["too many"]).expect_hint();
    run(["restore", "-txid"]).expect_error(2, &["-txid"]);
    run(["restore", "-txid", "xyz", "/r"]).expect_error(2, &["xyz"]).expect_hint();
    run(["restore", "-timestamp", "yesterday", "/r"]).expect_error(2, &["yesterday"]).expect_hint();
    run(["restore", "-txid", "1", "-timestamp", "2026-01-01T00:00:00Z", "/r"])
        .expect_error(2, &["-timestamp"]);
    assert_eq!(names(scene.dir.path()), ["app.db", "driftless.yml"], "a refused command makes nothing");
}

#[test]
fn a_configuration_that_is_not_understood_is_refused() {
    let dir = TempDir::new("config");
    let config = dir.join("driftless.yml");
    let replicate = |text: &str| {
        fs::write(&config, text).unwrap();
        run(["replicate".as_ref(), "-config".as_ref(), config.as_os_str()])
    };
    let ran = replicate("dbs:\n  - pth: /tmp/a.db\n").expect_error(2, &["pth"]).expect_hint();
    assert!(ran.err.contains("path"), "{}", ran.err);
    replicate("dbs: [").expect_error(2, &[]);
    replicate("dbs: []\n").expect_error(2, &["no database"]).expect_hint();
    replicate("dbs:\n  - path: /tmp/a.db\n    replica:\n      url: s4://b/p\n").expect_error(2, &["s4://"]);
    replicate("dbs:\n  - path: /tmp/a.db\n    replica:\n      type: file\n      path: /r\n      age:\n        identities: [x]\n")
        .expect_error(2, &["age"])
        .expect_hint();
    fs::remove_file(&config).unwrap();
    run(["replicate".as_ref(), "-config".as_ref(), config.as_os_str()]).expect_error(2, &["driftless.yml"]);
}

#[test]
fn a_replica_of_another_database_is_left_alone_unless_adopted() {
    let mut first = Scene::replicated("owner", 2);
    let other = Scene::fresh("stranger");
    let before = names(&first.replica.join("ltx/0"));
    let ran = once(&other.db, &first.replica).expect_error(5, &[]).expect_hint();
    assert!(ran.err.contains("-adopt"), "{}", ran.err);
    let ended = Daemon::replicate(&other.db, &first.replica).wait_end(PATIENCE).expect_code(5);
    assert!(error_text(&ended.log).contains("hint: "), "{}", ended.log);
    assert_eq!(names(&first.replica.join("ltx/0")), before, "the refused database has written");
    // The owner goes on as if nothing had happened.
    first.write(3);
    first.replicate_once();

    let args: [&OsStr; 5] = [
        "replicate".as_ref(),
        "-once".as_ref(),
        "-adopt".as_ref(),
        other.db.as_os_str(),
        first.replica.as_os_str(),
    ];
    run(args).expect_ok();
    let restored = first.dir.join("restored.db");
    restore(&first.replica, &restored, None);
    assert_eq!(dump_digest(&restored), dump_digest(&other.db));
    // What was there stays, and its owner is fenced now.
    for (txid, digest) in (1..).zip(&first.digests) {
        let earlier = first.dir.join(&format!("earlier-{txid}.db"));
        restore(&first.replica, &earlier, Some(&format!("{txid:x}")));
        assert_eq!(&dump_digest(&earlier), digest, "txid {txid}");
    }
    first.write(4);
    once(&first.db, &first.replica).expect_error(5, &[]).expect_hint();
    restore(&first.replica, &first.dir.join("again.db"), None);
    assert_eq!(dump_digest(&first.dir.join("again.db")), dump_digest(&other.db));
}

#[test]
fn two_daemons_do_not_share_a_state_directory() {
    let scene = Scene::fresh("two");
    let mut first = Daemon::replicate(&scene.db, &scene.replica);
    first.wait_until("the first segment", PATIENCE, || !level0(&scene.replica).is_empty());
    let elsewhere = scene.dir.join("elsewhere");
    for replica in [&scene.replica, &elsewhere] {
        once(&scene.db, replica)
            .expect_error(2, &["another driftless process", ".app.db-driftless"])
            .expect_hint();
    }
    assert!(!elsewhere.exists());
    // The first one is as well as before.
    scene.write(1);
    let restored = scene.dir.join("restored.db");
    first.wait_until("what was written since", PATIENCE, || {
        let _ = fs::remove_file(&restored);
        restore(&scene.replica, &restored, None);
        dump_digest(&restored) == dump_digest(&scene.db)
    });
    first.term().expect_code(0);
}

/// The user that commands of permission tests run as.
const NOBODY: u32 = 65_534;

/// `driftless`, run as a user who may not do everything: as nobody where the tests run as root.
struct Weak {
    dir: TempDir,
    binary: PathBuf,
    root: bool,
}

impl Weak {
    fn new(name: &str) -> Weak {
        let dir = TempDir::new(name);
        let root = rustix::process::geteuid().is_root();
        // The target directory may lie where nobody gets to.
        let binary = dir.join("driftless");
        // By another process: what other tests fork meanwhile would inherit our descriptor, and the
        // kernel runs no file that is open for writing.
        assert!(Command::new("cp").arg(driftless()).arg(&binary).status().unwrap().success());
        Weak { dir, binary, root }
    }

    fn command(&self, args: &[&OsStr]) -> Command {
        if !self.root {
            let mut command = Command::new(&self.binary);
            command.args(args);
            return command;
        }
        let mut command = Command::new("python3");
        let script = "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); os.execv(sys.argv[1], sys.argv[1:])";
        command.args(["-I", "-c", script]).arg(&self.binary).args(args);
        command
    }

    #[track_caller]
    fn run(&self, args: &[&OsStr]) -> Ran {
        finish(&mut self.command(args))
    }

    /// A database that belongs to the user that commands run as.
    fn database(&self, name: &str) -> PathBuf {
        let db = self.dir.join(name);
        open_wal(&db).execute_batch("create table t(x); insert into t values (1)").unwrap();
        if self.root {
            chown(&db, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        db
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_database_that_may_not_be_read_is_reported() {
    let weak = Weak::new("denied-db");
    let db = weak.database("app.db");
    mode(&db, 0o000);
    let args: [&OsStr; 4] =
        ["replicate".as_ref(), "-once".as_ref(), db.as_os_str(), weak.dir.path().as_os_str()];
    let ran = weak.run(&args).expect_error(1, &["app.db", "ermission denied"]).expect_hint();
    assert!(ran.err.contains("read and write access"), "{}", ran.err);
}

#[test]
fn a_replica_that_may_not_be_written_is_tried_again_and_reported() {
    let weak = Weak::new("denied-replica");
    let db = weak.database("app.db");
    let (closed, config) = (weak.dir.join("closed"), weak.dir.join("driftless.yml"));
    fs::create_dir(&closed).unwrap();
    mode(&closed, 0o555);
    let text = format!(
        "shutdown-sync-timeout: 1s\ndbs:\n  - path: {}\n    replica:\n      path: {}/replica\n",
        db.display(),
        closed.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = weak.command(&["replicate".as_ref(), "-config".as_ref(), config.as_os_str()]);
    let mut daemon = Daemon::spawn(&mut command, &weak.dir.join("log"));
    let line = daemon.wait_for_line("ermission denied");
    assert!(line.contains("closed/replica"), "{line}");
    let told = status(&db);
    assert_eq!(told["status"], "error", "{told}");
    assert!(told["last_error"].as_str().expect("an error").contains("ermission denied"), "{told}");
    let ended = daemon.term().expect_code(6);
    let error = error_text(&ended.log);
    assert!(error.contains("0000000000000001") && error.contains("ermission denied"), "{error}");
    mode(&closed, 0o777);
    let mut command =
        weak.command(&["replicate".as_ref(), "-once".as_ref(), "-config".as_ref(), config.as_os_str()]);
    finish(&mut command).expect_ok();
    assert_eq!(level0(&closed.join("replica")), [1]);
}

#[test]
fn a_place_that_may_not_be_written_or_read_stops_a_restore() {
    let weak = Weak::new("denied-restore");
    let scene = Scene::replicated("denied-source", 1);
    let closed = weak.dir.join("closed");
    fs::create_dir(&closed).unwrap();
    mode(&closed, 0o555);
    let target = closed.join("x.db");
    let args: [&OsStr; 4] =
        ["restore".as_ref(), "-o".as_ref(), target.as_os_str(), scene.replica.as_os_str()];
    weak.run(&args).expect_error(1, &["closed/x.db", "ermission denied"]).expect_hint();
    mode(&closed, 0o777);
    mode(&scene.level0(1), 0o000);
    weak.run(&args).expect_error(1, &[&Scene::object(1), "ermission denied"]).expect_hint();
    mode(&scene.level0(1), 0o644);
    assert_eq!(names(&closed), Vec::<String>::new());
    weak.run(&args).expect_ok();
}

#[test]
fn a_state_directory_that_cannot_be_made_is_reported() {
    let weak = Weak::new("denied-state");
    let db = weak.database("app.db");
    let closed = weak.dir.join("closed");
    fs::create_dir(&closed).unwrap();
    mode(&closed, 0o555);
    let (state, replica) = (closed.join("state"), weak.dir.join("replica"));
    let args: [&OsStr; 6] = [
        "replicate".as_ref(),
        "-once".as_ref(),
        "-state-dir".as_ref(),
        state.as_os_str(),
        db.as_os_str(),
        replica.as_os_str(),
    ];
    weak.run(&args).expect_error(2, &["closed/state", "ermission denied"]).expect_hint();
    assert!(!replica.exists());
}

/// A transaction that crashed the application's commit leaves a journal in rollback mode; opening it
/// would roll it back in the application's stead.
#[test]
fn a_hot_rollback_journal_is_not_rolled_back_by_us() {
    let dir = TempDir::new("hot");
    let (db, replica) = (dir.join("app.db"), dir.join("replica"));
    python(
        "
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('create table t(x)')
db.execute('pragma cache_size = 1')
db.execute('begin')
for i in range(2000):
    db.execute('insert into t values (?)', (os.urandom(200),))
os._exit(0)
",
        &[db.as_os_str()],
    );
    let journal = dir.join("app.db-journal");
    let (before, journal_before) = (fs::read(&db).unwrap(), fs::read(&journal).unwrap());
    assert!(!journal_before.is_empty());
    once(&db, &replica).expect_error(1, &["journal"]).expect_hint();
    assert_eq!(fs::read(&db).unwrap(), before);
    assert_eq!(fs::read(&journal).unwrap(), journal_before);
    assert_eq!(level0(&replica), [0_u64; 0]);
}
