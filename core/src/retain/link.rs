//! Whether what covers is of the same history.

use alloc::format;

use super::machine::{Retainer, Step};
use crate::engine::decode_header;
use crate::ids::Now;
use crate::ltx::LtxHeader;
use crate::machine::{Actions, Object};
use crate::mutant::{self, Mutant};

/// A file whose header says to which state another must lead, or from which it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Witness {
    /// It ends with the same transaction.
    Ends(Object),
    /// It begins with the next one.
    Follows(Object),
}

impl Retainer {
    /// A file that tells to which state `cover` must lead.
    pub(super) fn witness(&self, cover: Object) -> Option<Witness> {
        let end = cover.range.max();
        let others = || self.files.iter().map(|file| file.object).filter(|it| *it != cover);
        let ends = others().find(|it| it.range.max() == end).map(Witness::Ends);
        ends.or_else(|| others().find(|it| it.range.min() == end.next()).map(Witness::Follows))
    }

    pub(super) fn linked(&mut self, now: Now, bytes: &[u8], out: &mut Actions) {
        let Step::Link { cover, header, witness } = &self.step else { return };
        let (cover, witness) = (*cover, *witness);
        let fits = match decode_header(bytes) {
            Ok(found) => fits(header, &found, witness),
            // A damaged file proves nothing against another.
            Err(_) => true,
        };
        if fits || mutant::on(Mutant::CoverUnlinked) {
            return self.proven(now, cover, out);
        }
        let (Witness::Ends(other) | Witness::Follows(other)) = witness;
        self.refuse(now, cover, &format!("it does not lead to the state that {other} names"), out);
    }
}

/// Whether a file that covers leads to where another ends, or begins.
fn fits(cover: &LtxHeader, other: &LtxHeader, witness: Witness) -> bool {
    let (of_cover, of_other) = match witness {
        Witness::Ends(_) => {
            let told = |header: &LtxHeader| (header.page_size, header.commit, header.stamp);
            if told(cover) != told(other) {
                return false;
            }
            (cover.chain.post, other.chain.post)
        }
        Witness::Follows(_) => (cover.chain.post, other.chain.pre),
    };
    let silent = of_cover.is_none() || of_other.is_none();
    silent || of_cover == of_other
}
