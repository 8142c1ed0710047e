//! Running a script: one request a step, what its answer means, and what a failure leaves.

use super::*;
use crate::mutant::{self, Mutant};

impl Replicator {
    pub(super) fn source_submit(&mut self, now: Now, part: Part, request: SourceRequest, out: &mut Actions) {
        let op = self.submit(Request::Source(request), out);
        self.source.op = Some((op, part));
        self.source.op_since = now.mono;
    }

    pub(super) fn start_step(&mut self, now: Now, step: Step, out: &mut Actions) {
        let home = self.source.home;
        let other = home.other();
        let request = match step {
            Step::Stat | Step::Verify | Step::SealFacts => SourceRequest::Stat,
            Step::ReadHeader => SourceRequest::ReadHeader,
            Step::Open => SourceRequest::Open,
            Step::BeginFirst => SourceRequest::BeginRead(Slot::A),
            Step::BeginOther => SourceRequest::BeginRead(other),
            Step::HandOver | Step::EndPin => SourceRequest::EndRead(home),
            Step::Checkpoint => SourceRequest::CheckpointPassive(home),
            Step::BeginPin => SourceRequest::BeginRead(home),
            Step::EndOther => SourceRequest::EndRead(other),
            Step::Lock => {
                self.source.step_until.get_or_insert(now.mono.after(LOCK_TRY));
                SourceRequest::BeginImmediate(other)
            }
            Step::Unlock => SourceRequest::Rollback(other),
            Step::Truncate => SourceRequest::CheckpointTruncate(other),
            Step::Look => SourceRequest::Look,
            Step::Close => SourceRequest::Close { leave_wal: !self.source.created_wal },
            Step::Capture => return self.capture_next(now, out),
            Step::Tail => self.tail_request(),
            Step::Prove => {
                let request = SourceRequest::ReadDatabase { offset: 0, len: 100, recent: false };
                return self.source_submit(now, Part::Header, request, out);
            }
        };
        self.source_submit(now, Part::Only, request, out);
    }

    pub(in crate::engine) fn source_completed(&mut self, now: Now, outcome: Outcome, out: &mut Actions) {
        let (_, part) = self.source.op.take().expect("the caller checked that it is awaited");
        let Some(step) = self.source.script.front().copied() else {
            unreachable!("a request belongs to the step in front");
        };
        match outcome {
            Outcome::Source(Ok(reply)) => self.step_done(now, step, part, reply, out),
            // The capture goes on.
            Outcome::Scratch(Ok(_)) => {}
            Outcome::Scratch(Err(error)) => self.aside_failed(now, &error, out),
            Outcome::Source(Err(error)) => self.step_failed(now, step, error, out),
            other => unreachable!("the source answers with its own outcomes, not {other:?}"),
        }
    }

    /// Reads the wal-index that came with an answer. A torn one is looked at again.
    pub(in crate::engine) fn take_index(&mut self, reply: &LinkReply, since: Mono) -> Result<(), ()> {
        let Some(raw) = &reply.index else { return Err(()) };
        match WalIndex::parse(raw) {
            Ok(index) => {
                self.source.index = Some(index);
                self.source.index_at = since;
                self.source.index_is_old = false;
                Ok(())
            }
            Err(_) => Err(()),
        }
    }

    pub(super) fn step_done(
        &mut self,
        now: Now,
        step: Step,
        part: Part,
        reply: SourceReply,
        out: &mut Actions,
    ) {
        match (step, reply) {
            (Step::Stat, SourceReply::Facts(facts)) => self.stat_done(now, facts, out),
            (Step::ReadHeader, SourceReply::Header(header)) => self.header_done(now, &header, out),
            (Step::Verify, SourceReply::Facts(facts)) => self.verify_done(now, facts, out),
            (Step::SealFacts, SourceReply::Facts(facts)) => self.seal_done(now, facts, out),
            (Step::Prove, SourceReply::Facts(facts)) => {
                // The path can name a third file by now that has the number of the first: only
                // SQLite knows which one it has open.
                self.source.proof_facts = facts;
                self.source_submit(now, Part::Moved, SourceRequest::HasMoved, out);
            }
            (Step::Close, SourceReply::Closed) => self.close_done(now, out),
            (step, SourceReply::Link(reply)) => self.link_done(now, step, part, &reply, out),
            (step, reply) => unreachable!("{step:?} is not answered by {reply:?}"),
        }
    }

    pub(super) fn next_step(&mut self) {
        self.source.script.pop_front();
        self.source.step_until = None;
        self.source.step_again = None;
    }

    pub(super) fn again_soon(&mut self, now: Now, wait: Duration) {
        self.source.step_again = Some(now.mono.after(wait));
    }

    pub(super) fn link_done(
        &mut self,
        now: Now,
        step: Step,
        part: Part,
        reply: &LinkReply,
        out: &mut Actions,
    ) {
        let before = self.source.index;
        let seen = self.take_index(reply, self.source.op_since);
        self.source.index_is_old |= seen.is_err();
        let judged = step == Step::Open || part == Part::Header || self.step_took_effect(step);
        if seen.is_err() && !judged {
            // Torn or not there: a writer is in the middle of publishing it. Nothing hangs on this
            // answer but the look.
            return self.look_again(now, out);
        }
        if step == Step::Capture {
            // The answers of a long capture are many: only torn ones in a row count.
            self.source.step_until = None;
        }
        match step {
            Step::Open => {
                self.source.open = true;
                self.source.sealed_wal = None;
                self.source.read_only = reply.read_only;
                // Not before a transaction has stood in each slot: of a connection that has read nothing
                // SQLite does not ask whether its file still has the name before it deletes the -wal.
                self.source.created_wal = self.source.found_no_wal() && mutant::on(Mutant::ClosesUnproven);
                self.next_step();
            }
            Step::BeginFirst | Step::BeginOther | Step::BeginPin => {
                self.begun(step, before.as_ref(), seen.is_ok())
            }
            Step::HandOver => {
                self.source.pin = self.source.other.take();
                self.source.home = self.source.home.other();
                self.next_step();
            }
            Step::EndPin => {
                self.source.pin = None;
                self.next_step();
            }
            Step::EndOther => self.end_other(now, out),
            Step::Lock => {
                self.source.locked = true;
                self.source.lock_failed = false;
                self.source.lock_refusals = 0;
                self.source.lock_since = Some(now.mono);
                self.next_step();
            }
            Step::Unlock => {
                self.source.locked = false;
                let held = self.rest_lock(now);
                self.next_step();
                self.after_checkpoint(now, Some(held), out);
            }
            Step::Truncate => self.next_step(),
            Step::Tail => self.tail_read(reply),
            Step::Checkpoint => {
                self.source.copying_took = now.mono.since(self.source.op_since);
                self.next_step();
            }
            Step::Look => self.looked(now),
            Step::Capture => self.captured(now, part, reply, out),
            Step::Prove => self.prove_part(now, part, reply, out),
            step => unreachable!("{step:?} does not use the link"),
        }
    }

    /// Steps whose effect stands even when the index that came along was torn.
    fn step_took_effect(&self, step: Step) -> bool {
        !matches!(step, Step::Look | Step::Capture | Step::Prove)
    }

    fn begun(&mut self, step: Step, before: Option<&WalIndex>, seen: bool) {
        let class = match (before, &self.source.index) {
            (Some(before), Some(after)) if seen => classify(before, after),
            _ => PinClass::Unproven,
        };
        let pin = Pin { restartable: class != PinClass::Mark, complete: false };
        match step {
            Step::BeginOther => self.source.other = Some(pin),
            _ => self.source.pin = Some(pin),
        }
        self.next_step();
    }

    fn end_other(&mut self, now: Now, out: &mut Actions) {
        self.source.other = None;
        self.next_step();
        self.after_checkpoint(now, None, out);
    }

    pub(super) fn step_failed(&mut self, now: Now, step: Step, error: SourceError, out: &mut Actions) {
        if let Some(index) = error.index.as_deref().and_then(|raw| WalIndex::parse(raw).ok()) {
            self.source.index = Some(index);
            self.source.index_at = self.source.op_since;
        }
        let busy = error.kind == SourceErrorKind::Busy;
        match step {
            Step::Stat | Step::ReadHeader | Step::Open => self.attach_failed(now, &error, out),
            Step::Lock if busy => self.lock_busy(now),
            Step::Truncate if busy => self.next_step(),
            Step::Checkpoint if busy => self.checkpoint_busy(now),
            Step::BeginPin if busy && self.source.locked => {
                let held = self.source.lock_since.map(|at| now.mono.since(at));
                match held {
                    Some(held) if held < LOCK_HOLD => self.again_soon(now, LOCK_AGAIN),
                    _ => self.detach(now, "no read transaction was to be had under the write lock", out),
                }
            }
            Step::BeginPin if busy => {
                // The other slot's transaction still stands: it is the pin now.
                self.source.pin = self.source.other.take();
                self.source.home = self.source.home.other();
                self.abandon(now);
            }
            // Until continuity is proven there is nothing to fall back to: the link is of no use.
            Step::BeginFirst | Step::BeginOther if busy && mutant::on(Mutant::BusyAttachKept) => {
                self.abandon(now)
            }
            Step::BeginFirst | Step::BeginOther if busy && self.source.script.contains(&Step::Prove) => {
                let until = *self.source.step_until.get_or_insert(now.mono.after(Duration::from_secs(5)));
                match until <= now.mono {
                    true => self.locked_out(now, &error.text, out),
                    false => self.again_soon(now, Duration::from_millis(5)),
                }
            }
            Step::BeginOther if busy => self.abandon(now),
            Step::Close => self.close_done(now, out),
            _ => self.detach(now, &format!("{step:?} failed: {}", error.text), out),
        }
    }

    /// Gives up the script; what stands stays.
    pub(super) fn abandon(&mut self, now: Now) {
        self.source.passes_left = 0;
        self.source.script.clear();
        self.source.step_until = None;
        self.source.target = None;
        self.source.checkpoint_at = Some(now.mono.after(SCRIPT_AGAIN));
        if self.source.other.is_some() {
            self.begin_script(&[Step::EndOther]);
        }
        if !self.source.final_turn {
            self.source.look_at.get_or_insert(now.mono.after(SCRIPT_AGAIN));
        }
    }
}
