//! Finding the replica's end and deciding who we are to it.
//!
//! The local journal is read first; where it names a transaction, two short listings past it
//! confirm that the replica ends there. Otherwise every level is listed: a gap, a partial answer
//! or a stale page is an error and tried again, never taken for a shorter history. A listing that
//! does not reach what the journal knows to be there counts only once that is not found by its
//! name either: some stores list late what they have.

mod catch_up;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use super::adoption::Adoption;
use super::ghost::Ghost;
use super::history::{History, Journal};
use super::standing::{Claims, Head, Standing, decode_header, plan_incarnation, plan_standing};
use super::{Record, Replicator, Retry};
use crate::ids::{Incarnation, Level, Lineage, Mono, Now, Txid, TxidRange};
use crate::ltx::{LTX_HEADER_BYTES, LtxHeader};
use crate::machine::{
    Actions, ByteRange, Exit, Fact, Listed, LitestreamHead, Object, OpId, Outcome, Reason, Request, Severity,
    SourceReply, SourceRequest, StateReply, StateRequest, StoreError, StoreErrorKind, StoreReply,
    StoreRequest,
};
use crate::mutant::{self, Mutant};

/// Objects asked for in one listing.
const LIST_LIMIT: u32 = 1_000;

/// Where finding the end stands.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Finding {
    step: Find,
    op: Option<OpId>,
    since: Mono,
    retry: Retry,
    journal: Journal,
    /// The newest object seen so far.
    newest: Option<Object>,
    /// The newest object's header as it was last read.
    header: Option<Result<LtxHeader, String>>,
    litestream: Option<LitestreamHead>,
    ghost: Option<Box<Ghost>>,
    sync: bool,
    /// How often the point's own segment was asked for by name and was not there.
    point_denied: u32,
    /// How often it was there, and in no listing.
    unlisted: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Find {
    Load,
    /// What lies past the point in level 0, then among the snapshots.
    Tail {
        level: Level,
        after: TxidRange,
        point_seen: bool,
    },
    /// Everything, level by level.
    All {
        level: Level,
        after: Option<TxidRange>,
    },
    Header(Object),
    /// No listing reaches the point: is its segment there all the same?
    Point(Object),
    Litestream,
    Ghost(Txid),
    Identity,
}

/// The first phase of a replicator.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Boot {
    NotStarted,
    Finding(Box<Finding>),
    Done,
}

impl Boot {
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Boot::Done)
    }

    pub(super) fn awaits(&self, op: OpId) -> bool {
        matches!(self, Boot::Finding(finding) if finding.op == Some(op))
    }
}

impl Replicator {
    pub(super) fn boot_start(&mut self, out: &mut Actions) {
        let op = self.submit(Request::State(StateRequest::Load), out);
        self.boot = Boot::Finding(Box::new(Finding {
            step: Find::Load,
            op: Some(op),
            since: Mono::default(),
            retry: Retry::default(),
            journal: Journal::default(),
            newest: None,
            header: None,
            litestream: None,
            ghost: None,
            sync: false,
            point_denied: 0,
            unlisted: 0,
        }));
    }

    fn finding(&mut self) -> &mut Finding {
        match &mut self.boot {
            Boot::Finding(finding) => finding,
            _ => unreachable!("only called while the end is being found"),
        }
    }

    /// Ends a wait for the store.
    pub(super) fn boot_hasten(&mut self, now: Mono) {
        if let Boot::Finding(finding) = &mut self.boot {
            finding.retry.hasten(now);
        }
    }

    pub(super) fn boot_deadline(&self) -> Option<(Mono, Reason)> {
        let Boot::Finding(finding) = &self.boot else { return None };
        match finding.op {
            None => finding.retry.at.map(|at| (at, Reason::Retry)),
            Some(_) if finding.step.is_store() => {
                Some((finding.since.after(self.config.store_deadline), Reason::Deadline))
            }
            Some(_) => None,
        }
    }

    pub(super) fn boot_tick(&mut self, now: Now, out: &mut Actions) {
        let Boot::Finding(finding) = &mut self.boot else { return };
        if finding.step.is_store()
            && let Some(op) =
                finding.op.filter(|_| finding.since.after(self.config.store_deadline) <= now.mono)
        {
            finding.op = None;
            out.push(crate::machine::Action::Cancel { op });
            let seconds = self.config.store_deadline.as_secs();
            self.boot_failed(now, &passing(format!("no answer from the store in {seconds} s")), out);
        }
    }

    /// Submits the request of the current step when none is under way and no wait is on.
    pub(super) fn boot_pump(&mut self, now: Now, out: &mut Actions) -> bool {
        let Boot::Finding(finding) = &self.boot else { return false };
        if finding.op.is_some() || !finding.retry.due(now.mono) {
            return false;
        }
        let request = match finding.step {
            Find::Load => Request::State(StateRequest::Load),
            Find::Tail { level, after, .. } => {
                Request::Store(StoreRequest::List { level, after: Some(after), limit: LIST_LIMIT })
            }
            Find::All { level, after } => {
                Request::Store(StoreRequest::List { level, after, limit: LIST_LIMIT })
            }
            Find::Header(object) | Find::Point(object) => Request::Store(StoreRequest::Get {
                object,
                range: ByteRange::At { offset: 0, len: LTX_HEADER_BYTES as u64 },
            }),
            Find::Litestream => Request::Source(SourceRequest::LitestreamHead),
            Find::Ghost(_) => Request::Store(finding.ghost.as_ref().expect("set with the step").request()),
            Find::Identity => {
                let lineage = self.history.lineage.expect("decided before it is written down");
                let record = Record::Identity { lineage, incarnation: self.history.incarnation };
                match finding.sync {
                    false => Request::State(StateRequest::Append(record.encode())),
                    true => Request::State(StateRequest::Sync),
                }
            }
        };
        let op = self.submit(request, out);
        let finding = self.finding();
        finding.op = Some(op);
        finding.since = now.mono;
        true
    }

    fn boot_failed(&mut self, now: Now, error: &StoreError, out: &mut Actions) {
        let draw = self.draw();
        let longest = self.store_retry_max();
        let wait = self.finding().retry.fail_within(now.mono, draw, longest);
        self.say_retry("finding the replica's end", error.into(), wait, out);
    }

    pub(super) fn boot_completed(&mut self, now: Now, outcome: Outcome, out: &mut Actions) {
        self.finding().op = None;
        match outcome {
            Outcome::Store(Err(error)) => self.boot_store_failed(now, error, out),
            Outcome::Store(Ok(StoreReply::Listing { entries, more })) => {
                self.boot_progress();
                self.boot_listed(now, &entries, more, out);
            }
            Outcome::Store(Ok(StoreReply::Bytes { bytes, object_len })) => {
                self.boot_progress();
                match self.finding().step {
                    Find::Header(object) => self.boot_header(now, object, &bytes, out),
                    Find::Point(object) => {
                        let finding = self.finding();
                        finding.restart_listing();
                        // Each listing that succeeds would have the waits begin anew.
                        finding.unlisted += 1;
                        finding.retry.attempts = finding.unlisted;
                        let error = passing(format!("the listings lack {object}, which is there"));
                        self.boot_failed(now, &error, out);
                    }
                    Find::Ghost(txid) => self.boot_ghost(txid, &bytes, object_len, out),
                    step => unreachable!("{step:?} asks for no bytes"),
                }
            }
            Outcome::State(Ok(StateReply::Records(records))) => {
                let bytes: u64 = records.iter().map(|r| r.len() as u64).sum();
                self.journal.bytes = bytes;
                self.journal.bytes_after_rewrite = bytes;
                self.finding().journal = Journal::replay(&records);
                self.boot_loaded();
            }
            Outcome::State(Ok(StateReply::Done)) => self.boot_identity_done(out),
            Outcome::State(Err(error)) => {
                self.journal_failed(error, out);
                match self.finding().step {
                    Find::Load => self.boot_loaded(),
                    _ => {
                        self.finding().sync = true;
                        self.boot_identity_done(out);
                    }
                }
            }
            Outcome::Source(reply) => {
                if let Ok(SourceReply::Litestream(head)) = reply {
                    self.finding().litestream = head;
                }
                self.boot_decide(out);
            }
            other => unreachable!("the boot asks for nothing that ends in {other:?}"),
        }
    }

    fn boot_progress(&mut self) {
        if self.finding().retry.clear() {
            self.last_error = None;
        }
    }

    fn boot_store_failed(&mut self, now: Now, error: StoreError, out: &mut Actions) {
        let vanished = error.kind == StoreErrorKind::NotFound;
        match (error.kind, self.finding().step) {
            // It was listed and is gone: the listing is stale. Begin again.
            (_, Find::Header(_)) if vanished => {
                self.finding().restart_listing();
                self.boot_failed(now, &error, out);
            }
            (_, Find::Point(object)) if vanished => {
                let finding = self.finding();
                finding.point_denied += 1;
                if finding.point_is_gone() {
                    return self.boot_ends_known(out);
                }
                finding.restart_listing();
                let error = passing(format!("{object} was written, and is neither listed nor there"));
                self.boot_failed(now, &error, out);
            }
            (_, Find::Ghost(txid)) if vanished => {
                let why = format!("segment {txid} of an earlier run is gone from level 0");
                self.boot_give_up_table(&why);
            }
            (StoreErrorKind::Misconfigured | StoreErrorKind::Unsupported, _) => {
                let hint = match error.hint.is_empty() {
                    true => "check the replica's address in the command line or configuration".into(),
                    false => error.hint,
                };
                self.stop(Exit::Misconfigured { error: error.text, hint }, out);
            }
            _ if self.ends_at(&error) => self.stop_failed("finding the replica's end", error, out),
            _ => self.boot_failed(now, &error, out),
        }
    }

    fn boot_loaded(&mut self) {
        let finding = self.finding();
        let point = finding.journal.history.point.as_ref().map(|point| point.txid);
        finding.step = match point.and_then(|txid| Txid::new(txid.get() - 1)) {
            Some(before) => {
                Find::Tail { level: Level::CAPTURES, after: TxidRange::single(before), point_seen: false }
            }
            None => Find::All { level: Level::CAPTURES, after: None },
        };
    }

    fn boot_listed(&mut self, now: Now, entries: &[Listed], more: bool, out: &mut Actions) {
        if more && entries.is_empty() {
            // There is more, and nothing to ask for it by: not the end.
            let error = passing("a listing was cut short before its first entry");
            return self.boot_failed(now, &error, out);
        }
        let more = more && !mutant::on(Mutant::PartialListTrusted);
        let finding = self.finding();
        let point = finding.journal.history.point.as_ref().map(|point| point.txid);
        for entry in entries {
            finding.see(entry.object);
        }
        let last = entries.last().map(|entry| entry.object.range);
        finding.step = match finding.step {
            Find::Tail { level, point_seen, .. } => {
                let seen = point_seen
                    || entries
                        .iter()
                        .any(|entry| Some(entry.object.range.max()) == point && level == Level::CAPTURES);
                match (more, last) {
                    (true, Some(last)) => Find::Tail { level, after: last, point_seen: seen },
                    _ if !seen => {
                        finding.newest = None;
                        Find::All { level: Level::CAPTURES, after: None }
                    }
                    _ if level == Level::CAPTURES => {
                        let point = point.expect("a tail is listed past a point");
                        let after = TxidRange::new(Txid::FIRST, point).expect("1 is the lowest");
                        Find::Tail { level: Level::SNAPSHOTS, after, point_seen: seen }
                    }
                    _ => return self.boot_ends_known(out),
                }
            }
            Find::All { level, .. } => match (more, last, Level::new(level.get() + 1)) {
                (true, Some(last), _) => Find::All { level, after: Some(last) },
                (_, _, Some(next)) => Find::All { level: next, after: None },
                _ => return self.boot_ends_known(out),
            },
            step => unreachable!("{step:?} lists nothing"),
        };
    }

    fn boot_ends_known(&mut self, out: &mut Actions) {
        let finding = self.finding();
        let point = finding.journal.history.point.as_ref().map(|point| point.txid);
        let reached = finding.newest.map(|newest| newest.range.max());
        match (point, finding.newest) {
            (Some(txid), _) if point > reached && !finding.point_is_gone() => {
                let range = TxidRange::single(txid);
                finding.step = Find::Point(Object { level: Level::CAPTURES, range });
            }
            (_, Some(object)) => finding.step = Find::Header(object),
            (_, None) => self.boot_decide(out),
        }
    }

    /// A header has no checksum of its own: one wrong bit could make strangers of us, or the link to
    /// what we write next a wrong one. What the journal does not confirm counts once two reads agree.
    fn boot_header(&mut self, now: Now, object: Object, bytes: &[u8], out: &mut Actions) {
        let decoded = decode_header(bytes);
        let finding = self.finding();
        let before = finding.header.replace(decoded.clone());
        let expected = decoded.as_ref().is_ok_and(|header| finding.journal.history.ends_with(object, header));
        match before {
            Some(before) if before == decoded => {}
            Some(_) => {
                let error = passing(format!("two readings of {object} differ"));
                return self.boot_failed(now, &error, out);
            }
            None if expected || mutant::on(Mutant::HeadReadOnce) => {}
            // It is asked for again at once.
            None => return,
        }
        let header = match decoded {
            Ok(header) => header,
            Err(error) => {
                return self.stop(
                    Exit::Corrupt {
                        error: format!("the replica's newest segment {object} is damaged: {error}"),
                        hint: "run driftless verify on the replica; move the damaged object away to go on from the one before".into(),
                    },
                    out,
                );
            }
        };
        let litestream = header.lineage.is_none();
        self.head = Some(Head { object, header });
        if litestream {
            self.finding().step = Find::Litestream;
        } else {
            self.boot_decide(out);
        }
    }

    fn boot_decide(&mut self, out: &mut Actions) {
        let head = self.head.clone();
        out.notify(Severity::Info, Fact::Head { txid: head.as_ref().map(Head::txid) });
        let finding = self.finding();
        let journal = finding.journal.clone();
        let litestream = finding.litestream.clone();
        let standing = plan_standing(Claims {
            local: &journal.history,
            intent: journal.intent.as_ref(),
            head: head.as_ref(),
            litestream: litestream.as_ref(),
            adopt: self.config.adopt,
            succeeds: self.config.succeeds,
            leased: self.config.epoch.is_some(),
        });
        let drawn = self.draw();
        let fresh = Lineage::new(drawn.max(1)).expect("not zero");
        let kept = journal.history.lineage;
        let local = journal.history;
        let theirs = head.as_ref().and_then(|head| head.header.lineage);
        let lineage = match &standing {
            Standing::Prove => theirs.expect("only a head with a lineage needs proof"),
            Standing::Extend if self.config.succeeds => theirs.expect("it was compared with the head's"),
            Standing::Begin { .. } if begins_anew(&local, theirs) => fresh,
            _ => kept.unwrap_or(fresh),
        };
        let incarnation = plan_incarnation(&local, head.as_ref(), lineage, self.config.epoch);
        self.history = local;
        self.stand_at_head();
        self.boot_stands(standing, lineage, incarnation, out);
    }

    /// What follows from who we are.
    fn boot_stands(
        &mut self,
        standing: Standing,
        lineage: Lineage,
        incarnation: Incarnation,
        out: &mut Actions,
    ) {
        match standing {
            Standing::Extend if self.config.succeeds => {
                self.want_base("another writer's history is gone on with".into(), false, false, false);
            }
            Standing::Extend => {}
            Standing::Confirm(mut step) => {
                // Another try may have led to the same state: what counts is the stamp that stands there.
                if step.to.stamp != self.history.head_stamp && !mutant::on(Mutant::IntentStampKept) {
                    step.to.stamp = self.history.head_stamp;
                }
                out.notify(Severity::Info, Fact::Adopted { txid: step.to.txid });
                self.history.advance(&step);
                // No Done stands behind its intent: the next intent would not follow.
                self.journal.bytes = u64::MAX / 4;
            }
            Standing::CatchUp => return self.boot_catch_up(),
            Standing::Base { why } => {
                let prove = self.head_has_post() && !self.history.reset;
                self.want_base(why, true, prove, false);
            }
            Standing::Prove => {
                self.history.table = None;
                self.history.point = None;
                self.want_base("the local state is lost, or too old".into(), false, true, true);
            }
            Standing::Begin { why } => {
                self.adoption = self.config.adopt.then(Adoption::default);
                self.history.table = None;
                self.history.point = None;
                self.want_base(why, true, false, false);
            }
            Standing::Fenced(exit) => return self.stop(exit, out),
        }
        self.history.lineage = Some(lineage);
        self.history.incarnation = incarnation;
        if self.is_on_trial() || mutant::on(Mutant::IdentityUnwritten) {
            // A claim to another's history is written down once it is proven: a run that finds it
            // written, and no table, would take the table for lost and write a base.
            return self.boot_end(out);
        }
        if self.config.succeeds {
            // What the journal holds has no lineage, and an identity behind it would undo it: it is written
            // anew instead, while the source is opened, and no put begins before that.
            self.journal.bytes = u64::MAX / 4;
            return self.boot_end(out);
        }
        self.finding().step = Find::Identity;
    }

    /// Whether it is still open that this history is ours.
    pub(super) fn is_on_trial(&self) -> bool {
        self.base_wanted.as_ref().is_some_and(|wanted| wanted.fence)
    }

    /// What follows goes on behind the replica's head, whatever was read of the segments before it:
    /// its stamp is not below the head's either.
    pub(super) fn stand_at_head(&mut self) {
        let head = self.head.as_ref();
        self.history.head = head.map(Head::txid);
        self.history.head_stamp = head.map_or(Default::default(), |head| head.header.stamp);
        self.history.head_post = head.and_then(|head| head.header.chain.post);
    }

    fn head_has_post(&self) -> bool {
        self.history.head_post.is_some()
    }

    fn boot_identity_done(&mut self, out: &mut Actions) {
        if !self.finding().sync && !mutant::on(Mutant::IdentityUnsynced) {
            self.finding().sync = true;
            return;
        }
        self.boot_end(out);
    }

    fn boot_end(&mut self, out: &mut Actions) {
        let pages = self.history.point.as_ref().map_or(0, |point| point.pages);
        self.pending.reset(pages);
        self.boot = Boot::Done;
        self.source.wake();
        let older_than = super::config::UNFINISHED_AFTER;
        self.cleanup = Some(self.submit(Request::Store(StoreRequest::DropUnfinished { older_than }), out));
    }
}

/// Whether a new history has a lineage of its own. A first put of an earlier run may still land, on an empty
/// replica or on one that was told to adopt: under the same lineage it is our ghost. Behind another's segment
/// no lineage comes again, and what lands there is gone behind.
fn begins_anew(local: &History, theirs: Option<Lineage>) -> bool {
    let confirmed = local.point.is_some();
    let others = theirs.is_some() && theirs != local.lineage;
    confirmed || others || mutant::on(Mutant::LineageRedrawn)
}

fn passing(text: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Retry, text)
}

impl Find {
    fn is_store(self) -> bool {
        matches!(
            self,
            Find::Tail { .. } | Find::All { .. } | Find::Header(_) | Find::Point(_) | Find::Ghost(_)
        )
    }
}

impl Finding {
    /// Keeps the object that leads furthest; among those, the lowest level, whose chain is whole.
    fn see(&mut self, object: Object) {
        let better = self
            .newest
            .is_none_or(|newest| (object.range.max(), newest.level) > (newest.range.max(), object.level));
        if better {
            self.newest = Some(object);
        }
    }

    /// Whether what was written is not on the replica. A store may show an old state of itself, and
    /// what follows, a history begun anew, is for good: it counts once it is asked for again.
    fn point_is_gone(&self) -> bool {
        self.point_denied >= if mutant::on(Mutant::DeniedOnce) { 1 } else { 2 }
    }

    fn restart_listing(&mut self) {
        self.newest = None;
        self.header = None;
        self.step = Find::All { level: Level::CAPTURES, after: None };
    }
}
