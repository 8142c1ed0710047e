//! Settings for servers of tests, and a host for their stores.

use std::sync::Arc;

use driftless_adapters::keys::Key;
use driftless_adapters::object::settings::{
    AccessKeys, Azure, Gcs, S3, Secret, Service, Settings, Transport, WebDav,
};
use driftless_adapters::object::{self, Net};
use driftless_adapters::store::{ByteRange, PART_BYTES_MAX, PutCondition, Store, StoreError, StoreErrorKind};
use driftless_tests::proxy::Proxy;
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

/// A bucket by way of a proxy.
pub fn by_way_of(proxy: &Proxy, bucket: &Bucket) -> S3 {
    S3 { endpoint: Some(proxy.url()), ..s3(bucket) }
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

/// A key of a test's object.
pub fn key(name: &str) -> Key {
    Key::new(name).expect("a good name")
}

/// Puts an object, whole.
pub async fn put(store: &dyn Store, name: &str, how: PutCondition, bytes: &[u8]) -> Result<(), StoreError> {
    let mut body = store.put(&key(name), how).await?;
    for part in bytes.chunks(PART_BYTES_MAX) {
        body.write(part.to_vec()).await?;
    }
    body.commit().await.map(drop)
}

/// Reads a range, whole.
pub async fn get(store: &dyn Store, name: &str, range: ByteRange) -> Result<Vec<u8>, StoreError> {
    let mut body = store.get(&key(name), range).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await? {
        bytes.extend(chunk);
    }
    Ok(bytes)
}

/// Bytes that differ from place to place.
pub fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// The kind and the hint of what must have failed.
#[track_caller]
pub fn failure<T>(got: Result<T, StoreError>) -> (StoreErrorKind, String) {
    match got {
        Ok(_) => panic!("it succeeded"),
        Err(error) => {
            let line = error.to_string();
            assert!(!line.contains('\n') && line.len() < 500, "{line}");
            (error.kind, format!("{line}; {}", error.hint.unwrap_or_default()))
        }
    }
}
