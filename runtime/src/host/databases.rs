//! The databases of the process, each with its life.
//!
//! ```text
//! added -> Running -> Stopping -> Leaving -> Stopped -> Running, or forgotten
//!             |                      ^  |
//!             +----------------------+  +--> Ended ---> Running, or forgotten
//!
//! Stopped or Ended -> Resetting -> Stopped, or Running
//! ```
//!
//! A database is forgotten, or started again, only once nothing of its last run is left on any
//! thread: two engines on one file would share its POSIX locks, which closing a descriptor of one
//! of them drops for both.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use driftless_core::compact::CompactStatus;
use driftless_core::engine::{Phase, Resting, Status};
use driftless_core::health::{Ailment, ailment};
use driftless_core::ids::{Mono, Txid, Wall};
use driftless_core::keeper::Keeper;
use driftless_core::machine::{Event, Exit};
use driftless_core::retain::RetainStatus;
use driftless_core::tiers::Standing;
use driftless_core::validate::ValidateStatus;
use smol::channel::Sender;

use super::ReplicateJob;
use crate::config::{Replica, Settings};
use crate::metrics::tally::Tally;

/// Where a database of this process was named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// On the command line or in the configuration.
    Given,
    /// Not by itself: it lies in a directory of the configuration.
    Found,
    /// Over the control socket.
    Registered,
}

/// What a database is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// It is replicated: by an engine, or by none while there is nothing to do or no place.
    Running,
    /// Its engine was told to end.
    Stopping,
    /// Its engine has ended, and calls of it are still under way on threads.
    Leaving {
        /// How it ended.
        exit: Exit,
        /// Whether it was told to.
        asked: bool,
    },
    /// Its engine has ended, and its records are being written anew on a thread: what another engine
    /// wrote meanwhile would be lost.
    Resetting {
        /// How it ended.
        exit: Exit,
        /// Whether it is to run afterwards.
        again: bool,
    },
    /// It was stopped on request.
    Stopped(Exit),
    /// It has ended by itself.
    Ended(Exit),
}

/// A database of this process. There may be a hundred thousand, almost all of them without an engine.
pub(crate) struct Entry {
    /// Its number in this process; no other gets it.
    pub(crate) number: u32,
    pub(crate) database: PathBuf,
    pub(crate) replica: Replica,
    pub(crate) settings: Arc<Settings>,
    /// Whether to restore it before it is followed, if it is not there.
    pub(crate) restore_if_missing: bool,
    pub(crate) origin: Origin,
    pub(crate) life: Life,
    /// While it has an engine: a database that runs is without one while it is cold, or waits for
    /// a place.
    pub(crate) sender: Option<Sender<Event>>,
    /// Tells the run of that engine that it may end without a word.
    pub(super) rest: Option<Sender<()>>,
    /// How its engine stands, as the tiers were told.
    pub(super) standing: Option<Standing>,
    /// Its engine was told to finish so that others have a place.
    pub(super) turn_over: bool,
    /// It is to finish by then, and has no engine yet that could be told.
    pub(super) finish_by: Option<Mono>,
    /// Somebody waits for a sync, and there is no engine yet that could be told.
    pub(super) sync_wanted: bool,
    /// It had an engine before.
    pub(super) begun: bool,
    /// As of the engine's last event.
    status: Shown,
    /// How the rest of what an engine does stands, where it does any of that.
    pub(crate) extras: Option<Box<Extras>>,
    pub(crate) wants_events: bool,
    /// What was counted of it.
    tally: Counted,
    /// When a segment was last put, or found to be there.
    pub(crate) last_sync: Option<Wall>,
}

/// How an engine stands beyond its replication.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Extras {
    /// How its levels stand, if any are made.
    pub(crate) levels: Option<CompactStatus>,
    /// How its retention stands, if anything is deleted.
    pub(crate) retention: Option<RetainStatus>,
    /// How its validation stands, if its replica is validated.
    pub(crate) validation: Option<ValidateStatus>,
}

/// A status in as few bytes as it takes.
enum Shown {
    Unknown,
    Whole(Box<Status>),
    Resting(Resting),
}

/// Counters, which are packed while nothing counts.
enum Counted {
    Open(Box<Tally>),
    Packed(Box<[u8]>),
}

impl Entry {
    /// A database that was just added.
    pub(super) fn new(number: u32, job: ReplicateJob, origin: Origin) -> Entry {
        Entry {
            number,
            database: job.database,
            replica: job.replica,
            settings: job.settings,
            restore_if_missing: job.restore_if_missing,
            origin,
            life: Life::Stopped(Exit::Done),
            sender: None,
            rest: None,
            standing: None,
            turn_over: false,
            finish_by: None,
            sync_wanted: false,
            begun: false,
            status: Shown::Unknown,
            extras: None,
            wants_events: false,
            tally: Counted::Packed(Box::default()),
            last_sync: None,
        }
    }

    /// It runs from now on, and waits for an engine.
    pub(super) fn begin(&mut self) {
        self.life = Life::Running;
        (self.status, self.extras) = (Shown::Unknown, None);
        (self.standing, self.turn_over, self.finish_by) = (None, false, None);
        (self.sync_wanted, self.begun) = (false, false);
        self.wants_events = true;
    }

    /// Whether anything of its last run may still act, or its records are being written.
    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.life, Life::Stopped(_) | Life::Ended(_))
    }

    /// As of the engine's last event.
    pub(crate) fn status(&self) -> Option<Cow<'_, Status>> {
        match &self.status {
            Shown::Unknown => None,
            Shown::Whole(status) => Some(Cow::Borrowed(status)),
            Shown::Resting(resting) => Some(Cow::Owned(resting.status())),
        }
    }

    /// The last transaction on its replica.
    pub(crate) fn replicated(&self) -> Option<Txid> {
        self.status()?.replicated
    }

    /// Takes what its engine shows.
    pub(super) fn observe(&mut self, machine: &Keeper, status: Status) {
        self.tally().status(&status);
        match &mut self.status {
            Shown::Whole(whole) => **whole = status,
            shown => *shown = Shown::Whole(Box::new(status)),
        }
        let (levels, retention, validation) =
            (machine.compaction(), machine.retention(), machine.validation());
        let extras = Extras { levels, retention, validation };
        match &mut self.extras {
            Some(known) => **known = extras,
            None if extras == Extras::default() => {}
            none => *none = Some(Box::new(extras)),
        }
    }

    /// It stands so without an engine: as an earlier run of the process has left it.
    pub(super) fn rests(&mut self, resting: Resting) {
        self.status = Shown::Resting(resting);
    }

    /// Its engine has gone, and nothing is owed as far as is known.
    pub(super) fn goes_cold(&mut self) {
        if let Shown::Whole(status) = &mut self.status {
            status.phase = if status.waiting.is_some() { Phase::Waiting } else { Phase::Quiet };
            if let Some(resting) = Resting::of(status) {
                self.status = Shown::Resting(resting);
            }
        }
        if let Counted::Open(tally) = &self.tally {
            self.tally = Counted::Packed(tally.pack());
        }
    }

    /// What was counted of it, to count more.
    pub(super) fn tally(&mut self) -> &mut Tally {
        if let Counted::Packed(bytes) = &self.tally {
            self.tally = Counted::Open(Box::new(Tally::unpack(bytes)));
        }
        match &mut self.tally {
            Counted::Open(tally) => tally,
            Counted::Packed(_) => unreachable!("it was just opened"),
        }
    }

    /// What was counted of it.
    pub(crate) fn counted(&self) -> Tally {
        match &self.tally {
            Counted::Open(tally) => (**tally).clone(),
            Counted::Packed(bytes) => Tally::unpack(bytes),
        }
    }

    /// How its validation stands, if its replica is validated.
    pub(crate) fn validation(&self) -> Option<&ValidateStatus> {
        self.extras.as_ref()?.validation.as_ref()
    }

    /// What is the matter with it while its engine runs.
    pub(crate) fn ailment(&self, now: Mono) -> Option<Ailment> {
        ailment(self.status().as_deref(), self.validation(), now)
    }

    /// How its last run ended, if it has.
    pub(crate) fn exit(&self) -> Option<&Exit> {
        match &self.life {
            Life::Running | Life::Stopping => None,
            Life::Leaving { exit, .. } | Life::Resetting { exit, .. } => Some(exit),
            Life::Stopped(exit) | Life::Ended(exit) => Some(exit),
        }
    }

    /// Sends an event to its engine; an engine that has ended needs none.
    pub(crate) fn send(&self, event: Event) {
        if let Some(sender) = &self.sender {
            let _ = sender.try_send(event);
        }
    }
}

/// The directory that holds a database.
pub(crate) fn directory_of(database: &Path) -> PathBuf {
    match database.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory.to_path_buf(),
        _ => PathBuf::from("."),
    }
}
