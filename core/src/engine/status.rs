//! What people and oracles may look at.

use alloc::string::String;

use crate::ids::{DbChecksum, Lineage, Mono, PageSize, Txid};

use super::upload::Upload;
use super::{Life, Replicator};
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
        let idle = quiet
            && self.boot.is_done()
            && self.upload_is_idle()
            && self.base.is_none()
            && self.journal.op.is_none()
            && self.dictionary_rests()
            && self.cleanup.is_none();
        let settled = self.pending.is_empty()
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
        }
    }
}
