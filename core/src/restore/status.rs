//! What a restore shows of itself.

use super::machine::{File, Phase, Restorer};
use super::present::Presence;
use super::{PlannedFile, RestorePhase, RestoreStatus};
use crate::machine::PART_BYTES_MAX;

impl Restorer {
    pub(super) fn report(&self) -> RestoreStatus {
        let header = self.target_header();
        RestoreStatus {
            phase: phase_of(&self.phase),
            target: self.target,
            stamp: header.map(|it| it.stamp),
            page_size: header.map(|it| it.page_size),
            pages: header.map_or(0, |it| it.commit),
            pages_done: self.pages_done,
            pages_kept: self.pages_kept,
            resumed: matches!(self.presence, Presence::Left(_)),
            guesses: self.guesses(),
            plan: self.files[self.used_from.min(self.files.len())..].iter().map(planned).collect(),
            bytes_fetched: self.flight.bytes,
            requests: self.flight.requests,
            post: header.and_then(|it| it.chain.post),
            proven: self.proven,
            listings: self.listings.count(),
            excluded: self.excluded.keys().copied().collect(),
        }
    }
}

fn planned(file: &File) -> PlannedFile {
    let pages = file.wins.as_slice().len() as u32;
    let (fetch_bytes, fetch_requests) = match (&file.body, pages, file.ranged) {
        (Some(_), ..) | (None, 0, _) => (0, 0),
        (None, _, true) => (file.runs.iter().map(|run| run.len).sum(), file.runs.len() as u64),
        (None, _, false) => (file.listed.len, file.listed.len.div_ceil(PART_BYTES_MAX as u64)),
    };
    PlannedFile {
        object: file.listed.object,
        len: file.listed.len,
        chained: file.header.map(|_| file.is_chained()),
        ranged: file.ranged,
        pages,
        fetch_bytes,
        fetch_requests,
    }
}

fn phase_of(phase: &Phase) -> RestorePhase {
    match phase {
        Phase::Idle => RestorePhase::Idle,
        Phase::List => RestorePhase::Listing,
        Phase::Stamps(_) => RestorePhase::Dating,
        Phase::Look(_) | Phase::Place(_) | Phase::Survey(_) | Phase::Dictionaries => RestorePhase::Surveying,
        Phase::Create | Phase::Recall(_) | Phase::Fetch | Phase::Keep(_) => RestorePhase::Fetching,
        Phase::Audit(_) => RestorePhase::Auditing,
        Phase::SetLen | Phase::Sync | Phase::Publish => RestorePhase::Finishing,
        Phase::Settle(_) | Phase::Discard(_) => RestorePhase::Settling,
        Phase::Stopped => RestorePhase::Stopped,
    }
}
