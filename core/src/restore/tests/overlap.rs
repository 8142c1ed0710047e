//! What is read and written while the survey goes on, and how much at once.

use std::boxed::Box;
use std::vec::Vec;

use super::{History, Host, RestoreConfig, at, fails, object};
use crate::machine::{Exit, StoreRequest};

/// A snapshot of 2,000 pages, and `count` transactions that change forty pages each: those that `page`
/// names for transaction and number.
fn increments(count: u32, page: impl Fn(u32, u32) -> u32) -> History {
    let mut history = History::new(4096, true);
    history.commit(2000, &[]);
    history.snapshot();
    history.store.remove(&object(0, 1, 1));
    for n in 0..count {
        history.commit(2000, &(0..40).map(|k| page(n, k)).collect::<Vec<_>>());
    }
    history
}

/// The requests of a whole restore without listings, and the bytes that were read.
fn cost(history: &History, parallelism: usize) -> (u64, u64) {
    let mut last = (0, 0);
    for seed in 1..6 {
        let mut host = Host::new(history.store.clone()).seeded(seed * 7, 0);
        let (exit, status) = host.restore(RestoreConfig { parallelism, ..at(history.last) });
        assert_eq!(exit, Exit::Done);
        assert!(status.proven && host.target.as_ref() == history.states.get(&history.last));
        assert!(host.reads_open_max <= 2 * parallelism, "{} reads at once", host.reads_open_max);
        let listings = if parallelism == 1 { 10 } else { 19 };
        last = (status.requests - listings, host.read_bytes);
    }
    last
}

#[test]
fn a_small_file_that_is_wanted_is_read_once() {
    let history = increments(60, |n, k| 1 + (n * 33 + k * 50) % 2000);
    let small = history.store[&object(0, 2, 2)].len() as u64;
    assert!((64 << 10..1 << 20).contains(&small), "{small} bytes");
    let all: u64 = history.store.values().map(|it| it.len() as u64).sum();
    for parallelism in [1, 2, 16] {
        // More than may be held at a time, where few are read at once.
        let (requests, bytes) = cost(&history, parallelism);
        // Of the snapshot the header, the index, and runs.
        let runs = requests - 60 - 2;
        assert!((1..10).contains(&runs), "{requests} requests, {parallelism} at once");
        assert!(bytes < all, "{bytes} bytes");
    }
}

#[test]
fn small_files_of_which_nothing_is_wanted_are_not_read_whole() {
    let history = increments(60, |_, k| 1 + k * 50);
    let small = history.store[&object(0, 2, 2)].len() as u64;
    let snapshot = history.store[&object(9, 1, 1)].len() as u64;
    for parallelism in [1, 4] {
        let (_, bytes) = cost(&history, parallelism);
        let of_small = bytes - snapshot;
        let at_most = 8 * small + 60 * ((64 << 10) + 100);
        assert!(of_small < at_most, "{of_small} bytes of files of {small}, {parallelism} at once");
    }
}

#[test]
fn content_is_read_in_few_large_pieces_and_no_more_is_held() {
    let mut history = History::new(4096, true);
    history.commit(6000, &[]);
    history.snapshot();
    for (parallelism, reads) in [(1, 1), (4, 4), (16, 6), (48, 6)] {
        let mut host = Host::new(history.store.clone()).seeded(3, 0);
        let (exit, status) = host.restore(RestoreConfig { parallelism, ..at(1) });
        assert_eq!(exit, Exit::Done);
        assert!(host.target.as_ref() == history.states.get(&1));
        assert!(status.requests < 40, "{} requests for 24 MB", status.requests);
        let open = host.reads_open_max;
        // Pages compress a little.
        assert!((reads..=reads + 2).contains(&open), "{open} where {parallelism} may be");
        let bytes = host.read_bytes_open_max;
        assert!(bytes <= 13 << 20, "{bytes} bytes under way, {parallelism} at once");
    }
}

/// What is damaged in the snapshot, whose index is read last, comes to light when much is written.
#[test]
fn damage_that_is_found_late_leaves_nothing_behind() {
    let history = increments(30, |n, k| 1 + (n * 33 + k * 50) % 2000);
    let snapshot = object(9, 1, 1);
    for from_end in [20, 30, 5000] {
        let mut store = history.store.clone();
        let bytes = store.get_mut(&snapshot).unwrap();
        let at_byte = bytes.len() - from_end;
        bytes[at_byte] ^= 0x55;
        let Exit::Corrupt { error, .. } = fails(&store, at(31)) else { panic!("it is not damage") };
        assert!(error.contains("9/0000000000000001-0000000000000001.ltx"), "{error}");
        // With another file that holds the same it is gone around.
        let all: Vec<u32> = (1..=2000).collect();
        store.insert(object(1, 1, 31), history.encode(1, 31, &all, None, history.post));
        store.remove(&snapshot);
        let mut host = Host::new(store).seeded(5, 0);
        assert_eq!(host.restore(at(31)).0, Exit::Done);
        assert!(host.target.as_ref() == history.states.get(&31));
    }
}

/// A compactor that puts what it has merged and removes what that was made of, between any two answers.
#[test]
fn merging_while_levels_are_listed_never_shows_an_older_state() {
    let history = History::typical(512, true);
    let all: Vec<u32> = (1..=history.pages.len() as u32).collect();
    let merged = history.encode(21, 40, &all, None, history.post);
    for seed in 0..6 {
        for (put, gap) in (1..22).flat_map(|put| [(put, 1), (put, 4)]) {
            let mut host = Host::new(history.store.clone()).seeded(seed + 1, 0);
            let (mut lists, merged) = (0, merged.clone());
            host.hook = Some(Box::new(move |request, store| {
                if let StoreRequest::List { .. } = request {
                    lists += 1;
                    if lists == put {
                        store.insert(object(2, 21, 40), merged.clone());
                    }
                    if lists == put + gap {
                        store.retain(|it, _| it.level.get() > 0 || it.range.min().get() < 21);
                    }
                }
                None
            }));
            let (exit, status) = host.restore(RestoreConfig::default());
            assert_eq!(exit, Exit::Done, "put at {put}, removed {gap} later, seed {seed}");
            assert!(host.target.as_ref() == history.states.get(&40), "{:?}", status.target);
        }
    }
}
