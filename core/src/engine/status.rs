//! What people and oracles may look at.

use alloc::string::String;

use crate::ids::{DbChecksum, Lineage, Mono, PageSize, Txid};

use super::upload::Upload;
use super::{Life, Replicator};
use crate::mutant::{self, Mutant};
use crate::probe::Findings;
use crate::tiers::Fingerprint;

/// What the replicator is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Finding the replica's end, or opening the source: what is committed is not known yet.
    Starting,
    /// The source cannot be replicated now; see [`Status::waiting`].
    Waiting,
    /// Following the source.
    Following,
    /// Reading the whole database.
    Base,
    /// Quiet: nothing is open, events wake it.
    Quiet,
    /// Finishing.
    Stopping,
}

impl Phase {
    /// The word used in logs and by `driftless status`.
    pub const fn word(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Waiting => "waiting",
            Phase::Following => "following",
            Phase::Base => "base",
            Phase::Quiet => "quiet",
            Phase::Stopping => "stopping",
        }
    }
}

/// Why the source cannot be replicated now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// What is the matter.
    pub why: String,
    /// What a person can do.
    pub hint: String,
    /// Whether the application may be committing what nobody captures.
    pub unseen: bool,
}

/// A look at a replicator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// What it is about.
    pub phase: Phase,
    /// Everything up to here is on the replica.
    pub replicated: Option<Txid>,
    /// The checksum of that state.
    pub post: Option<DbChecksum>,
    /// The history that is written.
    pub lineage: Option<Lineage>,
    /// Committed WAL frames that are not on the replica, as of the last look.
    pub frames_behind: u64,
    /// Since when there is something that is not on the replica.
    pub behind_since: Option<Mono>,
    /// Frames in the WAL at the last look.
    pub wal_frames: u32,
    /// When that look was.
    pub looked_at: Option<Mono>,
    /// Distinct pages captured that wait for their segment.
    pub pages_waiting: u64,
    /// Everything committed before this moment is on the replica.
    pub synced_until: Option<Mono>,
    /// Everything committed before this moment is on the replica, waits for its segment, or is in
    /// one that is under way.
    pub captured_until: Option<Mono>,
    /// Why the source cannot be replicated now.
    pub waiting: Option<Waiting>,
    /// The last failure that has not been followed by a success.
    pub last_error: Option<String>,
    /// What a person can do about it, if anything is known to help.
    pub hint: Option<String>,
    /// What the probe found out about the store.
    pub store: Findings,
    /// What a person should know, although it stops nothing.
    pub warning: Option<String>,
    /// Frames captured since the engine began.
    pub frames_captured: u64,
    /// The page size of the database that is followed.
    pub page_size: Option<PageSize>,
    /// Since when an answer of the database's files is awaited.
    pub source_asked: Option<Mono>,
    /// Whether a put is under way.
    pub uploading: bool,
    /// Whether it is still open that the replica's history is this database's: the database is being
    /// compared with the replica's end, and may turn out to be another.
    pub on_trial: bool,
    /// Whether it comes after another writer, which may still go on: nothing may be committed before that is
    /// over, since it would stand on a state that need not be the last.
    pub unfenced: bool,
}

/// The status of a database at rest about which there is nothing to say, in a few words: a process may
/// have a hundred thousand of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resting {
    pub(super) replicated: Option<Txid>,
    pub(super) post: Option<DbChecksum>,
    pub(super) lineage: Option<Lineage>,
    pub(super) synced_until: Option<Mono>,
    pub(super) store: Findings,
    pub(super) page_size: Option<PageSize>,
}

impl Resting {
    /// Of a status that says no more; when it was looked at for the last time is not kept.
    pub fn of(status: &Status) -> Option<Resting> {
        let &Status { replicated, post, lineage, synced_until, store, page_size, .. } = status;
        let resting = Resting { replicated, post, lineage, synced_until, store, page_size };
        let looks = Status {
            wal_frames: 0,
            looked_at: None,
            captured_until: synced_until,
            frames_captured: 0,
            ..status.clone()
        };
        (resting.status() == looks).then_some(resting)
    }

    /// The status.
    pub fn status(&self) -> Status {
        Status {
            phase: Phase::Quiet,
            replicated: self.replicated,
            post: self.post,
            lineage: self.lineage,
            frames_behind: 0,
            behind_since: None,
            wal_frames: 0,
            looked_at: None,
            pages_waiting: 0,
            synced_until: self.synced_until,
            captured_until: self.synced_until,
            waiting: None,
            last_error: None,
            hint: None,
            store: self.store,
            warning: None,
            frames_captured: 0,
            page_size: self.page_size,
            source_asked: None,
            uploading: false,
            on_trial: false,
            unfenced: false,
        }
    }
}

impl Replicator {
    /// What the files were when everything in them was on the replica, if nothing is open, under way
    /// or owed: another engine, begun at any time, loses nothing by this one's end.
    pub fn rest(&self) -> Option<Fingerprint> {
        let (seal, wal) = (self.history.seal.as_ref()?, self.source.sealed_wal()?);
        // After its end whatever it was told of shows in the files, or has not happened.
        let quiet = match self.life {
            Life::Running => self.source.is_quiet(),
            Life::Draining { .. } => false,
            Life::Stopped => self.source.is_detached(),
        };
        let hasty = mutant::on(Mutant::PendingRests);
        let idle = quiet
            && self.boot.is_done()
            && (self.upload_is_idle() || hasty)
            && self.base.is_none()
            && self.journal.op.is_none()
            && self.dictionary_rests()
            && self.cleanup.is_none();
        let settled = (self.pending.is_empty() || hasty)
            && self.base_wanted.is_none()
            && self.waiting.is_none()
            && self.adoption.is_none()
            && !self.journal.broken;
        let files = || Fingerprint::new(seal.device, seal.inode, seal.size, seal.ctime_ns, wal);
        (idle && settled).then(files)
    }

    /// Whether it was told of a change that it may not have looked into.
    pub fn was_told(&self) -> bool {
        !self.source.is_quiet()
    }

    pub(super) fn make_status(&self) -> Status {
        let phase = if self.draining() {
            Phase::Stopping
        } else if !self.boot.is_done() {
            Phase::Starting
        } else if self.waiting.is_some() {
            Phase::Waiting
        } else if self.base.is_some() || self.base_wanted.is_some() {
            Phase::Base
        } else if self.source.is_quiet() {
            Phase::Quiet
        } else if !self.source.is_following() {
            Phase::Starting
        } else {
            Phase::Following
        };
        Status {
            phase,
            replicated: self.history.point.as_ref().map(|point| point.txid),
            post: self.history.point.as_ref().map(|point| point.post),
            lineage: self.history.lineage,
            frames_behind: self.frames_behind(),
            behind_since: self.behind_since,
            wal_frames: self.source.wal_frames(),
            looked_at: self.source.looked_at(),
            pages_waiting: self.pending.len() as u64,
            synced_until: self.synced.until(),
            captured_until: self.synced.captured,
            waiting: self.waiting.clone(),
            last_error: self.last_error.as_ref().map(|error| error.text.clone()),
            hint: self.last_error.as_ref().map(|error| error.hint.clone()).filter(|hint| !hint.is_empty()),
            store: self.store,
            warning: self.warning.clone(),
            frames_captured: self.frames_captured,
            page_size: self.source.page_size(),
            source_asked: self.source.asked_since(),
            uploading: !matches!(self.upload, Upload::Idle),
            on_trial: self.is_on_trial(),
            // Under a lease another may have written: until that is known, nobody begins to.
            unfenced: self.is_unfenced() || (self.config.epoch.is_some() && !self.boot.is_done()),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::string::ToString;

    use super::*;
    use crate::engine::Config;
    use crate::ids::Txid;
    use crate::machine::{Machine as _, ReplicaId};

    #[test]
    fn a_status_at_rest_is_a_few_words_unless_there_is_more_to_say() {
        let fresh = Replicator::new(ReplicaId(0), 1, Config::default()).status();
        let at = Mono::default().after(Duration::from_secs(9));
        let rests = Status {
            phase: Phase::Quiet,
            replicated: Txid::new(7),
            post: DbChecksum::from_stored(1 << 63 | 5),
            lineage: Lineage::new(3),
            synced_until: Some(at),
            captured_until: Some(at),
            page_size: PageSize::new(4096),
            ..fresh
        };
        let looked = Status { looked_at: Some(at), wal_frames: 4, frames_captured: 9, ..rests.clone() };
        for status in [&rests, &looked] {
            assert_eq!(Resting::of(status).map(|resting| resting.status()), Some(rests.clone()));
        }
        let more: [fn(&mut Status); 6] = [
            |status| status.phase = Phase::Base,
            |status| status.frames_behind = 1,
            |status| status.pages_waiting = 1,
            |status| status.warning = Some("it matters".to_string()),
            |status| status.last_error = Some("it failed".to_string()),
            |status| status.uploading = true,
        ];
        for change in more {
            let mut status = rests.clone();
            change(&mut status);
            assert_eq!(Resting::of(&status), None, "{status:?}");
        }
    }
}
