//! What was altered on its way is not believed.
//!
//! A store, or what is between it and us, may answer with other bytes than were put. A writer that
//! adopts a segment of its own on the strength of such an answer builds on a state that is not
//! there. Every part of a segment is under some checksum, so it can know.

use std::collections::BTreeMap;

use driftless_core::ids::Txid;

use super::super::violation::Violation;

/// What a run has read of the segments.
#[derive(Clone, Debug, Default)]
pub struct Reads(BTreeMap<Txid, Read>);

#[derive(Clone, Copy, Debug, Default)]
struct Read {
    faithful: u64,
    altered: u64,
}

impl Reads {
    /// A read of this segment was answered, with its bytes or with others.
    pub fn read(&mut self, txid: Txid, altered: bool) {
        let read = self.0.entry(txid).or_default();
        *(if altered { &mut read.altered } else { &mut read.faithful }) += 1;
    }

    /// Another run begins, which has read nothing.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The machine takes a segment that it has read for its own.
    ///
    /// # Errors
    /// When all that it has read of it were other bytes.
    pub fn adopted(&self, txid: Txid) -> Result<(), Violation> {
        match self.0.get(&txid) {
            Some(Read { faithful: 0, altered }) if *altered > 0 => {
                let text = format!("{txid:?} is adopted after {altered} reads, each of other bytes");
                Err(Violation::new("wrong bytes", text))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn belief_in_altered_bytes_is_found() {
        let (first, second) = (Txid::FIRST, Txid::FIRST.next());
        let mut reads = Reads::default();
        reads.read(first, true);
        reads.read(second, true);
        reads.read(second, false);
        assert_eq!(reads.adopted(first).unwrap_err().oracle, "wrong bytes");
        reads.adopted(second).unwrap();
        reads.clear();
        reads.adopted(first).unwrap();
    }
}
