//! Threads that wait for work without a time-out.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use super::{Work, locked};

pub(super) struct Pool {
    name: &'static str,
    threads_max: usize,
    state: Mutex<State>,
    work_waits: Condvar,
}

struct State {
    queue: VecDeque<Work>,
    idle: usize,
    threads: usize,
}

impl Pool {
    pub(super) const fn new(name: &'static str, threads_max: usize) -> Pool {
        let state = Mutex::new(State { queue: VecDeque::new(), idle: 0, threads: 0 });
        Pool { name, threads_max, state, work_waits: Condvar::new() }
    }

    pub(super) fn push(&'static self, work: Work) {
        let mut state = locked(&self.state);
        state.queue.push_back(work);
        if state.idle >= state.queue.len() {
            self.work_waits.notify_one();
        } else if state.threads < self.threads_max {
            state.threads += 1;
            let name = format!("{}-{}", self.name, state.threads);
            let started = std::thread::Builder::new().name(name).spawn(|| self.serve());
            if started.is_err() {
                state.threads -= 1;
                assert!(state.threads > 0, "the system gives no thread at all");
            }
        }
    }

    fn serve(&self) {
        let mut state = locked(&self.state);
        loop {
            match state.queue.pop_front() {
                Some(work) => {
                    drop(state);
                    // A panic ends the work, which its future reports, and not the thread.
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                    state = locked(&self.state);
                }
                None => {
                    state.idle += 1;
                    state = self.work_waits.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                }
            }
        }
    }
}
