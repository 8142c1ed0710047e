//! A host: its disk with a model of SQLite, an application, and what runs in the replicator's process.

use std::path::PathBuf;

use driftless::port::scratch::Scratch;
use driftless_core::follow::Follower;
use driftless_core::keeper::Keeper;
use driftless_core::lease::{Lease, Term};
use driftless_core::machine::OpId;
use driftless_core::succession::{Stand, Succession, View};

use crate::disk::{Disk, DiskConfig, SimClock, SimFs};
use crate::model::{Model, ModelCopy};
use crate::ring0::Violation;
use crate::ring0::app::PATH;
use crate::ring0::image::Image;
use crate::ring0::reading;
use crate::ring0::sqlite::{Connection, Source, Sqlite as _};
use crate::ring0::state::SimState;
use crate::ring0::truth::Truth;

/// Our process on each host.
pub(super) const DRIFTLESS: &str = "driftless";
/// The application's.
pub(super) const APP: &str = "app";
/// Beyond every database here.
pub(super) const PENDING: u64 = 0x4000_0000;

/// A machine of the process that runs.
pub(super) struct Running<M> {
    pub(super) machine: M,
    /// Its number among all of the run.
    pub(super) no: u64,
    /// Counts what the tick under way is for.
    pub(super) wake: u64,
}

/// Which machine of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    Lease,
    Follower,
    Replicator,
}

pub(super) struct Node {
    // Connections end before the machine does: the order of the fields matters.
    pub(super) connection: Option<Box<dyn Connection>>,
    pub(super) copy: Option<ModelCopy>,
    pub(super) source: Option<Box<dyn Source>>,
    pub(super) model: Model,
    pub(super) clock: SimClock,
    /// By how much its wall clock is ahead.
    pub(super) ahead_ns: u64,
    /// Where its monotonic clock began.
    pub(super) mono_ns: u64,
    pub(super) scratch: Scratch<SimFs>,
    pub(super) state: SimState,
    pub(super) truth: Truth,
    pub(super) holder: u64,
    pub(super) term: Option<Term>,
    /// The number of its process.
    pub(super) run: u64,
    pub(super) lease: Option<Running<Lease>>,
    pub(super) follower: Option<Running<Follower>>,
    pub(super) replicator: Option<Running<Keeper>>,
    pub(super) succession: Option<Succession>,
    /// What the succession was told last.
    pub(super) view: Option<View>,
    pub(super) stand: Option<Stand>,
    pub(super) obstructed: bool,
    /// Whether its succession knows the database.
    pub(super) found: bool,
    /// Until when somebody else has a lock on its copy.
    pub(super) copy_locked_until: u64,
    pub(super) proofs: u64,
    /// The proof that is awaited: its number, and who asked.
    pub(super) proving: Option<(u64, u64, OpId)>,
    /// The next run of the replicator comes after another writer.
    pub(super) unfenced: bool,
    /// Whether there was a history when its process came to hold the lease.
    pub(super) claimed_behind: Option<bool>,
    /// How the replica ended when its replicator was begun.
    pub(super) begun_behind: Option<Image>,
    /// Everything is fenced, and the lease is being told.
    pub(super) activating: bool,
    /// What would be wrong with that.
    pub(super) wrong: Option<Violation>,
    /// The application runs.
    pub(super) active: bool,
    /// It hands over: ends once all is replicated.
    pub(super) leaves: bool,
    pub(super) paused_until: u64,
    pub(super) app_paused_until: u64,
    pub(super) cut_until: u64,
    /// It has lost its journal, or a part of it, and may not know its own puts again.
    pub(super) forgot: bool,
    /// What was kept aside.
    pub(super) asides: Vec<Image>,
}

impl Node {
    pub(super) fn new(number: usize, start_ns: u64, (ahead_ns, mono_ns): (u64, u64), seed: u64) -> Node {
        let clock = SimClock::new(start_ns + ahead_ns);
        let disk =
            Disk::new(DiskConfig { dev: 0x801 + number as u64, ..DiskConfig::default() }, clock.clone());
        let scratch = Scratch::new(SimFs::new(disk.clone()), PathBuf::from("/scratch"));
        Node {
            connection: None,
            copy: None,
            source: None,
            model: Model::new(disk, seed, PENDING, true),
            clock,
            ahead_ns,
            mono_ns,
            scratch,
            state: SimState::default(),
            truth: Truth::new(),
            holder: 100 + number as u64,
            term: None,
            run: 0,
            lease: None,
            follower: None,
            replicator: None,
            succession: None,
            view: None,
            stand: None,
            obstructed: false,
            found: false,
            copy_locked_until: 0,
            proofs: 0,
            proving: None,
            unfenced: false,
            claimed_behind: None,
            begun_behind: None,
            activating: false,
            wrong: None,
            active: false,
            leaves: false,
            paused_until: 0,
            app_paused_until: 0,
            cut_until: 0,
            forgot: false,
            asides: Vec::new(),
        }
    }

    pub(super) fn disk(&self) -> Disk {
        self.model.disk().clone()
    }

    /// The committed database as the files say it.
    pub(super) fn image(&self) -> Option<Image> {
        reading::read(&self.disk(), PATH, PENDING).map(|reading| reading.image)
    }

    /// The application dies.
    pub(super) fn end_application(&mut self) {
        self.model.kill_process(APP);
        self.connection = None;
        self.active = false;
    }

    /// The process dies, and its application with it.
    pub(super) fn end(&mut self) {
        self.end_application();
        self.model.kill_process(DRIFTLESS);
        (self.copy, self.source) = (None, None);
        (self.lease, self.follower, self.replicator, self.succession) = (None, None, None, None);
        (self.view, self.stand, self.proving, self.proofs) = (None, None, None, 0);
        (self.unfenced, self.activating, self.leaves) = (false, false, false);
        self.wrong = None;
    }

    /// The number of a machine that runs.
    pub(super) fn number_of(&self, who: Who) -> Option<u64> {
        match who {
            Who::Lease => self.lease.as_ref().map(|it| it.no),
            Who::Follower => self.follower.as_ref().map(|it| it.no),
            Who::Replicator => self.replicator.as_ref().map(|it| it.no),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        let status = self.lease.as_ref().map(|it| driftless_core::machine::Machine::status(&it.machine));
        status.and_then(|status| status.body).map_or(0, |body| body.epoch)
    }
}
