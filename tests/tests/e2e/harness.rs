//! That the harness itself sees what it claims to see.

use driftless_tests::db::open_wal;
use driftless_tests::{
    Daemon, PATIENCE, TempDir, daemon, driftless, dump_digest, integrity_check, litestream, pages,
};

#[test]
fn a_digest_tells_contents_apart_and_sees_the_wal() {
    let dir = TempDir::new("digest");
    let (a, b) = (dir.join("a.db"), dir.join("b.db"));
    let (one, two) = (open_wal(&a), open_wal(&b));
    for db in [&one, &two] {
        db.execute_batch("create table t(x); insert into t values (1), ('zwei'), (x'00ff')").unwrap();
    }
    assert_eq!(dump_digest(&a), dump_digest(&b));
    two.execute_batch("update t set x = 2 where x = 1").unwrap();
    assert_ne!(dump_digest(&a), dump_digest(&b));
    assert_eq!(pages(&a), 2);
    integrity_check(&a);
}

#[test]
fn programs_under_test_are_there() {
    assert!(driftless().is_file());
    assert!(litestream().is_file());
}

#[test]
fn a_daemon_is_waited_for_and_ends() {
    let dir = TempDir::new("daemon");
    let (db, replica) = (dir.join("app.db"), dir.join("replica"));
    open_wal(&db).execute_batch("create table t(x)").unwrap();
    let mut daemon = Daemon::replicate(&db, &replica);
    daemon.wait_until("a first segment", PATIENCE, || !daemon::level0(&replica).is_empty());
    daemon.term().expect_code(0);
    let mut daemon = Daemon::replicate(&db, &replica);
    assert!(daemon.is_running());
    assert_eq!(daemon.kill9().code, 128 + 9);
}
