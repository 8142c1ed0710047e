//! A replica holds one history.
//!
//! Two writers that both believe to own it would each extend it. Level 0 then holds segments of the
//! one behind segments of the other: restored, they are a database that nobody had, and what one of
//! them acknowledged is gone. So a segment never becomes another, and a history that another one has
//! followed never comes back: whoever takes over keeps it.

use driftless_core::ids::{Lineage, Txid};
use driftless_core::machine::Object;

use super::super::violation::Violation;

const ORACLE: &str = "fork";

/// Who wrote the segments, in their order.
#[derive(Clone, Debug, Default)]
pub struct Histories {
    /// Each history once, in the order in which they wrote.
    seen: Vec<Option<Lineage>>,
}

impl Histories {
    /// The next segment is of this history.
    ///
    /// # Errors
    /// When another one has already followed upon it.
    pub fn follow(&mut self, txid: Txid, lineage: Option<Lineage>) -> Result<(), Violation> {
        if txid == Txid::FIRST {
            self.seen.clear();
        }
        if self.seen.last() == Some(&lineage) {
            return Ok(());
        }
        if self.seen.contains(&lineage) {
            let last = self.seen.last().expect("it contains one");
            return Err(Violation::new(
                ORACLE,
                format!("{txid:?} is of {lineage:?}, which {last:?} has followed"),
            ));
        }
        self.seen.push(lineage);
        Ok(())
    }
}

/// No segment was replaced by other bytes.
///
/// # Errors
/// When one was.
pub fn kept(overwritten: Option<Object>) -> Result<(), Violation> {
    match overwritten {
        Some(object) => Err(Violation::new("overwrite", format!("{object} was replaced by another"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use driftless_core::ids::{Level, TxidRange};

    use super::*;

    #[test]
    fn a_history_that_comes_back_is_found() {
        let mut histories = Histories::default();
        let mut follow = |txid, lineage| histories.follow(Txid::new(txid).unwrap(), Lineage::new(lineage));
        for (txid, lineage) in [(1, 7), (2, 7), (3, 8), (4, 9), (5, 9)] {
            follow(txid, lineage).unwrap();
        }
        assert_eq!(follow(6, 7).unwrap_err().oracle, "fork");
        follow(1, 8).expect("a replica that is read from its start again");
        follow(2, 7).unwrap();
    }

    #[test]
    fn a_segment_that_becomes_another_is_found() {
        let object = Object { level: Level::CAPTURES, range: TxidRange::single(Txid::FIRST) };
        assert_eq!(kept(Some(object)).unwrap_err().oracle, "overwrite");
        kept(None).unwrap();
    }
}
