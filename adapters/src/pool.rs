//! Threads for calls that block.
//!
//! An idle database must cost nothing, not even a wake-up. The `blocking` crate, which
//! `smol::unblock` uses, keeps its idle threads for ever and wakes each of them twice a second
//! (1.6; `docs/decisions/0007-own-pool.md`). Here an idle thread waits without a time-out.
//!
//! A thread is added when work waits and no thread is idle, up to a limit. A call that hangs, as
//! one on a dead network mount does, takes its thread out of service; the rest go on. It is
//! stores that hang, and each try of theirs takes another thread, while the database beside us
//! must not wait for them, perhaps with a lock of ours. So the calls of stores have threads of
//! their own.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[cfg(madsim)]
mod simulated;
#[cfg(not(madsim))]
mod threads;

#[cfg(madsim)]
use simulated::Pool;
#[cfg(not(madsim))]
use threads::Pool;

/// The most threads for a host's own calls: databases, local state, computing.
pub const HOST_THREADS_MAX: usize = 14;
/// The most threads for the calls of stores.
pub const STORE_THREADS_MAX: usize = 16;

type Work = Box<dyn FnOnce() + Send>;

static HOST: Pool = Pool::new("worker", HOST_THREADS_MAX);
static STORE: Pool = Pool::new("store", STORE_THREADS_MAX);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a single step, so a panic elsewhere leaves it usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Runs `work` of a host, beginning at once or as soon as a thread is free.
pub fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Unblocked<T> {
    run_on(&HOST, work)
}

/// The same for a call of a store, which waits for those of other stores at the most.
pub fn unblock_store<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Unblocked<T> {
    run_on(&STORE, work)
}

fn run_on<T: Send + 'static>(pool: &'static Pool, work: impl FnOnce() -> T + Send + 'static) -> Unblocked<T> {
    let slot = Arc::new(Mutex::new(Slot { outcome: Outcome::UnderWay, waker: None }));
    let completion = Completion(Arc::clone(&slot));
    pool.push(Box::new(move || {
        let value = work();
        completion.set(Outcome::Ended(value));
    }));
    Unblocked(slot)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::{STORE_THREADS_MAX, unblock, unblock_store};

    #[test]
    fn results_come_back_and_panics_are_passed_on() {
        let sums: Vec<_> = (0..200_u64).map(|n| unblock(move || n * n)).collect();
        let total: u64 = sums.into_iter().map(smol::block_on).sum();
        assert_eq!(total, (0..200_u64).map(|n| n * n).sum::<u64>());
        let panicked = std::panic::catch_unwind(|| smol::block_on(unblock(|| panic!("on purpose"))));
        assert!(panicked.is_err());
        assert_eq!(smol::block_on(unblock(|| 7)), 7, "the pool goes on");
    }

    #[test]
    fn stores_that_hang_keep_no_host_waiting() {
        let (release, hung) = mpsc::channel::<()>();
        let hung = std::sync::Arc::new(std::sync::Mutex::new(hung));
        let calls: Vec<_> = (0..2 * STORE_THREADS_MAX)
            .map(|_| std::sync::Arc::clone(&hung))
            .map(|hung| unblock_store(move || drop(hung.lock().map(|hung| hung.recv()))))
            .collect();
        assert_eq!(smol::block_on(unblock(|| 7)), 7);
        drop(release);
        calls.into_iter().for_each(smol::block_on);
    }
}
