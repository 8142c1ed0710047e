//! Hours of writes, silence and restarts, and no byte of the database may tell.
//!
//! `cargo run --release -p driftless-tests --bin soak -- [--hours H] [--seed N]` writes the same into
//! two databases, one beside Driftless and one alone, and compares them every few minutes
//! (`tests/src/twin.rs`). It prints a line for each comparison and ends with a panic at the first
//! difference, which names the files; they stay. `TMPDIR` says where they lie. It rests most of
//! the time: a tenth of a core, so that it can run beside other work.
#![expect(clippy::print_stdout, reason = "it says how far it is")]

use std::time::{Duration, Instant};

use driftless_tests::twin::{Fate, Twins};

/// Rounds between two comparisons.
const ROUNDS: u32 = 8;
/// After a round it rests this many times as long as the round was busy.
const REST: u32 = 3;

fn main() {
    let (hours, seed) = match parse(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(parsed) => parsed,
        Err(word) => {
            println!("what is {word:?}? Use: soak [--hours H] [--seed N]");
            std::process::exit(2);
        }
    };
    let begun = Instant::now();
    let mut twins = Twins::new("soak", seed);
    println!("seed {seed}, {hours} h, in {}", twins.directory().display());
    while begun.elapsed().as_secs_f64() < hours * 3_600.0 {
        for _ in 0..ROUNDS {
            round(&mut twins);
        }
        twins.compare();
        println!("{:>6} s: {}", begun.elapsed().as_secs(), twins.counts());
    }
    println!("no difference");
}

/// One round and the rest after it.
fn round(twins: &mut Twins) {
    let fate = Fate::ALL[twins.chance(Fate::ALL.len() as u64) as usize];
    let begun = Instant::now();
    twins.round(fate);
    if fate != Fate::Quiet {
        // Silence is a rest already.
        std::thread::sleep((begun.elapsed() * REST).min(Duration::from_mins(1)));
    }
}

/// Hours and seed; the word that is not understood.
fn parse(words: &[String]) -> Result<(f64, u64), String> {
    let (mut hours, mut seed) = (1.0, 1);
    for pair in words.chunks(2) {
        let value = pair.get(1).ok_or_else(|| pair[0].clone())?;
        match pair[0].as_str() {
            "--hours" => hours = value.parse().map_err(|_| value.clone())?,
            "--seed" => seed = value.parse().map_err(|_| value.clone())?,
            other => return Err(other.to_string()),
        }
    }
    Ok((hours, seed))
}
