//! Restores that go on from what a killed one has left, whatever that is.

use std::vec::Vec;

use super::{History, Host, RestoreConfig, at, fails};
use crate::machine::Exit;

/// Large enough that its pages are fetched in runs.
fn large() -> History {
    let mut history = History::new(4096, true);
    history.commit(8000, &[]);
    history.snapshot();
    history.commit(8000, &(7..8000).step_by(300).collect::<Vec<_>>());
    history
}

/// Killed after each so many events, and once more: what was written is not fetched again.
#[test]
fn what_was_written_is_not_fetched_again() {
    let history = large();
    let config = RestoreConfig { parallelism: 2, ..at(2) };
    let mut host = Host::new(history.store.clone());
    assert_eq!(host.restore(config.clone()).0, Exit::Done);
    let whole = host.read_bytes;
    let mut spared = 0;
    for n in (4..60).step_by(3) {
        let mut host = Host::new(history.store.clone()).seeded(n as u64, 0);
        for kill in [n, n / 2] {
            host.killed_after = Some(kill);
            if host.restore(config.clone()).0 == Exit::Done {
                break;
            }
        }
        if host.target.is_some() {
            continue;
        }
        let page_is_there = |page: &&[u8]| page.iter().any(|&byte| byte != 0);
        let there =
            host.output.iter().flat_map(|file| file.chunks(4096)).filter(page_is_there).count() as u64;
        (host.killed_after, host.read_bytes) = (None, 0);
        let (exit, status) = host.restore(config.clone());
        assert_eq!((exit, host.target.as_ref()), (Exit::Done, history.states.get(&2)), "killed after {n}");
        assert!(status.proven && host.output.is_none());
        assert!(status.pages_kept <= there && status.pages_done + status.pages_kept == 8000, "{status:?}");
        assert_eq!(status.resumed, there > 0);
        // A run with a page that is missing is fetched whole.
        assert!(status.pages_kept + 100 >= there, "{there} were there: {status:?}");
        assert!(host.read_bytes < whole - whole / 8000 * status.pages_kept + (300 << 10), "after {n}");
        spared = spared.max(status.pages_kept);
    }
    assert!(spared > 3000, "{spared}");
}

#[test]
fn whatever_was_left_the_result_is_the_state_asked_for() {
    let mut draw = 77_u64;
    let mut below = |bound: usize| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (draw >> 33) as usize % bound
    };
    let (chained, unchained) = (History::typical(512, true), History::typical(512, false));
    let mut kept = 0;
    for seed in 0..200 {
        let history = if seed % 8 == 0 { &unchained } else { &chained };
        let n = [2, 20, 33, 40][below(4)];
        let mut left = history.states[&[n, n, 1, 19][below(4)]].clone();
        for _ in 0..below(4) {
            let from = below(left.len());
            let to = from + below(left.len() - from);
            left[from..to].fill(0);
        }
        match below(6) {
            0 => {
                let at = below(left.len());
                left[at] ^= 4;
            }
            1 => left.truncate(below(left.len())),
            2 => left.resize(left.len() + below(5000), 9),
            _ => {}
        }
        let mut host = Host::new(history.store.clone()).seeded(seed + 1, if seed % 3 == 0 { 30 } else { 0 });
        host.output = Some(left);
        let over = below(3) == 0;
        if over {
            host.target = history.states.get(&11).cloned();
        }
        let (exit, status) = host.restore(RestoreConfig { replace: over, ..at(n) });
        assert_eq!(exit, Exit::Done, "seed {seed}");
        assert!(host.target.as_ref() == history.states.get(&n), "seed {seed}: another state than {n}");
        assert_eq!(status.proven, history.chained);
        assert!(history.chained || status.pages_kept == 0);
        kept += u64::from(status.resumed && status.pages_kept > 0);
    }
    assert!(kept > 20, "{kept}");
}

/// The damage is named as if nothing had been left.
#[test]
fn a_damaged_object_is_named_although_something_was_left() {
    let mut history = large();
    let victim = super::object(9, 1, 1);
    let middle = history.store[&victim].len() / 2;
    history.store.get_mut(&victim).unwrap()[middle] ^= 1;
    history.store.remove(&super::object(0, 1, 1));
    let without = fails(&history.store, at(2));
    let mut host = Host::new(history.store.clone());
    host.output = Some(history.states[&2][..4096 * 100].to_vec());
    let (exit, _) = host.restore(at(2));
    assert_eq!(exit, without);
    assert_eq!((host.target, host.output), (None, None));
}

/// An index is damaged: the restore ends before it has used what was left, and so leaves it.
#[test]
fn what_was_left_outlives_a_restore_that_ends_before_it_is_used() {
    let mut history = large();
    let victim = super::object(9, 1, 1);
    let bytes = history.store.get_mut(&victim).unwrap();
    let near_the_end = bytes.len() - 30;
    bytes[near_the_end] ^= 1;
    history.store.remove(&super::object(0, 1, 1));
    let mut host = Host::new(history.store.clone());
    let left = history.states[&2][..4096 * 100].to_vec();
    host.output = Some(left.clone());
    let (exit, _) = host.restore(at(2));
    assert!(matches!(exit, Exit::Corrupt { .. }), "{exit:?}");
    assert!(host.target.is_none() && host.output == Some(left));
    // Empty, it is nothing worth keeping.
    let mut host = Host::new(history.store.clone());
    host.output = Some(Vec::new());
    assert!(matches!(host.restore(at(2)).0, Exit::Corrupt { .. }));
    assert_eq!(host.output, None);
}
