//! Every decision of a run is a hash of the seed and of what is decided.
//!
//! There is no stream of random numbers that all share: taking one transaction out of a script
//! leaves every other decision as it was, so that failing runs can be made smaller.

use std::time::Duration;

/// Decides, by name.
#[derive(Clone, Copy, Debug)]
pub struct Dice {
    seed: u64,
}

impl Dice {
    /// The decisions of a seed.
    pub const fn new(seed: u64) -> Dice {
        Dice { seed }
    }

    /// The seed.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// A number for the `n`-th decision of `domain` about `name`.
    pub fn draw(&self, domain: &str, name: &str, n: u64) -> u64 {
        let mut hash = mix(self.seed ^ 0x51_7cc1_b727_220a);
        for byte in domain.bytes().chain([0xff]).chain(name.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        mix(mix(hash).wrapping_add(n))
    }

    /// Whether it happens, in `of` cases out of which `hits` do.
    pub fn chance(&self, domain: &str, name: &str, n: u64, hits: u64, of: u64) -> bool {
        self.draw(domain, name, n) % of < hits
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&self, domain: &str, name: &str, n: u64, low: u64, high: u64) -> u64 {
        low + self.draw(domain, name, n) % (high - low + 1)
    }

    /// One of several.
    pub fn pick<'a, T>(&self, domain: &str, name: &str, n: u64, of: &'a [T]) -> &'a T {
        &of[(self.draw(domain, name, n) % of.len() as u64) as usize]
    }

    /// A duration from `low` to `high` microseconds, small ones more often than large ones.
    pub fn wait(&self, domain: &str, name: &str, n: u64, low: u64, high: u64) -> Duration {
        let draw = self.draw(domain, name, n);
        let part = (draw % 1_000) * ((draw >> 32) % 1_000) / 1_000;
        Duration::from_micros(low + (high - low) * part / 1_000)
    }
}

/// The finisher of SplitMix64.
fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_follow_from_their_names_alone() {
        let dice = Dice::new(7);
        assert_eq!(dice.draw("store", "put", 3), Dice::new(7).draw("store", "put", 3));
        let others =
            [dice.draw("store", "put", 4), dice.draw("store", "pu", 3), Dice::new(8).draw("store", "put", 3)];
        assert!(others.iter().all(|other| *other != dice.draw("store", "put", 3)));
        let hits = (0..10_000).filter(|n| dice.chance("a", "b", *n, 1, 4)).count();
        assert!((2_300..2_700).contains(&hits), "{hits} of 10,000 at one in four");
        assert!((0..1_000).all(|n| (5..=9).contains(&dice.range("a", "c", n, 5, 9))));
    }
}
