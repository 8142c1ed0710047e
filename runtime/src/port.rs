//! The leaves: each request of a machine becomes one call here.
//!
//! Nothing in these files orders, retries or refuses for safety's sake; that is the core's. What
//! they do is translate: paths and keys, error kinds, bytes. The source and the local state are
//! plain synchronous calls over seams that the simulator implements too, so that the same code
//! runs in ring 0; only the store is asynchronous.

pub mod buffers;
pub mod output;
pub mod place;
pub mod scratch;
pub mod source;
pub mod state;
pub mod store;
pub mod vacancy;
