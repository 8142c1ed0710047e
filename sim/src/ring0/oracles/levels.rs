//! A file of a higher level holds what its transactions make, one laid over the other.
//!
//! What they make is found from the captures alone, by an insert for each page, so that a file of level 3
//! is not compared with those that it was made of, which could all be wrong alike.

use std::collections::BTreeMap;

use driftless_core::ltx::{Chain, LtxHeader};
use driftless_core::machine::Object;

use super::super::violation::Violation;

/// A file's header, and its pages by number.
pub type Decoded = (LtxHeader, Vec<(usize, Vec<u8>)>);

/// Compares a file with the captures of its transactions, in their order.
///
/// # Errors
/// What differs.
pub fn check(object: &Object, file: Decoded, captures: &[Decoded]) -> Result<(), Violation> {
    let fail = |text: String| Err(Violation::new("levels", format!("{object}: {text}")));
    let (header, pages) = file;
    let Some((last, _)) = captures.last() else { return fail("it holds no transaction".into()) };
    let (mut laid, mut page_size) = (BTreeMap::new(), None);
    for (header, pages) in captures {
        if page_size.replace(header.page_size) != Some(header.page_size) {
            laid.clear();
        }
        laid.extend(pages.iter().map(|(no, page)| (*no, page)));
        laid.retain(|no, _| *no <= header.commit as usize);
    }
    let told = |header: &LtxHeader| (header.page_size, header.commit, header.stamp);
    if told(&header) != told(last) {
        return fail(format!("its header says {:?}, its last transaction {:?}", told(&header), told(last)));
    }
    let found: BTreeMap<usize, &Vec<u8>> = pages.iter().map(|(no, page)| (*no, page)).collect();
    let all = || laid.keys().chain(found.keys());
    if let Some(no) = all().find(|no| laid.get(no) != found.get(no)) {
        let (made, held) = (laid.contains_key(no), found.contains_key(no));
        return fail(format!("page {no} is not that of its transactions (made {made}, held {held})"));
    }
    let states = |header: &LtxHeader| (header.lineage, header.chain.post);
    let silent = header.lineage.is_none() && header.chain == Chain::default();
    let one_history = captures.iter().all(|(header, _)| header.lineage == last.lineage);
    let same = states(&header) == states(last);
    if if one_history { same } else { same || silent } {
        return Ok(());
    }
    fail(format!("it leads to {:?}, its last transaction to {:?}", states(&header), states(last)))
}

#[cfg(test)]
mod tests {
    use driftless_core::ids::{DbChecksum, Level, Lineage, PageSize, Txid, TxidRange, Wall};

    use super::*;

    fn file(min: u64, max: u64, commit: u32, pages: &[(usize, u8)]) -> Decoded {
        let range = TxidRange::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap();
        let mut header = LtxHeader::new(PageSize::new(512).unwrap(), commit, range, Wall(max as i64));
        header.lineage = Lineage::new(4);
        header.chain.post = DbChecksum::from_stored(max);
        (header, pages.iter().map(|(no, fill)| (*no, vec![*fill; 512])).collect())
    }

    fn says(file: Decoded) -> Result<(), String> {
        let captures =
            [(2, 3, &[(1, 1), (3, 1)][..]), (3, 2, &[(2, 2)][..]), (4, 4, &[(1, 3), (3, 3), (4, 3)][..])];
        let captures = captures.map(|(txid, commit, pages)| self::file(txid, txid, commit, pages));
        let object = Object { level: Level::new(1).unwrap(), range: file.0.range };
        check(&object, file, &captures).map_err(|violation| violation.text)
    }

    #[test]
    fn each_lie_of_a_compaction_is_found() {
        let sound = || file(2, 4, 4, &[(1, 3), (2, 2), (3, 3), (4, 3)]);
        assert_eq!(says(sound()), Ok(()));
        let wrong = |says: Result<(), String>, text: &str| assert!(says.unwrap_err().contains(text));
        wrong(says(file(2, 4, 4, &[(1, 1), (2, 2), (3, 3), (4, 3)])), "page 1 is not");
        wrong(
            says(file(2, 4, 4, &[(1, 3), (2, 2), (3, 3)])),
            "page 4 is not that of its transactions (made true",
        );
        wrong(says(file(2, 4, 5, &[(1, 3), (2, 2), (3, 3), (4, 3)])), "its header says");
        let mut other = sound();
        other.0.chain.post = DbChecksum::from_stored(9);
        wrong(says(other), "it leads to");
        let mut silent = sound();
        (silent.0.lineage, silent.0.chain) = (None, Chain::default());
        wrong(says(silent), "it leads to");
    }
}
