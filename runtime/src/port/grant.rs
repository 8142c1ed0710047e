//! Shares of what all machines of a process have together.
//!
//! A share is waited for in the order of asking, and is given back by the machine or by its end: whoever
//! drops a machine's ports gives back what it held.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use driftless_core::machine::{Budget, GrantRequest, OpId};
use smol::lock::{Semaphore, SemaphoreGuardArc};

/// What a process has.
#[derive(Clone, Debug)]
pub struct Shares {
    compactions: Arc<Semaphore>,
    validations: Arc<Semaphore>,
}

impl Shares {
    /// So many compactions may run at once, and so many validations.
    pub fn new(compactions: usize, validations: usize) -> Shares {
        Shares {
            compactions: Arc::new(Semaphore::new(compactions)),
            validations: Arc::new(Semaphore::new(validations)),
        }
    }
}

/// What one machine holds of it.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// Nothing is counted where there are none.
    shares: Option<Shares>,
    held: Arc<Mutex<BTreeMap<OpId, SemaphoreGuardArc>>>,
}

impl Grants {
    /// Those of a machine that has asked for nothing.
    pub fn new(shares: Shares) -> Grants {
        Grants { shares: Some(shares), ..Grants::default() }
    }

    /// Completes when the share is there, or given back.
    pub async fn perform(&self, op: OpId, request: GrantRequest) {
        match (request, &self.shares) {
            (GrantRequest::Take(budget), Some(shares)) => {
                let of = match budget {
                    Budget::Compaction => &shares.compactions,
                    Budget::Validation => &shares.validations,
                };
                let guard = of.acquire_arc().await;
                self.held().insert(op, guard);
            }
            (GrantRequest::Take(_), None) => {}
            (GrantRequest::Return { grant }, _) => self.forget(grant),
        }
    }

    /// Nobody waits for this request any more.
    pub fn forget(&self, op: OpId) {
        self.held().remove(&op);
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<OpId, SemaphoreGuardArc>> {
        self.held.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use driftless_core::machine::ReplicaId;
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    fn op(run: u64) -> OpId {
        OpId { replica: ReplicaId(0), run, seq: 1 }
    }

    #[test]
    fn a_share_comes_back_by_request_by_cancelling_and_by_the_end() {
        let shares = Shares::new(1, 1);
        let take_of = |budget, grants: &Grants, run| {
            block_on(poll_once(Box::pin(grants.perform(op(run), GrantRequest::Take(budget)))))
        };
        let take = |grants: &Grants, run| take_of(Budget::Compaction, grants, run);
        let (one, other) = (Grants::new(shares.clone()), Grants::new(shares));
        assert_eq!(take(&one, 1), Some(()));
        assert_eq!(take(&other, 2), None, "there is but one");
        assert_eq!(take_of(Budget::Validation, &other, 6), Some(()), "of its own kind");
        assert_eq!(take_of(Budget::Validation, &one, 7), None);
        other.forget(op(6));
        block_on(one.perform(op(9), GrantRequest::Return { grant: op(1) }));
        assert_eq!(take(&other, 2), Some(()));
        other.forget(op(2));
        assert_eq!(take(&one, 3), Some(()));
        drop(one);
        assert_eq!(take(&other, 4), Some(()));
        assert_eq!(take(&Grants::default(), 5), Some(()), "where nothing is counted");
    }
}
