//! The leaves: each request of a machine becomes one call here.
//!
//! Nothing in these files orders, retries or refuses for safety's sake; that is the core's. What
//! they do is translate: paths and keys, error kinds, bytes. The source and the local state are
//! plain synchronous calls over seams that the simulator implements too, so that the same code
//! runs in ring 0; only the store is asynchronous.

pub mod buffers;
#[cfg(not(madsim))]
pub mod copy;
pub mod grant;
pub mod lease;
pub mod output;
#[cfg(not(madsim))]
pub mod place;
pub mod scratch;
#[cfg(not(madsim))]
pub mod source;
pub mod state;
pub mod store;
#[cfg(not(madsim))]
pub mod vacancy;
mod writeback;

use std::sync::{Arc, Mutex};

use driftless_core::machine::{
    Chunk, CopyError, CopyReply, CopyRequest, OutputError, OutputRequest, ScratchRequest, SourceError,
    SourceReply, SourceRequest, StateReply, StateRequest,
};

/// A port whose calls block: what lies on this host. Whoever runs machines puts the system's files
/// behind it, or a simulated disk.
pub trait Blocking<Q>: Send {
    /// What a request comes to.
    type Answer;

    /// Does one thing.
    fn perform(&mut self, request: &Q) -> Self::Answer;
}

/// A port that calls on several threads take turns with.
pub type Shared<Q, A> = Arc<Mutex<dyn Blocking<Q, Answer = A>>>;
/// The database that is replicated.
pub type Source = Shared<SourceRequest, Result<SourceReply, SourceError>>;
/// One machine's records in the local journal.
pub type State = Shared<StateRequest, Result<StateReply, String>>;
/// What a machine puts aside.
pub type PutAside = Shared<ScratchRequest, Result<Chunk, String>>;
/// The file that a restore builds.
pub type Output = Shared<OutputRequest, Result<Chunk, OutputError>>;
/// The copy that follows a replica.
pub type Copy = Shared<CopyRequest, Result<CopyReply, CopyError>>;

/// Whether a request to the source is so short that a thread of its own costs more than it.
pub fn is_short(request: &SourceRequest) -> bool {
    matches!(
        request,
        SourceRequest::Look
            | SourceRequest::Stat
            | SourceRequest::BeginRead(_)
            | SourceRequest::EndRead(_)
            | SourceRequest::BeginImmediate(_)
            | SourceRequest::Rollback(_)
            | SourceRequest::HasMoved
            | SourceRequest::FramePages { .. }
            | SourceRequest::ReadWal { recent: true, .. }
            | SourceRequest::ReadWalParts { recent: true, .. }
            | SourceRequest::ReadDatabase { recent: true, .. }
    )
}
