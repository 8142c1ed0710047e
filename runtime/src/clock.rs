//! The clocks of the host.
//!
//! Waits are measured on `CLOCK_BOOTTIME`, which counts the time that a suspended machine slept:
//! a lease that ran out meanwhile has run out. Wall time only stamps.

use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

use driftless_core::ids::{Mono, Now, Wall};
#[cfg(not(madsim))]
use rustix::time::{ClockId, clock_gettime};

/// Both clocks, read one after the other.
pub fn now() -> Now {
    Now { mono: mono(), wall: wall() }
}

/// Time since a simulation began.
#[cfg(madsim)]
pub fn mono() -> Mono {
    Mono::from_duration(madsim::time::TimeHandle::current().elapsed())
}

/// Time since boot, suspend included where the system counts it.
#[cfg(not(madsim))]
pub fn mono() -> Mono {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    // macOS counts suspend in what it calls monotonic.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let time = clock_gettime(CLOCK);
    // Neither field is negative: the clock starts at zero.
    Mono::from_duration(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Milliseconds since 1970, negative before; saturates.
pub fn wall() -> Wall {
    let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Wall(millis(since)),
        Err(before) => Wall(-millis(before.duration())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes() {
        let (first, second) = (now(), now());
        assert!(first.mono <= second.mono);
        assert!(first.mono.as_duration() > Duration::ZERO);
        assert!(first.wall.0 > 1_700_000_000_000, "the clock stands before this was written");
    }
}
