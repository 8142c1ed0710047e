//! When a checkpoint is tried, with and without the write lock, and what it led to.

use super::*;

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

    pub(super) fn begin_checkpoint(&mut self) -> bool {
        use Step::{BeginOther, BeginPin, Capture, Checkpoint, EndOther, EndPin, Lock, Unlock, Verify};
        let frames = self.source.wal_frames();
        let locked = frames >= self.config.min_checkpoint_pages.saturating_mul(LOCK_FACTOR)
            && self.source.checkpoint_cost <= SLOW_CHECKPOINT;
        self.begin_script(&[Verify, BeginOther, Capture, EndPin, Checkpoint, BeginPin, Capture, EndOther]);
        if locked {
            self.begin_script(&[Lock, Capture, EndPin, Checkpoint, BeginPin, Capture, Unlock]);
        }
        true
    }

    pub(super) fn checkpointed(&mut self, now: Now) {
        if !self.source.locked {
            self.source.checkpoint_cost = now.mono.since(self.source.op_since);
        }
        self.next_step();
    }

    pub(super) fn after_checkpoint(&mut self, now: Now, locked: bool, out: &mut Actions) {
        if self.source.script.front() == Some(&Step::Lock) {
            if self.wal_may_restart() {
                self.source.script.clear();
            } else {
                return;
            }
        }
        let Some(index) = self.source.index else { return };
        out.notify(
            Severity::Debug,
            Fact::Checkpointed { frames: index.mx_frame, backfilled: index.n_backfill, locked },
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
}
