//! Hosts that hand one database on to each other, each with the production machines: the lease, the succession,
//! the follower and the replicator, on disks of their own with a model of SQLite.
//!
//! [`failover`](crate::failover) asks the lease alone, at a thousand seeds a second. Here the rest is in earnest:
//! a copy is written page by page, leaves its journal, is gone on with and fences; a writer that lost the lease
//! comes back as a copy; what it alone had is kept aside.
//!
//! **What can go wrong**: processes die and take their application with them, stand still for longer than the
//! lease lives while their requests arrive late and their application goes on, are cut off from the store, hand
//! over, lose power, lose their local journal; the store refuses, loses answers, and carries out the writes of
//! the dead. Clocks of hosts begin anywhere and differ.
//!
//! **What must hold**: each segment begins where its predecessor ended and leads to a state that was committed on
//! some host, and no host's history goes back; what is said to be replicated is there, and is of the host that
//! says so; whoever becomes the primary behind another has, to the byte, the state that the replica ends with;
//! what was never replicated is not overwritten before it was kept aside; and once all has healed, somebody
//! writes within a bound, and everything that is committed comes to the replica.
//!
//! In seeds from [`LEVELS_FROM`] on levels are made, and what they cover goes while a host may stand still that has
//! yet to meet it: no name of the history is given to anything else, and the first segment of each epoch stays.

mod app;
mod blows;
pub mod explore;
mod judge;
mod node;
mod output;
mod succeed;
mod world;

use std::fmt;

use driftless_core::lease::PlaceId;

pub use world::{LEVELS_FROM, run};

/// Where the database's replica is.
const PLACE: PlaceId = PlaceId(1);

/// What a run came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// How often a host became the primary.
    pub activations: u64,
    /// How often it was another than the one before.
    pub takeovers: u64,
    /// Transactions that applications committed.
    pub commits: u64,
    /// Segments on the replica in the end.
    pub segments: u64,
    /// Times that something was said to be replicated.
    pub acknowledged: u64,
    /// Fences that met a predecessor's last segment.
    pub overtaken: u64,
    /// Databases that were kept aside.
    pub asides: u64,
    /// Transactions that followers committed to copies.
    pub followed: u64,
    /// Hosts that lost the lease while their application ran.
    pub deposed: u64,
    /// Files of level 0 that were deleted, since others hold what they held.
    pub deleted: u64,
    /// Faults that struck.
    pub faults: u64,
    /// A hash of all that happened.
    pub hash: u64,
}

impl Summary {
    /// Adds what another run came to; hashes are left alone.
    pub fn add(&mut self, other: &Summary) {
        self.activations += other.activations;
        self.takeovers += other.takeovers;
        self.commits += other.commits;
        self.segments += other.segments;
        self.acknowledged += other.acknowledged;
        self.overtaken += other.overtaken;
        self.asides += other.asides;
        self.followed += other.followed;
        self.deposed += other.deposed;
        self.deleted += other.deleted;
        self.faults += other.faults;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "primaries     {}, {} of them takeovers", self.activations, self.takeovers)?;
        writeln!(f, "deposed       {}", self.deposed)?;
        writeln!(f, "overtaken     {}", self.overtaken)?;
        writeln!(f, "commits       {}, in {} segments", self.commits, self.segments)?;
        writeln!(f, "acknowledged  {} times", self.acknowledged)?;
        writeln!(f, "followed      {} transactions", self.followed)?;
        writeln!(f, "kept aside    {} databases", self.asides)?;
        writeln!(f, "deleted       {} files of level 0", self.deleted)?;
        writeln!(f, "faults        {}", self.faults)
    }
}

/// How many seeds `cargo test` tries.
pub const SEEDS_IN_TESTS: u64 = 400;
