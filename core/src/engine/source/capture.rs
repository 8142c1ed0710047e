//! Reading what is committed, from the position up to the wal-index's end.

use super::*;
use crate::mutant::{self, Mutant};

impl Replicator {
    /// Whether a restart of the WAL under the pin that stands loses nothing.
    pub(super) fn restart_is_harmless(&self) -> bool {
        self.source.pin.or(self.source.other).is_some_and(|pin| pin.restartable && pin.complete)
    }

    pub(super) fn capture_next(&mut self, now: Now, out: &mut Actions) {
        let Some(mut at) = self.source.position else { return self.next_step() };
        if self.source.target.is_none() {
            if self.source.index_is_old && !mutant::on(Mutant::TornBeginTrusted) {
                // What came with the last BEGIN was torn: its snapshot may lie past what is known.
                return self.source_submit(now, Part::Only, SourceRequest::Look, out);
            }
            let index = self.source.index.expect("a link that stands has an index");
            if index.salts != at.salts {
                let nothing_there = index.mx_frame == 0 && at.frame == 0;
                let harmless = self.restart_is_harmless() || nothing_there;
                if !harmless && !restarts_count_as_harmless() {
                    return self.lose_position(
                        now,
                        "the WAL was restarted while frames in it had not been captured",
                        out,
                    );
                }
                at = WalPosition { salts: index.salts, frame: 0, checksum: Default::default() };
                self.source.position = Some(at);
                self.source.scanner = None;
            }
            if index.mx_frame < at.frame {
                return self.lose_position(
                    now,
                    "the source rolled back: its WAL ends before what was captured",
                    out,
                );
            }
            self.source.target = Some(index);
            self.source.target_at = self.source.index_at;
        }
        let target = self.source.target.as_ref().expect("set above");
        let page_size = self.source.page_size.expect("read before opening");
        if at.frame >= target.mx_frame {
            return self.capture_ends(now, out);
        }
        if self.source.scanner.is_none() && at.frame == 0 {
            let recent = self.source.recent;
            let request = SourceRequest::ReadWal { offset: 0, len: WAL_HEADER_BYTES as u32, recent };
            return self.source_submit(now, Part::WalHeader, request, out);
        }
        if let Some(newest) = &mut self.source.newest {
            let parts = newest.ask(CAPTURE_BYTES);
            let request = SourceRequest::ReadWalParts { parts, recent: self.source.recent };
            return self.source_submit(now, Part::Newest, request, out);
        }
        let count = (target.mx_frame - at.frame).min(NEWEST_FRAMES);
        if self.reads_newest_only(count) {
            let request = SourceRequest::FramePages { first: at.frame + 1, count };
            return self.source_submit(now, Part::FramePages, request, out);
        }
        if self.source.scanner.is_none() {
            self.source.scanner = Some(Scanner::resume(at, page_size, target.big_endian_checksums));
        }
        let frame_bytes = page_size.get() + FRAME_HEADER_BYTES as u32;
        let frames = (target.mx_frame - at.frame + beyond()).min((CAPTURE_BYTES / frame_bytes).max(1));
        let request = SourceRequest::ReadWal {
            offset: frame_offset(page_size, at.frame + 1),
            len: frames * frame_bytes,
            recent: self.source.recent,
        };
        self.source_submit(now, Part::Frames, request, out);
    }

    pub(super) fn captured(&mut self, now: Now, part: Part, reply: &LinkReply, out: &mut Actions) {
        let bytes = reply.bytes.as_deref().unwrap_or_default();
        match part {
            Part::WalHeader => self.capture_header(now, bytes, out),
            Part::FramePages => self.choose_newest(bytes),
            Part::Newest => self.capture_newest(now, bytes, out),
            Part::Aside => self.aside_read(now, bytes, out),
            // Only the index was asked for.
            Part::Only => {}
            _ => self.capture_frames(now, bytes, out),
        }
    }

    pub(super) fn capture_header(&mut self, now: Now, bytes: &[u8], out: &mut Actions) {
        let salts = self.source.target.as_ref().expect("set when the capture began").salts;
        match WalHeader::decode(bytes) {
            Ok(header) if header.salts == salts && Some(header.page_size) == self.source.page_size => {
                self.source.position = Some(WalPosition { salts, frame: 0, checksum: header.checksum });
                self.source.scanner = Some(Scanner::from_header(&header));
            }
            _ => {
                // Restarted again between the look and the read, which mark zero allows only while
                // nothing has been written: look anew.
                self.source.target = None;
                self.look_again(now, out);
            }
        }
    }

    pub(super) fn capture_frames(&mut self, now: Now, bytes: &[u8], out: &mut Actions) {
        let end = self.source.target.as_ref().expect("set when the capture began").mx_frame;
        let mut scanner = self.source.scanner.take().expect("set when the capture began");
        let before = self.source.position.expect("a capture has a position");
        let (pending, base) = (&mut self.pending, &mut self.base);
        pending.start.get_or_insert(before);
        let result = scanner.scan(bytes, end + beyond(), &mut |_, frame, data| {
            pending.take(now.mono, frame, data);
            if let Some(base) = base {
                base.note_captured(frame);
            }
        });
        let after = scanner.position();
        self.frames_captured += u64::from(after.frame - before.frame);
        self.source.position = Some(after);
        self.source.scanner = Some(scanner);
        match result {
            Ok(0) => self.lose_position(now, "the WAL is shorter than the wal-index says", out),
            Ok(_) => {}
            Err(_) if after.frame >= end => {}
            Err(stop) => self.lose_position(now, &scan_stop_text(&stop), out),
        }
    }

    /// Whether of so many frames only the newest of each page are read. Not while a base is made: what
    /// it has not read yet is put aside by each size that the database had meanwhile, and sizes stand
    /// in the frames alone.
    fn reads_newest_only(&self, count: u32) -> bool {
        count >= self.config.newest_only_from
            && self.base.is_none()
            && !self.source.every_frame
            && beyond() == 0
    }

    /// Knows which frames to read, or that all must be.
    fn choose_newest(&mut self, pages: &[u8]) {
        let target = self.source.target.as_ref().expect("set when the capture began");
        let before = self.source.position.expect("a capture has a position");
        let page_size = self.source.page_size.expect("read before opening");
        self.source.newest = Newest::of(before, page_size, target.big_endian_checksums, pages);
        self.source.every_frame = self.source.newest.is_none();
    }

    /// Takes newest frames. The position moves only when all of their stretch were read: an image of
    /// an earlier state may stand for a page until then.
    fn capture_newest(&mut self, now: Now, bytes: &[u8], out: &mut Actions) {
        let before = self.source.position.expect("a capture has a position");
        let mut newest = self.source.newest.take().expect("asked for");
        let pending = &mut self.pending;
        let frames = pending.frames;
        pending.start.get_or_insert(before);
        let result = newest.take(bytes, &mut |frame, data| pending.take(now.mono, frame, data));
        let after = newest.position();
        if result.is_ok() && newest.is_done() {
            pending.note_outdated(u64::from(after.frame - before.frame) - newest.count() as u64);
        }
        // What waits is counted as it comes: it is taken off again if it must be forgotten.
        self.frames_captured += pending.frames - frames;
        match result {
            Ok(()) if newest.is_done() => {
                self.source.position = Some(after);
                self.source.scanner = None;
            }
            Ok(()) => self.source.newest = Some(newest),
            Err(stop) => self.lose_position(now, &scan_stop_text(&stop), out),
        }
    }

    pub(super) fn capture_ends(&mut self, now: Now, out: &mut Actions) {
        let target = self.source.target.as_ref().expect("set when the capture began");
        let at = self.source.position.expect("a capture has a position");
        if at.frame > 0 && at.checksum != target.frame_checksum && beyond() == 0 {
            return self.lose_position(
                now,
                "the WAL's checksum at its end differs from the wal-index's",
                out,
            );
        }
        // The pin may move past what was captured only behind this.
        if self.put_aside_next(now, out) {
            return;
        }
        self.source.target = None;
        self.source.every_frame = false;
        self.synced.captured = Some(self.source.target_at);
        if self.endangers() {
            // The pin stays where it is: the next capture goes on with it, without the lock.
            self.source.script.clear();
            self.begin_script(&[Step::Unlock]);
            return;
        }
        for pin in [&mut self.source.pin, &mut self.source.other].into_iter().flatten() {
            pin.complete = true;
        }
        self.next_step();
    }

    /// Asks for an image that a base wants put aside.
    pub(in crate::engine) fn source_read_aside(
        &mut self,
        now: Now,
        request: SourceRequest,
        out: &mut Actions,
    ) {
        self.source_submit(now, Part::Aside, request, out);
    }

    /// Writes images that a base wants put aside.
    pub(in crate::engine) fn source_write_aside(&mut self, request: ScratchRequest, out: &mut Actions) {
        let op = self.submit(Request::Scratch(request), out);
        self.source.op = Some((op, Part::Aside));
    }

    /// What was captured since the point may not be whole: begin again from the point.
    pub(in crate::engine) fn lose_position(&mut self, now: Now, why: &str, out: &mut Actions) {
        self.source.position = None;
        self.detach(now, why, out);
    }
}

/// They do not.
fn restarts_count_as_harmless() -> bool {
    mutant::on(Mutant::PinWithoutOverlap) || mutant::on(Mutant::CheckpointBeforeCapture)
}

/// Frames behind the last committed one that are taken for committed as well.
fn beyond() -> u32 {
    if mutant::on(Mutant::PhantomCaptured) { 8 } else { 0 }
}

fn scan_stop_text(stop: &ScanStop) -> alloc::string::String {
    format!("the WAL does not hold what the wal-index says: {stop:?}")
}
