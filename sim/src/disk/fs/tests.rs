//! Production code on the simulated disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use driftless_adapters::directory::DirectoryStore;
use driftless_adapters::keys::Key;
use driftless_adapters::store::{ByteRange, PutCondition};

use super::*;
use crate::disk::{DiskConfig, DiskFault, SimClock};

fn fs() -> SimFs {
    SimFs::new(Disk::new(DiskConfig::default(), SimClock::new(1_000_000_000_000)))
}

fn kind_of<T: std::fmt::Debug>(result: Result<T, FsError>) -> FsErrorKind {
    result.unwrap_err().kind
}

#[test]
fn errors_are_sorted_as_the_real_ones() {
    let fs = fs();
    let file = fs.create_new(Path::new("/f")).unwrap();
    fs.create_dir(Path::new("/d")).unwrap();
    let at = Path::new;
    assert_eq!(kind_of(fs.create_new(at("/f"))), FsErrorKind::Exists);
    assert_eq!(kind_of(fs.create_dir(at("/f"))), FsErrorKind::Exists);
    assert_eq!(kind_of(fs.create_new(at("/no/f"))), FsErrorKind::NotFound);
    assert_eq!(kind_of(fs.create_dir(at("/no/d"))), FsErrorKind::NotFound);
    assert_eq!(kind_of(fs.create_new(at("/f/x"))), FsErrorKind::BadPath);
    assert_eq!(kind_of(fs.open_read(at("/f/x"))), FsErrorKind::BadPath);
    assert_eq!(kind_of(fs.open_read(at("/d"))), FsErrorKind::BadPath);
    assert_eq!(kind_of(fs.remove(at("/d"))), FsErrorKind::BadPath);
    assert_eq!(kind_of(fs.list_dir(at("/f"))), FsErrorKind::BadPath);
    assert_eq!(kind_of(fs.list_dir(at("/no"))), FsErrorKind::NotFound);
    assert_eq!(kind_of(fs.rename_noreplace(at("/f"), at("/d"))), FsErrorKind::Exists);
    fs.disk().set_fault_hook(Some(Arc::new(|_, _| Some(DiskFault::Enospc))));
    assert_eq!(kind_of(fs.write_at(&file, b"x", 0)), FsErrorKind::NoSpace);
    fs.disk().set_fault_hook(Some(Arc::new(|_, _| Some(DiskFault::Emfile))));
    assert_eq!(kind_of(fs.open_read(at("/f"))), FsErrorKind::TooManyFiles);
}

#[test]
fn a_listing_tells_files_from_directories() {
    let fs = fs();
    fs.create_dir_all(Path::new("/a/b")).unwrap();
    fs.create_new(Path::new("/a/f")).unwrap();
    let listed = fs.list_dir(Path::new("/a/")).unwrap();
    let kinds: Vec<_> = listed.iter().map(|entry| (entry.name.to_str().unwrap(), entry.kind)).collect();
    assert_eq!(kinds, [("b", FileKind::Dir), ("f", FileKind::File)]);
}

/// Put one object, with power lost at the operation number `operations` and nothing unsynced
/// surviving. True if the store said that it was done.
fn put_until(operations: u32) -> bool {
    let fs = fs();
    let left = AtomicU32::new(operations);
    fs.disk().set_fault_hook(Some(Arc::new(move |_, _| {
        let run = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        run.is_err().then_some(DiskFault::Eio)
    })));
    let key = Key::new("db/ltx/0/1.ltx").unwrap();
    let body = vec![7; 5000];
    let store = DirectoryStore::new(fs.clone(), "/replica/deep", 1);
    let put = || {
        let mut put = store.put_begin(&key, PutCondition::IfAbsent)?;
        put_all(&store, &mut put, &body)?;
        store.put_commit(put)
    };
    let done = put().is_ok();
    fs.disk().set_fault_hook(None);
    fs.disk().power_loss(|_| false);
    let store = DirectoryStore::new(fs, "/replica/deep", 2);
    match store.get(&key, ByteRange::ALL) {
        Ok(mut get) => {
            let mut found = Vec::new();
            while let Some(chunk) = store.get_next(&mut get).unwrap() {
                found.extend(chunk);
            }
            assert!(found == body, "operation {operations}: a torn object has the name");
        }
        Err(error) => assert!(!done, "operation {operations}: acknowledged, then {error:?}"),
    }
    done
}

fn put_all(
    store: &DirectoryStore<SimFs>,
    put: &mut driftless_adapters::directory::DirectoryPut<SimFs>,
    body: &[u8],
) -> Result<(), driftless_adapters::store::StoreError> {
    body.chunks(1000).try_for_each(|chunk| store.put_write(put, chunk))
}

#[test]
fn what_the_directory_store_acknowledges_survives() {
    assert!(!put_until(0));
    let needed = (1..200).find(|operations| put_until(*operations)).expect("it ends");
    assert!(needed > 10, "directories, temporary, writes, syncs and a link: {needed}");
}
