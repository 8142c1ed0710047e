//! Writing a later state into the copy: some files, one transaction.
//!
//! Page 1 comes after all other pages, since it says what they are, and the cut after that: SQLite
//! forgets a cut with the next page that is written. It cuts only what was there when the transaction
//! began, so one that makes the database grow ends with the file that does; and where the files of a base must be
//! one transaction, pages beyond the state that they lead to are not written at all.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::machine::{Follower, Key, Phase, Then};
use super::{Position, encode_positions, mask};
use crate::engine::decode_header;
use crate::ids::{Now, PageNo, Txid};
use crate::job::Job;
use crate::ltx::{Dictionary, DictionaryId, LTX_HEADER_BYTES, LtxError, LtxHeader};
use crate::machine::{
    Actions, ByteRange, Chunk, CopyReply, CopyRequest, Fact, Listed, Severity, StoreError, StoreReply,
    StoreRequest,
};
use crate::mutant::{self, Mutant};
use crate::restore::{Decoded, Next, Purpose, Reader, Stream, Wins, check_name};

/// Files that one transaction takes, at the most; and bytes of them after which it takes no more.
const BATCH_FILES: u32 = 256;
const BATCH_BYTES: u64 = 16 << 20;

/// What is asked of the copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Begin,
    /// Asking for the size of the state that a base leads to.
    Size,
    /// Reading, decoding and writing pages.
    Pages,
    Save,
    Finish,
    Commit,
}

/// A transaction on its way into the copy.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Apply {
    step: Step,
    /// The file that is read, and those after it.
    files: VecDeque<Listed>,
    /// Whether the first of them stands alone and what the copy shows does not matter.
    base: bool,
    reader: Option<Reader>,
    header: Option<LtxHeader>,
    /// What to do once the pages at hand are written.
    next: Option<Next>,
    /// Whether the file that is read holds every page.
    full: bool,
    /// The state so far.
    have: Option<Txid>,
    /// Pages of the database before the file that is read.
    pages_before: u32,
    /// Pages of the database when the transaction was begun.
    pages_at_begin: u32,
    /// Pages of the state that the files of a base lead to.
    limit: Option<u32>,
    /// The newest image of page 1.
    first: Option<Chunk>,
    coming: Option<Position>,
    files_done: u32,
    bytes_done: u64,
    pages_written: u64,
}

impl Follower {
    /// Begins a transaction that takes as many of `files` as are fit for one.
    pub(super) fn apply(&mut self, files: Vec<Listed>, base: bool, out: &mut Actions) {
        let pages = self.table.as_ref().map_or(0, |table| table.pages());
        self.phase = Phase::Apply(Box::new(Apply {
            step: Step::Begin,
            files: files.into(),
            base,
            reader: None,
            header: None,
            next: None,
            full: false,
            have: self.position.map(|it| it.txid),
            pages_before: pages,
            pages_at_begin: pages,
            limit: None,
            first: None,
            coming: None,
            files_done: 0,
            bytes_done: 0,
            pages_written: 0,
        }));
        self.copy(CopyRequest::Begin, out);
    }

    fn state(&mut self) -> &mut Apply {
        match &mut self.phase {
            Phase::Apply(apply) => apply,
            phase => panic!("called within a transaction, not in {phase:?}"),
        }
    }

    /// A request to the copy has been carried out.
    pub(super) fn wrote(&mut self, now: Now, reply: CopyReply, out: &mut Actions) {
        let version = self.version;
        let apply = self.state();
        match (apply.step, reply) {
            (Step::Begin, CopyReply::Begun(found)) if found != version => {
                self.trouble("another connection has written to the copy, or restarted its wal".into(), out);
            }
            (Step::Begin, _) if apply.base && apply.files.len() > 1 => {
                apply.step = Step::Size;
                let object = apply.files.back().expect("there are several").object;
                let range = ByteRange::At { offset: 0, len: LTX_HEADER_BYTES as u64 };
                self.flight.send(now, Key::Size, StoreRequest::Get { object, range }, out);
            }
            (Step::Begin, _) => {
                apply.step = Step::Pages;
                self.open_file(now, out);
            }
            (Step::Pages, _) => self.go_on(now, out),
            (Step::Save, _) => self.finish(out),
            (Step::Finish, _) => {
                apply.step = Step::Commit;
                self.copy(CopyRequest::Commit, out);
            }
            (Step::Commit, _) => self.committed(now, out),
            (Step::Size, reply) => panic!("nothing was asked of the copy, and it answers {reply:?}"),
        }
    }

    /// The header of a base's last file says how large the database is in the end.
    pub(super) fn took_size(&mut self, now: Now, bytes: &[u8], out: &mut Actions) {
        let Phase::Apply(apply) = &mut self.phase else { return };
        match decode_header(bytes) {
            Ok(header) => {
                (apply.limit, apply.step) = (Some(header.commit), Step::Pages);
                self.open_file(now, out);
            }
            Err(error) => {
                let object = apply.files.back().expect("there are several").object;
                self.blame(object, error.to_string(), out);
            }
        }
    }

    fn open_file(&mut self, now: Now, out: &mut Actions) {
        let pending_byte = self.config.restore.pending_byte;
        let pages = self.table.as_ref().map_or(0, |table| table.pages());
        let dictionaries = self.dictionaries.clone();
        let apply = self.state();
        let listed = *apply.files.front().expect("a way holds a file");
        let stream = Stream::new(Purpose::Images, Wins::default(), pending_byte, &dictionaries);
        apply.reader = Some(Reader::new(listed, stream));
        (apply.header, apply.full, apply.pages_before) = (None, false, pages);
        self.pump(now, out);
    }

    fn pump(&mut self, now: Now, out: &mut Actions) {
        let parallelism = self.config.restore.lanes();
        let Phase::Apply(apply) = &mut self.phase else { return };
        let Some(reader) = &mut apply.reader else { return };
        reader.read_ahead(now, &mut self.flight, parallelism, Key::Piece, out);
        if let Some(job) = reader.next_job() {
            self.compute(Job::Restore(job), out);
        }
    }

    pub(super) fn took_piece(&mut self, now: Now, offset: u64, bytes: Chunk, len: u64, out: &mut Actions) {
        let Phase::Apply(apply) = &mut self.phase else { return };
        let Some(reader) = &mut apply.reader else { return };
        if reader.listed.object != apply.files[0].object {
            return;
        }
        if reader.listed.len != len {
            let text = format!("{} has changed its length since it was listed", reader.listed.object);
            return self.trouble(text, out);
        }
        reader.arrived(offset, bytes);
        // While pages are written or decoded, the decoder goes on when that is done.
        if apply.next.is_none() {
            self.pump(now, out);
        }
    }

    pub(super) fn took_dictionary(
        &mut self,
        now: Now,
        id: DictionaryId,
        result: Result<StoreReply, StoreError>,
        out: &mut Actions,
    ) {
        let text = match result {
            Ok(StoreReply::Bytes { bytes, .. }) => match Dictionary::read(id, &bytes) {
                Ok(dictionary) => {
                    self.dictionaries.add(dictionary);
                    return self.open_file(now, out);
                }
                Err(text) => text,
            },
            Ok(reply) => panic!("a host answers in kind: a dictionary is not {reply:?}"),
            Err(error) => format!("dictionary {id}: {}", error.text),
        };
        let object = self.state().files[0].object;
        self.blame(object, text, out);
    }

    pub(super) fn streamed(
        &mut self,
        now: Now,
        stream: Box<Stream>,
        decoded: Decoded,
        next: Next,
        out: &mut Actions,
    ) {
        let object = self.state().files[0].object;
        if let Next::Failed(LtxError::Dictionary { id }) = next
            && !self.dictionaries.has(id)
        {
            // Nothing of the file was read but its header: it is begun anew.
            self.state().reader = None;
            self.flight.cancel_all(out);
            return self.flight.send(now, Key::Dictionary(id), StoreRequest::GetDictionary { id }, out);
        }
        if let Next::Failed(error) = next {
            return self.blame(object, error.to_string(), out);
        }
        let apply = self.state();
        if let (None, Some(header)) = (apply.header, stream.header().copied()) {
            apply.header = Some(header);
            match self.check_header(&header) {
                Verdict::Fits => {}
                Verdict::Wrong(text) => return self.blame(object, text, out),
                Verdict::OtherHistory(text) => {
                    self.rebase = Some(text);
                    return self.close(Then::Again(Duration::ZERO), out);
                }
                Verdict::OtherPageSize => {
                    let why = "the page size has changed: another file takes the copy's place".into();
                    out.notify(Severity::Warn, Fact::Base { full: true, why });
                    return self.close(Then::Replace, out);
                }
            }
        }
        let apply = self.state();
        apply.full = stream.is_full();
        apply.next = Some(next);
        if let Some(reader) = &mut apply.reader {
            reader.back(stream, &next);
        }
        self.take_pages(now, decoded, out);
    }

    /// Whether a file may be applied to the state at hand, by what it says.
    fn check_header(&mut self, header: &LtxHeader) -> Verdict {
        let table = self.table.as_mut().expect("the copy was surveyed");
        let Phase::Apply(apply) = &self.phase else { unreachable!("within a transaction") };
        if let Some(text) = check_name(&apply.files[0], header) {
            return Verdict::Wrong(text);
        }
        let first_of_base = apply.base && apply.files_done == 0;
        if header.page_size != table.page_size() {
            return Verdict::OtherPageSize;
        }
        let adjoins = apply.have.map(Txid::next) == Some(header.range.min());
        if let Some(pre) = header.chain.pre.filter(|_| adjoins && !first_of_base)
            && pre != table.state()
        {
            let (range, state) = (header.range, table.state());
            let text = format!("transactions {range} lead from state {pre}, and the copy shows {state}");
            return match apply.base {
                true => Verdict::Wrong(text),
                false => Verdict::OtherHistory(text),
            };
        }
        // No page takes less than 16 bytes in a file: a damaged size must not decide about memory.
        let room = u64::from(table.pages()) + apply.files[0].len / 16 + 1;
        if u64::from(header.commit) > room {
            let commit = header.commit;
            return Verdict::Wrong(format!(
                "commit at byte 12: expected at most {room} pages, found {commit}"
            ));
        }
        table.resize(header.commit);
        Verdict::Fits
    }

    /// Takes decoded pages and writes those that differ.
    fn take_pages(&mut self, now: Now, decoded: Decoded, out: &mut Actions) {
        let table = self.table.as_mut().expect("the copy was surveyed");
        let Phase::Apply(apply) = &mut self.phase else { return };
        let mut writes = Vec::new();
        for (&(page, sum), image) in decoded.sums.iter().zip(decoded.images) {
            let changed = table.set(page, sum);
            if page == PageNo::FIRST {
                apply.first = Some(image);
            } else if changed
                && (apply.limit.is_none_or(|limit| page.get() <= limit) || mutant::on(Mutant::BaseUncut))
            {
                writes.push((page, image));
            }
        }
        apply.pages_written += writes.len() as u64;
        match writes.is_empty() {
            true => self.go_on(now, out),
            false => self.copy(CopyRequest::Write(writes), out),
        }
    }

    /// What was decoded is written.
    fn go_on(&mut self, now: Now, out: &mut Actions) {
        match self.state().next.take() {
            Some(Next::End(_)) => self.file_done(now, out),
            _ => self.pump(now, out),
        }
    }

    fn file_done(&mut self, now: Now, out: &mut Actions) {
        if let Some(text) = self.fault() {
            let object = self.state().files[0].object;
            return self.blame(object, text, out);
        }
        let pages = self.table.as_ref().map_or(0, |table| table.pages());
        let apply = self.state();
        apply.reader = None;
        let file = apply.files.pop_front().expect("it was read");
        apply.have = Some(file.object.range.max());
        apply.files_done += 1;
        apply.bytes_done += file.len;
        // A base is one state; what lies between its files is older than what readers have seen.
        // SQLite cuts only what was there before: once the database has grown the transaction ends.
        let few = apply.files_done < BATCH_FILES && apply.bytes_done < BATCH_BYTES;
        let room = apply.base || (few && pages <= apply.pages_at_begin);
        if room && !apply.files.is_empty() {
            return self.open_file(now, out);
        }
        self.seal(out);
    }

    /// What is wrong with the file that was read, by the state that it led to.
    fn fault(&self) -> Option<String> {
        let Phase::Apply(apply) = &self.phase else { return None };
        let (table, header) = (self.table.as_ref()?, apply.header?);
        if apply.base && apply.files_done == 0 && !apply.full {
            return Some("expected every page of the database, found some missing".into());
        }
        if let Some(page) = table.missing(apply.pages_before + 1) {
            return Some(format!("expected every page by which the database grew, found {page} missing"));
        }
        let (expected, found) = (header.chain.post?, table.state());
        (expected != found).then(|| {
            format!("post-state at byte 88: expected {expected}, found {found} by the pages of the copy")
        })
    }

    /// Names the coming state in the position file, before it can come to be.
    fn seal(&mut self, out: &mut Actions) {
        let before = self.position;
        let table = self.table.as_ref().expect("the copy was surveyed");
        let (page_size, pages, state) = (table.page_size(), table.pages(), table.state());
        let Phase::Apply(apply) = &mut self.phase else { return };
        let header = apply.header.expect("a file was read");
        let sums = match &apply.first {
            Some(page) => (crate::checksum::page_checksum(PageNo::FIRST, page), mask(page)),
            None => before.map(|it| (it.first, it.masked)).expect("a base holds page 1"),
        };
        let txid = apply.have.expect("a file was applied");
        let (first, masked, stamp) = (sums.0, sums.1, header.stamp);
        let coming = Position { txid, page_size, pages, state, first, masked, stamp, doubtful: false };
        apply.coming = Some(coming);
        apply.step = Step::Save;
        self.named = before.into_iter().chain([coming]).collect();
        self.copy(CopyRequest::Save(Chunk::from(encode_positions(&self.named))), out);
    }

    fn finish(&mut self, out: &mut Actions) {
        let apply = self.state();
        apply.step = Step::Finish;
        apply.pages_written += u64::from(apply.first.is_some());
        let first = apply.first.as_ref().map(|page| {
            let mut page = page.to_vec();
            // The copy is in WAL mode, whatever the source was in.
            page[18..20].fill(2);
            Chunk::from(page)
        });
        let pages = apply.coming.expect("it was sealed").pages;
        let cut = (pages < apply.pages_at_begin).then_some(pages);
        self.copy(CopyRequest::Finish { first, cut }, out);
    }

    fn committed(&mut self, now: Now, out: &mut Actions) {
        let Phase::Apply(apply) = core::mem::replace(&mut self.phase, Phase::Idle) else { return };
        let position = apply.coming.expect("it was sealed");
        self.position = Some(position);
        self.commits += 1;
        self.went_well(out);
        if apply.base {
            self.rebases += 1;
            self.rebase = None;
            (self.ours, self.config.replace) = (false, false);
        }
        let lag_ms = now.wall.0.saturating_sub(position.stamp.0).max(0) as u64;
        let Apply { files_done: files, bytes_done: bytes, pages_written: pages, .. } = *apply;
        out.notify(Severity::Info, Fact::Followed { txid: position.txid, files, bytes, pages, lag_ms });
        match apply.files.is_empty() {
            // News may have come meanwhile, but is not looked for more often than was asked.
            true => self.rest(),
            false => self.apply(apply.files.into(), false, out),
        }
    }
}

/// What a file's header says of it.
enum Verdict {
    Fits,
    /// The file is not what its name says, or damaged.
    Wrong(String),
    /// It does not follow the state at hand.
    OtherHistory(String),
    OtherPageSize,
}
