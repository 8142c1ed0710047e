//! Driftless runtime.

pub mod clock;
pub mod sqlite;
