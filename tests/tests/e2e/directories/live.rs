//! Databases come and go while the process runs.

use driftless_tests::db::open_to_read;
use rustix::process::Signal;

use super::*;

/// Ample for a machine under load; what is meant is a second, and no poll.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn fifty_nested_databases_are_replicated_and_come_back() {
    let place = Place::new("directories-fifty", "pattern: \"*.db\"\n    recursive: true");
    let names: Vec<String> = (0..50).map(|n| format!("t{}/u{}/{n}.db", n % 3, n % 7)).collect();
    for name in &names {
        drop(place.database(name));
    }
    let mut daemon = place.start();
    for name in &names {
        place.wait_for(&mut daemon, name);
    }
    assert!(daemon.log().contains("databases=50"));
    daemon.term().expect_code(0);
    let digest = place.digest(&names[3]);
    // To a directory beside, and to their own places once all is lost.
    place.run("restore -all -o out").expect_ok();
    for name in &names {
        assert_eq!(row(&place.dir.join("out").join(name)), *name);
    }
    fs::remove_dir_all(place.dir.join("srv")).unwrap();
    let one = place.run(&format!("restore @{}", names[7])).expect_ok();
    assert!(one.out.contains("restored"), "{one:?}");
    place.run("restore -all -if-db-not-exists").expect_ok();
    for name in &names {
        assert_eq!(row(&place.path(name)), *name);
    }
    assert_eq!(place.digest(&names[3]), digest);
    // What Litestream makes of our replicas, and where it looks for them.
    let output = place.dir.join("by-litestream.db");
    restore_by_litestream(&place.replica(&names[3]), &output);
    assert_eq!(dump_digest(&output), digest);
}

/// The row that tells a database from the others.
fn row(path: &Path) -> String {
    open_to_read(path).query_row("select x from t", [], |row| row.get(0)).unwrap()
}

#[test]
fn what_comes_is_replicated_and_what_goes_is_told() {
    let keys = "pattern: \"*.db\"\n    recursive: true\n    watch: true";
    let place = Place::new("directories-live", keys);
    let mut daemon = place.start();
    daemon.wait_for_line("was looked into");
    // A database, and directories that are there with their content before anybody can look.
    let app = place.database("new.db");
    assert!(place.wait_for(&mut daemon, "new.db") < SOON);
    let beside = place.dir.join("beside/two/three");
    fs::create_dir_all(&beside).unwrap();
    open_wal(&beside.join("deep.db")).execute_batch("create table t(x)").unwrap();
    fs::rename(place.dir.join("beside"), place.path("one")).unwrap();
    assert!(place.wait_for(&mut daemon, "one/two/three/deep.db") < SOON);
    // A file that becomes a database, and one that has another name.
    fs::write(place.path("empty.db"), "").unwrap();
    drop(place.database("other.sqlite"));
    drop(place.database("empty.db"));
    assert!(place.wait_for(&mut daemon, "empty.db") < SOON);
    assert!(!place.replica("other.sqlite").exists());
    // Its last commit is sent before it is let go.
    app.execute("insert into t values ('last')", []).unwrap();
    drop(app);
    let digest = place.digest("new.db");
    place.run("sync -wait @new.db").expect_ok();
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(place.path(&format!("new.db{end}")));
    }
    daemon.wait_for_line("the database is not replicated any more");
    let status = place.run("status").expect_ok();
    assert!(status.out.contains("removed since the start: 1"), "{status:?}");
    assert!(status.out.contains("2 databases, watched"), "{status:?}");
    assert!(!place.run("list").expect_ok().out.contains("new.db"));
    place.run("restore -o removed.db @new.db").expect_ok();
    assert_eq!(dump_digest(&place.dir.join("removed.db")), digest);
    // Another one of its name goes on in its replica.
    let app = place.database("new.db");
    app.execute("insert into t values ('another')", []).unwrap();
    drop(app);
    daemon.wait_for("the second to be found", PATIENCE, |log| log.matches("new.db\" replica=").count() >= 3);
    place.run("sync -wait @new.db").expect_ok();
    // A whole directory goes, and all goes.
    fs::remove_dir_all(place.path("one")).unwrap();
    daemon.wait_for("the directory's database to go", PATIENCE, |log| {
        log.matches("is not replicated any more").count() == 2
    });
    assert!(daemon.is_running());
    daemon.term().expect_code(0);
    place.run("restore -o again.db @new.db").expect_ok();
    assert_eq!(dump_digest(&place.dir.join("again.db")), place.digest("new.db"));
}

#[test]
fn without_watch_a_reload_finds_what_came() {
    let place = Place::new("directories-reload", "pattern: \"*.db\"");
    drop(place.database("a.db"));
    let mut daemon = place.start();
    place.wait_for(&mut daemon, "a.db");
    drop(place.database("b.db"));
    drop(place.database("below/c.db"));
    daemon.signal(Signal::HUP);
    place.wait_for(&mut daemon, "b.db");
    assert!(!place.replica("below/c.db").exists(), "nothing below was asked for");
    place.configure("pattern: \"b*\"");
    daemon.signal(Signal::HUP);
    daemon.wait_until("one is left", PATIENCE, || {
        let listed = place.run("list").expect_ok().out;
        !listed.contains("a.db") && listed.contains("b.db")
    });
    daemon.term().expect_code(0);
}

#[test]
fn a_fresh_host_begins_with_what_was_replicated() {
    let place = Place::new("directories-fresh", "pattern: \"*.db\"\n    recursive: true");
    drop((place.database("a.db"), place.database("x/b.db")));
    place.run("replicate -once").expect_ok();
    let digests = [place.digest("a.db"), place.digest("x/b.db")];
    fs::remove_dir_all(place.dir.join("srv")).unwrap();
    place.run("replicate -once -restore-if-db-not-exists").expect_ok();
    assert_eq!([place.digest("a.db"), place.digest("x/b.db")], digests);
    // Where one is, the others may have been removed on purpose.
    fs::remove_file(place.path("a.db")).unwrap();
    place.run("replicate -once -restore-if-db-not-exists").expect_ok();
    assert!(!place.path("a.db").exists());
}
