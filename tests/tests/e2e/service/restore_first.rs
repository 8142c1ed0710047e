//! `-restore-if-db-not-exists`: a host that begins with nothing but the replica.

use std::fs;
use std::path::Path;

use driftless_tests::child::Script;
use driftless_tests::command::finish;
use driftless_tests::db::content_lines;
use driftless_tests::scene::{Scene, flip, names};
use driftless_tests::{Ran, driftless_command, dump_digest};

/// A scene whose database and local state are gone, and an application.
fn fresh_host(name: &str) -> (Scene, Script) {
    let scene = Scene::replicated(name, 3);
    lose(&scene);
    let script = Script::new(scene.dir.path(), &scene.db);
    (scene, script)
}

fn lose(scene: &Scene) {
    for name in names(scene.dir.path()).iter().filter(|name| name.contains("app.db")) {
        let path = scene.dir.join(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("our own");
    }
}

fn begin(scene: &Scene, script: &Script, words: &str) -> Ran {
    let mut command = driftless_command();
    command.args(["replicate", "-restore-if-db-not-exists", "-exec", &script.command(words)]);
    finish(command.arg(&scene.db).arg(&scene.replica))
}

fn rows(db: &Path) -> Vec<String> {
    content_lines(db, "select count(*) from t")
}

#[test]
fn the_application_begins_with_what_the_replica_holds() {
    let (scene, script) = fresh_host("restore-first");
    // What a restore that was killed leaves is no obstacle.
    fs::write(scene.dir.join("app.db.driftless-restore"), b"half").unwrap();
    let ran = begin(&scene, &script, "insert:5").expect_ok();
    assert!(ran.err.contains("restored from the replica"), "{}", ran.err);
    let at = |text: &str| ran.err.find(text).unwrap_or_else(|| panic!("{text}: {}", ran.err));
    // Nothing is written before it is shown that this is the replica's database.
    assert!(at("took over transaction") < at("the application has begun"), "{}", ran.err);
    assert_eq!(rows(&scene.db), ["Integer(126)"]);
    // One history goes on: a fourth transaction, with the new rows and not with everything.
    let sizes = [1, 4].map(|txid| fs::metadata(scene.level0(txid)).expect("a segment").len());
    assert!(sizes[1] < sizes[0], "{sizes:?}");
    let copy = scene.dir.join("copy.db");
    driftless_tests::command::restore(&scene.replica, &copy, None);
    assert_eq!(dump_digest(&copy), dump_digest(&scene.db));

    // There is a database now, and it stays as it is.
    let ran = begin(&scene, &script, "insert:1").expect_ok();
    assert!(!ran.err.contains("restored from"), "{}", ran.err);
    assert_eq!(rows(&scene.db), ["Integer(127)"]);
}

#[test]
fn an_empty_replica_is_a_first_start() {
    let scene = Scene::fresh("first-start");
    lose(&scene);
    let script = Script::new(scene.dir.path(), &scene.db);
    let ran = begin(&scene, &script, "create insert:5").expect_ok();
    assert!(ran.err.contains("there is nothing to restore"), "{}", ran.err);
    assert_eq!(rows(&scene.db), ["Integer(5)"]);
    assert!(scene.level0(1).is_file());
}

#[test]
fn what_cannot_be_restored_starts_nothing() {
    let (scene, script) = fresh_host("damaged");
    flip(&scene.level0(3), 300);
    begin(&scene, &script, "create").expect_error(4, &[&Scene::object(3)]);
    assert!(!scene.db.exists() && script.told().is_empty());
    assert_eq!(names(scene.dir.path()).iter().filter(|name| name.contains("driftless-restore")).count(), 0);
}

#[test]
fn the_wal_of_a_database_that_is_gone_is_for_a_person_to_look_at() {
    let (scene, script) = fresh_host("remains");
    fs::write(scene.dir.join("app.db-wal"), b"the last transactions").unwrap();
    let ran = begin(&scene, &script, "create");
    ran.expect_error(1, &["app.db-wal exists, though its database does not"]).expect_hint();
    assert!(!scene.db.exists() && script.told().is_empty());
    // An explicit restore says so as well, since SQLite would replay it.
    let restore = |more: &[&str]| {
        let mut command = driftless_command();
        finish(command.arg("restore").args(more).arg("-o").arg(&scene.db).arg(&scene.replica))
    };
    restore(&[]).expect_error(1, &["though its database does not"]).expect_hint();
    restore(&["-if-db-not-exists"]).expect_error(1, &["though its database does not"]);
    restore(&["-force"]).expect_ok();
    assert!(!scene.dir.join("app.db-wal").exists());
    assert_eq!(dump_digest(&scene.db), scene.digests[2]);
}

#[test]
fn the_key_does_it_for_the_databases_that_have_it() {
    let (scene, _) = fresh_host("restore-key");
    let other = Scene::replicated("restore-key-other", 1);
    lose(&other);
    let text = format!(
        "dbs:\n  - path: {}\n    replica: {}\n    restore-if-db-not-exists: true\n  - path: {}\n    replica: {}\n",
        scene.db.display(),
        scene.replica.display(),
        other.db.display(),
        other.replica.display()
    );
    fs::write(&scene.config, text).unwrap();
    let mut command = driftless_command();
    finish(command.args(["replicate", "-exec", "true", "-config"]).arg(&scene.config)).expect_ok();
    assert_eq!(dump_digest(&scene.db), scene.digests[2]);
    assert!(!other.db.exists());
}
