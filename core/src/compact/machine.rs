//! The compactor: which level is due, and one compaction at a time.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::levels::Levels;
use super::schedule::due;
use super::work::{Key, Work};
use super::{CompactConfig, CompactStatus};
use crate::ids::{Level, Mono, Now, Txid, TxidRange};
use crate::job::JobOutput;
use crate::ltx::Dictionaries;
use crate::machine::{
    Action, Actions, Budget, Event, Exit, Fact, GrantRequest, Listed, Machine, OpId, OpIds, Outcome, Reason,
    Request, Severity, StoreReply, StoreRequest,
};
use crate::probe::Finding;
use crate::reading::{Flight, Landed};
use crate::restore::RestoreOutput;

/// Objects asked for in one listing.
const LIST_LIMIT: u32 = 1_000;
/// Tries of one level, each twice as long after the one before, until it rests until more is written.
const TRIES_MAX: u32 = 8;
/// The shortest rest: a fault that stays would otherwise be met again with each segment that is stored.
const REST_MIN: Duration = Duration::from_secs(10 * 60);
/// The first wait before a level is tried again.
const AGAIN_FIRST: Duration = Duration::from_secs(1);

/// What a level waits for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Slot {
    due: Option<Mono>,
    /// Tries since it was last made.
    failures: u32,
    /// It is not tried again before more is written.
    rests: bool,
    /// Nor before this.
    not_before: Option<Mono>,
    /// What went wrong last.
    trouble: Option<String>,
}

/// What the compactor is at.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Step {
    Idle,
    /// A share of what all databases may compact at once is asked for.
    AwaitGrant {
        level: Level,
    },
    /// What stands where is being found out.
    List {
        level: Level,
        at: Level,
        after: Option<TxidRange>,
    },
    Work(Box<Work>),
    Stopped,
}

/// Makes the levels of one replica. See the module's documentation and [`Machine`].
#[derive(Clone, PartialEq, Debug)]
pub struct Compactor {
    pub(super) config: CompactConfig,
    pub(super) flight: Flight<Key>,
    pub(super) levels: Levels,
    /// Whether the levels were listed since they were last forgotten.
    listed: bool,
    /// Something was missed since the listing under way began.
    stale: bool,
    /// By level.
    slots: Vec<Slot>,
    pub(super) step: Step,
    /// The share, asked for or granted.
    grant: Option<OpId>,
}

/// Why a compaction has not come to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub(super) text: String,
    pub(super) hint: String,
    /// Whether the store holds something else than was thought.
    pub(super) outdated: bool,
}

impl Compactor {
    /// A compactor that has not begun; `ids` are of a run of its own.
    ///
    /// # Panics
    /// Unless there are one to eight levels, and no interval is zero.
    pub fn new(config: CompactConfig, ids: OpIds) -> Compactor {
        assert!((1..=8).contains(&config.levels.len()), "levels 1 to 8 hold compactions");
        let intervals = || config.levels.iter().chain([&config.snapshot_interval]);
        assert!(intervals().all(|interval| !interval.is_zero()), "an interval is longer than nothing");
        let flight = Flight::new(ids, config.store_deadline);
        let levels = Levels::new(config.levels.len() as u8);
        let slots = alloc::vec![Slot::default(); usize::from(Level::SNAPSHOTS.get()) + 1];
        Compactor {
            config,
            flight,
            levels,
            listed: false,
            stale: false,
            slots,
            step: Step::Idle,
            grant: None,
        }
    }

    fn slot(&mut self, level: Level) -> &mut Slot {
        &mut self.slots[usize::from(level.get())]
    }

    /// Gives up whatever is under way, for good. What was not committed was never there.
    pub fn let_go(&mut self, out: &mut Actions) {
        self.drop_work(out);
        if let Step::AwaitGrant { .. } = self.step
            && let Some(op) = self.grant.take()
        {
            out.push(Action::Cancel { op });
        }
        self.give_back(out);
        self.step = Step::Stopped;
    }

    /// The replicator has something on level 0, and everything before it.
    fn stored(&mut self, now: Now, txid: Txid, bytes: Option<u64>) {
        let follows = match bytes {
            Some(bytes) => self.levels.stored(txid, bytes, now.wall),
            None => {
                self.levels.confirm(txid);
                false
            }
        };
        // What lies between is looked up when it is needed.
        self.listed &= follows;
        self.stale |= !follows;
        for slot in &mut self.slots {
            slot.rests = false;
        }
        let first = Level::new(1).expect("a level");
        let interval = self.config.interval(first);
        let slot = self.slot(first);
        if slot.due.is_none() {
            slot.due = Some(due(now, None, interval)).max(slot.not_before);
        }
    }

    /// Sets when each level is due of which something waits.
    fn plan_dues(&mut self, now: Now) {
        for level in self.config.made() {
            let (since, interval) = (self.levels.waits(level), self.config.interval(level));
            let slot = self.slot(level);
            let Some(since) = since else {
                // What could not be made is there by another way.
                if slot.due.is_none() && self.listed {
                    *self.slot(level) = Slot::default();
                }
                continue;
            };
            if slot.due.is_none() && !slot.rests {
                slot.due = Some(due(now, since, interval)).max(slot.not_before);
            }
        }
    }

    fn pump(&mut self, now: Now, out: &mut Actions) {
        if let Step::Idle = self.step {
            self.plan_dues(now);
            let is_due =
                |level: &Level| self.slots[usize::from(level.get())].due.is_some_and(|at| at <= now.mono);
            let Some(level) = self.config.made().find(is_due) else { return };
            let request = Request::Grant(GrantRequest::Take(Budget::Compaction));
            self.grant = Some(self.flight.submit(request, out));
            self.step = Step::AwaitGrant { level };
        }
        self.pump_work(now, out);
    }

    fn granted(&mut self, now: Now, out: &mut Actions) {
        let Step::AwaitGrant { level } = self.step else { return };
        if self.listed {
            return self.begin(now, level, out);
        }
        self.levels.forget();
        self.stale = false;
        let at = self.levels.next_listed(None).expect("there are levels");
        self.list(now, level, at, None, out);
    }

    fn list(&mut self, now: Now, level: Level, at: Level, after: Option<TxidRange>, out: &mut Actions) {
        self.step = Step::List { level, at, after };
        let request = StoreRequest::List { level: at, after, limit: LIST_LIMIT };
        self.flight.send(now, Key::List, request, out);
    }

    fn take_listing(&mut self, now: Now, entries: &[Listed], more: bool, out: &mut Actions) {
        let Step::List { level, at, mut after } = self.step else { return };
        for entry in entries {
            let range = entry.object.range;
            if entry.object.level != at || after.is_some_and(|after| range <= after) {
                let text = format!("the listing of level {at} holds {} out of its order", entry.object);
                return self.fail(now, level, Failure::outdated(text), out);
            }
            after = Some(range);
        }
        if more && entries.is_empty() {
            let text = format!("the listing of level {at} promises more and gives none");
            return self.fail(now, level, Failure::outdated(text), out);
        }
        self.levels.listed(at, entries);
        if more && self.levels.has_room(at) {
            return self.list(now, level, at, after, out);
        }
        if more {
            self.levels.cut(at);
        }
        if let Some(next) = self.levels.next_listed(Some(at)) {
            let after = self.levels.listed_after(next);
            return self.list(now, level, next, after, out);
        }
        self.listed = !self.stale;
        self.levels.look_as_usual();
        // What waited before this run began may be due already.
        for slot in self.slots.iter_mut().filter(|slot| slot.failures == 0) {
            slot.due = None;
        }
        self.weigh(now);
        self.begin(now, level, out);
    }

    /// A snapshot is due as soon as a restore reads more without one.
    fn weigh(&mut self, now: Now) {
        let outweighs = self.levels.outweighs(self.config.snapshot_bytes_min);
        let slot = self.slot(Level::SNAPSHOTS);
        if outweighs && slot.failures == 0 {
            slot.due = Some(now.mono);
        }
    }

    fn begin(&mut self, now: Now, level: Level, out: &mut Actions) {
        match self.levels.plan(level) {
            Err(text) => {
                self.levels.look_wider();
                self.fail(now, level, Failure::outdated(text), out);
            }
            Ok(None) => {
                *self.slot(level) = Slot::default();
                self.rest(out);
            }
            Ok(Some(batch)) => {
                let pending_byte = self.config.pending_byte;
                self.step = Step::Work(Box::new(Work::new(batch, pending_byte, Dictionaries::default())));
            }
        }
    }

    /// A level was made.
    pub(super) fn finished(&mut self, now: Now, file: Listed, out: &mut Actions) {
        let Step::Work(work) = core::mem::replace(&mut self.step, Step::Idle) else { return };
        let level = work.level();
        out.notify(Severity::Info, work.told(&file));
        self.levels.made(Listed { modified: Some(now.wall), ..file });
        // Of a level that is longer than what was listed there is more.
        let used_up = self.levels.is_used_up();
        self.listed &= !used_up;
        let again = (work.more() || used_up).then_some(now.mono);
        *self.slot(level) = Slot { due: again, ..Slot::default() };
        if level != Level::SNAPSHOTS {
            self.weigh(now);
        }
        self.rest(out);
    }

    /// Says what went wrong, and when it is tried again.
    pub(super) fn fail(&mut self, now: Now, level: Level, failure: Failure, out: &mut Actions) {
        self.drop_work(out);
        let Failure { text, hint, outdated } = failure;
        if outdated {
            self.listed = false;
        }
        let what = match level {
            Level::SNAPSHOTS => "making a snapshot".into(),
            level => format!("compacting to level {level}"),
        };
        let interval = self.config.interval(level);
        let slot = self.slot(level);
        slot.failures += 1;
        let known = slot.trouble.as_ref() == Some(&text);
        slot.trouble = Some(text.clone());
        if slot.failures < TRIES_MAX {
            let wait = AGAIN_FIRST * (1 << (slot.failures - 1));
            slot.due = Some(now.mono.after(wait));
            let wait_ms = wait.as_millis() as u64;
            out.notify(Severity::Warn, Fact::Retrying { what, error: text, hint, wait_ms });
        } else {
            (slot.due, slot.rests) = (None, true);
            slot.not_before = Some(now.mono.after(interval.max(REST_MIN)));
            if !known || slot.failures == TRIES_MAX {
                let hint = if hint.is_empty() { hint } else { format!(" ({hint})") };
                let text = format!("{what} has failed, and waits until more is written: {text}{hint}");
                out.notify(Severity::Error, Fact::Remark { text });
            }
        }
        self.rest(out);
    }

    fn rest(&mut self, out: &mut Actions) {
        self.flight.cancel_all(out);
        self.give_back(out);
        self.step = Step::Idle;
    }

    fn give_back(&mut self, out: &mut Actions) {
        if let Some(grant) = self.grant.take() {
            self.flight.submit(Request::Grant(GrantRequest::Return { grant }), out);
        }
    }

    fn landed(&mut self, now: Now, landed: Landed<Key>, out: &mut Actions) {
        let (key, result) = landed;
        if key != Key::List {
            return self.work_landed(now, key, result, out);
        }
        match result {
            Ok(StoreReply::Listing { entries, more }) => self.take_listing(now, &entries, more, out),
            Ok(reply) => unreachable!("a listing is not answered by {reply:?}"),
            Err(error) => {
                let Step::List { level, at, .. } = self.step else { return };
                let failure = Failure::of_store(&format!("list level {at}"), error);
                self.fail(now, level, failure, out);
            }
        }
    }

    fn completed(&mut self, now: Now, op: OpId, outcome: Outcome, out: &mut Actions) {
        match outcome {
            Outcome::Granted if self.grant == Some(op) => self.granted(now, out),
            Outcome::Store(result) if self.put_awaits(op) => self.put_completed(now, op, result, out),
            Outcome::Store(result) => {
                if let Some(landed) = self.flight.landed(now, op, result, out) {
                    self.landed(now, landed, out);
                }
            }
            Outcome::Compute(output) if self.job_awaits(op) => match output {
                JobOutput::Merge(output) => self.merged(now, output, out),
                JobOutput::Restore(RestoreOutput::Stream { stream, next, .. }) => {
                    self.checked(now, stream, next, out);
                }
                other => unreachable!("a compactor computes no {other:?}"),
            },
            _ => {}
        }
    }
}

impl Machine for Compactor {
    type Status = CompactStatus;

    fn handle(&mut self, now: Now, event: Event, out: &mut Actions) {
        if self.step == Step::Stopped {
            return;
        }
        match event {
            Event::Start { entropy } => self.flight.seed(entropy),
            Event::Stored { txid, bytes } => self.stored(now, txid, bytes),
            Event::StoreProbed(findings) => {
                self.config.create_if_absent &= findings.create_if_absent != Finding::Ignored;
            }
            Event::Tick => {
                for landed in self.flight.tick(now, out) {
                    self.landed(now, landed, out);
                }
                self.put_tick(now, out);
            }
            Event::Shutdown { .. } => {
                self.let_go(out);
                return out.push(Action::Stopped(Exit::Done));
            }
            Event::Completed { op, outcome } => self.completed(now, op, outcome, out),
            Event::SourceChanged | Event::SyncNow | Event::Lease(_) => {}
        }
        self.pump(now, out);
    }

    fn next_deadline(&self) -> Option<(Mono, Reason)> {
        if self.step == Step::Stopped {
            return None;
        }
        let dues = self.slots.iter().filter_map(|slot| slot.due).filter(|_| self.step == Step::Idle);
        let dues = dues.map(|at| (at, Reason::Compact)).min();
        [dues, self.flight.next_deadline(), self.put_deadline()].into_iter().flatten().min()
    }

    fn status(&self) -> CompactStatus {
        let making = match &self.step {
            Step::AwaitGrant { level } | Step::List { level, .. } => Some(*level),
            Step::Work(work) => Some(work.level()),
            Step::Idle | Step::Stopped => None,
        };
        let fronts = self.config.made().filter_map(|level| Some((level, self.levels.front(level)?)));
        let trouble = self.config.made().filter_map(|level| {
            let trouble = self.slots[usize::from(level.get())].trouble.clone();
            trouble.map(|text| (level, text))
        });
        CompactStatus { making, fronts: fronts.collect(), trouble: trouble.collect() }
    }
}
