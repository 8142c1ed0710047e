//! Reading headers and page indexes: which transaction belongs to a time, and which file
//! provides which page.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::machine::{File, Key, Phase, Restorer, Then, Work};
use super::overlap::Early;
use super::present::Presence;
use super::{Claimed, Claims, HELD_BYTES_MAX, RestoreJob};
use crate::checksum::DbXor;
use crate::ids::{Now, Txid, Wall};
use crate::ltx::{LTX_HEADER_BYTES, LtxError, LtxHeader};
use crate::machine::{Actions, ByteRange, Chunk, Exit, Listed, StoreRequest};
use crate::mutant::{self, Mutant};

/// What is read of a file's end at first.
const TAIL_BYTES: u64 = 64 << 10;
/// A file no longer than this is fetched whole at once while there is room.
const WHOLE_BYTES_MAX: u64 = 1 << 20;
/// Of files that are read whole, this part at the least should be wanted.
const WANTED_PART: u64 = 4;
/// Of a snapshot that is not longer than this the index is read ahead, and held until all files after it
/// have been read.
const AHEAD_BYTES_MAX: u64 = 1 << 30;

/// No page takes less than this in a segment: a frame header, a compressed page, an index entry.
const PAGE_BYTES_MIN: u64 = 16;

/// Looking for the highest transaction stamped at or before a time.
///
/// Transactions are tried from the highest down, a few at a time, until one qualifies: stamps
/// may stand still or step back, so that the order of transactions is the only one there is. Of
/// several files that end at one transaction that of the lowest level knows best when it was
/// captured; a snapshot's stamp is that of the snapshot.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Stamps {
    time: Wall,
    /// Descending by max, then ascending by level.
    candidates: Vec<(Listed, Dated)>,
    asked: usize,
}

/// What is known about a candidate.
#[derive(Clone, PartialEq, Debug)]
enum Dated {
    Unknown,
    Stamp(Wall),
    Damaged(String),
}

impl Stamps {
    pub(super) fn listed(&self, at: usize) -> Option<Listed> {
        self.candidates.get(at).map(|(listed, _)| *listed)
    }

    /// The transaction, if the answers so far decide it.
    fn decide(&self) -> Verdict {
        let mut damaged: Option<(Listed, &str)> = None;
        let mut lowest = None;
        for (at, (listed, dated)) in self.candidates.iter().enumerate() {
            let max = listed.object.range.max();
            if lowest == Some(max) {
                continue;
            }
            if let Some((object, text)) = damaged
                && object.object.range.max() != max
            {
                return Verdict::Damaged(format!("{}: {text}", object.object));
            }
            match dated {
                Dated::Unknown => return Verdict::Open(at),
                Dated::Stamp(stamp) if *stamp < self.time => return Verdict::Found(max),
                Dated::Stamp(stamp) if *stamp == self.time && !mutant::on(Mutant::TimeExcluded) => {
                    return Verdict::Found(max);
                }
                Dated::Stamp(_) => {
                    lowest = Some(max);
                    damaged = None;
                }
                Dated::Damaged(text) => damaged = damaged.or(Some((*listed, text))),
            }
        }
        match damaged {
            Some((object, text)) => Verdict::Damaged(format!("{}: {text}", object.object)),
            None => Verdict::Before,
        }
    }
}

enum Verdict {
    /// The candidate at this place decides.
    Open(usize),
    Found(Txid),
    Damaged(String),
    Before,
}

/// Reading the plan's files from the newest to the oldest.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Survey {
    /// The lowest file asked for.
    asked_down_to: usize,
    /// The file whose pages are claimed next.
    at: usize,
    /// `None` before the newest header is known, and while a job has them.
    claims: Option<Claims>,
    started: bool,
    /// Bytes of files asked for or held whole.
    held: u64,
    /// Of the files claimed last: their bytes, and those of them that are wanted.
    seen: u64,
    wanted: u64,
}

impl Survey {
    fn new(count: usize) -> Survey {
        Survey {
            asked_down_to: count,
            at: count - 1,
            claims: None,
            started: false,
            held: 0,
            seen: 0,
            wanted: 0,
        }
    }

    /// All files from this one on have been claimed.
    pub(super) fn claimed_down_to(&self) -> usize {
        self.at + 1
    }

    /// A file that was held whole is not any more.
    pub(super) fn release(&mut self, len: u64) {
        self.held -= len;
    }

    /// Whether a file is read whole for its index. One that is not costs a request for its beginning, one
    /// for its end, and one or more for what is wanted of it; one that is, bytes that may not be wanted:
    /// the further back, the less is.
    fn reads_whole(&self, len: u64, room: u64) -> bool {
        let worth = self.wanted * WANTED_PART >= self.seen;
        len <= TAIL_BYTES || (len <= WHOLE_BYTES_MAX && self.held + len <= room && worth)
    }

    /// Notes what a file has come to, the last eight above all.
    fn note(&mut self, file: &File) {
        let wanted: u64 = file.wins.as_slice().iter().map(|win| u64::from(win.size)).sum();
        self.wanted = self.wanted - self.wanted / 8 + wanted;
        self.seen = self.seen - self.seen / 8 + file.listed.len;
    }
}

impl Restorer {
    pub(super) fn begin_stamps(&mut self, now: Now, time: Wall, out: &mut Actions) {
        let usable = self.usable();
        let mut candidates: Vec<Listed> = usable.objects().to_vec();
        candidates.sort_by_key(|it| (core::cmp::Reverse(it.object.range.max()), it.object.level));
        if candidates.is_empty() {
            return self.begin_plan(now, out);
        }
        let candidates = candidates.into_iter().map(|listed| (listed, Dated::Unknown)).collect();
        self.phase = Phase::Stamps(Stamps { time, candidates, asked: 0 });
        self.pump_stamps(now, out);
    }

    fn pump_stamps(&mut self, now: Now, out: &mut Actions) {
        let Phase::Stamps(stamps) = &mut self.phase else { return };
        match stamps.decide() {
            Verdict::Found(txid) => {
                self.flight.cancel_all(out);
                self.target = Some(txid);
                self.begin_plan(now, out);
            }
            Verdict::Damaged(error) => {
                let hint =
                    "its time is unknown, and so is whether it is wanted; name a state with -txid".into();
                self.settle(Then::Exit(Exit::Corrupt { error, hint }), out);
            }
            Verdict::Before => {
                let first = stamps.candidates.iter().filter_map(|(_, dated)| match dated {
                    Dated::Stamp(stamp) => Some(stamp.0),
                    _ => None,
                });
                let first = first.min().unwrap_or_default();
                let error = format!(
                    "nothing was captured at or before {} ms since 1970; the earliest stamp is {first} ms",
                    stamps.time.0
                );
                let hint = "choose a later time".into();
                self.settle(Then::Exit(Exit::NothingToRestore { error, hint }), out);
            }
            Verdict::Open(at) => {
                let end = (at + self.config.parallelism).min(stamps.candidates.len());
                for at in stamps.asked.max(at)..end {
                    // Of the files that end at one transaction the first decides, unless damaged.
                    let (listed, _) = stamps.candidates[at];
                    let first = |it: &(Listed, Dated)| it.0.object.range.max() != listed.object.range.max();
                    if at > 0
                        && !first(&stamps.candidates[at - 1])
                        && !matches!(stamps.candidates[at - 1].1, Dated::Damaged(_))
                    {
                        continue;
                    }
                    self.flight.send(now, Key::Stamp(at), head_request(&listed), out);
                }
                stamps.asked = stamps.asked.max(end);
            }
        }
    }

    pub(super) fn take_stamp(&mut self, now: Now, at: usize, bytes: &Chunk, out: &mut Actions) {
        let Phase::Stamps(stamps) = &mut self.phase else { return };
        let (listed, dated) = &mut stamps.candidates[at];
        match read_header(listed, bytes) {
            Ok(header) => *dated = Dated::Stamp(header.stamp),
            Err(text) => {
                *dated = Dated::Damaged(text);
                // The next that ends there was passed over in the hope of this one.
                stamps.asked = stamps.asked.min(at + 1);
            }
        }
        self.pump_stamps(now, out);
    }

    pub(super) fn begin_survey(&mut self, now: Now, out: &mut Actions) {
        let count = self.files.len();
        assert!(count > 0, "a plan holds a file");
        self.used_from = 0;
        self.pages_done = 0;
        self.told = 0;
        self.xor = DbXor::new();
        self.asked.clear();
        self.phase = Phase::Survey(Survey::new(count));
        if self.spared == Some(count) {
            // The target itself stands in its place.
            let header = self.target_header().expect("it was placed by this header");
            let claims = Claims::new(header.page_size, header.commit, self.config.pending_byte);
            self.used_from = count;
            return self.surveyed(now, &claims, out);
        }
        self.pump_survey(now, out);
    }

    /// What is held of files that were read whole, before more are asked for.
    fn room(&self) -> u64 {
        (self.config.parallelism as u64 * WHOLE_BYTES_MAX).min(HELD_BYTES_MAX)
    }

    /// Asks for files ahead of the one whose turn it is, and for that one in any case; then for the index
    /// of the oldest.
    pub(super) fn pump_survey(&mut self, now: Now, out: &mut Actions) {
        let (room, parallelism) = (self.room(), self.config.parallelism);
        let sated = self.is_sated();
        let oldest = self.spared.unwrap_or(0) == 0;
        loop {
            let Phase::Survey(survey) = &mut self.phase else { return };
            let lowest = (survey.at + 1).saturating_sub(parallelism).max(self.spared.unwrap_or(0));
            let full = sated || (self.fetch.is_some() && survey.held >= room);
            let waits = full && survey.asked_down_to <= survey.at;
            if self.flight.len() + 2 > 2 * parallelism {
                return;
            }
            if survey.asked_down_to <= lowest || waits {
                if oldest && tells_its_index(&self.files[0].listed) {
                    self.ask_index(now, 0, out);
                }
                return;
            }
            survey.asked_down_to -= 1;
            let at = survey.asked_down_to;
            let listed = self.files[at].listed;
            let (object, len) = (listed.object, listed.len);
            if survey.reads_whole(len, room) && !self.files[at].asked {
                survey.held += len;
                self.files[at].asked = true;
                let request = StoreRequest::Get { object, range: ByteRange::At { offset: 0, len } };
                self.flight.send(now, Key::Whole(at), request, out);
            } else {
                self.ask_index(now, at, out);
            }
        }
    }

    /// Asks for the header and the index of a file, unless that was done. How long the index of a large
    /// snapshot is, its header tells.
    fn ask_index(&mut self, now: Now, at: usize, out: &mut Actions) {
        let file = &mut self.files[at];
        if core::mem::replace(&mut file.asked, true) {
            return;
        }
        let (listed, header) = (file.listed, file.header);
        if header.is_none() {
            self.flight.send(now, Key::Head(at), head_request(&listed), out);
        }
        if header.is_some() || !tells_its_index(&listed) {
            self.ask_tail(now, at, out);
        }
    }

    fn ask_tail(&mut self, now: Now, at: usize, out: &mut Actions) {
        let (listed, header) = (self.files[at].listed, self.files[at].header);
        let whole = header.filter(|_| tells_its_index(&listed));
        let tail = whole.map_or(TAIL_BYTES, |header| index_bytes(&header, listed.len)).min(listed.len);
        let request = StoreRequest::Get { object: listed.object, range: ByteRange::Tail(tail) };
        self.flight.send(now, Key::Tail(at), request, out);
    }

    pub(super) fn take_survey(&mut self, now: Now, key: Key, bytes: Chunk, out: &mut Actions) {
        let at = match key {
            Key::Head(at) | Key::Tail(at) | Key::Whole(at) => at,
            _ => unreachable!("called for the survey's own reads"),
        };
        let file = &mut self.files[at];
        if !matches!(key, Key::Tail(_)) {
            match read_header(&file.listed, &bytes) {
                Ok(header) => file.header = Some(header),
                // Perhaps it does not matter; that shows when its turn comes.
                Err(text) => file.fault = Some(text),
            }
        }
        if matches!(key, Key::Head(_)) && tells_its_index(&file.listed) && file.header.is_some() {
            self.ask_tail(now, at, out);
        }
        let file = &mut self.files[at];
        if !matches!(key, Key::Head(_)) {
            file.tail = Some(bytes.clone());
        }
        if matches!(key, Key::Whole(_)) {
            file.body = Some(bytes);
        }
        self.pump_claims(now, out);
    }

    /// Hands the next file to a job if it is complete and the job of the one before has ended.
    fn pump_claims(&mut self, now: Now, out: &mut Actions) {
        let Phase::Survey(survey) = &mut self.phase else { return };
        let at = survey.at;
        let file = &self.files[at];
        if let Some(text) = file.fault.clone() {
            return self.blame_file(at, text, out);
        }
        let (Some(header), Some(tail)) = (file.header, file.tail.clone()) else { return };
        if !survey.started {
            // A damaged size must not decide how much memory is asked for.
            let bytes: u64 = self.files.iter().map(|file| file.listed.len).sum();
            let pages_max = bytes / PAGE_BYTES_MIN + 1;
            if u64::from(header.commit) > pages_max {
                let text = format!(
                    "commit at byte 12: expected at most {pages_max}, as many as all files can hold, found {}",
                    header.commit
                );
                return self.blame_file(at, text, out);
            }
            survey.started = true;
            survey.claims = Some(Claims::new(header.page_size, header.commit, self.config.pending_byte));
        }
        let Some(claims) = survey.claims.take() else { return };
        let target = self.files.last().and_then(|file| file.header).expect("the newest header comes first");
        if header.page_size != target.page_size {
            let (expected, found) = (target.page_size, header.page_size);
            let text =
                format!("page size at byte 8: expected {expected} as in {}, found {found}", target.range);
            return self.blame_file(at, text, out);
        }
        let job = RestoreJob::Claim { claims, header, tail, file_bytes: file.listed.len };
        self.compute(Work::Claim(at), job, out);
        self.begin_early(out);
        self.pump_survey(now, out);
    }

    pub(super) fn claimed(
        &mut self,
        now: Now,
        at: usize,
        claims: Claims,
        result: Result<Claimed, LtxError>,
        out: &mut Actions,
    ) {
        let room = self.room();
        let proof = self.target_header().is_some_and(|header| header.chain.post.is_some());
        let Phase::Survey(survey) = &mut self.phase else { return };
        let file = &mut self.files[at];
        let claimed = match result {
            Ok(claimed) => claimed,
            Err(LtxError::NeedMore { bytes }) if bytes <= file.listed.len => {
                survey.claims = Some(claims);
                file.tail = None;
                let request = StoreRequest::Get { object: file.listed.object, range: ByteRange::Tail(bytes) };
                return self.flight.send(now, Key::Tail(at), request, out);
            }
            Err(error) => return self.blame_file(at, error.to_string(), out),
        };
        let waits = self.early != Early::Open && survey.held > room;
        if file.body.is_some() && (claimed.wins.as_slice().is_empty() || waits) {
            survey.release(file.listed.len);
            file.body = None;
        }
        file.tail = None;
        file.wins = claimed.wins;
        file.runs = claimed.runs;
        file.ranged = proof && file.is_chained();
        survey.note(file);
        if claimed.full || at == self.spared.unwrap_or(0) {
            self.used_from = at;
            return self.surveyed(now, &claims, out);
        }
        survey.claims = Some(claims);
        survey.at = at - 1;
        self.fetch_claimed(now, out);
        self.pump_survey(now, out);
        self.pump_claims(now, out);
    }

    /// All that matters is known.
    fn surveyed(&mut self, now: Now, claims: &Claims, out: &mut Actions) {
        let surveys = |key| matches!(key, Key::Head(_) | Key::Tail(_) | Key::Whole(_));
        self.flight.cancel(surveys, out);
        if let (Some(_), Presence::Seen(present)) = (self.spared, &self.presence) {
            if claims.left_beyond(present.pages()) {
                let why = "the files since the state in the target's place do not hold all by which it grew";
                return self.restore_whole(why, out);
            }
            self.pages_kept = claims.left().into();
        } else if claims.left() > 0 {
            let page = claims.first_left().map_or(0, |page| page.get());
            let at = self.grown_at(page);
            let text = format!(
                "commit at byte 12: expected every page by which the database grew, found {} missing, the first of them {page}",
                claims.left()
            );
            return self.blame_file(at, text, out);
        }
        if let Some((at, text)) = self.broken_link() {
            return self.blame_file(at, text, out);
        }
        if self.config.dry_run {
            return self.settle(Then::Exit(Exit::Done), out);
        }
        self.begin_dictionaries(now, out);
    }

    /// The file that last made the database grow past `page`.
    fn grown_at(&self, page: u32) -> usize {
        let commit = |at: usize| self.files[at].header.map_or(0, |header| header.commit);
        let grew = |&at: &usize| commit(at) >= page && (at == self.used_from || commit(at - 1) < page);
        (self.used_from..self.files.len()).rev().find(grew).unwrap_or(self.files.len() - 1)
    }

    /// A file that does not continue the state of the one before, where both tell.
    fn broken_link(&self) -> Option<(usize, String)> {
        (self.used_from + 1..self.files.len()).find_map(|at| {
            let (before, this) = (self.files[at - 1].header?, self.files[at].header?);
            let adjoin = before.range.max().next() == this.range.min();
            let (expected, found) = (before.chain.post?, this.chain.pre?);
            (adjoin && expected != found).then(|| {
                let text = format!(
                    "pre-state at byte 80: expected {expected} as {} left it, found {found}",
                    before.range
                );
                (at, text)
            })
        })
    }

    pub(super) fn blame_file(&mut self, at: usize, text: String, out: &mut Actions) {
        self.blame(self.files[at].listed.object, text, out);
    }
}

/// Whether its header tells how long its index is: it holds every page, and is neither small nor very large.
fn tells_its_index(listed: &Listed) -> bool {
    listed.object.range.is_snapshot() && (WHOLE_BYTES_MAX + 1..=AHEAD_BYTES_MAX).contains(&listed.len)
}

/// Bytes from the index of all pages to the end of a file, about: three numbers a page, of seven bits a
/// byte. Where that is much of the file, the header may be damaged: the end of it tells.
fn index_bytes(header: &LtxHeader, file_bytes: u64) -> u64 {
    let number = |n: u64| u64::from(n.max(1).ilog2() / 7 + 1);
    let page = number(header.commit.into()) + number(file_bytes) + number(header.page_size.get().into());
    let bytes = u64::from(header.commit) * page + 64;
    if bytes > file_bytes / 8 { TAIL_BYTES } else { bytes.max(TAIL_BYTES) }
}

pub(super) fn head_request(listed: &Listed) -> StoreRequest {
    let len = listed.len.min(LTX_HEADER_BYTES as u64);
    StoreRequest::Get { object: listed.object, range: ByteRange::At { offset: 0, len } }
}

/// Reads a header that must belong to the name it is stored under.
pub(crate) fn read_header(listed: &Listed, bytes: &[u8]) -> Result<LtxHeader, String> {
    let Some(bytes) = bytes.first_chunk::<LTX_HEADER_BYTES>() else {
        return Err(LtxError::Truncated { offset: bytes.len() as u64, what: "header" }.to_string());
    };
    let header = LtxHeader::decode(bytes).map_err(|error| error.to_string())?;
    check_name(listed, &header).map_or(Ok(header), Err)
}

/// What is wrong if the header tells of other transactions than the name.
pub(crate) fn check_name(listed: &Listed, header: &LtxHeader) -> Option<String> {
    let (expected, found) = (listed.object.range, header.range);
    (expected != found)
        .then(|| format!("transactions at byte 16: expected {expected} as in its name, found {found}"))
}
