//! Decoding the objects of a plan and writing what they hold.
//!
//! One object after the other, and what one piece gave is written before the next is decoded: a
//! later frame must not be overtaken by an earlier one of the same page. Reads go on ahead.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::cmp::Ordering;

use super::machine::{Key, Phase, Then, Work};
use super::pieces::Pieces;
use super::{
    LegacyListed, LegacyObject, LegacyPart, LegacyRestorer, UnpackJob, UnpackNext, UnpackOutput, Unpacker,
};
use crate::ids::Now;
use crate::job::Job;
use crate::machine::{Actions, Chunk, Exit, Fact, OutputRequest, Request, Severity};

/// How far the objects are decoded.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Apply {
    /// The object being decoded.
    at: usize,
    pieces: Pieces,
    /// `None` while a job has it.
    unpacker: Option<Box<Unpacker>>,
    /// It stopped at its limit of output and has more without further bytes.
    more: bool,
    /// Whether it has been given the last bytes of its object.
    last: bool,
    /// Whether everything is decoded, and only a write is left.
    done: bool,
    /// Whether a write is under way.
    writing: bool,
    /// Bytes of all objects, those given to it so far, and those that people have been told of.
    bytes: u64,
    bytes_done: u64,
    told: u64,
}

impl Apply {
    fn new(unpacker: Unpacker, bytes: u64) -> Apply {
        Apply {
            at: 0,
            pieces: Pieces::default(),
            unpacker: Some(Box::new(unpacker)),
            more: false,
            last: false,
            done: false,
            writing: false,
            bytes,
            bytes_done: 0,
            told: 0,
        }
    }

    /// The object that a piece under way belongs to.
    pub(super) fn listed_of(&self, number: u64, objects: &[LegacyListed]) -> Option<LegacyListed> {
        objects.get(self.pieces.get(number)?.at).copied()
    }

    /// The next job, if the decoder is here and can go on.
    fn next_job(&mut self) -> Option<UnpackJob> {
        if self.writing || self.done {
            return None;
        }
        self.unpacker.as_ref()?;
        let bytes = if self.more {
            None
        } else {
            let (piece, bytes) = self.pieces.take()?;
            assert_eq!(piece.at, self.at, "pieces come in the order of their objects");
            self.last = piece.last;
            self.bytes_done += piece.len;
            Some(bytes)
        };
        self.more = false;
        Some(UnpackJob { unpacker: self.unpacker.take()?, bytes, last: self.last })
    }
}

impl LegacyRestorer {
    pub(super) fn begin_apply(&mut self, now: Now, out: &mut Actions) {
        let mut unpacker = Unpacker::new(self.limit, self.config.pending_byte);
        unpacker.begin(self.objects()[0].object);
        let bytes = self.objects().iter().map(|it| it.len).sum();
        self.phase = Phase::Apply(Box::new(Apply::new(unpacker, bytes)));
        self.pump(now, out);
    }

    /// Lets the decoder go on, once what it gave before is written, and reads ahead.
    fn pump(&mut self, now: Now, out: &mut Actions) {
        let Phase::Apply(apply) = &mut self.phase else { return };
        let job = apply.next_job();
        let objects = self.plan.as_ref().map_or(&[][..], |plan| &plan.objects);
        apply.pieces.ask(now, objects, self.config.lanes(), Key::Piece, &mut self.flight, out);
        if let Some(job) = job {
            self.submit(Work::Unpack, Request::Compute(Job::Unpack(job)), out);
        }
    }

    pub(super) fn take_piece(&mut self, now: Now, key: Key, bytes: Chunk, out: &mut Actions) {
        let (Key::Piece(number), Phase::Apply(apply)) = (key, &mut self.phase) else { return };
        apply.pieces.arrived(number, bytes);
        self.pump(now, out);
    }

    pub(super) fn unpacked(&mut self, now: Now, output: UnpackOutput, out: &mut Actions) {
        let UnpackOutput { unpacker, writes, next } = output;
        let Phase::Apply(apply) = &mut self.phase else { return };
        self.state = (unpacker.page_size(), unpacker.pages(), unpacker.frames());
        apply.unpacker = Some(unpacker);
        apply.more = next == UnpackNext::More;
        apply.writing = !writes.is_empty();
        let at = apply.at;
        if !writes.is_empty() {
            self.submit(Work::Write, Request::Output(OutputRequest::Write(writes)), out);
        }
        self.tell(out);
        match next {
            UnpackNext::Bytes | UnpackNext::More => self.pump(now, out),
            UnpackNext::Failed(fault) => {
                let error = format!("{}: {fault}", self.objects()[at].object);
                self.corrupt(error, out);
            }
            UnpackNext::End(bytes) => self.object_ended(now, bytes, out),
        }
    }

    fn tell(&mut self, out: &mut Actions) {
        let Phase::Apply(apply) = &mut self.phase else { return };
        if apply.bytes_done - apply.told >= (apply.bytes / 64).max(1) {
            apply.told = apply.bytes_done;
            let fact = Fact::Progress { what: "restoring bytes", done: apply.bytes_done, total: apply.bytes };
            out.notify(Severity::Info, fact);
        }
    }

    /// An object has ended after so many bytes of content: what follows it must fit.
    fn object_ended(&mut self, now: Now, bytes: u64, out: &mut Actions) {
        let Phase::Apply(apply) = &self.phase else { return };
        let (ended, next) =
            (self.objects()[apply.at].object, self.objects().get(apply.at + 1).map(|it| it.object));
        let unpacker = apply.unpacker.as_ref().expect("a job brought it back");
        if let Err(error) = check_joint(unpacker, ended, bytes, next) {
            return self.corrupt(error, out);
        }
        let Phase::Apply(apply) = &mut self.phase else { return };
        match (next, &mut apply.unpacker) {
            (Some(next), Some(unpacker)) => {
                unpacker.begin(next);
                apply.at += 1;
                self.pump(now, out);
            }
            _ => self.applied(out),
        }
    }

    fn corrupt(&mut self, error: String, out: &mut Actions) {
        let hint = "restore a state before it with -generation and -index, or bring the object back".into();
        self.settle(Then::Exit(Exit::Corrupt { error, hint }), out);
    }

    /// Every object is decoded; a write may be under way.
    fn applied(&mut self, out: &mut Actions) {
        let Phase::Apply(apply) = &mut self.phase else { return };
        let unpacker = apply.unpacker.as_ref().expect("a job brought it back");
        if let Some(limit) = unpacker.tail() {
            let text = format!(
                "the wal of index {:08x} ends in the middle of a transaction; restoring once more, up to its frame {}",
                limit.index, limit.frame
            );
            out.notify(Severity::Warn, Fact::Remark { text });
            return self.settle(Then::Create(limit), out);
        }
        apply.done = true;
        let idle = !apply.writing;
        if let Err(fault) = unpacker.check_size() {
            let error = format!("{}: {fault}", self.objects()[0].object);
            return self.corrupt(error, out);
        }
        if idle {
            self.set_len(out);
        }
    }

    fn set_len(&mut self, out: &mut Actions) {
        let (page_size, pages, _) = self.state;
        let len = u64::from(pages) * page_size.map_or(0, |size| u64::from(size.get()));
        self.phase = Phase::SetLen;
        self.submit(Work::Output, Request::Output(OutputRequest::SetLen(len)), out);
    }

    /// The write has ended.
    pub(super) fn written(&mut self, now: Now, out: &mut Actions) {
        let Phase::Apply(apply) = &mut self.phase else { return };
        apply.writing = false;
        match apply.done {
            true => self.set_len(out),
            false => self.pump(now, out),
        }
    }
}

/// Whether `next` may follow an object that has ended after so many bytes of content; the error
/// names what is missing or damaged.
fn check_joint(
    unpacker: &Unpacker,
    ended: LegacyObject,
    bytes: u64,
    next: Option<LegacyObject>,
) -> Result<(), String> {
    let LegacyPart::Wal { offset } = ended.part else { return Ok(()) };
    let ends = offset + bytes;
    if let Some(next) = next.filter(|next| next.index == ended.index) {
        let due = LegacyObject { part: LegacyPart::Wal { offset: ends }, ..ended };
        return match next.cmp(&due) {
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(format!("{due} is missing, although {next} follows it")),
            Ordering::Less => Err(format!("{next}: it begins before {ended} ends, which is at byte {ends}")),
        };
    }
    unpacker.check_end().map_err(|fault| format!("{ended}: {fault}"))?;
    match (unpacker.tail(), next) {
        (Some(limit), Some(next)) => Err(format!(
            "{ended}: the wal ends in the middle of a transaction, after frame {}, although {next} follows",
            limit.frame
        )),
        _ => Ok(()),
    }
}
