//! Making a dictionary of pages, and finding out whether it pays.

use alloc::vec;
use alloc::vec::Vec;

use crate::ltx::{DICTIONARY_BYTES_MAX, Dictionary, packed_bytes};
use crate::machine::Chunk;

/// A dictionary is so many times shorter than the pages that teach it.
const TAUGHT_FACTOR: usize = 16;
/// Another takes its place if the pages take at most so many thousandths of what they take with it.
const BETTER_PERMILLE: u64 = 950;

/// Make a dictionary and compare.
#[derive(Clone, PartialEq, Debug)]
pub struct TrainJob {
    /// Pages of the database.
    pub pages: Vec<Chunk>,
    /// The level at which they will be compressed.
    pub level: i32,
    /// The dictionary in use.
    pub current: Option<Dictionary>,
    /// One pays if the pages take at most so many thousandths of what they take without.
    pub permille_max: u64,
}

/// What pays most.
#[derive(Clone, PartialEq, Debug)]
pub struct TrainOutput {
    /// With what.
    pub best: Best,
    /// What the pages take with it, in thousandths.
    pub permille: u32,
}

/// With what to compress.
#[derive(Clone, PartialEq, Debug)]
pub enum Best {
    /// Without a dictionary.
    None,
    /// With the one in use.
    Current,
    /// With this one.
    New(Dictionary),
}

impl TrainJob {
    /// Does the work: every other page teaches, and the rest is the test.
    pub fn run(self) -> TrainOutput {
        let taught: Vec<&[u8]> = self.pages.iter().step_by(2).map(|page| &**page).collect();
        let tested: Vec<&[u8]> = self.pages.iter().skip(1).step_by(2).map(|page| &**page).collect();
        let new = train(&taught);
        let packed = |dictionary: Option<&Dictionary>| packed_bytes(self.level, dictionary, &tested);
        let without = packed(None);
        let (mut best, mut bytes) = (Best::None, without);
        let pays = |bytes| bytes * 1_000 <= without * self.permille_max;
        if let Some(taken) = self.current.as_ref().map(|it| packed(Some(it))).filter(|bytes| pays(*bytes)) {
            (best, bytes) = (Best::Current, taken);
        }
        if let Some(new) = new {
            let taken = packed(Some(&new));
            let better = best == Best::None || taken * 1_000 <= bytes * BETTER_PERMILLE;
            if pays(taken) && better {
                (best, bytes) = (Best::New(new), taken);
            }
        }
        let raw: u64 = tested.iter().map(|page| page.len() as u64).sum();
        TrainOutput { best, permille: (bytes * 1_000 / raw.max(1)) as u32 }
    }
}

/// `None` if the pages have nothing in common.
fn train(pages: &[&[u8]]) -> Option<Dictionary> {
    let sizes: Vec<usize> = pages.iter().map(|page| page.len()).collect();
    let sample = pages.concat();
    let mut bytes = vec![0; (sample.len() / TAUGHT_FACTOR).clamp(1 << 10, DICTIONARY_BYTES_MAX / 2)];
    let len = zstd_safe::train_from_buffer(&mut bytes[..], &sample, &sizes).ok()?;
    bytes.truncate(len);
    // The segment's header names it; a number within each page would only take room.
    bytes.get_mut(4..8)?.fill(0);
    Some(Dictionary::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of words, or of noise.
    fn pages(words: bool, seed: u64) -> Vec<Chunk> {
        let mut state = seed;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let page = |draw: &mut dyn FnMut() -> usize| {
            let mut page = Vec::new();
            while page.len() < 4_096 {
                if words {
                    page.extend_from_slice(
                        alloc::format!("word{:05}abcdefgh ", draw() % 600 * 131).as_bytes(),
                    );
                } else {
                    page.push(draw() as u8);
                }
            }
            page.truncate(4_096);
            Chunk::from(page)
        };
        (0..200).map(|_| page(&mut draw)).collect()
    }

    #[test]
    fn a_dictionary_is_chosen_where_it_pays_and_kept_while_it_does() {
        let train = |pages, current| TrainJob { pages, level: 3, current, permille_max: 970 }.run();
        let first = train(pages(true, 1), None);
        let Best::New(dictionary) = first.best.clone() else { panic!("{first:?}") };
        assert_eq!(train(pages(true, 1), None), first, "the same pages make the same");
        assert_eq!(train(pages(true, 2), Some(dictionary.clone())).best, Best::Current);
        assert_eq!(train(pages(false, 3), Some(dictionary)).best, Best::None, "noise has nothing in common");
    }
}
