//! The compactor over histories made here: what it makes, when, and what it makes of what goes wrong.

pub mod host;
mod merging;
mod trouble;

use std::collections::BTreeMap;
use std::vec;

use super::*;
use crate::ids::TxidRange;
use crate::ltx::{Decoder, Item, LtxHeader};
use crate::machine::{Event, Fact, Machine, Object};
use crate::restore::tests::history::{History, object};
use crate::restore::tests::naive;
use host::Host;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> CompactConfig {
    CompactConfig { snapshot_bytes_min: u64::MAX / 2, ..CompactConfig::default() }
}

/// Header and pages of a file, which must be sound.
fn decode(file: &[u8]) -> (LtxHeader, BTreeMap<u32, Vec<u8>>) {
    let mut decoder = Decoder::new();
    let mut rest = file;
    let (mut header, mut pages) = (None, BTreeMap::new());
    loop {
        match decoder.next_item(&mut rest).expect("the file is sound") {
            Item::Header(found) => header = Some(found),
            Item::Page { page, data } => drop(pages.insert(page.get(), data.to_vec())),
            Item::End(_) => return (header.expect("a header comes first"), pages),
            Item::NeedMore => panic!("the file is whole"),
        }
    }
}

/// Tells a compactor of each transaction of a history, one a second, lets all come to rest, and holds each
/// file to what its inputs make.
fn compacted(history: &History, config: CompactConfig, seed: u64) -> Host {
    let mut host = Host::new(config, BTreeMap::new(), seed);
    for txid in 1..=history.last {
        host.stored(txid, history.store[&object(0, txid, txid)].clone());
        host.until(SECOND * txid as u32);
    }
    host.rest();
    check(history, &host);
    host
}

/// The pages of some transactions of a history laid over each other one by one, and those that are cut off
/// left out.
fn laid(history: &History, range: TxidRange) -> BTreeMap<u32, Vec<u8>> {
    let (mut pages, mut page_size) = (BTreeMap::new(), None);
    for txid in range.min().get()..=range.max().get() {
        let (header, its) = decode(&history.store[&object(0, txid, txid)]);
        if page_size.replace(header.page_size) != Some(header.page_size) {
            pages.clear();
        }
        pages.extend(its);
        pages.retain(|page, _| *page <= header.commit);
    }
    pages
}

/// Every file of every level holds what its transactions make, and each of those can be restored, also from
/// higher levels where they end there.
fn check(history: &History, host: &Host) {
    for (made, file) in host.store.iter().filter(|(made, _)| made.level.get() > 0) {
        let (header, pages) = decode(file);
        let end = made.range.max().get();
        let last = decode(&history.store[&object(0, end, end)]).0;
        assert!(pages == laid(history, made.range), "{made}");
        assert_eq!(header.range, made.range, "{made}");
        let told = |header: &LtxHeader| {
            (header.page_size, header.commit, header.stamp, header.lineage, header.chain.post)
        };
        assert_eq!(told(&header), told(&last), "{made}");
        assert_eq!((header.wal_offset, header.wal_size), (0, 0), "{made}");
    }
    let covered = |file: &Object| {
        let covers = |it: &Object| it.range.min() <= file.range.min() && it.range.max() >= file.range.max();
        host.store.keys().any(|it| it.level > file.level && covers(it))
    };
    let ends = |txid: Txid| host.store.keys().any(|it| it.level.get() > 0 && it.range.max() == txid);
    for (txid, state) in &history.states {
        let txid = Txid::new(*txid).unwrap();
        assert!(naive::restore(&host.store, txid).as_ref() == Some(state), "{txid}");
        let files = host.store.iter().filter(|(it, _)| it.range.max() > txid || !covered(it));
        let highest: BTreeMap<_, _> = files.map(|(it, file)| (*it, file.clone())).collect();
        if ends(txid) && txid.get() == history.last {
            assert!(naive::restore(&highest, txid).as_ref() == Some(state), "{txid} from higher levels");
        }
    }
}

#[test]
fn levels_are_made_at_the_multiples_of_their_intervals() {
    let mut history = History::new(512, true);
    history.commit(20, &[]);
    for n in 2..=40u32 {
        history.commit(20 + n, &[1, n % 20 + 1]);
    }
    let host = compacted(&history, config(), 3);
    // The clock starts five seconds past a multiple: the first is after 25 s. The transaction that came in
    // that very second was there already.
    assert_eq!(host.level(1), [(1, 25), (26, 40)]);
    assert_eq!(host.level(2), [(1, 40)]);
    assert_eq!((host.level(3), host.level(9)), (vec![(1, 40)], vec![]), "a file that stands alone is no log");
    assert_eq!((host.grants_open, host.open_bodies()), (0, 0));
    let made = host.facts.iter().filter(|fact| matches!(fact, Fact::Compacted { .. }));
    assert_eq!(made.count(), 4);
    assert!(host.reads_open_max <= 4, "{} reads at once", host.reads_open_max);
}

#[test]
fn a_quiet_database_costs_nothing() {
    let mut history = History::new(512, true);
    history.commit(9, &[]);
    history.commit(9, &[3]);
    let mut host = compacted(&history, config(), 5);
    let requests = host.requests;
    host.until(host.now + Duration::from_secs(400 * 86_400));
    assert_eq!(host.requests, requests);
    assert_eq!(host.compactor.next_deadline(), None);
    assert_eq!(Host::new(config(), BTreeMap::new(), 1).compactor.next_deadline(), None);
}

#[test]
fn snapshots_come_by_the_day_and_by_weight() {
    let mut history = History::new(512, true);
    history.commit(60, &[]);
    for n in 2..=10u32 {
        history.commit(60, &[n]);
    }
    let mut host = Host::new(config(), BTreeMap::new(), 8);
    let store = |host: &mut Host, txid: u64| host.stored(txid, history.store[&object(0, txid, txid)].clone());
    store(&mut host, 1);
    host.until(Duration::from_secs(7_200));
    assert_eq!(host.level(9), [], "nothing has changed since the first");
    for txid in 2..=10 {
        store(&mut host, txid);
        host.until(host.now + Duration::from_secs(31));
    }
    host.rest();
    assert_eq!(host.level(9), [(1, 10)], "once, at the end of the day");
    check(&history, &host);

    let weight = CompactConfig { snapshot_bytes_min: 1, ..config() };
    let mut history = History::new(512, true);
    let all: Vec<u32> = (1..=20).collect();
    for _ in 1..=130 {
        history.commit(20, &all);
    }
    let host = compacted(&history, weight, 4);
    // Each half minute weighs as much as the database; a file that stands alone is the first to weigh against.
    assert_eq!(host.level(9), [(1, 85), (1, 130)]);
}

#[test]
fn shrinking_and_growing_and_another_page_size_come_out_right() {
    for (seed, chained) in [(1, true), (2, false)] {
        let mut history = History::typical(512, chained);
        history.change_page_size(1024, 70);
        history.commit(90, &[4, 66]);
        history.commit(40, &[4]);
        history.commit(60, &[5]);
        history.store.retain(|object, _| object.level.get() == 0);
        let config = CompactConfig { snapshot_interval: 60 * SECOND, ..config() };
        let host = compacted(&history, config, seed);
        assert_eq!((host.level(1), host.level(9)), (vec![(1, 25), (26, 44)], vec![(1, 44)]));
    }
}

#[test]
fn a_crash_anywhere_changes_nothing() {
    let history = History::typical(512, true);
    let level_0 = |host: &mut Host, txids: core::ops::RangeInclusive<u64>| {
        for txid in txids.clone() {
            host.store.insert(object(0, txid, txid), history.store[&object(0, txid, txid)].clone());
        }
        let txid = Txid::new(*txids.end()).unwrap();
        let len = host.store[&object(0, txid.get(), txid.get())].len() as u64;
        host.tell(Event::Stored { txid, bytes: Some(len) });
        host.rest();
    };
    let config = || CompactConfig { verify: true, ..config() };
    let mut host = Host::new(config(), BTreeMap::new(), 9);
    level_0(&mut host, 1..=20);
    let before = host.store;
    let run = |store: &BTreeMap<Object, Vec<u8>>, dies_after: Option<u64>, seed: u64| {
        let mut host = Host::new(config(), store.clone(), seed);
        host.dies_after = dies_after;
        level_0(&mut host, 21..=40);
        host
    };
    let expected = run(&before, None, 7).store;
    assert!(expected.contains_key(&object(9, 1, 40)) && expected.contains_key(&object(3, 21, 40)));
    for dies_after in 0..400 {
        let dead = run(&before, Some(dies_after), 7);
        let again = run(&dead.store, None, dies_after + 100);
        assert!(again.store == expected, "after {dies_after} actions");
        if !dead.dead {
            assert!(dies_after > 40, "{dies_after} actions are all there are");
            return;
        }
    }
    panic!("it has more actions than were tried");
}
