//! Two of us at one thing at the same time: one replica, or one restored file.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use driftless_tests::app::App;
use driftless_tests::command::{exit_code, finish};
use driftless_tests::daemon::ltx_files;
use driftless_tests::dir::copy_dir;
use driftless_tests::scene::{Scene, names};
use driftless_tests::sidecar::{Setup, Sidecar, assert_equal_to_source, is_caught_up, restore_checked};
use driftless_tests::store_faults::FsyncFaults;
use driftless_tests::{PATIENCE, TempDir, driftless, dump_digest, poll, wait_for};
use serde_json::json;

/// Transactions whose payload the writer keeps.
const KEEP: u64 = 300;

/// Waits until one of both has ended; that one, and the other.
fn first_to_end(a: Sidecar, b: Sidecar) -> (Sidecar, Sidecar) {
    let mut both = [a, b];
    let ended = poll(PATIENCE, || both.iter().position(|one| one.count("stopped: ") > 0));
    let at = ended.unwrap_or_else(|| panic!("both go on: {:?} {:?}", both[0].lines(), both[1].lines()));
    both[at].wait(PATIENCE);
    let [a, b] = both;
    if at == 0 { (a, b) } else { (b, a) }
}

/// A second process with a state directory of its own is kept out by no lock. It can prove that
/// this is the replica's database, since it is; whoever puts first then fences the other.
#[test]
fn of_two_daemons_on_one_database_and_one_replica_one_is_fenced() {
    for begun_before in [true, false] {
        let dir = TempDir::new("rivals");
        let (database, replica) = (dir.join("app.db"), dir.join("replica"));
        let mut app = App::start();
        app.prepare("a", &database);
        app.tx("a");
        let start = |name: &str| {
            let log = dir.join(&format!("{name}.log"));
            Setup::new(&database, &replica).state_dir(&dir.join(name)).log(&log).start()
        };
        let first = start("first");
        if begun_before {
            first.caught_up();
        }
        let second = start("second");
        app.start_writer(&database, json!({ "rate": 200, "keep": KEEP }));
        let (mut fenced, left) = first_to_end(first, second);
        assert_eq!(fenced.wait(PATIENCE).code(), Some(5), "{:?}", fenced.lines());
        assert!(fenced.count("-adopt") > 0, "no hint: {:?}", fenced.lines());
        // The one that is left is not disturbed by the other's attempts.
        let committed = app.pause_writer();
        wait_for("all on the replica", PATIENCE, || left.status().is_some_and(|told| is_caught_up(&told)));
        let seen = restore_checked(&replica, None, &dir.join("copy.db"), KEEP).expect("it restores");
        assert_eq!(seen.transactions, committed + 1);
        app.stop_writer();
        drop(app);
        left.caught_up();
        left.stop();
        let objects = ltx_files(&replica, 0);
        let expected: Vec<(u64, u64)> = (1..=objects.len() as u64).map(|txid| (txid, txid)).collect();
        assert_eq!(objects, expected, "a gap or a double in level 0");
        for (_, txid) in objects {
            restore_checked(&replica, Some(txid), &dir.join("copy.db"), KEEP).expect("it is on the replica");
        }
        assert_equal_to_source(&database, &replica);
    }
}

/// Two databases, each with its own state, that name one replica from the first moment on.
#[test]
fn of_two_databases_that_begin_one_replica_one_is_fenced() {
    let dir = TempDir::new("begin");
    let replica = dir.join("replica");
    let databases = [dir.join("one.db"), dir.join("two.db")];
    let mut app = App::start();
    for (name, database) in ["a", "b"].iter().zip(&databases) {
        app.prepare(name, database);
        app.tx(name);
    }
    let [one, two] = databases.each_ref().map(|database| Sidecar::of(database, &replica));
    let one_is = one.pid();
    let (mut fenced, left) = first_to_end(one, two);
    assert_eq!(fenced.wait(PATIENCE).code(), Some(5), "{:?}", fenced.lines());
    let owner = &databases[usize::from(left.pid() != one_is)];
    drop(app);
    left.caught_up();
    left.stop();
    assert_equal_to_source(owner, &replica);
}

/// A copy of the host with its local state, started when the original has gone on: what the copy
/// knows is the replica's past.
#[test]
fn a_clone_of_the_host_is_fenced() {
    let dir = TempDir::new("clone");
    let (home, clone, replica) = (dir.join("home"), dir.join("clone"), dir.join("replica"));
    fs::create_dir(&home).expect("ours");
    let database = home.join("app.db");
    let mut app = App::start();
    app.prepare("a", &database);
    app.tx("a");
    let sidecar = Sidecar::of(&database, &replica);
    sidecar.caught_up();
    sidecar.stop();
    app.close("a");
    copy_dir(&home, &clone);

    let original = Sidecar::of(&database, &replica);
    app.prepare("a", &database);
    app.tx("a");
    original.caught_up();
    let before = ltx_files(&replica, 0);
    app.prepare("clone", &clone.join("app.db"));
    app.try_tx("clone", 9, 300).expect("nothing else writes");
    let mut copy = Sidecar::of(&clone.join("app.db"), &replica);
    assert_eq!(copy.wait(PATIENCE).code(), Some(5), "{:?}", copy.lines());
    assert!(copy.count("-adopt") > 0, "no hint: {:?}", copy.lines());
    assert_eq!(ltx_files(&replica, 0), before, "the clone has written");
    app.tx("a");
    original.caught_up();
    original.stop();
    drop(app);
    assert_equal_to_source(&database, &replica);
}

/// Starts a restore that takes its time before the file is put in place.
fn slow_restore(faults: &FsyncFaults, replica: &Path, target: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(driftless());
    command.args(["restore", "-o"]).arg(target).args(args).arg(replica);
    command.envs(faults.variables()).env("NO_COLOR", "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("the binary starts")
}

/// Restores of different states to one path: who says that all went well has put its own there. A
/// restore that was killed leaves a file, which is in nobody's way.
#[test]
fn two_restores_to_one_path() {
    let scene = Scene::replicated("two-restores", 3);
    let home = scene.dir.join("home");
    fs::create_dir(&home).expect("ours");
    let faults = FsyncFaults::new(scene.dir.path());
    faults.delay(".driftless-restore", 1_500);
    let (target, building) = (home.join("target.db"), home.join("target.db.driftless-restore"));
    for args in [&["-txid", "1"][..], &["-force", "-txid", "1"][..]] {
        let mut killed = slow_restore(&faults, &scene.replica, &target, args);
        wait_for("a file being built", PATIENCE, || building.exists());
        killed.kill().expect("it is ours");
        killed.wait().expect("it is ours");
        assert!(building.exists(), "killed too late to leave anything");

        let first = slow_restore(&faults, &scene.replica, &target, args);
        wait_for("another file being built", PATIENCE, || {
            fs::metadata(&building).is_ok_and(|facts| facts.len() > 0 && is_written_by(first.id(), &building))
        });
        let mut second = Command::new(driftless());
        second.args(["restore", "-force", "-txid", "3", "-o"]).arg(&target).arg(&scene.replica);
        let second = finish(&mut second).expect_error(1, &["another restore", "target.db"]).expect_hint();
        let first = first.wait_with_output().expect("it is ours");
        assert_eq!(exit_code(first.status), 0, "{}", String::from_utf8_lossy(&first.stderr));
        assert!(second.took < Duration::from_millis(1_400), "it waited for the first: {:?}", second.took);
        assert_eq!(names(&home), ["target.db"], "{args:?}");
        assert_eq!(dump_digest(&target), scene.digests[0], "{args:?}");
        // Python has opened it.
        for suffix in ["-wal", "-shm"] {
            fs::remove_file(home.join(format!("target.db{suffix}"))).expect("a database in WAL mode");
        }
    }
}

/// Whether a process has a file open.
fn is_written_by(pid: u32, file: &Path) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.filter_map(Result::ok).any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == file))
}
