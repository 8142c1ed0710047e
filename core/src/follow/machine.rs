//! The state machine of a follower: what leads from one phase to the next.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::apply::Apply;
use super::open::Survey;
use super::table::Table;
use super::{FollowConfig, FollowPhase, FollowStatus, Position, bequest, route};
use crate::ids::{Level, Mono, Now, Txid, TxidRange};
use crate::job::{Job, JobOutput};
use crate::lease::LeaseEvent;
use crate::ltx::{Dictionaries, DictionaryId};
use crate::machine::{
    Action, Actions, Chunk, CopyReply, CopyRequest, Event, Exit, Fact, Listed, Machine, Object, OpId, OpIds,
    Outcome, Reason, Request, Severity, StoreErrorKind, StoreReply, StoreRequest,
};
use crate::reading::{Flight, Landed, Listings, exit_of};
use crate::restore::{Inventory, PlanError, RestoreOutput, Restorer, Target, plan};

/// Entries of one look at level 0.
const POLL_ENTRIES: u32 = 1000;
/// After so many looks that found nothing, one is made for a base, which stands before the rest.
const PROBE_EVERY: u32 = 16;
/// After so long without news everything is listed again.
const WIDE_EVERY: Duration = Duration::from_secs(60 * 60);
/// The longest rest before a look that has a reason.
pub(super) const BRIEF: Duration = Duration::from_secs(1);
/// How often a file may be bad before it is gone around; once may be the wire.
const FAULTS_MAX: u32 = 2;

/// What a read is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// A page of a listing of everything.
    List,
    /// A look at level 0.
    Poll,
    /// The header of the file that ends with the transaction that the copy shows.
    Header,
    /// The header of the last file of a base.
    Size,
    /// A piece of the file that is applied.
    Piece(u64),
    /// A dictionary that it names.
    Dictionary(DictionaryId),
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Phase {
    Idle,
    /// Seeing what stands in the copy's place.
    Look,
    /// Restoring; with the request that puts the file in place, while the position file is told of it.
    Restore(Box<Restorer>, Option<(OpId, Box<Request>)>),
    Open,
    Survey(Box<Survey>),
    /// Saying where a restored copy stands.
    Settle,
    /// Listing everything.
    List,
    /// Reading whether the replica has the state that this host has put last.
    Confirm,
    /// Looking at level 0 only, or for a base there.
    Poll {
        probe: bool,
    },
    Rest {
        until: Mono,
    },
    Apply(Box<Apply>),
    /// Letting go of the copy, to begin again or to end.
    Close(Then),
    Stopped,
}

/// What follows once the copy is closed.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Then {
    /// Begin again with what stands there, after a rest.
    Again(Duration),
    /// Put another file in the copy's place.
    Replace,
    Exit(Exit),
}

/// Keeps a copy current; a machine over store reads, one output and one copy.
///
/// It goes on until it is told to end, and ends with [`Exit::Done`] then. By itself it ends where a
/// person has to act: with [`Exit::Failed`] if something else stands in the copy's place, with
/// [`Exit::NothingToRestore`] if the replica is empty at first, with [`Exit::Corrupt`] if nothing on the
/// replica leads to its newest state.
#[derive(Clone, PartialEq, Debug)]
pub struct Follower {
    pub(super) config: FollowConfig,
    pub(super) flight: Flight<Key>,
    /// What is asked of the copy, or computed: one thing at a time.
    pub(super) work: Option<OpId>,
    pub(super) phase: Phase,
    listings: Listings,
    /// What files have named so far.
    pub(super) dictionaries: Dictionaries,
    /// States that the position file names.
    pub(super) named: Vec<Position>,
    /// Whether the copy may be written although nothing proves which state it shows.
    pub(super) ours: bool,
    /// What the copy shows, once proven.
    pub(super) position: Option<Position>,
    pub(super) table: Option<Table>,
    pub(super) version: u32,
    /// Files in whose content something was wrong, and how often.
    pub(super) faults: BTreeMap<Object, (u32, String)>,
    pub(super) head: Option<Txid>,
    /// Why the newest state is to be read whole.
    pub(super) rebase: Option<String>,
    /// Whether everything is to be listed at the next look.
    pub(super) wide: bool,
    wide_at: Mono,
    /// The trouble that two listings have to show before it is believed.
    pub(super) suspicion: Option<String>,
    quiet_polls: u32,
    pub(super) polled: Mono,
    /// Failures since something last went well.
    pub(super) failures: u32,
    /// Whether the copy could not be written since something last went well.
    pub(super) obstructed: bool,
    /// Whether what fails may pass: the replica was read once, or it is to be waited for.
    pub(super) patient: bool,
    pub(super) commits: u64,
    pub(super) rebases: u64,
    pub(super) shutdown: Option<Mono>,
    /// There is news, and no look has begun since.
    news: bool,
    /// It is to come to the end of the history and to stop there.
    pub(super) succeeds: bool,
    bequest: Option<Vec<Chunk>>,
    pub(super) unknown: bool,
}

impl Follower {
    /// A follower that begins with [`Event::Start`].
    ///
    /// # Panics
    /// If the interval is zero, or the configuration's parallelism.
    pub fn new(config: FollowConfig, ids: OpIds) -> Follower {
        assert!(!config.interval.is_zero(), "an interval is longer than nothing");
        assert!(config.restore.parallelism > 0, "a follower needs at least one read under way");
        let flight = Flight::new(ids, config.restore.request_deadline);
        let patient = config.patient;
        let start = Mono::from_duration(Duration::ZERO);
        Follower {
            config,
            flight,
            work: None,
            phase: Phase::Idle,
            listings: Listings::default(),
            dictionaries: Dictionaries::default(),
            named: Vec::new(),
            ours: false,
            position: None,
            table: None,
            version: 0,
            faults: BTreeMap::new(),
            head: None,
            rebase: None,
            wide: true,
            wide_at: start,
            suspicion: None,
            quiet_polls: 0,
            polled: start,
            failures: 0,
            obstructed: false,
            patient,
            commits: 0,
            rebases: 0,
            shutdown: None,
            news: false,
            succeeds: false,
            bequest: None,
            unknown: false,
        }
    }

    /// The records of a local journal by which a replicator goes on from the copy
    /// ([`succeeds`](crate::engine::Config::succeeds)): of a follower that was told
    /// [`LeaseEvent::Succeed`] and has ended with [`Exit::Done`].
    pub fn bequest(&mut self) -> Option<Vec<Chunk>> {
        self.bequest.take()
    }

    pub(super) fn copy(&mut self, request: CopyRequest, out: &mut Actions) {
        self.submit(Request::Copy(request), out);
    }

    pub(super) fn compute(&mut self, job: Job, out: &mut Actions) {
        self.submit(Request::Compute(job), out);
    }

    fn submit(&mut self, request: Request, out: &mut Actions) {
        assert!(self.work.is_none(), "one thing at a time is asked of the copy");
        self.work = Some(self.flight.submit(request, out));
    }

    pub(super) fn rest_until(&mut self, until: Mono) {
        self.phase = Phase::Rest { until };
    }

    /// Everything seen is applied: waits for the next look.
    pub(super) fn rest(&mut self) {
        match self.news || self.succeeds {
            true => self.look_again(),
            false => self.rest_until(self.polled.after(self.config.interval)),
        }
    }

    /// Waits a moment before another look, however rarely it looks.
    pub(super) fn rest_briefly(&mut self) {
        self.rest_until(self.polled.after(self.config.interval.min(BRIEF)));
    }

    /// The copy shows the newest state.
    fn is_current(&mut self, out: &mut Actions) {
        self.went_well(out);
        // What a look that began before has found is not the end.
        if !self.succeeds || self.news {
            return self.rest();
        }
        let (Some(position), Some(table)) = (self.position, &self.table) else { return self.rest() };
        self.bequest = Some(bequest(&position, table));
        self.close(Then::Exit(Exit::Done), out);
    }

    /// Goes on at once, since there may be more.
    pub(super) fn look_again(&mut self) {
        self.rest_until(self.polled);
    }

    fn poll(&mut self, now: Now, out: &mut Actions) {
        self.polled = now.mono;
        self.news = false;
        let idle_for_long = now.mono.since(self.wide_at) >= WIDE_EVERY;
        let position = self.position.filter(|_| !self.wide && self.rebase.is_none() && !idle_for_long);
        let Some(position) = position else {
            self.wide_at = now.mono;
            self.phase = Phase::List;
            // Each look is one of its own: only what happens within one is counted.
            self.listings = Listings::default();
            return self.listings.begin(now, Key::List, &mut self.flight, out);
        };
        let probe = self.quiet_polls >= PROBE_EVERY;
        if probe {
            self.quiet_polls = 0;
        }
        let after = match probe {
            true => TxidRange::new(Txid::FIRST, position.txid),
            false => Some(TxidRange::single(position.txid)),
        };
        let limit = if probe { 1 } else { POLL_ENTRIES };
        self.phase = Phase::Poll { probe };
        let request = StoreRequest::List { level: Level::CAPTURES, after, limit };
        self.flight.send(now, Key::Poll, request, out);
    }

    fn took_poll(&mut self, entries: &[Listed], out: &mut Actions) {
        let (&Phase::Poll { probe }, Some(position)) = (&self.phase, self.position) else { return };
        self.patient = true;
        let have = position.txid;
        let newer = |it: &&Listed| it.object.range.max() > have;
        if probe {
            self.wide = entries.iter().any(|it| it.object.range.is_snapshot() && newer(&it));
            return self.look_again();
        }
        let Some(highest) = entries.iter().filter(newer).map(|it| it.object.range.max()).max() else {
            self.quiet_polls += 1;
            return self.is_current(out);
        };
        self.quiet_polls = 0;
        self.head = self.head.max(Some(highest));
        let usable: Vec<Listed> = entries.iter().filter(|it| !self.is_bad(&it.object)).copied().collect();
        match route(&usable, have) {
            Some(route) if route.end == highest => self.apply(route.files, false, out),
            // What is missing may stand on a higher level.
            _ => {
                self.wide = true;
                self.look_again();
            }
        }
    }

    pub(super) fn is_bad(&self, object: &Object) -> bool {
        self.faults.get(object).is_some_and(|(count, _)| *count >= FAULTS_MAX)
    }

    fn took_listing(&mut self, now: Now, page: (Vec<Listed>, bool), out: &mut Actions) {
        let found = match self.listings.take(now, Key::List, page, &mut self.flight, out) {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(exit) => return self.trouble(exit.error().unwrap_or_default().into(), out),
        };
        self.patient = true;
        let all = Inventory::new(found);
        let inventory = all.without(|it| self.is_bad(&it.object));
        self.head = all.highest();
        if let Some(position) = self.position.filter(|it| it.doubtful) {
            return self.confirm(now, position, &all, out);
        }
        let mut severity = Severity::Warn;
        // Not the newest that can be reached: what is bad must not make it an older one.
        let whole = plan(&inventory, all.highest().map_or(Target::Latest, Target::At));
        if let Some(position) = self.position.filter(|_| self.rebase.is_none()) {
            let (have, highest) = (position.txid, all.highest());
            if highest == Some(have) {
                (self.wide, self.suspicion) = (false, None);
                return self.is_current(out);
            }
            if highest.is_none_or(|highest| highest < have) {
                return self.suspect(format!("the replica ends before transaction {have}"), out);
            }
            let way = route(inventory.objects(), have).filter(|way| Some(way.end) == highest);
            let bytes = whole.as_ref().map_or(u64::MAX, |plan| plan.files.iter().map(|it| it.len).sum());
            match way {
                Some(way) if way.bytes <= bytes => {
                    (self.wide, self.suspicion) = (false, None);
                    return self.apply(way.files, false, out);
                }
                Some(_) => {
                    severity = Severity::Info;
                    self.rebase = Some("the newest state whole is less to read than what led there".into());
                }
                None => {
                    let text = format!("no files lead on from transaction {have}, which the copy shows");
                    return self.suspect(text, out);
                }
            }
        }
        match whole {
            Ok(plan) => {
                let why = self.rebase.clone().unwrap_or_default();
                out.notify(severity, Fact::Base { full: false, why });
                self.suspicion = None;
                self.apply(plan.files, true, out);
            }
            Err(error) if self.suspicion.is_none() => self.suspect(error.to_string(), out),
            Err(error) => {
                let faults = self.faults.iter().map(|(object, (_, text))| format!("{object}: {text}"));
                let texts: Vec<String> = core::iter::once(error.to_string()).chain(faults).collect();
                let hint = "the copy stays as it is; run driftless verify on the replica".into();
                let exit = match error {
                    PlanError::Empty => Exit::NothingToRestore { error: texts.join("; "), hint },
                    _ => Exit::Corrupt { error: texts.join("; "), hint },
                };
                self.close(Then::Exit(exit), out);
            }
        }
    }

    pub(super) fn close(&mut self, then: Then, out: &mut Actions) {
        self.flight.cancel_all(out);
        if let Some(op) = self.work.take() {
            out.push(Action::Cancel { op });
        }
        (self.position, self.table) = (None, None);
        self.phase = Phase::Close(then);
        self.copy(CopyRequest::Close, out);
    }

    fn closed(&mut self, now: Now, out: &mut Actions) {
        let Phase::Close(then) = core::mem::replace(&mut self.phase, Phase::Idle) else { return };
        match then {
            Then::Again(wait) => self.rest_until(now.mono.after(wait)),
            Then::Replace => {
                self.config.replace = true;
                self.restore(now, out);
            }
            Then::Exit(exit) => self.stop(exit, out),
        }
    }

    pub(super) fn stop(&mut self, exit: Exit, out: &mut Actions) {
        self.phase = Phase::Stopped;
        out.push(Action::Stopped(exit));
    }

    fn landed(&mut self, now: Now, (key, result): Landed<Key>, out: &mut Actions) {
        if let Key::Dictionary(id) = key {
            return self.took_dictionary(now, id, result, out);
        }
        let reply = match result {
            Ok(reply) => reply,
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                return self.trouble("a file has gone since it was listed".into(), out);
            }
            Err(error) if self.patient => {
                return self.trouble(format!("read the replica: {}", error.text), out);
            }
            Err(error) => return self.close(Then::Exit(exit_of("read the replica", &error)), out),
        };
        match (key, reply) {
            (Key::List, StoreReply::Listing { entries, more }) => {
                self.took_listing(now, (entries, more), out)
            }
            (Key::Poll, StoreReply::Listing { entries, .. }) => self.took_poll(&entries, out),
            (Key::Header, StoreReply::Bytes { bytes, .. }) => self.took_header(&bytes, out),
            (Key::Size, StoreReply::Bytes { bytes, .. }) => self.took_size(now, &bytes, out),
            (Key::Piece(offset), StoreReply::Bytes { bytes, object_len }) => {
                self.took_piece(now, offset, bytes, object_len, out);
            }
            (key, reply) => panic!("a host answers in kind: {key:?} got {reply:?}"),
        }
    }

    fn completed(&mut self, now: Now, op: OpId, outcome: Outcome, out: &mut Actions) {
        if let Outcome::Store(result) = outcome {
            if let Some(landed) = self.flight.landed(now, op, result, out) {
                self.landed(now, landed, out);
            }
            return;
        }
        if self.work != Some(op) {
            return;
        }
        self.work = None;
        match outcome {
            Outcome::Copy(Ok(reply)) => self.copied(now, reply, out),
            Outcome::Copy(Err(_)) if matches!(self.phase, Phase::Close(_)) => self.closed(now, out),
            Outcome::Copy(Err(text)) if matches!(self.phase, Phase::Restore(..)) => {
                self.unpublished(now, text, out)
            }
            Outcome::Copy(Err(text)) if self.commits == 0 && self.is_new() => {
                let hint = "check space and permissions of the copy's directory".into();
                self.close(Then::Exit(Exit::Failed { error: text, hint }), out);
            }
            Outcome::Copy(Err(text)) => {
                self.obstructed = true;
                self.trouble(text, out);
            }
            Outcome::Compute(JobOutput::Checksums(sums)) => self.summed(&sums, out),
            Outcome::Compute(JobOutput::Restore(RestoreOutput::Stream { stream, decoded, next })) => {
                self.streamed(now, stream, decoded, next, out);
            }
            outcome => panic!("a host answers in kind: {outcome:?}"),
        }
    }

    /// Whether the copy has not been opened yet: what fails then, fails always.
    fn is_new(&self) -> bool {
        self.failures == 0 && matches!(self.phase, Phase::Look | Phase::Open)
    }

    fn copied(&mut self, now: Now, reply: CopyReply, out: &mut Actions) {
        match (&self.phase, reply) {
            (Phase::Look, CopyReply::Found { database, position }) => {
                self.looked(now, database, position, out)
            }
            (Phase::Restore(..), _) => self.publish(out),
            (Phase::Open, CopyReply::Opened { page_size, pages, version }) => {
                self.opened((page_size, pages, version), out);
            }
            (Phase::Survey(_), CopyReply::Pages(bytes)) => self.took_pages(bytes, out),
            (Phase::Settle, _) => {
                if self.position.is_some_and(|it| !it.doubtful) {
                    out.notify(Severity::Info, Fact::Attached);
                }
                self.look_again();
            }
            (Phase::Apply(_), reply) => self.wrote(now, reply, out),
            (Phase::Close(_), _) => self.closed(now, out),
            (phase, reply) => panic!("a host answers in kind: {phase:?} got {reply:?}"),
        }
    }

    /// There is news, or the end is to be found: on level 0, whose newest files are never deleted.
    fn hear(&mut self, succeeds: bool) {
        self.news = true;
        self.succeeds |= succeeds;
        if matches!(self.phase, Phase::Rest { .. }) && self.failures == 0 {
            self.look_again();
        }
    }

    /// Whether it has ended since what stands in the copy's place is in no state that is known.
    pub fn is_unknown(&self) -> bool {
        self.unknown
    }

    /// Whether enough time has passed, and what to do then.
    fn wake(&mut self, now: Now, out: &mut Actions) {
        match self.phase {
            Phase::Rest { until } if until <= now.mono => match self.table {
                Some(_) => self.poll(now, out),
                None => self.look(out),
            },
            _ => {}
        }
    }

    fn shut_down(&mut self, now: Now, deadline: Mono, out: &mut Actions) {
        let again = self.shutdown.replace(deadline).is_some();
        match self.phase {
            Phase::Stopped => {}
            Phase::Restore(..) => self.forward(now, Event::Shutdown { deadline }, out),
            _ if again => self.stop(Exit::Done, out),
            Phase::Close(Then::Exit(_)) => {}
            _ => self.close(Then::Exit(Exit::Done), out),
        }
    }
}

impl Machine for Follower {
    type Status = FollowStatus;

    fn handle(&mut self, now: Now, event: Event, out: &mut Actions) {
        match event {
            Event::SyncNow => self.hear(false),
            Event::Lease(LeaseEvent::Succeed) => self.hear(true),
            _ => {}
        }
        match (&self.phase, event) {
            (Phase::Stopped, _) => return,
            (_, Event::Shutdown { deadline }) => self.shut_down(now, deadline, out),
            (Phase::Restore(..), Event::Completed { op, outcome }) if self.work == Some(op) => {
                self.completed(now, op, outcome, out);
            }
            (Phase::Restore(..), event) => {
                // It cannot be put where the copy is to be.
                let output = matches!(event, Event::Completed { outcome: Outcome::Output(Err(_)), .. });
                self.obstructed |= output;
                self.forward(now, event, out);
            }
            (Phase::Idle, Event::Start { entropy }) => {
                self.flight.seed(entropy);
                (self.polled, self.wide_at) = (now.mono, now.mono);
                self.look(out);
            }
            (_, Event::Tick) => {
                if self.shutdown.is_some_and(|deadline| deadline <= now.mono) {
                    return self.stop(Exit::Done, out);
                }
                for landed in self.flight.tick(now, out) {
                    self.landed(now, landed, out);
                }
            }
            (_, Event::Completed { op, outcome }) => self.completed(now, op, outcome, out),
            _ => {}
        }
        self.wake(now, out);
    }

    fn next_deadline(&self) -> Option<(Mono, Reason)> {
        let own = match &self.phase {
            Phase::Stopped => return None,
            Phase::Restore(restorer, _) => return restorer.next_deadline(),
            Phase::Rest { until } => Some((*until, Reason::Poll)),
            _ => None,
        };
        let shutdown = self.shutdown.map(|at| (at, Reason::Shutdown));
        self.flight.next_deadline().into_iter().chain(own).chain(shutdown).min()
    }

    fn status(&self) -> FollowStatus {
        let phase = match &self.phase {
            Phase::Idle => FollowPhase::Idle,
            Phase::Restore(..) => FollowPhase::Restoring,
            Phase::Look | Phase::Open | Phase::Survey(_) | Phase::Settle => FollowPhase::Surveying,
            Phase::List | Phase::Confirm | Phase::Poll { .. } => FollowPhase::Polling,
            Phase::Apply(_) => FollowPhase::Applying,
            Phase::Rest { .. } | Phase::Close(_) => FollowPhase::Resting,
            Phase::Stopped => FollowPhase::Stopped,
        };
        FollowStatus {
            phase,
            position: self.position.map(|it| it.txid),
            stamp: self.position.map(|it| it.stamp),
            head: self.head,
            commits: self.commits,
            rebases: self.rebases,
            obstructed: self.obstructed,
            requests: self.flight.requests,
            bytes: self.flight.bytes,
        }
    }
}
