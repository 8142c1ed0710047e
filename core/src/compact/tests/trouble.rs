//! What becomes of a compaction when the store does not do as it should, or holds what it should not.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use core::time::Duration;

use super::host::Host;
use super::{SECOND, check, config, decode};
use crate::compact::{CompactConfig, FAN_IN_MAX};
use crate::ids::{Level, Lineage, Txid};
use crate::ltx::LtxHeader;
use crate::machine::{Event, Fact, Machine, Object, StoreErrorKind, StoreRequest};
use crate::restore::tests::history::{History, object};

fn small(last: u32) -> History {
    let mut history = History::new(512, true);
    history.commit(12, &[]);
    for n in 2..=last {
        history.commit(12, &[n % 12 + 1]);
    }
    history
}

/// A compactor that was told of the first ten transactions of a small history.
fn told(config: CompactConfig, seed: u64) -> (Host, History) {
    let history = small(10);
    let mut host = Host::new(config, BTreeMap::new(), seed);
    for txid in 1..=10 {
        host.stored(txid, history.store[&object(0, txid, txid)].clone());
    }
    (host, history)
}

fn remarks(host: &Host) -> Vec<&str> {
    let texts = host.facts.iter().filter_map(|fact| match fact {
        Fact::Remark { text } => Some(text.as_str()),
        Fact::Retrying { error, .. } => Some(error.as_str()),
        _ => None,
    });
    texts.collect()
}

fn made(host: &Host) -> Vec<Object> {
    let objects = host.facts.iter().filter_map(|fact| match fact {
        Fact::Compacted { object, .. } => Some(*object),
        _ => None,
    });
    objects.collect()
}

#[test]
fn a_request_that_fails_is_tried_again() {
    use StoreErrorKind::{Ambiguous, Conflict, Denied, NoSpace, Retry};
    for (seed, kind) in (1..).zip([Retry, Conflict, Ambiguous, NoSpace, Denied]) {
        for had_effect in [false, kind == Ambiguous] {
            for nth in 0..24 {
                let (mut host, history) = told(config(), seed);
                let mut count = 0;
                host.hook = Some(Box::new(move |_, _| {
                    count += 1;
                    (count == nth + 1).then_some((kind, had_effect))
                }));
                host.rest();
                assert_eq!(host.level(3), [(1, 10)], "{kind:?} at request {nth}");
                assert_eq!((host.grants_open, host.open_bodies()), (0, 0), "{kind:?} at request {nth}");
                check(&history, &host);
            }
        }
    }
}

#[test]
fn a_store_that_is_away_is_left_alone_until_more_is_written() {
    let (mut host, history) = told(config(), 4);
    host.hook = Some(Box::new(|_, _| Some((StoreErrorKind::Retry, false))));
    host.rest();
    assert!(host.requests > 10 && host.requests < 200, "{} requests", host.requests);
    assert!(remarks(&host).last().unwrap().contains("waits until more is written"));
    let trouble: Vec<u8> = host.compactor.status().trouble.iter().map(|(level, _)| level.get()).collect();
    assert_eq!(trouble, [1, 9]);
    host.hook = None;
    host.rest();
    assert_eq!(host.level(1), []);
    host.stored(10, history.store[&object(0, 10, 10)].clone());
    host.rest();
    assert_eq!(host.level(3), [(1, 10)]);
    assert_eq!(host.compactor.status().trouble, []);
}

/// What is written all the time is no reason to meet a fault that stays all the time.
#[test]
fn a_busy_database_does_not_wear_out_a_store_that_refuses() {
    let (mut host, history) = told(config(), 4);
    host.hook = Some(Box::new(|_, _| Some((StoreErrorKind::Denied, false))));
    host.rest();
    let (before, body) = (host.requests, history.store[&object(0, 10, 10)].clone());
    for n in 0..3_600 {
        host.until(host.now + Duration::from_secs(1));
        host.stored(11 + n, body.clone());
    }
    let asked = host.requests - before;
    assert!((4..40).contains(&asked), "{asked} requests in an hour");
}

#[test]
fn a_damaged_input_is_named_and_nothing_made_of_it() {
    let (mut host, history) = told(config(), 5);
    let body = host.store.get_mut(&object(0, 4, 4)).unwrap();
    let at = body.len() - 3;
    body[at] ^= 1;
    host.rest();
    assert!((1..=9).all(|level| host.level(level).is_empty()));
    let says = remarks(&host);
    assert!(says[0].contains("0/0000000000000004-0000000000000004.ltx: corrupt file checksum"), "{says:?}");
    assert_eq!((host.grants_open, host.open_bodies(), host.compactor.next_deadline()), (0, 0, None));
    // It was damaged on its way only.
    host.store.insert(object(0, 4, 4), history.store[&object(0, 4, 4)].clone());
    host.tell(Event::Stored { txid: Txid::new(10).unwrap(), bytes: None });
    host.rest();
    check(&history, &host);
    assert_eq!(host.level(1), [(1, 10)]);
}

#[test]
fn a_gap_is_not_bridged() {
    let (mut host, history) = told(config(), 6);
    host.store.remove(&object(0, 6, 6));
    host.rest();
    // What was remembered was not there; what is there was listed then.
    assert_eq!(host.level(1), [(1, 5)]);
    assert!(
        remarks(&host).iter().any(|text| text.contains("0000000000000006 comes next: what lies between"))
    );
    host.store.insert(object(0, 6, 6), history.store[&object(0, 6, 6)].clone());
    host.tell(Event::Stored { txid: Txid::new(10).unwrap(), bytes: None });
    host.rest();
    assert_eq!(host.level(1), [(1, 5), (6, 10)]);
    check(&history, &host);
}

/// The file of level 1 as somebody else would have written it.
fn altered(alter: impl Fn(&mut LtxHeader)) -> Vec<u8> {
    let (mut host, _) = told(config(), 1);
    host.rest();
    let (mut header, pages) = decode(&host.store[&object(1, 1, 10)]);
    alter(&mut header);
    let mut file = Vec::new();
    let mut encoder = crate::ltx::Encoder::new(&header, &mut file);
    for (page, data) in pages {
        encoder.page(crate::ids::PageNo::new(page).unwrap(), &data, &mut file);
    }
    encoder.finish(0, &mut file);
    file
}

/// Somebody puts `body` under the name of level 1 while it is being made, in a store that keeps its
/// conditions or not: what comes of it.
fn beside(body: &[u8], keeps: bool) -> Host {
    let config = CompactConfig { create_if_absent: keeps, verify: true, ..config() };
    let (mut host, _) = told(config, 2);
    let name = object(1, 1, 10);
    let body = body.to_vec();
    host.hook = Some(Box::new(move |request, store| {
        if matches!(request, StoreRequest::Get { object, .. } if object.level == Level::CAPTURES) {
            store.entry(name).or_insert_with(|| body.clone());
        }
        None
    }));
    host.rest();
    assert_eq!((host.grants_open, host.open_bodies()), (0, 0));
    host
}

#[test]
fn what_stands_under_the_name_is_told_by_its_header() {
    for keeps in [true, false] {
        let same = beside(&altered(|_| {}), keeps);
        assert_eq!((made(&same)[0], same.level(3).len()), (object(1, 1, 10), 1));

        let theirs = altered(|header| {
            header.lineage = None;
            header.chain = crate::ltx::Chain::default();
        });
        let litestream = beside(&theirs, keeps);
        assert_eq!(made(&litestream)[0], object(1, 1, 10));
        assert!(litestream.store[&object(1, 1, 10)] == theirs, "it is kept");
        assert!(remarks(&litestream)[0].contains("by another program from the same files"));

        for foreign in [
            altered(|header| header.lineage = Lineage::new(8)),
            altered(|header| header.chain.post = Some(crate::ids::DbChecksum::from_xor(1))),
            b"<html>".to_vec(),
        ] {
            let host = beside(&foreign, keeps);
            assert!(host.store[&object(1, 1, 10)] == foreign, "it is left as it is");
            assert!(made(&host).iter().all(|made| made.level.get() != 1));
            let says = remarks(&host);
            assert!(says[0].contains("is there already") || says[0].contains("is damaged"), "{says:?}");
        }
    }
}

#[test]
fn what_does_not_read_back_does_not_count() {
    let (mut host, _) = told(CompactConfig { verify: true, ..config() }, 3);
    host.hook = Some(Box::new(|request, store| {
        if matches!(request, StoreRequest::Get { object, .. } if object.level.get() == 1) {
            let body = store.get_mut(&object(1, 1, 10)).unwrap();
            body[200] = 0x77;
        }
        None
    }));
    host.rest();
    assert!(made(&host).iter().all(|made| made.level.get() != 1));
    assert!(
        remarks(&host)[0].contains("was read back before it counts, and is not sound"),
        "{:?}",
        remarks(&host)
    );
}

#[test]
fn many_files_and_large_ones_are_merged_in_bounded_memory() {
    let history = {
        let mut history = History::new(4096, true);
        history.commit(700, &[]);
        for n in 2..=150u32 {
            history.commit(700 + n, &[n, n * 3]);
        }
        history
    };
    let mut host = Host::new(config(), BTreeMap::new(), 9);
    for txid in 1..=history.last {
        host.stored(txid, history.store[&object(0, txid, txid)].clone());
    }
    host.rest();
    let turns = FAN_IN_MAX as u64;
    assert_eq!(host.level(1), [(1, turns), (turns + 1, 2 * turns), (2 * turns + 1, 150)]);
    assert_eq!(host.level(3), [(1, 150)]);
    assert!(host.job_bytes_max <= (1 << 20) + 5_000, "{} bytes came out at once", host.job_bytes_max);
    assert!(host.reads_open_max <= 4);
    check(&history, &host);
}

#[test]
fn a_request_without_an_answer_is_given_up() {
    let (mut host, history) = told(config(), 7);
    host.until(25 * SECOND - Duration::from_millis(1));
    host.swallow = Some(|request| matches!(request, StoreRequest::PutCommit { .. }));
    host.until(26 * SECOND);
    assert_eq!(host.level(1), []);
    host.swallow = None;
    host.rest();
    assert!(remarks(&host)[0].contains("no such object") || remarks(&host)[0].contains("as the store says"));
    assert_eq!(host.level(3), [(1, 10)]);
    check(&history, &host);
}

#[test]
fn letting_go_leaves_nothing_behind() {
    for steps in 0..60 {
        let (mut host, _) = told(config(), 11);
        host.dies_after = None;
        host.now = 25 * SECOND;
        host.tell(Event::Tick);
        for _ in 0..steps {
            host.step();
        }
        host.tell(Event::Shutdown { deadline: crate::ids::Mono::default() });
        host.settle();
        assert_eq!((host.grants_open, host.open_bodies()), (0, 0), "after {steps} steps");
        assert_eq!(host.compactor.next_deadline(), None);
    }
}
