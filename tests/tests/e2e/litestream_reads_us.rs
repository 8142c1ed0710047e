//! The way back stays open: Litestream 0.5.17 restores what we wrote.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use driftless_tests::command::{finish, restore, run, run_litestream};
use driftless_tests::daemon::ltx_files;
use driftless_tests::db::{open_wal, pragma};
use driftless_tests::place::Place as _;
use driftless_tests::{Daemon, PATIENCE, TempDir, driftless, dump_digest, integrity_check, pages};
use rusqlite::Connection;

/// A state of the source, and the transaction that it was replicated as.
struct Point {
    what: &'static str,
    txid: String,
    digest: String,
    pages: u64,
}

/// The source's history: growth, changes, deletes, an incremental vacuum, growth into the gap, a full
/// vacuum, and growth again. Sizes are in pages so that each page size sees the same shape.
fn steps(page_size: u64) -> Vec<(&'static str, String)> {
    let fill = |rows: u64, key: &str| {
        let (half, wide) = (page_size / 2, page_size * 3);
        format!(
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows})
             insert into t(name, body) select '{key}' || i, randomblob(case when i % 7 then {half} else {wide} end) from n"
        )
    };
    vec![
        ("growth", fill(60, "first")),
        ("updates", "update t set name = name || '!' where id % 3 = 0".to_owned()),
        ("more growth", fill(90, "second")),
        ("deletes", "delete from t where id % 4 = 1 or id > 110".to_owned()),
        ("incremental vacuum", "pragma incremental_vacuum(20)".to_owned()),
        ("growth into free pages", fill(30, "third")),
        ("more deletes", "delete from t where id < 80".to_owned()),
        ("vacuum", "vacuum".to_owned()),
        (
            "an index and growth after the vacuum",
            format!("create index byname on t(name); {}", fill(70, "fourth")),
        ),
        (
            "checkpoint by the application",
            // Our pin keeps the WAL from being emptied: with its usual patience it would wait in vain.
            "pragma busy_timeout = 50; pragma wal_checkpoint(truncate); insert into t(name) values ('x')"
                .to_owned(),
        ),
    ]
}

/// Waits until what we restore is what the source holds, and returns the transaction restored.
fn await_replicated(
    daemon: &mut Daemon,
    db: &Path,
    replica: &Path,
    what: &'static str,
    before: &str,
) -> Point {
    let (digest, pages_now) = (dump_digest(db), pages(db));
    let target = db.with_extension("probe");
    let mut txid = String::new();
    daemon.wait_until(what, PATIENCE, || {
        let _ = fs::remove_file(&target);
        let mut command = Command::new(driftless());
        let ran = finish(command.args(["restore", "-json", "-o"]).arg(&target).arg(replica));
        if ran.code != 0 {
            return false;
        }
        txid = ran.json()["txid"].as_str().expect("a txid").to_owned();
        txid.as_str() > before && pages(&target) == pages_now && dump_digest(&target) == digest
    });
    Point { what, txid, digest, pages: pages_now }
}

fn litestream_restore(replica: &Path, to: &Path, txid: Option<&str>) {
    let url = format!("file://{}", replica.display());
    let to = to.display().to_string();
    let mut args = vec!["restore", "-o", &to];
    if let Some(txid) = txid {
        args.extend(["-txid", txid]);
    }
    args.push(&url);
    run_litestream(args).expect_ok();
}

fn replicate_with_levels(dir: &TempDir, db: &Path, replica: &Path) -> Daemon {
    let config = dir.join("litestream.yml");
    let text = format!(
        "levels: [{{interval: 1s}}, {{interval: 3s}}]\nsnapshot: {{interval: 5s}}\n\
         verify-compaction: true\ndbs: [{{path: {}, url: {}}}]\n",
        db.display(),
        replica.url(),
    );
    fs::write(&config, text).unwrap();
    Daemon::replicate_at(db, replica, &config)
}

/// With or without levels and snapshots, which the daemon makes of what it stores.
fn check(page_size: u64, levels: bool) {
    let dir = TempDir::new(&format!("ls-reads-{page_size}-{levels}"));
    let (db, replica) = (dir.join("app.db"), dir.join("replica"));
    {
        // Both pragmas hold only until the first page is written.
        let fresh = Connection::open(&db).unwrap();
        fresh
            .execute_batch(&format!("pragma page_size = {page_size}; pragma auto_vacuum = incremental"))
            .unwrap();
        fresh.execute_batch("create table t(id integer primary key, name text, body blob)").unwrap();
    }
    let app = open_wal(&db);
    assert_eq!(pragma::<i64>(&app, "page_size").cast_unsigned(), page_size);
    let mut daemon = match levels {
        false => Daemon::replicate(&db, &replica),
        true => replicate_with_levels(&dir, &db, &replica),
    };
    let mut points: Vec<Point> = Vec::new();
    for (what, sql) in steps(page_size) {
        let before = points.last().map_or(String::new(), |point| point.txid.clone());
        if what == "incremental vacuum" {
            // The pragma frees one page for each row that is read of it.
            let mut vacuum = app.prepare(&sql).unwrap();
            let mut rows = vacuum.query([]).unwrap();
            while rows.next().unwrap().is_some() {}
        } else {
            app.execute_batch(&sql).unwrap();
        }
        points.push(await_replicated(&mut daemon, &db, &replica, what, &before));
    }
    let shrank = points.windows(2).filter(|pair| pair[1].pages < pair[0].pages).map(|pair| pair[1].what);
    assert_eq!(
        shrank.collect::<Vec<_>>(),
        ["incremental vacuum", "vacuum"],
        "the history has the shape it should"
    );
    let covered = |level| ltx_files(&replica, level).into_iter().map(|(_, max)| max).max().unwrap_or(0);
    let head = covered(0);
    if levels {
        let snapshot = "a snapshot of the last state, and the levels before it";
        daemon.wait_until(snapshot, PATIENCE, || (1..3).chain([9]).all(|level| covered(level) == head));
    }
    let ended = daemon.term().expect_code(0);
    assert!(!ended.log.contains(" ERROR ") && !ended.log.contains(" WARN "), "{}", ended.log);

    for point in &points {
        let (ours, theirs) = (dir.join("ours"), dir.join("theirs"));
        restore(&replica, &ours, Some(&point.txid));
        litestream_restore(&replica, &theirs, Some(&point.txid));
        check_same(&ours, &theirs, point);
        fs::remove_file(&ours).unwrap();
        remove_database(&theirs);
    }
    let (ours, theirs) = (dir.join("ours-latest"), dir.join("theirs-latest"));
    restore(&replica, &ours, None);
    litestream_restore(&replica, &theirs, None);
    check_same(&ours, &theirs, points.last().expect("there are steps"));
    assert_eq!(dump_digest(&ours), dump_digest(&db));
    assert!(ltx_files(&replica, 0).len() >= points.len());
    if levels {
        levels_suffice(&dir, &replica, &points);
    }
}

/// What level 0 held is in the levels: without it both restore every state that a file of theirs ends
/// with, and the chain is whole.
fn levels_suffice(dir: &TempDir, replica: &Path, points: &[Point]) {
    run([OsStr::new("verify"), replica.as_os_str()]).expect_ok();
    fs::remove_dir_all(replica.join("ltx/0")).unwrap();
    run([OsStr::new("verify"), replica.as_os_str()]).expect_ok();
    let made = [1, 2, 9].into_iter().flat_map(|level| ltx_files(replica, level));
    let ends: BTreeSet<String> = made.map(|(_, max)| format!("{max:016x}")).collect();
    let kept: Vec<&Point> = points.iter().filter(|point| ends.contains(&point.txid)).collect();
    assert!(kept.len() > 2, "{} of {} states end a file", kept.len(), points.len());
    for point in kept {
        let (ours, theirs) = (dir.join("ours-levels"), dir.join("theirs-levels"));
        restore(replica, &ours, Some(&point.txid));
        litestream_restore(replica, &theirs, Some(&point.txid));
        check_same(&ours, &theirs, point);
        fs::remove_file(&ours).unwrap();
        remove_database(&theirs);
    }
}

/// Byte for byte first: the digest opens the files, which may leave files beside them.
fn check_same(ours: &Path, theirs: &Path, point: &Point) {
    let what = format!("{} at {}", point.what, point.txid);
    assert!(fs::read(ours).unwrap() == fs::read(theirs).unwrap(), "the two restores differ: {what}");
    for restored in [ours, theirs] {
        assert_eq!(dump_digest(restored), point.digest, "{what}: {}", restored.display());
        assert_eq!(pages(restored), point.pages, "{what}: {}", restored.display());
        integrity_check(restored);
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(companion(restored, suffix));
        }
    }
}

fn companion(db: &Path, suffix: &str) -> PathBuf {
    let mut name = db.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Litestream leaves a `.tmp` and others beside its output in some versions.
fn remove_database(db: &Path) {
    for suffix in ["", "-wal", "-shm", "-txid"] {
        let _ = fs::remove_file(companion(db, suffix));
    }
}

#[test]
fn litestream_restores_our_replica_of_512_byte_pages() {
    check(512, false);
}

#[test]
fn litestream_restores_our_replica_of_4096_byte_pages() {
    check(4096, false);
}

#[test]
fn litestream_restores_our_replica_of_65536_byte_pages() {
    check(65536, false);
}

#[test]
fn litestream_restores_our_levels_of_512_byte_pages() {
    check(512, true);
}

#[test]
fn litestream_restores_our_levels_of_4096_byte_pages() {
    check(4096, true);
}
