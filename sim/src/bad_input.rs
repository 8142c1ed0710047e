//! What a person gave that cannot be used, and what would do instead.

use std::fmt;

/// One thing that is wrong with what was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadInput {
    /// What is wrong.
    pub text: String,
    /// What to do about it; empty if that is plain.
    pub hint: String,
}

impl BadInput {
    /// Says what is wrong.
    pub fn new(text: impl Into<String>) -> BadInput {
        BadInput { text: text.into(), hint: String::new() }
    }

    /// And what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> BadInput {
        BadInput { hint: hint.into(), ..self }
    }
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.text)?;
        if !self.hint.is_empty() {
            write!(f, "\n\nhint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for BadInput {}
