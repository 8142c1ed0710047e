//! The machines of one database and its replica under one contract: a replicator, the compactor that
//! follows what it stores, the retainer that deletes what the compactor has covered, and the validator
//! that reads now and then what there is.
//!
//! They share the store and nothing else. What the replicator reports as stored is the compactor's event;
//! whatever ends the replicator, a fence above all, ends the others before anything else is asked of the
//! store, and nobody waits for it: what it had not committed is made again by a later run.

use core::time::Duration;

use crate::compact::{CompactConfig, CompactStatus, Compactor};
use crate::engine::{Config, Phase, Replicator, Status};
use crate::ids::{Mono, Now, Txid};
use crate::machine::{Action, Actions, Event, Fact, Machine, Notice, OpId, OpIds, Reason, ReplicaId};
use crate::retain::{RetainConfig, RetainPass, RetainStatus, Retainer};
use crate::tiers::{Rest, Standing};
use crate::validate::{ValidateConfig, ValidateStatus, Validator};

/// An engine stays for what is due within this time.
const DUE_SOON: Duration = Duration::from_secs(60);
/// What tells the compactor's run from the replicator's.
const OTHER_RUN: u64 = 0x9e37_79b9_7f4a_7c15;
/// And what tells the retainer's.
const THIRD_RUN: u64 = 0xc2b2_ae3d_27d4_eb4f;
/// And what tells the validator's.
const FOURTH_RUN: u64 = 0x1656_67b1_9e37_79f9;

/// A replicator with or without a compactor, and that with or without a retainer; with or without a
/// validator. See the module's documentation and [`Machine`].
#[derive(Clone, PartialEq, Debug)]
pub struct Keeper {
    replicator: Replicator,
    compactor: Option<Compactor>,
    /// The run of the compactor's requests.
    compactor_run: u64,
    retainer: Option<Retainer>,
    /// The run of the retainer's requests.
    retainer_run: u64,
    validator: Option<Validator>,
    /// The run of the validator's requests.
    validator_run: u64,
}

impl Keeper {
    /// Machines that have not begun; `run` is a number that differs from those of all runs before, such as
    /// a random one. A run that ends as soon as all is replicated compacts nothing and validates nothing.
    ///
    /// # Panics
    /// As [`Compactor::new`] and [`Validator::new`] do.
    pub fn new(
        replica: ReplicaId,
        run: u64,
        config: Config,
        levels: Option<CompactConfig>,
        validation: Option<ValidateConfig>,
    ) -> Keeper {
        let (compactor_run, retainer_run, validator_run) =
            (run ^ OTHER_RUN, run ^ THIRD_RUN, run ^ FOURTH_RUN);
        // Also where nothing is deleted here: a rule of the store's own may do it.
        let config = Config { prove_tenure: config.prove_tenure || levels.is_some(), ..config };
        let levels = levels.filter(|_| !config.once);
        let retainer = levels.as_ref().and_then(|levels| {
            let (store_deadline, pending_byte) = (levels.store_deadline, levels.pending_byte);
            let top = Some(levels.levels.len() as u8);
            let epoch = config.epoch;
            let config =
                RetainConfig { top, epoch, store_deadline, pending_byte, ..levels.retention.clone()? };
            Some(Retainer::new(config, RetainPass::Following, OpIds::new(replica, retainer_run)))
        });
        let validation = validation.filter(|_| !config.once);
        let validator =
            validation.map(|validation| Validator::new(validation, OpIds::new(replica, validator_run)));
        let compactor = levels.map(|levels| Compactor::new(levels, OpIds::new(replica, compactor_run)));
        let replicator = Replicator::new(replica, run, config);
        Keeper { replicator, compactor, compactor_run, retainer, retainer_run, validator, validator_run }
    }

    /// Whether a machine of these settings would find nothing to do at a database that is as it was left:
    /// none that looks at the replica by itself, or that ends when all is done.
    pub fn may_rest(config: &Config, levels: bool, validation: bool) -> bool {
        !(levels || validation || config.once || config.adopt)
    }

    /// Whether an event of the source would change anything.
    pub fn wants_events(&self) -> bool {
        self.replicator.wants_events()
    }

    /// How the compactor stands, if there is one.
    pub fn compaction(&self) -> Option<CompactStatus> {
        self.compactor.as_ref().map(Machine::status)
    }

    /// How the retainer stands, if there is one.
    pub fn retention(&self) -> Option<RetainStatus> {
        self.retainer.as_ref().map(Machine::status)
    }

    /// How the validator stands, if there is one.
    pub fn validation(&self) -> Option<ValidateStatus> {
        self.validator.as_ref().map(Machine::status)
    }

    /// Whether a request is the validator's.
    pub fn is_validators(&self, op: OpId) -> bool {
        op.run == self.validator_run
    }

    /// As [`Machine::next_deadline`], but for the validator's.
    pub fn deadline_but_of_validation(&self) -> Option<(Mono, Reason)> {
        [self.replicator.next_deadline(), self.upkeep_deadline()].into_iter().flatten().min()
    }

    /// When a compaction or a pass of the retention is due, or a request of one has its deadline.
    pub fn upkeep_deadline(&self) -> Option<(Mono, Reason)> {
        let compactor = self.compactor.as_ref().and_then(Machine::next_deadline);
        let retainer = self.retainer.as_ref().and_then(Machine::next_deadline);
        [compactor, retainer].into_iter().flatten().min()
    }

    /// How the database stands if its engine may go: see [`Replicator::rest`]. What the others owe is
    /// made by whoever comes then; what is due soon is waited for.
    pub fn rest(&self, now: Now) -> Option<Rest> {
        let fingerprint = self.replicator.rest()?;
        let validator = self.validator.as_ref().and_then(Machine::next_deadline);
        let due = [self.upkeep_deadline(), validator].into_iter().flatten().min();
        let soon = |(at, reason): (Mono, Reason)| reason == Reason::Deadline || at < now.mono.after(DUE_SOON);
        (!due.is_some_and(soon)).then(|| Rest { fingerprint, due: due.map(|(at, _)| at) })
    }

    /// Whether the replicator was told of a change that it may not have looked into.
    pub fn was_told(&self) -> bool {
        self.replicator.was_told()
    }

    /// What the tiers want to know; `status` is the replicator's.
    pub fn standing(&self, now: Now, status: &Status) -> Standing {
        let all = status.frames_behind == 0 && status.pages_waiting == 0 && !status.uploading;
        match status.phase {
            _ if self.rest(now).is_some() => Standing::Resting,
            Phase::Base if status.last_error.is_none() => Standing::Base,
            Phase::Starting | Phase::Base => Standing::Starting,
            // It cannot do anything now: others may.
            Phase::Waiting => Standing::Replicated,
            Phase::Following | Phase::Quiet | Phase::Stopping if all => Standing::Replicated,
            Phase::Following | Phase::Quiet | Phase::Stopping => Standing::Busy,
        }
    }

    /// Gives the compactor an event, and the retainer what it makes.
    fn compact(&mut self, now: Now, event: Event, out: &mut Actions) {
        let Some(compactor) = &mut self.compactor else { return };
        let mut actions = Actions::new();
        compactor.handle(now, event, &mut actions);
        for action in actions.drain() {
            if let (Action::Notify(Notice { fact: Fact::Compacted { .. }, .. }), Some(retainer)) =
                (&action, &mut self.retainer)
            {
                retainer.compacted(now);
            }
            out.push(action);
        }
    }

    fn retain(&mut self, now: Now, event: Event, out: &mut Actions) {
        if let Some(retainer) = &mut self.retainer {
            retainer.handle(now, event, out);
        }
    }

    fn validate(&mut self, now: Now, event: Event, out: &mut Actions) {
        if let Some(validator) = &mut self.validator {
            validator.handle(now, event, out);
        }
    }

    fn stop_upkeep(&mut self, out: &mut Actions) {
        if let Some(mut compactor) = self.compactor.take() {
            compactor.let_go(out);
        }
        if let Some(mut retainer) = self.retainer.take() {
            retainer.let_go(out);
        }
        if let Some(mut validator) = self.validator.take() {
            validator.let_go(out);
        }
    }

    /// Gives the replicator an event, and the compactor what it reports.
    fn replicate(&mut self, now: Now, event: Event, out: &mut Actions) {
        let mut actions = Actions::new();
        self.replicator.handle(now, event, &mut actions);
        let mut stored: Option<(Txid, Option<u64>)> = None;
        for action in actions.drain() {
            match &action {
                Action::Notify(Notice { fact: Fact::Replicated { txid, bytes, .. }, .. }) => {
                    stored = Some((*txid, Some(*bytes)));
                }
                Action::Notify(Notice { fact: Fact::Adopted { txid }, .. }) => stored = Some((*txid, None)),
                Action::Stopped(_) => self.stop_upkeep(out),
                _ => {}
            }
            out.push(action);
        }
        if let Some((txid, bytes)) = stored {
            if let Some(retainer) = self.retainer.as_mut().filter(|_| bytes.is_some()) {
                retainer.stored(txid);
            }
            self.compact(now, Event::Stored { txid, bytes }, out);
            self.validate(now, Event::Stored { txid, bytes }, out);
        }
    }
}

impl Machine for Keeper {
    type Status = Status;

    fn handle(&mut self, now: Now, event: Event, out: &mut Actions) {
        match event {
            Event::Completed { op, .. } if op.run == self.compactor_run => self.compact(now, event, out),
            Event::Completed { op, .. } if op.run == self.retainer_run => self.retain(now, event, out),
            Event::Completed { op, .. } if op.run == self.validator_run => self.validate(now, event, out),
            Event::Start { .. } | Event::Tick | Event::StoreProbed(_) => {
                self.replicate(now, event.clone(), out);
                self.compact(now, event.clone(), out);
                self.retain(now, event.clone(), out);
                self.validate(now, event, out);
            }
            Event::Shutdown { .. } => {
                self.stop_upkeep(out);
                self.replicate(now, event, out);
            }
            event => self.replicate(now, event, out),
        }
    }

    fn next_deadline(&self) -> Option<(Mono, Reason)> {
        let validator = self.validator.as_ref().and_then(Machine::next_deadline);
        [self.deadline_but_of_validation(), validator].into_iter().flatten().min()
    }

    fn status(&self) -> Status {
        self.replicator.status()
    }
}
