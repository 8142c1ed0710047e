//! What is counted of one database.

use std::time::Duration;

use driftless_core::engine::Status;
use driftless_core::ids::{Level, Wall};
use driftless_core::machine::{Fact, Notice, Verdict};

/// Bytes of a frame's header.
const FRAME_HEADER_BYTES: u64 = 24;

/// Counters of a database, from the start of the process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Segments that were put.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Their pages.
    pub segment_pages: u64,
    /// Times that the whole database, or what differs, was read to be written.
    pub bases: u64,
    /// Failures after which something was tried again.
    pub failures: u64,
    /// Checkpoints without the write lock, and with it.
    pub checkpoints: [u64; 2],
    /// How long those took.
    pub checkpoint_time: [Duration; 2],
    /// Bytes of the WAL that were captured.
    pub wal_bytes: u64,
    /// When a file with every page was last put by this process.
    pub snapshot_at: Option<Wall>,
    /// Files of levels 1 and above that were made.
    pub compactions: u64,
    /// Their bytes.
    pub compaction_bytes: u64,
    /// Files that were deleted since they need not be kept.
    pub deletions: u64,
    /// Their bytes.
    pub deletion_bytes: u64,
    /// Validations that found the replica sound, faulty, and that could not be done.
    pub validations: [u64; 3],
    /// When one last came to its end.
    pub validated_at: Option<Wall>,
    full_base: bool,
    frames_captured: u64,
}

impl Tally {
    /// Counts a fact.
    pub fn notice(&mut self, notice: &Notice, now: Wall) {
        match &notice.fact {
            Fact::Base { full, .. } => {
                self.bases += 1;
                self.full_base = *full;
            }
            Fact::Replicated { bytes, pages, .. } => {
                self.segments += 1;
                self.segment_bytes += bytes;
                self.segment_pages += u64::from(*pages);
                if core::mem::take(&mut self.full_base) {
                    self.snapshot_at = Some(now);
                }
            }
            Fact::Checkpointed { held, took, .. } => {
                let kind = usize::from(held.is_some());
                self.checkpoints[kind] += 1;
                self.checkpoint_time[kind] += *took;
            }
            Fact::Compacted { object, bytes, .. } => {
                self.compactions += 1;
                self.compaction_bytes += bytes;
                if object.level == Level::SNAPSHOTS {
                    self.snapshot_at = Some(now);
                }
            }
            Fact::Retained { objects, bytes } => {
                self.deletions += u64::from(*objects);
                self.deletion_bytes += bytes;
            }
            Fact::Validated { verdict, .. } => {
                let (at, ended) = match verdict {
                    Verdict::Sound => (0, true),
                    Verdict::Faulty { .. } => (1, true),
                    Verdict::Undone { .. } => (2, false),
                };
                self.validations[at] += 1;
                self.validated_at = if ended { Some(now) } else { self.validated_at };
            }
            Fact::Retrying { .. } => self.failures += 1,
            _ => {}
        }
    }

    /// Counts what was captured since the last status of the same engine, or of one before it.
    pub fn status(&mut self, status: &Status) {
        let before = core::mem::replace(&mut self.frames_captured, status.frames_captured);
        let since = status.frames_captured.checked_sub(before).unwrap_or(status.frames_captured);
        let page_bytes = status.page_size.map_or(0, |size| u64::from(size.get()));
        self.wal_bytes += since * (page_bytes + FRAME_HEADER_BYTES);
    }
}

impl Tally {
    /// All of it in as few bytes as it takes.
    pub fn pack(&self) -> Box<[u8]> {
        let mut bytes = Vec::new();
        self.clone().each(|field| {
            let mut rest = *field;
            while rest >= 0x80 {
                bytes.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
        });
        // Most counters of most databases are zero.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(used);
        bytes.into()
    }

    /// What was packed.
    pub fn unpack(bytes: &[u8]) -> Tally {
        let (mut tally, mut bytes) = (Tally::default(), bytes.iter());
        tally.each(|field| {
            let (mut value, mut shift) = (0, 0);
            for byte in bytes.by_ref() {
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            *field = value;
        });
        tally
    }

    /// Gives each field as a number, in an order in which those come first that are seldom zero.
    fn each(&mut self, mut give: impl FnMut(&mut u64)) {
        let moment = |at: &mut Option<Wall>, give: &mut dyn FnMut(&mut u64)| {
            let mut number = at.map_or(0, |at| u64::try_from(at.0).unwrap_or(0) + 1);
            give(&mut number);
            *at = number.checked_sub(1).map(|at| Wall(at as i64));
        };
        [&mut self.segments, &mut self.segment_bytes, &mut self.segment_pages, &mut self.bases]
            .into_iter()
            .for_each(&mut give);
        moment(&mut self.snapshot_at, &mut give);
        give(&mut self.wal_bytes);
        for time in &mut self.checkpoint_time {
            let mut nanos = time.as_nanos() as u64;
            give(&mut nanos);
            *time = Duration::from_nanos(nanos);
        }
        self.checkpoints.iter_mut().for_each(&mut give);
        [&mut self.failures, &mut self.frames_captured, &mut self.compactions, &mut self.compaction_bytes]
            .into_iter()
            .for_each(&mut give);
        [&mut self.deletions, &mut self.deletion_bytes].into_iter().for_each(&mut give);
        self.validations.iter_mut().for_each(&mut give);
        moment(&mut self.validated_at, &mut give);
        let mut full_base = u64::from(self.full_base);
        give(&mut full_base);
        self.full_base = full_base != 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_core::engine::{Config, Replicator};
    use driftless_core::ids::{PageSize, Txid};
    use driftless_core::machine::{Machine as _, ReplicaId, Severity};

    #[test]
    fn facts_are_counted() {
        let mut tally = Tally::default();
        let mut count = |fact| tally.notice(&Notice { severity: Severity::Info, fact }, Wall(7));
        let put = || Fact::Replicated { txid: Txid::FIRST, bytes: 100, pages: 3 };
        count(put());
        count(Fact::Base { full: true, why: String::new() });
        count(put());
        let checkpoint =
            |held| Fact::Checkpointed { frames: 1, backfilled: 1, held, took: Duration::from_secs(1) };
        count(checkpoint(None));
        count(checkpoint(Some(Duration::ZERO)));
        count(checkpoint(None));
        count(Fact::Retrying { what: String::new(), error: String::new(), hint: String::new(), wait_ms: 1 });
        let validated = |verdict| Fact::Validated { verdict, objects: 1, bytes: 2 };
        count(validated(Verdict::Sound));
        count(validated(Verdict::Faulty { fault: String::new(), more: 0 }));
        count(validated(Verdict::Sound));
        count(validated(Verdict::Undone { error: String::new(), hint: String::new(), wait_ms: 1 }));
        assert_eq!((tally.validations, tally.validated_at), ([2, 1, 1], Some(Wall(7))));
        assert_eq!((tally.segments, tally.segment_bytes, tally.segment_pages), (2, 200, 6));
        assert_eq!((tally.bases, tally.failures, tally.snapshot_at), (1, 1, Some(Wall(7))));
        assert_eq!(tally.checkpoints, [2, 1]);
        assert_eq!(tally.checkpoint_time[0], Duration::from_secs(2));
    }

    #[test]
    fn captured_bytes_go_on_over_runs_of_the_engine() {
        let mut status = Replicator::new(ReplicaId(0), 1, Config::default()).status();
        status.page_size = PageSize::new(512);
        let mut tally = Tally::default();
        for frames in [2, 2, 5, 1] {
            status.frames_captured = frames;
            tally.status(&status);
        }
        assert_eq!(tally.wal_bytes, (2 + 3 + 1) * 536);
    }

    #[test]
    fn what_is_packed_comes_back() {
        let tally = Tally {
            segments: 1,
            segment_bytes: u64::MAX,
            segment_pages: 127,
            bases: 128,
            failures: 3,
            checkpoints: [4, 5],
            checkpoint_time: [Duration::from_nanos(6), Duration::from_secs(7)],
            wal_bytes: 8,
            snapshot_at: Some(Wall(0)),
            compactions: 9,
            compaction_bytes: 10,
            deletions: 11,
            deletion_bytes: 12,
            validations: [13, 0, 14],
            validated_at: Some(Wall(1_800_000_000_000)),
            full_base: true,
            frames_captured: 15,
        };
        assert_eq!(Tally::unpack(&tally.pack()), tally);
        assert_eq!((Tally::unpack(&[]), Tally::default().pack().len()), (Tally::default(), 0));
        let usual = Tally { segments: 1, segment_bytes: 900, segment_pages: 2, bases: 1, ..Tally::default() };
        assert_eq!((Tally::unpack(&usual.pack()), usual.pack().len()), (usual, 5));
    }
}
