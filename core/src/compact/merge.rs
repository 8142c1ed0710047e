//! Merging files that follow one another into one, page by page.
//!
//! Every file is read from its start to its end, all at once, so that the lowest page among those at hand
//! is always the next one; of several files that hold it the newest counts. Nothing of what came out may
//! be used before [`MergeNext::End`]: only there has each input shown that it is whole.
//!
//! *Why the result leads where the inputs lead.* Let files 1 to n cut or extend the database to
//! c₁ … cₙ pages, and let i be the newest that holds page p ≤ cₙ. If some cⱼ with j > i lay below p, the
//! page would have been cut off there and would have come to be again later, in a file that must hold it,
//! since a file holds every page by which the database grows; so i would not be the newest. Hence the image
//! in i is that of the end. The merge does not take that on trust: a page of file i above a later cⱼ, and
//! a page above the lowest of c₁ … cₙ₋₁ that no file holds, are what only an incomplete file can cause,
//! and end it.
//!
//! A file of another page size than the one before it holds every page (`docs/FORMAT.md`): what lies before
//! it adds no page. It is read whole all the same, since the result is said to lead from its pre-state,
//! and a header is vouched for by nothing but the checksum at its file's end (seed 20003052).
//!
//! The result is compressed as the newest input is, with the same dictionary: a function of the inputs, and
//! what was set last spreads through the levels. Blocks of inputs that are compressed so are copied as they
//! stand; the pages of others are compressed again, at a level that never changes.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::checksum::{DbXor, page_checksum};
use crate::ids::{Lineage, PENDING_BYTE, PageNo, TxidRange};
use crate::ltx::{
    Chain, Decoder, Dictionaries, DictionaryId, Encoder, Item, LtxError, LtxHeader, Packing, Trailer,
    snapshot_pages,
};
use crate::machine::{Chunk, Listed, PART_BYTES_MAX};
use crate::mutant::{self, Mutant};
use crate::restore::{OUTPUT_BYTES_MAX, check_name};

/// Files being merged. Plain data: it travels with the jobs that do the work.
#[derive(Clone, PartialEq)]
pub struct Merge {
    sources: Vec<Source>,
    range: TxidRange,
    pending_byte: u64,
    dictionaries: Dictionaries,
    /// The result's header.
    begun: Option<LtxHeader>,
    output: Option<Output>,
}

/// One file.
#[derive(Clone, PartialEq)]
struct Source {
    listed: Listed,
    decoder: Decoder,
    /// The bytes at hand; those before `taken` went to the decoder.
    piece: Chunk,
    taken: usize,
    /// Bytes of the file behind the piece.
    left: u64,
    /// The dictionary without which it cannot be read.
    lacks: Option<DictionaryId>,
    header: Option<LtxHeader>,
    at: At,
    pages: u32,
}

/// What a file has to offer next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Nothing yet.
    Await,
    Page(PageNo),
    Ended,
}

/// The result in the making.
#[derive(Clone, PartialEq)]
struct Output {
    encoder: Encoder,
    header: LtxHeader,
    lock_page: PageNo,
    /// The first file that adds anything.
    first: usize,
    /// For each file from the first on, the fewest pages that the database had after a later one.
    floors: Vec<u32>,
    /// The next page by which the database has grown within the inputs.
    grown: u32,
    xor: DbXor,
}

/// More work on a merge.
#[derive(Clone, PartialEq, Debug)]
pub struct MergeJob {
    /// The state so far.
    pub merge: Box<Merge>,
    /// More bytes: of which input, and what follows upon those it has had.
    pub pieces: Vec<(usize, Chunk)>,
}

/// What came of it.
#[derive(Clone, PartialEq, Debug)]
pub struct MergeOutput {
    /// The state to go on with.
    pub merge: Box<Merge>,
    /// What to append to the result; at most [`PART_BYTES_MAX`] and a page.
    pub bytes: Chunk,
    /// How to go on.
    pub next: MergeNext,
}

/// How a merge goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MergeNext {
    /// With more bytes of these inputs.
    Bytes(Vec<usize>),
    /// Without; it stopped because enough has come out.
    More,
    /// Not at all: every input was whole, and this ends the result.
    End {
        /// Pages in the result.
        pages: u32,
        /// What its file ends with.
        trailer: Trailer,
    },
    /// From the start, with this dictionary as well.
    Dictionary(DictionaryId),
    /// Not at all.
    Failed {
        /// The input that is to blame; `None` if they do not fit together.
        input: Option<usize>,
        /// What is wrong, for people.
        text: String,
    },
}

/// What is wrong, and with which input.
type Fault = (Option<usize>, String);

impl MergeJob {
    /// Does the work.
    pub fn run(mut self) -> MergeOutput {
        for (input, bytes) in self.pieces {
            self.merge.sources[input].push(bytes);
        }
        let mut bytes = Vec::new();
        let next = match self.merge.advance(&mut bytes) {
            Ok(next) => next,
            Err((input, text)) => match self.merge.sources.iter().find_map(|source| source.lacks) {
                Some(id) => MergeNext::Dictionary(id),
                None => MergeNext::Failed { input, text },
            },
        };
        MergeOutput { merge: self.merge, bytes: Chunk::from(bytes), next }
    }
}

impl Merge {
    /// A merge of files, in the order in which they apply, into one of `range`.
    ///
    /// # Panics
    /// Without files.
    pub fn new(inputs: &[Listed], range: TxidRange, pending_byte: u64, dictionaries: Dictionaries) -> Merge {
        assert!(!inputs.is_empty(), "a merge has an input");
        let source = |listed: &Listed| Source::new(*listed, pending_byte, &dictionaries);
        let sources = inputs.iter().map(source).collect();
        Merge { sources, range, pending_byte, dictionaries, begun: None, output: None }
    }

    /// The result's header, once those of all inputs have been read.
    pub const fn begun(&self) -> Option<LtxHeader> {
        self.begun
    }

    /// Goes on until it lacks bytes, or has done enough.
    fn advance(&mut self, out: &mut Vec<u8>) -> Result<MergeNext, Fault> {
        let mut decoded = 0usize;
        loop {
            let first = self.output.as_ref().map_or(0, |output| output.first);
            let mut lacking = Vec::new();
            for (input, source) in self.sources.iter_mut().enumerate() {
                let before = source.pages;
                source.fill(input < first).map_err(|error| (Some(input), error))?;
                decoded += (source.pages - before) as usize * source.page_bytes();
                if source.at == At::Await {
                    lacking.push(input);
                }
            }
            if self.output.is_none() && self.sources.iter().all(|source| source.header.is_some()) {
                self.begin(out)?;
                continue;
            }
            if !lacking.is_empty() {
                return Ok(MergeNext::Bytes(lacking));
            }
            if !self.page(out)? {
                return self.finish(out);
            }
            if out.len() >= PART_BYTES_MAX || decoded >= OUTPUT_BYTES_MAX {
                return Ok(MergeNext::More);
            }
        }
    }

    /// All headers have been read: do the files fit together, and what comes of them?
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let headers: Vec<LtxHeader> = self.sources.iter().filter_map(|source| source.header).collect();
        let last = *headers.last().expect("a merge has an input");
        let first = (1..headers.len()).rev().find(|at| headers[*at].page_size != headers[*at - 1].page_size);
        let first = first.unwrap_or(0);
        let mut header = LtxHeader::new(last.page_size, last.commit, self.range, last.stamp);
        header.codec = last.codec;
        (header.lineage, header.chain) = chain_of(&headers, self.range)?;
        let mut floors: Vec<u32> = headers[first..].iter().map(|header| header.commit).collect();
        floors.push(u32::MAX);
        for at in (0..floors.len() - 1).rev() {
            floors[at] = floors[at].min(floors[at + 1]);
        }
        let lowest = headers[first..headers.len() - 1].iter().map(|header| header.commit).min();
        if mutant::on(Mutant::CutPageMerged) {
            header.commit = headers[first..].iter().map(|header| header.commit).max().unwrap_or(0);
        }
        let packing = Packing::of(header.codec, &self.dictionaries);
        let packing = packing.map_err(|error| (None, error.to_string()))?;
        let encoder = Encoder::packed(&header, packing, out).with_pending_byte(self.pending_byte);
        let lock_page = header.page_size.lock_page(self.pending_byte);
        let grown = lowest.map_or(u32::MAX, |lowest| lowest.saturating_add(1));
        floors.remove(0);
        let mut output = Output { encoder, header, lock_page, first, floors, grown, xor: DbXor::new() };
        output.pass_lock_page();
        self.begun = Some(header);
        self.output = Some(output);
        Ok(())
    }

    /// Takes the lowest page; `false` if there is none left.
    fn page(&mut self, out: &mut Vec<u8>) -> Result<bool, Fault> {
        let output = self.output.as_mut().expect("pages follow the headers");
        let pages = || self.sources.iter().enumerate().skip(output.first);
        let lowest = pages().filter_map(|(_, source)| source.page()).min();
        let Some(page) = lowest else { return Ok(false) };
        let here = move |(_, source): &(usize, &Source)| source.page() == Some(page);
        let holders = || pages().filter(here).map(|(input, _)| input);
        let newest = holders().next_back().expect("the lowest page stands in a file");
        let taken = if mutant::on(Mutant::OldestPageMerged) { holders().next() } else { Some(newest) };
        let source = &self.sources[taken.unwrap_or(newest)];
        let missed = mutant::on(Mutant::MergeMissesPage) && page.get() == output.header.commit;
        if page.get() <= output.header.commit && !missed {
            if page.get() > output.floors[newest - output.first] && !mutant::on(Mutant::CutPageMerged) {
                let text = format!("page {page} was cut off by a later file, and none has it anew");
                return Err((None, text));
            }
            output.take(page, source, out)?;
        }
        for source in self.sources.iter_mut().skip(output.first) {
            if source.page() == Some(page) {
                source.at = At::Await;
            }
        }
        Ok(true)
    }

    /// Every input has ended, and was whole.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<MergeNext, Fault> {
        let output = self.output.take().expect("only files with a header end");
        let header = output.header;
        if output.first > 0 {
            let source = &self.sources[output.first];
            let (commit, found) = (source.header.map_or(0, |header| header.commit), source.pages);
            let expected = snapshot_pages(commit, output.lock_page);
            if found != expected {
                let text = format!("another page size than the file before, and {found} of {expected} pages");
                return Err((Some(output.first), text));
            }
        }
        if output.grown <= header.commit && !mutant::on(Mutant::MergeMissesPage) {
            return Err((None, output.missing()));
        }
        let pages = output.encoder.pages();
        let whole = snapshot_pages(header.commit, output.lock_page);
        if header.range.is_snapshot() && pages != whole && !mutant::on(Mutant::MergeMissesPage) {
            return Err((None, format!("a snapshot of {whole} pages has only {pages} in its files")));
        }
        let state = output.xor.finish();
        if let Some(post) = header.chain.post.filter(|post| header.range.is_snapshot() && *post != state) {
            return Err((None, format!("the pages lead to state {state}, the newest file says {post}")));
        }
        let trailer = output.encoder.finish(0, out);
        Ok(MergeNext::End { pages, trailer })
    }
}

impl Output {
    /// Writes a page as it stands in `source`.
    fn take(&mut self, page: PageNo, source: &Source, out: &mut Vec<u8>) -> Result<(), Fault> {
        if page.get() >= self.grown {
            if page.get() > self.grown {
                return Err((None, self.missing()));
            }
            self.grown = self.grown.saturating_add(1);
            self.pass_lock_page();
        }
        let (data, block) = source.last_page();
        let alike = source.header.is_some_and(|header| header.codec == self.header.codec);
        if self.header.range.is_snapshot() {
            self.xor.toggle(page_checksum(page, data));
        }
        match block.filter(|_| alike || mutant::on(Mutant::BlocksOfAnotherCodec)) {
            Some(block) => self.encoder.page_from_block(page, data, block, out),
            None => self.encoder.page(page, data, out),
        }
        Ok(())
    }

    fn pass_lock_page(&mut self) {
        self.grown += u32::from(self.grown == self.lock_page.get());
    }

    fn missing(&self) -> String {
        format!("the database has grown by page {}, and none of the files has it", self.grown)
    }
}

impl Source {
    fn new(listed: Listed, pending_byte: u64, dictionaries: &Dictionaries) -> Source {
        let mut decoder = Decoder::new().with_dictionaries(dictionaries);
        if pending_byte != PENDING_BYTE {
            decoder = decoder.with_pending_byte(pending_byte);
        }
        let (piece, left) = (Chunk::default(), listed.len);
        Source { listed, decoder, piece, taken: 0, left, lacks: None, header: None, at: At::Await, pages: 0 }
    }

    fn push(&mut self, piece: Chunk) {
        assert_eq!(self.taken, self.piece.len(), "a piece comes when it is asked for");
        self.left = self.left.saturating_sub(piece.len() as u64);
        (self.piece, self.taken) = (piece, 0);
    }

    /// The content of the page that came out last, and its block if that is at hand.
    fn last_page(&self) -> (&[u8], Option<&[u8]>) {
        let (data, block) = self.decoder.last_page().expect("it has just come out");
        (data, block.map(|len| &self.piece[self.taken - len..self.taken]))
    }

    fn page(&self) -> Option<PageNo> {
        if let At::Page(page) = self.at { Some(page) } else { None }
    }

    fn page_bytes(&self) -> usize {
        self.header.map_or(0, |header| header.page_size.bytes())
    }

    /// Goes on to the next page, or to the end, or until it lacks bytes. `passing` its pages, to the end
    /// of the bytes at hand.
    fn fill(&mut self, passing: bool) -> Result<(), String> {
        let stays = |at| if passing { at == At::Ended } else { at != At::Await };
        while !stays(self.at) {
            let mut rest = &self.piece[self.taken..];
            let item = self.decoder.next_item(&mut rest);
            self.taken = self.piece.len() - rest.len();
            match item {
                Ok(Item::Header(header)) => {
                    if let Some(text) = check_name(&self.listed, &header) {
                        return Err(text);
                    }
                    self.header = Some(header);
                }
                Ok(Item::Page { page, .. }) => {
                    self.at = At::Page(page);
                    self.pages += 1;
                }
                Ok(Item::End(_)) if self.left > 0 => {
                    return Err(format!("{} bytes behind the trailer", self.left));
                }
                Ok(Item::End(_)) => self.at = At::Ended,
                Ok(Item::NeedMore) if self.left > 0 => {
                    self.at = At::Await;
                    return Ok(());
                }
                Ok(Item::NeedMore) => {
                    let error = self.decoder.clone().finish().err();
                    let error =
                        error.unwrap_or(LtxError::Truncated { offset: self.listed.len, what: "trailer" });
                    return Err(error.to_string());
                }
                Err(error) if mutant::on(Mutant::InputUnverified) && is_checksum(&error) => {
                    self.at = At::Ended;
                }
                Err(error) => {
                    if let LtxError::Dictionary { id } = error {
                        self.lacks = Some(id);
                    }
                    return Err(error.to_string());
                }
            }
        }
        Ok(())
    }
}

/// Whether only the file checksum is wrong.
fn is_checksum(error: &LtxError) -> bool {
    matches!(error, LtxError::Corrupt { what: "file checksum", .. })
}

/// Whose the result is, from which state it leads and to which.
///
/// Of a file that holds every page, the pages themselves prove the state that the newest input names. Any
/// other is as certain as each of its inputs: one that says nothing, or belongs to another history, and the
/// result says nothing.
fn chain_of(headers: &[LtxHeader], range: TxidRange) -> Result<(Option<Lineage>, Chain), Fault> {
    for (at, pair) in headers.windows(2).enumerate() {
        let (before, this) = (&pair[0], &pair[1]);
        let follows = this.range.min() <= before.range.max().next() && this.range.max() > before.range.max();
        if !follows && !mutant::on(Mutant::GapBridged) {
            let (found, expected) = (this.range.min(), before.range.max().next());
            return Err((Some(at + 1), format!("it begins at {found} where {expected} comes next")));
        }
        let adjoin = before.range.max().next() == this.range.min();
        if let (true, Some(expected), Some(found)) = (adjoin, before.chain.post, this.chain.pre)
            && expected != found
        {
            let range = before.range;
            let text = format!("pre-state at byte 80: expected {expected} as {range} left it, found {found}");
            return Err((Some(at + 1), text));
        }
    }
    let (first, last) = (&headers[0], &headers[headers.len() - 1]);
    let known = |header: &LtxHeader| header.lineage == last.lineage && header.chain.post.is_some();
    let certain = range.is_snapshot() || headers.iter().all(known);
    if last.lineage.is_none() || last.chain.post.is_none() || !certain {
        return Ok((None, Chain::default()));
    }
    let pre = first.chain.pre.filter(|_| !range.is_snapshot());
    Ok((last.lineage, Chain { pre, ..last.chain }))
}

impl fmt::Debug for Merge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = self.output.as_ref().map_or(0, |output| output.encoder.pages());
        let left: u64 = self.sources.iter().map(|source| source.left).sum();
        write!(f, "[{} files into {:?}, {pages} pages, {left} bytes left]", self.sources.len(), self.range)
    }
}
