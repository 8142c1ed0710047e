//! The database lies where not everything is possible, or is held by an application that shares
//! nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use driftless_tests::PATIENCE;
use driftless_tests::app::App;
use driftless_tests::command::finish;
use driftless_tests::driftless;
use driftless_tests::proc::status_kib;
use driftless_tests::scene::names;
use driftless_tests::sidecar::{Sidecar, assert_equal_to_source};
use driftless_tests::store_faults::{Bind, Tmpfs};
use serde_json::json;

use super::beside;
use crate::side_by_side::Scene;

/// Stops a replicator that could not see what was committed.
fn stops_with_commits_unseen(mut sidecar: Sidecar) {
    sidecar.ask_to_stop();
    assert_eq!(sidecar.wait(PATIENCE).code(), Some(6), "{:?}", sidecar.lines());
}

/// SQLite can read there, in a way of its own, and hold no lock; so we wait.
#[test]
fn a_read_only_mount_is_waited_for() {
    let mut scene = Scene::new("read-only");
    let (home, state) = (scene.dir.join("home"), scene.dir.join("state"));
    let volume = Tmpfs::mount(&home, 16 << 10);
    scene.database = home.join("app.db");
    let mut app = App::start();
    app.prepare("a", &scene.database);
    app.tx("a");
    app.close("a");
    volume.remount(true);
    let before = fs::read(&scene.database).expect("it is closed");

    let mut once = Command::new(driftless());
    once.args(["replicate", "-once", "-state-dir"]).arg(&state).args([&scene.database, &scene.replica]);
    finish(&mut once).expect_error(1, &["for reading only"]).expect_hint();

    // The log and the configuration lie beside the database: not here.
    let start = || scene.setup().state_dir(&state).log(&scene.dir.join("log"));
    let mut sidecar = start().start();
    sidecar.wait_line("waiting: the database can be opened for reading only");
    let status = sidecar.status().expect("it runs");
    assert_eq!((&status["phase"], &status["commits_unseen"]), (&json!("waiting"), &json!(true)), "{status}");
    assert!(status["hint"].is_string(), "{status}");
    stops_with_commits_unseen(sidecar);
    assert_eq!(names(&home), ["app.db"]);
    assert_eq!(fs::read(&scene.database).expect("it is closed"), before);

    let mut sidecar = start().start();
    sidecar.wait_line("waiting: the database can be opened for reading only");
    volume.remount(false);
    app.prepare("a", &scene.database);
    app.tx("a");
    sidecar.wait_line("access to the database");
    drop(app);
    assert_eq!(scene.ends_equal(sidecar, u64::MAX), 2);
}

/// An application in exclusive mode keeps its wal-index to itself: nobody else can read.
#[test]
fn an_exclusive_application_is_followed_once_it_lets_go() {
    let (scene, mut app) = Scene::with_app("exclusive");
    app.tx("a");
    app.close("a");
    app.open("a", &scene.database);
    app.sql("a", "PRAGMA locking_mode=EXCLUSIVE");
    app.tx("a");
    assert!(!beside(&scene.database, "-shm"), "it is not exclusive");
    let mut once = Command::new(driftless());
    once.args(["replicate", "-once"]).args([&scene.database, &scene.replica]);
    finish(&mut once).expect_error(1, &["nobody but the application"]).expect_hint();
    let start = || scene.setup().settings("shutdown-sync-timeout: 3s").start();
    let mut sidecar = start();
    sidecar.wait_line("waiting: nobody but the application may read the database");
    app.tx("a");
    let status = sidecar.status().expect("it runs");
    assert_eq!((&status["phase"], &status["commits_unseen"]), (&json!("waiting"), &json!(true)), "{status}");
    assert!(status["hint"].as_str().is_some_and(|hint| hint.contains("locking_mode")), "{status}");
    stops_with_commits_unseen(sidecar);

    let mut sidecar = start();
    sidecar.wait_line("database is locked");
    app.tx("a");
    app.close("a");
    app.open("a", &scene.database);
    app.tx("a");
    sidecar.wait_line("access to the database: works again");
    sidecar.wait_line("replicated txid=");
    drop(app);
    assert_eq!(scene.ends_equal(sidecar, u64::MAX), 5);
}

/// No event comes, neither while the application writes nor once we have let go.
#[test]
fn without_watches_changes_are_found_by_polling() {
    let (scene, mut app) = Scene::with_app("no-watches");
    app.tx("a");
    let mut sidecar = scene.setup().without_watches().start();
    sidecar.wait_line("changes are found by polling every second");
    // Asking for the status would make it look: only its log is followed here.
    sidecar.wait_line("replicated txid=0000000000000001");
    app.tx("a");
    sidecar.wait_line("replicated txid=0000000000000002");
    sidecar.wait_line("the database is quiet");
    app.tx("a");
    sidecar.wait_line("replicated txid=0000000000000003");
    drop(app);
    assert_eq!(scene.ends_equal(sidecar, u64::MAX), 3);
}

/// Anonymous memory of a replicator that follows this database, in KiB.
fn memory_beside(scene: &Scene, app: &mut App) -> u64 {
    // The base is behind it: a second run begins where the first one ended.
    let sidecar = scene.sidecar();
    sidecar.caught_up();
    sidecar.stop();
    let sidecar = scene.sidecar();
    sidecar.caught_up();
    app.tx("a");
    sidecar.caught_up();
    let memory = status_kib(sidecar.pid(), "RssAnon");
    sidecar.stop();
    memory
}

/// SQLite needs some 700 KB a connection for such a schema, when it reads it.
#[test]
fn three_hundred_tables_need_the_memory_of_one() {
    const SLACK_KIB: u64 = 350;
    let mut memory = Vec::new();
    for tables in [1, 300] {
        let (scene, mut app) = Scene::with_app("tables");
        app.sql("a", "BEGIN");
        for table in 0..tables {
            let columns: Vec<String> =
                (0..20).map(|n| format!("column_number_{n}_of_{table} TEXT")).collect();
            app.sql("a", &format!("CREATE TABLE t{table}({})", columns.join(", ")));
            app.sql("a", &format!("CREATE INDEX i{table} ON t{table}(column_number_1_of_{table})"));
        }
        app.sql("a", "COMMIT");
        // As many pages in both: what differs is the schema.
        let missing = 1_000 - app.number("a", "PRAGMA page_count");
        app.sql("a", "CREATE TABLE filler(x)");
        app.sql(
            "a",
            &format!(
                "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {missing})
             INSERT INTO filler SELECT randomblob(3500) FROM n"
            ),
        );
        memory.push(memory_beside(&scene, &mut app));
        drop(app);
        assert_equal_to_source(&scene.database, &scene.replica);
    }
    eprintln!("RssAnon in KiB with one table and with 300: {memory:?}");
    assert!(memory[1] <= memory[0] + SLACK_KIB, "{memory:?}");
}

/// Two paths to one directory: `-wal` and `-shm` are found by either.
#[test]
fn a_bind_mount_of_the_directory_is_the_same_database() {
    let mut scene = Scene::new("bind");
    let (home, elsewhere) = (scene.dir.join("home"), scene.dir.join("elsewhere"));
    for directory in [&home, &elsewhere] {
        fs::create_dir(directory).expect("ours");
    }
    let bind = Bind::mount(&home, &elsewhere);
    scene.database = elsewhere.join("app.db");
    let mut app = App::start();
    app.prepare("a", &home.join("app.db"));
    app.tx("a");
    let mut sidecar = scene.sidecar();
    sidecar.wait_line("replicated txid=");
    app.tx("a");
    sidecar.caught_up();
    // By its other name it is still in use.
    let mut second = Sidecar::of(&home.join("app.db"), &scene.dir.join("second"));
    assert_eq!(second.wait(PATIENCE).code(), Some(2), "{:?}", second.lines());
    assert!(second.count("another driftless process") > 0, "{:?}", second.lines());
    drop(app);
    assert_eq!(scene.ends_equal(sidecar, u64::MAX), 2);
    drop(bind);
}

/// The file alone, as people give one to a container: each name has a `-wal` of its own, and what the
/// application commits by the one is not seen by the other.
#[test]
fn a_database_file_that_is_a_mount_point_is_refused() {
    let mut scene = Scene::new("bind-file");
    let original = scene.dir.join("original.db");
    fs::write(&scene.database, "").expect("ours");
    let mut app = App::start();
    app.prepare("a", &original);
    let bind = Bind::mount(&original, &scene.database);
    app.tx("a");
    let mut sidecar = scene.sidecar();
    assert_eq!(sidecar.wait(PATIENCE).code(), Some(2), "{:?}", sidecar.lines());
    assert!(sidecar.count("is itself a mount point") > 0, "{:?}", sidecar.lines());
    assert!(sidecar.count("hint: ") > 0, "{:?}", sidecar.lines());
    assert!(!beside(&scene.database, "-wal") && !scene.replica.exists());
    drop(bind);
    scene.database = original;
    let sidecar = scene.sidecar();
    sidecar.caught_up();
    drop(app);
    assert_eq!(scene.ends_equal(sidecar, u64::MAX), 1);
}

/// Puts another database in the place of one whose application died with everything in its WAL.
fn leave_a_foreign_wal(scene: &Scene, other: &Path) {
    let mut app = App::start();
    app.prepare("a", &scene.database);
    app.sql("a", "PRAGMA wal_autocheckpoint=0");
    for _ in 0..3 {
        app.tx("a");
    }
    app.prepare("b", other);
    app.try_tx("b", 200, 900).expect("nothing else writes");
    app.close("b");
    app.kill();
    fs::rename(other, &scene.database).expect("one directory");
    assert!(beside(&scene.database, "-wal"));
}

/// SQLite takes a `-wal` for that of the database beside it, whichever was there when it was
/// written. So what the application sees is what the replica holds.
#[test]
fn the_wal_of_another_database() {
    for known in [false, true] {
        let scene = Scene::new("foreign-wal");
        if known {
            let mut app = App::start();
            app.prepare("a", &scene.database);
            app.tx("a");
            let sidecar = scene.sidecar();
            sidecar.caught_up();
            sidecar.stop();
        }
        leave_a_foreign_wal(&scene, &scene.dir.join("other.db"));
        let mut app = App::start();
        app.open_patient("a", &scene.database, 5_000);
        let seen = app.number("a", "SELECT count(*) FROM tx");
        app.tx("a");
        let sidecar = scene.sidecar();
        sidecar.caught_up();
        app.tx("a");
        drop(app);
        assert_eq!(scene.ends_equal(sidecar, u64::MAX), seen as u64 + 2, "known before: {known}");
    }
}
