//! Shares of what all machines of a process have together.
//!
//! Thousands of databases share one processor and one line to the store. What only some of them may do at
//! once is asked for, done, and given back; a machine that ends gives back what it holds by its end.

use super::OpId;

/// What there is only so much of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Budget {
    /// Compactions, and passes of the retention, under way at once, each with some megabytes of memory.
    Compaction,
    /// Validations of a replica under way at once: whatever they read, the application's host reads beside
    /// what it replicates.
    Validation,
}

/// A request for a share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrantRequest {
    /// Complete once a share is there. Shares are given in the order in which they were asked for.
    Take(Budget),
    /// It is no longer needed. Nobody waits for the answer.
    Return {
        /// The request that was granted.
        grant: OpId,
    },
}
