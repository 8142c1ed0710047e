//! Which state a base reads: the pin, and the frames that lie over the database file.

use super::*;

impl Replicator {
    /// The same step again in a moment; given up after five seconds of it.
    pub(super) fn base_again(&mut self, now: Now, out: &mut Actions) {
        let base = self.base_ref();
        base.tries += 1;
        if base.tries > 5_000 {
            return self.base_source_failed(now, "no proven read transaction was to be had", out);
        }
        base.again_at = Some(now.mono.after(Duration::from_millis(1)));
    }

    pub(super) fn base_begun(&mut self, before: Option<&WalIndex>, seen: bool) {
        let class = match (before, &self.source.index) {
            (Some(before), Some(after)) if seen => classify(before, after),
            _ => PinClass::Unproven,
        };
        let index = self.source.index;
        self.source.other =
            Some(Pin { restartable: class != PinClass::Mark, complete: class == PinClass::Frozen });
        let base = self.base_ref();
        base.frozen = class == PinClass::Frozen;
        base.index = index;
        let unproven = class == PinClass::Unproven && !mutant::on(Mutant::UnprovenPinUsed);
        base.step = if unproven { BaseStep::GiveBack } else { BaseStep::HandOver };
    }

    pub(super) fn base_pinned(&mut self, now: Now, out: &mut Actions) {
        let base = self.base_ref();
        let index = base.index.as_ref().expect("taken with the transaction");
        base.end = WalPosition { salts: index.salts, frame: index.mx_frame, checksum: index.frame_checksum };
        base.pages = index.pages;
        if index.mx_frame == 0 {
            // No frames, so that the file is the whole database, and nothing names what changed
            // since the last capture.
            base.only = None;
            base.end.checksum = Default::default();
            base.step = BaseStep::Size;
        } else {
            self.base_overlay_or_survey(now, out);
        }
    }

    pub(super) fn base_overlay_or_survey(&mut self, now: Now, out: &mut Actions) {
        let head = self.head.clone();
        let base = self.base_ref();
        let index = base.index.expect("taken with the transaction");
        if base.wanted.prove
            && !base.wanted.at_end
            && let Some(head) = head
        {
            base.end_at_head(&head.header, &index);
        }
        let needs_frames = base.end.frame > 0 && (!base.frozen || base.end.frame != index.mx_frame);
        if base.pages == 0 {
            return self.base_source_failed(now, "the database has no pages", out);
        }
        if needs_frames || (base.end.frame > 0 && base.last_page.is_none()) {
            base.step = BaseStep::WalHeader;
        } else {
            self.base_survey();
        }
    }

    pub(super) fn base_wal_header(&mut self, now: Now, reply: &LinkReply, out: &mut Actions) {
        let bytes = reply.bytes.as_deref().unwrap_or_default();
        let base = self.base_ref();
        match WalHeader::decode(bytes) {
            Ok(header) if header.salts == base.end.salts && header.page_size == base.page_size => {
                base.scanner = Some(Scanner::from_header(&header));
                base.step = BaseStep::Overlay;
            }
            // Restarted under a pin on mark zero: the file alone is the state, as it is.
            _ if base.frozen => {
                base.only = None;
                self.base_survey();
            }
            _ => {
                self.base_source_failed(now, "the WAL's header is not the one that the wal-index names", out)
            }
        }
    }

    pub(super) fn base_overlay(&mut self, now: Now, reply: &LinkReply, out: &mut Actions) {
        let base = self.base_ref();
        let bytes = reply.bytes.as_deref().unwrap_or_default();
        let mut scanner = base.scanner.take().expect("set with the header");
        let (overlay, last_page, end) = (&mut base.overlay, &mut base.last_page, base.end.frame);
        let (frozen, only) = (base.frozen, &mut base.only);
        let result = scanner.scan(bytes, end, &mut |no, frame, _| {
            if let Some(only) = only {
                // It may have been committed after the last capture.
                only.insert(frame.page.get());
            }
            if !frozen {
                overlay.insert(frame.page.get(), no);
            }
            *last_page = Some(frame.page);
        });
        let at = scanner.position();
        base.scanner = Some(scanner);
        match result {
            Ok(n) if n > 0 && at.frame < end => {}
            Ok(n) if n > 0 => {
                let whole = base
                    .index
                    .as_ref()
                    .is_some_and(|index| index.mx_frame != end || index.frame_checksum == at.checksum);
                base.end = at;
                if whole {
                    return self.base_survey();
                }
                self.base_source_failed(
                    now,
                    "the WAL's checksum at its end differs from the wal-index's",
                    out,
                );
            }
            _ if base.frozen => {
                base.last_page = None;
                base.only = None;
                self.base_survey();
            }
            _ => self.base_source_failed(now, "the WAL does not hold what the wal-index says", out),
        }
    }
}
