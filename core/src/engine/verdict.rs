//! Whose segment stands where ours was to go, by the two headers (DESIGN §5).

use crate::ids::DbChecksum;
use crate::ltx::LtxHeader;
use crate::mutant::{self, Mutant};

/// Whose a segment is that stands where ours was to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The same states: our own put, whatever its bytes.
    Ours,
    /// From the same state by an earlier run or try of ours: part of the history.
    Ghost,
    /// Anything else.
    Foreign,
}

/// Decides by the two headers, and the post-states that this run sent under the same name.
pub(super) fn judge_header(ours: &LtxHeader, tried: &[DbChecksum], found: &LtxHeader) -> Verdict {
    // A run that began after ours is a copy's, even if it is in our state for now.
    let later_run = found.chain.incarnation > ours.chain.incarnation && !mutant::on(Mutant::LaterRunOurs);
    if found.lineage != ours.lineage || found.range != ours.range || later_run {
        return Verdict::Foreign;
    }
    let same = (found.chain.pre, found.chain.post) == (ours.chain.pre, ours.chain.post);
    if (same || mutant::on(Mutant::GhostIsOurs)) && found.chain.post.is_some() {
        return Verdict::Ours;
    }
    let earlier_run = found.chain.incarnation < ours.chain.incarnation;
    // A clone of this database draws the same incarnation: of our own only what we sent counts.
    let this_run = found.chain.incarnation == ours.chain.incarnation
        && found.chain.post.is_some_and(|post| tried.contains(&post));
    if (earlier_run || this_run) && found.chain.pre == ours.chain.pre && found.chain.post.is_some() {
        return Verdict::Ghost;
    }
    Verdict::Foreign
}
