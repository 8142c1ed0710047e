//! Requests under way: retries, deadlines, short answers.
//!
//! Everything that is asked here of a store is a read or a deletion, so that a request whose fate is
//! unknown may simply be asked again. A request that fails for a passing reason waits twice as long as
//! the time before, with jitter, and gives up after [`ATTEMPTS_MAX`].

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::ids::{Mono, Now};
use crate::machine::{
    Action, Actions, ByteRange, Exit, Fact, OpId, OpIds, Reason, Request, Severity, StoreError,
    StoreErrorKind, StoreReply, StoreRequest, body_time,
};

/// Tries of one request before it is given up: about half a minute of waits.
pub(crate) const ATTEMPTS_MAX: u32 = 10;
/// Bytes of one answer for which more time is given, at the most.
const BODY_MAX: u64 = 8 << 20;
/// How many bodies are thought to come at a time, at the least.
const SHARES_MIN: u64 = 8;
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A request and what it is for.
#[derive(Clone, PartialEq, Debug)]
struct Try<K> {
    key: K,
    request: StoreRequest,
    /// Failures so far.
    failures: u32,
    /// Under way: when to give up this try. Waiting: when to try again.
    until: Mono,
}

/// How a request ended for good.
pub(crate) type Landed<K> = (K, Result<StoreReply, StoreError>);

/// Reads under way.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Flight<K> {
    ids: OpIds,
    request_deadline: Duration,
    /// How many bodies may come at a time.
    shares: u64,
    /// Drawn from for jitter.
    entropy: u64,
    open: BTreeMap<OpId, Try<K>>,
    waiting: Vec<Try<K>>,
    /// Requests sent, retries included.
    pub(crate) requests: u64,
    /// Bytes received.
    pub(crate) bytes: u64,
}

impl<K: Copy> Flight<K> {
    pub(crate) fn new(ids: OpIds, request_deadline: Duration) -> Flight<K> {
        Flight {
            ids,
            request_deadline,
            shares: SHARES_MIN,
            entropy: 0,
            open: BTreeMap::new(),
            waiting: Vec::new(),
            requests: 0,
            bytes: 0,
        }
    }

    /// The same, for so many reads at once.
    pub(crate) fn shared_by(self, reads: usize) -> Flight<K> {
        Flight { shares: SHARES_MIN.max(reads as u64), ..self }
    }

    /// The source of identifiers, for a machine that goes on after this one.
    pub(crate) fn into_ids(self) -> OpIds {
        self.ids
    }

    /// A source of identifiers for a machine within this one.
    pub(crate) fn fork_ids(&mut self) -> OpIds {
        self.ids.fork()
    }

    pub(crate) fn seed(&mut self, entropy: u64) {
        self.entropy = entropy;
    }

    /// Submits something else.
    pub(crate) fn submit(&mut self, request: Request, out: &mut Actions) -> OpId {
        self.ids.submit(request, out)
    }

    /// Sends a read of the store, or a deletion.
    pub(crate) fn send(&mut self, now: Now, key: K, request: StoreRequest, out: &mut Actions) {
        self.fly(now, Try { key, request, failures: 0, until: now.mono }, out);
    }

    /// Reads under way or waiting.
    pub(crate) fn len(&self) -> usize {
        self.open.len() + self.waiting.len()
    }

    /// Takes a completion. `None` if it is not awaited, or if the request will be tried again.
    pub(crate) fn landed(
        &mut self,
        now: Now,
        op: OpId,
        result: Result<StoreReply, StoreError>,
        out: &mut Actions,
    ) -> Option<Landed<K>> {
        let it = self.open.remove(&op)?;
        let result = result.and_then(|reply| check_length(&it.request, reply));
        match result {
            Err(error) if passing(error.kind) => self.again(now, it, error, out),
            // A level that does not exist holds nothing.
            Err(error)
                if error.kind == StoreErrorKind::NotFound
                    && matches!(it.request, StoreRequest::List { .. }) =>
            {
                Some((it.key, Ok(StoreReply::Listing { entries: Vec::new(), more: false })))
            }
            Err(error)
                if error.kind == StoreErrorKind::NotFound
                    && matches!(it.request, StoreRequest::ListLegacy { .. }) =>
            {
                Some((it.key, Ok(StoreReply::LegacyListing { entries: Vec::new(), more: false })))
            }
            Err(error) => Some((it.key, Err(error))),
            Ok(reply) => {
                if let StoreReply::Bytes { bytes, .. } = &reply {
                    self.bytes += bytes.len() as u64;
                }
                if it.failures > 0 {
                    out.notify(Severity::Info, Fact::Recovered { what: name(&it.request) });
                }
                Some((it.key, Ok(reply)))
            }
        }
    }

    /// Gives up what has taken too long and tries again what has waited. Returns what failed for
    /// good.
    pub(crate) fn tick(&mut self, now: Now, out: &mut Actions) -> Vec<Landed<K>> {
        let late: Vec<OpId> =
            self.open.iter().filter(|(_, it)| it.until <= now.mono).map(|(&op, _)| op).collect();
        let mut failed = Vec::new();
        for op in late {
            let Some(it) = self.open.remove(&op) else { continue };
            out.push(Action::Cancel { op });
            let text = format!("no answer within {} ms", self.deadline(&it.request).as_millis());
            let error = StoreError::new(StoreErrorKind::Ambiguous, text);
            failed.extend(self.again(now, it, error, out));
        }
        let (due, waiting) =
            core::mem::take(&mut self.waiting).into_iter().partition(|it| it.until <= now.mono);
        self.waiting = waiting;
        let due: Vec<Try<K>> = due;
        for it in due {
            self.fly(now, it, out);
        }
        failed
    }

    /// Forgets the reads whose keys are these.
    pub(crate) fn cancel(&mut self, these: impl Fn(K) -> bool, out: &mut Actions) {
        self.waiting.retain(|it| !these(it.key));
        self.open.retain(|&op, it| {
            let forgotten = these(it.key);
            if forgotten {
                out.push(Action::Cancel { op });
            }
            !forgotten
        });
    }

    /// Forgets all reads.
    pub(crate) fn cancel_all(&mut self, out: &mut Actions) {
        self.waiting.clear();
        for (op, _) in core::mem::take(&mut self.open) {
            out.push(Action::Cancel { op });
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<(Mono, Reason)> {
        let open = self.open.values().map(|it| (it.until, Reason::Deadline));
        let waiting = self.waiting.iter().map(|it| (it.until, Reason::Retry));
        open.chain(waiting).min()
    }

    /// How long one try of a request may take: those under way share a network that may be slow.
    fn deadline(&self, request: &StoreRequest) -> Duration {
        let bytes = match request {
            StoreRequest::Get { range, .. } | StoreRequest::GetLegacy { range, .. } => match range {
                ByteRange::At { len, .. } | ByteRange::Tail(len) => *len,
            },
            _ => 0,
        };
        self.request_deadline + body_time(bytes.min(BODY_MAX), self.shares)
    }

    fn fly(&mut self, now: Now, mut it: Try<K>, out: &mut Actions) {
        it.until = now.mono.after(self.deadline(&it.request));
        self.requests += 1;
        let op = self.ids.submit(Request::Store(it.request.clone()), out);
        self.open.insert(op, it);
    }

    fn again(
        &mut self,
        now: Now,
        mut it: Try<K>,
        mut error: StoreError,
        out: &mut Actions,
    ) -> Option<Landed<K>> {
        it.failures += 1;
        if it.failures >= ATTEMPTS_MAX {
            error.text = format!("{} (tried {ATTEMPTS_MAX} times)", error.text);
            return Some((it.key, Err(error)));
        }
        let wait = self.wait(it.failures);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        out.notify(
            Severity::Warn,
            Fact::Retrying { what: name(&it.request), error: error.text, hint: error.hint, wait_ms },
        );
        it.until = now.mono.after(wait);
        self.waiting.push(it);
        None
    }

    /// Doubles with each failure; between half and all of that.
    fn wait(&mut self, failures: u32) -> Duration {
        let full = WAIT_MIN.saturating_mul(1 << (failures - 1).min(16)).min(WAIT_MAX);
        self.entropy =
            self.entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let permille = 500 + (self.entropy >> 33) % 501;
        full * permille as u32 / 1000
    }
}

/// Whether to try again. A read of unknown fate had no effect, and a deletion may have it twice.
fn passing(kind: StoreErrorKind) -> bool {
    use StoreErrorKind::{Ambiguous, Conflict, Corrupt, Retry};
    matches!(kind, Retry | Conflict | Ambiguous | Corrupt)
}

/// An answer shorter or longer than the object allows is no answer.
fn check_length(request: &StoreRequest, reply: StoreReply) -> Result<StoreReply, StoreError> {
    let (
        StoreRequest::Get { range, .. } | StoreRequest::GetLegacy { range, .. },
        StoreReply::Bytes { bytes, object_len },
    ) = (request, &reply)
    else {
        return Ok(reply);
    };
    let expected = match *range {
        ByteRange::At { offset, len } => len.min(object_len.saturating_sub(offset)),
        ByteRange::Tail(len) => len.min(*object_len),
    };
    if bytes.len() as u64 == expected {
        return Ok(reply);
    }
    let text = format!("{} bytes came where {expected} should", bytes.len());
    Err(StoreError::new(StoreErrorKind::Retry, text))
}

/// A request in words.
pub(crate) fn name(request: &StoreRequest) -> String {
    let read = |range: &ByteRange, object: &dyn fmt::Display| match range {
        ByteRange::At { offset, len } => format!("read {len} bytes at {offset} of {object}"),
        ByteRange::Tail(len) => format!("read the last {len} bytes of {object}"),
    };
    match request {
        StoreRequest::List { level, .. } => format!("list level {level}"),
        StoreRequest::ListLegacy { .. } => "list generations".to_string(),
        StoreRequest::Get { object, range } => read(range, object),
        StoreRequest::GetLegacy { object, range } => read(range, object),
        StoreRequest::Delete { object } => format!("delete {object}"),
        StoreRequest::GetDictionary { id } => format!("read dictionary {id}"),
        _ => "a write".to_string(),
    }
}

/// The end that a failed read brings.
pub(crate) fn exit_of(what: &str, error: &StoreError) -> Exit {
    let text = format!("{what}: {}", error.text);
    let hint = |otherwise: &str| match error.hint.is_empty() {
        true => otherwise.to_string(),
        false => error.hint.clone(),
    };
    match error.kind {
        StoreErrorKind::Misconfigured | StoreErrorKind::Unsupported => {
            Exit::Misconfigured { error: text, hint: hint("check the replica's address") }
        }
        StoreErrorKind::Denied => Exit::Failed {
            error: text,
            hint: hint("check the credentials: listing and reading must be allowed"),
        },
        _ => Exit::Failed { error: text, hint: hint("try again when the store answers") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Level, Txid, TxidRange, Wall};
    use crate::machine::{Object, ReplicaId};

    #[test]
    fn a_level_that_is_not_there_is_empty_and_an_object_is_missed() {
        let now = Now { mono: Mono::from_duration(Duration::ZERO), wall: Wall(0) };
        let level = Level::CAPTURES;
        let object = Object { level, range: TxidRange::single(Txid::FIRST) };
        let answer = |request: StoreRequest| {
            let mut flight = Flight::new(OpIds::new(ReplicaId(0), 1), Duration::from_secs(1));
            let mut out = Actions::new();
            flight.send(now, (), request, &mut out);
            let Some(Action::Submit { op, .. }) = out.drain().next() else { panic!("nothing was asked") };
            let error = StoreError::new(StoreErrorKind::NotFound, "404");
            let landed = flight.landed(now, op, Err(error), &mut out);
            landed.expect("it is not tried again").1.map_err(|error| error.kind)
        };
        let empty = StoreReply::Listing { entries: Vec::new(), more: false };
        assert_eq!(answer(StoreRequest::List { level, after: None, limit: 1 }), Ok(empty));
        let range = ByteRange::Tail(1);
        assert_eq!(answer(StoreRequest::Get { object, range }), Err(StoreErrorKind::NotFound));
    }
}
