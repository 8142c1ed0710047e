//! Sealing a quiet source and closing the link, or closing one that is of no use.

use super::attach::same_file;
use super::*;
use crate::mutant::{self, Mutant};

impl Replicator {
    /// Quiet long enough, everything on the replica.
    pub(super) fn may_let_go(&self) -> bool {
        // While draining, what is committed after the last capture comes too late.
        let captured = self.source.frames_uncaptured() == 0 || self.draining();
        let replicated = self.pending.is_empty() && self.upload_is_idle() && captured;
        replicated && self.base_wanted.is_none() && self.source.look_at.is_none() && self.source.open
    }

    pub(super) fn begin_letting_go(&mut self) -> bool {
        use Step::{
            BeginOther, BeginPin, Capture, Checkpoint, Close, EndOther, EndPin, Lock, SealFacts, Tail,
            Unlock, Verify,
        };
        // Never without a look at the path: another file may stand there by now.
        let Some(index) = self.source.index.as_ref() else { return self.begin_script(&[Verify, Close]) };
        let may_checkpoint = self.source.reserved_bytes == 0 && !self.source.read_only;
        if self.source.pin.is_none() || !may_checkpoint || (self.source.lock_failed && self.draining()) {
            return self.begin_script(&[Verify, Close]);
        }
        if index.n_backfill < index.mx_frame && self.source.let_go_tried != Some(index.mx_frame) {
            self.source.let_go_tried = Some(index.mx_frame);
            return self.begin_script(&[
                Verify, BeginOther, Capture, EndPin, Checkpoint, BeginPin, Capture, EndOther,
            ]);
        }
        if self.wal_file_is_large() && self.wal_may_restart() && !self.source.truncate_tried {
            // Nobody else gives the space back: the application's checkpoints only start over.
            self.source.truncate_tried = true;
            return self.begin_script(&[Step::Truncate, Verify, Capture]);
        }
        self.begin_script(&[Verify, Lock, Capture, Tail, SealFacts, Unlock, Close])
    }

    /// Whether the WAL file has grown past its bound, as beside a reader that stayed for long. Below
    /// that it is left alone, as SQLite leaves it: what is emptied by another process makes a
    /// connection of the application's count one change more than it would without us.
    pub(super) fn wal_file_is_large(&self) -> bool {
        let page_bytes = u64::from(self.source.page_size.map_or(0, PageSize::get));
        let kept = u64::from(self.config.min_checkpoint_pages) * u64::from(ALERT_FACTOR) * page_bytes;
        let wal = self.source.facts.as_ref().and_then(|facts| facts.wal);
        wal.is_some_and(|wal| wal.size > kept)
    }

    /// Lets go of a link that is of no use. What was captured stays: its segment leaves before
    /// the source is opened again.
    pub(in crate::engine) fn detach(&mut self, now: Now, why: &str, out: &mut Actions) {
        if self.source.is_capturing() {
            self.source.position = None;
        }
        self.base_lost_link(now, out);
        out.notify(Severity::Info, Fact::Remark { text: why.to_string() });
        let draw = self.draw();
        // What changes while nothing is pinned is not among them, and nothing was sealed.
        self.dirty = self.dirty.take().filter(|_| mutant::on(Mutant::DirtyOutlivesPin));
        self.source.sealed_wal = None;
        let source = &mut self.source;
        source.forget_scanner();
        source.locked = false;
        source.lock_since = None;
        source.step_again = None;
        source.step_until = None;
        source.retry.fail(now.mono, draw);
        source.changed_while_cold = true;
        source.failed = true;
        source.script.clear();
        if source.open {
            source.script.push_back(Step::Close);
        }
    }

    pub(super) fn close_done(&mut self, now: Now, out: &mut Actions) {
        if self.source.said_attached {
            let sealed = self.history.seal.is_some();
            out.notify(Severity::Info, Fact::Detached { sealed });
        }
        let lost = self.source.position.is_none();
        // What was captured last may have asked for a base: that needs the link again.
        let owed = self.base_wanted.is_some();
        let finished = self.draining() && !self.source.failed && !lost && !owed;
        self.dirty = self.dirty.take().filter(|_| mutant::on(Mutant::DirtyOutlivesPin));
        self.source.close_state();
        self.source.drained = finished;
        self.source.changed_while_cold |= owed;
        if (lost || owed) && !self.pending.is_empty() {
            // What was captured still extends the point; what comes next is proven or surveyed
            // against it, so it must leave first or be forgotten. Forgetting is always right, and
            // where a base is owed it cannot leave.
            let pages = self.history.point.as_ref().map_or(0, |point| point.pages);
            self.forget_pending(pages);
        }
        self.source.sweep_at = Some(now.mono.after(SWEEP));
        self.source.script.clear();
    }

    pub(in crate::engine) fn forget_pending(&mut self, pages: u32) {
        self.frames_captured -= self.pending.frames.min(self.frames_captured - self.frames_replicated);
        self.pending.reset(pages);
        self.synced.captured = None;
    }

    pub(super) fn verify_done(&mut self, now: Now, facts: Option<Box<SourceFacts>>, out: &mut Actions) {
        let known = self.source.facts.as_deref();
        match facts {
            None => self.detach(now, "the database file is gone", out),
            Some(facts) if !same_file(known, &facts) && !self.stops_blindly() => {
                self.detach(now, "the database file was replaced", out)
            }
            Some(facts) if !same_wal(known, &facts) && !self.stops_blindly() => {
                self.detach(now, "the -wal file was replaced", out)
            }
            Some(facts) => {
                self.source.facts = Some(facts);
                self.synced.verify(self.source.op_since);
                self.next_step();
            }
        }
    }

    pub(super) fn seal_done(&mut self, now: Now, facts: Option<Box<SourceFacts>>, out: &mut Actions) {
        let sealed = self.wal_is_copied() && self.source.frames_uncaptured() == 0;
        let same =
            |facts: &SourceFacts| same_file(self.source.facts.as_deref(), facts) || self.stops_blindly();
        let Some(facts) = facts.filter(|facts| same(facts)) else {
            return self.detach(now, "the database file was replaced", out);
        };
        let age = facts.now_ns - facts.ctime_ns;
        if !self.pending.is_empty() && !self.draining() {
            // The application has written meanwhile: it is not quiet after all.
            self.source.script.clear();
            self.begin_script(&[Step::Unlock]);
            self.set_quiet(now);
            return;
        }
        let settled = age >= CTIME_SETTLED_NS || mutant::on(Mutant::CtimeUnsettled);
        // The wall clock may have been set back by hours, and each try takes the lock: none comes before
        // it can succeed, unless the clock is set again, which is looked for now and then.
        let wait = Duration::from_nanos((CTIME_SETTLED_NS - age).clamp(1_000_000, 1 << 62) as u64).min(SWEEP);
        // Where stopping leaves no time for that, we go without a seal: the next start has to prove
        // where it is, and nothing is lost.
        // Under a lease another host waits for the end. A start of this one that goes on from here all the same reads
        // its database once more.
        let handed_over = self.draining() && self.config.epoch.is_some();
        if sealed && !settled && !handed_over && !self.stops_before(now.mono.after(wait)) {
            // A write in the same clock tick would leave the same time: come again when it is older.
            self.source.script.clear();
            self.begin_script(if mutant::on(Mutant::LockKept) { &[] } else { &[Step::Unlock] });
            self.source.quiet_at = Some(now.mono.after(wait));
            return;
        }
        if sealed && settled && self.pending.is_empty() {
            self.note_seal(SealRecord::of(&facts), out);
            // As with the database, a write in the same clock tick would leave the same time.
            let settled = facts.wal.is_none_or(|wal| facts.now_ns - wal.mtime_ns >= CTIME_SETTLED_NS);
            self.source.sealed_wal = Some(facts.wal).filter(|_| settled && !self.source.tail);
        }
        self.source.facts = Some(facts);
        self.next_step();
    }

    /// The header of the frame behind the last committed one.
    pub(super) fn tail_request(&self) -> SourceRequest {
        let page_size = self.source.page_size.expect("read before opening");
        let offset = frame_offset(page_size, self.source.wal_frames().saturating_add(1));
        SourceRequest::ReadWal { offset, len: FRAME_HEADER_BYTES as u32, recent: false }
    }

    pub(super) fn tail_read(&mut self, reply: &LinkReply) {
        let salts = self.source.index.as_ref().map(|index| index.salts);
        let header = reply.bytes.as_deref().and_then(|bytes| bytes.first_chunk::<FRAME_HEADER_BYTES>());
        let follows = |header: &[u8; FRAME_HEADER_BYTES]| Some(Salts::read(header, 8)) == salts;
        self.source.tail = header.is_some_and(follows) && !mutant::on(Mutant::TailIgnored);
        self.next_step();
    }

    /// Writes down that the database file alone is the position now.
    pub(super) fn note_seal(&mut self, seal: SealRecord, out: &mut Actions) {
        let (Some(wal), Some(point)) = (self.source.position, &mut self.history.point) else { return };
        point.wal = Some(wal);
        point.file = (seal.device, seal.inode);
        self.history.seal = Some(seal.clone());
        if self.journal.broken || self.journal_busy() {
            // Behind a hole it would be read as the position of an earlier point, and it must not
            // overtake a rewrite: the next rewrite says it.
            self.journal.bytes = u64::MAX / 4;
            return;
        }
        let op = self.append(&Record::Sealed { seal, wal }, out);
        self.journal.op = Some(op);
    }

    fn stops_blindly(&self) -> bool {
        self.draining() && mutant::on(Mutant::ReplacedAtStop)
    }

    pub(super) fn wal_is_copied(&self) -> bool {
        self.source.index.as_ref().is_some_and(|index| index.n_backfill == index.mx_frame)
    }

    pub(super) fn set_quiet(&mut self, now: Now) {
        let wait = if self.draining() { Duration::ZERO } else { self.config.quiet_after };
        self.source.quiet_at = Some(now.mono.after(wait));
    }
}

/// The `-wal` that is open: once there, its inode stays.
fn same_wal(known: Option<&SourceFacts>, new: &SourceFacts) -> bool {
    match (known.and_then(|known| known.wal), new.wal) {
        (Some(WalFacts { inode: known, .. }), Some(WalFacts { inode: new, .. })) => known == new,
        (Some(_), None) => false,
        _ => true,
    }
}
