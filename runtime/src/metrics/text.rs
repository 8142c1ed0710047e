//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

/// What a scrape is answered with.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Families of samples, one after the other.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a family.
    pub fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.0, name }
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.0
    }
}

/// A family of samples.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.part("", labels, value);
    }

    /// Adds a sample of a part of the family, as histograms have them.
    pub fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (number, (name, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"", if number == 0 { "{" } else { "," });
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        let mut family = text.family("a_b", "gauge", "What it is.");
        family.sample(&[], 1);
        family.sample(&[("db", "/a\"b\\c\nd"), ("x", "y")], 0.5);
        family.part("_sum", &[("x", "y")], 2);
        assert_eq!(
            text.finish(),
            "# HELP a_b What it is.\n# TYPE a_b gauge\na_b 1\na_b{db=\"/a\\\"b\\\\c\\nd\",x=\"y\"} 0.5\na_b_sum{x=\"y\"} 2\n"
        );
    }
}
