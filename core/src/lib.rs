//! The pure core of Driftless: formats, engine, plans.
//!
//! Nothing here performs I/O, reads a clock, draws a random number or starts a thread. A machine
//! is driven by its host in one loop:
//!
//! 1. the host calls [`machine::Machine::handle`] with the clocks and one [`machine::Event`];
//! 2. it carries out each [`machine::Action`] that came out, in any order and concurrently;
//! 3. it sleeps until a completion, a change of the source, or
//!    [`machine::Machine::next_deadline`], and begins again.
//!
//! Whatever order matters is kept by the machine: an action is emitted only when all that must
//! precede it has completed. A host that drops completions, delays them, or dies between any two
//! actions loses time, never data; the simulator in `sim/` does all of that.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod application;
mod bytes;
pub mod checksum;
pub mod compact;
pub mod engine;
pub mod follow;
pub mod health;
pub mod ids;
pub mod job;
pub mod keeper;
pub mod lease;
pub mod legacy;
pub mod ltx;
pub mod machine;
pub mod mutant;
pub mod probe;
mod reading;
pub mod restore;
pub mod retain;
pub mod succession;
pub mod tiers;
pub mod validate;
pub mod verify;
pub mod wal;
