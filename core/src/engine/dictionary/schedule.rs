//! When a dictionary is made, and made again.

/// Pages that are written before another is tried where none has paid; twice as many each time.
const WAIT_FIRST: u64 = 4_096;
/// The longest such wait.
const WAIT_MAX: u64 = 1 << 22;
/// Pages over which a gain is watched before it counts as faded.
const WATCH_PAGES: u64 = 1_024;
/// The gain has faded when pages take so many thousandths more than they did at first.
const FADED_PERMILLE: u32 = 1_150;

/// What the pages have shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Schedule {
    /// Pages still to be written before a sample is taken.
    wait: u64,
    /// The wait after the next refusal.
    wait_next: u64,
    /// While a dictionary is in use: pages written with it since the watch began, the bytes they took, and
    /// those they had.
    watch: Option<Watch>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Watch {
    pages: u64,
    raw: u64,
    packed: u64,
    /// What the first stretch took, in thousandths of its pages.
    first: Option<u32>,
    /// The gain has faded.
    faded: bool,
}

impl Schedule {
    /// Whether a dictionary should be made.
    pub(super) fn is_due(&self) -> bool {
        self.watch.map_or(self.wait == 0, |watch| watch.faded)
    }

    /// A dictionary was chosen or none was. The gain is measured on what is written with it from now on:
    /// the sample was another kind of segment.
    pub(super) fn chose(&mut self, permille: Option<u32>) {
        self.watch = permille.map(|_| Watch::default());
        if self.watch.is_some() {
            (self.wait, self.wait_next) = (0, 0);
        } else {
            self.wait = self.wait_next.max(WAIT_FIRST);
            self.wait_next = (self.wait * 2).min(WAIT_MAX);
        }
    }

    /// Pages of a segment, and whether it was made with the dictionary in use.
    pub(super) fn wrote(&mut self, pages: u32, raw: u64, packed: u64, with: bool) {
        self.wait = self.wait.saturating_sub(u64::from(pages));
        let Some(watch) = self.watch.as_mut().filter(|_| with) else { return };
        watch.pages += u64::from(pages);
        watch.raw += raw;
        watch.packed += packed;
        if watch.pages < WATCH_PAGES {
            return;
        }
        let permille = (watch.packed * 1_000 / watch.raw.max(1)) as u32;
        let first = *watch.first.get_or_insert(permille);
        watch.faded |= permille > first * FADED_PERMILLE / 1_000;
        (watch.pages, watch.raw, watch.packed) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_none_pays_another_is_tried_after_twice_as_many_pages() {
        let mut schedule = Schedule::default();
        assert!(schedule.is_due());
        for wait in [4_096, 8_192, 16_384] {
            schedule.chose(None);
            schedule.wrote(wait - 1, 1, 1, false);
            assert!(!schedule.is_due());
            schedule.wrote(1, 1, 1, false);
            assert!(schedule.is_due());
        }
    }

    #[test]
    fn another_is_made_when_the_gain_has_faded() {
        let mut schedule = Schedule::default();
        schedule.chose(Some(300));
        let wrote = |schedule: &mut Schedule, permille: u64, with| {
            schedule.wrote(1_024, 1_024_000, 1_024 * permille, with);
            schedule.is_due()
        };
        assert!(!wrote(&mut schedule, 310, true), "that is what it brings");
        assert!(!wrote(&mut schedule, 900, false), "not its fault");
        assert!(!wrote(&mut schedule, 350, true));
        assert!(wrote(&mut schedule, 360, true));
        schedule.chose(Some(360));
        assert!(!schedule.is_due());
    }
}
