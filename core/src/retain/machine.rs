//! The retainer: one pass at a time, each from a fresh listing.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::fence::Epochs;
use super::link::Witness;
use super::plan::{Removal, RetainPlan, Times, plan_retention};
use super::{RetainConfig, RetainStatus, TENURE_BACK};
use crate::ids::{Level, Mono, Now, Txid, Wall};
use crate::job::{Job, JobOutput};
use crate::ltx::{Dictionaries, Dictionary, DictionaryId, LTX_HEADER_BYTES, LtxError, LtxHeader};
use crate::machine::{
    Action, Actions, Budget, ByteRange, Event, Exit, Fact, GrantRequest, Listed, Machine, Object, OpId,
    OpIds, Outcome, Reason, Request, Severity, StoreError, StoreErrorKind, StoreReply, StoreRequest,
};
use crate::mutant::{self, Mutant};
use crate::reading::{Flight, Landed, Listings, exit_of};
use crate::restore::{Next, Purpose, Reader, RestoreOutput, Stream, Wins};

/// Reads of what covers under way at once.
const READS_MAX: usize = 4;
/// Deletions under way at once.
const DELETES_MAX: usize = 8;
/// Failed passes, each followed by another, until it rests until more is compacted.
const TRIES_MAX: u32 = 8;
/// The shortest wait after a pass that failed.
const REST_MIN: Duration = Duration::from_secs(60);
/// The longest.
const REST_MAX: Duration = Duration::from_secs(10 * 60);
/// A pass comes so long after what it waits for: the store's clock is not quite ours.
const SLACK: Duration = Duration::from_secs(1);

/// What a pass is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetainPass {
    /// Passes follow the compactor, for as long as the database is replicated.
    Following,
    /// One pass, now.
    Once {
        /// Whether it only says what would go.
        dry_run: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    List,
    /// A piece of what covers, at this offset.
    Piece(u64),
    /// A dictionary that it names.
    Dictionary(DictionaryId),
    Witness,
    /// The header of a file of level 0 that may be a fence.
    Epoch,
    Delete,
    Gone,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Step {
    Idle,
    AwaitGrant,
    List,
    /// What covers is read whole.
    Check {
        reader: Box<Reader>,
        job: Option<OpId>,
    },
    /// What it names is read before it.
    Dictionary {
        cover: Object,
    },
    /// Whether it is of the same history.
    Link {
        cover: Object,
        header: Box<LtxHeader>,
        witness: Witness,
    },
    /// Whether it is the first of its epoch.
    Epoch {
        of: Txid,
    },
    /// The first `block` of the removals are being deleted, `left` of them still.
    Delete {
        block: usize,
        left: usize,
    },
    /// Whether they have gone.
    Confirm {
        block: usize,
    },
    Stopped,
}

/// Deletes what a replica need not keep. See the module's documentation and [`Machine`].
#[derive(Clone, PartialEq, Debug)]
pub struct Retainer {
    pub(super) config: RetainConfig,
    pub(super) pass: RetainPass,
    pub(super) flight: Flight<Key>,
    listings: Listings,
    pub(super) step: Step,
    grant: Option<OpId>,
    due: Option<Mono>,
    /// No pass before this.
    not_before: Option<Mono>,
    failures: u32,
    trouble: Option<String>,
    /// When the newest object was written by the store's clock, and since when that is known.
    newest: Option<(Wall, Mono)>,
    /// What time it was when that was asked last.
    last: Option<(Wall, Mono)>,
    /// What this pass found.
    pub(super) files: Vec<Listed>,
    pub(super) epochs: Epochs,
    pub(super) plan: RetainPlan,
    /// What was read whole and is of this history.
    verified: BTreeSet<Object>,
    /// What covers nothing.
    refused: BTreeSet<Object>,
    removed: Vec<Removal>,
    /// What files of this pass have named.
    dictionaries: Dictionaries,
}

impl Retainer {
    /// A retainer that has not begun; `ids` are of a run of its own.
    pub fn new(config: RetainConfig, pass: RetainPass, ids: OpIds) -> Retainer {
        let flight = Flight::new(ids, config.store_deadline);
        Retainer {
            config,
            pass,
            flight,
            listings: Listings::default(),
            step: Step::Idle,
            grant: None,
            due: None,
            not_before: None,
            failures: 0,
            trouble: None,
            newest: None,
            last: None,
            files: Vec::new(),
            epochs: Epochs::default(),
            plan: RetainPlan::default(),
            verified: BTreeSet::new(),
            refused: BTreeSet::new(),
            removed: Vec::new(),
            dictionaries: Dictionaries::default(),
        }
    }

    /// The compactor has made a file, by which others may go in a while.
    pub(crate) fn compacted(&mut self, now: Now) {
        let at = now.mono.after(self.config.l0_retention + SLACK);
        self.due = self.due.or(Some(at)).max(self.not_before);
    }

    /// Gives up whatever is under way, for good.
    pub(crate) fn let_go(&mut self, out: &mut Actions) {
        self.flight.cancel_all(out);
        if let Step::Check { job: Some(op), .. } = self.step {
            out.push(Action::Cancel { op });
        }
        if let (Step::AwaitGrant, Some(op)) = (&self.step, self.grant.take()) {
            out.push(Action::Cancel { op });
        }
        self.give_back(out);
        self.step = Step::Stopped;
    }

    fn give_back(&mut self, out: &mut Actions) {
        if let Some(grant) = self.grant.take() {
            self.flight.submit(Request::Grant(GrantRequest::Return { grant }), out);
        }
    }

    fn begin(&mut self, now: Now, out: &mut Actions) {
        self.due = None;
        self.removed.clear();
        self.step = Step::List;
        self.listings = Listings::default();
        self.listings.begin(now, Key::List, &mut self.flight, out);
    }

    /// The time by which files are old: never later than our own clock has it, or the store's with what has
    /// passed since it wrote; nor further on from the last pass than the clock says that nobody sets.
    pub(super) fn today(&mut self, now: Now) -> Option<Wall> {
        let newest = self.files.iter().filter_map(|file| file.modified).max()?;
        if self.pass != RetainPass::Following || mutant::on(Mutant::WallClockTrusted) {
            return Some(now.wall);
        }
        let later = |at: Wall, since: Mono| {
            let passed = i64::try_from(now.mono.since(since).as_millis()).unwrap_or(i64::MAX);
            Wall(at.0.saturating_add(passed))
        };
        let known = self.newest.filter(|(at, _)| *at == newest);
        let (_, seen) = *self.newest.insert(known.unwrap_or((newest, now.mono)));
        let by_store = later(newest, seen).min(now.wall);
        let today = self.last.map_or(by_store, |(last, at)| by_store.min(later(last, at)));
        self.last = Some((today, now.mono));
        Some(today)
    }

    fn plan(&mut self, now: Now, out: &mut Actions) {
        let Some(today) = self.today(now) else {
            if !self.files.is_empty() {
                let text = "the store does not say when objects were written: nothing is deleted".to_string();
                out.notify(Severity::Warn, Fact::Remark { text });
            }
            return self.finish(now, None, out);
        };
        let times =
            Times { now: today, snapshot: self.config.snapshot_retention, grace: self.config.l0_retention };
        self.plan = plan_retention(&self.files, &self.refused, self.config.top, times);
        self.go_on(now, today, out);
    }

    /// The next thing to do of what is planned.
    pub(super) fn go_on(&mut self, now: Now, today: Wall, out: &mut Actions) {
        let stays = |it: &Retainer| {
            let first = it.plan.removals.first();
            first.is_some_and(|first| it.unknown_epoch(first).is_none() && it.is_kept(first, today))
        };
        while stays(self) {
            self.passes_over();
        }
        let Some(first) = self.plan.removals.first() else {
            let wait = self.plan.next.map(|next| next.0.saturating_sub(today.0));
            let wait = wait.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)) + SLACK);
            return self.finish(now, wait.map(|wait| wait.max(self.config.l0_retention)), out);
        };
        let cover = first.because.cover();
        if !self.verified.contains(&cover) && !mutant::on(Mutant::CoverUnread) {
            return self.check(cover);
        }
        if let Some(object) = self.unknown_epoch(first) {
            return self.look_at_epoch(now, object, out);
        }
        let block = self.block(today);
        if let RetainPass::Once { dry_run: true } = self.pass {
            self.removed.extend(self.plan.removals.drain(..block));
            return self.go_on(now, today, out);
        }
        for removal in &self.plan.removals[..block] {
            self.flight.send(now, Key::Delete, StoreRequest::Delete { object: removal.file.object }, out);
        }
        self.step = Step::Delete { block, left: block };
    }

    /// Reads what covers, whole.
    fn check(&mut self, cover: Object) {
        let listed = self.files.iter().find(|file| file.object == cover);
        let listed = *listed.expect("what covers was listed");
        let pending_byte = self.config.pending_byte;
        let stream = Stream::new(Purpose::Check, Wins::default(), pending_byte, &self.dictionaries);
        self.step = Step::Check { reader: Box::new(Reader::new(listed, stream)), job: None };
    }

    /// How many removals go at once: of one level, under one cover, and of fewer transactions than a writer
    /// looks back.
    fn block(&self, today: Wall) -> usize {
        let first = &self.plan.removals[0];
        let low = first.file.object.range.min().get();
        let joins = |removal: &&Removal| {
            removal.file.object.level == first.file.object.level
                && removal.because == first.because
                && (first.file.object.level != Level::CAPTURES
                    || removal.file.object.range.max().get() - low < TENURE_BACK)
                && self.unknown_epoch(removal).is_none()
                && !self.is_kept(removal, today)
        };
        self.plan.removals.iter().take(DELETES_MAX).take_while(joins).count().max(1)
    }

    fn deleted(&mut self, now: Now, out: &mut Actions) {
        let Step::Delete { block, left } = &mut self.step else { return };
        *left -= 1;
        if *left > 0 {
            return;
        }
        let block = *block;
        if self.plan.removals[0].file.object.level != Level::CAPTURES || mutant::on(Mutant::DeleteBelieved) {
            return self.gone(now, block, out);
        }
        self.step = Step::Confirm { block };
        // What stays before the block is passed over.
        let first = self.plan.removals[0].file.object;
        let captures = self.files.iter().map(|file| file.object).filter(|it| it.level == Level::CAPTURES);
        let after = captures.map(|it| it.range).filter(|range| *range < first.range).max();
        let request = StoreRequest::List { level: Level::CAPTURES, after, limit: 1 };
        self.flight.send(now, Key::Gone, request, out);
    }

    /// The first of level 0 that is still there.
    fn confirmed(&mut self, now: Now, entries: &[Listed], out: &mut Actions) {
        let Step::Confirm { block } = self.step else { return };
        let last = self.plan.removals[block - 1].file.object;
        match entries.first() {
            Some(first) if first.object.range <= last.range => {
                let text = format!("{} was deleted, and is listed still", first.object);
                self.fail(now, text, String::new(), true, out);
            }
            _ => self.gone(now, block, out),
        }
    }

    fn gone(&mut self, now: Now, block: usize, out: &mut Actions) {
        let gone: Vec<Removal> = self.plan.removals.drain(..block).collect();
        let objects: BTreeSet<Object> = gone.iter().map(|removal| removal.file.object).collect();
        self.files.retain(|file| !objects.contains(&file.object));
        self.removed.extend(gone);
        let today = self.today(now).unwrap_or(now.wall);
        self.go_on(now, today, out);
    }

    /// More of what covers was read.
    fn checked(&mut self, now: Now, stream: Box<Stream>, next: Next, out: &mut Actions) {
        let Step::Check { reader, job } = &mut self.step else { return };
        *job = None;
        let cover = reader.listed.object;
        match next {
            Next::Bytes | Next::More => reader.back(stream, &next),
            Next::Failed(LtxError::Dictionary { id }) if !self.dictionaries.has(id) => {
                self.flight.cancel_all(out);
                self.step = Step::Dictionary { cover };
                self.flight.send(now, Key::Dictionary(id), StoreRequest::GetDictionary { id }, out);
            }
            Next::Failed(error) => self.refuse(now, cover, &error.to_string(), out),
            Next::End(_) => {
                let header = *stream.header().expect("a file that ends has a header");
                self.flight.cancel_all(out);
                if header.range != cover.range {
                    return self.refuse(now, cover, "its header names other transactions", out);
                }
                let Some(witness) = self.witness(cover) else { return self.proven(now, cover, out) };
                let (Witness::Ends(object) | Witness::Follows(object)) = witness;
                self.step = Step::Link { cover, header: Box::new(header), witness };
                let range = ByteRange::At { offset: 0, len: LTX_HEADER_BYTES as u64 };
                self.flight.send(now, Key::Witness, StoreRequest::Get { object, range }, out);
            }
        }
    }

    pub(super) fn proven(&mut self, now: Now, cover: Object, out: &mut Actions) {
        self.verified.insert(cover);
        let today = self.today(now).unwrap_or(now.wall);
        self.go_on(now, today, out);
    }

    /// What is not sound covers nothing, and the plan is made without it.
    pub(super) fn refuse(&mut self, now: Now, cover: Object, why: &str, out: &mut Actions) {
        self.flight.cancel_all(out);
        if self.refused.insert(cover) {
            let text = format!(
                "{cover} is not sound: {why}; nothing is deleted on its account (run driftless verify on the replica)"
            );
            out.notify(Severity::Error, Fact::Remark { text });
        }
        self.plan(now, out);
    }

    /// The pass has done what there was to do.
    fn finish(&mut self, now: Now, wait: Option<Duration>, out: &mut Actions) {
        if !self.removed.is_empty() && self.pass == RetainPass::Following {
            let bytes = self.removed.iter().map(|removal| removal.file.len).sum();
            out.notify(Severity::Info, Fact::Retained { objects: self.removed.len() as u32, bytes });
        }
        (self.failures, self.trouble, self.not_before) = (0, None, None);
        self.due = wait.map(|wait| now.mono.after(wait)).into_iter().chain(self.due).min();
        if let RetainPass::Once { .. } = self.pass {
            return self.end(Exit::Done, out);
        }
        let listed: BTreeSet<Object> = self.files.iter().map(|file| file.object).collect();
        // Of what covers only a snapshot is needed again.
        self.verified.retain(|object| object.level == Level::SNAPSHOTS && listed.contains(object));
        self.refused.retain(|object| listed.contains(object));
        self.rest(out);
    }

    fn rest(&mut self, out: &mut Actions) {
        self.flight.cancel_all(out);
        self.give_back(out);
        self.forget_epochs();
        self.files = Vec::new();
        self.plan = RetainPlan::default();
        self.dictionaries = Dictionaries::default();
        if self.pass == RetainPass::Following {
            self.removed = Vec::new();
        }
        self.step = Step::Idle;
    }

    fn end(&mut self, exit: Exit, out: &mut Actions) {
        self.rest(out);
        self.step = Step::Stopped;
        out.push(Action::Stopped(exit));
    }

    /// Says why a pass did not come to its end, and when the next one is.
    fn fail(&mut self, now: Now, text: String, hint: String, passing: bool, out: &mut Actions) {
        if let RetainPass::Once { .. } = self.pass {
            return self.end(Exit::Failed { error: text, hint }, out);
        }
        self.failures += 1;
        let known = self.trouble.replace(text.clone()).is_some_and(|before| before == text);
        let wait = REST_MIN.saturating_mul(1 << self.failures.min(8)).min(REST_MAX);
        let at = now.mono.after(wait);
        self.not_before = Some(at);
        let what = "deleting what is covered".to_string();
        if passing && self.failures < TRIES_MAX {
            self.due = Some(at);
            let wait_ms = wait.as_millis() as u64;
            out.notify(Severity::Warn, Fact::Retrying { what, error: text, hint, wait_ms });
        } else {
            self.due = None;
            if !known {
                let hint = if hint.is_empty() { hint } else { format!(" ({hint})") };
                let text = format!("{what} has failed, and waits until more is compacted: {text}{hint}");
                out.notify(Severity::Error, Fact::Remark { text });
            }
        }
        self.rest(out);
    }

    fn store_failed(&mut self, now: Now, what: &str, error: StoreError, out: &mut Actions) {
        if let RetainPass::Once { .. } = self.pass {
            return self.end(exit_of(what, &error), out);
        }
        use StoreErrorKind::{Denied, Misconfigured, Unsupported};
        let passing = !matches!(error.kind, Denied | Misconfigured | Unsupported);
        let hint = match error.kind {
            Denied if error.hint.is_empty() => {
                "give the right to delete, or set retention.enabled: false".to_string()
            }
            _ => error.hint,
        };
        self.fail(now, format!("{what}: {}", error.text), hint, passing, out);
    }

    fn landed(&mut self, now: Now, (key, result): Landed<Key>, out: &mut Actions) {
        let what = match (key, &self.step) {
            (Key::List, Step::List) => "list the replica",
            (Key::Piece(_), Step::Check { .. }) | (Key::Witness, Step::Link { .. }) => "read what covers",
            (Key::Epoch, Step::Epoch { .. }) => "read a header of level 0",
            (Key::Dictionary(_), Step::Dictionary { .. }) => "read a dictionary",
            (Key::Delete, Step::Delete { .. }) => "delete",
            (Key::Gone, Step::Confirm { .. }) => "list level 0",
            _ => return,
        };
        match (key, result) {
            (Key::List, Ok(StoreReply::Listing { entries, more })) => {
                let page = (entries, more);
                match self.listings.take(now, Key::List, page, &mut self.flight, out) {
                    Ok(None) => {}
                    Ok(Some(files)) => {
                        self.files = files;
                        self.plan(now, out);
                    }
                    Err(Exit::Failed { error, hint }) => self.fail(now, error, hint, true, out),
                    Err(exit) => unreachable!("a listing does not end in {exit:?}"),
                }
            }
            (Key::Piece(offset), Ok(StoreReply::Bytes { bytes, .. })) => {
                if let Step::Check { reader, .. } = &mut self.step {
                    reader.arrived(offset, bytes);
                }
            }
            (Key::Dictionary(id), Ok(StoreReply::Bytes { bytes, .. })) => {
                let Step::Dictionary { cover } = self.step else { return };
                match Dictionary::read(id, &bytes) {
                    Ok(dictionary) => {
                        self.dictionaries.add(dictionary);
                        self.check(cover);
                    }
                    Err(text) => self.refuse(now, cover, &text, out),
                }
            }
            (Key::Dictionary(id), Err(error)) if error.kind == StoreErrorKind::NotFound => {
                let Step::Dictionary { cover } = self.step else { return };
                self.refuse(now, cover, &format!("dictionary {id} is missing"), out);
            }
            (Key::Witness, Ok(StoreReply::Bytes { bytes, .. })) => self.linked(now, &bytes, out),
            (Key::Epoch, Ok(StoreReply::Bytes { bytes, .. })) => self.told_epoch(now, &bytes, out),
            (Key::Epoch, Err(error)) if error.kind == StoreErrorKind::NotFound => {
                self.told_epoch(now, &[], out);
            }
            (Key::Delete, Ok(StoreReply::Done)) => self.deleted(now, out),
            (Key::Delete, Err(error)) if error.kind == StoreErrorKind::NotFound => self.deleted(now, out),
            (Key::Gone, Ok(StoreReply::Listing { entries, .. })) => self.confirmed(now, &entries, out),
            (key, Ok(reply)) => unreachable!("{key:?} is not answered by {reply:?}"),
            (_, Err(error)) => self.store_failed(now, what, error, out),
        }
    }

    fn pump(&mut self, now: Now, out: &mut Actions) {
        match &mut self.step {
            Step::Idle if self.due.is_some_and(|at| at <= now.mono) => {
                let request = Request::Grant(GrantRequest::Take(Budget::Compaction));
                self.grant = Some(self.flight.submit(request, out));
                self.step = Step::AwaitGrant;
            }
            Step::Check { reader, job } => {
                reader.read_ahead(now, &mut self.flight, READS_MAX, Key::Piece, out);
                if let Some(next) = reader.next_job() {
                    *job = Some(self.flight.submit(Request::Compute(Job::Restore(next)), out));
                }
            }
            _ => {}
        }
    }

    fn completed(&mut self, now: Now, op: OpId, outcome: Outcome, out: &mut Actions) {
        match outcome {
            Outcome::Granted if self.grant == Some(op) && self.step == Step::AwaitGrant => {
                self.begin(now, out);
            }
            Outcome::Store(result) => {
                if let Some(landed) = self.flight.landed(now, op, result, out) {
                    self.landed(now, landed, out);
                }
            }
            Outcome::Compute(JobOutput::Restore(RestoreOutput::Stream { stream, next, .. })) if matches!(self.step, Step::Check { job, .. } if job == Some(op)) =>
            {
                self.checked(now, stream, next, out);
            }
            _ => {}
        }
    }
}

impl Machine for Retainer {
    type Status = RetainStatus;

    fn handle(&mut self, now: Now, event: Event, out: &mut Actions) {
        if self.step == Step::Stopped {
            return;
        }
        match event {
            Event::Start { entropy } => {
                self.flight.seed(entropy);
                if let RetainPass::Once { .. } = self.pass {
                    self.begin(now, out);
                }
            }
            Event::Tick => {
                for landed in self.flight.tick(now, out) {
                    self.landed(now, landed, out);
                }
            }
            Event::Shutdown { .. } => {
                self.let_go(out);
                return out.push(Action::Stopped(Exit::Done));
            }
            Event::Completed { op, outcome } => self.completed(now, op, outcome, out),
            _ => {}
        }
        if self.step != Step::Stopped {
            self.pump(now, out);
        }
    }

    fn next_deadline(&self) -> Option<(Mono, Reason)> {
        if self.step == Step::Stopped {
            return None;
        }
        let due = self.due.filter(|_| self.step == Step::Idle).map(|at| (at, Reason::Retain));
        [due, self.flight.next_deadline()].into_iter().flatten().min()
    }

    fn status(&self) -> RetainStatus {
        RetainStatus {
            passing: !matches!(self.step, Step::Idle | Step::Stopped),
            removed: self.removed.clone(),
            trouble: self.trouble.clone(),
        }
    }
}
