//! Ring 0: the replicator in a bare loop over a simulated machine, with real SQLite.

pub mod app;
pub mod dice;
pub mod files;
mod host;
pub mod image;
pub mod plan;
pub mod queue;
pub mod restore;
mod run;
pub mod scripts;
pub mod state;
pub mod store;
pub mod truth;
pub mod violation;
pub mod world;

pub use plan::Plan;
pub use run::{Failure, run_plan, run_seed, run_with_every_crash};
pub use violation::Violation;
pub use world::{Summary, World};
