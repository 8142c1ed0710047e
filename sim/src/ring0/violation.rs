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

/// What kind of promise was broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// Something wrong happened.
    Safety,
    /// Something right did not happen in time.
    Liveness,
    /// The same led to something else.
    NonDeterminism,
    /// An assertion failed.
    Panic,
}

impl Class {
    /// What the process ends with that saw it.
    pub const fn exit_code(self) -> u8 {
        match self {
            Class::Safety => 1,
            Class::Liveness => 2,
            Class::NonDeterminism => 3,
            Class::Panic => 4,
        }
    }

    /// What the promise was of which an oracle of this name speaks.
    pub fn of(oracle: &str) -> Class {
        match oracle {
            "liveness" | "spin" | "hang" => Class::Liveness,
            "purity" | "determinism" => Class::NonDeterminism,
            "panic" => Class::Panic,
            _ => Class::Safety,
        }
    }
}

impl Violation {
    /// Says what was seen.
    pub fn new(oracle: &'static str, text: impl Into<String>) -> Violation {
        Violation { oracle, text: text.into() }
    }

    /// What kind of promise was broken.
    pub fn class(&self) -> Class {
        Class::of(self.oracle)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.oracle, self.text)
    }
}

impl std::error::Error for Violation {}
