//! The pure core of Driftless.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod bytes;
pub mod checksum;
pub mod ids;
pub mod ltx;
pub mod wal;
