//! Whose an object is that stands where a result of ours was to go.

use crate::ltx::{Chain, LtxHeader};
use crate::mutant::{self, Mutant};

/// Whose an object is that stands where a result was to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// The same result.
    Same,
    /// Another program's of the same transactions, which says nothing of states.
    Unchained,
    /// Anything else.
    Other,
}

/// Decides whose it is by the two headers.
pub(super) fn standing(ours: &LtxHeader, found: &LtxHeader) -> Standing {
    if mutant::on(Mutant::ForeignLevelTaken) {
        return Standing::Same;
    }
    let same_files =
        found.range == ours.range && found.page_size == ours.page_size && found.commit == ours.commit;
    let states = |header: &LtxHeader| (header.lineage, header.chain.pre, header.chain.post);
    let silent = |header: &LtxHeader| header.lineage.is_none() && header.chain == Chain::default();
    // Where both say nothing of their state, the stamp has to do.
    let same_stamp = found.stamp == ours.stamp;
    if same_files && states(found) == states(ours) && (same_stamp || !silent(ours)) {
        return Standing::Same;
    }
    if same_files && silent(found) && same_stamp { Standing::Unchained } else { Standing::Other }
}
