//! How Driftless reaches storage: the [`Fs`](fs::Fs) seam under everything that orders syscalls
//! for durability, the [`Store`](store::Store) trait over which segments travel, and the stores
//! themselves.
//!
//! Nothing here decides. An adapter does one thing once and says precisely what became of it:
//! done, refused, certainly not done, or unknown. Retries, schedules, deadlines and the choice of
//! what to delete belong to the core, which is tested in simulation; an adapter that quietly tried
//! again would hide from it the one fact that matters after a lost answer, namely that the fate of
//! the first attempt is unknown.
//!
//! - [`fs`]: the filesystem seam and the real filesystem.
//! - [`store`]: the contract of a store and its errors, sorted by what the core does next.
//! - [`keys`]: object names, Litestream's two layouts among them.
//! - [`directory`], [`memory`]: the stores of this crate that need no server.
//! - `pool`, `timer`: threads and waiting, both madsim's where the process is simulated.
//! - `children`: commands that are run for their answer.
//! - `object`: S3, Azure, GCS and WebDAV.
//! - [`battery`]: the conformance battery that every store passes, your own included
//!   (`docs/STORAGE.md`).
#![forbid(unsafe_code)]

pub mod battery;
#[cfg(feature = "host")]
pub mod children;
pub mod directory;
pub mod fs;
pub mod keys;
pub mod memory;
#[cfg(feature = "host")]
pub mod object;
#[cfg(feature = "host")]
pub mod pool;
pub mod store;
#[cfg(feature = "host")]
pub mod timer;
