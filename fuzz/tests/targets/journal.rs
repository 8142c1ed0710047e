//! The local journal's records: what was written is read, anything else is refused.

use driftless_core::engine::{Journal, PageTable, Point, Record, Step};
use driftless_core::ids::{Incarnation, Lineage, PageNo, PageSize, Txid, Wall};
use driftless_core::machine::SealRecord;
use driftless_core::wal::{Salts, WalChecksum, WalPosition};
use driftless_fuzz::Feed;

fn wal_position(feed: &mut Feed<'_>) -> WalPosition {
    WalPosition {
        salts: Salts { one: feed.u32(), two: feed.u32() },
        frame: feed.u32(),
        checksum: WalChecksum(feed.u32(), feed.u32()),
    }
}

/// A step from the state of `table`, which is brought to the state after it, so that the states
/// are those of the pages.
fn step(feed: &mut Feed<'_>, table: &mut PageTable) -> Step {
    let pre = (table.pages() > 0).then(|| table.checksum());
    let full = table.pages() == 0 || feed.below(4) == 0;
    if full {
        table.resize(0);
    }
    let pages = 1 + feed.below(40);
    let grown = table.pages() + 1..=pages;
    table.resize(pages);
    let changed: Vec<u32> = (0..feed.below(5)).map(|_| 1 + feed.below(pages)).collect();
    let mut sums = Vec::new();
    for number in grown.chain(changed) {
        let (page, sum) = (PageNo::new(number).unwrap(), feed.u64() | 1 << 63);
        table.set(page, sum);
        sums.push((page, sum));
    }
    let to = Point {
        txid: Txid::new(1 + feed.u64() / 2).unwrap(),
        stamp: Wall(feed.u64().cast_signed()),
        page_size: PageSize::new(512 << feed.below(8)).unwrap(),
        pages,
        post: table.checksum(),
        file: (feed.u64(), feed.u64()),
        wal: if feed.bool() { Some(wal_position(feed)) } else { None },
    };
    Step { pre, to, full, sums }
}

fn record(feed: &mut Feed<'_>, table: &mut PageTable, last: &mut Txid) -> Record {
    match feed.below(7) {
        0 => Record::Identity {
            lineage: Lineage::new(feed.u64() | 1).unwrap(),
            incarnation: Incarnation(feed.u32()),
        },
        1 | 2 => {
            let step = step(feed, table);
            *last = step.to.txid;
            Record::Intent(step)
        }
        3 => Record::Done(*last),
        4 => {
            let seal = SealRecord {
                device: feed.u64(),
                inode: feed.u64(),
                size: feed.u64(),
                ctime_ns: i128::from(feed.u64().cast_signed()),
                boot_id: String::from_utf8_lossy(&feed.fill(16)).into_owned(),
            };
            Record::Sealed { seal, wal: wal_position(feed) }
        }
        5 => Record::Reset,
        _ => Record::Moved { file: (feed.u64(), feed.u64()), wal: wal_position(feed) },
    }
}

#[test]
fn journal_records() {
    bolero::check!().with_iterations(80_000).with_max_len(512).for_each(|bytes: &[u8]| {
        if let Some(record) = Record::decode(bytes) {
            assert_eq!(Record::decode(&record.encode()), Some(record));
        }
        let (mut feed, mut table, mut last) = (Feed::new(bytes), PageTable::new(), Txid::FIRST);
        let record = record(&mut feed, &mut table, &mut last);
        let stored = record.encode();
        assert_eq!(Record::decode(&stored), Some(record));
        assert_eq!(Record::decode(&stored[..stored.len() - 1]), None, "a record cut short is none");
        let longer = [&stored[..], &[feed.u8()]].concat();
        assert_eq!(Record::decode(&longer), None, "a record with more behind it is none");
    });
}

#[test]
fn journal_replay() {
    bolero::check!().with_iterations(20_000).with_max_len(2048).for_each(|bytes: &[u8]| {
        let (mut feed, mut table, mut last) = (Feed::new(bytes), PageTable::new(), Txid::FIRST);
        let mut records: Vec<_> = Vec::new();
        while !feed.is_empty() && records.len() < 40 {
            let made = record(&mut feed, &mut table, &mut last);
            // A full disk leaves holes: some records are never written.
            if feed.below(12) != 0 {
                records.push(made.encode());
            }
        }
        let journal = Journal::replay(&records);
        let history = &journal.history;
        if let (Some(point), Some(table)) = (&history.point, &history.table) {
            assert_eq!(table.checksum(), point.post, "a table belongs to its point");
            assert_eq!(table.pages(), point.pages);
        }
        assert_eq!(history.point.is_some(), history.table.is_some(), "neither stands without the other");
        let again = Journal::replay(&Journal::rewrite(history)).history;
        if history.lineage.is_some() {
            assert_eq!((again.lineage, again.incarnation), (history.lineage, history.incarnation));
            assert_eq!(
                (&again.point, &again.table),
                (&history.point, &history.table),
                "a rewrite says the same"
            );
            assert_eq!(again.seal, history.seal);
        }
    });
}
