//! Real SQLite in simulated processes: what it may lose, what it must not, what it repeats.

mod link;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, ErrorCode, ffi};

use super::{SimHost, SimSqlite, Turn, VfsFault, VfsOp};
use crate::disk::{Disk, DiskConfig, DiskFault, DiskOp, SimClock};

const START_NS: u64 = 1_800_000_000_000_000_000;

struct Machine {
    // Declared first: its processes end before the turn does.
    sqlite: SimSqlite,
    host: Arc<SimHost>,
    _turn: Turn,
}

fn machine(seed: u32) -> Machine {
    let turn = Turn::take(seed);
    let clock = SimClock::new(START_NS);
    let disk = Disk::new(DiskConfig::default(), clock.clone());
    let host = Arc::new(SimHost::new(clock, seed.into()));
    Machine { sqlite: SimSqlite::new(disk, host.clone()), host, _turn: turn }
}

impl Machine {
    /// A connection of `process` to a WAL database with table `t`.
    fn wal(&self, process: &str) -> Connection {
        let db = self.sqlite.open(process, "/a.db").unwrap();
        db.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;
             CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, x)",
        )
        .unwrap();
        db
    }

    /// Do `fault` once, at the next `op` of `process` on a path that ends in `suffix`.
    fn once(&self, process: &'static str, op: VfsOp, suffix: &'static str, fault: VfsFault) {
        let armed = AtomicBool::new(true);
        self.host.set_fault_hook(Some(Arc::new(move |who: &str, what, path: &str| {
            let hit = who == process && what == op && path.ends_with(suffix);
            (hit && armed.swap(false, Ordering::SeqCst)).then_some(fault)
        })));
    }
}

fn rows(db: &Connection) -> i64 {
    db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

fn insert(db: &Connection) -> rusqlite::Result<usize> {
    db.execute("INSERT INTO t(x) VALUES(randomblob(900))", [])
}

fn assert_sound(db: &Connection) {
    let answer: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(answer, "ok");
}

/// busy, frames in the WAL, frames backfilled.
fn checkpoint(db: &Connection, mode: &str) -> (i64, i64, i64) {
    let pragma = format!("PRAGMA wal_checkpoint({mode})");
    db.query_row(&pragma, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
}

#[test]
fn processes_share_a_database() {
    let machine = machine(1);
    let (a, b, other) = (machine.wal("app"), machine.wal("app"), machine.wal("sidecar"));
    insert(&a).unwrap();
    assert_eq!((rows(&b), rows(&other)), (1, 1));
    a.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = other.execute_batch("BEGIN IMMEDIATE").unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
    a.execute_batch("COMMIT").unwrap();
    insert(&other).unwrap();
    assert_eq!(rows(&a), 2);
}

#[test]
fn every_mode_of_checkpoint() {
    let machine = machine(2);
    let (app, sidecar) = (machine.wal("app"), machine.wal("sidecar"));
    let wal_bytes = || machine.sqlite.disk().contents("/a.db-wal").unwrap().len();
    for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        insert(&app).unwrap();
        let (busy, frames, done) = checkpoint(&app, mode);
        assert_eq!((busy, frames), (0, done), "{mode}");
        assert_eq!(wal_bytes() == 0, mode == "TRUNCATE");
    }
    insert(&app).unwrap();
    sidecar.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    insert(&app).unwrap();
    let (busy, frames, done) = checkpoint(&app, "PASSIVE");
    assert_eq!(busy, 0);
    assert!(done < frames, "a reader of an older snapshot holds it back");
    assert_eq!(checkpoint(&app, "TRUNCATE").0, 1);
    sidecar.execute_batch("COMMIT").unwrap();
    assert_eq!(checkpoint(&app, "TRUNCATE"), (0, 0, 0));
    assert_sound(&sidecar);
}

#[test]
fn the_last_close_takes_wal_and_shm_away() {
    let machine = machine(3);
    let (app, sidecar) = (machine.wal("app"), machine.wal("sidecar"));
    insert(&app).unwrap();
    app.close().unwrap();
    assert_eq!(machine.sqlite.disk().list("/").unwrap(), ["a.db", "a.db-shm", "a.db-wal"]);
    sidecar.close().unwrap();
    assert_eq!(machine.sqlite.disk().list("/").unwrap(), ["a.db"]);
}

#[test]
fn a_process_killed_in_a_transaction_leaves_nothing() {
    let machine = machine(4);
    for survivor in [true, false] {
        let app = machine.wal("app");
        let sidecar = survivor.then(|| machine.wal("sidecar"));
        let before = rows(&app);
        spill(&app);
        machine.sqlite.kill_process("app");
        assert!(!machine.sqlite.is_alive("app"));
        assert!(app.execute_batch("COMMIT").is_err(), "a ghost commits nothing");
        if let Some(sidecar) = &sidecar {
            insert(sidecar).unwrap();
        }
        drop(app);
        let successor = machine.wal("app");
        assert_eq!(rows(&successor), before + i64::from(survivor));
        assert_sound(&successor);
        insert(&successor).unwrap();
        assert_sound(sidecar.as_ref().unwrap_or(&successor));
    }
}

/// Begin a transaction so large that its frames are in the WAL and its pages out of the cache.
fn spill(db: &Connection) {
    db.execute_batch("PRAGMA cache_size=5; BEGIN IMMEDIATE").unwrap();
    for _ in 0..200 {
        insert(db).unwrap();
    }
}

/// A killed connection is dropped while another process is in a transaction. The ghost rolls
/// back, which clears every hash slot beyond the last commit: in shared memory those are the
/// slots of the living writer, who would then find stale pages.
#[test]
fn the_rollback_of_a_ghost_reaches_nobody() {
    let machine = machine(18);
    let (app, sidecar) = (machine.wal("app"), machine.wal("sidecar"));
    spill(&app);
    machine.sqlite.kill_process("app");
    spill(&sidecar);
    drop(app);
    assert_eq!(rows(&sidecar), 200);
    sidecar.execute_batch("COMMIT").unwrap();
    assert_eq!(rows(&machine.wal("app")), 200);
    assert_sound(&sidecar);
}

#[test]
fn a_leaked_connection_of_a_killed_process_is_harmless() {
    let machine = machine(5);
    let app = machine.wal("app");
    insert(&app).unwrap();
    machine.sqlite.kill_process("app");
    std::mem::forget(app);
    let successor = machine.wal("app");
    insert(&successor).unwrap();
    assert_eq!(rows(&successor), 2);
}

#[test]
fn a_rollback_journal_of_the_dead_is_played_back() {
    let machine = machine(6);
    let open = |process| machine.sqlite.open(process, "/a.db").unwrap();
    let app = open("app");
    app.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, x)").unwrap();
    insert(&app).unwrap();
    // The journal is synced and the database half written when the process dies.
    machine.once("app", VfsOp::Sync, "a.db", VfsFault::Die);
    assert!(insert(&app).is_err());
    assert!(machine.sqlite.disk().exists("/a.db-journal"));
    let successor = open("app");
    assert_eq!(rows(&successor), 1);
    assert_sound(&successor);
}

/// How many frames the WAL file has room for, committed or not.
fn frames_in_file(machine: &Machine) -> usize {
    (machine.sqlite.disk().contents("/a.db-wal").unwrap().len() - 32) / (24 + 4096)
}

/// The application dies in the sync of its commit while a sidecar keeps the wal-index alive:
/// the commit frame stands in the file, SQLite never committed it, and the next writer puts
/// other frames in its place under the same salts.
#[test]
fn a_phantom_commit_stands_in_the_file() {
    let machine = machine(7);
    let (app, sidecar) = (machine.wal("app"), machine.wal("sidecar"));
    app.execute_batch("PRAGMA synchronous=FULL").unwrap();
    insert(&app).unwrap();
    let frames = frames_in_file(&machine);
    machine.once("app", VfsOp::Sync, "-wal", VfsFault::Die);
    assert!(insert(&app).is_err());
    assert!(!machine.sqlite.is_alive("app"));
    assert!(frames_in_file(&machine) > frames, "the commit frame is in the file");
    let phantom = machine.sqlite.disk().contents("/a.db-wal").unwrap();
    assert_eq!(rows(&sidecar), 1);
    insert(&sidecar).unwrap();
    let after = machine.sqlite.disk().contents("/a.db-wal").unwrap();
    assert_eq!(phantom[..32], after[..32], "same salts");
    assert_ne!(phantom, after);
    assert_eq!(rows(&sidecar), 2);
    assert_sound(&sidecar);
}

/// The same with nobody else attached: the next opener recovers, and the commit counts.
#[test]
fn without_a_wal_index_recovery_takes_the_phantom() {
    let machine = machine(8);
    let app = machine.wal("app");
    app.execute_batch("PRAGMA synchronous=FULL").unwrap();
    machine.once("app", VfsOp::Sync, "-wal", VfsFault::Die);
    assert!(insert(&app).is_err());
    assert_eq!(rows(&machine.wal("app")), 1);
}

#[test]
fn errors_come_up_as_the_unix_vfs_gives_them() {
    let machine = machine(9);
    let app = machine.wal("app");
    app.execute_batch("PRAGMA synchronous=FULL").unwrap();
    let fails_with = |fault: DiskFault, op: DiskOp, code: i32| {
        machine.sqlite.disk().set_fault_hook(Some(Arc::new(move |asked, path: &str| {
            (asked == op && path.ends_with("-wal")).then_some(fault)
        })));
        let error = insert(&app).unwrap_err();
        assert_eq!(error.sqlite_error().unwrap().extended_code, code);
        machine.sqlite.disk().set_fault_hook(None);
        insert(&app).unwrap();
    };
    fails_with(DiskFault::Eio, DiskOp::Sync, ffi::SQLITE_IOERR_FSYNC);
    fails_with(DiskFault::Eio, DiskOp::Write, ffi::SQLITE_IOERR_WRITE);
    fails_with(DiskFault::Enospc, DiskOp::Write, ffi::SQLITE_FULL);
    fails_with(DiskFault::ShortWrite, DiskOp::Write, ffi::SQLITE_FULL);
    assert_eq!(rows(&app), 4);
    assert_sound(&app);
}

/// A decider from a seed: each piece survives with one chance in `of`; none for 0.
fn chance(seed: u64, of: u64) -> impl FnMut() -> bool {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        of > 0 && (state >> 33).is_multiple_of(of)
    }
}

/// Commit, now and then checkpoint, lose power. Returns what was acknowledged and what is
/// there afterwards.
fn outage(seed: u32, journal: &str, synchronous: &str, survive_one_in: u64) -> (i64, i64) {
    outage_on(&machine(seed), seed, journal, synchronous, survive_one_in)
}

fn outage_on(
    machine: &Machine,
    seed: u32,
    journal: &str,
    synchronous: &str,
    survive_one_in: u64,
) -> (i64, i64) {
    let app = machine.sqlite.open("app", "/a.db").unwrap();
    let prepare = format!(
        "PRAGMA journal_mode={journal}; PRAGMA synchronous={synchronous};
         PRAGMA wal_autocheckpoint=20; CREATE TABLE t(id INTEGER PRIMARY KEY, x)"
    );
    app.execute_batch(&prepare).unwrap();
    let acknowledged = 20 + i64::from(seed % 37);
    for _ in 0..acknowledged {
        insert(&app).unwrap();
    }
    app.execute_batch("BEGIN").unwrap();
    insert(&app).unwrap();
    let mut survives = chance(seed.into(), survive_one_in);
    machine.sqlite.power_loss(|_| survives());
    drop(app);
    let app = machine.sqlite.open("app", "/a.db").unwrap();
    assert_sound(&app);
    let max: Option<i64> = app.query_row("SELECT max(id) FROM t", [], |row| row.get(0)).unwrap();
    let rows = rows(&app);
    assert_eq!(rows, max.unwrap_or(0), "a prefix of what was committed");
    (acknowledged, rows)
}

#[test]
fn power_loss_spares_what_full_acknowledged() {
    for seed in 1..=40 {
        for (journal, survive_one_in) in [("WAL", 0), ("WAL", 2), ("DELETE", 0), ("DELETE", 2)] {
            // In rollback mode EXTRA also syncs the directory after deleting the journal;
            // with FULL a deleted journal may come back and undo the last commit.
            let synchronous = if journal == "WAL" { "FULL" } else { "EXTRA" };
            let (acknowledged, rows) = outage(seed, journal, synchronous, survive_one_in);
            assert_eq!(rows, acknowledged, "seed {seed} {journal} 1/{survive_one_in}");
        }
    }
}

/// The canary: were the oracle blind, a WAL whose syncs lie would pass, too.
#[test]
fn power_loss_finds_a_lying_sync() {
    let machine = machine(10);
    machine.sqlite.disk().set_fault_hook(Some(Arc::new(|op, path: &str| {
        (op == DiskOp::Sync && path.ends_with("-wal")).then_some(DiskFault::SyncLies)
    })));
    let (acknowledged, rows) = outage_on(&machine, 10, "WAL", "FULL", 0);
    assert!(rows < acknowledged, "nothing was stored since the last checkpoint");
}

#[test]
fn power_loss_under_normal_takes_a_suffix() {
    let mut lost = 0;
    for seed in 1..=40 {
        for survive_one_in in [0, 2, 20] {
            let (acknowledged, rows) = outage(seed, "WAL", "NORMAL", survive_one_in);
            assert!(rows <= acknowledged, "seed {seed}: the open transaction is not there");
            lost += acknowledged - rows;
        }
    }
    assert!(lost > 0, "a disk that loses nothing finds nothing");
}

/// A workload of two processes with a kill and a power loss; every byte of the disk.
fn repeatable(seed: u32) -> BTreeMap<String, Vec<u8>> {
    let machine = machine(seed);
    let (app, sidecar) = (machine.wal("app"), machine.wal("sidecar"));
    for round in 0..40 {
        insert(if round % 3 == 0 { &sidecar } else { &app }).unwrap();
        if round % 7 == 0 {
            checkpoint(&sidecar, "PASSIVE");
        }
    }
    app.execute_batch("INSERT INTO t(x) VALUES(datetime('now')), (random())").unwrap();
    machine.sqlite.kill_process("app");
    drop(app);
    insert(&sidecar).unwrap();
    let mut survives = chance(seed.into(), 2);
    machine.sqlite.power_loss(|_| survives());
    let successor = machine.wal("app");
    insert(&successor).unwrap();
    machine.sqlite.disk().snapshot()
}

#[test]
fn a_seed_repeats_to_the_byte() {
    let first = repeatable(11);
    assert_eq!(first, repeatable(11));
    assert_ne!(first, repeatable(12));
    assert!(first["/a.db-wal"].len() > 4096);
}

/// The answers of a script, errors included.
fn answers(db: &Connection) -> Vec<String> {
    let script = [
        "PRAGMA journal_mode",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, x)",
        "PRAGMA journal_mode=WAL",
        "INSERT INTO t(x) VALUES(1),(2),(3)",
        "BEGIN",
        "UPDATE t SET x=x+1",
        "SAVEPOINT s",
        "DELETE FROM t",
        "ROLLBACK TO s",
        "COMMIT",
        "INSERT INTO t(id) VALUES(1)",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "SELECT group_concat(x) FROM t",
        "PRAGMA journal_mode=DELETE",
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<999)
            INSERT INTO t(x) SELECT zeroblob(i) FROM n",
        "DELETE FROM t WHERE id%3=0",
        "VACUUM",
        "PRAGMA page_count",
        "SELECT sum(length(x)) FROM t ORDER BY 1",
        "PRAGMA journal_mode=TRUNCATE",
        "PRAGMA locking_mode=EXCLUSIVE",
        "PRAGMA journal_mode=WAL",
        "INSERT INTO t(x) VALUES(9)",
        "PRAGMA locking_mode=NORMAL",
        "SELECT max(id) FROM t",
        "PRAGMA integrity_check",
    ];
    let answer = |sql: &&str| -> rusqlite::Result<String> {
        let mut statement = db.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        let mut text = String::new();
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                text += &format!("{:?} ", row.get_ref(column)?);
            }
        }
        Ok(text)
    };
    script.iter().map(|sql| format!("{sql}: {:?}", answer(sql))).collect()
}

#[test]
fn answers_and_bytes_are_those_of_the_unix_vfs() {
    let dir = std::env::temp_dir().join(format!("driftless-sim-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("a.db");
    let machine = machine(13);
    let real = Connection::open(&path).unwrap();
    let expected = answers(&real);
    real.close().unwrap();
    let simulated = machine.sqlite.open("app", "/a.db").unwrap();
    assert_eq!(answers(&simulated), expected);
    simulated.close().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(machine.sqlite.disk().contents("/a.db").unwrap() == bytes, "the files differ");
}

/// A busy handler sleeps in simulated time, and gives up.
#[test]
fn waiting_moves_the_clock() {
    let machine = machine(14);
    let (app, sidecar) = (machine.wal("app"), machine.wal("sidecar"));
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    sidecar.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    let began = std::time::Instant::now();
    assert!(sidecar.execute_batch("BEGIN IMMEDIATE").is_err());
    assert!(machine.sqlite.disk().clock().now_ns() - START_NS >= 5_000_000_000);
    assert!(began.elapsed().as_secs() < 3);
}

#[test]
fn the_lock_page_comes_early() {
    let machine = machine(15);
    machine._turn.set_pending_byte(0x10000);
    let app = machine.wal("app");
    for _ in 0..100 {
        insert(&app).unwrap();
    }
    checkpoint(&app, "TRUNCATE");
    let bytes = machine.sqlite.disk().contents("/a.db").unwrap();
    assert!(bytes.len() > 20 * 4096);
    assert!(bytes[16 * 4096..17 * 4096].iter().all(|byte| *byte == 0), "page 17 is not used");
    assert_sound(&app);
}

/// Ask a file control that answers with an int.
fn control(db: &Connection, op: i32, arg: i32) -> i32 {
    let mut arg = arg;
    // SAFETY: the handle is valid while `db` is borrowed; both operations used take an int.
    let code = unsafe { ffi::sqlite3_file_control(db.handle(), c"main".as_ptr(), op, (&raw mut arg).cast()) };
    assert_eq!(code, ffi::SQLITE_OK);
    arg
}

#[test]
fn a_file_knows_that_it_has_moved_and_keeps_its_wal() {
    let machine = machine(16);
    let app = machine.wal("app");
    assert_eq!(control(&app, ffi::SQLITE_FCNTL_HAS_MOVED, 0), 0);
    machine.sqlite.disk().rename("/a.db", "/b.db").unwrap();
    assert_eq!(control(&app, ffi::SQLITE_FCNTL_HAS_MOVED, 0), 1);
    machine.sqlite.disk().rename("/b.db", "/a.db").unwrap();
    assert_eq!(control(&app, ffi::SQLITE_FCNTL_PERSIST_WAL, -1), 0);
    assert_eq!(control(&app, ffi::SQLITE_FCNTL_PERSIST_WAL, 1), 1);
    insert(&app).unwrap();
    app.close().unwrap();
    assert!(machine.sqlite.disk().exists("/a.db-wal"));
}

/// Simulations come and go: their processes' slots are used again.
#[test]
fn slots_are_used_again() {
    let name = |seed| machine(seed).sqlite.vfs_name("app");
    // Tests that run beside this one have slots of their own, and come and go.
    let names: std::collections::BTreeSet<String> = (20..220).map(name).collect();
    assert!(names.len() < 50, "{names:?}");
}

#[test]
#[expect(clippy::print_stdout, reason = "a measurement, for people")]
fn speed() {
    for (synchronous, rounds) in [("NORMAL", 20_000), ("FULL", 20_000)] {
        let machine = machine(17);
        let app = machine.wal("app");
        let pragmas = format!("PRAGMA synchronous={synchronous}; PRAGMA wal_autocheckpoint=1000");
        app.execute_batch(&pragmas).unwrap();
        let mut update = app.prepare("REPLACE INTO t(id, x) VALUES(?1, 'value')").unwrap();
        let began = std::time::Instant::now();
        for round in 0..rounds {
            update.execute([round % 100]).unwrap();
        }
        let rate = f64::from(rounds) / began.elapsed().as_secs_f64();
        println!("synchronous={synchronous}: {rate:.0} transactions a second");
    }
}
