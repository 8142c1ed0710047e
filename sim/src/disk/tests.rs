//! What survives what.

use super::*;

fn disk() -> Disk {
    Disk::new(DiskConfig::default(), SimClock::new(1_000_000_000_000))
}

fn raw(error: io::Error) -> i32 {
    error.raw_os_error().expect("errors carry the system's number")
}

/// Write `bytes` to a durable file `/f`, run `change`, lose power keeping what `survives`
/// says, and compare.
fn check_content(change: impl Fn(&DiskFile), survives: impl Fn(u64) -> bool, expected: &[u8]) {
    let disk = disk();
    let file = disk.create("/f").unwrap();
    file.write_all_at(&[b'.'; 1024], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir("/").unwrap();
    change(&file);
    disk.power_loss(|unsynced| match unsynced {
        Unsynced::Sector { offset, .. } => survives(*offset),
        Unsynced::SetLen { len, .. } => survives(*len),
        Unsynced::Name { .. } => false,
    });
    assert_eq!(disk.contents("/f").unwrap(), expected);
    assert_eq!(raw(file.len().unwrap_err()), EIO, "handles die with the machine");
}

#[test]
fn unsynced_writes_survive_by_sector() {
    let write = |file: &DiskFile| file.write_all_at(&[b'x'; 600], 500).unwrap();
    let mut expected = [b'.'; 1100];
    check_content(write, |_| false, &expected[..1024]);
    expected[500..512].fill(b'x');
    check_content(write, |at| at == 500, &expected[..1024]);
    expected[1024..].fill(b'x');
    check_content(write, |at| at != 512, &expected);
}

#[test]
fn a_later_write_may_survive_an_earlier_one() {
    let write = |file: &DiskFile| {
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(b"last", 1020).unwrap();
    };
    let mut expected = [b'.'; 1024];
    expected[1020..].copy_from_slice(b"last");
    check_content(write, |at| at == 1020, &expected);
}

#[test]
fn truncation_is_unsynced_too() {
    let cut = |file: &DiskFile| file.set_len(3).unwrap();
    check_content(cut, |_| false, &[b'.'; 1024]);
    check_content(cut, |_| true, b"...");
}

#[test]
fn a_name_needs_its_directory_synced() {
    let disk = disk();
    disk.create_dir_all("/d").unwrap();
    disk.sync_dir("/").unwrap();
    let file = disk.create_new("/d/new").unwrap();
    file.write_all_at(b"whole", 0).unwrap();
    file.sync().unwrap();
    disk.power_loss(|_| false);
    assert!(!disk.exists("/d/new"));
    assert!(disk.exists("/d"));
}

#[test]
fn a_lost_rename_leaves_the_old_names() {
    for synced in [false, true] {
        let disk = disk();
        for (path, text) in [("/new", b"new"), ("/old", b"old")] {
            let file = disk.create_new(path).unwrap();
            file.write_all_at(text, 0).unwrap();
            file.sync().unwrap();
        }
        disk.sync_dir("/").unwrap();
        disk.rename("/new", "/old").unwrap();
        if synced {
            disk.sync_dir("/").unwrap();
        }
        disk.power_loss(|_| false);
        let expected: &[u8] = if synced { b"new" } else { b"old" };
        assert_eq!(disk.contents("/old").unwrap(), expected);
        assert_eq!(disk.exists("/new"), !synced);
    }
}

/// Created in one directory, replaced by a rename out of another, and only that other one was
/// synced: the creation is older than the rename and must not come back with its sync.
#[test]
fn a_sync_stores_older_changes_of_the_same_names() {
    let disk = disk();
    disk.create_dir_all("/a").unwrap();
    disk.create_dir_all("/b").unwrap();
    disk.sync_dir("/").unwrap();
    let first = disk.create_new("/b/x").unwrap().ino();
    let second = disk.create_new("/a/y").unwrap().ino();
    disk.rename("/a/y", "/b/x").unwrap();
    disk.sync_dir("/a").unwrap();
    disk.sync_dir("/b").unwrap();
    disk.power_loss(|_| false);
    assert_ne!(first, second);
    assert_eq!(disk.stat("/b/x").unwrap().ino, second);
    assert_eq!(disk.list("/a").unwrap(), Vec::<String>::new());
}

#[test]
fn handles_follow_the_inode() {
    let disk = disk();
    let file = disk.create_new("/f").unwrap();
    file.write_all_at(b"mine", 0).unwrap();
    disk.rename("/f", "/g").unwrap();
    assert!(file.has_moved());
    disk.unlink("/g").unwrap();
    let other = disk.create_new("/f").unwrap();
    assert_ne!(other.ino(), file.ino(), "an open file keeps its number");
    let mut buf = [0; 9];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 4);
    assert_eq!(file.stat().unwrap().nlink, 0);
}

#[test]
fn inode_numbers_are_used_again() {
    let disk = disk();
    let first = disk.create_new("/f").unwrap().ino();
    disk.unlink("/f").unwrap();
    disk.sync_dir("/").unwrap();
    assert_eq!(disk.create_new("/f").unwrap().ino(), first);
}

#[test]
fn links_and_exclusive_names() {
    let disk = disk();
    disk.create_new("/f").unwrap();
    disk.link("/f", "/g").unwrap();
    assert_eq!(disk.stat("/g").unwrap().nlink, 2);
    assert_eq!(raw(disk.link("/f", "/g").unwrap_err()), EEXIST);
    assert_eq!(raw(disk.rename_noreplace("/f", "/g").unwrap_err()), EEXIST);
    assert_eq!(raw(disk.create_new("/g").unwrap_err()), EEXIST);
    disk.rename_noreplace("/f", "/h").unwrap();
    assert_eq!(disk.list("/").unwrap(), ["g", "h"]);
    assert_eq!(raw(disk.open("/f").unwrap_err()), ENOENT);
    assert_eq!(raw(disk.create("/no/f").unwrap_err()), ENOENT);
}

#[test]
fn renaming_a_directory_takes_what_is_in_it() {
    let disk = disk();
    disk.create_dir_all("/a/b").unwrap();
    disk.create_new("/a/b/f").unwrap();
    disk.rename("/a", "/c").unwrap();
    assert_eq!(disk.list("/c/b").unwrap(), ["f"]);
    assert!(!disk.exists("/a/b/f"));
    assert_eq!(disk.stat("/c/b/f").unwrap().nlink, 1);
}

#[test]
fn change_times_step_with_the_tick() {
    let disk = disk();
    let file = disk.create_new("/f").unwrap();
    let before = file.stat().unwrap().ctime_ns;
    disk.clock().advance_ns(3_999_999);
    file.write_all_at(b"x", 0).unwrap();
    assert_eq!(file.stat().unwrap().ctime_ns, before, "within one tick");
    disk.clock().advance_ns(1);
    file.write_all_at(b"x", 0).unwrap();
    assert_eq!(file.stat().unwrap().ctime_ns, before + 4_000_000);
}

/// Fail the next operation of a kind with `fault`.
fn once(disk: &Disk, op: DiskOp, fault: DiskFault) {
    let armed = std::sync::atomic::AtomicBool::new(true);
    disk.set_fault_hook(Some(Arc::new(move |asked, _| {
        (asked == op && armed.swap(false, Ordering::SeqCst)).then_some(fault)
    })));
}

#[test]
fn a_failed_sync_may_forget_what_it_should_have_stored() {
    let disk = disk();
    let file = disk.create_new("/f").unwrap();
    disk.sync_dir("/").unwrap();
    file.write_all_at(b"lost", 0).unwrap();
    once(&disk, DiskOp::Sync, DiskFault::SyncEioThenClean);
    assert_eq!(raw(file.sync().unwrap_err()), EIO);
    file.sync().unwrap();
    assert_eq!(disk.contents("/f").unwrap(), b"lost");
    disk.power_loss(|_| true);
    assert_eq!(disk.contents("/f").unwrap(), b"");
}

#[test]
fn a_lying_sync_stores_nothing() {
    let disk = disk();
    let file = disk.create_new("/f").unwrap();
    disk.sync_dir("/").unwrap();
    file.write_all_at(b"lost", 0).unwrap();
    once(&disk, DiskOp::Sync, DiskFault::SyncLies);
    file.sync().unwrap();
    assert!(!disk.is_synced("/f"));
    disk.power_loss(|_| false);
    assert_eq!(disk.contents("/f").unwrap(), b"");
}

#[test]
fn short_and_stale_and_misdirected() {
    let disk = disk();
    let file = disk.create_new("/f").unwrap();
    once(&disk, DiskOp::Write, DiskFault::ShortWrite);
    assert_eq!(file.write_at(b"abcd", 0).unwrap(), 2);
    once(&disk, DiskOp::Write, DiskFault::ShortWrite);
    file.write_all_at(b"abcd", 0).unwrap();
    file.sync().unwrap();
    file.write_all_at(b"wxyz", 0).unwrap();
    let mut buf = [0; 4];
    once(&disk, DiskOp::Read, DiskFault::StaleRead);
    file.read_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"abcd");
    once(&disk, DiskOp::Write, DiskFault::Misdirect { delta: 4 });
    file.write_all_at(b"WXYZ", 0).unwrap();
    assert_eq!(disk.contents("/f").unwrap(), b"wxyzWXYZ");
    once(&disk, DiskOp::Write, DiskFault::Enospc);
    assert_eq!(raw(file.append(b"!").unwrap_err()), ENOSPC);
    assert!(disk.flip("/f", 0, 1));
    assert_eq!(disk.contents("/f").unwrap(), b"vxyzWXYZ");
}

#[test]
fn a_workload_that_never_syncs_is_written_back() {
    let disk = disk();
    let file = disk.create_new("/f").unwrap();
    disk.sync_dir("/").unwrap();
    for at in 0..40 {
        file.write_all_at(&vec![7; 1 << 20], at << 20).unwrap();
    }
    disk.power_loss(|_| false);
    let survived = disk.stat("/f").unwrap().size;
    assert!((20 << 20..40 << 20).contains(&survived), "{survived}");
}
