//! Driftless runtime.
