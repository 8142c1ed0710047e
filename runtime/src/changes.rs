//! Waiting until something is so, without polling.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Wakes whoever waits for the host to be in some state. Tasks of one thread only.
#[derive(Default)]
pub(crate) struct Changes(RefCell<Vec<Waker>>);

impl Changes {
    /// Something has changed: those who wait look again.
    pub(crate) fn tell(&self) {
        for waker in self.0.take() {
            waker.wake();
        }
    }

    /// Waits for the next change.
    #[cfg(not(madsim))]
    pub(crate) async fn next(&self) {
        let mut looks = 0;
        self.until(|| {
            looks += 1;
            (looks > 1).then_some(())
        })
        .await;
    }

    /// Waits until `look` finds something. It is called once at first, and after each change.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| match look() {
            Some(found) => Poll::Ready(found),
            None => {
                let mut waiting = self.0.borrow_mut();
                if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }
}
