//! `restore -f`: a copy that others read while it follows its replica.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use driftless_tests::command::{Ran, litestream_restore};
use driftless_tests::daemon::ltx_files;
use driftless_tests::db::{open_wal, pragma};
use driftless_tests::{
    Daemon, PATIENCE, TempDir, driftless_command, dump_digest, integrity_check, random, run, wait_for,
};
use rusqlite::{Connection, OpenFlags};

const TRANSACTIONS: u32 = 10_000;
const KILLS: u32 = 40;

/// A source, its replica and the copy.
struct Place {
    dir: TempDir,
    db: PathBuf,
    replica: PathBuf,
    copy: PathBuf,
}

impl Place {
    fn new(name: &str) -> Place {
        let dir = TempDir::new(name);
        let (db, replica, copy) = (dir.join("app.db"), dir.join("replica"), dir.join("copy.db"));
        Place { dir, db, replica, copy }
    }

    /// A configuration with short intervals and these further lines.
    fn replicate(&self, more: &str) -> Daemon {
        let config = self.dir.join("driftless.yml");
        let text = format!(
            "{more}\ndbs:\n  - path: {}\n    replica:\n      type: file\n      path: {}\n      sync-interval: 50ms\n",
            self.db.display(),
            self.replica.display()
        );
        fs::write(&config, text).unwrap();
        Daemon::replicate_at(&self.db, &self.replica, &config)
    }

    fn follow(&self, more: &[&str]) -> Daemon {
        wait_for("something on the replica", PATIENCE, || !ltx_files(&self.replica, 0).is_empty());
        let mut command = driftless_command();
        command.args(["restore", "-f", "-follow-interval", "50ms", "-o"]).arg(&self.copy).arg(&self.replica);
        Daemon::spawn(command.args(more), &self.dir.join("follow.log"))
    }

    /// Waits until the copy holds what the source holds.
    #[track_caller]
    fn await_equal(&self, follower: &mut Daemon, what: &str) {
        let digest = dump_digest(&self.db);
        follower.wait_until(what, PATIENCE, || self.copy.exists() && dump_digest(&self.copy) == digest);
        integrity_check(&self.copy);
    }
}

/// Opened as an application would that only reads, and does not wait for any lock.
fn open_copy(copy: &Path) -> Connection {
    let connection = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    connection
}

/// Two tables that every transaction changes alike, and rows that only it moves about.
fn prepare(db: &Path) -> Connection {
    let app = open_wal(db);
    app.execute_batch(
        "create table one(n); insert into one values (0);
         create table account(id integer primary key, amount integer not null, body blob);
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 300)
         insert into account select i, 100, randomblob(600) from n;
         create table two(n); insert into two values (0);",
    )
    .unwrap();
    app
}

fn transact(app: &Connection, n: u32) {
    let (from, to) = (n % 300 + 1, n * 7 % 300 + 1);
    app.execute_batch(&format!(
        "begin immediate; update one set n = n + 1;
         update account set amount = amount - 1, body = randomblob({}) where id = {from};
         update account set amount = amount + 1 where id = {to};
         update two set n = n + 1; commit",
        300 + n % 900
    ))
    .unwrap();
}

/// One read of everything; the counter that it saw.
fn read(copy: &Connection) -> u64 {
    let sql = "select (select n from one), (select n from two), (select sum(amount) from account)";
    let (one, two, sum): (i64, i64, i64) =
        copy.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    assert_eq!((one, sum), (two, 30_000), "a state that was never committed");
    one.cast_unsigned()
}

/// Readers in loops: one keeps its connection, one opens another each time, one checks the whole.
fn readers(copy: &Path, end: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<(u64, u64)>> {
    let reads = Arc::new(AtomicU64::new(0));
    (0..3)
        .map(|kind| {
            let (copy, end, reads) = (copy.to_path_buf(), Arc::clone(end), Arc::clone(&reads));
            thread::spawn(move || {
                let kept = open_copy(&copy);
                let (mut last, mut states) = (0, 0);
                while !end.load(Ordering::Relaxed) {
                    let seen = match kind {
                        0 => read(&kept),
                        1 => read(&open_copy(&copy)),
                        _ => {
                            let verdict: String = pragma(&kept, "integrity_check");
                            assert_eq!(verdict, "ok");
                            read(&kept)
                        }
                    };
                    assert!(seen >= last, "a reader went back from {last} to {seen}");
                    states += u64::from(seen > last);
                    last = seen;
                    reads.fetch_add(1, Ordering::Relaxed);
                }
                (reads.load(Ordering::Relaxed), states)
            })
        })
        .collect()
}

#[test]
fn readers_see_committed_states_only_during_ten_thousand_transactions() {
    let place = Place::new("follow-readers");
    let app = prepare(&place.db);
    let replicator = place.replicate("");
    let mut follower = place.follow(&[]);
    follower.wait_for_line("following the database");
    let end = Arc::new(AtomicBool::new(false));
    let readers = readers(&place.copy, &end);
    for n in 0..TRANSACTIONS {
        transact(&app, n);
        // Some thousand a second, so that readers meet many states.
        if n % 4 == 0 {
            thread::sleep(Duration::from_millis(3));
        }
    }
    let copy = open_copy(&place.copy);
    follower.wait_until("the last transaction", PATIENCE, || read(&copy) == u64::from(TRANSACTIONS));
    end.store(true, Ordering::Relaxed);
    let seen: Vec<(u64, u64)> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    eprintln!("{} reads; states seen by each reader: {seen:?}", seen[0].0);
    assert!(seen.iter().all(|(_, states)| *states >= 20), "{seen:?}");
    place.await_equal(&mut follower, "equal in the end");
    drop(copy);
    follower.term().expect_code(0);
    replicator.term().expect_code(0);
    assert_eq!(different_bytes(&place.db, &place.copy), [0; 0], "only what SQLite writes of itself differs");
}

/// Where two closed databases differ, but for the bytes of page 1 that are each SQLite's own.
fn different_bytes(one: &Path, other: &Path) -> Vec<usize> {
    for db in [one, other] {
        let checkpoint = "pragma wal_checkpoint(truncate)";
        Connection::open(db).unwrap().query_row(checkpoint, [], |_| Ok(())).unwrap();
    }
    let (one, other) = (fs::read(one).unwrap(), fs::read(other).unwrap());
    assert_eq!(one.len(), other.len());
    let own = |at: &usize| (24..28).contains(at) || (92..100).contains(at);
    (0..one.len()).filter(|&at| one[at] != other[at] && !own(&at)).take(10).collect()
}

#[test]
fn a_follower_that_is_killed_at_any_moment_goes_on_where_it_was() {
    let place = Place::new("follow-killed");
    let app = prepare(&place.db);
    let _replicator = place.replicate("");
    let (end, db) = (Arc::new(AtomicBool::new(false)), place.db.clone());
    drop(app);
    let writer = thread::spawn({
        let end = Arc::clone(&end);
        move || {
            let app = open_wal(&db);
            let mut n = 0;
            while !end.load(Ordering::Relaxed) {
                transact(&app, n);
                n += 1;
                thread::sleep(Duration::from_millis(2));
            }
        }
    });
    let (mut seed, mut last, mut resumed) = (7, 0, 0);
    for n in 0..KILLS {
        let mut follower = place.follow(&[]);
        if n % 8 == 7 {
            follower.wait_for_line("followed txid");
        }
        thread::sleep(Duration::from_millis(random(&mut seed) % 500));
        let log = follower.log();
        follower.kill9();
        resumed += u32::from(log.contains("followed txid"));
        assert!(!log.contains("another program"), "kill {n}: {log}");
        if place.copy.exists() {
            let seen = read(&open_to_write(&place.copy));
            assert!(seen >= last, "kill {n}: {seen} after {last}");
            last = seen;
        }
    }
    assert!(resumed >= KILLS / 8, "only {resumed} of {KILLS} came to apply anything");
    end.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let mut follower = place.follow(&[]);
    place.await_equal(&mut follower, "equal in the end");
    assert!(!follower.log().contains("pages that differ"), "it went on: {}", follower.log());
    follower.term().expect_code(0);
}

/// A reader that may bring a copy back whose follower was killed.
fn open_to_write(copy: &Path) -> Connection {
    let connection = Connection::open(copy).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    connection
}

#[test]
fn a_copy_takes_every_shape_that_its_source_takes() {
    let place = Place::new("follow-shapes");
    let app = prepare(&place.db);
    let replicator = place.replicate("");
    let mut follower = place.follow(&[]);
    place.await_equal(&mut follower, "at first");
    let steps = [
        ("growth", "insert into account(amount, body) select 0, randomblob(5000) from account"),
        ("an index", "create index by_amount on account(amount)"),
        ("deletes", "delete from account where id % 3 > 0"),
        ("vacuum", "vacuum"),
        ("incremental", "pragma auto_vacuum = incremental; vacuum"),
        ("free pages", "delete from account where id % 2 = 0"),
        ("an incremental vacuum", "pragma incremental_vacuum(10)"),
        ("full", "pragma auto_vacuum = full"),
        ("deletes that vacuum", "delete from account where id % 5 = 0"),
        ("incremental again", "pragma auto_vacuum = incremental; delete from account where id % 7 = 0"),
        ("a table goes", "drop table two; drop index by_amount"),
        ("virtual", "create virtual table words using fts5(w); insert into words values ('a b c')"),
        ("growth again", "insert into account(amount, body) select 0, randomblob(9000) from account"),
    ];
    for (what, sql) in steps {
        app.execute_batch(sql).unwrap();
        place.await_equal(&mut follower, what);
    }
    assert!(!follower.log().contains("differ"), "{}", follower.log());
    drop(app);
    replicator.term().expect_code(0);
    assert_eq!(different_bytes(&place.db, &place.copy), [0; 0]);
    let app = open_wal(&place.db);
    app.execute_batch(
        "pragma journal_mode = delete; pragma page_size = 1024; vacuum; pragma journal_mode = wal",
    )
    .unwrap();
    let replicator = place.replicate("");
    place.await_equal(&mut follower, "another page size");
    assert_eq!(pragma::<i64>(&open_copy(&place.copy), "page_size"), 1024);
    assert!(follower.log().contains("the page size has changed"), "{}", follower.log());
    app.execute_batch("insert into account(amount, body) select 0, randomblob(900) from account").unwrap();
    place.await_equal(&mut follower, "after that");
    follower.term().expect_code(0);
    replicator.term().expect_code(0);
}

#[test]
fn a_follower_goes_round_what_retention_has_removed() {
    let place = Place::new("follow-retention");
    let app = prepare(&place.db);
    let replicator = place.replicate("levels: [{interval: 1s}]\nsnapshot: {interval: 1h}");
    let level = |level| ltx_files(&place.replica, level);
    // The first file of a level holds the whole database: it is a new beginning, and no step.
    wait_for("the first file of a level", PATIENCE, || !level(1).is_empty());
    let mut follower = place.follow(&[]);
    place.await_equal(&mut follower, "at first");
    follower.term().expect_code(0);
    let mut n = 0;
    wait_for("a level that holds more than the copy", PATIENCE, || {
        for _ in 0..20 {
            transact(&app, n);
            n += 1;
        }
        thread::sleep(Duration::from_millis(100));
        n > 400 && level(1).len() > 2
    });
    replicator.term().expect_code(0);
    // Level 0 is gone up to where level 1 reaches: over level 1.
    let reaches = level(1).last().unwrap().1;
    let removed: Vec<_> = level(0).into_iter().filter(|(_, max)| *max <= reaches).collect();
    assert!(removed.len() > 5, "{removed:?}");
    removed.iter().for_each(|range| fs::remove_file(object(&place.replica, 0, *range)).unwrap());
    let mut follower = place.follow(&[]);
    place.await_equal(&mut follower, "over level 1");
    // Or over a snapshot, if one was made because it is less to read by now.
    assert!(!follower.log().contains("no files lead on"), "{}", follower.log());
    follower.term().expect_code(0);

    let replicator = place.replicate("levels: [{interval: 1s}]\nsnapshot: {interval: 2s}");
    let before = level(9).len();
    wait_for("another snapshot", PATIENCE, || {
        transact(&app, n);
        n += 1;
        thread::sleep(Duration::from_millis(20));
        level(9).len() > before
    });
    replicator.term().expect_code(0);
    let snapshot = level(9).last().unwrap().1;
    for at in 0..2 {
        for range in level(at).into_iter().filter(|(_, max)| *max <= snapshot) {
            fs::remove_file(object(&place.replica, at, range)).unwrap();
        }
        let spans = level(at).into_iter().filter(|(min, _)| *min <= snapshot);
        spans.for_each(|range| fs::remove_file(object(&place.replica, at, range)).unwrap());
    }
    let reader = open_copy(&place.copy);
    let seen = read(&reader);
    let mut follower = place.follow(&[]);
    follower.wait_for_line("writing the pages that differ");
    place.await_equal(&mut follower, "from the snapshot");
    assert!(read(&reader) > seen, "a reader that was there sees it too");
    drop(reader);
    follower.term().expect_code(0);
}

fn object(replica: &Path, level: u32, (min, max): (u64, u64)) -> PathBuf {
    replica.join(format!("ltx/{level}/{min:016x}-{max:016x}.ltx"))
}

#[test]
fn what_another_program_has_written_to_the_copy_is_not_undone_unasked() {
    let place = Place::new("follow-written");
    let app = prepare(&place.db);
    let _replicator = place.replicate("");
    let mut follower = place.follow(&[]);
    place.await_equal(&mut follower, "at first");
    open_to_write(&place.copy).execute_batch("update account set amount = amount + 1").unwrap();
    transact(&app, 1);
    let ended = follower.wait_end(PATIENCE).expect_code(1);
    assert!(ended.log.contains("another program has written to it"), "{}", ended.log);
    // A database of its own by now.
    open_to_write(&place.copy).execute_batch("create table mine(x); vacuum").unwrap();
    let digest = dump_digest(&place.copy);
    place.follow(&[]).wait_end(PATIENCE).expect_code(1);
    assert_eq!(dump_digest(&place.copy), digest);
    let reader = open_copy(&place.copy);
    reader.query_row("select count(*) from mine", [], |_| Ok(())).unwrap();
    let mut follower = place.follow(&["-force"]);
    place.await_equal(&mut follower, "as it should be");
    assert_eq!(read(&reader), 1, "a reader that was there sees it as well");
    drop(reader);
    follower.term().expect_code(0);
}

#[test]
fn a_replica_of_litestream_is_followed() {
    let place = Place::new("follow-litestream");
    let app = prepare(&place.db);
    let config = place.dir.join("litestream.yml");
    let text = format!(
        "levels: [{{interval: 1s}}, {{interval: 3s}}]\nl0-retention: 2s\nl0-retention-check-interval: 1s\n\
         dbs:\n  - path: {}\n    replica:\n      type: file\n      path: {}\n      sync-interval: 100ms\n",
        place.db.display(),
        place.replica.display()
    );
    fs::write(&config, text).unwrap();
    let _litestream = Daemon::litestream_at(&place.db, &place.replica, &config);
    let mut follower = place.follow(&[]);
    follower.wait_for_line("following the database");
    for n in 0..600 {
        transact(&app, n);
        thread::sleep(Duration::from_millis(10));
    }
    app.execute_batch("delete from account where id > 100; vacuum").unwrap();
    place.await_equal(&mut follower, "equal in the end");
    follower.term().expect_code(0);
}

#[test]
fn litestreams_own_copy_is_taken_over() {
    let place = Place::new("follow-taken-over");
    let app = prepare(&place.db);
    let _replicator = place.replicate("");
    wait_for("something on the replica", PATIENCE, || !ltx_files(&place.replica, 0).is_empty());
    litestream_restore(&place.replica, &place.copy).expect_ok();
    fs::write(place.dir.join("copy.db-txid"), "0000000000000001\n").unwrap();
    transact(&app, 1);
    place.follow(&[]).wait_end(PATIENCE).expect_code(1);
    let mut follower = place.follow(&["-force"]);
    place.await_equal(&mut follower, "taken over");
    follower.term().expect_code(0);
}

#[test]
fn flags_that_contradict_are_refused_and_other_files_are_left_alone() {
    let place = Place::new("follow-flags");
    let follow = |more: &[&str]| -> Ran {
        let copy = place.copy.to_str().unwrap();
        let replica = place.replica.to_str().unwrap();
        run(["restore", "-f", "-o", copy, replica].iter().chain(more))
    };
    for (flag, value) in [("txid", "1"), ("timestamp", "2026-01-01T00:00:00Z")] {
        follow(&[&format!("-{flag}"), value]).expect_error(2, &[&format!("-{flag}")]).expect_hint();
    }
    follow(&["-dry-run"]).expect_error(2, &["-dry-run"]).expect_hint();
    follow(&["-follow-interval", "0s"]).expect_error(2, &["-follow-interval"]).expect_hint();
    run(["restore", "-follow-interval", "1s", "-o", "x", "y"]).expect_error(2, &["-f"]).expect_hint();
    fs::create_dir(&place.replica).unwrap();
    follow(&[]).expect_error(3, &["no segments"]);
    follow(&["-if-replica-exists"]).expect_ok();
    assert!(!place.copy.exists());
    assert!(!place.dir.join("copy.db-txid").exists());
    fs::write(&place.copy, "something else").unwrap();
    follow(&[]).expect_error(1, &["exists"]).expect_hint();
    assert_eq!(fs::read(&place.copy).unwrap(), b"something else");
}
