//! From a path to a proven position: the files' facts, the header, the first pin, continuity.

use super::*;
use crate::engine::Failure;
use crate::engine::standing::plan_writer;
use crate::mutant::{self, Mutant};

impl Replicator {
    pub(super) fn wait_for(&mut self, now: Now, waiting: Waiting, out: &mut Actions) {
        if self.config.once {
            return self.stop(Exit::Failed { error: waiting.why, hint: waiting.hint }, out);
        }
        self.source.script.clear();
        self.source.retry = Retry::default();
        self.source.sweep_at = Some(now.mono.after(SWEEP));
        self.source.drained = self.source.is_unchanged_since_asked();
        if self.waiting.as_ref() != Some(&waiting) {
            let fact = Fact::Waiting { why: waiting.why.clone(), hint: waiting.hint.clone() };
            out.notify(Severity::Warn, fact);
        }
        self.waiting = Some(waiting);
    }

    /// No read transaction is to be had: whoever holds the lock may be committing. It is tried again.
    pub(super) fn locked_out(&mut self, now: Now, error: &str, out: &mut Actions) {
        let waiting = Waiting {
            why: format!("nobody but the application may read the database ({error})"),
            hint: "an application with PRAGMA locking_mode=EXCLUSIVE shares no memory with others: run it with NORMAL".into(),
            unseen: true,
        };
        if self.config.once {
            return self.stop(Exit::Failed { error: waiting.why, hint: waiting.hint }, out);
        }
        if self.waiting.as_ref() != Some(&waiting) {
            let fact = Fact::Waiting { why: waiting.why.clone(), hint: waiting.hint.clone() };
            out.notify(Severity::Warn, fact);
        }
        self.waiting = Some(waiting);
        self.detach(now, error, out);
    }

    pub(super) fn admit(&mut self, now: Now, admission: Admission, out: &mut Actions) -> bool {
        match admission {
            Admission::Open => true,
            Admission::Wait { why, hint, unseen } => {
                self.wait_for(now, Waiting { why: why.into(), hint: hint.into(), unseen }, out);
                false
            }
            Admission::Refuse { why, hint } => {
                self.stop(Exit::Misconfigured { error: why, hint: hint.into() }, out);
                false
            }
        }
    }

    pub(super) fn stat_done(&mut self, now: Now, facts: Option<Box<SourceFacts>>, out: &mut Actions) {
        if let Some(facts) = facts.as_deref().filter(|facts| self.nothing_happened(Some(facts))) {
            // By a seal of an earlier run, or without the `-wal` that our own closing has removed.
            self.source.sealed_wal = Some(facts.wal);
            self.next_step();
            self.waiting = None;
            self.source.drained = self.source.is_unchanged_since_asked();
            self.synced.verify(self.source.op_since);
            self.synced.captured = Some(self.source.op_since);
            return;
        }
        if !self.admit(now, plan_admission(facts.as_deref()), out) {
            return;
        }
        self.source.facts = facts;
        self.next_step();
        self.begin_script(&[Step::ReadHeader]);
    }

    /// Whether the files of a source that was let go are as we left them: our own closing makes
    /// events too.
    pub(super) fn nothing_happened(&self, facts: Option<&SourceFacts>) -> bool {
        if self.base_wanted.is_some() {
            return false;
        }
        let (Some(facts), Some(seal)) = (facts, &self.history.seal) else { return false };
        let left = self.source.sealed_wal.flatten();
        let wal_as_left = facts.wal.is_none_or(|wal| wal.size == 0 || Some(wal) == left);
        *seal == SealRecord::of(facts) && (wal_as_left || mutant::on(Mutant::FailedAttachSeen))
    }

    pub(super) fn header_done(&mut self, now: Now, header: &[u8], out: &mut Actions) {
        if !self.admit(now, plan_header(header), out) {
            return;
        }
        self.source.page_size = PageSize::from_u16(u16::from_be_bytes([header[16], header[17]]));
        if self.source.page_size.is_none() {
            let admission = Admission::Refuse {
                why: format!(
                    "the database header names page size {}",
                    u16::from_be_bytes([header[16], header[17]])
                ),
                hint: "the file is damaged",
            };
            self.admit(now, admission, out);
            return;
        }
        self.source.reserved_bytes = header[20];
        let warning = plan_writer(header);
        if let Some(text) = warning.clone().filter(|_| warning != self.warning) {
            out.notify(Severity::Warn, Fact::Remark { text });
        }
        self.warning = warning;
        self.next_step();
        self.begin_script(&[Step::Open, Step::BeginFirst, Step::BeginOther, Step::HandOver, Step::Prove]);
    }

    /// The WAL header, the frame at our position and the files' facts have been read under a pin.
    pub(super) fn prove_done(&mut self, now: Now, facts: Option<Box<SourceFacts>>, out: &mut Actions) {
        let same = facts.as_ref().is_some_and(|new| same_file(self.source.facts.as_deref(), new));
        let (Some(facts), true) = (facts, same) else {
            return self.detach(now, "the database file changed while it was being opened", out);
        };
        self.source.created_wal = self.source.found_no_wal();
        let index = self.source.index.expect("a pin stands");
        let page_size = self.source.page_size.expect("read before opening");
        let sighting = Sighting { facts: &facts, index: &index, page_size, mark: self.source.mark };
        if self.waiting.take().is_some() {
            out.notify(Severity::Info, Fact::Recovered { what: "access to the database".into() });
        }
        out.notify(Severity::Info, Fact::Attached);
        self.source.said_attached = true;
        self.synced.attach(self.source.op_since);
        self.source.retry.clear();
        self.source.last_activity = now.mono;
        self.set_quiet(now);
        self.next_step();
        if self.base_wanted.is_none() {
            let continuity = match (&self.history.point, &self.history.table) {
                (Some(point), Some(_)) => plan_continuity(point, self.history.seal.as_ref(), sighting),
                _ => Continuity::Rebase { why: "the local page table is lost".into() },
            };
            match continuity {
                Continuity::From(position) => {
                    self.source.position = Some(position);
                    self.source.facts = Some(facts);
                    self.after_look(now);
                    self.begin_script(&[Step::Capture]);
                    return;
                }
                Continuity::WalStart => {
                    let mut at = WalPosition { salts: index.salts, frame: 0, checksum: Default::default() };
                    at.salts = index.salts;
                    self.source.position = Some(at);
                    self.source.facts = Some(facts);
                    self.begin_script(&[Step::Capture]);
                    return;
                }
                Continuity::Rebase { why } => {
                    let known = self.history.table.is_some()
                        && self.history.point.as_ref().is_some_and(|point| point.page_size == page_size);
                    self.want_base(why, !known && self.history.table.is_none(), false, false);
                }
            }
        }
        self.source.facts = Some(facts);
    }

    pub(super) fn prove_part(&mut self, now: Now, part: Part, reply: &LinkReply, out: &mut Actions) {
        if part == Part::Moved {
            let moved = reply.moved && !mutant::on(Mutant::ThirdFileAttached);
            let facts = self.source.proof_facts.take().filter(|_| !moved);
            return self.prove_done(now, facts, out);
        }
        let bytes = reply.bytes.as_deref().unwrap_or_default();
        if part == Part::Header {
            if !self.header_still_holds(bytes) && !mutant::on(Mutant::HeaderNotReread) {
                return self.detach(now, "the database changed while it was being opened", out);
            }
            let request = SourceRequest::ReadWal { offset: 0, len: WAL_HEADER_BYTES as u32, recent: false };
            return self.source_submit(now, Part::WalHeader, request, out);
        }
        if part == Part::WalHeader {
            let point =
                self.history.point.as_ref().and_then(|point| point.wal.map(|wal| (wal, point.page_size)));
            if let Some((wal, page_size)) = point.filter(|(wal, _)| wal.frame > 0) {
                let request = SourceRequest::ReadWal {
                    offset: frame_offset(page_size, wal.frame),
                    len: FRAME_HEADER_BYTES as u32,
                    recent: false,
                };
                return self.source_submit(now, Part::Mark, request, out);
            }
        } else {
            self.source.mark = bytes.first_chunk().and_then(FrameHeader::decode);
        }
        self.source_submit(now, Part::Facts, SourceRequest::Stat, out);
    }

    /// Whether the header that was read before the link was opened is still the database's: until
    /// a read transaction stands, the application may leave WAL mode and change the page size.
    pub(super) fn header_still_holds(&self, header: &[u8]) -> bool {
        plan_header(header) == Admission::Open
            && PageSize::from_u16(u16::from_be_bytes([header[16], header[17]])) == self.source.page_size
            && header[20] == self.source.reserved_bytes
    }

    pub(super) fn attach_failed(&mut self, now: Now, error: &SourceError, out: &mut Actions) {
        match error.kind {
            SourceErrorKind::Missing => {
                let wait = plan_admission(None);
                self.admit(now, wait, out);
            }
            SourceErrorKind::Denied => {
                let hint = "give the user that runs driftless read and write access to the database, its -wal, its -shm and their directory";
                let waiting = Waiting { why: error.text.clone(), hint: hint.into(), unseen: true };
                self.wait_for(now, waiting, out);
            }
            SourceErrorKind::NotADatabase => {
                let hint = "name a plain SQLite database; encrypted files are not supported";
                self.admit(now, Admission::Refuse { why: error.text.clone(), hint }, out);
            }
            SourceErrorKind::Busy | SourceErrorKind::Io => {
                self.source.script.clear();
                let draw = self.draw();
                let wait = self.source.retry.fail(now.mono, draw);
                self.source.changed_while_cold = true;
                let failure = Failure { text: error.text.clone(), hint: "".into() };
                self.say_retry("opening the database", failure, wait, out);
            }
        }
    }
}

pub(super) fn same_file(known: Option<&SourceFacts>, new: &SourceFacts) -> bool {
    known.is_some_and(|known| (known.device, known.inode) == (new.device, new.inode))
}
