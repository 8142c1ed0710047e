//! One object that is replaced on condition, and a chain of names that are taken once.

use std::collections::{BTreeMap, BTreeSet};

use driftless_core::lease::{Body, State};
use driftless_core::machine::{CellCondition, CellReply, CellRequest, Chunk, StoreError, StoreErrorKind};

use crate::ring0::Violation;

/// A segment of the history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    /// The epoch of the claim under which it was put.
    pub(super) epoch: u64,
    /// The run of the process that put it.
    pub(super) run: u64,
    /// How many transactions stand before it.
    pub(super) before: u64,
    /// Its transactions.
    pub(super) transactions: Vec<u64>,
}

/// When a holder's time is over, as it counts itself; of everyone who has ever been one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tenure {
    pub(super) holder: u64,
    pub(super) term: u64,
    /// In true time.
    pub(super) until_ns: u64,
    pub(super) released: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    lease: Option<(Body, u64)>,
    versions: u64,
    /// It does not say which version a write has made.
    mute: bool,
    pub(super) chain: BTreeMap<u64, Segment>,
    /// Names up to here were deleted, since other files hold what they held: they can be taken again.
    free_to: u64,
    /// What was put under such a name. No restore leads to it.
    junk: BTreeMap<u64, Segment>,
    /// All transactions of the chain.
    pub(super) there: BTreeSet<u64>,
    pub(super) claims: u64,
    pub(super) takeovers: u64,
}

fn no(kind: StoreErrorKind) -> StoreError {
    StoreError::new(kind, "simulated")
}

impl Store {
    /// Nothing was ever written to it.
    pub(crate) fn new(mute: bool) -> Store {
        Store { mute, ..Store::default() }
    }

    /// Carries out a request of the lease.
    pub(crate) fn cell(&mut self, request: &CellRequest) -> Result<Result<CellReply, StoreError>, Violation> {
        match request {
            CellRequest::Read { .. } => Ok(match &self.lease {
                None => Err(no(StoreErrorKind::NotFound)),
                Some((body, version)) => Ok(CellReply::Content {
                    bytes: Chunk::from(body.encode()),
                    version: Some(version.to_string()),
                }),
            }),
            CellRequest::Write { bytes, condition, .. } => {
                let holds = match (condition, &self.lease) {
                    (CellCondition::Absent, None) => true,
                    (CellCondition::Version(wanted), Some((_, version))) => *wanted == version.to_string(),
                    _ => false,
                };
                if !holds {
                    return Ok(Err(no(StoreErrorKind::AlreadyExists)));
                }
                let body = Body::decode(bytes).map_err(|error| Violation::new("lease", error))?;
                self.check_write(&body)?;
                self.versions += 1;
                self.lease = Some((body, self.versions));
                let version = (!self.mute).then(|| self.versions.to_string());
                Ok(Ok(CellReply::Written { version }))
            }
            CellRequest::Remove { .. } => Err(Violation::new("lease", "the lease is never deleted")),
        }
    }

    /// The epoch of the lease.
    pub(crate) fn epoch(&self) -> u64 {
        self.lease.as_ref().map_or(0, |(body, _)| body.epoch)
    }

    fn check_write(&mut self, new: &Body) -> Result<(), Violation> {
        let Some((old, _)) = &self.lease else {
            self.claims += 1;
            return Ok(());
        };
        let same = old.term == new.term;
        if new.epoch < old.epoch || (!same && new.epoch == old.epoch) {
            let text = format!("epoch {} of one holder follows epoch {} of another", new.epoch, old.epoch);
            return Err(Violation::new("epochs", text));
        }
        if same && old.state == State::Released {
            return Err(Violation::new("epochs", "a lease that was given up is renewed"));
        }
        if !same {
            self.claims += 1;
            self.takeovers += u64::from(old.holder != new.holder);
        }
        Ok(())
    }

    /// Puts a segment where nothing stands.
    pub(super) fn put(&mut self, name: u64, segment: &Segment) -> Result<Result<(), StoreError>, Violation> {
        if self.at(name).is_some() {
            return Ok(Err(no(StoreErrorKind::AlreadyExists)));
        }
        if name <= self.free_to {
            self.junk.insert(name, segment.clone());
            return Ok(Ok(()));
        }
        let last = self.chain.last_key_value();
        let (at, before) = last.map_or((0, 0), |(at, it)| (*at, it.before + it.transactions.len() as u64));
        if name != at + 1 || segment.before != before {
            let text = format!(
                "segment {name} is put behind {at}, from {} transactions where {before} are",
                segment.before
            );
            return Err(Violation::new("fork", text));
        }
        if let Some((_, last)) = last
            && segment.epoch < last.epoch
        {
            let text = format!(
                "segment {name} of epoch {} stands behind one of epoch {}",
                segment.epoch, last.epoch
            );
            return Err(Violation::new("fork", text));
        }
        self.there.extend(segment.transactions.iter().copied());
        self.chain.insert(name, segment.clone());
        Ok(Ok(()))
    }

    /// What stands under a name.
    pub(super) fn at(&self, name: u64) -> Option<&Segment> {
        self.junk.get(&name).or_else(|| self.chain.get(&name).filter(|_| name > self.free_to))
    }

    /// Deletes all names but the newest few.
    pub(super) fn retain(&mut self) {
        let last = self.chain.last_key_value().map_or(0, |(name, _)| *name);
        self.free_to = self.free_to.max(last.saturating_sub(2));
    }

    /// All transactions, in order.
    pub(super) fn history(&self) -> Vec<u64> {
        self.chain.values().flat_map(|segment| segment.transactions.iter().copied()).collect()
    }
}
