//! SQLite is the judge of its model: the same scripts on both, and everything that can be seen.
//!
//! Content differs, and with it the number of frames. So frames are counted in commits: the end of
//! the WAL, what is backfilled and the read marks each stand after so many commits of this
//! generation. Generations are told by their salts.

mod judge;

use driftless_sim::ring0::dice::Dice;
use judge::{Script, compare};

/// Scripts in `cargo test`.
const SCRIPTS: u64 = 400;

#[test]
fn the_model_does_what_sqlite_does() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..SCRIPTS {
        let script = Script::of_seed(&Dice::new(seed));
        let trace = compare(seed, &script);
        for word in trace.iter().flat_map(|line| line.split_whitespace()) {
            *seen.entry(word.to_owned()).or_insert(0_u32) += 1;
        }
    }
    // A comparison of scripts in which nothing happens would say nothing.
    for word in ["busy", "io", "died", "phantom", "restarted", "marked", "part", "journal"] {
        assert!(seen.get(word).is_some_and(|count| *count >= 20), "{word} in {:?}", seen.get(word));
    }
}
