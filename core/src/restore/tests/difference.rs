//! Restores over what stands in the target's place: only what differs is fetched, and whatever it is,
//! the result is the state asked for.

use std::boxed::Box;
use std::cell::Cell;
use std::rc::Rc;
use std::vec::Vec;
use std::{format, vec};

use super::{History, Host, RestoreConfig, RestoreStatus, at, object, text};
use crate::ltx::LTX_HEADER_BYTES;
use crate::machine::{ByteRange, Exit, StoreRequest};

fn over(n: u64) -> RestoreConfig {
    RestoreConfig { replace: true, ..at(n) }
}

/// Restores `n` over `present`, and tells how many bytes were read to that end.
fn restore(history: &History, present: &[u8], n: u64) -> (RestoreStatus, u64) {
    let mut last = None;
    for seed in 1..4 {
        let mut host = Host::new(history.store.clone()).seeded(seed * 17, 40 * (seed - 1));
        host.target = Some(present.to_vec());
        let config = RestoreConfig { pending_byte: history.pending_byte, ..over(n) };
        let (exit, status) = host.restore(config);
        assert_eq!(exit, Exit::Done, "seed {seed}");
        assert!(host.target.as_ref() == history.states.get(&n), "the state at {n} comes back, seed {seed}");
        assert_eq!(status.proven, history.chained);
        let lock = u64::from(status.pages >= history.page_size.lock_page(history.pending_byte).get());
        let pages = status.pages_done + status.pages_kept;
        assert!(pages == u64::from(status.pages) - lock, "each page comes from one place: {status:?}");
        last = last.or(Some((status, host.read_bytes)));
    }
    last.unwrap()
}

/// A database of 3,000 pages: a snapshot at 2, then a transaction that changes 100 pages and one that
/// changes 30 and makes it shorter by 50.
fn large() -> History {
    let mut history = History::new(4096, true);
    history.commit(3000, &[]);
    history.commit(3000, &[1, 2]);
    history.snapshot();
    history.commit(3000, &(7..3000).step_by(30).collect::<Vec<_>>());
    history.commit(2950, &(100..400).step_by(10).collect::<Vec<_>>());
    history
}

#[test]
fn every_state_is_brought_to_every_other() {
    let history = History::typical(512, true);
    for n in [1, 2, 20, 21, 33, 40] {
        for present in [1, 2, 11, 19, 20, 22, 33, 39, 40] {
            let (status, _) = restore(&history, &history.states[&present], n);
            assert!(present != n || status.pages_done == 0, "{present} is there already");
            let from = status.plan.first().map_or(n + 1, |file| file.object.range.min().get());
            // The files from 2 to 20 are more than the snapshot that is at 20.
            let far = present > n || present == 1 && n >= 20;
            assert_eq!(status.guesses, far, "{present} to {n}");
            assert!(far || from == present + 1, "{present} to {n}: from {from}");
        }
    }
}

#[test]
fn what_has_not_changed_is_not_fetched() {
    let history = large();
    let (status, bytes) = restore(&history, &history.states[&2], 4);
    assert_eq!((status.pages_done, status.pages_kept), (129, 2821));
    let segments = [3, 4].map(|n| history.store[&object(0, n, n)].len() as u64);
    // The header of the second names the state that stands there; two more were asked for ahead, of which
    // one may have been called off in time.
    let headers = (bytes - segments.iter().sum::<u64>()) / LTX_HEADER_BYTES as u64;
    assert!((3..=4).contains(&headers), "{headers}");
    let (status, bytes) = restore(&history, &history.states[&4], 4);
    assert_eq!((status.pages_done, status.pages_kept), (0, 2950));
    assert_eq!(bytes, LTX_HEADER_BYTES as u64, "a header is all that is read");
}

/// The header of no file names a state that lies in the middle of one.
#[test]
fn a_state_within_a_merged_file_is_found_by_its_pages() {
    let mut history = large();
    let changed: Vec<u32> =
        (7..3000).step_by(30).chain((100..400).step_by(10)).filter(|&it| it < 2950).collect();
    let mut sorted = changed.clone();
    sorted.sort_unstable();
    sorted.dedup();
    let merged = history.encode(3, 4, &sorted, None, history.post);
    history.store.remove(&object(0, 3, 3));
    history.store.remove(&object(0, 4, 4));
    let len = merged.len() as u64;
    history.store.insert(object(1, 3, 4), merged);
    let (status, bytes) = restore(&history, &history.states[&3].clone(), 4);
    assert!(status.guesses && status.pages_done as usize <= sorted.len() + 2, "{status:?}");
    assert!(bytes < len + (160 << 10), "the merged file and the index of the snapshot: {bytes}");
}

/// Last night's copy, after another snapshot was made, and the transactions since were merged.
#[test]
fn a_state_before_the_last_snapshot_is_followed_past_it() {
    let mut history = large();
    let changed: Vec<u32> = (1..=2950).filter(|page| page % 30 == 7 || (100..400).contains(page)).collect();
    let merged = history.encode(3, 4, &changed, None, history.post);
    let len = merged.len() as u64;
    history.store.retain(|it, _| it.range.max().get() < 3);
    history.store.insert(object(1, 3, 4), merged);
    history.snapshot();
    history.commit(2950, &[9]);
    for present in [2, 3] {
        let (status, bytes) = restore(&history, &history.states[&present].clone(), 5);
        assert_eq!(status.guesses, present == 3);
        assert!(bytes < len + (180 << 10), "the merged file, and the snapshot's index at most: {bytes}");
        assert!(status.pages_kept > 2500, "{status:?}");
    }
}

/// As `PRAGMA journal_mode` or a commit that was undone leave it.
#[test]
fn bytes_that_sqlite_writes_by_itself_cost_one_page() {
    let mut history = large();
    history.commit(2950, &[700]);
    let mut present = history.states[&4].clone();
    present[18..20].fill(1);
    present[24..28].fill(9);
    present[92..100].fill(9);
    let (status, bytes) = restore(&history, &present, 5);
    // Those of the small segments are at hand; what has not begun when it is enough does not begin.
    assert!((3..=132).contains(&status.pages_done), "{status:?}");
    assert_eq!(status.pages_done + status.pages_kept, 2950);
    assert!(bytes < 4 * (70 << 10) + (400 << 10), "{bytes}");
    // Nothing newer than the snapshot holds page 1, and only its own run is read there.
    let mut host = Host::new(history.store.clone());
    host.target = Some(present);
    let snapshot = Rc::new(Cell::new(0));
    let seen = Rc::clone(&snapshot);
    host.hook = Some(Box::new(move |request, _| {
        if let StoreRequest::Get { object: it, range: ByteRange::At { len, .. } } = request
            && it.level.get() == 9
        {
            seen.set(seen.get() + len);
        }
        None
    }));
    let (exit, _) = host.restore(over(5));
    assert_eq!((exit, host.target.as_ref()), (Exit::Done, history.states.get(&5)));
    assert!(snapshot.get() < 3 * 4096, "{} bytes of the snapshot's pages", snapshot.get());
}

#[test]
fn what_is_no_older_state_is_restored_whole() {
    let history = History::typical(512, true);
    let all = |present: &[u8]| {
        let (status, _) = restore(&history, present, 40);
        assert_eq!(status.pages_kept, 0, "{status:?}");
    };
    all(b"");
    all(b"SQLite format 3");
    all(&[7; 100_000]);
    all(&History::typical(1024, true).states[&30]);
    let mut other = History::new(512, true);
    (0..3).for_each(|_| other.commit(580, &[]));
    other.commit(580, &(1..=580).collect::<Vec<_>>());
    let (status, _) = restore(&history, &other.states[&4], 40);
    assert!(status.pages_kept == 0 && status.guesses, "{status:?}");
    // Where nothing is proven, nothing is kept.
    let unchained = History::typical(512, false);
    let (status, _) = restore(&unchained, &unchained.states[&39], 40);
    assert_eq!(status.pages_kept, 0);
}

#[test]
fn a_dry_run_says_what_would_be_fetched() {
    let history = large();
    for (present, pages, kept, guesses) in [(2, 129, 2821, false), (4, 0, 2950, false)] {
        let mut host = Host::new(history.store.clone());
        host.target = Some(history.states[&present].clone());
        let (exit, status) = host.restore(RestoreConfig { dry_run: true, ..over(4) });
        assert_eq!((exit, host.outputs), (Exit::Done, 0));
        let planned: u32 = status.plan.iter().map(|file| file.pages).sum();
        assert_eq!((planned, status.pages_kept, status.guesses), (pages, kept, guesses));
    }
}

/// Whoever writes to it meanwhile: nothing of it gets into the result.
#[test]
fn what_changes_while_it_is_read_is_not_used() {
    for history in [large(), History::typical(512, true)] {
        let newest = history.last;
        for n in [1_usize, 5, 40] {
            let mut host = Host::new(history.store.clone()).seeded(n as u64, 0);
            host.target = Some(history.states[&(newest - 1)].clone());
            host.on_target_read = Some(Box::new(move |target| {
                let at = target.len() / 41 * n;
                target[at] ^= 1;
            }));
            let (exit, status) = host.restore(over(newest));
            assert_eq!(exit, Exit::Done);
            assert!(host.target.as_ref() == history.states.get(&newest) && status.proven);
            let whole = host.remarks().contains("has changed since it was looked at: restoring whole");
            assert!(whole || status.guesses || status.pages_kept > 0, "{status:?} {}", host.remarks());
        }
    }
}

#[test]
fn a_target_that_cannot_be_read_is_replaced_whole() {
    let history = large();
    for n in 1.. {
        let mut host = Host::new(history.store.clone()).seeded(n, 0);
        host.target = Some(history.states[&3].clone());
        host.target_read_fails_at = Some(n);
        let (exit, status) = host.restore(over(4));
        assert_eq!((exit, host.target.as_ref()), (Exit::Done, history.states.get(&4)));
        if status.pages_kept > 0 {
            assert!(n > 20, "each of its pieces is read twice");
            break;
        }
    }
}

#[test]
fn a_failed_write_or_an_interrupt_leaves_the_target_alone() {
    let history = History::typical(512, true);
    for stopped in [false, true] {
        for n in 1.. {
            let mut host = Host::new(history.store.clone()).seeded(n + 3, 0);
            host.target = Some(history.states[&37].clone());
            if stopped {
                host.shutdown_after = Some(n as usize);
            } else {
                host.output_fails_at = Some(n);
            }
            let (exit, _) = host.restore(over(40));
            assert_eq!(host.output, None, "nothing is left after {n}");
            if exit == Exit::Done {
                assert!(host.target.as_ref() == history.states.get(&40));
                if !stopped || n > 500 {
                    break;
                }
            } else {
                assert!(host.target.as_ref() == history.states.get(&37), "{exit:?}");
            }
        }
    }
}

/// A segment that is sound in itself and leads elsewhere: the proof fails, and the audit names it.
#[test]
fn a_forged_segment_is_found_where_pages_are_kept() {
    let mut history = History::typical(512, true);
    let header = history.store[&object(0, 38, 38)][..LTX_HEADER_BYTES].to_vec();
    let (pre, post) = (history.post, history.post);
    let mut forged = history.encode(38, 38, &[1, 2], pre, post);
    forged[..LTX_HEADER_BYTES].copy_from_slice(&header);
    history.store.insert(object(0, 38, 38), forged);
    let mut host = Host::new(history.store.clone());
    host.target = Some(history.states[&36].clone());
    let (exit, _) = host.restore(over(40));
    assert!(matches!(exit, Exit::Corrupt { .. }) && text(&exit).contains("0000000000000026"), "{exit:?}");
    assert!(host.target.as_ref() == history.states.get(&36) && host.output.is_none());
    assert!(host.remarks().contains(": restoring whole"), "{}", host.remarks());
}

/// Draws below a bound.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Some transactions, snapshots and merged files; the lock page may lie among the pages.
fn random(draw: &mut Draw) -> History {
    let mut history = History::new(512, true);
    if draw.below(3) == 0 {
        history.pending_byte = 512 * (1 + draw.below(30));
    }
    let lock = history.page_size.lock_page(history.pending_byte).get();
    history.commit(1 + draw.below(60) as u32, &[]);
    for _ in 0..1 + draw.below(8) {
        let pages: Vec<u32> = (0..draw.below(6)).map(|_| 1 + draw.below(60) as u32).collect();
        let commit = if draw.below(2) == 0 { history.pages.len() as u64 } else { 1 + draw.below(60) };
        history.commit(commit as u32, &pages);
        match draw.below(5) {
            0 => history.snapshot(),
            1 => {
                let min = 1 + draw.below(history.last);
                let all: Vec<u32> = (1..=history.pages.len() as u32).filter(|&it| it != lock).collect();
                let file = history.encode(min, history.last, &all, None, history.post);
                history.store.insert(object(1, min, history.last), file);
                (min..history.last).for_each(|it| drop(history.store.remove(&object(0, it, it))));
            }
            _ => {}
        }
    }
    history
}

#[test]
fn whatever_stands_there_the_result_is_the_state_asked_for() {
    let (mut kept, mut spared) = (0, 0);
    for seed in 0..600 {
        let mut draw = Draw(seed * 7919 + 1);
        let history = random(&mut draw);
        let n = 1 + draw.below(history.last);
        let from = 1 + draw.below(history.last);
        let mut present = history.states[&from].clone();
        let spoilt = draw.below(3) == 0;
        if spoilt {
            let at = draw.below(present.len() as u64) as usize;
            present[at] ^= 1 << draw.below(8);
        }
        if draw.below(10) == 0 {
            present.truncate(draw.below(present.len() as u64) as usize);
        }
        let mut host = Host::new(history.store.clone()).seeded(seed + 1, if seed % 2 == 0 { 30 } else { 0 });
        host.target = Some(present.clone());
        // What is read of files that lead no further than to what stands there.
        let older = Rc::new(Cell::new(0));
        let seen = Rc::clone(&older);
        host.hook = Some(Box::new(move |request, _| {
            if let StoreRequest::Get { object: it, range: ByteRange::At { len, .. } } = request
                && it.range.max().get() <= from
                && *len > LTX_HEADER_BYTES as u64
            {
                seen.set(seen.get() + len);
            }
            None
        }));
        let config = RestoreConfig { pending_byte: history.pending_byte, ..over(n) };
        let (exit, status) = host.restore(config);
        if exit != Exit::Done {
            // What was merged away cannot be restored.
            assert!(matches!(exit, Exit::NothingToRestore { .. }), "seed {seed}: {exit:?}");
            assert!(host.target.as_ref() == Some(&present), "seed {seed}");
            continue;
        }
        assert!(host.target.as_ref() == history.states.get(&n), "seed {seed}: another state than {n}");
        assert!(status.proven, "seed {seed}");
        kept += u64::from(status.pages_kept > 0);
        if present == history.states[&from] && !status.guesses && from <= n {
            spared += 1;
            assert_eq!(older.get(), 0, "seed {seed}: {from} to {n}");
        }
    }
    assert!(kept > 200 && spared > 100, "{}", format!("{:?}", vec![kept, spared]));
}
