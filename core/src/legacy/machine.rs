//! The state machine of a restore from Litestream 0.3's layout.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::apply::Apply;
use super::listing::LegacyListings;
use super::{
    LegacyInventory, LegacyListed, LegacyOrder, LegacyPlan, LegacyPlanError, LegacyStatus, WalLimit, plan,
};
use crate::ids::{Mono, Now, PageSize};
use crate::job::JobOutput;
use crate::machine::{
    Action, Actions, Event, Exit, Fact, Machine, OpId, OpIds, Outcome, OutputError, OutputRequest, Reason,
    Request, Severity, StoreErrorKind, StoreReply,
};
use crate::reading::{Flight, Landed, exit_of};
use crate::restore::{OutputStep, RestoreConfig, RestorePhase, output_exit};

/// What a read is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    List,
    /// The piece of this number.
    Piece(u64),
}

/// What a computation or an output request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    Unpack,
    Write,
    /// An output request that stands alone, as the phase says.
    Output,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Phase {
    Idle,
    List,
    Create,
    Apply(Box<Apply>),
    SetLen,
    Sync,
    Publish,
    /// Awaiting writes that are still under way.
    Settle(Then),
    /// Removing what was built.
    Discard(Then),
    Stopped,
}

/// What follows once nothing is under way.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Then {
    List,
    /// The same plan once more, up to the last commit.
    Create(WalLimit),
    Exit(Exit),
}

/// Restores a database from Litestream 0.3's layout; a machine over store reads and one output.
///
/// It ends with [`Exit::Done`] and the target in place (or, for a dry run, with the plan in its
/// status), or with an error and the target untouched.
#[derive(Clone, PartialEq, Debug)]
pub struct LegacyRestorer {
    order: LegacyOrder,
    pub(super) config: RestoreConfig,
    pub(super) flight: Flight<Key>,
    work: BTreeMap<OpId, Work>,
    pub(super) phase: Phase,
    listings: LegacyListings,
    hole_confirmed: bool,
    pub(super) plan: Option<LegacyPlan>,
    pub(super) limit: Option<WalLimit>,
    /// Whether the output file is being created, and whether it exists.
    creating: bool,
    created: bool,
    /// Page size, pages and frames, as far as they are known.
    pub(super) state: (Option<PageSize>, u32, u64),
    shutdown: Option<Mono>,
}

impl LegacyRestorer {
    /// A restore of `order` that begins with [`Event::Start`]. The target of `config` does not
    /// count.
    ///
    /// # Panics
    /// If the configuration's parallelism is zero.
    pub fn new(order: LegacyOrder, config: RestoreConfig, ids: OpIds) -> LegacyRestorer {
        assert!(config.parallelism > 0, "a restore needs at least one read under way");
        let flight = Flight::new(ids, config.request_deadline);
        LegacyRestorer {
            order,
            config,
            flight,
            work: BTreeMap::new(),
            phase: Phase::Idle,
            listings: LegacyListings::default(),
            hole_confirmed: false,
            plan: None,
            limit: None,
            creating: false,
            created: false,
            state: (None, 0, 0),
            shutdown: None,
        }
    }

    /// The source of identifiers, for a machine that goes on after this one.
    pub(super) fn into_ids(self) -> OpIds {
        self.flight.into_ids()
    }

    fn completed(&mut self, now: Now, op: OpId, outcome: Outcome, out: &mut Actions) {
        if let Outcome::Store(result) = outcome {
            if let Some(landed) = self.flight.landed(now, op, result, out) {
                self.landed(now, landed, out);
            }
            return;
        }
        let Some(work) = self.work.remove(&op) else { return };
        match outcome {
            Outcome::Compute(JobOutput::Unpack(output)) => self.unpacked(now, output, out),
            Outcome::Output(result) => self.output_done(now, work, result.map(drop), out),
            outcome => panic!("a host answers in kind: {work:?} got {outcome:?}"),
        }
    }

    fn landed(&mut self, now: Now, (key, result): Landed<Key>, out: &mut Actions) {
        if matches!(self.phase, Phase::Settle(_) | Phase::Discard(_) | Phase::Stopped) {
            return;
        }
        let listed = self.listed_of(key);
        let name = listed.map(|it| it.object.to_string());
        match result {
            Ok(StoreReply::LegacyListing { entries, more }) => self.take_listing(now, (entries, more), out),
            Ok(StoreReply::Bytes { bytes, object_len }) => {
                if let (Some(listed), Some(name)) = (listed, &name)
                    && listed.len != object_len
                {
                    return self.relist(&format!("{name} has changed its length since it was listed"), out);
                }
                self.take_piece(now, key, bytes, out);
            }
            Err(error) if error.kind == StoreErrorKind::NotFound && name.is_some() => {
                let name = name.unwrap_or_default();
                self.relist(&format!("{name} has gone since it was listed"), out);
            }
            Err(error) => {
                let what = name.map_or_else(|| "list the replica".into(), |name| format!("read {name}"));
                self.settle(Then::Exit(exit_of(&what, &error)), out);
            }
            Ok(reply) => panic!("a host answers in kind: a read got {reply:?}"),
        }
    }

    fn listed_of(&self, key: Key) -> Option<LegacyListed> {
        let (Key::Piece(number), Phase::Apply(apply)) = (key, &self.phase) else { return None };
        apply.listed_of(number, self.objects())
    }

    pub(super) fn objects(&self) -> &[LegacyListed] {
        self.plan.as_ref().map_or(&[], |plan| &plan.objects)
    }

    fn list(&mut self, now: Now, out: &mut Actions) {
        self.phase = Phase::List;
        self.plan = None;
        self.limit = None;
        self.listings.begin(now, Key::List, &mut self.flight, out);
    }

    fn take_listing(&mut self, now: Now, page: (Vec<LegacyListed>, bool), out: &mut Actions) {
        if self.phase != Phase::List {
            return;
        }
        let found = match self.listings.take(now, Key::List, page, &mut self.flight, out) {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(exit) => return self.settle(Then::Exit(exit), out),
        };
        match plan(&LegacyInventory::new(found), &self.order) {
            Ok(plan) => {
                self.plan = Some(plan);
                match self.config.dry_run {
                    true => self.stop(Exit::Done, out),
                    false => self.create(out),
                }
            }
            Err(LegacyPlanError::Missing { .. }) if !self.hole_confirmed => {
                // A store that lists carelessly gets a second look before a hole is reported.
                self.hole_confirmed = true;
                self.relist("an object seems to be missing", out);
            }
            Err(error) => self.settle(Then::Exit(no_plan(&error)), out),
        }
    }

    /// Begins again from a fresh listing, a bounded number of times.
    fn relist(&mut self, why: &str, out: &mut Actions) {
        let then = self.listings.again(why, out).map_or_else(Then::Exit, |()| Then::List);
        self.settle(then, out);
    }

    fn create(&mut self, out: &mut Actions) {
        self.creating = true;
        self.phase = Phase::Create;
        self.submit(Work::Output, Request::Output(OutputRequest::Create { keep: false }), out);
    }

    /// Forgets what is under way, waits for writes that nobody can take back, and goes on.
    pub(super) fn settle(&mut self, then: Then, out: &mut Actions) {
        self.flight.cancel_all(out);
        let jobs: Vec<OpId> =
            self.work.iter().filter(|(_, work)| **work == Work::Unpack).map(|(&op, _)| op).collect();
        for op in jobs {
            self.work.remove(&op);
            out.push(Action::Cancel { op });
        }
        self.phase = Phase::Settle(then);
    }

    /// Takes the step that settling led up to, if nothing is under way any more.
    fn settled(&mut self, now: Now, out: &mut Actions) {
        let Phase::Settle(then) = &self.phase else { return };
        if !self.work.is_empty() {
            return;
        }
        let then = then.clone();
        if self.created {
            self.submit(Work::Output, Request::Output(OutputRequest::Discard), out);
            self.phase = Phase::Discard(then);
        } else {
            self.go(now, then, out);
        }
    }

    fn go(&mut self, now: Now, then: Then, out: &mut Actions) {
        match then {
            Then::List => self.list(now, out),
            Then::Create(limit) => {
                self.limit = Some(limit);
                self.create(out);
            }
            Then::Exit(exit) => self.stop(exit, out),
        }
    }

    fn stop(&mut self, exit: Exit, out: &mut Actions) {
        self.phase = Phase::Stopped;
        out.push(Action::Stopped(exit));
    }

    pub(super) fn submit(&mut self, work: Work, request: Request, out: &mut Actions) {
        let op = self.flight.submit(request, out);
        self.work.insert(op, work);
    }

    fn output_done(&mut self, now: Now, work: Work, result: Result<(), OutputError>, out: &mut Actions) {
        if core::mem::take(&mut self.creating) {
            self.created = result.is_ok();
        }
        if let Phase::Discard(then) = &self.phase {
            let then = then.clone();
            self.created = false;
            if let Err(error) = result {
                let text = format!("the unfinished file could not be removed: {}", error.text);
                out.notify(Severity::Warn, Fact::Remark { text });
            }
            return self.go(now, then, out);
        }
        if let Err(error) = result {
            if matches!(self.phase, Phase::Settle(_)) {
                return;
            }
            let what = match self.phase {
                Phase::Create => OutputStep::Create,
                Phase::Publish => OutputStep::Publish,
                Phase::Sync => OutputStep::Sync,
                _ => OutputStep::Write,
            };
            return self.settle(Then::Exit(output_exit(what, &error)), out);
        }
        match (&self.phase, work) {
            (_, Work::Write) => self.written(now, out),
            (Phase::Create, _) => self.begin_apply(now, out),
            (Phase::SetLen, _) => {
                self.phase = Phase::Sync;
                self.submit(Work::Output, Request::Output(OutputRequest::Sync), out);
            }
            (Phase::Sync, _) => {
                self.phase = Phase::Publish;
                let request = OutputRequest::Publish { replace: self.config.replace };
                self.submit(Work::Output, Request::Output(request), out);
            }
            (Phase::Publish, _) => self.stop(Exit::Done, out),
            _ => {}
        }
    }

    fn shut_down(&mut self, deadline: Mono, out: &mut Actions) {
        let exit = interrupted();
        let again = self.shutdown.is_some();
        self.shutdown = Some(deadline);
        match &mut self.phase {
            Phase::Stopped => {}
            _ if again => {
                self.flight.cancel_all(out);
                self.stop(exit, out);
            }
            // Once asked for, the swap cannot be taken back; its outcome decides.
            Phase::Publish => {}
            Phase::Settle(then) | Phase::Discard(then) => {
                if !matches!(then, Then::Exit(_)) {
                    *then = Then::Exit(exit);
                }
            }
            _ => self.settle(Then::Exit(exit), out),
        }
    }
}

/// The end of a restore that was told to stop.
pub(super) fn interrupted() -> Exit {
    Exit::Failed {
        error: "interrupted".into(),
        hint: "the target is as it was; run the restore again".into(),
    }
}

/// The end that a listing without a way to the state brings.
fn no_plan(error: &LegacyPlanError) -> Exit {
    let (text, hint) = (error.to_string(), error.hint().to_string());
    match error {
        LegacyPlanError::Empty
        | LegacyPlanError::NoGeneration(_)
        | LegacyPlanError::Before { .. }
        | LegacyPlanError::NoIndex { .. } => Exit::NothingToRestore { error: text, hint },
        LegacyPlanError::Which(..) | LegacyPlanError::NoTime(_) | LegacyPlanError::WholeWal(_) => {
            Exit::Misconfigured { error: text, hint }
        }
        LegacyPlanError::NoSnapshot(_) | LegacyPlanError::Missing { .. } | LegacyPlanError::Hollow(_) => {
            Exit::Corrupt { error: text, hint }
        }
    }
}

fn phase_of(phase: &Phase) -> RestorePhase {
    match phase {
        Phase::Idle => RestorePhase::Idle,
        Phase::List => RestorePhase::Listing,
        Phase::Create | Phase::Apply(_) => RestorePhase::Fetching,
        Phase::SetLen | Phase::Sync | Phase::Publish => RestorePhase::Finishing,
        Phase::Settle(_) | Phase::Discard(_) => RestorePhase::Settling,
        Phase::Stopped => RestorePhase::Stopped,
    }
}

impl Machine for LegacyRestorer {
    type Status = LegacyStatus;

    fn handle(&mut self, now: Now, event: Event, out: &mut Actions) {
        if self.phase == Phase::Stopped {
            return;
        }
        match event {
            Event::Start { entropy } => {
                if self.phase == Phase::Idle {
                    self.flight.seed(entropy);
                    self.list(now, out);
                }
            }
            Event::Tick => {
                if let Some(deadline) = self.shutdown
                    && deadline <= now.mono
                {
                    return self.shut_down(deadline, out);
                }
                for landed in self.flight.tick(now, out) {
                    self.landed(now, landed, out);
                }
            }
            Event::Shutdown { deadline } => self.shut_down(deadline, out),
            Event::Completed { op, outcome } => self.completed(now, op, outcome, out),
            Event::SourceChanged
            | Event::SyncNow
            | Event::StoreProbed(_)
            | Event::Lease(_)
            | Event::Stored { .. } => {}
        }
        self.settled(now, out);
    }

    fn next_deadline(&self) -> Option<(Mono, Reason)> {
        if self.phase == Phase::Stopped {
            return None;
        }
        let shutdown = self.shutdown.map(|at| (at, Reason::Shutdown));
        self.flight.next_deadline().into_iter().chain(shutdown).min()
    }

    fn status(&self) -> LegacyStatus {
        let last = self.objects().last();
        let (page_size, pages, frames) = self.state;
        LegacyStatus {
            phase: phase_of(&self.phase),
            generation: self.plan.as_ref().map(|plan| plan.generation),
            index: last.map(|it| it.object.index),
            stamp: last.and_then(|it| it.modified),
            page_size,
            pages,
            frames,
            plan: self.objects().to_vec(),
            bytes_fetched: self.flight.bytes,
            requests: self.flight.requests,
            listings: self.listings.count(),
        }
    }
}
