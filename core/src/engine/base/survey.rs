//! The first pass: every page's checksum, and what follows from them.

use super::*;
use crate::machine::Exit;

impl Replicator {
    pub(super) fn base_survey(&mut self) {
        if self.base_ref().only.is_some() {
            let old = self.history.table.clone();
            self.base_ref().table = old.unwrap_or_default();
        }
        let base = self.base_ref();
        base.table.resize(base.pages);
        base.chunk = (1, 1);
        self.base_next_chunk(1);
    }

    /// The next chunk from page `from` on, or the end of the pass.
    pub(super) fn base_next_chunk(&mut self, from: u32) {
        let old_pages = self.history.table.as_ref().map_or(0, PageTable::pages);
        let bytes_max = u32::try_from(self.config.pending_bytes_max).unwrap_or(u32::MAX).min(READ_BYTES);
        let base = self.base_ref();
        let per_chunk = (bytes_max / base.page_size.get()).max(1);
        let start = if base.second_pass {
            base.differ.range(from..).next().copied()
        } else if let Some(only) = &base.only {
            let grown = (from.max(old_pages + 1) <= base.pages).then_some(from.max(old_pages + 1));
            let dirty = only.range(from..).next().copied().filter(|page| *page <= base.pages);
            [grown, dirty].into_iter().flatten().min()
        } else {
            (from <= base.pages).then_some(from)
        };
        match start {
            Some(start) => {
                base.chunk = (start, start.saturating_add(per_chunk).min(base.pages + 1));
                base.step = BaseStep::Read;
            }
            None if base.second_pass => {
                base.chunk = (base.pages + 1, base.pages + 1);
                base.buffer = Vec::new();
                base.step = BaseStep::Encode;
            }
            None => base.step = BaseStep::Sum,
        }
        if start.is_none() && !base.second_pass {
            base.chunk = (base.pages + 1, base.pages + 1);
            base.buffer = Vec::new();
        }
    }

    pub(super) fn base_read(&mut self, reply: &LinkReply) {
        let index = self.source.index;
        let base = self.base_ref();
        let pages = (base.chunk.1 - base.chunk.0) as usize;
        let mut buffer = reply.bytes.as_deref().unwrap_or_default().to_vec();
        buffer.resize(pages * base.page_size.bytes(), 0);
        base.buffer = buffer;
        base.patches =
            base.overlay.range(base.chunk.0..base.chunk.1).map(|(page, frame)| (*page, *frame)).collect();
        if base.second_pass {
            let differ = &base.differ;
            base.patches.retain(|(page, _)| differ.contains(page));
        }
        if let (Some(aside), Some(index)) = (&base.aside, index) {
            base.aside_runs = aside.runs(base.chunk.0..base.chunk.1);
            let mut patches = core::mem::take(&mut base.patches);
            patches.retain(|(page, _)| base.is_in_wal(&index) && !aside.holds(*page));
            base.patches = patches;
        }
        base.step = base.after_patches();
    }

    pub(super) fn base_patched(&mut self, now: Now, reply: &LinkReply, out: &mut Actions) {
        let salts = self.source.index.as_ref().map(|index| index.salts);
        let base = self.base_ref();
        if base.is_followed() && salts != Some(base.end.salts) {
            // The WAL was started over meanwhile: all that was in it stands in the file now.
            base.step = BaseStep::Read;
            return;
        }
        let (page, _) = base.patches.pop().expect("set with the step");
        let bytes = reply.bytes.as_deref().unwrap_or_default();
        let at = (page - base.chunk.0) as usize * base.page_size.bytes();
        if bytes.len() != base.page_size.bytes() {
            return self.base_source_failed(now, "the WAL is shorter than the wal-index says", out);
        }
        base.buffer[at..at + bytes.len()].copy_from_slice(bytes);
        base.step = base.after_patches();
    }

    /// The checksums of a chunk, or of none at the end of the survey.
    pub(super) fn base_summed(&mut self, now: Now, sums: &[u64], out: &mut Actions) {
        if sums.is_empty() {
            return self.base_surveyed(now, out);
        }
        let budget = self.config.pending_bytes_max;
        // A successor's first segment takes the next name, and has a page.
        let fences = self.is_unfenced() && !mutant::on(Mutant::SuccessionUnfenced);
        let old = self.history.table.take();
        let base = self.base_ref();
        let images = base.summed_chunk.take().expect("kept for the images");
        for (page, sum) in (base.chunk.0..base.chunk.1).zip(sums) {
            if page == base.lock_page.get() && !mutant::on(Mutant::LockPageWritten) {
                continue;
            }
            let no = PageNo::new(page).expect("pages count from 1");
            // Of a page that is known to have changed, an equal checksum says nothing: CRC-64/ISO is
            // the same after changes of two bytes, eight apart, that fit each other, as two counters
            // side by side make them.
            let changed =
                base.only.as_ref().is_some_and(|only| only.contains(&page)) || (page == 1 && fences);
            if !changed && old.as_ref().is_some_and(|old| old.get(no) == Some(*sum)) {
                base.table.set(no, *sum);
                continue;
            }
            base.table.set(no, *sum);
            base.differ.insert(page);
            if let Some(kept) = &mut base.kept {
                let at = (page - base.chunk.0) as usize * base.page_size.bytes();
                let image = images[at..at + base.page_size.bytes()].to_vec();
                base.kept_bytes += image.len();
                kept.push((no, Chunk::from(image)));
            }
            if base.kept_bytes > budget {
                base.kept = None;
            }
        }
        let (done, total, next) = (base.chunk.1 - 1, base.pages, base.chunk.1);
        self.history.table = old;
        out.notify(
            Severity::Debug,
            Fact::Progress { what: "surveying pages", done: u64::from(done), total: u64::from(total) },
        );
        self.base_next_chunk(next);
    }

    pub(super) fn base_surveyed(&mut self, now: Now, out: &mut Actions) {
        if self.base_ref().wanted.prove {
            return self.base_proven(now, out);
        }
        let base = self.base_ref();
        let written = base.differ.iter().any(|page| *page > 1);
        let unchanged = base.differ.is_empty() && !base.wanted.full;
        let same_pages = self
            .history
            .point
            .as_ref()
            .is_some_and(|point| point.pages == self.base.as_ref().map_or(0, |b| b.pages));
        if self.is_unfenced() && (written || !same_pages) {
            // It was the copy of a state; what stands there now is in no history, and came too early for this.
            let error = "the database was written to before this host was the primary".into();
            let hint = "start the application by -exec or lease.promote; what it wrote is kept beside the copy \
                        when this host stands by again";
            return self.stop(Exit::Failed { error, hint: hint.into() }, out);
        }
        if unchanged && same_pages && self.history.table.is_some() {
            return self.base_unchanged(out);
        }
        let full = self.history.table.is_none();
        let base = self.base_ref();
        let in_segment = base.last_page.is_some_and(|page| base.differ.contains(&page.get()));
        let (page_size, pages, end) = (base.page_size, base.pages, base.end);
        let span = match in_segment {
            true => WalSpan::between(None, end, page_size),
            false => WalSpan::NONE,
        };
        let kept = base.kept.take();
        let header = self.header(page_size, pages, span, now.wall);
        let draft = self.draft(header, full, Some(end));
        match kept {
            Some(images) => {
                let differ = images.iter().map(|(page, _)| *page);
                let xor = self.base_ref().table.xor_without(differ, pages);
                self.base_finish(out);
                self.start_encoding(draft, xor, images, out);
            }
            None => self.base_stream(draft),
        }
    }

    pub(super) fn base_unchanged(&mut self, out: &mut Actions) {
        let file = self.source.file();
        let end = self.base_ref().end;
        if let Some(point) = &mut self.history.point {
            point.wal = Some(end);
            point.file = file;
        }
        self.history.seal = None;
        out.notify(Severity::Info, Fact::Remark { text: "the survey found no difference".into() });
        self.base_finish(out);
        // Behind a hole it would be read as the position of an earlier point.
        if !self.journal.broken {
            let op = self.append(&Record::Moved { file, wal: end }, out);
            self.upload = crate::engine::upload::Upload::Done { op };
        }
        self.once_is_done();
    }

    /// Whether the survey shows that the source is the head's.
    pub(super) fn base_proven(&mut self, now: Now, out: &mut Actions) {
        let post = self.base_ref().table.checksum();
        let copied = self.source.index.as_ref().map_or(0, |index| index.n_backfill);
        let base = self.base_ref();
        let end_holds = base.frozen || copied <= base.end.frame;
        let head = self.head.clone().expect("there is a head to prove against");
        let header = head.header;
        let base = self.base_ref();
        let proven = end_holds
            && header.chain.post == Some(post)
            && header.commit == base.pages
            && header.page_size == base.page_size;
        let at_head = base.end.frame != base.index.map_or(0, |index| index.mx_frame);
        if !proven && at_head {
            // Not in the head's state where the head's header points: it may be in it now.
            let wanted = BaseWanted { at_end: true, ..base.wanted.clone() };
            self.base = None;
            self.base_wanted = Some(wanted);
            return;
        }
        if !proven && base.wanted.fence {
            let error = format!(
                "the replica's head {} is of lineage {} and this database is not in its state",
                head.object,
                header.lineage.map_or("none".to_string(), |l| l.to_string())
            );
            return self.stop(crate::engine::standing::fenced(error), out);
        }
        let mut wanted = base.wanted.clone();
        if !proven {
            wanted.prove = false;
            self.base = None;
            self.base_wanted = Some(wanted);
            return;
        }
        let end = base.end;
        let table = core::mem::take(&mut base.table);
        let file = self.source.file();
        self.history.point = Some(point_of(&header, file, Some(end)));
        self.history.table = Some(table);
        out.notify(Severity::Info, Fact::Adopted { txid: head.txid() });
        self.base_finish(out);
        // Written down whole, and before the next put, since the journal knows nothing of this
        // history.
        self.journal.bytes = u64::MAX / 4;
        self.journal_pump(now, out);
        self.once_is_done();
    }
}
