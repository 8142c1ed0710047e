//! From a copy to a writer and back: what the local journal and the position file say of each other.
//!
//! A copy that comes to write goes on from records that name its state and the checksum of each page, as if
//! it had put the last transaction itself. A writer that comes back as a copy is in the state of its last put,
//! or of the one that was under way; whichever it is, its pages tell. The latter counts once the replica has shown
//! that it has that state: a put that never arrived has left it here alone. If the pages tell of neither, they hold
//! what was never replicated.

use alloc::vec;
use alloc::vec::Vec;

use super::table::Table;
use super::{Position, encode_positions};
use crate::engine::{Journal, Point, Record, Step};
use crate::machine::Chunk;
use crate::mutant::{self, Mutant};

/// The records of a journal for a copy that is so.
pub(super) fn bequest(position: &Position, table: &Table) -> Vec<Chunk> {
    let Position { txid, page_size, pages, state, stamp, .. } = *position;
    let to = Point { txid, stamp, page_size, pages, post: state, file: (0, 0), wal: None };
    let step = Step { pre: None, to, full: true, sums: table.iter().collect() };
    vec![Record::Intent(step).encode(), Record::Done(txid).encode()]
}

/// The states in which a writer may have left its database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidates(Vec<Position>);

impl Candidates {
    /// By the records of its journal; `None` if they name no state.
    pub fn of_journal(records: &[Chunk]) -> Option<Candidates> {
        let Journal { history, intent } = Journal::replay(records);
        let under_way = intent.map(|step| (step.to, true));
        let points = history.point.map(|point| (point, false)).into_iter().chain(under_way);
        let positions: Vec<Position> = points
            .map(|(point, doubtful)| Position {
                txid: point.txid,
                page_size: point.page_size,
                pages: point.pages,
                state: point.post,
                // Page 1 is that of the source, which it was.
                first: 0,
                masked: 0,
                stamp: point.stamp,
                doubtful: doubtful && !mutant::on(Mutant::TailBelieved),
            })
            .collect();
        (!positions.is_empty()).then_some(Candidates(positions))
    }

    /// The position file that names them.
    pub fn encode(&self) -> Vec<u8> {
        encode_positions(&self.0)
    }
}
