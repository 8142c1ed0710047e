//! The checksums of LTX, of a page and of a file, and those of the chain, of a page and of a whole
//! database.
//!
//! LTX takes CRC-64/ISO as Go's `crc64.ISO` computes it. Its polynomial is so sparse that two bytes
//! eight apart can change without a trace, and the XOR over pages forgets what two pages change by
//! the same difference. Whoever tells by these which pages changed, or that nothing did, loses
//! changes: the simulator met both kinds of neighbours. So the chain and the page table, which are
//! ours alone, take CRC-64/NVME, stirred so that differences do not cancel
//! (`docs/decisions/0012-page-checksum.md`). A result carries its top bit set (`ChecksumFlag` in LTX),
//! so that zero on disk can mean "none".
//!
//! A database's checksum is the XOR of its pages' checksums. Changing one page therefore costs
//! two page checksums, whatever the size of the database: [`DbXor::toggle`] the old one out and
//! the new one in. The XOR of an even number of flagged values has its top bit clear and of an
//! odd number has it set, which says nothing about the pages, so [`DbXor`] ignores that bit and
//! [`DbXor::finish`] sets it, as LTX does after each step.
//!
//! The CRC is computed with carry-less multiplication where the processor has it: 0.15 µs per
//! 4 KiB page against 9 µs by table, which would be nine times the cost of reading the page.

use crc_fast::{CrcAlgorithm, Digest};

use crate::ids::{DbChecksum, PageNo};
use crate::mutant::{self, Mutant};

/// The bit that every stored LTX checksum has set.
pub const CHECKSUM_FLAG: u64 = 1 << 63;

/// Of files, and of pages in LTX's own fields.
const ALGORITHM: CrcAlgorithm = CrcAlgorithm::Crc64GoIso;
/// Of pages in the chain.
const PAGE_ALGORITHM: CrcAlgorithm = CrcAlgorithm::Crc64Nvme;

fn page_crc(algorithm: CrcAlgorithm, page: PageNo, data: &[u8]) -> u64 {
    let mut digest = Digest::new(algorithm);
    digest.update(&page.get().to_be_bytes());
    digest.update(data);
    digest.finalize()
}

/// The checksum of one page in the chain and in the page table: CRC-64/NVME over its number (u32,
/// big-endian) and its data, stirred, top bit set.
pub fn page_checksum(page: PageNo, data: &[u8]) -> u64 {
    if mutant::on(Mutant::PageSumLinear) {
        return ltx_page_checksum(page, data);
    }
    stir(page_crc(PAGE_ALGORITHM, page, data)) | CHECKSUM_FLAG
}

/// The checksum of one page in LTX's own fields: CRC-64/ISO over its number (u32, big-endian) and its
/// data, top bit set.
pub fn ltx_page_checksum(page: PageNo, data: &[u8]) -> u64 {
    page_crc(ALGORITHM, page, data) | CHECKSUM_FLAG
}

/// A bijection without linear relations (the finisher of SplitMix64). A CRC is linear: without this,
/// two pages that change by the same difference leave the XOR of their checksums as it was.
const fn stir(crc: u64) -> u64 {
    let z = (crc ^ crc >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// A running checksum over the bytes of a file.
///
/// Plain data: it can be compared, copied and kept inside a half-done job.
///
/// ```
/// use driftless_core::checksum::FileDigest;
///
/// let mut digest = FileDigest::new();
/// digest.update(b"1234");
/// digest.update(b"56789");
/// // CRC-64/GO-ISO's check value; its top bit is set already.
/// assert_eq!(digest.finish(), 0xb909_56c7_75a4_1001);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileDigest {
    /// The CRC register before its final inversion.
    state: u64,
}

impl FileDigest {
    /// The digest of no bytes.
    pub fn new() -> FileDigest {
        FileDigest { state: Digest::new(ALGORITHM).get_state() }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut digest = Digest::new_with_init_state(ALGORITHM, self.state);
        digest.update(bytes);
        self.state = digest.get_state();
    }

    /// The checksum of all bytes so far, top bit set.
    pub fn finish(&self) -> u64 {
        Digest::new_with_init_state(ALGORITHM, self.state).finalize() | CHECKSUM_FLAG
    }
}

impl Default for FileDigest {
    fn default() -> FileDigest {
        FileDigest::new()
    }
}

/// A database checksum in the making: the XOR of the checksums of its pages.
///
/// The order of pages does not matter, and toggling a page twice takes it out again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DbXor {
    /// Top bit always clear, so that equal sets of pages compare equal.
    xor: u64,
}

impl DbXor {
    /// A database without pages.
    pub const fn new() -> DbXor {
        DbXor { xor: 0 }
    }

    /// Goes on from a finished checksum.
    pub const fn from_checksum(checksum: DbChecksum) -> DbXor {
        DbXor { xor: checksum.get() & !CHECKSUM_FLAG }
    }

    /// Takes a page in, or out if it is in, by its [`page_checksum`].
    pub const fn toggle(&mut self, page_checksum: u64) {
        self.xor ^= page_checksum & !CHECKSUM_FLAG;
    }

    /// The database's checksum.
    pub const fn finish(self) -> DbChecksum {
        DbChecksum::from_xor(self.xor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// CRC-64/ISO bit by bit: reflected polynomial 0xd800…, inverted at both ends, as Go's
    /// `hash/crc64` documents. Independent of the library under test.
    fn crc_by_bits(bytes: &[u8]) -> u64 {
        let mut crc = u64::MAX;
        for &byte in bytes {
            crc ^= u64::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xd800_0000_0000_0000 } else { crc >> 1 };
            }
        }
        !crc
    }

    #[test]
    fn the_crc_is_gos_iso_at_every_length_and_split() {
        let bytes: Vec<u8> = (0..1200u32).map(|i| (i * 31 % 251) as u8).collect();
        for len in (0..300).chain([511, 512, 513, 1024, 1199]) {
            let expected = crc_by_bits(&bytes[..len]) | CHECKSUM_FLAG;
            let mut whole = FileDigest::new();
            whole.update(&bytes[..len]);
            assert_eq!(whole.finish(), expected, "{len} bytes at once");
            let mut split = FileDigest::default();
            let (left, right) = bytes[..len].split_at(len / 3);
            split.update(left);
            split.update(&[]);
            split.update(right);
            assert_eq!(split, whole, "{len} bytes in two parts");
        }
    }

    #[test]
    fn a_page_checksum_covers_number_and_data() {
        let page = PageNo::new(0x0102_0304).unwrap();
        assert_eq!(ltx_page_checksum(page, b"data"), crc_by_bits(b"\x01\x02\x03\x04data") | CHECKSUM_FLAG);
        // The check value of CRC-64/NVME.
        let digits = PageNo::new(u32::from_be_bytes(*b"1234")).unwrap();
        assert_eq!(page_checksum(digits, b"56789"), stir(0xae8b_1486_0a79_9888) | CHECKSUM_FLAG);
        assert_ne!(page_checksum(page, b"data"), page_checksum(PageNo::FIRST, b"data"));
    }

    /// Found by seed 10000004: a page whose change LTX's checksum does not show, which a base by
    /// difference left out.
    #[test]
    fn no_change_of_two_bytes_eight_apart_goes_unnoticed() {
        let page = PageNo::new(2).unwrap();
        let before: Vec<u8> = (0..1024u32).map(|i| (i * 31 % 251) as u8).collect();
        let mut after = before.clone();
        (after[15], after[23]) = (before[15] ^ 0x60, before[23] ^ 0x5a);
        assert_eq!(ltx_page_checksum(page, &before), ltx_page_checksum(page, &after));
        let sum = page_checksum(page, &before);
        for (one, two) in (1..=255u8).flat_map(|one| (1..=255u8).map(move |two| (one, two))) {
            (after[15], after[23]) = (before[15] ^ one, before[23] ^ two);
            assert_ne!(page_checksum(page, &after), sum, "{one:x} and {two:x}");
        }
    }

    /// Two pages that change by the same difference at the same place.
    #[test]
    fn differences_do_not_cancel_between_pages() {
        let state = |sum: fn(PageNo, &[u8]) -> u64, byte: u8| {
            let mut xor = DbXor::new();
            (1..=2).for_each(|n| xor.toggle(sum(PageNo::new(n).unwrap(), &[n as u8, byte, 7])));
            xor.finish()
        };
        assert_eq!(state(ltx_page_checksum, 1), state(ltx_page_checksum, 2));
        assert_ne!(state(page_checksum, 1), state(page_checksum, 2));
    }

    #[test]
    fn a_database_checksum_forgets_order_and_history() {
        let sums: Vec<u64> = (1..=5).map(|n| page_checksum(PageNo::new(n).unwrap(), b"page")).collect();
        let mut forward = DbXor::new();
        sums.iter().for_each(|&sum| forward.toggle(sum));
        let mut backward = DbXor::from_checksum(DbXor::new().finish());
        sums.iter().rev().for_each(|&sum| backward.toggle(sum));
        assert_eq!(forward, backward);

        // LTX sets the flag after each step instead of once at the end.
        let stepwise = sums.iter().fold(0, |all, sum| (all ^ sum) | CHECKSUM_FLAG);
        assert_eq!(forward.finish().get(), stepwise);

        forward.toggle(sums[2]);
        forward.toggle(sums[2]);
        assert_eq!(forward, backward);
        forward.toggle(sums[2]);
        assert_ne!(forward.finish(), backward.finish());
        assert_eq!(DbXor::new().finish().get(), CHECKSUM_FLAG);
    }
}
