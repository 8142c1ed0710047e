//! Waiting for a time.
//!
//! Everything that waits in this crate and under the driver does it here, so that a process in
//! ring 1 waits on simulated time: smol's timers want a thread of their own, which a simulation
//! cannot have.

#[cfg(not(madsim))]
pub use smol::Timer;

#[cfg(madsim)]
pub use simulated::Timer;

#[cfg(madsim)]
mod simulated {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};
    use std::time::{Duration, Instant};

    use madsim::time::{Sleep, sleep, sleep_until};

    /// Smol's timer, as far as it is used, on the clock of a simulation.
    #[derive(Debug)]
    pub struct Timer(Pin<Box<Sleep>>);

    impl Timer {
        /// Waits so long.
        pub fn after(duration: Duration) -> Timer {
            Timer(Box::pin(sleep(duration)))
        }

        /// Waits until then.
        pub fn at(instant: Instant) -> Timer {
            Timer(Box::pin(sleep_until(instant)))
        }
    }

    impl Future for Timer {
        type Output = Instant;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Instant> {
            ready!(self.0.as_mut().poll(cx));
            Poll::Ready(Instant::now())
        }
    }
}
