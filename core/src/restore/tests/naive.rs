//! A restore by the book, to compare with: apply every file in the smallest steps there are.

use std::collections::BTreeMap;
use std::vec::Vec;

use crate::ids::Txid;
use crate::ltx::{Decoder, Item};
use crate::machine::Object;

/// The database at `target`, or `None` if no files lead there. Files that do not decode are
/// not there.
pub fn restore(store: &BTreeMap<Object, Vec<u8>>, target: Txid) -> Option<Vec<u8>> {
    let steps = steps(store, target)?;
    let mut database = Vec::new();
    for object in steps {
        apply(&store[&object], &mut database);
    }
    Some(database)
}

/// From the target backwards: of the files that end at a state the one that starts latest, and
/// of equals the highest level: Litestream wrote snapshots that hold more than their name says.
fn steps(store: &BTreeMap<Object, Vec<u8>>, end: Txid) -> Option<Vec<Object>> {
    let mut ways: BTreeMap<u64, Option<Vec<Object>>> = BTreeMap::new();
    ways.insert(0, Some(Vec::new()));
    let mut ends: Vec<u64> =
        store.keys().map(|it| it.range.max().get()).filter(|&max| max <= end.get()).collect();
    ends.sort_unstable();
    ends.dedup();
    for max in ends {
        let mut files: Vec<&Object> = store.keys().filter(|it| it.range.max().get() == max).collect();
        files.sort_by_key(|it| std::cmp::Reverse((it.range.min(), it.level)));
        let way = files.into_iter().find_map(|&file| {
            let before = ways.range(file.range.min().get() - 1..max).find_map(|(_, way)| way.clone());
            let mut way = if file.range.is_snapshot() { Some(Vec::new()) } else { before }?;
            way.push(file);
            Some(way)
        });
        ways.insert(max, way);
    }
    ways.remove(&end.get())?
}

fn apply(file: &[u8], database: &mut Vec<u8>) {
    let mut decoder = Decoder::new();
    let (mut rest, mut page_bytes) = (file, 0);
    loop {
        match decoder.next_item(&mut rest).expect("the file is sound") {
            Item::Header(header) => {
                page_bytes = header.page_size.bytes();
                database.resize(page_bytes * header.commit as usize, 0);
            }
            Item::Page { page, data } => {
                let at = (page.get() as usize - 1) * page_bytes;
                database[at..at + page_bytes].copy_from_slice(data);
            }
            Item::End(_) => return,
            Item::NeedMore => panic!("the file is whole"),
        }
    }
}
