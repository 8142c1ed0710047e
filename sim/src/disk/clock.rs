//! The wall clock that stamps inodes: a number that only the simulation moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A shared wall clock in nanoseconds since the Unix epoch. Clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct SimClock(Arc<AtomicU64>);

impl SimClock {
    /// A clock that reads `now_ns` until it is moved.
    pub fn new(now_ns: u64) -> Self {
        Self(Arc::new(AtomicU64::new(now_ns)))
    }

    /// The current reading.
    pub fn now_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Let `delta_ns` pass.
    pub fn advance_ns(&self, delta_ns: u64) {
        self.0.fetch_add(delta_ns, Ordering::SeqCst);
    }

    /// Step to `now_ns`, backwards too: wall clocks do.
    pub fn set_ns(&self, now_ns: u64) {
        self.0.store(now_ns, Ordering::SeqCst);
    }
}
