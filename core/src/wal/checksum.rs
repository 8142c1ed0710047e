//! The running checksum of the WAL and the wal-index.
//!
//! Input is read as pairs of 32-bit words; the byte order is the one of the machine that
//! created the WAL, recorded in its magic number. The WAL format page gives the rule:
//!
//! ```text
//! for i from 0 to n-1 step 2:
//!   s0 += x(i) + s1;
//!   s1 += x(i+1) + s0;
//! ```
//!
//! Each step waits for the one before, so two additions per eight bytes are the floor.

/// The two running sums, s0 and s1. `(0, 0)` starts a WAL header or a wal-index header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WalChecksum(pub u32, pub u32);

impl WalChecksum {
    /// The sums after `bytes` more, whose words are big-endian or little-endian.
    ///
    /// Panics unless `bytes` is a multiple of eight long, which every covered region is.
    #[must_use]
    pub fn update(self, bytes: &[u8], big_endian: bool) -> WalChecksum {
        assert!(bytes.len().is_multiple_of(8), "the WAL checksum runs over whole pairs of words");
        if big_endian { self.run(bytes, u32::from_be_bytes) } else { self.run(bytes, u32::from_le_bytes) }
    }

    #[inline(always)]
    fn run(self, bytes: &[u8], word: impl Fn([u8; 4]) -> u32) -> WalChecksum {
        let WalChecksum(mut s0, mut s1) = self;
        for pair in bytes.chunks_exact(8) {
            let x0 = word([pair[0], pair[1], pair[2], pair[3]]);
            let x1 = word([pair[4], pair[5], pair[6], pair[7]]);
            // Adding the word to the older sum first leaves one addition per word on the
            // chain from one pair to the next.
            s0 = s0.wrapping_add(x0).wrapping_add(s1);
            s1 = s1.wrapping_add(x1).wrapping_add(s0);
        }
        WalChecksum(s0, s1)
    }

    /// The eight bytes in which WAL and frame headers store the sums: always big-endian,
    /// whatever the order of the words summed.
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        (u64::from(self.0) << 32 | u64::from(self.1)).to_be_bytes()
    }
}
