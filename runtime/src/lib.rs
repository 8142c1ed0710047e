//! Driftless runtime.

pub mod clock;
pub mod port;
pub mod sqlite;
pub mod watch;
