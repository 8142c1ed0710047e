//! Scripts, the run of one on a machine, and the comparison of two runs.

mod machine;
mod script;

use std::rc::Rc;

use driftless_sim::disk::{Disk, DiskConfig, SimClock};
use driftless_sim::model::Model;
use driftless_sim::ring0::sqlite::{Library, Sqlite};

use machine::Bench;
pub use script::Script;

const START_NS: u64 = 1_800_000_000_000_000_000;
const PENDING: u64 = 0x4000_0000;

/// Runs a script on SQLite and on its model; answers what was seen on both.
///
/// # Panics
/// At the first step after which the two differ, with the script up to there.
pub fn compare(seed: u64, script: &Script) -> Vec<String> {
    let library = run(seed, script, false);
    let model = run(seed, script, true);
    for (n, (expected, found)) in library.iter().zip(&model).enumerate() {
        if expected != found {
            let steps: Vec<String> = script
                .steps
                .iter()
                .zip(&library)
                .take(n + 1)
                .map(|(step, line)| format!("{step:?}\n      {line}"))
                .collect();
            panic!("script {seed}, step {n}:\n{}\nmodel {found}", steps.join("\n"));
        }
    }
    library
}

fn run(seed: u64, script: &Script, model: bool) -> Vec<String> {
    let clock = SimClock::new(START_NS);
    let disk = Disk::new(DiskConfig::default(), clock.clone());
    let sqlite: Rc<dyn Sqlite> = match model {
        true => Rc::new(Model::new(disk, seed, PENDING, true)),
        false => Rc::new(Library::new(disk, clock.clone(), seed, PENDING)),
    };
    let mut bench = Bench::new(sqlite.as_ref());
    script
        .steps
        .iter()
        .map(|step| {
            clock.advance_ns(10_000_000);
            bench.perform(step)
        })
        .collect()
}
