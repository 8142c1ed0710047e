//! The database changes its shape, its mode, or its file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use driftless_tests::app::App;
use driftless_tests::sidecar::Sidecar;
use driftless_tests::{PATIENCE, wait_for};
use serde_json::json;

use super::beside;
use crate::side_by_side::Scene;

#[test]
fn vacuum_growth_and_shrinking() {
    let scene = Scene::new("vacuum");
    let mut app = App::start();
    app.open("v", &scene.database);
    app.sql("v", "PRAGMA auto_vacuum=INCREMENTAL");
    app.prepare("a", &scene.database);
    let sidecar = scene.sidecar();
    for round in 0..6 {
        for _ in 0..10 {
            app.try_tx("a", 200, 400).expect("nothing else writes");
        }
        app.sql("a", &format!("CREATE TABLE extra{round} AS SELECT * FROM p"));
        app.sql("a", &format!("DROP TABLE extra{round}"));
        match round % 3 {
            0 => app.sql("a", "VACUUM"),
            1 => app.sql("a", "PRAGMA incremental_vacuum(50)"),
            _ => app.sql("a", "PRAGMA incremental_vacuum"),
        };
        app.tx("a");
        if round == 3 {
            sidecar.caught_up();
        }
    }
    drop(app);
    assert_eq!(scene.ends_equal(sidecar, u64::MAX), 66);
}

/// The database grows, a checkpoint copies the new pages back and the WAL begins anew, all between
/// two of our looks: the WAL that we find says how long the database is, and holds none of its new
/// pages. Each state in which it could end is checked, for a page that is missing shows in the
/// length or in the content.
fn growth_is_hidden(name: &str, mut unseen: impl FnMut(&mut Option<Sidecar>, &Scene, &mut dyn FnMut())) {
    let scene = Scene::new(name);
    let mut app = App::start();
    app.open("v", &scene.database);
    app.sql("v", "PRAGMA auto_vacuum=INCREMENTAL");
    app.close("v");
    app.prepare("a", &scene.database);
    app.open_patient("b", &scene.database, 0);
    let mut sidecar = Some(scene.sidecar());
    for round in 0..3 {
        sidecar.as_ref().expect("it runs").caught_up();
        unseen(&mut sidecar, &scene, &mut || {
            app.try_tx("a", 200 + 100 * round, 900).expect("nothing else writes");
            // Where we still read, it copies all and does not restart.
            app.sql("b", "PRAGMA wal_checkpoint(TRUNCATE)");
            app.sql("a", "CREATE TABLE gone AS SELECT * FROM p");
            app.sql("b", "PRAGMA wal_checkpoint(RESTART)");
            app.sql("a", "DROP TABLE gone");
            app.sql("a", "PRAGMA incremental_vacuum");
            app.sql("b", "PRAGMA wal_checkpoint(TRUNCATE)");
            // Few pages, none of them new.
            app.sql("a", "UPDATE acct SET balance = balance");
            app.tx("a");
        });
    }
    drop(app);
    assert_eq!(scene.ends_equal(sidecar.take().expect("it runs"), u64::MAX), 6);
}

#[test]
fn growth_hidden_by_a_checkpoint_while_we_stand_still() {
    growth_is_hidden("hidden-frozen", |sidecar, _, write| {
        let sidecar = sidecar.as_ref().expect("it runs");
        sidecar.signal("STOP");
        write();
        sidecar.signal("CONT");
    });
}

#[test]
fn growth_hidden_by_a_checkpoint_while_we_are_dead() {
    growth_is_hidden("hidden-dead", |sidecar, scene, write| {
        sidecar.take().expect("it runs").kill();
        write();
        *sidecar = Some(scene.sidecar());
    });
}

/// With nothing open, no reader of ours keeps the WAL.
#[test]
fn growth_hidden_by_a_checkpoint_after_we_let_go() {
    let mut rounds = 0;
    growth_is_hidden("hidden-quiet", |sidecar, _, write| {
        rounds += 1;
        let sidecar = sidecar.as_mut().expect("it runs");
        if rounds == 1 {
            sidecar.wait_line("the database is quiet");
            sidecar.signal("STOP");
        }
        write();
        sidecar.signal("CONT");
    });
}

#[test]
fn the_page_size_changes_while_we_are_stopped() {
    let (scene, mut app) = Scene::with_app("page-size");
    app.tx("a");
    let mut sidecar = scene.sidecar();
    let mut transactions = 1;
    for page_size in [8192, 512, 65_536] {
        sidecar.caught_up();
        sidecar.stop();
        app.sql("a", "PRAGMA journal_mode=DELETE");
        app.sql("a", &format!("PRAGMA page_size={page_size}"));
        app.sql("a", "VACUUM");
        app.prepare("a", &scene.database);
        assert_eq!(app.number("a", "PRAGMA page_size"), page_size);
        sidecar = scene.sidecar();
        app.tx("a");
        transactions += 1;
    }
    drop(app);
    assert_eq!(scene.ends_equal(sidecar, u64::MAX), transactions);
}

#[test]
fn the_journal_mode_changes_and_comes_back_while_we_are_stopped() {
    let (scene, mut app) = Scene::left("mode-down");
    app.sql("a", "PRAGMA journal_mode=DELETE");
    app.tx("a");
    let mut sidecar = scene.sidecar();
    sidecar.wait_line("rollback-journal mode");
    app.tx("a");
    assert_eq!(sidecar.status().expect("it runs")["phase"], "waiting");
    app.sql("a", "PRAGMA journal_mode=WAL");
    app.tx("a");
    sidecar.wait_line("access to the database");
    drop(app);
    assert_eq!(scene.ends_equal(sidecar, u64::MAX), 4);
}

/// While a database is hot, leaving WAL mode is refused; fifteen quiet seconds free it.
#[test]
fn the_journal_mode_changes_and_comes_back_once_it_is_quiet() {
    let (scene, mut app) = Scene::with_app("mode-up");
    app.open("impatient", &scene.database);
    app.tx("a");
    let mut sidecar = scene.sidecar();
    sidecar.caught_up();
    let refused = app.try_sql("impatient", "PRAGMA journal_mode=DELETE");
    assert!(refused.is_err() || app.sql("impatient", "PRAGMA journal_mode")[0][0] == "wal");
    app.close("impatient");
    sidecar.wait_line("the database is quiet");
    app.sql("a", "PRAGMA journal_mode=DELETE");
    app.tx("a");
    sidecar.wait_line("rollback-journal mode");
    app.sql("a", "PRAGMA journal_mode=WAL");
    app.tx("a");
    drop(app);
    wait_for("all three", PATIENCE, || {
        driftless_tests::sidecar::restore_checked(&scene.replica, None, &scene.dir.join("poll.db"), u64::MAX)
            .is_ok_and(|seen| seen.transactions == 3)
    });
    assert_eq!(scene.ends_equal(sidecar, u64::MAX), 3);
}

fn remove(database: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        // With its application gone, there may be no -wal.
        let _ = fs::remove_file(&name);
    }
}

/// Puts another database in its place, by deleting or by renaming over, and waits until the
/// replica shows that one.
fn replaced(name: &str, up: bool, rename: bool) {
    let (scene, mut app) = Scene::with_app(name);
    for _ in 0..5 {
        app.tx("a");
    }
    let mut sidecar = Some(scene.sidecar());
    sidecar.as_ref().map(Sidecar::caught_up);
    if !up {
        sidecar.take().expect("started").stop();
    }
    app.kill();
    let mut app = App::start();
    if rename {
        let other = scene.dir.join("other.db");
        app.prepare("b", &other);
        app.tx("b");
        app.tx("b");
        app.close("b");
        assert!(!beside(&other, "-wal"), "its last connection has copied everything back");
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", scene.database.display()));
        }
        fs::rename(&other, &scene.database).expect("one directory");
        app.prepare("a", &scene.database);
    } else {
        remove(&scene.database);
        app.prepare("a", &scene.database);
        app.tx("a");
        app.tx("a");
    }
    let sidecar = sidecar.take().unwrap_or_else(|| scene.sidecar());
    wait_for("the new database on the replica", PATIENCE, || {
        driftless_tests::sidecar::restore_checked(&scene.replica, None, &scene.dir.join("poll.db"), u64::MAX)
            .is_ok_and(|seen| seen.transactions == 2)
    });
    app.tx("a");
    drop(app);
    assert_eq!(scene.ends_equal(sidecar, u64::MAX), 3);
}

#[test]
fn deleted_and_recreated_while_we_are_up() {
    replaced("recreated-up", true, false);
}

#[test]
fn deleted_and_recreated_while_we_are_down() {
    replaced("recreated-down", false, false);
}

#[test]
fn renamed_over_while_we_are_up() {
    replaced("renamed-up", true, true);
}

#[test]
fn renamed_over_while_we_are_down() {
    replaced("renamed-down", false, true);
}

#[test]
fn a_hot_journal_is_left_to_the_application() {
    let (scene, mut app) = Scene::with_app("hot-journal");
    app.tx("a");
    app.sql("a", "PRAGMA journal_mode=DELETE");
    app.sql("a", "PRAGMA cache_size=2");
    app.sql("a", "BEGIN IMMEDIATE");
    app.sql("a", "UPDATE acct SET pad = hex(zeroblob(300))");
    wait_for("the journal", Duration::from_secs(5), || beside(&scene.database, "-journal"));
    app.kill();
    let before = fs::read(&scene.database).expect("its application is gone");
    let mut sidecar = scene.sidecar();
    sidecar.wait_line("a rollback journal stands beside the database");
    assert_eq!(fs::read(&scene.database).expect("there"), before, "only the application may roll back");
    let mut app = App::start();
    app.prepare("a", &scene.database);
    app.tx("a");
    drop(app);
    assert_eq!(scene.ends_equal(sidecar, u64::MAX), 2);
}

#[test]
fn a_hard_link_is_refused() {
    let (scene, _app) = Scene::with_app("hard-link");
    fs::hard_link(&scene.database, scene.dir.join("second-name.db")).expect("one filesystem");
    let mut sidecar = scene.sidecar();
    assert_eq!(sidecar.wait(PATIENCE).code(), Some(2));
    assert!(sidecar.count("hard links") > 0, "{:?}", sidecar.lines());
}

/// Another user's closed database: SQLite would make files that its application cannot write.
#[test]
fn anothers_closed_database_is_not_opened() {
    let (scene, mut app) = Scene::with_app("another-user");
    app.tx("a");
    app.close("a");
    assert!(!beside(&scene.database, "-wal"));
    for path in [scene.dir.path(), &scene.database] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = if path.is_dir() { 0o777 } else { 0o666 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    }
    let state = scene.dir.join("state");
    let mut sidecar = scene.setup().user(1_000).state_dir(&state).start();
    sidecar.wait_line("another user");
    assert!(!beside(&scene.database, "-wal") && !beside(&scene.database, "-shm"));
    // Nobody has seen what is committed there: the end says so.
    sidecar.ask_to_stop();
    assert_eq!(sidecar.wait(PATIENCE).code(), Some(6), "{:?}", sidecar.lines());
}

/// Pages with room for a checksum at their end: a checkpoint of ours would store them without.
#[test]
fn reserved_bytes_are_replicated_and_never_checkpointed() {
    let scene = Scene::new("reserved");
    let script = "
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute('pragma user_version=1'); c.close()
b = bytearray(open(sys.argv[1], 'rb').read()); assert len(b) == 4096
b[20] = 8
# An empty b-tree's content area begins where the usable page ends.
b[100 + 5:100 + 7] = (4096 - 8).to_bytes(2, 'big')
open(sys.argv[1], 'wb').write(b)
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute('pragma journal_mode=wal'); c.execute('create table seed(x)')
assert c.execute('pragma integrity_check').fetchone()[0] == 'ok'
";
    driftless_tests::python(script, &[scene.database.as_os_str()]);
    let mut app = App::start();
    app.start_writer(&scene.database, json!({ "autocheckpoint": 0, "rate": 500, "keep": 50 }));
    let sidecar = scene.sidecar();
    wait_for("a WAL past the threshold", PATIENCE, || app.committed() > 1_000);
    app.stop_writer();
    sidecar.caught_up();
    assert_eq!(sidecar.count("checkpoint frames"), 0, "a page would lose its checksum");
    drop(app);
    scene.ends_equal(sidecar, 50);
}
