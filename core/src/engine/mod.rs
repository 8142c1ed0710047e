//! The replicator: one database, one replica.
//!
//! Three machines share the state here and each has at most one request under way:
//!
//! - *boot* finds the replica's end and decides who we are to it;
//! - the *source* side holds the pin, captures, checkpoints, seals and lets go;
//! - the *upload* side encodes one segment at a time and puts it, strictly in order.
//!
//! After each event `Replicator::pump` asks each idle side what it should do next. A *base* (a
//! survey of the whole database, then a segment with every page or with those that differ) uses
//! both sides and excludes the others' work while it lasts.
//!
//! What can be lost here, and what prevents it: a frame that vanishes before it is captured (the
//! pins of `pin.rs`, moved by overlap only), a frame captured that was never committed (only
//! frames up to the wal-index's `mxFrame` are read), a segment that misses pages (`pending.rs`
//! checks), a history with two writers (`standing.rs`, and create-if-absent on each put).

mod adoption;
mod base;
mod boot;
mod config;
mod dictionary;
mod ghost;
mod history;
mod pending;
mod pin;
mod source;
mod standing;
mod status;
mod synced;
mod upload;
mod verdict;

pub use config::{Compression, Config, LATE_PUT};
pub use dictionary::{Best, TrainJob, TrainOutput};
pub use history::{History, Journal, PageTable, Point, Record, Step};
pub(crate) use standing::decode_header;
pub use standing::{
    Admission, Claims, Continuity, Head, Sighting, Standing, plan_admission, plan_continuity, plan_header,
    plan_standing,
};
pub use status::{Phase, Resting, Status, Waiting};

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use crate::ids::{DbChecksum, Mono, Now, Txid};
use crate::machine::{
    Action, Actions, Event, Exit, Fact, Machine, OpId, OpIds, Outcome, Reason, ReplicaId, Request, Severity,
    StateReply, StateRequest, StoreError, StoreReply,
};

use crate::mutant::{self, Mutant};
use crate::probe::{Finding, Findings};

use self::adoption::Adoption;
use self::base::Base;
use self::boot::Boot;
use self::dictionary::DictionarySide;
use self::pending::Pending;
use self::source::Source;
use self::synced::Synced;
use self::upload::Upload;

/// Whether the replicator goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Life {
    Running,
    /// Finish what is committed, then stop; give up at the deadline.
    Draining {
        deadline: Option<Mono>,
    },
    Stopped,
}

/// Why the whole database must be read.
#[derive(Clone, PartialEq, Eq, Debug)]
struct BaseWanted {
    /// The reason, for people.
    why: String,
    /// Write every page even if a page table could name those that differ.
    full: bool,
    /// First show that the source is in the head's state; without that, fenced.
    prove: bool,
    /// Whether failing to prove it is the end, or only means a full base.
    fence: bool,
    /// The proof failed at the place that the head names: try the state as it is now.
    at_end: bool,
}

/// Keeps one database on one replica. See the module's documentation and [`Machine`].
#[derive(Clone, PartialEq, Debug)]
pub struct Replicator {
    config: Config,
    ops: OpIds,
    entropy: u64,
    life: Life,
    boot: Boot,
    source: Source,
    pending: Pending,
    upload: Upload,
    base: Option<Base>,
    base_wanted: Option<BaseWanted>,
    base_retry: Retry,
    /// The next base keeps its pin to its end: nothing could be put aside beside the last.
    base_stays: bool,
    /// The last base had a page that was not as it was surveyed.
    base_differed: bool,
    /// Scratch files that have been used.
    scratch_files: u64,
    /// Until something of ours stands on a replica that it was told to adopt.
    adoption: Option<Adoption>,
    /// A segment of this run stands on the replica.
    succeeded: bool,
    /// Post-states of streamed bases that were sent as the next transaction and may yet land.
    tried: Vec<DbChecksum>,
    /// Pages whose images were given up; all that a base wanted for them need read.
    dirty: Option<BTreeSet<u32>>,
    history: History,
    head: Option<Head>,
    journal: JournalState,
    dictionary: DictionarySide,
    synced: Synced,
    waiting: Option<Waiting>,
    last_error: Option<Failure>,
    /// What the probe found out about the store.
    store: Findings,
    /// Removing what unfinished puts have left; nobody waits for it.
    cleanup: Option<OpId>,
    /// What a person should know of the application's SQLite.
    warning: Option<String>,
    /// Frames captured in all, ever growing.
    frames_captured: u64,
    /// How many of those are on the replica.
    frames_replicated: u64,
    /// Since when something is committed that is not on the replica.
    behind_since: Option<Mono>,
}

/// A failure in words.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Failure {
    text: String,
    /// What a person can do; empty where nothing is known to help.
    hint: String,
}

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Failure {
        Failure { text: error.text.clone(), hint: error.hint.clone() }
    }
}

/// A failed request's way back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Retry {
    attempts: u32,
    at: Option<Mono>,
}

impl Retry {
    /// The next wait: doubling from a tenth of a second to ten, spread by a quarter.
    fn fail(&mut self, now: Mono, entropy: u64) -> Duration {
        self.fail_within(now, entropy, config::RETRY_MAX)
    }

    /// The same, and no longer than `longest`.
    fn fail_within(&mut self, now: Mono, entropy: u64, longest: Duration) -> Duration {
        let doubled = config::RETRY_FIRST.saturating_mul(1 << self.attempts.min(10)).min(longest);
        let wait = doubled - doubled.mul_f32((entropy % 256) as f32 / 1024.0);
        self.attempts += 1;
        self.at = Some(now.after(wait));
        wait
    }

    /// Tries again as soon as may be.
    fn hasten(&mut self, now: Mono) {
        self.at = self.at.map(|at| at.min(now));
    }

    fn due(&self, now: Mono) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    fn clear(&mut self) -> bool {
        let failed = self.attempts > 0;
        *self = Retry::default();
        failed
    }
}

/// The journal's size and trouble.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct JournalState {
    bytes: u64,
    bytes_after_rewrite: u64,
    /// An append failed: what is on disk has a hole, and only a rewrite mends it.
    broken: bool,
    /// A request that nobody waits for.
    op: Option<OpId>,
    /// Whether that request is a rewrite.
    rewriting: bool,
    retry: Retry,
}

impl Replicator {
    /// A replicator that has not begun. `run` is a number that differs from those of all runs
    /// before, such as a random one.
    pub fn new(replica: ReplicaId, run: u64, config: Config) -> Replicator {
        let pending = Pending::new(config.pending_bytes_max, 0);
        Replicator {
            config,
            ops: OpIds::new(replica, run),
            entropy: run,
            life: Life::Running,
            boot: Boot::NotStarted,
            source: Source::new(),
            pending,
            upload: Upload::Idle,
            base: None,
            base_wanted: None,
            base_retry: Retry::default(),
            base_stays: false,
            base_differed: false,
            scratch_files: 0,
            adoption: None,
            succeeded: false,
            tried: Vec::new(),
            dirty: None,
            history: History::default(),
            head: None,
            journal: JournalState::default(),
            dictionary: DictionarySide::default(),
            synced: Synced::default(),
            waiting: None,
            last_error: None,
            store: Findings::default(),
            cleanup: None,
            warning: None,
            frames_captured: 0,
            frames_replicated: 0,
            behind_since: None,
        }
    }

    /// The next pseudo-random number (splitmix64), from what the host gave at the start.
    fn draw(&mut self) -> u64 {
        let hidden = if mutant::on(Mutant::HiddenState) { mutant::noise() } else { 0 };
        self.entropy = self.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(hidden);
        let mut z = self.entropy;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn submit(&mut self, request: Request, out: &mut Actions) -> OpId {
        self.ops.submit(request, out)
    }

    fn stop(&mut self, exit: Exit, out: &mut Actions) {
        if self.life != Life::Stopped {
            self.life = Life::Stopped;
            out.push(Action::Stopped(exit));
        }
    }

    /// Whether it comes after another writer, and that one may still go on.
    fn is_unfenced(&self) -> bool {
        self.config.succeeds && !self.succeeded
    }

    /// The earliest transaction that is not on the replica.
    fn next_txid(&self) -> Txid {
        self.history.next_txid()
    }

    fn draining(&self) -> bool {
        matches!(self.life, Life::Draining { .. })
    }

    /// The longest wait before a failed request of the store is tried again: the final sync has no
    /// time for long ones.
    fn store_retry_max(&self) -> Duration {
        if self.draining() {
            self.config.shutdown_sync_interval.min(config::RETRY_MAX)
        } else {
            config::RETRY_MAX
        }
    }

    /// Ends every wait for the store.
    fn hasten_store(&mut self, now: Mono) {
        self.boot_hasten(now);
        self.upload.hasten(now);
        self.base_retry.hasten(now);
    }

    fn complete(&mut self, now: Now, op: OpId, outcome: Outcome, out: &mut Actions) {
        if self.boot.awaits(op) {
            self.boot_completed(now, outcome, out);
        } else if self.base.as_ref().is_some_and(|base| base.awaits(op)) {
            self.base_completed(now, op, outcome, out);
        } else if self.source.awaits(op) {
            self.source_completed(now, outcome, out);
        } else if self.upload.awaits(op) {
            self.upload_completed(now, outcome, out);
        } else if self.journal.op == Some(op) {
            self.journal.op = None;
            self.journal_ended(now, outcome, out);
        } else if self.dictionary_awaits(op) {
            self.dictionary_completed(now, outcome, out);
        } else if self.cleanup == Some(op) {
            self.cleanup = None;
            self.cleaned_up(outcome, out);
        }
    }

    /// Asks each idle side what it should do next, until none finds anything.
    fn pump(&mut self, now: Now, out: &mut Actions) {
        for _ in 0..16 {
            if matches!(self.life, Life::Stopped) {
                return;
            }
            let more = self.boot_pump(now, out)
                || self.upload_pump(now, out)
                || self.base_pump(now, out)
                || self.source_pump(now, out)
                || self.journal_pump(now, out)
                || self.dictionary_pump(now, out);
            if !more && self.once_finds_nothing() {
                self.once_is_done();
            } else if !more {
                break;
            }
        }
        self.check_drained(now, out);
    }

    /// With `-once`: whether the replica already has what is committed, so that no upload will come
    /// whose end could be the end.
    fn once_finds_nothing(&self) -> bool {
        let idle = matches!(self.upload, Upload::Idle) && self.base.is_none() && self.journal.op.is_none();
        let as_we_left_it = self.source.is_drained();
        let captured = self.source.is_following() && self.source.is_idle() && self.frames_behind() == 0;
        self.config.once
            && !self.draining()
            && self.boot.is_done()
            && idle
            && self.history.point.is_some()
            && self.base_wanted.is_none()
            && self.pending.is_empty()
            && (as_we_left_it || captured)
    }

    /// Appends a record that the caller waits for.
    fn append(&mut self, record: &Record, out: &mut Actions) -> OpId {
        let bytes = record.encode();
        self.journal.bytes += bytes.len() as u64;
        self.submit(Request::State(StateRequest::Append(bytes)), out)
    }

    fn journal_failed(&mut self, error: String, out: &mut Actions) {
        if !self.journal.broken {
            out.notify(Severity::Warn, Fact::StateTrouble { error });
        }
        self.journal.broken = true;
    }

    /// Rewrites the journal when it has grown, or has a hole, and nothing else is under way.
    fn journal_pump(&mut self, now: Now, out: &mut Actions) -> bool {
        let journal = &self.journal;
        let limit = journal.bytes_after_rewrite.saturating_mul(2).saturating_add(config::JOURNAL_SLACK);
        let wanted = (journal.broken && journal.retry.due(now.mono)) || journal.bytes > limit;
        if !wanted || !self.journal_may_rewrite() {
            return false;
        }
        let records = Journal::rewrite(&self.history);
        self.journal.bytes = records.iter().map(|r| r.len() as u64).sum();
        self.journal.bytes_after_rewrite = self.journal.bytes;
        self.journal.op = Some(self.submit(Request::State(StateRequest::Rewrite(records)), out));
        self.journal.rewriting = true;
        true
    }

    /// Whether nothing is under way that writes or depends on the journal.
    fn journal_may_rewrite(&self) -> bool {
        let idle = matches!(self.upload, Upload::Idle) && self.base.is_none() && self.boot.is_done();
        idle && self.journal.op.is_none() && self.history.lineage.is_some() && !self.is_on_trial()
    }

    fn journal_ended(&mut self, now: Now, outcome: Outcome, out: &mut Actions) {
        let rewritten = core::mem::take(&mut self.journal.rewriting);
        match outcome {
            Outcome::State(Ok(StateReply::Done)) if !rewritten => {}
            Outcome::State(Ok(StateReply::Done)) => {
                if core::mem::take(&mut self.journal.broken) {
                    out.notify(Severity::Info, Fact::Recovered { what: "local state".into() });
                }
                self.journal.retry.clear();
            }
            Outcome::State(Err(error)) => {
                let draw = self.draw();
                self.journal.retry.fail(now.mono, draw);
                self.journal_failed(error, out);
            }
            other => unreachable!("the journal answers with its own outcomes, not {other:?}"),
        }
    }

    /// Whether a request to the journal is under way: none may overtake another.
    fn journal_busy(&self) -> bool {
        self.journal.op.is_some()
    }

    /// Whether the time for the final sync is over by then.
    fn stops_before(&self, at: Mono) -> bool {
        matches!(self.life, Life::Draining { deadline: Some(deadline) } if deadline <= at)
    }

    fn check_drained(&mut self, now: Now, out: &mut Actions) {
        let Life::Draining { deadline } = self.life else { return };
        let idle = matches!(self.upload, Upload::Idle) && self.base.is_none() && self.journal.op.is_none();
        let finished = self.boot.is_done()
            && idle
            && self.base_wanted.is_none()
            && self.pending.is_empty()
            && self.waiting.is_none()
            && self.source.is_drained();
        if finished {
            return self.stop(Exit::Done, out);
        }
        // What was waited for may be there by now: that opening it has failed says nothing of it.
        let waits = |waiting: &Waiting| waiting.unseen || self.source.is_drained();
        let nothing_there = self.boot.is_done()
            && idle
            && self.source.is_detached()
            && self.waiting.as_ref().is_some_and(waits);
        if nothing_there && self.pending.is_empty() {
            let exit = self.exit_waiting();
            return self.stop(exit, out);
        }
        if deadline.is_some_and(|deadline| deadline <= now.mono) {
            let exit = self.exit_unreplicated("the time allowed for the final sync is over");
            self.stop(exit, out);
        }
    }

    /// Stopping while the source cannot be replicated: whether that leaves something behind.
    fn exit_waiting(&self) -> Exit {
        let waiting = self.waiting.clone().expect("checked by the caller");
        if !waiting.unseen {
            return Exit::Done;
        }
        // Not counted, since nothing could be read: the transactions are there or they are not.
        Exit::Unreplicated { from: self.next_txid(), frames: 0, error: waiting.why }
    }

    fn exit_unreplicated(&self, why: &str) -> Exit {
        let error = match &self.last_error {
            Some(error) => format!("{why}; the last failure was: {}", error.text),
            None => why.to_string(),
        };
        Exit::Unreplicated { from: self.next_txid(), frames: self.frames_behind(), error }
    }

    /// Frames committed that are not on the replica, as far as the wal-index told.
    fn frames_behind(&self) -> u64 {
        self.frames_captured - self.frames_replicated + u64::from(self.source.frames_uncaptured())
    }

    fn note_behind(&mut self, now: Mono) {
        if self.frames_behind() == 0 && self.base_wanted.is_none() && self.base.is_none() {
            self.behind_since = None;
        } else {
            self.behind_since.get_or_insert(now);
        }
    }
}

impl Machine for Replicator {
    type Status = Status;

    fn handle(&mut self, now: Now, event: Event, out: &mut Actions) {
        if self.life == Life::Stopped {
            return;
        }
        match event {
            Event::Start { entropy } => {
                self.entropy ^= entropy;
                self.boot_start(out);
            }
            Event::Tick => self.check_deadlines(now, out),
            Event::SourceChanged => self.source.changed(now.mono),
            Event::SyncNow => {
                self.synced.want(now.mono);
                self.source.changed(now.mono);
                self.source.look_by(now.mono);
            }
            Event::Shutdown { deadline } => match self.life {
                Life::Draining { .. } if !self.config.once => {
                    let exit = self.exit_second_signal();
                    self.stop(exit, out);
                }
                _ => {
                    self.config.once = false;
                    self.life = Life::Draining { deadline: Some(deadline) };
                    self.source.drain(now.mono);
                    self.hasten_store(now.mono);
                }
            },
            Event::StoreProbed(findings) => self.store_probed(findings, out),
            // The replicator is who says so.
            Event::Stored { .. } | Event::Lease(_) => {}
            Event::Completed { op, outcome } => self.complete(now, op, outcome, out),
        }
        self.pump(now, out);
        self.note_behind(now.mono);
        self.note_synced();
    }

    fn next_deadline(&self) -> Option<(Mono, Reason)> {
        if self.life == Life::Stopped {
            return None;
        }
        let shutdown = match self.life {
            Life::Draining { deadline } => deadline.map(|at| (at, Reason::Shutdown)),
            _ => None,
        };
        let journal =
            if self.journal_may_rewrite() && self.journal.broken { self.journal.retry.at } else { None };
        [
            shutdown,
            self.boot_deadline(),
            self.upload_deadline(),
            self.base_deadline(),
            self.dictionary_deadline(),
            self.source_deadline(),
            journal.map(|at| (at, Reason::Retry)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn status(&self) -> Status {
        self.make_status()
    }
}

impl Replicator {
    fn exit_second_signal(&self) -> Exit {
        let replicated = self.pending.is_empty() && self.upload_is_idle() && self.base_wanted.is_none();
        let known = self.boot.is_done() && self.source.is_drained();
        if replicated && (known || mutant::on(Mutant::SecondSignalDone)) {
            Exit::Done
        } else {
            self.exit_unreplicated("stopped by a second signal before the final sync had ended")
        }
    }

    fn cleaned_up(&self, outcome: Outcome, out: &mut Actions) {
        let (severity, text) = match outcome {
            Outcome::Store(Ok(StoreReply::Dropped(0))) => return,
            Outcome::Store(Ok(StoreReply::Dropped(n))) => (
                Severity::Info,
                format!("removed {n} uploads that were begun a day ago or more and never finished"),
            ),
            Outcome::Store(Err(error)) => {
                (Severity::Debug, format!("unfinished uploads were not looked for: {}", error.text))
            }
            other => unreachable!("the store does not answer with {other:?}"),
        };
        out.notify(severity, Fact::Remark { text });
    }

    fn store_probed(&mut self, findings: Findings, out: &mut Actions) {
        self.store = findings;
        let broken = matches!(findings.create_if_absent, Finding::Ignored | Finding::Unsupported);
        if broken && self.config.create_if_absent {
            self.config.create_if_absent = false;
            let text = "the store does not refuse to replace an object: a second writer on this replica \
                        would not be noticed in time, and failover is not possible"
                .to_string();
            out.notify(Severity::Warn, Fact::Remark { text });
        }
    }

    fn check_deadlines(&mut self, now: Now, out: &mut Actions) {
        self.boot_tick(now, out);
        self.upload_tick(now, out);
        self.base_tick(now, out);
        self.dictionary_tick(now, out);
    }
}
