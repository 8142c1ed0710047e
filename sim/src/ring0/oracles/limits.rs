//! What a replicator may have under way, and ask for, at the most.
//!
//! Thousands of them share one process, one store and its bill: each has a few requests under way
//! and asks the store for no more than its segments, its starts and the store's own failures take.

use std::collections::BTreeMap;

use driftless_core::machine::{Action, OpId, Request, StoreRequest};

use super::super::violation::Violation;

const ORACLE: &str = "limits";

/// Requests of one machine under way at once.
pub const IN_FLIGHT_MAX: usize = 8;
/// Actions that one event may bring about.
pub const ACTIONS_MAX: usize = 40;

/// What a run has under way.
#[derive(Clone, Debug, Default)]
pub struct Underway(BTreeMap<OpId, &'static str>);

impl Underway {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An event led to these actions; `completed` is what it ended.
    ///
    /// # Errors
    /// When there are too many, a name is given twice, or something is cancelled that is not there.
    pub fn step(&mut self, completed: Option<OpId>, actions: &[Action]) -> Result<(), Violation> {
        let wrong = |text: String| Err(Violation::new(ORACLE, text));
        // An answer that comes twice ends nothing the second time.
        completed.map(|op| self.0.remove(&op));
        for action in actions {
            match action {
                Action::Submit { request: Request::Store(request), .. } if is_unawaited(request) => {}
                Action::Submit { op, request } if self.0.insert(*op, party(request)).is_some() => {
                    return wrong(format!("{op:?} is under way already"));
                }
                Action::Cancel { op } => drop(self.0.remove(op)),
                _ => {}
            }
        }
        let mut machines: BTreeMap<u64, usize> = BTreeMap::new();
        self.0.keys().for_each(|op| *machines.entry(op.run).or_default() += 1);
        if let Some(most) = machines.into_values().max().filter(|most| *most > IN_FLIGHT_MAX) {
            let text = format!("{most} requests under way, {IN_FLIGHT_MAX} are allowed: {:?}", self.0);
            return wrong(text);
        }
        if actions.len() > ACTIONS_MAX {
            return wrong(format!("{} actions at once, {ACTIONS_MAX} are allowed", actions.len()));
        }
        Ok(())
    }
}

/// Cleaning up is asked for and not waited for: the host ends it when its own time is over.
const fn is_unawaited(request: &StoreRequest) -> bool {
    matches!(request, StoreRequest::PutAbort { .. } | StoreRequest::DropUnfinished { .. })
}

/// Whom a request goes to.
const fn party(request: &Request) -> &'static str {
    match request {
        Request::Source(_) => "source",
        Request::Store(_) => "store",
        Request::State(_) => "state",
        Request::Compute(_) => "compute",
        Request::Scratch(_) => "scratch",
        Request::Output(_) => "output",
        Request::Copy(_) => "copy",
        Request::Cell(_) => "cell",
        Request::Grant(_) => "grant",
        Request::Prove => "lease",
    }
}

/// What the requests to the store are made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Occasions {
    /// Starts of the process.
    pub starts: u64,
    /// Segments on the replica.
    pub segments: u64,
    /// Requests that did not simply work.
    pub faults: u64,
    /// Pages of one listing of all segments, of which each start makes one.
    pub pages: u64,
}

impl Occasions {
    /// How many requests they are worth.
    pub fn budget(&self) -> u64 {
        let start = START + 2 * self.pages;
        self.starts * start + self.segments * SEGMENT + self.faults * FAULT
    }
}

/// Requests of one start beside its listings: the probe, the head, the page table's proof.
const START: u64 = 24;
/// Requests of one segment: open, commit, and a look at its name where nothing is refused.
const SEGMENT: u64 = 6;
/// Requests that one failure may bring about: a whole put is sent again, and its fate looked up.
const FAULT: u64 = 12;

/// No more requests were made than there were occasions for, beside the parts of bodies: those are as
/// many as the memory that may wait for the store makes them.
///
/// # Errors
/// When more were made.
pub fn requests(made: u64, occasions: Occasions) -> Result<(), Violation> {
    let budget = occasions.budget();
    match made > budget {
        true => {
            Err(Violation::new(ORACLE, format!("{made} requests to the store, {budget} for {occasions:?}")))
        }
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use driftless_core::machine::{ReplicaId, SourceRequest};

    use super::*;

    fn op(seq: u64) -> OpId {
        OpId { replica: ReplicaId(0), run: 1, seq }
    }

    fn submit(seq: u64) -> Action {
        Action::Submit { op: op(seq), request: Request::Source(SourceRequest::Look) }
    }

    #[test]
    fn too_much_at_once_is_found() {
        let mut underway = Underway::default();
        let most: Vec<Action> = (0..IN_FLIGHT_MAX as u64).map(submit).collect();
        underway.step(None, &most).unwrap();
        underway.step(Some(op(0)), &[submit(100)]).unwrap();
        underway.step(None, &[Action::Cancel { op: op(1) }, submit(101)]).unwrap();
        assert_eq!(underway.clone().step(None, &[submit(102)]).unwrap_err().oracle, ORACLE);
        assert!(underway.clone().step(Some(op(2)), &[submit(101)]).unwrap_err().text.contains("already"));
        let many = vec![Action::Cancel { op: op(7) }; ACTIONS_MAX + 1];
        assert_eq!(underway.step(None, &many).unwrap_err().oracle, ORACLE);
    }

    #[test]
    fn too_many_requests_are_found() {
        let occasions = Occasions { starts: 2, segments: 10, faults: 3, pages: 4 };
        requests(occasions.budget(), occasions).unwrap();
        assert_eq!(requests(occasions.budget() + 1, occasions).unwrap_err().oracle, ORACLE);
    }
}
