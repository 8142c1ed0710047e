//! Settings for servers of tests, and a host for their stores.

use std::sync::Arc;

use driftless_adapters::object::settings::{AccessKeys, S3, Secret, Service, Settings, Transport};
use driftless_adapters::object::{self, Net};
use driftless_adapters::store::Store;
use driftless_tests::s3::Bucket;

/// Settings of a place, all else being as it is by default.
pub fn settings(service: Service) -> Settings {
    Settings { root: "some/place".into(), service, transport: Transport::default() }
}

/// A bucket of moto's, with its own key.
pub fn s3(bucket: &Bucket) -> S3 {
    let key = bucket.key();
    S3 {
        bucket: bucket.name().into(),
        region: Some("us-east-1".into()),
        endpoint: Some(bucket.endpoint()),
        path_style: true,
        keys: Some(AccessKeys {
            id: key.id.clone(),
            secret: Secret::new(key.secret.clone()),
            session_token: None,
        }),
        ..S3::default()
    }
}

/// Runs `work` beside the executor of a fresh [`Net`].
pub fn host<T>(work: impl AsyncFnOnce(&Net) -> T) -> T {
    let net = Net::new(Arc::new(smol::Executor::new()));
    let executor = Arc::clone(net.executor());
    smol::block_on(executor.run(work(&net)))
}

/// The same with one store.
pub fn with_store<T>(service: Service, work: impl AsyncFnOnce(&Arc<dyn Store>, &Net) -> T) -> T {
    host(async |net| {
        let store = object::open(&settings(service), net).expect("settings that can work");
        work(&store, net).await
    })
}
