//! Hosts that contend for one lease, in a loop over everything that can happen to them.
//!
//! The lease is the production machine (`driftless_core::lease`). What writes under it is a model of the
//! protocol: a successor lists the history, takes the next name with a segment of its own, and only then begins
//! its application; segments are put one after another, each only where nothing stands; and what was put is
//! acknowledged once a look at the lease that began after it has shown the holder's own nonce. The replicator
//! that does the same in earnest is in ring 0's other world and in the end-to-end tests.
//!
//! **What can go wrong**: hosts die, stand still for longer than the lease lives while their requests arrive
//! late, are cut off from the store one by one, come back under the name of another that was copied; the store
//! refuses, loses answers, and carries out the writes of the dead; in half of the seeds what is covered is deleted,
//! so that its names can be taken again. Clocks of hosts begin anywhere.
//!
//! **What must hold**: epochs only grow, and each holder has one of its own; the times of two holders, each by
//! its own account, do not overlap; there is one history, in which no segment of an earlier epoch stands behind
//! one of a later; what was acknowledged is in it for good; and once all has healed, somebody writes within a
//! bound.

mod host;
pub(crate) mod store;
mod world;

use std::fmt;

pub use world::run;

/// What a run came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Claims of the lease.
    pub claims: u64,
    /// Takeovers by another host.
    pub takeovers: u64,
    /// Transactions that were committed by applications.
    pub commits: u64,
    /// Of these, how many were acknowledged.
    pub acknowledged: u64,
    /// Of these committed, how many are in no history.
    pub lost_tails: u64,
    /// Holders that lost the lease.
    pub deposed: u64,
    /// First segments that met a predecessor's.
    pub overtaken: u64,
    /// Faults that struck.
    pub faults: u64,
    /// A hash of all that happened.
    pub hash: u64,
}

impl Summary {
    /// Adds what another run came to; hashes are left alone.
    pub fn add(&mut self, other: &Summary) {
        self.claims += other.claims;
        self.takeovers += other.takeovers;
        self.commits += other.commits;
        self.acknowledged += other.acknowledged;
        self.lost_tails += other.lost_tails;
        self.deposed += other.deposed;
        self.overtaken += other.overtaken;
        self.faults += other.faults;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "claims        {}, {} of them takeovers", self.claims, self.takeovers)?;
        writeln!(f, "deposed       {}", self.deposed)?;
        writeln!(f, "overtaken     {}", self.overtaken)?;
        let Summary { commits, acknowledged, lost_tails, .. } = self;
        writeln!(f, "commits       {commits}, {acknowledged} acknowledged, {lost_tails} in no history")?;
        writeln!(f, "faults        {}", self.faults)
    }
}

/// How many seeds `cargo test` tries.
pub const SEEDS_IN_TESTS: u64 = 2_000;
