//! The retainer beside a compactor over histories made here, and its plans over listings.

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use core::time::Duration;

use super::*;
use crate::compact::CompactConfig;
use crate::compact::tests::host::Host;
use crate::ids::{Txid, Wall};
use crate::ltx::LTX_HEADER_BYTES;
use crate::machine::{ByteRange, Exit, Fact, Listed, Machine, Object, StoreErrorKind, StoreRequest};
use crate::restore::tests::history::{History, object};
use crate::restore::tests::naive;
use crate::restore::{Inventory, Target, plan};

const SECOND: Duration = Duration::from_secs(1);

fn listed(level: u8, min: u64, max: u64, seconds: i64) -> Listed {
    Listed { object: object(level, min, max), len: 100, modified: Some(Wall(seconds * 1_000)) }
}

fn times(now: i64) -> Times {
    Times { now: Wall(now * 1_000), snapshot: 1_000 * SECOND, grace: 100 * SECOND }
}

/// `level/min-max` of what goes, each with what holds it, and when more may go.
fn planned(files: &[Listed], refused: &[Object], now: i64) -> (Vec<String>, Option<i64>) {
    let refused: BTreeSet<Object> = refused.iter().copied().collect();
    let plan = plan_retention(files, &refused, None, times(now));
    let removals = plan.removals.iter();
    let name = |it: Object| format!("{}/{}-{}", it.level.get(), it.range.min().get(), it.range.max().get());
    let removals = removals.map(|it| format!("{} by {}", name(it.file.object), name(it.because.cover())));
    let removals = removals.collect();
    (removals, plan.next.map(|next| next.0 / 1_000))
}

/// Level 0 from 1 to `last`, one a second.
fn captures(last: u64) -> Vec<Listed> {
    (1..=last).map(|txid| listed(0, txid, txid, txid as i64)).collect()
}

#[test]
fn level_0_goes_from_its_start_once_what_holds_it_has_stood_for_the_grace_period() {
    let mut files = captures(40);
    files.extend([listed(1, 1, 2, 50), listed(1, 3, 4, 60), listed(2, 1, 4, 62)]);
    assert_eq!(planned(&files, &[], 149), ([].into(), Some(150)));
    let first = ["0/1-1 by 1/1-2", "0/2-2 by 1/1-2"].map(String::from);
    assert_eq!(planned(&files, &[], 150), (first.into(), Some(160)));
    let (gone, next) = planned(&files, &[], 160);
    assert_eq!((gone.len(), next), (4, None), "5 is held by nothing");
    // Another covers what the one that is not sound does not.
    let (gone, next) = planned(&files, &[object(1, 1, 2)], 162);
    assert_eq!((gone[0].as_str(), gone.len(), next), ("0/1-1 by 2/1-4", 4, None));
    // What follows a file that stays, stays.
    files.retain(|file| file.object != object(1, 1, 2) && file.object.level.get() != 2);
    assert_eq!(planned(&files, &[], 900), ([].into(), None));
}

#[test]
fn the_newest_of_level_0_stay() {
    let mut files = captures(20);
    files.extend([listed(1, 1, 20, 21), listed(9, 1, 20, 22)]);
    let (gone, _) = planned(&files, &[], 1_000_000);
    let of_level_0 = gone.iter().filter(|it| it.starts_with("0/")).count() as u64;
    assert_eq!(of_level_0, 20 - TENURE_BACK - 1);
    assert_eq!(gone.len() as u64, of_level_0, "nor do the newest of other levels");
}

#[test]
fn what_a_level_has_yet_to_take_stays() {
    let files = [
        listed(1, 1, 4, 10),
        listed(1, 5, 8, 11),
        listed(1, 9, 12, 12),
        listed(2, 1, 4, 13),
        listed(9, 1, 12, 14),
    ];
    let removed = |top: Option<u8>| {
        let plan = plan_retention(&files, &BTreeSet::new(), top, times(5_000));
        assert_eq!(plan.next, None);
        plan.removals.iter().map(|removal| removal.file.object).collect::<Vec<_>>()
    };
    assert_eq!(removed(None), [object(1, 1, 4)], "level 2 goes on with 5");
    assert_eq!(removed(Some(3)), [object(1, 1, 4)], "and level 3 with 1");
    assert_eq!(removed(Some(1)), [object(1, 1, 4), object(1, 5, 8), object(2, 1, 4)]);
}

#[test]
fn a_snapshot_takes_what_is_before_it_once_all_of_its_time_has_passed() {
    let files = [
        listed(1, 1, 10, 10),
        listed(1, 11, 20, 20),
        listed(1, 21, 30, 30),
        listed(2, 1, 30, 31),
        listed(9, 1, 8, 9),
        listed(9, 1, 20, 25),
        listed(9, 1, 30, 40),
    ];
    assert_eq!(planned(&files, &[], 1_108), ([].into(), Some(1_125)));
    let old = ["1/1-10 by 9/1-20", "1/11-20 by 9/1-20", "9/1-8 by 9/1-20"].map(String::from);
    assert_eq!(planned(&files, &[], 1_125), (old.into(), Some(1_140)));
    let (gone, next) = planned(&files, &[], 1_140);
    assert_eq!((gone.len(), next), (4, None), "the newest of each level stay: {gone:?}");
    let unsound = planned(&files, &[object(9, 1, 30)], 1_140).0;
    assert_eq!(unsound.len(), 3, "the one before it takes what it may: {unsound:?}");
    let ageless = files.map(|file| Listed { modified: None, ..file });
    assert_eq!(planned(&ageless, &[], i64::MAX / 2_000), ([].into(), None));
}

#[test]
fn whatever_goes_the_end_stays_and_so_does_every_end_of_a_level_within_the_time() {
    let mut seed = 7_u64;
    let mut draw = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..300 {
        let last = 1 + draw(200);
        let mut files = captures(last);
        for level in 1..=3 {
            let mut min = 1;
            while min <= last {
                let max = min + draw(10 * u64::from(level));
                if max <= last {
                    files.push(listed(level, min, max, (max + draw(20)) as i64));
                }
                min = max + 1;
            }
        }
        for _ in 0..draw(5) {
            let max = 1 + draw(last);
            files.push(listed(9, 1, max, (max + draw(20)) as i64));
        }
        let now = 100 + draw(1_600) as i64;
        let removed = plan_retention(&files, &BTreeSet::new(), None, times(now)).removals;
        let left: Vec<Listed> =
            files.iter().filter(|it| !removed.iter().any(|gone| gone.file == **it)).copied().collect();
        let reaches = |files: &[Listed], txid: u64| {
            plan(&Inventory::new(files.to_vec()), Target::At(Txid::new(txid).unwrap())).is_ok()
        };
        assert!(reaches(&left, last), "the end of {files:?} at {now}");
        for file in files.iter().filter(|it| it.object.level.get() > 0) {
            let end = file.object.range.max().get();
            let written = file.modified.unwrap().0 / 1_000;
            if written >= now - 1_000 && reaches(&files, end) {
                assert!(reaches(&left, end), "{:?} of {files:?} at {now}", file.object);
            }
        }
    }
}

fn history() -> History {
    let mut history = History::new(512, true);
    history.commit(20, &[]);
    for n in 2..=100u32 {
        history.commit(20 + n, &[1, n % 20 + 1]);
    }
    history
}

/// A compactor and a retainer that are told of each transaction, one a second.
fn kept(history: &History, seed: u64) -> Host {
    beside(history, seed, true)
}

/// The same with or without a retainer.
fn beside(history: &History, seed: u64, retains: bool) -> Host {
    let levels = CompactConfig {
        levels: [10, 30].map(Duration::from_secs).to_vec(),
        snapshot_interval: 50 * SECOND,
        snapshot_bytes_min: u64::MAX / 2,
        ..CompactConfig::default()
    };
    let mut host = Host::new(levels, BTreeMap::new(), seed);
    let times =
        RetainConfig { snapshot_retention: 40 * SECOND, l0_retention: 5 * SECOND, ..RetainConfig::default() };
    if retains {
        host.retain(times, RetainPass::Following);
    }
    for txid in 1..=history.last {
        host.stored(txid, history.store[&object(0, txid, txid)].clone());
        host.until(SECOND * txid as u32);
        check(history, &host);
    }
    host
}

/// The end, and each end of a level that has not passed, can be restored.
fn check(history: &History, host: &Host) {
    for made in host.store.keys().filter(|made| made.level.get() > 0) {
        let end = made.range.max();
        let held = host.store.keys().any(|it| it.range.is_snapshot() && it.range.max() <= end);
        if held {
            let restored = naive::restore(&host.store, end);
            assert!(restored.as_ref() == Some(&history.states[&end.get()]), "{made}");
        }
    }
    let end = host.store.keys().map(|it| it.range.max()).max().unwrap();
    assert!(naive::restore(&host.store, end).as_ref() == Some(&history.states[&end.get()]));
}

#[test]
fn a_busy_replica_stays_small_and_a_quiet_one_costs_nothing() {
    let history = history();
    let mut host = kept(&history, 3);
    // 10 s of level 1, 5 s of grace, and as long until the next pass.
    assert!(host.level(0).len() <= 30, "{:?}", host.level(0));
    host.rest();
    check(&history, &host);
    assert_eq!(host.level(9), [(1, 100)]);
    assert_eq!(host.level(0), (84..=100).map(|txid| (txid, txid)).collect::<Vec<_>>());
    assert_eq!((host.level(1).len(), host.level(2).len()), (1, 1), "{:?}", host.store.keys());
    let requests = host.requests;
    host.until(host.now + Duration::from_secs(400 * 86_400));
    assert_eq!((host.requests, host.grants_open), (requests, 0));
}

#[test]
fn a_crash_anywhere_leaves_what_was_there_restorable_and_the_next_run_goes_on() {
    let history = history();
    let mut last = None;
    for dies_after in (0..).step_by(7) {
        let mut host = kept(&history, 4);
        host.dies_after = Some(dies_after);
        host.rest();
        check(&history, &host);
        if !host.dead {
            assert!(dies_after > 40, "{dies_after} actions are all there are");
            break;
        }
        let mut again = Host::new(CompactConfig::default(), host.store.clone(), 5);
        (again.born, again.now) = (host.born.clone(), host.now + Duration::from_secs(86_400));
        again.retain(RetainConfig::default(), RetainPass::Once { dry_run: false });
        again.settle();
        assert_eq!(again.exit, Some(Exit::Done));
        check(&history, &again);
        last = Some(again.level(0));
    }
    assert!(last.is_some());
}

#[test]
fn what_is_damaged_or_of_another_history_holds_nothing() {
    let history = history();
    let other = {
        let mut other = History::new(512, true);
        other.commit(20, &[]);
        for n in 2..=100u32 {
            other.commit(20 + n, &[2, n % 20 + 1]);
        }
        other
    };
    let merged = |history: &History| {
        let mut host = beside(history, 6, false);
        host.rest();
        host
    };
    let (sound, foreign) = (merged(&history), merged(&other));
    let cover = *sound.store.keys().find(|it| it.level.get() == 1).expect("level 1 holds files");
    let check = |body: Vec<u8>, text: &str| {
        let mut host = Host::new(CompactConfig::default(), sound.store.clone(), 7);
        for txid in 1..=history.last {
            host.store.insert(object(0, txid, txid), history.store[&object(0, txid, txid)].clone());
        }
        host.store.retain(|it, _| it.level.get() <= 1);
        host.store.insert(cover, body);
        host.born = host.store.keys().map(|it| (*it, host.wall())).collect();
        host.now = Duration::from_secs(3_600);
        host.retain(RetainConfig::default(), RetainPass::Once { dry_run: false });
        host.settle();
        let said =
            host.facts.iter().any(|fact| matches!(fact, Fact::Remark { text: it } if it.contains(text)));
        assert!(said, "{:?}", host.facts);
        let first = cover.range.min().get();
        assert_eq!(host.level(0).first(), Some(&(first, first)), "nothing went on its account");
    };
    let mut damaged = sound.store[&cover].clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    check(damaged, "is not sound");
    check(foreign.store[&cover].clone(), "does not lead to the state");
}

#[test]
fn a_clock_that_is_ahead_deletes_nothing_early() {
    let history = history();
    let mut host = kept(&history, 8);
    let before = host.store.clone();
    host.ahead_ms = 365 * 86_400_000;
    host.until(host.now + 3 * SECOND);
    let levels = |store: &BTreeMap<Object, Vec<u8>>| store.keys().filter(|it| it.level.get() > 0).count();
    assert!(levels(&host.store) >= levels(&before), "only level 0 may have gone");
}

#[test]
fn a_deletion_that_is_only_said_to_have_happened_is_noticed() {
    let history = history();
    let mut host = kept(&history, 9);
    let before = host.level(0);
    // Every second one stays.
    host.hook = Some(std::boxed::Box::new(|request, _| match request {
        StoreRequest::Delete { object: it } if it.range.min().get() % 2 == 0 => {
            Some((StoreErrorKind::NotFound, false))
        }
        _ => None,
    }));
    host.rest();
    let left = host.level(0);
    assert!(left.iter().filter(|it| before.contains(it)).count() > 10, "{left:?}");
    let low = left[0].0;
    let beyond = left.iter().filter(|(txid, _)| *txid >= low + TENURE_BACK).count() as u64;
    assert_eq!(beyond, history.last + 1 - low - TENURE_BACK, "no other block went: {left:?}");
    assert!(host.retainer.as_ref().unwrap().status().trouble.is_some());
}

#[test]
fn a_dry_run_says_what_would_go_and_a_refusal_is_said_once() {
    let history = history();
    let mut host = beside(&history, 10, false);
    host.rest();
    let before = host.store.clone();
    host.now += Duration::from_secs(10 * 86_400);
    host.retain(RetainConfig::default(), RetainPass::Once { dry_run: true });
    host.settle();
    let would = host.retainer.as_ref().unwrap().status().removed;
    assert!(host.store == before && !would.is_empty());
    host.retain(RetainConfig::default(), RetainPass::Once { dry_run: false });
    host.settle();
    let gone: Vec<Object> = before.keys().filter(|it| !host.store.contains_key(it)).copied().collect();
    let mut said: Vec<Object> = would.iter().map(|removal| removal.file.object).collect();
    said.sort();
    assert_eq!(gone, said);

    let mut host = kept(&history, 11);
    host.hook = Some(std::boxed::Box::new(|request, _| {
        matches!(request, StoreRequest::Delete { .. }).then_some((StoreErrorKind::Denied, false))
    }));
    host.rest();
    let told = host
        .facts
        .iter()
        .filter(|fact| matches!(fact, Fact::Remark { text } if text.contains("right to delete")));
    assert_eq!(told.count(), 1, "{:?}", host.facts);
}

/// A history under leases: the numbers are of the first segments of epochs.
fn leased(firsts: &[u64]) -> History {
    let mut history = History::new(512, true);
    for txid in 1..=100u64 {
        let epoch = firsts.iter().filter(|first| **first <= txid).count() as u32;
        history.incarnation = epoch << 16 | (1 + txid as u32 / 7);
        history.commit(20 + txid as u32 % 9, &[1, txid as u32 % 20 + 1]);
    }
    history
}

fn single(txids: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    txids.into_iter().map(|txid| (txid, txid)).collect()
}

#[test]
fn the_first_segment_of_an_epoch_and_the_one_before_it_stay_for_long() {
    let history = leased(&[1, 21, 22, 60]);
    let fences = [1, 20, 21, 22, 59, 60];
    let seen = |epoch: Option<u64>| {
        let levels = CompactConfig {
            levels: [10, 30].map(Duration::from_secs).to_vec(),
            snapshot_interval: 50 * SECOND,
            snapshot_bytes_min: u64::MAX / 2,
            ..CompactConfig::default()
        };
        let mut host = Host::new(levels, BTreeMap::new(), 12);
        let times = RetainConfig {
            snapshot_retention: 40 * SECOND,
            l0_retention: 5 * SECOND,
            epoch,
            ..RetainConfig::default()
        };
        host.retain(times, RetainPass::Following);
        for txid in 1..=history.last {
            host.stored(txid, history.store[&object(0, txid, txid)].clone());
            host.until(SECOND * txid as u32);
            check(&history, &host);
        }
        host.rest();
        check(&history, &host);
        host
    };
    assert_eq!(seen(None).level(0), single(84..=100), "without a lease none is looked for");
    let mut host = seen(Some(4));
    assert_eq!(host.level(0), single(fences.into_iter().chain(84..=100)));

    // A pass of a person keeps them as well, and what the next process takes for a first since nothing is left
    // of what came before; until they are old.
    for (days, left) in [(29, fences.to_vec()), (31, vec![])] {
        let written = Wall(host.wall().0 - days * 86_400_000);
        host.born.values_mut().for_each(|at| *at = written);
        host.retain(RetainConfig::default(), RetainPass::Once { dry_run: false });
        host.settle();
        assert_eq!(host.exit, Some(Exit::Done));
        assert_eq!(host.level(0), single(left.into_iter().chain(84..=100)), "{days} days old");
    }
}

/// Whoever writes without a lease takes a put for the head while what lies far behind it is there.
#[test]
fn a_pass_by_hand_deletes_nothing_of_level_0_behind_a_fence_that_stays() {
    for (first, left) in [(1, 1), (60, 59)] {
        let history = leased(&[first]);
        let mut host = beside(&history, 14, false);
        host.now += Duration::from_secs(3_600);
        host.retain(RetainConfig::default(), RetainPass::Once { dry_run: false });
        host.settle();
        assert_eq!((host.exit.clone(), host.level(0)), (Some(Exit::Done), single(left..=100)));
    }
}

#[test]
fn what_the_process_has_put_itself_is_not_looked_at() {
    let history = leased(&[1]);
    let mut host = Host::new(
        CompactConfig { levels: vec![10 * SECOND], ..CompactConfig::default() },
        BTreeMap::new(),
        13,
    );
    let times = RetainConfig { l0_retention: 5 * SECOND, epoch: Some(1), ..RetainConfig::default() };
    host.retain(times, RetainPass::Following);
    let looks = std::rc::Rc::new(std::cell::Cell::new(0));
    let counted = looks.clone();
    host.hook = Some(std::boxed::Box::new(move |request, _| {
        let header = |range: &ByteRange| matches!(range, ByteRange::At { offset: 0, len } if *len == LTX_HEADER_BYTES as u64);
        if matches!(request, StoreRequest::Get { object, range } if object.level.get() == 0 && header(range))
        {
            counted.set(counted.get() + 1);
        }
        None
    }));
    for txid in 1..=history.last {
        host.stored(txid, history.store[&object(0, txid, txid)].clone());
        if txid > 30 {
            host.retainer.as_mut().unwrap().stored(Txid::new(txid).unwrap());
        }
        host.until(SECOND * txid as u32);
    }
    host.rest();
    assert_eq!(host.level(0), single([1].into_iter().chain(84..=100)));
    assert!((30..50).contains(&looks.get()), "{} looks", looks.get());
}
