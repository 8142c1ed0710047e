//! From a replica's place to a store that holds it.

use std::sync::Arc;

use driftless_adapters::directory::DirectoryStore;
use driftless_adapters::fs::RealFs;
use driftless_adapters::keys::ReplicaLayout;
use driftless_adapters::object::settings::Service;
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
        Replica::Object(settings) => {
            // Litestream's own: its S3 client names levels in another way than all the others do.
            let layout = match settings.service {
                Service::S3(_) => ReplicaLayout::Object,
                Service::Azure(_) | Service::Gcs(_) | Service::WebDav(_) => ReplicaLayout::Directory,
            };
            Ok((object::open(settings, net)?, layout))
        }
    }
}
