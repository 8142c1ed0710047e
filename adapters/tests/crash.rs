//! What a directory replica looks like after a power cut at any moment.
//!
//! The loss that this guards against: a segment was written, renamed and acknowledged, the host
//! lost power, and the directory came back without the name; the writer went on with the next
//! identifier, and the history had a hole that nobody could fill. The mirror image is a name that
//! came back over a file whose bytes did not.

mod support;

use std::collections::BTreeMap;

use driftless_adapters::directory::DirectoryStore;
use driftless_adapters::fs::Fs;
use driftless_adapters::keys::Key;
use driftless_adapters::store::{ByteRange, PutCondition, StoreErrorKind};
use support::crash_fs::CrashFs;
use support::watched::Watched;

const SEEDS: u64 = 12;

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn body(n: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 512) as u8 ^ (i as u8) ^ n | 1).collect()
}

fn put<F: Fs>(store: &DirectoryStore<F>, key: &Key, how: PutCondition, bytes: &[u8]) -> bool {
    let Ok(mut put) = store.put_begin(key, how) else { return false };
    for part in bytes.chunks(1500) {
        if store.put_write(&mut put, part).is_err() {
            let _ = store.put_abort(put);
            return false;
        }
    }
    store.put_commit(put).is_ok()
}

fn get<F: Fs>(store: &DirectoryStore<F>, key: &Key) -> Option<Vec<u8>> {
    let mut get = match store.get(key, ByteRange::ALL) {
        Ok(get) => get,
        Err(e) => {
            assert_eq!(e.kind, StoreErrorKind::NotFound, "{e}");
            return None;
        }
    };
    let mut bytes = Vec::new();
    while let Some(chunk) = store.get_next(&mut get).unwrap() {
        bytes.extend(chunk);
    }
    Some(bytes)
}

/// Every body that a key may hold, and whether one of them was acknowledged (the last such).
#[derive(Default)]
struct Expected {
    tried: Vec<Vec<u8>>,
    acknowledged: Option<usize>,
}

type Truth = BTreeMap<Key, Expected>;

/// Puts into new and used directories, refused and replaced objects, an abandoned one.
fn workload<F: Fs>(store: &DirectoryStore<F>) -> Truth {
    let mut truth = Truth::new();
    let mut step = |name: &str, how, bytes: Vec<u8>| {
        let expected = truth.entry(key(name)).or_default();
        expected.tried.push(bytes.clone());
        if put(store, &key(name), how, &bytes) {
            expected.acknowledged = Some(expected.tried.len() - 1);
        }
    };
    step("ltx/0/one", PutCondition::IfAbsent, body(1, 4000));
    step("ltx/0/two", PutCondition::IfAbsent, body(2, 700));
    step("ltx/0/one", PutCondition::IfAbsent, body(3, 900));
    step("ltx/1/three", PutCondition::IfAbsent, body(4, 2000));
    step("info", PutCondition::Always, body(5, 1200));
    step("info", PutCondition::Always, body(6, 3000));
    if let Ok(mut put) = store.put_begin(&key("ltx/0/never"), PutCondition::IfAbsent) {
        let _ = store.put_write(&mut put, &body(7, 100));
        let _ = store.put_abort(put);
    }
    truth
}

/// The first thing that is wrong with what `store` shows, and every object it shows.
fn inspect<F: Fs>(store: &DirectoryStore<F>, truth: &Truth) -> Result<BTreeMap<Key, Vec<u8>>, String> {
    let mut shown = BTreeMap::new();
    for entry in store.list("", None, 100).map_err(|e| e.to_string())?.entries {
        if !truth.contains_key(&entry.key) {
            return Err(format!("{} is shown and was never put", entry.key));
        }
    }
    for (key, expected) in truth {
        let got = get(store, key);
        let Some(got) = got else {
            if expected.acknowledged.is_some() {
                return Err(format!("{key} was acknowledged and is gone"));
            }
            continue;
        };
        // Not older than what was acknowledged, and one of the bodies as a whole.
        let least = expected.acknowledged.unwrap_or(0);
        if !expected.tried[least..].contains(&got) {
            return Err(format!("{key} is torn or outdated: {} bytes", got.len()));
        }
        shown.insert(key.clone(), got);
    }
    Ok(shown)
}

fn open(disk: &CrashFs) -> DirectoryStore<CrashFs> {
    DirectoryStore::new(disk.clone(), "/data/replica", 2)
}

/// Runs the workload, kills it after `calls` filesystem calls, and cuts the power in several ways;
/// also after a successor has looked at what a mere kill left. Answers what is wrong, and whether
/// the workload came to its end.
fn crash_at(make: impl Fn() -> CrashFs, calls: usize) -> Result<bool, String> {
    let disk = make();
    let fs = Watched::new(disk.clone());
    fs.dies_after(calls);
    let truth = workload(&DirectoryStore::new(fs.clone(), "/data/replica", 1));
    let finished = fs.take_calls().len() <= calls;
    for seed in 0..SEEDS {
        let cut = disk.after_power_cut(seed);
        inspect(&open(&cut), &truth)
            .map_err(|e| format!("power cut after {calls} calls, seed {seed}: {e}"))?;
    }
    // Killed, and the power stays: the successor may rely on what it is shown.
    let shown = inspect(&open(&disk), &truth).map_err(|e| format!("kill after {calls} calls: {e}"))?;
    for seed in 0..SEEDS {
        let again = inspect(&open(&disk.after_power_cut(seed)), &truth)?;
        if again != shown {
            return Err(format!(
                "kill after {calls} calls: shown to the successor, then lost in a power cut"
            ));
        }
    }
    Ok(finished)
}

fn crash_everywhere(make: impl Fn() -> CrashFs) -> Result<usize, String> {
    for calls in 0.. {
        if crash_at(&make, calls)? {
            return Ok(calls);
        }
    }
    unreachable!("the workload ends")
}

#[test]
fn no_acknowledged_object_is_lost_and_none_is_torn() {
    let moments = crash_everywhere(CrashFs::new).unwrap();
    assert!(moments > 40, "only {moments} moments were tried");
}

/// A test that cannot fail is a defect: on disks that lie it must.
#[test]
fn lying_disks_are_noticed() {
    let lost = crash_everywhere(|| CrashFs::new().with_lying_sync_dir()).unwrap_err();
    assert!(lost.contains("gone") || lost.contains("lost"), "{lost}");
    let torn = crash_everywhere(|| CrashFs::new().with_lying_sync()).unwrap_err();
    assert!(torn.contains("torn"), "{torn}");
}

/// A put that was refused by a ghost is read back and adopted: the ghost must last.
#[test]
fn a_ghost_that_refused_a_put_outlives_a_power_cut() {
    let (name, bytes) = (key("ltx/0/ghost"), body(9, 2000));
    let mut refused = 0;
    for calls in 0..40 {
        let disk = CrashFs::new();
        let successor = open(&disk);
        // The successor knows the directory as settled before the ghost appears in it.
        assert!(put(&successor, &key("ltx/0/before"), PutCondition::IfAbsent, b"x"));
        assert!(get(&successor, &key("ltx/0/before")).is_some());
        let fs = Watched::new(disk.clone());
        fs.dies_after(calls);
        put(&DirectoryStore::new(fs, "/data/replica", 1), &name, PutCondition::IfAbsent, &bytes);
        if !put(&successor, &name, PutCondition::IfAbsent, &body(8, 10)) {
            refused += 1;
            assert_eq!(get(&successor, &name), Some(bytes.clone()));
            for seed in 0..SEEDS {
                let kept = get(&open(&disk.after_power_cut(seed)), &name);
                assert_eq!(kept, Some(bytes.clone()), "after {calls} calls, seed {seed}");
            }
        }
    }
    assert!(refused > 1, "no ghost was met");
}

/// A process was killed between making a directory and syncing its name. Its successor finds the
/// directory in place, puts an object into it and reports it: the whole path must last.
#[test]
fn a_directory_found_in_place_is_as_durable_as_one_made() {
    let (name, bytes) = (key("ltx/0/after"), body(9, 700));
    for calls in 0..20 {
        let disk = CrashFs::new();
        let fs = Watched::new(disk.clone());
        fs.dies_after(calls);
        put(&DirectoryStore::new(fs, "/data/replica", 1), &key("ltx/0/before"), PutCondition::IfAbsent, b"x");
        assert!(put(&open(&disk), &name, PutCondition::IfAbsent, &bytes));
        for seed in 0..SEEDS {
            let kept = get(&open(&disk.after_power_cut(seed)), &name);
            assert_eq!(kept.as_ref(), Some(&bytes), "killed after {calls} calls, seed {seed}");
        }
    }
}
