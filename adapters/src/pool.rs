//! Threads for calls that block.
//!
//! An idle database must cost nothing, not even a wake-up. The `blocking` crate, which
//! `smol::unblock` uses, keeps its idle threads for ever and wakes each of them twice a second
//! (1.6; `docs/decisions/0007-own-pool.md`). Here an idle thread waits without a time-out.
//!
//! A thread is added when work waits and no thread is idle, up to [`THREADS_MAX`]. A call that
//! hangs, as one on a dead network mount does, takes its thread out of service; the rest go on.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The most threads.
pub const THREADS_MAX: usize = 24;

type Work = Box<dyn FnOnce() + Send>;

struct Pool {
    state: Mutex<State>,
    work_waits: Condvar,
}

struct State {
    queue: VecDeque<Work>,
    idle: usize,
    threads: usize,
}

static POOL: Pool = Pool {
    state: Mutex::new(State { queue: VecDeque::new(), idle: 0, threads: 0 }),
    work_waits: Condvar::new(),
};

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a single step, so a panic elsewhere leaves it usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn push(&'static self, work: Work) {
        let mut state = locked(&self.state);
        state.queue.push_back(work);
        if state.idle >= state.queue.len() {
            self.work_waits.notify_one();
        } else if state.threads < THREADS_MAX {
            state.threads += 1;
            let name = format!("worker-{}", state.threads);
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

/// The result of work on the pool. Dropping it does not stop the work.
pub struct Unblocked<T>(Arc<Mutex<Slot<T>>>);

struct Slot<T> {
    outcome: Outcome<T>,
    waker: Option<Waker>,
}

enum Outcome<T> {
    UnderWay,
    Ended(T),
    Panicked,
}

/// Tells the waiting future when the work has panicked.
struct Completion<T>(Arc<Mutex<Slot<T>>>);

impl<T> Completion<T> {
    fn set(&self, outcome: Outcome<T>) {
        let mut slot = locked(&self.0);
        slot.outcome = outcome;
        if let Some(waker) = slot.waker.take() {
            drop(slot);
            waker.wake();
        }
    }
}

impl<T> Drop for Completion<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.set(Outcome::Panicked);
        }
    }
}

impl<T> Future for Unblocked<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut slot = locked(&self.0);
        match std::mem::replace(&mut slot.outcome, Outcome::UnderWay) {
            Outcome::Ended(value) => Poll::Ready(value),
            Outcome::Panicked => panic!("work on the pool panicked"),
            Outcome::UnderWay => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Runs `work` on the pool, beginning at once or as soon as a thread is free.
pub fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Unblocked<T> {
    let slot = Arc::new(Mutex::new(Slot { outcome: Outcome::UnderWay, waker: None }));
    let completion = Completion(Arc::clone(&slot));
    POOL.push(Box::new(move || {
        let value = work();
        completion.set(Outcome::Ended(value));
    }));
    Unblocked(slot)
}

#[cfg(test)]
mod tests {
    use super::unblock;

    #[test]
    fn results_come_back_and_panics_are_passed_on() {
        let sums: Vec<_> = (0..200_u64).map(|n| unblock(move || n * n)).collect();
        let total: u64 = sums.into_iter().map(smol::block_on).sum();
        assert_eq!(total, (0..200_u64).map(|n| n * n).sum());
        let panicked = std::panic::catch_unwind(|| smol::block_on(unblock(|| panic!("on purpose"))));
        assert!(panicked.is_err());
        assert_eq!(smol::block_on(unblock(|| 7)), 7, "the pool goes on");
    }
}
