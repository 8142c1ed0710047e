//! What an oracle says when something is not as it must be.

use std::fmt;

/// A broken promise, and the oracle that saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which oracle.
    pub oracle: &'static str,
    /// What it saw.
    pub text: String,
}

impl Violation {
    /// Says what was seen.
    pub fn new(oracle: &'static str, text: impl Into<String>) -> Violation {
        Violation { oracle, text: text.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.oracle, self.text)
    }
}

impl std::error::Error for Violation {}
