//! What both applications do: a sequence that depends on nothing but its seed.
//!
//! All of it goes through one connection, opened and closed and at times lost with its process.
//! With a second one, what stands in page 1 would depend on when the first one notices that the
//! other's checkpoint has restarted the WAL, and so on whether that checkpoint was busy beside us.

use serde_json::{Value, json};

use crate::random;

/// How long the application waits for a lock: longer than a replicator is ever held.
const BUSY_MS: u64 = 60_000;
/// Numbered transactions whose payload stays.
const KEEP: u64 = 300;
/// Rows of the table that is written by whole statements.
const WILD_ROWS_MAX: u64 = 4_001;
/// Tables that come and go.
const EXTRAS: u64 = 4;

/// One thing that an application does.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// A command of [`crate::app`], whose reply is the same whoever watches.
    Ask(Value),
    /// A checkpoint in this mode; how far it gets is another matter.
    Checkpoint(&'static str),
    /// The process dies, and another one takes its place.
    Crash,
}

/// Writes the sequence, burst after burst.
pub struct Script {
    seed: u64,
    open: bool,
}

impl Script {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Script {
        // Neighbours shall not begin alike, and 0 would stay 0.
        Script { seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, open: false }
    }

    fn below(&mut self, limit: u64) -> u64 {
        (random(&mut self.seed) >> 11) % limit
    }

    /// Makes the database.
    pub fn beginning(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        self.open_on(&mut steps);
        // The vacuum mode must come before the first table.
        steps.extend([sql("PRAGMA auto_vacuum=INCREMENTAL"), sql("PRAGMA journal_mode=WAL")]);
        steps.push(Step::Ask(json!({ "op": "schema" })));
        steps.push(sql("CREATE TABLE wild(k INTEGER PRIMARY KEY, a TEXT, b TEXT)"));
        steps
    }

    /// The next burst of writes.
    pub fn burst(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        self.open_on(&mut steps);
        // Most are small; some are more than the WAL may hold before it is started over.
        let transactions = match self.below(8) {
            0 => 800 + self.below(800),
            1..=3 => 100 + self.below(300),
            _ => 1 + self.below(60),
        };
        for _ in 0..transactions {
            self.step_on(&mut steps);
        }
        // So that each burst commits something.
        steps.push(self.transaction(16, 600));
        if self.below(3) == 0 {
            self.leave_on(&mut steps);
        }
        steps
    }

    /// Copies everything back and leaves, so that the database file alone is the database.
    pub fn end(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        self.open_on(&mut steps);
        steps.push(Step::Checkpoint("TRUNCATE"));
        steps.push(Step::Ask(json!({ "op": "close" })));
        self.open = false;
        steps
    }

    fn open_on(&mut self, steps: &mut Vec<Step>) {
        if !self.open {
            steps.push(Step::Ask(json!({ "op": "open", "busy_ms": BUSY_MS })));
            self.open = true;
        }
    }

    fn leave_on(&mut self, steps: &mut Vec<Step>) {
        if self.below(2) == 0 {
            steps.push(Step::Ask(json!({ "op": "close" })));
        } else {
            // A commit that was not to be.
            steps.extend([sql("BEGIN IMMEDIATE"), sql("UPDATE wild SET a = 'lost'"), Step::Crash]);
        }
        self.open = false;
    }

    fn step_on(&mut self, steps: &mut Vec<Step>) {
        match self.below(400) {
            0..=1 => steps.push(sql("VACUUM")),
            2..=9 => {
                let pages = 1 + self.below(200);
                steps.push(sql(&format!("PRAGMA incremental_vacuum({pages})")));
            }
            10..=29 => {
                let mode = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][self.below(4) as usize];
                steps.push(Step::Checkpoint(mode));
            }
            30..=49 => steps.push(self.definition()),
            50..=99 => steps.push(self.statement()),
            100..=101 => {
                self.leave_on(steps);
                self.open_on(steps);
            }
            102 => steps.push(self.transaction(2_000, 900)),
            _ => steps.push(self.transaction(16, 600)),
        }
    }

    fn transaction(&mut self, rows_max: u64, bytes_max: u64) -> Step {
        let (rows, bytes) = (1 + self.below(rows_max), self.below(bytes_max));
        // JSON numbers are exact up to 2^53 wherever they are read.
        let seed = self.below(1 << 40);
        Step::Ask(json!({ "op": "tx", "rows": rows, "bytes": bytes, "keep": KEEP, "seed": seed }))
    }

    fn definition(&mut self) -> Step {
        let n = self.below(EXTRAS);
        sql(&match self.below(5) {
            0 => format!("CREATE TABLE IF NOT EXISTS extra{n}(x PRIMARY KEY, y) WITHOUT ROWID"),
            1 => format!("DROP TABLE IF EXISTS extra{n}"),
            2 => format!("CREATE TABLE IF NOT EXISTS extra{n} AS SELECT * FROM wild LIMIT 500"),
            3 => "CREATE INDEX IF NOT EXISTS wild_b ON wild(b)".into(),
            _ => "DROP INDEX IF EXISTS wild_b".into(),
        })
    }

    fn statement(&mut self) -> Step {
        let (factor, width) = (1 + self.below(1 << 30), 1 + self.below(1_500));
        let (modulus, rest) = (2 + self.below(40), self.below(40));
        sql(&match self.below(3) {
            0 => {
                let rows = 1 + self.below(400);
                format!(
                    "INSERT OR REPLACE INTO wild
                     WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                     SELECT i * {factor} % {WILD_ROWS_MAX}, i, printf('%0{width}d', i * {factor}) FROM n"
                )
            }
            1 => format!(
                "UPDATE wild SET a = {factor} || k, b = printf('%0{width}d', k) WHERE k % {modulus} = {rest}"
            ),
            _ => format!("DELETE FROM wild WHERE k % {modulus} = {rest}"),
        })
    }
}

fn sql(text: &str) -> Step {
    Step::Ask(json!({ "op": "sql", "q": text }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_it_all() {
        let of = |seed| {
            let mut script = Script::new(seed);
            let mut steps = script.beginning();
            (0..20).for_each(|_| steps.extend(script.burst()));
            steps
        };
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        let steps = of(7);
        let modes: Vec<_> = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"].map(Step::Checkpoint).into();
        assert!(modes.iter().chain([&Step::Crash, &sql("VACUUM")]).all(|step| steps.contains(step)));
    }
}
