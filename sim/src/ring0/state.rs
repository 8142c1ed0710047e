//! The local records of a process: durable against its death, and lost at the world's pleasure.

use driftless_core::machine::{Chunk, StateReply, StateRequest};

/// The journal of one replica.
#[derive(Clone, Debug, Default)]
pub struct SimState {
    records: Vec<Chunk>,
    /// Records that survive power loss.
    synced: usize,
}

impl SimState {
    /// These records, all of them synced.
    pub fn of(records: Vec<Chunk>) -> SimState {
        SimState { synced: records.len(), records }
    }

    /// The records.
    pub fn records(&self) -> &[Chunk] {
        &self.records
    }

    /// Carries out a request.
    pub fn perform(&mut self, request: &StateRequest) -> StateReply {
        match request {
            StateRequest::Load => return StateReply::Records(self.records.clone()),
            StateRequest::Append(record) => self.records.push(record.clone()),
            StateRequest::Rewrite(records) => {
                self.records = records.clone();
                self.synced = self.records.len();
            }
            StateRequest::Sync => self.synced = self.records.len(),
        }
        StateReply::Done
    }

    /// Records there are, and how many of them were synced.
    pub fn len(&self) -> (usize, usize) {
        (self.records.len(), self.synced)
    }

    /// A write that fails as a disk without space makes it fail: nothing of it is there.
    ///
    /// # Errors
    /// Always.
    pub fn refuse(&self) -> Result<StateReply, String> {
        Err("no space left on device".into())
    }

    /// All is lost.
    pub fn lose_all(&mut self) {
        *self = SimState::default();
    }

    /// Power loss takes `count` of the records that were not synced.
    pub fn lose_unsynced(&mut self, count: usize) {
        self.records.truncate((self.records.len().saturating_sub(count)).max(self.synced));
    }
}
