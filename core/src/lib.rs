//! The pure core of Driftless.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod ids;
