//! Ring 2 for hours: storms over the real binary, one after the other (`tests/src/ring2.rs`).
//!
//! `cargo run --release -p driftless-tests --bin ring2 -- [--hours H] [--seed N] [--rounds N]`
//! Each round has a seed of its own, which it prints, and is a storm of a minute, an end of it, and a
//! comparison of everything. The first difference is a panic that says how to run the seed again;
//! the files stay. `TMPDIR` says where they lie.
#![expect(clippy::print_stdout, reason = "it says how far it is")]

use std::time::{Duration, Instant};

use driftless_tests::ring2::Ring2;

/// One storm.
const STORM: Duration = Duration::from_mins(1);

/// What is asked for.
struct Asked {
    hours: f64,
    seed: u64,
    rounds: u64,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Asked { hours, seed, rounds } = parse(&words).unwrap_or_else(|word| {
        println!("what is {word:?}? Use: ring2 [--hours H] [--seed N] [--rounds N]");
        std::process::exit(2);
    });
    let begun = Instant::now();
    for round in 0..rounds {
        if begun.elapsed().as_secs_f64() > hours * 3_600.0 {
            break;
        }
        let seed = seed.wrapping_add(round);
        let mut ring = Ring2::new("ring2", seed);
        ring.storm(STORM);
        let counts = ring.heal_and_compare();
        println!("{:>6} s: seed {seed}: {counts}", begun.elapsed().as_secs());
    }
    println!("nothing is lost");
}

fn parse(words: &[String]) -> Result<Asked, String> {
    let mut asked = Asked { hours: 1.0, seed: 1, rounds: u64::MAX };
    for pair in words.chunks(2) {
        let value = pair.get(1).ok_or_else(|| pair[0].clone())?;
        let wrong = || value.clone();
        match pair[0].as_str() {
            "--hours" => asked.hours = value.parse().map_err(|_| wrong())?,
            "--seed" => asked.seed = value.parse().map_err(|_| wrong())?,
            "--rounds" => asked.rounds = value.parse().map_err(|_| wrong())?,
            other => return Err(other.to_string()),
        }
    }
    Ok(asked)
}
