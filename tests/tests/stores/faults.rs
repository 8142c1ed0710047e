//! Requests that go wrong on the way: what became of a put is told exactly, or said to be unknown.

use std::sync::Arc;

use driftless_adapters::object::settings::{S3, Service};
use driftless_adapters::store::{ByteRange, PutCondition, Store, StoreErrorKind};
use driftless_tests::objects::Objects as _;
use driftless_tests::proxy::{Answer, Fault, Proxy, Rule};
use driftless_tests::s3::Bucket;
use driftless_tests::servers::moto;
use futures_lite::FutureExt as _;

use crate::support::{by_way_of, bytes, failure, get, put, with_store};

fn place() -> (Bucket, Proxy) {
    let bucket = moto().bucket("faults");
    let proxy = Proxy::start(bucket.server());
    (bucket, proxy)
}

/// A put of so many bytes meets a fault; the kind of its failure, and whether the object is there.
fn put_meets(rule: Rule, len: usize, change: impl FnOnce(S3) -> S3) -> (StoreErrorKind, bool) {
    let (bucket, proxy) = place();
    proxy.add(rule.times(1));
    let s3 = change(by_way_of(&proxy, &bucket));
    let (kind, _) = with_store(Service::S3(s3), async |store, _| {
        failure(put(&**store, "object", PutCondition::IfAbsent, &bytes(len)).await)
    });
    (kind, bucket.count() > 0)
}

fn same(s3: S3) -> S3 {
    s3
}

/// 6 MiB in two parts.
fn in_parts(s3: S3) -> S3 {
    S3 { part_size: Some(5 << 20), ..s3 }
}

#[test]
fn a_put_whose_answer_is_lost_is_ambiguous() {
    let check = |fault, there| {
        assert_eq!(put_meets(Rule::new(fault).method("PUT"), 1000, same), (StoreErrorKind::Ambiguous, there));
    };
    check(Fault::CutAfter, true);
    check(Fault::CutBefore, false);
    check(Fault::AnswerAfter(Answer::internal_error()), true);
    check(Fault::Answer(Answer::unavailable()), false);
}

#[test]
fn a_put_that_was_turned_away_has_not_happened() {
    let check = |fault, len, kind| {
        let one_request = |s3| S3 { part_size: Some(100 << 20), ..s3 };
        assert_eq!(put_meets(Rule::new(fault).method("PUT"), len, one_request), (kind, false));
    };
    check(Fault::Answer(Answer::slow_down()), 1000, StoreErrorKind::Retry);
    check(Fault::Answer(Answer::too_many_requests(1)), 1000, StoreErrorKind::Retry);
    check(Fault::Answer(Answer::conflict()), 1000, StoreErrorKind::Conflict);
    check(Fault::CutWithin(1 << 20), 40 << 20, StoreErrorKind::Retry);
}

#[test]
fn the_end_of_an_upload_in_parts_decides() {
    let check = |operation, fault, kind, there| {
        let met = put_meets(Rule::new(fault).operation(operation), 6 << 20, in_parts);
        assert_eq!(met, (kind, there), "{operation}");
    };
    check("COMPLETE-UPLOAD", Fault::CutAfter, StoreErrorKind::Ambiguous, true);
    check("COMPLETE-UPLOAD", Fault::Answer(Answer::internal_error()), StoreErrorKind::Ambiguous, false);
    check("COMPLETE-UPLOAD", Fault::Answer(Answer::slow_down()), StoreErrorKind::Retry, false);
    // Parts are not visible, so nothing about them is ambiguous.
    check("PUT-PART", Fault::CutAfter, StoreErrorKind::Retry, false);
    check("PUT-PART", Fault::Answer(Answer::internal_error()), StoreErrorKind::Retry, false);
    check("CREATE-UPLOAD", Fault::CutAfter, StoreErrorKind::Retry, false);
    // It is answered 200 before it is decided, and the body then says no.
    let late = Answer::status(200).body("<Error><Code>InternalError</Code><Message>later</Message></Error>");
    check("COMPLETE-UPLOAD", Fault::Answer(late), StoreErrorKind::Ambiguous, false);
}

#[test]
fn reads_that_break_may_be_tried_again() {
    let (bucket, proxy) = place();
    bucket.put("some/place/object", &bytes(100_000));
    with_store(Service::S3(by_way_of(&proxy, &bucket)), async |store, _| {
        let faults = [
            Fault::Truncate(100),
            Fault::CutBefore,
            Fault::CutAfter,
            Fault::Answer(Answer::internal_error()),
            Fault::Answer(Answer::slow_down()),
        ];
        for fault in faults {
            let rule = proxy.add(Rule::new(fault).method("GET"));
            let (kind, line) = failure(get(&**store, "object", ByteRange::ALL).await);
            assert_eq!(kind, StoreErrorKind::Retry, "{line}");
            let (kind, line) = failure(store.list("", None, 10).await);
            assert_eq!(kind, StoreErrorKind::Retry, "{line}");
            assert_eq!(proxy.remove(rule), 2, "nothing is tried twice");
        }
        assert_eq!(get(&**store, "object", ByteRange::ALL).await.unwrap(), bytes(100_000));
    });
}

#[test]
fn a_call_that_is_given_up_closes_its_connection() {
    let (bucket, proxy) = place();
    with_store(Service::S3(by_way_of(&proxy, &bucket)), async |store, _| {
        proxy.add(Rule::new(Fault::HangAfter).times(1));
        let hangs = async { Some(put(&**store, "object", PutCondition::Always, b"x").await) };
        let arrives = async {
            let proxy = &proxy;
            while proxy.records().iter().all(|record| record.server_status.is_none()) {
                smol::Timer::after(std::time::Duration::from_millis(5)).await;
            }
            None
        };
        assert!(hangs.or(arrives).await.is_none());
        while proxy.connections() > 0 {
            smol::Timer::after(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(get(&**store, "object", ByteRange::ALL).await.unwrap(), b"x");
    });
}

#[test]
fn nobody_listening_is_no_effect() {
    let (bucket, proxy) = place();
    let s3 = by_way_of(&proxy, &bucket);
    proxy.refuse(None);
    with_store(Service::S3(s3), async |store: &Arc<dyn Store>, _| {
        let (kind, line) = failure(put(&**store, "object", PutCondition::IfAbsent, b"x").await);
        assert_eq!(kind, StoreErrorKind::Retry, "{line}");
        assert!(line.contains("refused"), "{line}");
        proxy.heal();
        put(&**store, "object", PutCondition::IfAbsent, b"x").await.unwrap();
    });
}
