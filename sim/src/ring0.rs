//! Ring 0: the replicator in a bare loop over a simulated machine, with SQLite or a model of it.
//!
//! One thread takes what happens next off a heap. The world ([`world`]) holds a simulated disk, an
//! application with SQLite ([`sqlite`]) in a process of its own ([`app`]), an object store
//! ([`store`]), the local records ([`state`]) and the replicator under a host that carries out its
//! actions through the production port and link. Every decision is a hash of the seed and of what is decided
//! ([`dice`]), so that a seed repeats to the last byte.
//!
//! # What can go wrong here
//! The application is killed, dies or gets an error in the sync of a commit, checkpoints in every
//! mode, holds snapshots, leaves WAL mode and comes back, changes the page size, deletes, replaces
//! and restores the database. Our process is killed between any two actions, and in the middle of
//! an operation of SQLite, whose calls fail by dice; its local records are cut or lost, or cannot
//! be written. The store refuses, loses answers, lets puts land late or after their sender's death,
//! and is away for a while. Power fails. The wall clock is set. Events are lost until the sweep.
//!
//! # What must hold
//! [`truth`] records every committed state outside of the engine, from the files. [`oracles`] has
//! what is asked of a run, one promise to a file.
//!
//! `cargo sim` runs seeds and makes what fails small; `docs/SIMULATION.md` tells how. A seed that
//! found something stays in `sim/seeds.txt` with its story.

pub mod app;
mod blows;
pub mod dice;
mod excuses;
pub mod faults;
pub mod files;
mod ghosts;
pub mod hits;
mod host;
pub mod image;
mod levels;
mod local;
mod meddle;
pub mod mirror;
pub mod misfortune;
mod mishap;
pub mod oracles;
mod places;
pub mod plan;
pub mod planted;
pub mod profile;
pub mod queue;
pub mod reading;
pub mod restore;
pub mod restorer;
mod rival;
mod run;
pub mod scripts;
pub mod sites;
pub mod sqlite;
pub mod state;
pub mod store;
pub mod summary;
mod trouble;
pub mod truth;
mod validation;
pub mod violation;
mod weather;
pub mod world;

pub use hits::Hits;
pub use plan::Plan;
pub use run::{Failure, Report, caught, report, run_plan, run_seed, run_with_every_crash};
pub use violation::{Class, Violation};
pub use world::{Summary, World};
