//! What goes over the wire: how many requests, and what stands in them.

use driftless_adapters::object;
use driftless_adapters::object::settings::{
    AccessKeys, S3, Secret, Secret32, ServerEncryption, Service, Settings,
};
use driftless_adapters::store::{ByteRange, PutCondition, Store};
use driftless_tests::proxy::{Proxy, Record};
use driftless_tests::s3::Bucket;
use driftless_tests::servers::{Webdav, azurite, gcs, moto};

use crate::support::{
    azure, by_way_of, bytes, gcs as google, get, host, key, put, s3, settings, webdav, with_store,
};

fn place() -> (Bucket, Proxy) {
    let bucket = moto().bucket("requests");
    let proxy = Proxy::start(bucket.server());
    (bucket, proxy)
}

fn operations(proxy: &Proxy) -> Vec<&'static str> {
    let operations = proxy.records().iter().map(Record::operation).collect();
    proxy.forget();
    operations
}

#[test]
fn each_call_is_one_request_on_one_connection() {
    let (bucket, proxy) = place();
    with_store(Service::S3(by_way_of(&proxy, &bucket)), async |store, net| {
        put(&**store, "object", PutCondition::IfAbsent, &bytes(100_000)).await.unwrap();
        assert_eq!(operations(&proxy), ["PUT"]);
        for range in [ByteRange::ALL, ByteRange::at(5, 5), ByteRange::Tail(100), ByteRange::Tail(1 << 30)] {
            get(&**store, "object", range).await.unwrap();
            assert_eq!(operations(&proxy), ["GET"], "{range:?}");
        }
        get(&**store, "object", ByteRange::at(7, 0)).await.unwrap();
        assert_eq!(operations(&proxy), ["HEAD"]);
        assert!(get(&**store, "absent", ByteRange::ALL).await.is_err());
        assert_eq!(operations(&proxy), ["GET"]);
        assert_eq!(store.list("", None, 10).await.unwrap().entries.len(), 1);
        assert_eq!(operations(&proxy), ["LIST"]);
        store.delete(&key("object")).await.unwrap();
        assert_eq!(operations(&proxy), ["DELETE"]);
        assert_eq!(net.connections_opened(), 1);
    });
}

#[test]
fn conditions_stand_where_they_decide() {
    let (bucket, proxy) = place();
    let s3 = S3 { part_size: Some(5 << 20), ..by_way_of(&proxy, &bucket) };
    with_store(Service::S3(s3), async |store, _| {
        let with = |name: &str| {
            let records = proxy.records();
            proxy.forget();
            let with = records.iter().filter(|record| record.headers.get(name).is_some());
            with.map(Record::operation).collect::<Vec<_>>()
        };
        put(&**store, "small", PutCondition::IfAbsent, b"x").await.unwrap();
        assert_eq!(with("if-none-match"), ["PUT"]);
        put(&**store, "large", PutCondition::IfAbsent, &bytes(11 << 20)).await.unwrap();
        assert_eq!(with("if-none-match"), ["COMPLETE-UPLOAD"]);
        let version = store.get(&key("large"), ByteRange::at(0, 1)).await.unwrap().version().unwrap();
        put(&**store, "large", PutCondition::Matches(version), &bytes(6 << 20)).await.unwrap();
        assert_eq!(with("if-match"), ["COMPLETE-UPLOAD"]);
    });
}

/// The operations of a replica's life, with records of all requests.
fn life(s3: S3, proxy: &Proxy) -> Vec<Record> {
    with_store(Service::S3(S3 { part_size: Some(5 << 20), ..s3 }), async |store, _| {
        put(&**store, "small", PutCondition::IfAbsent, b"x").await.unwrap();
        put(&**store, "large", PutCondition::IfAbsent, &bytes(6 << 20)).await.unwrap();
        assert_eq!(get(&**store, "large", ByteRange::ALL).await.unwrap(), bytes(6 << 20));
        get(&**store, "small", ByteRange::at(0, 0)).await.unwrap();
    });
    proxy.records()
}

#[test]
fn options_stand_on_every_request_that_needs_them() {
    let (bucket, proxy) = place();
    let customer = ServerEncryption::Customer { key: Secret32(*b"0123456789abcdef0123456789abcdef") };
    let s3 = S3 {
        encryption: Some(customer),
        storage_class: Some("STANDARD_IA".into()),
        checksum: true,
        ..by_way_of(&proxy, &bucket)
    };
    for record in life(s3, &proxy) {
        let operation = record.operation();
        let has = |name| record.headers.get(name).is_some();
        assert!(has("x-amz-server-side-encryption-customer-key"), "{operation}");
        let makes = ["PUT", "CREATE-UPLOAD"].contains(&operation);
        assert_eq!(has("x-amz-storage-class"), makes, "{operation}");
        let carries = ["PUT", "PUT-PART"].contains(&operation);
        assert_eq!(has("x-amz-checksum-crc32c"), carries, "{operation}");
    }
    let (bucket, proxy) = place();
    let kms = ServerEncryption::Kms { key_id: Some("a-key".into()) };
    let s3 = S3 { encryption: Some(kms), ..by_way_of(&proxy, &bucket) };
    for record in life(s3, &proxy) {
        let operation = record.operation();
        let named = record.headers.get("x-amz-server-side-encryption-aws-kms-key-id") == Some("a-key");
        let makes = ["PUT", "CREATE-UPLOAD"].contains(&operation);
        assert_eq!(named, makes, "{operation}");
    }
}

#[test]
fn a_session_token_goes_with_each_request() {
    let (bucket, proxy) = place();
    proxy.allow_key_with_token("ASIATEMPORARY", "the-token");
    let secret = Secret::new("secret");
    let keys =
        AccessKeys { id: "ASIATEMPORARY".into(), secret, session_token: Some(Secret::new("the-token")) };
    let records = life(S3 { keys: Some(keys), ..by_way_of(&proxy, &bucket) }, &proxy);
    assert!(records.len() > 5);
    assert!(records.iter().all(|record| record.headers.get("x-amz-security-token") == Some("the-token")));
}

/// In blocks, in a resumable upload, by way of a file: each service has its own way.
#[test]
fn large_objects_arrive_whole() {
    let webdav_server = Webdav::start();
    let services = [
        Service::Azure(azure(&azurite().container("large"))),
        Service::Gcs(google(&gcs().bucket("large"))),
        Service::WebDav(webdav(&webdav_server, "", "")),
        Service::S3(s3(&moto().bucket("large"))),
    ];
    for service in services {
        let whole = bytes((30 << 20) + 17);
        with_store(service, async |store, _| {
            let how = match store.capabilities().create_if_absent {
                true => PutCondition::IfAbsent,
                false => PutCondition::Always,
            };
            put(&**store, "large", how, &whole).await.unwrap();
            assert!(get(&**store, "large", ByteRange::ALL).await.unwrap() == whole);
            let tail = get(&**store, "large", ByteRange::Tail(1000)).await.unwrap();
            assert_eq!(tail, whole[whole.len() - 1000..]);
        });
    }
}

/// Replicas in one bucket share what they need to know of it, and each keeps to its own place.
#[test]
fn stores_of_one_bucket_keep_apart() {
    let webdav_server = Webdav::start();
    let services = [
        Service::S3(s3(&moto().bucket("apart"))),
        Service::Azure(azure(&azurite().container("apart"))),
        Service::Gcs(google(&gcs().bucket("apart"))),
        Service::WebDav(webdav(&webdav_server, "", "")),
    ];
    for service in services {
        host(async |net| {
            let open = |root: &str| {
                let settings = Settings { root: root.into(), ..settings(service.clone()) };
                object::open(&settings, net).unwrap()
            };
            let (one, beside, whole) = (open("a/one"), open("a/one-more"), open(""));
            put(&*one, "0000/x", PutCondition::Always, b"1").await.unwrap();
            put(&*beside, "0000/x", PutCondition::Always, b"2").await.unwrap();
            assert_eq!(get(&*one, "0000/x", ByteRange::ALL).await.unwrap(), b"1");
            assert_eq!(get(&*beside, "0000/x", ByteRange::ALL).await.unwrap(), b"2");
            let names = async |store: &dyn Store, prefix: &str, after: Option<&str>| {
                let after = after.map(key);
                let page = store.list(prefix, after.as_ref(), 10).await.unwrap();
                page.entries.iter().map(|entry| entry.key.to_string()).collect::<Vec<_>>()
            };
            assert_eq!(names(&*one, "", None).await, ["0000/x"]);
            assert_eq!(names(&*one, "0000/", Some("0000/x")).await, [""; 0]);
            let both = ["a/one-more/0000/x", "a/one/0000/x"];
            assert_eq!(names(&*whole, "", None).await, both);
            assert_eq!(names(&*whole, "a/one", Some(both[0])).await, both[1..]);
            one.delete(&key("0000/x")).await.unwrap();
            assert_eq!(names(&*whole, "", None).await, both[..1]);
        });
    }
}
