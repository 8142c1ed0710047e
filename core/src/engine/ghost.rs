//! Reading back a segment of our own that we do not remember writing.
//!
//! A put may land after the process that sent it has died. The segment is then part of the
//! history; its page checksums are needed to go on from it.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::history::{Point, Step};
use crate::checksum::page_checksum;
use crate::ids::PageNo;
use crate::ltx::{Decoder, Dictionaries, Dictionary, DictionaryId, Item, LtxError, LtxHeader};
use crate::machine::{ByteRange, Object, StoreRequest};
use crate::mutant::{self, Mutant};

/// Bytes asked for in one request.
const FETCH_BYTES: u64 = 1 << 20;

/// A segment that is being read back.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Ghost {
    object: Object,
    offset: u64,
    decoder: Decoder,
    pending_byte: u64,
    /// The dictionary that is read before it, as it turned out.
    lacks: Option<DictionaryId>,
    header: Option<LtxHeader>,
    sums: Vec<(PageNo, u64)>,
}

/// What a piece of it led to.
pub(super) enum GhostStep {
    /// Ask for the next piece.
    More,
    /// All of it, verified.
    Whole(LtxHeader, Vec<(PageNo, u64)>),
    /// It is damaged.
    Corrupt(String),
}

impl Ghost {
    pub(super) fn new(object: Object, pending_byte: u64) -> Ghost {
        Ghost {
            object,
            offset: 0,
            decoder: Decoder::new().with_pending_byte(pending_byte),
            pending_byte,
            lacks: None,
            header: None,
            sums: Vec::new(),
        }
    }

    pub(super) fn request(&self) -> StoreRequest {
        if let Some(id) = self.lacks {
            return StoreRequest::GetDictionary { id };
        }
        StoreRequest::Get {
            object: self.object,
            range: ByteRange::At { offset: self.offset, len: FETCH_BYTES },
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8], object_len: u64) -> GhostStep {
        if let Some(id) = self.lacks.take() {
            return match Dictionary::read(id, bytes) {
                Ok(dictionary) => {
                    let mut dictionaries = Dictionaries::default();
                    dictionaries.add(dictionary);
                    let decoder = Decoder::new().with_pending_byte(self.pending_byte);
                    (self.decoder, self.offset) = (decoder.with_dictionaries(&dictionaries), 0);
                    GhostStep::More
                }
                Err(text) => GhostStep::Corrupt(text),
            };
        }
        self.offset += bytes.len() as u64;
        let mut rest = bytes;
        loop {
            match self.decoder.next_item(&mut rest) {
                Err(LtxError::Dictionary { id }) => {
                    self.lacks = Some(id);
                    return GhostStep::More;
                }
                Err(error) => return GhostStep::Corrupt(error.to_string()),
                Ok(Item::Header(header)) => self.header = Some(header),
                Ok(Item::Page { page, data }) => {
                    let sum = page_checksum(page, data);
                    self.sums.push((page, sum));
                }
                Ok(Item::End(_)) => {
                    let header = self.header.expect("a segment begins with its header");
                    return GhostStep::Whole(header, core::mem::take(&mut self.sums));
                }
                Ok(Item::NeedMore) if self.offset >= object_len || bytes.is_empty() => {
                    return GhostStep::Corrupt("it ends early".into());
                }
                Ok(Item::NeedMore) => return GhostStep::More,
            }
        }
    }
}

/// The step that a segment makes; `None` if it says nothing of its states. Where the WAL stood
/// is not taken from it: the frame's cumulative checksum is not in the header.
///
/// A segment that holds every page is a full one whatever its number: laid over a table of
/// another page size it would leave the checksum of a page that is the lock page now.
pub(super) fn step_of(header: &LtxHeader, sums: Vec<(PageNo, u64)>, pending_byte: u64) -> Option<Step> {
    let post = header.chain.post?;
    let lock_page = header.page_size.lock_page(pending_byte).get();
    let every_page = header.commit as usize - usize::from(lock_page <= header.commit);
    let full =
        sums.len() == every_page && (header.range.is_snapshot() || !mutant::on(Mutant::FullByNumberOnly));
    Some(Step {
        pre: header.chain.pre,
        to: Point {
            txid: header.range.max(),
            stamp: header.stamp,
            page_size: header.page_size,
            pages: header.commit,
            post,
            file: (0, 0),
            wal: None,
        },
        full,
        sums,
    })
}
