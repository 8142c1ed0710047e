//! The state machine of a restore: its phases, and what leads from one to the next.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::fetch::{Audit, Fetch};
use super::keep::Keep;
use super::overlap::Early;
use super::present::{Look, Place, Presence};
use super::resume::Recall;
use super::survey::{Stamps, Survey};
use super::{
    Inventory, PlanError, RestoreConfig, RestoreOutput, RestoreStatus, RestoreTarget, Run, Target, Wins, plan,
};
use crate::checksum::DbXor;
use crate::ids::{DbChecksum, Level, Mono, Now, PageNo, Txid};
use crate::job::{Job, JobOutput};
use crate::ltx::{Dictionaries, DictionaryId, LtxHeader};
use crate::machine::{
    Action, Actions, Chunk, Event, Exit, Fact, Listed, Machine, Object, OpId, OpIds, Outcome, OutputRequest,
    Reason, Request, Severity, StoreErrorKind, StoreReply,
};
use crate::reading::{Flight, Landed, Listings, exit_of};

/// What a read is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    List(Level),
    /// The header of a candidate for a time.
    Stamp(usize),
    /// Of a file of the plan: the header, the end, or everything.
    Head(usize),
    Tail(usize),
    Whole(usize),
    /// Of a lane: a run, or a piece at an offset.
    Run(u64),
    Piece(u64, u64),
    Dictionary(DictionaryId),
}

/// What a computation or an output request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    Claim(usize),
    Pages(u64),
    Stream(u64),
    Write(u64),
    /// Reading what stands in the target's place, and its checksums.
    Look,
    LookSums,
    /// The same of what a killed restore has left, by which of the pages are there.
    Recall,
    RecallSums,
    /// The same of a window whose pages are kept, by its first page, and writing them.
    Keep(u32),
    KeepSums(u32),
    KeepWrite(u32),
    /// An output request that stands alone, as the phase says.
    Output,
}

/// A file of the plan.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct File {
    pub(super) listed: Listed,
    pub(super) header: Option<LtxHeader>,
    /// The last bytes, until the pages are claimed.
    pub(super) tail: Option<Chunk>,
    /// All of it, if it is small and there is room.
    pub(super) body: Option<Chunk>,
    pub(super) wins: Wins,
    pub(super) runs: Vec<Run>,
    /// What is wrong with its header.
    pub(super) fault: Option<String>,
    /// Whether pages are read out of its middle.
    pub(super) ranged: bool,
    /// Whether the survey has asked for it.
    pub(super) asked: bool,
    /// Tasks of it that have not ended: its body is held for them.
    pub(super) pending: usize,
}

impl File {
    pub(super) fn new(listed: Listed) -> File {
        File {
            listed,
            header: None,
            tail: None,
            body: None,
            wins: Wins::default(),
            runs: Vec::new(),
            fault: None,
            ranged: false,
            asked: false,
            pending: 0,
        }
    }

    /// Makes page 1 a run of its own, if it is this file's to provide out of its middle.
    pub(super) fn splits_first(&mut self) -> bool {
        let wins = self.wins.as_slice();
        let Some(win) = wins.first().filter(|win| win.page == PageNo::FIRST && self.ranged) else {
            return false;
        };
        let run = self.runs[0];
        self.runs[0] = Run { end: 1, len: win.size.into(), ..run };
        if run.end > 1 {
            let offset = wins[1].offset;
            self.runs.insert(1, Run { first: 1, offset, len: run.offset + run.len - offset, ..run });
        }
        true
    }

    /// Whether it says to which state it leads.
    pub(super) fn is_chained(&self) -> bool {
        self.header.is_some_and(|header| header.lineage.is_some() && header.chain.post.is_some())
    }
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Phase {
    Idle,
    List,
    Stamps(Stamps),
    /// Reading what stands in the target's place.
    Look(Look),
    /// Finding which state of the history it is.
    Place(Place),
    Survey(Survey),
    /// Reading the dictionaries that the files of the plan name.
    Dictionaries,
    Create,
    /// Reading what a killed restore has left.
    Recall(Recall),
    Fetch,
    /// Taking the other pages from what stands in the target's place.
    Keep(Keep),
    Audit(Audit),
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
    Plan,
    Exit(Exit),
}

/// Restores a database; a machine over store reads and one output.
///
/// Run it with a host, or as the tests do with a loop over its actions. It ends with
/// [`Exit::Done`] and the target in place (or, for a dry run, with the plan in its status), or
/// with an error and the target untouched.
#[derive(Clone, PartialEq, Debug)]
pub struct Restorer {
    pub(super) config: RestoreConfig,
    pub(super) flight: Flight<Key>,
    pub(super) work: BTreeMap<OpId, Work>,
    pub(super) phase: Phase,
    pub(super) inventory: Inventory,
    /// Damaged objects and what is wrong with them.
    pub(super) excluded: BTreeMap<Object, String>,
    /// The highest transaction that any listing showed.
    highest: Option<Txid>,
    pub(super) listings: Listings,
    gap_confirmed: bool,
    pub(super) target: Option<Txid>,
    /// In the order in which they apply. Those before `used_from` do not matter.
    pub(super) files: Vec<File>,
    pub(super) used_from: usize,
    /// What stands in the target's place, or was left by a killed restore.
    pub(super) presence: Presence,
    /// Whether what a killed restore has left may be used.
    pub(super) resume: bool,
    /// Files before this one are spared: the state that they lead to stands there.
    pub(super) spared: Option<usize>,
    pub(super) dictionaries: Dictionaries,
    /// What is fetched and written, while the survey goes on and after it.
    pub(super) fetch: Option<Fetch>,
    /// How far the output file is that is made while the survey goes on.
    pub(super) early: Early,
    /// Dictionaries that were asked for.
    pub(super) asked: BTreeSet<DictionaryId>,
    /// Whether the output file is being created, and whether it exists.
    pub(super) creating: bool,
    pub(super) created: bool,
    pub(super) pages_done: u64,
    /// Pages that need not be fetched: they stand there.
    pub(super) pages_kept: u64,
    pub(super) told: u64,
    pub(super) xor: DbXor,
    pub(super) proven: bool,
    /// How often everything was read again because the result was wrong and no object was.
    pub(super) rereads: u32,
    shutdown: Option<Mono>,
}

impl Restorer {
    /// A restore that begins with [`Event::Start`].
    ///
    /// # Panics
    /// If the configuration's parallelism is zero.
    pub fn new(config: RestoreConfig, ids: OpIds) -> Restorer {
        assert!(config.parallelism > 0, "a restore needs at least one read under way");
        let flight = Flight::new(ids, config.request_deadline).shared_by(config.parallelism);
        let presence = if config.replace { Presence::Unseen } else { Presence::Useless };
        Restorer {
            config,
            flight,
            work: BTreeMap::new(),
            phase: Phase::Idle,
            inventory: Inventory::default(),
            excluded: BTreeMap::new(),
            highest: None,
            listings: Listings::default(),
            gap_confirmed: false,
            target: None,
            files: Vec::new(),
            used_from: 0,
            presence,
            resume: true,
            spared: None,
            dictionaries: Dictionaries::default(),
            fetch: None,
            early: Early::Unasked,
            asked: BTreeSet::new(),
            creating: false,
            created: false,
            pages_done: 0,
            pages_kept: 0,
            told: 0,
            xor: DbXor::new(),
            proven: false,
            rereads: 0,
            shutdown: None,
        }
    }

    /// The source of identifiers, for a machine that goes on after this one.
    pub(crate) fn into_ids(self) -> OpIds {
        self.flight.into_ids()
    }

    /// The checksum of all pages that were built.
    pub(crate) fn built(&self) -> DbChecksum {
        self.xor.finish()
    }

    fn completed(&mut self, now: Now, op: OpId, outcome: Outcome, out: &mut Actions) {
        if let Outcome::Store(result) = outcome {
            if let Some(landed) = self.flight.landed(now, op, result, out) {
                self.landed(now, landed, out);
            }
            return;
        }
        let Some(work) = self.work.remove(&op) else { return };
        match (outcome, work) {
            (Outcome::Compute(JobOutput::Restore(output)), work) => self.computed(now, work, output, out),
            (Outcome::Compute(JobOutput::Checksums(sums)), Work::LookSums) => {
                self.look_summed(now, &sums, out)
            }
            (Outcome::Compute(JobOutput::Checksums(sums)), Work::RecallSums) => {
                self.recall_summed(now, &sums, out)
            }
            (Outcome::Compute(JobOutput::Checksums(sums)), Work::KeepSums(first)) => {
                self.keep_summed(first, &sums, out);
            }
            (Outcome::Output(result), work) => self.output_done(now, work, result, out),
            (outcome, work) => panic!("a host answers in kind: {work:?} got {outcome:?}"),
        }
    }

    fn landed(&mut self, now: Now, (key, result): Landed<Key>, out: &mut Actions) {
        if matches!(self.phase, Phase::Settle(_) | Phase::Discard(_) | Phase::Stopped) {
            return;
        }
        if let Key::Dictionary(id) = key {
            return self.take_dictionary(now, id, result, out);
        }
        let what = || match key {
            Key::List(_) => "list the replica".to_string(),
            _ => "read the replica".to_string(),
        };
        let reply = match result {
            Ok(reply) => reply,
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                let text = self.object_of(key).map_or_else(what, |object| object.to_string());
                return self.relist(&format!("{text} has gone since it was listed"), out);
            }
            Err(error) => return self.settle(Then::Exit(exit_of(&what(), &error)), out),
        };
        match reply {
            StoreReply::Listing { entries, more } => self.take_listing(now, key, (entries, more), out),
            StoreReply::Bytes { bytes, object_len } => {
                if let Some(object) = self.object_of(key)
                    && self.len_of(key).is_some_and(|len| len != object_len)
                {
                    return self.relist(&format!("{object} has changed its length since it was listed"), out);
                }
                self.take_bytes(now, key, bytes, out);
                // Another may be read in its place.
                self.pump_survey(now, out);
            }
            StoreReply::Done | StoreReply::Dropped(_) | StoreReply::LegacyListing { .. } => {
                panic!("a host answers in kind: a read has content")
            }
        }
    }

    fn take_bytes(&mut self, now: Now, key: Key, bytes: Chunk, out: &mut Actions) {
        match key {
            Key::List(_) => panic!("a host answers in kind: a listing has no bytes"),
            Key::Dictionary(_) => unreachable!("taken before"),
            Key::Stamp(at) => self.take_stamp(now, at, &bytes, out),
            Key::Head(at) if matches!(self.phase, Phase::Look(_) | Phase::Place(_)) => {
                self.take_header(now, at, &bytes, out);
            }
            Key::Head(_) | Key::Tail(_) | Key::Whole(_) => self.take_survey(now, key, bytes, out),
            Key::Run(lane) => self.take_run(now, lane, bytes, out),
            Key::Piece(lane, offset) => self.take_piece(now, lane, offset, bytes, out),
        }
    }

    fn listed_of(&self, key: Key) -> Option<Listed> {
        match (key, &self.phase) {
            (Key::Stamp(at), Phase::Stamps(stamps)) => stamps.listed(at),
            (Key::Head(at) | Key::Tail(at) | Key::Whole(at), _) => self.files.get(at).map(|file| file.listed),
            (Key::Piece(..), Phase::Audit(audit)) => Some(audit.reader.listed),
            (Key::Run(lane) | Key::Piece(lane, _), _) => {
                self.fetch.as_ref()?.file_of(lane).map(|at| self.files[at].listed)
            }
            _ => None,
        }
    }

    fn object_of(&self, key: Key) -> Option<Object> {
        self.listed_of(key).map(|listed| listed.object)
    }

    fn len_of(&self, key: Key) -> Option<u64> {
        self.listed_of(key).map(|listed| listed.len)
    }

    fn computed(&mut self, now: Now, work: Work, output: RestoreOutput, out: &mut Actions) {
        match (work, output) {
            (Work::Claim(at), RestoreOutput::Claim { claims, result }) => {
                self.claimed(now, at, claims, result, out)
            }
            (Work::Pages(lane), RestoreOutput::Pages(result)) => self.decoded(now, lane, result, out),
            (Work::Stream(lane), RestoreOutput::Stream { stream, decoded, next }) => {
                if matches!(self.phase, Phase::Audit(_)) {
                    self.audited(now, stream, &decoded, next, out);
                } else {
                    self.streamed(now, lane, stream, decoded, next, out);
                }
            }
            (work, output) => panic!("a host answers in kind: {work:?} got {output:?}"),
        }
    }

    /// Begins a listing.
    fn list(&mut self, now: Now, out: &mut Actions) {
        self.phase = Phase::List;
        self.listings.begin_together(self.config.parallelism, now, Key::List, &mut self.flight, out);
    }

    fn take_listing(&mut self, now: Now, key: Key, page: (Vec<Listed>, bool), out: &mut Actions) {
        let (Phase::List, Key::List(level)) = (&self.phase, key) else { return };
        let found = match self.listings.take_of(level, now, Key::List, page, &mut self.flight, out) {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(exit) => return self.settle(Then::Exit(exit), out),
        };
        self.inventory = Inventory::new(found);
        let highest = self.inventory.highest();
        if highest < self.highest {
            return self.relist("the replica's end went backwards between two listings", out);
        }
        self.highest = highest;
        match self.config.target {
            RestoreTarget::Latest => self.target = highest,
            RestoreTarget::At(txid) => self.target = Some(txid),
            RestoreTarget::Time(time) => return self.begin_stamps(now, time, out),
        }
        self.begin_plan(now, out);
    }

    /// Begins again from a fresh listing, a bounded number of times.
    pub(super) fn relist(&mut self, why: &str, out: &mut Actions) {
        let then = self.listings.again(why, out).map_or_else(Then::Exit, |()| Then::List);
        self.settle(then, out);
    }

    /// What is on the replica, without what is damaged.
    pub(super) fn usable(&self) -> Inventory {
        self.inventory.without(|it| self.excluded.contains_key(&it.object))
    }

    /// Plans for the target and surveys the files.
    pub(super) fn begin_plan(&mut self, now: Now, out: &mut Actions) {
        let usable = self.usable();
        let target = self.target.map_or(Target::Latest, Target::At);
        match plan(&usable, target) {
            Ok(found) => {
                self.target = Some(found.target);
                self.files = found.files.into_iter().map(File::new).collect();
                self.begin_presence(now, out);
            }
            Err(error) => self.no_plan(error, target, out),
        }
    }

    fn no_plan(&mut self, error: PlanError, target: Target, out: &mut Actions) {
        if !self.excluded.is_empty() && plan(&self.inventory, target).is_ok() {
            return self.settle(Then::Exit(self.corrupt()), out);
        }
        if matches!(error, PlanError::Gap { .. }) && !self.gap_confirmed {
            // A store that lists carelessly gets a second look before a gap is reported.
            self.gap_confirmed = true;
            return self.relist(&error.to_string(), out);
        }
        let hint = error.hint().to_string();
        let text = error.to_string();
        let latest = self.config.target == RestoreTarget::Latest;
        self.settle(
            Then::Exit(match error {
                PlanError::Gap { .. } if latest => Exit::Corrupt { error: text, hint },
                _ => Exit::NothingToRestore { error: text, hint },
            }),
            out,
        );
    }

    /// Names all damage found.
    fn corrupt(&self) -> Exit {
        let faults: Vec<String> =
            self.excluded.iter().map(|(object, text)| format!("{object}: {text}")).collect();
        Exit::Corrupt {
            error: faults.join("; "),
            hint: "no other files lead to this state; `verify` checks all, -txid restores another".into(),
        }
    }

    /// Goes around a damaged object if other files lead to the target; otherwise ends.
    pub(super) fn blame(&mut self, object: Object, text: String, out: &mut Actions) {
        self.excluded.insert(object, text.clone());
        let usable = self.usable();
        let target = self.target.expect("objects are blamed on the way to a target");
        if plan(&usable, Target::At(target)).is_err() {
            return self.settle(Then::Exit(self.corrupt()), out);
        }
        let text = format!("{object} is damaged: {text}; going around it by other files");
        out.notify(Severity::Warn, Fact::Remark { text });
        self.settle(Then::Plan, out);
    }

    /// Forgets what is under way, waits for writes that nobody can take back, and goes on.
    pub(super) fn settle(&mut self, then: Then, out: &mut Actions) {
        self.flight.cancel_all(out);
        let written = |work: &Work| {
            use Work::{Keep, KeepWrite, Look, Output, Recall, Write};
            matches!(work, Write(_) | Output | Look | Recall | Keep(_) | KeepWrite(_))
        };
        let forgotten: Vec<OpId> =
            self.work.iter().filter(|(_, work)| !written(work)).map(|(&op, _)| op).collect();
        for op in forgotten {
            self.work.remove(&op);
            out.push(Action::Cancel { op });
        }
        // What a killed restore has left, and nobody has used or changed, is there for the next one too.
        self.created &= self.early != Early::Left || !matches!(then, Then::Exit(_));
        (self.fetch, self.early) = (None, Early::Unasked);
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
            self.output(OutputRequest::Discard, out);
            self.phase = Phase::Discard(then);
        } else {
            self.go(now, then, out);
        }
    }

    pub(super) fn go(&mut self, now: Now, then: Then, out: &mut Actions) {
        match then {
            Then::List => self.list(now, out),
            Then::Plan => self.begin_plan(now, out),
            Then::Exit(exit) => self.stop(exit, out),
        }
    }

    pub(super) fn stop(&mut self, exit: Exit, out: &mut Actions) {
        self.phase = Phase::Stopped;
        out.push(Action::Stopped(exit));
    }

    pub(super) fn compute(&mut self, work: Work, job: super::RestoreJob, out: &mut Actions) {
        self.submit(work, Request::Compute(Job::Restore(job)), out);
    }

    pub(super) fn submit(&mut self, work: Work, request: Request, out: &mut Actions) {
        let op = self.flight.submit(request, out);
        self.work.insert(op, work);
    }

    /// The header of the last file of the plan.
    pub(super) fn target_header(&self) -> Option<LtxHeader> {
        self.files.last()?.header
    }

    fn shut_down(&mut self, deadline: Mono, out: &mut Actions) {
        let exit = Exit::Failed {
            error: "interrupted".into(),
            hint: "the target is as it was; run the restore again".into(),
        };
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

impl Machine for Restorer {
    type Status = RestoreStatus;

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

    fn status(&self) -> RestoreStatus {
        self.report()
    }
}
