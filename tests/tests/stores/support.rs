//! Settings for servers of tests, and a host for their stores.

use std::sync::Arc;

use driftless_adapters::object::settings::{
    AccessKeys, Azure, Gcs, S3, Secret, Service, Settings, Transport, WebDav,
};
use driftless_adapters::object::{self, Net};
use driftless_adapters::store::Store;
use driftless_tests::s3::Bucket;
use driftless_tests::servers::{self, ACCOUNT, ACCOUNT_KEY, Container, GcsBucket, Webdav, azurite};

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

/// A container of azurite's.
pub fn azure(container: &Container) -> Azure {
    Azure {
        container: container.name().into(),
        account: ACCOUNT.into(),
        account_key: Some(Secret::new(ACCOUNT_KEY)),
        sas_token: None,
        endpoint: Some(azurite().endpoint()),
    }
}

/// A bucket of our server that speaks like Google's.
pub fn gcs(bucket: &GcsBucket) -> Gcs {
    let endpoint = Some(servers::gcs().endpoint());
    Gcs { bucket: bucket.name().into(), endpoint, credential_path: None, anonymous: true }
}

/// A WebDAV server of a test's own.
pub fn webdav(server: &Webdav, username: &str, password: &str) -> WebDav {
    let password = Some(Secret::new(password));
    WebDav { url: format!("http://{}", server.address()), username: Some(username.into()), password }
}
