//! What the fuzz targets in `tests/targets.rs` share: raw bytes, read as choices.
//!
//! A fuzzer makes bytes. Bytes alone seldom get past a checksum, so most targets build something
//! sound out of them, damage it where further bytes say, and hold the reader to what was written.

/// The bytes, and as many more as make `len`, which follow from them: a long run of choices of which a
/// short input decides the first. A random engine makes few long inputs.
pub fn lengthened(bytes: &[u8], len: usize) -> Vec<u8> {
    let seed = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut state = seed;
    let more = std::iter::repeat_with(|| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 56) as u8
    });
    bytes.iter().copied().chain(more).take(len.max(bytes.len())).collect()
}

/// Reads choices from a fuzzer's bytes, and zeros once they have run out, so that every input is
/// a valid one and a shorter input is a simpler case.
#[derive(Clone, Copy, Debug)]
pub struct Feed<'a>(&'a [u8]);

impl<'a> Feed<'a> {
    /// A feed at the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Feed<'a> {
        Feed(bytes)
    }

    /// Whether only zeros are left.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The next four bytes as a number.
    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(core::array::from_fn(|_| self.u8()))
    }

    /// The next eight bytes as a number.
    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) << 32 | u64::from(self.u32())
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: u32) -> u32 {
        (u32::from(self.u8()) << 8 | u32::from(self.u8())) % end
    }

    /// Whether the next byte is odd.
    pub fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// `len` bytes of one of three kinds: all equal, a short pattern, or as they come.
    pub fn fill(&mut self, len: usize) -> Vec<u8> {
        match self.u8() % 3 {
            0 => vec![self.u8(); len],
            1 => {
                let pattern: Vec<u8> = (0..1 + self.u8() % 16).map(|_| self.u8()).collect();
                pattern.iter().copied().cycle().take(len).collect()
            }
            _ => {
                // Not all inputs are long enough for a page: what follows is mixed, so that it
                // does not compress.
                let mut state = self.u64() | 1;
                let mut bytes = Vec::with_capacity(len + 8);
                while bytes.len() < len {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                    bytes.extend((state ^ state >> 29 ^ u64::from(self.u8())).to_le_bytes());
                }
                bytes.truncate(len);
                bytes
            }
        }
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }
}
