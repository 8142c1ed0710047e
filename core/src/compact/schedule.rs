//! When a level is due: at the multiples of its interval, by the wall clock, as Litestream has it.
//!
//! Litestream rounds down from the first of January of the year 1, and so does this, so that both name the
//! same instants whatever the interval. Wall time decides nothing but the moment: a clock that is set makes
//! a compaction early or late.

use core::time::Duration;

use crate::ids::{Mono, Now, Wall};

/// Milliseconds from the first of January of the year 1 to that of 1970.
const YEAR_1: i128 = 62_135_596_800_000;

/// The next multiple of `interval` after `at`.
pub fn next_multiple(at: Wall, interval: Duration) -> Wall {
    let every = i128::try_from(interval.as_millis()).unwrap_or(i128::MAX).max(1);
    let since = i128::from(at.0) + YEAR_1;
    let next = (since.div_euclid(every) + 1).saturating_mul(every) - YEAR_1;
    Wall(i64::try_from(next).unwrap_or(i64::MAX))
}

/// When a level of this interval is due, of which something has waited since `since`: at the first multiple
/// after that. Where nobody knows since when, or it lies ahead, it is the next one.
pub fn due(now: Now, since: Option<Wall>, interval: Duration) -> Mono {
    let since = since.filter(|since| *since <= now.wall).unwrap_or(now.wall);
    let wait = next_multiple(since, interval).0.saturating_sub(now.wall.0);
    now.mono.after(Duration::from_millis(u64::try_from(wait).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000;
    const DAY: i64 = 86_400 * SECOND;

    #[test]
    fn multiples_are_those_of_the_day_and_of_litestream() {
        let next = |at: i64, seconds: u64| next_multiple(Wall(at), Duration::from_secs(seconds)).0;
        assert_eq!(next(0, 30), 30 * SECOND);
        assert_eq!(next(30 * SECOND, 30), 60 * SECOND, "a multiple itself has passed");
        assert_eq!(next(1_795_169_328_006, 30), 1_795_169_340_000);
        assert_eq!(next(5 * DAY + 1, 86_400), 6 * DAY);
        assert_eq!(next(-1, 30), 0);
        // Go: time.Unix(1000000000, 0).Truncate(7 * time.Minute) is 2001-09-09 01:43:00, 220 s before.
        assert_eq!(next(1_000_000_000 * SECOND, 420), (1_000_000_000 + 200) * SECOND);
        assert_eq!(next(i64::MAX, 30), i64::MAX);
    }

    #[test]
    fn what_has_waited_past_its_time_is_due_at_once() {
        let now = Now { mono: Mono::from_duration(Duration::from_secs(7)), wall: Wall(100 * SECOND) };
        let wait = |since: Option<i64>| due(now, since.map(Wall), Duration::from_secs(30)).since(now.mono);
        assert_eq!(wait(None), Duration::from_secs(20));
        assert_eq!(wait(Some(95 * SECOND)), Duration::from_secs(20));
        assert_eq!(wait(Some(89 * SECOND)), Duration::ZERO, "its time was at 90 s");
        assert_eq!(wait(Some(500 * SECOND)), Duration::from_secs(20), "a clock that was set back");
    }
}
