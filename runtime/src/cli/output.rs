//! The one place that writes to standard output.
//!
//! A reader that goes away (`driftless ltx … | head`) is no error: [`Out`] notes that the pipe is
//! closed, and everything after that is dropped.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};

use serde::Serialize;

/// Standard output of a command.
#[derive(Debug, Default)]
pub struct Out {
    closed: bool,
}

impl Out {
    /// Standard output.
    pub fn new() -> Out {
        Out::default()
    }

    /// Whether a person watches.
    pub fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes a line.
    pub fn line(&mut self, line: impl Display) {
        self.write(&format!("{line}\n"));
    }

    /// Writes text as it is, and flushes.
    pub fn write(&mut self, text: &str) {
        if self.closed {
            return;
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => {}
            // Nothing can be said on a stream that refuses to take words, whatever the reason.
            Err(error) => self.closed = error.kind() != ErrorKind::Interrupted,
        }
    }

    /// Writes a value as indented JSON.
    pub fn json(&mut self, value: &impl Serialize) {
        let text =
            serde_json::to_string_pretty(value).expect("our own types have string keys and finite numbers");
        self.line(text);
    }

    /// Writes a table.
    pub fn table(&mut self, table: &Table) {
        self.write(&table.render());
    }
}

/// Columns aligned with two spaces between them, as Litestream prints its lists.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Table {
        Table { rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    /// Adds a row; cells beyond the headings are a mistake of the caller.
    pub fn row(&mut self, cells: Vec<String>) {
        assert!(cells.len() == self.rows[0].len(), "a row has as many cells as there are headings");
        self.rows.push(cells);
    }

    /// Its lines.
    pub fn render(&self) -> String {
        let columns = self.rows[0].len();
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Bytes for people, in powers of a thousand, as Litestream prints them: `4.2 kB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let value = (value * 10.0).round() / 10.0;
    match value < 10.0 {
        true => format!("{value:.1} {}", UNITS[unit]),
        false => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// A count with thin separators: `12,345`.
pub fn human_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_without_trailing_blanks() {
        let mut table = Table::new(["level", "created"]);
        table.row(vec!["0".to_owned(), "now".to_owned()]);
        assert_eq!(table.render(), "level  created\n0      now\n");
    }

    #[test]
    fn numbers_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (82, "82 B"),
            (4152, "4.2 kB"),
            (99_999, "100 kB"),
            (1_200_000_000, "1.2 GB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
        for (count, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(human_count(count), text);
        }
    }
}
