//! When a checkpoint is tried, with and without the write lock, and what it led to.

use super::*;
use crate::mutant::{self, Mutant};

impl Replicator {
    pub(super) fn checkpoint_wanted(&self) -> bool {
        let Some(index) = &self.source.index else { return false };
        let captured = self.source.pin.is_some() && self.source.position.is_some();
        let standing = captured && self.source.reserved_bytes == 0 && !self.source.read_only;
        let due = index.mx_frame >= self.config.min_checkpoint_pages.max(self.source.checkpoint_frames);
        standing && due && !self.wal_may_restart() && !self.source.final_turn
    }

    /// Whether the next commit restarts the WAL: all captured, all copied back, our pin on mark zero.
    pub(super) fn wal_may_restart(&self) -> bool {
        let source = &self.source;
        source.index.as_ref().is_some_and(|index| index.n_backfill == index.mx_frame)
            && source.pin.is_some_and(|pin| pin.restartable && pin.complete)
            && source.frames_uncaptured() == 0
    }

    pub(super) fn begin_checkpoint(&mut self, now: Now) -> bool {
        use Step::Verify;
        let frames = self.source.wal_frames();
        let large = frames >= self.config.min_checkpoint_pages.saturating_mul(LOCK_FACTOR);
        let rests = self.source.lock_rest_until.is_some_and(|until| until > now.mono);
        // What made one attempt slow can be over with the next pass; what made two slow is not.
        self.source.passes_left = match (large, rests) {
            (true, false) => PASSES_MAX,
            (true, true) if self.source.slow_locks < 2 => PASSES_MAX,
            _ => 0,
        };
        self.begin_script(&[Verify]);
        self.begin_pass()
    }

    fn begin_pass(&mut self) -> bool {
        use Step::{BeginOther, BeginPin, Capture, Checkpoint, EndOther, EndPin};
        if mutant::on(Mutant::CheckpointBeforeCapture) {
            return self.begin_script(&[BeginOther, EndPin, Checkpoint, BeginPin, EndOther, Capture]);
        }
        self.begin_script(&[BeginOther, Capture, EndPin, Checkpoint, BeginPin, Capture, EndOther])
    }

    /// After a pass without the lock over a large WAL: the lock, once what is left to copy is
    /// little; another pass before that, since everything copied under the lock is time that the
    /// application waits.
    fn goes_on_to_lock(&mut self, now: Now, index: &WalIndex) -> bool {
        use Step::{BeginPin, Capture, Checkpoint, EndPin, Lock, Unlock};
        let passes_left = core::mem::take(&mut self.source.passes_left);
        if passes_left == 0 || self.wal_may_restart() || self.source.pin.is_none() {
            return false;
        }
        let rests = self.source.lock_rest_until.is_some_and(|until| until > now.mono);
        if rests && self.source.copying_took > SLOW_LOCK {
            return false;
        }
        let tail = index.mx_frame.saturating_sub(index.n_backfill);
        if tail > self.config.min_checkpoint_pages && passes_left > 1 {
            self.source.passes_left = passes_left - 1;
            return self.begin_pass();
        }
        self.begin_script(&[Lock, Capture, EndPin, Checkpoint, BeginPin, Capture, Unlock])
    }

    /// Rests the lock after it was held for long: the disk is slow now, and the application must
    /// not wait for it over and over. The rest after a single slow attempt ends with the first
    /// pass that shows that the disk is quick again. Returns how long the lock was held.
    pub(super) fn rest_lock(&mut self, now: Now) -> Duration {
        let held = self.source.lock_since.take().map_or(Duration::ZERO, |since| now.mono.since(since));
        let factor = if held > COMMIT_WAIT_MAX { LOCK_REST_LONG } else { LOCK_REST_SHORT };
        self.source.slow_locks = if held > SLOW_LOCK { self.source.slow_locks.saturating_add(1) } else { 0 };
        self.source.lock_rest_until = (held > SLOW_LOCK).then(|| now.mono.after(held * factor));
        held
    }

    pub(super) fn after_checkpoint(&mut self, now: Now, held: Option<Duration>, out: &mut Actions) {
        let Some(index) = self.source.index else { return };
        if held.is_none() && self.goes_on_to_lock(now, &index) {
            return;
        }
        out.notify(
            Severity::Debug,
            Fact::Checkpointed {
                frames: index.mx_frame,
                backfilled: index.n_backfill,
                took: self.source.copying_took,
                held,
            },
        );
        let threshold = self.config.min_checkpoint_pages;
        if self.wal_may_restart() {
            self.source.checkpoint_frames = 0;
        } else {
            self.source.checkpoint_frames = index.mx_frame.saturating_add(threshold);
            self.source.checkpoint_at = Some(now.mono.after(LOOK_MIN));
        }
        // A slow disk or a long checkpoint makes it so for a moment; a reader keeps it so.
        if index.mx_frame <= threshold.saturating_mul(ALERT_FACTOR) || self.wal_may_restart() {
            self.source.over_since = None;
            self.source.over_said = false;
            return;
        }
        let since = *self.source.over_since.get_or_insert(now.mono);
        if now.mono.since(since) >= ALERT_AFTER && !core::mem::replace(&mut self.source.over_said, true) {
            out.notify(Severity::Warn, Fact::WalOverBound { frames: index.mx_frame });
        }
    }

    /// A checkpoint of the application's is under way. It copies up to our pin, and a commit of the
    /// application's that runs it waits for it: to take the write lock now would only add to that,
    /// and to go on would leave the same work for the next attempt. So wait for its end.
    pub(super) fn checkpoint_busy(&mut self, now: Now) {
        let (until, again) = match self.source.lock_since {
            Some(locked) => (locked.after(LOCK_HOLD), LOCK_AGAIN),
            None => {
                let until = *self.source.step_until.get_or_insert(now.mono.after(CHECKPOINT_WAIT));
                (until, CHECKPOINT_AGAIN)
            }
        };
        if now.mono < until {
            self.again_soon(now, again);
        } else {
            self.next_step();
        }
    }

    pub(super) fn lock_busy(&mut self, now: Now) {
        let until = self.source.step_until.expect("set when the step began");
        if now.mono < until {
            return self.again_soon(now, LOCK_AGAIN);
        }
        self.source.lock_failed = true;
        self.source.lock_refusals = self.source.lock_refusals.saturating_add(1);
        let frames = self.source.wal_frames();
        self.source.checkpoint_frames = frames.saturating_add(self.config.min_checkpoint_pages / 4);
        // A transaction may stay open for hours, and each try asks for the lock many times.
        let longer = SCRIPT_AGAIN.saturating_mul(1 << self.source.lock_refusals.min(10));
        let wait = if self.draining() { Duration::ZERO } else { longer.min(LOCK_REFUSED_MAX) };
        self.source.quiet_at = Some(now.mono.after(wait));
        self.abandon(now);
        self.source.checkpoint_at = Some(now.mono.after(LOOK_MIN));
    }
}
