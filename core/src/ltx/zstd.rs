//! Pages compressed with zstd, alone or with a dictionary that the database's own pages taught.
//!
//! A page of a database is short, and a compressor that begins anew with each of them learns nothing
//! that the page before had shown. A dictionary is what all of them have in common, so that text takes
//! half of what LZ4 leaves. It stands once beside the segments, under the checksum of its bytes, and each
//! segment that was made with it names it in its header: what a name leads to can be neither another
//! version nor a damaged one. A reader that does not have it says which it needs
//! ([`LtxError::Dictionary`]), and never guesses.
//!
//! What comes out of a page that was damaged goes into a buffer of one page and no further; whether it is
//! right is told by the file checksum and the chain, which cover the pages and not their compressed form.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU64;

use zstd_safe::{CCtx, CParameter, DCtx};

use super::{LtxError, LtxHeader};
use crate::checksum::FileDigest;
use crate::machine::Chunk;

/// The longest dictionary, in bytes.
pub const DICTIONARY_BYTES_MAX: usize = 64 << 10;

/// The levels that may be asked for.
pub const ZSTD_LEVELS: core::ops::RangeInclusive<i32> = 1..=19;

/// The level where none is asked for, and of what a compaction has to compress again.
pub const ZSTD_LEVEL: i32 = 3;

/// Which dictionary: the checksum of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DictionaryId(NonZeroU64);

impl DictionaryId {
    /// `None` for zero.
    pub const fn new(n: u64) -> Option<DictionaryId> {
        match NonZeroU64::new(n) {
            Some(n) => Some(DictionaryId(n)),
            None => None,
        }
    }

    /// The stored form.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    fn of(bytes: &[u8]) -> DictionaryId {
        let mut digest = FileDigest::new();
        digest.update(bytes);
        DictionaryId::new(digest.finish()).expect("a checksum has its top bit set")
    }
}

impl fmt::Display for DictionaryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.get())
    }
}

impl fmt::Debug for DictionaryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A dictionary: bytes that are what their name says.
#[derive(Clone, PartialEq)]
pub struct Dictionary {
    id: DictionaryId,
    bytes: Chunk,
}

impl Dictionary {
    /// One that was just made.
    pub fn new(bytes: Vec<u8>) -> Dictionary {
        Dictionary { id: DictionaryId::of(&bytes), bytes: Chunk::from(bytes) }
    }

    /// What was read under a name.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn read(id: DictionaryId, bytes: &[u8]) -> Result<Dictionary, String> {
        let found = DictionaryId::of(bytes);
        if found != id || bytes.len() > DICTIONARY_BYTES_MAX {
            return Err(format!("dictionary {id} is damaged: its bytes make {found}"));
        }
        Ok(Dictionary { id, bytes: Chunk::from(bytes.to_vec()) })
    }

    /// Its name.
    pub const fn id(&self) -> DictionaryId {
        self.id
    }

    /// What is stored under the name.
    pub const fn bytes(&self) -> &Chunk {
        &self.bytes
    }
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dictionary({})", self.id)
    }
}

/// The dictionaries that a reader has at hand.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Dictionaries(BTreeMap<DictionaryId, Dictionary>);

impl Dictionaries {
    /// Adds one.
    pub fn add(&mut self, dictionary: Dictionary) {
        self.0.insert(dictionary.id, dictionary);
    }

    /// Whether it is there.
    pub fn has(&self, id: DictionaryId) -> bool {
        self.0.contains_key(&id)
    }

    /// The one of a name.
    ///
    /// # Errors
    /// [`LtxError::Dictionary`] if it is not there.
    pub fn get(&self, id: DictionaryId) -> Result<&Dictionary, LtxError> {
        self.0.get(&id).ok_or(LtxError::Dictionary { id })
    }
}

/// How a segment's pages are compressed, as its header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    /// With LZ4.
    Lz4,
    /// With zstd, and this dictionary if there is one.
    Zstd(Option<DictionaryId>),
}

/// How to compress a segment's pages.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Packing {
    /// With LZ4.
    #[default]
    Lz4,
    /// With zstd.
    Zstd {
        /// One of [`ZSTD_LEVELS`].
        level: i32,
        /// Without one each page stands alone.
        dictionary: Option<Dictionary>,
    },
}

impl Packing {
    /// What the header of a segment made so says.
    pub fn codec(&self) -> Codec {
        match self {
            Packing::Lz4 => Codec::Lz4,
            Packing::Zstd { dictionary, .. } => Codec::Zstd(dictionary.as_ref().map(Dictionary::id)),
        }
    }

    /// What makes the same codec, for pages that must be compressed again.
    ///
    /// # Errors
    /// [`LtxError::Dictionary`] if its dictionary is not at hand.
    pub fn of(codec: Codec, dictionaries: &Dictionaries) -> Result<Packing, LtxError> {
        Ok(match codec {
            Codec::Lz4 => Packing::Lz4,
            Codec::Zstd(id) => {
                let dictionary = id.map(|id| dictionaries.get(id)).transpose()?.cloned();
                Packing::Zstd { level: ZSTD_LEVEL, dictionary }
            }
        })
    }
}

/// A compressor of pages; made anew for each job, since a hundred thousand databases may each have a
/// dictionary of their own and few are at work at a time.
pub(super) struct ZstdPacker(CCtx<'static>);

impl ZstdPacker {
    pub(super) fn new(level: i32, dictionary: Option<&Dictionary>) -> ZstdPacker {
        let mut context = CCtx::create();
        let set = "a compressor takes the settings that it has";
        context.set_parameter(CParameter::CompressionLevel(level)).expect(set);
        // The header names it.
        context.set_parameter(CParameter::DictIdFlag(false)).expect(set);
        if let Some(dictionary) = dictionary {
            context.load_dictionary(&dictionary.bytes).expect("there is memory for a dictionary");
        }
        ZstdPacker(context)
    }

    /// Writes the page to `out`, which is as long, and returns the size: that of the page if it stands
    /// there as it is, since nothing made it shorter.
    pub(super) fn pack(&mut self, page: &[u8], out: &mut [u8]) -> usize {
        match self.0.compress2(&mut out[..page.len() - 1], page) {
            Ok(size) => size,
            Err(_) => {
                out.copy_from_slice(page);
                page.len()
            }
        }
    }
}

/// How many bytes pages take.
pub(crate) fn packed_bytes(level: i32, dictionary: Option<&Dictionary>, pages: &[&[u8]]) -> u64 {
    let mut packer = ZstdPacker::new(level, dictionary);
    let mut out = Vec::new();
    let sizes = pages.iter().map(|page| {
        out.resize(page.len(), 0);
        packer.pack(page, &mut out) as u64
    });
    sizes.sum()
}

/// A reader of pages of one codec.
pub struct Unpacker {
    /// `None` for LZ4.
    zstd: Option<DCtx<'static>>,
}

impl Unpacker {
    /// # Errors
    /// [`LtxError::Dictionary`] if its dictionary is not at hand.
    pub fn new(codec: Codec, dictionaries: &Dictionaries) -> Result<Unpacker, LtxError> {
        let Codec::Zstd(id) = codec else { return Ok(Unpacker { zstd: None }) };
        let mut context = DCtx::create();
        if let Some(id) = id {
            let dictionary = dictionaries.get(id)?;
            context.load_dictionary(&dictionary.bytes).map_err(|_| LtxError::Dictionary { id })?;
        }
        Ok(Unpacker { zstd: Some(context) })
    }

    pub(super) const fn is_zstd(&self) -> bool {
        self.zstd.is_some()
    }

    /// Decompresses a block into `page`; whether it was exactly one.
    pub(super) fn unpack(&mut self, block: &[u8], page: &mut [u8]) -> bool {
        let Some(context) = &mut self.zstd else {
            return lz4_flex::block::decompress_into(block, page).is_ok_and(|len| len == page.len());
        };
        if block.len() == page.len() {
            page.copy_from_slice(block);
            return true;
        }
        context.decompress(page, block) == Ok(page.len())
    }
}

impl LtxHeader {
    /// Says in the header how its pages will be compressed.
    pub fn pack(&mut self, packing: &Packing) {
        self.codec = packing.codec();
    }
}

#[cfg(test)]
pub(crate) mod tests;
