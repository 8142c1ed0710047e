//! What was altered on its way is not believed.
//!
//! A store, or what is between it and us, may answer with other bytes than were put. A writer that
//! adopts a segment of its own on the strength of such an answer builds on a state that is not
//! there. A whole segment is under checksums, so it can know. Its header alone is not: what is read of
//! that is believed only as far as it names the segment that our own journal says we put, and other
//! fields of it are not asked for.

use std::collections::BTreeMap;

use driftless_core::ids::Txid;
use driftless_core::ltx::Dictionaries;

use super::super::restore::decode;
use super::super::violation::Violation;

/// Where a header says whose segment it is and which state it leads to. Its transactions are in the
/// name of the object.
const NAMES: [std::ops::Range<usize>; 2] = [72..80, 88..96];
/// Bytes in a header.
const HEADER: usize = 100;

/// Whether an answer that begins at `offset` has other bytes than the body, where that matters.
pub fn is_altered(
    body: &[u8],
    offset: usize,
    answer: &[u8],
    pending_byte: u64,
    dictionaries: &Dictionaries,
) -> bool {
    let Some(faithful) = body.get(offset..offset + answer.len()) else { return true };
    if answer.len() == body.len() && answer != body {
        // The last sequence of an LZ4 block has bits that say nothing, and LTX's checksums cover what
        // is decoded.
        let decode = |bytes| decode(bytes, pending_byte, dictionaries);
        return decode(answer).map_or(true, |it| Ok(it) != decode(body));
    }
    let is_header = offset == 0 && answer.len() <= HEADER;
    let mut differing = (0..answer.len()).filter(|at| answer[*at] != faithful[*at]);
    differing.any(|at| !is_header || NAMES.iter().any(|name| name.contains(&at)))
}

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
    use driftless_core::ids::{PageNo, PageSize, TxidRange, Wall};
    use driftless_core::ltx::{Encoder, LtxHeader};

    use super::*;

    #[test]
    fn what_names_a_segment_matters_in_its_header_and_everything_in_its_body() {
        let body = vec![7; 300];
        let with = |at: usize, len: usize| {
            let mut answer = body[..len].to_vec();
            answer[at] = 8;
            is_altered(&body, 0, &answer, 1 << 30, &Dictionaries::default())
        };
        assert_eq!([72, 79, 90].map(|at| with(at, 100)), [true; 3]);
        assert_eq!([0, 24, 99].map(|at| with(at, 100)), [false; 3]);
        assert!(with(40, 101) && with(200, 300));
        assert!(is_altered(&body, 0, &[7; 301], 1 << 30, &Dictionaries::default()));
        assert!(!is_altered(&body, 200, &body[200..], 1 << 30, &Dictionaries::default()));
    }

    /// Found by seed 13004686: the last sequence of a block has no match, whose length says nothing.
    #[test]
    fn bits_that_say_nothing_do_not_matter_in_a_whole_segment() {
        let range = TxidRange::single(Txid::FIRST);
        let header = LtxHeader::new(PageSize::new(512).unwrap(), 1, range, Wall(0));
        let (mut body, page) = (Vec::new(), [3; 512]);
        let mut encoder = Encoder::new(&header, &mut body);
        encoder.page(PageNo::FIRST, &page, &mut body);
        encoder.finish(0, &mut body);
        let altered = |bit: usize| {
            let mut answer = body.clone();
            answer[bit / 8] ^= 1 << (bit % 8);
            is_altered(&body, 0, &answer, 1 << 30, &Dictionaries::default())
        };
        let silent = (HEADER * 8..body.len() * 8).filter(|bit| !altered(*bit)).count();
        assert_eq!(silent, 4, "the low half of the last token");
    }

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
