//! Does the store do what it says? Asked once at the start, of the store itself.
//!
//! What keeps two writers apart is the store's refusal, and there are servers that take the
//! condition and ignore it, proxies that drop the header, and stores that decide it too late. So
//! it is tried: a cell is created, refused when it is created again, replaced in its known version,
//! refused in a stale one; then several creations of one name race, and exactly one may win.
//!
//! An answer that is lost says nothing, and the probe begins again under other names, for as long
//! as it takes: nobody waits for it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::ids::{Mono, Now};
use crate::machine::{
    Action, Actions, CellCondition, CellReply, CellRequest, Chunk, Event, Exit, Machine, OpId, OpIds,
    Outcome, Reason, Request, StoreError, StoreErrorKind,
};

/// How many creations race for one name.
const RACERS: u8 = 6;
/// How long a request may take before its answer counts as lost.
const DEADLINE: Duration = Duration::from_secs(30);
const WAIT_FIRST: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(5 * 60);
/// Between two writes of one name: some servers (R2) take one in a second.
const PAUSE: Duration = Duration::from_millis(1_100);

/// What was found out about one promise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Finding {
    /// Not known yet.
    #[default]
    Unknown,
    /// It is kept.
    Holds,
    /// It is made and not kept.
    Ignored,
    /// The store says that it cannot.
    Unsupported,
    /// Whoever asks may not.
    Denied,
}

impl Finding {
    /// The word used in logs and by `driftless status`.
    pub const fn word(self) -> &'static str {
        match self {
            Finding::Unknown => "unknown",
            Finding::Holds => "holds",
            Finding::Ignored => "ignored",
            Finding::Unsupported => "unsupported",
            Finding::Denied => "denied",
        }
    }
}

/// What a probe found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// An object is created only if none of its name exists, also in a race.
    pub create_if_absent: Finding,
    /// An object is replaced only in the version that was read.
    pub swap: Finding,
    /// Objects may be removed.
    pub remove: Finding,
}

impl Findings {
    /// Whether the store keeps what a [lease](crate::lease) needs.
    pub fn keeps_leases(&self) -> bool {
        self.create_if_absent == Finding::Holds && self.swap == Finding::Holds
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    NotStarted,
    /// The first creation.
    Create,
    /// The second, which must be refused.
    Again,
    /// What holds the name now, in which version?
    Look,
    /// A replacement in that version.
    Swap,
    /// The same once more, which must be refused.
    Stale,
    /// Several creations of another name.
    Race,
    /// Which of them holds it?
    Winner,
    /// Clean up after both names.
    Remove,
    Done,
}

/// Probes a store. Its status is what it has found so far; it ends with [`Exit::Done`].
#[derive(Clone, PartialEq, Debug)]
pub struct Probe {
    ops: OpIds,
    deadline: Duration,
    wait_max: Duration,
    entropy: u64,
    step: Step,
    /// Names of this attempt.
    name: String,
    under_way: BTreeMap<OpId, u8>,
    since: Mono,
    retry_at: Option<Mono>,
    /// A step that waits for its time.
    later: Option<(Mono, Step)>,
    attempts: u32,
    /// Attempts that found create-if-absent ignored. One may be a proxy's that sent a write twice.
    suspicions: u32,
    version: Option<String>,
    winners: Vec<u8>,
    findings: Findings,
    last_error: Option<StoreError>,
}

impl Probe {
    /// A probe that has not begun.
    pub fn new(ops: OpIds) -> Probe {
        Probe {
            ops,
            deadline: DEADLINE,
            wait_max: WAIT_MAX,
            entropy: 0,
            step: Step::NotStarted,
            name: String::new(),
            under_way: BTreeMap::new(),
            since: Mono::default(),
            retry_at: None,
            later: None,
            attempts: 0,
            suspicions: 0,
            version: None,
            winners: Vec::new(),
            findings: Findings::default(),
            last_error: None,
        }
    }

    /// The same where others wait for what is found: no answer is waited for longer than this, nor does it rest for
    /// longer before it tries again.
    pub fn within(self, time: Duration) -> Probe {
        Probe { deadline: time, wait_max: time, ..self }
    }

    /// Why it has not come to an end yet, if something went wrong.
    pub fn last_error(&self) -> Option<&StoreError> {
        self.last_error.as_ref()
    }

    fn cell(&self, race: bool) -> String {
        format!(".driftless/probe-{}{}", self.name, if race { "-race" } else { "" })
    }

    fn begin(&mut self, now: Now, out: &mut Actions) {
        self.entropy = self.entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(0x9e37_79b9);
        self.name = format!("{:016x}", self.entropy);
        self.findings = Findings::default();
        (self.retry_at, self.later, self.version) = (None, None, None);
        self.winners.clear();
        self.enter(now, Step::Create, out);
    }

    /// Sends the requests of a step.
    fn enter(&mut self, now: Now, step: Step, out: &mut Actions) {
        self.step = step;
        self.since = now.mono;
        let (main, race) = (self.cell(false), self.cell(true));
        let write = |cell: &String, content: u8, condition| CellRequest::Write {
            cell: cell.clone(),
            bytes: Chunk::from(vec![content]),
            condition,
        };
        let in_version = || CellCondition::Version(self.version.clone().expect("looked up before"));
        let requests = match step {
            Step::Create => vec![write(&main, 0, CellCondition::Absent)],
            Step::Again => vec![write(&main, 1, CellCondition::Absent)],
            Step::Look => vec![CellRequest::Read { cell: main }],
            Step::Swap => vec![write(&main, 2, in_version())],
            Step::Stale => vec![write(&main, 3, in_version())],
            Step::Race => (0..RACERS).map(|racer| write(&race, racer, CellCondition::Absent)).collect(),
            Step::Winner => vec![CellRequest::Read { cell: race }],
            Step::Remove => vec![CellRequest::Remove { cell: main }, CellRequest::Remove { cell: race }],
            Step::Done => {
                out.push(Action::Stopped(Exit::Done));
                return;
            }
            Step::NotStarted => unreachable!("nothing leads back"),
        };
        for (number, request) in (0..).zip(requests) {
            let op = self.ops.submit(Request::Cell(request), out);
            self.under_way.insert(op, number);
        }
    }

    fn completed(&mut self, now: Now, number: u8, result: Result<CellReply, StoreError>, out: &mut Actions) {
        let result = match result {
            Err(error) if says_nothing(error.kind) && self.step != Step::Remove => {
                // Whoever was turned away in a race has not won it; some servers take one write of a
                // name in a second.
                let lost = matches!(error.kind, StoreErrorKind::Conflict | StoreErrorKind::Retry);
                if !(self.step == Step::Race && lost) {
                    return self.again(now, error, out);
                }
                self.last_error = Some(error);
                Err(StoreErrorKind::AlreadyExists)
            }
            Err(error) => {
                let kind = error.kind;
                if kind != StoreErrorKind::AlreadyExists {
                    self.last_error = Some(error);
                }
                Err(kind)
            }
            Ok(reply) => Ok(reply),
        };
        if self.step == Step::Winner && self.winners.is_empty() && result == Err(StoreErrorKind::NotFound) {
            // All were turned away, and none of them was made: nobody has seen a race.
            let text = "no creation of a name came through among several";
            let error = self.last_error.take().unwrap_or(StoreError::new(StoreErrorKind::Conflict, text));
            return self.again(now, error, out);
        }
        let next = match self.step {
            Step::Create => self.created(result),
            Step::Again => self.created_again(result),
            Step::Look => self.looked(result),
            Step::Swap => self.swapped(result),
            Step::Stale => self.swapped_stale(result),
            Step::Race => self.raced(number, result),
            Step::Winner => self.won(result),
            Step::Remove => self.removed(result),
            Step::NotStarted | Step::Done => unreachable!("nothing is under way"),
        };
        match next {
            Some(Step::Done) if self.is_first_suspicion() => self.retry_at = Some(now.mono.after(PAUSE)),
            Some(step @ (Step::Again | Step::Swap | Step::Stale)) => {
                self.later = Some((now.mono.after(PAUSE), step));
            }
            Some(step) => self.enter(now, step, out),
            None if self.under_way.is_empty() => unreachable!("a step that is over names the next"),
            None => {}
        }
    }

    /// Whether what was found is grave, and was found only once.
    fn is_first_suspicion(&mut self) -> bool {
        self.suspicions += u32::from(self.findings.create_if_absent == Finding::Ignored);
        self.findings.create_if_absent == Finding::Ignored && self.suspicions == 1
    }

    fn created(&mut self, result: Result<CellReply, StoreErrorKind>) -> Option<Step> {
        match result {
            Ok(_) => Some(Step::Again),
            // A name drawn at random is taken only if the store makes it up.
            Err(kind) => {
                self.findings.create_if_absent = finding_of(kind);
                self.findings.swap = finding_of(kind);
                Some(Step::Done)
            }
        }
    }

    fn created_again(&mut self, result: Result<CellReply, StoreErrorKind>) -> Option<Step> {
        self.findings.create_if_absent = refused(&result);
        Some(Step::Look)
    }

    fn looked(&mut self, result: Result<CellReply, StoreErrorKind>) -> Option<Step> {
        match result {
            Ok(CellReply::Content { bytes, version }) => {
                if self.findings.create_if_absent == Finding::Holds && *bytes != [0] {
                    // It refused, and took it all the same.
                    self.findings.create_if_absent = Finding::Ignored;
                }
                self.version = version;
            }
            Ok(other) => unreachable!("a read is not answered by {other:?}"),
            // Created, and not to be found.
            Err(StoreErrorKind::NotFound) => self.findings.create_if_absent = Finding::Ignored,
            Err(_) => {}
        }
        match self.version {
            Some(_) => Some(Step::Swap),
            None => {
                self.findings.swap = Finding::Unsupported;
                self.after_swap()
            }
        }
    }

    fn swapped(&mut self, result: Result<CellReply, StoreErrorKind>) -> Option<Step> {
        match result {
            Ok(_) => Some(Step::Stale),
            Err(kind) => {
                self.findings.swap = finding_of(kind);
                self.after_swap()
            }
        }
    }

    fn swapped_stale(&mut self, result: Result<CellReply, StoreErrorKind>) -> Option<Step> {
        self.findings.swap = refused(&result);
        self.after_swap()
    }

    fn after_swap(&self) -> Option<Step> {
        match self.findings.create_if_absent {
            Finding::Holds => Some(Step::Race),
            _ => Some(Step::Remove),
        }
    }

    fn raced(&mut self, number: u8, result: Result<CellReply, StoreErrorKind>) -> Option<Step> {
        if result.is_ok() {
            self.winners.push(number);
        }
        self.under_way.is_empty().then_some(Step::Winner)
    }

    fn won(&mut self, result: Result<CellReply, StoreErrorKind>) -> Option<Step> {
        let holder = match &result {
            Ok(CellReply::Content { bytes, .. }) => bytes.first().copied(),
            _ => None,
        };
        let one = self.winners.len() == 1 && holder == self.winners.first().copied();
        if !one {
            self.findings.create_if_absent = Finding::Ignored;
        }
        Some(Step::Remove)
    }

    fn removed(&mut self, result: Result<CellReply, StoreErrorKind>) -> Option<Step> {
        let found = result.map_or_else(finding_of, |_| Finding::Holds);
        self.findings.remove = match self.findings.remove {
            Finding::Unknown | Finding::Holds => found,
            worse => worse,
        };
        self.under_way.is_empty().then_some(Step::Done)
    }

    /// Begins anew later: what was under way may still have its effect, under names of its own.
    fn again(&mut self, now: Now, error: StoreError, out: &mut Actions) {
        for op in core::mem::take(&mut self.under_way).into_keys() {
            out.push(Action::Cancel { op });
        }
        if self.step != Step::Create || error.kind == StoreErrorKind::Ambiguous {
            // What it has made, or may have; nobody waits for that.
            for cell in [self.cell(false), self.cell(true)] {
                self.ops.submit(Request::Cell(CellRequest::Remove { cell }), out);
            }
        }
        self.last_error = Some(error);
        let wait = WAIT_FIRST.saturating_mul(1 << self.attempts.min(16)).min(self.wait_max);
        self.attempts += 1;
        self.retry_at = Some(now.mono.after(wait));
    }
}

/// Whether an error leaves open what the store would do.
fn says_nothing(kind: StoreErrorKind) -> bool {
    use StoreErrorKind::{Ambiguous, Conflict, Corrupt, Denied, Misconfigured, NoSpace, Retry};
    match kind {
        // Credentials expire and are renewed; a bucket may be made later.
        Denied | Misconfigured | NoSpace | Ambiguous | Conflict | Corrupt | Retry => true,
        StoreErrorKind::NotFound | StoreErrorKind::AlreadyExists | StoreErrorKind::Unsupported => false,
    }
}

fn finding_of(kind: StoreErrorKind) -> Finding {
    match kind {
        StoreErrorKind::Unsupported => Finding::Unsupported,
        StoreErrorKind::Denied => Finding::Denied,
        StoreErrorKind::AlreadyExists => Finding::Ignored,
        _ => Finding::Unknown,
    }
}

/// What it says about a condition that what must be refused ended so.
fn refused(result: &Result<CellReply, StoreErrorKind>) -> Finding {
    match result {
        Ok(_) => Finding::Ignored,
        Err(StoreErrorKind::AlreadyExists) => Finding::Holds,
        Err(kind) => finding_of(*kind),
    }
}

impl Machine for Probe {
    type Status = Findings;

    fn handle(&mut self, now: Now, event: Event, out: &mut Actions) {
        match event {
            Event::Start { entropy } => {
                self.entropy = entropy;
                self.begin(now, out);
            }
            Event::Completed { op, outcome: Outcome::Cell(result) } => {
                if let Some(number) = self.under_way.remove(&op) {
                    self.completed(now, number, result, out);
                }
            }
            Event::Shutdown { .. } => self.enter(now, Step::Done, out),
            _ => {}
        }
        if self.retry_at.is_some_and(|at| at <= now.mono) {
            self.begin(now, out);
        } else if let Some((_, step)) = self.later.take_if(|(at, _)| *at <= now.mono) {
            self.enter(now, step, out);
        } else if !self.under_way.is_empty() && self.since.after(self.deadline) <= now.mono {
            let text = format!("no answer from the store in {} s", self.deadline.as_secs()).to_string();
            self.again(now, StoreError::new(StoreErrorKind::Ambiguous, text), out);
        }
    }

    fn next_deadline(&self) -> Option<(Mono, Reason)> {
        match self.retry_at.or(self.later.map(|(at, _)| at)) {
            Some(at) => Some((at, Reason::Retry)),
            None if self.under_way.is_empty() => None,
            None => Some((self.since.after(self.deadline), Reason::Deadline)),
        }
    }

    fn status(&self) -> Findings {
        self.findings
    }
}

#[cfg(test)]
mod tests;
