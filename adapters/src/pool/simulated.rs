//! A pool without threads: work begins a little later, and is done in one step of its process.

use std::time::Duration;

use madsim::rand::{Rng as _, thread_rng};

use super::Work;
use crate::timer::Timer;

/// The longest time until a thread comes to the work and has done it, in microseconds.
const LATENCY_MAX: u64 = 2_000;

pub(super) struct Pool;

impl Pool {
    pub(super) const fn new(_name: &'static str, _threads_max: usize) -> Pool {
        Pool
    }

    /// The work is done unless its process is killed before.
    pub(super) fn push(&'static self, work: Work) {
        let latency = Duration::from_micros(thread_rng().gen_range(0..LATENCY_MAX));
        madsim::task::spawn(async move {
            Timer::after(latency).await;
            work();
        });
    }
}
