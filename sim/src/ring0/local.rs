//! The local state on the simulated disk, by the production journal.
//!
//! Beside it stands what the journal should hold, by what it has confirmed. A run that finds less
//! has lost local state, and may be fenced for it; a run that finds what nobody ever wrote has been
//! given damage for records.

use std::collections::BTreeSet;
use std::path::PathBuf;

use driftless::port::state::{DatabaseNo, StateJournal};
use driftless_core::machine::{Chunk, StateReply, StateRequest};

use super::mishap::Worker;
use super::plan::Tamper;
use super::state::SimState;
use super::violation::Violation;
use super::world::World;
use crate::disk::{Disk, SimFs};

const DIRECTORY: &str = "/state";
const JOURNAL: &str = "/state/journal";
/// The name under which the records stand.
const NAME: &str = "/a.db\n/replica";

/// The journal of a process, while it runs.
#[derive(Default)]
pub(super) struct Local {
    journal: Option<(StateJournal<SimFs>, DatabaseNo)>,
    /// Every record that was ever to be written.
    ever: BTreeSet<Vec<u8>>,
    /// The file as a run before found it.
    old: Option<Vec<u8>>,
}

impl Local {
    fn open(disk: &Disk) -> Result<(StateJournal<SimFs>, DatabaseNo), String> {
        let text = |error: driftless_adapters::fs::FsError| error.to_string();
        let mut journal =
            StateJournal::open(SimFs::new(disk.clone()), PathBuf::from(DIRECTORY)).map_err(text)?;
        let number = journal.number(NAME).map_err(text)?;
        Ok((journal, number))
    }

    fn perform(&mut self, request: &StateRequest) -> Result<StateReply, String> {
        match request {
            StateRequest::Append(record) => drop(self.ever.insert(record.to_vec())),
            StateRequest::Rewrite(records) => self.ever.extend(records.iter().map(|r| r.to_vec())),
            StateRequest::Load | StateRequest::Sync => {}
        }
        let (journal, number) = self.journal.as_mut().ok_or("the journal is not open")?;
        let done = match request {
            StateRequest::Load => {
                return journal.load_records(*number).map(StateReply::Records).map_err(|e| e.to_string());
            }
            StateRequest::Append(record) => journal.append(*number, record),
            StateRequest::Rewrite(records) => journal.rewrite(*number, records),
            StateRequest::Sync => journal.sync(),
        };
        done.map(|()| StateReply::Done).map_err(|error| error.to_string())
    }

    fn is_known(&self, record: &Chunk) -> bool {
        self.ever.contains(&record.to_vec())
    }
}

impl World {
    /// A process begins with its journal. False if it cannot be opened: nothing runs then.
    pub(super) fn open_local(&mut self) -> bool {
        let disk = self.sqlite.disk().clone();
        let Some(local) = &mut self.full.local else { return true };
        let before = disk.contents(JOURNAL);
        if let Some(mishap) = &self.full.mishap {
            mishap.set(Worker::State);
        }
        let opened = Local::open(&disk);
        if let Some(mishap) = &self.full.mishap {
            mishap.set(Worker::Other);
            if mishap.has_died() {
                return false;
            }
        }
        local.old = before.or(local.old.take());
        local.journal = opened.ok();
        local.journal.is_some()
    }

    /// The process is no more.
    pub(super) fn close_local(&mut self) {
        if let Some(local) = &mut self.full.local {
            local.journal = None;
        }
    }

    /// Carries out a request of the local state on the disk; `None` where that is not its place.
    pub(super) fn local_request(
        &mut self,
        request: &StateRequest,
    ) -> Result<Option<Result<StateReply, String>>, Violation> {
        let Some(local) = &mut self.full.local else { return Ok(None) };
        let mishap = self.full.mishap.clone().expect("where there is a local state on the disk");
        mishap.set(Worker::State);
        let answer = local.perform(request);
        mishap.set(Worker::Other);
        match &answer {
            Ok(StateReply::Records(records)) => {
                if let Some(wrong) = records.iter().find(|record| !local.is_known(record)) {
                    let text = format!("a record that was never written is read: {wrong:?}");
                    return Err(Violation::new("local state", text));
                }
                if *records != self.state.records() {
                    self.hit("state: records lost");
                    self.state_lost = true;
                    self.state = SimState::of(records.clone());
                }
            }
            Ok(_) => drop(self.state.perform(request)),
            // What is there now nobody knows; who cannot read counts it as lost.
            Err(_) => self.state_lost |= !matches!(request, StateRequest::Append(_)),
        }
        Ok(Some(answer))
    }

    /// Somebody lays hands on the journal.
    pub(super) fn tamper(&mut self, how: Tamper) {
        let disk = self.sqlite.disk().clone();
        let Some(local) = &self.full.local else { return };
        let len = disk.contents(JOURNAL).map_or(0, |bytes| bytes.len() as u64);
        let draw = self.dice.draw("tamper", "", self.now_ns());
        match how {
            Tamper::Remove => drop(disk.unlink(JOURNAL)),
            Tamper::Truncate => drop(disk.open(JOURNAL).and_then(|file| file.set_len(draw % (len + 1)))),
            Tamper::Rot => drop(disk.flip(JOURNAL, draw % len.max(1), 1 << (draw >> 32 & 7))),
            Tamper::Swap => {
                let old = local.old.clone();
                if let Some(old) = &old {
                    let other = disk.create("/state/old").and_then(|file| file.write_all_at(old, 0));
                    let _ = other.and_then(|()| disk.rename("/state/old", JOURNAL));
                }
            }
        }
    }

    /// All of it is gone.
    pub(super) fn lose_local(&mut self) {
        if self.full.local.is_some() {
            let _ = self.sqlite.disk().unlink(JOURNAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::disk::{DiskConfig, DiskFault, DiskOp, SimClock};

    fn record(text: &str) -> Chunk {
        Chunk::from(text.as_bytes().to_vec())
    }

    /// The kernel tells of a failed sync once, and then takes what was not stored for stored.
    #[test]
    fn what_is_said_to_be_durable_after_a_failed_sync_survives_the_power() {
        for by_sync in [false, true] {
            let disk = Disk::new(DiskConfig::default(), SimClock::new(1));
            let (mut journal, number) = Local::open(&disk).unwrap();
            journal.append(number, b"one").unwrap();
            journal.sync().unwrap();
            journal.append(number, b"two").unwrap();
            let armed = AtomicBool::new(true);
            disk.set_fault_hook(Some(Arc::new(move |op, _| {
                (op == DiskOp::Sync && armed.swap(false, Ordering::SeqCst))
                    .then_some(DiskFault::SyncEioThenClean)
            })));
            assert!(journal.sync().is_err());
            let expected = match by_sync {
                true => {
                    journal.sync().unwrap();
                    [record("one"), record("two")]
                }
                false => {
                    let records = [record("three"), record("four")];
                    journal.rewrite(number, &records).unwrap();
                    records
                }
            };
            drop(journal);
            disk.power_loss(|_| false);
            let (journal, number) = Local::open(&disk).unwrap();
            assert_eq!(journal.load_records(number).unwrap(), expected, "by_sync: {by_sync}");
        }
    }
}
