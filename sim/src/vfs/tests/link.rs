//! The production link, put into a simulated process by the name of its VFS.

use std::ffi::CString;
use std::path::Path;

use driftless::sqlite::{Close, IndexRead, Link, LinkOptions, Primary, Slot, TxnState};

use super::*;

fn link(machine: &Machine, process: &str) -> Link {
    let vfs = CString::new(machine.sqlite.vfs_name(process)).unwrap();
    Link::open(Path::new("/a.db"), LinkOptions { vfs: Some(vfs) }).unwrap()
}

/// mxFrame and salts of the first header copy; the two copies must be equal.
fn index(link: &mut Link) -> (u32, [u8; 8]) {
    let IndexRead::Present(bytes) = link.read_index().unwrap() else {
        panic!("no wal-index");
    };
    assert_eq!(bytes[..48], bytes[48..96], "nobody is writing");
    let frames = u32::from_ne_bytes(bytes[16..20].try_into().unwrap());
    (frames, bytes[32..40].try_into().unwrap())
}

#[test]
fn a_link_reads_what_the_application_commits() {
    let machine = machine(40);
    let app = machine.wal("app");
    let mut link = link(&machine, "driftless");
    assert_eq!(link.read_index().unwrap(), IndexRead::Absent, "nothing was read yet");
    link.begin_read(Slot::A).unwrap();
    let (before, salts) = index(&mut link);
    insert(&app).unwrap();
    let (after, same) = index(&mut link);
    assert!(after > before && same == salts);
    let disk = machine.sqlite.disk();
    assert_eq!(link.read_wal(0, 1 << 20).unwrap(), disk.contents("/a.db-wal").unwrap());
    assert_eq!(link.read_pages(0, 100).unwrap(), disk.contents("/a.db").unwrap()[..100]);
    assert!(!link.has_moved().unwrap());
    link.end_read(Slot::A).unwrap();
    link.close(Close::LeaveWal).unwrap();
    drop(app);
}

#[test]
fn a_link_pins_locks_and_checkpoints() {
    let machine = machine(41);
    let app = machine.wal("app");
    insert(&app).unwrap();
    let mut link = link(&machine, "driftless");
    link.begin_read(Slot::A).unwrap();
    assert!(!link.probe_readers().unwrap(), "our own pin");
    insert(&app).unwrap();
    link.open_slot(Slot::B).unwrap();
    link.begin_immediate(Slot::B).unwrap();
    assert_eq!(link.in_transaction(Slot::B), TxnState::Write);
    let refused = insert(&app).unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
    link.end_read(Slot::A).unwrap();
    let counts = link.checkpoint_passive(Slot::A).unwrap();
    assert_eq!(counts.log, counts.backfilled, "PASSIVE under our write lock finishes");
    let locked = link.checkpoint_passive(Slot::B).unwrap_err();
    assert_eq!(locked.primary, Primary::Locked);
    link.rollback(Slot::B).unwrap();
    link.close_slot(Slot::B);
    assert!(link.probe_readers().unwrap());
    insert(&app).unwrap();
    assert_sound(&app);
}

/// The rule that shaped capture, against the production link: what the application's death in
/// its commit left behind is in the file and not in the wal-index.
#[test]
fn a_link_does_not_see_a_phantom_commit() {
    let machine = machine(42);
    let app = machine.wal("app");
    app.execute_batch("PRAGMA synchronous=FULL").unwrap();
    insert(&app).unwrap();
    let mut link = link(&machine, "driftless");
    link.begin_read(Slot::A).unwrap();
    let committed = index(&mut link);
    machine.once("app", VfsOp::Sync, "-wal", VfsFault::Die);
    assert!(insert(&app).is_err());
    assert!(frames_in_file(&machine) > committed.0 as usize);
    assert_eq!(index(&mut link), committed);
    // An application that comes back and finds us attached does not recover.
    let again = machine.wal("app");
    assert_eq!(rows(&again), 1);
    insert(&again).unwrap();
    assert_eq!(index(&mut link).1, committed.1, "the same salts over other frames");
}

#[test]
fn a_link_dies_with_its_process() {
    let machine = machine(43);
    let app = machine.wal("app");
    insert(&app).unwrap();
    let mut old = link(&machine, "driftless");
    old.begin_read(Slot::A).unwrap();
    insert(&app).unwrap();
    let at_death = index(&mut old);
    machine.sqlite.kill_process("driftless");
    assert_eq!(old.read_wal(0, 32).unwrap_err().primary, Primary::IoErr);
    assert_eq!(checkpoint(&app, "TRUNCATE"), (0, 0, 0), "its pin is gone");
    let mut new = link(&machine, "driftless");
    new.begin_read(Slot::A).unwrap();
    insert(&app).unwrap();
    let frames = index(&mut new).0;
    assert_ne!(frames, at_death.0);
    assert_eq!(index(&mut old), at_death, "a ghost sees the memory of its death");
    drop(old);
    assert_eq!(index(&mut new).0, frames);
    machine.sqlite.power_loss(|_| false);
    assert!(new.begin_read(Slot::A).is_err());
}
