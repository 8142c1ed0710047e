//! What many seeds came to, as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use driftless_sim::ring0::hits::Hits;

use crate::worker::Line;

/// Of a hundred seeds, so many may be excused.
const EXCUSED_PER_CENT: u64 = 2;

/// Sums over seeds.
#[derive(Default)]
pub struct Table {
    seeds: u64,
    failed: u64,
    excused: u64,
    sums: Sums,
    hits: Hits,
    /// In how many seeds a fault struck.
    seeds_hit: BTreeMap<String, u64>,
    excuses: Hits,
    converged_us: Vec<u64>,
}

#[derive(Default)]
struct Sums {
    commits: u64,
    restored: u64,
    validated: u64,
    starts: u64,
    crashes: u64,
    phantoms: u64,
    fenced: u64,
    bases: (u64, u64),
    detached: (u64, u64),
    simulated_ms: u64,
    actions: u64,
}

impl Table {
    /// Adds a seed.
    pub fn add(&mut self, line: &Line) {
        self.seeds += 1;
        self.hits.add(&line.hits);
        for (name, _) in line.hits.iter() {
            *self.seeds_hit.entry(name.to_owned()).or_default() += 1;
        }
        let Some(summary) = &line.summary else {
            self.failed += 1;
            return;
        };
        let sums = &mut self.sums;
        sums.commits += summary.commits;
        sums.restored += summary.restored;
        sums.validated += summary.validated;
        sums.starts += summary.starts;
        sums.crashes += summary.crashes;
        sums.phantoms += summary.phantoms;
        sums.fenced += summary.fenced;
        sums.bases.0 += summary.bases.0;
        sums.bases.1 += summary.bases.1;
        sums.detached.0 += summary.detached.0;
        sums.detached.1 += summary.detached.1;
        sums.simulated_ms += summary.simulated_ms;
        sums.actions += summary.actions;
        self.excused += u64::from(summary.excuses.total() > 0);
        self.excuses.add(&summary.excuses);
        self.converged_us.push(summary.converged_us);
    }

    /// How many seeds were added.
    pub fn seeds(&self) -> u64 {
        self.seeds
    }

    /// Whether more seeds were excused than may be. A single one of a few is not too many.
    pub fn is_excused_too_often(&self) -> bool {
        self.excused > 1 && self.excused * 100 > self.seeds * EXCUSED_PER_CENT
    }

    /// The table.
    pub fn text(&self, took: Duration, jobs: u64) -> String {
        let (sums, seconds) = (&self.sums, took.as_secs_f64().max(1e-9));
        let rate = self.seeds as f64 / seconds;
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            writeln!(text, "{name:<12} {value}").expect("a string takes it");
        };
        line("seeds", format!("{}, {} failed, in {seconds:.1} s", self.seeds, self.failed));
        line("seeds/s", format!("{rate:.1}, {:.1} of each of {jobs} processes", rate / jobs as f64));
        line("simulated", format!("{:.1} h", sums.simulated_ms as f64 / 3_600_000.0));
        line("commits", format!("{}, and {} phantoms", sums.commits, sums.phantoms));
        line("restores", format!("{}, each compared", sums.restored));
        line("validations", format!("{}, each verdict judged", sums.validated));
        line("actions", sums.actions.to_string());
        line("starts", format!("{}, {} after a death", sums.starts, sums.crashes));
        line("bases", format!("{} whole, {} by difference", sums.bases.0, sums.bases.1));
        line("let go", format!("{} sealed, {} not", sums.detached.0, sums.detached.1));
        line("fenced", sums.fenced.to_string());
        line("converged", self.converged());
        let share = self.excused as f64 * 100.0 / self.seeds.max(1) as f64;
        line("excused", format!("{} seeds, {share:.2} % of at most {EXCUSED_PER_CENT} %", self.excused));
        for (name, count) in self.excuses.iter() {
            line("", format!("{count:>9}  {name}"));
        }
        line("faults", format!("{} struck", self.hits.total()));
        for (name, count) in self.hits.iter() {
            line("", format!("{count:>9}  {name}, in {} seeds", self.seeds_hit[name]));
        }
        if self.is_excused_too_often() {
            line("FAILED", "too many seeds are excused".to_owned());
        }
        text
    }

    fn converged(&self) -> String {
        let mut sorted = self.converged_us.clone();
        sorted.sort_unstable();
        let at = |part: usize| sorted.get(sorted.len() * part / 100).copied().unwrap_or(0) as f64 / 1e6;
        let max = sorted.last().copied().unwrap_or(0) as f64 / 1e6;
        format!("p50 {:.1} s, p99 {:.1} s, max {max:.1} s after the end of faults", at(50), at(99))
    }
}

#[cfg(test)]
mod tests {
    use driftless_sim::ring0::Summary;

    use super::*;

    fn line(seed: u64, summary: Option<Summary>) -> Line {
        let mut hits = Hits::default();
        hits.hit("store: refused");
        Line { seed, summary, seen: None, hits }
    }

    #[test]
    fn seeds_add_up() {
        let mut table = Table::default();
        for seed in 0..100 {
            let summary = Summary { commits: 3, converged_us: seed * 1_000_000, ..Summary::default() };
            table.add(&line(seed, Some(summary)));
        }
        table.add(&line(100, None));
        let text = table.text(Duration::from_secs(10), 2);
        for says in [
            "101, 1 failed, in 10.0 s",
            "10.1, 5.0 of each of 2",
            "300, and 0 phantoms",
            "p50 50.0 s, p99 99.0 s, max 99.0 s",
            "101  store: refused, in 101 seeds",
        ] {
            assert!(text.contains(says), "{says:?} is not in\n{text}");
        }
    }

    #[test]
    fn too_many_excuses_are_found() {
        let cases =
            [(0, 1, false), (1, 2, false), (2, 99, true), (2, 100, false), (3, 149, true), (3, 150, false)];
        for (excused, seeds, too_often) in cases {
            let table = Table { seeds, excused, ..Table::default() };
            assert_eq!(table.is_excused_too_often(), too_often, "{excused} of {seeds}");
        }
    }
}
