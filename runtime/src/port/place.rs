//! From a replica's place to a store that holds it.

use std::sync::Arc;

use driftless_adapters::directory::DirectoryStore;
use driftless_adapters::fs::RealFs;
use driftless_adapters::keys::ReplicaLayout;
use driftless_adapters::object::{self, Net};
use driftless_adapters::store::{Store, StoreError};

use crate::config::Replica;

/// The store of a replica, with the replica at its root, and the names of segments in it.
/// Nothing is touched or connected yet.
///
/// # Errors
/// `Misconfigured` for settings that cannot work.
pub fn open(replica: &Replica, net: &Net) -> Result<(Arc<dyn Store>, ReplicaLayout), StoreError> {
    match replica {
        Replica::Directory(directory) => {
            let store = DirectoryStore::new(RealFs, directory, std::process::id());
            Ok((Arc::new(store), ReplicaLayout::Directory))
        }
        Replica::Object(settings) => Ok((object::open(settings, net)?, ReplicaLayout::Object)),
    }
}
