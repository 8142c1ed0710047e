//! The databases of a directory by their replicas: what was replicated, whether or not it is there.
//!
//! A replica is a place that holds segments, at the path of its database from the directory. An
//! object store is listed a page at a time, and each page goes on behind the last replica that the
//! one before has shown: a replica of a million segments costs one request.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use driftless_adapters::keys::{Key, ReplicaLayout, parse_legacy_key, parse_segment_key};
use driftless_adapters::object::Net;
use driftless_adapters::pool::unblock;
use driftless_adapters::store::{Store, StoreError, StoreErrorKind};

use smol::LocalExecutor;

use super::requests::within;
use super::twins::Refusal;
use super::{ReplicateJob, block_on, refused};
use crate::config::Replica;
use crate::discover::Directory;
use crate::port::place;

/// Objects asked for at a time.
const PAGE: usize = 1_000;
/// How long a person waits for a page, at the most.
const UNHURRIED: Duration = Duration::from_secs(120);
/// Lists under way at once, of a search.
const SEARCHES: usize = 32;

/// The databases of a directory that have a replica, absolute, in the order of their paths.
///
/// # Errors
/// When the place of the replicas cannot be listed.
pub fn replicated_in(directory: &Directory) -> Result<Vec<PathBuf>, StoreError> {
    block_on(async |_, net| replicated(directory, &net).await)
}

async fn replicated(directory: &Directory, net: &Net) -> Result<Vec<PathBuf>, StoreError> {
    let found = match &directory.replica {
        Replica::Directory(base) => {
            let (base, rules) = (base.clone(), directory.clone());
            let failed = |error: io::Error| {
                StoreError::new(StoreErrorKind::Retry, rules.replica.url(), error.to_string())
            };
            let recursive = rules.recursive;
            unblock(move || in_directory(&base, recursive)).await.map_err(failed)?
        }
        Replica::Object(_) => {
            let (store, layout) = place::open(&directory.replica, net)?;
            in_store(&*store, layout, (&Part::default(), skips(&directory.replica)), UNHURRIED).await?
        }
    };
    Ok(databases_of(directory, found))
}

fn databases_of(directory: &Directory, found: BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let paths = found.into_iter().map(|relative| directory.root.join(relative));
    paths.filter(|path| directory.admits(path).is_some()).collect()
}

/// The same for whoever knows most of them: one request for each replica, so many at a time. None is waited for
/// longer than `deadline`.
pub(super) async fn search(
    executor: &LocalExecutor<'static>,
    directory: &Directory,
    known: &BTreeSet<PathBuf>,
    net: &Net,
    deadline: Duration,
) -> Result<Vec<PathBuf>, StoreError> {
    if directory.replica.directory().is_some() {
        return replicated(directory, net).await;
    }
    let (store, layout) = place::open(&directory.replica, net)?;
    let known = known.iter().filter_map(|path| directory.admits(path)?.to_str());
    let list = |part: Part| {
        let (store, skips) = (store.clone(), skips(&directory.replica));
        executor.spawn(async move { in_store(&*store, layout, (&part, skips), deadline).await })
    };
    // One list cannot begin in the middle: it is read once, from its beginning to its end.
    let count = if skips(&directory.replica) { SEARCHES } else { 1 };
    let lists: Vec<_> = parts(&known.collect::<Vec<_>>(), count).into_iter().map(list).collect();
    let mut found = BTreeSet::new();
    for part in lists {
        found.extend(part.await?);
    }
    Ok(databases_of(directory, found))
}

/// Part of the names in a store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Part {
    /// What comes behind this; from the first on without it.
    after: Option<Key>,
    /// What comes before this; to the last without it.
    until: Option<String>,
}

/// Whether a list of that store can begin in the middle. Azure's goes on where the one before has ended, and
/// else begins anew.
fn skips(replica: &Replica) -> bool {
    replica.kind() != "abs"
}

/// Cuts the names of a store into so many parts at the most, with as many of these in each.
fn parts(known: &[&str], count: usize) -> Vec<Part> {
    let mut known = known.to_vec();
    known.sort_unstable();
    let cuts = known.chunks(known.len().div_ceil(count).max(1)).skip(1).map(|chunk| chunk[0]);
    let (mut parts, mut after) = (Vec::new(), None);
    for cut in cuts {
        // The segments of a replica lie behind its name.
        let Ok(next) = Key::new(cut) else { continue };
        parts.push(Part { after: after.replace(next), until: Some(cut.to_owned()) });
    }
    parts.push(Part { after, until: None });
    parts
}

/// How the databases of a directory are replicated that holds none, each to be restored before.
pub(super) async fn to_restore(directory: &Directory, net: &Net) -> Result<Vec<ReplicateJob>, Refusal> {
    let paths = replicated(directory, net).await.map_err(refused)?;
    let above: BTreeSet<PathBuf> =
        paths.iter().filter_map(|path| path.parent()).map(Path::to_path_buf).collect();
    let made = unblock(move || above.iter().try_for_each(fs::create_dir_all)).await;
    made.map_err(|error| Refusal {
        error: format!("cannot make what {} is to hold: {error}", directory.root.display()),
        hint: "give the user that runs driftless access to it".to_owned(),
    })?;
    let jobs = paths.iter().filter_map(|path| directory.job_for(path));
    Ok(jobs.map(|job| ReplicateJob { restore_if_missing: true, ..job }).collect())
}

/// The replicas below a directory, by their paths from it.
fn in_directory(base: &Path, recursive: bool) -> io::Result<BTreeSet<PathBuf>> {
    let (mut found, mut left) = (BTreeSet::new(), vec![base.to_path_buf()]);
    while let Some(directory) = left.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // Nothing was ever put there, or it went meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut below = Vec::new();
        let mut is_replica = false;
        for entry in entries {
            let entry = entry?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                is_replica |= matches!(entry.file_name().to_str(), Some("ltx" | "generations"));
                below.push(entry.path());
            }
        }
        if is_replica && directory != base {
            found.insert(directory.strip_prefix(base).expect("it lies below").to_path_buf());
        } else if recursive || directory == base {
            left.extend(below);
        }
    }
    Ok(found)
}

async fn in_store(
    store: &dyn Store,
    layout: ReplicaLayout,
    (part, skips): (&Part, bool),
    deadline: Duration,
) -> Result<BTreeSet<PathBuf>, StoreError> {
    let (mut found, mut after) = (BTreeSet::new(), part.after.clone());
    loop {
        let late = || {
            let text = format!("no answer from the store in {} s", deadline.as_secs());
            StoreError::new(StoreErrorKind::Retry, "listing replicas", text)
        };
        let page =
            within(deadline, store.list("", after.as_ref(), PAGE)).await.unwrap_or_else(|| Err(late()))?;
        let replicas = page.entries.iter().map(|entry| replica_of(layout, entry.key.as_str()));
        let last = replicas.inspect(|replica| found.extend(replica.map(PathBuf::from))).last().flatten();
        // No name in a replica begins with a tilde, and all that do begin before it.
        let behind = last.filter(|_| skips).and_then(|replica| Key::new(format!("{replica}/~")).ok());
        after = behind.or_else(|| page.entries.last().map(|entry| entry.key.clone()));
        let is_over = |at: &Key| part.until.as_ref().is_some_and(|until| at.as_str() > until.as_str());
        if !page.more || after.as_ref().is_none_or(is_over) {
            return Ok(found);
        }
    }
}

/// The place of the replica that an object belongs to, if it is a segment of one.
fn replica_of(layout: ReplicaLayout, key: &str) -> Option<&str> {
    let is_of_one = |name| parse_segment_key(layout, name).is_some() || parse_legacy_key(name).is_some();
    key.match_indices('/').find(|(at, _)| is_of_one(&key[at + 1..])).map(|(at, _)| &key[..at])
}

#[cfg(test)]
mod tests {
    use driftless_adapters::memory::MemoryStore;
    use driftless_adapters::store::PutCondition;

    use super::*;

    #[test]
    fn a_store_is_listed_from_replica_to_replica() {
        smol::block_on(async {
            let store = MemoryStore::new();
            let put = async |key: String| {
                let key = Key::new(key).unwrap();
                store.put(&key, PutCondition::IfAbsent).await.unwrap().commit().await.unwrap();
            };
            let names = ["a.db", "a.db2", "b/a.db", "b/c/d.db"];
            for name in names {
                // More than a page of the first, and of each level.
                for n in 1..if name == "a.db" { 2_500 } else { 3 } {
                    put(format!("{name}/0000/{n:016x}-{n:016x}.ltx")).await;
                    put(format!("{name}/0001/{n:016x}-{n:016x}.ltx")).await;
                }
            }
            put("b/notes.txt".to_owned()).await;
            let found =
                in_store(&store, ReplicaLayout::Object, (&Part::default(), true), UNHURRIED).await.unwrap();
            assert_eq!(found, names.map(PathBuf::from).into());
            let found =
                in_store(&store, ReplicaLayout::Object, (&Part::default(), false), UNHURRIED).await.unwrap();
            assert_eq!(found, names.map(PathBuf::from).into(), "from page to page");
            // In parts, whatever was known before.
            for known in [&names[..], &["a.db2", "c.db"], &["b/b.db"], &["a.db", "b/a.db", "b/c/d.db"], &[]] {
                for count in 1..6 {
                    let parts = parts(known, count);
                    assert!(parts.len() <= count.max(1), "{parts:?}");
                    let mut found = BTreeSet::new();
                    for part in &parts {
                        found.extend(
                            in_store(&store, ReplicaLayout::Object, (part, true), UNHURRIED).await.unwrap(),
                        );
                    }
                    assert_eq!(found, names.map(PathBuf::from).into(), "{parts:?}");
                }
            }
        });
    }

    #[test]
    fn an_object_names_its_replica() {
        let segment = "0000000000000001-0000000000000002.ltx";
        let of = |layout, key: &str| replica_of(layout, key).map(str::to_owned);
        let object = format!("a/b.db/0000/{segment}");
        assert_eq!(of(ReplicaLayout::Object, &object).as_deref(), Some("a/b.db"));
        assert_eq!(of(ReplicaLayout::Directory, &format!("b.db/ltx/9/{segment}")).as_deref(), Some("b.db"));
        assert_eq!(of(ReplicaLayout::Object, "a/b.db/readme.txt"), None);
        // One of the place itself is of none below it.
        assert_eq!(of(ReplicaLayout::Object, &format!("0000/{segment}")), None);
    }
}
