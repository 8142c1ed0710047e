//! The directory store call by call: what a put costs, and what each failure means.

mod support;

use std::sync::{Arc, Barrier};
use std::time::Duration;

use driftless_adapters::directory::DirectoryStore;
use driftless_adapters::fs::{Fs, FsErrorKind, RealFs};
use driftless_adapters::keys::Key;
use driftless_adapters::store::{ByteRange, PutCondition, Store, StoreError, StoreErrorKind};
use driftless_core::ids::Wall;
use support::Scratch;
use support::watched::{Watched, When};

type Watching = Watched<RealFs>;

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn put<F: Fs>(
    store: &DirectoryStore<F>,
    name: &str,
    how: PutCondition,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let mut put = store.put_begin(&key(name), how)?;
    if let Err(e) = store.put_write(&mut put, bytes) {
        store.put_abort(put)?;
        return Err(e);
    }
    store.put_commit(put)
}

fn create<F: Fs>(store: &DirectoryStore<F>, name: &str) -> Result<(), StoreError> {
    put(store, name, PutCondition::IfAbsent, name.as_bytes())
}

fn listed<F: Fs>(store: &DirectoryStore<F>) -> Vec<String> {
    store.list("", None, 1000).unwrap().entries.iter().map(|e| e.key.to_string()).collect()
}

fn setup() -> (Scratch, Watching, DirectoryStore<Watching>) {
    let scratch = Scratch::new();
    let fs = Watched::new(RealFs);
    let store = DirectoryStore::new(fs.clone(), scratch.path().join("replica"), 7);
    (scratch, fs, store)
}

/// Every file below the root, hidden ones too.
fn files(scratch: &Scratch) -> usize {
    fn count(dir: &std::path::Path) -> usize {
        std::fs::read_dir(dir).map_or(0, |entries| {
            entries.map(|e| e.unwrap().path()).map(|p| if p.is_dir() { count(&p) } else { 1 }).sum()
        })
    }
    count(scratch.path())
}

#[test]
fn a_put_costs_what_the_documentation_says() {
    let (_scratch, fs, store) = setup();
    create(&store, "ltx/0/a").unwrap();
    // Each directory's name is synced before anything is made inside it.
    let root = ["stat", "stat", "sync_dir", "create_dir", "sync_dir"];
    let component = ["create_dir", "sync_dir"];
    let object = ["create_new", "write_at", "sync", "rename_noreplace", "sync_dir"];
    let same_root = ["stat"];
    assert_eq!(fs.take_calls(), [&root[..], &component, &component, &same_root, &object].concat());
    create(&store, "ltx/0/b").unwrap();
    assert_eq!(fs.take_calls(), [&same_root[..], &object].concat());
    create(&store, "ltx/1/a").unwrap();
    assert_eq!(fs.take_calls(), [&same_root[..], &component, &object].concat());
    put(&store, "ltx/0/b", PutCondition::Always, b"").unwrap();
    assert_eq!(fs.take_calls(), ["stat", "create_new", "sync", "rename", "sync_dir"]);
    store.get(&key("ltx/0/a"), ByteRange::ALL).unwrap();
    assert_eq!(fs.take_calls(), ["open_read", "len"]);
    store.delete(&key("ltx/0/a")).unwrap();
    assert_eq!(fs.take_calls(), ["remove"]);
    // A successor vouches for names before it shows them, once.
    let successor = DirectoryStore::new(fs.clone(), store.root(), 8);
    successor.get(&key("ltx/0/b"), ByteRange::ALL).unwrap();
    successor.get(&key("ltx/0/b"), ByteRange::ALL).unwrap();
    assert_eq!(fs.take_calls(), ["sync_dir", "open_read", "len", "open_read", "len"]);
}

/// Fails one call of a put and looks at what the put says and leaves.
fn check(call: &'static str, kind: FsErrorKind, when: When, wants: StoreErrorKind, visible: bool) {
    let (scratch, fs, store) = setup();
    create(&store, "ltx/0/before").unwrap();
    fs.fail(call, kind, when);
    let error = create(&store, "ltx/0/object").unwrap_err();
    assert_eq!(error.kind, wants, "{call} {kind:?} {when:?}: {error}");
    fs.heal();
    let shown = if visible { vec!["ltx/0/before", "ltx/0/object"] } else { vec!["ltx/0/before"] };
    assert_eq!(listed(&store), shown, "{call} {kind:?} {when:?}");
    assert_eq!(files(&scratch), shown.len(), "{call} {kind:?} {when:?}: a temporary was left behind");
    if !visible {
        create(&store, "ltx/0/object").unwrap();
    }
}

#[test]
fn every_failure_of_a_put_says_what_became_of_it() {
    use FsErrorKind::{Io, NoSpace, NotFound, PermissionDenied, TooManyFiles, Unsupported};
    use When::{AfterEffect, BeforeEffect};
    check("create_new", NoSpace, BeforeEffect, StoreErrorKind::NoSpace, false);
    check("create_new", TooManyFiles, BeforeEffect, StoreErrorKind::Retry, false);
    check("create_new", PermissionDenied, BeforeEffect, StoreErrorKind::Denied, false);
    check("create_new", NotFound, BeforeEffect, StoreErrorKind::Retry, false);
    check("write_at", NoSpace, BeforeEffect, StoreErrorKind::NoSpace, false);
    check("write_at", NoSpace, AfterEffect, StoreErrorKind::NoSpace, false);
    check("write_at", Io, BeforeEffect, StoreErrorKind::Retry, false);
    check("sync", NoSpace, BeforeEffect, StoreErrorKind::NoSpace, false);
    check("sync", Io, AfterEffect, StoreErrorKind::Retry, false);
    check("rename_noreplace", NoSpace, BeforeEffect, StoreErrorKind::NoSpace, false);
    check("rename_noreplace", Unsupported, BeforeEffect, StoreErrorKind::Unsupported, false);
    // From here on nobody can know.
    check("rename_noreplace", Io, BeforeEffect, StoreErrorKind::Ambiguous, false);
    check("rename_noreplace", Io, AfterEffect, StoreErrorKind::Ambiguous, true);
    check("sync_dir", Io, BeforeEffect, StoreErrorKind::Ambiguous, true);
    check("sync_dir", NoSpace, BeforeEffect, StoreErrorKind::Ambiguous, true);
    check("sync_dir", TooManyFiles, BeforeEffect, StoreErrorKind::Ambiguous, true);
}

#[test]
fn a_failed_part_cannot_be_committed() {
    let (scratch, fs, store) = setup();
    let mut put = store.put_begin(&key("a"), PutCondition::IfAbsent).unwrap();
    fs.fail("write_at", FsErrorKind::NoSpace, When::BeforeEffect);
    store.put_write(&mut put, b"lost").unwrap_err();
    fs.heal();
    store.put_write(&mut put, b"kept").unwrap();
    assert_eq!(store.put_commit(put).unwrap_err().kind, StoreErrorKind::Retry);
    assert_eq!(files(&scratch), 0);
}

#[test]
fn an_ambiguous_put_is_not_shown_before_its_directory_is_synced() {
    let (_scratch, fs, store) = setup();
    create(&store, "ltx/0/before").unwrap();
    fs.fail("sync_dir", FsErrorKind::Io, When::BeforeEffect);
    assert_eq!(create(&store, "ltx/0/object").unwrap_err().kind, StoreErrorKind::Ambiguous);
    let read_back = store.get(&key("ltx/0/object"), ByteRange::ALL).unwrap_err();
    assert_eq!(read_back.kind, StoreErrorKind::Retry, "{read_back}");
    store.list("ltx/0/", None, 10).unwrap_err();
    fs.heal();
    store.get(&key("ltx/0/object"), ByteRange::ALL).unwrap();
}

/// The story: the replica lay on a mounted filesystem; the mount went away while the process ran,
/// two segments were written into the empty mount point, and when the mount came back the history
/// had a hole that no error had announced.
#[test]
fn a_root_that_vanishes_is_not_made_again() {
    let (scratch, _fs, store) = setup();
    create(&store, "ltx/0/a").unwrap();
    let (root, away) = (scratch.path().join("replica"), scratch.path().join("away"));
    std::fs::rename(&root, &away).unwrap();
    for _ in 0..3 {
        let refused = create(&store, "ltx/0/b").unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Retry);
        assert!(refused.to_string().contains("gone"), "{refused}");
    }
    assert!(!root.exists());
    // An empty mount point in its place is not it.
    std::fs::create_dir(&root).unwrap();
    let refused = create(&store, "ltx/0/b").unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Retry);
    assert!(refused.to_string().contains("not the one"), "{refused}");
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(&away, &root).unwrap();
    create(&store, "ltx/0/b").unwrap();
    assert_eq!(listed(&store), ["ltx/0/a", "ltx/0/b"]);
}

#[test]
fn a_directory_below_the_root_that_vanishes_is_made_again_by_the_next_attempt() {
    let (scratch, _fs, store) = setup();
    create(&store, "ltx/0/a").unwrap();
    std::fs::remove_dir_all(scratch.path().join("replica/ltx")).unwrap();
    assert_eq!(create(&store, "ltx/0/b").unwrap_err().kind, StoreErrorKind::Retry);
    create(&store, "ltx/0/b").unwrap();
    assert_eq!(listed(&store), ["ltx/0/b"]);
}

#[test]
fn foreign_files_are_hidden_or_harmless_and_only_our_own_are_swept() {
    let (scratch, _fs, store) = setup();
    create(&store, "ltx/0/a.ltx").unwrap();
    let level = scratch.path().join("replica/ltx/0");
    for name in ["b.ltx.tmp", ".a.ltx.99-0.tmp", ".DS_Store"] {
        std::fs::write(level.join(name), "foreign").unwrap();
    }
    assert_eq!(listed(&store), ["ltx/0/.DS_Store", "ltx/0/a.ltx"]);
    assert_eq!(create(&store, "ltx/0/b.ltx.tmp").unwrap_err().kind, StoreErrorKind::Misconfigured);
    let absent = store.get(&key("ltx/0/b.ltx.tmp"), ByteRange::ALL).unwrap_err();
    assert_eq!(absent.kind, StoreErrorKind::NotFound);
    store.delete(&key("ltx/0/b.ltx.tmp")).unwrap();
    let modified = RealFs.stat(&level.join(".a.ltx.99-0.tmp")).unwrap().modified;
    let (hour, young) = (Duration::from_secs(3600), Wall(modified.0 + 3_599_000));
    assert_eq!(store.sweep_temporaries("", young, hour), Ok(0));
    let old = Wall(modified.0 + 3_601_000);
    assert_eq!(store.sweep_temporaries("", old, hour), Ok(1));
    let mut left: Vec<_> = std::fs::read_dir(&level).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".DS_Store", "a.ltx", "b.ltx.tmp"]);
}

#[test]
fn a_leftover_of_the_same_name_does_not_stop_a_put() {
    let (scratch, _fs, store) = setup();
    create(&store, "a").unwrap();
    for n in 0..5 {
        std::fs::write(scratch.path().join(format!("replica/.b.7-{n}.tmp")), "of a dead process").unwrap();
    }
    create(&store, "b").unwrap();
    assert_eq!(listed(&store), ["a", "b"]);
    // A name as long as names may be: its temporary's must not be longer.
    let long = "n".repeat(255);
    create(&store, &long).unwrap();
}

#[test]
fn a_truncated_file_is_an_error_and_not_an_end() {
    let (scratch, _fs, store) = setup();
    create(&store, "object").unwrap();
    let mut get = store.get(&key("object"), ByteRange::ALL).unwrap();
    std::fs::write(scratch.path().join("replica/object"), "").unwrap();
    assert_eq!(store.get_next(&mut get).unwrap_err().kind, StoreErrorKind::Corrupt);
}

#[test]
fn of_four_threads_one_creates() {
    let scratch = Scratch::new();
    // Separate stores, as separate processes would have.
    let stores = [1, 2, 3, 4].map(|n| DirectoryStore::new(RealFs, scratch.path().join("replica"), n));
    let barrier = Barrier::new(stores.len());
    let wins: Vec<Vec<bool>> = std::thread::scope(|scope| {
        let threads = stores.each_ref().map(|store| {
            let barrier = &barrier;
            scope.spawn(move || {
                let race = |n| {
                    let mut put =
                        store.put_begin(&key(&format!("ltx/0/race-{n}")), PutCondition::IfAbsent).unwrap();
                    store.put_write(&mut put, b"mine").unwrap();
                    barrier.wait();
                    match store.put_commit(put) {
                        Ok(()) => true,
                        Err(e) if e.kind == StoreErrorKind::AlreadyExists => false,
                        Err(e) => panic!("{e}"),
                    }
                };
                (0..100).map(race).collect()
            })
        });
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for race in 0..100 {
        let winners = wins.iter().filter(|won| won[race]).count();
        assert_eq!(winners, 1, "race {race}");
    }
    assert_eq!(files(&scratch), 100);
}

#[test]
fn bodies_dropped_on_the_blocking_pool_leave_no_temporary() {
    let (scratch, fs, store) = setup();
    let store: Arc<dyn Store> = Arc::new(store);
    futures_lite::future::block_on(async {
        let mut body = store.put(&key("a"), PutCondition::IfAbsent).await.unwrap();
        body.write(vec![1; 10]).await.unwrap();
        drop(body);
        let mut body = store.put(&key("b"), PutCondition::IfAbsent).await.unwrap();
        // A write that is abandoned while it is under way.
        fs.hold(Some("write_at"));
        let mut write = body.write(vec![1; 1 << 20]);
        let _ = futures_lite::future::poll_once(&mut write).await;
        drop(write);
        fs.hold(None);
        assert_eq!(body.commit().await.unwrap_err().kind, StoreErrorKind::Retry);
    });
    // The pool removes both in its own time.
    fs.wait_for("remove", 2);
    assert_eq!(files(&scratch), 0);
}
