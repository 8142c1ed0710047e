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
//! Each step waits for the one before. But the sums are linear, so that a page can be summed in
//! four parts side by side, which are put together at the end (`Zeros`): half the time.

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
        if bytes.len() < FOUR_CHAINS_BYTES || !bytes.len().is_multiple_of(32) {
            return bytes.chunks_exact(8).fold(self, |sum, pair| sum.pair(pair, &word));
        }
        let (quarter, pairs) = (bytes.len() / 4, bytes.len() as u32 / 32);
        let (left, right) = bytes.split_at(2 * quarter);
        let ((a, b), (c, d)) = (left.split_at(quarter), right.split_at(quarter));
        let quarters = a.chunks_exact(8).zip(b.chunks_exact(8)).zip(c.chunks_exact(8).zip(d.chunks_exact(8)));
        let (mut sum, mut chains) = (self, [WalChecksum::default(); 3]);
        for ((a, b), (c, d)) in quarters {
            sum = sum.pair(a, &word);
            chains[0] = chains[0].pair(b, &word);
            chains[1] = chains[1].pair(c, &word);
            chains[2] = chains[2].pair(d, &word);
        }
        let over = Zeros::new(pairs);
        chains.iter().fold(sum, |before, after| {
            let WalChecksum(s0, s1) = over.take(before);
            WalChecksum(s0.wrapping_add(after.0), s1.wrapping_add(after.1))
        })
    }

    /// The sums after one more pair of words.
    #[inline(always)]
    fn pair(self, pair: &[u8], word: &impl Fn([u8; 4]) -> u32) -> WalChecksum {
        let x0 = word([pair[0], pair[1], pair[2], pair[3]]);
        let x1 = word([pair[4], pair[5], pair[6], pair[7]]);
        // Adding the word to the older sum first leaves one addition per word on the chain from
        // one pair to the next.
        let s0 = self.0.wrapping_add(x0).wrapping_add(self.1);
        WalChecksum(s0, self.1.wrapping_add(x1).wrapping_add(s0))
    }

    /// The eight bytes in which WAL and frame headers store the sums: always big-endian,
    /// whatever the order of the words summed.
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        (u64::from(self.0) << 32 | u64::from(self.1)).to_be_bytes()
    }
}

/// From this length on, four chains of additions run side by side.
const FOUR_CHAINS_BYTES: usize = 512;

/// What a run of zeros makes of the sums.
///
/// The sums are linear: those over two runs of bytes, one behind the other, are those of the
/// first taken over as many zeros as the second has bytes, plus those that the second has by
/// itself. So parts of a page can be summed side by side, where in one chain each addition waits
/// for the one before. A pair of zeros maps (s0, s1) to (s0 + s1, s0 + 2 s1), and n of them to
/// combinations with the Fibonacci numbers around F(2n) as factors.
struct Zeros {
    /// F(2n - 1), F(2n), F(2n + 1), modulo 2^32.
    factors: [u32; 3],
}

impl Zeros {
    /// Of `pairs` pairs of words.
    #[inline(always)]
    fn new(pairs: u32) -> Zeros {
        // F(k) and F(k + 1), doubled and stepped along the bits of 2n.
        let (mut at, mut next) = (0_u32, 1_u32);
        for bit in (0..u32::BITS - (2 * pairs).leading_zeros()).rev() {
            let twice = at.wrapping_mul(next.wrapping_mul(2).wrapping_sub(at));
            let after = at.wrapping_mul(at).wrapping_add(next.wrapping_mul(next));
            (at, next) = match ((2 * pairs) >> bit) & 1 {
                0 => (twice, after),
                _ => (after, twice.wrapping_add(after)),
            };
        }
        Zeros { factors: [next.wrapping_sub(at), at, next] }
    }

    #[inline(always)]
    fn take(&self, WalChecksum(s0, s1): WalChecksum) -> WalChecksum {
        let [before, at, after] = self.factors;
        let sum = |a: u32, b: u32| s0.wrapping_mul(a).wrapping_add(s1.wrapping_mul(b));
        WalChecksum(sum(before, at), sum(at, after))
    }
}
