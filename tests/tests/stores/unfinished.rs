//! Puts that never ended.

use std::time::Duration;

use driftless_adapters::object::settings::{S3, Service};
use driftless_adapters::store::PutCondition;
use driftless_tests::objects::Objects as _;
use driftless_tests::proxy::{Answer, Fault, Proxy, Rule};
use driftless_tests::servers::{Moto, Webdav, moto};
use driftless_tests::sign::{amz_date, http_date};

use crate::support::{by_way_of, bytes, failure, key, put, webdav, with_store};

/// The time as S3 writes it in lists.
fn now() -> String {
    let date = amz_date();
    let part = |from: usize, to: usize| &date[from..to];
    let (day, time) = ([part(0, 4), part(4, 6), part(6, 8)], [part(9, 11), part(11, 13), part(13, 15)]);
    format!("{}T{}.000Z", day.join("-"), time.join(":"))
}

#[test]
fn old_uploads_are_given_up_and_young_ones_are_not() {
    let bucket = moto().bucket("unfinished");
    for name in ["some/place/0000/a", "some/place/0000/b", "some/place/0001/a", "some/other/a"] {
        bucket.begin_upload(name);
    }
    let left = || bucket.uploads().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let proxy = Proxy::start(bucket.server());
    with_store(Service::S3(by_way_of(&proxy, &bucket)), async |store, _| {
        // moto says of each that it was begun in 2010.
        let young = Answer::status(200).body(format!(
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>some/place/0000/a</Key>\
             <UploadId>{}</UploadId><Initiated>{}</Initiated></Upload></ListMultipartUploadsResult>",
            bucket.uploads()[0].1,
            now()
        ));
        let young = young.header("Date", &http_date());
        let rule = proxy.add(Rule::new(Fault::Answer(young)).operation("LIST-UPLOADS"));
        assert_eq!(store.drop_unfinished("", Duration::from_secs(3600)).await, Ok(0));
        assert_eq!(left().len(), 4);
        proxy.remove(rule);
        assert_eq!(store.drop_unfinished("0000/", Duration::ZERO).await, Ok(2));
        assert_eq!(store.drop_unfinished("", Duration::ZERO).await, Ok(1));
        assert_eq!(left(), ["some/other/a"]);
    });
}

#[test]
fn whoever_may_not_list_uploads_is_told() {
    let server = Moto::strict();
    let bucket = server.bucket("unfinished");
    let denied = Answer::access_denied();
    let proxy = Proxy::start(bucket.server());
    proxy.add(Rule::new(Fault::Answer(denied)).operation("LIST-UPLOADS"));
    with_store(Service::S3(by_way_of(&proxy, &bucket)), async |store, _| {
        let (_, line) = failure(store.drop_unfinished("", Duration::ZERO).await);
        assert!(line.contains("s3:ListBucketMultipartUploads"), "{line}");
    });
}

/// A put that fails or is dropped takes its upload with it, if the process lives on.
#[test]
fn a_put_that_fails_leaves_no_upload() {
    let bucket = moto().bucket("unfinished");
    let proxy = Proxy::start(bucket.server());
    let s3 = S3 { part_size: Some(5 << 20), ..by_way_of(&proxy, &bucket) };
    with_store(Service::S3(s3), async |store, _| {
        let gone = async |proxy: &Proxy| {
            while proxy
                .records()
                .iter()
                .all(|record| record.operation() != "ABORT-UPLOAD" || record.took.is_none())
            {
                smol::Timer::after(Duration::from_millis(5)).await;
            }
            assert_eq!(bucket.uploads(), []);
            let parts: Vec<_> = proxy.records().into_iter().filter(|r| r.operation() == "PUT-PART").collect();
            let mut queries: Vec<_> = parts.iter().map(|record| &record.query).collect();
            queries.sort_unstable();
            queries.dedup();
            assert_eq!(queries.len(), parts.len(), "no part is sent twice");
            proxy.forget();
        };
        proxy.add(Rule::new(Fault::Answer(Answer::internal_error())).operation("PUT-PART").skip(1).times(1));
        failure(put(&**store, "object", PutCondition::IfAbsent, &bytes(16 << 20)).await);
        gone(&proxy).await;
        let mut body = store.put(&key("object"), PutCondition::IfAbsent).await.unwrap();
        for part in bytes(16 << 20).chunks(1 << 20) {
            body.write(part.to_vec()).await.unwrap();
        }
        assert_eq!(bucket.uploads().len(), 1);
        drop(body);
        gone(&proxy).await;
    });
    assert_eq!(bucket.count(), 0);
}

#[test]
fn temporaries_on_webdav_are_given_up() {
    let server = Webdav::start();
    server.put("some/place/0000/a.0123.tmp", b"half");
    server.put("some/place/0000/b", b"whole");
    with_store(Service::WebDav(webdav(&server, "", "")), async |store, _| {
        let listed = store.list("", None, 10).await.unwrap().entries;
        assert_eq!(listed.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["0000/b"]);
        assert_eq!(store.drop_unfinished("", Duration::from_secs(3600)).await, Ok(0));
        assert_eq!(store.drop_unfinished("", Duration::ZERO).await, Ok(1));
    });
    assert_eq!(server.list().into_keys().collect::<Vec<_>>(), ["some/place/0000/b"]);
}
