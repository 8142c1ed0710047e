//! See the crate's README section in docs/ARCHITECTURE.md.

pub mod app;
pub mod sidecar;
pub mod store_faults;
