//! Object stores, reached through opendal over a transport of our own.

pub mod settings;

use std::sync::Arc;

use smol::Executor;

use crate::store::{Store, StoreError, StoreErrorKind};
use settings::Settings;

/// What the object stores of a process share: the executor that their connections run on. Whoever
/// awaits an operation must run it beside.
#[derive(Clone)]
pub struct Net {
    executor: Arc<Executor<'static>>,
}

impl Net {
    /// Nothing is connected yet.
    pub fn new(executor: Arc<Executor<'static>>) -> Net {
        Net { executor }
    }

    /// The executor to run.
    pub fn executor(&self) -> &Arc<Executor<'static>> {
        &self.executor
    }
}

/// The store that `settings` name. Nothing is connected yet.
///
/// # Errors
/// `Misconfigured` for settings that cannot work.
pub fn open(settings: &Settings, _net: &Net) -> Result<Arc<dyn Store>, StoreError> {
    let cause = "object stores are not in this release";
    Err(StoreError::new(StoreErrorKind::Unsupported, settings.url(), cause))
}
