//! The validator: when it is time, one verification after the other.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::{FAULTS_MAX, ValidateConfig, ValidateStatus, Validated};
use crate::compact::due;
use crate::ids::{Mono, Now, Txid};
use crate::machine::{
    Action, Actions, Budget, Event, Exit, Fact, GrantRequest, Machine, Notice, OpId, OpIds, Outcome, Reason,
    Request, Severity, Verdict,
};
use crate::verify::{Verifier, VerifyConfig};

/// Reads under way at once: what is replicated beside them comes first.
const READS_MAX: usize = 2;
/// The wait after a validation that could not be done, doubled with each.
const AGAIN_FIRST: Duration = Duration::from_secs(60);
/// The longest.
const AGAIN_MAX: Duration = Duration::from_secs(30 * 60);

#[derive(Clone, PartialEq, Debug)]
enum Step {
    Idle,
    /// Its turn among the databases of the process is waited for.
    AwaitGrant(OpId),
    Verify {
        grant: OpId,
        verifier: Box<Verifier>,
    },
    Stopped,
}

/// Validates one replica again and again. See the module's documentation and [`Machine`].
#[derive(Clone, PartialEq, Debug)]
pub struct Validator {
    config: ValidateConfig,
    ids: OpIds,
    entropy: u64,
    step: Step,
    due: Option<Mono>,
    /// Validations that could not be done since the last that was.
    failures: u32,
    /// The highest transaction that was reported as stored.
    stored: Option<Txid>,
    last: Option<Validated>,
    trouble: Option<String>,
}

impl Validator {
    /// A validator that has not begun; `ids` are of a run of its own.
    ///
    /// # Panics
    /// If the interval is zero.
    pub fn new(config: ValidateConfig, ids: OpIds) -> Validator {
        assert!(!config.interval.is_zero(), "an interval is longer than nothing");
        Validator {
            config,
            ids,
            entropy: 0,
            step: Step::Idle,
            due: None,
            failures: 0,
            stored: None,
            last: None,
            trouble: None,
        }
    }

    /// Gives up whatever is under way, for good.
    pub(crate) fn let_go(&mut self, out: &mut Actions) {
        match core::mem::replace(&mut self.step, Step::Stopped) {
            Step::AwaitGrant(op) => out.push(Action::Cancel { op }),
            Step::Verify { grant, mut verifier } => {
                verifier.let_go(out);
                self.ids = verifier.into_ids();
                self.give_back(grant, out);
            }
            Step::Idle | Step::Stopped => {}
        }
    }

    fn give_back(&mut self, grant: OpId, out: &mut Actions) {
        self.ids.submit(Request::Grant(GrantRequest::Return { grant }), out);
    }

    /// The next multiple of the interval, by the wall clock, so that a process that is often started
    /// anew comes to it as well.
    fn next(&self, now: Now) -> Mono {
        due(now, None, self.config.interval)
    }

    fn pump(&mut self, now: Now, out: &mut Actions) {
        if self.step == Step::Idle && self.due.is_some_and(|at| at <= now.mono) {
            let grant = self.ids.submit(Request::Grant(GrantRequest::Take(Budget::Validation)), out);
            self.step = Step::AwaitGrant(grant);
        }
    }

    fn begin(&mut self, now: Now, grant: OpId, out: &mut Actions) {
        let config = VerifyConfig {
            parallelism: READS_MAX,
            request_deadline: self.config.store_deadline,
            pending_byte: self.config.pending_byte,
        };
        let verifier = Verifier::new(config, self.ids.clone()).owing(self.stored);
        self.step = Step::Verify { grant, verifier: Box::new(verifier) };
        self.verify(now, Event::Start { entropy: self.entropy }, out);
    }

    /// Gives the verifier an event, and takes its end.
    fn verify(&mut self, now: Now, event: Event, out: &mut Actions) {
        let Step::Verify { verifier, .. } = &mut self.step else { return };
        let mut actions = Actions::new();
        verifier.handle(now, event, &mut actions);
        let mut ended = None;
        for action in actions.drain() {
            match action {
                Action::Stopped(exit) => ended = Some(exit),
                // Nobody waits for it.
                Action::Notify(Notice { fact: Fact::Progress { .. }, .. }) => {}
                Action::Notify(Notice { severity: Severity::Info, fact }) => {
                    out.notify(Severity::Debug, fact);
                }
                action => out.push(action),
            }
        }
        if let Some(exit) = ended {
            self.ended(now, exit, out);
        }
    }

    fn ended(&mut self, now: Now, exit: Exit, out: &mut Actions) {
        let Step::Verify { grant, mut verifier } = core::mem::replace(&mut self.step, Step::Idle) else {
            return;
        };
        verifier.let_go(out);
        let status = verifier.status();
        self.ids = verifier.into_ids();
        self.give_back(grant, out);
        self.due = Some(self.next(now));
        let read = (status.checked, status.bytes);
        match exit {
            // A replica that nothing was written to yet is as it should be.
            Exit::Done | Exit::NothingToRestore { .. } | Exit::Corrupt { .. } => {
                self.done(now, status.faults, read, out);
            }
            Exit::Failed { error, hint } | Exit::Misconfigured { error, hint } => {
                self.undone(now, (error, hint), read, out);
            }
            exit => unreachable!("a verification does not end in {exit:?}"),
        }
    }

    fn done(&mut self, now: Now, mut faults: Vec<String>, (objects, bytes): (u64, u64), out: &mut Actions) {
        (self.failures, self.trouble) = (0, None);
        let faults_count = faults.len() as u64;
        let (severity, verdict) = match faults.first() {
            None => (Severity::Info, Verdict::Sound),
            Some(fault) => {
                (Severity::Error, Verdict::Faulty { fault: fault.clone(), more: faults_count - 1 })
            }
        };
        out.notify(severity, Fact::Validated { verdict, objects, bytes });
        faults.truncate(FAULTS_MAX);
        self.last = Some(Validated { at: now.wall, objects, bytes, faults, faults_count });
    }

    /// Nothing was found out, and what was found before stands.
    fn undone(
        &mut self,
        now: Now,
        (error, hint): (String, String),
        (objects, bytes): (u64, u64),
        out: &mut Actions,
    ) {
        let wait = AGAIN_FIRST.saturating_mul(1 << self.failures.min(8)).min(AGAIN_MAX);
        self.failures += 1;
        let at = self.due.into_iter().chain([now.mono.after(wait)]).min();
        self.due = at;
        let wait = at.map_or(wait, |at| at.since(now.mono));
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.trouble = Some(error.clone());
        let verdict = Verdict::Undone { error, hint, wait_ms };
        out.notify(Severity::Warn, Fact::Validated { verdict, objects, bytes });
    }
}

impl Machine for Validator {
    type Status = ValidateStatus;

    fn handle(&mut self, now: Now, event: Event, out: &mut Actions) {
        if self.step == Step::Stopped {
            return;
        }
        match event {
            Event::Start { entropy } => {
                self.entropy = entropy;
                self.due = Some(self.next(now));
            }
            Event::Stored { txid, .. } => self.stored = self.stored.max(Some(txid)),
            Event::Shutdown { .. } => {
                self.let_go(out);
                return out.push(Action::Stopped(Exit::Done));
            }
            Event::Completed { op, outcome: Outcome::Granted } if self.step == Step::AwaitGrant(op) => {
                self.begin(now, op, out);
            }
            Event::Completed { outcome: Outcome::Granted, .. } => {}
            event @ (Event::Completed { .. } | Event::Tick) => self.verify(now, event, out),
            Event::SourceChanged | Event::SyncNow | Event::StoreProbed(_) | Event::Lease(_) => {}
        }
        self.pump(now, out);
    }

    fn next_deadline(&self) -> Option<(Mono, Reason)> {
        match &self.step {
            Step::Idle => self.due.map(|at| (at, Reason::Validate)),
            Step::Verify { verifier, .. } => verifier.next_deadline(),
            Step::AwaitGrant(_) | Step::Stopped => None,
        }
    }

    fn status(&self) -> ValidateStatus {
        ValidateStatus {
            validating: matches!(self.step, Step::AwaitGrant(_) | Step::Verify { .. }),
            last: self.last.clone(),
            trouble: self.trouble.clone(),
        }
    }
}
