//! When to look at the wal-index, and when to leave it to events.

use super::*;
use crate::mutant::{self, Mutant};

impl Source {
    /// Whether the final turn has ended: everything committed was captured, or nothing is there.
    pub(in crate::engine) fn is_drained(&self) -> bool {
        self.drained && self.is_detached()
    }

    /// Whether what is committed is known, so that a lag of zero means what it says.
    pub(in crate::engine) fn is_following(&self) -> bool {
        self.open && self.index.is_some() && self.position.is_some()
    }

    /// When new frames were last looked for.
    pub(in crate::engine) fn looked_at(&self) -> Option<Mono> {
        self.looked_at
    }

    /// Whether no change was told of since it was last asked for: what an answer says that there is none
    /// of may have come while it was on its way.
    pub(super) fn is_unchanged_since_asked(&self) -> bool {
        !self.changed_while_cold
    }

    /// Whether it was let go of and nothing has asked for it since.
    pub(in crate::engine) fn is_quiet(&self) -> bool {
        self.is_detached() && !self.changed_while_cold
    }

    /// The `-wal` beside the sealed database file, where both times are old enough to tell of any
    /// later write.
    pub(in crate::engine) fn sealed_wal(&self) -> Option<Option<WalFacts>> {
        self.sealed_wal
    }
}

impl Replicator {
    /// New frames were seen, or none.
    pub(super) fn looked(&mut self, now: Now) {
        self.next_step();
        let frames = self.source.frames_uncaptured();
        let since = self.source.looked_at.replace(now.mono).map(|at| now.mono.since(at));
        let since = since.filter(|since| *since < Duration::from_secs(1));
        self.source.recent = since.is_some();
        let seen = self.frames_captured + u64::from(frames);
        let seen_before = core::mem::replace(&mut self.source.frames_seen, seen);
        if frames > 0 {
            self.source.last_activity = now.mono;
            // What checkpoints captured meanwhile came as well.
            let come = seen.saturating_sub(seen_before).max(u64::from(frames));
            self.source.look_wait = self.next_look_wait(come, since);
            self.source.let_go_tried = None;
            self.source.truncate_tried = false;
            self.set_quiet(now);
            self.source.look_at = Some(now.mono.after(self.source.look_wait));
            self.begin_script(match mutant::on(Mutant::PinWithoutOverlap) {
                true => &[Step::EndPin, Step::BeginPin, Step::Capture],
                false => &[Step::BeginOther, Step::Capture, Step::HandOver],
            });
            if self.synced.is_wanted() && core::mem::take(&mut self.source.changed) {
                // While frames come, no look without any would ask which file the path names.
                self.begin_script(&[Step::Verify]);
            }
        } else {
            if self.source.position.is_some() {
                self.synced.captured = Some(self.source.index_at);
            }
            self.after_look(now);
            if core::mem::take(&mut self.source.changed) {
                self.begin_script(&[Step::Verify]);
            }
            if self.pin_is_in_the_way() {
                self.begin_script(&[Step::BeginOther, Step::Capture, Step::HandOver]);
            }
        }
        if self.source.final_turn {
            self.source.look_at = None;
            self.set_quiet(now);
        }
    }

    /// How long to wait for the next look when `frames` came within `since`: until about as many as
    /// start a checkpoint may have come.
    ///
    /// What comes in one wait, a checkpoint of the application's copies at once when our pin has
    /// moved past it, and the commit that runs it waits. So the first wait after a pause is short,
    /// each is at most twice the one before, and the rate is the highest of the last looks: an
    /// application that was held up by its own checkpoint shows a low one.
    fn next_look_wait(&mut self, frames: u64, since: Option<Duration>) -> Duration {
        let longest = self.look_max();
        let source = &mut self.source;
        let Some(since) = since else {
            source.frames_per_second = 0;
            return LOOK_MIN;
        };
        let rate = frames * 1_000_000 / (since.as_micros() as u64).max(1);
        source.frames_per_second = rate.max(source.frames_per_second / 4 * 3).max(1);
        let threshold = u64::from(self.config.min_checkpoint_pages.max(1));
        let wait = Duration::from_micros(threshold * 1_000_000 / source.frames_per_second);
        wait.min(source.look_wait * 2).clamp(LOOK_MIN, longest)
    }

    /// The longest wait between looks: whoever wants segments more often is looked at more often.
    fn look_max(&self) -> Duration {
        self.config.sync_interval.clamp(LOOK_MIN, LOOK_MAX)
    }

    /// Whether everything is captured and copied back, and only our mark keeps the WAL from starting
    /// over: a checkpoint of the application's that waits for readers (RESTART, TRUNCATE) would wait
    /// for us until its busy time-out. Taken anew, the pin is on mark zero, which is in nobody's way.
    fn pin_is_in_the_way(&self) -> bool {
        let copied = self.source.index.is_some_and(|it| it.mx_frame > 0 && it.n_backfill == it.mx_frame);
        copied && self.source.pin.is_some_and(|pin| !pin.restartable && pin.complete)
    }

    /// Nothing new: look less often, and once that is slow enough leave it to events.
    pub(super) fn after_look(&mut self, now: Now) {
        let wait = self.source.look_wait;
        let longest = self.look_max();
        let slow = wait >= longest && !mutant::on(Mutant::LooksForever);
        if slow || self.source.index.is_none() {
            self.source.look_at = None;
            self.source.look_wait = LOOK_MIN;
        } else {
            self.source.look_wait = (wait * 2).min(longest);
            self.source.look_at = Some(now.mono.after(self.source.look_wait));
        }
    }

    /// Whether the host should say when the files change. While looks are planned anyway, it
    /// need not.
    pub fn wants_events(&self) -> bool {
        !self.source.open || self.source.look_at.is_none()
    }

    pub(super) fn look_again(&mut self, now: Now, out: &mut Actions) {
        let until = *self.source.step_until.get_or_insert(now.mono.after(Duration::from_secs(5)));
        if until <= now.mono {
            return self.detach(now, "the wal-index stayed torn for five seconds", out);
        }
        self.again_soon(now, Duration::from_millis(1));
    }
}
