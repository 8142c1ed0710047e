//! The second pass: a segment too large for memory, read again and sent as it is encoded.

use super::*;
use crate::engine::upload::Landed;

impl Replicator {
    pub(super) fn base_stream(&mut self, draft: crate::engine::upload::Draft) {
        let mut header = draft.header;
        let pending_byte = self.config.pending_byte;
        let exclusive = self.config.create_if_absent;
        let base = self.base_ref();
        let post = base.table.checksum();
        header.chain.post = Some(post);
        let sums: Vec<(PageNo, u64)> = base
            .differ
            .iter()
            .filter_map(|page| PageNo::new(*page))
            .map(|page| (page, base.table.get(page).expect("summed in the survey")))
            .collect();
        let record =
            Step { pre: draft.pre, to: point_of(&header, draft.file, draft.wal), full: draft.full, sums };
        let mut first = Vec::new();
        let encoder = Encoder::packed(&header, draft.packing, &mut first).with_pending_byte(pending_byte);
        let object = Object { level: Level::CAPTURES, range: header.range };
        base.stream = Some(Box::new(Stream {
            header,
            object,
            put: None,
            encoder: Some(encoder),
            out: alloc::vec![Chunk::from(first)],
            finished: false,
            bytes: 0,
            frames: draft.frames,
            record: Some(record),
        }));
        base.second_pass = true;
        base.step = if exclusive { BaseStep::Open } else { BaseStep::Vacant };
        // None of it has been read in this pass.
        base.chunk = (1, 1);
        if !self.base_stays {
            self.scratch_files += 1;
            let aside = Aside::new(self.scratch_files, self.base_ref().pages);
            self.base_ref().aside = Some(aside);
            self.base_hand_over();
        }
    }

    pub(super) fn base_encoded(
        &mut self,
        now: Now,
        encoder: Option<Encoder>,
        bytes: Chunk,
        sums: &[(PageNo, u64)],
        out: &mut Actions,
    ) {
        let table = &self.base_ref().table;
        let other = sums.iter().find(|(page, sum)| table.get(*page) != Some(*sum));
        if let Some((page, _)) = other.filter(|_| !mutant::on(Mutant::AsideForgotten)) {
            let why = format!("page {page} is not as it was surveyed: something else writes to the file");
            self.base_stays = core::mem::replace(&mut self.base_differed, true);
            return self.base_source_failed(now, &why, out);
        }
        let base = self.base_ref();
        let stream = base.stream.as_mut().expect("only a stream encodes");
        stream.finished = encoder.is_none();
        stream.encoder = encoder;
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + PART_BYTES_MAX).min(bytes.len());
            stream.out.push(bytes.slice(at, end));
            at = end;
        }
        self.base_send_or_read();
    }

    pub(super) fn base_send_or_read(&mut self) {
        let base = self.base_ref();
        let stream = base.stream.as_ref().expect("only called while streaming");
        if !stream.out.is_empty() {
            base.step = BaseStep::Part;
        } else if stream.finished {
            base.step = BaseStep::Intent;
        } else {
            let next = base.chunk.1;
            self.base_next_chunk(next);
        }
    }

    pub(super) fn base_stored(&mut self, now: Now, op: OpId, out: &mut Actions) {
        let base = self.base_ref();
        match base.step {
            BaseStep::Vacant => {
                let taken = StoreError::new(StoreErrorKind::AlreadyExists, "another segment stands there");
                self.base_store_failed(now, taken, out);
            }
            BaseStep::Open => {
                base.stream.as_mut().expect("set with the step").put = Some(op);
                self.base_send_or_read();
            }
            BaseStep::Part => {
                let done = base.chunk.1.saturating_sub(1);
                let total = base.pages;
                out.notify(
                    Severity::Debug,
                    Fact::Progress { what: "writing pages", done: u64::from(done), total: u64::from(total) },
                );
                self.base_send_or_read();
            }
            BaseStep::Commit => {
                base.step = BaseStep::Landed;
                self.landed(now, Landed::Base, out);
            }
            step => unreachable!("{step:?} asks nothing of the store"),
        }
    }

    /// The base is the head.
    pub(in crate::engine) fn base_is_stored(&mut self, out: &mut Actions) {
        let stream = self.base_ref().stream.take().expect("a base that has landed was a stream");
        let step = stream.record.expect("written down before the commit");
        self.history.advance(&step);
        self.frames_replicated = stream.frames;
        self.last_error = None;
        self.base_retry.clear();
        self.tried.clear();
        out.notify(
            Severity::Info,
            Fact::Replicated { txid: step.to.txid, bytes: stream.bytes, pages: step.sums.len() as u32 },
        );
        self.base_finish(out);
        self.finish_stored(out);
    }

    /// A stream cannot be sent again from memory: begin again from a fresh survey, except that a
    /// put whose fate is unknown, or that found its name taken, is read back first.
    pub(super) fn base_store_failed(&mut self, now: Now, error: StoreError, out: &mut Actions) {
        let base = self.base_ref();
        if base.step == BaseStep::Vacant && error.kind == StoreErrorKind::NotFound {
            base.step = BaseStep::Open;
            return;
        }
        if self.ends_at(&error) {
            return self.stop_failed("writing to the replica", error, out);
        }
        let base = self.base.take().expect("only called while a base is under way");
        self.drop_aside(&base, out);
        let stream = base.stream.expect("only a stream asks the store");
        if let Some(put) = stream.put.filter(|_| base.step == BaseStep::Part) {
            self.submit(Request::Store(StoreRequest::PutAbort { put }), out);
        }
        let unknown = matches!(error.kind, StoreErrorKind::AlreadyExists)
            || (base.step == BaseStep::Commit && error.kind == StoreErrorKind::Ambiguous);
        self.tried.extend(stream.header.chain.post);
        let draw = self.draw();
        let longest = self.store_retry_max();
        let wait = self.base_retry.fail_within(now.mono, draw, longest);
        self.say_retry("writing the base", (&error).into(), wait, out);
        self.base_wanted = Some(base.wanted);
        if unknown {
            let retry = self.base_retry.clone();
            self.settle_stream(now, stream.header, stream.object, retry);
        }
    }
}
