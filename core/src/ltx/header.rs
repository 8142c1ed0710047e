//! The first 100 bytes of a segment.
//!
//! Litestream leaves bytes 80–99 alone but refuses segments whose own checksum fields are
//! filled. So the database checksums live in those bytes, as the [`Chain`]: each segment says
//! from which state to which it leads and who wrote it, and the successor's `pre` must equal
//! the predecessor's `post`. Litestream's compaction writes zeros there, which read as unknown.

use super::{Codec, DictionaryId, Expected, LtxError};
use crate::bytes::{be_u32, be_u64};
use crate::ids::{DbChecksum, Incarnation, Lineage, PageSize, Txid, TxidRange, Wall};
use crate::wal::{FRAME_HEADER_BYTES, Salts};

/// Bytes in a segment header.
pub const LTX_HEADER_BYTES: usize = 100;

/// Header flag: both database checksums of the format's own are zero. Litestream 0.5 and
/// Driftless set it always.
pub const HEADER_FLAG_NO_CHECKSUM: u32 = 2;

/// Header flag of our own: pages are compressed with zstd, and the pre-apply checksum's place holds the
/// name of the dictionary, or zero. Litestream 0.5 refuses such files.
pub const HEADER_FLAG_ZSTD: u32 = 1 << 16;

const MAGIC: u32 = 0x4c54_5831;

/// From which state to which a segment leads, and who wrote it. Bytes 80–99.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chain {
    /// The database's checksum before the segment; `None` if unknown.
    pub pre: Option<DbChecksum>,
    /// The database's checksum after it; `None` if unknown.
    pub post: Option<DbChecksum>,
    /// The run of the process that wrote it; 0 if unknown.
    pub incarnation: Incarnation,
}

/// What a segment says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LtxHeader {
    /// The database's page size.
    pub page_size: PageSize,
    /// The size of the database after the segment, in pages.
    pub commit: u32,
    /// The transactions inside.
    pub range: TxidRange,
    /// When the last of them was captured.
    pub stamp: Wall,
    /// How its pages are compressed.
    pub codec: Codec,
    /// [`HEADER_FLAG_NO_CHECKSUM`] or zero; what `codec` adds is not in here.
    pub flags: u32,
    /// The format's own checksum of the database before the segment; zero with
    /// [`HEADER_FLAG_NO_CHECKSUM`] and for snapshots.
    pub pre_apply: u64,
    /// Where in the WAL the segment's first frame starts, in bytes; 0 if not from one WAL.
    pub wal_offset: i64,
    /// How many bytes of the WAL it covers, and [`LtxHeader::wal_beyond`] more if Driftless wrote
    /// it; 0 if not from one WAL. See [`LtxHeader::wal_end`].
    pub wal_size: i64,
    /// The generation of that WAL; zeros if not from one WAL.
    pub wal_salts: Salts,
    /// The history that the segment belongs to (the node id field); `None` from Litestream.
    pub lineage: Option<Lineage>,
    /// Its place in that history.
    pub chain: Chain,
}

impl LtxHeader {
    /// A header as Driftless writes it: no checksums of the format's own. What is not given is
    /// zero or unknown and can be set afterwards.
    pub fn new(page_size: PageSize, commit: u32, range: TxidRange, stamp: Wall) -> LtxHeader {
        LtxHeader {
            page_size,
            commit,
            range,
            stamp,
            codec: Codec::Lz4,
            flags: HEADER_FLAG_NO_CHECKSUM,
            pre_apply: 0,
            wal_offset: 0,
            wal_size: 0,
            wal_salts: Salts::default(),
            lineage: None,
            chain: Chain::default(),
        }
    }

    /// What Driftless adds to the WAL size of a capture: whole frames, more than a WAL can have.
    ///
    /// Litestream goes on from where its newest level-0 file says that the WAL was left. If the WAL has
    /// begun anew since, it takes the new one for all there is, and what was committed to the old one in
    /// between is missing from the replica (seen with 0.5.17, after runs of its own as well). An end
    /// past any WAL is one that it cannot go on from: it writes the whole database first.
    pub fn wal_beyond(page_size: PageSize) -> i64 {
        (i64::from(page_size.get()) + FRAME_HEADER_BYTES as i64) << 36
    }

    /// Where in the WAL the segment's last frame ends, in bytes, whoever wrote it.
    pub fn wal_end(&self) -> i64 {
        self.wal_offset.saturating_add(self.wal_size) % LtxHeader::wal_beyond(self.page_size)
    }

    /// Whether the format's own database checksums are filled.
    pub const fn has_checksums(&self) -> bool {
        self.flags & HEADER_FLAG_NO_CHECKSUM == 0
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`Corrupt`](LtxError::Corrupt) for a wrong magic number, page size, transaction range,
    /// negative WAL position, or a pre-apply checksum where none may be (or none where one
    /// must); [`Unsupported`](LtxError::Unsupported) for flags unknown here.
    pub fn decode(bytes: &[u8; LTX_HEADER_BYTES]) -> Result<LtxHeader, LtxError> {
        let magic = be_u32(bytes, 0);
        if magic != MAGIC {
            return Err(LtxError::corrupt(0, "magic number", Expected::Bits(MAGIC.into()), magic.into()));
        }
        let flags = be_u32(bytes, 4);
        let zstd = flags & HEADER_FLAG_ZSTD != 0;
        let bare = flags & HEADER_FLAG_NO_CHECKSUM != 0;
        if flags & !(HEADER_FLAG_NO_CHECKSUM | HEADER_FLAG_ZSTD) != 0 || (zstd && !bare) {
            return Err(LtxError::Unsupported { offset: 4, what: "header flags", found: flags.into() });
        }
        let raw_page_size = be_u32(bytes, 8);
        let page_size = PageSize::new(raw_page_size).ok_or(LtxError::corrupt(
            8,
            "page size",
            Expected::Rule("a power of two from 512 to 65536"),
            raw_page_size.into(),
        ))?;
        let header = LtxHeader {
            page_size,
            commit: be_u32(bytes, 12),
            range: decode_range(bytes)?,
            stamp: Wall(be_u64(bytes, 32).cast_signed()),
            codec: if zstd { Codec::Zstd(DictionaryId::new(be_u64(bytes, 40))) } else { Codec::Lz4 },
            flags: flags & !HEADER_FLAG_ZSTD,
            pre_apply: if zstd { 0 } else { be_u64(bytes, 40) },
            wal_offset: decode_wal_bytes(bytes, 48, "wal offset")?,
            wal_size: decode_wal_bytes(bytes, 56, "wal size")?,
            wal_salts: Salts::read(bytes, 64),
            lineage: Lineage::new(be_u64(bytes, 72)),
            chain: Chain {
                pre: DbChecksum::from_stored(be_u64(bytes, 80)),
                post: DbChecksum::from_stored(be_u64(bytes, 88)),
                incarnation: Incarnation(be_u32(bytes, 96)),
            },
        };
        header.check_pre_apply()?;
        Ok(header)
    }

    /// The header as it stands in the file.
    pub fn encode(&self) -> [u8; LTX_HEADER_BYTES] {
        let mut bytes = [0; LTX_HEADER_BYTES];
        let mut put_u32 = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
        put_u32(0, MAGIC);
        let (codec_flag, dictionary) = match self.codec {
            Codec::Lz4 => (0, None),
            Codec::Zstd(dictionary) => (HEADER_FLAG_ZSTD, dictionary),
        };
        put_u32(4, self.flags | codec_flag);
        put_u32(8, self.page_size.get());
        put_u32(12, self.commit);
        put_u32(64, self.wal_salts.one);
        put_u32(68, self.wal_salts.two);
        put_u32(96, self.chain.incarnation.0);
        let mut put_u64 = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
        put_u64(16, self.range.min().get());
        put_u64(24, self.range.max().get());
        put_u64(32, self.stamp.0.cast_unsigned());
        put_u64(40, dictionary.map_or(self.pre_apply, DictionaryId::get));
        put_u64(48, self.wal_offset.cast_unsigned());
        put_u64(56, self.wal_size.cast_unsigned());
        put_u64(72, Lineage::to_stored(self.lineage));
        put_u64(80, DbChecksum::to_stored(self.chain.pre));
        put_u64(88, DbChecksum::to_stored(self.chain.post));
        bytes
    }

    /// The format's own checksums are all there or all absent; a snapshot has no state before.
    fn check_pre_apply(&self) -> Result<(), LtxError> {
        let none = !self.has_checksums() || self.range.is_snapshot();
        match (none, self.pre_apply) {
            (true, 0) => Ok(()),
            (true, found) => Err(LtxError::corrupt(40, "pre-apply checksum", Expected::Bits(0), found)),
            (false, found) => check_flagged(40, "pre-apply checksum", found),
        }
    }
}

/// A stored checksum that is there must have its top bit set.
pub(super) fn check_flagged(offset: u64, what: &'static str, found: u64) -> Result<(), LtxError> {
    if found >> 63 == 1 {
        return Ok(());
    }
    Err(LtxError::corrupt(offset, what, Expected::Rule("a checksum with its top bit set"), found))
}

fn decode_range(bytes: &[u8; LTX_HEADER_BYTES]) -> Result<TxidRange, LtxError> {
    let min =
        Txid::new(be_u64(bytes, 16)).ok_or(LtxError::corrupt(16, "min txid", Expected::AtLeast(1), 0))?;
    let raw_max = be_u64(bytes, 24);
    Txid::new(raw_max).and_then(|max| TxidRange::new(min, max)).ok_or(LtxError::corrupt(
        24,
        "max txid",
        Expected::AtLeast(min.get()),
        raw_max,
    ))
}

fn decode_wal_bytes(bytes: &[u8; LTX_HEADER_BYTES], at: usize, what: &'static str) -> Result<i64, LtxError> {
    let raw = be_u64(bytes, at);
    i64::try_from(raw).map_err(|_| LtxError::corrupt(at as u64, what, Expected::AtMost(i64::MAX as u64), raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wal_span_ends_beyond_any_wal_for_litestream_and_where_it_ends_for_us() {
        let range = TxidRange::single(Txid::FIRST);
        for size in [512, 4096, 65_536] {
            let page_size = PageSize::new(size).expect("a page size");
            let mut header = LtxHeader::new(page_size, 1, range, Wall(0));
            let frame = i64::from(size) + 24;
            for (from, frames) in [(0, 1), (7, 5), (0, i64::from(u32::MAX))] {
                header.wal_offset = 32 + from * frame;
                header.wal_size = frames * frame;
                assert_eq!(header.wal_end(), 32 + (from + frames) * frame, "as Litestream writes it");
                header.wal_size += LtxHeader::wal_beyond(page_size);
                assert_eq!(header.wal_end(), 32 + (from + frames) * frame, "as we write it");
                assert!(header.wal_offset + header.wal_size > 32 + i64::from(u32::MAX) * frame);
                assert_eq!(
                    (header.wal_offset + header.wal_size - 32) % frame,
                    0,
                    "Litestream stalls otherwise"
                );
            }
        }
    }
}
