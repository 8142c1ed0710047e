//! What is counted of requests to stores, over all databases of the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use driftless_core::machine::StoreErrorKind;

/// Upper bounds of the buckets of durations in seconds, as Litestream has them.
pub const BUCKETS: [f64; 9] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];

/// A kind of request, by Litestream's names. A put counts once, however many parts it has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operation {
    /// Making an object.
    Put,
    /// Reading one, or a part.
    Get,
    /// A page of a listing.
    List,
    /// Removing one.
    Delete,
}

impl Operation {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Put => "PUT",
            Operation::Get => "GET",
            Operation::List => "LIST",
            Operation::Delete => "DELETE",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// As it should.
    Ok,
    /// With this kind of error.
    Failed(&'static str),
    /// Nobody waited for its end.
    Abandoned,
}

impl Outcome {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Failed(kind) => kind,
            Outcome::Abandoned => "abandoned",
        }
    }
}

/// What is known of one kind of request to one kind of store.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Counts {
    /// How many ended how.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Bytes that were put or got.
    pub bytes: u64,
    /// How many took longer than the bound of the bucket before and not longer than its own; the last
    /// is of those that took longer than all.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// How long all of them took, in seconds.
    pub seconds: f64,
}

type Table = BTreeMap<(&'static str, Operation), Counts>;

/// Requests of the process, by the kind of store and of request.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Mutex<Table>>);

impl Requests {
    /// What was counted so far.
    pub fn counts(&self) -> Table {
        self.0.lock().expect("no holder panics").clone()
    }

    /// A request to a store of this kind begins.
    pub fn begin(&self, store: &'static str, operation: Operation) -> UnderWay {
        UnderWay { requests: self.clone(), store, operation, began: Instant::now(), bytes: 0, ended: false }
    }
}

/// A request that has not ended. Dropped without an end, it counts as abandoned.
#[derive(Debug)]
pub struct UnderWay {
    requests: Requests,
    store: &'static str,
    operation: Operation,
    began: Instant,
    bytes: u64,
    ended: bool,
}

impl UnderWay {
    /// It has moved so many bytes more.
    pub fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// It has ended.
    pub fn end(mut self, error: Option<StoreErrorKind>) {
        self.ended = true;
        self.count(error.map_or(Outcome::Ok, |kind| Outcome::Failed(word(kind))));
    }

    fn count(&self, outcome: Outcome) {
        let mut table = self.requests.0.lock().expect("no holder panics");
        let counts = table.entry((self.store, self.operation)).or_default();
        *counts.outcomes.entry(outcome).or_default() += 1;
        if outcome == Outcome::Ok {
            counts.bytes += self.bytes;
        }
        let seconds = self.began.elapsed().as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        counts.buckets[bucket] += 1;
        counts.seconds += seconds;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.ended {
            self.count(Outcome::Abandoned);
        }
    }
}

fn word(kind: StoreErrorKind) -> &'static str {
    match kind {
        StoreErrorKind::NotFound => "not_found",
        StoreErrorKind::AlreadyExists => "already_exists",
        StoreErrorKind::Conflict => "conflict",
        StoreErrorKind::Retry => "retry",
        StoreErrorKind::Ambiguous => "ambiguous",
        StoreErrorKind::Denied => "denied",
        StoreErrorKind::NoSpace => "no_space",
        StoreErrorKind::Misconfigured => "misconfigured",
        StoreErrorKind::Unsupported => "unsupported",
        StoreErrorKind::Corrupt => "corrupt",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_counts_once() {
        let requests = Requests::default();
        let mut put = requests.begin("s3", Operation::Put);
        put.moved(5);
        put.moved(2);
        put.end(None);
        requests.begin("s3", Operation::Put).end(Some(StoreErrorKind::Retry));
        drop(requests.begin("s3", Operation::Put));
        let counts = requests.counts().remove(&("s3", Operation::Put)).expect("counted");
        let outcomes: Vec<(&str, u64)> =
            counts.outcomes.iter().map(|(outcome, n)| (outcome.name(), *n)).collect();
        assert_eq!(outcomes, [("ok", 1), ("retry", 1), ("abandoned", 1)]);
        assert_eq!((counts.bytes, counts.buckets[0]), (7, 3));
    }
}
