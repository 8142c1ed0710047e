//! Standing beside an application's SQLite, with the application in a process of its own: POSIX
//! locks belong to processes, so two connections in one would prove nothing.
//!
//! The application is this same binary, run again with only the test `place::application` and told
//! by the environment which database to open; it executes what it reads from its standard input.

#[path = "beside_sqlite/place.rs"]
mod place;
#[path = "beside_sqlite/watching.rs"]
mod watching;

use std::path::Path;
use std::process::Command;

use driftless::sqlite::{
    CheckpointCounts, Close, IndexRead, Link, LinkError, LinkOptions, Primary, Slot, TxnState, probe,
};
use place::{App, Place, write};

/// The fields of the wal-index that the tests look at.
#[derive(Debug, PartialEq, Clone, Copy)]
struct Index {
    frames: u32,
    salts: [u32; 2],
    backfill: u32,
}

fn index(link: &mut Link) -> Index {
    let IndexRead::Present(bytes) = link.read_index().expect("the index is readable") else {
        panic!("no wal-index")
    };
    assert_eq!(bytes[..48], bytes[48..96], "nobody writes now");
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    Index { frames: word(16), salts: [word(32), word(36)], backfill: word(96) }
}

#[test]
fn opening_and_reading_change_no_byte() {
    let place = Place::new();
    let app = place.app(3);
    let before = (place.bytes(""), place.bytes("-wal"));
    let mut link = place.link();
    assert_eq!(link.read_index().expect("no error"), IndexRead::Absent, "nothing was read yet");
    assert_eq!(link.read_wal(0, 32).expect("no error"), Vec::<u8>::new());
    link.begin_read(Slot::A).expect("begin");
    assert_eq!(link.in_transaction(Slot::A), TxnState::Read);
    link.end_read(Slot::A).expect("end");
    assert_eq!(link.in_transaction(Slot::A), TxnState::None);
    assert_eq!((place.bytes(""), place.bytes("-wal")), before);
    drop(app);
}

#[test]
fn closing_leaves_the_wal_unless_it_is_plain() {
    let place = Place::new();
    drop(place.app(3));
    let (db, wal) = (place.bytes(""), place.bytes("-wal"));
    assert!(wal.len() > 32, "the application died with frames in its WAL");
    for _ in 0..2 {
        let mut link = place.link();
        link.open_slot(Slot::B).expect("b");
        link.begin_read(Slot::A).expect("a");
        link.begin_read(Slot::B).expect("b");
        link.close(Close::LeaveWal).expect("close");
        assert_eq!((place.bytes(""), place.bytes("-wal")), (db.clone(), wal.clone()));
    }
    let mut link = place.link();
    link.begin_read(Slot::A).expect("a");
    drop(link);
    assert_eq!(place.bytes("-wal"), wal, "dropping leaves the WAL as well");
    let mut link = place.link();
    link.begin_read(Slot::A).expect("a");
    link.end_read(Slot::A).expect("a");
    link.close(Close::Plain).expect("close");
    assert!(!probe::companion(&place.db, "-wal").exists(), "a plain last close removes it");
}

#[test]
fn the_wal_index_names_the_page_of_each_frame() {
    let place = Place::new();
    let mut app = place.app(3);
    // Three regions of the wal-index: 4,062 frames, 4,096, and some more.
    app.ok("INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000) \
            SELECT hex(zeroblob(1600)) FROM n");
    let mut link = place.link();
    assert_eq!(link.frame_pages(1, 10).expect("no error"), Vec::<u8>::new(), "nothing was read yet");
    link.begin_read(Slot::A).expect("pin");
    let frames = index(&mut link).frames;
    assert!(frames > 4062 + 4096 + 100, "{frames} frames");
    let wal = place.bytes("-wal");
    let frame_bytes = 24 + 4096;
    let named = |first: u32, count: u32| -> Vec<u8> {
        let headers = wal[32..].chunks(frame_bytes).skip(first as usize - 1).take(count as usize);
        let page = |frame: &[u8]| u32::from_be_bytes(frame[..4].try_into().expect("four bytes"));
        headers.flat_map(|frame| page(frame).to_ne_bytes()).collect()
    };
    for (first, count) in [(1, frames), (1, 1), (4060, 3), (4062, 2), (8158, 2), (frames, 1)] {
        assert_eq!(link.frame_pages(first, count).expect("pages"), named(first, count), "{first}+{count}");
    }

    // Parts of the WAL come one behind the other, and end where the file does.
    let part = |frame: usize, count: usize| (32 + frame as u64 * 4120, (count * frame_bytes) as u32);
    let parts = [part(2, 1), part(7, 3), part(frames as usize - 1, 2)];
    let mut read = vec![0; 6 * frame_bytes];
    let there = link.read_wal_parts_into(&parts, &mut read).expect("parts");
    let expected: Vec<u8> = [2..3, 7..10, frames as usize - 1..frames as usize]
        .into_iter()
        .flat_map(|frames| &wal[32 + frames.start * frame_bytes..32 + frames.end * frame_bytes])
        .copied()
        .collect();
    assert_eq!(there, expected.len());
    assert_eq!(read[..there], expected);
}

#[test]
fn a_pin_above_mark_0_keeps_the_generation() {
    let place = Place::new();
    let mut app = place.app(5);
    let mut link = place.link();
    link.begin_read(Slot::A).expect("pin");
    let pinned = index(&mut link);
    assert!(pinned.backfill < pinned.frames, "the snapshot stands on a mark above 0");
    for _ in 0..3 {
        write(&mut app, 5);
        app.sql("PRAGMA wal_checkpoint(TRUNCATE)");
        app.ok("PRAGMA wal_checkpoint(PASSIVE)");
    }
    let after = index(&mut link);
    assert_eq!(after.salts, pinned.salts);
    assert!(after.frames >= pinned.frames + 15);
    assert!(after.backfill <= pinned.frames, "nothing above the pin is backfilled");
    assert_eq!(link.probe_readers(), Ok(false), "our own mark counts");
}

#[test]
fn a_pin_on_mark_0_lets_the_wal_restart() {
    let place = Place::new();
    let mut app = place.app(5);
    let mut link = place.link();
    link.begin_read(Slot::A).expect("read once");
    link.end_read(Slot::A).expect("end");
    let counts = link.checkpoint_passive(Slot::A).expect("checkpoint");
    assert_eq!(counts.log, counts.backfilled);
    link.begin_read(Slot::A).expect("pin");
    assert_eq!(link.probe_readers(), Ok(true), "mark 0 is not among the locks probed");
    let pinned = index(&mut link);
    assert_eq!(pinned.backfill, pinned.frames);
    write(&mut app, 1);
    let after = index(&mut link);
    assert_ne!(after.salts, pinned.salts, "the next commit starts the WAL again");
    assert!(after.frames < pinned.frames);
}

#[test]
fn a_checkpoint_runs_under_the_other_slots_write_lock() {
    let place = Place::new();
    let mut app = place.app(5);
    let mut link = place.link();
    link.open_slot(Slot::B).expect("b");
    link.begin_immediate(Slot::B).expect("lock");
    assert_eq!(link.in_transaction(Slot::B), TxnState::Write);
    let refused = app.sql("INSERT INTO t VALUES (1)");
    assert!(refused.contains("locked"), "{refused}");
    let nothing = CheckpointCounts { log: -1, backfilled: -1 };
    assert_eq!(link.checkpoint_passive(Slot::A), Ok(nothing), "slot A has not read yet");
    link.begin_read(Slot::A).expect("a reads");
    link.end_read(Slot::A).expect("a ends");
    let counts = link.checkpoint_passive(Slot::A).expect("checkpoint");
    assert!(counts.log > 0);
    assert_eq!(counts, CheckpointCounts { log: counts.log, backfilled: counts.log });
    let own = link.checkpoint_passive(Slot::B).expect_err("not inside its own transaction");
    assert_eq!(own.primary, Primary::Locked);
    let truncate = link.checkpoint_truncate(Slot::A).expect_err("not under our lock");
    assert_eq!(truncate.primary, Primary::Busy);
    link.rollback(Slot::B).expect("rollback");
    write(&mut app, 1);
    app.ok("BEGIN IMMEDIATE");
    let busy = link.begin_immediate(Slot::B).expect_err("the application writes");
    assert_eq!(busy.primary, Primary::Busy);
    assert_eq!((link.in_transaction(Slot::B), link.in_begin(Slot::B)), (TxnState::None, false));
    app.ok("COMMIT");
    link.close_slot(Slot::B);
    assert!(!link.is_open(Slot::B));
    assert_eq!(link.checkpoint_truncate(Slot::A).expect("alone").log, 0);
    assert_eq!(place.bytes("-wal").len(), 0);
}

#[test]
fn taking_the_write_lock_and_rolling_back_writes_nothing() {
    let place = Place::new();
    let mut app = place.app(5);
    let before = (place.bytes(""), place.bytes("-wal"));
    let mut link = place.link();
    for _ in 0..3 {
        link.begin_immediate(Slot::A).expect("lock");
        link.rollback(Slot::A).expect("rollback");
    }
    assert_eq!((place.bytes(""), place.bytes("-wal")), before);
    // Fully backfilled: the next writer would restart the WAL, and we must not.
    link.checkpoint_passive(Slot::A).expect("checkpoint");
    let before = (place.bytes(""), place.bytes("-wal"));
    link.begin_immediate(Slot::A).expect("lock");
    link.rollback(Slot::A).expect("rollback");
    assert_eq!((place.bytes(""), place.bytes("-wal")), before);
    write(&mut app, 1);
}

#[test]
fn reads_are_what_another_process_reads() {
    let place = Place::new();
    let mut app = place.app(40);
    app.ok("PRAGMA wal_checkpoint");
    write(&mut app, 10);
    let mut link = place.link();
    link.begin_read(Slot::A).expect("pin");
    let (db, wal) = (place.bytes(""), place.bytes("-wal"));
    assert_eq!(link.read_pages(0, db.len()).expect("pages"), db);
    assert_eq!(link.read_wal(0, wal.len()).expect("frames"), wal);
    assert_eq!(link.read_wal(32, 24 + 4096).expect("a frame"), wal[32..32 + 24 + 4096]);
    assert_eq!(probe::read_wal_frame(&place.db, 32, 24).expect("a frame"), wal[32..56]);
    let past = link.read_wal(wal.len() as u64 - 10, 100).expect("a short read");
    assert_eq!(past, wal[wal.len() - 10..]);
    assert_eq!(link.read_pages(db.len() as u64 + 1, 100).expect("nothing there"), Vec::<u8>::new());
    assert_eq!(link.read_wal(0, 0).expect("nothing asked"), Vec::<u8>::new());
}

#[test]
fn a_file_that_cannot_be_written_is_refused() {
    const PATH: &str = "DRIFTLESS_TEST_READ_ONLY";
    if let Ok(path) = std::env::var(PATH) {
        // The second run of this test, as a user who may not write.
        let refused = Link::open(Path::new(&path), LinkOptions::default());
        assert!(matches!(refused, Err(LinkError::ReadOnly)), "{refused:?}");
        assert!(!probe::stat_facts(Path::new(&path)).expect("facts").can_write);
        return;
    }
    let place = Place::new();
    drop(place.app(1));
    let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o444);
    std::fs::set_permissions(&place.db, read_only).expect("chmod");
    // A copy of this binary where anyone may run it, for a user who owns nothing.
    let exe = place.dir.join("again");
    // By another process: a descriptor of ours would be inherited by whatever other tests fork at
    // that moment, and the kernel runs no file that is open for writing.
    let copied = Command::new("cp").arg(std::env::current_exe().expect("this binary")).arg(&exe).status();
    assert!(copied.expect("cp runs").success());
    let mut again = Command::new(exe);
    again.args(["--exact", "a_file_that_cannot_be_written_is_refused"]).env(PATH, &place.db);
    if rustix::process::geteuid().is_root() {
        // Root writes everywhere.
        std::os::unix::process::CommandExt::uid(&mut again, 65_534);
    }
    let output = again.current_dir("/").output().expect("run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_renamed_file_has_moved() {
    let place = Place::new();
    let app = place.app(1);
    let mut link = place.link();
    link.begin_read(Slot::A).expect("pin");
    assert_eq!(link.has_moved(), Ok(false));
    let file = link.facts().expect("facts").file.expect("a file");
    assert_eq!(Some(file.id), link.file_id());
    std::fs::rename(&place.db, place.dir.join("elsewhere")).expect("rename");
    assert_eq!(link.has_moved(), Ok(true));
    assert!(link.facts().expect("facts").file.is_none());
    drop(app);
}

#[test]
fn one_link_a_file_and_no_header_read_under_it() {
    let place = Place::new();
    let mut app = place.app(1);
    app.ok("PRAGMA wal_checkpoint");
    let seen = probe::probe(&place.db).expect("nobody links it yet");
    assert_eq!(&seen.header.expect("a header")[..16], b"SQLite format 3\0");
    let link = place.link();
    let second = Link::open(&place.db, LinkOptions::default());
    assert!(matches!(second, Err(LinkError::AlreadyLinked(_))), "{second:?}");
    let alias = place.dir.join("alias.db");
    std::fs::hard_link(&place.db, &alias).expect("link");
    let third = Link::open(&alias, LinkOptions::default());
    assert!(matches!(third, Err(LinkError::AlreadyLinked(_))), "{third:?}");
    for path in [&place.db, &alias] {
        let refused = probe::probe(path);
        assert!(matches!(refused, Err(probe::ProbeError::Linked(_))), "{refused:?}");
    }
    assert!(probe::stat_facts(&place.db).is_ok(), "stat is always safe");
    drop(link);
    assert!(probe::probe(&place.db).is_ok());
    drop(place.link());
}

#[test]
fn looking_at_other_files_keeps_our_locks() {
    let (place, other) = (Place::new(), Place::new());
    let mut app = place.app(5);
    drop(other.app(1));
    let mut link = place.link();
    link.begin_read(Slot::A).expect("pin");
    let pinned = index(&mut link);
    assert!(pinned.backfill < pinned.frames);
    for _ in 0..10 {
        probe::probe(&other.db).expect("probe");
        probe::stat_facts(&place.db).expect("facts");
        probe::read_wal_frame(&place.db, 0, 32).expect("header");
        let refused = probe::probe(&place.db);
        assert!(matches!(refused, Err(probe::ProbeError::Linked(_))));
    }
    // With our lock on the file gone, the application could leave WAL mode and delete the WAL;
    // with the pin gone, it could restart it.
    let kept = app.sql("PRAGMA journal_mode=DELETE");
    assert!(kept == "wal" || kept.contains("locked"), "{kept}");
    app.ok("PRAGMA wal_checkpoint(PASSIVE)");
    write(&mut app, 3);
    assert_eq!(index(&mut link).salts, pinned.salts);
    // The canary: one descriptor opened and closed behind SQLite's back is enough.
    assert_eq!(locks_on(&link), 1, "SHARED on the database");
    drop(std::fs::File::open(&place.db).expect("open"));
    assert_eq!(locks_on(&link), 0, "the trap is no more?");
}

/// POSIX locks that this process holds on the linked file, by the kernel's account.
fn locks_on(link: &Link) -> usize {
    let (pid, ino) = (std::process::id().to_string(), link.file_id().expect("a real file").ino);
    let locks = std::fs::read_to_string("/proc/locks").expect("the kernel's list");
    let ours = |line: &&str| {
        let mut words = line.split_whitespace();
        let (owner, file) = (words.nth(4), words.next());
        owner == Some(&pid) && file.is_some_and(|file| file.ends_with(&format!(":{ino}")))
    };
    locks.lines().filter(ours).count()
}

#[test]
fn facts_are_plain() {
    let place = Place::new();
    let nothing = probe::probe(&place.db).expect("a missing file is a fact");
    assert_eq!((nothing.file, nothing.header, nothing.wal), (None, None, None));
    let mut app = place.app(2);
    let facts = probe::probe(&place.db).expect("facts");
    let file = facts.file.expect("a file");
    assert_eq!((file.nlink, file.uid), (1, facts.euid));
    assert!(facts.can_write && facts.can_write_directory && !facts.is_symlinked);
    assert!(facts.shm.is_some() && facts.journal_len.is_none() && facts.boot_id.is_some());
    let wal = facts.wal.expect("a WAL");
    assert_eq!(wal.header.expect("a header")[..], place.bytes("-wal")[..32]);
    assert!(matches!(facts.filesystem, probe::Filesystem::Local { .. }), "{:?}", facts.filesystem);
    let alias = place.dir.join("alias.db");
    std::os::unix::fs::symlink(&place.db, &alias).expect("symlink");
    let through = probe::probe(&alias).expect("facts");
    assert!(through.is_symlinked);
    assert_eq!((through.realpath, through.file), (facts.realpath, facts.file));
    let symlink = Link::open(&alias, LinkOptions::default());
    assert!(matches!(symlink, Err(LinkError::Sqlite(code)) if code.primary == Primary::CantOpen));
    app.ok("PRAGMA wal_checkpoint(TRUNCATE)");
    let emptied = probe::probe(&place.db).expect("facts");
    assert_eq!(emptied.wal.expect("a WAL").header, None);
}

#[test]
fn rollback_mode_has_no_index_and_gets_none() {
    let place = Place::new();
    let mut app = App::open(&place.db);
    app.ok("CREATE TABLE t(a)");
    let mut link = place.link();
    link.begin_read(Slot::A).expect("a reader of a rollback-mode database");
    assert_eq!(link.read_index().expect("no error"), IndexRead::Absent);
    assert!(!probe::companion(&place.db, "-shm").exists(), "asking must not create it");
    assert_eq!(link.read_wal(0, 32).expect("no error"), Vec::<u8>::new());
    link.end_read(Slot::A).expect("end");
    assert_eq!(link.end_read(Slot::A).expect_err("no transaction").primary, Primary::Other(1));
}

#[test]
fn the_schema_is_never_loaded() {
    let place = Place::new();
    let mut app = place.app(1);
    for n in 0..300 {
        app.ok(&format!("CREATE TABLE t{n}(a INTEGER PRIMARY KEY, b TEXT, c TEXT, d BLOB, e REAL)"));
    }
    let small = Place::new();
    drop(small.app(1));
    let cost = |place: &Place| {
        let mut link = place.link();
        for _ in 0..50 {
            link.begin_read(Slot::A).expect("begin");
            link.end_read(Slot::A).expect("end");
        }
        link.memory(Slot::A)
    };
    let (few, many) = (cost(&small), cost(&place));
    assert_eq!(many.schema, 0);
    assert_eq!(few, many);
    assert!(many.cache + many.statements < 16 * 1024, "{many:?}");
}

#[test]
fn a_vfs_of_ones_own_claims_nothing() {
    let place = Place::new();
    let _app = place.app(1);
    let with = |vfs: &std::ffi::CStr| Link::open(&place.db, LinkOptions { vfs: Some(vfs.into()) });
    let mut link = with(c"unix").expect("the system's, by name");
    assert_eq!(link.file_id(), None);
    link.begin_read(Slot::A).expect("begin");
    assert!(index(&mut link).frames > 0);
    assert!(matches!(with(c"nobody's"), Err(LinkError::Sqlite(_))));
    link.close_slot(Slot::A);
    assert_eq!(link.begin_read(Slot::A), Err(driftless::sqlite::SqliteCode::MISUSE), "it is closed");
}
